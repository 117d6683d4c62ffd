"""Confusion matrix and per-class bars: what is drawn, with few labels and with many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from spectrim.errors import InputShapeError, InvalidSetting
from spectrim.pictures.confusion import confusion_figure
from spectrim.pictures.per_class import per_class_figure, save_label_figures

NAMES = ("keep rate 0.7", "keep rate 1")


def test_a_confusion_matrix_shows_shares_and_counts() -> None:
    counts = np.array([[3, 1, 0], [0, 0, 0], [2, 0, 6]])
    figure = confusion_figure(counts, ["$a", "b\x1b", "c" * 40])
    FigureCanvasAgg(figure).draw()
    axis = figure.axes[0]
    assert np.array_equal(axis.images[0].get_array(), [[0.75, 0.25, 0], [0, 0, 0], [0.25, 0, 0.75]])
    assert [text.get_text() for text in axis.texts] == ["3", "1", "2", "6"]
    names = [tick.get_text() for tick in axis.get_yticklabels()]
    assert names == ["$a (4)", "b\\x1b (0)", f"{'c' * 27}… (8)"]


def test_of_many_labels_those_that_are_confused_most_are_drawn() -> None:
    counts = np.diag(np.full(527, 4))
    counts[500, 3] = 2
    figure = confusion_figure(counts, [f"label {number}" for number in range(527)], title="run")
    names = [tick.get_text() for tick in figure.axes[0].get_xticklabels()]
    assert len(names) == 50
    assert {"label 3", "label 500"} < set(names)
    assert figure.get_suptitle() == "run\nthe 50 of 527 labels that are confused most"
    with pytest.raises(InputShapeError, match=r"wanted: \(2, 2\)"):
        confusion_figure(counts, ["a", "b"])


def rows(values: list[float | None]) -> list[dict[str, Any]]:
    return [
        {"label": f"label {number}", "positives": number, "value": value, "dense": value}
        for number, value in enumerate(values)
    ]


def test_bars_are_ranked_and_what_is_not_defined_is_left_out() -> None:
    figure = per_class_figure(rows([0.2, None, 0.9]), measure="recall", names=NAMES)
    FigureCanvasAgg(figure).draw()
    axis = figure.axes[0]
    assert [bar.get_width() for bar in axis.patches] == [0.9, 0.2]
    assert list(axis.get_lines()[0].get_xdata()) == [0.9, 0.2]
    assert [tick.get_text() for tick in axis.get_yticklabels()] == ["label 2 (2)", "label 0 (0)"]
    with pytest.raises(InvalidSetting, match="some with a value"):
        per_class_figure(rows([None]), measure="recall", names=NAMES)


def test_of_many_labels_the_best_and_the_worst_are_drawn() -> None:
    figure = per_class_figure(rows([number / 527 for number in range(527)]), measure="recall", names=NAMES)
    axis = figure.axes[0]
    drawn = [bar.get_width() * 527 for bar in axis.patches]
    assert drawn == pytest.approx([*range(526, 496, -1), *range(29, -1, -1)])
    assert axis.texts[0].get_text() == "… 467 labels between …"


def test_pictures_that_would_show_nothing_are_not_drawn(tmp_path: Path) -> None:
    undefined = [{"label": "a", "positives": 0, "average_precision": None}]
    assert save_label_figures(tmp_path, undefined, [], [], names=NAMES) == []
    told = [{"label": "a", "positives": 2, "average_precision": 0.5}]
    assert save_label_figures(tmp_path, told, undefined, [], names=NAMES) == [tmp_path / "per_class.png"]
