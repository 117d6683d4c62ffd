"""Scores from the input once, before block 0, and scores that know nothing."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import torch
    from torch import Tensor

PLASTIC = 1.324717957244746
"""The plastic number, the real root of p³ = p + 1."""


class Spectrogram(NamedTuple):
    """The input of a criterion that reads no attention.

    Attributes:
        input_values: (batch, frames, mels), normalised log-mel.
        patch_shape: sides of a patch along frequency and along time, in mel bins and frames.
        frequency_stride: step between patches in mel bins.
        time_stride: step between patches in frames.
        seed: of what is drawn.
        training: draw anew for every clip, from torch's global generator.
    """

    input_values: Tensor
    patch_shape: tuple[int, int]
    frequency_stride: int
    time_stride: int
    seed: int = 0
    training: bool = False

    @property
    def patches(self) -> Tensor:
        """(batch, F, T, frames, mels) of a patch each, a view."""
        height, width = self.patch_shape
        frames = self.input_values.unfold(1, width, self.time_stride)
        return frames.unfold(2, height, self.frequency_stride).transpose(1, 2)


def intensity(spectrogram: Spectrogram) -> Tensor:
    """Mean of the normalised log-mel values of each patch, (batch, F, T)."""
    return spectrogram.patches.mean(dim=(-2, -1))


def variation(spectrogram: Spectrogram) -> Tensor:
    """Standard deviation (of the sample, n − 1) of the normalised log-mel values of each patch, (batch, F, T)."""
    return spectrogram.patches.std(dim=(-2, -1))


def random_scores(spectrogram: Spectrogram) -> Tensor:
    """Uniform scores, the baseline that knows nothing, (batch, F, T) in [0, 1).

    In inference every clip gets the same fixed table, so that its answer depends neither on the batch nor on what came
    before; in training each clip's are drawn anew from torch's global generator.
    """
    import torch

    values = spectrogram.input_values
    batch, frequency, time = spectrogram.patches.shape[:3]
    if spectrogram.training:
        return torch.rand(batch, frequency * time, device=values.device).unflatten(1, (frequency, time))
    return _fixed_scores(_random_table, spectrogram)


def regular(spectrogram: Spectrogram) -> Tensor:
    """The same even pattern for every clip: a baseline that leaves no gaps at any keep rate, (batch, F, T) in [0, 1).

    The score of patch (f, t) is the fractional part of f/p + t/p², p the plastic number: the lattice of the R2 sequence
    (Roberts, 2018), whose places above any threshold lie far from each other.
    """
    return _fixed_scores(_regular_table, spectrogram)


Table: TypeAlias = Callable[[int, int, int, "torch.device"], "Tensor"]
"""Makes scores (F, T) of F, T, a seed and a device."""


def _fixed_scores(make: Table, spectrogram: Spectrogram) -> Tensor:
    """(batch, F, T) scores that are the same for all clips."""
    import torch

    values = spectrogram.input_values
    batch, frequency, time = spectrogram.patches.shape[:3]
    # One made of fake tensors must not be kept.
    once = type(values) is torch.Tensor and not torch.compiler.is_compiling()
    table = _made_once if once else _made
    return table(make, frequency, time, spectrogram.seed, values.device).expand(batch, -1, -1)


def _random_table(frequency: int, time: int, seed: int, device: torch.device) -> Tensor:
    import torch

    generator = random.Random(seed)
    scores = torch.tensor([generator.random() for _ in range(frequency * time)], device=device)
    return scores.unflatten(0, (frequency, time))


def _regular_table(frequency: int, time: int, seed: int, device: torch.device) -> Tensor:
    import torch

    scores = [(row / PLASTIC + column / PLASTIC**2) % 1.0 for row in range(frequency) for column in range(time)]
    return torch.tensor(scores, device=device).unflatten(0, (frequency, time))


def _made(make: Table, frequency: int, time: int, seed: int, device: torch.device) -> Tensor:
    return make(frequency, time, seed, device)


@functools.lru_cache(maxsize=8)
def _made_once(make: Table, frequency: int, time: int, seed: int, device: torch.device) -> Tensor:
    """Keep the table on its device: a CUDA graph cannot capture a copy from the host."""
    import torch

    with torch.inference_mode(mode=False):
        return make(frequency, time, seed, device)
