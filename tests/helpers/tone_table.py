"""A data set of tones as a table of clips, and small random models for it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile
import torch

from spectrim.backbones import ast_base
from spectrim.data import PARTS, find_data_set
from spectrim.measure.trained_clips import CLIPS, described
from spectrim.network.transformer import AudioTransformer

LABELS = ("high", "low", "middle")


def write_tones(root: Path, per_fold: int = 12, folds: int = 3, *, several: bool = False) -> Path:
    """Write noisy tones of three pitches, evenly over the folds, and ``labels.csv``.

    Args:
        root: folder to make.
        per_fold: clips of a fold.
        folds: how many.
        several: clips have up to three labels, and none has none.
    """
    root.mkdir(parents=True)
    generator = np.random.default_rng(0)
    time = np.arange(4800) / 16000
    rows = ["path,labels,fold" if several else "path,label,fold"]
    for number in range(per_fold * folds):
        chosen = [number % 3] if not several else [k for k in range(3) if (number % 7 + 1) >> k & 1]
        tones = [np.sin(2 * np.pi * (3000, 300, 1000)[k] * generator.uniform(0.8, 1.2) * time) for k in chosen]
        soundfile.write(root / f"{number}.wav", 0.1 * sum(tones) + 0.05 * generator.standard_normal(4800), 16000)
        rows.append(f"{number}.wav,{';'.join(LABELS[k] for k in chosen)},{number // per_fold + 1}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return root


def small_model(seed: int = 0, *, labels: tuple[str, ...] = LABELS, several: bool = False) -> AudioTransformer:
    """Three blocks of width 32, pruned after the second, whose answers differ from clip to clip."""
    torch.manual_seed(seed)
    config = ast_base(
        hidden_size=32,
        num_attention_heads=4,
        intermediate_size=64,
        num_hidden_layers=3,
        prune_at=[1],
        max_length=32,
        initializer_range=0.6,
        head_init_std=1.0,
        mean=-7.0,
        std=3.0,
        keep_rate=0.9,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
        problem_type="multi_label_classification" if several else "single_label_classification",
    )
    return AudioTransformer(config).eval()


def save_run(folder: Path, root: Path, fold: int = 2) -> Path:
    """Save a small model in a folder as training leaves it that held out a fold; returns the model's."""
    small_model().save_pretrained(folder / "model")
    parts = {part: find_data_set("csv").open(root, part, fold=fold) for part in PARTS}
    (folder / CLIPS).write_text(json.dumps(described(parts)))
    (folder / "run.json").write_text(json.dumps({"recipe": {"data": {"name": "csv"}}, "data": str(root), "init": None}))
    return folder / "model"
