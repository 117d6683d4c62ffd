"""A data set of tones and a recipe for it, so small that a whole run takes less than a second."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import soundfile
import torch

from spectrim.data.speech_commands import WORDS
from spectrim.training.finetune import train
from spectrim.training.recipes import Recipe
from spectrim.training.run_folder import write_checksums

STEPS_PER_EPOCH = 5
TEST_CLIPS = 5
SIZE = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "num_hidden_layers": 4}


def write_words(root: Path) -> Path:
    """Two training tones of each word, and validation and test tones of the first five, in Speech Commands' layout."""
    generator = np.random.default_rng(0)
    listed: dict[str, list[str]] = {"validation": [], "testing": []}
    for number, word in enumerate(WORDS):
        parts = ["train", "train", *(("validation", "testing") if number < TEST_CLIPS else ())]
        (root / word).mkdir(parents=True)
        for k, part in enumerate(parts):
            name = f"{word}/{k}_nohash_0.wav"
            time = np.arange(4800) / 16000
            tone = 0.3 * np.sin(2 * np.pi * (200 + 150 * number) * time) + 0.01 * generator.standard_normal(4800)
            soundfile.write(root / name, tone, 16000)
            if part != "train":
                listed[part].append(name)
    for part, names in listed.items():
        (root / f"{part}_list.txt").write_text("".join(f"{name}\n" for name in names))
    return root


def recipe(**changes: Any) -> Recipe:
    """Two epochs of five steps; a change that is a dictionary goes over what stands here, field by field."""
    tree: dict[str, Any] = {
        "name": "tones",
        "data": {"name": "spoken-commands"},
        "model": {"builder": "ast-base", "fields": {**SIZE, "max_length": 32}},
        "optimiser": {"batch_size": 14, "epochs": 2, "learning_rate": 2e-3},
        "pruning": {"keep_rate": 0.5, "prune_at": [1, 2], "shrink_start": 0.4, "shrink_epochs": 1.0},
        "augment": {"mask_time": 0.4, "mask_frequency": 0.2, "label_smoothing": 0.1},
        "tensorboard": False,
    }
    return Recipe(**over(tree, changes))


def over(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    both = {name: over(tree[name], changes[name]) for name in tree if isinstance(changes.get(name), dict)}
    return {**tree, **changes, **both}


def write_checkpoint(folder: Path, step: int) -> Path:
    """A sealed folder of a checkpoint's name, with two small files."""
    path = folder / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"weights of step %d" % step)
    (path / "trainer_state.json").write_text("{}")
    write_checksums(path)
    return path


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def state_at(step: int, epoch: float, most: int = 20) -> Any:
    return SimpleNamespace(global_step=step, epoch=epoch, max_steps=most, is_world_process_zero=True)


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


EVERYTHING = {
    "model": {"fields": {"drop_path_rate": 0.2}},
    "augment": {
        "mixup": 0.5,
        "time_mask": 12,
        "frequency_mask": 24,
        "noise": True,
        "roll_and_gain": True,
        "mask_time": 0.4,
        "mask_frequency": 0.2,
        "label_smoothing": 0.1,
    },
}
"""Changes to `recipe`: whatever is drawn at random, all at once."""


def train_until(moment: int | None, *arguments: Any, counted: Any = None, **options: Any) -> None:
    """`train` in a process of its own, which kills itself when it is about to touch the run's files once more.

    Args:
        moment: at which time it touches them; None to let it come to its end.
        arguments: of `train`; recipe, data, output.
        counted: a shared number that takes the times.
        options: of `train`.
    """
    torch.set_num_threads(1)
    output, touched = str(arguments[2]), 0

    def watch(event: str, details: tuple[Any, ...]) -> None:
        nonlocal touched
        if event not in ("open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "shutil.rmtree"):
            return
        if output not in str(details[0]) or (event == "open" and not details[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        touched += 1
        if counted is not None:
            counted.value = touched
        if touched == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    train(*arguments, **options)
