"""The claims of the paper's abstract, each with an answer computed from the results.

An answer compares a 95 % interval with a threshold: "yes" or "no" where all of the interval lies on one side of it,
"unclear" where the threshold lies inside. The answer names the threshold. "Cannot say" where the interval has no
ground: see `spectrim.stats.ground`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectrim.analysis.ablations import ATTENTION, HIGH_CLUSTERS, LOW_CLUSTERS, compare_low, low_ratios
from spectrim.analysis.findings import Findings
from spectrim.analysis.summary import KENDALL_FORMS, STATISTICS
from spectrim.stats.bootstrap import Estimate, bootstrap
from spectrim.stats.ground import (
    CANNOT_SAY,
    Interval,
    near_chance,
    no_interval,
    too_few_clips,
    within_margin,
)
from spectrim.stats.groups import Groups
from spectrim.stats.kendall import PUBLISHED_MEANS
from spectrim.stats.ratios import clip_mean

FEWER_MACS, POINTS_LOST = 0.30, 1.0
"""The paper's claim: at least this share of the MACs saved, fewer than so many points lost."""

YES, NO, UNCLEAR, IN_PART, UNTESTED = "yes", "no", "unclear", "in part", "not tested"
PAIR = " − "
"""Between the names of two models in a comparison."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Claim:
    """One claim with its answer.

    Attributes:
        key: short name, for files.
        heading: the claim as a question.
        answer: a sentence for each model, or one that says why there is none.
        verdicts: model → `YES`, `NO`, `UNCLEAR`, `IN_PART`, `CANNOT_SAY` or `UNTESTED`; of a comparison, the two names
            → it.
        columns: of the table.
        rows: of the table, cells as text.
        notes: what has to be known to read it.
    """

    key: str
    heading: str
    answer: tuple[str, ...]
    verdicts: Mapping[str, str]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def verdict(interval: Interval, mark: float, *, above: bool) -> str:
    """Whether a value lies above (or below) a threshold: yes, no, or unclear where the interval contains it.

    Without an interval (one clip), or with one of no width, there is nothing to say.
    """
    if no_interval(interval) is not None:
        return CANNOT_SAY
    _, low, high = interval
    if low > mark:
        return YES if above else NO
    if high < mark:
        return NO if above else YES
    return UNCLEAR


def joint(marks: Sequence[str]) -> str:
    """One answer from those for several statistics: the same if they agree, "in part" if some are yes."""
    if len(set(marks)) == 1:
        return marks[0]
    return IN_PART if YES in marks else CANNOT_SAY if CANNOT_SAY in marks else UNCLEAR


def all_claims(findings: Sequence[Findings], ablations: Mapping[str, Sequence[Row]]) -> list[Claim]:
    """Every claim of the abstract, in its order; none of a model near chance, or on too few clips, has an answer.

    Args:
        findings: of each model.
        ablations: name of the model → its rows, of `Findings.ablations`.
    """
    groups = {result.name: result.groups for result in findings}
    claims = [
        savings(ablations, groups),
        clusters_matter(findings, ablations, HIGH_CLUSTERS),
        clusters_matter(findings, ablations, LOW_CLUSTERS),
        ranking(ablations, groups),
        correlation(findings),
        distinct_attention(findings),
        low_intensity(findings),
    ]
    grounds = {name: _no_ground(rows, groups[name]) for name, rows in ablations.items()}
    reasons = {name: reason for name, reason in grounds.items() if reason is not None}
    return [_without_ground(claim, reasons) for claim in claims]


def _no_ground(rows: Sequence[Row], groups: Groups | None) -> str | None:
    """Why nothing can be said of a model, or None."""
    dense = next(row for row in rows if row["ablation"] == "dense")
    value = Interval(dense["value"], *(math.nan if dense[end] is None else dense[end] for end in ("low", "high")))
    return too_few_clips(dense["clips"], groups=groups) or near_chance(value, dense["chance"])


def _without_ground(claim: Claim, reasons: Mapping[str, str]) -> Claim:
    """A claim with "cannot say" for the models that nothing can be said of."""
    verdicts, answers = dict(claim.verdicts), list(claim.answer)
    for key, mark in claim.verdicts.items():
        reason = next((text for name, text in reasons.items() if name in (key, *key.split(PAIR))), None)
        if reason is not None and mark != UNTESTED:
            verdicts[key] = CANNOT_SAY
            answers = [
                f"{key}: {CANNOT_SAY} ({reason}){text.removeprefix(f'{key}: {mark}')}"
                if text.startswith(f"{key}: {mark}")
                else text
                for text in answers
            ]
    return replace(claim, verdicts=verdicts, answer=tuple(answers))


def savings(ablations: Mapping[str, Sequence[Row]], groups: Mapping[str, Groups | None]) -> Claim:
    """Claim: pruning saves 30-40 % of the MACs for less than one point; ``groups`` of the clips, by model."""
    answers, verdicts, table = [], {}, []
    for name, rows in ablations.items():
        by_attention = [row for row in rows if row["criterion"] == ATTENTION]
        for row in by_attention:
            cells = (f"{row['keep_rate']:g}", f"{row['paper_macs'] / 1e6:,.1f} M", f"{row['macs_saved']:.0%}")
            table.append((name, *cells, _value_percent(row), _points(row)))
        saving_enough = [row for row in by_attention if row["macs_saved"] >= FEWER_MACS]
        if not saving_enough:
            verdicts[name] = UNTESTED
            answers.append(f"{name}: not tested: none of the keep rates saves {FEWER_MACS:.0%} of the MACs.")
            continue
        mildest = max(saving_enough, key=lambda row: row["keep_rate"])
        reason = _margin_ground(mildest, "change", groups[name])
        verdicts[name] = (
            CANNOT_SAY if reason else verdict(_row_interval(mildest, "change"), -POINTS_LOST / 100, above=True)
        )
        answers.append(
            f"{name}: {verdicts[name]}{f' ({reason})' if reason else ''}: {_points(mildest)} points of "
            f"{mildest['metric']} for {mildest['macs_saved']:.0%} fewer MACs at keep rate {mildest['keep_rate']:g} "
            "(asked: 30 % or more saved, less than one point lost)."
        )
    columns = ("model", "keep rate", "MACs", "saved", "value, %", "change, points")
    notes = (
        "The same weights at every keep rate; MACs are the paper's count for one clip. A model that was not trained "
        "with pruning loses more here than the paper's, which were. Asked of the highest keep rate that saves enough: "
        "the best of several on the clips that it is reported on would flatter.",
    )
    heading = "Can 30-40 % of the MACs be saved for less than one point?"
    return Claim("savings", heading, tuple(answers), verdicts, columns, tuple(table), notes)


def clusters_matter(
    findings: Sequence[Findings], ablations: Mapping[str, Sequence[Row]], clusters: tuple[int, ...]
) -> Claim:
    """Claim: patches of high clusters contribute much, and those of low clusters remain important."""
    word = "high" if clusters == HIGH_CLUSTERS else "low"
    names = "+".join(f"C{number}" for number in clusters)
    answers, verdicts, table = [], {}, []
    for result in findings:
        rows = [
            row
            for row in ablations[result.name]
            if row["ablation"] == "clusters" and row["clusters"] == names and not row["random"]
        ]
        first = min(row["block"] for row in rows)
        parts, marks = [], []
        for row in rows:
            cells = (f"{row['patches_removed']:.1f}", _points(row), _points(row, "difference"))
            table.append((result.name, row["statistic"], str(row["block"]), *cells))
            if row["block"] == first:
                marks.append(verdict(_row_interval(row, "change"), 0.0, above=False))
                than = verdict(_row_interval(row, "difference"), 0.0, above=False)
                more = {YES: "more than", NO: "less than"}.get(than, "not clearly other than")
                parts.append(
                    f"without {word} {row['statistic']} {_points(row)} points ({marks[-1]}), {more} without as many "
                    "random patches"
                )
        verdicts[result.name] = joint(marks)
        answers.append(f"{result.name}: {verdicts[result.name]}: dropped at block {first}, {'; '.join(parts)}.")
    columns = ("model", "statistic", "block", "patches dropped", "change, points", "against random, points")
    heading = {
        "high": "Do patches of high intensity or high variation contribute to the accuracy?",
        "low": "Do patches of low intensity or low variation remain important?",
    }[word]
    notes = (
        f"The dense model without the patches of {names} from a block on, against the dense model, and against the "
        "same without as many random patches of each clip.",
    )
    return Claim(f"{word}-clusters", heading, tuple(answers), verdicts, columns, tuple(table), notes)


def ranking(ablations: Mapping[str, Sequence[Row]], groups: Mapping[str, Groups | None]) -> Claim:
    """Claim: ranking by intensity or variation alone gives a noticeable drop; here with the right gather, too."""
    answers, verdicts, table = [], {}, []
    for name, rows in ablations.items():
        by_criterion = [row for row in rows if row["ablation"] == "criterion"]
        rate = max(row["keep_rate"] for row in by_criterion)
        if not any(row["criterion"] in STATISTICS and row["keep_rate"] == rate for row in by_criterion):
            verdicts[name] = UNTESTED
            answers.append(f"{name}: {UNTESTED}: the way in which it drops patches cannot go by these scores.")
            continue
        for row in by_criterion:
            table.append(
                (name, f"{row['keep_rate']:g}", row["criterion"], _value_percent(row), _points(row), _difference(row))
            )
        at = {row["criterion"]: row for row in by_criterion if row["keep_rate"] == rate}
        reasons = {statistic: _margin_ground(at[statistic], "difference", groups[name]) for statistic in STATISTICS}
        marks = {
            statistic: CANNOT_SAY
            if reasons[statistic]
            else verdict(_row_interval(at[statistic], "difference"), -POINTS_LOST / 100, above=False)
            for statistic in STATISTICS
        }
        verdicts[name] = joint(list(marks.values()))
        parts = [
            f"{statistic} {_difference(at[statistic])} points "
            f"({marks[statistic]}{f', {reasons[statistic]}' if reasons[statistic] else ''})"
            for statistic in STATISTICS
        ]
        public = [
            f"{statistic} {_difference(at[key])}"
            for statistic in STATISTICS
            if (key := f"{statistic}, public gather") in at
        ]
        wrong = f" With the public code's gather: {', '.join(public)} points." if public else ""
        answers.append(
            f"{name}: {verdicts[name]}: with the right gather at keep rate {rate:g}, against ranking by attention: "
            f"{'; '.join(parts)} (asked: a loss of more than one point).{wrong}"
        )
    columns = ("model", "keep rate", "ranked by", "value, %", "change from dense", "against attention")
    notes = (
        "Training-free. The public code's gather takes tokens beside those that rank highest, and loses [CLS] and "
        '[DIST]; "random" is one draw of patches, the same for all clips.',
    )
    heading = "Does ranking by intensity or variation alone give a noticeable drop?"
    return Claim("ranking", heading, tuple(answers), verdicts, columns, tuple(table), notes)


def correlation(findings: Sequence[Findings]) -> Claim:
    """Claim: attention correlates highly with intensity and variation; as Somers' D, tau-b, and in the paper's form.

    What is high has no mark: a random score reads well above 0 in the paper's form, and a perfect one below 1 as tau-b,
    because clusters tie patches. So the answer is whether there is any, and how far on the way between the two.
    """
    answers, verdicts, table = [], {}, []
    for result in findings:
        parts, marks = [], []
        for rate, summary in result.summaries.items():
            estimate = bootstrap(clip_mean(over_blocks(summary.kendall)), groups=result.groups)
            for place, statistic in enumerate(STATISTICS):
                read = {form: _interval_at(estimate, place, number) for number, form in enumerate(KENDALL_FORMS)}
                table.append((result.name, f"{rate:g}", statistic, *(_number(read[form]) for form in SHOWN_FORMS)))
                if rate == 1.0:
                    mark = verdict(read["kendall_somers_d"], 0.0, above=True)
                    marks.append(mark)
                    parts.append(
                        f"{statistic} {_number(read['kendall_somers_d'])} of the way from a random to a perfect score "
                        f"({mark}; tau-b with the values themselves {read['kendall_tau_b_values'][0]:.2f}; the paper's "
                        f"form reads {read['kendall_paper'][0]:.2f}, where random reads "
                        f"{read['kendall_paper_expected_shuffled'][0]:.2f} and perfect 1)"
                    )
        verdicts[result.name] = joint(marks)
        answers.append(
            f"{result.name}: {verdicts[result.name]}: over the blocks of the dense model: {'; '.join(parts)} "
            "(asked: more than nothing)."
        )
    columns = ("model", "keep rate", "clusters of", *SHOWN_FORMS.values())
    published = "; ".join(
        f"{name}: {', '.join(f'{data} {mean:.2f}' for data, mean in means.items())}"
        for name, means in PUBLISHED_MEANS.items()
        if name in {result.backbone for result in findings}
    )
    notes = [
        "Mean over blocks, then over clips. The paper's form counts ties as concordant, so that a random score reads "
        "the share of ties and a perfect one 1; as tau-b they read 0 and what the table says. Somers' D of score given "
        "cluster is the share of the way between them, for both. tau-b with the values knows no clusters.",
    ]
    if published:
        notes.append(f"Published, in the paper's form, for intensity, mean over blocks: {published}.")
    heading = "Does attention correlate with intensity and variation, and how much?"
    return Claim("correlation", heading, tuple(answers), verdicts, columns, tuple(table), tuple(notes))


SHOWN_FORMS = {
    "kendall_somers_d": "Somers' D (0 random, 1 perfect)",
    "kendall_tau_b_values": "tau-b with the values",
    "kendall_tau_b": "tau-b",
    "kendall_tau_b_perfect": "tau-b, perfect",
    "kendall_paper": "paper's form",
    "kendall_paper_expected_shuffled": "paper's form, random",
}
"""Forms of Kendall's correlation → what the report calls them."""


def over_blocks(kendall: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n, statistics, forms): mean over the blocks in which a clip has it; NaN where none has."""
    known = ~np.isnan(kendall)
    sums = np.where(known, kendall, 0.0).sum(axis=-1)
    return np.where(known.any(axis=-1), sums / np.maximum(known.sum(axis=-1), 1), np.nan)


def received_ratio(result: Findings) -> Estimate:
    """(stages, blocks): geometric mean over clips of `attention_ratio` at the first keep rate; ratios are skewed."""
    ratio = next(iter(result.ratios.values()))
    log_ratio = np.log(ratio, out=np.full(ratio.shape, np.nan), where=ratio > 0)
    estimate = bootstrap(clip_mean(log_ratio), groups=result.groups)
    return estimate._replace(mean=np.exp(estimate.mean), low=np.exp(estimate.low), high=np.exp(estimate.high))


def distinct_attention(findings: Sequence[Findings]) -> Claim:
    """Claim: kept patches consistently receive more attention than pruned ones; in the dense model, in later blocks."""
    answers, verdicts, table = [], {}, []
    for result in findings:
        rate, estimate = next(iter(result.ratios)), received_ratio(result)
        stages = result.summaries[rate].stages
        marks: list[str] = []
        lowest = (math.inf, 0, 0)
        for number, stage in enumerate(stages):
            for block in range(estimate.mean.shape[1]):
                value = _interval_at(estimate, number, block)
                table.append((result.name, str(stage), str(block), _number(value)))
                if block > stage:
                    marks.append(verdict(value, 1.0, above=True))
                    lowest = min(lowest, (value[0], stage, block))
        if not marks:
            verdicts[result.name] = UNTESTED
            answers.append(f"{result.name}: not tested: there is no block after its pruning blocks.")
            continue
        verdicts[result.name] = YES if set(marks) == {YES} else NO if NO in marks else UNCLEAR
        answers.append(
            f"{result.name}: {verdicts[result.name]}: in the dense model, patches that are kept at keep rate {rate:g} "
            f"receive more attention than the others in {marks.count(YES)} of {len(marks)} later blocks; the least is "
            f"{lowest[0]:.2f} times as much (kept after block {lowest[1]}, in block {lowest[2]})."
        )
    columns = ("model", "kept after block", "in block", "kept over gone")
    notes = (
        "At the block that selects, kept patches score higher by construction. So the dense model, where nothing is "
        "dropped, is asked in the blocks behind it. Geometric mean over clips.",
    )
    heading = "Do kept patches consistently receive other attention than pruned ones?"
    return Claim("attention", heading, tuple(answers), verdicts, columns, tuple(table), notes)


def low_intensity(findings: Sequence[Findings]) -> Claim:
    """Claim: AudioMAE keeps more low-intensity patches than AST."""
    heading = "Does AudioMAE keep more low-intensity patches than AST?"
    table, answers, verdicts = [], [], {}
    for result in findings:
        for rate in result.ratios:
            low = low_ratios(result.summaries[rate], "intensity")
            ratios = [bootstrap(ratio, groups=result.groups) for ratio in low]
            for number, stage in enumerate(result.summaries[rate].stages):
                cells = (_percent(_interval_at(ratio, number)) for ratio in ratios)
                table.append((result.name, f"{rate:g}", str(stage), *cells))
    pairs = [(a, b) for a in findings for b in findings if (a.backbone, b.backbone) == ("audiomae", "ast")]
    for first, second in pairs:
        names = f"{first.name}{PAIR}{second.name}"
        for rate in first.ratios:
            compared = compare_low(first.summaries[rate], second.summaries[rate])
            for number, stage in enumerate(first.summaries[rate].stages):
                both = (_interval_at(compared.kept_share, number), _interval_at(compared.cluster_share, number))
                table.append((names, f"{rate:g}", str(stage), *(_percent(value, "+") for value in both)))
            if rate == next(iter(first.ratios)):
                last = _interval_at(compared.kept_share, -1)
                verdicts[names] = verdict(last, 0.0, above=True)
                answers.append(
                    f"{names}: {verdicts[names]}: after the last stage at keep rate {rate:g}, AudioMAE has "
                    f"{_percent(last, '+')} points more of the patches of C1+C2 left."
                )
    if not pairs:
        kinds = sorted({result.backbone for result in findings})
        answers.append(f"Not tested: it takes an AudioMAE and an AST, and this report has {' and '.join(kinds)} only.")
        verdicts = {result.name: UNTESTED for result in findings}
    columns = ("model", "keep rate", "after block", "low patches left, %", "low ones among the kept, %")
    notes = ("Low are clusters C1 and C2 of intensity. Differences draw the same clips for both models, in points.",)
    return Claim("low-intensity", heading, tuple(answers), verdicts, columns, tuple(table), notes)


def _margin_ground(row: Row, name: str, groups: Groups | None) -> str | None:
    """Why a row cannot say whether one point is lost, or None."""
    return within_margin(_row_interval(row, name), row.get("clips"), groups=groups)


def _row_interval(row: Row, name: str) -> Interval:
    ends = [row[f"{name}_{end}"] for end in ("low", "high")]
    value, low, high = (math.nan if number is None else float(number) for number in (row[name], *ends))
    return Interval(value, low, high)


def _interval_at(estimate: Estimate, *place: int) -> Interval:
    return Interval(*(float(part[place]) for part in (estimate.mean, estimate.low, estimate.high)))


def _format_interval(value: Interval, form: str) -> str:
    if math.isnan(value[0]):
        return "–"
    if math.isnan(value[1]):
        return format(value[0], form)
    return f"{format(value[0], form)} [{format(value[1], form)}, {format(value[2], form)}]"


def _number(value: Interval) -> str:
    return _format_interval(value, ".2f")


def _percent(value: Interval, sign: str = "") -> str:
    return _format_interval(Interval(*(100 * part for part in value)), f"{sign}.1f")


def _value_percent(row: Row) -> str:
    low, high = (math.nan if row[end] is None else row[end] for end in ("low", "high"))
    return _percent(Interval(row["value"], low, high))


def _points(row: Row, name: str = "change") -> str:
    return _percent(_row_interval(row, name), "+")


def _difference(row: Row) -> str:
    return "" if row["difference"] is None else _points(row, "difference")
