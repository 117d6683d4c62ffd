"""Folders that nobody may read, also where the tests run as root, whom no mode keeps out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest


def lock(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make a folder one that cannot be listed."""
    scandir = os.scandir

    def refused(path: Any = ".") -> Any:
        if Path(path).absolute() == folder.absolute():
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
