"""Pictures of a spectrogram and of the patches kept after each pruning stage, drawn from arrays."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.gridspec import GridSpec
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.textpath import text_to_path
from numpy.typing import ArrayLike, NDArray

from spectrim.audio.filterbank import (
    FEATURES,
    frame_seconds,
    highest_frequency,
    inverse_cosine_transform,
    mel_frequencies,
)
from spectrim.config import SpectrimConfig
from spectrim.errors import InputShapeError, InvalidSetting, one_of
from spectrim.pictures.figures import FORMATS, LARGE, NORMAL, SMALL, save_figure
from spectrim.pruning.trace import TokenTrace

DECIBELS = 10.0 / math.log(10.0)
"""Decibels of one unit of the natural logarithm of a power."""

RANGE_DECIBELS = 70.0
"""Range of the colours, down from the loudest point of the clip."""

COLOURS = matplotlib.colormaps["magma"]
"""Even in lightness and readable by colour-blind people; without greys, which mean "removed" here."""

GREY_DARK, GREY_LIGHT = 0.74, 0.93
"""Removed patches are drawn in this narrow range of greys."""

END_OF_SOUND: dict[str, Any] = {"color": "#00b4c4", "linewidth": 1.6, "linestyle": (0, (2.5, 1.0))}
"""A line in a hue that neither the colours nor the greys have."""

PADDING: dict[str, Any] = {"facecolor": "#ececec", "edgecolor": "#9a9a9a", "hatch": "////", "linewidth": 0}
"""Padding is hatched: its values mean no sound, however high they are. In the colours of the page of `explain`."""

KEPT_PADDING: dict[str, Any] = {**PADDING, "facecolor": "#e3d2f3", "edgecolor": "#7a3fb0"}
"""Padding that the model keeps."""

LABELS_SHOWN = 5
LABEL_INCHES = (1.9, 0.37)
"""Width of the labels' column beside the panels, height of their row above them."""
WIDEST_SQUARE = 2.5
"""Up to this ratio of width to height the panels stand side by side, beyond it one below the other."""

NARROWEST_OUTLINED = 4
"""Patches narrower than this, in frames or mel bins, are drawn without lines between them, which would cover them."""

WIDEST_ROW = 8.5
"""Width of the panels in a row, in inches."""


@dataclass(frozen=True)
class Clip:
    """A spectrogram ready to be drawn.

    Attributes:
        decibels: (mels, frames).
        low: decibels of the darkest colour.
        high: decibels of the lightest colour, the loudest point of the sound.
        seen: (mels, frames) bool: inside at least one patch.
        seconds: length of the drawn input.
        end: where the sound ends and padding begins, in seconds; None without padding.
        real: frames that hold sound.
        config: geometry of the patches, on the mel bins of ``decibels`` (`SpectrimConfig.pictured`).
    """

    decibels: NDArray[np.float64]
    low: float
    high: float
    seen: NDArray[np.bool_]
    seconds: float
    end: float | None
    real: int
    config: SpectrimConfig

    @property
    def norm(self) -> Normalize:
        """Decibels → [0, 1]."""
        return Normalize(self.low, self.high, clip=True)

    @property
    def upright(self) -> bool:
        """Whether panels are about square and stand side by side."""
        mels, frames = self.decibels.shape
        return frames <= WIDEST_SQUARE * mels


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
    power of a mel band in decibels; of MFCC, in the log-mel spectrum that they stand for. Removed patches are grey.
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


def kept_stages(trace: TokenTrace, config: SpectrimConfig, clip: int = 0) -> list[tuple[str, NDArray[np.bool_]]]:
    """What is left after each pruning block, as `explain_picture` takes it.

    Args:
        trace: of a batch.
        config: says the pruning blocks.
        clip: place in the batch.

    Returns:
        For each stage its name and (F, T) bool.
    """
    stages = {block: f"after block {block}" for block in sorted(config.prune_at)}
    if config.drop_padding and 0 not in stages:
        stages = {0: "padding removed", **stages}
    return [(name, trace.kept[block][clip].cpu().numpy()) for block, name in stages.items()]


def kept_area(kept: NDArray[np.bool_], config: SpectrimConfig, frames: int) -> NDArray[np.bool_]:
    """Mark every point of a spectrogram that a kept patch covers.

    Args:
        kept: (F, T) bool.
        config: says patch size and strides.
        frames: length of the spectrogram.

    Returns:
        (mels, frames) bool.
    """
    area = np.zeros((config.num_mel_bins, frames), dtype=bool)
    height, width = config.patch_shape
    for frequency, time in np.argwhere(kept):
        low, start = frequency * config.frequency_stride, time * config.time_stride
        area[low : low + height, start : start + width] = True
    return area


def prepare(log_mel: NDArray[np.float64], config: SpectrimConfig, num_frames: int | None) -> Clip:
    """Undo the normalising and choose the range of the colours; arguments and errors as for `explain_picture`."""
    if log_mel.ndim != 2 or log_mel.shape[1] != config.num_mel_bins or log_mel.shape[0] < config.patch_shape[1]:
        wanted = f"(at least {config.patch_shape[1]} frames, {config.num_mel_bins} mels)"
        raise InputShapeError(f"log_mel has shape {log_mel.shape}; wanted: {wanted}")
    frames = log_mel.shape[0]
    real = frames if num_frames is None else min(max(int(num_frames), 1), frames)
    kind = FEATURES[config.features]
    values = log_mel * 2.0 * config.std + config.mean - 2.0 * math.log(kind.full_scale)
    if kind.bands is not None:
        values = values @ inverse_cosine_transform(kind.bands, config.num_mel_bins)
        config = config.pictured
    decibels = DECIBELS * values.T if kind.squared else 2.0 * DECIBELS * values.T
    loudest = float(decibels[:, :real].max())
    quietest = max(float(decibels[:, :real].min()), loudest - RANGE_DECIBELS)
    return Clip(
        decibels=decibels,
        low=min(quietest, loudest - 1.0),
        high=loudest,
        seen=kept_area(np.ones(config.grid_for(frames), dtype=bool), config, frames),
        seconds=float(frame_seconds(frames)),
        end=float(frame_seconds(real)) if real < frames else None,
        real=real,
        config=config,
    )


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


def paint(clip: Clip, area: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The spectrogram as (mels, frames, 4), grey outside ``area`` (mels, frames) and white where there is no patch."""
    level = np.asarray(clip.norm(clip.decibels))
    image = COLOURS(level)
    grey = GREY_DARK + (GREY_LIGHT - GREY_DARK) * level
    image[..., :3] = np.where(area[..., None], image[..., :3], grey[..., None])
    image[~clip.seen] = 1.0
    return image


def _draw_panel(axis: Axes, clip: Clip, area: NDArray[np.bool_] | None, name: str) -> None:
    draw_spectrogram(axis, clip, area)
    axis.set_title(name, fontsize=NORMAL, loc="left", parse_math=False)
    axis.set_yticks(*hertz_ticks(clip.config, apart=8.0 if clip.upright else 14.0))
    axis.tick_params(labelsize=SMALL, length=2.5)


def draw_spectrogram(axis: Axes, clip: Clip, area: NDArray[np.bool_] | None = None) -> None:
    """Draw a spectrogram, grey outside what is kept, with padding hatched behind the end of the sound.

    Args:
        axis: where; it then runs in seconds and mel bins.
        clip: what.
        area: (mels, frames) of what is kept; None where nothing has been chosen yet: then no padding is drawn as kept.
    """
    shown = clip.seen if area is None else area
    mels, frames = shown.shape
    extent = (0.0, clip.seconds, 0.0, float(mels))
    axis.imshow(paint(clip, shown), origin="lower", aspect="auto", interpolation="nearest", extent=extent)
    if clip.end is None:
        return
    axis.add_patch(Rectangle((clip.end, 0.0), clip.seconds - clip.end, mels, **PADDING))
    if area is not None:
        edges = [*(clip.real + np.flatnonzero((area[:, clip.real + 1 :] != area[:, clip.real : -1]).any(axis=0)) + 1)]
        for start, stop in pairwise([clip.real, *edges, frames]):
            left, right = clip.seconds * start / frames, clip.seconds * stop / frames
            column = np.diff(area[:, start].astype(int), prepend=0, append=0)
            for low, high in zip(np.flatnonzero(column > 0).tolist(), np.flatnonzero(column < 0).tolist(), strict=True):
                axis.add_patch(Rectangle((left, low), right - left, high - low, **KEPT_PADDING))
    axis.axvline(clip.end, **END_OF_SOUND)


def _draw_patch_grid(axis: Axes, config: SpectrimConfig, grid: tuple[int, ...]) -> None:
    frequency, time = grid
    edges = frame_seconds(np.arange(1, time) * config.time_stride)
    style: dict[str, Any] = {"colors": "white", "linewidth": 0.35, "alpha": 0.7}
    axis.vlines(edges, 0, config.num_mel_bins, **style)
    axis.hlines(np.arange(1, frequency) * config.frequency_stride, *axis.get_xlim(), **style)


def hertz_ticks(config: SpectrimConfig, apart: float) -> tuple[list[float], list[str]]:
    """Places on the mel axis (bin k spans k to k + 1) of octaves that are ``apart`` bins or more, and their names."""
    rate, features, bins = config.sampling_rate, config.features, config.num_mel_bins
    highest = highest_frequency(rate, features)
    known = [*mel_frequencies(bins, rate, features), highest], [*(np.arange(bins) + 0.5), bins]
    ticks: dict[float, str] = {}
    hertz, above = rate / 2, math.inf
    while hertz > highest:
        hertz /= 2
    while hertz > 100.0:
        place = float(np.interp(hertz, *known))
        if above - place < apart:
            break
        ticks[place] = f"{hertz:g}"
        hertz, above = hertz / 2, place
    return list(ticks), list(ticks.values())


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


def padding_legend(pruned: bool) -> dict[str, Any]:
    """What a legend says of a clip with padding: text → what it stands beside; ``pruned`` where patches are removed."""
    kept = {"padding that is kept": Patch(**KEPT_PADDING)} if pruned else {}
    return {"end of the sound": Line2D([], [], **END_OF_SOUND), "padding": Patch(**PADDING), **kept}


def legend_columns(figure: Figure, names: Sequence[str]) -> int:
    """Columns of a legend below a figure: one row, or two where its texts would be wider than the figure."""
    font = FontProperties(size=SMALL)
    points = sum(text_to_path.get_text_width_height_descent(name, font, ismath=False)[0] + 5 * SMALL for name in names)
    return len(names) if points < 72.0 * figure.get_figwidth() else math.ceil(len(names) / 2)


def _draw_legend(figure: Figure, clip: Clip, pruned: bool) -> None:
    """Say below the panels what grey, white, hatching and the dashed line mean."""
    handles: list[Any] = []
    names = []
    if pruned:
        handles.append((Patch(facecolor=COLOURS(0.25)), Patch(facecolor=COLOURS(0.6)), Patch(facecolor=COLOURS(0.95))))
        names.append("kept (covered by any kept patch)" if clip.config.overlapping else "kept")
        handles.append((Patch(facecolor=str(GREY_DARK)), Patch(facecolor="0.83"), Patch(facecolor=str(GREY_LIGHT))))
        names.append("removed")
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
