"""What the sounds are built from: shaped noise, harmonic sources, resonances, events in time.

All signals are (n,) float64 at 16 kHz; frequencies are in hertz, times in seconds unless "samples" is said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft
from scipy.signal import lfilter

from spectrim.miniatures.signals import SAMPLING_RATE

Signal: TypeAlias = NDArray[np.float64]
Numbers: TypeAlias = Sequence[float] | NDArray[np.floating]
Random: TypeAlias = np.random.Generator
Gain: TypeAlias = Callable[[Signal], Signal]
"""Frequencies → gains."""


def log_uniform(random: Random, low: float, high: float) -> float:
    """A number between two others, uniform in its logarithm."""
    return float(np.exp(random.uniform(np.log(low), np.log(high))))


def samples(seconds: float) -> int:
    """A length in samples, at least one."""
    return max(1, round(seconds * SAMPLING_RATE))


def band(low: float, high: float, slope: float = 0.0, order: int = 3) -> Gain:
    """A pass band with Butterworth's skirts; its power falls as 1/f**slope inside."""

    def gain(frequency: Signal) -> Signal:
        safe = np.maximum(frequency, 1.0)
        below, above = (low / safe) ** (2 * order), (safe / high) ** (2 * order)
        return safe ** (-slope / 2) / np.sqrt((1 + below) * (1 + above))

    return gain


def peaks(centres: Numbers, widths: Numbers, gains: Numbers, floor: float = 0.03) -> Gain:
    """Resonances side by side over a floor, as formants are; ``widths`` at half power."""

    def gain(frequency: Signal) -> Signal:
        total = np.full_like(frequency, floor)
        for centre, width, height in zip(centres, widths, gains, strict=True):
            total += height / np.sqrt(1 + ((frequency - centre) / (width / 2)) ** 2)
        return total

    return gain


def shaped(signal: Signal, gain: Gain) -> Signal:
    """Filter without phase shift, in the frequency domain."""
    size = fft.next_fast_len(len(signal), real=True)
    frequency = fft.rfftfreq(size, 1 / SAMPLING_RATE)
    return fft.irfft(fft.rfft(signal, size) * gain(frequency), size)[: len(signal)]


def noise(random: Random, n: int, gain: Gain) -> Signal:
    """Gaussian noise with a given spectrum and an rms of 1, drawn in the frequency domain."""
    size = fft.next_fast_len(max(n, 64), real=True)
    drawn = random.standard_normal((2, size // 2 + 1))
    spectrum = (drawn[0] + 1j * drawn[1]) * gain(fft.rfftfreq(size, 1 / SAMPLING_RATE))
    spectrum[0] = 0
    return unit(fft.irfft(spectrum, size)[:n])


def unit(signal: Signal) -> Signal:
    """The same signal with an rms of 1; silence stays silence."""
    rms = np.sqrt(np.mean(signal**2))
    return signal / rms if rms > 0 else signal


def harmonics(frequency: ArrayLike, n: int, brightness: float, phase: float = 0.0) -> Signal:
    """All harmonics of a fundamental, the k-th with amplitude brightness**k, with an rms of 1.

    Their sum in closed form (discrete summation, Moorer 1976).

    Args:
        frequency: of the fundamental, one number or one for each of the ``n`` samples.
        n: samples.
        brightness: in (0, 1).
        phase: of the fundamental at the start, in radians.
    """
    angle = 2 * np.pi / SAMPLING_RATE * np.cumsum(np.broadcast_to(np.asarray(frequency, np.float64), n)) + phase
    cosine = np.cos(angle)
    wave = (brightness * cosine - brightness**2) / (1 - 2 * brightness * cosine + brightness**2)
    return wave * np.sqrt(2 * (1 - brightness**2)) / brightness


def tone(frequency: ArrayLike, n: int, phase: float = 0.0) -> Signal:
    """A sine whose frequency is one number or one for each sample."""
    return np.sin(2 * np.pi / SAMPLING_RATE * np.cumsum(np.broadcast_to(np.asarray(frequency, float), n)) + phase)


def curve(points: Numbers, n: int) -> Signal:
    """Straight lines through points that are evenly spaced over ``n`` samples."""
    return np.interp(np.linspace(0, len(points) - 1, n), np.arange(len(points)), points)


def wander(random: Random, n: int, rate: float) -> Signal:
    """A random walk around 0 with a spread of about 1 that turns ``rate`` times a second."""
    return curve(random.standard_normal(max(2, round(n / SAMPLING_RATE * rate) + 1)), n)


def swell(n: int, attack: float, release: float) -> Signal:
    """An envelope: up within ``attack`` seconds, at 1, down within the last ``release`` seconds (half cosines)."""
    envelope = np.ones(n)
    up, down = min(n, samples(attack)), min(n, samples(release))
    envelope[:up] *= 0.5 - 0.5 * np.cos(np.pi * np.arange(up) / up)
    envelope[n - down :] *= (0.5 - 0.5 * np.cos(np.pi * np.arange(down) / down))[::-1]
    return envelope


def burst(n: int, attack: float, decay: float) -> Signal:
    """An envelope: up within ``attack`` seconds, then down by a factor e every ``decay`` seconds; 0 at the end."""
    up = min(n, samples(attack))
    envelope = np.exp(-np.arange(n) / samples(decay))
    envelope[:up] *= np.arange(up) / up
    return envelope * swell(n, 0.0, 0.2 * n / SAMPLING_RATE)


def ring(excitation: Signal, frequencies: Numbers, decays: Numbers, gains: Numbers) -> Signal:
    """What a body does when struck: resonators side by side.

    Args:
        excitation: what strikes it, e.g. a few impulses.
        frequencies: of its modes.
        decays: seconds in which each falls by a factor e.
        gains: of each: its amplitude after an impulse of 1.
    """
    total = np.zeros(len(excitation))
    for frequency, decay, gain in zip(frequencies, decays, gains, strict=True):
        if frequency < 0.48 * SAMPLING_RATE:
            radius, angle = np.exp(-1 / (decay * SAMPLING_RATE)), 2 * np.pi * frequency / SAMPLING_RATE
            total += lfilter([gain * np.sin(angle)], [1, -2 * radius * np.cos(angle), radius**2], excitation)
    return total


def place(out: Signal, event: Signal, at: int, gain: float = 1.0) -> None:
    """Add an event to ``out``, in place, from sample ``at`` on; what sticks out is cut."""
    stop = min(len(out), at + len(event))
    if stop > at:
        out[at:stop] += gain * event[: stop - at]


def strewn(random: Random, n: int, rate: float) -> NDArray[np.int64]:
    """When things happen by chance, ``rate`` times a second on average: samples, at least one."""
    return np.sort(random.integers(0, n, max(1, random.poisson(rate * n / SAMPLING_RATE))))


def regular(random: Random, n: int, period: float, jitter: float, latest_start: float = 0.3) -> list[int]:
    """When things happen every ``period`` seconds, each gap off by up to a share ``jitter``: samples."""
    at, when = random.uniform(0, min(period, latest_start)), []
    while at * SAMPLING_RATE < n:
        when.append(int(at * SAMPLING_RATE))
        at += period * (1 + random.uniform(-jitter, jitter))
    return when or [0]


def impulses(random: Random, n: int, when: Sequence[int] | NDArray[np.int64], spread: float = 0.3) -> Signal:
    """Impulses at given samples with amplitudes of median 1, log-normal with standard deviation ``spread``."""
    out = np.zeros(n)
    np.add.at(out, np.asarray(when, dtype=np.int64), np.exp(spread * random.standard_normal(len(when))))
    return out


def voice(
    random: Random,
    n: int,
    pitch: ArrayLike,
    formants: Gain | tuple[Gain, Gain],
    *,
    brightness: float = 0.9,
    breath: float = 0.1,
    roughness: float = 0.0,
) -> Signal:
    """A throat: a harmonic source with breath through formants, with an rms of 1.

    Args:
        random: where breath and roughness are drawn from.
        n: samples.
        pitch: in hertz, one number or one for each sample.
        formants: the vocal tract, or two that the sound passes from and to.
        brightness: of the harmonics, in (0, 1).
        breath: rms of the noise beside the harmonics, which have 1.
        roughness: share by which the pitch jumps about, some 90 times a second.
    """
    shaken = np.asarray(pitch, float) * (1 + roughness * wander(random, n, 90)) if roughness else pitch
    source = harmonics(shaken, n, brightness)
    if breath:
        source = source + breath * random.standard_normal(n)
    if not isinstance(formants, tuple):
        return unit(shaped(source, formants))
    opening = np.linspace(0, 1, n)
    return unit((1 - opening) * shaped(source, formants[0]) + opening * shaped(source, formants[1]))
