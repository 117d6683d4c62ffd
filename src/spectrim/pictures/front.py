"""Figure of a search: what each point loses against how fast it is, and the front of those that no other beats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from spectrim.pictures.figures import NORMAL, SMALL, add_title, require_rows, series_style

Row = Mapping[str, Any]


def front_figure(rows: Sequence[Row], *, metric: str, title: str = "", max_drop: float | None = None) -> Figure:
    """Draw what is lost over how many times as fast as the dense model a point is, on both halves of the clips.

    Left the half that points were chosen on: every method has its colour; points of one keep rate at the model's own
    blocks are hollow and joined by a thin line; the front is a line through the points that none beats. Right the
    held-out half: the front and the chosen point again, with 95 % intervals, where the flattery of choosing is gone.

    Args:
        rows: the dense model first: method, kind (``"dense"``, ``"uniform"`` or ``"tuned"``), speed_up with _q1 and
            _q3, drop (a share), on_front, chosen; held_drop with _low and _high, or None.
        metric: its name.
        title: above both.
        max_drop: points that may be lost, drawn across.

    Raises:
        InvalidSetting: there are no rows.
    """
    require_rows(rows, "points")
    methods = [method for method in dict.fromkeys(row["method"] for row in rows) if method != "dense"]
    colours = {method: series_style(number)[0] for number, method in enumerate(methods)}
    marks = {method: series_style(number)[1] for number, method in enumerate(methods)}
    figure = Figure(figsize=(9.6, 5.0), layout="constrained")
    left, right = figure.subplots(1, 2, sharex=True, sharey=True)
    for method in methods:
        uniform = [row for row in rows if row["method"] == method and row["kind"] == "uniform"]
        tuned = [row for row in rows if row["method"] == method and row["kind"] == "tuned"]
        line: dict[str, Any] = {"color": colours[method], "linewidth": 0.8, "linestyle": ":"}
        left.plot(*_along(sorted(uniform, key=lambda row: row["speed_up"])), marker=marks[method], mfc="white", **line)
        left.plot(*_along(tuned), marker=marks[method], color=colours[method], linestyle="")
    best = sorted((row for row in rows if row["on_front"]), key=lambda row: row["speed_up"])
    left.plot(*_along(best), color="0.25", linewidth=1.4, zorder=1)
    held = [row for row in best if row.get("held_drop") is not None]
    right.plot(*_along(held, "held_drop"), color="0.25", linewidth=1.4, zorder=1)
    for row in rows:
        if row.get("held_drop") is not None and row["method"] != "dense":
            _point(right, row, colours[row["method"]], marks[row["method"]])
    for axis, name in ((left, "drop"), (right, "held_drop")):
        for row in rows:
            if row.get("chosen") and row.get(name) is not None:
                axis.plot(row["speed_up"], -100 * row[name], "*", ms=17, mfc="none", mec="black", mew=1.4, zorder=5)
        _furnish(axis, max_drop)
    left.set_title("half of the clips to choose on", fontsize=NORMAL)
    right.set_title("held-out half, bars: 95 % interval", fontsize=NORMAL)
    left.set_ylabel(f"{metric} against the dense model (points)", fontsize=NORMAL)
    figure.legend(handles=_legend(colours, marks), loc="outside lower center", ncols=5, fontsize=SMALL, frameon=False)
    add_title(figure, title)
    return figure


def _along(rows: Sequence[Row], name: str = "drop") -> tuple[list[float], list[float]]:
    return [row["speed_up"] for row in rows], [-100 * row[name] for row in rows]


def _point(axis: Axes, row: Row, colour: str, mark: str) -> None:
    """A point with the interval of its drop, where there is one, and quartiles of its speed."""
    hollow = "white" if row["kind"] == "uniform" else colour
    look: dict[str, Any] = {"marker": mark, "color": colour, "mfc": hollow, "elinewidth": 0.9, "capsize": 2.0}
    across = [[row["speed_up"] - row["speed_up_q1"]], [row["speed_up_q3"] - row["speed_up"]]]
    up = None
    if row["held_drop_low"] is not None and row["held_drop_high"] is not None:
        low, high = row["held_drop"] - row["held_drop_low"], row["held_drop_high"] - row["held_drop"]
        up = [[100 * max(high, 0.0)], [100 * max(low, 0.0)]]
    axis.errorbar(row["speed_up"], -100 * row["held_drop"], xerr=across, yerr=up, linestyle="", **look)


def _furnish(axis: Axes, max_drop: float | None) -> None:
    axis.axhline(0.0, color="0.25", linewidth=1.0, linestyle=(0, (6, 3)), zorder=0)
    axis.axvline(1.0, color="0.25", linewidth=1.0, linestyle=(0, (6, 3)), zorder=0)
    if max_drop is not None:
        axis.axhline(-max_drop, color="0.25", linewidth=1.0, linestyle=(0, (1, 2)), zorder=0)
    axis.set_xlabel("times as fast as the dense model, measured", fontsize=NORMAL)
    axis.tick_params(labelsize=SMALL)
    axis.grid(color="0.9", linewidth=0.6)
    axis.set_axisbelow(True)


def _legend(colours: Mapping[str, str], marks: Mapping[str, str]) -> list[Line2D]:
    handles = [Line2D([], [], color=colours[name], marker=marks[name], linestyle="", label=name) for name in colours]
    hollow: dict[str, Any] = {"color": "0.25", "marker": "o", "linestyle": ":", "linewidth": 0.8}
    handles.append(Line2D([], [], mfc="white", label="one keep rate, the model's own blocks", **hollow))
    handles.append(Line2D([], [], color="0.25", linewidth=1.4, label="front"))
    star: dict[str, Any] = {"marker": "*", "ms": 12, "mfc": "none", "mec": "black", "linestyle": ""}
    handles.append(Line2D([], [], label="chosen", **star))
    return handles
