"""ESC-50's interior and domestic sounds."""

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
    shaped,
    strewn,
    swell,
    tone,
    unit,
    wander,
)


def click(take: Random, colour: tuple[float, float], decay: float) -> Signal:
    """A click: a few milliseconds of noise in a band."""
    size = samples(max(0.004, 8 * decay))
    return noise(take, size, band(*colour)) * burst(size, 0.0003, decay)


def door_wood_knock(source: Random, take: Random, n: int) -> Signal:
    """Knuckles on a panel of wood, in groups."""
    modes = log_uniform(source, 90, 330) * np.cumprod(np.r_[1, source.uniform(1.3, 2.1, 3)])
    decays, most = source.uniform(0.012, 0.06, 4), int(source.integers(2, 7))
    gap, pause, hard = source.uniform(0.13, 0.4), source.uniform(0.5, 1.8), source.uniform(0.0, 0.5)
    struck, out, at = np.zeros(n), np.zeros(n), samples(take.uniform(0, 0.4))
    while at < n:
        for _ in range(int(take.integers(2, most + 1))):
            if at < n:
                struck[at] = take.uniform(0.6, 1)
                place(out, click(take, (800, 4000), 0.002), at, hard * struck[at])
            at += samples(gap * take.uniform(0.9, 1.1))
        at += samples(pause * take.uniform(0.6, 1.4))
    return out * 0.3 + ring(struck, modes, decays, [1.0, 0.7, 0.5, 0.3])


def mouse_click(source: Random, take: Random, n: int) -> Signal:
    """Presses and releases of a button, sparse and very short."""
    low, period = log_uniform(source, 1500, 4000), log_uniform(source, 0.35, 1.6)
    press, release = log_uniform(source, 0.0005, 0.003), source.uniform(0.06, 0.16)
    soft, body = source.uniform(0.3, 0.9), log_uniform(source, 500, 1500)
    out, struck = np.zeros(n), np.zeros(n)
    for at in regular(take, n, period, 0.5):
        for delay, level in ((0.0, 1.0), (release * take.uniform(0.85, 1.15), soft)):
            place(out, click(take, (low, min(7600, 2.5 * low)), press), at + samples(delay), level)
            struck[min(n - 1, at + samples(delay))] += 0.3 * level
    return out + ring(struck, [body, 2.3 * body], [0.003, 0.002], [1.0, 1.0])


def keyboard_typing(source: Random, take: Random, n: int) -> Signal:
    """Keys, several a second, no two alike, now and then a pause."""
    rate, low = log_uniform(source, 3.5, 12), log_uniform(source, 900, 3000)
    thump, decay, soft = log_uniform(source, 120, 450), log_uniform(source, 0.0015, 0.006), source.uniform(0.2, 0.7)
    out, struck = np.zeros(n), np.zeros(n)
    at = float(take.uniform(0, 0.2))
    while at * SAMPLING_RATE < n:
        start, level = int(at * SAMPLING_RATE), take.uniform(0.35, 1)
        own = low * take.uniform(0.75, 1.35)
        place(out, click(take, (own, min(7600, 3 * own)), decay), start, level)
        place(out, click(take, (1.2 * own, 7600), decay), start + samples(take.uniform(0.05, 0.11)), soft * level)
        struck[start] += level
        at += take.exponential(0.6 / rate) + 0.4 / rate + (take.uniform(0.3, 0.9) if take.random() < 0.06 else 0)
    return out + ring(struck, [thump, 2.1 * thump], [0.015, 0.01], [0.5, 0.3])


def door_wood_creaks(source: Random, take: Random, n: int) -> Signal:
    """A hinge that sticks and slips, slowly and faster, in a body of wood."""
    slow, fast = log_uniform(source, 15, 60), log_uniform(source, 80, 420)
    modes, decays = source.uniform((350, 800, 1500, 2600), (800, 1500, 2600, 4500)), source.uniform(0.002, 0.01, 4)
    length, pause = source.uniform(0.6, 2.5), source.uniform(0.1, 0.9)
    out, at = np.zeros(n), samples(take.uniform(0, 0.4))
    while at < n:
        size = min(n - at, samples(length * take.uniform(0.6, 1.3)))
        slide = np.clip(0.5 + 0.5 * wander(take, size, 4) + curve((-0.3, 0.3, -0.2), size), 0, 1)
        rate = slow * (fast / slow) ** slide * (1 + 0.15 * wander(take, size, 60))
        turns = np.cumsum(np.maximum(rate, 5)) / SAMPLING_RATE
        when = np.flatnonzero(np.diff(np.floor(turns), prepend=0.0))
        creak = ring(impulses(take, size, when, 0.4), modes, decays, [1.0, 0.8, 0.6, 0.4])
        place(out, creak * swell(size, 0.05, 0.15), at)
        at += size + samples(pause * take.uniform(0.5, 1.5))
    return out


def can_opening(source: Random, take: Random, n: int) -> Signal:
    """The crack of a tab, a hiss, and the lid bending."""
    low, hiss, gap = log_uniform(source, 2200, 4200), log_uniform(source, 0.06, 0.5), source.uniform(0.06, 0.35)
    modes = log_uniform(source, 700, 1800) * np.cumprod(np.r_[1, source.uniform(1.2, 1.8, 3)])
    decays, weight, fizz = source.uniform(0.003, 0.02, 4), source.uniform(0.2, 1.0), source.uniform(0, 0.15)
    out, struck = np.zeros(n), np.zeros(n)
    for at in regular(take, n, source.uniform(2.0, 5.0), 0.3, 0.7):
        size = samples(6 * hiss)
        place(out, noise(take, size, band(low, 7800)) * burst(size, 0.004, hiss), at + samples(0.01), weight)
        for delay, level in ((0.0, 1.0), (gap, 0.8), (gap + 0.04, 0.5), (gap + take.uniform(0.07, 0.15), 0.6)):
            struck[min(n - 1, at + samples(delay))] += level * take.uniform(0.7, 1.2)
            place(out, click(take, (1500, 7500), 0.003), at + samples(delay), 0.8 * level)
        size = samples(1.5)
        place(out, noise(take, size, band(4000, 7800)) * burst(size, 0.3, 0.6), at + samples(gap), fizz)
    return out + ring(struck, modes, decays, [1.0, 0.8, 0.6, 0.5])


def washing_machine(source: Random, take: Random, n: int) -> Signal:
    """A motor's hum, a drum that turns, and water in it."""
    mains, turn = log_uniform(source, 45, 130), log_uniform(source, 0.5, 2.6)
    bright, slosh, clunk = source.uniform(0.5, 0.85), source.uniform(0.2, 1.2), source.uniform(0, 0.8)
    phase = 2 * np.pi * turn * np.arange(n) / SAMPLING_RATE + take.uniform(0, 6.28)
    drum = 1 + 0.5 * np.sin(phase) + 0.2 * np.sin(2 * phase)
    motor = harmonics(mains * (1 + 0.01 * wander(take, n, 1)), n, bright) * (1 + 0.2 * np.sin(phase))
    water = noise(take, n, band(log_uniform(source, 150, 400), log_uniform(source, 1200, 4500), 1.0)) * drum**1.5
    when = regular(take, n, 1 / turn, 0.04, 1 / turn)
    bumps = ring(impulses(take, n, when), [70, 160, 420], [0.05, 0.03, 0.015], [1.0, 0.6, 0.3])
    return motor + slosh * water + 2 * clunk * bumps


def vacuum_cleaner(source: Random, take: Random, n: int) -> Signal:
    """A motor's whine in a rush of air, steady or pushed to and fro."""
    pitch, whine = log_uniform(source, 130, 650), source.uniform(0.1, 0.9)
    moved, rate = source.uniform(0, 0.25), source.uniform(0.3, 0.9)
    air = noise(take, n, band(log_uniform(source, 100, 400), log_uniform(source, 3500, 7500), source.uniform(0.4, 1.4)))
    push = 1 + moved * tone(rate, n, take.uniform(0, 6.28))
    motor = harmonics(pitch * (1 + 0.02 * (push - 1) + 0.002 * wander(take, n, 5)), n, source.uniform(0.6, 0.9))
    out = air * push + whine * motor
    if source.random() < 0.2:
        out *= swell(n, take.uniform(0.3, 1.2), 0.01)
    return out


def clock_alarm(source: Random, take: Random, n: int) -> Signal:
    """Beeps in groups, or a hammer between two bells."""
    electronic, pitch = source.random() < 0.65, log_uniform(source, 750, 3600)
    rate, group, pause = source.uniform(3, 14), int(source.integers(1, 7)), source.uniform(0.1, 0.7)
    overtone, ratio = source.uniform(0, 0.6), source.uniform(1.5, 2.9)
    if not electronic:
        when = regular(take, n, 1 / source.uniform(12, 28), 0.03, 0.05)
        modes = [pitch, pitch * 1.06, pitch * ratio, pitch * ratio * 1.4]
        return ring(impulses(take, n, when, 0.15), modes, [0.15, 0.12, 0.06, 0.04], [1.0, 0.8, 0.6, 0.4])
    time = np.arange(n) / SAMPLING_RATE + take.uniform(0, 0.3)
    within = time % (group / rate + pause)
    beep = ((within < group / rate) & ((within * rate) % 1 < 0.55)) * 1.0
    window = np.hanning(64)
    beep = np.convolve(beep, window / window.sum(), "same")
    return (tone(pitch, n) + overtone * tone(min(7500, 3 * pitch), n)) * beep


def clock_tick(source: Random, take: Random, n: int) -> Signal:
    """Tick and tock, as regular as can be."""
    period, uneven = log_uniform(source, 0.18, 1.0), source.uniform(0.3, 1.0)
    modes, decays = source.uniform((900, 2000, 3800), (2200, 4000, 6800)), source.uniform(0.001, 0.008, 3)
    shift, after = source.uniform(0.8, 1.2), source.uniform(0.01, 0.04)
    start = take.uniform(0, min(period, 0.3))
    when = np.arange(start, n / SAMPLING_RATE, period) * SAMPLING_RATE
    tick, tock = np.zeros(n), np.zeros(n)
    for number, at in enumerate(when.astype(int)):
        side, level = (tock, uneven) if number % 2 else (tick, 1.0)
        side[at] += level * take.uniform(0.9, 1.1)
        side[min(n - 1, at + samples(after))] += 0.4 * level
    gains = [1.0, 0.8, 0.5]
    return ring(tick, modes, decays, gains) + ring(tock, modes * shift, decays, gains)


def glass_breaking(source: Random, take: Random, n: int) -> Signal:
    """A blow, and splinters that ring high as they fall."""
    pitch, shards = log_uniform(source, 1400, 3200), log_uniform(source, 15, 80)
    fall, blow = source.uniform(0.15, 0.8), source.uniform(0.3, 1.5)
    ratios, decays = source.uniform(0.8, 4.2, 8), source.uniform(0.006, 0.06, 8)
    out = np.zeros(n)
    for at in regular(take, n, source.uniform(2.0, 5.0), 0.4, 0.6):
        size = n - at
        delays = take.exponential(fall, max(6, int(shards * fall * 2))) * SAMPLING_RATE
        for number, (ratio, decay) in enumerate(zip(ratios, decays, strict=True)):
            mine = delays[number::8].astype(int)
            struck = impulses(take, size, np.r_[0, mine[mine < size]], 0.8)
            place(out, ring(struck, [pitch * ratio], [decay], [1.0]), at)
        smash = noise(take, size, band(500, 7500, 0.5)) * burst(size, 0.001, 0.05)
        place(out, smash, at, blow)
    return out


def dishes(source: Random, take: Random, n: int) -> Signal:
    """Dishes, pots and pans (no class of ESC-50): thin bodies that touch and ring."""
    modes = log_uniform(source, 900, 2600) * np.cumprod(np.r_[1, source.uniform(1.2, 1.7, 4)])
    when = strewn(take, n, log_uniform(source, 2, 8))
    struck = impulses(take, n, when, 0.8)
    out = ring(struck, modes, source.uniform(0.02, 0.12, 5), [1.0, 0.9, 0.7, 0.5, 0.4])
    return unit(out) + 0.2 * unit(shaped(struck, band(1500, 7500)))
