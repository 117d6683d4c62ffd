"""A miniature of Speech Commands V2, spoken here: same layout on disk, seeded, written whole or not at all.

`synthesize_spoken_commands` writes Speech Commands V2 as spoken by eSpeak NG. A speaker is one of its voice
variants; accent, pitch, pitch range, rate, intonation and length of the vocal tract vary from clip to clip, and
so do position, level and background noise. The parts share no voice.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from spectrim.audio import files as audio
from spectrim.data.speech_commands import BACKGROUND, LISTS, WORDS
from spectrim.errors import DataError, InvalidSetting
from spectrim.miniatures import espeak, writing
from spectrim.miniatures.signals import NOISE_KINDS, SAMPLING_RATE, coloured_noise
from spectrim.miniatures.speaking import without_silence
from spectrim.miniatures.writing import RECORD, Progress

CLIP_SAMPLES = 16000
LONGEST_WORD = 15200
"""Samples at 16 kHz: a word that takes longer is spoken faster."""

_TRAINING_VOICES = (
    "Andrea, Andy, Annie, AnxiousAndy, Denis, Diogo, Gene, Henrique, Hugo, Jacky, Marco, Michael, Mike, "
    "Mr serious, Nguyen, RicishayMax, RicishayMax2, RicishayMax3, Tweaky, UniRobot, adam, anika, anikaRobot, "
    "announcer, antonio, aunty, belinda, boris, croak, david, ed, edward, edward2, f1, f2, f4, fast, grandpa, "
    "iven, iven2, iven3, iven4, john, klatt, klatt2, klatt3, klatt4, m1, m5, m6, m8, max, michel, miguel, mike2, "
    "norbert, paul, quincy, rob, robert, robosoft, robosoft2, robosoft3, robosoft4, robosoft5, robosoft6, "
    "robosoft7, robosoft8, steph, travis"
)

VOICES: dict[str, tuple[str, ...]] = {
    "train": tuple(_TRAINING_VOICES.split(", ")),
    "validation": ("Alex", "Mario", "grandma", "gustave", "m3", "m7", "pablo", "sandro", "victor"),
    "test": ("Demonic", "Storm", "f3", "f5", "ian", "linda", "m2", "m4", "marcelo", "pedro"),
}
"""The voice variants of each part: 89 of eSpeak NG 1.52's 104.

Measured on all 35 words in two accents. Left out: ``Reed`` and ``caleb`` (two renderings differ), ``whisper`` and
``whisperf`` (periodicity below 0.5), ``Alicia``, ``Lee``, ``kaukovalta``, ``shelby``, ``zac`` (nearest of the
35 words' median log-mel templates over the other voices is the right one in less than 80 %), and ``Gene2``,
``benjamin``, ``klatt5``, ``klatt6``, ``steph2``, ``steph3`` (log-mel within 0.3 nepers rms of another variant).
Variants closer than 0.6 or of one family by name stay together in training; of those that stand alone, ordered by
SHA-1 of the name, the first ten are test and the next nine validation.
"""

HOMOPHONES = {("three", "en-029")}
"""Words that an accent speaks as another of the words, here "tree": not spoken in it."""

PART_NUMBERS = {"train": 0, "validation": 1, "test": 2}


@dataclass(frozen=True)
class _Job:
    """One clip: where it goes and what it is made from."""

    name: str
    word: str
    voice: str
    entropy: tuple[int, int, int]


def speaker_id(voice: str) -> str:
    """The eight hexadecimal digits that stand for a voice in file names, as in the real data set."""
    return hashlib.sha1(voice.encode()).hexdigest()[:8]


def synthesize_spoken_commands(
    out: str | Path,
    *,
    clips: int = 10_000,
    validation_clips: int | None = None,
    test_clips: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a spoken miniature of Speech Commands V2 in its real layout.

    The same arguments give the same bytes for any number of workers. Words and voices are balanced in each part.
    The directory appears whole or not at all.

    Args:
        out: directory to make; it must not exist, or be empty.
        clips: training clips, one second each at 16 kHz, 16 bit.
        validation_clips: a tenth of ``clips`` where not given.
        test_clips: a tenth of ``clips`` where not given.
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
    counts = {
        "train": clips,
        "validation": clips // 10 if validation_clips is None else validation_clips,
        "test": clips // 10 if test_clips is None else test_clips,
    }
    _check(target, counts, seed, workers)
    jobs = [job for part, count in counts.items() for job in _jobs(part, count, seed)]
    with writing.whole_directory(target) as staging:
        for name in (*WORDS, BACKGROUND):
            (staging / name).mkdir()
        _write_background(staging / BACKGROUND, seed)
        writing.write_clips(_write_chunk, staging, jobs, workers, progress)
        _write_lists(staging, counts, seed)
    return target


def write_demo_clips(root: str | Path, out: str | Path, *, clips_per_word: int = 4) -> Path:
    """Take some test clips of a spoken miniature and write them as FLAC, balanced over words and voices.

    No clip is picked by hand or by how a model does on it: the voices take turns through the words, and of the clips
    of a word by a voice the first is taken.

    Args:
        root: what `synthesize_spoken_commands` wrote.
        out: directory to make, with the clips, ``labels.csv`` (path, label, voice) and the record of ``root``;
            it must not exist, or be empty.
        clips_per_word: clips of each word, at most as many as test voices.

    Returns:
        The directory.

    Raises:
        InvalidSetting: ``out`` holds something already, or there are not as many test voices.
        DataError: ``root`` is not a spoken miniature, or lacks a clip.
    """
    source, target = Path(root), Path(out).absolute()
    writing.check_absent(target)
    try:
        voices: dict[str, str] = json.loads((source / RECORD).read_text())["voices"]["test"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{source} is not a spoken miniature: {RECORD} cannot be read ({error})") from error
    if not 1 <= clips_per_word <= len(voices):
        raise InvalidSetting("clips_per_word", clips_per_word, f"1 to {len(voices)}, the number of test voices")
    speakers = list(voices)
    chosen = [
        (word, speakers[(number * clips_per_word + turn) % len(speakers)])
        for number, word in enumerate(WORDS)
        for turn in range(clips_per_word)
    ]
    with writing.whole_directory(target) as staging:
        rows = ["path,label,voice"]
        for word, speaker in chosen:
            samples = audio.read(source / word / f"{speaker}_nohash_0.wav", SAMPLING_RATE).samples
            name = f"{word}_{speaker}.flac"
            soundfile.write(staging / name, samples, SAMPLING_RATE, subtype="PCM_16")
            rows.append(f"{name},{word},{voices[speaker]}")
        (staging / "labels.csv").write_text("\n".join(rows) + "\n", newline="\n")
        shutil.copyfile(source / RECORD, staging / RECORD)
    return target


def _check(target: Path, counts: dict[str, int], seed: int, workers: int | None) -> None:
    writing.check_absent(target)
    further = {f"{part}_clips": counts[part] for part in ("validation", "test")}
    writing.check_numbers(workers, clips=counts["train"], seed=seed, **further)
    espeak.Espeak().close()


def _jobs(part: str, count: int, seed: int) -> Iterator[_Job]:
    """The clips of a part: words take turns, and voices take turns within a word."""
    voices = VOICES[part]
    for index in range(count):
        turn, word = divmod(index, len(WORDS))
        repeat, voice = divmod(turn, len(voices))
        name = f"{WORDS[word]}/{speaker_id(voices[voice])}_nohash_{repeat}.wav"
        yield _Job(name, WORDS[word], voices[voice], (seed, PART_NUMBERS[part], index))


def _write_lists(root: Path, counts: dict[str, int], seed: int) -> None:
    for part, file_name in LISTS.items():
        writing.write_lines(root / file_name, sorted(job.name for job in _jobs(part, counts[part], seed)))
    facts = {
        "clips": counts["train"],
        "validation_clips": counts["validation"],
        "test_clips": counts["test"],
        "seed": seed,
        "voices": {part: {speaker_id(voice): voice for voice in voices} for part, voices in VOICES.items()},
    }
    writing.write_record(root, f"{__name__}.{synthesize_spoken_commands.__name__}", facts)


def _write_chunk(arguments: tuple[Path, Sequence[_Job]]) -> int:
    root, jobs = arguments
    with espeak.Espeak() as engine:
        for job in jobs:
            clip = speak_clip(engine, job.word, job.voice, np.random.default_rng(job.entropy))
            writing.write_wav(root / job.name, clip)
    return len(jobs)


def speak_clip(engine: espeak.Espeak, word: str, voice: str, random: np.random.Generator) -> NDArray[np.int16]:
    """Make one clip: a word somewhere within a second, mostly over noise.

    Args:
        engine: what speaks.
        word: the word.
        voice: the voice variant.
        random: where accent, pitch, rate, position, level and noise are drawn from.

    Returns:
        Samples (16000,) at 16 kHz.
    """
    speech = _speak_word(engine, word, voice, random)
    clip = np.zeros(CLIP_SAMPLES)
    onset = int(random.integers(0, CLIP_SAMPLES - len(speech) + 1))
    clip[onset : onset + len(speech)] = speech
    if random.random() >= 0.12:
        noise = coloured_noise(random, CLIP_SAMPLES, str(random.choice(NOISE_KINDS)))
        ratio = 10 ** (random.uniform(10, 40) / 20)
        clip += noise * np.sqrt(np.mean(speech**2)) / ratio
    peak = 10 ** (random.uniform(-30, -3) / 20)
    clip *= peak / np.abs(clip).max()
    return np.round(clip * 32767).astype(np.int16)


def _speak_word(engine: espeak.Espeak, word: str, voice: str, random: np.random.Generator) -> NDArray[np.float64]:
    """Speak a word at 16 kHz, without the silence around it, in at most `LONGEST_WORD` samples."""
    accent = str(random.choice([accent for accent in espeak.ACCENTS if (word, accent) not in HOMOPHONES]))
    text = word + str(random.choice(("", ".", "!", "?")))
    rate = float(random.uniform(95, 200))
    pitch = int(np.clip(random.normal(50, 18), 5, 95))
    pitch_range = int(random.integers(15, 91))
    tract = float(np.exp(random.uniform(-0.12, 0.12)))
    noise_seed = int(random.integers(1, 2**31))
    while True:
        manner = espeak.Manner(accent, voice, round(rate), pitch, pitch_range, noise_seed)
        samples = soxr.resample(engine.say(text, manner), espeak.SAMPLING_RATE * tract, SAMPLING_RATE)
        speech = without_silence(samples.astype(np.float64))
        if len(speech) == 0:
            raise DataError(f"voice {voice!r} gives silence for {word!r}")
        if len(speech) <= LONGEST_WORD:
            return speech
        if rate >= 450:
            return speech[:LONGEST_WORD]
        rate = min(450.0, 1.1 * rate * len(speech) / LONGEST_WORD)


def _write_background(directory: Path, seed: int, seconds: int = 20) -> None:
    """Write one recording of each kind of noise, as the real data set's ``_background_noise_``."""
    for number, kind in enumerate(NOISE_KINDS):
        random = np.random.default_rng((seed, 3, number))
        noise = coloured_noise(random, seconds * SAMPLING_RATE, kind)
        scaled = np.round(noise * (0.3 / np.abs(noise).max()) * 32767).astype(np.int16)
        writing.write_wav(directory / f"{kind}_noise.wav", scaled)
