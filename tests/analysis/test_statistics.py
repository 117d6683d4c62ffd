"""Numbers about patches, against loops over patches, numpy's histogram and Python's sets."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectrim.analysis.statistics import (
    density,
    jaccard,
    joint_counts,
    padded_patches,
    received,
)
from spectrim.backbones import ast_base
from spectrim.errors import InputShapeError
from spectrim.stats.ratios import divide_or_nan


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
