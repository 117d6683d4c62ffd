"""Intervals of differences, against the definition written out and against scipy's bootstrap with the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from spectrim.errors import InputShapeError
from spectrim.stats.paired import bootstrap_difference, contrast_intervals, paired_intervals
from spectrim.stats.ratios import clip_mean


def resampled_means(values: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """The mean of one resample after the other."""
    draws = np.random.default_rng(seed).integers(len(values), size=(resamples, len(values)))
    return np.array([values[draw].mean() for draw in draws])


def test_a_difference_sees_the_same_clips_in_both_runs() -> None:
    generator = np.random.default_rng(0)
    clip = generator.normal(0.0, 1.0, 50)
    first, second = clip + generator.normal(0.0, 0.1, 50) + 0.2, clip + generator.normal(0.0, 0.1, 50)
    found = bootstrap_difference(clip_mean(first), clip_mean(second), seed=4, resamples=500)
    drawn = resampled_means(first, 4, 500) - resampled_means(second, 4, 500)
    assert found.mean == pytest.approx(first.mean() - second.mean())
    assert (found.low, found.high) == pytest.approx(np.quantile(drawn, [0.025, 0.975]))
    assert 0.1 < found.low < found.high < 0.3
    none = bootstrap_difference(clip_mean(first), clip_mean(first))
    assert (none.mean, none.low, none.high) == (0.0, 0.0, 0.0)


def test_runs_over_other_clips_have_no_difference() -> None:
    with pytest.raises(InputShapeError, match="same clips"):
        bootstrap_difference(clip_mean([1.0, 2.0]), clip_mean([1.0, 2.0, 3.0]))


@pytest.mark.parametrize("percentile", [True, False])
def test_paired_intervals_are_scipys_with_the_same_seed(percentile: bool) -> None:
    generator = np.random.default_rng(2)
    runs = np.sqrt(generator.exponential(size=(2, 70)))
    found = paired_intervals(
        lambda counts: (runs @ counts.T) / counts.sum(axis=1), 70, resamples=300, seed=5, percentile=percentile
    )

    def both(draws: np.ndarray, axis: int) -> np.ndarray:
        means = runs[:, draws].mean(axis=-1)
        return np.concatenate([means, means - means[:1]])

    theirs = stats.bootstrap(
        (np.arange(70),), both, n_resamples=300, method="percentile", rng=np.random.default_rng(5), vectorized=True
    )
    expected = theirs.confidence_interval
    if not percentile:
        value, reach = both(np.arange(70), -1), 1.959963984540054 * theirs.standard_error
        expected = value - reach, value + reach
    assert_allclose([*found.low, *found.change_low], expected[0], atol=1e-14)
    assert_allclose([*found.high, *found.change_high], expected[1], atol=1e-14)


def test_contrasts_are_sums_of_paired_means() -> None:
    runs = np.random.default_rng(3).exponential(size=(3, 60))
    contrasts = np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 1.0], [1.0, -0.5, -0.5]])
    found = contrast_intervals(lambda counts: runs @ counts.T / 60, 60, contrasts, resamples=400, seed=6)
    for row, values in enumerate(contrasts @ runs):
        drawn = resampled_means(values, 6, 400)
        assert (found.low[row], found.high[row]) == pytest.approx(np.quantile(drawn, [0.025, 0.975]))


@pytest.mark.parametrize("percentile", [True, False])
def test_the_luck_of_the_draw_is_in_the_interval(percentile: bool) -> None:
    """Draws that differ while all clips are alike: the variance of their mean is that of the textbook, s²/D."""
    draws = np.array([0.70, 0.76, 0.71, 0.79, 0.74])
    values = np.repeat(draws[:, None], 40, axis=1)
    found = contrast_intervals(
        lambda counts: values @ counts.T / 40,
        40,
        np.full((1, 5), 0.2),
        draws=[range(5)],
        resamples=20000,
        percentile=percentile,
    )
    error = stats.sem(draws)
    assert (found.high[0] - found.low[0]) / (2 * 1.96) == pytest.approx(error, rel=0.1)
    assert (found.high[0] + found.low[0]) / 2 == pytest.approx(draws.mean(), abs=0.1 * error)


def test_one_draw_tells_nothing_of_others() -> None:
    with pytest.raises(InputShapeError, match="two or more"):
        contrast_intervals(lambda counts: np.ones((1, len(counts))), 5, np.eye(1), draws=[[0]], resamples=10)
