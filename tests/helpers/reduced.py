"""What a model with a reducer computes, written out with loops, and how one is compared with it.

One clip at a time; every token attends in every block, and the reduction itself is a function of the test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from plain import layer_norm, linear, plain_mlp, small_config
from seeded import seeded_state
from torch import Tensor

from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.trace import grid_order

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def seeded_blocks(extra: int, seed: int = 7) -> AudioTransformer:
    """A model whose blocks have the weights that public code was recorded with, under our names."""
    model = AudioTransformer(small_config("ast", extra_tokens=extra)).double().eval()
    theirs = {"attn.proj": "attention.output", "mlp.fc1": "mlp.up", "mlp.fc2": "mlp.down"}
    shapes = {
        "norm1": (64,),
        "norm2": (64,),
        "attn.qkv": (192, 64),
        "attn.proj": (64, 64),
        "mlp.fc1": (128, 64),
        "mlp.fc2": (64, 128),
    }
    names = {f"{n}.{part}.weight": shape for n in range(12) for part, shape in shapes.items()}
    names |= {name.replace("weight", "bias"): shape[:1] for name, shape in names.items()}
    state = {}
    for name, weight in seeded_state(names, seed).items():
        if "qkv" in name:
            state[name.replace("attn.qkv", "attention.query")] = weight[:64]
            state[name.replace("attn.qkv", "attention.key_value")] = weight[64:]
        else:
            part = name.split(".", 1)[1].rsplit(".", 1)[0]
            state[name.replace(part, theirs.get(part, part))] = weight
    model.blocks.load_state_dict(state)
    return model


class Token(NamedTuple):
    """A patch token: the grid index of its patch or a negative name, values (width,), how many it counts as."""

    name: int
    values: Tensor
    size: int = 1


class Step(NamedTuple):
    """What a reduction gets: patch tokens after attention, their scores, the keys of all tokens (mean over heads)."""

    block: int
    tokens: list[Token]
    scores: Tensor
    keys: Tensor
    count: int


Reduction = Callable[[Step], tuple[list[Token], dict[int, int]]]
"""Gives the tokens that go on, and the name of a token that is no more → that of the one that carries it on."""


@dataclass
class Plain:
    """One clip, with loops."""

    logits: Tensor
    tokens: list[dict[int, Tensor]] = field(default_factory=list)
    carriers: list[dict[int, int]] = field(default_factory=list)


def plain_reduced(
    model: AudioTransformer,
    clip: Tensor,
    rates: Mapping[int, float],
    reduction: Reduction,
    visible: set[int] | None = None,
    removed: Mapping[int, set[int]] | None = None,
) -> Plain:
    """Classify one clip (frames, mels); see `AudioTransformer.forward` for ``visible`` and ``removed``."""
    config, weights = model.config, dict(model.named_parameters())
    extra, width, heads = config.extra_tokens, config.hidden_size, config.num_attention_heads
    sequence = grid_order(config.grid, config.patch_order).tolist()
    rows = model.embeddings(clip.unsqueeze(0))[0]
    first, tokens = rows[:extra], [Token(at, row) for at, row in zip(sequence, rows[extra:], strict=True)]
    tokens = [token for token in tokens if visible is None or token.name in visible]
    carrier = {token.name: token.name for token in tokens}
    result = Plain(rows)
    for block in range(config.num_hidden_layers):
        name = f"blocks.{block}"
        values = torch.stack([*first, *(token.values for token in tokens)])
        eps, before = config.layer_norm_eps, config.norm_first
        normed = layer_norm(values, weights, f"{name}.norm1", eps) if before else values
        query = linear(normed, weights, f"{name}.attention.query")
        key, value = linear(normed, weights, f"{name}.attention.key_value").split(width, dim=1)
        parts = [slice(h * width // heads, (h + 1) * width // heads) for h in range(heads)]
        more = torch.tensor([0.0] * extra + [math.log(token.size) for token in tokens], dtype=values.dtype)
        maps = [(query[:, p] @ key[:, p].T / math.sqrt(width // heads) + more).softmax(dim=1) for p in parts]
        attended = torch.cat([m @ value[:, p] for m, p in zip(maps, parts, strict=True)], dim=1)
        values = values + linear(attended, weights, f"{name}.attention.output")
        values = values if before else layer_norm(values, weights, f"{name}.norm1", eps)
        first = values[:extra]
        tokens = [token._replace(values=row) for token, row in zip(tokens, values[extra:], strict=True)]
        mean = torch.stack(maps).mean(dim=0)
        scores = mean[0, extra:] if config.resolved_criterion == "cls_attention" else mean[extra:, extra:].mean(dim=0)
        count = math.ceil(rates.get(block, 1.0) * len(tokens))
        if count < len(tokens):
            keys = torch.stack([key[:, p] for p in parts]).mean(dim=0)
            tokens, moved = reduction(Step(block, tokens, scores, keys, count))
            carrier = {patch: moved.get(at, at) for patch, at in carrier.items()}
        gone = (removed or {}).get(block, set())
        tokens = [token for token in tokens if token.name not in gone] or tokens
        names = {token.name for token in tokens}
        carrier = {patch: at for patch, at in carrier.items() if at in names}
        values = torch.stack([*first, *(token.values for token in tokens)])
        values = plain_mlp(config, weights, name, values)
        first = values[:extra]
        tokens = [token._replace(values=row) for token, row in zip(tokens, values[extra:], strict=True)]
        result.tokens.append({token.name: token.values for token in tokens})
        result.carriers.append(carrier)
    total = sum(token.size for token in tokens)
    mean = sum(token.size * token.values for token in tokens) / total
    pooled = first if config.pooling == "extra_tokens" else mean.unsqueeze(0)
    if config.norm_first:
        pooled = layer_norm(pooled, weights, "norm", config.layer_norm_eps)
    pooled = pooled.mean(dim=0)
    if config.head_norm:
        pooled = layer_norm(pooled, weights, "head.norm", config.head_norm_eps)
    result.logits = linear(pooled, weights, "head.linear")
    return result


def indices(flags: Tensor) -> set[int]:
    """Grid indices of the patches that are flagged, (F, T)."""
    return set(flags.flatten().nonzero().flatten().tolist())


def agree(found, item: int, plain: Plain) -> None:
    """Logits, which patches live, and the very token that carries each patch."""
    torch.testing.assert_close(found.logits[item], plain.logits, **EXACT)
    trace = found.token_trace
    for block, (tokens, carriers) in enumerate(zip(plain.tokens, plain.carriers, strict=True)):
        source = trace.source[block][item].flatten()
        assert indices(source >= 0) == set(carriers)
        assert indices(trace.kept[block][item]) == {patch for patch, at in carriers.items() if patch == at}
        for patch, at in carriers.items():
            carried = found.hidden_states[block + 1][item, source[patch]]
            torch.testing.assert_close(carried, tokens[at], **EXACT)
