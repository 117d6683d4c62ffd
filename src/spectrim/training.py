"""Training with an annealed keep rate, on transformers' Trainer: resume, progress and devices are its work."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_utils import EvalPrediction

from spectrim.augment import smooth_targets, structured_mask
from spectrim.checkpoints import describe, from_pretrained
from spectrim.checkpoints.loading import FURTHER_SETTINGS
from spectrim.config import BUILDERS
from spectrim.data import DATA_SETS, AudioDataset, Clip
from spectrim.errors import InvalidSetting, one_of
from spectrim.frontend import Frontend, SpectrimFeatureExtractor
from spectrim.metrics import METRICS
from spectrim.model import AudioTransformer
from spectrim.pruning.schedule import cosine_from_one
from spectrim.recipe import PruningSettings, Recipe
from spectrim.whole import write_json, write_text

CHECKPOINTS = "checkpoints"
TEST_KEEP_RATES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3)
"""The keep rates at which a trained model is tested: dense, and those of the paper."""


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
            inputs = self._augmented(inputs)
        outputs = model(**inputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def _augmented(self, inputs: dict[str, Any]) -> dict[str, Any]:
        augment, config = self.recipe.augment, self.model.config
        several = config.problem_type == "multi_label_classification"
        inputs["labels"] = smooth_targets(inputs["labels"], augment.label_smoothing, multi_label=several)
        pruning = self.recipe.pruning
        dense = pruning.keep_rate == 1.0 or (self.state.epoch or 0.0) < pruning.shrink_start
        if dense and (augment.mask_time or augment.mask_frequency):
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
    """Append everything that the Trainer logs to ``metrics.jsonl``, with the keep rate of that moment.

    Rows of steps that a resumed run does again are dropped first.
    """

    def __init__(self, path: Path, pruning: PruningSettings) -> None:
        self.path = path
        self.pruning = pruning

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep the rows up to the step that training starts from."""
        if state.is_world_process_zero and self.path.exists():
            lines = self.path.read_text(encoding="utf-8").splitlines()
            kept = [line for line in lines if line.endswith("}") and json.loads(line)["step"] <= state.global_step]
            write_text(self.path, "".join(f"{line}\n" for line in kept))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Write one line."""
        if state.is_world_process_zero:
            rate = annealed_keep_rate(self.pruning, state.epoch or 0.0)
            row = {"step": state.global_step, "epoch": state.epoch, "keep_rate": rate, **(logs or {})}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


class StopEarly(TrainerCallback):
    """End training after a number of epochs, with a checkpoint, while the learning rate is on a longer course."""

    def __init__(self, epochs: float) -> None:
        self.epochs = epochs

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop once the epochs are done."""
        if state.epoch is not None and state.epoch >= self.epochs - 1e-9:
            control.should_save = control.should_evaluate = control.should_training_stop = True


def build_model(recipe: Recipe, init: str | None, part: AudioDataset) -> AudioTransformer:
    """The model to train: a checkpoint with a head for a data set, or a fresh one from the recipe's builder.

    Args:
        recipe: says builder, fields, and pruning; the model carries its keep rate, which training overrides.
        init: what `spectrim.from_pretrained` takes, or None for random weights.
        part: says the labels; a checkpoint's head is kept where it has the same ones.

    Raises:
        InvalidSetting: a size in the recipe is not that of the checkpoint.
    """
    entry, pruning = DATA_SETS[recipe.data.name], recipe.pruning
    problem = "multi_label_classification" if part.multi_label else "single_label_classification"
    if init is None:
        names = {"id2label": dict(enumerate(part.labels)), "label2id": {n: i for i, n in enumerate(part.labels)}}
        settings = {"keep_rate": pruning.keep_rate, "prune_at": pruning.prune_at, "criterion": pruning.criterion}
        fields = {"mean": entry.mean, "std": entry.std, "max_length": entry.max_length, **recipe.model.fields}
        return AudioTransformer(BUILDERS[recipe.model.builder](**fields, **settings, **names, problem_type=problem))
    described = describe(init)
    given = dict(recipe.model.fields)
    frames = given.pop("max_length", None)
    further = {name: given.pop(name) for name in FURTHER_SETTINGS if name in given}
    for name, value in given.items():
        if described.get(name, value) != value:
            raise InvalidSetting(f"model.fields.{name}", value, f"{described[name]!r}, as in the checkpoint {init}")
    model = from_pretrained(
        init,
        keep_rate=pruning.keep_rate,
        prune_at=pruning.prune_at,
        criterion=pruning.criterion,
        labels=None if described["label_names"] == list(part.labels) else part.labels,
        frames=frames,
        **further,
    )
    model.config.problem_type = problem
    return model


def training_arguments(recipe: Recipe, output: Path, clips: int) -> TrainingArguments:
    """The recipe in the Trainer's words, for a training part of this many clips."""
    optimiser, evaluation = recipe.optimiser, recipe.evaluation
    every = max(1, round(evaluation.every_epochs * math.ceil(clips / optimiser.batch_size)))
    return TrainingArguments(
        output_dir=str(output / CHECKPOINTS),
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
        seed=recipe.seed,
        data_seed=recipe.seed,
        remove_unused_columns=False,
        label_names=["labels"],
        report_to=[],
        dataloader_num_workers=0,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def train(
    recipe: Recipe, data: str | Path, output: str | Path, *, init: str | None = None, resume: bool = False
) -> dict[str, Any]:
    """Run a recipe: train, evaluate the last weights on the test part dense and pruned, save the model.

    Args:
        recipe: from `load_recipe`.
        data: root of the data set on disk.
        output: folder of the run: ``run.json``, ``metrics.jsonl``, ``checkpoints/``, ``model/``, ``results.json``.
        init: checkpoint to start from, or None.
        resume: continue the run in ``output`` from its newest whole checkpoint.

    Returns:
        What ``results.json`` holds.

    Raises:
        InvalidSetting: unknown data set; ``output`` already holds a run and ``resume`` is False; or the run in it has
            another recipe, data or start.
    """
    output = Path(output)
    if recipe.data.name not in DATA_SETS:
        raise InvalidSetting("data.name", recipe.data.name, one_of(DATA_SETS))
    entry = DATA_SETS[recipe.data.name]
    run = {"recipe": recipe.model_dump(mode="json"), "data": str(data), "init": init}
    _check_run(run, output, resume)
    parts = {p: entry.open(data, p, **recipe.data.options) for p in ("train", "validation", "test")}
    transformers.set_seed(recipe.seed)
    model = build_model(recipe, init, parts["train"])
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / "run.json", run)
    metric = METRICS[entry.metric]

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        return {entry.metric: metric(np.asarray(prediction.predictions), np.asarray(prediction.label_ids))}

    stop = recipe.optimiser.stop_after_epochs
    trainer = PruningTrainer(
        model=model,
        args=training_arguments(recipe, output, len(parts["train"])),
        recipe=recipe,
        data_collator=Collator(Frontend.from_config(model.config)),
        train_dataset=parts["train"],
        eval_dataset=parts["validation"],
        compute_metrics=compute_metrics,
        callbacks=[MetricsLog(output / "metrics.jsonl", recipe.pruning), *([StopEarly(stop)] if stop else [])],
    )
    newest = newest_checkpoint(output / CHECKPOINTS) if resume else None
    trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
    results = test_at_keep_rates(trainer, parts["test"], entry.metric)
    results["training_clips"] = len(parts["train"])
    results["replaced_clips"] = {name: part.broken for name, part in parts.items() if part.broken}
    results["missing_clips"] = {name: list(part.missing) for name, part in parts.items() if part.missing}
    save_model(model, output / "model")
    write_json(output / "results.json", results)
    return results


def _check_run(run: dict[str, Any], output: Path, resume: bool) -> None:
    """Refuse to overwrite a run, and to go on with another than the one that is there."""
    if not resume:
        if (output / "run.json").exists() or (output / CHECKPOINTS).is_dir():
            raise InvalidSetting(
                "output", str(output), "a folder without a run in it, or --resume to continue that run"
            )
        return
    if not (output / "run.json").is_file():
        return
    before = _flat(json.loads((output / "run.json").read_text(encoding="utf-8")))
    for name, value in _flat(run).items():
        if before.get(name) != value:
            raise InvalidSetting(name, value, f"{before.get(name)!r}, with which the run in {output} was begun")


def _flat(tree: dict[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= _flat(value, f"{above}{name}.") if isinstance(value, dict) else {above + name: value}
    return flat


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint of a run; one that a kill left unfinished is passed over.

    The Trainer writes ``trainer_state.json`` last.
    """
    found = [path for path in folder.glob("checkpoint-*") if (path / "trainer_state.json").is_file()]
    return max(found, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def test_at_keep_rates(trainer: PruningTrainer, part: Any, metric: str) -> dict[str, Any]:
    """The metric on a data set part at `TEST_KEEP_RATES` and the trained one, without annealing or masking."""
    trained = trainer.recipe
    rows = {}
    for rate in sorted({*TEST_KEEP_RATES, trained.pruning.keep_rate}, reverse=True):
        pruning = trained.pruning.model_copy(update={"keep_rate": rate, "shrink_start": 0.0, "shrink_epochs": 0.0})
        trainer.recipe = trained.model_copy(update={"pruning": pruning})
        rows[str(rate)] = trainer.predict(part).metrics[f"test_{metric}"]
    trainer.recipe = trained
    return {"metric": metric, "test_clips": len(part), "test": rows}


def save_model(model: AudioTransformer, path: Path) -> None:
    """Save a model with its feature extractor, whole or not at all."""
    beside, old = path.with_name(path.name + ".partial"), path.with_name(path.name + ".old")
    for leftover in (beside, old):
        shutil.rmtree(leftover, ignore_errors=True)
    model.save_pretrained(beside)
    SpectrimFeatureExtractor.from_config(model.config).save_pretrained(beside)
    if path.exists():
        path.rename(old)
    beside.rename(path)
    shutil.rmtree(old, ignore_errors=True)
