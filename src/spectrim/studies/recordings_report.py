"""Report of the study on real recordings: what is there, what the protocol lets be said of it, what is not run."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from spectrim.machine import environment
from spectrim.pictures.points_lost import points_lost_figure
from spectrim.pictures.report import Report
from spectrim.stats.speakers import SpeakerMean, p_text
from spectrim.studies.keep_rates import NAMES
from spectrim.studies.recordings import (
    BOTH,
    CONTROL_ARM,
    DATA,
    FIRST_ARMS,
    FREE_METHODS,
    FREE_RATES,
    STAGES,
    VALUE_NORM,
    VALUE_NORM_ARMS,
    Arm,
    RecordingsPlan,
)
from spectrim.studies.recordings_added import add_clusters, add_value_norm
from spectrim.studies.recordings_answers import (
    CONTROL_KEY,
    ERROR_GATE,
    FAMILY,
    FEWEST_FOLDS,
    FREE,
    GATE,
    MARGIN,
    POSITIVE,
    TUNED,
    Key,
    Measured,
    free_key,
    positive_control,
    primary,
    secondary,
    unseen,
)
from spectrim.studies.recordings_described import (
    add_analysis,
    add_depth,
    add_later,
    add_remedies,
    among,
    undescribed,
)
from spectrim.studies.recordings_record import OF_SOUNDS, Record, read_record
from spectrim.studies.recordings_runs import record_of
from spectrim.studies.sounds import SOUND_FOLDS, SOUND_SEEDS, SOUNDS, add_sounds, check_rows, fold_sources, sounds_state
from spectrim.studies.sounds import STAGE as SOUND_STAGE
from spectrim.studies.speakers import FOLDS, SpokenClip, folds_of, read_clips

NOT_INTERPRETED = "below the gate: not interpreted"

ROUNDS = 10
"""Recordings of every word by every speaker in all of Arabic Speech Commands."""

ELSEWHERE = ("KWT-1",)
"""Parts of the protocol that this command does not run."""

READING = (
    "The question is docs/study/protocol.md's, which was written before any run: Lee & Lee (ECAI 2025) claim that an "
    "audio transformer, fine-tuned with patches dropped by its own attention, saves 30 to 40 % of its MACs and loses "
    "less than one percent. Does that hold for unheard speakers, and is the ranking by attention the reason?",
    "Every fold has one dense trunk; the arms are branches of it with the same epochs, rate and order of clips, and "
    "SpecAug ends where they begin. The control keeps all patches. Training-free means: the control's weights, pruned "
    "at test time. Accuracies are means over speakers, in %; differences are paired by speaker and in points. "
    "Intervals: 95 %, percentiles of 10,000 bootstrap draws of speakers within their folds, seed 0, or Student's t "
    "where there are fewer than 15 degrees of freedom (one fold or two); they do not hold how much two runs of one "
    "recipe differ. Random pruning is the mean of five tables of random scores.",
)


def write_report(plan: RecordingsPlan, out: Path, data: Path, earlier: Path | None = None) -> Path:
    """Write ``report.html``, ``report.md``, ``figures/`` and the tables behind them, of what is done so far.

    Args:
        plan: of the study; its arms are those of the whole protocol.
        out: folder of the study, where the report goes.
        data: of the recordings.
        earlier: folder of another report, which stands for the runs that are not in ``out``.

    Returns:
        Path of the HTML.

    Raises:
        DataError: as `spectrim.studies.recordings_record.read_record`.
    """
    clips = read_clips(data)
    folds = folds_of(clips)
    record = record_of(plan, out, data)
    if earlier is not None:
        record = record.beside(read_record(earlier, folds))
    check_rows(out / OF_SOUNDS, record.sounds, fold_sources(out / SOUNDS))
    out.mkdir(parents=True, exist_ok=True)
    record.write(out)
    report = Report(f"What pruning costs on real recordings{_rounds(clips)}", out)
    machine = environment()
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    for paragraph in READING:
        report.text(paragraph)
    report.text(f"Report written on {machine['processor']}; {versions}. Each run's environment.json says where it ran.")
    report.command(_command(plan, record))
    _add_state(report, plan, record)
    for one in record.measured():
        if one.accuracies:
            _add_backbone(report, one, folds)
            add_depth(report, one.backbone, record.depth)
            add_analysis(report, one, record.analysis)
    add_sounds(report, record.sounds)
    _add_runs(report, plan, record)
    _add_missing(report, plan, record)
    return report.write()


def _rounds(clips: Sequence[SpokenClip]) -> str:
    """How many of the ten rounds there are, where it is not all of them."""
    pairs = {(clip.speaker, clip.label) for clip in clips}
    rounds = round(len(clips) / len(pairs))
    return "" if rounds >= ROUNDS else f": {len(clips):,} of them, {rounds} of {ROUNDS} rounds"


def _command(plan: RecordingsPlan, record: Record) -> str:
    """What runs the stages and backbones of which arms are there."""
    there = [arm for arm in plan.arms if record.has(arm)]
    words = ["spectrim", "reproduce", "OUT", "--scale", "real", "--data", "DIR"]
    if there and len(there) < len(plan.arms):
        stages = {arm.stage for arm in there} | ({SOUND_STAGE} if record.sounds else set())
        words += ["--stages", ",".join(map(str, sorted(stages)))]
        words += ["--backbones", ",".join(dict.fromkeys(arm.backbone for arm in there))]
    if record.sounds:
        words += ["--sounds", "SOUNDS"]
    precisions = {row["precision"] for row in record.runs}
    if len(precisions) == 1 and precisions != {"fp32"}:
        words += ["--precision", *precisions]
    return shlex.join(words)


def _add_state(report: Report, plan: RecordingsPlan, record: Record) -> None:
    """What is whole and what is not."""
    report.heading("What is there")
    rows = []
    for stage in STAGES:
        arms = [arm for arm in plan.arms if arm.stage == stage.number]
        done = [arm for arm in arms if record.has(arm)]
        state = "whole" if len(done) == len(arms) else "not run" if not done else "in part"
        folds = ", ".join(str(fold) for fold in range(FOLDS) if _whole(arms, fold, record)) or "none"
        rows.append((f"{stage.number}. {stage.title}", state, f"{len(done)} of {len(arms)}", folds))
    rows.append(sounds_state(record.sounds))
    report.table(["stage", "state", "arms", "whole folds"], sorted(rows))


def _whole(arms: Sequence[Arm], fold: int, record: Record) -> bool:
    return all(record.has(arm) for arm in arms if arm.fold == fold)


def _add_backbone(report: Report, measured: Measured, folds: Mapping[str, int]) -> None:
    """Gate, answers and tables of a backbone."""
    passing, name = measured.passing, NAMES[measured.backbone]
    report.heading(name)
    _add_gate(report, measured, folds)
    if len(passing) < FEWEST_FOLDS:
        report.text(
            f"Descriptive, not an answer: {len(passing)} of {FOLDS} folds pass the gate so far, and an answer takes "
            f"{FEWEST_FOLDS}. Intervals over few speakers of few folds say little about others."
        )
    report.heading(f"{name}: answers", 3)
    report.items(_sentences(measured, passing))
    without = unseen(passing)
    report.text(
        "Without fold 0, which earlier trials had looked at: "
        + (" ".join(_sentences(measured, without)) if without else "nothing is there yet.")
    )
    _add_arms(report, measured, passing)
    _add_rankings(report, measured, passing)
    add_value_norm(report, measured, passing)
    add_clusters(report, measured, passing)
    add_remedies(report, measured, passing)
    add_later(report, measured, passing)


def _add_gate(report: Report, measured: Measured, folds: Mapping[str, int]) -> None:
    rows = []
    for fold in range(FOLDS):
        mean = measured.fold_mean(CONTROL_KEY, fold)
        names = ", ".join(name.lstrip("0") for name, own in folds.items() if own == fold)
        said = "not run" if mean is None else "interpreted" if fold in measured.passing else NOT_INTERPRETED
        errors = () if measured.errors is None else (f"{measured.errors[fold]:.3f}" if fold in measured.errors else "",)
        rows.append((fold, names, *errors, "" if mean is None else f"{mean:.1f}", said))
    report.text(f"Gate: a fold is interpreted where its control has {GATE:g} % or more on its test speakers.")
    error = () if measured.errors is None else ("error of pre-training",)
    if error:
        report.text(
            f"And where its masked pre-training has an error below {ERROR_GATE:g} on the validation speakers: the mean "
            "square of what is wrong in masked patches, each without its mean and standard deviation, so that 1 is as "
            "good as nothing."
        )
    report.table(["fold", "test speakers", *error, "control, %", ""], rows)


def _sentences(measured: Measured, folds: Sequence[int]) -> list[str]:
    """Positive control, primary question, and what the sample can show."""
    control, question = positive_control(measured, folds), primary(measured, folds)
    said = [
        f"Positive control, do random patches at 0.3 lose {POSITIVE:g} points or more? {control.told('lost')}",
        f"Primary, is less than one point lost at r = 0.7 by attention? {question.told('lost')}",
    ]
    lost = question.difference
    if lost is not None and lost.speakers > 1:
        said.append(
            f"Sample size: {lost.speakers} speakers whose paired differences have a standard deviation of "
            f"{lost.spread:.2f} points; half an interval is {lost.half_width:.2f} points, and a true loss of up to "
            f"{lost.largest_shown(MARGIN):.2f} points is shown to be below {MARGIN:g} with a probability of 80 %."
        )
    return said


def _add_arms(report: Report, measured: Measured, passing: Sequence[int]) -> None:
    """Accuracy of every arm in every fold, and what it loses against the control where folds are interpreted."""
    name = NAMES[measured.backbone]
    there = [fold for fold in range(FOLDS) if measured.fold_mean(CONTROL_KEY, fold) is not None]
    without = unseen(passing)
    table, drawn = [], []
    tuned = sorted((key for key in measured.accuracies if key[0] == TUNED and key != CONTROL_KEY), key=_order)
    free = [free_key(method, rate) for rate in FREE_RATES for method in FREE_METHODS]
    free += [free_key(VALUE_NORM, branch.keep_rate) for branch in VALUE_NORM_ARMS]
    free = sorted((key for key in free if key in measured.accuracies), key=_order)
    for key in (CONTROL_KEY, *tuned, *free):
        means = [measured.fold_mean(key, fold) for fold in there]
        lost = None if key == CONTROL_KEY else measured.difference(CONTROL_KEY, key, passing)
        cells = ["" if mean is None else f"{mean:.1f}" for mean in means]
        label = f"control, {key[1]}" if key == CONTROL_KEY else key[1]
        beside = None if key == CONTROL_KEY else measured.difference(CONTROL_KEY, key, without)
        table.append((key[0], label, *cells, among(lost, passing), among(beside, without)))
        if lost is not None:
            drawn.append(_drawn(measured, key, lost, passing, name))
    report.heading(f"{name}: arms", 3)
    lost_in = "lost to control, points" + (f" (folds {', '.join(map(str, passing))})" if passing else "")
    report.table(["", "arm", *(f"fold {fold}, %" for fold in there), lost_in, "without fold 0"], table)
    if drawn:
        report.figure(
            f"{measured.backbone}-points-lost",
            points_lost_figure(_by_keep_rate(drawn), against="the control", least=MARGIN, dots="speakers"),
            f"{name}: points lost against the control by keep rate and ranking, with 95 % intervals over speakers; "
            "small dots are speakers. "
            f"Folds {', '.join(map(str, passing))}, those of them in which an arm has been run.",
        )


def _order(key: Key) -> tuple[float, str]:
    """Highest keep rate first, attention first at each."""
    rate, _, rest = key[1].removeprefix("r=").partition("-")
    return -float(rate), rest


def _by_keep_rate(drawn: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the figure by keep rate, whatever series they are of, with the rankings in words."""
    rows = []
    for row in sorted(drawn, key=lambda row: _order((row["series"], row["label"]))):
        rate, ranking = _order((row["series"], row["label"]))
        rows.append({**row, "label": f"{-rate:g}, {ranking or 'attention'}"})
    return rows


def _drawn(measured: Measured, key: Key, lost: SpeakerMean, folds: Sequence[int], panel: str) -> dict[str, Any]:
    """A row of the figure."""
    speakers = measured.by_speaker(CONTROL_KEY, key, folds).values()
    runs = [value for fold in speakers for value in fold.values()]
    ends = {"value": lost.mean, "low": lost.low, "high": lost.high, "runs": runs}
    return {"panel": panel, "label": key[1], "series": key[0], **ends}


def _add_rankings(report: Report, measured: Measured, folds: Sequence[int]) -> None:
    """Each ranking against attention, the two families of six."""
    without = unseen(folds)
    families = {how: secondary(measured, folds, how) for how in (TUNED, FREE)}
    beside = {how: secondary(measured, without, how) for how in (TUNED, FREE)}
    if all(answer.difference is None for answers in families.values() for answer in answers.values()):
        return
    report.heading(f"{NAMES[measured.backbone]}: rankings against attention", 3)
    report.text(
        "Secondary: each ranking minus attention at the same keep rate, in points; above nought it is better than "
        "attention. p by t within folds, corrected by Holm in each family of six, with those that are not run counted."
    )
    table = []
    for ranking, rate in FAMILY:
        cells: list[str] = []
        for how, answers in families.items():
            answer, p = answers[ranking, rate], answers[ranking, rate].corrected
            cells += [among(answer.difference, folds), p_text(p), str(answer)]
            cells.append(among(beside[how][ranking, rate].difference, without))
        table.append((f"{ranking}, {rate:g}", *cells))
    told = (", points", ": p by Holm", ": answer", ", without fold 0")
    columns = [f"{how}{name}" for how in families for name in told]
    report.table(["ranking, keep rate", *columns], table)


def _add_runs(report: Report, plan: RecordingsPlan, record: Record) -> None:
    """Every run that is done, with where to look."""
    known = {(row["backbone"], row["arm"], row["seed"], row["fold"]): row for row in record.runs}
    rows = []
    for arm in plan.arms:
        if record.has(arm):
            row = known[arm.backbone, arm.branch.name, arm.seed, arm.fold]
            validation = row["validation"]
            title = f"{NAMES[arm.backbone]} {arm.branch.name}{' (control)' * (arm.branch == CONTROL_ARM)}"
            shown = (f"{row['epoch']:g}", "" if validation is None else f"{validation:.1f}")
            rows.append((title, arm.fold, arm.seed, row["precision"], *shown, row["folder"]))
    report.heading("Runs")
    report.text(
        "The epoch is chosen by the validation speakers of the fold; precision is that of the forward pass in "
        "training. Each run's folder holds run.json, environment.json and metrics; what it answers to every clip is in "
        "the folder beside it, -test/clips.csv; its log is in logs/. Everything here is made from speakers.csv, "
        f"runs.csv, depth.csv, analysis.csv and sounds.csv; the folds are in {DATA.as_posix()}/labels.csv."
    )
    report.table(["arm", "fold", "seed", "precision", "epoch", "validation, %", "folder"], rows)
    if record.left_out:
        folds = sorted({(NAMES[row["backbone"]], row["fold"], row["seed"]) for row in record.left_out})
        named = "; ".join(f"{name}, fold {fold}, seed {seed}" for name, fold, seed in folds)
        report.text(
            f"Left out of the earlier report: its runs of {named}. They are branches of other trunks than those that "
            "are here, or of some that are not known, and arms are compared within a trunk alone."
        )


def _add_missing(report: Report, plan: RecordingsPlan, record: Record) -> None:
    """Name what is not run."""
    report.heading("What is not run")
    lines = []
    for stage in STAGES:
        for backbone in stage.backbones:
            arms = [arm for arm in plan.arms if (arm.stage, arm.backbone) == (stage.number, backbone)]
            left = [arm for arm in arms if not record.has(arm)]
            head = f"Stage {stage.number}, {NAMES[backbone]}"
            if len(left) == len(arms):
                lines.append(f"{head}: not run, in any fold")
                continue
            for fold in range(FOLDS):
                names = [arm.branch.name for arm in left if arm.fold == fold]
                if names:
                    lines.append(f"{head}, fold {fold}: {', '.join(names)}")
    for backbone, fold in itertools.product(BOTH, range(FOLDS)):
        if parts := undescribed(record, backbone, fold):
            lines.append(f"Descriptive, {NAMES[backbone]}, fold {fold}: {'; '.join(parts)}")
    for seed in SOUND_SEEDS:
        there = {(row["arm"], row["fold"]) for row in record.sounds if row["seed"] == seed and row["how"] == TUNED}
        left_out = [fold for fold in SOUND_FOLDS if any((arm.name, fold) not in there for arm in FIRST_ARMS)]
        if left_out:
            said = "not run, in any fold" if not there else f"not whole in folds {', '.join(map(str, left_out))}"
            lines.append(f"ESC-10, seed {seed}: {said}")
    report.items([*lines, *(f"{part}: not run by this command" for part in ELSEWHERE)])
