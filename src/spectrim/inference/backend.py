"""What runs a model: all that tagging, pictures, evaluation and benchmarks know of it."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor

from spectrim.audio.files import Samples
from spectrim.audio.filterbank import count_samples, frame_length_and_shift
from spectrim.audio.frontend import Frontend
from spectrim.config import SpectrimConfig
from spectrim.errors import InvalidSetting
from spectrim.inference.results import Scores
from spectrim.pruning.pruning import Pruning
from spectrim.pruning.trace import TokenTrace

KeepRate: TypeAlias = float | Sequence[float]
"""One for all pruning blocks, or one a block."""

UNSAID = ("transformers_version", "dtype")
"""Settings in which a model and the same one saved elsewhere may differ."""


class Backend(ABC):
    """A model at an operating point, and what runs it. It is a value: other points and places are other backends.

    Several threads may call one at once; each gets the answers to its own sounds.

    Attributes:
        config: of the model.
        name: what messages call it.
        device: where it runs.
        pruning: the operating point.
        takes: what goes in, ``"log_mel"`` or ``"waveforms"``.
        packages: what runs it, beside PyTorch; stands beside timings.
        embeds: whether it has `embeddings`.
    """

    config: SpectrimConfig
    name: str
    device: torch.device
    pruning: Pruning
    takes: str = "log_mel"
    packages: ClassVar[tuple[str, ...]] = ()
    embeds: ClassVar[bool] = False

    @property
    @abstractmethod
    def precision(self) -> str:
        """Type of the weights, e.g. ``"float32"`` or ``"int8"``."""

    @property
    @abstractmethod
    def prunable(self) -> bool:
        """Whether there are other operating points than its own; see `at`."""

    @abstractmethod
    def at(self, pruning: Pruning | None = None, *, keep_rate: KeepRate | None = None) -> Backend:
        """The same model at another operating point; it shares the weights.

        Args:
            pruning: the operating point; None for the present one.
            keep_rate: short for the present one with another keep rate.

        Raises:
            InvalidSetting: it is out of range, or not to be had.
        """

    @abstractmethod
    def to(self, device: str) -> Backend:
        """The same model elsewhere; ``"auto"`` is CUDA where this backend finds it, else the CPU.

        Raises:
            InvalidSetting: there is no such device here.
        """

    @abstractmethod
    def frozen(self) -> Backend:
        """The same model, laid out for many passes: what its weights later become does not count any more."""

    @abstractmethod
    def prepare(self, waveforms: Sequence[Samples]) -> tuple[Tensor, Tensor]:
        """Make the model's input of mono waveforms at its sampling rate, each (n,).

        Returns:
            (batch, *input_shape), and (batch,) int64: frames, or samples, of each that hold sound.

        Raises:
            AudioError, InputShapeError: as `spectrim.Frontend` does.
        """

    @abstractmethod
    def logits(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Run the model.

        Args:
            values: (batch, *input_shape), as `prepare` makes them.
            lengths: (batch,), likewise; None where the model does not read it.

        Returns:
            (batch, labels), in the order of `labels`.

        Raises:
            InputShapeError: the input is of another shape.
        """

    @abstractmethod
    def trace(self, values: Tensor, lengths: Tensor | None = None) -> TokenTrace:
        """Run the model and give the patches that are kept; arguments and errors as for `logits`."""

    @abstractmethod
    def weights(self) -> Iterable[tuple[str, Tensor]]:
        """Names and values of all that was learned, for `fingerprint`."""

    @property
    def labels(self) -> list[str]:
        """Names, in the order of the logits."""
        return [self.config.id2label[index] for index in range(self.config.num_labels)]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the input without the batch: (frames, mels), or (samples,) where it takes waveforms."""
        return input_shape(self.config, self.takes)

    @property
    def window_seconds(self) -> float:
        """Length of the longest waveform that the model hears in full: its number of frames. A longer one is cut."""
        return window_length(self.config) / self.config.sampling_rate

    @property
    def hop_seconds(self) -> float:
        """The same without the overlap of neighbouring frames: `hop_frames`.

        Windows at this distance share out the frames of a long waveform between them.
        """
        _, shift = frame_length_and_shift(self.config.sampling_rate, self.config.features)
        return hop_frames(self.config) * shift / self.config.sampling_rate

    @cached_property
    def frontend(self) -> Frontend:
        """The front end that the model was trained with, on its device."""
        return Frontend.from_config(self.config).to(self.device)

    def activate(self, logits: Tensor) -> Tensor:
        """Scores of logits, both (batch, labels); see `activated`."""
        return activated(logits, self.config)

    def scores(self, waveforms: Sequence[Samples]) -> Scores:
        """Scores (batch, labels) float32 of mono waveforms at the model's sampling rate, each (n,)."""
        return self.activate(self.logits(*self.prepare(waveforms))).cpu().numpy()

    def embeddings(self, waveforms: Sequence[Samples]) -> Scores:
        """Pooled vectors (batch, width) float32 of mono waveforms at the model's sampling rate, each (n,).

        Raises:
            InvalidSetting: this backend gives logits only.
        """
        raise InvalidSetting("model", self.name, "a model in PyTorch: this one gives logits only")

    def fingerprint(self) -> str:
        """A few digits that tell a model's weights and settings from any other's."""
        digest = hashlib.sha256()
        for name, weight in self.weights():
            digest.update(name.encode())
            digest.update(weight.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
        settings = {name: value for name, value in self.config.to_dict().items() if name not in UNSAID}
        settings |= {} if self.pruning == self.config.pruning else self.pruning.to_flat()
        said = {name: value for name, value in settings.items() if name[0] != "_"}
        digest.update(json.dumps(said, sort_keys=True, default=str).encode())
        return digest.hexdigest()[:16]


def activated(logits: Tensor, config: SpectrimConfig) -> Tensor:
    """Scores of logits, both (batch, labels), in float32, as transformers' pipeline makes them.

    A sigmoid where a clip can have several labels, else a softmax.
    """
    if config.multi_label:
        return logits.float().sigmoid()
    return logits.float().softmax(dim=-1)


def window_length(config: SpectrimConfig) -> int:
    """Samples that fill the frames of a model."""
    return count_samples(config.max_length, config.sampling_rate, config.features)


def hop_frames(config: SpectrimConfig) -> int:
    """Frames from the start of a window to that of the next, so that no sound of a long waveform lies between them.

    All of a window's, but that centred ones may end with the frame in whose middle the next window begins.
    """
    _, shift = frame_length_and_shift(config.sampling_rate, config.features)
    return min(config.max_length, window_length(config) // shift)


def input_shape(config: SpectrimConfig, takes: str) -> tuple[int, ...]:
    """Shape of a model's input without the batch; ``takes`` is ``"log_mel"`` or ``"waveforms"``."""
    return (window_length(config),) if takes == "waveforms" else (config.max_length, config.num_mel_bins)
