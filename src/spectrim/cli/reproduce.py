"""``spectrim reproduce``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectrim.cli.common import FormatOption, check_form, ended_like_ctrl_c, numbers, plainly, put
from spectrim.errors import InvalidSetting, one_of

if TYPE_CHECKING:
    from spectrim.studies.runner import Step


@plainly
def reproduce(
    out: Annotated[Path, typer.Argument(help="Folder for data, runs and report.")],
    scale: Annotated[
        str,
        typer.Option(help="mini: on data made here; full: the paper's data and weights; real: on real recordings."),
    ] = "mini",
    study: Annotated[
        str, typer.Option(help="keep-rates: how few patches do; rankings: what to rank them by. They may share OUT.")
    ] = "keep-rates",
    quick: Annotated[
        bool, typer.Option("--quick", help="Minutes: shows that all runs; accuracies mean nothing.")
    ] = False,
    data_root: Annotated[Path | None, typer.Option(help="Folder of the data sets, for --scale full.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Folder of the checkpoints, for --scale full.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of Arabic Speech Commands with labels.csv, for --scale real.")
    ] = None,
    sounds: Annotated[
        Path | None, typer.Option(help="Folder of ESC-10 or ESC-50, for stage 6 of --scale real.")
    ] = None,
    folds: Annotated[str | None, typer.Option(help="Separated by commas, for --scale real; default: all.")] = None,
    stages: Annotated[str | None, typer.Option(help="Likewise.")] = None,
    backbones: Annotated[str | None, typer.Option(help="Likewise: ast, audiomae.")] = None,
    precision: Annotated[
        str, typer.Option(help="Of training, for --scale real: fp32, bf16, fp16 or auto (optimiser.precision).")
    ] = "fp32",
    jobs: Annotated[int, typer.Option(help="Runs side by side; the cores are shared.")] = 1,
    threads: Annotated[int | None, typer.Option(help="Of each run; default: its share of the cores.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List every run, its command, cost and what is missing.")
    ] = False,
    form: FormatOption = "table",
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Write the report of what is done so far.")
    ] = False,
    earlier: Annotated[
        Path | None,
        typer.Option(help="Folder of an earlier report, for the runs that are not in OUT; for --scale real."),
    ] = None,
) -> None:
    """Run the paper's experiments and write one report; started again, it goes on where it was.

    --format is of the list that --dry-run prints. --scale real follows
    docs/study/protocol.md stage by stage, and reports after each.
    """
    check_form(form)
    _check_scale(scale, quick, {"data-root": data_root, "weights": weights}, data)
    if dry_run and report_only:
        raise InvalidSetting("report-only", report_only, "only without --dry-run")
    if report_only and not out.is_dir():
        raise InvalidSetting("out", str(out), "a folder in which spectrim reproduce has run, for --report-only")
    chosen = {"folds": folds, "stages": stages, "backbones": backbones}
    if data is None:
        for name, value in chosen.items():
            if value is not None:
                raise InvalidSetting(name, value, "only with --scale real")
        if precision != "fp32":
            raise InvalidSetting("precision", precision, "only with --scale real")
        for name, folder in (("earlier", earlier), ("sounds", sounds)):
            if folder is not None:
                raise InvalidSetting(name, str(folder), "only with --scale real")
        planned = _by_the_paper(out, scale, study, quick, data_root, weights)
    else:
        planned = _on_recordings(out, data, sounds, study, chosen, precision, earlier)

    steps, begin, write_report = planned
    if dry_run:
        _print_plan(steps[-1], form)
    elif report_only:
        put(write_report())
    else:
        for some in steps:
            _run(some, out, jobs, threads, begin, write_report)


Study = tuple["Sequence[Sequence[Step]]", Callable[[], object], Callable[[], Path]]
"""Steps up to the end of each stage, what is done before them, and what writes the report."""


def _by_the_paper(
    out: Path, scale: str, study: str, quick: bool, data_root: Path | None, weights: Path | None
) -> Study:
    """The studies on miniatures and on the paper's data, which have one stage."""
    from spectrim.studies import plans as reproduction
    from spectrim.studies import report as study_report

    steps = reproduction.study_plan(study, out, quick=quick, data_root=data_root, weights=weights)
    reproduction.check_folder(out, scale=scale, quick=quick)

    def write_report() -> Path:
        place = study_report.report_folder(out, study)
        return study_report.write_report(steps, place, scale=scale, quick=quick, study=study, runs=out)

    return [steps], partial(reproduction.claim_folder, out, scale=scale, quick=quick), write_report


def _on_recordings(
    out: Path,
    data: Path,
    sounds: Path | None,
    study: str,
    chosen: Mapping[str, str | None],
    precision: str,
    earlier: Path | None,
) -> Study:
    """The study on real recordings, in the stages of its protocol."""
    from spectrim.studies import plans as reproduction
    from spectrim.studies.recordings import BOTH, DATA, NUMBERS, recordings_plan
    from spectrim.studies.recordings_record import read_record
    from spectrim.studies.recordings_report import write_report
    from spectrim.studies.sounds import SOUNDS, STAGE, read_sounds, with_sounds, write_sounds
    from spectrim.studies.speakers import FOLDS, folds_of, read_clips, write_folds

    if study != "keep-rates":
        raise InvalidSetting("study", study, "none with --scale real: it has its own questions")
    folds, stages, backbones = (chosen[name] for name in ("folds", "stages", "backbones"))
    some_folds = range(FOLDS) if folds is None else numbers("folds", folds, int)
    some_stages = NUMBERS if stages is None else numbers("stages", stages, int)
    changes = () if precision == "fp32" else (f"optimiser.precision={precision}",)
    some_backbones = BOTH if backbones is None else backbones.split(",")
    every_stage = sorted((*NUMBERS, STAGE))
    for stage in some_stages:
        if stage not in every_stage:
            raise InvalidSetting("stages", stage, f"some of {', '.join(map(str, every_stage))}")
    if STAGE in some_stages and (sounds is None or "ast" not in some_backbones):
        lacks = ("sounds", None, "a folder of ESC-10") if sounds is None else ("backbones", backbones, "ast among them")
        raise InvalidSetting(lacks[0], lacks[1], f"{lacks[2]}, for stage {STAGE}")
    plan = recordings_plan(
        out,
        folds=some_folds,
        stages=[stage for stage in some_stages if stage != STAGE],
        backbones=some_backbones,
        changes=changes,
    )
    if sounds is not None:
        read_sounds(sounds)
        if "ast" in some_backbones and (stages is None or STAGE in some_stages):
            plan = with_sounds(plan, out, folds=some_folds, changes=changes)
    speakers = folds_of(read_clips(data))
    if earlier is not None:
        read_record(earlier, speakers)
    reproduction.check_folder(out, scale="real", quick=False, data=data)

    def begin() -> None:
        reproduction.claim_folder(out, scale="real", quick=False, data=data)
        write_folds(data, out / DATA)
        if sounds is not None:
            write_sounds(sounds, out / SOUNDS)

    return plan.up_to_each_stage, begin, partial(write_report, plan, out, data, earlier)


def _run(
    steps: Sequence[Step],
    out: Path,
    jobs: int,
    threads: int | None,
    begin: Callable[[], object],
    write_report: Callable[[], Path],
) -> None:
    """Run what is not done yet, and write the report, of a part where a step fails."""
    from spectrim.cli.terminal import complain, error_console
    from spectrim.studies.runner import Failed, run_plan

    console = error_console()
    try:
        with ended_like_ctrl_c():
            run_plan(steps, out, jobs=jobs, threads=threads, tell=lambda line: complain(console, line), begin=begin)
    except Failed:
        complain(console, f"the report says what is done: {write_report()}")
        raise
    put(write_report())


def _check_scale(scale: str, quick: bool, full: Mapping[str, Path | None], data: Path | None) -> None:
    if scale not in ("mini", "full", "real"):
        raise InvalidSetting("scale", scale, one_of(("mini", "full", "real")))
    for name, folder, own in (*((name, folder, "full") for name, folder in full.items()), ("data", data, "real")):
        if scale == own and folder is None:
            raise InvalidSetting(name, None, f"a folder, for --scale {own}")
        if scale != own and folder is not None:
            raise InvalidSetting(name, str(folder), f"only with --scale {own}")
    if scale != "mini" and quick:
        raise InvalidSetting("quick", quick, "only with --scale mini")


def _print_plan(steps: Sequence[Step], form: str) -> None:
    from spectrim.cli.terminal import as_json, out_console, plan_table, rows_csv
    from spectrim.studies.report import plan_rows
    from spectrim.studies.runner import missing_inputs

    rows = plan_rows(steps)
    if form == "json":
        put(as_json(rows), end="")
    elif form == "csv":
        put(rows_csv([{**row, "missing": ";".join(row["missing"])} for row in rows], {}), end="")
    else:
        out_console().print(plan_table(rows))
        for path in missing_inputs(steps):
            put(f"missing: {path}")
