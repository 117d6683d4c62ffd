"""Dropping patches: the paper's way, the block that keeps all, and the wrong gather of the paper's public code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from spectrim.errors import InvalidSetting
from spectrim.pruning.counts import count_kept

if TYPE_CHECKING:
    from torch import Tensor

    from spectrim.pruning.plan import BlockPlan, Encoder
    from spectrim.pruning.tokens import Tokens


@dataclass(frozen=True)
class Keep:
    """A block that prunes nothing."""

    attends_first: bool = False
    blends: bool = False
    reads: str = "nothing"
    least_rate: float = 0.0
    weighs_by_score: bool = False
    help: str = "keep every patch"

    def alive_after(self, patches: int, rate: float, encoder: Encoder) -> int:
        """All of them."""
        return patches

    def macs(self, plan: BlockPlan, encoder: Encoder) -> int:
        """None."""
        return 0

    def reduce(self, tokens: Tokens, read: Tensor | None, plan: BlockPlan) -> Tokens:
        """Leave out only what the head does not read, in the last block."""
        return tokens.only(plan.emits)


@dataclass(frozen=True)
class Drop:
    """Patches with low scores are gone (Lee & Lee, 2025, section 3)."""

    attends_first: bool = False
    blends: bool = False
    reads: str = "scores"
    least_rate: float = 0.0
    weighs_by_score: bool = False
    help: str = "drop the patches that are not kept"

    def alive_after(self, patches: int, rate: float, encoder: Encoder) -> int:
        """The survivors, ceil(r·n)."""
        return count_kept(patches, rate)

    def macs(self, plan: BlockPlan, encoder: Encoder) -> int:
        """None: picking rows multiplies nothing."""
        return 0

    def reduce(self, tokens: Tokens, read: Tensor | None, plan: BlockPlan) -> Tokens:
        """Keep the patches with the highest scores; of a clip with padding, ceil(r·its own number)."""
        index, stays = tokens.choose(read, plan.choice)
        return tokens.only(plan.emits).take(index, stays)


@dataclass(frozen=True)
class ReferenceDrop:
    """What the paper's public code takes when it ranks by intensity or variation; see `Pruning.reference_compat`."""

    attends_first: bool = False
    blends: bool = False
    reads: str = "scores"
    least_rate: float = 0.0
    weighs_by_score: bool = False
    help: str = "take tokens as the paper's public code does"

    def alive_after(self, patches: int, rate: float, encoder: Encoder) -> int:
        """The survivors less the extra tokens: it counts tokens as patches.

        Raises:
            InvalidSetting: no token is left for the head.
        """
        survivors = count_kept(patches, rate)
        least = 1 if encoder.head_reads == "patches" else 0
        if survivors - encoder.extra < least:
            left = f"of {patches} patches only {survivors} tokens are left, none for the head"
            allowed = f"higher with reference_compat: {left}"
            raise InvalidSetting("keep_rate", rate, allowed)
        return survivors - encoder.extra

    def macs(self, plan: BlockPlan, encoder: Encoder) -> int:
        """None."""
        return 0

    def reduce(self, tokens: Tokens, read: Tensor | None, plan: BlockPlan) -> Tokens:
        """Use the places of patches on the whole sequence, best first: the head reads the first tokens by position."""
        index, _ = tokens.choose(read, plan.choice, ordered=True)
        return tokens.take_of_all(index).only(plan.emits)
