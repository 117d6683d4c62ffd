"""Checkpoints that are whole, or known not to be."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

from spectrim.files import write_json

SEAL = "whole.json"
"""Written last into a checkpoint: the size and SHA-256 of every file in it."""

logger = logging.getLogger(__name__)


def seal(checkpoint: Path) -> None:
    """Write down the size and hash of every file of a checkpoint."""
    files = {path.name: _fingerprint(path) for path in sorted(checkpoint.iterdir()) if path.name != SEAL}
    write_json(checkpoint / SEAL, files)


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def flaw(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint on disk, None for a whole one."""
    try:
        files = json.loads((checkpoint / SEAL).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        files = None
    if not isinstance(files, dict) or not files:
        return f"it has no readable {SEAL}"
    for name, expected in files.items():
        if not (checkpoint / name).is_file():
            return f"{name} is missing"
        if _fingerprint(checkpoint / name) != expected:
            return f"{name} is not what was written"
    return None


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of a run; broken ones are named in the log and passed over."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    for path in sorted(found, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True):
        wrong = flaw(path)
        if wrong is None:
            return path
        logger.warning("%s is passed over: %s", path, wrong)
    return None
