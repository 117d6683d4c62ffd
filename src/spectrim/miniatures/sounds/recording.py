"""How a sound is recorded: a room, a microphone, something else in the background, a level."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from spectrim.miniatures.signals import SAMPLING_RATE
from spectrim.miniatures.sounds.parts import Random, Signal, band, log_uniform, noise, unit


def recorded(source: Random, take: Random, dry: Signal) -> Signal:
    """Put a sound into a room, before a microphone, over some noise.

    Args:
        source: where room, microphone, and colour and level of the noise are drawn from.
        take: where the noise itself is drawn from.
        dry: the sound (n,).

    Returns:
        Samples (n,) of any level.
    """
    reverberation, wet = log_uniform(source, 0.03, 0.35), source.uniform(0, 1) ** 2
    low, high, tilt = log_uniform(source, 20, 180), log_uniform(source, 3500, 8000), source.uniform(-0.5, 0.8)
    distance, slope = source.uniform(10, 45), source.uniform(0.5, 2.5)
    tail = source.standard_normal(int(4 * reverberation * SAMPLING_RATE))
    tail *= np.exp(-np.arange(len(tail)) / (reverberation * SAMPLING_RATE))
    impulse = wet * 0.7 * tail / np.sqrt(np.sum(tail**2))
    impulse[0] += 1.0
    size = fft.next_fast_len(len(dry) + len(impulse) - 1, real=True)
    microphone = band(low, high, tilt)(fft.rfftfreq(size, 1 / SAMPLING_RATE))
    wave = fft.irfft(fft.rfft(dry, size) * fft.rfft(impulse, size) * microphone, size)[: len(dry)]
    background = noise(take, len(dry), band(40, high, slope))
    return unit(wave) + background * 10 ** (-distance / 20)


def fitted(signal: Signal, n: int, looped: bool) -> Signal:
    """Bring a recording to ``n`` samples: from its start again, or with digital silence after it."""
    if len(signal) >= n:
        return signal[:n]
    return np.resize(signal, n) if looped else np.pad(signal, (0, n - len(signal)))


def to_pcm(signal: Signal, peak_decibels: float) -> NDArray[np.int16]:
    """Scale to a peak in decibels of full scale and round to 16 bits."""
    peak = np.abs(signal).max()
    scale = 10 ** (peak_decibels / 20) / peak if peak > 0 else 0.0
    return np.round(signal * scale * 32767).astype(np.int16)
