"""What the study on real recordings has found so far, as five tables that its whole report is made from.

A fold may be run on one machine and the next on another: the tables of an earlier report stand for the runs that are
not here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from spectrim.analysis.depth import profile_of
from spectrim.errors import DataError
from spectrim.files import file_digest, write_json, write_text
from spectrim.studies.recordings import (
    ALONE_CLIPS,
    BLOCKS,
    BOTH,
    CONTROL_ARM,
    DATA,
    FREE_METHODS,
    FREE_RATES,
    LATER_METHODS,
    LATER_RATES,
    PADDINGS,
    PROFILED,
    REMEDIES,
    REMEDY_RATES,
    STARTS,
    TRAINED,
    Arm,
    RecordingsPlan,
    pretrained,
)
from spectrim.studies.recordings_analysis import QUANTITIES, analysis_rows
from spectrim.studies.recordings_answers import TUNED, Key, Measured, free_key, later_key
from spectrim.studies.sounds import SOUNDS, check_rows, sound_arms, sources_of
from spectrim.studies.speakers import FOLDS, folds_of, read_clips, validation_fold
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

WEIGHTS = Path("model", "model.safetensors")
"""Of a run, from its folder."""

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

    here, kept = {found[:3] for found in trunks(own)}, trunks(own)
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


def record_of(plan: RecordingsPlan, out: Path, data: Path) -> Record:
    """What the runs in a folder have found.

    Args:
        plan: says what arms there are.
        out: folder of the study.
        data: of the recordings.
    """
    clips = read_clips(data)
    speakers, folds = {str((data / clip.path).absolute()): clip.speaker for clip in clips}, folds_of(clips)
    errors = pretraining_errors(out)
    accuracies: list[Row] = []
    runs: list[Row] = []
    depth: list[Row] = []
    analysis: list[Row] = []
    for arm in plan.arms:
        if not is_done(arm, out):
            continue
        named = {"backbone": arm.backbone, "seed": arm.seed, "fold": arm.fold}
        answers = read_answers(arm, out, speakers)
        if arm.branch == CONTROL_ARM:
            answers |= read_remedies(arm, out, speakers) | read_later(arm, out, speakers)
        accuracies += [
            {**named, "how": how, "arm": name, "speaker": speaker, "accuracy": accuracy}
            for (how, name), by_speaker in answers.items()
            for speaker, accuracy in by_speaker.items()
        ]
        error = None if arm.backbone in STARTS else errors.get(arm.fold)
        runs.append({**named, "arm": arm.branch.name, "error": error, **_facts(arm, out)})
        depth += [{**named, "arm": arm.branch.name, **row} for row in _depth(arm, out)]
        analysis += [{**named, "arm": arm.branch.name, **row} for row in analysis_rows(arm, out, speakers, folds)]
    return Record(accuracies, runs, depth, analysis, _sounds(out))


def _sounds(out: Path) -> list[Row]:
    """What the arms on ESC-10 answer, original by original."""
    done = [arm for arm in sound_arms(out) if is_done(arm, out)]
    sources = sources_of(out / SOUNDS) if done else {}
    rows: list[Row] = []
    for arm in done:
        named = {"backbone": arm.backbone, "seed": arm.seed, "fold": arm.fold, **_facts(arm, out)}
        rows += [
            {**named, "how": how, "arm": name, "source": source, "accuracy": accuracy}
            for (how, name), by_source in read_answers(arm, out, sources).items()
            for source, accuracy in by_source.items()
        ]
    return rows


def is_done(arm: Arm, out: Path) -> bool:
    """Whether an arm is trained and tested here; the report of its test is written last."""
    return (out / arm.answers).is_file() and (out / arm.answers.with_name("report.html")).is_file()


def _facts(arm: Arm, out: Path) -> Row:
    """Which epoch of a run was chosen, what it has on the validation speakers, its precision, and its trunk."""
    folder = out / arm.folder
    trunk = out / arm.trunk / WEIGHTS
    chosen = json.loads((folder / "results.json").read_text(encoding="utf-8"))["chosen"]
    validation = chosen.get("validation_accuracy")
    begun = folder / "run.json"
    recipe = json.loads(begun.read_text(encoding="utf-8"))["recipe"] if begun.is_file() else {}
    return {
        "epoch": float(chosen["epoch"]),
        "validation": None if validation is None else 100.0 * validation,
        "precision": recipe.get("optimiser", {}).get("precision", ""),
        "trunk": file_digest(trunk)[:12] if trunk.is_file() else "",
        "folder": arm.folder.as_posix(),
    }


def pretraining_errors(out: Path) -> dict[int, float]:
    """Fold → mean squared error on recordings of its validation speakers, of normalised patches that were masked."""
    written = {fold: out / pretrained(fold) / "results.json" for fold in range(FOLDS)}
    return {
        fold: float(json.loads(path.read_text(encoding="utf-8"))["held_out_loss"])
        for fold, path in written.items()
        if path.is_file()
    }


def read_answers(arm: Arm, out: Path, speakers: Mapping[str, str]) -> dict[Key, dict[str, float]]:
    """Key → speaker → accuracy in points of an arm, and of its weights without training where it is the control."""
    own = f"{TRAINED} at keep rate {arm.branch.keep_rate:g}"
    random = arm.branch.ranking == "random"
    wanted = {(TUNED, arm.branch.name): f"random at keep rate {arm.branch.keep_rate:g}, draw" if random else own}
    if arm.branch == CONTROL_ARM:
        wanted |= {free_key(method, rate): _title(method, rate) for rate in FREE_RATES for method in FREE_METHODS}
    return _by_speaker(out / arm.answers, _answers(out / arm.answers), wanted, speakers)


def read_remedies(arm: Arm, out: Path, speakers: Mapping[str, str]) -> dict[Key, dict[str, float]]:
    """The same of a control's weights by `REMEDIES`; nothing where it has not been asked."""
    methods = REMEDIES[arm.backbone]
    wanted = {free_key(name, rate): _title(name, rate) for rate in REMEDY_RATES for name in methods}
    return _if_asked(out / arm.remedies, wanted, speakers)


def read_later(arm: Arm, out: Path, speakers: Mapping[str, str]) -> dict[Key, dict[str, float]]:
    """The same of a control's weights that are pruned at later blocks; nothing where it has not been asked."""
    wanted = {later_key(name, rate): _title(name, rate) for rate in LATER_RATES for name in LATER_METHODS}
    return _if_asked(out / arm.later, wanted, speakers)


def _title(method: str, keep_rate: float) -> str:
    """The column of a method in `spectrim compare`'s answers, or how those of its draws begin."""
    return f"{method} at keep rate {keep_rate:g}" + ", draw" * (method == "random")


def _if_asked(answers: Path, wanted: Mapping[Key, str], speakers: Mapping[str, str]) -> dict[Key, dict[str, float]]:
    """Of what a finished step has answered; one that ran before a method was added to the study lacks that one."""
    if not answers.with_name("report.html").is_file():
        return {}
    rows = _answers(answers)
    there = {key: title for key, title in wanted.items() if _columns(rows[0], title)}
    return _by_speaker(answers, rows, there, speakers)


def _answers(path: Path) -> list[dict[str, str]]:
    rows = [cells for _, cells in read_rows(path, ("clip", "label"))]
    if not rows:
        raise DataError(f"{path}: there is no answer in it")
    return rows


def _columns(cells: Mapping[str, str], title: str) -> list[str]:
    """The columns with a title, or of its draws."""
    return [name for name in cells if name == title or (title.endswith("draw") and name.startswith(title))]


def _by_speaker(
    answers: Path, rows: Sequence[dict[str, str]], wanted: Mapping[Key, str], speakers: Mapping[str, str]
) -> dict[Key, dict[str, float]]:
    """Key → speaker → accuracy in points, of the columns with a title; the mean over those of a title's draws."""
    found = {}
    for key, title in wanted.items():
        columns = _columns(rows[0], title)
        if not columns:
            raise DataError(f"{answers}: there is no column {title!r}")
        by_speaker: dict[str, list[float]] = {}
        for row in rows:
            if row["clip"] not in speakers:
                raise DataError(f"{answers}: {row['clip']} is none of the clips of this study")
            right = fmean(row[column] == row["label"] for column in columns)
            by_speaker.setdefault(speakers[row["clip"]], []).append(100.0 * right)
        found[key] = {name: fmean(values) for name, values in by_speaker.items()}
    return found


def _depth(arm: Arm, out: Path) -> list[Row]:
    """A row for each block of a run that was pruned there alone, or whose scores are looked at."""
    if arm.branch not in PROFILED:
        return []
    costs: dict[int, Row] = {}
    for block in BLOCKS:
        if (out / arm.alone(block)).is_file():
            rows = json.loads((out / arm.alone(block)).read_text(encoding="utf-8"))["rows"]
            lost = {row["method"]: -100.0 * row["change"] for row in rows if row["change"] is not None}
            costs[block] = {name: lost.get(name) for name in FREE_METHODS}
    if not costs:
        return []
    spread = {row["block"]: row for row in _profile(arm, out)}
    kinds = ("strongest_share", "intensity_correlation")
    return [{"block": block, **costs[block], **{kind: spread[block][kind] for kind in kinds}} for block in costs]


def _profile(arm: Arm, out: Path) -> list[Row]:
    """`spectrim.analysis.depth.profile_of` of a run, kept beside its answers."""
    kept = (out / arm.answers).with_name("profile.json")
    if not kept.is_file():
        options = {"fold": arm.fold, "validation_fold": validation_fold(arm.fold)}
        write_json(kept, profile_of(out / arm.folder / "model", "csv", out / DATA, options, clips=ALONE_CLIPS))
    found: list[Row] = json.loads(kept.read_text(encoding="utf-8"))
    return found
