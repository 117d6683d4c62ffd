"""JSON and YAML out of files that anybody may have written: small, shallow, and told in one line if they are not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

MOST_CHARACTERS = 16_000_000
"""Longest JSON text that is parsed: no ``config.json`` or index of weights comes near it."""
MOST_YAML_CHARACTERS = 1_000_000
DEEPEST = 50
"""Levels of lists and mappings inside each other."""
MOST_VALUES = 100_000
"""Values in a YAML text, those that aliases repeat counted as often as they stand there."""


def parse_json(text: str) -> Any:
    """Parse JSON.

    Raises:
        ValueError: it is no JSON, longer than `MOST_CHARACTERS` or nested deeper than `DEEPEST`; in one line.
    """
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"{len(text):,} characters; read are at most {MOST_CHARACTERS:,}")
    try:
        content = json.loads(text)
    except RecursionError as error:
        raise ValueError(_too_deep()) from error
    except ValueError as error:
        raise ValueError(one_line(error)) from error
    level: list[Any] = [content]
    for _ in range(DEEPEST + 1):
        level = [part for parent in level for part in _parts(parent)]
        if not level:
            return content
    raise ValueError(_too_deep())


def read_json(file: Path) -> Any:
    """Read JSON from a file in UTF-8.

    Raises:
        ValueError: as `parse_json`; or it is no UTF-8.
        OSError: it cannot be read.
    """
    if (size := file.stat().st_size) > 4 * MOST_CHARACTERS:
        raise ValueError(f"{size:,} bytes; read are at most {MOST_CHARACTERS:,} characters")
    return parse_json(file.read_text(encoding="utf-8"))


def _parts(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def parse_yaml(text: str) -> Any:
    """Parse YAML of plain values; tags that would build anything else are refused.

    Raises:
        ValueError: it is no YAML, longer than `MOST_YAML_CHARACTERS`, nested deeper than `DEEPEST`, or holds more than
            `MOST_VALUES` values once its aliases are written out; in one line.
    """
    if len(text) > MOST_YAML_CHARACTERS:
        raise ValueError(f"{len(text):,} characters; read are at most {MOST_YAML_CHARACTERS:,}")
    try:
        _check_nesting(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None and _count_values(node, {}) > MOST_VALUES:
            raise ValueError(f"its aliases repeat more than {MOST_VALUES:,} values")
        return yaml.safe_load(text)
    except RecursionError as error:
        raise ValueError(_too_deep()) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}: " if mark is not None else ""
        raise ValueError(where + one_line(error.problem or error.context or error)) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise ValueError(one_line(error)) from error


def _check_nesting(text: str) -> None:
    """Raise `ValueError` for more than `DEEPEST` levels; by events, which need no recursion."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEEPEST:
            raise ValueError(_too_deep())


def _count_values(node: yaml.Node, known: dict[int, int]) -> int:
    """Values in a node with its aliases written out; ``known`` remembers the nodes that were counted."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    if id(node) in known:
        if not known[id(node)]:
            raise ValueError("an alias stands inside the very value that it repeats")
        return known[id(node)]
    known[id(node)] = 0  # being counted
    parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
    known[id(node)] = 1 + sum(_count_values(part, known) for part in parts)
    return known[id(node)]


def _too_deep() -> str:
    return f"lists or mappings inside each other more than {DEEPEST} deep"


def one_line(error: object) -> str:
    """An error's text in one line of at most 200 characters."""
    return " ".join(str(error).split())[:200]
