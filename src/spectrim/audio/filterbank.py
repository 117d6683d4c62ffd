"""Frames, window and mel filters: the arithmetic of a Kaldi filterbank, as NumPy arrays and numbers."""

from __future__ import annotations

import functools
import warnings
from typing import TypeVar

import numpy as np
from transformers.audio_utils import hertz_to_mel, mel_filter_bank, mel_to_hertz, window_function

FRAME_LENGTH_SECONDS = 0.025
FRAME_SHIFT_SECONDS = 0.010
LOWEST_FREQUENCY = 20.0
"""Lower end of the first mel filter, in hertz."""
BAND_MELS = 32
"""Mel bins that are summed in one matrix product."""

_Number = TypeVar("_Number", float, np.ndarray)


def frame_seconds(index: _Number) -> _Number:
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
    length, shift = frame_samples(sampling_rate)
    return 1 + (num_samples - length) // shift if num_samples >= length else 0


def frame_samples(sampling_rate: int) -> tuple[int, int]:
    """Length and shift of a frame in samples, rounded down as Kaldi does."""
    return sampling_rate * 25 // 1000, sampling_rate * 10 // 1000


@functools.lru_cache(maxsize=16)
def window_and_filters(num_mel_bins: int, sampling_rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Make a Hann window from its second sample on, zero-padded to the FFT length, and (bins, mels) filters."""
    length, _ = frame_samples(sampling_rate)
    fft_length = 1 << (length - 1).bit_length()
    window = np.zeros(fft_length)
    window[: length - 1] = window_function(length, "hann", periodic=False)[1:]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="At least one mel filter", category=UserWarning)
        span = {"min_frequency": LOWEST_FREQUENCY, "max_frequency": sampling_rate / 2, "sampling_rate": sampling_rate}
        shape = {"mel_scale": "kaldi", "triangularize_in_mel_space": True}
        filters = mel_filter_bank(fft_length // 2 + 1, num_mel_bins, **span, **shape)
    return window, filters


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
