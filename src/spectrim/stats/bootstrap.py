"""Means over clips with their bootstrap intervals, many quantities in one pass.

Every reported mean is a ratio of two sums over clips (see `spectrim.stats.ratios`). Drawing clips with replacement
means drawing how often each clip counts, so the sums of all resamples are one matrix product, (resamples, clips) @
(clips, quantities), in batches. `scipy.stats.bootstrap` gives the same intervals, but gathers every clip of every
quantity in every resample. Where clips come in groups that are not independent, whole groups are drawn; see
`spectrim.stats.groups`.

`draw_counts` is the only place that draws; `spectrim.stats.paired` builds intervals of differences on it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from spectrim.errors import InputShapeError, InvalidSetting
from spectrim.stats.groups import Groups
from spectrim.stats.ratios import Ratio, divide_or_nan

RESAMPLES = 2000
CONFIDENCE = 0.95
ENTRIES_AT_ONCE = 1 << 22
"""Counts of clips held at once while drawing: 32 MB."""


class Estimate(NamedTuple):
    """A mean over clips with its interval; ``mean``, ``low`` and ``high`` are (...) float64.

    Attributes:
        mean: the mean, or pooled ratio; NaN where no clip has the quantity.
        low: lower end of the interval.
        high: its upper end.
        clips: (...) int64 clips that have the quantity.
        confidence: share of such intervals that hold the true value.
    """

    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    clips: NDArray[np.int64]
    confidence: float


def draw_counts(clips: int, resamples: int, seed: int, groups: Groups | None = None) -> Iterator[NDArray[np.int64]]:
    """Draw clips, or groups of them, with replacement, ``resamples`` times.

    Args:
        clips: how many there are.
        resamples: how many times to draw as many; of G groups G − 1.
        seed: with the same seed and number of clips, or of groups, the same ones are drawn.
        groups: of the clips, which are then drawn whole.

    Raises:
        InputShapeError: the groups are of more or fewer clips.

    Yields:
        (draws, clips): how often each clip was drawn in each of some resamples; about `ENTRIES_AT_ONCE` numbers.
    """
    if groups is not None and len(groups.numbers) != clips:
        raise InputShapeError(f"groups are of {len(groups.numbers)} clips; wanted: of the {clips} that are drawn from")
    generator = np.random.default_rng(seed)
    at_once = max(1, ENTRIES_AT_ONCE // clips)
    units, size = (clips, clips) if groups is None else (groups.number, groups.number - 1)
    for begin in range(0, resamples, at_once):
        draws = min(at_once, resamples - begin)
        drawn = generator.integers(units, size=(draws, size))
        drawn += np.arange(draws)[:, None] * units
        counts = np.bincount(drawn.ravel(), minlength=draws * units).reshape(draws, units)
        yield counts if groups is None else counts[:, groups.numbers]


def bootstrap(
    ratio: Ratio,
    *,
    groups: Groups | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
) -> Estimate:
    """Mean and percentile interval (Efron & Tibshirani, 1993, §13.3) of every quantity, clips drawn with replacement.

    All quantities use the same resamples. Resamples in which no clip has a quantity are left out for that quantity. The
    interval of a quantity that fewer than two clips have is NaN. Where there are groups, they are drawn, and the ends
    are those of `spectrim.stats.groups`.

    Args:
        ratio: (clips, ...).
        groups: of the clips that are not independent.
        seed: of the draws; the same seed gives the same interval.
        resamples: how many.
        confidence: of the interval, in (0, 1).

    Raises:
        InputShapeError: the two parts of ``ratio`` differ in shape, there are no clips, or the groups are of others.
        InvalidSetting: ``resamples`` or ``confidence`` is out of range.
    """
    numerator, denominator, shape = flat_ratio(ratio, resamples, confidence)
    drawn = resampled_ratios(numerator, denominator, seed, resamples, groups)
    mean = divide_or_nan(numerator.sum(axis=0), denominator.sum(axis=0))
    return estimate(mean, drawn, denominator != 0, confidence, shape, groups)


def flat_ratio(
    ratio: Ratio, resamples: int, confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[int, ...]]:
    """Check the arguments of `bootstrap`; both parts of the ratio as (clips, quantities), and the quantities' shape."""
    top, bottom = np.asarray(ratio.top, dtype=np.float64), np.asarray(ratio.bottom, dtype=np.float64)
    if top.shape != bottom.shape or top.ndim == 0 or len(top) == 0:
        raise InputShapeError(f"a ratio has shapes {top.shape} and {bottom.shape}; wanted: one, (1 or more clips, ...)")
    if resamples < 1:
        raise InvalidSetting("resamples", resamples, "1 or more")
    if not 0.0 < confidence < 1.0:
        raise InvalidSetting("confidence", confidence, "a number between 0 and 1")
    columns = math.prod(top.shape[1:])
    return top.reshape(len(top), columns), bottom.reshape(len(top), columns), top.shape[1:]


def resampled_ratios(
    top: NDArray[np.float64],
    bottom: NDArray[np.float64],
    seed: int,
    resamples: int,
    groups: Groups | None = None,
) -> NDArray[np.float64]:
    """Ratios (resamples, quantities) of the sums of ``top`` and ``bottom``, (clips, quantities) each."""
    batches = (counts.astype(np.float64) for counts in draw_counts(len(top), resamples, seed, groups))
    return np.concatenate([divide_or_nan(counts @ top, counts @ bottom) for counts in batches])


def estimate(
    mean: NDArray[np.float64],
    drawn: NDArray[np.float64],
    known: NDArray[np.bool_],
    confidence: float,
    shape: tuple[int, ...],
    groups: Groups | None = None,
) -> Estimate:
    """The interval of each column of what was drawn, (resamples, quantities); NaN is left out.

    Args:
        mean: (quantities,).
        drawn: (resamples, quantities).
        known: (clips, quantities) whether a clip has each.
        confidence: of the intervals.
        shape: that the quantities get in the result.
        groups: that were drawn; None for clips. The reach of an interval is that of the groups that have the quantity.
    """
    clips = np.count_nonzero(known, axis=0)
    if groups is None:
        ends = _percentiles(drawn, confidence)
        ends[:, clips < 2] = np.nan
    else:
        ends = np.full((2, drawn.shape[1]), np.nan)
        having = [groups.of_clips(column) for column in known.T]
        several = np.array([some.number > 1 for some in having], dtype=bool)
        those = [groups if some.number == groups.number else some for some in having if some.number > 1]
        reach = np.array([some.reach(confidence) for some in those]) * np.nanstd(drawn[:, several], axis=0, ddof=1)
        ends[:, several] = mean[several] - reach, mean[several] + reach
    low, high = ends
    return Estimate(mean.reshape(shape), low.reshape(shape), high.reshape(shape), clips.reshape(shape), confidence)


def _percentiles(drawn: NDArray[np.float64], confidence: float) -> NDArray[np.float64]:
    """Both ends, (2, quantities), of what was drawn, (resamples, quantities); NaN where nothing was."""
    shares = [(1 - confidence) / 2, (1 + confidence) / 2]
    complete = ~np.isnan(drawn).any(axis=0)
    ends = np.full((2, drawn.shape[1]), np.nan)
    ends[:, complete] = np.quantile(drawn[:, complete], shares, axis=0)
    for column in np.flatnonzero(~complete):
        known = drawn[~np.isnan(drawn[:, column]), column]
        if len(known):
            ends[:, column] = np.quantile(known, shares)
    return ends
