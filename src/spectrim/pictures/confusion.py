"""Figure of which label is taken for which, from counts of clips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spectrim.errors import InputShapeError
from spectrim.pictures.figures import NORMAL, SMALL, add_title, short_name

MOST = 50
"""Labels that have room in one picture."""

NUMBERED = 20
"""Labels up to which each cell says its number of clips."""


def confusion_figure(counts: NDArray[np.int64], labels: Sequence[str], *, title: str = "") -> Figure:
    """Draw a confusion matrix: a row a label, coloured by the share of its clips that are given each answer.

    With more labels than `MOST`, those of which most clips are given a wrong answer, or that are a wrong answer most
    often, are drawn, and the picture says so; clips with an answer that is not among them are not to be seen then.

    Args:
        counts: (labels, labels) clips of the label of a row that are given the answer of a column.
        labels: names.
        title: above the picture.

    Returns:
        The figure; `spectrim.pictures.figures.save_figure` writes it.

    Raises:
        InputShapeError: there are no labels, or counts are not of their number.
    """
    if not len(labels) or counts.shape != (len(labels), len(labels)):
        raise InputShapeError(f"counts have shape {counts.shape}; wanted: ({len(labels)}, {len(labels)}), one or more")
    clips = counts.sum(axis=1)
    chosen, note = _most_confused(counts), ""
    if len(chosen) < len(labels):
        note = f"the {len(chosen)} of {len(labels)} labels that are confused most"
    shares = np.divide(counts, clips[:, None], out=np.zeros(counts.shape), where=clips[:, None] > 0)
    number = len(chosen)
    inches = max(3.0, min(8.0, 1.2 + 0.28 * number))
    size = SMALL if number <= 30 else 5.5
    figure = Figure(figsize=(inches + 2.0, inches + 1.2), layout="constrained")
    axis = figure.add_subplot()
    scale = PowerNorm(1.0 if number <= NUMBERED else 0.5, vmin=0.0, vmax=1.0)  # a clip of forty is to be seen as well
    image = axis.imshow(shares[np.ix_(chosen, chosen)], cmap="Blues", norm=scale)
    names = [short_name(labels[one]) for one in chosen]
    axis.set_yticks(range(number), [f"{name} ({clips[one]})" for name, one in zip(names, chosen, strict=True)])
    axis.set_xticks(range(number), names, rotation=90)
    axis.tick_params(labelsize=size, length=2.0)
    for text in (*axis.get_xticklabels(), *axis.get_yticklabels()):
        text.set_parse_math(False)
    axis.set_xlabel("answer", fontsize=NORMAL)
    axis.set_ylabel("label of the clip (clips)", fontsize=NORMAL)
    if number <= NUMBERED:
        _write_counts(axis, counts[np.ix_(chosen, chosen)], shares[np.ix_(chosen, chosen)])
    bar = figure.colorbar(image, ax=axis, shrink=0.6, pad=0.02)
    bar.set_label("share of the label's clips", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    add_title(figure, "\n".join(filter(None, (title, note))))
    return figure


def _most_confused(counts: NDArray[np.int64]) -> list[int]:
    """The labels to draw, in their order: all, or those with most wrong answers to them or of them."""
    wrong = counts - np.diag(np.diag(counts))
    worst = np.argsort(-(wrong.sum(axis=0) + wrong.sum(axis=1)), kind="stable")[:MOST]
    return sorted(worst.tolist())


def _write_counts(axis: Axes, counts: NDArray[np.int64], shares: NDArray[np.float64]) -> None:
    for row, column in np.argwhere(counts):
        dark = shares[row, column] > 0.5
        axis.text(
            column,
            row,
            str(counts[row, column]),
            ha="center",
            va="center",
            fontsize=SMALL,
            color="white" if dark else "black",
        )
