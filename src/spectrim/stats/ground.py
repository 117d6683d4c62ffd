"""What an answer of yes or no needs: an interval, clips enough, and a model that has learnt something.

How many clips a margin of one point takes follows from the discordance d, the share of clips on which exactly one of
two models is right. The difference of their accuracies then has a variance of about d / n, and a difference of a
margin m is found in 80 % of all experiments, at 95 % confidence, from n = (1.96 + 0.84)² · d / m² clips on: for one
point about 785 for each per cent of discordance. Where hardly a clip is discordant, that asks for few clips, and a
bootstrap of them for none: so a loss of one point must also be what a score test excludes (`clips_to_exclude`).

Where clips come in groups that are not independent, the groups are what was seen: it takes
`spectrim.stats.groups.FEWEST_GROUPS` of them, and the discordance that counts is the one that the interval over groups
amounts to, in which their spread is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from spectrim.stats.bootstrap import CONFIDENCE
from spectrim.stats.groups import Groups
from spectrim.stats.t_intervals import FEWEST, Mean

CANNOT_SAY = "cannot say"

SAID = {"better": "better than random", "worse": "worse than random", "no better": "no better than random"}
"""What `beats` says of a ranking beside random pruning, in words."""

MARGIN = 0.01
"""One point."""

FEWEST_CLIPS = 30
"""Clips below which percentiles of a bootstrap are no intervals."""

ABOVE_CHANCE = 0.05
"""What a dense model must reach above chance, with the lower end of its interval, to have something to lose."""

_QUANTILES = 1.959964 + 0.841621
"""Of the normal distribution: two-sided 95 % confidence, and a power of 80 %."""
_REACH = 1.959964


class Interval(NamedTuple):
    """A value with its 95 % interval; the ends are NaN where there is none."""

    value: float
    low: float
    high: float

    def columns(self, name: str) -> dict[str, float | None]:
        """Of a table: ``name``, ``name_low`` and ``name_high``, with None for what is not finite."""
        values = (value if math.isfinite(value) else None for value in self)
        return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def clips_needed(discordance: float, margin: float = MARGIN) -> int:
    """Clips from which on a difference of ``margin`` is found: about 785 · discordance in % for one point."""
    return math.ceil(_QUANTILES**2 * discordance / margin**2 - 1e-9)


def clips_to_exclude(change: float, discordance: float, margin: float = MARGIN) -> int:
    """Clips from which on a score test excludes a loss of ``margin``, if these shares stay as they are (Tango, 1998).

    Its variance is that under a loss of ``margin``, so that one discordant clip, or none, does not stand for certainty:
    with losses alone it takes about 3.84 / margin clips, at most one in 40 of which would lose so few by chance.

    Args:
        change: of the accuracy, as a share; above -``margin``.
        discordance: share of clips on which exactly one of two models is right; at least the change.
        margin: the loss to be excluded.
    """
    share = max(discordance, abs(change))
    gained = (share + change) / 2
    middle = (2 + change) * margin - share
    least = (math.sqrt(middle**2 + 8 * gained * margin * (1 - margin)) - middle) / 4  # share of gains at that loss
    return math.ceil(_REACH**2 * (2 * least + margin * (1 - margin)) / (margin + change) ** 2 - 1e-9)


def discordance(change: Interval, clips: int, groups: Groups | None = None) -> float:
    """The share of discordant clips that an interval of a change over so many clips amounts to.

    For accuracy the variance of the change is (d − change²) / n, so that this is the share itself, but for resampling.
    Over groups it is the share that clips which are independent would have for the same standard error.
    """
    reach = _REACH if groups is None else groups.reach(CONFIDENCE)
    error = (change.high - change.low) / (2 * reach)
    return clips * error**2 + change.value**2


def no_interval(interval: Interval) -> str | None:
    """Why an interval says nothing, or None: there is none, or it has no width."""
    if not (math.isfinite(interval.low) and math.isfinite(interval.high)):
        return "there is no interval"
    if interval.low == interval.high:
        return "the interval has no width"
    return None


def near_chance(dense: Interval, chance: float) -> str | None:
    """Why a dense model has too little to lose, or None."""
    low = dense.low if math.isfinite(dense.low) else dense.value
    if low < chance + ABOVE_CHANCE:
        return (
            f"the dense model, {100 * dense.value:.1f} %, is near chance, {100 * chance:.1f} %: its interval must "
            f"begin {100 * ABOVE_CHANCE:g} points above"
        )
    return None


def too_few_clips(
    clips: int, share: float | None = None, groups: Groups | None = None, change: float | None = None
) -> str | None:
    """Why there are too few clips, or groups of them, or None.

    Args:
        clips: how many were seen.
        share: their discordance, for a claim with a margin of one point; else None.
        groups: of the clips that are not independent.
        change: as a share, where the claim is that less than one point is lost; else None.
    """
    if groups is not None and groups.too_few is not None:
        return groups.too_few
    if clips < FEWEST_CLIPS:
        return f"{clips} clips were seen, and it takes {FEWEST_CLIPS} at least"
    needed = 0 if share is None else clips_needed(share)
    if share is not None and change is not None:
        needed = max(needed, clips_to_exclude(change, share))
    if share is not None and clips < needed:
        if groups is not None:
            more = math.ceil(groups.number * needed / clips)
            return (
                f"{groups.number:,} speakers or recordings were seen, and a margin of one point takes about {more:,} "
                "that differ as these do"
            )
        return (
            f"{clips:,} clips were seen, and a margin of one point takes about {needed:,} at a discordance of "
            f"{100 * share:.1f} %"
        )
    return None


def within_margin(
    change: Interval, clips: int | None, share: float | None = None, groups: Groups | None = None
) -> str | None:
    """Why it cannot be said whether a change stays within a loss of one point, or None.

    A loss that is beyond one point with its whole interval is one, however few clips it was seen on.

    Args:
        change: of the metric, a share, pruned minus dense; or against another ranking.
        clips: how many were seen; None where that is not known.
        share: their discordance; None to take it from the interval.
        groups: of the clips that are not independent.
    """
    reason = (None if groups is None else groups.too_few) or no_interval(change)
    if reason is not None or clips is None:
        return reason
    if change.high < -MARGIN:
        return too_few_clips(clips, groups=groups)
    within = change.value if change.low > -MARGIN else None
    return too_few_clips(clips, _discordance(change, clips, share, groups), groups, within)


def _discordance(change: Interval, clips: int, share: float | None, groups: Groups | None) -> float:
    """The discordance that counts: as it is given, else by the interval; over groups whichever is larger."""
    if groups is None:
        return discordance(change, clips) if share is None else share
    return max(share or 0.0, discordance(change, clips, groups))


def under_one_point(
    change: Interval,
    clips: int | None,
    share: float | None,
    dense: Interval,
    chance: float,
    groups: Groups | None = None,
) -> tuple[str, str | None]:
    """Whether less than one point is lost against the dense model, and why that cannot be said.

    Args:
        change, clips, share, groups: as for `within_margin`.
        dense: metric of the dense model.
        chance: what the metric comes to by chance.

    Returns:
        ``"yes"``, ``"no"``, ``"unclear"`` or `CANNOT_SAY`, and the reason for the last.
    """
    why = within_margin(change, clips, share, groups) or near_chance(dense, chance)
    if why:
        return CANNOT_SAY, why
    return "yes" if change.low > -MARGIN else "no" if change.high < -MARGIN else "unclear", None


def beats(
    change: Interval,
    clips: int,
    dense: Interval,
    chance: float,
    share: float | None = None,
    groups: Groups | None = None,
) -> tuple[str, str | None]:
    """Whether something is better than a baseline on the same clips, and why that cannot be said.

    An interval on one side of nought is an answer, however few the clips are, from `FEWEST_CLIPS` on, and from
    `spectrim.stats.groups.FEWEST_GROUPS` on where they come in groups. "No better" takes more: that a difference of one
    point would have shown: the whole interval lies below one, and a score test excludes it (`clips_to_exclude`).

    Args:
        change: of the metric, minus the baseline's, with its paired interval.
        clips: how many were seen.
        dense: metric of the dense model.
        chance: what the metric comes to by chance.
        share: discordance of the two; None to take it from the interval.
        groups: of the clips that are not independent.

    Returns:
        ``"better"``, ``"worse"``, ``"no better"`` or `CANNOT_SAY`, and the reason for the last.
    """
    few = None if groups is None else groups.too_few
    why = few or no_interval(change) or near_chance(dense, chance) or too_few_clips(clips)
    if why:
        return CANNOT_SAY, why
    if change.low > 0:
        return "better", None
    if change.high < 0:
        return "worse", None
    apart = _discordance(change, clips, share, groups)
    below = -change.value if change.high < MARGIN else None
    if below is not None and clips >= clips_to_exclude(below, apart):
        return "no better", None
    why = too_few_clips(clips, apart, groups, below)
    return CANNOT_SAY, why or "the interval holds both nought and one point"


def against_random(found: Iterable[tuple[str, float, str]]) -> list[str]:
    """One sentence a ranking: at which keep rates it is better than random pruning, worse, no better, or none can say.

    Args:
        found: name of the ranking, keep rate, and what `beats` says of it beside random pruning at that rate.
    """
    rates: dict[str, dict[str, list[str]]] = {}
    for name, rate, said in found:
        rates.setdefault(name, {}).setdefault(said, []).append(f"{rate:g}")
    order = [*SAID, CANNOT_SAY]
    return [
        f"{name}: "
        + "; ".join(
            f"{SAID.get(said, f'{CANNOT_SAY} whether better than random')} at r={', '.join(told[said])}"
            for said in sorted(told, key=order.index)
        )
        + "."
        for name, told in rates.items()
    ]


def over_runs(
    lost: Mean, losses: Sequence[float], *, clips: int, dense: Mean | None = None, chance: float | None = None
) -> str | None:
    """Why runs cannot say whether less than one point is lost, or None.

    What a run lost is the least that its discordance can be, so that fewer clips than that takes are too few for sure.

    Args:
        lost: mean of the points that the runs lost.
        losses: of each run, in points.
        clips: test clips over all folds, each counted once.
        dense: score of the dense models in points; None where it does not matter.
        chance: a share; None where it is not known.
    """
    if lost.runs < FEWEST:
        return "one run" if lost.runs == 1 else f"{lost.runs} runs"
    if lost.low == lost.high:
        return "the interval has no width"
    if dense is not None and chance is not None:
        ends = (dense.value, dense.low, dense.high)
        reason = near_chance(Interval(*(end / 100 for end in ends)), chance)
        if reason is not None:
            return reason
    beyond = lost.low >= 100 * MARGIN
    least = sum(map(abs, losses)) / len(losses) / 100
    reason = too_few_clips(clips, None if beyond else least)
    return None if reason is None else reason.replace("about", "at least").replace("discordance of", "discordance from")
