"""A spectrogram and the patches kept of it, drawn on axes from arrays: what its colours, greys and hatching mean."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.textpath import text_to_path
from numpy.typing import NDArray

from spectrim.audio.filterbank import (
    FEATURES,
    frame_seconds,
    highest_frequency,
    inverse_cosine_transform,
    mel_frequencies,
)
from spectrim.config import SpectrimConfig
from spectrim.errors import InputShapeError
from spectrim.pictures.figures import SMALL
from spectrim.pruning.reducers import REDUCERS

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

WIDEST_SQUARE = 2.5
"""Up to this ratio of width to height the panels stand side by side, beyond it one below the other."""


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
    """Undo the normalising and choose the range of the colours.

    Arguments and errors as for `spectrim.pictures.kept_patches.explain_picture`.
    """
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


def paint(clip: Clip, area: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The spectrogram as (mels, frames, 4), grey outside ``area`` (mels, frames) and white where there is no patch."""
    level = np.asarray(clip.norm(clip.decibels))
    image = COLOURS(level)
    grey = GREY_DARK + (GREY_LIGHT - GREY_DARK) * level
    image[..., :3] = np.where(area[..., None], image[..., :3], grey[..., None])
    image[~clip.seen] = 1.0
    return image


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


def padding_legend(pruned: bool) -> dict[str, Any]:
    """What a legend says of a clip with padding: text → what it stands beside; ``pruned`` where patches are removed."""
    kept = {"padding that is kept": Patch(**KEPT_PADDING)} if pruned else {}
    return {"end of the sound": Line2D([], [], **END_OF_SOUND), "padding": Patch(**PADDING), **kept}


def legend_columns(figure: Figure, names: Sequence[str]) -> int:
    """Columns of a legend below a figure: one row, or two where its texts would be wider than the figure."""
    font = FontProperties(size=SMALL)
    points = sum(text_to_path.get_text_width_height_descent(name, font, ismath=False)[0] + 5 * SMALL for name in names)
    return len(names) if points < 72.0 * figure.get_figwidth() else math.ceil(len(names) / 2)


def blends(config: SpectrimConfig) -> bool:
    """Whether patches that have no token of their own are in others, and not gone."""
    return REDUCERS[config.reducer].blends


def gone_words(config: SpectrimConfig) -> str:
    """What a legend says of patches without a token of their own."""
    if not blends(config):
        return "removed"
    return "joined into other tokens, or padding" if config.drop_padding else "joined into other tokens"
