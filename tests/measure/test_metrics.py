"""Metrics against scikit-learn, scipy and the plain definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats import mannwhitneyu, norm
from sklearn.metrics import accuracy_score, average_precision_score, precision_score, recall_score

from spectrim.errors import InputShapeError, SpectrimError
from spectrim.measure.metrics import (
    METRICS,
    accuracy,
    average_precisions,
    d_prime,
    label_metrics,
    mean_average_precision,
    right_clips,
    roc_areas,
    summarise,
)

Case = tuple[np.ndarray, np.ndarray]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Scores with many ties, and targets of which some labels have no or only positive clips."""
    shape = draw(st.tuples(st.integers(1, 12), st.integers(1, 4)))
    scores = draw(arrays.arrays(np.float32, shape, elements=st.integers(-3, 3).map(float)))
    return scores, draw(arrays.arrays(np.float32, shape, elements=st.sampled_from([0.0, 1.0])))


def plain_average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Mean over the positives of the precision among all that score at least as high."""
    return float(np.mean([positive[scores >= score].mean() for score in scores[positive]]))


def test_accuracy_equals_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    scores, labels = generator.standard_normal((200, 5)), generator.integers(0, 5, 200)
    assert accuracy(scores, np.eye(5)[labels]) == pytest.approx(accuracy_score(labels, scores.argmax(1)))
    np.testing.assert_array_equal(right_clips(scores, np.eye(5)[labels]), labels == scores.argmax(1))


def test_map_is_the_mean_over_labels_that_occur() -> None:
    generator = np.random.default_rng(1)
    scores, targets = generator.standard_normal((100, 4)), (generator.random((100, 4)) < 0.2).astype(float)
    targets[:, 2] = 0
    each = [average_precision_score(targets[:, label], scores[:, label]) for label in (0, 1, 3)]
    assert mean_average_precision(scores, targets) == pytest.approx(np.mean(each))
    assert math.isnan(mean_average_precision(scores, np.zeros_like(targets)))


@given(cases())
def test_average_precision_is_the_plain_definition_and_nan_where_all_clips_are_alike(case: Case) -> None:
    scores, targets = case
    for label, found in enumerate(average_precisions(scores, targets)):
        positive = targets[:, label] > 0
        if positive.any() and not positive.all():
            assert found == pytest.approx(plain_average_precision(scores[:, label], positive))
        else:
            assert math.isnan(found)


@given(cases())
def test_area_under_the_roc_curve_is_mann_whitneys_u(case: Case) -> None:
    scores, targets = case
    for label, found in enumerate(roc_areas(scores, targets)):
        positive = targets[:, label] > 0
        if positive.any() and not positive.all():
            above, below = scores[positive, label], scores[~positive, label]
            u = mannwhitneyu(above, below, method="asymptotic").statistic
            assert found == pytest.approx(u / (len(above) * len(below)))
        else:
            assert math.isnan(found)


@given(st.floats(-4, 4))
def test_d_prime_is_the_distance_of_two_normal_distributions(distance: float) -> None:
    assert d_prime(norm.cdf(distance / math.sqrt(2))) == pytest.approx(distance, abs=1e-9)


def test_d_prime_at_the_ends() -> None:
    assert d_prime(0.5) == 0.0
    assert d_prime(1.0) == math.inf
    assert math.isnan(d_prime(math.nan))


def single_label(clips: int = 150, labels: int = 8, seed: int = 2) -> Case:
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, labels - 1, clips)
    targets = np.eye(labels)[truth]
    return generator.standard_normal((clips, labels)) + 1.5 * targets, targets


def test_each_label_of_a_data_set_with_one_label_a_clip() -> None:
    scores, targets = single_label()
    found = label_metrics(scores, targets, multi_label=False)
    truth, said = targets.argmax(1), scores.argmax(1)
    np.testing.assert_array_equal(found.positives, np.bincount(truth, minlength=8))
    np.testing.assert_array_equal(found.negatives, 150 - found.positives)
    assert found.recall is not None
    np.testing.assert_allclose(found.recall[:7], recall_score(truth, said, average=None, labels=range(7)))
    assert math.isnan(found.recall[7])
    assert found.precision is not None
    occur = np.unique(said)
    np.testing.assert_allclose(
        found.precision[occur], precision_score(truth, said, average=None, labels=occur, zero_division=0)
    )
    assert np.isnan(np.delete(found.precision, occur)).all()
    assert found.undefined == {"mAP": [7], "AUC": [7]}


def test_each_label_of_a_data_set_with_several_labels_a_clip() -> None:
    scores, targets = np.arange(8.0).reshape(4, 2), np.array([[0, 1], [0, 1], [1, 1], [0, 1]])
    found = label_metrics(scores, targets, multi_label=True)
    assert found.recall is None
    assert found.undefined == {"mAP": [1], "AUC": [1]}
    np.testing.assert_allclose(found.average_precision, [0.5, math.nan])
    np.testing.assert_allclose(found.roc_area, [2 / 3, math.nan])


def test_the_summary_of_single_labels() -> None:
    scores, targets = single_label()
    found = summarise(scores, targets, label_metrics(scores, targets, multi_label=False), multi_label=False)
    truth = targets.argmax(1)
    ranks = (scores > scores[np.arange(150), truth][:, None]).sum(axis=1)
    area = np.nanmean(roc_areas(scores, targets))
    assert found == pytest.approx(
        {
            "accuracy": (ranks == 0).mean(),
            "top5_accuracy": (ranks < 5).mean(),
            "mAP": METRICS["mAP"](scores, targets),
            "AUC": area,
            "d_prime": math.sqrt(2) * norm.ppf(area),
        }
    )
    assert 0.3 < found["accuracy"] < found["top5_accuracy"] < 1.0


@given(st.lists(st.lists(st.integers(0, 3), min_size=7, max_size=7), min_size=1, max_size=9), st.integers(0, 6))
def test_a_right_answer_is_among_the_five_best_also_where_scores_are_equal(rows: list[list[int]], truth: int) -> None:
    scores, targets = np.array(rows, dtype=np.float32), np.zeros((len(rows), 7))
    targets[:, truth] = 1
    found = summarise(scores, targets, label_metrics(scores, targets, multi_label=False), multi_label=False)
    best = [sorted(range(7), key=lambda label: -row[label]) for row in rows]
    assert found["accuracy"] == np.mean([row[0] == truth for row in best])
    assert found["top5_accuracy"] == np.mean([truth in row[:5] for row in best])


def test_the_summary_of_several_labels_and_of_few_labels() -> None:
    scores, targets = single_label(labels=5)
    labels = label_metrics(scores, targets, multi_label=True)
    assert list(summarise(scores, targets, labels, multi_label=True)) == ["mAP", "AUC", "d_prime"]
    assert list(summarise(scores, targets, labels, multi_label=False)) == ["accuracy", "mAP", "AUC", "d_prime"]


@pytest.mark.parametrize("metric", [*METRICS.values(), lambda *case: label_metrics(*case, multi_label=True)])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_no_numbers_are_refused_with_their_place(metric, bad: float) -> None:
    scores, targets = single_label(clips=20)
    scores[[7, 11], [2, 3]] = bad
    with pytest.raises(
        SpectrimError, match=r"2 of 160 scores are NaN or infinite, the first that of clip 7 for label 2"
    ):
        metric(scores, targets)


@pytest.mark.parametrize("shapes", [((3, 2), (3, 3)), ((3, 2), (2, 2)), ((3,), (3,)), ((0, 2), (0, 2))])
def test_shapes_that_do_not_fit_are_refused(shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    for metric in METRICS.values():
        with pytest.raises(InputShapeError, match=r"scores have shape .* and targets"):
            metric(np.zeros(shapes[0]), np.zeros(shapes[1]))
