"""Frames, window, mel filters and cepstra: the arithmetic of the front ends, as NumPy arrays and numbers."""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from transformers.audio_utils import hertz_to_mel, mel_filter_bank, mel_to_hertz, window_function

from spectrim.errors import InvalidSetting, one_of

FRAME_SHIFT_SECONDS = 0.010
BAND_MELS = 32
"""Mel bins that are summed in one matrix product."""

_Number = TypeVar("_Number", float, np.ndarray)


@dataclass(frozen=True)
class Features:
    """What a front end computes of each frame.

    Attributes:
        frame_milliseconds: length of a frame; one starts every 10 ms.
        periodic: whether the window is periodic or symmetric.
        pre_emphasis: what each sample loses of the one before it, after the frame's mean is taken off; 0: neither.
            Of centred frames it is that of the signal, and no mean is taken off.
        squared: whether the filters sum the power of the spectrum or its magnitude.
        highest_frequency: upper end of the last mel filter, in hertz; None for half the sampling rate.
        floor: smallest mel energy before the logarithm.
        window: ``"hann"``, or Kaldi's ``"povey"``, a Hann window to the power of 0.85.
        full_scale: what a sample of 1 counts; 2¹⁵ for filterbanks of 16-bit samples.
        lowest_frequency: lower end of the first mel filter, in hertz.
        added: to each mel energy before the logarithm.
        centred: whether frame k is centred on the place where else it begins, with the signal mirrored at both ends.
        filters_in_hertz: whether the sides of the triangular filters are straight in hertz (HTK) or in mels (Kaldi);
            where they stand is the same.
        dynamic_range: values further below the loudest of a clip than this are raised to it, in decibels; None for no
            limit.
        bands: mel filters whose logarithms a cosine transform turns into fewer coefficients; None where the
            logarithms are what the model takes.
    """

    frame_milliseconds: int
    periodic: bool
    pre_emphasis: float
    squared: bool
    highest_frequency: float | None
    floor: float
    window: str = "hann"
    full_scale: float = 1.0
    lowest_frequency: float = 20.0
    added: float = 0.0
    centred: bool = False
    filters_in_hertz: bool = False
    dynamic_range: float | None = None
    bands: int | None = None

    @property
    def silence(self) -> float:
        """The smallest mel energy that there is, as the logarithm takes it."""
        return self.floor + self.added


FEATURES = {
    "log_mel": Features(25, False, 0.97, True, None, 2.0**-23),
    "povey_log_mel": Features(25, False, 0.97, True, None, 2.0**-23, window="povey", full_scale=2.0**15),
    "mfcc": Features(30, True, 0.0, False, 7600.0, 1e-12, bands=80),
    "centred_log_mel": Features(25, False, 0.97, True, 15000.0, 0.0, lowest_frequency=0.0, added=1e-5, centred=True),
    "mel_decibels": Features(
        32, True, 0.0, True, None, 1e-10, lowest_frequency=0.0, centred=True, filters_in_hertz=True, dynamic_range=120.0
    ),
}
"""Kaldi's filterbanks as AST and AudioMAE take them, their floor the float32 epsilon, and as BEATs (Chen et al., 2023)
does, with Kaldi's own window and of 16-bit samples; the MFCC of the Keyword
Transformer (Berg et al., 2021); PaSST's log-mel (Koutini et al., 2022), as of a short-time Fourier transform; and CED's
(Dinkel et al., 2024), torchaudio's ``MelSpectrogram`` and ``AmplitudeToDB``, in decibels where std is ln(10)/20."""


def check_features(features: str, num_mel_bins: int, sampling_rate: int, padding: str) -> None:
    """Raise `InvalidSetting` for settings of a front end that do not go with its kind of features."""
    if features not in FEATURES:
        raise InvalidSetting("features", features, one_of(FEATURES))
    kind = FEATURES[features]
    if kind.highest_frequency is not None and sampling_rate < 2 * kind.highest_frequency:
        allowed = f"at least {2 * kind.highest_frequency:g} with features={features!r}"
        raise InvalidSetting("sampling_rate", sampling_rate, allowed)
    if kind.bands is not None and num_mel_bins > kind.bands:
        raise InvalidSetting("num_mel_bins", num_mel_bins, f"at most {kind.bands} with features={features!r}")
    if (kind.bands is not None or kind.centred) and padding != "silence":
        why = "frames reach past the ends of a clip" if kind.centred else "no coefficient stands for it"
        raise InvalidSetting("padding", padding, f"'silence' with features={features!r}: {why}")


def frame_seconds(index: _Number) -> _Number:
    """Time at which frame ``index`` starts, in seconds; of centred frames, that of their middle.

    Args:
        index: frame number from 0; an array, and fractions, are fine.
    """
    return index * FRAME_SHIFT_SECONDS


def mel_frequencies(num_mel_bins: int = 128, sampling_rate: int = 16000, features: str = "log_mel") -> np.ndarray:
    """Centre frequency of every mel bin, lowest first.

    Returns:
        (num_mel_bins,) float64, in hertz.
    """
    ends = np.array([FEATURES[features].lowest_frequency, highest_frequency(sampling_rate, features)])
    low, high = hertz_to_mel(ends, mel_scale="kaldi")
    return mel_to_hertz(np.linspace(low, high, num_mel_bins + 2)[1:-1], mel_scale="kaldi")


def highest_frequency(sampling_rate: int, features: str = "log_mel") -> float:
    """Upper end of the last mel filter, in hertz."""
    highest = FEATURES[features].highest_frequency
    return sampling_rate / 2 if highest is None else highest


def count_frames(num_samples: int, sampling_rate: int = 16000, features: str = "log_mel") -> int:
    """Frames, one every 10 ms, that fit wholly into this many samples, or that are centred in them."""
    length, shift = frame_length_and_shift(sampling_rate, features)
    if num_samples < length:
        return 0
    return 1 + (num_samples - _emphasised(features) if FEATURES[features].centred else num_samples - length) // shift


def count_samples(num_frames: int, sampling_rate: int = 16000, features: str = "log_mel") -> int:
    """Samples that fill this many frames: the most that are heard of a clip."""
    length, shift = frame_length_and_shift(sampling_rate, features)
    if FEATURES[features].centred:
        return (num_frames - 1 + _emphasised(features)) * shift
    return (num_frames - 1) * shift + length


def _emphasised(features: str) -> int:
    """Samples that the pre-emphasis of a whole signal takes: its first one."""
    return 1 if FEATURES[features].pre_emphasis else 0


def samples_ahead(sampling_rate: int, features: str = "log_mel") -> int:
    """Samples of frame 0 that lie before the clip: half of a centred frame."""
    length, _ = frame_length_and_shift(sampling_rate, features)
    return length // 2 if FEATURES[features].centred else 0


def frame_length_and_shift(sampling_rate: int, features: str = "log_mel") -> tuple[int, int]:
    """Length and shift of a frame in samples, rounded down as Kaldi does."""
    return sampling_rate * FEATURES[features].frame_milliseconds // 1000, sampling_rate * 10 // 1000


@functools.lru_cache(maxsize=16)
def window_and_filters(
    num_mel_bins: int, sampling_rate: int, features: str = "log_mel"
) -> tuple[np.ndarray, np.ndarray]:
    """Make a window from its second sample on, zero-padded to the FFT length, and (bins, mels) filters.

    The window's first sample is 0; the others are multiplied by what a sample of 1 counts.
    """
    kind = FEATURES[features]
    length, _ = frame_length_and_shift(sampling_rate, features)
    fft_length = 1 << (length - 1).bit_length()
    window = np.zeros(fft_length)
    window[: length - 1] = kind.full_scale * window_function(length, kind.window, periodic=kind.periodic)[1:]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="At least one mel filter", category=UserWarning)
        highest = highest_frequency(sampling_rate, features)
        span = {"min_frequency": kind.lowest_frequency, "max_frequency": highest, "sampling_rate": sampling_rate}
        shape = {"mel_scale": "kaldi", "triangularize_in_mel_space": not kind.filters_in_hertz}
        filters = mel_filter_bank(fft_length // 2 + 1, num_mel_bins, **span, **shape)
    return window, filters


@functools.lru_cache(maxsize=16)
def cosine_transform(bands: int, coefficients: int) -> np.ndarray:
    """(bands, coefficients) float64: logarithms of mel energies @ this are cepstral coefficients.

    The DCT-II by its formula, Σ x_k · 2 cos(πj(2k + 1)/2n) / √(2n): orthonormal but for coefficient 0, which is √2
    times as large.
    """
    angle = np.pi * np.outer(2 * np.arange(bands) + 1, np.arange(coefficients)) / (2 * bands)
    return np.cos(angle) * (2.0 / np.sqrt(2.0 * bands))


@functools.lru_cache(maxsize=16)
def inverse_cosine_transform(bands: int, coefficients: int) -> np.ndarray:
    """(coefficients, bands) float64: coefficients @ this are the log-mel spectrum, smoothed where bands are more."""
    return np.linalg.pinv(cosine_transform(bands, coefficients))


def bands(filters: np.ndarray) -> list[tuple[slice, slice]]:
    """Part the filters so that the matrix product of each part has few zeros in it.

    Args:
        filters: (FFT bins, mel bins).

    Returns:
        For each run of mel bins: the FFT bins that it reads, and the run.
    """
    parts = []
    for first in range(0, filters.shape[1], BAND_MELS):
        mels = slice(first, first + BAND_MELS)
        bins = np.flatnonzero(filters[:, mels].any(axis=1)).tolist() or [0]
        parts.append((slice(bins[0], bins[-1] + 1), mels))
    return parts
