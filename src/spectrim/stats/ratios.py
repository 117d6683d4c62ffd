"""Division that says "unknown" where there is nothing to divide by."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def quotient(top: ArrayLike, bottom: ArrayLike) -> NDArray[np.float64]:
    """``top / bottom`` in float64, broadcast; NaN where ``bottom`` is 0."""
    above, below = np.broadcast_arrays(np.asarray(top, dtype=np.float64), np.asarray(bottom, dtype=np.float64))
    return np.divide(above, below, out=np.full(above.shape, np.nan), where=below != 0)
