"""What training does to a batch so that the model does not learn it by heart."""

from __future__ import annotations

import torch
from torch import Tensor


def structured_mask(
    batch: int, grid: tuple[int, int], mask_time: float, mask_frequency: float, device: torch.device | None = None
) -> Tensor:
    """Choose the patches that stay when whole columns and rows of the grid are masked (AudioMAE's 2-D masking).

    Args:
        batch: number of clips; each is masked anew, from torch's global generator.
        grid: (F, T) patches.
        mask_time: share of the T columns to remove; floor(T·(1 − share)) stay, as in AudioMAE.
        mask_frequency: share of the F rows to remove, likewise.
        device: where to put the result.

    Returns:
        (batch, k) int64 grid indices f·T + t of the patches that stay, for `AudioTransformer`'s ``visible_patches``.
    """
    rows, columns = grid
    kept_columns = max(1, int(columns * (1.0 - mask_time)))
    kept_rows = max(1, int(rows * (1.0 - mask_frequency)))
    column = torch.rand(batch, columns, device=device).topk(kept_columns, dim=1).indices
    row = torch.rand(batch, rows, device=device).topk(kept_rows, dim=1).indices
    return (row.unsqueeze(2) * columns + column.unsqueeze(1)).flatten(1)


def smooth_targets(targets: Tensor, share: float, *, multi_label: bool = False) -> Tensor:
    """Label smoothing (Szegedy et al., 2016).

    Args:
        targets: (batch, labels).
        share: how much of each target is spread, in [0, 1).
        multi_label: the labels are yes-or-no questions of their own: each moves towards one half. Otherwise they are
            one question, and share/labels goes to every label.
    """
    return targets * (1.0 - share) + share / (2 if multi_label else targets.shape[1])
