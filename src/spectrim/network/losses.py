"""What training makes small."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from spectrim.errors import InputShapeError


def classification_loss(logits: Tensor, labels: Tensor, *, multi_label: bool) -> Tensor:
    """Binary cross-entropy per label where a clip can have several, else cross-entropy; mean over the batch, scalar.

    Args:
        logits: (batch, labels).
        labels: (batch, labels) floats; or, where a clip has one label, also its numbers (batch,).
        multi_label: whether a clip can have several labels.

    Raises:
        InputShapeError: a multi-label model is given labels of another shape than its logits.
    """
    if multi_label:
        if labels.shape != logits.shape:
            raise InputShapeError(
                f"labels has shape {tuple(labels.shape)}; a multi-label model takes {tuple(logits.shape)} floats"
            )
        return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))
    return functional.cross_entropy(logits, labels if labels.ndim == 1 else labels.to(logits.dtype))
