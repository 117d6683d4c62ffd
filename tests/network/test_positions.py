from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from seeded import uniform

from spectrim.backbones import ast_base, audiomae_base
from spectrim.config import SpectrimConfig
from spectrim.errors import InputShapeError, InvalidSetting
from spectrim.network.positions import adapt_position_table, audiomae_position_table, sincos_position_table

RECORDED = np.load(Path(__file__).parents[1] / "reference" / "outputs.npz")


def small(backbone: str, frames: int, **fields: object) -> SpectrimConfig:
    builder = {"ast": ast_base, "audiomae": audiomae_base}[backbone]
    sizes = {"hidden_size": 8, "num_attention_heads": 1, "num_hidden_layers": 1, "intermediate_size": 8}
    return builder(**{**sizes, "num_mel_bins": 48, "max_length": frames, "prune_at": [], **fields})


def table_for(config: SpectrimConfig, seed: int = 0) -> torch.Tensor:
    return uniform("table", (1, config.extra_tokens + config.num_patches, config.hidden_size), seed)


def place(config: SpectrimConfig, frequency: int, time: int) -> int:
    """Where the patch stands in the sequence, extra tokens included."""
    bands, columns = config.grid
    index = frequency * columns + time if config.patch_order == "frequency_major" else time * bands + frequency
    return config.extra_tokens + index


def naive_code(position: float, width: int) -> list[float]:
    angles = [position / 10000 ** (k / (width / 2)) for k in range(width // 2)]
    return [math.sin(angle) for angle in angles] + [math.cos(angle) for angle in angles]


@pytest.mark.parametrize("backbone", ["ast", "audiomae"])
def test_sincos_table_codes_each_patch_by_its_own_time_and_frequency(backbone: str) -> None:
    config = small(backbone, 80)
    table = sincos_position_table(config)
    bands, columns = config.grid
    assert table.shape == (1, config.extra_tokens + bands * columns, 8)
    assert not table[0, : config.extra_tokens].any()
    for frequency in range(bands):
        for time in range(columns):
            expected = naive_code(time, 4) + naive_code(frequency, 4)
            assert table[0, place(config, frequency, time)].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("key", "frames", "width"), [("sincos/8x64x16", 1024, 16), ("sincos/8x8x32", 128, 32)])
def test_audiomae_table_is_the_one_that_the_released_code_fills_in(key: str, frames: int, width: int) -> None:
    config = small("audiomae", frames, num_mel_bins=128, hidden_size=width)
    assert audiomae_position_table(config)[0].numpy() == pytest.approx(RECORDED[key], abs=1e-5)


def test_aligned_and_released_tables_agree_where_patches_are_frequency_major() -> None:
    config = small("audiomae", 80, patch_order="frequency_major")
    assert torch.equal(sincos_position_table(config), audiomae_position_table(config))


def test_sincos_table_needs_a_width_that_splits_in_four() -> None:
    with pytest.raises(InvalidSetting, match="hidden_size"):
        sincos_position_table(small("audiomae", 80, hidden_size=6))


@given(
    old=st.integers(1, 9),
    cut=st.integers(0, 8),
    order_from=st.sampled_from(["frequency_major", "time_major"]),
    order_to=st.sampled_from(["frequency_major", "time_major"]),
    extra=st.integers(1, 2),
    method=st.sampled_from(["middle", "first"]),
)
@settings(max_examples=60, deadline=None)
def test_cutting_keeps_columns_and_extra_tokens(
    old: int, cut: int, order_from: str, order_to: str, extra: int, method: str
) -> None:
    new = max(1, old - cut)
    one = small("ast", 16 * old, patch_order=order_from, extra_tokens=extra)
    other = small("ast", 16 * new, patch_order=order_to, extra_tokens=extra)
    table = table_for(one)
    fitted = adapt_position_table(table, one, other, method)
    start = old // 2 - new // 2 if method == "middle" else 0
    assert torch.equal(fitted[0, :extra], table[0, :extra])
    for frequency in range(3):
        for time in range(new):
            expected = table[0, place(one, frequency, start + time)]
            assert torch.equal(fitted[0, place(other, frequency, time)], expected)


def naive_bilinear(grid: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Half-pixel centres, edges repeated; (r, c, width) → (rows, columns, width)."""
    out = np.zeros((rows, columns, grid.shape[2]))
    for row in range(rows):
        for column in range(columns):
            y = min(max((row + 0.5) * grid.shape[0] / rows - 0.5, 0.0), grid.shape[0] - 1)
            x = min(max((column + 0.5) * grid.shape[1] / columns - 0.5, 0.0), grid.shape[1] - 1)
            for dy, wy in ((math.floor(y), 1 - y % 1), (min(math.floor(y) + 1, grid.shape[0] - 1), y % 1)):
                for dx, wx in ((math.floor(x), 1 - x % 1), (min(math.floor(x) + 1, grid.shape[1] - 1), x % 1)):
                    out[row, column] += wy * wx * grid[dy, dx]
    return out


@given(
    old=st.integers(1, 7),
    new=st.integers(1, 12),
    bins=st.sampled_from([32, 48, 64]),
    backbone=st.sampled_from(["ast", "audiomae"]),
)
@settings(max_examples=40, deadline=None)
def test_interpolation_is_bilinear_on_the_spectrogram(old: int, new: int, bins: int, backbone: str) -> None:
    one, other = small(backbone, 16 * old), small(backbone, 16 * new, num_mel_bins=bins)
    table = table_for(one)
    fitted = adapt_position_table(table, one, other, "interpolate")
    grid = np.stack([[table[0, place(one, f, t)].numpy() for t in range(old)] for f in range(3)])
    expected = naive_bilinear(grid, other.grid[0], new)
    for frequency in range(other.grid[0]):
        for time in range(new):
            got = fitted[0, place(other, frequency, time)].numpy()
            assert got == pytest.approx(expected[frequency, time], abs=1e-5)


@given(old=st.integers(1, 9), cut=st.integers(0, 8))
@settings(max_examples=30, deadline=None)
def test_reference_compat_reads_time_major_as_frequency_major(old: int, cut: int) -> None:
    new = max(1, old - cut)
    one, other = small("audiomae", 16 * old), small("audiomae", 16 * new)
    table = table_for(one)
    fitted = adapt_position_table(table, one, other, "reference_compat")
    for index in range(3 * new):
        row, column = divmod(index, new)
        assert torch.equal(fitted[0, 1 + index], table[0, 1 + row * old + column])


def test_auto_is_the_way_of_the_backbone() -> None:
    for backbone, shorter in (("ast", "middle"), ("audiomae", "first")):
        one, short, long = small(backbone, 96), small(backbone, 48), small(backbone, 160)
        table = table_for(one)
        assert torch.equal(adapt_position_table(table, one, short), adapt_position_table(table, one, short, shorter))
        stretched = adapt_position_table(table, one, long, "interpolate")
        assert torch.equal(adapt_position_table(table, one, long), stretched)


@pytest.mark.parametrize("frames", [48, 160])
def test_auto_continues_a_sincos_table_by_its_own_rule(frames: int) -> None:
    one, other = small("audiomae", 96), small("audiomae", frames)
    assert torch.equal(adapt_position_table(sincos_position_table(one), one, other), sincos_position_table(other))
    released = audiomae_position_table(one)
    fitted = adapt_position_table(released, one, other)
    common = 1 + min(one.num_patches, other.num_patches)
    assert torch.equal(fitted[:, :common], released[:, :common])
    for index in range(other.num_patches):
        expected = naive_code(index % 6, 4) + naive_code(index // 6, 4)
        assert fitted[0, 1 + index].tolist() == pytest.approx(expected, abs=1e-6)


def test_auto_recognises_a_sincos_table_that_was_rounded() -> None:
    one, other = small("audiomae", 96), small("audiomae", 160)
    rounded = audiomae_position_table(one).bfloat16().float()
    fitted = adapt_position_table(rounded, one, other)
    assert torch.equal(fitted, audiomae_position_table(other, row=6))


def test_auto_stretches_a_table_that_was_trained_on() -> None:
    one, other = small("audiomae", 96), small("audiomae", 160)
    trained = audiomae_position_table(one)
    trained[0, 3, 2] += 0.01
    stretched = adapt_position_table(trained, one, other, "interpolate")
    assert torch.equal(adapt_position_table(trained, one, other), stretched)


def test_the_same_grid_leaves_the_table_as_it_is_and_does_not_share_memory() -> None:
    config = small("ast", 96)
    table = table_for(config)
    for method in ("auto", "middle", "first", "interpolate", "reference_compat"):
        fitted = adapt_position_table(table, config, config, method)
        assert torch.equal(fitted, table)
        assert fitted.data_ptr() != table.data_ptr()


@pytest.mark.parametrize("method", ["middle", "first", "reference_compat"])
def test_methods_that_cut_refuse_longer_inputs_and_other_bands(method: str) -> None:
    config = small("ast", 96)
    for other in (small("ast", 112), small("ast", 48, num_mel_bins=64)):
        with pytest.raises(InvalidSetting, match="positions"):
            adapt_position_table(table_for(config), config, other, method)


def test_what_cannot_fit_is_refused() -> None:
    config = small("ast", 96)
    table = table_for(config)
    with pytest.raises(InvalidSetting, match="one of auto"):
        adapt_position_table(table, config, config, "stretch")
    with pytest.raises(InputShapeError, match="position table"):
        adapt_position_table(table[:, 1:], config, config)
    with pytest.raises(InputShapeError, match="extra_tokens"):
        adapt_position_table(table, config, small("ast", 96, extra_tokens=1))
    with pytest.raises(InputShapeError, match="hidden_size"):
        adapt_position_table(table, config, small("ast", 96, hidden_size=12))
