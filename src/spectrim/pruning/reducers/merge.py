"""ToMe (Bolya et al., 2023; on AST: FastAST, Behera et al., 2024): tokens that are alike become their mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spectrim.pruning.counts import count_kept

if TYPE_CHECKING:
    from torch import Tensor

    from spectrim.pruning.plan import BlockPlan, Encoder
    from spectrim.pruning.tokens import Tokens


@dataclass(frozen=True)
class Merge:
    """After attention, the tokens whose keys are most alike are merged, as many as the keep rate leaves too many.

    Tokens are split by place, extra tokens included, into those at even and at odd places. Each patch at an even place
    finds the most similar one at an odd place, by the cosine of their keys' means over heads; the most similar pairs
    become their mean, weighted by how many patches each stands for (`Tokens.size`). From then on attention adds the
    logarithm of that number to a key's logits, and AudioMAE's mean over patches counts a token as often as it has
    patches. Extra tokens are never merged. No score is read, so there is no criterion to choose.
    """

    attends_first: bool = True
    blends: bool = True
    reads: str = "keys"
    least_rate: float = 0.5
    weighs_by_score: bool = False
    help: str = "merge the tokens whose keys are most alike into their mean (ToMe)"

    def alive_after(self, patches: int, rate: float, encoder: Encoder) -> int:
        """Patch tokens that are left, ceil(r·n)."""
        return count_kept(patches, rate)

    def macs(self, plan: BlockPlan, encoder: Encoder) -> int:
        """One product: of the tokens at even with those at odd places, each as wide as a head."""
        if plan.patches_kept == plan.patches_in:
            return 0
        tokens = plan.patches_in + encoder.extra
        return (tokens - tokens // 2) * (tokens // 2) * encoder.width // encoder.heads

    def reduce(self, tokens: Tokens, read: Tensor | None, plan: BlockPlan) -> Tokens:
        """Merge the most similar pairs; of a clip with empty slots, as many as leave ceil(r·its own number)."""
        return merged(tokens, read, plan, destinations)


Grouping = Callable[..., "Tensor"]
"""Says where each token goes; arguments and result as of `destinations`."""


def merged(tokens: Tokens, read: Tensor | None, plan: BlockPlan, grouping: Grouping) -> Tokens:
    """Replace tokens by the means of groups that their keys make, mean over heads.

    Args:
        tokens: after attention.
        read: keys (batch, heads, extra + n, head_dim).
        plan: of the block: how many tokens go on; of a clip with empty slots, ceil(r·its own number).
        grouping: which tokens become one.
    """
    import torch

    from spectrim.pruning.select import take_patches, take_tokens

    if read is None:
        raise ValueError("a block that merges needs keys")
    if plan.patches_kept == plan.patches_in:
        return tokens
    keys, extra, valid = read.detach().mean(dim=1), tokens.extra, tokens.valid
    if valid is None:
        return tokens.merge(grouping(keys, extra, plan.patches_in - plan.patches_kept), plan.patches_kept)
    real = valid.sum(dim=1)
    kept = torch.tensor([count_kept(number, plan.keep_rate) for number in real.tolist()], device=real.device)
    most = int(kept.max())
    index = valid.to(torch.int8).argsort(dim=1, descending=True, stable=True)
    keys, valid = take_tokens(keys, index, extra), take_patches(valid, index)
    where = grouping(keys, extra, (real - kept).unsqueeze(1), valid)
    return tokens.take(index).merge(where, most, torch.arange(most, device=kept.device) < kept.unsqueeze(1))


def destinations(keys: Tensor, extra: int, merged: int | Tensor, valid: Tensor | None = None) -> Tensor:
    """Bipartite soft matching (Bolya et al., 2023, section 3): where each token goes.

    Args:
        keys: (batch, extra + n, head_dim), mean over heads.
        extra: number of extra tokens in front, which keep their places.
        merged: number of pairs to merge, at most n // 2; or (batch, 1), of each clip.
        valid: (batch, n) bool, False for empty slots, which are behind all others; None where there are none.

    Returns:
        (batch, extra + n) int64: the place in the new sequence; the partner's for a token that is merged into it. In
        the new sequence the extra tokens come first, then what stays of the even places, then the odd places, each
        in order. A clip of which none is merged keeps its places, as it does alone. −1 for empty slots.
    """
    import torch
    from torch.nn import functional

    from spectrim.pruning.select import take_patches

    length, device = keys.shape[1], keys.device
    places = torch.arange(length, device=device)
    patch = (places >= extra).expand(keys.shape[:2])
    if valid is not None:
        patch = functional.pad(valid, (extra, 0), value=False)
    even, odd = patch[:, ::2], patch[:, 1::2]
    unit = functional.normalize(keys, dim=-1)
    similarity = unit[:, ::2] @ unit[:, 1::2].transpose(1, 2)
    best, partner = similarity.masked_fill(~odd.unsqueeze(1), -torch.inf).max(dim=2)
    order = best.masked_fill(~even, -torch.inf).argsort(dim=1, descending=True, stable=True)
    goes = order.argsort(dim=1) < merged
    stays = even & ~goes
    first = stays.cumsum(dim=1) + (extra - 1)
    second = odd.cumsum(dim=1) + (extra - 1) + stays.sum(dim=1, keepdim=True)
    first = torch.where(goes, take_patches(second, partner), first)
    both = torch.cat([first, second], dim=1)[:, places // 2 + places % 2 * even.shape[1]]
    if isinstance(merged, torch.Tensor):
        both = torch.where(merged == 0, places, both)
    return torch.where(patch, both, places.masked_fill(places >= extra, -1))
