"""The paper's analysis of a study's models, speaker by speaker: what `spectrim analyze` found, as numbers of a clip.

Some of them the protocol compares with nought; the others stand beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectrim.analysis.ablations import DENSE, HIGH_CLUSTERS, LOW_CLUSTERS, Condition, low_ratios
from spectrim.analysis.analyse import CACHE, STATISTICS_FILE
from spectrim.analysis.claims import over_blocks
from spectrim.analysis.claims_report import slug
from spectrim.analysis.experiment import Findings, read_findings
from spectrim.analysis.summary import KENDALL_FORMS, STATISTICS
from spectrim.config import SpectrimConfig
from spectrim.errors import DataError
from spectrim.stats.ratios import divide_or_nan
from spectrim.studies.recordings import ANALYSED_RATE, DROPPED_AT, PADDINGS, Arm

CORRELATIONS = {
    "way": "kendall_somers_d",
    "paper's form": "kendall_paper",
    "paper's form, random": "kendall_paper_expected_shuffled",
    "tau-b": "kendall_tau_b",
    "tau-b, perfect": "kendall_tau_b_perfect",
    "tau-b of values": "kendall_tau_b_values",
}
"""Name of a quantity, before the statistic → its form in `KENDALL_FORMS`."""

CLUSTERS = {"C4+C5": HIGH_CLUSTERS, "C1+C2": LOW_CLUSTERS}
BEYOND, ALONE = "beyond random", "against dense"
LATER, LOW_LEFT = "later attention", "low left"

TESTED = (
    *(f"way, {statistic}" for statistic in STATISTICS),
    *(f"{names} of {statistic}, {BEYOND}" for names in CLUSTERS for statistic in STATISTICS),
    *(LATER, LOW_LEFT),
)
"""The quantities that the protocol compares with nought."""

QUANTITIES = (
    *TESTED,
    *(f"{names} of {statistic}, {ALONE}" for names in CLUSTERS for statistic in STATISTICS),
    *(f"{form}, {statistic}" for form in CORRELATIONS if form != "way" for statistic in STATISTICS),
)
"""All of them: correlations are between −1 and 1, `LATER` is a logarithm, the others are points."""


def clip_quantities(findings: Findings) -> dict[str, NDArray[np.float64]]:
    """Quantity of `QUANTITIES` → (clips,); NaN where a clip has none.

    Args:
        findings: of a model on clips of one label each, with clusters dropped at `DROPPED_AT` and patches kept at
            `ANALYSED_RATE`.

    Raises:
        DataError: they are of another plan.
    """
    dense = findings.summaries[1.0]
    if ANALYSED_RATE not in findings.ratios:
        raise DataError(f"the analysis of {findings.name} has no keep rate {ANALYSED_RATE:g}")
    kendall = over_blocks(dense.kendall)
    found = {
        f"{name}, {statistic}": kendall[:, place, KENDALL_FORMS.index(form)]
        for name, form in CORRELATIONS.items()
        for place, statistic in enumerate(STATISTICS)
    }
    labels = dense.targets.argmax(axis=1)
    right = {condition: (scores.argmax(axis=1) == labels) for condition, scores in findings.scores.items()}
    for names, numbers in CLUSTERS.items():
        for statistic in STATISTICS:
            without, random = (
                Condition("clusters", 1.0, None, DROPPED_AT, statistic, numbers, drawn) for drawn in (False, True)
            )
            if without not in right or random not in right:
                raise DataError(f"the analysis of {findings.name} does not drop {names} at block {DROPPED_AT}")
            for end, other in ((BEYOND, random), (ALONE, DENSE)):
                found[f"{names} of {statistic}, {end}"] = 100.0 * (1.0 * right[other] - right[without])
    found[LATER] = _later_attention(findings.ratios[ANALYSED_RATE], dense.stages)
    found[LOW_LEFT] = _low_left(findings)
    return {name: found[name] for name in QUANTITIES}


def _later_attention(ratio: NDArray[np.float64], stages: tuple[int, ...]) -> NDArray[np.float64]:
    """(n,): mean logarithm of (n, stages, blocks) over stages and the blocks behind them."""
    behind = np.arange(ratio.shape[2]) > np.array(stages)[:, None]
    known = behind & (ratio > 0)
    logs = np.log(ratio, out=np.zeros(ratio.shape), where=known)
    return divide_or_nan(logs.sum(axis=(1, 2)), known.sum(axis=(1, 2)))


def _low_left(findings: Findings) -> NDArray[np.float64]:
    """(n,), in points: of a clip's low patches those left after the last stage, minus the same of all its patches."""
    summary = findings.summaries[ANALYSED_RATE]
    low = low_ratios(summary, "intensity")[0]
    everything = summary.cluster_counts("intensity").sum(axis=-1)
    shares = [divide_or_nan(low.top[:, -1], low.bottom[:, -1]), divide_or_nan(everything[:, -1], everything[:, 0])]
    return 100.0 * (shares[0] - shares[1])


def analysis_rows(arm: Arm, out: Path, speakers: Mapping[str, str]) -> list[dict[str, Any]]:
    """A row for each way to count padding, speaker and quantity of an arm: the mean over the speaker's clips.

    Args:
        arm: of the study.
        out: folder of the study.
        speakers: clip → speaker.

    Raises:
        DataError: as `clip_quantities`, or the findings cannot be read.
    """
    rows = []
    for padding in PADDINGS:
        folder = out / arm.analysis(padding)
        if not (folder / STATISTICS_FILE).is_file():
            continue
        config = SpectrimConfig.from_pretrained(out / arm.folder / "model")
        findings = read_findings(folder / CACHE / f"{slug(arm.branch.name)}.safetensors", arm.branch.name, config)
        said = np.array([speakers[clip] for clip in findings.summaries[1.0].ids])
        for quantity, values in clip_quantities(findings).items():
            for speaker in sorted(set(said.tolist())):
                own = values[(said == speaker) & ~np.isnan(values)]
                if len(own):
                    rows.append(
                        {"padding": padding, "quantity": quantity, "speaker": speaker, "value": float(own.mean())}
                    )
    return rows
