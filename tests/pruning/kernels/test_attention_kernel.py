"""The kernel as a compiler for GPUs sees it: no GPU is needed for that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton compiles the kernel")

SMALLEST_SHARED = 99 * 1024
"""Shared memory that a block may use on the smallest of these GPUs (compute capability 8.6), in bytes."""


def test_compiles_to_matrix_instructions_without_spilling(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    script = Path(__file__).with_name("compile_kernel.py")
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env={**environment, "TRITON_CACHE_DIR": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert len(rows) == 8
    for row in rows:
        assert row["matrix"] == ("wgmma" if row["case"].startswith("sm_90") else "mma.sync"), row
        assert row["spilled"] == 0, row
        assert row["shared"] <= SMALLEST_SHARED, row
        assert row["registers"] <= 255, row
