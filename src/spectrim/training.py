"""Training with an annealed keep rate, on transformers' Trainer: resume, progress and devices are its work."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import EvalPrediction, get_last_checkpoint

from spectrim.augment import smooth_targets, structured_mask
from spectrim.checkpoints import describe, from_pretrained
from spectrim.config import BUILDERS
from spectrim.data import DATA_SETS, Clip
from spectrim.errors import InvalidSetting, one_of
from spectrim.frontend import Frontend, SpectrimFeatureExtractor
from spectrim.metrics import METRICS
from spectrim.model import AudioTransformer
from spectrim.pruning.schedule import cosine_from_one
from spectrim.recipe import PruningSettings, Recipe


def annealed_keep_rate(pruning: PruningSettings, epoch: float) -> float:
    """Keep rate at a point of training.

    Args:
        pruning: target, start and length of the annealing.
        epoch: epochs done, a fraction inside an epoch.

    Returns:
        The keep rate: 1 until ``shrink_start``, a cosine over ``shrink_epochs``, the target after it.
    """
    if pruning.keep_rate == 1.0:
        return 1.0
    if pruning.anneal_every == "epoch":
        epoch = math.floor(epoch)
    if epoch < pruning.shrink_start:
        return 1.0
    if pruning.shrink_epochs == 0.0:
        return pruning.keep_rate
    return cosine_from_one((epoch - pruning.shrink_start) / pruning.shrink_epochs, pruning.keep_rate)


class Collator:
    """A list of clips → one batch on the CPU: log-mel (batch, frames, mels) and targets (batch, labels)."""

    def __init__(self, frontend: Frontend) -> None:
        self.frontend = frontend

    def __call__(self, clips: Sequence[Clip]) -> dict[str, Tensor]:
        """Make the batch."""
        with torch.no_grad():
            features = self.frontend([torch.as_tensor(clip.waveform) for clip in clips])
        targets = torch.as_tensor(np.stack([clip.target for clip in clips]))
        return {"input_values": features.input_values, "labels": targets, "num_frames": features.num_frames}


class PruningTrainer(Trainer):
    """Trainer whose forward passes follow a recipe's keep rate and patch masking.

    Evaluation runs at the keep rate that training has reached, without masking.
    """

    model: AudioTransformer
    optimizer: torch.optim.Optimizer | None
    lr_scheduler: torch.optim.lr_scheduler.LRScheduler | None

    def __init__(self, *args: Any, recipe: Recipe, **kwargs: Any) -> None:
        self.recipe = recipe
        super().__init__(*args, **kwargs)

    def keep_rate(self) -> float:
        """The keep rate at this step."""
        return annealed_keep_rate(self.recipe.pruning, self.state.epoch or 0.0)

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Loss of a batch; see `Trainer.compute_loss`."""
        rate = self.keep_rate()
        inputs = {**inputs, "keep_rate": rate}
        if model.training:
            inputs = self._augmented(inputs, rate)
        outputs = model(**inputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def _augmented(self, inputs: dict[str, Any], rate: float) -> dict[str, Any]:
        augment, config = self.recipe.augment, self.model.config
        inputs["labels"] = smooth_targets(inputs["labels"], augment.label_smoothing)
        if rate == 1.0 and (augment.mask_time or augment.mask_frequency):
            values = inputs["input_values"]
            inputs["visible_patches"] = structured_mask(
                values.shape[0], config.grid, augment.mask_time, augment.mask_frequency, values.device
            )
        return inputs

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """The recipe's optimiser; biases, norms, tokens and positions are not decayed."""
        if self.optimizer is None:
            settings = self.recipe.optimiser
            named = [(name, weight) for name, weight in self.model.named_parameters() if weight.requires_grad]
            groups = [
                {"params": [w for n, w in named if decays(n, w)], "weight_decay": settings.weight_decay},
                {"params": [w for n, w in named if not decays(n, w)], "weight_decay": 0.0},
            ]
            kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.name]
            self.optimizer = kind(groups, lr=settings.learning_rate, betas=settings.betas)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Linear warm-up, then a cosine to ``final_share`` of the peak, per step."""
        if self.lr_scheduler is None:
            settings = self.recipe.optimiser
            warmup = num_training_steps * settings.warmup_epochs / settings.epochs

            def share(step: int) -> float:
                if step < warmup:
                    return (step + 1) / (warmup + 1)
                return cosine_from_one((step - warmup) / max(1.0, num_training_steps - warmup), settings.final_share)

            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.create_optimizer(), share)
        return self.lr_scheduler


def decays(name: str, weight: Tensor) -> bool:
    """Whether weight decay applies to a parameter: only to matrices, and not to tokens and the position table."""
    return weight.ndim > 1 and not name.endswith(("_token", "position_table"))


class MetricsLog(TrainerCallback):
    """Append everything that the Trainer logs to ``metrics.jsonl``, with the keep rate of that moment."""

    def __init__(self, path: Path, pruning: PruningSettings) -> None:
        self.path = path
        self.pruning = pruning

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Write one line."""
        if state.is_world_process_zero:
            rate = annealed_keep_rate(self.pruning, state.epoch or 0.0)
            row = {"step": state.global_step, "epoch": state.epoch, "keep_rate": rate, **(logs or {})}
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")


def build_model(recipe: Recipe, init: str | None, labels: Sequence[str], multi_label: bool) -> AudioTransformer:
    """The model to train: a checkpoint with a head for these labels, or a fresh one from the recipe's builder.

    Args:
        recipe: says builder, fields, and pruning blocks.
        init: what `spectrim.from_pretrained` takes, or None for random weights.
        labels: names of the labels; a checkpoint's head is kept where it has the same ones.
        multi_label: whether a clip can have several labels.
    """
    fields = dict(recipe.model.fields)
    prune_at, criterion = recipe.pruning.prune_at, recipe.pruning.criterion
    problem = "multi_label_classification" if multi_label else "single_label_classification"
    if init is None:
        names = {"id2label": dict(enumerate(labels)), "label2id": {name: i for i, name in enumerate(labels)}}
        build = BUILDERS[recipe.model.builder]
        return AudioTransformer(build(**fields, prune_at=prune_at, criterion=criterion, **names, problem_type=problem))
    has_them = describe(init)["label_names"] == list(labels)
    model = from_pretrained(
        init,
        keep_rate=1.0,
        prune_at=prune_at,
        criterion=criterion,
        labels=None if has_them else labels,
        frames=fields.pop("max_length", None),
        **fields,
    )
    model.config.problem_type = problem
    return model


def training_arguments(recipe: Recipe, output: Path, metric: str) -> TrainingArguments:
    """The recipe in the Trainer's words."""
    optimiser, evaluation = recipe.optimiser, recipe.evaluation
    every = min(1.0, evaluation.every_epochs / optimiser.epochs)
    return TrainingArguments(
        output_dir=str(output / "checkpoints"),
        per_device_train_batch_size=optimiser.batch_size,
        per_device_eval_batch_size=evaluation.batch_size,
        num_train_epochs=optimiser.epochs,
        max_grad_norm=optimiser.max_grad_norm,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=2,
        logging_steps=50,
        metric_for_best_model=metric,
        seed=recipe.seed,
        data_seed=recipe.seed,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=[],
        dataloader_num_workers=0,
    )


def train(
    recipe: Recipe, data: str | Path, output: str | Path, *, init: str | None = None, resume: bool = False
) -> dict[str, Any]:
    """Run a recipe: train, evaluate on the test part dense and pruned, save the model.

    Args:
        recipe: from `load_recipe`.
        data: root of the data set on disk.
        output: folder of the run: ``recipe.json``, ``metrics.jsonl``, ``checkpoints/``, ``model/``, ``results.json``.
        init: checkpoint to start from, or None.
        resume: continue from the newest checkpoint in ``output``.

    Returns:
        What ``results.json`` holds.

    Raises:
        InvalidSetting: unknown data set; or ``output`` already holds a run and ``resume`` is False.
    """
    output = Path(output)
    if recipe.data.name not in DATA_SETS:
        raise InvalidSetting("data.name", recipe.data.name, one_of(DATA_SETS))
    if not resume and (output / "checkpoints").is_dir():
        raise InvalidSetting("--output", str(output), "a folder without a run in it, or --resume to continue that run")
    entry = DATA_SETS[recipe.data.name]
    parts = {p: entry.open(data, p, **recipe.data.options) for p in ("train", "validation", "test")}
    transformers.set_seed(recipe.seed)
    model = build_model(recipe, init, parts["train"].labels, parts["train"].multi_label)
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "recipe.json", recipe.model_dump())
    metric = METRICS[entry.metric]

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        return {entry.metric: metric(np.asarray(prediction.predictions), np.asarray(prediction.label_ids))}

    trainer = PruningTrainer(
        model=model,
        args=training_arguments(recipe, output, entry.metric),
        recipe=recipe,
        data_collator=Collator(Frontend.from_config(model.config)),
        train_dataset=parts["train"],
        eval_dataset=parts["validation"],
        compute_metrics=compute_metrics,
        callbacks=[MetricsLog(output / "metrics.jsonl", recipe.pruning)],
    )
    newest = get_last_checkpoint(str(output / "checkpoints")) if resume and (output / "checkpoints").is_dir() else None
    trainer.train(resume_from_checkpoint=newest)
    results = test_at_keep_rates(trainer, parts["test"], entry.metric)
    results |= {
        "init": init,
        "training_clips": len(parts["train"]),
        "training_seconds": trainer.state.log_history[-1].get("train_runtime"),
    }
    model.set_pruning(keep_rate=recipe.pruning.keep_rate)
    save_model(model, output / "model")
    write_json(output / "results.json", results)
    return results


def test_at_keep_rates(trainer: PruningTrainer, part: Any, metric: str) -> dict[str, Any]:
    """The metric on a data set part, dense and at the keep rates 0.9 to 0.3, without annealing or masking."""
    trained = trainer.recipe
    rows = {}
    for rate in (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3):
        pruning = trained.pruning.model_copy(update={"keep_rate": rate, "shrink_start": 0.0, "shrink_epochs": 0.0})
        trainer.recipe = trained.model_copy(update={"pruning": pruning})
        rows[str(rate)] = trainer.predict(part).metrics[f"test_{metric}"]
    trainer.recipe = trained
    return {"metric": metric, "test_clips": len(part), "test": rows}


def save_model(model: AudioTransformer, path: Path) -> None:
    """Save a model with its feature extractor, whole or not at all."""
    beside = path.with_name(path.name + ".partial")
    model.save_pretrained(beside)
    SpectrimFeatureExtractor.from_config(model.config).save_pretrained(beside)
    if path.exists():
        old = path.with_name(path.name + ".old")
        path.rename(old)
        beside.rename(path)
        _remove(old)
    else:
        beside.rename(path)


def _remove(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON beside, then rename."""
    beside = path.with_name(path.name + ".partial")
    beside.write_text(json.dumps(content, indent=2) + "\n")
    beside.replace(path)
