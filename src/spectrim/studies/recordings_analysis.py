"""The paper's analysis of a study's models, speaker by speaker: what `spectrim analyze` found, as numbers of a clip.

Some of them the protocol compares with nought; the others stand beside them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectrim.analysis.ablations import DENSE, HIGH_CLUSTERS, LOW_CLUSTERS, Condition, low_ratios
from spectrim.analysis.analyse import CACHE, STATISTICS_FILE
from spectrim.analysis.attention_claims import over_blocks
from spectrim.analysis.claims_report import slug
from spectrim.analysis.findings import Findings, read_findings
from spectrim.analysis.record import checkpoint_digest
from spectrim.analysis.summary import KENDALL_FORMS, STATISTICS
from spectrim.errors import DataError
from spectrim.stats.ratios import divide_or_nan
from spectrim.studies.recordings import ANALYSED_CLIPS, ANALYSED_RATE, DROPPED_AT, PADDINGS, Arm

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


def analysis_rows(arm: Arm, out: Path, speakers: Mapping[str, str], folds: Mapping[str, int]) -> list[dict[str, Any]]:
    """A row for each way to count padding, speaker and quantity of an arm: the mean over the speaker's clips.

    A quantity that one of the fold's speakers lacks has no rows: a mean over some of them would be another number.

    Args:
        arm: of the study.
        out: folder of the study.
        speakers: clip → speaker.
        folds: speaker → fold in which it is tested.

    Raises:
        DataError: the findings cannot be read, or are not those of the protocol for this arm; says which folder to
            delete.
    """
    own = {clip for clip, speaker in speakers.items() if folds[speaker] == arm.fold}
    rows = []
    for padding in PADDINGS:
        folder = out / arm.analysis(padding)
        if not (folder / STATISTICS_FILE).is_file():
            continue
        try:
            findings = read_findings(folder / CACHE / f"{slug(arm.branch.name)}.safetensors", arm.branch.name)
            _check(findings, padding, own, out / arm.folder / "model")
            quantities = clip_quantities(findings)
        except DataError as error:
            raise DataError(f"{error}; delete {folder} and start again") from error
        said = np.array([speakers[clip] for clip in findings.summaries[1.0].ids])
        for quantity, values in quantities.items():
            known = {name: values[(said == name) & ~np.isnan(values)] for name in folds if folds[name] == arm.fold}
            if all(len(of_speaker) for of_speaker in known.values()):
                rows += [
                    {"padding": padding, "quantity": quantity, "speaker": name, "value": float(of_speaker.mean())}
                    for name, of_speaker in known.items()
                ]
    return rows


def _check(findings: Findings, padding: str, clips: Collection[str], model: Path) -> None:
    """Raise `DataError` unless findings are of the protocol's plan, the fold's clips, and the model, if it is there."""
    plan, heard = findings.facts["plan"], findings.facts["clips"]
    asked = {
        "padding": padding,
        "clusters": "fit",
        "part": "test",
        "keep_rates": [ANALYSED_RATE],
        "drop_at": [DROPPED_AT],
    }
    for name, value in asked.items():
        if plan[name] != value:
            raise DataError(f"the analysis of {findings.name} has {name} {plan[name]}, not {value}")
    if len(heard) != min(ANALYSED_CLIPS, len(clips)) or not set(heard) <= set(clips):
        raise DataError(f"the analysis of {findings.name} is of {len(heard)} clips that are not the fold's")
    if (model / "config.json").is_file() and checkpoint_digest(model) != findings.facts["weights"]:
        raise DataError(f"the analysis of {findings.name} is of other weights than {model}")
