"""Which patches go on, and taking them: the only place that gathers tokens.

A token sequence is (batch, extra + n, ...): the extra tokens ([CLS], [DIST]) first, then n patches.
An index (batch, k) counts patches, not tokens: 0 is the first patch behind the extra tokens.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spectrim.errors import InputShapeError
from spectrim.pruning.counts import count_kept


def check_scores(scores: Tensor, shape: tuple[int, ...], criterion: str) -> None:
    """Raise `InputShapeError` for scores of another shape than a criterion has to give, e.g. one of a user's own.

    Not looked at where a graph is made: it would hold the shapes of one example.
    """
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return
    if not isinstance(scores, Tensor) or tuple(scores.shape) != shape:
        given = f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else f"type {type(scores).__name__}"
        raise InputShapeError(f"criterion {criterion!r} gives scores of {given}; wanted: a tensor {shape}")


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


def take_columns(table: Tensor, index: Tensor) -> Tensor:
    """Pick columns of a table, each as often as wanted.

    Args:
        table: (rows, n).
        index: of any shape, which of them.

    Returns:
        (rows, *shape of the index).
    """
    return table.index_select(1, index.flatten()).unflatten(1, index.shape)


def take_tokens(tokens: Tensor, index: Tensor, extra: int) -> Tensor:
    """Pick patches out of a token sequence; the extra tokens always stay, in front.

    Args:
        tokens: (batch, extra + n, ...).
        index: (batch, k) which patches.
        extra: number of extra tokens.

    Returns:
        (batch, extra + k, ...).
    """
    if extra == 0:
        return take_patches(tokens, index)
    return torch.cat([tokens[:, :extra], take_patches(tokens[:, extra:], index)], dim=1)


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
    return _top_counted(_empty_last(scores, valid), counts)


def _empty_last(scores: Tensor, valid: Tensor) -> Tensor:
    """Scores in which empty slots are below every patch, also below one whose score is −inf."""
    return scores.clamp(min=torch.finfo(scores.dtype).min).masked_fill(~valid, -math.inf)


def _top_counted(scores: Tensor, counts: list[int]) -> tuple[Tensor, Tensor]:
    """`top_patches` with a count of each clip's own: index and valid, (batch, largest count)."""
    index = top_patches(scores, max(counts, default=scores.shape[1]), ordered=True)
    rank = torch.arange(index.shape[1], device=index.device)
    return index, rank < torch.tensor(counts, device=index.device).unsqueeze(1)


def top_mass(scores: Tensor, valid: Tensor | None, keep_rate: float, mass: float) -> tuple[Tensor, Tensor | None]:
    """The highest scores of each clip until they hold a share of their sum, and never fewer than ceil(r·n).

    Args:
        scores: (batch, n), not negative.
        valid: (batch, n) bool, False for empty slots; None where there are none.
        keep_rate: r in (0, 1], of each clip's own patches.
        mass: share of the sum, in (0, 1).

    Returns:
        index (batch, k) and valid (batch, k) bool as for `top_valid_patches`; None for it where all clips keep as many.
    """
    real = [scores.shape[1]] * len(scores) if valid is None else valid.sum(dim=1).tolist()
    seen = scores if valid is None else scores.masked_fill(~valid, 0.0)
    held = seen.double().sort(dim=1, descending=True).values.cumsum(dim=1)
    needed = ((held < mass * held[:, -1:]).sum(dim=1) + 1).tolist()
    counts = [max(count_kept(own, keep_rate), min(enough, own)) for own, enough in zip(real, needed, strict=True)]
    index, stays = _top_counted(scores if valid is None else _empty_last(scores, valid), counts)
    return index, None if len(set(counts)) <= 1 else stays


def quota_ranks(scores: Tensor, segment: Tensor, segments: int, valid: Tensor | None = None) -> Tensor:
    """Ranks by which the k highest are a fair share of every segment, for every k.

    The j-th best of the m patches of a segment has the quotient j / m; the lowest quotients rank highest, of equal ones
    the lower j, then the higher score. So of n patches each segment has at least floor(k·m / n) among the k highest
    (d'Hondt's method, which satisfies lower quota: Balinski and Young, 1982).

    Args:
        scores: (batch, n).
        segment: (batch, n) int64, the number of the segment of each patch, from 0.
        segments: how many there are.
        valid: (batch, n) bool, False for empty slots, which rank lowest and are of no segment; None for none.

    Returns:
        (batch, n) float32, distinct: 0 for the lowest to n − 1 for the highest.
    """
    if valid is not None:
        scores = scores.masked_fill(~valid, -math.inf)
    best = scores.argsort(dim=1, descending=True, stable=True)
    part = segment.gather(1, best)
    counted = torch.ones_like(part, dtype=torch.bool) if valid is None else valid.gather(1, best)
    member = (part.unsqueeze(2) == torch.arange(segments, device=part.device)) & counted.unsqueeze(2)
    place = member.cumsum(dim=1).gather(2, part.unsqueeze(2)).squeeze(2)
    size = member.sum(dim=1).gather(1, part)
    quotient = (place / size.clamp(min=1)).masked_fill(~counted, math.inf)
    by_place = place.argsort(dim=1, stable=True)
    by_quotient = quotient.gather(1, by_place).argsort(dim=1, stable=True)
    order = best.gather(1, by_place.gather(1, by_quotient))
    return (scores.shape[1] - 1 - order.argsort(dim=1)).to(torch.float32)


def renumbered(source: Tensor, length: int, index: Tensor, stays: Tensor | None, extra: int) -> Tensor:
    """Where the token that carries a patch stands after patches were picked.

    Args:
        source: (batch, F·T) int64: its place in the sequence so far, −1 for none.
        length: of that sequence.
        index: (batch, k) the patches that were picked, counted from the first one behind the extra tokens.
        stays: (batch, k) bool, False for picked slots that are empty; None where there are none.
        extra: number of extra tokens in front, before and after.

    Returns:
        (batch, F·T) int64: its new place, −1 where it was not picked.
    """
    places = torch.arange(extra, extra + index.shape[1], device=index.device).expand_as(index)
    if stays is not None:
        places = places.masked_fill(~stays, -1)
    table = torch.full((index.shape[0], length), -1, dtype=torch.int64, device=index.device)
    table = table.scatter(1, index + extra, places)
    return torch.where(source >= 0, table.gather(1, source.clamp(min=0)), source)


def summed(rows: Tensor, target: Tensor, weight: Tensor, length: int) -> Tensor:
    """Weighted sums of the rows that go to the same place, added up in float32 or better.

    Args:
        rows: (batch, n, width).
        target: (batch, n) int64: the place that each row goes to.
        weight: (batch, n).
        length: number of places.

    Returns:
        (batch, length, width), 0 where nothing goes.
    """
    batch, _, width = rows.shape
    index = target + length * torch.arange(batch, device=target.device).unsqueeze(1)
    exact = torch.promote_types(rows.dtype, torch.float32)
    weighted = (rows.to(exact) * weight.unsqueeze(-1)).flatten(0, 1)
    places = weighted.new_zeros(batch * length, width).index_add(0, index.flatten(), weighted)
    return places.unflatten(0, (batch, length)).to(rows.dtype)
