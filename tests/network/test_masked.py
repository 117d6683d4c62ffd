"""The masked autoencoder against its plain definition, written out with loops, and against transformers' ViT-MAE."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from plain import clips, layer_norm, linear
from small_masked import DECODER, SIZES, config, small
from torch import Tensor
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from spectrim.backbones import audiomae_base
from spectrim.errors import InputShapeError, InvalidSetting
from spectrim.network.masked import MaskedAutoencoder, MaskedConfig
from spectrim.network.masked.decoder import strip_places
from spectrim.network.masked.masks import random_visible

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def some_visible(model: MaskedAutoencoder, share: float = 0.3, batch: int = 2) -> Tensor:
    count = model.config.num_patches
    drawn = [np.random.default_rng(seed).permutation(count)[: int(count * share)] for seed in range(batch)]
    return torch.from_numpy(np.stack(drawn))


def patch_of(clip: Tensor, f: int, t: int) -> Tensor:
    """The 256 values of a patch, frame by frame."""
    return clip[16 * t : 16 * t + 16, 16 * f : 16 * f + 16].reshape(-1)


def plain_decoder(model: MaskedAutoencoder, tokens: Tensor, visible: list[int]) -> dict[tuple[int, int], Tensor]:
    """Predictions of one clip with local attention: tokens (extra + k, width) → {(f, t): (256,)}."""
    given, (frequency, time), extra = model.config, model.config.grid, model.config.extra_tokens
    weights = dict(model.decoder.named_parameters())
    embedded = linear(tokens, weights, "embed")[extra:]
    here = {}
    for f in range(frequency):
        for t in range(time):
            patch = f * time + t
            value = embedded[visible.index(patch)] if patch in visible else weights["mask_token"][0, 0]
            here[f, t] = value + weights["position_table"][0, extra + t * frequency + f]
    window = min(given.decoder_window, time), min(given.decoder_window, frequency)
    for layer in range(given.decoder_layers):
        shift = given.decoder_shift if layer % 2 and window[0] < time else 0
        here = plain_window_block(weights, f"blocks.{layer}", given.decoder_heads, here, window, shift)
    out = {}
    for place, value in here.items():
        out[place] = linear(layer_norm(value, weights, "norm", given.layer_norm_eps), weights, "prediction")
    return out


def plain_window_block(
    weights: dict[str, Tensor],
    name: str,
    heads: int,
    here: dict[tuple[int, int], Tensor],
    window: tuple[int, int],
    shift: int,
) -> dict[tuple[int, int], Tensor]:
    def window_of(place: tuple[int, int]) -> tuple[int, int]:
        f, t = place
        return (t - shift) // window[0], f // window[1]

    def parts(place: tuple[int, int]) -> list[Tensor]:
        return linear(here[place], weights, f"{name}.attention.joint").reshape(3, heads, -1)

    def bias(offset: list[int]) -> Tensor:
        logs = torch.tensor([math.copysign(math.log(1 + abs(o)), o) for o in offset], dtype=torch.float64)
        hidden = linear(logs, weights, f"{name}.attention.bias.up").clamp(min=0)
        return linear(hidden, weights, f"{name}.attention.bias.down")

    out = {}
    for place, value in here.items():
        query = parts(place)[0]
        near = [other for other in here if window_of(other) == window_of(place)]
        assert len(near) <= window[0] * window[1]
        logits = []
        for other in near:
            key = parts(other)[1]
            cosine = (query * key).sum(-1) / (query.norm(dim=-1) * key.norm(dim=-1))
            temperature = weights[f"{name}.attention.temperature"].clamp(min=0.01)
            logits.append(cosine / temperature + bias([place[1] - other[1], place[0] - other[0]]))
        shares = torch.stack(logits).softmax(dim=0)
        attended = sum(share[:, None] * parts(other)[2] for share, other in zip(shares, near, strict=True))
        projected = linear(attended.reshape(-1), weights, f"{name}.attention.output")
        value = value + layer_norm(projected, weights, f"{name}.norm1", 1e-6)
        hidden = linear(value, weights, f"{name}.mlp.up")
        hidden = hidden * 0.5 * (1.0 + torch.erf(hidden / math.sqrt(2.0)))
        out[place] = value + layer_norm(linear(hidden, weights, f"{name}.mlp.down"), weights, f"{name}.norm2", 1e-6)
    return out


CASES = [
    {"decoder_layers": 3},
    {"backbone": "ast"},
    {"max_length": 64},
    {"max_length": 96, "decoder_window": 2, "decoder_shift": 1},
    {"max_length": 192, "num_mel_bins": 64, "decoder_window": 4, "decoder_shift": 1},
    {"max_length": 192, "num_mel_bins": 48, "decoder_window": 3, "decoder_shift": 0},
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case.values())))
def test_windowed_decoder_is_the_plain_definition(case: dict[str, Any]) -> None:
    model = small(**case)
    values, visible = clips(model.config), some_visible(model)
    output = model(values, visible, output_reconstruction=True)
    encoded = model.encoder.encode(values, visible_patches=visible).tokens
    tokens = model.encoder.norm(encoded.values)
    with torch.no_grad():
        for number in range(2):
            plain = plain_decoder(model, tokens[number], visible[number].tolist())
            for (f, t), predicted in plain.items():
                true = patch_of(values[number], f, t)
                expected = predicted * torch.sqrt(true.var() + 1e-6) + true.mean()
                torch.testing.assert_close(patch_of(output.reconstruction[number], f, t), expected, **EXACT)


@pytest.mark.parametrize("attention", ["local", "global"])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("backbone", ["ast", "audiomae"])
def test_loss_is_the_mean_squared_error_of_the_masked_patches(backbone: str, normalise: bool, attention: str) -> None:
    model = small(backbone, normalise_patches=normalise, decoder_attention=attention)
    values, visible = clips(model.config), some_visible(model)
    output = model(values, visible, output_reconstruction=True)
    (frequency, time), losses = model.config.grid, []
    for number in range(2):
        errors = []
        for f in range(frequency):
            for t in range(time):
                hidden = f * time + t not in visible[number].tolist()
                assert bool(output.masked[number, f, t]) is hidden
                if hidden:
                    true = patch_of(values[number], f, t)
                    scale = torch.sqrt(true.var() + 1e-6) if normalise else 1.0
                    predicted = patch_of(output.reconstruction[number], f, t)
                    errors.append((((predicted - true) / scale) ** 2).mean())
        losses.append(sum(errors) / len(errors))
    torch.testing.assert_close(output.clip_losses, torch.stack(losses), **EXACT)
    torch.testing.assert_close(output.loss, output.clip_losses.mean())


def test_padding_can_be_left_out_of_the_loss() -> None:
    model = small(normalise_patches=False)
    values, visible = clips(model.config), some_visible(model)
    frames = torch.tensor([128, 49])
    counted = model(values, visible, frames).masked
    assert counted[1, :, 4:].any()
    model.config.ignore_padding = True
    output = model(values, visible, frames, output_reconstruction=True)
    assert torch.equal(output.masked[0], counted[0])
    assert not output.masked[1, :, 4:].any()
    assert torch.equal(output.masked[1, :, :4], counted[1, :, :4])
    errors = (output.reconstruction - values).square()[1].unflatten(0, (8, 16)).unflatten(2, (8, 16)).mean((1, 3)).T
    torch.testing.assert_close(output.clip_losses[1], errors[output.masked[1]].mean(), **EXACT)
    real = torch.tensor([[f * 8 + t for f in range(8) for t in range(1)]] * 2)
    assert model(values, real, torch.tensor([128, 16])).clip_losses[1] == 0.0
    for wrong in (None, frames[:1]):
        with pytest.raises(InputShapeError, match="num_frames is"):
            model(values, visible, wrong)


@torch.no_grad()
def test_with_global_attention_it_is_vit_mae() -> None:
    torch.manual_seed(0)
    sizes = {name: value for name, value in SIZES.items() if name != "prune_at"}
    decoder = {f"decoder_{name}": 24 for name in ("hidden_size",)}
    decoder |= {"decoder_num_hidden_layers": 2, "decoder_num_attention_heads": 3, "decoder_intermediate_size": 96}
    oracle = ViTMAEForPreTraining(
        ViTMAEConfig(
            **sizes,
            **decoder,
            image_size=128,
            patch_size=16,
            num_channels=1,
            mask_ratio=0.7,
            norm_pix_loss=True,
            layer_norm_eps=1e-6,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
    ).eval()
    for weight in oracle.parameters():
        weight.add_(0.2 * torch.randn(weight.shape) * weight.std().nan_to_num(1.0).clamp(min=0.1))
    model = MaskedAutoencoder(config(decoder_attention="global", decoder_layers=2)).eval()
    theirs = oracle.state_dict()
    take_over(model, theirs)
    values = clips(model.config, dtype=torch.float32)
    noise = torch.rand(2, 64)
    expected = oracle(values.unsqueeze(1), noise=noise, interpolate_pos_encoding=False)
    in_time = noise.argsort(dim=1)[:, : int(64 * (1 - 0.7))]
    visible = in_time % 8 * 8 + in_time // 8
    output = model(values, visible)
    assert torch.equal(output.masked.transpose(1, 2).flatten(1), expected.mask.bool())
    torch.testing.assert_close(output.loss, expected.loss, rtol=1e-5, atol=1e-5)
    predicted = model.decoder(
        model.encoder.norm(model.encoder.encode(values, visible_patches=visible).tokens.values), visible
    )
    assert expected.logits.std() > 0.1
    torch.testing.assert_close(predicted, expected.logits, rtol=1e-4, atol=1e-4)


def take_over(model: MaskedAutoencoder, theirs: dict[str, Tensor]) -> None:
    """ViT-MAE's weights into ours; its query, key and value stand apart."""
    pairs = {"vit.embeddings.cls_token": "encoder.embeddings.cls_token", "decoder.mask_token": "decoder.mask_token"}
    pairs |= {"vit.embeddings.position_embeddings": "encoder.embeddings.position_table"}
    pairs |= {"decoder.decoder_pos_embed": "decoder.position_table"}
    modules = {"vit.layernorm": "encoder.norm", "decoder.decoder_embed": "decoder.embed"}
    modules |= {"decoder.decoder_norm": "decoder.norm", "decoder.decoder_pred": "decoder.prediction"}
    modules |= {"vit.embeddings.patch_embeddings.projection": "encoder.embeddings.projection"}
    state = {}
    blocks = {"layernorm_before": "norm1", "layernorm_after": "norm2"}
    found = {name.rpartition(".")[0] for name in theirs}
    for theirs_prefix, ours_prefix, depth in (
        ("vit.layers", "encoder.blocks", 3)
        if "vit.layers.0.layernorm_before" in found
        else ("vit.encoder.layer", "encoder.blocks", 3),
        ("decoder.decoder_layers", "decoder.blocks", 2),
    ):
        for layer in range(depth):
            inside = [name for name in found if name.startswith(f"{theirs_prefix}.{layer}.")]
            for name in inside:
                last = name.removeprefix(f"{theirs_prefix}.{layer}.")
                kind = {
                    **blocks,
                    "attention.q_proj": "query",
                    "attention.k_proj": "key",
                    "attention.v_proj": "value",
                    "attention.o_proj": "attention.output",
                    "mlp.fc1": "mlp.up",
                    "mlp.fc2": "mlp.down",
                    "attention.attention.query": "query",
                    "attention.attention.key": "key",
                    "attention.attention.value": "value",
                    "attention.output.dense": "attention.output",
                    "intermediate.dense": "mlp.up",
                    "output.dense": "mlp.down",
                }[last]
                for part in ("weight", "bias"):
                    state[f"{ours_prefix}.{layer}.{kind}.{part}"] = theirs[f"{name}.{part}"]
    for name in [name for name in state if ".key." in name]:
        joined = torch.cat([state.pop(name), state.pop(name.replace(".key.", ".value."))])
        state[name.replace(".key.", ".attention.key_value.")] = joined
    state = {name.replace(".query.", ".attention.query."): value for name, value in state.items()}
    state |= {ours: theirs[name] for name, ours in pairs.items()}
    state |= {f"{o}.{part}": theirs[f"{t}.{part}"] for t, o in modules.items() for part in ("weight", "bias")}
    projection = "encoder.embeddings.projection.weight"
    state[projection] = state[projection].transpose(2, 3)
    model.load_state_dict(state, strict=True)


@pytest.mark.parametrize("backbone", ["ast", "audiomae"])
def test_nothing_of_a_masked_patch_reaches_the_decoder(backbone: str) -> None:
    model = small(backbone, normalise_patches=False)
    values, visible = clips(model.config, batch=1), some_visible(model, batch=1)
    before = model(values, visible, output_reconstruction=True)
    area = before.masked[0].T.repeat_interleave(16, 0).repeat_interleave(16, 1)
    changed = torch.where(area, 9.0, values[0])[None]
    after = model(changed, visible, output_reconstruction=True)
    assert torch.equal(before.reconstruction, after.reconstruction)
    assert not torch.equal(before.loss, after.loss)
    other = model(torch.where(area, values[0], values[0] + 1.0)[None], visible, output_reconstruction=True)
    assert not torch.allclose(before.reconstruction, other.reconstruction)


@pytest.mark.parametrize("attention", ["local", "global"])
def test_every_trained_weight_has_a_gradient(attention: str) -> None:
    model = small(decoder_attention=attention).train()
    model(clips(model.config), some_visible(model)).loss.backward()
    for name, weight in model.named_parameters():
        assert weight.requires_grad is not name.endswith("position_table"), name
        if weight.requires_grad:
            assert weight.grad is not None and weight.grad.abs().max() > 0.0, name


def test_recomputing_blocks_changes_no_gradient() -> None:
    found = []
    for recompute in (False, True):
        model = small(decoder_bias_dropout=0.0).train()
        if recompute:
            model.activation_checkpointing_enable()
        model(clips(model.config), some_visible(model)).loss.backward()
        found.append([weight.grad for weight in model.parameters() if weight.grad is not None])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, **EXACT)


def test_position_biases_drop_out_only_while_training() -> None:
    model = small()
    values, visible = clips(model.config), some_visible(model)
    assert torch.equal(model(values, visible).loss, model(values, visible).loss)
    model.train()
    assert not torch.equal(model(values, visible).loss, model(values, visible).loss)


def test_weights_begin_as_published() -> None:
    model = MaskedAutoencoder(config(hidden_size=192, intermediate_size=768, decoder_width=96))
    state = model.state_dict()
    for name, fans in {
        "encoder.embeddings.projection.weight": 256 + 192,
        "encoder.blocks.1.attention.query.weight": 192 + 3 * 192,
        "encoder.blocks.1.attention.key_value.weight": 192 + 3 * 192,
        "encoder.blocks.2.mlp.up.weight": 192 + 768,
        "decoder.embed.weight": 192 + 96,
        "decoder.blocks.1.attention.joint.weight": 4 * 96,
        "decoder.prediction.weight": 96 + 256,
    }.items():
        bound = math.sqrt(6.0 / fans)
        assert 0.95 * bound < state[name].abs().max() <= bound, name
        assert state[name].std().item() == pytest.approx(bound / math.sqrt(3), rel=0.03), name
    assert state["decoder.mask_token"].std().item() == pytest.approx(0.02, rel=0.3)
    assert (state["decoder.blocks.0.attention.temperature"] == 1.0).all()
    table = state["decoder.position_table"]
    assert table.shape == (1, 65, 96)
    expected = [math.sin(3.0), math.cos(3.0), math.sin(5.0), math.cos(5.0)]
    assert table[0, 1 + 3 * 8 + 5, [0, 24, 48, 72]].tolist() == pytest.approx(expected)


def test_a_saved_autoencoder_loads_again(tmp_path: Any) -> None:
    model = small().float()
    model.save_pretrained(tmp_path)
    again = MaskedAutoencoder.from_pretrained(tmp_path)
    assert again.config.decoder_heads == 3
    values, visible = clips(model.config, dtype=torch.float32), some_visible(model)
    assert torch.equal(model(values, visible).loss, again(values, visible).loss)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("decoder_width", 26, "multiple of 4"),
        ("decoder_heads", 5, "decoder_heads=5"),
        ("decoder_layers", 0, "at least 1"),
        ("decoder_layers", True, "whole number"),
        ("decoder_attention", "sparse", "global, local"),
        ("decoder_window", 3, "divides the 8×8 patches"),
        ("decoder_shift", 4, "below decoder_window=4"),
        ("decoder_bias_dropout", 1.0, r"in \[0, 1\)"),
        ("normalise_patches", 1, "True or False"),
        ("time_stride", 10, "would show what is masked"),
        ("max_length", 130, "multiple of patch_size=16"),
        ("drop_padding", True, "see ignore_padding"),
        ("hidden_size", 31, "num_attention_heads"),
    ],
)
def test_wrong_settings_are_named(field: str, value: Any, allowed: str) -> None:
    with pytest.raises(InvalidSetting, match=allowed) as caught:
        config(**{"decoder_shift": 2, field: value})
    assert caught.value.field in (field, "decoder_width")


def test_windows_do_not_matter_to_global_attention() -> None:
    assert config(decoder_attention="global", decoder_window=3).decoder_window == 3


def test_the_encoders_configuration_is_the_one_that_was_given() -> None:
    encoder = audiomae_base(**SIZES, mean=-7.5, padding="minimum", drop_path_rate=0.1)
    own = MaskedConfig.around(encoder, **DECODER).encoder_config().to_dict()
    assert own == {**encoder.to_dict(), "keep_rate": 1.0}


@given(st.integers(1, 600), st.floats(0.01, 0.99), st.integers(0, 5))
def test_random_masks_leave_their_share(patches: int, ratio: float, seed: int) -> None:
    visible = random_visible(patches, ratio, np.random.default_rng(seed))
    assert len(visible) == max(1, math.floor(patches * (1 - ratio)))
    assert len(set(visible.tolist())) == len(visible) and 0 <= visible.min() <= visible.max() < patches


def test_random_masks_are_even() -> None:
    random = np.random.default_rng(0)
    counts = np.zeros(40)
    for _ in range(4000):
        counts[random_visible(40, 0.75, random)] += 1
    assert counts.sum() == 40_000
    assert abs(counts - 1000).max() < 5 * math.sqrt(1000 * 0.75)


@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 9))
def test_strips_are_a_renumbering(strips: int, strip: int, time: int) -> None:
    grid = (strips * strip, time)
    places = strip_places(torch.arange(grid[0] * time), grid, strip).unflatten(0, grid)
    assert sorted(places.flatten().tolist()) == list(range(grid[0] * time))
    for f in range(grid[0]):
        for t in range(time):
            assert places[f, t] == (f // strip) * time * strip + t * strip + f % strip
