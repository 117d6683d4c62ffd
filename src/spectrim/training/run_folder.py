"""The folder of a training run: its settings and machine, and checkpoints with checksums.

A run's folder holds ``run.json`` (what was asked for), ``environment.json`` (machine, versions), ``metrics.jsonl`` and
``metrics.csv``, TensorBoard's ``tensorboard/``, and ``checkpoints/``.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

from spectrim.checkpoints import DescribedSource
from spectrim.checkpoints.untrusted import read_json
from spectrim.errors import InvalidSetting, shown
from spectrim.files import clear, file_digest, refuse_another_run, write_json
from spectrim.machine import environment, is_main_process, process_count
from spectrim.training.recipes import StrictSettings

CHECKPOINTS = "checkpoints"

CHECKSUMS = "whole.json"
"""Written last into a checkpoint: the size and SHA-256 of every file in it."""

WEIGHTS = "model.safetensors"
"""Where Trainer writes the weights in a checkpoint."""

TRAINER_STATE = "trainer_state.json"
"""Where transformers' Trainer writes its `TrainerState` in a checkpoint."""

NEWEST = 2
"""So many of the newest checkpoints are kept unless more are to be averaged, and the best."""

logger = logging.getLogger(__name__)


def check_run(
    run: Mapping[str, Any], output: Path, *, resume: bool, kind: type[StrictSettings] = StrictSettings
) -> None:
    """Make sure that a folder holds no run, or the one that is to be resumed.

    Args:
        run: all that determines the run, as JSON.
        output: the folder.
        resume: whether a run may be there.
        kind: of its recipe; see `begun_run`.

    Raises:
        InvalidSetting: ``output`` holds a run and ``resume`` is False, or holds another run or an unknown one.
    """
    if not is_main_process():
        return
    written = output / "run.json"
    if not resume:
        if written.exists() or any((output / CHECKPOINTS).glob("checkpoint-*")):
            allowed = "a folder without a run in it, or --resume to continue that run"
            raise InvalidSetting("output", str(output), allowed)
    elif written.is_file():
        refuse_another_run(run, begun_run(written, kind), output)
    elif any((output / CHECKPOINTS).glob("checkpoint-*")):
        allowed = "a folder with run.json, which says what its checkpoints are of"
        raise InvalidSetting("output", str(output), allowed)


def named_start(init: str | os.PathLike[str] | None) -> str | None:
    """The checkpoint that a run starts from as ``run.json`` says it, None for random weights.

    Raises:
        InvalidSetting: it is no place of a checkpoint, or says more than that, which belongs into the recipe.
    """
    if init is None:
        return None
    said = isinstance(init, DescribedSource) and DescribedSource(init.place) != init
    if said or not isinstance(init, str | os.PathLike):
        allowed = "a path or hub id; model.stride, model.frames and pruning in the recipe say the rest"
        raise InvalidSetting("init", init, allowed)
    return os.fspath(init)


def begun_run(written: Path, kind: type[StrictSettings]) -> dict[str, Any]:
    """Read what a run's ``run.json`` says; settings that have come to its kind of recipe since have their defaults.

    Raises:
        InvalidSetting: it says nothing of a run.
    """
    try:
        run = read_json(written)
    except ValueError as error:
        raise InvalidSetting("output", str(written.parent), f"a run whose run.json is valid JSON ({error})") from error
    if not isinstance(run, dict) or not isinstance(run.get("recipe", {}), dict):
        raise InvalidSetting("output", str(written.parent), "a run whose run.json says recipe, data and init")
    with suppress(ValidationError):
        run["recipe"] = kind(**run.get("recipe", {})).model_dump(mode="json")
    return run


def begin_run(run: Mapping[str, Any], output: Path) -> None:
    """Make a run's folder and write down what is run, and where."""
    if is_main_process():
        output.mkdir(parents=True, exist_ok=True)
        write_json(output / "run.json", run)
        write_json(output / "environment.json", {"processes": process_count(), **environment()})


def write_checksums(checkpoint: Path) -> None:
    """Write down the size and hash of every file of a checkpoint: from now on it is whole."""
    files = {path.name: _fingerprint(path) for path in sorted(checkpoint.iterdir()) if path.name != CHECKSUMS}
    write_json(checkpoint / CHECKSUMS, files)


def _fingerprint(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": file_digest(path)}


def flaw(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint on disk, None for a whole one."""
    try:
        files = read_json(checkpoint / CHECKSUMS)
    except (OSError, ValueError):
        files = None
    if not isinstance(files, dict) or not files:
        return f"it has no readable {CHECKSUMS}"
    for name, written in files.items():
        if Path(name).name != name:
            return f"its {CHECKSUMS} names {shown(name)}, outside of it"
        if not (checkpoint / name).is_file():
            return f"{name} is missing"
        if _fingerprint(checkpoint / name) != written:
            return f"{name} is not what was written"
    return None


@dataclass(frozen=True)
class CheckpointFolder:
    """The checkpoints of a run, each in a folder ``checkpoint-STEP``.

    Attributes:
        path: the folder around them.
        newest_kept: so many of the newest are kept, and the best.
    """

    path: Path
    newest_kept: int = NEWEST

    @property
    def partial(self) -> Path:
        """Where a checkpoint is written before it takes its place."""
        return self.path / ".partial"

    def checkpoint(self, step: int) -> Path:
        """Path of the checkpoint of a step."""
        return self.path / f"checkpoint-{step}"

    def written(self, step: int) -> Path:
        """Path of the checkpoint of a step as long as it is in `partial`."""
        return self.partial / f"checkpoint-{step}"

    def steps(self) -> list[int]:
        """The steps of which there is a checkpoint, whole or not, in their order."""
        numbers = (path.name.removeprefix("checkpoint-") for path in self.path.glob("checkpoint-*"))
        return sorted(int(number) for number in numbers if number.isdigit())

    def whole_steps(self) -> list[int]:
        """The steps of which there is a whole checkpoint, in their order."""
        return [step for step in self.steps() if flaw(self.checkpoint(step)) is None]

    def newest(self) -> Path | None:
        """The newest whole checkpoint; broken ones are named in the log and passed over."""
        for step in reversed(self.steps()):
            path = self.checkpoint(step)
            wrong = flaw(path)
            if wrong is None:
                return path
            logger.warning("%s is passed over: %s", path, wrong)
        return None

    def finish(self, step: int, best: int | None) -> None:
        """Move a checkpoint that has been written to `partial` to its place, whole, and remove old ones.

        Args:
            step: of the checkpoint.
            best: step of the checkpoint to keep beside the newest, or None.
        """
        written, place = self.written(step), self.checkpoint(step)
        write_checksums(written)
        shutil.rmtree(place, ignore_errors=True)
        written.rename(place)
        self.partial.rmdir()
        for old in self.steps()[: -self.newest_kept]:
            if old != best:
                shutil.rmtree(self.checkpoint(old), ignore_errors=True)

    def copy(self, checkpoint: Path) -> None:
        """Bring a checkpoint of another run here, whole; raises `OSError` where there is no room for it."""
        place = self.path / checkpoint.name
        for leftover in (self.partial, place):
            clear(leftover)
        self.partial.mkdir(parents=True)
        try:
            # File by file: what copytree raises of several names neither the reason nor the file as an OSError does.
            for file in sorted(checkpoint.rglob("*")):
                target = self.partial / file.relative_to(checkpoint)
                if file.is_dir():
                    target.mkdir()
                else:
                    shutil.copy2(file, target)
            self.partial.rename(place)
        finally:
            clear(self.partial)

    def clear_partial(self) -> None:
        """Remove what a run that was killed has left half-written."""
        clear(self.partial)


def average_weights(checkpoints: Sequence[Path]) -> dict[str, Tensor]:
    """The mean of the weights of some checkpoints, each of the dtype that it has in the first one.

    Args:
        checkpoints: folders with ``model.safetensors``; at least one.
    """
    first = load_file(checkpoints[0] / WEIGHTS)
    sums = {name: value.double() for name, value in first.items()}
    for checkpoint in checkpoints[1:]:
        for name, value in load_file(checkpoint / WEIGHTS).items():
            sums[name] += value.double()
    return {name: (total / len(checkpoints)).to(first[name].dtype) for name, total in sums.items()}
