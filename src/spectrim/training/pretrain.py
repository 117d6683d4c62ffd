"""Masked pre-training of an encoder on any audio (AudioMAE, Huang et al., 2022), on transformers' Trainer."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import EvalPrediction, TrainerCallback

from spectrim.audio.filterbank import frame_length_and_shift
from spectrim.audio.frontend import Frontend
from spectrim.checkpoints import describe, load_autoencoder
from spectrim.config import SpectrimConfig
from spectrim.data import Clip
from spectrim.data.excerpts import Excerpts
from spectrim.errors import InvalidSetting
from spectrim.files import named_when_full, write_json
from spectrim.machine import is_main_process
from spectrim.network.masked import MaskedAutoencoder, MaskedConfig
from spectrim.network.masked.masks import random_visible
from spectrim.network.masked.saving import save_autoencoder, save_encoder
from spectrim.pictures.reconstruction import Reconstruction, reconstruction_picture
from spectrim.training.augment import TrainingClip, TrainingClips, structured_mask
from spectrim.training.nodes import check_nodes
from spectrim.training.pretrain_audio import further_recordings, recordings_of
from spectrim.training.pretrain_recipes import MaskingSettings, PretrainRecipe
from spectrim.training.progress import RunProgress, own_bars
from spectrim.training.recipes import AugmentSettings
from spectrim.training.run_arguments import run_arguments
from spectrim.training.run_folder import CHECKPOINTS, CheckpointFolder, begin_run, check_run, named_start
from spectrim.training.run_log import RunLog, Say
from spectrim.training.same_clips import check_clips, write_clips
from spectrim.training.trainer import RunCourse, RunTrainer, tensorboard_callback

PICTURES = "pictures"

NOT_IN_WEIGHTS = {
    "mean",
    "std",
    "padding",
    "drop_path_rate",
    "initializer_range",
    "head_init_std",
    "random_seed",
    "keep_rate",
    "prune_at",
    "criterion",
    "decoder_bias_dropout",
    "normalise_patches",
    "ignore_padding",
}
"""Fields in which a recipe may differ from the autoencoder that it starts from."""


class PretrainingClips(TrainingClips):
    """Excerpts with their waveforms augmented, both anew in every epoch."""

    clips: Excerpts

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch begins."""
        super().set_epoch(epoch)
        self.clips.set_epoch(epoch)


class MaskingCollator:
    """A list of clips → one batch on the CPU, with the patches that the encoder is to see.

    Gives ``input_values`` (batch, frames, mels), ``num_frames`` (batch,), ``visible_patches`` (batch, k) and
    ``counted`` (batch,), False for clips that stand in for unreadable ones. Masks of training clips are drawn by the
    clip's own generator; those of others by one that knows the clip's name, so that they are always the same.
    """

    def __init__(self, frontend: Frontend, masking: MaskingSettings, grid: tuple[int, int]) -> None:
        self.frontend = frontend
        self.masking = masking
        self.grid = grid

    def __call__(self, clips: Sequence[Clip]) -> dict[str, Tensor]:
        """Make the batch."""
        with torch.no_grad():
            features = self.frontend([torch.as_tensor(clip.waveform) for clip in clips])
        return {
            "input_values": features.input_values,
            "num_frames": features.num_frames,
            "visible_patches": torch.stack([self.visible(_generator(clip)) for clip in clips]),
            "counted": torch.tensor([not clip.stand_in for clip in clips]),
        }

    def visible(self, random: np.random.Generator) -> Tensor:
        """Draw (k,) grid indices f·T + t of the patches that stay visible."""
        masking = self.masking
        if masking.kind == "random":
            return torch.from_numpy(random_visible(self.grid[0] * self.grid[1], masking.ratio, random))
        generator = torch.Generator().manual_seed(int(random.integers(2**62)))
        return structured_mask(1, self.grid, masking.time, masking.frequency, generator=generator)[0]


def _generator(clip: Clip) -> np.random.Generator:
    if isinstance(clip, TrainingClip):
        return clip.random
    return np.random.default_rng(zlib.crc32(clip.id.encode(errors="replace")))


class PretrainingTrainer(RunTrainer):
    """Trainer of a masked autoencoder; evaluates by the loss of every clip, so that none counts twice."""

    model: MaskedAutoencoder

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Loss of a batch, and the losses of its clips as predictions; see `Trainer.compute_loss`."""
        outputs = model(**{name: value for name, value in inputs.items() if name != "counted"})
        if not return_outputs:
            return outputs.loss
        return outputs.loss, {"loss": outputs.loss, "clip_losses": outputs.clip_losses.float()}


def mean_loss(prediction: EvalPrediction) -> dict[str, float]:
    """Mean of the clips' losses, of those that count."""
    losses, counted = np.asarray(prediction.predictions), np.asarray(prediction.label_ids, dtype=bool)
    return {"loss": float(losses[counted].mean()) if counted.any() else float("nan")}


class Pictures(TrainerCallback):
    """Draw reconstructions of some held-out clips now and then.

    Args:
        folder: of the pictures.
        clips: what to draw.
        batch: of these clips, as the collator makes it.
        every: evaluations from a picture to the next.
    """

    def __init__(self, folder: Path, clips: Sequence[Clip], batch: Mapping[str, Tensor], every: int) -> None:
        self.folder = folder
        self.clips = clips
        self.batch = batch
        self.every = every

    def on_evaluate(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        """Draw, if it is time."""
        if state.is_world_process_zero and round(state.global_step / args.eval_steps) % self.every == 0:
            self.draw(model, f"step-{state.global_step:06d}", f"step {state.global_step}")

    def draw(self, model: MaskedAutoencoder, name: str, title: str) -> Path:
        """Draw what a model makes of the clips; see `reconstruction_picture`.

        Args:
            model: in any mode; it is left in evaluation mode.
            name: of the file, without its ending.
            title: above the picture.
        """
        inputs = {name: value.to(model.device) for name, value in self.batch.items() if name != "counted"}
        with torch.no_grad():
            outputs = model.eval()(**inputs, output_reconstruction=True)
        visible = torch.zeros(len(self.clips), model.config.num_patches, dtype=torch.bool)
        visible = visible.scatter(1, self.batch["visible_patches"], True).unflatten(1, model.config.grid)
        drawn = [
            Reconstruction(
                name=clip.id,
                log_mel=self.batch["input_values"][number].numpy(),
                visible=visible[number].numpy(),
                predicted=outputs.reconstruction[number].float().cpu().numpy(),
                num_frames=int(self.batch["num_frames"][number]),
            )
            for number, clip in enumerate(self.clips)
        ]
        self.folder.mkdir(parents=True, exist_ok=True)
        return reconstruction_picture(drawn, model.config.encoder_config(), title, self.folder / f"{name}.png")


def build_autoencoder(config: MaskedConfig, init: str | None) -> MaskedAutoencoder:
    """A fresh autoencoder, or one with the weights of another.

    Args:
        config: of the model.
        init: what `load_autoencoder` takes, or None for random weights.

    Raises:
        InvalidSetting: a field of ``config`` is not that of ``init``, whose weights would not fit it.
        CheckpointError: ``init`` cannot be loaded.
    """
    if init is None:
        return MaskedAutoencoder(config)
    loaded = load_autoencoder(init)
    for name in (*SpectrimConfig.__annotations__, *MaskedConfig.__annotations__):
        wanted, there = getattr(config, name), getattr(loaded.config, name)
        if name not in NOT_IN_WEIGHTS and wanted != there:
            raise InvalidSetting(name, wanted, f"{there!r}, as in {init}")
    model = MaskedAutoencoder(config)
    model.load_state_dict(loaded.state_dict())
    return model


@dataclass(frozen=True)
class PretrainingRun:
    """What a run works with.

    Attributes:
        recipe: what to do.
        output: folder of the run.
        init: autoencoder to start from, or None.
        training: excerpts to train on.
        held_out: excerpts to evaluate on.
        model: to be trained.
    """

    recipe: PretrainRecipe
    output: Path
    init: str | None
    training: Excerpts
    held_out: Excerpts
    model: MaskedAutoencoder


def prepare(
    recipe: PretrainRecipe,
    audio: str | Path,
    output: str | Path,
    init: str | None = None,
    extra_audio: Sequence[str | Path] = (),
) -> PretrainingRun:
    """Find the files and build the model of a run; errors as `pretrain`."""
    config = recipe.configuration()
    rest, held, unheard = recordings_of(recipe.data, Path(audio), recipe.seed, config.sampling_rate)
    for folder in extra_audio:
        rest = [*rest, *further_recordings(Path(folder), unheard)]
    frame, shift = frame_length_and_shift(config.sampling_rate)
    settings: dict[str, Any] = {
        "labels": [],
        "multi_label": False,
        "bad_share": recipe.data.bad_share,
        "samples": (config.max_length - 1) * shift + frame,
        "seed": recipe.seed,
        "sampling_rate": config.sampling_rate,
    }
    transformers.set_seed(recipe.seed)
    model = build_autoencoder(config, init)
    return PretrainingRun(recipe, Path(output), init, Excerpts(rest, **settings), Excerpts(held, **settings), model)


def pretrain(
    recipe: PretrainRecipe,
    audio: str | Path,
    output: str | Path,
    *,
    init: str | Path | None = None,
    extra_audio: Sequence[str | Path] = (),
    resume: bool = False,
    progress: bool = False,
    say: Say | None = None,
) -> dict[str, Any]:
    """Pre-train by a recipe on a folder of audio, or on a data set without its labels.

    Clips longer than the model's input give one excerpt an epoch, at a place drawn anew; shorter ones are padded.

    Args:
        recipe: from `load_pretrain_recipe`.
        audio: folder, searched to any depth; or, where the recipe names a data set, its root on disk.
        output: folder of the run, see `spectrim.training.run_folder`; also ``pictures/``, and at the end
            ``autoencoder/`` (encoder and decoder, see `load_autoencoder`), ``model/``, the encoder without a head, for
            `spectrim.from_pretrained` with ``labels=[…]``, and last ``results.json``.
        init: autoencoder to start from, Spectrim's or AudioMAE's official one with its decoder; None: random weights.
        extra_audio: folders, searched to any depth, whose audio is trained on besides; none of it is held out.
        resume: continue the run in ``output`` from its newest whole checkpoint, or begin it.
        progress: draw a bar, in a terminal or a notebook.
        say: is told evaluations, and now and then the loss, in lines with the time left.

    Returns:
        What ``results.json`` holds.

    Raises:
        InvalidSetting: ``output`` already holds a run and ``resume`` is False; the run in it has another recipe, data
            or start; there is no audio in the folder; or the settings do not suit the data, the start or the machine.
        DataError: there is no such folder, or too many files in it are unreadable.
        CheckpointError: what the run is to go on from is not what it has written.
        TrainingDiverged: the loss is no longer a number.
        OSError: there is no room to write; with room, ``resume`` goes on from the newest whole checkpoint.
    """
    output, init = Path(output), named_start(init)
    run: dict[str, Any] = {"recipe": recipe.model_dump(mode="json"), "data": str(audio), "init": init}
    if extra_audio:
        run["extra_audio"] = [str(folder) for folder in extra_audio]
    check_run(run, output, resume=resume, kind=PretrainRecipe)
    job = prepare(recipe, audio, output, init, extra_audio)
    collator = MaskingCollator(Frontend.from_config(job.model.config), recipe.masking, job.model.config.grid)
    pictures = _pictures(job, collator)
    trainer = build_trainer(job, collator, [] if pictures is None else [pictures], progress=progress, say=say)
    clips = {"training": job.training, "held_out": job.held_out}
    check_nodes(output, clips.values())
    newest = CheckpointFolder(output / CHECKPOINTS).newest() if resume else None
    if newest is not None:
        trainer.check_checkpoint(newest)
        check_clips(output, clips)
    begin_run(run, output)
    write_clips(output, clips)
    with own_bars(trainer), named_when_full(output):
        trainer.train(resume_from_checkpoint=None if newest is None else str(newest))
    return _conclude(trainer, job, pictures)


def build_trainer(
    job: PretrainingRun,
    collator: MaskingCollator,
    callbacks: Sequence[TrainerCallback] = (),
    *,
    progress: bool = False,
    say: Say | None = None,
) -> PretrainingTrainer:
    """The Trainer of a run."""
    recipe, evaluation, stop = job.recipe, job.recipe.evaluation, job.recipe.optimiser.stop_after_epochs
    clips = PretrainingClips(job.training, AugmentSettings(roll_and_gain=recipe.roll_and_gain), recipe.seed)
    arguments = run_arguments(
        job.output,
        recipe.optimiser,
        recipe.schedule,
        clips=len(clips),
        every_epochs=evaluation.every_epochs,
        first_epoch=0.0,
        evaluation_batch=evaluation.batch_size,
        metric=None,
        workers=recipe.workers,
        seed=recipe.seed,
    )
    arguments.label_names = ["counted"]
    return PretrainingTrainer(
        model=job.model,
        args=arguments,
        optimiser_settings=recipe.optimiser,
        schedule_settings=recipe.schedule,
        data_collator=collator,
        train_dataset=clips,
        eval_dataset=job.held_out,
        compute_metrics=mean_loss,
        callbacks=[
            RunCourse(clips, stop),
            RunLog(job.output, lambda epoch: {}, say if is_main_process() else None, stop),
            *([RunProgress(lambda epoch: {}, stop_after_epochs=stop)] if progress and is_main_process() else []),
            *tensorboard_callback(recipe.tensorboard, job.output),
            *callbacks,
        ],
    )


def _pictures(job: PretrainingRun, collator: MaskingCollator) -> Pictures | None:
    evaluation = job.recipe.evaluation
    if not evaluation.picture_every or not is_main_process():
        return None
    shown = [job.held_out[number] for number in range(min(evaluation.picture_clips, len(job.held_out)))]
    return Pictures(job.output / PICTURES, shown, collator(shown), evaluation.picture_every)


def _conclude(trainer: PretrainingTrainer, job: PretrainingRun, pictures: Pictures | None) -> dict[str, Any]:
    """Evaluate the last weights, and write models and results."""
    state = trainer.state
    loss = trainer.predict(job.held_out).metrics["test_loss"]
    parts = {"training": job.training, "held_out": job.held_out}
    results = {
        "step": state.global_step,
        "epoch": state.global_step / (state.max_steps / job.recipe.optimiser.epochs),
        "held_out_loss": loss,
        **{f"{name}_files": len(part) for name, part in parts.items()},
        "replaced_files": {name: part.broken for name, part in parts.items() if part.broken},
        "licence": None if job.init is None else describe(job.init)["licence"],
    }
    if is_main_process():
        if pictures is not None:
            pictures.draw(job.model, "final", f"step {state.global_step}, the last")
        save_autoencoder(job.model, job.output / "autoencoder")
        save_encoder(job.model, job.output / "model")
        write_json(job.output / "results.json", results)
    trainer.accelerator.wait_for_everyone()
    return results
