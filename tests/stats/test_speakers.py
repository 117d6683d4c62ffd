"""Intervals over speakers against plain definitions, on numbers of which the answer is known."""

from __future__ import annotations

import itertools
import math
import statistics

import numpy as np
import pytest
from scipy import stats

from spectrim.errors import InputShapeError, InvalidSetting
from spectrim.stats.speakers import bootstrap_within_folds, holm, mean_over_speakers, p_within_folds


def test_one_fold_has_the_intervals_of_all_its_samples() -> None:
    values = [1.0, -2.0, 4.0, 0.5]
    every = [statistics.fmean(drawn) for drawn in itertools.product(values, repeat=3)]
    drawn = bootstrap_within_folds([np.array(values)], draws=40_000)
    for share in (0.025, 0.5, 0.975):
        assert np.quantile(drawn, share) == pytest.approx(np.quantile(every, share), abs=0.13)
    assert np.mean(drawn <= 0) == pytest.approx(np.mean(np.array(every) <= 0), abs=0.01)


def test_speakers_are_drawn_within_their_folds() -> None:
    """Folds that differ, and speakers that do not: nothing is left to draw."""
    assert set(bootstrap_within_folds([np.full(3, 10.0), np.full(6, -5.0)], draws=50)) == {0.0}
    one, other = np.array([0.0, 8.0]), np.array([1.0, 2.0, 9.0])
    drawn = bootstrap_within_folds([one, other], draws=40_000)
    variance = (2 * one.var(ddof=1) + 3 * other.var(ddof=1)) / 25  # that of the mean of a stratified sample
    assert drawn.var() == pytest.approx(variance, rel=0.03)
    assert np.array_equal(drawn, bootstrap_within_folds([one, other], draws=40_000))


def test_a_mean_says_what_it_rests_on() -> None:
    found = mean_over_speakers({2: {"a": 1.0, "b": 2.0}, 0: {"c": 6.0, "d": 7.0}, 1: {}})
    assert found is not None
    assert (found.mean, found.speakers, found.folds) == (4.0, 4, (0, 2))
    assert found.spread == pytest.approx(statistics.stdev([1.0, 2.0, 6.0, 7.0]))
    assert found.half_width == pytest.approx(1.96 * found.spread / 2)
    assert found.largest_shown(1.0) == pytest.approx(1 - 2.8 * found.spread / 2)
    reach = stats.t.ppf(0.975, 2) * math.sqrt(1 / 2 / 4)
    assert (found.low, found.high) == pytest.approx((4 - reach, 4 + reach))
    assert mean_over_speakers({0: {}}) is None
    with pytest.raises(InputShapeError, match="at least one"):
        bootstrap_within_folds([])


def test_a_mean_over_fewer_folds_says_which() -> None:
    both = mean_over_speakers({2: {"a": 1.0, "b": 2.0}, 3: {"c": 0.0, "d": 1.5}})
    one = mean_over_speakers({2: {"a": 1.0, "b": 2.0}})
    assert both is not None and one is not None
    assert both.among([2, 3]) == str(both) and one.among([2]) == str(one)
    assert both.among([0, 2, 3]) == f"{both} (folds 2, 3 alone)"
    assert one.among([2, 3]) == f"{one} (fold 2 alone)"


def test_the_table_of_the_protocol() -> None:
    """Half an interval, and the largest loss that 30 speakers show, for three standard deviations."""
    generator = np.random.default_rng(1)
    for spread, half, largest in ((1.0, 0.36, 0.49), (1.5, 0.54, 0.23), (2.0, 0.72, -0.02)):
        drawn = stats.zscore(generator.standard_normal(30), ddof=1) * spread
        found = mean_over_speakers({0: {str(number): value for number, value in enumerate(drawn)}})
        assert found is not None
        assert (round(found.half_width, 2), round(found.largest_shown(1.0), 2)) == (half, largest)
        assert (found.high - found.low) / 2 == pytest.approx(found.half_width, rel=0.1)


def test_no_width_is_no_answer() -> None:
    same, alone = mean_over_speakers({0: {"a": 1.0, "b": 1.0}}), mean_over_speakers({0: {"a": 1.0}})
    assert same is not None and alone is not None
    assert (same.low, same.high, same.answers) == (1.0, 1.0, False)
    rounded = mean_over_speakers({0: {"a": 90.1 - 88.7, "b": 70.3 - 68.9, "c": 50.2 - 48.8}})
    assert rounded is not None and rounded.spread > 0 and not rounded.answers and math.isnan(rounded.p)
    assert math.isnan(alone.low) and math.isnan(alone.p) and not alone.answers and str(alone) == "1.00"
    one_fold_of_one = mean_over_speakers({0: {"a": 1.0, "b": 2.0}, 1: {"c": 5.0}})
    assert one_fold_of_one is not None and math.isnan(one_fold_of_one.low) and not one_fold_of_one.answers
    apart = mean_over_speakers({0: {"a": 1.0}, 1: {"b": 2.0}})
    assert apart is not None and math.isnan(apart.p)


@pytest.mark.parametrize("folds", [1, 2, 5])
def test_intervals_hold_the_truth_about_as_often_as_they_say(folds: int) -> None:
    """Six speakers a fold, as in the study: of few folds by Student's t, since a bootstrap of one would in 88 %.

    Of five folds n draws of n would hold it in 91.5 %.
    """
    generator, held = np.random.default_rng(5), 0
    for _ in range(600):
        values = {fold: {str(one): generator.normal(fold, 2.0) for one in range(6)} for fold in range(folds)}
        found = mean_over_speakers(values, draws=400)
        assert found is not None
        held += found.low <= (folds - 1) / 2 <= found.high
    assert 0.92 <= held / 600 <= 0.97


def test_the_interval_of_one_fold_is_that_of_the_t_test() -> None:
    values = np.random.default_rng(6).normal(1.0, 2.0, 6)
    found = mean_over_speakers({3: {str(number): value for number, value in enumerate(values)}})
    assert found is not None
    assert (found.low, found.high) == pytest.approx(stats.ttest_1samp(values, 0.0).confidence_interval(0.95))


def test_p_of_one_fold_is_the_t_test_and_of_several_looks_within_them() -> None:
    generator = np.random.default_rng(2)
    values = generator.normal(1.0, 2.0, 6)
    assert p_within_folds([values]) == pytest.approx(stats.ttest_1samp(values, 0.0).pvalue)
    folds = [generator.normal(level, 1.0, 6) for level in (-3.0, 0.5, 4.0)]
    effects = np.repeat(np.eye(3), 6, axis=0)
    fitted = np.linalg.lstsq(effects, np.concatenate(folds), rcond=None)
    error = math.sqrt(float(fitted[1][0]) / 15 / 18)
    wanted = 2 * stats.t.sf(abs(fitted[0].mean()) / error, 15)
    assert p_within_folds(folds) == pytest.approx(wanted)
    assert math.isnan(p_within_folds([np.ones(3)]))
    assert math.isnan(p_within_folds([values, values[:1]]))


def test_a_family_without_differences_is_seldom_called_different() -> None:
    """At most one time in twenty, whatever the folds: also of few speakers, far out in the tail."""
    generator, called, families = np.random.default_rng(4), 0, 1500
    for number in range(families):
        folds = ([6], [6, 6, 6], [2, 2, 2, 2])[number % 3]
        p_values = [p_within_folds([generator.normal(size=size) for size in folds]) for _ in range(16)]
        called += min(p for p in holm(p_values) if p is not None) < 0.05
    assert 0.03 <= called / families <= 0.07


def test_a_planted_difference_is_found_and_none_is_not() -> None:
    generator, found = np.random.default_rng(3), {"planted": 0, "none": 0}
    for _ in range(200):
        noise = {fold: {str(one): generator.normal(0, 1.5) for one in range(6)} for fold in range(5)}
        planted = {fold: {name: value + 1.5 for name, value in own.items()} for fold, own in noise.items()}
        for name, values in {"planted": planted, "none": noise}.items():
            mean = mean_over_speakers(values, draws=500)
            assert mean is not None
            found[name] += mean.low > 0 or mean.high < 0
    assert found["planted"] >= 190
    assert found["none"] <= 24


def test_holm_is_the_step_down_of_the_definition() -> None:
    p_values = [0.01, 0.04, 0.03, 0.005]
    assert holm(p_values) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    rejected = [p for p, corrected in zip(p_values, holm(p_values), strict=True) if corrected and corrected <= 0.05]
    expected = []
    for rank, p in enumerate(sorted(p_values)):
        if p > 0.05 / (len(p_values) - rank):
            break
        expected.append(p)
    assert sorted(rejected) == expected
    assert holm([0.01, None, None]) == [pytest.approx(0.03), None, None]
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.001, math.nan, 0.002]) == [pytest.approx(0.003), None, pytest.approx(0.004)]
    with pytest.raises(InvalidSetting, match=r"p_values is 1\.5; .* from 0 to 1"):
        holm([0.1, 1.5])
