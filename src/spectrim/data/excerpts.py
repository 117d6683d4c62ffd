"""Unlabelled audio files: a long one gives a new excerpt in every epoch, in bounded memory."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spectrim.audio import files as audio
from spectrim.audio.members import Source
from spectrim.data.dataset import AudioDataset, Recording


@dataclass
class Excerpts(AudioDataset):
    """Excerpts of recordings.

    A recording that is not longer than an excerpt is taken whole. Of a longer one the place is drawn, anew for every
    epoch, by a generator that knows seed, epoch and the recording's name: a resumed run hears the same. Damage behind
    the excerpt is not noticed.

    Args:
        samples: longest excerpt.
        seed: of the places.

    The other arguments, attributes and errors are `AudioDataset`'s.
    """

    samples: int = 160_000
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch begins."""
        self.epoch = epoch

    def read(self, recording: Recording) -> NDArray[np.float32]:
        """The excerpt (n,) of this epoch; raises `AudioError`."""
        drawn = np.random.default_rng([self.seed, self.epoch, zlib.crc32(recording.id.encode(errors="replace"))])
        return read_excerpt(recording.source, self.samples, drawn.random(), self.sampling_rate)


def read_excerpt(
    path: Source, samples: int, place: float, sampling_rate: int = audio.SAMPLING_RATE
) -> NDArray[np.float32]:
    """Decode an excerpt, mono, holding little more than it in memory.

    Args:
        path: any file, or member of an archive, that `spectrim.audio.files.stream` reads.
        samples: longest excerpt.
        place: where it begins, from 0 (the beginning) to 1 (so that it ends with the file), by the length that
            the structure of the file names. Files that do not say their length, or are shorter, are decoded whole.
        sampling_rate: of the excerpt, in hertz.

    Returns:
        (n,) float32.

    Raises:
        AudioError: the file cannot be used, as far as it was decoded.
    """
    length = audio.named_samples(path, sampling_rate)
    if length is not None:
        start = round(place * max(length - samples, 0))
        pieces, passed = [np.zeros(0, np.float32)], 0
        for block in audio.stream(path, sampling_rate):
            if passed + len(block) > start:
                # A copy, since a slice, even an empty one, keeps the whole block in memory.
                pieces.append(block[max(start - passed, 0) : start + samples - passed].copy())
            passed += len(block)
            if passed >= start + samples:
                break
        # Containers count from 0 where the sound begins later.
        if passed >= min(start + samples, length) - audio.frame_samples(sampling_rate):
            return np.concatenate(pieces)
    whole = audio.read(path, sampling_rate).samples
    start = round(place * max(len(whole) - samples, 0))
    return whole[start : start + samples]


def divide(files: Sequence[Path], root: Path, held_out: int, seed: int) -> tuple[list[Recording], list[Recording]]:
    """Divide files into those to train on and those to look at, at random by a seed.

    Args:
        files: in any order.
        root: that their names are told from.
        held_out: how many to hold out; at most a tenth of them, but one.
        seed: says which.

    Returns:
        Recordings to train on and recordings held out, each sorted by name. Of one file alone, it in both.
    """
    recordings = unlabelled(files, root)
    held, rest = drawn(recordings, min(held_out, max(1, len(recordings) // 10)), seed)
    return rest or held, held


def drawn(recordings: Sequence[Recording], count: int, seed: int) -> tuple[list[Recording], list[Recording]]:
    """Some recordings, drawn by a seed, and the others; both in their order."""
    chosen = set(np.random.default_rng([seed, len(recordings)]).permutation(len(recordings))[:count].tolist())
    some = [recording for number, recording in enumerate(recordings) if number in chosen]
    return some, [recording for number, recording in enumerate(recordings) if number not in chosen]


def unlabelled(files: Sequence[Path], root: Path) -> list[Recording]:
    """Files as recordings without labels, named from ``root`` if they are in it; sorted by name."""
    names = (file.relative_to(root).as_posix() if file.is_relative_to(root) else file.as_posix() for file in files)
    return sorted(
        (Recording(file, (), name) for file, name in zip(files, names, strict=True)), key=lambda recording: recording.id
    )
