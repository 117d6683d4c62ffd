"""The picture of one clip: its spectrogram, what is left of it after each stage of pruning, and its labels."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.gridspec import GridSpec
from matplotlib.legend_handler import HandlerTuple
from matplotlib.patches import Patch, Rectangle
from matplotlib.textpath import text_to_path
from numpy.typing import ArrayLike, NDArray

from spectrim.audio.filterbank import frame_seconds
from spectrim.config import SpectrimConfig
from spectrim.errors import InputShapeError, InvalidSetting, one_of
from spectrim.pictures.figures import FORMATS, LARGE, NORMAL, SMALL, save_figure
from spectrim.pictures.spectrograms import (
    COLOURS,
    GREY_DARK,
    GREY_LIGHT,
    Clip,
    blends,
    draw_spectrogram,
    gone_words,
    hertz_ticks,
    kept_area,
    legend_columns,
    padding_legend,
    prepare,
)
from spectrim.pruning.pruning import Pruning
from spectrim.pruning.trace import TokenTrace

LABELS_SHOWN = 5
LABEL_INCHES = (1.9, 0.37)
"""Width of the labels' column beside the panels, height of their row above them."""

NARROWEST_OUTLINED = 4
"""Patches narrower than this, in frames or mel bins, are drawn without lines between them, which would cover them."""

WIDEST_ROW = 8.5
"""Width of the panels in a row, in inches."""


def explain_picture(
    log_mel: ArrayLike,
    kept: Sequence[tuple[str, ArrayLike]],
    config: SpectrimConfig,
    labels: Sequence[tuple[str, float]],
    title: str,
    num_frames: int | None,
    path: str | Path,
) -> Path:
    """Draw a clip's spectrogram, and below or beside it what is left of it after each stage of pruning.

    Time runs in seconds (a frame is drawn where it begins), frequency in hertz on the model's mel axis, colour is the
    power of a mel band in decibels; of MFCC, in the log-mel spectrum that they stand for. Removed patches are grey, and
    so are those that a reducer has joined into other tokens: a token of their own have only those in colour.
    Where patches overlap, a point counts as kept if any kept patch covers it. What lies in no patch at all (a rim, for
    some strides) stays white: the model never sees it.

    Args:
        log_mel: (frames, mels), normalised log-mel, or MFCC, as the front end makes it.
        kept: for each stage its name, e.g. ``"after block 3"``, and (F, T) bool, True where the patch is alive.
        config: of the model: says patches, strides, mel bins and how to undo the normalising.
        labels: names and scores, best first; the first `LABELS_SHOWN` are drawn.
        title: above the picture, e.g. the file's name; whatever in it is not text becomes a question mark.
        num_frames: how many frames hold sound, the others are padding; None if all do.
        path: file to write, in the format of its ending (`FORMATS`); appears whole or not at all.

    Returns:
        ``path``.

    Raises:
        InputShapeError: ``log_mel`` or a stage does not have the shape that the configuration says.
        InvalidSetting: ``path`` has another ending.
        OSError: the file cannot be written.
    """
    target = Path(path)
    title = title.encode(errors="replace").decode()
    if target.suffix.lower().lstrip(".") not in FORMATS:
        raise InvalidSetting("path", str(path), f"a file name that ends in {one_of('.' + name for name in FORMATS)}")
    clip = prepare(np.asarray(log_mel, dtype=np.float64), config, num_frames)
    grid = config.grid_for(clip.decibels.shape[1])
    stages = [(name, np.asarray(mask, dtype=bool)) for name, mask in kept]
    for name, mask in stages:
        if mask.shape != grid:
            raise InputShapeError(f"kept patches {name!r} have shape {mask.shape}; this configuration's grid is {grid}")
    save_figure(_compose(clip, stages, labels, title), target)
    return target


def kept_stages(
    trace: TokenTrace, config: SpectrimConfig, clip: int = 0, *, pruning: Pruning | None = None
) -> list[tuple[str, NDArray[np.bool_]]]:
    """What is left after each pruning block, as `explain_picture` takes it.

    Args:
        trace: of a batch.
        config: of the model; says the pruning blocks, where the pass had no operating point of its own.
        clip: place in the batch.
        pruning: the pass's own operating point.

    Returns:
        For each stage its name and (F, T) bool.

    Raises:
        InvalidSetting: the trace is of another operating point: patches went at a block that is none of its own.
    """
    point = config.pruning if pruning is None else pruning
    kept = [block[clip].cpu().numpy() for block in trace.kept]
    entering = ~trace.scores[0][clip].detach().cpu().isnan().numpy() if trace.scores else kept[0]
    for block, (before, after) in enumerate(zip([entering, *kept], kept, strict=False)):
        if block not in point.at and (before & ~after).any():
            allowed = f"those of the pass, in which patches went at block {block}: give its operating point as pruning="
            raise InvalidSetting("prune_at", list(point.at), allowed)
    stages = {block: f"after block {block}" for block in sorted(point.at)}
    if point.drop_padding and 0 not in stages:
        stages = {0: "padding removed", **stages}
    return [(name, kept[block]) for block, name in stages.items()]


def _compose(
    clip: Clip, stages: Sequence[tuple[str, NDArray[np.bool_]]], labels: Sequence[tuple[str, float]], title: str
) -> Figure:
    """Lay out and fill the figure: square panels in rows, the labels to their right; wide ones below each other."""
    panels = 1 + len(stages)
    mels, frames = clip.decibels.shape
    width, height = (1.75 * max(1.0, frames / mels), 1.85) if clip.upright else (6.6, 1.3)
    rows = math.ceil(panels / int(WIDEST_ROW / width))
    columns = math.ceil(panels / rows)
    beside_inches, above_inches = (
        (LABEL_INCHES[0] * clip.upright, LABEL_INCHES[1] * (not clip.upright)) if labels else (0.0, 0.0)
    )
    inches = (columns * width + beside_inches + 1.2, rows * height + above_inches + 0.9)
    figure = Figure(figsize=inches, layout="constrained")
    figure.suptitle(_fitted(title, inches[0] - 0.4, LARGE, keep_end=True), fontsize=LARGE, parse_math=False)
    grid = GridSpec(
        rows + (above_inches > 0),
        columns + (beside_inches > 0),
        figure=figure,
        width_ratios=[width] * columns + [beside_inches] * (beside_inches > 0),
        height_ratios=[above_inches] * (above_inches > 0) + [height] * rows,
    )
    axes: list[Axes] = []
    for index in range(panels):
        place = grid[index // columns + (above_inches > 0), index % columns]
        shared = {"sharex": axes[0], "sharey": axes[0]} if axes else {}
        axes.append(figure.add_subplot(place, **shared))
    _draw_panel(axes[0], clip, None, "spectrogram")
    for axis, (name, mask) in zip(axes[1:], stages, strict=True):
        _draw_panel(axis, clip, kept_area(mask, clip.config, frames), f"{name}: {mask.sum()} of {mask.size}")
        if not clip.config.overlapping and min(clip.config.patch_shape) >= NARROWEST_OUTLINED:
            _draw_patch_grid(axis, clip.config, mask.shape)
    for index, axis in enumerate(axes):
        lowest = index // columns == rows - 1
        axis.tick_params(labelleft=index % columns == 0, labelbottom=lowest)
        if lowest:
            axis.set_xlabel("Time (s)", fontsize=NORMAL)
    figure.supylabel("Frequency (Hz)", fontsize=NORMAL)
    _draw_colour_bar(figure, axes, clip, thickness=0.11 / (rows * height))
    if labels:
        place = grid[:, columns] if clip.upright else grid[0, 0]
        size = (beside_inches, rows * height) if clip.upright else (width, above_inches)
        _draw_labels(figure.add_subplot(place), labels[:LABELS_SHOWN], size, down=clip.upright)
    _draw_legend(figure, clip, bool(stages))
    return figure


def _fitted(text: str, inches: float, size: float, *, keep_end: bool = False) -> str:
    """Shorten a text that would be wider than this: leave out its end, or its middle."""
    font = FontProperties(size=size)

    def shortened(left: int) -> str:
        head = left // 2 if keep_end else left
        return text[:head].rstrip() + "…" + text[len(text) - (left - head) :]

    def points(shown: str) -> float:
        return text_to_path.get_text_width_height_descent(shown, font, ismath=False)[0]

    widest = 72.0 * inches
    if points(text) <= widest:
        return text
    return shortened(bisect_right(range(len(text)), widest, key=lambda left: points(shortened(left))) - 1)


def _draw_panel(axis: Axes, clip: Clip, area: NDArray[np.bool_] | None, name: str) -> None:
    draw_spectrogram(axis, clip, area)
    axis.set_title(name, fontsize=NORMAL, loc="left", parse_math=False)
    axis.set_yticks(*hertz_ticks(clip.config, apart=8.0 if clip.upright else 14.0))
    axis.tick_params(labelsize=SMALL, length=2.5)


def _draw_patch_grid(axis: Axes, config: SpectrimConfig, grid: tuple[int, ...]) -> None:
    frequency, time = grid
    edges = frame_seconds(np.arange(1, time) * config.time_stride)
    style: dict[str, Any] = {"colors": "white", "linewidth": 0.35, "alpha": 0.7}
    axis.vlines(edges, 0, config.num_mel_bins, **style)
    axis.hlines(np.arange(1, frequency) * config.frequency_stride, *axis.get_xlim(), **style)


def _draw_colour_bar(figure: Figure, axes: Sequence[Axes], clip: Clip, thickness: float) -> None:
    """Put a colour bar to the right of the panels; ``thickness`` as a share of its length."""
    below = clip.decibels[:, : clip.real].min() < clip.low
    scale = ScalarMappable(clip.norm, COLOURS)
    extend = "min" if below else "neither"
    bar = figure.colorbar(scale, ax=list(axes), extend=extend, pad=0.015, fraction=0.05, aspect=1.0 / thickness)
    bar.set_label("Mel-band power (dB)", fontsize=NORMAL)
    bar.ax.tick_params(labelsize=SMALL, length=2.5)


def _draw_labels(axis: Axes, labels: Sequence[tuple[str, float]], size: tuple[float, float], *, down: bool) -> None:
    """Draw each label's name with a bar and its score below, in slots one below the other or side by side.

    Args:
        axis: whose coordinates become inches.
        labels: names and scores.
        size: of the panel, in inches.
        down: slots run down instead of across.
    """
    width, height = size
    slot = width if down else width / LABELS_SHOWN
    bar = slot - 0.45
    for index, (name, score) in enumerate(labels):
        x, y = (0.0, 0.38 * index) if down else (slot * index, 0.0)
        share = min(max(score, 0.0), 1.0)
        axis.add_patch(Rectangle((x, y + 0.2), bar, 0.09, facecolor="none", edgecolor="0.6", linewidth=0.5))
        axis.add_patch(Rectangle((x, y + 0.2), bar * share, 0.09, facecolor=COLOURS(0.3), linewidth=0))
        shown = _fitted(name, slot - 0.1, SMALL)
        axis.text(x, y + 0.13, shown, fontsize=SMALL, va="baseline", parse_math=False)
        axis.text(x + bar + 0.05, y + 0.245, _score_text(score), fontsize=SMALL, va="center")
    axis.set_title("top labels", fontsize=NORMAL, loc="left")
    axis.set(xlim=(0.0, width), ylim=(height, 0.0))
    axis.axis("off")


def _score_text(score: float) -> str:
    return "<0.01" if 0.0 < score < 0.005 else f"{score:.2f}"


def _draw_legend(figure: Figure, clip: Clip, pruned: bool) -> None:
    """Say below the panels what grey, white, hatching and the dashed line mean."""
    handles: list[Any] = []
    names = []
    if pruned:
        handles.append((Patch(facecolor=COLOURS(0.25)), Patch(facecolor=COLOURS(0.6)), Patch(facecolor=COLOURS(0.95))))
        kept = "in a token of its own" if blends(clip.config) else "kept"
        names.append(f"{kept} (covered by any such patch)" if clip.config.overlapping else kept)
        handles.append((Patch(facecolor=str(GREY_DARK)), Patch(facecolor="0.83"), Patch(facecolor=str(GREY_LIGHT))))
        names.append(gone_words(clip.config))
    if not clip.seen.all():
        handles.append(Patch(facecolor="white", edgecolor="0.5", linewidth=0.5))
        names.append("in no patch")
    if clip.end is not None:
        more = padding_legend(pruned)
        handles += more.values()
        names += more
    if handles:
        figure.legend(
            handles,
            names,
            loc="outside lower center",
            ncols=legend_columns(figure, names),
            fontsize=SMALL,
            frameon=False,
            handler_map={tuple: HandlerTuple(ndivide=None, pad=0.0)},
        )
