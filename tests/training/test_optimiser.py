from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_runs import SIZE, STEPS_PER_EPOCH, recipe, write_words
from transformers import get_cosine_with_min_lr_schedule_with_warmup

from spectrim.backbones import ast_base, audiomae_base
from spectrim.config import SpectrimConfig
from spectrim.network.transformer import AudioTransformer
from spectrim.training.finetune import train
from spectrim.training.optimiser import (
    annealed_keep_rate,
    build_optimiser,
    build_schedule,
    cosine_from_one,
    decays,
    layer_of,
    parameter_groups,
    rate_share,
)
from spectrim.training.recipes import OptimiserSettings, PruningSettings, ScheduleSettings

DEPTH = SIZE["num_hidden_layers"]


def a_model(builder: Any = audiomae_base, **fields: Any) -> AudioTransformer:
    return AudioTransformer(builder(**{**SIZE, "max_length": 32, "prune_at": [1], "num_labels": 3, **fields}))


def group_of(groups: list[dict[str, Any]], weight: torch.Tensor) -> dict[str, Any]:
    found = [group for group in groups if any(weight is other for other in group["params"])]
    assert len(found) == 1
    return found[0]


# Parameter groups


@pytest.mark.parametrize("builder", [ast_base, audiomae_base])
def test_rates_fall_from_layer_to_layer_and_only_matrices_decay(builder: Any) -> None:
    """As in BEiT and AudioMAE: embeddings are layer 0, block i layer i + 1, norm and head layer D + 1."""
    model = a_model(builder)
    plan = OptimiserSettings(learning_rate=0.5, layer_decay=0.75, weight_decay=0.1)
    groups = parameter_groups(model.named_parameters(), plan, DEPTH)
    assert len({(group["lr"], group["weight_decay"]) for group in groups}) == len(groups)
    for name, weight in model.named_parameters():
        if not weight.requires_grad:
            assert not any(weight is other for group in groups for other in group["params"]), name
            continue
        if name.startswith("embeddings."):
            below = DEPTH + 1
        elif name.startswith("blocks."):
            below = DEPTH - int(name.split(".")[1])
        else:
            assert name.startswith(("norm.", "head."))
            below = 0
        matrix = weight.ndim > 1 and name not in (
            *("embeddings.cls_token", "embeddings.dist_token", "embeddings.position_table"),
        )
        group = group_of(groups, weight)
        assert group["lr"] == pytest.approx(0.5 * 0.75**below), name
        assert group["weight_decay"] == (0.1 if matrix else 0.0), name


def test_fixed_positions_are_not_trained() -> None:
    named = dict(a_model().named_parameters())
    table = named["embeddings.position_table"]
    groups = parameter_groups(named.items(), OptimiserSettings())
    assert not any(table is other for group in groups for other in group["params"])


def test_all_decays_when_told_so_and_without_layer_decay_there_is_one_rate() -> None:
    named = list(a_model(ast_base).named_parameters())
    groups = parameter_groups(named, OptimiserSettings(decay="all", weight_decay=5e-7, learning_rate=2e-4), DEPTH)
    assert [(group["lr"], group["weight_decay"], len(group["params"])) for group in groups] == [
        (2e-4, 5e-7, len(named))
    ]
    matrices = parameter_groups(named, OptimiserSettings(weight_decay=5e-7), DEPTH)
    assert {group["weight_decay"] for group in matrices} == {0.0, 5e-7}


def test_predictors_begin_at_the_whole_rate_and_the_rest_at_a_share_of_it() -> None:
    model = a_model(predictor_blocks=[1])
    plan = OptimiserSettings(learning_rate=1e-3, backbone_rate=0.01, layer_decay=0.5)
    groups = parameter_groups(model.named_parameters(), plan, DEPTH)
    predictor = model.blocks[1].predictor
    for weight in predictor.parameters():
        assert group_of(groups, weight)["lr"] == 1e-3
    assert group_of(groups, model.head.linear.weight)["lr"] == pytest.approx(1e-5)
    assert group_of(groups, model.blocks[1].mlp.up.weight)["lr"] == pytest.approx(1e-5 * 0.5 ** (DEPTH - 1))


def test_the_rate_is_for_a_batch_of_so_many_clips() -> None:
    plan = OptimiserSettings(learning_rate=1e-3, per_batch=256, batch_size=32)
    assert plan.peak == pytest.approx(1.25e-4)
    groups = parameter_groups(a_model().named_parameters(), plan, DEPTH)
    assert {group["lr"] for group in groups} == {plan.peak}


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        *(("embeddings.projection.weight", 0), ("blocks.0.norm1.bias", 1), ("blocks.11.mlp.up.weight", 12)),
        ("blocks.3.predictor.own.weight", 13),
        *(("norm.weight", 13), ("head.linear.weight", 13)),
    ],
)
def test_layers_by_name(name: str, layer: int) -> None:
    assert layer_of(name, 12) == layer


def test_what_decays_by_name_and_shape() -> None:
    matrix, vector = torch.zeros(2, 2), torch.zeros(2)
    assert decays("blocks.0.mlp.up.weight", matrix)
    assert not decays("blocks.0.mlp.up.bias", vector)
    assert not any(decays(f"embeddings.{name}", matrix[None]) for name in ("cls_token", "dist_token"))
    assert not decays("mask_token", matrix[None])
    assert not decays("embeddings.position_table", matrix[None])
    assert not decays("blocks.0.attention.gate_scale", torch.ones(1, 12, 1, 1))


# Optimisers


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_adds_the_decay_to_the_gradient_and_adamw_to_the_step(name: str) -> None:
    """One step from the plain definitions (Kingma & Ba, 2015; Loshchilov & Hutter, 2019)."""
    weight = torch.nn.Parameter(torch.tensor([[0.5, -2.0]], dtype=torch.float64))
    gradient = torch.tensor([[0.2, 0.1]], dtype=torch.float64)
    rate, decay, (one, two), eps = 0.1, 0.3, (0.9, 0.95), 1e-8
    plan = OptimiserSettings(name=name, learning_rate=rate, betas=(one, two), weight_decay=decay)
    optimiser = build_optimiser([("head.linear.weight", weight)], plan)
    before = weight.detach().clone()
    weight.grad = gradient.clone()
    optimiser.step()
    seen = gradient + decay * before if name == "adam" else gradient
    first, second = (1 - one) * seen / (1 - one), (1 - two) * seen**2 / (1 - two)
    step = rate * first / (second.sqrt() + eps)
    expected = before - step if name == "adam" else before * (1 - rate * decay) - step
    assert torch.allclose(weight, expected, rtol=1e-12)


# Courses of the rate


def optimiser(epochs: float = 30, **settings: Any) -> OptimiserSettings:
    return OptimiserSettings(**{"epochs": epochs, "learning_rate": 1e-3, **settings})


@settings(max_examples=40)
@given(start=st.integers(1, 20), every=st.integers(1, 6), factor=st.floats(0.1, 1), per_epoch=st.integers(1, 700))
def test_steps_down_are_those_of_torch_s_multi_step_schedule(
    start: int, every: int, factor: float, per_epoch: int
) -> None:
    """AST: MultiStepLR at range(start, 1000, every), moved at the end of each epoch."""
    share = rate_share(
        ScheduleSettings(kind="step", start=start, every=every, factor=factor), optimiser(), 30 * per_epoch
    )
    weight = torch.nn.Parameter(torch.zeros(1))
    theirs = torch.optim.lr_scheduler.MultiStepLR(
        torch.optim.SGD([weight], lr=1.0), list(range(start, 1000, every)), gamma=factor
    )
    for epoch in range(30):
        for step in {0, per_epoch // 2, per_epoch - 1}:
            assert share(epoch * per_epoch + step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9)
        theirs.optimizer.step()
        theirs.step()


@pytest.mark.parametrize(("warmup", "epochs", "per_epoch"), [(4, 60, 600), (4, 90, 7), (0, 10, 3), (0.5, 16, 5)])
def test_the_cosine_is_half_a_cycle_after_the_warm_up(warmup: float, epochs: int, per_epoch: int) -> None:
    """AudioMAE: lowest + (highest − lowest)·(1 + cos(π·(epoch − warm-up) / (epochs − warm-up))) / 2."""
    plan = ScheduleSettings(warmup_epochs=warmup, final=1e-5)
    share = rate_share(plan, optimiser(epochs), epochs * per_epoch)
    for step in range(math.ceil(warmup * per_epoch), epochs * per_epoch + 1, max(1, per_epoch // 10)):
        epoch = step / per_epoch
        cosine = 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (epochs - warmup)))
        assert share(step) * 1e-3 == pytest.approx(1e-5 + (1e-3 - 1e-5) * cosine)
    assert share(epochs * per_epoch) * 1e-3 == pytest.approx(1e-5)


def test_the_warm_up_rises_in_equal_steps_and_never_stands_still() -> None:
    by_epochs = rate_share(ScheduleSettings(warmup_epochs=2), optimiser(10), 50)
    by_steps = rate_share(ScheduleSettings(warmup_steps=10), optimiser(10), 50)
    assert [by_epochs(step) for step in range(11)] == pytest.approx([*(k / 11 for k in range(1, 11)), 1.0])
    assert [by_steps(step) for step in range(51)] == [by_epochs(step) for step in range(51)]


@pytest.mark.parametrize(("form", "flat"), [("from_zero", 1), ("stairs", 50)])
def test_published_warm_ups(form: str, flat: int) -> None:
    """AudioMAE's rate follows the share of the warm-up that is done; AST's is set anew at every fiftieth step."""
    share = rate_share(ScheduleSettings(kind="constant", warmup_steps=1000, warmup_form=form), optimiser(), 3000)
    rate, rates = 0.0, []
    for step in range(1002):
        if step % flat == 0 and step <= 1000:
            rate = step / 1000
        rates.append(rate)
    assert [share(step) for step in range(1002)] == pytest.approx(rates)


def test_a_warm_up_goes_before_steps_down_and_before_nothing() -> None:
    """AS-20K: 1000 steps of warm-up, then down after 10 epochs and every 5."""
    plan = ScheduleSettings(kind="step", warmup_steps=1000, start=10, every=5, factor=0.5)
    share = rate_share(plan, optimiser(30), 30 * 300)
    rates = [share(step) for step in (499, 1000, 2999, 3000, 4499, 4500, 8999)]
    assert rates == pytest.approx([500 / 1001, 1, 1, 0.5, 0.5, 0.25, 0.5**4])
    constant = rate_share(ScheduleSettings(kind="constant", warmup_steps=3), optimiser(), 100)
    assert [constant(step) for step in (0, 1, 2, 3, 99)] == [0.25, 0.5, 0.75, 1.0, 1.0]


def test_layers_keep_their_shares_along_the_course() -> None:
    plan = optimiser(10, layer_decay=0.5)
    adam = build_optimiser(a_model().named_parameters(), plan, DEPTH)
    schedule = build_schedule(adam, ScheduleSettings(final=1e-4), plan, 20)
    begin = schedule.get_last_lr()
    for _ in range(10):
        adam.step()
        schedule.step()
    middle = 0.1 + 0.9 * 0.5
    assert schedule.get_last_lr() == pytest.approx([rate * middle for rate in begin])


def test_a_run_logs_the_highest_rate_of_all_layers(tmp_path: Path) -> None:
    words = write_words(tmp_path / "words")
    plan = recipe(
        optimiser={"epochs": 3, "layer_decay": 0.5, "learning_rate": 2e-3},
        schedule={"warmup_epochs": 1, "final": 1e-4},
        evaluation={"every_epochs": 3, "choose": "last", "test_keep_rates": []},
    )
    train(plan, words, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rates = {row["step"]: row["learning_rate"] for row in rows if "learning_rate" in row}
    share = rate_share(plan.schedule, plan.optimiser, 3 * STEPS_PER_EPOCH)
    assert sorted(rates) == [5, 10, 15]
    for step, rate in rates.items():
        assert rate == pytest.approx(share(step - 1) * 2e-3)


def test_the_cosine_is_that_of_transformers_to_the_last_bit_but_its_warm_up_is_not() -> None:
    """Why the cosine is written here: theirs begins a warm-up at rate 0, where the first step would do nothing."""
    final, steps = 1e-5, 700
    for warmup in (0, 40):
        share = rate_share(ScheduleSettings(warmup_steps=warmup, final=final), optimiser(10), steps)
        theirs = get_cosine_with_min_lr_schedule_with_warmup(
            torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1e-3), warmup, steps, min_lr_rate=final / 1e-3
        ).lr_lambdas[0]
        assert all(share(step) == theirs(step) for step in range(warmup, steps + 1))
        assert all(share(step) == (step + 1) / (warmup + 1) > theirs(step) for step in range(warmup))


# The cosine that the keep rate follows too


@settings(deadline=None)
@given(progress=st.floats(-1, 2), target=st.floats(0.01, 1))
def test_annealing_is_the_cosine_of_evit(progress: float, target: float) -> None:
    """EViT writes it as target + (1 − target)·(cos(π·p) + 1)/2; the half-angle form is the same curve."""
    rate = cosine_from_one(progress, target)
    inside = min(max(progress, 0.0), 1.0)
    assert rate == pytest.approx(1.0 - (1.0 - target) * math.sin(math.pi * inside / 2) ** 2, abs=1e-12)
    assert target - 1e-12 <= rate <= 1.0 + 1e-12
    assert cosine_from_one(progress + 0.1, target) <= rate + 1e-12


EVIT = (
    *(1.0, 1.0, 1.0, 1.0, 0.99854021, 0.990953893, 0.977207214, 0.95790097, 0.933878936, 0.906190989, 0.876047227),
    *(0.844765075, 0.813711716, 0.784244328, 0.757650779, 0.735093334, 0.717557861, 0.705810746, 0.700365392),
    *(0.7, 0.7, 0.7, 0.7, 0.7),
)
"""What `adjust_keep_rate` of EViT's public code (youweiliang/evit at 5ca95a7) returns at every third step of 14 epochs
of five, with ``warmup_epochs`` 2, ``total_epochs`` 11 and ``base_keep_rate`` 0.7."""


def test_the_keep_rate_falls_as_in_the_public_code_of_evit() -> None:
    settings = PruningSettings(keep_rate=0.7, shrink_start=2, shrink_epochs=9, reducer="fuse")
    assert [annealed_keep_rate(settings, step / 5) for step in range(0, 70, 3)] == pytest.approx(EVIT, abs=1e-9)


def test_annealing_ends_exactly_at_the_rates_it_names() -> None:
    for target in (0.3, 0.5, 0.7, 0.9):
        assert cosine_from_one(0.0, target) == 1.0
        assert cosine_from_one(1.0, target) == target
        assert cosine_from_one(0.5, target) == pytest.approx((1 + target) / 2)
        SpectrimConfig(keep_rate=cosine_from_one(0.37, target))
