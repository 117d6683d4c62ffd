"""ToMe's token merging as FastAST applies it to AST: our own writing of the arithmetic, for timing beside pruning.

ToMe (Bolya et al., ICLR 2023, section 3) merges, between attention and MLP of every block, the r most similar pairs
of tokens: tokens are split alternately into two sets, each of the first finds the most similar of the second by
cosine of the keys (mean over heads), and the r best pairs become their mean, weighted by how many patches each
stands for. Attention adds the logarithm of that number to its logits ("proportional attention"). FastAST (Behera et
al., ICASSP 2024) does this in AST, training-free. Here it runs on the weights of an `AudioTransformer`. [CLS] and
[DIST] are never merged.
Attention goes through ``scaled_dot_product_attention`` with the logarithms as its mask; every block computes all its
tokens, the last one too, as in the originals.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from spectrim.network.transformer import AudioTransformer


def match(metric: Tensor, merged: int, extra: int) -> tuple[Tensor, Tensor, Tensor]:
    """Bipartite soft matching.

    Args:
        metric: (batch, n, width) what similarity is measured by.
        merged: how many tokens to merge away; at most half of those that may be.
        extra: tokens at the front that stay as they are.

    Returns:
        Of the first set (places 0, 2, …) in order: (batch, a − merged) that stay, (batch, merged) that are merged, and
        (batch, merged) which of the second set (places 1, 3, …) takes each.
    """
    metric = functional.normalize(metric, dim=-1)
    first, second = metric[:, ::2], metric[:, 1::2]
    similarity = first @ second.transpose(1, 2)
    similarity[:, : (extra + 1) // 2] = -torch.inf
    similarity[:, :, : extra // 2] = -torch.inf
    best, partner = similarity.max(dim=-1)
    order = best.argsort(dim=-1, descending=True)
    going, staying = order[:, :merged], order[:, merged:].sort(dim=-1).values
    return staying, going, partner.gather(1, going)


def merge(tokens: Tensor, sizes: Tensor, matched: tuple[Tensor, Tensor, Tensor], extra: int) -> tuple[Tensor, Tensor]:
    """Replace matched tokens by their mean, weighted by their sizes.

    Args:
        tokens: (batch, n, width).
        sizes: (batch, n, 1) number of patches that each token stands for.
        matched: of `match`.
        extra: 1 or 2, tokens at the front that stay there.

    Returns:
        Tokens (batch, n − merged, width), the extra tokens first, then the first set and the second, and their sizes.
    """
    staying, going, partner = matched
    both = torch.cat([tokens * sizes, sizes], dim=-1)
    first, second = both[:, ::2], both[:, 1::2]
    width = both.shape[-1]

    def pick(index: Tensor) -> Tensor:
        return first.gather(1, index.unsqueeze(-1).expand(-1, -1, width))

    second = second.scatter_add(1, partner.unsqueeze(-1).expand(-1, -1, width), pick(going))
    stayed, others = pick(staying), extra - 1
    joined = torch.cat([stayed[:, :1], second[:, :others], stayed[:, 1:], second[:, others:]], dim=1)
    sizes = joined[..., -1:]
    return joined[..., :-1] / sizes, sizes


class MergingAST(nn.Module):
    """An AST that merges instead of pruning.

    Args:
        model: whose weights it uses; not changed.
        merged: tokens that every block merges away.
    """

    def __init__(self, model: AudioTransformer, merged: int) -> None:
        super().__init__()
        if model.config.pooling != "extra_tokens":
            raise ValueError("merging is timed on AST, which reads [CLS] and [DIST]")
        self.model = model
        self.merged = merged

    def forward(self, input_values: Tensor) -> Tensor:
        """Log-mel (batch, frames, mels) → logits (batch, labels)."""
        extra = self.model.config.extra_tokens
        tokens = self.model.embeddings(input_values)
        sizes = tokens.new_ones(*tokens.shape[:2], 1)
        for block in self.model.blocks:
            attention, normed = block.attention, block.norm1(tokens)
            keys, values = attention.keys_values(normed)
            proportion = sizes.log().transpose(1, 2).unsqueeze(1)
            tokens = tokens + attention(attention.queries(normed), keys, values, proportion)
            number = min(self.merged, (tokens.shape[1] - extra) // 2)
            if number > 0:
                tokens, sizes = merge(tokens, sizes, match(keys.mean(dim=1), number, extra), extra)
            tokens = tokens + block.mlp(block.norm2(tokens))
        logits: Tensor = self.model.head(self.model.norm(tokens[:, :extra]).mean(dim=1))
        return logits


def multiply_accumulates(model: AudioTransformer, merged: int) -> int:
    """MACs of `MergingAST` for one clip: linear layers, attention and matching; norms and sums are not counted."""
    config = model.config
    width, hidden, extra = config.hidden_size, config.intermediate_size, config.extra_tokens
    tokens = extra + config.num_patches
    total = config.num_patches * width * config.patch_size**2 + width * config.num_labels
    for _ in range(config.num_hidden_layers):
        total += 4 * tokens * width**2 + 2 * tokens**2 * width
        number = min(merged, (tokens - extra) // 2)
        if number > 0:
            total += (tokens - tokens // 2) * (tokens // 2) * width // config.num_attention_heads
            tokens -= number
        total += 2 * tokens * width * hidden
    return total


def merged_for(model: AudioTransformer, most: int) -> int:
    """Fewest tokens to merge a block so that the MACs of a clip are ``most`` or below."""
    for merged in range(model.config.num_patches // 2 + 1):
        if multiply_accumulates(model, merged) <= most:
            return merged
    raise ValueError(f"no number of merged tokens brings the MACs down to {most}")
