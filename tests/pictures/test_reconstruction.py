from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from spectrim.backbones import audiomae_tiny
from spectrim.errors import InputShapeError, InvalidSetting
from spectrim.pictures import reconstruction
from spectrim.pictures.reconstruction import Reconstruction, reconstruction_picture

CONFIG = audiomae_tiny(max_length=64)


def a_clip(**changes: Any) -> Reconstruction:
    random = np.random.default_rng(0)
    visible = np.zeros((8, 4), dtype=bool)
    visible[2, 1] = visible[7, 3] = True
    fields = {"name": "a.wav", "log_mel": random.normal(size=(64, 128)), "visible": visible}
    return Reconstruction(**{**fields, "predicted": random.normal(size=(64, 128)), **changes})


def test_three_panels_show_the_clip_what_was_seen_and_the_prediction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures: list[Figure] = []
    save = reconstruction.save_figure
    monkeypatch.setattr(
        reconstruction, "save_figure", lambda figure, path: (figures.append(figure), save(figure, path))
    )
    path = reconstruction_picture([a_clip(), a_clip(name="b.wav")], CONFIG, "step 7", tmp_path / "it.png")
    assert path.read_bytes().startswith(b"\x89PNG")
    images = [np.asarray(axis.images[0].get_array()) for axis in figures[0].axes]
    assert len(images) == 6
    whole, shown, mended = images[:3]
    seen = np.zeros((128, 64), dtype=bool)
    seen[32:48, 16:32] = seen[112:, 48:] = True
    assert np.array_equal(shown[seen], whole[seen]) and np.array_equal(mended[seen], whole[seen])
    grey = shown[~seen]
    assert np.array_equal(grey[:, 0], grey[:, 1]) and np.array_equal(grey[:, 1], grey[:, 2])
    assert not np.array_equal(mended[~seen], whole[~seen])


@pytest.mark.parametrize("features", ["log_mel", "povey_log_mel", "mel_decibels"])
def test_a_perfect_prediction_looks_like_the_clip(features: str) -> None:
    clip = a_clip()
    config = audiomae_tiny(max_length=64, features=features, padding="silence")
    whole, _, mended = reconstruction._panels(a_clip(predicted=clip.log_mel), config)
    np.testing.assert_allclose(whole, mended)


@pytest.mark.parametrize(
    "changes", [{"visible": np.ones((4, 8))}, {"predicted": np.ones((64, 64))}, {"log_mel": np.ones((64, 100))}]
)
def test_shapes_that_do_not_fit_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(InputShapeError):
        reconstruction_picture([a_clip(**changes)], CONFIG, "", tmp_path / "it.png")


def test_an_unknown_format_and_no_clips_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="path"):
        reconstruction_picture([a_clip()], CONFIG, "", tmp_path / "it.bmp")
    with pytest.raises(InputShapeError, match="no clip"):
        reconstruction_picture([], CONFIG, "", tmp_path / "it.png")
