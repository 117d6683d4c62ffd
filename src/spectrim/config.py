"""The configuration of a model: backbone, front end and pruning, saved together in ``config.json``.

AST and AudioMAE are one encoder here; every difference between them is a field of `SpectrimConfig`.
The named builders (`ast_base`, `audiomae_base`, ...) are flat: read one to see what it sets.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from spectrim.audio.normalisation import NORMALISATIONS
from spectrim.errors import InvalidSetting, one_of

BACKBONE_CRITERIA = {"ast": "cls_attention", "audiomae": "mean_attention"}
"""The attention score with which the paper prunes each backbone; what ``criterion="auto"`` stands for."""

CRITERION_NAMES = ("auto", "cls_attention", "mean_attention", "intensity", "variation", "random")
PATCH_STATISTICS = ("intensity", "variation")
PADDINGS = ("zero", "minimum")
PATCH_ORDERS = ("frequency_major", "time_major")
POOLINGS = ("extra_tokens", "mean_patches")
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification")
SWITCHES = ("position_trainable", "head_norm", "qkv_bias", "reference_compat", "drop_padding")
LEAST_WHOLE_NUMBERS = {
    "hidden_size": 1,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 1,
    "patch_size": 1,
    "num_mel_bins": 1,
    "max_length": 1,
    "frequency_stride": 1,
    "time_stride": 1,
    "extra_tokens": 1,
    "sampling_rate": 1,
    "random_seed": 0,
    "num_labels": 1,
}
"""The smallest value of every field that is a whole number."""


LARGEST_WHOLE_NUMBERS = {
    "hidden_size": 1 << 15,
    "num_hidden_layers": 1000,
    "intermediate_size": 1 << 18,
    "patch_size": 1024,
    "num_mel_bins": 4096,
    "max_length": 1_000_000,
    "sampling_rate": 10_000_000,
    "num_labels": 1_000_000,
}
"""The largest value: far above any model, and below what would fill the memory before anything is refused."""


class SpectrimConfig(PreTrainedConfig):
    """Configuration of an `AudioTransformer`.

    Args:
        backbone: ``"ast"`` or ``"audiomae"``; says which attention score ``criterion="auto"`` means.
        hidden_size: width of a token.
        num_hidden_layers: number of blocks.
        num_attention_heads: heads per block.
        intermediate_size: hidden width of the MLP.
        num_mel_bins: height of the log-mel spectrogram, in mel bins.
        max_length: width of the log-mel spectrogram, in frames of 10 ms.
        patch_size: side of a patch, in mel bins and in frames.
        frequency_stride: step between patches in mel bins; below ``patch_size`` the patches overlap.
        time_stride: step between patches in frames.
        extra_tokens: 2 for AST ([CLS], [DIST]), 1 for AudioMAE ([CLS]).
        patch_order: order of the patches in the sequence, ``"frequency_major"`` (AST: index f·T + t)
            or ``"time_major"`` (AudioMAE: index t·F + f).
        position_trainable: whether the position table is learned (AST) or fixed sin-cos (AudioMAE).
        pooling: ``"extra_tokens"``: final LayerNorm, then the mean of the extra tokens (AST);
            ``"mean_patches"``: mean of the surviving patches, then LayerNorm (AudioMAE).
        head_norm: whether the head has a LayerNorm of its own before its linear layer (AST).
        layer_norm_eps: eps of the encoder's LayerNorms; it differs between checkpoint layouts.
        head_norm_eps: eps of the head's LayerNorm.
        qkv_bias: whether the query, key and value projections have a bias.
        drop_path_rate: stochastic depth, rising linearly from 0 at the first block to this at the last.
        initializer_range: standard deviation of the truncated normal that initialises the weights.
        head_init_std: the same for the head's linear layer (AudioMAE fine-tuning uses 2e-5).
        sampling_rate: of the waveform, in hertz.
        mean: mean of the log-mel values of the training data, in natural-log units.
        std: their standard deviation; the front end computes (x − mean) / (2·std).
        padding: what fills frames past the end of a clip, before normalising: ``"zero"`` or ``"minimum"``
            (the smallest log-mel value of the clip).
        keep_rate: share of the patches kept at each pruning block, in (0, 1]: one number, or one a block
            of ``prune_at``.
        prune_at: the pruning blocks, counted from 0.
        criterion: what ranks the patches; see `spectrim.pruning.criteria`.
        reference_compat: reproduce the wrong gather of the paper's public code when ranking by intensity
            or variation: the extra tokens are lost and patches beside the chosen ones are kept. For
            studies of that code only.
        drop_padding: remove patches that hold only padding before the first block. Changes logits.
        random_seed: seed of ``criterion="random"``.

    Raises:
        InvalidSetting: naming the field, its value and what is allowed.
    """

    model_type = "spectrim"

    backbone: str = "ast"
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    num_mel_bins: int = 128
    max_length: int = 1024
    patch_size: int = 16
    frequency_stride: int = 16
    time_stride: int = 16
    extra_tokens: int = 2
    patch_order: str = "frequency_major"
    position_trainable: bool = True
    pooling: str = "extra_tokens"
    head_norm: bool = True
    layer_norm_eps: float = 1e-6
    head_norm_eps: float = 1e-5
    qkv_bias: bool = True
    drop_path_rate: float = 0.0
    initializer_range: float = 0.02
    head_init_std: float = 0.02
    sampling_rate: int = 16000
    mean: float = NORMALISATIONS["audioset"].mean
    std: float = NORMALISATIONS["audioset"].std
    padding: str = "zero"
    keep_rate: float | list[float] = 1.0
    prune_at: list[int] | tuple[int, ...] = (3, 6, 9)
    criterion: str = "auto"
    reference_compat: bool = False
    drop_padding: bool = False
    random_seed: int = 0

    def __post_init__(self, **kwargs: Any) -> None:
        # Registers the model with transformers' Auto classes; a string, since the model imports this module.
        importlib.import_module("spectrim.network.transformer")
        outputs = len(self.id2label) if self.id2label else kwargs.get("num_labels")
        if outputs == 1:
            self.problem_type = "multi_label_classification"  # one softmax over one output would always say 1
        super().__post_init__(**kwargs)
        if self.id2label and not getattr(self, "label2id", None):
            self.label2id = {name: number for number, name in self.id2label.items()}
        self.prune_at = as_plain_list(self.prune_at)
        self.keep_rate = as_plain_list(self.keep_rate)
        self.check()

    @property
    def grid(self) -> tuple[int, int]:
        """Number of patches along frequency and along time, (F, T)."""
        return self.grid_for(self.max_length)

    def grid_for(self, frames: int) -> tuple[int, int]:
        """Number of patches (F, T) that an input of this many frames is cut into."""
        return (
            (self.num_mel_bins - self.patch_size) // self.frequency_stride + 1,
            (frames - self.patch_size) // self.time_stride + 1,
        )

    @property
    def num_patches(self) -> int:
        """Number of patch tokens, F·T."""
        frequency, time = self.grid
        return frequency * time

    @property
    def resolved_criterion(self) -> str:
        """The criterion by its own name: ``"auto"`` is the backbone's own attention score."""
        return BACKBONE_CRITERIA[self.backbone] if self.criterion == "auto" else self.criterion

    @property
    def multi_label(self) -> bool:
        """Whether a clip can have several labels, each with a sigmoid of its own; if not, one softmax over all."""
        return self.problem_type == "multi_label_classification"

    def keep_rates(self, keep_rate: float | Sequence[float] | None = None) -> dict[int, float]:
        """Map each pruning block to its keep rate.

        Args:
            keep_rate: instead of the configured one: one number, or one a pruning block.

        Raises:
            InvalidSetting: a rate is outside (0, 1], or there are not as many rates as pruning blocks.
        """
        rate = self.keep_rate if keep_rate is None else keep_rate
        blocks = list(self.prune_at)
        if not isinstance(rate, Sequence) or isinstance(rate, str):
            check_keep_rate(rate)
        rates = list(rate) if isinstance(rate, Sequence) and not isinstance(rate, str) else [rate] * len(blocks)
        if len(rates) != len(blocks):
            allowed = f"one number, or {len(blocks)} of them for prune_at={blocks}"
            raise InvalidSetting("keep_rate", rate, allowed)
        for value in rates:
            check_keep_rate(value)
        return {block: float(value) for block, value in zip(blocks, rates, strict=True)}

    def check(self) -> None:
        """Raise `InvalidSetting` for the first field that is out of range."""
        self._check_names()
        self._check_numbers()
        self._check_sizes()
        if not isinstance(self.prune_at, list | tuple):
            raise InvalidSetting("prune_at", self.prune_at, "a list of block numbers")
        for block in self.prune_at:
            if not _is_whole(block) or not 0 <= block < self.num_hidden_layers:
                raise InvalidSetting("prune_at", block, f"block numbers from 0 to {self.num_hidden_layers - 1}")
        if len(set(self.prune_at)) != len(self.prune_at):
            raise InvalidSetting("prune_at", self.prune_at, "each block once")
        self.keep_rates()
        check_public_gather("reference_compat", self.reference_compat, self.criterion)
        if self.reference_compat and self.drop_padding:
            raise InvalidSetting("drop_padding", True, "False with reference_compat: the public code knows no padding")

    def _check_names(self) -> None:
        for field, allowed in (
            ("backbone", tuple(BACKBONE_CRITERIA)),
            ("criterion", CRITERION_NAMES),
            ("padding", PADDINGS),
            ("patch_order", PATCH_ORDERS),
            ("pooling", POOLINGS),
        ):
            if getattr(self, field) not in allowed:
                raise InvalidSetting(field, getattr(self, field), one_of(allowed))
        if self.problem_type is not None and self.problem_type not in PROBLEM_TYPES:
            raise InvalidSetting("problem_type", self.problem_type, f"None, or {one_of(PROBLEM_TYPES)}")
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
        if self.max_length < self.patch_size:
            raise InvalidSetting("max_length", self.max_length, f"at least patch_size={self.patch_size} frames")
        if self.num_mel_bins < self.patch_size:
            raise InvalidSetting("num_mel_bins", self.num_mel_bins, f"at least patch_size={self.patch_size} bins")
        for field in ("frequency_stride", "time_stride"):
            if getattr(self, field) > self.patch_size:
                raise InvalidSetting(field, getattr(self, field), f"1 to patch_size={self.patch_size}")
        if self.extra_tokens > 2:
            raise InvalidSetting("extra_tokens", self.extra_tokens, "1 ([CLS]) or 2 ([CLS], [DIST])")


def as_plain_list(value: Any) -> Any:
    """Copy a sequence of settings into a list, as ``config.json`` holds it; anything else stays as it is."""
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def check_keep_rate(value: float) -> None:
    """Raise `InvalidSetting` unless ``value`` is a keep rate: a number in (0, 1]."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value <= 1.0:
        raise InvalidSetting("keep_rate", value, "a number in (0, 1]; 1 keeps every patch")


def check_public_gather(field: str, wanted: bool, criterion: str) -> None:
    """Raise `InvalidSetting`, naming ``field``, if the public code's gather is wanted where it is not wrong."""
    if wanted and criterion not in PATCH_STATISTICS:
        allowed = f"False, unless criterion is {one_of(PATCH_STATISTICS)}: only there the public code's gather is wrong"
        raise InvalidSetting(field, True, allowed)


def _sizes(width: int, heads: int) -> dict[str, Any]:
    return {"hidden_size": width, "num_attention_heads": heads, "intermediate_size": 4 * width}


def ast_tiny(**fields: Any) -> SpectrimConfig:
    """AST with the width of DeiT-tiny: 192, 3 heads, 12 blocks."""
    return ast_base(**{**_sizes(192, 3), **fields})


def ast_small(**fields: Any) -> SpectrimConfig:
    """AST with the width of DeiT-small: 384, 6 heads, 12 blocks."""
    return ast_base(**{**_sizes(384, 6), **fields})


def ast_base(**fields: Any) -> SpectrimConfig:
    """AST as published (Gong et al., 2021): ViT-B, 16×16 patches without overlap, 10 s."""
    return SpectrimConfig(**{"backbone": "ast", **fields})


def audiomae_tiny(**fields: Any) -> SpectrimConfig:
    """AudioMAE encoder with a width of 192, 3 heads, 12 blocks."""
    return audiomae_base(**{**_sizes(192, 3), **fields})


def audiomae_small(**fields: Any) -> SpectrimConfig:
    """AudioMAE encoder with a width of 384, 6 heads, 12 blocks."""
    return audiomae_base(**{**_sizes(384, 6), **fields})


def audiomae_base(**fields: Any) -> SpectrimConfig:
    """AudioMAE encoder as published (Huang et al., 2022): ViT-B, time-major patches, sin-cos positions."""
    audiomae: dict[str, Any] = {
        "backbone": "audiomae",
        "extra_tokens": 1,
        "patch_order": "time_major",
        "position_trainable": False,
        "pooling": "mean_patches",
        "head_norm": False,
        "head_init_std": 2e-5,
    }
    return SpectrimConfig(**{**audiomae, **fields})


BUILDERS = {
    "ast-tiny": ast_tiny,
    "ast-small": ast_small,
    "ast-base": ast_base,
    "audiomae-tiny": audiomae_tiny,
    "audiomae-small": audiomae_small,
    "audiomae-base": audiomae_base,
}
"""The named sizes, as the command line and the recipes call them."""

AutoConfig.register(SpectrimConfig.model_type, SpectrimConfig)
