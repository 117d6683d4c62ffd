"""``spectrim reproduce``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectrim.commands.common import plainly
from spectrim.errors import InvalidSetting, one_of


@plainly
def reproduce(
    out: Annotated[Path, typer.Argument(help="Folder for data, runs and report.")],
    scale: Annotated[str, typer.Option(help="mini: on data made here; full: the paper's data and weights.")] = "mini",
    quick: Annotated[
        bool, typer.Option("--quick", help="Minutes: shows that all runs; accuracies mean nothing.")
    ] = False,
    data_root: Annotated[Path | None, typer.Option(help="Folder of the data sets, for --scale full.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Folder of the checkpoints, for --scale full.")] = None,
    jobs: Annotated[int, typer.Option(help="Runs side by side; the cores are shared.")] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List every run, its command, cost and what is missing.")
    ] = False,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Write the report of what is done so far.")
    ] = False,
) -> None:
    """Run the paper's experiments and write one report; started again, it goes on where it was."""
    if scale not in ("mini", "full"):
        raise InvalidSetting("scale", scale, one_of(("mini", "full")))
    if scale == "full" and (data_root is None or weights is None):
        lacking = "data-root" if data_root is None else "weights"
        raise InvalidSetting(lacking, None, "a folder, for --scale full")
    if scale == "full" and quick:
        raise InvalidSetting("quick", quick, "only with --scale mini")

    from spectrim import reproduction
    from spectrim.terminal import complain, error_console, out_console, plan_table

    if data_root is not None and weights is not None and scale == "full":
        steps = reproduction.full_plan(out, data_root, weights)
    else:
        steps = reproduction.miniature_plan(out, reproduction.QUICK if quick else reproduction.MINI)
    if dry_run:
        out_console().print(plan_table(steps))
        for path in reproduction.missing_inputs(steps):
            print(f"missing: {path}")
        return
    console = error_console()
    if not report_only:
        reproduction.run_plan(steps, out, jobs=jobs, tell=lambda line: complain(console, line))
    print(reproduction.write_report(steps, out, scale=scale, quick=quick))
