"""Figures of ablations: change from the dense model by ranking of the patches, and by dropped clusters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spectrim.pictures.figures import (
    NORMAL,
    SMALL,
    Row,
    add_title,
    error_bar_lengths,
    legend_below,
    require_rows,
    series_style,
)


def criteria_curves(rows: Sequence[Row], title: str = "") -> Figure:
    """Change from the dense model by keep rate, a line for each ranking of the patches, with 95 % intervals.

    Args:
        rows: of `spectrim.analysis.ablations.ablation_rows`; those of the criteria ablation are drawn.
        title: above the picture.
    """
    criterion_rows = [row for row in rows if row["ablation"] == "criterion"]
    require_rows(criterion_rows, "criteria")
    rates = sorted({row["keep_rate"] for row in criterion_rows}, reverse=True)
    names = list(dict.fromkeys(row["criterion"] for row in criterion_rows))
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axis = figure.add_subplot()
    for number, name in enumerate(names):
        series_rows = [row for row in criterion_rows if row["criterion"] == name]
        places = [rates.index(row["keep_rate"]) + 0.07 * (number - (len(names) - 1) / 2) for row in series_rows]
        _points(axis, places, series_rows, series_style(number), name)
    _dense_line(axis)
    axis.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    axis.set_xlim(-0.5, len(rates) - 0.5)
    axis.set_xlabel("keep rate at each pruning block", fontsize=NORMAL)
    axis.set_ylabel(f"change of {criterion_rows[0]['metric']} (points)", fontsize=NORMAL)
    legend_below(figure, axis, 3)
    add_title(figure, title)
    return figure


def cluster_curves(rows: Sequence[Row], title: str = "") -> Figure:
    """Change from the dense model by the block at which clusters are dropped, with as many random patches beside.

    Args:
        rows: of `spectrim.analysis.ablations.ablation_rows`; those of the cluster ablation are drawn.
        title: above the picture.
    """
    cluster_rows = [row for row in rows if row["ablation"] == "clusters"]
    require_rows(cluster_rows, "cluster ablations")
    statistics = list(dict.fromkeys(row["statistic"] for row in cluster_rows))
    blocks = sorted({row["block"] for row in cluster_rows})
    sets = list(dict.fromkeys(row["clusters"] for row in cluster_rows))
    figure = Figure(figsize=(3.7 * len(statistics), 3.5), layout="constrained")
    axes = figure.subplots(1, len(statistics), sharey=True, squeeze=False)[0]
    for axis, statistic in zip(axes, statistics, strict=True):
        for number, name in enumerate(sets):
            for random in (False, True):
                colour, marker, _ = series_style(number)
                series_rows = [
                    row
                    for row in cluster_rows
                    if (row["statistic"], row["clusters"], row["random"]) == (statistic, name, random)
                ]
                shift = 0.09 * (2 * number + random - (2 * len(sets) - 1) / 2)
                style = colour, marker, "--" if random else "-"
                text = f"as many random patches as {name}" if random else name
                _points(
                    axis,
                    [blocks.index(row["block"]) + shift for row in series_rows],
                    series_rows,
                    style,
                    text,
                    hollow=random,
                )
        _dense_line(axis)
        axis.set_xticks(range(len(blocks)), [str(block) for block in blocks])
        axis.set_xlim(-0.5, len(blocks) - 0.5)
        axis.set_title(f"clusters of {statistic}", fontsize=NORMAL, loc="left")
        axis.set_xlabel("block at which they are dropped", fontsize=NORMAL)
    axes[0].set_ylabel(f"change of {cluster_rows[0]['metric']} (points)", fontsize=NORMAL)
    legend_below(figure, axes[0], 2)
    add_title(figure, title)
    return figure


def _points(
    axis: Axes, along: Any, rows: Sequence[Row], style: tuple[str, str, str], name: str, *, hollow: bool = False
) -> None:
    """A line of changes, in points, with error bars."""
    colour, marker, dashes = style
    values = 100 * np.array([row["change"] for row in rows], dtype=float)
    lengths = 100 * error_bar_lengths(rows, "change", ("change_low", "change_high"))
    face = "white" if hollow else colour
    look: dict[str, Any] = {"color": colour, "marker": marker, "markerfacecolor": face, "markersize": 5.0}
    axis.plot(along, values, linewidth=1.2, linestyle=dashes, label=name, zorder=3, **look)
    axis.errorbar(along, values, yerr=lengths, fmt="none", ecolor=colour, elinewidth=0.9, capsize=2.0, zorder=2)
    axis.grid(axis="y", color="0.9", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.tick_params(labelsize=SMALL, length=2.5)


def _dense_line(axis: Axes) -> None:
    axis.axhline(0.0, color="0.25", linewidth=0.9)
    axis.axhline(-1.0, color="0.25", linewidth=0.9, linestyle=(0, (1, 2)))
