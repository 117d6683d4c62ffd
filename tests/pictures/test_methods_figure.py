"""The figure of several methods draws what the rows say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spectrim.errors import InvalidSetting
from spectrim.pictures.figures import STYLES, series_style
from spectrim.pictures.methods import methods_figure


def row(series: str, rate: float, macs: float, ms: float, value: float) -> dict[str, Any]:
    ends = {"low": value - 0.02, "high": value + 0.01, "ms_q1": ms - 0.1, "ms_q3": ms + 0.3}
    return {"series": series, "keep_rate": rate, "macs": macs, "ms": ms, "value": value, **ends}


ROWS = [row("dense", 1.0, 2e8, 5.0, 0.95)] + [
    row(name, rate, 2e8 * rate, 5.0 * rate, 0.95 * rate) for name in ("attention", "random") for rate in (0.7, 0.5)
]


def test_lines_begin_at_the_dense_model_in_both_panels() -> None:
    left, right = methods_figure(ROWS, metric="accuracy", title="of a_b").axes[:2]
    for axis, along in ((left, [200, 140, 100]), (right, [5.0, 3.5, 2.5])):
        lines = [line for line in axis.lines if line.get_marker() in ("o", "s") and len(line.get_xdata()) == 3]
        assert len(lines) == 2
        for line in lines:
            np.testing.assert_allclose(line.get_xdata(), along)
            np.testing.assert_allclose(line.get_ydata(), [95.0, 66.5, 47.5])
    assert left.get_xlabel() == "executed MACs of a clip (M)"


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="methods"):
        methods_figure([], metric="accuracy")


def test_more_series_than_colours_still_look_different() -> None:
    assert [series_style(number) for number in range(len(STYLES))] == list(STYLES)
    assert len({series_style(number) for number in range(3 * len(STYLES))}) == 3 * len(STYLES)
