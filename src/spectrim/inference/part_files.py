"""An output in parts: a folder of Parquet files, each written whole, that a later run continues.

A part holds the rows of a few files, and appears when they all have theirs: written beside, then renamed. So what the
parts hold is all that is done, whatever ended a run, and no file is in two of them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spectrim.audio.finding import Selection
from spectrim.errors import InvalidSetting, SpectrimError
from spectrim.files import SoleWriter, refuse_another_run
from spectrim.inference.prediction_rows import ENCODING, FORMATS, Done, finished_rows, write_parquet
from spectrim.inference.results import FilePrediction

MOST_FILES, FEWEST_FILES = 1024, 64
"""Files of a part, where nobody says; as many as make `WISHED_PARTS`, in steps of the fewest."""

WISHED_PARTS = 256

MOST_BYTES = 1 << 28
"""Bytes of the files of a part: long recordings are in parts with few others."""

_PATTERN, _BESIDE = "part-*.parquet", ".part-*.partial"


@dataclass(frozen=True)
class Part:
    """Files whose rows are in one Parquet file.

    Attributes:
        name: of the Parquet file: its place in the order of the run, and a digest of the names.
        files: their names.
    """

    name: str
    files: Sequence[str]


def parts_of(files: Sequence[str], most: int | None = None) -> list[Part]:
    """Divide a list of files, in its order.

    The parts depend on the list and the sizes of the files alone, so a run that is resumed makes those of the unbroken
    one. The size of a file that is not on this machine is taken for 0.

    Args:
        files: names.
        most: files of a part; by default 64 to 1024, by how many there are.

    Raises:
        InvalidSetting: ``most`` is below 1.
    """
    if most is None:
        steps = -(-len(files) // (FEWEST_FILES * WISHED_PARTS))
        most = min(MOST_FILES, FEWEST_FILES * max(steps, 1))
    if most < 1:
        raise InvalidSetting("part_files", most, "1 or more")
    parts: list[Part] = []
    names: list[str] = []
    total = 0
    for file in files:
        size = _size(file)
        if names and (len(names) == most or total + size > MOST_BYTES):
            parts.append(_part(f"{len(parts):06}", names))
            names, total = [], 0
        names.append(file)
        total += size
    return [*parts, _part(f"{len(parts):06}", names)] if names else parts


def _part(place: str, files: Sequence[str]) -> Part:
    digest = hashlib.sha256("\0".join(files).encode(**ENCODING)).hexdigest()[:12]
    return Part(f"part-{place}-{digest}.parquet", files)


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116 (a name that is too long raises OSError here)
    except (OSError, ValueError):
        return 0


@dataclass
class _Open:
    """A part on its way: the rows of its files so far."""

    part: Part
    rows: dict[str, str] = field(default_factory=dict)


class PartFolder:
    """Where the rows of a run go, in parts.

    Args:
        folder: made where it is not there.
        settings: everything that the rows depend on, for JSON; a resumed run must have the same.
        top: labels a row or window.
        resume: go on with the parts that are there.
        part_files: files of a part; see `parts_of`.

    Attributes:
        done: files that have their rows already, with their errors, as `spectrim.errors.utf8_text` writes their
            names.

    Raises:
        InvalidSetting: there are parts and no ``resume``, or they were made with other settings, or are none; it is no
            folder, or another run is writing there.
        MissingExtra: pyarrow is not installed.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        settings: Mapping[str, Any],
        *,
        top: int,
        resume: bool,
        part_files: int | None = None,
    ) -> None:
        self._format = FORMATS["parquet"]
        self._format.check()
        self.folder = Path(folder).resolve()
        self.done: Done = {}
        self._top = top
        self._part_files = part_files
        self._settings = json.loads(json.dumps({"format": "parquet", "top": top, **settings}))
        self._open: dict[str, _Open] = {}
        self._left: dict[str, _Open] = {}
        if self.folder.exists() and not self.folder.is_dir():
            raise InvalidSetting("output", str(folder), "a folder: the rows are written in parts")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._writer = SoleWriter(self.folder)
        with ExitStack() as refused:
            refused.callback(self._writer.end)
            self._begin(resume)
            refused.pop_all()

    @property
    def begun(self) -> bool:
        """Whether there is a part."""
        return next(self.folder.glob(_PATTERN), None) is not None

    def _begin(self, resume: bool) -> None:
        if self.begun and not resume:
            allowed = "a folder without parts; continue those with --resume, or delete them"
            raise InvalidSetting("output", str(self.folder), allowed)
        for beside in self.folder.glob(_BESIDE):
            beside.unlink()
        for path in sorted(self.folder.glob(_PATTERN)):
            done, before = finished_rows(path, "parquet")
            refuse_another_run(self._settings, before or {}, self.folder)
            self.done |= done

    def remaining(self, selection: Selection) -> Selection:
        """What of a selection has no rows yet."""
        files = [file for file in selection.files if self._format.name(file) not in self.done]
        errors = [error for error in selection.errors if self._format.name(error.source) not in self.done]
        return Selection(files, errors)

    def plan(self, selection: Selection) -> list[Part]:
        """The parts that are left of a selection; from then on they are waited for.

        Folders and patterns in which nothing was found make one more part, which is not among them.
        """
        parts = [
            _part("errors", [error.source for error in selection.errors]),
            *parts_of(selection.files, self._part_files),
        ]
        left = []
        for part in parts:
            files = [file for file in part.files if self._format.name(file) not in self.done]
            if files:
                left.append(part if len(files) == len(part.files) else _part(part.name.split("-")[1], files))
        for part in left:
            opened = self._left[part.name] = _Open(part)
            self._open |= dict.fromkeys(part.files, opened)
        return [part for part in left if not part.name.startswith("part-errors")]

    def write(self, prediction: FilePrediction) -> None:
        """Take the rows of a file, and write its part if it is the last of it.

        Raises:
            SpectrimError: no such file is waited for, or not any more.
        """
        opened = self._open.pop(prediction.path, None)
        if opened is None:
            raise SpectrimError(f"{prediction.path}: a second prediction, or one that nobody asked for")
        opened.rows[prediction.path] = self._format.rows(prediction, self._top)
        if len(opened.rows) == len(opened.part.files):
            self._commit(opened)

    def _commit(self, opened: _Open) -> None:
        rows = "".join([self._format.header(), *(opened.rows[file] for file in opened.part.files)])
        beside = self.folder / f".{opened.part.name.removesuffix('.parquet')}.partial"
        try:
            write_parquet(io.BytesIO(rows.encode(**ENCODING)), beside, json.dumps(self._settings))
            with beside.open("rb") as file:
                os.fsync(file.fileno())
            beside.replace(self.folder / opened.part.name)
            del self._left[opened.part.name]
        finally:
            beside.unlink(missing_ok=True)

    def finish(self) -> None:
        """All is written.

        Raises:
            SpectrimError: it is not.
        """
        self.close()
        missing = [file for opened in self._left.values() for file in opened.part.files]
        if missing:
            allowed = f"{missing[0]} and {len(missing) - 1} more have no rows in {self.folder}; --resume tags them"
            raise SpectrimError(allowed)

    def close(self) -> None:
        """Leave the parts so far where they are; rows of parts that are not whole are dropped."""
        self._writer.end()
