"""``spectrim reproduce``."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectrim.cli.common import FormatOption, check_form, plainly, put
from spectrim.errors import InvalidSetting, one_of

if TYPE_CHECKING:
    from spectrim.studies.runner import Step


@plainly
def reproduce(
    out: Annotated[Path, typer.Argument(help="Folder for data, runs and report.")],
    scale: Annotated[str, typer.Option(help="mini: on data made here; full: the paper's data and weights.")] = "mini",
    study: Annotated[
        str, typer.Option(help="keep-rates: how few patches do; rankings: what to rank them by. They may share OUT.")
    ] = "keep-rates",
    quick: Annotated[
        bool, typer.Option("--quick", help="Minutes: shows that all runs; accuracies mean nothing.")
    ] = False,
    data_root: Annotated[Path | None, typer.Option(help="Folder of the data sets, for --scale full.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Folder of the checkpoints, for --scale full.")] = None,
    jobs: Annotated[int, typer.Option(help="Runs side by side; the cores are shared.")] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List every run, its command, cost and what is missing.")
    ] = False,
    form: FormatOption = "table",
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Write the report of what is done so far.")
    ] = False,
) -> None:
    """Run the paper's experiments and write one report; started again, it goes on where it was.

    --format is of the list that --dry-run prints.
    """
    check_form(form)
    _check_scale(scale, quick, data_root, weights)
    if dry_run and report_only:
        raise InvalidSetting("report-only", report_only, "only without --dry-run")

    from spectrim.studies import plans as reproduction
    from spectrim.studies import report as study_report

    steps = reproduction.study_plan(study, out, quick=quick, data_root=data_root, weights=weights)
    reproduction.check_folder(out, scale=scale, quick=quick)

    def write_report() -> Path:
        place = study_report.report_folder(out, study)
        return study_report.write_report(steps, place, scale=scale, quick=quick, study=study, runs=out)

    if dry_run:
        _print_plan(steps, form)
        return
    if report_only:
        if not out.is_dir():
            raise InvalidSetting("out", str(out), "a folder in which spectrim reproduce has run, for --report-only")
        put(write_report())
        return
    _run(steps, out, jobs, partial(reproduction.claim_folder, out, scale=scale, quick=quick), write_report)


def _run(
    steps: Sequence[Step], out: Path, jobs: int, begin: Callable[[], object], write_report: Callable[[], Path]
) -> None:
    """Run what is not done yet, and write the report, of a part where a step fails."""
    from spectrim.cli.terminal import complain, error_console
    from spectrim.studies.runner import Failed, run_plan

    console = error_console()
    try:
        with _ended_like_ctrl_c():
            run_plan(steps, out, jobs=jobs, tell=lambda line: complain(console, line), begin=begin)
    except Failed:
        complain(console, f"the report says what is done: {write_report()}")
        raise
    put(write_report())


def _check_scale(scale: str, quick: bool, data_root: Path | None, weights: Path | None) -> None:
    if scale not in ("mini", "full"):
        raise InvalidSetting("scale", scale, one_of(("mini", "full")))
    for name, folder in (("data-root", data_root), ("weights", weights)):
        if scale == "full" and folder is None:
            raise InvalidSetting(name, None, "a folder, for --scale full")
        if scale == "mini" and folder is not None:
            raise InvalidSetting(name, str(folder), "only with --scale full")
    if scale == "full" and quick:
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


@contextmanager
def _ended_like_ctrl_c() -> Iterator[None]:
    """Let a hangup and a request to end interrupt as Ctrl-C does, unless ignored, so that no run is left behind."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, interrupt)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
