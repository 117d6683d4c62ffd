"""Miniatures in the real layouts, made once for all processes of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from shared import made_once

from spectrim.miniatures import writing
from spectrim.miniatures.sound_sets import synthesize_audioset, synthesize_esc50
from spectrim.miniatures.speakers import synthesize_voxceleb1

SEED = 7
ESC50_CLIPS, VOXCELEB1_CLIPS, AUDIOSET_CLIPS = 250, 267, 60
"""Of the first two the fewest that there can be."""


def esc50() -> Path:
    """Five clips of each category, one in each fold."""
    return _made(synthesize_esc50, clips=ESC50_CLIPS, workers=2)


def voxceleb1() -> Path:
    """Three utterances of each speaker, one in each part."""
    pytest.importorskip("espeakng_loader")
    return _made(synthesize_voxceleb1, clips=VOXCELEB1_CLIPS, workers=2)


def audioset() -> Path:
    """Sixty scenes to train on and fifty to test on."""
    pytest.importorskip("espeakng_loader")
    return _made(synthesize_audioset, clips=AUDIOSET_CLIPS, test_clips=50, workers=1)


def _made(make: Callable[..., Path], **options: int) -> Path:
    """In pieces of forty clips, so that there are several for two processes."""

    def in_pieces(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(writing, "CHUNK", 40)
            make(folder, seed=SEED, **options)

    return made_once(make.__name__, in_pieces)
