"""Shared by all figures: font sizes, line styles, titles, legends, error bars, saving."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from spectrim.errors import InvalidSetting, printable
from spectrim.files import file_beside

FORMATS = ("pdf", "png", "svg")
"""What a picture can be saved as; its file name says which."""

SMALL, NORMAL, LARGE = 8.0, 9.0, 10.5
"""Font sizes, in points."""

STYLES = (
    ("#0072B2", "o", "-"),
    ("#D55E00", "s", "--"),
    ("#009E73", "^", "-."),
    ("#CC79A7", "D", ":"),
    ("#E69F00", "v", "-"),
    ("#56B4E9", "P", "--"),
    ("#000000", "X", "-."),
)
"""Colour, marker and dashes of each series: the colours of Okabe and Ito (2008), which colour-blind people tell apart,
and two more ways to tell the lines apart without any colour."""

Row = Mapping[str, Any]


def series_style(number: int) -> tuple[str, str, str]:
    """Colour, marker and dashes of a series by its number; behind the last of `STYLES` markers and dashes move on."""
    turn, place = divmod(number, len(STYLES))
    _, marker, dashes = STYLES[(place + turn) % len(STYLES)]
    return STYLES[place][0], marker, dashes


def require_rows(rows: Sequence[Any], name: str) -> None:
    """Raise `InvalidSetting` where there is nothing to draw."""
    if not len(rows):
        raise InvalidSetting("rows", [], f"some with {name}, to draw")


def error_bar_lengths(
    rows: Sequence[Row], mean: str = "mean", ends: tuple[str, str] = ("low", "high")
) -> NDArray[np.float64]:
    """(2, n) lengths of the error bars, 0 where there is no interval."""
    middle = np.array([row[mean] for row in rows], dtype=float)
    low, high = (np.array([row[mean] if row[end] is None else row[end] for row in rows], dtype=float) for end in ends)
    return np.maximum(np.nan_to_num(np.stack([middle - low, high - middle])), 0.0)


def short_name(name: str, longest: int = 28) -> str:
    """A label as it fits beside an axis: printable, and cut."""
    name = printable(" ".join(name.split()))
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def legend_below(figure: Figure, axis: Axes, columns: int = 3) -> None:
    """A legend below all panels, of what one of them draws."""
    handles, names = axis.get_legend_handles_labels()
    figure.legend(
        handles, names, loc="outside lower center", ncols=columns, fontsize=SMALL, frameon=False, handlelength=2.6
    )


def add_title(figure: Figure, title: str) -> None:
    """A title above all panels; an empty one adds nothing."""
    if title:
        figure.suptitle(title, fontsize=LARGE, parse_math=False)


def save_figure(figure: Figure, target: Path) -> None:
    """Write a figure as its file name ends (png, svg, pdf), beside, then rename; the same figure, the same bytes."""
    kind = target.suffix.lower().lstrip(".")
    metadata = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(kind)
    with file_beside(target) as beside, matplotlib.rc_context({"pdf.fonttype": 42, "svg.hashsalt": "spectrim"}):
        figure.savefig(beside, format=kind, dpi=200, metadata=metadata)
