"""The stride of an official AST: the true one, or a refusal that names the choices."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkpoint_files import audiomae, hf_model, official_ast, save

from spectrim.checkpoints import DescribedSource, describe, from_pretrained
from spectrim.checkpoints.files import Source
from spectrim.checkpoints.grid import PUBLISHED, find_grid
from spectrim.checkpoints.notices import OtherLength
from spectrim.errors import CheckpointError, InvalidSetting

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

NOTHING = Source("file", {}, {}, {}, None, {})
LENGTHS = range(100, 1101)
STRIDES = range(10, 17)


def patches_of(frames: int, stride: tuple[int, int]) -> int:
    """What AST's convolution makes of an input, by torch."""
    made = torch.nn.functional.conv2d(
        torch.empty(1, 1, 128, frames, device="meta"), torch.empty(1, 1, 16, 16, device="meta"), stride=stride
    )
    return made[0, 0].numel()


def strides_of(found: dict[str, int]) -> tuple[int, int]:
    return found["frequency_stride"], found["time_stride"]


COUNTS = {(frames, stride): patches_of(frames, (stride, stride)) for frames in LENGTHS for stride in STRIDES}


@pytest.mark.parametrize("outputs", [0, 3, 35, 50, 527])
def test_every_length_and_stride_is_told_right_or_refused(outputs: int) -> None:
    wrong = []
    for (frames, stride), patches in COUNTS.items():
        try:
            found = find_grid(NOTHING, patches, 16, outputs)
        except CheckpointError as error:
            assert f"stride={stride} with" in str(error) and "Give stride=" in str(error)
            continue
        if strides_of(found) != (stride, stride):
            wrong.append((frames, stride))
    # A grid of 8 rows that is published for stride 16; and, with as many labels, other published grids.
    unpublished = {(frames, 15) for frames in range(961, 976)}
    assert unpublished <= set(wrong)
    doubtful = {
        case for case, patches in COUNTS.items() if (patches, outputs) in PUBLISHED and (patches, None) not in PUBLISHED
    }
    assert set(wrong) <= unpublished | doubtful
    if outputs in (0, 3):
        assert set(wrong) == unpublished


def test_a_stride_gives_the_frames_and_frames_give_the_stride() -> None:
    for (frames, stride), patches in COUNTS.items():
        found = find_grid(replace(NOTHING, stride=(stride, stride)), patches, 16, 3)
        assert strides_of(found) == (stride, stride)
        assert COUNTS.get((found["max_length"], stride), patches) == patches
        try:
            found = find_grid(replace(NOTHING, frames=frames), patches, 16, 3)
        except CheckpointError as error:
            assert f"stride={stride} with" in str(error)
            continue
        assert strides_of(found) == (stride, stride)
        assert found["max_length"] == frames


@pytest.mark.parametrize(("patches", "outputs"), PUBLISHED)
def test_published_sizes_need_no_word(tmp_path: Path, patches: int, outputs: int | None) -> None:
    stride, frames = PUBLISHED[patches, outputs]
    assert patches_of(frames, (stride, stride)) == patches
    said = describe(save(tmp_path, official_ast(patches=patches, labels=outputs or 5)))
    assert (said["frequency_stride"], said["time_stride"], said["max_length"]) == (stride, stride, frames)


def test_frames_that_fit_a_model_to_another_length_are_noted(tmp_path: Path) -> None:
    path = save(tmp_path, official_ast(patches=512, labels=527))
    with pytest.warns(OtherLength, match="hears 500 frames, as was said, where by itself it hears 1024"):
        assert from_pretrained(DescribedSource(str(path), frames=500)).config.max_length == 500
    with warnings.catch_warnings():
        warnings.simplefilter("error", OtherLength)
        from_pretrained(DescribedSource(str(path), frames=1024))
        from_pretrained(path, frames=500)
        from_pretrained(DescribedSource(str(path), frames=500), labels=["a", "b"])


def test_an_ast_of_its_own_length_is_loaded_as_it_was_trained(tmp_path: Path) -> None:
    path = save(tmp_path, official_ast(patches=patches_of(312, (10, 10)), labels=3))
    for load in (from_pretrained, describe):
        with pytest.raises(CheckpointError, match="stride=10 with 306 to 315 frames"):
            load(path)
    by_stride = from_pretrained(path, stride=10)
    assert (by_stride.config.grid, by_stride.config.max_length) == ((12, 30), 306)
    for way in (from_pretrained(path, frames=312), from_pretrained(DescribedSource(str(path), frames=312))):
        assert (way.config.grid, way.config.max_length) == ((12, 30), 312)
        table = "embeddings.position_table"
        assert torch.equal(way.state_dict()[table], by_stride.state_dict()[table])
    shorter = from_pretrained(DescribedSource(str(path), stride=10), frames=128).config
    assert (shorter.grid, shorter.max_length) == ((12, 12), 128)
    with pytest.raises(CheckpointError, match="several"):
        from_pretrained(path, frames=128)
    assert describe(path, stride=[10, 10])["grid"] == (12, 30)


def test_strides_may_differ_along_the_axes(tmp_path: Path) -> None:
    path = save(tmp_path, official_ast(patches=patches_of(400, (10, 16)), labels=3))
    config = from_pretrained(path, stride=(10, 16), frames=400).config
    assert (config.frequency_stride, config.time_stride, config.grid, config.max_length) == (10, 16, (12, 25), 400)


def test_a_published_grid_and_another_length_that_fits_it_needs_the_stride(tmp_path: Path) -> None:
    path = save(tmp_path, official_ast(patches=512))
    with pytest.raises(CheckpointError, match="stride=15 with 961 to 975 frames"):
        from_pretrained(path, frames=970)
    assert from_pretrained(path, frames=970, stride=16).config.grid == (8, 60)
    assert from_pretrained(path, stride=15).config.max_length == 961


def test_wrong_strides_are_named_with_what_fits(tmp_path: Path) -> None:
    for wrong in (0, -1, 1.5, "10", True, (10,), (10, 0), [1, 2, 3]):
        with pytest.raises(InvalidSetting, match="stride"):
            from_pretrained("nowhere/at/all", stride=wrong)
    path = save(tmp_path, official_ast(patches=360))
    for wrong in (11, 17, (10, 40)):
        with pytest.raises(InvalidSetting, match="stride=10 with 306 to 315 frames"):
            from_pretrained(path, stride=wrong)


def test_a_stride_that_the_file_contradicts_is_refused(tmp_path: Path) -> None:
    hf_model(10).save_pretrained(tmp_path / "hf")
    assert from_pretrained(tmp_path / "hf", stride=10).config.time_stride == 10
    with pytest.raises(InvalidSetting, match=r"stride is \(16, 16\); allowed: \(10, 10\)"):
        from_pretrained(tmp_path / "hf", stride=16)
    path = save(tmp_path, {"model": audiomae()})
    assert from_pretrained(path, stride=16).config.grid == (8, 8)
    with pytest.raises(InvalidSetting, match="what makes 64 patches"):
        from_pretrained(path, stride=12)
