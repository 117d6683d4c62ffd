"""From whatever names a model, or is one, to what runs it."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias, TypeGuard

from spectrim.checkpoints import DescribedSource, from_pretrained
from spectrim.errors import InvalidSetting
from spectrim.inference.backend import Backend, KeepRate
from spectrim.inference.choosing import AUTO, Clips, check_names, chosen
from spectrim.inference.exported_model import SUFFIX
from spectrim.inference.onnx_export import Progress
from spectrim.inference.onnx_model import OnnxModel
from spectrim.inference.openvino_model import OpenVinoModel
from spectrim.inference.torch_model import IN_MEMORY, TorchModel
from spectrim.machine import resolve_device
from spectrim.network.transformer import AudioTransformer

ModelSource: TypeAlias = Backend | AudioTransformer | str | os.PathLike[str]
"""A model that runs, one that could, or where one is."""


def open_model(
    source: ModelSource,
    keep_rate: KeepRate | None = None,
    precision: str | None = None,
    device: str = "auto",
    backend: str | None = None,
    *,
    clips: Clips | None = None,
    tell: Callable[[str], object] | None = None,
    on_step: Progress | None = None,
) -> Backend:
    """A model by its name, ready to infer: an exported file (.onnx), or whatever `spectrim.from_pretrained` takes.

    What is loaded here is frozen (`Backend.frozen`): on an x86-64 CPU its weights are packed. A model that is in memory
    already is taken as it is.

    Args:
        source: where the model is, or the model itself.
        keep_rate: share of the patches kept at each pruning block; None as the model says.
        precision: of a checkpoint: ``"fp32"``, ``"bf16"``, ``"int8"``, or ``"auto"``, the fastest that answers alike
            (`spectrim.inference.choosing`); None: as its weights are in PyTorch, fp32 elsewhere.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``. A backend stays where it is with ``"auto"``.
        backend: ``"torch"``, ``"onnxruntime"``, ``"openvino"``, or ``"auto"``, the fastest; None: PyTorch, and ONNX
            Runtime for an exported file. All but PyTorch, where a precision is named, write to the user's cache
            (`spectrim.inference.export_cache`).
        clips, tell, on_step: as for `spectrim.inference.choosing.chosen`.

    Raises:
        InvalidSetting: the keep rate is out of range, the precision or backend unknown, or either given for a model
            that has its own; or there is no such device.
        CheckpointError: it cannot be loaded.
        MissingExtra, ExportError: the backend cannot be had.
    """
    if isinstance(source, Backend):
        _refuse(backend, precision)
        return (source if device == "auto" else source.to(device)).at(keep_rate=keep_rate)
    if _is_exported(source):
        return _file(source, keep_rate, precision, device, backend)
    check_names(backend, precision)
    if backend in (None, "torch") and precision != AUTO:
        if not isinstance(source, AudioTransformer):
            return TorchModel.load(source, keep_rate=keep_rate, precision=precision, device=device)
        _refuse(None, precision)
        return TorchModel(source, device=resolve_device(device)).at(keep_rate=keep_rate)
    if not isinstance(source, AudioTransformer):
        network = from_pretrained(source, keep_rate=keep_rate)
    else:
        network = source if keep_rate is None else copy.deepcopy(source).set_pruning(keep_rate=keep_rate)
    return chosen(network, backend or "torch", precision, device, clips, tell, on_step)


def pruned_by(source: ModelSource, criterion: str | None, reducer: str | None) -> ModelSource:
    """A model's name with what is to rank its patches, and what is to become of those that are not kept.

    Raises:
        InvalidSetting: the model is loaded already or an exported file, which have their own.
    """
    given = {name: value for name, value in (("criterion", criterion), ("reducer", reducer)) if value is not None}
    if not given:
        return source
    name, value = next(iter(given.items()))
    if isinstance(source, Backend | AudioTransformer):
        allowed = f"none with a model that is loaded already: model.set_pruning({name}=…) changes it"
        raise InvalidSetting(name, value, allowed)
    if _is_exported(source):
        raise InvalidSetting(name, value, f"none with an exported file: spectrim export --{name}")
    described = source if isinstance(source, DescribedSource) else DescribedSource(os.fspath(source))
    return replace(described, **given)


def name_of(source: ModelSource) -> str:
    """What results and messages call a model.

    Raises:
        InvalidSetting: it is neither a name nor a model of this library.
    """
    if isinstance(source, Backend):
        return source.name
    if isinstance(source, AudioTransformer):
        return source.name_or_path or IN_MEMORY
    _check_name(source)
    return os.fspath(source)


def _check_name(source: Any) -> None:
    if not isinstance(source, str | os.PathLike):
        allowed = (
            "a name, a folder or file, or a model of Spectrim; spectrim.prune makes one of a model of transformers"
        )
        raise InvalidSetting("model", type(source).__name__, allowed)


def _is_exported(source: AudioTransformer | str | os.PathLike[str]) -> TypeGuard[str | os.PathLike[str]]:
    """Whether a model's name is that of an exported file.

    Raises:
        InvalidSetting: it is neither a name nor a model of this library.
    """
    if isinstance(source, AudioTransformer):
        return False
    _check_name(source)
    return Path(source).suffix.lower() == SUFFIX


def _file(
    path: str | os.PathLike[str],
    keep_rate: KeepRate | None,
    precision: str | None,
    device: str,
    backend: str | None,
) -> Backend:
    """An exported file in the runtime that is named."""
    if backend not in (None, "onnxruntime", "openvino"):
        raise InvalidSetting("backend", backend, "onnxruntime or openvino with an exported file")
    if backend == "openvino":
        return OpenVinoModel(path, device, precision).at(keep_rate=keep_rate)
    if precision is not None:
        raise InvalidSetting("precision", precision, "none with an exported file: spectrim export --precision")
    return OnnxModel(path, device).at(keep_rate=keep_rate)


def _refuse(backend: str | None, precision: str | None) -> None:
    """Refuse to change what is loaded already."""
    for field, value in (("backend", backend), ("precision", precision)):
        if value is not None:
            raise InvalidSetting(field, value, "none with a model that is loaded already")
