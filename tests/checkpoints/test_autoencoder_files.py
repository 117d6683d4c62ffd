"""Masked autoencoders on disk: AudioMAE's official layout with its decoder, and Spectrim's own."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from checkpoint_files import audiomae, save, vit_shapes
from seeded import seeded_state
from small_masked import small
from torch import Tensor

from spectrim.checkpoints import LicenceNotice, describe, from_pretrained, load_autoencoder
from spectrim.errors import CheckpointError
from spectrim.network.masked.saving import save_autoencoder, save_encoder

pytestmark = pytest.mark.filterwarnings("ignore::spectrim.checkpoints.notices.LicenceNotice")

WIDTH, DECODER = 64, 32


def official(*, attention: str = "local", layers: int = 2, patches: int = 64) -> dict[str, Tensor]:
    """As AudioMAE saves it after pre-training."""
    shapes: dict[str, tuple[int, ...]] = vit_shapes(WIDTH) | {
        "pos_embed": (1, 1 + patches, WIDTH),
        "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,),
        "mask_token": (1, 1, DECODER),
        "decoder_pos_embed": (1, 1 + patches, DECODER),
        "decoder_embed.weight": (DECODER, WIDTH),
        "decoder_embed.bias": (DECODER,),
        "decoder_norm.weight": (DECODER,),
        "decoder_norm.bias": (DECODER,),
        "decoder_pred.weight": (256, DECODER),
        "decoder_pred.bias": (256,),
    }
    for name, shape in vit_shapes(DECODER, layers).items():
        if name.startswith("blocks."):
            shapes[f"decoder_{name}"] = shape
    for layer in range(layers if attention == "local" else 0):
        inside = f"decoder_blocks.{layer}.attn."
        shapes[f"{inside}tau"] = (4,)
        shapes |= {f"{inside}meta_mlp.fc1.weight": (12, 2), f"{inside}meta_mlp.fc1.bias": (12,)}
        shapes |= {f"{inside}meta_mlp.fc2.weight": (4, 12), f"{inside}meta_mlp.fc2.bias": (4,)}
    return seeded_state(shapes, 3)


def test_every_weight_is_put_in_its_place(tmp_path: Path) -> None:
    weights = official()
    with pytest.warns(LicenceNotice, match="CC BY-NC"):
        model = load_autoencoder(save(tmp_path, {"model": weights}))
    assert not model.training
    config, ours = model.config, model.state_dict()
    assert (config.decoder_width, config.decoder_layers, config.decoder_heads) == (32, 2, 4)
    assert (config.decoder_attention, config.decoder_window, config.decoder_shift) == ("local", 4, 2)
    assert (config.decoder_bias_width, config.normalise_patches, config.grid) == (12, True, (8, 8))
    for place, name in {
        "encoder.embeddings.cls_token": "cls_token",
        "encoder.embeddings.position_table": "pos_embed",
        "encoder.norm.weight": "norm.weight",
        "decoder.mask_token": "mask_token",
        "decoder.position_table": "decoder_pos_embed",
        "decoder.embed.bias": "decoder_embed.bias",
        "decoder.norm.weight": "decoder_norm.weight",
        "decoder.prediction.weight": "decoder_pred.weight",
        "decoder.blocks.1.attention.joint.weight": "decoder_blocks.1.attn.qkv.weight",
        "decoder.blocks.1.attention.output.bias": "decoder_blocks.1.attn.proj.bias",
        "decoder.blocks.1.attention.temperature": "decoder_blocks.1.attn.tau",
        "decoder.blocks.0.attention.bias.up.weight": "decoder_blocks.0.attn.meta_mlp.fc1.weight",
        "decoder.blocks.0.attention.bias.down.bias": "decoder_blocks.0.attn.meta_mlp.fc2.bias",
        "decoder.blocks.0.mlp.up.weight": "decoder_blocks.0.mlp.fc1.weight",
        "decoder.blocks.0.norm1.weight": "decoder_blocks.0.norm1.weight",
        "decoder.blocks.0.norm2.bias": "decoder_blocks.0.norm2.bias",
    }.items():
        assert torch.equal(ours[place], weights[name]), place
    projection = weights["patch_embed.proj.weight"].transpose(2, 3)
    assert torch.equal(ours["encoder.embeddings.projection.weight"], projection)


def test_with_global_attention_queries_stand_apart(tmp_path: Path) -> None:
    weights = official(attention="global")
    model = load_autoencoder(save(tmp_path, {"model": weights}))
    assert (model.config.decoder_attention, model.config.decoder_heads) == ("global", 16)
    joint = weights["decoder_blocks.1.attn.qkv.weight"]
    assert torch.equal(model.decoder.blocks[1].attention.query.weight, joint[:32])
    assert torch.equal(model.decoder.blocks[1].attention.key_value.weight, joint[32:])


@pytest.mark.parametrize("attention", ["local", "global"])
def test_every_weight_is_needed_and_no_other_taken(tmp_path: Path, attention: str) -> None:
    state = official(attention=attention, layers=1)
    for name in [name for name in state if name.startswith(("decoder", "mask", "norm"))]:
        without = {key: value for key, value in state.items() if key != name}
        renamed = {**without, f"{name}_old": state[name]}
        longer = {**without, name: torch.cat([state[name]] * 2, dim=-1)}
        for broken in (without, renamed, longer):
            with pytest.raises(CheckpointError):
                load_autoencoder(save(tmp_path, {"model": broken}))
    with pytest.raises(CheckpointError, match=r"Missing: decoder_norm\.bias\. Unexpected: decoder_norm\.bais"):
        state["decoder_norm.bais"] = state.pop("decoder_norm.bias")
        load_autoencoder(save(tmp_path, state))


def test_the_arguments_saved_along_are_heard(tmp_path: Path) -> None:
    arguments = argparse.Namespace(no_shift=True, norm_pix_loss=False)
    config = load_autoencoder(save(tmp_path, {"model": official(), "args": arguments})).config
    assert (config.decoder_shift, config.normalise_patches) == (0, False)


def test_its_encoder_is_the_one_that_fine_tuning_loads(tmp_path: Path) -> None:
    path = save(tmp_path, {"model": official()})
    whole, alone = load_autoencoder(path).encoder.state_dict(), from_pretrained(path, labels=["a", "b"]).state_dict()
    left = {name for name in alone if not name.startswith(("norm.", "head."))}
    assert left == {name for name in whole if not name.startswith("norm.")}
    for name in left:
        assert torch.equal(whole[name], alone[name]), name


@pytest.mark.parametrize("content", [audiomae(), audiomae(labels=0, norm=False) | {"norm.weight": torch.ones(64)}])
def test_a_checkpoint_without_decoder_is_refused(tmp_path: Path, content: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match="no masked autoencoder with its decoder"):
        load_autoencoder(save(tmp_path, content))


@pytest.mark.parametrize(
    "fields", [{}, {"backbone": "ast"}, {"decoder_attention": "global", "normalise_patches": False}]
)
def test_a_saved_autoencoder_and_its_encoder_load_again(tmp_path: Path, fields: dict[str, Any]) -> None:
    model = small(**fields).float()
    save_autoencoder(model, tmp_path / "autoencoder")
    save_encoder(model, tmp_path / "model")
    again = load_autoencoder(tmp_path / "autoencoder")
    assert again.config.to_dict() == {**model.config.to_dict(), "architectures": ["MaskedAutoencoder"]}
    for name, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name
    for folder, layout in (("model", "spectrim-encoder"), ("autoencoder", "spectrim-autoencoder")):
        assert describe(tmp_path / folder)["layout"] == layout
        assert describe(tmp_path / folder)["labels"] == 0
        with pytest.raises(CheckpointError, match="is an encoder without a head; give labels"):
            from_pretrained(tmp_path / folder)
        tuned = from_pretrained(tmp_path / folder, labels=["a", "b", "c"], keep_rate=0.5, prune_at=[1]).state_dict()
        assert (tuned["norm.weight"] == 1.0).all() and tuned["head.linear.weight"].shape == (3, 32)
        for name, value in model.encoder.state_dict().items():
            if not name.startswith("norm."):
                assert torch.equal(tuned[name], value), name


def test_a_spectrim_model_that_lost_a_weight_does_not_pass_for_an_encoder(tmp_path: Path) -> None:
    save_encoder(small().float(), tmp_path / "model")
    file = tmp_path / "model" / "model.safetensors"
    state = safetensors.torch.load_file(file)
    safetensors.torch.save_file({**state, "norm.weight": torch.ones(32)}, file)
    with pytest.raises(CheckpointError, match=r"layout spectrim\): nothing loaded.*Missing: norm\.bias"):
        from_pretrained(tmp_path / "model", labels=["a"])
    safetensors.torch.save_file({name: value for name, value in state.items() if "mlp.up" not in name}, file)
    with pytest.raises(CheckpointError, match=r"Missing: blocks\.0\.mlp\.up"):
        from_pretrained(tmp_path / "model", labels=["a"])


def test_a_damaged_configuration_is_named(tmp_path: Path) -> None:
    save_autoencoder(small().float(), tmp_path / "it")
    config = json.loads((tmp_path / "it" / "config.json").read_text())
    (tmp_path / "it" / "config.json").write_text(json.dumps({**config, "decoder_window": 3}))
    with pytest.raises(CheckpointError, match="its settings make no model: decoder_window is 3"):
        load_autoencoder(tmp_path / "it")
