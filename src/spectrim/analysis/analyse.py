"""The paper's analysis of one model or several on a data set: experiments, tables, figures, one report."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from spectrim.analysis.ablations import DROPPING, ranked
from spectrim.analysis.claim import Claim
from spectrim.analysis.claims import all_claims
from spectrim.analysis.claims_report import slug, write_report
from spectrim.analysis.experiment import Plan, Tell, experiment, facts_of
from spectrim.analysis.findings import Findings, load_findings, save_findings
from spectrim.analysis.record import record
from spectrim.analysis.store import INDEX
from spectrim.analysis.summary import overlap
from spectrim.checkpoints import DescribedSource, from_pretrained
from spectrim.config import SpectrimConfig
from spectrim.data import AudioDataset, find_data_set
from spectrim.data.dataset import evenly
from spectrim.errors import InvalidSetting
from spectrim.files import write_json, write_text
from spectrim.inference.packing import pack_weights
from spectrim.machine import environment, resolve_device
from spectrim.measure.scoring import check_measurable, label_columns
from spectrim.measure.trained_clips import warn_of_other_clips
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.criteria import BACKBONE_CRITERIA
from spectrim.stats.bootstrap import bootstrap
from spectrim.stats.groups import drawn
from spectrim.tables import table_csv

CACHE, STATISTICS_FILE = "findings", "statistics.json"


@dataclass(frozen=True)
class Analysis:
    """The results of an analysis.

    Attributes:
        claims: with their answers.
        report: path of the HTML page.
        findings: of each model.
    """

    claims: list[Claim]
    report: Path
    findings: list[Findings]


def analyse(
    models: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    data_set: str,
    root: str | Path,
    output: str | Path,
    plan: Plan,
    *,
    options: Mapping[str, Any] | None = None,
    names: str | Sequence[str] | None = None,
    device: str = "auto",
    resume: bool = False,
    keep_record: bool = False,
    on_progress: Tell | None = None,
) -> Analysis:
    """Analyse models side by side and write everything.

    Writes ``statistics.json``, ``statistics.csv``, ``ablations.csv``, ``overlap.csv``, ``claims.csv``, ``figures/``,
    ``report.html``, ``report.md``, and what the numbers are made of in ``findings/``.

    Args:
        models: what `spectrim.from_pretrained` takes, each; one, or several.
        data_set: name in `spectrim.data.DATA_SETS`.
        root: where it is on disk.
        output: folder for all of it.
        plan: what to do; its data set, part and limit are those of this analysis.
        options: of the data set's opener.
        names: of the models in the report; None for the last parts of their paths.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        resume: use what ``output`` holds of an earlier call with the same models, clips and plan.
        keep_record: also write what each model did at the plan's first keep rate, see `spectrim.analysis.record`.
        on_progress: is told how far it is.

    Raises:
        InvalidSetting: a setting is out of range, or models and data do not fit each other; before any clip is run.
        DataError: the data set is not there, or too much of it is missing or unreadable.
        CheckpointError: a model cannot be loaded.
    """
    plan.check()
    models = [models] if isinstance(models, str | os.PathLike) else list(models)
    target, target_device = Path(output), resolve_device(device)
    model_names = _names(models, names)
    _check_output(target, [_record_of(target, name) for name in model_names] if keep_record else [], resume)
    opened = find_data_set(data_set).open(root, plan.part, **(options or {}))
    for source in models:
        warn_of_other_clips(source, data_set, Path(root), plan.part, opened)
    part = evenly(opened, plan.limit)
    command = _command(models, data_set, root, output, plan, options, model_names if names else (), keep_record)
    plan = replace(plan, limit=None)
    sources = dict(zip(model_names, models, strict=True))
    loaded = {name: from_pretrained(source) for name, source in sources.items()}
    _check_together(loaded, part, plan)
    others = _other_settings({name: model.config for name, model in loaded.items()})
    findings = []
    for name in model_names:
        model = pack_weights(loaded.pop(name).to(target_device))
        findings.append(_findings(name, model, part, plan, target, resume, on_progress))
        if keep_record:
            _keep_record(name, model, part, plan, target, resume, on_progress)
    facts = {
        "models": {name: str(source) for name, source in sources.items()},
        **others,
        **_settings(data_set, plan, findings[0]),
        "command": command,
        "environment": environment(str(target_device)),
    }
    return write_analysis(findings, facts, target)


def _other_settings(configs: Mapping[str, SpectrimConfig]) -> dict[str, Any]:
    """Facts about what models do of themselves that the analysis does not: their rankings, and what is not dropping."""
    rankings, reductions = {}, {}
    for name, config in configs.items():
        if config.resolved_criterion != BACKBONE_CRITERIA[config.backbone]:
            rankings[name] = config.resolved_criterion
        own = {field: getattr(config, field) for field, usual in DROPPING.items() if getattr(config, field) != usual}
        if own:
            reductions[name] = own
    return {"other_rankings": rankings, "other_reductions": reductions}


def _settings(data_set: str, plan: Plan, first: Findings) -> dict[str, Any]:
    """Facts about the clips and how they were analysed, from the findings of the first model."""
    return {
        "data_set": data_set,
        "part": plan.part,
        "clips": len(first.summaries[1.0]),
        "groups": None if first.groups is None else first.groups.number,
        "interval": f"95 %, by bootstrap over {drawn(len(first.summaries[1.0]), first.groups)}",
        "padding": plan.padding,
        "clusters": plan.clusters,
        "left_out": dict(first.left_out),
    }


def _record_of(target: Path, name: str) -> Path:
    """Folder of a model's record."""
    return target / "records" / slug(name)


def _check_output(target: Path, records: Sequence[Path], resume: bool) -> None:
    if target.exists() and not target.is_dir():
        raise InvalidSetting("output", str(target), "a folder, or a name that is still free")
    if (target / STATISTICS_FILE).exists() and not resume:
        raise InvalidSetting("output", str(target), "a folder without an analysis in it, or resume to go on with it")
    for folder in records:
        if (folder / INDEX).exists() and not resume:
            raise InvalidSetting("output", str(folder), "a folder without a record in it, or resume to go on with it")


def _names(models: Sequence[str | os.PathLike[str]], names: str | Sequence[str] | None) -> list[str]:
    if not models:
        raise InvalidSetting("model", [], "one model or more")
    names = [names] if isinstance(names, str) else names
    chosen = list(names) if names else [Path(model).name or str(model) for model in models]
    if len(chosen) != len(models):
        raise InvalidSetting("name", chosen, f"one for each of the {len(models)} models")
    if names is None and len(set(chosen)) < len(chosen):
        chosen = [f"{name} ({number})" for number, name in enumerate(chosen, 1)]
    if len({slug(name) for name in chosen}) < len(chosen):
        raise InvalidSetting("name", chosen, "different names")
    return chosen


def _check_together(models: Mapping[str, AudioTransformer], part: AudioDataset, plan: Plan) -> None:
    """Raise `InvalidSetting` unless the models can be compared on these clips: labels, grid, number of stages."""
    first_name, first = next(iter(models.items()))
    for name, model in models.items():
        label_columns(list(model.config.id2label.values()), part.labels)
        plan.conditions(model.config)
        if model.config.grid != first.config.grid:
            wanted = f"{first.config.grid}, as of {first_name}: they are compared patch by patch"
            raise InvalidSetting(f"grid of {name}", model.config.grid, wanted)
        if len(model.config.prune_at) != len(first.config.prune_at):
            wanted = f"{len(first.config.prune_at)} blocks, as of {first_name}"
            raise InvalidSetting(f"prune_at of {name}", list(model.config.prune_at), wanted)
    check_measurable(part, plan.part)


def _findings(
    name: str,
    model: AudioTransformer,
    part: AudioDataset,
    plan: Plan,
    target: Path,
    resume: bool,
    on_progress: Tell | None,
) -> Findings:
    path = target / CACHE / f"{slug(name)}.safetensors"
    if resume:
        saved = load_findings(path, name, model.config, facts_of(model, part, plan))
        if saved is not None:
            return saved.with_groups_of(part)
    findings = experiment(model, part, plan, name=name, on_progress=on_progress)
    save_findings(findings, path)
    return findings.with_groups_of(part)


def _keep_record(
    name: str,
    model: AudioTransformer,
    part: AudioDataset,
    plan: Plan,
    target: Path,
    resume: bool,
    on_progress: Tell | None,
) -> None:
    """Write what a model does at the plan's first keep rate, clip by clip, ranked as in the report: by attention."""
    record(
        model,
        part,
        _record_of(target, name),
        model_name=name,
        data_name=f"{plan.data_name} {plan.part}",
        pruning=ranked(model.config.pruning, plan.keep_rates[0]),
        batch_size=plan.batch_size,
        resume=resume,
        on_progress=None if on_progress is None else partial(on_progress, f"{name}: record"),
    )


def _command(
    models: Sequence[str | os.PathLike[str]],
    data_set: str,
    root: str | Path,
    output: str | Path,
    plan: Plan,
    options: Mapping[str, Any] | None,
    names: Sequence[str],
    keep_record: bool,
) -> str:
    """The command line of the same analysis; ``names`` where they were given."""
    words = ["spectrim", "analyze", *(word for model in models for word in ("--model", str(model)))]
    words += [word for name in names for word in ("--name", name)]
    said = {(one.stride, one.frames) for one in models if isinstance(one, DescribedSource)}
    for stride, frames in said if len(said) == 1 else ():
        if stride is not None:
            words += ["--stride", str(stride) if isinstance(stride, int) else ",".join(map(str, stride))]
        if frames is not None:
            words += ["--frames", str(frames)]
    words += ["--dataset", data_set, "--data", str(root), "--part", plan.part]
    words += ["--keep-rates", ",".join(map(str, plan.keep_rates)), "--padding", plan.padding]
    words += ["--clusters", plan.clusters]
    if plan.drop_at is not None:
        words += ["--drop-at", ",".join(map(str, plan.drop_at))]
    if plan.limit is not None:
        words += ["--limit", str(plan.limit)]
    if plan.seed:
        words += ["--seed", str(plan.seed)]
    for option, value in (options or {}).items():
        words += ["--set", f"{option}={value}"]
    return shlex.join([*words, "--output", str(output), *(["--record"] if keep_record else [])])


def write_analysis(findings: Sequence[Findings], facts: Mapping[str, Any], target: Path) -> Analysis:
    """Write tables, figures and report of findings.

    Args:
        findings: of each model.
        facts: written beside the numbers: models, data_set, part, clips, command, environment, ...
        target: folder.
    """
    target.mkdir(parents=True, exist_ok=True)
    statistics = [
        {"model": result.name, "keep_rate": rate, **row}
        for result in findings
        for rate, summary in result.summaries.items()
        for row in summary.rows()
    ]
    ablations = {result.name: result.ablations() for result in findings}
    claims = all_claims(findings, ablations)
    shared = list(overlaps(findings))
    report = write_report(findings, facts, statistics, ablations, claims, shared, target)
    tables: dict[str, Sequence[Mapping[str, Any]]] = {
        "statistics": statistics,
        "ablations": [{"model": name, **row} for name, rows in ablations.items() for row in rows],
        "overlap": shared,
        "claims": [
            {"claim": claim.key, "model": name, "verdict": verdict, "question": claim.heading}
            for claim in claims
            for name, verdict in claim.verdicts.items()
        ],
    }
    for name, rows in tables.items():
        if rows:
            write_text(target / f"{name}.csv", table_csv(rows))
    claim_rows = [
        {"key": claim.key, "question": claim.heading, "answers": claim.answer, "verdicts": dict(claim.verdicts)}
        for claim in claims
    ]
    bounds = {
        result.name: {
            name: {"bounds": clusters.bounds.tolist(), "source": clusters.source, "padding": clusters.padding}
            for name, clusters in result.summaries[1.0].clusters.items()
        }
        for result in findings
    }
    write_json(target / STATISTICS_FILE, {"facts": facts, "claims": claim_rows, "clusters": bounds, **tables})
    return Analysis(claims, report, list(findings))


def overlaps(findings: Sequence[Findings]) -> Iterable[dict[str, Any]]:
    """Jaccard overlap of what models and keep rates keep, a row a pair and stage, with intervals."""
    runs = [(result.name, rate, result.summaries[rate]) for result in findings for rate in result.ratios]
    for number, (name, rate, summary) in enumerate(runs):
        for other_name, other_rate, other in runs[number + 1 :]:
            if name != other_name and rate != other_rate:
                continue
            shared = bootstrap(overlap(summary, other), groups=summary.groups)
            for stage in range(len(summary.stages)):
                ends = {end: _known(getattr(shared, end)[stage]) for end in ("mean", "low", "high")}
                names = {"first": name, "first_keep_rate": rate, "second": other_name, "second_keep_rate": other_rate}
                yield {**names, "stage": stage + 1, **ends, "clips": int(shared.clips[stage])}


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
