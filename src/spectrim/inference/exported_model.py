"""A file that `spectrim export` wrote, whatever runs it."""

from __future__ import annotations

import importlib.util
import os
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectrim.audio.files import Samples
from spectrim.audio.waveforms import as_clips, check_clips
from spectrim.checkpoints.files import refuse_pointer
from spectrim.config import SpectrimConfig
from spectrim.errors import CheckpointError, InputShapeError, InvalidSetting, MissingExtra
from spectrim.inference.backend import Backend, KeepRate, input_shape
from spectrim.inference.onnx_metadata import INPUTS, read_metadata
from spectrim.pruning.pruning import Pruning
from spectrim.pruning.trace import TokenTrace

SUFFIX = ".onnx"
OUTPUTS = ("logits", "scores", "kept")

Shapes: TypeAlias = dict[str, tuple[int, ...]]
"""Names of a graph's inputs or outputs, and their shapes without the batch."""


def need(package: str, purpose: str, extra: str = "onnx") -> None:
    """Raise `MissingExtra` unless a package of an extra is installed."""
    if importlib.util.find_spec(package) is None:
        raise MissingExtra(package, extra, purpose)


class ExportedModel(Backend):
    """A file that `spectrim export` wrote, in a runtime with as many threads as torch has.

    Its operating point is part of its graph: there is no other, and `at` refuses.

    Args:
        path: the file.
        device: where to run.

    Attributes:
        path: the file.

    Raises:
        CheckpointError: the file is missing or damaged, or not one of ours.
    """

    def __init__(self, path: str | os.PathLike[str], device: torch.device) -> None:
        self.device = device
        self.path = Path(path)
        self.name = self.path.name
        if not self.path.is_file():
            raise CheckpointError(f"{self.path}: no such file")
        refuse_pointer(self.path)
        table, found, outputs = self._open()
        facts = read_metadata(table, str(self.path))
        self.config = facts.config
        self.pruning = facts.config.pruning
        self.takes = facts.takes
        self._precision = facts.precision
        self._check_graph(found, outputs)
        self._start()

    @abstractmethod
    def _open(self) -> tuple[Mapping[str, str], Shapes, Shapes]:
        """Open the file; give its metadata, and what its graph takes and gives.

        Raises:
            CheckpointError: the runtime cannot read it.
        """

    def _start(self) -> None:
        """Make ready to run, once the file is known to be one of ours."""

    @abstractmethod
    def _infer(self, feeds: Mapping[str, NDArray]) -> tuple[NDArray, NDArray]:
        """Run the graph; give logits and kept."""

    def _check_graph(self, found: Shapes, outputs: Shapes) -> None:
        """Raise `CheckpointError` unless the graph takes and gives what the metadata say."""
        wanted = self._inputs()
        if found != wanted or outputs.keys() != set(OUTPUTS):
            raise CheckpointError(f"{self.path}: its graph takes {found}, its metadata say {wanted}; it was changed")
        shapes = {"logits": (self.config.num_labels,), "scores": (self.config.num_labels,), "kept": self.config.grid}
        if outputs != shapes:
            raise CheckpointError(f"{self.path}: its graph gives {outputs}, its metadata say {shapes}; it was changed")

    @property
    def precision(self) -> str:
        """One of `spectrim.inference.onnx_metadata.EXPORT_PRECISIONS`."""
        return self._precision

    @property
    def prunable(self) -> bool:
        """Only as it was exported."""
        return False

    def at(self, pruning: Pruning | None = None, *, keep_rate: KeepRate | None = None) -> ExportedModel:
        """Refuse any keep rate, and any operating point but its own: what the file prunes is part of its graph."""
        allowed = f"nothing here: {self.name} was exported at {self.pruning.keep_rate}; export it anew for another"
        if keep_rate is not None:
            raise InvalidSetting("keep_rate", keep_rate, allowed)
        if pruning not in (None, self.pruning):
            raise InvalidSetting("pruning", pruning, allowed)
        return self

    def frozen(self) -> ExportedModel:
        """It is."""
        return self

    def prepare(self, waveforms: Sequence[Samples]) -> tuple[Tensor, Tensor]:
        """Lay waveforms out as the graph takes them; see `Backend.prepare`.

        Returns:
            What the front end makes of them; or, where that is in the graph, (batch, samples) float32, cut or filled up
            with zeros, and (batch,) int64: how many of the samples are real.
        """
        if self.takes != "waveforms":
            with torch.inference_mode():
                return self.frontend(waveforms)
        clips = as_clips(waveforms, torch.device("cpu"))
        check_clips(clips, self.frontend.shortest, self.config.sampling_rate)
        rows = torch.zeros(len(clips), *self.input_shape)
        lengths = [min(len(clip), rows.shape[1]) for clip in clips]
        for row, clip, count in zip(rows, clips, lengths, strict=True):
            row[:count] = clip[:count]
        return rows, torch.tensor(lengths)

    def logits(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See `Backend.logits`; the lengths are read where the graph takes waveforms."""
        return self.run(values, lengths)[0]

    def trace(self, values: Tensor, lengths: Tensor | None = None) -> TokenTrace:
        """See `Backend.trace`; there are no scores of patches in it."""
        return trace_of(self.run(values, lengths)[1], self.config)

    def run(self, values: Tensor, lengths: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits (batch, labels) float32, and of how many pruning blocks each patch came out alive, (batch, F, T).

        Arguments and errors as for `Backend.logits`.
        """
        given = [values.float()] if lengths is None else [values.float(), lengths]
        feeds = {}
        for (name, shape), part in zip(self._inputs().items(), given, strict=False):
            if tuple(part.shape) != (len(values), *shape):
                wanted = ", ".join(["batch", *map(str, shape)])
                raise InputShapeError(f"{name} has shape {tuple(part.shape)}; {self.name} takes ({wanted})")
            feeds[name] = part.cpu().numpy()
        if len(feeds) < len(INPUTS[self.takes]):
            raise InputShapeError(f"num_samples is missing; {self.name} takes waveforms and their lengths")
        logits, kept = self._infer(feeds)
        return torch.from_numpy(logits), torch.from_numpy(kept)

    def weights(self) -> Iterable[tuple[str, Tensor]]:
        """The file as one tensor of bytes."""
        yield "file", torch.from_numpy(np.fromfile(self.path, dtype=np.uint8))

    def _inputs(self) -> dict[str, tuple[int, ...]]:
        """Names of the graph's inputs, and their shapes without the batch."""
        shapes = (input_shape(self.config, self.takes), ())
        return dict(zip(INPUTS[self.takes], shapes, strict=False))


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
