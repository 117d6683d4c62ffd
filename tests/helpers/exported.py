"""Small exported models, made once for all processes of a run, and clips to feed them."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from plain import small_model
from shared import made_once

from spectrim.inference.onnx_export import export
from spectrim.network.transformer import AudioTransformer

SAMPLES = 63 * 160 + 400
"""What fills the 64 frames of these models."""


Session = onnxruntime.InferenceSession


def on_the_cpu(path: Path, options: Any, providers: object) -> onnxruntime.InferenceSession:
    """A session as ONNX Runtime gives it where it cannot load the provider that was asked for."""
    return Session(path, options, providers=["CPUExecutionProvider"])


def tiny_model(backbone: str, **fields: object) -> AudioTransformer:
    """Two blocks of width 64 on 64 frames (32 patches), which both prune, in float32."""
    sizes = {"num_hidden_layers": 2, "prune_at": [0, 1], "keep_rate": 0.6, "max_length": 64, "mean": -9.0, "std": 5.0}
    problem = {"problem_type": "single_label_classification"}
    return small_model(backbone, dtype=torch.float32, **{**sizes, **problem, **fields})


def noise(count: int = 6, seed: int = 0, rate: int = 16000) -> list[np.ndarray]:
    """Clips whose level and colour change; the first fills the frames, the last is one frame long."""
    generator = np.random.default_rng(seed)
    lengths = [SAMPLES, 3 * SAMPLES, *generator.integers(400, SAMPLES, count - 3), 400]
    lengths = [length * rate // 16000 for length in lengths]
    waves = []
    for length in lengths:
        level = 0.3 * np.abs(np.sin(np.linspace(0, generator.uniform(3, 9), length))) + 0.01
        wave = generator.standard_normal(length) * level
        waves.append(np.convolve(wave, generator.standard_normal(8) / 4, mode="same").astype(np.float32))
    return waves


@functools.cache
def exported(backbone: str, criterion: str = "auto", front_end: bool = False) -> tuple[AudioTransformer, Path]:
    """A model, and the file that it was exported to; of one block only for the lesser criteria."""
    lesser: dict[str, Any] = {} if criterion in ("auto", "intensity") else {"num_hidden_layers": 1, "prune_at": [0]}
    model = tiny_model(backbone, criterion=criterion, **lesser)
    name = f"{backbone}-{criterion}-{front_end}"

    def make(folder: Path) -> None:
        folder.mkdir()
        export(model, folder / f"{name}.onnx", front_end=front_end, clips=noise())

    return model, made_once(name, make) / f"{name}.onnx"


def with_weight(path: Path, target: Path, part: str, factor: float) -> Path:
    """A copy of a file whose first weight with ``part`` in its name is multiplied."""
    graph = onnx.load(path)
    weight = next(weight for weight in graph.graph.initializer if part in weight.name)
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * np.float32(factor), weight.name))
    onnx.save(graph, target)
    return target


def with_fact(path: Path, target: Path, name: str, value: str | None) -> Path:
    """A copy of a file with another value, or none, in its metadata."""
    graph = onnx.load(path)
    facts = {fact.key: fact.value for fact in graph.metadata_props}
    del graph.metadata_props[:]
    del facts[name]
    onnx.helper.set_model_props(graph, facts if value is None else {**facts, name: value})
    onnx.save(graph, target)
    return target
