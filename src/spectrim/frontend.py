"""Waveform to normalised log-mel spectrogram: batched, on any device, differentiable.

Kaldi filterbanks as AST and AudioMAE were trained on them: frames of 25 ms every 10 ms that lie wholly inside
the clip, minus their mean, pre-emphasis 0.97, symmetric Hann window, power spectrum, triangular mel filters
from 20 Hz to half the sampling rate, natural logarithm with a floor of 2^-23.

The Fourier transform runs in float64 wherever the device has it. A mel band 90 dB below the loudest of its
frame is rounding noise of a float32 transform, and would differ by percents between libraries and devices.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from numbers import Number
from typing import Any, ClassVar, NamedTuple, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoFeatureExtractor, BatchFeature, SequenceFeatureExtractor
from transformers.audio_utils import hertz_to_mel, mel_filter_bank, mel_to_hertz, window_function
from transformers.utils import TensorType, logging

from spectrim.config import PADDINGS, SpectrimConfig
from spectrim.errors import AudioError, InputShapeError, InvalidSetting, one_of

FRAME_LENGTH_SECONDS = 0.025
FRAME_SHIFT_SECONDS = 0.010
PRE_EMPHASIS = 0.97
LOWEST_FREQUENCY = 20.0
"""Lower end of the first mel filter, in hertz."""
MEL_FLOOR = 2.0**-23
"""Smallest mel energy before the logarithm: the float32 epsilon, as in Kaldi."""
LARGEST_SAMPLE = 1e15
"""Samples beyond this would overflow the float32 power spectrum."""

CHUNK_FRAMES = {"cpu": 256}
"""Frames processed at once, by device type: on a CPU the 1 MB of a chunk's spectrum stays in cache."""
CHUNK_FRAMES_ELSEWHERE = 1 << 16

FULL_SCALE = {
    torch.uint8: 2.0**7,
    torch.int8: 2.0**7,
    torch.int16: 2.0**15,
    torch.int32: 2.0**31,
}
"""What an integer sample is divided by, as soundfile and scipy read them; uint8 is centred at 128 first."""

INTEGER_ARRAYS = tuple(np.dtype(name) for name in ("uint8", "int8", "int16", "int32"))

Waveform: TypeAlias = Tensor | np.ndarray
Batch: TypeAlias = Waveform | Sequence[Waveform]
_Array = TypeVar("_Array", float, np.ndarray)

logger = logging.get_logger(__name__)


def frame_seconds(index: _Array) -> _Array:
    """Time at which frame ``index`` starts, in seconds; it ends 25 ms later.

    Args:
        index: frame number from 0; an array, and fractions, are fine.
    """
    return index * FRAME_SHIFT_SECONDS


def mel_frequencies(num_mel_bins: int = 128, sampling_rate: int = 16000) -> np.ndarray:
    """Centre frequency of every mel bin, lowest first.

    Returns:
        (num_mel_bins,) float64, in hertz.
    """
    low, high = hertz_to_mel(np.array([LOWEST_FREQUENCY, sampling_rate / 2]), mel_scale="kaldi")
    return mel_to_hertz(np.linspace(low, high, num_mel_bins + 2)[1:-1], mel_scale="kaldi")


def count_frames(num_samples: int, sampling_rate: int = 16000) -> int:
    """Frames of 25 ms, one every 10 ms, that fit wholly into this many samples."""
    length, shift = _frame_samples(sampling_rate)
    return 1 + (num_samples - length) // shift if num_samples >= length else 0


def _frame_samples(sampling_rate: int) -> tuple[int, int]:
    return sampling_rate * 25 // 1000, sampling_rate * 10 // 1000


class FrontendOutput(NamedTuple):
    """What a `Frontend` returns.

    Attributes:
        input_values: (batch, max_length, num_mel_bins) normalised log-mel; float32, or float64 if every
            waveform was a float64 tensor.
        num_frames: (batch,) int64: how many of the frames hold sound; the others are padding.
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
        num_mel_bins: mel bins of the output.
        sampling_rate: of the waveforms, in hertz.
        mean: subtracted from the log-mel values.
        std: the difference is divided by twice this.
        padding: log-mel value of the frames past the end of a clip, before normalising: ``"zero"`` is 0.0
            (AST, AudioMAE, Hugging Face), ``"minimum"`` the smallest value among the clip's frames.

    Raises:
        InvalidSetting: naming the setting and what is allowed.
    """

    window: Tensor
    mel_filters: Tensor

    def __init__(
        self,
        *,
        max_length: int,
        num_mel_bins: int = 128,
        sampling_rate: int = 16000,
        mean: float,
        std: float,
        padding: str = "zero",
    ) -> None:
        super().__init__()
        self.max_length = max_length
        self.num_mel_bins = num_mel_bins
        self.sampling_rate = sampling_rate
        self.mean = mean
        self.std = std
        self.padding = padding
        _check_settings(self)
        self.frame_length, self.frame_shift = _frame_samples(sampling_rate)
        self.fft_length = 1 << (self.frame_length - 1).bit_length()
        window, filters = self._constants(torch.device("cpu"))
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("mel_filters", filters, persistent=False)

    @classmethod
    def from_config(cls, config: SpectrimConfig) -> Frontend:
        """Build the front end that a checkpoint was trained with."""
        return cls(**{name: getattr(config, name) for name in FRONTEND_FIELDS})

    def extra_repr(self) -> str:
        """Settings, for ``print(module)``."""
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in FRONTEND_FIELDS)

    def forward(self, waveforms: Batch) -> FrontendOutput:
        """Turn waveforms into the model's input.

        Args:
            waveforms: a sequence of 1-D arrays or tensors of any lengths; or one (batch, samples) tensor or
                array; or one 1-D tensor or array, a batch of one. Floats are taken as they are
                (full scale 1.0); int8, int16, int32 and uint8 are scaled to it.

        Raises:
            AudioError: a waveform is empty, shorter than one frame, of an unusable type, or has a NaN,
                an infinity or a sample beyond 1e15; names the waveform by its place in the batch.
            InputShapeError: the batch is empty, or a waveform has more than one dimension.
        """
        clips = _as_clips(waveforms, self.window.device)
        _check_clips(clips, self.frame_length, self.sampling_rate)
        longest = (self.max_length - 1) * self.frame_shift + self.frame_length
        clips = [clip[:longest] for clip in clips]
        frames = [count_frames(len(clip), self.sampling_rate) for clip in clips]
        slots = [math.ceil(len(clip) / self.frame_shift) for clip in clips]
        silence = clips[0].new_zeros(self.frame_shift)
        pieces = []
        for clip, width in zip(clips, slots, strict=True):
            pieces += [clip, silence[: width * self.frame_shift - len(clip)]]
        rows = self._rows(torch.cat(pieces))
        starts = np.cumsum([0, *slots[:-1]])
        return self._assemble(rows, torch.from_numpy(starts).to(rows.device), torch.tensor(frames, device=rows.device))

    def log_mel(self, waveforms: Tensor) -> Tensor:
        """Log-mel values before padding and normalising.

        Made of tensor operations only, for ``torch.export``; forward differs in that it also checks the samples.

        Args:
            waveforms: (batch, samples), at least 25 ms.

        Returns:
            (batch, frames, num_mel_bins), natural logarithm of the mel energies; float32, or float64 if
            ``waveforms`` is.

        Raises:
            InputShapeError: not two-dimensional, or shorter than one frame.
        """
        if waveforms.dim() != 2:
            raise InputShapeError(f"waveforms has shape {tuple(waveforms.shape)}; wanted: (batch, samples)")
        batch, samples = waveforms.shape
        if samples < self.frame_length:
            raise InputShapeError(f"waveforms has {samples} samples; one frame takes {self.frame_length}")
        slots = (samples + self.frame_shift - 1) // self.frame_shift
        padded = functional.pad(_as_float(waveforms), (0, slots * self.frame_shift - samples))
        rows = self._rows(padded.reshape(-1)).reshape(batch, slots, self.num_mel_bins)
        return rows[:, : 1 + (samples - self.frame_length) // self.frame_shift]

    def _rows(self, samples: Tensor) -> Tensor:
        """Log-mel values of every frame of clips laid end to end, each padded to whole frame shifts.

        Frame k starts at sample k·shift; the last few of each clip reach past its end and are for the caller to drop.
        One long row keeps a ragged batch as cheap as an even one, and lets chunks span clips.

        Args:
            samples: (frames · shift,) floating point.

        Returns:
            (frames, num_mel_bins), float64 if ``samples`` is, else float32.
        """
        window, filters = self.window, self.mel_filters
        if samples.device != window.device:
            window, filters = self._constants(samples.device)
        filters = filters.to(samples.dtype)
        frames = samples.shape[0] // self.frame_shift
        overhang = self.fft_length - self.frame_shift + 1
        samples = functional.pad(samples, (0, overhang))
        with _without_autocast(samples.device.type):
            if torch.compiler.is_compiling():
                return self._chunk(samples, window, filters)
            size = CHUNK_FRAMES.get(samples.device.type, CHUNK_FRAMES_ELSEWHERE)
            rows = []
            for first in range(0, frames, size):
                end = min(first + size, frames) * self.frame_shift + overhang
                rows.append(self._chunk(samples[first * self.frame_shift : end], window, filters))
        return torch.cat(rows)

    def _chunk(self, samples: Tensor, window: Tensor, filters: Tensor) -> Tensor:
        """Log-mel values of a few frames: (frames · shift + overhang,) → (frames, num_mel_bins).

        The pre-emphasis of a frame without its mean is the pre-emphasis of the signal less 0.03 of that mean, so the
        signal is filtered once and not once a frame. The Hann window is zero at the first sample, the only one whose
        pre-emphasis differs, so frames are cut from the second on; a power spectrum does not see that shift.
        """
        samples = samples.to(window.dtype)
        means = samples[: self.frame_length - self.fft_length - 1]
        means = means.unfold(0, self.frame_length, self.frame_shift).mean(1, keepdim=True)
        emphasised = samples[1:] - PRE_EMPHASIS * samples[:-1]
        frames = emphasised.unfold(0, self.fft_length, self.frame_shift)
        spectrum = torch.fft.rfft((frames - (1.0 - PRE_EMPHASIS) * means) * window)
        power = (spectrum.real.square() + spectrum.imag.square()).to(filters.dtype)
        return (power @ filters).clamp(min=MEL_FLOOR).log()

    def _assemble(self, rows: Tensor, starts: Tensor, frames: Tensor) -> FrontendOutput:
        """Cut each clip's frames out of the long row, fill up with the padding value, normalise."""
        position = torch.arange(self.max_length, device=rows.device)
        real = (position < frames[:, None])[..., None]
        index = torch.minimum(position, frames[:, None] - 1) + starts[:, None]
        values = rows[index]
        fill = values.amin(dim=(1, 2), keepdim=True) if self.padding == "minimum" else values.new_zeros(())
        values = torch.where(real, values, fill)
        return FrontendOutput((values - self.mean) / (2.0 * self.std), frames)

    def _constants(self, device: torch.device) -> tuple[Tensor, Tensor]:
        precision = torch.float32 if device.type == "mps" else torch.float64
        window, filters = (
            torch.from_numpy(array).to(precision).to(device)
            for array in _window_and_filters(self.num_mel_bins, self.sampling_rate)
        )
        return window, filters

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Frontend:
        """Follow a move to another device, not a cast."""
        self.window, self.mel_filters = self._constants(fn(torch.empty(0)).device)
        return self


FRONTEND_FIELDS = ("max_length", "num_mel_bins", "sampling_rate", "mean", "std", "padding")
"""Settings of a `Frontend`: fields of `SpectrimConfig` and of `SpectrimFeatureExtractor`, too."""


@functools.lru_cache(maxsize=16)
def _window_and_filters(num_mel_bins: int, sampling_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Make a Hann window from its second sample on, zero-padded to the FFT length, and (bins, mels) filters."""
    length, _ = _frame_samples(sampling_rate)
    fft_length = 1 << (length - 1).bit_length()
    window = np.zeros(fft_length)
    window[: length - 1] = window_function(length, "hann", periodic=False)[1:]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="At least one mel filter", category=UserWarning)
        filters = mel_filter_bank(
            num_frequency_bins=fft_length // 2 + 1,
            num_mel_filters=num_mel_bins,
            min_frequency=LOWEST_FREQUENCY,
            max_frequency=sampling_rate / 2,
            sampling_rate=sampling_rate,
            norm=None,
            mel_scale="kaldi",
            triangularize_in_mel_space=True,
        )
    return window, filters


def _check_settings(frontend: Frontend) -> None:
    """Raise `InvalidSetting` for the first setting that is out of range."""
    for field, least in (("max_length", 1), ("num_mel_bins", 1), ("sampling_rate", 1000)):
        value = getattr(frontend, field)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InvalidSetting(field, value, f"a whole number from {least}")
    if not math.isfinite(frontend.mean):
        raise InvalidSetting("mean", frontend.mean, "a finite number")
    if not 0 < frontend.std < math.inf:
        raise InvalidSetting("std", frontend.std, "a positive number")
    if frontend.padding not in PADDINGS:
        raise InvalidSetting("padding", frontend.padding, one_of(PADDINGS))


def _without_autocast(device_type: str) -> AbstractContextManager[Any]:
    return torch.autocast(device_type, enabled=False) if torch.is_autocast_enabled(device_type) else nullcontext()


def _as_clips(waveforms: Batch, device: torch.device) -> list[Tensor]:
    """Bring a batch in any of its forms to 1-D floating-point tensors on one device."""
    if isinstance(waveforms, Tensor | np.ndarray):
        if waveforms.ndim not in (1, 2):
            shape = tuple(waveforms.shape)
            raise InputShapeError(f"waveforms has shape {shape}; wanted: (batch, samples), mono")
        waveforms = [waveforms] if waveforms.ndim == 1 else list(waveforms)
    if len(waveforms) == 0:
        raise InputShapeError("waveforms is empty; wanted: at least one waveform")
    clips = [_as_tensor(clip, f"waveform {index}") for index, clip in enumerate(waveforms)]
    for given in waveforms:
        if isinstance(given, Tensor):
            device = given.device
            break
    precise = all(clip.dtype == torch.float64 for clip in clips)
    return [clip.to(device, torch.float64 if precise else torch.float32) for clip in clips]


def _as_tensor(clip: Waveform, name: str) -> Tensor:
    """Bring one waveform to a 1-D floating-point tensor; only tensors keep float64."""
    if isinstance(clip, list | tuple):
        try:
            clip = np.asarray(clip, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise AudioError(name, f"not a sequence of numbers ({error})") from error
    if isinstance(clip, np.ndarray):
        clip = _tensor_of_array(clip, name)
    if not isinstance(clip, Tensor):
        raise AudioError(name, f"is a {type(clip).__name__}; wanted: an array or tensor")
    if clip.dim() != 1:
        shape = tuple(clip.shape)
        raise InputShapeError(f"{name} has shape {shape}; wanted: (samples,), mono: mix the channels down first")
    if not clip.is_floating_point() and clip.dtype not in FULL_SCALE:
        raise AudioError(name, _bad_type(clip.dtype))
    return _as_float(clip)


def _tensor_of_array(clip: np.ndarray, name: str) -> Tensor:
    if clip.dtype.kind == "f":
        return torch.from_numpy(clip.astype(np.float32))
    native = clip.dtype.newbyteorder("=")
    if clip.dtype.kind not in "iu" or native not in INTEGER_ARRAYS:
        raise AudioError(name, _bad_type(clip.dtype))
    return torch.from_numpy(clip.astype(native))


def _bad_type(dtype: torch.dtype | np.dtype) -> str:
    known = ", ".join(str(array) for array in INTEGER_ARRAYS)
    return f"has samples of type {str(dtype).removeprefix('torch.')}; wanted: floating point, or {known}"


def _as_float(samples: Tensor) -> Tensor:
    """Scale integer samples to ±1; float64 stays, every other type becomes float32."""
    if samples.dtype in FULL_SCALE:
        scaled = samples.to(torch.float32)
        if samples.dtype == torch.uint8:
            scaled = scaled - 128.0
        return scaled / FULL_SCALE[samples.dtype]
    return samples if samples.dtype == torch.float64 else samples.to(torch.float32)


def _check_clips(clips: list[Tensor], frame_length: int, sampling_rate: int) -> None:
    """Raise `AudioError` for the first clip from which no honest spectrogram can be made."""
    for index, clip in enumerate(clips):
        if len(clip) < frame_length:
            milliseconds = f"{1000 * len(clip) / sampling_rate:.4g} ms long ({len(clip)} samples)"
            shortest = f"one frame takes {1000 * FRAME_LENGTH_SECONDS:g} ms ({frame_length} samples)"
            reason = f"{milliseconds}; {shortest}" if len(clip) else f"empty: 0 ms long; {shortest}"
            raise AudioError(f"waveform {index}", reason)
    extremes = torch.stack([torch.stack(clip.detach().aminmax()) for clip in clips]).cpu()
    for index, (low, high) in enumerate(extremes.tolist()):
        if low >= -LARGEST_SAMPLE and high <= LARGEST_SAMPLE:
            continue
        clip = clips[index]
        milliseconds = f"{1000 * len(clip) / sampling_rate:.4g} ms long"
        bad = int((~torch.isfinite(clip)).sum())
        what = f"{bad} of its samples are NaN or infinite" if bad else f"has samples beyond ±{LARGEST_SAMPLE:g}"
        raise AudioError(f"waveform {index}", f"{what} ({milliseconds})")


@functools.lru_cache(maxsize=16)
def _cached_frontend(settings: tuple[tuple[str, Any], ...]) -> Frontend:
    return Frontend(**dict(settings))


class SpectrimFeatureExtractor(SequenceFeatureExtractor):
    """The front end in the form that transformers' pipelines and trainers use.

    Called like ``ASTFeatureExtractor``; saved as ``preprocessor_config.json``. `Frontend` does the work.

    Args:
        sampling_rate: of the waveforms, in hertz.
        num_mel_bins: mel bins of the output.
        max_length: frames of the output.
        mean: subtracted from the log-mel values.
        std: the difference is divided by twice this.
        padding: ``"zero"`` or ``"minimum"``, see `Frontend`.
        **kwargs: what every ``SequenceFeatureExtractor`` has.

    Raises:
        InvalidSetting: naming the setting and what is allowed.
    """

    model_input_names: ClassVar[list[str]] = ["input_values", "num_frames"]

    def __init__(
        self,
        sampling_rate: int = 16000,
        num_mel_bins: int = 128,
        max_length: int = 1024,
        mean: float = -4.2677393,
        std: float = 4.5689974,
        padding: str = "zero",
        **kwargs: Any,
    ) -> None:
        parents: dict[str, Any] = {"feature_size": 1, "padding_value": 0.0, "return_attention_mask": False, **kwargs}
        super().__init__(sampling_rate=sampling_rate, **parents)
        self.num_mel_bins = num_mel_bins
        self.max_length = max_length
        self.mean = mean
        self.std = std
        self.padding = padding
        self._frontend()

    @classmethod
    def from_config(cls, config: SpectrimConfig) -> SpectrimFeatureExtractor:
        """Build the feature extractor that belongs to a model of this configuration."""
        return cls(**{name: getattr(config, name) for name in FRONTEND_FIELDS})

    def __call__(
        self,
        raw_speech: Batch | Sequence[float] | Sequence[Sequence[float]],
        sampling_rate: int | None = None,
        return_tensors: str | TensorType | None = None,
    ) -> BatchFeature:
        """Turn one waveform, or several, into the model's input.

        Args:
            raw_speech: one 1-D array, tensor or list of numbers; or a sequence of them, of any lengths; or a
                (batch, samples) array or tensor. See `Frontend.forward` for the types.
            sampling_rate: of ``raw_speech``, in hertz: give it, so that a wrong one is noticed.
            return_tensors: ``"pt"`` for tensors, ``"np"`` for arrays, None for a list with an array a clip.

        Returns:
            ``input_values`` (batch, max_length, num_mel_bins) float32 and ``num_frames`` (batch,) int64.

        Raises:
            InvalidSetting: ``sampling_rate`` is not the configured one, or ``return_tensors`` unknown.
            AudioError: a waveform cannot be used; it is named by its place in the batch.
            InputShapeError: the batch is empty or a waveform has channels.
        """
        if sampling_rate is None:
            logger.warning_once("Give sampling_rate to the feature extractor: without it a wrong one goes unnoticed.")
        elif sampling_rate != self.sampling_rate:
            raise InvalidSetting("sampling_rate", sampling_rate, f"{self.sampling_rate}: resample the waveform first")
        if return_tensors not in (None, "pt", "np"):
            raise InvalidSetting("return_tensors", return_tensors, "None, 'pt' or 'np'")
        if isinstance(raw_speech, list | tuple) and raw_speech and isinstance(raw_speech[0], Number):
            raw_speech = [raw_speech]
        input_values, frames = self._frontend()(raw_speech)
        input_values = input_values.to(torch.float32)
        if return_tensors == "pt":
            return BatchFeature({"input_values": input_values, "num_frames": frames})
        arrays = input_values.detach().cpu().numpy(), frames.cpu().numpy()
        if return_tensors == "np":
            return BatchFeature({"input_values": arrays[0], "num_frames": arrays[1]})
        return BatchFeature({"input_values": list(arrays[0]), "num_frames": arrays[1].tolist()})

    def _frontend(self) -> Frontend:
        """Return the front end of the present settings: a changed attribute counts from the next call on."""
        return _cached_frontend(tuple((name, getattr(self, name)) for name in FRONTEND_FIELDS))


AutoFeatureExtractor.register(SpectrimConfig, SpectrimFeatureExtractor)
