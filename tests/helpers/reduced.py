"""What a model with a reducer computes, written out with loops, and how one is compared with it.

One clip at a time; every token attends in every block, and the reduction itself is a function of the test.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnxruntime
import torch
from exported import noise
from plain import clips, layer_norm, linear, plain_mlp, small_config
from seeded import seeded_state
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from spectrim.audio.frontend import Frontend
from spectrim.config import SpectrimConfig
from spectrim.inference.onnx_export import export
from spectrim.network.macs import macs
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.pruning import Pruning
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


def assert_executed_is_counted(config: SpectrimConfig, pruning: Pruning) -> None:
    """Our count of executed MACs is what torch counts while the model runs."""
    with torch.device("meta"):
        model = AudioTransformer(config).eval()
    values = torch.zeros(1, config.max_length, config.num_mel_bins, device="meta")
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(values, pruning=pruning)
    assert macs(model, pruning=pruning).executed == counter.get_total_flops() / 2


def assert_compiles_as_one_graph(model: AudioTransformer) -> None:
    """`torch.compile` makes one graph of it, with the same logits."""
    values = clips(model.config)
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(values).logits, model(values).logits, **EXACT)
    torch.compiler.reset()


def assert_gradients(model: AudioTransformer, plain: Callable[..., Plain]) -> None:
    """Gradients of all weights are those of the definition, ``plain`` of a clip; of a ragged batch too."""
    values, weights = clips(model.config), [weight for weight in model.parameters() if weight.requires_grad]
    model.train()
    whole = torch.stack([plain(clip).logits for clip in values])
    _same_gradients(model(values).logits, whole, weights)
    frames, pruning = torch.tensor([128, 36]), model.config.pruning.changed({"drop_padding": True})
    real = [{f * 8 + t for f in range(8) for t in range(8) if 16 * t < count} for count in frames.tolist()]
    ragged = torch.stack([plain(clip, visible=seen).logits for clip, seen in zip(values, real, strict=True)])
    _same_gradients(model(values, num_frames=frames, pruning=pruning).logits, ragged, weights)


def _same_gradients(found: Tensor, wanted: Tensor, weights: Sequence[Tensor]) -> None:
    both = [torch.autograd.grad((logits**2).sum(), weights, allow_unused=True) for logits in (found, wanted)]
    for ours, theirs in zip(*both, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


def assert_padding_and_removed_patches_are_left_out(model: AudioTransformer, plain: Callable[..., Plain]) -> None:
    """Clips of a ragged batch, with patches removed, are as the definition has them, and as if alone."""
    values, frames = clips(model.config, batch=4), torch.tensor([128, 17, 80, 0])
    removed = torch.zeros(4, 8, 8, dtype=torch.bool)
    removed[:, 2] = True
    with torch.no_grad():
        found = model(
            values, num_frames=frames, removed={1: removed}, output_token_trace=True, output_hidden_states=True
        )
        for item, count in enumerate(frames.tolist()):
            real = {f * 8 + t for f in range(8) for t in range(8) if t == 0 or 16 * t < count}
            agree(found, item, plain(values[item], visible=real, removed={1: indices(removed[item])}))
        alone = model(values[2:3], num_frames=frames[2:3], removed={1: removed[2:3]}).logits[0]
        torch.testing.assert_close(alone, found.logits[2], **EXACT)


def assert_exported(model: AudioTransformer, path: Path, plain: Callable[[Tensor], Plain]) -> None:
    """ONNX Runtime gives the definition's logits and surviving patches."""
    export(model, path, clips=noise())
    values = Frontend.from_config(model.config)(noise()[:3]).input_values
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    logits, kept = session.run(["logits", "kept"], {"input_values": values.numpy()})
    for item, clip in enumerate(values):
        with torch.no_grad():
            wanted = plain(clip)
        np.testing.assert_allclose(logits[item], wanted.logits, atol=1e-4)
        survived = [sum(carrier.get(patch) == patch for carrier in wanted.carriers) for patch in range(32)]
        assert kept[item].flatten().tolist() == survived
