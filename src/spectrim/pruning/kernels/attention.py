"""The Triton kernel of `spectrim.pruning.kernels.fused`: attention, and what each patch receives of it, without a map.

A program takes one tile of queries of one head. Its first loop over the tiles of keys is the online softmax (Milakov
and Gimelshein, 2018; Dao et al., 2022): it leaves every row's maximum m and sum l, and the attention output where that
is wanted. Its second loop computes the logits s once more and adds up exp(s − m) / l over the rows: the share that
these queries give to each key. Each program writes its own row of sums, so the score is the same on every run, which
atomic additions would not give.

Importing this module needs triton. With ``TRITON_INTERPRET=1`` in the environment before that import, Triton's
interpreter runs the kernel on the CPU.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor


class Tiles(NamedTuple):
    """How the work is cut.

    Attributes:
        queries: query rows of a program, a power of two from 16.
        keys: keys that it looks at in one step, likewise.
        warps: warps of a program.
        stages: steps whose loads are under way at once.
    """

    queries: int = 64
    keys: int = 64
    warps: int = 4
    stages: int = 3


TILES = Tiles()
"""Chosen by counting, not measured: 513 tokens fill 9 tiles of 64 with 11 % to spare, tiles of 128 with 20 %."""

LEAST_DIM = 16
"""Smallest inner dimension of a matrix product in Triton."""


@triton.jit
def _load(
    base: tl.tensor, stride: tl.tensor, rows: tl.tensor, length: tl.tensor, HEAD_DIM: tl.constexpr, WIDE: tl.constexpr
) -> tl.tensor:
    """Rows of queries, keys or values, (rows, WIDE): zero past the end and past HEAD_DIM."""
    dims = tl.arange(0, WIDE)
    places = base + rows[:, None] * stride + dims[None, :]
    return tl.load(places, mask=(rows[:, None] < length) & (dims[None, :] < HEAD_DIM), other=0.0)


@triton.jit
def _logits(queries: tl.tensor, keys: tl.tensor, columns: tl.tensor, length: tl.tensor, scale: tl.tensor) -> tl.tensor:
    """Scaled products in float32 for powers of two, −inf past the last key."""
    products = tl.dot(queries, tl.trans(keys), input_precision="ieee")
    return tl.where(columns[None, :] < length, products * scale, float("-inf"))


@triton.jit
def _write_sums(
    sums_at: tl.tensor,
    queries: tl.tensor,
    highest: tl.tensor,
    share: tl.tensor,
    keys_at: tl.tensor,
    key_row: tl.tensor,
    length: tl.tensor,
    extra: tl.tensor,
    scale: tl.tensor,
    HEAD_DIM: tl.constexpr,
    WIDE: tl.constexpr,
    KEYS: tl.constexpr,
) -> None:
    """Compute the logits once more and write what these queries give to each patch; ``share`` is 1 / l, or 0."""
    for start in range(0, length, KEYS):
        columns = start + tl.arange(0, KEYS)
        keys = _load(keys_at, key_row, columns, length, HEAD_DIM, WIDE)
        weights = tl.exp2(_logits(queries, keys, columns, length, scale) - highest[:, None])
        received = tl.sum(weights * share[:, None], 0)
        tl.store(sums_at + columns - extra, received, mask=(columns >= extra) & (columns < length))


@triton.jit
def _attend(
    queries_at: tl.tensor,
    keys_at: tl.tensor,
    values_at: tl.tensor,
    output_at: tl.tensor,
    sums_at: tl.tensor,
    query_item: tl.tensor,
    query_head: tl.tensor,
    query_row: tl.tensor,
    key_item: tl.tensor,
    key_head: tl.tensor,
    key_row: tl.tensor,
    value_item: tl.tensor,
    value_head: tl.tensor,
    value_row: tl.tensor,
    heads: tl.tensor,
    length: tl.tensor,
    extra: tl.tensor,
    scale: tl.tensor,
    WITH_OUTPUT: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    WIDE: tl.constexpr,
    QUERIES: tl.constexpr,
    KEYS: tl.constexpr,
) -> None:
    """One tile of queries of one head of one clip."""
    tiles = tl.cdiv(length, QUERIES)
    tile = tl.program_id(0) % tiles
    pair = tl.program_id(0) // tiles
    item = (pair // heads).to(tl.int64)
    head = pair % heads
    keys_at += item * key_item + head * key_head
    values_at += item * value_item + head * value_head
    rows = tile * QUERIES + tl.arange(0, QUERIES)
    queries_at += item * query_item + head * query_head
    queries = _load(queries_at, query_row, rows, length, HEAD_DIM, WIDE)
    highest = tl.full((QUERIES,), float("-inf"), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    attended = tl.zeros((QUERIES, WIDE), tl.float32)
    for start in range(0, length, KEYS):
        columns = start + tl.arange(0, KEYS)
        keys = _load(keys_at, key_row, columns, length, HEAD_DIM, WIDE)
        logits = _logits(queries, keys, columns, length, scale)
        higher = tl.maximum(highest, tl.max(logits, 1))
        weights = tl.exp2(logits - higher[:, None])
        shrink = tl.exp2(highest - higher)
        total = total * shrink + tl.sum(weights, 1)
        if WITH_OUTPUT:
            values = _load(values_at, value_row, columns, length, HEAD_DIM, WIDE)
            attended *= shrink[:, None]
            attended += tl.dot(weights.to(values.dtype), values, input_precision="ieee")
        highest = higher
    if WITH_OUTPUT:
        dims = tl.arange(0, WIDE)
        places = ((item * length + rows) * heads + head)[:, None] * HEAD_DIM + dims[None, :]
        inside = (rows[:, None] < length) & (dims[None, :] < HEAD_DIM)
        tl.store(output_at + places, (attended / total[:, None]).to(output_at.dtype.element_ty), mask=inside)
    share = tl.where((rows >= extra) & (rows < length), 1.0 / total, 0.0)
    sums_at += tl.program_id(0).to(tl.int64) * (length - extra)
    _write_sums(sums_at, queries, highest, share, keys_at, key_row, length, extra, scale, HEAD_DIM, WIDE, KEYS)


def launch(
    queries: Tensor, keys: Tensor, values: Tensor | None, extra: int, tiles: Tiles = TILES
) -> tuple[Tensor, Tensor]:
    """Run the kernel once and add up its sums.

    Args:
        queries: (batch, heads, extra + n, head_dim) of any strides; float32, float16 or bfloat16.
        keys: the same shape and type.
        values: likewise, or None where only the score is wanted.
        extra: number of extra tokens.
        tiles: how the work is cut.

    Returns:
        The attention output, heads side by side, (batch, extra + n, heads · head_dim) of the type of ``values``, empty
        without them; and the score (batch, n) float32 as `spectrim.pruning.criteria.attention.mean_attention` defines
        it.
    """
    queries, keys = _last_dense(queries), _last_dense(keys)
    seen = keys if values is None else _last_dense(values)
    batch, heads, length, head_dim = queries.shape
    count = triton.cdiv(length, tiles.queries)
    sums = torch.empty(batch, heads, count, length - extra, dtype=torch.float32, device=queries.device)
    output = seen.new_empty(0 if values is None else batch, length, heads * head_dim)
    _attend[(batch * heads * count,)](
        queries,
        keys,
        seen,
        output,
        sums,
        *queries.stride()[:3],
        *keys.stride()[:3],
        *seen.stride()[:3],
        heads,
        length,
        extra,
        head_dim**-0.5 * math.log2(math.e),
        WITH_OUTPUT=values is not None,
        HEAD_DIM=head_dim,
        WIDE=max(LEAST_DIM, triton.next_power_of_2(head_dim)),
        QUERIES=tiles.queries,
        KEYS=tiles.keys,
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )
    return output, sums.sum(dim=(1, 2)) / (heads * (length - extra))


def _last_dense(tensor: Tensor) -> Tensor:
    """The tensor itself if its last axis lies dense in memory, else a copy of which it does."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()
