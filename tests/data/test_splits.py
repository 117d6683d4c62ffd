"""Shares that are held out for the parts that a data set lacks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spectrim.data import PARTS
from spectrim.data.dataset import Recording
from spectrim.data.splits import complete
from spectrim.errors import DataError, InvalidSetting


def of_labels(sizes: list[int]) -> list[Recording]:
    """So many clips of each label, without groups."""
    return [
        Recording(Path("x.wav"), (label,), f"{label}/{take}")
        for label, size in enumerate(sizes)
        for take in range(size)
    ]


@given(st.lists(st.integers(2, 9), min_size=2, max_size=20), st.sampled_from([0.05, 0.1, 0.2]), st.integers(0, 5))
@example([5, 2, 2, 8, 2, 4, 3, 8, 6, 7, 5, 2, 7, 4, 7, 6, 9, 9, 7], 0.05, 0)
def test_shares_that_are_named_instead_can_be_split_by(sizes: list[int], share: float, seed: int) -> None:
    """Also where a label of two clips could be left with one of them by the test."""
    given_parts, options = {"train": of_labels(sizes)}, {"seed": seed, "stratify": True}
    try:
        complete(given_parts, "train", validation_share=share, test_share=share, **options)
    except InvalidSetting as error:
        named = {name: float(value) for name, value in re.findall(r"--set (\w+)=([\d.]+)", str(error))}
        assert named or str(error).endswith(
            "; or add clips, or say yourself which belong to train, validation and test"
        )
        if named:
            shares = {"validation_share": share, "test_share": share, **named}
            parts = [complete(given_parts, part, **shares, **options)[0] for part in PARTS]
            assert min(map(len, parts)) >= len(sizes) and sum(map(len, parts)) == sum(sizes)
    except DataError as error:
        assert "than two clips left to be split" in str(error)


def test_a_share_is_named_where_the_nearest_one_fails() -> None:
    sizes = [5, 2, 2, 8, 2, 4, 3, 8, 6, 7, 5, 2, 7, 4, 7, 6, 9, 9, 7]
    with pytest.raises(InvalidSetting, match=r"; e\.g\. --set test_share=0\.2 --set validation_share=0\.2, or"):
        complete({"train": of_labels(sizes)}, "test", validation_share=0.05, test_share=0.05, seed=0, stratify=True)
