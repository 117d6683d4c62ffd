"""Names of methods, and the rows that they give."""

from __future__ import annotations

import pytest

from spectrim.comparison.methods import DEFAULT_METHODS, fitting, names_method, plan_cases, read_methods
from spectrim.errors import InvalidSetting
from spectrim.pruning.plan import Encoder
from spectrim.pruning.pruning import Pruning

OWN = Pruning(0.9, (1, 2), drop_padding=True)


def cases_of(*names: str, rates: tuple[float, ...] = (0.7, 0.4), draws: int = 3) -> tuple[dict, dict]:
    cases, left_out = plan_cases(read_methods(names), rates, OWN, 4, "cls_attention", columns=8, draws=draws)
    return {(case.method, case.keep_rate): case for case in cases}, left_out


def test_a_name_is_a_criterion_a_reducer_or_both() -> None:
    read = {method.name: (method.criterion, method.reducer) for method in read_methods(DEFAULT_METHODS)}
    assert read["attention"] == ("auto", "drop")
    assert read["variation"] == ("variation", "drop")
    assert read["fuse"] == ("auto", "fuse")
    assert read["value_norm"] == ("value_norm", "drop") and "cls_head_median" not in read
    (joined,) = (method for method in read_methods(["mean_attention+fuse"]) if "+" in method.name)
    assert (joined.criterion, joined.reducer) == ("mean_attention", "fuse")


def test_random_is_always_there_with_its_draws_and_dense_comes_first() -> None:
    found, left_out = cases_of("intensity")
    assert list(found) == [("dense", 1.0), *((name, r) for name in ("intensity", "random") for r in (0.7, 0.4))]
    assert [point.seed for point in found["random", 0.4].points] == [0, 1, 2]
    assert found["intensity", 0.7].points == (Pruning(0.7, (1, 2), "intensity", drop_padding=True),)
    assert not left_out


def test_a_rate_that_a_method_does_not_reach_is_left_out_with_the_reason() -> None:
    found, left_out = cases_of("merge")
    assert ("merge", 0.7) in found and ("merge", 0.4) not in found
    assert "0.5 to 1" in left_out["merge at keep rate 0.4"]
    assert not found["merge", 0.7].selects and found["random", 0.7].selects
    found, left_out = cases_of("merge", rates=(0.4,))
    assert list(found) == [("dense", 1.0), ("random", 0.4)] and len(left_out) == 1


@pytest.mark.parametrize(
    ("names", "rates", "message"),
    [
        (["atention"], (0.5,), "attention"),
        (["attention+fus"], (0.5,), "fuse"),
        (["attention", "attention"], (0.5,), "each method once"),
        (["attention", "cls_attention"], (0.5,), "'attention' is the same"),
        (["random+fuse"], (0.5,), "weighs tokens by a block's attention"),
        (["intensity+merge"], (0.5,), "reads no scores"),
        (["intensity/1"], (0.5,), "parts along time from 2"),
        (["merge/8"], (0.5,), "parts along time from 2"),
        (["intensity/8", "intensity/8"], (0.5,), "each method once"),
        (["intensity/9"], (0.5,), "time_segments is 9"),
        (["attention"], (1.0,), "below 1"),
        (["attention"], (0.0,), "keep_rate"),
        ([], (0.5,), "methods"),
    ],
)
def test_what_cannot_be_compared_is_refused_by_name(names: list[str], rates: tuple[float, ...], message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        cases_of(*names, rates=rates)


def test_a_number_behind_a_criterion_is_a_quota_for_so_many_parts() -> None:
    found, _ = cases_of("intensity/4", "intensity", "attention/4+fuse", "random/2")
    assert found["intensity/4", 0.7].points == (Pruning(0.7, (1, 2), "intensity", time_segments=4, drop_padding=True),)
    assert found["intensity", 0.7].points[0].time_segments == found["random", 0.7].points[0].time_segments == 1
    joined = found["attention/4+fuse", 0.4].points[0]
    assert (joined.criterion, joined.reducer, joined.time_segments) == ("auto", "fuse", 4)
    assert [point.seed for point in found["random/2", 0.4].points] == [0, 1, 2]


@pytest.mark.parametrize(
    ("name", "known"),
    [("attention/4", True), (" auto ", True), ("auto/2+fuse", True), ("tuned", False), ("tuned/4", False), ("", False)],
)
def test_a_run_cannot_have_the_name_of_a_method(name: str, known: bool) -> None:
    """Both would be "attention/4 at keep rate 0.7", and the method be measured with the weights of the run."""
    assert names_method(name) == known


def test_one_draw_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="2 or more"):
        cases_of("attention", draws=1)


def test_a_reducer_that_asks_predictors_is_for_models_that_have_them() -> None:
    chosen = read_methods(["dynamicvit"])
    cases, _ = plan_cases(chosen, [0.5], OWN, 4, "cls_attention", predictors=OWN.at)
    assert [case.method for case in cases] == ["dense", "dynamicvit", "random"] and cases[1].selects
    with pytest.raises(InvalidSetting, match="this model has no predictors"):
        plan_cases(chosen, [0.5], OWN, 4, "cls_attention", predictors=[])
    assert "dynamicvit" not in DEFAULT_METHODS


def test_what_a_kind_of_model_cannot_have_is_left_out_with_the_reason() -> None:
    """Without a [CLS] none can be asked, and a token made of several patches has no distance to another."""
    encoder = Encoder(4, 0, "patches", "mean_attention", 64, 4, 8, placed=True)
    names = ["attention", "cls_attention", "variation/4", "value_norm+fuse", "cluster", "random"]
    chosen, unfit = fitting(read_methods(names), OWN, encoder)
    assert [method.name for method in chosen] == ["attention", "variation/4", "random"]
    assert list(unfit) == ["cls_attention", "value_norm+fuse", "cluster"]
    assert "no [CLS]" in unfit["cls_attention"] and "has no place" in unfit["cluster"]
    assert fitting(read_methods(names), OWN, encoder._replace(extra=1, placed=False)) == (read_methods(names), {})
