"""What the runs of the study on real recordings, in the folder where they are, have found."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from spectrim.analysis.depth import profile_of
from spectrim.errors import DataError
from spectrim.files import file_digest, write_json
from spectrim.studies.recordings import (
    ALONE_CLIPS,
    BLOCKS,
    CONTROL_ARM,
    DATA,
    FREE_METHODS,
    FREE_RATES,
    LATER_METHODS,
    LATER_RATES,
    PROFILED,
    REMEDIES,
    REMEDY_RATES,
    STARTS,
    TRAINED,
    Arm,
    RecordingsPlan,
    pretrained,
)
from spectrim.studies.recordings_analysis import analysis_rows
from spectrim.studies.recordings_answers import TUNED, Key, free_key, later_key
from spectrim.studies.recordings_record import Record, Row
from spectrim.studies.sounds import SOUNDS, sound_arms, sources_of
from spectrim.studies.speakers import FOLDS, folds_of, read_clips, validation_fold
from spectrim.tables import read_rows

WEIGHTS = Path("model", "model.safetensors")
"""Of a run, from its folder."""


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
    """Key → speaker → accuracy in points of an arm, and of its weights without training where it is the control.

    A control that was asked by fewer rankings lacks the others, which the report names.
    """
    own = f"{TRAINED} at keep rate {arm.branch.keep_rate:g}"
    random = arm.branch.ranking == "random"
    wanted = {(TUNED, arm.branch.name): f"random at keep rate {arm.branch.keep_rate:g}, draw" if random else own}
    found = _by_speaker(out / arm.answers, _answers(out / arm.answers), wanted, speakers)
    if arm.branch == CONTROL_ARM:
        free = {free_key(method, rate): _title(method, rate) for rate in FREE_RATES for method in FREE_METHODS}
        found |= _if_asked(out / arm.answers, free, speakers)
    return found


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
