"""Statistics of patches and of those that a model keeps, computed from arrays: intensity, clusters, density, overlap.

Shapes: n clips, F × T patches (low frequencies first), S stages. Stage 0 is what enters the model, stage s what is left
after its s-th pruning block; ``present`` (n, S, F, T) says which patches are there. Ranks are those of
`spectrim.stats.clusters.Clusters.ranks`, −1 for patches that do not count, e.g. padded ones.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from spectrim.errors import InputShapeError
from spectrim.stats.ratios import divide_or_nan

DENSITY_EDGES = (np.linspace(-1.5, 1.5, 61), np.linspace(0.0, 1.0, 41))
"""Edges of the bins of `density`: intensity, variation."""


def padded_patches(num_frames: ArrayLike, grid: tuple[int, int], time_stride: int) -> NDArray[np.bool_]:
    """Which patches hold only padding: those that begin where the sound has ended.

    A patch with a single real frame counts as real, and so does the first column, as in the model's ``drop_padding``.

    Args:
        num_frames: (n,) frames of each clip that hold sound.
        grid: (F, T).
        time_stride: step between patches in frames.

    Returns:
        (n, F, T) bool.
    """
    frames = np.maximum(np.asarray(num_frames), 1)
    begins = np.arange(grid[1]) * time_stride
    return np.broadcast_to((begins >= frames[:, None])[:, None, :], (len(frames), *grid))


def joint_counts(
    present: NDArray[np.bool_], intensity_ranks: NDArray[np.integer], variation_ranks: NDArray[np.integer], number: int
) -> NDArray[np.int64]:
    """How many patches of each pair of clusters there are at each stage.

    Sums over one axis give the counts of the other's clusters; the corner of the lowest ranks holds the low/low ones.

    Args:
        present: (n, S, F, T).
        intensity_ranks: (n, F, T); −1 for patches that do not count.
        variation_ranks: (n, F, T), likewise.
        number: of clusters.

    Returns:
        (n, S, number, number): clip, stage, intensity cluster, variation cluster.
    """
    _same_grid("present", present, "ranks", intensity_ranks)
    clips, stages = present.shape[:2]
    cell = intensity_ranks.astype(np.int64) * number + variation_ranks
    counted = present & ((intensity_ranks >= 0) & (variation_ranks >= 0))[:, None]
    row = np.arange(clips * stages).reshape(clips, stages, 1, 1) * number**2
    counts = np.bincount((row + cell[:, None])[counted], minlength=clips * stages * number**2)
    return counts.reshape(clips, stages, number, number)


def density(
    present: NDArray[np.bool_],
    intensity: NDArray[np.floating],
    variation: NDArray[np.floating],
    edges: tuple[NDArray[np.float64], NDArray[np.float64]] = DENSITY_EDGES,
) -> NDArray[np.int64]:
    """Two-dimensional histograms of the patches over (mean, standard deviation), one a stage, summed over clips.

    Args:
        present: (n, S, F, T), without the patches that do not count.
        intensity: (n, F, T).
        variation: (n, F, T).
        edges: of the bins of intensity and of variation, ascending; what lies outside goes into the nearest bin, so
            that no patch is lost.

    Returns:
        (S, bins of intensity, bins of variation).
    """
    _same_grid("present", present, "intensity", intensity)
    sizes = [len(bounds) - 1 for bounds in edges]
    places = [
        np.clip(np.searchsorted(bounds, values, side="right") - 1, 0, size - 1)
        for bounds, values, size in zip(edges, (intensity, variation), sizes, strict=True)
    ]
    cell = places[0] * sizes[1] + places[1]
    stages = present.shape[1]
    histograms = [np.bincount(cell[present[:, stage]], minlength=sizes[0] * sizes[1]) for stage in range(stages)]
    return np.stack(histograms).reshape(stages, *sizes)


class Received(NamedTuple):
    """Scores that kept and dropped patches received at each pruning block; every field is (n, blocks) float64.

    Attributes:
        kept: sum of the scores of the patches that stay.
        dropped: sum of the scores of those that go.
        kept_patches: number of patches that stay.
        dropped_patches: number of those that go.
    """

    kept: NDArray[np.float64]
    dropped: NDArray[np.float64]
    kept_patches: NDArray[np.float64]
    dropped_patches: NDArray[np.float64]

    @property
    def share(self) -> NDArray[np.float64]:
        """Share of the sum of all scores that the kept patches received, (n, blocks)."""
        return divide_or_nan(self.kept, self.kept + self.dropped)

    @property
    def ratio(self) -> NDArray[np.float64]:
        """A kept patch's mean over a dropped patch's mean, (n, blocks); NaN where no patch is dropped."""
        return divide_or_nan(
            divide_or_nan(self.kept, self.kept_patches), divide_or_nan(self.dropped, self.dropped_patches)
        )


def received(scores: NDArray[np.floating], kept: NDArray[np.bool_], counted: NDArray[np.bool_]) -> Received:
    """Sum the scores of kept and of dropped patches at each pruning block.

    Means something for scores that are shares of attention, not for intensity, which can be negative.

    Args:
        scores: (n, blocks, F, T) in the pruning blocks; NaN where a patch did not enter.
        kept: (n, blocks, F, T) alive after them.
        counted: (n, F, T) patches that count.
    """
    _same_grid("scores", scores, "counted", counted)
    entered = ~np.isnan(scores) & counted[:, None]
    parts = [entered & kept, entered & ~kept]
    sums = [np.where(part, scores, 0.0).sum(axis=(2, 3), dtype=np.float64) for part in parts]
    numbers = [np.count_nonzero(part, axis=(2, 3)).astype(np.float64) for part in parts]
    return Received(sums[0], sums[1], numbers[0], numbers[1])


def jaccard(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Overlap of two sets of patches: the number in both over the number in either (Jaccard, 1901).

    Args:
        first: (..., F, T) patches that one model, criterion or keep rate keeps, without those that do not count.
        second: (..., F, T) likewise.

    Returns:
        (...) in [0, 1]; NaN where both are empty.

    Raises:
        InputShapeError: the shapes differ: patches of other grids are not the same patches.
    """
    if first.shape != second.shape:
        raise InputShapeError(
            f"overlap of patches on grids {first.shape[-2:]} and {second.shape[-2:]} (shapes {first.shape} and "
            f"{second.shape}); wanted: the same clips, stages and grid"
        )
    both = np.count_nonzero(first & second, axis=(-2, -1))
    return divide_or_nan(both, np.count_nonzero(first | second, axis=(-2, -1)))


def _same_grid(name: str, stages: NDArray[np.generic], other: str, patches: NDArray[np.generic]) -> None:
    if stages.ndim != 4 or patches.shape != (stages.shape[0], *stages.shape[2:]):
        raise InputShapeError(
            f"{name} has shape {stages.shape} and {other} {patches.shape}; wanted: (clips, stages, F, T) and "
            "(clips, F, T)"
        )
