"""What ranks the patches. A criterion returns scores and gathers nothing: the highest scores stay.

A new criterion is one function in a file beside this and one entry in `CRITERIA`; configuration, command line, MAC
counting and documentation read it from there. Torch is imported where tensors are made, so that names can be listed
without it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from spectrim.errors import nearest_of, one_of
from spectrim.pruning.criteria.attention import (
    attend_and_score,
    cls_attention,
    cls_head_median,
    cls_weighted_norm,
    cls_without_sinks,
    mean_attention,
    value_norm,
)
from spectrim.pruning.criteria.spectrogram import intensity, random_scores, regular, variation

if TYPE_CHECKING:
    from torch import Tensor

    from spectrim.pruning.criteria.attention import Projections

AUTO = "auto"
"""Stands for the attention score with which the paper prunes the backbone: `BACKBONE_CRITERIA`."""


@dataclass(frozen=True)
class Criterion:
    """A way to rank patches.

    Attributes:
        reads: what it looks at: ``"class"``, the query of [CLS] in the block, ``"all"``, the queries of all tokens
            there, or ``"values"``, its value vectors and no query; ``"spectrogram"``, the input once, before block 0;
            ``"nothing"``.
        score: of the first three: a function of a block's `Projections` that gives (batch, n) float32, 0 for masked
            patches. Of the others: a function of a `Spectrogram` that gives (batch, F, T).
        help: one line for people.
        shares: whether scores are shares of the attention in the block: none is negative, and the sum of some is what
            those received.
        together: a function of the `Projections` that gives the attention output (batch, extra + n, width) and the
            score at once, for where `spectrim.pruning.kernels.fused.together_pays`; None where there is none.
        so_far: whether the mean of these scores over the block and all before it ranks; the blocks before the last one
            that prunes then all score.
        misleads: whether dropping patches by it, without training, was worse than at random in an AST on human voices
            (docs/pruning.md); of the others that is not so or not known.
        wrong_gather: whether the paper's public code takes other tokens than those that this ranks highest.
    """

    reads: str
    score: Callable[[Any], Tensor]
    help: str
    shares: bool = False
    together: Callable[[Projections], tuple[Tensor, Tensor]] | None = None
    wrong_gather: bool = False
    so_far: bool = False
    misleads: bool = False

    @property
    def reads_attention(self) -> bool:
        """Whether a block's queries, keys or values are needed for it, anew in every block."""
        return self.reads in ("class", "all", "values")

    def cost(self, patches: int, extra: int, asking: int, width: int) -> tuple[int, int]:
        """What scoring adds to a block that does, for one clip.

        Args:
            patches: that enter the block.
            extra: number of extra tokens.
            asking: tokens whose queries the block needs for attention.
            width: of a token.

        Returns:
            Number of queries that are projected in all, and multiply-accumulates of the score's products.
        """
        entering = patches + extra
        if self.reads == "all":
            return entering, patches * entering * width
        if self.reads == "class":
            return asking + 1, entering * width
        return asking, 0


CRITERIA = {
    "cls_attention": Criterion(
        "class", cls_attention, "attention of [CLS] to the patch, mean over heads (AST)", shares=True, misleads=True
    ),
    "cls_weighted_norm": Criterion(
        "class", cls_weighted_norm, "the same times the norm of the patch's value vector, per head", misleads=True
    ),
    "cls_head_median": Criterion("class", cls_head_median, "attention of [CLS], median over heads", misleads=True),
    "cls_without_sinks": Criterion(
        "class", cls_without_sinks, "attention of [CLS]; patches with short value vectors are dropped first"
    ),
    "cls_attention_so_far": Criterion(
        "class", cls_attention, "attention of [CLS], mean over heads, this block and all before it", so_far=True
    ),
    "value_norm": Criterion("values", value_norm, "norm of the patch's value vector, mean over heads"),
    "mean_attention": Criterion(
        "all",
        mean_attention,
        "attention that the patch receives from all patches (AudioMAE)",
        shares=True,
        together=attend_and_score,
    ),
    "mean_attention_so_far": Criterion(
        "all",
        mean_attention,
        "attention from all patches, mean over this block and all before it",
        together=attend_and_score,
        so_far=True,
    ),
    "intensity": Criterion("spectrogram", intensity, "mean of the patch's log-mel values", wrong_gather=True),
    "variation": Criterion("spectrogram", variation, "their standard deviation", wrong_gather=True),
    "random": Criterion("nothing", random_scores, "the baseline that knows nothing"),
    "regular": Criterion("nothing", regular, "a fixed pattern without gaps, a second baseline that knows nothing"),
}
"""The criteria, by the name that configuration, recipes and the command line call them."""

BACKBONE_CRITERIA = {
    "ast": "cls_attention",
    "audiomae": "mean_attention",
    "beats": "mean_attention",
    "ced": "mean_attention",
    "eat": "cls_attention",
    "kwt": "cls_attention",
    "passt": "cls_attention",
    "ssast": "mean_attention",
}
"""The attention score of each backbone, what `AUTO` stands for: that with which the paper prunes AST and AudioMAE, and
for EAT, the Keyword Transformer and PaSST, whose heads read [CLS], that of AST; for SSAST, whose head reads the mean of
the patches and whose [CLS] nothing trains, and for BEATs and CED, which read that mean and have no [CLS], that of
AudioMAE."""


def nearest_criterion(name: str) -> str:
    """Word the names of criteria for an error about an unknown one; ``attention`` is what comparisons call `AUTO`."""
    names = (AUTO, *CRITERIA)
    return f"{AUTO!r}, perhaps; {one_of(names)}" if name == "attention" else nearest_of(name, names)
