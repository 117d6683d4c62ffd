"""``spectrim predict --watch``: tag what arrives in a folder, until somebody ends it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import typer
from rich.console import Console

from spectrim.audio.finding import Selection
from spectrim.cli.common import FAILURE, INTERRUPTED
from spectrim.cli.prediction_output import Sink
from spectrim.cli.terminal import FileProgress, complain
from spectrim.inference.output_file import OutputFile
from spectrim.inference.results import FilePrediction
from spectrim.inference.watch import POLL_SECONDS, Arrivals

AGAIN = "it has changed since it was heard before"
"""The note on a file that was replaced."""


def watch_folder(
    folder: Path,
    settle: float,
    tag: Callable[..., Generator[FilePrediction]],
    pass_on: Callable[[Generator[FilePrediction], Sink, FileProgress], int],
    sink: Sink,
    store: OutputFile | None,
    console: Console,
    progress: bool | None,
) -> NoReturn:
    """Tag files as they arrive; Ctrl-C ends it, with exit code 130.

    Args:
        folder: to watch.
        settle: seconds for which a complete file has not changed.
        tag: `spectrim.inference.predict.predict_files`, with its settings.
        pass_on: what gives predictions to a sink.
        sink: where they go.
        store: the output file behind the sink, if there is one; it says what was done before.
        console: standard error.
        progress: as of `FileProgress`.
    """
    given = {} if store is None else store.versions()
    heard, count = set(given), 0
    arrivals = Arrivals(folder, given, settle, apart_from=None if store is None else store.path)
    complain(console, f"watching {folder}, in which {len(given)} files are done; Ctrl-C ends it")
    there, told = True, set[str]()
    try:
        while True:
            found = arrivals.look()
            for place in arrivals.unreadable.keys() - told:
                complain(console, f"{place}: {arrivals.unreadable[place]}; what is in it waits")
            told = set(arrivals.unreadable)
            if folder.is_dir() != there:
                there = not there
                complain(console, f"{folder} is {'there again' if there else 'not there now; waiting for it'}")
            if not found:
                time.sleep(POLL_SECONDS)
                continue
            if store is not None:
                store.found = dict(found)
            bar = FileProgress(console, len(found), progress)
            try:
                with bar:
                    predictions = tag(Selection(list(found)), on_window=bar.hear)
                    pass_on(_noted(predictions, heard, arrivals), sink, bar)
            finally:
                count += bar.files
    except KeyboardInterrupt as error:
        complain(console, f"ended after {count} files")
        raise typer.Exit(INTERRUPTED) from error
    except OSError as error:
        if store is None:
            raise
        complain(console, f"{store.path}: {error.strerror or error}; after {count} files; the same command goes on")
        raise typer.Exit(FAILURE) from error
    finally:
        sink.close()


def _noted(predictions: Generator[FilePrediction], heard: set[str], arrivals: Arrivals) -> Generator[FilePrediction]:
    """Predictions with a note on those of files that were heard before, without those of files that are to come again.

    Those could not be heard because they were replaced or their share vanished.
    """
    with closing(predictions):
        for found in predictions:
            if found.error is not None and arrivals.take_back(found.path):
                continue
            again = found.path in heard and found.error is None
            yield replace(found, note="; ".join(filter(None, (found.note, AGAIN)))) if again else found
            heard.add(found.path)
