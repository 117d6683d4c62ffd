"""Bootstrap intervals against scipy on plain values and scikit-learn with weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import average_precision_score

from spectrim.errors import InvalidSetting
from spectrim.measure.metric_intervals import clip_intervals, how_made, resampled_average_precision
from spectrim.measure.metrics import METRICS, accuracy, mean_average_precision, right_clips
from spectrim.stats import bootstrap
from spectrim.stats.groups import Groups


def two_models(clips: int = 120, labels: int = 5, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """Scores of a model and of a somewhat worse one, which is wrong mostly about the same clips."""
    generator = np.random.default_rng(seed)
    targets = np.eye(labels)[generator.integers(0, labels, clips)]
    scores = generator.standard_normal((clips, labels)) + 2.0 * targets
    return [scores, scores + 0.7 * generator.standard_normal((clips, labels))], targets


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_average_precision_of_draws_is_scikit_learns_with_weights(data: st.DataObject) -> None:
    clips, seed = data.draw(st.integers(1, 15)), data.draw(st.integers(0, 999))
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, data.draw(st.integers(1, 20)), clips).astype(np.float32)
    positive = generator.random(clips) < 0.4
    positive[generator.integers(clips)] = True
    counts = generator.integers(0, 4, (clips, 6)).astype(np.float32)
    found = resampled_average_precision(scores, positive, counts)
    for draw, value in enumerate(found):
        if counts[positive, draw].any():
            expected = average_precision_score(positive, scores, sample_weight=counts[:, draw])
            assert value == pytest.approx(expected, abs=1e-6)
        else:
            assert np.isnan(value)


def test_the_interval_of_accuracy_is_scipys_of_the_right_answers() -> None:
    scores, targets = two_models()
    found = clip_intervals(scores, targets, "accuracy", resamples=500, seed=3)
    right = [right_clips(one, targets).astype(float) for one in scores]
    assert accuracy(scores[0], targets) > accuracy(scores[1], targets)
    for low, high, values in (
        (found.low[0], found.high[0], right[0]),
        (found.low[1], found.high[1], right[1]),
        (found.change_low[1], found.change_high[1], right[1] - right[0]),
    ):
        result = stats.bootstrap((values,), np.mean, n_resamples=500, method="percentile", rng=np.random.default_rng(3))
        assert (low, high) == pytest.approx(tuple(result.confidence_interval))
    assert (found.change_low[0], found.change_high[0]) == (0.0, 0.0)


def test_pairing_narrows_the_interval_of_the_change() -> None:
    scores, targets = two_models()
    scores[1] = scores[0] + 0.05 * np.random.default_rng(1).standard_normal(scores[0].shape)
    found = clip_intervals(scores, targets, "mAP", resamples=200)
    assert found.change_high[1] - found.change_low[1] < 0.4 * (found.high[1] - found.low[1])


def test_the_interval_of_map_lies_around_its_value_however_rare_the_labels() -> None:
    generator = np.random.default_rng(5)
    targets = (generator.random((150, 20)) < 0.02).astype(float)
    scores = [1.2 * targets + generator.standard_normal(targets.shape) for _ in range(2)]
    found = clip_intervals(scores, targets, "mAP", resamples=200)
    values = [mean_average_precision(one, targets) for one in scores]
    drawn = [mean_average_precision(scores[0][draw], targets[draw]) for draw in generator.integers(0, 150, (60, 150))]
    assert np.mean(np.array(drawn) > values[0]) > 0.8, "resamples do not lie too high, and the docstring is wrong"
    np.testing.assert_allclose((found.low + found.high) / 2, values)
    np.testing.assert_allclose((found.change_low + found.change_high) / 2, np.subtract(values, values[0]), atol=1e-12)
    assert found.high[0] - found.low[0] == pytest.approx(2 * 1.96 * np.std(drawn), rel=0.3)


@pytest.mark.parametrize("metric", ["accuracy", "mAP"])
def test_batches_of_draws_change_nothing(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scores, targets = two_models(clips=40)
    whole = clip_intervals(scores, targets, metric, resamples=50)
    monkeypatch.setattr(bootstrap, "ENTRIES_AT_ONCE", 40 * 7)
    for one, other in zip(whole, clip_intervals(scores, targets, metric, resamples=50), strict=True):
        np.testing.assert_allclose(one, other)


def test_the_seed_decides() -> None:
    scores, targets = two_models()
    first, same, other = (clip_intervals(scores, targets, "mAP", resamples=50, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert (first.low != other.low).all()


def test_one_clip_has_no_interval() -> None:
    assert np.isnan(clip_intervals([np.eye(2)[:1]], np.eye(2)[:1], "accuracy")).all()


@pytest.mark.parametrize(("field", "given_one"), [("metric", {"metric": "luck"}), ("resamples", {"resamples": 1})])
def test_what_cannot_be_done_is_refused(field: str, given_one: dict) -> None:
    scores, targets = two_models()
    with pytest.raises(InvalidSetting, match=f"^{field} is"):
        clip_intervals(scores, targets, **{"metric": "mAP", **given_one})


@pytest.mark.parametrize("metric", ["accuracy", "mAP"])
def test_groups_are_drawn_whole_for_either_metric(metric: str) -> None:
    scores, targets = two_models()
    names = [f"speaker {number}" for number in np.random.default_rng(4).integers(0, 8, len(targets))]
    places = [np.flatnonzero([name == one for one in names]) for name in sorted(set(names))]
    found = clip_intervals(scores, targets, metric, groups=Groups.named(names), resamples=80, seed=3)
    drawn = []
    for pick in np.random.default_rng(3).integers(len(places), size=(80, len(places) - 1)):
        clips = np.concatenate([places[group] for group in pick])
        if metric == "accuracy":
            drawn.append([right_clips(one, targets)[clips].mean() for one in scores])
        else:
            present = np.flatnonzero(targets[clips].any(axis=0))
            drawn.append(
                [average_precision_score(targets[clips][:, present], one[clips][:, present]) for one in scores]
            )
    sizes = np.array([len(each) for each in places])
    reach = stats.t.ppf(0.975, sizes.sum() ** 2 / (sizes**2).sum() - 1)
    values = [METRICS[metric](one, targets) for one in scores]
    np.testing.assert_allclose(found.high - values, reach * np.std(drawn, axis=0, ddof=1), atol=1e-6)
    change = values[1] - values[0]
    np.testing.assert_allclose(change - found.change_low[1], reach * np.std(np.diff(drawn), ddof=1), atol=1e-6)


def test_without_groups_clips_are_drawn_as_they_always_were() -> None:
    """Ends that were made before there were groups."""
    scores, targets = two_models()
    for metric, ends in (
        ("accuracy", [0.5833333333333334, 0.75, -0.19166666666666665, -0.04166666666666663]),
        ("mAP", [0.6445136006007278, 0.760012809650891, -0.161542498064705, -0.055350364334448746]),
    ):
        found = clip_intervals(scores, targets, metric, resamples=200, seed=3)
        assert [float(end[1]) for end in found] == pytest.approx(ends, rel=1e-12, abs=0)


def test_how_intervals_were_made_is_said() -> None:
    six = Groups.of(np.repeat(np.arange(6), 50))
    assert how_made("accuracy", 1000, 300, None) == "95 %, percentiles of 1000 bootstrap resamples of the 300 clips"
    assert how_made("mAP", 1000, 300, None) == "95 %, 1.96 standard errors by 1000 bootstrap resamples of the 300 clips"
    over = "95 %, 2.57 standard errors by 1000 bootstrap resamples of the 6 speakers or recordings of the 300 clips"
    assert how_made("accuracy", 1000, 300, six) == over
    one = Groups.of(np.zeros(30))
    assert how_made("mAP", 1000, 30, one) == "none: 1 speakers or recordings are too few; it takes 6"
