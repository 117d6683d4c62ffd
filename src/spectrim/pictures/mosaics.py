"""Several clips in one picture, one row each: the spectrogram, and the kept patches after each pruning stage."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.patches import Patch
from numpy.typing import NDArray

from spectrim.config import SpectrimConfig
from spectrim.errors import InputShapeError
from spectrim.pictures.figures import LARGE, NORMAL, SMALL
from spectrim.pictures.spectrograms import (
    COLOURS,
    GREY_DARK,
    GREY_LIGHT,
    draw_spectrogram,
    hertz_ticks,
    kept_area,
    legend_columns,
    padding_legend,
    prepare,
)

PANEL_HEIGHT, WIDEST_PANEL = 1.15, 3.0
"""Inches of a panel."""


def mosaic(
    names: Sequence[str],
    log_mel: NDArray[np.floating],
    num_frames: NDArray[np.integer],
    survived: NDArray[np.integer],
    config: SpectrimConfig,
    title: str = "",
) -> Figure:
    """Draw clips below each other. Colour is power, 0 dB the loudest point of each clip; removed patches are grey.

    Args:
        names: of the clips.
        log_mel: (clips, frames, mels), normalised.
        num_frames: (clips,) frames that hold sound.
        survived: (clips, F, T) after how many blocks a patch was alive, as in `Summary`.
        config: of the model.
        title: above the picture.

    Raises:
        InputShapeError: there are no clips, or not as many of each.
    """
    if not len(names) == len(log_mel) == len(num_frames) == len(survived) or not names:
        raise InputShapeError(
            f"{len(names)} names, {len(log_mel)} spectrograms, {len(survived)} masks; wanted: as many"
        )
    stages = sorted(config.prune_at)
    frames = log_mel.shape[1]
    width = min(PANEL_HEIGHT * max(1.0, frames / config.num_mel_bins), WIDEST_PANEL)
    size = ((1 + len(stages)) * width + 1.6, len(names) * (PANEL_HEIGHT + 0.12) + 0.85)
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(len(names), 1 + len(stages), sharex=True, sharey=True, squeeze=False)
    headings = ["spectrogram", *(f"after block {block}" for block in stages)]
    for row, name in enumerate(names):
        clip = prepare(log_mel[row].astype(np.float64), config, int(num_frames[row]))
        masks = [np.ones(config.grid, dtype=bool), *(survived[row] > block for block in stages)]
        for column, mask in enumerate(masks):
            axis = axes[row, column]
            draw_spectrogram(axis, clip, kept_area(mask, clip.config, frames) if column else None)
            axis.set_yticks(*hertz_ticks(clip.config, apart=18.0))
            axis.tick_params(labelsize=SMALL, length=2.0)
            shown = _short(name, int(13 * width)) if column == 0 else f"{int(mask.sum())} of {mask.size}"
            axis.set_title(f"{headings[column]}\n{shown}" if row == 0 else shown, fontsize=SMALL, loc="left")
    for axis in axes[-1]:
        axis.set_xlabel("Time (s)", fontsize=NORMAL)
    figure.supylabel("Frequency (Hz)", fontsize=NORMAL)
    bar = figure.colorbar(
        ScalarMappable(Normalize(0.0, 1.0), COLOURS), ax=list(axes.flat), pad=0.015, aspect=30, ticks=[0.0, 1.0]
    )
    bar.ax.set_yticklabels(["quiet", "loudest"])
    bar.set_label("Mel-band power in dB, scaled to each clip", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL, length=2.0)
    _legend(figure, bool((num_frames < frames).any()))
    if title:
        figure.suptitle(title, fontsize=LARGE, parse_math=False)
    return figure


def _legend(figure: Figure, padded: bool) -> None:

    greys = tuple(Patch(facecolor=str(grey)) for grey in (GREY_DARK, 0.83, GREY_LIGHT))
    handles: list[Any] = [tuple(Patch(facecolor=COLOURS(level)) for level in (0.25, 0.6, 0.95)), greys]
    texts = ["kept", "removed"]
    if padded:
        more = padding_legend(pruned=True)
        handles += more.values()
        texts += more
    figure.legend(
        handles,
        texts,
        loc="outside lower center",
        ncols=legend_columns(figure, texts),
        fontsize=SMALL,
        frameon=False,
        handler_map={tuple: HandlerTuple(ndivide=None, pad=0.0)},
    )


def _short(name: str, most: int) -> str:
    """The beginning of a long name; what is not text becomes a question mark."""
    text = name.encode(errors="replace").decode()
    return text if len(text) <= most else text[: most - 1] + "…"
