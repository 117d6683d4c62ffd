"""Whether the values of a tensor can be looked at, to refuse wrong ones."""

from __future__ import annotations

import torch
from torch import Tensor


def may_look(values: Tensor) -> bool:
    """Whether there are values, and Python may branch on them.

    It may not where a graph is made, inside `torch.func.vmap`, or of fake and meta tensors. Of a tensor on an
    accelerator this waits for its values.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or values.numel() == 0:
        return False
    try:
        first = values.detach()[(0,) * values.ndim].item()
    except RuntimeError:
        return False
    return isinstance(first, int | float | complex)
