"""Sounds of the 50 classes of ESC-50, made from noise, resonances, chirps, modulations and impulses.

A sound is a function ``sound(source, take, n)`` → (n,) float64 at 16 kHz of any level. What it draws from ``source``
belongs to the thing that sounds and is the same in each of its takes; what it draws from ``take`` is not. For that,
each take is given a generator for ``source`` that starts from the same seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from spectrim.miniatures.sounds import animals, city, home, nature, people
from spectrim.miniatures.sounds.parts import Random, Signal

Sound = Callable[[Random, Random, int], Signal]


@dataclass(frozen=True)
class Category:
    """A class of ESC-50.

    Args:
        name: as ``meta/esc50.csv`` spells it.
        sound: what makes it.
        brief: whether its recordings are often shorter than 5 s.
        esc10: whether it belongs to the subset ESC-10.
    """

    name: str
    sound: Sound
    brief: bool = False
    esc10: bool = False


CATEGORIES: tuple[Category, ...] = (
    Category("dog", animals.dog, brief=True, esc10=True),
    Category("rooster", animals.rooster, brief=True, esc10=True),
    Category("pig", animals.pig, brief=True),
    Category("cow", animals.cow, brief=True),
    Category("frog", animals.frog, brief=True),
    Category("cat", animals.cat, brief=True),
    Category("hen", animals.hen, brief=True),
    Category("insects", animals.insects),
    Category("sheep", animals.sheep, brief=True),
    Category("crow", animals.crow, brief=True),
    Category("rain", nature.rain, esc10=True),
    Category("sea_waves", nature.sea_waves, esc10=True),
    Category("crackling_fire", nature.crackling_fire, esc10=True),
    Category("crickets", animals.crickets),
    Category("chirping_birds", animals.chirping_birds),
    Category("water_drops", nature.water_drops, brief=True),
    Category("wind", nature.wind),
    Category("pouring_water", nature.pouring_water),
    Category("toilet_flush", nature.toilet_flush),
    Category("thunderstorm", nature.thunderstorm),
    Category("crying_baby", people.crying_baby, esc10=True),
    Category("sneezing", people.sneezing, brief=True, esc10=True),
    Category("clapping", people.clapping),
    Category("breathing", people.breathing),
    Category("coughing", people.coughing, brief=True),
    Category("footsteps", people.footsteps),
    Category("laughing", people.laughing, brief=True),
    Category("brushing_teeth", people.brushing_teeth),
    Category("snoring", people.snoring),
    Category("drinking_sipping", people.drinking_sipping, brief=True),
    Category("door_wood_knock", home.door_wood_knock, brief=True),
    Category("mouse_click", home.mouse_click, brief=True),
    Category("keyboard_typing", home.keyboard_typing),
    Category("door_wood_creaks", home.door_wood_creaks, brief=True),
    Category("can_opening", home.can_opening, brief=True),
    Category("washing_machine", home.washing_machine),
    Category("vacuum_cleaner", home.vacuum_cleaner),
    Category("clock_alarm", home.clock_alarm),
    Category("clock_tick", home.clock_tick, esc10=True),
    Category("glass_breaking", home.glass_breaking, brief=True),
    Category("helicopter", city.helicopter, esc10=True),
    Category("chainsaw", city.chainsaw, esc10=True),
    Category("siren", city.siren),
    Category("car_horn", city.car_horn, brief=True),
    Category("engine", city.engine),
    Category("train", city.train),
    Category("church_bells", city.church_bells),
    Category("airplane", city.airplane),
    Category("fireworks", city.fireworks),
    Category("hand_saw", city.hand_saw),
)
"""In the order of ESC-50's targets."""

SOUNDS: dict[str, Sound] = {category.name: category.sound for category in CATEGORIES}
"""Every sound by its name."""
