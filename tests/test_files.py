from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from spectrim.errors import InvalidSetting
from spectrim.files import refuse_another_run


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ({"a": 1, "b": {"c": 2, "d": 4}}, r"b\.d is 4; allowed: 3, with which the run in place"),
        ({"a": 1, "b": {"c": 2}}, r"b\.d is None; allowed: 3, with"),
        ({"a": 1, "b": {"c": 2, "d": 3, "e": {"f": 5}}}, r"b\.e\.f is 5; allowed: None, with"),
        ({"a": 2, "b": {"c": 0, "d": 0}}, r"a is 2; allowed: 1, with"),
    ],
)
def test_the_first_difference_of_two_runs_is_named(now: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSetting, match=words):
        refuse_another_run(now, {"a": 1, "b": {"c": 2, "d": 3}}, Path("place"))


def test_named_settings_may_differ() -> None:
    refuse_another_run({"a": {"b": 1}}, {"a": {"b": 2}}, Path("place"), apart_from=["a.b"])
    with pytest.raises(InvalidSetting):
        refuse_another_run({"a": {"b": 1}}, {"a": {"b": 2}}, Path("place"), apart_from=["b"])
