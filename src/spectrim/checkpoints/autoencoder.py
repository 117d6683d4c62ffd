"""Masked autoencoders with their decoder: Spectrim's own, and AudioMAE's official pre-trained layout."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from spectrim.checkpoints.files import Source, read_source
from spectrim.checkpoints.layouts import AUDIOMAE_LICENCE, is_autoencoder
from spectrim.checkpoints.notices import LicenceNotice
from spectrim.checkpoints.settings import MALFORMED, build_config
from spectrim.checkpoints.sizes import count_blocks, shape_of, weights_and_biases
from spectrim.checkpoints.strict import check_shapes, join_projections, take_weights
from spectrim.checkpoints.untrusted import one_line
from spectrim.checkpoints.vit import BLOCK, audiomae_fields, audiomae_names, is_audiomae_pretrained
from spectrim.errors import CheckpointError
from spectrim.network.masked import MaskedAutoencoder, MaskedConfig

WINDOW_BLOCK = {
    "attn.qkv": "attention.joint",
    "attn.proj": "attention.output",
    "attn.meta_mlp.fc1": "attention.bias.up",
    "attn.meta_mlp.fc2": "attention.bias.down",
    "norm1": "norm1",
    "mlp.fc1": "mlp.up",
    "mlp.fc2": "mlp.down",
    "norm2": "norm2",
}
"""{their module: ours} inside a decoder block with local attention."""

PUBLISHED_HEADS = 16
"""Heads of every published decoder; a file with global attention does not say."""


def load_autoencoder(source: str | os.PathLike[str]) -> MaskedAutoencoder:
    """Load encoder and decoder of a masked autoencoder; strictly, as `from_pretrained` loads models.

    AudioMAE's files do not say window and shift of local attention: the published 4×4 and 2 stand, and no shift where
    the arguments saved along say ``no_shift``. Its position tables are those of the file.

    Args:
        source: ``autoencoder/`` of a pre-training run, or AudioMAE's official pre-trained file with its decoder.

    Returns:
        The model in evaluation mode, float32, on the CPU.

    Raises:
        CheckpointError: there is no decoder in it, weights are missing or left over, shapes do not fit, or the file
            cannot be read or would run code.
    """
    read = read_source(source)
    official = is_audiomae_pretrained(read) and "decoder_embed.weight" in read.weights
    if not official and not is_autoencoder(read):
        some = ", ".join(sorted(read.weights)[:5])
        raise CheckpointError(
            f"{read.name}: no masked autoencoder with its decoder; expected the folder autoencoder/ of a pre-training "
            f"run, or AudioMAE's official layout with decoder_embed and more; its weights are named {some}, …"
        )
    title = f"{read.name} (layout {'audiomae-pretrained' if official else 'spectrim-autoencoder'})"
    try:
        config = _official_fields(read) if official else build_config(MaskedConfig, read.config, read.name)
    except MALFORMED as error:
        raise CheckpointError(f"{title}: its settings make no model: {one_line(error)}") from error
    with torch.device("meta"):
        model = MaskedAutoencoder(config)
    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    names = _official_names(read, config) if official else {name: name for name in expected}
    state = take_weights(title, read.weights, names)
    if official:
        state = _arranged(state, title)
        warnings.warn(f"{read.name}: {AUDIOMAE_LICENCE}", LicenceNotice, stacklevel=2)
    check_shapes(title, state, expected)
    model.load_state_dict(state, strict=True, assign=True)
    return model.float().eval()


def _official_fields(source: Source) -> MaskedConfig:
    encoder = audiomae_fields(source)
    local = "decoder_blocks.0.attn.tau" in source.weights
    fields: dict[str, Any] = {
        "decoder_width": shape_of(source, "decoder_embed.weight")[0],
        "decoder_layers": count_blocks(source, "decoder_blocks."),
        "decoder_heads": PUBLISHED_HEADS,
        "decoder_attention": "local" if local else "global",
        "decoder_shift": 0 if source.arguments.get("no_shift") else 2,
        "normalise_patches": bool(source.arguments.get("norm_pix_loss", True)),
    }
    if local:
        fields["decoder_heads"] = shape_of(source, "decoder_blocks.0.attn.tau")[0]
        fields["decoder_bias_width"] = shape_of(source, "decoder_blocks.0.attn.meta_mlp.fc1.weight")[0]
    return MaskedConfig.around(encoder, **fields)


def _official_names(source: Source, config: MaskedConfig) -> dict[str, str]:
    """Their names → ours."""
    names = audiomae_names(norm=False, head=False)(source, config)
    names = {theirs: f"encoder.{ours}" for theirs, ours in names.items()}
    inside = WINDOW_BLOCK if config.decoder_attention == "local" else BLOCK
    modules = {
        "norm": "encoder.norm",
        "decoder_embed": "decoder.embed",
        "decoder_norm": "decoder.norm",
        "decoder_pred": "decoder.prediction",
    }
    for layer in range(config.decoder_layers):
        modules |= {f"decoder_blocks.{layer}.{t}": f"decoder.blocks.{layer}.{o}" for t, o in inside.items()}
        if config.decoder_attention == "local":
            names[f"decoder_blocks.{layer}.attn.tau"] = f"decoder.blocks.{layer}.attention.temperature"
    names |= {"mask_token": "decoder.mask_token", "decoder_pos_embed": "decoder.position_table"}
    return names | weights_and_biases(modules, qkv_bias=True)


def _arranged(pieces: Mapping[str, Tensor], title: str) -> dict[str, Tensor]:
    """Split joint projections, and turn the patch projection from (time, frequency) to (frequency, time)."""
    state = join_projections(pieces, title)
    name = "encoder.embeddings.projection.weight"
    return {**state, name: state[name].transpose(2, 3).contiguous()}
