"""``spectrim train``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from spectrim.commands.common import plainly


@plainly
def train(
    recipe: Annotated[Path, typer.Argument(help="A YAML file; the shipped ones are in recipes/.")],
    data: Annotated[Path, typer.Option(help="Root of the data set.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the run.")],
    init: Annotated[str | None, typer.Option(help="Checkpoint to start from.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --output.")] = False,
    change: Annotated[list[str] | None, typer.Option("--set", help="field=value, over the recipe.")] = None,
) -> None:
    """Train a model by a recipe, and test it dense and pruned."""
    from spectrim.recipe import load_recipe

    settings = load_recipe(recipe, change or ())
    from spectrim.terminal import out_console, rows_table
    from spectrim.training import train as run

    results = run(settings, data, output, init=init, resume=resume)
    metric = results["metric"]
    rows = [{"keep_rate": float(rate), metric: value} for rate, value in results["test"].items()]
    out_console().print(rows_table(rows, **{metric: "{:.4f}".format}))
    print(f"model: {output / 'model'}")
