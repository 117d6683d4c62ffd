from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from spectrim.augment import smooth_targets, structured_mask


@given(
    rows=st.integers(1, 12),
    columns=st.integers(1, 64),
    time=st.floats(0, 0.99),
    frequency=st.floats(0, 0.99),
    batch=st.integers(1, 4),
)
def test_masking_keeps_whole_rows_and_columns(
    rows: int, columns: int, time: float, frequency: float, batch: int
) -> None:
    kept = structured_mask(batch, (rows, columns), time, frequency)
    kept_columns, kept_rows = max(1, int(columns * (1 - time))), max(1, int(rows * (1 - frequency)))
    assert kept.shape == (batch, kept_rows * kept_columns)
    for clip in kept:
        assert len(set(clip.tolist())) == len(clip)
        assert len({index // columns for index in clip.tolist()}) == kept_rows
        assert len({index % columns for index in clip.tolist()}) == kept_columns
    assert kept.min() >= 0
    assert kept.max() < rows * columns


def test_each_clip_is_masked_anew() -> None:
    torch.manual_seed(0)
    kept = structured_mask(8, (8, 64), 0.3, 0.3).sort(dim=1).values
    assert len({tuple(clip.tolist()) for clip in kept}) == 8


def test_smoothing_moves_that_share_to_all_labels() -> None:
    targets = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    assert torch.allclose(smooth_targets(targets, 0.2), torch.tensor([[0.05, 0.85, 0.05, 0.05]]))
    assert torch.equal(smooth_targets(targets, 0.0), targets)


def test_smoothing_of_several_labels_moves_each_towards_one_half() -> None:
    targets = torch.tensor([[1.0, 1.0, 0.0]])
    assert torch.allclose(smooth_targets(targets, 0.2, multi_label=True), torch.tensor([[0.9, 0.9, 0.1]]))
