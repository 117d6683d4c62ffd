"""Shared by all openers: checks of the folder, and of the files that lists name."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from spectrim.audio.files import EXTENSIONS
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
    lacking += [name for name in files if not is_file(root / name)]
    if lacking:
        raise DataError(f"{root} is not {title}: it lacks {', '.join(lacking)}")


def is_file(path: Path) -> bool:
    """Whether a file is there: none has a name that is too long.

    Raises:
        OSError: nobody can tell, as in a folder that must not be read.
    """
    try:
        return path.is_file()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def open_listed(
    wanted: Iterable[Recording],
    labels: Sequence[str],
    *,
    multi_label: bool,
    bad_share: float,
    folds: tuple[int, ...] = (),
    drawn_from: int | None = None,
    present: Callable[[Recording], bool] = lambda recording: is_file(recording.path),
) -> AudioDataset:
    """Open the recordings that lists name, those that are not there as missing.

    Args:
        wanted: what the lists name.
        labels: see `AudioDataset`.
        multi_label: see `AudioDataset`.
        bad_share: see `AudioDataset`.
        folds: see `AudioDataset`.
        drawn_from: see `AudioDataset`.
        present: whether a recording is there; asks the disk unless given.
    """
    there: list[Recording] = []
    missing: list[str] = []
    for recording in wanted:
        if present(recording):
            there.append(recording)
        else:
            missing.append(recording.id)
    return AudioDataset(
        there,
        list(labels),
        multi_label=multi_label,
        missing=missing,
        bad_share=bad_share,
        folds=folds,
        drawn_from=drawn_from,
    )


def audio_files(
    folder: Path,
    extensions: Sequence[str] = EXTENSIONS,
    *,
    unreadable: Callable[[str, str], object] | None = None,
) -> list[Path]:
    """Find files by their ending to any depth, sorted.

    Names that begin with a dot are passed over, and links to folders are not followed.

    Args:
        folder: where to look.
        extensions: endings, in lower case.
        unreadable: called with each folder that cannot be read, and the reason; the search then goes on.

    Raises:
        DataError: a folder cannot be read, and there is no ``unreadable``.
    """

    def pass_on(error: OSError) -> None:
        place, reason = os.fsdecode(error.filename), f"this folder cannot be read: {error.strerror}"
        if unreadable is None:
            raise DataError(f"{place}: {reason}") from error
        unreadable(place, reason)

    paths = []
    for place, folders, names in os.walk(folder, onerror=pass_on):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [
            Path(place, name)
            for name in names
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in extensions  # noqa: PTH122
        ]
    return sorted(paths)
