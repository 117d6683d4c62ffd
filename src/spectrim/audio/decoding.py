"""Audio files decoded side by side in worker processes, so that a file that crashes a decoder costs only itself.

A worker is a bare Python that imports soundfile and soxr but no torch. It decodes one file at a time and sends each
window as it is cut, so it never holds a whole file. When a worker dies, the file that it was at is known: it gets
an error, and a new worker takes the next one. Plain subprocesses are used rather than `multiprocessing`, which would
import the caller's main module again in every worker.
"""

from __future__ import annotations

import atexit
import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack
from threading import Condition, Lock, Thread
from typing import Any, BinaryIO, TypeAlias

from spectrim.audio.files import Note, Window
from spectrim.errors import AudioError, SpectrimError, check_whole
from spectrim.machine import default_workers

Decode: TypeAlias = Callable[[str], Iterable[Window | Note]]
"""Takes a path, gives its windows and notes or raises `AudioError`. It must be picklable by name: a function of a
module."""

Event: TypeAlias = Window | Note | AudioError | None
"""A window of a file, or a note on it, or what is wrong with the file, or None at its end."""

LOOK_AHEAD = 1 << 23
"""Samples that may wait to be taken: 32 MiB of float32."""

POLL_SECONDS = 1.0
LAST_WORDS_SECONDS = 5.0

_BOOT = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from spectrim.audio.decoding import serve; serve()"
)
_DEAD = (EOFError, OSError, pickle.UnpicklingError)


def decode_files(
    paths: Sequence[str], decode: Decode, *, workers: int | None = None, look_ahead: int = LOOK_AHEAD
) -> Generator[tuple[int, Event]]:
    """Decode files in worker processes and give what comes of them in the order of ``paths``.

    Args:
        paths: the files.
        decode: cuts one file into windows, in a worker.
        workers: processes; None for `spectrim.machine.default_workers`.
        look_ahead: samples that may wait to be taken, over all files. A window beyond that waits in its worker until
            the caller asks for it.

    Yields:
        (index in ``paths``, event): the windows and notes of a file, then None; or an `AudioError`, also after
        some windows. Closing the generator ends the workers.

    Raises:
        InvalidSetting: ``workers`` or ``look_ahead`` is no whole number from 1.
        SpectrimError: workers cannot be started here.
    """
    count = default_workers() if workers is None else workers
    check_whole("workers", count)
    check_whole("look_ahead", look_ahead)
    crew = [DecodingProcess(decode) for _ in range(min(count, len(paths)))]
    return _in_order(_Desk(paths, look_ahead, len(crew)), crew)


def _in_order(desk: _Desk, crew: Sequence[DecodingProcess]) -> Generator[tuple[int, Event]]:
    threads = [Thread(target=_supervise, args=(worker, desk), daemon=True) for worker in crew]

    def end() -> None:
        desk.close()
        for worker in crew:
            worker.stop()
        for thread, worker in zip(threads, crew, strict=True):
            thread.join()
            worker.clear_away()

    # Also when the caller's program ends without closing this generator.
    atexit.register(end)
    for thread in threads:
        thread.start()
    try:
        for index in range(len(desk.paths)):
            while isinstance(event := desk.take(index), Window | Note):
                yield index, event
            yield index, event
    finally:
        atexit.unregister(end)
        end()


def _supervise(worker: DecodingProcess, desk: _Desk) -> None:
    """Give one worker file after file, until there are none or nobody wants them; runs in a thread."""
    try:
        while (index := desk.next_index()) is not None:
            for event in worker.decode(desk.paths[index]):
                if not desk.put(index, event):
                    return
    except Exception as error:
        desk.fail(error)
    finally:
        desk.leave()


class _Desk:
    """Where supervisors lay events and the caller takes them: bounded in samples, first file first."""

    def __init__(self, paths: Sequence[str], look_ahead: int, supervisors: int) -> None:
        self.paths = paths
        self._look_ahead = look_ahead
        self._supervisors = supervisors
        self._waiting: dict[int, deque[Event]] = {}
        self._given_out = 0
        self._head = 0
        self._held = 0
        self._failure: Exception | None = None
        self._closed = False
        self._changed = Condition()

    def next_index(self) -> int | None:
        """The next file to decode; None if there is none."""
        with self._changed:
            if self._closed or self._given_out == len(self.paths):
                return None
            index = self._given_out
            self._given_out += 1
            return index

    def put(self, index: int, event: Event) -> bool:
        """Lay down an event, once there is room or the caller waits for just this file; False if nobody wants it."""
        size = _samples(event)
        with self._changed:
            waiting = self._waiting.setdefault(index, deque())
            self._changed.wait_for(
                lambda: self._closed or self._held + size <= self._look_ahead or (index == self._head and not waiting)
            )
            if self._closed:
                return False
            waiting.append(event)
            self._held += size
            self._changed.notify_all()
            return True

    def take(self, index: int) -> Event:
        """Wait for the next event of a file."""
        with self._changed:
            self._head = index
            self._changed.notify_all()
            while not self._waiting.get(index):
                if self._failure is not None:
                    raise self._failure
                if self._supervisors == 0:
                    raise SpectrimError(f"{self.paths[index]}: decoding stopped before this file")
                self._changed.wait(POLL_SECONDS)
            event = self._waiting[index].popleft()
            self._held -= _samples(event)
            if not isinstance(event, Window | Note):
                del self._waiting[index]
            self._changed.notify_all()
            return event

    def fail(self, error: Exception) -> None:
        """Have the caller raise this as soon as it waits."""
        with self._changed:
            self._failure = error
            self._changed.notify_all()

    def leave(self) -> None:
        """Note that a supervisor has ended."""
        with self._changed:
            self._supervisors -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let every supervisor end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def _samples(event: Event) -> int:
    return len(event.samples) if isinstance(event, Window) else 0


class DecodingProcess:
    """A worker process, started when first needed and again after it died; used by one thread, stopped by another.

    Args:
        decode: cuts one file into windows, in the worker.
    """

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._process: subprocess.Popen[bytes] | None = None
        self._log: Any = None
        self._log_before = 0
        self._stopped = False
        self._starting = Lock()

    def decode(self, path: str) -> Iterator[Event]:
        """Yield the events of a file, of which the last is None or an `AudioError`; fewer once it is stopped."""
        process = self._process or self._start()
        if process is None:
            return
        self._log_before = os.fstat(self._log.fileno()).st_size
        try:
            _send(process.stdin, path)
            while isinstance(event := _receive(process.stdout), Window | Note):
                yield event
        except _DEAD:
            event = AudioError(path, f"crashed the decoder ({self._bury(process)})")
        yield event

    def stop(self) -> None:
        """End the process for good; what waits for it sees the end of its pipe."""
        with self._starting:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def clear_away(self) -> None:
        """Close what is left of the process, if there is one."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                _close(pipe)
            self._log.close()

    def _start(self) -> subprocess.Popen[bytes] | None:
        """Start the process, in a group of its own so that Ctrl-C does not reach it; None after `stop`."""
        with self._starting:
            if self._stopped:
                return None
            try:
                process = self._process = self._launch()
            except OSError as error:
                raise SpectrimError(
                    f"a decoding process cannot be started ({error}): use fewer workers, or raise what this machine "
                    "allows of processes, open files and temporary files"
                ) from error
        try:
            _send(process.stdin, sys.path)
            _send(process.stdin, self._decode)
            _receive(process.stdout)
        except _DEAD as error:
            why = self._bury(process)
            if self._stopped:
                return None
            raise SpectrimError(f"a decoding process cannot be started ({why})") from error
        return process

    def _launch(self) -> subprocess.Popen[bytes]:
        """A new process whose standard error goes into a new temporary file."""
        with ExitStack() as whole:
            log = whole.enter_context(tempfile.TemporaryFile())
            process = subprocess.Popen(
                [sys.executable, "-c", _BOOT],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                process_group=0 if os.name == "posix" else None,
            )
            self._log, self._log_before = log, 0
            whole.pop_all()
        return process

    def _bury(self, process: subprocess.Popen[bytes]) -> str:
        """Clear away a dead process and say in a few words what it died of."""
        try:
            code = process.wait(LAST_WORDS_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        cause = signal.strsignal(-code) or f"signal {-code}" if code < 0 else f"exit code {code}"
        self._log.seek(self._log_before)
        lines = [line.strip() for line in self._log.read().decode(errors="replace").splitlines()]
        words = [line for line in lines if line]
        self.clear_away()
        return f"{cause}: {words[-1]}" if words else cause


def _send(pipe: BinaryIO | Any, item: Any) -> None:
    pickle.dump(item, pipe, pickle.HIGHEST_PROTOCOL)
    pipe.flush()


def _receive(pipe: BinaryIO | Any) -> Any:
    return pickle.load(pipe)


def _close(pipe: BinaryIO | Any) -> None:
    """Close a pipe; what a dead process did not read is lost."""
    try:
        pipe.close()
    except OSError:
        return


def serve() -> None:
    """Be a worker: paths come in on stdin, events go out on what was stdout; whatever prints goes nowhere."""
    with os.fdopen(os.dup(1), "wb") as out, open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 1)
        decode: Decode = _receive(sys.stdin.buffer)
        try:
            _send(out, None)
            while True:
                _serve_file(decode, _receive(sys.stdin.buffer), out)
        except (EOFError, BrokenPipeError):
            os._exit(0)


def _serve_file(decode: Decode, path: str, out: BinaryIO) -> None:
    try:
        for event in decode(path):
            _send(out, event)
    except AudioError as error:
        _send(out, error)
    else:
        _send(out, None)
