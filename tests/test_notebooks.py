"""The notebooks of examples/ run as they stand, and print what is stored in them."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from pathlib import Path

import matplotlib
import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))


def test_there_is_a_notebook() -> None:
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_prints_what_is_stored_in_it(path: Path) -> None:
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    names: dict[str, object] = {}
    matplotlib.use("Agg")
    for cell in cells:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*non-interactive")  # plt.show() without a screen
            exec(compile("".join(cell["source"]), cell["id"], "exec"), names)
        stored = [output["text"] for output in cell["outputs"] if output["output_type"] == "stream"]
        assert printed.getvalue() == "".join("".join(text) for text in stored)
    from matplotlib import pyplot as plt

    assert plt.get_fignums()
    plt.close("all")
