"""Reads recipes from YAML files.

``base: other.yaml`` in a file starts from another recipe beside it, or from several in a list, of which the later wins;
what stands in the file itself wins over all. Every field can be overridden by its path, e.g.
``optimiser.learning_rate=3e-4``.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from spectrim.checkpoints.untrusted import parse_yaml
from spectrim.errors import InvalidSetting
from spectrim.training.recipes import Recipe, StrictSettings

SHIPPED = Path(__file__).parents[1] / "recipes"

Kind = TypeVar("Kind", bound=StrictSettings)


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: a YAML file, or the name of a shipped one.
        overrides: ``field.path=value`` each; the value is read as YAML.

    Raises:
        InvalidSetting: no such file, or a field is unknown or out of range; names the field, the value and what
            is allowed.
    """
    return read_settings(Recipe, path, overrides)


def read_settings(kind: type[Kind], path: str | Path, overrides: Sequence[str] = ()) -> Kind:
    """Read a YAML file, its bases and ``field=value`` overrides into settings of a kind; errors as `load_recipe`."""
    tree = _read(_find(path))
    for override in overrides:
        _override(tree, override)
    try:
        return kind(**tree)
    except ValidationError as error:
        first = error.errors()[0]
        place, cause = [str(part) for part in first["loc"]], first.get("ctx", {}).get("error")
        if isinstance(cause, InvalidSetting):
            field = ".".join([*place, cause.field])
            raise InvalidSetting(f"{path}: {field}", cause.value, cause.allowed) from error
        raise InvalidSetting(f"{path}: {'.'.join(place)}", first["input"], first["msg"]) from error


def _override(tree: dict[str, Any], override: str) -> None:
    field, equals, value = override.partition("=")
    if not equals or not field:
        raise InvalidSetting("--set", override, "field=value, e.g. optimiser.epochs=5")
    *parents, last = field.split(".")
    node = tree
    for parent in parents:
        node = node.setdefault(parent, {})
        if not isinstance(node, dict):
            raise InvalidSetting("--set", override, f"a field of the recipe; {parent} has no fields of its own")
    try:
        node[last] = parse_yaml(value)
    except ValueError as error:
        raise InvalidSetting("--set", override, f"field=value with a value in YAML ({error})") from error


def shipped_recipes() -> dict[str, Path]:
    """The shipped recipes, by name."""
    return {path.stem: path for path in sorted(SHIPPED.glob("*.yaml"))}


def _find(path: str | Path) -> Path:
    if not Path(path).is_file() and (shipped := shipped_recipes().get(str(path))) is not None:
        return shipped
    return Path(path)


def _read(path: Path, seen: tuple[Path, ...] = ()) -> dict[str, Any]:
    path = path.resolve()
    if path in seen:
        raise InvalidSetting("base", str(path), "a recipe that does not start from itself")
    if not path.is_file():
        raise InvalidSetting(
            "recipe", str(path), f"a YAML file, or a shipped recipe: {', '.join(shipped_recipes()) or 'none here'}"
        )
    try:
        tree = copy.deepcopy(_parsed(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise InvalidSetting("recipe", str(path), f"valid YAML ({error})") from error
    if not isinstance(tree, dict) or not all(isinstance(name, str) for name in tree):
        raise InvalidSetting("recipe", str(path), "a YAML mapping of names to settings")
    base = tree.pop("base", None) or []
    bases = [base] if isinstance(base, str) else base
    if not isinstance(bases, list) or not all(isinstance(name, str) for name in bases):
        raise InvalidSetting("base", base, "a file beside this one, or a list of them")
    merged: dict[str, Any] = {}
    for name in bases:
        merged = _merge(merged, _read(path.parent / name, (*seen, path)))
    return _merge(merged, tree)


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


@functools.lru_cache(maxsize=64)
def _parsed(text: str) -> Any:
    """The YAML of a recipe, kept by its text: a plan of a study reads the same few hundreds of times."""
    return parse_yaml(text)
