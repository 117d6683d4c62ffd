"""Plans of commands; the commands here are ``python -c CODE`` in the place of Spectrim's."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spectrim.errors import DataError, InvalidSetting
from spectrim.studies.runner import Failed, Step, run_plan

PYTHON = sys.executable


def python_step(name: str, out: Path, code: str, needs: tuple[str, ...] = ()) -> Step:
    return Step(name, ("-c", code), out / name, needs)


@pytest.fixture(autouse=True)
def plain_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """``python -P -m spectrim ARGUMENTS`` becomes ``python ARGUMENTS``."""
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nshift 3\nexec {PYTHON} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr("spectrim.studies.runner.sys.executable", str(script))


@pytest.fixture
def heard() -> Iterator[None]:
    """Let Ctrl-C reach processes, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def wait_for(happened: Callable[[], bool]) -> None:
    for _ in range(600):
        if happened():
            return
        time.sleep(0.1)
    raise TimeoutError


def test_a_plan_runs_in_order_in_its_folder_and_skips_what_is_done(out: Path) -> None:
    first = "open('a', 'x').close()"
    second = "import os; assert os.path.exists('a'); open('b', 'x').close()"
    steps = [python_step("b", out, second, ("a",)), python_step("a", out, first)]
    told: list[str] = []
    run_plan(steps, out, jobs=2, tell=told.append)
    assert [line.split(":")[0] for line in told] == ["[0/2] begins", "[1/2] done", "[1/2] begins", "[2/2] done"]
    assert told[1].startswith("[1/2] done: a, 0:00:")
    told.clear()
    run_plan(steps, out, tell=told.append)
    assert told == []


def test_jobs_run_side_by_side(out: Path) -> None:
    """Each of the two ends only once the other one has begun."""
    code = (
        "import os, time\nopen({0!r} + '.begun', 'x')\nwhile not os.path.exists({1!r} + '.begun'): time.sleep(0.05)\n"
    )
    steps = [python_step(a, out, code.format(a, b) + f"open({a!r}, 'x')") for a, b in ("ab", "ba")]
    run_plan(steps, out, jobs=2)
    assert all(step.done.exists() for step in steps)


def test_a_failing_step_is_named_with_its_last_words_log_and_command(out: Path) -> None:
    steps = [python_step("a r=1", out, "raise SystemExit('no sound')"), python_step("b", out, "", ("a r=1",))]
    with pytest.raises(Failed, match=r"a r=1 ended with 1: no sound; its log: .*a-r1\.log; .*: spectrim -c ") as error:
        run_plan(steps, out)
    assert str(out) in str(error.value)
    assert "no sound" in (out / "logs" / "a-r1.log").read_text()


@pytest.mark.usefixtures("heard")
def test_a_failing_step_interrupts_what_runs_beside_it(out: Path) -> None:
    slow = "import time\nopen('begun', 'x')\ntry: time.sleep(100)\nexcept KeyboardInterrupt: open('interrupted', 'x')"
    bad = "import os, time\nwhile not os.path.exists('begun'): time.sleep(0.05)\nraise SystemExit(3)"
    with pytest.raises(Failed, match="bad ended with 3"):
        run_plan([python_step("slow", out, slow), python_step("bad", out, bad)], out, jobs=2)
    assert (out / "interrupted").exists()


def test_a_step_that_is_killed_is_called_so(out: Path) -> None:
    with pytest.raises(Failed, match="a was ended by signal 9"):
        run_plan([python_step("a", out, "import os; os.kill(os.getpid(), 9)")], out)


def test_a_step_that_leaves_nothing_has_failed(out: Path) -> None:
    with pytest.raises(Failed, match="a ended with 0 and without"):
        run_plan([python_step("a", out, "")], out)


def test_a_plan_that_lacks_a_step_says_so(out: Path) -> None:
    with pytest.raises(Failed, match="no step makes what these need: a"):
        run_plan([python_step("a", out, "", ("b",))], out)


def test_leftovers_of_a_killed_step_are_removed_before_it_runs_again(out: Path) -> None:
    (out / "data" / ".esc50.partial-7").mkdir(parents=True)
    (out / "data" / ".other.partial-7").mkdir()
    step = Step("a", ("-c", "open('a', 'x')"), out / "a", leftovers="data/.esc50.partial-*")
    run_plan([step], out)
    assert [path.name for path in (out / "data").iterdir()] == [".other.partial-7"]


def test_wrong_settings_are_named_before_any_work(out: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="jobs is 0"):
        run_plan([], out, jobs=0)
    with pytest.raises(DataError, match=f"not there: {tmp_path}/weights"):
        run_plan([Step("a", ("-c", ""), out / "a", inputs=(tmp_path / "weights",))], out)
    assert not out.exists()
    out.touch()
    with pytest.raises(InvalidSetting, match=r"out is .*; allowed: a folder"):
        run_plan([], out)


def test_a_second_call_beside_the_first_is_refused_at_once(out: Path) -> None:
    slow = "import os, time\nopen('begun', 'x')\nwhile not os.path.exists('go'): time.sleep(0.05)\nopen('a', 'x')"
    steps = [python_step("a", out, slow)]
    first = threading.Thread(target=run_plan, args=(steps, out))
    first.start()
    wait_for((out / "begun").exists)
    begun: list[str] = []
    with pytest.raises(InvalidSetting, match=r"out is '.*out'; allowed: a name that no other run is writing now"):
        run_plan(steps, out, begin=lambda: begun.append("begun"))
    assert not begun
    (out / "go").touch()
    first.join(60)
    assert (out / "a").exists()
    run_plan(steps, out)


@pytest.mark.skipif(sys.platform == "win32", reason="locks files as POSIX does")
def test_a_second_call_waits_for_a_step_that_outlived_the_first(out: Path) -> None:
    """The first one is killed; its step goes on, ends well, and is not run again."""
    slow = "import os, time\nopen('begun', 'x')\nwhile not os.path.exists('go'): time.sleep(0.05)\nopen('a', 'x')"
    steps = [python_step("a", out, slow)]
    program = (
        "import sys; from pathlib import Path; import spectrim.studies.runner as s; s.sys.executable = sys.argv[1]; "
        "out = Path(sys.argv[2]); s.run_plan([s.Step('a', ('-c', sys.argv[3]), out / 'a')], out)"
    )
    first = subprocess.Popen([PYTHON, "-c", program, sys.executable, str(out), slow])
    wait_for((out / "begun").exists)
    first.send_signal(signal.SIGKILL)
    first.wait()
    told: list[str] = []
    second = threading.Thread(target=run_plan, args=(steps, out), kwargs={"tell": told.append})
    second.start()
    wait_for(lambda: bool(told))
    (out / "go").touch()
    second.join(60)
    assert not second.is_alive()
    assert (out / "a").exists()
    assert len(told) == 1
    assert told[0].startswith("waiting for a step that is still at work")
