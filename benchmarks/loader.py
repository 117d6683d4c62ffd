"""What clips cost a processor core on their way to a model, from files and from packed archives, beside AST-B's step.

    python benchmarks/loader.py --json FILE [--clips 32] [--repeats 5] [--steps 3] [--batch 4] [--index 2000000]

The clips are AudioSet's miniature (`spectrim data synthesize audioset`), ten seconds each, once as WAV of 16 kHz, once
as AAC in MP4 of 44.1 kHz and two channels, as AudioSet mostly comes, and packed from either. Reading is the decoding
alone; loading is an epoch of `spectrim train ast-as2m` without the model, augmentations and log-mel included; a step is
the same recipe's, forward, backward and optimiser. All of it is processor time of one thread, so that what else a
machine does matters little; cases come in turn, after a round that does not count. The index is of so many clips with
names and labels like AudioSet's, on empty archives; it is measured in seconds.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import soundfile
import soxr
import torch
from showing import write_and_show

from spectrim.data import AudioDataset, find_data_set
from spectrim.data.packed import description_digest, names_in_bytes
from spectrim.data.packing import pack
from spectrim.machine import environment
from spectrim.miniatures.sound_sets import synthesize_audioset
from spectrim.training.finetune import build_trainer, prepare
from spectrim.training.recipe_files import load_recipe
from spectrim.training.sampling import BalancedSampler, clip_weights

TINY = ("model.fields={hidden_size: 32, num_attention_heads: 2, intermediate_size: 64}",)
"""Changes to the recipe where only the clips count: they do not depend on the model's size."""

SETTINGS = ["evaluation.test_keep_rates=[]", "workers=0", "tensorboard=false"]


def as_mp4(source: Path, target: Path) -> None:
    """Write a WAV file as AAC in MP4, of 44.1 kHz and two channels."""
    samples, rate = soundfile.read(source, dtype="float32")
    both = np.repeat(soxr.resample(samples, rate, 44_100)[None], 2, axis=0)
    with av.open(str(target), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=44_100, layout="stereo", bit_rate=128_000)
        for start in range(0, both.shape[1], 1024):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(both[:, start : start + 1024]), "fltp", "stereo")
            frame.sample_rate = 44_100
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def as_downloaded(files: Path, folder: Path) -> Path:
    """The same data set with its clips as AAC."""
    for manifest in ("train.json", "eval.json"):
        said = json.loads((files / manifest).read_text())
        for entry in said["data"]:
            name = Path(entry["wav"]).with_suffix(".m4a")
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            as_mp4(files / entry["wav"], folder / name)
            entry["wav"] = name.as_posix()
        (folder / manifest).write_text(json.dumps(said))
    labels = "class_labels_indices.csv"
    (folder / labels).write_bytes((files / labels).read_bytes())
    return folder


def trainer_of(root: Path, batch: int, changes: tuple[str, ...] = TINY) -> Any:
    """The Trainer of the recipe on some clips."""
    recipe = load_recipe("ast-as2m", [f"optimiser.batch_size={batch}", *SETTINGS, *changes])
    return build_trainer(prepare(recipe, root, root.parent / "run"), progress=False, say=None)


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def costs(run: Callable[[], int]) -> float:
    """Milliseconds of processor time for each clip that something handles."""
    begun = time.process_time()
    clips = run()
    return 1e3 * (time.process_time() - begun) / clips


def read_all(clips: AudioDataset) -> int:
    """Read each clip."""
    return sum(1 for place in range(len(clips)) if clips[place] is not None)


def load_all(loader: Any) -> int:
    """Make each batch of an epoch."""
    return sum(len(batch["labels"]) for batch in loader)


def loading(places: dict[str, Path], batch: int, repeats: int) -> dict[str, Any]:
    """What it costs to read clips, and to load them, in each case."""
    trainers = {name: trainer_of(root, batch) for name, root in places.items()}
    reads: dict[str, list[float]] = {name: [] for name in places}
    loads: dict[str, list[float]] = {name: [] for name in places}
    for number in range(repeats + 1):
        for name, trainer in trainers.items():
            read = costs(lambda clips=trainer.train_dataset.clips: read_all(clips))
            load = costs(lambda trainer=trainer: load_all(trainer.get_train_dataloader()))
            if number:
                reads[name].append(read)
                loads[name].append(load)
    return {name: {"read_ms": spread(reads[name]), "load_ms": spread(loads[name])} for name in places}


def steps(root: Path, batch: int, number: int) -> dict[str, float]:
    """What a step of AST-B costs."""
    trainer = trainer_of(root, batch, ())
    inputs, optimiser = next(iter(trainer.get_train_dataloader())), trainer.create_optimizer()
    model = trainer.model.train()

    def step() -> int:
        trainer.compute_loss(model, inputs).backward()
        optimiser.step()
        optimiser.zero_grad()
        return batch

    return spread([costs(step) for _ in range(number + 1)][1:])


def write_index(folder: Path, clips: int, tested: int = 20_000, labels: int = 527, shards: int = 500) -> None:
    """A packed AudioSet of archives that hold nothing."""
    random = np.random.default_rng(0)
    letters = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", dtype="S1")
    ids = letters[random.integers(64, size=(clips, 11))].view("S11")[:, 0].astype(str)
    id_bounds, names = names_in_bytes([f"audio/Y{name}.wav" for name in ids])
    counts = 1 + random.poisson(1.0, clips)
    sizes = random.integers(100_000, 300_000, clips)
    shard = np.sort(random.integers(shards, size=clips)).astype(np.int32)
    arrays: dict[str, Any] = {
        "shard": shard,
        "start": np.cumsum(sizes) - sizes,
        "size": sizes,
        "crc32": np.zeros(clips, np.uint32),
        "suffix": np.zeros(clips, np.uint16),
        "group": np.full(clips, -1, np.int32),
        "label_bounds": np.concatenate([[0], np.cumsum(counts)]),
        "label_numbers": random.integers(labels, size=counts.sum()).astype(np.int32),
        "id_bounds": id_bounds,
        "ids": names,
        "part_train": np.arange(clips - tested, dtype=np.int32),
        **{f"part_{part}": np.arange(clips - tested, clips, dtype=np.int32) for part in ("validation", "test")},
    }
    folder.mkdir()
    np.savez(folder / "clips.npz", **arrays)
    archives = [{"name": f"train-{place:06d}.tar", "bytes": 10**9} for place in range(shards)]
    for archive in archives:
        with (folder / str(archive["name"])).open("wb") as file:
            file.truncate(10**9)
    description: dict[str, Any] = {
        "format": 1,
        "data_set": "audioset",
        "options": {},
        "multi_label": True,
        "folds": [],
        "groups": [],
        "labels": [f"label {number}" for number in range(labels)],
        "sampling_rate": 16000,
        "suffixes": ["flac"],
        "shards": archives,
        "unreadable": {},
        "parts": {part: {} for part in ("train", "validation", "test")},
        "index_sha256": hashlib.sha256((folder / "clips.npz").read_bytes()).hexdigest(),
    }
    description["description_sha256"] = description_digest(description)
    (folder / "spectrim-pack.json").write_text(json.dumps(description))


def index(folder: Path, clips: int) -> dict[str, Any]:
    """Seconds and memory that opening a large index takes, and a weighted epoch of it."""
    write_index(folder, clips)
    process, found = (
        psutil.Process(),
        {"clips": clips, "megabytes_on_disk": (folder / "clips.npz").stat().st_size / 1e6},
    )
    before = process.memory_info().rss

    def timed(name: str, run: Any) -> Any:
        begun = time.perf_counter()
        result = run()
        found[f"{name}_seconds"] = time.perf_counter() - begun
        return result

    entry = find_data_set("audioset")
    part = timed("open_training_part", lambda: entry.open(folder, "train"))
    timed("open_test_part", lambda: entry.open(folder, "test"))
    found["resident_megabytes"] = (process.memory_info().rss - before) / 1e6
    weights = timed("weights", lambda: clip_weights(part))
    part.epoch = 0
    for replacement in (True, False):
        sampler = BalancedSampler(weights, len(part) // 2, replacement=replacement, clips=part, seed=0)
        kind = "with" if replacement else "without"
        timed(f"draw_half_{kind}_replacement", lambda sampler=sampler: sum(1 for _ in sampler))
    places = np.random.default_rng(1).integers(len(part), size=10_000).tolist()
    timed("ten_thousand_recordings", lambda: [part.recordings[place] for place in places])
    found["resident_megabytes_after"] = (process.memory_info().rss - before) / 1e6
    return found


def main() -> None:
    """Measure index, loading and steps, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3, help="of AST-B; 0 for none")
    parser.add_argument("--index", type=int, default=2_000_000, help="clips in the large index")
    given = parser.parse_args()
    found: dict[str, Any] = {"clips": given.clips, "batch": given.batch, "repeats": given.repeats}
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        found["index"] = index(here / "index", given.index)
        files = synthesize_audioset(here / "wav", clips=given.clips, test_clips=4)
        places = {"WAV, 16 kHz": files, "AAC, 44.1 kHz": as_downloaded(files, here / "m4a")}
        for name, root in (("packed from WAV", files), ("packed from AAC", here / "m4a")):
            begun = time.process_time()
            report = pack("audioset", root, here / name, workers=1)
            seconds = time.process_time() - begun
            found[name] = {
                "pack_ms": 1e3 * seconds / report.clips,
                "kilobytes_a_clip": report.bytes / report.clips / 1e3,
            }
            found[name]["fidelity"] = report.fidelity
            places[name] = here / name
        found["loading"] = loading(places, given.batch, given.repeats)
        if given.steps:
            found["ast_base_step_ms"] = steps(places["packed from WAV"], given.batch, given.steps)
    found["load_average"] = {"before": load, "after": os.getloadavg()[0]}
    write_and_show({**found, "environment": environment()}, given.json)


if __name__ == "__main__":
    main()
