from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from spectrim.errors import InvalidSetting, MissingExtra
from spectrim.miniatures.espeak import ACCENTS, SAMPLING_RATE, Espeak, Manner


@pytest.fixture(scope="module")
def engine() -> Iterator[Espeak]:
    pytest.importorskip("espeakng_loader")
    with Espeak() as engine:
        yield engine


def fundamental(samples: np.ndarray) -> float:
    """Strongest periodicity between 60 and 400 Hz in the loudest 50 ms."""
    frame = SAMPLING_RATE // 20
    starts = range(0, len(samples) - frame, frame // 2)
    loudest = max((samples[start : start + frame] for start in starts), key=lambda part: float(np.sum(part**2)))
    correlation = np.correlate(loudest, loudest, "full")[frame - 1 :] / (frame - np.arange(frame))
    low, high = SAMPLING_RATE // 400, SAMPLING_RATE // 60
    return SAMPLING_RATE / (low + int(np.argmax(correlation[low:high])))


def test_the_same_call_gives_the_same_samples_whatever_was_said_before(engine: Espeak) -> None:
    manners = [Manner("en-us", "f3"), Manner("en", "klatt2"), Manner("en-gb-scotland", "Andrea", 120, 70, 20, 5)]
    first = [engine.say("marvin", manner) for manner in manners]
    engine.say("something else altogether", Manner("en-029", "robosoft", 300))
    again = [engine.say("marvin", manner) for manner in reversed(manners)][::-1]
    with Espeak() as other:
        elsewhere = [other.say("marvin", manner) for manner in manners]
    for samples in zip(first, again, elsewhere, strict=True):
        np.testing.assert_array_equal(samples[0], samples[1])
        np.testing.assert_array_equal(samples[0], samples[2])


def test_it_is_not_disturbed_by_another_user_of_the_library(engine: Espeak) -> None:
    import espeakng_loader

    expected = engine.say("seven", Manner("en", "m3"))
    ctypes.CDLL(espeakng_loader.get_library_path())
    np.testing.assert_array_equal(engine.say("seven", Manner("en", "m3")), expected)


def test_what_comes_out_is_speech_like(engine: Espeak) -> None:
    samples = engine.say("seven", Manner("en-us", "m3"))
    assert samples.dtype == np.float32
    assert 0.2 < len(samples) / SAMPLING_RATE < 1.2
    assert 0.05 < np.abs(samples).max() < 1


def test_rate_and_pitch_do_what_they_say(engine: Espeak) -> None:
    slow, fast = (engine.say("seven", Manner("en-us", "m3", rate=rate)) for rate in (100, 200))
    assert 1.6 < len(slow) / len(fast) < 2.4
    low, high = (engine.say("wow", Manner("en-us", "m3", pitch=pitch, pitch_range=0)) for pitch in (20, 80))
    assert fundamental(low) < 0.8 * fundamental(high)


def test_every_accent_and_voice_differs(engine: Espeak) -> None:
    accents = {engine.say("forward", Manner(accent, "m3")).tobytes() for accent in ACCENTS}
    assert len(accents) == len(ACCENTS)
    voices = {
        engine.say("forward", Manner("en-us", voice)).tobytes() for voice in ("f1", "f2", "m1", "m2", "Mr serious")
    }
    assert len(voices) == 5


@pytest.mark.parametrize(("field", "manner"), [("accent", Manner("de", "m3")), ("voice", Manner("en", "nobody"))])
def test_unknown_names_are_refused(engine: Espeak, field: str, manner: Manner) -> None:
    with pytest.raises(InvalidSetting, match=f"^{field} is"):
        engine.say("seven", manner)


def test_the_copy_is_removed() -> None:
    pytest.importorskip("espeakng_loader")
    with Espeak() as engine:
        directory = Path(engine._directory.name)
        engine.say("yes", Manner("en", "m3"))
        assert directory.is_dir()
    assert not directory.exists()


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(MissingExtra, match=r"pip install 'spectrim\[synthesis\]'"):
        Espeak()
