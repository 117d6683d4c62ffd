"""A run in the words of transformers' Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from spectrim.errors import InvalidSetting
from spectrim.training.recipes import OptimiserSettings, ScheduleSettings
from spectrim.training.run_arguments import resolve_precision, run_arguments


def arguments(tmp_path: Path, clips: int = 100, settings: dict[str, Any] | None = None, **changes: Any) -> Any:
    given: dict[str, Any] = {
        "every_epochs": 1,
        "first_epoch": 0,
        "evaluation_batch": 20,
        "metric": "eval_accuracy",
        "workers": 0,
        "seed": 3,
    }
    optimiser = OptimiserSettings(**{"batch_size": 20, "epochs": 6, **(settings or {})})
    schedule = ScheduleSettings(**changes.pop("schedule", {}))
    return run_arguments(tmp_path, optimiser, schedule, clips=clips, **{**given, **changes})


@pytest.mark.parametrize(
    ("clips", "settings", "every", "first", "steps", "delay"),
    [
        (100, {}, 1, 0, 5, 0),
        (101, {}, 1, 0, 6, 0),
        (101, {"drop_last": True}, 1, 0, 5, 0),
        (100, {"accumulate": 4}, 2, 3, 10, 15),
        (119, {"accumulate": 4, "drop_last": True}, 2, 3, 10, 15),
        (101, {}, 0.5, 2.5, 3, 15),
        (101, {}, 0.01, 1.1, 1, 7),
        (10, {}, 1, 6, 1, 6),
        (30, {}, 1, 0.7, 2, 2),
    ],
)
def test_epochs_become_steps(
    clips: int, settings: dict[str, Any], every: float, first: float, steps: int, delay: int, tmp_path: Path
) -> None:
    made = arguments(tmp_path, clips, settings, every_epochs=every, first_epoch=first)
    assert (made.eval_steps, made.save_steps, made.eval_delay) == (steps, steps, delay)


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ({"warmup_steps": 31}, r"schedule\.warmup_steps is 31; allowed: up to the 30 steps of 6 epochs"),
        ({"warmup_steps": 30, "warmup_form": "stairs"}, r"warmup_form is 'stairs'; .* is 0 in all the 30 steps of 6"),
        ({"warmup_epochs": 6, "warmup_form": "stairs"}, r"warmup_form is 'stairs'; .* is 0 in all the 30 steps of 6"),
    ],
)
def test_a_warm_up_without_an_end_in_the_run_is_refused(schedule: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=words):
        arguments(tmp_path, schedule=schedule)
    for form in ("rising", "from_zero"):
        arguments(tmp_path, schedule={"warmup_steps": 30, "warmup_form": form})
    arguments(tmp_path, schedule={"warmup_steps": 29, "warmup_form": "stairs"})


def test_the_recipe_s_settings_arrive(tmp_path: Path) -> None:
    made = arguments(tmp_path, settings={"accumulate": 2, "max_grad_norm": 0.5, "precision": "bf16"}, workers=0)
    assert (made.per_device_train_batch_size, made.gradient_accumulation_steps) == (10, 2)
    assert (made.num_train_epochs, made.max_grad_norm, made.bf16, made.fp16) == (6, 0.5, True, False)
    assert (made.seed, made.data_seed) == (3, 3)
    assert (made.metric_for_best_model, made.load_best_model_at_end) == ("eval_accuracy", True)
    last = arguments(tmp_path, metric=None)
    assert (last.metric_for_best_model, last.load_best_model_at_end) == (None, False)


@pytest.mark.parametrize(
    ("clips", "settings", "processes", "words"),
    [
        (100, {"batch_size": 20, "accumulate": 4}, 2, "optimiser.batch_size is 20; allowed: a multiple of 2 proc.*=4"),
        (100, {"batch_size": 9}, 2, "optimiser.batch_size is 9; allowed: a multiple of 2 processes"),
        (12, {"drop_last": True}, 1, "optimiser.batch_size is 20; allowed: up to the 12 training clips"),
        (12, {}, 2, "optimiser.batch_size is 20; allowed: up to the 12 training clips"),
        (105, {}, 2, "optimiser.drop_last is False; allowed: true with 2 processes"),
        (100, {"precision": "fp16"}, 1, "optimiser.precision is 'fp16'; allowed: fp32 or bf16 without a GPU"),
    ],
)
def test_what_cannot_be_run_is_named(
    clips: int,
    settings: dict[str, Any],
    processes: int,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("WORLD_SIZE", str(processes))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidSetting, match=words):
        arguments(tmp_path, clips, settings)
    assert not list(tmp_path.iterdir())


def test_bf16_is_refused_on_a_gpu_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr("spectrim.training.run_arguments.is_torch_bf16_gpu_available", lambda: False)
    with pytest.raises(InvalidSetting, match=r"optimiser\.precision is 'bf16'; allowed: fp32 or fp16 on this GPU"):
        arguments(tmp_path, settings={"precision": "bf16"})


def test_a_process_uses_one_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda self: self.__dict__.get("_n_gpu", 4)))
    monkeypatch.setattr(TrainingArguments, "_setup_devices", torch.device("cpu"))
    made = arguments(tmp_path)
    assert (made.n_gpu, made.train_batch_size) == (1, 20)


@pytest.mark.parametrize(
    ("cuda", "other", "expected"), [(False, False, "fp32"), (True, False, "fp16"), (False, True, "bf16")]
)
def test_the_precision_of_a_recipe_that_leaves_it_open(
    cuda: bool, other: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr("torch.version.cuda", "12.8" if cuda else None)
    monkeypatch.setattr("torch.accelerator.is_available", lambda: cuda or other)
    monkeypatch.setattr("spectrim.training.run_arguments.is_torch_bf16_gpu_available", lambda: other)
    assert resolve_precision("auto") == expected
    assert resolve_precision("bf16") == "bf16"
