"""The masked autoencoder: encoder on the visible patches, decoder on all, error on the masked ones."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModelForPreTraining, PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput, can_return_tuple

from spectrim.errors import InputShapeError
from spectrim.network.blocks import Attention
from spectrim.network.masked.config import MaskedConfig
from spectrim.network.masked.decoder import Decoder
from spectrim.network.positions import sincos_position_table
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.pruning import Pruning

SMALLEST_VARIANCE = 1e-6
"""Added to the variance of a patch before its root divides."""


def normalised(patches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Take each patch's mean off, and divide by its standard deviation (MAE, He et al., 2022, section 4.2).

    Args:
        patches: (..., values).

    Returns:
        The normalised patches, and (..., 1) means and (..., 1) divisors √(variance + 10⁻⁶), the variance being the
        unbiased one.
    """
    mean = patches.mean(dim=-1, keepdim=True)
    centred = patches - mean
    variance = centred.square().sum(dim=-1, keepdim=True) / (patches.shape[-1] - 1)
    scale = (variance + SMALLEST_VARIANCE).sqrt()
    return centred / scale, mean, scale


@dataclass
class MaskedOutput(ModelOutput):
    """What `MaskedAutoencoder` returns.

    Attributes:
        loss: scalar, the mean of ``clip_losses``.
        clip_losses: (batch,) mean squared error over the values of each clip's masked patches; 0 for a clip without one
            that counts.
        masked: (batch, F, T) bool, the patches that counted.
        reconstruction: if asked for, (batch, frames, mels): the prediction of every patch. Where patches are
            normalised, each with the mean and standard deviation of the true one.
    """

    loss: Tensor | None = None
    clip_losses: Tensor | None = None
    masked: Tensor | None = None
    reconstruction: Tensor | None = None


class MaskedAutoencoder(PreTrainedModel):
    """AudioMAE's self-supervised task around `AudioTransformer`'s embeddings and blocks.

    The encoder is an `AudioTransformer` without head, whose norm is applied to every token. The decoder is `Decoder`.
    """

    config: MaskedConfig
    config_class = MaskedConfig
    base_model_prefix = "spectrim_masked"
    main_input_name = "input_values"
    input_modalities = ("audio",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ("Block", "WindowBlock")

    def __init__(self, config: MaskedConfig) -> None:
        super().__init__(config)
        config.check()
        self.encoder = AudioTransformer(config)
        self.encoder.head = nn.Identity()  # type: ignore[assignment]
        self.decoder = Decoder(config)
        self.post_init()
        for module in reversed(list(self.encoder.modules())):
            self._init_weights(module)

    @can_return_tuple
    def forward(
        self,
        input_values: Tensor,
        visible_patches: Tensor,
        num_frames: Tensor | None = None,
        output_reconstruction: bool = False,
    ) -> MaskedOutput:
        """Hide patches and predict them.

        Args:
            input_values: (batch, frames, mels), normalised log-mel as the front end makes it.
            visible_patches: (batch, k) grid indices f·T + t of the patches that the encoder sees.
            num_frames: (batch,) number of real frames of each clip; read only with ``ignore_padding``.
            output_reconstruction: return what was predicted.

        Returns:
            `MaskedOutput`; a tuple with ``return_dict=False``.

        Raises:
            InputShapeError: as `AudioTransformer.forward`, or ``num_frames`` is missing or not (batch,) where padding
                is to be ignored.
        """
        encoded = self.encoder.encode(input_values, Pruning(at=()), visible_patches=visible_patches).tokens
        predicted = self.decoder(self.encoder.norm(encoded.values), encoded.alive)
        target = self._in_strips(input_values)
        mean, scale = target.new_zeros(()), target.new_ones(())
        if self.config.normalise_patches:
            target, mean, scale = normalised(target)
        masked = self._masked(visible_patches, num_frames)
        exact = torch.promote_types(predicted.dtype, torch.float32)
        errors = functional.mse_loss(predicted.to(exact), target.to(exact), reduction="none").mean(dim=-1)
        weights = self._to_strips(masked).to(errors.dtype)
        clip_losses = (errors * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)
        return MaskedOutput(
            loss=clip_losses.mean(),
            clip_losses=clip_losses,
            masked=masked,
            reconstruction=self._from_strips(predicted * scale + mean) if output_reconstruction else None,
        )

    def _masked(self, visible_patches: Tensor, num_frames: Tensor | None) -> Tensor:
        """(batch, F, T) bool: the patches whose error counts."""
        frequency, time = self.config.grid
        batch = visible_patches.shape[0]
        hidden = torch.ones(batch, frequency * time, dtype=torch.bool, device=visible_patches.device)
        hidden = hidden.scatter(1, visible_patches, False).unflatten(1, (frequency, time))
        if not self.config.ignore_padding:
            return hidden
        if num_frames is None or tuple(num_frames.shape) != (batch,):
            given = "missing" if num_frames is None else f"of shape {tuple(num_frames.shape)}"
            raise InputShapeError(
                f"num_frames is {given}; ignore_padding=True needs the number of real frames of each clip, ({batch},)"
            )
        start = torch.arange(time, device=hidden.device) * self.config.side
        return hidden & (start < num_frames.to(hidden.device)[:, None])[:, None]

    def _in_strips(self, spectrogram: Tensor) -> Tensor:
        """(batch, frames, mels) → (batch, F·T, patch_size²) in the decoder's order."""
        side, strip = self.config.side, self.decoder.strip
        frequency, time = self.config.grid
        cut = spectrogram.reshape(-1, time, side, frequency // strip, strip, side)
        return cut.permute(0, 3, 1, 4, 2, 5).flatten(1, 3).flatten(2)

    def _from_strips(self, patches: Tensor) -> Tensor:
        """The way back from `_in_strips`."""
        side, strip = self.config.side, self.decoder.strip
        frequency, time = self.config.grid
        cut = patches.unflatten(2, (side, side)).unflatten(1, (frequency // strip, time, strip))
        return cut.permute(0, 2, 4, 1, 3, 5).flatten(1, 2).flatten(2)

    def _to_strips(self, values: Tensor) -> Tensor:
        """(batch, F, T) → (batch, F·T) in the decoder's order."""
        return values.unflatten(1, (-1, self.decoder.strip)).transpose(2, 3).flatten(1)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """As AudioMAE: matrices uniform by Glorot and Bengio (2010), the mask token normal, sin-cos positions."""
        if isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.Linear | nn.Conv2d):
            _glorot(module.weight, len(module.weight))
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, Attention):
            for part in (module.query, module.key_value):
                _glorot(part.weight, 3 * part.in_features)
        elif isinstance(module, Decoder):
            init.normal_(module.mask_token, std=0.02)
            init.copy_(module.position_table, sincos_position_table(self.config.decoder_config()))


def _glorot(weight: Tensor, fan_out: int) -> None:
    """Draw a matrix or a kernel, (out, ...); queries, keys and values count as one matrix."""
    bound = math.sqrt(6.0 / (weight[0].numel() + fan_out))
    init.uniform_(weight, -bound, bound)


AutoModelForPreTraining.register(MaskedConfig, MaskedAutoencoder)
