"""Scores from the queries, keys and values of a block: what attention a patch receives, and how much it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

QUERY_CHUNK = 128
"""Query rows whose attention map is held at once, so that memory grows with n and not with n²."""


LEAST_SHARE = 1e-30
"""Of attention, of which there is a logarithm in float32."""


class PairBias(NamedTuple):
    """What is added to the attention logits of a query and a key: a number of the query times one of the pair.

    Attributes:
        gate: (batch, heads, q, 1).
        pairs: (batch or 1, heads, q, n).
    """

    gate: Tensor
    pairs: Tensor

    def rows(self, start: int = 0, stop: int | None = None) -> Tensor:
        """(batch, heads, rows, n) of the queries from ``start`` to before ``stop``."""
        return self.gate[:, :, start:stop] * self.pairs[:, :, start:stop]

    def detach(self) -> PairBias:
        """The same without gradients."""
        return PairBias(self.gate.detach(), self.pairs.detach())


class Projections(NamedTuple):
    """What a block's attention is made of, and so what a criterion that reads it is given.

    Attributes:
        queries: (batch, heads, q, head_dim): of all tokens, of [CLS] alone, or none, as `Criterion.reads` says.
        keys: (batch, heads, extra + n, head_dim).
        values: (batch, heads, extra + n, head_dim).
        extra: number of extra tokens, which come first.
        mask: additive over the keys, (batch, 1, 1, extra + n), or None. −inf hides a token; one that is the mean of
            several has the logarithm of their number.
        bias: of these queries, or None.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    extra: int
    mask: Tensor | None = None
    bias: PairBias | None = None

    def detach(self) -> Projections:
        """The same without gradients."""
        bias = None if self.bias is None else self.bias.detach()
        return self._replace(
            queries=self.queries.detach(), keys=self.keys.detach(), values=self.values.detach(), bias=bias
        )

    def attention_rows(self, start: int = 0, stop: int | None = None) -> Tensor:
        """(batch, heads, rows, n): what the queries from ``start`` to before ``stop`` give to the patches."""
        added = self.mask
        if self.bias is not None:
            rows = self.bias.rows(start, stop)
            added = rows if added is None else rows + added
        return attention_map(self.queries[:, :, start:stop], self.keys, added)[..., self.extra :]

    def class_rows(self) -> Tensor:
        """(batch, heads, n): what [CLS] gives to the patches."""
        return self.attention_rows(stop=1)[:, :, 0]

    def value_norms(self) -> Tensor:
        """(batch, heads, n): the Euclidean norm of the patches' value vectors, in float32 or better."""
        return _at_least_float32(self.values[:, :, self.extra :]).norm(dim=-1)


def attention_map(queries: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax of the scaled dot products, in float32 or better.

    Args:
        queries: (batch, heads, q, head_dim).
        keys: (batch, heads, n, head_dim).
        mask: additive, broadcast to (batch, heads, q, n), or None.

    Returns:
        (batch, heads, q, n), rows sum to 1.
    """
    logits = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-2, -1)
    if mask is not None:
        logits = logits + mask
    return _at_least_float32(logits).softmax(dim=-1)


def _at_least_float32(values: Tensor) -> Tensor:
    return values if values.element_size() >= 4 else values.float()


def cls_attention(block: Projections) -> Tensor:
    """Attention row of [CLS] over the patch columns, mean over heads: the score of AST (paper, section 3).

    Returns:
        (batch, n) float32.
    """
    return block.class_rows().mean(dim=1)


def cls_weighted_norm(block: Projections) -> Tensor:
    """Attention of [CLS] to the patch times the Euclidean norm of its value vector, mean over heads.

    What a patch adds to [CLS] is its attention times its value (Kobayashi et al., 2020, before the output projection).
    Attention sinks take much attention and have small values, so they count for little here.

    Returns:
        (batch, n) float32.
    """
    return (block.class_rows() * block.value_norms()).mean(dim=1)


def cls_head_median(block: Projections) -> Tensor:
    """Median over heads of the attention of [CLS] to the patch; of an even number, the mean of the middle two.

    A sink to which less than half of the heads give their attention does not rank by it, as it does in a mean.

    Returns:
        (batch, n) float32.
    """
    rows = block.class_rows().sort(dim=1).values
    heads = rows.shape[1]
    return rows[:, (heads - 1) // 2 : heads // 2 + 1].mean(dim=1)


def value_norm(block: Projections) -> Tensor:
    """Euclidean norm of the patch's value vector, mean over heads: how much there is to attend to, not who does.

    Attention sinks have small values (Kobayashi et al., 2020), so they are the first to go. Reads no query.

    Returns:
        (batch, n) float32.
    """
    norms = block.value_norms().mean(dim=1)
    return norms if block.mask is None else norms.masked_fill(block.mask[:, 0, 0, block.extra :].isneginf(), 0.0)


def cls_without_sinks(block: Projections) -> Tensor:
    """`cls_attention`, but patches with short value vectors, as sinks have them, rank below all others.

    Short is a norm (`value_norm`) below the mean over the clip's patches.

    Returns:
        (batch, n) float32: the attention, and its logarithm, which is below nought, where the value vector is short.
    """
    norms, attention = value_norm(block), cls_attention(block)
    if block.mask is None:
        short = norms < norms.mean(dim=1, keepdim=True)
    else:
        there = ~block.mask[:, 0, 0, block.extra :].isneginf()
        short = there & (norms < norms.sum(dim=1, keepdim=True) / there.sum(dim=1, keepdim=True).clamp(min=1))
    return attention.where(~short, attention.clamp(min=LEAST_SHARE).log())


def mean_attention(block: Projections) -> Tensor:
    """Attention that a patch receives, mean over heads and over the patch queries: the score of AudioMAE.

    The softmax runs over all tokens. Never holds more than `QUERY_CHUNK` rows of the attention map, and none where
    `spectrim.pruning.kernels.fused` can compute it. A masked patch does not count as a query either, and a token that
    is the mean of several counts as so many.

    Returns:
        (batch, n) float32.
    """
    from spectrim.pruning.kernels import fused

    queries, keys, extra, mask = block.queries, block.keys, block.extra, block.mask
    if block.bias is None and fused.score_fused(queries, keys, mask):
        return fused.mean_attention(queries, keys, extra)
    heads, patches = queries.shape[1], queries.shape[2] - extra
    received = _at_least_float32(keys.new_zeros(()))
    if mask is None:
        number: Tensor | int = patches
        rows_count = None
    else:
        rows_count = mask[:, :, 0, extra:].to(received.dtype).exp().unsqueeze(-1)
        number = rows_count.sum(dim=2).squeeze(1)
    for start in range(0, patches, QUERY_CHUNK):
        stop = min(start + QUERY_CHUNK, patches)
        rows = block.attention_rows(extra + start, extra + stop)
        if rows_count is not None:
            rows = rows * rows_count[:, :, start:stop]
        received = received + rows.sum(dim=(1, 2))
    return received / (heads * number)


def attend_and_score(block: Projections) -> tuple[Tensor, Tensor]:
    """Attention output and `mean_attention` at once; see `spectrim.pruning.kernels.fused`."""
    from spectrim.pruning.kernels import fused

    output, score = fused.attend_and_score(block.queries, block.keys, block.values, block.extra)
    return output, score
