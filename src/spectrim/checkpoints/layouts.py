"""One entry a checkpoint layout: how to recognise it, what it says about the model, what its weights are called.

A layout does not touch tensors. It names, for every weight that it must hold, the place in `AudioTransformer`; the
loader turns that into tensors and refuses whatever is missing or left over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from spectrim.checkpoints import beats, ced, eat, hf_ast, kwt, passt, ssast, vit
from spectrim.checkpoints.files import Source
from spectrim.checkpoints.labels import SPEECH_COMMANDS
from spectrim.checkpoints.settings import build_config
from spectrim.checkpoints.sizes import cuts_spectrograms
from spectrim.config import SpectrimConfig
from spectrim.errors import CheckpointError
from spectrim.network.masked.config import MaskedConfig

AUDIOMAE_LICENCE = (
    "these weights come from AudioMAE, whose licence is CC BY-NC 4.0: no commercial use, whatever a mirror's page says"
)


@dataclass(frozen=True)
class Layout:
    """A way in which people save checkpoints.

    Attributes:
        detect: whether a checkpoint has this layout, by its keys and shapes.
        fields: the configuration of the model that the checkpoint is of; its labels are found elsewhere.
        names: (source, configuration) → {name of each weight that must be there: its place in our model}.
            What goes to ``attention.qkv`` is split, what goes to ``attention.key`` and ``.value`` is joined.
        ignored: regular expressions for keys that are there for another purpose.
        fresh: beginnings of the places in our model that the layout has no weights for.
        colours: whether the patch projection is for pictures of three colours, which are summed.
        becomes: (source, configuration of the file) → fields in which our model differs from it.
        positions: how the position table is fitted where the caller leaves that open.
        transposed: whether the patch projection is (time, frequency) and not (frequency, time).
        flat: whether it is a matrix (width, values of a patch).
        bare_positions: whether the position table has no rows for the extra tokens, which have no position.
        labels: of the published models, for as many outputs that nothing names.
        audioset: whether 527 outputs that nothing names are AudioSet's in the order of its table.
        front_end: whether a file says the front end, or there is but one.
        licence: what to say when such weights are loaded.
        left_out: what to say of settings of the file that our model does not have; empty for nothing.
        alike: a setting → what to say where it is not given, because another model's files look the same.
    """

    detect: Callable[[Source], bool]
    fields: Callable[[Source], SpectrimConfig]
    names: Callable[[Source, SpectrimConfig], dict[str, str]]
    ignored: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    colours: bool = False
    becomes: Callable[[Source, SpectrimConfig], Mapping[str, Any]] = lambda *_: {}
    positions: str = "auto"
    transposed: bool = False
    flat: bool = False
    bare_positions: bool = False
    labels: tuple[str, ...] = ()
    audioset: bool = True
    front_end: Callable[[Source], bool] = lambda _: False
    licence: str | None = None
    left_out: Callable[[Source], str] = lambda _: ""
    alike: Mapping[str, str] = field(default_factory=dict)


POSITIONS = ("position_table", "time_positions", "position_convolution.filters.weight")
"""Embeddings of which each of our models has one, by the kind of its positions."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose layout is known, with nothing converted yet.

    Attributes:
        source: its files.
        layout_name: in `LAYOUTS`.
        layout: that entry.
        config: what it says about the model, with its labels.
        names: name of each weight that must be there → its place in our model.
        outputs: number of outputs of its head; 0 if it has none.
    """

    source: Source
    layout_name: str
    layout: Layout
    config: SpectrimConfig
    names: Mapping[str, str] = field(repr=False)
    outputs: int

    @property
    def title(self) -> str:
        """What errors call it."""
        return f"{self.source.name} (layout {self.layout_name})"


def _is_spectrim(source: Source) -> bool:
    known = any(f"embeddings.{name}" in source.weights for name in POSITIONS)
    return known and cuts_spectrograms(source, "embeddings.projection.weight")


def _spectrim_fields(source: Source) -> SpectrimConfig:
    if source.config.get("model_type") != SpectrimConfig.model_type:
        raise CheckpointError(f"{source.name}: these are Spectrim's weights, but their config.json is not beside them")
    return build_config(SpectrimConfig, source.config, source.name)


def _spectrim_names(_: Source, config: SpectrimConfig) -> dict[str, str]:
    head = _both("head.norm", "head.linear") if config.head_norm else _both("head.linear")
    norm = _both("norm") if config.norm_first else []
    return {name: name for name in [*_encoder(config), *norm, *head]}


def _is_spectrim_encoder(source: Source) -> bool:
    return _is_spectrim(source) and not any(name.startswith(("head.", "norm.")) for name in source.weights)


def is_autoencoder(source: Source) -> bool:
    """Recognise a masked autoencoder of ours, encoder and decoder."""
    known = source.config.get("model_type") == MaskedConfig.model_type
    return known and "encoder.embeddings.position_table" in source.weights


def _encoder(config: SpectrimConfig) -> list[str]:
    """Names of all weights but those of the last norm and the head."""
    names = _embeddings(config)
    for block in range(config.num_hidden_layers):
        gate = ("attention.gate",) if config.relative_buckets else ()
        inside = ("norm1", "norm2", "attention.output", *gate, "mlp.up", "mlp.down")
        names += _both(*(f"blocks.{block}.{module}" for module in inside))
        names += [f"blocks.{block}.attention.gate_scale"] if gate else []
        projections = _both(f"blocks.{block}.attention.query", f"blocks.{block}.attention.key_value")
        names += projections if config.qkv_bias else projections[::2]
    for block in config.encoder.predictors:
        inside = ("norm", "project", "own", "narrow", "decide")
        names += [*_both(*(f"blocks.{block}.predictor.{m}" for m in inside)), f"blocks.{block}.predictor.common.weight"]
    return names


def _embeddings(config: SpectrimConfig) -> list[str]:
    """Names of what stands before the blocks."""
    names = ["projection.weight", *(_both("patch_norm") if config.embedding_size else ["projection.bias"])]
    names += _both("widening") if config.embedding_size not in (0, config.hidden_size) else []
    names += ["cls_token", "dist_token"][: config.extra_tokens]
    names += _both("norm") if config.embedding_norm else []
    names += [f"input_norm.{kind}" for kind in ("weight", "bias", "mean", "variance")] if config.input_norm else []
    names += ["relative_positions"] if config.relative_buckets else []
    if config.position_kernel:
        names += _both("position_convolution.filters")
        names += [] if config.norm_first else _both("position_convolution.norm")
    elif config.separate_positions:
        kinds = ("extra", "frequency", "time") if config.extra_tokens else ("frequency", "time")
        names += [f"{kind}_positions" for kind in kinds]
    else:
        names += ["position_table"]
    return [f"embeddings.{name}" for name in names]


def _both(*modules: str) -> list[str]:
    return [f"{module}.{kind}" for module in modules for kind in ("weight", "bias")]


LAYOUTS: dict[str, Layout] = {
    "spectrim-encoder": Layout(
        _is_spectrim_encoder,
        _spectrim_fields,
        lambda _, config: {name: name for name in _encoder(config)},
        fresh=("norm.", "head."),
    ),
    "spectrim-autoencoder": Layout(
        is_autoencoder,
        lambda source: build_config(MaskedConfig, source.config, source.name).encoder_config(),
        lambda _, config: {f"encoder.{name}": name for name in _encoder(config)},
        ignored=(r"encoder\.norm\.(weight|bias)", r"decoder\..*"),
        fresh=("norm.", "head."),
    ),
    "spectrim": Layout(_is_spectrim, _spectrim_fields, _spectrim_names, front_end=lambda _: True),
    "ced": Layout(
        ced.detect,
        ced.read_fields,
        ced.weight_names,
        ignored=ced.IGNORED,
        becomes=ced.heard,
        front_end=lambda _: True,
    ),
    "eat": Layout(
        eat.detect,
        eat.read_fields,
        eat.weight_names,
        ignored=eat.IGNORED,
        fresh=("head.",),
        becomes=eat.heard,
        front_end=eat.says_front_end,
        transposed=True,
        bare_positions=True,
    ),
    "hf-ast": Layout(hf_ast.detect, hf_ast.read_fields, hf_ast.weight_names, left_out=hf_ast.left_out),
    "beats": Layout(
        beats.is_finetuned,
        beats.read_fields,
        beats.weight_names,
        ignored=beats.IGNORED,
        transposed=True,
        audioset=False,
        front_end=lambda _: True,
    ),
    "beats-pretrained": Layout(
        beats.is_pretrained,
        beats.read_fields,
        beats.weight_names,
        ignored=beats.IGNORED,
        fresh=("head.",),
        transposed=True,
        front_end=lambda _: True,
    ),
    "kwt-tflite": Layout(
        kwt.detect,
        kwt.read_fields,
        kwt.weight_names,
        ignored=kwt.IGNORED,
        flat=True,
        labels=kwt.LABELS,
        front_end=lambda _: True,
    ),
    "passt": Layout(
        passt.detect,
        passt.read_fields,
        passt.weight_names,
        ignored=(r"head_dist\.(weight|bias)",),
        front_end=lambda _: True,
    ),
    "ssast-pretrained": Layout(
        ssast.is_pretrained,
        ssast.pretrained_fields,
        ssast.pretrained_names,
        ignored=ssast.IGNORED,
        fresh=("head.",),
    ),
    "ssast-finetuned": Layout(
        ssast.is_finetuned,
        ssast.finetuned_fields,
        ssast.weight_names,
        ignored=ssast.IGNORED[:1],
        labels=SPEECH_COMMANDS,
    ),
    "official-ast": Layout(
        vit.is_official_ast,
        vit.official_ast_fields,
        vit.official_ast_names,
        ignored=(r"v\.head(_dist)?\.(weight|bias)",),
        labels=SPEECH_COMMANDS,
        alike={
            "pooling": "a fine-tuned SSAST has the same names and shapes: if it is one, give "
            'pooling="mean_normed_patches", criterion="mean_attention"'
        },
    ),
    "imagenet-deit": Layout(
        vit.is_imagenet_deit,
        vit.imagenet_deit_fields,
        vit.imagenet_deit_names,
        ignored=(r"head(_dist)?\.(weight|bias)",),
        fresh=("head.",),
        colours=True,
        becomes=lambda *_: {"num_mel_bins": 128, "max_length": 1024},
        positions="by_axis",
    ),
    "paper-audiomae": Layout(
        vit.is_paper_audiomae,
        vit.paper_audiomae_fields,
        vit.audiomae_names(norm=True, head=True),
        transposed=True,
        labels=SPEECH_COMMANDS,
        licence=AUDIOMAE_LICENCE,
    ),
    "audiomae-finetuned": Layout(
        vit.is_audiomae_finetuned,
        vit.audiomae_fields,
        vit.audiomae_names(norm=True, head=True),
        transposed=True,
        licence=AUDIOMAE_LICENCE,
    ),
    "audiomae-pretrained": Layout(
        vit.is_audiomae_pretrained,
        vit.audiomae_fields,
        vit.audiomae_names(norm=False, head=False),
        ignored=(r"norm\.(weight|bias)", r"decoder_.*", r"mask_token"),
        fresh=("norm.", "head."),
        transposed=True,
        licence=AUDIOMAE_LICENCE,
    ),
    "audiomae-timm": Layout(
        vit.is_audiomae_encoder,
        vit.audiomae_fields,
        vit.audiomae_names(norm=True, head=False),
        fresh=("head.",),
        transposed=True,
        licence=AUDIOMAE_LICENCE,
    ),
}
"""Every layout that is understood, the narrower before the wider: the first whose detector says yes is it."""
