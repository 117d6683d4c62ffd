"""Waveform to normalised log-mel spectrogram, or to MFCC: batched, on any device, differentiable.

Kaldi filterbanks as AST and AudioMAE were trained on them: frames of 25 ms every 10 ms that lie wholly inside
the clip, minus their mean, pre-emphasis 0.97, symmetric Hann window, power spectrum, triangular mel filters
from 20 Hz to half the sampling rate, natural logarithm with a floor of 2^-23.

The same as BEATs was trained on them: of samples between ±2¹⁵, with Kaldi's own window, a Hann window to the power of
0.85.

MFCC as the Keyword Transformer was trained on them: frames of 30 ms every 10 ms, as they are, periodic Hann window,
magnitude spectrum, 80 triangular mel filters from 20 to 7600 Hz, natural logarithm with a floor of 1e-12, DCT-II.

Centred log-mel as PaSST was trained on it: pre-emphasis 0.97 of the signal, which is mirrored at both ends, frames of
25 ms centred every 10 ms, symmetric Hann window, power spectrum, triangular mel filters from 0 to 15,000 Hz, natural
logarithm of the energy plus 1e-5.

Decibels as CED was trained on them: frames of 32 ms centred every 10 ms in the signal, which is mirrored at both ends,
periodic Hann window, power spectrum, triangular mel filters from 0 Hz to half the sampling rate with straight sides in
hertz, logarithm with a floor of 1e-10, and nothing further than 120 dB below the loudest value of the clip.

The Fourier transform runs in float64 wherever the device has it. A mel band 90 dB below the loudest of its
frame is rounding noise of a float32 transform, and would differ by percents between libraries and devices.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from spectrim.audio.filterbank import (
    FEATURES,
    bands,
    check_features,
    cosine_transform,
    count_frames,
    count_samples,
    frame_length_and_shift,
    frame_seconds,
    mel_frequencies,
    samples_ahead,
    window_and_filters,
)
from spectrim.audio.waveforms import Batch, as_clips, as_float, check_clips, check_rate
from spectrim.config import LARGEST_WHOLE_NUMBERS, PADDINGS, SpectrimConfig
from spectrim.errors import InputShapeError, InvalidSetting, one_of

__all__ = [
    "Frontend",
    "FrontendOutput",
    "count_frames",
    "frame_seconds",
    "mel_frequencies",
]

CHUNK_FRAMES_A_THREAD = 512
"""Frames processed at once on a CPU, for each thread: few that caches hold, many that threads seldom wait."""
CHUNK_FRAMES_ELSEWHERE = 1 << 16

FRONTEND_FIELDS = ("max_length", "num_mel_bins", "sampling_rate", "features", "mean", "std", "padding")
"""Settings of a `Frontend`: fields of `SpectrimConfig` and of `SpectrimFeatureExtractor`, too."""


class FrontendOutput(NamedTuple):
    """What a `Frontend` returns.

    Attributes:
        input_values: (batch, max_length, num_mel_bins) normalised log-mel, or MFCC; float32, or float64 if every
            waveform was a float64 tensor.
        num_frames: (batch,) int64: how many of the frames hold sound; the others are padding. With
            ``padding="silence"`` those count that begin before the end of the clip, else those that lie wholly in it.
    """

    input_values: Tensor
    num_frames: Tensor


class Frontend(nn.Module):
    """Log-mel spectrograms of waveforms, padded or cut to a fixed number of frames and normalised.

    The result does not depend on what else is in the batch. Casts of the module (``.half()``, ``.double()``)
    do not change its precision and autocast does not reach it; ``.to(device)`` moves it. Tensors are processed
    on their own device, everything else on the module's.

    Args:
        max_length: frames of the output.
        num_mel_bins: mel bins, or cepstral coefficients, of the output.
        sampling_rate: of the waveforms, in hertz.
        features: ``"log_mel"``, ``"povey_log_mel"``, ``"mfcc"``, ``"centred_log_mel"`` or ``"mel_decibels"``; see
            `spectrim.audio.filterbank.FEATURES`.
        mean: subtracted from the log-mel values or coefficients.
        std: the difference is divided by twice this.
        padding: what the frames past the end of a clip hold: before normalising ``"zero"`` is 0.0 (AST, AudioMAE,
            Hugging Face), ``"minimum"`` the smallest value among the clip's frames; with ``"silence"`` the waveform
            goes on with zeros, also in the last frames that reach past its end (the Keyword Transformer, PaSST).

    Raises:
        InvalidSetting: naming the setting and what is allowed.

    Examples:
        >>> frontend = spectrim.Frontend(max_length=128, mean=-4.27, std=4.57)
        >>> features = frontend([np.zeros(16000, np.float32), np.ones(8000, np.float32)])
        >>> features.input_values.shape, features.num_frames.tolist()
        (torch.Size([2, 128, 128]), [98, 48])
    """

    window: Tensor
    mel_filters: Tensor
    cosines: Tensor | None

    def __init__(
        self,
        *,
        max_length: int,
        num_mel_bins: int = 128,
        sampling_rate: int = 16000,
        features: str = "log_mel",
        mean: float,
        std: float,
        padding: str = "zero",
    ) -> None:
        super().__init__()
        self.max_length = max_length
        self.num_mel_bins = num_mel_bins
        self.sampling_rate = sampling_rate
        self.features = features
        self.mean = mean
        self.std = std
        self.padding = padding
        _check_settings(self)
        self.kind = FEATURES[features]
        self.frame_length, self.frame_shift = frame_length_and_shift(sampling_rate, features)
        self.samples = count_samples(max_length, sampling_rate, features)
        self.ahead = samples_ahead(sampling_rate, features)
        self.fft_length = 1 << (self.frame_length - 1).bit_length()
        window, filters, cosines = self._constants(torch.device("cpu"))
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("mel_filters", filters, persistent=False)
        self.register_buffer("cosines", cosines, persistent=False)
        self._bands = bands(filters.numpy())

    @classmethod
    def from_config(cls, config: SpectrimConfig) -> Frontend:
        """Build the front end that a checkpoint was trained with."""
        return cls(**{name: getattr(config, name) for name in FRONTEND_FIELDS})

    def extra_repr(self) -> str:
        """Settings, for ``print(module)``."""
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in FRONTEND_FIELDS)

    def forward(self, waveforms: Batch, sampling_rate: int | None = None) -> FrontendOutput:
        """Turn waveforms into the model's input.

        Args:
            waveforms: a sequence of 1-D arrays or tensors of any lengths; or one (batch, samples) tensor or
                array; or one 1-D tensor or array, a batch of one. Floats are taken as they are
                (full scale 1.0); int8, int16, int32 and uint8 are scaled to it. Nothing resamples them.
            sampling_rate: of the waveforms, in hertz: give it, so that a wrong one is noticed.

        Raises:
            InvalidSetting: ``sampling_rate`` is not that of the front end.
            AudioError: a waveform is empty, shorter than one frame (than 25 ms with ``padding="silence"``), of an
                unusable type, or has a NaN, an infinity or a sample beyond 1e15; names it by its place in the batch.
            InputShapeError: the batch is empty, or a waveform has more than one dimension.
        """
        check_rate(sampling_rate, self.sampling_rate)
        clips = as_clips(waveforms, self.window.device)
        check_clips(clips, self.shortest, self.sampling_rate)
        clips = [clip[: self.samples] for clip in clips]
        slots = [math.ceil((self.ahead + len(clip)) / self.frame_shift) for clip in clips]
        if self.padding == "silence":
            frames = [min(begun, self.max_length) for begun in slots]
            slots = [begun - 1 + math.ceil(self.frame_length / self.frame_shift) for begun in frames]
        else:
            frames = [count_frames(len(clip), self.sampling_rate, self.features) for clip in clips]
        silence = clips[0].new_zeros(self.frame_length + self._overhang)
        pieces = []
        for clip, width in zip(map(self._around, clips), slots, strict=True):
            covered = clip[: width * self.frame_shift]
            pieces += [covered, silence[: width * self.frame_shift - len(covered)]]
        samples = torch.cat([*pieces, silence[: self._overhang]])
        rows = torch.cat([*map(self._normalised, self._chunks(samples)), self._padding_frame(samples)])
        starts = np.cumsum([0, *slots[:-1]])
        return self._assemble(rows, torch.from_numpy(starts).to(rows.device), torch.tensor(frames, device=rows.device))

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """Log-mel values, or MFCC, before padding, normalising and any limit to the range of a clip.

        Made of tensor operations only, for ``torch.export``; forward differs in that it also checks the samples.

        Args:
            waveforms: (batch, samples), at least one frame.

        Returns:
            (batch, frames, num_mel_bins), natural logarithm of the mel energies, or the coefficients; float32, or
            float64 if ``waveforms`` is.

        Raises:
            InputShapeError: not two-dimensional, or shorter than one frame.
        """
        if waveforms.dim() != 2:
            raise InputShapeError(f"waveforms has shape {tuple(waveforms.shape)}; wanted: (batch, samples)")
        batch, samples = waveforms.shape
        if samples < self.frame_length:
            raise InputShapeError(f"waveforms has {samples} samples; one frame takes {self.frame_length}")
        waveforms = self._mirrored(as_float(waveforms))
        if torch.compiler.is_compiling():
            with _without_autocast(waveforms.device.type):
                padded = functional.pad(waveforms, (0, self.fft_length - self.frame_length + 1))
                return self._chunk(padded, *self._tables(waveforms))
        slots = math.ceil(waveforms.shape[1] / self.frame_shift)
        padded = functional.pad(waveforms, (0, slots * self.frame_shift - waveforms.shape[1])).reshape(-1)
        chunks = self._chunks(functional.pad(padded, (0, self._overhang)))
        rows = torch.cat(list(chunks)).reshape(batch, slots, self.num_mel_bins)
        return rows[:, : count_frames(samples, self.sampling_rate, self.features)]

    def filled(self, waveforms: Tensor, num_samples: Tensor) -> FrontendOutput:
        """What forward makes of clips that lie in waveforms of full length.

        Made of tensor operations only, for ``torch.export``.

        Args:
            waveforms: (batch, samples), as many samples as fill the frames; what is behind a clip's end is not read.
            num_samples: (batch,) int64: where each clip ends; one frame at least is taken to be there.
        """
        length, shift = self.frame_length, self.frame_shift
        samples = num_samples.clamp(self.shortest, waveforms.shape[1])
        if self.padding != "silence":
            return self.normalise(self.log_mel(waveforms), (samples - length) // shift + 1)
        inside = torch.arange(waveforms.shape[1], device=waveforms.device) < samples[:, None]
        frames = ((self.ahead + samples + shift - 1) // shift).clamp(max=self.max_length)
        return self.normalise(self.log_mel(waveforms * inside), frames)

    def normalise(self, log_mel: Tensor, num_frames: Tensor) -> FrontendOutput:
        """Fill up with padding and normalise.

        Made of tensor operations only, for ``torch.export``.

        Args:
            log_mel: (batch, max_length, num_mel_bins), as `log_mel` gives it.
            num_frames: (batch,) int64, 1 to max_length: from where on it is padding.
        """
        starts = torch.arange(log_mel.shape[0], device=log_mel.device) * self.max_length
        rows = torch.cat([self._normalised(log_mel.flatten(0, 1)), self._padding_frame(log_mel)])
        return self._assemble(rows, starts, num_frames)

    @property
    def shortest(self) -> int:
        """Samples of the shortest clip: a frame, which silence fills up to any length from 25 ms on."""
        return frame_length_and_shift(self.sampling_rate)[0] if self.padding == "silence" else self.frame_length

    def _around(self, clip: Tensor) -> Tensor:
        """A clip (n,) with what its frames hold of its surroundings: nothing, but where frames are centred.

        There the clip goes on in zeros to the end of the last frame that there can be, and is mirrored at that end.
        """
        if not self.kind.centred:
            return clip
        return self._mirrored(functional.pad(clip, (0, min(self.samples - len(clip), self.ahead + 2))))

    def _mirrored(self, waveforms: Tensor) -> Tensor:
        """(..., n) → half a frame more on both sides, where frames are centred.

        With pre-emphasis, if there is one; the first sample, which has none before it, is then left out.
        """
        if not self.kind.centred:
            return waveforms
        emphasised = waveforms
        if self.kind.pre_emphasis:
            emphasised = torch.sub(waveforms[..., 1:], waveforms[..., :-1], alpha=self.kind.pre_emphasis)
        before = emphasised[..., 1 : 1 + self.ahead].flip(-1)
        behind = emphasised[..., -1 - self.ahead : -1].flip(-1)
        return torch.cat([before, emphasised, behind], dim=-1)

    @property
    def _overhang(self) -> int:
        """Samples that the window of the last frame reaches past the frame shift in which it starts."""
        return self.fft_length - self.frame_shift + 1

    def _chunks(self, samples: Tensor) -> Iterator[Tensor]:
        """Log-mel values of clips laid end to end: (frames · shift + overhang,) → (frames, num_mel_bins) in chunks.

        Each clip is padded to whole frame shifts, and frame k starts at sample k · shift. The last few frames of each
        clip reach past its end: the caller drops them. One long row keeps a ragged batch as cheap as an even one.
        """
        tables = self._tables(samples)
        frames = (len(samples) - self._overhang) // self.frame_shift
        on_cpu = samples.device.type == "cpu"
        size = CHUNK_FRAMES_A_THREAD * torch.get_num_threads() if on_cpu else CHUNK_FRAMES_ELSEWHERE
        with _without_autocast(samples.device.type):
            for first in range(0, frames, size):
                end = min(first + size, frames) * self.frame_shift + self._overhang
                yield self._chunk(samples[first * self.frame_shift : end], *tables)

    def _chunk(self, samples: Tensor, window: Tensor, filters: Tensor, cosines: Tensor | None) -> Tensor:
        """Log-mel values, or coefficients, of the frames of a few samples.

        The pre-emphasis of a frame without its mean is the pre-emphasis of the signal less 0.03 of that mean, so the
        signal is filtered once and not once a frame. The Hann window is zero at the first sample, the only one whose
        pre-emphasis differs, so frames are cut from the second on; a power spectrum does not see that shift.

        Args:
            samples: (..., n + fft_length - frame_length + 1): the n samples that the frames lie in, and as many more
                as the window's zeros reach over.
            window: (fft_length,), from its second sample on.
            filters: (fft_length / 2 + 1, mel bins).
            cosines: (mel bins, num_mel_bins) of the cosine transform, or None for none.

        Returns:
            (..., frames, num_mel_bins) of the type of ``filters``.
        """
        samples = samples.to(window.dtype)
        spectrum = torch.view_as_real(torch.fft.rfft(self._windowed(samples, window))).to(filters.dtype)
        if self.kind.squared:
            squares = spectrum.square()
            amounts = squares[..., 0] + squares[..., 1]
        else:
            amounts = torch.linalg.vector_norm(spectrum, dim=-1)
        energies = [amounts[..., bins] @ filters[bins, mels] for bins, mels in self._bands]
        logarithms = torch.cat(energies, dim=-1).clamp(min=self.kind.floor).add(self.kind.added).log()
        return logarithms if cosines is None else logarithms @ cosines

    def _windowed(self, samples: Tensor, window: Tensor) -> Tensor:
        """(..., frames, fft_length), ready to be transformed; arguments as for `_chunk`."""
        emphasis = self.kind.pre_emphasis
        if not emphasis or self.kind.centred:
            return samples[..., 1:].unfold(-1, self.fft_length, self.frame_shift) * window
        covered = samples[..., : self.frame_length - self.fft_length - 1]
        means = covered.unfold(-1, self.frame_length, self.frame_shift).mean(-1, keepdim=True)
        emphasised = torch.sub(samples[..., 1:], samples[..., :-1], alpha=emphasis)
        frames = emphasised.unfold(-1, self.fft_length, self.frame_shift)
        return (frames - (1.0 - emphasis) * means).mul_(window)

    def _tables(self, samples: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Window, mel filters and cosines on the device of these samples, but the window in their precision."""
        window, filters, cosines = self.window, self.mel_filters, self.cosines
        if samples.device != window.device:
            window, filters, cosines = self._constants(samples.device)
        return window, filters.to(samples.dtype), None if cosines is None else cosines.to(samples.dtype)

    def _assemble(self, rows: Tensor, starts: Tensor, frames: Tensor) -> FrontendOutput:
        """Lay out each clip's normalised frames and fill up with padding, which the last row holds."""
        position = torch.arange(self.max_length, device=rows.device)
        real = position < frames[:, None]
        index = torch.where(real, starts[:, None] + position, rows.shape[0] - 1)
        values = rows.index_select(0, index.flatten()).unflatten(0, index.shape)
        if self.padding == "minimum":
            smallest = values.masked_fill(~real[..., None], math.inf).amin(dim=(1, 2), keepdim=True)
            values = torch.where(real[..., None], values, smallest)
        if self.kind.dynamic_range is not None:
            range_of_clip = self.kind.dynamic_range * math.log(10.0) / 10.0 / (2.0 * self.std)
            values = torch.maximum(values, values.amax(dim=(1, 2), keepdim=True) - range_of_clip)
        return FrontendOutput(values, frames)

    def _normalised(self, log_mel: Tensor) -> Tensor:
        return (log_mel - self.mean).div_(2.0 * self.std)

    def _padding_frame(self, like: Tensor) -> Tensor:
        """(1, num_mel_bins): what a frame of log-mel value 0, or of silence, is after normalising."""
        if self.padding != "silence":
            return self._normalised(like.new_zeros(1, self.num_mel_bins))
        _, filters, cosines = self._tables(like)
        silence = like.new_full((1, filters.shape[1]), math.log(self.kind.silence))
        return self._normalised(silence if cosines is None else silence @ cosines)

    def _constants(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor | None]:
        kind = torch.float32 if device.type == "mps" else torch.float64
        bins = self.kind.bands
        window, filters = window_and_filters(bins or self.num_mel_bins, self.sampling_rate, self.features)
        tables = [window, filters, *([cosine_transform(bins, self.num_mel_bins)] if bins else [])]
        found = [torch.tensor(table, dtype=kind, device=device) for table in tables]
        return found[0], found[1], found[2] if bins else None

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Frontend:
        """Follow a move to another device, not a cast."""
        self.window, self.mel_filters, self.cosines = self._constants(fn(torch.empty(0)).device)
        return self


def _check_settings(frontend: Frontend) -> None:
    """Raise `InvalidSetting` for the first setting that is out of range."""
    for field, least in (("max_length", 1), ("num_mel_bins", 1), ("sampling_rate", 1000)):
        value = getattr(frontend, field)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InvalidSetting(field, value, f"a whole number from {least}")
        if value > (most := LARGEST_WHOLE_NUMBERS[field]):
            raise InvalidSetting(field, value, f"a whole number from {least} to {most:,}")
    if not math.isfinite(frontend.mean):
        raise InvalidSetting("mean", frontend.mean, "a finite number")
    if not 0 < frontend.std < math.inf:
        raise InvalidSetting("std", frontend.std, "a positive number")
    if frontend.padding not in PADDINGS:
        raise InvalidSetting("padding", frontend.padding, one_of(PADDINGS))
    check_features(frontend.features, frontend.num_mel_bins, frontend.sampling_rate, frontend.padding)


def _without_autocast(device_type: str) -> AbstractContextManager[Any]:
    return torch.autocast(device_type, enabled=False) if torch.is_autocast_enabled(device_type) else nullcontext()
