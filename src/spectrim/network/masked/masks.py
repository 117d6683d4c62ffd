"""Which patches a masked autoencoder sees."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def random_visible(patches: int, ratio: float, random: np.random.Generator) -> NDArray[np.int64]:
    """Draw the patches that stay visible when a share of them is masked at random.

    Args:
        patches: how many there are.
        ratio: share to mask; floor(patches·(1 − ratio)) stay, but one, as in AudioMAE.
        random: draws.

    Returns:
        (k,) int64 indices, each once.
    """
    return random.permutation(patches)[: max(1, int(patches * (1.0 - ratio)))]
