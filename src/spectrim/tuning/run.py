"""`tune`: from calibration clips and a target to an operating point, and what can be promised of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from spectrim.comparison.measuring import Measuring, Progress
from spectrim.comparison.methods import (
    ATTENTION,
    DEFAULT_METHODS,
    DENSE,
    Case,
    Method,
    fitting,
    plan_cases,
    read_methods,
)
from spectrim.comparison.rows import Row, accuracy_rows, verdicts
from spectrim.comparison.run import REPEATS, open_part, open_prunable
from spectrim.comparison.store import Store
from spectrim.data import AudioDataset
from spectrim.data.dataset import evenly, some
from spectrim.data.splits import halves
from spectrim.errors import DataError, InvalidSetting, SpectrimError
from spectrim.inference.backend import Backend
from spectrim.inference.opening import ModelSource, name_of
from spectrim.machine import default_workers, environment
from spectrim.measure.benchmark import check_amount
from spectrim.measure.metric_intervals import RESAMPLES
from spectrim.measure.metrics import chance_level
from spectrim.measure.scoring import label_columns
from spectrim.network.macs import macs
from spectrim.pruning.criteria import BACKBONE_CRITERIA
from spectrim.pruning.pruning import Pruning
from spectrim.stats.ground import FEWEST_CLIPS, Interval, near_chance
from spectrim.tuning.candidates import DENSE_KIND, TUNED, UNIFORM, Candidate, Setting, judged
from spectrim.tuning.conclusion import Tuning, concluded
from spectrim.tuning.costs import Costs, by_macs, fitted
from spectrim.tuning.hearing import Hearing
from spectrim.tuning.runtimes import Runtime
from spectrim.tuning.search import Tried, descend, front, spread_over
from spectrim.tuning.settings import (
    CLIPS_AT_ONCE,
    DRAWS,
    FINALISTS,
    SEARCHED,
    UNIFORM_RATES,
    Rates,
    Target,
    check_counts,
    described,
    point_of,
)

FOLDER, COMMAND = "measured", "spectrim tune"
SAVINGS = (0.2, 0.35, 0.5)
"""Shares of the MACs saved at which methods are compared before the search, if all of them reach the last."""

FURTHER = 0.05
"""Share of the metric that the search goes on to lose beyond what may be lost, so that there is a front to see."""

BEYOND = 1.3
"""How many times the speed that is wanted the search goes on to, by what it expects."""

TIMED, TIMED_FILES = 8, 3
"""Points of the search's front by the metric, and as many by loss, that are timed; the second where each is a file."""

COST_REPEATS = 5


def tune(
    model: ModelSource,
    out: str | Path,
    *,
    max_drop: float | None = None,
    min_speedup: float | None = None,
    data_set: str | None = None,
    root: str | Path | None = None,
    part: str | None = None,
    options: Mapping[str, Any] | None = None,
    limit: int | None = None,
    methods: Sequence[str] = DEFAULT_METHODS,
    speed_of: str = "torch",
    clips_at_once: int = CLIPS_AT_ONCE,
    searched: int = SEARCHED,
    finalists: int = FINALISTS,
    draws: int = DRAWS,
    batch_size: int = 32,
    repeats: int = REPEATS,
    resamples: int = RESAMPLES,
    device: str = "auto",
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> Tuning:
    """Find the fastest operating point that loses no more than is allowed, or the best that is as fast as is wanted.

    Training-free. All methods are compared at the model's own pruning blocks; with the best of them a greedy search
    looks for blocks and a keep rate for each; the front of what it finds is scored on one half of the clips and timed
    on this machine. The other half of the clips is for what is promised: nothing is chosen on it. All that is
    measured is kept in the folder's ``measured``, so that a run that was broken off goes on.

    Args:
        model: what `spectrim.from_pretrained` takes, or a model in memory, which stays as it is.
        out: folder of the results; `spectrim.tuning.report.write` writes them.
        max_drop: points of accuracy or mAP that may be lost against the dense model; 1 where no target is given.
        min_speedup: instead: how many times as fast as the dense model.
        data_set, root, options: as for `spectrim.comparison.run.compare`.
        part: of the data set; None for ``"validation"``, or for the clips in the package ``"test"``.
        limit: at most so many clips, evenly spread, before they are halved.
        methods: to choose from; see `spectrim.comparison.methods.read_methods`.
        speed_of: what will run the model; one of `spectrim.tuning.settings.SPEED_OF`.
        clips_at_once: clips in a timed pass; the speed that is promised holds for it.
        searched: clips that the steps of the search are taken on, at most.
        finalists: methods that are searched with, beside the backbone's own attention.
        draws: tables of random scores.
        batch_size: clips in a forward pass, for the scores.
        repeats: timed passes of each point.
        resamples: of the bootstrap.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        workers: decoding processes; None for a few.
        on_progress: is told how far it is.

    Raises:
        InvalidSetting: a setting is out of range, there are too few clips, or model and data do not fit.
        DataError: the data set is not there, or too much of it is missing or unreadable.
        CheckpointError: the model cannot be loaded.
        ExportError: the exported file of the dense model does not do what the model does.
        SpectrimError: the dense model is near chance on these clips; or a score is NaN or infinite.
    """
    target = Target(max_drop, min_speedup)
    check_amount([clips_at_once], repeats)
    check_counts(searched=searched, finalists=finalists)
    chosen = read_methods(methods)
    store = Store(Path(out), FOLDER, COMMAND)
    backend = open_prunable(model, "model", device)
    chosen, unfit = fitting(chosen, backend.pruning, backend.config.encoder)
    cases = _planned(backend, chosen, draws)
    runtime = Runtime(model, backend, speed_of, store.folder)
    part = part or ("test" if root is None else "validation")
    clips = evenly(open_part(backend, [model], data_set, root, part, options or {}), limit)
    label_columns(backend.labels, clips.labels)
    search, held = _halved(clips, part)
    workers = default_workers() if workers is None else workers
    setting = Setting(
        backend=backend,
        runtime=runtime,
        search=search,
        held=held,
        store=store,
        tell=on_progress or _no_progress,
        batch_size=batch_size,
        workers=workers,
        clips_at_once=clips_at_once,
        repeats=repeats,
        resamples=resamples,
    )
    unreadable = _unreadable(setting, point_of(chosen[0], backend.pruning, (1.0,) * setting.depth), part)
    uniform, rankings = _compared(setting, cases)
    found, tried = _searched(setting, _finalists(uniform, chosen, finalists), target, searched)
    candidates = _candidates(setting, uniform, found, chosen)
    rows = judged(setting, candidates)
    facts = {
        "model": name_of(model),
        "data_set": data_set or ("packaged clips" if root is None else "folder"),
        "part": part,
        "metric": clips.metric,
        "labels": len(clips.labels),
        "missing": list(clips.missing),
        "drawn_from": clips.drawn_from,
        "unreadable": unreadable,
        "search_groups": _groups(search),
        "held_groups": _groups(held),
        "target": target.said,
        "max_drop": target.max_drop,
        "min_speedup": target.min_speedup,
        "speed_of": speed_of,
        "clips_at_once": clips_at_once,
        "repeats": repeats,
        "searched": searched,
        "points_tried": tried,
        "methods": [method.name for method in chosen],
        "searched_methods": list(dict.fromkeys(one.method.name for one in found)),
        "left_out": unfit | runtime.left_out,
        "own_blocks": list(backend.pruning.at),
        "environment": environment(str(backend.device), *runtime.at(candidates[0].point).packages),
    }
    return concluded(setting, target, facts, candidates, rows, rankings, draws)


def _no_progress(stage: str, done: int, total: int) -> None:
    """Ignore progress."""


def _halved(clips: AudioDataset, part: str) -> tuple[AudioDataset, AudioDataset]:
    """A half to choose on and a half to promise on, if both are enough."""
    if len(clips) < 2 * FEWEST_CLIPS:
        allowed = f"{2 * FEWEST_CLIPS} clips or more, of which one half is to choose on and the other to promise on"
        raise InvalidSetting(f"clips of {part}", len(clips), allowed)
    search, held = halves(clips)
    for half in (search, held):
        if len(half) < FEWEST_CLIPS or half.not_measurable is not None:
            why = half.not_measurable or f"groups of clips leave {len(half)} for one half"
            raise InvalidSetting(
                "part", part, f"one with {FEWEST_CLIPS} clips that can be measured in both halves: {why}"
            )
    return search, held


def _unreadable(setting: Setting, dense: Pruning, part: str) -> list[str]:
    """Clips of both halves that cannot be read, by the dense model's scores, which are needed later anyway.

    Raises:
        DataError: those that can be read are too few in one half.
    """
    found = []
    for half, what in ((setting.search, "to choose on"), (setting.held, "to promise on")):
        answers = setting.answers([Candidate(DENSE, DENSE, dense, DENSE_KIND)], half)
        if len(answers.ids) < FEWEST_CLIPS:
            raise DataError(
                f"{part}: of the {len(half)} clips {what} {len(answers.ids)} can be read, and it takes {FEWEST_CLIPS}; "
                f"take more clips, or mend {some(answers.unreadable)}"
            )
        found += answers.unreadable
    return found


def _groups(half: AudioDataset) -> dict[str, Any]:
    """How many clips a half has, and of how many groups; None where the data names none."""
    named = {recording.group for recording in half.recordings} - {None}
    return {"clips": len(half), "groups": len(named) or None}


def _planned(backend: Backend, methods: Sequence[Method], draws: int) -> list[Case]:
    """The dense model, and all methods at the model's own blocks."""
    config = backend.config
    own, there = BACKBONE_CRITERIA[config.backbone], config.predictor_blocks or ()
    depth = config.num_hidden_layers
    return plan_cases(methods, UNIFORM_RATES, backend.pruning, depth, own, predictors=there, draws=draws)[0]


def _compared(setting: Setting, cases: Sequence[Case]) -> tuple[list[Row], list[str]]:
    """All planned cases on the half to choose on: rows, and a sentence a method.

    Raises:
        SpectrimError: the dense model is near chance.
    """
    measuring = Measuring({case.title: setting.backend for case in cases}, setting.search, setting.store, setting.tell)
    dense = measuring.answers(cases[:1], setting.batch_size, setting.workers)
    chance = chance_level(dense.targets, setting.search.metric)
    (row,) = accuracy_rows(cases[:1], dense, setting.search.metric, setting.resamples)
    names = (setting.search.metric, f"{setting.search.metric}_low", f"{setting.search.metric}_high")
    if why := near_chance(Interval(*(np.nan if row[name] is None else row[name] for name in names)), chance):
        raise SpectrimError(f"nothing can be tuned on these clips: {why}")
    answers = measuring.answers(cases, setting.batch_size, setting.workers)
    rows = accuracy_rows(cases, answers, setting.search.metric, setting.resamples)
    config = setting.backend.config
    whole = macs(config, pruning=cases[0].points[0]).executed
    for row, case in zip(rows, cases, strict=True):
        row["macs_saved"] = 1 - macs(config, pruning=case.points[0]).executed / whole
    return rows, verdicts(rows)


def _finalists(rows: Sequence[Row], methods: Sequence[Method], number: int) -> list[Method]:
    """The methods with the best metric at equal MACs, and the backbone's own attention beside them.

    Equal are `SAVINGS`; or, where some method does not save the last of them, shares of what that one saves at most,
    in the same proportions. A method that saves nothing comes last.
    """

    def mean(method: Method) -> float:
        own = sorted((row["macs_saved"], row[metric]) for row in rows if row["method"] in (DENSE, method.name))
        saved, found = zip(*own, strict=True)
        return float(np.mean(np.interp(shares, saved, found))) if method.name in most else -np.inf

    metric = "accuracy" if "accuracy" in rows[0] else "mAP"
    names = {method.name for method in methods}
    most: dict[str, float] = {}
    for row in rows:
        if row["method"] in names and row["macs_saved"] > 0.0:
            most[row["method"]] = max(row["macs_saved"], most.get(row["method"], 0.0))
    shares = np.array(SAVINGS) * min([1.0, *(saved / SAVINGS[-1] for saved in most.values())])
    best = sorted(methods, key=mean, reverse=True)[:number]
    return [*best, *(method for method in methods if method.name == ATTENTION and method not in best)]


def _costs(setting: Setting, finalists: Sequence[Method]) -> Costs:
    """What pruning blocks cost beside their MACs, from a few timed points of each method."""
    own, depth = setting.backend.pruning, setting.depth
    schedules: list[Rates] = [
        tuple(0.5 if block == depth // 3 else 1.0 for block in range(depth)),
        tuple(0.7 if block % 3 == 1 else 1.0 for block in range(depth)),
        tuple(0.9 if block < depth - 1 else 1.0 for block in range(depth)),
    ]
    dense = point_of(finalists[0], own, (1.0,) * depth)
    timed = [Candidate(DENSE, DENSE, dense, DENSE_KIND)]
    for method in finalists:
        for rates in schedules:
            point = point_of(method, own, rates)
            timed.append(Candidate(described(method.name, point), method.name, point, TUNED))
    timed = setting.runnable(timed)
    seconds = setting.seconds(timed, COST_REPEATS)
    medians = [float(np.median(seconds[one.name])) for one in timed]
    return fitted(setting.backend.config, [one.point for one in timed], medians)


def _searched(setting: Setting, finalists: Sequence[Method], target: Target, clips: int) -> tuple[list[Tried], int]:
    """Where a search with each method comes along, and how many points were tried on the way."""
    config, own = setting.backend.config, setting.backend.pruning
    costs = by_macs(config) if setting.runtime.exports else _costs(setting, finalists)
    expected = 4 * setting.depth * len(finalists)
    heard = evenly(setting.search, max(2, clips))

    def told(answers: int) -> None:
        setting.tell("search", answers, max(answers, expected))

    ask = Hearing(setting.backend, heard, setting.store, setting.batch_size, told)
    dense = ask(point_of(finalists[0], own, (1.0,) * setting.depth))
    whole = costs.seconds(point_of(finalists[0], own, (1.0,) * setting.depth))
    lost = FURTHER + (target.max_drop or 0.0) / 100

    def enough(here: Tried) -> bool:
        far = target.min_speedup is None or whole / here.seconds >= BEYOND * target.min_speedup
        return far and dense.metric - here.answer.metric > lost

    found = [
        one
        for method in finalists
        for one in descend(method, own, setting.depth, ask, costs, enough, config.predictor_blocks or ())
        if one.point.prunes
    ]
    return found, ask.points


def _candidates(
    setting: Setting, rows: Sequence[Row], found: Sequence[Tried], methods: Sequence[Method]
) -> list[Candidate]:
    """What is timed: the dense model, the front of the search, and the best points at the model's own blocks."""
    own, metric = setting.backend.pruning, setting.search.metric
    most = TIMED_FILES if setting.runtime.exports else TIMED
    seconds = [one.seconds for one in found]
    places = {
        place
        for values in ([one.answer.metric for one in found], [-one.answer.loss for one in found])
        for place in spread_over(front(seconds, values), seconds, most)
    }
    dense = point_of(methods[0], own, (1.0,) * setting.depth)
    named = {dense: Candidate(DENSE, DENSE, dense, DENSE_KIND)}
    pruned = [row for row in rows if row["method"] != DENSE]
    best = front([-row["macs_saved"] for row in pruned], [row[metric] for row in pruned])
    attention = [row for row in pruned if row["method"] == ATTENTION and not setting.runtime.exports]
    by_name = {method.name: method for method in methods}
    for row in [*attention, *(pruned[place] for place in best)]:
        rates = tuple(row["keep_rate"] if block in own.at else 1.0 for block in range(setting.depth))
        point = point_of(by_name[row["method"]], own, rates)
        named.setdefault(point, Candidate(described(row["method"], point), row["method"], point, UNIFORM))
    for place in sorted(places):
        one = found[place]
        name = described(one.method.name, one.point)
        named.setdefault(one.point, Candidate(name, one.method.name, one.point, TUNED))
    return setting.runnable(list(named.values()))
