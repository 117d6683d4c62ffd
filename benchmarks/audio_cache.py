"""How long an epoch takes to read its clips, decoded each time and from the cache of decoded audio.

    python benchmarks/audio_cache.py FOLDER [--clips 400] [--repeats 5] [--json FILE]

The first sound files below FOLDER are written again, in a temporary folder, as mono MP3 and FLAC of 44.1 kHz and as WAV
of 16 kHz. Reading is what training does before the log-mel: `spectrim.data.AudioDataset` in this process. An epoch
with the cache and one without come in turn, after one of each that does not count; that one writes the cache. Files and
cache are in the memory of the system by then, as in an epoch of training where both fit.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from showing import write_and_show

from spectrim.audio import files as audio
from spectrim.data import AudioDataset, Recording
from spectrim.data.cache import AudioCache
from spectrim.data.layout import audio_files
from spectrim.machine import environment

FORMATS = {"mp3": 44_100, "flac": 44_100, "wav": audio.SAMPLING_RATE}
"""File ending → rate of the copies, in hertz."""


def copies(sources: list[Path], folder: Path, ending: str) -> list[Path]:
    """The sounds of some files as files of another kind."""
    folder.mkdir()
    written, rate = [], FORMATS[ending]
    for number, source in enumerate(sources):
        samples, own = soundfile.read(source, dtype="float32", always_2d=True)
        written.append(folder / f"{number}.{ending}")
        soundfile.write(written[-1], np.clip(soxr.resample(samples.mean(axis=1), own, rate), -1.0, 1.0), rate)
    return written


def epoch(part: AudioDataset) -> float:
    """Seconds to read every clip once."""
    begun = time.perf_counter()
    for number in range(len(part)):
        part[number]
    return time.perf_counter() - begun


def measure(paths: list[Path], folder: Path, repeats: int) -> dict[str, Any]:
    """Milliseconds a clip without the cache, while it is written, and with it; median, least and most."""
    recordings = [Recording(path, (0,), path.name) for path in paths]
    without, kept = (AudioDataset(recordings, ["sound"], multi_label=False) for _ in range(2))
    kept.cache = AudioCache(paths[0].parent, folder)
    kept.cache.begin()
    epoch(without)
    writing = epoch(kept)
    times: dict[str, list[float]] = {"decoded": [], "kept": []}
    for _ in range(repeats):
        for name, part in (("decoded", without), ("kept", kept)):
            times[name].append(1e3 * epoch(part) / len(paths))
    on_disk = sum(file.stat().st_size for file in folder.rglob("*.f32"))
    spread = {
        name: {"median": statistics.median(each), "least": min(each), "most": max(each)} for name, each in times.items()
    }
    ratios = [one / other for one, other in zip(times["decoded"], times["kept"], strict=True)]
    return {
        **{f"{name}_ms": values for name, values in spread.items()},
        "first_epoch_ms": 1e3 * writing / len(paths),
        "ratio": {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)},
        "cache_megabytes": on_disk / 1e6,
    }


def main() -> None:
    """Measure each format, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    sources = audio_files(given.folder)[: given.clips] if given.folder.is_dir() else []
    if not sources:
        raise SystemExit(f"{given.folder} holds no sound files")
    found: dict[str, Any] = {"clips": len(sources), "repeats": given.repeats}
    with tempfile.TemporaryDirectory() as name:
        for ending in FORMATS:
            place = Path(name)
            paths = copies(sources, place / ending, ending)
            found[ending] = measure(paths, place / f"{ending}-kept", given.repeats)
        found["seconds_a_clip"] = statistics.fmean(soundfile.info(path).duration for path in paths)
    write_and_show({**found, "environment": environment()}, given.json)


if __name__ == "__main__":
    main()
