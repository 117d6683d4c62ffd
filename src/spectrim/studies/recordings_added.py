"""The questions that were added to the protocol after its first answers: the norm of the values, and clusters."""

from __future__ import annotations

from collections.abc import Sequence

from spectrim.pictures.report import Report
from spectrim.stats.speakers import p_text
from spectrim.studies.keep_rates import NAMES
from spectrim.studies.recordings import CLUSTER, CLUSTER_ARMS
from spectrim.studies.recordings_answers import (
    CLUSTER_KEY,
    VALUE_NORM_KEY,
    Answer,
    Key,
    Measured,
    by_clusters,
    by_value_norm,
    primary,
    unseen,
)
from spectrim.studies.recordings_described import among

BACKBONES = ("ast",)
"""Of stages 7 and 8; of others these scores and reducers are only described."""


def add_value_norm(report: Report, measured: Measured, passing: Sequence[int]) -> None:
    """The two questions about the norm of the values; nothing where none of it is run."""
    answers, without = (by_value_norm(measured, folds) for folds in (passing, unseen(passing)))
    if measured.backbone not in BACKBONES or all(one.difference is None for one in answers.values()):
        return
    report.heading(f"{NAMES[measured.backbone]}: the norm of the values", 3)
    report.text(
        "Decided after fold 0's table of other scores and before any of this was run: patches are ranked by the "
        "Euclidean norm of their value vectors, mean over heads. Is less than one point lost at 0.7, fine-tuned? "
        f"{_less_than_a_point(measured, passing, VALUE_NORM_KEY)}"
    )
    report.text(
        "The norm of the values minus attention at the same keep rate, in points; p by t within folds, Holm over "
        "these four."
    )
    names = [f"{how}, {rate:g}" for how, rate in answers]
    _add_family(report, names, list(answers.values()), list(without.values()), passing)


def add_clusters(report: Report, measured: Measured, passing: Sequence[int]) -> None:
    """The questions about clusters in training; nothing before an arm of theirs is run."""
    if measured.backbone not in BACKBONES or not measured.of(CLUSTER_KEY):
        return
    answers, without = (by_clusters(measured, folds) for folds in (passing, unseen(passing)))
    rate = CLUSTER_ARMS[0].keep_rate
    report.heading(f"{NAMES[measured.backbone]}: clusters, fine-tuned", 3)
    report.text(
        "Decided after clusters had cost least without training, and before any of this was run: patches that are "
        f"alike become their mean (reducer {CLUSTER}). Is less than one point lost at {rate:g}, fine-tuned? "
        f"{_less_than_a_point(measured, passing, CLUSTER_KEY)}"
    )
    report.text(
        f"Differences at {rate:g}, fine-tuned, in points, over the seeds that both have; p by t within folds, Holm "
        "over these three. Clusters execute a few more MACs than attention (protocol)."
    )
    names = [" minus ".join(pair) for pair in answers]
    _add_family(report, names, list(answers.values()), list(without.values()), passing)


def _less_than_a_point(measured: Measured, passing: Sequence[int], key: Key) -> str:
    answers = (primary(measured, folds, key).told("lost") for folds in (passing, unseen(passing)))
    return " Without fold 0: ".join(answers)


def _add_family(
    report: Report, names: Sequence[str], answers: Sequence[Answer], without: Sequence[Answer], passing: Sequence[int]
) -> None:
    """The table of a family of comparisons, and beside it the same without the fold that had been looked at."""
    table = []
    for name, answer, beside in zip(names, answers, without, strict=True):
        cells = (among(answer.difference, passing), p_text(answer.corrected), str(answer))
        table.append((name, *cells, among(beside.difference, unseen(passing))))
    report.table(["", "points", "p by Holm", "answer", "without fold 0"], table)
