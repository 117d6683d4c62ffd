"""Seconds of a pass that no one has timed yet: what the search goes by. What is promised is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from spectrim.config import SpectrimConfig
from spectrim.network.macs import macs
from spectrim.pruning.pruning import Pruning

Kind = tuple[str, str]
"""Criterion and reducer."""


@dataclass(frozen=True)
class Costs:
    """Time of a pass as a sum: a start, the executed MACs, and what each block that ranks costs beside them.

    Ranks is a block that prunes, or whose scores a later one ranks by (`Criterion.so_far`). Choosing and moving tokens
    takes time that is in no MACs, and small models notice: a search that went by MACs would prune a little in every
    block.

    Attributes:
        config: of the model.
        start: seconds of a pass beside its MACs.
        each_mac: seconds of one MAC.
        each_block: (criterion, reducer) → seconds of one block that ranks, beside its MACs.
    """

    config: SpectrimConfig
    start: float
    each_mac: float
    each_block: dict[Kind, float]

    def seconds(self, point: Pruning) -> float:
        """Of one pass at a point."""
        beside = _ranking_blocks(self.config, point) * self.each_block.get((point.criterion, point.reducer), 0.0)
        return self.start + self.each_mac * macs(self.config, pruning=point).executed + beside


def by_macs(config: SpectrimConfig) -> Costs:
    """Costs that are MACs, where nothing has been timed."""
    return Costs(config, 0.0, 1.0, {})


def fitted(config: SpectrimConfig, points: Sequence[Pruning], seconds: Sequence[float]) -> Costs:
    """Costs that come nearest to timed passes, in relative terms and none of them negative.

    Args:
        config: of the model.
        points: that were timed; the dense model, and two or more of each kind with different numbers of pruning blocks.
        seconds: of a pass at each.
    """
    kinds = list(dict.fromkeys((point.criterion, point.reducer) for point in points if point.prunes))
    columns = np.zeros((len(points), 2 + len(kinds)))
    for row, point in zip(columns, points, strict=True):
        row[:2] = 1.0, macs(config, pruning=point).executed
        if point.prunes:
            row[2 + kinds.index((point.criterion, point.reducer))] = _ranking_blocks(config, point)
    taken = np.asarray(seconds, dtype=np.float64)
    scale = columns.max(axis=0)
    found = nnls(columns / scale / taken[:, None], np.ones(len(points)))[0] / scale
    if found[1] <= 0.0:
        found[1] = taken[0] / columns[0, 1]
    return Costs(config, found[0], found[1], dict(zip(kinds, found[2:].tolist(), strict=True)))


def _ranking_blocks(config: SpectrimConfig, point: Pruning) -> int:
    """How many blocks prune at a point, or make scores that a later one ranks by."""
    return sum(plan.prunes or plan.scores for plan in config.plan(pruning=point))
