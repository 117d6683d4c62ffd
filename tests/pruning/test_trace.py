"""The way back to the spectrogram's grid, against loops."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectrim.pruning.trace import alive_on_grid, grid_order, scatter_to_grid

GRIDS = st.tuples(st.integers(1, 9), st.integers(1, 12))


@settings(deadline=None)
@given(grid=GRIDS)
def test_the_order_of_each_backbone(grid: tuple[int, int]) -> None:
    frequency, time = grid
    by_frequency = [f * time + t for f in range(frequency) for t in range(time)]
    by_time = [f * time + t for t in range(time) for f in range(frequency)]
    assert grid_order(grid, "frequency_major").tolist() == by_frequency
    assert grid_order(grid, "time_major").tolist() == by_time


@settings(deadline=None)
@given(grid=GRIDS, batch=st.integers(1, 3), data=st.data())
def test_values_land_on_their_patch(grid: tuple[int, int], batch: int, data: st.DataObject) -> None:
    frequency, time = grid
    size = frequency * time
    living = data.draw(st.integers(0, size))
    gone = data.draw(st.integers(0, 3))
    patches = torch.tensor(
        [data.draw(st.permutations(range(size)))[:living] + [-1] * gone for _ in range(batch)], dtype=torch.int64
    ).reshape(batch, living + gone)
    values = torch.rand(batch, living + gone, dtype=torch.float64)
    grids, alive = scatter_to_grid(values, patches, grid), alive_on_grid(patches, grid)
    assert tuple(grids.shape) == tuple(alive.shape) == (batch, frequency, time)
    assert grids.dtype == torch.float64 and alive.dtype == torch.bool
    for item in range(batch):
        landed = dict(zip(patches[item].tolist(), values[item].tolist(), strict=True))
        landed.pop(-1, None)
        for f in range(frequency):
            for t in range(time):
                here = f * time + t in landed
                assert bool(alive[item, f, t]) == here
                assert bool(grids[item, f, t].isnan()) != here
                if here:
                    assert grids[item, f, t].item() == landed[f * time + t]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_type_of_the_values_stays(dtype: torch.dtype) -> None:
    grid = scatter_to_grid(torch.tensor([[0.5]], dtype=dtype), torch.tensor([[1]]), (1, 2))
    assert grid.dtype == dtype and grid[0, 0].isnan().tolist() == [True, False]
