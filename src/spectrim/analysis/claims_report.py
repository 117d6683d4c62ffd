"""The report of an analysis: each claim with its answer, figures and tables, then what each model keeps."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from spectrim.analysis.ablations import low_ratios
from spectrim.analysis.attention_claims import received_ratio
from spectrim.analysis.claim import Claim
from spectrim.analysis.findings import Findings
from spectrim.analysis.statistics import DENSITY_EDGES
from spectrim.analysis.summary import STATISTICS
from spectrim.pictures.ablations import cluster_curves, criteria_curves
from spectrim.pictures.attention import kendall_curves, received_curves
from spectrim.pictures.clusters import cluster_bar, density_maps, kept_by_cluster, low_patches
from spectrim.pictures.curves import accuracy_curve
from spectrim.pictures.mosaics import mosaic
from spectrim.pictures.report import Report
from spectrim.stats.bootstrap import bootstrap
from spectrim.stats.kendall import PUBLISHED_MEANS

CLUSTER_SETS = {"high-clusters": "C4+C5", "low-clusters": "C1+C2"}


def slug(name: str) -> str:
    """A name for files."""
    return re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-.") or "model"


def write_report(
    findings: Sequence[Findings],
    facts: Mapping[str, Any],
    statistics: Sequence[Mapping[str, Any]],
    ablations: Mapping[str, Sequence[Mapping[str, Any]]],
    claims: Sequence[Claim],
    shared: Sequence[Mapping[str, Any]],
    target: Path,
) -> Path:
    """Write the report of an analysis.

    Args:
        findings: of each model.
        facts: see `spectrim.analysis.analyse.write_analysis`; data_set, part, clips, padding, left_out, command and
            environment are read.
        statistics: rows of every model's summaries, each with its model and keep_rate.
        ablations: model → rows, see `Findings.ablations`.
        claims: with their answers.
        shared: rows of `spectrim.analysis.analyse.overlaps`.
        target: folder.

    Returns:
        Path of the HTML.
    """
    report = Report(f"Which patches matter: {facts['data_set']}, {facts['part']}", target)
    report.text(
        f"{', '.join(result.name for result in findings)} on {facts['clips']} clips. The claims of the paper's "
        f"abstract, each with an answer from these numbers. Intervals are {facts['interval']}; they say "
        "nothing of other training runs. Nothing here is trained: every model keeps its weights. "
        f"Patches that hold only padding {'count' if facts['padding'] == 'with' else 'do not count'} in the statistics."
    )
    for name, own in facts.get("other_rankings", {}).items():
        report.text(
            f"{name} itself ranks by {own}; everything here is of attention, the paper's ranking, but where said."
        )
    for name, own in facts.get("other_reductions", {}).items():
        said = " and ".join(f"{field} {value}" for field, value in own.items())
        report.text(
            f"{name} itself prunes with {said}; here its patches that rank low are dropped, as in the paper, and every "
            "clip loses as many."
        )
    if facts["left_out"]:
        report.text(f"{len(facts['left_out'])} clips could not be read and are left out.")
    report.table(["claim", "answer"], [(claim.heading, _short(claim)) for claim in claims])
    for claim in claims:
        report.heading(claim.heading)
        report.items([*claim.answer])
        for name, figure, caption in _figures(claim.key, findings, statistics, ablations):
            report.figure(f"{claim.key}-{slug(name)}" if name else claim.key, figure, caption)
        report.table(claim.columns, claim.rows)
        for note in claim.notes:
            report.text(note)
        report.command(str(facts["command"]))
    report.heading("What is kept")
    for result in findings:
        _add_kept(report, result, [row for row in statistics if row["model"] == result.name])
    if shared:
        report.heading("What two runs keep in common", 3)
        columns = ["first", "keep rate", "second", "keep rate", "stage", "Jaccard overlap"]
        keys = ("first", "first_keep_rate", "second", "second_keep_rate", "stage")
        report.table(columns, [(*(row[key] for key in keys), _mean(row)) for row in shared])
    machine = facts["environment"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    report.text(f"{machine['processor']}, {machine['device']}, Python {machine['python']}, {versions}.")
    return report.write()


def _short(claim: Claim) -> str:
    return "; ".join(f"{name}: {mark}" for name, mark in claim.verdicts.items())


def _mean(row: Mapping[str, Any]) -> str:
    if row["mean"] is None:
        return "–"
    return f"{row['mean']:.2f}" if row["low"] is None else f"{row['mean']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def _figures(
    key: str,
    findings: Sequence[Findings],
    statistics: Sequence[Mapping[str, Any]],
    ablations: Mapping[str, Sequence[Mapping[str, Any]]],
) -> Iterable[tuple[str, Figure, str]]:
    """Name of the model (or nothing), figure and caption of a claim."""
    if key == "savings":
        yield (
            "",
            accuracy_curve(_curve_rows(ablations), metric=findings[0].metric),
            "Training-free: accuracy against MACs.",
        )
    if key == "low-intensity":
        first = findings[0]
        rate = next(iter(first.ratios))
        low = {
            result.name: bootstrap(low_ratios(result.summaries[rate], "intensity")[0], groups=result.groups)
            for result in findings
        }
        blocks = {result.summaries[rate].stages for result in findings}
        stages = [
            f"after block {block}" if len(blocks) == 1 else f"stage {number}"
            for number, block in enumerate(first.summaries[rate].stages, 1)
        ]
        yield "", low_patches(low, stages), f"Low-intensity patches left at keep rate {rate:g}."
    for result in findings:
        drawn = _model_figure(
            key, result, [row for row in statistics if row["model"] == result.name], ablations[result.name]
        )
        if drawn is not None:
            yield result.name, drawn[0], f"{result.name}: {drawn[1]}"


def _model_figure(
    key: str, result: Findings, statistics: Sequence[Mapping[str, Any]], ablations: Sequence[Mapping[str, Any]]
) -> tuple[Figure, str] | None:
    """Figure and caption of a claim for one model; None where it has none."""
    rate = next(iter(result.ratios))
    if key in CLUSTER_SETS:
        dropped = [row for row in ablations if row["clusters"] == CLUSTER_SETS[key]]
        caption = (
            f"patches of {CLUSTER_SETS[key]} dropped from the dense model at a block. Dotted: one point below dense."
        )
        return cluster_curves(dropped, result.name), caption
    if key == "ranking":
        caption = "patches ranked by attention and by something else. Dotted: one point below dense."
        return criteria_curves(ablations, result.name), caption
    if key == "correlation":
        dense = [row for row in statistics if row["keep_rate"] == 1.0]
        published = PUBLISHED_MEANS.get(result.backbone)
        dotted = "; dotted: what the paper's figures read, mean over blocks" if published else ""
        caption = (
            "dense: Kendall correlation of a patch's score and its cluster, mean over clips with 95 % intervals"
            f"{dotted}."
        )
        return kendall_curves(dense, result.name, published=published), caption
    if key == "attention":
        figure = received_curves(received_ratio(result), result.summaries[rate].stages, result.name)
        caption = (
            f"attention in the dense model of patches that are kept at keep rate {rate:g}, over that of those that are "
            "gone; geometric mean over clips with 95 % intervals. Dotted: the block that selects."
        )
        return figure, caption
    return None


def _curve_rows(ablations: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    names = ("keep_rate", "value", "low", "high")
    return [
        {"series": name, "macs": row["paper_macs"], **{key: row[key] for key in names}}
        for name, rows in ablations.items()
        for row in rows
        if row["ablation"] == "dense" or row["criterion"] == "attention"
    ]


def _add_kept(report: Report, result: Findings, rows: Sequence[Mapping[str, Any]]) -> None:
    """Pictures of the clusters, and of what is left at the first keep rate."""
    rate = next(iter(result.ratios))
    summary = result.summaries[rate]
    bounds = {name: summary.clusters[name].bounds for name in STATISTICS}
    counts = {name: summary.cluster_counts(name)[:, 0].sum(axis=0) for name in STATISTICS}
    rows = [row for row in rows if row["keep_rate"] == rate]
    name = slug(result.name)
    source = "; ".join(f"{key}: {clusters.source}" for key, clusters in summary.clusters.items())
    report.heading(result.name, 3)
    report.figure(f"clusters-{name}", cluster_bar(counts, bounds, result.name), f"{result.name}: clusters ({source}).")
    report.figure(
        f"density-{name}",
        density_maps(summary.density, summary.stages, bounds, DENSITY_EDGES, f"{result.name}, keep rate {rate:g}"),
        f"{result.name}: patches over mean and standard deviation, at keep rate {rate:g}. "
        "Dashed: bounds of the clusters.",
    )
    report.figure(
        f"kept-{name}",
        kept_by_cluster(rows, f"{result.name}, keep rate {rate:g}"),
        f"{result.name}: what is left of each cluster at keep rate {rate:g}. Dashed: of all patches.",
    )
    shown = result.examples
    if shown.names:
        picture = mosaic(
            shown.names,
            shown.log_mel,
            shown.num_frames,
            shown.survived,
            result.config,
            f"{result.name}, keep rate {rate:g}",
        )
        report.figure(
            f"mosaic-{name}", picture, f"{result.name}: clips and what is kept of them at keep rate {rate:g}."
        )
    columns = ["quantity", "stage", "statistic", "cluster", "mean"]
    wanted = ("cluster_share", "kept_share", "low_low_patches", "low_low_kept_share", "score_share", "score_ratio")
    table = [
        (row["quantity"].replace("_", " "), row["stage"], row["statistic"] or "", _cluster(row), _mean(row))
        for row in rows
        if row["quantity"] in wanted
    ]
    report.table(columns, table)


def _cluster(row: Mapping[str, Any]) -> str:
    return "" if row["cluster"] is None else f"C{row['cluster']}"
