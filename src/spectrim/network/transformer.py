"""One model for AST, AudioMAE and others, with patches dropped on the way; one forward trains, infers and exports."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForAudioClassification, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple

from spectrim.audio.feature_extractor import SpectrimFeatureExtractor
from spectrim.config import SpectrimConfig
from spectrim.errors import InvalidSetting, one_of
from spectrim.network.blocks import Attention, Block, BlockOutput, Head, Wanted
from spectrim.network.embeddings import Embeddings, InputNorm
from spectrim.network.entering import (
    check_input,
    check_removed,
    entering_tokens,
    padded_patches,
    ranked,
    static_scores,
)
from spectrim.network.losses import classification_loss
from spectrim.network.positions import sincos_position_table
from spectrim.network.predictor import Predictor
from spectrim.pruning.pruning import FLAT_NAMES, Pruning, given_pruning
from spectrim.pruning.reducers import REDUCERS
from spectrim.pruning.tokens import Tokens
from spectrim.pruning.trace import TokenTrace, TraceRecorder

HUB_OPTIONS = ("push_to_hub", "repo_id", "commit_message", "token", "private")
"""Options of ``save_pretrained`` that are about the upload of what it saves."""


@dataclass
class AudioTransformerOutput(ModelOutput):
    """What `AudioTransformer` returns.

    Attributes:
        loss: scalar, if labels were given.
        logits: (batch, labels).
        hidden_states: if asked for, the tokens before block 0 and after each block, (batch, tokens alive, width).
        attentions: if asked for, per block the map (batch, heads, tokens computed, tokens entering) in float32.
        token_trace: if asked for, scores and survivors per block.
        decisions: while training with ``reducer="dynamicvit"``, (batch, n) of 1 or 0 with gradients: which patches are
            there, which enter block 0 and then which are left after each predictor.

    Examples:
        >>> model = spectrim.from_pretrained("spectrim-mini", keep_rate=0.7)
        >>> out = model(torch.zeros(2, 128, 128), labels=torch.tensor([0, 1]))
        >>> out.logits.shape, out.loss.shape
        (torch.Size([2, 86]), torch.Size([]))
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    token_trace: TokenTrace | None = None
    decisions: tuple[Tensor, ...] | None = None


@dataclass
class Encoded:
    """What the blocks make of a batch, before pooling.

    Attributes:
        tokens: after the last block, before any norm; without those that the head does not read, unless the full output
            was asked for.
        hidden_states: see `AudioTransformerOutput`; so the others.
        attentions: likewise.
        token_trace: likewise.
        decisions: likewise.
    """

    tokens: Tokens
    hidden_states: tuple[Tensor, ...] | None
    attentions: tuple[Tensor, ...] | None
    token_trace: TokenTrace | None
    decisions: tuple[Tensor, ...] | None


class AudioTransformer(PreTrainedModel):
    """AST, AudioMAE or another backbone that drops patches, with a classification head.

    Examples:
        >>> model = spectrim.from_pretrained("spectrim-mini", keep_rate=0.7)
        >>> frontend = spectrim.Frontend.from_config(model.config)
        >>> model(frontend([np.zeros(16000, np.float32)]).input_values).logits.shape
        torch.Size([1, 86])
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
        if config.num_labels == 1:
            # What transformers changes while loading (num_labels, id2label), it sets on a configuration that is made.
            config.problem_type = "multi_label_classification"
        self.num_labels = config.num_labels
        self.embeddings = Embeddings(config)
        depth = config.num_hidden_layers
        rates = [config.drop_path_rate * block / max(depth - 1, 1) for block in range(depth)]
        asked = config.encoder.predictors
        self.blocks = nn.ModuleList(Block(config, rate, predicts=n in asked) for n, rate in enumerate(rates))
        # After post-norm blocks there is nothing left to normalise.
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) if config.norm_first else nn.Identity()
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

        Raises:
            InvalidSetting: an upload is to be a pull request, which of several files `push_to_hub` makes.
        """
        if options.get("push_to_hub") and options.get("create_pr"):
            instead = "model.push_to_hub(repo_id, create_pr=True), which puts all files into one pull request"
            raise InvalidSetting("create_pr", True, instead)
        super().save_pretrained(save_directory, is_main_process=is_main_process, **options)
        if is_main_process:
            extractor = SpectrimFeatureExtractor.from_config(self.config)
            # Each uploads what it writes itself.
            hub = {name: options[name] for name in HUB_OPTIONS if name in options}
            extractor.save_pretrained(str(save_directory), **hub)

    def set_pruning(self, pruning: Pruning | None = None, **fields: Any) -> AudioTransformer:
        """Change the operating point that holds where none is given. No weight changes.

        The model gets a new configuration: another model built from the same one keeps its own settings.

        Args:
            pruning: the new operating point.
            **fields: instead of a whole one, the fields of the present one that are to change, named as in config.json:
                ``keep_rate``, ``prune_at``, ``criterion``, …; None leaves a field as it is.

        Returns:
            The model itself.

        Raises:
            InvalidSetting: a setting is not there or not allowed; the model then keeps the old ones.

        Examples:
            >>> model = spectrim.from_pretrained("spectrim-mini")
            >>> model.set_pruning(keep_rate=[0.9, 0.7, 0.5]).config.pruning.rates
            {3: 0.9, 6: 0.7, 9: 0.5}
        """
        for name in fields:
            if name not in FLAT_NAMES:
                raise InvalidSetting(name, fields[name], f"no setting of pruning; there are {one_of(FLAT_NAMES)}")
        chosen = given_pruning(self.config.pruning, pruning, fields)
        self.config.check_pruning(chosen)
        self.config = copy.deepcopy(self.config)
        self.config.pruning = chosen
        return self

    def add_predictors(self, at: Sequence[int]) -> AudioTransformer:
        """Give blocks the predictors that ``reducer="dynamicvit"`` asks, with random weights that are to be trained.

        Args:
            at: block numbers; a predictor that is there already stays.

        Returns:
            The model itself, with a new configuration.

        Raises:
            InvalidSetting: there is no such block, or the width is no multiple of 4.
        """
        config = copy.deepcopy(self.config)
        config.predictor_blocks = sorted({*(config.predictor_blocks or ()), *at})
        config.check()
        self.config = config
        for number in at:
            block = self.blocks[number]
            if block.predictor is None:
                block.predictor = Predictor(config.hidden_size).to(self.device, self.dtype)
                block.predictor.apply(self._init_weights)
        return self

    @can_return_tuple
    def forward(
        self,
        input_values: Tensor,
        labels: Tensor | None = None,
        pruning: Pruning | None = None,
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
            labels: (batch,) class indices, or (batch, labels) float targets; adds the loss. Those of a
                clip sum to more than 1 only where ``config.problem_type`` is ``"multi_label_classification"``.
            pruning: the operating point; None for the configured one.
            output_token_trace: return scores, survivors and carriers of every block.
            output_hidden_states: return the tokens before and after each block.
            output_attentions: return the attention maps, which are large.
            num_frames: (batch,) number of real frames of each clip; read only with ``drop_padding``.
            keep_rate: short for the configured operating point with another keep rate, e.g. while it is annealed.
            visible_patches: (batch, k) grid indices f·T + t of the patches to process, each at most once a clip; the
                others are removed before block 0 (structured masking, pre-training). On CPUs the indices are checked.
            removed: block → (batch, F, T) bool: patches to remove there, at the place of selection, as many of each
                clip as it says. What is gone already stays gone. A clip of which no patch would be left keeps those
                that it has: a mean of no patch would be NaN.

        Returns:
            `AudioTransformerOutput`; a tuple with ``return_dict=False``.

        Raises:
            InputShapeError: the input is not (batch, max_length, num_mel_bins) or not finite, ``visible_patches`` not
                (batch, k) int64 or with indices that there are not or twice, ``removed`` not (batch, F, T) bool, or
                ``num_frames`` missing or not (batch,) with ``drop_padding``.
            InvalidSetting: a setting of pruning is out of range, ``removed`` names a block that there is not, or one at
                which patches are merged already, or comes with ``reference_compat``, or ``labels`` are none that the
                model can be trained on.
        """
        show_states = self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        show_maps = self.config.output_attentions if output_attentions is None else output_attentions
        encoded = self.encode(
            input_values,
            given_pruning(self.config.pruning, pruning, {"keep_rate": keep_rate}),
            num_frames=num_frames,
            visible_patches=visible_patches,
            removed=removed,
            token_trace=output_token_trace,
            hidden_states=show_states,
            attentions=show_maps,
            full_output=show_states,
        )
        logits = self.head(self._pooled(encoded.tokens))
        return AudioTransformerOutput(
            loss=None if labels is None else classification_loss(logits, labels, multi_label=self.config.multi_label),
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
            token_trace=encoded.token_trace,
            decisions=encoded.decisions,
        )

    def embed(self, input_values: Tensor, pruning: Pruning | None = None, num_frames: Tensor | None = None) -> Tensor:
        """The vector that the classification head reads of each clip: features for other tasks.

        For AST and PaSST the mean of [CLS] and [DIST] after the last LayerNorm, for AudioMAE the LayerNorm of the mean
        of the patches that are left, for SSAST and CED the mean of theirs, for BEATs their mean as it is, for the
        Keyword Transformer [CLS] as it is.
        `head` of it is what `forward` returns as logits.

        Args:
            input_values, pruning, num_frames: as for `forward`.

        Returns:
            (batch, width), with gradients where they are enabled.

        Raises:
            InputShapeError: as `forward`; so `InvalidSetting`.

        Examples:
            >>> model = spectrim.from_pretrained("spectrim-mini", keep_rate=0.7)
            >>> model.embed(torch.zeros(2, model.config.max_length, 128)).shape
            torch.Size([2, 128])
        """
        pruning = given_pruning(self.config.pruning, pruning, {})
        return self._pooled(self.encode(input_values, pruning, num_frames=num_frames, full_output=False).tokens)

    def _pooled(self, tokens: Tokens) -> Tensor:
        config = self.config
        return tokens.pool(self.norm, config.head_reads, norm_each=config.pooling == "mean_normed_patches")

    def encode(
        self,
        input_values: Tensor,
        pruning: Pruning | None = None,
        *,
        num_frames: Tensor | None = None,
        visible_patches: Tensor | None = None,
        removed: Mapping[int, Tensor] | None = None,
        token_trace: bool = False,
        hidden_states: bool = False,
        attentions: bool = False,
        full_output: bool = True,
    ) -> Encoded:
        """Run embeddings and blocks: all of `forward` but pooling and head.

        Args:
            input_values, num_frames, visible_patches, removed: as for `forward`.
            pruning: the operating point; None for the configured one.
            token_trace: return scores, survivors and carriers of every block.
            hidden_states: return the tokens before and after each block.
            attentions: return the attention maps.
            full_output: compute every token in the last block, also those that the head does not read.

        Raises:
            InputShapeError: as `forward`; so `InvalidSetting`.
        """
        config = self.config
        pruning = config.pruning if pruning is None else pruning
        check_input(input_values, config)
        gone = {} if removed is None else removed
        check_removed(gone, input_values.shape[0], config, pruning)
        padding = padded_patches(num_frames, config, pruning, input_values.shape[0], input_values.device)
        values = self.embeddings(input_values, padding)
        tokens = entering_tokens(
            values, config, pruning, visible_patches=visible_patches, num_frames=num_frames, traced=token_trace
        )
        alike = visible_patches is None and not pruning.drop_padding
        relative = self.embeddings.relative_bias(tokens.patches, alike=alike)
        scored = token_trace or pruning.prunes
        static = static_scores(input_values, config, pruning, training=self.training) if scored else None
        tokens = ranked(tokens, static)
        plans = config.plan(tokens.alive.shape[1], pruning, full_output=full_output)
        if self.training and any(plan.predicts for plan in plans):
            tokens = tokens.sampled()
        every = REDUCERS[pruning.reducer].reads != "predictor"
        policies = [] if tokens.policy is None else [tokens.policy]
        states, maps = [tokens.values] if hidden_states else [], []
        recorder = TraceRecorder(config.grid, static, scored=every) if token_trace else None
        for number, (block, plan) in enumerate(zip(self.blocks, plans, strict=True)):
            entered = tokens
            wanted = Wanted(token_trace and (every or plan.predicts), attentions)
            relative = None if relative is None else relative.following(entered.patches)
            bias = (None, None) if relative is None else (relative.table, relative.pairs)
            out = BlockOutput(*block(entered.values, entered, plan, wanted, relative, entered.policy, *bias))
            tokens = out.tokens._replace(values=out.values, policy=out.policy)
            if plan.predicts and tokens.policy is not None:
                policies.append(tokens.policy)
            if number in gone:
                tokens = tokens.without(gone[number].to(tokens.patches.device).flatten(1))
            if hidden_states:
                states.append(out.values)
            if out.attention is not None:
                maps.append(out.attention)
            if recorder is not None:
                recorder.add(entered, out.scores, tokens)
        return Encoded(
            tokens=tokens,
            hidden_states=tuple(states) if hidden_states else None,
            attentions=tuple(maps) if attentions else None,
            token_trace=None if recorder is None else recorder.trace(),
            decisions=tuple(policies) or None,
        )

    def get_input_embeddings(self) -> nn.Module:
        """What makes tokens of the input: the patch projection.

        Where the model is frozen and adapters are trained, `PreTrainedModel.enable_input_require_grads` lets gradients
        begin there, which reentrant gradient checkpointing needs.
        """
        return self.embeddings.projection

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        last = self.head.linear if isinstance(self.head, Head) else None
        std = self.config.head_init_std if module is last else self.config.initializer_range
        if isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
            init.trunc_normal_(module.weight, std=std)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, Attention) and module.gate_scale is not None:
            init.ones_(module.gate_scale)
        elif isinstance(module, InputNorm):
            for weight in (module.weight, module.variance):
                init.ones_(weight)
            for weight in (module.bias, module.mean):
                init.zeros_(weight)
        elif isinstance(module, Embeddings):
            for name, weight in module.named_parameters(recurse=False):
                if name == "position_table" and not self.config.position_trainable:
                    init.copy_(weight, sincos_position_table(self.config))
                else:
                    init.trunc_normal_(weight, std=std)


AutoModelForAudioClassification.register(SpectrimConfig, AudioTransformer)
