"""From whatever names a model, or is one, to what runs it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypeAlias

from spectrim.errors import InvalidSetting
from spectrim.inference.backend import Backend, KeepRate
from spectrim.inference.onnx_model import SUFFIX, OnnxModel
from spectrim.inference.torch_model import TorchModel, check_precision
from spectrim.machine import resolve_device
from spectrim.network.transformer import AudioTransformer

ModelSource: TypeAlias = Backend | AudioTransformer | str | os.PathLike[str]
"""A model that runs, one that could, or where one is."""


def open_model(
    source: ModelSource,
    keep_rate: KeepRate | None = None,
    precision: str | None = None,
    device: str = "auto",
) -> Backend:
    """A model by its name, ready to infer: an exported file (.onnx), or whatever `spectrim.from_pretrained` takes.

    What is loaded here is frozen (`Backend.frozen`): on an x86-64 CPU its weights are packed. A model that is in memory
    already is taken as it is.

    Args:
        source: where the model is, or the model itself.
        keep_rate: share of the patches kept at each pruning block; None as the model says.
        precision: one of `spectrim.inference.torch_model.DTYPES`, of a checkpoint; None as its weights are.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``. A backend stays where it is with ``"auto"``.

    Raises:
        InvalidSetting: the keep rate is out of range, the precision unknown, or either given for a model that has its
            own; or there is no such device.
        CheckpointError: it cannot be loaded.
    """
    check_precision(precision)
    if isinstance(source, Backend | AudioTransformer):
        if precision is not None:
            raise InvalidSetting("precision", precision, "none with a model that is loaded already")
        if isinstance(source, AudioTransformer):
            return TorchModel(source, device=resolve_device(device)).at(keep_rate=keep_rate)
        return (source if device == "auto" else source.to(device)).at(keep_rate=keep_rate)
    if Path(source).suffix.lower() != SUFFIX:
        return TorchModel.load(source, keep_rate=keep_rate, precision=precision, device=device)
    if precision is not None:
        raise InvalidSetting("precision", precision, "none with an exported file: spectrim export --precision")
    return OnnxModel(source, device).at(keep_rate=keep_rate)
