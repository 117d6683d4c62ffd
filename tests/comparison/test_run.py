"""Which clips a comparison opens, and what it says of them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from tone_table import save_run, small_model, write_tones

from spectrim.analysis.analyse import analyse
from spectrim.analysis.experiment import Plan
from spectrim.comparison.run import open_part
from spectrim.inference.torch_model import TorchModel
from spectrim.measure.trained_clips import OtherClips

PLAN = Plan((0.5,), padding="with", clusters="fit", data_name="csv", part="test", limit=3)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("tones") / "set")


@pytest.fixture(scope="module")
def model(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In a folder as training leaves it: fold 2 was held out."""
    return save_run(tmp_path_factory.mktemp("run"), root)


@pytest.mark.parametrize(("fold", "count"), [(2, 0), (1, 1)])
@pytest.mark.parametrize("command", ["compare and tune", "analyze"])
def test_clips_that_a_run_was_trained_on_are_noticed(
    command: str, fold: int, count: int, model: Path, root: Path, tmp_path: Path
) -> None:
    def run() -> Any:
        if command == "analyze":
            return analyse(model, "csv", root, tmp_path / "out", PLAN, options={"fold": fold})
        other = small_model()
        return open_part(TorchModel(other), [other, str(model)], "csv", root, "test", {"fold": fold})

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    said = [str(one.message) for one in caught if issubclass(one.category, OtherClips)]
    assert len(said) == count and all("clips that it was trained on may be tested now" in line for line in said)
