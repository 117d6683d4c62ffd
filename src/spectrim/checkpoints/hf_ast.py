"""Hugging Face's AST, in the names that the hub has and in those of the modules of transformers 5."""

from __future__ import annotations

from typing import Any

from spectrim.backbones import ast_base
from spectrim.checkpoints.files import Source
from spectrim.checkpoints.grid import find_grid
from spectrim.checkpoints.sizes import (
    count_outputs,
    count_positions,
    cuts_spectrograms,
    default_blocks,
    sizes_of,
    weights_and_biases,
)
from spectrim.config import SpectrimConfig
from spectrim.errors import CheckpointError

SAVED = "encoder.layer."
BLOCKS = {
    SAVED: {
        "layernorm_before": "norm1",
        "attention.attention.query": "attention.query",
        "attention.attention.key": "attention.key",
        "attention.attention.value": "attention.value",
        "attention.output.dense": "attention.output",
        "layernorm_after": "norm2",
        "intermediate.dense": "mlp.up",
        "output.dense": "mlp.down",
    },
    "layers.": {
        "layernorm_before": "norm1",
        "attention.q_proj": "attention.query",
        "attention.k_proj": "attention.key",
        "attention.v_proj": "attention.value",
        "attention.o_proj": "attention.output",
        "layernorm_after": "norm2",
        "mlp.fc1": "mlp.up",
        "mlp.fc2": "mlp.down",
    },
}
"""{what stands before a block's number: {their module: our module}}."""

SAME_FIELDS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "patch_size",
    "num_mel_bins",
    "max_length",
    "frequency_stride",
    "time_stride",
    "layer_norm_eps",
)
DROPOUT = ("hidden_dropout_prob", "attention_probs_dropout_prob")
LAYER_NORM_EPS = 1e-12
HEAD = "classifier.dense.weight"


def detect(source: Source) -> bool:
    """Recognise the embeddings, one channel wide; DeiT has the same names with three."""
    embeddings = _prefix(source) + "embeddings."
    projection = embeddings + "patch_embeddings.projection.weight"
    return embeddings + "distillation_token" in source.weights and cuts_spectrograms(source, projection)


def _prefix(source: Source) -> str:
    """``audio_spectrogram_transformer.`` with a head, nothing for the bare encoder."""
    prefix = "audio_spectrogram_transformer."
    return prefix if any(key.startswith(prefix) for key in source.weights) else ""


def _blocks(source: Source) -> str:
    prefix = _prefix(source)
    for blocks in BLOCKS:
        if any(key.startswith(prefix + blocks) for key in source.weights):
            return blocks
    raise CheckpointError(f"{source.name}: has no blocks; expected names like {prefix}{SAVED}0.…")


def read_fields(source: Source) -> SpectrimConfig:
    """The model from ``config.json``, or from the shapes where there is none."""
    described = source.config.get("model_type") == "audio-spectrogram-transformer"
    fields = _from_config(source) if described else _from_shapes(source)
    query = ".query.bias" if _blocks(source) == SAVED else ".q_proj.bias"
    return ast_base(
        **fields,
        qkv_bias=any(key.endswith(query) for key in source.weights),
        problem_type=None if count_outputs(source, HEAD) == 1 else source.config.get("problem_type"),
        **_front_end(source),
    )


def _from_config(source: Source) -> dict[str, Any]:
    from transformers import ASTConfig

    read = (*SAME_FIELDS, "hidden_act")
    given = ASTConfig(**{name: source.config[name] for name in read if name in source.config})
    if given.hidden_act != "gelu":
        raise CheckpointError(f"{source.name}: its activation is {given.hidden_act!r}; only 'gelu' is supported")
    return {
        **{name: getattr(given, name) for name in SAME_FIELDS},
        "head_norm_eps": given.layer_norm_eps,
        "prune_at": default_blocks(given.num_hidden_layers),
    }


def _from_shapes(source: Source) -> dict[str, Any]:
    prefix, blocks = _prefix(source), _blocks(source)
    up = next(theirs for theirs, ours in BLOCKS[blocks].items() if ours == "mlp.up")
    projection = f"{prefix}embeddings.patch_embeddings.projection.weight"
    sizes = sizes_of(source, projection, prefix + blocks, f"{up}.weight")
    positions = count_positions(source, f"{prefix}embeddings.position_embeddings", extra=2)
    grid = find_grid(source, positions, sizes["patch_size"], count_outputs(source, HEAD))
    return {**sizes, **grid, "layer_norm_eps": LAYER_NORM_EPS, "head_norm_eps": LAYER_NORM_EPS}


def _front_end(source: Source) -> dict[str, Any]:
    """Settings of the ASTFeatureExtractor; where it does not normalise, (x − 0) / (2·0.5) leaves x as it is."""
    said = {name: source.extractor[name] for name in ("mean", "std", "sampling_rate") if name in source.extractor}
    return {**said, "mean": 0.0, "std": 0.5} if source.extractor.get("do_normalize") is False else said


def left_out(source: Source) -> str:
    """What is said of dropout, which the model has not; empty where there is none."""
    rates = {name: source.config.get(name) for name in DROPOUT}
    there = [f"{name}={rate:g}" for name, rate in rates.items() if isinstance(rate, int | float) and rate > 0]
    if not there:
        return ""
    return f"its dropout ({', '.join(there)}) is left out in training; stochastic depth is there: drop_path_rate="


def weight_names(source: Source, config: SpectrimConfig) -> dict[str, str]:
    """Their names → ours."""
    prefix, blocks = _prefix(source), _blocks(source)
    embeddings = f"{prefix}embeddings."
    modules = {
        f"{embeddings}patch_embeddings.projection": "embeddings.projection",
        f"{prefix}layernorm": "norm",
        "classifier.layernorm": "head.norm",
        "classifier.dense": "head.linear",
    }
    for block in range(config.num_hidden_layers):
        modules |= {f"{prefix}{blocks}{block}.{t}": f"blocks.{block}.{o}" for t, o in BLOCKS[blocks].items()}
    return {
        f"{embeddings}cls_token": "embeddings.cls_token",
        f"{embeddings}distillation_token": "embeddings.dist_token",
        f"{embeddings}position_embeddings": "embeddings.position_table",
        **weights_and_biases(modules, config.qkv_bias),
    }
