"""Study of rankings: accuracy lost by ranking patches by something else than attention, from rows of runs to a report.

Fine-tuned with that ranking, or training-free: the dense model, pruned with it at test time. Every loss is paired: a
run against the run of its own fold and seed, which is the same one up to where the keep rate begins to fall.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectrim.analysis.ablations import ATTENTION, RANKINGS
from spectrim.analysis.claims import POINTS_LOST
from spectrim.pictures.points_lost import points_lost_figure
from spectrim.pictures.report import Frame, Report
from spectrim.stats.ground import CANNOT_SAY, over_runs
from spectrim.stats.t_intervals import FEWEST, Mean, Run, by_fold, mean_over_runs, worded
from spectrim.studies.keep_rates import CONTROL, NAMES, clips_over_folds, origin

CAUTION = (
    "Points lost are paired: each run against the other of its own fold and seed; a minus means a gain. Intervals are "
    "95 % Student's t over the folds, the seeds of each averaged, or over the seeds of one fold: folds share training "
    "clips and seeds share test clips, so they are not quite independent; fewer than three give no interval. There is "
    "a drop if the mean loss against attention at the same keep rate is a point or more; it is settled if the whole "
    "interval lies on one side of one point. It cannot be said from fewer than three runs, from an interval of no "
    "width, from fewer clips than a margin of one point takes, or of models near chance."
)


@dataclass(frozen=True)
class Ranked:
    """A backbone on a data set at a keep rate with one ranking, trained for it or not.

    Attributes:
        backbone: of the runs.
        data: of the runs.
        metric: its name.
        ranking: a name in `spectrim.analysis.ablations.RANKINGS`.
        keep_rate: at which they were tested.
        trained: whether they were trained for that keep rate with that ranking; else the dense model, pruned without
            training.
        score: the metric, in points of 100.
        to_attention: points that each run lost against attention at the same keep rate, trained or not as itself, by
            fold and seed; empty where that has not been run. So the others.
        to_control: likewise against the control, which is trained as pruned models are, and keeps all patches.
        to_dense: likewise against the dense model.
        clips: test clips over the folds of ``to_attention``, each counted once.
        dense: the metric of the dense models, in points; None where there are none.
        chance: what the metric is by guessing, a share; None where it is not known.
    """

    backbone: str
    data: str
    metric: str
    ranking: str
    keep_rate: float
    trained: bool
    score: Mean
    to_attention: Mapping[Run, float]
    to_control: Mapping[Run, float]
    to_dense: Mapping[Run, float]
    clips: int
    dense: Mean | None
    chance: float | None

    @property
    def lost(self) -> Mean | None:
        """Mean points lost against attention at the same keep rate; None where no run of it has been trained."""
        return _mean(self.to_attention)

    @property
    def dropped(self) -> str:
        """Whether there is a drop of a point or more against attention, in a word or two."""
        if self.lost is None:
            return "not measured"
        return drop_word(self.lost) if self.lacks is None else CANNOT_SAY

    @property
    def lacks(self) -> str | None:
        """Why it cannot be said whether there is a drop, or None."""
        if self.lost is None:
            return None
        losses = list(self.to_attention.values())
        return over_runs(self.lost, losses, clips=self.clips, dense=self.dense, chance=self.chance)


def _scores(runs: Mapping[Run, Mapping[str, Any]]) -> dict[Run, float]:
    """Of each run, in points."""
    return {run: 100.0 * row["value"] for run, row in runs.items()}


def _mean(losses: Mapping[Run, float]) -> Mean | None:
    return mean_over_runs(by_fold(losses)) if losses else None


def drop_word(lost: Mean) -> str:
    """Whether points lost are a drop of a point or more, and whether their interval settles it."""
    surely, surely_not = lost.low >= POINTS_LOST, lost.high < POINTS_LOST
    return worded(holds=lost.value >= POINTS_LOST, surely=surely, surely_not=surely_not)


def compare(rows: Iterable[Mapping[str, Any]]) -> list[Ranked]:
    """Average single runs, and pair each with attention, control and dense.

    Args:
        rows: as `spectrim.studies.report.collect` gives them; those of a pruned model at another keep rate than its own
            are left out.

    Returns:
        By backbone and data set, trained before training-free: dense, control, then by falling keep rate each ranking
        in the order of `spectrim.analysis.ablations.RANKINGS`.
    """
    groups: dict[tuple[str, str, bool, float, str], dict[Run, Mapping[str, Any]]] = {}
    for row in rows:
        trained = row["keep_rate"] == row["trained_keep_rate"]
        if trained or row["trained_keep_rate"] == 1.0:
            key = (row["backbone"], row["data"], trained, row["keep_rate"], row["ranking"])
            groups.setdefault(key, {})[row["fold"], row["seed"]] = row

    def place(key: tuple[str, str, bool, float, str]) -> tuple[Any, ...]:
        backbone, data, trained, rate, ranking = key
        return backbone, data, not trained, -rate, list(RANKINGS).index(ranking)

    comparisons = []
    for key in sorted(groups, key=place):
        (backbone, data, trained, rate, ranking), own = key, groups[key]
        others = ((trained, rate), (True, CONTROL), (True, 1.0))
        attention, control, whole = (
            _losses(own, groups.get((backbone, data, *other, ATTENTION), {})) for other in others
        )
        metric, score = next(iter(own.values()))["metric"], _scores(own)
        scores = _scores(groups.get((backbone, data, True, 1.0, ATTENTION), {}))
        comparisons.append(
            Ranked(
                backbone,
                data,
                metric,
                ranking,
                rate,
                trained,
                score=mean_over_runs(by_fold(score)),
                to_attention=attention,
                to_control=control,
                to_dense=whole,
                clips=clips_over_folds({run: own[run] for run in attention}),
                dense=_mean(scores),
                chance=next(iter(own.values())).get("chance"),
            )
        )
    return comparisons


def _losses(own: Mapping[Run, Mapping[str, Any]], other: Mapping[Run, Mapping[str, Any]]) -> dict[Run, float]:
    """Points that runs lost against others of the same fold and seed."""
    return {run: 100.0 * (other[run]["value"] - row["value"]) for run, row in own.items() if run in other}


def answers(comparisons: Sequence[Ranked]) -> list[str]:
    """Sentences: for each backbone, data set, keep rate and ranking, whether there is a drop, and by how much.

    Of fine-tuned models: those are what the paper speaks of.
    """
    sentences = []
    for ranked in comparisons:
        lost = ranked.lost
        if ranked.ranking == ATTENTION or lost is None or not ranked.trained:
            continue
        where = f"{_name(ranked)}, keep rate {ranked.keep_rate:g}, {_ranked_by(ranked.ranking)}"
        change = f"{'loses' if lost.value >= 0 else 'gains'} {abs(lost.value):.1f} points against attention"
        dropped = ranked.dropped if ranked.lacks is None else f"{ranked.dropped} ({ranked.lacks})"
        if lost.runs < FEWEST:
            sentences.append(f"{where}: {dropped}: it {change}; too few runs for an interval.")
        else:
            ends = f"{lost.low:.1f} to {lost.high:.1f} points lost"
            sentences.append(f"{where}: {dropped}: it {change}; the interval over {lost.runs} runs is {ends}.")
    return sentences


def _ranked_by(ranking: str) -> str:
    name, _, gather = ranking.partition(", ")
    return f"{'at random' if name == 'random' else f'by {name}'}{f', {gather}' if gather else ''}"


def gather_alone(comparisons: Sequence[Ranked]) -> list[str]:
    """Sentences: what the public code's gather loses against the right one, where both have been trained."""
    by_ranking = {
        (ranked.backbone, ranked.data, ranked.trained, ranked.keep_rate, ranked.ranking): ranked
        for ranked in comparisons
    }
    sentences = []
    for ranked in comparisons:
        name, _, gather = ranked.ranking.partition(", ")
        right = by_ranking.get((ranked.backbone, ranked.data, ranked.trained, ranked.keep_rate, name))
        if gather and right is not None:
            both = {
                run: lost - right.to_attention[run]
                for run, lost in ranked.to_attention.items()
                if run in right.to_attention
            }
            if both:
                lost = mean_over_runs(by_fold(both))
                where = f"{_name(ranked)}, {_how(ranked)}, keep rate {ranked.keep_rate:g}, by {name}"
                sentences.append(f"{where}: {lost} points lost, {_runs(lost.runs)}.")
    return sentences


def _runs(number: int) -> str:
    return "one run" if number == 1 else f"{number} runs"


def write_rankings(rows: Sequence[Mapping[str, Any]], folder: Path, frame: Frame) -> Path:
    """Write the report of a study of rankings.

    Args:
        rows: as `spectrim.studies.report.collect` gives them.
        folder: see `Report`.
        frame: what stands around it.

    Returns:
        Path of the HTML.
    """
    report = frame.begin(folder)
    comparisons = compare(rows)
    report.heading("Is the drop there when the gather is right?")
    report.items(answers(comparisons) or ["Nothing to compare yet."])
    report.text(CAUTION)
    drawn = points_lost_rows(comparisons)
    if drawn:
        report.figure(
            "rankings",
            points_lost_figure(drawn, against="attention", least=POINTS_LOST),
            "Points lost against patches ranked by attention at the same keep rate, run by run; left of the dashed "
            "line is better than attention. The control keeps all patches.",
        )
    if alone := gather_alone(comparisons):
        report.heading("What the wrong gather alone loses", 3)
        report.text("Against the same ranking with the right gather, run by run.")
        report.items(alone)
    for pair in dict.fromkeys((ranked.backbone, ranked.data) for ranked in comparisons if ranked.ranking != ATTENTION):
        _add_pair(report, [ranked for ranked in comparisons if (ranked.backbone, ranked.data) == pair], rows)
    return frame.end(report)


def _add_pair(report: Report, own: Sequence[Ranked], rows: Iterable[Mapping[str, Any]]) -> None:
    """A table of one backbone on one data set: dense, control, and the keep rates that have several rankings."""
    first, rates = own[0], {ranked.keep_rate for ranked in own if ranked.ranking != ATTENTION}
    own = [ranked for ranked in own if ranked.keep_rate in rates or ranked.keep_rate >= CONTROL]
    report.heading(_name(first))
    report.text(origin([row for row in rows if (row["backbone"], row["data"]) == (first.backbone, first.data)]))
    free = [ranked for ranked in own if not ranked.trained and ranked.keep_rate in rates]
    free_at = {(ranked.keep_rate, ranked.ranking): ranked for ranked in free}
    tuned_at = {(ranked.keep_rate, ranked.ranking): ranked for ranked in own if ranked.trained}
    table = []
    for rate, ranking in dict.fromkeys([*tuned_at, *free_at]):
        pruned = rate < CONTROL
        label = ranking if pruned else "control: all patches" if rate < 1.0 else "dense"
        tuned = tuned_at.get((rate, ranking))
        lost_to_control = _mean(tuned.to_control) if tuned and pruned else None
        lost_to_dense = _mean(tuned.to_dense) if tuned and rate < 1.0 else None
        ends = ["" if mean is None else mean for mean in (lost_to_control, lost_to_dense)]
        table.append((label, f"{rate:g}", *_cells(tuned), *ends, *_cells(free_at.get((rate, ranking)))))
    columns = [f"{first.metric}, fine-tuned", "runs", "lost to attention", "a drop", "lost to control", "lost to dense"]
    further = [f"{first.metric}, training-free", "runs", "lost to attention", "a drop"]
    report.table(["ranked by", "keep rate", *columns, *further], table)


def _cells(ranked: Ranked | None) -> tuple[object, ...]:
    """Score, runs, points lost against attention, and whether that is a drop, as far as there are any."""
    if ranked is None:
        return ("",) * 4
    if ranked.ranking == ATTENTION or ranked.lost is None:
        return ranked.score, ranked.score.runs, "", ""
    return ranked.score, ranked.score.runs, ranked.lost, ranked.dropped


def points_lost_rows(comparisons: Sequence[Ranked]) -> list[dict[str, Any]]:
    """Rows for `points_lost_figure`: every ranking, and what the control loses against attention."""
    drawn = []
    for ranked in comparisons:
        if ranked.ranking != ATTENTION and ranked.lost is not None:
            drawn.append(_points_lost_row(ranked, ranked.ranking, ranked.lost, ranked.to_attention))
        elif ranked.trained and ranked.keep_rate < CONTROL and ranked.to_control:
            gained = {run: -lost for run, lost in ranked.to_control.items()}
            drawn.append(_points_lost_row(ranked, "control: all patches", mean_over_runs(by_fold(gained)), gained))
    return drawn


def _points_lost_row(ranked: Ranked, label: str, lost: Mean, runs: Mapping[Run, float]) -> dict[str, Any]:
    ends = {"value": lost.value, "low": lost.low, "high": lost.high, "runs": list(runs.values())}
    return {"panel": _name(ranked), "label": label, "series": f"{_how(ranked)}, keep rate {ranked.keep_rate:g}", **ends}


def _how(ranked: Ranked) -> str:
    return "fine-tuned" if ranked.trained else "training-free"


def _name(ranked: Ranked) -> str:
    return f"{NAMES.get(ranked.backbone, ranked.backbone)} on {NAMES.get(ranked.data, ranked.data)}"
