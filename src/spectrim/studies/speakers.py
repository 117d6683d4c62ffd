"""Folds of speakers, so that every speaker is unheard once: the rule of docs/study/protocol.md, and its table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from spectrim.data.dataset import PARTS
from spectrim.data.table import TABLE
from spectrim.errors import DataError, InvalidSetting, brief
from spectrim.files import write_text
from spectrim.tables import csv_text, read_rows

FOLDS = 5
COLUMNS = ("path", "label", "split", "speaker")


@dataclass(frozen=True)
class SpokenClip:
    """A recording of a speaker.

    Attributes:
        path: from the folder of the table, or absolute.
        label: the word.
        split: the official part, one of `spectrim.data.dataset.PARTS`.
        speaker: who speaks.
    """

    path: str
    label: str
    split: str
    speaker: str


def read_clips(root: Path) -> list[SpokenClip]:
    """The clips of a data set by speakers: ``labels.csv`` with the columns path, label, split and speaker.

    Raises:
        DataError: there is no such table, it lacks a column, or a cell is empty or names no part.
    """
    table = root / TABLE
    if not table.is_file():
        raise DataError(f"{root} is no data set by speakers: it lacks {TABLE}")
    clips = []
    for line, cells in read_rows(table, COLUMNS):
        clip = SpokenClip(*(cells[name] for name in COLUMNS))
        if not (clip.path and clip.label and clip.speaker):
            raise DataError(f"{table}, line {line}: path, label or speaker is empty")
        if clip.split not in PARTS:
            raise DataError(f"{table}, line {line}: split is {brief(clip.split)}; allowed: {', '.join(PARTS)}")
        clips.append(clip)
    return clips


def folds_of(clips: Sequence[SpokenClip]) -> dict[str, int]:
    """The fold in which each speaker is unheard.

    Fold 0 has the official test speakers and fold 1 the official validation speakers; the official training speakers,
    in the order of their numbers, go in turn to folds 2, 3 and 4.

    Raises:
        DataError: a speaker is in two parts, or there are too few speakers for a fold.
    """
    parts: dict[str, str] = {}
    for clip in clips:
        if parts.setdefault(clip.speaker, clip.split) != clip.split:
            both = f"{parts[clip.speaker]} and {clip.split}"
            raise DataError(f"speaker {brief(clip.speaker)} is in {both}: an unheard speaker must be in one part only")
    in_order = sorted(parts, key=lambda name: (len(name), name))
    folds = {name: {"test": 0, "validation": 1}[part] for name, part in parts.items() if part != "train"}
    for place, name in enumerate(name for name in in_order if parts[name] == "train"):
        folds[name] = 2 + place % (FOLDS - 2)
    empty = sorted(set(range(FOLDS)) - set(folds.values()))
    if empty:
        raise DataError(
            f"no speakers for fold {empty[0]}: it takes speakers for test and validation and three for training"
        )
    return {name: folds[name] for name in in_order}


def validation_fold(fold: int) -> int:
    """The fold whose speakers choose the epoch where ``fold`` is the test."""
    return (fold + 1) % FOLDS


def write_folds(root: Path, folder: Path) -> None:
    """Write the table of clips with their folds, for the data set ``csv``, in the order of the original.

    Raises:
        InvalidSetting: there is another table already, which is of other data.
        DataError: see `read_clips` and `folds_of`.
    """
    clips = read_clips(root)
    folds = folds_of(clips)
    rows = [(str((root / clip.path).absolute()), clip.label, clip.speaker, folds[clip.speaker]) for clip in clips]
    keep_table(folder, [("path", "label", "speaker", "fold"), *rows], "data", root)


def keep_table(folder: Path, rows: Sequence[Sequence[object]], name: str, root: Path) -> None:
    """Write the table of clips that a study is begun with, the header first, unless it is there.

    Raises:
        InvalidSetting: another table is there; ``name`` is the setting, and ``root`` its value.
    """
    text, table = csv_text(rows, exact=True), folder / TABLE
    if table.is_file():
        if table.read_text(encoding="utf-8") != text:
            raise InvalidSetting(name, str(root), f"the {name} that the study in {folder.parent} was begun with")
        return
    folder.mkdir(parents=True, exist_ok=True)
    write_text(table, text)
