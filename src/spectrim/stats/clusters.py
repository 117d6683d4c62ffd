"""Ordered clusters of one-dimensional values: deterministic k-means, and the published bounds.

Five clusters C1 (low) … C5 (high) of a patch's intensity, or of its variation; in code they are ranks 0 … 4.

Lloyd's algorithm needs only the sum and the number of the values in each cluster. In one dimension a cluster is a
stretch of the sorted values, so that running sums and a binary search give both: an iteration costs O(k log n), not
O(k n), and ends at the same partition as scikit-learn's from the same centres. By default it starts from the best
partition whose cuts lie between `GROUPS` quantiles, found by dynamic programming, without random numbers.

By hand, because kmeans1d, which always finds the optimum, takes 4.0 s for 1.5 million values and this 0.13 s, for a sum
of squares that is 1e-10 higher (benchmarks/hand_written.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectrim.errors import DataError, InvalidSetting, one_of

CLUSTERS = 5
"""The paper's number of clusters."""

GROUPS = 1024
"""Quantile groups between which dynamic programming looks for the cuts it starts from; with no more different values
than this its answer is the optimum itself."""

MOST_ITERATIONS = 10_000

PADDED_PATCHES = ("with", "without")
"""Whether patches that hold only padding count."""


@dataclass(frozen=True, eq=False)
class Clusters:
    """Where ordered clusters begin and end.

    Attributes:
        bounds: (k − 1,) float64, ascending: the upper bounds of all clusters but the last; a value on a bound belongs
            to the lower cluster.
        source: where they come from, in words.
        padding: ``"with"`` or ``"without"``: whether patches that hold only padding were among the values.
        centres: (k,) float64 means of the clusters, ascending; None for published bounds.
        counts: (k,) int64 values in each; None for published bounds.
        inertia: sum of the squared distances to the centres; None for published bounds.
    """

    bounds: NDArray[np.float64]
    source: str
    padding: str
    centres: NDArray[np.float64] | None = None
    counts: NDArray[np.int64] | None = None
    inertia: float | None = None

    @property
    def number(self) -> int:
        """How many clusters there are."""
        return len(self.bounds) + 1

    def ranks(self, values: ArrayLike) -> NDArray[np.int8]:
        """Rank of the cluster of each value: 0 for the lowest; −1 for NaN. Of any shape, which stays."""
        numbers = np.asarray(values)
        ranks = np.searchsorted(self.bounds, numbers, side="left").astype(np.int8)
        return np.where(np.isnan(numbers), np.int8(-1), ranks)


PUBLISHED_INTENSITY_BOUNDS: dict[str, tuple[float, ...]] = {
    "audioset": (-0.8705, -0.3861, -0.0182, 0.3140),
    "esc50": (-0.5829, -0.2063, 0.1130, 0.4303),
    "speech-commands": (-0.6170, -0.3210, -0.0423, 0.2596),
    "voxceleb1": (-1.0840, -0.3911, 0.0314, 0.4389),
}
"""Upper bounds of C1 … C4 for intensity by data set (Lee & Lee, 2025): AudioSet-20K, ESC-50, Speech Commands V2,
VoxCeleb-1. They hold for log-mel values normalised with that data set's published mean and deviation."""


def published_clusters(name: str) -> Clusters:
    """The published intensity clusters of a data set.

    The public code that they come with does not tell padding from sound, so they count as made with padded patches.

    Args:
        name: one of `PUBLISHED_INTENSITY_BOUNDS`.

    Raises:
        InvalidSetting: there are no published bounds of that name.
    """
    if name not in PUBLISHED_INTENSITY_BOUNDS:
        raise InvalidSetting("clusters", name, one_of(PUBLISHED_INTENSITY_BOUNDS))
    return Clusters(np.array(PUBLISHED_INTENSITY_BOUNDS[name]), f"published for {name}", "with")


def kmeans_1d(
    values: ArrayLike,
    number: int = CLUSTERS,
    *,
    padding: str,
    source: str = "k-means",
    initial: Sequence[float] | None = None,
) -> Clusters:
    """Ordered clusters of values by k-means (Lloyd, 1982), without randomness.

    With ``initial``, the result is that of ``sklearn.cluster.KMeans(number, init=initial, n_init=1, tol=0)`` run to
    its end, unless a cluster loses all its values on the way: there scikit-learn moves its centre, and this raises.
    Without, it is the optimum if there are at most `GROUPS` different values. For more it is where Lloyd's algorithm
    ends from the optimum over cuts between `GROUPS` quantiles: never worse than that, but not proved to be the best.

    Args:
        values: any shape; NaN is left out. Sums run in float64.
        number: of clusters.
        padding: ``"with"`` or ``"without"``: what the caller did with padded patches; the result carries it.
        source: where the values come from, in words; the result carries it.
        initial: (number,) centres to start from, ascending.

    Raises:
        InvalidSetting: ``number``, ``padding`` or ``initial`` is not allowed.
        DataError: a value is infinite, there are fewer different values than clusters, or a cluster lost all values.
    """
    if number < 1:
        raise InvalidSetting("number", number, "1 or more")
    if padding not in PADDED_PATCHES:
        raise InvalidSetting("padding", padding, one_of(PADDED_PATCHES))
    line = _Line(np.asarray(values), number)
    if initial is None:
        cuts = line.best_cuts(number)
    else:
        start = np.asarray(initial, dtype=np.float64)
        if start.shape != (number,) or not (np.isfinite(start).all() and (np.diff(start) > 0).all()):
            raise InvalidSetting("initial", initial, f"{number} different finite centres, ascending")
        cuts = line.cuts_between(start)
    for _ in range(MOST_ITERATIONS):
        centres = line.means(cuts)
        moved = line.cuts_between(centres)
        if np.array_equal(moved, cuts):
            break
        cuts = moved
    else:
        raise DataError(f"k-means has not come to rest in {MOST_ITERATIONS} iterations")
    counts = np.diff(np.concatenate([[0], cuts, [len(line)]]))
    bounds = (centres[1:] + centres[:-1]) / 2
    return Clusters(bounds, source, padding, centres, counts, line.inertia(cuts))


class _Line:
    """Sorted values with their running sums.

    A partition is (k − 1,) int64 ``cuts``: cluster i holds the values from cut i − 1 up to before cut i.
    """

    def __init__(self, values: NDArray[np.generic], number: int) -> None:
        if not np.issubdtype(values.dtype, np.floating):
            values = values.astype(np.float64)
        flat = values[~np.isnan(values)]
        if np.isinf(flat).any():
            raise DataError("a value to be clustered is infinite")
        flat.sort()
        self.values = flat
        different = 1 + int(np.count_nonzero(flat[1:] != flat[:-1])) if len(flat) else 0
        if different < number:
            raise DataError(f"there are {different} different values; {number} clusters need as many or more")
        self.different = different
        self.middle = float(flat.mean(dtype=np.float64))
        shifted = flat.astype(np.float64)
        shifted -= self.middle
        self.sums = _running(shifted)
        np.square(shifted, out=shifted)
        self.squares = _running(shifted)

    def __len__(self) -> int:
        return len(self.values)

    def cuts_between(self, centres: NDArray[np.float64]) -> NDArray[np.int64]:
        """Cuts that give every value to its nearest centre, the lower one of two equally near."""
        middles = (centres[1:] + centres[:-1]) / 2
        if self.values.dtype != np.float64:
            return np.searchsorted(self.values, _rounded_down(middles, self.values.dtype), side="right")
        return np.searchsorted(self.values, middles, side="right")

    def means(self, cuts: NDArray[np.int64]) -> NDArray[np.float64]:
        """Mean of each cluster."""
        edges = np.concatenate([[0], cuts, [len(self)]])
        sizes = np.diff(edges)
        if not (sizes > 0).all():
            raise DataError(f"cluster {int(np.argmin(sizes)) + 1} of k-means lost all its values; start elsewhere")
        return self.middle + np.diff(self.sums[edges]) / sizes

    def inertia(self, cuts: NDArray[np.int64]) -> float:
        """Sum of the squared distances of all values to the means of their clusters."""
        edges = np.concatenate([[0], cuts, [len(self)]])
        sums = np.diff(self.sums[edges])
        return float((np.diff(self.squares[edges]) - sums**2 / np.diff(edges)).sum())

    def best_cuts(self, number: int) -> NDArray[np.int64]:
        """The best partition of which every cut lies between two groups of neighbouring values (Wang & Song, 2011).

        cost[k][j] = min over i of cost[k − 1][i] + inertia of the groups i … j − 1 as one cluster.
        """
        edges = self._group_edges()
        count, sums, squares = edges.astype(np.float64), self.sums[edges], self.squares[edges]
        groups = len(edges) - 1
        cost = np.full(groups + 1, np.inf)
        cost[0] = 0.0
        came_from = np.zeros((number, groups + 1), dtype=np.int64)
        for cluster in range(number):
            longer = np.full(groups + 1, np.inf)
            for end in range(cluster + 1, groups + 1):
                begin = np.arange(cluster, end)
                total = sums[end] - sums[begin]
                inside = squares[end] - squares[begin] - total**2 / (count[end] - count[begin])
                options = cost[begin] + np.maximum(inside, 0.0)
                best = int(np.argmin(options))
                longer[end], came_from[cluster, end] = options[best], begin[best]
            cost = longer
        cuts, end = [], groups
        for cluster in range(number - 1, 0, -1):
            end = int(came_from[cluster, end])
            cuts.append(int(edges[end]))
        return np.array(cuts[::-1], dtype=np.int64)

    def _group_edges(self) -> NDArray[np.int64]:
        """Where groups of neighbouring values begin, and the end; equal values are never parted."""
        if self.different <= GROUPS:
            starts = np.flatnonzero(self.values[1:] != self.values[:-1]) + 1
        else:
            wanted = self.values[np.linspace(0, len(self), GROUPS + 1)[1:-1].astype(np.int64)]
            starts = np.unique(np.searchsorted(self.values, wanted, side="left"))
            starts = starts[starts > 0]
        return np.concatenate([[0], starts, [len(self)]])


def _running(values: NDArray[np.float64]) -> NDArray[np.float64]:
    sums = np.empty(len(values) + 1)
    sums[0] = 0.0
    np.cumsum(values, out=sums[1:])
    return sums


def _rounded_down(values: NDArray[np.float64], kind: np.dtype) -> NDArray[np.floating]:
    """The largest numbers of a shorter type that are not above these, so that comparing with them gives the same."""
    near = values.astype(kind)
    return np.where(near.astype(np.float64) > values, np.nextafter(near, near.dtype.type(-np.inf)), near)
