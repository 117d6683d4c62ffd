"""ESC-10 in the study: its table, its plan, and what is said of accuracies that are made by hand."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from spectrim.data import DATA_SETS
from spectrim.errors import DataError, InvalidSetting
from spectrim.pictures.report import Report
from spectrim.studies.recordings import recordings_plan
from spectrim.studies.recordings_answers import CONTROL_KEY, TUNED
from spectrim.studies.recordings_record import Record, read_record
from spectrim.studies.sounds import (
    SOUND_SEEDS,
    STAGE,
    add_sounds,
    check_rows,
    fold_sources,
    measured_sounds,
    read_sounds,
    sound_arms,
    sounds_state,
    with_sounds,
    within_margin,
    write_sounds,
)
from spectrim.tables import csv_text
from spectrim.training.recipe_files import load_recipe

SEVENTH = (TUNED, "r=0.7")
NAMES = [(f"{fold}-{100 + fold}{number}-{take}-{number}.ogg", fold) for fold in range(1, 6) for number in range(10)
         for take in "AB"]  # fmt: skip


@pytest.fixture
def esc10(tmp_path: Path) -> Path:
    """Empty files, listed as the mirror of ESC-10 lists them."""
    root = tmp_path / "esc-10"
    (root / "audio").mkdir(parents=True)
    rows = [(f"audio/{name}", f"class{name.split('-')[3][0]}", fold) for name, fold in NAMES]
    for name, *_ in rows:
        (root / name).touch()
    (root / "labels.csv").write_text(csv_text([("path", "label", "fold"), *rows]))
    return root


def test_the_table_holds_out_originals_fold_by_fold(esc10: Path, tmp_path: Path) -> None:
    write_sounds(esc10, tmp_path / "sounds")
    write_sounds(esc10, tmp_path / "sounds")
    for fold in range(1, 6):
        parts = {
            part: DATA_SETS["csv"].open(tmp_path / "sounds", part, fold=fold, validation_fold="next").recordings
            for part in ("train", "validation", "test")
        }
        groups = {part: {one.group for one in recordings} for part, recordings in parts.items()}
        assert groups["test"] == {f"{100 + fold}{number}" for number in range(10)}
        assert groups["validation"] == {f"{101 + fold % 5}{number}" for number in range(10)}
        assert not groups["train"] & (groups["test"] | groups["validation"]) and len(parts["train"]) == 60
    (esc10 / "labels.csv").write_text((esc10 / "labels.csv").read_text().replace("class0", "dog"))
    with pytest.raises(InvalidSetting, match="was begun with"):
        write_sounds(esc10, tmp_path / "sounds")


def test_of_esc50_the_clips_of_esc10_are_taken(esc10: Path) -> None:
    listed = read_sounds(esc10)
    (esc10 / "meta").mkdir()
    rows = [(name, fold, 0, f"class{name.split('-')[3][0]}", "True", "1", name[-7]) for name, fold in NAMES]
    rows.append(("1-7-A-49.ogg", 1, 49, "hand_saw", "False", "7", "A"))
    head = ("filename", "fold", "target", "category", "esc10", "src_file", "take")
    (esc10 / "meta" / "esc50.csv").write_text(csv_text([head, *rows]))
    assert read_sounds(esc10) == listed


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("audio/1-1010-A-0.ogg", "audio/barking.ogg", "line 2: 'audio/barking.ogg' is not named as in ESC"),
        ("audio/2-1020-A-0.ogg", "audio/2-1010-A-0.ogg", "line 22: original '1010' is in folds 1 and 2"),
        (",2\n", ",3\n", "line 22: 'audio/2-1020-A-0.ogg' is in fold 3 here and 2 by its name"),
        ("class9", "class8", "9 labels, where ESC-10 has 10"),
        (",1\n", ",one\n", "fold is 'one'"),
        ("fold", "part", "lacks fold"),
    ],
)
def test_what_is_no_esc10_is_refused(old: str, new: str, message: str, esc10: Path) -> None:
    table = esc10 / "labels.csv"
    table.write_text(table.read_text().replace(old, new))
    with pytest.raises(DataError, match=re.escape(message)):
        read_sounds(esc10)


def test_seeds_come_one_after_the_other_and_hold_out_what_the_table_says(tmp_path: Path) -> None:
    plan = with_sounds(recordings_plan(tmp_path, stages=[]), tmp_path, folds=range(5), changes=["workers=0"])
    assert list(plan.steps) == [STAGE]
    steps = plan.steps[STAGE]
    assert [step.name for step in steps if step.name.endswith("trunk")] == [
        f"esc10-ast fold {fold} seed {seed} trunk" for seed in SOUND_SEEDS for fold in range(1, 6)
    ]
    assert len(steps) == 3 * 5 * 9 and len({step.done for step in steps}) == len(steps)
    for step in steps:
        words = step.arguments
        assert words[words.index("--data") + 1] == "sounds" and set(step.needs) <= {one.name for one in steps}
    last = next(step for step in steps if step.name == "esc10-ast fold 5 seed 2 r=0.3-random").arguments
    changes = [last[place + 1] for place, word in enumerate(last) if word == "--set"]
    recipe = load_recipe("esc10-ast", changes)
    assert recipe.data.options == {"fold": 5, "validation_fold": "next"} and recipe.seed == 2 and recipe.workers == 0
    assert (recipe.pruning.keep_rate, recipe.pruning.criterion) == (0.3, "random")
    assert {arm.folder for arm in sound_arms(tmp_path)} == {
        step.done.parent.relative_to(tmp_path) for step in steps if step.arguments[0] == "train"
        if not step.name.endswith("trunk")
    }  # fmt: skip


def made(arm: str, seed: int, values: Mapping[int, Mapping[str, float]]) -> list[dict[str, Any]]:
    return [
        {
            "backbone": "ast",
            "how": TUNED,
            "arm": arm,
            "seed": seed,
            "fold": fold,
            "source": source,
            "accuracy": value,
            "epoch": 65.0,
            "validation": None,
            "precision": "fp32",
            "trunk": "1234abcd",
            "folder": f"runs/{arm}-{seed}-{fold}",
        }
        for fold, sources in values.items()
        for source, value in sources.items()
    ]


ROWS = [
    *made(CONTROL_KEY[1], 0, {1: {"a": 90.0, "b": 80.0}, 2: {"c": 70.0, "d": 60.0}}),
    *made(CONTROL_KEY[1], 1, {1: {"a": 100.0, "b": 100.0}}),
    *made("r=0.7", 0, {1: {"a": 89.0, "b": 78.0}, 2: {"c": 67.0, "d": 57.0}}),
    *made("r=0.7", 1, {1: {"a": 97.0, "b": 98.0}}),
    *made("r=0.7", 2, {1: {"a": 0.0, "b": 0.0}}),
]


def test_losses_are_paired_by_seed_and_averaged_within_an_original(tmp_path: Path) -> None:
    measured = measured_sounds(ROWS)
    found = measured.difference(CONTROL_KEY, SEVENTH, range(1, 6))
    assert found is not None and (found.speakers, found.folds) == (4, (1, 2))
    # a: (1 + 3) / 2, b: (2 + 2) / 2, c: 3, d: 3; the third seed has no control.
    assert found.mean == pytest.approx((2 + 2 + 3 + 3) / 4)
    assert measured.difference(CONTROL_KEY, (TUNED, "r=0.5"), range(1, 6)) is None
    report = Report("t", tmp_path)
    add_sounds(report, ROWS)
    text = report.write().with_suffix(".md").read_text()
    assert "3 of 15 controls are there (seeds 0, 1)" in text
    assert (
        "fine-tuned? cannot say: the interval has no width (2.50 [2.50, 2.50] points lost; 4 originals in 2 folds)."
        in text
    )
    assert "| r=0.7 | 1 | 1 | fp32 | 65 |  | runs/r=0.7-1-1 |" in text
    assert sounds_state(ROWS)[1:] == ("in part", "7 of 60", "none")
    assert "| fine-tuned | control, r=0.999 | 92.5 | 65.0 |  |" in text
    nothing = Report("t", tmp_path / "none")
    add_sounds(nothing, [row for row in ROWS if row["arm"] == "r=0.7"])
    assert "ESC-10" not in nothing.write().with_suffix(".md").read_text()


@pytest.mark.parametrize(
    ("control", "lost", "word"),
    [
        (80.0, (1.0, 1.5, 0.5), "yes"),
        (80.0, (9.0, 9.5, 8.5), "no"),
        (80.0, (0.0, 3.0, 9.0), "cannot say: the interval holds 3 points"),
        (11.0, (1.0, 1.5, 0.5), "cannot say: the dense model, 11.0 %, is near chance, 10.0 %"),
        (80.0, (1.0, 1.0, 1.0), "cannot say: the interval has no width"),
        (80.0, (1.0,), "cannot say: the interval has no width"),
    ],
)
def test_the_margin_is_answered_where_there_is_ground(control: float, lost: tuple[float, ...], word: str) -> None:
    names = [str(number) for number in range(len(lost))]

    def rows(arm: str, losses: tuple[float, ...], folds: range = range(1, 5)) -> list[dict[str, Any]]:
        shares = {name: control - one for name, one in zip(names, losses, strict=True)}
        return made(arm, 0, dict.fromkeys(folds, shares))

    alone = rows(CONTROL_KEY[1], (0.0,) * len(lost))
    assert within_margin(measured_sounds(alone)) == "cannot say: it has not been run beside a control"
    seventh, positive = rows("r=0.7", lost), rows("r=0.3-random", tuple(6.0 + one for one in lost))
    answer = within_margin(measured_sounds(alone + seventh + positive))
    assert answer.startswith(f"{word}{'' if ':' in word else ' ('}")
    if word == "yes":
        weak = rows("r=0.3-random", lost)
        few = [row for row in alone + seventh + positive if row["fold"] < 4]
        for given, why in (
            (alone + seventh, "the positive control, random patches at 0.3, has not been run"),
            (alone + seventh + weak, "these sounds cannot tell: random patches at 0.3, fine-tuned, lose 1.00"),
            (few, "3 of 5 folds, and it takes 4"),
            (
                alone + seventh + rows("r=0.3-random", tuple(6.0 + one for one in lost), range(1, 4)),
                "the positive control has 3 of 5 folds, and it takes 4",
            ),
            (
                alone + seventh + rows("r=0.3-random", (-30.0, 60.0, 0.0)),
                "these sounds cannot tell: random patches at 0.3, fine-tuned, lose 10.00 [-20.51, 40.51] points, an "
                "interval that holds nought",
            ),
        ):
            assert within_margin(measured_sounds(given)).startswith(f"cannot say: {why}")


def test_sounds_of_other_originals_are_refused(esc10: Path, tmp_path: Path) -> None:
    write_sounds(esc10, tmp_path / "sounds")
    sources = fold_sources(tmp_path / "sounds")
    assert sources is not None and sources[3] == {f"103{number}" for number in range(10)}
    whole = made(CONTROL_KEY[1], 0, {3: dict.fromkeys(sources[3], 50.0)})
    check_rows(Path("sounds.csv"), whole, sources)
    with pytest.raises(DataError, match="original zebra is none of fold 3 of these sounds"):
        check_rows(Path("sounds.csv"), [*whole, *made("r=0.7", 0, {3: {"zebra": 1.0}})], sources)
    with pytest.raises(DataError, match="has 9 rows, where 10 originals"):
        check_rows(Path("sounds.csv"), whole[1:], sources)
    assert fold_sources(tmp_path) is None


def test_a_report_of_sounds_goes_on_from_an_earlier_one(tmp_path: Path) -> None:
    first, second = Record(sounds=[row for row in ROWS if row["fold"] == 1]), Record(sounds=ROWS[2:4])
    second.beside(first).write(tmp_path)
    again = read_record(tmp_path, {})
    assert sorted(map(repr, again.sounds)) == sorted(map(repr, [*first.sounds, *second.sounds]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accuracy": 101.0}, "original a has accuracy 101.0"),
        ({"accuracy": None}, "original a has accuracy None"),
        ({"fold": 6}, "there is no fold 6"),
        ({"epoch": None}, "r=0.999 of fold 1 has no epoch"),
        ({"source": "b"}, "r=0.999 of fold 1, seed 0, has 2 rows, where 2 originals have one each"),
    ],
)
def test_rows_that_cannot_be_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        check_rows(Path("sounds.csv"), [ROWS[0] | change, *ROWS[1:]])
    with pytest.raises(DataError, match="has 1 rows, where 2 originals"):
        check_rows(Path("sounds.csv"), ROWS[1:])
