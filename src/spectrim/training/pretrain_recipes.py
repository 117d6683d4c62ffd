"""Recipes of masked pre-training: YAML files like those of `spectrim.training.recipes`, and as strictly checked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from spectrim.backbones import BUILDERS
from spectrim.data import find_data_set
from spectrim.errors import InvalidSetting
from spectrim.network.masked.config import MaskedConfig
from spectrim.training.recipe_files import read_settings
from spectrim.training.recipes import (
    ModelSettings,
    OptimiserSettings,
    ScheduleSettings,
    StrictSettings,
    check_course,
)

OF_FINE_TUNING = ("fresh_head", "head_init", "positions", "stride", "frames")
"""Fields of `ModelSettings` that say nothing here: there is no head, and a start has the recipe's sizes."""


class DecoderSettings(StrictSettings):
    """The decoder and what it predicts; see `MaskedConfig`, whose fields have ``decoder_`` before the first seven.

    Attributes:
        width: of a token.
        layers: number of blocks.
        heads: in each block.
        attention: ``"local"`` or ``"global"``.
        window: side of a window in patches.
        shift: patches by which every second block's windows are moved in time.
        bias_dropout: dropout of the position biases.
        normalise_patches: predict patches without their mean and standard deviation.
        ignore_padding: leave patches that hold only padding out of the loss.
    """

    width: PositiveInt = 512
    layers: PositiveInt = 16
    heads: PositiveInt = 16
    attention: Literal["local", "global"] = "local"
    window: PositiveInt = 4
    shift: int = Field(default=2, ge=0)
    bias_dropout: float = Field(default=0.1, ge=0.0, lt=1.0)
    normalise_patches: bool = True
    ignore_padding: bool = False


class MaskingSettings(StrictSettings):
    """What the encoder does not see.

    Attributes:
        kind: ``"random"``: patches; ``"structured"``: whole columns and rows of them (AudioMAE's 2-D masking).
        ratio: share of the patches that random masking hides.
        time: share of the columns that structured masking hides.
        frequency: share of the rows, likewise.
    """

    kind: Literal["random", "structured"] = "random"
    ratio: float = Field(default=0.8, gt=0.0, lt=1.0)
    time: float = Field(default=0.7, ge=0.0, lt=1.0)
    frequency: float = Field(default=0.3, ge=0.0, lt=1.0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "structured" and self.time == self.frequency == 0.0:
            raise InvalidSetting("time", 0.0, "above 0, or masking.frequency above 0: nothing would be masked")
        return self


class PretrainDataSettings(StrictSettings):
    """What is heard: a folder of audio, or a data set without its labels.

    Attributes:
        name: in `spectrim.data.DATA_SETS`: its training part is trained on, files of its validation part are held
            out, and its test part is not heard. None: any folder of audio.
        options: of the data set's opener.
        held_out: files to evaluate on; of a folder at most a tenth of all.
        bad_share: share of the files that may be unreadable.
    """

    name: str | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    held_out: PositiveInt = 256
    bad_share: float = Field(default=0.05, ge=0.0, le=1.0)


class PretrainEvaluationSettings(StrictSettings):
    """Evaluation on the files held out, always with the same excerpts and masks.

    Attributes:
        every_epochs: from one evaluation, and checkpoint, to the next.
        batch_size: clips in a forward pass.
        picture_every: evaluations from a picture of reconstructions to the next; 0 for none.
        picture_clips: clips in a picture.
    """

    every_epochs: PositiveFloat = 1
    batch_size: PositiveInt = 64
    picture_every: int = Field(default=1, ge=0)
    picture_clips: PositiveInt = 4


class PretrainRecipe(StrictSettings):
    """A run of masked pre-training. See ``recipes/audiomae-pretrain-*.yaml``.

    Attributes:
        model: the encoder; ``builder`` and ``fields``.
        roll_and_gain: roll each waveform by any number of samples and scale it by 0.5 + Beta(10, 10).
        workers: processes that read clips; 0: the training process itself.
        tensorboard: write TensorBoard's event files; None: where it is installed.
        seed: of everything that is drawn, below 2^32, which is the most that NumPy takes.
    """

    name: str
    description: str = ""
    model: ModelSettings = Field(default_factory=lambda: ModelSettings(builder="audiomae-base"))
    decoder: DecoderSettings = Field(default_factory=DecoderSettings)
    masking: MaskingSettings = Field(default_factory=MaskingSettings)
    data: PretrainDataSettings = Field(default_factory=PretrainDataSettings)
    optimiser: OptimiserSettings = Field(default_factory=OptimiserSettings)
    schedule: ScheduleSettings = Field(default_factory=ScheduleSettings)
    roll_and_gain: bool = False
    evaluation: PretrainEvaluationSettings = Field(default_factory=PretrainEvaluationSettings)
    workers: int = Field(default=0, ge=0)
    tensorboard: bool | None = None
    seed: int = Field(default=0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuse combinations of fields that cannot be run, or that make no model."""
        check_course(self.optimiser, self.schedule)
        if self.optimiser.layer_decay != 1.0:
            raise InvalidSetting("optimiser.layer_decay", self.optimiser.layer_decay, "1: all layers begin anew")
        for name in OF_FINE_TUNING:
            value, default = getattr(self.model, name), ModelSettings.model_fields[name].default
            if value != default:
                raise InvalidSetting(f"model.{name}", value, f"{default!r}: it has no part in pre-training")
        if self.data.name is not None:
            find_data_set(self.data.name, "data.name")
        elif self.data.options:
            raise InvalidSetting("data.options", self.data.options, "none without data.name")
        self.configuration()
        return self

    def configuration(self) -> MaskedConfig:
        """The model that the recipe describes."""
        encoder = BUILDERS[self.model.builder](**{"prune_at": [], **self.model.fields})
        named = self.decoder.model_dump()
        plain = {name: named.pop(name) for name in ("normalise_patches", "ignore_padding")}
        return MaskedConfig.around(encoder, **plain, **{f"decoder_{name}": value for name, value in named.items()})


def load_pretrain_recipe(path: str | Path, overrides: Sequence[str] = ()) -> PretrainRecipe:
    """Read a recipe of pre-training; arguments and errors as `spectrim.training.recipe_files.load_recipe`."""
    return read_settings(PretrainRecipe, path, overrides)
