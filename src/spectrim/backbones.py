"""Published models as settings of the same transformer: read one to see what it sets.

Recipes train AST and AudioMAE, by their names in `BUILDERS`; the others are loaded and pruned, not trained from the
start.
"""

from __future__ import annotations

import math
from typing import Any

from spectrim.config import SpectrimConfig


def sizes(width: int, heads: int) -> dict[str, Any]:
    """Width and heads of a model whose MLP is four times as wide."""
    return {"hidden_size": width, "num_attention_heads": heads, "intermediate_size": 4 * width}


def ast_tiny(**fields: Any) -> SpectrimConfig:
    """AST with the width of DeiT-tiny: 192, 3 heads, 12 blocks."""
    return ast_base(**{**sizes(192, 3), **fields})


def ast_small(**fields: Any) -> SpectrimConfig:
    """AST with the width of DeiT-small: 384, 6 heads, 12 blocks."""
    return ast_base(**{**sizes(384, 6), **fields})


def ast_base(**fields: Any) -> SpectrimConfig:
    """AST as published (Gong et al., 2021): ViT-B, 16×16 patches without overlap, 10 s."""
    return SpectrimConfig(**{"backbone": "ast", **fields})


def audiomae_tiny(**fields: Any) -> SpectrimConfig:
    """AudioMAE encoder with a width of 192, 3 heads, 12 blocks."""
    return audiomae_base(**{**sizes(192, 3), **fields})


def audiomae_small(**fields: Any) -> SpectrimConfig:
    """AudioMAE encoder with a width of 384, 6 heads, 12 blocks."""
    return audiomae_base(**{**sizes(384, 6), **fields})


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


def beats_base(**fields: Any) -> SpectrimConfig:
    """BEATs as published (Chen et al., 2023): deep-norm, positions by convolution and by distance, no extra tokens."""
    beats: dict[str, Any] = {
        "backbone": "beats",
        "max_length": 998,
        "extra_tokens": 0,
        "embedding_size": 512,
        "patch_order": "time_major",
        "position_kernel": 128,
        "position_groups": 16,
        "relative_buckets": 320,
        "relative_distance": 800,
        "pooling": "mean_patches",
        "norm_first": False,
        "deep_norm": True,
        "head_norm": False,
        "layer_norm_eps": 1e-5,
        "features": "povey_log_mel",
        "mean": 15.41663,
        "std": 6.55582,
        "padding": "silence",
    }
    return SpectrimConfig(**{**beats, **fields})


def ced_tiny(**fields: Any) -> SpectrimConfig:
    """CED with a width of 192, 3 heads."""
    return ced_base(**{**sizes(192, 3), **fields})


def ced_mini(**fields: Any) -> SpectrimConfig:
    """CED with a width of 256, 4 heads."""
    return ced_base(**{**sizes(256, 4), **fields})


def ced_small(**fields: Any) -> SpectrimConfig:
    """CED with a width of 384, 6 heads."""
    return ced_base(**{**sizes(384, 6), **fields})


def ced_base(**fields: Any) -> SpectrimConfig:
    """CED as published (Dinkel et al., 2024): 64 mel bins in decibels, an input norm, no extra tokens, 10 s."""
    ced: dict[str, Any] = {
        "backbone": "ced",
        "num_mel_bins": 64,
        "max_length": 1001,
        "input_norm": True,
        "extra_tokens": 0,
        "separate_positions": True,
        "pooling": "mean_normed_patches",
        "features": "mel_decibels",
        "mean": 0.0,
        "std": math.log(10.0) / 20.0,
        "padding": "silence",
    }
    return SpectrimConfig(**{**ced, **fields})


def eat_base(**fields: Any) -> SpectrimConfig:
    """EAT as published (Chen et al., 2024): post-norm, normalised tokens, fixed positions, a head on [CLS], 10 s."""
    eat: dict[str, Any] = {
        "backbone": "eat",
        "extra_tokens": 1,
        "embedding_norm": True,
        "patch_order": "time_major",
        "position_trainable": False,
        "norm_first": False,
        "head_norm_eps": 1e-6,
        "mean": -4.268,
        "std": 4.569,
    }
    return SpectrimConfig(**{**eat, **fields})


def eat_large(**fields: Any) -> SpectrimConfig:
    """EAT with 24 blocks, a width of 1024 and 16 heads."""
    return eat_base(**{**sizes(1024, 16), "num_hidden_layers": 24, **fields})


def kwt_1(**fields: Any) -> SpectrimConfig:
    """Keyword Transformer as published (Berg et al., 2021), KWT-1: post-norm, one token a frame of 40 MFCC, 1 s."""
    kwt: dict[str, Any] = {
        "backbone": "kwt",
        **sizes(64, 1),
        "num_mel_bins": 40,
        "max_length": 98,
        "patch_size": [40, 1],
        "frequency_stride": 40,
        "time_stride": 1,
        "extra_tokens": 1,
        "norm_first": False,
        "hidden_act": "gelu_pytorch_tanh",
        "head_norm": False,
        "qkv_bias": False,
        "features": "mfcc",
        "mean": 0.0,
        "std": 0.5,
        "padding": "silence",
    }
    return SpectrimConfig(**{**kwt, **fields})


def passt_base(**fields: Any) -> SpectrimConfig:
    """PaSST as published (Koutini et al., 2022), PaSST-S: AST with a position each for frequency and time, 32 kHz."""
    passt: dict[str, Any] = {
        "backbone": "passt",
        "max_length": 1000,
        "frequency_stride": 10,
        "time_stride": 10,
        "separate_positions": True,
        "sampling_rate": 32000,
        "features": "centred_log_mel",
        "mean": -4.5,
        "std": 2.5,
        "padding": "silence",
    }
    return SpectrimConfig(**{**passt, **fields})


def ssast_base(**fields: Any) -> SpectrimConfig:
    """SSAST as published (Gong et al., 2022), the patch model: AST whose head reads the mean of the patches."""
    return SpectrimConfig(**{"backbone": "ssast", "pooling": "mean_normed_patches", **fields})


BUILDERS = {
    "ast-tiny": ast_tiny,
    "ast-small": ast_small,
    "ast-base": ast_base,
    "audiomae-tiny": audiomae_tiny,
    "audiomae-small": audiomae_small,
    "audiomae-base": audiomae_base,
}
"""The named sizes that can be trained, as the command line and the recipes call them."""
