"""Clusters by density peaks (Du et al., 2016; on vision transformers: Zeng et al., 2022): each becomes its mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spectrim.pruning.counts import count_kept
from spectrim.pruning.reducers.merge import merged

if TYPE_CHECKING:
    from torch import Tensor

    from spectrim.pruning.plan import BlockPlan, Encoder
    from spectrim.pruning.tokens import Tokens

NEIGHBOURS = 5
"""Nearest tokens, itself included, that a token's density is of: as many as in TCFormer (Zeng et al., 2022)."""


@dataclass(frozen=True)
class Cluster:
    """After attention, the patches are put into ceil(r·n) clusters by their keys, and each cluster becomes its mean.

    DPC-KNN (Du, Ding and Jia, 2016), as Zeng et al. (TCFormer, 2022) have it, on the mean of the keys over heads: a
    token is dense whose nearest neighbours are near; centres are the tokens with the highest product of density and
    distance to the nearest denser token; every other token joins the nearest centre. The mean is weighted by how many
    patches each token stands for (`Tokens.size`), which also counts in attention and in AudioMAE's mean, as with
    `Merge`. Extra tokens are in no cluster. No score is read, so there is no criterion to choose.
    """

    attends_first: bool = True
    blends: bool = True
    reads: str = "keys"
    least_rate: float = 0.0
    weighs_by_score: bool = False
    help: str = "replace the tokens by the means of clusters of their keys (DPC-KNN)"

    def alive_after(self, patches: int, rate: float, encoder: Encoder) -> int:
        """Patch tokens that are left, ceil(r·n): the clusters."""
        return count_kept(patches, rate)

    def macs(self, plan: BlockPlan, encoder: Encoder) -> int:
        """One product of all patches with all, each as wide as a head."""
        return plan.patches_in**2 * encoder.width // encoder.heads if plan.patches_kept < plan.patches_in else 0

    def reduce(self, tokens: Tokens, read: Tensor | None, plan: BlockPlan) -> Tokens:
        """Put the patches into clusters; of a clip with empty slots, into ceil(r·its own number)."""
        return merged(tokens, read, plan, clusters)


def clusters(keys: Tensor, extra: int, fewer: int | Tensor, valid: Tensor | None = None) -> Tensor:
    """Density peaks: where each token goes.

    With d the Euclidean distance over the square root of head_dim, the density of a token is exp(−mean of d² to its
    `NEIGHBOURS` nearest); of equal ones the first counts as denser. The densest has the largest of its distances as
    the distance to a denser one.

    Args:
        keys: (batch, extra + n, head_dim), mean over heads.
        extra: number of extra tokens in front, which keep their places.
        fewer: by how many tokens the clusters are fewer; or (batch, 1), of each clip.
        valid: (batch, n) bool, False for empty slots, which are behind all others; None where there are none.

    Returns:
        (batch, extra + n) int64: the place in the new sequence, where the extra tokens come first, then the clusters in
        the order of their centres. −1 for empty slots.
    """
    import torch

    from spectrim.pruning.select import take_patches

    patches, far = keys[:, extra:], torch.inf
    patches = patches if patches.element_size() >= 4 else patches.float()
    number = patches.shape[1]
    places = torch.arange(number, device=keys.device)
    real = torch.ones_like(patches[:, :, 0], dtype=torch.bool) if valid is None else valid
    length = patches.square().sum(dim=2)
    squares = length.unsqueeze(1) + length.unsqueeze(2) - 2.0 * patches @ patches.transpose(1, 2)
    squares = (squares / keys.shape[2]).clamp(min=0.0).masked_fill(places == places.unsqueeze(1), 0.0)
    to_real = squares.masked_fill(~real.unsqueeze(1), far)
    nearest = to_real.topk(min(NEIGHBOURS, number), dim=2, largest=False).values
    some = nearest < far
    spread = nearest.masked_fill(~some, 0.0).sum(dim=2) / some.sum(dim=2).clamp(min=1)
    tied = (spread.unsqueeze(1) == spread.unsqueeze(2)) & (places < places.unsqueeze(1))
    denser = ((spread.unsqueeze(1) < spread.unsqueeze(2)) | tied) & real.unsqueeze(1)
    gap = squares.masked_fill(~denser, far).amin(dim=2)
    widest = squares.masked_fill(~real.unsqueeze(1), 0.0).amax(dim=2)
    peak = 0.5 * torch.where(gap < far, gap, widest).log() - spread
    order = peak.masked_fill(~real, -far).argsort(dim=1, descending=True, stable=True)
    centre = order.argsort(dim=1) < real.sum(dim=1, keepdim=True) - fewer
    joins = squares.masked_fill(~centre.unsqueeze(1), far).argmin(dim=2)
    place = take_patches(centre.cumsum(dim=1) - 1, torch.where(centre, places, joins)) + extra
    front = torch.arange(extra, device=keys.device).expand(keys.shape[0], -1)
    return torch.cat([front, place.masked_fill(~real, -1)], dim=1)
