"""What was kept: scores and survivors of every block, on the grid of the spectrogram."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from spectrim.pruning.tokens import Tokens


class TokenTrace(NamedTuple):
    """Scores and survivors per block, on the (F, T) grid of patches, F low frequencies first, for every backbone.

    Attributes:
        scores: one (batch, F, T) float tensor a block: the criterion's score in that block, as it ranks, NaN where the
            patch was gone before it.
        kept: one (batch, F, T) bool tensor a block: whether the patch is alive after it, as a token of its own.
        source: one (batch, F, T) int64 tensor a block: the place in the block's output sequence, extra tokens first, of
            the token that carries the patch on, its own or one that stands for several; −1 for none. Empty where it is
            not known.

    Examples:
        >>> model = spectrim.from_pretrained("spectrim-mini", keep_rate=0.7)
        >>> trace = model(torch.zeros(1, 128, 128), output_token_trace=True).token_trace
        >>> trace.kept[3].shape, int(trace.kept[3].sum())
        (torch.Size([1, 8, 8]), 45)
    """

    scores: tuple[Tensor, ...]
    kept: tuple[Tensor, ...]
    source: tuple[Tensor, ...] = ()


def grid_order(grid: tuple[int, int], patch_order: str, device: torch.device | None = None) -> Tensor:
    """Grid index f·T + t of every patch, in the order in which a backbone lines them up; (F·T,) int64."""
    frequency, time = grid
    table = torch.arange(frequency * time, device=device).reshape(frequency, time)
    return (table if patch_order == "frequency_major" else table.T).reshape(-1)


def scatter_to_grid(values: Tensor, patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """Put per-token values back on the grid.

    Args:
        values: (batch, n) float.
        patches: (batch, n) grid index of each token; negative where a token is no living patch.
        grid: (F, T).

    Returns:
        (batch, F, T), NaN where no token came from.
    """
    frequency, time = grid
    size = frequency * time
    target = values.new_full((values.shape[0], size + 1), math.nan)
    slot = torch.where(patches < 0, torch.full_like(patches, size), patches)
    return target.scatter(1, slot, values)[:, :size].reshape(-1, frequency, time)


def alive_on_grid(patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mark the living patches on the grid.

    Args:
        patches: (batch, n) grid index of each token; negative where a token is no living patch.
        grid: (F, T).

    Returns:
        (batch, F, T) bool.
    """
    ones = torch.ones(patches.shape, device=patches.device)
    return ~scatter_to_grid(ones, patches, grid).isnan()


class TraceRecorder:
    """Collects a `TokenTrace` block by block.

    Args:
        grid: (F, T).
        static: (batch, F, T) scores of a criterion that reads no attention, the same for every block; None for one that
            does.
        scored: whether every block gives scores; if not, in one that gives none those of its patches are 0, the
            log-probability of what is certain: it keeps them all.
    """

    def __init__(self, grid: tuple[int, int], static: Tensor | None, *, scored: bool = True) -> None:
        self.grid = grid
        self.static = static
        self.scored = scored
        self.blocks: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, entered: Tokens, scores: Tensor | None, left: Tokens) -> None:
        """Note a block: the tokens that entered it, their scores (batch, n), and the tokens that left it."""
        if self.static is not None:
            shown = self.static.masked_fill(~alive_on_grid(entered.patches, self.grid), math.nan)
        elif scores is not None:
            shown = scatter_to_grid(scores, entered.alive, self.grid)
        elif not self.scored:
            shown = scatter_to_grid(torch.zeros_like(entered.alive, dtype=torch.float32), entered.alive, self.grid)
        else:
            raise ValueError("a block gave no scores to trace")
        source = left.source if left.source is not None else left.patches.new_empty(0)
        self.blocks.append((shown, alive_on_grid(left.patches, self.grid), source.reshape(-1, *self.grid)))

    def trace(self) -> TokenTrace:
        """What was collected."""
        scores, kept, source = zip(*self.blocks, strict=True)
        return TokenTrace(scores, kept, source)
