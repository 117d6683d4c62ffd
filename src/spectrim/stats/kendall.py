"""Kendall correlation between a patch's score and its cluster, for many clips and blocks at once.

Of two patches i and j with scores s and cluster ranks c, the pair is concordant where (sᵢ − sⱼ)·(cᵢ − cⱼ) > 0,
discordant where it is below 0, and tied where it is 0. With five clusters a fifth of the pairs is tied, or more, so
what is done with ties decides what the number says: see `paper_form` and `tau_b`, the marks beside them
(`paper_form_when_shuffled`, `largest_tau_b`), `somers_d`, which is the same of both, and `tau_b_of_values`, which has
no clusters.

Pairs are counted in O(n log n): ordered by score, and by cluster where scores are equal, the discordant pairs are the
inversions of the clusters, and for K clusters those are K − 1 running counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kendalltau

from spectrim.errors import InputShapeError, InvalidSetting
from spectrim.stats.ratios import divide_or_nan

MOST_CLUSTERS = 7
"""A cluster shares a 64-bit sorting key with its score: three bits, one value of which marks patches left out."""

CLUSTER_BITS = 3
OUTSIDE = (1 << CLUSTER_BITS) - 1
"""Mark of patches left out; it sorts behind all others, so that it changes none of their counts."""

PUBLISHED_MEANS: dict[str, dict[str, float]] = {
    "ast": {"AS-20K": 0.53, "SPC-2": 0.67, "ESC-50": 0.61},
    "audiomae": {"AS-20K": 0.46, "SPC-2": 0.49, "ESC-50": 0.59, "VoxCeleb-1": 0.56},
}
"""Backbone → data set → what the paper's figures read for clusters of intensity, mean over blocks, in `paper_form`."""

ENTRIES_AT_ONCE = 1 << 16
"""Scores that are sorted at once, so that they stay in a processor's cache."""

MOST_IN_INT32 = 65536
"""Up to this many patches, an int32 can count the pairs."""


class PairCounts(NamedTuple):
    """Numbers of pairs of patches; every field is (...) int64, one entry a clip and block.

    Attributes:
        concordant: pairs that score and cluster order alike.
        discordant: pairs that they order oppositely.
        tied_scores: pairs with equal scores, whatever their clusters.
        tied_clusters: pairs in one cluster, whatever their scores.
        pairs: all of them, n·(n − 1)/2.
    """

    concordant: NDArray[np.int64]
    discordant: NDArray[np.int64]
    tied_scores: NDArray[np.int64]
    tied_clusters: NDArray[np.int64]
    pairs: NDArray[np.int64]


def count_pairs(scores: NDArray[np.floating], clusters: NDArray[np.integer], number: int = 5) -> PairCounts:
    """Count the pairs of patches that two rankings order alike and oppositely, exactly.

    Args:
        scores: (..., n) of any floating type; NaN where a patch is not alive.
        clusters: (..., n) cluster rank from 0, broadcast against ``scores``; −1 leaves a patch out.
        number: of clusters, at most `MOST_CLUSTERS`.

    Returns:
        `PairCounts` of (...).

    Raises:
        InvalidSetting: ``number`` is out of range, or a rank is outside −1 … number − 1.
        InputShapeError: the shapes do not fit together.
    """
    scores, ranks = np.asarray(scores), np.asarray(clusters)
    if not 1 <= number <= MOST_CLUSTERS:
        raise InvalidSetting("number", number, f"1 to {MOST_CLUSTERS}")
    if ranks.size and not -1 <= ranks.min() <= ranks.max() < number:
        wrong = ranks.max() if ranks.max() >= number else ranks.min()
        raise InvalidSetting("clusters", int(wrong), f"ranks from 0 to {number - 1}, or -1 to leave a patch out")
    try:
        ranks = np.broadcast_to(ranks.astype(np.int8), scores.shape)
    except ValueError as error:
        raise InputShapeError(
            f"clusters has shape {ranks.shape}; wanted: one rank for each of the scores, {scores.shape}"
        ) from error
    shape, patches = scores.shape[:-1], scores.shape[-1]
    rows, wide = scores.reshape(-1, patches), ranks.reshape(-1, patches)
    at_once = max(1, ENTRIES_AT_ONCE // max(patches, 1))
    chunks = [
        _count_rows(rows[begin : begin + at_once], wide[begin : begin + at_once], number)
        for begin in range(0, max(len(rows), 1), at_once)
    ]
    return PairCounts(*(np.concatenate(counts).reshape(shape) for counts in zip(*chunks, strict=True)))


def _count_rows(scores: NDArray[np.floating], ranks: NDArray[np.integer], number: int) -> PairCounts:
    out = np.isnan(scores) | (ranks < 0)
    keys = (_order_codes(scores) << CLUSTER_BITS) | (ranks & OUTSIDE)
    if out.any():
        keys[out] = np.iinfo(np.int64).max
    keys.sort(axis=1)
    ordered = (keys & OUTSIDE).astype(np.int8)
    inside = ordered != OUTSIDE
    whole = np.int32 if keys.shape[1] <= MOST_IN_INT32 else np.int64
    discordant = np.zeros(len(keys), dtype=np.int64)
    tied_clusters = np.zeros(len(keys), dtype=np.int64)
    here = ordered == 0
    for rank in range(number):
        size = np.count_nonzero(here, axis=1)
        tied_clusters += size * (size - 1) // 2
        if rank < number - 1:
            higher_before: NDArray[Any] = np.cumsum(ordered > rank, axis=1, dtype=whole)
            discordant += np.einsum("ij,ij->i", higher_before, here.astype(whole))
            here = ordered == rank + 1
    living = np.count_nonzero(inside, axis=1)
    pairs = living * (living - 1) // 2
    tied_scores = _tied_pairs(keys >> CLUSTER_BITS, inside)
    tied_both = _tied_pairs(keys, inside) if tied_scores.any() else tied_scores
    concordant = pairs - discordant - tied_scores - tied_clusters + tied_both
    return PairCounts(concordant, discordant, tied_scores, tied_clusters, pairs)


def _order_codes(scores: NDArray[np.floating]) -> NDArray[np.int64]:
    """Whole numbers of at most 32 bits that order and tie as the scores of a row do; any for NaN."""
    if scores.dtype.itemsize <= 4:
        bits = (scores.astype(np.float32) + np.float32(0.0)).view(np.int32)
        return (bits ^ ((bits >> 31) & np.int32(0x7FFFFFFF))).astype(np.int64)
    order = np.argsort(scores, axis=1)
    ordered = np.take_along_axis(scores, order, axis=1)
    steps = np.zeros(scores.shape, dtype=np.int64)
    np.cumsum(ordered[:, 1:] != ordered[:, :-1], axis=1, out=steps[:, 1:])
    codes = np.empty_like(steps)
    np.put_along_axis(codes, order, steps, axis=1)
    return codes


def _tied_pairs(keys: NDArray[np.int64], inside: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Pairs of equal keys in each row of sorted keys: the k-th of a run of equals makes k − 1 of them."""
    equal = (keys[:, 1:] == keys[:, :-1]) & inside[:, 1:]
    if not equal.any():
        return np.zeros(len(keys), dtype=np.int64)
    place = np.arange(1, keys.shape[1], dtype=np.int64)
    start_of_run = np.maximum.accumulate(np.where(equal, 0, place), axis=1)
    return np.where(equal, place - start_of_run, 0).sum(axis=1)


def paper_form(counts: PairCounts) -> NDArray[np.float64]:
    """(C + ties − D) / pairs, as the paper's public code computes it: ties count as concordant.

    Equals 1 − 2·D/pairs. NaN where there is no pair.
    """
    return 1.0 - 2.0 * divide_or_nan(counts.discordant, counts.pairs)


def tau_b(counts: PairCounts) -> NDArray[np.float64]:
    """Kendall's tau-b (Kendall, 1945; `scipy.stats.kendalltau`): (C − D) / √((pairs − T_s)·(pairs − T_c)).

    T_s and T_c are the pairs tied in score and in cluster. NaN where all scores or all clusters are equal.
    """
    untied_scores = np.sqrt((counts.pairs - counts.tied_scores).astype(np.float64))
    untied_clusters = np.sqrt((counts.pairs - counts.tied_clusters).astype(np.float64))
    return np.clip(divide_or_nan(counts.concordant - counts.discordant, untied_scores * untied_clusters), -1.0, 1.0)


def paper_form_when_shuffled(counts: PairCounts) -> NDArray[np.float64]:
    """Mean of `paper_form` when the same scores are permuted among the patches at random: the share of ties.

    Over all permutations, a pair is untied in score and in cluster with probability (1 − T_s/pairs)·(1 − T_c/pairs),
    and then as often concordant as discordant; so the mean is 1 − (1 − T_s/pairs)·(1 − T_c/pairs), which is T_c/pairs
    where all scores differ. A score that has nothing to do with the clusters reads this, not 0.
    """
    untied_scores = 1.0 - divide_or_nan(counts.tied_scores, counts.pairs)
    return 1.0 - untied_scores * (1.0 - divide_or_nan(counts.tied_clusters, counts.pairs))


def largest_tau_b(counts: PairCounts) -> NDArray[np.float64]:
    """`tau_b` of a perfect score, which orders every pair of two clusters right and ties none: √(1 − T_c/pairs).

    Below 1, because clusters tie patches that a score tells apart. The paper's form reads 1 there. NaN without a pair.
    """
    return np.sqrt(1.0 - divide_or_nan(counts.tied_clusters, counts.pairs))


def somers_d(counts: PairCounts) -> NDArray[np.float64]:
    """Somers' D of the score given the cluster (1962; `scipy.stats.somersd`): (C − D) / (pairs − T_c).

    How far a score is on the way from random (0) to perfect (1), where no scores are tied: `tau_b` over
    `largest_tau_b`, and the same of the paper's form between `paper_form_when_shuffled` and 1. So it says "how much"
    whatever the clusters tie. NaN where all patches are in one cluster.
    """
    return divide_or_nan(counts.concordant - counts.discordant, counts.pairs - counts.tied_clusters)


def tau_b_of_values(scores: NDArray[np.floating], values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Kendall's tau-b of a patch's score and its value itself, before any clusters: `scipy.stats.kendalltau`.

    Args:
        scores: (..., n), NaN where a patch is not alive.
        values: (..., n), such as intensity, broadcast against ``scores``; NaN leaves a patch out.

    Returns:
        (...); NaN where all scores or all values are equal.

    Raises:
        InputShapeError: the shapes do not fit together.
    """
    scores = np.asarray(scores)
    try:
        values = np.broadcast_to(values, scores.shape)
    except ValueError as error:
        raise InputShapeError(
            f"values has shape {np.shape(values)}; wanted: one for each of the scores, {scores.shape}"
        ) from error
    taus = np.full(scores.shape[:-1], np.nan)
    for place in np.ndindex(taus.shape):
        alive = ~np.isnan(scores[place]) & ~np.isnan(values[place])
        if np.count_nonzero(alive) > 1:
            taus[place] = kendalltau(scores[place][alive], values[place][alive]).statistic
    return taus


def shuffled(scores: NDArray[np.floating], *, seed: int | Sequence[int]) -> NDArray[np.floating]:
    """Permute each row's scores among the patches that have one, at random; NaN stays where it is.

    Args:
        scores: (..., n), NaN where a patch is not alive.
        seed: of the shuffle.

    Returns:
        A new array of the same shape and type.
    """
    scores = np.asarray(scores)
    generator = np.random.default_rng(seed)
    rows = scores.reshape(-1, scores.shape[-1])
    gone = np.isnan(rows)
    draw = generator.random(rows.shape)
    source = np.argsort(np.where(gone, np.inf, draw), axis=1)
    target = np.argsort(gone, axis=1, kind="stable")
    dealt = np.empty_like(rows)
    np.put_along_axis(dealt, target, np.take_along_axis(rows, source, axis=1), axis=1)
    return dealt.reshape(scores.shape)
