"""The figure of a search draws what the rows say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from spectrim.errors import InvalidSetting
from spectrim.pictures.front import front_figure


def row(method: str, kind: str, speed: float, drop: float, **further: Any) -> dict[str, Any]:
    spread = {"speed_up_q1": speed - 0.1, "speed_up_q3": speed + 0.1}
    return {"method": method, "kind": kind, "speed_up": speed, "drop": drop, "on_front": False, **spread, **further}


HELD = {"held_drop": 0.02, "held_drop_low": -0.01, "held_drop_high": 0.04}
ROWS = [
    row("dense", "dense", 1.0, 0.0, on_front=True, held_drop=0.0, held_drop_low=0.0, held_drop_high=0.0),
    row("attention", "uniform", 1.3, 0.05),
    row("attention", "tuned", 1.4, 0.01, on_front=True, chosen=True, **HELD),
    row("variation", "tuned", 1.8, 0.03, on_front=True, **HELD),
]


def test_the_front_and_the_chosen_point_are_on_both_sides() -> None:
    left, right = front_figure(ROWS, metric="accuracy", title="of a_b", max_drop=1.0).axes
    front = next(line for line in left.lines if len(line.get_xdata()) == 3)
    np.testing.assert_allclose(front.get_xdata(), [1.0, 1.4, 1.8])
    np.testing.assert_allclose(front.get_ydata(), [0.0, -1.0, -3.0])
    for axis, lost in ((left, 1.0), (right, 2.0)):
        (star,) = (line for line in axis.lines if line.get_marker() == "*")
        assert (star.get_xdata()[0], star.get_ydata()[0]) == pytest.approx((1.4, -lost))


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="points"):
        front_figure([], metric="accuracy")
