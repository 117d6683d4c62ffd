"""What ranks the patches. A criterion returns scores and gathers nothing: the highest scores stay.

A new criterion is one function here and one entry in `CRITERIA`; configuration, command line, MAC counting and
documentation read it from there. Torch is imported where tensors are made, so that names can be listed without it.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

if TYPE_CHECKING:
    import torch
    from torch import Tensor

AUTO = "auto"
"""Stands for the attention score with which the paper prunes the backbone: `BACKBONE_CRITERIA`."""

PLASTIC = 1.324717957244746
"""The plastic number, the real root of p³ = p + 1."""

QUERY_CHUNK = 128
"""Query rows whose attention map is held at once, so that memory grows with n and not with n²."""


@dataclass(frozen=True)
class Criterion:
    """A way to rank patches.

    Attributes:
        reads: what it looks at: ``"class"``, the query of [CLS] in the block, ``"all"``, the queries of all tokens
            there, or ``"values"``, its value vectors and no query; ``"spectrogram"``, the input once, before block 0;
            ``"nothing"``.
        score: of the first three: a function of queries (batch, heads, q, head_dim), keys (batch, heads, extra + n,
            head_dim), the number of extra tokens, an additive mask (batch, 1, 1, extra + n) or None, values like the
            keys, and a `PairBias` of these queries or None, that gives (batch, n) float32, 0 for masked patches. Of the
            others: a function of a `Spectrogram` that gives (batch, F, T).
        help: one line for people.
        shares: whether scores are shares of attention: none is negative, and the sum of some is what those received.
        together: a function of queries, keys, values and the number of extra tokens that gives the attention output
            (batch, extra + n, width) and the score at once, for where
            `spectrim.pruning.kernels.fused.together_pays`; None where there is none.
        wrong_gather: whether the paper's public code takes other tokens than those that this ranks highest.
    """

    reads: str
    score: Callable[..., Tensor]
    help: str
    shares: bool = False
    together: Callable[[Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor]] | None = None
    wrong_gather: bool = False

    @property
    def reads_attention(self) -> bool:
        """Whether a block's queries, keys or values are needed for it, anew in every block."""
        return self.reads in ("class", "all", "values")

    def cost(self, patches: int, extra: int, asking: int, width: int) -> tuple[int, int]:
        """What scoring adds to a block that prunes, for one clip.

        Args:
            patches: that enter the block.
            extra: number of extra tokens.
            asking: tokens whose queries the block needs for attention.
            width: of a token.

        Returns:
            Number of queries that are projected in all, and multiply-accumulates of the score's products.
        """
        entering = patches + extra
        if self.reads == "all":
            return entering, patches * entering * width
        if self.reads == "class":
            return asking + 1, entering * width
        return asking, 0


class PairBias(NamedTuple):
    """What is added to the attention logits of a query and a key: a number of the query times one of the pair.

    Attributes:
        gate: (batch, heads, q, 1).
        pairs: (batch or 1, heads, q, n).
    """

    gate: Tensor
    pairs: Tensor

    def rows(self, start: int = 0, stop: int | None = None) -> Tensor:
        """(batch, heads, rows, n) of the queries from ``start`` to before ``stop``."""
        return self.gate[:, :, start:stop] * self.pairs[:, :, start:stop]

    def detach(self) -> PairBias:
        """The same without gradients."""
        return PairBias(self.gate.detach(), self.pairs.detach())


class Spectrogram(NamedTuple):
    """The input of a criterion that reads no attention.

    Attributes:
        input_values: (batch, frames, mels), normalised log-mel.
        patch_shape: sides of a patch along frequency and along time, in mel bins and frames.
        frequency_stride: step between patches in mel bins.
        time_stride: step between patches in frames.
        seed: of what is drawn.
        training: draw anew for every clip, from torch's global generator.
    """

    input_values: Tensor
    patch_shape: tuple[int, int]
    frequency_stride: int
    time_stride: int
    seed: int = 0
    training: bool = False

    @property
    def patches(self) -> Tensor:
        """(batch, F, T, frames, mels) of a patch each, a view."""
        height, width = self.patch_shape
        frames = self.input_values.unfold(1, width, self.time_stride)
        return frames.unfold(2, height, self.frequency_stride).transpose(1, 2)


def attention_map(queries: Tensor, keys: Tensor, mask: Tensor | None = None) -> Tensor:
    """Softmax of the scaled dot products, in float32 or better.

    Args:
        queries: (batch, heads, q, head_dim).
        keys: (batch, heads, n, head_dim).
        mask: additive, broadcast to (batch, heads, q, n), or None.

    Returns:
        (batch, heads, q, n), rows sum to 1.
    """
    logits = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-2, -1)
    if mask is not None:
        logits = logits + mask
    return _at_least_float32(logits).softmax(dim=-1)


def _at_least_float32(values: Tensor) -> Tensor:
    return values if values.element_size() >= 4 else values.float()


def _added(mask: Tensor | None, bias: PairBias | None, start: int, stop: int) -> Tensor | None:
    """What is added to the attention logits of some queries, or None."""
    if bias is None:
        return mask
    rows = bias.rows(start, stop)
    return rows if mask is None else rows + mask


def _class_rows(queries: Tensor, keys: Tensor, extra: int, mask: Tensor | None, bias: PairBias | None) -> Tensor:
    """Attention rows of [CLS] over the patch columns, (batch, heads, n)."""
    return attention_map(queries[:, :, :1], keys, _added(mask, bias, 0, 1))[:, :, 0, extra:]


def cls_attention(
    queries: Tensor,
    keys: Tensor,
    extra: int,
    mask: Tensor | None = None,
    values: Tensor | None = None,
    bias: PairBias | None = None,
) -> Tensor:
    """Attention row of [CLS] over the patch columns, mean over heads: the score of AST (paper, section 3).

    Args:
        queries: (batch, heads, 1 or more, head_dim), [CLS] first.
        keys: (batch, heads, extra + n, head_dim).
        extra: number of extra tokens.
        mask: additive mask over the keys, or None.
        values: not read.
        bias: of these queries, or None.

    Returns:
        (batch, n) float32.
    """
    return _class_rows(queries, keys, extra, mask, bias).mean(dim=1)


def cls_weighted_norm(
    queries: Tensor,
    keys: Tensor,
    extra: int,
    mask: Tensor | None = None,
    values: Tensor | None = None,
    bias: PairBias | None = None,
) -> Tensor:
    """Attention of [CLS] to the patch times the Euclidean norm of its value vector, mean over heads.

    What a patch adds to [CLS] is its attention times its value (Kobayashi et al., 2020, before the output projection).
    Attention sinks take much attention and have small values, so they count for little here.

    Args:
        queries, keys, extra, mask, bias: as for `cls_attention`.
        values: (batch, heads, extra + n, head_dim).

    Returns:
        (batch, n) float32.

    Raises:
        ValueError: there are no values.
    """
    if values is None:
        raise ValueError("cls_weighted_norm needs the value vectors")
    norms = _at_least_float32(values[:, :, extra:]).norm(dim=-1)
    return (_class_rows(queries, keys, extra, mask, bias) * norms).mean(dim=1)


def cls_head_median(
    queries: Tensor,
    keys: Tensor,
    extra: int,
    mask: Tensor | None = None,
    values: Tensor | None = None,
    bias: PairBias | None = None,
) -> Tensor:
    """Median over heads of the attention of [CLS] to the patch; of an even number, the mean of the middle two.

    A sink to which less than half of the heads give their attention does not rank by it, as it does in a mean.

    Args:
        queries, keys, extra, mask, bias: as for `cls_attention`.
        values: not read.

    Returns:
        (batch, n) float32.
    """
    rows = _class_rows(queries, keys, extra, mask, bias).sort(dim=1).values
    heads = rows.shape[1]
    return rows[:, (heads - 1) // 2 : heads // 2 + 1].mean(dim=1)


def value_norm(
    queries: Tensor,
    keys: Tensor,
    extra: int,
    mask: Tensor | None = None,
    values: Tensor | None = None,
    bias: PairBias | None = None,
) -> Tensor:
    """Euclidean norm of the patch's value vector, mean over heads: how much there is to attend to, not who does.

    Attention sinks have small values (Kobayashi et al., 2020), so they are the first to go.

    Args:
        queries, keys, bias: not read.
        extra, mask: as for `cls_attention`.
        values: (batch, heads, extra + n, head_dim).

    Returns:
        (batch, n) float32.

    Raises:
        ValueError: there are no values.
    """
    if values is None:
        raise ValueError("value_norm needs the value vectors")
    norms = _at_least_float32(values[:, :, extra:]).norm(dim=-1).mean(dim=1)
    return norms if mask is None else norms.masked_fill(mask[:, 0, 0, extra:].isneginf(), 0.0)


def mean_attention(
    queries: Tensor,
    keys: Tensor,
    extra: int,
    mask: Tensor | None = None,
    values: Tensor | None = None,
    bias: PairBias | None = None,
) -> Tensor:
    """Attention that a patch receives, mean over heads and over the patch queries: the score of AudioMAE.

    The softmax runs over all tokens. Never holds more than `QUERY_CHUNK` rows of the attention map, and none where
    `spectrim.pruning.kernels.fused` can compute it.

    Args:
        queries: (batch, heads, extra + n, head_dim).
        keys: (batch, heads, extra + n, head_dim).
        extra: number of extra tokens.
        mask: additive mask over the keys, or None; a masked patch does not count as a query either, and a token that is
            the mean of several counts as so many.
        values: not read.
        bias: of these queries, or None.

    Returns:
        (batch, n) float32.
    """
    from spectrim.pruning.kernels import fused

    if bias is None and fused.score_fused(queries, keys, mask):
        return fused.mean_attention(queries, keys, extra)
    heads, patches = queries.shape[1], queries.shape[2] - extra
    received = _at_least_float32(keys.new_zeros(()))
    if mask is None:
        number: Tensor | int = patches
        rows_count = None
    else:
        rows_count = mask[:, :, 0, extra:].to(received.dtype).exp().unsqueeze(-1)
        number = rows_count.sum(dim=2).squeeze(1)
    for start in range(0, patches, QUERY_CHUNK):
        stop = min(start + QUERY_CHUNK, patches)
        added = _added(mask, bias, extra + start, extra + stop)
        rows = attention_map(queries[:, :, extra + start : extra + stop], keys, added)[..., extra:]
        if rows_count is not None:
            rows = rows * rows_count[:, :, start:stop]
        received = received + rows.sum(dim=(1, 2))
    return received / (heads * number)


def attend_and_score(queries: Tensor, keys: Tensor, values: Tensor, extra: int) -> tuple[Tensor, Tensor]:
    """Attention output and `mean_attention` at once; see `spectrim.pruning.kernels.fused`."""
    from spectrim.pruning.kernels import fused

    output, score = fused.attend_and_score(queries, keys, values, extra)
    return output, score


def intensity(spectrogram: Spectrogram) -> Tensor:
    """Mean of the normalised log-mel values of each patch, (batch, F, T)."""
    return spectrogram.patches.mean(dim=(-2, -1))


def variation(spectrogram: Spectrogram) -> Tensor:
    """Standard deviation (of the sample, n − 1) of the normalised log-mel values of each patch, (batch, F, T)."""
    return spectrogram.patches.std(dim=(-2, -1))


def random_scores(spectrogram: Spectrogram) -> Tensor:
    """Uniform scores, the baseline that knows nothing, (batch, F, T) in [0, 1).

    In inference every clip gets the same fixed table, so that its answer depends neither on the batch nor on what came
    before; in training each clip's are drawn anew from torch's global generator.
    """
    import torch

    values = spectrogram.input_values
    batch, frequency, time = spectrogram.patches.shape[:3]
    if spectrogram.training:
        return torch.rand(batch, frequency * time, device=values.device).unflatten(1, (frequency, time))
    return _fixed_scores(_random_table, spectrogram)


def regular(spectrogram: Spectrogram) -> Tensor:
    """The same even pattern for every clip: a baseline that leaves no gaps at any keep rate, (batch, F, T) in [0, 1).

    The score of patch (f, t) is the fractional part of f/p + t/p², p the plastic number: the lattice of the R2 sequence
    (Roberts, 2018), whose places above any threshold lie far from each other.
    """
    return _fixed_scores(_regular_table, spectrogram)


Table: TypeAlias = Callable[[int, int, int, "torch.device"], "Tensor"]
"""Makes scores (F, T) of F, T, a seed and a device."""


def _fixed_scores(make: Table, spectrogram: Spectrogram) -> Tensor:
    """(batch, F, T) scores that are the same for all clips."""
    import torch

    values = spectrogram.input_values
    batch, frequency, time = spectrogram.patches.shape[:3]
    table = _made if torch.compiler.is_compiling() else _made_once
    return table(make, frequency, time, spectrogram.seed, values.device).expand(batch, -1, -1)


def _random_table(frequency: int, time: int, seed: int, device: torch.device) -> Tensor:
    import torch

    generator = random.Random(seed)
    scores = torch.tensor([generator.random() for _ in range(frequency * time)], device=device)
    return scores.unflatten(0, (frequency, time))


def _regular_table(frequency: int, time: int, seed: int, device: torch.device) -> Tensor:
    import torch

    scores = [(row / PLASTIC + column / PLASTIC**2) % 1.0 for row in range(frequency) for column in range(time)]
    return torch.tensor(scores, device=device).unflatten(0, (frequency, time))


def _made(make: Table, frequency: int, time: int, seed: int, device: torch.device) -> Tensor:
    return make(frequency, time, seed, device)


@functools.lru_cache(maxsize=8)
def _made_once(make: Table, frequency: int, time: int, seed: int, device: torch.device) -> Tensor:
    """Keep the table on its device: a CUDA graph cannot capture a copy from the host."""
    import torch

    with torch.inference_mode(mode=False):
        return make(frequency, time, seed, device)


CRITERIA = {
    "cls_attention": Criterion("class", cls_attention, "attention of [CLS] to the patch, mean over heads (AST)", True),
    "cls_weighted_norm": Criterion(
        "class", cls_weighted_norm, "the same times the norm of the patch's value vector, per head"
    ),
    "cls_head_median": Criterion("class", cls_head_median, "attention of [CLS], median over heads"),
    "value_norm": Criterion("values", value_norm, "norm of the patch's value vector, mean over heads"),
    "mean_attention": Criterion(
        "all", mean_attention, "attention that the patch receives from all patches (AudioMAE)", True, attend_and_score
    ),
    "intensity": Criterion("spectrogram", intensity, "mean of the patch's log-mel values", wrong_gather=True),
    "variation": Criterion("spectrogram", variation, "their standard deviation", wrong_gather=True),
    "random": Criterion("nothing", random_scores, "the baseline that knows nothing"),
    "regular": Criterion("nothing", regular, "a fixed pattern without gaps, a second baseline that knows nothing"),
}
"""The criteria, by the name that configuration, recipes and the command line call them."""

BACKBONE_CRITERIA = {
    "ast": "cls_attention",
    "audiomae": "mean_attention",
    "beats": "mean_attention",
    "ced": "mean_attention",
    "eat": "cls_attention",
    "kwt": "cls_attention",
    "passt": "cls_attention",
    "ssast": "mean_attention",
}
"""The attention score of each backbone, what `AUTO` stands for: that with which the paper prunes AST and AudioMAE, and
for EAT, the Keyword Transformer and PaSST, whose heads read [CLS], that of AST; for SSAST, whose head reads the mean of
the patches and whose [CLS] nothing trains, and for BEATs and CED, which read that mean and have no [CLS], that of
AudioMAE."""
