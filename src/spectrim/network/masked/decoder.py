"""The decoder: from the encoder's visible tokens to the values of every patch.

Its blocks with local attention are those of AudioMAE (Huang et al., 2022, section 3.2), which are Swin V2's (Liu et
al., 2022) in timm's reading: cosine attention inside windows, position biases from a small network on log-spaced
offsets, and the norm after each branch. Windows of every second block are moved in time; what meets there from both
ends of the clip does not attend to each other. With global attention its blocks are the encoder's.

Patches stand in *strips*: as many frequency rows as a window has, one strip after the other, each time-major. So a
window is a run of neighbours, moving it is a roll, and nothing has to be cut or put together. With global attention
there is one strip, which is the time-major order.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.modeling_layers import GradientCheckpointingLayer

from spectrim.config import SpectrimConfig
from spectrim.network.blocks import MLP, Block
from spectrim.network.masked.config import MaskedConfig
from spectrim.pruning.select import take_patches
from spectrim.pruning.tokens import Tokens

LOWEST_TEMPERATURE = 0.01
SMALLEST_NORM = 1e-6
"""Below this a query or key counts as this long."""


def strip_places(patches: Tensor, grid: tuple[int, int], strip: int) -> Tensor:
    """Grid indices f·T + t → places in the decoder's sequence.

    Args:
        patches: any shape, int64.
        grid: (F, T).
        strip: frequency rows of a strip.

    Returns:
        The same shape: (⌊f/strip⌋·T + t)·strip + f mod strip.
    """
    time = grid[1]
    frequency, column = patches // time, patches % time
    return (frequency // strip * time + column) * strip + frequency % strip


class PositionBias(nn.Module):
    """Biases of a window's attention from the offsets of its patches, by a network of one hidden layer (Swin V2)."""

    def __init__(self, window: tuple[int, int], heads: int, width: int, dropout: float) -> None:
        super().__init__()
        frequency, time = window
        self.area = frequency * time
        self.dropout = dropout
        self.up = nn.Linear(2, width)
        self.down = nn.Linear(width, heads)
        self.window = window

    def forward(self) -> Tensor:
        """(heads, area, area): row, the patch that attends; column, the one attended to."""
        offsets = log_offsets(self.window, self.up.weight)
        hidden = functional.dropout(functional.relu(self.up(offsets)), self.dropout, self.training)
        biases = functional.dropout(self.down(hidden), self.dropout, self.training)
        return biases.T.unflatten(1, (self.area, self.area))


def log_offsets(window: tuple[int, int], like: Tensor) -> Tensor:
    """Offsets of all pairs of patches of a window, (area², 2) in time and frequency: sign·log(1 + |offset|).

    Args:
        window: its sides, (frequency, time).
        like: of the device and type that are wanted.
    """
    frequency, time = window
    axes = torch.arange(time, device=like.device), torch.arange(frequency, device=like.device)
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).flatten(0, 1)
    offsets = (places[:, None] - places[None, :]).flatten(0, 1).to(like.dtype)
    return offsets.sign() * offsets.abs().log1p()


class WindowAttention(nn.Module):
    """Cosine attention inside windows that are runs of neighbours in the sequence."""

    def __init__(self, config: MaskedConfig) -> None:
        super().__init__()
        width = config.decoder_width
        self.heads = config.decoder_heads
        self.joint = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)
        bias_width, dropout = config.decoder_bias_width, config.decoder_bias_dropout
        self.bias = PositionBias(config.window, self.heads, bias_width, dropout)
        self.temperature = nn.Parameter(torch.ones(self.heads))

    def forward(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Attend and project.

        Args:
            tokens: (batch, windows, area, width).
            mask: (windows, 1, area, area), added to the attention's logits; None for none.

        Returns:
            The same shape as ``tokens``.
        """
        joint = self.joint(tokens).unflatten(-1, (3, self.heads, -1))
        queries, keys, values = joint.permute(3, 0, 1, 4, 2, 5).contiguous().unbind(0)
        temperature = self.temperature.clamp(min=LOWEST_TEMPERATURE)[:, None, None]
        queries = functional.normalize(queries, dim=-1, eps=SMALLEST_NORM) / temperature
        keys = functional.normalize(keys, dim=-1, eps=SMALLEST_NORM)
        biases = self.bias() if mask is None else self.bias() + mask
        attention = (queries @ keys.transpose(-1, -2) + biases).softmax(dim=-1)
        return self.output((attention @ values).transpose(2, 3).flatten(3))


class WindowBlock(GradientCheckpointingLayer):
    """Attention in windows, norm, residual, MLP, norm, residual."""

    def __init__(self, config: MaskedConfig, shift: int) -> None:
        super().__init__()
        sizes = config.decoder_config()
        frequency, time = config.window
        self.area = frequency * time
        self.strips = config.grid[0] // frequency
        self.moved = shift * frequency
        self.attention = WindowAttention(config)
        self.norm1 = nn.LayerNorm(sizes.hidden_size, eps=sizes.layer_norm_eps)
        self.mlp = MLP(sizes)
        self.norm2 = nn.LayerNorm(sizes.hidden_size, eps=sizes.layer_norm_eps)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, F·T, width) in strips → the same."""
        tokens = tokens + self.norm1(self._attend(tokens))
        return tokens + self.norm2(self.mlp(tokens))

    def _attend(self, tokens: Tensor) -> Tensor:
        if not self.moved:
            return self.attention(tokens.unflatten(1, (-1, self.area)), None).flatten(1, 2)
        strips = tokens.unflatten(1, (self.strips, -1)).roll(-self.moved, dims=2)
        windows = strips.flatten(1, 2).unflatten(1, (-1, self.area))
        attended = self.attention(windows, self._mask(windows))
        return attended.flatten(1, 2).unflatten(1, (self.strips, -1)).roll(self.moved, dims=2).flatten(1, 2)

    def _mask(self, windows: Tensor) -> Tensor:
        """(windows, 1, area, area): −inf in the last window of a strip between the clip's end and its beginning."""
        count = windows.shape[1]
        from_beginning = torch.arange(self.area, device=windows.device) >= self.area - self.moved
        apart = from_beginning[:, None] != from_beginning[None, :]
        per_strip = count // self.strips
        last = torch.arange(count, device=windows.device) % per_strip == per_strip - 1
        mask = torch.zeros(count, 1, self.area, self.area, dtype=windows.dtype, device=windows.device)
        return mask.masked_fill(last[:, None, None, None] & apart, -math.inf)


class GlobalBlocks(nn.ModuleList):
    """The encoder's blocks, dense, on the extra tokens and all patches."""

    def __init__(self, config: SpectrimConfig) -> None:
        super().__init__(Block(config, 0.0) for _ in range(config.num_hidden_layers))
        self.plans = config.plan(full_output=True)
        self.extra = config.extra_tokens

    def forward(self, values: Tensor) -> Tensor:
        """(batch, extra + F·T, width) → the same."""
        nowhere = torch.full(values.shape[:2], -1, device=values.device)
        tokens = Tokens(values, nowhere, self.extra)
        for block, plan in zip(self, self.plans, strict=True):
            values = block(values, tokens, plan).values
        return values


class LocalBlocks(nn.ModuleList):
    """Blocks with attention in windows, those of every second one moved in time."""

    def __init__(self, config: MaskedConfig) -> None:
        super().__init__(WindowBlock(config, config.shift(layer)) for layer in range(config.decoder_layers))

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, F·T, width) in strips → the same."""
        for block in self:
            tokens = block(tokens)
        return tokens


class Decoder(nn.Module):
    """Visible tokens → predicted values of all patches."""

    def __init__(self, config: MaskedConfig) -> None:
        super().__init__()
        sizes = config.decoder_config()
        self.grid = config.grid
        self.extra = config.extra_tokens
        self.local = config.decoder_attention == "local"
        self.strip = config.window[0] if self.local else config.grid[0]
        self.embed = nn.Linear(config.hidden_size, sizes.hidden_size)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, sizes.hidden_size))
        self.position_table = nn.Parameter(
            torch.zeros(1, sizes.extra_tokens + sizes.num_patches, sizes.hidden_size), requires_grad=False
        )
        self.blocks: LocalBlocks | GlobalBlocks = LocalBlocks(config) if self.local else GlobalBlocks(sizes)
        self.norm = nn.LayerNorm(sizes.hidden_size, eps=sizes.layer_norm_eps)
        self.prediction = nn.Linear(sizes.hidden_size, config.side**2)

    def forward(self, tokens: Tensor, patches: Tensor) -> Tensor:
        """Predict.

        Args:
            tokens: (batch, extra + k, width of the encoder).
            patches: (batch, k) grid index f·T + t of each visible patch.

        Returns:
            (batch, F·T, patch_size²) in strips; the values of a patch frame by frame, low mel bins first.
        """
        tokens = self.embed(tokens)
        places = strip_places(patches, self.grid, self.strip)
        positions = self._positions()
        visible = tokens[:, self.extra :] + take_patches(positions.expand(len(places), -1, -1), places)
        hidden = (self.mask_token + positions).to(visible.dtype).expand(len(places), -1, -1)
        everything = hidden.scatter(1, places.unsqueeze(-1).expand(-1, -1, hidden.shape[2]), visible)
        if not self.local:
            extra = tokens[:, : self.extra] + self.position_table[:, : self.extra]
            everything = torch.cat([extra, everything], dim=1)
        everything = self.norm(self.blocks(everything))
        return self.prediction(everything if self.local else everything[:, self.extra :])

    def _positions(self) -> Tensor:
        """(1, F·T, width): the table, which is time-major, in strips."""
        frequency, time = self.grid
        table = self.position_table[:, self.extra :].unflatten(1, (time, frequency // self.strip, self.strip))
        return table.transpose(1, 2).flatten(1, 3)
