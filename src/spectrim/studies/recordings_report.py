"""Report of the study on real recordings: what is there, what the protocol lets be said of it, what is not run."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from spectrim.machine import environment
from spectrim.pictures.report import Report
from spectrim.stats.speakers import p_text
from spectrim.studies.keep_rates import NAMES
from spectrim.studies.recordings import (
    BOTH,
    CONTROL_ARM,
    DATA,
    FIRST_ARMS,
    SEEDS,
    STAGES,
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
    Measured,
    apart,
    in_words,
    positive_control,
    primary,
    secondary,
    unseen,
)
from spectrim.studies.recordings_arms import add_arms
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
    """What runs the stages and folds of which arms are there, a line for each backbone and precision of training."""
    there = [arm for arm in plan.arms if record.has(arm)]
    lines = []
    for backbone in dict.fromkeys(arm.backbone for arm in there):
        own = [row for row in record.runs if row["backbone"] == backbone]
        for precision in sorted({row["precision"] for row in own}):
            known = {(row["arm"], row["seed"], row["fold"]) for row in own if row["precision"] == precision}
            arms = [arm for arm in there if (arm.branch.name, arm.seed, arm.fold) in known and arm.backbone == backbone]
            stages, folds = sorted({arm.stage for arm in arms}), sorted({arm.fold for arm in arms})
            lines.append(_words(backbone, stages, folds, precision))
    if record.sounds:
        folds = sorted({row["fold"] for row in record.sounds})
        for precision in sorted({row["precision"] for row in record.sounds}):
            lines.append(_words("ast", [SOUND_STAGE], folds, precision, "--sounds", "SOUNDS"))
    return "\n".join(lines)


def _words(backbone: str, stages: Sequence[int], folds: Sequence[int], precision: str, *further: str) -> str:
    words = ["spectrim", "reproduce", "OUT", "--scale", "real", "--data", "DIR", *further]
    words += ["--backbones", backbone, "--stages", ",".join(map(str, stages)), "--folds", ",".join(map(str, folds))]
    return shlex.join([*words, *(["--precision", precision] if precision != "fp32" else [])])


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


def _add_backbone(report: Report, everything: Measured, folds: Mapping[str, int]) -> None:
    """Gate, answers and tables of a backbone."""
    pending, everything = everything.without_control, everything.controlled
    passing, name = everything.passing, NAMES[everything.backbone]
    measured = everything.interpreted
    report.heading(name)
    _add_gate(report, everything, folds)
    if pending:
        named = ", ".join(f"seed {seed} in fold {fold}" for seed, fold in pending)
        report.text(f"Not shown, since their control has not been tested yet: runs of {named}.")
    if not everything.seeds:
        return
    if len(passing) < FEWEST_FOLDS:
        report.text(
            f"Descriptive, not an answer: {len(passing)} of {FOLDS} folds pass the gate so far, and an answer takes "
            f"{FEWEST_FOLDS}. Intervals over few speakers of few folds say little about others."
        )
    report.heading(f"{name}: answers", 3)
    if len(measured.seeds) > 1:
        report.text(
            f"Over {in_words('seed', measured.seeds)}: a speaker's accuracy is the mean over the seeds that both sides "
            "of a difference have, which are named where they are not the control's. Each seed alone stands below."
        )
    report.items(_sentences(measured, passing))
    without = unseen(passing)
    report.text(
        "Without fold 0, which earlier trials had looked at: "
        + (" ".join(_sentences(measured, without)) if without else "nothing is there yet.")
    )
    for seed, alone in measured.each_seed.items() if len(measured.seeds) > 1 else ():
        beside = f"Without fold 0: {primary(alone, unseen(alone.passing)).told('lost')}"
        report.text(f"Seed {seed} alone: {' '.join([*_primary(alone, alone.passing), beside])}")
    add_arms(report, everything, measured)
    _add_rankings(report, measured, passing)
    add_value_norm(report, measured, passing)
    add_clusters(report, measured, passing)
    several = len(everything.seeds) > 1
    add_remedies(report, measured, named=several)
    add_later(report, measured, named=several)


def _add_gate(report: Report, measured: Measured, folds: Mapping[str, int]) -> None:
    rows, several = [], len(measured.seeds) > 1
    for fold, seed in itertools.product(range(FOLDS), measured.seeds or SEEDS[:1]):
        alone = measured.of_seed(seed)
        mean = alone.fold_mean(CONTROL_KEY, fold)
        if mean is None and measured.fold_mean(CONTROL_KEY, fold) is not None:
            continue
        names = ", ".join(name.lstrip("0") for name, own in folds.items() if own == fold)
        said = "not run" if mean is None else "interpreted" if fold in alone.passing else NOT_INTERPRETED
        errors = () if measured.errors is None else (f"{measured.errors[fold]:.3f}" if fold in measured.errors else "",)
        which = ("" if mean is None else seed,) if several else ()
        row = (fold, names, *which, *errors, "" if mean is None else f"{mean:.1f}", said)
        if row not in rows:
            rows.append(row)
    report.text(
        f"Gate: a fold is interpreted where its control has {GATE:g} % or more on its test speakers"
        + (", with each seed for itself." if several else ".")
    )
    error = () if measured.errors is None else ("error of pre-training",)
    if error:
        report.text(
            f"And where its masked pre-training has an error below {ERROR_GATE:g} on the validation speakers: the mean "
            "square of what is wrong in masked patches, each without its mean and standard deviation, so that 1 is as "
            "good as nothing."
        )
    report.table(["fold", "test speakers", *(["seed"] * several), *error, "control, %", ""], rows)


def _sentences(measured: Measured, folds: Sequence[int]) -> list[str]:
    """Positive control, primary question, and what the sample can show."""
    control = positive_control(measured, folds).told("lost")
    asked = f"Positive control, do random patches at 0.3 lose {POSITIVE:g} points or more?"
    return [f"{asked} {control}", *_primary(measured, folds)]


def _primary(measured: Measured, folds: Sequence[int]) -> list[str]:
    """Primary question, and what the sample can show."""
    question = primary(measured, folds)
    said = [f"Primary, is less than one point lost at r = 0.7 by attention? {question.told('lost')}"]
    lost = question.difference
    if lost is not None and lost.speakers > 1:
        said.append(
            f"Sample size: {lost.speakers} speakers whose paired differences have a standard deviation of "
            f"{lost.spread:.2f} points; by the protocol's formula half an interval is {lost.half_width:.2f} points, "
            f"and a true loss of up to {lost.largest_shown(MARGIN):.2f} points is shown to be below {MARGIN:g} with a "
            "probability of 80 %."
        )
    return said


def _add_rankings(report: Report, measured: Measured, folds: Sequence[int]) -> None:
    """Each ranking against attention, the two families of six."""
    answers = [one for how in (TUNED, FREE) for one in secondary(measured, folds, how).values()]
    if all(answer.difference is None for answer in answers):
        return
    report.heading(f"{NAMES[measured.backbone]}: rankings against attention", 3)
    report.text(
        "Secondary: each ranking minus attention at the same keep rate, in points; above nought it is better than "
        "attention. p by t within folds, corrected by Holm in each family of six, with those that are not run counted."
    )
    _add_families(report, measured, folds)
    for seed, alone in apart(measured, answers).items():
        report.text(f"Seed {seed} alone:")
        _add_families(report, alone, alone.passing)


def _add_families(report: Report, measured: Measured, folds: Sequence[int]) -> None:
    """The table of the two families of six."""
    without = unseen(folds)
    families = {how: secondary(measured, folds, how) for how in (TUNED, FREE)}
    beside = {how: secondary(measured, without, how) for how in (TUNED, FREE)}
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
    for backbone, seed, fold in itertools.product(BOTH, SEEDS, range(FOLDS)):
        if parts := undescribed(record, backbone, fold, seed):
            named = f"{NAMES[backbone]}, fold {fold}" + (f", seed {seed}" if seed != SEEDS[0] else "")
            lines.append(f"Descriptive, {named}: {'; '.join(parts)}")
    for seed in SOUND_SEEDS:
        there = {(row["arm"], row["fold"]) for row in record.sounds if row["seed"] == seed and row["how"] == TUNED}
        left_out = [fold for fold in SOUND_FOLDS if any((arm.name, fold) not in there for arm in FIRST_ARMS)]
        if left_out:
            said = "not run, in any fold" if not there else f"not whole in folds {', '.join(map(str, left_out))}"
            lines.append(f"ESC-10, seed {seed}: {said}")
    report.items([*lines, *(f"{part}: not run by this command" for part in ELSEWHERE)])
