"""Means over training runs with Student's t intervals, and the wording of an answer that depends on one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from spectrim.stats.bootstrap import CONFIDENCE

FEWEST = 3
"""Runs that an interval needs: over two runs it would reach 13 standard errors to each side."""


@dataclass(frozen=True)
class Mean:
    """A mean over training runs.

    Attributes:
        value: the mean.
        low: lower end of the 95 % interval (Student's t over runs), NaN for fewer runs than `FEWEST`.
        high: upper end.
        runs: how many.
    """

    value: float
    low: float
    high: float
    runs: int

    def __str__(self) -> str:
        if self.runs < FEWEST:
            return f"{self.value:.1f}"
        return f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}]"


def mean_over_runs(values: Sequence[float]) -> Mean:
    """Mean with a 95 % t-interval (`scipy.stats.ttest_1samp`'s confidence interval).

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("a mean of no runs")
    value = float(np.mean(values))
    if len(values) < FEWEST:
        return Mean(value, math.nan, math.nan, len(values))
    if np.ptp(values) == 0.0:
        return Mean(value, value, value, len(values))
    interval = stats.ttest_1samp(values, 0.0).confidence_interval(CONFIDENCE)
    return Mean(value, float(interval.low), float(interval.high), len(values))


def worded(*, holds: bool, surely: bool, surely_not: bool) -> str:
    """A yes or no, and whether the interval settles it.

    Args:
        holds: the answer that the mean gives.
        surely: the whole interval gives the answer yes.
        surely_not: the whole interval gives the answer no.
    """
    if surely or surely_not:
        return "yes" if surely else "no"
    return f"{'yes' if holds else 'no'} on average, not settled"
