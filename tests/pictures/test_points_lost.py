from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import ErrorbarContainer

from spectrim.errors import InvalidSetting
from spectrim.pictures.figures import STYLES
from spectrim.pictures.points_lost import points_lost_figure


def row(label: str, value: float, half: float = math.nan, **changes: Any) -> dict[str, Any]:
    ends = {"low": value - half, "high": value + half, "runs": [value - 1, value + 1]}
    return {"panel": "AST", "label": label, "series": "keep rate 0.7", "value": value, **ends, **changes}


ROWS = [row("intensity", 2.0, 1.5), row("random", -0.5), row("intensity", 8.0, 2.0, panel="AudioMAE")]


def means(axis: Axes) -> list[tuple[float, float]]:
    """(points lost, place) of every mean in a panel."""
    markers = {marker for _, marker, _ in STYLES}
    lines = [line for line in axis.get_lines() if line.get_marker() in markers and len(line.get_xdata()) == 1]
    return [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in lines]


def test_means_lie_at_their_loss_in_the_panel_of_their_group() -> None:
    first, second = points_lost_figure(ROWS, against="attention").axes
    assert (first.get_title(), second.get_title()) == ("AST", "AudioMAE")
    assert [tick.get_text() for tick in first.get_yticklabels()] == ["intensity", "random"]
    assert means(first) == [(2.0, 0.0), (-0.5, 1.0)]
    assert means(second) == [(8.0, 0.0)]
    assert first.get_xlim() == second.get_xlim()
    assert first.get_ylim() == (1.5, -0.5)


def test_bars_reach_to_the_ends_of_intervals_and_are_absent_where_there_is_none() -> None:
    first = points_lost_figure(ROWS, against="attention").axes[0]
    (bar,) = [box for box in first.containers if isinstance(box, ErrorbarContainer)]
    (segment,) = bar.lines[2][0].get_segments()
    assert segment[:, 0].tolist() == [0.5, 3.5]


def test_the_runs_are_dots_below_their_mean() -> None:
    first = points_lost_figure(ROWS, against="attention").axes[0]
    dots = [line for line in first.get_lines() if line.get_marker() == "."]
    assert [list(line.get_xdata()) for line in dots] == [[1.0, 3.0], [-1.5, 0.5]]
    assert all(0.0 < line.get_ydata()[0] - place < 0.5 for line, place in zip(dots, (0, 1), strict=True))


def test_zero_and_one_point_are_lines_and_the_legend_names_them() -> None:
    figure = points_lost_figure(ROWS, against="attention")
    across = [line.get_xdata()[0] for line in figure.axes[0].get_lines() if list(line.get_ydata()) == [0, 1]]
    assert across == [0.0, 1.0]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        *("keep rate 0.7, bar: 95 % interval", "runs", "attention", "one point lost")
    ]
    assert {axis.get_xlabel() for axis in figure.axes} == {"points lost against attention"}
    (legend,) = points_lost_figure([row("random", -0.5)], against="attention", dots="speakers").legends
    assert legend.get_texts()[1].get_text() == "speakers"
    assert legend.get_texts()[0].get_text() == "keep rate 0.7"


def test_series_differ_in_colour_marker_and_place() -> None:
    rows = [row("intensity", 2.0, 1.5), row("intensity", 5.0, 1.5, series="keep rate 0.5")]
    axis = points_lost_figure(rows, against="attention").axes[0]
    (first, second) = [line for line in axis.get_lines() if line.get_marker() in "os" and len(line.get_xdata()) == 1]
    assert first.get_color() != second.get_color()
    assert first.get_marker() != second.get_marker()
    assert first.get_ydata()[0] < second.get_ydata()[0]


@pytest.mark.parametrize("number", [4, 10])
def test_any_number_of_series_stays_at_its_label(number: int) -> None:
    rows = [row(label, 2.0, series=f"s{one}") for label in ("a", "b") for one in range(number)]
    figure = points_lost_figure(rows, against="attention")
    places = [place for _, place in means(figure.axes[0])]
    assert places == sorted(places) and len(set(places)) == 2 * number
    assert [round(place) for place in places] == [0] * number + [1] * number
    assert np.diff(places).min() == pytest.approx(0.24 * min(1.0, 4 / number))
    assert [text.get_text() for text in figure.legends[0].get_texts()[:number]] == [f"s{one}" for one in range(number)]


@pytest.mark.parametrize(("farthest", "scale"), [(19.0, "linear"), (41.0, "symlog"), (-41.0, "symlog")])
def test_the_axis_is_logarithmic_far_from_zero_where_losses_are_far_apart(farthest: float, scale: str) -> None:
    axis = points_lost_figure([*ROWS, row("public", farthest)], against="attention").axes[0]
    assert axis.get_xscale() == scale
    assert ("logarithmic beyond 5" in axis.get_xlabel()) == (scale == "symlog")


@pytest.mark.parametrize("far", [3.0, 42.0])
@pytest.mark.parametrize("panels", [("AST on ESC-50",), ("AST on ESC-50", "AudioMAE on ESC-50")])
@pytest.mark.parametrize("title", ["", "A title"])
def test_no_text_lies_on_another(title: str, panels: tuple[str, ...], far: float) -> None:
    names = ["control: all patches", "intensity", "variation", "random", "intensity, public gather"]
    rows = [
        row(name, value * far / 3, 3.0, panel=panel, series=f"{how}, keep rate 0.7")
        for panel in panels
        for how in ("fine-tuned", "training-free")
        for value, name in enumerate(names)
    ]
    figure = points_lost_figure(rows, against="attention", title=title)
    FigureCanvasAgg(figure).draw()
    low, high = figure.axes[0].get_xlim()
    texts = [text for axis in figure.axes for text in axis.get_xticklabels() if low <= text.get_position()[0] <= high]
    texts += [*figure.legends[0].get_texts(), *figure.axes[0].get_yticklabels()]
    texts += [text for axis in figure.axes for text in (axis.title, axis.xaxis.label)]
    texts += [figure._suptitle] if title else []
    boxes = [(text.get_text(), text.get_window_extent()) for text in dict.fromkeys(texts) if text.get_text().strip()]
    for number, (name, box) in enumerate(boxes):
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 and box.y1 <= figure.bbox.y1, name
        for other, theirs in boxes[number + 1 :]:
            assert not box.padded(-0.5).overlaps(theirs.padded(-0.5)), (name, other)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "at least one mean"),
        ([row("x", math.nan)], "value of x is nan; allowed: a finite number"),
        ([row("x", 1.0, runs=[math.inf])], "a finite number"),
    ],
)
def test_what_cannot_be_drawn_is_refused(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        points_lost_figure(rows, against="attention")
