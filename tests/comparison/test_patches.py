"""Patches in common, against sets counted one by one, and chance against draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from observed import clips_on_disk, small_eager_model
from sklearn.metrics import jaccard_score

from spectrim.comparison.methods import plan_cases, read_methods
from spectrim.comparison.patches import agreement_rows, chance_overlap, kept_patches, overlap
from spectrim.errors import DataError
from spectrim.inference.opening import open_model
from spectrim.pruning.pruning import Pruning


def test_overlap_is_scikit_learns_jaccard() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.random((2, 4, 2, 30)) < 0.4
    found = overlap(first, second)
    for clip, block in np.ndindex(4, 2):
        assert found[clip, block] == pytest.approx(jaccard_score(first[clip, block], second[clip, block]))


@pytest.mark.parametrize(("patches", "first", "second"), [(20, 14, 14), (20, 6, 7), (64, 45, 45), (5, 5, 2), (9, 1, 1)])
def test_chance_is_the_mean_over_independent_choices(patches: int, first: int, second: int) -> None:
    generator = np.random.default_rng(1)
    shares = []
    for _ in range(4000):
        one, other = (set(generator.permutation(patches)[:number].tolist()) for number in (first, second))
        shares.append(len(one & other) / len(one | other))
    assert chance_overlap(patches, first, second) == pytest.approx(np.mean(shares), abs=4 * np.std(shares) / 63 + 1e-9)


def test_nothing_kept_by_either_is_agreement() -> None:
    assert chance_overlap(7, 0, 0) == 1.0 and chance_overlap(7, 0, 3) == 0.0


def test_rows_name_each_pair_once_and_random_with_its_other_draws() -> None:
    cases, _ = plan_cases(
        read_methods(["attention", "intensity", "merge"]), [0.5], Pruning(1.0, (1, 3)), 4, "x", draws=3
    )
    generator = np.random.default_rng(2)
    kept = {
        point: np.stack([generator.permutation(np.arange(40) < 20) for _ in range(20)]).reshape(10, 2, 40)
        for case in cases
        if case.selects
        for point in case.points
    }
    rows = agreement_rows(cases, kept, np.full(10, 40))
    pairs = {(row["first"], row["second"]) for row in rows}
    assert pairs == {("attention", "intensity"), ("attention", "random"), ("intensity", "random"), ("random", "random")}
    assert [row["block"] for row in rows[:2]] == [1, 3]
    for row in rows:
        assert row["at_random"] == pytest.approx(chance_overlap(40, 20, 20))
        assert row["kept"] == 0.5
        assert row["overlap_low"] <= row["overlap"] <= row["overlap_high"]
        assert row["overlap"] == pytest.approx(row["at_random"], abs=0.08)


def test_where_none_of_the_traced_clips_can_be_read_it_says_so(tmp_path: Path) -> None:
    small_eager_model("ast", num_labels=3).save_pretrained(tmp_path / "model")
    backend = open_model(tmp_path / "model")
    part, point = clips_on_disk(tmp_path / "clips", 5, bad=(0, 4)), Pruning(0.5, at=(1, 2))
    kept, entering = kept_patches(backend, part, [point], 3)
    assert len(entering) == len(kept[point]) == 1
    with pytest.raises(DataError, match="none of the 2 clips whose kept patches are compared can be read"):
        kept_patches(backend, part, [point], 2)
