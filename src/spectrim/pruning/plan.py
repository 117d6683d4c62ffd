"""What each block of a forward pass does with its tokens: numbers only, for the model to run and MACs to be counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from spectrim.pruning.counts import Choice

if TYPE_CHECKING:
    from torch import Tensor

    from spectrim.pruning.tokens import Tokens


class Encoder(NamedTuple):
    """What a plan has to know of the model that runs it.

    Attributes:
        depth: number of blocks.
        extra: number of extra tokens ([CLS], [DIST]).
        head_reads: the tokens that the head reads: ``"extra"`` or ``"patches"``.
        own_criterion: the attention score with which the paper prunes this backbone.
        width: of a token.
        heads: of attention.
        columns: number of patches along time, T.
        predictors: blocks that have a predictor of their own, see `spectrim.network.predictor`.
        placed: whether attention asks where each patch stood in the sequence, as a bias by distance does.
    """

    depth: int
    extra: int
    head_reads: str
    own_criterion: str
    width: int
    heads: int
    columns: int
    predictors: tuple[int, ...] = ()
    placed: bool = False


class Reducer(Protocol):
    """What every reducer has."""

    @property
    def attends_first(self) -> bool:
        """Whether it needs the attention output of every token; if not, a block computes that of the survivors only."""

    @property
    def blends(self) -> bool:
        """Whether it makes tokens that stand for several patches, and so for no place of the sequence."""

    @property
    def reads(self) -> str:
        """What it chooses by: ``"scores"`` of the criterion, ``"keys"`` of the block's attention, or ``"nothing"``.

        Or the block's own ``"predictor"``, before anything else is computed: what it leaves out is not a key either.
        """

    @property
    def least_rate(self) -> float:
        """The lowest keep rate that it can reach in one block."""

    @property
    def weighs_by_score(self) -> bool:
        """Whether scores are weights in it, which only attention can be, and gradients flow through them."""

    @property
    def help(self) -> str:
        """One line for people."""

    def alive_after(self, patches: int, rate: float, encoder: Encoder) -> int:
        """Patch tokens after the block, of ``patches`` that enter it with this keep rate."""

    def macs(self, plan: BlockPlan, encoder: Encoder) -> int:
        """Multiply-accumulates of the reduction itself, for one clip."""

    def reduce(self, tokens: Tokens, read: Tensor | None, plan: BlockPlan) -> Tokens:
        """Replace the tokens by those that go on.

        Args:
            tokens: those of the block; with ``attends_first`` after attention, else before it.
            read: what `reads` names, of the tokens that entered: scores (batch, n) of the patches, higher is kept, None
                where nothing is pruned; or keys (batch, heads, extra + n, head_dim); or the predictor's
                log-probabilities (batch, n, 2), of keeping a patch and of dropping it.
            plan: of the block.
        """


@dataclass(frozen=True)
class BlockPlan:
    """What one block is to do.

    Attributes:
        patches_in: patch tokens that enter.
        survivors: patch tokens that the criterion lets go on as they are, ceil(r·n).
        patches_kept: patch tokens alive after the block; with a reducer that makes new tokens, those included.
        keep_rate: the rate of this block; 1 where nothing is pruned.
        emits: the tokens that are computed on: ``"all"``, ``"extra"`` or ``"patches"``. In the last block only
            those that the head reads.
        criterion: what ranks the patches, by its own name.
        reducer: what becomes of the others.
        scores: whether the criterion's scores are computed: where they decide here, or in the mean of a later block
            (`Criterion.so_far`).
        averaged: of how many blocks, this one included, that mean is; 1 where a block's own scores rank.
        depth: share of the model's blocks that lie before this one.
        columns, time_segments, attention_mass: see `Choice`.
    """

    patches_in: int
    survivors: int
    patches_kept: int
    keep_rate: float
    emits: str
    criterion: str
    reducer: Reducer
    scores: bool
    averaged: int
    depth: float
    columns: int
    time_segments: int = 1
    attention_mass: float = 0.0

    @property
    def choice(self) -> Choice:
        """How the survivors are chosen."""
        return Choice(self.survivors, self.keep_rate, self.columns, self.time_segments, self.attention_mass)

    @property
    def prunes(self) -> bool:
        """Whether tokens become fewer in this block."""
        return self.keep_rate < 1.0

    @property
    def predicts(self) -> bool:
        """Whether the block's predictor decides, before its attention."""
        return self.reducer.reads == "predictor"

    @property
    def patches_seen(self) -> int:
        """Patch tokens that are keys and values, beside the extra tokens."""
        return self.patches_kept if self.predicts else self.patches_in

    def tokens_attended(self, extra: int) -> int:
        """Number of tokens whose attention output the block computes, with this many extra tokens."""
        return self._emitted(self.patches_in if self.reducer.attends_first else self.patches_kept, extra)

    def tokens_computed(self, extra: int) -> int:
        """Number of tokens that go through the block's MLP, with this many extra tokens."""
        return self._emitted(self.patches_kept, extra)

    def _emitted(self, patches: int, extra: int) -> int:
        return {"all": patches + extra, "extra": extra, "patches": patches}[self.emits]
