"""Predictions as CSV or JSON lines, and an output file that survives Ctrl-C, kill and power cuts.

While a run goes on, its rows are in FILE.partial, whole and flushed file by file, and what the run was asked for is in
FILE.partial.json. When all is done, FILE.partial becomes FILE: whoever sees FILE sees all of it. A run that ends early
leaves the two, and a resumed one continues them.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

from spectrim.audio.finding import Selection
from spectrim.errors import InvalidSetting, one_of
from spectrim.files import SoleWriter, open_to_append, write_json
from spectrim.inference.results import FilePrediction
from spectrim.tables import csv_text, plain_cell

CSV_COLUMNS = ("file", "part", "start", "end", "rank", "label", "score", "error", "note")
ERROR = CSV_COLUMNS.index("error")
"""A row is one label. ``part`` is "file" for the aggregate and "window" for an entry of the timeline, which is written
where there is more than one window or no aggregate; ``start`` and ``end`` are in seconds. A file without scores has one
row, with ``error``; ``note``, in every row of a file, says what is unusual about one that was heard. Text that a
spreadsheet could take for a formula has an apostrophe before it; see `spectrim.tables.spreadsheet_cell`."""

ENCODING: dict[str, str] = {"encoding": "utf-8", "errors": "surrogateescape"}
"""File names that are not UTF-8 are written byte for byte."""

Done = dict[str, str | None]
"""Files that have rows → their error, or None."""


def csv_rows(prediction: FilePrediction, top: int) -> str:
    """The rows of one file in CSV, with their line ends, best labels first; see `CSV_COLUMNS`."""
    rows: list[tuple[Any, ...]] = []
    if prediction.error is not None:
        rows.append((prediction.path, "", "", "", "", "", "", prediction.error, ""))
    parts = [] if prediction.scores is None else [("file", 0.0, prediction.seconds, prediction.scores)]
    if prediction.scores is None or len(prediction.timeline) > 1:
        parts += [("window", window.start, window.end, window.scores) for window in prediction.timeline]
    for part, start, end, scores in parts:
        for rank, (label, score) in enumerate(prediction.top(top, scores), 1):
            rows.append(
                (prediction.path, part, _time(start), _time(end), rank, label, _score(score), "", prediction.note or "")
            )
    return csv_text(rows)


def csv_header() -> str:
    """The first line of a CSV file."""
    return csv_text([CSV_COLUMNS])


def json_line(prediction: FilePrediction, top: int) -> str:
    """One file as a JSON object on one line.

    Its keys: file, seconds, scores (list of label and score, best first; null without an aggregate), windows (list of
    start, end and scores), error (null if all is well), note (null for most files).
    """

    def listed(scores: Any) -> list[dict[str, Any]]:
        return [{"label": label, "score": _score(score)} for label, score in prediction.top(top, scores)]

    row = {
        "file": prediction.path,
        "seconds": _time(prediction.seconds),
        "scores": None if prediction.scores is None else listed(prediction.scores),
        "windows": [
            {"start": _time(window.start), "end": _time(window.end), "scores": listed(window.scores)}
            for window in prediction.timeline
        ],
        "error": prediction.error,
        "note": prediction.note,
    }
    text = json.dumps(row, ensure_ascii=False)
    if any("\ud800" <= character <= "\udfff" for character in text):
        text = json.dumps(row)
    return text + "\n"


def _time(seconds: float) -> float:
    return round(seconds, 4)


def _score(score: float) -> float:
    """Six digits: what a float32 is good for."""
    return float(f"{score:.6g}")


RENDERERS: dict[str, tuple[Callable[[], str], Callable[[FilePrediction, int], str]]] = {
    "csv": (csv_header, csv_rows),
    "jsonl": (str, json_line),
}
"""For each format what a file begins with, and how the rows of a prediction are written."""


class OutputFile:
    """Where the rows of a run go: FILE.partial from the first row until `finish`, then FILE.

    Args:
        path: FILE; a previous one stays until `finish` replaces it.
        form: a key of `RENDERERS`.
        settings: everything that the rows depend on, for JSON; a resumed run must have the same.
        top: labels a row or window.
        resume: continue what is in FILE.partial; without one, begin anew.

    Attributes:
        done: files that have their rows already.
        complete: with ``resume``, whether FILE is there and nothing is left to resume; nothing can be written then.

    Raises:
        InvalidSetting: FILE cannot be written; there is a FILE.partial and ``resume`` is not set; or it is set, and
            that was begun with other settings or is damaged; another run writes it now; or a link is planted beside it.
    """

    def __init__(
        self, path: str | Path, form: str, settings: Mapping[str, Any], *, top: int = 5, resume: bool = False
    ) -> None:
        if form not in RENDERERS:
            raise InvalidSetting("format", form, f"{one_of(RENDERERS)} for an output file")
        self.path = Path(path).resolve()
        self.partial = self.path.with_name(self.path.name + ".partial")
        self.record = self.path.with_name(self.path.name + ".partial.json")
        self.done: Done = {}
        self.complete = False
        self._form = form
        self._top = top
        self._settings = json.loads(json.dumps({"format": form, "top": top, **settings}))
        self._file: BinaryIO | None = None
        special = self.path.exists() and not self.path.is_file()
        if special or not self.path.parent.is_dir():
            raise InvalidSetting("output", str(self.path), "a regular file in a folder that exists")
        self._writer = SoleWriter(self.path)
        with ExitStack() as refused:
            refused.callback(self._writer.end)
            self._begin(resume)
            refused.pop_all()

    def _begin(self, resume: bool) -> None:
        """Look at what is there: nothing, a run to be continued, or a finished file."""
        for beside in (self.partial, self.record):
            if beside.is_symlink():
                allowed = f"a name without {beside}: that is a link, and nothing is written through it"
                raise InvalidSetting("output", str(self.path), allowed)
        if self.partial.exists() and not resume:
            allowed = "a name without an interrupted run; continue that one with --resume, or delete its file"
            raise InvalidSetting("output", str(self.path), f"{allowed} {self.partial}")
        if self.partial.exists():
            self._continue()
        elif resume and self.path.exists():
            self.done = finished_rows(self.path, self._form)
            self.complete = True

    def remaining(self, selection: Selection) -> Selection:
        """What of a selection has no rows yet."""
        files = [file for file in selection.files if file not in self.done]
        return Selection(files, [error for error in selection.errors if error.source not in self.done])

    def write(self, prediction: FilePrediction) -> None:
        """Append the rows of a file, all of them or, if the process is killed, a torn end that resuming removes."""
        self._append(RENDERERS[self._form][1](prediction, self._top))

    def finish(self) -> None:
        """Give the file its name."""
        self._append("")
        file = self._opened()
        os.fsync(file.fileno())
        file.close()
        self.partial.replace(self.path)
        self.record.unlink(missing_ok=True)
        self._writer.end()

    def close(self) -> None:
        """Leave the rows so far, if any, where they are, to be resumed."""
        if self._file is not None:
            self._file.close()
        self._writer.end()

    def _append(self, text: str) -> None:
        file = self._opened()
        file.write(text.encode(**ENCODING))
        file.flush()

    def _opened(self) -> BinaryIO:
        if self._file is None:
            if not self.partial.exists():
                write_json(self.record, self._settings)
            self._file = open_to_append(self.partial)
            if self._file.tell() == 0:
                self._file.write(RENDERERS[self._form][0]().encode())
        return self._file

    def _continue(self) -> None:
        try:
            begun = json.loads(self.record.read_text())
        except (OSError, ValueError) as error:
            allowed = f"without {self.partial}: what it was made with is not known, {self.record} is missing or damaged"
            raise InvalidSetting("resume", str(self.path), allowed) from error
        for name in sorted({*begun, *self._settings}):
            if begun.get(name) != self._settings.get(name):
                allowed = f"{begun.get(name)!r}, with which the run in {self.partial} was begun"
                raise InvalidSetting(name, self._settings.get(name), allowed)
        content = self.partial.read_bytes()
        try:
            self.done, end = RESUMERS[self._form](content)
        except (ValueError, LookupError, TypeError) as error:
            allowed = f"without {self.partial}, which is damaged ({error}); delete it to begin anew"
            raise InvalidSetting("resume", str(self.path), allowed) from error
        with self.partial.open("r+b") as file:
            file.truncate(end)


def finished_rows(path: Path, form: str) -> Done:
    """Files that a complete output holds, with their errors.

    Raises:
        InvalidSetting: it is no output of this program.
    """
    content = path.read_bytes()
    try:
        if form == "csv":
            return {row[0]: row[ERROR] or None for row, _ in _csv_records(content)}
        return dict(_json_record(line) for line in content.splitlines())
    except (ValueError, LookupError, TypeError) as error:
        raise InvalidSetting("resume", str(path), f"an output in the format {form} ({error})") from error


def _json_resumable(content: bytes) -> tuple[Done, int]:
    """What a partial file of JSON lines holds, and where its last whole line ends."""
    end = content.rfind(b"\n") + 1
    return dict(_json_record(line) for line in content[:end].splitlines()), end


def _json_record(line: bytes) -> tuple[str, str | None]:
    row = json.loads(line)
    return row["file"], row["error"]


def _csv_resumable(content: bytes) -> tuple[Done, int]:
    """What a partial CSV file holds without its last file, and where that one's rows begin.

    Nothing in a CSV file says that the rows of a file are all there, so the last file is done again.
    """
    header = csv_header().encode()
    if header.startswith(content):
        return {}, 0
    if not content.startswith(header):
        raise ValueError("it begins with another header")
    done: Done = {}
    last, begins, end = None, len(header), len(header)
    for row, after in _csv_records(content):
        if row[0] != last:
            last, begins = row[0], end
        done[row[0]] = row[ERROR] or None
        end = after
    if last is not None:
        del done[last]
    return done, begins


def _csv_records(content: bytes) -> Iterator[tuple[list[str], int]]:
    """Whole records after the header, each with the byte at which it ends; a torn end is left out.

    A row has as many cells as the header: files written before there were notes have one fewer.
    """
    end, cells = 0, 0

    def lines() -> Iterator[str]:
        nonlocal end
        for line in io.BytesIO(content):
            end += len(line)
            yield line.decode(**ENCODING)

    reader = csv.reader(lines(), strict=True)
    try:
        for number, row in enumerate(reader):
            cells = cells or len(row)
            if number and len(row) == cells > ERROR and content[end - 1 : end] == b"\n":
                yield [plain_cell(cell) for cell in row], end
    except csv.Error:
        return


RESUMERS: dict[str, Callable[[bytes], tuple[Done, int]]] = {"csv": _csv_resumable, "jsonl": _json_resumable}
