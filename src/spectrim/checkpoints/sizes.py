"""What the shapes of a checkpoint tell about its model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from spectrim.checkpoints.files import Source
from spectrim.errors import CheckpointError, InvalidSetting

HEAD_WIDTH = 64
"""Width of an attention head in every published AST and AudioMAE; used where a layout does not say."""

HIGHEST_PATCH = 128
"""Mel bins of a patch at most: the published models have so many, or fewer."""


def shape_of(source: Source, key: str) -> tuple[int, ...]:
    """Shape of a weight; `CheckpointError` if it is missing."""
    if key not in source.weights:
        raise CheckpointError(f"{source.name}: cannot tell the sizes of the model, because {key} is missing")
    return tuple(source.weights[key].shape)


def cuts_spectrograms(source: Source, key: str) -> bool:
    """Whether ``key`` is a patch projection with one input channel: for spectrograms, not for RGB pictures."""
    weight = source.weights.get(key)
    return weight is not None and weight.ndim == 4 and weight.shape[1] == 1


def count_blocks(source: Source, prefix: str) -> int:
    """One more than the highest block number in names like ``prefix`` + ``3.``; 0 if there are none."""
    found = (re.match(re.escape(prefix) + r"(\d+)\.", key) for key in source.weights)
    return 1 + max((int(match.group(1)) for match in found if match), default=-1)


def count_outputs(source: Source, key: str) -> int:
    """Outputs of a head whose weight (outputs, width) is called ``key``; 0 where there is none."""
    weight = source.weights.get(key)
    return weight.shape[0] if weight is not None and weight.ndim == 2 else 0


def count_positions(source: Source, key: str, extra: int) -> int:
    """Number of patches that a position table (1, extra + n, width) is for."""
    shape = shape_of(source, key)
    if len(shape) != 3 or shape[1] <= extra:
        raise CheckpointError(f"{source.name}: {key} has the shape {shape}, which is no position table")
    return shape[1] - extra


def sizes_of(source: Source, projection: str, blocks: str, up: str, *, square: bool = True) -> dict[str, Any]:
    """Fields of the configuration that the shapes tell, and the number of heads that they do not.

    Args:
        source: the checkpoint.
        projection: name of the patch projection's weight, (width, 1, side, side).
        blocks: what stands before the number of a block.
        up: name of the MLP's first weight inside a block.
        square: whether patches must be.

    Raises:
        CheckpointError: the shapes are those of no model that we have.
        InvalidSetting: nor is the size of the patches.
    """
    width, _, height, length = shape_of(source, projection)
    if not 1 <= height <= HIGHEST_PATCH or length < 1:
        allowed = f"from 1 to {HIGHEST_PATCH} mel bins along frequency, and 1 frame or more along time"
        raise InvalidSetting("patch_size", [height, length], allowed)
    if square and height != length:
        raise CheckpointError(f"{source.name}: patches of {height}×{length} are not supported, only square ones")
    depth = count_blocks(source, blocks)
    if depth == 0:
        raise CheckpointError(f"{source.name}: has no blocks; expected names like {blocks}0.{up}")
    if width % HEAD_WIDTH:
        raise CheckpointError(
            f"{source.name}: this layout does not say the number of heads, and its width {width} is no multiple of "
            f"{HEAD_WIDTH}, the width of every published head"
        )
    return {
        "hidden_size": width,
        "num_attention_heads": width // HEAD_WIDTH,
        "num_hidden_layers": depth,
        "prune_at": default_blocks(depth),
        "intermediate_size": shape_of(source, f"{blocks}0.{up}")[0],
        "patch_size": height if height == length else [height, length],
    }


def default_blocks(depth: int) -> list[int]:
    """The paper's pruning blocks, as far as a model of ``depth`` blocks has blocks behind them.

    What goes at the last block has been computed already, but for a head that reads the patches.
    """
    return [block for block in (3, 6, 9) if block < depth - 1]


def weights_and_biases(modules: Mapping[str, str], qkv_bias: bool) -> dict[str, str]:
    """Names of modules → names of their weights and biases; no bias for projections that have none.

    Args:
        modules: {their module: our module}.
        qkv_bias: whether query, key and value have biases.
    """
    names = {}
    for theirs, ours in modules.items():
        projects = re.search(r"attention\.(qkv|query|key|value)$", ours)
        for kind in ("weight",) if projects and not qkv_bias else ("weight", "bias"):
            names[f"{theirs}.{kind}"] = f"{ours}.{kind}"
    return names
