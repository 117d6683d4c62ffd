from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import signal

from spectrim.miniatures.sounds import CATEGORIES, SOUNDS, Sound, home, music
from spectrim.miniatures.sounds.parts import (
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
from spectrim.miniatures.sounds.recording import fitted, recorded, to_pcm

RATE = 16000
_LINES = """
dog rooster pig cow frog cat hen insects sheep crow rain sea_waves crackling_fire crickets chirping_birds
water_drops wind pouring_water toilet_flush thunderstorm crying_baby sneezing clapping breathing coughing footsteps
laughing brushing_teeth snoring drinking_sipping door_wood_knock mouse_click keyboard_typing door_wood_creaks
can_opening washing_machine vacuum_cleaner clock_alarm clock_tick glass_breaking helicopter chainsaw siren car_horn
engine train church_bells airplane fireworks hand_saw
"""
NAMES = _LINES.split()
"""ESC-50's categories in the order of its targets."""

ESC10 = {
    *("dog", "rooster", "rain", "sea_waves", "crackling_fire", "crying_baby", "sneezing", "clock_tick", "helicopter"),
    "chainsaw",
}
FURTHER = (home.dishes, music.piano, music.guitar, music.organ, music.drums, music.sine_wave)
ALL: dict[str, Sound] = {**SOUNDS, **{function.__name__: function for function in FURTHER}}


def generator(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def sounding(name: str, source: int, take: int, n: int = 5 * RATE) -> np.ndarray:
    return ALL[name](generator(1, source), generator(2, take), n)


def log_spectrum(wave: np.ndarray) -> np.ndarray:
    """Level in 24 bands of equal width on a logarithmic axis, in nepers around their mean."""
    frequency, power = signal.welch(wave, RATE, nperseg=1024)
    edges = np.geomspace(60, 8000, 25)
    bands = [power[(frequency >= low) & (frequency <= high)].mean() for low, high in pairwise(edges)]
    level = np.log(np.array(bands) + 1e-9 * power.max())
    return level - level.mean()


def test_categories_are_those_of_esc50() -> None:
    assert [category.name for category in CATEGORIES] == NAMES
    assert {category.name for category in CATEGORIES if category.esc10} == ESC10


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("seconds", [0.6, 5.0])
def test_each_sound_sounds_whatever_its_source_and_length(name: str, seconds: float) -> None:
    for source in range(3):
        wave = sounding(name, source, source, samples(seconds))
        assert wave.shape == (samples(seconds),)
        assert np.isfinite(wave).all()
        assert np.abs(wave).max() > 0


@pytest.mark.parametrize("name", ALL)
def test_a_take_is_its_seeds_and_nothing_else(name: str) -> None:
    first = sounding(name, 0, 0)
    np.testing.assert_array_equal(sounding(name, 0, 0), first)
    assert not np.array_equal(sounding(name, 0, 1), first)
    assert not np.array_equal(sounding(name, 1, 0), first)


def test_takes_of_a_source_are_more_alike_than_sources_of_a_class() -> None:
    closer = 0
    for name in NAMES[::3]:
        takes = [[sounding(name, source, 10 * source + take, RATE) for take in (0, 1)] for source in range(4)]
        spectra = np.array([[log_spectrum(wave) for wave in both] for both in takes])
        within = np.mean((spectra[:, 0] - spectra[:, 1]) ** 2)
        between = np.mean([(spectra[i, 0] - spectra[j, 1]) ** 2 for i in range(4) for j in range(4) if i != j])
        closer += within < between
    assert closer >= 16


def test_classes_can_be_told_apart_but_not_by_their_spectrum_alone() -> None:
    waves = [[sounding(name, source, source, RATE) for source in range(4)] for name in NAMES]
    spectra = np.array([[log_spectrum(wave) for wave in sources] for sources in waves])
    centres = spectra[:, :3].mean(1)
    nearest = ((spectra[:, None, 3] - centres[None]) ** 2).mean(-1).argmin(1)
    assert 0.1 < np.mean(nearest == np.arange(50)) < 0.8


def test_a_clock_ticks_evenly() -> None:
    for source in range(8):
        wave = sounding("clock_tick", source, 0)
        level = np.convolve(np.abs(wave), np.ones(160), "same")[::160]
        peaks_at, _ = signal.find_peaks(level, height=0.15 * level.max(), distance=12)
        gaps = np.diff(peaks_at) / 100
        assert gaps.std() < 0.12 * gaps.mean() + 0.01


def test_a_siren_keeps_within_its_range() -> None:
    for source in range(6):
        frequency, _, transform = signal.stft(sounding("siren", source, 0), RATE, nperseg=1024)
        heard = np.abs(transform)[frequency < 2600]
        pitch = frequency[heard.argmax(0)]
        assert pitch.min() > 350
        assert pitch.max() / pitch.min() > 1.15


@given(st.floats(20, 2000), st.floats(0.05, 0.9), st.floats(0, 6))
def test_harmonics_are_the_sum_in_its_plain_form(pitch: float, brightness: float, phase: float) -> None:
    n = 50
    angle = 2 * np.pi * pitch / RATE * np.arange(1, n + 1) + phase
    numbers = np.arange(1, 400)[:, None]
    plain = np.sum(brightness**numbers * np.cos(numbers * angle), axis=0)
    scale = np.sqrt(np.sum(brightness ** (2.0 * numbers)) / 2)
    np.testing.assert_allclose(harmonics(pitch, n, brightness, phase), plain / scale, atol=1e-6)


def test_a_pitch_may_change_from_sample_to_sample() -> None:
    chirp = signal.chirp(np.arange(1, 8001) / RATE, 200, 0.5, 1000)
    ours = tone(np.linspace(200, 1000, 8000), 8000, np.pi / 2)
    assert np.corrcoef(chirp, ours)[0, 1] > 0.999
    np.testing.assert_allclose(harmonics(np.full(50, 321.0), 50, 0.5), harmonics(321.0, 50, 0.5))


@given(st.floats(50, 6000), st.floats(0.002, 0.2), st.floats(0.1, 2))
def test_a_struck_body_rings_and_dies_away(frequency: float, decay: float, gain: float) -> None:
    struck = np.zeros(1000)
    struck[10] = 1
    time = np.arange(1, 991) / RATE
    plain = gain * np.exp(-(time * RATE - 1) / (decay * RATE)) * np.sin(2 * np.pi * frequency * time)
    np.testing.assert_allclose(ring(struck, [frequency], [decay], [gain])[10:], plain, atol=1e-6)


def test_modes_add_up_and_what_would_alias_is_left_out() -> None:
    struck = impulses(generator(0), 500, [3, 100])
    both = ring(struck, [300, 900], [0.01, 0.02], [1, 0.5])
    apart = ring(struck, [300], [0.01], [1]) + ring(struck, [900], [0.02], [0.5])
    np.testing.assert_allclose(both, apart)
    assert not ring(struck, [7900], [0.01], [1]).any()


def test_a_band_has_the_skirts_of_scipys_butterworth_filters() -> None:
    frequency = np.geomspace(20, 8000, 50)
    low = np.abs(signal.freqs(*signal.butter(3, 400, "high", analog=True), frequency)[1])
    high = np.abs(signal.freqs(*signal.butter(3, 2000, "low", analog=True), frequency)[1])
    np.testing.assert_allclose(band(400, 2000)(frequency), low * high, rtol=1e-6)
    np.testing.assert_allclose(band(1, 1e9, slope=1.0)(frequency), frequency**-0.5, rtol=1e-4)


def test_peaks_are_at_half_power_half_a_width_away() -> None:
    gain = peaks([1000.0, 3000.0], [200.0, 400.0], [1.0, 0.5], floor=0.0)
    alone = peaks([1000.0], [200.0], [1.0], floor=0.0)
    assert alone(np.array([1000.0, 1100.0, 900.0])) == pytest.approx([1, np.sqrt(0.5), np.sqrt(0.5)])
    assert gain(np.array([3000.0]))[0] == pytest.approx(0.5 + alone(np.array([3000.0]))[0])


@given(st.integers(70, 5000), st.floats(100, 800), st.floats(1500, 6000))
def test_noise_has_an_rms_of_one(n: int, low: float, high: float) -> None:
    wave = noise(generator(n), n, band(low, high))
    assert wave.shape == (n,)
    assert np.sqrt(np.mean(wave**2)) == pytest.approx(1)


def test_noise_has_the_spectrum_asked_for() -> None:
    frequency, power = signal.welch(noise(generator(3), 40 * RATE, band(500, 2000, 1.0)), RATE, nperseg=1024)
    inside = (frequency > 700) & (frequency < 1400)
    slope = np.polyfit(np.log(frequency[inside]), np.log(power[inside] / band(500, 2000)(frequency[inside]) ** 2), 1)[0]
    assert slope == pytest.approx(-1, abs=0.1)
    assert power[frequency < 200].max() < 0.02 * power.max()


def test_filtering_multiplies_the_spectrum() -> None:
    wave = tone(1000, 16000)
    halved = shaped(wave, lambda frequency: np.where(frequency < 2000, 0.5, 0.0))
    np.testing.assert_allclose(halved, 0.5 * wave, atol=1e-9)
    assert np.abs(shaped(wave, band(2000, 7000, order=8))).max() < 0.01


def test_envelopes() -> None:
    envelope = swell(1000, 0.01, 0.02)
    assert (envelope[0], envelope[500], envelope[-1]) == (0, 1, 0)
    assert envelope[80] == pytest.approx(0.5)
    assert envelope[1000 - 160 - 1] == pytest.approx(0.5, abs=0.01)
    hit = burst(16000, 0.001, 0.1)
    assert hit[8000] / hit[1600] == pytest.approx(np.exp(-4))
    assert hit[0] == hit[-1] == 0


def test_curves_go_through_their_points() -> None:
    np.testing.assert_allclose(curve((1, 3, 2), 5), [1, 2, 3, 2.5, 2])


@given(st.integers(-1000, 3000))
def test_events_are_cut_where_they_stick_out(at: int) -> None:
    at = max(0, at)
    out, event = np.ones(1000), np.arange(300.0)
    place(out, event, at, 2.0)
    expected = np.ones(4000)
    expected[at : at + 300] += 2 * event
    np.testing.assert_array_equal(out, expected[:1000])


@given(st.integers(50, 50000), st.floats(0.01, 2), st.floats(0, 0.5), st.integers(0, 99))
def test_regular_events_are_a_period_apart(n: int, period: float, jitter: float, seed: int) -> None:
    when = regular(generator(seed), n, period, jitter)
    assert when[0] <= min(period, 0.3) * RATE
    assert all(0 <= at < n for at in when)
    gaps = np.diff(when) / (period * RATE)
    slack = 1.01 / (period * RATE)
    assert all((1 - jitter - slack <= gaps) & (gaps <= 1 + jitter + slack))
    assert n - when[-1] <= (1 + jitter) * period * RATE + 1 or when == [0]


def test_strewn_events_come_at_their_rate() -> None:
    counts = [len(strewn(generator(seed), RATE, 20)) for seed in range(300)]
    assert np.mean(counts) == pytest.approx(20, rel=0.05)
    assert np.var(counts) == pytest.approx(20, rel=0.3)
    assert len(strewn(generator(0), 10, 0.001)) == 1


def test_impulses_at_one_place_add_up() -> None:
    out = impulses(generator(0), 100, [5, 5, 9], spread=0.0)
    assert np.flatnonzero(out).tolist() == [5, 9]
    assert out[5] == 2


def test_a_walk_turns_at_its_rate() -> None:
    walk = wander(generator(1), 10 * RATE, 5)
    turns = np.sum(np.abs(np.diff(walk, 2)) > 1e-12)
    assert 40 <= turns <= 110
    assert walk.std() == pytest.approx(1, abs=0.4)


def test_numbers_are_drawn_evenly_over_octaves() -> None:
    random = generator(5)
    drawn = [log_uniform(random, 100, 1600) for _ in range(4000)]
    assert min(drawn) >= 100
    assert max(drawn) <= 1600
    assert np.mean(np.array(drawn) < 400) == pytest.approx(0.5, abs=0.03)


def test_a_voice_shows_pitch_and_formants() -> None:
    formants = peaks([1200.0], [200.0], [1.0], floor=0.01)
    wave = voice(generator(0), RATE, 200, formants, breath=0.0)
    frequency, power = signal.welch(wave, RATE, nperseg=4096)
    assert frequency[power.argmax()] == pytest.approx(1200, abs=5)
    found, _ = signal.find_peaks(10 * np.log10(power), prominence=12)
    np.testing.assert_allclose(frequency[found][:6], 200 * np.arange(1, 7), atol=8)
    moved = voice(generator(0), RATE, 200, (formants, peaks([2400.0], [200.0], [1.0], floor=0.01)), breath=0.0)
    late, early = (signal.welch(part, RATE, nperseg=2048)[1].argmax() for part in (moved[12000:], moved[:4000]))
    assert (late * RATE / 2048, early * RATE / 2048) == pytest.approx((2400, 1200), abs=10)


def test_a_recording_has_room_and_noise_of_its_source() -> None:
    dry = np.zeros(RATE)
    dry[4000:4400] = 1
    made = recorded(generator(1), generator(2), dry)
    assert made.shape == dry.shape
    np.testing.assert_array_equal(made, recorded(generator(1), generator(2), dry))
    floors = [unit(recorded(generator(1, i), generator(2), dry))[:3000].std() for i in range(40)]
    decibels = 20 * np.log10(floors)
    assert -46 < decibels.min() < -30
    assert -20 < decibels.max() < -8


def test_a_recording_is_filled_up() -> None:
    wave = np.arange(1.0, 4.0)
    np.testing.assert_array_equal(fitted(wave, 5, looped=False), [1, 2, 3, 0, 0])
    np.testing.assert_array_equal(fitted(wave, 5, looped=True), [1, 2, 3, 1, 2])
    np.testing.assert_array_equal(fitted(wave, 2, looped=True), [1, 2])


def test_samples_are_scaled_to_their_peak() -> None:
    assert to_pcm(np.array([0.0, -4.0, 2.0]), 0.0).tolist() == [0, -32767, 16384]
    assert np.abs(to_pcm(np.array([0.0, 3.0]), -20.0)).max() == 3277
    assert to_pcm(np.zeros(3), 0.0).tolist() == [0, 0, 0]
