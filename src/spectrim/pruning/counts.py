"""How many patches stay, and from which parts of a clip."""

from __future__ import annotations

import math
from typing import NamedTuple


class Choice(NamedTuple):
    """How a block chooses its survivors.

    Attributes:
        survivors: how many patches, of a clip without empty slots.
        keep_rate: share of its own patches, of any clip.
        columns: number of patches along time, T: a patch of grid index i stands in column i mod T.
        time_segments: equal parts of the columns, of which each keeps its share.
        attention_mass: share of the score that is kept at least, with more patches if need be.
    """

    survivors: int
    keep_rate: float
    columns: int
    time_segments: int = 1
    attention_mass: float = 0.0


def count_kept(patches: int, keep_rate: float) -> int:
    """Number of patches that stay out of ``patches``: ceil(r·n), as the paper and its code count (in floats)."""
    return math.ceil(keep_rate * patches)
