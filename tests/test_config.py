"""The configuration: what it refuses and how it says so, what it derives, and that it survives being saved."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spectrim.backbones import ast_base, audiomae_base
from spectrim.config import SpectrimConfig
from spectrim.errors import InvalidSetting, SpectrimError

WRONG = [
    *(
        ("keep_rate", value)
        for value in (0, 0.0, -0.1, 1.0001, float("nan"), float("inf"), "0.5", None, True, [0.5, 0.5])
    ),
    *(("keep_rate", value) for value in (torch.tensor(0.5), np.array([0.5, 0.5, 0.5]), {"a": 0.5}, b"0.5")),
    *(
        ("prune_at", value)
        for value in (3, None, "3", [12], [-1], [3.0], [True], [3, 3], [[3]], np.array([3]), {3: 0.5})
    ),
    *(("backbone", value) for value in ("vit", None, 3, ["ast"])),
    *(("criterion", value) for value in ("loudest", None, "CLS_ATTENTION", 1)),
    *(("padding", value) for value in ("max", 0, None)),
    *(("patch_order", value) for value in ("random", None)),
    *(("pooling", value) for value in ("cls", None)),
    *(("problem_type", value) for value in ("regression", 1)),
    *(("hidden_size", value) for value in (0, -64, 65, 64.0, "64", None, True)),
    *(
        (field, value)
        for field in ("num_hidden_layers", "num_attention_heads", "intermediate_size")
        for value in (0, 1.5)
    ),
    *(("patch_size", value) for value in (0, 1.5, None)),
    *((field, value) for field in ("frequency_stride", "time_stride") for value in (0, 17, 2.5)),
    *((field, value) for field in ("max_length", "num_mel_bins") for value in (0, 15, 128.0, None)),
    *(("extra_tokens", value) for value in (-1, 3, True)),
    *(("sampling_rate", value) for value in (0, -16000, 16000.0)),
    *(("std", value) for value in (0, -1.0, float("nan"), float("inf"), "1", None)),
    *(("mean", value) for value in (float("nan"), float("-inf"), "0", None)),
    *(("drop_path_rate", value) for value in (-0.1, 1.0, 2, float("nan"), "0")),
    *((field, -1e-6) for field in ("layer_norm_eps", "head_norm_eps", "initializer_range", "head_init_std")),
    *((field, "yes") for field in ("position_trainable", "head_norm", "qkv_bias", "reference_compat", "drop_padding")),
    *(("embedding_size", value) for value in (-1, 1.5, None)),
    *(("position_kernel", value) for value in (-1, 128.0, True)),
    *(("position_groups", value) for value in (0, 5)),
    *(("relative_buckets", value) for value in (-4, 6, "320")),
    *(("relative_distance", value) for value in (0, None)),
    *(("deep_norm", value) for value in ("yes", True)),
    *(("random_seed", value) for value in (-1, 0.5, "0")),
    *(("time_segments", value) for value in (0, -1, 2.0, True, 65)),
    *(("attention_mass", value) for value in (1.0, -0.1, "half", None, float("nan"))),
    ("reference_compat", True),
    ("num_labels", 0),
]


@pytest.mark.parametrize(("field", "value"), WRONG, ids=lambda part: str(part)[:24])
def test_a_wrong_setting_is_named_with_its_value_and_what_is_allowed(field: str, value: object) -> None:
    with pytest.raises(InvalidSetting) as error:
        SpectrimConfig(**{field: value})
    assert isinstance(error.value, SpectrimError) and isinstance(error.value, ValueError)
    assert error.value.field == field
    text = str(error.value)
    assert text.startswith(f"{field} is {error.value.value!r}; allowed: ") and "\n" not in text
    assert error.value.allowed and text.endswith(error.value.allowed)


def test_what_is_wrong_only_together_is_refused() -> None:
    with pytest.raises(InvalidSetting, match="prune_at is 9"):
        ast_base(num_hidden_layers=9)
    with pytest.raises(InvalidSetting, match="drop_padding"):
        ast_base(criterion="intensity", reference_compat=True, drop_padding=True)
    with pytest.raises(InvalidSetting, match="num_attention_heads=7"):
        ast_base(num_attention_heads=7)
    with pytest.raises(InvalidSetting, match="2 of them"):
        ast_base(keep_rate=[0.5, 0.4, 0.3], prune_at=[1, 2])
    with pytest.raises(InvalidSetting, match=r"pooling is 'extra_tokens'.*mean_normed_patches.*with extra_tokens=0"):
        ast_base(extra_tokens=0)
    with pytest.raises(InvalidSetting, match=r"criterion is 'cls_attention'; allowed: .*has no \[CLS\]"):
        audiomae_base(extra_tokens=0, criterion="cls_attention")


def test_everything_that_is_right_is_taken() -> None:
    for fields in (
        {"keep_rate": 1},
        {"keep_rate": (0.5, 0.4, 1)},
        {"keep_rate": np.float64(0.5)},
        {"keep_rate": 1e-9},
        {"prune_at": []},
        {"prune_at": range(3)},
        {"prune_at": (0, 11)},
        {"drop_path_rate": 0},
        {"layer_norm_eps": 1e-12},
        {"std": 1, "mean": 0},
        {"criterion": "variation", "reference_compat": True},
        {"max_length": 16, "num_mel_bins": 16},
    ):
        config = SpectrimConfig(**fields)
        assert json.loads(config.to_json_string(use_diff=False))["keep_rate"] == config.keep_rate
        assert isinstance(config.prune_at, list)


def test_keep_rates_belong_to_their_blocks() -> None:
    config = ast_base(prune_at=[9, 3, 6], keep_rate=[0.7, 0.9, 0.8])
    assert config.pruning.rates == {9: 0.7, 3: 0.9, 6: 0.8}
    assert config.pruning.changed({"keep_rate": 0.5}).rates == {9: 0.5, 3: 0.5, 6: 0.5}
    assert config.pruning.changed({"keep_rate": (1, 0.5, 0.25)}).rates == {9: 1.0, 3: 0.5, 6: 0.25}
    assert ast_base().pruning.rates == {3: 1.0, 6: 1.0, 9: 1.0}


@settings(deadline=None, max_examples=50)
@given(
    frames=st.integers(16, 3000),
    mels=st.integers(16, 200),
    patch=st.integers(4, 16),
    strides=st.tuples(st.integers(1, 4), st.integers(1, 4)),
)
def test_the_grid_is_the_number_of_patches_that_fit(
    frames: int, mels: int, patch: int, strides: tuple[int, int]
) -> None:
    config = ast_base(
        max_length=frames, num_mel_bins=mels, patch_size=patch, frequency_stride=strides[0], time_stride=strides[1]
    )
    starts = [range(0, size - patch + 1, step) for size, step in zip((mels, frames), strides, strict=True)]
    assert config.grid == (len(starts[0]), len(starts[1]))
    assert config.num_patches == len(starts[0]) * len(starts[1])


def test_patches_of_the_paper() -> None:
    """10 s, 5 s and 1 s give 512, 256 and 64 patches; stride 10 gives 1212 (AST, Gong et al., 2021)."""
    assert [ast_base(max_length=frames).num_patches for frames in (1024, 512, 128)] == [512, 256, 64]
    assert ast_base(frequency_stride=10, time_stride=10).num_patches == 1212


def test_a_saved_configuration_is_the_same(tmp_path: Path) -> None:
    config = audiomae_base(
        keep_rate=[0.9, 0.8],
        prune_at=[2, 5],
        criterion="variation",
        drop_padding=True,
        padding="minimum",
        mean=-6.4,
        std=3.1,
        max_length=512,
        id2label={0: "dog", 1: "cat", 2: "rain"},
        problem_type="multi_label_classification",
    )
    config.save_pretrained(tmp_path)
    loaded = SpectrimConfig.from_pretrained(tmp_path)
    assert {**loaded.to_dict(), "_name_or_path": ""} == {**config.to_dict(), "_name_or_path": ""}
    assert loaded.id2label == {0: "dog", 1: "cat", 2: "rain"} and loaded.label2id["rain"] == 2
    assert loaded.num_labels == 3
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["model_type"] == "spectrim" and written["keep_rate"] == [0.9, 0.8] and written["prune_at"] == [2, 5]
    assert pickle.loads(pickle.dumps(config)).to_dict() == config.to_dict()


def test_a_hand_edited_file_is_refused_by_field(tmp_path: Path) -> None:
    ast_base().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    for field, value in (("keep_rate", 7), ("criterion", "best"), ("prune_at", [40])):
        path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
        with pytest.raises(InvalidSetting, match=field):
            SpectrimConfig.from_pretrained(tmp_path)
        ast_base().save_pretrained(tmp_path)


def test_labels_leave_no_output_without_a_name() -> None:
    for wrong in ({1: "a"}, {0: "a", 2: "b"}):
        with pytest.raises(InvalidSetting, match="id2label"):
            ast_base(id2label=wrong)
