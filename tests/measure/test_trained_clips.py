"""A model that lies in its run's folder is evaluated on the run's own parts, or a notice says that they are others."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from tone_table import save_run, small_model, write_tones

from spectrim.data import PARTS, find_data_set
from spectrim.measure.evaluate import evaluate
from spectrim.measure.trained_clips import CLIPS, OtherClips, warn_of_other_clips


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("tones") / "set")


@pytest.fixture(scope="module")
def model(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In a folder as training leaves it: fold 2 was held out."""
    return save_run(tmp_path_factory.mktemp("run"), root)


def notices(model: Path, root: Path, **options: Any) -> list[str]:
    quick = {"device": "cpu", "workers": 0, "resamples": 10, "keep_rates": 1.0}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        evaluate(model, "csv", root, **quick, **options)
    return [str(one.message) for one in caught if issubclass(one.category, OtherClips)]


@pytest.mark.parametrize("part", PARTS)
def test_the_parts_of_the_run_need_no_notice(model: Path, root: Path, part: str) -> None:
    assert notices(model, root, part=part, folds=[2]) == []


@pytest.mark.parametrize("options", [{"options": {"fold": 1}}, {"folds": [1]}])
def test_clips_that_the_model_was_trained_on_are_noticed(model: Path, root: Path, options: dict[str, Any]) -> None:
    (told,) = notices(model, root, **options)
    assert told == (
        f"test: 12 clips that are not the 12 with which the run in {model.parent} was begun, or have other labels: "
        "clips that it was trained on may be tested now; open them with the options in its run.json, and as they were"
    )


def test_other_data_and_models_that_are_not_the_run_s_say_nothing(
    model: Path, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert notices(model, write_tones(tmp_path / "others")) == []
    small_model().save_pretrained(tmp_path / "model")
    for name in ("run.json", CLIPS):
        (tmp_path / name).write_text("[]")
    assert notices(tmp_path / "model", root) == []
    monkeypatch.chdir(model.parent)
    assert notices(Path("model"), root) != []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_other_clips("spectrim-mini", "csv", root, "test", find_data_set("csv").open(root, "test"))
