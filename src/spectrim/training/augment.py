"""Augmentations of training clips.

Whatever is drawn for a clip comes from a generator of its own, seeded by run, epoch and clip. So a resumed run, and
one of several processes, sees the same batches as an unbroken one of one process.

Waveforms are changed as they are read (`TrainingClips`), spectrograms on the model's device (`apply`), in the order
of the published recipes: speed, roll and gain, mixup, then pitch, SpecAug, noise. Speed and pitch are not theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import soxr
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from spectrim.audio.filterbank import mel_frequencies
from spectrim.data import AudioDataset, Clip
from spectrim.training.recipes import AugmentSettings

ROLL_FRAMES = 10
"""The noise augmentation rolls a spectrogram by up to this many frames, either way."""

NOISE_LEVEL = 0.1
"""The noise augmentation adds uniform noise of [0, level), the level drawn from [0, this)."""


@dataclass(frozen=True, eq=False)
class TrainingClip(Clip):
    """A clip whose waveform has been augmented.

    Attributes:
        random: the clip's generator, for what is drawn for its spectrogram.
    """

    random: np.random.Generator = field(kw_only=True)


class Draw(NamedTuple):
    """A clip that an epoch has, perhaps not for the first time.

    Attributes:
        clip: its number.
        before: how often the epoch has had it before.
    """

    clip: int
    before: int


class TrainingClips(Dataset[TrainingClip]):
    """A data set part with its waveforms augmented, anew in every epoch, and each time that an epoch has a clip.

    Args:
        clips: the part.
        settings: what to do.
        seed: of the run.
    """

    def __init__(self, clips: AudioDataset, settings: AugmentSettings, seed: int) -> None:
        self.clips = clips
        self.settings = settings
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch begins."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int | Draw) -> TrainingClip:
        """Read a clip and augment it."""
        index, before = index if isinstance(index, Draw) else Draw(index, 0)
        random = np.random.default_rng([self.seed, self.epoch, index, *([before] if before else [])])
        settings, clip = self.settings, self.clips[index]
        waveform, target = self._prepare(clip.waveform, random), clip.target
        if settings.mixup and random.random() < settings.mixup:
            other = self.clips[int(random.integers(len(self)))]
            share = random.beta(settings.mixup_alpha, settings.mixup_alpha)
            waveform = mix(waveform, self._prepare(other.waveform, random), share)
            target = (share * target + (1.0 - share) * other.target).astype(np.float32)
        return TrainingClip(waveform, target, clip.id, clip.stand_in, random=random)

    def _prepare(self, waveform: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
        if self.settings.speed:
            waveform = change_speed(waveform, self.settings.speed[int(random.integers(len(self.settings.speed)))])
        if not self.settings.roll_and_gain or len(waveform) == 0:
            return waveform
        rolled = np.roll(waveform, int(random.integers(len(waveform))))
        return (rolled * (0.5 + random.beta(10.0, 10.0))).astype(np.float32)


SPEED_STEPS = 1000
"""Speed factors are rounded to the nearest 1/1000."""


def change_speed(waveform: NDArray[np.float32], factor: float) -> NDArray[np.float32]:
    """Speed perturbation (Ko et al., 2015): play a waveform so many times as fast, which moves its pitch alike.

    Sample t of the answer is the band-limited waveform at t·factor: a tone of f Hz becomes one of f·factor Hz that
    lasts 1/factor of its time.

    Args:
        waveform: (n,) samples.
        factor: above 1 is faster, shorter and higher; rounded to 1/1000.

    Returns:
        (about n/factor,) samples.
    """
    steps = round(factor * SPEED_STEPS)
    if steps == SPEED_STEPS or len(waveform) == 0:
        return waveform
    return np.asarray(soxr.resample(waveform, steps, SPEED_STEPS), dtype=np.float32)


def mix(first: NDArray[np.float32], second: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """Mixup of waveforms (Tokozume et al., 2018; AST's code): share·first + (1 − share)·second.

    Args:
        first: (n,) samples.
        second: (m,) samples, cut or padded with silence to n.
        share: of the first.

    Returns:
        (n,) samples. Each waveform's mean is taken off before.
    """
    padded = np.zeros_like(first)
    length = min(len(first), len(second))
    padded[:length] = second[:length] - second.mean() if length else 0.0
    return (share * (first - first.mean()) + (1.0 - share) * padded).astype(np.float32)


def pitch_sources(factor: float, mels: int, sampling_rate: int) -> NDArray[np.float32]:
    """Where in an unchanged log-mel spectrum each mel bin of one of another pitch comes from.

    The pitch, and with it the formants, are moved by stretching the frequency axis (vocal tract length perturbation,
    Jaitly & Hinton, 2013): the bin at f Hz gets what was at f/factor Hz. Nothing changes in time.

    Args:
        factor: above 1 is higher.
        mels: number of mel bins.
        sampling_rate: of the waveform, in hertz.

    Returns:
        (mels,) positions among the mel bins, with fractions; beyond the lowest and highest bin, that bin.
    """
    centres = mel_frequencies(mels, sampling_rate)
    on_the_mel_scale = np.log1p(np.stack([centres / factor, centres]) / 700.0)
    return np.interp(on_the_mel_scale[0], on_the_mel_scale[1], np.arange(mels)).astype(np.float32)


def draw(
    settings: AugmentSettings,
    clips: Sequence[TrainingClip],
    frames: int,
    mels: int,
    grid: tuple[int, int],
    sampling_rate: int,
) -> dict[str, Tensor]:
    """Draw what is to be done to the spectrograms of a batch.

    Args:
        settings: what to do.
        clips: the batch; their generators are used.
        frames: length of a spectrogram.
        mels: height of a spectrogram.
        grid: (F, T) patches.
        sampling_rate: of the clips, in hertz.

    Returns:
        What is asked for of: ``stripes`` (batch, 4): first and past-the-end mel bin, first and past-the-end frame of
        SpecAug's blanks; ``noise`` (batch, frames, mels); ``roll`` (batch,) frames; ``visible_patches`` (batch, k),
        see `structured_mask`; ``pitch`` (batch, mels), see `pitch_sources`.
    """
    drawn: dict[str, list[Tensor]] = {}
    for clip in clips:
        random = clip.random
        if settings.pitch:
            factor = settings.pitch[int(random.integers(len(settings.pitch)))]
            drawn.setdefault("pitch", []).append(torch.from_numpy(pitch_sources(factor, mels, sampling_rate)))
        if settings.time_mask or settings.frequency_mask:
            stripe = (*_stripe(random, settings.frequency_mask, mels), *_stripe(random, settings.time_mask, frames))
            drawn.setdefault("stripes", []).append(torch.tensor(stripe))
        if settings.noise:
            level = random.random() * NOISE_LEVEL
            noise = random.random((frames, mels), dtype=np.float32) * np.float32(level)
            drawn.setdefault("noise", []).append(torch.from_numpy(noise))
            drawn.setdefault("roll", []).append(torch.tensor(int(random.integers(-ROLL_FRAMES, ROLL_FRAMES + 1))))
        if settings.mask_time or settings.mask_frequency:
            generator = torch.Generator().manual_seed(int(random.integers(2**62)))
            visible = structured_mask(1, grid, settings.mask_time, settings.mask_frequency, generator=generator)
            drawn.setdefault("visible_patches", []).append(visible[0])
    return {name: torch.stack(values) for name, values in drawn.items()}


def _stripe(random: np.random.Generator, widest: int, size: int) -> tuple[int, int]:
    """Where a stripe of up to ``widest`` of ``size`` places begins and ends."""
    width = int(random.uniform(0, widest)) if widest else 0
    start = int(random.uniform(0, max(size - width, 0)))
    return start, min(start + width, size)


def apply(values: Tensor, drawn: dict[str, Tensor], blank: float) -> Tensor:
    """Do to spectrograms what was drawn.

    Args:
        values: (batch, frames, mels), normalised.
        drawn: by `draw`, on the same device.
        blank: what SpecAug writes: a log-mel value of 0, normalised, as in AST's code.

    Returns:
        (batch, frames, mels).
    """
    frames, mels = values.shape[1:]
    if "pitch" in drawn:
        lower = drawn["pitch"].floor().clamp(max=mels - 2).long()
        share = (drawn["pitch"] - lower).unsqueeze(1).to(values.dtype)
        below, above = (values.gather(2, bins.unsqueeze(1).expand(-1, frames, -1)) for bins in (lower, lower + 1))
        values = torch.lerp(below, above, share)
    if "stripes" in drawn:
        first_mel, end_mel, first_frame, end_frame = drawn["stripes"].unsqueeze(2).unbind(1)
        mel, frame = torch.arange(mels, device=values.device), torch.arange(frames, device=values.device)
        blank_mels = (mel >= first_mel) & (mel < end_mel)
        blank_frames = (frame >= first_frame) & (frame < end_frame)
        values = values.masked_fill(blank_mels[:, None, :] | blank_frames[:, :, None], blank)
    if "noise" in drawn:
        frame = torch.arange(frames, device=values.device)
        source = (frame - drawn["roll"].unsqueeze(1)) % frames
        values = (values + drawn["noise"]).gather(1, source.unsqueeze(2).expand(-1, -1, mels))
    return values


def structured_mask(
    batch: int,
    grid: tuple[int, int],
    mask_time: float,
    mask_frequency: float,
    device: torch.device | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Choose the patches that stay when whole columns and rows of the grid are masked (AudioMAE's 2-D masking).

    Args:
        batch: number of clips; each is masked anew.
        grid: (F, T) patches.
        mask_time: share of the T columns to remove; floor(T·(1 − share)) stay, as in AudioMAE.
        mask_frequency: share of the F rows to remove, likewise.
        device: where to put the result.
        generator: what draws; torch's global one where not given.

    Returns:
        (batch, k) int64 grid indices f·T + t of the patches that stay, for `AudioTransformer`'s ``visible_patches``.
    """
    rows, columns = grid
    kept_columns = max(1, int(columns * (1.0 - mask_time)))
    kept_rows = max(1, int(rows * (1.0 - mask_frequency)))
    column = torch.rand(batch, columns, device=device, generator=generator).topk(kept_columns, dim=1).indices
    row = torch.rand(batch, rows, device=device, generator=generator).topk(kept_rows, dim=1).indices
    return (row.unsqueeze(2) * columns + column.unsqueeze(1)).flatten(1)


def smooth_targets(targets: Tensor, share: float, *, multi_label: bool = False) -> Tensor:
    """Label smoothing (Szegedy et al., 2016).

    Args:
        targets: (batch, labels).
        share: how much of each target is spread, in [0, 1).
        multi_label: the labels are yes-or-no questions of their own: each moves towards one half. Otherwise they are
            one question, and share/labels goes to every label.
    """
    return targets * (1.0 - share) + share / (2 if multi_label else targets.shape[1])
