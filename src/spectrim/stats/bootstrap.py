"""Means over clips with their bootstrap intervals, many quantities in one pass.

Every reported mean is a ratio of two sums over clips: a mean over clips divides a sum by the number of clips for which
the quantity exists, a pooled share divides patches by patches. Resampling clips with replacement is drawing how often
each clip counts, so that the sums of all resamples are one matrix product, (resamples, clips) @ (clips, quantities), in
batches. `scipy.stats.bootstrap` gives the same intervals, but gathers every clip of every quantity in every resample.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectrim.errors import InputShapeError, InvalidSetting
from spectrim.stats.ratios import quotient

RESAMPLES = 2000
CONFIDENCE = 0.95
ENTRIES_AT_ONCE = 1 << 22
"""Counts of clips held at once while resampling: 32 MB."""


class Ratio(NamedTuple):
    """Two numbers a clip and quantity, whose sums over clips are divided.

    Attributes:
        top: (clips, ...) float64.
        bottom: (clips, ...) float64; 0, as in ``top``, where a quantity does not exist for a clip.
    """

    top: NDArray[np.float64]
    bottom: NDArray[np.float64]

    def of_clips(self, index: NDArray[np.generic]) -> Ratio:
        """The same of some clips, by number or by mask."""
        return Ratio(self.top[index], self.bottom[index])


class Estimate(NamedTuple):
    """A mean over clips with its interval; every field but ``clips`` and ``confidence`` is (...) float64.

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


def clip_mean(values: ArrayLike) -> Ratio:
    """A plain mean over clips as a `Ratio`: (clips, ...) values, NaN where a clip has none."""
    given = np.asarray(values, dtype=np.float64)
    known = ~np.isnan(given)
    return Ratio(np.where(known, given, 0.0), known.astype(np.float64))


def pooled(top: ArrayLike, bottom: ArrayLike) -> Ratio:
    """A share pooled over clips as a `Ratio`; (clips, ...) each, broadcast."""
    above, below = np.broadcast_arrays(np.asarray(top, dtype=np.float64), np.asarray(bottom, dtype=np.float64))
    return Ratio(above, below)


def bootstrap(ratio: Ratio, *, seed: int = 0, resamples: int = RESAMPLES, confidence: float = CONFIDENCE) -> Estimate:
    """Mean and percentile interval (Efron & Tibshirani, 1993, §13.3) of every quantity, clips drawn with replacement.

    All quantities see the same resamples. A resample in which no clip has a quantity says nothing about it, and one
    clip alone has no interval: NaN.

    Args:
        ratio: (clips, ...).
        seed: of the resampling; the same one gives the same interval.
        resamples: how many.
        confidence: of the interval, in (0, 1).

    Raises:
        InputShapeError: the two parts of ``ratio`` differ in shape, or there are no clips.
        InvalidSetting: ``resamples`` or ``confidence`` is out of range.
    """
    top, bottom, shape = _checked(ratio, resamples, confidence)
    drawn = _resampled(top, bottom, seed, resamples)
    clips = np.count_nonzero(bottom, axis=0)
    return _estimate(quotient(top.sum(axis=0), bottom.sum(axis=0)), drawn, clips, confidence, shape)


def bootstrap_difference(
    first: Ratio, second: Ratio, *, seed: int = 0, resamples: int = RESAMPLES, confidence: float = CONFIDENCE
) -> Estimate:
    """``first − second`` with its interval, for two runs over the same clips in the same order.

    A resample draws the same clips for both, so that what makes a clip hard for both does not widen the interval.
    Arguments and errors as for `bootstrap`; the two must have one shape. ``clips`` counts those that both have.
    """
    top, bottom, shape = _checked(first, resamples, confidence)
    other_top, other_bottom, other_shape = _checked(second, resamples, confidence)
    if top.shape != other_top.shape or shape != other_shape:
        raise InputShapeError(
            f"the runs have shapes {first.top.shape} and {second.top.shape}; wanted: the same clips and quantities"
        )
    drawn = _resampled(top, bottom, seed, resamples) - _resampled(other_top, other_bottom, seed, resamples)
    mean = quotient(top.sum(axis=0), bottom.sum(axis=0)) - quotient(other_top.sum(axis=0), other_bottom.sum(axis=0))
    clips = np.count_nonzero((bottom != 0) & (other_bottom != 0), axis=0)
    return _estimate(mean, drawn, clips, confidence, shape)


def _checked(
    ratio: Ratio, resamples: int, confidence: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[int, ...]]:
    """Both parts as (clips, quantities), and the shape of the quantities."""
    top, bottom = np.asarray(ratio.top, dtype=np.float64), np.asarray(ratio.bottom, dtype=np.float64)
    if top.shape != bottom.shape or top.ndim == 0 or len(top) == 0:
        raise InputShapeError(f"a ratio has shapes {top.shape} and {bottom.shape}; wanted: one, (1 or more clips, ...)")
    if resamples < 1:
        raise InvalidSetting("resamples", resamples, "1 or more")
    if not 0.0 < confidence < 1.0:
        raise InvalidSetting("confidence", confidence, "a number between 0 and 1")
    columns = math.prod(top.shape[1:])
    return top.reshape(len(top), columns), bottom.reshape(len(top), columns), top.shape[1:]


def _resampled(top: NDArray[np.float64], bottom: NDArray[np.float64], seed: int, resamples: int) -> NDArray[np.float64]:
    """(resamples, quantities) ratios; the same seed and number of clips draw the same clips."""
    generator, number = np.random.default_rng(seed), len(top)
    at_once = max(1, ENTRIES_AT_ONCE // number)
    ratios = []
    for begin in range(0, resamples, at_once):
        rows = min(at_once, resamples - begin)
        picks = generator.integers(number, size=(rows, number))
        picks += np.arange(rows)[:, None] * number
        counts = np.bincount(picks.ravel(), minlength=rows * number).reshape(rows, number).astype(np.float64)
        ratios.append(quotient(counts @ top, counts @ bottom))
    return np.concatenate(ratios)


def _estimate(
    mean: NDArray[np.float64],
    drawn: NDArray[np.float64],
    clips: NDArray[np.int64],
    confidence: float,
    shape: tuple[int, ...],
) -> Estimate:
    """The ends of the intervals of what was drawn, NaN left out."""
    ends = [(1 - confidence) / 2, (1 + confidence) / 2]
    whole = ~np.isnan(drawn).any(axis=0)
    found = np.full((2, drawn.shape[1]), np.nan)
    found[:, whole] = np.quantile(drawn[:, whole], ends, axis=0)
    for column in np.flatnonzero(~whole):
        known = drawn[~np.isnan(drawn[:, column]), column]
        if len(known):
            found[:, column] = np.quantile(known, ends)
    found[:, clips < 2] = np.nan
    low, high = found
    return Estimate(mean.reshape(shape), low.reshape(shape), high.reshape(shape), clips.reshape(shape), confidence)
