"""Weights under the wrappers and prefixes of training scripts, and files that are not what they seem."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from checkpoint_files import audiomae, hf_model, official_ast, save
from torch import Tensor

from spectrim.backbones import ast_tiny
from spectrim.checkpoints import describe, from_pretrained, load_autoencoder
from spectrim.config import LARGEST_WHOLE_NUMBERS
from spectrim.errors import CheckpointError, InvalidSetting
from spectrim.network.transformer import AudioTransformer

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

Weights = dict[str, Tensor]
PLAIN = official_ast(prefix="", depth=1)


def named(rename: Callable[[str], str]) -> Weights:
    return {rename(name): value for name, value in PLAIN.items()}


WRAPPED: dict[str, object] = {
    "compiled": named(lambda name: f"_orig_mod.{name}"),
    "compiled inside": named(lambda name: name.replace("v.", "v._orig_mod.", 1) if name.startswith("v.") else name),
    "parallel and compiled": named(lambda name: f"module._orig_mod.{name}"),
    "Lightning": {"state_dict": named(lambda name: f"model.{name}"), "epoch": 3, "callbacks": {}, "loops": {"a": 1}},
    "Lightning, compiled": {"state_dict": named(lambda name: f"model._orig_mod.{name}"), "global_step": 7},
    "average alone": {"model_ema": PLAIN, "optimizer": {"state": {}}, "epoch": 1},
    "average inside": {"ema": {"state_dict": named(lambda name: f"module.{name}"), "decay": 0.999}},
    "model and an equal average": {"model": PLAIN, "ema": {name: value.clone() for name, value in PLAIN.items()}},
    "equal, side by side": named(lambda name: f"model.{name}") | named(lambda name: f"ema_model.{name}"),
    "nested": {"state_dict": {"model": {"state_dict": named(lambda name: f"module.model.{name}")}}},
}


@pytest.mark.parametrize("way", WRAPPED)
def test_what_training_scripts_put_around_the_weights_is_taken_off(tmp_path: Path, way: str) -> None:
    wanted = from_pretrained(save(tmp_path, PLAIN, "plain.pth")).state_dict()
    found = from_pretrained(save(tmp_path, WRAPPED[way])).state_dict()
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_models_that_differ_in_one_file_are_refused_by_their_places(tmp_path: Path) -> None:
    other = {name: value + 1 for name, value in PLAIN.items()}
    both = {f"model.{name}": value for name, value in PLAIN.items()}
    for content, places in (
        ({"model": PLAIN, "model_ema": other}, "model, model_ema"),
        ({"state_dict": PLAIN, "state_dict_ema": other}, "state_dict, state_dict_ema"),
        ({"ema": {"model": other}, "model": PLAIN}, "model, ema/model"),
        (both | {f"ema.{name}": value for name, value in other.items()}, "ema"),
    ):
        with pytest.raises(CheckpointError, match=f"several places .*{places}.* that differ"):
            from_pretrained(save(tmp_path, content))
    with pytest.raises(CheckpointError, match="with and without _orig_mod"):
        from_pretrained(save(tmp_path, PLAIN | {"_orig_mod.v.cls_token": PLAIN["v.cls_token"]}))
    with pytest.raises(CheckpointError, match=r"Unexpected: criterion\.weight|named criterion"):
        from_pretrained(save(tmp_path, {**PLAIN, "criterion.weight": torch.ones(3)}))


def test_prefixes_in_safetensors_are_taken_off_too(tmp_path: Path) -> None:
    wanted = from_pretrained(save(tmp_path, {"model": audiomae()}))
    compiled = {f"_orig_mod.{name}": value for name, value in audiomae().items()}
    safetensors.torch.save_file(compiled, tmp_path / "compiled.safetensors")
    found = from_pretrained(tmp_path / "compiled.safetensors").state_dict()
    assert all(torch.equal(found[name], value) for name, value in wanted.state_dict().items())


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 345678\n"


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "ast.pth", "config.json"])
def test_a_git_lfs_pointer_is_called_that(tmp_path: Path, name: str) -> None:
    hf_model().save_pretrained(tmp_path)
    if name != "config.json":
        (tmp_path / "model.safetensors").unlink()
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(CheckpointError, match=rf"{name}: is a Git LFS pointer.*git lfs pull"):
        from_pretrained(tmp_path)


@pytest.mark.parametrize("wrong", [None, 3, "", b"spectrim-mini", ["spectrim-mini"]])
def test_what_is_no_path_is_refused(wrong: Any) -> None:
    for load in (from_pretrained, describe):
        with pytest.raises(InvalidSetting, match=r"model is .*; allowed: a path to a checkpoint"):
            load(wrong)


@pytest.mark.parametrize("place", ["x" * 5000, os.devnull, "~nobody-by-this-name/x.pth"])
def test_a_place_that_cannot_hold_a_checkpoint_is_refused(place: str) -> None:
    with pytest.raises(CheckpointError) as found:
        from_pretrained(place)
    assert "\n" not in str(found.value) and len(str(found.value)) < 500


# config.json


def own(folder: Path, **changes: object) -> Path:
    """A saved model whose config.json says something else."""
    if not (folder / "model.safetensors").exists():
        labels = dict(enumerate("abc"))
        AudioTransformer(ast_tiny(max_length=128, num_hidden_layers=1, prune_at=[], id2label=labels)).save_pretrained(
            folder
        )
        (folder / "config.json").rename(folder / "saved.json")
    config = json.loads((folder / "saved.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return folder


@pytest.mark.parametrize("layout", ["own", "hugging-face"])
def test_what_names_code_is_ignored(tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise AssertionError("something was to be downloaded")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    evil = {
        "attn_implementation": "someone/kernel:forward",
        "_attn_implementation": "someone/kernel",
        "_attn_implementation_internal": "someone/kernel",
        "experts_implementation": "someone/kernel",
        "auto_map": {"AutoModel": "evil.Model"},
        "quantization_config": {"quant_method": "evil"},
        "dtype": "nn",
    }
    if layout == "own":
        folder = own(tmp_path, **evil)
    else:
        hf_model().save_pretrained(tmp_path)
        folder, config = tmp_path, json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, **evil}))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = from_pretrained(folder)
    assert model.config._attn_implementation in ("sdpa", "eager", None)
    if layout == "own":
        assert any("ignored in its config.json" in str(one.message) and "auto_map" in str(one.message) for one in told)


def test_sizes_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    for field in LARGEST_WHOLE_NUMBERS.keys() - {"num_labels"}:
        with pytest.raises(CheckpointError, match=field):
            describe(own(tmp_path, **{field: 10**12}))


@pytest.mark.parametrize(
    "changes",
    [
        *(
            {"id2label": wrong}
            for wrong in ([1, 2], "abc", 3, {"0": {"a": 1}}, {"0": "a"}, {"x": "a"}, {"9" * 5000: "a"})
        ),
        *({"hidden_size": wrong} for wrong in ("192", 192.5, None, [192], True, -1, 10**400)),
        *({"prune_at": wrong} for wrong in (3, "3", [1.5], [[0]], [10**30], {"a": 1})),
        *({"keep_rate": wrong} for wrong in ("half", {}, None, [0.5, 0.5])),
        *({name: 3} for name in ("check", "grid", "to_dict", "plan", "multi_label", "num_patches")),
        *({name: "x"} for name in ("mean", "std", "padding", "head_norm", "problem_type", "backbone", "criterion")),
    ],
    ids=lambda changes: str(changes)[:40],
)
def test_fields_of_the_wrong_type_are_one_typed_line(tmp_path: Path, changes: dict[str, Any]) -> None:
    for load in (from_pretrained, describe):
        with pytest.raises(CheckpointError) as found:
            load(own(tmp_path, **changes))
        assert "\n" not in str(found.value) and len(str(found.value)) < 1000


def test_labels_that_are_missing_are_missed(tmp_path: Path) -> None:
    own(tmp_path)
    config = json.loads((tmp_path / "saved.json").read_text())
    del config["id2label"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"no id2label.*3 outputs"):
        from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "text", ["[" * 200_000, '{"a": ' + "[" * 200_000 + "]" * 200_000 + "}", "[]", "nul", "\x00", ""]
)
def test_broken_json_is_one_typed_line(tmp_path: Path, text: str) -> None:
    for name in ("config.json", "preprocessor_config.json"):
        own(tmp_path)
        (tmp_path / name).write_text(text)
        for load in (from_pretrained, load_autoencoder):
            with pytest.raises(CheckpointError, match=name) as found:
                load(tmp_path)
            assert "\n" not in str(found.value) and len(str(found.value)) < 600
        (tmp_path / name).unlink()
