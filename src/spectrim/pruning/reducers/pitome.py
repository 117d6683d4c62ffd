"""PiToMe (Tran et al., 2024): ToMe's merging, but only of tokens of which there are many alike."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spectrim.pruning.counts import count_kept
from spectrim.pruning.reducers.merge import merged

if TYPE_CHECKING:
    from torch import Tensor

    from spectrim.pruning.plan import BlockPlan, Encoder
    from spectrim.pruning.tokens import Tokens

WIDEST_MARGIN = 0.9
"""Cosine above which tokens count as alike in the first block; it falls linearly to 0 behind the last."""


@dataclass(frozen=True)
class Pitome:
    """After attention, the tokens with the highest energy are merged in pairs; the others are left as they are.

    A patch has much energy if many patches have keys like its own (`energy_pairs`). Of r merges the 2r patches with the
    most energy are split by rank into those at even and at odd ranks, and each of the first becomes one with the most
    similar of the second. Sizes and what follows from them are as with `Merge`.
    """

    attends_first: bool = True
    blends: bool = True
    reads: str = "keys"
    least_rate: float = 0.5
    weighs_by_score: bool = False
    help: str = "merge tokens of which many are alike, and leave rare ones alone (PiToMe)"

    def alive_after(self, patches: int, rate: float, encoder: Encoder) -> int:
        """Patch tokens that are left, ceil(r·n)."""
        return count_kept(patches, rate)

    def macs(self, plan: BlockPlan, encoder: Encoder) -> int:
        """One product of all patches with all, each as wide as a head."""
        return plan.patches_in**2 * encoder.width // encoder.heads if plan.patches_kept < plan.patches_in else 0

    def reduce(self, tokens: Tokens, read: Tensor | None, plan: BlockPlan) -> Tokens:
        """Merge pairs of high energy; of a clip with empty slots, as many as leave ceil(r·its own number)."""
        margin = WIDEST_MARGIN * (1.0 - plan.depth)
        return merged(tokens, read, plan, functools.partial(energy_pairs, margin=margin))


def energy_pairs(
    keys: Tensor, extra: int, merges: int | Tensor, valid: Tensor | None = None, *, margin: float
) -> Tensor:
    """Where each token goes.

    With s the cosine of two keys, the energy of a patch is the mean over all patches, itself included, of s − margin
    where that is positive and exp(s − margin) − 1 elsewhere.

    Args:
        keys: (batch, extra + n, head_dim), mean over heads.
        extra: number of extra tokens in front, which keep their places.
        merges: number of pairs, at most n // 2; or (batch, 1), of each clip.
        valid: (batch, n) bool, False for empty slots, which are behind all others; None where there are none.
        margin: cosine above which two tokens count as alike.

    Returns:
        (batch, extra + n) int64: the place in the new sequence, where tokens that are not merged into another stay in
        their order, extra tokens first. −1 for empty slots.
    """
    import torch
    from torch.nn import functional

    from spectrim.pruning.select import take_patches

    patches = keys[:, extra:]
    unit = functional.normalize(patches if patches.element_size() >= 4 else patches.float(), dim=-1)
    real = torch.ones_like(unit[:, :, 0], dtype=torch.bool) if valid is None else valid
    alike = unit @ unit.transpose(1, 2)
    energy = functional.elu(alike - margin).masked_fill(~real.unsqueeze(1), 0.0).sum(dim=2) / real.sum(
        dim=1, keepdim=True
    )
    rank = energy.masked_fill(~real, -torch.inf).argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    paired = rank < 2 * merges
    goes, receives = paired & (rank % 2 == 0), paired & (rank % 2 == 1)
    partner = alike.masked_fill(~receives.unsqueeze(1), -torch.inf).argmax(dim=2)
    places = torch.arange(rank.shape[1], device=keys.device)
    place = take_patches((real & ~goes).cumsum(dim=1) - 1, torch.where(goes, partner, places)) + extra
    front = torch.arange(extra, device=keys.device).expand(keys.shape[0], -1)
    return torch.cat([front, place.masked_fill(~real, -1)], dim=1)
