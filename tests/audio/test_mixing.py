"""Channels to one, block by block; what a user hears of it is tested with whole files in test_files.py."""

from __future__ import annotations

import numpy as np
import pytest

from spectrim.audio.mixing import LARGEST_SAMPLE, LOUD_SAMPLE, MixDown
from spectrim.errors import AudioError


def test_channels_are_averaged_over_all_blocks() -> None:
    blocks = np.random.default_rng(0).normal(0, 0.1, (3, 50, 4)).astype(np.float32)
    mix = MixDown("a.wav")
    for block in blocks:
        np.testing.assert_allclose(mix(block, 16000), block.mean(axis=1), atol=1e-7)
    assert mix.samples == 150 and mix.peak == np.abs(blocks).max() and mix.notes(16000) == []


def test_samples_are_told_or_refused_from_their_limits_on() -> None:
    quiet = np.zeros((10, 1), np.float32)
    for value, lines in ((LOUD_SAMPLE, 0), (-1.01 * LOUD_SAMPLE, 1), (LARGEST_SAMPLE, 1)):
        mix, block = MixDown("a.wav"), quiet.copy()
        block[3] = value
        assert np.array_equal(mix(block, 16000), block[:, 0]) and len(mix.notes(16000)) == lines
    for value in (-1.01 * LARGEST_SAMPLE, np.nan, -np.inf):
        mix, block = MixDown("a.wav"), quiet.copy()
        mix(quiet, 10)
        block[3] = value
        with pytest.raises(AudioError, match=r"a\.wav: has a sample .*, at 1\.300 s"):
            mix(block, 10)


def test_opposite_channels_are_counted_where_the_sum_is_exactly_nought() -> None:
    mix, left = MixDown("a.wav"), np.float32([0.5, 0.25, 0.0, 0.0])
    assert not mix(np.stack([left, -left], axis=1), 4).any()
    assert mix.cancelled == 4, "blocks count whole"
    assert mix.notes(4)[0].startswith("its channels cancel out in the mix-down to mono, to exact zeros, for ")
