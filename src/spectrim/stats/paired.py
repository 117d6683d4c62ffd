"""Intervals of differences between runs over the same clips: every resample draws the same clips for all of them.

So what makes a clip hard for all runs does not widen the interval of the difference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from spectrim.errors import InputShapeError
from spectrim.stats.bootstrap import (
    CONFIDENCE,
    RESAMPLES,
    Estimate,
    draw_counts,
    estimate,
    flat_ratio,
    resampled_ratios,
)
from spectrim.stats.groups import Groups
from spectrim.stats.ratios import Ratio, divide_or_nan


def bootstrap_difference(
    first: Ratio,
    second: Ratio,
    *,
    groups: Groups | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """``first − second`` with its interval, for two runs over the same clips in the same order.

    Arguments and errors as for `spectrim.stats.bootstrap.bootstrap`; the two must have the same shape. ``clips`` of the
    result counts those that have the quantity in both.
    """
    top, bottom, shape = flat_ratio(first, resamples, confidence)
    other_top, other_bottom, other_shape = flat_ratio(second, resamples, confidence)
    if top.shape != other_top.shape or shape != other_shape:
        raise InputShapeError(
            f"the runs have shapes {first.top.shape} and {second.top.shape}; wanted: the same clips and quantities"
        )
    drawn = resampled_ratios(top, bottom, seed, resamples, groups)
    drawn -= resampled_ratios(other_top, other_bottom, seed, resamples, groups)
    mean = divide_or_nan(top.sum(axis=0), bottom.sum(axis=0)) - divide_or_nan(
        other_top.sum(axis=0), other_bottom.sum(axis=0)
    )
    return estimate(mean, drawn, (bottom != 0) & (other_bottom != 0), confidence, shape, groups)


class PairedIntervals(NamedTuple):
    """Ends of the intervals of a metric of several runs, and of its change from the first run; (runs,) each.

    NaN where there is only one clip, or one group.

    Attributes:
        low: lower ends for the metric.
        high: upper ends.
        change_low: lower ends for the metric minus that of the first run.
        change_high: upper ends.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    change_low: NDArray[np.float64]
    change_high: NDArray[np.float64]


def paired_intervals(
    metric_of: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    clips: int,
    *,
    groups: Groups | None = None,
    resamples: int,
    seed: int = 0,
    confidence: float = CONFIDENCE,
    percentile: bool = True,
) -> PairedIntervals:
    """Bootstrap intervals of any metric of several runs over the same clips, and of its change from the first run.

    The same clips as `scipy.stats.bootstrap` draws with the same seed; its intervals, to float rounding.

    Args:
        metric_of: takes (draws, clips), how often each clip counts; gives the metric of each run, (runs, draws).
        clips: how many.
        groups: of the clips that are not independent; drawn whole, the ends those of `spectrim.stats.groups`.
        resamples: how many, 2 or more.
        seed: of the draws; the same seed gives the same intervals.
        confidence: of the intervals.
        percentile: percentiles of the resamples (Efron & Tibshirani, 1993, §13.3); else the value itself ± the normal
            quantile times the standard error of the resamples (§12.4), for metrics whose resamples are biased. Where
            there are groups, always the latter, by Student's quantile.
    """
    runs = len(metric_of(np.ones((1, clips), dtype=np.int64)))
    each = np.eye(runs)
    contrasts = np.concatenate([each, each - each[:1]])
    ends = contrast_intervals(
        metric_of,
        clips,
        contrasts,
        groups=groups,
        resamples=resamples,
        seed=seed,
        confidence=confidence,
        percentile=percentile,
    )
    return PairedIntervals(ends.low[:runs], ends.high[:runs], ends.low[runs:], ends.high[runs:])


class Ends(NamedTuple):
    """Ends of intervals, (quantities,) each; NaN where there is only one clip, or one group."""

    low: NDArray[np.float64]
    high: NDArray[np.float64]


def contrast_intervals(
    metric_of: Callable[[NDArray[np.int64]], NDArray[np.float64]],
    clips: int,
    contrasts: NDArray[np.float64],
    *,
    groups: Groups | None = None,
    draws: Sequence[Sequence[int]] = (),
    resamples: int,
    seed: int = 0,
    confidence: float = CONFIDENCE,
    percentile: bool = True,
) -> Ends:
    """Bootstrap intervals of weighted sums of a metric of several runs over the same clips.

    A row of ``contrasts`` is one quantity: a run itself, the difference of two, or of one and the mean of several.

    Where some runs are random draws of one thing, and all clips see the same draw, clips alone would not tell how much
    it matters which draws were made. So the draws are resampled too: of D, D − 1 with replacement, which leaves the
    variance of their mean unbiased (Rao & Wu, 1988, with n − 1 of n).

    Args:
        metric_of, clips, groups, resamples, seed, confidence, percentile: as for `paired_intervals`.
        contrasts: (quantities, runs), weights of the runs' metrics in each quantity.
        draws: groups of runs, by number, that are draws of one thing; two at least in each, equally weighted.

    Raises:
        InputShapeError: a group of draws has fewer than two runs.
    """
    if any(len(group) < 2 for group in draws):
        raise InputShapeError("one random draw does not tell how much draws differ; wanted: two or more in a group")
    if clips < 2 or (groups is not None and groups.number < 2):
        return Ends(*np.full((2, len(contrasts)), np.nan))
    generator = np.random.default_rng([seed, 1])
    drawn = []
    for counts in draw_counts(clips, resamples, seed, groups):
        values = metric_of(counts)
        for group in draws:
            some = generator.multinomial(len(group) - 1, np.full(len(group), 1 / len(group)), size=len(counts))
            values[list(group)] *= some.T * (len(group) / (len(group) - 1))
        drawn.append(contrasts @ values)
    found = np.concatenate(drawn, axis=1)
    if percentile and groups is None:
        return Ends(*np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2], axis=1))
    middle = contrasts @ metric_of(np.ones((1, clips), dtype=np.int64))[:, 0]
    quantile = norm.ppf((1 + confidence) / 2) if groups is None else groups.reach(confidence)
    reach = quantile * np.std(found, axis=1, ddof=1)
    return Ends(middle - reach, middle + reach)
