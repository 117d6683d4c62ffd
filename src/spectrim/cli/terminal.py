"""What the command line shows: progress, tables, and one line for each thing that went wrong."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from spectrim.errors import printable, shown, shown_name
from spectrim.tables import table_csv

if TYPE_CHECKING:
    from spectrim.audio.files import Window
    from spectrim.inference.results import FilePrediction

LONGEST_LINE = 4000
"""Characters of a line about what went wrong."""

LINE_SECONDS = 60.0
"""From one line on progress to the next, where no bar can be drawn."""

WIDE = 200
"""Columns of a table that goes into a pipe or a file."""

PLAIN_TABLE: Mapping[str, Any] = {"box": None, "pad_edge": False, "header_style": "bold"}


class _WrittenOut(RenderHook):
    """Writes out, in all that a console prints, what a terminal would act on; rich's own colours stay."""

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Wrap each of them."""
        return [_Printable(renderable) for renderable in renderables]


class _Printable:
    def __init__(self, renderable: ConsoleRenderable) -> None:
        self._renderable = renderable

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._renderable, options):
            yield segment if segment.control else Segment(printable(segment.text), segment.style)


def _console(**options: Any) -> Console:
    console = Console(highlight=False, **options)
    console.push_render_hook(_WrittenOut())
    return console


def out_console() -> Console:
    """Standard output; wide where it is no terminal."""
    return _console(width=None if sys.stdout.isatty() else WIDE, soft_wrap=False)


def error_console(progress: bool | None = None) -> Console:
    """Standard error; ``progress`` True draws as on a terminal wherever it goes."""
    return _console(stderr=True, force_terminal=progress)


def one_line(text: object) -> str:
    """Text as one printable line; blanks within a line stay, as they may be those of a name."""
    lines = (line.strip() for line in str(text).replace("\t", " ").splitlines())
    return printable(" ".join(line for line in lines if line))


def complain(console: Console, text: object) -> None:
    """Print one line about what went wrong."""
    console.print(Text(f"spectrim: {shown(one_line(text), LONGEST_LINE)}"), soft_wrap=True)


@contextmanager
def warnings_as_lines(console: Console) -> Iterator[None]:
    """Show warnings without file, line and code, the same one once: each part of a data set gives its own."""
    told: set[str] = set()

    def show(message: Warning | str, *_: Any, **__: Any) -> None:
        if (line := one_line(message)) not in told:
            told.add(line)
            console.print(Text(f"note: {line}"), soft_wrap=True)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


class FileProgress:
    """Progress through files, a long one second by second: a bar on a terminal, elsewhere a line now and then.

    A file counts by the share of it that was heard. Where its structure does not say how long it is, it counts when it
    is done, and until then only the seconds move.

    Args:
        console: standard error.
        files: how many there are.
        shown: True draws the bar wherever it goes, False shows nothing; None draws on a terminal and writes lines else.
    """

    def __init__(self, console: Console, files: int, shown: bool | None = None) -> None:
        columns = (
            *(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[place]}")),
            *(TextColumn("{task.fields[speed]}"), TimeElapsedColumn(), TimeRemainingColumn()),
        )
        drawn = console.is_terminal if shown is None else shown
        self.bar = Progress(*columns, console=console, disable=not drawn, transient=True)
        self.task = self.bar.add_task("files", total=files, speed="", place=f"0/{files}")
        self.audio_seconds = 0.0
        self.files = 0
        self.window: Window | None = None
        self.total = files
        self._in_lines = not drawn and shown is None
        self._begun = self._last_line = time.monotonic()

    def __enter__(self) -> FileProgress:
        """Begin to draw."""
        self.bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bar."""
        self.bar.stop()

    def hear(self, window: Window) -> None:
        """Count the seconds of a window."""
        before = self.window.end if self.window is not None and window.start else 0.0
        self.audio_seconds += min(window.seconds, window.end - before)
        self.window = window
        self._update()

    def finish_file(self) -> None:
        """Count a file."""
        self.files += 1
        self._update()

    def within(self) -> str:
        """Where in a long file it is, e.g. ``12:40 of 40:00``; nothing in a short one."""
        if self.window is None or self.window.start == 0:
            return ""
        whole = self.window.file_seconds
        if whole is not None and whole < LINE_SECONDS:
            return ""
        return f"{clock(self.window.end)} of {'unknown length' if whole is None else clock(whole)}"

    def done(self) -> float:
        """Files that are done, and the share of the one that is heard now."""
        share = 0.0
        if self.window is not None and self.window.file_seconds:
            share = min(1.0, self.window.end / self.window.file_seconds)
        return min(self.files + share, float(self.total))

    def _update(self) -> None:
        elapsed = max(time.monotonic() - self._begun, 1e-3)
        heard = f"{self.audio_seconds / elapsed:.0f} s of audio/s"
        if not self.bar.disable:
            within = f" {within}" if (within := self.within()) else ""
            speed = f"{self.files / elapsed:.1f} files/s, {heard}"
            place = f"{self.files}/{self.total}{within}"
            self.bar.update(self.task, completed=self.done(), speed=speed, place=place)
        elif self._in_lines and self._begun + elapsed - self._last_line >= LINE_SECONDS:
            self._last_line = self._begun + elapsed
            parts = [f"{self.files} of {self.total} files", self.within(), f"{clock(self.audio_seconds)} heard", heard]
            if done := self.done():
                parts.append(f"about {clock(elapsed / done * (self.total - done))} left")
            self.bar.console.print(Text(f"spectrim: {', '.join(filter(None, parts))}"), soft_wrap=True)


def clock(seconds: float) -> str:
    """Seconds as ``40:00``, or ``3:00:00`` from an hour on."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


@contextmanager
def stage_progress(console: Console, shown: bool | None = None) -> Iterator[Callable[[str, int, int], None]]:
    """Draw a bar for whatever stage is reported; the value takes its name, how much is done, how much there is."""
    hidden = not (console.is_terminal if shown is None else shown)
    with Progress(console=console, disable=hidden, transient=True) as bar:
        tasks: dict[str, Any] = {}

        def tell(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(escape(one_line(stage)), total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield tell


def prediction_table(predictions: Iterable[FilePrediction], top: int) -> Table:
    """Files, windows and their best labels."""
    table = Table("file", "time", "labels", **PLAIN_TABLE)
    table.columns[0].overflow = table.columns[2].overflow = "fold"
    table.columns[1].justify = "right"
    table.columns[1].no_wrap = True
    for prediction in predictions:
        name = Text(one_line(shown_name(prediction.path)))
        if prediction.error is not None:
            table.add_row(name, "", Text(one_line(prediction.error), style="red"))
            continue
        if prediction.scores is not None:
            table.add_row(name, f"{prediction.seconds:.2f} s", _labels(prediction.top(top)))
            name = Text("")
        if prediction.scores is None or len(prediction.timeline) > 1:
            for window in prediction.timeline:
                span = f"{window.start:.2f}–{window.end:.2f} s"
                table.add_row(name, span, _labels(prediction.top(top, window.scores)))
                name = Text("")
        if prediction.note is not None:
            table.add_row(name, "", Text(one_line(prediction.note), style="dim"))
    return table


def _labels(best: Sequence[tuple[str, float]]) -> Text:
    return Text("  ").join(Text.assemble((f"{score:.3f} ", "bold"), one_line(label)) for label, score in best)


COLUMNS: dict[str, Callable[[Any], str]] = {
    "keep_rate": "{:g}".format,
    "batch_size": str,
    "accuracy": lambda value: "" if value is None else f"{value:.1%}",
    "agreement": "{:.1%}".format,
    "paper_macs": lambda value: f"{value / 1e6:,.1f} M",
    "executed_macs": lambda value: f"{value / 1e6:,.1f} M",
    "median_ms": "{:.2f}".format,
    "q1_ms": "{:.2f}".format,
    "q3_ms": "{:.2f}".format,
    "ms_per_clip": "{:.2f}".format,
    "clips_per_second": "{:,.1f}".format,
    "speed_up": "{:.2f}×".format,
    "macs_ratio": "{:.2f}×".format,
    "peak_memory_mb": lambda value: "" if value is None else f"{value:,.0f}",
}
"""What the tables show, and how."""


def rows_table(rows: Sequence[Mapping[str, Any]], **further: Callable[[Any], str]) -> Table:
    """A table of those columns of some rows that are known.

    Args:
        rows: column → value.
        further: columns beside `COLUMNS` → how to write their values.
    """
    columns = {name: write for name, write in {**COLUMNS, **further}.items() if name in rows[0]}
    table = Table(*(name.replace("_", " ") for name in columns), **PLAIN_TABLE)
    for column in table.columns:
        column.justify = "right"
    for row in rows:
        table.add_row(*(write(row[name]) for name, write in columns.items()))
    return table


def plan_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The steps of a study, as `spectrim.studies.report.plan_rows` gives them: done or not, cost, and command."""
    table = Table("", "step", "MACs", "command", **PLAIN_TABLE)
    table.columns[0].no_wrap = table.columns[2].no_wrap = True
    table.columns[2].justify = "right"
    table.columns[3].overflow = "fold"
    for row in rows:
        state = "done" if row["done"] else "lacks data" if row["missing"] else ""
        cost = "" if row["macs"] is None else _many(row["macs"])
        table.add_row(state, Text(row["step"]), cost, Text(row["command"]))
    left = [row for row in rows if not row["done"]]
    total = sum(row["macs"] or 0.0 for row in left)
    table.add_row("", f"{len(left)} of {len(rows)} left", _many(total) if total else "", "")
    return table


def _many(macs: float) -> str:
    """Multiply-accumulates with a unit that suits them."""
    unit, letter = next(((size, name) for size, name in ((1e18, "E"), (1e15, "P")) if macs >= size), (1e12, "T"))
    return f"{macs / unit:,.1f} {letter}"


def facts_table(facts: Mapping[str, Any]) -> Table:
    """Two columns: what, and what it is."""
    table = Table(show_header=False, **PLAIN_TABLE)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, value in facts.items():
        table.add_row(Text(printable(name.replace("_", " "))), Text(printable(_fact(value))))
    return table


def _fact(value: Any) -> str:
    """A value in words, long lists cut."""
    if isinstance(value, Mapping):
        inner = [f"{name} {_fact(part)}" for name, part in value.items()]
        return "; ".join(inner) if any(isinstance(part, Mapping) for part in value.values()) else _cut(inner)
    if isinstance(value, list | tuple):
        return _cut([_fact(part) for part in value])
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _cut(parts: Sequence[str], longest: int = 12) -> str:
    shown = ", ".join(parts[:longest])
    return f"{shown}, … ({len(parts)})" if len(parts) > longest else shown


def rows_csv(rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> str:
    """Rows as CSV, with ``facts`` (nested ones as name.inner) in further columns of each row."""
    flat = dict(_flat(facts))
    return table_csv([{**row, **flat} for row in rows])


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def as_json(content: Any) -> str:
    """JSON with what is no JSON as text."""
    return json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n"
