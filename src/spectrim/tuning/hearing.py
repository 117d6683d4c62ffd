"""Calibration clips in memory, and what a model says of them at any operating point."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from spectrim.comparison.measuring import identity
from spectrim.comparison.store import Store
from spectrim.data import AudioDataset
from spectrim.errors import SpectrimError
from spectrim.inference.backend import Backend
from spectrim.measure.metrics import METRICS
from spectrim.measure.scoring import label_columns
from spectrim.pruning.pruning import Pruning
from spectrim.tuning.search import Answer


class Hearing:
    """Reads clips once, and asks a model about them again and again; every answer is kept in the store.

    Args:
        model: what answers.
        part: the clips.
        store: of answers.
        batch_size: clips in a forward pass.
        on_answer: called with the number of answers so far.
    """

    def __init__(
        self, model: Backend, part: AudioDataset, store: Store, batch_size: int, on_answer: Callable[[int], object]
    ) -> None:
        self.model, self.metric = model, part.metric
        self._store, self._known, self._tell = store, identity(model, part), on_answer
        self._columns = torch.from_numpy(label_columns(model.labels, part.labels)).to(model.device)
        self._part, self._batch_size = part, batch_size
        self._batches: list[tuple[Tensor, Tensor, Tensor]] | None = None
        self._answers: dict[Pruning, Answer] = {}

    def __call__(self, point: Pruning) -> Answer:
        """Loss and metric at a point.

        Raises:
            DataError: too many clips cannot be read.
            SpectrimError: a score is NaN or infinite.
        """
        if point not in self._answers:
            settings = {**self._known, "point": point.to_flat()}
            held = self._store.load("answers", settings)
            if held is None:
                answer = self._ask(point)
                self._store.save("answers", settings, {name: np.array(value) for name, value in vars(answer).items()})
            else:
                answer = Answer(float(held["loss"]), float(held["metric"]))
            self._answers[point] = answer
            self._tell(len(self._answers))
        return self._answers[point]

    @property
    def points(self) -> int:
        """How many points it was asked about."""
        return len(self._answers)

    def _read(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Input, lengths and targets of the clips that can be read, in batches."""
        clips = [clip for clip in map(self._part.__getitem__, range(len(self._part))) if not clip.stand_in]
        batches = []
        for start in range(0, len(clips), self._batch_size):
            some = clips[start : start + self._batch_size]
            targets = torch.from_numpy(np.stack([clip.target for clip in some]))
            batches.append((*self.model.prepare([clip.waveform for clip in some]), targets.to(self.model.device)))
        return batches

    def _ask(self, point: Pruning) -> Answer:
        if self._batches is None:
            self._batches = self._read()
        model, found = self.model.at(point), []
        for values, lengths, _ in self._batches:
            found.append(model.logits(values, lengths).float()[:, self._columns])
        logits, targets = torch.cat(found), torch.cat([batch[2] for batch in self._batches])
        if not bool(logits.isfinite().all()):
            raise SpectrimError(f"{model.name}: NaN or infinite scores at {point}")
        if model.config.multi_label:
            loss = functional.binary_cross_entropy_with_logits(logits, targets)
        else:
            loss = functional.cross_entropy(logits, targets.argmax(dim=1))
        metric = METRICS[self.metric](logits.cpu().numpy(), targets.cpu().numpy())
        return Answer(float(loss), float(metric))
