"""The configuration of a model: backbone, front end and pruning, saved together in ``config.json``.

AST, AudioMAE and the others are one encoder here; every difference between them is a field of `SpectrimConfig`. The
published ones have their settings in `spectrim.backbones`.
"""

from __future__ import annotations

import copy
import importlib
import math
from collections.abc import Sequence
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from spectrim.audio.filterbank import FEATURES, check_features
from spectrim.audio.normalisation import NORMALISATIONS
from spectrim.errors import InvalidSetting, one_of
from spectrim.pruning.criteria import AUTO, BACKBONE_CRITERIA
from spectrim.pruning.plan import BlockPlan, Encoder
from spectrim.pruning.pruning import FLAT_NAMES, Pruning

PADDINGS = ("zero", "minimum", "silence")
ACTIVATIONS = ("gelu", "gelu_pytorch_tanh")
PATCH_ORDERS = ("frequency_major", "time_major")
POOLINGS = ("extra_tokens", "mean_patches", "mean_normed_patches")
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification")
SWITCHES = (
    *("input_norm", "embedding_norm", "position_trainable", "separate_positions"),
    *("head_norm", "qkv_bias", "norm_first", "deep_norm"),
)
LEAST_WHOLE_NUMBERS = {
    "hidden_size": 1,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 1,
    "num_mel_bins": 1,
    "max_length": 1,
    "frequency_stride": 1,
    "time_stride": 1,
    "extra_tokens": 0,
    "embedding_size": 0,
    "position_kernel": 0,
    "position_groups": 1,
    "relative_buckets": 0,
    "relative_distance": 1,
    "sampling_rate": 1,
    "num_labels": 1,
}
"""The smallest value of every field that is a whole number."""


LARGEST_WHOLE_NUMBERS = {
    "hidden_size": 1 << 15,
    "num_hidden_layers": 1000,
    "intermediate_size": 1 << 18,
    "num_mel_bins": 4096,
    "max_length": 1_000_000,
    "embedding_size": 1 << 15,
    "position_kernel": 1 << 12,
    "relative_buckets": 1 << 16,
    "relative_distance": 1 << 24,
    "sampling_rate": 10_000_000,
    "num_labels": 1_000_000,
}
"""The largest value: far above any model, and below what would fill the memory before anything is refused."""

LARGEST_PATCH = 1024
"""The largest side of a patch, likewise."""


class SpectrimConfig(PreTrainedConfig):
    """Configuration of an `AudioTransformer`.

    Args:
        backbone: ``"ast"``, ``"audiomae"``, ``"beats"``, ``"ced"``, ``"eat"``, ``"kwt"``, ``"passt"`` or ``"ssast"``;
            says which attention score ``criterion="auto"`` means.
        hidden_size: width of a token.
        num_hidden_layers: number of blocks.
        num_attention_heads: heads per block.
        intermediate_size: hidden width of the MLP.
        num_mel_bins: height of the input: mel bins of the log-mel spectrogram, or with MFCC the coefficients.
        max_length: width of the input, in frames of 10 ms.
        input_norm: whether the model normalises each mel bin by statistics of its own before it cuts patches (CED).
        patch_size: side of a patch, in mel bins and in frames; or both, where they differ.
        frequency_stride: step between patches in mel bins; below ``patch_size`` the patches overlap.
        time_stride: step between patches in frames.
        extra_tokens: 2 for AST ([CLS], [DIST]), 1 for AudioMAE, EAT and the Keyword Transformer ([CLS]), 0 for
            BEATs and CED.
        embedding_size: width in which patches are projected without a bias and normalised, before they are brought to
            ``hidden_size`` (BEATs); 0: they are projected to that at once.
        embedding_norm: whether tokens with their positions are normalised before block 0 (EAT).
        patch_order: order of the patches in the sequence, ``"frequency_major"`` (AST: index f·T + t)
            or ``"time_major"`` (AudioMAE: index t·F + f).
        position_trainable: whether the position table is learned (AST) or fixed sin-cos (AudioMAE).
        separate_positions: whether there is, instead of that table, a position for each frequency and one for each
            time, both of which a patch gets (PaSST, CED).
        position_kernel: instead of a table, positions are what a convolution over so many places of the sequence finds
            around a patch (BEATs); 0: there is none.
        position_groups: groups of its channels.
        relative_buckets: attention gets a bias by the distance of two patches in the sequence, weighed by a gate of the
            query (BEATs), which has a number for each of so many ranges of distances; 0: there is none.
        relative_distance: distance from which on all are in the last of them.
        pooling: ``"extra_tokens"``: final LayerNorm, then the mean of the extra tokens (AST);
            ``"mean_patches"``: mean of the surviving patches, then LayerNorm (AudioMAE); ``"mean_normed_patches"``:
            LayerNorm, then their mean (SSAST, CED).
        norm_first: whether a block normalises before attention and before the MLP (pre-norm), and the model after the
            last block; or, as in the first Transformer (Vaswani et al., 2017), after each residual (post-norm), and
            nothing after the last block.
        deep_norm: whether post-norm blocks weigh the residual (2·``num_hidden_layers``)^¼ times as much as the branch
            (Wang et al., 2022, DeepNet; BEATs).
        hidden_act: of the MLP: ``"gelu"``, or ``"gelu_pytorch_tanh"``, its approximation by tanh.
        head_norm: whether the head has a LayerNorm of its own before its linear layer (AST).
        layer_norm_eps: eps of the encoder's LayerNorms; it differs between checkpoint layouts.
        head_norm_eps: eps of the head's LayerNorm.
        qkv_bias: whether the query, key and value projections have a bias.
        predictor_blocks: blocks that have a predictor, which ``reducer="dynamicvit"`` asks; None for no block.
        drop_path_rate: stochastic depth, rising linearly from 0 at the first block to this at the last.
        initializer_range: standard deviation of the truncated normal that initialises the weights.
        head_init_std: the same for the head's linear layer (AudioMAE fine-tuning uses 2e-5).
        sampling_rate: of the waveform, in hertz.
        features: what the front end makes of it: ``"log_mel"``, Kaldi filterbanks, ``"povey_log_mel"``, BEATs's,
            ``"mfcc"``, the cepstral coefficients of the Keyword Transformer, ``"centred_log_mel"``, PaSST's, or
            ``"mel_decibels"``, CED's; see `spectrim.audio.filterbank.FEATURES`.
        mean: mean of the log-mel values (or coefficients) of the training data, in natural-log units.
        std: their standard deviation; the front end computes (x − mean) / (2·std).
        padding: what fills frames past the end of a clip: before normalising ``"zero"`` or ``"minimum"`` (the smallest
            log-mel value of the clip); or ``"silence"``: the clip goes on with samples of 0.
        pruning: the operating point; or, instead, its fields one by one under their names in config.json
            (`spectrim.pruning.pruning.FLAT_NAMES`), which can also be read and set on the configuration.

    Raises:
        InvalidSetting: naming the field, its value and what is allowed.

    Examples:
        >>> config = spectrim.SpectrimConfig(max_length=128, keep_rate=0.7)
        >>> config.grid, config.pruning.rates
        ((8, 8), {3: 0.7, 6: 0.7, 9: 0.7})
    """

    model_type = "spectrim"

    backbone: str = "ast"
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    num_mel_bins: int = 128
    max_length: int = 1024
    input_norm: bool = False
    patch_size: int | list[int] = 16
    frequency_stride: int = 16
    time_stride: int = 16
    extra_tokens: int = 2
    embedding_norm: bool = False
    embedding_size: int = 0
    patch_order: str = "frequency_major"
    position_trainable: bool = True
    separate_positions: bool = False
    position_kernel: int = 0
    position_groups: int = 1
    relative_buckets: int = 0
    relative_distance: int = 1280
    pooling: str = "extra_tokens"
    norm_first: bool = True
    deep_norm: bool = False
    hidden_act: str = "gelu"
    head_norm: bool = True
    layer_norm_eps: float = 1e-6
    head_norm_eps: float = 1e-5
    qkv_bias: bool = True
    predictor_blocks: list[int] | tuple[int, ...] | None = None
    drop_path_rate: float = 0.0
    initializer_range: float = 0.02
    head_init_std: float = 0.02
    sampling_rate: int = 16000
    features: str = "log_mel"
    mean: float = NORMALISATIONS["audioset"].mean
    std: float = NORMALISATIONS["audioset"].std
    padding: str = "zero"

    def __post_init__(self, **kwargs: Any) -> None:
        # Registers the model with transformers' Auto classes; a string, since the model imports this module.
        importlib.import_module("spectrim.network.transformer")
        outputs = len(self.id2label) if self.id2label else kwargs.get("num_labels")
        if outputs == 1:
            self.problem_type = "multi_label_classification"  # one softmax over one output would always say 1
        flat = {name: kwargs.pop(name) for name in FLAT_NAMES if name in kwargs}
        self.pruning: Pruning = kwargs.pop("pruning", None) or Pruning()
        super().__post_init__(**kwargs)
        self.pruning = self.pruning.changed(flat)
        if self.id2label and not getattr(self, "label2id", None):
            self.label2id = {name: number for number, name in self.id2label.items()}
        self.check()

    def __getattr__(self, name: str) -> Any:
        if name in FLAT_NAMES and "pruning" in self.__dict__:
            return self.pruning.to_flat()[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        if name in FLAT_NAMES:
            name, value = "pruning", self.pruning.changed({name: value})
        super().__setattr__(name, value)

    def to_dict(self) -> dict[str, Any]:
        """All fields as config.json holds them: those of the operating point stand beside the others."""
        fields = super().to_dict()
        fields.pop("pruning", None)
        return {**fields, **self.pruning.to_flat()}

    @classmethod
    def own_fields(cls, config: SpectrimConfig) -> dict[str, Any]:
        """What `SpectrimConfig` adds to every transformers configuration, flat, in copies."""
        own = {name: copy.copy(getattr(config, name)) for name in SpectrimConfig.__annotations__}
        return {**own, **config.pruning.to_flat()}

    @property
    def grid(self) -> tuple[int, int]:
        """Number of patches along frequency and along time, (F, T)."""
        return self.grid_for(self.max_length)

    def grid_for(self, frames: int) -> tuple[int, int]:
        """Number of patches (F, T) that an input of this many frames is cut into."""
        height, width = self.patch_shape
        return (
            (self.num_mel_bins - height) // self.frequency_stride + 1,
            (frames - width) // self.time_stride + 1,
        )

    @property
    def patch_shape(self) -> tuple[int, int]:
        """Sides of a patch along frequency and along time, in mel bins and in frames."""
        if isinstance(self.patch_size, int):
            return self.patch_size, self.patch_size
        height, width = self.patch_size
        return height, width

    @property
    def overlapping(self) -> bool:
        """Whether a point of the input can lie in more than one patch."""
        height, width = self.patch_shape
        return self.frequency_stride < height or self.time_stride < width

    @property
    def pictured(self) -> SpectrimConfig:
        """The same on the mel bins that pictures show: those that coefficients come from, else those of the input."""
        bands = FEATURES[self.features].bands
        if bands is None:
            return self
        shown = copy.deepcopy(self)
        shown.num_mel_bins, shown.frequency_stride = bands, bands
        shown.patch_size = [bands, self.patch_shape[1]]
        return shown

    @property
    def num_patches(self) -> int:
        """Number of patch tokens, F·T."""
        frequency, time = self.grid
        return frequency * time

    @property
    def head_reads(self) -> str:
        """The tokens that the head reads: ``"extra"`` or ``"patches"``."""
        return "extra" if self.pooling == "extra_tokens" else "patches"

    @property
    def residual_scale(self) -> float:
        """How much a post-norm block weighs the residual, beside 1 of the branch."""
        return float((2 * self.num_hidden_layers) ** 0.25) if self.deep_norm else 1.0

    @property
    def resolved_criterion(self) -> str:
        """The criterion by its own name: ``"auto"`` is the backbone's own attention score."""
        return self.criterion_of(self.pruning)

    def criterion_of(self, pruning: Pruning) -> str:
        """The criterion of an operating point by its own name."""
        return BACKBONE_CRITERIA[self.backbone] if pruning.criterion == AUTO else pruning.criterion

    @property
    def multi_label(self) -> bool:
        """Whether each label has a sigmoid of its own; if not, one softmax over all. One label always has a sigmoid."""
        return self.num_labels == 1 or self.problem_type == "multi_label_classification"

    def plan(
        self,
        patches: int | None = None,
        pruning: Pruning | None = None,
        *,
        full_output: bool = False,
        kept: Sequence[int] | None = None,
    ) -> tuple[BlockPlan, ...]:
        """What each block does in a forward pass; see `Pruning.plan`.

        Args:
            patches: that enter block 0; None for all.
            pruning: instead of the configured operating point.
            full_output: compute every token in the last block too.
            kept: patches alive after each block, where ``attention_mass`` leaves that to the clip.
        """
        chosen = self.pruning if pruning is None else pruning
        entering = self.num_patches if patches is None else patches
        return chosen.plan(entering, self.encoder, full_output=full_output, kept=kept)

    @property
    def encoder(self) -> Encoder:
        """What a plan has to know of the model."""
        return Encoder(
            depth=self.num_hidden_layers,
            extra=self.extra_tokens,
            head_reads=self.head_reads,
            own_criterion=BACKBONE_CRITERIA[self.backbone],
            width=self.hidden_size,
            heads=self.num_attention_heads,
            columns=self.grid[1],
            predictors=tuple(self.predictor_blocks or ()),
            placed=self.relative_buckets > 0,
        )

    def check(self) -> None:
        """Raise `InvalidSetting` for the first field that is out of range."""
        self._check_names()
        self._check_numbers()
        self._check_sizes()
        self.check_pruning(self.pruning)

    def check_pruning(self, pruning: Pruning) -> None:
        """Raise `InvalidSetting` for an operating point that this model cannot have."""
        pruning.check_model(self.encoder)

    def _check_names(self) -> None:
        for field, allowed in (
            ("backbone", tuple(BACKBONE_CRITERIA)),
            ("padding", PADDINGS),
            ("features", tuple(FEATURES)),
            ("hidden_act", ACTIVATIONS),
            ("patch_order", PATCH_ORDERS),
            ("pooling", POOLINGS),
        ):
            if getattr(self, field) not in allowed:
                raise InvalidSetting(field, getattr(self, field), one_of(allowed))
        if self.problem_type is not None and self.problem_type not in PROBLEM_TYPES:
            raise InvalidSetting("problem_type", self.problem_type, f"None, or {one_of(PROBLEM_TYPES)}")
        if self.id2label and set(self.id2label) != set(range(len(self.id2label))):
            raise InvalidSetting("id2label", self.id2label, "a name for each output: 0, 1, 2, … without gaps")
        for field in SWITCHES:
            if not isinstance(getattr(self, field), bool):
                raise InvalidSetting(field, getattr(self, field), "True or False")

    def _check_numbers(self) -> None:
        for field, least in LEAST_WHOLE_NUMBERS.items():
            if not _is_whole(getattr(self, field)) or getattr(self, field) < least:
                raise InvalidSetting(field, getattr(self, field), f"a whole number, at least {least}")
        for field in ("layer_norm_eps", "head_norm_eps", "initializer_range", "head_init_std"):
            if not _is_finite(getattr(self, field)) or getattr(self, field) < 0:
                raise InvalidSetting(field, getattr(self, field), "a number, at least 0")
        if not _is_finite(self.drop_path_rate) or not 0 <= self.drop_path_rate < 1:
            raise InvalidSetting("drop_path_rate", self.drop_path_rate, "a number in [0, 1)")
        if not _is_finite(self.mean):
            raise InvalidSetting("mean", self.mean, "a finite number")
        if not _is_finite(self.std) or self.std <= 0:
            raise InvalidSetting("std", self.std, "a finite number above 0")

    def _check_sizes(self) -> None:
        for field, most in LARGEST_WHOLE_NUMBERS.items():
            if getattr(self, field) > most:
                raise InvalidSetting(field, getattr(self, field), f"a whole number, at most {most:,}")
        if self.hidden_size % self.num_attention_heads:
            allowed = f"a multiple of num_attention_heads={self.num_attention_heads}"
            raise InvalidSetting("hidden_size", self.hidden_size, allowed)
        self._check_patches()
        self._check_tokens()
        blocks = [] if self.predictor_blocks is None else list(self.predictor_blocks)
        if not all(_is_whole(block) and block in range(self.num_hidden_layers) for block in blocks):
            raise InvalidSetting("predictor_blocks", blocks, f"block numbers from 0 to {self.num_hidden_layers - 1}")
        if len(set(blocks)) != len(blocks):
            raise InvalidSetting("predictor_blocks", blocks, "each block once")
        if blocks and self.hidden_size % 4:
            raise InvalidSetting("hidden_size", self.hidden_size, "a multiple of 4 with predictor_blocks")

    def _check_tokens(self) -> None:
        """Extra tokens, positions and residuals that do not go together."""
        if self.extra_tokens > 2:
            raise InvalidSetting("extra_tokens", self.extra_tokens, "0, 1 ([CLS]) or 2 ([CLS], [DIST])")
        if self.extra_tokens == 0 and self.head_reads == "extra":
            raise InvalidSetting("pooling", self.pooling, f"{one_of(POOLINGS[1:])} with extra_tokens=0")
        if self.separate_positions and not self.position_trainable:
            raise InvalidSetting("position_trainable", False, "True with separate_positions")
        if self.relative_buckets % 4:
            raise InvalidSetting("relative_buckets", self.relative_buckets, "0, or a multiple of 4")
        for field in ("position_kernel", "relative_buckets"):
            if getattr(self, field) and self.extra_tokens:
                allowed = f"0 with {field}: extra tokens have no place among the patches"
                raise InvalidSetting("extra_tokens", self.extra_tokens, allowed)
        for field in ("position_kernel", "embedding_size"):
            if getattr(self, field) and self.separate_positions:
                raise InvalidSetting("separate_positions", True, f"False with {field}")
        if self.hidden_size % self.position_groups:
            raise InvalidSetting("position_groups", self.position_groups, f"a divisor of {self.hidden_size}")
        if self.relative_buckets and self.relative_distance <= self.relative_buckets // 4:
            allowed = f"above {self.relative_buckets // 4} with relative_buckets={self.relative_buckets}"
            raise InvalidSetting("relative_distance", self.relative_distance, allowed)
        if self.deep_norm and self.norm_first:
            raise InvalidSetting("deep_norm", True, "False with norm_first")

    def _check_patches(self) -> None:
        sides = self.patch_size if isinstance(self.patch_size, list | tuple) else [self.patch_size] * 2
        if len(sides) != 2 or not all(_is_whole(side) and 1 <= side <= LARGEST_PATCH for side in sides):
            allowed = f"a whole number from 1 to {LARGEST_PATCH:,}, or two: along frequency and along time"
            raise InvalidSetting("patch_size", self.patch_size, allowed)
        for side, size, stride in zip(
            sides, ("num_mel_bins", "max_length"), ("frequency_stride", "time_stride"), strict=True
        ):
            if getattr(self, size) < side:
                raise InvalidSetting(size, getattr(self, size), f"at least {side}, for patch_size={self.patch_size}")
            if getattr(self, stride) > side:
                raise InvalidSetting(stride, getattr(self, stride), f"1 to {side}, for patch_size={self.patch_size}")
        check_features(self.features, self.num_mel_bins, self.sampling_rate, self.padding)
        if FEATURES[self.features].bands is not None and sides[0] != self.num_mel_bins:
            allowed = f"[{self.num_mel_bins}, frames] with features={self.features!r}: coefficients are no frequencies"
            raise InvalidSetting("patch_size", self.patch_size, allowed)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


AutoConfig.register(SpectrimConfig.model_type, SpectrimConfig)
