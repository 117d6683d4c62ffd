"""What enters the blocks: a checked input, without patches that must not be seen, and ranked where it is read."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from spectrim.audio.filterbank import FEATURES, inverse_cosine_transform
from spectrim.config import SpectrimConfig
from spectrim.errors import InputShapeError, InvalidSetting
from spectrim.network.looking import may_look
from spectrim.pruning.criteria import CRITERIA
from spectrim.pruning.criteria.spectrogram import Spectrogram
from spectrim.pruning.pruning import Pruning
from spectrim.pruning.reducers import REDUCERS
from spectrim.pruning.select import check_scores, distinct_ranks, real_first, take_patches
from spectrim.pruning.tokens import Tokens
from spectrim.pruning.trace import grid_order

WHOLE = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
"""Types of whole numbers."""


def check_input(input_values: Tensor, config: SpectrimConfig) -> None:
    """Raise `InputShapeError` unless this is a batch of finite log-mel spectrograms of the model's size.

    Whether values are finite is looked up on CPUs only, where that waits for nothing, and where they can be looked at
    (`may_look`); elsewhere NaN gives NaN logits.
    """
    if not isinstance(input_values, Tensor):
        raise InputShapeError(
            f"input_values is a {type(input_values).__name__}; this model takes a torch.Tensor (batch, frames, mels), "
            "as Frontend.from_config(model.config) makes it; of a numpy array: torch.from_numpy(array)"
        )
    expected = (config.max_length, config.num_mel_bins)
    if input_values.ndim != 3 or tuple(input_values.shape[1:]) != expected:
        raise InputShapeError(
            f"input_values has shape {tuple(input_values.shape)}; this model takes (batch, {expected[0]} frames, "
            f"{expected[1]} mels): use Frontend.from_config(model.config), or load the model with frames=N"
        )
    if not input_values.is_floating_point():
        raise InputShapeError(
            f"input_values has type {input_values.dtype}; wanted: floating-point log-mel values, as the front end gives"
        )
    looks = input_values.device.type == "cpu" and may_look(input_values)
    if looks and not all(math.isfinite(extreme) for extreme in torch.aminmax(input_values.detach())):
        raise InputShapeError("input_values holds NaN or infinite values; log-mel values of audio are finite")


def check_removed(removed: Mapping[int, Tensor], batch: int, config: SpectrimConfig, pruning: Pruning) -> None:
    """Raise `InputShapeError` or `InvalidSetting` for patches to remove that the model cannot remove."""
    expected = (batch, *config.grid)
    for block, flags in removed.items():
        if block not in range(config.num_hidden_layers):
            raise InvalidSetting("removed", block, f"block numbers from 0 to {config.num_hidden_layers - 1}")
        if tuple(flags.shape) != expected or flags.dtype != torch.bool:
            raise InputShapeError(
                f"removed[{block}] has shape {tuple(flags.shape)} and type {flags.dtype}; wanted: {expected}, one "
                "torch.bool a patch"
            )
    if removed and pruning.reference_compat:
        raise InvalidSetting("removed", sorted(removed), "no block with reference_compat, which counts tokens")
    _check_not_blended(removed, pruning)


def _check_not_blended(removed: Mapping[int, Tensor], pruning: Pruning) -> None:
    """Raise `InvalidSetting` where patches to remove can be part of tokens that stand for others too."""
    if not (removed and pruning.prunes and REDUCERS[pruning.reducer].blends):
        return
    first = min(block for block, rate in pruning.rates.items() if rate < 1.0)
    late = sorted(block for block in removed if block >= first)
    if late:
        raise InvalidSetting(
            "removed",
            late,
            f"blocks before {first} with reducer={pruning.reducer!r}, which there makes one token of several patches: "
            'none of them can be removed alone; with reducer="drop" or keep_rate=1.0 every block',
        )


def entering_tokens(
    values: Tensor,
    config: SpectrimConfig,
    pruning: Pruning,
    *,
    visible_patches: Tensor | None,
    num_frames: Tensor | None,
    traced: bool,
) -> Tokens:
    """The tokens that enter block 0, without those that must not be seen.

    Args:
        values: (batch, extra + F·T, width), embedded, in the backbone's order.
        config: of the model.
        pruning: the operating point.
        visible_patches: see `AudioTransformer.forward`; so ``num_frames``.
        traced: follow which token carries each patch.
    """
    batch, extra = values.shape[0], config.extra_tokens
    order = grid_order(config.grid, config.patch_order, values.device)
    patches = functional.pad(order, (extra, 0), value=-1).expand(batch, -1)
    source = order.argsort().add(extra).expand(batch, -1) if traced else None
    tokens = Tokens(values, patches, extra, source=source)
    if visible_patches is not None:
        tokens = tokens.take(_sequence_index(visible_patches, batch, config))
    if pruning.drop_padding and batch > 0:
        padding = _padding(tokens.alive, num_frames, config)
        index, valid = real_first(padding, int((~padding).sum(dim=1).max()))
        tokens = tokens.take(index, valid)
    return tokens


def padded_patches(
    num_frames: Tensor | None, config: SpectrimConfig, pruning: Pruning, batch: int, device: torch.device
) -> Tensor | None:
    """(batch, F·T) bool in the backbone's order: the patches that are only padding; None unless they are dropped.

    Args:
        num_frames: see `AudioTransformer.forward`; checked.
        config: of the model.
        pruning: the operating point.
        batch: number of clips.
        device: of the input.
    """
    if num_frames is not None:
        _check_num_frames(num_frames, batch)
    if not pruning.drop_padding:
        return None
    return _padding(grid_order(config.grid, config.patch_order, device).expand(batch, -1), num_frames, config)


def static_scores(input_values: Tensor, config: SpectrimConfig, pruning: Pruning, *, training: bool) -> Tensor | None:
    """(batch, F, T) scores of a criterion that reads no attention; None for one that does."""
    name = config.criterion_of(pruning)
    criterion = CRITERIA[name]
    if criterion.reads_attention:
        return None
    if criterion.reads == "spectrogram":
        spectrogram = spectrogram_of(input_values, config)
    else:
        strides = config.frequency_stride, config.time_stride
        spectrogram = Spectrogram(input_values, config.patch_shape, *strides, pruning.seed, training)
    scores = criterion.score(spectrogram)
    check_scores(scores, (input_values.shape[0], *config.grid), name)
    return scores


def spectrogram_of(input_values: Tensor, config: SpectrimConfig) -> Spectrogram:
    """What criteria look at that read the input: log-mel values, also of a model that takes MFCC.

    Coefficients are turned back into the log-mel spectrum that they stand for, smooth along frequency, so that
    intensity and variation mean the same for every front end.

    Args:
        input_values: (batch, frames, mels).
        config: of the model.
    """
    patch, stride, bands = config.patch_shape, config.frequency_stride, FEATURES[config.features].bands
    if bands is not None:
        matrix = torch.tensor(inverse_cosine_transform(bands, config.num_mel_bins), device=input_values.device)
        input_values = input_values @ matrix.to(input_values.dtype)
        patch, stride = (bands, patch[1]), bands
    return Spectrogram(input_values, patch, stride, config.time_stride)


def ranked(tokens: Tokens, scores: Tensor | None) -> Tokens:
    """Rank the patches of every clip by scores (batch, F, T), where there are any."""
    if scores is None:
        return tokens
    rank = take_patches(distinct_ranks(scores.flatten(1)), tokens.alive.clamp(min=0))
    return tokens._replace(rank=rank)


def _wanted_frames(batch: int) -> str:
    return f"the number of real frames of each clip, ({batch},)"


def _check_num_frames(num_frames: Tensor, batch: int) -> None:
    wanted = f"wanted: {_wanted_frames(batch)}"
    if not isinstance(num_frames, Tensor) or num_frames.dtype not in WHOLE:
        kind = num_frames.dtype if isinstance(num_frames, Tensor) else type(num_frames).__name__
        raise InputShapeError(f"num_frames is of type {kind}; {wanted}, as a torch.Tensor of whole numbers")
    if tuple(num_frames.shape) != (batch,):
        raise InputShapeError(f"num_frames is of shape {tuple(num_frames.shape)}; {wanted}")


def _padding(patches: Tensor, num_frames: Tensor | None, config: SpectrimConfig) -> Tensor:
    """(batch, n) bool: which of these patches start past the end of their clip.

    A clip of which nothing else is left (too short, or all that is real is masked) keeps what it has: a mean of no
    patch would be NaN.
    """
    wanted = _wanted_frames(patches.shape[0])
    if num_frames is None:
        raise InputShapeError(f"num_frames is missing; drop_padding=True needs {wanted}")
    if bool((num_frames < 0).any()):
        raise InputShapeError(
            f"num_frames has a clip of {int(num_frames.min())} frames; wanted: {wanted}, none below 0"
        )
    start = patches % config.grid[1] * config.time_stride
    padding = start >= num_frames.to(patches.device).clamp(min=1).unsqueeze(1)
    return padding & ~padding.all(dim=1, keepdim=True)


def _check_each_once(visible_patches: Tensor, patches: int) -> None:
    """Raise `InputShapeError` for a grid index (batch, k) that there is not, or that a clip has twice."""
    ordered = visible_patches.sort(dim=1).values
    absent = (ordered < 0) | (ordered >= patches)
    repeated = functional.pad(ordered[:, 1:] == ordered[:, :-1], (1, 0))
    for wrong, times in ((absent, ""), (repeated, " twice")):
        if bool(wrong.any()):
            clip, place = wrong.nonzero()[0].tolist()
            raise InputShapeError(
                f"visible_patches of clip {clip} holds {int(ordered[clip, place])}{times}; wanted: grid indices from "
                f"0 to {patches - 1}, each at most once a clip"
            )


def _sequence_index(visible_patches: Tensor, batch: int, config: SpectrimConfig) -> Tensor:
    """Grid indices → places in the backbone's sequence; their values are looked up as those of `check_input`."""
    shape = tuple(visible_patches.shape)
    if len(shape) != 2 or shape[0] != batch or shape[1] == 0 or visible_patches.dtype != torch.int64:
        raise InputShapeError(
            f"visible_patches has shape {shape} and type {visible_patches.dtype}; wanted: ({batch}, 1 or more) "
            "grid indices of type torch.int64"
        )
    frequency, time = config.grid
    if visible_patches.device.type == "cpu" and may_look(visible_patches):
        _check_each_once(visible_patches, frequency * time)
    if config.patch_order == "frequency_major":
        return visible_patches
    return visible_patches % time * frequency + visible_patches // time
