"""Means over the patches that are left."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from spectrim.pruning.tokens import Tokens

WEIGHED = {
    "valid": torch.arange(600) % 5 > 0,
    "size": 1.0 + torch.arange(600) % 7 * 50.0,
    "policy": (torch.arange(600) % 3 > 0).float(),
}


def sequence(dtype: torch.dtype, names: tuple[str, ...]) -> tuple[Tokens, Tensor]:
    """600 patches around 150, of which some count more than others; and how much each counts."""
    noise = torch.randn(1, 600, 4, generator=torch.Generator().manual_seed(0))
    given = {name: WEIGHED[name].unsqueeze(0) for name in names}
    weight = torch.ones(1, 600)
    for part in given.values():
        weight = weight * part
    if "policy" in given:
        given["policy"] = given["policy"].to(dtype)
    return Tokens((150.0 + noise).to(dtype), torch.arange(600).unsqueeze(0), 0, **given), weight.unsqueeze(-1)


@pytest.mark.parametrize("names", [("valid",), ("size",), ("policy",), ("valid", "size"), ("valid", "policy")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_weighed_mean_is_added_up_in_float32(dtype: torch.dtype, names: tuple[str, ...]) -> None:
    tokens, weight = sequence(dtype, names)
    pooled = tokens.pool(nn.Identity(), "patches")
    assert pooled.dtype == dtype
    expected = (tokens.values.float() * weight).sum(dim=1) / weight.sum(dim=1)
    assert torch.equal(pooled, expected.to(dtype))
