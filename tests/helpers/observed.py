"""A small model, clips on disk that it can be run over, and batches that need neither."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
import torch
from plain import randomise, small_config

from spectrim.analysis.batches import ClipBatch
from spectrim.analysis.statistics import padded_patches
from spectrim.config import SpectrimConfig
from spectrim.data import AudioDataset, Recording
from spectrim.network.transformer import AudioTransformer

LABELS = ["a", "b", "c"]
SECONDS = (1.3, 0.4, 0.8, 1.0, 0.6, 2.0, 0.3, 0.9, 1.1, 0.7)


def small_eager_model(backbone: str = "ast", **fields: object) -> AudioTransformer:
    """4 blocks of width 64 on 128 frames that prune at blocks 1 and 2; large weights, eval mode."""
    settings = {"num_hidden_layers": 4, "prune_at": [2, 1], "keep_rate": 0.6, **fields}
    return randomise(AudioTransformer(small_config(backbone, **settings))).to(torch.float32).eval()


def clips_on_disk(
    folder: Path, count: int = 10, bad: tuple[int, ...] = (), short: tuple[int, ...] = ()
) -> AudioDataset:
    """Noise of changing level, pitch and length; ``bad`` files cannot be read, ``short`` ones are below one frame."""
    recordings = []
    for number in range(count):
        generator = np.random.default_rng(number)
        samples = int(16000 * SECONDS[number % len(SECONDS)])
        time = np.arange(samples) / 16000
        tone = np.sin(2 * np.pi * (200 + 150 * number) * time) * np.abs(np.sin(3 * time + number))
        wave = 0.3 * tone + 0.05 * generator.standard_normal(samples)
        path = folder / f"{number}.wav"
        folder.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, wave[:300] if number in short else wave, 16000)
        if number in bad:
            path.write_bytes(b"RIFF, but no more")
        recordings.append(Recording(path, (number % 3, 2) if number % 3 == 0 else (number % 3,), path.name))
    return AudioDataset(recordings, LABELS, multi_label=True, bad_share=0.5)


def made_up(config: SpectrimConfig, clips: int, begin: int = 0, log_mel: bool = True) -> ClipBatch:
    """A batch as a model might have made it, from a seed of its own for every clip."""
    parts = [_made_up_clip(config, begin + number) for number in range(clips)]
    stacked = {name: np.stack([part[name] for part in parts]) for name in parts[0]}
    if not log_mel:
        stacked["log_mel"] = None
    return ClipBatch(
        ids=tuple(f"clip-{begin + number}.wav" for number in range(clips)),
        positions=np.arange(begin, begin + clips),
        padded=padded_patches(stacked["num_frames"], config.grid, config.time_stride),
        next_position=begin + clips,
        **stacked,
    )


def _made_up_clip(config: SpectrimConfig, seed: int) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    grid, blocks = config.grid, config.num_hidden_layers
    order = generator.permutation(config.num_patches)
    survived = np.zeros(config.num_patches, dtype=np.uint8)
    alive = config.num_patches
    scores = generator.exponential(1 / 64, (blocks, config.num_patches)).astype(np.float32)
    rates = config.pruning.rates
    for block in range(blocks):
        scores[block, order[alive:]] = np.nan
        alive = int(np.ceil(rates.get(block, 1.0) * alive))
        survived[order[:alive]] += 1
    return {
        "num_frames": np.int64(generator.integers(1, config.max_length + 40)),
        "targets": generator.random(3) < 0.5,
        "logits": generator.standard_normal(config.num_labels).astype(np.float32),
        "intensity": generator.normal(0, 0.6, grid).astype(np.float32),
        "variation": generator.exponential(0.3, grid).astype(np.float32),
        "scores": scores.reshape(blocks, *grid),
        "survived": survived.reshape(grid),
        "log_mel": generator.normal(0, 0.6, (config.max_length, config.num_mel_bins)).astype(np.float32),
    }
