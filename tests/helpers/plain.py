"""The plain order of computing, written out with loops: what every shortcut of the encoder is compared with.

One clip at a time, every token in every block, explicit attention maps, selection by sorting. It reads the weights of
an `AudioTransformer` by name and calls none of its code.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import scipy.fft
import torch
from torch import Tensor

from spectrim.backbones import BUILDERS, beats_base, ced_base, eat_base, kwt_1, passt_base, ssast_base
from spectrim.config import SpectrimConfig
from spectrim.network.transformer import AudioTransformer

BACKBONES = ("ast", "audiomae")
OTHERS = {
    "beats": (
        beats_base,
        {
            "max_length": 142,
            "embedding_size": 48,
            "position_kernel": 12,
            "position_groups": 4,
            "relative_buckets": 16,
            "relative_distance": 40,
        },
    ),
    "ced": (ced_base, {"max_length": 272}),
    "eat": (eat_base, {"max_length": 128}),
    "kwt": (kwt_1, {"max_length": 64}),
    "passt": (passt_base, {"max_length": 76}),
    "ssast": (ssast_base, {"max_length": 128, "patch_size": [128, 2], "frequency_stride": 128, "time_stride": 2}),
}
"""Backbones that are not trained here: their builders, and what makes them small (64 to 84 patches)."""

CRITERIA = (
    *("cls_attention", "cls_weighted_norm", "cls_head_median", "cls_without_sinks", "cls_attention_so_far"),
    *("value_norm", "mean_attention", "mean_attention_so_far"),
    *("intensity", "variation", "random"),
)


IN_BLOCKS = CRITERIA[:8]
"""Those that score anew in every block."""


def small_config(backbone: str, **fields: object) -> SpectrimConfig:
    """12 blocks of width 64 on 128 frames: 64 patches; others as `OTHERS` says."""
    sizes = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "max_length": 128, "num_labels": 5}
    if backbone in OTHERS:
        build, few = OTHERS[backbone]
        return build(**{**sizes, **few, **fields})
    return BUILDERS[f"{backbone}-tiny"](**{**sizes, **fields})


def criteria_of(backbone: str) -> tuple[str, ...]:
    """Those that score anew in every block, as far as a backbone can have them: some have no [CLS]."""
    extra = small_config(backbone).extra_tokens
    return tuple(name for name in IN_BLOCKS if extra or not name.startswith("cls"))


def small_model(backbone: str, *, dtype: torch.dtype = torch.float64, **fields: object) -> AudioTransformer:
    """A model whose weights are large enough for peaked attention and logits of order one, in eval mode.

    The initialisation of the library would not do: its small weights hide differences (AudioMAE's head has 2e-5).
    """
    return randomise(AudioTransformer(small_config(backbone, **fields))).to(dtype).eval()


@torch.no_grad()
def randomise(model: AudioTransformer, seed: int = 0) -> AudioTransformer:
    """Draw every parameter anew from a seeded normal distribution."""
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        draw = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        if "input_norm" in name:
            draw = 1.0 + 0.3 * draw if name.endswith("weight") else draw
        elif weight.ndim == 1:
            draw = 0.1 * draw + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
        elif name.endswith(("_token", "_table", "_positions")):
            draw = 0.5 * draw
        else:
            draw = draw * 1.4 / math.sqrt(math.prod(weight.shape[1:]))
        weight.copy_(draw)
    for name, value in model.named_buffers():
        if "input_norm" in name:
            draw = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            value.copy_(draw if name.endswith("mean") else 1.0 + draw.abs())
    return model


def clips(config: SpectrimConfig, batch: int = 2, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """(batch, frames, mels) noise whose level and spread change over the spectrogram."""
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, config.max_length, config.num_mel_bins)
    noise, level, spread = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3))
    level, spread = (torch.nn.functional.avg_pool2d(part.unsqueeze(1), 15, 1, 7).squeeze(1) for part in (level, spread))
    return (8.0 * level + (1.0 + 8.0 * spread.abs()) * noise * 0.5).to(dtype)


@dataclass
class PlainResult:
    """What the plain computing gives for one clip; patches are named by grid index f·T + t."""

    logits: Tensor
    scores: list[dict[int, float]] = field(default_factory=list)
    kept: list[set[int]] = field(default_factory=list)


def plain_forward(
    model: AudioTransformer,
    clip: Tensor,
    rates: Mapping[int, float] | None = None,
    visible: set[int] | None = None,
    removed: Mapping[int, set[int]] | None = None,
    silent: set[int] | None = None,
) -> PlainResult:
    """Classify one clip (frames, mels), gradients included.

    Args:
        model: gives the weights and the configuration.
        clip: (frames, mels).
        rates: keep rate of each pruning block; None for the configured ones.
        visible: grid indices of the patches that take part; None for all.
        removed: block → grid indices of the patches that are dropped in it, between attention and MLP.
        silent: grid indices of the patches that a convolution for positions takes to be 0.
    """
    config, weights = model.config, {**dict(model.named_parameters()), **dict(model.named_buffers())}
    rates = config.pruning.rates if rates is None else rates
    extra, (frequency, time) = config.extra_tokens, config.grid
    patches, sequence = {}, []
    for f in range(frequency):
        for t in range(time):
            first_frame, first_bin = t * config.time_stride, f * config.frequency_stride
            height, width = config.patch_shape
            frames = clip[first_frame : first_frame + width]
            patches[f * time + t] = frames[:, first_bin : first_bin + height].T
    if config.patch_order == "frequency_major":
        sequence = [f * time + t for f in range(frequency) for t in range(time)]
    else:
        sequence = [f * time + t for t in range(time) for f in range(frequency)]
    kernel = weights["embeddings.projection.weight"].flatten(1)
    rows = [weights[f"embeddings.{name}_token"][0, 0] for name in ("cls", "dist")[:extra]]
    for patch in sequence:
        read = plain_input_norm(config, weights, patches[patch], patch)
        rows.append(kernel @ read.flatten() + weights.get("embeddings.projection.bias", 0.0))
    tokens = torch.stack(rows)
    if config.embedding_size:
        tokens = layer_norm(tokens, weights, "embeddings.patch_norm", config.layer_norm_eps)
        tokens = linear(tokens, weights, "embeddings.widening")
    if config.position_kernel:
        heard = torch.tensor([patch not in (silent or ()) for patch in sequence])
        tokens = plain_convolution(config, weights, tokens * heard.unsqueeze(1))
    else:
        tokens = tokens + plain_positions(config, weights, sequence)
    if config.embedding_norm:
        tokens = layer_norm(tokens, weights, "embeddings.norm", config.layer_norm_eps)
    here = [place for place, patch in enumerate(sequence) if visible is None or patch in visible]
    tokens = torch.cat([tokens[:extra], tokens[[extra + place for place in here]]])
    alive = [sequence[place] for place in here]
    result = PlainResult(tokens)
    places = {patch: place for place, patch in enumerate(sequence)}
    earlier: list[dict[int, float]] = []
    for block in range(config.num_hidden_layers):
        gone = (removed or {}).get(block, set())
        rate = rates.get(block, 1.0)
        standing = [places[patch] for patch in alive]
        tokens, alive, scores = _plain_block(
            config, weights, block, tokens, alive, standing, patches, rate, gone, earlier
        )
        result.scores.append(scores)
        result.kept.append(set(alive))
    if not config.norm_first:
        pooled = (tokens[:extra] if config.pooling == "extra_tokens" else tokens[extra:]).mean(dim=0)
    elif config.pooling == "extra_tokens":
        pooled = layer_norm(tokens, weights, "norm", config.layer_norm_eps)[:extra].mean(dim=0)
    elif config.pooling == "mean_normed_patches":
        pooled = layer_norm(tokens[extra:], weights, "norm", config.layer_norm_eps).mean(dim=0)
    else:
        pooled = layer_norm(tokens[extra:].mean(dim=0), weights, "norm", config.layer_norm_eps)
    if config.head_norm:
        pooled = layer_norm(pooled, weights, "head.norm", config.head_norm_eps)
    result.logits = linear(pooled, weights, "head.linear")
    return result


def plain_input_norm(config: SpectrimConfig, weights: Mapping[str, Tensor], values: Tensor, patch: int) -> Tensor:
    """What the projection reads of a patch (mel bins, frames) with this grid index: batch normalisation, eps 1e-5."""
    if not config.input_norm:
        return values
    first = patch // config.grid[1] * config.frequency_stride
    kinds = ("weight", "bias", "mean", "variance")
    of_bins = (weights[f"embeddings.input_norm.{kind}"][first : first + len(values), None] for kind in kinds)
    weight, bias, mean, variance = of_bins
    return (values - mean) / torch.sqrt(variance + 1e-5) * weight + bias


def plain_positions(config: SpectrimConfig, weights: Mapping[str, Tensor], sequence: list[int]) -> Tensor:
    """(extra + n, width): what is added to each token, the patches' grid indices being ``sequence``."""
    if not config.separate_positions:
        return weights["embeddings.position_table"][0]
    of_frequency = weights["embeddings.frequency_positions"][0, :, :, 0].T
    of_time = weights["embeddings.time_positions"][0, :, 0].T
    places = [divmod(patch, config.grid[1]) for patch in sequence]
    both = torch.stack([of_frequency[f] + of_time[t] for f, t in places])
    if config.extra_tokens == 0:
        return both
    return torch.cat([weights["embeddings.extra_positions"][0], both])


def plain_convolution(config: SpectrimConfig, weights: Mapping[str, Tensor], rows: Tensor) -> Tensor:
    """(n, width) → the same with positions: row i gets the filters over rows i − k/2 … i + k/2 − 1."""
    filters = weights["embeddings.position_convolution.filters.weight"]
    groups, kernel = config.position_groups, config.position_kernel
    parts = rows.chunk(groups, dim=1)
    found = []
    for place in range(len(rows)):
        around = [(tap, place + tap - kernel // 2) for tap in range(kernel)]
        around = [(tap, at) for tap, at in around if 0 <= at < len(rows)]
        sums = [
            sum(chosen[:, :, tap] @ part[at] for tap, at in around)
            for chosen, part in zip(filters.chunk(groups), parts, strict=True)
        ]
        found.append(torch.cat(sums) + weights["embeddings.position_convolution.filters.bias"])
    spread = torch.stack(found)
    rows = rows + spread * 0.5 * (1.0 + torch.erf(spread / math.sqrt(2.0)))
    return layer_norm(rows, weights, "embeddings.position_convolution.norm", config.layer_norm_eps)


def plain_bias(
    config: SpectrimConfig, weights: Mapping[str, Tensor], block: int, head: int, query: Tensor, places: list[int]
) -> Tensor:
    """(tokens, tokens) that a head adds to its attention logits for distances; ``query`` (tokens, head_dim)."""
    name, half = f"blocks.{block}.attention", config.relative_buckets // 2
    near = half // 2
    learnt = weights["embeddings.relative_positions"][:, head]
    rows = []
    for row, here in zip(query, places, strict=True):
        numbers = weights[f"{name}.gate.weight"] @ row + weights[f"{name}.gate.bias"]
        one, other = torch.sigmoid(numbers[:4].sum()), torch.sigmoid(numbers[4:].sum())
        gate = one * (other * weights[f"{name}.gate_scale"][0, head, 0, 0] - 1.0) + 2.0
        buckets = []
        for there in places:
            bucket = far = abs(there - here)
            if far >= near:
                bucket = near + int(math.log(far / near) / math.log(config.relative_distance / near) * (half - near))
            buckets.append(min(bucket, half - 1) + (half if there > here else 0))
        rows.append(gate * learnt[buckets])
    return torch.stack(rows)


def _plain_block(
    config: SpectrimConfig,
    weights: Mapping[str, Tensor],
    block: int,
    tokens: Tensor,
    alive: list[int],
    places: list[int],
    patches: Mapping[int, Tensor],
    rate: float,
    gone: set[int],
    earlier: list[dict[int, float]],
) -> tuple[Tensor, list[int], dict[int, float]]:
    name, extra, width = f"blocks.{block}", config.extra_tokens, config.hidden_size
    head_dim = width // config.num_attention_heads
    eps, before = config.layer_norm_eps, config.norm_first
    normed = layer_norm(tokens, weights, f"{name}.norm1", eps) if before else tokens
    query = linear(normed, weights, f"{name}.attention.query")
    key, value = linear(normed, weights, f"{name}.attention.key_value").split(width, dim=1)
    maps, attended, norms = [], [], []
    for head in range(config.num_attention_heads):
        part = slice(head * head_dim, (head + 1) * head_dim)
        logits = query[:, part] @ key[:, part].T / math.sqrt(head_dim)
        if config.relative_buckets:
            logits = logits + plain_bias(config, weights, block, head, query[:, part], places)
        powers = torch.exp(logits - logits.max(dim=1, keepdim=True).values)
        maps.append(powers / powers.sum(dim=1, keepdim=True))
        attended.append(maps[-1] @ value[:, part])
        norms.append((value[:, part] ** 2).sum(dim=1).sqrt())
    scale = (2 * config.num_hidden_layers) ** 0.25 if config.deep_norm else 1.0
    tokens = scale * tokens + linear(torch.cat(attended, dim=1), weights, f"{name}.attention.output")
    tokens = tokens if before else layer_norm(tokens, weights, f"{name}.norm1", eps)
    scores = plain_scores(config, torch.stack(maps).detach(), torch.stack(norms).detach(), alive, patches)
    if config.resolved_criterion.endswith("_so_far"):
        earlier.append(scores)
        scores = {patch: math.fsum(block[patch] for block in earlier) / len(earlier) for patch in alive}
    if rate < 1.0:
        stay = sorted(plain_choice(config, alive, scores, rate))
        tokens = torch.cat([tokens[:extra], tokens[[extra + place for place in stay]]])
        alive = [alive[place] for place in stay]
    left = [place for place, patch in enumerate(alive) if patch not in gone]
    if left:
        tokens = torch.cat([tokens[:extra], tokens[[extra + place for place in left]]])
        alive = [alive[place] for place in left]
    return plain_mlp(config, weights, name, tokens), alive, scores


def plain_choice(config: SpectrimConfig, alive: list[int], scores: Mapping[int, float], rate: float) -> list[int]:
    """Places of the patches that stay: the highest scores, in each part of the clip or for a share of their sum."""
    best = sorted(range(len(alive)), key=lambda place: (-scores[alive[place]], alive[place]))
    count, time = math.ceil(rate * len(alive)), config.grid[1]
    if config.time_segments > 1:
        columns = [alive[place] % time for place in best]
        return [best[at] for at in dhondt([t * config.time_segments // time for t in columns], count)]
    if config.attention_mass > 0.0:
        held = list(itertools.accumulate(scores[alive[place]] for place in best))
        count = max(count, 1 + sum(part < config.attention_mass * held[-1] for part in held))
    return best[:count]


def dhondt(parties: list[int], seats: int) -> list[int]:
    """The candidates elected, best first, of candidates ordered by score, when parties win seats by their size.

    A seat goes to the party with the smallest (seats won + 1) / size, then to that with fewer seats, then to that
    whose next candidate has the higher score.
    """
    members = {party: [at for at, own in enumerate(parties) if own == party] for party in set(parties)}
    elected: list[int] = []
    won = dict.fromkeys(members, 0)
    for _ in range(seats):
        left = [party for party, candidates in members.items() if won[party] < len(candidates)]
        party = min(left, key=lambda p: (Fraction(won[p] + 1, len(members[p])), won[p], members[p][won[p]]))
        elected.append(members[party][won[party]])
        won[party] += 1
    return elected


def plain_mlp(config: SpectrimConfig, weights: Mapping[str, Tensor], name: str, tokens: Tensor) -> Tensor:
    """The second half of a block: (tokens, width) → the same shape."""
    eps, before = config.layer_norm_eps, config.norm_first
    hidden = layer_norm(tokens, weights, f"{name}.norm2", eps) if before else tokens
    hidden = linear(hidden, weights, f"{name}.mlp.up")
    if config.hidden_act == "gelu_pytorch_tanh":
        hidden = hidden * 0.5 * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (hidden + 0.044715 * hidden**3)))
    else:
        hidden = hidden * 0.5 * (1.0 + torch.erf(hidden / math.sqrt(2.0)))
    scale = (2 * config.num_hidden_layers) ** 0.25 if config.deep_norm else 1.0
    tokens = scale * tokens + linear(hidden, weights, f"{name}.mlp.down")
    return tokens if before else layer_norm(tokens, weights, f"{name}.norm2", eps)


def plain_scores(
    config: SpectrimConfig, maps: Tensor, norms: Tensor, alive: list[int], patches: Mapping[int, Tensor]
) -> dict[int, float]:
    """Score of each living patch.

    From the maps (heads, tokens, tokens), the norms of the values (heads, tokens) or the patch's own log-mel values.
    """
    extra, criterion = config.extra_tokens, config.resolved_criterion
    if config.features == "mfcc":
        patches = {patch: log_mel_of(values) for patch, values in patches.items()}
    if criterion.startswith("cls_attention"):
        columns = maps[:, 0, extra:].mean(dim=0).tolist()
    elif criterion == "cls_weighted_norm":
        columns = (maps[:, 0] * norms)[:, extra:].mean(dim=0).tolist()
    elif criterion == "cls_head_median":
        columns = np.median(maps[:, 0, extra:].numpy(), axis=0).tolist()
    elif criterion == "cls_without_sinks":
        held = norms[:, extra:].mean(dim=0)
        columns = [
            share if norm >= held.sum() / len(held) else math.log(share)
            for share, norm in zip(maps[:, 0, extra:].mean(dim=0).tolist(), held, strict=True)
        ]
    elif criterion == "value_norm":
        columns = norms[:, extra:].mean(dim=0).tolist()
    elif criterion.startswith("mean_attention"):
        columns = maps[:, extra:, extra:].mean(dim=(0, 1)).tolist()
    elif criterion == "intensity":
        columns = [float(patches[patch].mean()) for patch in alive]
    elif criterion == "variation":
        columns = [float(((p - p.mean()) ** 2).sum() / (p.numel() - 1)) ** 0.5 for p in (patches[i] for i in alive)]
    else:
        generator = random.Random(config.random_seed)
        table = [generator.random() for _ in range(config.num_patches)]
        columns = [table[patch] for patch in alive]
    return dict(zip(alive, columns, strict=True))


def log_mel_of(coefficients: Tensor) -> Tensor:
    """The 80 log-mel values of a frame whose higher cepstral coefficients are 0, (80, 1); scipy's inverse transform."""
    padded = np.zeros(80)
    padded[: len(coefficients)] = coefficients[:, 0].numpy()
    padded[0] /= math.sqrt(2.0)
    return torch.from_numpy(scipy.fft.idct(padded, norm="ortho"))[:, None]


def layer_norm(tokens: Tensor, weights: Mapping[str, Tensor], name: str, eps: float) -> Tensor:
    """Normalise the last axis."""
    centred = tokens - tokens.mean(dim=-1, keepdim=True)
    variance = (centred**2).mean(dim=-1, keepdim=True)
    return centred / torch.sqrt(variance + eps) * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def linear(tokens: Tensor, weights: Mapping[str, Tensor], name: str) -> Tensor:
    """Multiply and add, with the bias where there is one."""
    out = tokens @ weights[f"{name}.weight"].T
    return out + weights[f"{name}.bias"] if f"{name}.bias" in weights else out
