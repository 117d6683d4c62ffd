"""What takes seconds to make and is only read afterwards: made once for all processes of a run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """The folder of a name; the first process that asks has it made, where nothing stands yet, the others wait.

    ``tests/conftest.py`` makes what all of them share, and removes it at the end.
    """
    folder = Path(os.environ["SPECTRIM_TESTS_SHARED"]) / name
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            unfinished = folder.with_name(f"{name}.unfinished")
            make(unfinished)
            unfinished.rename(folder)
    return folder
