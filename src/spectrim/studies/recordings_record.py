"""What the study on real recordings has found so far, as five tables that its whole report is made from.

A fold may be run on one machine and the next on another: the tables of an earlier report stand for the runs that are
not here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectrim.errors import DataError
from spectrim.files import write_text
from spectrim.studies.recordings import BOTH, CONTROL_ARM, FREE_METHODS, PADDINGS, STARTS, Arm
from spectrim.studies.recordings_analysis import QUANTITIES
from spectrim.studies.recordings_answers import TUNED, Measured
from spectrim.studies.sounds import check_rows
from spectrim.tables import read_rows, table_csv, whole_number

Row = dict[str, Any]

SPEAKERS, RUNS, DEPTH, ANALYSIS = "speakers.csv", "runs.csv", "depth.csv", "analysis.csv"
OF_SOUNDS = "sounds.csv"

COLUMNS = {
    SPEAKERS: ("backbone", "how", "arm", "seed", "fold", "speaker", "accuracy"),
    RUNS: ("backbone", "arm", "seed", "fold", "epoch", "validation", "precision", "error", "trunk", "folder"),
    DEPTH: ("backbone", "arm", "seed", "fold", "block", *FREE_METHODS, "strongest_share", "intensity_correlation"),
    ANALYSIS: ("backbone", "arm", "seed", "fold", "padding", "quantity", "speaker", "value"),
    OF_SOUNDS: (
        *("backbone", "how", "arm", "seed", "fold", "source", "accuracy"),
        *("epoch", "validation", "precision", "trunk", "folder"),
    ),
}
"""Table → its columns. Accuracies, validation and what a ranking costs at one block alone are in points; error is that
of the masked pre-training that a run starts from; trunk is how the SHA-256 of the weights begins that it is a branch
of, empty where they are not kept."""

LATER_TABLES = (ANALYSIS, OF_SOUNDS)
"""Those that the first reports did not have,"""

LATER_COLUMNS = ("trunk",)
"""and columns; a trunk that is not known is none of those that are."""

WHOLE = ("seed", "fold", "block")
NUMBERS = ("accuracy", "epoch", "validation", "error", "value", *COLUMNS[DEPTH][5:])


@dataclass(frozen=True)
class Record:
    """What is known of every run.

    Attributes:
        speakers: the accuracy of every speaker, a row for each way of pruning each run.
        runs: a row each: the epoch that was chosen, and what it has on the validation speakers.
        depth: what pruning at one block alone costs, and how its scores are spread; a row for each block and run.
        analysis: what the paper's analysis has found of each speaker; see `spectrim.studies.recordings_analysis`.
        sounds: the accuracy of every original recording of ESC-10; see `spectrim.studies.sounds`.
        left_out: runs of an earlier record that are branches of another trunk than those of the same fold here.
    """

    speakers: Sequence[Row] = ()
    runs: Sequence[Row] = ()
    depth: Sequence[Row] = ()
    analysis: Sequence[Row] = ()
    sounds: Sequence[Row] = ()
    left_out: Sequence[Row] = ()

    def has(self, arm: Arm) -> bool:
        """Whether an arm is trained and tested."""
        return any(_run(row) == (arm.backbone, arm.branch.name, arm.seed, arm.fold) for row in self.runs)

    def beside(self, earlier: Record) -> Record:
        """This record with the runs of an earlier one that this one lacks.

        What differs between branches of two trunks is not what differs between their arms: where this record has runs
        of a fold and seed, those of another trunk are left out.
        """
        known = {_run(row) for row in self.runs}
        strange = _of_other_trunks(earlier.runs, self.runs)

        def further(rows: Sequence[Row]) -> list[Row]:
            return [row for row in rows if _run(row) not in known | strange]

        sounds = {_run(row) for row in self.sounds} | _of_other_trunks(earlier.sounds, self.sounds)
        return Record(
            [*further(earlier.speakers), *self.speakers],
            [*further(earlier.runs), *self.runs],
            [*further(earlier.depth), *self.depth],
            [*further(earlier.analysis), *self.analysis],
            [*(row for row in earlier.sounds if _run(row) not in sounds), *self.sounds],
            [*self.left_out, *(row for row in earlier.runs if _run(row) in strange)],
        )

    def measured(self) -> list[Measured]:
        """What is known of each backbone of the protocol."""
        found = {name: Measured(name, {}, None if name in STARTS else {}) for name in BOTH}
        for row in self.speakers:
            known: Any = found[row["backbone"]].accuracies
            by_fold = known.setdefault((row["how"], row["arm"]), {}).setdefault(row["seed"], {})
            by_fold.setdefault(row["fold"], {})[row["speaker"]] = row["accuracy"]
        for row in self.runs:
            errors: Any = found[row["backbone"]].errors
            if errors is not None and row["error"] is not None:
                errors[row["fold"]] = row["error"]
        return list(found.values())

    def write(self, folder: Path) -> None:
        """Write the five tables into a folder."""
        for name, rows in zip(COLUMNS, (self.speakers, self.runs, self.depth, self.analysis, self.sounds), strict=True):
            table = [{column: row.get(column) for column in COLUMNS[name]} for row in rows]
            ordered = sorted(table, key=lambda row: (row["backbone"], row["fold"], row["seed"]))
            write_text(folder / name, table_csv(ordered or [dict.fromkeys(COLUMNS[name])]))


def _run(row: Row) -> tuple[str, str, int, int]:
    """Which run a row is about: what is found without training belongs to the control."""
    arm = row["arm"] if row.get("how", TUNED) == TUNED else CONTROL_ARM.name
    return row["backbone"], arm, row["seed"], row["fold"]


def _of_other_trunks(earlier: Sequence[Row], own: Sequence[Row]) -> set[tuple[str, str, int, int]]:
    """The earlier runs of folds and seeds that are here too, but as branches of other weights."""

    def trunks(rows: Sequence[Row]) -> set[tuple[Any, ...]]:
        return {(row["backbone"], row["seed"], row["fold"], row.get("trunk", "")) for row in rows}

    here, kept = {found[:3] for found in trunks(own)}, {found for found in trunks(own) if found[3]}
    return {_run(row) for row in earlier for found in trunks([row]) if found[:3] in here and found not in kept}


def read_record(folder: Path, folds: Mapping[str, int]) -> Record:
    """The tables of an earlier report.

    Args:
        folder: where they are.
        folds: speaker → fold in which it is tested.

    Raises:
        DataError: a table is missing or broken, or has a speaker who is in another fold here.
    """
    tables = {
        name: [] if name in LATER_TABLES and not (folder / name).exists() else _read(folder / name) for name in COLUMNS
    }
    for name in (SPEAKERS, ANALYSIS):
        for row in tables[name]:
            if folds.get(row["speaker"]) != row["fold"]:
                raise DataError(
                    f"{folder / name}: speaker {row['speaker']} is in fold {row['fold']} there and in "
                    f"{folds.get(row['speaker'], 'none')} of these recordings: it is of other data"
                )
    _check_speakers(folder / SPEAKERS, tables, folds)
    _check_analysis(folder / ANALYSIS, tables, folds)
    check_rows(folder / OF_SOUNDS, tables[OF_SOUNDS])
    return Record(*(tables[name] for name in COLUMNS))


def _check_speakers(path: Path, tables: Mapping[str, Sequence[Row]], folds: Mapping[str, int]) -> None:
    """Make sure that every run has all speakers of its fold once: a mean over some of them would be another number."""
    found: dict[tuple[Any, ...], list[str]] = {}
    for row in tables[SPEAKERS]:
        found.setdefault((*_run(row), row["how"], row["arm"]), []).append(row["speaker"])
        if row["accuracy"] is None or not 0 <= row["accuracy"] <= 100:
            raise DataError(f"{path}: speaker {row['speaker']} has accuracy {row['accuracy']}; allowed: 0 to 100")
    for key, speakers in found.items():
        own = sorted(name for name, fold in folds.items() if fold == key[3])
        if sorted(speakers) != own:
            said = f"{len(speakers)} rows, where {len(own)} speakers have one each"
            raise DataError(f"{path}: {key[-1]} of fold {key[3]} has {said}")
    if lacking := {_run(row) for row in tables[RUNS]} ^ {key[:4] for key in found}:
        raise DataError(f"{path} and {RUNS} are not of the same runs: {sorted(lacking)[0]} is in one of them")


def _check_analysis(path: Path, tables: Mapping[str, Sequence[Row]], folds: Mapping[str, int]) -> None:
    """Make sure that every quantity of a run has all speakers of its fold once, and numbers."""
    runs = {_run(row) for row in tables[RUNS]}
    found: dict[tuple[Any, ...], list[str]] = {}
    for row in tables[ANALYSIS]:
        if row["padding"] not in PADDINGS or row["quantity"] not in QUANTITIES:
            raise DataError(f"{path}: no analysis has {row['quantity']} of patches {row['padding']} padding")
        if row["value"] is None or not math.isfinite(row["value"]):
            raise DataError(f"{path}: {row['quantity']} of speaker {row['speaker']} is {row['value']}")
        if _run(row) not in runs:
            raise DataError(f"{path}: {row['arm']} of fold {row['fold']} is no run of {RUNS}")
        found.setdefault((row["quantity"], row["padding"], *_run(row)), []).append(row["speaker"])
    for (quantity, *_, arm, _, fold), speakers in found.items():
        own = sorted(name for name, its in folds.items() if its == fold)
        if sorted(speakers) != own:
            said = f"{len(speakers)} rows, where {len(own)} speakers have one each"
            raise DataError(f"{path}: {quantity} of {arm}, fold {fold}, has {said}")


def _read(path: Path) -> list[Row]:
    rows = []
    for line, cells in read_rows(path, [name for name in COLUMNS[path.name] if name not in LATER_COLUMNS]):
        if not any(cells.values()):
            continue
        row: Row = dict(cells)
        for name in set(LATER_COLUMNS) & set(COLUMNS[path.name]):
            row.setdefault(name, "")
        for name in row.keys() & set(WHOLE):
            row[name] = whole_number(path, line, name, cells[name])
        try:
            row |= {name: float(cells[name]) if cells[name] else None for name in row.keys() & set(NUMBERS)}
        except ValueError as error:
            raise DataError(f"{path}, line {line}: {error}") from error
        if row["backbone"] not in BOTH:
            raise DataError(f"{path}, line {line}: backbone is {row['backbone']}; allowed: {', '.join(BOTH)}")
        rows.append(row)
    return rows
