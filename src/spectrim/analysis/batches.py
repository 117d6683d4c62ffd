"""Logits, scores and kept patches of some clips, in memory (`ClipBatch`) and as the tensors of a shard on disk."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectrim.analysis.statistics import padded_patches
from spectrim.config import SpectrimConfig
from spectrim.errors import InvalidSetting, one_of

LOG_MELS = ("uint8", "float16", "none")
"""Storage of log-mel: 256 even steps from each clip's lowest to its highest value, float16, or none."""
SCORES = ("float16", "float32")
"""Storage of scores: float16 relative to the largest score of each clip and block, or float32."""
LARGEST_FLOAT16 = 2.0**15
"""Stored value of the largest score of a clip and block: normal float16 numbers then reach down to 2^-29 of it."""
SHARD_CLIPS = 128
"""Default number of clips in a shard."""

TENSOR_HEADER, INDEX_ENTRY, ID_QUOTES = 70, 150, 6
"""Bytes, roughly: of a tensor's entry in the head of a shard, of a shard's in the index, around an id."""

Layout = dict[str, tuple[tuple[int, ...], str]]
"""The tensors of a shard: name → shape of one clip's part, and type."""


@dataclass(frozen=True, eq=False)
class ClipBatch:
    """Results of a model for n clips. F × T patches, low frequencies first, as in `TokenTrace`.

    Attributes:
        ids: (n,) names within the data set.
        positions: (n,) int64 places in the data set.
        num_frames: (n,) int64 frames that hold sound.
        targets: (n, labels) bool.
        logits: (n, model's labels) float32.
        intensity: (n, F, T) float32.
        variation: (n, F, T) float32.
        scores: (n, blocks, F, T) float32: the criterion's score in each block, NaN where the patch was gone before it.
        survived: (n, F, T) uint8: the number of blocks after which the patch was alive. Dropped patches never come
            back, so the patch is alive after block b where this is above b.
        padded: (n, F, T) bool: holds only padding.
        next_position: place in the data set behind the last clip that was looked at.
        left_out: id → reason of the clips before it, since the batch before, that could not be used.
        log_mel: (n, frames, mels) float32, normalised; None where it was not read.
    """

    ids: tuple[str, ...]
    positions: NDArray[np.int64]
    num_frames: NDArray[np.int64]
    targets: NDArray[np.bool_]
    logits: NDArray[np.float32]
    intensity: NDArray[np.float32]
    variation: NDArray[np.float32]
    scores: NDArray[np.float32]
    survived: NDArray[np.uint8]
    padded: NDArray[np.bool_]
    next_position: int
    left_out: Mapping[str, str] = field(default_factory=dict)
    log_mel: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def entered(self, block: int) -> NDArray[np.bool_]:
        """(n, F, T): which patches entered a block."""
        return ~np.isnan(self.scores[:, block])

    def kept(self, block: int) -> NDArray[np.bool_]:
        """(n, F, T): which patches were alive after a block."""
        return self.survived > block

    def counted(self, padding: str) -> NDArray[np.bool_]:
        """(n, F, T): which patches count: all (``padding="with"``), or those that hold sound (``"without"``)."""
        return np.full(self.padded.shape, True) if padding == "with" else ~self.padded


def layout(config: SpectrimConfig, labels: int, *, log_mel: str, scores: str) -> Layout:
    """The tensors of a shard: name → shape of one clip's part, and type.

    Args:
        config: of the model.
        labels: of the data set.
        log_mel: one of `LOG_MELS`.
        scores: one of `SCORES`.

    Raises:
        InvalidSetting: ``log_mel`` or ``scores`` is unknown, or the model has more than 255 blocks.
    """
    if log_mel not in LOG_MELS:
        raise InvalidSetting("log_mel", log_mel, one_of(LOG_MELS))
    if scores not in SCORES:
        raise InvalidSetting("scores", scores, one_of(SCORES))
    blocks, grid = config.num_hidden_layers, config.grid
    if blocks > np.iinfo(np.uint8).max:
        raise InvalidSetting("num_hidden_layers", blocks, "at most 255 for a model that is recorded")
    tensors: Layout = {
        "position": ((), "int64"),
        "num_frames": ((), "int64"),
        "targets": ((labels,), "uint8"),
        "logits": ((config.num_labels,), "float32"),
        "intensity": (grid, "float32"),
        "variation": (grid, "float32"),
        "scores": ((blocks, *grid), scores),
        "survived": (grid, "uint8"),
    }
    if scores == "float16":
        tensors["score_scale"] = ((blocks,), "float32")
    if log_mel != "none":
        tensors["log_mel"] = ((config.max_length, config.num_mel_bins), log_mel)
    if log_mel == "uint8":
        tensors |= {"log_mel_low": ((), "float32"), "log_mel_step": ((), "float32")}
    return tensors


def estimated_bytes(
    config: SpectrimConfig,
    clips: int,
    *,
    labels: int | None = None,
    log_mel: str = "uint8",
    scores: str = "float32",
    shard_clips: int = SHARD_CLIPS,
    id_bytes: int = 24,
) -> int:
    """Estimate the disk space of a record: tensors exactly, ids and headers roughly.

    Args:
        config: of the model.
        clips: how many.
        labels: of the data set; None for as many as the model has.
        log_mel: one of `LOG_MELS`.
        scores: one of `SCORES`.
        shard_clips: clips of a shard.
        id_bytes: length of a clip's id.
    """
    tensors = layout(config, config.num_labels if labels is None else labels, log_mel=log_mel, scores=scores)
    clip = sum(math.prod(shape) * np.dtype(kind).itemsize for shape, kind in tensors.values())
    shard = 8 + sum(len(name) + TENSOR_HEADER for name in tensors) + INDEX_ENTRY
    return clips * (clip + id_bytes + ID_QUOTES) + math.ceil(clips / shard_clips) * shard


def quantise(log_mel: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    """256 even steps from each clip's lowest value to its highest.

    Args:
        log_mel: (n, frames, mels).

    Returns:
        codes (n, frames, mels), low (n,), step (n,): a value is low + step·code, off by at most half a step (and float
        rounding), which is 1/510 of the clip's range.
    """
    values = log_mel.astype(np.float64)
    low, high = values.min(axis=(1, 2)).astype(np.float32), values.max(axis=(1, 2)).astype(np.float32)
    step = ((high.astype(np.float64) - low) / 255.0).astype(np.float32)
    divisor = np.where(step > 0, step, 1.0).astype(np.float64)
    codes = np.rint((values - low[:, None, None]) / divisor[:, None, None])
    return np.clip(codes, 0, 255).astype(np.uint8), low, step


def dequantise(codes: NDArray[np.uint8], low: NDArray[np.float32], step: NDArray[np.float32]) -> NDArray[np.float32]:
    """The values that `quantise` stored, to within half a step."""
    return low[:, None, None] + step[:, None, None] * codes.astype(np.float32)


def packed(batch: ClipBatch, tensors: Layout) -> dict[str, NDArray[Any]]:
    """A batch as the tensors of a shard."""
    packed: dict[str, NDArray[Any]] = {
        "position": batch.positions,
        "num_frames": batch.num_frames,
        "targets": batch.targets,
        "logits": batch.logits,
        "intensity": batch.intensity,
        "variation": batch.variation,
        "scores": batch.scores,
        "survived": batch.survived,
    }
    if "score_scale" in tensors:
        largest = np.fmax.reduce(np.abs(batch.scores), axis=(2, 3), initial=0.0)
        scale = np.where(largest > 0, largest / LARGEST_FLOAT16, 1.0).astype(np.float32)
        packed |= {"scores": batch.scores / scale[:, :, None, None], "score_scale": scale}
    if "log_mel" in tensors:
        if batch.log_mel is None:
            raise InvalidSetting("log_mel", tensors["log_mel"][1], "none, for batches that hold no log-mel")
        packed["log_mel"] = batch.log_mel
    if "log_mel_low" in tensors:
        packed["log_mel"], packed["log_mel_low"], packed["log_mel_step"] = quantise(packed["log_mel"])
    return {name: np.ascontiguousarray(packed[name], dtype=kind) for name, (_, kind) in tensors.items()}


def unpacked(
    read: Mapping[str, NDArray[Any]], ids: tuple[str, ...], next_position: int, config: SpectrimConfig
) -> ClipBatch:
    """The tensors of a shard, or of some rows of it, as a batch; the log-mel values may be missing."""
    scores = read["scores"].astype(np.float32)
    if "score_scale" in read:
        scores *= read["score_scale"][:, :, None, None]
    log_mel = read.get("log_mel")
    if "log_mel_low" in read:
        log_mel = dequantise(read["log_mel"], read["log_mel_low"], read["log_mel_step"])
    return ClipBatch(
        ids=ids,
        positions=read["position"],
        num_frames=read["num_frames"],
        targets=read["targets"].astype(bool),
        logits=read["logits"],
        intensity=read["intensity"],
        variation=read["variation"],
        scores=scores,
        survived=read["survived"],
        padded=padded_patches(read["num_frames"], config.grid, config.time_stride),
        next_position=next_position,
        log_mel=None if log_mel is None else log_mel.astype(np.float32),
    )
