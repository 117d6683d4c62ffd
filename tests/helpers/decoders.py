"""Decode functions for worker processes: some die or never end, others do what the test needs."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from spectrim.audio.files import Window, iterate_windows


def decode(path: str, **options: Any) -> Iterator[Window]:
    windows = iterate_windows(path, **options) if options else iterate_windows(path, 1.0)
    name = Path(path).name
    sys.stdout.write("a decoder that prints\n")
    sys.stdout.flush()
    if name.startswith("segfault"):
        os.kill(os.getpid(), signal.SIGSEGV)
    if name.startswith("killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    if name.startswith("abort"):
        sys.stderr.write("free(): invalid pointer\n")
        sys.stderr.flush()
        os.abort()
    if name.startswith("exit"):
        os._exit(7)
    if name.startswith("bug"):
        raise ZeroDivisionError("of the decoder")
    if name.startswith("late"):
        yield next(windows)
        os.kill(os.getpid(), signal.SIGSEGV)
    yield from windows


def endless(path: str, **_: Any) -> Iterator[Window]:
    """Windows of a file of any length, numbered by their first sample."""
    for number in range(1_000_000):
        yield Window(float(number), np.full(16000, number, np.float32))


def numbered(path: str, **_: Any) -> Iterator[Window]:
    """As many windows as the file's name says."""
    for number in range(int(Path(path).stem)):
        yield Window(float(number), np.sin(np.arange(20720, dtype=np.float32) * (number + 1)))
