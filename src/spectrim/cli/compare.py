"""``spectrim compare``."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from spectrim.cli.common import (
    FoldOption,
    FormatOption,
    FramesOption,
    ModelOption,
    OptionalDatasetOption,
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
from spectrim.comparison.methods import DEFAULT_METHODS, DRAWS, KEEP_RATES, METHODS
from spectrim.errors import InvalidSetting


@plainly
def compare(
    out: Annotated[Path, typer.Argument(help="Folder for report, tables and figure; started again, it goes on.")],
    model: ModelOption = "spectrim-mini",
    stride: StrideOption = None,
    frames: FramesOption = None,
    data: Annotated[
        Path | None, typer.Option(help="Root of the data set; for a model of the package without it, the clips there.")
    ] = None,
    dataset: OptionalDatasetOption = None,
    part: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    fold: FoldOption = None,
    change: SetOption = None,
    limit: Annotated[int | None, typer.Option(help="At most so many clips, evenly spread.")] = None,
    methods: Annotated[
        str,
        typer.Option(
            help=f"Separated by commas: {', '.join(METHODS)}, or CRITERION+REDUCER, e.g. attention+fuse; CRITERION/N "
            "gives each of N parts of a clip a quota."
        ),
    ] = ",".join(DEFAULT_METHODS),
    keep_rates: Annotated[str, typer.Option(help="Separated by commas; each in (0, 1].")] = ",".join(
        map(str, KEEP_RATES)
    ),
    prune_at: Annotated[
        str | None, typer.Option(help="Pruning blocks, from 0, separated by commas; default: the model's.")
    ] = None,
    run: Annotated[
        list[str] | None, typer.Option("--runs", help="NAME=FOLDER of a fine-tuned model; may be given several times.")
    ] = None,
    draws: Annotated[int, typer.Option(help="Random tables that stand for random pruning.")] = DRAWS,
    traced: Annotated[int, typer.Option(help="Clips whose kept patches are compared, at most.")] = 100,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips in a forward pass, for the scores.")] = 32,
    batch_sizes: Annotated[str, typer.Option(help="For the times; separated by commas.")] = "1,8",
    repeats: Annotated[int, typer.Option(help="Timed passes of each case.")] = 20,
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch; default: as torch chooses.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    workers: Annotated[int | None, typer.Option(min=0, help="Decoding processes; 0 decodes in this one.")] = None,
    form: FormatOption = "table",
    progress: ProgressOption = None,
) -> None:
    """Compare rankings and reducers on the same clips and weights, without training: is a ranking better than random?

    Accuracy or mAP with paired 95 % intervals against the dense model and against
    random pruning at the same keep rate, executed MACs, measured milliseconds, and
    how far the methods keep the same patches. docs/compare.md says how to read it.
    """
    check_form(form)
    source = named_model(model, stride, frames)
    rates, sizes = numbers("keep-rates", keep_rates, float), numbers("batch-sizes", batch_sizes, int)
    options, runs = data_options(change, fold), _named_runs(run or ())

    from spectrim.cli.terminal import as_json, error_console, out_console, rows_csv, stage_progress
    from spectrim.comparison.report import write
    from spectrim.comparison.run import compare as compare_methods
    from spectrim.files import sole_writer
    from spectrim.machine import torch_threads

    with sole_writer(out, "out"), torch_threads(threads), stage_progress(error_console(progress), progress) as tell:
        found = compare_methods(
            source,
            out,
            data_set=dataset,
            root=data,
            part=part,
            options=options,
            limit=limit,
            methods=methods.split(","),
            keep_rates=rates,
            prune_at=None if prune_at is None else numbers("prune-at", prune_at, int),
            runs=runs,
            draws=draws,
            traced=traced,
            batch_size=batch_size,
            batch_sizes=sizes,
            repeats=repeats,
            device=device,
            workers=workers,
            on_progress=tell,
        )
        report = write(found, out, shlex.join(["spectrim", *sys.argv[1:]]))
    if form == "json":
        put(as_json(found.as_dict()), end="")
    elif form == "csv":
        named = ("model", "data_set", "part", "clips", "environment")
        put(rows_csv(found.rows, {name: found.facts[name] for name in named}), end="")
    else:
        _print(out_console(), found, report)


def _named_runs(runs: Sequence[str]) -> dict[str, str]:
    """``NAME=FOLDER`` each → name → folder."""
    named: dict[str, str] = {}
    for run in runs:
        name, equals, folder = run.partition("=")
        if not (name and equals and folder) or name in named:
            raise InvalidSetting("runs", run, "NAME=FOLDER, each name once")
        named[name] = folder
    return named


def _print(console: Any, found: Any, report: Path) -> None:
    """The table, narrow enough for a terminal, and what it says in words."""
    from rich.table import Table
    from rich.text import Text

    from spectrim.cli.terminal import COLUMNS, PLAIN_TABLE
    from spectrim.comparison.report import CAUTION, with_interval
    from spectrim.data.splits import drawn_in_words

    metric, size = found.facts["metric"], found.facts["batch_sizes"][-1]
    heads = ["method", "keep rate", f"{metric}, % [95 %]", "to dense, points", "to random, points"]
    table = Table(*heads, "executed MACs", f"ms a clip, batch {size}", "speed-up", **PLAIN_TABLE)
    for column in table.columns[2:]:
        column.justify = "right"
    for row in found.rows:
        table.add_row(
            Text(row["method"]),
            COLUMNS["keep_rate"](row["keep_rate"]),
            with_interval(row, metric),
            with_interval(row, "change", "+"),
            with_interval(row, "over_random", "+"),
            COLUMNS["executed_macs"](row["executed_macs"]),
            f"{row[f'ms_{size}']:.2f}",
            COLUMNS["speed_up"](row[f"speed_up_{size}"]),
        )
    console.print(table)
    left_out = [f"left out: {case}: {why}" for case, why in found.facts["left_out"].items()]
    drawn = drawn_in_words(found.facts["part"], found.facts["drawn_from"])
    for line in filter(None, (*found.sentences, *left_out, drawn, CAUTION, str(report))):
        console.print(line, markup=False, soft_wrap=True)
