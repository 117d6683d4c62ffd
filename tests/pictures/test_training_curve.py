from __future__ import annotations

import math

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from spectrim.errors import InvalidSetting
from spectrim.pictures.training_curve import training_curve

ROWS = [
    {"epoch": 1.0, "keep_rate": 1.0, "loss": 2.0},
    {"epoch": 1.0, "keep_rate": 1.0, "eval_loss": 2.5, "eval_accuracy": 0.25},
    {"epoch": 2.0, "keep_rate": 0.7, "loss": 1.0},
    {"epoch": 2.0, "keep_rate": 0.7, "eval_loss": math.inf, "eval_accuracy": None},
    {"epoch": 2.0, "keep_rate": 0.7, "train_runtime": 3.0},
]


def test_each_panel_shows_what_the_rows_say() -> None:
    figure = training_curve(ROWS, metric="accuracy", chosen=1.0, title="run $x")
    FigureCanvasAgg(figure).draw()
    loss, metric, rate = figure.axes
    lines = {line.get_label(): (list(line.get_xdata()), list(line.get_ydata())) for line in loss.get_lines()}
    assert lines["training"] == ([1.0, 2.0], [2.0, 1.0])
    assert lines["validation"] == ([1.0], [2.5])
    assert list(metric.get_lines()[0].get_ydata()) == [25.0]
    assert list(rate.get_lines()[0].get_ydata()) == [1.0, 0.7]
    assert all(axis.get_lines()[-1].get_xdata() == [1.0, 1.0] for axis in figure.axes)
    assert rate.get_xlabel() == "epoch; dotted: the weights that were chosen"


def test_a_run_without_labels_has_no_panel_of_a_metric() -> None:
    figure = training_curve([{"epoch": 1.0, "loss": 2.0}])
    assert [axis.get_ylabel() for axis in figure.axes] == ["loss"]
    with pytest.raises(InvalidSetting, match="some with a loss, to draw"):
        training_curve([{"epoch": 1.0, "keep_rate": 1.0}])
