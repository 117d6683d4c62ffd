from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from command_line import rows_of, run
from full_size import full_size

from spectrim import __version__
from spectrim.assets import KNOWS, packaged_clips
from spectrim.audio.feature_extractor import SpectrimFeatureExtractor
from spectrim.backbones import ast_base
from spectrim.checkpoints import from_pretrained
from spectrim.cli import app as cli
from spectrim.data.speech_commands import WORDS
from spectrim.errors import SpectrimError
from spectrim.inference.output_file import OutputFile
from spectrim.inference.predict import predict_files
from spectrim.network.transformer import AudioTransformer

HEAVY = ("torch", "transformers", "numpy", "soundfile", "matplotlib", "scipy", "sklearn")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    config = ast_base(
        hidden_size=64,
        num_attention_heads=4,
        intermediate_size=128,
        num_hidden_layers=4,
        prune_at=[1, 2],
        max_length=128,
        mean=-9.0,
        std=5.0,
        initializer_range=0.2,
        head_init_std=1.0,
        keep_rate=0.7,
        id2label=dict(enumerate(WORDS)),
        label2id={word: index for index, word in enumerate(WORDS)},
        problem_type="single_label_classification",
    )
    folder = tmp_path_factory.mktemp("model")
    AudioTransformer(config).save_pretrained(folder)
    SpectrimFeatureExtractor.from_config(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three good files and one bad, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for index, seconds in enumerate((1.0, 3.0, 0.5)):
        samples = 0.2 * np.random.default_rng(index).standard_normal(round(16000 * seconds))
        soundfile.write(f"clip [{index}].wav", samples, 16000)
    Path("clip bad.wav").touch()
    return sorted(str(path) for path in Path().glob("*.wav"))


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """The command line in a process of its own, which Ctrl-C reaches even where the tests run in the background."""
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from spectrim.cli.app import main; main()"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


# Help, version, wrong use


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["predict", "--help"], ["data", "--help"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from spectrim.cli.app import main\n"
        "try: main()\n"
        f"except SystemExit as end: print('loaded:', end.code, *(set({HEAVY!r}) & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "loaded: 0"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["predict", "x.wav", "--keep-rate", "0,7"], "keep_rate is '0,7'; allowed: a number in (0, 1], e.g. 0.7"),
        (["predict", "x.wav", "--keep-rate", ""], "keep_rate is ''; allowed: a number in (0, 1], e.g. 0.7"),
        (["predict", "x.wav", "--window", "1s"], "window is '1s'; allowed: a number, e.g. 0.7"),
        (["predict", "x.wav", "--top", "2.5"], "top is '2.5'; allowed: a whole number"),
        (["predict", "x.wav", "--top", "0"], "top is '0'; allowed: 1 or more"),
        (["app", "--port", "70000"], "port is '70000'; allowed: 65535 or less"),
        (["data", "check", "csv", "x.csv", "--max-listed", "many"], "max_listed is 'many'; allowed: a whole number"),
    ],
)
def test_numbers_that_are_none_are_shown_with_what_is_allowed(arguments: list[str], said: str) -> None:
    assert run(*arguments) == (2, "", f"spectrim: {said}\n")


@pytest.mark.skipif(sys.platform == "win32", reason="a shell of POSIX closes the stream")
def test_standard_output_that_is_closed() -> None:
    def closed(redirection: str) -> tuple[int, str, str]:
        line = f'"$0" -m spectrim --version {redirection}'
        ended = subprocess.run(["sh", "-c", line, sys.executable], capture_output=True, text=True)
        return ended.returncode, ended.stdout, ended.stderr

    said = "spectrim: standard output is closed; where nobody reads it, send it to /dev/null\n"
    assert closed(">&-") == (2, "", said)
    assert closed("2>&- <&-") == (0, f"spectrim {__version__}\n", "")


def test_version_and_list_of_commands() -> None:
    assert run("--version") == (0, f"spectrim {__version__}\n", "")
    code, out, _ = run("--help")
    assert code == 0
    listed = [line.split()[1] for line in out[out.index("Commands") :].splitlines() if line.startswith("│ ")]
    tagging, training = {"demo", "predict", "explain", "info"}, {"train", "pretrain", "reproduce", "data"}
    assert tagging | training | {"evaluate", "analyze", "benchmark", "export"} <= set(listed)


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict"],
        ["predict", "a.wav", "--top", "0"],
        ["predict", "a.wav", "--keep-rate", "much"],
        ["predict", "a.wav", "--unknown"],
        ["predict", "a.wav", "--format", "xml"],
        ["predict", "a.wav", "--resume"],
        ["predict", "a.wav", "--output", "out.txt"],
        ["predict", "a.wav", "--output", "out.csv", "--format", "table"],
        ["predict", "a.wav", "--engine", "dask"],
        ["predict", "a.wav", "--engine", "ray"],
        ["predict", "a.wav", "--engine", "ray", "--output", "out.csv"],
        ["predict", "a.wav", "--engine", "ray", "--output", "out", "--events", "tracks"],
        ["predict", "a.wav", "--engine", "ray", "--output", "out", "--backend", "auto"],
        ["predict", "a.wav", "--part-files", "10"],
        ["predict", "none/"],
        ["predict", "*.none"],
        ["nothing"],
        ["benchmark", "--keep-rates", "1,fast"],
        ["benchmark", "--format", "xml"],
        ["demo", "--format", "xml"],
        ["info", "--format", "xml"],
        ["data", "synthesize", "everything", "out"],
        ["train", "none.yaml", "--data", ".", "--output", "out"],
    ],
)
def test_wrong_use_exits_with_2(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none").mkdir()
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert err.strip()
    assert [path.name for path in tmp_path.iterdir()] == ["none"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--keep-rate", "0"], "keep_rate is 0.0; allowed: a number in (0, 1]"),
        (["--window", "2"], "window is 2.0; allowed: up to 1.295 seconds, the 128 frames of this model"),
        (["--hop", "0"], "hop is 0.0; allowed: a positive number of seconds"),
        (["--aggregate", "sum"], "aggregate is 'sum'; allowed: one of max, mean, none"),
        (["--precision", "int4"], "precision is 'int4'; allowed: one of auto, bf16, fp32 with backend torch"),
        (["--device", "tpu"], "device is 'tpu'; allowed: one of"),
        (["--output", "none/out.csv"], "output is "),
        (["--explain", "clip [0].wav"], "explain is 'clip [0].wav'; allowed: a folder"),
    ],
)
def test_settings_are_refused_in_one_line(checkpoint: str, clips: list[str], options: list[str], message: str) -> None:
    before = sorted(Path().iterdir())
    code, out, err = run("predict", *clips, "--model", checkpoint, "--format", "csv", *options)
    assert (code, out) == (2, "")
    assert err.startswith(f"spectrim: {message}")
    assert err.count("\n") == 1
    assert sorted(Path().iterdir()) == before


def test_a_model_that_cannot_be_loaded(clips: list[str]) -> None:
    code, out, err = run("predict", *clips, "--model", "clip [0].wav")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("spectrim: ")


# Predict


def test_table(checkpoint: str, clips: list[str]) -> None:
    code, out, err = run("predict", *clips, "--model", checkpoint, "--top", 2)
    lines = [line.rstrip() for line in out.splitlines()]
    assert code == 1
    assert len(lines) == 1 + 3 + 1 + 3
    found = {prediction.path: prediction for prediction in predict_files(clips, checkpoint)}
    for line in (line for line in lines if "clip [0]" in line or "clip [2]" in line):
        prediction = found[line.split("  ")[0]]
        for label, score in prediction.top(2):
            assert f"{score:.3f} {label}" in line
    assert [line.split("  ")[-1].strip() for line in lines if "clip bad" in line] == ["empty file (0 bytes)"]
    assert err.splitlines() == [
        "spectrim: clip bad.wav: empty file (0 bytes)",
        "spectrim: 1 of 4 files could not be tagged",
    ]


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_rows_on_standard_output_and_in_a_file_are_the_same(checkpoint: str, clips: list[str], form: str) -> None:
    options = ["--model", checkpoint, "--keep-rate", 0.5, "--top", 3, "--workers", 2]
    code, out, _ = run("predict", *clips, *options, "--format", form)
    assert code == 1
    assert run("predict", *clips, *options, "--output", f"out.{form}")[0] == 1
    assert Path(f"out.{form}").read_text() == out
    assert not list(Path().glob("*.partial*"))
    found = {prediction.path: prediction for prediction in predict_files(clips, checkpoint, keep_rate=0.5)}
    if form == "csv":
        best = {row["file"]: (row["label"], row["score"]) for row in rows_of(out) if row["rank"] == "1"}
        errors = {row["file"]: row["error"] for row in rows_of(out)}
    else:
        rows = [json.loads(line) for line in out.splitlines()]
        best = {row["file"]: tuple(row["scores"][0].values()) for row in rows if row["scores"]}
        errors = {row["file"]: row["error"] or "" for row in rows}
    assert {path for path, error in errors.items() if error} == {"clip bad.wav"}
    for path, error in errors.items():
        if not error and form == "jsonl":
            label, score = found[path].top(1)[0]
            assert best[path] == (label, pytest.approx(score, abs=1e-5))


def test_all_well_exits_with_0(checkpoint: str, clips: list[str]) -> None:
    code, out, err = run("predict", "clip [[]?].wav", "--model", checkpoint, "--output", "out.jsonl")
    assert (code, out, err) == (0, "", "spectrim: 3 files are in out.jsonl\n")


def test_bfloat16_gives_the_same_files_and_labels(checkpoint: str, clips: list[str]) -> None:
    code, out, err = run("predict", *clips, "--model", checkpoint, "--format", "csv", "--top", "1")
    half = run("predict", *clips, "--model", checkpoint, "--format", "csv", "--top", "1", "--precision", "bf16")
    assert (half[0], half[2]) == (code, err)
    rows, halves = ([line.split(",") for line in text.splitlines()] for text in (out, half[1]))
    assert [row[0] for row in halves] == [row[0] for row in rows]
    assert halves != rows


def test_list_on_standard_input(checkpoint: str, clips: list[str]) -> None:
    listing = b"clip [0].wav\nclip [2].wav\n"
    code, out, _ = run("predict", "-", "--model", checkpoint, "--format", "jsonl", stdin=listing)
    assert code == 0
    assert [json.loads(line)["file"] for line in out.splitlines()] == ["clip [0].wav", "clip [2].wav"]


def test_progress_if_asked_for(checkpoint: str, clips: list[str]) -> None:
    options = ["--model", checkpoint, "--format", "csv"]
    _, out, err = run("predict", clips[0], *options, "--progress")
    assert "files/s" in err
    assert "s of audio/s" in err
    assert "files/s" not in out
    assert run("predict", clips[0], *options)[2] == ""


def test_explain(checkpoint: str, clips: list[str]) -> None:
    assert run("predict", clips[0], clips[1], "--model", checkpoint, "--explain", "pictures")[0] == 0
    names = sorted(path.name for path in Path("pictures").iterdir())
    windows = ["", ".at-00001.28s", ".at-00002.56s"]
    assert names == sorted(["clip [0].wav.png", *(f"clip [1].wav{window}.png" for window in windows)])


def interrupted(patch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Exit code of a command that Ctrl-C ends when the rows of its second file are to be written."""
    write, begun = OutputFile.write, 0

    def stop(file: OutputFile, prediction: Any) -> None:
        nonlocal begun
        begun += 1
        if begun == 2:
            raise KeyboardInterrupt
        write(file, prediction)

    with patch.context() as patched:
        patched.setattr(OutputFile, "write", stop)
        return run(*arguments)[0]


def test_pictures_of_a_resumed_run_lie_where_those_of_the_first_lie(
    checkpoint: str, clips: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("in/a/y.wav", "in/b/x.wav", "in/b/y.wav"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(Path(clips[0]).read_bytes())
    options = ["predict", "in", "--model", checkpoint, "--batch-size", 1, "-o", "out.csv", "--explain", "pictures"]
    assert interrupted(monkeypatch, *options) == 130
    assert run(*options, "--resume")[0] == 0
    drawn = sorted(str(path.relative_to("pictures")) for path in Path("pictures").rglob("*.png"))
    assert drawn == ["a/y.wav.png", "b/x.wav.png", "b/y.wav.png"]


def test_tracks_of_events(checkpoint: str, clips: list[str], tmp_path: Path) -> None:
    options = ["--model", checkpoint, "--events", tmp_path / "tracks", "--threshold", "0", "--format", "csv"]
    code, out, _ = run("predict", *clips, *options)
    assert code == 1 and out == run("predict", *clips, "--model", checkpoint, "--format", "csv")[1]
    heard = {row["file"] for row in rows_of(out) if not row["error"]}
    tracks = sorted((tmp_path / "tracks").rglob("*.txt"))
    assert {track.name for track in tracks} == {f"{Path(path).name}.txt" for path in heard}
    assert all(track.read_text().count("\t") == 2 * len(track.read_text().splitlines()) > 0 for track in tracks)
    code, _, said = run("predict", *clips, "--model", checkpoint, "--label", "dog")
    assert code == 2 and "events is None" in said
    code, _, said = run("predict", *clips, *options, "--label", "nothing at all")
    assert code == 2 and "label is 'nothing at all'" in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--settle", "5"], "settle is 5.0; allowed: only with --watch"),
        (["--events-as", "raven"], "events_as is 'raven'; allowed: only with --events"),
        (
            ["--output", "rows.parquet", "--format", "csv"],
            "format is 'csv'; allowed: parquet, as rows.parquet is",
        ),
        (
            ["-o", "rows.json"],
            "output is 'rows.json'; allowed: a name that ends in .jsonl: an object a line is written",
        ),
    ],
)
def test_an_option_that_would_say_nothing_is_refused(options: list[str], message: str) -> None:
    code, out, said = run("predict", packaged_clips()[0][0], *options)
    assert (code, out) == (2, "") and message in said


def test_what_cannot_be_watched_is_refused_before_the_model_is_read(tmp_path: Path) -> None:
    for options, message in (
        ((tmp_path / "nothing",), "watch is"),
        ((tmp_path, "--settle", -1), "settle is -1.0; allowed: seconds, 0 or more"),
    ):
        code, _, said = run("predict", "--model", "no model at all", "--watch", *options)
        assert code == 2 and message in said


@pytest.mark.parametrize("name", ["spectrim-mini", "spectrim-words"])
def test_an_embedded_model_says_what_it_knows(name: str) -> None:
    code, _, said = run("predict", packaged_clips()[0][0], "--model", name)
    assert (code, said) == (0, f"spectrim: {name} knows {KNOWS[name]}, and nothing else; --model names another\n")


def test_what_an_embedded_model_knows_are_its_labels() -> None:
    """The numbers in the sentence are counted here."""
    labels = list(from_pretrained("spectrim-mini").config.id2label.values())
    arabic = [label for label in labels if label.startswith("Arabic: ")]
    sounds = [label for label in labels if label.startswith("sound: ")]
    assert sorted({*labels} - {*arabic, *sounds}) == sorted(WORDS)
    assert (len(labels), len(arabic), len(sounds)) == (86, 40, 11)
    assert KNOWS["spectrim-mini"] == (
        f"{len(arabic)} Arabic words of human voices, {len(WORDS)} English words of synthesised ones, ten kinds of "
        "sound and silence"
    )
    assert sorted(from_pretrained("spectrim-words").config.id2label.values()) == sorted(WORDS)


def test_resume_of_a_complete_file(checkpoint: str, clips: list[str]) -> None:
    options = ["--model", checkpoint, "--output", "out.csv", "--resume"]
    assert run("predict", *clips[1:3], *options)[0] == 0
    untold = "it does not say what it was made with: delete it to tag anew"
    assert run("predict", *clips[1:3], *options) == (0, "", f"spectrim: out.csv is complete already; {untold}\n")
    code, _, err = run("predict", *clips, *options)
    assert code == 2
    assert "this file is complete, and clip [0].wav and 1 more are not in it" in err
    code, _, err = run("predict", *clips[:3], *options)
    assert code == 2 and "this file is complete, and clip [0].wav is not in it" in err


def test_a_complete_file_gets_no_tracks_and_no_pictures_and_that_is_said(checkpoint: str, clips: list[str]) -> None:
    options = ["predict", *clips[:2], "--model", checkpoint, "--output", "out.csv", "--resume"]
    assert run(*options)[0] == 0
    code, _, said = run(*options, "--events", "tracks", "--explain", "pictures")
    assert code == 0 and "out.csv is complete already" in said
    assert "spectrim: --events and --explain made nothing, as no file is heard again" in said
    assert not Path("tracks").exists() and not Path("pictures").exists()


def test_a_resumed_run_has_tracks_and_pictures_of_the_same_settings(
    checkpoint: str, clips: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = ["predict", *clips[:2], "--model", checkpoint, "--output", "out.jsonl"]
    made = ["--events", "tracks", "--threshold", "0.2", "--explain", "pictures"]
    assert interrupted(monkeypatch, *rows, *made) == 130
    for other, said in (
        ([], "explain is None; allowed: '{}/pictures', with which the run in {}/out.jsonl.partial was begun"),
        ([*made, "--threshold", "0.3"], "threshold is ['0.2', '0.3']; allowed: ['0.2'], with which the run"),
        ([*made, "--label", "dog"], "label is ['dog']; allowed: None, with which the run"),
        ([*made[:4], "--explain", "elsewhere"], "explain is '{}/elsewhere'; allowed: '{}/pictures'"),
    ):
        code, _, err = run(*rows, *other, "--resume")
        assert (code, said.replace("{}", str(Path.cwd())) in err) == (2, True), err
    assert run(*rows, *made, "--resume")[0] == 0
    assert len(list(Path("tracks").iterdir())) == 2
    assert run(*rows, "--resume")[0] == 0


def test_disk_errors_are_one_line(checkpoint: str, clips: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("spectrim.inference.output_file.OutputFile.write", full)
    code, out, err = run("predict", clips[0], "--model", checkpoint, "--output", "out.csv")
    assert (code, out) == (1, "")
    kept = "out.csv.partial holds them, --resume continues"
    assert err == f"spectrim: out.csv: No space left on device; after 0 of 1 files; {kept}\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
def test_standard_output_that_is_full() -> None:
    code = "from spectrim.cli.common import plainly, put; import sys; plainly(lambda: (put(1), sys.stdout.flush()))()"
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True)
    assert ended.stderr.startswith("spectrim: No space left on device: standard output, or a temporary file in ")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty short files, of which the eighth is empty."""
    folder = tmp_path_factory.mktemp("clips")
    samples = 0.2 * np.random.default_rng(0).standard_normal(16000 * 2)
    for index in range(40):
        soundfile.write(folder / f"{index:02}.wav", samples[index * 100 :], 16000)
    (folder / "07.wav").write_bytes(b"")
    return folder


@pytest.mark.parametrize(
    ("form", "how"), [pytest.param("csv", signal.SIGINT, marks=full_size), ("jsonl", signal.SIGKILL)]
)
def test_a_broken_run_leaves_whole_rows_and_resumes_to_the_same_file(
    checkpoint: str, many: Path, tmp_path: Path, form: str, how: signal.Signals
) -> None:
    options = ["predict", many, "--model", checkpoint, "--batch-size", 3]
    out, partial = tmp_path / f"out.{form}", tmp_path / f"out.{form}.partial"
    whole = tmp_path / f"whole.{form}"
    assert run(*options, "--output", whole)[0] == 1
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = start(*options, "--output", out, "--workers", 2, env=environment)
    while not partial.exists() or partial.read_bytes().count(b"\n") < 12:
        assert process.poll() is None
        time.sleep(0.002)
    process.send_signal(how)
    _, err = process.communicate(timeout=60)
    assert not out.exists()
    rows = partial.read_bytes()
    assert 12 <= rows.count(b"\n") < whole.read_bytes().count(b"\n")
    assert "Traceback" not in err
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert f"{out}.partial holds them, --resume continues" in err
        assert whole.read_bytes().startswith(rows)
    assert run(*options, "--output", out)[0] == 2
    assert run(*options, "--output", out, "--resume", "--keep-rate", 0.5)[0] == 2
    assert partial.read_bytes() == rows
    code, _, err = run(*options, "--output", out, "--resume")
    assert code == 1
    assert "1 of 40 files could not be tagged" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, whole.name]
    assert out.read_bytes() == whole.read_bytes()


def test_a_reader_that_leaves_early_is_no_traceback(checkpoint: str, clips: list[str]) -> None:
    process = start("predict", *(clips[:2] * 1), "--model", checkpoint, "--format", "jsonl", "--top", "35")
    assert process.stdout is not None
    process.stdout.close()
    err = process.stderr.read() if process.stderr is not None else ""
    assert process.wait(120) == 1
    assert "Traceback" not in err


# The other commands


def test_demo(checkpoint: str, clips: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spectrim.measure.demo.TIMING_SECONDS", 0.0)
    monkeypatch.setattr("spectrim.measure.demo.FEWEST_REPEATS", 2)
    code, out, err = run("demo", *clips, "--model", checkpoint, "--pictures", 1, "--keep-rates", "1,0.5")
    assert code == 1
    assert err == "spectrim: clip bad.wav: empty file (0 bytes)\n"
    assert "executed macs" in out
    assert "1-clip [0]-keep-0.5.png" in out
    code, out, _ = run("demo", clips[0], "--model", checkpoint, "--pictures", 0, "--format", "json")
    assert code == 0
    assert [row["keep_rate"] for row in json.loads(out)["rows"]] == [1.0, 0.7, 0.5]
    code, out, _ = run("demo", clips[0], "--model", checkpoint, "--pictures", 0, "--format", "csv")
    assert rows_of(out)[0]["agreement"] == "1.0"
    assert rows_of(out)[0]["versions.torch"] == torch.__version__


def test_info_of_a_checkpoint_and_of_the_package(checkpoint: str) -> None:
    code, out, _ = run("info", checkpoint, "--format", "json")
    assert code == 0
    facts = json.loads(out)
    assert (facts["layout"], facts["keep_rate"], facts["labels"]) == ("spectrim", 0.7, 35)
    assert "hidden size" in run("info", checkpoint)[1]
    code, out, _ = run("info", "--format", "json")
    assert code == 0
    facts = json.loads(out)
    assert facts["installation"]["spectrim"] == __version__
    assert facts["clips"]["clips"] == 140
    assert facts["making of the clips"]["seed"] == 0
    assert f"spectrim {__version__}" in run("info")[1]


def test_info_of_nothing() -> None:
    code, out, err = run("info", "no/such/thing/here")
    assert (code, out, err.count("\n")) == (1, "", 1)


def test_synthesize(tmp_path: Path) -> None:
    out = tmp_path / "miniature"
    options = ["--clips", 35, "--validation-clips", 0, "--test-clips", 0, "--seed", 3, "--workers", 1]
    code, printed, _ = run("data", "synthesize", "spoken-commands", out, *options)
    assert (code, printed) == (0, f"{out}\n")
    assert len(list(out.glob("*/*_nohash_*.wav"))) == 35
    assert run("data", "synthesize", "spoken-commands", out, *options)[0] == 2


def test_train_passes_its_arguments_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def train(recipe: Any, data: Path, output: Path, **options: Any) -> dict[str, Any]:
        seen.update(recipe=recipe, data=data, output=output, **options)
        return {"metric": "accuracy", "test": {"1.0": 0.5, "0.7": 0.25}, "chosen_on": "validation"}

    monkeypatch.setattr("spectrim.training.finetune.train", train)
    monkeypatch.setattr("spectrim.training.run_pictures.draw_run", lambda folder: seen.update(drawn=folder))
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: tiny\ndata:\n  name: spoken-commands\n")
    code, out, _ = run("train", recipe, "--data", "here", "-o", "there", "--resume", "--set", "optimiser.epochs=3")
    assert code == 0
    assert (seen["recipe"].name, seen["recipe"].optimiser.epochs) == ("tiny", 3)
    assert (seen["data"], seen["output"], seen["init"], seen["resume"]) == (Path("here"), Path("there"), None, True)
    assert seen["drawn"] == Path("there")
    assert "0.2500" in out


# Errors


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (["predict", "in", "-o", "in", "--format", "csv"], "output"),
        (["predict", "other.wav", "in", "-o", "./in", "--format", "csv"], "output"),
        (["predict", "folder/*.wav", "-o", "folder/a.wav", "--format", "csv"], "output"),
        (["predict", "-", "-o", "in", "--format", "csv"], "output"),
        (["predict", "folder", "-o", "folder/a.wav", "--format", "csv"], "output"),
        (["predict", "list.parquet", "-o", "list.parquet", "--resume"], "output"),
        (["predict", "x.wav", "-m", "model.csv", "-o", "model.csv"], "output"),
        (["embed", "list.npz", "-o", "list.npz"], "output"),
        (["export", "model.onnx", "-m", "model.onnx"], "output"),
        (["data", "check", "csv", "in", "--write-recipe", "in"], "write_recipe"),
        (["data", "manifest", "in", "folder", "labels.json", "--labels", "labels.json"], "out"),
    ],
)
def test_no_command_writes_what_it_reads(
    arguments: list[str], field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    files = [Path(name) for name in ("in", "list.parquet", "list.npz", "model.csv", "model.onnx", "labels.json")]
    for file in (*files, Path("folder", "a.wav")):
        file.write_text("as it was")
    before = sorted(tmp_path.rglob("*"))
    code, out, err = run(*arguments, stdin=b"in\n")
    assert (code, out) == (2, "")
    assert f"spectrim: {field} is " in err
    assert "allowed: another name: that file is read, as " in err
    assert sorted(tmp_path.rglob("*")) == before
    assert {path.read_text() for path in before if path.is_file()} == {"as it was"}


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (SpectrimError("it is\nbroken"), 1, "spectrim: it is broken\n"),
        (KeyboardInterrupt(), 130, "spectrim: interrupted\n"),
        (PermissionError(13, "Permission denied", "x"), 1, "spectrim: [Errno 13] Permission denied: 'x'\n"),
    ],
)
def test_errors_of_commands(error: BaseException, code: int, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("spectrim.checkpoints.describe", fail)
    assert run("info", "x") == (code, "", text)


def test_main_is_the_entry_point(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["spectrim", "--version"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 0
    assert capsys.readouterr().out == f"spectrim {__version__}\n"
