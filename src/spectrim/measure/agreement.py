"""How far two sets of scores of the same clips agree, with intervals over clips."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from spectrim.config import SpectrimConfig
from spectrim.measure.metrics import TOP, right_clips
from spectrim.stats.bootstrap import CONFIDENCE, bootstrap
from spectrim.stats.ratios import clip_mean, divide_or_nan

THRESHOLD = 0.5
"""Score from which a label counts as given where nobody says."""


def agreement(
    dense: NDArray[np.float32],
    pruned: NDArray[np.float32],
    config: SpectrimConfig,
    *,
    threshold: float = THRESHOLD,
    itself: bool = False,
) -> dict[str, float | int | None]:
    """How far two sets of scores agree, with 95 % intervals over clips.

    Each quantity comes with its ends as ``…_low`` and ``…_high``, None where there is but one clip:

    * agreement: share of the clips with the same best label; Clopper & Pearson's exact interval.
    * label_overlap, for multi-label models: labels whose score reaches the threshold in both, over those that reach it
      in either (Jaccard), mean over the clips where there is one in either; label_clips says how many these are, and
      with none it is None. top5_overlap: share of the five best labels that are the same, mean over clips; only where
      there are more than five. Bootstrap over clips; where all clips agree in full, or not at all, resampling them
      finds no spread, and the exact interval for as many successes out of as many trials stands instead. It holds for
      any quantity in [0, 1]: its mean is at least the share of ones.
    * mean_change: absolute change of a score, mean over labels and clips. clip_change: the largest of a clip, mean
      over clips. Bootstrap over clips. largest_change: of all, without an interval.

    Args:
        dense: (clips, labels) scores of the dense model.
        pruned: (clips, labels) of the same clips.
        config: says what the scores are, by ``problem_type``.
        threshold: score from which a label counts as given.
        itself: the dense model is compared with itself, so that there is nothing to estimate: no intervals.
    """
    change = np.abs(pruned.astype(np.float64) - dense)
    quantities: dict[str, NDArray[np.floating]] = {"agreement": right_clips(pruned, dense).astype(np.float64)}
    if config.multi_label:
        dense_labels, pruned_labels = dense >= threshold, pruned >= threshold
        either = (dense_labels | pruned_labels).sum(axis=1)
        both = (dense_labels & pruned_labels).sum(axis=1)
        quantities["label_overlap"] = divide_or_nan(both, either)
    if config.multi_label and dense.shape[1] > TOP:
        quantities["top5_overlap"] = _shared_best(dense, pruned) / TOP
    quantities |= {"mean_change": change.mean(axis=1), "clip_change": change.max(axis=1)}
    row: dict[str, float | int | None] = {}
    for name, values in quantities.items():
        exact, share = name == "agreement", not name.endswith("change")
        low, high = (None, None) if itself else _interval(values, exact=exact, share=share)
        mean = float(np.nanmean(values)) if np.isfinite(values).any() else None
        row |= {name: mean, f"{name}_low": low, f"{name}_high": high}
    if config.multi_label:
        row["label_clips"] = int(np.isfinite(quantities["label_overlap"]).sum())
    return row | {"largest_change": float(change.max())}


def _shared_best(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.int64]:
    """(clips,) how many of the five best labels two (clips, labels) share; of equal scores the first counts."""
    best = [np.argsort(-scores, axis=1, kind="stable")[:, :TOP] for scores in (first, second)]
    return (best[0][:, :, None] == best[1][:, None, :]).sum(axis=(1, 2))


def _interval(values: NDArray[np.floating], *, exact: bool, share: bool) -> tuple[float | None, float | None]:
    """Ends of the interval of a mean over clips (clips,), NaN where a clip has no value; see `agreement`."""
    known = values[~np.isnan(values)]
    if not len(known):
        return None, None
    if exact or (share and (known == known[0]).all() and known[0] in (0.0, 1.0)):
        ends = stats.binomtest(int(known.sum()), len(known)).proportion_ci(CONFIDENCE, method="exact")
        return float(ends.low), float(ends.high)
    estimate = bootstrap(clip_mean(known))
    return (None, None) if len(known) < 2 else (float(estimate.low), float(estimate.high))
