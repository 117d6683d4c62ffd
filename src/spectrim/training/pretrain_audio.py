"""What masked pre-training hears: any folder of audio, or a data set by its parts, and further folders."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from spectrim.audio.finding import select_files
from spectrim.data import PARTS, Recording, find_data_set
from spectrim.data.dataset import without_labels
from spectrim.data.excerpts import divide, drawn, unlabelled
from spectrim.data.packed import is_packed, read_pack
from spectrim.errors import DataError, InvalidSetting
from spectrim.training.pretrain_recipes import PretrainDataSettings


def recordings_of(
    data: PretrainDataSettings, root: Path, seed: int, sampling_rate: int
) -> tuple[Sequence[Recording], Sequence[Recording], Sequence[Recording]]:
    """Recordings to train on, recordings held out, and all that must not be trained on.

    Args:
        data: says whether it is a data set or any folder, and how many to hold out.
        root: of either.
        seed: says which are held out.
        sampling_rate: that they are to be heard at, in hertz.

    Raises:
        InvalidSetting: there is no such data set, or no audio; or it is packed at a lower rate.
        DataError: there is no such folder, or the data set cannot be opened.
    """
    if data.name is None:
        if is_packed(root):
            raise InvalidSetting("data.name", None, f"{read_pack(root).name}, from which {root} was packed")
        rest, held = divide(_files(root), root, data.held_out, seed)
        return rest, held, held
    entry = find_data_set(data.name, "data.name")
    opened = (entry.open(root, part, **data.options).at_rate(sampling_rate) for part in PARTS)
    training, validation, test = (without_labels(part.recordings) for part in opened)
    return training, drawn(validation, data.held_out, seed)[0], [*validation, *test]


def further_recordings(folder: Path, unheard: Sequence[Recording]) -> list[Recording]:
    """Recordings of a folder besides; `InvalidSetting` where one of them is among those that must not be trained on.

    Packed ones are known by their names: what a path ends with that is one is taken for it.
    """
    files = _files(folder)
    taken = {recording.path.resolve() for recording in unheard if recording.member is None}
    packed = {recording.id.lstrip("/") for recording in unheard if recording.member is not None}
    if known := [file for file in files if file.resolve() in taken or not packed.isdisjoint(_ends(file))]:
        raise InvalidSetting(
            "extra_audio", str(folder), f"audio that is not held out: {len(known)} of its files are, e.g. {known[0]}"
        )
    return unlabelled(files, folder.absolute().parent)


def _ends(path: Path) -> list[str]:
    """A path without its first folder, without the first two, …, and the name alone."""
    steps = path.absolute().parts[1:]
    return ["/".join(steps[start:]) for start in range(len(steps))]


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    selection = select_files([folder])
    if selection.errors:
        raise DataError(str(selection.errors[0]))
    return [Path(file) for file in selection.files]
