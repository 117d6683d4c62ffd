"""``spectrim tune``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from spectrim.cli.common import (
    FAILURE,
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
    plainly,
    put,
)
from spectrim.comparison.methods import DEFAULT_METHODS, METHODS
from spectrim.tuning.settings import CLIPS_AT_ONCE, DRAWS, FINALISTS, SEARCHED, SPEED_OF


@plainly
def tune(
    out: Annotated[Path, typer.Argument(help="Folder for model, front and report; started again, it goes on.")],
    model: ModelOption = "spectrim-mini",
    stride: StrideOption = None,
    frames: FramesOption = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Root of the calibration clips; for a model of the package without it, the clips there."),
    ] = None,
    dataset: OptionalDatasetOption = None,
    part: Annotated[
        str | None, typer.Option(help="train, validation or test; by default validation, and test of the package.")
    ] = None,
    fold: FoldOption = None,
    change: SetOption = None,
    limit: Annotated[int | None, typer.Option(help="At most so many clips, evenly spread, before halving.")] = None,
    max_drop: Annotated[
        float | None, typer.Option(help="Points of accuracy or mAP that may be lost; 1 where no target is given.")
    ] = None,
    min_speedup: Annotated[
        float | None, typer.Option(help="Instead: how many times as fast as the dense model, measured.")
    ] = None,
    speed_of: Annotated[str, typer.Option(help=f"What will run it: {', '.join(SPEED_OF)}.")] = "torch",
    methods: Annotated[
        str,
        typer.Option(help=f"Separated by commas: {', '.join(METHODS)}, or CRITERION+REDUCER, e.g. attention+fuse."),
    ] = ",".join(DEFAULT_METHODS),
    finalists: Annotated[
        int, typer.Option(help="Methods to search with, beside the backbone's own attention.")
    ] = FINALISTS,
    searched: Annotated[int, typer.Option(help="Clips that the steps of the search hear, at most.")] = SEARCHED,
    clips_at_once: Annotated[int, typer.Option(help="Clips in a timed pass; the speed holds for it.")] = CLIPS_AT_ONCE,
    draws: Annotated[int, typer.Option(help="Random tables that stand for random pruning.")] = DRAWS,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips in a forward pass, for the scores.")] = 32,
    repeats: Annotated[int, typer.Option(help="Timed passes of each point.")] = 20,
    threads: Annotated[int | None, typer.Option(min=1, help="Of torch; default: as torch chooses.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    workers: Annotated[int | None, typer.Option(min=0, help="Decoding processes; 0 decodes in this one.")] = None,
    form: FormatOption = "table",
    progress: ProgressOption = None,
) -> None:
    """Find an operating point: the fastest that loses no more than --max-drop, or the best with --min-speedup.

    Without training, on labelled calibration clips: which ranking, what becomes of
    the rest, at which blocks, and a keep rate for each. Points are chosen on one
    half of the clips; on the other half, on which nothing is chosen, it says what
    is lost, how much it may be at most, and how many clips a surer answer takes.
    Speed is measured on this machine. OUT/model is the model at the chosen point.
    The exit code is 1 where no point meets the target. docs/tune.md has more.
    """
    check_form(form)
    source = named_model(model, stride, frames)
    options = data_options(change, fold)

    from transformers.utils.logging import disable_progress_bar

    from spectrim.cli.terminal import as_json, complain, error_console, out_console, rows_csv, stage_progress
    from spectrim.files import sole_writer
    from spectrim.machine import torch_threads
    from spectrim.tuning.report import write
    from spectrim.tuning.run import tune as find_point

    disable_progress_bar()  # of each file that is written
    console = error_console(progress)
    with sole_writer(out, "out"), torch_threads(threads), stage_progress(console, progress) as tell:
        found = find_point(
            source,
            out,
            max_drop=max_drop,
            min_speedup=min_speedup,
            data_set=dataset,
            root=data,
            part=part,
            options=options,
            limit=limit,
            methods=methods.split(","),
            speed_of=speed_of,
            clips_at_once=clips_at_once,
            searched=searched,
            finalists=finalists,
            draws=draws,
            batch_size=batch_size,
            repeats=repeats,
            device=device,
            workers=workers,
            on_progress=tell,
        )
        report = write(found, out, shlex.join(["spectrim", *sys.argv[1:]]))
    if form == "json":
        put(as_json(found.as_dict()), end="")
    elif form == "csv":
        named = ("model", "data_set", "part", "target", "speed_of", "environment")
        put(rows_csv(found.rows, {name: found.facts[name] for name in named}), end="")
    else:
        _print(out_console(), found, report)
    if found.unmet is not None:
        complain(console, found.unmet)
        raise typer.Exit(FAILURE)


def _print(console: Any, found: Any, report: Path) -> None:
    """The front, and what it says in words."""
    from rich.table import Table
    from rich.text import Text

    from spectrim.cli.terminal import COLUMNS, PLAIN_TABLE
    from spectrim.data.splits import drawn_in_words
    from spectrim.tuning.report import CAUTION, held_lost

    table = Table("point", "executed MACs", "ms a clip", "speed-up", "lost", "held out: lost [95 %]", "", **PLAIN_TABLE)
    for column in table.columns[1:6]:
        column.justify = "right"
    for row in found.rows:
        if row["on_front"] or row["chosen"] or row["kind"] == "dense":
            table.add_row(
                Text(row["name"]),
                COLUMNS["executed_macs"](row["executed_macs"]),
                f"{row['ms']:.2f}",
                COLUMNS["speed_up"](row["speed_up"]),
                f"{100 * row['drop']:.1f}",
                held_lost(row),
                "chosen" if row["chosen"] else "",
            )
    console.print(table)
    lines = [*(found.sentences if found.unmet is None else []), "Is a ranking better than random?", *found.rankings]
    drawn = drawn_in_words(found.facts["part"], found.facts["drawn_from"])
    for line in filter(None, (*lines, drawn, CAUTION, str(report))):
        console.print(line, markup=False, soft_wrap=True)
