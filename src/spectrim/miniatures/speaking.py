"""Sentences of drawn words, spoken by eSpeak NG: the speech in the miniatures of VoxCeleb-1 and AudioSet."""

from __future__ import annotations

import numpy as np
import soxr
from numpy.typing import NDArray

from spectrim.errors import DataError
from spectrim.miniatures import espeak
from spectrim.miniatures.signals import SAMPLING_RATE

_WORDS = """
about after again air all along animal answer around ask away back because been before began better between bird
black blue boat body book both boy bring brought build call came carry change children city close cold come could
country course cut dark day deep different door down draw during each early earth eat enough even every example eye
face fall family far farm father feel field find fire first fish follow food found four friend from front game
garden gave girl give good great green ground group grow half hand happen hard head hear heard help here high hold
home horse hour house hundred idea inside island keep kind king knew know land large last later laugh learn leave
left letter life light line list listen little live long look machine made make many mark measure might mile minute
money moon morning most mother mountain move music name near never next night nothing notice number often open order
other over page paper part people perhaps picture place plain plan plant play point power press problem pull
question quick rain reach read ready real remember rest right river road rock room round rule same school sea second
seem sentence seven shape ship short should side simple since sing six size sleep slow small snow some song soon
sound south space speak special spell stand star start state stay step still stop story street strong study summer
sun sure table take talk teach tell ten there thing think thought thousand three through time together took town
travel tree true turn under unit until usual very voice wait walk want warm watch water week weight west wheel where
which while white whole why wind winter without wonder wood word work world would write year yellow yes young
"""
LEXICON = tuple(_WORDS.split())
"""Common English words; a sentence is a row of them without sense."""


def sentence(random: np.random.Generator, words: int) -> str:
    """A row of drawn words with commas here and there and a mark at the end."""
    drawn = [str(word) for word in random.choice(LEXICON, words)]
    parts = [word + ("," if random.random() < 0.12 else "") for word in drawn[:-1]]
    return " ".join([*parts, drawn[-1]]) + str(random.choice((".", ".", ".", "?", "!")))


def speak_sentence(
    engine: espeak.Espeak,
    random: np.random.Generator,
    text: str,
    voice: str,
    *,
    accent: str,
    rate: float,
    pitch: float,
    tract: float = 1.0,
) -> NDArray[np.float64]:
    """Speak a text at 16 kHz, without the silence around it.

    Args:
        engine: what speaks.
        random: where the intonation and the noise in the voice are drawn from.
        text: what to say.
        voice: the voice variant.
        accent: one of `espeak.ACCENTS`.
        rate: words a minute.
        pitch: 0 to 99; cut to 5 to 95.
        tract: factor on all frequencies, as of a shorter vocal tract; the speech is shorter by it too.

    Raises:
        DataError: the voice gives silence.
    """
    intonation, noise_seed = int(random.integers(30, 80)), int(random.integers(1, 2**31))
    manner = espeak.Manner(accent, voice, round(rate), int(np.clip(pitch, 5, 95)), intonation, noise_seed)
    samples = soxr.resample(engine.say(text, manner), espeak.SAMPLING_RATE * tract, SAMPLING_RATE)
    speech = without_silence(samples.astype(np.float64))
    if len(speech) == 0:
        raise DataError(f"voice {voice!r} gives silence for {text!r}")
    return speech


def without_silence(samples: NDArray[np.float64], decibels: float = -45.0) -> NDArray[np.float64]:
    """Cut what lies more than ``decibels`` below the loudest 5 ms at both ends; 10 ms of it stay, faded."""
    frame = 80
    frames = len(samples) // frame
    if frames == 0 or not samples.any():
        return samples[:0]
    level = np.sqrt(np.mean(samples[: frames * frame].reshape(frames, frame) ** 2, axis=1))
    loud = np.flatnonzero(level > level.max() * 10 ** (decibels / 20))
    start, stop = max(0, loud[0] - 2) * frame, min(frames, loud[-1] + 3) * frame
    speech = samples[start:stop].copy()
    ramp = np.linspace(0, 1, min(frame, len(speech) // 2))
    speech[: len(ramp)] *= ramp
    speech[len(speech) - len(ramp) :] *= ramp[::-1]
    return speech
