"""Study of keep rates: from the rows of single runs to means with intervals, answers and a report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spectrim.analysis.claims import FEWER_MACS, POINTS_LOST
from spectrim.pictures.curves import accuracy_curve
from spectrim.pictures.report import Frame, Report
from spectrim.stats.ground import CANNOT_SAY, over_runs
from spectrim.stats.t_intervals import FEWEST, Mean, by_fold, mean_over_runs, worded

CONTROL = 0.999
"""A keep rate that keeps every patch of a miniature (⌈0.999·n⌉ = n for n below 1,000), and ends masking and SpecAug as
pruning does: what pruned runs gain from that alone."""

NAMES = {
    "ast": "AST",
    "audiomae": "AudioMAE",
    "audioset": "AudioSet",
    "esc50": "ESC-50",
    "voxceleb1": "VoxCeleb-1",
    "spoken-commands": "spoken commands",
    "speech-commands": "Speech Commands V2",
}
"""Backbone or data set → what reports call it."""

CAUTION = (
    "The keep rate of an answer is the highest of those that save at least 30 % of the MACs: the best of several, on "
    "the clips that it is reported on, would flatter. It cannot be said from fewer than three runs, from an interval "
    "of no width, from fewer clips than a margin of one point takes (785 for each per cent of discordance), or of a "
    "dense model near chance. Points lost are paired: each run against the model of its own fold and seed that keeps "
    "all patches; a minus means that pruning gained. Intervals are 95 % Student's t over the folds, the seeds of each "
    "averaged, or over the seeds of one fold: folds share training clips and seeds share test clips, so they are not "
    "quite independent; fewer than three give no interval. MACs are the paper's count for one clip."
)


@dataclass(frozen=True)
class Point:
    """A backbone on a data set at one keep rate, trained for it or not.

    Attributes:
        backbone: of the runs.
        data: of the runs.
        metric: its name.
        keep_rate: at which they were tested.
        trained: whether they were trained for that keep rate; else the dense model, pruned without training.
        score: the metric, in points of 100.
        base: the same of the models that it is compared with, in the runs that have both.
        lost: points lost against them, paired.
        lacks: why it cannot be said whether it lost less than a point (`spectrim.stats.ground.over_runs`), or None.
        paper_macs: multiply-accumulates, the paper's count.
        fewer_macs: share of them saved against dense.
        base_fewer_macs: the share that the same keep rate saves in ViT-B.
    """

    backbone: str
    data: str
    metric: str
    keep_rate: float
    trained: bool
    score: Mean
    base: Mean
    lost: Mean
    lacks: str | None
    paper_macs: int
    fewer_macs: float
    base_fewer_macs: float


def points(rows: Iterable[Mapping[str, Any]], base: float = 1.0) -> list[Point]:
    """Average single runs into points of the study.

    Args:
        rows: as `spectrim.studies.report.collect` gives them; runs without the model to compare with are left out.
        base: trained keep rate of the model to compare with: 1, dense as the paper trains it, or `CONTROL`.

    Returns:
        Points ordered by backbone, data set, trained or not, and falling keep rate.
    """
    groups: dict[tuple[str, str, bool, float], dict[tuple[Any, Any], Mapping[str, Any]]] = {}
    for row in rows:
        rate, dense = row["keep_rate"], row["trained_keep_rate"] == 1.0
        if dense or rate == row["trained_keep_rate"]:
            trained = rate == row["trained_keep_rate"]
            key = (row["backbone"], row["data"], trained, rate)
            groups.setdefault(key, {})[row["fold"], row["seed"]] = row
    measured = []
    for (backbone, data, trained, rate), runs in sorted(groups.items(), key=lambda item: (*item[0][:3], -item[0][3])):
        dense = groups.get((backbone, data, True, base), {})
        paired = [run for run in runs if run in dense]
        if not paired:
            continue
        first, dense_row = runs[paired[0]], dense[paired[0]]
        clips = clips_over_folds({run: runs[run] for run in paired})
        losses = {run: 100.0 * (dense[run]["value"] - runs[run]["value"]) for run in paired}
        lost = mean_over_runs(by_fold(losses))
        score = mean_over_runs(by_fold({run: 100.0 * dense[run]["value"] for run in paired}))
        measured.append(
            Point(
                backbone,
                data,
                first["metric"],
                rate,
                trained,
                mean_over_runs(by_fold({run: 100.0 * runs[run]["value"] for run in paired})),
                score,
                lost,
                over_runs(lost, list(losses.values()), clips=clips, dense=score, chance=first.get("chance")),
                first["paper_macs"],
                1.0 - first["paper_macs"] / dense_row["paper_macs"],
                first["base_fewer_macs"],
            )
        )
    return measured


def clips_over_folds(runs: Mapping[tuple[Any, Any], Mapping[str, Any]]) -> int:
    """Test clips of runs by fold and seed, those of a fold counted once."""
    return sum({fold: row["test_clips"] for (fold, _), row in runs.items()}.values())


@dataclass(frozen=True)
class Answer:
    """Whether ≥ 30 % of the MACs can be saved for less than a point, for a backbone on a data set.

    Attributes:
        point: the one with the highest keep rate among those that save enough, which is fixed before anything is
            tested; None if none was measured.
        holds: its mean loss is below a point.
        surely: the upper end of its interval is below a point.
        surely_not: the lower end of its interval is at a point or above.
    """

    point: Point | None
    holds: bool
    surely: bool
    surely_not: bool

    @property
    def word(self) -> str:
        """The answer in a word or two."""
        if self.point is None:
            return "not measured"
        if self.point.lacks is not None:
            return CANNOT_SAY
        return worded(holds=self.holds, surely=self.surely, surely_not=self.surely_not)

    @property
    def paper(self) -> str:
        """How it stands to the paper's claim, for models fine-tuned with pruning."""
        if self.point is None:
            return "not measured"
        if self.point.lacks is not None:
            return f"{CANNOT_SAY} ({self.point.lacks})"
        if self.surely:
            return "agrees with the paper"
        if self.surely_not:
            return "contradicts the paper"
        return f"points {'with' if self.holds else 'against'} the paper, without settling it"

    def __str__(self) -> str:
        if self.point is None:
            return "not measured: no keep rate that saves 30 % has been run together with what it is compared with."
        lost, at = self.point.lost, f"keep rate {self.point.keep_rate:g} saves {self.point.fewer_macs:.0%} of the MACs"
        change = f"{'loses' if lost.value >= 0 else 'gains'} {abs(lost.value):.1f} points"
        said = self.word if self.point.lacks is None else f"{self.word} ({self.point.lacks})"
        if lost.runs < FEWEST:
            return f"{said}: {at} and {change}; too few runs for an interval."
        return (
            f"{said}: {at} and {change}; the interval over {lost.runs} runs is {lost.low:.1f} to "
            f"{lost.high:.1f} points lost."
        )


def answer(measured: Sequence[Point], backbone: str, data: str, *, trained: bool) -> Answer:
    """Answer the paper's claim for a backbone and data set.

    Args:
        measured: of `points`.
        backbone: of the points to look at.
        data: of the points to look at.
        trained: look at models trained for their keep rate, or at training-free pruning.
    """
    able = [
        point
        for point in measured
        if (point.backbone, point.data, point.trained) == (backbone, data, trained) and point.fewer_macs >= FEWER_MACS
    ]
    if not able:
        return Answer(None, False, False, False)
    point = max(able, key=lambda point: point.keep_rate)
    lost = point.lost
    return Answer(point, lost.value < POINTS_LOST, lost.high < POINTS_LOST, lost.low >= POINTS_LOST)


def add_study(report: Report, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add answers, tables and curves of a study to a report.

    Args:
        report: to add to.
        rows: as `spectrim.studies.report.collect` gives them.
    """
    measured = points(rows)
    if not measured:
        return
    pairs = list(dict.fromkeys((point.backbone, point.data) for point in measured))
    report.heading("Can 30 % of the MACs be saved for less than one point?")
    _add_answers(report, rows, pairs)
    _add_paper(report, measured, rows, pairs)
    for pair in pairs:
        _add_pair(report, [point for point in measured if (point.backbone, point.data) == pair], rows)


def _add_answers(report: Report, rows: Sequence[Mapping[str, Any]], pairs: Sequence[tuple[str, str]]) -> None:
    """Fine-tuned models against the control, training-free ones against the dense model, which they are."""
    table, sentences = [], []
    for trained, how, base in ((True, "fine-tuned with pruning", CONTROL), (False, "training-free", 1.0)):
        measured = points(rows, base)
        for pair in pairs:
            if not any((p.backbone, p.data, p.trained) == (*pair, trained) and p.keep_rate < CONTROL for p in measured):
                continue
            result = answer(measured, *pair, trained=trained)
            sentences.append(f"{_name(*pair)}, {how}: {result}")
            if asked := result.point:
                cells = (f"{asked.base.value:.1f}", asked.keep_rate, f"{asked.fewer_macs:.0%}", asked.lost)
                table.append((_name(*pair), how, *cells, asked.lost.runs, result.word))
    report.table(["", "how", "keeps all", "keep rate", "fewer MACs", "points lost", "runs", "answer"], table)
    report.text(
        f"Fine-tuned models are compared with the control, trained at keep rate {CONTROL:g}, which keeps all patches "
        "and ends masking and augmentations as they do: what is lost is what dropping patches costs. Training-free, a "
        "dense model is compared with itself."
    )
    report.items(sentences)
    report.text(CAUTION)


def _add_paper(
    report: Report, measured: Sequence[Point], rows: Sequence[Mapping[str, Any]], pairs: Sequence[tuple[str, str]]
) -> None:
    """The paper's own comparison: fine-tuned models against a dense one that keeps its masking to the end."""
    table, against, controlled = [], [], points(rows, CONTROL)
    for pair in pairs:
        for point in measured:
            if (point.backbone, point.data, point.trained) != (*pair, True) or point.keep_rate >= CONTROL:
                continue
            same = (*pair, True, point.keep_rate)
            beside = [p for p in controlled if (p.backbone, p.data, p.trained, p.keep_rate) == same]
            cells = (beside[0].lost, beside[0].lost.runs) if beside else ("", "")
            table.append((_name(*pair), f"{point.keep_rate:g}", *cells, point.lost, point.lost.runs))
        result = answer(measured, *pair, trained=True)
        against += [f"{_name(*pair)}: {result.paper}."] if result.point else []
    report.heading("Beside the paper", 3)
    report.text(
        "The paper claims 30 to 40 % fewer MACs for less than 1 % lost, of models fine-tuned with pruning, and "
        "compares them with a dense model that keeps its masking and augmentations to the end. A pruned model can "
        "gain from ending them alone, so both comparisons stand side by side; only the first says what pruning costs."
    )
    heads = ["lost to the control", "runs", "lost to the dense model", "runs"]
    report.table(["", "keep rate", *heads], table)
    report.items(against or ["Nothing to compare yet."])


def _add_pair(report: Report, own: Sequence[Point], rows: Sequence[Mapping[str, Any]]) -> None:
    """A table and a curve of one backbone on one data set."""
    backbone, data, metric = own[0].backbone, own[0].data, own[0].metric
    title = _name(backbone, data)
    own_rows = [row for row in rows if (row["backbone"], row["data"]) == (backbone, data)]
    report.heading(title)
    report.text(origin(own_rows))
    rates = sorted({point.keep_rate for point in own}, reverse=True)
    at = {(point.trained, point.keep_rate): point for point in own}
    scaled = any(abs(point.fewer_macs - point.base_fewer_macs) > 5e-3 for point in own)
    table = []
    for rate in rates:
        tuned, free = at.get((True, rate)), at.get((False, rate))
        point = tuned or free
        if point is None:
            continue
        lost = tuned.lost if tuned and rate < 1.0 else ""
        cells = (tuned.score if tuned else "", lost, tuned.lost.runs if tuned else "")
        others = (free.score, free.lost, free.lost.runs) if free else ("", "", "")
        base = (f"{point.base_fewer_macs:.0%}",) if scaled else ()
        table.append(
            (f"{rate:g}", f"{point.paper_macs / 1e6:,.1f} M", f"{point.fewer_macs:.0%}", *base, *cells, *others)
        )
    further = ["in ViT-B"] if scaled else []
    tuned_columns, free_columns = (
        [f"{metric}, {how}", "points lost", "runs"] for how in ("fine-tuned", "training-free")
    )
    report.table(["keep rate", "MACs", "fewer", *further, *tuned_columns, *free_columns], table)
    figure = accuracy_curve(curve_rows(own), metric=metric, title=title)
    report.figure(
        _slug(title),
        figure,
        f"{title}: {metric} against the MACs of a clip, the paper's count. Bars, where there are three runs: 95 % "
        "interval of the difference from the dense model, run by run.",
    )


def origin(rows: Sequence[Mapping[str, Any]]) -> str:
    """Say where rows of one backbone and data set come from: recipes, runs, numbers of clips, metric."""
    metric = rows[0]["metric"]
    recipes = " and ".join(sorted({f"recipes/{row['recipe']}.yaml" for row in rows}))
    runs = sorted({(row["fold"] or 0, row["seed"]) for row in rows})
    named = ", ".join(f"{f'fold {fold} ' if fold else ''}seed {seed}" for fold, seed in runs)
    clips = f"{_range(rows, 'training_clips')} training clips, {_range(rows, 'test_clips')} test clips a run"
    least = f"; one test clip is {100.0 / rows[0]['test_clips']:.2g} points" if metric == "accuracy" else ""
    return f"By {recipes}. Runs: {named}. {clips}{least}. Metric: {metric}, in %."


def _range(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    least, most = (pick(row[name] for row in rows) for pick in (min, max))
    return f"{least:,}" if least == most else f"{least:,} to {most:,}"


def curve_rows(measured: Sequence[Point]) -> list[dict[str, Any]]:
    """Points of one backbone and data set as rows for `spectrim.pictures.curves.accuracy_curve`.

    A point lies the points that its runs lost below the mean of all dense models, with the interval of what they lost:
    so all points are about the same models, also where some runs are missing. The dense model begins both series.
    """
    dense = next(point for point in measured if point.trained and point.keep_rate == 1.0)
    series = [
        ("fine-tuned" if point.trained else "training-free", point) for point in measured if point.keep_rate < 1.0
    ]
    names = list(dict.fromkeys(name for name, _ in series)) or ["fine-tuned"]
    return [
        {
            "series": name,
            "keep_rate": point.keep_rate,
            "macs": point.paper_macs,
            "value": (dense.score.value - point.lost.value) / 100.0,
            "low": (dense.score.value - point.lost.high) / 100.0,
            "high": (dense.score.value - point.lost.low) / 100.0,
        }
        for name, point in [*((name, dense) for name in names), *series]
    ]


def _name(backbone: str, data: str) -> str:
    return f"{NAMES.get(backbone, backbone)} on {NAMES.get(data, data)}"


def _slug(title: str) -> str:
    return title.lower().replace(" ", "-")


def write_study(
    rows: Sequence[Mapping[str, Any]], folder: Path, frame: Frame, *, masked: Mapping[str, Any] | None = None
) -> Path:
    """Write the report of a study.

    Args:
        rows: as `spectrim.studies.report.collect` gives them.
        folder: see `Report`.
        frame: what stands around it.
        masked: results of `spectrim.training.pretrain.pretrain`, if the study has made its own AudioMAE.

    Returns:
        Path of the HTML.
    """
    report = frame.begin(folder)
    add_study(report, rows)
    if masked is not None:
        report.heading("The AudioMAE before fine-tuning")
        report.text(
            f"Pre-trained without labels on {masked['training_files']:,} clips of the AudioSet miniature for "
            f"{masked['epoch']:g} epochs: mean squared error of masked patches {masked['held_out_loss']:.3f} on "
            f"{masked['held_out_files']:,} clips held out; always to predict the mean of a patch would give 1."
        )
    return frame.end(report)
