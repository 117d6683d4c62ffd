"""Speech Commands V2 (Warden, 2018, arXiv 1804.03209): 35 words, one-second clips, official lists of the parts.

On disk: ``word/speaker_nohash_k.wav``, ``validation_list.txt``, ``testing_list.txt``; training is what
neither list names. ``_background_noise_`` is no class.
"""

from __future__ import annotations

import os
from pathlib import Path

from spectrim.data.dataset import BAD_SHARE, AudioDataset, Recording
from spectrim.data.layout import check_layout, check_part, open_listed
from spectrim.errors import DataError, brief
from spectrim.tables import read_lines, refuse_twice

_WORDS = (
    "backward bed bird cat dog down eight five follow forward four go happy house learn left marvin nine no off on one "
    "right seven sheila six stop three tree two up visual wow yes zero"
)

WORDS = tuple(_WORDS.split())
"""The labels, in the order of the targets."""

BACKGROUND = "_background_noise_"
LISTS = {"validation": "validation_list.txt", "test": "testing_list.txt"}


def open_speech_commands(root: str | Path, part: str, *, bad_share: float = BAD_SHARE) -> AudioDataset:
    """Open a part of Speech Commands V2, or of a miniature in its layout.

    Args:
        root: the folder that holds the folders of words.
        part: ``"train"``, ``"validation"`` or ``"test"``.
        bad_share: share of the clips that may be missing or unreadable.

    Raises:
        InvalidSetting: unknown part.
        DataError: folders of words or the lists are not there, a line of a list is wrong or names a clip that stands
            before it or in the other, or too many clips are missing.
    """
    check_part(part)
    root = Path(root)
    check_layout(root, "Speech Commands V2", folders=WORDS, files=LISTS.values())
    present = {f"{word}/{name}" for word in WORDS for name in _wav_names(root / word)}
    seen: dict[str, tuple[Path, int]] = {}
    listed = {name: _read_list(root / file, seen) for name, file in LISTS.items()}
    wanted = sorted(present.difference(*listed.values()) if part == "train" else listed[part])
    numbers = {word: number for number, word in enumerate(WORDS)}
    recordings = [Recording(root / name, (numbers[name.split("/")[0]],), name, _speaker(name)) for name in wanted]
    return open_listed(
        recordings, WORDS, multi_label=False, bad_share=bad_share, present=lambda recording: recording.id in present
    )


def _speaker(name: str) -> str:
    """Who speaks in ``word/speaker_nohash_k.wav``."""
    return name.rpartition("/")[2].partition("_")[0]


def _wav_names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [entry.name for entry in entries if entry.name.endswith(".wav")]


def _read_list(path: Path, seen: dict[str, tuple[Path, int]]) -> set[str]:
    names = set()
    for number, name in read_lines(path):
        word, slash, file = name.partition("/")
        if word not in WORDS or not slash or not file or "/" in file:
            raise DataError(
                f"{path}, line {number}: {brief(name)} is not word/file.wav with one of the {len(WORDS)} words"
            )
        refuse_twice(path, number, name, seen)
        names.add(name)
    return names
