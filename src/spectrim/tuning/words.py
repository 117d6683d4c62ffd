"""What was found, in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spectrim.comparison.methods import ATTENTION
from spectrim.comparison.rows import Row
from spectrim.stats.ground import CANNOT_SAY, SAID
from spectrim.tuning.promise import AgainstRandom, Bound


def told_in_words(
    facts: Mapping[str, Any],
    final: Sequence[Row],
    chosen: str,
    references: Sequence[str],
    bound: Bound,
    random: AgainstRandom | None,
) -> list[str]:
    """One sentence each: what was chosen, what it loses and can stand for, whether its ranking is worth anything.

    Args:
        facts: of the run.
        final: rows that were timed anew.
        chosen: name of the chosen point.
        references: names of the best uniform points.
        bound: of the loss.
        random: the chosen point against random pruning; None where it is random pruning.
    """
    rows = {row["name"]: row for row in final}
    row, dense = rows[chosen], final[0]
    told = [
        f"Chosen: {chosen} (block:keep rate), {row['speed_up']:.2f}× as fast as the dense model (quartiles of the "
        f"rounds {row['speed_up_q1']:.2f} to {row['speed_up_q3']:.2f}), {row['ms']:.2f} instead of "
        f"{dense['ms']:.2f} ms a clip in passes of {facts['clips_at_once']}, {facts['speed_of']}.",
        f"On the {bound.clips:,} held-out clips {facts['metric']} is {100 * row['held_metric']:.1f} % where the dense "
        f"model has {100 * dense['held_metric']:.1f} %: {_lost(bound.drop)}; on the half to choose on it was "
        f"{_lost(row['drop'])}.",
        _bound_in_words(bound),
    ]
    if groups := facts["lost_by_group"]:
        ends = f"{100 * min(groups.values()):.1f} to {100 * max(groups.values()):.1f}"
        told.append(
            f"The held-out clips are of {len(groups)} speakers or longer recordings, which lost {ends} points each."
        )
    told.append(_random_in_words(random))
    best = "the fastest" if facts["min_speedup"] is None else "the one that loses least"
    told += [_beside_uniform(rows[name], row, best) for name in references if name != chosen]
    if not references:
        told.append(f"At the model's own blocks no single keep rate meets the target, {facts['target']}.")
    return told


def _lost(drop: float) -> str:
    return f"{100 * drop:.1f} points lost" if drop >= 0 else f"{-100 * drop:.1f} points won"


def _bound_in_words(bound: Bound) -> str:
    wanted = f"{100 * bound.wanted:g} point{'' if bound.wanted == 0.01 else 's'}"
    if bound.most is None:
        return f"What is lost cannot be bounded ({bound.how})."
    start = (
        f"With {100 * bound.confidence:.0f} % confidence no more than {100 * bound.most:.1f} points are lost on clips "
        f"like these ({bound.how})"
    )
    if bound.most <= bound.wanted:
        return f"{start}: {wanted} can be promised."
    if bound.clips_needed is None:
        return f"{start}: {wanted} cannot be promised, and as much was lost that no number of clips would change it."
    others = ", of other speakers or recordings" if bound.groups else ""
    return (
        f"{start}: {wanted} cannot be promised; with shares as here that takes about {bound.clips_needed:,} held-out "
        f"clips, {bound.clips_needed - bound.clips:,} more{others}."
    )


def _random_in_words(random: AgainstRandom | None) -> str:
    if random is None:
        return "The chosen point drops patches at random: on these clips no ranking was found that does better."
    beside = f"dropping at the same blocks and rates at random, {random.draws} draws"
    start = f"Its ranking is {random.said} than {beside}"
    if random.said not in SAID:
        start = f"{CANNOT_SAY.capitalize()} whether its ranking is better than {beside}"
    span = f"95 % interval {100 * random.over.low:+.1f} … {100 * random.over.high:+.1f}"
    why = f": {random.why}" if random.why else ""
    return f"{start}: {100 * random.over.value:+.1f} points, {span}{why}."


def _beside_uniform(uniform: Row, row: Row, best: str) -> str:
    by = " and its attention" if uniform["method"] == ATTENTION else ""
    return (
        f"The chosen point is {uniform['chosen_is_faster']:.2f}× as fast as {uniform['name']}, {best} within the "
        f"target with one keep rate at the model's own blocks{by} ({uniform['speed_up']:.2f}× the dense model; held "
        f"out: {_lost(uniform['held_drop'])}, the chosen one {_lost(row['held_drop'])})."
    )
