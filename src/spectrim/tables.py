"""Lists and tables: read strictly, with errors that name file and line; written so that no spreadsheet runs a cell."""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from spectrim.errors import DataError, InvalidSetting, brief, shown, utf8_text

MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
"""Byte order marks → encoding; that of UTF-32 begins like that of UTF-16, and so stands before it."""

_BLANK = " \t\r\n"
_FORMULA = r"[\s']*[=+\-@\uff1d\uff0b\uff0d\uff20]"
_RUNS = re.compile(rf"(?:^|(?<=[;\t\r\n]))(?={_FORMULA})")
_ESCAPED = re.compile(rf"(?:^|(?<=[;\t\r\n]))'(?={_FORMULA})")


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, text) of the lines of a list that are not blank, without blanks at their ends.

    Lines end with a line feed, a carriage return, or both, and with nothing else that Unicode has.

    Raises:
        DataError: it cannot be read as text; see `decode_text`.
    """
    for number, line in enumerate(io.StringIO(_text(path), newline=None), start=1):
        if text := line.strip(_BLANK):
            yield number, text


def read_rows(path: Path, columns: Sequence[str], *, delimiter: str = ",") -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, column → text) of the rows of a table with a header, read as Python's ``csv`` reads them.

    A cell is what stands between the delimiters, blanks included. Rows of nothing but blanks are passed over.

    Args:
        path: the table.
        columns: that the header must have; others may be there.
        delimiter: one character that separates the cells.

    Raises:
        InvalidSetting: the delimiter is not one character.
        DataError: it cannot be read, a column is missing or there twice, or a row has more or fewer cells than the
            header; names the line and the delimiter.
    """
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n':
        raise InvalidSetting("delimiter", delimiter, "one character")
    rows = csv.reader(io.StringIO(_text(path), newline=""), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    try:
        for cells in rows:
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = cells
                _check_header(path, rows.line_num, header, columns, delimiter)
                continue
            if len(cells) != len(header):
                raise DataError(
                    f"{path}, line {rows.line_num}: {len(cells)} cells where the header has {len(header)}; cells are "
                    f"separated by {delimiter!r}, and one that holds it stands in double quotes"
                )
            yield rows.line_num, dict(zip(header, cells, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}, line {rows.line_num}: {error}; cells are separated by {delimiter!r}") from error
    if header is None:
        raise DataError(f"{path} is empty")


def _check_header(path: Path, line: int, header: list[str], columns: Sequence[str], delimiter: str) -> None:
    lacking = [name for name in columns if name not in header]
    if lacking:
        raise DataError(f"{path}, line {line}: the header lacks {', '.join(lacking)}; {described(header, delimiter)}")
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path}, line {line}: the header has {shown(', '.join(map(repr, twice)))} twice")


def described(header: Sequence[str], delimiter: str) -> str:
    """For an error: the names in a header, and what to do where another delimiter or blanks keep them from being read.

    Args:
        header: the names as they were read.
        delimiter: by which they were.
    """
    text = f"separated by {delimiter!r} it has {shown(', '.join(map(repr, header)))}"
    other = next((one for one in ";\t|," if one != delimiter and one in header[0]), None) if len(header) == 1 else None
    if other is not None:
        option = "$'delimiter=\\t'" if other == "\t" else f"'delimiter={other}'"
        text += f"; its cells seem to be separated by {other!r}: a data set csv is told so by --set {option}"
    elif any(name != name.strip() for name in header):
        text += "; blanks are part of a name: remove them"
    return text


def csv_text(rows: Iterable[Sequence[object]], *, exact: bool = False) -> str:
    """Rows of cells as CSV with ``\\n`` behind each row; None is an empty cell.

    All cells are quoted where one holds a carriage return, which Python's csv quotes by itself in some versions only.

    Args:
        rows: of cells.
        exact: write cells as they are, for programs alone; else by `spreadsheet_cell` and `spectrim.errors.utf8_text`,
            for people too.
    """
    listed = [list(row) if exact else [_shown_cell(cell) for cell in row] for row in rows]
    returns = any("\r" in str(cell) for row in listed for cell in row)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL if returns else csv.QUOTE_MINIMAL).writerows(listed)
    return text.getvalue()


def table_csv(rows: Sequence[Mapping[str, object]]) -> str:
    """Rows by column as CSV: a header with every column, in the order in which they appear first, then the rows.

    Columns that a row lacks are empty cells in it.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return csv_text([columns, *([row.get(name) for name in columns] for row in rows)])


def whole_number(path: Path, line: int, column: str, text: str) -> int:
    """A cell as a whole number; `DataError` names file, line and column."""
    try:
        return int(text)
    except ValueError as error:
        raise DataError(f"{path}, line {line}: {column} is {brief(text)}, not a whole number") from error


def refuse_twice(path: Path, line: int, name: str, seen: dict[str, tuple[Path, int]], *, called: str = "line") -> None:
    """Refuse a file that lists name a second time, perhaps by another spelling of its path.

    Args:
        path: the list.
        line: of it.
        name: of the file, as it stands there.
        seen: list and line of those before; gets this one.
        called: what its lines are.

    Raises:
        DataError: it is among them.
    """
    known = os.path.normpath(path.parent / name)
    if known in seen:
        first, number = seen[known]
        raise DataError(
            f"{path}, {called} {line}: {shown(name)} is there twice, first in {first.name}, {called} {number}"
        )
    seen[known] = (path, line)


def read_class_labels(path: Path) -> dict[str, str]:
    """Mid → display name of the labels in ``class_labels_indices.csv``, in the order of the index.

    Raises:
        DataError: a column is missing, a mid or a name is there twice, or the indices are not 0, 1, 2, …
    """
    rows = [
        (whole_number(path, line, "index", row["index"]), row["mid"], row["display_name"])
        for line, row in read_rows(path, ("index", "mid", "display_name"))
    ]
    rows.sort()
    if [index for index, _, _ in rows] != list(range(len(rows))):
        raise DataError(f"{path}: its index column must count 0, 1, 2, … without gaps")
    known = {mid: name for _, mid, name in rows}
    if len(known) != len(rows) or len(set(known.values())) != len(rows):
        raise DataError(f"{path}: a mid or a display_name is there twice")
    return known


def decode_text(content: bytes) -> str:
    """Text of bytes: UTF-8, or what a byte order mark at the begin says (UTF-8, UTF-16 or UTF-32).

    Raises:
        UnicodeError: it is not text in that encoding, or has zero bytes; says what to do.
    """
    for mark, encoding in MARKS.items():
        if content.startswith(mark):
            return content[len(mark) :].decode(encoding)
    text = content.decode("utf-8")
    if "\0" in text:
        place = content.index(b"\0")
        raise UnicodeError(f"zero byte at byte {place}; save it as UTF-8, or as UTF-16 with a byte order mark")
    return text


def _text(path: Path) -> str:
    try:
        return decode_text(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not {error.encoding.upper()} text: {error.reason} at byte {error.start}; save it as UTF-8"
        ) from error
    except UnicodeError as error:
        raise DataError(f"{path}: not UTF-8 text: {error}") from error


def spreadsheet_cell(value: Any) -> Any:
    """A cell for CSV that Excel and LibreOffice show and do not run; what is no text stays as it is.

    Text that a spreadsheet could take for a formula gets an apostrophe: where it, or what follows a semicolon, tab or
    line end in it, begins with ``=``, ``+``, ``-`` or ``@`` (also in full width), perhaps after blanks or apostrophes.
    `plain_cell` takes it away again.
    """
    return _RUNS.sub("'", value) if isinstance(value, str) else value


def _shown_cell(value: Any) -> Any:
    return utf8_text(spreadsheet_cell(value)) if isinstance(value, str) else value


def plain_cell(text: str) -> str:
    """The text that `spreadsheet_cell` was given."""
    return _ESCAPED.sub("", text)
