"""Figure of accuracy against MACs, from table rows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from spectrim.errors import InvalidSetting
from spectrim.pictures.figures import LARGE, NORMAL, SMALL, series_style

POINT = 0.01
"""One point of a share."""

UNITS = ((1e9, "G"), (1e6, "M"), (1e3, "k"))
APART = 0.065
"""Least distance of two labels on the upper axis, as a share of its length."""

NUDGE = 0.006
"""Distance between series that would lie on each other, as a share of the range of MACs."""

Row = Mapping[str, Any]


def accuracy_curve(rows: Sequence[Row], *, metric: str = "accuracy", title: str = "", share: bool = True) -> Figure:
    """Draw a metric against the MACs of a clip.

    Each series is a line with the interval of each point. The dense model (keep rate 1) is a dashed line across, and
    one point below it a dotted one, in black where all series have the same dense model and else in their colours.
    Where a keep rate costs the same MACs in all series, the upper axis says keep rates and how many of the dense
    model's MACs they save; else each point says its keep rate. Series are set apart a little sideways, so that
    intervals do not hide each other.

    Args:
        rows: one a point: series (its name in the legend), keep_rate, macs, value, and low and high, the ends of its
            interval (None or NaN where there is none).
        metric: its name, for the axis.
        title: above the picture.
        share: the metric is a share, shown in %; else as it is and without the line one point below.

    Returns:
        The figure; `spectrim.pictures.figures.save_figure` writes it.

    Raises:
        InvalidSetting: there are no rows, or a value or number of MACs is not finite.
    """
    series = _checked(rows)
    scale = 100.0 if share else 1.0
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    axis = figure.add_subplot()
    unit, letter = next(((size, name) for size, name in UNITS if _most(rows) >= size), (1.0, ""))
    dense = {name: point for name, points in series.items() for point in points if point["keep_rate"] == 1.0}
    handles = draw_dense(axis, series, dense, scale) if dense else []
    wide = max(row["macs"] for row in rows) - min(row["macs"] for row in rows)
    drawn = []
    for number, (name, points) in enumerate(series.items()):
        nudge = NUDGE * wide * (number - (len(series) - 1) / 2)
        drawn.append(draw_series(axis, name, points, series_style(number), (nudge, unit, scale)))
    axis.set_xlabel(f"MACs of a clip{letter and f' ({letter})'}", fontsize=NORMAL)
    axis.set_ylabel(f"{metric}{' (%)' if share else ''}{_interval_note(rows)}", fontsize=NORMAL)
    axis.tick_params(labelsize=SMALL)
    axis.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
    axis.grid(axis="y", color="0.9", linewidth=0.6)
    axis.margins(x=0.06, y=0.08)
    axis.set_axisbelow(True)
    costs = {(row["keep_rate"], row["macs"]) for row in rows}
    if dense and len(costs) == len({row["keep_rate"] for row in rows}):
        draw_savings(axis, costs, next(iter(dense.values()))["macs"], unit)
    else:
        _name_points(axis, series, unit, scale)
    figure.legend(
        handles=[*drawn, *handles],
        loc="outside lower center",
        ncols=min(4, len(drawn) + len(handles)),
        fontsize=SMALL,
        frameon=False,
        handlelength=3.0,
    )
    if title:
        figure.suptitle(title, fontsize=LARGE, parse_math=False)
    return figure


def _checked(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Series by name, each ordered by MACs."""
    if not rows:
        raise InvalidSetting("rows", [], "at least one point to draw")
    series: dict[str, list[Row]] = {}
    for row in rows:
        for field in ("value", "macs"):
            if row[field] is None or not math.isfinite(row[field]):
                raise InvalidSetting(f"{field} at keep rate {row['keep_rate']:g}", row[field], "a finite number")
        series.setdefault(str(row["series"]), []).append(row)
    return {name: sorted(points, key=lambda row: row["macs"]) for name, points in series.items()}


def _most(rows: Sequence[Row]) -> float:
    return max(row["macs"] for row in rows)


def _ends(row: Row) -> tuple[float, float]:
    """Ends of the interval of a point, the value itself where there is none."""
    low, high = row.get("low"), row.get("high")
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return row["value"], row["value"]
    return low, high


def _interval_note(rows: Sequence[Row]) -> str:
    return ", bars: 95 % interval" if any(low < high for low, high in map(_ends, rows)) else ""


def draw_dense(axis: Axes, series: Mapping[str, Sequence[Row]], dense: Mapping[str, Row], scale: float) -> list[Line2D]:
    """Lines across at the dense value, and one point below it; returns what the legend shows."""
    values = {name: row["value"] for name, row in dense.items()}
    same_dense = len(set(values.values())) == 1
    colours = {name: series_style(number)[0] for number, name in enumerate(series)}
    for name, value in values.items():
        colour = "0.25" if same_dense else colours[name]
        axis.axhline(scale * value, color=colour, linewidth=1.0, linestyle=(0, (6, 3)), zorder=1)
        if scale == 100.0:
            axis.axhline(scale * (value - POINT), color=colour, linewidth=1.0, linestyle=(0, (1, 2)), zorder=1)
    value_text = f" ({scale * next(iter(values.values())):.{1 if scale == 100.0 else 3}f})" if same_dense else ""
    handles = [Line2D([], [], color="0.25", linewidth=1.0, linestyle=(0, (6, 3)), label=f"dense{value_text}")]
    if scale == 100.0:
        handles.append(Line2D([], [], color="0.25", linewidth=1.0, linestyle=(0, (1, 2)), label="one point below"))
    return handles


def draw_series(
    axis: Axes,
    name: str,
    points: Sequence[Row],
    style: tuple[str, str, str],
    place: tuple[float, float, float],
    cost: str = "macs",
) -> Line2D:
    """Draw a line with its intervals; returns what the legend shows.

    Args:
        axis: to draw on.
        name: of the series.
        points: ordered by cost.
        style: colour, marker, dashes.
        place: shift in MACs, MACs of the axis' unit, factor of the values.
        cost: what the axis shows: a column of the points, drawn with its spread where they have ``_q1`` and ``_q3``.
    """
    colour, marker, dashes = style
    nudge, unit, scale = place
    along = np.array([row[cost] + nudge for row in points]) / unit
    values = scale * np.array([row["value"] for row in points])
    ends = scale * np.array([_ends(row) for row in points]).T
    lengths = np.maximum(np.stack([values - ends[0], ends[1] - values]), 0.0)
    look: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 5.0, "linestyle": dashes, "linewidth": 1.4}
    axis.plot(along, values, zorder=3, **look)
    barred = lengths.sum(axis=0) > 0
    bars: dict[str, Any] = {"fmt": "none", "ecolor": colour, "elinewidth": 1.0, "capsize": 2.5, "zorder": 2}
    if barred.any():
        axis.errorbar(along[barred], values[barred], yerr=lengths[:, barred], **bars)
    if all(f"{cost}_q1" in row for row in points):
        sideways = np.array([(row[cost] - row[f"{cost}_q1"], row[f"{cost}_q3"] - row[cost]) for row in points]).T
        axis.errorbar(along, values, xerr=sideways / unit, **{**bars, "capsize": 0.0})
    return Line2D([], [], label=name, **look)


def draw_savings(axis: Axes, costs: Iterable[tuple[float, float]], whole: float, unit: float) -> None:
    """Mark on an upper axis each keep rate and the share of the dense model's MACs that it saves.

    Args:
        axis: the lower one.
        costs: keep rates and their MACs; of those that lie too close, the higher one is marked.
        whole: MACs of the dense model.
        unit: MACs of the lower axis' unit.
    """
    low, high = axis.get_xlim()
    marked: list[tuple[float, str]] = []
    for rate, macs in sorted(costs, reverse=True):
        place = macs / unit
        if not marked or marked[-1][0] - place >= APART * (high - low):
            marked.append((place, f"{rate:g}\n{100.0 * (1.0 - macs / whole):.0f} %"))
    upper = axis.secondary_xaxis("top")
    upper.set_xticks([place for place, _ in marked], [text for _, text in marked], fontsize=SMALL)
    upper.tick_params(length=2.5)
    upper.set_xlabel("keep rate, and share of the MACs that it saves", fontsize=NORMAL)


def _name_points(axis: Axes, series: Mapping[str, Sequence[Row]], unit: float, scale: float) -> None:
    """Write the keep rate below each point, to its right."""
    ground = {"boxstyle": "square,pad=0.05", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
    for number, points in enumerate(series.values()):
        for row in points:
            axis.annotate(
                f"{row['keep_rate']:g}",
                (row["macs"] / unit, scale * row["value"]),
                xytext=(5, -11),
                textcoords="offset points",
                fontsize=SMALL,
                color=series_style(number)[0],
                bbox=ground,
                zorder=4,
            )
