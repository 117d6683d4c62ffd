"""The HTML page that steps through the pruning stages, from the template `spectrim.assets.STAGES_PAGE`."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment
from matplotlib.colors import to_hex
from matplotlib.image import imsave
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from spectrim.assets import STAGES_PAGE
from spectrim.audio.filterbank import FEATURES, frame_seconds, highest_frequency, mel_frequencies
from spectrim.config import SpectrimConfig
from spectrim.errors import utf8_text
from spectrim.explain.clip import ExplainedWindow, Explanation, WindowDetail
from spectrim.explain.sound import StageSound
from spectrim.pictures.kept_patches import LABELS_SHOWN
from spectrim.pictures.spectrograms import COLOURS, Clip, blends, gone_words, hertz_ticks, paint, prepare
from spectrim.pruning.reducers import REDUCERS
from spectrim.pruning.words import criterion_words, reducer_words

PLOT_PIXELS = {True: (560, 400), False: (840, 230)}
"""Width and height of a plot that is about square, and of a wide one, before the page scales it."""
LEFT, RIGHT, TOP, BOTTOM = 62, 86, 8, 44
"""Pixels around a plot for its axes; the colour bar stands to the right."""

LABELS_IN_TABLE = 3
"""Best labels of the dense and of the pruned model in the table of changes; `explain.json` has more."""

ROWS_SHOWN = 1000
"""Windows that the page's table lists; `explain.json` has all."""


def stages_page(
    explanation: Explanation, sounds: Sequence[StageSound], kept_energy: float, maps: Sequence[Path] = ()
) -> str:
    """The page as HTML that stands alone, but for ``kept.wav`` and ``dropped.wav`` where ``sounds`` is empty.

    Args:
        explanation: of a clip.
        sounds: one a state of `Explanation.names`, or none.
        kept_energy: share of the energy of the spectrogram that is kept after the last stage.
        maps: pictures of the scores of each window with a detail, PNG; or none.
    """
    names = explanation.names()
    pictures: Sequence[Path | None] = maps or [None] * len(explanation.detailed)
    windows = [_window(explanation, window, path) for window, path in zip(explanation.detailed, pictures, strict=True)]
    shares = [f"{sound.kept_energy:.1%} of the energy of the sound is kept" for sound in sounds]
    if not sounds:
        shares = [""] * (len(names) - 1) + [f"{kept_energy:.1%} of the energy of the sound is kept"]
    data = {
        "sounds": [{"kept": _wav(sound.kept), "dropped": _wav(sound.dropped)} for sound in sounds],
        "shares": shares,
        "windows": [{key: window[key] for key in ("paths", "counts", "rows")} for window in windows],
    }
    note = "The two players give what is kept and what is dropped at the stage that is shown"
    if not sounds:
        note = f"The two players give what is kept and what is dropped {names[-1]}, from kept.wav and dropped.wav"
    template = Environment(autoescape=True).from_string(STAGES_PAGE.read_text(encoding="utf-8"))
    return template.render(
        clip=utf8_text(Path(explanation.clip).name),
        facts=facts(explanation),
        names=names,
        overlapping=explanation.config.overlapping,
        sound_note=f"{note}, with the original phase: added up, they are the clip.",
        windows=windows,
        rows=[_row(explanation, window) for window in explanation.windows[:ROWS_SHOWN]],
        notes=_notes(explanation),
        data=data,
    )


def facts(explanation: Explanation) -> str:
    """What was run, in one line."""
    config = explanation.config
    rates = [stage.keep_rate for stage in explanation.stages]
    shown = f"{rates[0]:g}" if len(set(rates)) == 1 else ", ".join(f"{rate:g}" for rate in rates)
    blocks = ", ".join(str(stage.block) for stage in explanation.stages)
    reducer = REDUCERS[config.pruning.reducer]
    ranking = {"scores": criterion_words(config.resolved_criterion), "predictor": "trained predictors"}
    chosen = f"ranked by {ranking[reducer.reads]}" if reducer.reads in ranking else "not ranked"
    pruning = f"Keep rate {shown} at blocks {blocks}, {chosen}"
    if reducer.attends_first:
        pruning += f". What is shown as dropped went on in other patches ({reducer_words(config.pruning.reducer)})"
    return (
        f"{explanation.seconds:.2f} s, {len(explanation.windows)} window{'s' * (len(explanation.windows) > 1)}. "
        f"Model: {explanation.model or config.backbone}. {pruning if rates else 'No block prunes'}."
    )


def _window(explanation: Explanation, window: ExplainedWindow, maps: Path | None) -> dict[str, Any]:
    detail = window.detail
    if detail is None:
        raise ValueError("this window has no detail")
    clip = prepare(detail.log_mel.astype(np.float64), explanation.config, window.num_frames)
    config = clip.config
    width, height = PLOT_PIXELS[clip.upright]
    frames, mels = config.max_length, config.num_mel_bins
    empty = np.zeros((mels, frames), dtype=bool)
    alive = [int(state.sum()) for state in window.kept]
    return {
        "title": f"{window.start:.2f}–{window.end:.2f} s",
        "start": window.start,
        "end": window.end,
        "upright": clip.upright,
        "width": LEFT + width + RIGHT,
        "height": TOP + height + BOTTOM,
        "left": LEFT,
        "top": TOP,
        "plot_width": width,
        "plot_height": height,
        "scale_left": LEFT + width + 14,
        "pixels_per_second": width / clip.seconds,
        "transform": f"translate({LEFT} {TOP + height}) scale({width / frames:.6g} {-height / mels:.6g})",
        "grey": _png(paint(clip, empty)),
        "coloured": _png(paint(clip, clip.seen)),
        "paths": [_outline(state, config) for state in window.kept],
        "counts": [f"{number} of {window.kept[0].size} patches kept" for number in alive],
        "cells": _cells(explanation, window, detail),
        "cell_width": config.time_stride,
        "cell_height": config.frequency_stride,
        "end_of_sound": None if clip.end is None else LEFT + width * clip.end / clip.seconds,
        "x_ticks": _time_ticks(window.start, clip.seconds, width),
        "y_ticks": [
            (round(TOP + height * (1 - place / mels), 1), text)
            for place, text in zip(*hertz_ticks(config, apart=8.0 if clip.upright else 14.0), strict=True)
        ],
        "gradient": [(at, to_hex(COLOURS(at))) for at in np.linspace(0, 1, 17).tolist()],
        "scale_ticks": _scale_ticks(clip, height),
        "rows": _label_rows(explanation, window, detail),
        "changes": _change_table(explanation, window),
        "maps": maps and "data:image/png;base64," + base64.b64encode(maps.read_bytes()).decode(),
    }


def change_rows(explanation: Explanation, window: ExplainedWindow, number: int = LABELS_SHOWN) -> list[dict[str, Any]]:
    """What each stage changes in a window, for the best labels of the dense and of the pruned model.

    Args:
        explanation: of the clip.
        window: of it, with a detail.
        number: labels of either.

    Returns:
        One row a stage and label: stage, removed (patches), label, and the scores dense, so_far, alone and unseen; see
        `StageChange`; None for unseen where nothing is removed. No row where the stages were not run apart.
    """
    if window.detail is None:
        return []
    shown = explanation.shown_labels(window.dense, window.pruned, number)
    return [
        {
            "stage": stage.name,
            "removed": int(change.removed.sum()),
            "label": explanation.labels[label],
            "dense": float(window.dense[label]),
            "so_far": float(change.so_far[label]),
            "alone": float(change.alone[label]),
            "unseen": None if change.unseen is None else float(change.unseen[label]),
        }
        for stage, change in zip(explanation.stages, window.detail.changes, strict=True)
        if change.alone is not None
        for label in shown
    ]


def _change_table(explanation: Explanation, window: ExplainedWindow) -> list[dict[str, Any]]:
    """`change_rows` as text, with the difference to the dense score behind each; ``rows`` of a stage at its first."""
    rows = change_rows(explanation, window, LABELS_IN_TABLE)
    labels = len(rows) // max(len(explanation.stages), 1)
    return [
        {
            **row,
            "rows": labels if number % labels == 0 else 0,
            "dense": f"{row['dense']:.3f}",
            **{key: _beside_dense(row[key], row["dense"]) for key in ("so_far", "alone", "unseen")},
        }
        for number, row in enumerate(rows)
    ]


def _beside_dense(value: float | None, dense: float) -> str:
    return "–" if value is None else f"{value:.3f} ({_signed(value - dense)})"


def _signed(value: float) -> str:
    text = f"{value:+.3f}".replace("-", "−")
    return "0.000" if text in ("+0.000", "−0.000") else text


def _label_rows(explanation: Explanation, window: ExplainedWindow, detail: WindowDetail) -> list[dict[str, Any]]:
    """The best labels with their score in each state: dense, then with more and more stages."""
    states = [window.dense, *(change.so_far for change in detail.changes)]
    return [
        {
            "label": explanation.labels[label],
            "texts": [f"{scores[label]:.3f}" for scores in states],
            "shares": [round(float(np.clip(scores[label], 0.0, 1.0)), 4) for scores in states],
        }
        for label in explanation.shown_labels(window.dense, window.pruned, LABELS_SHOWN)
    ]


def _cells(explanation: Explanation, window: ExplainedWindow, detail: WindowDetail) -> list[dict[str, Any]]:
    """Where each patch lies, in frames and mel bins, and what is known of it. Overlapping patches show their middle."""
    config, names = explanation.config.pictured, explanation.names()
    (high_bins, long), rise, step = config.patch_shape, config.frequency_stride, config.time_stride
    lasted, gone = window.kept.sum(axis=0), "joined into others" if blends(config) else "gone"
    cells = []
    for f, t in np.ndindex(window.kept.shape[1:]):
        low, high = hertz_at(config, f * rise), hertz_at(config, f * rise + high_bins)
        start = window.start + float(frame_seconds(t * step))
        fate = (
            "never seen"
            if lasted[f, t] == 0
            else f"{gone} {names[lasted[f, t]]}"
            if lasted[f, t] < len(names)
            else "kept"
        )
        scores = [f"{detail.scores[s.block, f, t]:.3g} in block {s.block}" for s in explanation.stages[: lasted[f, t]]]
        scored = f"; score {', '.join(scores)}" if scores else ""
        span = f"{start:.2f}–{start + float(frame_seconds(long)):.2f} s, {low:.0f}–{high:.0f} Hz"
        middle = ((long - step) / 2, (high_bins - rise) / 2)
        cells.append({"x": t * step + middle[0], "y": f * rise + middle[1], "text": f"{span}: {fate}{scored}"})
    return cells


def hertz_at(config: SpectrimConfig, place: float) -> float:
    """Frequency of a place on the mel axis, on which bin k spans k to k + 1, in hertz."""
    bins, rate, features = config.num_mel_bins, config.sampling_rate, config.features
    known = [0.0, *(np.arange(bins) + 0.5), float(bins)]
    centres = mel_frequencies(bins, rate, features)
    ends = FEATURES[features].lowest_frequency, highest_frequency(rate, features)
    return float(np.interp(place, known, [ends[0], *centres, ends[1]]))


def _outline(kept: NDArray[np.bool_], config: SpectrimConfig) -> str:
    """SVG path of all that kept patches cover, in frames and mel bins."""
    height, width = config.patch_shape
    corner = f"h{width}v{height}h-{width}z"
    return "".join(f"M{t * config.time_stride} {f * config.frequency_stride}{corner}" for f, t in np.argwhere(kept))


def _time_ticks(start: float, seconds: float, width: int) -> list[tuple[float, str]]:
    ticks = MaxNLocator(8, steps=[1, 2, 5, 10]).tick_values(start, start + seconds)
    inside = [tick for tick in ticks if start - 1e-9 <= tick <= start + seconds + 1e-9]
    return [(round(LEFT + width * (tick - start) / seconds, 1), f"{tick:.6g}") for tick in inside]


def _scale_ticks(clip: Clip, height: int) -> list[tuple[float, str]]:
    inside = [tick for tick in MaxNLocator(7).tick_values(clip.low, clip.high) if clip.low <= tick <= clip.high]
    return [
        (round(TOP + height * (clip.high - tick) / (clip.high - clip.low), 1), f"{tick:g}".replace("-", "−"))
        for tick in inside
    ]


def _row(explanation: Explanation, window: ExplainedWindow) -> dict[str, str]:
    row = {
        "window": f"{window.start:.2f}–{window.end:.2f} s",
        "patches": " → ".join(str(int(state.sum())) for state in window.kept),
    }
    for kind, scores in (("dense", window.dense), ("pruned", window.pruned)):
        best = int(np.argmax(scores))
        row |= {kind: explanation.labels[best], f"{kind}_score": f"{scores[best]:.3f}"}
    return row


def _notes(explanation: Explanation) -> list[str]:
    """What the page leaves out, and how it is to be read."""
    windows, drawn = len(explanation.windows), len(explanation.detailed)
    notes = [] if explanation.note is None else [f"Of this clip: {explanation.note}."]
    if drawn < windows:
        notes.append(f"{drawn} of {windows} windows are drawn, the first ones; the sound is that of all of them.")
    if windows > ROWS_SHOWN:
        notes.append(f"The first {ROWS_SHOWN} of {windows} windows are listed; explain.json has all.")
    config = explanation.config
    if config.overlapping:
        notes.append(
            "Patches overlap: a point counts as kept if any kept patch covers it. What lies in no patch is dropped."
        )
    notes.append(
        f"The clip as the model hears it: mono, {config.sampling_rate} Hz. Time is where a frame begins; "
        f"colour is the power of a mel band, black where it is quiet; grey is {gone_words(config)}. Behind the dashed "
        "line the sound "
        "has ended: hatched is padding, violet where the model keeps it."
    )
    return notes


def _png(image: NDArray[np.float64]) -> str:
    """Data of a PNG, high frequencies at the top."""
    buffer = io.BytesIO()
    imsave(buffer, image[::-1, :, :3], format="png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _wav(data: str) -> str:
    return "data:audio/wav;base64," + data
