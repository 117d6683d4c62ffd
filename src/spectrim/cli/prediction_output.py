"""Where predictions go: a table or rows on standard output, or an output file."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from spectrim.audio.finding import Selection
from spectrim.cli.terminal import out_console, prediction_table
from spectrim.errors import InvalidSetting, printable, shown_name
from spectrim.inference.backend import Backend
from spectrim.inference.events import EventTracks
from spectrim.inference.output_file import OutputFile
from spectrim.inference.prediction_rows import ENCODING, FORMATS
from spectrim.inference.results import FilePrediction


class Sink(Protocol):
    """Where predictions go."""

    def write(self, prediction: FilePrediction) -> None:
        """Take the next."""

    def finish(self) -> None:
        """There are no more."""

    def close(self) -> None:
        """There would have been more."""


class RowsOut:
    """Predictions to standard output as CSV or JSON lines, as they come."""

    def __init__(self, form: str, top: int) -> None:
        self._format = FORMATS[form]
        self._top = top
        self._begun = False

    def write(self, prediction: FilePrediction) -> None:
        """Put out the rows of a file."""
        self._put(self._format.rows(prediction, self._top))

    def finish(self) -> None:
        """Put out the header, if nothing came."""
        self._put("")

    def close(self) -> None:
        """All is out."""

    def _put(self, text: str) -> None:
        header = "" if self._begun else self._format.header()
        self._begun = True
        rows = printable(header + text) if sys.stdout.isatty() else header + text
        sys.stdout.buffer.write(rows.encode(**ENCODING))
        sys.stdout.buffer.flush()


class TableOut:
    """Predictions to standard output as one table at the end, or each at once."""

    def __init__(self, top: int, at_once: bool = False) -> None:
        self._top = top
        self._at_once = at_once
        self._predictions: list[FilePrediction] = []

    def write(self, prediction: FilePrediction) -> None:
        """Keep a prediction, or print it."""
        self._predictions.append(prediction)
        if self._at_once:
            self.finish()

    def finish(self) -> None:
        """Print what was kept."""
        if self._predictions or not self._at_once:
            out_console().print(prediction_table(self._predictions, self._top))
        self._predictions = []

    close = finish


class WithTracks:
    """Predictions to another sink, and a track of events beside each, before its rows say that the file is done.

    Args:
        sink: the other one.
        tracks: what writes them.
        go_on: called with what to say of a file whose track another file is in the place of; without it, that is an
            error.
    """

    def __init__(self, sink: Sink, tracks: EventTracks, go_on: Callable[[str], None] | None = None) -> None:
        self._sink = sink
        self._tracks = tracks
        self._go_on = go_on
        self.finish = sink.finish
        self.close = sink.close

    def write(self, prediction: FilePrediction) -> None:
        """Write the track, then the rows."""
        try:
            self._tracks.write(prediction)
        except InvalidSetting as error:
            if self._go_on is None:
                raise
            self._go_on(f"{shown_name(prediction.path)}: no track is written: {error}")
        self._sink.write(prediction)


def open_sink(
    form: str,
    output: Path | None,
    resume: bool,
    top: int,
    network: Backend,
    settings: Mapping[str, Any],
    selection: Selection,
    beside: Mapping[str, Any],
    growing: bool = False,
) -> tuple[Sink, Selection | None, int]:
    """Where predictions go, which files are left to be tagged (None: FILE is complete), how many have failed before."""
    if output is None:
        return (TableOut(top, growing) if form == "table" else RowsOut(form, top)), selection, 0
    settings = {**settings, "model": network.fingerprint()}
    file = OutputFile(output, form, settings, beside=beside, top=top, resume=resume, growing=growing)
    left = file.remaining(selection)
    failed = sum(error is not None for error in file.done.values())
    if file.complete and (left.files or left.errors):
        missing = [*left.files, *(error.source for error in left.errors)]
        lacking = f"{missing[0]} and {len(missing) - 1} more are" if missing[1:] else f"{missing[0]} is"
        allowed = f"another name: this file is complete, and {lacking} not in it"
        raise InvalidSetting("output", str(output), allowed)
    return file, None if file.complete else left, failed
