"""What a study of keep rates came to: rows of single runs in, means with intervals, answers and a report out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from spectrim.analysis.curves import accuracy_curve
from spectrim.analysis.report import Report

CONFIDENCE = 0.95
FEWER_MACS, POINTS_LOST = 0.30, 1.0
"""The paper's claim: at least this share of the MACs saved, fewer than so many points lost."""

NAMES = {"ast": "AST", "audiomae": "AudioMAE", "esc50": "ESC-50", "spoken-commands": "spoken commands"}


@dataclass(frozen=True)
class Mean:
    """A mean over runs.

    Attributes:
        value: the mean.
        low: lower end of the 95 % interval (Student's t over runs), NaN for one run.
        high: upper end.
        runs: how many.
    """

    value: float
    low: float
    high: float
    runs: int

    def __str__(self) -> str:
        if self.runs < 2:
            return f"{self.value:.1f}"
        return f"{self.value:.1f} [{self.low:.1f}, {self.high:.1f}]"


def mean_over_runs(values: Sequence[float]) -> Mean:
    """Mean with a 95 % t-interval (`scipy.stats.ttest_1samp`'s confidence interval).

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("a mean of no runs")
    value = float(np.mean(values))
    if len(values) == 1:
        return Mean(value, math.nan, math.nan, 1)
    if np.ptp(values) == 0.0:
        return Mean(value, value, value, len(values))
    interval = stats.ttest_1samp(values, 0.0).confidence_interval(CONFIDENCE)
    return Mean(value, float(interval.low), float(interval.high), len(values))


@dataclass(frozen=True)
class Point:
    """A backbone on a data set at one keep rate, trained for it or not.

    Attributes:
        backbone: of the runs.
        data: of the runs.
        keep_rate: at which they were tested.
        trained: whether they were trained for that keep rate; else the dense model, pruned without training.
        score: the metric, in points of 100.
        lost: points lost against the dense model of the same run, paired.
        paper_macs: multiply-accumulates, the paper's count.
        fewer_macs: share of them saved against dense.
    """

    backbone: str
    data: str
    keep_rate: float
    trained: bool
    score: Mean
    lost: Mean
    paper_macs: int
    fewer_macs: float


def points(rows: Iterable[Mapping[str, Any]]) -> list[Point]:
    """Bring the rows of single runs together.

    Args:
        rows: as `spectrim.reproduction.collect` gives them; runs without a dense model are left out.

    Returns:
        Points ordered by backbone, data set, trained or not, and falling keep rate.
    """
    groups: dict[tuple[str, str, bool, float], dict[tuple[Any, Any], Mapping[str, Any]]] = {}
    for row in rows:
        rate, dense = row["keep_rate"], row["trained_keep_rate"] == 1.0
        if dense or rate == row["trained_keep_rate"]:
            trained = rate == row["trained_keep_rate"]
            key = (row["backbone"], row["data"], trained, rate)
            groups.setdefault(key, {})[row["fold"], row["seed"]] = row
    found = []
    for (backbone, data, trained, rate), runs in sorted(groups.items(), key=lambda item: (*item[0][:3], -item[0][3])):
        dense = groups.get((backbone, data, True, 1.0), {})
        paired = [run for run in runs if run in dense]
        if not paired:
            continue
        first, whole = runs[paired[0]], dense[paired[0]]
        found.append(
            Point(
                backbone, data, rate, trained,
                mean_over_runs([100.0 * runs[run]["value"] for run in paired]),
                mean_over_runs([100.0 * (dense[run]["value"] - runs[run]["value"]) for run in paired]),
                first["paper_macs"],
                1.0 - first["paper_macs"] / whole["paper_macs"],
            )
        )  # fmt: skip
    return found


@dataclass(frozen=True)
class Answer:
    """Whether ≥ 30 % of the MACs can be saved for less than a point, for a backbone on a data set.

    Attributes:
        best: the point with the fewest points lost among those that save enough; None if none was measured.
        holds: its mean loss is below a point.
        surely: the upper end of its interval is below a point.
        surely_not: the lower end of its interval is at a point or above.
    """

    best: Point | None
    holds: bool
    surely: bool
    surely_not: bool

    def __str__(self) -> str:
        if self.best is None:
            return "not measured"
        lost, saved = self.best.lost, f"{self.best.fewer_macs:.0%} fewer MACs at keep rate {self.best.keep_rate:g}"
        word = "yes" if self.holds else "no"
        if lost.runs < 2:
            return f"{word} in the one run: {lost} points lost for {saved}"
        doubt = "" if self.surely or self.surely_not else ", though the interval reaches over the point"
        return f"{word}{doubt}: {lost} points lost for {saved}"


def answer(found: Sequence[Point], backbone: str, data: str, *, trained: bool) -> Answer:
    """Answer the paper's claim for a backbone and data set.

    Args:
        found: of `points`.
        backbone: of the points to look at.
        data: of the points to look at.
        trained: look at models trained for their keep rate, or at training-free pruning.
    """
    able = [
        point
        for point in found
        if (point.backbone, point.data, point.trained) == (backbone, data, trained) and point.fewer_macs >= FEWER_MACS
    ]
    if not able:
        return Answer(None, False, False, False)
    best = min(able, key=lambda point: point.lost.value)
    return Answer(best, best.lost.value < POINTS_LOST, best.lost.high < POINTS_LOST, best.lost.low >= POINTS_LOST)


def add_study(report: Report, rows: Sequence[Mapping[str, Any]], *, metric: str = "accuracy") -> None:
    """Add tables, curves and answers of a study to a report.

    Args:
        report: to add to.
        rows: as `spectrim.reproduction.collect` gives them.
        metric: its name, for headings and axes.
    """
    found = points(rows)
    if not found:
        return
    pairs = list(dict.fromkeys((point.backbone, point.data) for point in found))
    report.heading("Can 30 % of the MACs be saved for less than one point?")
    columns = ["", "fine-tuned with pruning", "pruned without training"]
    answers = [
        (_name(*pair), answer(found, *pair, trained=True), answer(found, *pair, trained=False)) for pair in pairs
    ]
    report.table(columns, answers)
    for backbone, data in pairs:
        own = [point for point in found if (point.backbone, point.data) == (backbone, data)]
        runs = own[0].score.runs
        title = _name(backbone, data)
        report.heading(title)
        counted = f"{runs} runs (fold and seed)" if runs > 1 else "One run, so no interval"
        report.text(
            f"{counted}. {metric.capitalize()} in %, and points lost against the dense model of the same run, mean"
            f"{' and 95 % t-interval over the runs' if runs > 1 else ''}. MACs are the paper's count for one clip."
        )
        free = {point.keep_rate: point for point in own if not point.trained}
        table = []
        for point in (point for point in own if point.trained):
            other = free.get(point.keep_rate)
            table.append(
                (
                    f"{point.keep_rate:g}", f"{point.paper_macs / 1e6:,.1f} M", f"{point.fewer_macs:.0%}", point.score,
                    "" if point.keep_rate == 1.0 else point.lost, other.score if other else "",
                    other.lost if other else "",
                )
            )  # fmt: skip
        headings = ["keep rate", "MACs", "fewer", f"{metric}, fine-tuned", "points lost"]
        report.table([*headings, f"{metric}, training-free", "points lost"], table)
        report.figure(_slug(title), accuracy_curve(curve_rows(own), metric=metric), f"{title}: {metric} against MACs.")


def curve_rows(found: Sequence[Point]) -> list[dict[str, Any]]:
    """Points as rows for `spectrim.analysis.curves.accuracy_curve`."""
    return [
        {
            "series": "fine-tuned" if point.trained else "training-free",
            "keep_rate": point.keep_rate,
            "macs": point.paper_macs,
            "value": point.score.value / 100.0,
            "low": None if point.score.runs < 2 else point.score.low / 100.0,
            "high": None if point.score.runs < 2 else point.score.high / 100.0,
        }
        for point in found
    ]


def _name(backbone: str, data: str) -> str:
    return f"{NAMES.get(backbone, backbone)} on {NAMES.get(data, data)}"


def _slug(title: str) -> str:
    return title.lower().replace(" ", "-")


def write_study(
    rows: Sequence[Mapping[str, Any]],
    folder: Path,
    *,
    title: str,
    introduction: Sequence[str],
    commands: Sequence[str],
    missing: Sequence[str],
) -> Path:
    """Write the report of a study.

    Args:
        rows: as `spectrim.reproduction.collect` gives them.
        folder: see `Report`.
        title: of the report.
        introduction: what was done, a paragraph each.
        commands: the command lines that made it.
        missing: names of runs that are not there.

    Returns:
        Path of the HTML.
    """
    report = Report(title, folder)
    for paragraph in introduction:
        report.text(paragraph)
    report.command("\n".join(commands))
    if rows:
        add_study(report, rows)
    report.heading("What is missing")
    if missing:
        report.text(f"{len(missing)} runs of the plan are not done:")
        report.items(missing)
    else:
        report.text("Nothing: every run of the plan is done.")
    return report.write()
