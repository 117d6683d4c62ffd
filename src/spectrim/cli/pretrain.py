"""``spectrim pretrain``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectrim.cli.common import ProgressOption, plainly, put, resumable


@plainly
def pretrain(
    recipe: Annotated[str, typer.Argument(help="A YAML file, or the name of a recipe in recipes/.")],
    data: Annotated[Path, typer.Option(help="Folder of audio, searched to any depth; with data.name, the data set.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")],
    init: Annotated[
        str | None, typer.Option(help="Autoencoder to start from, with its decoder; none: random weights.")
    ] = None,
    extra_audio: Annotated[
        list[Path] | None, typer.Option(help="Folder of audio that is trained on besides; repeat for more.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --output, or begin it.")] = False,
    change: Annotated[list[str] | None, typer.Option("--set", help="field=value, over the recipe.")] = None,
    progress: ProgressOption = None,
) -> None:
    """Pre-train an encoder without labels, by predicting masked patches (AudioMAE).

    Several processes: torchrun --nproc-per-node N -m spectrim pretrain ...
    """
    from spectrim.training.pretrain_recipes import load_pretrain_recipe

    settings = load_pretrain_recipe(recipe, change or ())
    from spectrim.cli.terminal import complain, error_console, facts_table, out_console
    from spectrim.files import sole_writer
    from spectrim.machine import is_main_process
    from spectrim.training.pretrain import pretrain as run
    from spectrim.training.run_pictures import draw_run

    console = error_console(progress)
    bar = console.is_terminal
    with resumable(console), sole_writer(output if is_main_process() else None):
        results = run(
            settings,
            data,
            output,
            init=init,
            extra_audio=extra_audio or (),
            resume=resume,
            progress=bar,
            say=None if bar else lambda line: complain(console, line),
        )
        if not is_main_process():
            return
        draw_run(output)
    out_console().print(facts_table(results))
    put(f"model: {output / 'model'}")
