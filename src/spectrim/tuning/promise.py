"""What can be said of the chosen point on clips that nothing was chosen on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectrim.measure.metric_intervals import clip_contrasts, standings
from spectrim.measure.metrics import METRICS, chance_level, right_clips
from spectrim.stats.bounds import CONFIDENCE, clips_for_bound, drop_bound
from spectrim.stats.ground import Interval, beats
from spectrim.stats.groups import Groups, drawn

Scores = NDArray[np.float32]


@dataclass(frozen=True)
class Bound:
    """The most that may be lost.

    Attributes:
        drop: share of the metric that was lost on these clips; negative where something was won.
        most: upper bound of it, None where there is none.
        confidence: share of such bounds that the true loss lies below.
        how: how it was made.
        clips: on which.
        lost, gained: clips that only the dense model, and only the pruned one, gets right; None for mAP.
        wanted: the bound that is asked after, a share.
        clips_needed: from how many clips on, of this kind and with shares as here, the bound is at most ``wanted``;
            None where no number is enough, because as much is lost as that.
        groups: that these clips are of, None where they are independent.
    """

    drop: float
    most: float | None
    confidence: float
    how: str
    clips: int
    lost: int | None
    gained: int | None
    wanted: float
    clips_needed: int | None
    groups: int | None = None


def bound_of(
    dense: Scores,
    pruned: Scores,
    targets: Scores,
    metric: str,
    wanted: float,
    resamples: int,
    groups: Groups | None = None,
) -> Bound:
    """Bound what pruning loses: exactly for accuracy, by bootstrap for mAP; over groups by the higher of the two.

    Args:
        dense: (clips, labels) scores of the dense model.
        pruned: of the pruned one.
        targets: (clips, labels).
        metric: ``"accuracy"`` or ``"mAP"``.
        wanted: the bound that is asked after, a share.
        resamples: of the bootstrap.
        groups: of the clips that are not independent.
    """
    clips = len(targets)
    drop = METRICS[metric](dense, targets) - METRICS[metric](pruned, targets)
    number = None if groups is None else groups.number
    found = Bound(drop, None, CONFIDENCE, "", clips, None, None, wanted, None, number)
    if groups is not None and groups.too_few is not None:
        return replace(found, how=groups.too_few)
    if metric == "accuracy":
        before, after = right_clips(dense, targets), right_clips(pruned, targets)
        lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
        most, needed = drop_bound(lost, gained, clips), clips_for_bound(lost, gained, clips, wanted)
        how = "exact: Clopper and Pearson's ends of what is lost and what is won"
        found = replace(found, most=most, how=how, lost=lost, gained=gained, clips_needed=needed)
        if groups is None:
            return found
    over: dict[str, Any] = {"groups": groups, "resamples": resamples, "confidence": 2 * CONFIDENCE - 1}
    high = float(clip_contrasts([dense, pruned], targets, metric, np.array([[1.0, -1.0]]), **over).high[0])
    how = f"{resamples} paired bootstrap resamples of {drawn(clips, groups)}"
    if found.most is not None and not high > found.most:
        return replace(found, how=f"{found.how}; higher than by {how}")
    if not math.isfinite(high) or high <= drop:
        return replace(found, how=f"{how}, which do not differ")
    needed = math.ceil(clips * ((high - drop) / (wanted - drop)) ** 2) if wanted > drop else None
    return replace(found, most=high, how=how, clips_needed=needed)


@dataclass(frozen=True)
class AgainstRandom:
    """The chosen point beside random pruning at the same blocks and rates.

    Attributes:
        over: difference of the metric, with its paired interval, in which the luck of the draws is.
        said: ``"better"``, ``"worse"``, ``"no better"`` or ``"cannot say"``.
        why: reason for the last.
        draws: random tables.
        random: mean metric of random pruning.
    """

    over: Interval
    said: str
    why: str | None
    draws: int
    random: float


def against_random(
    dense: Scores,
    chosen: Scores,
    draws: Sequence[Scores],
    targets: Scores,
    metric: str,
    resamples: int,
    groups: Groups | None = None,
) -> AgainstRandom:
    """Whether a ranking is better than none, on clips that nothing was chosen on; scores are (clips, labels)."""
    ways = [[dense], draws, [chosen]]
    first, random, found = standings(ways, targets, metric, (0, 0, 1), groups=groups, resamples=resamples)
    over = found.over
    said, why = beats(over, len(targets), first.value, chance_level(targets, metric), groups=groups)
    return AgainstRandom(over, said, why, len(draws), random.value.value)
