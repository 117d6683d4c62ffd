"""The parts of the encoder: embeddings, attention, MLP, block, head.

Exact and cheap: what the head cannot see is not computed. At a pruning block the score comes first; queries,
attention output, projection and MLP are then computed for the survivors only, against the keys and values of all
patches that entered. That is the paper's order of computing (attention, select, MLP) without its waste, and the
logits are the same to rounding. Only where one kernel gives score and attention output at once, and that is cheaper,
is the output computed for all and then picked (`spectrim.pruning.kernels.fused`).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer

from spectrim.config import SpectrimConfig
from spectrim.pruning.criteria import ATTENTION_CRITERIA, attention_map
from spectrim.pruning.kernels.fused import together_pays
from spectrim.pruning.plan import BlockPlan
from spectrim.pruning.select import tokens_going_on, top_patches, top_valid_patches


class Embeddings(nn.Module):
    """Log-mel (batch, frames, mels) → tokens (batch, extra + F·T, width) with positions added."""

    def __init__(self, config: SpectrimConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.time_major = config.patch_order == "time_major"
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.dist_token = nn.Parameter(torch.zeros(1, 1, width)) if config.extra_tokens == 2 else None
        self.position_table = nn.Parameter(
            torch.zeros(1, config.extra_tokens + config.num_patches, width),
            requires_grad=config.position_trainable,
        )
        stride = (config.frequency_stride, config.time_stride)
        self.projection = nn.Conv2d(1, width, kernel_size=config.patch_size, stride=stride)

    def forward(self, input_values: Tensor) -> Tensor:
        """Cut, project, line up in the backbone's order, add positions."""
        grid = self.projection(input_values.transpose(1, 2).unsqueeze(1))
        patches = (grid.transpose(2, 3) if self.time_major else grid).flatten(2).transpose(1, 2)
        extra = self.cls_token if self.dist_token is None else torch.cat([self.cls_token, self.dist_token], dim=1)
        return torch.cat([extra.expand(patches.shape[0], -1, -1), patches], dim=1) + self.position_table


class Attention(nn.Module):
    """Multi-head attention whose queries may be fewer than its keys and values."""

    def __init__(self, config: SpectrimConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.query = nn.Linear(width, width, bias=config.qkv_bias)
        self.key_value = nn.Linear(width, 2 * width, bias=config.qkv_bias)
        self.output = nn.Linear(width, width)

    def queries(self, tokens: Tensor) -> Tensor:
        """(batch, q, width) → (batch, heads, q, head_dim)."""
        return self.split(self.query(tokens))

    def keys_values(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, n, width) → keys and values, each (batch, heads, n, head_dim)."""
        keys, values = self.key_value(tokens).chunk(2, dim=-1)
        return self.split(keys), self.split(values)

    def split(self, tokens: Tensor) -> Tensor:
        """(batch, n, width) → (batch, heads, n, head_dim)."""
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Attend and project: (batch, heads, q, head_dim) → (batch, q, width)."""
        attended = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        return self.output(attended.transpose(1, 2).flatten(2))


MLP_ROWS = 768
"""Tokens that go through the MLP at once on a CPU: its hidden layer then stays in a cache, and is not memory that the
system hands out and takes back in every block (docs/performance.md has what that saves)."""


class MLP(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, config: SpectrimConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, n, width) → the same shape."""
        if tokens.device.type != "cpu" or torch.compiler.is_compiling():
            return self._rows(tokens)
        rows = tokens.flatten(0, 1)
        pieces = max(1, round(len(rows) / MLP_ROWS))
        if pieces == 1:
            return self._rows(tokens)
        return torch.cat([self._rows(piece) for piece in rows.tensor_split(pieces)]).view_as(tokens)

    def _rows(self, tokens: Tensor) -> Tensor:
        return self.down(functional.gelu(self.up(tokens)))


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., 2016): while training, a clip's branch is dropped with probability ``rate``."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        """(batch, ...) → the same, some clips zeroed and the others scaled up."""
        if not self.training or self.rate == 0.0:
            return branch
        keep = branch.new_empty(branch.shape[0], 1, 1).bernoulli_(1.0 - self.rate)
        return branch * keep / (1.0 - self.rate)


class BlockOutput(NamedTuple):
    """What a block hands on.

    Attributes:
        tokens: (batch, tokens computed, width).
        stayed: (batch, k) which patches stayed, or None for all.
        valid: (batch, k) bool for the patches that stayed, or None.
        scores: (batch, n) of the patches that entered, or None where nobody read them.
        attention: (batch, heads, tokens computed, extra + n), or None.
    """

    tokens: Tensor
    stayed: Tensor | None
    valid: Tensor | None
    scores: Tensor | None
    attention: Tensor | None


class Block(GradientCheckpointingLayer):
    """Pre-norm transformer block: norm, attention, residual, *select*, norm, MLP, residual."""

    def __init__(self, config: SpectrimConfig, drop_path: float) -> None:
        super().__init__()
        self.extra = config.extra_tokens
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = Attention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config)
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        tokens: Tensor,
        plan: BlockPlan,
        rank: Tensor | None = None,
        valid: Tensor | None = None,
        read_scores: bool = False,
        read_attention: bool = False,
    ) -> BlockOutput:
        """Run the block.

        Args:
            tokens: (batch, extra + n, width).
            plan: what to keep and what to compute.
            rank: (batch, n) ranks by a patch criterion, or None.
            valid: (batch, n) bool, False for empty slots, or None.
            read_scores: return the criterion's scores also where nothing is pruned.
            read_attention: return the attention map of the tokens that go on.
        """
        attention, extra = self.attention, self.extra
        mask = None if valid is None else _additive_mask(valid, extra, tokens.dtype)
        normed = self.norm1(tokens)
        keys, values = attention.keys_values(normed)
        criterion = ATTENTION_CRITERIA.get(plan.criterion)
        all_queries = attended = None
        scores = rank
        if criterion is not None and (plan.prunes or read_scores):
            all_queries = attention.query(normed if criterion.queries == "all" else normed[:, :1])
            heads = attention.split(all_queries)
            computed = plan.tokens_computed(extra)
            if criterion.together and plan.prunes and together_pays(heads, keys, values, mask, computed):
                attended, scores = criterion.together(heads, keys, values, extra)
            else:
                scores = criterion.score(heads.detach(), keys.detach(), extra, mask)
            all_queries = all_queries if plan.prunes and criterion.queries == "all" else None
        index, valid = _select(plan, scores, valid, extra)

        def going_on(values: Tensor) -> Tensor:
            return tokens_going_on(values, index, extra, plan.emits, plan.reference_compat)

        branch = None if attended is None else attention.output(going_on(attended))
        shown = None
        if branch is None or read_attention:
            flat = attention.query(going_on(normed)) if all_queries is None else going_on(all_queries)
            queries = attention.split(flat)
            branch = attention(queries, keys, values, mask) if branch is None else branch
            shown = attention_map(queries, keys, mask) if read_attention else None
        tokens = going_on(tokens) + self.drop_path(branch)
        tokens = tokens + self.drop_path(self.mlp(self.norm2(tokens)))
        return BlockOutput(tokens, index, valid, scores, shown)


def _additive_mask(valid: Tensor, extra: int, dtype: torch.dtype) -> Tensor:
    """(batch, n) bool → (batch, 1, 1, extra + n): 0 where attention may look, −inf at empty slots."""
    keys = functional.pad(valid, (extra, 0), value=True)
    return torch.zeros(keys.shape, dtype=dtype, device=keys.device).masked_fill(~keys, -math.inf)[:, None, None]


def _select(
    plan: BlockPlan, scores: Tensor | None, valid: Tensor | None, extra: int
) -> tuple[Tensor | None, Tensor | None]:
    if not plan.prunes or scores is None:
        return None, valid
    if valid is not None:
        return top_valid_patches(scores, valid, plan.keep_rate)
    if plan.reference_compat:
        return top_patches(scores, plan.patches_kept + extra, ordered=True), None
    return top_patches(scores, plan.patches_kept), None


class Head(nn.Module):
    """Pooled vector → logits."""

    def __init__(self, config: SpectrimConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.head_norm_eps) if config.head_norm else nn.Identity()
        self.linear = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, pooled: Tensor) -> Tensor:
        """(batch, width) → (batch, labels)."""
        return self.linear(self.norm(pooled))
