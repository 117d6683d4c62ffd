"""The search: step by step to fewer tokens, always where a saved second costs least."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spectrim.comparison.methods import Method
from spectrim.errors import InvalidSetting
from spectrim.pruning.pruning import Pruning
from spectrim.tuning.costs import Costs
from spectrim.tuning.settings import LEVELS, Rates, point_of

STEP = 0.02
"""Share of the dense model's time that one step saves, at least."""

MOST_STEPS = 60


@dataclass(frozen=True)
class Answer:
    """What a model says at a point about the clips that the search hears.

    Attributes:
        loss: mean cross-entropy of a clip, which changes with every patch, where accuracy moves in jumps.
        metric: accuracy or mAP.
    """

    loss: float
    metric: float


@dataclass(frozen=True)
class Tried:
    """A point that was looked at.

    Attributes:
        method: what ranks and reduces.
        rates: of every block.
        point: the same as a value.
        seconds: that a pass is expected to take.
        answer: what came out.
    """

    method: Method
    rates: Rates
    point: Pruning
    seconds: float
    answer: Answer


def descend(
    method: Method,
    own: Pruning,
    depth: int,
    ask: Callable[[Pruning], Answer],
    costs: Costs,
    enough: Callable[[Tried], bool],
    predictors: Sequence[int] = (),
) -> list[Tried]:
    """From the dense model down: each step lowers the keep rate of one block to its mildest level that saves `STEP`.

    The block is the one whose loss rises least for a second saved. A block's price is looked up anew only while it
    could be the lowest: prices of the last step are taken as likely until they are (lazy greedy search; Minoux, 1978).

    Args:
        method: what ranks and reduces; one criterion and reducer for all blocks.
        own: the model's operating point, whose treatment of padding holds.
        depth: number of blocks.
        ask: tells what comes out at a point.
        costs: of points.
        enough: whether to stop at a point.
        predictors: blocks that have one, for the reducer that asks them.

    Returns:
        The points of the way, the dense model first.
    """
    rates: Rates = (1.0,) * depth
    here = _tried(method, own, rates, ask, costs)
    way, dense_seconds = [here], here.seconds
    likely: dict[int, float] = {}
    while not enough(here) and len(way) <= MOST_STEPS:
        moves = _moves(here, own, costs, STEP * dense_seconds, predictors)
        waiting = [(likely.get(block, float("-inf")), block) for block in moves]
        heapq.heapify(waiting)
        seen: dict[int, Tried] = {}
        while waiting and waiting[0][1] not in seen:
            _, block = heapq.heappop(waiting)
            seen[block] = _tried(method, own, moves[block], ask, costs)
            saved = here.seconds - seen[block].seconds
            likely[block] = (seen[block].answer.loss - here.answer.loss) / saved
            heapq.heappush(waiting, (likely[block], block))
        if not waiting:
            break
        here = seen[waiting[0][1]]
        way.append(here)
    return way


def _tried(method: Method, own: Pruning, rates: Rates, ask: Callable[[Pruning], Answer], costs: Costs) -> Tried:
    point = point_of(method, own, rates)
    return Tried(method, rates, point, costs.seconds(point), ask(point))


def _moves(here: Tried, own: Pruning, costs: Costs, least: float, predictors: Sequence[int]) -> dict[int, Rates]:
    """Block → rates with that block's at its mildest level that saves so many seconds, where there is one."""
    found = {}
    for block, rate in enumerate(here.rates):
        for level in LEVELS:
            if level >= rate:
                continue
            rates = (*here.rates[:block], level, *here.rates[block + 1 :])
            point = point_of(here.method, own, rates)
            try:
                point.check(len(rates), predictors=predictors)
            except InvalidSetting:
                break
            if here.seconds - costs.seconds(point) >= least:
                found[block] = rates
                break
    return found


def front(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """Places of the points that no other beats in both, dearest first: the Pareto front.

    Args:
        costs: lower is better.
        values: higher is better.
    """
    best, found = float("-inf"), []
    for place in sorted(range(len(costs)), key=lambda place: (costs[place], -values[place])):
        if values[place] > best:
            best = values[place]
            found.append(place)
    return found[::-1]


def spread_over(places: Sequence[int], costs: Sequence[float], most: int) -> list[int]:
    """At most so many of a front's places, evenly over their costs, the ends among them."""
    if len(places) <= most:
        return list(places)
    ends = costs[places[0]], costs[places[-1]]
    wanted = [ends[0] + (ends[1] - ends[0]) * step / (most - 1) for step in range(most)]
    nearest = [min(places, key=lambda place: abs(costs[place] - cost)) for cost in wanted]
    return list(dict.fromkeys(nearest))
