"""Simple music and tones, for AudioSet's labels that ESC-50 does not have."""

from __future__ import annotations

import numpy as np

from spectrim.miniatures.signals import SAMPLING_RATE
from spectrim.miniatures.sounds.parts import (
    Random,
    Signal,
    band,
    burst,
    harmonics,
    impulses,
    log_uniform,
    noise,
    place,
    ring,
    samples,
    swell,
    tone,
    wander,
)

SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10), (0, 2, 4, 7, 9), (0, 3, 5, 7, 10))
"""Major, natural minor, and the two pentatonic scales, in semitones."""


def _melody(source: Random, take: Random, n: int, lowest: tuple[float, float]) -> list[tuple[int, float, float]]:
    """Notes of a random walk over a scale: (start in samples, pitch in hertz, seconds)."""
    base, scale = log_uniform(source, *lowest), SCALES[int(source.integers(len(SCALES)))]
    beat, restless = log_uniform(source, 0.16, 0.6), source.uniform(1, 3)
    notes, at, step = [], samples(take.uniform(0, 0.3)), int(take.integers(0, 10))
    while at < n:
        length = beat * float(take.choice((0.5, 1.0, 1.0, 2.0)))
        step = int(np.clip(step + round(take.normal(0, restless)), 0, 2 * len(scale) - 1))
        pitch = base * 2 ** ((scale[step % len(scale)] + 12 * (step // len(scale))) / 12)
        if take.random() > 0.1:
            notes.append((at, pitch, length))
        at += samples(length)
    return notes


def _struck_strings(
    source: Random, take: Random, n: int, lowest: tuple[float, float], decay: float, falling: float, chord: float
) -> Signal:
    """Notes that ring down: harmonics, the higher ones weaker and shorter."""
    numbers = np.arange(1, 8)
    gains, decays = numbers**-falling * source.uniform(0.6, 1.0, 7), decay / numbers**0.7
    stretch = numbers * np.sqrt(1 + 0.0004 * source.uniform(0, 2) * numbers**2)
    out = np.zeros(n)
    for at, pitch, length in _melody(source, take, n, lowest):
        size = samples(min(3 * decay, length + 1.0))
        for ratio in (1.0, 1.5) if take.random() < chord else (1.0,):
            struck = impulses(take, size, [0], 0.2)
            place(out, ring(struck, pitch * ratio * stretch, decays, gains) * swell(size, 0.002, 0.05), at)
    return out


def piano(source: Random, take: Random, n: int) -> Signal:
    """A melody with fifths on struck strings."""
    return _struck_strings(source, take, n, (110, 440), source.uniform(0.4, 1.0), source.uniform(0.9, 1.6), 0.5)


def guitar(source: Random, take: Random, n: int) -> Signal:
    """A melody on plucked strings: brighter and lower, each pluck with a scratch."""
    strings = _struck_strings(source, take, n, (80, 200), source.uniform(0.2, 0.5), source.uniform(0.3, 0.8), 0.2)
    return strings + 0.003 * noise(take, n, band(1500, 6000)) * (1 + wander(take, n, 10))


def organ(source: Random, take: Random, n: int) -> Signal:
    """Held chords of pipes."""
    bright, tremolo = source.uniform(0.3, 0.8), source.uniform(0, 0.2)
    third = float(source.choice((1.189, 1.26)))
    out = np.zeros(n)
    for at, pitch, length in _melody(source, take, n, (100, 300))[::3]:
        size = samples(3.2 * length)
        chord = sum(harmonics(pitch * ratio, size, bright, take.uniform(0, 6.28)) for ratio in (0.5, 1.0, third, 1.5))
        place(out, chord * (1 + tremolo * tone(6, size)) * swell(size, 0.04, 0.08), at)
    return out


def drums(source: Random, take: Random, n: int) -> Signal:
    """A pattern of bass drum, snare and hi-hat."""
    step, low = log_uniform(source, 0.1, 0.22), log_uniform(source, 45, 90)
    pattern = source.random((3, 8)) < np.array([[0.35], [0.25], [0.7]])
    pattern[0, 0] = pattern[1, 4] = True
    skin, sizzle = log_uniform(source, 150, 280), log_uniform(source, 4000, 6500)
    size = samples(0.35)
    kick = tone(low * (1 + 2.5 * np.exp(-np.arange(size) / 500)), size) * burst(size, 0.002, 0.1)
    shell = tone(skin, size) * burst(size, 0.001, 0.05)
    out = np.zeros(n)
    for number, at in enumerate(range(samples(take.uniform(0, step)), n, samples(step))):
        hit = pattern[:, number % 8] & (take.random(3) > 0.06)
        level = take.uniform(0.8, 1.0)
        if hit[0]:
            place(out, kick, at, 1.5 * level)
        if hit[1]:
            rattle = noise(take, size, band(800, 6500)) * burst(size, 0.001, 0.06)
            place(out, shell + 0.5 * rattle, at, level)
        if hit[2]:
            place(out, noise(take, 1200, band(sizzle, 7900)) * burst(1200, 0.0005, 0.015), at, 0.4 * level)
    return out


def sine_wave(source: Random, take: Random, n: int) -> Signal:
    """A steady tone, or one that is switched on and off."""
    pitch, beat = log_uniform(source, 150, 5000), log_uniform(source, 0.2, 1.5)
    wave = tone(pitch, n, take.uniform(0, 6.28))
    if source.random() < 0.4:
        return wave * swell(n, 0.02, 0.02)
    on = ((np.arange(n) / SAMPLING_RATE + take.uniform(0, beat)) % beat) < 0.6 * beat
    return wave * np.convolve(on * 1.0, np.full(64, 1 / 64), "same")
