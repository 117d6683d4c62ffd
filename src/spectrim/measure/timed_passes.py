"""Passes over sound files that are timed from their first window on: decoding, front end, and a model at keep rates."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from spectrim.audio.decoding import Event
from spectrim.audio.files import Note, Samples, Window
from spectrim.audio.finding import Selection
from spectrim.errors import AudioError, SpectrimError
from spectrim.inference.backend import Backend
from spectrim.inference.predict import decoded_windows, predict_files
from spectrim.inference.results import Scores
from spectrim.pruning.pruning import Pruning

READ, INPUT = "read", "input"
"""What is timed beside the keep rates: decoding alone, and decoding with the front end."""

Progress: TypeAlias = Callable[[str, int, int], object]
"""Called with ``"read"`` or ``"clips"``, how many files are done, and how many there are, over all passes."""


@dataclass(frozen=True)
class Readable:
    """The files that can be read, their windows and seconds, and the first batch of windows."""

    files: list[str]
    windows: int
    seconds: float
    first_batch: list[Samples]


@dataclass(frozen=True)
class Times:
    """Seconds until the first window of a pass, and from then to its end."""

    starting: float
    working: float


class _Clock:
    """Times a pass from its first window on."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._first: float | None = None

    def hear(self, *_: object) -> None:
        """A window is there."""
        if self._first is None:
            self._first = time.perf_counter()

    def stop(self) -> Times:
        """All is done."""
        end = time.perf_counter()
        first = end if self._first is None else self._first
        return Times(first - self._start, end - first)


class TimedPasses:
    """Passes over files: decoding alone, with the front end, and through the model at each keep rate."""

    def __init__(self, model: Backend, batch_size: int, workers: int | None, on_progress: Progress | None) -> None:
        self._model = model
        self._batch_size = batch_size
        self._workers = workers
        self._tell = on_progress
        self._total = 0
        self._done = 0
        self.at_random: dict[float | None, list[Scores]] = {}

    def warm_up(self, waveforms: Sequence[Samples], rates: Sequence[float | None]) -> None:
        """Tag a batch once at each keep rate: first forward passes take longer than later ones."""
        for rate in rates:
            self._model.at(keep_rate=rate).scores(waveforms)

    def take_turns(
        self,
        files: Sequence[str],
        rates: Sequence[float | None],
        passes: int,
        dense: Backend | None,
        points: Mapping[float | None, Sequence[Pruning]],
    ) -> tuple[Scores | None, dict[float | None, Scores], dict[str | float | None, list[Times]]]:
        """Scores to compare with (None for an exported model alone), scores at every keep rate, times of every case.

        Scores at random points go to ``at_random``.
        """
        scores: dict[float | None, Scores] = {}
        times: dict[str | float | None, list[Times]] = {case: [] for case in (READ, INPUT, *rates)}
        dense_apart = dense is not None or not {None, 1.0} & set(rates)
        self._total = len(files) * (passes * len(times) + dense_apart + sum(map(len, points.values())))
        dense_scores = self.tag(files, 1.0, dense)[0] if dense_apart else None
        for rate, drawn in points.items():
            self.at_random[rate] = [self.tag(files, None, self._model.at(point))[0] for point in drawn]
        for _ in range(passes):
            times[READ].append(self.read(files))
            times[INPUT].append(self.read(files, self._model.prepare))
            for rate in rates:
                scores[rate], taken = self.tag(files, rate)
                times[rate].append(taken)
        return scores.get(1.0) if dense_scores is None else dense_scores, scores, times

    def read_first(
        self, selection: Selection, on_error: Callable[[AudioError], object] | None
    ) -> tuple[Readable, list[AudioError]]:
        """Decode every file once.

        Raises:
            SpectrimError: none can be read.
        """
        errors: list[AudioError] = []

        def refuse(error: AudioError) -> None:
            errors.append(error)
            if on_error is not None:
                on_error(error)

        for error in selection.errors:
            refuse(error)
        readable: list[str] = []
        first_batch: list[Samples] = []
        windows, seconds, of_file, end = 0, 0.0, 0, 0.0
        with closing(self._windows(selection.files)) as events:
            for index, event in events:
                if isinstance(event, Window):
                    of_file, end = of_file + 1, event.end
                    first_batch += [event.samples] if len(first_batch) < self._batch_size else []
                    continue
                if isinstance(event, Note):
                    continue
                if event is None:
                    readable.append(selection.files[index])
                    windows, seconds = windows + of_file, seconds + end
                else:
                    refuse(AudioError(selection.files[index], event.reason))
                of_file, end = 0, 0.0
                if self._tell is not None:
                    self._tell("read", index + 1, len(selection.files))
        if not readable:
            raise SpectrimError(f"none of the {len(selection.files)} clips can be read; the first: {errors[0]}")
        return Readable(readable, windows, seconds, first_batch), errors

    def read(self, files: Sequence[str], prepare: Callable[[Sequence[Any]], object] | None = None) -> Times:
        """Decode files, and make the model's input of them in batches if told how."""
        clock, batch = _Clock(), []
        with closing(self._windows(files)) as events:
            for index, event in events:
                if isinstance(event, Window):
                    clock.hear()
                    batch.append(event.samples)
                elif event is None:
                    self._count()
                elif isinstance(event, AudioError):
                    raise _changed(files[index], event.reason)
                if prepare is not None and len(batch) == self._batch_size:
                    prepare(batch)
                if len(batch) == self._batch_size:
                    batch = []
            if prepare is not None and batch:
                prepare(batch)
            return clock.stop()

    def tag(self, files: Sequence[str], rate: float | None, model: Backend | None = None) -> tuple[Scores, Times]:
        """Scores (clips, labels) at a keep rate, None for the model's own; of another model where one is given."""
        clock, scores = _Clock(), []
        predictions = predict_files(
            Selection(list(files)),
            self._model if model is None else model,
            keep_rate=rate,
            batch_size=self._batch_size,
            workers=self._workers,
            on_window=clock.hear,
        )
        with closing(predictions):
            for prediction in predictions:
                if prediction.scores is None:
                    raise _changed(prediction.path, prediction.error or "no scores")
                if not np.isfinite(prediction.scores).all():
                    at = "" if rate is None else f" at keep rate {rate:g}"
                    raise SpectrimError(f"{prediction.path}: NaN or infinite scores{at}")
                scores.append(prediction.scores)
                self._count()
            times = clock.stop()
        return np.stack(scores), times

    def _windows(self, files: Sequence[str]) -> Generator[tuple[int, Event]]:
        return decoded_windows(files, self._model, batch_size=self._batch_size, workers=self._workers)

    def _count(self) -> None:
        self._done += 1
        if self._tell is not None:
            self._tell("clips", self._done, self._total)


def _changed(path: str | Path, reason: str) -> AudioError:
    return AudioError(str(path), f"{reason}; it could be read a moment ago")
