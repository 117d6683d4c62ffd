"""`compare`: all methods on the same clips and the same weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from spectrim.assets import DEMO_CLIPS, EMBEDDED_MODELS
from spectrim.comparison.measuring import Measuring, Progress
from spectrim.comparison.methods import (
    DEFAULT_METHODS,
    DENSE,
    DRAWS,
    KEEP_RATES,
    Case,
    fitting,
    names_method,
    plan_cases,
    read_methods,
)
from spectrim.comparison.patches import TRACED, agreement_rows
from spectrim.comparison.rows import accuracy_rows, clip_rows, cost_columns, sentences
from spectrim.comparison.store import Store
from spectrim.data import AudioDataset, find_data_set
from spectrim.data.dataset import evenly
from spectrim.errors import InvalidSetting
from spectrim.inference.backend import Backend
from spectrim.inference.opening import ModelSource, name_of, open_model
from spectrim.machine import default_workers, environment
from spectrim.measure.benchmark import BATCH_SIZES, check_amount
from spectrim.measure.metric_intervals import RESAMPLES, how_made
from spectrim.measure.metrics import chance_level
from spectrim.measure.scoring import check_measurable, label_columns
from spectrim.measure.trained_clips import warn_of_other_clips
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.criteria import BACKBONE_CRITERIA

REPEATS = 20
MODEL = "model"
"""Folder of the model in the folder of a training run."""


@dataclass(frozen=True)
class Comparison:
    """What a comparison found; all values are plain, for JSON and CSV.

    Attributes:
        facts: model, runs, data_set, part, metric, labels, clips (those that count), groups (of them, that intervals
            are over; None where there are none), drawn_from (see `spectrim.data.AudioDataset`), chance, unreadable and
            missing files, left_out (cases that a method does not reach → why), interval (how the intervals were made),
            batch_sizes and repeats (of the timing), traced (clips whose kept patches were compared), environment.
        rows: the dense model, then one a method and keep rate; see `spectrim.comparison.rows`.
        agreement: see `spectrim.comparison.patches.agreement_rows`.
        sentences: one of the dense model, one a method.
        clips: see `spectrim.comparison.rows.clip_rows`; not in the JSON.
    """

    facts: dict[str, Any]
    rows: list[dict[str, Any]]
    agreement: list[dict[str, Any]]
    sentences: list[str]
    clips: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """All of it for JSON, but for the single clips."""
        return {name: value for name, value in asdict(self).items() if name != "clips"}


def compare(
    model: ModelSource,
    out: str | Path,
    *,
    data_set: str | None = None,
    root: str | Path | None = None,
    part: str = "test",
    options: Mapping[str, Any] | None = None,
    limit: int | None = None,
    methods: Sequence[str] = DEFAULT_METHODS,
    keep_rates: float | Sequence[float] = KEEP_RATES,
    prune_at: Sequence[int] | None = None,
    runs: Mapping[str, ModelSource] | None = None,
    draws: int = DRAWS,
    traced: int = TRACED,
    batch_size: int = 32,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    repeats: int = REPEATS,
    resamples: int = RESAMPLES,
    device: str = "auto",
    workers: int | None = None,
    on_progress: Progress | None = None,
) -> Comparison:
    """Compare methods without training on the same clips and the same weights.

    What is measured is kept in the folder's ``cache``, by model, data, versions and operating point: a run that was
    broken off goes on with what is missing, and further methods or keep rates cost only themselves. Times are taken in
    one pass of all cases in turn, so that a further case means new times for all.

    Args:
        model: what `spectrim.from_pretrained` takes, or a model in memory; its pruning blocks and its treatment of
            padding hold for all.
        out: folder of the results.
        data_set: name in `spectrim.data.DATA_SETS`; None for ``"folder"``.
        root: where it is; None, with a model of the package, for the clips there.
        part: of the data set.
        options: of the data set's opener.
        limit: at most so many clips, evenly spread.
        methods: see `spectrim.comparison.methods.read_methods`.
        keep_rates: in (0, 1], one or several, one at least below 1.
        prune_at: pruning blocks, in place of the model's; not of ``runs``.
        runs: name → a fine-tuned model, in memory or not, or the folder of its training run, measured at its own
            operating point.
        draws: tables of random scores.
        traced: clips whose kept patches are compared, at most.
        batch_size: clips in a forward pass, for the scores.
        batch_sizes: clips in a forward pass, for the times; the sentences tell those of the last.
        repeats: timed passes of each case.
        resamples: of the bootstrap.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        workers: decoding processes; None for a few.
        on_progress: is told how far it is.

    Raises:
        InvalidSetting: a setting is out of range, or model, runs and data do not fit; before any clip is scored.
        DataError: the data set is not there, or too much of it is missing or unreadable.
        CheckpointError: a model cannot be loaded.
        SpectrimError: a score is NaN or infinite.
    """
    check_amount(batch_sizes, repeats)
    for name, value in (("limit", limit), ("traced", traced)):
        if value is not None and value < 2:
            raise InvalidSetting(name, value, "2 or more: one clip has no interval")
    chosen, tell = read_methods(methods), on_progress or _no_progress
    for name in runs or {}:
        _check_run_name(name)
    store = Store(Path(out))
    backend = open_prunable(model, "model", device)
    tested = [model, *map(_model_of, (runs or {}).values())]
    clips = evenly(open_part(backend, tested, data_set, root, part, options or {}), limit)
    label_columns(backend.labels, clips.labels)
    check_measurable(clips, part)
    config = backend.config
    own = BACKBONE_CRITERIA[config.backbone]
    depth, columns = config.num_hidden_layers, config.grid[1]
    pruning = backend.pruning if prune_at is None else backend.pruning.changed({"prune_at": list(prune_at)})
    predictors = config.predictor_blocks or ()
    chosen, unfit = fitting(chosen, pruning, config.encoder)
    cases, left_out = plan_cases(
        chosen, keep_rates, pruning, depth, own, columns=columns, predictors=predictors, draws=draws
    )
    models = {case.title: backend for case in cases}
    for name, folder in (runs or {}).items():
        tuned = open_prunable(_model_of(folder), f"runs {name}", device)
        label_columns(tuned.labels, clips.labels)
        case = _run_case(name, tuned)
        cases.append(case)
        models[case.title] = tuned
    sizes = list(dict.fromkeys(batch_sizes))
    measuring = Measuring(models, clips, store, tell)
    answers = measuring.answers(cases, batch_size, default_workers() if workers is None else workers)
    kept, entering = measuring.kept(cases, traced)
    seconds = measuring.seconds(cases, sizes, repeats)
    rows = accuracy_rows(cases, answers, clips.metric, resamples)
    costs = cost_columns(cases, {title: one.config for title, one in models.items()}, seconds, sizes)
    rows = [row | further for row, further in zip(rows, costs, strict=True)]
    interval = how_made(clips.metric, resamples, len(answers.ids), answers.groups)
    facts = {
        "model": name_of(model),
        "runs": {name: name_of(folder) for name, folder in (runs or {}).items()},
        "data_set": data_set or ("packaged clips" if root is None else "folder"),
        "part": part,
        "metric": clips.metric,
        "labels": len(clips.labels),
        "clips": len(answers.ids),
        "chance": chance_level(answers.targets, clips.metric),
        "unreadable": answers.unreadable,
        "missing": list(clips.missing),
        "drawn_from": clips.drawn_from,
        "left_out": unfit | left_out,
        "prune_at": list(pruning.at),
        "groups": None if answers.groups is None else answers.groups.number,
        "interval": f"{interval}, paired, and of the random draws",
        "batch_sizes": sizes,
        "repeats": repeats,
        "traced": len(entering),
        "environment": environment(str(backend.device)),
    }
    return Comparison(
        facts,
        rows,
        agreement_rows(cases, kept, entering),
        sentences(rows, clips.metric, sizes[-1]),
        clip_rows(cases, answers, clips.labels),
    )


def _no_progress(stage: str, done: int, total: int) -> None:
    """Ignore progress."""


def open_prunable(model: ModelSource, field: str, device: str) -> Backend:
    """A model that has several operating points; ``field`` is what an error calls it."""
    backend = open_model(model, device=device)
    if not backend.prunable:
        raise InvalidSetting(field, name_of(model), "a checkpoint: an exported file has one operating point only")
    return backend


def open_part(
    backend: Backend,
    models: Sequence[ModelSource],
    data_set: str | None,
    root: str | Path | None,
    part: str,
    options: Mapping[str, Any],
) -> AudioDataset:
    """The clips at the model's sampling rate, with targets for all its labels where theirs are among these.

    Args:
        backend: the model.
        models: where it is from, first, and whatever else is tested: `warn_of_other_clips`.
        data_set, root, part, options: which clips.
    """
    if root is None:
        if name_of(models[0]) not in EMBEDDED_MODELS or data_set is not None:
            raise InvalidSetting(
                "data", None, f"the root of a data set; only {' and '.join(EMBEDDED_MODELS)} bring clips along"
            )
        data_set, root, options = "csv", DEMO_CLIPS, {"test_share": 1, **options}
    name = data_set or "folder"
    read = find_data_set(name).open(root, part, **options)
    for source in models:
        if not isinstance(source, Backend | AudioTransformer):
            warn_of_other_clips(source, name, Path(root), part, read)
    opened = read.at_rate(backend.config.sampling_rate)
    labels = backend.labels
    if set(opened.labels) < set(labels) and len(set(labels)) == len(labels):
        return opened.with_labels(labels)
    return opened


def _model_of(folder: ModelSource) -> ModelSource:
    """The model in the folder of a training run, or the folder itself; a model in memory as it is."""
    if isinstance(folder, Backend | AudioTransformer):
        return folder
    inside = Path(folder) / MODEL
    return str(inside if (inside / "config.json").is_file() else folder)


def _check_run_name(name: str) -> None:
    """Refuse a name under which a method's rows would be mistaken for the run's, and its scores for the method's."""
    if not name.strip() or name.strip() == DENSE or "+" in name or names_method(name):
        raise InvalidSetting("runs", name, "NAME=FOLDER, with a name that is no method's")


def _run_case(name: str, tuned: Backend) -> Case:
    """A fine-tuned run at its own operating point."""
    rates = set(tuned.pruning.rates.values())
    if len(rates) > 1:
        raise InvalidSetting("runs", name, "a model with one keep rate at all pruning blocks")
    return Case(name, rates.pop() if rates else 1.0, (tuned.pruning,), run=True)
