"""A data set through a model, once, at several operating points side by side."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from spectrim.data import AudioDataset, Clip
from spectrim.data.dataset import some
from spectrim.data.whole_groups import groups_of
from spectrim.errors import DataError, InvalidSetting, SpectrimError
from spectrim.inference.backend import Backend
from spectrim.inference.opening import ModelSource, open_model
from spectrim.measure.benchmark import interleaved
from spectrim.pruning.pruning import Pruning
from spectrim.stats.groups import Groups

Progress = Callable[[int, int], object]
"""Called with clips done and clips in all."""


@dataclass(frozen=True, eq=False)
class Scored:
    """What a model said about a data set.

    Attributes:
        ids: (clips,) names of the clips that count, in the order of the data set.
        targets: (clips, labels) float32, labels in the order of the data set.
        scores: operating point → (clips, labels) float32: logits where a clip can have several labels, else logarithms
            of the softmax, which order the clips of a label as the probabilities do.
        milliseconds: operating point → time of a clip, from log-mel to scores, the median over batches of a batch's
            time divided by its clips; None where there were too few batches to tell.
        unreadable: ids of the files that could not be read, whose stand-ins do not count.
        groups: of the clips that count, None where the data set names none.
    """

    ids: list[str]
    targets: NDArray[np.float32]
    scores: Mapping[Pruning, NDArray[np.float32]]
    milliseconds: Mapping[Pruning, float | None]
    unreadable: list[str]
    groups: Groups | None = None


def score_part(
    model: ModelSource,
    part: AudioDataset,
    points: Sequence[Pruning],
    *,
    batch_size: int = 32,
    device: str = "auto",
    workers: int = 0,
    on_progress: Progress | None = None,
) -> Scored:
    """Score every clip of a data set at every operating point.

    Log-mel of a batch is made once and goes through the model at all points in turn, so that what else the machine does
    hits all of them alike. Times are those of whole batches but the first one, which warms up. What is held in memory
    is a few batches and the scores.

    Args:
        model: what `spectrim.inference.opening.open_model` takes; stays as it is. Its own operating point does not
            matter, unless it has no other.
        part: what to score; read at the model's sampling rate.
        points: where.
        batch_size: clips in one forward pass.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        workers: processes that decode; with 0 this one does.
        on_progress: called after each batch.

    Raises:
        InvalidSetting: a setting is out of range, there is no such device or operating point, or the model's labels are
            not those of the data set.
        DataError: too many files cannot be read.
        SpectrimError: a decoding process ended, or a score is NaN or infinite.
    """
    _check(batch_size, workers, points)
    backend = open_model(model, device=device)
    columns = label_columns(backend.labels, part.labels)
    part = part.at_rate(backend.config.sampling_rate)
    scorer = _Scorer(backend, points)
    ids: list[str] = []
    unreadable: list[str] = []
    targets: list[NDArray[np.float32]] = []
    scores: dict[Pruning, list[NDArray[np.float32]]] = {point: [] for point in points}
    done = 0
    for clips in _batches(part, batch_size, workers):
        counted = np.array([not clip.stand_in for clip in clips])
        found = scorer(clips)
        for point, values in found.items():
            if not np.isfinite(values).all():
                where = f"keep rate {point.keep_rate:g}, criterion {point.criterion}"
                raise SpectrimError(f"{clips[0].id} or one of {len(clips) - 1} after it: NaN or infinite at {where}")
            scores[point].append(values[counted][:, columns])
        targets.append(np.stack([clip.target for clip in clips])[counted])
        ids += [clip.id for clip in clips if not clip.stand_in]
        places = range(done, done + len(clips))
        unreadable += [part.recordings[place].id for place, usable in zip(places, counted, strict=True) if not usable]
        done += len(clips)
        if on_progress is not None:
            on_progress(done, len(part))
    joined = {point: np.concatenate(values) for point, values in scores.items()}
    times = scorer.milliseconds(batch_size)
    return Scored(ids, np.concatenate(targets), joined, times, unreadable, groups_of_clips(part, ids))


def groups_of_clips(part: AudioDataset, ids: Sequence[str]) -> Groups | None:
    """The groups of some clips of a data set, by their names; None where none of them has one."""
    recordings = {recording.id: recording for recording in part.recordings}
    names = groups_of([recordings[name] for name in ids])
    return None if names is None else Groups.named(names)


def _check(batch_size: int, workers: int, points: Sequence[Pruning]) -> None:
    """Raise `InvalidSetting` for what cannot be."""
    for name, value, least in (("batch_size", batch_size, 1), ("workers", workers, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InvalidSetting(name, value, f"a whole number from {least}")
    if not points:
        raise InvalidSetting("points", points, "at least one operating point")


def label_columns(of_model: Sequence[str], of_data: Sequence[str]) -> NDArray[np.int64]:
    """(labels,) places of a data set's labels among a model's.

    Raises:
        InvalidSetting: they are not the same labels, in whatever order; names some that only one side has.
    """
    only_model = [label for label in of_model if label not in set(of_data)]
    only_data = [label for label in of_data if label not in set(of_model)]
    if only_model or only_data or len(of_model) != len(of_data):
        unknown = f"of which it does not know {some(only_data, 3)}"
        which = unknown if only_data else f"such as {some(of_data, 3)}, in any order"
        raise InvalidSetting(
            "labels of the model",
            f"{len(of_model)} labels such as {some(only_model or of_model, 3)}",
            f"the data set's {len(of_data)}, {which}",
        )
    places = {label: place for place, label in enumerate(of_model)}
    return np.array([places[label] for label in of_data], dtype=np.int64)


def check_measurable(part: AudioDataset, name: str) -> None:
    """Raise `InvalidSetting` where no metric can tell models apart on a part, ``name``: all clips are alike."""
    if (reason := part.not_measurable) is not None:
        allowed = f"one with clips that have a label and clips that do not, for {part.metric}; here {reason}"
        raise InvalidSetting("part", name, allowed)


class _Scorer:
    """Clips in, scores at every point out, with a clock beside."""

    def __init__(self, model: Backend, points: Sequence[Pruning]) -> None:
        self.model = model
        self.at = {point: model.at(point) for point in points}
        self.seconds: list[tuple[int, dict[Pruning, list[float]]]] = []

    def __call__(self, clips: Sequence[Clip]) -> dict[Pruning, NDArray[np.float32]]:
        """Scores (clips, model's labels) at each point."""
        scores: dict[Pruning, Tensor] = {}
        heard = self.model.prepare([clip.waveform for clip in clips])
        cases: dict[Any, Callable[[], object]] = {point: partial(self._run, scores, point, *heard) for point in self.at}
        device = self.model.device
        wait = partial(torch.cuda.synchronize, device) if device.type == "cuda" else None
        self.seconds.append((len(clips), interleaved(cases, repeats=1, warmup=0, synchronise=wait)))
        return {point: values.float().cpu().numpy() for point, values in scores.items()}

    def _run(self, scores: dict[Pruning, Tensor], point: Pruning, values: Tensor, lengths: Tensor) -> None:
        logits = self.at[point].logits(values, lengths)
        scores[point] = logits if self.model.config.multi_label else logits.log_softmax(dim=-1)

    def milliseconds(self, batch_size: int) -> dict[Pruning, float | None]:
        """Median time of a clip in the whole batches after the first."""
        timed = [seconds for clips, seconds in self.seconds[1:] if clips == batch_size]
        if not timed:
            return dict.fromkeys(self.at)
        return {point: 1e3 * statistics.median(one[point][0] for one in timed) / batch_size for point in self.at}


class _Reading(Dataset[Clip | DataError]):
    """The clips of a part, and an error as a value: a decoding process could not raise it in one piece."""

    def __init__(self, part: AudioDataset) -> None:
        self.part = part

    def __len__(self) -> int:
        return len(self.part)

    def __getitem__(self, index: int) -> Clip | DataError:
        try:
            return self.part[index]
        except DataError as error:
            return error


def _batches(part: AudioDataset, batch_size: int, workers: int) -> Any:
    """Lists of clips in order, decoded by torch's DataLoader."""
    loader = iter(DataLoader(_Reading(part), batch_size=batch_size, num_workers=workers, collate_fn=list))
    for _ in range(math.ceil(len(part) / batch_size)):
        try:
            clips = next(loader)
        except RuntimeError as error:
            raise SpectrimError(f"a decoding process ended ({error}); try workers=0 to see at which file") from error
        for clip in clips:
            if isinstance(clip, DataError):
                raise clip
        yield clips
