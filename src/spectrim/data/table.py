"""A table of clips: CSV with the columns path, label or labels, and perhaps split or fold, and group or speaker.

``labels`` holds any number of labels, separated by semicolons and blanks around them; ``label`` exactly one, blanks
included. A relative path starts at the folder of the table. ``group``, or in a table without it ``speaker``, says which
clips are not independent of each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spectrim.data.dataset import BAD_SHARE, PARTS, AudioDataset, Recording
from spectrim.data.layout import check_layout, check_part, open_listed
from spectrim.data.splits import check_folds, complete, divide, in_part
from spectrim.data.whole_groups import groups_of
from spectrim.errors import DataError, InvalidSetting, brief
from spectrim.tables import described, read_rows, refuse_twice, whole_number

TABLE = "labels.csv"

GROUPS = ("group", "speaker")
"""Columns that say which clips belong together, the first that a table has."""


@dataclass(frozen=True)
class _Row:
    path: str
    labels: tuple[str, ...]
    split: str | None
    fold: int | None
    group: str | None


def open_table(
    root: str | Path,
    part: str,
    *,
    table: str = TABLE,
    delimiter: str = ",",
    label_separator: str = ";",
    folds: int | None = None,
    group: str | None = None,
    fold: int | None = None,
    validation_fold: int | str | None = None,
    validation_share: float = 0.1,
    test_share: float = 0.1,
    seed: int = 0,
    bad_share: float = BAD_SHARE,
) -> AudioDataset:
    """Open a part of a table of clips.

    The labels are all those in the table, sorted. With a column ``labels`` the data set is a multi-label one, and a
    clip may have none.

    Which part a clip belongs to says the column ``split`` (train, validation, test); or the column ``fold`` (whole
    numbers), of which one is held out as in ESC-50 (see `spectrim.data.splits.in_part`); or neither, and then clips are
    split by seed, the same share of each label where clips have one, or into ``folds``. In a table with both columns
    ``split`` counts, unless a fold is asked for. What is held out where ``split`` lacks a part: see
    `spectrim.data.splits.complete`.

    Args:
        root: the table, or the folder that holds it.
        part: ``"train"``, ``"validation"`` or ``"test"``.
        table: the table's name in a folder; none where ``root`` is the table.
        delimiter: one character that separates the cells.
        label_separator: separates the labels in ``labels``.
        folds: deal the clips out into so many folds by seed, about the same share of each label in each; for a table
            without a column ``fold``.
        group: column that says which clips belong together, e.g. those of one speaker or original recording;
            ``group``, or in a table without it ``speaker``, unless given. They are in one fold of ``folds``, or on one
            side of what is held out by a share; a clip whose cell is empty is a group of its own.
        fold: the one that is held out for test; the lowest unless given.
        validation_fold: the one that is held out for validation, or ``"next"`` for that after ``fold``; that for test
            unless given.
        validation_share: share of the clips that is held out for validation where no column says so.
        test_share: share of the clips that is held out for test where no column says so; 1 for clips that are all for
            test.
        seed: of the split; a row more or less changes it.
        bad_share: share of the clips that may be missing or unreadable.

    Raises:
        InvalidSetting: unknown part or fold, or a share, delimiter or separator that cannot be.
        DataError: there is no such table, a line of it is wrong (names it), or too many clips are missing.
    """
    check_part(part)
    path = _find(Path(root), table)
    rows, multi_label = _read(path, delimiter, label_separator, group)
    labels, recordings = _labelled(rows, path.parent)
    if folds is not None:
        rows = _dealt_out(path, rows, recordings, folds, seed)
    numbers = tuple(sorted({row.fold for row in rows if row.fold is not None}))
    by_fold = fold is not None or validation_fold is not None or folds is not None
    if by_fold and not numbers:
        allowed = f"none: {path} has no column fold; with the option folds=5 its clips are dealt out"
        raise InvalidSetting("fold", fold if fold is not None else validation_fold, allowed)
    if numbers and (by_fold or rows[0].split is None):
        fold = numbers[0] if fold is None else fold
        validation_fold = check_folds(fold, validation_fold, numbers)
        wanted, drawn_from = _of_folds(rows, recordings, part, fold, validation_fold), None
    else:
        parts = _by_split([row.split for row in rows], recordings)
        shares = {"validation_share": validation_share, "test_share": test_share}
        wanted, drawn_from = complete(parts, part, **shares, seed=seed, stratify=not multi_label)
    return open_listed(
        wanted, labels, multi_label=multi_label, bad_share=bad_share, folds=numbers, drawn_from=drawn_from
    )


def _find(root: Path, table: str) -> Path:
    """The table that a root stands for: itself, or the one of that name in a folder."""
    if root.is_file():
        if table not in (TABLE, root.name):
            allowed = f"none beside {root}, which is the table; or the folder in the place of that file"
            raise InvalidSetting("table", table, allowed)
        return root
    check_layout(root, "a folder with a table of clips", files=[table])
    return root / table


def columns_of(root: str | Path, options: Mapping[str, Any]) -> set[str]:
    """Names of the columns of a table that is opened with some options."""
    path = _find(Path(root), options.get("table", TABLE))
    return {name for _, row in read_rows(path, ("path",), delimiter=options.get("delimiter", ",")) for name in row}


def _labelled(rows: Sequence[_Row], folder: Path) -> tuple[list[str], list[Recording]]:
    """All labels, sorted, and the clips with the numbers of theirs."""
    labels = sorted({label for row in rows for label in row.labels})
    numbers = {label: number for number, label in enumerate(labels)}
    targets = [tuple(sorted(numbers[label] for label in row.labels)) for row in rows]
    both = zip(rows, targets, strict=True)
    return labels, [Recording(folder / row.path, own, row.path, row.group) for row, own in both]


def _dealt_out(path: Path, rows: Sequence[_Row], recordings: Sequence[Recording], folds: int, seed: int) -> list[_Row]:
    """The rows with the numbers of the folds that they are dealt out into."""
    if rows[0].fold is not None or rows[0].split is not None:
        has = "fold" if rows[0].fold is not None else "split"
        raise InvalidSetting("folds", folds, f"none: {path} has a column {has}")
    numbers = divide(recordings, folds, seed=seed, groups=groups_of(recordings))
    return [replace(row, fold=number) for row, number in zip(rows, numbers, strict=True)]


def _of_folds(
    rows: Sequence[_Row], recordings: Sequence[Recording], part: str, fold: int, validation_fold: int | None
) -> Sequence[Recording]:
    """The recordings of a part, by their folds; those without a fold belong to none."""
    return [
        recording
        for row, recording in zip(rows, recordings, strict=True)
        if row.fold is not None and in_part(part, row.fold, fold, validation_fold)
    ]


def _by_split(splits: Sequence[str | None], recordings: Sequence[Recording]) -> dict[str, list[Recording]]:
    """Part → recordings; all of them are for training where the table has no column ``split``."""
    return {
        name: [recording for split, recording in zip(splits, recordings, strict=True) if split in (None, name)]
        for name in (PARTS if splits[0] is not None else ("train",))
    }


def _read(path: Path, delimiter: str, label_separator: str, group: str | None) -> tuple[list[_Row], bool]:
    """The rows of a table, and whether a clip can have several labels."""
    if not isinstance(label_separator, str) or not label_separator:
        raise InvalidSetting("label_separator", label_separator, "at least one character")
    rows: list[_Row] = []
    seen: dict[str, tuple[Path, int]] = {}
    multi_label = False
    for line, cells in read_rows(path, ("path",), delimiter=delimiter):
        where = f"{path}, line {line}"
        if ("label" in cells) == ("labels" in cells):
            said = described(list(cells), delimiter)
            raise DataError(f"{path}: its header must have one of the columns label and labels; {said}")
        multi_label = "labels" in cells
        split, fold = cells.get("split"), cells.get("fold")
        if group is not None and group not in cells:
            raise InvalidSetting("group", group, f"a column of {path}: {', '.join(cells)}")
        if multi_label:
            labels = [label.strip() for label in cells["labels"].split(label_separator) if label.strip()]
        else:
            labels = [cells["label"]]
        if not cells["path"] or "" in labels:
            raise DataError(f"{where}: the cell for path or label is empty")
        refuse_twice(path, line, cells["path"], seen)
        if split is not None and split not in PARTS:
            raise DataError(f"{where}: split is {brief(split)}; allowed: {', '.join(PARTS)}")
        number = None if fold is None else whole_number(path, line, "fold", fold)
        column = group if group is not None else next((one for one in GROUPS if one in cells), None)
        together = (cells[column] or None) if column is not None else None
        rows.append(_Row(cells["path"], tuple(dict.fromkeys(labels)), split, number, together))
    if not rows:
        raise DataError(f"{path} holds no clips")
    return rows, multi_label
