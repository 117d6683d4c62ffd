"""The two pictures of docs/performance.md: who takes how long, and whether saved MACs are saved seconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cases import CASES
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from targets import PEER, row_of

from spectrim.pictures.figures import STYLES, save_figure

Rows = Sequence[Mapping[str, Any]]
OWN, OTHERS, EXPORTED = STYLES[0][0], "#767676", STYLES[2][0]
LEGEND = {OTHERS: "peers", OWN: "spectrim, float32 in PyTorch", EXPORTED: "spectrim, run in another way"}


def latency(rows: Rows, path: Path, case: str = "ast-10s", batch: int = 1) -> None:
    """Bars of the time of a pass, the fastest at the bottom, with quartiles; dashed: transformers' AST with SDPA."""
    own = [row for row in rows if (row["case"], row["batch_size"]) == (case, batch)]
    own.sort(key=lambda row: row["median_ms"])
    figure = Figure(figsize=(8.5, 0.27 * len(own) + 1.0), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(own):
        name = row["contender"]
        colour = OTHERS if not name.startswith("spectrim") else OWN if name == "spectrim" else EXPORTED
        spread = [[row["median_ms"] - row["q1_ms"]], [row["q3_ms"] - row["median_ms"]]]
        axes.barh(place, row["median_ms"], xerr=spread, color=colour, height=0.72, error_kw={"elinewidth": 1.0})
        axes.annotate(
            f"{row['median_ms']:.0f} ms",
            (row["q3_ms"], place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
        )
    axes.set_yticks(range(len(own)), [f"{row['contender']}, r={row['keep_rate']:g}" for row in own], fontsize=8)
    peer = row_of(rows, case, batch, PEER, 1.0)
    if peer is not None:
        axes.axvline(peer["median_ms"], color="black", linestyle="--", linewidth=0.9)
    axes.set_xlabel("ms a pass, median and quartiles; dashed: transformers' AST, SDPA")
    axes.set_title(f"{CASES[case].what}, batch {batch}", fontsize=10)
    axes.legend(
        handles=[Patch(color=one, label=name) for one, name in LEGEND.items()],
        fontsize=8,
        framealpha=1,
        edgecolor="none",
    )
    axes.margins(x=0.09, y=0.01)
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)


def saved(rows: Rows, path: Path) -> None:
    """Speed-up over our own dense model against the MACs saved, for every case and batch size."""
    figure = Figure(figsize=(5.6, 5.0), layout="constrained")
    axes = figure.subplots()
    most = 1.0
    names = [case for case in CASES if any(row["case"] == case for row in rows)]
    for (colour, marker, _), case in zip(STYLES, names, strict=False):
        axes.scatter([], [], color=colour, marker=marker, s=34, label=CASES[case].what)
        for row in rows:
            dense = row_of(rows, case, row["batch_size"], "spectrim", 1.0)
            if row["case"] == case and row["contender"] == "spectrim" and row["keep_rate"] < 1.0 and dense:
                point = (dense["macs"] / row["macs"], dense["median_ms"] / row["median_ms"])
                fill = "none" if row["batch_size"] == 1 else colour
                axes.scatter(*point, edgecolors=colour, facecolors=fill, marker=marker, s=34)
                most = max(most, *point)
    ends = [1.0, 1.05 * most]
    axes.plot(ends, ends, color="black", linewidth=0.9)
    axes.plot(ends, [0.9 * end for end in ends], color="black", linewidth=0.9, linestyle=":")
    axes.set_xlabel("executed MACs, dense over pruned")
    axes.set_ylabel("time of a pass, dense over pruned")
    axes.set_title(
        "Saved MACs and saved time: on the line they are the same\n(dotted: 0.9 of it; hollow: batch 1)", fontsize=10
    )
    axes.legend(fontsize=8, frameon=False, loc="upper left")
    axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, path)
