"""Ratios of sums over clips, and division that gives NaN where the denominator is 0.

A mean over clips divides a sum by the number of clips that have the quantity, a pooled share patches by patches.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray


class Ratio(NamedTuple):
    """Two numbers a clip and quantity, whose sums over clips are divided.

    Attributes:
        top: (clips, ...) float64.
        bottom: (clips, ...) float64; 0, as in ``top``, where a quantity does not exist for a clip.
    """

    top: NDArray[np.float64]
    bottom: NDArray[np.float64]

    def of_clips(self, index: NDArray[np.generic]) -> Ratio:
        """The same of some clips, by number or by mask."""
        return Ratio(self.top[index], self.bottom[index])


def clip_mean(values: ArrayLike) -> Ratio:
    """A plain mean over clips as a `Ratio`: (clips, ...) values, NaN where a clip has none."""
    numbers = np.asarray(values, dtype=np.float64)
    known = ~np.isnan(numbers)
    return Ratio(np.where(known, numbers, 0.0), known.astype(np.float64))


def pooled(top: ArrayLike, bottom: ArrayLike) -> Ratio:
    """A share pooled over clips as a `Ratio`; (clips, ...) each, broadcast."""
    return Ratio(*np.broadcast_arrays(np.asarray(top, dtype=np.float64), np.asarray(bottom, dtype=np.float64)))


def divide_or_nan(top: ArrayLike, bottom: ArrayLike) -> NDArray[np.float64]:
    """``top / bottom`` in float64, broadcast; NaN where ``bottom`` is 0."""
    above, below = pooled(top, bottom)
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below != 0)
