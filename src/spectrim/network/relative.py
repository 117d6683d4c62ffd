"""Positions by distance: what is added to the attention of two patches for how far apart they stand in the sequence.

Distances are put into buckets, near ones each into its own, far ones logarithmically (Raffel et al., 2020, T5). A
bucket has a learnt number a head, the same in all blocks, which a gate of each block weighs by the query (Chen et al.,
2022, WavLM). A patch keeps the place that it had among all patches, whoever was dropped between.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from spectrim.pruning.select import take_columns


class RelativeBias(NamedTuple):
    """What is added to attention logits for distances, before the gates.

    Attributes:
        table: (heads, 2·F·T − 1), of a key 1 − F·T to F·T − 1 places behind the query.
        places: (F·T,) int64: grid index → place in the sequence.
        patches: (batch, n) grid indices of the tokens that enter a block.
        pairs: (batch or 1, heads, n, n): of each pair of them.
    """

    table: Tensor
    places: Tensor
    patches: Tensor
    pairs: Tensor

    @classmethod
    def of(
        cls, weight: Tensor, buckets: tuple[int, ...], order: Tensor, patches: Tensor, *, alike: bool
    ) -> RelativeBias:
        """That of the tokens that enter the first block.

        Args:
            weight: (buckets, heads), the learnt numbers.
            buckets: as `distance_buckets` gives them.
            order: (F·T,) grid indices in the order of the backbone.
            patches: (batch, n) grid indices of the tokens.
            alike: whether they are the same for each clip.
        """
        # One made of fake tensors must not be kept.
        once = type(weight) in (Tensor, nn.Parameter) and not torch.compiler.is_compiling()
        numbers = (_tensor_once if once else _tensor)(buckets, weight.device)
        table, places = take_columns(weight.T.contiguous(), numbers), order.argsort()
        some = patches[:1] if alike else patches
        return cls(table, places, patches, _between(table, places, some, some))

    def rows(self, patches: Tensor) -> Tensor:
        """(batch or 1, heads, q, n): of the tokens that ask, (batch, q) grid indices, and those that entered."""
        if patches is self.patches:
            return self.pairs
        return _between(self.table, self.places, patches, self.patches)

    def following(self, patches: Tensor) -> RelativeBias:
        """That of the tokens that enter the next block, (batch, n) grid indices; −1, an empty slot, gets any number."""
        if patches is self.patches:
            return self
        return self._replace(patches=patches, pairs=_between(self.table, self.places, patches, patches))


def _between(table: Tensor, places: Tensor, asking: Tensor, attended: Tensor) -> Tensor:
    here, there = places[asking.clamp(min=0)], places[attended.clamp(min=0)]
    apart = there.unsqueeze(1) - here.unsqueeze(2) + places.shape[0] - 1
    return take_columns(table, apart).transpose(0, 1)


def distance_buckets(patches: int, buckets: int, furthest: int) -> tuple[int, ...]:
    """The bucket of each distance between two of so many patches.

    Half of the buckets are for keys behind the query. Of a half, the first half are distances 0, 1, 2, …; the others
    grow with the logarithm, up to ``furthest`` and what lies beyond. Computed in float32, as the published models do,
    because some distances lie on the boundary of two buckets.

    Args:
        patches: F·T.
        buckets: how many there are; a multiple of 4.
        furthest: distance from which on all are in the last bucket.

    Returns:
        Bucket of the distances 1 − F·T … F·T − 1, key less query.
    """
    half = buckets // 2
    near = half // 2
    apart = torch.arange(1 - patches, patches, device="cpu")
    far = apart.abs()
    steps = torch.log(far.clamp(min=1).float() / near) / math.log(furthest / near) * (half - near)
    grown = (near + steps.long()).clamp(max=half - 1)
    numbers = torch.where(far < near, far, grown) + half * (apart > 0)
    return tuple(numbers.tolist())


def _tensor(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(numbers, device=device)


@functools.lru_cache(maxsize=8)
def _tensor_once(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """Keep the numbers on their device: a CUDA graph cannot capture a copy from the host."""
    with torch.inference_mode(mode=False):
        return _tensor(numbers, device)
