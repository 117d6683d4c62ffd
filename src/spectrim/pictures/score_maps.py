"""Picture of the patch scores of every block, one map over the patch grid each."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from spectrim.audio.frontend import frame_seconds
from spectrim.config import SpectrimConfig
from spectrim.errors import InputShapeError
from spectrim.pictures.figures import LARGE, NORMAL, SMALL, save_figure
from spectrim.pictures.spectrograms import END_OF_SOUND, gone_words, hertz_ticks
from spectrim.pruning.words import CRITERION_WORDS

SCORE_COLOURS = matplotlib.colormaps["viridis"]
"""Even in lightness, readable by colour-blind people, and other hues than the spectrogram's."""

PADDING_SCORES: dict[str, Any] = {"facecolor": "none", "edgecolor": "white", "hatch": "////", "linewidth": 0}
"""Lines over patches that hold padding; their scores show between them."""

GONE = "0.88"
"""Grey of patches that were gone before a block."""

WIDEST_SQUARE = 2.5
"""Up to this ratio of width to height six panels stand in a row, beyond it two."""

FRACTION_BELOW = 0.01
"""Share of the scores that may lie below the darkest colour; one of them near zero would take up the whole scale."""


def score_maps_picture(
    scores: ArrayLike | Tensor, config: SpectrimConfig, title: str, num_frames: int | None, path: str | Path
) -> Path:
    """Draw one map a block: which patches the block finds important.

    All maps share one scale: logarithmic where all scores are positive, as attention is, else linear. Its upper end is
    the highest score; the lowest `FRACTION_BELOW` of the scores share the darkest colour. Patches that were gone before
    a block are grey; above each map stands how many are alive in the block, and how many go on if it prunes. Where
    patches overlap, each is drawn as wide as the step to the next.

    Args:
        scores: (blocks, F, T) float, NaN where the patch was gone.
        config: of the model.
        title: above the picture; whatever in it is not text becomes a question mark.
        num_frames: frames that hold sound; None if all do.
        path: file to write, in the format of its ending; appears whole or not at all.

    Returns:
        ``path``.

    Raises:
        InputShapeError: ``scores`` does not have the grid that the configuration says.
        OSError: the file cannot be written.
    """
    if isinstance(scores, Tensor):
        scores = scores.detach().cpu().double().numpy()
    maps = np.asarray(scores, dtype=np.float64)
    if maps.ndim != 3 or maps.shape[1:] != config.grid or np.isnan(maps).all():
        raise InputShapeError(f"scores has shape {maps.shape}; wanted: (blocks, {config.grid[0]}, {config.grid[1]})")
    figure = _compose(maps, config, num_frames)
    figure.suptitle(title.encode(errors="replace").decode(), fontsize=LARGE, parse_math=False)
    save_figure(figure, Path(path))
    return Path(path)


def score_scale(maps: NDArray[np.float64]) -> Normalize:
    """The scale that all maps share; see `score_maps_picture`."""
    known = maps[~np.isnan(maps)]
    low, high = float(np.quantile(known, FRACTION_BELOW)), float(known.max())
    if low > 0.0:
        return LogNorm(min(low, high / 1.01), high, clip=True)
    return Normalize(min(low, high - 1e-6), high, clip=True)


def _compose(maps: NDArray[np.float64], config: SpectrimConfig, num_frames: int | None) -> Figure:
    blocks, frequency, time = maps.shape
    config = config.pictured
    upright = config.max_length <= WIDEST_SQUARE * config.num_mel_bins
    columns = min(blocks, 6 if upright else 2)
    rows = math.ceil(blocks / columns)
    size = (1.3 * max(1.0, config.max_length / config.num_mel_bins), 1.45) if upright else (3.7, 1.05)
    figure = Figure(figsize=(columns * size[0] + 1.3, rows * size[1] + 0.9), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    scale = score_scale(maps)
    alive = (~np.isnan(maps)).sum(axis=(1, 2))
    seconds = float(frame_seconds(config.max_length))
    ended = num_frames is not None and num_frames < config.max_length
    covered = (float(frame_seconds(time * config.time_stride)), float(frequency * config.frequency_stride))
    for block, axis in enumerate(axes.flat):
        if block >= blocks:
            axis.axis("off")
            continue
        image = SCORE_COLOURS(scale(maps[block]))
        image[np.isnan(maps[block])] = matplotlib.colors.to_rgba(GONE)
        axis.imshow(
            image, origin="lower", aspect="auto", interpolation="nearest", extent=(0, covered[0], 0, covered[1])
        )
        axis.set(xlim=(0.0, seconds), ylim=(0.0, config.num_mel_bins))
        axis.set_yticks(*hertz_ticks(config, apart=12.0 if upright else 22.0))
        axis.tick_params(labelsize=SMALL, length=2.5)
        fewer = f" → {alive[block + 1]}" if block + 1 < blocks and alive[block + 1] < alive[block] else ""
        axis.set_title(f"block {block}: {alive[block]}{fewer}", fontsize=SMALL, loc="left")
        if ended:
            end = float(frame_seconds(num_frames or 0))
            axis.axvspan(end, seconds, **PADDING_SCORES)
            axis.axvline(end, **END_OF_SOUND)
        axis.tick_params(labelleft=block % columns == 0, labelbottom=block + columns >= blocks)
        if block + columns >= blocks:
            axis.set_xlabel("Time (s)", fontsize=NORMAL)
    figure.supylabel("Frequency (Hz)", fontsize=NORMAL)
    kind = "log scale" if isinstance(scale, LogNorm) else "linear scale"
    bar = figure.colorbar(
        ScalarMappable(scale, SCORE_COLOURS), ax=list(axes.flat), extend="min", pad=0.015, aspect=30 if upright else 50
    )
    words, name = CRITERION_WORDS.get(config.resolved_criterion, "score"), config.resolved_criterion
    bar.set_label(f"{words}\n({name}, {kind})", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL, length=2.5, which="both")
    low, high = bar.mappable.get_clim()
    if isinstance(scale, LogNorm) and low is not None and high is not None and high < 10 * low:
        # Within a decade a power of ten says nothing.
        for set_formatter in (bar.ax.yaxis.set_major_formatter, bar.ax.yaxis.set_minor_formatter):
            set_formatter("{x:g}")
    _draw_legend(figure, gone_words(config) if np.isnan(maps).any() else None, ended)
    return figure


def _draw_legend(figure: Figure, gone: str | None, ended: bool) -> None:
    handles: list[Artist] = []
    names = []
    if gone is not None:
        handles.append(Patch(facecolor=GONE, edgecolor="0.5", linewidth=0.5))
        names.append(f"{gone} before this block")
    if ended:
        handles += [Line2D([], [], **END_OF_SOUND), Patch(**{**PADDING_SCORES, "facecolor": SCORE_COLOURS(0.4)})]
        names += ["end of the sound", "padding"]
    if handles:
        figure.legend(handles, names, loc="outside lower center", ncols=len(names), fontsize=SMALL, frameon=False)
