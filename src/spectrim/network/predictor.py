"""DynamicViT's predictor (Rao et al., 2021, section 3.1), and attention among tokens of which some are masked (3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAST = 1e-6
"""What every key gets of a row of masked attention at least, over all keys together: the public code's."""


class Predictor(nn.Module):
    """Tells of each patch, by what it is and by what the clip's other patches are, whether it should go on.

    LayerNorm and a layer; half of the features stay the patch's own, of the other half the mean over the clip is taken;
    both together go through three layers to two log-probabilities. The layer that reads both is held in two parts, so
    that what is the same for all patches is multiplied once: ``own`` and ``common`` side by side are the first layer of
    the public code's ``out_conv``.

    Args:
        width: of a token, a multiple of 4.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        half, quarter = width // 2, width // 4
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, width)
        self.own = nn.Linear(half, half)
        self.common = nn.Linear(half, half, bias=False)
        self.narrow = nn.Linear(half, quarter)
        self.decide = nn.Linear(quarter, 2)

    def forward(self, patches: Tensor, counted: Tensor | None) -> Tensor:
        """Log-probabilities of keeping and of dropping.

        Args:
            patches: (batch, n, width).
            counted: (batch, n) how much each counts in the mean, 1 or 0; None: all alike.

        Returns:
            (batch, n, 2), the first of keeping.
        """
        own, common = functional.gelu(self.project(self.norm(patches))).chunk(2, dim=-1)
        if counted is None:
            mean = common.mean(dim=1, keepdim=True)
        else:
            exact = torch.promote_types(common.dtype, torch.float32)
            weight = counted.to(exact).unsqueeze(-1)
            total = (common.to(exact) * weight).sum(dim=1, keepdim=True)
            mean = (total / weight.sum(dim=1, keepdim=True).clamp(min=1.0)).to(common.dtype)
        hidden = functional.gelu(self.own(own) + self.common(mean))
        return self.decide(functional.gelu(self.narrow(hidden))).log_softmax(dim=-1)


def policy_attention(queries: Tensor, keys: Tensor, policy: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention map in which masked tokens are attended to by nobody else, with gradients for the mask itself.

    Args:
        queries: (batch, heads, q, head_dim).
        keys: (batch, heads, n, head_dim).
        policy: (batch, 1, q, n) in [0, 1], as `spectrim.pruning.tokens.Tokens.attended` gives it.
        mask: additive, broadcast to (batch, heads, q, n); −inf at empty slots, which get nothing; or None.

    Returns:
        (batch, heads, q, n) in float32 or better; rows sum to 1.
    """
    logits = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-2, -1)
    if mask is not None:
        logits = logits + mask
    logits = logits if logits.element_size() >= 4 else logits.float()
    weight = (logits - logits.amax(dim=-1, keepdim=True)).exp() * policy
    there = torch.ones_like(logits[:, :1, :1]) if mask is None else torch.isfinite(mask).to(logits.dtype)
    least = LEAST * there / there.sum(dim=-1, keepdim=True)
    return (weight + least) / (weight.sum(dim=-1, keepdim=True) + LEAST)
