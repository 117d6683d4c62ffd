from __future__ import annotations

import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import psutil
import pytest
import soundfile
from decoders import decode, endless

from spectrim.audio.decoding import LOOK_AHEAD, Event, decode_files
from spectrim.audio.files import Note, Window, iterate_windows, windows_and_notes
from spectrim.errors import AudioError, InvalidSetting, SpectrimError


def make_files(folder: Path, names: list[str], seconds: float = 2.5) -> list[str]:
    for index, name in enumerate(names):
        samples = np.random.default_rng(index).uniform(-0.5, 0.5, round(seconds * 16000))
        soundfile.write(folder / name, samples, 16000)
    return [str(folder / name) for name in names]


def collected(files: list[str], **options: object) -> list[list[Event]]:
    found: list[list[Event]] = [[] for _ in files]
    order = []
    for index, event in decode_files(files, **options):  # type: ignore[arg-type]
        found[index].append(event)
        order.append(index)
    assert order == sorted(order)
    return found


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children() if "spectrim.audio.decoding" in " ".join(child.cmdline())]


@pytest.mark.parametrize("workers", [1, 3])
def test_windows_are_those_of_the_file_in_the_order_of_the_files(tmp_path: Path, workers: int) -> None:
    files = make_files(tmp_path, [f"{index}.wav" for index in range(7)])
    for path, events in zip(
        files, collected(files, decode=partial(iterate_windows, window_seconds=1.0), workers=workers), strict=True
    ):
        assert events.pop() is None
        for window, expected in zip(events, iterate_windows(path, 1.0), strict=True):
            assert isinstance(window, Window)
            assert window.start == expected.start
            np.testing.assert_array_equal(window.samples, expected.samples)
    assert not children()


def test_notes_come_after_the_windows(tmp_path: Path) -> None:
    left = np.random.default_rng(0).uniform(-0.5, 0.5, 24000)
    soundfile.write(tmp_path / "a.wav", np.stack([left, -left], axis=1), 16000, subtype="FLOAT")
    [events] = collected([str(tmp_path / "a.wav")], decode=partial(windows_and_notes, window_seconds=1.0))
    assert [type(event) for event in events] == [Window, Window, Note, type(None)]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("segfault.wav", "crashed the decoder (Segmentation fault)"),
        ("killed.wav", "crashed the decoder (Killed)"),
        ("abort.wav", "crashed the decoder (Aborted: free(): invalid pointer)"),
        ("exit.wav", "crashed the decoder (exit code 7)"),
        ("bug.wav", "crashed the decoder (exit code 1: ZeroDivisionError: of the decoder)"),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_crash_costs_only_its_file(tmp_path: Path, name: str, reason: str, workers: int) -> None:
    files = make_files(tmp_path, ["a.wav", "b.wav", name, "c.wav", "d.wav"])
    found = collected(files, decode=decode, workers=workers)
    assert [len(events) for events in found] == [4, 4, 1, 4, 4]
    [error] = found[2]
    assert isinstance(error, AudioError)
    assert (error.source, error.reason.replace(" (core dumped)", "")) == (files[2], reason)


def test_a_crash_after_the_first_window(tmp_path: Path) -> None:
    files = make_files(tmp_path, ["late.wav", "a.wav"])
    found = collected(files, decode=decode)
    assert [type(event) for event in found[0]] == [Window, AudioError]
    assert len(found[1]) == 4


def test_every_file_crashes(tmp_path: Path) -> None:
    files = make_files(tmp_path, [f"exit-{index}.wav" for index in range(4)])
    found = collected(files, decode=decode, workers=2)
    assert [str(events[0]) for events in found] == [f"{path}: crashed the decoder (exit code 7)" for path in files]


def test_errors_of_files_come_in_their_place(tmp_path: Path) -> None:
    [good] = make_files(tmp_path, ["a.wav"])
    missing = str(tmp_path / "none.wav")
    found = collected([missing, good, missing], decode=decode, workers=2)
    assert [len(events) for events in found] == [1, 4, 1]
    assert str(found[0][0]) == f"{missing}: no such file"


def test_what_a_decoder_prints_does_not_matter(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    collected(make_files(tmp_path, ["a.wav"]), decode=decode)
    assert capfd.readouterr() == ("", "")


def test_look_ahead_is_bounded(tmp_path: Path) -> None:
    """While nobody takes windows, workers stop decoding; what was taken is in order and none is lost."""
    events = decode_files(["one", "two", "three"], endless, workers=3, look_ahead=48000)
    for number in range(200):
        index, event = next(events)
        assert isinstance(event, Window)
        assert (index, event.start, float(event.samples[0])) == (0, number, number)
    desk = events.gi_frame.f_locals["desk"]
    time.sleep(0.3)
    assert desk._held <= 48000 + 16000
    used = [child.cpu_times().user for child in children()]
    time.sleep(0.5)
    assert [child.cpu_times().user for child in children()] == used
    events.close()
    assert not children()


def test_a_window_larger_than_the_look_ahead_still_comes(tmp_path: Path) -> None:
    files = make_files(tmp_path, ["a.wav", "b.wav"])
    found = collected(files, decode=decode, workers=2, look_ahead=1)
    assert [len(events) for events in found] == [4, 4]


def test_workers_that_cannot_start_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(SpectrimError, match=r"cannot be started \(exit code 1: ModuleNotFoundError"):
        list(decode_files(["a.wav"], iterate_windows))  # type: ignore[arg-type]


@pytest.mark.parametrize("look_ahead", [100, LOOK_AHEAD])
@pytest.mark.parametrize(
    ("name", "failing", "crashes"),
    [("subprocess.Popen", 1, False), ("tempfile.TemporaryFile", 2, False), ("subprocess.Popen", 3, True)],
)
def test_a_system_that_refuses_a_worker_is_an_error_and_no_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, failing: int, crashes: bool, look_ahead: int
) -> None:
    """The first worker, the second, or the one after a crash: decoding says why and ends within seconds."""
    files = make_files(tmp_path, [f"{'exit' if crashes else 'a'}-{index}.wav" for index in range(6)])
    module, _, function = name.partition(".")
    genuine, calls, said = getattr(sys.modules[module], function), count(1), []

    def refusing(*args: Any, **options: Any) -> Any:
        if next(calls) == failing:
            raise OSError(11, "Resource temporarily unavailable")
        return genuine(*args, **options)

    def caller() -> None:
        try:
            collected(files, decode=decode, workers=2, look_ahead=look_ahead)
        except Exception as error:
            said.append(error)

    monkeypatch.setattr(f"spectrim.audio.decoding.{name}", refusing)
    waiting = Thread(target=caller, daemon=True)
    waiting.start()
    waiting.join(30)
    assert not waiting.is_alive()
    [error] = said
    assert isinstance(error, SpectrimError)
    words = r"a decoding process cannot be started \(.*temporarily unavailable\): use fewer workers"
    assert re.match(words, str(error))
    assert not children()


def test_what_goes_wrong_beside_decoding_reaches_the_caller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(_: object, __: str) -> Iterator[Event]:
        raise ZeroDivisionError("of the supervisor")

    monkeypatch.setattr("spectrim.audio.decoding.DecodingProcess.decode", wrong)
    with pytest.raises(ZeroDivisionError, match="of the supervisor"):
        list(decode_files(["a.wav"], decode))


@pytest.mark.parametrize("setting", ["workers", "look_ahead"])
def test_impossible_settings(setting: str) -> None:
    with pytest.raises(InvalidSetting, match=setting):
        decode_files(["a.wav"], decode, **{setting: 0})


def test_no_files_no_workers() -> None:
    assert list(decode_files([], decode)) == []


def test_workers_do_not_load_torch(tmp_path: Path) -> None:
    [path] = make_files(tmp_path, ["a.wav"])
    events = decode_files([path], endless)
    next(events)
    [child] = children()
    mapped = {Path(entry.path).name for entry in child.memory_maps()}
    events.close()
    assert any("soxr" in name for name in mapped)
    assert not any("torch" in name for name in mapped)


def test_a_script_without_a_main_guard_can_use_it_and_its_workers_die_with_it(tmp_path: Path) -> None:
    [path] = make_files(tmp_path, ["a.wav"])
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(Path(__file__).parents[1] / "helpers")!r})
        import psutil
        from decoders import endless
        from spectrim.audio.decoding import decode_files
        events = decode_files([{path!r}], endless)
        print(next(events)[1].start, psutil.Process().children()[0].pid, flush=True)
        raise SystemExit(3)
        """)
    )
    run = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, check=False)
    start, pid = run.stdout.split()
    assert (run.returncode, start) == (3, "0.0")
    gone = time.monotonic() + 10
    while psutil.pid_exists(int(pid)) and time.monotonic() < gone:
        time.sleep(0.05)
    assert not psutil.pid_exists(int(pid)) or psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE
