"""Fine-tuning and training with an annealed keep rate: a recipe → a trained model, its tests and its results."""

from __future__ import annotations

import logging
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.utils.data import Dataset
from transformers import EvalPrediction

from spectrim.audio.frontend import Frontend
from spectrim.checkpoints import describe
from spectrim.data import PARTS, AudioDataset, find_data_set
from spectrim.data.cache import AudioCache
from spectrim.data.packed import is_packed
from spectrim.files import folder_beside, named_when_full, write_json
from spectrim.machine import is_main_process
from spectrim.measure.metrics import METRICS
from spectrim.network.losses import classification_loss
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.criteria import AUTO
from spectrim.training.answers import ANSWERS, Answers
from spectrim.training.augment import TrainingClips
from spectrim.training.branch import branching_point
from spectrim.training.building import build_model
from spectrim.training.cards import write_card
from spectrim.training.chosen_epoch import chosen_on
from spectrim.training.distillation import open_teacher
from spectrim.training.input_check import InputNotice, check_input
from spectrim.training.nodes import check_nodes
from spectrim.training.optimiser import annealed_keep_rate
from spectrim.training.progress import RunProgress, own_bars
from spectrim.training.pruning_trainer import Collator, PruningTrainer
from spectrim.training.recipes import Recipe
from spectrim.training.resuming import check_weights
from spectrim.training.run_arguments import run_arguments
from spectrim.training.run_folder import (
    CHECKPOINTS,
    WEIGHTS,
    CheckpointFolder,
    average_weights,
    begin_run,
    check_run,
    named_start,
)
from spectrim.training.run_log import RunLog, Say
from spectrim.training.same_clips import check_clips, write_clips
from spectrim.training.sampling import epoch_size
from spectrim.training.trainer import RunCourse, tensorboard_callback

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FineTuningRun:
    """What a run works with.

    Attributes:
        recipe: what to do.
        output: folder of the run.
        init: checkpoint to start from, or None.
        metric: by its name in `spectrim.measure.metrics.METRICS`.
        parts: of the data set, by `spectrim.data.PARTS`, at the model's sampling rate.
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
    transformers.set_seed(recipe.seed)
    model = build_model(recipe, init, parts["train"])
    model.config.plan()
    parts = {name: part.at_rate(model.config.sampling_rate) for name, part in parts.items()}
    if is_packed(data):
        cache = None
    if cache is not None and is_main_process():
        cache = _begin_cache(cache, parts["train"])
    for part in parts.values():
        part.cache = cache
    if init is not None:
        described = describe(recipe.model.start(init))
        notice = check_input(recipe, init, described, model.config, parts["train"])
        if notice is not None and is_main_process():
            warnings.warn(notice, InputNotice, stacklevel=2)
        own, said = described["criterion"], "criterion" in recipe.pruning.model_fields_set
        if own != AUTO and not said and is_main_process():
            logger.warning(
                "%s ranks patches by %s, this recipe by the backbone's attention; --set pruning.criterion=%s keeps its "
                "ranking, and --set pruning.criterion=auto says that attention is meant",
                *(init, own, own),
            )
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
    if cache.covers(clips.recordings[0].path, clips.sampling_rate):
        bound = f"{cache.most / 1e9:g} GB at most; --cache off keeps none"
        warnings.warn(f"decoded audio is kept in {cache.place.parent}, {bound}", InputNotice, stacklevel=3)
    return cache


def train(
    recipe: Recipe,
    data: str | Path,
    output: str | Path,
    *,
    init: str | Path | None = None,
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
        DataError: the data set is not there, has other clips than when the run was begun, or too much of it is missing
            or unreadable.
        CheckpointError: what the run is to go on from is not what it, or the other run, has written.
        TrainingDiverged: the loss is no longer a number.
        OSError: there is no room to write; with room, ``resume`` goes on from the newest whole checkpoint.
    """
    output, init = Path(output), named_start(init)
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
        check_clips(goes_on_from.parent.parent, job.parts)
    begin_run(run, output)
    write_clips(output, job.parts)
    if shared is not None:
        newest = checkpoints.path / shared.name
        if is_main_process():
            with named_when_full(output):
                checkpoints.copy(shared)
        trainer.accelerator.wait_for_everyone()
    with own_bars(trainer), named_when_full(output):
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
        recipe.schedule,
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
        wanted = job.recipe.evaluation.average_last
        averaged = folder.whole_steps()[-wanted:]
        if len(averaged) < wanted and is_main_process():
            told = "evaluation.average_last is %d and there are %d whole checkpoints: the mean is of those"
            logger.warning(told, wanted, len(averaged))
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
        "chosen_on": chosen_on(job.recipe, parts) if state.best_global_step else None,
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
    multi_label = trainer.model.config.multi_label
    answers = Answers.of(part, targets, counted, logits, multi_label=multi_label) if logits else None
    return {"metric": metric, "test_clips": clips, "test": rows}, answers


def save_model(
    model: AudioTransformer, path: Path, *, card: tuple[Recipe, str | None, dict[str, Any]] | None = None
) -> None:
    """Save a model with its feature extractor and, given recipe, start and results, its card; whole or not at all."""
    with folder_beside(path) as beside, own_bars():
        model.save_pretrained(beside)
        if card is not None:
            write_card(beside, model.config, *card)
