"""ESC-50 (Piczak, 2015): 2,000 environmental sounds of 5 s in 50 classes and five folds.

On disk: ``audio/*.wav`` and ``meta/esc50.csv`` with the columns filename, fold, target, category, esc10, src_file and
take. Clips of one original recording are in one fold, so folds, and nothing else, say what is held out.
"""

from __future__ import annotations

from pathlib import Path

from spectrim.data.dataset import BAD_SHARE, AudioDataset, Recording
from spectrim.data.layout import check_layout, check_part, open_listed
from spectrim.data.splits import check_folds, in_part
from spectrim.errors import DataError, brief
from spectrim.tables import read_rows, refuse_twice, whole_number

FOLDS = (1, 2, 3, 4, 5)
TABLE = "meta/esc50.csv"
COLUMNS = ("filename", "fold", "target", "category")


def open_esc50(
    root: str | Path,
    part: str,
    *,
    fold: int = 1,
    validation_fold: int | str | None = None,
    bad_share: float = BAD_SHARE,
) -> AudioDataset:
    """Open a part of ESC-50, or of a miniature in its layout.

    Args:
        root: the folder that holds ``audio`` and ``meta``.
        part: ``"test"`` is the held-out fold and ``"train"`` the other four. ``"validation"`` is the held-out fold
            too, as in AST's and the paper's experiments, which choose the epoch on the clips that they report.
        fold: the one that is held out.
        validation_fold: take this fold from training and choose the epoch on it instead; ``"next"`` is the one after
            ``fold``.
        bad_share: share of the clips that may be missing or unreadable.

    Raises:
        InvalidSetting: unknown part or fold.
        DataError: the folder is not in this layout, its table is wrong somewhere, or too many clips are missing.
    """
    check_part(part)
    validation_fold = check_folds(fold, validation_fold, FOLDS)
    root = Path(root)
    check_layout(root, "ESC-50", folders=["audio"], files=[TABLE])
    recordings = []
    names: dict[int, str] = {}
    seen: dict[str, tuple[Path, int]] = {}
    for line, row in read_rows(root / TABLE, COLUMNS):
        where = f"{root / TABLE}, line {line}"
        its_fold, target = (whole_number(root / TABLE, line, column, row[column]) for column in ("fold", "target"))
        if its_fold not in FOLDS:
            raise DataError(f"{where}: fold is {its_fold}; there are folds 1 to 5")
        if names.setdefault(target, row["category"]) != row["category"]:
            raise DataError(
                f"{where}: target {target} is {brief(row['category'])} here and {brief(names[target])} before"
            )
        refuse_twice(root / TABLE, line, row["filename"], seen)
        if in_part(part, its_fold, fold, validation_fold):
            name, source = row["filename"], row.get("src_file") or None
            recordings.append(Recording(root / "audio" / name, (target,), name, source))
    if sorted(names) != list(range(len(names))) or len(set(names.values())) != len(names):
        raise DataError(f"{root / TABLE}: its targets must count 0, 1, 2, … without gaps, each for another category")
    labels = [names[target] for target in range(len(names))]
    return open_listed(recordings, labels, multi_label=False, bad_share=bad_share, folds=FOLDS)
