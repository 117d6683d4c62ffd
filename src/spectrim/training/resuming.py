"""What a run goes on from is checked before Trainer reads it: kinds, names, shapes and values are those of this run.

Trainer takes a checkpoint's files as they are: what is missing stays at its start, what is unknown becomes an
attribute. Here both are refused, by file, and no code that a file may hold is run.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers import PreTrainedConfig, TrainerState

from spectrim.checkpoints.files import UNREADABLE, named_code
from spectrim.checkpoints.untrusted import one_line, read_json
from spectrim.errors import CheckpointError, brief, shown
from spectrim.training.random_state import RANDOM_GLOBALS, check_random_state
from spectrim.training.run_folder import CHECKSUMS, TRAINER_STATE, WEIGHTS

OPTIMISER, SCHEDULE, SCALER, CONFIG = "optimizer.pt", "scheduler.pt", "scaler.pt", "config.json"

KNOWN_FILES = {
    *(CHECKSUMS, CONFIG, OPTIMISER, SCALER, SCHEDULE, TRAINER_STATE, WEIGHTS),
    *("preprocessor_config.json", "training_args.bin"),
}
"""What a run writes into a checkpoint, states of random generators apart. ``training_args.bin`` is never read."""

MOST_PICKLED = 64 * 2**20
"""Bytes of the pickle inside a torch file, its tensors apart."""

_STATE_KINDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("global_step", "max_steps", "logging_steps", "eval_steps", "save_steps", "num_train_epochs"), int),
    **dict.fromkeys(("epoch", "total_flos"), (int, float)),
    "num_input_tokens_seen": int,
    "log_history": list,
    "train_batch_size": (int, type(None)),
    "best_metric": (int, float, type(None)),
    "best_global_step": (int, type(None)),
    "best_model_checkpoint": (str, type(None)),
    "stateful_callbacks": (dict, type(None)),
    **dict.fromkeys(("trial_name", "trial_params"), type(None)),
    **dict.fromkeys(("is_local_process_zero", "is_world_process_zero", "is_hyper_param_search"), bool),
}
_SCHEDULE_KEYS = ("base_lrs", "last_epoch", "_step_count", "_last_lr", "lr_lambdas")
_ADAM_STATE = ("step", "exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class Course:
    """What a run expects of a checkpoint of its own.

    Attributes:
        optimiser: as it is before the first step.
        schedule: of this optimiser, likewise.
        steps: name in `TrainerState` → so many: max_steps, logging_steps, eval_steps, save_steps.
        steps_per_epoch: optimiser steps in an epoch.
        random_file: where this process's random state is.
        scaled: whether the loss is scaled (fp16).
    """

    optimiser: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    steps: Mapping[str, int]
    steps_per_epoch: int
    random_file: str
    scaled: bool


def check_checkpoint(checkpoint: Path, model: torch.nn.Module, course: Course) -> None:
    """Make sure that a whole checkpoint is one of this run.

    Args:
        checkpoint: its folder, ``checkpoint-STEP``.
        model: of the run, with any weights.
        course: of the run.

    Raises:
        CheckpointError: one of its files is none that this run writes; says which, and what is wrong.
    """
    for path in sorted(checkpoint.iterdir()):
        random = path.name.startswith("rng_state") and path.name.endswith(".pth")
        if path.name not in KNOWN_FILES and not random and not path.name.startswith("."):
            raise _refused(path, "no run writes this into a checkpoint")
    for name in (WEIGHTS, TRAINER_STATE, OPTIMISER, SCHEDULE):
        if not (checkpoint / name).is_file():
            raise _refused(checkpoint / name, "it is missing")
    _check_config(checkpoint / CONFIG)
    check_weights(checkpoint / WEIGHTS, model)
    step = _check_state(checkpoint, course)
    _check_optimiser(checkpoint / OPTIMISER, course, step)
    _check_schedule(checkpoint / SCHEDULE, course, step)
    _check_scaler(checkpoint / SCALER, course.scaled)
    random_file = checkpoint / course.random_file
    if not random_file.is_file():
        raise _refused(random_file, "it is missing; a run goes on with as many processes as it began with")
    wrong = check_random_state(read_tensors(random_file, RANDOM_GLOBALS))
    if wrong is not None:
        raise _refused(random_file, wrong)


def check_weights(file: Path, model: torch.nn.Module) -> None:
    """Raise `CheckpointError` unless a file holds finite values for all of a model's weights, and nothing else."""
    expected = model.state_dict()
    try:
        with safe_open(file, framework="pt") as tensors:
            names = set(tensors.keys())
            if names != expected.keys():
                lacking = [f"{name} is missing" for name in sorted(expected.keys() - names)]
                foreign = [f"{name} is none of this model's" for name in sorted(names - expected.keys())]
                raise _refused(file, f"weights are not those of the model: {shown('; '.join(lacking + foreign))}")
            for name, weight in expected.items():
                there = tensors.get_slice(name)
                if list(there.get_shape()) != list(weight.shape):
                    raise _refused(file, f"{name} has the shape {there.get_shape()}, not {list(weight.shape)}")
                value = tensors.get_tensor(name)
                if value.is_floating_point() != weight.is_floating_point() or not bool(torch.isfinite(value).all()):
                    raise _refused(file, f"{name} holds values that are no finite numbers of {weight.dtype}")
    except UNREADABLE as error:
        raise _refused(file, f"it cannot be read ({one_line(error)})") from error


def read_state(checkpoint: Path) -> TrainerState:
    """Read a checkpoint's ``trainer_state.json``.

    Raises:
        CheckpointError: it is no such thing, or of the wrong types.
    """
    file = checkpoint / TRAINER_STATE
    try:
        content = read_json(file)
    except (ValueError, OSError) as error:
        raise _refused(file, f"it is not valid JSON ({one_line(error)})") from error
    if not isinstance(content, dict):
        raise _refused(file, f"it holds {brief(content)}, not an object")
    known = {field.name for field in fields(TrainerState)}
    for name, value in content.items():
        kind = _STATE_KINDS.get(name)
        if name not in known or kind is None:
            raise _refused(file, f"{shown(name)} is no field of it")
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise _refused(file, f"{name} is {brief(value)}")
    for name in ("global_step", "epoch", "max_steps"):
        if not 0 <= content.get(name, -1) < 2**53:
            raise _refused(file, f"{name} is {brief(content.get(name))}")
    for row in content.get("log_history", ()):
        numbers = isinstance(row, dict) and all(isinstance(value, int | float) for value in row.values())
        if not numbers or not isinstance(row.get("step"), int) or not 0 <= row["step"] <= content["global_step"]:
            raise _refused(file, f"log_history holds {brief(row)}")
    return TrainerState(**content)


def _check_state(checkpoint: Path, course: Course) -> int:
    """Check that a state is of this run; returns the steps done."""
    file, state = checkpoint / TRAINER_STATE, read_state(checkpoint)
    done = state.global_step
    if checkpoint.name != f"checkpoint-{done}" or done < 1:
        raise _refused(file, f"global_step is {done} in {checkpoint.name}")
    for name, expected in course.steps.items():
        if getattr(state, name) != expected:
            why = "; the data set is not what it was" if name == "max_steps" else ""
            raise _refused(file, f"{name} is {getattr(state, name)}, and {expected} in this run{why}")
    if done > state.max_steps or abs(state.epoch * course.steps_per_epoch - done) > 1:
        raise _refused(file, f"epoch is {state.epoch} after {done} of {state.max_steps} steps")
    best = state.best_global_step
    if best is not None and not (1 <= best <= done and state.best_metric is not None):
        raise _refused(file, f"best_global_step is {best}, with {state.best_metric} as best_metric")
    return done


def _check_config(file: Path) -> None:
    """Trainer looks up who wrote a checkpoint's configuration, so that it has to be one."""
    try:
        content = read_json(file)
        if not isinstance(content, dict):
            raise _refused(file, f"it holds {brief(content)}, not an object")
        PreTrainedConfig.from_dict(content)
    except UNREADABLE as error:
        raise _refused(file, f"it is no configuration ({one_line(error)})") from error


def read_tensors(file: Path, further: Sequence[Any] = ()) -> Any:
    """Read what `torch.save` wrote, by tensors and plain containers alone.

    Args:
        file: to read.
        further: functions and types that its pickle may name besides.

    Raises:
        CheckpointError: it is none, would run code, or hides how large it is.
    """
    try:
        if not zipfile.is_zipfile(file):
            raise _refused(file, "it is damaged, cut short, or not written by torch.save")
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise _refused(file, "it is compressed, as torch.save writes none")
        if any(member.filename.endswith(".pkl") and member.file_size > MOST_PICKLED for member in members):
            raise _refused(file, f"its pickle is larger than {MOST_PICKLED:,} bytes")
        with torch.serialization.safe_globals(list(further)):
            return torch.load(file, map_location="cpu", weights_only=True)
    except (*UNREADABLE, RecursionError, NotImplementedError) as error:
        code = named_code(error)
        if code is not None:
            raise _refused(file, f"its pickle holds {code}, which is not run") from error
        raise _refused(file, f"it cannot be read; it is damaged or cut short ({one_line(error)})") from error


def _check_optimiser(file: Path, course: Course, step: int) -> None:
    content, groups = read_tensors(file), course.optimiser.state_dict()["param_groups"]
    if not isinstance(content, dict) or set(content) != {"state", "param_groups"}:
        raise _refused(file, "it is no optimiser's state")
    found = content["param_groups"]
    if not isinstance(found, list) or len(found) != len(groups):
        raise _refused(file, f"param_groups is {brief(found)}, not the {len(groups)} groups of this run")
    for number, (group, expected) in enumerate(zip(found, groups, strict=True)):
        if not isinstance(group, dict):
            raise _refused(file, f"param_groups[{number}] is {brief(group)}")
        for name, value in expected.items():
            there = group.get(name)
            if name == "lr":
                if not _is_number(there):
                    raise _refused(file, f"param_groups[{number}].lr is {brief(there)}")
            elif not _same(there, value):
                raise _refused(file, f"param_groups[{number}].{name} is {brief(there)}, and {brief(value)} in this run")
    parameters = [weight for group in course.optimiser.param_groups for weight in group["params"]]
    if not isinstance(content["state"], dict) or not content["state"]:
        raise _refused(file, f"state is {brief(content['state'])}")
    storages: set[int] = set()
    for number, moments in content["state"].items():
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(parameters):
            raise _refused(file, f"state has an entry {brief(number)} of {len(parameters)} parameters")
        wrong = _wrong_moments(moments, parameters[number], step, storages)
        if wrong is not None:
            raise _refused(file, f"state[{number}]{wrong}")


def _wrong_moments(moments: Any, parameter: Tensor, step: int, storages: set[int]) -> str | None:
    """What is wrong with Adam's moments of a parameter, or None; ``storages`` collects where tensors lie."""
    if not isinstance(moments, dict) or set(moments) != set(_ADAM_STATE):
        return f" is {brief(moments)}, not {', '.join(_ADAM_STATE)}"
    for name, value in moments.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided:
            return f".{name} is {brief(value)}, not a tensor"
        wanted = torch.Size() if name == "step" else parameter.shape
        if value.shape != wanted or not value.is_floating_point() or value.requires_grad:
            return f".{name} is {value.dtype} of shape {shown(str(tuple(value.shape)))}, not {tuple(wanted)}"
        place = value.untyped_storage().data_ptr()
        if not value.is_contiguous() or place in storages:
            return f".{name} shares its memory with others"
        storages.add(place)
        if not bool(torch.isfinite(value).all()) or (name != "exp_avg" and bool((value < 0).any())):
            return f".{name} holds values that cannot be"
    if not 1 <= moments["step"].item() <= step:
        return f".step is {moments['step'].item():g} after {step} steps"
    return None


def _check_schedule(file: Path, course: Course, step: int) -> None:
    content, fresh = read_tensors(file), course.schedule.state_dict()
    if not isinstance(content, dict) or not set(_SCHEDULE_KEYS) <= content.keys() <= fresh.keys():
        raise _refused(file, "it is no schedule's state")
    for name, expected in fresh.items():
        if name in content and name not in ("last_epoch", "_step_count", "_last_lr"):
            there = content[name]
            right = isinstance(there, bool) if isinstance(expected, bool) else _same(there, expected)
            if not right:
                raise _refused(file, f"{name} is {brief(there)}, and {brief(expected)} in this run")
    moved, count, rates = content["last_epoch"], content["_step_count"], content["_last_lr"]
    # A step whose gradients overflowed in half precision does not move the schedule.
    if not _is_whole(moved) or not _is_whole(count) or not (0 if course.scaled else step) <= moved <= step:
        raise _refused(file, f"last_epoch is {brief(moved)} and _step_count {brief(count)} after {step} steps")
    expected_rates = [
        base * share(moved) for base, share in zip(fresh["base_lrs"], course.schedule.lr_lambdas, strict=True)
    ]
    right = isinstance(rates, list) and len(rates) == len(expected_rates) and all(map(_is_number, rates))
    if not right or not all(map(_close, rates, expected_rates)):
        raise _refused(file, f"_last_lr is {brief(rates)}, and {brief(expected_rates)} in this run after {moved} steps")


def _check_scaler(file: Path, scaled: bool) -> None:
    if not file.exists():
        return
    if not scaled:
        raise _refused(file, "this run does not scale its loss")
    content = read_tensors(file)
    names = {"scale", "growth_factor", "backoff_factor", "growth_interval", "_growth_tracker"}
    if not isinstance(content, dict) or set(content) != names or not all(map(_is_number, content.values())):
        raise _refused(file, f"it is {brief(content)}, not the scale of a loss")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value >= 0


def _close(found: float, expected: float) -> bool:
    return math.isclose(found, expected, rel_tol=1e-6, abs_tol=1e-12)


def _same(found: Any, expected: Any) -> bool:
    """Whether a plain value is another, of the same type, and so within a list or tuple."""
    if isinstance(expected, list | tuple):
        alike = type(found) is type(expected) and len(found) == len(expected)
        return alike and all(map(_same, found, expected))
    return type(found) is type(expected) and bool(found == expected)


def _refused(file: Path, what: str) -> CheckpointError:
    text = " ".join(what.split())
    return CheckpointError(
        f"{file}: {text}; the run does not go on from it. Remove the folder {file.parent.name}, and --resume takes the "
        "checkpoint before it"
    )
