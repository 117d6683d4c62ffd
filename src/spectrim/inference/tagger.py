"""Windows of many files in, predictions in the order of the files out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from spectrim.audio.decoding import Event
from spectrim.audio.files import Note, Samples, Window
from spectrim.errors import InvalidSetting, check_whole, one_of
from spectrim.inference.backend import Backend
from spectrim.inference.results import AGGREGATES, FilePrediction, Scores, WindowScores, file_prediction

Paint = Callable[[str, Window, Scores], object]
"""Called with a file, a window of it, and the window's scores (labels,)."""


class ScoreStore(Protocol):
    """Where scores are put down as soon as they are there, so that a broken run need not make them again."""

    def known(self, path: str) -> Sequence[WindowScores]:
        """Begin with a file: the scores of its first windows, from an earlier run."""

    def keep(self, scored: Iterable[tuple[str, WindowScores]]) -> None:
        """Take the scores of windows of one forward pass, each with its file."""


@dataclass
class _File:
    """A file on its way: what is known of it so far."""

    path: str
    known: deque[WindowScores] = field(default_factory=deque)
    windows: list[WindowScores] = field(default_factory=list)
    in_batch: int = 0
    ended: bool = False
    error: str | None = None
    notes: list[str] = field(default_factory=list)


class Tagger:
    """Runs windows of many files through a model, so many at once.

    Args:
        model: what runs them.
        batch_size: windows in one forward pass.
        aggregate: one of `AGGREGATES`.
        paint: called with every window and its scores.
        score: what makes a row (numbers,) of each window's samples; the model's scores otherwise.
        store: knows scores of an earlier run, for windows that the model then does not hear, and is given all others.
            They are those of whole forward passes, so a continued run makes the passes of an unbroken one.

    Attributes:
        labels: names, in the order of the scores.

    Raises:
        InvalidSetting: there is no such aggregate, or no such number of windows in a pass.
    """

    def __init__(
        self,
        model: Backend,
        batch_size: int,
        aggregate: str,
        paint: Paint | None = None,
        score: Callable[[Sequence[Samples]], Scores] | None = None,
        store: ScoreStore | None = None,
    ) -> None:
        if aggregate not in AGGREGATES:
            raise InvalidSetting("aggregate", aggregate, one_of(AGGREGATES))
        check_whole("batch_size", batch_size)
        self.labels = model.labels
        self._score = model.scores if score is None else score
        self._batch_size = batch_size
        self._aggregate = aggregate
        self._paint = paint
        self._store = store
        self._batch: list[tuple[_File, Window]] = []
        self._files: deque[_File] = deque()

    def add(self, path: str, event: Event) -> None:
        """Take the next event of the newest file, or the first of the next one."""
        if not self._files or self._files[-1].ended:
            self._files.append(_File(path, deque(() if self._store is None else self._store.known(path))))
        file = self._files[-1]
        if isinstance(event, Window):
            if file.known:
                file.windows.append(file.known.popleft())
                return
            file.in_batch += 1
            self._batch.append((file, event))
            if len(self._batch) == self._batch_size:
                self.run()
            return
        if isinstance(event, Note):
            file.notes.append(event.text)
            return
        file.ended = True
        if event is not None:
            file.error = event.reason
            file.in_batch = 0
            self._batch = [(other, window) for other, window in self._batch if other is not file]

    def run(self) -> None:
        """Score the windows that wait."""
        if not self._batch:
            return
        batch, self._batch = self._batch, []
        rows = self._score([window.samples for _, window in batch])
        scored = []
        for (file, window), scores in zip(batch, rows, strict=True):
            file.in_batch -= 1
            file.windows.append(WindowScores(window.start, window.end, scores))
            scored.append((file.path, file.windows[-1]))
            if self._paint is not None:
                self._paint(file.path, window, scores)
        if self._store is not None:
            self._store.keep(scored)

    def ready(self) -> Iterator[FilePrediction]:
        """Predictions of the files that are finished and before which none is not."""
        while self._files and self._files[0].ended and self._files[0].in_batch == 0:
            file = self._files.popleft()
            if file.error is not None:
                yield FilePrediction(file.path, self.labels, error=file.error)
                continue
            yield file_prediction(file.path, self.labels, file.windows, self._aggregate, file.notes)
