"""Which point is chosen, what is promised of it, and what is said, on rows and scores made by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from spectrim.data import AudioDataset
from spectrim.data.dataset import Recording
from spectrim.stats.bounds import clips_for_bound, drop_bound
from spectrim.stats.groups import Groups
from spectrim.tuning.candidates import drop_errors, lost_by_group
from spectrim.tuning.conclusion import choice
from spectrim.tuning.promise import against_random, bound_of
from spectrim.tuning.settings import Target

CLIPS, LABELS = 400, 5
TARGETS = np.eye(LABELS, dtype=np.float32)[np.arange(CLIPS) % LABELS]


def right_on(places: range | list[int]) -> np.ndarray:
    """Scores (clips, labels) that are right on these clips alone."""
    hit = np.isin(np.arange(CLIPS), list(places))
    return np.where(hit[:, None], TARGETS, np.roll(TARGETS, 1, axis=1)).astype(np.float32)


def row(name: str, speed: float, drop: float, error: float = 0.0) -> dict[str, Any]:
    kind = "dense" if name == "dense" else "tuned"
    return {"name": name, "kind": kind, "speed_up": speed, "drop": drop, "drop_error": error}


ROWS = [row("dense", 1.0, 0.0), row("a", 1.2, 0.002, 0.004), row("b", 1.5, 0.008, 0.005), row("c", 2.0, 0.03, 0.01)]


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (Target(max_drop=1.0), "a"),
        (Target(max_drop=2.0), "b"),
        (Target(max_drop=0.3), "a"),
        (Target(max_drop=0.1), None),
        (Target(min_speedup=1.4), "b"),
        (Target(min_speedup=3.0), None),
    ],
)
def test_the_loss_counts_with_its_error_unless_nothing_is_left_then(target: Target, name: str | None) -> None:
    found = choice(ROWS, target)
    assert (found and found["name"]) == name


def test_what_is_not_faster_than_dense_is_never_chosen() -> None:
    assert choice([row("dense", 1.0, 0.0), row("slow", 0.98, -0.01)], Target(max_drop=5.0)) is None


def test_groups_lose_each_their_share() -> None:
    recordings = [Recording(Path(str(n)), (n % LABELS,), str(n), "AB"[n >= 100]) for n in range(CLIPS)]
    part = AudioDataset(recordings, [str(label) for label in range(LABELS)], multi_label=False)
    ids = [str(n) for n in range(CLIPS)]
    found = lost_by_group(part, ids, right_on(range(CLIPS)), right_on(range(20, CLIPS - 30)), TARGETS)
    assert found == pytest.approx({"A": 0.2, "B": 0.1})


def test_what_is_lost_has_the_larger_of_the_errors_over_clips_and_over_groups() -> None:
    dense, pruned = right_on(range(CLIPS)), right_on(range(20, CLIPS - 30))
    over_clips = drop_errors([dense, pruned], TARGETS, "accuracy", None, 4000)
    assert over_clips == pytest.approx([0.0, np.sqrt(0.125 * 0.875 / CLIPS)], rel=0.05)
    unlike, alike = Groups.of(np.arange(CLIPS) // 100), Groups.of(np.arange(CLIPS) % 100)
    of_groups = drop_errors([dense, pruned], TARGETS, "accuracy", unlike, 4000)
    assert of_groups[1] == pytest.approx(stats.sem([0.2, 0.0, 0.0, 0.3]), rel=0.05)
    assert drop_errors([dense, pruned], TARGETS, "accuracy", alike, 4000)[1] >= over_clips[1]


def test_the_bound_is_that_of_the_counts() -> None:
    dense, pruned = right_on(range(380)), right_on([*range(10, 380), *range(390, 394)])
    bound = bound_of(dense, pruned, TARGETS, "accuracy", 0.05, 100)
    assert (bound.lost, bound.gained, bound.drop) == (10, 4, pytest.approx(6 / 400))
    assert bound.most == drop_bound(10, 4, 400)
    assert bound.clips_needed == clips_for_bound(10, 4, 400, 0.05)


def test_the_bound_over_groups_is_the_higher_one() -> None:
    dense, pruned = right_on(range(380)), right_on([*range(10, 380), *range(390, 394)])
    one_loses, all_alike = Groups.of(np.arange(CLIPS) // 50), Groups.of(np.arange(CLIPS) % 8)
    exact = drop_bound(10, 4, 400)
    bound = bound_of(dense, pruned, TARGETS, "accuracy", 0.05, 4000, one_loses)
    losses = np.array([10, 0, 0, 0, 0, 0, 0, -4]) / 50
    assert bound.most is not None and bound.most > exact
    assert bound.most == pytest.approx(6 / 400 + stats.t.ppf(0.95, 7) * stats.sem(losses), rel=0.05)
    assert bound.how == "4000 paired bootstrap resamples of the 8 speakers or recordings of the 400 clips"
    assert (bound.lost, bound.gained, bound.groups) == (10, 4, 8)
    even = bound_of(dense, pruned, TARGETS, "accuracy", 0.05, 400, all_alike)
    assert even.most == exact and even.how.startswith("exact")
    few = bound_of(dense, pruned, TARGETS, "accuracy", 0.05, 400, Groups.of(np.arange(CLIPS) % 3))
    assert (few.most, few.how) == (None, "3 speakers or recordings are too few; it takes 6")


def test_the_bound_of_map_lies_above_what_was_lost_and_more_clips_bring_it_nearer() -> None:
    generator = np.random.default_rng(0)
    dense = (TARGETS + generator.normal(0, 0.4, TARGETS.shape)).astype(np.float32)
    pruned = (TARGETS + generator.normal(0, 0.6, TARGETS.shape)).astype(np.float32)
    bound = bound_of(dense, pruned, TARGETS, "mAP", 0.5, 200)
    assert bound.most is not None and bound.most > bound.drop > 0
    assert bound.clips_needed is not None and bound.clips_needed < CLIPS
    same = bound_of(dense, dense, TARGETS, "mAP", 0.01, 50)
    assert same.most is None and "do not differ" in same.how


def test_a_ranking_is_compared_with_the_mean_of_the_draws() -> None:
    draws = [right_on(range(300)), right_on(range(20, 340))]
    found = against_random(right_on(range(390)), right_on(range(380)), draws, TARGETS, "accuracy", 200)
    assert found.random == pytest.approx((300 + 320) / 800)
    assert found.over.value == pytest.approx(380 / 400 - 620 / 800)
    assert (found.said, found.draws) == ("better", 2)
    of_five = Groups.of(np.arange(CLIPS) % 5)
    few = against_random(right_on(range(390)), right_on(range(380)), draws, TARGETS, "accuracy", 200, of_five)
    assert (few.said, few.why) == ("cannot say", "5 speakers or recordings are too few; it takes 6")
