"""Spread of scores over patches, against numpy's own correlation clip by clip, and sinks that are planted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tone_table import small_model, write_tones

from spectrim.analysis.depth import profile_of, score_correlation, strongest_share
from spectrim.errors import InputShapeError


def test_the_share_of_the_strongest_patch() -> None:
    scores = np.array([[[0.1, 0.3, 0.1, np.nan], [0.2, 0.2, 0.2, 0.2], [0.0, 0.0, 0.0, 0.0]]])
    found = strongest_share(scores, ~np.isnan(scores))
    assert found[0, :2] == pytest.approx([0.6, 0.25])
    assert np.isnan(found[0, 2])


def test_correlation_is_numpys_over_the_patches_that_are_there() -> None:
    generator = np.random.default_rng(0)
    scores, values = generator.random((3, 4, 20)), generator.normal(size=(3, 20))
    alive = generator.random((3, 4, 20)) < 0.7
    found = score_correlation(np.where(alive, scores, np.nan), values, alive)
    for clip, block in np.ndindex(3, 4):
        there = alive[clip, block]
        assert found[clip, block] == pytest.approx(np.corrcoef(scores[clip, block, there], values[clip, there])[0, 1])
    assert score_correlation(-values[:, None], values, np.full((3, 1, 20), True)) == pytest.approx(-np.ones((3, 1)))
    assert np.isnan(score_correlation(np.ones((3, 1, 20)), values, np.full((3, 1, 20), True))).all()
    with pytest.raises(InputShapeError, match="do not agree"):
        score_correlation(scores, values[:, :5], alive)


def test_a_model_with_predictors_is_profiled_by_its_backbone_s_score(tmp_path: Path) -> None:
    root = write_tones(tmp_path / "tones")
    model = small_model().add_predictors([1])
    profiles = []
    for reducer in ("drop", "dynamicvit"):
        model.set_pruning(reducer=reducer).save_pretrained(tmp_path / reducer)
        profiles.append(profile_of(tmp_path / reducer, "csv", root, {"fold": 1}, clips=4))
    assert profiles[0] == profiles[1] and 0.0 < profiles[0][0]["strongest_share"] < 1.0
