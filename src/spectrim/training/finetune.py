"""Fine-tuning and training with an annealed keep rate, on transformers' Trainer."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from torch.utils.data import Dataset, Sampler
from transformers import EvalPrediction

from spectrim.audio.frontend import Frontend
from spectrim.checkpoints import describe
from spectrim.config import SpectrimConfig
from spectrim.data import PARTS, AudioDataset, Clip, find_data_set
from spectrim.data.cache import AudioCache
from spectrim.data.packed import is_packed
from spectrim.files import folder_beside, write_json
from spectrim.machine import is_main_process
from spectrim.measure.metrics import METRICS
from spectrim.network.losses import classification_loss
from spectrim.network.transformer import AudioTransformer, AudioTransformerOutput
from spectrim.training.answers import ANSWERS, Answers
from spectrim.training.augment import TrainingClip, TrainingClips, apply, draw, smooth_targets
from spectrim.training.branch import branching_point
from spectrim.training.building import DENSE, build_model
from spectrim.training.cards import write_card
from spectrim.training.distillation import added_losses, needs_tokens, open_teacher
from spectrim.training.input_check import InputNotice, check_input
from spectrim.training.nodes import check_nodes
from spectrim.training.optimiser import annealed_keep_rate
from spectrim.training.progress import RunProgress, own_bars
from spectrim.training.recipes import Recipe
from spectrim.training.resuming import check_weights
from spectrim.training.run_arguments import run_arguments
from spectrim.training.run_folder import (
    CHECKPOINTS,
    NEWEST,
    WEIGHTS,
    CheckpointFolder,
    average_weights,
    begin_run,
    check_run,
)
from spectrim.training.run_log import RunLog, Say
from spectrim.training.sampling import BalancedSampler, clip_weights, epoch_size
from spectrim.training.trainer import RunCourse, RunTrainer, tensorboard_callback

logger = logging.getLogger(__name__)


class Collator:
    """A list of clips → one batch on the CPU.

    Gives ``input_values`` (batch, frames, mels), ``labels`` (batch, labels), ``num_frames`` (batch,) and ``counted``
    (batch,), False for clips that stand in for unreadable ones; and for training clips what
    `spectrim.training.augment.draw` gives.
    """

    def __init__(self, frontend: Frontend, recipe: Recipe, config: SpectrimConfig) -> None:
        self.frontend = frontend
        self.augment = recipe.augment
        self.frames, self.mels, self.grid = config.max_length, config.num_mel_bins, config.grid
        self.multi_label = config.multi_label

    def __call__(self, clips: Sequence[Clip]) -> dict[str, Tensor]:
        """Make the batch."""
        with torch.no_grad():
            features = self.frontend([torch.as_tensor(clip.waveform) for clip in clips])
        targets = torch.as_tensor(np.stack([clip.target for clip in clips]))
        batch = {
            "input_values": features.input_values,
            "num_frames": features.num_frames,
            "counted": torch.tensor([not clip.stand_in for clip in clips]),
        }
        training = [clip for clip in clips if isinstance(clip, TrainingClip)]
        if training:
            targets = smooth_targets(targets, self.augment.label_smoothing, multi_label=self.multi_label)
            batch |= draw(self.augment, training, self.frames, self.mels, self.grid)
        return {**batch, "labels": targets}


class PruningTrainer(RunTrainer):
    """Trainer whose forward passes follow a recipe's keep rate and augmentations.

    Evaluation runs at ``evaluation_rate``, without augmentations. ``parts`` are the losses beside that of the labels
    since they were logged.
    """

    model: AudioTransformer

    def __init__(self, *args: Any, recipe: Recipe, teacher: AudioTransformer | None = None, **kwargs: Any) -> None:
        self.recipe = recipe
        self.teacher = teacher
        self.parts: dict[str, list[float]] = {}
        self.evaluation_rate = recipe.pruning.keep_rate
        kept = recipe.evaluation.average_last if recipe.evaluation.choose == "average" else NEWEST
        super().__init__(
            *args,
            optimiser_settings=recipe.optimiser,
            schedule_settings=recipe.schedule,
            checkpoints_kept=max(kept, NEWEST),
            **kwargs,
        )

    def train_sampler(self) -> Sampler[int]:
        """The clips of an epoch, as the recipe says."""
        settings, clips = self.recipe.sampling, self.train_dataset
        if settings.kind == "all" or not isinstance(clips, TrainingClips):
            return super().train_sampler()
        number = epoch_size(settings, clips.clips)
        return BalancedSampler(
            clip_weights(clips.clips),
            number - self.rest_of(number),
            replacement=settings.replacement,
            clips=clips,
            seed=self.recipe.seed,
        )

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Loss of a batch; see `Trainer.compute_loss`."""
        drawn = {name: value for name, value in inputs.items() if name in ("stripes", "noise", "roll", "pitch")}
        seen = {name: value for name, value in inputs.items() if name not in (*drawn, "counted")}
        rate = self.evaluation_rate
        if model.training:
            epoch, pruning = self.state.epoch or 0.0, self.recipe.pruning
            rate = annealed_keep_rate(pruning, epoch)
            if pruning.keep_rate < 1.0 and epoch >= pruning.shrink_start:
                seen.pop("visible_patches", None)
                drawn.pop("stripes", None)
            config = self.model.config
            seen["input_values"] = apply(seen["input_values"], drawn, -config.mean / (2.0 * config.std))
        states = model.training and needs_tokens(self.recipe)
        outputs = model(**seen, keep_rate=rate, output_hidden_states=states)
        loss = outputs.loss
        if model.training:
            added = added_losses(self.recipe, self.model, outputs, self.taught(seen, states=states), rate)
            loss = sum(added.values(), loss)
            for name, value in added.items():
                self.parts.setdefault(name, []).append(value.item())
        return (loss, outputs) if return_outputs else loss

    def taught(self, seen: dict[str, Any], *, states: bool) -> AudioTransformerOutput | None:
        """What the teacher makes of the same batch, with the same patches."""
        if self.teacher is None:
            return None
        dense = self.recipe.pruning.operating_point.changed(DENSE)
        with torch.no_grad():
            asked = {name: value for name, value in seen.items() if name != "labels"}
            taught: AudioTransformerOutput = self.teacher.to(self.args.device)(
                **asked, pruning=dense, output_hidden_states=states
            )
        return taught

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log, with the means of `parts` beside the loss that they are in."""
        if "loss" in logs:
            logs |= {name: sum(values) / len(values) for name, values in self.parts.items()}
            self.parts = {}
        super().log(logs, *args, **kwargs)


@dataclass(frozen=True)
class FineTuningRun:
    """What a run works with.

    Attributes:
        recipe: what to do.
        output: folder of the run.
        init: checkpoint to start from, or None.
        metric: by its name in `spectrim.measure.metrics.METRICS`.
        parts: of the data set, by `spectrim.data.PARTS`.
        model: to be trained.
        teacher: that it learns from beside the labels, or None.
    """

    recipe: Recipe
    output: Path
    init: str | None
    metric: str
    parts: dict[str, AudioDataset]
    model: AudioTransformer
    teacher: AudioTransformer | None = None


def prepare(
    recipe: Recipe, data: str | Path, output: str | Path, init: str | None = None, cache: AudioCache | None = None
) -> FineTuningRun:
    """Open the data and build the model of a run; errors as `train`."""
    entry = find_data_set(recipe.data.name, "data.name")
    parts = {part: entry.open(data, part, **recipe.data.options) for part in PARTS}
    if is_packed(data):
        cache = None
    if cache is not None and is_main_process():
        cache = _begin_cache(cache, parts["train"])
    for part in parts.values():
        part.cache = cache
    transformers.set_seed(recipe.seed)
    model = build_model(recipe, init, parts["train"])
    model.config.plan()
    if init is not None:
        described = describe(recipe.model.start(init))
        notice = check_input(recipe, init, described, model.config, parts["train"])
        if notice is not None and is_main_process():
            warnings.warn(notice, InputNotice, stacklevel=2)
    for name, part in parts.items():
        if (reason := part.not_measurable) is not None and is_main_process():
            logger.warning("%s is not defined on the %s part: %s", part.metric, name, reason)
    teacher = open_teacher(recipe, init, model)
    return FineTuningRun(recipe, Path(output), init, parts["train"].metric, parts, model, teacher)


def _begin_cache(cache: AudioCache, clips: AudioDataset) -> AudioCache | None:
    """The same cache, of which a notice says once where it is; None where it cannot be written."""
    if cache.begun:
        return cache
    try:
        cache.begin()
    except OSError as error:
        logger.warning("decoded audio is not kept: %s", error)
        return None
    if cache.covers(clips.recordings[0].path):
        bound = f"{cache.most / 1e9:g} GB at most; --cache off keeps none"
        warnings.warn(f"decoded audio is kept in {cache.place.parent}, {bound}", InputNotice, stacklevel=3)
    return cache


def train(
    recipe: Recipe,
    data: str | Path,
    output: str | Path,
    *,
    init: str | None = None,
    resume: bool = False,
    branch_of: str | Path | None = None,
    cache: AudioCache | None = None,
    progress: bool = False,
    say: Say | None = None,
    title: str = "",
) -> dict[str, Any]:
    """Run a recipe: train, choose the weights, test them dense and pruned, save the model.

    Args:
        recipe: from `load_recipe`.
        data: root of the data set on disk.
        output: folder of the run, see `spectrim.training.run_folder`; at the end also ``model/`` and ``results.json``.
        init: checkpoint to start from, or None.
        resume: continue the run in ``output`` from its newest whole checkpoint, or begin it.
        branch_of: folder of a run of the same recipe with another keep rate that was stopped before its keep rate
            fell: this run goes on from there, and ends as if it had run from the beginning.
        cache: keeps decoded audio on disk, so that an epoch does not decode it again; changes nothing else.
        progress: draw a bar, in a terminal or a notebook.
        say: is told evaluations, and now and then the loss, in lines with the time left.
        title: before what is drawn and said.

    Returns:
        What ``results.json`` holds.

    Raises:
        InvalidSetting: unknown data set; ``output`` already holds a run and ``resume`` is False; the run in it has
            another recipe, data or start; or the settings do not suit the data, the checkpoint or the machine.
        DataError: the data set is not there, or too much of it is missing or unreadable.
        CheckpointError: what the run is to go on from is not what it, or the other run, has written.
        TrainingDiverged: the loss is no longer a number.
    """
    output = Path(output)
    run = {"recipe": recipe.model_dump(mode="json"), "data": str(data), "init": init}
    check_run(run, output, resume=resume, kind=Recipe)
    checkpoints = CheckpointFolder(output / CHECKPOINTS)
    newest = checkpoints.newest() if resume else None
    shared = None if newest is not None or branch_of is None else branching_point(recipe, run, Path(branch_of))
    job = prepare(recipe, data, output, init, cache)
    trainer = build_trainer(job, progress=progress, say=say, title=title)
    check_nodes(output, job.parts.values())
    if (goes_on_from := newest or shared) is not None:
        trainer.check_checkpoint(goes_on_from)
    begin_run(run, output)
    if shared is not None:
        newest = checkpoints.path / shared.name
        if is_main_process():
            checkpoints.copy(shared)
        trainer.accelerator.wait_for_everyone()
    with own_bars(trainer):
        trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
    return _conclude(trainer, job)


def build_trainer(job: FineTuningRun, *, progress: bool, say: Say | None, title: str = "") -> PruningTrainer:
    """The Trainer of a run."""
    recipe, model, metric = job.recipe, job.model, job.metric
    course, evaluation = recipe.optimiser, recipe.evaluation
    clips: Dataset[Any] = TrainingClips(job.parts["train"], recipe.augment, recipe.seed)
    arguments = run_arguments(
        job.output,
        course,
        clips=epoch_size(recipe.sampling, job.parts["train"]),
        every_epochs=evaluation.every_epochs,
        first_epoch=evaluation.first_epoch,
        evaluation_batch=evaluation.batch_size,
        metric=f"eval_{metric}" if evaluation.choose == "best" else None,
        workers=recipe.workers,
        seed=recipe.seed,
    )
    arguments.label_names = ["labels", "counted"]

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        targets, counted = (np.asarray(part) for part in prediction.label_ids)
        scores, targets = np.asarray(prediction.predictions)[counted], targets[counted]
        loss = classification_loss(
            torch.from_numpy(scores), torch.from_numpy(targets), multi_label=model.config.multi_label
        )
        return {"clips": len(scores), "loss": loss.item(), metric: METRICS[metric](scores, targets)}

    def facts(epoch: float) -> dict[str, float]:
        return {"keep_rate": annealed_keep_rate(recipe.pruning, epoch)}

    return PruningTrainer(
        model=model,
        args=arguments,
        recipe=recipe,
        teacher=job.teacher,
        data_collator=Collator(Frontend.from_config(model.config), recipe, model.config),
        train_dataset=clips,
        eval_dataset=job.parts["validation"],
        compute_metrics=compute_metrics,
        callbacks=[
            RunCourse(clips, course.stop_after_epochs),
            RunLog(job.output, facts, say if is_main_process() else None, course.stop_after_epochs, title),
            *([RunProgress(facts, title, course.stop_after_epochs)] if progress and is_main_process() else []),
            *tensorboard_callback(recipe.tensorboard, job.output),
        ],
    )


def _conclude(trainer: PruningTrainer, job: FineTuningRun) -> dict[str, Any]:
    """Test the chosen weights, and write model and results."""
    state, parts = trainer.state, job.parts
    per_epoch = state.max_steps / job.recipe.optimiser.epochs
    best = None
    if job.recipe.evaluation.choose == "average":
        folder = CheckpointFolder(job.output / CHECKPOINTS)
        averaged = folder.whole_steps()[-job.recipe.evaluation.average_last :]
        for step in averaged:
            check_weights(folder.checkpoint(step) / WEIGHTS, job.model)
        job.model.load_state_dict(average_weights([folder.checkpoint(step) for step in averaged]))
        best = {"step": averaged[-1], "epoch": averaged[-1] / per_epoch, "averaged_steps": averaged}
    if state.best_global_step:
        best = {
            "step": state.best_global_step,
            "epoch": state.best_global_step / per_epoch,
            f"validation_{job.metric}": state.best_metric,
        }
    tested, answers = test_at_keep_rates(trainer, parts["test"], job.metric)
    results = {
        "chosen": best or {"step": state.global_step, "epoch": state.global_step / per_epoch},
        "chosen_on": chosen_on(job.recipe, parts),
        **tested,
        "training_clips": len(parts["train"]),
        "replaced_clips": {name: part.broken for name, part in parts.items() if part.broken},
        "missing_clips": {name: list(part.missing) for name, part in parts.items() if part.missing},
    }
    if is_main_process():
        save_model(job.model, job.output / "model", card=(job.recipe, job.init, results))
        if answers is not None:
            answers.save(job.output / ANSWERS)
        write_json(job.output / "results.json", results)
    trainer.accelerator.wait_for_everyone()
    return results


def chosen_on(recipe: Recipe, parts: Mapping[str, AudioDataset]) -> str | None:
    """The clips that the epoch is chosen on: "validation", "test" where some of those are tested too, None for none."""
    if recipe.evaluation.choose != "best":
        return None
    tested = {clip.id for clip in parts["test"].recordings}
    return "test" if any(clip.id in tested for clip in parts["validation"].recordings) else "validation"


def test_at_keep_rates(
    trainer: PruningTrainer, part: AudioDataset, metric: str
) -> tuple[dict[str, Any], Answers | None]:
    """The metric on a data set part at the recipe's test keep rates and the trained one, and the answers behind it.

    Nothing where the recipe has no such rates. The metric is None where it is not defined.
    """
    recipe, rows, logits, clips = trainer.recipe, {}, {}, 0
    rates = recipe.evaluation.test_keep_rates
    for rate in sorted({*rates, recipe.pruning.keep_rate} if rates else (), reverse=True):
        trainer.evaluation_rate = rate
        found = trainer.predict(part)
        value, clips = found.metrics[f"test_{metric}"], found.metrics["test_clips"]
        rows[str(rate)] = value if math.isfinite(value) else None
        logits[rate] = np.asarray(found.predictions)
        targets, counted = (np.asarray(each) for each in found.label_ids)
    trainer.evaluation_rate = recipe.pruning.keep_rate
    answers = Answers.of(part, targets, counted, logits) if logits else None
    return {"metric": metric, "test_clips": clips, "test": rows}, answers


def save_model(
    model: AudioTransformer, path: Path, *, card: tuple[Recipe, str | None, dict[str, Any]] | None = None
) -> None:
    """Save a model with its feature extractor and, given recipe, start and results, its card; whole or not at all."""
    with folder_beside(path) as beside, own_bars():
        model.save_pretrained(beside)
        if card is not None:
            write_card(beside, model.config, *card)
