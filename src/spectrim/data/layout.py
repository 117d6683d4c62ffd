"""What the openers share: is it there, what do its tables say, which of the files that it names are on disk."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from spectrim.audio import EXTENSIONS
from spectrim.data.dataset import PARTS, AudioDataset, Recording
from spectrim.errors import DataError, InvalidSetting, one_of


def check_part(part: str) -> None:
    """Refuse what is none of `PARTS`."""
    if part not in PARTS:
        raise InvalidSetting("part", part, one_of(PARTS))


def check_layout(root: Path, title: str, *, folders: Iterable[str] = (), files: Iterable[str] = ()) -> None:
    """Refuse a folder that lacks what a data set consists of.

    Raises:
        DataError: there is no such folder, or it lacks some of ``folders`` and ``files``; names them.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    lacking = [name for name in folders if not (root / name).is_dir()]
    lacking += [name for name in files if not (root / name).is_file()]
    if lacking:
        raise DataError(f"{root} is not {title}: it lacks {', '.join(lacking)}")


def open_listed(
    wanted: Iterable[Recording],
    labels: Sequence[str],
    *,
    multi_label: bool,
    bad_share: float,
    folds: tuple[int, ...] = (),
    present: Callable[[Recording], bool] = lambda recording: recording.path.is_file(),
) -> AudioDataset:
    """Open the recordings that lists name, those that are not there as missing.

    Args:
        wanted: what the lists name.
        labels: see `AudioDataset`.
        multi_label: see `AudioDataset`.
        bad_share: see `AudioDataset`.
        folds: see `AudioDataset`.
        present: whether a recording is there; asks the disk unless given.
    """
    there: list[Recording] = []
    missing: list[str] = []
    for recording in wanted:
        if present(recording):
            there.append(recording)
        else:
            missing.append(recording.id)
    return AudioDataset(there, list(labels), multi_label=multi_label, missing=missing, bad_share=bad_share, folds=folds)


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


def whole_number(path: Path, line: int, column: str, text: str) -> int:
    """A cell as a whole number; `DataError` names file, line and column."""
    try:
        return int(text)
    except ValueError as error:
        raise DataError(f"{path}, line {line}: {column} is {text!r}, not a whole number") from error


def audio_files(folder: Path, extensions: Sequence[str] = EXTENSIONS) -> list[Path]:
    """Find files by their ending to any depth, sorted.

    Names that begin with a dot are passed over, and links to folders are not followed.
    """
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            Path(place, name)
            for name in names
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in extensions  # noqa: PTH122
        ]
    return sorted(found)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: {error.reason} at byte {error.start}") from error
