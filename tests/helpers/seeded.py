"""Weights and inputs that any machine can make again from a seed, for comparing with recorded numbers.

Everything comes from the raw bits of a PCG64 generator, whose stream NumPy guarantees, so no version of NumPy or
torch changes it.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor


def uniform(name: str, shape: Sequence[int], seed: int) -> Tensor:
    """Float32 values in [−1, 1), a function of name, shape and seed alone."""
    bits = np.random.PCG64([seed, zlib.crc32(name.encode())]).random_raw(math.prod(shape))
    values = (bits >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1.0)
    return torch.from_numpy(values.reshape(tuple(shape)))


def seeded_weight(name: str, shape: Sequence[int], seed: int) -> Tensor:
    """A weight of plausible size: norms about 1, matrices of variance 1/fan-in (in attention more)."""
    values = uniform(name, shape, seed)
    if name.endswith("bias"):
        return 0.1 * values
    if len(shape) == 1 or name.endswith(("weight_g", "original0")):
        return 1.0 + 0.1 * values
    if name.endswith(("_token", "pos_embed")):
        return 0.5 * values
    gain = 4.0 if "relative_attention_bias" in name else 1.5 if "qkv" in name else 1.0
    return gain * math.sqrt(3.0 / math.prod(shape[1:])) * values


def seeded_state(shapes: Mapping[str, Sequence[int]], seed: int) -> dict[str, Tensor]:
    """A whole state dictionary."""
    return {name: seeded_weight(name, shape, seed) for name, shape in shapes.items()}


def seeded_input(frames: int, seed: int, batch: int = 2) -> Tensor:
    """(batch, frames, 128): normalised log-mel-like values whose level and spread change from patch to patch."""
    grid = (batch, frames // 16, 8)
    level, spread = (
        uniform(f"{kind}-{frames}", grid, seed).repeat_interleave(16, 1).repeat_interleave(16, 2)
        for kind in ("level", "spread")
    )
    noise = uniform(f"noise-{frames}", (batch, frames, 128), seed)
    return 0.5 * level + (0.6 + 0.4 * spread) * noise
