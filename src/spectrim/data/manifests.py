"""AST's manifests of AudioSet, made from Google's lists of segments and a folder of clips.

Google's ``balanced_train_segments.csv`` and ``eval_segments.csv`` have three lines of comment and then lines like
``--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/t/dd00088"``: a video's id, begin and end in seconds, and mids. The clips
themselves everybody cuts for themselves, so their names differ; see `make_manifest`.
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from spectrim.audio.files import READABLE, UNREADABLE
from spectrim.data.layout import audio_files
from spectrim.errors import DataError, InvalidSetting, brief
from spectrim.files import refuse_input, write_json
from spectrim.tables import read_class_labels, read_lines

CLOSE = 2
"""Milliseconds by which a place that is told in them may be off."""

_NUMBER = r"\d+(?:\.\d+)?"
_START = re.compile(rf"(?P<id>.+)_(?P<start>{_NUMBER})")
_START_AND_END = re.compile(rf"(?P<id>.+)_(?P<start>{_NUMBER})_{_NUMBER}")


@dataclass(frozen=True)
class Segment:
    """A line of Google's lists.

    Attributes:
        id: of the video.
        start: seconds from its begin.
        end: seconds from its begin.
        mids: its labels.
    """

    id: str
    start: float
    end: float
    mids: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.id} ({self.start:g}–{self.end:g} s)"


@dataclass(frozen=True)
class ManifestReport:
    """What became of the segments of a list.

    Attributes:
        segments: how many there are.
        written: how many have a clip and are in the manifest.
        missing: those without a clip.
        undecodable: those whose only clip is in a format that cannot be decoded; they are left out.
    """

    segments: int
    written: int
    missing: list[Segment]
    undecodable: list[Segment]


def make_manifest(segments: str | Path, clips: str | Path, out: str | Path, *, labels: str | Path) -> ManifestReport:
    """Write the manifest of those segments whose clips are there; it appears whole or not at all.

    The folder is searched to any depth for ``ID``, ``YID``, ``ID_start`` and ``ID_start_end`` with any ending that
    can be decoded, start and end in seconds, perhaps rounded, or else in milliseconds, perhaps rounded to whole
    seconds. A start that is not the segment's makes it another clip. Of several clips of one segment the first by name
    is taken.

    Args:
        segments: Google's list.
        clips: the folder.
        out: the manifest, a name that ends in ``.json``. Paths in it are relative to its folder where the clips are
            inside that, else absolute.
        labels: ``class_labels_indices.csv``, which says what mids there are.

    Raises:
        InvalidSetting: ``out`` has another ending, or is one of the files that are read.
        DataError: the list or the table of labels is wrong somewhere, the folder is not there, or has no clip.
    """
    folder, target = Path(clips), Path(out)
    if target.suffix.lower() != ".json":
        raise InvalidSetting("out", str(out), "a name that ends in .json")
    refuse_input(target, [segments, labels], "out")
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    if not target.absolute().parent.is_dir():
        raise DataError(f"{target.parent}: no such folder")
    listed = read_segments(Path(segments), read_class_labels(Path(labels)))
    clip_files = find_clips(listed, folder, READABLE)
    lacking = [segment for segment in listed if segment not in clip_files]
    undecodable = find_clips(lacking, folder, UNREADABLE)
    if not clip_files:
        advice = f"; {len(undecodable)} are there as {', '.join(UNREADABLE)}: convert them" if undecodable else ""
        raise DataError(f"{folder} has none of the {len(listed)} clips by the names ID.wav, YID.wav, ID_30.wav{advice}")
    base = _absolute(target).parent
    data = [
        {"wav": _path_from(base, _absolute(clip_files[segment])), "labels": ",".join(segment.mids)}
        for segment in listed
        if segment in clip_files
    ]
    write_json(target, {"data": data})
    missing = [segment for segment in lacking if segment not in undecodable]
    return ManifestReport(len(listed), len(data), missing, list(undecodable))


def read_segments(path: Path, mids: Collection[str]) -> list[Segment]:
    """Read one of Google's lists of segments.

    Args:
        path: the list.
        mids: those that there are.

    Raises:
        DataError: a line is no segment or has an unknown mid; names file and line. Or there is none.
    """
    segments: dict[Segment, None] = {}
    for number, line in read_lines(path):
        if not line.startswith("#"):
            segments[_segment(f"{path}, line {number}", line, mids)] = None
    if not segments:
        raise DataError(f"{path} holds no segments")
    return list(segments)


def _segment(where: str, line: str, mids: Collection[str]) -> Segment:
    try:
        name, start, end, labels = next(csv.reader([line], skipinitialspace=True, strict=True))
        segment = Segment(name.strip(), float(start), float(end), tuple(mid.strip() for mid in labels.split(",")))
    except (ValueError, csv.Error) as error:
        raise DataError(f'{where}: {brief(line)} is not: YTID, start_seconds, end_seconds, "mids"') from error
    if not segment.id or not 0 <= segment.start < segment.end < math.inf:
        raise DataError(f"{where}: {brief(line)} does not begin before it ends")
    unknown = [mid for mid in segment.mids if mid not in mids]
    if unknown:
        raise DataError(f"{where}: {brief(unknown[0])} is no mid of the {len(mids)} in the table of labels")
    return segment


def find_clips(segments: Collection[Segment], folder: Path, extensions: tuple[str, ...]) -> dict[Segment, Path]:
    """Find the clips of segments by their names; see `make_manifest`."""
    of_video: dict[str, list[Segment]] = {}
    for segment in segments:
        of_video.setdefault(segment.id, []).append(segment)
    clip_files: dict[Segment, Path] = {}
    for path in audio_files(folder, extensions):
        for name, start in _readings(path.stem):
            listed = of_video.get(name, ())
            here = [segment for segment in listed if start is None or abs(start - segment.start) < 1]
            here = here or [segment for segment in listed if _begins_in_milliseconds(segment, start)]
            if len(here) == 1:
                clip_files.setdefault(here[0], path)
                break
    return clip_files


def _readings(stem: str) -> Iterator[tuple[str, float | None]]:
    """What a file's name can mean, likeliest first: (video's id, start or None)."""
    for name in (stem, stem[1:]) if stem.startswith("Y") else (stem,):
        yield name, None
        for form in (_START, _START_AND_END):
            if times := form.fullmatch(name):
                yield times["id"], float(times["start"])


def _begins_in_milliseconds(segment: Segment, start: float | None) -> bool:
    """Whether a number in a file's name is where this segment begins, in milliseconds: exactly, or as whole seconds.

    30 is the second 30 of another clip, and no place near the beginning.
    """
    if start is None or not segment.start:
        return False
    near = 1000 if start >= 1000 and start % 1000 == 0 else CLOSE
    return abs(start - 1000 * segment.start) < near


def _absolute(path: Path) -> Path:
    """The path from the root, without steps up, links as they are."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _path_from(base: Path, path: Path) -> str:
    return path.relative_to(base).as_posix() if path.is_relative_to(base) else str(path)
