"""Means over training runs with Student's t intervals, and the wording of an answer that depends on one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from spectrim.stats.bootstrap import CONFIDENCE

Run = tuple[Any, Any]
"""Fold and seed."""

FEWEST = 3
"""Runs that an interval needs: over two runs it would reach 13 standard errors to each side."""


@dataclass(frozen=True)
class Mean:
    """A mean over training runs.

    Attributes:
        value: the mean.
        low: lower end of the 95 % interval (Student's t over runs), NaN for fewer runs than `FEWEST`.
        high: upper end.
        runs: how many; of several seeds in several folds, folds.
    """

    value: float
    low: float
    high: float
    runs: int

    def __str__(self) -> str:
        if self.runs < FEWEST:
            return f"{self.value:.1f}"
        return f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}]"


def by_fold(runs: Mapping[Run, float]) -> list[float]:
    """What a t-interval over runs is of: the mean of each fold's seeds, or the seeds where there is one fold.

    The seeds of a fold are tested on the same clips. An interval over five folds times five seeds, as if they were 25
    runs, would hold the truth in three of four cases where folds and seeds vary alike.
    """
    folds: dict[Any, list[float]] = {}
    for (fold, _), value in runs.items():
        folds.setdefault(fold, []).append(value)
    return list(runs.values()) if len(folds) < 2 else [float(np.mean(values)) for values in folds.values()]


def mean_over_runs(values: Sequence[float], within: tuple[float, float] = (-math.inf, math.inf)) -> Mean:
    """Mean with a 95 % t-interval (`scipy.stats.ttest_1samp`'s confidence interval).

    Args:
        values: one a run.
        within: what they can be, beyond which an interval is cut.

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
    low, high = np.clip([interval.low, interval.high], *within).tolist()
    return Mean(value, low, high, len(values))


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
