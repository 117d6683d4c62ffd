from __future__ import annotations

import math

import pytest
from scipy import stats

from spectrim.stats.t_intervals import Mean, by_fold, mean_over_runs


def test_the_interval_is_students_and_is_cut_to_what_there_can_be() -> None:
    values = [0.9, 0.5, 1.0, 0.2]
    low, high = stats.t.interval(0.95, 3, loc=0.65, scale=stats.sem(values))
    found = mean_over_runs(values)
    assert (found.value, found.low, found.high) == pytest.approx((0.65, low, high))
    assert high > 1, "an accuracy that t alone places beyond what there is"
    cut = mean_over_runs(values, (0.0, 1.0))
    assert (cut.value, cut.low, cut.high) == (found.value, found.low, 1.0)


def test_of_two_runs_there_is_no_interval_and_of_like_ones_none_of_any_width() -> None:
    assert math.isnan(mean_over_runs([0.2, 0.4], (0.0, 1.0)).low)
    assert mean_over_runs([1.0, 1.0, 1.0]) == Mean(1.0, 1.0, 1.0, 3)


def test_seeds_are_averaged_within_folds_of_several() -> None:
    assert by_fold({(1, 12): 0.2, (1, 34): 0.4, (2, 12): 0.6}) == pytest.approx([0.3, 0.6])
    assert by_fold({(1, 12): 0.2, (1, 34): 0.4}) == [0.2, 0.4]
