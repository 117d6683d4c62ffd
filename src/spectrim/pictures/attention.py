"""Figures of attention by block: its correlation with the clusters of patches, and the attention of kept patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

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
from spectrim.stats.bootstrap import Estimate


def kendall_curves(rows: Sequence[Row], title: str = "", *, published: Mapping[str, float] | None = None) -> Figure:
    """Kendall correlation of score and cluster in each block, with its marks: see `forms`.

    Args:
        rows: of `spectrim.analysis.summary.Summary.rows`; those of Kendall's correlation are drawn.
        title: above the picture.
        published: data set → mean over blocks in the paper's form, drawn across the clusters of intensity.
    """
    forms = (
        ("kendall_paper", "the paper's form"),
        ("kendall_paper_expected_shuffled", "the paper's form, scores shuffled"),
        ("kendall_somers_d", "the share of the way from random to perfect (Somers' D)"),
        ("kendall_tau_b_values", "tau-b with the values themselves"),
    )
    kendall_rows = [row for row in rows if row["quantity"].startswith("kendall") and row["mean"] is not None]
    require_rows(kendall_rows, "Kendall correlations")
    statistics = list(dict.fromkeys(row["statistic"] for row in kendall_rows))
    figure = Figure(figsize=(3.6 * len(statistics), 3.3), layout="constrained")
    axes = figure.subplots(1, len(statistics), sharey=True, squeeze=False)[0]
    for axis, statistic in zip(axes, statistics, strict=True):
        for number, (form, name) in enumerate(forms):
            series_rows = [row for row in kendall_rows if row["quantity"] == form and row["statistic"] == statistic]
            _band(axis, [row["block"] for row in series_rows], series_rows, series_style(number), name)
        axis.axhline(0.0, color="0.25", linewidth=0.8)
        if published and statistic == "intensity":
            said = "published: " + ", ".join(f"{name} {mean:.2f}" for name, mean in published.items())
            for number, mean in enumerate(published.values()):
                label = "_" if number else said
                axis.axhline(mean, color="0.45", linewidth=0.9, linestyle=(0, (1, 2)), label=label)
        axis.set_title(f"clusters of {statistic}", fontsize=NORMAL, loc="left")
        _block_axis(axis)
    axes[0].set_ylabel("Kendall correlation with the score", fontsize=NORMAL)
    legend_below(figure, axes[0], columns=2)
    add_title(figure, title)
    return figure


def received_curves(ratio: Estimate, stages: Sequence[int], title: str = "") -> Figure:
    """Attention that kept patches receive in the dense model, over that of the others, block by block.

    Args:
        ratio: (stages, blocks), see `spectrim.analysis.ablations.attention_ratio`.
        stages: the pruning blocks.
        title: above the picture.
    """
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axis = figure.add_subplot()
    blocks = np.arange(ratio.mean.shape[1])
    for number, stage in enumerate(stages):
        style = series_style(number)
        ratio_rows = [
            {"mean": mean, "low": low, "high": high}
            for mean, low, high in zip(ratio.mean[number], ratio.low[number], ratio.high[number], strict=True)
        ]
        _band(axis, blocks, ratio_rows, style, f"kept after block {stage}")
        axis.axvline(stage, color=style[0], linewidth=0.8, linestyle=(0, (1, 2)))
    axis.axhline(1.0, color="0.25", linewidth=0.8)
    axis.set_yscale("log")
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    _block_axis(axis)
    axis.set_ylabel("attention of a kept patch / of one\nthat is gone (log scale)", fontsize=NORMAL)
    legend_below(figure, axis)
    add_title(figure, title)
    return figure


def _band(axis: Axes, along: Any, rows: Sequence[Row], style: tuple[str, str, str], name: str) -> None:
    """A line with its interval as a band."""
    colour, marker, dashes = style
    means = np.array([row["mean"] for row in rows], dtype=float)
    lengths = error_bar_lengths(rows)
    look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 4.0, "linestyle": dashes}
    axis.plot(along, means, linewidth=1.4, label=name, **look)
    axis.fill_between(along, means - lengths[0], means + lengths[1], color=colour, alpha=0.2, linewidth=0)
    axis.grid(axis="y", color="0.9", linewidth=0.6)
    axis.set_axisbelow(True)


def _block_axis(axis: Axes) -> None:
    axis.set_xlabel("block", fontsize=NORMAL)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    axis.tick_params(labelsize=SMALL, length=2.5)
