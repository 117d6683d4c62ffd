"""What takes seconds to make and is only read afterwards: made once for all processes of a run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock


def made_once(name: str, make: Callable[[Path], object]) -> Path:
    """The folder of a name; the first process that asks has it made, where nothing stands yet, the others wait.

    ``tests/conftest.py`` makes what all of them share, and removes it at the end.
    """
    folder = Path(os.environ["SPECTRIM_TESTS_SHARED"]) / name
    finished = folder.with_name(f"{name}.finished")
    with FileLock(f"{folder}.lock"):
        if not finished.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            finished.touch()
    return folder
