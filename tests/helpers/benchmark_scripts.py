"""The scripts of ``benchmarks/`` in this process: one of its own would import torch and transformers once more."""

from __future__ import annotations

import importlib
import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


def run_script(name: str, *arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output, standard error of ``python benchmarks/NAME ARGUMENTS``."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.syspath_prepend(str(FOLDER))
        patch.setattr(sys, "argv", [str(FOLDER / name), *map(str, arguments)])
        try:
            importlib.import_module(name.removesuffix(".py")).main()
        except SystemExit as end:
            if isinstance(end.code, str):
                return 1, out.getvalue(), err.getvalue() + end.code
            return end.code or 0, out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()
