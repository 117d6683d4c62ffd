"""DynamicViT (Rao et al., 2021): a small network before a block, trained with the model, says which patches go on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spectrim.pruning.counts import count_kept

if TYPE_CHECKING:
    from torch import Tensor

    from spectrim.pruning.plan import BlockPlan, Encoder
    from spectrim.pruning.tokens import Tokens


@dataclass(frozen=True)
class DynamicViT:
    """Patches that the block's predictor would rather drop are gone before the block; they are no keys of it either.

    The predictor is a part of the model (`spectrim.network.predictor.Predictor`), and what it says is no score of a
    criterion, so there is none to choose. While training nothing is removed: each patch is kept or dropped by a draw
    from the predicted distribution (Gumbel-softmax, straight through), what is dropped is masked from there on
    (`Tokens.policy`), and gradients flow through the draw.
    """

    attends_first: bool = False
    blends: bool = False
    reads: str = "predictor"
    least_rate: float = 0.0
    weighs_by_score: bool = False
    help: str = "drop the patches that a trained predictor rates lowest (DynamicViT)"

    def alive_after(self, patches: int, rate: float, encoder: Encoder) -> int:
        """The survivors, ceil(r·n)."""
        return count_kept(patches, rate)

    def macs(self, plan: BlockPlan, encoder: Encoder) -> int:
        """Those of the predictor: of each patch that enters, and half a layer once for what all have in common."""
        half, quarter = encoder.width // 2, encoder.width // 4
        each = encoder.width**2 + half**2 + half * quarter + 2 * quarter
        return plan.patches_in * each + half**2

    def reduce(self, tokens: Tokens, read: Tensor | None, plan: BlockPlan) -> Tokens:
        """Keep the patches that are most probably kept; while training, mask those that a draw drops."""
        from torch.nn import functional

        if read is None:
            raise ValueError("a block that asks its predictor needs what it says")
        if tokens.policy is not None:
            return tokens.masked(functional.gumbel_softmax(read, hard=True)[..., 0])
        index, stays = tokens.choose(read[..., 0], plan.choice)
        return tokens.take(index, stays)
