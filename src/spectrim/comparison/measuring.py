"""Scores, kept patches and times of all cases: what the comparison's rows are made of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spectrim.comparison.methods import Case
from spectrim.comparison.patches import Kept, kept_patches
from spectrim.comparison.store import Store, data_fingerprint, digest
from spectrim.data import AudioDataset
from spectrim.data.cache import DECODERS
from spectrim.errors import DataError
from spectrim.inference.backend import Backend
from spectrim.machine import environment
from spectrim.measure.benchmark import interleaved
from spectrim.measure.scoring import Scored, groups_of_clips, score_part
from spectrim.pruning.pruning import Pruning
from spectrim.stats.groups import Groups

Progress = Callable[[str, int, int], object]
"""Called with ``"score"``, ``"patches"`` or ``"time"``, how much is done, and how much there is."""

REST = 0.1
"""Seconds between timed passes where other libraries run models: their threads wait actively for more work."""

Place = tuple[str, Pruning]
"""A case's name, `Case.title`, and one of its points."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What all cases say about the same clips.

    Attributes:
        ids: (clips,) names of the clips that count.
        targets: (clips, labels).
        scores: (case, point) → (clips, labels).
        unreadable: ids of files that cannot be read.
        groups: of the clips that count, None where the data set names none.
    """

    ids: list[str]
    targets: NDArray[np.float32]
    scores: Mapping[Place, NDArray[np.float32]]
    unreadable: list[str]
    groups: Groups | None = None


class Measuring:
    """Measures what the store does not hold yet, and saves it.

    Args:
        models: case → what runs it.
        part: the clips.
        store: of what is measured.
        tell: is told how far it is.
    """

    def __init__(self, models: Mapping[str, Backend], part: AudioDataset, store: Store, tell: Progress) -> None:
        self.models = models
        self.part = part
        self.store = store
        self.tell = tell
        known = {id(model): identity(model, part) for model in {id(model): model for model in models.values()}.values()}
        self.machine = environment(str(next(iter(models.values())).device))
        self._known = {name: known[id(model)] for name, model in models.items()}

    def _settings(self, case: Case, point: Pruning, **further: Any) -> dict[str, Any]:
        return {**self._known[case.title], "point": point.to_flat(), **further}

    def answers(self, cases: Sequence[Case], batch_size: int, workers: int) -> Answers:
        """Scores of all cases on all clips; those of one method are measured in one pass, and saved after it."""
        found: dict[Place, dict[str, NDArray[Any]]] = {}
        missing: dict[str, list[tuple[Case, Pruning]]] = {}
        for case in cases:
            for point in case.points:
                held = self.store.load("scores", self._settings(case, point))
                if held is None:
                    missing.setdefault(case.method, []).append((case, point))
                else:
                    found[case.title, point] = held
        total, done = len(self.part) * len(missing), 0
        for wanted in missing.values():

            def told(clips: int, _: int, before: int = done) -> None:
                self.tell("score", before + clips, total)

            points = list(dict.fromkeys(point for _, point in wanted))
            model = self.models[wanted[0][0].title]
            scored = score_part(model, self.part, points, batch_size=batch_size, workers=workers, on_progress=told)
            for case, point in wanted:
                arrays = _arrays(scored, point)
                self.store.save("scores", self._settings(case, point), arrays)
                found[case.title, point] = arrays
            done += len(self.part)
        return _joined(found, self.part)

    def kept(self, cases: Sequence[Case], clips: int) -> tuple[dict[Pruning, Kept], NDArray[np.int64]]:
        """Which patches the cases keep that select them; see `spectrim.comparison.patches.kept_patches`."""
        points = {point: case for case in cases if case.selects for point in case.points}
        found: dict[Pruning, Kept] = {}
        entering = np.empty(0, dtype=np.int64)
        missing = []
        for point, case in points.items():
            held = self.store.load("patches", self._settings(case, point, clips=clips))
            if held is None:
                missing.append(point)
                continue
            found[point] = np.unpackbits(held["kept"], axis=-1, count=int(held["patches"])).astype(bool)
            entering = held["entering"]
        if missing:
            model = self.models[points[missing[0]].title]
            fresh, entering = kept_patches(model, self.part, missing, clips, partial(self.tell, "patches"))
            for point, kept in fresh.items():
                packed = {"kept": np.packbits(kept, axis=-1), "patches": np.array(kept.shape[-1]), "entering": entering}
                self.store.save("patches", self._settings(points[point], point, clips=clips), packed)
            found |= fresh
        return {point: found[point] for point in points}, entering

    def seconds(self, cases: Sequence[Case], batch_sizes: Sequence[int], repeats: int) -> dict[tuple[int, str], Any]:
        """(batch size, case) → (repeats,) seconds of a pass of the first clips, all cases in turn.

        A case with several random draws is timed at the first of them. Laid out for many passes (`Backend.frozen`).
        """
        parts = [self._settings(case, case.points[0]) for case in cases]
        settings = {"machine": self.machine, "batches": list(batch_sizes), "repeats": repeats, "cases": digest(parts)}
        keys = [(size, case.title) for size in batch_sizes for case in cases]
        held = self.store.load("times", settings)
        if held is not None and held["seconds"].shape == (len(keys), repeats):
            return dict(zip(keys, held["seconds"], strict=True))
        waveforms = [self.part[place % len(self.part)].waveform for place in range(max(batch_sizes))]
        calls: dict[Any, Callable[[], object]] = {}
        frozen: dict[int, tuple[Backend, Any]] = {}
        for case in cases:
            model = self.models[case.title]
            if id(model) not in frozen:
                frozen[id(model)] = model.frozen(), model.prepare(waveforms)
            runs, (values, lengths) = frozen[id(model)]
            point = runs.at(case.points[0])
            for size in batch_sizes:
                calls[size, case.title] = partial(point.logits, values[:size], lengths[:size])
        device = next(iter(self.models.values())).device
        wait = partial(torch.cuda.synchronize, device) if device.type == "cuda" else None
        calls = {key: calls[key] for key in keys}
        rest = REST if any(model.packages for model in self.models.values()) else 0.0
        told = partial(self.tell, "time")
        times = interleaved(calls, repeats=repeats, synchronise=wait, on_round=told, rest=rest, shuffle=0)
        self.store.save("times", settings, {"seconds": np.array([times[key] for key in keys])})
        return {key: np.array(times[key]) for key in keys}


def identity(model: Backend, part: AudioDataset) -> dict[str, Any]:
    """Tells a model, what runs it, and clips from any others: beside an operating point, what scores follow from."""
    machine = environment(str(model.device), *DECODERS, *model.packages)
    return {
        "model": model.fingerprint(),
        "precision": model.precision,
        "device": machine["device"],
        "versions": machine["versions"],
        "data": data_fingerprint(part),
    }


def _arrays(scored: Scored, point: Pruning) -> dict[str, NDArray[Any]]:
    return {
        "scores": scored.scores[point],
        "targets": scored.targets,
        "ids": np.array(scored.ids, dtype=np.str_),
        "unreadable": np.array(scored.unreadable, dtype=np.str_),
    }


def _joined(found: Mapping[Place, Mapping[str, NDArray[Any]]], part: AudioDataset) -> Answers:
    """All scores, once it is sure that they are of the same clips."""
    first = next(iter(found.values()))
    for (title, _), arrays in found.items():
        if not np.array_equal(arrays["ids"], first["ids"]) or not np.array_equal(arrays["targets"], first["targets"]):
            raise DataError(
                f"{title} was measured on other clips than the rest: a file could be read once and not again; "
                "take another output folder"
            )
    scores = {place: arrays["scores"] for place, arrays in found.items()}
    ids = first["ids"].tolist()
    return Answers(ids, first["targets"], scores, first["unreadable"].tolist(), groups_of_clips(part, ids))
