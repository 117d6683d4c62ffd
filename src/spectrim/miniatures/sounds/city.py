"""ESC-50's exterior and urban sounds."""

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
    wander,
)
from spectrim.miniatures.sounds.people import strokes


def helicopter(source: Random, take: Random, n: int) -> Signal:
    """Blades that chop the air, with a turbine behind them, nearer and farther."""
    chop, sharp = log_uniform(source, 9, 28), source.uniform(2, 8)
    whine, pitch = source.uniform(0, 0.3), log_uniform(source, 500, 2500)
    thump = noise(take, n, band(40, log_uniform(source, 250, 1800), source.uniform(0.5, 1.5)))
    hiss = noise(take, n, band(300, 5000, 1.0)) * source.uniform(0.1, 0.5)
    phase = 2 * np.pi / SAMPLING_RATE * np.cumsum(chop * (1 + 0.01 * wander(take, n, 1)))
    blades = (0.5 + 0.5 * np.cos(phase)) ** sharp
    near = curve(source.uniform(0.4, 1.0, 3), n)
    return (thump * (0.1 + blades) + hiss * (0.4 + 0.6 * blades) + whine * harmonics(pitch, n, 0.4)) * near


def motor(take: Random, n: int, firing: Signal, bright: float, rough: float, cylinders: int) -> Signal:
    """An engine: harmonics of the firing rate, no two strokes quite alike."""
    shaken = firing * (1 + rough * wander(take, n, 50))
    return harmonics(shaken, n, bright) + 0.6 * harmonics(shaken / cylinders, n, min(0.97, bright + 0.05))


def chainsaw(source: Random, take: Random, n: int) -> Signal:
    """A small engine that revs up and bites."""
    idle, full = log_uniform(source, 45, 90), log_uniform(source, 110, 240)
    revs, bright, rasp = source.uniform(0.3, 1.2), source.uniform(0.88, 0.96), source.uniform(0.2, 1.0)
    body = band(80, log_uniform(source, 3000, 7500), source.uniform(0, 1.0))
    load = np.clip(0.6 + 0.8 * wander(take, n, revs), 0, 1)
    engine = motor(take, n, idle * (full / idle) ** load, bright, 0.03, 2)
    teeth = noise(take, n, band(1500, 7000)) * load * rasp
    return shaped(engine * (0.4 + load) + teeth * (1 + 0.5 * wander(take, n, 40)), body)


def siren(source: Random, take: Random, n: int) -> Signal:
    """A wail that rises and falls, slow or quick, or two tones by turns."""
    low, span, period = log_uniform(source, 380, 900), source.uniform(1.25, 2.6), log_uniform(source, 0.25, 6.0)
    two_tones, bright, passing = source.random() < 0.25, source.uniform(0.3, 0.8), source.uniform(0.97, 1.03)
    turn = (np.arange(n) / SAMPLING_RATE / period + take.uniform(0, 1)) % 1
    place_in = (turn < 0.5) * 1.0 if two_tones else 0.5 - 0.5 * np.cos(2 * np.pi * turn)
    pitch = low * span**place_in * curve((1.0, passing), n)
    near = curve(source.uniform(0.3, 1.0, 3), n)
    return harmonics(pitch, n, bright) * near + 0.05 * noise(take, n, band(50, 1500, 1.0))


def car_horn(source: Random, take: Random, n: int) -> Signal:
    """Two tones a third apart, pressed once or often."""
    pitch, interval, bright = log_uniform(source, 240, 560), source.uniform(1.15, 1.35), source.uniform(0.75, 0.95)
    body = peaks([log_uniform(source, 600, 1200), log_uniform(source, 1800, 3000)], [500, 900], [1.0, 0.7], 0.15)
    length, pause = log_uniform(source, 0.15, 2.2), log_uniform(source, 0.1, 1.2)
    out, at = np.zeros(n), samples(take.uniform(0, 0.5))
    while at < n:
        size = samples(length * take.uniform(0.6, 1.4))
        horn = harmonics(pitch, size, bright) + harmonics(pitch * interval, size, bright, take.uniform(0, 6.28))
        place(out, shaped(horn, body) * swell(size, 0.015, 0.04), at)
        at += size + samples(pause * take.uniform(0.5, 1.5))
    return out


def engine(source: Random, take: Random, n: int) -> Signal:
    """An engine that idles or is driven, low."""
    firing, bright = log_uniform(source, 18, 85), source.uniform(0.82, 0.95)
    rev, cylinders, rough = source.uniform(0, 0.35), int(source.integers(2, 5)), source.uniform(0.01, 0.06)
    body = peaks(source.uniform((70, 250), (200, 900)), [120, 400], [1.0, 0.6], 0.08)
    rattle = source.uniform(0.05, 0.5)
    turning = firing * np.exp(rev * wander(take, n, 0.7))
    low = unit(shaped(motor(take, n, turning, bright, rough, cylinders), body))
    beat = 1 + 0.5 * tone(turning, n)
    return low + rattle * noise(take, n, band(300, log_uniform(source, 1500, 5000), 1.0)) * beat


def train(source: Random, take: Random, n: int) -> Signal:
    """Rumble, wheels over joints in pairs, from some a whistle."""
    period, pair = source.uniform(0.4, 1.3), source.uniform(0.08, 0.2)
    rumble = noise(take, n, band(35, log_uniform(source, 250, 1200), source.uniform(0.8, 1.8)))
    squeal, whistle = source.uniform(0, 0.2), source.random() < 0.35
    chord, at = log_uniform(source, 240, 480) * np.array([1, 1.19, 1.5, 1.78]), take.uniform(0.1, 0.9)
    joints = [start + delay for start in regular(take, n, period, 0.05, period) for delay in (0, samples(pair))]
    struck = impulses(take, n, [when for when in joints if when < n], 0.2)
    modes = source.uniform((110, 400, 1300), (260, 1000, 3000))
    clack = ring(struck, modes, [0.04, 0.02, 0.008], [1.0, 0.7, 0.5])
    wheels = noise(take, n, peaks([log_uniform(source, 2000, 5000)], [150], [1.0], 0.0)) * (1 + wander(take, n, 2))
    out = rumble * (1 + 0.2 * wander(take, n, 2)) + source.uniform(0.3, 2.0) * clack + squeal * wheels
    if whistle:
        size = samples(source.uniform(0.7, 2.0))
        blast = sum(harmonics(pitch * (1 + 0.003 * wander(take, size, 6)), size, 0.6) for pitch in chord)
        place(out, blast * swell(size, 0.12, 0.25), int(at * 0.5 * n), source.uniform(0.2, 0.7))
    return out


def church_bells(source: Random, take: Random, n: int) -> Signal:
    """One to four bells with their hum, prime, tierce, quint and nominal."""
    bells, strike = int(source.integers(1, 5)), source.uniform(0.35, 1.8)
    partials = np.array([0.5, 1.0, 1.19, 1.5, 2.0, 2.5, 3.0, 4.1])
    lowest, long = log_uniform(source, 150, 620), log_uniform(source, 0.5, 2.2)
    out = np.zeros(n)
    for number in range(bells):
        pitch = lowest * float(source.choice([1.0, 1.122, 1.26, 1.335, 1.5]))
        gains = source.uniform(0.3, 1.0, 8) * np.array([0.6, 1, 0.8, 0.5, 1, 0.5, 0.4, 0.3])
        decays = long * np.array([1.6, 1.0, 0.8, 0.6, 0.5, 0.35, 0.25, 0.15])
        struck = impulses(take, n, regular(take, n, strike * bells, 0.1, strike * (number + 1)), 0.2)
        out += ring(struck, pitch * partials * source.uniform(0.995, 1.005, 8), decays, gains)
    return out


def airplane(source: Random, take: Random, n: int) -> Signal:
    """A jet or a propeller that passes: broad noise that swells, its tones sinking."""
    jet, speed = source.random() < 0.6, source.uniform(0.6, 0.98)
    low = noise(take, n, band(40, log_uniform(source, 300, 900), source.uniform(0.5, 1.5)))
    high = noise(take, n, band(500, log_uniform(source, 2000, 6000), 1.2))
    start = log_uniform(source, 900, 3200) if jet else log_uniform(source, 70, 190)
    pitch = start * curve((1.0, 1.0, speed, speed), n)
    tones = harmonics(pitch * (1 + 0.003 * wander(take, n, 6)), n, 0.25 if jet else 0.85) * source.uniform(0.05, 0.8)
    peak = source.uniform(-0.2, 1.2)
    near = 1 / (1 + ((np.linspace(0, 1, n) - peak) / source.uniform(0.2, 1.0)) ** 2)
    rumble = 1 + 0.2 * wander(take, n, 6)
    return (low * rumble + source.uniform(0.1, 0.9) * high * near + tones * (0.2 if jet else 1.0)) * near


def fireworks(source: Random, take: Random, n: int) -> Signal:
    """Bangs, near or far, some after a whistle, some with a crackle after them."""
    period, deep = log_uniform(source, 0.35, 1.8), log_uniform(source, 60, 350)
    decay, whistles, crackles = log_uniform(source, 0.05, 0.4), source.uniform(0, 0.6), source.uniform(0, 0.9)
    rise = log_uniform(source, 900, 2500)
    out = np.zeros(n)
    for at in regular(take, n, period, 0.6):
        level, size = take.uniform(0.3, 1), samples(7 * decay)
        bang = noise(take, size, band(30, deep * take.uniform(4, 10), 1.2)) * burst(size, 0.002, decay)
        place(out, bang, at, level)
        if take.random() < whistles:
            length = samples(take.uniform(0.3, 0.9))
            climb = tone(rise * curve((1.0, 1.6, 1.9), length), length) * swell(length, 0.15, 0.05)
            place(out, climb, max(0, at - length), 0.25 * level)
        if take.random() < crackles:
            length = samples(take.uniform(0.4, 1.2))
            struck = impulses(take, length, strewn(take, length, 60), 0.8)
            place(out, ring(struck, [2100, 4300], [0.002, 0.001], [1.0, 1.0]), at + samples(0.25), 0.4 * level)
    return out


def hand_saw(source: Random, take: Random, n: int) -> Signal:
    """Strokes of teeth through wood, there and back."""
    rate, teeth = source.uniform(0.9, 3.0), log_uniform(source, 60, 260)
    modes, back = source.uniform((400, 1200, 2600), (1000, 2400, 5000)), source.uniform(0.3, 0.9)
    grain = peaks(modes, (modes * 0.4), [1.0, 0.8, 0.6], 0.1)
    rasp = 1 + 0.8 * tone(teeth * (1 + 0.2 * wander(take, n, 6)), n)
    there = noise(take, n, grain) * rasp
    pull = noise(take, n, grain) * (0.5 + 0.5 * rasp)
    return strokes(take, n, rate, there, back * pull, source.uniform(0.0, 0.2))
