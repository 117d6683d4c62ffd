"""Differences over speakers in folds: bootstrap and t within folds, Holm's correction, what a sample can show.

The speaker is the unit: clips of one speaker, and runs on the same speaker, are no independent evidence.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from spectrim.errors import InputShapeError, InvalidSetting

DRAWS = 10_000
CONFIDENCE = 0.95
FEW = 15
"""Degrees of freedom below which intervals are Student's.

Over six speakers of one fold those of a bootstrap hold the truth in 88 % of cases, over six in each of two folds in
91 %, of three folds in 93 to 94 %, and Student's in 94 to 96 %.
"""

NO_WIDTH = 1e-9
"""Points: values that differ by less are one, but for rounding."""

TWO_SIDED, WITH_POWER = 1.96, 1.96 + 0.84
"""Normal quantiles of a two-sided interval of 95 %, and of that with a power of 80 %."""

Accuracies = Mapping[int, Mapping[str, float]]
"""Fold → speaker → accuracy, or a difference of two, in points; several seeds averaged before."""


@dataclass(frozen=True)
class SpeakerMean:
    """A mean over speakers with its interval, in points.

    Attributes:
        mean: over the speakers of all folds.
        low: lower end of the 95 % interval, see `mean_over_speakers`; NaN where a fold has one speaker only, who says
            nothing of others.
        high: upper end.
        p: of no difference, two-sided, by `p_within_folds`; NaN likewise, and where there is no spread.
        spread: standard deviation between speakers; NaN for one.
        speakers: how many.
        folds: in which they are unheard.
    """

    mean: float
    low: float
    high: float
    p: float
    spread: float
    speakers: int
    folds: tuple[int, ...]

    @property
    def answers(self) -> bool:
        """Whether there is an interval, and of some width."""
        return math.isfinite(self.low) and math.isfinite(self.high) and self.high - self.low > NO_WIDTH

    def among(self, folds: Collection[int]) -> str:
        """As `str`, with its own folds where they are not all of those that it stands among."""
        if len(self.folds) == len(folds):
            return str(self)
        return f"{self} (fold{'s' * (len(self.folds) > 1)} {', '.join(map(str, self.folds))} alone)"

    @property
    def half_width(self) -> float:
        """Half of the interval that a normal distribution of this spread has, in points."""
        return TWO_SIDED * self.spread / math.sqrt(self.speakers)

    def largest_shown(self, margin: float) -> float:
        """The largest true loss, in points, of which a sample like this shows with 80 % that it is below a margin."""
        return margin - WITH_POWER * self.spread / math.sqrt(self.speakers)

    def __str__(self) -> str:
        return f"{self.mean:.2f}" + (f" [{self.low:.2f}, {self.high:.2f}]" if math.isfinite(self.low) else "")


def bootstrap_within_folds(
    values: Sequence[NDArray[np.floating]], *, draws: int = DRAWS, seed: int = 0
) -> NDArray[np.float64]:
    """Means of ``draws`` samples of speakers, drawn with replacement from each fold apart.

    Of n speakers n − 1 are drawn (Rao & Wu, 1988). A mean of n draws varies by (n − 1)/n of what it should: with six
    speakers in each of five folds 95 % intervals then hold the truth in 91.5 % of cases, with n − 1 in 94 %.

    Args:
        values: of each fold, (speakers,).
        draws: how many.
        seed: of the draws.

    Returns:
        (draws,): mean over the speakers of all folds; a fold with one speaker has that one in all of them.

    Raises:
        InputShapeError: there is no speaker.
    """
    if not values or any(len(fold) == 0 for fold in values):
        raise InputShapeError(f"folds of {[len(fold) for fold in values]} speakers; wanted: at least one in each")
    generator = np.random.default_rng(seed)
    total = np.zeros(draws)
    for fold in values:
        drawn = generator.integers(len(fold), size=(draws, max(1, len(fold) - 1)))
        total += len(fold) * np.asarray(fold, dtype=np.float64)[drawn].mean(axis=1)
    return total / sum(len(fold) for fold in values)


def mean_over_speakers(values: Accuracies, *, draws: int = DRAWS, seed: int = 0) -> SpeakerMean | None:
    """The mean over speakers with its interval; None without speakers.

    Its ends are percentiles of `bootstrap_within_folds`, or, of fewer than `FEW` degrees of freedom, those of Student's
    t, as `p_within_folds` has it. Accuracies of few speakers can so have an end beyond 100.
    """
    folds = tuple(sorted(fold for fold, speakers in values.items() if speakers))
    if not folds:
        return None
    arrays = [np.array([values[fold][name] for name in sorted(values[fold])]) for fold in folds]
    everyone = np.concatenate(arrays)
    mean, low, high = float(everyone.mean()), math.nan, math.nan
    if all(len(fold) > 1 for fold in arrays):
        error, freedom = _error_within(arrays)
        if freedom < FEW:
            reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
            low, high = mean - reach, mean + reach
        else:
            drawn = bootstrap_within_folds(arrays, draws=draws, seed=seed)
            low, high = map(float, np.quantile(drawn, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]))
    spread = float(np.std(everyone, ddof=1)) if len(everyone) > 1 else math.nan
    return SpeakerMean(mean, low, high, p_within_folds(arrays), spread, len(everyone), folds)


def _error_within(values: Sequence[NDArray[np.floating]]) -> tuple[float, int]:
    """Standard error of the mean over all speakers, by their spread around the means of their folds; its freedom."""
    number = sum(map(len, values))
    freedom = number - len(values)
    within = sum(float(np.sum((fold - np.mean(fold)) ** 2)) for fold in values)
    return math.sqrt(within / freedom / number), freedom


def p_within_folds(values: Sequence[NDArray[np.floating]]) -> float:
    """p of a mean of 0, two-sided: Student's t with the spread of speakers around the means of their folds.

    N speakers of F folds have N − F degrees of freedom; of one fold it is `scipy.stats.ttest_1samp`. Not from the draws
    of the bootstrap, of which so few speakers have no tail: of sixteen comparisons of 18 speakers without any
    difference, corrected by Holm, those called one or more of them real in 19 % of cases, this in 6 %.

    Args:
        values: of each fold, (speakers,).

    Returns:
        NaN where a fold has one speaker only, or where there is no spread.
    """
    if any(len(fold) < 2 for fold in values):
        return math.nan
    error, freedom = _error_within(values)
    if error <= NO_WIDTH:
        return math.nan
    return float(2 * stats.t.sf(abs(np.concatenate(values).mean()) / error, freedom))


def p_text(p: float | None) -> str:
    """A p value for a table; nothing where there is none."""
    return "" if p is None else "≤ 0.0001" if p < 0.0001 else f"{p:.4f}"


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (1979): the p values of a family, to be read against the level as they are.

    The k-th smallest of m is multiplied by m − k + 1, and no corrected value is below one before it. A test that has
    not been made (None or NaN) counts as one of the m, and has None.

    Raises:
        InvalidSetting: a p value is below 0 or above 1.
    """
    for p in p_values:
        if p is not None and not math.isnan(p) and not 0 <= p <= 1:
            raise InvalidSetting("p_values", p, "numbers from 0 to 1, or None for a test that has not been made")
    made = [place for place, p in enumerate(p_values) if p is not None and not math.isnan(p)]
    order = sorted(made, key=lambda place: p_values[place] or 0.0)
    corrected: list[float | None] = [None] * len(p_values)
    least = 0.0
    for rank, place in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * (p_values[place] or 0.0)))
        corrected[place] = least
    return corrected
