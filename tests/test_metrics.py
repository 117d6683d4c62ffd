from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score

from spectrim.metrics import accuracy, mean_average_precision


def test_accuracy_equals_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    scores, labels = generator.standard_normal((200, 5)), generator.integers(0, 5, 200)
    assert accuracy(scores, np.eye(5)[labels]) == pytest.approx(accuracy_score(labels, scores.argmax(1)))


def test_map_is_the_mean_over_labels_that_occur() -> None:
    generator = np.random.default_rng(1)
    scores, targets = generator.standard_normal((100, 4)), (generator.random((100, 4)) < 0.2).astype(float)
    targets[:, 2] = 0
    each = [average_precision_score(targets[:, label], scores[:, label]) for label in (0, 1, 3)]
    assert mean_average_precision(scores, targets) == pytest.approx(np.mean(each))
    assert math.isnan(mean_average_precision(scores, np.zeros_like(targets)))
