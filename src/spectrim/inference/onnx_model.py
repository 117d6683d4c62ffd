"""An exported model in ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray

from spectrim.checkpoints.untrusted import one_line
from spectrim.errors import CheckpointError, InvalidSetting, one_of
from spectrim.inference.exported_model import ExportedModel, Shapes, need

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""Devices, and what ONNX Runtime calls that which runs there."""


class OnnxModel(ExportedModel):
    """A file that `spectrim export` wrote, in ONNX Runtime; see `ExportedModel`.

    Args:
        path: the file.
        device: as `onnx_device` takes it.

    Raises:
        InvalidSetting: there is no such device, which is said before the file is read; or ONNX Runtime cannot start on
            it. With ``"auto"`` the CPU takes its place then.
        MissingExtra: onnxruntime is not installed.
        CheckpointError: the file is missing or damaged, or not one of ours.
    """

    packages: ClassVar[tuple[str, ...]] = ("onnxruntime",)

    def __init__(self, path: str | os.PathLike[str], device: str = "cpu") -> None:
        self._asked = device
        super().__init__(path, onnx_device(device))

    def to(self, device: str) -> OnnxModel:
        """See `Backend.to` and `onnx_device`."""
        return self if onnx_device(device) == self.device else OnnxModel(self.path, device)

    def _open(self) -> tuple[Mapping[str, str], Shapes, Shapes]:
        self._session = _session(self.path, self.device)
        if self._session.get_providers()[0] != PROVIDERS[self.device.type]:
            self._fall_back()
        taken = {given.name: tuple(given.shape[1:]) for given in self._session.get_inputs()}
        outputs = {given.name: tuple(given.shape[1:]) for given in self._session.get_outputs()}
        return _metadata_of(self._session, self.path), taken, outputs

    def _fall_back(self) -> None:
        """Be on the CPU, where ONNX Runtime goes without an error when what it was built with cannot be loaded."""
        if self._asked != "auto":
            allowed = f"auto or cpu: ONNX Runtime has {PROVIDERS[self.device.type]}, but cannot load it here"
            raise InvalidSetting("device", self._asked, allowed)
        self.device = torch.device("cpu")

    def _infer(self, feeds: Mapping[str, NDArray]) -> tuple[NDArray, NDArray]:
        logits, kept = self._session.run(["logits", "kept"], feeds)
        return logits, kept


def onnx_device(name: str = "auto") -> torch.device:
    """The device on which an exported model is to run; ``"auto"`` is CUDA where ONNX Runtime has it, else the CPU.

    It has what it was built with; whether that can be loaded shows when a file is opened (`OnnxModel`).

    Raises:
        InvalidSetting: this ONNX Runtime does not run there.
        MissingExtra: onnxruntime is not installed.
    """
    need("onnxruntime", "running an exported model")
    import onnxruntime

    available = onnxruntime.get_available_providers()
    here = [kind for kind, provider in PROVIDERS.items() if provider in available]
    if name == "auto":
        return torch.device(here[-1])
    if name.partition(":")[0] not in here:
        raise InvalidSetting("device", name, f"{one_of(['auto', *here])} in this ONNX Runtime")
    return torch.device(name)


def _session(path: Path, device: torch.device) -> Any:
    """Open a file.

    Raises:
        CheckpointError: ONNX Runtime cannot read it.
    """
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    provider: Any = PROVIDERS[device.type]
    if device.index is not None:
        provider = (provider, {"device_id": device.index})
    unreadable = (
        states.Fail,
        states.InvalidProtobuf,
        states.InvalidGraph,
        states.InvalidArgument,
        states.NotImplemented,
        states.RuntimeException,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path, options, providers=[provider])
    except unreadable as error:
        reason = one_line(str(error).partition(" : ")[2] or str(error))
        raise CheckpointError(f"{path}: ONNX Runtime cannot read it ({reason})") from error


def _metadata_of(session: Any, path: Path) -> dict[str, str]:
    """The table of metadata of an open file.

    Raises:
        CheckpointError: there are bytes in it that are no UTF-8.
    """
    try:
        return dict(session.get_modelmeta().custom_metadata_map)
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: is no model that spectrim export wrote (its metadata are no text)") from error
