"""Every quantity against its definition written out, and intervals against scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from spectrim.backbones import ast_tiny
from spectrim.config import SpectrimConfig
from spectrim.measure.agreement import agreement


def config_of(labels: int) -> SpectrimConfig:
    return ast_tiny(num_labels=labels, problem_type="multi_label_classification")


def exact_interval(successes: int, trials: int) -> tuple[float, float]:
    """Clopper & Pearson (1934), by quantiles of the beta distribution."""
    low = stats.beta.ppf(0.025, successes, trials - successes + 1) if successes else 0.0
    high = stats.beta.ppf(0.975, successes + 1, trials - successes) if successes < trials else 1.0
    return low, high


def rows(*scores: list[float]) -> np.ndarray:
    return np.array(scores, dtype=np.float32)


def test_overlaps_and_changes_of_a_worked_example() -> None:
    config = config_of(6)
    dense = rows([0.9, 0.8, 0.1, 0.0, 0.0, 0.0], [0.2, 0.1, 0.0, 0.0, 0.0, 0.3], [0.5, 0.1, 0.2, 0.3, 0.4, 0.0])
    pruned = rows([0.9, 0.4, 0.1, 0.6, 0.0, 0.0], [0.2, 0.1, 0.0, 0.0, 0.0, 0.3], [0.4, 0.1, 0.2, 0.3, 0.5, 0.1])
    found = agreement(dense, pruned, config)
    # Labels at 0.5: {0, 1} and {0, 3}; none and none; {0} and {4}.
    assert (found["label_overlap"], found["label_clips"]) == (pytest.approx((1 / 3 + 0) / 2), 2)
    # Best five: 01234 and 03124; 50123 twice; 04321 and 40321.
    assert found["top5_overlap"] == pytest.approx(1.0)
    assert found["agreement"] == pytest.approx(2 / 3)
    assert found["mean_change"] == pytest.approx((0.4 + 0.6 + 0.1 + 0.1 + 0.1) / 18)
    assert found["clip_change"] == pytest.approx((0.6 + 0.0 + 0.1) / 3)
    assert found["largest_change"] == pytest.approx(0.6)
    assert (found["agreement_low"], found["agreement_high"]) == pytest.approx(exact_interval(2, 3))
    assert (found["top5_overlap_low"], found["top5_overlap_high"]) == pytest.approx(exact_interval(3, 3))


def test_bootstrap_intervals_are_scipys() -> None:
    generator = np.random.default_rng(0)
    config = config_of(12)
    dense = generator.random((60, 12)).astype(np.float32)
    pruned = np.clip(dense + generator.normal(0, 0.2, dense.shape), 0, 1).astype(np.float32)
    found = agreement(dense, pruned, config, threshold=0.7)
    change = np.abs(pruned.astype(float) - dense)
    given, kept = dense >= 0.7, pruned >= 0.7
    overlap = (given & kept).sum(1) / np.maximum((given | kept).sum(1), 1)
    overlap = overlap[(given | kept).any(1)]
    for name, values in {
        "mean_change": change.mean(1),
        "clip_change": change.max(1),
        "label_overlap": overlap,
    }.items():
        assert found[name] == pytest.approx(values.mean())
        theirs = stats.bootstrap((values,), np.mean, n_resamples=9999, method="percentile", rng=generator)
        ends = theirs.confidence_interval
        assert (found[f"{name}_low"], found[f"{name}_high"]) == pytest.approx(ends, abs=0.15 * (ends.high - ends.low))


@pytest.mark.parametrize("clips", [1, 2, 20])
def test_full_agreement_and_none_at_all_are_not_certain(clips: int) -> None:
    """Twenty clips of twenty: the true share may be as low as 0.025^(1/20) = 83 %."""
    config = config_of(6)
    dense = np.tile(rows([0.9, 0.8, 0.1, 0.1, 0.1, 0.1]), (clips, 1))
    same = agreement(dense, dense, config)
    other = agreement(dense, 1 - dense, config)
    for name in ("agreement", "label_overlap"):
        assert (same[name], same[f"{name}_high"], other[name], other[f"{name}_low"]) == (1.0, 1.0, 0.0, 0.0)
        assert same[f"{name}_low"] == pytest.approx(0.025 ** (1 / clips))
        assert other[f"{name}_high"] == pytest.approx(1 - 0.025 ** (1 / clips))
    assert (same["clip_change"], same["clip_change_low"]) == (0.0, None if clips == 1 else 0.0)


def test_no_label_reaches_the_threshold() -> None:
    config = config_of(6)
    scores = np.full((3, 6), 0.1, np.float32)
    found = agreement(scores, scores, config)
    assert [found[name] for name in ("label_overlap", "label_overlap_low", "label_overlap_high", "label_clips")] == [
        None,
        None,
        None,
        0,
    ]


def test_few_labels_have_no_best_five() -> None:
    scores = np.random.default_rng(0).random((4, 3)).astype(np.float32)
    assert "top5_overlap" not in agreement(scores, scores, config_of(3))
