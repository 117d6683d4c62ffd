"""A clip parted into two sounds: what lies in chosen regions of its spectrogram, and the rest. Their sum is the clip.

The short-time Fourier transform (scipy's ``ShortTimeFFT``) stands on the frames of the front end, 25 ms every 10 ms,
and is inverted with the window's canonical dual, so that it reconstructs perfectly. Its magnitudes are multiplied by a
mask, its phases stay. A mask is given per mel bin and frame, as patches are; a Fourier bin takes the mean of the mel
bins around it, weighted by their filters, so that masks which sum to 1 on the mel axis do so in hertz.

What the filterbank does not reach follows its nearest neighbour: Fourier bins below 20 Hz and at half the sampling
rate the lowest and the highest mel bin, and frames that hang over an end of the clip its first or last frame.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.signal import ShortTimeFFT

from spectrim.audio.filterbank import count_frames, frame_length_and_shift, samples_ahead, window_and_filters
from spectrim.errors import InputShapeError

Samples: TypeAlias = NDArray[np.float32]

MaskAt: TypeAlias = Callable[[NDArray[np.int64]], ArrayLike]
"""Takes frame numbers (n,), gives their mask (mels, n): bool, or the share in [0, 1] that belongs to the first part."""

CHUNK_FRAMES = 1024
"""Frames that are transformed at once."""


class Parts(NamedTuple):
    """A stretch of a clip, parted.

    Attributes:
        whole: (n,) float32, as it came.
        kept: (n,) float32, where the mask is 1.
        dropped: (n,) float32, where it is 0: ``whole - kept`` in float32.
        energy: sum of the squared magnitudes of the stretch's spectrogram.
        kept_energy: the same, each weighted by its mask.
    """

    whole: Samples
    kept: Samples
    dropped: Samples
    energy: float
    kept_energy: float


def part(samples: ArrayLike, mask: ArrayLike, sampling_rate: int = 16000) -> Parts:
    """Part a waveform.

    Args:
        samples: (n,), at least 25 ms.
        mask: (mels, frames), bool or in [0, 1], for every frame of the front end (`count_frames`).
        sampling_rate: in hertz.

    Raises:
        InputShapeError: the waveform is not one-dimensional or too short, or the mask does not fit it.
    """
    whole = np.asarray(samples, dtype=np.float32)
    shares = np.asarray(mask, dtype=np.float64)
    if whole.ndim != 1 or count_frames(len(whole), sampling_rate) == 0:
        raise InputShapeError(f"samples has shape {whole.shape}; wanted: (n,), at least one frame of 25 ms")
    frames = count_frames(len(whole), sampling_rate)
    if shares.ndim != 2 or shares.shape[1] != frames:
        raise InputShapeError(f"mask has shape {shares.shape}; wanted: (mels, {frames} frames)")
    parts = list(part_blocks([whole], frames, lambda index: shares[:, index], shares.shape[0], sampling_rate))
    return join(parts)


def join(parts: Sequence[Parts]) -> Parts:
    """Put consecutive stretches, at least one, together."""
    return Parts(
        whole=np.concatenate([one.whole for one in parts]),
        kept=np.concatenate([one.kept for one in parts]),
        dropped=np.concatenate([one.dropped for one in parts]),
        energy=sum(one.energy for one in parts),
        kept_energy=sum(one.kept_energy for one in parts),
    )


def part_blocks(
    blocks: Iterable[Samples],
    frames: int,
    mask_at: MaskAt,
    num_mel_bins: int = 128,
    sampling_rate: int = 16000,
    features: str = "log_mel",
) -> Iterator[Parts]:
    """Part a waveform that comes block by block, in memory that does not grow with its length.

    Args:
        blocks: (n,) each, at least 25 ms in all.
        frames: how many frames the front end makes of all of it; frames beyond are masked as the last one.
        mask_at: the mask of given frames.
        num_mel_bins: mel bins of the mask.
        sampling_rate: in hertz.
        features: of the front end; with MFCC all bins of a frame share one mask, as its patches do.

    Yields:
        Consecutive stretches of any length above 0; joined, they are as long as the blocks.
    """
    length, hop = frame_length_and_shift(sampling_rate, features)
    transform = ShortTimeFFT(_window(length), hop, sampling_rate, mfft=1 << (length - 1).bit_length())
    weights = bin_weights(num_mel_bins, sampling_rate, features)
    middle = length // 2 - samples_ahead(sampling_rate, features)
    ahead = -middle % hop
    first = (middle + ahead) // hop
    context = math.ceil(length / hop) + 1
    stretch = CHUNK_FRAMES * hop

    def parted(piece: NDArray[np.float32], start: int, count: int) -> tuple[NDArray[np.float64], float, float]:
        """``count`` samples of ``piece`` after its context; ``start`` says which hop of the clip they begin at."""
        margin = context * hop
        spectrum = transform.stft(piece.astype(np.float64))
        at = np.arange(transform.p_min, transform.p_min + spectrum.shape[1])
        frame = np.clip(at + start - context - first, 0, frames - 1)
        shown, places = np.unique(frame, return_inverse=True)
        gain = (weights @ np.asarray(mask_at(shown), dtype=np.float64))[:, places]
        inside = (at >= context) & (at < context + math.ceil(count / hop))
        energy = np.square(np.abs(spectrum[:, inside]))
        kept = transform.istft(spectrum * gain, k1=len(piece)).real
        return kept[margin : margin + count], float(energy.sum()), float((energy * gain[:, inside]).sum())

    for start, piece, count in _pieces(blocks, ahead, stretch, context * hop):
        kept, energy, kept_energy = parted(piece, start // hop, count)
        skip = ahead if start == 0 else 0
        whole = piece[context * hop + skip : context * hop + count]
        rounded = kept[skip:].astype(np.float32)
        yield Parts(whole, rounded, whole - rounded, energy, kept_energy)


def bin_weights(num_mel_bins: int = 128, sampling_rate: int = 16000, features: str = "log_mel") -> NDArray[np.float64]:
    """How much each mel bin has a say in each Fourier bin.

    Returns:
        (Fourier bins, mel bins); every row sums to 1. A Fourier bin that no filter reaches follows the nearest mel bin.
    """
    _, filters = window_and_filters(num_mel_bins, sampling_rate, features)
    weights = filters.copy()
    reached = np.flatnonzero(weights.any(axis=1))
    weights[: reached[0], 0] = 1.0
    weights[reached[-1] + 1 :, -1] = 1.0
    return weights / weights.sum(axis=1, keepdims=True)


def _window(length: int) -> NDArray[np.float64]:
    """Hann, symmetric, as the front end's."""
    return np.hanning(length)


def _pieces(
    blocks: Iterable[Samples], ahead: int, stretch: int, margin: int
) -> Iterator[tuple[int, NDArray[np.float32], int]]:
    """Cut a stream into stretches with a margin of what lies around each; silence before and after the clip.

    Args:
        blocks: (n,) each.
        ahead: samples of silence that are put before the clip.
        stretch: samples of each stretch but the last.
        margin: samples before and after each.

    Yields:
        (start, piece, count): ``count`` samples from ``start``, ``piece`` the margin, them and the margin.
    """
    held = np.zeros(margin + ahead, dtype=np.float32)
    start = 0
    for block in blocks:
        held = np.concatenate([held, np.asarray(block, dtype=np.float32)])
        while len(held) >= stretch + 2 * margin:
            yield start, held[: stretch + 2 * margin], stretch
            start += stretch
            held = held[stretch:]
    held = np.concatenate([held, np.zeros(margin, dtype=np.float32)])
    while (count := min(stretch, len(held) - 2 * margin)) > 0:
        yield start, held[: count + 2 * margin], count
        start += count
        held = held[count:]
