"""What is said, and refused, where a checkpoint's input is not that of the recipe or the data."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from small_runs import SIZE, recipe

from spectrim.config import SpectrimConfig
from spectrim.data.check import check
from spectrim.errors import InvalidSetting
from spectrim.network.transformer import AudioTransformer
from spectrim.training.finetune import prepare
from spectrim.training.input_check import InputNotice


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of five clips of noise, 0.5 s each."""
    root, generator = tmp_path_factory.mktemp("data") / "sounds", np.random.default_rng(0)
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for take in range(5):
            soundfile.write(root / name / f"{take}.wav", 0.1 * generator.standard_normal(8000), 16000)
    return root


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A function that saves a model with some length, mean and std."""

    def save(**fields: Any) -> str:
        place = tmp_path_factory.mktemp("start") / "model"
        AudioTransformer(SpectrimConfig(**SIZE, prune_at=(1, 2), **fields)).save_pretrained(place)
        return str(place)

    return save


def notice(sounds: Path, tmp_path: Path, init: str, **fields: Any) -> str:
    plan = recipe(data={"name": "folder", "options": {"folds": 5}}, model={"fields": fields})
    plan.model.fields = fields
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        prepare(plan, sounds, tmp_path, init)
    said = [str(one.message) for one in caught if one.category is InputNotice]
    assert len(said) < 2
    return said[0] if said else ""


def test_digital_silence_is_told_and_no_error(tmp_path: Path, start: Any) -> None:
    for name in ("a", "b"):
        (tmp_path / "sounds" / name).mkdir(parents=True)
        for take in range(5):
            soundfile.write(tmp_path / "sounds" / name / f"{take}.wav", np.zeros(8000), 16000)
    said = notice(tmp_path / "sounds", tmp_path, start(max_length=48), max_length=48, mean=-0.9, std=3.5)
    assert "training clips that were looked at are alike throughout, as digital silence is" in said


# What `spectrim data check` finds in these clips.
FITTING = {"max_length": 48, "mean": -0.9, "std": 3.5}


def test_what_agrees_is_not_worth_a_word(sounds: Path, tmp_path: Path, start: Any) -> None:
    assert notice(sounds, tmp_path, start(**FITTING), **FITTING) == ""


def test_clips_are_measured_at_the_rate_of_the_model(tmp_path: Path, start: Any) -> None:
    """Noise of 16 kHz sounds the same whatever is left of it; a tone of 6 kHz is gone at 8 kHz."""
    time = np.arange(8000) / 16000
    for name in ("a", "b"):
        (tmp_path / "tones" / name).mkdir(parents=True)
        for take in range(5):
            soundfile.write(tmp_path / "tones" / name / f"{take}.wav", 0.3 * np.sin(2 * np.pi * 6000 * time), 16000)
    found = check("folder", tmp_path / "tones", sampling_rate=8000, folds=5)
    assert found.max_length == 48
    fitting = {"max_length": 48, "mean": found.mean, "std": found.std}
    assert notice(tmp_path / "tones", tmp_path, start(**fitting, sampling_rate=8000), **fitting) == ""
    assert "training clips have mean" in notice(tmp_path / "tones", tmp_path, start(**fitting), **fitting)


def test_what_is_taken_from_the_recipe_is_said_beside_the_checkpoints(sounds: Path, tmp_path: Path, start: Any) -> None:
    said = notice(sounds, tmp_path, start(max_length=128, mean=-4.0, std=3.5), **FITTING)
    assert "max_length 48, mean -0.9 of the recipe (the checkpoint has 128, -4)" in said
    assert "position table is fitted" in said
    assert "data check" not in said


def test_statistics_that_are_not_the_datas_and_clips_that_are_cut_are_said(
    sounds: Path, tmp_path: Path, start: Any
) -> None:
    said = notice(sounds, tmp_path, start(**FITTING), max_length=32, mean=-6.6, std=3.5)
    assert "8 of 8 clips are longer than 32 frames and lose their ends" in said
    assert "8 training clips have mean -0.9" in said
    assert "`spectrim data check folder DIR --write-recipe FILE` measures" in said


def test_what_the_checkpoint_brings_unasked_is_said_where_it_suits(sounds: Path, tmp_path: Path, start: Any) -> None:
    said = notice(sounds, tmp_path, start(**FITTING))
    assert "max_length, mean, std of the checkpoint, since neither recipe nor data set says" in said


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"max_length": 32}, "max_length is None; allowed: a length that the recipe says: .* looks at 32 frames"),
        (
            {"mean": -6.6},
            "mean is None; allowed: a mean and std that .*: .* has -6.6 and 3.5, the clips -0.9",
        ),
        ({"std": 10.0}, "mean is None"),
    ],
)
def test_what_the_checkpoint_brings_unasked_is_refused_where_it_does_not(
    sounds: Path, tmp_path: Path, start: Any, fields: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidSetting, match=words):
        notice(sounds, tmp_path, start(**{**FITTING, **fields}))
