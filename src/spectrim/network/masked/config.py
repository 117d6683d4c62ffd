"""The configuration of a masked autoencoder: that of its encoder, and the decoder's fields beside it."""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig

from spectrim.config import SpectrimConfig
from spectrim.errors import InvalidSetting, one_of

DECODER_ATTENTIONS = ("local", "global")
DECODER_WHOLE_NUMBERS = {
    "decoder_width": 4,
    "decoder_layers": 1,
    "decoder_heads": 1,
    "decoder_window": 1,
    "decoder_shift": 0,
    "decoder_bias_width": 1,
}
"""The smallest value of every field of the decoder that is a whole number."""


class MaskedConfig(SpectrimConfig):
    """Configuration of a `MaskedAutoencoder`: every field of its encoder, and the following. Defaults as published.

    Args:
        decoder_width: width of a token in the decoder; a multiple of 4.
        decoder_layers: number of its blocks.
        decoder_heads: heads in each of them.
        decoder_attention: ``"local"``: each patch attends to those of its window; ``"global"``: to all.
        decoder_window: side of a window in patches, in time and in frequency.
        decoder_shift: patches by which the windows of every second block are moved in time; 0 for none.
        decoder_bias_width: hidden width of the small network that makes position biases in a window.
        decoder_bias_dropout: dropout inside that network.
        normalise_patches: predict a patch's values less their mean, over their standard deviation.
        ignore_padding: leave patches that hold only padding out of the loss.

    Raises:
        InvalidSetting: naming the field, its value and what is allowed.
    """

    model_type = "spectrim-masked"

    decoder_width: int = 512
    decoder_layers: int = 16
    decoder_heads: int = 16
    decoder_attention: str = "local"
    decoder_window: int = 4
    decoder_shift: int = 2
    decoder_bias_width: int = 384
    decoder_bias_dropout: float = 0.1
    normalise_patches: bool = True
    ignore_padding: bool = False

    def check(self) -> None:
        """Raise `InvalidSetting` for the first field that is out of range."""
        super().check()
        for field, least in DECODER_WHOLE_NUMBERS.items():
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InvalidSetting(field, value, f"a whole number, at least {least}")
        if self.decoder_attention not in DECODER_ATTENTIONS:
            raise InvalidSetting("decoder_attention", self.decoder_attention, one_of(DECODER_ATTENTIONS))
        for field in ("normalise_patches", "ignore_padding"):
            if not isinstance(getattr(self, field), bool):
                raise InvalidSetting(field, getattr(self, field), "True or False")
        if isinstance(self.decoder_bias_dropout, bool) or not 0 <= self.decoder_bias_dropout < 1:
            raise InvalidSetting("decoder_bias_dropout", self.decoder_bias_dropout, "a number in [0, 1)")
        self._check_decoder_sizes()

    def _check_decoder_sizes(self) -> None:
        if self.decoder_width % 4:
            raise InvalidSetting("decoder_width", self.decoder_width, "a multiple of 4, for sin-cos positions")
        if self.decoder_width % self.decoder_heads:
            allowed = f"a multiple of decoder_heads={self.decoder_heads}"
            raise InvalidSetting("decoder_width", self.decoder_width, allowed)
        side = self.side
        for field in ("frequency_stride", "time_stride"):
            if getattr(self, field) != side:
                allowed = f"patch_size={side}: patches that overlap would show what is masked"
                raise InvalidSetting(field, getattr(self, field), allowed)
        for field in ("max_length", "num_mel_bins"):
            if getattr(self, field) % side:
                raise InvalidSetting(field, getattr(self, field), f"a multiple of patch_size={side}")
        if self.drop_padding:
            raise InvalidSetting("drop_padding", True, "False here; see ignore_padding")
        if self.decoder_attention == "global":
            return
        for size, window in zip(self.grid, self.window, strict=True):
            if size % window:
                frequency, time = self.grid
                allowed = f"a side that divides the {frequency}×{time} patches (frequency × time)"
                raise InvalidSetting("decoder_window", self.decoder_window, allowed)
        if self.decoder_shift >= self.decoder_window:
            raise InvalidSetting("decoder_shift", self.decoder_shift, f"below decoder_window={self.decoder_window}")

    @property
    def side(self) -> int:
        """Side of a patch, which is square here.

        Raises:
            InvalidSetting: it is not.
        """
        height, width = self.patch_shape
        if height != width:
            raise InvalidSetting("patch_size", self.patch_size, "one whole number here: square patches")
        return height

    @property
    def window(self) -> tuple[int, int]:
        """Patches of a window along frequency and time, (f, t); never more than there are."""
        frequency, time = self.grid
        return min(self.decoder_window, frequency), min(self.decoder_window, time)

    def shift(self, layer: int) -> int:
        """Patches by which the windows of a decoder block are moved in time: those of every second block."""
        return self.decoder_shift if layer % 2 and self.window[1] < self.grid[1] else 0

    @classmethod
    def around(cls, encoder: SpectrimConfig, **decoder: Any) -> MaskedConfig:
        """The configuration of an autoencoder around an encoder.

        Args:
            encoder: of the encoder; what it says of pruning, labels and loss is left.
            **decoder: the fields of this class.
        """
        return cls(**{**SpectrimConfig.own_fields(encoder), **decoder, "keep_rate": 1.0})

    def decoder_config(self) -> SpectrimConfig:
        """The decoder's blocks and positions as those of an encoder of its width, patches time-major."""
        changed = SpectrimConfig.own_fields(self)
        width, heads = self.decoder_width, self.decoder_heads
        changed |= {"hidden_size": width, "num_attention_heads": heads, "intermediate_size": 4 * width}
        changed |= {"num_hidden_layers": self.decoder_layers, "patch_order": "time_major", "qkv_bias": True}
        return SpectrimConfig(**{**changed, "keep_rate": 1.0, "prune_at": [], "criterion": "auto"})

    def encoder_config(self) -> SpectrimConfig:
        """The configuration of the encoder alone, as fine-tuning takes it."""
        return SpectrimConfig(**SpectrimConfig.own_fields(self))


AutoConfig.register(MaskedConfig.model_type, MaskedConfig)
