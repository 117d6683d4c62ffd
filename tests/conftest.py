from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# The same examples every time, and no deadline: tests must not fail because a machine is slow.
settings.register_profile("spectrim", deadline=None, derandomize=True)
settings.load_profile("spectrim")

# Where there is no GPU, Triton's interpreter runs its kernels on the CPU; Triton reads this when it is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# The folder of helpers/shared.py: the process that begins the others makes it and hands its name on.
SHARED = "SPECTRIM_TESTS_SHARED"


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        os.environ[SHARED] = tempfile.mkdtemp(prefix="spectrim-tests-")
        os.environ["SPECTRIM_CACHE"] = str(Path(os.environ[SHARED]) / "cache")


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ.pop(SHARED), ignore_errors=True)
