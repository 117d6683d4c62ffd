"""Losses: of classification, of a dense teacher, and of the share of patches that DynamicViT keeps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from spectrim.errors import InputShapeError, InvalidSetting
from spectrim.network.looking import may_look

ROUNDING = 1e-3
"""How far beyond 0 and 1 a target may lie: what half precision makes of smoothed and mixed ones."""

ROUNDING_OF_SUM = 1e-2
"""The same for the sum of a clip's targets."""


def classification_loss(logits: Tensor, labels: Tensor, *, multi_label: bool) -> Tensor:
    """Binary cross-entropy per label where a clip can have several, else cross-entropy; mean over the batch, scalar.

    Args:
        logits: (batch, labels).
        labels: (batch, labels) numbers from 0 to 1; or, where a clip has one label, also its number (batch,), whole.
            Where it has one, the numbers of a clip sum to 1 at most.
        multi_label: whether a clip can have several labels.

    Raises:
        InputShapeError: labels have another shape.
        InvalidSetting: labels are no tensor or array, of another type, out of range, or NaN.
    """
    if isinstance(labels, np.ndarray):
        labels = torch.as_tensor(np.ma.getdata(labels)).to(logits.device)
    if not isinstance(labels, Tensor):
        raise InvalidSetting("labels", labels, "a tensor")
    batch, number = logits.shape
    if labels.shape != logits.shape and (multi_label or tuple(labels.shape) != (batch,)):
        numbers = "" if multi_label else f", or ({batch},) numbers of labels"
        kind = "multi-label" if multi_label else "single-label"
        raise InputShapeError(
            f"labels has shape {tuple(labels.shape)}; a {kind} model takes {(batch, number)} floats{numbers}"
        )
    if labels.ndim == 1:
        if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
            raise InvalidSetting("labels", f"of type {labels.dtype}", "whole numbers, one a clip")
        _check_range(labels, 0, number - 1, f"numbers of labels, 0 to {number - 1}")
        return functional.cross_entropy(logits, labels.long())
    if labels.is_complex():
        raise InvalidSetting("labels", f"of type {labels.dtype}", "floats")
    _check_range(labels, -ROUNDING, 1 + ROUNDING, "numbers from 0 to 1 for each label")
    targets = labels.to(logits.dtype)
    if multi_label:
        return functional.binary_cross_entropy_with_logits(logits, targets)
    _check_sums(labels)
    return functional.cross_entropy(logits, targets)


def ratio_loss(decisions: Sequence[Tensor], rates: Sequence[float]) -> Tensor:
    """How far the shares of patches that predictors keep are from those that they should (Rao et al., 2021, eq. 14).

    Args:
        decisions: as `spectrim.AudioTransformerOutput` has them: what enters, and what each predictor leaves.
        rates: keep rate of each predictor; the share that is to be left is the product of those so far.

    Returns:
        Mean over predictors and clips of the squared difference, a scalar.
    """
    entered, share, total = decisions[0].sum(dim=1), 1.0, decisions[0].new_zeros(())
    for left, rate in zip(decisions[1:], rates, strict=True):
        share *= rate
        total = total + ((left.sum(dim=1) / entered - share) ** 2).mean()
    return total / len(rates)


def logit_distillation(logits: Tensor, teacher: Tensor, *, multi_label: bool) -> Tensor:
    """Kullback-Leibler divergence of a model's labels from those of its teacher, mean over the batch, a scalar.

    Args:
        logits: (batch, labels).
        teacher: likewise.
        multi_label: of one sigmoid a label, mean over labels too; else of one softmax over all (eq. 12).
    """
    if multi_label:
        certain = teacher.sigmoid()
        entropy = functional.binary_cross_entropy_with_logits(teacher, certain)
        return functional.binary_cross_entropy_with_logits(logits, certain) - entropy
    ours, theirs = logits.log_softmax(dim=-1), teacher.log_softmax(dim=-1)
    return functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)


def token_distillation(tokens: Tensor, teacher: Tensor, kept: Tensor) -> Tensor:
    """Mean squared difference of the patches that are left from the teacher's (eq. 11), a scalar.

    Args:
        tokens: (batch, n, width) after the last block.
        teacher: likewise.
        kept: (batch, n) bool: which of them count; 0 is returned where none does.
    """
    each = ((tokens - teacher) ** 2).mean(dim=-1)
    return (each * kept).sum() / kept.sum().clamp(min=1)


def _check_range(labels: Tensor, least: float, most: float, allowed: str) -> None:
    """Refuse labels out of range, NaN among them, where they can be looked at."""
    if not may_look(labels):
        return
    low, high = torch.stack(labels.detach().aminmax()).tolist()
    if not (low >= least and high <= most):
        raise InvalidSetting("labels", f"from {low:g} to {high:g}", allowed)


def _check_sums(labels: Tensor) -> None:
    """Refuse clips with several labels where one softmax is over all, likewise."""
    if not may_look(labels):
        return
    most = float(labels.detach().sum(dim=1, dtype=torch.float32).max())
    if most > 1 + ROUNDING_OF_SUM:
        raise InvalidSetting(
            "labels",
            f"of a sum of {most:g} for one clip",
            "a sum of 1 at most in a single-label model; where a clip can have several labels, load or prune with "
            'problem_type="multi_label_classification", or set it in model.config',
        )
