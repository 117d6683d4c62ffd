"""The parts of the encoder behind the embeddings: attention, MLP, block, head.

Exact and cheap: what the head cannot see is not computed. At a pruning block the score comes first; queries,
attention output, projection and MLP are then computed for the survivors only, against the keys and values of all
patches that entered. That is the paper's order of computing (attention, select, MLP) without its waste, and the
logits are the same to rounding. Only where a reducer needs them, or where one kernel gives score and attention output
at once and that is cheaper (`spectrim.pruning.kernels.fused`), are the outputs of all tokens computed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer

from spectrim.config import SpectrimConfig
from spectrim.network.predictor import Predictor, policy_attention
from spectrim.network.relative import RelativeBias
from spectrim.pruning.criteria import CRITERIA
from spectrim.pruning.criteria.attention import PairBias, Projections, attention_map
from spectrim.pruning.kernels.fused import together_pays
from spectrim.pruning.plan import BlockPlan
from spectrim.pruning.select import check_scores
from spectrim.pruning.tokens import Tokens

GATE_WIDTH = 8
"""Numbers that a head's query gives for the two gates of the bias by distance, four for each."""


class Attention(nn.Module):
    """Multi-head attention whose queries may be fewer than its keys and values."""

    def __init__(self, config: SpectrimConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.query = nn.Linear(width, width, bias=config.qkv_bias)
        self.key_value = nn.Linear(width, 2 * width, bias=config.qkv_bias)
        self.output = nn.Linear(width, width)
        self.gate = nn.Linear(width // self.heads, GATE_WIDTH) if config.relative_buckets else None
        self.gate_scale = nn.Parameter(torch.ones(1, self.heads, 1, 1)) if config.relative_buckets else None

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

    def bias(self, queries: Tensor, pairs: Tensor | None) -> PairBias | None:
        """What distances add to attention logits, weighed by the queries: p·(a·(s·b − 1) + 2).

        a and b are gates in (0, 1) of the query, s is learnt a head (Chen et al., 2022, WavLM, section 3.2).

        Args:
            queries: (batch, heads, q, head_dim).
            pairs: (batch or 1, heads, q, n), as `RelativeBias` has them; None where there are none.
        """
        if pairs is None or self.gate is None or self.gate_scale is None:
            return None
        one, other = self.gate(queries).unflatten(-1, (2, -1)).sum(-1).sigmoid().split(1, dim=-1)
        return PairBias(one * (other * self.gate_scale - 1.0) + 2.0, pairs)

    def added(self, queries: Tensor, mask: Tensor | None, pairs: Tensor | None) -> Tensor | None:
        """All that is added to the attention logits; arguments as of `bias`, and ``mask`` of `Tokens.key_mask`."""
        bias = self.bias(queries, pairs)
        if bias is None:
            return mask
        return bias.rows() if mask is None else bias.rows() + mask

    def forward(
        self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, policy: Tensor | None = None
    ) -> Tensor:
        """Attend and project: (batch, heads, q, head_dim) → (batch, q, width).

        Args:
            queries, keys, values: (batch, heads, …, head_dim).
            mask: as `added` gives it.
            policy: as `Tokens.attended` gives it.
        """
        if policy is not None:
            attended = policy_attention(queries, keys, policy, mask).to(values.dtype) @ values
        elif queries.device.type == "cpu" and queries.dtype == torch.bfloat16 and torch.is_grad_enabled():
            # PyTorch's own has a backward pass that takes longer in bfloat16 on a CPU than all the rest of a step.
            attended = attention_map(queries, keys, mask).to(values.dtype) @ values
        else:
            attended = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        return self.output(attended.transpose(1, 2).flatten(2))


MLP_ROWS = 768
"""Tokens that go through the MLP at once on a CPU: its hidden layer then stays in a cache, and is not memory that the
system hands out and takes back in every block (docs/performance.md has what that saves). Not where there is a backward
pass, which needs all of it, and for which pieces are only more to do."""


class MLP(nn.Module):
    """Linear, GELU, linear."""

    def __init__(self, config: SpectrimConfig) -> None:
        super().__init__()
        self.approximate = "tanh" if config.hidden_act == "gelu_pytorch_tanh" else "none"
        self.up = nn.Linear(config.hidden_size, config.intermediate_size)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, n, width) → the same shape."""
        if tokens.device.type != "cpu" or torch.compiler.is_compiling() or torch.is_grad_enabled():
            return self._rows(tokens)
        rows = tokens.flatten(0, 1)
        pieces = max(1, round(len(rows) / MLP_ROWS))
        if pieces == 1:
            return self._rows(tokens)
        return torch.cat([self._rows(piece) for piece in rows.tensor_split(pieces)]).view_as(tokens)

    def _rows(self, tokens: Tensor) -> Tensor:
        return self.down(functional.gelu(self.up(tokens), approximate=self.approximate))


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


class Wanted(NamedTuple):
    """What to return of a block beside its tokens, for traces and maps; it changes no logit.

    Attributes:
        scores: the criterion's scores, also where nothing is pruned.
        attention: the attention map of the tokens that attend.
    """

    scores: bool = False
    attention: bool = False


NOTHING = Wanted()


class Seen(NamedTuple):
    """What a block has computed of the tokens that entered it, for those that go on to attend to.

    Attributes:
        keys: (batch, heads, extra + n, head_dim).
        values: likewise.
        mask: added to the attention logits, (batch, 1, 1, extra + n), or None.
        policy: how much each of them may be attended to, (batch, 1, q, extra + n), or None.
        scores: (batch, n) of the patches that entered, or None where nobody reads them.
        relative: bias by the distance of those that entered, or None.
        finish: what makes the attention output (batch, q, width) of `Tokens.asking` and the rows of that bias.
        queries: what makes the queries (batch, q, width) of it, for the attention map.
    """

    keys: Tensor
    values: Tensor
    mask: Tensor | None
    policy: Tensor | None
    scores: Tensor | None
    relative: RelativeBias | None
    finish: Callable[[Tensor, Tensor | None], Tensor]
    queries: Callable[[Tensor], Tensor]


class BlockOutput(NamedTuple):
    """What a block hands on.

    Attributes:
        values: (batch, tokens computed, width), those of ``tokens``.
        tokens: after the block.
        scores: (batch, n) of the patches that entered, by attention; None where they are not wanted.
        attention: (batch, heads, tokens that attend, extra + n), or None.
        policy: (batch, n), that of ``tokens``, or None.
    """

    values: Tensor
    tokens: Tokens
    scores: Tensor | None
    attention: Tensor | None
    policy: Tensor | None


class Block(GradientCheckpointingLayer):
    """Transformer block: norm, attention, residual, *select*, norm, MLP, residual.

    Post-norm blocks have each norm after its residual. What is scored and selected is the same: the attention of the
    block between the tokens that entered it, which there are normalised already, by the block before.

    Reentrant gradient checkpointing takes gradients only of tensors that are arguments themselves and that are returned
    themselves: what has a gradient stands beside the tokens and the bias that hold it.
    """

    def __init__(self, config: SpectrimConfig, drop_path: float, *, predicts: bool = False) -> None:
        super().__init__()
        self.predictor = Predictor(config.hidden_size) if predicts else None
        self.norm_first = config.norm_first
        self.residual_scale = config.residual_scale
        self.norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = Attention(config)
        self.norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = MLP(config)
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        values: Tensor,
        tokens: Tokens,
        plan: BlockPlan,
        wanted: Wanted = NOTHING,
        relative: RelativeBias | None = None,
        policy: Tensor | None = None,
        table: Tensor | None = None,
        pairs: Tensor | None = None,
    ) -> BlockOutput:
        """Score, reduce, attend, MLP; a reducer that needs every token's attention output comes after it.

        Args:
            values: (batch, extra + n, width).
            tokens: that enter, with these values or any.
            plan: what to keep and what to compute.
            wanted: what else to return.
            relative: bias by the distance of the tokens that enter, where the model has one.
            policy: that of ``tokens``.
            table: that of ``relative``; so ``pairs``.
        """
        tokens = tokens._replace(values=values, policy=tokens.policy if policy is None else policy)
        if relative is not None and table is not None and pairs is not None:
            relative = relative._replace(table=table, pairs=pairs)
        if plan.predicts:
            return self._predicted(tokens, plan, wanted, relative)
        tokens, seen = self.score(tokens, plan, wanted, relative)
        if seen.scores is not None and tokens.rank is None:
            check_scores(seen.scores, (values.shape[0], values.shape[1] - tokens.extra), plan.criterion)
        if CRITERIA[plan.criterion].so_far and seen.scores is not None:
            tokens = tokens.averaged(seen.scores, plan.averaged)
            seen = seen._replace(scores=tokens.so_far)
        read = seen.keys if plan.reducer.reads == "keys" else seen.scores
        if plan.reducer.attends_first:
            tokens, shown = self.attend(tokens.only(plan.emits), seen, wanted)
            tokens = plan.reducer.reduce(tokens, read, plan)
        else:
            tokens = plan.reducer.reduce(tokens, read, plan)
            tokens, shown = self.attend(tokens, seen, wanted)
        tokens = self.feed_forward(tokens)
        scores = seen.scores if wanted.scores and tokens.rank is None else None
        return BlockOutput(tokens.values, tokens, scores, shown, tokens.policy)

    def _predicted(self, tokens: Tokens, plan: BlockPlan, wanted: Wanted, relative: RelativeBias | None) -> BlockOutput:
        """The predictor first: what it leaves out is not there for the attention either."""
        if self.predictor is None:
            raise ValueError("this block has no predictor")
        patches = tokens.values[:, tokens.extra :]
        read = self.predictor(patches, tokens.valid if tokens.policy is None else tokens.policy)
        tokens = plan.reducer.reduce(tokens, read, plan)
        relative = None if relative is None else relative.following(tokens.patches)
        tokens, seen = self.score(tokens, plan, NOTHING, relative)
        tokens, shown = self.attend(tokens.only(plan.emits), seen, wanted)
        tokens = self.feed_forward(tokens)
        scores = read[..., 0].detach() if wanted.scores else None
        return BlockOutput(tokens.values, tokens, scores, shown, tokens.policy)

    def score(
        self, tokens: Tokens, plan: BlockPlan, wanted: Wanted, relative: RelativeBias | None
    ) -> tuple[Tokens, Seen]:
        """Keys and values of all tokens, the patches' scores, and what the queries will be made of."""
        attention, criterion = self.attention, CRITERIA[plan.criterion]
        normed = self._before(self.norm1, tokens.values)
        keys, values = attention.keys_values(normed)
        mask, policy = tokens.key_mask(tokens.values.dtype), tokens.attended(plan.emits)

        def attended(queries: Tensor, pairs: Tensor | None) -> Tensor:
            heads = attention.split(queries)
            return attention(heads, keys, values, attention.added(heads, mask, pairs), policy)

        def projected(rows: Tensor, pairs: Tensor | None) -> Tensor:
            return attended(attention.query(rows), pairs)

        seen = Seen(keys, values, mask, policy, tokens.rank, relative, projected, attention.query)
        tokens = tokens._replace(asking=normed)
        if not criterion.reads_attention or not (plan.scores or wanted.scores):
            return tokens, seen
        queries = attention.query(normed[:, : {"all": None, "class": 1, "values": 0}[criterion.reads]])
        heads, extra = attention.split(queries), tokens.extra
        bias = None if relative is None or criterion.reads == "values" else attention.bias(heads, relative.pairs)
        block = Projections(heads, keys, values, extra, mask, bias)
        plain = plan.scores and not plan.reducer.weighs_by_score and relative is None
        together = criterion.together if plain else None
        if together is not None and together_pays(heads, keys, values, mask, plan.tokens_attended(extra)):
            mixed, scores = together(block)
            seen = seen._replace(scores=scores, finish=lambda rows, _: attention.output(rows))
            return self._with_queries(tokens._replace(asking=mixed), seen, queries if wanted.attention else None)
        scores = criterion.score(block if plan.reducer.weighs_by_score else block.detach())
        if criterion.reads == "all" and plan.scores:
            same = nn.Identity()
            return tokens._replace(asking=queries), seen._replace(scores=scores, finish=attended, queries=same)
        return tokens, seen._replace(scores=scores)

    def _with_queries(self, tokens: Tokens, seen: Seen, queries: Tensor | None) -> tuple[Tokens, Seen]:
        """Let queries that only the attention map needs go along behind what attends."""
        if queries is None:
            return tokens, seen
        width = queries.shape[2]

        def finish(rows: Tensor, _: Tensor | None) -> Tensor:
            return self.attention.output(rows[..., :width])

        both = torch.cat([tokens.values if tokens.asking is None else tokens.asking, queries], dim=2)
        return tokens._replace(asking=both), seen._replace(finish=finish, queries=lambda rows: rows[..., width:])

    def attend(self, tokens: Tokens, seen: Seen, wanted: Wanted) -> tuple[Tokens, Tensor | None]:
        """Add the attention output; the map (batch, heads, q, extra + n) if wanted."""
        asking = tokens.values if tokens.asking is None else tokens.asking
        pairs = None if seen.relative is None else seen.relative.rows(tokens.patches)
        shown = None
        if wanted.attention:
            queries = self.attention.split(seen.queries(asking))
            mask = self.attention.added(queries, seen.mask, pairs)
            shown = (
                attention_map(queries, seen.keys, mask)
                if seen.policy is None
                else policy_attention(queries, seen.keys, seen.policy, mask)
            )
        values = self._after(self.norm1, tokens.values, self.drop_path(seen.finish(asking, pairs)))
        return tokens._replace(values=values, asking=None), shown

    def feed_forward(self, tokens: Tokens) -> Tokens:
        """Add the MLP's output."""
        branch = self.drop_path(self.mlp(self._before(self.norm2, tokens.values)))
        return tokens._replace(values=self._after(self.norm2, tokens.values, branch))

    def _before(self, norm: nn.LayerNorm, values: Tensor) -> Tensor:
        """What a branch reads."""
        return norm(values) if self.norm_first else values

    def _after(self, norm: nn.LayerNorm, values: Tensor, branch: Tensor) -> Tensor:
        """What a residual hands on."""
        if self.norm_first:
            return values + branch
        return norm(values + branch if self.residual_scale == 1.0 else values * self.residual_scale + branch)


class Head(nn.Module):
    """Pooled vector → logits."""

    def __init__(self, config: SpectrimConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.head_norm_eps) if config.head_norm else nn.Identity()
        self.linear = nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, pooled: Tensor) -> Tensor:
        """(batch, width) → (batch, labels)."""
        return self.linear(self.norm(pooled))
