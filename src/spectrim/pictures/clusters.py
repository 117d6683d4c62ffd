"""Figures of clusters of patches: sizes and bounds, density of their patches, and the share kept of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from spectrim.pictures.figures import (
    NORMAL,
    SMALL,
    STYLES,
    Row,
    add_title,
    error_bar_lengths,
    legend_below,
    require_rows,
)
from spectrim.stats.bootstrap import Estimate

CLUSTER_COLOURS = ("#08306b", "#2f79b5", "#8fb8d8", "#f0a04b", "#b5460f")
"""C1 … C5: dark blue over light blue to orange; apart in lightness from their neighbours."""

STATISTIC_NAMES = {"intensity": "mean (intensity)", "variation": "standard deviation (variation)"}
UNIT = "normalised log-mel units"
DENSITY_COLOURS = matplotlib.colormaps["cividis"]
FRACTION_ABOVE = 0.01
"""Share of the filled bins that may lie above the lightest colour; silence fills one bin more than all others."""


def cluster_bar(
    counts: Mapping[str, NDArray[np.integer]], bounds: Mapping[str, NDArray[np.floating]], title: str = ""
) -> Figure:
    """Patches of each cluster as one bar a statistic, with the upper bounds of the clusters.

    Args:
        counts: statistic → (clusters,) patches.
        bounds: statistic → (clusters − 1,), normalised log-mel units.
        title: above the picture.
    """
    figure = Figure(figsize=(6.4, 0.75 + 0.85 * len(counts)), layout="constrained")
    axes = figure.subplots(len(counts), 1, squeeze=False)[:, 0]
    for axis, (statistic, sizes) in zip(axes, counts.items(), strict=True):
        shares = sizes / sizes.sum()
        begin = 0.0
        for number, (share, colour) in enumerate(zip(shares, CLUSTER_COLOURS, strict=True)):
            axis.barh(0, share, left=begin, color=colour, edgecolor="white", linewidth=0.8, height=0.7)
            if share > 0.05:
                shade = "black" if number in (2, 3) else "white"
                text = f"C{number + 1}\n{share:.0%}"
                axis.text(begin + share / 2, 0, text, ha="center", va="center", fontsize=SMALL, color=shade)
            begin += share
        edges = np.cumsum(shares)[:-1]
        _bound_labels(axis, edges, bounds[statistic])
        axis.set(xlim=(0, 1), ylim=(-0.38, 0.38), yticks=[])
        axis.spines[:].set_visible(False)
        axis.set_title(f"{STATISTIC_NAMES[statistic]}: {int(sizes.sum()):,} patches", fontsize=NORMAL, loc="left")
    axes[-1].set_xlabel(f"upper bounds of the clusters ({UNIT})", fontsize=NORMAL)
    add_title(figure, title)
    return figure


def _bound_labels(axis: Axes, places: NDArray[np.floating], bounds: NDArray[np.floating]) -> None:
    """Ticks at the clusters' ends; what would overlap is left out."""
    ticks: list[tuple[float, str]] = []
    for place, bound in zip(places, bounds, strict=True):
        if not ticks or place - ticks[-1][0] > 0.055:
            ticks.append((float(place), f"{bound:.2f}"))
    axis.set_xticks([place for place, _ in ticks], [text for _, text in ticks], fontsize=SMALL)
    axis.tick_params(length=2.5)


def density_maps(
    density: NDArray[np.integer],
    stages: Sequence[int],
    bounds: Mapping[str, NDArray[np.floating]],
    edges: tuple[NDArray[np.floating], NDArray[np.floating]],
    title: str = "",
) -> Figure:
    """Heat maps of the patches over (mean, standard deviation): all that enter, and those left after each stage.

    All maps have one logarithmic scale, share of the stage's patches in a bin, so that shapes can be compared. Dashed
    lines are bounds of clusters.

    Args:
        density: (1 + stages, bins of mean, bins of deviation) patches.
        stages: the pruning blocks.
        bounds: statistic → bounds of its clusters.
        edges: of the bins of mean and of deviation.
        title: above the picture.
    """
    shares = density / np.maximum(density.sum(axis=(1, 2), keepdims=True), 1)
    require_rows(list(shares[shares > 0]), "patches")
    names = ["input", *(f"kept after block {block}" for block in stages)]
    figure = Figure(figsize=(2.15 * len(names) + 1.0, 2.75), layout="constrained")
    axes = figure.subplots(1, len(names), sharex=True, sharey=True, squeeze=False)[0]
    filled = np.argwhere(density[0] > 0)
    low, high = filled.min(axis=0), filled.max(axis=0) + 1
    filled_shares = shares[shares > 0]
    brightest = float(np.quantile(filled_shares, 1 - FRACTION_ABOVE))
    scale = LogNorm(min(filled_shares.min(), brightest / 2), brightest, clip=True)
    for axis, share, name, number in zip(axes, shares, names, density.sum(axis=(1, 2)), strict=True):
        shown = np.ma.masked_equal(share.T, 0.0)
        axis.pcolormesh(edges[0], edges[1], shown, norm=scale, cmap=DENSITY_COLOURS, rasterized=True)
        for bound in bounds["intensity"]:
            axis.axvline(bound, color="0.45", linewidth=0.6, linestyle=(0, (3, 2)))
        for bound in bounds["variation"]:
            axis.axhline(bound, color="0.45", linewidth=0.6, linestyle=(0, (3, 2)))
        axis.set(xlim=(edges[0][low[0]], edges[0][high[0]]), ylim=(edges[1][low[1]], edges[1][high[1]]))
        axis.set_title(f"{name}\n{int(number):,} patches", fontsize=SMALL, loc="left")
        axis.tick_params(labelsize=SMALL, length=2.5)
    figure.supxlabel(f"mean of a patch ({UNIT})", fontsize=NORMAL)
    axes[0].set_ylabel("standard deviation", fontsize=NORMAL)
    bar = figure.colorbar(ScalarMappable(scale, DENSITY_COLOURS), ax=list(axes), extend="max", pad=0.015, aspect=22)
    bar.ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
    bar.ax.yaxis.set_minor_formatter(NullFormatter())
    bar.set_label("share of the patches", fontsize=NORMAL)
    bar.ax.tick_params(labelsize=SMALL, length=2.5)
    add_title(figure, title)
    return figure


def kept_by_cluster(rows: Sequence[Row], title: str = "") -> Figure:
    """Share of each cluster's patches that is left after each stage, with intervals; what all patches keep is dashed.

    Args:
        rows: of `spectrim.analysis.summary.Summary.rows`.
        title: above the picture.
    """
    share_rows = [row for row in rows if row["quantity"] == "kept_share" and row["mean"] is not None]
    require_rows(share_rows, "kept shares")
    kept = {row["stage"]: row["mean"] for row in rows if row["quantity"] == "kept_patches"}
    statistics = list(dict.fromkeys(row["statistic"] for row in share_rows))
    blocks = {row["stage"]: row["block"] for row in share_rows}
    figure = Figure(figsize=(3.7 * len(statistics), 3.1), layout="constrained")
    axes = figure.subplots(1, len(statistics), sharey=True, squeeze=False)[0]
    for axis, statistic in zip(axes, statistics, strict=True):
        for number, colour in enumerate(CLUSTER_COLOURS, 1):
            cluster_rows = [row for row in share_rows if row["statistic"] == statistic and row["cluster"] == number]
            if not cluster_rows:
                continue
            places = np.array([row["stage"] for row in cluster_rows]) + 0.16 * (number - 3)
            means = 100 * np.array([row["mean"] for row in cluster_rows])
            axis.bar(places, means, width=0.16, color=colour, edgecolor="white", linewidth=0.4, label=f"C{number}")
            axis.errorbar(
                places,
                means,
                yerr=100 * error_bar_lengths(cluster_rows),
                fmt="none",
                ecolor="0.2",
                elinewidth=0.8,
                capsize=1.5,
            )
        for stage in blocks:
            share = 100 * kept[stage] / kept[0]
            axis.hlines(share, stage - 0.42, stage + 0.42, color="black", linewidth=1.2, linestyle=(0, (4, 2)))
        axis.set_xticks(list(blocks), [f"after block {block}" for block in blocks.values()])
        axis.set_title(f"clusters of {statistic}", fontsize=NORMAL, loc="left")
        axis.tick_params(labelsize=SMALL, length=2.5)
        axis.grid(axis="y", color="0.9", linewidth=0.6)
        axis.set_axisbelow(True)
    axes[0].set_ylabel("patches left of the cluster (%)", fontsize=NORMAL)
    handles, names = axes[0].get_legend_handles_labels()
    handles.append(Line2D([], [], color="black", linewidth=1.2, linestyle=(0, (4, 2))))
    figure.legend(handles, [*names, "all patches"], loc="outside lower center", ncols=6, fontsize=SMALL, frameon=False)
    add_title(figure, title)
    return figure


def low_patches(groups: Mapping[str, Estimate], stages: Sequence[str], title: str = "") -> Figure:
    """Share of the low-intensity patches that each model has left after each stage.

    Args:
        groups: name of the model → its share, (stages,).
        stages: names of the stages.
        title: above the picture.
    """
    require_rows(list(groups), "models")
    figure = Figure(figsize=(5.2, 3.2), layout="constrained")
    axis = figure.add_subplot()
    width = 0.8 / len(groups)
    for number, (name, share) in enumerate(groups.items()):
        places = np.arange(len(stages)) + width * (number - (len(groups) - 1) / 2)
        colour = STYLES[number % len(STYLES)][0]
        lengths = 100 * np.nan_to_num(np.stack([share.mean - share.low, share.high - share.mean])).clip(0.0)
        axis.bar(places, 100 * share.mean, width=0.92 * width, color=colour, label=name)
        axis.errorbar(places, 100 * share.mean, yerr=lengths, fmt="none", ecolor="0.15", elinewidth=0.9, capsize=2.0)
    axis.set_xticks(range(len(stages)), list(stages))
    axis.set_ylabel("low-intensity patches (C1+C2) left (%)", fontsize=NORMAL)
    axis.tick_params(labelsize=SMALL, length=2.5)
    axis.grid(axis="y", color="0.9", linewidth=0.6)
    axis.set_axisbelow(True)
    legend_below(figure, axis)
    add_title(figure, title)
    return figure
