"""Small Keyword Transformers as TensorFlow Lite files, written with FlatBuffers' own builder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import flatbuffers
import numpy as np
from seeded import seeded_weight
from transformers.audio_utils import mel_filter_bank

TYPES = {"float32": 0, "float16": 1, "int32": 2, "uint8": 3, "int8": 9}
"""Numbers of TensorFlow Lite's types."""

WIDTH, FRAMES, COEFFICIENTS, SEED = 64, 30, 40, 5


def front_end(frames: int = FRAMES, coefficients: int = COEFFICIENTS) -> dict[str, np.ndarray]:
    """The tables of the MFCC, by their formulas: 30 ms of 16 kHz, 80 mel bands from 20 to 7600 Hz."""
    angle = 2 * np.pi * np.outer(np.arange(244), np.arange(480)) / 512
    mel = mel_filter_bank(257, 80, 20.0, 7600.0, 16000, mel_scale="htk", triangularize_in_mel_space=True)
    cosines = np.cos(np.pi * np.outer(np.arange(coefficients), 2 * np.arange(80) + 1) / 160) * 2 / np.sqrt(160)
    tables = {
        "data_frame/frame/concat_1": np.array([1, frames + 2, 160], np.int32),
        "data_frame/frame/add_1": (np.arange(frames)[:, None] + np.arange(3)).astype(np.int32),
        "windowing/mul/y": 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(480) / 480),
        "magnitude_rdf_tmel/MatMul": np.cos(angle),
        "magnitude_rdf_tmel/MatMul_1": -np.sin(angle),
        "magnitude_rdf_tmel/MatMul_2": mel[:244].T,
        "lambda_5/Maximum/y": np.array(1e-12),
        "dct/MatMul": cosines,
        "normalizer/sub/y": np.array(0.0),
        "normalizer/truediv;speech_features/normalizer/truediv/y": np.ones(coefficients),
    }
    return {f"speech_features/{name}": _narrow(table) for name, table in tables.items()}


def kwt_constants(
    depth: int = 2, labels: int = 12, *, heads: int = 1, frames: int = FRAMES, width: int = WIDTH
) -> dict[str, np.ndarray]:
    """All constants of a model in the order in which its operators read them, weights seeded."""
    found = front_end(frames)
    encoder = "kws_transformer"
    found |= _dense(f"{encoder}/dense", (width, COEFFICIENTS))
    found["class_emb"], found["pos_emb"] = (
        seeded_weight(f"{name}_token", (1, rows, width), SEED).numpy()
        for name, rows in (("class", 1), ("position", 1 + frames))
    )
    for block in range(depth):
        end = f"_{block}" if block else ""
        inside = f"{encoder}/transformer_block{end}"
        attention, mlp = f"{inside}/multi_head_self_attention{end}", f"{inside}/sequential{end}"
        for number in (1, 2, 3):
            found |= _dense(f"{attention}/dense_{6 * block + number}", (width, width), bias=False)
        if block == 0:
            scale = f"{encoder}/transformer_block_1/multi_head_self_attention_1"
            found[f"{scale}/truediv;{scale}/Sqrt"] = _narrow(np.array((width // heads) ** -0.5))
        found |= _dense(f"{attention}/dense_{6 * block + 4}", (width, width))
        found |= _norm(inside, 2 * block, width)
        found |= _dense(f"{mlp}/dense_{6 * block + 5}", (2 * width, width))
        if block == 0:
            gelu = f"{encoder}/transformer_block_1/sequential_1/dense_11"
            for name, value in zip(
                ("Pow/y", "Cast/x", "mul_2/x", "add_1/x", "mul/x"),
                (3.0, 0.044715, (2 / np.pi) ** 0.5, 1.0, 0.5),
                strict=True,
            ):
                found[f"{gelu}/{name}"] = _narrow(np.array(value))
        found |= _dense(f"{mlp}/dense_{6 * block + 6}", (width, 2 * width))
        found |= _norm(inside, 2 * block + 1, width)
        if block == 0:
            found[f"{encoder}/transformer_block_1/layer_normalization_3/batchnorm/add/y"] = _narrow(np.array(1e-6))
    found[f"{encoder}/strided_slice_1"] = np.zeros(3, np.int32)
    head = f"sequential_{depth}/dense_{6 * depth + 1}"
    weights = _dense(head, (labels, width))
    return found | {name.replace("/Tensordot", ""): value for name, value in weights.items()}


def _dense(name: str, shape: tuple[int, int], *, bias: bool = True) -> dict[str, np.ndarray]:
    found = {f"{name}/Tensordot/MatMul": seeded_weight(f"{name}.weight", shape, SEED).numpy()}
    return {**found, f"{name}/bias": seeded_weight(f"{name}.bias", shape[:1], SEED).numpy()} if bias else found


def _norm(inside: str, number: int, width: int) -> dict[str, np.ndarray]:
    name = f"{inside}/layer_normalization" + (f"_{number}" if number else "")
    return {
        f"{name}/gamma": seeded_weight(f"{name}.weight", (width,), SEED).numpy(),
        f"{name}/beta": seeded_weight(f"{name}.bias", (width,), SEED).numpy(),
    }


def _narrow(table: np.ndarray) -> np.ndarray:
    return table.astype(np.float32) if table.dtype == np.float64 else table


def write_tflite(path: Path, constants: Mapping[str, np.ndarray], *, graphs: int = 1) -> Path:
    """A file of these constants, each read by an operator of its own, in their order."""
    builder = flatbuffers.Builder(1 << 16)
    buffers = [_table(builder, {})]
    tensors = []
    for number, (name, values) in enumerate(constants.items(), start=1):
        data = builder.CreateByteVector(np.ascontiguousarray(values).tobytes())
        buffers.append(_table(builder, {0: ("UOffsetT", data)}))
        shape = builder.CreateNumpyVector(np.array(values.shape, np.int32)) if values.ndim else None
        text = builder.CreateString(name)
        fields = {1: ("Int8", TYPES[str(values.dtype)]), 2: ("Uint32", number), 3: ("UOffsetT", text)}
        tensors.append(_table(builder, fields | ({} if shape is None else {0: ("UOffsetT", shape)})))
    operators = []
    for number in range(len(constants)):
        inputs = builder.CreateNumpyVector(np.array([number, -1], np.int32))
        operators.append(_table(builder, {1: ("UOffsetT", inputs)}))
    graph = _table(builder, {0: ("UOffsetT", _vector(builder, tensors)), 3: ("UOffsetT", _vector(builder, operators))})
    model = {
        0: ("Uint32", 3),
        2: ("UOffsetT", _vector(builder, [graph] * graphs)),
        4: ("UOffsetT", _vector(builder, buffers)),
    }
    builder.Finish(_table(builder, model), file_identifier=b"TFL3")
    path.write_bytes(builder.Output())
    return path


def _table(builder: flatbuffers.Builder, fields: Mapping[int, tuple[str, int]]) -> int:
    builder.StartObject(1 + max(fields, default=0))
    for place, (kind, value) in fields.items():
        relative = "Relative" if kind == "UOffsetT" else ""
        getattr(builder, f"Prepend{kind}{relative}Slot")(place, value, 0)
    return builder.EndObject()


def _vector(builder: flatbuffers.Builder, offsets: list[int]) -> int:
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return builder.EndVector()
