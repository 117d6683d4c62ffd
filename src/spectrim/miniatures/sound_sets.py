"""Miniatures of ESC-50 and AudioSet from synthesised sounds: same layout on disk, seeded, whole or not at all.

The clips are mono, 16 bit, at 16 kHz, the rate of the models (ESC-50's own are at 44.1 kHz). What a sound is made of
is in `spectrim.miniatures.sounds`, what a scene is made of in `spectrim.miniatures.scenes`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spectrim.data.audioset import EVAL, LABELS, TRAIN
from spectrim.data.esc50 import FOLDS, TABLE
from spectrim.errors import InvalidSetting
from spectrim.miniatures import espeak, writing
from spectrim.miniatures.scenes import draw_events, mix_scene, scene_labels
from spectrim.miniatures.signals import SAMPLING_RATE
from spectrim.miniatures.sounds import CATEGORIES
from spectrim.miniatures.sounds.parts import samples
from spectrim.miniatures.sounds.recording import fitted, recorded, to_pcm
from spectrim.miniatures.writing import Progress
from spectrim.tables import csv_text

ESC50_SECONDS = 5
ESC50_STEP = len(CATEGORIES) * len(FOLDS)
"""Clips come in multiples of this, so that each fold holds as many of each class."""

SEGMENTS = {TRAIN: "balanced_train_segments.csv", EVAL: "eval_segments.csv"}
"""AST's manifest → Google's list of the same segments."""

VOICE_PARTS = {TRAIN: ("train",), EVAL: ("validation", "test")}
"""Whose voices (see `spectrim.miniatures.spoken_commands.VOICES`) speak in each part: no voice in both."""

_ESC50, _AUDIOSET = 50, 527
"""Beside the user's seed, so that no two data sets share random numbers."""


@dataclass(frozen=True)
class Take:
    """A clip of the ESC-50 miniature.

    Args:
        fold: 1 to 5.
        target: number of its category.
        source: number of the original recording; all takes of one are in one fold.
        take: 0 for A, 1 for B, 2 for C.
        seed: of the whole data set.
    """

    fold: int
    target: int
    source: int
    take: int
    seed: int

    @property
    def filename(self) -> str:
        """Its name in ``audio``, as in ESC-50: fold-source-take-target.wav."""
        return f"{self.fold}-{self.source}-{'ABC'[self.take]}-{self.target}.wav"


def synthesize_esc50(
    out: str | Path, *, clips: int = 2000, seed: int = 0, workers: int | None = None, progress: Progress | None = None
) -> Path:
    """Write a miniature of ESC-50 in its real layout: ``audio/*.wav`` of 5 s and ``meta/esc50.csv``.

    Each fold holds as many clips of each of the 50 categories. One to three clips are takes of one source; a source
    is in one fold only. The same arguments give the same bytes for any number of workers. The directory appears
    whole or not at all.

    Args:
        out: directory to make; it must not exist, or be empty.
        clips: over all folds, a multiple of 250; ESC-50 has 2000.
        seed: of everything that is drawn.
        workers: processes; one for each core where not given.
        progress: called with (clips done, clips in all) from time to time.

    Returns:
        The directory.

    Raises:
        InvalidSetting: ``out`` holds something already, or a number is out of range.
    """
    target = Path(out).absolute()
    writing.check_absent(target)
    writing.check_numbers(workers, seed=seed)
    if clips < ESC50_STEP or clips % ESC50_STEP:
        raise InvalidSetting("clips", clips, f"a multiple of {ESC50_STEP} (50 categories in 5 folds), e.g. 2000")
    jobs = list(_takes(clips // ESC50_STEP, seed))
    with writing.whole_directory(target) as staging:
        (staging / "audio").mkdir()
        (staging / TABLE).parent.mkdir()
        writing.write_clips(_write_takes, staging / "audio", jobs, workers, progress)
        _write_esc50_table(staging / TABLE, jobs)
        maker = f"{__name__}.{synthesize_esc50.__name__}"
        writing.write_record(staging, maker, {"clips": clips, "seed": seed})
    return target


def _takes(per_class: int, seed: int) -> Iterator[Take]:
    """All clips, sorted as in ``meta/esc50.csv``: by fold, then by source."""
    for fold in FOLDS:
        for target in range(len(CATEGORIES)):
            random = np.random.default_rng((seed, _ESC50, fold, target))
            left, number = per_class, 0
            while left:
                takes = min(left, int(random.choice((1, 1, 2, 3))))
                source = 100_000 + (fold * len(CATEGORIES) + target) * 1000 + number
                yield from (Take(fold, target, source, take, seed) for take in range(takes))
                left, number = left - takes, number + 1


def make_take(take: Take) -> np.ndarray:
    """Make a clip of the ESC-50 miniature: int16 samples (80000,) at 16 kHz."""
    category = CATEGORIES[take.target]
    entropy = (take.seed, _ESC50, take.fold, take.target, take.source)
    layout = np.random.default_rng((*entropy, 0))
    mine = np.random.default_rng((*entropy, 1 + take.take))
    n = ESC50_SECONDS * SAMPLING_RATE
    short = layout.random() < (0.6 if category.brief else 0.06)
    length = samples(layout.uniform(0.6, 4.5)) if short else n
    looped, quiet = layout.random() < 0.25, layout.uniform(-24, 0)
    dry = category.sound(np.random.default_rng((*entropy, 4)), mine, length)
    wave = recorded(np.random.default_rng((*entropy, 5)), mine, dry)
    return to_pcm(fitted(wave, n, looped), max(-30.0, quiet + mine.uniform(-3, 0)))


def _write_takes(arguments: tuple[Path, Sequence[Take]]) -> int:
    root, jobs = arguments
    for job in jobs:
        writing.write_wav(root / job.filename, make_take(job))
    return len(jobs)


def _write_esc50_table(path: Path, jobs: Sequence[Take]) -> None:
    rows = [
        (job.filename, job.fold, job.target, category.name, category.esc10, job.source, "ABC"[job.take])
        for job in jobs
        for category in (CATEGORIES[job.target],)
    ]
    _write_csv(path, [("filename", "fold", "target", "category", "esc10", "src_file", "take"), *rows])


def _write_csv(path: Path, rows: Sequence[Sequence[object]]) -> None:
    path.write_text(csv_text(rows, exact=True), encoding="utf-8", newline="\n")


@dataclass(frozen=True)
class Scene:
    """A clip of the AudioSet miniature.

    Args:
        manifest: `TRAIN` or `EVAL`.
        index: its number in that part.
        seed: of the whole data set.
    """

    manifest: str
    index: int
    seed: int

    @property
    def random(self) -> np.random.Generator:
        """What all of it is drawn from, the events first."""
        return np.random.default_rng((self.seed, _AUDIOSET, int(self.manifest == EVAL), self.index))

    @property
    def video(self) -> str:
        """Eleven characters, as YouTube's ids have: unique within a data set."""
        random = np.random.default_rng((self.seed, _AUDIOSET, 2 + int(self.manifest == EVAL), self.index))
        number = (2 * self.index + int(self.manifest == EVAL)).to_bytes(4, "big")
        return base64.urlsafe_b64encode(random.bytes(4) + number).decode().rstrip("=")

    @property
    def start(self) -> int:
        """Second of the video where the segment begins; nothing but a number in the list."""
        return 10 * (self.index % 37)

    @property
    def mids(self) -> list[str]:
        """Its labels, in AudioSet's order."""
        names = {label for event in draw_events(self.random, self.index) for label in event.labels}
        return [mid for mid, name in scene_labels().items() if name in names]


def synthesize_audioset(
    out: str | Path,
    *,
    clips: int = 4000,
    test_clips: int | None = None,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write a miniature of AudioSet in the layout of AST's manifests.

    ``train.json``, ``eval.json`` and ``class_labels_indices.csv``, clips of 10 s in ``audio``, and the same segments
    as Google lists them (``balanced_train_segments.csv``, ``eval_segments.csv``). The labels are some of AudioSet's
    527, with its mids and names. A scene has one to four events. The same arguments give the same bytes for any number
    of workers. The directory appears whole or not at all.

    Args:
        out: directory to make; it must not exist, or be empty.
        clips: training clips.
        test_clips: clips of the evaluation part, a quarter of ``clips`` where not given.
        seed: of everything that is drawn.
        workers: processes; one for each core where not given.
        progress: called with (clips done, clips in all) from time to time.

    Returns:
        The directory.

    Raises:
        MissingExtra: espeakng-loader is not installed. (Without speech the same seed would give other data.)
        InvalidSetting: ``out`` holds something already, or a number is out of range.
    """
    target = Path(out).absolute()
    counts = {TRAIN: clips, EVAL: clips // 4 if test_clips is None else test_clips}
    writing.check_absent(target)
    writing.check_numbers(workers, clips=clips, test_clips=counts[EVAL], seed=seed)
    espeak.Espeak().close()
    parts = {manifest: [Scene(manifest, index, seed) for index in range(count)] for manifest, count in counts.items()}
    with writing.whole_directory(target) as staging:
        (staging / "audio").mkdir()
        jobs = [scene for scenes in parts.values() for scene in scenes]
        writing.write_clips(_write_scenes, staging / "audio", jobs, workers, progress)
        for manifest, scenes in parts.items():
            _write_manifests(staging, manifest, scenes)
        known = scene_labels().items()
        table = [("index", "mid", "display_name"), *((index, *row) for index, row in enumerate(known))]
        _write_csv(staging / LABELS, table)
        facts = {"clips": clips, "test_clips": counts[EVAL], "seed": seed}
        writing.write_record(staging, f"{__name__}.{synthesize_audioset.__name__}", facts)
    return target


def _write_scenes(arguments: tuple[Path, Sequence[Scene]]) -> int:
    root, jobs = arguments
    with espeak.Espeak() as engine:
        for job in jobs:
            random = job.random
            events = draw_events(random, job.index)
            wave = mix_scene(engine, random, events, VOICE_PARTS[job.manifest])
            writing.write_wav(root / f"{job.video}.wav", to_pcm(wave, random.uniform(-20, 0)))
    return len(jobs)


def _write_manifests(root: Path, manifest: str, scenes: Sequence[Scene]) -> None:
    """AST's list of a part, and Google's."""
    labels = [scene.mids for scene in scenes]
    entries = [
        {"wav": f"audio/{scene.video}.wav", "labels": ",".join(mids)}
        for scene, mids in zip(scenes, labels, strict=True)
    ]
    (root / manifest).write_text(json.dumps({"data": entries}, indent=1) + "\n", newline="\n")
    unique, positive = len({mid for mids in labels for mid in mids}), sum(map(len, labels))
    lines = [
        f"# Segments csv created by {__name__}",
        f"# num_ytids={len(scenes)}, num_segs={len(scenes)}, "
        f"num_unique_labels={unique}, num_positive_labels={positive}",
        "# YTID, start_seconds, end_seconds, positive_labels",
    ]
    lines += [
        f'{scene.video}, {scene.start}.000, {scene.start + 10}.000, "{",".join(mids)}"'
        for scene, mids in zip(scenes, labels, strict=True)
    ]
    writing.write_lines(root / SEGMENTS[manifest], lines)
