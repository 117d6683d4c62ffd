"""A folder per class: ``class/any/depth/file.flac``, or ``train/class/…``, ``validation/class/…``, ``test/class/…``."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from pathlib import Path

from spectrim.audio.files import EXTENSIONS
from spectrim.data.dataset import BAD_SHARE, AudioDataset, Recording, some
from spectrim.data.layout import audio_files, check_layout, check_part
from spectrim.data.splits import check_folds, complete, divide, in_part
from spectrim.errors import DataError, InvalidSetting

PART_FOLDERS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}
"""Names of folders that stand for a part, where they hold folders and one is for training or there are no others."""


class LooseFiles(UserWarning):
    """Sound files lie where no class is."""


def open_folder(
    root: str | Path,
    part: str,
    *,
    folds: int | None = None,
    fold: int | None = None,
    validation_fold: int | str | None = None,
    validation_share: float = 0.1,
    test_share: float = 0.1,
    seed: int = 0,
    bad_share: float = BAD_SHARE,
) -> AudioDataset:
    """Open a part of a folder of classes.

    The classes are the folders' names, sorted; names that begin with a dot or an underscore are none. Folders of
    folders that are named for parts (`PART_FOLDERS`) say which clip belongs where, a test part alone among them;
    where classes stand beside them and none is for training, all are classes, and clips are split by seed, about the
    same share of each. What is held out where parts are missing: see `spectrim.data.splits.complete`. Sound files that
    lie beside the folders of classes are left out, with a warning that names them.

    Args:
        root: the folder.
        part: ``"train"``, ``"validation"`` or ``"test"``.
        folds: deal the clips out into so many folds by seed, about the same share of each class in each; for a folder
            without folders of parts.
        fold: the one that is held out for test; 1 unless given.
        validation_fold: the one that is held out for validation, or ``"next"`` for that after ``fold``; that for test
            unless given.
        validation_share: share of the clips that is held out for validation where there is no folder for it.
        test_share: share of the clips that is held out for test where there is no folder for test or validation; 1 for
            clips that are all for test.
        seed: of the split; a file more or less changes it.
        bad_share: share of the clips that may be unreadable.

    Raises:
        InvalidSetting: unknown part, or a fold or share that cannot be.
        DataError: no such folder, no clips in it, or folders of parts and of classes side by side.
    """
    check_part(part)
    root = Path(root)
    check_layout(root, "a folder of classes")
    places = parts_of(root)
    _warn_of_loose(root, places.values())
    classes = sorted({folder.name for place in places.values() for folder in _folders(place)})
    numbers = {name: number for number, name in enumerate(classes)}
    recordings_of = {
        name: [
            Recording(path, (numbers[folder.name],), path.relative_to(root).as_posix())
            for folder in _folders(place)
            for path in audio_files(folder)
        ]
        for name, place in places.items()
    }
    if not any(recordings_of.values()):
        raise DataError(f"{root} holds no folders with audio files in them, one folder a class")
    if folds is not None or fold is not None or validation_fold is not None:
        if folds is None:
            allowed = "none without the option folds, e.g. folds=5"
            raise InvalidSetting("fold", validation_fold if fold is None else fold, allowed)
        if places != {"train": root}:
            raise InvalidSetting("folds", folds, f"none: {root} has folders of parts")
        there = recordings_of["train"]
        dealt, held_out = divide(there, folds, seed=seed), 1 if fold is None else fold
        every = tuple(range(1, folds + 1))
        kept = check_folds(held_out, validation_fold, every)
        chosen = [one for one, its in zip(there, dealt, strict=True) if in_part(part, its, held_out, kept)]
        return AudioDataset(chosen, classes, multi_label=False, bad_share=bad_share, folds=every)
    recordings, drawn_from = complete(
        recordings_of, part, validation_share=validation_share, test_share=test_share, seed=seed, stratify=True
    )
    return AudioDataset(recordings, classes, multi_label=False, bad_share=bad_share, drawn_from=drawn_from)


def _warn_of_loose(root: Path, places: Iterable[Path]) -> None:
    """Say which sound files are in no folder of a class."""
    loose = [
        path.relative_to(root).as_posix()
        for place in sorted({root, *places})
        for path in sorted(place.iterdir())
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".") and path.is_file()
    ]
    if loose:
        files = "1 sound file" if len(loose) == 1 else f"{len(loose)} sound files"
        warnings.warn(f"{root}: {files} outside class folders, left out: {some(loose)}", LooseFiles, stacklevel=2)


def _folders(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith((".", "_")))


def parts_of(root: Path) -> dict[str, Path]:
    """Part → its folder; the root alone, as training, where no folders are named for parts."""
    folders = {folder.name: folder for folder in _folders(root)}
    here = {part: [name for name in names if name in folders] for part, names in PART_FOLDERS.items()}
    of_parts = {name for names in here.values() for name in names if _folders(folders[name])}
    if not of_parts.intersection(here["train"]) and (not of_parts or of_parts != folders.keys()):
        return {"train": root}
    others = sorted(folders.keys() - of_parts)
    if others:
        raise DataError(
            f"{root} holds folders of parts ({', '.join(sorted(of_parts))}) and others ({some(others)}); "
            "classes belong into the folders of parts"
        )
    for names in here.values():
        if len(names) > 1:
            raise DataError(f"{root} holds {' and '.join(names)}, which stand for the same part")
    return {part: folders[names[0]] for part, names in here.items() if names}
