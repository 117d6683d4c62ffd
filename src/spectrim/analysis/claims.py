"""The claims of the paper's abstract, each with an answer that is computed from the numbers.

An answer looks at the 95 % interval: "yes" or "no" where all of it lies on one side of the mark, "unclear" where the
mark lies inside. Which mark is said in the answer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spectrim.analysis.ablations import ATTENTION, HIGH_CLUSTERS, LOW_CLUSTERS, compare_low, low_ratios
from spectrim.analysis.experiment import Findings
from spectrim.analysis.summary import KENDALL_FORMS, STATISTICS
from spectrim.stats.bootstrap import Estimate, bootstrap
from spectrim.stats.ratios import clip_mean

FEWER_MACS, POINTS_LOST = 0.30, 1.0
"""The paper's claim: at least this share of the MACs saved, fewer than so many points lost."""

YES, NO, UNCLEAR, IN_PART, UNTESTED = "yes", "no", "unclear", "in part", "not tested"
HIGH_CORRELATION = 0.5
"""From here on tau-b counts as high: for normal variables it is Pearson's 0.71 (sin(π/2 · 0.5))."""

Row = Mapping[str, Any]
Interval = tuple[float, float, float]
"""Value, lower and upper end; NaN ends where there is no interval."""


@dataclass(frozen=True)
class Claim:
    """One claim with its answer.

    Attributes:
        key: short name, for files.
        heading: the claim as a question.
        answer: a sentence for each model, or one that says why there is none.
        verdicts: model → `YES`, `NO`, `UNCLEAR`, `IN_PART` or `UNTESTED`; of a comparison, the two names → it.
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
    """Whether a value lies above (or below) a mark: yes, no, or unclear where the interval reaches over it.

    Without an interval (one clip) everything is unclear.
    """
    _, low, high = interval
    if not (math.isfinite(low) and math.isfinite(high)):
        return UNCLEAR
    if low > mark:
        return YES if above else NO
    if high < mark:
        return NO if above else YES
    return UNCLEAR


def joint(marks: Sequence[str]) -> str:
    """One answer from those for several statistics: theirs if they agree, in part if some are yes."""
    if len(set(marks)) == 1:
        return marks[0]
    return IN_PART if YES in marks else UNCLEAR


def all_claims(found: Sequence[Findings], ablations: Mapping[str, Sequence[Row]]) -> list[Claim]:
    """Every claim of the abstract, in its order.

    Args:
        found: of each model.
        ablations: name of the model → its rows, of `Findings.ablations`.
    """
    return [
        savings(ablations),
        clusters_matter(found, ablations, HIGH_CLUSTERS),
        clusters_matter(found, ablations, LOW_CLUSTERS),
        ranking(ablations),
        correlation(found),
        distinct_attention(found),
        low_intensity(found),
    ]


def savings(ablations: Mapping[str, Sequence[Row]]) -> Claim:
    """30-40 % of the MACs for less than one point."""
    answers, verdicts, table = [], {}, []
    for name, rows in ablations.items():
        own = [row for row in rows if row["criterion"] == ATTENTION]
        for row in own:
            cells = (f"{row['keep_rate']:g}", f"{row['paper_macs'] / 1e6:,.1f} M", f"{row['macs_saved']:.0%}")
            table.append((name, *cells, _share(row), _points(row)))
        able = [row for row in own if row["macs_saved"] >= FEWER_MACS]
        if not able:
            verdicts[name] = UNTESTED
            answers.append(f"{name}: not tested: none of the keep rates saves {FEWER_MACS:.0%} of the MACs.")
            continue
        best = max(able, key=lambda row: row["change"])
        verdicts[name] = verdict(_interval(best, "change"), -POINTS_LOST / 100, above=True)
        answers.append(
            f"{name}: {verdicts[name]}: {_points(best)} points of {best['metric']} for {best['macs_saved']:.0%} fewer "
            f"MACs at keep rate {best['keep_rate']:g} (asked: 30 % or more saved, less than one point lost)."
        )
    columns = ("model", "keep rate", "MACs", "saved", "value, %", "change, points")
    notes = (
        "The same weights at every keep rate; MACs are the paper's count for one clip. A model that was not trained "
        "with pruning loses more here than the paper's, which were.",
    )
    heading = "Can 30-40 % of the MACs be saved for less than one point?"
    return Claim("savings", heading, tuple(answers), verdicts, columns, tuple(table), notes)


def clusters_matter(
    found: Sequence[Findings], ablations: Mapping[str, Sequence[Row]], clusters: tuple[int, ...]
) -> Claim:
    """High patches contribute much, and low ones remain important: what is lost without them."""
    word = "high" if clusters == HIGH_CLUSTERS else "low"
    names = "+".join(f"C{number}" for number in clusters)
    answers, verdicts, table = [], {}, []
    for one in found:
        own = [
            row for row in ablations[one.name]
            if row["ablation"] == "clusters" and row["clusters"] == names and not row["random"]
        ]  # fmt: skip
        first = min(row["block"] for row in own)
        parts, marks = [], []
        for row in own:
            cells = (f"{row['patches_removed']:.1f}", _points(row), _points(row, "difference"))
            table.append((one.name, row["statistic"], str(row["block"]), *cells))
            if row["block"] == first:
                marks.append(verdict(_interval(row, "change"), 0.0, above=False))
                than = verdict(_interval(row, "difference"), 0.0, above=False)
                more = {YES: "more than", NO: "less than", UNCLEAR: "not clearly other than"}[than]
                parts.append(
                    f"without {word} {row['statistic']} {_points(row)} points ({marks[-1]}), {more} without as many "
                    "random patches"
                )
        verdicts[one.name] = joint(marks)
        answers.append(f"{one.name}: {verdicts[one.name]}: dropped at block {first}, {'; '.join(parts)}.")
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


def ranking(ablations: Mapping[str, Sequence[Row]]) -> Claim:
    """Ranking by intensity or variation alone gives a noticeable drop; is it there when the gather is right?"""
    answers, verdicts, table = [], {}, []
    for name, rows in ablations.items():
        own = [row for row in rows if row["ablation"] == "criterion"]
        rate = max(row["keep_rate"] for row in own)
        for row in own:
            table.append((name, f"{row['keep_rate']:g}", row["criterion"], _share(row), _points(row), _gap(row)))
        at = {row["criterion"]: row for row in own if row["keep_rate"] == rate}
        marks = {
            statistic: verdict(_interval(at[statistic], "difference"), -POINTS_LOST / 100, above=False)
            for statistic in STATISTICS
        }
        verdicts[name] = joint(list(marks.values()))
        parts = [f"{statistic} {_gap(at[statistic])} points ({marks[statistic]})" for statistic in STATISTICS]
        public = [
            f"{statistic} {_gap(at[key])}" for statistic in STATISTICS if (key := f"{statistic}, public gather") in at
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


def correlation(found: Sequence[Findings]) -> Claim:
    """Attention correlates highly with intensity and variation: the paper's form and tau-b."""
    answers, verdicts, table = [], {}, []
    for one in found:
        parts, marks = [], []
        for rate, summary in one.summaries.items():
            with np.errstate(invalid="ignore"):
                known = ~np.isnan(summary.kendall)
                sums = np.where(known, summary.kendall, 0.0).sum(axis=-1)
                mean = np.where(known.any(axis=-1), sums / np.maximum(known.sum(axis=-1), 1), np.nan)
            estimate = bootstrap(clip_mean(mean))
            for place, statistic in enumerate(STATISTICS):
                read = {form: _of(estimate, place, number) for number, form in enumerate(KENDALL_FORMS)}
                shown = [read[form] for form in ("kendall_tau_b", "kendall_paper", "kendall_paper_expected_shuffled")]
                table.append((one.name, f"{rate:g}", statistic, *(_number(value) for value in shown)))
                if rate == 1.0:
                    mark = verdict(shown[0], HIGH_CORRELATION, above=True)
                    marks.append(mark)
                    parts.append(
                        f"{statistic} {_number(shown[0])}; the paper's form reads {shown[1][0]:.2f}, and "
                        f"{shown[2][0]:.2f} on shuffled scores"
                    )
        verdicts[one.name] = joint(marks)
        answers.append(
            f"{one.name}: {verdicts[one.name]}: tau-b over the blocks of the dense model: {'. '.join(parts)} "
            f"(high: {HIGH_CORRELATION:g} or more)."
        )
    columns = ("model", "keep rate", "clusters of", "tau-b", "paper's form", "paper's form, shuffled")
    notes = ("Mean over blocks, then over clips. The paper's form counts ties as concordant.",)
    heading = "Does attention correlate highly with intensity and variation?"
    return Claim("correlation", heading, tuple(answers), verdicts, columns, tuple(table), notes)


def received_ratio(one: Findings) -> Estimate:
    """(stages, blocks): geometric mean over clips of `attention_ratio` at the first keep rate; ratios are skewed."""
    ratio = next(iter(one.ratios.values()))
    logarithm = np.log(ratio, out=np.full(ratio.shape, np.nan), where=ratio > 0)
    found = bootstrap(clip_mean(logarithm))
    return found._replace(mean=np.exp(found.mean), low=np.exp(found.low), high=np.exp(found.high))


def distinct_attention(found: Sequence[Findings]) -> Claim:
    """Kept patches consistently receive other attention than pruned ones: in the dense model, in later blocks too."""
    answers, verdicts, table = [], {}, []
    for one in found:
        rate, estimate = next(iter(one.ratios)), received_ratio(one)
        stages = one.summaries[rate].stages
        marks: list[str] = []
        lowest = (math.inf, 0, 0)
        for number, stage in enumerate(stages):
            for block in range(estimate.mean.shape[1]):
                value = _of(estimate, number, block)
                table.append((one.name, str(stage), str(block), _number(value)))
                if block > stage:
                    marks.append(verdict(value, 1.0, above=True))
                    lowest = min(lowest, (value[0], stage, block))
        if not marks:
            verdicts[one.name] = UNTESTED
            answers.append(f"{one.name}: not tested: there is no block after its pruning blocks.")
            continue
        verdicts[one.name] = YES if set(marks) == {YES} else NO if NO in marks else UNCLEAR
        answers.append(
            f"{one.name}: {verdicts[one.name]}: in the dense model, patches that are kept at keep rate {rate:g} "
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


def low_intensity(found: Sequence[Findings]) -> Claim:
    """AudioMAE keeps more low-intensity patches than AST."""
    heading = "Does AudioMAE keep more low-intensity patches than AST?"
    table, answers, verdicts = [], [], {}
    for one in found:
        for rate in one.ratios:
            ratios = [bootstrap(ratio) for ratio in low_ratios(one.summaries[rate], "intensity")]
            for number, stage in enumerate(one.summaries[rate].stages):
                cells = (_percent(_of(ratio, number)) for ratio in ratios)
                table.append((one.name, f"{rate:g}", str(stage), *cells))
    pairs = [(a, b) for a in found for b in found if (a.backbone, b.backbone) == ("audiomae", "ast")]
    for first, second in pairs:
        names = f"{first.name} − {second.name}"
        for rate in first.ratios:
            compared = compare_low(first.summaries[rate], second.summaries[rate])
            for number, stage in enumerate(first.summaries[rate].stages):
                both = (_of(compared.kept_share, number), _of(compared.cluster_share, number))
                table.append((names, f"{rate:g}", str(stage), *(_percent(value, "+") for value in both)))
            if rate == next(iter(first.ratios)):
                last = _of(compared.kept_share, -1)
                verdicts[names] = verdict(last, 0.0, above=True)
                answers.append(
                    f"{names}: {verdicts[names]}: after the last stage at keep rate {rate:g}, AudioMAE has "
                    f"{_percent(last, '+')} points more of the patches of C1+C2 left."
                )
    if not pairs:
        kinds = sorted({one.backbone for one in found})
        answers.append(f"Not tested: it takes an AudioMAE and an AST, and this report has {' and '.join(kinds)} only.")
        verdicts = {one.name: UNTESTED for one in found}
    columns = ("model", "keep rate", "after block", "low patches left, %", "low ones among the kept, %")
    notes = ("Low are clusters C1 and C2 of intensity. Differences draw the same clips for both models, in points.",)
    return Claim("low-intensity", heading, tuple(answers), verdicts, columns, tuple(table), notes)


def _interval(row: Row, name: str) -> Interval:
    ends = [row[f"{name}_{end}"] for end in ("low", "high")]
    value, low, high = (math.nan if number is None else float(number) for number in (row[name], *ends))
    return value, low, high


def _of(estimate: Estimate, *place: int) -> Interval:
    return float(estimate.mean[place]), float(estimate.low[place]), float(estimate.high[place])


def _written(value: Interval, form: str) -> str:
    if math.isnan(value[0]):
        return "–"
    if math.isnan(value[1]):
        return format(value[0], form)
    return f"{format(value[0], form)} [{format(value[1], form)}, {format(value[2], form)}]"


def _number(value: Interval) -> str:
    return _written(value, ".2f")


def _percent(value: Interval, sign: str = "") -> str:
    return _written((100 * value[0], 100 * value[1], 100 * value[2]), f"{sign}.1f")


def _share(row: Row) -> str:
    low, high = (math.nan if row[end] is None else row[end] for end in ("low", "high"))
    return _percent((row["value"], low, high))


def _points(row: Row, name: str = "change") -> str:
    return _percent(_interval(row, name), "+")


def _gap(row: Row) -> str:
    return "" if row["difference"] is None else _points(row, "difference")
