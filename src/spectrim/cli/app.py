"""The command line: its commands are in `spectrim.cli`. Whatever is heavy is imported inside them."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from typing import Annotated

import typer

from spectrim import __version__
from spectrim.cli.analyze import analyze
from spectrim.cli.benchmark import benchmark
from spectrim.cli.common import WRONG_USE
from spectrim.cli.compare import compare
from spectrim.cli.data import check, manifest, pack, synthesize
from spectrim.cli.embed import embed
from spectrim.cli.evaluate import evaluate
from spectrim.cli.explain import explain
from spectrim.cli.export import export
from spectrim.cli.info import info
from spectrim.cli.page import app as page
from spectrim.cli.parsing import Command
from spectrim.cli.predict import demo, predict
from spectrim.cli.pretrain import pretrain
from spectrim.cli.reproduce import reproduce
from spectrim.cli.train import train
from spectrim.cli.tune import tune

app = typer.Typer(
    name="spectrim",
    help="Audio spectrogram transformers made faster by dropping patches.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Data sets.", no_args_is_help=True)

COMMANDS: tuple[Callable[..., None], ...] = (
    demo,
    predict,
    embed,
    explain,
    page,
    benchmark,
    tune,
    compare,
    train,
    pretrain,
    evaluate,
    analyze,
    export,
    reproduce,
    info,
)
DATA_COMMANDS: tuple[Callable[..., None], ...] = (synthesize, check, pack, manifest)
for command in COMMANDS:
    app.command(cls=Command)(command)
for command in DATA_COMMANDS:
    data_app.command(cls=Command)(command)
app.add_typer(data_app, name="data")


def main() -> None:
    """Run the command line; exit with 0 for success, 1 for failure, 2 for wrong use, 130 after Ctrl-C."""
    if sys.stdout is None:
        # The next file that is opened would be taken for it.
        print("spectrim: standard output is closed; where nobody reads it, send it to /dev/null", file=sys.stderr)
        sys.exit(WRONG_USE)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        app()
    finally:
        # A second Ctrl-C must not break off what Python does at its end, with a traceback.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"spectrim {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Audio spectrogram transformers made faster by dropping patches."""
