"""ARM's Keyword Transformer as a TensorFlow Lite file (Berg, O'Connor, Cruz, 2021): post-norm, front end inside.

The names are Keras's, which count layers over the whole model. Names and shapes do not tell a pre-norm model from a
post-norm one, nor which front end is before it: so the order in which the weights are used and the constants of the
graph are compared with what our model computes, and a file that differs is refused.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import torch

from spectrim.audio.filterbank import FEATURES, cosine_transform, frame_length_and_shift, window_and_filters
from spectrim.backbones import kwt_1
from spectrim.checkpoints.files import Source
from spectrim.checkpoints.sizes import default_blocks, shape_of
from spectrim.config import SpectrimConfig
from spectrim.errors import CheckpointError

ENCODER = "kws_transformer"
FRONT_END = "speech_features"
PROJECTION = f"{ENCODER}/dense/Tensordot/MatMul"
SAMPLING_RATE = 16000

LABELS = ("_silence_", "_unknown_", "yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
"""The 12 outputs of the published models, in their order: Speech Commands' ten words after silence and others."""

DENSE = ("attention.query", "attention.key", "attention.value", "attention.output", "mlp.up", "mlp.down")
"""The dense layers of a block, in the order in which Keras counts them."""

_IN_BLOCK = rf"{ENCODER}/transformer_block(_\d+)?"
_ATTENTION = rf"{_IN_BLOCK}/multi_head_self_attention(_\d+)?"
_NORM = rf"{_IN_BLOCK}/layer_normalization(_\d+)?"
_MLP = rf"{_IN_BLOCK}/sequential(_\d+)?/dense(_\d+)?"
SCALE = rf"{_ATTENTION}/truediv;.*"
EPS = rf"{_NORM}/batchnorm/add/y"
GELU = {"Cast/x": 0.044715, "Pow/y": 3.0, "mul_2/x": (2.0 / np.pi) ** 0.5, "add_1/x": 1.0, "mul/x": 0.5}
"""Constants of the approximation by tanh, ½x(1 + tanh(√(2/π)(x + 0.044715x³)))."""

COMPARED = (rf"{FRONT_END}/.*", SCALE, EPS, *(f"{_MLP}/{name}" for name in GELU))
"""Constants that are compared with ours, and not loaded."""

SHAPES = (
    rf"{ENCODER}/strided_slice_\d+",
    rf"{ENCODER}/(transformer_block(_\d+)?/(sequential|multi_head_self_attention)(_\d+)?/)?dense(_\d+)?/Tensordot/shape",
    rf"{_ATTENTION}/(MatMul|MatMul_|transpose_|Reshape)\d*",
    rf"{_NORM}/moments/variance/reduction_indices",
)
"""Sizes and axes of the graph, which say nothing that the weights do not."""

IGNORED = (*COMPARED, *SHAPES)


def detect(source: Source) -> bool:
    """Recognise the class token and the projection of frames."""
    return {"class_emb", PROJECTION} <= source.weights.keys()


def read_fields(source: Source) -> SpectrimConfig:
    """The model from the shapes and constants, of which every one must be as our model has it.

    Raises:
        CheckpointError: the file computes something else.
    """
    width, coefficients = shape_of(source, PROJECTION)
    depth = _count_blocks(source)
    positions = shape_of(source, "pos_emb")
    if len(positions) != 3 or depth == 0:
        raise CheckpointError(f"{source.name}: has {depth} blocks and positions of shape {positions}: no such model")
    if not 0 < coefficients <= (FEATURES["mfcc"].bands or 0):
        raise CheckpointError(f"{source.name}: takes {coefficients} values a frame, which are no MFCC of ours")
    _check_front_end(source, positions[1] - 1, coefficients)
    for name, value in GELU.items():
        _check_constant(source, f"{_MLP}/{name}", value, "the approximation of GELU by tanh")
    head_width = _scalar(source, SCALE) ** -2
    whole = round(head_width)
    if whole < 1 or abs(head_width - whole) > 1e-3 or width % whole:
        raise CheckpointError(f"{source.name}: scales attention by {head_width**-0.5:g}, which fits no number of heads")
    config = kwt_1(
        hidden_size=width,
        num_attention_heads=width // whole,
        num_hidden_layers=depth,
        prune_at=default_blocks(depth),
        intermediate_size=shape_of(source, _dense(0, 5) + "/Tensordot/MatMul")[0],
        num_mel_bins=coefficients,
        patch_size=[coefficients, 1],
        frequency_stride=coefficients,
        max_length=positions[1] - 1,
        layer_norm_eps=_scalar(source, EPS),
    )
    _check_order(source, config)
    return config


def weight_names(source: Source, config: SpectrimConfig) -> dict[str, str]:
    """Their names → ours."""
    depth = config.num_hidden_layers
    head = f"sequential_{depth}/dense_{6 * depth + 1}"
    names = {
        "class_emb": "embeddings.cls_token",
        "pos_emb": "embeddings.position_table",
        PROJECTION: "embeddings.projection.weight",
        f"{ENCODER}/dense/bias": "embeddings.projection.bias",
        f"{head}/MatMul": "head.linear.weight",
        f"{head}/bias": "head.linear.bias",
    }
    for block in range(depth):
        for number, ours in enumerate(DENSE, start=1):
            names[_dense(block, number) + "/Tensordot/MatMul"] = f"blocks.{block}.{ours}.weight"
            if number > 3:
                names[_dense(block, number) + "/bias"] = f"blocks.{block}.{ours}.bias"
        for number in (0, 1):
            norm = _counted("layer_normalization", 2 * block + number)
            for theirs, ours in (("gamma", "weight"), ("beta", "bias")):
                inside = f"{_counted('transformer_block', block)}/{norm}/{theirs}"
                names[f"{ENCODER}/{inside}"] = f"blocks.{block}.norm{number + 1}.{ours}"
    return names


def _counted(layer: str, number: int) -> str:
    """What Keras calls the layer of a kind that it has made as number 0, 1, …"""
    return f"{layer}_{number}" if number else layer


def _dense(block: int, number: int) -> str:
    """Name of a block's dense layer, 1 to 6 in the order of `DENSE`."""
    inside = "multi_head_self_attention" if number <= 4 else "sequential"
    return f"{ENCODER}/{_counted('transformer_block', block)}/{_counted(inside, block)}/dense_{6 * block + number}"


def _count_blocks(source: Source) -> int:
    found = [match for name in source.weights if (match := re.match(rf"{_IN_BLOCK}/", name))]
    return 1 + max((int((match[1] or "_0")[1:]) for match in found), default=-1)


def _matching(source: Source, pattern: str) -> list[str]:
    return [name for name in source.weights if re.fullmatch(pattern, name)]


def _scalar(source: Source, pattern: str) -> float:
    """The only value of all constants of a kind, as the shortest decimal that float32 has for it."""
    constants = [source.weights[name] for name in _matching(source, pattern)]
    values = {float(str(np.float32(constant.item()))) for constant in constants if constant.numel() == 1}
    if len(values) != 1 or not 0.0 < min(values) < float("inf"):
        raise CheckpointError(f"{source.name}: has {len(values)} constants {pattern!r} where one is expected")
    return values.pop()


def _check_constant(source: Source, pattern: str, value: float, what: str) -> None:
    there = _scalar(source, pattern)
    if abs(there - value) > 1e-6 * max(abs(value), 1e-6):
        raise CheckpointError(f"{source.name}: {pattern!r} is {there:g} where {what} has {value:g}; nothing loaded")


def _check_front_end(source: Source, frames: int, coefficients: int) -> None:
    """Raise `CheckpointError` unless the front end in the file is the one of ``features="mfcc"``."""
    kind = FEATURES["mfcc"]
    length, shift = frame_length_and_shift(SAMPLING_RATE, "mfcc")
    window, filters = window_and_filters(kind.bands or 0, SAMPLING_RATE, "mfcc")
    used = int(np.flatnonzero(filters.any(axis=1)).max()) + 1
    angle = 2.0 * np.pi * np.outer(np.arange(used), np.arange(length)) / len(window)
    rows = -(-length // shift)
    expected: dict[str, Any] = {
        "windowing/mul/y": np.concatenate([[0.0], window[: length - 1]]),
        "magnitude_rdf_tmel/MatMul": np.cos(angle),
        "magnitude_rdf_tmel/MatMul_1": -np.sin(angle),
        "magnitude_rdf_tmel/MatMul_2": filters[:used].T,
        "dct/MatMul": cosine_transform(kind.bands or 0, coefficients).T,
        "data_frame/frame/concat_1": [1, (frames + rows - 1), shift],
        "data_frame/frame/add_1": np.add.outer(np.arange(frames), np.arange(rows)),
        "normalizer/sub/y": 0.0,
        "normalizer/truediv;speech_features/normalizer/truediv/y": np.ones(coefficients),
    }
    for name, values in expected.items():
        there = source.weights.get(f"{FRONT_END}/{name}")
        if there is None:
            raise CheckpointError(f"{source.name}: its front end is another one: {FRONT_END}/{name} is missing")
        ours = torch.as_tensor(np.asarray(values, dtype=np.float64))
        if there.shape != ours.shape or not torch.allclose(there.double(), ours, rtol=0.0, atol=1e-6):
            raise CheckpointError(f"{source.name}: its front end is another one: {FRONT_END}/{name} differs from ours")
    floor = rf"{FRONT_END}/lambda(_\d+)?/Maximum/y"
    if (there_floor := _scalar(source, floor)) != np.float32(kind.floor):
        raise CheckpointError(f"{source.name}: its mel floor is {there_floor:g} where ours is {kind.floor:g}")


def _check_order(source: Source, config: SpectrimConfig) -> None:
    """Raise `CheckpointError` unless the weights are used in the order of a post-norm encoder.

    `spectrim.checkpoints.tflite.read_tflite` gives them in the order in which the operators read them.
    """
    places = {name: place for place, name in enumerate(source.weights)}
    stages = ["embeddings.projection.weight", "embeddings.position_table"]
    for block in range(config.num_hidden_layers):
        inside = ("attention.value", "attention.output", "norm1", "mlp.up", "mlp.down", "norm2")
        stages += [f"blocks.{block}.{module}.weight" for module in inside]
    theirs = {ours: name for name, ours in weight_names(source, config).items()}
    order = [places.get(theirs[stage], -1) for stage in [*stages, "head.linear.weight"]]
    if -1 not in order and order != sorted(order):
        raise CheckpointError(
            f"{source.name}: uses its weights in another order than a post-norm Keyword Transformer, such as a "
            "pre-norm one; only the published post-norm models are understood"
        )
