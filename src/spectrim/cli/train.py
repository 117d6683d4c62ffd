"""``spectrim train``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from spectrim.cli.common import (
    OPTIONS,
    FoldOption,
    FoldsOption,
    FramesOption,
    ProgressOption,
    StrideOption,
    byte_size,
    held_out,
    plainly,
    put,
    resumable,
)
from spectrim.errors import InvalidSetting

if TYPE_CHECKING:
    from rich.console import Console

    from spectrim.training.cross_validation import CrossValidation
    from spectrim.training.recipes import Recipe


@plainly
def train(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a recipe in recipes/.")],
    data: Annotated[Path, typer.Option(help="Root of the data set.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")],
    init: Annotated[str | None, typer.Option(help="Checkpoint to start from; none: random weights.")] = None,
    stride: StrideOption = None,
    frames: FramesOption = None,
    fold: FoldOption = None,
    folds: FoldsOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --output, or begin it.")] = False,
    branch_of: Annotated[
        Path | None, typer.Option(help="Go on from this run, which stopped where the keep rate begins to fall.")
    ] = None,
    change: Annotated[list[str] | None, typer.Option("--set", help="field=value, over the recipe.")] = None,
    cache: Annotated[
        str, typer.Option(help="Decoded audio to keep on disk for the next epochs, e.g. 500MB or 20GB; off for none.")
    ] = "4GB",
    cache_dir: Annotated[
        Path | None, typer.Option(help="Where; default: spectrim/audio in XDG_CACHE_HOME or ~/.cache.")
    ] = None,
    progress: ProgressOption = None,
) -> None:
    """Train a model by a recipe, and test it dense and pruned.

    --folds all trains and tests a cross-validation: a run a fold in OUTPUT/fold1 and so on, and one table.
    Several processes: torchrun --nproc-per-node N -m spectrim train ...
    """
    from spectrim.training.recipe_files import load_recipe

    said = {"stride": stride if stride is None else f"[{stride}]" if "," in stride else stride, "frames": frames}
    if init is None and any(value is not None for value in said.values()):
        option, given = ("stride", stride) if frames is None else ("frames", frames)
        raise InvalidSetting(option, given, "together with --init")
    told = [f"model.{name}={value}" for name, value in said.items() if value is not None]
    several = held_out(fold, folds) if folds is not None else None
    if fold is not None:
        if any(one.partition("=")[0] == f"{OPTIONS}fold" for one in change or ()):
            raise InvalidSetting("fold", fold, f"one of --fold and --set {OPTIONS}fold=")
        told.append(f"{OPTIONS}fold={fold}")
    settings = load_recipe(recipe, [*(change or ()), *told])
    kept = None if cache == "off" else byte_size("cache", cache, "off, or a size such as 500MB or 20GB")
    from spectrim.cli.terminal import complain, error_console
    from spectrim.data.cache import AudioCache
    from spectrim.files import sole_writer
    from spectrim.machine import is_main_process
    from spectrim.training.cross_validation import cross_validate
    from spectrim.training.cross_validation_report import write
    from spectrim.training.finetune import train as run
    from spectrim.training.run_pictures import draw_run

    console = error_console(progress)
    bar = console.is_terminal
    shown: dict[str, Any] = {
        "cache": None if kept is None else AudioCache(data, cache_dir, kept),
        "progress": bar,
        "say": None if bar else lambda line: complain(console, line),
    }
    with resumable(console), sole_writer(output if is_main_process() else None):
        if several is not None:
            trunk = None if branch_of is None else str(branch_of)
            found = cross_validate(
                settings, data, output, folds=several, init=init, resume=resume, branch_of=trunk, **shown
            )
            if is_main_process():
                for number in found.facts["folds"]:
                    draw_run(output / f"fold{number}")
                _print_folds(found, write(found, output))
            return
        results = run(settings, data, output, init=init, resume=resume, branch_of=branch_of, **shown)
        if is_main_process():
            draw_run(output)
            _print(settings, results, output, console)


def _print(recipe: Recipe, results: Mapping[str, Any], output: Path, console: Console) -> None:
    """The metric at each keep rate, and where the model is."""
    from spectrim.cli.terminal import complain, out_console, rows_table
    from spectrim.training.chosen_epoch import epoch_choice

    metric = results["metric"]
    rows = [{"keep_rate": float(rate), metric: value} for rate, value in results["test"].items()]
    if rows:
        out_console().print(rows_table(rows, **{metric: "{:.4f}".format}))
    if rows and results["chosen_on"] == "test":
        complain(console, f"the epoch was {epoch_choice(recipe, 'test')}")
    put(f"model: {output / 'model'}")


def _print_folds(found: CrossValidation, folder: Path) -> None:
    """The table of a cross-validation, what it stands on, and where all of it is."""
    from rich.table import Table

    from spectrim.cli.terminal import PLAIN_TABLE, out_console
    from spectrim.training.cross_validation_report import notes, table_cells

    head, *rows = table_cells(found)
    table = Table(*head, **PLAIN_TABLE)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    console = out_console()
    console.print(table, markup=False)
    for line in notes(found):
        console.print(line, markup=False, soft_wrap=True)
    put(f"models: {found.facts['models']}")
    put(f"tables: {folder}")
