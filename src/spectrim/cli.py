"""The command line: parse, call, print. Whatever is heavy is imported inside the commands."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import closing
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from spectrim import __version__
from spectrim.errors import InvalidSetting, SpectrimError, one_of

if TYPE_CHECKING:
    from spectrim.predict import FilePrediction
    from spectrim.sinks import Sink
    from spectrim.terminal import FileProgress

FAILURE, WRONG_USE, INTERRUPTED = 1, 2, 130

app = typer.Typer(
    name="spectrim",
    help="Audio spectrogram transformers made faster by dropping patches.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
data_app = typer.Typer(help="Data sets.", no_args_is_help=True)
app.add_typer(data_app, name="data")

Command = TypeVar("Command", bound=Callable[..., Any])

ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="Directory, file, hub id, or spectrim-mini, the model in the package.")
]
ProgressOption = Annotated[
    bool | None, typer.Option("--progress/--no-progress", help="Draw progress; by default on a terminal.")
]
FormatOption = Annotated[str, typer.Option("--format", help="table, csv or json.")]


def main() -> None:
    """Run the command line; exit with 0 for success, 1 for failure, 2 for wrong use, 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    app()


def plainly(command: Command) -> Command:
    """Say what went wrong in one line on standard error, and exit with the code that it stands for."""

    @wraps(command)
    def run(*args: Any, **options: Any) -> Any:
        from spectrim.terminal import complain, error_console, warnings_as_lines

        console = error_console()
        try:
            with warnings_as_lines(console):
                return command(*args, **options)
        except InvalidSetting as error:
            complain(console, error)
            raise typer.Exit(WRONG_USE) from error
        except BrokenPipeError:
            raise
        except (SpectrimError, OSError) as error:
            complain(console, error)
            raise typer.Exit(FAILURE) from error
        except KeyboardInterrupt as error:
            complain(console, "interrupted")
            raise typer.Exit(INTERRUPTED) from error

    return run  # type: ignore[return-value]


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


@app.command()
@plainly
def demo(
    clips: Annotated[list[Path] | None, typer.Argument(help="Audio files; none: the package's own clips.")] = None,
    model: ModelOption = "spectrim-mini",
    keep_rates: Annotated[str, typer.Option(help="Separated by commas; each in (0, 1].")] = "1.0,0.7,0.5",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for pictures.")] = Path("spectrim-demo"),
    pictures: Annotated[int, typer.Option(help="How many clips to draw.")] = 3,
    form: FormatOption = "table",
    progress: ProgressOption = None,
) -> None:
    """Tag clips at several keep rates, compare accuracy and speed, and draw what is kept."""
    check_form(form)
    rates = numbers("keep-rates", keep_rates, float)

    from spectrim.benchmark import environment
    from spectrim.demo import run
    from spectrim.terminal import as_json, complain, error_console, out_console, rows_csv, rows_table, stage_progress

    console = error_console(progress)
    with stage_progress(console, progress) as tell:
        result = run(clips or (), model=model, keep_rates=rates, output=output, pictures=pictures, on_progress=tell)
    for error in result.errors:
        complain(console, error)
    machine = environment()
    facts = {"clips": len(result.clips), "batch_size": result.batch_size, "repeats": result.repeats}
    if form == "csv":
        print(rows_csv(result.rows, {**facts, **machine}), end="")
    elif form == "json":
        print(as_json({**facts, "environment": machine, "rows": result.rows, "pictures": result.pictures}), end="")
    else:
        out = out_console()
        out.print(rows_table(result.rows))
        times = f"median of {result.repeats} passes of {result.batch_size}, {machine['torch_threads']} threads"
        out.print(f"{len(result.clips)} clips; MACs per clip; ms per clip: {times}, {machine['processor']}")
        for picture in result.pictures:
            out.print(str(picture), markup=False)
    if result.errors:
        raise typer.Exit(FAILURE)


@app.command()
@plainly
def predict(
    paths: Annotated[list[str], typer.Argument(help="Files, folders, patterns, or - for a list on standard input.")],
    model: ModelOption = "spectrim-mini",
    keep_rate: Annotated[float | None, typer.Option(help="Share of patches to keep, in (0, 1].")] = None,
    top: Annotated[int, typer.Option(min=1, help="Labels to give for a file or window.")] = 5,
    form: Annotated[str | None, typer.Option("--format", help="table, csv or jsonl.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="CSV or JSON-lines file.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run into --output.")] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Windows in a forward pass.")] = 16,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    window: Annotated[float | None, typer.Option(help="Seconds of a window; default: what the model hears.")] = None,
    hop: Annotated[float | None, typer.Option(help="Seconds from window to window; default: the window.")] = None,
    aggregate: Annotated[str, typer.Option(help="Of a file's windows: mean, max or none.")] = "mean",
    workers: Annotated[int | None, typer.Option(min=1, help="Decoding processes.")] = None,
    explain: Annotated[Path | None, typer.Option(help="Folder for pictures of what is kept.")] = None,
    progress: ProgressOption = None,
) -> None:
    """Tag audio files of any format, rate and length.

    Files that cannot be used get an error instead of labels, and the exit code becomes 1.
    """
    form = predict_form(form, output, resume)
    from spectrim.checkpoints import from_pretrained
    from spectrim.predict import predict as tag_files
    from spectrim.selection import select_files
    from spectrim.sinks import open_sink
    from spectrim.terminal import FileProgress, complain, error_console

    console = error_console(progress)
    selection = select_files(paths)
    network = from_pretrained(model, keep_rate=keep_rate)
    settings = {"keep_rate": keep_rate, "window": window, "hop": hop, "aggregate": aggregate}
    sink, left, failed = open_sink(form, output, resume, top, network, settings, selection)
    if left is None:
        complain(console, f"{output} is complete already")
        raise typer.Exit(FAILURE if failed else 0)
    count = len(left.files) + len(left.errors)
    with FileProgress(console, count, progress) as bar:
        predictions = tag_files(
            left, network, batch_size=batch_size, device=device, window=window, hop=hop, aggregate=aggregate,
            workers=workers, explain=explain, on_window=bar.hear,
        )  # fmt: skip
        try:
            failed += pass_on(predictions, sink, bar)
        except KeyboardInterrupt as error:
            sink.close()
            kept = f"; {output}.partial holds them, --resume continues" if output and bar.files else ""
            complain(console, f"interrupted after {bar.files} of {count} files{kept}")
            raise typer.Exit(INTERRUPTED) from error
    total = len(selection.files) + len(selection.errors)
    if failed:
        complain(console, f"{failed} of {total} files could not be tagged")
        raise typer.Exit(FAILURE)
    if output is not None:
        complain(console, f"{total} file{'s are' if total > 1 else ' is'} in {output}")


def pass_on(predictions: Generator[FilePrediction], sink: Sink, bar: FileProgress) -> int:
    """Give predictions to where they go, and say which files have failed; how many those are."""
    from spectrim.terminal import complain

    failed = 0
    with closing(predictions):
        for prediction in predictions:
            sink.write(prediction)
            bar.finish_file()
            if prediction.error is not None:
                failed += 1
                complain(bar.bar.console, f"{prediction.path}: {prediction.error}")
    sink.finish()
    return failed


def predict_form(form: str | None, output: Path | None, resume: bool) -> str:
    """The format that is meant: where none is named, the output's ending says it, and a table goes to a terminal."""
    if form is None:
        ending = "table" if output is None else output.suffix.lower().lstrip(".")
        form = "jsonl" if ending in ("json", "ndjson") else ending
        if form not in ("table", "csv", "jsonl"):
            raise InvalidSetting("output", str(output), "a name that ends in .csv or .jsonl, or --format")
    allowed = ("csv", "jsonl") if output is not None else ("csv", "jsonl", "table")
    if form not in allowed:
        raise InvalidSetting("format", form, one_of(allowed) + (" for an output file" if output is not None else ""))
    if resume and output is None:
        raise InvalidSetting("resume", resume, "together with --output")
    return form


def check_form(form: str) -> None:
    """Refuse what is no format of a table."""
    if form not in ("table", "csv", "json"):
        raise InvalidSetting("format", form, one_of(("table", "csv", "json")))


def numbers(field: str, text: str, kind: type) -> list[Any]:
    """Numbers that are separated by commas."""
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError as error:
        raise InvalidSetting(field, text, "numbers separated by commas, e.g. 1,2") from error


@app.command()
@plainly
def benchmark(
    model: ModelOption = "spectrim-mini",
    keep_rates: Annotated[str, typer.Option(help="Separated by commas; each in (0, 1].")] = "1.0,0.7,0.5",
    batch_sizes: Annotated[str, typer.Option(help="Separated by commas.")] = "1,8",
    repeats: Annotated[int, typer.Option(help="Timed passes of each case.")] = 20,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    form: FormatOption = "table",
    progress: ProgressOption = None,
) -> None:
    """Count MACs, and time the model at several keep rates side by side."""
    check_form(form)
    rates, sizes = numbers("keep-rates", keep_rates, float), numbers("batch-sizes", batch_sizes, int)
    from spectrim.benchmark import run
    from spectrim.checkpoints import from_pretrained
    from spectrim.terminal import as_json, error_console, facts_table, out_console, rows_csv, rows_table, stage_progress

    with stage_progress(error_console(progress), progress) as tell:
        result = run(
            from_pretrained(model), rates, sizes, repeats=repeats, device=device,
            on_round=lambda done, total: tell("time", done, total),
        )  # fmt: skip
    if form == "csv":
        facts = {"model": model, **{name: value for name, value in result.items() if name != "rows"}}
        print(rows_csv(result["rows"], facts), end="")
    elif form == "json":
        print(as_json({"model": model, **result}), end="")
    else:
        out = out_console()
        out.print(rows_table(result["rows"]))
        out.print(facts_table({"model": model, "repeats": repeats, **result["environment"]}))


@app.command()
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


@data_app.command()
@plainly
def synthesize(
    name: Annotated[str, typer.Argument(help="spoken-commands.")],
    out: Annotated[Path, typer.Argument(help="Folder to make.")],
    clips: Annotated[int, typer.Option(help="Training clips; a tenth each are added to validate and test.")] = 10_000,
    validation_clips: Annotated[int | None, typer.Option(help="Instead of a tenth.")] = None,
    test_clips: Annotated[int | None, typer.Option(help="Instead of a tenth.")] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same files.")] = 0,
    workers: Annotated[int | None, typer.Option(help="Processes; default: one a core.")] = None,
    progress: ProgressOption = None,
) -> None:
    """Make a miniature of a public data set, in its layout on disk."""
    if name != "spoken-commands":
        raise InvalidSetting("name", name, one_of(["spoken-commands"]))
    from spectrim.data.synthetic import synthesize_spoken_commands
    from spectrim.terminal import error_console, stage_progress

    with stage_progress(error_console(progress), progress) as tell:
        made = synthesize_spoken_commands(
            out, clips=clips, validation_clips=validation_clips, test_clips=test_clips, seed=seed, workers=workers,
            progress=lambda done, total: tell("clips", done, total),
        )  # fmt: skip
    print(made)


@app.command()
@plainly
def info(
    source: Annotated[str | None, typer.Argument(help="A checkpoint; none: this installation.")] = None,
    form: Annotated[str, typer.Option("--format", help="table or json.")] = "table",
) -> None:
    """Describe a checkpoint, or what the package holds and how it was made."""
    if form not in ("table", "json"):
        raise InvalidSetting("format", form, one_of(("table", "json")))
    from spectrim.terminal import as_json, facts_table, out_console

    if source is not None:
        from spectrim.checkpoints import describe

        facts = {source: describe(source)}
    else:
        from spectrim.about import about_package

        facts = about_package()
    if form == "json":
        print(as_json(facts if source is None else facts[source]), end="")
        return
    out = out_console()
    for title, content in facts.items():
        out.print(title, style="bold underline", markup=False)
        out.print(facts_table(content))
