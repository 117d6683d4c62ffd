"""Predictions as rows of CSV, lines of JSON and tables in Parquet, and which files such an output holds."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from spectrim.errors import InvalidSetting, MissingExtra, utf8_text
from spectrim.inference.results import FilePrediction
from spectrim.tables import csv_text, plain_cell

CSV_COLUMNS = ("file", "part", "start", "end", "rank", "label", "score", "error", "note")
ERROR = CSV_COLUMNS.index("error")
"""A row is one label. ``part`` is "file" for the aggregate and "window" for an entry of the timeline, which is written
where there is more than one window or no aggregate; ``start`` and ``end`` are in seconds. A file without scores has one
row, with ``error``; ``note``, in every row of a file, says what is unusual about one that was heard. Text that a
spreadsheet could take for a formula has an apostrophe before it; see `spectrim.tables.spreadsheet_cell`. Bytes of a
file's name that are no UTF-8 are written out; see `spectrim.errors.utf8_text`."""

ENCODING: dict[str, str] = {"encoding": "utf-8", "errors": "surrogateescape"}
"""Of rows: earlier versions wrote file names that are not UTF-8 byte for byte."""

Done: TypeAlias = dict[str, str | None]
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


def csv_records(lines: Iterable[bytes]) -> Iterator[list[str]]:
    """The rows of a CSV output after its header, as they were before `spectrim.tables.spreadsheet_cell`.

    Raises:
        ValueError: it is no output of this program. A file from before there were notes has one cell fewer in a row.
    """
    reader = csv.reader((line.decode(**ENCODING) for line in lines), strict=True)
    try:
        cells = len(next(reader, []))
        for row in reader:
            if len(row) != cells or cells <= ERROR:
                raise ValueError(f"{len(row)} cells in line {reader.line_num}, {cells} in the header")
            yield [plain_cell(cell) for cell in row]
    except csv.Error as error:
        raise ValueError(str(error)) from error


def _csv_done(path: Path) -> Done:
    with path.open("rb") as file:
        return {utf8_text(row[0]): row[ERROR] or None for row in csv_records(file)}


def _json_done(path: Path) -> Done:
    with path.open("rb") as file:
        rows = (json.loads(line) for line in file)
        return {row["file"]: row["error"] for row in rows}


# Parquet

ROW_GROUP = 1 << 16
"""Rows that are in memory at a time, and in one row group of a file."""


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("pyarrow", "parquet", "an output in Parquet") from error
    return pyarrow


def write_parquet(rows: BinaryIO, target: Path, settings: str) -> None:
    """Make a Parquet file of the rows of a CSV output, a column each as `CSV_COLUMNS`; a cell without text is null.

    ``start`` and ``end`` are float64, ``rank`` int32, ``score`` float32, all others strings. A group of rows is in
    memory at a time. Text is as `spectrim.errors.utf8_text` writes it.

    Args:
        rows: the CSV, from its first byte.
        target: written anew.
        settings: what the rows were made with; they become ``spectrim`` in the metadata of the schema.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    arrow = _pyarrow()
    kinds = {"start": arrow.float64(), "end": arrow.float64(), "rank": arrow.int32(), "score": arrow.float32()}
    fields = [(name, kinds.get(name, arrow.string())) for name in CSV_COLUMNS]
    schema = arrow.schema(fields, metadata={"spectrim": settings})
    reading = {"start": float, "end": float, "rank": int, "score": float}
    records = csv_records(rows)
    with arrow.parquet.ParquetWriter(target, schema) as writer:
        while group := list(islice(records, ROW_GROUP)):
            columns = [
                arrow.array([reading.get(name, utf8_text)(cell) if cell else None for cell in cells], kind)
                for (name, kind), cells in zip(fields, zip(*group, strict=True), strict=True)
            ]
            writer.write_table(arrow.table(columns, schema=schema))


def _parquet_settings(path: Path) -> dict[str, Any]:
    arrow = _pyarrow()
    try:
        metadata = arrow.parquet.read_schema(path).metadata or {}
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    settings = json.loads(metadata[b"spectrim"])
    if not isinstance(settings, dict):
        raise ValueError("its schema does not say what its rows were made with")
    return settings


def _parquet_done(path: Path) -> Done:
    arrow, done = _pyarrow(), Done()
    try:
        file = arrow.parquet.ParquetFile(path)
        for batch in file.iter_batches(ROW_GROUP, columns=["file", "error"]):
            done.update(zip(*(column.to_pylist() for column in batch.columns), strict=True))
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(" ".join(str(error).split())) from error
    return done


@dataclass(frozen=True)
class Format:
    """A kind of output.

    Attributes:
        header: what its rows begin with.
        rows: those of a prediction, with so many labels a file or window, as text.
        done: the files in a finished output, with their errors; ValueError, LookupError or TypeError if it is none.
        convert: makes the output of its rows where they are not the output themselves; see `write_parquet`.
        name: how the output writes the name of a file.
        check: raises where this kind cannot be written here.
        settings: what the rows of a finished output were made with; None where it does not say. Raises as ``done``.
    """

    header: Callable[[], str]
    rows: Callable[[FilePrediction, int], str]
    done: Callable[[Path], Done]
    convert: Callable[[BinaryIO, Path, str], None] | None = None
    name: Callable[[str], str] = str
    check: Callable[[], object] = str
    settings: Callable[[Path], dict[str, Any]] | None = None


FORMATS = {
    "csv": Format(csv_header, csv_rows, _csv_done, name=utf8_text),
    "jsonl": Format(str, json_line, _json_done),
    "parquet": Format(csv_header, csv_rows, _parquet_done, write_parquet, utf8_text, _pyarrow, _parquet_settings),
}
"""What an output file can be; text goes to standard output too."""


def finished_rows(path: Path, form: str) -> tuple[Done, dict[str, Any] | None]:
    """Files that a complete output holds, with their errors, and what it was made with, None where it does not say.

    Raises:
        InvalidSetting: it is no output of this program.
        MissingExtra: what reads it is not installed.
    """
    try:
        known = FORMATS[form]
        return known.done(path), None if known.settings is None else known.settings(path)
    except (ValueError, LookupError, TypeError) as error:
        raise InvalidSetting("resume", str(path), f"an output in the format {form} ({error})") from error
