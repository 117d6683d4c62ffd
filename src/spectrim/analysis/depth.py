"""Where in depth a ranking goes wrong: how far one patch takes the score of a block, and whether quiet patches do."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectrim.analysis.ablations import ranked
from spectrim.analysis.batches import ClipBatch
from spectrim.analysis.record import observe
from spectrim.checkpoints import from_pretrained
from spectrim.data import find_data_set
from spectrim.data.dataset import evenly
from spectrim.errors import InputShapeError

CLIPS = 400


def strongest_share(scores: NDArray[np.floating], alive: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The largest score of a clip's patches over the sum of all: of attention, what an attention sink takes.

    Args:
        scores: (n, blocks, patches), none below 0.
        alive: (n, blocks, patches): those that count.

    Returns:
        (n, blocks), from 1/patches, where all have the same, to 1; NaN where no patch has any.
    """
    counted = np.where(alive, scores, 0.0).astype(np.float64)
    total = counted.sum(axis=-1)
    return np.divide(counted.max(axis=-1), total, out=np.full(total.shape, np.nan), where=total > 0)


def score_correlation(
    scores: NDArray[np.floating], values: NDArray[np.floating], alive: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Pearson's correlation of a clip's scores with a value of its patches, such as their intensity, in each block.

    Args:
        scores: (n, blocks, patches).
        values: (n, patches).
        alive: (n, blocks, patches): those that count.

    Returns:
        (n, blocks); NaN where there are fewer than two patches, or all have the same score or value.

    Raises:
        InputShapeError: the shapes do not go together.
    """
    if scores.shape != alive.shape or (scores.shape[0], scores.shape[2]) != values.shape:
        raise InputShapeError(f"scores {scores.shape}, values {values.shape} and alive {alive.shape} do not agree")
    number = alive.sum(axis=-1, keepdims=True)
    parts = []
    for part in (scores, np.broadcast_to(values[:, None], scores.shape)):
        kept = np.where(alive, part, 0.0).astype(np.float64)
        mean = np.divide(kept.sum(axis=-1, keepdims=True), number, out=np.zeros(number.shape), where=number > 0)
        parts.append(np.where(alive, kept - mean, 0.0))
    first, second = parts
    length = np.sqrt((first**2).sum(axis=-1) * (second**2).sum(axis=-1))
    return np.divide((first * second).sum(axis=-1), length, out=np.full(length.shape, np.nan), where=length > 1e-12)


def score_profile(batches: Iterable[ClipBatch]) -> list[dict[str, Any]]:
    """How the scores of a dense model are spread, block by block.

    Args:
        batches: of a model that keeps all patches.

    Returns:
        A row a block: block; strongest_share and intensity_correlation, means over clips of `strongest_share` and
        `score_correlation`; clips.
    """
    shares, correlations = [], []
    for batch in batches:
        if len(batch):
            scores = batch.scores.reshape(*batch.scores.shape[:2], -1)
            alive = ~np.isnan(scores)
            shares.append(strongest_share(scores, alive))
            correlations.append(score_correlation(scores, batch.intensity.reshape(len(batch), -1), alive))
    share, correlation = np.concatenate(shares), np.concatenate(correlations)
    return [
        {
            "block": block,
            "strongest_share": float(np.nanmean(share[:, block])),
            "intensity_correlation": float(np.nanmean(correlation[:, block])),
            "clips": len(share),
        }
        for block in range(share.shape[1])
    ]


def profile_of(
    model: str | os.PathLike[str], data_set: str, root: Path, options: Mapping[str, Any], *, clips: int = CLIPS
) -> list[dict[str, Any]]:
    """`score_profile` of a model, dense, on evenly spread test clips of a data set, by its backbone's own score.

    Args:
        model: what `spectrim.from_pretrained` takes.
        data_set: name in `spectrim.data.DATA_SETS`.
        root: where it is.
        options: of its opener.
        clips: at most so many.
    """
    loaded = from_pretrained(model).eval()
    part = evenly(find_data_set(data_set).open(root, "test", **options), clips)
    return score_profile(observe(loaded, part, pruning=ranked(loaded.config.pruning, 1.0)))
