"""Bootstrap intervals over clips, or groups of them, of the metrics of a model, paired between operating points.

`spectrim.stats.paired` draws the clips; here the metric of many draws is computed at once, from how often each clip was
drawn: one sort of the scores serves all draws, where scikit-learn would sort anew for each draw and label.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spectrim.errors import InvalidSetting, one_of
from spectrim.measure.metrics import METRICS, right_clips
from spectrim.stats.bootstrap import CONFIDENCE
from spectrim.stats.ground import Interval
from spectrim.stats.groups import Groups, drawn
from spectrim.stats.paired import Ends, PairedIntervals, contrast_intervals, paired_intervals

RESAMPLES = 1000
"""Half of `spectrim.stats.bootstrap.RESAMPLES`: average precision of many labels takes its time."""

Scores = NDArray[np.floating]
Counts = NDArray[np.float32]


def clip_intervals(
    scores: Sequence[Scores],
    targets: Scores,
    metric: str,
    *,
    groups: Groups | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> PairedIntervals:
    """95 % intervals over clips of a metric and of its change from the first set of scores.

    Each resample draws the same clips for all sets. For accuracy the ends are percentiles of the resamples. For mAP
    they lie 1.96 standard errors of the resamples from the value itself: a positive clip that is drawn twice raises its
    label's average precision, so that the resamples lie too high, the more so the rarer the labels are, and their
    percentiles can miss the very value. A label without a positive clip in a resample is left out of that resample's
    mAP. Where clips come in groups that are not independent, whole groups are drawn, and for both metrics the ends lie
    Student's quantile times the standard error of the resamples from the value; see `spectrim.stats.groups`.

    Args:
        scores: sets of (clips, labels), e.g. of one model at several keep rates, the dense one first.
        targets: (clips, labels) of 0 and 1.
        metric: name in `spectrim.measure.metrics.METRICS`.
        groups: of the clips, e.g. speakers; None where clips are independent.
        resamples: how many.
        seed: of the draws; the same seed gives the same intervals.

    Raises:
        InvalidSetting: unknown metric, or fewer than two resamples.
    """
    metric_of = _resampled_metric(scores, targets, metric, resamples)
    percentile = metric == "accuracy"
    return paired_intervals(
        metric_of, len(targets), groups=groups, resamples=resamples, seed=seed, percentile=percentile
    )


def clip_contrasts(
    scores: Sequence[Scores],
    targets: Scores,
    metric: str,
    contrasts: NDArray[np.float64],
    *,
    groups: Groups | None = None,
    draws: Sequence[Sequence[int]] = (),
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = CONFIDENCE,
) -> Ends:
    """The same intervals of weighted sums of the metric of several sets of scores.

    Args:
        scores, targets, metric, groups, resamples, seed: as for `clip_intervals`.
        contrasts, draws, confidence: see `spectrim.stats.paired.contrast_intervals`; a run is a set of scores.

    Raises:
        InvalidSetting, InputShapeError: as these two.
    """
    metric_of = _resampled_metric(scores, targets, metric, resamples)
    return contrast_intervals(
        metric_of,
        len(targets),
        contrasts,
        groups=groups,
        draws=draws,
        resamples=resamples,
        seed=seed,
        confidence=confidence,
        percentile=metric == "accuracy",
    )


class Standing(NamedTuple):
    """A metric with its interval, and its paired differences from the first way and from another one."""

    value: Interval
    change: Interval
    over: Interval


def standings(
    ways: Sequence[Sequence[Scores]],
    targets: Scores,
    metric: str,
    others: Sequence[int],
    *,
    groups: Groups | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Standing]:
    """Where each of several ways to score the same clips stands, with 95 % intervals.

    Args:
        ways: sets of scores (clips, labels) of each way; several where it was drawn several times, and then the mean
            of their metrics counts, with the luck of the draws in its intervals. The first way is the dense model.
        targets, metric, groups, resamples, seed: as for `clip_intervals`.
        others: number of the way that each one is compared with beside the first.

    Raises:
        InvalidSetting, InputShapeError: as `clip_contrasts`.
    """
    sets = [scores for way in ways for scores in way]
    ends = np.cumsum([0, *(len(way) for way in ways)])
    places = [range(start, stop) for start, stop in itertools.pairwise(ends.tolist())]
    means = np.zeros((len(ways), len(sets)))
    for row, way in zip(means, places, strict=True):
        row[list(way)] = 1 / len(way)
    contrasts = np.concatenate([means, means - means[:1], means - means[list(others)]])
    draws = [way for way in places if len(way) > 1]
    found = clip_contrasts(sets, targets, metric, contrasts, groups=groups, draws=draws, resamples=resamples, seed=seed)
    values = contrasts @ np.array([METRICS[metric](each, targets) for each in sets])
    table = [Interval(*map(float, one)) for one in zip(values, found.low, found.high, strict=True)]
    return [Standing(*table[number :: len(ways)]) for number in range(len(ways))]


def how_made(metric: str, resamples: int, clips: int, groups: Groups | None) -> str:
    """How the intervals of `standings` were made, in words."""
    if groups is not None and groups.worth < 2:
        return f"none: {groups.too_few}"
    if groups is not None:
        how = f"{groups.reach(CONFIDENCE):.2f} standard errors by"
    else:
        how = "percentiles of" if metric == "accuracy" else "1.96 standard errors by"
    return f"95 %, {how} {resamples} bootstrap resamples of {drawn(clips, groups)}"


def _resampled_metric(
    scores: Sequence[Scores], targets: Scores, metric: str, resamples: int
) -> Callable[[NDArray[np.int64]], NDArray[np.float64]]:
    """From how often each clip counts, (draws, clips), to the metric of each set of scores, (sets, draws)."""
    if metric not in METRICS:
        raise InvalidSetting("metric", metric, one_of(METRICS))
    if resamples < 2:
        raise InvalidSetting("resamples", resamples, "2 or more")
    right = np.stack([right_clips(each, targets) for each in scores]).astype(np.float32)

    def metric_of(counts: NDArray[np.int64]) -> NDArray[np.float64]:
        weights = counts.T.astype(np.float32, order="C")
        if metric == "accuracy":
            return (right @ weights).astype(np.float64) / counts.sum(axis=1)
        return _resampled_map(scores, targets, weights)

    return metric_of


def _resampled_map(scores: Sequence[Scores], targets: Scores, counts: Counts) -> NDArray[np.float64]:
    """Mean average precision of each set of scores in each draw, (sets, draws); ``counts`` (clips, draws)."""
    present = np.flatnonzero(targets.any(axis=0) & ~targets.all(axis=0))
    means = np.full((len(scores), counts.shape[1]), np.nan)
    for number, each in enumerate(scores):
        total, defined = np.zeros(counts.shape[1]), np.zeros(counts.shape[1])
        for label in present:
            values = resampled_average_precision(each[:, label], targets[:, label] > 0, counts)
            total += np.nan_to_num(values)
            defined += ~np.isnan(values)
        np.divide(total, defined, out=means[number], where=defined > 0)
    return means


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
    hits_so_far = np.cumsum(hits, axis=0)
    precision = np.divide(hits_so_far, seen, out=np.zeros(hits_so_far.shape), where=seen > 0)
    total = hits_so_far[-1]
    return np.divide((hits * precision).sum(axis=0), total, out=np.full(len(total), np.nan), where=total > 0)
