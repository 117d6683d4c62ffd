"""How many patches stay."""

from __future__ import annotations

import math


def count_kept(patches: int, keep_rate: float) -> int:
    """Number of patches that stay out of ``patches``: ceil(r·n), as the paper and its code count (in floats)."""
    return math.ceil(keep_rate * patches)
