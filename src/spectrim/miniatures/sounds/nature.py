"""ESC-50's natural soundscapes and water, but for its crickets and birds (see `spectrim.miniatures.sounds.animals`)."""

from __future__ import annotations

import numpy as np

from spectrim.miniatures.signals import SAMPLING_RATE
from spectrim.miniatures.sounds.parts import (
    Random,
    Signal,
    band,
    burst,
    curve,
    harmonics,
    impulses,
    log_uniform,
    noise,
    place,
    regular,
    ring,
    samples,
    strewn,
    swell,
    tone,
    unit,
    wander,
)


def rain(source: Random, take: Random, n: int) -> Signal:
    """A hiss with drops on something that rings a little."""
    slope, low = source.uniform(0.0, 1.2), log_uniform(source, 150, 1200)
    drops, weight = log_uniform(source, 15, 250), source.uniform(0.1, 1.2)
    pitches, decays = source.uniform(700, 6000, 4), source.uniform(0.001, 0.006, 4)
    hiss = noise(take, n, band(low, source.uniform(5500, 7900), slope)) * (1 + 0.06 * wander(take, n, 2))
    patter = ring(impulses(take, n, strewn(take, n, drops), 0.8), pitches, decays, [1.0] * 4)
    return hiss + weight * unit(patter)


def sea_waves(source: Random, take: Random, n: int) -> Signal:
    """Surf: noise that swells within seconds and gets brighter as it breaks."""
    period, sharp = source.uniform(2.5, 8), source.uniform(1.0, 3.5)
    low = noise(take, n, band(60, log_uniform(source, 500, 1300), 1.0))
    high = noise(take, n, band(log_uniform(source, 600, 1500), 6500, source.uniform(0.3, 1.2)))
    time = np.arange(n) / SAMPLING_RATE + take.uniform(0, period)
    phase = (time / period + 0.08 * wander(take, n, 0.5)) % 1
    wave = np.where(phase < 0.35, phase / 0.35, (1 - phase) / 0.65) ** sharp
    return low * (0.25 + wave) + source.uniform(0.4, 1.2) * high * (0.08 + wave**1.5)


def crackling_fire(source: Random, take: Random, n: int) -> Signal:
    """Cracks of all sizes over a soft roar."""
    rate, spread = log_uniform(source, 6, 45), source.uniform(0.8, 1.5)
    pitches, decays = source.uniform(900, 6500, 5), source.uniform(0.0006, 0.004, 5)
    roar = noise(take, n, band(40, log_uniform(source, 200, 900), source.uniform(0.5, 2))) * source.uniform(0.02, 0.3)
    out = np.zeros(n)
    for pitch, decay in zip(pitches, decays, strict=True):
        out += ring(impulses(take, n, strewn(take, n, rate / 5), spread), [pitch], [decay], [1.0])
    return out / 3 + roar * (1 + 0.3 * wander(take, n, 4))


def bubble(take: Random, pitch: float, decay: float, rise: float) -> Signal:
    """The sound of a drop: a sine whose pitch rises while it dies away (a bubble, after Minnaert)."""
    size = samples(5 * decay)
    return tone(pitch * curve((1.0, rise), size), size, take.uniform(0, 6.28)) * burst(size, 0.001, decay)


def water_drops(source: Random, take: Random, n: int) -> Signal:
    """Drops that fall into water or a basin."""
    pitch, decay = log_uniform(source, 450, 2800), log_uniform(source, 0.008, 0.06)
    rise, period, jitter = source.uniform(1.0, 1.6), log_uniform(source, 0.18, 1.3), source.uniform(0.02, 0.5)
    echo, splash = source.uniform(0, 0.5), source.uniform(0, 0.5)
    out = np.zeros(n)
    for at in regular(take, n, period, jitter):
        own = pitch * take.uniform(0.8, 1.25)
        for number in range(int(take.integers(1, 4))):
            drop = bubble(take, own * (1 + 0.3 * number), decay, rise)
            place(out, drop, at + samples(0.03 * number), take.uniform(0.4, 1) * 0.6**number)
            place(out, drop, at + samples(0.11 + 0.03 * number), echo * 0.3)
        place(out, take.standard_normal(160) * burst(160, 0.0005, 0.002), at, 0.3 * splash)
    return out


def wind(source: Random, take: Random, n: int) -> Signal:
    """Gusts, low and rumbling, from some a howl between."""
    gusts, depth, howls = source.uniform(0.3, 1.5), source.uniform(0.4, 0.9), source.uniform(0, 0.8)
    rumble = noise(take, n, band(20, log_uniform(source, 120, 500), source.uniform(1, 2.2)))
    middle, pitch = noise(take, n, band(150, log_uniform(source, 700, 2500), 1.2)), log_uniform(source, 300, 900)
    gust = np.exp(depth * wander(take, n, gusts))
    slide = pitch * np.exp(0.25 * wander(take, n, 1.0))
    howl = tone(slide * (1 + 0.02 * wander(take, n, 60)), n) * np.maximum(0, wander(take, n, 1.0))
    return rumble * gust + source.uniform(0.1, 0.6) * middle * gust**1.6 + 0.3 * howls * howl * gust


def pouring_water(source: Random, take: Random, n: int) -> Signal:
    """A stream of bubbles into a vessel whose pitch rises as it fills."""
    rate, pitch = log_uniform(source, 60, 300), log_uniform(source, 450, 1400)
    hiss, fills = source.uniform(0.1, 0.7), source.uniform(0.9, 1.8)
    ratios, decays = source.uniform(0.7, 2.6, 7), source.uniform(0.004, 0.02, 7)
    out = np.zeros(n)
    for ratio, decay in zip(ratios, decays, strict=True):
        struck = impulses(take, n, strewn(take, n, rate / 7), 0.7)
        out += ring(struck, [pitch * ratio], [decay], [1.0])
    vessel = tone(pitch * 0.6 * curve((1.0, fills), n) * (1 + 0.05 * wander(take, n, 40)), n) * wander(take, n, 25)
    stream = noise(take, n, band(600, log_uniform(source, 2500, 7000), 0.8)) * (1 + 0.2 * wander(take, n, 8))
    return unit(out) + hiss * stream + source.uniform(0.1, 0.5) * vessel


def toilet_flush(source: Random, take: Random, n: int) -> Signal:
    """A click, a rush of water that swells and drains with a gurgle, and the hiss of the filling tank."""
    rush, drain = source.uniform(0.3, 1.0), source.uniform(1.2, 3.2)
    time = np.arange(n) / SAMPLING_RATE - take.uniform(0.0, 0.5)
    level = np.where(time < 0, 0, np.minimum(time / rush, 1) * np.exp(-np.maximum(time - rush, 0) / drain))
    water = noise(
        take, n, band(log_uniform(source, 100, 350), log_uniform(source, 1500, 5000), source.uniform(0.5, 1.5))
    )
    gurgle = harmonics(source.uniform(60, 140) * (1 + 0.2 * wander(take, n, 12)), n, 0.8)
    gurgle *= np.maximum(0, tone(source.uniform(4, 9), n) + 0.5 * wander(take, n, 6)) * (level < 0.75) * (time > rush)
    tank = noise(take, n, band(2500, 6500)) * np.minimum(np.maximum(time, 0) / 2, 1) * source.uniform(0.05, 0.25)
    out = water * level * (1 + 0.15 * wander(take, n, 10)) + 0.3 * source.uniform(0.2, 1.2) * gurgle * level + tank
    lever = ring(impulses(take, n, [int(max(0, -time[0]) * SAMPLING_RATE) % n]), [420, 1600], [0.02, 0.006], [1.0, 1.0])
    return out + source.uniform(0, 1.0) * lever


def thunder(source: Random, take: Random, n: int) -> Signal:
    """A crack and a rumble that rolls away."""
    depth = band(20, log_uniform(source, 90, 450), source.uniform(0.5, 2))
    onset, decay = source.uniform(0.005, 0.3), source.uniform(0.7, 2.2)
    near, snap = source.uniform(0, 0.9), source.uniform(0.05, 0.4)
    out = np.zeros(n)
    for at in regular(take, n, source.uniform(2.5, 6), 0.4, 0.7):
        size = n - at
        roll = noise(take, size, depth) * np.exp(0.7 * wander(take, size, 5)) * burst(size, onset, decay)
        crack = noise(take, size, band(200, 5000, 1.0)) * burst(size, 0.003, snap)
        place(out, roll + near * crack * np.exp(wander(take, size, 30)), at)
    return out


def thunderstorm(source: Random, take: Random, n: int) -> Signal:
    """Thunder over rain, near or far."""
    wet = source.uniform(0.01, 0.25)
    hiss = noise(take, n, band(log_uniform(source, 200, 1000), 7000, source.uniform(0.2, 1.2)))
    return thunder(source, take, n) + wet * hiss * swell(n, 0.01, 0.01)
