"""``spectrim analyze``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from spectrim.cli.common import (
    DatasetOption,
    FoldOption,
    FormatOption,
    FramesOption,
    ProgressOption,
    SetOption,
    StrideOption,
    check_form,
    data_options,
    named_model,
    numbers,
    plainly,
    put,
)
from spectrim.errors import InvalidSetting, one_of

if TYPE_CHECKING:
    from spectrim.analysis.analyse import Analysis


@plainly
def analyze(
    model: Annotated[
        list[str],
        typer.Option(
            "--model",
            "-m",
            help="A model; several are compared. Directory, file or hub id; --stride and --frames are of all.",
        ),
    ],
    dataset: DatasetOption,
    data: Annotated[Path, typer.Option(help="Root of the data set.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for report, tables and figures.")],
    name: Annotated[list[str] | None, typer.Option(help="Of each model in the report, in their order.")] = None,
    stride: StrideOption = None,
    frames: FramesOption = None,
    part: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    fold: FoldOption = None,
    keep_rates: Annotated[
        str, typer.Option(help="Below 1, separated by commas; pictures show the first.")
    ] = "0.7,0.5,0.3",
    drop_at: Annotated[
        str | None, typer.Option(help="Blocks at which clusters are dropped; by default the pruning blocks.")
    ] = None,
    padding: Annotated[str, typer.Option(help="with or without patches that hold only padding.")] = "without",
    clusters: Annotated[str, typer.Option(help="fit to these clips, or published (intensity only).")] = "fit",
    limit: Annotated[int | None, typer.Option(help="So many clips, evenly spread over the part.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the random patches that clusters are compared with.")] = 0,
    change: SetOption = None,
    record: Annotated[bool, typer.Option("--record", help="Also keep scores and log-mel of every clip.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Use what the folder holds of the same analysis.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips in a forward pass.")] = 16,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    form: FormatOption = "table",
    progress: ProgressOption = None,
) -> None:
    """Test the claims of the paper on models and data of yours: statistics, ablations, figures and a report."""
    check_form(form)
    if padding not in ("with", "without"):
        raise InvalidSetting("padding", padding, one_of(("with", "without")))
    sources = [named_model(one, stride, frames) for one in model]
    rates = tuple(numbers("keep-rates", keep_rates, float))
    blocks = None if drop_at is None else tuple(numbers("drop-at", drop_at, int))
    options = data_options(change, fold)

    from spectrim.analysis.analyse import analyse
    from spectrim.analysis.experiment import Plan
    from spectrim.cli.terminal import error_console, stage_progress
    from spectrim.files import sole_writer

    plan = Plan(rates, padding, clusters, dataset, part, blocks, limit, batch_size, seed)
    with sole_writer(output), stage_progress(error_console(progress), progress) as tell:
        found = analyse(
            sources,
            dataset,
            data,
            output,
            plan,
            options=options,
            names=name,
            device=device,
            resume=resume,
            keep_record=record,
            on_progress=tell,
        )
    _print(found, form)


def _print(found: Analysis, form: str) -> None:
    """The claims with their answers, in a form on standard output."""
    from spectrim.cli.terminal import as_json, out_console, rows_csv

    verdicts = [
        {"claim": claim.heading, "model": one, "answer": mark}
        for claim in found.claims
        for one, mark in claim.verdicts.items()
    ]
    if form == "json":
        put(as_json([{"claim": one.heading, "answers": one.answer, "verdicts": one.verdicts} for one in found.claims]))
    elif form == "csv":
        put(rows_csv(verdicts, {}), end="")
    else:
        out = out_console()
        for claim in found.claims:
            out.print(claim.heading, style="bold", markup=False)
            for answer in claim.answer:
                out.print(f"  {answer}", markup=False, soft_wrap=True)
        out.print(str(found.report), markup=False, soft_wrap=True)
