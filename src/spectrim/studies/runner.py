"""Runs a plan of command lines as processes, in the order of what each needs; finished ones are not run again."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from threading import Event

from spectrim.errors import DataError, InvalidSetting, SpectrimError
from spectrim.files import sole_writer
from spectrim.machine import core_count

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"
PATIENCE = 30.0
"""Seconds that an interrupted step has to end by itself."""

Tell = Callable[[str], object]


@dataclass(frozen=True)
class Cell:
    """One trained model of a study.

    Attributes:
        backbone: ``"ast"`` or ``"audiomae"``.
        data: name of the data set in the report.
        recipe: name of the recipe.
        seed: of the run.
        fold: of the data set, None where it has none.
        keep_rate: that it is trained for.
        folder: of the run.
        ranking: what its patches are ranked by, a name in `spectrim.analysis.ablations.RANKINGS`.
        training_free: it is not trained again, but pruned at test time with every ranking, by ``spectrim analyze``.
    """

    backbone: str
    data: str
    recipe: str
    seed: int
    fold: int | None
    keep_rate: float
    folder: Path
    ranking: str = "attention"
    training_free: bool = False


@dataclass(frozen=True)
class Step:
    """A command, and the file that says that it is done.

    Attributes:
        name: unique in the plan.
        arguments: of ``spectrim``; relative paths start at the folder of the study.
        done: a file that the command writes last.
        needs: names of the steps before it.
        inputs: what must be there already: files or folders that no step makes.
        macs: multiply-accumulates of the training in it, estimated; None where that says nothing.
        cell: the trained model it gives, if it is one of the study.
        leftovers: pattern of the folders that it leaves behind in the folder of the study when it is killed.
    """

    name: str
    arguments: tuple[str, ...]
    done: Path
    needs: tuple[str, ...] = ()
    inputs: tuple[Path, ...] = ()
    macs: float | None = None
    cell: Cell | None = None
    leftovers: str | None = None

    @property
    def command(self) -> str:
        """The command line, to be run in the folder of the study."""
        return shlex.join(("spectrim", *self.arguments))

    @property
    def missing(self) -> list[Path]:
        """Inputs that are not there."""
        return [path for path in self.inputs if not path.exists()]


def missing_inputs(steps: Sequence[Step]) -> list[Path]:
    """What a plan needs and the disk lacks."""
    return sorted({path for step in steps for path in step.missing})


class Failed(SpectrimError):
    """A step of a plan did not end well."""


def run_plan(
    steps: Sequence[Step],
    out: Path,
    *,
    jobs: int = 1,
    threads: int | None = None,
    tell: Tell = lambda line: None,
    begin: Callable[[], object] = lambda: None,
) -> None:
    """Run what is not done yet, several steps side by side, each in ``out`` and with its log below ``out/logs``.

    A second call for the same folder is refused as long as the first one is at work, and waits for a step that
    outlived a killed one.

    Args:
        steps: all that are needed stand in it.
        out: the folder of the study.
        jobs: steps at a time; the cores are shared between them.
        threads: of each step; None: what ``OMP_NUM_THREADS`` says, else its share of the cores.
        tell: is told what begins and ends.
        begin: is called once all is checked and nothing else is at work.

    Raises:
        InvalidSetting: jobs or threads is below 1, out is a file, or another call is at work in it.
        DataError: inputs are missing.
        Failed: a step ended badly; what runs beside it is interrupted, and goes on where it was the next time.
    """
    if jobs < 1:
        raise InvalidSetting("jobs", jobs, "1 or more")
    if threads is not None and threads < 1:
        raise InvalidSetting("threads", threads, "1 or more")
    if lacking := missing_inputs(steps):
        raise DataError(f"not there: {', '.join(map(str, lacking))}; --dry-run says which runs need what")
    if out.exists() and not out.is_dir():
        raise InvalidSetting("out", str(out), "a folder, or the name of one to make")
    with sole_writer(out, "out"), _left_behind(out, tell) as lock:
        begin()
        _run(steps, out, jobs, _environment(jobs, threads), tell, lock)


def _environment(jobs: int, threads: int | None) -> dict[str, str]:
    """The environment of a step, with the number of its threads."""
    share = {"OMP_NUM_THREADS": str(max(1, core_count() // jobs))}
    return share | os.environ if threads is None else {**os.environ, "OMP_NUM_THREADS": str(threads)}


@contextmanager
def _left_behind(out: Path, tell: Tell) -> Iterator[int]:
    """Wait for steps that a killed call left in a folder.

    Steps inherit the file that this gives, and so its lock, and hold it as long as they run.
    """
    (out / "logs").mkdir(parents=True, exist_ok=True)
    with (out / LOCK).open("a") as file:
        if sys.platform != "win32":
            said_so = False
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if not said_so:
                        tell(
                            f"waiting for a step that is still at work in {out}, left behind by a call that was killed"
                        )
                        said_so = True
                    time.sleep(1.0)
        yield file.fileno()


def _run(steps: Sequence[Step], out: Path, jobs: int, environment: Mapping[str, str], tell: Tell, lock: int) -> None:
    done = {step.name for step in steps if step.done.exists()}
    left = [step for step in steps if step.name not in done]
    running: dict[Future[int], tuple[Step, float]] = {}
    total, stop = len(steps), Event()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            while left or running:
                for step in [step for step in left if set(step.needs) <= done][: jobs - len(running)]:
                    left.remove(step)
                    tell(f"[{len(done)}/{total}] begins: {step.name}")
                    running[pool.submit(_run_step, step, out, environment, stop, lock)] = (step, time.monotonic())
                if not running:
                    raise Failed(f"no step makes what these need: {', '.join(step.name for step in left)}")
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    step, begun = running.pop(future)
                    code = future.result()
                    if code or not step.done.exists():
                        raise Failed(_what_went_wrong(step, out, code))
                    done.add(step.name)
                    taken = timedelta(seconds=round(time.monotonic() - begun))
                    tell(f"[{len(done)}/{total}] done: {step.name}, {taken}")
        finally:
            stop.set()


def _what_went_wrong(step: Step, out: Path, code: int) -> str:
    lines = _log(step, out).read_text(encoding="utf-8", errors="replace").splitlines()
    last = next((line for line in reversed(lines) if line.strip() and not line.startswith("$ ")), "it said nothing")
    ended = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
    if code == 0:
        ended += f" and without {step.done}"
    return f"{step.name} {ended}: {last}; its log: {_log(step, out)}; its command, in {out}: {step.command}"


def _log(step: Step, out: Path) -> Path:
    return out / "logs" / f"{step.name.replace(' ', '-').replace('=', '')}.log"


def _run_step(step: Step, out: Path, environment: Mapping[str, str], stop: Event, lock: int) -> int:
    """Run a step to its end, or until it is to stop; returns its exit code, negative for a signal.

    It has a session of its own, so that Ctrl-C in a terminal reaches it once, from here.
    """
    for leftover in out.glob(step.leftovers) if step.leftovers else ():
        shutil.rmtree(leftover, ignore_errors=True)
    command = [sys.executable, "-P", "-m", "spectrim", *step.arguments]
    with _log(step, out).open("ab") as log:
        log.write(f"$ {step.command}\n".encode())
        log.flush()
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            cwd=out,
            start_new_session=True,
            pass_fds=(lock,) if os.name == "posix" else (),
        )
        while not stop.is_set():
            try:
                return process.wait(timeout=0.5)
            except subprocess.TimeoutExpired:
                continue
        return _end(process)


def _end(process: subprocess.Popen[bytes]) -> int:
    """Interrupt a process, and end it and its workers by force where it does not heed that."""
    if os.name == "posix" and signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        process.send_signal(signal.SIGINT)
    else:  # what ignores Ctrl-C, as background jobs of scripts do, has children that do so too
        process.terminate()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
    if os.name == "posix":
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.wait()
