"""Classification losses."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from spectrim.errors import InputShapeError, InvalidSetting

ROUNDING = 1e-3
"""How far beyond 0 and 1 a target may lie: what half precision makes of smoothed and mixed ones."""


def classification_loss(logits: Tensor, labels: Tensor, *, multi_label: bool) -> Tensor:
    """Binary cross-entropy per label where a clip can have several, else cross-entropy; mean over the batch, scalar.

    Args:
        logits: (batch, labels).
        labels: (batch, labels) numbers from 0 to 1; or, where a clip has one label, also its number (batch,), whole.
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
    return functional.cross_entropy(logits, targets)


def _check_range(labels: Tensor, least: float, most: float, allowed: str) -> None:
    """Refuse labels out of range, NaN among them; not while a graph is compiled, which cannot branch on values."""
    if torch.compiler.is_compiling() or labels.numel() == 0:
        return
    low, high = (float(end) for end in labels.detach().aminmax())
    if not (low >= least and high <= most):
        raise InvalidSetting("labels", f"from {low:g} to {high:g}", allowed)
