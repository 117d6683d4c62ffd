"""The public reference's order of computing, made anew from its description: what pruning cost there.

Every block makes its whole attention map as a tensor, computes queries, attention output and projection of all
tokens, scores from the map, picks survivors in order of their score, and runs the MLP on them. The code is ours; the
weights are those of the model beside it, so that the answers can be compared.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from gpu_sections.common import BACKBONES, Setting, captured, error_of, passing, row
from spectrim.network.macs import macs
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.pruning import Pruning
from spectrim.pruning.select import take_tokens

BATCH = 32
PUBLISHED_AUTOCAST: dict[str, torch.dtype | None] = {"ast": torch.float16, "audiomae": None}
"""What the public code tags in on a GPU: AST's forward pass is decorated with ``torch.cuda.amp.autocast`` (float16, and
nothing on a CPU); AudioMAE has autocast in its training loop alone, so its evaluation is in float32."""


class ReferenceOrder(nn.Module):
    """AST or AudioMAE computed in the order of the public code.

    Args:
        model: whose weights to use; queries, keys and values become one matrix, as there.
        keep_rate: share kept at each pruning block.
    """

    def __init__(self, model: AudioTransformer, keep_rate: float) -> None:
        super().__init__()
        self.model = model
        self.plans = model.config.plan(pruning=Pruning(keep_rate, model.config.pruning.at))
        parts = [(block.attention.query, block.attention.key_value) for block in model.blocks]
        self.weights = [torch.cat([query.weight, rest.weight]).detach() for query, rest in parts]
        self.biases = [torch.cat([query.bias, rest.bias]).detach() for query, rest in parts]

    def forward(self, values: Tensor) -> Tensor:
        """Spectrograms (batch, frames, mels) → logits (batch, labels)."""
        model, extra = self.model, self.model.config.extra_tokens
        heads = model.config.num_attention_heads
        tokens = model.embeddings(values)
        for block, plan, weight, bias in zip(model.blocks, self.plans, self.weights, self.biases, strict=True):
            projected = functional.linear(block.norm1(tokens), weight, bias)
            query, key, value = projected.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
            shares = (query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5).softmax(dim=-1)
            tokens = tokens + block.attention.output((shares @ value).transpose(1, 2).flatten(2))
            if plan.prunes:
                reading = shares[:, :, :1] if plan.criterion == "cls_attention" else shares[:, :, extra:]
                scores = reading[..., extra:].mean(dim=(1, 2))
                tokens = take_tokens(tokens, scores.topk(plan.patches_kept, dim=1).indices, extra)
            tokens = tokens + block.mlp(block.norm2(tokens))
        if model.config.pooling == "extra_tokens":
            pooled = model.norm(tokens)[:, :extra].mean(dim=1)
        else:
            pooled = model.norm(tokens[:, extra:].mean(dim=1))
        return model.head(pooled)


def reference_order(setting: Setting) -> dict[str, Any]:
    """Ours in half precision beside that order, as published and in the half precision of ours."""
    batch = BATCH if BATCH in setting.batches else setting.batches[-1]
    rows: list[dict[str, Any]] = []
    skipped = []
    for backbone in BACKBONES:
        for rate in setting.rates:
            if setting.late():
                skipped.append(f"{backbone}, r = {rate}")
                continue
            rows += _side_by_side(setting, backbone, batch, rate)
    return {
        "what": "own re-implementation of the public code's order of computing, eager as there; 'speed_up_of_ours' "
        "is a row's median over that of the fastest of ours at the same keep rate; 'published': in the precision "
        "in which the public code tags",
        "rows": rows,
        "skipped_for_time": skipped,
    }


def _side_by_side(setting: Setting, backbone: str, batch: int, rate: float) -> list[dict[str, Any]]:
    precise = setting.model(backbone, torch.float32)
    ours = setting.model(backbone)
    values, rounded = setting.spectrograms(precise, batch), setting.spectrograms(ours, batch)
    half, published = str(setting.dtype).removeprefix("torch."), published_precision(setting, backbone)
    theirs = ReferenceOrder(precise, rate)
    cases: dict[tuple[str, str], Any] = {
        ("reference's order", published): partial(in_precision(published, theirs), values),
        ("reference's order", half): partial(in_precision(half, ReferenceOrder(ours, rate)), rounded),
        ("ours", half): partial(passing(ours, rate), rounded),
    }
    if setting.is_cuda:
        cases["ours, graph", half] = partial(captured(passing(ours, rate), rounded), rounded)
    difference = error_of(in_precision("float32", theirs)(values), passing(precise, rate)(values))
    executed = macs(precise, keep_rate=rate).executed
    rows = [
        {
            "backbone": backbone,
            "batch_size": batch,
            "keep_rate": rate,
            "way": way,
            "dtype": kind,
            "published": (way, kind) == ("reference's order", published),
            **row(setting, times, batch, executed),
        }
        for (way, kind), times in setting.clock(cases).items()
    ]
    fastest = min(one["median_ms"] for one in rows if one["way"].startswith("ours"))
    for one in rows:
        one["speed_up_of_ours"] = one["median_ms"] / fastest
        one["difference_in_float32"] = difference
    return rows


def published_precision(setting: Setting, backbone: str) -> str:
    """What the public code's own forward pass runs in on this device: ``"float32"``, or ``"autocast float16"``."""
    kind = PUBLISHED_AUTOCAST[backbone] if setting.is_cuda else None
    return "float32" if kind is None else f"autocast {str(kind).removeprefix('torch.')}"


def in_precision(precision: str, model: nn.Module) -> Callable[[Tensor], Tensor]:
    """A function from spectrograms to logits, in a precision as `published_precision` names it or the model's own."""
    autocast, _, kind = precision.rpartition(" ")

    def call(values: Tensor) -> Tensor:
        cast = torch.autocast(values.device.type, getattr(torch, kind)) if autocast else nullcontext()
        with torch.inference_mode(), cast:
            return model(values)

    return call
