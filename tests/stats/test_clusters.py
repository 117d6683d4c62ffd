"""Clusters, against scikit-learn from the same centres and from many, and against every partition there is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from spectrim.data import DATA_SETS
from spectrim.errors import DataError, InvalidSetting
from spectrim.stats import clusters
from spectrim.stats.clusters import PUBLISHED_INTENSITY_BOUNDS, Clusters, kmeans_1d, published_clusters


def like_intensities(count: int, seed: int) -> np.ndarray:
    """Three bumps, and a tenth of padding at one value."""
    generator = np.random.default_rng(seed)
    bumps = [
        generator.normal(-1, 0.2, 3 * count),
        generator.normal(0, 0.5, 4 * count),
        generator.normal(0.8, 0.3, 2 * count),
    ]
    return generator.permutation(np.concatenate([*bumps, np.full(count, 0.467)]))


def best_of_all(values: list[float], number: int) -> float:
    """Smallest inertia of any cut of the sorted values into stretches."""
    line = np.sort(np.array(values))
    found = []
    for cuts in itertools.combinations(range(1, len(line)), number - 1):
        found.append(sum(((part - part.mean()) ** 2).sum() for part in np.split(line, cuts)))
    return min(found)


@given(values=st.lists(st.integers(-50, 50).map(lambda n: n / 8), min_size=1, max_size=10), number=st.integers(1, 5))
def test_few_values_are_cut_in_the_best_way_there_is(values: list[float], number: int) -> None:
    assume(len(set(values)) >= number)
    found = kmeans_1d(values, number, padding="with")
    assert found.inertia == pytest.approx(best_of_all(values, number), abs=1e-9)
    assert found.centres is not None and found.counts is not None
    ranks = found.ranks(values)
    for rank in range(number):
        inside = np.array(values)[ranks == rank]
        assert len(inside) == found.counts[rank]
        assert inside.mean() == pytest.approx(found.centres[rank], abs=1e-12)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", [np.float64, np.float32])
def test_from_the_same_centres_it_ends_where_scikit_learn_ends(seed: int, kind: type) -> None:
    values = like_intensities(300, seed).astype(kind)
    initial = np.sort(np.random.default_rng(seed).choice(np.unique(values), 5, replace=False)).astype(np.float64)
    found = kmeans_1d(values, padding="with", initial=initial.tolist())
    column = values.astype(np.float64)[:, None]
    peer = KMeans(5, init=initial[:, None], n_init=1, tol=0, max_iter=10_000).fit(column)
    np.testing.assert_allclose(found.centres, peer.cluster_centers_[:, 0], rtol=0, atol=1e-9)
    np.testing.assert_array_equal(found.ranks(values), peer.labels_)
    assert found.inertia == pytest.approx(peer.inertia_, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_no_start_of_scikit_learn_ends_better(seed: int) -> None:
    values = like_intensities(1000, seed)
    found = kmeans_1d(values, padding="with")
    peer = KMeans(5, n_init=30, tol=0, random_state=seed).fit(values[:, None])
    assert found.inertia is not None and found.inertia <= peer.inertia_ * (1 + 1e-9)
    again = KMeans(5, init=np.asarray(found.centres)[:, None], n_init=1, tol=0).fit(values[:, None])
    assert again.n_iter_ <= 2
    np.testing.assert_allclose(again.cluster_centers_[:, 0], found.centres, rtol=0, atol=1e-12)


def test_cuts_between_quantiles_come_as_good_as_cuts_between_values(monkeypatch: pytest.MonkeyPatch) -> None:
    values = like_intensities(80, 5)
    best = kmeans_1d(values, padding="with")
    monkeypatch.setattr(clusters, "GROUPS", 200)
    grouped = kmeans_1d(values, padding="with")
    assert len(np.unique(values)) <= 1024
    assert grouped.inertia == pytest.approx(best.inertia, rel=1e-4)
    assert grouped.inertia >= best.inertia * (1 - 1e-12)


def test_float32_values_are_compared_with_bounds_that_float32_cannot_hold() -> None:
    low, high = np.float32(0.1), np.nextafter(np.float32(0.1), np.float32(1.0))
    values = np.array([low] * 3 + [high] * 3, dtype=np.float32)
    found = kmeans_1d(values, 2, padding="with")
    assert found.counts.tolist() == [3, 3]
    assert found.ranks(values).tolist() == [0] * 3 + [1] * 3
    assert found.inertia == pytest.approx(0.0, abs=1e-20)


def test_a_value_on_a_bound_belongs_below_and_nan_to_none() -> None:
    found = Clusters(np.array([-1.0, 0.5]), "by hand", "without")
    values = np.array([[-2.0, -1.0], [np.nextafter(-1.0, 0.0), 0.5], [0.6, np.nan]])
    assert found.ranks(values).tolist() == [[0, 0], [1, 1], [2, -1]]
    assert found.number == 3


def test_published_bounds_by_the_names_of_the_data_sets() -> None:
    assert set(PUBLISHED_INTENSITY_BOUNDS) <= set(DATA_SETS)
    found = published_clusters("esc50")
    assert found.bounds.tolist() == [-0.5829, -0.2063, 0.1130, 0.4303]
    assert (found.padding, found.source, found.number) == ("with", "published for esc50", 5)
    assert published_clusters("audioset").ranks([0.467, -1.278]).tolist() == [4, 0]
    with pytest.raises(InvalidSetting, match="clusters is 'esc-10'; allowed: one of audioset, esc50"):
        published_clusters("esc-10")


def test_the_result_says_whether_padding_was_among_the_values() -> None:
    found = kmeans_1d([0.0, 1.0, np.nan], 2, padding="without", source="two numbers")
    assert (found.padding, found.source, found.counts.tolist()) == ("without", "two numbers", [1, 1])


@pytest.mark.parametrize(
    ("values", "options", "error", "match"),
    [
        ([1.0, 1.0, 2.0], {"number": 3}, DataError, "2 different values; 3 clusters"),
        ([], {"number": 1}, DataError, "0 different values"),
        ([1.0, np.inf], {"number": 2}, DataError, "infinite"),
        ([1.0, 2.0], {"number": 0}, InvalidSetting, "number is 0"),
        ([1.0, 2.0], {"number": 2, "padding": "some"}, InvalidSetting, "padding is 'some'; allowed: one of with"),
        ([1.0, 2.0], {"number": 2, "initial": [1.0, 1.0]}, InvalidSetting, "initial is .*2 different finite"),
        ([1.0, 2.0], {"number": 2, "initial": [1.0]}, InvalidSetting, "initial"),
        ([0.0, 1.0, 9.0], {"number": 3, "initial": [-50.0, 0.5, 8.0]}, DataError, "cluster 1 of k-means lost"),
    ],
)
def test_what_cannot_be_clustered(values: list[float], options: dict, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        kmeans_1d(values, **{"padding": "with", **options})
