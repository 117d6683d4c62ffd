"""Do different methods keep the same patches? Share of kept patches in common, beside what chance gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import hypergeom

from spectrim.comparison.methods import Case
from spectrim.data import AudioDataset
from spectrim.data.dataset import spread_places
from spectrim.errors import DataError
from spectrim.inference.backend import Backend
from spectrim.pruning.pruning import Pruning
from spectrim.stats.bootstrap import bootstrap
from spectrim.stats.ratios import clip_mean

TRACED = 100
"""Clips whose kept patches are compared."""

BATCH = 8

Kept = NDArray[np.bool_]
"""(clips, pruning blocks, patches): which of the patches go on as they are after each pruning block."""


def kept_patches(
    model: Backend,
    part: AudioDataset,
    points: Sequence[Pruning],
    clips: int = TRACED,
    on_progress: Callable[[int, int], object] | None = None,
) -> tuple[dict[Pruning, Kept], NDArray[np.int64]]:
    """Which patches are kept of clips that lie evenly over a data set.

    Args:
        model: what runs.
        part: the data set.
        points: where.
        clips: at most so many.
        on_progress: called with clips done and clips in all.

    Returns:
        point → what is kept, and (clips,) how many patches enter block 0.

    Raises:
        DataError: none of these clips can be read.
    """
    places = spread_places(clips, len(part))
    found: dict[Pruning, list[Kept]] = {point: [] for point in points}
    entering = []
    for start in range(0, len(places), BATCH):
        chosen = places[start : start + BATCH]
        batch = [clip for clip in map(part.__getitem__, chosen) if not clip.stand_in]
        if not batch:
            continue
        heard = model.prepare([clip.waveform for clip in batch])
        for number, point in enumerate(points):
            trace = model.at(point).trace(*heard)
            kept = torch.stack([trace.kept[block] for block in sorted(point.at)], dim=1)
            found[point].append(kept.flatten(2).cpu().numpy())
            if number == 0:
                entering.append((~trace.scores[0].isnan()).flatten(1).sum(dim=1).cpu().numpy())
        if on_progress is not None:
            on_progress(start + len(chosen), len(places))
    if points and not entering:
        raise DataError(
            f"none of the {len(places)} clips whose kept patches are compared can be read; take more of them"
        )
    joined = {point: np.concatenate(parts) for point, parts in found.items()}
    return joined, np.concatenate(entering) if entering else np.empty(0, dtype=np.int64)


def overlap(first: Kept, second: Kept) -> NDArray[np.float64]:
    """(clips, blocks) patches that both keep over those that either keeps (Jaccard, 1912); 1 where neither has any."""
    both, either = (first & second).sum(axis=-1), (first | second).sum(axis=-1)
    return np.divide(both, either, out=np.ones(both.shape), where=either > 0)


@lru_cache(maxsize=4096)
def chance_overlap(patches: int, first: int, second: int) -> float:
    """The same expected of two independent choices at random, of ``first`` and ``second`` out of so many patches.

    The number in common is hypergeometric; its share of the union is averaged over that distribution.
    """
    if not first or not second:
        return 1.0 if first == second else 0.0
    common = np.arange(max(0, first + second - patches), min(first, second) + 1)
    chances = hypergeom.pmf(common, patches, first, second)
    return float((chances * common / (first + second - common)).sum())


def agreement_rows(
    cases: Sequence[Case], kept: Mapping[Pruning, Kept], entering: NDArray[np.int64], seed: int = 0
) -> list[dict[str, Any]]:
    """How far each two methods keep the same patches, at each keep rate and pruning block.

    Random draws are compared one by one, a method with itself only where it has several, and a clip's mean counts.

    Args:
        cases: those whose points are in ``kept`` are compared.
        kept: point → (clips, blocks, patches).
        entering: (clips,) patches that enter block 0.
        seed: of the bootstrap over clips.

    Returns:
        One row a pair, keep rate and block: keep_rate, block, first, second (methods), overlap (mean over clips) with
        overlap_low and overlap_high (95 %; None where it is the same for all clips), at_random (what two independent
        random choices of as many patches have in common), and kept (mean share of the patches that the two keep).
    """
    known = [case for case in cases if all(point in kept for point in case.points)]
    rows = []
    for first, second in combinations_with_replacement(known, 2):
        if first.keep_rate != second.keep_rate or (first is second and len(first.points) < 2):
            continue
        pairs = [
            (kept[one], kept[other])
            for i, one in enumerate(first.points)
            for j, other in enumerate(second.points)
            if first is not second or i < j
        ]
        shares = np.mean([overlap(*pair) for pair in pairs], axis=0)
        expected = np.mean([_expected(*pair, entering) for pair in pairs], axis=0)
        sizes = np.mean([(one.sum(axis=-1) + other.sum(axis=-1)) / 2 for one, other in pairs], axis=0)
        for place, block in enumerate(sorted(first.points[0].at)):
            values = shares[:, place]
            ends = bootstrap(clip_mean(values), seed=seed)
            known_ends = len(values) > 1 and float(ends.low) < float(ends.high)
            rows.append(
                {
                    "keep_rate": first.keep_rate,
                    "block": block,
                    "first": first.method,
                    "second": second.method,
                    "overlap": float(values.mean()),
                    "overlap_low": float(ends.low) if known_ends else None,
                    "overlap_high": float(ends.high) if known_ends else None,
                    "at_random": float(expected[:, place].mean()),
                    "kept": float((sizes[:, place] / entering).mean()),
                }
            )
    return rows


def _expected(first: Kept, second: Kept, entering: NDArray[np.int64]) -> NDArray[np.float64]:
    """(clips, blocks) what chance gives for as many patches."""
    sizes = zip(first.sum(axis=-1), second.sum(axis=-1), entering, strict=True)
    return np.array(
        [
            [chance_overlap(int(n), int(a), int(b)) for a, b in zip(ours, theirs, strict=True)]
            for ours, theirs, n in sizes
        ]
    )
