"""EAT's ``.pt``, pre-trained or fine-tuned, and its release on the Hugging Face hub (Chen et al., 2024).

A post-norm ViT with [CLS] and fixed positions, as data2vec 2.0 has it. The same weights have three sets of names: those
of the authors' pre-training, with a decoder and a teacher beside them; those of their fine-tuning; and those of the
release, which has but the encoder and a head, if there is one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spectrim.backbones import eat_base
from spectrim.checkpoints.files import Source
from spectrim.checkpoints.sizes import cuts_spectrograms, shape_of, sizes_of, weights_and_biases
from spectrim.checkpoints.vit import BLOCK
from spectrim.config import SpectrimConfig
from spectrim.errors import CheckpointError, InvalidSetting

MODEL_TYPE = "eat"
MELS = 128
FRAMES = 1024
"""Of the models for 10 s; the tables of positions are for more, and say nothing of the length."""

INPUT, FINE_TUNED = "modality_encoders.IMAGE.", "model."
RELEASED, PRETRAINED = "", INPUT
PREFIXES = (RELEASED, PRETRAINED, FINE_TUNED + INPUT)
"""What stands before the names of what is before the blocks."""

STATISTICS = {
    "esc50_eval": {"mean": -6.627, "std": 5.359},
    "spcv2_eval": {"mean": -6.846, "std": 5.565},
}
"""Switch in the settings of a fine-tuning → what the authors' code then normalises by; without one, as for AudioSet."""

IGNORED = (r"modality_encoders\.IMAGE\.decoder\..*",)
"""Of pre-training. The teacher is a dictionary of its own; see `spectrim.checkpoints.unwrap`."""

REQUIRED: dict[str, tuple[Any, ...]] = {
    "layer_norm_first": (False,),
    "norm_affine": (True,),
    "fixed_positions": (True,),
    "in_chans": (1,),
    "mel_bins": (MELS,),
}
"""Settings in the release's ``config.json`` → those of the published models."""


def detect(source: Source) -> bool:
    """Recognise the fixed positions and the [CLS] token."""
    return _prefix(source) is not None


def read_fields(source: Source) -> SpectrimConfig:
    """The model from the shapes, with the length that its whole table of positions is for.

    Raises:
        CheckpointError: its settings or its positions are those of another model.
        InvalidSetting: a stride is given that is not the side of a patch.
    """
    prefix, described = _known_prefix(source), _described(source)
    blocks = FINE_TUNED if prefix.startswith(FINE_TUNED) else ""
    projection = f"{prefix}local_encoder.proj.weight"
    sizes = sizes_of(source, projection, f"{blocks}blocks.", "mlp.fc1.weight")
    patch = sizes["patch_size"]
    if source.stride not in (None, (patch, patch)):
        raise InvalidSetting("stride", source.stride, f"{patch}: the patches of EAT do not overlap")
    for name, allowed in {**REQUIRED, "stride": (patch, [patch, patch])}.items():
        if name in described and described[name] not in allowed:
            raise CheckpointError(f"{source.name}: {name} is {described[name]!r}; only {allowed[0]!r} is understood")
    shape = shape_of(source, f"{prefix}fixed_positional_encoder.positions")
    frequencies = MELS // patch
    if len(shape) != 3 or shape[1] % frequencies or not shape[1]:
        raise CheckpointError(f"{source.name}: positions of shape {shape} are no columns of {frequencies} patches")
    return eat_base(
        **sizes | {"num_attention_heads": described.get("num_heads", sizes["num_attention_heads"])},
        frequency_stride=patch,
        time_stride=patch,
        max_length=shape[1] // frequencies * patch,
        layer_norm_eps=described.get("norm_eps", 1e-6),
        head_norm_eps=1e-5 if prefix == RELEASED else 1e-6,
        **_statistics(_task(source)),
    )


def heard(source: Source, stored: SpectrimConfig) -> dict[str, int]:
    """The length that a fine-tuning's settings or the release say, else that of 10 s; where the table has so many."""
    size = _described(source).get("img_size")
    said = size[0] if isinstance(size, list | tuple) and size else _task(source).get("target_length")
    if not isinstance(said, int) or isinstance(said, bool) or said < 1:
        said = FRAMES
    return {"max_length": min(said, stored.max_length)}


def says_front_end(source: Source) -> bool:
    """Whether the settings of its fine-tuning are beside the weights."""
    return "target_length" in _task(source)


def weight_names(source: Source, config: SpectrimConfig) -> dict[str, str]:
    """Their names → ours; of a pre-trained encoder without the head."""
    prefix = _known_prefix(source)
    blocks = FINE_TUNED if prefix.startswith(FINE_TUNED) else ""
    norm = "pre_norm" if prefix == RELEASED else f"{prefix}context_encoder.norm"
    modules = {f"{prefix}local_encoder.proj": "embeddings.projection", norm: "embeddings.norm"}
    if any(name.startswith(("head.", "fc_norm.")) for name in source.weights):
        modules |= {"fc_norm": "head.norm", "head": "head.linear"}
    for block in range(config.num_hidden_layers):
        modules |= {f"{blocks}blocks.{block}.{theirs}": f"blocks.{block}.{ours}" for theirs, ours in BLOCK.items()}
    return {
        f"{prefix}extra_tokens": "embeddings.cls_token",
        f"{prefix}fixed_positional_encoder.positions": "embeddings.position_table",
        **weights_and_biases(modules, config.qkv_bias),
    }


def _prefix(source: Source) -> str | None:
    for prefix in PREFIXES:
        known = {f"{prefix}fixed_positional_encoder.positions", f"{prefix}extra_tokens"} <= source.weights.keys()
        if known and cuts_spectrograms(source, f"{prefix}local_encoder.proj.weight"):
            return prefix
    return None


def _known_prefix(source: Source) -> str:
    prefix = _prefix(source)
    if prefix is None:
        raise CheckpointError(f"{source.name}: has no fixed positions and [CLS] of an EAT")
    return prefix


def _described(source: Source) -> Mapping[str, Any]:
    """The release's ``config.json``, or nothing."""
    return source.config if source.config.get("model_type") == MODEL_TYPE else {}


def _task(source: Source) -> Mapping[str, Any]:
    """What a fine-tuned file says of its data, or nothing; a pre-trained one says nothing of what it is to be."""
    settings = source.arguments.get("cfg")
    task = settings.get("task") if isinstance(settings, Mapping) else None
    return task if isinstance(task, Mapping) and (_prefix(source) or "").startswith(FINE_TUNED) else {}


def _statistics(task: Mapping[str, Any]) -> dict[str, float]:
    return next((statistics for switch, statistics in STATISTICS.items() if task.get(switch) is True), {})
