"""Embeddings: patches in order, and positions that learn only where they should."""

from __future__ import annotations

import pytest
import torch
from plain import BACKBONES, clips, small_config, small_model

from spectrim.network.embeddings import Embeddings

EXACT = {"rtol": 1e-10, "atol": 1e-10}


@pytest.mark.parametrize("stride", [16, 10])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_tokens_are_the_patches_in_the_backbones_order(backbone: str, stride: int) -> None:
    model = small_model(backbone, num_mel_bins=64, frequency_stride=stride, time_stride=stride)
    embeddings, extra = model.embeddings, model.config.extra_tokens
    values = clips(model.config, batch=1)
    tokens = embeddings(values)[0]
    frequency, time = model.config.grid
    assert tokens.shape == (extra + frequency * time, 64)
    named = [embeddings.cls_token[0, 0]] + ([embeddings.dist_token[0, 0]] if extra == 2 else [])
    for place, token in enumerate(named):
        torch.testing.assert_close(tokens[place], token + embeddings.position_table[0, place], **EXACT)
    for f in range(frequency):
        for t in range(time):
            place = extra + (f * time + t if backbone == "ast" else t * frequency + f)
            patch = values[0, t * stride : t * stride + 16, f * stride : f * stride + 16].T
            wanted = (embeddings.projection.weight[:, 0] * patch).sum(dim=(1, 2)) + embeddings.projection.bias
            torch.testing.assert_close(tokens[place], wanted + embeddings.position_table[0, place], **EXACT)


def test_the_position_table_learns_only_where_it_should() -> None:
    assert Embeddings(small_config("ast")).position_table.requires_grad
    assert not Embeddings(small_config("audiomae")).position_table.requires_grad
    assert Embeddings(small_config("audiomae")).dist_token is None
