"""Seeded noise and other signals from which the miniatures are mixed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from spectrim.errors import InvalidSetting

SAMPLING_RATE = 16000
"""Of everything here, in hertz."""

NOISE_KINDS = ("white", "pink", "brown", "coloured", "band", "hum")


def coloured_noise(random: np.random.Generator, samples: int, kind: str) -> NDArray[np.float64]:
    """Gaussian noise with a given spectrum, or a hum, with an rms of 1.

    Args:
        random: where it is drawn from.
        samples: length.
        kind: ``"white"``; ``"pink"`` and ``"brown"`` (power falls as 1/f and 1/f²); ``"coloured"`` (a slope
            between); ``"band"`` (coloured, between two drawn frequencies); ``"hum"`` (a fundamental of 45-400 Hz
            with harmonics, over a little pink noise).

    Returns:
        Samples (samples,) at 16 kHz.
    """
    exponents = {"white": 0.0, "pink": 1.0, "brown": 2.0, "hum": 1.0}
    if kind not in NOISE_KINDS:
        raise InvalidSetting("kind", kind, "one of " + ", ".join(NOISE_KINDS))
    exponent = exponents[kind] if kind in exponents else random.uniform(0, 2)
    frequency = np.fft.rfftfreq(samples, 1 / SAMPLING_RATE)
    gain = np.maximum(frequency, 20.0) ** (-exponent / 2)
    gain[frequency < 20] = 0
    if kind == "band":
        low = np.exp(random.uniform(np.log(50), np.log(3000)))
        high = low * 2 ** random.uniform(0.5, 5)
        gain *= 1 / np.sqrt((1 + (low / np.maximum(frequency, 1)) ** 6) * (1 + (frequency / high) ** 6))
    noise = np.fft.irfft(np.fft.rfft(random.standard_normal(samples)) * gain, samples)
    noise /= np.sqrt(np.mean(noise**2))
    if kind == "hum":
        hum = _hum(random, samples)
        noise = hum + noise * 10 ** (random.uniform(-30, -10) / 20)
        noise /= np.sqrt(np.mean(noise**2))
    return noise


def _hum(random: np.random.Generator, samples: int) -> NDArray[np.float64]:
    """A fundamental and its harmonics with an rms of 1, made in the frequency domain."""
    fundamental = float(np.exp(random.uniform(np.log(45), np.log(400))))
    numbers = np.arange(1, int(min(30, 7000 // fundamental)) + 1)
    gains = numbers ** -random.uniform(0.5, 2.0)
    phases = random.uniform(0, 2 * np.pi, len(numbers))
    spectrum = np.zeros(samples // 2 + 1, dtype=np.complex128)
    bins = np.round(numbers * fundamental * samples / SAMPLING_RATE).astype(np.int64)
    spectrum[bins] = gains * np.exp(1j * phases)
    hum = np.fft.irfft(spectrum, samples)
    return hum / np.sqrt(np.mean(hum**2))
