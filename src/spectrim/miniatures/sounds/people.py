"""ESC-50's human sounds that are no speech."""

from __future__ import annotations

import numpy as np
from scipy.signal import lfilter

from spectrim.miniatures.signals import SAMPLING_RATE
from spectrim.miniatures.sounds.animals import tract
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
    peaks,
    place,
    regular,
    ring,
    samples,
    shaped,
    strewn,
    swell,
    tone,
    unit,
    voice,
    wander,
)


def crying_baby(source: Random, take: Random, n: int) -> Signal:
    """Wails, each after a gasp for air."""
    pitch, length = log_uniform(source, 280, 620), source.uniform(0.45, 1.3)
    formants = tract(source, (900, 1400), (1600, 3000), (3200, 4600))
    rough, bright, gasps = source.uniform(0.005, 0.08), source.uniform(0.85, 0.94), source.uniform(0, 0.4)
    out = np.zeros(n)
    for at in regular(take, n, length * source.uniform(1.25, 1.8), 0.15):
        size = samples(length * take.uniform(0.75, 1.2))
        contour = pitch * take.uniform(0.92, 1.08) * curve((0.8, 1.1, 1.15, 1.05, 0.8), size)
        wail = voice(take, size, contour, formants, brightness=bright, breath=0.12, roughness=rough)
        place(out, wail * swell(size, 0.06, 0.15), at, take.uniform(0.6, 1))
        gasp = samples(0.18)
        place(out, noise(take, gasp, band(1200, 4500)) * swell(gasp, 0.1, 0.06), at + size, gasps)
    return out


def sneezing(source: Random, take: Random, n: int) -> Signal:
    """A breath drawn in, then a burst of air with some voice in it."""
    inhale, length = source.uniform(0.2, 0.9), source.uniform(0.15, 0.45)
    formants, pitch = tract(source, (500, 900), (1200, 2000), (2600, 4000)), log_uniform(source, 110, 420)
    voiced, high = source.uniform(0.1, 0.9), log_uniform(source, 1000, 2500)
    quiet, loudness = source.uniform(0.0, 0.15), source.uniform(0.05, 0.4)
    out = np.zeros(n)
    for at in regular(take, n, inhale + length + source.uniform(1.0, 3.0), 0.3, 0.5):
        size = samples(inhale * take.uniform(0.8, 1.2))
        air = voice(take, size, pitch * 1.3 * curve((0.9, 1.2), size), formants, breath=2.0) * swell(size, inhale, 0.03)
        place(out, air, at, loudness)
        burst_at, size = at + size + samples(quiet), samples(length * take.uniform(0.8, 1.2))
        blow = noise(take, size, band(high, 7000, 0.5)) * burst(size, 0.004, length * 0.5)
        cry = voice(take, size, pitch * curve((1.5, 1.0, 0.6), size), formants, breath=0.5, roughness=0.08)
        place(out, blow + voiced * cry * burst(size, 0.01, length * 0.35), burst_at)
    return out


def clapping(source: Random, take: Random, n: int) -> Signal:
    """Claps of one pair of hands, or of a crowd."""
    crowd, period = source.random() < 0.45, log_uniform(source, 0.18, 0.55)
    hands = int(source.integers(8, 60)) if crowd else 1
    colour = peaks([log_uniform(source, 700, 2600), log_uniform(source, 2000, 5000)], [900, 2500], [1.0, 0.5], 0.1)
    tail, uneven = log_uniform(source, 0.004, 0.03), source.uniform(0.2, 0.6)
    when = [at for _ in range(hands) for at in regular(take, n, period * take.uniform(0.85, 1.15), 0.1, period)]
    envelope = lfilter([1.0], [1.0, -np.exp(-1 / (tail * SAMPLING_RATE))], impulses(take, n, when, uneven))
    return noise(take, n, colour) * envelope


def breathing(source: Random, take: Random, n: int) -> Signal:
    """Air in and out, the two of different colour."""
    period, share = source.uniform(1.0, 4.2), source.uniform(0.3, 0.55)
    inward = tract(source, (700, 1500), (1800, 3000), (3500, 5500))
    outward = tract(source, (400, 900), (1200, 2200), (2600, 4000))
    louder, rest = source.uniform(0.4, 1.6), source.uniform(0.05, 0.3)
    out = np.zeros(n)
    for at in regular(take, n, period, 0.12, 0.4):
        length = period * take.uniform(0.9, 1.1) * (1 - rest)
        for start, part, colour, level in ((0.0, share, inward, 1.0), (share, 1 - share, outward, louder)):
            size = samples(length * part * 0.9)
            air = noise(take, size, colour) * np.sin(np.pi * np.linspace(0, 1, size)) ** 1.3
            place(out, air * (1 + 0.1 * wander(take, size, 20)), at + samples(length * start), level)
    return out


def coughing(source: Random, take: Random, n: int) -> Signal:
    """Fits of one to four coughs: an explosion, then a rough voice."""
    pitch, length, gap = log_uniform(source, 90, 330), source.uniform(0.15, 0.38), source.uniform(0.28, 0.6)
    formants = tract(source, (450, 900), (1100, 1900), (2400, 3600))
    voiced, most = source.uniform(0.2, 1.0), int(source.integers(1, 5))
    pause = source.uniform(0.6, 1.8)
    out, at = np.zeros(n), samples(take.uniform(0.0, 0.35))
    while at < n:
        for number in range(int(take.integers(1, most + 1))):
            size = samples(length * take.uniform(0.8, 1.2))
            blow = shaped(take.standard_normal(size), formants)
            cry = voice(take, size, pitch * curve((1.3, 1.0, 0.8), size), formants, breath=0.6, roughness=0.15)
            cough = unit(blow) * burst(size, 0.004, length * 0.3) + voiced * cry * burst(size, 0.02, length * 0.5)
            place(out, cough, at, take.uniform(0.6, 1) * 0.85**number)
            at += samples(gap * take.uniform(0.85, 1.15))
        at += samples(pause * take.uniform(0.7, 1.3))
    return out


def footsteps(source: Random, take: Random, n: int) -> Signal:
    """Steps of two feet: heel and sole on a floor that thuds, clicks or crunches."""
    period, crunch = source.uniform(0.35, 0.85), source.uniform(0, 1) ** 2
    modes, decays = source.uniform((60, 150, 350), (150, 350, 1200)), source.uniform(0.008, 0.04, 3)
    click, roll = source.uniform(0, 1) ** 2, source.uniform(0.04, 0.14)
    grain = band(log_uniform(source, 500, 2500), log_uniform(source, 3500, 7500))
    out, thud = np.zeros(n), np.zeros(n)
    for number, at in enumerate(regular(take, n, period, 0.06)):
        level = take.uniform(0.7, 1) * (0.85 if number % 2 else 1.0)
        thud[at] += level
        thud[min(n - 1, at + samples(roll))] += 0.5 * level
        place(out, noise(take, 320, band(1500, 6000)) * burst(320, 0.0005, 0.003), at, click * level)
        size = samples(roll * 2)
        scuff = noise(take, size, grain) * swell(size, roll * 0.6, roll) * np.exp(wander(take, size, 120))
        place(out, scuff, at, 0.35 * crunch * level)
    return out + 2 * ring(thud, modes, decays, [1.0, 0.6, 0.4])


def laughing(source: Random, take: Random, n: int) -> Signal:
    """Ha-ha-ha: rows of short cries, each begun with a breath, that sink and slow down."""
    pitch, rate = log_uniform(source, 110, 480), source.uniform(3.6, 6.5)
    formants, breath = tract(source, (550, 1000), (1100, 1900), (2400, 3400)), source.uniform(0.1, 0.6)
    sink, most = source.uniform(0.6, 1.0), int(source.integers(4, 11))
    out, at = np.zeros(n), samples(take.uniform(0, 0.3))
    while at < n:
        count = int(take.integers(3, most + 1))
        for number in range(count):
            done = number / count
            size = samples(0.65 / rate)
            contour = pitch * (1 - (1 - sink) * done) * take.uniform(0.95, 1.1) * curve((1.05, 1.1, 0.9), size)
            cry = voice(take, size, contour, formants, breath=breath, roughness=0.02) * swell(size, 0.03, 0.07)
            air = noise(take, size // 2, formants) * swell(size // 2, 0.03, 0.03)
            place(out, air, at, 0.4 * breath)
            place(out, cry, at + size // 3, take.uniform(0.7, 1) * (1 - 0.5 * done))
            at += samples(take.uniform(0.95, 1.1) / (rate * (1 - 0.2 * done)))
        at += samples(take.uniform(0.25, 0.9))
    return out


def strokes(take: Random, n: int, rate: float, there: Signal, back: Signal, rest: float) -> Signal:
    """Two noises by turns, ``rate`` times a second there and back, each swelling and sinking."""
    phase = 2 * np.pi / SAMPLING_RATE * np.cumsum(rate * (1 + 0.08 * wander(take, n, 2))) + take.uniform(0, 6.28)
    push = np.maximum(0, np.sin(phase) - rest) ** 0.7
    pull = np.maximum(0, -np.sin(phase) - rest) ** 0.7
    return there * push + back * pull


def brushing_teeth(source: Random, take: Random, n: int) -> Signal:
    """Quick strokes of bristles, there and back, with pauses."""
    rate, low = source.uniform(2.8, 7), log_uniform(source, 900, 2800)
    shift, weight = source.uniform(1.1, 1.6), source.uniform(0.4, 1.0)
    there = noise(take, n, band(low, min(7800, 2.6 * low)))
    back = noise(take, n, band(low * shift, min(7800, 3 * low * shift)))
    work = (wander(take, n, source.uniform(0.4, 1.2)) > -1.0) * 1.0
    return strokes(take, n, rate, there, weight * back, 0.1) * work * (1 + 0.2 * wander(take, n, 3))


def snoring(source: Random, take: Random, n: int) -> Signal:
    """A rattling breath in and a softer one out."""
    rattle, period = log_uniform(source, 22, 75), source.uniform(2.0, 4.2)
    formants = tract(source, (180, 400), (600, 1200), (1800, 3200))
    share, whistle, breath = source.uniform(0.3, 0.5), source.uniform(0, 0.5), source.uniform(0.3, 1.0)
    out = np.zeros(n)
    for at in regular(take, n, period, 0.1, 0.6):
        size = samples(period * share * take.uniform(0.9, 1.1))
        contour = rattle * (1 + 0.12 * wander(take, size, 15)) * curve((0.8, 1.1, 1.0), size)
        snore = voice(take, size, np.maximum(contour, 10), formants, brightness=0.97, breath=breath, roughness=0.1)
        place(out, snore * swell(size, 0.3, 0.2), at)
        size = samples(period * 0.3)
        place(out, noise(take, size, formants) * swell(size, 0.3, 0.4), at + samples(period * 0.55), whistle)
    return out


def drinking_sipping(source: Random, take: Random, n: int) -> Signal:
    """Slurps, full of bubbles, then a gulp or two."""
    low, flutter = log_uniform(source, 500, 1800), source.uniform(12, 50)
    length, gulps = source.uniform(0.25, 1.1), source.uniform(0.2, 1.0)
    pitch, pause = log_uniform(source, 140, 480), source.uniform(0.5, 1.8)
    hiss = band(low, min(7500, low * source.uniform(2, 5)))
    out, at = np.zeros(n), samples(take.uniform(0, 0.4))
    while at < n:
        size = samples(length * take.uniform(0.7, 1.3))
        slurp = noise(take, size, hiss) * np.maximum(0.1, 0.5 + wander(take, size, flutter))
        place(out, slurp * swell(size, 0.1 * length, 0.15), at)
        at += size + samples(take.uniform(0.1, 0.3))
        for _ in range(int(take.integers(1, 3))):
            size = samples(0.12)
            gulp = tone(pitch * take.uniform(0.9, 1.1) * curve((0.7, 1.6, 1.1), size), size) * swell(size, 0.03, 0.07)
            drop = harmonics(pitch * curve((1.8, 0.9), size), size, 0.5) * burst(size, 0.004, 0.02)
            place(out, gulp + 0.4 * drop, at, gulps)
            at += samples(take.uniform(0.25, 0.45))
        at += samples(pause * take.uniform(0.6, 1.2))
    bubbles = ring(impulses(take, n, strewn(take, n, 6)), [pitch * 3, pitch * 4.3], [0.006, 0.005], [0.2, 0.15])
    return out + bubbles * 0.5
