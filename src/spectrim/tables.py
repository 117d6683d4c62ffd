"""Lists and tables: read strictly, with errors that name the file and the line, and written as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from spectrim.errors import DataError, InvalidSetting


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, text) of the lines of a list that are not blank.

    Raises:
        DataError: it cannot be read as UTF-8 text.
    """
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if text := line.strip():
            yield number, text


def read_rows(path: Path, columns: Sequence[str], *, delimiter: str = ",") -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line number, column → text) of the rows of a table with a header; blank lines are passed over.

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
    rows = csv.reader(_text(path).splitlines(keepends=True), delimiter=delimiter, strict=True)
    header: list[str] | None = None
    try:
        for cells in rows:
            if not any(cell.strip() for cell in cells):
                continue
            cells = [cell.strip() for cell in cells]
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
        raise DataError(
            f"{path}, line {line}: the header lacks {', '.join(lacking)}; separated by {delimiter!r} it has "
            f"{', '.join(map(repr, header))}"
        )
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        raise DataError(f"{path}, line {line}: the header has {', '.join(map(repr, twice))} twice")


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows of cells as CSV with ``\\n`` behind each row; None is an empty cell.

    All cells are quoted where one holds a carriage return, which Python's csv quotes by itself in some versions only.
    """
    listed = list(rows)
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
        raise DataError(f"{path}, line {line}: {column} is {text!r}, not a whole number") from error


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


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from error
