"""A model in PyTorch."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from spectrim.audio.files import Samples
from spectrim.audio.frontend import FrontendOutput
from spectrim.checkpoints import from_pretrained
from spectrim.errors import InvalidSetting, one_of
from spectrim.inference.backend import Backend, KeepRate
from spectrim.inference.packing import pack_weights, unpack_weights
from spectrim.inference.results import Scores
from spectrim.machine import resolve_device
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.pruning import Pruning, given_pruning
from spectrim.pruning.trace import TokenTrace

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""Type of a model's weights and arithmetic, by precision; the front end, softmax and scores stay float32."""

IN_MEMORY = "the model"
"""What a model is called that came from no file."""


class TorchModel(Backend):
    """A model in PyTorch, in evaluation mode.

    Args:
        network: the model; it stays as it is. Where it is in training mode or elsewhere, a copy runs.
        pruning: the operating point; None for its own.
        device: where to run; None for where it is.

    Attributes:
        network: what runs.

    Raises:
        InvalidSetting: the operating point is out of range.
    """

    embeds = True

    def __init__(
        self, network: AudioTransformer, pruning: Pruning | None = None, device: torch.device | None = None
    ) -> None:
        place = network.device if device is None else device
        if network.training or not _same(place, network.device):
            network = copy.deepcopy(unpack_weights(network)).to(place).eval()
        self.network = network
        self.config = network.config
        self.name = network.name_or_path or IN_MEMORY
        self.device = network.device
        self.pruning = given_pruning(network.config.pruning, pruning, {})
        network.config.check_pruning(self.pruning)

    @classmethod
    def load(
        cls,
        source: str | os.PathLike[str],
        *,
        keep_rate: KeepRate | None = None,
        precision: str | None = None,
        device: str = "auto",
    ) -> TorchModel:
        """Load a checkpoint and lay it out for many passes.

        Args:
            source: what `spectrim.from_pretrained` takes.
            keep_rate: likewise.
            precision: one of `DTYPES`; None as the weights are. bfloat16 is faster where the processor multiplies it
                (AMX, AVX512-BF16, GPUs) and slower elsewhere.
            device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.

        Raises:
            InvalidSetting: a setting is out of range, or there is no such device; before the model is read.
            CheckpointError: it cannot be loaded.
        """
        check_precision(precision)
        place = resolve_device(device)
        network = from_pretrained(source, keep_rate=keep_rate)
        dtype = network.dtype if precision is None else DTYPES[precision]
        return cls(pack_weights(network.to(place, dtype)))

    @property
    def precision(self) -> str:
        """Type of the weights, as torch calls it."""
        return str(self.network.dtype).removeprefix("torch.")

    @property
    def prunable(self) -> bool:
        """It has every operating point."""
        return True

    def at(self, pruning: Pruning | None = None, *, keep_rate: KeepRate | None = None) -> TorchModel:
        """See `Backend.at`."""
        other = copy.copy(self)
        other.pruning = given_pruning(self.pruning, pruning, {"keep_rate": keep_rate})
        self.config.check_pruning(other.pruning)
        return other

    def to(self, device: str) -> TorchModel:
        """See `Backend.to`."""
        place = resolve_device(device)
        return self if _same(place, self.device) else TorchModel(self.network, self.pruning, place)

    def frozen(self) -> TorchModel:
        """See `Backend.frozen` and `spectrim.pack_weights`."""
        return TorchModel(pack_weights(self.network), self.pruning)

    def prepare(self, waveforms: Sequence[Samples]) -> FrontendOutput:
        """Normalised log-mel of mono waveforms; see `Backend.prepare`."""
        with torch.inference_mode():
            return self.frontend(waveforms)

    def logits(self, values: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See `Backend.logits`."""
        logits: Tensor = self.output(values, lengths).logits
        return logits

    def trace(self, values: Tensor, lengths: Tensor | None = None) -> TokenTrace:
        """See `Backend.trace`: with scores and carriers."""
        trace: TokenTrace = self.output(values, lengths, output_token_trace=True).token_trace
        return trace

    def embeddings(self, waveforms: Sequence[Samples]) -> Scores:
        """See `Backend.embeddings` and `AudioTransformer.embed`."""
        values, lengths = self.prepare(waveforms)
        with torch.inference_mode():
            vectors = self.network.embed(values.to(self.network.dtype), self.pruning, num_frames=lengths)
        return vectors.float().cpu().numpy()

    def output(self, values: Tensor, lengths: Tensor | None = None, **wanted: Any) -> Any:
        """All that the model can tell, as `spectrim.AudioTransformerOutput`.

        Args:
            values: (batch, frames, mels).
            lengths: (batch,) frames that hold sound.
            **wanted: further arguments of `AudioTransformer.forward`; an operating point takes the place of this one's.
        """
        options: dict[str, Any] = {"pruning": self.pruning, **wanted}
        with torch.inference_mode():
            return self.network(values.to(self.network.dtype), num_frames=lengths, **options)

    def weights(self) -> Iterable[tuple[str, Tensor]]:
        """See `Backend.weights`."""
        return self.network.state_dict().items()


def check_precision(precision: str | None) -> None:
    """Raise `InvalidSetting` for what is no precision of `DTYPES`, None apart."""
    if precision is not None and precision not in DTYPES:
        raise InvalidSetting("precision", precision, one_of(DTYPES))


def _same(wanted: torch.device, present: torch.device) -> bool:
    return wanted.type == present.type and wanted.index in (None, present.index)
