"""What ranks the patches. A criterion returns scores and gathers nothing: the highest scores stay.

Attention criteria look at one block's queries and keys; patch criteria look at the spectrogram once, before the
first block. A new criterion is one function and one entry in `ATTENTION_CRITERIA` or `PATCH_CRITERIA`.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from spectrim.pruning.kernels import fused

QUERY_CHUNK = 128
"""Query rows whose attention map is held at once, so that memory grows with n and not with n²."""


@dataclass(frozen=True)
class AttentionCriterion:
    """An attention score and the queries that it reads.

    Attributes:
        queries: ``"class"`` (only [CLS]) or ``"all"`` (every token).
        score: function of queries (batch, heads, q, head_dim), keys (batch, heads, extra + n, head_dim), the number
            of extra tokens and an additive mask (batch, 1, 1, extra + n) or None; returns (batch, n) float32.
        together: function of queries, keys, values and the number of extra tokens that gives the attention output
            (batch, extra + n, width) and the score at once, for where
            `spectrim.pruning.kernels.fused.together_pays`; None where there is none.
    """

    queries: str
    score: Callable[[Tensor, Tensor, int, Tensor | None], Tensor]
    together: Callable[[Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor]] | None = None


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
    return logits.softmax(dim=-1, dtype=torch.promote_types(logits.dtype, torch.float32))


def cls_attention(queries: Tensor, keys: Tensor, extra: int, mask: Tensor | None = None) -> Tensor:
    """Attention row of [CLS] over the patch columns, mean over heads: the score of AST (paper, section 3).

    Args:
        queries: (batch, heads, 1 or more, head_dim), [CLS] first.
        keys: (batch, heads, extra + n, head_dim).
        extra: number of extra tokens.
        mask: additive mask over the keys, or None.

    Returns:
        (batch, n) float32.
    """
    return attention_map(queries[:, :, :1], keys, mask)[:, :, 0, extra:].mean(dim=1)


def mean_attention(queries: Tensor, keys: Tensor, extra: int, mask: Tensor | None = None) -> Tensor:
    """Attention that a patch receives, mean over heads and over the patch queries: the score of AudioMAE.

    The softmax runs over all tokens. Never holds more than `QUERY_CHUNK` rows of the attention map, and none where
    `spectrim.pruning.kernels.fused` can compute it.

    Args:
        queries: (batch, heads, extra + n, head_dim).
        keys: (batch, heads, extra + n, head_dim).
        extra: number of extra tokens.
        mask: additive mask over the keys, or None; a masked patch does not count as a query either.

    Returns:
        (batch, n) float32.
    """
    if fused.score_fused(queries, keys, mask):
        return fused.mean_attention(queries, keys, extra)
    heads, patches = queries.shape[1], queries.shape[2] - extra
    received = keys.new_zeros((), dtype=torch.promote_types(keys.dtype, torch.float32))
    if mask is None:
        number: Tensor | int = patches
        rows_count = None
    else:
        rows_count = (mask[:, :, 0, extra:] == 0).to(received.dtype).unsqueeze(-1)
        number = rows_count.sum(dim=2).squeeze(1)
    for start in range(0, patches, QUERY_CHUNK):
        stop = min(start + QUERY_CHUNK, patches)
        rows = attention_map(queries[:, :, extra + start : extra + stop], keys, mask)[..., extra:]
        if rows_count is not None:
            rows = rows * rows_count[:, :, start:stop]
        received = received + rows.sum(dim=(1, 2))
    return received / (heads * number)


ATTENTION_CRITERIA = {
    "cls_attention": AttentionCriterion("class", cls_attention),
    "mean_attention": AttentionCriterion("all", mean_attention, fused.attend_and_score),
}


def _patch_values(input_values: Tensor, patch_size: int, frequency_stride: int, time_stride: int) -> Tensor:
    """View a log-mel (batch, frames, mels) as patches (batch, F, T, patch_size, patch_size)."""
    return input_values.unfold(1, patch_size, time_stride).unfold(2, patch_size, frequency_stride).transpose(1, 2)


def intensity(input_values: Tensor, patch_size: int, frequency_stride: int, time_stride: int) -> Tensor:
    """Mean of the normalised log-mel values of each patch.

    Args:
        input_values: (batch, frames, mels).
        patch_size: side of a patch.
        frequency_stride: step between patches in mel bins.
        time_stride: step between patches in frames.

    Returns:
        (batch, F, T).
    """
    return _patch_values(input_values, patch_size, frequency_stride, time_stride).mean(dim=(-2, -1))


def variation(input_values: Tensor, patch_size: int, frequency_stride: int, time_stride: int) -> Tensor:
    """Standard deviation (of the sample, n − 1) of the normalised log-mel values of each patch.

    Arguments and result as for `intensity`.
    """
    return _patch_values(input_values, patch_size, frequency_stride, time_stride).std(dim=(-2, -1))


PATCH_CRITERIA = {"intensity": intensity, "variation": variation}


def random_scores(batch: int, patches: int, seed: int, device: torch.device, *, fresh: bool = False) -> Tensor:
    """Uniform scores: the baseline that knows nothing.

    Args:
        batch: number of clips.
        patches: number of patches.
        seed: of the fixed table, which is the same for every clip, so that a clip's answer depends neither on the
            batch nor on what came before.
        device: where to put them.
        fresh: draw from torch's global generator instead, anew for every clip, as training does.

    Returns:
        (batch, patches) in [0, 1).
    """
    if fresh:
        return torch.rand(batch, patches, device=device)
    table = _random_table if torch.compiler.is_compiling() else _cached_random_table
    return table(patches, seed, device).unsqueeze(0).expand(batch, -1)


def _random_table(patches: int, seed: int, device: torch.device) -> Tensor:
    generator = random.Random(seed)
    return torch.tensor([generator.random() for _ in range(patches)], device=device)


@functools.lru_cache(maxsize=8)
def _cached_random_table(patches: int, seed: int, device: torch.device) -> Tensor:
    """Keep the table on its device: a CUDA graph cannot capture a copy from the host."""
    with torch.inference_mode(mode=False):
        return _random_table(patches, seed, device)
