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


def _added(mask: Tensor | None, bias: PairBias | None, start: int, stop: int) -> Tensor | None:
    """What is added to the attention logits of some queries, or None."""
    if bias is None:
        return mask
    rows = bias.rows(start, stop)
    return rows if mask is None else rows + mask


def _class_rows(queries: Tensor, keys: Tensor, extra: int, mask: Tensor | None, bias: PairBias | None) -> Tensor:
    """Attention rows of [CLS] over the patch columns, (batch, heads, n)."""
    return attention_map(queries[:, :, :1], keys, _added(mask, bias, 0, 1))[:, :, 0, extra:]


def cls_attention(
    queries: Tensor,
    keys: Tensor,
    extra: int,
    mask: Tensor | None = None,
    values: Tensor | None = None,
    bias: PairBias | None = None,
) -> Tensor:
    """Attention row of [CLS] over the patch columns, mean over heads: the score of AST (paper, section 3).

    Args:
        queries: (batch, heads, 1 or more, head_dim), [CLS] first.
        keys: (batch, heads, extra + n, head_dim).
        extra: number of extra tokens.
        mask: additive mask over the keys, or None.
        values: not read.
        bias: of these queries, or None.

    Returns:
        (batch, n) float32.
    """
    return _class_rows(queries, keys, extra, mask, bias).mean(dim=1)


def cls_weighted_norm(
    queries: Tensor,
    keys: Tensor,
    extra: int,
    mask: Tensor | None = None,
    values: Tensor | None = None,
    bias: PairBias | None = None,
) -> Tensor:
    """Attention of [CLS] to the patch times the Euclidean norm of its value vector, mean over heads.

    What a patch adds to [CLS] is its attention times its value (Kobayashi et al., 2020, before the output projection).
    Attention sinks take much attention and have small values, so they count for little here.

    Args:
        queries, keys, extra, mask, bias: as for `cls_attention`.
        values: (batch, heads, extra + n, head_dim).

    Returns:
        (batch, n) float32.

    Raises:
        ValueError: there are no values.
    """
    if values is None:
        raise ValueError("cls_weighted_norm needs the value vectors")
    norms = _at_least_float32(values[:, :, extra:]).norm(dim=-1)
    return (_class_rows(queries, keys, extra, mask, bias) * norms).mean(dim=1)


def cls_head_median(
    queries: Tensor,
    keys: Tensor,
    extra: int,
    mask: Tensor | None = None,
    values: Tensor | None = None,
    bias: PairBias | None = None,
) -> Tensor:
    """Median over heads of the attention of [CLS] to the patch; of an even number, the mean of the middle two.

    A sink to which less than half of the heads give their attention does not rank by it, as it does in a mean.

    Args:
        queries, keys, extra, mask, bias: as for `cls_attention`.
        values: not read.

    Returns:
        (batch, n) float32.
    """
    rows = _class_rows(queries, keys, extra, mask, bias).sort(dim=1).values
    heads = rows.shape[1]
    return rows[:, (heads - 1) // 2 : heads // 2 + 1].mean(dim=1)


def value_norm(
    queries: Tensor,
    keys: Tensor,
    extra: int,
    mask: Tensor | None = None,
    values: Tensor | None = None,
    bias: PairBias | None = None,
) -> Tensor:
    """Euclidean norm of the patch's value vector, mean over heads: how much there is to attend to, not who does.

    Attention sinks have small values (Kobayashi et al., 2020), so they are the first to go.

    Args:
        queries, keys, bias: not read.
        extra, mask: as for `cls_attention`.
        values: (batch, heads, extra + n, head_dim).

    Returns:
        (batch, n) float32.

    Raises:
        ValueError: there are no values.
    """
    if values is None:
        raise ValueError("value_norm needs the value vectors")
    norms = _at_least_float32(values[:, :, extra:]).norm(dim=-1).mean(dim=1)
    return norms if mask is None else norms.masked_fill(mask[:, 0, 0, extra:].isneginf(), 0.0)


def cls_without_sinks(
    queries: Tensor,
    keys: Tensor,
    extra: int,
    mask: Tensor | None = None,
    values: Tensor | None = None,
    bias: PairBias | None = None,
) -> Tensor:
    """`cls_attention`, but patches with short value vectors, as sinks have them, rank below all others.

    Short is a norm (`value_norm`) below the mean over the clip's patches.

    Args:
        queries, keys, extra, mask, bias: as for `cls_attention`.
        values: (batch, heads, extra + n, head_dim).

    Returns:
        (batch, n) float32: the attention, and its logarithm, which is below nought, where the value vector is short.

    Raises:
        ValueError: there are no values.
    """
    norms = value_norm(queries, keys, extra, mask, values)
    attention = _class_rows(queries, keys, extra, mask, bias).mean(dim=1)
    if mask is None:
        short = norms < norms.mean(dim=1, keepdim=True)
    else:
        there = ~mask[:, 0, 0, extra:].isneginf()
        short = there & (norms < norms.sum(dim=1, keepdim=True) / there.sum(dim=1, keepdim=True).clamp(min=1))
    return attention.where(~short, attention.clamp(min=LEAST_SHARE).log())


def mean_attention(
    queries: Tensor,
    keys: Tensor,
    extra: int,
    mask: Tensor | None = None,
    values: Tensor | None = None,
    bias: PairBias | None = None,
) -> Tensor:
    """Attention that a patch receives, mean over heads and over the patch queries: the score of AudioMAE.

    The softmax runs over all tokens. Never holds more than `QUERY_CHUNK` rows of the attention map, and none where
    `spectrim.pruning.kernels.fused` can compute it.

    Args:
        queries: (batch, heads, extra + n, head_dim).
        keys: (batch, heads, extra + n, head_dim).
        extra: number of extra tokens.
        mask: additive mask over the keys, or None; a masked patch does not count as a query either, and a token that is
            the mean of several counts as so many.
        values: not read.
        bias: of these queries, or None.

    Returns:
        (batch, n) float32.
    """
    from spectrim.pruning.kernels import fused

    if bias is None and fused.score_fused(queries, keys, mask):
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
        added = _added(mask, bias, extra + start, extra + stop)
        rows = attention_map(queries[:, :, extra + start : extra + stop], keys, added)[..., extra:]
        if rows_count is not None:
            rows = rows * rows_count[:, :, start:stop]
        received = received + rows.sum(dim=(1, 2))
    return received / (heads * number)


def attend_and_score(queries: Tensor, keys: Tensor, values: Tensor, extra: int) -> tuple[Tensor, Tensor]:
    """Attention output and `mean_attention` at once; see `spectrim.pruning.kernels.fused`."""
    from spectrim.pruning.kernels import fused

    output, score = fused.attend_and_score(queries, keys, values, extra)
    return output, score
