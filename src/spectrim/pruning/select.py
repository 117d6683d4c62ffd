"""Which patches go on, and taking them: the only place that gathers tokens.

A token sequence is (batch, extra + n, ...): the extra tokens ([CLS], [DIST]) first, then n patches.
An index (batch, k) counts patches, not tokens: 0 is the first patch behind the extra tokens.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def count_kept(patches: int, keep_rate: float) -> int:
    """Number of patches that stay out of ``patches``: ceil(r·n), as the paper and its code count (in floats)."""
    return math.ceil(keep_rate * patches)


def distinct_ranks(scores: Tensor) -> Tensor:
    """Replace scores by ranks that never tie, so that a clip's survivors do not depend on who else is in the batch.

    Patches of digital silence or of padding have the same intensity; which of them a top-k picks is its own affair
    and changes with the number of patches.

    Args:
        scores: (batch, n).

    Returns:
        (batch, n) float32, 0 for the lowest to n − 1 for the highest; which of equal scores ranks higher depends on
        the scores of this clip alone.
    """
    order = scores.argsort(dim=1, descending=True, stable=True)
    return (scores.shape[1] - 1 - order.argsort(dim=1)).to(torch.float32)


def top_patches(scores: Tensor, count: int, *, ordered: bool = False) -> Tensor:
    """Indices of the ``count`` patches with the highest score.

    Args:
        scores: (batch, n); −inf marks a patch that must go before any other.
        count: how many to keep, at most n.
        ordered: highest score first; else in any order, which is cheaper and which attention does not see.

    Returns:
        (batch, count) int64, each index once.
    """
    return scores.topk(count, dim=1, sorted=ordered).indices


def take_patches(values: Tensor, index: Tensor) -> Tensor:
    """Pick patches.

    Args:
        values: (batch, n, ...) one entry a patch.
        index: (batch, k) which of them.

    Returns:
        (batch, k, ...).
    """
    trailing = values.shape[2:]
    wide = index.reshape(*index.shape, *(1 for _ in trailing)).expand(-1, -1, *trailing)
    return values.gather(1, wide)


def take_tokens(tokens: Tensor, index: Tensor, extra: int) -> Tensor:
    """Pick patches out of a token sequence; the extra tokens always stay, in front.

    Args:
        tokens: (batch, extra + n, ...).
        index: (batch, k) which patches.
        extra: number of extra tokens.

    Returns:
        (batch, extra + k, ...).
    """
    return torch.cat([tokens[:, :extra], take_patches(tokens[:, extra:], index)], dim=1)


def take_tokens_reference_compat(tokens: Tensor, index: Tensor) -> Tensor:
    """Pick tokens as the public code does when it ranks by intensity or variation.

    It uses patch indices on the whole sequence and forgets that the extra tokens stand in front: the extra tokens
    are lost unless patches 0 and 1 happen to rank, and the patches one (AudioMAE) or two (AST) places before the
    chosen ones are kept. The order of ``index`` matters, because the head reads the first tokens by position.

    Args:
        tokens: (batch, length, ...).
        index: (batch, k), highest score first.

    Returns:
        (batch, k, ...).
    """
    return take_patches(tokens, index)


def real_first(padding: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Order patches so that real ones come first, for dropping those that hold only padding.

    Args:
        padding: (batch, n) bool, True where a patch holds only padding.
        count: how many to keep: the largest number of real patches of any clip in the batch.

    Returns:
        index (batch, count) and valid (batch, count) bool, False where a clip has fewer real patches.
    """
    index = padding.to(torch.int8).argsort(dim=1, stable=True)[:, :count]
    return index, ~padding.gather(1, index)


def top_valid_patches(scores: Tensor, valid: Tensor, keep_rate: float) -> tuple[Tensor, Tensor]:
    """`top_patches` where clips have different numbers of real patches: each keeps ceil(r·its own number).

    Args:
        scores: (batch, n).
        valid: (batch, n) bool.
        keep_rate: r in (0, 1].

    Returns:
        index (batch, k) and valid (batch, k), k the largest count of any clip; patches past a clip's own count
        are marked False.
    """
    counts = [count_kept(int(real), keep_rate) for real in valid.sum(dim=1).tolist()]
    index = top_patches(scores.masked_fill(~valid, -math.inf), max(counts), ordered=True)
    rank = torch.arange(index.shape[1], device=index.device)
    return index, rank < torch.tensor(counts, device=index.device).unsqueeze(1)


def tokens_going_on(
    tokens: Tensor, index: Tensor | None, extra: int, emits: str, reference_compat: bool = False
) -> Tensor:
    """The tokens that a block computes on after its selection.

    Args:
        tokens: (batch, extra + n, ...).
        index: (batch, k) the patches that stay, or None for all.
        extra: number of extra tokens.
        emits: ``"all"``, ``"extra"`` or ``"patches"``; see `BlockPlan`.
        reference_compat: gather as the public code does.

    Returns:
        (batch, extra + k, ...), or without the patches, or without the extra tokens.
    """
    if reference_compat and index is not None:
        tokens = take_tokens_reference_compat(tokens, index)
    elif emits == "patches" and index is not None:
        return take_patches(tokens[:, extra:], index)
    elif emits == "all" and index is not None:
        return take_tokens(tokens, index, extra)
    if emits == "extra":
        return tokens[:, :extra]
    return tokens[:, extra:] if emits == "patches" else tokens
