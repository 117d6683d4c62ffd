"""Claims of the paper that are about attention scores and about which patches are kept; no accuracy is in them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from spectrim.analysis.ablations import compare_low, low_ratios
from spectrim.analysis.claim import (
    NO,
    PAIR,
    UNCLEAR,
    UNTESTED,
    YES,
    Claim,
    as_number,
    as_percent,
    interval_at,
    joint,
    verdict,
)
from spectrim.analysis.findings import Findings
from spectrim.analysis.summary import KENDALL_FORMS, STATISTICS
from spectrim.stats.bootstrap import Estimate, bootstrap
from spectrim.stats.kendall import PUBLISHED_MEANS
from spectrim.stats.ratios import clip_mean


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
                read = {form: interval_at(estimate, place, number) for number, form in enumerate(KENDALL_FORMS)}
                table.append((result.name, f"{rate:g}", statistic, *(as_number(read[form]) for form in SHOWN_FORMS)))
                if rate == 1.0:
                    mark = verdict(read["kendall_somers_d"], 0.0, above=True)
                    marks.append(mark)
                    parts.append(
                        f"{statistic} {as_number(read['kendall_somers_d'])} of the way from a random to a perfect "
                        f"score ({mark}; tau-b with the values themselves {read['kendall_tau_b_values'][0]:.2f}; "
                        f"the paper's form reads {read['kendall_paper'][0]:.2f}, where random reads "
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
                value = interval_at(estimate, number, block)
                table.append((result.name, str(stage), str(block), as_number(value)))
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
                cells = (as_percent(interval_at(ratio, number)) for ratio in ratios)
                table.append((result.name, f"{rate:g}", str(stage), *cells))
    pairs = [(a, b) for a in findings for b in findings if (a.backbone, b.backbone) == ("audiomae", "ast")]
    for first, second in pairs:
        names = f"{first.name}{PAIR}{second.name}"
        for rate in first.ratios:
            compared = compare_low(first.summaries[rate], second.summaries[rate])
            for number, stage in enumerate(first.summaries[rate].stages):
                both = (interval_at(compared.kept_share, number), interval_at(compared.cluster_share, number))
                table.append((names, f"{rate:g}", str(stage), *(as_percent(value, "+") for value in both)))
            if rate == next(iter(first.ratios)):
                last = interval_at(compared.kept_share, -1)
                verdicts[names] = verdict(last, 0.0, above=True)
                answers.append(
                    f"{names}: {verdicts[names]}: after the last stage at keep rate {rate:g}, AudioMAE has "
                    f"{as_percent(last, '+')} points more of the patches of C1+C2 left."
                )
    if not pairs:
        kinds = sorted({result.backbone for result in findings})
        answers.append(f"Not tested: it takes an AudioMAE and an AST, and this report has {' and '.join(kinds)} only.")
        verdicts = {result.name: UNTESTED for result in findings}
    columns = ("model", "keep rate", "after block", "low patches left, %", "low ones among the kept, %")
    notes = ("Low are clusters C1 and C2 of intensity. Differences draw the same clips for both models, in points.",)
    return Claim("low-intensity", heading, tuple(answers), verdicts, columns, tuple(table), notes)
