"""Files and folders that appear whole or not at all, and whether a folder holds the run that is asked for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spectrim.errors import InvalidSetting


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text beside ``path``, then rename it there."""
    beside = path.with_name(path.name + ".partial")
    beside.write_text(text, encoding="utf-8", newline="\n")
    beside.replace(path)


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON beside ``path``, then rename it there."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """Give a folder that does not exist yet, to be made and filled; it takes the place of ``path`` at the end."""
    beside, old = path.with_name(path.name + ".partial"), path.with_name(path.name + ".old")
    for leftover in (beside, old):
        shutil.rmtree(leftover, ignore_errors=True)
    yield beside
    if path.exists():
        path.rename(old)
    beside.rename(path)
    shutil.rmtree(old, ignore_errors=True)


def refuse_another_run(
    run: Mapping[str, Any], before: Mapping[str, Any], place: Path, *, apart_from: Sequence[str] = ()
) -> None:
    """Raise `InvalidSetting` for the first setting in which two runs differ.

    Args:
        run: what is asked for.
        before: what was begun.
        place: where it was begun.
        apart_from: settings that may differ, by their full names.
    """
    old, new = _flat_settings(before), _flat_settings(run)
    for name in (*new, *(name for name in old if name not in new)):
        if old.get(name) != new.get(name) and name not in apart_from:
            raise InvalidSetting(name, new.get(name), f"{old.get(name)!r}, with which the run in {place} was begun")


def _flat_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their full names, e.g. ``recipe.optimiser.epochs``."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat_settings(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
