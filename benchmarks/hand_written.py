"""Time what is written by hand beside the library that could do it: 1-D k-means and the report's page.

    pip install kmeans1d markdown-it-py
    python benchmarks/hand_written.py --json benchmarks/results/hand_written.json

k-means: five clusters of values like a data set's intensities, a tenth of them one value, as padding is; kmeans1d finds
the optimum, so the output says how much higher the sum of squares of `spectrim.stats.clusters.kmeans_1d` is, and how
far the bounds between clusters lie apart. A page: one report with tables and figures from its parts, as
`spectrim.pictures.report` writes it, and from its Markdown by markdown-it-py; the output says whether a cell that holds
Markdown's own characters comes out as it went in. The calls are interleaved; processor time. One thread.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import kmeans1d
import numpy as np
from kendall import BUMPS, CLUSTERS
from markdown_it import MarkdownIt
from matplotlib.figure import Figure
from showing import write_and_show

from spectrim.machine import environment
from spectrim.measure.benchmark import spread
from spectrim.pictures.report import Report
from spectrim.stats.clusters import kmeans_1d

CELL = "*ast* <b>_1_</b> | 2"
"""A model's name that holds what Markdown and HTML take for their own."""


def processor_times(cases: dict[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of processor time of each call, in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, call in cases.items():
            start = process_time()
            call()
            seconds[name].append(process_time() - start)
    return seconds


def like_intensities(count: int) -> np.ndarray:
    """Values of a data set's patches, float32."""
    generator = np.random.default_rng(0)
    shares = generator.multinomial(count, [0.3, 0.4, 0.2, 0.1])
    bumps = [generator.normal(*bump, share) for bump, share in zip(BUMPS, shares, strict=False)]
    return generator.permutation(np.concatenate([*bumps, np.full(shares[3], 0.467)])).astype(np.float32)


def inertia(values: np.ndarray, ranks: np.ndarray) -> float:
    """Sum of the squared distances to the means of the clusters."""
    parts = [values[ranks == rank].astype(np.float64) for rank in range(CLUSTERS)]
    return sum(float(((part - part.mean()) ** 2).sum()) for part in parts)


def measure_kmeans(sizes: list[int], repeats: int) -> list[dict[str, Any]]:
    """Both on so many values."""
    measured = []
    for size in sizes:
        values = like_intensities(size)
        ours, optimum = kmeans_1d(values, CLUSTERS, padding="with"), kmeans1d.cluster(values, CLUSTERS)
        best = inertia(values, np.array(optimum.clusters))
        centres = np.array(optimum.centroids)
        seconds = processor_times(
            {
                "spectrim": lambda values=values: kmeans_1d(values, CLUSTERS, padding="with"),
                "kmeans1d": lambda values=values: kmeans1d.cluster(values, CLUSTERS),
            },
            repeats,
        )
        measured.append(
            {
                "values": size,
                "above_the_optimum": inertia(values, ours.ranks(values)) / best - 1,
                "largest_difference_of_bounds": float(np.abs((centres[1:] + centres[:-1]) / 2 - ours.bounds).max()),
                **{name: spread(times) for name, times in seconds.items()},
            }
        )
    return measured


def measure_page(repeats: int) -> dict[str, Any]:
    """A report of ten tables of fifty rows and two figures."""
    with tempfile.TemporaryDirectory() as folder:
        report = Report("Title", Path(folder))
        for number in range(2):
            figure = Figure()
            figure.add_subplot().plot(range(100))
            report.figure(f"figure-{number}", figure, "Caption")
        for number in range(10):
            report.heading(f"Table {number}")
            report.table(["model", *"abcdefg"], [(CELL, *(f"{row / 7:.3f}" for _ in range(7))) for row in range(50)])
        parser = MarkdownIt("commonmark").enable("table")
        pages = {"parts": report.html(), "markdown-it-py": parser.render(report.markdown())}
        calls = {"parts": report.html, "markdown-it-py": lambda: parser.render(report.markdown())}
        seconds = processor_times(calls, repeats)
    escaped = CELL.replace("<", "&lt;").replace(">", "&gt;")
    return {
        name: {"cell_as_it_went_in": f"<td>{escaped}</td>" in page, **spread(seconds[name])}
        for name, page in pages.items()
    }


def main() -> None:
    """Parse, measure, write, show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--values", type=int, nargs="+", default=[10_000, 100_000, 1_500_000])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    result = {
        "what": "ms of processor time",
        "repeats": arguments.repeats,
        "kmeans": measure_kmeans(arguments.values, arguments.repeats),
        "page": measure_page(10 * arguments.repeats),
        "versions": {name: importlib.metadata.version(name) for name in ("kmeans1d", "markdown-it-py")},
        "environment": environment(),
    }
    write_and_show(result, arguments.json)


if __name__ == "__main__":
    main()
