"""An opened data set: clips with targets, read from disk one at a time."""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from spectrim.audio import files as audio
from spectrim.audio.members import Member
from spectrim.data.cache import AudioCache
from spectrim.errors import AudioError, DataError, InvalidSetting, brief

logger = logging.getLogger(__name__)

PARTS = ("train", "validation", "test")
BAD_SHARE = 0.05
"""Share of a part's files that may be missing, or unreadable, before it is an error."""

NO_REASON = "it cannot be read"


@dataclass(frozen=True, eq=False)
class Clip:
    """One example.

    Attributes:
        waveform: (n,) float32, mono, full scale at ±1; at 16 kHz, or what the data set was asked for.
        target: (labels,) float32; 1 for each label that the clip has, else 0.
        id: the file's name within the data set.
        stand_in: whether this clip replaces another, which cannot be read. An evaluation leaves it out, or it would
            count twice.
    """

    waveform: NDArray[np.float32]
    target: NDArray[np.float32]
    id: str
    stand_in: bool = False


@dataclass(frozen=True)
class Recording:
    """A file of a data set.

    Attributes:
        path: where it is; of a packed one its archive.
        labels: numbers of its labels.
        id: its name within the data set.
        group: what it shares with others of the data set, so that they are not independent: a speaker, or a longer
            recording that it was cut from; None where that is not known.
        member: its place in the archive, where it is packed.
    """

    path: Path
    labels: tuple[int, ...]
    id: str
    group: str | None = None
    member: Member | None = None

    @property
    def source(self) -> Path | Member:
        """What is decoded: the file, or the member of an archive."""
        return self.path if self.member is None else self.member


class LabelTable(NamedTuple):
    """The labels of many recordings in two arrays: those of recording k are ``numbers[bounds[k]:bounds[k + 1]]``.

    Attributes:
        bounds: (n + 1,) int64.
        numbers: (m,) of labels.
    """

    bounds: NDArray[np.int64]
    numbers: NDArray[np.int32]

    @property
    def owners(self) -> NDArray[np.int64]:
        """(m,) number of the recording that each label belongs to."""
        return np.repeat(np.arange(len(self.bounds) - 1), np.diff(self.bounds))


class Recordings(Sequence[Recording]):
    """Recordings that are made when they are asked for, out of arrays: millions of them take little memory."""

    @property
    def label_table(self) -> LabelTable:
        """The labels of all of them."""
        raise NotImplementedError

    @property
    def digest(self) -> str:
        """Tells them from any others."""
        raise NotImplementedError

    def unlabelled(self) -> Recordings:
        """The same without labels."""
        raise NotImplementedError


def label_table(recordings: Sequence[Recording]) -> LabelTable:
    """The labels of recordings, in arrays."""
    if isinstance(recordings, Recordings):
        return recordings.label_table
    counts = [len(recording.labels) for recording in recordings]
    numbers = [label for recording in recordings for label in recording.labels]
    return LabelTable(np.cumsum([0, *counts], dtype=np.int64), np.array(numbers, dtype=np.int32))


def clips_digest(recordings: Sequence[Recording]) -> str:
    """Tells the names and labels of recordings, in their order, from any others."""
    if isinstance(recordings, Recordings):
        return recordings.digest
    digest = hashlib.sha256()
    for recording in recordings:
        digest.update(repr((recording.id, recording.labels)).encode(errors="surrogateescape"))
    return digest.hexdigest()


def without_labels(recordings: Sequence[Recording]) -> Sequence[Recording]:
    """The same recordings without their labels."""
    if isinstance(recordings, Recordings):
        return recordings.unlabelled()
    return [replace(recording, labels=()) for recording in recordings]


@dataclass
class AudioDataset(Dataset[Clip]):
    """A part of a data set: `Clip`s by number.

    A file that cannot be read is named once, with the reason, in the log and in `broken`, and another clip
    stands in for it from then on: always the same one, so that a resumed run sees the same data. Such a clip says so
    by `Clip.stand_in`. All decoding processes count such files together.

    Args:
        recordings: the files that are there.
        labels: names of all labels, in the order of the targets.
        multi_label: whether a clip can have several labels.
        missing: ids of files that the data set's lists name but the disk does not hold; they are named in the log.
        bad_share: share of the files that may be missing, and share that may be unreadable; one always may.
        folds: numbers of the folds that the data set is divided into, none where it is not.
        cache: keeps what its files sound like; None to decode them each time.
        sampling_rate: of the waveforms, in hertz.
        drawn_from: so many clips, of which a share was held out for this part by a seed; None where the data set says
            which clips belong to it, or it is what is left for training.
        highest_rate: in hertz; the files are packed at it, so that a higher one would find nothing new in them.

    Raises:
        DataError: there is nothing in the part, or too much of it is missing.
        InvalidSetting: ``bad_share`` is not a share.
    """

    recordings: Sequence[Recording]
    labels: list[str]
    multi_label: bool
    missing: Sequence[str] = ()
    bad_share: float = BAD_SHARE
    folds: tuple[int, ...] = ()
    cache: AudioCache | None = None
    sampling_rate: int = field(default=audio.SAMPLING_RATE, kw_only=True)
    drawn_from: int | None = field(default=None, kw_only=True)
    highest_rate: int | None = field(default=None, kw_only=True)
    _reasons: dict[str, str] = field(default_factory=dict, init=False)
    _unreadable: Tensor = field(init=False, compare=False)

    def __post_init__(self) -> None:
        check_bad_share(self.bad_share)
        self._unreadable = torch.zeros(len(self.recordings), dtype=torch.bool).share_memory_()
        if self.missing:
            named = some(self.missing)
            logger.warning("%d files are missing and left out: %s", len(self.missing), named)
            total = len(self.recordings) + len(self.missing)
            if len(self.missing) > bearable(total, self.bad_share):
                raise DataError(
                    f"{len(self.missing)} of {total} files are missing, more than bad_share={self.bad_share:g}: {named}"
                )
        if not self.recordings:
            none = f"none of its {len(self.missing)} files is there, e.g. {some(self.missing)}" if self.missing else ""
            raise DataError(f"this part of the data set holds no clips{none and ': ' + none}")

    def __len__(self) -> int:
        return len(self.recordings)

    @property
    def broken(self) -> dict[str, str]:
        """Id → reason of the files found unreadable so far; a decoding process has the reason in the log alone."""
        found = [self.recordings[place].id for place in self._unreadable.nonzero().flatten().tolist()]
        return {name: self._reasons.get(name, NO_REASON) for name in found}

    def with_labels(self, labels: Sequence[str]) -> AudioDataset:
        """The same clips with targets among more labels, e.g. those of a model whose test set lacks some.

        Args:
            labels: all of this data set's, and others; in the order of the new targets.
        """
        places = {label: place for place, label in enumerate(labels)}
        numbers = [places[label] for label in self.labels]
        recordings = [
            replace(recording, labels=tuple(sorted(numbers[number] for number in recording.labels)))
            for recording in self.recordings
        ]
        wider = copy.copy(self)
        wider.recordings, wider.labels = recordings, list(labels)
        return wider

    def at_rate(self, sampling_rate: int) -> AudioDataset:
        """The same clips at the sampling rate of a model, in hertz.

        Raises:
            InvalidSetting: they were packed at a lower one.
        """
        if self.highest_rate is not None and sampling_rate > self.highest_rate:
            allowed = (
                f"up to {self.highest_rate}, at which these clips are packed; pack them with --rate {sampling_rate}"
            )
            raise InvalidSetting("sampling_rate", sampling_rate, allowed)
        changed = copy.copy(self)
        changed.sampling_rate = sampling_rate
        return changed

    @property
    def each_label_apart(self) -> bool:
        """Whether each label is a question of its own: clips can have several, or there is only one label.

        Among one label the highest score is always right, so that accuracy would always be 1.
        """
        return self.multi_label or len(self.labels) == 1

    @property
    def metric(self) -> str:
        """What to judge a model by on this data: its name in `spectrim.measure.metrics.METRICS`."""
        return "mAP" if self.each_label_apart else "accuracy"

    @property
    def not_measurable(self) -> str | None:
        """Why `metric` says nothing on these clips, or None."""
        counts = np.bincount(label_table(self.recordings).numbers, minlength=len(self.labels)).tolist()
        if self.metric == "accuracy" or any(0 < count < len(self.recordings) for count in counts):
            return None
        every = [self.labels[number] for number, count in enumerate(counts) if count == len(self.recordings)]
        if every:
            return f"every clip has {some([brief(label) for label in every], 3)}, and none lacks it: nothing to tell"
        return "no clip has a label"

    def __getitem__(self, index: int) -> Clip:
        """Read a clip; raises `DataError` when too many files turned out unreadable."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        for step in range(len(self)):
            place = (index + step) % len(self)
            if self._unreadable[place]:
                continue
            recording = self.recordings[place]
            try:
                samples = self.read(recording)
            except AudioError as error:
                self._report(place, recording, error)
                continue
            return Clip(samples, self.target(recording), recording.id, stand_in=step > 0)
        name, reason = next(reversed(self.broken.items()))
        raise DataError(f"none of the {len(self)} files can be read; the last: {name}: {reason}")

    def read(self, recording: Recording) -> NDArray[np.float32]:
        """The waveform (n,) of a recording; raises `AudioError`. Packed ones are not cached: they decode quickly."""
        if self.cache is None or recording.member is not None:
            return audio.read(recording.source, self.sampling_rate).samples
        return self.cache.read(recording.path, self.sampling_rate)

    def target(self, recording: Recording) -> NDArray[np.float32]:
        """The target (labels,) of a recording."""
        target = np.zeros(len(self.labels), dtype=np.float32)
        target[list(recording.labels)] = 1
        return target

    def _report(self, place: int, recording: Recording, error: AudioError) -> None:
        self._reasons[recording.id] = error.reason
        self._unreadable[place] = True
        logger.warning("%s is replaced by another clip: %s", recording.source, error.reason)
        found = int(self._unreadable.sum())
        if found > bearable(len(self), self.bad_share):
            raise DataError(
                f"{found} of {len(self)} files cannot be read, more than bad_share={self.bad_share:g}; "
                f"the last: {recording.id}: {error.reason}"
            ) from error


def check_bad_share(share: float) -> None:
    """Refuse what is no share."""
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise InvalidSetting("bad_share", share, "a share from 0 to 1")


def bearable(total: int, bad_share: float) -> int:
    """How many of ``total`` files may be missing, or unreadable: the share, but always one."""
    return max(1, int(bad_share * total + 1e-9))  # 0.29 * 100 is 28.999999999999996


def some(names: Sequence[str], most: int = 5) -> str:
    """The first names of many, and how many more there are."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def labels_have(number: int) -> str:
    """Begin a sentence about so many labels."""
    return "1 label has" if number == 1 else f"{number} labels have"


def spread_places(number: int, total: int) -> list[int]:
    """So many of ``total`` places, evenly spread, or all if there are fewer: files often lie in the order of labels."""
    return np.unique(np.linspace(0, total - 1, min(number, total)).round().astype(int)).tolist()


def evenly(part: AudioDataset, limit: int | None) -> AudioDataset:
    """So many clips of a data set, evenly spread over it.

    Raises:
        InvalidSetting: ``limit`` is below 2.
    """
    if limit is None:
        return part
    if limit < 2:
        raise InvalidSetting("limit", limit, "2 or more: one clip has no interval")
    return replace(part, recordings=[part.recordings[place] for place in spread_places(limit, len(part))], missing=())
