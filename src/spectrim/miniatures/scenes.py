"""Events of the AudioSet miniature, each with the labels of AudioSet that apply to its sound."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from spectrim.assets import audioset_classes
from spectrim.miniatures import espeak
from spectrim.miniatures.signals import SAMPLING_RATE
from spectrim.miniatures.sounds import SOUNDS, Sound, home, music
from spectrim.miniatures.sounds.parts import Random, Signal, log_uniform, place, samples, swell, unit
from spectrim.miniatures.sounds.recording import recorded
from spectrim.miniatures.speaking import sentence, speak_sentence
from spectrim.miniatures.spoken_commands import VOICES

SCENE_SECONDS = 10

_FEMALE = "Andrea Annie anika anikaRobot aunty belinda f1 f2 f3 f4 f5 grandma linda steph"

FEMALE = tuple(_FEMALE.split())
"""The voices of `VOICES` that eSpeak NG itself calls female; it takes all others for male."""


@dataclass(frozen=True)
class Event:
    """Something that can be heard.

    Args:
        labels: its display names in AudioSet, the general ones first, as its annotators were shown them.
        sound: what makes it; None for speech.
        lasting: whether it fills the scene, rather than some seconds of it.
    """

    labels: tuple[str, ...]
    sound: Sound | None = None
    lasting: bool = False


_ANIMAL, _PET = "Animal", "Domestic animals, pets"
_FARM = "Livestock, farm animals, working animals"
_INSTRUMENT = ("Music", "Musical instrument")
_AIRCRAFT = ("Vehicle", "Aircraft")

EVENTS: tuple[Event, ...] = (
    Event(("Speech", "Male speech, man speaking")),
    Event((*_INSTRUMENT, "Piano"), music.piano, lasting=True),
    Event(("Speech", "Female speech, woman speaking")),
    Event((*_INSTRUMENT, "Drum"), music.drums, lasting=True),
    Event(("Vehicle", "Engine"), SOUNDS["engine"], lasting=True),
    Event((*_INSTRUMENT, "Guitar"), music.guitar, lasting=True),
    Event((_ANIMAL, _PET, "Dog", "Bark"), SOUNDS["dog"]),
    Event((_ANIMAL, "Bird", "Bird vocalization, bird call, bird song", "Chirp, tweet"), SOUNDS["chirping_birds"]),
    Event(("Wind",), SOUNDS["wind"], lasting=True),
    Event(("Water", "Rain"), SOUNDS["rain"], lasting=True),
    Event(("Vehicle", "Vehicle horn, car horn, honking"), SOUNDS["car_horn"]),
    Event((_ANIMAL, _PET, "Cat", "Meow"), SOUNDS["cat"]),
    Event(("Laughter",), SOUNDS["laughing"]),
    Event(("Vehicle", "Train"), SOUNDS["train"], lasting=True),
    Event(("Siren",), SOUNDS["siren"]),
    Event(("Baby cry, infant cry",), SOUNDS["crying_baby"]),
    Event((*_INSTRUMENT, "Organ"), music.organ, lasting=True),
    Event((*_AIRCRAFT, "Helicopter"), SOUNDS["helicopter"], lasting=True),
    Event(("Walk, footsteps",), SOUNDS["footsteps"]),
    Event((_ANIMAL, "Insect", "Buzz"), SOUNDS["insects"], lasting=True),
    Event(("Water", "Waves, surf"), SOUNDS["sea_waves"], lasting=True),
    Event(("Bell", "Church bell"), SOUNDS["church_bells"]),
    Event((_ANIMAL, _FARM, "Crowing, cock-a-doodle-doo"), SOUNDS["rooster"]),
    Event(("Clapping",), SOUNDS["clapping"]),
    Event((*_AIRCRAFT, "Fixed-wing aircraft, airplane"), SOUNDS["airplane"], lasting=True),
    Event(("Cough",), SOUNDS["coughing"]),
    Event(("Clock", "Tick"), SOUNDS["clock_tick"], lasting=True),
    Event((_ANIMAL, _FARM, "Cattle, bovinae"), SOUNDS["cow"]),
    Event(("Alarm", "Alarm clock"), SOUNDS["clock_alarm"]),
    Event(("Thunder", "Thunderstorm"), SOUNDS["thunderstorm"], lasting=True),
    Event(("Fire", "Crackle"), SOUNDS["crackling_fire"], lasting=True),
    Event((_ANIMAL, _FARM, "Sheep"), SOUNDS["sheep"]),
    Event(("Typing", "Computer keyboard"), SOUNDS["keyboard_typing"]),
    Event(("Knock",), SOUNDS["door_wood_knock"]),
    Event((_ANIMAL, "Insect", "Cricket"), SOUNDS["crickets"], lasting=True),
    Event(("Vacuum cleaner",), SOUNDS["vacuum_cleaner"], lasting=True),
    Event((_ANIMAL, "Frog"), SOUNDS["frog"]),
    Event(("Snoring",), SOUNDS["snoring"]),
    Event(("Fireworks",), SOUNDS["fireworks"]),
    Event(("Chainsaw",), SOUNDS["chainsaw"]),
    Event(("Glass", "Shatter"), SOUNDS["glass_breaking"]),
    Event(("Dishes, pots, and pans",), home.dishes),
    Event(("Sine wave",), music.sine_wave),
    Event((_ANIMAL, "Crow"), SOUNDS["crow"]),
)
"""From the most frequent to the rarest."""

WEIGHTS = np.arange(3, 3 + len(EVENTS)) ** -1.2 / np.sum(np.arange(3, 3 + len(EVENTS)) ** -1.2)
"""How often each event is drawn: a long tail, the first some 25 times as often as the last."""


@cache
def scene_labels() -> dict[str, str]:
    """Mid → display name of the labels that `EVENTS` use, in AudioSet's order."""
    used = {label for event in EVENTS for label in event.labels}
    return {mid: name for mid, name in audioset_classes().items() if name in used}


def draw_events(random: Random, index: int) -> list[Event]:
    """The events of a scene: one to four, no two alike; the first scenes of a part take turns with their first."""
    count = int(random.choice(4, p=(0.35, 0.35, 0.2, 0.1))) + 1
    drawn = [int(number) for number in random.choice(len(EVENTS), count, replace=False, p=WEIGHTS)]
    if index < len(EVENTS) and index not in drawn:
        drawn[0] = index
    return [EVENTS[number] for number in drawn]


def mix_scene(engine: espeak.Espeak, random: Random, events: list[Event], parts: tuple[str, ...]) -> Signal:
    """Ten seconds in which the events happen, in one room and over one background.

    Args:
        engine: what speaks.
        random: where all is drawn from.
        events: what happens.
        parts: of `VOICES`, whose voices may speak.

    Returns:
        Samples (160000,) at 16 kHz of any level.
    """
    n = SCENE_SECONDS * SAMPLING_RATE
    scene = np.zeros(n)
    for event in events:
        size = n if event.lasting else samples(log_uniform(random, 1.2, 9.0))
        if event.sound is None:
            wave = _speech(engine, random, size, "Female speech, woman speaking" in event.labels, parts)
        else:
            wave = event.sound(random, random, size)
        wave = unit(wave) * swell(size, 0.02, 0.05)
        onset = int(random.integers(0, n - size + 1))
        place(scene, wave, onset, 10 ** (random.uniform(-15, 0) / 20))
    return recorded(random, random, scene)


def _speech(engine: espeak.Espeak, random: Random, size: int, female: bool, parts: tuple[str, ...]) -> Signal:
    """Sentences of one voice with pauses between them."""
    voices = [voice for part in parts for voice in VOICES[part] if (voice in FEMALE) == female]
    voice, accent = str(random.choice(voices)), str(random.choice(espeak.ACCENTS))
    rate, pitch = float(random.uniform(120, 210)), float(random.normal(50, 12))
    out, at = np.zeros(size), samples(random.uniform(0, 0.2))
    while at < size:
        words = int(random.integers(3, 12))
        speech = speak_sentence(engine, random, sentence(random, words), voice, accent=accent, rate=rate, pitch=pitch)
        place(out, speech, at)
        at += len(speech) + samples(random.uniform(0.2, 0.8))
    return out
