"""The claims of the paper's abstract, each with an answer computed from the results; see `spectrim.analysis.claim`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from spectrim.analysis.ablations import ATTENTION, HIGH_CLUSTERS, LOW_CLUSTERS
from spectrim.analysis.attention_claims import correlation, distinct_attention, low_intensity
from spectrim.analysis.claim import (
    NO,
    PAIR,
    UNTESTED,
    YES,
    Claim,
    Row,
    as_percent,
    joint,
    verdict,
)
from spectrim.analysis.findings import Findings
from spectrim.analysis.summary import STATISTICS
from spectrim.stats.ground import CANNOT_SAY, Interval, near_chance, too_few_clips, within_margin
from spectrim.stats.groups import Groups

FEWER_MACS, POINTS_LOST = 0.30, 1.0
"""The paper's claim: at least this share of the MACs saved, fewer than so many points lost."""


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


def _margin_ground(row: Row, name: str, groups: Groups | None) -> str | None:
    """Why a row cannot say whether one point is lost, or None."""
    return within_margin(_row_interval(row, name), row.get("clips"), groups=groups)


def _row_interval(row: Row, name: str) -> Interval:
    ends = [row[f"{name}_{end}"] for end in ("low", "high")]
    value, low, high = (math.nan if number is None else float(number) for number in (row[name], *ends))
    return Interval(value, low, high)


def _value_percent(row: Row) -> str:
    low, high = (math.nan if row[end] is None else row[end] for end in ("low", "high"))
    return as_percent(Interval(row["value"], low, high))


def _points(row: Row, name: str = "change") -> str:
    return as_percent(_row_interval(row, name), "+")


def _difference(row: Row) -> str:
    return "" if row["difference"] is None else _points(row, "difference")
