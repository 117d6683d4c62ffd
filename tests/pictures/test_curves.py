"""The curve shows what its rows say, whoever made them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text

from spectrim.backbones import ast_base
from spectrim.errors import InvalidSetting
from spectrim.network.macs import macs
from spectrim.pictures.curves import accuracy_curve
from spectrim.pictures.figures import STYLES, save_figure

RATES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)


def rows(
    series: str = "cls_attention", *, loss: float = 0.05, width: int = 768, top: float = 0.95
) -> list[dict[str, Any]]:
    config = ast_base(hidden_size=width, num_attention_heads=12, intermediate_size=4 * width)
    found = []
    for rate in RATES:
        value = top - loss * (1 - rate)
        count = macs(config, keep_rate=rate).paper
        found.append(
            {
                "series": series,
                "keep_rate": rate,
                "macs": count,
                "value": value,
                "low": value - 0.02,
                "high": value + 0.01,
            }
        )
    return found


def axes_of(figure: Figure) -> Axes:
    return figure.axes[0]


def curves(axis: Axes) -> list[Line2D]:
    return [line for line in axis.get_lines() if len(line.get_xdata()) > 2 and line.get_linestyle() != "None"]


def levels(axis: Axes) -> list[float]:
    """Heights of the lines across, falling."""
    across = [line for line in axis.get_lines() if len(line.get_xdata()) == 2 and line.get_xdata()[0] == 0]
    return sorted({float(line.get_ydata()[0]) for line in across}, reverse=True)


def legend(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_points_lie_at_their_macs_and_values() -> None:
    given = rows()
    figure = accuracy_curve(list(reversed(given)))
    (line,) = curves(axes_of(figure))
    expected = sorted((row["macs"] / 1e9, 100 * row["value"]) for row in given)
    np.testing.assert_allclose(np.column_stack([line.get_xdata(), line.get_ydata()]), expected)
    assert axes_of(figure).get_xlabel() == "MACs of a clip (G)"
    assert axes_of(figure).get_ylabel() == "accuracy (%), bars: 95 % interval"


def test_bars_reach_to_the_ends_of_the_intervals() -> None:
    given = rows()
    given[2] |= {"low": None, "high": None}
    given[3] |= {"low": math.nan, "high": math.nan}
    (bars,) = [one for one in axes_of(accuracy_curve(given)).collections if isinstance(one, LineCollection)]
    ends = sorted((float(low), float(high)) for (_, low), (_, high) in bars.get_segments())
    expected = sorted((100 * row["low"], 100 * row["high"]) for row in [*given[:2], *given[4:]])
    np.testing.assert_allclose(ends, expected)


def test_without_intervals_nothing_is_said_of_them() -> None:
    given = [{**row, "low": None, "high": None} for row in rows()]
    figure = accuracy_curve(given, metric="mAP")
    assert axes_of(figure).get_ylabel() == "mAP (%)"
    assert not axes_of(figure).collections


def test_the_dense_model_and_the_point_below_it_are_lines_across() -> None:
    figure = accuracy_curve(rows())
    assert levels(axes_of(figure)) == pytest.approx([95.0, 94.0])
    assert legend(figure) == ["cls_attention", "dense (95.0)", "one point below"]


def test_a_metric_that_is_no_share_has_no_points() -> None:
    figure = accuracy_curve([{**row, "value": 20 * row["value"]} for row in rows()], metric="d-prime", share=False)
    assert levels(axes_of(figure)) == pytest.approx([19.0])
    assert legend(figure) == ["cls_attention", "dense (19.000)"]
    assert axes_of(figure).get_ylabel().startswith("d-prime")


def test_the_upper_axis_says_keep_rates_and_what_they_save() -> None:
    given = rows()
    (upper,) = axes_of(accuracy_curve(given)).child_axes
    dense = given[0]["macs"]
    shown = dict(zip((label.get_text() for label in upper.get_xticklabels()), upper.get_xticks(), strict=True))
    expected = {
        f"{row['keep_rate']:g}\n{100 * (dense - row['macs']) / dense:.0f} %": row["macs"] / 1e9 for row in given
    }
    assert shown == pytest.approx(expected)
    assert "0.5\n51 %" in shown


def test_series_that_share_their_costs_share_the_upper_axis_even_if_one_lacks_the_dense_point() -> None:
    trained, free = rows("fine-tuned"), rows("training-free", loss=0.2)[1:]
    figure = accuracy_curve([*trained, *free])
    assert len(axes_of(figure).child_axes) == 1
    assert levels(axes_of(figure)) == pytest.approx([95.0, 94.0])
    one, other = curves(axes_of(figure))
    shifts = np.array(other.get_xdata()) - np.array(one.get_xdata())[: len(free)]
    assert (shifts > 0).all()
    assert shifts.max() < 0.02 * np.ptp(one.get_xdata())


def test_models_of_other_sizes_name_their_points_and_have_their_own_dense_lines() -> None:
    figure = accuracy_curve([*rows("base"), *rows("small", width=384, top=0.9)])
    axis = axes_of(figure)
    assert not axis.child_axes
    assert [text.get_text() for text in axis.texts] == 2 * [f"{rate:g}" for rate in sorted(RATES)]
    assert levels(axis) == pytest.approx([95.0, 94.0, 90.0, 89.0])
    assert legend(figure)[2:] == ["dense", "one point below"]


def test_series_differ_in_colour_marker_and_dashes() -> None:
    given = [row for number in range(len(STYLES)) for row in rows(f"s{number}", loss=0.01 * number)]
    lines = curves(axes_of(accuracy_curve(given)))
    assert len({to_rgb(line.get_color()) for line in lines}) == len(lines) == 7
    assert len({line.get_marker() for line in lines}) == 7


@pytest.mark.parametrize("width", [768, 384])
def test_any_number_of_series_is_drawn_and_told_apart(width: int) -> None:
    """With other sizes among them, points and dense lines have the colours of their series too."""
    sizes = [width if number == 9 else 768 for number in range(16)]
    given = [row for number in range(16) for row in rows(f"s{number}", loss=0.01 * number, width=sizes[number])]
    figure = accuracy_curve(given)
    lines = curves(axes_of(figure))
    assert len({(line.get_color(), line.get_marker(), line.get_linestyle()) for line in lines}) == len(lines) == 16
    assert legend(figure)[:16] == [f"s{number}" for number in range(16)]
    at_half = [100 * row["value"] for row in given if row["keep_rate"] == 0.5]
    assert [line.get_ydata()[2] for line in lines] == pytest.approx(at_half)
    assert len(axes_of(figure).texts) == (16 * len(RATES) if width == 384 else 0)


@pytest.mark.parametrize("unit", [("M", 1e6), ("G", 1e9), ("k", 1e3)])
def test_macs_are_shown_in_a_unit_of_their_size(unit: tuple[str, float]) -> None:
    letter, size = unit
    given = [{**row, "macs": size * 120 * rate} for row, rate in zip(rows(), RATES, strict=True)]
    axis = axes_of(accuracy_curve(given))
    assert axis.get_xlabel() == f"MACs of a clip ({letter})"
    assert max(curves(axis)[0].get_xdata()) == pytest.approx(120)


def texts(figure: Figure) -> list[Text]:
    """All that can be read; ticks beyond the end of an axis cannot."""
    axis = axes_of(figure)
    unseen = []
    for scale in (axis.xaxis, axis.yaxis, *(upper.xaxis for upper in axis.child_axes)):
        low, high = scale.get_view_interval()
        ticks = [*scale.get_major_ticks(), *scale.get_minor_ticks()]
        unseen += [text for tick in ticks if not low <= tick.get_loc() <= high for text in (tick.label1, tick.label2)]
    return [
        text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip() and text not in unseen
    ]


@pytest.mark.parametrize("title", ["", "spectrim-mini on spoken-commands, $test"])
def test_no_text_lies_on_another(title: str, tmp_path: Path) -> None:
    figure = accuracy_curve([*rows(), *rows("intensity", loss=0.1), *rows("random", loss=0.3)], title=title)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer = canvas.get_renderer()
    boxes = [(text.get_text(), text.get_window_extent(renderer)) for text in texts(figure)]
    for number, (name, box) in enumerate(boxes):
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0 and box.y1 <= figure.bbox.y1, name
        for other, theirs in boxes[number + 1 :]:
            assert not box.padded(-0.5).overlaps(theirs.padded(-0.5)), (name, other)


def test_close_keep_rates_are_not_all_marked() -> None:
    given = rows()
    given += [{**given[-1], "keep_rate": 0.29, "macs": given[-1]["macs"] * 0.999}]
    (upper,) = axes_of(accuracy_curve(given)).child_axes
    shown = [label.get_text().split("\n")[0] for label in upper.get_xticklabels()]
    assert "0.3" in shown
    assert "0.29" not in shown


def test_it_leaves_no_trace_in_pyplot_and_is_saved_whole(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    figure = accuracy_curve(rows())
    for ending in ("png", "svg"):
        save_figure(figure, tmp_path / f"curve.{ending}")
    assert not pyplot.get_fignums()
    assert dict(matplotlib.rcParams) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curve.png", "curve.svg"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "rows is"),
        ([{**rows()[0], "value": math.nan}], "value at keep rate 1 is nan"),
        ([{**rows()[0], "macs": math.inf}], "macs at keep rate 1 is inf"),
    ],
)
def test_what_cannot_be_drawn_is_refused(given: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        accuracy_curve(given)
