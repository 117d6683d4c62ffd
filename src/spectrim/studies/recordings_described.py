"""What the study on real recordings describes beside its answers: other scores and reducers, later blocks, single
blocks, and the paper's own analysis.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from spectrim.pictures.report import Report
from spectrim.stats.speakers import SpeakerMean, holm, mean_over_speakers, p_text
from spectrim.studies.branches import Branch
from spectrim.studies.keep_rates import NAMES
from spectrim.studies.recordings import (
    ALONE_CLIPS,
    ALONE_RATE,
    ANALYSED_CLIPS,
    ANALYSED_RATE,
    CONTROL_ARM,
    DROPPED_AT,
    FREE_METHODS,
    FREE_RATES,
    LATER_BLOCKS,
    LATER_METHODS,
    LATER_RATES,
    PROFILED,
    REMEDIES,
    REMEDY_RATES,
    SAME_MACS,
)
from spectrim.studies.recordings_analysis import QUANTITIES, TESTED
from spectrim.studies.recordings_answers import CONTROL_KEY, Measured, free_key, in_words, later_key, over_seeds, unseen
from spectrim.studies.recordings_record import Record, Row


def add_remedies(report: Report, measured: Measured, *, named: bool) -> None:
    """What other scores, and reducers, lose without training, the least first, each seed for itself; descriptive.

    ``named``, here and below, says whether seeds are, as they are where the report has several of the backbone.
    """
    tables = {seed: table for seed, alone in measured.each_seed.items() if (table := _remedies(alone))}
    if not tables:
        return
    report.heading(f"{NAMES[measured.backbone]}: other rankings and reducers, training-free", 3)
    report.text(
        "Descriptive: the control's weights, pruned at test time by other scores, and by reducers that drop no patch "
        "(fuse: EViT's one token for the rest; merge: ToMe; cluster: the mean of alike patches), on all test clips. "
        "Points lost against the control, the least at 0.7 first, and points above random at the same keep rate. What "
        "a score or reducer costs in MACs: docs/pruning.md."
    )
    told = ("lost at {:g}", "above random at {:g}", "lost at {:g} without fold 0")
    heads = [head.format(rate) for rate in REMEDY_RATES for head in told]
    _add_by_seed(report, ["ranking or reducer", *heads], tables, named=named)


def _remedies(measured: Measured) -> list[tuple[Any, ...]]:
    """The table of one seed; empty where none of these scores has been run with it."""
    methods, folds = (*FREE_METHODS, *REMEDIES[measured.backbone]), measured.passing
    lost = {
        (name, rate): measured.difference(CONTROL_KEY, free_key(name, rate), folds)
        for name in methods
        for rate in REMEDY_RATES
    }
    there = {name: found for name in methods if (found := lost[name, REMEDY_RATES[0]]) is not None}
    if there.keys().isdisjoint(REMEDIES[measured.backbone]):
        return []
    table, without = [], unseen(folds)
    for name in sorted(there, key=lambda name: there[name].mean):
        cells: list[Any] = []
        for rate in REMEDY_RATES:
            above = measured.difference(free_key(name, rate), free_key("random", rate), folds)
            beside = measured.difference(CONTROL_KEY, free_key(name, rate), without)
            cells += [among(lost[name, rate], folds), "" if name == "random" else among(above, folds)]
            cells.append(among(beside, without))
        table.append((name, *cells))
    return table


def _add_by_seed(
    report: Report, heads: Sequence[str], tables: Mapping[int, Sequence[tuple[Any, ...]]], *, named: bool
) -> None:
    """A table for each seed."""
    for seed, table in tables.items():
        if named:
            report.text(f"Seed {seed}:")
        report.table(heads, table)


def undescribed(record: Record, backbone: str, fold: int, seed: int) -> list[str]:
    """What is described of a fold's models, but has not been run for those that are trained."""

    def of(rows: Sequence[Row], arm: str) -> list[Row]:
        wanted = (backbone, fold, seed, arm)
        return [row for row in rows if (row["backbone"], row["fold"], row["seed"], row["arm"]) == wanted]

    trained = [branch for branch in PROFILED if of(record.runs, branch.name)]
    left = []
    if CONTROL_ARM in trained:
        own = [row for row in record.speakers if (row["backbone"], row["fold"], row["seed"]) == (backbone, fold, seed)]
        free = {(row["how"], row["arm"]) for row in own}
        asked = [(name, rate) for rate in FREE_RATES for name in FREE_METHODS]
        unasked = [f"{name} at {rate:g}" for name, rate in asked if free_key(name, rate) not in free]
        if unasked:
            left.append(f"training-free {', '.join(unasked)}")
        names = REMEDIES[backbone]
        lacking = [name for name in names if not {free_key(name, rate) for rate in REMEDY_RATES} <= free]
        if lacking:
            which = "" if len(lacking) == len(names) else f": {', '.join(lacking)}"
            left.append(f"other rankings and reducers{which}")
        if later_key(LATER_METHODS[0], LATER_RATES[0]) not in free:
            left.append("later blocks")
    for branch in trained:
        parts = [("one block alone", record.depth), ("the paper's analysis", record.analysis)]
        left += [f"{part} of {branch.name}" for part, rows in parts if not of(rows, branch.name)]
    return left


def among(found: SpeakerMean | None, folds: Sequence[int]) -> str:
    """A cell of a table whose column stands for some folds."""
    return "" if found is None else found.among(folds)


def add_later(report: Report, measured: Measured, *, named: bool) -> None:
    """What rankings lose at later blocks beside the earlier ones, at equal MACs, each seed for itself; descriptive."""
    (rate,) = LATER_RATES
    heard = {}
    for seed, alone in measured.each_seed.items():
        folds = [fold for fold in alone.passing if fold in alone.of(later_key(LATER_METHODS[0], rate))]
        if folds:
            heard[seed] = folds
    if not heard:
        return
    report.heading(f"{NAMES[measured.backbone]}: at later blocks, training-free", 3)
    folds = sorted({fold for some in heard.values() for fold in some})
    tables = {
        seed: [_later(measured.of_seed(seed), name, its, folds) for name in LATER_METHODS]
        for seed, its in heard.items()
    }
    report.text(
        f"Descriptive: the control's weights pruned at blocks {', '.join(map(str, LATER_BLOCKS))} to {rate:g}, beside "
        f"those pruned at 3, 6 and 9 to {SAME_MACS:g}, which executes as many MACs; folds "
        f"{', '.join(map(str, folds))}. Points lost against the control, and points that the later blocks save."
    )
    heads = ["ranking or reducer", f"lost at 3, 6, 9, r = {SAME_MACS:g}", "lost at later blocks", "saved"]
    _add_by_seed(report, heads, tables, named=named)


def _later(measured: Measured, name: str, its: Sequence[int], folds: Sequence[int]) -> tuple[str, ...]:
    """A row of the table of one seed, over its folds among those of all."""
    late, early = later_key(name, LATER_RATES[0]), free_key(name, SAME_MACS)
    pairs = ((CONTROL_KEY, early), (CONTROL_KEY, late), (late, early))
    return name, *(among(measured.difference(first, second, its), folds) for first, second in pairs)


def add_depth(report: Report, backbone: str, rows: Sequence[Row]) -> None:
    """What pruning a model at one block alone costs, and how the scores of that block are spread; descriptive."""
    for branch in PROFILED:
        own = [row for row in rows if (row["backbone"], row["arm"]) == (backbone, branch.name)]
        if not own:
            continue
        table = []
        for block in sorted({row["block"] for row in own}):
            here = [row for row in own if row["block"] == block]
            means = {name: _mean_of(here, name) for name in (*FREE_METHODS, "strongest_share", "intensity_correlation")}
            costs = ("" if means[name] is None else f"{means[name]:.1f}" for name in FREE_METHODS)
            share, correlation = means["strongest_share"], means["intensity_correlation"]
            table.append(
                (
                    block,
                    *costs,
                    "" if share is None else f"{100 * share:.0f}",
                    "" if correlation is None else f"{correlation:.2f}",
                )
            )
        report.heading(f"{NAMES[backbone]}: where in depth, {_arm_name(branch)}", 3)
        report.text(
            f"Descriptive, without further training: points that pruning at one block alone to {ALONE_RATE:g} costs, "
            f"by each ranking, against the same weights with all patches, on {ALONE_CLIPS} test clips of a fold, "
            "evenly spread; what share of the attention that patches get the strongest patch takes; and Pearson's "
            "correlation of attention with intensity. Means over clips, then over the folds that are there "
            f"({', '.join(str(fold) for fold in sorted({row['fold'] for row in own}))}){_seeds_of(own)}."
        )
        report.table(["block", *FREE_METHODS, "strongest patch, %", "correlation with intensity"], table)


def _seeds_of(rows: Sequence[Row]) -> str:
    """Behind folds: the seeds, where there are several."""
    seeds = sorted({row["seed"] for row in rows})
    return f" and over {in_words('seed', seeds)}" if len(seeds) > 1 else ""


def _mean_of(rows: Sequence[Row], name: str) -> float | None:
    values = [row[name] for row in rows if row[name] is not None]
    return fmean(values) if values else None


def add_analysis(report: Report, measured: Measured, rows: Sequence[Row]) -> None:
    """The paper's analysis of the control and of an arm fine-tuned with pruning, over the folds that pass the gate."""
    controls = measured.interpreted.accuracies.get(CONTROL_KEY, {})
    own = [row for row in rows if row["backbone"] == measured.backbone and row["fold"] in controls.get(row["seed"], {})]
    if not own:
        return
    means = {
        (branch, padding, quantity): _over_speakers(own, branch, padding, quantity)
        for branch in PROFILED
        for padding in ("without", "with")
        for quantity in QUANTITIES
    }
    family = [(branch, "without", quantity) for branch in PROFILED for quantity in TESTED]
    tests = [None if (found := means[key]) is None or not found.answers else found.p for key in family]
    corrected = dict(zip(family, holm(tests), strict=True))
    table: list[tuple[Any, ...]] = [("speakers", *_counted(own))]
    for quantity in QUANTITIES:
        cells: list[Any] = [quantity]
        for branch in PROFILED:
            p = corrected.get((branch, "without", quantity))
            cells += [_shown(means[branch, "without", quantity]), p_text(p)]
            cells.append(_shown(means[branch, "with", quantity]))
        table.append(tuple(cells))
    report.heading(f"{NAMES[measured.backbone]}: the paper's analysis", 3)
    report.text(
        f"Descriptive, on {ANALYSED_CLIPS} test clips of a fold, evenly spread: mean over a speaker's clips, then over "
        "the speakers. Correlations are of the "
        "backbone's own score, dense, with the clusters of a statistic, mean over the blocks: way is the share of the "
        "way from a random to a perfect score (Somers' D), which the paper's form and tau-b hide behind ties. C4+C5 "
        f"and C1+C2: points that dropping the patches of these clusters at block {DROPPED_AT} costs, more than as many "
        "random patches of the same clip cost, or against the dense model. Later attention: logarithm of the attention "
        f"that patches kept at {ANALYSED_RATE:g} receive in later blocks of the dense model, over that of the others. "
        "Low left: share of C1+C2 of intensity that is left after the last stage, minus the share of all patches, in "
        f"points. p against nought by t within folds, Holm, one family of {len(family)}, with those not run counted; "
        "the quantities without p stand beside them. Patches of padding do not count, but in the columns that say so."
    )
    heads = [
        head for branch in PROFILED for head in (_arm_name(branch), "p by Holm", f"{_arm_name(branch)}, with padding")
    ]
    report.table(["", *heads], table)


def _counted(rows: Sequence[Row]) -> list[str]:
    """How many speakers, of which folds, each column of the table rests on."""
    cells = []
    for branch in PROFILED:
        for padding in ("without", "with"):
            there = [row for row in rows if (row["arm"], row["padding"]) == (branch.name, padding)]
            folds = sorted({row["fold"] for row in there})
            speakers = len({(row["fold"], row["speaker"]) for row in there})
            cells += ["" if not there else f"{speakers}, folds {', '.join(map(str, folds))}{_seeds_of(there)}"]
            cells += [""] * (padding == "without")
    return cells


def _shown(found: SpeakerMean | None) -> str:
    return "" if found is None else str(found)


def _over_speakers(rows: Sequence[Row], branch: Branch, padding: str, quantity: str) -> SpeakerMean | None:
    """Mean over the speakers of all folds, seeds averaged within a speaker."""
    runs: dict[int, dict[int, dict[str, float]]] = {}
    for row in rows:
        if (row["arm"], row["padding"], row["quantity"]) == (branch.name, padding, quantity):
            runs.setdefault(row["seed"], {}).setdefault(row["fold"], {})[row["speaker"]] = row["value"]
    return mean_over_speakers(over_seeds(list(runs.values())))


def _arm_name(branch: Branch) -> str:
    return "the control" if branch == CONTROL_ARM else f"fine-tuned by attention at {branch.keep_rate:g}"
