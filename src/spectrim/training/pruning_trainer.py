"""transformers' Trainer with an annealed keep rate: what a batch is made of, and its loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from spectrim.audio.frontend import Frontend
from spectrim.config import SpectrimConfig
from spectrim.data import Clip
from spectrim.network.transformer import AudioTransformer, AudioTransformerOutput
from spectrim.pruning.pruning import Pruning
from spectrim.training.augment import TrainingClip, TrainingClips, apply, draw, smooth_targets
from spectrim.training.distillation import added_losses, needs_tokens
from spectrim.training.optimiser import annealed_keep_rate
from spectrim.training.recipes import Recipe
from spectrim.training.run_folder import NEWEST
from spectrim.training.sampling import BalancedSampler, clip_weights, epoch_size
from spectrim.training.trainer import RunTrainer


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
        self.sampling_rate, self.multi_label = config.sampling_rate, config.multi_label

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
            batch |= draw(self.augment, training, self.frames, self.mels, self.grid, self.sampling_rate)
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

    def train_sampler(self) -> Sampler[Any]:
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
            added = added_losses(self.recipe, self.model, outputs, self.teacher, self.taught(seen, states=states), rate)
            loss = sum(added.values(), loss)
            for name, value in added.items():
                self.parts.setdefault(name, []).append(value.item())
        return (loss, outputs) if return_outputs else loss

    def taught(self, seen: dict[str, Any], *, states: bool) -> AudioTransformerOutput | None:
        """What the teacher makes of the same batch, with the same patches."""
        if self.teacher is None:
            return None
        dense = Pruning(at=(), drop_padding=self.recipe.pruning.operating_point.drop_padding)
        with torch.no_grad():
            asked = {name: value for name, value in seen.items() if name != "labels"}
            taught: AudioTransformerOutput = self.teacher.to(self.args.device)(
                **asked, pruning=dense, output_hidden_states=states
            )
        return taught

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log, with the means of `parts` beside the loss that they are in, and an evaluation with its keep rate."""
        if "loss" in logs:
            logs |= {name: sum(values) / len(values) for name, values in self.parts.items()}
            self.parts = {}
        if "eval_loss" in logs:
            logs["eval_keep_rate"] = self.evaluation_rate
        super().log(logs, *args, **kwargs)
