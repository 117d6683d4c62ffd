"""Small masked autoencoders with every weight away from where it starts."""

from __future__ import annotations

import math
from typing import Any

import torch

from spectrim.backbones import ast_base, audiomae_base
from spectrim.network.masked import MaskedAutoencoder, MaskedConfig

BUILDERS = {"ast": ast_base, "audiomae": audiomae_base}
SIZES = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 48, "num_hidden_layers": 3, "prune_at": []}
DECODER = {"decoder_width": 24, "decoder_layers": 2, "decoder_heads": 3, "decoder_bias_width": 8}


def config(backbone: str = "audiomae", max_length: int = 128, num_mel_bins: int = 128, **fields: Any) -> MaskedConfig:
    encoder = BUILDERS[backbone](**SIZES, max_length=max_length, num_mel_bins=num_mel_bins)
    return MaskedConfig.around(encoder, **{**DECODER, **fields})


@torch.no_grad()
def small(backbone: str = "audiomae", **fields: Any) -> MaskedAutoencoder:
    """A model with every weight away from where it starts, in double precision and evaluation mode."""
    torch.manual_seed(0)
    model = MaskedAutoencoder(config(backbone, **fields)).double().eval()
    generator = torch.Generator().manual_seed(0)
    for name, weight in model.named_parameters():
        if name.endswith("position_table"):
            continue
        spread = 0.3 if weight.ndim == 1 else 1.2 / math.sqrt(weight[0].numel())
        weight.add_(spread * torch.randn(weight.shape, generator=generator, dtype=torch.float64))
    return model
