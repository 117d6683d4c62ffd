"""One model for AST and AudioMAE, with patches dropped on the way; the same forward trains, infers and exports."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForAudioClassification, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple

from spectrim.audio.frontend import SpectrimFeatureExtractor
from spectrim.config import SpectrimConfig, as_plain_list
from spectrim.errors import InputShapeError, InvalidSetting
from spectrim.network.blocks import Block, BlockOutput, Embeddings, Head
from spectrim.network.losses import classification_loss
from spectrim.network.positions import sincos_position_table
from spectrim.pruning.criteria import PATCH_CRITERIA, random_scores
from spectrim.pruning.plan import BlockPlan, plan_blocks
from spectrim.pruning.select import distinct_ranks, real_first, take_patches, take_tokens, tokens_going_on
from spectrim.pruning.trace import TokenTrace, alive_on_grid, grid_order, scatter_to_grid


@dataclass
class AudioTransformerOutput(ModelOutput):
    """What `AudioTransformer` returns.

    Attributes:
        loss: scalar, if labels were given.
        logits: (batch, labels).
        hidden_states: if asked for, the tokens before block 0 and after each block, (batch, tokens alive, width).
        attentions: if asked for, per block the map (batch, heads, tokens computed, tokens entering) in float32.
        token_trace: if asked for, scores and survivors per block.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    token_trace: TokenTrace | None = None


@dataclass
class _Tokens:
    """The tokens on their way through the blocks. Replaced, never changed.

    Attributes:
        values: (batch, extra + n, width).
        patches: (batch, extra + n) grid index of each token, −1 for extra tokens and empty slots.
        rank: (batch, n) ranks of the living patches by a patch criterion; None for attention criteria.
        valid: (batch, n) bool, False for slots that only fill a ragged batch up; None where there are none.
    """

    values: Tensor
    patches: Tensor
    rank: Tensor | None
    valid: Tensor | None


@dataclass
class Encoded:
    """What the blocks make of a batch, before pooling.

    Attributes:
        values: (batch, extra + n, width) tokens after the last block, before any norm; without those that the head does
            not read, unless the full output was asked for.
        patches: (batch, extra + n) grid index f·T + t of each token, −1 for extra tokens and empty slots; with the
            extra tokens also where ``values`` has none.
        valid: (batch, n) bool, False for empty slots; None where there are none.
        hidden_states: see `AudioTransformerOutput`; so the others.
        attentions: likewise.
        token_trace: likewise.
    """

    values: Tensor
    patches: Tensor
    valid: Tensor | None
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None
    token_trace: TokenTrace | None


class AudioTransformer(PreTrainedModel):
    """AST or AudioMAE that drops patches, with a classification head.

    Examples:
        >>> model = spectrim.from_pretrained("spectrim-mini", keep_rate=0.7)
        >>> logits = model(frontend(waveforms).input_values).logits
    """

    config: SpectrimConfig
    config_class = SpectrimConfig
    base_model_prefix = "spectrim"
    main_input_name = "input_values"
    input_modalities = ("audio",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ("Block",)

    def __init__(self, config: SpectrimConfig) -> None:
        super().__init__(config)
        config.check()
        self.num_labels = config.num_labels
        self.embeddings = Embeddings(config)
        depth = config.num_hidden_layers
        rates = [config.drop_path_rate * block / max(depth - 1, 1) for block in range(depth)]
        self.blocks = nn.ModuleList(Block(config, rate) for rate in rates)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.head = Head(config)
        self.post_init()

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], is_main_process: bool = True, **options: Any
    ) -> None:
        """Save the model with its feature extractor; see `PreTrainedModel.save_pretrained`.

        Args:
            save_directory: the folder.
            is_main_process: whether this process writes what only one may.
            **options: of `PreTrainedModel.save_pretrained`.
        """
        super().save_pretrained(save_directory, is_main_process=is_main_process, **options)
        if is_main_process:
            SpectrimFeatureExtractor.from_config(self.config).save_pretrained(save_directory)

    def set_pruning(
        self,
        *,
        keep_rate: float | Sequence[float] | None = None,
        prune_at: Sequence[int] | None = None,
        criterion: str | None = None,
        reference_compat: bool | None = None,
        drop_padding: bool | None = None,
        random_seed: int | None = None,
    ) -> AudioTransformer:
        """Change the operating point; None leaves a setting as it is. No weight changes.

        The model gets a new configuration: another model built from the same one keeps its own settings.

        Args:
            keep_rate: share of the patches kept at each pruning block, in (0, 1]: one number or one a block.
            prune_at: the pruning blocks, counted from 0.
            criterion: what ranks the patches: ``"auto"``, ``"cls_attention"``, ``"mean_attention"``,
                ``"intensity"``, ``"variation"`` or ``"random"``.
            reference_compat: reproduce the wrong gather of the paper's public code; only for studies of it.
            drop_padding: remove patches that hold only padding before block 0; the model then needs `num_frames`.
            random_seed: of ``criterion="random"``.

        Returns:
            The model itself.

        Raises:
            InvalidSetting: a setting is not allowed; the model then keeps the old ones.
        """
        given = {name: value for name, value in locals().items() if name != "self" and value is not None}
        changed = copy.deepcopy(self.config)
        for name, value in given.items():
            setattr(changed, name, as_plain_list(value))
        changed.check()
        self.config = changed
        return self

    @can_return_tuple
    def forward(
        self,
        input_values: Tensor,
        labels: Tensor | None = None,
        output_token_trace: bool = False,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        num_frames: Tensor | None = None,
        keep_rate: float | list[float] | None = None,
        visible_patches: Tensor | None = None,
        removed: Mapping[int, Tensor] | None = None,
    ) -> AudioTransformerOutput:
        """Classify log-mel spectrograms.

        Args:
            input_values: (batch, frames, mels), normalised log-mel as the front end makes it.
            labels: (batch,) class indices, or (batch, labels) float targets; adds the loss.
            output_token_trace: return scores and survivors of every block.
            output_hidden_states: return the tokens before and after each block.
            output_attentions: return the attention maps, which are large.
            num_frames: (batch,) number of real frames of each clip; read only with ``drop_padding``.
            keep_rate: instead of the configured one, e.g. while it is annealed.
            visible_patches: (batch, k) grid indices f·T + t of the patches to process; the others are removed
                before block 0 (structured masking, pre-training).
            removed: block → (batch, F, T) bool: patches to remove there, at the place of selection, as many of each
                clip as it says. What is gone already stays gone. A clip of which no patch would be left keeps those
                that it has: a mean of no patch would be NaN.

        Returns:
            `AudioTransformerOutput`; a tuple with ``return_dict=False``.

        Raises:
            InputShapeError: the input is not (batch, max_length, num_mel_bins), ``visible_patches`` not
                (batch, k) int64, ``removed`` not (batch, F, T) bool, or ``num_frames`` missing or not (batch,) with
                ``drop_padding``.
            InvalidSetting: ``keep_rate`` is out of range, or ``removed`` names a block that there is not, or comes with
                ``reference_compat``.
        """
        show_states = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        show_maps = self.config.output_attentions if output_attentions is None else output_attentions
        encoded = self.encode(
            input_values,
            num_frames,
            keep_rate,
            visible_patches,
            removed=removed,
            token_trace=output_token_trace,
            hidden_states=show_states,
            attentions=show_maps,
            full_output=show_states,
        )
        logits = self.head(self._pool(encoded))
        return AudioTransformerOutput(
            loss=None if labels is None else classification_loss(logits, labels, multi_label=self.config.multi_label),
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            token_trace=encoded.token_trace,
        )

    def encode(
        self,
        input_values: Tensor,
        num_frames: Tensor | None = None,
        keep_rate: float | list[float] | None = None,
        visible_patches: Tensor | None = None,
        *,
        removed: Mapping[int, Tensor] | None = None,
        token_trace: bool = False,
        hidden_states: bool = False,
        attentions: bool = False,
        full_output: bool = True,
    ) -> Encoded:
        """Run embeddings and blocks: all of `forward` but pooling and head.

        Args:
            input_values, num_frames, keep_rate, visible_patches, removed: as for `forward`.
            token_trace: return scores and survivors of every block.
            hidden_states: return the tokens before and after each block.
            attentions: return the attention maps.
            full_output: compute every token in the last block, also those that the head does not read.

        Raises:
            InputShapeError: as `forward`; so `InvalidSetting`.
        """
        gone = {} if removed is None else removed
        self._check_removed(gone, input_values.shape[0])
        ranked = token_trace or any(rate < 1.0 for rate in self.config.keep_rates(keep_rate).values())
        tokens, static = self._enter(input_values, num_frames, visible_patches, ranked)
        entering = tokens.patches.shape[1] - self.config.extra_tokens
        plans = plan_blocks(self.config, entering, keep_rate, full_output=full_output)
        states, maps, scores, kept = [tokens.values] if hidden_states else [], [], [], []
        for number, (block, plan) in enumerate(zip(self.blocks, plans, strict=True)):
            entered = tokens
            out = BlockOutput(*block(entered.values, plan, entered.rank, entered.valid, token_trace, attentions))
            tokens = self._advance(entered, plan, out)
            if number in gone:
                tokens = self._without(tokens, gone[number])
            if hidden_states:
                states.append(out.tokens)
            if out.attention is not None:
                maps.append(out.attention)
            if token_trace:
                scores.append(self._score_grid(entered, static, out.scores))
                kept.append(alive_on_grid(tokens.patches, self.config.grid))
        return Encoded(
            values=tokens.values,
            patches=tokens.patches,
            valid=tokens.valid,
            hidden_states=tuple(states) if hidden_states else None,
            attentions=tuple(maps) if attentions else None,
            token_trace=TokenTrace(scores=tuple(scores), kept=tuple(kept)) if token_trace else None,
        )

    def _enter(
        self, input_values: Tensor, num_frames: Tensor | None, visible_patches: Tensor | None, ranked: bool
    ) -> tuple[_Tokens, Tensor | None]:
        """Embed, remove what must not be seen, and rank the rest if that is read and no attention is needed for it."""
        config = self.config
        expected = (config.max_length, config.num_mel_bins)
        if input_values.ndim != 3 or tuple(input_values.shape[1:]) != expected:
            raise InputShapeError(
                f"input_values has shape {tuple(input_values.shape)}; this model takes (batch, {expected[0]} frames, "
                f"{expected[1]} mels): use Frontend.from_config(model.config), or load the model with frames=N"
            )
        extra = config.extra_tokens
        values = self.embeddings(input_values.to(self.embeddings.projection.weight.dtype))
        batch = values.shape[0]
        order = grid_order(config.grid, config.patch_order, values.device)
        patches = functional.pad(order, (extra, 0), value=-1).expand(batch, -1)
        valid = None
        if visible_patches is not None:
            index = self._sequence_index(visible_patches, batch)
            values, patches = take_tokens(values, index, extra), take_tokens(patches, index, extra)
        if config.drop_padding:
            padding = self._padding(patches[:, extra:], num_frames)
            index, valid = real_first(padding, int((~padding).sum(dim=1).max()))
            values, patches = take_tokens(values, index, extra), take_tokens(patches, index, extra)
            patches = patches.masked_fill(functional.pad(~valid, (extra, 0), value=False), -1)
        static = self._static_scores(input_values) if ranked else None
        rank = None
        if static is not None:
            rank = take_patches(distinct_ranks(static.flatten(1)), patches[:, extra:].clamp(min=0))
        return _Tokens(values, patches, rank, valid), static

    def _padding(self, patches: Tensor, num_frames: Tensor | None) -> Tensor:
        """(batch, n) bool: which of these patches start past the end of their clip.

        A clip of which nothing else is left (too short, or all that is real is masked) keeps what it has: a mean of no
        patch would be NaN.
        """
        if num_frames is None or tuple(num_frames.shape) != (patches.shape[0],):
            given = "missing" if num_frames is None else f"of shape {tuple(num_frames.shape)}"
            raise InputShapeError(
                f"num_frames is {given}; drop_padding=True needs the number of real frames of each clip, "
                f"({patches.shape[0]},)"
            )
        start = patches % self.config.grid[1] * self.config.time_stride
        padding = start >= num_frames.to(patches.device).clamp(min=1).unsqueeze(1)
        return padding & ~padding.all(dim=1, keepdim=True)

    def _sequence_index(self, visible_patches: Tensor, batch: int) -> Tensor:
        """Grid indices → places in the backbone's sequence."""
        shape = tuple(visible_patches.shape)
        if len(shape) != 2 or shape[0] != batch or shape[1] == 0 or visible_patches.dtype != torch.int64:
            raise InputShapeError(
                f"visible_patches has shape {shape} and type {visible_patches.dtype}; wanted: ({batch}, 1 or more) "
                "grid indices of type torch.int64"
            )
        if self.config.patch_order == "frequency_major":
            return visible_patches
        frequency, time = self.config.grid
        return visible_patches % time * frequency + visible_patches // time

    def _static_scores(self, input_values: Tensor) -> Tensor | None:
        """(batch, F, T) scores of a patch criterion; None for attention criteria."""
        config = self.config
        if config.resolved_criterion in PATCH_CRITERIA:
            measure = PATCH_CRITERIA[config.resolved_criterion]
            return measure(input_values, config.patch_size, config.frequency_stride, config.time_stride)
        if config.resolved_criterion == "random":
            batch, count = input_values.shape[0], config.num_patches
            table = random_scores(batch, count, config.random_seed, input_values.device, fresh=self.training)
            return table.reshape(batch, *config.grid)
        return None

    def _advance(self, tokens: _Tokens, plan: BlockPlan, out: BlockOutput) -> _Tokens:
        """Follow a block's selection with everything that goes beside the tokens."""
        patches, rank = tokens.patches, tokens.rank
        if out.stayed is not None:
            patches = tokens_going_on(patches, out.stayed, self.config.extra_tokens, "all", plan.reference_compat)
            rank = None if rank is None else take_patches(rank, out.stayed)
        if out.valid is not None:
            empty = functional.pad(~out.valid, (self.config.extra_tokens, 0), value=False)
            patches = patches.masked_fill(empty, -1)
        return _Tokens(out.tokens, patches, rank, out.valid)

    def _check_removed(self, removed: Mapping[int, Tensor], batch: int) -> None:
        expected = (batch, *self.config.grid)
        for block, flags in removed.items():
            if block not in range(self.config.num_hidden_layers):
                raise InvalidSetting("removed", block, f"block numbers from 0 to {self.config.num_hidden_layers - 1}")
            if tuple(flags.shape) != expected or flags.dtype != torch.bool:
                raise InputShapeError(
                    f"removed[{block}] has shape {tuple(flags.shape)} and type {flags.dtype}; wanted: {expected}, one "
                    "torch.bool a patch"
                )
        if removed and self.config.reference_compat:
            raise InvalidSetting("removed", sorted(removed), "no block with reference_compat, which counts tokens")

    def _without(self, tokens: _Tokens, flags: Tensor) -> _Tokens:
        """Turn the flagged patches into empty slots: keys for nobody from the next block on, and in no mean."""
        patches = tokens.patches[:, self.config.extra_tokens :]
        alive = patches >= 0
        stay = alive & ~take_patches(flags.to(patches.device).flatten(1), patches.clamp(min=0))
        stay = torch.where(stay.any(dim=1, keepdim=True), stay, alive)
        empty = functional.pad(~stay, (self.config.extra_tokens, 0), value=False)
        return _Tokens(tokens.values, tokens.patches.masked_fill(empty, -1), tokens.rank, stay)

    def _score_grid(self, entered: _Tokens, static: Tensor | None, scores: Tensor | None) -> Tensor:
        """(batch, F, T) scores of the patches that entered a block, NaN elsewhere."""
        grid = self.config.grid
        if static is not None:
            return static.masked_fill(~alive_on_grid(entered.patches, grid), math.nan)
        if scores is None:
            raise InvalidSetting("criterion", self.config.criterion, "one that gives scores")
        return scatter_to_grid(scores, entered.patches[:, self.config.extra_tokens :], grid)

    def _pool(self, tokens: Encoded) -> Tensor:
        """What the head reads, (batch, width)."""
        extra = self.config.extra_tokens
        if self.config.pooling == "extra_tokens":
            return self.norm(tokens.values[:, :extra]).mean(dim=1)
        patches = tokens.values[:, -(tokens.patches.shape[1] - extra) :]
        if tokens.valid is None:
            return self.norm(patches.mean(dim=1))
        weight = tokens.valid.unsqueeze(-1).to(patches.dtype)
        return self.norm((patches * weight).sum(dim=1) / weight.sum(dim=1))

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        last = self.head.linear if isinstance(self.head, Head) else None
        std = self.config.head_init_std if module is last else self.config.initializer_range
        if isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear | nn.Conv2d):
            init.trunc_normal_(module.weight, std=std)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, Embeddings):
            init.trunc_normal_(module.cls_token, std=std)
            if module.dist_token is not None:
                init.trunc_normal_(module.dist_token, std=std)
            if self.config.position_trainable:
                init.trunc_normal_(module.position_table, std=std)
            else:
                init.copy_(module.position_table, sincos_position_table(self.config))


AutoModelForAudioClassification.register(SpectrimConfig, AudioTransformer)
