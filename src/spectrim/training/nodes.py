"""What the processes of a run have to have in common, on whichever nodes they are."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from spectrim.data import AudioDataset
from spectrim.data.dataset import clips_digest
from spectrim.errors import DataError, InvalidSetting
from spectrim.machine import process_count

PATIENCE = 10
"""Seconds that a file of another node may take to be seen."""


def check_nodes(output: Path, parts: Iterable[AudioDataset]) -> None:
    """Make sure that all processes see one folder of the run and the same clips, before any work.

    Args:
        output: folder of the run; the first process makes it.
        parts: of the data set.

    Raises:
        InvalidSetting: a process does not see what the first one writes into ``output``.
        DataError: a process sees other clips than the first one.
    """
    if process_count() == 1:
        return
    state = PartialState()
    mark = output / f".{broadcast_object_list([secrets.token_hex(8)])[0]}.shared"
    if state.is_main_process:
        output.mkdir(parents=True, exist_ok=True)
        mark.touch()
    digest = hashlib.sha256("".join(clips_digest(part.recordings) for part in parts).encode()).hexdigest()
    state.wait_for_everyone()
    seen = gather_object([(_appears(mark), digest)])
    if state.is_main_process:
        mark.unlink()
    refuse_apart(output, seen)


def refuse_apart(output: Path, seen: Sequence[tuple[bool, str]]) -> None:
    """Refuse processes that do not see the same.

    Args:
        output: folder of the run.
        seen: of each process, whether it sees what the first one has written there, and a digest of its clips.

    Raises:
        InvalidSetting, DataError: see `check_nodes`.
    """
    for number, (there, digest) in enumerate(seen):
        if not there:
            allowed = f"a folder that all nodes share; process {number} does not see what process 0 has written there"
            raise InvalidSetting("output", str(output), allowed)
        if digest != seen[0][1]:
            raise DataError(f"process {number} has other clips than process 0: --data must hold the same on every node")


def _appears(path: Path) -> bool:
    """Whether a file is there, or will be soon."""
    for _ in range(PATIENCE):
        if path.exists():
            return True
        time.sleep(1)
    return path.exists()
