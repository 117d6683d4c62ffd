"""Report on a data set on disk: counts, gaps, lengths, rates, and the log-mel mean and std that a recipe needs."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spectrim.audio import files as audio
from spectrim.audio.frontend import Frontend, count_frames
from spectrim.data import PARTS, AudioDataset, Recording, dataset, find_data_set
from spectrim.data.dataset import BAD_SHARE, bearable, check_bad_share
from spectrim.errors import AudioError, InvalidSetting
from spectrim.machine import core_count

Progress = Callable[[int, int], None]

AT_ONCE = 64
"""Files that are read, and held in memory, at a time; of each no more than the frames that the statistics look at."""

LONGEST = 1024
"""Frames that the statistics look at where a data set is not known for a length: those of the longest published AST."""


OUTLIERS, FEW, OUTLYING = 0.02, 10, 1.25
"""A length leaves out this share of the clips, the longest, or one of this many, if it saves more than a quarter."""


@dataclass
class PartReport:
    """One part of a data set.

    Attributes:
        clips: files that are there and can be read.
        missing: ids of files that the lists name and the disk lacks.
        broken: id → reason of files that cannot be read.
        per_label: label → number of clips.
        lengths: seconds of each clip that can be read.
        sampling_rates: rate in hertz → number of files.
    """

    clips: int = 0
    missing: list[str] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    per_label: dict[str, int] = field(default_factory=dict)
    lengths: list[float] = field(default_factory=list)
    sampling_rates: dict[int, int] = field(default_factory=dict)

    @property
    def seconds(self) -> tuple[float, float, float]:
        """Shortest, mean and longest clip."""
        lengths = self.lengths or [0.0]
        return min(lengths), math.fsum(lengths) / len(lengths), max(lengths)

    def as_dict(self) -> dict[str, Any]:
        """All of it, with ``seconds`` in place of every length."""
        return {"seconds": self.seconds, **{name: value for name, value in vars(self).items() if name != "lengths"}}

    @property
    def empty_labels(self) -> list[str]:
        """Labels that no clip has."""
        return [label for label, count in self.per_label.items() if count == 0]

    def failures(self, bad_share: float) -> Iterator[str]:
        """Say of missing and of broken files whether they are more than the share that training bears."""
        there = self.clips + len(self.broken)
        counts = (("missing", len(self.missing), there + len(self.missing)), ("unreadable", len(self.broken), there))
        for what, count, total in counts:
            if count > bearable(total, bad_share):
                yield f"{count} of {total} files are {what}, more than bad_share={bad_share:g}"


@dataclass
class Report:
    """A data set.

    Attributes:
        name: its name in `DATA_SETS`.
        parts: part → its report. Parts that are the same clips have the same report.
        mean: mean of the log-mel values of the training part over the frames that hold sound, padding left out.
        std: their standard deviation.
        max_length: frames that a model for it looks at, and the statistics looked at. Where nobody said: as many as
            the longest training clip has that is no outlier (`OUTLIERS`), up to `LONGEST`, in whole patches of 16.
        cut: training clips that are longer, and lose their ends.
        failures: what keeps training from running, in words; empty if nothing does.
    """

    name: str
    parts: dict[str, PartReport]
    mean: float
    std: float
    max_length: int
    cut: int
    failures: list[str]


def look_alikes(labels: Sequence[str]) -> list[str]:
    """Of labels that differ only by what is easily overlooked, each pair and what that is, in words."""
    found: list[str] = []
    seen: dict[str, tuple[str, str]] = {}
    for label in labels:
        normal = unicodedata.normalize("NFC", label)
        first, other = seen.setdefault(" ".join(normal.casefold().split()), (label, normal))
        if first != label:
            how = ["upper and lower case"] if other.split() != normal.split() else []
            how += ["blanks"] if other.casefold() != normal.casefold() else []
            found.append(f"{label!r} differs from {first!r} only by {' and '.join(how) or 'normalisation of Unicode'}")
    return found


class LogMelStatistics:
    """Running mean and standard deviation of log-mel values, over the frames that hold sound.

    Each frame, counted from the beginning of a clip, has its own, so that they are known for every shorter length too.

    Args:
        max_length: frames per clip that are looked at, as the model does.
        sampling_rate: of the clips, in hertz.

    Attributes:
        longest: samples that these frames take.
    """

    def __init__(self, max_length: int, sampling_rate: int = audio.SAMPLING_RATE) -> None:
        self._frontend = Frontend(max_length=max_length, sampling_rate=sampling_rate, mean=0.0, std=0.5)
        self.longest = self._frontend.samples
        self._count, self._mean, self._squares = np.zeros((3, max_length))

    @torch.no_grad()
    def add(self, waveforms: list[Any]) -> None:
        """Take in some waveforms, each (n,)."""
        features = self._frontend(waveforms)
        values = features.input_values.double().numpy()
        heard = np.arange(values.shape[1]) < features.num_frames.numpy()[:, None]
        count = heard.sum(axis=0) * values.shape[2]
        total = np.maximum(count, 1)
        mean = (values.sum(axis=2) * heard).sum(axis=0) / total
        squares = (np.square(values - mean[:, None]).sum(axis=2) * heard).sum(axis=0)
        self._count, self._mean, self._squares = _merged(
            np.stack([self._count, count]), np.stack([self._mean, mean]), np.stack([self._squares, squares])
        )

    def within(self, max_length: int) -> tuple[float, float]:
        """Mean and standard deviation over the first frames of the clips; NaN before the first clip."""
        shorter = (part[:max_length] for part in (self._count, self._mean, self._squares))
        count, mean, squares = _merged(*shorter)
        return (float(mean), math.sqrt(squares / count)) if count else (math.nan, math.nan)

    @property
    def mean(self) -> float:
        """Mean, NaN before the first clip."""
        return self.within(len(self._count))[0]

    @property
    def std(self) -> float:
        """Standard deviation, NaN before the first clip."""
        return self.within(len(self._count))[1]


def _merged(counts: Any, means: Any, squares: Any) -> tuple[Any, Any, Any]:
    """Count, mean and sum of squared deviations of groups (along the first axis) taken together (Chan et al., 1983)."""
    count = counts.sum(axis=0)
    mean = (counts * means).sum(axis=0) / np.maximum(count, 1)
    return count, mean, (squares + counts * np.square(means - mean)).sum(axis=0)


def check(
    name: str,
    root: str | Path,
    *,
    max_length: int | None = None,
    sampling_rate: int | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Report:
    """Read every file of a data set once and report.

    Memory does not grow with the number or the length of the files.

    Args:
        name: its name in `DATA_SETS`.
        root: where it is.
        max_length: frames of each training clip that the statistics look at; those of the data set unless given.
        sampling_rate: of the model that the statistics are for, in hertz; 16 kHz unless given.
        workers: threads that decode; one a core unless given.
        progress: called with (files read, files in all).
        options: of its opener. However much is missing or unreadable, it is reported, not raised; ``bad_share`` says
            from which share on it is a failure.

    Raises:
        InvalidSetting: unknown name or option, a number out of range, or ``sampling_rate`` above that of packed clips.
        DataError: the folder is not in the layout of this data set, or a part is empty.
    """
    entry = find_data_set(name)
    _check_number("max_length", max_length, 16)
    _check_number("workers", workers, 1)
    bad_share = options.get("bad_share", BAD_SHARE)
    check_bad_share(bad_share)
    with what_is_missing_unsaid():
        parts = {part: entry.open(root, part, **{**options, "bad_share": 1.0}) for part in PARTS}
    if sampling_rate is not None:
        parts = {part: clips.at_rate(sampling_rate) for part, clips in parts.items()}
    rate = parts["train"].sampling_rate
    same = {part: _first_equal(parts, part) for part in PARTS}
    total = sum(len(parts[part]) for part in set(same.values()))
    asked = max_length or entry.max_length
    statistics = LogMelStatistics(asked or LONGEST, rate)
    reports: dict[str, PartReport] = {}
    done = 0
    with ThreadPoolExecutor(workers or core_count()) as pool:
        for part, clips in parts.items():
            if same[part] != part:
                reports[part] = reports[same[part]]
                continue

            def step_on(read: int, done: int = done) -> None:
                if progress is not None:
                    progress(done + read, total)

            reports[part] = _check_part(clips, statistics if part == "train" else None, pool, step_on)
            done += len(clips)
    failures = [f"{part}: {words}" for part in PARTS for words in reports[part].failures(bad_share)]
    lengths = reports["train"].lengths
    fitting = asked or fitting_length(lengths, rate)
    mean, std = statistics.within(fitting)
    return Report(name, reports, mean, std, fitting, cut_clips(lengths, fitting, rate), failures)


def _check_number(setting: str, value: int | None, step: int) -> None:
    """Refuse what is not None or a positive multiple of ``step``."""
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1 or value % step):
        raise InvalidSetting(setting, value, "a positive whole number" + f", a multiple of {step}" * (step > 1))


@contextmanager
def what_is_missing_unsaid() -> Iterator[None]:
    """Keep opened parts from logging what the report says."""
    before = dataset.logger.disabled
    dataset.logger.disabled = True
    try:
        yield
    finally:
        dataset.logger.disabled = before


def _first_equal(parts: dict[str, AudioDataset], part: str) -> str:
    """The first part that consists of the same files."""
    here = parts[part]
    return next(
        name for name, other in parts.items() if (other.recordings, other.missing) == (here.recordings, here.missing)
    )


def fitting_length(seconds: Sequence[float], sampling_rate: int = audio.SAMPLING_RATE) -> int:
    """Frames for clips of some lengths: of the longest, unless that is one of a few outliers; see `OUTLIERS`."""
    if not seconds:
        return 16
    ordered = sorted(seconds)
    usual = ordered[-1 - max(int(OUTLIERS * len(ordered)), int(len(ordered) >= FEW))]
    return _whole_patches(ordered[-1] if ordered[-1] <= OUTLYING * usual else usual, sampling_rate)


def cut_clips(seconds: Sequence[float], max_length: int, sampling_rate: int = audio.SAMPLING_RATE) -> int:
    """How many clips of some lengths have more frames than a model looks at."""
    return sum(count_frames(round(one * sampling_rate), sampling_rate) > max_length for one in seconds)


def _whole_patches(seconds: float, sampling_rate: int) -> int:
    frames = count_frames(round(seconds * sampling_rate), sampling_rate)
    return min(LONGEST, 16 * max(1, math.ceil(frames / 16)))


@dataclass(frozen=True)
class File:
    """What is in a file: seconds of sound, its own sampling rate, and its first samples at the rate asked for."""

    seconds: float
    sampling_rate: int
    head: audio.Samples


def examine(recording: Recording, longest: int, sampling_rate: int = audio.SAMPLING_RATE) -> File | str:
    """Decode a file block by block at a rate in hertz, holding up to ``longest`` samples and a block.

    A text says why it cannot be.
    """
    head: list[audio.Samples] = []
    held = total = 0
    try:
        for block in audio.stream(recording.source, sampling_rate):
            total += len(block)
            if held < longest:
                head.append(block[: longest - held])
                held += len(head[-1])
    except AudioError as error:
        return error.reason
    rate = audio.own_rate(recording.source)
    return File(total / sampling_rate, rate, np.concatenate(head) if head else np.zeros(0, np.float32))


def _check_part(
    part: AudioDataset, statistics: LogMelStatistics | None, pool: Executor, step: Callable[[int], None]
) -> PartReport:
    report = PartReport(missing=list(part.missing))
    longest = 0 if statistics is None else statistics.longest
    labels: Counter[int] = Counter()
    rates: Counter[int] = Counter()
    for start in range(0, len(part), AT_ONCE):
        recordings = part.recordings[start : start + AT_ONCE]
        waveforms = []
        look = partial(examine, longest=longest, sampling_rate=part.sampling_rate)
        for recording, examined in zip(recordings, pool.map(look, recordings), strict=True):
            if isinstance(examined, str):
                report.broken[recording.id] = examined
                continue
            report.lengths.append(examined.seconds)
            labels.update(recording.labels)
            rates[examined.sampling_rate] += 1
            waveforms.append(examined.head)
        if statistics is not None and waveforms:
            statistics.add(waveforms)
        step(min(start + AT_ONCE, len(part)))
    report.clips = len(report.lengths)
    report.per_label = {name: labels[number] for number, name in enumerate(part.labels)}
    report.sampling_rates = dict(sorted(rates.items()))
    return report
