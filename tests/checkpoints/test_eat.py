"""EAT on seeded weights, beside what its public classes return; see reference/README.md."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from checkpoint_files import eat, save
from seeded import uniform

from spectrim import Pruning, from_pretrained
from spectrim.backbones import eat_base
from spectrim.checkpoints import describe
from spectrim.errors import CheckpointError, InvalidSetting
from spectrim.network.positions import sincos_position_table

RECORDED = np.load(Path(__file__).parents[1] / "reference" / "eat.npz")
SEED = 11

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights that were recorded."""
    return save(tmp_path_factory.mktemp("eat"), {"model": eat(labels=10, width=128, depth=4)}, "eat.pt")


@pytest.mark.parametrize(("frames", "grid"), [(128, (8, 8)), (1024, (8, 64))])
def test_logits_are_those_of_the_public_class_dense_and_pruned(frames: int, grid: tuple[int, int], file: Path) -> None:
    model = from_pretrained(file, frames=frames)
    values = uniform(f"eat-{frames}", (2, frames, 128), SEED)
    with torch.no_grad():
        dense = model(values).logits.numpy()
        pruned = model(values, pruning=Pruning(0.5, (1, 2)), output_token_trace=True)
    wanted = RECORDED[f"{frames}/logits"], RECORDED[f"{frames}/pruned/logits"]
    assert model.config.grid == grid and wanted[0].std() > 0.3 and np.abs(wanted[0] - wanted[1]).max() > 0.01
    assert np.abs(dense - wanted[0]).max() < 2e-4
    assert np.abs(pruned.logits.numpy() - wanted[1]).max() < 2e-4
    kept = torch.stack(pruned.token_trace.kept, dim=1).flatten(2).numpy()
    assert np.array_equal(np.packbits(kept, axis=-1), RECORDED[f"{frames}/pruned/kept"])


def test_positions_are_those_that_the_public_code_fills_in_at_every_length(file: Path) -> None:
    whole = sincos_position_table(eat_base(hidden_size=128, num_attention_heads=2, max_length=768 * 16))
    assert np.abs(whole[0, 1::97, ::5].numpy() - RECORDED["positions"]).max() < 1e-4
    short, long = (from_pretrained(file, frames=frames).embeddings.position_table for frames in (512, 20000))
    assert torch.equal(short[:, :1], torch.zeros(1, 1, 128)), "[CLS] has no position"
    torch.testing.assert_close(short, whole[:, : 1 + 8 * 32], atol=1e-4, rtol=0)
    assert long.shape[1] == 1 + 8 * 1250
    torch.testing.assert_close(long[:, : 1 + 8 * 768], whole, atol=1e-4, rtol=0)


def test_what_its_file_says_of_its_model(file: Path) -> None:
    told = describe(file)
    assert (told["layout"], told["backbone"], told["grid"], told["max_length"]) == ("eat", "eat", (8, 64), 1024)
    assert [told[name] for name in ("features", "mean", "std", "padding")] == ["log_mel", -4.268, 4.569, "zero"]
    config = from_pretrained(file).config
    assert (config.resolved_criterion, config.norm_first, config.embedding_norm) == ("cls_attention", False, True)


def test_a_finetuned_file_says_its_length_and_its_statistics_in_its_settings(tmp_path: Path) -> None:
    task = {"target_length": 512, "esc50_eval": True, "spcv2_eval": False}
    told = describe(save(tmp_path, {"model": eat(), "cfg": {"task": task}}))
    assert (told["max_length"], told["mean"], told["std"]) == (512, -6.627, 5.359)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_pretrained(tmp_path / "weights.pth")
    with pytest.warns(UserWarning, match="does not say with which mean and std"):
        from_pretrained(save(tmp_path, {"model": eat()}))
    nothing = describe(save(tmp_path, {"model": eat(), "cfg": {"task": {"target_length": None}}}))
    assert (nothing["max_length"], nothing["mean"]) == (1024, -4.268)


def test_a_pretrained_file_leaves_its_decoder_and_its_teacher(tmp_path: Path, file: Path) -> None:
    state = eat(labels=10, width=128, depth=4, form="pretrained")
    teacher = {name: value + 1 for name, value in state.items()}
    saved = save(tmp_path, {"model": {**state, "_ema": teacher}, "cfg": {"model": {"depth": 4}}, "args": None})
    assert describe(saved)["labels"] == 0
    with pytest.raises(CheckpointError, match="an encoder without a head"):
        from_pretrained(saved)
    model, tuned = from_pretrained(saved, labels=["a", "b"]), from_pretrained(file)
    for name, weight in tuned.state_dict().items():
        if not name.startswith("head."):
            assert torch.equal(model.state_dict()[name], weight), name
    assert torch.equal(model.head.norm.weight, torch.ones(128))


def release(folder: Path, **fields: Any) -> Path:
    """The recorded weights as the release on the hub has them."""
    folder.mkdir(exist_ok=True)
    safetensors.torch.save_file(eat(labels=10, width=128, depth=4, form="released"), folder / "model.safetensors")
    config = {"model_type": "eat", "num_heads": 2, "stride": 16, "img_size": [1024, 128], "layer_norm_first": False}
    (folder / "config.json").write_text(json.dumps({**config, "norm_eps": 1e-6, **fields}))
    return folder


def test_the_release_on_the_hub_is_the_same_model(tmp_path: Path, file: Path) -> None:
    ours, theirs = from_pretrained(release(tmp_path / "eat")), from_pretrained(file)
    for name, weight in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], weight), name
    assert (ours.config.head_norm_eps, theirs.config.head_norm_eps) == (1e-5, 1e-6), "as each class has it"
    assert describe(release(tmp_path / "eat", img_size=[512, 128]))["max_length"] == 512


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"layer_norm_first": True}, "layer_norm_first is True; only False is understood"),
        ({"stride": 10}, "stride is 10; only 16"),
        ({"num_heads": 3}, "num_attention_heads=3"),
    ],
)
def test_a_release_that_is_another_model_is_refused(fields: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        describe(release(tmp_path / "eat", **fields))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"modality_encoders.IMAGE.alibi_bias": (1, 2, 3)}, r"Unexpected: .*alibi_bias"),
        ({"modality_encoders.IMAGE.context_encoder.norm.weight": None}, r"Missing: .*context_encoder\.norm\.weight"),
        ({"modality_encoders.IMAGE.fixed_positional_encoder.positions": (1, 513, 64)}, "no columns of 8 patches"),
        ({"blocks.0.attn.qkv.bias": None}, r"Missing: blocks\.0\.attn\.qkv\.bias"),
    ],
)
def test_a_file_that_is_another_model_is_refused(change: dict, message: str, tmp_path: Path) -> None:
    state = eat(form="pretrained", times=64)
    for name, shape in change.items():
        state.pop(name, None)
        state |= {} if shape is None else {name: torch.zeros(shape)}
    with pytest.raises(CheckpointError, match=message):
        from_pretrained(save(tmp_path, state), labels=["a"])
    with pytest.raises(InvalidSetting, match="16: the patches of EAT do not overlap"):
        describe(save(tmp_path, eat(times=64)), stride=10)
