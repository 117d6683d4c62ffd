"""ESC-10 in the study on real recordings: its plan, its table, what its arms answer, and what the report says.

Descriptive, by docs/study/protocol.md: five folds, three seeds, a margin of three points. The unit is the original
recording: clips that were cut from one are no independent evidence.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from spectrim.data.esc50 import FOLDS as ESC50_FOLDS
from spectrim.data.esc50 import TABLE as ESC50_TABLE
from spectrim.data.table import TABLE
from spectrim.errors import DataError, brief
from spectrim.pictures.report import Report
from spectrim.stats.ground import CANNOT_SAY, Interval, near_chance
from spectrim.stats.speakers import mean_over_speakers
from spectrim.studies.branches import FineTuning
from spectrim.studies.recordings import FIRST_ARMS, FREE_METHODS, FREE_RATES, STARTS, Arm, RecordingsPlan, tested_steps
from spectrim.studies.recordings_answers import (
    CONTROL_KEY,
    FEWEST_FOLDS,
    POSITIVE,
    POSITIVE_KEY,
    TUNED,
    Key,
    Measured,
    free_key,
)
from spectrim.studies.speakers import keep_table
from spectrim.tables import read_rows, whole_number

STAGE = 6
RECIPE = "esc10-ast"
SOUNDS = Path("sounds")
"""Folder of the table with folds and originals, from the folder of the study."""

SOUND_FOLDS = ESC50_FOLDS
LABELS = 10
SOUND_SEEDS = (0, 1, 2)
MARGIN = 3.0
"""Points."""

Row = dict[str, Any]

_ESC_NAME = re.compile(r"([1-5])-([^-]+)-[A-Z]-\d+\.\w+")
"""ESC's file names: fold, original recording, take, class."""


def with_sounds(plan: RecordingsPlan, out: Path, *, folds: Sequence[int], changes: Sequence[str]) -> RecordingsPlan:
    """The study with ESC-10 as its last stage, one seed in all folds before the next.

    Args:
        plan: of the recordings.
        out: where runs and report go.
        folds: to run, from 0; fold k is ESC-10's fold k + 1.
        changes: as in `spectrim.studies.recordings.recordings_plan`.
    """
    steps = []
    for seed in SOUND_SEEDS:
        for fold in folds:
            steps += tested_steps(_runs(out, SOUND_FOLDS[fold], seed, changes), FIRST_ARMS)
    return replace(plan, steps={**plan.steps, STAGE: steps})


def sound_arms(out: Path) -> list[Arm]:
    """Every arm, run or not."""
    runs = [_runs(out, fold, seed, ()) for seed in SOUND_SEEDS for fold in SOUND_FOLDS]
    return [
        Arm(STAGE, one.backbone, one.fold or 0, one.seed, branch, one.folder_of(branch))
        for one in runs
        for branch in FIRST_ARMS
    ]


def _runs(out: Path, fold: int, seed: int, changes: Sequence[str]) -> FineTuning:
    return FineTuning(
        backbone="ast",
        data="csv",
        recipe=RECIPE,
        root=SOUNDS,
        out=out,
        init=Path(STARTS["ast"]),
        seed=seed,
        fold=fold,
        tested=(),
        changes=tuple(changes),
    )


def read_sounds(root: Path) -> list[Row]:
    """The clips of ESC-10: path, label, source (the original recording) and fold.

    Args:
        root: with ``meta/esc50.csv``, as ESC-50 has it (of which the clips of ESC-10 are taken), or with
            ``labels.csv``.

    Raises:
        DataError: there is neither, a column is missing, a fold has no clips, there are not ten labels, a file's name
            does not say its original or says another fold, or an original is in two folds.
    """
    listed = root / ESC50_TABLE
    if listed.is_file():
        rows = [
            (f"audio/{cells['filename']}", cells["category"], cells["fold"], line)
            for line, cells in read_rows(listed, ("filename", "fold", "category", "esc10"))
            if cells["esc10"] == "True"
        ]
    else:
        listed = root / TABLE
        if not listed.is_file():
            raise DataError(f"{root} is no ESC-10: it lacks {ESC50_TABLE} and {TABLE}")
        rows = [
            (cells["path"], cells["label"], cells["fold"], line)
            for line, cells in read_rows(listed, ("path", "label", "fold"))
        ]
    found: list[Row] = []
    folds: dict[str, int] = {}
    for path, label, text, line in rows:
        fold = whole_number(listed, line, "fold", text)
        name = _ESC_NAME.fullmatch(Path(path).name)
        if name is None:
            raise DataError(f"{listed}, line {line}: {brief(path)} is not named as in ESC: FOLD-CLIP-TAKE-CLASS")
        named, source = name.groups()
        if int(named) != fold:
            raise DataError(f"{listed}, line {line}: {brief(path)} is in fold {fold} here and {named} by its name")
        if folds.setdefault(source, fold) != fold:
            raise DataError(f"{listed}, line {line}: original {brief(source)} is in folds {folds[source]} and {fold}")
        found.append({"path": str((root / path).absolute()), "label": label, "source": source, "fold": fold})
    labels = {row["label"] for row in found}
    if len(labels) != LABELS:
        raise DataError(f"{listed}: {len(labels)} labels, where ESC-10 has {LABELS}")
    if set(folds.values()) != set(SOUND_FOLDS):
        raise DataError(f"{listed}: it has clips in folds {sorted(set(folds.values()))}; wanted: 1 to 5")
    return found


def write_sounds(root: Path, folder: Path) -> None:
    """Write the table of clips for the data set ``csv``; a group is an original.

    Raises:
        InvalidSetting: there is another table already, which is of other data.
        DataError: see `read_sounds`.
    """
    rows = [(row["path"], row["label"], row["source"], row["fold"]) for row in read_sounds(root)]
    keep_table(folder, [("path", "label", "group", "fold"), *rows], "sounds", root)


def measured_sounds(rows: Sequence[Row]) -> Measured:
    """Accuracies in points of the originals, as `Measured` has those of speakers."""
    found: dict[Key, dict[int, dict[int, dict[str, float]]]] = {}
    for row in rows:
        by_fold = found.setdefault((row["how"], row["arm"]), {}).setdefault(row["seed"], {})
        by_fold.setdefault(row["fold"], {})[row["source"]] = row["accuracy"]
    return Measured("ast", found)


def within_margin(measured: Measured) -> str:
    """Whether fine-tuning by attention at 0.7 loses less than the margin, or why that cannot be said."""
    lost = measured.difference(CONTROL_KEY, (TUNED, "r=0.7"), SOUND_FOLDS)
    control = mean_over_speakers(measured.of(CONTROL_KEY))
    if lost is None or control is None:
        return f"{CANNOT_SAY}: it has not been run beside a control"
    share = Interval(*(value / 100 for value in (control.mean, control.low, control.high)))
    why = near_chance(share, 1 / LABELS) or (None if lost.answers else "the interval has no width")
    if why is None and len(lost.folds) < FEWEST_FOLDS:
        why = f"{len(lost.folds)} of {len(SOUND_FOLDS)} folds, and it takes {FEWEST_FOLDS}"
    why = why or _cannot_tell(measured)
    if why is None and lost.low <= MARGIN <= lost.high:
        why = f"the interval holds {MARGIN:g} points"
    said = f"{CANNOT_SAY}: {why}" if why else "yes" if lost.high < MARGIN else "no"
    folds = f"{lost.speakers} originals in {len(lost.folds)} fold{'s' * (len(lost.folds) > 1)}"
    return f"{said} ({lost} points lost; {folds})"


def _cannot_tell(measured: Measured) -> str | None:
    """Why nothing is answered on these sounds, as `spectrim.studies.recordings_answers.positive_control`, or None."""
    lost = measured.difference(CONTROL_KEY, POSITIVE_KEY, SOUND_FOLDS)
    if lost is None:
        return "the positive control, random patches at 0.3, has not been run"
    if len(lost.folds) < FEWEST_FOLDS:
        return f"the positive control has {len(lost.folds)} of {len(SOUND_FOLDS)} folds, and it takes {FEWEST_FOLDS}"
    if lost.low > 0 and lost.mean >= POSITIVE:
        return None
    lacks = f"and not {POSITIVE:g}" if lost.mean < POSITIVE else "an interval that holds nought"
    return f"these sounds cannot tell: random patches at 0.3, fine-tuned, lose {lost} points, {lacks}"


def add_sounds(report: Report, rows: Sequence[Row]) -> None:
    """Accuracy of every arm in every fold, and what it loses against the control; nothing where none is run."""
    measured = measured_sounds(rows)
    if CONTROL_KEY not in measured.accuracies:
        return
    folds = sorted({row["fold"] for row in rows})
    tuned = [(TUNED, branch.name) for branch in FIRST_ARMS]
    free = [free_key(method, rate) for rate in FREE_RATES for method in FREE_METHODS]
    table = []
    for key in (key for key in (*tuned, *free) if key in measured.accuracies):
        means = [measured.fold_mean(key, fold) for fold in folds]
        lost = None if key == CONTROL_KEY else measured.difference(CONTROL_KEY, key, folds)
        label = f"control, {key[1]}" if key == CONTROL_KEY else key[1]
        table.append((key[0], label, *("" if mean is None else f"{mean:.1f}" for mean in means), lost or ""))
    runs = {(row["seed"], row["fold"]) for row in rows if (row["how"], row["arm"]) == CONTROL_KEY}
    report.heading("ESC-10")
    report.text(
        "Descriptive, without a gate: AST on environmental sounds of 5 s, from the model of synthesised words. The "
        "unit is the original recording: accuracies are means over its clips, then over the originals of a fold; "
        "differences are paired by original and seed, intervals by bootstrap over originals within folds. "
        f"{len(runs)} of {len(SOUND_SEEDS) * len(SOUND_FOLDS)} controls are there "
        f"(seeds {', '.join(str(seed) for seed in sorted({seed for seed, _ in runs}))})."
    )
    report.text(f"Is less than {MARGIN:g} points lost at r = 0.7 by attention, fine-tuned? {within_margin(measured)}.")
    report.table(["", "arm", *(f"fold {fold}, %" for fold in folds), "lost to control, points"], table)
    report.table(
        ["arm", "fold", "seed", "precision", "epoch", "validation, %", "folder"],
        sorted(
            {
                (
                    *(row["arm"], row["fold"], row["seed"], row["precision"], f"{row['epoch']:g}"),
                    "" if row["validation"] is None else f"{row['validation']:.1f}",
                    row["folder"],
                )
                for row in rows
                if row["how"] == TUNED
            }
        ),
    )


def sounds_state(rows: Sequence[Row]) -> tuple[str, str, str, str]:
    """Stage, state, arms done of all, and folds that are whole in all seeds."""
    done = {(row["arm"], row["fold"], row["seed"]) for row in rows if row["how"] == TUNED}
    names = [branch.name for branch in FIRST_ARMS]
    whole = [fold for fold in SOUND_FOLDS if all((name, fold, seed) in done for name in names for seed in SOUND_SEEDS)]
    everything = len(names) * len(SOUND_SEEDS) * len(SOUND_FOLDS)
    state = "whole" if len(done) == everything else "in part" if done else "not run"
    title = f"{STAGE}. ESC-10: control, attention 0.7 and 0.5, random 0.3"
    return title, state, f"{len(done)} of {everything}", ", ".join(map(str, whole)) or "none"


def check_rows(path: Path, rows: Sequence[Row], sources: Mapping[int, Collection[str]] | None = None) -> None:
    """Make sure that all arms of a fold have the same originals, once each, and accuracies that can be.

    Args:
        path: to name.
        rows: of the table.
        sources: fold → its originals, where they are known.

    Raises:
        DataError: they have not.
    """
    found: dict[tuple[Any, ...], list[str]] = {}
    originals: dict[int, set[str]] = {fold: set(names) for fold, names in (sources or {}).items()}
    for row in rows:
        if row["fold"] not in SOUND_FOLDS:
            raise DataError(f"{path}: there is no fold {row['fold']}")
        if row["accuracy"] is None or not 0 <= row["accuracy"] <= 100:
            raise DataError(f"{path}: original {row['source']} has accuracy {row['accuracy']}; allowed: 0 to 100")
        if row["epoch"] is None:
            raise DataError(f"{path}: {row['arm']} of fold {row['fold']} has no epoch")
        found.setdefault((row["how"], row["arm"], row["seed"], row["fold"]), []).append(row["source"])
        if sources is None:
            originals.setdefault(row["fold"], set()).add(row["source"])
        elif row["source"] not in originals[row["fold"]]:
            raise DataError(f"{path}: original {row['source']} is none of fold {row['fold']} of these sounds")
    for (_, arm, seed, fold), names in found.items():
        if sorted(names) != sorted(originals[fold]):
            said = f"{len(names)} rows, where {len(originals[fold])} originals have one each"
            raise DataError(f"{path}: {arm} of fold {fold}, seed {seed}, has {said}")


def sources_of(folder: Path) -> dict[str, str]:
    """Clip → original, of the table of a study.

    Raises:
        DataError: there is none, or it is broken.
    """
    return {cells["path"]: cells["group"] for _, cells in read_rows(folder / TABLE, ("path", "group"))}


def fold_sources(folder: Path) -> dict[int, set[str]] | None:
    """Fold → its originals, of the table of a study; None where it has none."""
    table = folder / TABLE
    if not table.is_file():
        return None
    found: dict[int, set[str]] = {fold: set() for fold in SOUND_FOLDS}
    for line, cells in read_rows(table, ("group", "fold")):
        found.setdefault(whole_number(table, line, "fold", cells["fold"]), set()).add(cells["group"])
    return found
