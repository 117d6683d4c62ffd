"""Nothing raw reaches the terminal: what it would act on is written out, in messages, tables and progress."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pytest
from rich.console import Console

from spectrim.audio.files import Window
from spectrim.cli import terminal
from spectrim.cli.common import put
from spectrim.cli.terminal import (
    FileProgress,
    complain,
    facts_table,
    out_console,
    prediction_table,
    rows_table,
    stage_progress,
)
from spectrim.errors import AudioError, InvalidSetting
from spectrim.inference.results import FilePrediction, WindowScores

EVIL = "a\x1b]0;owned\x07\x1b[2J\x9b31m\u202eb\udce9\x7f"
SHOWN = "a\\x1b]0;owned\\x07\\x1b[2J\\x9b31m\\u202eb\\xe9\\x7f"
RAW = ("\x1b]", "\x1b[2J", "\x07", "\x9b", "\u202e", "\x7f")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def screen_of(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal in place of standard output; in the test itself, since pytest puts its own there before."""
    found = Terminal()
    monkeypatch.setattr("sys.stdout", found)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "200")
    return found


def test_tables_messages_and_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = screen_of(monkeypatch)
    console = out_console()
    scores = np.array([0.75, 0.25], np.float32)
    tagged = FilePrediction(EVIL, [EVIL, "dog"], 1.0, [WindowScores(0.0, 1.0, scores)], scores)
    console.print(prediction_table([tagged, FilePrediction("x", [], error=EVIL)], 2))
    console.print(facts_table({EVIL: EVIL}))
    console.print(rows_table([{"keep_rate": 0.5, "label": EVIL}], label=str))
    console.print(EVIL, markup=False, style="bold")
    complain(console, EVIL)
    put(EVIL)
    text = screen.getvalue()
    assert text.count(SHOWN) >= 5
    assert not any(raw in text for raw in RAW)
    assert "\x1b[1m" in text, "colours of our own stay"


def test_a_line_keeps_the_blanks_of_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = screen_of(monkeypatch)
    complain(terminal._console(file=screen), "no  such\n  file: '  a.wav'")
    assert screen.getvalue() == "spectrim: no  such file: '  a.wav'\n"


def test_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = screen_of(monkeypatch)
    with stage_progress(terminal._console(file=screen, force_terminal=True), True) as tell:
        tell(EVIL + "[red]", 1, 2)
    assert SHOWN + "[red]" in screen.getvalue()
    assert not any(raw in screen.getvalue() for raw in RAW[:1] + RAW[2:])


def heard(start: float, file_seconds: float | None) -> Window:
    return Window(start, np.zeros(160000, np.float32), 16000, file_seconds)


def test_a_long_file_moves_and_an_unknown_length_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(terminal, "time", SimpleNamespace(monotonic=lambda: now[0]))
    log = io.StringIO()
    progress = FileProgress(Console(file=log), 2)
    done = []
    for number in range(240):
        now[0] += 1.0
        progress.hear(heard(10.0 * number, 2400.0 if number else None))
        done.append(progress.done())
    assert done == pytest.approx([0.0, *(np.arange(2, 241) / 240)])
    progress.finish_file()
    for number in range(7):
        progress.hear(heard(10.0 * number, None))
    assert progress.done() == 1.0
    now[0] += 60.0
    progress.hear(heard(70.0, None))
    assert log.getvalue().splitlines() == [
        "spectrim: 0 of 2 files, 10:00 of 40:00, 10:00 heard, 10 s of audio/s, about 7:00 left",
        "spectrim: 0 of 2 files, 20:00 of 40:00, 20:00 heard, 10 s of audio/s, about 6:00 left",
        "spectrim: 0 of 2 files, 30:00 of 40:00, 30:00 heard, 10 s of audio/s, about 5:00 left",
        "spectrim: 0 of 2 files, 40:00 of 40:00, 40:00 heard, 10 s of audio/s, about 4:00 left",
        "spectrim: 1 of 2 files, 1:20 of unknown length, 41:20 heard, 8 s of audio/s, about 5:00 left",
    ]
    silent = FileProgress(Console(file=log), 2, False)
    now[0] += 600.0
    silent.hear(heard(0.0, None))
    assert log.getvalue().count("\n") == 5


def test_what_goes_into_a_file_or_pipe_is_exact(capsys: pytest.CaptureFixture[str]) -> None:
    put("a\x1b[2Jb")
    assert capsys.readouterr().out == "a\x1b[2Jb\n"


def test_errors_are_printable_and_short() -> None:
    assert str(AudioError(EVIL, "gone")) == f"{SHOWN}: gone"
    assert AudioError(EVIL, "gone").source == EVIL
    assert EVIL[1] not in str(InvalidSetting("a", EVIL, EVIL))
    nested: object = ["x" * 50] * 9
    for _ in range(30):
        nested = [nested] * 9
    for value in ("x" * 10**6, b"x" * 10**6, list(range(10**5)), nested, {"a": nested}, np.zeros(10**5), 10**3000):
        assert len(str(InvalidSetting("field", value, "less"))) < 280
    assert str(InvalidSetting("field", (3, 6, 9), "x")) == "field is (3, 6, 9); allowed: x"
