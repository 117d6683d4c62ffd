"""Figure of a training run over its epochs, from the rows of its log."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from spectrim.pictures.figures import NORMAL, SMALL, STYLES, add_title, require_rows

Row = Mapping[str, Any]

MARKED = 60
"""Evaluations up to which each has a marker."""


def training_curve(
    rows: Sequence[Row], *, metric: str | None = None, chosen: float | None = None, title: str = ""
) -> Figure:
    """Draw loss, metric and keep rate over the epochs, one panel each.

    Args:
        rows: of a run's ``metrics.jsonl``: epoch, keep_rate, and loss (mean of the steps since the row before) or
            eval_loss and the metric as ``eval_NAME``; what a row lacks, or has no finite value of, is not drawn.
        metric: its name; a share. None for no such panel.
        chosen: epoch of the weights that were chosen, to be marked.
        title: above the picture.

    Returns:
        The figure; `spectrim.pictures.figures.save_figure` writes it.

    Raises:
        InvalidSetting: no row has a loss.
    """
    losses = {"training": _points(rows, "loss"), "validation": _points(rows, "eval_loss")}
    require_rows([point for points in losses.values() for point in points], "a loss")
    named = f"validation {metric} (%)"
    panels = {
        "loss": losses,
        named: {named: [(epoch, 100 * value) for epoch, value in _points(rows, f"eval_{metric}")]},
        "keep rate": {"keep rate": _points(rows, "keep_rate")},
    }
    drawn = {name: series for name, series in panels.items() if any(series.values())}
    figure = Figure(figsize=(6.4, 1.1 + 1.6 * len(drawn)), layout="constrained")
    axes = figure.subplots(len(drawn), 1, sharex=True, squeeze=False)[:, 0]
    for axis, (name, series) in zip(axes, drawn.items(), strict=True):
        for number, (label, points) in enumerate(series.items()):
            _draw(axis, label, points, number)
        if len(series) > 1:
            axis.legend(fontsize=SMALL, frameon=False)
        _furnish(axis, name, chosen)
    axes[-1].set_xlim(left=0.0)
    axes[-1].set_xlabel("epoch" + ("" if chosen is None else "; dotted: the weights that were chosen"), fontsize=NORMAL)
    if "keep rate" in drawn:
        axes[-1].set_ylim(0.0, 1.05)
    add_title(figure, title)
    return figure


def _points(rows: Sequence[Row], name: str) -> list[tuple[float, float]]:
    """(epoch, value) of the rows that have a finite value, one an epoch."""
    found = {}
    for row in rows:
        epoch, value = row.get("epoch"), row.get(name)
        if epoch is not None and value is not None and math.isfinite(value):
            found[float(epoch)] = float(value)
    return sorted(found.items())


def _draw(axis: Axes, label: str, points: Sequence[tuple[float, float]], number: int) -> None:
    colour, marker, dashes = STYLES[number]
    if not points:
        return
    epochs, values = zip(*points, strict=True)
    shown = marker if len(points) <= MARKED else None
    axis.plot(epochs, values, color=colour, linestyle=dashes, linewidth=1.4, marker=shown, markersize=3.5, label=label)


def _furnish(axis: Axes, name: str, chosen: float | None) -> None:
    if chosen is not None:
        axis.axvline(chosen, color="0.25", linewidth=1.0, linestyle=(0, (1, 2)), zorder=1)
    axis.set_ylabel(name, fontsize=NORMAL)
    axis.tick_params(labelsize=SMALL)
    axis.yaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    axis.xaxis.set_major_locator(MaxNLocator(nbins=10, steps=[1, 2, 5, 10], integer=_whole(axis)))
    axis.grid(color="0.9", linewidth=0.6)
    axis.set_axisbelow(True)


def _whole(axis: Axes) -> bool:
    """Whether an axis is long enough for whole epochs as its marks."""
    low, high = axis.get_xlim()
    return bool(high - low >= 3)
