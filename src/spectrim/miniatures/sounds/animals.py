"""ESC-50's animals. Each function draws a source's parameters from ``source`` and a take of it from ``take``."""

from __future__ import annotations

import numpy as np

from spectrim.miniatures.signals import SAMPLING_RATE
from spectrim.miniatures.sounds.parts import (
    Gain,
    Random,
    Signal,
    band,
    burst,
    curve,
    harmonics,
    log_uniform,
    noise,
    peaks,
    place,
    regular,
    samples,
    shaped,
    swell,
    tone,
    voice,
    wander,
)


def tract(source: Random, *centres: tuple[float, float]) -> Gain:
    """Formants somewhere in the given ranges, each weaker than the one below it."""
    drawn = [log_uniform(source, *limits) for limits in centres]
    widths = [centre * source.uniform(0.12, 0.35) for centre in drawn]
    gains = [source.uniform(0.5, 1.0) * 0.7**number for number in range(len(drawn))]
    return peaks(drawn, widths, gains)


def dog(source: Random, take: Random, n: int) -> Signal:
    """Barks: short rough cries whose pitch jumps up and falls."""
    pitch, length = log_uniform(source, 180, 750), source.uniform(0.08, 0.28)
    formants = tract(source, (450, 1000), (1100, 2200), (2400, 3600))
    period, breath, rough = log_uniform(source, 0.28, 1.4), source.uniform(0.2, 0.9), source.uniform(0.02, 0.12)
    out = np.zeros(n)
    for at in regular(take, n, period, 0.4):
        size = samples(length * take.uniform(0.7, 1.3))
        contour = pitch * take.uniform(0.85, 1.15) * curve((0.75, 1.2, 1.0, 0.6), size)
        bark = voice(take, size, contour, formants, breath=breath, roughness=rough)
        place(out, bark * burst(size, 0.012, length * 0.6), at, take.uniform(0.5, 1))
    return out


def rooster(source: Random, take: Random, n: int) -> Signal:
    """Cock-a-doodle-doo: three short syllables and a long one that rises and falls."""
    pitch, tempo = log_uniform(source, 380, 950), source.uniform(0.75, 1.35)
    formants = tract(source, (900, 1500), (2200, 3300), (3800, 5200))
    rough = source.uniform(0.01, 0.06)
    ratios, lengths = source.uniform(0.9, 1.35, 4), source.uniform((0.12, 0.1, 0.15, 0.6), (0.25, 0.22, 0.4, 1.3))
    out = np.zeros(n)
    for start in regular(take, n, source.uniform(2.4, 4.5), 0.2, 0.8):
        at = start
        for number, (ratio, length) in enumerate(zip(ratios, lengths * tempo, strict=True)):
            size = samples(length * take.uniform(0.9, 1.1))
            shape = (0.8, 1.1, 1.05, 0.7) if number == 3 else (0.85, 1.0, 0.95)
            contour = pitch * ratio * curve(shape, size)
            crow_part = voice(take, size, contour, formants, brightness=0.88, breath=0.15, roughness=rough)
            place(out, crow_part * swell(size, 0.03, 0.08), at)
            at += size + samples(0.03)
    return out


def pig(source: Random, take: Random, n: int) -> Signal:
    """Grunts, low and rough, from some pigs with squeals between."""
    pitch, squeals = log_uniform(source, 45, 140), source.uniform(0, 0.5)
    formants = tract(source, (250, 500), (700, 1400), (1800, 3000))
    high, period = log_uniform(source, 700, 1900), log_uniform(source, 0.25, 0.9)
    out = np.zeros(n)
    for at in regular(take, n, period, 0.5):
        if take.random() < squeals:
            size = samples(take.uniform(0.25, 0.7))
            contour = high * curve((0.8, 1.2, 1.1, 0.8), size)
            event = voice(take, size, contour, formants, brightness=0.85, breath=0.4, roughness=0.1)
        else:
            size = samples(take.uniform(0.1, 0.4))
            contour = pitch * curve((1.2, 1, 0.8), size)
            event = voice(take, size, contour, formants, brightness=0.95, breath=0.7, roughness=0.25)
        place(out, event * swell(size, 0.04, 0.08), at, take.uniform(0.4, 1))
    return out


def cow(source: Random, take: Random, n: int) -> Signal:
    """Moos: long and low, from a closed mouth to an open one."""
    pitch, length = log_uniform(source, 70, 240), source.uniform(0.8, 2.4)
    mouth = tract(source, (220, 350), (600, 900), (2000, 2600)), tract(source, (500, 800), (1000, 1500), (2200, 3000))
    breath, bright = source.uniform(0.03, 0.2), source.uniform(0.88, 0.96)
    out = np.zeros(n)
    for at in regular(take, n, length * source.uniform(1.3, 2.2), 0.3):
        size = samples(length * take.uniform(0.8, 1.2))
        contour = pitch * take.uniform(0.93, 1.07) * curve((0.8, 1.0, 1.1, 1.05, 0.75), size)
        moo = voice(take, size, contour, mouth, brightness=bright, breath=breath, roughness=0.01)
        place(out, moo * swell(size, 0.15, 0.3), at, take.uniform(0.6, 1))
    return out


def frog(source: Random, take: Random, n: int) -> Signal:
    """Croaks: a tone in pulses, again and again."""
    carrier, pulse = log_uniform(source, 350, 2600), log_uniform(source, 18, 70)
    length, period = log_uniform(source, 0.08, 0.7), log_uniform(source, 1.3, 3.0)
    overtone, glide = source.uniform(0.1, 0.8), source.uniform(0.85, 1.3)
    out = np.zeros(n)
    for at in regular(take, n, length * period + 0.1, 0.25):
        size = samples(length * take.uniform(0.8, 1.2))
        pitch = carrier * take.uniform(0.95, 1.05) * curve((1.0, glide), size)
        beat = np.maximum(0, tone(pulse, size)) ** 2
        croak = (tone(pitch, size) + overtone * tone(2 * pitch, size)) * beat * swell(size, 0.03, 0.05)
        place(out, croak, at, take.uniform(0.5, 1))
    return out


def cat(source: Random, take: Random, n: int) -> Signal:
    """Meows: the pitch rises and falls while the mouth opens and closes."""
    pitch, length = log_uniform(source, 320, 950), source.uniform(0.35, 1.2)
    mouth = (
        tract(source, (400, 700), (1800, 2600), (3200, 4200)),
        tract(source, (900, 1300), (1200, 1900), (3000, 4000)),
    )
    breath, vibrato = source.uniform(0.03, 0.25), source.uniform(0, 0.03)
    out = np.zeros(n)
    for at in regular(take, n, length * source.uniform(1.4, 3.0), 0.3):
        size = samples(length * take.uniform(0.75, 1.25))
        shake = 1 + vibrato * tone(take.uniform(5, 9), size)
        contour = pitch * take.uniform(0.9, 1.1) * curve((0.75, 1.05, 1.15, 1.0, 0.8), size) * shake
        meow = voice(take, size, contour, mouth, brightness=0.85, breath=breath, roughness=0.01)
        place(out, meow * swell(size, 0.08, 0.25), at, take.uniform(0.5, 1))
    return out


def hen(source: Random, take: Random, n: int) -> Signal:
    """Clucks: a few a second, now and then a long one."""
    pitch, period = log_uniform(source, 350, 1000), log_uniform(source, 0.16, 0.5)
    formants = tract(source, (800, 1300), (1800, 2800), (3300, 4500))
    breath, long_share = source.uniform(0.3, 0.9), source.uniform(0.05, 0.25)
    out = np.zeros(n)
    for at in regular(take, n, period, 0.45):
        is_long = take.random() < long_share
        size = samples(take.uniform(0.3, 0.6) if is_long else take.uniform(0.04, 0.12))
        contour = pitch * take.uniform(0.85, 1.15) * curve((0.8, 1.4, 1.2) if is_long else (1.2, 0.8), size)
        cluck = voice(take, size, contour, formants, brightness=0.82, breath=breath, roughness=0.04)
        place(out, cluck * burst(size, 0.01, 0.6 * size / SAMPLING_RATE), at, take.uniform(0.4, 1))
    return out


def insects(source: Random, take: Random, n: int) -> Signal:
    """A buzz that comes and goes: a fly, a bee or a gnat."""
    pitch, bright = log_uniform(source, 110, 650), source.uniform(0.75, 0.95)
    depth, nearness, shimmer = source.uniform(0.01, 0.08), source.uniform(0.3, 1.2), source.uniform(4, 15)
    body = band(log_uniform(source, 80, 300), log_uniform(source, 2500, 7000), source.uniform(0, 1.5))
    contour = pitch * (1 + depth * wander(take, n, 2.5) + 0.01 * wander(take, n, shimmer))
    buzz = harmonics(np.maximum(contour, 40), n, bright) + 0.15 * take.standard_normal(n)
    return shaped(buzz, body) * np.exp(nearness * wander(take, n, 1.2))


def sheep(source: Random, take: Random, n: int) -> Signal:
    """Bleats: a cry that trembles in level and pitch."""
    pitch, length, tremor = log_uniform(source, 180, 520), source.uniform(0.5, 1.5), source.uniform(5.5, 10)
    formants, depth = tract(source, (550, 900), (1300, 2000), (2500, 3500)), source.uniform(0.3, 0.8)
    breath = source.uniform(0.1, 0.4)
    out = np.zeros(n)
    for at in regular(take, n, length * source.uniform(1.4, 2.6), 0.3):
        size = samples(length * take.uniform(0.8, 1.2))
        shake = tone(tremor * take.uniform(0.95, 1.05), size)
        contour = pitch * take.uniform(0.93, 1.07) * curve((0.9, 1.05, 1.0, 0.9), size) * (1 + 0.04 * shake)
        bleat = voice(take, size, contour, formants, breath=breath, roughness=0.03)
        place(out, bleat * (1 + depth * shake) * swell(size, 0.06, 0.15), at, take.uniform(0.5, 1))
    return out


def crow(source: Random, take: Random, n: int) -> Signal:
    """Caws: harsh cries, a few in a row."""
    pitch, length = log_uniform(source, 280, 720), source.uniform(0.18, 0.5)
    formants = tract(source, (1000, 1500), (1700, 2400), (3000, 4200))
    rough, breath, gap = source.uniform(0.1, 0.3), source.uniform(0.3, 0.8), source.uniform(1.4, 2.6)
    out = np.zeros(n)
    for at in regular(take, n, length * gap, 0.25):
        size = samples(length * take.uniform(0.8, 1.2))
        contour = pitch * curve((0.9, 1.1, 1.0, 0.8), size)
        caw = voice(take, size, contour, formants, brightness=0.93, breath=breath, roughness=rough)
        place(out, caw * swell(size, 0.03, 0.1), at, 0.0 if take.random() < 0.15 and at > 0.3 * n else 1.0)
    return out


def crickets(source: Random, take: Random, n: int) -> Signal:
    """Pulses of a high tone in chirps, or without end, over a night."""
    carrier, pulse = log_uniform(source, 2300, 6500), log_uniform(source, 18, 65)
    chirp, share = log_uniform(source, 0.25, 1.2), source.uniform(0.3, 0.75)
    trill, others = source.random() < 0.4, source.uniform(0.02, 0.3)
    night = band(carrier * 0.6, min(7500, carrier * 1.5))
    time = np.arange(n) / SAMPLING_RATE + take.uniform(0, chirp)
    envelope = np.maximum(0, np.sin(2 * np.pi * pulse * time)) ** 1.5
    if not trill:
        envelope *= (time % chirp) < share * chirp
    pitch = carrier * (1 + 0.003 * wander(take, n, 8))
    return tone(pitch, n) * envelope * (1 + 0.2 * wander(take, n, 2)) + others * noise(take, n, night)


def chirping_birds(source: Random, take: Random, n: int) -> Signal:
    """One to three birds, each with its motif of gliding whistles."""
    out = np.zeros(n)
    for _ in range(int(source.integers(1, 4))):
        centre, notes = log_uniform(source, 2000, 6000), int(source.integers(1, 7))
        glides, lengths = source.uniform(0.7, 1.4, (notes, 3)), source.uniform(0.03, 0.18, notes)
        warble, depth, loud = source.uniform(15, 45), source.uniform(0, 0.1), source.uniform(0.3, 1)
        for start in regular(take, n, log_uniform(source, 0.6, 2.2), 0.4, 0.6):
            at = start
            for glide, length in zip(glides, lengths, strict=True):
                size = samples(length)
                pitch = np.minimum(centre * curve(glide, size) * (1 + depth * tone(warble, size)), 7600)
                place(out, tone(pitch, size) * swell(size, 0.01, 0.02), at, loud * take.uniform(0.7, 1))
                at += size + samples(0.02 + 0.2 * length)
    return out
