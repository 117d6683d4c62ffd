"""An exported model in ONNX Runtime, called as `AudioTransformer` is."""

from __future__ import annotations

import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spectrim.audio.filterbank import frame_samples
from spectrim.audio.waveforms import Batch, as_clips, check_clips
from spectrim.config import SpectrimConfig
from spectrim.errors import CheckpointError, InputShapeError, InvalidSetting, MissingExtra, one_of
from spectrim.machine import resolve_device
from spectrim.network.transformer import AudioTransformerOutput
from spectrim.pruning.trace import TokenTrace

SUFFIX = ".onnx"
INPUTS = {"log_mel": ("input_values",), "waveforms": ("waveforms", "num_samples")}
"""What a file takes, by the word in its metadata, and how its graph calls that."""
OUTPUTS = ("logits", "scores", "kept")
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""Devices, and what ONNX Runtime calls that which runs there."""


def need(package: str, purpose: str) -> None:
    """Raise `MissingExtra` unless a package of the extra ``onnx`` is installed."""
    if importlib.util.find_spec(package) is None:
        raise MissingExtra(package, "onnx", purpose)


def is_exported(source: object) -> bool:
    """Whether this is an exported model, or the name of one."""
    if isinstance(source, str | os.PathLike):
        return Path(source).suffix.lower() == SUFFIX
    return isinstance(source, OnnxModel)


class OnnxModel:
    """A file that `spectrim export` wrote, in ONNX Runtime with as many threads as torch has.

    Args:
        path: the file.

    Attributes:
        path: the file.
        config: of the model as it was exported; its keep rate cannot be changed.
        precision: ``"fp32"``, ``"fp16"`` or ``"int8"``.
        takes: ``"log_mel"`` or ``"waveforms"``, a key of `INPUTS`.
        dtype: of the input, float32.

    Raises:
        MissingExtra: onnxruntime is not installed.
        CheckpointError: the file is missing or damaged, or not one of ours.
    """

    dtype = torch.float32

    def __init__(self, path: str | os.PathLike[str]) -> None:
        need("onnxruntime", "running an exported model")
        self.path = Path(path)
        if not self.path.is_file():
            raise CheckpointError(f"{self.path}: no such file")
        self._session = _session(self.path, "cpu")
        facts = self._session.get_modelmeta().custom_metadata_map
        try:
            self.config = SpectrimConfig.from_dict(json.loads(facts["config"]))
            self.precision = facts["precision"]
            self.takes = facts["takes"]
            labels = json.loads(facts["labels"])
            wanted = {name: tuple(shape) for name, shape in input_shapes(self.config, self.takes).items()}
        except (LookupError, TypeError, ValueError) as error:
            reason = f"no {error} in its metadata" if isinstance(error, KeyError) else str(error)
            raise CheckpointError(f"{self.path}: is no model that spectrim export wrote ({reason})") from error
        found = {given.name: tuple(given.shape[1:]) for given in self._session.get_inputs()}
        if found != wanted or {given.name for given in self._session.get_outputs()} != set(OUTPUTS):
            raise CheckpointError(f"{self.path}: its graph takes {found}, its metadata say {wanted}; it was changed")
        if labels != [self.config.id2label[index] for index in range(self.config.num_labels)]:
            raise CheckpointError(f"{self.path}: its labels are not those of its configuration; it was changed")

    @property
    def samples(self) -> int:
        """Length of the waveforms that fill its frames."""
        return window_length(self.config)

    def refuse_keep_rate(self, keep_rate: float | None) -> None:
        """Raise `InvalidSetting` where a keep rate is given: what the file prunes is part of its graph."""
        if keep_rate is not None:
            allowed = (
                f"nothing here: {self.path.name} was exported at {self.config.keep_rate}; export it anew for another"
            )
            raise InvalidSetting("keep_rate", keep_rate, allowed)

    def to(self, device: torch.device | str) -> OnnxModel:
        """Run there from now on; see `onnx_device`."""
        target = torch.device(device)
        if PROVIDERS[target.type] != self._session.get_providers()[0]:
            self._session = _session(self.path, str(target))
        return self

    def state_dict(self) -> Mapping[str, Tensor]:
        """The file as one tensor of bytes, for `spectrim.inference.output_file.fingerprint`."""
        return {"file": torch.from_numpy(np.fromfile(self.path, dtype=np.uint8))}

    def prepare(self, waveforms: Batch) -> tuple[Tensor, Tensor]:
        """Lay waveforms out as a graph with the front end in it takes them.

        Args:
            waveforms: as for `spectrim.Frontend`.

        Returns:
            (batch, samples) float32, cut or filled up with zeros, and (batch,) int64: how many of the samples are real.

        Raises:
            AudioError, InputShapeError: as `spectrim.Frontend` does.
        """
        clips = as_clips(waveforms, torch.device("cpu"))
        check_clips(clips, frame_samples(self.config.sampling_rate)[0], self.config.sampling_rate)
        rows = torch.zeros(len(clips), self.samples)
        lengths = [min(len(clip), self.samples) for clip in clips]
        for row, clip, length in zip(rows, clips, lengths, strict=True):
            row[:length] = clip[:length]
        return rows, torch.tensor(lengths)

    def __call__(
        self,
        input_values: Tensor,
        num_frames: Tensor | None = None,
        keep_rate: float | None = None,
        output_token_trace: bool = False,
    ) -> AudioTransformerOutput:
        """Classify.

        Args:
            input_values: (batch, frames, mels) normalised log-mel; or, where the file takes waveforms, (batch, samples)
                as `prepare` gives them.
            num_frames: (batch,): number of real samples where it takes waveforms; not read else.
            keep_rate: only None.
            output_token_trace: give what was kept; there are no scores of patches in it.

        Raises:
            InvalidSetting: a keep rate is given.
            InputShapeError: the input is of another shape.
        """
        self.refuse_keep_rate(keep_rate)
        logits, kept = self.run(input_values, num_frames)
        trace = trace_of(kept, self.config) if output_token_trace else None
        return AudioTransformerOutput(logits=logits, token_trace=trace)

    def logits(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Logits alone, (batch, labels); see `run`."""
        return self.run(values, lengths)[0]

    def run(self, values: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (batch, labels) float32, and of how many pruning blocks each patch came out alive, (batch, F, T).

        Arguments and errors as for calling it.
        """
        given = [values.float()] if lengths is None else [values.float(), lengths]
        feeds = {}
        for (name, shape), part in zip(input_shapes(self.config, self.takes).items(), given, strict=False):
            if tuple(part.shape) != (len(values), *shape):
                wanted = ", ".join(["batch", *map(str, shape)])
                raise InputShapeError(f"{name} has shape {tuple(part.shape)}; {self.path.name} takes ({wanted})")
            feeds[name] = part.cpu().numpy()
        if len(feeds) < len(INPUTS[self.takes]):
            raise InputShapeError(f"num_samples is missing; {self.path.name} takes waveforms and their lengths")
        logits, kept = self._session.run(["logits", "kept"], feeds)
        return torch.from_numpy(logits), torch.from_numpy(kept)


def onnx_device(name: str = "auto") -> torch.device:
    """The device on which an exported model is to run; ``"auto"`` is CUDA where ONNX Runtime has it, else the CPU.

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


def device_for(model: object, name: str = "auto") -> torch.device:
    """The device on which a model, or what is named by this source, is to run; see `onnx_device`, `resolve_device`."""
    return onnx_device(name) if is_exported(model) else resolve_device(name)


def window_length(config: SpectrimConfig) -> int:
    """Samples that fill the frames of a model."""
    length, shift = frame_samples(config.sampling_rate, config.features)
    return (config.max_length - 1) * shift + length


def input_shapes(config: SpectrimConfig, takes: str) -> dict[str, tuple[int, ...]]:
    """Names of a graph's inputs and their shapes without the batch; ``takes`` is a key of `INPUTS`."""
    shapes = {"log_mel": ((config.max_length, config.num_mel_bins),), "waveforms": ((window_length(config),), ())}
    return dict(zip(INPUTS[takes], shapes[takes], strict=True))


def trace_of(kept: Tensor, config: SpectrimConfig) -> TokenTrace:
    """What is alive after every block.

    Args:
        kept: (batch, F, T): of how many pruning blocks, in their order, a patch came out alive.
        config: says which blocks those are.

    Returns:
        A trace without scores.
    """
    stages: Sequence[int] = sorted(config.prune_at)
    passed = [sum(stage <= block for stage in stages) for block in range(config.num_hidden_layers)]
    return TokenTrace(scores=(), kept=tuple(kept >= number for number in passed))


def _session(path: Path, device: str) -> Any:
    """Open a file.

    Raises:
        CheckpointError: ONNX Runtime cannot read it.
    """
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    kind, _, number = device.partition(":")
    provider: Any = PROVIDERS[kind]
    if number:
        provider = (provider, {"device_id": int(number)})
    unreadable = (
        states.Fail,
        states.InvalidProtobuf,
        states.InvalidGraph,
        states.InvalidArgument,
        states.NotImplemented,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path, options, providers=[provider])
    except unreadable as error:
        reason = str(error).partition(" : ")[2] or str(error)
        raise CheckpointError(f"{path}: ONNX Runtime cannot read it ({reason})") from error
