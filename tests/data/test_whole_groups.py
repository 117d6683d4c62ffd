"""Whole groups that are held out: speakers, longer recordings."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spectrim.data import PARTS
from spectrim.data.dataset import Recording
from spectrim.data.splits import complete
from spectrim.data.whole_groups import FAR
from spectrim.errors import DataError, InvalidSetting


def spoken(sizes: list[int]) -> list[Recording]:
    """So many clips of each speaker; one in five has another label."""
    return [
        Recording(Path("x.wav"), (int(take % 5 == 0),), f"{speaker}/{take}", str(speaker))
        for speaker, size in enumerate(sizes)
        for take in range(size)
    ]


def parts_of(sizes: list[int], test_share: float = 0.1, seed: int = 0) -> list[list[Recording]]:
    options = {"validation_share": 0.1, "test_share": test_share, "seed": seed, "stratify": True}
    parts = [list(complete({"train": spoken(sizes)}, part, **options)[0]) for part in PARTS]
    heard = [{one.group for one in part} for part in parts]
    assert not any(one & other for one, other in itertools.combinations(heard, 2))
    assert sum(map(len, parts)) == sum(sizes)
    return parts


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    ("sizes", "test_share", "expected"),
    [
        ([100, 5, 5, 5], 0.1, [100, 5, 10]),
        ([100, 5, 5], 0.1, [100, 5, 5]),
        ([60] + [10] * 19, 0.1, [210, 20, 20]),
        ([200] + [5] * 40, 0.3, [240, 40, 120]),
        ([3] * 100, 0.02, [264, 30, 6]),
        ([20] * 3, 0.1, [20, 20, 20]),
    ],
)
def test_whole_groups_come_as_near_to_a_share_as_they_can(
    sizes: list[int], test_share: float, expected: list[int], seed: int
) -> None:
    """A group that holds most of the clips stays in training, as do those that the next part needs."""
    assert [len(part) for part in parts_of(sizes, test_share, seed)] == expected


@pytest.mark.parametrize(
    ("sizes", "test_share", "words"),
    [
        (
            [1000, 1, 1],
            0.1,
            "test_share is 0.1; allowed: a share that whole groups come near to: of the 1002 clips to be split, of "
            "3 groups, they hold out 1, not 100; name another share or smaller groups",
        ),
        ([60] * 4, 0.01, "of 4 groups, they hold out 60, not 2;"),
        ([100, 1, 5], 0.3, "of the 106 clips to be split, of 3 groups, they hold out 5, not 32;"),
    ],
)
def test_a_share_that_whole_groups_miss_by_far_is_refused(sizes: list[int], test_share: float, words: str) -> None:
    with pytest.raises(InvalidSetting, match=words):
        parts_of(sizes, test_share)


def test_two_groups_are_too_few_for_three_parts() -> None:
    with pytest.raises(DataError, match="all 60 clips to be split are of 2 groups, fewer than there are parts; say"):
        parts_of([30, 30])


@pytest.mark.parametrize("seed", range(6))
def test_the_seed_does_not_decide_whether_groups_come_near_to_a_share(seed: int) -> None:
    assert [len(part) for part in parts_of([55, 9, 3], 0.2, seed)] == [55, 3, 9]


@given(
    st.lists(st.integers(1, 12) | st.integers(1, 120), min_size=3, max_size=7), st.floats(0.01, 0.49), st.integers(0, 9)
)
@example([55, 9, 3], 0.2, 0)
@example([11, 3, 90, 90], 0.05, 0)
@example([100, 1, 5], 0.3, 0)
def test_a_share_is_refused_only_where_no_whole_groups_come_near_to_it(
    sizes: list[int], share: float, seed: int
) -> None:
    """By all sets of groups that leave one, or for the test two, and a quarter of what ought to stay."""
    options = {"validation_share": share, "test_share": share, "seed": seed, "stratify": False}
    count = max(1, round(share * sum(sizes)))
    for field, others, leave in (("validation_share", {"test": spoken([1])}, 1), ("test_share", {}, 2)):
        sets = [
            sum(some) for number in range(1, len(sizes) - leave + 1) for some in itertools.combinations(sizes, number)
        ]
        near = [some for some in sets if count / FAR <= some <= count * FAR]
        fine = [some for some in near if sum(sizes) - some >= (sum(sizes) - count) / FAR]
        refused = None
        try:
            complete({"train": spoken(sizes), **others}, "train", **options)
        except InvalidSetting as error:
            refused = error.field
        assert not (fine and refused == field) and (near or refused == field)
