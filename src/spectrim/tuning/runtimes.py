"""What runs a point in the end: the model in PyTorch, or a file that is exported for each point."""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from spectrim.checkpoints import from_pretrained
from spectrim.errors import ExportError, InvalidSetting
from spectrim.inference.backend import Backend
from spectrim.inference.export_cache import entry_name
from spectrim.inference.exported_model import SUFFIX, need
from spectrim.inference.onnx_export import export
from spectrim.inference.onnx_model import OnnxModel, onnx_device
from spectrim.inference.opening import ModelSource
from spectrim.inference.packing import unpack_weights
from spectrim.inference.torch_model import TorchModel
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.pruning import Pruning
from spectrim.tuning.settings import SPEED_OF, check_speed_of


class Runtime:
    """Operating points as they will run.

    Args:
        source: what `spectrim.from_pretrained` takes, or a model in memory.
        model: the same, opened.
        speed_of: name in `SPEED_OF`.
        folder: for exported files, which are kept, so that a run that was broken off need not write them again.

    Attributes:
        exports: whether there is a file for each point.
        left_out: points that cannot be exported → why.

    Raises:
        InvalidSetting: there is no such runtime, it does not run where the model is, or the model cannot be exported.
        MissingExtra: its packages are not installed.
    """

    def __init__(self, source: ModelSource, model: Backend, speed_of: str, folder: Path) -> None:
        check_speed_of(speed_of)
        self.source, self.model, self.folder = source, model, folder
        self.precision = SPEED_OF[speed_of]
        self.exports = self.precision is not None
        self.left_out: dict[str, str] = {}
        self._print = model.fingerprint() if self.exports else ""
        self._network: AudioTransformer | None = None
        self._files: dict[Pruning, OnnxModel] = {}
        if not self.exports:
            return
        for package in ("onnx", "onnxscript", "onnxruntime"):
            need(package, f"tuning for {speed_of}")
        onnx_device(model.device.type)
        if model.pruning.drop_padding:
            allowed = "'torch' for a model with drop_padding, which no exported file can do"
            raise InvalidSetting("speed_of", speed_of, allowed)

    def at(self, point: Pruning) -> Backend:
        """What runs a point: one model for all of them in PyTorch.

        Raises:
            ExportError: the file does not do what the model does.
        """
        if self.precision is None:
            return self.model
        if point not in self._files:
            self._files[point] = OnnxModel(self.file(point), self.model.device.type)
        return self._files[point]

    def runs(self, name: str, point: Pruning) -> bool:
        """Whether a point can run; why not, by its name, is then in `left_out`.

        Raises:
            InvalidSetting: no point can, because the runtime does not start on the device.
        """
        try:
            self.at(point)
        except (ExportError, InvalidSetting) as error:
            if isinstance(error, InvalidSetting) and error.field == "device":
                raise
            self.left_out[name] = str(error)
            return False
        return True

    def file(self, point: Pruning) -> Path:
        """The exported file of a point, written where these versions have not written it yet."""
        settings = {"model": self._print, "point": point.to_flat(), "precision": self.precision}
        path = self.folder / f"{entry_name(settings)}{SUFFIX}"
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            export(self.network(point), path, precision=str(self.precision))
        return path

    def network(self, point: Pruning) -> AudioTransformer:
        """The model in PyTorch as it was loaded, set to a point."""
        if self._network is None:
            self._network = _loaded(self.source)
        return self._network.set_pruning(point)


def _loaded(source: ModelSource) -> AudioTransformer:
    """A model in PyTorch that may be changed: a copy, as `spectrim.from_pretrained` gives one, of what is in memory."""
    if isinstance(source, Backend):
        if not isinstance(source, TorchModel):
            raise InvalidSetting("model", source.name, "a model in PyTorch")
        source = source.network
    if isinstance(source, AudioTransformer):
        return copy.deepcopy(unpack_weights(source)).to("cpu", torch.float32).eval()
    return from_pretrained(source)
