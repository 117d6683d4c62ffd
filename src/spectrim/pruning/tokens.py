"""The tokens on their way through the blocks, and all that follows them when some are taken away."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from spectrim.pruning.counts import Choice
from spectrim.pruning.select import (
    quota_ranks,
    renumbered,
    summed,
    take_patches,
    take_tokens,
    top_mass,
    top_patches,
    top_valid_patches,
)


class Tokens(NamedTuple):
    """A batch of token sequences: extra tokens ([CLS], [DIST]) first, then patches. Replaced, never changed.

    Attributes:
        values: (batch, extra + n, width); without the part that `only` left out.
        patches: (batch, extra + n) grid index f·T + t of the patch that each token came from; −1 for extra tokens,
            empty slots and tokens that stand for several patches.
        extra: number of extra tokens.
        rank: (batch, n) ranks of the patches by a criterion that reads no attention; None for one that does.
        valid: (batch, n) bool, False for empty slots, which nobody attends to and no mean counts; None: no empty slot.
        size: (batch, n) float, the number of patches whose mean each patch token is: it is attended to and counted in
            means as so many; None: one each.
        asking: (batch, extra + n, width) what becomes of the queries in this block, cut as ``values`` is; None between
            blocks.
        source: (batch, F·T) int64: for every patch of the grid the place in the sequence of the token that carries it,
            −1 for none; None where no trace is kept.
        holds: ``"all"``, ``"extra"`` or ``"patches"``: what ``values`` and ``asking`` have.
        so_far: (batch, n) mean of the patches' scores over the blocks so far, where a criterion ranks by that; None for
            the others.
        policy: (batch, n) float, 1 for patches that go on and 0 for those that were drawn to be dropped, with gradients
            (DynamicViT, while training): nobody but they themselves attends to these, and no mean counts them; None
            where what is dropped is removed.
    """

    values: Tensor
    patches: Tensor
    extra: int
    rank: Tensor | None = None
    valid: Tensor | None = None
    size: Tensor | None = None
    asking: Tensor | None = None
    source: Tensor | None = None
    holds: str = "all"
    so_far: Tensor | None = None
    policy: Tensor | None = None

    @property
    def alive(self) -> Tensor:
        """(batch, n) grid indices of the patch tokens, −1 for those that are no single living patch."""
        return self.patches[:, self.extra :]

    def only(self, emits: str) -> Tokens:
        """Leave out values that nobody reads: ``"extra"`` keeps the extra tokens, ``"patches"`` the others."""
        if emits == "all":
            return self
        part = slice(None, self.extra) if emits == "extra" else slice(self.extra, None)
        asking = None if self.asking is None else self.asking[:, part]
        return self._replace(values=self.values[:, part], asking=asking, holds=emits)

    def averaged(self, scores: Tensor, blocks: int) -> Tokens:
        """Let the scores of a block, (batch, n), go into the mean over so many blocks, this one included."""
        return self._replace(so_far=scores if self.so_far is None else self.so_far + (scores - self.so_far) / blocks)

    def choose(self, scores: Tensor | None, choice: Choice, *, ordered: bool = False) -> tuple[Tensor, Tensor | None]:
        """The patches that a block's criterion lets go on: those with the highest scores.

        Args:
            scores: (batch, n).
            choice: how many, where there are no empty slots; else the share of each clip's own patches. With
                ``time_segments`` the highest of each part, with ``attention_mass`` as many as hold so much.
            ordered: highest score first.

        Returns:
            index (batch, k), and (batch, k) bool, False where a clip keeps fewer than k; None where none does.
        """
        if scores is None:
            raise ValueError("a block that prunes needs scores")
        if choice.time_segments > 1:
            parts = choice.time_segments + 1
            scores = quota_ranks(scores, self.segments(choice.columns, choice.time_segments), parts, self.valid)
        if choice.attention_mass > 0.0:
            return top_mass(scores, self.valid, choice.keep_rate, choice.attention_mass)
        if self.valid is not None:
            return top_valid_patches(scores, self.valid, choice.keep_rate)
        return top_patches(scores, choice.survivors, ordered=ordered), None

    def segments(self, columns: int, parts: int) -> Tensor:
        """(batch, n) int64: in which of so many parts of the ``columns`` along time each patch token stands.

        Tokens that are no single patch have no time; they are a part of their own, with the next number.
        """
        part = self.alive % columns * parts // columns
        return torch.where(self.alive < 0, torch.full_like(part, parts), part)

    def take(self, index: Tensor, stays: Tensor | None = None) -> Tokens:
        """Keep the patches at ``index`` (batch, k) and the extra tokens; ``stays`` as `choose` gives it."""
        if stays is None and self.valid is not None:
            stays = take_patches(self.valid, index)
        source = self.source
        if source is not None:
            source = renumbered(source, self.patches.shape[1], index, stays, self.extra)
        following = self._replace(
            values=self._picked(self.values, index),
            patches=take_tokens(self.patches, index, self.extra),
            rank=None if self.rank is None else take_patches(self.rank, index),
            asking=None if self.asking is None else self._picked(self.asking, index),
            valid=stays,
            size=None if self.size is None else take_patches(self.size, index),
            source=source,
            so_far=None if self.so_far is None else take_patches(self.so_far, index),
            policy=None if self.policy is None else take_patches(self.policy, index),
        )
        return following if stays is None else following._marked(stays)

    def take_of_all(self, index: Tensor) -> Tokens:
        """Keep the tokens at ``index`` (batch, k), counted over the whole sequence, extra tokens or not."""
        return self._replace(
            values=take_patches(self.values, index),
            patches=take_patches(self.patches, index),
            rank=None if self.rank is None else take_patches(self.rank, index),
            asking=None if self.asking is None else take_patches(self.asking, index),
            source=None if self.source is None else renumbered(self.source, self.patches.shape[1], index, None, 0),
        )

    def empty(self, stay: Tensor) -> Tokens:
        """Turn patches into empty slots; ``stay`` (batch, n) bool says which not. Shapes stay as they are."""
        return self._left_out(stay)._replace(valid=stay)

    def sampled(self) -> Tokens:
        """From here on, mask what is dropped by a draw and remove nothing; see `policy`."""
        alive = self.values.new_ones(self.alive.shape) if self.valid is None else self.valid.to(self.values.dtype)
        return self._replace(policy=alive)

    def masked(self, keep: Tensor) -> Tokens:
        """Drop patches by a draw, ``keep`` (batch, n) of 1 or 0 with gradients; what was dropped before stays so."""
        policy = keep if self.policy is None else keep * self.policy
        return self._left_out(policy.detach() > 0.5)._replace(policy=policy)

    def attended(self, emits: str) -> Tensor | None:
        """How much each token may be attended to by those that ``emits`` names; None: by `key_mask` alone.

        Returns:
            (batch, 1, q, extra + n): the `policy` of each key, and 1 of a token to itself.
        """
        if self.policy is None:
            return None
        keys = functional.pad(self.policy, (self.extra, 0), value=1.0)[:, None, None]
        own = torch.eye(keys.shape[-1], dtype=keys.dtype, device=keys.device)
        rows = {"all": own, "extra": own[: self.extra], "patches": own[self.extra :]}[emits]
        return keys + (1.0 - keys) * rows

    def without(self, flags: Tensor) -> Tokens:
        """Empty the slots of flagged patches, (batch, F·T) bool; a clip of which none would be left keeps what it has.

        A mean of no patch would be NaN.
        """
        alive = torch.ones_like(self.alive, dtype=torch.bool) if self.valid is None else self.valid
        flagged = take_patches(flags, self.alive.clamp(min=0)) & (self.alive >= 0)
        stay = alive & ~flagged
        return self.empty(torch.where(stay.any(dim=1, keepdim=True), stay, alive))

    def dropped(self, index: Tensor, stays: Tensor | None) -> Tensor:
        """(batch, n) bool: which patches `take` with these arguments leaves behind."""
        everything = torch.ones_like(self.alive, dtype=torch.bool) if self.valid is None else self.valid
        kept = torch.ones_like(index, dtype=torch.bool) if stays is None else stays
        return everything.scatter(1, index, ~kept & take_patches(everything, index))

    def append_sum(self, before: Tokens, dropped: Tensor, scores: Tensor) -> Tokens:
        """Append a token that is the sum of dropped ones, weighted by their scores; it carries their patches on.

        Args:
            before: the tokens of which some were dropped.
            dropped: (batch, n) bool: which.
            scores: (batch, n).

        Returns:
            A sequence longer by one; where nothing of a clip was dropped, that slot is empty.
        """
        values, patches, source, valid = self.values, self.patches, self.source, self.valid
        if self.holds != "extra":
            weights = scores.masked_fill(~dropped, 0.0).to(values.dtype).unsqueeze(1)
            entered = before.values if self.holds == "patches" else before.values[:, self.extra :]
            values = torch.cat([values, weights @ entered], dim=1)
        if source is not None and before.source is not None:
            lost = (before.source >= 0) & (source < 0)
            source = torch.where(lost, torch.full_like(source, patches.shape[1]), source)
        if valid is not None:
            valid = torch.cat([valid, dropped.any(dim=1, keepdim=True)], dim=1)
        patches = functional.pad(patches, (0, 1), value=-1)
        return self._replace(values=values, patches=patches, source=source, valid=valid)

    def merge(self, destination: Tensor, patches: int, stays: Tensor | None = None) -> Tokens:
        """Replace tokens with the same destination by their mean, weighted by size; it carries their patches.

        Args:
            destination: (batch, extra + n) int64: the place in the new sequence, where the extra tokens keep theirs; −1
                for empty slots.
            patches: number of patch tokens in the new sequence.
            stays: (batch, patches) bool, False for slots of it to which nothing goes; None where there are none.
        """
        length, spare = self.extra + patches, int(stays is not None)
        target = destination.masked_fill(destination < 0, length) if spare else destination
        size = self.size
        if size is None:
            size = self.values.new_ones(self.alive.shape, dtype=torch.promote_types(self.values.dtype, torch.float32))
        size = functional.pad(size, (self.extra, 0), value=1.0)
        total = size.new_zeros(size.shape[0], length + spare).scatter_add(1, target, size)
        # At least 1: an empty slot has size 0, and 0 / 0 in the spare row would be NaN in the gradients.
        share = (size / take_patches(total, target).clamp(min=1.0)).to(self.values.dtype)
        values = self.values
        if self.holds == "all":
            values = summed(values, target, share, length + spare)[:, :length]
        elif self.holds == "patches":
            index = target[:, self.extra :] - self.extra
            values = summed(values, index, share[:, self.extra :], patches + spare)[:, :patches]
        total = total[:, :length]
        origin = torch.zeros(total.shape[0], length + spare, dtype=torch.int64, device=total.device)
        origin = origin.scatter_add(1, target, self.patches + 1)[:, :length] - 1
        source = self.source
        if source is not None:
            source = torch.where(source >= 0, take_patches(destination, source.clamp(min=0)), source)
        return self._replace(
            values=values,
            patches=origin.masked_fill(total > 1.0, -1),
            valid=stays,
            size=total[:, self.extra :],
            source=source,
        )

    def key_mask(self, dtype: torch.dtype) -> Tensor | None:
        """What is added to the attention logits, (batch, 1, 1, extra + n); None where that is nothing.

        −inf at empty slots; else the logarithm of a token's size (proportional attention: Bolya et al., 2023, section
        3), so that a mean of s tokens is attended to as they would be.
        """
        if self.valid is None and self.size is None:
            return None
        if self.size is None:
            mask = torch.zeros(self.patches.shape, dtype=dtype, device=self.patches.device)
        else:
            mask = functional.pad(self.size.log().to(dtype), (self.extra, 0))
        if self.valid is not None:
            mask = mask.masked_fill(functional.pad(~self.valid, (self.extra, 0), value=False), -torch.inf)
        return mask[:, None, None]

    def pool(self, norm: Callable[[Tensor], Tensor], head_reads: str, *, norm_each: bool = False) -> Tensor:
        """What the head reads, (batch, width).

        Args:
            norm: the last LayerNorm: of the extra tokens before their mean, or of the mean of the patches.
            head_reads: ``"extra"`` or ``"patches"``.
            norm_each: whether patches, too, are normalised before their mean.
        """
        if head_reads == "extra":
            return norm(self.values[:, : self.extra]).mean(dim=1)
        patches = self.values if self.holds == "patches" else self.values[:, self.extra :]
        if norm_each:
            return self._mean(norm(patches))
        return norm(self._mean(patches))

    def _mean(self, patches: Tensor) -> Tensor:
        """(batch, n, width) of the patch tokens → (batch, width), each counted as often as it stands for patches.

        Added up in float32 or better: in float16 the sum over some hundred patches overflows.
        """
        if self.valid is None and self.size is None and self.policy is None:
            return patches.mean(dim=1)
        exact = torch.promote_types(patches.dtype, torch.float32)
        weight = torch.ones_like(patches[..., 0], dtype=exact) if self.size is None else self.size.to(exact)
        if self.valid is not None:
            weight = weight * self.valid
        if self.policy is not None:
            weight = weight * self.policy.to(exact)
        weight = weight.unsqueeze(-1)
        total = weight.sum(dim=1)
        mean = (patches.to(exact) * weight).sum(dim=1) / (total if self.policy is None else total.clamp(min=1.0))
        return mean.to(patches.dtype)

    def _picked(self, rows: Tensor, index: Tensor) -> Tensor:
        if self.holds == "extra":
            return rows
        return take_patches(rows, index) if self.holds == "patches" else take_tokens(rows, index, self.extra)

    def _left_out(self, stay: Tensor) -> Tokens:
        """Follow no further the patches of slots where ``stay`` (batch, n) is False."""
        source = self.source
        if source is not None:
            places = torch.arange(stay.shape[1], device=stay.device).expand_as(stay)
            source = renumbered(source, self.patches.shape[1], places, stay, self.extra)
        return self._replace(source=source)._marked(stay)

    def _marked(self, stay: Tensor) -> Tokens:
        """Mark the slots as no patch where ``stay`` (batch, n) is False."""
        gone = functional.pad(~stay, (self.extra, 0), value=False)
        return self._replace(patches=self.patches.masked_fill(gone, -1))
