"""Pairs counted by sorting, against every pair looked at, scipy, and every order that there is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.stats import kendalltau, somersd

from spectrim.errors import InputShapeError, InvalidSetting
from spectrim.stats.kendall import (
    PairCounts,
    count_pairs,
    largest_tau_b,
    paper_form,
    paper_form_when_shuffled,
    shuffled,
    somers_d,
    tau_b,
    tau_b_of_values,
)


def pairwise(scores: np.ndarray, clusters: np.ndarray) -> tuple[int, int, int, int, int]:
    """The definition: look at every pair of living patches."""
    living = [(s, c) for s, c in zip(scores.tolist(), clusters.tolist(), strict=True) if not np.isnan(s) and c >= 0]
    concordant = discordant = tied_scores = tied_clusters = pairs = 0
    for (s, c), (other_s, other_c) in itertools.combinations(living, 2):
        pairs += 1
        tied_scores += s == other_s
        tied_clusters += c == other_c
        if s != other_s and c != other_c:
            concordant += (s < other_s) == (c < other_c)
            discordant += (s < other_s) != (c < other_c)
    return concordant, discordant, tied_scores, tied_clusters, pairs


@given(data=st.data(), kind=st.sampled_from([np.float16, np.float32, np.float64]), number=st.integers(1, 7))
def test_counts_are_those_of_every_pair(data: st.DataObject, kind: type, number: int) -> None:
    rows, patches = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 12))
    few = st.sampled_from([-np.inf, -1.5, -0.0, 0.0, 6e-8, 0.25, 0.5, 3.0, np.inf, np.nan])
    any_value = st.floats(width=16) if kind == np.float16 else st.floats(width=np.finfo(kind).bits)
    scores = data.draw(arrays.arrays(kind, (rows, patches), elements=data.draw(st.sampled_from([few, any_value]))))
    whole = data.draw(st.sampled_from([np.int8, np.int64]))
    clusters = data.draw(arrays.arrays(whole, (rows, patches), elements=st.integers(-1, number - 1)))
    counts = count_pairs(scores, clusters, number)
    for row in range(rows):
        assert tuple(int(count[row]) for count in counts) == pairwise(scores[row], clusters[row])


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("step", [0.0, 0.02])
def test_at_the_size_of_ast_for_clips_and_blocks_at_once(kind: type, step: float) -> None:
    generator = np.random.default_rng(0)
    scores = generator.random((2, 3, 512)).astype(kind)
    scores = np.round(scores / step).astype(kind) if step else scores
    scores[1, 2, generator.permutation(512)[:400]] = np.nan
    clusters = generator.integers(0, 5, (2, 1, 512))
    counts = count_pairs(scores, clusters)
    for clip, block in np.ndindex(2, 3):
        assert tuple(int(count[clip, block]) for count in counts) == pairwise(scores[clip, block], clusters[clip, 0])
    assert counts.pairs.tolist() == [[130816] * 3, [130816, 130816, 112 * 111 // 2]]


@given(data=st.data(), patches=st.integers(2, 40))
def test_tau_b_is_scipys(data: st.DataObject, patches: int) -> None:
    seed, levels = data.draw(st.integers(0, 10**6)), data.draw(st.sampled_from([2, 5, 1000]))
    generator = np.random.default_rng(seed)
    scores, clusters = generator.integers(0, levels, patches) / 7.0, generator.integers(0, 5, patches)
    expected = kendalltau(scores, clusters).statistic
    np.testing.assert_allclose(tau_b(count_pairs(scores, clusters)), expected, atol=1e-12, equal_nan=True)


def test_where_there_is_nothing_to_compare_the_answer_is_nan() -> None:
    one = count_pairs(np.array([[0.5, np.nan], [0.5, 0.25]]), np.array([[0, 1], [-1, 1]]))
    assert one.pairs.tolist() == [0, 0]
    for form in (paper_form, tau_b, paper_form_when_shuffled):
        assert np.isnan(form(one)).all()
    same = count_pairs(np.array([1.0, 2.0, 3.0]), np.array([2, 2, 2]))
    assert np.isnan(tau_b(same))
    assert paper_form(same) == paper_form_when_shuffled(same) == 1.0
    assert count_pairs(np.zeros((0, 4, 8)), np.zeros((0, 1, 8), dtype=int)).pairs.shape == (0, 4)


def test_the_papers_form_counts_ties_as_concordant() -> None:
    counts = PairCounts(*(np.array(value) for value in (10, 4, 3, 5, 20)))
    assert paper_form(counts) == pytest.approx((10 + (20 - 10 - 4) - 4) / 20)


@pytest.mark.parametrize(
    ("scores", "clusters"),
    [((1, 2, 3, 4, 5, 6), (0, 0, 1, 1, 2, 4)), ((1, 1, 2, 3, 3, 3), (0, 1, 1, 2, 3, 3)), ((1, 2, 3), (0, 1, 2))],
)
def test_what_the_papers_form_reads_on_shuffled_scores_is_its_mean_over_every_order(
    scores: tuple[int, ...], clusters: tuple[int, ...]
) -> None:
    ranks = np.array(clusters)
    orders = np.array(list(itertools.permutations(scores)), dtype=np.float64)
    mean = paper_form(count_pairs(orders, ranks)).mean()
    closed = paper_form_when_shuffled(count_pairs(np.array(scores, dtype=np.float64), ranks))
    assert closed == pytest.approx(mean, abs=1e-12)


def test_scores_that_mean_nothing_read_a_fifth_in_the_papers_form_and_nothing_in_tau_b() -> None:
    clusters = np.arange(512) % 5
    scores = shuffled(np.tile(np.arange(512, dtype=np.float32), (400, 1)), seed=1)
    counts = count_pairs(scores, clusters)
    assert paper_form(counts).mean() == pytest.approx(paper_form_when_shuffled(counts)[0], abs=0.006)
    assert paper_form_when_shuffled(counts)[0] == pytest.approx(0.1985, abs=0.001)
    assert abs(tau_b(counts).mean()) < 0.006


@given(
    scores=arrays.arrays(np.float32, (3, 9), elements=st.sampled_from([0.0, 1.0, 2.0, 5.0, np.nan])),
    seed=st.integers(0, 99),
)
def test_a_shuffle_deals_the_same_scores_to_the_same_patches(scores: np.ndarray, seed: int) -> None:
    dealt = shuffled(scores, seed=seed)
    assert dealt.dtype == scores.dtype
    np.testing.assert_array_equal(np.isnan(dealt), np.isnan(scores))
    np.testing.assert_array_equal(np.sort(dealt, axis=1), np.sort(scores, axis=1))
    np.testing.assert_array_equal(dealt, shuffled(scores, seed=seed))


def test_a_shuffle_deals_each_score_to_each_living_patch_alike() -> None:
    row = np.array([1.0, 2.0, np.nan, 3.0])
    dealt = shuffled(np.tile(row, (6000, 1)), seed=0)
    for patch, score in itertools.product((0, 1, 3), (1.0, 2.0, 3.0)):
        assert (dealt[:, patch] == score).mean() == pytest.approx(1 / 3, abs=0.03)
    assert (shuffled(dealt, seed=0) != shuffled(dealt, seed=1)).any()


@pytest.mark.parametrize(
    ("clusters", "number", "error", "match"),
    [
        ([0, 5], 5, InvalidSetting, "clusters is 5"),
        ([0, -2], 5, InvalidSetting, "clusters is -2"),
        ([0, 1], 8, InvalidSetting, "number is 8; allowed: 1 to 7"),
        ([0, 1], 0, InvalidSetting, "number is 0"),
        ([0, 1, 2], 5, InputShapeError, r"\(3,\).*\(2,\)"),
    ],
)
def test_wrong_ranks_are_refused(clusters: list[int], number: int, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        count_pairs(np.array([0.1, 0.2]), np.array(clusters), number)


@given(data=st.data())
def test_somers_d_is_scipys_and_the_share_of_the_way_in_both_forms(data: st.DataObject) -> None:
    patches = data.draw(st.integers(2, 12))
    ties = data.draw(st.booleans())
    elements = st.sampled_from([0.0, 0.25, 0.5, 1.0]) if ties else st.floats(0, 1, width=32)
    scores = data.draw(arrays.arrays(np.float32, (patches,), elements=elements, unique=not ties))
    clusters = data.draw(arrays.arrays(np.int64, (patches,), elements=st.integers(0, 4)))
    counts = count_pairs(scores, clusters)
    found = float(somers_d(counts))
    if len(set(clusters.tolist())) == 1:
        assert np.isnan(found)
        return
    # SciPy refuses a single value of the dependent variable, of which D is 0.
    wanted = somersd(clusters, scores).statistic if len(set(scores.tolist())) > 1 else 0.0
    assert found == pytest.approx(wanted, abs=1e-12)
    if not ties:
        assert found == pytest.approx(float(tau_b(counts) / largest_tau_b(counts)), abs=1e-12)
        random = float(paper_form_when_shuffled(counts))
        assert found == pytest.approx((float(paper_form(counts)) - random) / (1.0 - random), abs=1e-12)


def test_a_perfect_score_goes_all_the_way_and_has_the_largest_tau_b() -> None:
    clusters = np.repeat(np.arange(5), [30, 20, 20, 20, 10])
    counts = count_pairs(np.arange(100.0), clusters)
    assert float(somers_d(counts)) == float(paper_form(counts)) == 1.0
    assert float(tau_b(counts)) == pytest.approx(float(largest_tau_b(counts)))
    assert float(largest_tau_b(counts)) == pytest.approx(kendalltau(np.arange(100.0), clusters).statistic)


def test_tau_b_of_values_leaves_out_what_is_gone() -> None:
    generator = np.random.default_rng(3)
    scores, values = generator.random((2, 3, 20)), generator.normal(size=(2, 1, 20))
    scores[0, 1, :7], values[1, 0, 4] = np.nan, np.nan
    scores[1, 2] = 0.5
    found = tau_b_of_values(scores, values)
    assert found.shape == (2, 3) and np.isnan(found[1, 2])
    assert found[0, 1] == pytest.approx(kendalltau(scores[0, 1, 7:], values[0, 0, 7:]).statistic)
    rest = np.arange(20) != 4
    assert found[1, 0] == pytest.approx(kendalltau(scores[1, 0, rest], values[1, 0, rest]).statistic)
    with pytest.raises(InputShapeError, match=r"values has shape \(3,\); wanted: one for each of the scores"):
        tau_b_of_values(scores, np.zeros(3))
