"""Optimisers, and the schedules of learning rate and keep rate, as pure functions of settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from spectrim.errors import InvalidSetting
from spectrim.training.recipes import OptimiserSettings, PruningSettings, ScheduleSettings

STAIR = 50
"""Steps at one learning rate in a warm-up by stairs."""

OPTIMISERS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}


def decays(name: str, weight: Tensor) -> bool:
    """Whether weight decay applies to a parameter: to matrices, but for tokens, positions and BEATs's scalar a head."""
    return weight.ndim > 1 and not name.endswith(("_token", "_positions", "position_table", "gate_scale"))


def is_predictor(name: str) -> bool:
    """Whether a parameter is of DynamicViT's predictors."""
    return ".predictor." in name


def layer_of(name: str, depth: int) -> int:
    """The layer of a parameter of an `AudioTransformer`: embeddings 0, block i i + 1, the rest depth + 1.

    Predictors are of the rest: they begin with random weights, as the head does.
    """
    first, _, rest = name.partition(".")
    if first == "embeddings":
        return 0
    if is_predictor(name):
        return depth + 1
    return int(rest.partition(".")[0]) + 1 if first == "blocks" else depth + 1


def parameter_groups(
    named: Iterable[tuple[str, Tensor]], settings: OptimiserSettings, depth: int | None = None
) -> list[dict[str, Any]]:
    """Group the trained parameters by weight decay and learning rate.

    Args:
        named: name, parameter.
        settings: says what decays, and how the rate falls from block to block.
        depth: number of blocks; needed for a ``layer_decay`` below 1.

    Returns:
        Groups for a torch optimiser, in the order of their first parameter.
    """
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, weight in named:
        if not weight.requires_grad:
            continue
        decay = settings.weight_decay if settings.decay == "all" or decays(name, weight) else 0.0
        scale = 1.0 if depth is None else settings.layer_decay ** (depth + 1 - layer_of(name, depth))
        scale *= 1.0 if is_predictor(name) else settings.backbone_rate
        groups.setdefault((decay, scale), []).append(weight)
    return [
        {"params": weights, "weight_decay": decay, "lr": settings.peak * scale}
        for (decay, scale), weights in groups.items()
    ]


def build_optimiser(
    named: Iterable[tuple[str, Tensor]], settings: OptimiserSettings, depth: int | None = None
) -> torch.optim.Optimizer:
    """The optimiser of a recipe; see `parameter_groups`."""
    groups = parameter_groups(named, settings, depth)
    return OPTIMISERS[settings.name](groups, lr=settings.peak, betas=settings.betas)


def cosine_from_one(progress: float, target: float) -> float:
    """A cosine from 1 down to ``target``: the keep rate while it is annealed (EViT, Liang et al., 2022).

    Args:
        progress: how far along, 0 (begins) to 1 (done); values outside are clamped.
        target: where to end.

    Returns:
        target + (1 − target)·(1 + cos(π·progress)) / 2.
    """
    progress = min(max(progress, 0.0), 1.0)
    return target + (1.0 - target) * 0.5 * (1.0 + math.cos(math.pi * progress))


def annealed_keep_rate(pruning: PruningSettings, epoch: float) -> float:
    """Keep rate at a point of training.

    Args:
        pruning: target, start and length of the annealing.
        epoch: epochs done, a fraction inside an epoch.

    Returns:
        The keep rate: 1 until ``shrink_start``, a cosine over ``shrink_epochs``, the target after it.
    """
    if pruning.keep_rate == 1.0:
        return 1.0
    if pruning.anneal_every == "epoch":
        epoch = math.floor(epoch)
    if epoch < pruning.shrink_start:
        return 1.0
    if pruning.shrink_epochs == 0.0:
        return pruning.keep_rate
    return cosine_from_one((epoch - pruning.shrink_start) / pruning.shrink_epochs, pruning.keep_rate)


def rate_share(
    schedule: ScheduleSettings, optimiser: OptimiserSettings, num_training_steps: int
) -> Callable[[int], float]:
    """The share of the highest learning rate at each step.

    Args:
        schedule: the course.
        optimiser: says epochs, and the highest rate.
        num_training_steps: steps of the whole course.

    Returns:
        A function of the number of steps done.
    """
    per_epoch = num_training_steps / optimiser.epochs
    warmup = schedule.warmup_steps or schedule.warmup_epochs * per_epoch

    def share(step: int) -> float:
        if step < warmup:
            if schedule.warmup_form == "rising":
                return (step + 1) / (warmup + 1)
            return (step if schedule.warmup_form == "from_zero" else step // STAIR * STAIR) / warmup
        if schedule.kind == "cosine":
            done = (step - warmup) / max(1.0, num_training_steps - warmup)
            return cosine_from_one(done, schedule.final / optimiser.peak)
        if schedule.kind == "step":
            epoch = math.floor(step / per_epoch + 1e-9)
            falls = math.floor((epoch - schedule.start) / schedule.every) + 1
            return schedule.factor ** max(0, falls)
        return 1.0

    return share


def check_warmup(schedule: ScheduleSettings, optimiser: OptimiserSettings, num_training_steps: int) -> None:
    """Raise `InvalidSetting` for a warm-up that the course of a run does not come to the end of, or learns nothing in.

    Args:
        schedule, optimiser, num_training_steps: see `rate_share`.
    """
    course = f"the {num_training_steps} steps of {optimiser.epochs:g} epochs"
    if schedule.warmup_steps > num_training_steps:
        raise InvalidSetting("schedule.warmup_steps", schedule.warmup_steps, f"up to {course}")
    share = rate_share(schedule, optimiser, num_training_steps)
    if not any(map(share, range(min(num_training_steps, STAIR + 1)))):
        allowed = f"another: with this one the learning rate is 0 in all {course}"
        raise InvalidSetting("schedule.warmup_form", schedule.warmup_form, allowed)


def build_schedule(
    optimizer: torch.optim.Optimizer,
    schedule: ScheduleSettings,
    optimiser: OptimiserSettings,
    num_training_steps: int,
) -> torch.optim.lr_scheduler.LambdaLR:
    """`rate_share` as a torch scheduler, moved at every step."""
    return torch.optim.lr_scheduler.LambdaLR(optimizer, rate_share(schedule, optimiser, num_training_steps))
