"""Accuracy and mean average precision, by scikit-learn where it has them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score


def accuracy(scores: NDArray[np.floating], targets: NDArray[np.floating]) -> float:
    """Share of the clips whose highest score is at the label of the highest target.

    Args:
        scores: (clips, labels).
        targets: (clips, labels).
    """
    return float((scores.argmax(axis=1) == targets.argmax(axis=1)).mean())


def mean_average_precision(scores: NDArray[np.floating], targets: NDArray[np.floating]) -> float:
    """Average precision (scikit-learn) per label, mean over the labels that have a positive clip; NaN without any.

    Args:
        scores: (clips, labels), any monotone score.
        targets: (clips, labels) of 0 and 1.
    """
    present = targets.sum(axis=0) > 0
    if not present.any():
        return float("nan")
    return float(average_precision_score(targets[:, present], scores[:, present], average="macro"))


METRICS = {"accuracy": accuracy, "mAP": mean_average_precision}
"""The metrics by the names that the data sets give them."""
