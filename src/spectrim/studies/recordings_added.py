"""The questions that were added to the protocol after its first answers: the norm of the values, and clusters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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
    apart,
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
    answers = by_value_norm(measured, passing)
    if measured.backbone not in BACKBONES or all(one.difference is None for one in answers.values()):
        return
    report.heading(f"{NAMES[measured.backbone]}: the norm of the values", 3)
    question = "Is less than one point lost at 0.7, fine-tuned?"
    report.text(
        "Decided after fold 0's table of other scores and before any of this was run: patches are ranked by the "
        f"Euclidean norm of their value vectors, mean over heads. {question} "
        f"{_less_than_a_point(measured, passing, VALUE_NORM_KEY)}"
    )
    report.text(
        "The norm of the values minus attention at the same keep rate, in points; p by t within folds, Holm over "
        "these four."
    )

    def family(measured: Measured, folds: Sequence[int]) -> dict[str, Answer]:
        return {f"{how}, {rate:g}": answer for (how, rate), answer in by_value_norm(measured, folds).items()}

    _add_family(report, family, measured, passing)
    for seed, alone in apart(measured, [primary(measured, passing, VALUE_NORM_KEY), *answers.values()]).items():
        report.text(f"Seed {seed} alone. {question} {_less_than_a_point(alone, alone.passing, VALUE_NORM_KEY)}")
        _add_family(report, family, alone, alone.passing)


def add_clusters(report: Report, measured: Measured, passing: Sequence[int]) -> None:
    """The questions about clusters in training; nothing before an arm of theirs is run."""
    if measured.backbone not in BACKBONES or not measured.of(CLUSTER_KEY):
        return
    rate = CLUSTER_ARMS[0].keep_rate
    report.heading(f"{NAMES[measured.backbone]}: clusters, fine-tuned", 3)
    question = f"Is less than one point lost at {rate:g}, fine-tuned?"
    report.text(
        "Decided after clusters had cost least without training, and before any of this was run: patches that are "
        f"alike become their mean (reducer {CLUSTER}). {question} "
        f"{_less_than_a_point(measured, passing, CLUSTER_KEY)}"
    )
    report.text(
        f"Differences at {rate:g}, fine-tuned, in points, over the seeds that both have; p by t within folds, Holm "
        "over these three. Clusters execute a few more MACs than attention (protocol)."
    )

    def family(measured: Measured, folds: Sequence[int]) -> dict[str, Answer]:
        return {" minus ".join(pair): answer for pair, answer in by_clusters(measured, folds).items()}

    _add_family(report, family, measured, passing)
    answers = [primary(measured, passing, CLUSTER_KEY), *family(measured, passing).values()]
    for seed, alone in apart(measured, answers).items():
        report.text(f"Seed {seed} alone. {question} {_less_than_a_point(alone, alone.passing, CLUSTER_KEY)}")
        _add_family(report, family, alone, alone.passing)


def _less_than_a_point(measured: Measured, passing: Sequence[int], key: Key) -> str:
    answers = (primary(measured, folds, key).told("lost") for folds in (passing, unseen(passing)))
    return " Without fold 0: ".join(answers)


def _add_family(
    report: Report,
    family: Callable[[Measured, Sequence[int]], dict[str, Answer]],
    measured: Measured,
    passing: Sequence[int],
) -> None:
    """The table of a family of comparisons, and beside it the same without the fold that had been looked at."""
    without, table = family(measured, unseen(passing)), []
    for name, answer in family(measured, passing).items():
        cells = (among(answer.difference, passing), p_text(answer.corrected), str(answer))
        table.append((name, *cells, among(without[name].difference, unseen(passing))))
    report.table(["", "points", "p by Holm", "answer", "without fold 0"], table)
