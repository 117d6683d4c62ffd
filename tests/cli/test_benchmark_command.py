from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import command_line
import numpy as np
import pytest
import soundfile
import torch
from command_line import rows_of
from exported import exported
from full_size import full_size
from plain import small_model

from spectrim.inference.opening import open_model
from spectrim.measure import benchmark
from spectrim.measure.compare import compare

run = partial(command_line.run, "benchmark")

ALONE = ["--batch-sizes", "1,2", "--repeats", 2]
QUICK = [*ALONE, "--passes", 1]
TIMES = ("files_ms", "files_q1_ms", "files_q3_ms", "files_per_second", "files_speed_up", "read_share")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """One model that gives a label, and one that gives several."""
    folder = tmp_path_factory.mktemp("models")
    sizes = {"num_hidden_layers": 3, "prune_at": [1], "max_length": 64, "mean": -9.0, "std": 5.0, "num_labels": 7}
    for kind in ("single", "multi"):
        model = small_model("ast", dtype=torch.float32, problem_type=f"{kind}_label_classification", **sizes)
        model.save_pretrained(folder / kind)
    return {kind: str(folder / kind) for kind in ("single", "multi")}


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four clips in a folder below the current one."""
    monkeypatch.chdir(tmp_path)
    folder = Path("clips")
    folder.mkdir()
    for seed in range(4):
        samples = 0.1 * (1 + seed) * np.random.default_rng(seed).standard_normal(9000)
        soundfile.write(folder / f"{seed}.wav", samples, 16000)
    return folder


@pytest.mark.parametrize("form", ["table", "csv", "json"])
def test_the_model_alone(checkpoints: dict[str, str], form: str) -> None:
    code, out, _ = run("--model", checkpoints["single"], "--keep-rates", "1,0.5", *ALONE, "--format", form)
    assert code == 0
    cases = [(1, 1.0), (1, 0.5), (2, 1.0), (2, 0.5)]
    if form == "json":
        content = json.loads(out)
        assert content["environment"]["versions"]["torch"] == torch.__version__
        assert [(row["batch_size"], row["keep_rate"]) for row in content["rows"]] == cases
        assert "clips" not in content
    elif form == "csv":
        rows = rows_of(out)
        assert [(int(row["batch_size"]), float(row["keep_rate"])) for row in rows] == cases
        assert rows[0]["environment.versions.torch"] == torch.__version__
        assert float(rows[0]["speed_up"]) == 1.0
    else:
        assert re.search(r"\d \[\d+\.\d\d, \d+\.\d\d\]", out)
        assert "executed macs" in out
        assert "agreement" not in out
        assert torch.__version__ in out


def untimed(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in TIMES}


@pytest.mark.parametrize("kind", ["single", pytest.param("multi", marks=full_size)])
def test_clips_in_every_form(checkpoints: dict[str, str], clips: Path, kind: str) -> None:
    options = ["--model", checkpoints[kind], "--clips", clips, "--keep-rates", "1,0.3", *QUICK, "--threshold", 0.4]
    expected = compare([clips], open_model(checkpoints[kind]), [1, 0.3], passes=1, threshold=0.4, draws=2)
    code, out, err = run(*options, "--format", "json")
    assert (code, err) == (0, "")
    content = json.loads(out)
    assert [untimed(row) for row in content["clips"]["rows"]] == [pytest.approx(untimed(row)) for row in expected.rows]
    assert all(row[name] > 0 for row in content["clips"]["rows"] for name in TIMES)
    assert (content["clips"]["clips"], content["clips"]["unreadable"], content["clips"]["passes"]) == (4, 0, 1)
    assert content["clips"].get("threshold") == (0.4 if kind == "multi" else None)
    code, out, _ = run(*options, "--format", "csv")
    rows = rows_of(out)
    assert [(row["batch_size"], row["keep_rate"]) for row in rows] == [
        ("1", "1.0"),
        ("1", "0.3"),
        ("2", "1.0"),
        ("2", "0.3"),
    ]
    for row in rows:
        same = expected.rows[row["keep_rate"] != "1.0"]
        assert float(row["clip_change"]) == pytest.approx(same["clip_change"])
        assert row["clips.clips"] == "4"
    code, out, _ = run(*options)
    assert code == 0
    pruned = expected.rows[1]
    ends = f"{pruned['agreement_low']:.1%}"[:-1], f"{pruned['agreement_high']:.1%}"
    assert f"{pruned['agreement']:.1%} [{', '.join(ends)}]" in out
    assert ("label overlap" in out, "top5 overlap" in out) == (kind == "multi", kind == "multi")
    assert "4 clips, 4 windows, " in out
    assert "random agreement" in out and f"{pruned['random_agreement']:.1%}" in out
    assert "agreement by its own pruning: cannot say whether better than random at r=0.3." in out
    code, out, _ = run(*options, "--draws", 0)
    assert code == 0 and "random agreement" not in out and "by its own pruning" not in out
    assert "torch threads" in out


def test_unreadable_clips_are_named_and_the_rest_goes_on(checkpoints: dict[str, str], clips: Path) -> None:
    (clips / "2 broken.wav").write_bytes((clips / "2.wav").read_bytes()[:5000])
    (clips / "empty.wav").touch()
    options = ["--model", checkpoints["single"], "--keep-rates", "1,0.5", *QUICK, "--format", "json"]
    code, out, err = run("--clips", clips, *options)
    assert code == 1
    first, second, last = err.splitlines()
    assert first.startswith("spectrim: clips/2 broken.wav: truncated: the header promises ")
    assert second == "spectrim: clips/empty.wav: empty file (0 bytes)"
    assert last == "spectrim: 2 of 6 clips could not be read"
    content = json.loads(out)
    assert (content["clips"]["clips"], content["clips"]["unreadable"]) == (4, 2)
    assert len(content["rows"]) == 4
    code, out, err = run("--clips", clips / "empty.wav", "--clips", clips / "2 broken.wav", *options)
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("spectrim: none of the 2 clips can be read; the first: clips/empty.wav: ")


def test_limit(checkpoints: dict[str, str], clips: Path) -> None:
    code, out, _ = run(
        "--model",
        checkpoints["single"],
        "--clips",
        clips,
        "--limit",
        2,
        "--keep-rates",
        "0.5",
        *QUICK,
        "--format",
        "json",
    )
    expected = compare([clips / "0.wav", clips / "3.wav"], open_model(checkpoints["single"]), [0.5], passes=1, draws=2)
    assert code == 0
    [row] = json.loads(out)["clips"]["rows"]
    assert untimed(row) == pytest.approx(untimed(expected.rows[0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clips", "none"], "no audio file in this folder"),
        (["--clips", "no such folder"], "clips is 'no such folder'; allowed: a folder, file or pattern"),
        (["--clips", "clips", "--limit", "0"], "limit is "),
        (["--clips", "clips", "--passes", "0"], "passes is "),
        (["--clips", "clips", "--workers", "0"], "workers is "),
        (["--clips", "clips", "--threshold", "1.5"], "threshold is 1.5; allowed: a number between 0 and 1"),
        (["--clips", "clips", "--keep-rates", "1,2"], "keep_rate is 2.0; allowed: a number in (0, 1]"),
        (["--limit", "3"], "limit is 3; allowed: together with --clips"),
        (["--workers", "3"], "workers is 3; allowed: together with --clips"),
        (["--passes", "50"], "passes is 50; allowed: together with --clips"),
        (["--draws", "0"], "draws is 0; allowed: together with --clips"),
        (["--threshold", "0.9"], "threshold is 0.9; allowed: together with --clips"),
        (["--threads", "0"], "threads is "),
        (["--threads", "100000"], "threads is 100000; allowed: 1 to "),
        (["--clips", "clips", "--batch-sizes", "4,0"], "batch_sizes is 0; allowed: 1 or more"),
        (["--clips", "clips", "--repeats", "0"], "repeats is 0; allowed: 1 or more"),
        (["--keep-rates", "1,fast"], "keep-rates is '1,fast'"),
    ],
)
def test_wrong_use_is_refused_before_anything_runs(
    checkpoints: dict[str, str], clips: Path, options: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("none").mkdir()
    monkeypatch.setattr("spectrim.measure.timed_passes.decoded_windows", None)
    monkeypatch.setattr(benchmark, "interleaved", None)
    code, out, err = run("--model", checkpoints["single"], *options)
    assert (code, out) == (2, "")
    assert message in err


def test_threads_are_set_for_the_run_and_restored(checkpoints: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    before = torch.get_num_threads()
    wanted = 3 if before != 3 else 2
    seen = []
    true = benchmark.interleaved

    def watched(*arguments: Any, **options: Any) -> Any:
        seen.append(torch.get_num_threads())
        return true(*arguments, **options)

    monkeypatch.setattr(benchmark, "interleaved", watched)
    options = ["--model", checkpoints["single"], "--keep-rates", "1", *ALONE, "--format", "json"]
    code, out, _ = run(*options, "--threads", wanted)
    assert (code, seen, torch.get_num_threads()) == (0, [wanted], before)
    assert json.loads(out)["environment"]["torch_threads"] == wanted
    code, out, _ = run(*options)
    assert json.loads(out)["environment"]["torch_threads"] == before
    monkeypatch.setattr(benchmark, "interleaved", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    assert run(*options, "--threads", wanted)[0] == 130
    assert torch.get_num_threads() == before


def test_precision(checkpoints: dict[str, str], clips: Path) -> None:
    options = ["--clips", clips, "--keep-rates", "0.5", "--precision", "bf16", "--draws", 0, *QUICK, "--format", "json"]
    code, out, err = run("--model", checkpoints["single"], *options)
    assert (code, err) == (0, "")
    rounded, own = open_model(checkpoints["single"], precision="bf16"), open_model(checkpoints["single"])
    expected = compare([clips], rounded, [0.5], dense=own, passes=1)
    content = json.loads(out)
    assert (content["precision"], content["clips"]["dense_precision"]) == ("bfloat16", "float32")
    assert untimed(content["clips"]["rows"][0]) == pytest.approx(untimed(expected.rows[0]), rel=1e-3)
    table = [option for option in options if option not in ("--format", "json")]
    assert "compared with the dense model in float32" in " ".join(
        run("--model", checkpoints["single"], *table)[1].split()
    )
    code, out, _ = run("--model", checkpoints["single"], *options, "--precision", "fp32")
    assert "dense_precision" not in json.loads(out)["clips"]
    code, out, err = run("--model", checkpoints["single"], *options, "--precision", "fp8")
    assert (code, out) == (2, "")
    assert err.startswith("spectrim: precision is 'fp8'; allowed: one of")


@pytest.mark.parametrize("front_end", [pytest.param(False, marks=full_size), True])
def test_an_exported_file(clips: Path, front_end: bool) -> None:
    _, path = exported("ast" if front_end else "audiomae", front_end=front_end)
    code, out, err = run("--model", path, "--clips", clips, *QUICK, "--format", "json")
    assert (code, err) == (0, "")
    content = json.loads(out)
    assert [(row["batch_size"], row["keep_rate"]) for row in content["rows"]] == [(1, 0.6), (2, 0.6)]
    [row] = content["clips"]["rows"]
    assert (row["keep_rate"], "agreement" in row, content["precision"]) == (0.6, False, "fp32")
    assert "onnxruntime" in content["environment"]["versions"]
    code, out, _ = run("--model", path, "--clips", clips, *QUICK)
    assert code == 0
    assert "read share" in out
    code, out, err = run("--model", path, "--keep-rates", "0.5", *ALONE)
    assert (code, out) == (2, "")
    assert err.startswith(f"spectrim: keep_rate is 0.5; allowed: nothing here: {path.name}")
