"""What a model answered to clips, against the formula of its loss."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.special import log_softmax
from tone_table import write_tones

from spectrim.data import find_data_set
from spectrim.training.answers import Answers


@pytest.mark.parametrize("multi_label", [False, True])
def test_scores_are_those_of_the_loss_and_not_of_the_data(multi_label: bool, tmp_path: Path) -> None:
    """Clips of one label may be learnt with binary cross entropy: then each label is judged by itself."""
    part = find_data_set("csv").open(write_tones(tmp_path / "tones"), "test", fold=1)
    assert not part.each_label_apart
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(len(part), 3)).astype(np.float32)
    counted = np.arange(len(part)) != 2
    found = Answers.of(part, np.zeros_like(logits), counted, {0.7: logits}, multi_label=multi_label)
    wanted = logits if multi_label else log_softmax(logits, axis=1)
    np.testing.assert_allclose(found.scores[0.7], wanted[counted], rtol=1e-6)
    assert len(found.ids) == len(part) - 1
