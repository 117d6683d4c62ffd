"""From what was measured to a table: intervals against the dense model and against random, MACs, times, sentences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectrim.comparison.measuring import Answers
from spectrim.comparison.methods import DENSE, RANDOM, Case
from spectrim.config import SpectrimConfig
from spectrim.measure.benchmark import spread
from spectrim.measure.metric_intervals import standings
from spectrim.measure.metrics import chance_level
from spectrim.measure.runs import unequal_to_random
from spectrim.network.macs import macs
from spectrim.stats.ground import CANNOT_SAY, SAID, Interval, against_random, beats, under_one_point

Row = dict[str, Any]


def accuracy_rows(cases: Sequence[Case], answers: Answers, metric: str, resamples: int, seed: int = 0) -> list[Row]:
    """A row a case, with what can be said of its accuracy.

    The metric of a case with several random draws is their mean, and its intervals hold the luck of the draw too; see
    `spectrim.stats.paired.contrast_intervals`.

    Args:
        cases: the dense model first.
        answers: scores of all of them.
        metric: name in `spectrim.measure.metrics.METRICS`.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        One row a case: method, keep_rate, criterion, reducer, draws; the metric with ``_low`` and ``_high``; change,
        its difference from the dense model, with change_low and change_high, and under_one_point (whether less than one
        point is lost) with why_change; over_random, its difference from random pruning at the same keep rate, likewise,
        and against_random ("better", "worse", "no better" or "cannot say") with why_random. A fine-tuned run has
        none of these: random pruning is of the untrained weights, and the difference would be that of the training.
    """
    random = {case.keep_rate: number for number, case in enumerate(cases) if case.method == RANDOM}
    others = [random.get(case.keep_rate, 0) for case in cases]
    ways = [[answers.scores[case.title, point] for point in case.points] for case in cases]
    groups = answers.groups
    found = standings(ways, answers.targets, metric, others, groups=groups, resamples=resamples, seed=seed)
    chance, clips = chance_level(answers.targets, metric), len(answers.ids)
    rows = []
    for number, case in enumerate(cases):
        value, change, over = found[number]
        row = {
            "method": case.method,
            "keep_rate": case.keep_rate,
            "fine_tuned": case.run,
            "criterion": case.points[0].criterion,
            "reducer": case.points[0].reducer,
            "draws": len(case.points),
            **value.columns(metric),
        }
        nothing = Interval(math.nan, math.nan, math.nan)
        if case.method == DENSE:
            row |= {**nothing.columns("change"), "under_one_point": None, "why_change": None}
        else:
            said, why = under_one_point(change, clips, None, found[0].value, chance, groups)
            row |= {**change.columns("change"), "under_one_point": said, "why_change": why}
        if case.run or case.method in (DENSE, RANDOM) or case.keep_rate not in random:
            row |= {**nothing.columns("over_random"), "against_random": None, "why_random": None}
        else:
            said, why = CANNOT_SAY, unequal_to_random(case.points[0])
            if why is None:
                said, why = beats(over, clips, found[0].value, chance, groups=groups)
            row |= {**over.columns("over_random"), "against_random": said, "why_random": why}
        rows.append(row)
    return rows


def clip_rows(cases: Sequence[Case], answers: Answers, labels: Sequence[str]) -> list[Row]:
    """What every case answers to every clip, for statistics of one's own.

    Args:
        cases: of `answers`.
        answers: scores of all of them.
        labels: in the order of the scores.

    Returns:
        A row a clip: clip (its name), label, and for each case, by its title and the number of the random draw where
        there are several, the label with the highest score. Nothing where clips can have several labels, or none.
    """
    if not np.array_equal(answers.targets.sum(axis=1), np.ones(len(answers.targets))):
        return []
    columns = {"label": answers.targets.argmax(axis=1)}
    for case in cases:
        for number, point in enumerate(case.points):
            draw = f", draw {number}" if len(case.points) > 1 else ""
            columns[f"{case.title}{draw}"] = answers.scores[case.title, point].argmax(axis=1)
    return [
        {"clip": clip, **{name: labels[column[row]] for name, column in columns.items()}}
        for row, clip in enumerate(answers.ids)
    ]


def cost_columns(
    cases: Sequence[Case],
    configs: Mapping[str, SpectrimConfig],
    seconds: Mapping[tuple[int, str], NDArray[np.float64]],
    batch_sizes: Sequence[int],
) -> list[Row]:
    """Further columns of each row: what it costs.

    Args:
        cases: the dense model first.
        configs: case → its model's configuration.
        seconds: (batch size, case) → seconds of each pass, in the order of the rounds.
        batch_sizes: that were timed.

    Returns:
        For each case: paper_macs and executed_macs of a clip, macs_saved (share of the dense model's executed_macs);
        for each batch size B: ms_B, ms_B_q1 and ms_B_q3 (of a clip; median and quartiles of the passes), and
        speed_up_B, the median over the rounds of the dense model's time over this one's.
    """
    columns = []
    whole = macs(configs[cases[0].title], pruning=cases[0].points[0])
    for case in cases:
        count = macs(configs[case.title], pruning=case.points[0])
        row: Row = {"paper_macs": count.paper, "executed_macs": count.executed}
        row["macs_saved"] = 1 - count.executed / whole.executed
        for size in batch_sizes:
            times = seconds[size, case.title]
            found = spread((times / size).tolist())
            row |= {f"ms_{size}": found["median_ms"], f"ms_{size}_q1": found["q1_ms"], f"ms_{size}_q3": found["q3_ms"]}
            row[f"speed_up_{size}"] = float(np.median(seconds[size, cases[0].title] / times))
        columns.append(row)
    return columns


def sentences(rows: Sequence[Row], metric: str, batch_size: int) -> list[str]:
    """One sentence a method: at each keep rate whether it beats random, what it loses, and how fast it is.

    Args:
        rows: with all columns.
        metric: the name of its column.
        batch_size: of the times that are told.
    """
    dense = rows[0]
    methods = dict.fromkeys(row["method"] for row in rows[1:])
    told = []
    for method in methods:
        parts = [_clause(row, metric, batch_size) for row in rows if row["method"] == method]
        fine_tuned = any(row["fine_tuned"] for row in rows if row["method"] == method)
        told.append(f"{method}{' (fine-tuned)' if fine_tuned else ''}: {'; '.join(parts)}.")
    ends = _span(dense, metric, 100, "")
    return [f"{DENSE}: {metric} {100 * dense[metric]:.1f} %{ends}, {dense[f'ms_{batch_size}']:.2f} ms a clip.", *told]


def verdicts(rows: Sequence[Row]) -> list[str]:
    """One sentence a method: at which keep rates it is better than random pruning, worse, no better, or none can say.

    Args:
        rows: of `accuracy_rows`.
    """
    judged = (row for row in rows if row["against_random"] is not None)
    return against_random((row["method"], row["keep_rate"], row["against_random"]) for row in judged)


def _clause(row: Row, metric: str, batch_size: int) -> str:
    """What is said of a method at one keep rate."""
    rate = f"r={row['keep_rate']:g}"
    if row["against_random"] is None:
        start = f"at {rate} {100 * row[metric]:.1f} %"
    else:
        said = SAID.get(row["against_random"], f"{CANNOT_SAY} whether better than random")
        difference = f"difference {100 * row['over_random']:+.1f} points{_span(row, 'over_random')}"
        why = f": {row['why_random']}" if row["why_random"] else ""
        start = f"{said} at {rate} ({difference}{why})"
    loss = f"{abs(100 * row['change']):.1f} points {'below' if row['change'] <= 0 else 'above'} dense"
    speed = row[f"speed_up_{batch_size}"]
    fast = f"{speed:.2f}× as fast" if speed > 1 else f"not faster ({speed:.2f}×)"
    return f"{start}, {loss}, {fast}"


def _span(row: Row, name: str, scale: float = 100, sign: str = "+") -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    if low is None or high is None:
        return ", no interval"
    return f", 95 % interval {scale * low:{sign}.1f} … {scale * high:{sign}.1f}"
