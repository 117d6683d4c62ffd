"""What a yes or no needs, against binomial and normal theory."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, special, stats

from spectrim.stats.ground import (
    Interval,
    beats,
    clips_needed,
    clips_to_exclude,
    discordance,
    near_chance,
    no_interval,
    too_few_clips,
    under_one_point,
    within_margin,
)
from spectrim.stats.groups import Groups

DENSE = Interval(0.9, 0.88, 0.92)


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


@pytest.mark.parametrize(("lost", "gained", "margin"), [(1, 0, 0.01), (12, 9, 0.02), (3, 8, 0.01), (40, 25, 0.05)])
def test_a_loss_is_excluded_by_a_score_test_at_its_likeliest_shares(lost: int, gained: int, margin: float) -> None:
    """The shares of losses and gains that make the counts most likely, found here by search, not by their formula."""
    clips = 700

    def unlikely(share: float) -> float:
        counts = (lost, gained, clips - lost - gained)
        return -float(special.xlogy(counts, (share + margin, share, 1 - margin - 2 * share)).sum())

    share = optimize.minimize_scalar(unlikely, bounds=(0, 0.4), method="bounded", options={"xatol": 1e-10}).x
    z = ((lost - gained) / clips - margin) / math.sqrt((2 * share + margin * (1 - margin)) / clips)
    wanted = clips * (stats.norm.ppf(0.975) / z) ** 2
    found = clips_to_exclude((gained - lost) / clips, (lost + gained) / clips, margin)
    assert found == pytest.approx(math.ceil(wanted), abs=1)


@pytest.mark.parametrize("clips", [301, 350, 400, 500, 600, 700, 1000, 2000, 5000])
def test_less_than_a_point_is_said_falsely_in_one_of_forty_experiments(clips: int) -> None:
    """Without gains, as where pruning only loses: a bootstrap of one lost clip of 301 excludes a whole point."""
    false = 0.0
    for lost in range(1, math.ceil(0.01 * clips)):
        ends = stats.binom.ppf([0.975, 0.025], clips, lost / clips) / clips
        change = Interval(-lost / clips, *(-float(end) for end in ends))
        said, _ = under_one_point(change, clips, lost / clips, DENSE, 0.1)
        assert said in ("yes", "unclear", "cannot say")
        false += float(stats.binom.pmf(lost, clips, 0.01)) * (said == "yes")
    assert false <= 0.027
    assert clips < 600 or false > 0.004


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


@pytest.mark.parametrize(
    ("change", "clips", "said", "why"),
    [
        ((0.03, 0.01, 0.05), 400, "better", None),
        ((-0.03, -0.05, -0.01), 400, "worse", None),
        ((-0.012, -0.030, 0.006), 400, "no better", None),
        ((0.004, -0.020, 0.028), 400, "cannot say", "400 clips were seen, and a margin of one point takes about"),
        ((0.004, -0.004, 0.012), 9000, "cannot say", "the interval holds both nought and one point"),
        ((0.0025, 0.0, 0.0075), 400, "cannot say", "400 clips were seen, and a margin of one point takes about 6"),
        ((0.03, 0.01, 0.05), 29, "cannot say", "29 clips were seen, and it takes 30 at least"),
        ((0.0, 0.0, 0.0), 400, "cannot say", "the interval has no width"),
        ((0.0, math.nan, math.nan), 400, "cannot say", "there is no interval"),
    ],
)
def test_better_than_a_baseline(change: tuple[float, float, float], clips: int, said: str, why: str | None) -> None:
    found, reason = beats(Interval(*change), clips, DENSE, 0.1, 0.05 if clips == 9000 else None)
    assert found == said
    assert (reason is None) if why is None else str(reason).startswith(why)


def test_a_model_near_chance_ranks_nothing() -> None:
    said, why = beats(Interval(0.05, 0.02, 0.08), 400, Interval(0.12, 0.10, 0.14), 0.1)
    assert said == "cannot say" and "near chance" in str(why)


def test_whether_less_than_a_point_is_lost() -> None:
    for change, said in (((-0.001, -0.004, 0.002), "yes"), ((-0.05, -0.07, -0.03), "no")):
        assert under_one_point(Interval(*change), 5000, 0.01, DENSE, 0.1) == (said, None)
    assert under_one_point(Interval(-0.01, -0.012, -0.008), 5000, 0.01, DENSE, 0.1) == ("unclear", None)
    assert under_one_point(Interval(-0.001, -0.004, 0.002), 50, 0.01, DENSE, 0.1)[0] == "cannot say"
    one_lost = under_one_point(Interval(-0.0025, -0.0075, 0.0), 400, 0.0025, DENSE, 0.1)
    assert one_lost == (
        "cannot say",
        "400 clips were seen, and a margin of one point takes about 677 at a discordance of 0.2 %",
    )
    fewest = [
        next(n for n in range(101, 2000) if lost < 0.01 * n and n >= clips_to_exclude(-lost / n, lost / n))
        for lost in (1, 2)
    ]
    assert fewest == [563, 726]  # as docs/evaluation.md has them


def test_groups_are_what_was_seen() -> None:
    few, enough = Groups.of(np.repeat(np.arange(5), 200)), Groups.of(np.repeat(np.arange(8), 500))
    change = Interval(-0.001, -0.004, 0.002)
    assert under_one_point(change, 5000, 0.01, DENSE, 0.1, few) == (
        "cannot say",
        "5 speakers or recordings are too few; it takes 6",
    )
    assert beats(Interval(0.05, 0.02, 0.08), 1000, DENSE, 0.1, groups=few)[0] == "cannot say"
    assert beats(Interval(0.05, 0.02, 0.08), 4000, DENSE, 0.1, groups=enough) == ("better", None)
    assert within_margin(Interval(-0.2, -0.3, -0.1), 4000, None, enough) is None
    wide = Interval(-0.001, -0.024, 0.022)
    error = 0.023 / stats.t.ppf(0.975, 7)
    share = 4000 * error**2 + 0.001**2
    assert discordance(wide, 4000, enough) == pytest.approx(share)
    wanted = math.ceil(8 * clips_needed(share) / 4000)
    why = f"8 speakers or recordings were seen, and a margin of one point takes about {wanted} that differ as these do"
    assert under_one_point(wide, 4000, 0.01, DENSE, 0.1, enough) == ("cannot say", why)
    assert too_few_clips(3924, 0.05, enough) is not None and too_few_clips(3925, 0.05, enough) is None
