from __future__ import annotations

import pytest

from spectrim.pruning.words import names_in_cell, names_in_text


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("cls_attention", ["cls_attention"]),
        ("value_norm/8+merge", ["value_norm", "merge"]),
        ("intensity", ["intensity"]),
        ("drop in accuracy", []),
        ("0.7", []),
        ("", []),
    ],
)
def test_names_in_cells(cell: str, names: list[str]) -> None:
    assert names_in_cell(cell) == names


def test_names_in_sentences_are_no_words_of_the_language() -> None:
    assert names_in_text("A drop at random, ranked by value_norm, not keep_rate.") == ["value_norm"]
