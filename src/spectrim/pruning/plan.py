"""What each block does with its tokens. Numbers only."""

from __future__ import annotations

from dataclasses import dataclass

from spectrim.config import SpectrimConfig
from spectrim.errors import InvalidSetting
from spectrim.pruning.select import count_kept


@dataclass(frozen=True)
class BlockPlan:
    """What one block is to do.

    Attributes:
        patches_in: patches that enter; all of them and the extra tokens are keys and values.
        patches_kept: patches alive after the selection; equal to ``patches_in`` where nothing is pruned.
        keep_rate: the rate of this block; 1 where nothing is pruned.
        emits: the tokens that are computed on: ``"all"``, ``"extra"`` or ``"patches"``. In the last block only
            those that the head reads.
        criterion: what ranks the patches, by its own name.
        reference_compat: gather as the public code does.
    """

    patches_in: int
    patches_kept: int
    keep_rate: float
    emits: str
    criterion: str
    reference_compat: bool

    @property
    def prunes(self) -> bool:
        """Whether patches are selected in this block."""
        return self.keep_rate < 1.0

    def tokens_computed(self, extra: int) -> int:
        """Number of tokens whose attention output the block computes, with this many extra tokens."""
        return {"all": self.patches_kept + extra, "extra": extra, "patches": self.patches_kept}[self.emits]


def plan_blocks(
    config: SpectrimConfig,
    patches: int,
    keep_rate: float | list[float] | None = None,
    *,
    full_output: bool = False,
) -> tuple[BlockPlan, ...]:
    """Plan every block of a forward pass. The model runs this plan and `spectrim.macs` counts it.

    Args:
        config: of the model.
        patches: patches that enter block 0.
        keep_rate: instead of the configured one.
        full_output: compute every token in the last block too, because the caller asked for hidden states.

    Returns:
        One plan a block.

    Raises:
        InvalidSetting: a keep rate is out of range, or with ``reference_compat`` too low for the head to get tokens.
    """
    rates = config.keep_rates(keep_rate)
    last = config.num_hidden_layers - 1
    read_by_head = "extra" if config.pooling == "extra_tokens" else "patches"
    plans = []
    for block in range(config.num_hidden_layers):
        rate = rates.get(block, 1.0)
        kept = _count(patches, rate, config)
        emits = read_by_head if block == last and not full_output else "all"
        criterion = config.resolved_criterion
        plans.append(BlockPlan(patches, kept, rate, emits, criterion, config.reference_compat))
        patches = kept
    return tuple(plans)


def _count(patches: int, rate: float, config: SpectrimConfig) -> int:
    if rate == 1.0:
        return patches
    kept = count_kept(patches, rate)
    if not config.reference_compat:
        return kept
    least = 1 if config.pooling == "mean_patches" else 0
    if kept - config.extra_tokens < least:
        allowed = f"higher with reference_compat: of {patches} patches only {kept} tokens are left, none for the head"
        raise InvalidSetting("keep_rate", rate, allowed)
    return kept - config.extra_tokens
