"""The arguments of transformers' Trainer for a run, and whether this machine and its processes can have them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.utils import is_torch_bf16_gpu_available

from spectrim.errors import InvalidSetting
from spectrim.machine import process_count
from spectrim.training.optimiser import check_warmup
from spectrim.training.recipes import OptimiserSettings, ScheduleSettings
from spectrim.training.run_folder import CHECKPOINTS, CheckpointFolder


class RunArguments(TrainingArguments):
    """`TrainingArguments` of a run, by which a process uses one GPU.

    Trainer would spread a process over all GPUs that it sees, and multiply the batch by their number.
    """

    @property
    def n_gpu(self) -> int:
        """Number of GPUs that this process uses: one, or none."""
        return min(super().n_gpu, 1)


def resolve_precision(precision: str) -> str:
    """The precision that a recipe's word means on this machine; ``"auto"``: see `OptimiserSettings`."""
    if precision != "auto":
        return precision
    if torch.cuda.is_available() and torch.version.cuda is not None:
        return "fp16"
    return "bf16" if torch.accelerator.is_available() and is_torch_bf16_gpu_available() else "fp32"


def run_arguments(
    output: Path,
    optimiser: OptimiserSettings,
    schedule: ScheduleSettings,
    *,
    clips: int,
    every_epochs: float,
    first_epoch: float,
    evaluation_batch: int,
    metric: str | None,
    workers: int,
    seed: int,
) -> TrainingArguments:
    """Arguments of transformers' Trainer for a run.

    Args:
        output: folder of the run.
        optimiser: of the recipe.
        schedule: of the recipe.
        clips: in the training part.
        every_epochs: from an evaluation and checkpoint to the next.
        first_epoch: epochs before the first evaluation.
        evaluation_batch: clips in an evaluation's forward pass, over all processes.
        metric: the higher, the better a checkpoint; None to end with the last weights.
        workers: processes that load data.
        seed: of everything.

    Raises:
        InvalidSetting: the batch size does not split over the processes, an epoch holds no batch, the warm-up is longer
            than the run, or the precision is not to be had here.

    Trainer writes checkpoints to `CheckpointFolder.partial`; `WholeCheckpoints` moves them to their place.
    """
    check_batches(optimiser, clips)
    precision = resolve_precision(optimiser.precision)
    check_precision(precision)
    processes = process_count()
    per_epoch = steps_per_epoch(optimiser, clips)
    check_warmup(schedule, optimiser, math.ceil(optimiser.epochs * per_epoch))
    every = max(1, round(every_epochs * per_epoch))
    return RunArguments(
        output_dir=str(CheckpointFolder(output / CHECKPOINTS).partial),
        per_device_train_batch_size=optimiser.batch_size // (processes * optimiser.accumulate),
        per_device_eval_batch_size=max(1, evaluation_batch // processes),
        gradient_accumulation_steps=optimiser.accumulate,
        num_train_epochs=optimiser.epochs,
        max_grad_norm=optimiser.max_grad_norm,
        use_cpu=not torch.accelerator.is_available(),
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        **_evaluations(every, math.ceil(first_epoch * per_epoch - 1e-9), metric),
        logging_steps=max(1, min(50, per_epoch)),
        seed=seed,
        data_seed=seed,
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
        dataloader_num_workers=workers,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def _evaluations(every: int, delay: int, metric: str | None) -> dict[str, Any]:
    """Arguments of Trainer for an evaluation and a checkpoint every so many steps, of which the best may be the end."""
    return {
        "eval_strategy": "steps",
        "eval_steps": every,
        "eval_delay": delay,
        "save_strategy": "steps",
        "save_steps": every,
        "load_best_model_at_end": metric is not None,
        "metric_for_best_model": metric,
        "greater_is_better": None if metric is None else True,
    }


def steps_per_epoch(optimiser: OptimiserSettings, clips: int) -> int:
    """Optimiser steps in an epoch of so many clips."""
    batches = clips / optimiser.batch_size
    without_rest = process_count() > 1 or optimiser.drop_last
    return max(1, math.floor(batches) if without_rest else math.ceil(batches))


def check_batches(optimiser: OptimiserSettings, clips: int) -> None:
    """Raise `InvalidSetting` where batches do not split over the processes, or an epoch holds none.

    Args:
        optimiser: of the recipe.
        clips: in the training part.
    """
    processes = process_count()
    if optimiser.batch_size % (processes * optimiser.accumulate):
        allowed = f"a multiple of {processes} processes times optimiser.accumulate={optimiser.accumulate}"
        raise InvalidSetting("optimiser.batch_size", optimiser.batch_size, allowed)
    if (processes > 1 or optimiser.drop_last) and clips < optimiser.batch_size:
        allowed = f"up to the {clips} training clips, when the last batch of an epoch is left out"
        raise InvalidSetting("optimiser.batch_size", optimiser.batch_size, allowed)
    if processes > 1 and not optimiser.drop_last and clips % optimiser.batch_size:
        allowed = f"true with {processes} processes: they could not share the last batch without counting clips twice"
        raise InvalidSetting("optimiser.drop_last", optimiser.drop_last, allowed)


def check_precision(precision: str) -> None:
    """Raise `InvalidSetting` where a precision is not to be had on this machine."""
    if precision == "fp16" and not torch.cuda.is_available():
        raise InvalidSetting("optimiser.precision", "fp16", "fp32 or bf16 without a GPU")
    if precision == "bf16" and torch.accelerator.is_available() and not is_torch_bf16_gpu_available():
        raise InvalidSetting("optimiser.precision", "bf16", "fp32 or fp16 on this GPU")
