"""Multiply-accumulates of a forward pass: as the paper counts them, and as the model really runs them."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from spectrim.audio.filterbank import FEATURES
from spectrim.config import SpectrimConfig
from spectrim.errors import InvalidSetting
from spectrim.network.blocks import GATE_WIDTH
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.counts import count_kept
from spectrim.pruning.criteria import CRITERIA
from spectrim.pruning.plan import BlockPlan
from spectrim.pruning.pruning import Pruning, given_pruning


@dataclass(frozen=True)
class MacCount:
    """Multiply-accumulates (MACs) of one clip.

    Attributes:
        embedding: of the patch projection and what else stands before block 0; the same in both counts.
        head: of the classifier; the same in both counts.
        paper_blocks: of each block as the paper counts: attention on all tokens, then the MLP on the survivors.
        executed_blocks: of each block as `AudioTransformer` runs it, its scores included.
        patches: patches that each block's MLP sees, as the paper counts.
        scores: of what criteria read that is not the input: log-mel values out of MFCC; in the executed count only.
        least: with ``attention_mass`` and without ``kept``, this count is that of a clip that keeps every patch, and
            ``least`` that of one that keeps no more than its keep rate says: each clip lies between. Else None.
    """

    embedding: int
    head: int
    paper_blocks: tuple[int, ...]
    executed_blocks: tuple[int, ...]
    patches: tuple[int, ...]
    scores: int = 0
    least: MacCount | None = None

    @property
    def paper(self) -> int:
        """The paper's count of the whole pass."""
        return self.embedding + sum(self.paper_blocks) + self.head

    @property
    def executed(self) -> int:
        """The executed count of the whole pass."""
        return self.embedding + self.scores + sum(self.executed_blocks) + self.head


def macs(
    model_or_config: AudioTransformer | SpectrimConfig,
    frames: int | None = None,
    *,
    pruning: Pruning | None = None,
    keep_rate: float | list[float] | None = None,
    kept: Sequence[int] | None = None,
    entering: int | None = None,
) -> MacCount:
    """Count the multiply-accumulates of one clip.

    The paper's count per block, n tokens in and m out: 3·n·d² + 2·n²·d + n·d² before the selection, 8·m·d² after it
    (for an MLP ratio of 4). It reproduces the paper's published figures. The executed count is what torch's
    FlopCounterMode finds (with the MATH backend of attention), halved. Where the kernel of
    `spectrim.pruning.kernels.fused` runs, its own products take the place of those of the score.

    Args:
        model_or_config: a model or its configuration.
        frames: length of the input; None for the configured one.
        pruning: instead of the configured operating point.
        keep_rate: short for the configured operating point with another keep rate.
        kept: with ``attention_mass``, of one clip: how many patches are alive after each block, as the trace says,
            ``[int(block.sum()) for block in trace.kept]``. A batch is computed with the largest of each block.
        entering: with ``drop_padding``, of one clip: how many patches hold sound and so enter block 0; None for all.
            Likewise the largest of a batch.

    Raises:
        InvalidSetting: it is no model, ``frames`` is shorter than one patch, a keep rate is out of range, or ``kept``
            or ``entering`` is not possible.

    Examples:
        >>> model = spectrim.from_pretrained("spectrim-mini")
        >>> round(spectrim.macs(model, keep_rate=0.7).executed / spectrim.macs(model, keep_rate=1.0).executed, 2)
        0.68
    """
    config = model_or_config.config if isinstance(model_or_config, AudioTransformer) else model_or_config
    if not isinstance(config, SpectrimConfig):
        allowed = "a model, or its configuration, as spectrim.from_pretrained(...) has them"
        raise InvalidSetting("model_or_config", model_or_config, allowed)
    frames = config.max_length if frames is None else frames
    least = config.patch_shape[1]
    length = _whole(frames)
    if length is None or length < least:
        raise InvalidSetting("frames", frames, f"a whole number, at least the {least} of a patch")
    frequency, time = config.grid_for(length)
    patches = frequency * time
    point = given_pruning(config.pruning, pruning, {"keep_rate": keep_rate})
    if entering is not None:
        patches = _check_entering(entering, point, patches)
    if kept is not None:
        kept = _check_kept(kept, point, patches, config.num_hidden_layers)
        return _count(config, length, config.plan(patches, point, kept=kept))
    if point.attention_mass > 0.0 and point.prunes:
        most = _count(config, length, config.plan(patches, point, kept=[patches] * config.num_hidden_layers))
        return replace(most, least=_count(config, length, config.plan(patches, point)))
    return _count(config, length, config.plan(patches, point))


def _check_entering(entering: int, pruning: Pruning, patches: int) -> int:
    """Raise `InvalidSetting` for a number of patches that cannot enter."""
    if not pruning.drop_padding:
        raise InvalidSetting("entering", entering, "None without drop_padding: every patch enters")
    whole = _whole(entering)
    if whole is None or not 1 <= whole <= patches:
        raise InvalidSetting("entering", entering, f"a whole number from 1 to {patches}")
    return whole


def _whole(value: Any) -> int | None:
    """A whole number as Python's, which has no largest one, also of one of NumPy's; None for what is none."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def _check_kept(kept: Sequence[int], pruning: Pruning, patches: int, depth: int) -> list[int]:
    """Raise `InvalidSetting` for counts that no clip can have."""
    if pruning.attention_mass == 0.0:
        raise InvalidSetting("kept", list(kept), "None without attention_mass: every clip keeps as many")
    rates, left = pruning.rates, patches
    if len(kept) != depth:
        raise InvalidSetting("kept", list(kept), f"a number for each of the {depth} blocks")
    counts = []
    for block, count in enumerate(map(_whole, kept)):
        least = count_kept(left, rates.get(block, 1.0))
        if count is None or not least <= count <= left:
            raise InvalidSetting("kept", list(kept), f"a whole number from {least} to {left} after block {block}")
        left = count
        counts.append(count)
    return counts


def _count(config: SpectrimConfig, frames: int, plans: Sequence[BlockPlan]) -> MacCount:
    return MacCount(
        embedding=math.prod(config.grid_for(frames)) * _embedding(config),
        head=config.hidden_size * config.num_labels,
        paper_blocks=tuple(_paper(config, plan) for plan in plans),
        executed_blocks=tuple(_executed(config, plan) for plan in plans),
        patches=tuple(plan.patches_kept for plan in plans),
        scores=_spectrogram(config, frames) if any(_reads_input(plan) for plan in plans) else 0,
    )


def _embedding(config: SpectrimConfig) -> int:
    """Of one patch before block 0: projection, widening, convolution for its position."""
    width, narrow = config.hidden_size, config.embedding_size
    projected = math.prod(config.patch_shape) * (narrow or width)
    widened = narrow * width if narrow != width else 0
    return projected + widened + config.position_kernel * width * (width // config.position_groups)


def _reads_input(plan: BlockPlan) -> bool:
    return plan.prunes and CRITERIA[plan.criterion].reads == "spectrogram"


def _spectrogram(config: SpectrimConfig, frames: int) -> int:
    """Of `spectrim.network.entering.spectrogram_of`."""
    return frames * config.num_mel_bins * (FEATURES[config.features].bands or 0)


def _paper(config: SpectrimConfig, plan: BlockPlan) -> int:
    width = config.hidden_size
    entering = plan.patches_seen + config.extra_tokens
    staying = plan.patches_kept + config.extra_tokens
    attention = 4 * entering * width**2 + 2 * entering**2 * width
    return attention + 2 * staying * width * config.intermediate_size


def _executed(config: SpectrimConfig, plan: BlockPlan) -> int:
    width, extra = config.hidden_size, config.extra_tokens
    entering = plan.patches_seen + extra
    attending, computed = plan.tokens_attended(extra), plan.tokens_computed(extra)
    queries, scores = attending, 0
    if plan.scores:
        queries, scores = CRITERIA[plan.criterion].cost(plan.patches_in, extra, attending, width)
    gated = attending + (entering if plan.scores and CRITERIA[plan.criterion].reads == "all" else 0)
    gates = gated * width * GATE_WIDTH if config.relative_buckets else 0
    projections = (2 * entering + queries + attending) * width**2 + gates
    attention = 2 * attending * entering * width
    mlp = 2 * computed * width * config.intermediate_size
    return projections + scores + attention + plan.reducer.macs(plan, config.encoder) + mlp
