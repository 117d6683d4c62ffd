from __future__ import annotations

import json
from pathlib import Path

import pytest

from spectrim.checkpoints.untrusted import DEEPEST, parse_json, parse_yaml
from spectrim.errors import InvalidSetting
from spectrim.training.recipe_files import load_recipe

ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(f'*{old}' for _ in range(9))}]\n" for old, new in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ALIASES + "name: *h\n", "aliases repeat"),
        ("name: " + "[" * 10_000 + "]" * 10_000, "deep"),
        ("name: " + "{a: " * 60 + "1" + "}" * 60, "deep"),
        ("a: &a [*a]\n", "inside the very value"),
        ("a: 'x" + " x" * 600_000 + "'", "characters"),
        ("a: !!python/object/apply:os.getcwd []", "python"),
        ("a: 2026-99-99", "month"),
        ("a: [1", "line 1"),
        ("? [a]\n: 1\n", "unhashable"),
        ("a: " + "1" * 10_000, "digits"),
    ],
)
def test_yaml_that_is_refused_is_told_in_one_short_line(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as found:
        parse_yaml(text)
    assert len(str(found.value)) <= 250 and "\n" not in str(found.value)
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(InvalidSetting, match=said) as found:
        load_recipe(tmp_path / "recipe.yaml")
    assert len(str(found.value)) < 600 and "\n" not in str(found.value)


def test_names_of_settings_are_text(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("1: 2\n")
    with pytest.raises(InvalidSetting, match="names to settings"):
        load_recipe(tmp_path / "recipe.yaml")


def test_ordinary_aliases_and_nesting_are_read() -> None:
    text = "a: &a {x: 1, y: [1, 2]}\nb: {<<: *a, y: 3}\nc: [*a, *a]\n"
    assert parse_yaml(text) == {"a": {"x": 1, "y": [1, 2]}, "b": {"x": 1, "y": 3}, "c": [{"x": 1, "y": [1, 2]}] * 2}
    assert parse_yaml("") is None
    assert parse_yaml("[" * DEEPEST + "]" * DEEPEST) == json.loads("[" * DEEPEST + "]" * DEEPEST)


def test_json_is_parsed_or_refused_in_one_line() -> None:
    assert parse_json('{"a": [1, {"b": null}]}') == {"a": [1, {"b": None}]}
    assert parse_json("[" * DEEPEST + "]" * DEEPEST) == json.loads("[" * DEEPEST + "]" * DEEPEST)
    for text in ("[" * 200_000, "[" * 200_000 + "]" * 200_000, "[" * 60 + "]" * 60):
        with pytest.raises(ValueError, match="deep"):
            parse_json(text)
    with pytest.raises(ValueError, match="column"):
        parse_json('{"a": ')
