"""A miniature of VoxCeleb1's identification task, spoken by eSpeak NG: same layout, seeded, whole or not at all.

A speaker is one of eSpeak NG's voice variants. What makes the task more than telling files apart is that a speaker
has several videos, each with a room, a microphone, a noise, a mood (pitch and rate) of its own, and that no video is
in two parts.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from spectrim.data.voxceleb1 import FOLDER, LIST
from spectrim.errors import InvalidSetting
from spectrim.miniatures import espeak, writing
from spectrim.miniatures.signals import SAMPLING_RATE
from spectrim.miniatures.sounds.recording import recorded, to_pcm
from spectrim.miniatures.speaking import sentence, speak_sentence
from spectrim.miniatures.spoken_commands import VOICES
from spectrim.miniatures.writing import Progress

SPEAKERS = tuple(sorted(voice for part in VOICES.values() for voice in part))
"""The 89 voices in the order of their ids, id10001 the first."""

PART_OF_VIDEO = (1, 2, 3, 1, 1, 1, 1, 1)
"""Part of each of a speaker's videos by turns: 1 for training, 2 for validation, 3 for test."""

PER_VIDEO = 5
"""Utterances of a video, about."""

SHORTEST, LONGEST = 4.0, 8.0
"""Seconds of an utterance."""

_VOXCELEB = 1251
"""Beside the user's seed, so that no two data sets share random numbers."""


@dataclass(frozen=True)
class Utterance:
    """A clip of the VoxCeleb1 miniature.

    Args:
        speaker: number of its voice in `SPEAKERS`.
        video: number of the speaker's video.
        number: of the utterance in the video, from 1.
        seed: of the whole data set.
    """

    speaker: int
    video: int
    number: int
    seed: int

    @property
    def part(self) -> int:
        """1 for training, 2 for validation, 3 for test."""
        return PART_OF_VIDEO[self.video % len(PART_OF_VIDEO)]

    @property
    def name(self) -> str:
        """Its name in ``wav``: speaker/video/number.wav; the video has eleven characters, as YouTube's ids."""
        random = np.random.default_rng((self.seed, _VOXCELEB, self.speaker, self.video, 0))
        place = (self.speaker * 65536 + self.video).to_bytes(4, "big")
        video = base64.urlsafe_b64encode(random.bytes(4) + place).decode().rstrip("=")
        return f"id{10001 + self.speaker}/{video}/{self.number:05d}.wav"


def synthesize_voxceleb1(
    out: str | Path, *, clips: int = 4450, seed: int = 0, workers: int | None = None, progress: Progress | None = None
) -> Path:
    """Write a spoken miniature of VoxCeleb1 in its real layout: ``iden_split.txt`` and ``wav/id10001/…/00001.wav``.

    All 89 speakers are in all parts with the same share of the clips; their videos are not. Utterances last 4 to 8
    seconds. The same arguments give the same bytes for any number of workers. The directory appears whole or not at
    all.

    Args:
        out: directory to make; it must not exist, or be empty.
        clips: utterances over all parts: three quarters of a speaker's videos are for training, an eighth each to
            validate and to test. At least 267, three for each of the 89 speakers.
        seed: of everything that is drawn.
        workers: processes; one for each core where not given.
        progress: called with (clips done, clips in all) from time to time.

    Returns:
        The directory.

    Raises:
        MissingExtra: espeakng-loader is not installed.
        InvalidSetting: ``out`` holds something already, or a number is out of range.
    """
    target = Path(out).absolute()
    writing.check_absent(target)
    writing.check_numbers(workers, seed=seed)
    least = len(set(PART_OF_VIDEO)) * len(SPEAKERS)
    if clips < least:
        raise InvalidSetting("clips", clips, f"{least} or more: one in each part for each of {len(SPEAKERS)} speakers")
    espeak.Espeak().close()
    jobs = list(_utterances(clips, seed))
    with writing.whole_directory(target) as staging:
        for folder in {(staging / FOLDER / job.name).parent for job in jobs}:
            folder.mkdir(parents=True)
        writing.write_clips(_write_utterances, staging / FOLDER, jobs, workers, progress)
        writing.write_lines(staging / LIST, [f"{job.part} {job.name}" for job in jobs])
        facts = {"clips": clips, "seed": seed, "voices": {f"id{10001 + i}": voice for i, voice in enumerate(SPEAKERS)}}
        writing.write_record(staging, f"{__name__}.{synthesize_voxceleb1.__name__}", facts)
    return target


def _utterances(clips: int, seed: int) -> Iterator[Utterance]:
    """All utterances: speakers get as many as each other, give or take one, over a multiple of 8 videos if they can."""
    for speaker in range(len(SPEAKERS)):
        mine = clips // len(SPEAKERS) + (speaker < clips % len(SPEAKERS))
        rounds = max(1, round(mine / (PER_VIDEO * len(PART_OF_VIDEO))))
        videos = min(mine, rounds * len(PART_OF_VIDEO))
        for video in range(videos):
            count = mine // videos + (video < mine % videos)
            yield from (Utterance(speaker, video, number, seed) for number in range(1, count + 1))


def make_utterance(engine: espeak.Espeak, utterance: Utterance) -> NDArray[np.int16]:
    """Make a clip of the VoxCeleb1 miniature: samples at 16 kHz, 4 to 8 s."""
    entropy = (utterance.seed, _VOXCELEB, utterance.speaker, utterance.video)
    video = np.random.default_rng((*entropy, 1))
    random = np.random.default_rng((*entropy, 2, utterance.number))
    accent = str(np.random.default_rng((*entropy[:3], 65536)).choice(espeak.ACCENTS))
    rate, pitch, level = video.uniform(120, 215), video.normal(50, 10), video.uniform(-20, -3)
    voice, seconds = SPEAKERS[utterance.speaker], random.uniform(SHORTEST, LONGEST)
    speech, words = np.zeros(0), int(seconds * rate / 60) + 3
    while len(speech) < seconds * SAMPLING_RATE:
        text, own_rate = sentence(random, words), rate * random.uniform(0.93, 1.07)
        own_pitch = pitch + random.normal(0, 4)
        more = speak_sentence(engine, random, text, voice, accent=accent, rate=own_rate, pitch=own_pitch)
        speech = np.concatenate([speech, more, np.zeros(int(random.uniform(0.1, 0.4) * SAMPLING_RATE))])
    wave = recorded(video, random, speech[: int(seconds * SAMPLING_RATE)])
    return to_pcm(wave, level + random.uniform(-3, 0))


def _write_utterances(arguments: tuple[Path, Sequence[Utterance]]) -> int:
    root, jobs = arguments
    with espeak.Espeak() as engine:
        for job in jobs:
            writing.write_wav(root / job.name, make_utterance(engine, job))
    return len(jobs)
