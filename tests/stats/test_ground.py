"""What a yes or no needs, against binomial and normal theory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from spectrim.stats.ground import (
    Interval,
    clips_needed,
    discordance,
    near_chance,
    no_interval,
    too_few_clips,
    within_margin,
)


def test_785_clips_for_each_per_cent_of_discordance() -> None:
    assert [clips_needed(share) for share in (0.01, 0.05, 0.2)] == [785, 3925, 15698]
    quantiles = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    assert clips_needed(0.05, 0.02) == math.ceil(quantiles**2 * 0.05 / 0.02**2)


def test_so_many_clips_find_a_point_in_four_of_five_experiments() -> None:
    generator, share = np.random.default_rng(0), 0.05
    clips = clips_needed(share)
    lost, won = generator.multinomial(clips, [share / 2 + 0.005, share / 2 - 0.005, 1 - share], size=4000).T[:2]
    change = (won - lost) / clips
    error = np.sqrt(((won + lost) / clips - change**2) / clips)
    assert np.mean(change + 1.96 * error < 0) == pytest.approx(0.8, abs=0.02)


def test_the_discordance_is_read_from_an_interval() -> None:
    clips, share, change = 2000, 0.06, -0.02
    reach = 1.959964 * math.sqrt((share - change**2) / clips)
    assert discordance(Interval(change, change - reach, change + reach), clips) == pytest.approx(share)


def test_what_has_no_ground() -> None:
    nan = math.nan
    assert no_interval(Interval(0.0, nan, nan)) == "there is no interval"
    assert no_interval(Interval(0.0, 0.0, 0.0)) == "the interval has no width"
    assert no_interval(Interval(0.0, -0.1, 0.1)) is None
    assert near_chance(Interval(0.06, 0.04, 0.08), 0.02)
    assert near_chance(Interval(0.06, nan, nan), 0.02)
    assert near_chance(Interval(0.5, 0.45, 0.55), 0.02) is None
    assert too_few_clips(29) == "29 clips were seen, and it takes 30 at least"
    assert too_few_clips(30) is None
    assert too_few_clips(3924, 0.05) == (
        "3,924 clips were seen, and a margin of one point takes about 3,925 at a discordance of 5.0 %"
    )
    assert too_few_clips(3925, 0.05) is None


def test_a_loss_beyond_the_margin_needs_no_more_clips() -> None:
    assert within_margin(Interval(-0.2, -0.3, -0.1), 100) is None
    assert within_margin(Interval(0.02, 0.005, 0.035), 100)
    assert within_margin(Interval(-0.2, -0.3, -0.1), 20)
    assert within_margin(Interval(0.0, -0.005, 0.005), None) is None
