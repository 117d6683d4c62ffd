"""``spectrim compare``: what it prints and writes, how it goes on, and how it refuses."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import command_line
import numpy as np
import pytest
from command_line import rows_of
from PIL import Image
from tone_table import small_model, write_tones

from spectrim.checkpoints import from_pretrained
from spectrim.comparison import measuring
from spectrim.comparison.run import compare
from spectrim.data import DATA_SETS
from spectrim.files import sole_writer
from spectrim.inference.torch_model import TorchModel
from spectrim.measure.metrics import accuracy
from spectrim.measure.scoring import score_part
from spectrim.network.macs import macs
from spectrim.pruning.pruning import Pruning

run = partial(command_line.run, "compare")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("tones") / "set")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "dense"
    small_model(1).save_pretrained(folder)
    return folder


def options(model: Path, root: Path, *further: object) -> list[object]:
    data = ["--dataset", "csv", "--data", root, "--set", "fold=2", "--device", "cpu", "--workers", 0]
    quick = ["--draws", 2, "--traced", 4, "--repeats", 2, "--batch-sizes", "1,2", "--keep-rates", "1.0,0.4"]
    return ["--model", model, *data, *quick, *further]


@pytest.fixture(scope="module")
def made(model: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("out") / "new" / "compared"
    tuned = out.parent / "run" / "model"
    small_model(5).save_pretrained(tuned)
    methods = ["--methods", "attention,intensity,fuse", "--runs", f"tuned={tuned.parent}"]
    code, printed, err = run(*options(model, root, out, *methods))
    assert (code, err) == (0, "")
    return out, printed


def test_it_writes_tables_figure_and_report(made: tuple[Path, str]) -> None:
    out, printed = made
    found = {path.name for path in out.iterdir()}
    tables = {"agreement.csv", "clips.csv", "results.csv", "results.json"}
    assert found == {"cache", "figures", "report.html", "report.md", *tables}
    assert printed.splitlines()[-1] == str(out / "report.md")
    content = json.loads((out / "results.json").read_text())
    named = [(row["method"], row["keep_rate"]) for row in content["rows"]]
    names = ("attention", "intensity", "fuse", "random")
    assert named == [("dense", 1.0), *((name, 0.4) for name in names), ("tuned", 0.9)]
    assert content["facts"]["clips"] == 12 and content["facts"]["traced"] == 4
    clips = rows_of((out / "clips.csv").read_text())
    for row in content["rows"]:
        columns = [name for name in clips[0] if name.startswith(f"{row['method']} at keep rate")]
        right = sum(clip[column] == clip["label"] for clip in clips for column in columns)
        assert right / len(columns) / len(clips) == pytest.approx(row["accuracy"])
    assert len(rows_of((out / "results.csv").read_text())) == 6
    report = (out / "report.md").read_text()
    assert "attention: cannot say whether better than random at r=0.4" in report
    assert "near chance" in report or "no width" in report
    assert "tuned (fine-tuned): at r=0.9" in report
    with Image.open(out / "figures" / "methods.png") as picture:
        assert picture.size[0] > picture.size[1] > 800


def test_a_share_that_was_drawn_is_told_on_the_screen_and_in_the_report(
    model: Path, root: Path, tmp_path: Path
) -> None:
    rows = [line.rpartition(",")[0] for line in (root / "labels.csv").read_text().splitlines()]
    (root / "unsaid.csv").write_text("\n".join(rows) + "\n")
    given = options(model, root, "--methods", "intensity", tmp_path / "out")
    code, printed, _ = run(*("table=unsaid.csv" if word == "fold=2" else word for word in given))
    words = "The clips are a share of 36, drawn by seed for test"
    assert code == 0 and words in printed and words in (tmp_path / "out" / "report.md").read_text()


def test_values_are_those_of_the_model_scored_by_itself(made: tuple[Path, str], root: Path) -> None:
    rows = {row["method"]: row for row in json.loads((made[0] / "results.json").read_text())["rows"]}
    part = DATA_SETS["csv"].open(root, "test", fold=2)
    draws = [Pruning(0.4, (1,), "random", seed=seed) for seed in (0, 1)]
    ranked = Pruning(0.4, (1,), "intensity")
    scored = score_part(small_model(1), part, [*draws, ranked], device="cpu")
    assert rows["intensity"]["accuracy"] == pytest.approx(accuracy(scored.scores[ranked], scored.targets))
    mean = np.mean([accuracy(scored.scores[point], scored.targets) for point in draws])
    assert rows["random"]["accuracy"] == pytest.approx(mean)
    tuned = score_part(small_model(5), part, [small_model(5).config.pruning], device="cpu")
    (scores,) = tuned.scores.values()
    assert rows["tuned"]["accuracy"] == pytest.approx(accuracy(scores, tuned.targets))
    assert rows["intensity"]["executed_macs"] < rows["dense"]["executed_macs"]


def test_models_in_memory_are_those_of_their_files(
    made: tuple[Path, str], model: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "score_part", lambda *_, **__: pytest.fail("measured again"))
    found = compare(
        *(from_pretrained(model), made[0]),
        **{"data_set": "csv", "root": root, "options": {"fold": 2}, "device": "cpu", "workers": 0},
        **{"draws": 2, "traced": 4, "repeats": 2, "batch_sizes": (1, 2), "keep_rates": 0.4},
        methods=("attention", "intensity"),
        runs={"tuned": from_pretrained(made[0].parent / "run" / "model")},
    )
    before = {row["method"]: row for row in json.loads((made[0] / "results.json").read_text())["rows"]}
    assert [row["method"] for row in found.rows] == ["dense", "attention", "intensity", "random", "tuned"]
    for row in found.rows:
        assert row["accuracy"] == before[row["method"]]["accuracy"]
    assert (found.facts["model"], found.facts["runs"]) == ("the model", {"tuned": "the model"})


def test_a_backend_is_compared_at_its_own_pruning_blocks(root: Path, tmp_path: Path) -> None:
    backend = TorchModel(small_model(1), Pruning(0.7, (2,), "variation"))
    found = compare(
        *(backend, tmp_path / "out"),
        **{"data_set": "csv", "root": root, "options": {"fold": 2}, "device": "cpu", "workers": 0},
        **{"draws": 2, "traced": 2, "repeats": 1, "batch_sizes": (1,), "keep_rates": 0.4},
        methods=("variation",),
    )
    point = Pruning(0.4, (2,), "variation")
    assert found.facts["prune_at"] == [2]
    assert found.rows[1]["executed_macs"] == macs(backend.config, pruning=point).executed
    scored = score_part(backend, DATA_SETS["csv"].open(root, "test", fold=2), [point], device="cpu")
    assert found.rows[1]["accuracy"] == pytest.approx(accuracy(scored.scores[point], scored.targets))


def test_what_is_measured_is_not_measured_again(
    made: tuple[Path, str], model: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def watched(backend: Any, part: Any, points: Any, **further: Any) -> Any:
        asked.extend(points)
        return score_part(backend, part, points, **further)

    monkeypatch.setattr(measuring, "score_part", watched)
    before = json.loads((made[0] / "results.json").read_text())["rows"]
    further = ["--methods", "attention,intensity,fuse,variation", "--format", "json"]
    code, printed, _ = run(*options(model, root, made[0], *further))
    assert code == 0
    assert asked == [Pruning(0.4, (1,), "variation")]
    after = {row["method"]: row for row in json.loads(printed)["rows"]}
    for row in before[:5]:
        assert after[row["method"]]["accuracy"] == row["accuracy"]
        assert after[row["method"]]["over_random_low"] == row["over_random_low"]


def test_ctrl_c_keeps_what_is_whole_and_the_next_run_goes_on(
    model: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[Any] = []

    def broken_off(backend: Any, part: Any, points: Any, **further: Any) -> Any:
        passes.append(list(points))
        if len(passes) == 3:
            raise KeyboardInterrupt
        return score_part(backend, part, points, **further)

    given = options(model, root, tmp_path / "out", "--methods", "intensity,variation", "--format", "csv")
    with monkeypatch.context() as patch:
        patch.setattr(measuring, "score_part", broken_off)
        code, printed, err = run(*given)
    assert (code, printed, err.splitlines()[-1]) == (130, "", "spectrim: interrupted")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["cache"]
    assert not list((tmp_path / "out" / "cache").glob("*.partial"))
    code, printed, _ = run(*given)
    whole = run(*options(model, root, tmp_path / "whole", "--methods", "intensity,variation", "--format", "csv"))[1]
    assert code == 0
    for ours, theirs in zip(rows_of(printed), rows_of(whole), strict=True):
        names = [name for name in ours if not name.startswith(("ms_", "speed_up_"))]
        assert {name: ours[name] for name in names} == {name: theirs[name] for name in names}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--methods", "nothing"], "methods is 'nothing'"),
        (["--keep-rates", "1.0"], "below 1"),
        (["--draws", 1], "draws is 1"),
        (["--limit", 1], "limit is 1"),
        (["--repeats", 0], "repeats is 0"),
        (["--runs", "nameless"], "NAME=FOLDER"),
        (["--runs", "fuse=x"], "runs is 'fuse'"),
        (["--runs", "intensity/4=x"], "runs is 'intensity/4'"),
        (["--format", "xml"], "format is 'xml'"),
    ],
)
def test_wrong_use_is_refused_before_any_work(
    model: Path, root: Path, tmp_path: Path, given: list[object], message: str
) -> None:
    code, printed, err = run(*options(model, root, tmp_path / "out", *given))
    assert (code, printed) == (2, "")
    assert message in err and len(err.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_things_and_a_second_run_are_refused(model: Path, root: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("")
    code, _, err = run(*options(model, root, tmp_path / "mine"))
    assert code == 2 and "a new folder, or one in which spectrim compare has run" in err
    with sole_writer(tmp_path / "out"):
        code, _, err = run(*options(model, root, tmp_path / "out"))
    assert code == 2 and "no other run is writing" in err


def test_data_is_asked_for_where_the_package_brings_none(model: Path, tmp_path: Path) -> None:
    code, _, err = run(tmp_path / "out", "--model", model)
    assert code == 2 and "data is None; allowed: the root of a data set" in err
