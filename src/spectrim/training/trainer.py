"""transformers' Trainer for a run: optimiser and schedule, atomic checkpoints, early stop.

Only public methods of transformers' Trainer are overridden; ``tests/training/test_trainer.py`` names the one that goes.
"""

from __future__ import annotations

import importlib.util
import logging
import math
from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import PartialState
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, Sampler
from transformers import PrinterCallback, Trainer, TrainerCallback
from transformers.integrations import TensorBoardCallback

from spectrim.errors import MissingExtra, TrainingDiverged
from spectrim.machine import is_main_process
from spectrim.training.optimiser import build_optimiser, build_schedule
from spectrim.training.recipes import OptimiserSettings, ScheduleSettings
from spectrim.training.resuming import Course, check_checkpoint, check_weights
from spectrim.training.run_folder import NEWEST, TRAINER_STATE, WEIGHTS, CheckpointFolder, flaw

STEP_COUNTS = ("logging_steps", "eval_steps", "save_steps")
"""Names of `TrainerState` and `TrainingArguments`."""

logger = logging.getLogger(__name__)


def _not_about_missing_samples(record: logging.LogRecord) -> bool:
    """Whether a line of Trainer's log is not the one that wonders why a finished run gets no batch."""
    return "not to be a single sample" not in record.getMessage()


class RunTrainer(Trainer):
    """Trainer with a recipe's optimiser and schedule, and an end to a loss that is no number.

    Evaluations draw nothing from the generator that training draws from: how often a run is evaluated does not change
    what becomes of it.

    Args:
        optimiser_settings: of the recipe.
        schedule_settings: of the recipe.
        checkpoints_kept: how many of the newest.

    Attributes:
        highest_rate: the highest of all layers' learning rates in the newest step.
    """

    optimizer: torch.optim.Optimizer | None
    lr_scheduler: torch.optim.lr_scheduler.LRScheduler | None

    def __init__(
        self,
        *args: Any,
        optimiser_settings: OptimiserSettings,
        schedule_settings: ScheduleSettings,
        checkpoints_kept: int = NEWEST,
        **kwargs: Any,
    ) -> None:
        self.optimiser_settings = optimiser_settings
        self.schedule_settings = schedule_settings
        self.highest_rate = 0.0
        super().__init__(*args, **kwargs)
        self.remove_callback(PrinterCallback)
        self.add_callback(OwnDraws())
        self.add_callback(WholeCheckpoints(CheckpointFolder(Path(self.args.output_dir).parent, checkpoints_kept)))

    @property
    def depth(self) -> int | None:
        """Number of blocks that a layer-wise decay of the rate counts."""
        return getattr(self.model.config, "num_hidden_layers", None)

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """The recipe's optimiser."""
        if self.optimizer is None:
            named = self.model.named_parameters()
            self.optimizer = build_optimiser(named, self.optimiser_settings, self.depth)
        return self.optimizer

    def check_checkpoint(self, checkpoint: Path) -> None:
        """Make sure that this run can go on from a checkpoint; see `spectrim.training.resuming.check_checkpoint`."""
        settings, sampler = self.optimiser_settings, cast(Sized, self.train_sampler())
        per_epoch = max(1, math.ceil(len(sampler) / settings.batch_size))
        steps = math.ceil(self.args.num_train_epochs * per_epoch)
        optimiser = build_optimiser(self.model.named_parameters(), settings, self.depth)
        alone = self.args.world_size == 1
        course = Course(
            optimiser,
            build_schedule(optimiser, self.schedule_settings, settings, steps),
            {"max_steps": steps, **{name: int(getattr(self.args, name)) for name in STEP_COUNTS}},
            per_epoch,
            "rng_state.pth" if alone else f"rng_state_{self.args.process_index}.pth",
            self.args.fp16,
        )
        check_checkpoint(checkpoint, self.model, course)

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The recipe's course of the learning rate."""
        if self.lr_scheduler is None:
            self.lr_scheduler = build_schedule(
                optimizer or self.create_optimizer(),
                self.schedule_settings,
                self.optimiser_settings,
                num_training_steps,
            )
        return self.lr_scheduler

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Metrics on the evaluation part; see `Trainer.evaluate`."""
        with torch.random.fork_rng(devices=[]):
            return super().evaluate(*args, **kwargs)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches of training clips, in the order of `train_sampler`."""
        clips: Any = self.train_dataset
        loader = DataLoader(
            clips,
            batch_size=self.args.train_batch_size,
            sampler=self.train_sampler(),
            collate_fn=self.data_collator,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory,
        )
        return self.accelerator.prepare(loader)

    def train_sampler(self) -> Sampler[Any]:
        """A new order in every epoch, without the clips that fill no batch where those are left out.

        Not by ``dataloader_drop_last``: it would leave clips out of evaluations too, and not know accumulated batches.
        """
        clips: Any = self.train_dataset
        return RandomSampler(clips, num_samples=len(clips) - self.rest_of(len(clips)))

    def rest_of(self, clips: int) -> int:
        """How many of so many clips are left out of an epoch."""
        settings = self.optimiser_settings
        return clips % settings.batch_size if settings.drop_last else 0

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], Any]:
        """The batches of a step; none once the run has come to its end: Trainer takes a step before it looks."""
        if not self.control.should_training_stop:
            return super().get_batch_samples(*args, **kwargs)
        logging.getLogger(Trainer.__module__).addFilter(_not_about_missing_samples)
        return [], None

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """One forward and backward pass; raises `TrainingDiverged` when the loss is no number."""
        loss = super().training_step(*args, **kwargs)
        if self.lr_scheduler is not None:
            self.highest_rate = float(max(self.lr_scheduler.get_last_lr()))
        if not torch.isfinite(loss).all():
            raise TrainingDiverged(
                f"the loss is {loss.item()} at step {self.state.global_step + 1} (epoch {self.state.epoch or 0:.2f}, "
                f"learning rate {self.highest_rate:.3g}); try a lower optimiser.learning_rate, a longer "
                "schedule.warmup_epochs, optimiser.max_grad_norm=1, or bf16 or fp32 instead of fp16, in another "
                "--output: a changed recipe is another run"
            )
        return loss

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log, with the highest learning rate of all layers in place of that of the first parameters.

        The mean loss at the end is that of all the run's steps; Trainer's is of those since it was resumed.
        """
        if "learning_rate" in logs:
            logs["learning_rate"] = self.highest_rate
        if "train_loss" in logs:
            logs["train_loss"] = mean_loss(self.state.log_history, logs["train_loss"])
        super().log(logs, *args, **kwargs)


def mean_loss(history: Sequence[Mapping[str, float]], otherwise: float) -> float:
    """Mean training loss of a run's steps.

    Args:
        history: rows of its log; those with ``loss``, the mean since the one before, count.
        otherwise: where there is no such row.
    """
    total, before = 0.0, 0.0
    for row in history:
        if "loss" in row:
            total += row["loss"] * (row["step"] - before)
            before = row["step"]
    return total / before if before else otherwise


class WholeCheckpoints(TrainerCallback):
    """Bring each checkpoint to its place once it is written, and find the best one of a run that was moved.

    Args:
        folder: of the checkpoints; Trainer writes to its ``partial``.
    """

    def __init__(self, folder: CheckpointFolder) -> None:
        self.folder = folder

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Look for the best checkpoint where the run is now; one that is gone or broken is best no more.

        Nor is one from before the first evaluation of this run: the run that it branched from had it.
        """
        if state.is_world_process_zero:
            self.folder.clear_partial()
        if state.best_global_step and state.best_global_step < args.eval_delay:
            state.best_global_step = state.best_metric = state.best_model_checkpoint = None
        if state.best_global_step:
            best = self.folder.checkpoint(state.best_global_step)
            wrong = flaw(best)
            if wrong is None:
                if model is not None:
                    check_weights(best / WEIGHTS, model)
                state.best_model_checkpoint = str(best)
            else:
                logger.warning("%s was the best so far and is no more: %s", best, wrong)
                state.best_global_step = state.best_metric = state.best_model_checkpoint = None

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move what has been written, once all processes have written their share."""
        step, best = state.global_step, state.best_global_step
        if best:
            state.best_model_checkpoint = str(self.folder.checkpoint(best))
        PartialState().wait_for_everyone()
        if state.is_world_process_zero:
            state.save_to_json(str(self.folder.written(step) / TRAINER_STATE))
            self.folder.finish(step, best)
        PartialState().wait_for_everyone()


class OwnDraws(TrainerCallback):
    """Give each further process random numbers of its own: stochastic depth and random patches, not of the same clips.

    Weights, order and augmentations of clips do not hang on them. A run that goes on has those of its checkpoint.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Trainer has seeded all alike, and has made the order of the clips from that."""
        if args.process_index:
            torch.manual_seed(args.seed + args.process_index)


class RunCourse(TrainerCallback):
    """Tell the data which epoch begins, and end a run on its course.

    Args:
        clips: has ``set_epoch``, or not.
        stop_after_epochs: end then, with a checkpoint, while the learning rate is on a longer course.
    """

    def __init__(self, clips: Any, stop_after_epochs: float | None = None) -> None:
        self.clips = clips
        self.stop_after_epochs = stop_after_epochs

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Pass the number of the epoch on; a resumed run may be at its end already."""
        if state.global_step >= state.max_steps or self._is_over(state):
            control.should_training_stop = True
        if hasattr(self.clips, "set_epoch"):
            self.clips.set_epoch(math.floor((state.epoch or 0.0) + 1e-6))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop once the epochs are done; and log before each checkpoint, so that a resumed run logs the same losses."""
        if self._is_over(state):
            control.should_save = control.should_training_stop = True
            control.should_evaluate = args.eval_delay <= state.global_step
        control.should_log = control.should_log or control.should_save

    def _is_over(self, state: Any) -> bool:
        return self.stop_after_epochs is not None and (state.epoch or 0.0) >= self.stop_after_epochs - 1e-9


def tensorboard_callback(wanted: bool | None, output: Path) -> list[TensorBoardCallback]:
    """TensorBoard's callback for a run, in a list, which is empty where it is not wanted.

    Args:
        wanted: None for where it is installed.
        output: folder of the run.

    Raises:
        MissingExtra: it is wanted and not installed.
    """
    installed = importlib.util.find_spec("tensorboard") is not None
    if wanted and not installed:
        raise MissingExtra("tensorboard", "tensorboard", "logging to TensorBoard")
    if wanted is False or not installed or not is_main_process():
        return []
    from torch.utils.tensorboard import SummaryWriter

    return [TensorBoardCallback(SummaryWriter(log_dir=str(output / "tensorboard")))]
