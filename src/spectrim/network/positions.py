"""Position tables: the fixed sin-cos one, and fitting any table to a shorter or longer input; or a convolution.

A table is (1, extra + F·T, width), its patches in the order in which the backbone lines them up.

There are two ways to lay the sin-cos codes on the patches of AudioMAE. `sincos_position_table` gives each patch the
code of its own time and frequency. The released AudioMAE fills its table as if the patches were frequency-major,
although they are time-major: place i of the sequence carries the code of (time i mod T, frequency i div T). Its
weights were trained with that, so such a table is recognised and continued by its own rule.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from spectrim.config import SpectrimConfig
from spectrim.errors import InputShapeError, InvalidSetting, one_of

POSITION_METHODS = ("auto", "middle", "first", "interpolate", "by_axis", "reference_compat")
"""How a table can be fitted; see `adapt_position_table`."""

SAME_RULE = 2.5e-3
"""Largest difference at which a table counts as sin-cos codes: rounding to bfloat16 stays below it."""


def sincos_codes(places: Tensor, width: int) -> Tensor:
    """Sine and cosine codes of places along one axis (Vaswani et al., 2017; halves as in MAE, He et al., 2022).

    Args:
        places: (n,) float64.
        width: of a code; even.

    Returns:
        (n, width) float64: sin(p·ω_k) for k = 0 … width/2 − 1, then cos, with ω_k = 10000^(−2k/width).
    """
    exponent = torch.arange(width // 2, dtype=torch.float64) / (width / 2)
    angle = places.unsqueeze(1) * 10000.0**-exponent
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def _sincos_table(time: Tensor, frequency: Tensor, width: int, extra: int) -> Tensor:
    """(n,) times and frequencies → (1, extra + n, width) float32; the extra tokens' places are zero."""
    if width % 4:
        raise InvalidSetting("hidden_size", width, "a multiple of 4 for sin-cos positions")
    codes = [sincos_codes(axis.reshape(-1).double(), width // 2) for axis in (time, frequency)]
    return functional.pad(torch.cat(codes, dim=1), (0, 0, extra, 0)).float().unsqueeze(0)


def sincos_position_table(config: SpectrimConfig) -> Tensor:
    """The 2-D sin-cos table: half of a code is the patch's place in time, half its place in frequency.

    The first half is that of time, but for EAT, where it is that of frequency.

    Args:
        config: gives the grid, the patch order, the width (a multiple of 4) and the number of extra tokens.

    Returns:
        (1, extra + F·T, width) float32; zero for the extra tokens.

    Raises:
        InvalidSetting: the width is no multiple of 4.
    """
    frequency, time = torch.meshgrid(*(torch.arange(size) for size in config.grid), indexing="ij")
    if config.patch_order == "time_major":
        frequency, time = frequency.T, time.T
    if config.backbone == "eat":
        frequency, time = time, frequency
    return _sincos_table(time, frequency, config.hidden_size, config.extra_tokens)


def audiomae_position_table(config: SpectrimConfig, row: int | None = None) -> Tensor:
    """The table as the released AudioMAE fills it: place i carries the code of (time i mod row, frequency i div row).

    Args:
        config: gives the number of patches, the width and the number of extra tokens.
        row: time patches of the input that the weights were trained with; None for those of ``config``.

    Returns:
        (1, extra + F·T, width) float32; zero for the extra tokens.

    Raises:
        InvalidSetting: the width is no multiple of 4.
    """
    row = config.grid[1] if row is None else row
    place = torch.arange(config.num_patches)
    return _sincos_table(place % row, place // row, config.hidden_size, config.extra_tokens)


SINCOS = ("audiomae", "eat")
"""Backbones whose tables are sin-cos codes as published."""

SEPARATE = ("embeddings.frequency_positions", "embeddings.time_positions")
"""Weights of a model with separate positions, (1, width, F, 1) and (1, width, 1, T)."""


def adapt_positions(
    state: Mapping[str, Tensor], config_from: SpectrimConfig, config_to: SpectrimConfig, method: str = "auto"
) -> dict[str, Tensor]:
    """Fit a model's positions to another number of patches.

    Args:
        state: weights of the model, of which the positions are read.
        config_from, config_to: as for `adapt_position_table`.
        method: likewise; ``"auto"`` gives a model with separate positions the first times if the input is shorter, as
            PaSST's code does, and else stretches the times linearly. A model whose positions are what a convolution
            finds and distances has nothing to fit.

    Returns:
        The weights that take the place of those in ``state``.

    Raises:
        InputShapeError, InvalidSetting: as for `adapt_position_table`.
    """
    if config_from.position_kernel:
        if method != "auto":
            raise InvalidSetting("positions", method, "'auto' for a model that has no table of positions")
        return {}
    if not config_from.separate_positions:
        place = "embeddings.position_table"
        return {place: adapt_position_table(state[place], config_from, config_to, method)}
    if method not in POSITION_METHODS or method == "reference_compat":
        allowed = one_of(name for name in POSITION_METHODS if name != "reference_compat")
        raise InvalidSetting("positions", method, f"{allowed} with separate positions")
    if config_from.grid == config_to.grid:
        return {}
    method = _auto_method(config_from, config_to) if method == "auto" else method
    if method not in ("interpolate", "by_axis"):
        _check_only_shorter(method, config_from, config_to)
    frequency, time = config_to.grid
    sizes = dict(zip(SEPARATE, ((frequency, 1), (1, time)), strict=True))
    return {name: _fit(state[name], size, method).contiguous() for name, size in sizes.items()}


def adapt_position_table(
    table: Tensor, config_from: SpectrimConfig, config_to: SpectrimConfig, method: str = "auto"
) -> Tensor:
    """Fit a position table to another number of patches.

    Args:
        table: (1, extra + F·T, width) in the patch order of ``config_from``.
        config_from: of the model that the table belongs to.
        config_to: of the model that it is for; the same width and extra tokens.
        method: ``"middle"`` keeps the middle time patches (AST, Gong et al. 2021), ``"first"`` the first ones,
            ``"interpolate"`` stretches bilinearly, ``"by_axis"`` keeps on each axis, time first, the middle where the
            new one is not longer, and else stretches it (AST's way from pictures). ``"reference_compat"`` cuts as the
            public code of the paper does for AudioMAE, where a time-major sequence is read as frequency-major and
            patches get other patches' positions. ``"auto"``: AST: middle if shorter, bilinear if longer; AudioMAE: a
            table of sin-cos codes is computed anew by its own rule (patches that were there before keep their codes),
            another one is cut to the first time patches or stretched.

    Returns:
        (1, extra + F'·T', width) in the patch order of ``config_to``, of the dtype of ``table``.

    Raises:
        InputShapeError: the table does not fit ``config_from``, or the two models differ in width or extra tokens.
        InvalidSetting: unknown method, or one that only cuts where the input is longer or has other mel bins.
    """
    if method not in POSITION_METHODS:
        raise InvalidSetting("positions", method, one_of(POSITION_METHODS))
    _check_shapes(table, config_from, config_to)
    if config_from.grid == config_to.grid and config_from.patch_order == config_to.patch_order:
        return table.clone()
    if method == "auto":
        recomputed = _recompute(table, config_from, config_to) if config_from.backbone in SINCOS else None
        if recomputed is not None:
            return recomputed
        method = _auto_method(config_from, config_to)
    if method not in ("interpolate", "by_axis"):
        _check_only_shorter(method, config_from, config_to)
    extra = config_from.extra_tokens
    as_read = "frequency_major" if method == "reference_compat" else config_from.patch_order
    as_written = "frequency_major" if method == "reference_compat" else config_to.patch_order
    grid = _to_grid(table[:, extra:], config_from.grid, as_read)
    fitted = _fit(grid, config_to.grid, method)
    return torch.cat([table[:, :extra], _to_sequence(fitted, as_written)], dim=1)


def _fit(grid: Tensor, size: tuple[int, int], method: str) -> Tensor:
    """(1, width, F, T) → (1, width, F', T'); methods that only cut keep the first times, but ``"middle"``."""
    frequency, time = size
    if method == "interpolate":
        return functional.interpolate(grid.float(), size=size, mode="bilinear").to(grid.dtype)
    if method == "by_axis":
        return _fit_axis(_fit_axis(grid, 3, time), 2, frequency)
    start = grid.shape[3] // 2 - time // 2 if method == "middle" else 0
    return grid[:, :, :, start : start + time]


def _fit_axis(grid: Tensor, axis: int, size: int) -> Tensor:
    """(1, width, F, T) with another size of one axis: its middle, or the grid stretched bilinearly."""
    there = grid.shape[axis]
    if size <= there:
        return grid.narrow(axis, there // 2 - size // 2, size)
    sizes = [size if number == axis else grid.shape[number] for number in (2, 3)]
    return functional.interpolate(grid.float(), size=sizes, mode="bilinear").to(grid.dtype)


def _check_shapes(table: Tensor, config_from: SpectrimConfig, config_to: SpectrimConfig) -> None:
    expected = (1, config_from.extra_tokens + config_from.num_patches, config_from.hidden_size)
    if tuple(table.shape) != expected:
        raise InputShapeError(f"the position table has shape {tuple(table.shape)}; its model's is {expected}")
    for field in ("hidden_size", "extra_tokens"):
        old, new = getattr(config_from, field), getattr(config_to, field)
        if old != new:
            raise InputShapeError(f"the position table is for {field}={old}; it cannot be fitted to {field}={new}")


def _check_only_shorter(method: str, config_from: SpectrimConfig, config_to: SpectrimConfig) -> None:
    (frequency, time), (new_frequency, new_time) = config_from.grid, config_to.grid
    if new_frequency != frequency or new_time > time:
        allowed = (
            f"'auto' or 'interpolate' here: {method!r} only cuts time patches, and the checkpoint has "
            f"{frequency}×{time} (frequency × time) where {new_frequency}×{new_time} are wanted"
        )
        raise InvalidSetting("positions", method, allowed)


def _auto_method(config_from: SpectrimConfig, config_to: SpectrimConfig) -> str:
    (frequency, time), (new_frequency, new_time) = config_from.grid, config_to.grid
    if new_frequency != frequency or new_time > time:
        return "interpolate"
    return "first" if config_from.backbone in SINCOS or config_from.separate_positions else "middle"


def _recompute(table: Tensor, config_from: SpectrimConfig, config_to: SpectrimConfig) -> Tensor | None:
    """The table of ``config_to`` by the rule that made ``table``, or None if no rule did."""
    if config_from.hidden_size % 4:
        return None
    if _same(table, sincos_position_table(config_from)):
        patches = sincos_position_table(config_to)
    elif config_from.grid[0] == config_to.grid[0] and _same(table, audiomae_position_table(config_from)):
        patches = audiomae_position_table(config_to, row=config_from.grid[1])
    else:
        return None
    extra = config_from.extra_tokens
    return torch.cat([table[:, :extra], patches[:, extra:].to(table)], dim=1)


def _same(table: Tensor, rule: Tensor) -> bool:
    return bool((table.float().cpu() - rule).abs().max() < SAME_RULE)


def _to_grid(patches: Tensor, grid: tuple[int, int], order: str) -> Tensor:
    """(1, F·T, width) → (1, width, F, T)."""
    frequency, time = grid
    if order == "frequency_major":
        return patches.unflatten(1, (frequency, time)).permute(0, 3, 1, 2)
    return patches.unflatten(1, (time, frequency)).permute(0, 3, 2, 1)


def _to_sequence(grid: Tensor, order: str) -> Tensor:
    """(1, width, F, T) → (1, F·T, width)."""
    axes = (0, 2, 3, 1) if order == "frequency_major" else (0, 3, 2, 1)
    return grid.permute(*axes).flatten(1, 2)


class PositionConvolution(nn.Module):
    """Positions from what stands around a token: a grouped convolution along the sequence, added to it.

    As in wav2vec 2.0 (Baevski et al., 2020), with the weights as they are, not as length and direction. Before
    post-norm blocks the sum is normalised; pre-norm blocks do that themselves.
    """

    def __init__(self, config: SpectrimConfig) -> None:
        super().__init__()
        width, kernel = config.hidden_size, config.position_kernel
        self.around = kernel // 2, (kernel - 1) // 2
        self.filters = nn.Conv1d(width, width, kernel, groups=config.position_groups)
        self.norm = nn.Identity() if config.norm_first else nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(self, tokens: Tensor, padding: Tensor | None) -> Tensor:
        """(batch, n, width) → the same shape; tokens where ``padding`` (batch, n) is True are taken to be 0."""
        if padding is not None:
            tokens = tokens.masked_fill(padding.unsqueeze(-1), 0.0)
        found = self.filters(functional.pad(tokens.transpose(1, 2), self.around))
        normed: Tensor = self.norm(tokens + functional.gelu(found).transpose(1, 2))
        return normed
