"""The ViT naming that the official AST, AudioMAE, the paper's code and timm share."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from typing import Any

from spectrim.audio.normalisation import NORMALISATIONS
from spectrim.backbones import ast_base, audiomae_base
from spectrim.checkpoints.files import Source
from spectrim.checkpoints.grid import find_grid
from spectrim.checkpoints.sizes import (
    count_outputs,
    count_positions,
    cuts_spectrograms,
    sizes_of,
    weights_and_biases,
)
from spectrim.config import SpectrimConfig
from spectrim.errors import CheckpointError

BLOCK = {
    "norm1": "norm1",
    "attn.qkv": "attention.qkv",
    "attn.proj": "attention.output",
    "norm2": "norm2",
    "mlp.fc1": "mlp.up",
    "mlp.fc2": "mlp.down",
}
"""{their module: our module} inside a block; ``qkv`` is split when the weights are converted."""

PAPER_DATA_SETS: dict[str, dict[str, float]] = {
    "audioset": NORMALISATIONS["audioset"]._asdict(),
    "esc50": NORMALISATIONS["esc50"]._asdict(),
    "spc2": NORMALISATIONS["speech-commands"]._asdict(),
    "voxceleb1": NORMALISATIONS["voxceleb1"]._asdict(),
}
"""Front-end statistics of the paper's data sets, by their names in its checkpoints' arguments."""


def vit_names(config: SpectrimConfig, prefix: str, modules: Mapping[str, str]) -> dict[str, str]:
    """Their names → ours, of everything but what stands around tokens and blocks, which ``modules`` names."""
    modules = {f"{prefix}patch_embed.proj": "embeddings.projection", **modules}
    for block in range(config.num_hidden_layers):
        modules |= {f"{prefix}blocks.{block}.{t}": f"blocks.{block}.{o}" for t, o in BLOCK.items()}
    return {
        f"{prefix}cls_token": "embeddings.cls_token",
        f"{prefix}pos_embed": "embeddings.position_table",
        **weights_and_biases(modules, config.qkv_bias),
    }


def vit_sizes(source: Source, prefix: str, *, square: bool = True) -> dict[str, Any]:
    """Fields of the configuration that the shapes tell, ``prefix`` before every name; see `sizes_of`."""
    sizes = sizes_of(source, f"{prefix}patch_embed.proj.weight", f"{prefix}blocks.", "mlp.fc1.weight", square=square)
    return {**sizes, "qkv_bias": f"{prefix}blocks.0.attn.qkv.bias" in source.weights}


def is_official_ast(source: Source) -> bool:
    """Recognise the official AST, and with it the paper's AST, which saves the same."""
    return "v.dist_token" in source.weights and cuts_spectrograms(source, "v.patch_embed.proj.weight")


def official_ast_fields(source: Source) -> SpectrimConfig:
    """The model from the shapes; nothing else is in such a file, so the stride may have to be given."""
    sizes = vit_sizes(source, "v.")
    positions = count_positions(source, "v.pos_embed", extra=2)
    outputs = count_outputs(source, "mlp_head.1.weight")
    return ast_base(**sizes, **find_grid(source, positions, sizes["patch_size"], outputs))


def official_ast_names(_: Source, config: SpectrimConfig) -> dict[str, str]:
    """Their names → ours."""
    modules = {"v.norm": "norm", "mlp_head.0": "head.norm", "mlp_head.1": "head.linear"}
    return {"v.dist_token": "embeddings.dist_token", **vit_names(config, "v.", modules)}


def is_imagenet_deit(source: Source) -> bool:
    """Recognise a distilled DeiT for pictures (Touvron et al., 2021), from which AST starts."""
    projection = source.weights.get("patch_embed.proj.weight")
    colours = projection is not None and projection.ndim == 4 and projection.shape[1] == 3
    return colours and {"cls_token", "dist_token", "pos_embed"} <= source.weights.keys()


def imagenet_deit_fields(source: Source) -> SpectrimConfig:
    """The model that its shapes are of, with the side of its square pictures as mel bins and as frames."""
    sizes = vit_sizes(source, "")
    positions, patch = count_positions(source, "pos_embed", extra=2), sizes["patch_size"]
    side = math.isqrt(positions)
    if side * side != positions:
        raise CheckpointError(f"{source.name}: {positions} positions are no square of patches, as pictures have it")
    steps = {"frequency_stride": patch, "time_stride": patch}
    return ast_base(**sizes, **steps, num_mel_bins=side * patch, max_length=side * patch)


def imagenet_deit_names(_: Source, config: SpectrimConfig) -> dict[str, str]:
    """Their names → ours; the two heads for pictures are left."""
    return {"dist_token": "embeddings.dist_token", **vit_names(config, "", {"norm": "norm"})}


def _is_audiomae(source: Source) -> bool:
    known = {"cls_token", "pos_embed"} <= source.weights.keys()
    return known and cuts_spectrograms(source, "patch_embed.proj.weight")


def is_audiomae_pretrained(source: Source) -> bool:
    """Recognise the self-supervised AudioMAE: a norm over tokens, and usually a decoder."""
    return _is_audiomae(source) and not {"mask_token", "norm.weight"}.isdisjoint(source.weights)


def is_audiomae_finetuned(source: Source) -> bool:
    """Recognise a fine-tuned AudioMAE; timm's fine-tuned copies have the same names."""
    return _is_audiomae(source) and {"fc_norm.weight", "head.weight"} <= source.weights.keys()


def is_paper_audiomae(source: Source) -> bool:
    """Recognise a fine-tuned AudioMAE of the paper by the arguments saved along."""
    return is_audiomae_finetuned(source) and "base_keep_rate" in source.arguments


def is_audiomae_encoder(source: Source) -> bool:
    """Recognise timm's pre-trained AudioMAE: the norm of the pooled vector, and no head."""
    return _is_audiomae(source) and "fc_norm.weight" in source.weights


def _audiomae_settings(source: Source) -> dict[str, Any]:
    sizes = vit_sizes(source, "")
    patch = sizes["patch_size"]
    positions = count_positions(source, "pos_embed", extra=1)
    time, rest = divmod(positions, 128 // patch)
    if source.stride is not None:
        grid = find_grid(source, positions, patch, outputs=0)
    elif rest:
        raise CheckpointError(f"{source.name}: its position table is no whole number of columns of {128 // patch}")
    else:
        grid = {"max_length": time * patch, "frequency_stride": patch, "time_stride": patch}
    data_set = str(source.arguments.get("dataset"))
    return {**sizes, **grid, **PAPER_DATA_SETS.get(data_set, {})}


def audiomae_fields(source: Source) -> SpectrimConfig:
    """The model from the shapes, its statistics from the saved arguments where they name the data set."""
    return audiomae_base(**_audiomae_settings(source))


def paper_audiomae_fields(source: Source) -> SpectrimConfig:
    """As fine-tuned AudioMAE, with the padding of the paper's code and the pruning that it was trained with."""
    settings = _audiomae_settings(source)
    blocks = source.arguments.get("drop_loc", settings["prune_at"])
    try:
        blocks = ast.literal_eval(blocks) if isinstance(blocks, str) else blocks
        pruning = {"keep_rate": source.arguments["base_keep_rate"], "prune_at": list(blocks)}
    except (ValueError, SyntaxError, TypeError) as error:
        raise CheckpointError(f"{source.name}: its argument drop_loc={blocks!r} is no list of blocks") from error
    return audiomae_base(**{**settings, **pruning, "padding": "minimum"})


def audiomae_names(*, norm: bool, head: bool) -> Callable[[Source, SpectrimConfig], dict[str, str]]:
    """A function for their names → ours, with or without the pooled vector's norm and the head."""
    modules = {**({"fc_norm": "norm"} if norm else {}), **({"head": "head.linear"} if head else {})}
    return lambda _, config: vit_names(config, "", modules)
