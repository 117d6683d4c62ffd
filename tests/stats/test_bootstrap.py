"""Intervals, against the definition written out and against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from spectrim.errors import InputShapeError, InvalidSetting
from spectrim.stats import bootstrap as intervals
from spectrim.stats.bootstrap import bootstrap
from spectrim.stats.ratios import Ratio, clip_mean, pooled


def by_loops(top: np.ndarray, bottom: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """Draw clips, add up, divide: one resample after the other, with the same draws."""
    picks = np.random.default_rng(seed).integers(len(top), size=(resamples, len(top)))
    with np.errstate(invalid="ignore"):
        return np.array([top[pick].sum(axis=0) / bottom[pick].sum(axis=0) for pick in picks])


def some_ratio(clips: int = 23, seed: int = 3) -> Ratio:
    generator = np.random.default_rng(seed)
    bottom = generator.integers(0, 9, (clips, 2, 3)).astype(float)
    return pooled(bottom * generator.random((clips, 2, 3)), bottom)


@pytest.mark.parametrize("at_once", [1 << 22, 70, 1])
def test_it_is_resampling_clips_with_replacement(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intervals, "ENTRIES_AT_ONCE", at_once)
    ratio = some_ratio()
    found = bootstrap(ratio, seed=7, resamples=150, confidence=0.9)
    drawn = by_loops(ratio.top, ratio.bottom, 7, 150)
    np.testing.assert_allclose(found.mean, ratio.top.sum(axis=0) / ratio.bottom.sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.low, np.quantile(drawn, 0.05, axis=0), rtol=1e-9)
    np.testing.assert_allclose(found.high, np.quantile(drawn, 0.95, axis=0), rtol=1e-9)
    assert found.mean.shape == (2, 3)
    assert found.clips.tolist() == (ratio.bottom != 0).sum(axis=0).tolist()
    assert found.confidence == 0.9


def test_ends_are_scipys() -> None:
    ratio = some_ratio(60)
    top, bottom = ratio.top[:, 0, 0], ratio.bottom[:, 0, 0]
    options = {"n_resamples": 20_000, "method": "percentile", "rng": np.random.default_rng(0)}
    theirs = stats.bootstrap(
        (top, bottom), lambda a, b, axis: a.sum(axis) / b.sum(axis), paired=True, vectorized=True, **options
    )
    ours = bootstrap(ratio, seed=1, resamples=20_000)
    tolerance = 0.06 * theirs.standard_error
    assert ours.low[0, 0] == pytest.approx(theirs.confidence_interval.low, abs=tolerance)
    assert ours.high[0, 0] == pytest.approx(theirs.confidence_interval.high, abs=tolerance)


def test_intervals_hold_the_true_mean_about_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    values = generator.exponential(1.0, (80, 500))
    found = bootstrap(clip_mean(values), resamples=400, confidence=0.8)
    held = ((found.low <= 1.0) & (found.high >= 1.0)).mean()
    assert 0.74 <= held <= 0.84


def test_what_a_clip_lacks_is_left_out() -> None:
    values = np.array([[1.0, np.nan, np.nan], [3.0, 5.0, np.nan], [np.nan, 7.0, np.nan], [2.0, np.nan, 4.0]])
    found = bootstrap(clip_mean(values), resamples=300)
    assert found.mean.tolist() == [2.0, 6.0, 4.0]
    assert found.clips.tolist() == [3, 2, 1]
    assert np.isfinite(found.low[:2]).all() and (found.low[:2] >= [1.0, 5.0]).all()
    assert np.isnan([found.low[2], found.high[2]]).all()
    alone = bootstrap(clip_mean(np.full((4, 1), np.nan)))
    assert np.isnan([alone.mean, alone.low, alone.high]).all() and alone.clips.tolist() == [0]


def test_the_seed_says_it_all() -> None:
    first, again, other = (bootstrap(some_ratio(), seed=seed, resamples=100) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first.low, again.low)
    assert (first.low != other.low).any()


def test_a_single_clip_and_a_single_number() -> None:
    found = bootstrap(clip_mean([2.0]))
    assert found.mean == 2.0 and np.isnan(found.low) and found.clips == 1
    of_two = bootstrap(clip_mean([2.0, 4.0]))
    assert (of_two.mean, of_two.low, of_two.high) == (3.0, 2.0, 4.0)


def test_clips_by_number() -> None:
    ratio = some_ratio()
    few = ratio.of_clips(np.array([4, 2]))
    np.testing.assert_array_equal(few.top, ratio.top[[4, 2]])
    np.testing.assert_array_equal(few.bottom, ratio.bottom[[4, 2]])


@pytest.mark.parametrize(
    ("top", "bottom", "options", "error", "match"),
    [
        (np.zeros((3, 2)), np.zeros(3), {}, InputShapeError, r"\(3, 2\) and \(3,\)"),
        (np.zeros((0, 2)), np.zeros((0, 2)), {}, InputShapeError, "1 or more clips"),
        (np.zeros(3), np.ones(3), {"resamples": 0}, InvalidSetting, "resamples is 0"),
        (np.zeros(3), np.ones(3), {"confidence": 1.0}, InvalidSetting, "confidence is 1.0"),
    ],
)
def test_wrong_use(top: np.ndarray, bottom: np.ndarray, options: dict, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        bootstrap(Ratio(top, bottom), **options)
