"""Kept and dropped add up to the clip, and each holds what its mask says; compared with the plain definition."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.signal import welch

from spectrim.audio.filterbank import count_frames, window_and_filters
from spectrim.audio.resynthesis import bin_weights, join, part, part_blocks
from spectrim.errors import InputShapeError

MELS = 128


def noise(samples: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(0.0, 0.3, samples).astype(np.float32)


def random_mask(samples: int, seed: int = 0, rate: int = 16000) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random((MELS, count_frames(samples, rate))) < 0.5


def plainly_kept(samples: NDArray[np.float32], mask: NDArray[np.bool_], rate: int = 16000) -> NDArray[np.float64]:
    """Frame by frame: window, transform, multiply, back, window again, add; divide by the squared windows."""
    length, hop = rate * 25 // 1000, rate * 10 // 1000
    size = 1 << (length - 1).bit_length()
    window = np.hanning(length)
    filters = window_and_filters(MELS, rate)[1]
    margin = 2 * length
    signal = np.concatenate([np.zeros(margin), samples.astype(np.float64), np.zeros(margin)])
    total, squares = np.zeros_like(signal), np.zeros_like(signal)
    for number in range(-(margin // hop), (len(signal) - margin - length) // hop + 1):
        place = slice(margin + number * hop, margin + number * hop + length)
        column = mask[:, min(max(number, 0), mask.shape[1] - 1)].astype(float)
        gain = filters @ column / np.maximum(filters.sum(axis=1), 1e-12)
        unreached = ~filters.any(axis=1)
        gain[unreached] = np.where(np.arange(size // 2 + 1) * rate / size < 20, column[0], column[-1])[unreached]
        part = np.fft.irfft(np.fft.rfft(signal[place] * window, size) * gain, size)[:length]
        total[place] += part * window
        squares[place] += window**2
    return (total / np.maximum(squares, 1e-12))[margin : margin + len(samples)]


@settings(max_examples=25)
@given(st.integers(400, 4000), st.integers(0, 99))
def test_kept_is_the_plain_definition(samples: int, seed: int) -> None:
    clip, mask = noise(samples, seed), random_mask(samples, seed)
    parts = part(clip, mask)
    np.testing.assert_allclose(parts.kept, plainly_kept(clip, mask), atol=1e-6)
    np.testing.assert_allclose(parts.dropped, plainly_kept(clip, ~mask), atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 11025, 22050])
def test_other_rates(rate: int) -> None:
    clip, mask = noise(3000), random_mask(3000, rate=rate)
    np.testing.assert_allclose(part(clip, mask, rate).kept, plainly_kept(clip, mask, rate), atol=1e-6)


@pytest.mark.parametrize("samples", [400, 401, 559, 560, 16000, 1024 * 160 - 1, 1024 * 160 + 240, 2 * 163840 + 777])
def test_the_sum_is_the_clip(samples: int) -> None:
    clip = noise(samples)
    parts = part(clip, random_mask(samples))
    assert parts.kept.dtype == parts.dropped.dtype == np.float32
    assert parts.kept.shape == parts.dropped.shape == clip.shape
    np.testing.assert_array_equal(parts.whole, clip)
    assert np.abs(parts.kept + parts.dropped - clip).max() <= 1e-6 * np.abs(clip).max()


@pytest.mark.parametrize("samples", [400, 999, 163840 + 5])
def test_all_kept_and_nothing_kept(samples: int) -> None:
    clip = noise(samples)
    everything, nothing = (part(clip, np.full((MELS, count_frames(samples)), kept)) for kept in (True, False))
    np.testing.assert_allclose(everything.kept, clip, atol=1e-6)
    np.testing.assert_allclose(everything.dropped, 0.0, atol=1e-6)
    np.testing.assert_array_equal(nothing.kept, 0.0)
    np.testing.assert_array_equal(nothing.dropped, clip)
    assert everything.kept_energy == pytest.approx(everything.energy, rel=1e-9)
    assert nothing.kept_energy == 0.0


def band_power(samples: NDArray[np.float32], hertz: float) -> float:
    """Power within 30 Hz of a frequency, by scipy."""
    frequencies, density = welch(samples[1600:-1600], 16000, nperseg=2048)
    return float(density[np.abs(frequencies - hertz) < 30].sum())


def test_a_tone_goes_where_its_band_goes() -> None:
    time = np.arange(16000) / 16000
    low, high = 0.2 * np.sin(2 * np.pi * 440 * time), 0.2 * np.sin(2 * np.pi * 3000 * time)
    clip = (low + high).astype(np.float32)
    mask = np.zeros((MELS, count_frames(16000)), dtype=bool)
    mask[:64] = True  # up to 1.7 kHz
    parts = part(clip, mask)
    assert band_power(parts.kept, 440) == pytest.approx(band_power(clip, 440), rel=1e-6)
    assert band_power(parts.dropped, 3000) == pytest.approx(band_power(clip, 3000), rel=1e-6)
    assert band_power(parts.kept, 3000) < 1e-9 * band_power(clip, 3000)
    assert band_power(parts.dropped, 440) < 1e-9 * band_power(clip, 440)
    assert parts.kept_energy / parts.energy == pytest.approx(0.5, abs=0.01)


def test_a_click_goes_where_its_time_goes() -> None:
    clip = np.zeros(16000, dtype=np.float32)
    clip[[4000, 12000]] = 1.0
    mask = np.zeros((MELS, count_frames(16000)), dtype=bool)
    mask[:, :48] = True
    parts = part(clip, mask)
    np.testing.assert_allclose(parts.kept[4000], 1.0, atol=1e-6)
    np.testing.assert_allclose(parts.dropped[12000], 1.0, atol=1e-6)
    assert np.abs(parts.kept[8400:]).max() < 1e-6
    assert np.abs(parts.dropped[:7000]).max() < 1e-6


def test_the_phase_stays() -> None:
    time = np.arange(16000) / 16000
    clip = np.sin(2 * np.pi * 1000 * time + 0.7).astype(np.float32)
    half = part(clip, np.full((MELS, count_frames(16000)), 0.5))
    np.testing.assert_allclose(half.kept, 0.5 * clip, atol=1e-6)


def test_silence_has_no_energy() -> None:
    parts = part(np.zeros(800, dtype=np.float32), random_mask(800))
    assert (parts.energy, parts.kept_energy) == (0.0, 0.0)


@settings(max_examples=20)
@given(st.lists(st.integers(1, 200_000), min_size=1, max_size=4), st.integers(0, 9))
def test_blocks_of_any_length_make_no_difference(lengths: list[int], seed: int) -> None:
    total = max(sum(lengths), 400)
    clip, mask = noise(total, seed), random_mask(total, seed)
    edges = [0, *np.cumsum(lengths)[:-1], total]
    blocks = [clip[start:end] for start, end in itertools.pairwise(edges)]
    parts = join(list(part_blocks(blocks, mask.shape[1], lambda frames: mask[:, frames])))
    whole = part(clip, mask)
    np.testing.assert_array_equal(parts.whole, clip)
    np.testing.assert_array_equal(parts.kept, whole.kept)
    assert parts.kept_energy == whole.kept_energy


def test_memory_does_not_grow_with_the_clip() -> None:
    def peak(blocks: int) -> int:
        def sound() -> Iterator[NDArray[np.float32]]:
            for number in range(blocks):
                yield noise(1 << 15, number)

        frames = count_frames(blocks << 15)
        tracemalloc.start()
        for _ in part_blocks(sound(), frames, lambda frames: np.ones((MELS, len(frames)))):
            pass
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return highest

    # 24 more blocks are 3.1 MB of samples.
    assert abs(peak(36) - peak(12)) < 1e6


def test_weights_follow_the_filters() -> None:
    weights = bin_weights()
    filters = window_and_filters(128, 16000)[1]
    np.testing.assert_allclose(weights.sum(axis=1), 1.0, rtol=1e-12)
    assert (weights[0, 0], weights[-1, -1]) == (1.0, 1.0)
    inner = slice(8, 250)
    np.testing.assert_allclose(weights[inner], filters[inner], atol=1e-9)


@pytest.mark.parametrize(
    ("samples", "mask"),
    [((399,), (128, 1)), ((2, 800), (128, 3)), ((800,), (128, 4)), ((800,), (3,)), ((0,), (128, 0))],
)
def test_shapes_that_do_not_fit(samples: tuple[int, ...], mask: tuple[int, ...]) -> None:
    with pytest.raises(InputShapeError, match="wanted"):
        part(np.zeros(samples, dtype=np.float32), np.zeros(mask))
