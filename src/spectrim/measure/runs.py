"""The runs of an evaluation: what each found, and the rows, means and intervals of all of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectrim.config import SpectrimConfig
from spectrim.data import AudioDataset
from spectrim.inference.opening import ModelSource, name_of
from spectrim.measure.metric_intervals import Standing, how_made, standings
from spectrim.measure.metrics import (
    LabelMetrics,
    chance_level,
    confusion_counts,
    label_metrics,
    right_clips,
    summarise,
)
from spectrim.measure.scoring import Scored
from spectrim.network.macs import macs
from spectrim.pruning.pruning import Pruning
from spectrim.stats.ground import CANNOT_SAY, Interval, beats, under_one_point
from spectrim.stats.groups import Groups
from spectrim.stats.t_intervals import by_fold, mean_over_runs


@dataclass(frozen=True)
class Job:
    """One model on its part of the data.

    Attributes:
        model: what `spectrim.inference.opening.open_model` takes.
        fold: held out, None where there is one model alone; seed likewise.
        part: the clips.
    """

    model: ModelSource
    fold: int | None
    seed: int | None
    part: AudioDataset


@dataclass(frozen=True, eq=False)
class Run:
    """What became of a job.

    Attributes:
        job: which one.
        scored: without scores where there are several jobs.
        labels: where it was measured → metrics of each label.
        metrics: likewise → metric → value.
        discordant: likewise → clips on which either this or the dense model is right; empty but for accuracy.
        confusions: likewise → `spectrim.measure.metrics.confusion_counts`; empty but for accuracy.
        chance: what the data set's metric is for scores that know nothing.
    """

    job: Job
    scored: Scored
    labels: Mapping[Pruning, LabelMetrics]
    metrics: Mapping[Pruning, Mapping[str, float]]
    discordant: Mapping[Pruning, int]
    confusions: Mapping[Pruning, NDArray[np.int64]]
    chance: float


def judge(job: Job, scored: Scored, dense: Pruning, *, keep: bool) -> Run:
    """Metrics of a run; scores are kept only on demand."""
    multi_label = job.part.each_label_apart
    labels, metrics = {}, {}
    for point, scores in scored.scores.items():
        labels[point] = label_metrics(scores, scored.targets, multi_label=multi_label)
        metrics[point] = summarise(scores, scored.targets, labels[point], multi_label=multi_label)
    discordant, confusions = {}, {}
    if job.part.metric == "accuracy":
        right = {point: right_clips(scores, scored.targets) for point, scores in scored.scores.items()}
        discordant = {point: int(np.count_nonzero(hits != right[dense])) for point, hits in right.items()}
        confusions = {point: confusion_counts(scores, scored.targets) for point, scores in scored.scores.items()}
    chance = chance_level(scored.targets, job.part.metric)
    if not keep:
        empty = np.empty((0, 0), dtype=np.float32)
        scored = replace(scored, targets=empty, scores={})
    return Run(job, scored, labels, metrics, discordant, confusions, chance)


def result_rows(
    runs: Sequence[Run],
    points: Mapping[Pruning, Pruning],
    dense: Pruning,
    config: SpectrimConfig,
    resamples: int,
    drawn: Mapping[Pruning, Sequence[Pruning]],
) -> list[dict[str, Any]]:
    """A row a point of the table: metrics with intervals, MACs, times, and whether less than one point is lost.

    Args:
        runs: of all jobs.
        points: of the table → where they were measured.
        dense: where the dense model was.
        config: that all models share.
        resamples: of the bootstrap.
        drawn: where they were measured → the same with every draw of random scores; itself where there is none.
    """
    rows = _metric_rows(runs, points, dense, resamples, drawn)
    whole = macs(config, keep_rate=1.0).paper
    for row, (shown, point) in zip(rows, points.items(), strict=True):
        counted = macs(config, pruning=shown)
        row |= {"paper_macs": counted.paper, "executed_macs": counted.executed, "macs_saved": 1 - counted.paper / whole}
        row |= _times(runs, point, dense)
        nothing = {"discordance": None, "under_one_point": None, "why": None}
        row |= nothing if point == dense else _judgement(row, drawn[point], rows, runs)
        row |= _against_random(shown, row, rows, runs)
    return rows


def _metric_rows(
    runs: Sequence[Run],
    points: Mapping[Pruning, Pruning],
    dense: Pruning,
    resamples: int,
    drawn: Mapping[Pruning, Sequence[Pruning]],
) -> list[dict[str, Any]]:
    """Means over the runs and draws, and intervals of the data set's metric and of its differences."""
    metric = runs[0].job.part.metric
    measured = [[dense], *(drawn[point] for point in points.values())]
    random = {group[0].keep_rate: place for place, group in enumerate(measured) if len(group) > 1}
    others = [0 if group == [dense] else random.get(group[0].keep_rate, 0) for group in measured]
    if len(runs) == 1:
        scored = runs[0].scored
        ways = [[scored.scores[point] for point in group] for group in measured]
        found = standings(ways, scored.targets, metric, others, groups=scored.groups, resamples=resamples)
    else:
        found = _over_runs(runs, measured, others, metric)
    rows = []
    for shown, group, other, stand in zip(points, measured[1:], others[1:], found[1:], strict=True):
        means = {
            name: statistics.fmean(run.metrics[point][name] for run in runs for point in group)
            for name in runs[0].metrics[group[0]]
        }
        del means[metric]
        over = stand.over if other and group != measured[other] else Interval(math.nan, math.nan, math.nan)
        rows.append(
            {
                **_ways(shown),
                "draws": len(group),
                **stand.value.columns(metric),
                **stand.change.columns("change"),
                **plain(means),
                **over.columns("over_random"),
            }
        )
    return rows


def _ways(shown: Pruning) -> dict[str, Any]:
    """How a row prunes."""
    return {"keep_rate": shown.keep_rate, "criterion": shown.criterion, "reducer": shown.reducer}


def _over_runs(
    runs: Sequence[Run], measured: Sequence[Sequence[Pruning]], others: Sequence[int], metric: str
) -> list[Standing]:
    """The same over runs: Student's t intervals of what differs from run to run, of the metric cut to 0 to 1."""
    values = np.array(
        [[statistics.fmean(run.metrics[point][metric] for point in group) for run in runs] for group in measured]
    )
    found, keys = [], [(run.job.fold, run.job.seed) for run in runs]

    def over(each: NDArray[np.float64], *within: tuple[float, float]) -> Interval:
        mean = mean_over_runs(by_fold(dict(zip(keys, each.tolist(), strict=True))), *within)
        return Interval(mean.value, mean.low, mean.high)

    for value, other in zip(values, others, strict=True):
        found.append(Standing(over(value, (0.0, 1.0)), over(value - values[0]), over(value - values[other])))
    return found


def _judgement(
    row: Mapping[str, Any], draws: Sequence[Pruning], rows: Sequence[Mapping[str, Any]], runs: Sequence[Run]
) -> dict[str, Any]:
    """Whether a row loses less than one point, or why that cannot be said; with the discordance of its draws."""
    metric = runs[0].job.part.metric
    clips = sum({run.job.fold: len(run.scored.ids) for run in runs}.values())
    seen = sum(len(run.scored.ids) for run in runs)
    share = None
    if metric == "accuracy":
        share = sum(run.discordant[point] for run in runs for point in draws) / (seen * len(draws))
    dense = _dense_interval(rows, metric)
    change = _interval_of(row, "change")
    counted = clips if len(runs) == 1 or share is not None else None
    chance = statistics.fmean(run.chance for run in runs)
    said, why = under_one_point(change, counted, share, dense, chance, _groups(runs))
    if reason := _few_speakers(runs):
        said, why = CANNOT_SAY, reason
    return {"discordance": share, "under_one_point": said, "why": why}


def _groups(runs: Sequence[Run]) -> Groups | None:
    """The groups that intervals are over: those of the clips of one run; runs are their own."""
    return runs[0].scored.groups if len(runs) == 1 else None


def _few_speakers(runs: Sequence[Run]) -> str | None:
    """Why nothing can be said of the clips of one fold, which further seeds do not make more of; None for several."""
    groups = runs[0].scored.groups
    return None if groups is None or len({run.job.fold for run in runs}) > 1 else groups.too_few


def _dense_interval(rows: Sequence[Mapping[str, Any]], metric: str) -> Interval:
    first = next(one for one in rows if one["keep_rate"] == 1.0)
    return _interval_of(first, metric)


def _interval_of(row: Mapping[str, Any], name: str) -> Interval:
    """What `Interval.columns` made columns of."""
    values = (row[column] for column in (name, f"{name}_low", f"{name}_high"))
    return Interval(*(math.nan if value is None else value for value in values))


def unequal_to_random(point: Pruning) -> str | None:
    """Why a point cannot be held against random pruning at its keep rate, or None."""
    if point.attention_mass > 0.0:
        return "attention_mass leaves clips more patches than random pruning at this keep rate does"
    return None


def _against_random(
    shown: Pruning, row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], runs: Sequence[Run]
) -> dict[str, str | None]:
    """Whether a row's pruning is better than random pruning, or why that cannot be said."""
    if row["over_random"] is None:
        return {"against_random": None, "why_random": None}
    if reason := unequal_to_random(shown) or _few_speakers(runs):
        return {"against_random": CANNOT_SAY, "why_random": reason}
    over = _interval_of(row, "over_random")
    clips = sum({run.job.fold: len(run.scored.ids) for run in runs}.values())
    chance = statistics.fmean(run.chance for run in runs)
    dense = _dense_interval(rows, runs[0].job.part.metric)
    said, why = beats(over, clips, dense, chance, groups=_groups(runs))
    return {"against_random": said, "why_random": why}


def _times(runs: Sequence[Run], point: Pruning, dense: Pruning) -> dict[str, float | None]:
    """Median over the runs."""
    times = [run.scored.milliseconds[point] for run in runs]
    whole = [run.scored.milliseconds[dense] for run in runs]
    known = [(ours, theirs) for ours, theirs in zip(times, whole, strict=True) if ours is not None and theirs]
    if not known:
        return {"ms_per_clip": None, "speed_up": None}
    return {
        "ms_per_clip": statistics.median(ours for ours, _ in known),
        "speed_up": statistics.median(theirs / ours for ours, theirs in known),
    }


def class_rows(runs: Sequence[Run], points: Mapping[Pruning, Pruning]) -> list[dict[str, Any]]:
    """A row a point and label: its positives, and means over the runs in which a value is defined."""
    each_fold = {run.job.fold: run for run in runs}.values()
    rows = []
    for shown, point in points.items():
        positives = np.sum([run.labels[point].positives for run in each_fold], axis=0)
        found = label_rows(runs[0].job.part.labels, positives, [run.labels[point] for run in runs])
        rows += [{**_ways(shown), **row} for row in found]
    return rows


def label_rows(
    labels: Sequence[str], positives: NDArray[np.int64], found: Sequence[LabelMetrics]
) -> list[dict[str, Any]]:
    """A row a label: label, positives, average_precision, AUC, and recall and precision where clips have one label.

    Args:
        labels: names.
        positives: (labels,) clips of each.
        found: of each run, over whose defined values the mean is taken; None where there are none.
    """
    columns = {
        "average_precision": _defined_mean([one.average_precision for one in found]),
        "AUC": _defined_mean([one.roc_area for one in found]),
    }
    for name in ("recall", "precision"):
        values = [value for one in found if (value := getattr(one, name)) is not None]
        if values:
            columns[name] = _defined_mean(values)
    return [
        {
            "label": label,
            "positives": int(positives[number]),
            **{name: plain(float(column[number])) for name, column in columns.items()},
        }
        for number, label in enumerate(labels)
    ]


def confusion_rows(labels: Sequence[str], counts: NDArray[np.int64]) -> list[dict[str, Any]]:
    """A row a label and answer that occurs: label, answer, clips; wrong answers first, the commonest first.

    Args:
        labels: names.
        counts: see `spectrim.measure.metrics.confusion_counts`.
    """
    pairs = sorted(np.argwhere(counts).tolist(), key=lambda pair: (pair[0] == pair[1], -counts[tuple(pair)], pair))
    return [
        {"label": labels[label], "answer": labels[answer], "clips": int(counts[label, answer])}
        for label, answer in pairs
    ]


def point_confusions(runs: Sequence[Run], points: Mapping[Pruning, Pruning]) -> list[dict[str, Any]]:
    """The same at each point, over all runs; none where each label is a question of its own."""
    rows = []
    for shown, point in points.items():
        if all(point in run.confusions for run in runs):
            counts = np.sum([run.confusions[point] for run in runs], axis=0)
            rows += [{**_ways(shown), **row} for row in confusion_rows(runs[0].job.part.labels, counts)]
    return rows


def _defined_mean(values: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Mean over runs of what is not NaN, (labels,); NaN where all are."""
    stack = np.stack(values)
    known = (~np.isnan(stack)).sum(axis=0)
    return np.divide(np.nansum(stack, axis=0), known, out=np.full(stack.shape[1], np.nan), where=known > 0)


def facts_of(runs: Sequence[Run], resamples: int) -> dict[str, Any]:
    """What all rows stand on: folds, seeds, clips, what is left out, and how the intervals were made."""
    part = runs[0].job.part
    each_fold = list({run.job.fold: run for run in runs}.values())
    clips = sum(len(run.scored.ids) for run in each_fold)
    undefined: dict[str, dict[str, None]] = {}
    for run in runs:
        for metric, numbers in next(iter(run.labels.values())).undefined.items():
            undefined.setdefault(metric, {}).update(dict.fromkeys(run.job.part.labels[number] for number in numbers))
    groups = _groups(runs)
    if len(runs) > 1:
        several = 1 < len(each_fold) < len(runs)
        units = f"{len(each_fold)} folds, the seeds of each averaged" if several else f"{len(runs)} runs"
        interval = f"95 %, Student's t over {units}"
    else:
        interval = how_made(part.metric, resamples, clips, groups)
    return {
        "folds": [run.job.fold for run in each_fold if run.job.fold is not None],
        "seeds": list(dict.fromkeys(run.job.seed for run in runs if run.job.seed is not None)),
        "runs": len(runs),
        "metric": part.metric,
        "labels": len(part.labels),
        "clips": clips,
        "groups": None if groups is None else groups.number,
        "unreadable": [name for run in each_fold for name in run.scored.unreadable],
        "missing": [name for run in each_fold for name in run.job.part.missing],
        "drawn_from": part.drawn_from,
        "undefined": {metric: list(labels) for metric, labels in undefined.items()},
        "interval": interval,
    }


def run_row(run: Run, points: Mapping[Pruning, Pruning]) -> dict[str, Any]:
    """A run by itself, with a row a point."""
    rows = [
        {
            **_ways(shown),
            **run.metrics[point],
            "ms_per_clip": run.scored.milliseconds[point],
        }
        for shown, point in points.items()
    ]
    job = run.job
    return {"model": name_of(job.model), "fold": job.fold, "seed": job.seed, "clips": len(run.scored.ids), "rows": rows}


def plain(value: Any) -> Any:
    """A value for JSON: None for floats that are not finite."""
    if isinstance(value, Mapping):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
