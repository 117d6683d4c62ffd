"""Bounds of what is lost, against scipy's intervals and against draws whose true loss is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from spectrim.errors import InvalidSetting
from spectrim.stats.bounds import clips_for_bound, drop_bound


@pytest.mark.parametrize(("lost", "gained", "clips"), [(20, 10, 600), (0, 0, 50), (3, 0, 40), (40, 0, 40), (1, 7, 90)])
def test_the_ends_are_those_of_scipys_exact_intervals(lost: int, gained: int, clips: int) -> None:
    above = binomtest(lost, clips).proportion_ci(confidence_level=0.95, method="exact").high
    below = binomtest(gained, clips).proportion_ci(confidence_level=0.95, method="exact").low
    assert drop_bound(lost, gained, clips) == pytest.approx(above - below)


def test_the_bound_fails_at_most_as_often_as_it_says() -> None:
    generator = np.random.default_rng(0)
    shares, clips = [0.04, 0.02, 0.94], 150
    draws = generator.multinomial(clips, shares, size=2000)
    failed = np.mean([drop_bound(lost, gained, clips, 0.9) < shares[0] - shares[1] for lost, gained, _ in draws])
    assert failed <= 0.1


def test_clips_needed_are_the_fewest_with_which_the_bound_is_reached() -> None:
    needed = clips_for_bound(6, 4, 500, 0.01)
    assert needed is not None
    rates = 6 / 500, 4 / 500
    assert drop_bound(rates[0] * needed, rates[1] * needed, needed) <= 0.01
    assert drop_bound(*(rate * (needed - 1) for rate in rates), needed - 1) > 0.01
    assert clips_for_bound(0, 0, 500, 0.01) == next(n for n in range(1, 1000) if drop_bound(0, 0, n) <= 0.01)


def test_no_number_of_clips_makes_up_for_what_was_lost() -> None:
    assert clips_for_bound(10, 5, 500, 0.01) is None
    assert clips_for_bound(30, 5, 500, 0.01) is None


def test_counts_that_do_not_fit_are_refused() -> None:
    for wrong in ((5, 6, 10), (-1, 0, 10), (0, 0, 0)):
        with pytest.raises(InvalidSetting, match="counts of clips"):
            drop_bound(*wrong)
    with pytest.raises(InvalidSetting, match="confidence"):
        drop_bound(1, 1, 10, 1.0)
