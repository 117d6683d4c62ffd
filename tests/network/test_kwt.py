"""Post-norm blocks, patches of one frame of MFCC, and pruning in them, beside the plain order of computing."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from plain import clips, plain_forward, small_config, small_model

from spectrim import Frontend, macs
from spectrim.backbones import kwt_1
from spectrim.config import SpectrimConfig
from spectrim.errors import InvalidSetting
from spectrim.network.masked.config import MaskedConfig
from spectrim.network.transformer import AudioTransformer

EXACT = {"rtol": 1e-9, "atol": 1e-9}
AT = (1, 3, 11)


def test_the_score_is_the_attention_between_the_tokens_that_enter() -> None:
    """Not normalised once more: the block before has done that."""
    model = small_model("kwt")
    values = clips(model.config)
    with torch.no_grad():
        out = model(values, output_token_trace=True, output_hidden_states=True)
        block, tokens = model.blocks[3], out.hidden_states[3]
        query, key = block.attention.query(tokens[:, 0]), block.attention.key_value(tokens).chunk(2, dim=-1)[0]
        heads = [query[:, None, part] @ key[:, :, part].transpose(1, 2) / 4 for part in np.split(np.arange(64), 4)]
    wanted = torch.stack([head.softmax(dim=-1)[:, 0, 1:] for head in heads]).mean(dim=0)
    torch.testing.assert_close(out.token_trace.scores[3].flatten(1).double(), wanted, rtol=1e-5, atol=1e-7)


def test_there_is_no_norm_after_post_norm_blocks() -> None:
    names = set(AudioTransformer(small_config("kwt")).state_dict())
    assert not any(name.startswith("norm.") for name in names)
    assert {name for name in AudioTransformer(small_config("ast")).state_dict() if name.startswith("norm.")}


def test_removed_padding_is_as_if_it_had_never_been() -> None:
    model = small_model("kwt", num_hidden_layers=4, drop_padding=True, keep_rate=0.5, prune_at=[1])
    values = clips(model.config)
    with torch.no_grad():
        found = model(values, num_frames=torch.tensor([64, 23])).logits
        changed = values.clone()
        changed[1, 23:] = 100.0
        again = model(changed, num_frames=torch.tensor([64, 23])).logits
    torch.testing.assert_close(found, again, **EXACT)
    plain = plain_forward(model, values[1], {1: 0.5}, visible=set(range(23)))
    torch.testing.assert_close(found[1], plain.logits.detach(), **EXACT)


def test_published_sizes() -> None:
    config = kwt_1(num_labels=12)
    model = AudioTransformer(config)
    assert sum(weight.numel() for weight in model.parameters()) == 607_308, "607 k in the paper's table"
    assert (config.grid, config.num_patches, config.patch_shape, config.overlapping) == ((1, 98), 98, (40, 1), False)
    count = macs(config)
    assert count.embedding == 98 * 40 * 64 and count.head == 64 * 12
    assert count.paper_blocks[0] == 4 * 99 * 64**2 + 2 * 99**2 * 64 + 8 * 99 * 64**2


def test_intensity_and_variation_are_of_the_log_mel_spectrum() -> None:
    """A louder frame is more intense and not more varied, though all its coefficients but one stay."""
    config = kwt_1(max_length=10, prune_at=[])
    frontend = Frontend.from_config(config)
    wave = torch.randn(9 * 160 + 480, generator=torch.Generator().manual_seed(0)) * 0.05
    from spectrim.network.entering import spectrogram_of
    from spectrim.pruning.criteria.spectrogram import intensity, variation

    soft, loud = (spectrogram_of(frontend([gain * wave]).input_values, config) for gain in (1.0, 8.0))
    torch.testing.assert_close(
        intensity(loud) - intensity(soft), torch.full((1, 1, 10), np.log(8.0)), rtol=0, atol=1e-3
    )
    torch.testing.assert_close(variation(loud), variation(soft), rtol=0, atol=1e-3)


# Settings


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"patch_size": [20, 1], "frequency_stride": 20}, "coefficients are no frequencies"),
        ({"patch_size": [40, 1, 1]}, "or two: along frequency and along time"),
        ({"patch_size": [40, 0]}, "patch_size"),
        ({"patch_size": [40, 99]}, "max_length"),
        ({"time_stride": 2}, "time_stride"),
        ({"padding": "zero"}, "'silence' with features='mfcc'"),
        ({"sampling_rate": 8000}, "at least 15200 with features='mfcc'"),
        ({"num_mel_bins": 81, "patch_size": [81, 1], "frequency_stride": 81}, "at most 80"),
        ({"features": "lpc"}, "features"),
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"norm_first": 1}, "norm_first"),
    ],
)
def test_settings_that_make_no_model(fields: dict, message: str) -> None:
    with pytest.raises(InvalidSetting, match=message) as caught:
        kwt_1(**fields)
    assert str(caught.value)


def test_a_masked_autoencoder_takes_square_patches_only() -> None:
    with pytest.raises(InvalidSetting, match="square patches"):
        MaskedConfig(patch_size=[16, 8], frequency_stride=8, time_stride=8, num_mel_bins=16, max_length=128)


def test_one_side_or_two_are_the_same_model() -> None:
    both, one = SpectrimConfig(patch_size=[16, 16]), SpectrimConfig(patch_size=16)
    assert both.grid == one.grid and both.patch_shape == one.patch_shape == (16, 16)
    assert copy.deepcopy(both).to_dict()["patch_size"] == [16, 16]
