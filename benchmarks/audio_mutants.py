"""Damage sound files of every format at random, and count how often Spectrim hears another length than others do.

    python benchmarks/audio_mutants.py --mutants 10000 --seed 0 --json benchmarks/results/audio_mutants_seed0.json

Every mutant is refused, right or wrong. Right: its number of samples is that of a decoder that Spectrim did not use
for it (libsndfile, FFmpeg, and dr_mp3, dr_flac, dr_wav and stb_vorbis in miniaudio). Formats that only FFmpeg decodes
have no second decoder: there right is the length of the clip before it was damaged. Streams of bare frames (AAC, AC-3,
AMR) name no length, and cut between frames they are shorter streams; Spectrim hears them where FFmpeg's samples are
those of the frames that it walks itself, and here FFmpeg, left to itself, has to find as many. Wrong is what is left;
every wrong one is listed with how to make it again. How many of the right ones are not as long as the clip was before
is counted too (``changed``): whole frames are missing or more, and nothing in the file tells. Needs miniaudio
(pip install miniaudio). A minute or two on one core.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

sys.path.append(str(Path(__file__).parent.parent / "tests" / "helpers"))

from audio_clips import FORMATS, make
from mutants import MUTATIONS, examine

from spectrim.audio.decoding import decode_files
from spectrim.audio.files import Note
from spectrim.errors import AudioError
from spectrim.files import write_json
from spectrim.machine import environment

CHUNK = 500
"""Mutants on disk at a time."""

LENGTHS = (0.8, 1.3)
"""Seconds of the clips."""

DECODES = {
    "ogg": "libsndfile",
    "opus": "libsndfile",
    "oga": "ffmpeg",
    "flac": "ffmpeg",
    "mp3": "ffmpeg",
    "mp2": "ffmpeg",
}
"""Ending → the decoder that Spectrim uses; libsndfile for the formats below, FFmpeg for the rest."""

PLAIN = ("wav", "rf64", "bw64", "w64", "caf", "aiff", "au", "nist", "voc")


BARE = ("aac", "ac3", "eac3", "amr")
"""Endings of streams of bare frames."""


def voices(name: str) -> tuple[str, ...]:
    """The decoders that are independent of Spectrim's for a clip, by its name."""
    if name in ("mp3.wav", "alac.caf"):
        return ("libsndfile", "miniaudio") if name == "mp3.wav" else ("libsndfile",)
    ending = name.split(".")[1]
    if ending in BARE:
        return ("ffmpeg",)
    used = DECODES.get(ending) or ("libsndfile" if ending in PLAIN else "ffmpeg")
    return ("libsndfile", "miniaudio") if used == "ffmpeg" else ("ffmpeg", "miniaudio")


def family(name: str) -> str:
    """What a clip is counted under: Ogg, MP3 and FLAC, or the name itself."""
    ending = name.split(".")[1]
    return {"ogg": "Ogg", "oga": "Ogg", "opus": "Ogg", "mp3": "MP3", "mp2": "MP3", "flac": "FLAC"}.get(ending, name)


REASONS = {
    "mka": "how much a decoder leaves out at the beginning is named once, without a checksum, and no number of samples",
    "3gp": "packets of AMR have no checksum, and one that is overwritten may decode as another kind of frame",
    "aac": "a frame of AAC has no checksum, and one that is overwritten may decode as something else",
}
"""Ending → why a wrong length cannot be told there."""


def why(name: str, heard: dict[str, Any], intact: list[int]) -> str:
    """Why a wrong one was not refused."""
    if heard["spectrim"] == intact:
        return "as long as the clip was before it was damaged: it is the other decoders that read it otherwise"
    return REASONS.get(name.split(".")[1], "")


def verdict(name: str, heard: dict[str, Any], intact: list[int], same: bool) -> str:
    """One of refused, right, wrong."""
    if "refused" in heard:
        return "refused"
    samples, rate = heard["spectrim"]
    others = [heard[voice] for voice in voices(name) if heard.get(voice)]
    if not others or same:
        others.append(intact)
    return "right" if any(abs(samples / rate - there / at) < 1 / at for there, at in others if at) else "wrong"


def _seconds(heard: list[int]) -> float:
    return heard[0] / heard[1]


def heard_in(paths: list[Path]) -> list[dict[str, Any]]:
    """What everybody hears in files."""
    found: list[dict[str, Any]] = [{} for _ in paths]
    for index, event in decode_files([str(path) for path in paths], examine, workers=1):
        if isinstance(event, Note):
            found[index] = json.loads(event.text)
        elif isinstance(event, AudioError):
            found[index] = {"refused": event.reason}
    return found


def campaign(count: int, seed: int, folder: Path) -> dict[str, Any]:
    """Make mutants and count."""
    random = np.random.default_rng(seed)
    clips, intact = {}, {}
    for name in FORMATS:
        for seconds in LENGTHS:
            path = make(name, folder, seconds, called=f"{seconds}-{name}")
            clips[name, seconds] = path.read_bytes()
            [heard] = heard_in([path])
            if "spectrim" not in heard:
                raise SystemExit(f"{path.name} is whole and was refused: {heard}")
            intact[name, seconds] = heard["spectrim"]
    names, weights = list(MUTATIONS), np.array([weight for _, weight in MUTATIONS.values()])
    counts: dict[str, Counter[str]] = {}
    by_mutation: dict[str, Counter[str]] = {}
    wrong: list[dict[str, Any]] = []
    crashes: list[dict[str, Any]] = []
    for start in range(0, count, CHUNK):
        made = []
        for number in range(start, min(start + CHUNK, count)):
            name = list(FORMATS)[number % len(FORMATS)]
            seconds = LENGTHS[int(random.integers(len(LENGTHS)))]
            mutation = str(random.choice(names, p=weights / weights.sum()))
            data = MUTATIONS[mutation][0](clips[name, seconds], np.random.default_rng([seed, number]))
            path = folder / f"{number}.{name.split('.')[1]}"
            path.write_bytes(data)
            made.append((number, name, seconds, mutation, path, data == clips[name, seconds]))
        for (number, name, seconds, mutation, path, same), heard in zip(
            made, heard_in([entry[4] for entry in made]), strict=True
        ):
            said = verdict(name, heard, intact[name, seconds], same or mutation in ("tag", "append_zeros"))
            counts.setdefault(family(name), Counter())[said] += 1
            by_mutation.setdefault(mutation, Counter())[said] += 1
            if said == "right" and abs(_seconds(heard["spectrim"]) - _seconds(intact[name, seconds])) > 1e-4:
                counts[family(name)]["changed"] += 1
            if "crashed" in heard.get("refused", ""):
                crashes.append({"number": number, "clip": name, "mutation": mutation, "reason": heard["refused"]})
            if said == "wrong":
                case = {"number": number, "clip": name, "seconds": seconds, "mutation": mutation, **heard}
                wrong.append({**case, "why": why(name, heard, intact[name, seconds])})
                (Path(tempfile.gettempdir()) / f"wrong-{path.name}").write_bytes(path.read_bytes())
            path.unlink()
    total: Counter[str] = sum(counts.values(), Counter())
    return {
        "seed": seed,
        "mutants": count,
        "environment": environment("cpu", "soundfile", "av", "miniaudio"),
        "libsndfile": soundfile.__libsndfile_version__,
        "total": dict(total),
        "crashes": crashes,
        "formats": {name: dict(counts[name]) for name in sorted(counts)},
        "mutations": {name: dict(by_mutation[name]) for name in names if name in by_mutation},
        "wrong": wrong,
    }


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = campaign(asked.mutants, asked.seed, Path(folder))
    print(json.dumps({key: value for key, value in found.items() if key not in ("mutations", "environment")}, indent=1))  # noqa: T201
    if asked.json is not None:
        write_json(asked.json, found)


if __name__ == "__main__":
    main()
