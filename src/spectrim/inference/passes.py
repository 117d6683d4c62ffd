"""Files to forward passes in one place, and the scores of passes back to files in another.

What `spectrim.inference.tagger.Tagger` does in one process is parted here, so that decoding, the model and the rows can
be on three machines. The passes of a list of files are those that a `Tagger` would make of it, so scores are the same
to the bit; and they depend on nothing but the list, so whoever makes them again makes the same.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from spectrim.audio.decoding import Event
from spectrim.audio.files import Note, Samples, Window
from spectrim.errors import SpectrimError
from spectrim.inference.results import FilePrediction, Scores, WindowScores, file_prediction

End: TypeAlias = tuple[int, str | None, list[str]]
"""Of a file: its index, what is wrong with it, and notes on it."""


@dataclass(frozen=True)
class Pass:
    """The windows of one forward pass, and what is known of files once it is made.

    Attributes:
        number: its place among the passes of a list, from 0.
        before: checksum of all passes before it; 0 for the first.
        after: the same with this one.
        files: index of the file of each window.
        starts: of the windows, in seconds.
        samples: (n,) float32 of each window; none where there is only an end to tell.
        ends: of files, all windows of which are in this pass or before it.
    """

    number: int
    before: int
    after: int
    files: list[int]
    starts: list[float]
    samples: list[Samples]
    ends: list[End]


def passes(events: Iterable[tuple[int, Event]], batch_size: int) -> Iterator[Pass]:
    """Put the windows of a list of files into passes.

    Args:
        events: index of a file and what comes of it, as `spectrim.audio.decoding.decode_files` gives them.
        batch_size: windows in a pass; the last one has fewer, perhaps none.
    """
    waiting: list[tuple[int, Window]] = []
    ends: list[End] = []
    notes: list[str] = []
    number = checksum = 0

    def made() -> Pass:
        nonlocal waiting, ends, number, checksum
        before, checksum = checksum, _checksum(waiting, ends, checksum)
        files, windows = [index for index, _ in waiting], [window for _, window in waiting]
        starts, samples = [window.start for window in windows], [window.samples for window in windows]
        result = Pass(number, before, checksum, files, starts, samples, ends)
        waiting, ends, number = [], [], number + 1
        return result

    for index, event in events:
        if isinstance(event, Window):
            waiting.append((index, event))
            if len(waiting) == batch_size:
                yield made()
        elif isinstance(event, Note):
            notes.append(event.text)
        else:
            if event is not None:
                waiting = [(other, window) for other, window in waiting if other != index]
            ends.append((index, None if event is None else event.reason, notes))
            notes = []
    yield made()


def _checksum(windows: Iterable[tuple[int, Window]], ends: Sequence[End], before: int) -> int:
    for index, window in windows:
        before = zlib.crc32(window.samples.data, zlib.crc32(f"{index} {window.start}".encode(), before))
    return zlib.crc32(json.dumps(ends).encode(), before)


@dataclass
class _File:
    windows: list[WindowScores] = field(default_factory=list)
    end: End | None = None


class Assembly:
    """Scores of the passes of one list of files, in any order, to predictions in the order of the files.

    Args:
        files: the list.
        labels: names, in the order of the scores.
        aggregate: see `spectrim.inference.results.aggregated`.
        sampling_rate: of the windows, in hertz.

    Attributes:
        complete: whether every file has its prediction.
    """

    def __init__(self, files: Sequence[str], labels: Sequence[str], aggregate: str, sampling_rate: int) -> None:
        self.complete = False
        self._paths = files
        self._labels = labels
        self._aggregate = aggregate
        self._rate = sampling_rate
        self._early: dict[int, tuple[Pass, Scores]] = {}
        self._files: dict[int, _File] = {}
        self._next = self._checksum = self._given = 0

    def take(self, found: Pass, scores: Scores) -> Iterator[FilePrediction]:
        """Take the next pass; a second copy of one is passed over.

        Args:
            found: the pass. Of its samples, only the lengths are read.
            scores: (windows, labels) float32.

        Yields:
            Predictions of the files that are finished now.

        Raises:
            SpectrimError: it does not go on where the pass before it ended: the list was decoded twice, and a file of
                it had changed in between.
        """
        if found.number >= self._next:
            self._early[found.number] = found, scores
        while self._next in self._early:
            yield from self._put(*self._early.pop(self._next))
            self._next += 1

    def _put(self, found: Pass, scores: Scores) -> Iterator[FilePrediction]:
        if found.before != self._checksum:
            raise SpectrimError(
                f"a file between {self._paths[0]} and {self._paths[-1]} has changed while they were decoded twice, "
                "after a worker was lost; --resume decodes them anew"
            )
        self._checksum = found.after
        for index, start, samples, row in zip(found.files, found.starts, found.samples, scores, strict=True):
            window = Window(start, samples, self._rate)
            self._files.setdefault(index, _File()).windows.append(WindowScores(start, window.end, row))
        for end in found.ends:
            self._files.setdefault(end[0], _File()).end = end
        while (file := self._files.get(self._given)) is not None and file.end is not None:
            del self._files[self._given]
            yield self._prediction(file.windows, file.end)
            self._given += 1
        self.complete = self._given == len(self._paths)

    def _prediction(self, windows: Sequence[WindowScores], end: End) -> FilePrediction:
        index, error, notes = end
        path = self._paths[index]
        if error is not None:
            return FilePrediction(path, self._labels, error=error)
        return file_prediction(path, self._labels, windows, self._aggregate, notes)


def silence(length: int) -> Samples:
    """Samples (n,) that take no memory, for a window whose length is all that is asked for."""
    return np.broadcast_to(np.float32(0), length)
