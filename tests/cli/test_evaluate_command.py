"""``spectrim evaluate``: what it prints and writes, and how it refuses."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import command_line
import pytest
from command_line import rows_of
from PIL import Image
from tone_table import LABELS, small_model, write_tones

from spectrim.measure.evaluate import evaluate
from spectrim.pruning.criteria import CRITERIA

run = partial(command_line.run, "evaluate")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("tones") / "set")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for fold in (1, 2, 3):
        small_model(fold).save_pretrained(folder / f"fold{fold}-seed7")
    return folder


def on(models: Path, root: Path, *further: object) -> list[object]:
    model = models / "fold1-seed7"
    return ["--model", model, "--dataset", "csv", "--data", root, "--device", "cpu", "--workers", 0, *further]


def by_hand(models: Path, root: Path, **options: Any) -> Any:
    return evaluate(models / "fold1-seed7", "csv", root, device="cpu", workers=0, **options)


def test_the_table_says_values_intervals_costs_and_what_they_stand_for(models: Path, root: Path) -> None:
    code, out, err = run(*on(models, root, "--fold", 2, "--keep-rates", "1,0.4"))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    row = by_hand(models, root, folds=[2], keep_rates=[1.0, 0.4]).rows[1]
    assert lines[0].split()[:4] == ["keep", "rate", "criterion", "accuracy,"]
    assert lines[2].startswith("0.4        cls_attention")
    for name, sign in (("accuracy", ""), ("change", "+")):
        shown = [f"{100 * row[part]:{sign}.2f}" for part in (name, f"{name}_low", f"{name}_high")]
        assert f"{shown[0]} [{shown[1]}, {shown[2]}]" in lines[2]
    assert f"{row['AUC']:.4f}" in lines[2]
    assert f"{row['macs_saved']:.1%}" in lines[2]
    assert "12 clips, 3 labels; intervals: 95 %, percentiles of 1000 bootstrap resamples of the 12 clips" in out
    assert "ms a clip: none, as the first batch is not timed, nor one of fewer clips than 32; a smaller" in out
    out = run(*on(models, root, "--fold", 1, "--keep-rates", "0.4", "--batch-size", 4))[1]
    assert "the model alone, batches of 4 in turn, beside 0 decoding process(es)" in out


def test_a_share_that_was_drawn_is_told(models: Path, root: Path) -> None:
    """A table that says nothing of parts gives a few of its clips, which a user takes for all."""
    table = ["--set", "table=unsaid.csv", "--keep-rates", "1"]
    rows = [line.rpartition(",")[0] for line in (root / "labels.csv").read_text().splitlines()]
    (root / "unsaid.csv").write_text("\n".join(rows) + "\n")
    out = run(*on(models, root, *table))[1]
    assert "4 clips, 3 labels" in out
    assert (
        "The clips are a share of 36, drawn by seed for test as when" in out
        and "; --set test_share=1 (of archives, when they are packed) takes" in out
    )
    out = run(*on(models, root, *table, "--part", "validation"))[1]
    assert "drawn by seed for validation" in out and "; --part test --set test_share=1 (of" in out
    for further in (["--set", "test_share=1"], ["--part", "train"]):
        assert "drawn by seed" not in run(*on(models, root, *table, *further))[1]
    facts = by_hand(models, root, options={"table": "unsaid.csv"}, keep_rates=1.0).facts
    assert (facts["clips"], facts["drawn_from"]) == (4, 36)


def test_csv_and_json_hold_the_same_rows(models: Path, root: Path) -> None:
    options = on(models, root, "--fold", 2, "--keep-rates", "0.4", "--criterion", "auto,random", "--format")
    expected = by_hand(models, root, folds=[2], keep_rates=[0.4], criteria=["auto", "random"])
    code, out, _ = run(*options, "csv")
    assert code == 0
    found = rows_of(out)
    assert [(row["keep_rate"], row["criterion"]) for row in found] == [
        (str(row["keep_rate"]), row["criterion"]) for row in expected.rows
    ]
    assert [float(row["accuracy_low"]) for row in found] == [row["accuracy_low"] for row in expected.rows]
    assert found[0]["environment.versions.torch"] == expected.facts["environment"]["versions"]["torch"]
    code, out, _ = run(*options, "json")
    content = json.loads(out, parse_constant=lambda name: pytest.fail(name))
    assert code == 0
    assert [row["change"] for row in content["rows"]] == [row["change"] for row in expected.rows]
    assert content["per_class"] == expected.per_class
    assert content["facts"]["folds"] == [2]


def test_the_fold_is_spelled_in_three_ways_and_named_once(models: Path, root: Path) -> None:
    rows = []
    for words in (("--fold", 2), ("--set", "fold=2"), ("--set", "data.options.fold=2")):
        code, out, _ = run(*on(models, root, *words, "--keep-rates", "1", "--format", "json"))
        content = json.loads(out)
        assert (code, content["facts"]["folds"]) == (0, [2])
        rows.append([row["accuracy"] for row in content["rows"]])
    assert rows[0] == rows[1] == rows[2]
    for words, said in (
        (("--fold", 2, "--set", "fold=1"), "fold is 2; allowed: one of --fold and --set fold="),
        (("--folds", "all", "--set", "data.options.fold=1"), "fold is 1; allowed: one of --fold and --folds"),
    ):
        code, _, err = run(*on(models, root, *words))
        assert (code, said in " ".join(err.split())) == (2, True)


def test_a_row_for_each_label(models: Path, root: Path) -> None:
    options = on(models, root, "--keep-rates", "1", "--per-class")
    code, out, _ = run(*options, "--format", "csv")
    assert code == 0
    assert [row["label"] for row in rows_of(out)] == list(LABELS)
    code, out, _ = run(*options)
    assert code == 0
    assert out.splitlines()[0].split() == [
        *("keep", "rate", "criterion", "label", "positives", "recall", "precision", "average"),
        *("precision", "AUC"),
    ]
    assert [line.split()[2] for line in out.splitlines()[1:4]] == list(LABELS)


def test_output_holds_everything_and_the_curve(models: Path, root: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "results"
    code, printed, _ = run(*on(models, root, "--fold", 2, "--keep-rates", "1,0.7,0.4", "--output", out))
    assert code == 0
    assert printed.splitlines()[-1] == str(out)
    assert {path.name for path in out.iterdir()} == {
        *("curve.png", "curve.svg", "per_class.csv", "results.csv", "results.json"),
        *("confusion.png", "confusions.csv", "per_class.png"),
    }
    content = json.loads((out / "results.json").read_text())
    assert [(row["keep_rate"], row["criterion"]) for row in content["rows"]] == [
        *((rate, "cls_attention") for rate in (1.0, 0.7, 0.4)),
        *((rate, "random") for rate in (0.7, 0.4)),
    ]
    assert content["facts"]["environment"]["torch_threads"] >= 1
    assert len(content["runs"]) == 1
    table = rows_of((out / "results.csv").read_text())
    assert [float(row["accuracy"]) for row in table] == [row["accuracy"] for row in content["rows"]]
    assert len(rows_of((out / "per_class.csv").read_text())) == 15
    with Image.open(out / "curve.png") as picture:
        assert picture.size == (1280, 880)


def test_random_pruning_stands_beside_each_ranking_and_a_sentence_says_whether_it_is_better(
    models: Path, root: Path
) -> None:
    code, out, _ = run(*on(models, root, "--fold", 2, "--keep-rates", "0.7,0.4", "--criterion", "auto,intensity"))
    assert code == 0 and "to random, points" in out.splitlines()[0]
    assert sum("random, 2 draws" in line for line in out.splitlines()) == 2
    for name in ("cls_attention", "intensity"):
        assert f"{name}: cannot say whether better than random at r=0.7, 0.4." in out
    code, out, _ = run(*on(models, root, "--fold", 2, "--keep-rates", "0.4", "--draws", 0))
    assert code == 0 and "draws" not in out and "spectrim compare tells" in out


def test_folds_and_seeds(models: Path, root: Path) -> None:
    options = ["--model", models / "fold{fold}-seed{seed}", *on(models, root)[2:], "--seeds", 7, "--keep-rates", "0.4"]
    for folds, count in (("all", 3), ("1,3", 2)):
        code, out, _ = run(*options, "--folds", folds, "--format", "json")
        content = json.loads(out)
        assert code == 0
        assert len(content["runs"]) == count
        assert content["facts"]["interval"] == f"95 %, Student's t over {count} runs"


def test_clips_that_do_not_count_are_told(models: Path, tmp_path: Path) -> None:
    root = write_tones(tmp_path / "set", per_fold=6, folds=2)
    (root / "2.wav").write_bytes(b"")
    (root / "5.wav").unlink()
    code, out, _ = run(*on(models, root, "--fold", 1, "--set", "bad_share=0.5", "--keep-rates", "1"))
    assert code == 0
    assert "1 unreadable files do not count: 2.wav" in out
    assert "1 missing files do not count: 5.wav" in out
    assert "AUC is not defined for 1 labels, and left out there: middle" in out


def test_progress_if_asked_for(models: Path, root: Path) -> None:
    _, out, err = run(*on(models, root, "--keep-rates", "1", "--format", "csv", "--progress"))
    assert "clips" in err
    assert len(rows_of(out)) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--keep-rates", "1,fast"], "keep-rates is '1,fast'"),
        (["--keep-rates", "2"], "keep_rate is 2.0"),
        (["--criterion", "luck"], "criterion is 'luck'"),
        (["--format", "xml"], "format is 'xml'"),
        (["--fold", "9"], "fold is 9; allowed: one of 1, 2, 3"),
        (["--fold", "1", "--folds", "all"], "fold is 1; allowed: one of --fold and --folds"),
        (["--folds", "1,x"], "folds is '1,x'"),
        (["--seeds", "a"], "seeds is 'a'"),
        (["--set", "colour"], "--set is 'colour'"),
        (["--part", "all"], "part is 'all'"),
        (["--output", "FILE"], "output is "),
        (["--model", "spectrim-mini"], "labels of the model is '86 labels such as Arabic: backward"),
        (["--dataset", "birds"], "data set is 'birds'"),
    ],
)
def test_wrong_use_is_one_line_and_writes_nothing(
    models: Path, root: Path, tmp_path: Path, options: list[str], message: str
) -> None:
    (tmp_path / "file").touch()
    options = [str(tmp_path / "file") if option == "FILE" else option for option in options]
    output = [] if "--output" in options else ["--output", tmp_path / "out"]
    code, out, err = run(*on(models, root), *output, *options)
    assert (code, out) == (2, "")
    assert err.startswith(f"spectrim: {message}")
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_help_names_every_criterion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 160)
    code, out, _ = run("--help")
    words = " ".join(out.replace("│", " ").split())
    assert code == 0
    assert f"separated by commas: {', '.join(('auto', *CRITERIA))}." in words
