"""Recipes: the settings of a training run, checked before any work; `spectrim.training.recipe_files` reads them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, create_model, model_validator

from spectrim.backbones import BUILDERS
from spectrim.checkpoints import DescribedSource
from spectrim.config import SpectrimConfig
from spectrim.errors import InvalidSetting, nearest_of, one_of
from spectrim.network.positions import POSITION_METHODS
from spectrim.pruning.pruning import FLAT_NAMES, Pruning
from spectrim.pruning.reducers import REDUCERS

Share = Field(default=0.0, ge=0.0, lt=1.0)
Factor = Annotated[float, Field(ge=0.5, le=2.0)]
Beta = Annotated[float, Field(ge=0.0, lt=1.0)]

INIT = "init"
"""Stands, as a teacher, for the checkpoint that a run starts from."""

SET_ELSEWHERE = {
    **{name: f"pruning.{name}" for name in FLAT_NAMES},
    "predictor_blocks": "pruning.prune_at",
    "problem_type": "loss",
    "id2label": "data",
    "label2id": "data",
    "num_labels": "data",
}
"""Fields of `SpectrimConfig` that ``model.fields`` does not set → what does."""


class StrictSettings(BaseModel):
    """Settings that refuse a field they do not know.

    Validators raise `InvalidSetting`, with the field's name as seen from the settings that the validator belongs to;
    `spectrim.training.recipe_files.read_settings` puts the names of the settings around it in front.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_fields(cls, values: Any) -> Any:
        for name in values if isinstance(values, dict) else ():
            if name not in cls.model_fields:
                deeper = cls._deeper(str(name))
                allowed = f"{deeper}, perhaps; {one_of(cls.model_fields)}" if deeper else None
                raise InvalidSetting(str(name), values[name], allowed or nearest_of(str(name), cls.model_fields))
        return values

    @classmethod
    def _deeper(cls, name: str) -> str:
        """Where settings inside these have a field of this name, e.g. ``"optimiser.epochs"``; ``""`` if none has."""
        inside = {
            field: kind.annotation.model_fields
            for field, kind in cls.model_fields.items()
            if isinstance(kind.annotation, type) and issubclass(kind.annotation, StrictSettings)
        }
        return " or ".join(f"{field}.{name}" for field, names in inside.items() if name in names)


class ModelSettings(StrictSettings):
    """The model to build when no checkpoint is given; fields of `SpectrimConfig` that differ from the builder's.

    The data set's mean, std and length stand where ``fields`` says nothing. With a checkpoint, sizes must agree.

    Attributes:
        fresh_head: begin with a head of its own though the checkpoint has one for the same labels, as AST's code does.
        head_init: of a fresh head: ``"normal"``, a truncated normal distribution of ``head_init_std`` and a bias of
            zero; ``"linear"``, what torch's ``nn.Linear`` begins with, weights and bias.
        positions: how a checkpoint's position table is fitted to another length; see
            `spectrim.network.positions.adapt_position_table`.
        stride: of the checkpoint that training starts from, where its file does not say it: one number, or one along
            frequency and one along time.
        frames: the length that this checkpoint was trained for, likewise.
    """

    builder: str = "ast-base"
    fields: dict[str, Any] = Field(default_factory=dict)
    fresh_head: bool = False
    head_init: Literal["normal", "linear"] = "normal"
    positions: str = "auto"
    stride: PositiveInt | tuple[PositiveInt, PositiveInt] | None = None
    frames: PositiveInt | None = None

    def start(self, init: str) -> DescribedSource:
        """The checkpoint that training starts from, with what the recipe says of it."""
        return DescribedSource(init, self.stride, self.frames)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.builder not in BUILDERS:
            raise InvalidSetting("builder", self.builder, nearest_of(self.builder, BUILDERS))
        known = SpectrimConfig.__dataclass_fields__.keys() - SET_ELSEWHERE.keys()
        for name, value in self.fields.items():
            if name in SET_ELSEWHERE:
                raise InvalidSetting(f"fields.{name}", value, f"{SET_ELSEWHERE[name]} in its place")
            if name not in known:
                raise InvalidSetting(f"fields.{name}", value, nearest_of(name, known))
        if self.positions not in POSITION_METHODS:
            raise InvalidSetting("positions", self.positions, nearest_of(self.positions, POSITION_METHODS))
        return self


class DataSettings(StrictSettings):
    """The data set, by its name in `spectrim.data.DATA_SETS`, and options of its opener."""

    name: str
    options: dict[str, Any] = Field(default_factory=dict)


class OptimiserSettings(StrictSettings):
    """Optimiser and steps.

    Attributes:
        name: ``"adam"`` (weight decay is added to the gradient) or ``"adamw"`` (decoupled).
        learning_rate: the highest; of a batch of ``per_batch`` clips if that is given, and then scaled linearly.
        per_batch: batch size that ``learning_rate`` is for; None: whatever ``batch_size`` is.
        decay: ``"matrices"`` decays weight matrices only; ``"all"`` every trained parameter, as AST's code does.
        layer_decay: factor of the rate from a block to the one below it (Bao et al., 2022); the head has 1, block i of
            depth D has ``layer_decay**(D − i)``, the embeddings ``layer_decay**(D + 1)``.
        backbone_rate: factor of the rate of all weights but DynamicViT's predictors.
        batch_size: clips in a step, over all processes and accumulated batches.
        accumulate: forward passes in a step.
        drop_last: leave out what does not fill the last batch of an epoch.
        epochs: length of the whole course.
        stop_after_epochs: end the run early on that course.
        max_grad_norm: gradients are scaled down to this norm; 0 for never.
        precision: of the forward pass; ``"fp16"`` needs a GPU. ``"auto"``: fp16 on one from NVIDIA, as the public code
            has it, bf16 on another, fp32 without.
    """

    name: Literal["adam", "adamw"] = "adamw"
    learning_rate: PositiveFloat = 1e-3
    per_batch: PositiveInt | None = None
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    weight_decay: float = Field(default=0.0, ge=0.0)
    decay: Literal["matrices", "all"] = "matrices"
    layer_decay: float = Field(default=1.0, gt=0.0, le=1.0)
    backbone_rate: float = Field(default=1.0, gt=0.0, le=1.0)
    batch_size: PositiveInt = 64
    accumulate: PositiveInt = 1
    drop_last: bool = False
    epochs: PositiveFloat = 10
    stop_after_epochs: PositiveFloat | None = None
    max_grad_norm: float = Field(default=1.0, ge=0.0)
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "fp32"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.batch_size % self.accumulate:
            raise InvalidSetting("accumulate", self.accumulate, f"a divisor of optimiser.batch_size={self.batch_size}")
        return self

    @property
    def peak(self) -> float:
        """The highest learning rate of the run."""
        return self.learning_rate * (self.batch_size / self.per_batch if self.per_batch else 1.0)


class ScheduleSettings(StrictSettings):
    """The course of the learning rate: linear warm-up, then down, or not.

    Attributes:
        kind: ``"cosine"``: half a cosine to ``final`` at the end of the run, moved at every step. ``"step"``: times
            ``factor`` after ``start`` epochs and after every further ``every`` of them, moved where an epoch begins.
            ``"constant"``.
        warmup_epochs: length of the warm-up in epochs.
        warmup_steps: the same in steps, instead.
        warmup_form: the share of the rate at step k (from 0) of a warm-up of n: ``"rising"``, (k + 1)/(n + 1);
            ``"from_zero"``, k/n, as in AudioMAE; ``"stairs"``, the same moved every fifty steps, as in AST.
        final: learning rate at the end of a cosine.
        start: epochs before the first step down; above 0 with ``"step"``.
        every: epochs from a step down to the next.
        factor: of a step down.
    """

    kind: Literal["cosine", "step", "constant"] = "cosine"
    warmup_epochs: float = Field(default=0.0, ge=0.0)
    warmup_steps: int = Field(default=0, ge=0)
    warmup_form: Literal["rising", "from_zero", "stairs"] = "rising"
    final: float = Field(default=0.0, ge=0.0)
    start: float = Field(default=0.0, ge=0.0)
    every: PositiveFloat = 1
    factor: float = Field(default=0.5, gt=0.0, le=1.0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.warmup_epochs and self.warmup_steps:
            raise InvalidSetting("warmup_steps", self.warmup_steps, "0 beside warmup_epochs")
        if self.kind == "step" and not self.start:
            allowed = "more than 0 with kind: step, the epochs at learning_rate itself: from 0 on no step has it"
            raise InvalidSetting("start", self.start, allowed)
        return self


_FIELDS: dict[str, Any] = {name: (Any, value) for name, value in Pruning().to_flat().items()}
OperatingPointSettings: Any = create_model("OperatingPointSettings", __base__=StrictSettings, **_FIELDS)
"""The fields of `spectrim.Pruning`, named as in config.json."""


class PruningSettings(OperatingPointSettings):
    """The operating point to train for, and how the keep rate falls to it (EViT's annealing).

    The keep rate is 1 until ``shrink_start`` epochs, falls by a cosine over ``shrink_epochs``, and then stays at
    ``keep_rate``, which is one number here. ``anneal_every`` "step" moves it at every step, as EViT does; "epoch" at
    every epoch, as the paper's code does.

    With ``reducer: dynamicvit`` the rate is what `ratio_weight` pulls the share of kept patches to, times the weight of
    that loss (`spectrim.network.losses.ratio_loss`).
    """

    shrink_start: float = Field(default=0.0, ge=0.0)
    shrink_epochs: float = Field(default=0.0, ge=0.0)
    anneal_every: Literal["step", "epoch"] = "step"
    ratio_weight: float = Field(default=2.0, ge=0.0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        point = self.operating_point
        if not isinstance(point.keep_rate, float):
            raise InvalidSetting("keep_rate", self.keep_rate, "one number in (0, 1]: training anneals all blocks alike")
        point.check(max(point.at, default=0) + 1)
        self.__dict__.update(point.to_flat())
        return self

    @property
    def operating_point(self) -> Pruning:
        """Where the model works when training is done."""
        return Pruning().changed({name: getattr(self, name) for name in FLAT_NAMES})


class DistillationSettings(StrictSettings):
    """Learning from a dense model beside the labels (DynamicViT: Rao et al., 2021, section 3.2).

    Attributes:
        teacher: a checkpoint with the labels of the data, as ``--init`` takes; ``"init"``: what the run starts from;
            None: no teacher.
        logits: weight of the divergence from the teacher's labels.
        tokens: weight of the squared difference from its patches after the last block and norm, of those that are kept;
            needs ``pruning.reducer: dynamicvit``, which removes none while it trains.
    """

    teacher: str | None = None
    logits: float = Field(default=0.5, ge=0.0)
    tokens: float = Field(default=0.5, ge=0.0)


class AugmentSettings(StrictSettings):
    """What is changed in training clips; see `spectrim.training.augment`.

    With pruning, ``time_mask``, ``frequency_mask``, ``mask_time`` and ``mask_frequency`` are off from
    ``pruning.shrink_start`` on, as in the paper.

    Attributes:
        mixup: probability that another clip is mixed into a clip's waveform, and its labels into the labels.
        mixup_alpha: the share of the first clip is drawn from Beta(α, α).
        time_mask: SpecAug, widest stripe of frames that is blanked.
        frequency_mask: SpecAug, widest stripe of mel bins that is blanked.
        noise: add uniform noise of a drawn level to the spectrogram and roll it by up to ten frames.
        roll_and_gain: roll the waveform by any number of samples and scale it by 0.5 + Beta(10, 10).
        mask_time: share of the patch columns that are removed before block 0 (AudioMAE's 2-D masking).
        mask_frequency: share of the patch rows.
        label_smoothing: this share of a target is spread over all labels.
        speed: factors of which one is drawn for every clip: it is played so many times as fast, and so much higher.
        pitch: factors likewise, by which the spectrogram's frequencies are stretched; time stays as it is.
    """

    mixup: float = Field(default=0.0, ge=0.0, le=1.0)
    mixup_alpha: PositiveFloat = 10.0
    time_mask: int = Field(default=0, ge=0)
    frequency_mask: int = Field(default=0, ge=0)
    noise: bool = False
    roll_and_gain: bool = False
    mask_time: float = Share
    mask_frequency: float = Share
    label_smoothing: float = Share
    speed: list[Factor] = Field(default_factory=list)
    pitch: list[Factor] = Field(default_factory=list)


class SamplingSettings(StrictSettings):
    """The clips of an epoch; see `spectrim.training.sampling`.

    Attributes:
        kind: ``"all"``: every clip once, in a drawn order. ``"balanced"``: drawn by weights that are higher for rare
            labels.
        clips_per_epoch: how many are drawn; None: as many as there are.
        replacement: whether a clip can be drawn more than once in an epoch (PSLA, AST), or not (AudioMAE).
    """

    kind: Literal["all", "balanced"] = "all"
    clips_per_epoch: PositiveInt | None = None
    replacement: bool = True

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.kind == "all" and self.clips_per_epoch is not None:
            raise InvalidSetting("clips_per_epoch", self.clips_per_epoch, "none with kind: all")
        return self


class EvaluationSettings(StrictSettings):
    """Evaluation on the validation part, always at ``pruning.keep_rate``, and the test at the end.

    Attributes:
        every_epochs: from one evaluation, and checkpoint, to the next.
        first_epoch: epochs before the first evaluation; checkpoints are written all the same.
        choose: ``"best"``: the model is the checkpoint with the best metric; ``"last"``: the last weights;
            ``"average"``: the mean of the weights of the last ``average_last`` checkpoints, as AST's and PSLA's.
        average_last: how many.
        batch_size: clips in a forward pass.
        test_keep_rates: at which the model is tested when the run ends, beside ``pruning.keep_rate``.
    """

    every_epochs: PositiveFloat = 1
    first_epoch: float = Field(default=0.0, ge=0.0)
    choose: Literal["best", "last", "average"] = "best"
    average_last: PositiveInt = 5
    batch_size: PositiveInt = 128
    test_keep_rates: list[Annotated[float, Field(gt=0.0, le=1.0)]] = Field(
        default_factory=lambda: [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]
    )


class Recipe(StrictSettings):
    """A training run. See the files in ``recipes/``.

    Attributes:
        loss: ``"auto"`` is binary cross-entropy for data sets with several labels a clip, else cross-entropy.
        workers: processes that read and augment clips; 0: the training process itself.
        tensorboard: write TensorBoard's event files; None: where it is installed.
        seed: of everything that is drawn, below 2^32, which is the most that NumPy takes.
    """

    name: str
    description: str = ""
    data: DataSettings
    model: ModelSettings = Field(default_factory=ModelSettings)
    loss: Literal["auto", "cross_entropy", "binary_cross_entropy"] = "auto"
    sampling: SamplingSettings = Field(default_factory=SamplingSettings)
    optimiser: OptimiserSettings = Field(default_factory=OptimiserSettings)
    schedule: ScheduleSettings = Field(default_factory=ScheduleSettings)
    pruning: PruningSettings = Field(default_factory=PruningSettings)
    distillation: DistillationSettings = Field(default_factory=DistillationSettings)
    augment: AugmentSettings = Field(default_factory=AugmentSettings)
    evaluation: EvaluationSettings = Field(default_factory=EvaluationSettings)
    workers: int = Field(default=0, ge=0)
    tensorboard: bool | None = None
    seed: int = Field(default=0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Refuse combinations of fields that cannot be run."""
        check_course(self.optimiser, self.schedule)
        pruning, epochs = self.pruning, self.optimiser.epochs
        end = pruning.shrink_start + pruning.shrink_epochs
        if pruning.keep_rate < 1.0 and end > epochs:
            allowed = f"a start and a length that end within optimiser.epochs={epochs:g}"
            raise InvalidSetting("pruning.shrink_start + pruning.shrink_epochs", end, allowed)
        if self.augment.noise and pruning.drop_padding:
            allowed = "false with pruning.drop_padding: it rolls padding into the clip, and sound into the padding"
            raise InvalidSetting("augment.noise", True, allowed)
        taught = self.distillation.teacher is not None and self.distillation.tokens > 0
        if taught and REDUCERS[pruning.reducer].reads != "predictor" and pruning.keep_rate < 1.0:
            allowed = f"0 with pruning.reducer={pruning.reducer!r}: the teacher's tokens are others than those left"
            raise InvalidSetting("distillation.tokens", self.distillation.tokens, allowed)
        evaluation = self.evaluation
        for rate in evaluation.test_keep_rates:
            point = pruning.operating_point.changed({"keep_rate": rate})
            try:
                point.check(max(point.at, default=0) + 1)
            except InvalidSetting as error:
                raise InvalidSetting("evaluation.test_keep_rates", rate, error.allowed) from error
        if evaluation.choose == "average" and evaluation.average_last * evaluation.every_epochs > epochs:
            allowed = f"as many as there are checkpoints in {epochs:g} epochs, one every {evaluation.every_epochs:g}"
            raise InvalidSetting("evaluation.average_last", evaluation.average_last, allowed)
        if self.evaluation.first_epoch > epochs:
            raise InvalidSetting(
                "evaluation.first_epoch", self.evaluation.first_epoch, f"up to optimiser.epochs={epochs:g}"
            )
        return self


def check_course(optimiser: OptimiserSettings, schedule: ScheduleSettings) -> None:
    """Raise `InvalidSetting` where a schedule or an early end does not fit the optimiser's epochs and rate."""
    stop = optimiser.stop_after_epochs
    if stop is not None and stop > optimiser.epochs:
        raise InvalidSetting("optimiser.stop_after_epochs", stop, f"up to optimiser.epochs={optimiser.epochs:g}")
    if schedule.warmup_epochs > optimiser.epochs:
        allowed = f"up to optimiser.epochs={optimiser.epochs:g}"
        raise InvalidSetting("schedule.warmup_epochs", schedule.warmup_epochs, allowed)
    if schedule.final > optimiser.peak:
        allowed = f"up to the highest learning rate, {optimiser.peak:g}"
        raise InvalidSetting("schedule.final", schedule.final, allowed)
