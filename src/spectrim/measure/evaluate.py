"""A trained model, or one for each fold and seed, on a data set at several keep rates: rows with intervals."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from spectrim.checkpoints import DescribedSource, describe
from spectrim.config import SpectrimConfig
from spectrim.data import AudioDataset, DataSet, Folds, find_data_set, folds_of
from spectrim.errors import InvalidSetting, one_of
from spectrim.inference.backend import Backend
from spectrim.inference.opening import ModelSource, name_of, open_model, pruned_by
from spectrim.machine import default_workers, environment, resolve_device
from spectrim.measure.benchmark import check_draws
from spectrim.measure.metric_intervals import RESAMPLES
from spectrim.measure.runs import Job, Run, class_rows, facts_of, judge, plain, point_confusions, result_rows, run_row
from spectrim.measure.scoring import Progress, check_measurable, label_columns, score_part
from spectrim.measure.trained_clips import warn_of_other_clips
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.criteria import AUTO, BACKBONE_CRITERIA, CRITERIA, nearest_criterion
from spectrim.pruning.pruning import FLAT_NAMES, Pruning, check_blocks, several_rates
from spectrim.pruning.reducers import REDUCERS

RANDOM = "random"
"""The criterion that knows nothing."""

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
        facts: model, data_set, part, folds, seeds, metric, labels, clips (over all folds, those that count), groups (of
            the clips of one run, that the intervals are over; None where there are none), drawn_from (see
            `spectrim.data.AudioDataset`), unreadable and missing (ids of files that do not count), undefined (metric →
            labels that its mean leaves out in some run), interval (how the intervals were made), batch_size, workers,
            and environment (machine and versions).
        rows: one a criterion and keep rate, means over the runs: keep_rate, criterion, which is ``"auto"`` where the
            reducer reads no scores, reducer, draws; the data set's metric with ``_low`` and ``_high``, the ends of its
            interval; change, its difference from the dense model of the same run, with change_low and change_high; all
            metrics of `spectrim.measure.metrics.summarise`; paper_macs and executed_macs of a clip, macs_saved (share
            of the dense model's paper_macs); ms_per_clip and speed_up (against the dense model; None where too few
            batches were timed); discordance, the share of clips on which either this point or the dense one is right
            (accuracy only), under_one_point, whether less than one point is lost ("yes", "no", "unclear" or "cannot
            say"; None for the dense model), and why it cannot be said;
            over_random, the difference of the metric from random pruning at the same keep rate, with over_random_low
            and over_random_high, against_random ("better", "worse", "no better" or "cannot say") and why_random; None
            without draws, for the dense model and for random pruning itself.
        per_class: one a criterion, keep rate and label: positives (over all folds), average_precision, AUC, and recall
            and precision where clips have one label; means over the runs in which they are defined, else None.
        confusions: one a criterion, keep rate, label and answer that occurs: clips, over all runs; none where clips can
            have several labels.
        runs: one a fold and seed: model, fold, seed, clips, and ``rows`` with keep_rate, criterion, all metrics and
            ms_per_clip.
    """

    facts: dict[str, Any]
    rows: list[dict[str, Any]]
    per_class: list[dict[str, Any]]
    confusions: list[dict[str, Any]]
    runs: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """All of it for JSON, with None for what is not defined or infinite (d-prime of a perfect AUC)."""
        return plain(asdict(self))


def evaluate(
    model: ModelSource,
    data_set: str,
    root: str | Path,
    *,
    part: str = "test",
    folds: Folds = (),
    seeds: Sequence[int] = (),
    keep_rates: float | Sequence[float] = (1.0, 0.7, 0.5),
    criteria: str | Sequence[str] | None = None,
    reducer: str | None = None,
    draws: int = 0,
    options: Mapping[str, Any] | None = None,
    batch_size: int = 32,
    device: str = "auto",
    workers: int | None = None,
    resamples: int = RESAMPLES,
    on_progress: Progress | None = None,
) -> Evaluation:
    """Score a part of a data set at several keep rates and criteria, and say how sure the result is.

    Every clip is scored once at each operating point; keep rate 1 always is one, for the difference that pruning makes.
    With several folds or seeds, there is a run for each pair: intervals are Student's t over the folds, the seeds of
    each averaged, or over the seeds of one fold; folds share training clips and seeds share test clips, so that they
    are not quite independent. One run gets bootstrap intervals over its clips, or over the groups (speakers, longer
    recordings) that they are of, which say nothing of other seeds; see
    `spectrim.measure.metric_intervals.clip_intervals`.

    Args:
        model: what `spectrim.from_pretrained` takes, or a model in memory. ``{fold}`` and ``{seed}`` in a name stand
            for their numbers.
        data_set: name in `spectrim.data.DATA_SETS`.
        root: where it is on disk.
        part: of the data set.
        folds: held-out folds, one or several, one after another, or ``"all"``; none for what the data set opens with.
        seeds: that tell the models of a fold apart.
        keep_rates: in (0, 1]; one or several.
        criteria: names in `spectrim.pruning.criteria.CRITERIA`, or ``"auto"``, one or several; None for the model's
            own.
        reducer: what becomes of the patches that are not kept; None as the model says. Of a model in memory,
            `AudioTransformer.set_pruning` says it.
        draws: tables of random scores, two at least, whose mean stands beside every ranking as random pruning, with the
            luck of the draw in its intervals where there is one run; 0 for none. Metrics of single labels and of single
            runs, and times, are those of the first.
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
    check_draws(draws)
    rates = several_rates(keep_rates)
    criteria = _criteria(criteria)
    model = pruned_by(model, None, reducer)
    resolve_device(device)
    entry = find_data_set(data_set)
    jobs = _jobs(entry, data_set, Path(root), part, model, folds, seeds, dict(options or {}))
    for job in jobs:
        if not isinstance(job.model, Backend | AudioTransformer):
            warn_of_other_clips(job.model, data_set, Path(root), part, job.part)
    jobs = [_with_model_labels(job) for job in jobs]
    own, backbone = _check_models(jobs, SIZES if criteria is not None else (*SIZES, "criterion"))
    asked = (own.criterion,) if criteria is None else criteria
    beside = (RANDOM,) if draws and RANDOM not in asked and min(rates) < 1.0 else ()
    points, dense = _points(own, backbone, rates, (*asked, *beside))
    points = {shown: point for shown, point in points.items() if shown.criterion not in beside or point != dense}
    for job in jobs:
        check_measurable(job.part, part)
    workers = default_workers() if workers is None else workers
    drawn = {point: drawn_again(point, draws) for point in points.values()}
    runs, config = _score(jobs, drawn, dense, batch_size, device, workers, on_progress)
    named = {"model": name_of(model), "data_set": data_set, "part": part}
    ran = {"batch_size": batch_size, "workers": workers, "environment": environment(str(resolve_device(device)))}
    facts = {**named, **facts_of(runs, resamples), **ran}
    rows = result_rows(runs, points, dense, config, resamples, drawn)
    return Evaluation(
        facts,
        rows,
        class_rows(runs, points),
        point_confusions(runs, points),
        [run_row(run, points) for run in runs],
    )


def _score(
    jobs: Sequence[Job],
    drawn: Mapping[Pruning, Sequence[Pruning]],
    dense: Pruning,
    batch_size: int,
    device: str,
    workers: int,
    on_progress: Progress | None,
) -> tuple[list[Run], SpectrimConfig]:
    """One job after another, each at all points; gives the runs, and the configuration that the models share."""
    runs = []
    total, done = sum(len(job.part) for job in jobs), 0
    distinct = list(dict.fromkeys([dense, *(point for draws in drawn.values() for point in draws)]))
    for job in jobs:

        def tell(clips: int, _: int, before: int = done) -> None:
            if on_progress is not None:
                on_progress(before + clips, total)

        network = open_model(job.model, device=device)
        scored = score_part(network, job.part, distinct, batch_size=batch_size, workers=workers, on_progress=tell)
        done += len(job.part)
        runs.append(judge(job, scored, dense, keep=len(jobs) == 1))
    return runs, network.config


def drawn_again(point: Pruning, draws: int) -> list[Pruning]:
    """A point, and where it ranks at random and prunes, the same with other seeds: ``draws`` of them in all."""
    if point.criterion != RANDOM or not point.prunes:
        return [point]
    return [point.changed({"random_seed": point.seed + number}) for number in range(max(draws, 1))]


def _criteria(given: str | Sequence[str] | None) -> tuple[str, ...] | None:
    """The criteria that a caller names, one or several; None for the model's own."""
    if given is None:
        return None
    criteria = (given,) if isinstance(given, str) else tuple(given)
    if not criteria:
        raise InvalidSetting("criterion", list(criteria), one_of((AUTO, *CRITERIA)))
    for criterion in criteria:
        if criterion not in (AUTO, *CRITERIA):
            raise InvalidSetting("criterion", criterion, nearest_criterion(str(criterion)))
    return criteria


def _jobs(
    entry: DataSet,
    name: str,
    root: Path,
    part: str,
    source: ModelSource,
    folds: Folds,
    seeds: Sequence[int],
    options: dict[str, Any],
) -> list[Job]:
    """A model and an opened part for each fold and seed."""
    model = name_of(source)
    numbers = folds_of(name, root, folds, options, "the option folds=5")
    if numbers and "fold" in options:
        raise InvalidSetting("option fold", options["fold"], "nothing where folds are named beside it")
    for field, given in (("fold", numbers), ("seed", tuple(dict.fromkeys(seeds)))):
        named = f"{{{field}}}" in model and not isinstance(source, Backend | AudioTransformer)
        if len(given) > 1 and not named:
            why = "a model trained without one fold has heard the others" if field == "fold" else "each has its model"
            raise InvalidSetting("model", model, f"a name with {{{field}}} in it for {len(given)} {field}s: {why}")
        if named and not given:
            raise InvalidSetting(f"{field}s", [], f"at least one {field}, for {{{field}}} in {model}")
    opened: dict[int | None, AudioDataset] = {fold: entry.open(root, part, **options, fold=fold) for fold in numbers}
    return [
        Job(_model_of(source, fold, seed), fold, seed, clips)
        for fold, clips in (opened or {None: entry.open(root, part, **options)}).items()
        for seed in dict.fromkeys(seeds) or (None,)
    ]


def _model_of(source: ModelSource, fold: int | None, seed: int | None) -> ModelSource:
    """The model of a fold and seed, with what is said of it."""
    if isinstance(source, Backend | AudioTransformer):
        return source
    name = os.fspath(source).replace("{fold}", str(fold)).replace("{seed}", str(seed))
    return replace(source, place=name) if isinstance(source, DescribedSource) else name


def _described(model: ModelSource) -> Mapping[str, Any]:
    """`describe` of a model's name; as much of it as is read here of one in memory.

    Raises:
        InvalidSetting: it is an exported file.
    """
    if not isinstance(model, Backend | AudioTransformer):
        return describe(model)
    config, pruning = model.config, model.config.pruning
    if isinstance(model, Backend):
        pruning = model.pruning
        if not model.prunable:
            allowed = "a model in PyTorch: an exported file has one operating point only"
            raise InvalidSetting("model", model.name, allowed)
    labels = [config.id2label[index] for index in range(config.num_labels)]
    return {**{name: getattr(config, name) for name in SIZES}, **pruning.to_flat(), "label_names": labels}


def _with_model_labels(job: Job) -> Job:
    """A job whose targets have all labels of its model, where the clips alone do not name them all."""
    labels = _described(job.model)["label_names"]
    if set(job.part.labels) < set(labels) and len(set(labels)) == len(labels):
        return replace(job, part=job.part.with_labels(labels))
    return job


def _check_models(jobs: Sequence[Job], alike: Sequence[str]) -> tuple[Pruning, str]:
    """Make sure that all models are there, fit the data, and have fields alike; gives their pruning and backbone."""
    first = None
    for job in jobs:
        described = _described(job.model)
        label_columns(described["label_names"], job.part.labels)
        if job.part.labels != jobs[0].part.labels:
            raise InvalidSetting("fold", job.fold, f"one with the labels of fold {jobs[0].fold}, in the same order")
        first = first or described
        for field in alike:
            if described[field] != first[field]:
                raise InvalidSetting(
                    f"{field} of {name_of(job.model)}", described[field], f"{first[field]}, as in the others"
                )
    if first is None:
        raise InvalidSetting("model", "", "one model at least")
    return Pruning().changed({name: first[name] for name in FLAT_NAMES}), first["backbone"]


def _points(
    own: Pruning, backbone: str, keep_rates: Sequence[float], criteria: Sequence[str]
) -> tuple[dict[Pruning, Pruning], Pruning]:
    """Points of the table → where they are measured, and the dense model's; at keep rate 1 all criteria are one."""
    scored = REDUCERS[own.reducer].reads == "scores"
    auto = BACKBONE_CRITERIA[backbone] if scored else AUTO
    names = list(dict.fromkeys(auto if name == AUTO else name for name in criteria))
    rates = list(dict.fromkeys([1.0, *map(float, keep_rates)] if 1.0 not in keep_rates else map(float, keep_rates)))
    ranked = [own.at_random(own.seed) if name == RANDOM else own.changed({"criterion": name}) for name in names]
    table = [point.changed({"keep_rate": rate}) for point in ranked for rate in rates]
    dense = ranked[0].changed({"keep_rate": 1.0})
    for point in table:
        check_blocks(point)
    return {point: dense if point.keep_rate == 1.0 else point for point in table}, dense
