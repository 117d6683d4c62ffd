"""VoxCeleb1 (Nagrani et al., 2017, arXiv 1706.08612), identification of 1,251 speakers.

On disk: ``iden_split.txt``, the official split, and the files that it names in ``wav/``. A line of it is
``1 id10001/1zcIwhmdeo4/00001.wav``: 1 for training, 2 for validation, 3 for test.
"""

from __future__ import annotations

from pathlib import Path

from spectrim.data.dataset import BAD_SHARE, AudioDataset, Recording
from spectrim.data.layout import check_layout, check_part, open_listed
from spectrim.errors import DataError, brief, shown
from spectrim.tables import read_lines

LIST = "iden_split.txt"
FOLDER = "wav"
PART_NUMBERS = {"1": "train", "2": "validation", "3": "test"}


def open_voxceleb1(root: str | Path, part: str, *, bad_share: float = BAD_SHARE) -> AudioDataset:
    """Open a part of VoxCeleb1 for identification, or of a miniature in its layout.

    All speakers whom the list names are classes, sorted by their ids, whether their files are there or not.

    Args:
        root: the folder that holds ``iden_split.txt`` and ``wav``.
        part: ``"train"``, ``"validation"`` or ``"test"``.
        bad_share: share of the files that may be missing or unreadable.

    Raises:
        InvalidSetting: unknown part.
        DataError: the folder is not in this layout, the list is wrong somewhere, or too many files are missing.
    """
    check_part(part)
    root = Path(root)
    check_layout(root, "VoxCeleb1 (identification)", folders=[FOLDER], files=[LIST])
    listed = _read_list(root / LIST)
    speakers = sorted({name.partition("/")[0] for name in listed})
    numbers = {speaker: number for number, speaker in enumerate(speakers)}
    recordings = [
        Recording(root / FOLDER / name, (numbers[name.partition("/")[0]],), name, name.rpartition("/")[0])
        for name, its_part in listed.items()
        if its_part == part
    ]
    return open_listed(recordings, speakers, multi_label=False, bad_share=bad_share)


def _read_list(path: Path) -> dict[str, str]:
    """Name of each file → its part."""
    listed: dict[str, str] = {}
    for line, text in read_lines(path):
        number, _, name = text.partition(" ")
        name = name.strip()
        steps = name.split("/")
        if number not in PART_NUMBERS or len(steps) != 3 or not all(step.strip(".") for step in steps):
            raise DataError(f"{path}, line {line}: {brief(text)} is not 1, 2 or 3 and speaker/video/file.wav")
        if name in listed:
            raise DataError(f"{path}, line {line}: {shown(name)} is there twice")
        listed[name] = PART_NUMBERS[number]
    return listed
