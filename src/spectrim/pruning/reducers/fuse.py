"""EViT's fused token (Liang et al., 2022): what is dropped goes on as one token, weighted by attention."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spectrim.pruning.counts import count_kept

if TYPE_CHECKING:
    from torch import Tensor

    from spectrim.pruning.plan import BlockPlan, Encoder
    from spectrim.pruning.tokens import Tokens


@dataclass(frozen=True)
class Fuse:
    """The dropped tokens, after attention, are summed with their scores as weights (not normalised).

    The fused token joins the sequence behind the kept ones. In later blocks it is a token as any other: it competes by
    its score, and may be fused again. The mean over patches of AudioMAE's head counts it as one.
    """

    attends_first: bool = True
    blends: bool = True
    reads: str = "scores"
    least_rate: float = 0.0
    weighs_by_score: bool = True
    help: str = "add one token, the score-weighted sum of those that are not kept (EViT)"

    def alive_after(self, patches: int, rate: float, encoder: Encoder) -> int:
        """The survivors and the fused token, unless nothing is dropped."""
        survivors = count_kept(patches, rate)
        return survivors + (survivors < patches)

    def macs(self, plan: BlockPlan, encoder: Encoder) -> int:
        """One product of the scores with all tokens that entered, where there are values to sum."""
        return plan.patches_in * encoder.width if plan.survivors < plan.patches_in and plan.emits != "extra" else 0

    def reduce(self, tokens: Tokens, read: Tensor | None, plan: BlockPlan) -> Tokens:
        """Keep the patches with the highest scores and append the fused token."""
        index, stays = tokens.choose(read, plan.choice)
        kept = tokens.take(index, stays)
        if read is None or plan.survivors == plan.patches_in:
            return kept
        return kept.append_sum(tokens, tokens.dropped(index, stays), read)
