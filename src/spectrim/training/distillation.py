"""What a run learns beside the labels: from a dense teacher, and to keep the share of patches that it should."""

from __future__ import annotations

import logging
import math
from typing import Any

import torch
from torch import Tensor

from spectrim.checkpoints import describe, from_pretrained
from spectrim.config import SpectrimConfig
from spectrim.errors import InvalidSetting
from spectrim.machine import is_main_process
from spectrim.network.losses import logit_distillation, ratio_loss, token_distillation
from spectrim.network.transformer import AudioTransformer, AudioTransformerOutput
from spectrim.training.building import in_order, same_labels
from spectrim.training.recipes import INIT, Recipe

SAME = ("hidden_size", "max_length", "num_mel_bins", "frequency_stride", "time_stride", "patch_shape", "patch_order")
"""Of the configurations of a model and its teacher, where their tokens are compared."""

INPUT = ("features", "sampling_rate", "mean", "std", "padding")
"""What the input is, which both get alike."""

LOSSES = ("cross_entropy", "binary_cross_entropy")
"""Of models whose labels exclude each other, and of those whose labels do not."""

logger = logging.getLogger(__name__)


def open_teacher(recipe: Recipe, init: str | None, model: AudioTransformer) -> AudioTransformer | None:
    """The teacher of a recipe, in evaluation mode and without gradients; None where there is none.

    What the run starts from is given the model's mean, std, padding and length as a teacher, as it is as a start. Any
    other teacher must have that mean, std and padding; its position table is fitted to the model's length, and a line
    of the log says so.

    Args:
        recipe: names it.
        init: what the run starts from.
        model: that learns from it.

    Raises:
        InvalidSetting: there is no such checkpoint, or it does not have the model's labels, input, tokens or kind of
            loss.
        CheckpointError: it cannot be loaded.
    """
    settings, field = recipe.distillation, "distillation.teacher"
    if settings.teacher is None:
        return None
    if settings.teacher == INIT and init is None:
        raise InvalidSetting(field, INIT, "with --init, the checkpoint that is to teach; or another teacher, or null")
    start: Any = settings.teacher
    changed: dict[str, Any] = {}
    place, ours = settings.teacher, model.config
    if start == INIT and init is not None:
        start, place = recipe.model.start(init), init
        changed = {"mean": ours.mean, "std": ours.std, "padding": ours.padding}
    teacher = from_pretrained(start, keep_rate=1.0, frames=ours.max_length, positions=recipe.model.positions, **changed)
    labels = [*ours.id2label.values()]
    if same_labels([*teacher.config.id2label.values()], labels):
        in_order(teacher, labels)
    _check_teacher(recipe, place, teacher.config, ours)
    if not changed:
        own = describe(start, frames=ours.max_length)["max_length"]
        if own != ours.max_length and is_main_process():
            told = "%s teaches at %d frames, not at its own %d: its position table is fitted to that length"
            logger.warning(told, place, ours.max_length, own)
    return teacher.requires_grad_(False).eval()


def _check_teacher(recipe: Recipe, place: str, theirs: SpectrimConfig, ours: SpectrimConfig) -> None:
    """Refuse a teacher whose labels, input, tokens or kind of loss are not those of the model."""
    settings, field = recipe.distillation, "distillation.teacher"
    if [*theirs.id2label.values()] != [*ours.id2label.values()]:
        allowed = f"a model trained for the data's {ours.num_labels} labels; {place} has {theirs.num_labels} others"
        raise InvalidSetting(field, settings.teacher, allowed)
    for name in (*INPUT, *(SAME if settings.tokens else ("max_length", "num_mel_bins"))):
        wanted, there = getattr(ours, name), getattr(theirs, name)
        alike = math.isclose(wanted, there, rel_tol=1e-4) if name in ("mean", "std") else wanted == there
        if not alike:
            where = f", or model.fields.{name}={there!r}" if name in ("mean", "std") else ""
            allowed = f"a model whose {name} is {wanted!r}; that of {place} is {there!r}{where}"
            raise InvalidSetting(field, settings.teacher, allowed)
    if settings.logits and theirs.multi_label != ours.multi_label:
        wanted, there = (LOSSES[config.multi_label] for config in (ours, theirs))
        allowed = (
            f"a model trained with {wanted}; {place} was trained with {there}, and its answers mean something else; "
            "or distillation.logits=0"
        )
        raise InvalidSetting(field, settings.teacher, allowed)


def needs_tokens(recipe: Recipe) -> bool:
    """Whether the loss looks at the tokens after the last block."""
    return recipe.distillation.teacher is not None and recipe.distillation.tokens > 0


def added_losses(
    recipe: Recipe,
    model: AudioTransformer,
    outputs: AudioTransformerOutput,
    teacher: AudioTransformer | None,
    taught: AudioTransformerOutput | None,
    keep_rate: float,
) -> dict[str, Tensor]:
    """What is added to the loss of classification, by name, with its weights.

    Args:
        recipe: says the weights.
        model: that is trained.
        outputs: of its forward pass.
        teacher: that it learns from; None without one.
        taught: of the teacher's forward pass, on the same input.
        keep_rate: of the forward pass.
    """
    losses: dict[str, Tensor] = {}
    if outputs.decisions is not None:
        rates = [keep_rate] * (len(outputs.decisions) - 1)
        losses["ratio_loss"] = recipe.pruning.ratio_weight * ratio_loss(outputs.decisions, rates)
    if teacher is None or taught is None or outputs.logits is None or taught.logits is None:
        return losses
    settings, several = recipe.distillation, model.config.multi_label
    logits = logit_distillation(outputs.logits.float(), taught.logits.float(), multi_label=several)
    losses["logits_loss"] = settings.logits * logits
    if outputs.hidden_states is not None and taught.hidden_states is not None:
        extra = model.config.extra_tokens
        # Each with its own norm: with the student's for both, the loss could be made small by its scale.
        ours = model.norm(outputs.hidden_states[-1][:, extra:])
        theirs = teacher.norm(taught.hidden_states[-1][:, extra:])
        kept = torch.ones_like(ours[..., 0]) if outputs.decisions is None else outputs.decisions[-1]
        losses["tokens_loss"] = settings.tokens * token_distillation(ours.float(), theirs.float(), kept.detach() > 0.5)
    return losses
