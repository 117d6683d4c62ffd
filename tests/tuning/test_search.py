"""The search, on losses and costs that are known in closed form."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from spectrim.backbones import ast_base
from spectrim.comparison.methods import read_methods
from spectrim.network.macs import macs
from spectrim.pruning.pruning import Pruning
from spectrim.tuning.costs import by_macs, fitted
from spectrim.tuning.run import _candidates, _finalists
from spectrim.tuning.search import Answer, Tried, descend, front, spread_over
from spectrim.tuning.settings import LEVELS, Target, described, point_of

OWN = Pruning(1.0, (1,))
DEPTH = 4
CONFIG = ast_base(
    hidden_size=64, num_attention_heads=4, intermediate_size=128, num_hidden_layers=DEPTH, prune_at=[1], max_length=256
)


def price(block: int) -> float:
    """Block 2 is free to prune, 0 the dearest."""
    return (4.0, 2.0, 0.0, 1.0)[block]


def ask(point: Pruning) -> Answer:
    loss = sum(price(block) * (1 - rate) for block, rate in point.rates.items())
    return Answer(loss, 1.0 - loss / 10)


def test_it_prunes_where_a_saved_second_costs_least() -> None:
    (method, _) = read_methods(["variation", "random"])
    way = descend(method, OWN, DEPTH, ask, by_macs(CONFIG), lambda here: here.answer.metric < 0.9)
    assert way[0].point == point_of(method, OWN, (1.0,) * DEPTH)
    assert {block for block, rate in way[1].point.rates.items() if rate < 1.0} == {2}
    assert way[-1].rates[2] == LEVELS[-1]
    costs = [one.seconds for one in way]
    assert costs == sorted(costs, reverse=True)
    assert all(before - after >= 0.02 * costs[0] for before, after in itertools.pairwise(costs))
    assert way[-1].answer.metric < 0.9 <= way[-2].answer.metric


def test_every_step_is_the_cheapest_that_there_is() -> None:
    """Prices that stay as they are make the lazy search the greedy one."""
    (method, _) = read_methods(["variation", "random"])
    costs = by_macs(CONFIG)
    way = descend(method, OWN, DEPTH, ask, costs, lambda here: here.answer.metric < 0.9)
    for before, after in itertools.pairwise(way):
        taken = (after.answer.loss - before.answer.loss) / (before.seconds - after.seconds)
        for block in range(DEPTH):
            for level in LEVELS:
                rates = (*before.rates[:block], level, *before.rates[block + 1 :])
                point = point_of(method, OWN, rates)
                if level < before.rates[block] and before.seconds - costs.seconds(point) >= 0.02 * way[0].seconds:
                    other = (ask(point).loss - before.answer.loss) / (before.seconds - costs.seconds(point))
                    assert taken <= other + 1e-12
                    break


def test_a_reducer_that_cannot_go_lower_is_not_sent_there() -> None:
    (method, _) = read_methods(["merge", "random"])
    way = descend(method, OWN, DEPTH, ask, by_macs(CONFIG), lambda here: False)
    assert min(way[-1].rates) >= 0.5
    way[-1].point.check(DEPTH)


def test_the_front_holds_what_no_other_beats_in_both() -> None:
    generator = np.random.default_rng(0)
    costs, values = generator.random((2, 40)).tolist()
    beaten = [any(costs[b] <= costs[a] and values[b] >= values[a] and a != b for b in range(40)) for a in range(40)]
    found = front(costs, values)
    assert sorted(found) == [place for place in range(40) if not beaten[place]]
    assert [costs[place] for place in found] == sorted((costs[place] for place in found), reverse=True)
    few = spread_over(found, costs, 3)
    assert len(few) <= 3 and {few[0], few[-1]} == {found[0], found[-1]}


def test_costs_are_found_again_from_times_that_they_made() -> None:
    methods = read_methods(["variation", "merge", "cls_attention_so_far", "random"])[:3]
    points = [point_of(methods[0], OWN, (1.0,) * DEPTH)]
    for method in methods:
        points += [point_of(method, OWN, rates) for rates in ((1, 0.5, 1, 1), (1, 0.7, 0.7, 1), (0.9, 0.9, 0.9, 0.9))]
    each = {"variation": 2e-3, "auto": 5e-3, "cls_attention_so_far": 3e-3}

    def true(point: Pruning) -> float:
        pruning = [block for block, rate in point.rates.items() if rate < 1.0]
        blocks = len(pruning)
        if point.criterion == "cls_attention_so_far" and pruning:
            blocks = pruning[-1] + 1  # those before it score too
        return 1e-2 + 1e-9 * macs(CONFIG, pruning=point).executed + blocks * each[point.criterion]

    costs = fitted(CONFIG, points, [true(point) for point in points])
    for method in methods:
        fresh = point_of(method, OWN, (1, 0.6, 1, 0.8))
        assert costs.seconds(fresh) == pytest.approx(true(fresh), rel=1e-6)
    assert costs.each_block["auto", "merge"] == pytest.approx(5e-3)


def test_a_point_is_called_by_its_method_and_its_blocks() -> None:
    (method, _) = read_methods(["attention+fuse", "random"])
    point = point_of(method, OWN, (1.0, 0.7, 1.0, 0.25))
    assert described(method.name, point) == "attention+fuse 1:0.7 3:0.25"
    assert (point.at, point.keep_rate, point.reducer) == ((1, 3), (0.7, 0.25), "fuse")


def test_a_point_that_both_ways_lead_to_is_one_candidate() -> None:
    """Of the comparison at the model's own blocks, in whatever order they stand, and of the search."""
    (method, _) = read_methods(["variation", "random"])
    own = Pruning(1.0, (3, 1))
    searched = point_of(method, own, (1.0, 0.7, 1.0, 0.7))
    assert (searched.at, searched.keep_rate) == ((1, 3), 0.7)
    setting: Any = SimpleNamespace(
        backend=SimpleNamespace(pruning=own),
        search=SimpleNamespace(metric="accuracy"),
        runtime=SimpleNamespace(exports=True),
        depth=DEPTH,
        runnable=list,
    )
    row = {"method": "variation", "keep_rate": 0.7, "macs_saved": 0.2, "accuracy": 0.8}
    found = Tried(method, (1.0, 0.7, 1.0, 0.7), searched, 1.0, ask(searched))
    names = [one.name for one in _candidates(setting, [row], [found], [method])]
    assert names == ["dense", "variation 1:0.7 3:0.7"]


def of_method(name: str, saved: Sequence[float], lost: float = 0.0) -> list[dict[str, Any]]:
    """Rows of a method that loses half a point for each point of the MACs saved, and ``lost`` beside them."""
    return [{"method": name, "macs_saved": share, "accuracy": 0.95 - share / 2 - lost} for share in saved]


DENSE_ROW = {"method": "dense", "macs_saved": 0.0, "accuracy": 0.95}


def test_finalists_are_compared_where_all_of_them_save_as_much() -> None:
    """A method that is worse everywhere does not win because it never gets to where the others lose more."""
    methods = read_methods(["merge", "variation", "random"])
    late = [0.019, 0.055, 0.091, 0.127]
    rows = [DENSE_ROW, *of_method("variation", late), *of_method("random", late, 0.02)]
    rows += of_method("merge", late[:3], 0.01)
    assert [method.name for method in _finalists(rows, methods, 3)] == ["variation", "merge", "random"]


def test_finalists_are_compared_at_the_savings_that_all_reach() -> None:
    """Better up to a half of the MACs is better, whatever comes beyond."""
    methods = read_methods(["intensity", "variation", "random"])
    early, further = of_method("intensity", [0.1, 0.3, 0.5], 0.01), of_method("variation", [0.1, 0.3, 0.5], 0.02)
    further += of_method("variation", [0.6], -0.3)
    rows = [DENSE_ROW, *of_method("random", [0.1, 0.3, 0.5, 0.6], 0.03), *early, *further]
    assert [method.name for method in _finalists(rows, methods, 3)] == ["intensity", "variation", "random"]


def test_a_method_that_saves_nothing_is_the_last_of_the_finalists() -> None:
    methods = read_methods(["cluster", "merge", "variation", "random"])
    rows = [DENSE_ROW, *of_method("cluster", [-0.02, -0.01]), *of_method("variation", [0.1, 0.6])]
    rows += of_method("random", [0.1, 0.6], 0.01)
    assert [method.name for method in _finalists(rows, methods, 2)] == ["variation", "random"]
    assert len(_finalists(rows[:3], methods, 2)) == 2


def test_a_target_is_one_of_two() -> None:
    assert Target().max_drop == 1.0
    assert Target(max_drop=2.0).met(0.02, 1.5) and not Target(max_drop=2.0).met(0.021, 1.5)
    assert not Target(max_drop=2.0).met(0.0, 1.0)
    assert Target(min_speedup=1.5).met(0.5, 1.5) and not Target(min_speedup=1.5).met(0.0, 1.49)
