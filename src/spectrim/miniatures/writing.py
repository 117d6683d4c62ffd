"""Atomic, seeded writing of miniatures by several processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import wave
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from spectrim.errors import InvalidSetting
from spectrim.machine import core_count
from spectrim.miniatures.signals import SAMPLING_RATE

RECORD = "synthesis.json"
"""What a miniature says about how it was made: the function, its arguments, and what only the maker knows."""

CHUNK = 128
"""Clips that a worker makes at a time; fewer than four such chunks are not worth a worker's start."""

Progress = Callable[[int, int], None]
"""Called with (clips done, clips in all) from time to time."""

Job = TypeVar("Job")


@contextmanager
def whole_directory(target: Path) -> Iterator[Path]:
    """A directory beside ``target`` that takes its name at the end, or vanishes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = target.with_name(f".{target.name}.partial-{os.getpid()}")
    staging.mkdir()
    try:
        yield staging
        if target.is_dir():
            target.rmdir()
        staging.replace(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_absent(target: Path) -> None:
    """Refuse to write where something is already."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InvalidSetting("out", str(target), "a directory that does not exist yet or is empty")


def check_numbers(workers: int | None, **numbers: int) -> None:
    """Refuse negative numbers, named as the caller's arguments are, and less than one worker."""
    for field, value in numbers.items():
        if value < 0:
            raise InvalidSetting(field, value, "0 or more")
    if workers is not None and workers < 1:
        raise InvalidSetting("workers", workers, "1 or more")


def write_clips(
    write_chunk: Callable[[tuple[Path, Sequence[Job]]], int],
    root: Path,
    jobs: Sequence[Job],
    workers: int | None,
    progress: Progress | None,
) -> None:
    """Make clips, in processes where there are enough of them.

    Args:
        write_chunk: a module's function that makes the clips of some jobs below ``root`` and says how many.
        root: where they go.
        jobs: one for each clip, in any order; each holds all that its clip depends on.
        workers: processes; one for each core where None.
        progress: told after each chunk.
    """
    chunks = [(root, jobs[start : start + CHUNK]) for start in range(0, len(jobs), CHUNK)]
    workers = workers or core_count()
    done = 0
    if workers == 1 or len(chunks) < 4:
        for arguments in chunks:
            done += write_chunk(arguments)
            if progress is not None:
                progress(done, len(jobs))
        return
    with ProcessPoolExecutor(min(workers, len(chunks)), _worker_context(write_chunk.__module__)) as pool:
        for count in pool.map(write_chunk, chunks):
            done += count
            if progress is not None:
                progress(done, len(jobs))


def _worker_context(module: str) -> BaseContext:
    """Workers that import the module once for all of them where the system can, else each for itself."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    return context


def write_wav(path: Path, samples: NDArray[np.int16]) -> None:
    """Write 16-bit mono; libsndfile would flush each file to the disk, which takes longer than making it."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLING_RATE)
        file.writeframes(samples.astype("<i2").tobytes())


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Write a list, one entry a line."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8", newline="\n")


def write_record(root: Path, maker: str, facts: Mapping[str, Any]) -> None:
    """Write how a miniature was made."""
    text = json.dumps({"made_by": maker, **facts}, indent=1) + "\n"
    (root / RECORD).write_text(text, newline="\n")
