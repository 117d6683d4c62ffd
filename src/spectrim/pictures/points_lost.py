"""Figure of points lost: means with intervals and single runs, one panel a backbone, from table rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator, StrMethodFormatter

from spectrim.errors import InvalidSetting
from spectrim.pictures.figures import LARGE, NORMAL, SMALL, series_style

APART, BESIDE = 0.24, 4
"""Distance of two series of one label, in labels that so many series fill; with more, labels are higher."""

BELOW = 0.13
"""How far below its mean the single runs of a series lie, in such labels."""

WIDE, LINEAR = 20.0, 5.0
"""Where more points than the first are lost or gained, the axis is logarithmic beyond the second."""

TICKS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
"""Of such an axis, to both sides."""

Row = Mapping[str, Any]


def points_lost_figure(
    rows: Sequence[Row], *, against: str, least: float = 1.0, title: str = "", dots: str = "runs"
) -> Figure:
    """Draw points lost: one line a label, one colour and marker a series, one panel side by side for each group.

    Zero is a dashed line across, ``least`` points lost a dotted one. A mean has its interval; the single runs are
    small dots below it. Where losses are far apart, the axis is logarithmic beyond five points, and says so.

    Args:
        rows: one a mean: panel, label, series (its name in the legend), value, low and high (None or NaN where there
            is no interval), and runs, the values of the single runs; all in points lost.
        against: what zero stands for.
        least: points lost that are marked.
        title: above the picture.
        dots: what the single values are, for the legend.

    Returns:
        The figure; `spectrim.pictures.figures.save_figure` writes it.

    Raises:
        InvalidSetting: there are no rows, or a value is not finite.
    """
    _check(rows)
    panels, labels, series = (
        list(dict.fromkeys(str(row[name]) for row in rows)) for name in ("panel", "label", "series")
    )
    columns, higher = 2 * len(panels), max(1.0, len(series) / BESIDE)
    legend_rows = math.ceil((len(series) + 3) / columns)
    inches = (1.9 + 2.9 * len(panels), 1.3 + 0.2 * legend_rows + 0.42 * higher * len(labels))
    figure = Figure(figsize=inches, layout="constrained")
    axes = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for axis, panel in zip(axes, panels, strict=True):
        axis.axvline(0.0, color="0.25", linewidth=1.0, linestyle=(0, (6, 3)), zorder=1)
        axis.axvline(least, color="0.25", linewidth=1.0, linestyle=(0, (1, 2)), zorder=1)
        for row in rows:
            if row["panel"] == panel:
                number = series.index(str(row["series"]))
                place = labels.index(str(row["label"])) + APART / higher * (number - (len(series) - 1) / 2)
                _draw(axis, row, place, BELOW / higher, series_style(number))
        axis.set_title(panel, fontsize=NORMAL, parse_math=False)
        axis.tick_params(labelsize=SMALL)
        _scale(axis, rows)
        axis.grid(axis="x", color="0.9", linewidth=0.6)
        axis.set_axisbelow(True)
        note = f"\n(logarithmic beyond {LINEAR:g})" if axis.get_xscale() == "symlog" else ""
        axis.set_xlabel(f"points lost against {against}{note}", fontsize=NORMAL)
    axes[0].set_yticks(range(len(labels)), labels, fontsize=NORMAL)
    axes[0].set_ylim(len(labels) - 0.5, -0.5)
    whiskers = ", bar: 95 % interval" if any(_interval(row) for row in rows) else ""
    handles = [_handle(f"{name}{whiskers}", series_style(number)) for number, name in enumerate(series)]
    handles.append(Line2D([], [], color="0.25", marker=".", markersize=4.0, linestyle="none", label=dots))
    lines = [((0, (6, 3)), against), ((0, (1, 2)), f"{'one point' if least == 1.0 else f'{least:g} points'} lost")]
    handles += [Line2D([], [], color="0.25", linewidth=1.0, linestyle=dashes, label=name) for dashes, name in lines]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, fontsize=SMALL, frameon=False)
    if title:
        figure.suptitle(title, fontsize=LARGE, parse_math=False)
    return figure


def _scale(axis: Axes, rows: Sequence[Row]) -> None:
    """Make an axis linear, or logarithmic far from zero where points lie far apart."""
    farthest = max(abs(value) for row in rows for value in (row["value"], *row["runs"], *(_interval(row) or ())))
    if farthest <= WIDE:
        axis.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 5, 10]))
        return
    axis.set_xscale("symlog", linthresh=LINEAR, linscale=1.2)
    axis.xaxis.set_major_locator(FixedLocator([-tick for tick in TICKS[::-1]] + [0.0, *TICKS]))
    axis.xaxis.set_minor_locator(NullLocator())
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _check(rows: Sequence[Row]) -> None:
    if not rows:
        raise InvalidSetting("rows", [], "at least one mean to draw")
    for row in rows:
        if not all(math.isfinite(value) for value in (row["value"], *row["runs"])):
            raise InvalidSetting(f"value of {row['label']}", row["value"], "a finite number")


def _interval(row: Row) -> tuple[float, float] | None:
    low, high = row.get("low"), row.get("high")
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return None
    return low, high


def _draw(axis: Axes, row: Row, place: float, deeper: float, style: tuple[str, str, str]) -> None:
    colour, marker, _ = style
    ends = _interval(row)
    if ends is not None:
        lengths = [[max(row["value"] - ends[0], 0.0)], [max(ends[1] - row["value"], 0.0)]]
        axis.errorbar([row["value"]], [place], xerr=lengths, fmt="none", ecolor=colour, elinewidth=1.2, capsize=2.5)
    axis.plot([row["value"]], [place], color=colour, marker=marker, markersize=6.0, linestyle="none", zorder=4)
    below = [place + deeper] * len(row["runs"])
    axis.plot(row["runs"], below, color=colour, marker=".", markersize=4.0, linestyle="none", alpha=0.6, zorder=3)


def _handle(name: str, style: tuple[str, str, str]) -> Line2D:
    return Line2D([], [], color=style[0], marker=style[1], markersize=6.0, linestyle="none", label=name)
