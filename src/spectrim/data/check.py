"""What is in a data set on disk: counts, gaps, lengths, rates, and the statistics that a recipe needs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import soundfile
import torch

from spectrim import audio
from spectrim.data import DATA_SETS, PARTS, AudioDataset
from spectrim.errors import AudioError, InvalidSetting, one_of
from spectrim.frontend import Frontend

Progress = Callable[[int, int], None]


@dataclass
class PartReport:
    """One part of a data set.

    Attributes:
        clips: files that are there and can be read.
        missing: ids of files that the lists name and the disk lacks.
        broken: id → reason of files that cannot be read.
        per_label: label → number of clips.
        seconds: shortest, mean and longest clip.
        sampling_rates: rate in hertz → number of files.
    """

    clips: int = 0
    missing: list[str] = field(default_factory=list)
    broken: dict[str, str] = field(default_factory=dict)
    per_label: dict[str, int] = field(default_factory=dict)
    seconds: tuple[float, float, float] = (0.0, 0.0, 0.0)
    sampling_rates: dict[int, int] = field(default_factory=dict)


@dataclass
class Report:
    """A data set.

    Attributes:
        name: its name in `DATA_SETS`.
        parts: part → its report.
        mean: mean of the log-mel values of the training part over the frames that hold sound, padding left out.
        std: their standard deviation.
    """

    name: str
    parts: dict[str, PartReport]
    mean: float
    std: float


class LogMelStatistics:
    """Running mean and standard deviation of log-mel values, over the frames that hold sound.

    Args:
        max_length: frames per clip that are looked at, as the model does.
    """

    def __init__(self, max_length: int) -> None:
        self._frontend = Frontend(max_length=max_length, mean=0.0, std=0.5)
        self._count = 0
        self._mean = 0.0
        self._squares = 0.0

    @torch.no_grad()
    def add(self, waveforms: list[Any]) -> None:
        """Take in some waveforms, each (n,) at 16 kHz."""
        features = self._frontend(waveforms)
        frames = torch.arange(features.input_values.shape[1]) < features.num_frames[:, None]
        values = features.input_values[frames].double()
        if values.numel() == 0:
            return
        mean, squares = float(values.mean()), float((values - values.mean()).square().sum())
        total = self._count + values.numel()
        self._squares += squares + (mean - self._mean) ** 2 * self._count * values.numel() / total
        self._mean += (mean - self._mean) * values.numel() / total
        self._count = total

    @property
    def mean(self) -> float:
        """Mean, NaN before the first clip."""
        return self._mean if self._count else math.nan

    @property
    def std(self) -> float:
        """Standard deviation, NaN before the first clip."""
        return math.sqrt(self._squares / self._count) if self._count else math.nan


def check(name: str, root: str | Path, *, progress: Progress | None = None, **options: Any) -> Report:
    """Read every file of a data set once and report.

    Args:
        name: its name in `DATA_SETS`.
        root: where it is.
        progress: called with (files read, files in all).
        options: of its opener. However much is missing or unreadable, it is reported, not raised.

    Raises:
        InvalidSetting: unknown name.
        DataError: the folder is not in the layout of this data set, or a part is empty.
    """
    if name not in DATA_SETS:
        raise InvalidSetting("data set", name, one_of(DATA_SETS))
    entry = DATA_SETS[name]
    parts = {part: entry.open(root, part, **{**options, "bad_share": 1.0}) for part in PARTS}
    total = sum(len(part) for part in parts.values())
    statistics = LogMelStatistics(entry.max_length or 1024)
    done = 0
    reports = {}
    for part, clips in parts.items():

        def step(read: int, done: int = done) -> None:
            if progress is not None:
                progress(done + read, total)

        reports[part] = _check_part(clips, statistics if part == "train" else None, step)
        done += len(clips)
    return Report(name, reports, statistics.mean, statistics.std)


def _check_part(part: AudioDataset, statistics: LogMelStatistics | None, step: Callable[[int], None]) -> PartReport:
    report = PartReport(missing=list(part.missing))
    lengths: list[float] = []
    labels: Counter[int] = Counter()
    rates: Counter[int] = Counter()
    batch = []
    for number, recording in enumerate(part.recordings, start=1):
        try:
            waveform = audio.read(recording.path)
        except AudioError as error:
            report.broken[recording.id] = error.reason
        else:
            lengths.append(waveform.seconds)
            labels.update(recording.labels)
            rates[soundfile.info(str(recording.path)).samplerate] += 1
            batch.append(waveform.samples)
        if statistics is not None and (len(batch) == 64 or number == len(part)):
            if batch:
                statistics.add(batch)
            batch = []
        elif statistics is None:
            batch = []
        if number % 64 == 0 or number == len(part):
            step(number)
    report.clips = len(lengths)
    report.per_label = {name: labels[number] for number, name in enumerate(part.labels)}
    if lengths:
        report.seconds = (min(lengths), sum(lengths) / len(lengths), max(lengths))
    report.sampling_rates = dict(sorted(rates.items()))
    return report
