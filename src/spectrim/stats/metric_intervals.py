"""How sure a metric of one run is: bootstrap intervals over clips, paired between operating points.

`scipy.stats.bootstrap` draws the clips and says how the metric spreads. What it is given here is the metric of many
draws at once, as a function of how often each clip was drawn: for average precision one sort serves all of them, where
scikit-learn would sort anew for each draw and label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from spectrim.errors import InvalidSetting, one_of
from spectrim.measure.metrics import METRICS, right_clips

RESAMPLES = 1000
CONFIDENCE = 0.95
ENTRIES_AT_ONCE = 1 << 22
"""Counts of clips held at once while resampling: 16 MB."""

Scores = NDArray[np.floating]
Counts = NDArray[np.float32]


class Bounds(NamedTuple):
    """Ends of intervals, one a set of scores; NaN where there is but one clip.

    Attributes:
        low: (sets,) lower ends for the metric.
        high: (sets,) upper ends.
        change_low: (sets,) lower ends for the metric minus that of the first set.
        change_high: (sets,) upper ends.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    change_low: NDArray[np.float64]
    change_high: NDArray[np.float64]


def clip_intervals(
    scores: Sequence[Scores], targets: Scores, metric: str, *, resamples: int = RESAMPLES, seed: int = 0
) -> Bounds:
    """95 % intervals over clips of a metric and of its change from the first set of scores.

    Each resample draws the same clips for all sets, so that what makes a clip hard for all of them does not widen the
    interval of the change. For accuracy the ends are percentiles of the resamples (Efron & Tibshirani, 1993, §13.3).
    For mAP they lie 1.96 standard errors of the resamples from the value itself (§12.4, the standard normal interval):
    a positive clip that is drawn twice raises its label's average precision, so that the resamples lie too high, the
    more so the rarer the labels are, and their percentiles can miss the very value. A label without a positive clip in
    a resample is left out of that resample's mAP.

    Args:
        scores: sets of (clips, labels), e.g. of one model at several keep rates, the dense one first.
        targets: (clips, labels) of 0 and 1.
        metric: name in `spectrim.measure.metrics.METRICS`.
        resamples: how many.
        seed: of the resampling; the same one gives the same intervals.

    Raises:
        InvalidSetting: unknown metric, or fewer than two resamples.
    """
    if metric not in METRICS:
        raise InvalidSetting("metric", metric, one_of(METRICS))
    if resamples < 2:
        raise InvalidSetting("resamples", resamples, "2 or more")
    sets, clips = len(scores), len(targets)
    if clips < 2:
        return Bounds(*np.full((4, sets), np.nan))
    right = np.stack([right_clips(one, targets) for one in scores]).astype(np.float32)

    def metrics(draws: NDArray[np.int64], axis: int = -1) -> NDArray[np.float64]:
        """(..., clips) numbers of the drawn clips → (2 · sets, ...), the metrics and their changes."""
        counts = _counts(draws.reshape(-1, clips))
        if metric == "accuracy":
            found = (right @ counts).astype(np.float64) / clips
        else:
            found = _resampled_map(scores, targets, counts)
        values = np.concatenate([found, found - found[:1]])
        return values.reshape(2 * sets, *draws.shape[:-1])

    result = stats.bootstrap(
        (np.arange(clips),), metrics, n_resamples=resamples, batch=max(1, ENTRIES_AT_ONCE // clips), vectorized=True,
        confidence_level=CONFIDENCE, method="percentile", rng=np.random.default_rng(seed),
    )  # fmt: skip
    low, high = (np.asarray(ends, dtype=np.float64) for ends in result.confidence_interval)
    if metric != "accuracy":
        values = metrics(np.arange(clips))
        reach = stats.norm.ppf((1 + CONFIDENCE) / 2) * np.asarray(result.standard_error)
        low, high = values - reach, values + reach
    return Bounds(low[:sets], high[:sets], low[sets:], high[sets:])


def _counts(draws: NDArray[np.int64]) -> Counts:
    """(draws, clips) numbers of clips → (clips, draws): how often each clip was drawn."""
    number, clips = draws.shape
    places = draws + clips * np.arange(number)[:, None]
    return np.bincount(places.ravel(), minlength=number * clips).reshape(number, clips).T.astype(np.float32, order="C")


def _resampled_map(scores: Sequence[Scores], targets: Scores, counts: Counts) -> NDArray[np.float64]:
    """Mean average precision of each set of scores in each draw, (sets, draws)."""
    present = np.flatnonzero(targets.any(axis=0))
    found = np.full((len(scores), counts.shape[1]), np.nan)
    for number, one in enumerate(scores):
        total, defined = np.zeros(counts.shape[1]), np.zeros(counts.shape[1])
        for label in present:
            values = resampled_average_precision(one[:, label], targets[:, label] > 0, counts)
            total += np.nan_to_num(values)
            defined += ~np.isnan(values)
        np.divide(total, defined, out=found[number], where=defined > 0)
    return found


def resampled_average_precision(scores: Scores, positive: NDArray[np.bool_], counts: Counts) -> NDArray[np.float64]:
    """Average precision of one label, as scikit-learn's with the counts as ``sample_weight``, for many draws at once.

    Precision changes only where a positive clip comes in, or with the last of the clips that score the same as it.

    Args:
        scores: (clips,).
        positive: (clips,), at least one of them.
        counts: (clips, draws): how often each clip was drawn.

    Returns:
        (draws,), NaN where no positive clip was drawn.
    """
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    places = np.flatnonzero(positive[order])
    steps, firsts = np.unique(ends[np.searchsorted(ends, places)], return_index=True)
    begins = np.concatenate([[0], steps[:-1] + 1])
    seen = np.cumsum(np.add.reduceat(counts[order[: steps[-1] + 1]], begins, axis=0), axis=0)
    hits = np.add.reduceat(counts[order[places]], firsts, axis=0)
    found = np.cumsum(hits, axis=0)
    precision = np.divide(found, seen, out=np.zeros(found.shape), where=seen > 0)
    total = found[-1]
    return np.divide((hits * precision).sum(axis=0), total, out=np.full(len(total), np.nan), where=total > 0)
