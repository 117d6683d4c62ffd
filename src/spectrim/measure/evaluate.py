"""A trained model, or one for each fold and seed, on a data set at several keep rates: rows with intervals."""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from spectrim.checkpoints import DescribedSource, describe
from spectrim.data import AudioDataset, DataSet, find_data_set
from spectrim.errors import InvalidSetting, one_of
from spectrim.inference.opening import open_model
from spectrim.machine import default_workers, environment, resolve_device
from spectrim.measure.metric_intervals import RESAMPLES, clip_intervals
from spectrim.measure.metrics import LabelMetrics, chance_level, label_metrics, right_clips, summarise
from spectrim.measure.scoring import Progress, Scored, check_measurable, label_columns, score_part
from spectrim.network.macs import macs
from spectrim.pruning.criteria import AUTO, BACKBONE_CRITERIA, CRITERIA
from spectrim.pruning.pruning import FLAT_NAMES, Pruning, check_keep_rate
from spectrim.stats.ground import CANNOT_SAY, MARGIN, Interval, near_chance, within_margin
from spectrim.stats.t_intervals import mean_over_runs

SIZES = (
    *("backbone", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "patch_size"),
    *("frequency_stride", "time_stride", "max_length", "num_mel_bins"),
    *(name for name in FLAT_NAMES if name not in ("keep_rate", "criterion")),
)
"""What the models of several folds and seeds must have in common."""


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found; all values are plain, for JSON and CSV.

    Attributes:
        facts: model, data_set, part, folds, seeds, metric, labels, clips (over all folds, those that count), unreadable
            and missing (ids of files that do not), undefined (metric → labels that its mean leaves out in some run),
            interval (how the intervals were made), batch_size, workers, and environment (machine and versions).
        rows: one a criterion and keep rate, means over the runs: keep_rate, criterion; the data set's metric with
            ``_low`` and ``_high``, the ends of its interval; change, its difference from the dense model of the same
            run, with change_low and change_high; all metrics of `spectrim.measure.metrics.summarise`; paper_macs and
            executed_macs of a clip, macs_saved (share of the dense model's paper_macs); ms_per_clip and speed_up
            (against the dense model; None where too few batches were timed); discordance, the share of clips on which
            either this point or the dense one is right (accuracy only), under_one_point, whether less than one point
            is lost ("yes", "no", "unclear" or "cannot say"; None for the dense model), and why it cannot be said.
        per_class: one a criterion, keep rate and label: positives (over all folds), average_precision, AUC, and recall
            where clips have one label; means over the runs in which they are defined, else None.
        runs: one a fold and seed: model, fold, seed, clips, and ``rows`` with keep_rate, criterion, all metrics and
            ms_per_clip.
    """

    facts: dict[str, Any]
    rows: list[dict[str, Any]]
    per_class: list[dict[str, Any]]
    runs: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """All of it for JSON, with None for what is not defined or infinite (d-prime of a perfect AUC)."""
        return _plain(asdict(self))


@dataclass(frozen=True)
class _Job:
    """One model on its part of the data."""

    model: str | DescribedSource
    fold: int | None
    seed: int | None
    part: AudioDataset


@dataclass(frozen=True, eq=False)
class _Run:
    """What became of a job; scores only where there is no other."""

    job: _Job
    scored: Scored
    labels: Mapping[Pruning, LabelMetrics]
    metrics: Mapping[Pruning, Mapping[str, float]]
    discordant: Mapping[Pruning, int]
    chance: float


def evaluate(
    model: str | os.PathLike[str],
    data_set: str,
    root: str | Path,
    *,
    part: str = "test",
    folds: Sequence[int] | Literal["all"] = (),
    seeds: Sequence[int] = (),
    keep_rates: Sequence[float] = (1.0, 0.7, 0.5),
    criteria: Sequence[str] = ("auto",),
    options: Mapping[str, Any] | None = None,
    batch_size: int = 32,
    device: str = "auto",
    workers: int | None = None,
    resamples: int = RESAMPLES,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Score a part of a data set at several keep rates and criteria, and say how sure the result is.

    Every clip is scored once at each operating point; keep rate 1 always is one, for the difference that pruning makes.
    With several folds or seeds, there is a run for each pair: intervals are Student's t over the runs, whose folds
    share training clips and whose seeds share test clips, so that they are not quite independent. One run gets
    bootstrap intervals over its clips, which say nothing of other seeds; see
    `spectrim.measure.metric_intervals.clip_intervals`.

    Args:
        model: what `spectrim.from_pretrained` takes. ``{fold}`` and ``{seed}`` in its name stand for their numbers.
        data_set: name in `spectrim.data.DATA_SETS`.
        root: where it is on disk.
        part: of the data set.
        folds: held-out folds, one after another, or ``"all"``; none for what the data set opens with.
        seeds: that tell the models of a fold apart.
        keep_rates: in (0, 1].
        criteria: names in `spectrim.pruning.criteria.CRITERIA`, or ``"auto"``.
        options: of the data set's opener.
        batch_size, device: see `spectrim.measure.scoring.score_part`.
        workers: decoding processes; None for a few.
        resamples: of the bootstrap.
        on_progress: called with clips done and clips in all, over all runs.

    Raises:
        InvalidSetting: a setting is out of range, or model, folds, seeds and data do not fit; before any clip is
            scored.
        DataError: the data set is not there, or too much of it is missing or unreadable.
        CheckpointError: a model cannot be loaded.
        SpectrimError: a score is NaN or infinite.
    """
    _check(keep_rates, criteria)
    resolve_device(device)
    entry = find_data_set(data_set)
    jobs = _jobs(entry, data_set, Path(root), part, model, folds, seeds, dict(options or {}))
    jobs = [_with_model_labels(job) for job in jobs]
    points, dense = _points(*_check_models(jobs), keep_rates, criteria)
    for job in jobs:
        check_measurable(job.part, part)
    workers = default_workers() if workers is None else workers
    runs = []
    total, done = sum(len(job.part) for job in jobs), 0
    for job in jobs:

        def tell(clips: int, _: int, before: int = done) -> None:
            if on_progress is not None:
                on_progress(before + clips, total)

        network = open_model(job.model, device=device)
        distinct = list(dict.fromkeys([dense, *points.values()]))
        scored = score_part(network, job.part, distinct, batch_size=batch_size, workers=workers, on_progress=tell)
        done += len(job.part)
        runs.append(_judge(job, scored, dense, keep=len(jobs) == 1))
    count = {point: macs(network.config, pruning=point) for point in points}
    rows = _rows(runs, points, dense, resamples)
    for row, (shown, counted) in zip(rows, count.items(), strict=True):
        whole = macs(network.config, keep_rate=1.0).paper
        row |= {"paper_macs": counted.paper, "executed_macs": counted.executed, "macs_saved": 1 - counted.paper / whole}
        point = points[shown]
        row |= _times(runs, point, dense)
        nothing = {"discordance": None, "under_one_point": None, "why": None}
        row |= nothing if point == dense else _judged(row, point, rows, runs)
    named = {"model": os.fspath(model), "data_set": data_set, "part": part}
    ran = {"batch_size": batch_size, "workers": workers, "environment": environment(str(resolve_device(device)))}
    facts = {**named, **_facts(runs, resamples), **ran}
    return Evaluation(facts, rows, _per_class(runs, points), [_run_row(run, points) for run in runs])


def _check(keep_rates: Sequence[float], criteria: Sequence[str]) -> None:
    if not keep_rates:
        raise InvalidSetting("keep_rates", list(keep_rates), "at least one number in (0, 1]")
    for rate in keep_rates:
        check_keep_rate(rate)
    if not criteria:
        raise InvalidSetting("criterion", list(criteria), one_of((AUTO, *CRITERIA)))
    for criterion in criteria:
        if criterion not in (AUTO, *CRITERIA):
            raise InvalidSetting("criterion", criterion, one_of((AUTO, *CRITERIA)))


def _jobs(
    entry: DataSet,
    name: str,
    root: Path,
    part: str,
    source: str | os.PathLike[str],
    folds: Sequence[int] | Literal["all"],
    seeds: Sequence[int],
    options: dict[str, Any],
) -> list[_Job]:
    """A model and an opened part for each fold and seed."""
    model = os.fspath(source)
    if folds and "fold" in options:
        raise InvalidSetting("option fold", options["fold"], "nothing where folds are named beside it")
    if folds == "all":
        folds = entry.folds or entry.open(root, part, **options).folds
        if not folds:
            raise InvalidSetting("folds", "all", f"nothing: {name} in {root} has no folds")
    numbers = tuple(dict.fromkeys(folds))
    for field, given in (("fold", numbers), ("seed", tuple(dict.fromkeys(seeds)))):
        named = f"{{{field}}}" in model
        if len(given) > 1 and not named:
            why = "a model trained without one fold has heard the others" if field == "fold" else "each has its model"
            raise InvalidSetting("model", model, f"a name with {{{field}}} in it for {len(given)} {field}s: {why}")
        if named and not given:
            raise InvalidSetting(f"{field}s", [], f"at least one {field}, for {{{field}}} in {model}")
    opened: dict[int | None, AudioDataset] = {fold: entry.open(root, part, **options, fold=fold) for fold in numbers}
    return [
        _Job(_model_of(source, fold, seed), fold, seed, clips)
        for fold, clips in (opened or {None: entry.open(root, part, **options)}).items()
        for seed in dict.fromkeys(seeds) or (None,)
    ]


def _model_of(source: str | os.PathLike[str], fold: int | None, seed: int | None) -> str | DescribedSource:
    """The model of a fold and seed, with what is said of it."""
    name = os.fspath(source).replace("{fold}", str(fold)).replace("{seed}", str(seed))
    return replace(source, place=name) if isinstance(source, DescribedSource) else name


def _with_model_labels(job: _Job) -> _Job:
    """A job whose targets have all labels of its model, where the clips alone do not name them all."""
    labels = describe(job.model)["label_names"]
    if set(job.part.labels) < set(labels) and len(set(labels)) == len(labels):
        return replace(job, part=job.part.with_labels(labels))
    return job


def _check_models(jobs: Sequence[_Job]) -> tuple[Pruning, str]:
    """Make sure that all models are there, fit the data, and are of one kind; gives their pruning and backbone."""
    first = None
    for job in jobs:
        described = describe(job.model)
        label_columns(described["label_names"], job.part.labels)
        if job.part.labels != jobs[0].part.labels:
            raise InvalidSetting("fold", job.fold, f"one with the labels of fold {jobs[0].fold}, in the same order")
        first = first or described
        for field in SIZES:
            if described[field] != first[field]:
                raise InvalidSetting(f"{field} of {job.model}", described[field], f"{first[field]}, as in the others")
    if first is None:
        raise InvalidSetting("model", "", "one model at least")
    return Pruning().changed({name: first[name] for name in FLAT_NAMES}), first["backbone"]


def _points(
    own: Pruning, backbone: str, keep_rates: Sequence[float], criteria: Sequence[str]
) -> tuple[dict[Pruning, Pruning], Pruning]:
    """Points of the table → where they are measured, and the dense model's; at keep rate 1 all criteria are one."""
    names = list(dict.fromkeys(BACKBONE_CRITERIA[backbone] if name == AUTO else name for name in criteria))
    rates = list(dict.fromkeys([1.0, *map(float, keep_rates)] if 1.0 not in keep_rates else map(float, keep_rates)))
    table = [own.changed({"keep_rate": rate, "criterion": name}) for name in names for rate in rates]
    dense = own.changed({"keep_rate": 1.0, "criterion": names[0]})
    return {point: dense if point.keep_rate == 1.0 else point for point in table}, dense


def _judge(job: _Job, scored: Scored, dense: Pruning, *, keep: bool) -> _Run:
    """Metrics of a run; scores are kept only on demand."""
    multi_label = job.part.each_label_apart
    labels, metrics = {}, {}
    for point, scores in scored.scores.items():
        labels[point] = label_metrics(scores, scored.targets, multi_label=multi_label)
        metrics[point] = summarise(scores, scored.targets, labels[point], multi_label=multi_label)
    discordant = {}
    if job.part.metric == "accuracy":
        right = {point: right_clips(scores, scored.targets) for point, scores in scored.scores.items()}
        discordant = {point: int(np.count_nonzero(hits != right[dense])) for point, hits in right.items()}
    chance = chance_level(scored.targets, job.part.metric)
    if not keep:
        empty = np.empty((0, 0), dtype=np.float32)
        scored = Scored(scored.ids, empty, {}, scored.milliseconds, scored.unreadable)
    return _Run(job, scored, labels, metrics, discordant, chance)


def _rows(
    runs: Sequence[_Run], points: Mapping[Pruning, Pruning], dense: Pruning, resamples: int
) -> list[dict[str, Any]]:
    """Means over the runs, and intervals of the data set's metric and its change."""
    metric = runs[0].job.part.metric
    measured = list(dict.fromkeys([dense, *points.values()]))
    bounds = {}
    if len(runs) == 1:
        scored = runs[0].scored
        found = clip_intervals(
            [scored.scores[point] for point in measured], scored.targets, metric, resamples=resamples
        )
        bounds = {point: [float(ends[number]) for ends in found] for number, point in enumerate(measured)}
    else:
        for point in measured:
            value = mean_over_runs([run.metrics[point][metric] for run in runs])
            lost = mean_over_runs([run.metrics[point][metric] - run.metrics[dense][metric] for run in runs])
            bounds[point] = [value.low, value.high, lost.low, lost.high]
    rows = []
    for shown, point in points.items():
        means = {name: statistics.fmean(run.metrics[point][name] for run in runs) for name in runs[0].metrics[point]}
        low, high, change_low, change_high = bounds[point]
        change = statistics.fmean(run.metrics[point][metric] - run.metrics[dense][metric] for run in runs)
        rows.append(
            {
                **{"keep_rate": shown.keep_rate, "criterion": shown.criterion},
                **{metric: means.pop(metric), f"{metric}_low": low, f"{metric}_high": high},
                **{"change": change, "change_low": change_low, "change_high": change_high, **means},
            }
        )
    return rows


def _judged(
    row: Mapping[str, Any], point: Pruning, rows: Sequence[Mapping[str, Any]], runs: Sequence[_Run]
) -> dict[str, Any]:
    """Whether a row loses less than one point, or why that cannot be said."""
    metric = runs[0].job.part.metric
    clips = sum({run.job.fold: len(run.scored.ids) for run in runs}.values())
    seen = sum(len(run.scored.ids) for run in runs)
    share = sum(run.discordant[point] for run in runs) / seen if metric == "accuracy" else None
    first = next(one for one in rows if one["keep_rate"] == 1.0)
    dense = Interval(first[metric], first[f"{metric}_low"], first[f"{metric}_high"])
    change = Interval(row["change"], row["change_low"], row["change_high"])
    counted = clips if len(runs) == 1 or share is not None else None
    chance = statistics.fmean(run.chance for run in runs)
    why = within_margin(change, counted, share) or near_chance(dense, chance)
    said = CANNOT_SAY if why else "yes" if change.low > -MARGIN else "no" if change.high < -MARGIN else "unclear"
    return {"discordance": share, "under_one_point": said, "why": why}


def _times(runs: Sequence[_Run], point: Pruning, dense: Pruning) -> dict[str, float | None]:
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


def _per_class(runs: Sequence[_Run], points: Mapping[Pruning, Pruning]) -> list[dict[str, Any]]:
    each_fold = {run.job.fold: run for run in runs}.values()
    rows = []
    for shown, point in points.items():
        found = [run.labels[point] for run in runs]
        positives = np.sum([run.labels[point].positives for run in each_fold], axis=0)
        columns = {
            "average_precision": _defined_mean([one.average_precision for one in found]),
            "AUC": _defined_mean([one.roc_area for one in found]),
        }
        recalls = [one.recall for one in found if one.recall is not None]
        if recalls:
            columns["recall"] = _defined_mean(recalls)
        for number, label in enumerate(runs[0].job.part.labels):
            values = {name: _plain(float(column[number])) for name, column in columns.items()}
            head = {"keep_rate": shown.keep_rate, "criterion": shown.criterion, "label": label}
            rows.append({**head, "positives": int(positives[number]), **values})
    return rows


def _defined_mean(values: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Mean over runs of what is not NaN, (labels,); NaN where all are."""
    stack = np.stack(values)
    known = (~np.isnan(stack)).sum(axis=0)
    return np.divide(np.nansum(stack, axis=0), known, out=np.full(stack.shape[1], np.nan), where=known > 0)


def _facts(runs: Sequence[_Run], resamples: int) -> dict[str, Any]:
    part = runs[0].job.part
    each_fold = list({run.job.fold: run for run in runs}.values())
    clips = sum(len(run.scored.ids) for run in each_fold)
    undefined: dict[str, dict[str, None]] = {}
    for run in runs:
        for metric, numbers in next(iter(run.labels.values())).undefined.items():
            undefined.setdefault(metric, {}).update(dict.fromkeys(run.job.part.labels[number] for number in numbers))
    if len(runs) > 1:
        interval = f"95 %, Student's t over {len(runs)} runs"
    elif part.metric == "accuracy":
        interval = f"95 %, percentiles of {resamples} bootstrap resamples of the {clips} clips"
    else:
        interval = f"95 %, 1.96 standard errors by {resamples} bootstrap resamples of the {clips} clips"
    return {
        "folds": [run.job.fold for run in each_fold if run.job.fold is not None],
        "seeds": list(dict.fromkeys(run.job.seed for run in runs if run.job.seed is not None)),
        "runs": len(runs),
        "metric": part.metric,
        "labels": len(part.labels),
        "clips": clips,
        "unreadable": [name for run in each_fold for name in run.scored.unreadable],
        "missing": [name for run in each_fold for name in run.job.part.missing],
        "undefined": {metric: list(labels) for metric, labels in undefined.items()},
        "interval": interval,
    }


def _run_row(run: _Run, points: Mapping[Pruning, Pruning]) -> dict[str, Any]:
    rows = [
        {
            **{"keep_rate": shown.keep_rate, "criterion": shown.criterion},
            **run.metrics[point],
            "ms_per_clip": run.scored.milliseconds[point],
        }
        for shown, point in points.items()
    ]
    job = run.job
    return {"model": str(job.model), "fold": job.fold, "seed": job.seed, "clips": len(run.scored.ids), "rows": rows}


def _plain(value: Any) -> Any:
    """A value for JSON: None for floats that are not finite."""
    if isinstance(value, Mapping):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
