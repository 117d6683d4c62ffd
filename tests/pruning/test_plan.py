"""Plans of blocks."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectrim.backbones import ast_base, audiomae_base
from spectrim.checkpoints import from_pretrained
from spectrim.errors import InvalidSetting
from spectrim.pruning.pruning import Pruning, given_pruning
from spectrim.pruning.reducers import REDUCERS


@settings(deadline=None)
@given(
    patches=st.integers(1, 1500),
    pruning=st.dictionaries(st.integers(0, 11), st.floats(1e-3, 1.0), max_size=12),
)
def test_every_block_takes_the_ceiling_of_its_own_rate(patches: int, pruning: dict[int, float]) -> None:
    config = ast_base(prune_at=list(pruning), keep_rate=list(pruning.values()))
    plans = config.plan(patches)
    assert len(plans) == 12
    alive = patches
    for block, plan in enumerate(plans):
        assert plan.patches_in == alive
        alive = math.ceil(pruning.get(block, 1.0) * alive)
        assert plan.patches_kept == alive >= 1
        assert plan.prunes == (pruning.get(block, 1.0) < 1.0)
        assert plan.keep_rate == pruning.get(block, 1.0)


@pytest.mark.parametrize("criterion", ["cls_attention", "cls_attention_so_far"])
def test_scores_are_computed_where_they_decide_and_before_where_they_count(criterion: str) -> None:
    so_far = criterion.endswith("so_far")
    plans = ast_base(keep_rate=[0.7, 0.5, 1.0], criterion=criterion).plan(64)
    assert [block for block, plan in enumerate(plans) if plan.scores] == (list(range(7)) if so_far else [3, 6])
    assert [plan.averaged for plan in plans] == (list(range(1, 13)) if so_far else [1] * 12)
    assert not any(plan.scores for plan in ast_base(criterion=criterion).plan(64))
    assert not any(plan.scores for plan in ast_base(keep_rate=0.5, reducer="merge").plan(64))


def test_the_order_in_which_blocks_are_named_does_not_matter() -> None:
    forward = ast_base(prune_at=[3, 6, 9], keep_rate=[0.9, 0.5, 0.7])
    backward = ast_base(prune_at=[9, 3, 6], keep_rate=[0.7, 0.9, 0.5])
    assert forward.plan(512) == backward.plan(512)


def test_the_last_block_computes_what_the_head_reads() -> None:
    for config, read in ((ast_base(keep_rate=0.5), "extra"), (audiomae_base(keep_rate=0.5), "patches")):
        assert [plan.emits for plan in config.plan(512)] == ["all"] * 11 + [read]
        assert [plan.emits for plan in config.plan(full_output=True)] == ["all"] * 12
        assert {plan.criterion for plan in config.plan(512)} == {config.resolved_criterion}


def test_a_rate_given_for_one_pass_stands_above_the_configured_one() -> None:
    config = ast_base(keep_rate=0.5)
    assert [plan.patches_kept for plan in config.plan(512)][-1] == 64
    assert config.plan(512, Pruning())[-1].patches_kept == 512
    assert config.plan(512, Pruning([1.0, 0.25, 1.0]))[-1].patches_kept == 128
    for wrong in (0, 1.01, [0.5], "0.5", float("nan"), True):
        with pytest.raises(InvalidSetting, match="keep_rate"):
            config.plan(512, config.pruning.changed({"keep_rate": wrong}))
    assert config.keep_rate == 0.5


@pytest.mark.parametrize("rates", [np.array([0.75, 0.5]), torch.tensor([0.75, 0.5])])
def test_an_array_of_keep_rates_is_told_to_become_a_list(rates: np.ndarray | torch.Tensor) -> None:
    with pytest.raises(InvalidSetting, match=r"keep_rate is .*a number in \(0, 1\], or a list of them: \.tolist\(\)"):
        Pruning(rates, at=(2, 5))
    assert Pruning(rates.tolist(), at=(2, 5)).rates == {2: 0.75, 5: 0.5}
    assert Pruning(np.float32(0.5)) == Pruning(0.5)


def test_the_public_codes_gather_loses_the_extra_tokens_every_time() -> None:
    for config, extra in ((ast_base, 2), (audiomae_base, 1)):
        plans = config(keep_rate=0.5, criterion="intensity", reference_compat=True).plan(64)
        tokens, counts = 64 + extra, []
        for _ in range(3):
            tokens = math.ceil(0.5 * (tokens - extra))
            counts.append(tokens - extra)
        assert [plans[block].patches_kept for block in (3, 6, 9)] == counts


def test_a_rate_that_leaves_the_head_nothing_is_refused_only_with_reference_compat() -> None:
    fields = {"keep_rate": 0.1, "criterion": "variation"}
    for build in (ast_base, audiomae_base):
        assert build(**fields).plan(64)[-1].patches_kept == 1
        with pytest.raises(InvalidSetting, match=r"keep_rate is 0\.1"):
            build(**fields, reference_compat=True).plan(64)


def test_a_reducer_that_ranks_nothing_leaves_the_models_criterion_behind() -> None:
    own = Pruning(0.7, criterion="value_norm")
    for name, reducer in REDUCERS.items():
        if reducer.reads == "scores":
            continue
        assert given_pruning(own, None, {"reducer": name}) == Pruning(0.7, reducer=name)
        named = given_pruning(own, None, {"reducer": name, "criterion": "value_norm"})
        assert named.criterion == "value_norm", "and what is named stands, to be refused where it is used"
    assert given_pruning(own, None, {"reducer": "drop", "keep_rate": 0.5}) == Pruning(0.5, criterion="value_norm")
    model = from_pretrained("spectrim-mini", keep_rate=0.5, reducer="merge")
    assert (model.config.pruning.reducer, model.config.resolved_criterion) == ("merge", "cls_attention")
    for fields in ({"reducer": "fuse"}, {"attention_mass": 0.9}):
        assert given_pruning(own, None, fields).criterion == "auto"
        assert given_pruning(Pruning(0.7, criterion="mean_attention"), None, fields).criterion == "mean_attention"
        assert from_pretrained("spectrim-mini", keep_rate=0.5, **fields).config.resolved_criterion == "cls_attention"
    with pytest.raises(InvalidSetting, match=r"which weighs tokens by a block's attention"):
        from_pretrained("spectrim-mini", keep_rate=0.5, reducer="fuse", criterion="value_norm")
