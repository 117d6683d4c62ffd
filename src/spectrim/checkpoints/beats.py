"""BEATs's ``.pt`` (Chen et al., 2023), pre-trained or fine-tuned: weights under ``model``, settings under ``cfg``.

The settings say what no shape does: how the residuals are weighed, how far the buckets of distances reach, how many
heads there are. Fine-tuned files name their outputs under ``label_dict``, whose order is not that of AudioSet's table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from spectrim.backbones import beats_base
from spectrim.checkpoints.files import Source
from spectrim.checkpoints.sizes import count_blocks, cuts_spectrograms, default_blocks, shape_of, weights_and_biases
from spectrim.config import SpectrimConfig
from spectrim.errors import CheckpointError

PROJECTION, BLOCKS, HEAD = "patch_embedding.weight", "encoder.layers.", "predictor.weight"
RELATIVE = "self_attn.relative_attention_bias.weight"
CONVOLUTION = "encoder.pos_conv.0"
NORM_NAMES = (
    (f"{CONVOLUTION}.weight_g", f"{CONVOLUTION}.weight_v"),
    (f"{CONVOLUTION}.parametrizations.weight.original0", f"{CONVOLUTION}.parametrizations.weight.original1"),
)
"""Length and direction of the convolution's weights, as PyTorch's two weight norms name them."""

SETTINGS: dict[str, Any] = {
    "encoder_layers": 12,
    "encoder_attention_heads": 12,
    "max_distance": 1280,
    "deep_norm": False,
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "relative_position_embedding": False,
    "gru_rel_pos": False,
    "conv_bias": False,
}
"""Settings that are read, with what holds for BEATs's code where a file does not say them."""

ALWAYS = {
    "activation_fn": "gelu",
    "layer_norm_first": False,
    "relative_position_embedding": True,
    "gru_rel_pos": True,
    "conv_bias": False,
}
"""Those that are the same in every published file; others make a model that is not here."""

BLOCK = {
    "self_attn.q_proj": "attention.query",
    "self_attn.k_proj": "attention.key",
    "self_attn.v_proj": "attention.value",
    "self_attn.out_proj": "attention.output",
    "self_attn.grep_linear": "attention.gate",
    "self_attn_layer_norm": "norm1",
    "fc1": "mlp.up",
    "fc2": "mlp.down",
    "final_layer_norm": "norm2",
}
"""{their module: our module} inside a block."""

IGNORED = (rf"encoder\.layers\.[1-9]\d*\.{RELATIVE.replace('.', '[.]')}",)
"""The bias by distance, of which every block's entry is that of the first."""


def _detect(source: Source) -> bool:
    known = {f"{BLOCKS}0.{RELATIVE}", f"{BLOCKS}0.self_attn.grep_a"} <= source.weights.keys()
    return known and cuts_spectrograms(source, PROJECTION)


def is_finetuned(source: Source) -> bool:
    """Recognise a BEATs with a head."""
    return _detect(source) and HEAD in source.weights


def is_pretrained(source: Source) -> bool:
    """Recognise a BEATs without one."""
    return _detect(source) and HEAD not in source.weights


def read_fields(source: Source) -> SpectrimConfig:
    """The model from ``cfg`` and the shapes; fine-tuned files give each output a sigmoid of its own.

    Raises:
        CheckpointError: ``cfg`` is missing or says what no published model has, or the file is a tokenizer, or the
            blocks do not share one bias by distance.
    """
    if any(name.startswith("quantize.") for name in source.weights):
        raise CheckpointError(f"{source.name}: is a tokenizer of BEATs, which makes targets for training, not a model")
    settings = _settings(source)
    narrow, _, patch, length = shape_of(source, PROJECTION)
    if patch != length:
        raise CheckpointError(f"{source.name}: patches of {patch}×{length} are not supported, only square ones")
    depth = count_blocks(source, BLOCKS)
    if depth != settings["encoder_layers"]:
        raise CheckpointError(f"{source.name}: has {depth} blocks where its cfg says {settings['encoder_layers']}")
    _check_shared(source)
    filters = shape_of(source, _convolution(source)[1])
    width = shape_of(source, "encoder.layer_norm.weight")[0]
    if len(filters) != 3 or not filters[1] or width % filters[1]:
        raise CheckpointError(f"{source.name}: its convolution for positions has the shape {filters}")
    problem = {"problem_type": "multi_label_classification"} if HEAD in source.weights else {}
    return beats_base(
        hidden_size=width,
        num_attention_heads=settings["encoder_attention_heads"],
        num_hidden_layers=depth,
        prune_at=default_blocks(depth),
        intermediate_size=shape_of(source, f"{BLOCKS}0.fc1.weight")[0],
        embedding_size=narrow,
        patch_size=patch,
        frequency_stride=patch,
        time_stride=patch,
        position_kernel=filters[2],
        position_groups=width // filters[1],
        relative_buckets=shape_of(source, f"{BLOCKS}0.{RELATIVE}")[0],
        relative_distance=settings["max_distance"],
        deep_norm=settings["deep_norm"],
        **problem,
    )


def weight_names(source: Source, config: SpectrimConfig) -> dict[str, str]:
    """Their names → ours."""
    modules = {"layer_norm": "embeddings.patch_norm", "encoder.layer_norm": "embeddings.position_convolution.norm"}
    if config.embedding_size != config.hidden_size:
        modules["post_extract_proj"] = "embeddings.widening"
    if HEAD in source.weights:
        modules["predictor"] = "head.linear"
    for block in range(config.num_hidden_layers):
        modules |= {f"{BLOCKS}{block}.{theirs}": f"blocks.{block}.{ours}" for theirs, ours in BLOCK.items()}
    filters = "embeddings.position_convolution.filters"
    length, direction = _convolution(source)
    return {
        **weights_and_biases(modules, config.qkv_bias),
        **{
            f"{BLOCKS}{n}.self_attn.grep_a": f"blocks.{n}.attention.gate_scale" for n in range(config.num_hidden_layers)
        },
        PROJECTION: "embeddings.projection.weight",
        f"{BLOCKS}0.{RELATIVE}": "embeddings.relative_positions",
        f"{CONVOLUTION}.bias": f"{filters}.bias",
        length: f"{filters}.weight_g",
        direction: f"{filters}.weight_v",
    }


def _settings(source: Source) -> dict[str, Any]:
    said = source.arguments.get("cfg")
    if not isinstance(said, Mapping):
        raise CheckpointError(
            f"{source.name}: these are weights of a BEATs without its settings, which say how residuals are weighed "
            "and how far distances reach; keep the cfg beside the model, as the published files do"
        )
    settings = {name: said.get(name, usual) for name, usual in SETTINGS.items()}
    for name, value in settings.items():
        if not isinstance(value, bool | int | float | str):
            raise CheckpointError(f"{source.name}: its cfg has a {type(value).__name__} as {name}")
    for name, value in ALWAYS.items():
        if settings[name] != value:
            raise CheckpointError(
                f"{source.name}: its cfg says {name}={settings[name]!r}; only {value!r} is understood"
            )
    return settings


def _check_shared(source: Source) -> None:
    """Raise `CheckpointError` unless all blocks that have a bias by distance have that of the first."""
    first = source.weights[f"{BLOCKS}0.{RELATIVE}"]
    for name, other in source.weights.items():
        block, _, inside = name.removeprefix(BLOCKS).partition(".")
        if inside == RELATIVE and not (other.shape == first.shape and torch.equal(other, first)):
            raise CheckpointError(f"{source.name}: block {block} has another bias by distance than block 0")


def _convolution(source: Source) -> tuple[str, str]:
    """Names of the length and the direction of the convolution's weights."""
    return next((names for names in NORM_NAMES if names[0] in source.weights), NORM_NAMES[0])
