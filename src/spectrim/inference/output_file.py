"""An output file that survives Ctrl-C and kill, and that a later run continues, also inside a long file.

While a run goes on, its rows are in FILE.partial, whole and flushed file by file, and FILE.partial.journal says what
was asked for, which files are done, and what the model gave for windows of the others (`spectrim.inference.journal`).
When all is done, FILE.partial becomes FILE: whoever sees FILE sees all of it. A run that ends early leaves the two, and
a resumed one continues them: its batches are those that the unbroken run would have made, and so are its rows.

Nothing waits for the disk before the end. A power cut may so take the end of either file: what is missing is heard
anew, in other batches, or the run is refused as damaged. A full disk may likewise take part of a batch's scores.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

from spectrim.audio.finding import Selection
from spectrim.errors import InvalidSetting, one_of
from spectrim.files import SoleWriter, file_beside, open_to_append, refuse_another_run
from spectrim.inference.journal import Journal, Version
from spectrim.inference.prediction_rows import ENCODING, FORMATS, Done, finished_rows
from spectrim.inference.results import FilePrediction, WindowScores

CHUNK = 1 << 20
"""Bytes that are read at a time to see whether rows are those that were written."""


class OutputFile:
    """Where the rows of a run go: FILE.partial from the first row until `finish`, then FILE.

    It is a `spectrim.inference.tagger.ScoreStore` too. Rows of a Parquet file are CSV until `finish` converts them.

    Args:
        path: FILE; a previous one stays until `finish` replaces it.
        form: a key of `FORMATS`.
        settings: everything that the rows depend on, for JSON; a resumed run must have the same.
        beside: what else is made of the files, and how, likewise; a FILE that is complete says nothing of it.
        top: labels a row or window.
        resume: continue what is in FILE.partial; without one, begin anew.
        growing: the run has no end. Its rows go to FILE itself, and FILE.journal stays beside it; what is there is
            always continued.

    Attributes:
        done: files that have their rows already, with their errors.
        complete: with ``resume``, whether FILE is there and nothing is left to resume; nothing can be written then.
        says_settings: whether a FILE that is complete says its settings; they are then those of this run.
        begun: whether anything is on disk that could be resumed.
        found: files as they were when they were found; for others it is looked up when their scores come.

    Raises:
        InvalidSetting: FILE cannot be written; there is a FILE.partial and ``resume`` is not set; or it is set, and
            that was begun with other settings or is damaged; another run writes it now; a link is planted beside it; or
            it is to grow, and cannot, or was not made so.
        MissingExtra: what writes this format is not installed.
    """

    def __init__(
        self,
        path: str | Path,
        form: str,
        settings: Mapping[str, Any],
        *,
        beside: Mapping[str, Any] | None = None,
        top: int = 5,
        resume: bool = False,
        growing: bool = False,
    ) -> None:
        if form not in FORMATS:
            raise InvalidSetting("format", form, f"{one_of(FORMATS)} for an output file")
        self._format = FORMATS[form]
        self._format.check()
        self.path = Path(path).resolve()
        self.partial = self.path if growing else self.path.with_name(self.path.name + ".partial")
        self.done: Done = {}
        self.found: dict[str, Version] = {}
        self.complete = self.says_settings = False
        self._form = form
        self._growing = growing
        self._top = top
        self._settings = json.loads(json.dumps({"format": form, "top": top, **settings}))
        self._beside = json.loads(json.dumps(dict(beside or {})))
        self._journal = Journal(self.partial.with_name(self.partial.name + ".journal"))
        self._file: BinaryIO | None = None
        self._end = self._crc = 0
        special = self.path.exists() and not self.path.is_file()
        if special or not self.path.parent.is_dir():
            raise InvalidSetting("output", str(self.path), "a regular file in a folder that exists")
        self._writer = SoleWriter(self.path)
        with ExitStack() as refused:
            refused.callback(self._writer.end)
            self._begin(resume)
            refused.pop_all()

    @property
    def begun(self) -> bool:
        """Whether anything is on disk that could be resumed."""
        return self._journal.path.exists()

    def _begin(self, resume: bool) -> None:
        """Look at what is there: nothing, a run to be continued, or a finished file."""
        for beside in (self.partial, self._journal.path):
            if beside.is_symlink():
                allowed = f"a name without {beside}: that is a link, and nothing is written through it"
                raise InvalidSetting("output", str(self.path), allowed)
        if self._growing:
            if self._format.convert is not None:
                raise InvalidSetting("format", self._form, "csv or jsonl: this one cannot grow file by file")
            if self.begun or (self.partial.exists() and self.partial.stat().st_size):
                self._continue()
        elif self.partial.exists() or (resume and self.begun and not self.path.exists()):
            if not resume:
                allowed = "a name without an interrupted run; continue that one with --resume, or delete its file"
                raise InvalidSetting("output", str(self.path), f"{allowed} {self.partial}")
            self._continue()
        elif resume and self.path.exists():
            self.done, before = finished_rows(self.path, self._form)
            if before is not None:
                refuse_another_run(self._settings, before, self.path)
            self.complete, self.says_settings = True, before is not None

    def remaining(self, selection: Selection) -> Selection:
        """What of a selection has no rows yet."""
        name = self._format.name if self.complete else str
        files = [file for file in selection.files if name(file) not in self.done]
        return Selection(files, [error for error in selection.errors if name(error.source) not in self.done])

    def known(self, path: str) -> list[WindowScores]:
        """Scores of the first windows of a file, from a run that is resumed."""
        return self._journal.known(path, self.found.pop(path, None))

    def versions(self) -> dict[str, Version]:
        """What the files that are done were when they were heard."""
        return {path: rows.version for path, rows in self._journal.done.items()}

    def keep(self, scored: Iterable[tuple[str, WindowScores]]) -> None:
        """Put down the scores of windows, each with its file, until the rows of that file are written."""
        self._opened()
        self._journal.keep(scored)

    def write(self, prediction: FilePrediction) -> None:
        """Append the rows of a file, all of them or, if the process is killed, a torn end that resuming removes."""
        self._append(self._format.rows(prediction, self._top))
        self._journal.put_done(prediction.path, self._end, self._crc, prediction.error)

    def finish(self) -> None:
        """Give the file its name, unless it is to grow on."""
        if self._growing:
            self.close()
            return
        file = self._opened()
        os.fsync(file.fileno())
        file.close()
        if self._format.convert is None:
            self.partial.replace(self.path)
        else:
            with file_beside(self.path, ".whole") as whole, self.partial.open("rb") as rows:
                self._format.convert(rows, whole, json.dumps(self._settings))
            self.partial.unlink()
        self._journal.remove()
        self._writer.end()

    def close(self) -> None:
        """Leave the rows so far, if any, where they are, to be resumed."""
        with suppress(OSError):
            if self._file is not None:
                self._file.close()
        with suppress(OSError):
            self._journal.close()
        self._writer.end()

    def _append(self, text: str) -> None:
        file, content = self._opened(), text.encode(**ENCODING)
        file.write(content)
        file.flush()
        self._end += len(content)
        self._crc = zlib.crc32(content, self._crc)

    def _opened(self) -> BinaryIO:
        if self._file is None:
            if not self._journal.settings:
                self._journal.begin(self._settings | self._beside)
            self._file = open_to_append(self.partial)
            if self._end == 0:
                self._append(self._format.header())
        return self._file

    def _continue(self) -> None:
        try:
            self._journal.read()
        except (OSError, ValueError, LookupError, TypeError) as error:
            allowed = f"without {self.partial}: {self._journal.path}, which says what was done, is missing or damaged"
            raise InvalidSetting("resume", str(self.path), f"{allowed} ({error}); delete both to begin anew") from error
        refuse_another_run(self._settings | self._beside, self._journal.settings, self.partial)
        self._keep_whole_rows()
        self.done = {path: rows.error for path, rows in self._journal.done.items()}

    def _keep_whole_rows(self) -> None:
        """Cut FILE.partial after the last rows that the journal knows of.

        Raises:
            InvalidSetting: they are not those that were written.
        """
        with open_to_append(self.partial) as file:
            size = file.tell()
        header = self._format.header().encode()
        ends = {rows.end: rows.crc for rows in self._journal.done.values() if rows.end <= size}
        if size >= len(header):
            ends[len(header)] = zlib.crc32(header)
        self._end = max(ends, default=0)
        with self.partial.open("r+b") as file:
            left = self._end
            while left and (piece := file.read(min(left, CHUNK))):
                self._crc = zlib.crc32(piece, self._crc)
                left -= len(piece)
            if self._crc != ends.get(self._end, 0):
                allowed = f"without {self.partial}, which is damaged: its rows are not those that were written"
                raise InvalidSetting("resume", str(self.path), allowed)
            file.truncate(self._end)
        self._journal.drop_after(self._end)
