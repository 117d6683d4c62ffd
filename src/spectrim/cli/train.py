"""``spectrim train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectrim.cli.common import FramesOption, ProgressOption, StrideOption, plainly, put
from spectrim.errors import InvalidSetting


@plainly
def train(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a recipe in recipes/.")],
    data: Annotated[Path, typer.Option(help="Root of the data set.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")],
    init: Annotated[str | None, typer.Option(help="Checkpoint to start from; none: random weights.")] = None,
    stride: StrideOption = None,
    frames: FramesOption = None,
    fold: Annotated[int | None, typer.Option(help="The held-out fold, as --set data.options.fold=.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --output, or begin it.")] = False,
    branch_of: Annotated[
        Path | None, typer.Option(help="Go on from this run, which stopped where the keep rate begins to fall.")
    ] = None,
    change: Annotated[list[str] | None, typer.Option("--set", help="field=value, over the recipe.")] = None,
    progress: ProgressOption = None,
) -> None:
    """Train a model by a recipe, and test it dense and pruned.

    Several processes: torchrun --nproc-per-node N -m spectrim train ...
    """
    from spectrim.training.recipe_files import load_recipe

    said = {"stride": stride if stride is None else f"[{stride}]" if "," in stride else stride, "frames": frames}
    if init is None and any(value is not None for value in said.values()):
        raise InvalidSetting("stride" if frames is None else "frames", stride or frames, "together with --init")
    told = [f"model.{name}={value}" for name, value in said.items() if value is not None]
    told += [] if fold is None else [f"data.options.fold={fold}"]
    settings = load_recipe(recipe, [*(change or ()), *told])
    from transformers.utils.logging import disable_progress_bar

    from spectrim.cli.terminal import complain, error_console, out_console, rows_table
    from spectrim.files import sole_writer
    from spectrim.machine import is_main_process
    from spectrim.training.finetune import train as run

    console = error_console(progress)
    bar = console.is_terminal
    disable_progress_bar()  # of each file that is written; training has its own
    with sole_writer(output if is_main_process() else None):
        results = run(
            settings,
            data,
            output,
            init=init,
            resume=resume,
            branch_of=branch_of,
            progress=bar,
            say=None if bar else lambda line: complain(console, line),
        )
    if not is_main_process():
        return
    metric = results["metric"]
    rows = [{"keep_rate": float(rate), metric: value} for rate, value in results["test"].items()]
    if rows:
        out_console().print(rows_table(rows, **{metric: "{:.4f}".format}))
    put(f"model: {output / 'model'}")
