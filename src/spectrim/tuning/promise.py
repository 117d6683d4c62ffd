"""What can be said of the chosen point on clips that nothing was chosen on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from spectrim.measure.metric_intervals import clip_contrasts, standings
from spectrim.measure.metrics import METRICS, chance_level, right_clips
from spectrim.stats.bounds import CONFIDENCE, clips_for_bound, drop_bound
from spectrim.stats.ground import Interval, beats

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


def bound_of(dense: Scores, pruned: Scores, targets: Scores, metric: str, wanted: float, resamples: int) -> Bound:
    """Bound what pruning loses: exactly for accuracy, by bootstrap for mAP.

    Args:
        dense: (clips, labels) scores of the dense model.
        pruned: of the pruned one.
        targets: (clips, labels).
        metric: ``"accuracy"`` or ``"mAP"``.
        wanted: the bound that is asked after, a share.
        resamples: of the bootstrap.
    """
    clips = len(targets)
    drop = METRICS[metric](dense, targets) - METRICS[metric](pruned, targets)
    if metric == "accuracy":
        before, after = right_clips(dense, targets), right_clips(pruned, targets)
        lost, gained = int((before & ~after).sum()), int((after & ~before).sum())
        most = drop_bound(lost, gained, clips)
        needed = clips_for_bound(lost, gained, clips, wanted)
        how = "exact: Clopper and Pearson's ends of what is lost and what is won"
        return Bound(drop, most, CONFIDENCE, how, clips, lost, gained, wanted, needed)
    ends = clip_contrasts(
        [dense, pruned], targets, metric, np.array([[1.0, -1.0]]), resamples=resamples, confidence=2 * CONFIDENCE - 1
    )
    high = float(ends.high[0])
    how = f"{resamples} paired bootstrap resamples of the clips"
    if not math.isfinite(high) or high <= drop:
        return Bound(drop, None, CONFIDENCE, f"{how}, which do not differ", clips, None, None, wanted, None)
    needed = math.ceil(clips * ((high - drop) / (wanted - drop)) ** 2) if wanted > drop else None
    return Bound(drop, high, CONFIDENCE, how, clips, None, None, wanted, needed)


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
    dense: Scores, chosen: Scores, draws: Sequence[Scores], targets: Scores, metric: str, resamples: int
) -> AgainstRandom:
    """Whether a ranking is better than none, on clips that nothing was chosen on; scores are (clips, labels)."""
    first, random, found = standings([[dense], draws, [chosen]], targets, metric, (0, 0, 1), resamples=resamples)
    over = found.over
    said, why = beats(over, len(targets), first.value, chance_level(targets, metric))
    return AgainstRandom(over, said, why, len(draws), random.value.value)
