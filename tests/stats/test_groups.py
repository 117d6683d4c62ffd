"""Intervals over groups, against the definition written out over sums of groups, and how often they hold the truth."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from spectrim.errors import InputShapeError
from spectrim.stats.bootstrap import bootstrap, draw_counts
from spectrim.stats.groups import FEWEST_GROUPS, Groups, drawn
from spectrim.stats.paired import bootstrap_difference, contrast_intervals, paired_intervals
from spectrim.stats.ratios import Ratio, clip_mean

NAMES = [f"speaker {number}" for number in np.random.default_rng(8).integers(0, 9, 130)]
GROUPS = Groups.named(NAMES)


def by_hand(tops: np.ndarray, bottoms: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Add up each group, draw G − 1 of G groups, divide the sums: one resample after the other."""
    order = sorted(set(NAMES))
    top, bottom = (
        np.array([part[[name == one for one in NAMES]].sum(axis=0) for name in order]) for part in (tops, bottoms)
    )
    picks = np.random.default_rng(seed).integers(len(order), size=(resamples, len(order) - 1))
    return np.array([top[pick].sum(axis=0) / bottom[pick].sum(axis=0) for pick in picks])


def reach(confidence: float = 0.95) -> float:
    """Student's quantile, of as many degrees as groups of one size that count as much, less one."""
    sizes = np.array([NAMES.count(name) for name in set(NAMES)])
    return float(stats.t.ppf((1 + confidence) / 2, sizes.sum() ** 2 / (sizes**2).sum() - 1))


def test_groups_count_by_their_sizes() -> None:
    alike = Groups.named(["a", "b", "a", "b", "c", "c"])
    assert (alike.number, alike.effective, alike.worth) == (3, 3.0, 3)
    assert alike.sizes.tolist() == [2, 2, 2]
    assert alike.too_few == f"3 speakers or recordings are too few; it takes {FEWEST_GROUPS}"
    lopsided = Groups.of([0] * 500 + [1] * 500 + list(range(2, 12)))
    assert lopsided.too_few == "12 speakers or recordings of unequal size count as 2, which are too few; it takes 6"
    assert Groups.of(np.repeat(np.arange(6), 40)[1:]).too_few is None
    assert lopsided.of_clips(np.arange(999, 1005)).sizes.tolist() == [1] * 6
    assert drawn(130, GROUPS) == "the 9 speakers or recordings of the 130 clips"
    assert drawn(130, None) == "the 130 clips"


@pytest.mark.parametrize("at_once", [1 << 22, 300])
def test_whole_groups_are_drawn(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spectrim.stats.bootstrap.ENTRIES_AT_ONCE", at_once)
    counts = np.concatenate(list(draw_counts(130, 50, 3, GROUPS)))
    assert counts.shape == (50, 130)
    for name in set(NAMES):
        own = counts[:, [name == one for one in NAMES]]
        assert (own == own[:, :1]).all()
    firsts = [NAMES.index(name) for name in set(NAMES)]
    assert (counts[:, firsts].sum(axis=1) == len(firsts) - 1).all()


def test_means_are_ratios_of_sums_over_groups() -> None:
    generator = np.random.default_rng(0)
    bottom = generator.integers(0, 9, (130, 3)).astype(float)
    ratio = Ratio(bottom * generator.random((130, 3)), bottom)
    found = bootstrap(ratio, groups=GROUPS, seed=7, resamples=150, confidence=0.9)
    mean = ratio.top.sum(axis=0) / bottom.sum(axis=0)
    error = by_hand(ratio.top, bottom, 7, 150).std(axis=0, ddof=1)
    assert_allclose(found.mean, mean)
    assert_allclose(found.low, mean - reach(0.9) * error)
    assert_allclose(found.high, mean + reach(0.9) * error)
    other = clip_mean(generator.random((130, 3)))
    paired = bootstrap_difference(ratio, other, groups=GROUPS, seed=7, resamples=150)
    error = (by_hand(ratio.top, bottom, 7, 150) - by_hand(*other, 7, 150)).std(axis=0, ddof=1)
    assert_allclose(paired.high - paired.mean, reach() * error)


def test_a_quantity_of_few_groups_has_their_reach() -> None:
    """Twenty groups of ten clips, of which two have the second quantity: an interval over two groups."""
    groups = Groups.of(np.repeat(np.arange(20), 10))
    values = np.random.default_rng(1).random((200, 2))
    values[20:, 1] = np.nan
    found = bootstrap(clip_mean(values), groups=groups, resamples=400)
    alone = groups.of_clips(np.arange(200) < 20)
    sums = np.nansum(values[:, 1].reshape(20, 10), axis=1)
    picks = np.random.default_rng(0).integers(20, size=(400, 19))
    seen = (picks < 2).sum(axis=1)
    resampled = sums[picks].sum(axis=1)[seen > 0] / (10 * seen[seen > 0])
    assert alone.number == 2 and alone.reach(0.95) > 6 * groups.reach(0.95)
    assert_allclose(found.high[1] - found.mean[1], alone.reach(0.95) * resampled.std(ddof=1))


@pytest.mark.parametrize("percentile", [True, False])
def test_paired_intervals_are_over_groups(percentile: bool) -> None:
    runs = np.random.default_rng(2).exponential(size=(2, 130))

    def metric_of(counts: np.ndarray) -> np.ndarray:
        return (runs @ counts.T) / counts.sum(axis=1)

    found = paired_intervals(metric_of, 130, groups=GROUPS, resamples=300, seed=5, percentile=percentile)
    means = by_hand(runs.T, np.ones((130, 2)), 5, 300)
    change = runs[1].mean() - runs[0].mean()
    assert_allclose(found.high - runs.mean(axis=1), reach() * means.std(axis=0, ddof=1))
    assert_allclose(change - found.change_low[1], reach() * (means[:, 1] - means[:, 0]).std(ddof=1))


def test_the_variance_of_a_mean_is_unbiased_for_few_groups() -> None:
    """Of groups that are alike within, the standard error is that of the textbook over groups, s / √G."""
    values = np.array([0.3, 0.7, 0.4, 0.9, 0.5, 0.6])
    groups = Groups.of(np.repeat(np.arange(6), 20))
    found = bootstrap(clip_mean(np.repeat(values, 20)), groups=groups, resamples=40_000)
    assert found.high - found.mean == pytest.approx(stats.t.ppf(0.975, 5) * stats.sem(values), rel=0.02)


def test_one_group_or_too_little_of_a_second_has_no_interval() -> None:
    one = Groups.named(["a"] * 5)
    assert math.isnan(bootstrap(clip_mean(np.arange(5.0)), groups=one).low)
    ends = contrast_intervals(lambda counts: np.ones((1, len(counts))), 5, np.eye(1), groups=one, resamples=10)
    assert np.isnan(ends).all()
    nearly = Groups.named(["a"] * 50 + ["b"])
    assert math.isnan(bootstrap(clip_mean(np.arange(51.0)), groups=nearly).low)
    some = np.full((130, 2), np.nan)
    some[:, 0] = some[0, 1] = some[1, 1] = 1.0
    only = bootstrap(clip_mean(some[:, 1:]), groups=Groups.of([0, 0, *range(1, 129)]))
    assert math.isnan(only.low[0])


def test_intervals_over_groups_hold_the_truth_as_often_as_they_say_and_those_over_clips_do_not() -> None:
    """Six speakers of 200 clips, 90 % right, two points of standard deviation between speakers; 2,000 times."""
    generator = np.random.default_rng(0)
    shares = np.clip(0.9 + 0.02 * generator.standard_normal((FEWEST_GROUPS, 2000)), 0, 1)
    right = np.repeat(shares, 200, axis=0) > generator.random((200 * FEWEST_GROUPS, 2000))
    ratio = Ratio(right.astype(float), np.ones(right.shape))
    groups = Groups.of(np.repeat(np.arange(FEWEST_GROUPS), 200))
    over_groups, over_clips = (bootstrap(ratio, groups=one, resamples=400) for one in (groups, None))
    held = [np.mean((one.low <= 0.9) & (one.high >= 0.9)) for one in (over_groups, over_clips)]
    assert 0.935 <= held[0] <= 0.965
    assert 0.81 <= held[1] <= 0.87


@pytest.mark.parametrize("clips", [5, 200])
def test_groups_of_other_clips_are_refused(clips: int) -> None:
    values = np.linspace(0, 1, clips)
    wanted = f"groups are of {len(NAMES)} clips; wanted: of the {clips}"
    with pytest.raises(InputShapeError, match=wanted):
        bootstrap(clip_mean(values), groups=GROUPS)
    with pytest.raises(InputShapeError, match=wanted):
        paired_intervals(lambda counts: counts.sum(axis=1)[None], clips, groups=GROUPS, resamples=10)
