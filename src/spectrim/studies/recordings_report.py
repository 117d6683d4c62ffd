"""Report of the study on real recordings: what is there, what the protocol lets be said of it, what is not run."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from spectrim.analysis.depth import profile_of
from spectrim.files import write_json, write_text
from spectrim.machine import environment
from spectrim.pictures.points_lost import points_lost_figure
from spectrim.pictures.report import Report
from spectrim.stats.speakers import SpeakerMean
from spectrim.studies.keep_rates import NAMES
from spectrim.studies.recordings import (
    ALONE_CLIPS,
    ALONE_RATE,
    BLOCKS,
    CONTROL_ARM,
    DATA,
    FREE_METHODS,
    FREE_RATES,
    REMEDIES,
    REMEDY_RATES,
    STAGES,
    Arm,
    RecordingsPlan,
)
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
    Answer,
    Key,
    Measured,
    free_key,
    is_done,
    measure,
    positive_control,
    primary,
    secondary,
)
from spectrim.studies.speakers import FOLDS, SpokenClip, folds_of, read_clips, validation_fold
from spectrim.tables import table_csv

NOT_INTERPRETED = "below the gate: not interpreted"

ROUNDS = 10
"""Recordings of every word by every speaker in all of Arabic Speech Commands."""

ELSEWHERE = ("ESC-10", "KWT-1", "attention from later blocks", "depth in arms other than the control")
"""Parts of the protocol that this command does not run."""

READING = (
    "The question is docs/study/protocol.md's, which was written before any run: Lee & Lee (ECAI 2025) claim that an "
    "audio transformer, fine-tuned with patches dropped by its own attention, saves 30 to 40 % of its MACs and loses "
    "less than one percent. Does that hold for unheard speakers, and is the ranking by attention the reason?",
    "Every fold has one dense trunk; the arms are branches of it with the same epochs, rate and order of clips, and "
    "SpecAug ends where they begin. The control keeps all patches. Training-free means: the control's weights, pruned "
    "at test time. Accuracies are means over speakers, in %; differences are paired by speaker and in points. "
    "Intervals: 95 %, percentiles of 10,000 bootstrap draws of speakers within their folds, seed 0. Random pruning is "
    "the mean of five tables of random scores.",
)


def write_report(plan: RecordingsPlan, out: Path, data: Path) -> Path:
    """Write ``report.html``, ``report.md``, ``figures/`` and ``speakers.csv`` of what is done so far.

    Args:
        plan: of the study; its arms are those of the whole protocol.
        out: folder of the study, where the report goes.
        data: of the recordings.

    Returns:
        Path of the HTML.
    """
    clips = read_clips(data)
    speakers = {str((data / clip.path).absolute()): clip.speaker for clip in clips}
    measured = measure(plan, out, speakers)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / "speakers.csv", table_csv(speaker_rows(measured)))
    report = Report(f"What pruning costs on real recordings{_rounds(clips)}", out)
    machine = environment()
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    for paragraph in READING:
        report.text(paragraph)
    report.text(f"Report written on {machine['processor']}; {versions}. Each run's environment.json says where it ran.")
    report.command(shlex.join(["spectrim", "reproduce", "OUT", "--scale", "real", "--data", "DIR"]))
    _add_state(report, plan, out)
    folds = folds_of(clips)
    for one in measured:
        if one.accuracies:
            _add_backbone(report, one, folds)
            _add_depth(report, [arm for arm in plan.arms if arm.backbone == one.backbone], out)
    _add_runs(report, plan, out)
    _add_missing(report, plan, out)
    return report.write()


def _rounds(clips: Sequence[SpokenClip]) -> str:
    """How many of the ten rounds there are, where it is not all of them."""
    pairs = {(clip.speaker, clip.label) for clip in clips}
    rounds = round(len(clips) / len(pairs))
    return "" if rounds >= ROUNDS else f": {len(clips):,} of them, {rounds} of {ROUNDS} rounds"


def speaker_rows(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """Every accuracy of every speaker, a row each, so that all figures of the report can be made from them."""
    return [
        {"backbone": one.backbone, "how": how, "arm": name, "seed": seed, "fold": fold, "speaker": speaker}
        | {"accuracy": accuracy}
        for one in measured
        for (how, name), by_seed in one.accuracies.items()
        for seed, by_fold in by_seed.items()
        for fold, accuracies in sorted(by_fold.items())
        for speaker, accuracy in accuracies.items()
    ]


def _add_state(report: Report, plan: RecordingsPlan, out: Path) -> None:
    """What is whole and what is not."""
    report.heading("What is there")
    rows = []
    for stage in STAGES:
        arms = [arm for arm in plan.arms if arm.stage == stage.number]
        done = [arm for arm in arms if is_done(arm, out)]
        state = "whole" if len(done) == len(arms) else "not run" if not done else "in part"
        folds = ", ".join(str(fold) for fold in range(FOLDS) if _whole(arms, fold, out)) or "none"
        rows.append((f"{stage.number}. {stage.title}", state, f"{len(done)} of {len(arms)}", folds))
    report.table(["stage", "state", "arms", "whole folds"], rows)


def _whole(arms: Sequence[Arm], fold: int, out: Path) -> bool:
    return all(is_done(arm, out) for arm in arms if arm.fold == fold)


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
    without = [fold for fold in passing if fold != 0]
    report.text(
        "Without fold 0, which earlier trials had looked at: "
        + (" ".join(_sentences(measured, without)) if without else "nothing is there yet.")
    )
    _add_arms(report, measured, passing)
    _add_rankings(report, measured, passing)
    _add_remedies(report, measured, passing)


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
        f"Positive control, do random patches at 0.3 lose {POSITIVE:g} points or more? {_told(control, 'lost')}",
        f"Primary, is less than one point lost at r = 0.7 by attention? {_told(question, 'lost')}",
    ]
    lost = question.difference
    if lost is not None and lost.speakers > 1:
        said.append(
            f"Sample size: {lost.speakers} speakers whose paired differences have a standard deviation of "
            f"{lost.spread:.2f} points; half an interval is {lost.half_width:.2f} points, and a true loss of up to "
            f"{lost.largest_shown(MARGIN):.2f} points is shown to be below {MARGIN:g} with a probability of 80 %."
        )
    return said


def _told(answer: Answer, verb: str) -> str:
    difference = answer.difference
    if difference is None:
        return f"{answer}."
    folds = f"{difference.speakers} speakers in {len(difference.folds)} fold{'s' * (len(difference.folds) > 1)}"
    return f"{answer} ({difference} points {verb}; {folds})."


def _add_arms(report: Report, measured: Measured, passing: Sequence[int]) -> None:
    """Accuracy of every arm in every fold, and what it loses against the control where folds are interpreted."""
    name = NAMES[measured.backbone]
    there = [fold for fold in range(FOLDS) if measured.fold_mean(CONTROL_KEY, fold) is not None]
    table, drawn = [], []
    tuned = sorted((key for key in measured.accuracies if key[0] == TUNED and key != CONTROL_KEY), key=_order)
    free = [free_key(method, rate) for rate in FREE_RATES for method in FREE_METHODS]
    for key in (CONTROL_KEY, *tuned, *(key for key in free if key in measured.accuracies)):
        means = [measured.fold_mean(key, fold) for fold in there]
        lost = None if key == CONTROL_KEY else measured.difference(CONTROL_KEY, key, passing)
        cells = ["" if mean is None else f"{mean:.1f}" for mean in means]
        label = f"control, {key[1]}" if key == CONTROL_KEY else key[1]
        table.append((key[0], label, *cells, "" if lost is None else lost))
        if lost is not None:
            drawn.append(_drawn(measured, key, lost, passing, name))
    report.heading(f"{name}: arms", 3)
    report.table(["", "arm", *(f"fold {fold}, %" for fold in there), "lost to control, points"], table)
    if drawn:
        report.figure(
            f"{measured.backbone}-points-lost",
            points_lost_figure(drawn, against="the control", least=MARGIN, dots="speakers"),
            f"{name}: points lost against the control, with 95 % intervals over speakers; small dots are speakers. "
            f"Folds {', '.join(map(str, passing))}.",
        )


def _order(key: Key) -> tuple[float, str]:
    rate, _, rest = key[1].removeprefix("r=").partition("-")
    return -float(rate), rest


def _drawn(measured: Measured, key: Key, lost: SpeakerMean, folds: Sequence[int], panel: str) -> dict[str, Any]:
    """A row of the figure."""
    control, own = measured.of(CONTROL_KEY), measured.of(key)
    runs = [
        control[fold][name] - own[fold][name] for fold in folds for name in own.get(fold, {}) if name in control[fold]
    ]
    ends = {"value": lost.mean, "low": lost.low, "high": lost.high, "runs": runs}
    return {"panel": panel, "label": key[1], "series": key[0], **ends}


def _add_rankings(report: Report, measured: Measured, folds: Sequence[int]) -> None:
    """Each ranking against attention, the two families of six."""
    families = {how: secondary(measured, folds, how) for how in (TUNED, FREE)}
    if all(answer.difference is None for answers in families.values() for answer in answers.values()):
        return
    report.heading(f"{NAMES[measured.backbone]}: rankings against attention", 3)
    report.text(
        "Secondary: each ranking minus attention at the same keep rate, in points; above nought it is better than "
        "attention. p by bootstrap, corrected by Holm in each family of six, with those that are not run counted."
    )
    table = []
    for ranking, rate in FAMILY:
        cells: list[str] = []
        for answers in families.values():
            answer = answers[ranking, rate]
            difference, p = answer.difference, answer.corrected
            cells += ["" if difference is None else str(difference), "" if p is None else f"{p:.4f}", str(answer)]
        table.append((f"{ranking}, {rate:g}", *cells))
    columns = [f"{how}{name}" for how in families for name in (", points", ": p by Holm", ": answer")]
    report.table(["ranking, keep rate", *columns], table)


def _add_remedies(report: Report, measured: Measured, folds: Sequence[int]) -> None:
    """What other scores, and reducers, lose without training, the least first; descriptive."""
    methods = (*FREE_METHODS, *REMEDIES[measured.backbone])
    lost = {
        (name, rate): measured.difference(CONTROL_KEY, free_key(name, rate), folds)
        for name in methods
        for rate in REMEDY_RATES
    }
    there = {name: found for name in methods if (found := lost[name, REMEDY_RATES[0]]) is not None}
    if there.keys().isdisjoint(REMEDIES[measured.backbone]):
        return
    table = []
    for name in sorted(there, key=lambda name: there[name].mean):
        cells: list[Any] = []
        for rate in REMEDY_RATES:
            above = measured.difference(free_key(name, rate), free_key("random", rate), folds)
            cells += [lost[name, rate], "" if name == "random" else above]
        table.append((name, *cells))
    report.heading(f"{NAMES[measured.backbone]}: other rankings and reducers, training-free", 3)
    report.text(
        "Descriptive: the control's weights, pruned at test time by other scores, and by reducers that drop no patch "
        "(fuse: EViT's one token for the rest; merge: ToMe; cluster: the mean of alike patches), on all test clips. "
        "Points lost against the control, the least at 0.7 first, and points above random at the same keep rate. What "
        "a score or reducer costs in MACs: docs/pruning.md."
    )
    heads = [head for rate in REMEDY_RATES for head in (f"lost at {rate:g}", f"above random at {rate:g}")]
    report.table(["ranking or reducer", *heads], table)


def _add_depth(report: Report, arms: Sequence[Arm], out: Path) -> None:
    """What pruning a control at one block alone costs, and how the scores of that block are spread; descriptive."""
    controls = [arm for arm in arms if arm.branch == CONTROL_ARM and is_done(arm, out)]
    costs: dict[int, dict[str, list[float]]] = {}
    for arm in controls:
        for block in BLOCKS:
            if (out / arm.alone(block)).is_file():
                rows = json.loads((out / arm.alone(block)).read_text(encoding="utf-8"))["rows"]
                for row in rows:
                    if row["change"] is not None:
                        costs.setdefault(block, {}).setdefault(row["method"], []).append(-100.0 * row["change"])
    if not costs:
        return
    profiles = [_profile(arm, out) for arm in controls]
    table = []
    for block, by_method in costs.items():
        cells = [f"{fmean(by_method[name]):.1f}" if name in by_method else "" for name in FREE_METHODS]
        share, correlation = (
            fmean(rows[block][name] for rows in profiles) for name in ("strongest_share", "intensity_correlation")
        )
        table.append((block, *cells, f"{100 * share:.0f}", f"{correlation:.2f}"))
    report.heading(f"{NAMES[arms[0].backbone]}: where in depth", 3)
    report.text(
        f"Descriptive, training-free, of the control: points that pruning at one block alone to {ALONE_RATE:g} costs, "
        f"by each ranking, on {ALONE_CLIPS} test clips of a fold, evenly spread; what share of the attention that "
        "patches get the strongest patch takes; and Pearson's correlation of attention with intensity. Means over "
        f"clips, then over the folds that are there ({', '.join(str(arm.fold) for arm in controls)})."
    )
    report.table(["block", *FREE_METHODS, "strongest patch, %", "correlation with intensity"], table)


def _profile(arm: Arm, out: Path) -> list[dict[str, Any]]:
    """`spectrim.analysis.depth.profile_of` of a control, kept beside its answers."""
    kept = (out / arm.answers).with_name("profile.json")
    if not kept.is_file():
        options = {"fold": arm.fold, "validation_fold": validation_fold(arm.fold)}
        write_json(kept, profile_of(out / arm.folder / "model", "csv", out / DATA, options, clips=ALONE_CLIPS))
    found: list[dict[str, Any]] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def _add_runs(report: Report, plan: RecordingsPlan, out: Path) -> None:
    """Every run that is done, with where to look."""
    rows = []
    for arm in plan.arms:
        written = out / arm.folder / "results.json"
        if not is_done(arm, out) or not written.is_file():
            continue
        chosen = json.loads(written.read_text(encoding="utf-8"))["chosen"]
        validation = chosen.get("validation_accuracy")
        rows.append(
            (
                f"{NAMES[arm.backbone]} {arm.branch.name}{' (control)' * (arm.branch == CONTROL_ARM)}",
                *(arm.fold, arm.seed, f"{chosen['epoch']:g}", "" if validation is None else f"{100 * validation:.1f}"),
                arm.folder.as_posix(),
            )
        )
    report.heading("Runs")
    report.text(
        "The epoch is chosen by the validation speakers of the fold. Each run's folder holds run.json, "
        f"environment.json and metrics; what it answers to every clip is in the folder beside it, -test/clips.csv; "
        f"its log is in logs/. Every speaker's accuracy is in speakers.csv, the folds in {DATA.as_posix()}/labels.csv."
    )
    report.table(["arm", "fold", "seed", "epoch", "validation, %", "folder"], rows)


def _add_missing(report: Report, plan: RecordingsPlan, out: Path) -> None:
    """Name what is not run."""
    report.heading("What is not run")
    lines = []
    for stage in STAGES:
        for backbone in stage.backbones:
            arms = [arm for arm in plan.arms if (arm.stage, arm.backbone) == (stage.number, backbone)]
            left = [arm for arm in arms if not is_done(arm, out)]
            head = f"Stage {stage.number}, {NAMES[backbone]}"
            if len(left) == len(arms):
                lines.append(f"{head}: not run, in any fold")
                continue
            for fold in range(FOLDS):
                names = [arm.branch.name for arm in left if arm.fold == fold]
                if names:
                    lines.append(f"{head}, fold {fold}: {', '.join(names)}")
    report.items([*lines, *(f"{part}: not run by this command" for part in ELSEWHERE)])
