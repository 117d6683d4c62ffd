"""Figures of how well each label is told, and which one it is taken for, from rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from spectrim.pictures.confusion import confusion_figure
from spectrim.pictures.figures import (
    NORMAL,
    SMALL,
    STYLES,
    add_title,
    legend_below,
    require_rows,
    save_figure,
    short_name,
)

MOST = 60
"""Labels that have room in one picture."""

Row = Mapping[str, Any]


def save_label_figures(
    folder: Path,
    rows: Sequence[Row],
    dense: Sequence[Row],
    confusions: Sequence[Row],
    *,
    names: tuple[str, str | None],
    title: str = "",
) -> list[Path]:
    """Draw ``per_class.png`` by recall, or average precision where there is none, and ``confusion.png``.

    Args:
        folder: where they go; it is there.
        rows: one a label: label, positives, and recall or average_precision, None where it is not defined.
        dense: the same of the dense model, in the same order; none where it was not measured.
        confusions: one a label and answer that occurs: label, answer, clips. None for no such picture.
        names: of the two in the legend, see `per_class_figure`.
        title: above both.

    Returns:
        What was drawn; not what would show nothing.
    """
    measure = "recall" if "recall" in rows[0] else "average_precision"
    values = [
        {
            "label": row["label"],
            "positives": row["positives"],
            "value": row[measure],
            "dense": dense[number][measure] if dense else None,
        }
        for number, row in enumerate(rows)
    ]
    drawn = []
    if any(row["value"] is not None for row in values):
        drawn.append(folder / "per_class.png")
        shown = per_class_figure(values, measure=measure.replace("_", " "), names=names, title=title)
        save_figure(shown, drawn[-1])
    if confusions:
        labels = [str(row["label"]) for row in rows]
        numbers = {label: number for number, label in enumerate(labels)}
        counts = np.zeros((len(labels), len(labels)), dtype=np.int64)
        for row in confusions:
            counts[numbers[row["label"]], numbers[row["answer"]]] = row["clips"]
        drawn.append(folder / "confusion.png")
        save_figure(confusion_figure(counts, labels, title=f"{title}, {names[0]}"), drawn[-1])
    return drawn


def per_class_figure(rows: Sequence[Row], *, measure: str, names: tuple[str, str | None], title: str = "") -> Figure:
    """Draw a bar a label, the best first, with the value of the dense model as a circle where there is one.

    With more labels than `MOST`, the best and the worst half as many each are drawn, and the picture says how many are
    between them.

    Args:
        rows: one a label: label, positives (clips that have it), value, and dense, the value of another model or None;
            all shares. A label without a value is not drawn.
        measure: what the values are.
        names: of the bars and of the circles in the legend; None for no circles.
        title: above the picture.

    Returns:
        The figure; `spectrim.pictures.figures.save_figure` writes it.

    Raises:
        InvalidSetting: no row has a value.
    """
    ranked = sorted((row for row in rows if row["value"] is not None), key=lambda row: (-row["value"], row["label"]))
    require_rows(ranked, "a value")
    left_out = max(0, len(ranked) - MOST)
    best = ranked[: len(ranked) if not left_out else MOST // 2]
    worst = ranked[-(MOST // 2) :] if left_out else []
    places = [*range(len(best)), *range(len(best) + 2, len(best) + 2 + len(worst))]
    drawn = [*best, *worst]
    figure = Figure(figsize=(6.4, 1.5 + 0.17 * (places[-1] + 1)), layout="constrained")
    axis = figure.add_subplot()
    _draw(axis, drawn, places, names)
    if left_out:
        text = f"… {left_out} labels between …"
        axis.text(0.5, len(best) + 0.5, text, ha="center", va="center", fontsize=SMALL, color="0.35")
    axis.set_ylim(places[-1] + 0.7, -0.7)
    axis.set_xlim(0.0, 1.02)
    axis.set_xticks([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], ["0", "20", "40", "60", "80", "100"], fontsize=SMALL)
    axis.set_xlabel(f"{measure} (%)", fontsize=NORMAL)
    axis.grid(axis="x", color="0.9", linewidth=0.6)
    axis.set_axisbelow(True)
    legend_below(figure, axis)
    add_title(figure, title)
    return figure


def _draw(axis: Axes, rows: Sequence[Row], places: Sequence[int], names: tuple[str, str | None]) -> None:
    bar, circle = STYLES[0][0], STYLES[1][0]
    axis.barh(places, [row["value"] for row in rows], height=0.7, color=bar, alpha=0.55, label=names[0])
    beside = [(row["dense"], place) for row, place in zip(rows, places, strict=True) if row["dense"] is not None]
    if beside and names[1] is not None:
        look: dict[str, Any] = {"marker": "o", "linestyle": "none", "markersize": 4.0, "markerfacecolor": "none"}
        look["clip_on"] = False
        axis.plot(*zip(*beside, strict=True), color=circle, markeredgewidth=1.2, label=names[1], **look)
    axis.set_yticks(places, [f"{short_name(str(row['label']))} ({row['positives']})" for row in rows], fontsize=SMALL)
    axis.set_ylabel("label (clips)", fontsize=NORMAL)
    axis.tick_params(axis="y", length=0.0)
    for text in axis.get_yticklabels():
        text.set_parse_math(False)
