"""Files that appear whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text beside ``path``, then rename it there."""
    beside = path.with_name(path.name + ".partial")
    beside.write_text(text, encoding="utf-8", newline="\n")
    beside.replace(path)


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON beside ``path``, then rename it there."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
