"""How a run of ``spectrim predict`` goes on and ends, whatever tags and wherever predictions go."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from spectrim.assets import KNOWS
from spectrim.cli.common import FAILURE, INTERRUPTED
from spectrim.cli.terminal import complain
from spectrim.errors import shown_name

if TYPE_CHECKING:
    from rich.console import Console

    from spectrim.cli.prediction_output import Sink
    from spectrim.cli.terminal import FileProgress
    from spectrim.inference.backend import Backend
    from spectrim.inference.results import FilePrediction


def settings_of(opening: Mapping[str, Any], tagging: Mapping[str, Any]) -> dict[str, Any]:
    """What rows depend on beside the model's weights, for whatever continues a run.

    Args:
        opening: keep_rate, precision, backend and drop_padding of the model.
        tagging: window, hop and aggregate.
    """
    settings = {name: opening[name] for name in ("keep_rate", "precision")}
    settings |= {name: tagging[name] for name in ("window", "hop", "aggregate")}
    # What was made before there were these does not name them.
    return settings | {name: opening[name] for name in ("backend", "drop_padding") if opening[name]}


def made_beside(explain: Path | None, events: Path | None, **tracking: Any) -> dict[str, Any]:
    """What is made beside rows, and how, for whatever continues a run; arguments as the options of `predict`."""
    folders = {"explain": explain, "events": events}
    made = {name: os.path.abspath(folder) for name, folder in folders.items() if folder is not None}  # noqa: PTH100
    return made | {name: value for name, value in tracking.items() if value}


def tag_all(
    tag: Callable[[FileProgress], Generator[FilePrediction]],
    sink: Sink,
    progress: FileProgress,
    output: Path | None,
    kept: Callable[[], str],
    *,
    total: int,
    failed: int,
) -> None:
    """Tag files, and say how it ended.

    Args:
        tag: begins, and tells the progress what it hears.
        sink: where predictions go.
        progress: knows how many files are left.
        output: what the sink writes; None for standard output.
        kept: of a run that is broken off: what is there, and what to do next.
        total: files of this run and of those that it continues.
        failed: files of those that could not be tagged.
    """
    with progress as bar:
        console = bar.bar.console
        try:
            failed += pass_on(tag(bar), sink, bar)
            sink.finish()
        except (KeyboardInterrupt, OSError) as error:
            sink.close()
            if isinstance(error, BrokenPipeError) or (output is None and isinstance(error, OSError)):
                raise
            within = f", at {bar.within()} of the next" if bar.within() else ""
            why = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{output}: {error.strerror or error};"
            complain(console, f"{why} after {bar.files} of {bar.total} files{within}{kept()}")
            raise typer.Exit(INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILURE) from error
    if failed:
        complain(console, f"{failed} of {total} files could not be tagged")
        raise typer.Exit(FAILURE)
    if output is not None:
        complain(console, f"{total} file{'s are' if total > 1 else ' is'} in {output}")


def warn_of_embedded(console: Console, source: object) -> None:
    """Say what a model in the package knows, where it is one."""
    if (known := KNOWS.get(str(source))) is not None:
        complain(console, f"{source} knows {known}, and nothing else; --model names another")


def warn_of_nothing_pruned(console: Console, source: object, model: Backend) -> None:
    """Say that a criterion or reducer that was named changes nothing, where every patch is kept."""
    from spectrim.checkpoints import DescribedSource

    if isinstance(source, DescribedSource) and (source.criterion or source.reducer) and not model.pruning.prunes:
        named = "--criterion" if source.reducer is None else "--reducer"
        complain(console, f"{named} changes nothing, as every patch is kept; --keep-rate 0.7 keeps fewer")


def pass_on(predictions: Generator[FilePrediction], sink: Sink, bar: FileProgress) -> int:
    """Give predictions to where they go, and say which files have failed; how many those are."""
    failed = 0
    with closing(predictions):
        for prediction in predictions:
            sink.write(prediction)
            bar.finish_file()
            if prediction.error is not None:
                failed += 1
                complain(bar.bar.console, f"{shown_name(prediction.path)}: {prediction.error}")
    return failed
