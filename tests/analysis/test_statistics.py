"""Numbers about patches, against loops over patches, numpy's histogram and Python's sets."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spectrim.analysis.statistics import (
    density,
    jaccard,
    joint_counts,
    padded_patches,
    patch_statistics,
    received,
)
from spectrim.backbones import ast_base
from spectrim.errors import InputShapeError
from spectrim.pruning.criteria.spectrogram import Spectrogram, intensity, variation
from spectrim.stats.ratios import divide_or_nan


@pytest.mark.parametrize(("frequency_stride", "time_stride"), [(16, 16), (10, 10), (12, 7)])
def test_mean_and_deviation_of_each_patch(frequency_stride: int, time_stride: int) -> None:
    values = np.random.default_rng(0).normal(0.2, 0.6, (2, 70, 48))
    found = patch_statistics(values, 16, frequency_stride, time_stride)
    grid = ((48 - 16) // frequency_stride + 1, (70 - 16) // time_stride + 1)
    assert found[0].shape == found[1].shape == (2, *grid)
    for clip, f, t in np.ndindex(2, *grid):
        patch = values[clip, t * time_stride :, f * frequency_stride :][:16, :16]
        assert found[0][clip, f, t] == pytest.approx(patch.mean(), abs=1e-12)
        assert found[1][clip, f, t] == pytest.approx(math.sqrt(((patch - patch.mean()) ** 2).sum() / 255), abs=1e-12)


def test_they_are_the_criteria_of_the_same_names_on_any_memory_layout() -> None:
    values = np.random.default_rng(1).normal(size=(128, 64, 3)).astype(np.float32).T
    found = patch_statistics(values, 16, 16, 16)
    tensor = torch.tensor(values.copy())
    np.testing.assert_array_equal(found[0], intensity(Spectrogram(tensor, (16, 16), 16, 16)).numpy())
    np.testing.assert_array_equal(found[1], variation(Spectrogram(tensor, (16, 16), 16, 16)).numpy())
    assert found[0].dtype == np.float32


@pytest.mark.parametrize("shape", [(128, 128), (1, 15, 128), (1, 128, 15)])
def test_a_wrong_spectrogram_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputShapeError, match="log_mel has shape"):
        patch_statistics(np.zeros(shape), 16, 16, 16)


@given(frames=st.lists(st.integers(-1, 150), min_size=1, max_size=4), stride=st.sampled_from([10, 16]))
def test_a_patch_is_padding_if_no_frame_of_it_is_real(frames: list[int], stride: int) -> None:
    config = ast_base(max_length=128, time_stride=stride)
    found = padded_patches(frames, config.grid, stride)
    assert found.shape == (len(frames), *config.grid)
    for clip, f, t in np.ndindex(found.shape):
        real = sum(frame < frames[clip] for frame in range(t * stride, t * stride + 16))
        assert found[clip, f, t] == (real == 0 and t > 0)


def patches(seed: int = 0, clips: int = 3, stages: int = 3) -> dict[str, np.ndarray]:
    """Stages that lose patches, ranks with some left out, statistics partly beyond the bins."""
    generator = np.random.default_rng(seed)
    present = np.logical_and.accumulate(generator.random((clips, stages, 4, 6)) < 0.7, axis=1)
    grid = (clips, 4, 6)
    ranks = {name: generator.integers(-1, 5, grid).astype(np.int8) for name in ("first", "second")}
    values = {"intensity": generator.normal(0, 1.2, grid), "variation": generator.exponential(0.6, grid)}
    return {"present": present, **ranks, **values}


def test_counts_of_pairs_of_clusters() -> None:
    made = patches()
    found = joint_counts(made["present"], made["first"], made["second"], 5)
    expected = np.zeros((3, 3, 5, 5), dtype=int)
    for clip, stage, f, t in np.ndindex(3, 3, 4, 6):
        one, other = int(made["first"][clip, f, t]), int(made["second"][clip, f, t])
        if made["present"][clip, stage, f, t] and one >= 0 and other >= 0:
            expected[clip, stage, one, other] += 1
    np.testing.assert_array_equal(found, expected)
    assert found.sum() > 50


def test_density_is_numpys_histogram_with_the_ends_open() -> None:
    made = patches(1)
    edges = (np.linspace(-1, 1, 9), np.linspace(0, 1, 5))
    found = density(made["present"], made["intensity"], made["variation"], edges)
    for stage in range(3):
        here = made["present"][:, stage]
        inside = [np.clip(made[n][here], e[0], e[-1]) for n, e in (("intensity", edges[0]), ("variation", edges[1]))]
        np.testing.assert_array_equal(found[stage], np.histogram2d(*inside, bins=edges)[0])
        assert found[stage].sum() == here.sum()


def test_what_kept_and_dropped_patches_receive() -> None:
    generator = np.random.default_rng(2)
    scores = generator.random((2, 2, 5, 6)).astype(np.float32)
    kept = generator.random((2, 2, 5, 6)) < 0.5
    scores[:, 1][~kept[:, 0]] = np.nan
    kept[:, 1] &= kept[:, 0]
    counted = generator.random((2, 5, 6)) < 0.8
    found = received(scores, kept, counted)
    for clip, block in np.ndindex(2, 2):
        stay, go = [], []
        for f, t in np.ndindex(5, 6):
            score = float(scores[clip, block, f, t])
            if counted[clip, f, t] and not math.isnan(score):
                (stay if kept[clip, block, f, t] else go).append(score)
        place = (clip, block)
        assert found.kept[place] == pytest.approx(sum(stay))
        assert found.dropped[place] == pytest.approx(sum(go))
        assert (found.kept_patches[place], found.dropped_patches[place]) == (len(stay), len(go))
        assert found.share[place] == pytest.approx(sum(stay) / sum(stay + go))
        assert found.ratio[place] == pytest.approx((sum(stay) / len(stay)) / (sum(go) / len(go)))


def test_where_nothing_is_dropped_there_is_no_ratio() -> None:
    everything = np.ones((1, 1, 2, 2), dtype=bool)
    found = received(np.full((1, 1, 2, 2), 0.25), everything, everything[0])
    assert found.share.tolist() == [[1.0]] and np.isnan(found.ratio).all()


@given(seed=st.integers(0, 999))
def test_overlap_is_that_of_sets(seed: int) -> None:
    generator = np.random.default_rng(seed)
    one, other = (generator.random((2, 2, 3)) < generator.random() for _ in range(2))
    found = jaccard(one, other)
    for clip in range(2):
        first, second = ({*np.flatnonzero(part[clip])} for part in (one, other))
        expected = len(first & second) / len(first | second) if first | second else math.nan
        np.testing.assert_equal(found[clip], expected)


def test_grids_that_differ_have_no_overlap() -> None:
    with pytest.raises(InputShapeError, match=r"grids \(8, 64\) and \(8, 8\)"):
        jaccard(np.ones((1, 8, 64), dtype=bool), np.ones((1, 8, 8), dtype=bool))


@pytest.mark.parametrize("wrong", [(3, 4, 5), (2, 4, 6), (4, 6)])
def test_shapes_that_do_not_fit_are_refused(wrong: tuple[int, ...]) -> None:
    present, other = patches()["present"], np.zeros(wrong)
    for call in (
        lambda: joint_counts(present, other.astype(int), other.astype(int), 5),
        lambda: density(present, other, other),
        lambda: received(present.astype(float), present, other.astype(bool)),
    ):
        with pytest.raises(InputShapeError, match=r"wanted: \(clips, stages, F, T\)"):
            call()


def test_a_quotient_by_nothing_is_unknown() -> None:
    np.testing.assert_array_equal(divide_or_nan([1, 0, 3], [[2], [0]]), [[0.5, 0.0, 1.5], [np.nan] * 3])
