"""Figure of several methods: accuracy over MACs and over measured time, side by side."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from spectrim.pictures.curves import UNITS, Row, draw_dense, draw_savings, draw_series
from spectrim.pictures.figures import NORMAL, SMALL, add_title, require_rows, series_style


def methods_figure(rows: Sequence[Row], *, metric: str, title: str = "", rates_of: str = "random") -> Figure:
    """Draw a metric over executed MACs of a clip and over milliseconds a clip.

    Every method is a line that begins at the dense model, with 95 % intervals over clips upwards and quartiles of the
    times sideways. Over the left panel stand the keep rates of one method and the MACs that they save.

    Args:
        rows: one a point: series, keep_rate, macs, ms with ms_q1 and ms_q3, value with low and high (None where there
            is no interval). The row of the dense model has the series ``"dense"``.
        metric: its name, a share.
        title: above both.
        rates_of: method whose MACs the keep rates are marked at.

    Raises:
        InvalidSetting: there are no rows.
    """
    require_rows(rows, "methods")
    dense = next(row for row in rows if row["series"] == "dense")
    series: dict[str, list[Row]] = {}
    for row in rows:
        if row is not dense:
            series.setdefault(row["series"], [dense]).append(row)
    figure = Figure(figsize=(9.6, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    unit, letter = next(((size, name) for size, name in UNITS if dense["macs"] >= size), (1.0, ""))
    across, drawn = [], []
    for axis, cost, scale in ((left, "macs", unit), (right, "ms", 1.0)):
        across = draw_dense(axis, {"dense": [dense]}, {"dense": dense}, 100.0)
        drawn = [
            draw_series(axis, name, _in_order(points), series_style(number), (0.0, scale, 100.0), cost)
            for number, (name, points) in enumerate(series.items())
        ]
        _furnish(axis)
    left.set_xlabel(f"executed MACs of a clip{letter and f' ({letter})'}", fontsize=NORMAL)
    right.set_xlabel("ms a clip, bars: quartiles", fontsize=NORMAL)
    left.set_ylabel(f"{metric} (%), bars: 95 % interval", fontsize=NORMAL)
    costs = {(row["keep_rate"], row["macs"]) for row in series.get(rates_of, [dense])}
    draw_savings(left, costs, dense["macs"], unit)
    figure.legend(
        handles=[*drawn, *across],
        loc="outside lower center",
        ncols=5,
        fontsize=SMALL,
        frameon=False,
        handlelength=3.0,
    )
    add_title(figure, title)
    return figure


def _in_order(points: Sequence[Row]) -> list[Row]:
    """Points by their keep rate: the order of their MACs, and not always that of times, which are noisy."""
    return sorted(points, key=lambda row: -row["keep_rate"])


def _furnish(axis: Axes) -> None:
    axis.tick_params(labelsize=SMALL)
    axis.yaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10]))
    axis.grid(color="0.9", linewidth=0.6)
    axis.margins(x=0.05, y=0.05)
    axis.set_axisbelow(True)
