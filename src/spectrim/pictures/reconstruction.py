"""Pictures of masked pre-training: the spectrogram, its visible patches, and the decoder's prediction of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray

from spectrim.config import SpectrimConfig
from spectrim.errors import InputShapeError, InvalidSetting, one_of
from spectrim.pictures.figures import FORMATS, LARGE, NORMAL, SMALL, save_figure
from spectrim.pictures.spectrograms import hertz_ticks, kept_area, paint, prepare

PANEL_INCHES = (1.3, 4.2)
"""Narrowest and widest panel."""

PANEL_HEIGHT = 1.25


@dataclass(frozen=True)
class Reconstruction:
    """One clip.

    Attributes:
        name: written above it.
        log_mel: (frames, mels), normalised, as the front end makes it.
        visible: (F, T) bool, the patches that the encoder saw.
        predicted: (frames, mels), normalised, the decoder's prediction of every patch.
        num_frames: how many frames hold sound; None for all.
    """

    name: str
    log_mel: ArrayLike
    visible: ArrayLike
    predicted: ArrayLike
    num_frames: int | None = None


def reconstruction_picture(
    clips: Sequence[Reconstruction], config: SpectrimConfig, title: str, path: str | Path
) -> Path:
    """Draw clips, one a row: the spectrogram; the same with masked patches grey; with the prediction in their place.

    The three share the colours of the first.

    Args:
        clips: at least one.
        config: of the encoder: says patches, mel bins and how to undo the normalising.
        title: above the picture.
        path: file to write, in the format of its ending; appears whole or not at all.

    Returns:
        ``path``.

    Raises:
        InputShapeError: arrays do not have the shapes that the configuration says, or there is no clip.
        InvalidSetting: ``path`` has another ending.
    """
    target = Path(path)
    if target.suffix.lower().lstrip(".") not in FORMATS:
        raise InvalidSetting("path", str(path), f"a file name that ends in {one_of('.' + name for name in FORMATS)}")
    if not clips:
        raise InputShapeError("there is no clip to draw")
    rows = [_panels(clip, config) for clip in clips]
    width = float(np.clip(PANEL_HEIGHT * config.max_length / config.num_mel_bins, *PANEL_INCHES))
    figure = Figure(figsize=(3 * width + 0.9, len(rows) * PANEL_HEIGHT + 0.9), layout="constrained")
    figure.suptitle(title, fontsize=LARGE, parse_math=False)
    axes = figure.subplots(len(rows), 3, squeeze=False, sharex=True, sharey=True)
    extent = (0.0, config.max_length / 100, 0.0, float(config.num_mel_bins))
    for row, clip, panels in zip(axes, clips, rows, strict=True):
        for axis, image, name in zip(row, panels, (clip.name, "shown", "predicted where masked"), strict=True):
            axis.imshow(image, origin="lower", aspect="auto", interpolation="nearest", extent=extent)
            axis.set_title(name, fontsize=SMALL, loc="left", parse_math=False)
            axis.set_yticks(*hertz_ticks(config, apart=14.0))
            axis.tick_params(labelsize=SMALL, length=2.5)
    for axis in axes[-1]:
        axis.set_xlabel("Time (s)", fontsize=NORMAL)
    figure.supylabel("Frequency (Hz)", fontsize=NORMAL)
    save_figure(figure, target)
    return target


def _panels(clip: Reconstruction, config: SpectrimConfig) -> list[NDArray[np.float64]]:
    log_mel, predicted = (np.asarray(part, dtype=np.float64) for part in (clip.log_mel, clip.predicted))
    visible = np.asarray(clip.visible, dtype=bool)
    frames = log_mel.shape[0]
    prepared = prepare(log_mel, config, clip.num_frames)
    if visible.shape != config.grid_for(frames) or predicted.shape != log_mel.shape:
        raise InputShapeError(
            f"visible has shape {visible.shape} and predicted {predicted.shape}; "
            f"log_mel of {log_mel.shape} wants {config.grid_for(frames)} and {log_mel.shape}"
        )
    shown = kept_area(visible, config, frames)
    decibels = prepare(predicted, config, clip.num_frames).decibels
    mended = replace(prepared, decibels=np.where(shown, prepared.decibels, decibels))
    return [paint(prepared, prepared.seen), paint(prepared, shown), paint(mended, prepared.seen)]
