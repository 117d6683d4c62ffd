"""How good scores are: accuracy, average precision, area under the ROC curve and d-prime, by scikit-learn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from spectrim.errors import InputShapeError, SpectrimError

TOP = 5
"""The k of top-k accuracy, given where there are more labels than that."""


def check_scores(scores: ArrayLike, targets: ArrayLike) -> None:
    """Refuse what no metric can be made of.

    Args:
        scores: (clips, labels).
        targets: (clips, labels).

    Raises:
        InputShapeError: the shapes differ or are not two-dimensional, or there are no clips.
        SpectrimError: a score is NaN or infinite; says how many are, and where the first one is.
    """
    shapes = np.shape(scores), np.shape(targets)
    if shapes[0] != shapes[1] or len(shapes[0]) != 2 or 0 in shapes[0]:
        raise InputShapeError(
            f"scores have shape {shapes[0]} and targets {shapes[1]}; wanted: (clips, labels), one or more of each"
        )
    bad = ~np.isfinite(scores)
    if bad.any():
        clip, label = np.argwhere(bad)[0]
        raise SpectrimError(
            f"{int(bad.sum())} of {bad.size} scores are NaN or infinite, the first that of clip {clip} for label "
            f"{label}: the model has diverged, or its number type is too small (try float32)"
        )


def accuracy(scores: NDArray[np.floating], targets: NDArray[np.floating]) -> float:
    """Share of the clips whose highest score is at the label of the highest target.

    Args:
        scores: (clips, labels).
        targets: (clips, labels).

    Raises:
        InputShapeError, SpectrimError: see `check_scores`.
    """
    check_scores(scores, targets)
    return float(right_clips(scores, targets).mean())


def chance_level(targets: NDArray[np.floating], metric: str) -> float:
    """What the metric comes to without looking at the clips: the commonest label's share, or for mAP the mean share.

    Args:
        targets: (clips, labels) of 0 and 1.
        metric: name in `METRICS`.
    """
    shares = (np.asarray(targets) > 0).mean(axis=0)
    if metric == "accuracy":
        return float(shares.max())
    told = shares[(shares > 0) & (shares < 1)]
    return float(told.mean()) if len(told) else 0.0


def right_clips(scores: NDArray[np.floating], targets: NDArray[np.floating]) -> NDArray[np.bool_]:
    """(clips,): whether the highest score is at the label of the highest target; both (clips, labels)."""
    return np.asarray(scores.argmax(axis=1) == targets.argmax(axis=1))


def confusion_counts(scores: NDArray[np.floating], targets: NDArray[np.floating]) -> NDArray[np.int64]:
    """How many clips of each label are given each answer.

    Args:
        scores: (clips, labels).
        targets: (clips, labels); the label of a clip is that of its highest target.

    Returns:
        (labels, labels): a row a label, a column an answer, the label of the highest score.

    Raises:
        InputShapeError, SpectrimError: see `check_scores`.
    """
    check_scores(scores, targets)
    every = np.arange(targets.shape[1])
    counts = confusion_matrix(targets.argmax(axis=1), scores.argmax(axis=1), labels=every)
    return np.asarray(counts, dtype=np.int64)


def mean_average_precision(scores: NDArray[np.floating], targets: NDArray[np.floating]) -> float:
    """Average precision (scikit-learn) per label, mean over the labels that some clips have and some do not, else NaN.

    Where every clip has a label, whatever the scores, its average precision would be 1.

    Args:
        scores: (clips, labels), any monotone score.
        targets: (clips, labels) of 0 and 1.

    Raises:
        InputShapeError, SpectrimError: see `check_scores`.
    """
    check_scores(scores, targets)
    return _mean(average_precisions(scores, targets))


METRICS = {"accuracy": accuracy, "mAP": mean_average_precision}
"""The metrics by the names that the data sets give them."""


def average_precisions(scores: NDArray[np.floating], targets: NDArray[np.floating]) -> NDArray[np.float64]:
    """(labels,) average precision, NaN for labels that no clip has or every clip has; arguments as above."""
    found = np.full(targets.shape[1], np.nan)
    for label in np.flatnonzero(targets.any(axis=0) & ~targets.all(axis=0)):
        found[label] = average_precision_score(targets[:, label] > 0, scores[:, label])
    return found


def roc_areas(scores: NDArray[np.floating], targets: NDArray[np.floating]) -> NDArray[np.float64]:
    """(labels,) area under the ROC curve, NaN for labels that no clip has or every clip has; arguments as above."""
    found = np.full(targets.shape[1], np.nan)
    for label in np.flatnonzero(targets.any(axis=0) & ~targets.all(axis=0)):
        found[label] = roc_auc_score(targets[:, label] > 0, scores[:, label])
    return found


def d_prime(area: float) -> float:
    """How far apart two unit normal distributions would lie for this area under the ROC curve: √2·Φ⁻¹(area).

    The AudioSet literature gives d-prime of the *mean* area over the labels (Kong et al., PANNs, 2020; Gong et al.,
    AST, 2021), which is not the mean of the labels' d-primes; so does `summarise`.

    Args:
        area: in [0, 1]; 0.5 is chance and gives 0, 1 gives infinity.
    """
    return math.sqrt(2.0) * float(norm.ppf(area))


@dataclass(frozen=True)
class LabelMetrics:
    """What can be said of each label. Every field is (labels,), NaN where a value is not defined.

    Attributes:
        positives: clips that have the label.
        negatives: clips that do not.
        average_precision: not defined without positives or without negatives.
        roc_area: not defined without positives or without negatives.
        recall: share of the label's clips whose highest score it has, the per-class accuracy; None where clips can have
            several labels, and not defined without positives.
        precision: share of the clips whose highest score the label has that are its own; None likewise, and not defined
            where it has no clip's highest score.
    """

    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]
    average_precision: NDArray[np.float64]
    roc_area: NDArray[np.float64]
    recall: NDArray[np.float64] | None
    precision: NDArray[np.float64] | None

    @property
    def undefined(self) -> dict[str, list[int]]:
        """Metric → the labels that its mean leaves out, because they have no positive, or no negative, clip."""
        left_out = np.flatnonzero((self.positives == 0) | (self.negatives == 0)).tolist()
        return {"mAP": left_out, "AUC": left_out}


def label_metrics(scores: NDArray[np.floating], targets: NDArray[np.floating], *, multi_label: bool) -> LabelMetrics:
    """Metrics of each label against all others.

    Args:
        scores: (clips, labels); only their order within a label counts, and for ``recall`` and ``precision`` that
            within a clip.
        targets: (clips, labels) of 0 and 1.
        multi_label: whether a clip can have several labels.

    Raises:
        InputShapeError, SpectrimError: see `check_scores`.
    """
    check_scores(scores, targets)
    positives = np.count_nonzero(targets, axis=0).astype(np.int64)
    recall = precision = None
    if not multi_label:
        found = np.bincount(targets.argmax(axis=1)[right_clips(scores, targets)], minlength=targets.shape[1])
        answers = np.bincount(scores.argmax(axis=1), minlength=targets.shape[1])
        recall, precision = (
            np.divide(found, clips, out=np.full(len(clips), np.nan), where=clips > 0) for clips in (positives, answers)
        )
    return LabelMetrics(
        positives,
        len(targets) - positives,
        average_precisions(scores, targets),
        roc_areas(scores, targets),
        recall,
        precision,
    )


def summarise(
    scores: NDArray[np.floating], targets: NDArray[np.floating], labels: LabelMetrics, *, multi_label: bool
) -> dict[str, float]:
    """All metrics of a data set by name.

    Args:
        scores: (clips, labels).
        targets: (clips, labels) of 0 and 1.
        labels: of `label_metrics` for them.
        multi_label: whether a clip can have several labels.

    Returns:
        Where a clip has one label: accuracy, and top5_accuracy if there are more than `TOP` labels. Always: mAP and
        AUC, means over the labels for which they are defined (NaN if for none), and d_prime of that AUC.
    """
    found = {}
    if not multi_label:
        found["accuracy"] = accuracy(scores, targets)
        if targets.shape[1] > TOP:
            best = np.argsort(-scores, axis=1, kind="stable")[:, :TOP]  # of equal scores the first, as for accuracy
            found[f"top{TOP}_accuracy"] = float((best == targets.argmax(axis=1)[:, None]).any(axis=1).mean())
    area = _mean(labels.roc_area)
    return {**found, "mAP": _mean(labels.average_precision), "AUC": area, "d_prime": d_prime(area)}


def _mean(values: NDArray[np.float64]) -> float:
    """Mean of what is defined, NaN if nothing is."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else math.nan
