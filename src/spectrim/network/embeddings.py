"""From log-mel to tokens with positions.

Linear projection of patches as AST and AudioMAE have it (Gong et al., 2021; Huang et al., 2022); what other published
models put before and behind it is there where the configuration says so.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spectrim.config import SpectrimConfig
from spectrim.network.positions import PositionConvolution
from spectrim.network.relative import RelativeBias, distance_buckets
from spectrim.pruning.trace import grid_order

INPUT_NORM_EPS = 1e-5
"""That of torch's batch normalisation, as CED has it."""


class InputNorm(nn.Module):
    """Batch normalisation of each mel bin by statistics that stay as they are, in training too (CED's ``init_bn``)."""

    mean: Tensor
    variance: Tensor

    def __init__(self, num_mel_bins: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_mel_bins))
        self.bias = nn.Parameter(torch.zeros(num_mel_bins))
        self.register_buffer("mean", torch.zeros(num_mel_bins))
        self.register_buffer("variance", torch.ones(num_mel_bins))

    def forward(self, input_values: Tensor) -> Tensor:
        """(batch, frames, mels) → the same shape."""
        scale = self.weight * (self.variance + INPUT_NORM_EPS).rsqrt()
        return (input_values - self.mean) * scale + self.bias


class Embeddings(nn.Module):
    """Log-mel (batch, frames, mels) → tokens (batch, extra + F·T, width) with positions added.

    The numbers for positions by distance are here, too; `spectrim.network.relative` says what becomes of them.
    """

    def __init__(self, config: SpectrimConfig) -> None:
        super().__init__()
        width, extra, narrow = config.hidden_size, config.extra_tokens, config.embedding_size
        self.grid, self.patch_order = config.grid, config.patch_order
        self.input_norm = InputNorm(config.num_mel_bins) if config.input_norm else nn.Identity()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width)) if extra >= 1 else None
        self.dist_token = nn.Parameter(torch.zeros(1, 1, width)) if extra == 2 else None
        self.extra_positions: nn.Parameter | None = None
        self.separate_positions = config.separate_positions
        if config.separate_positions:
            frequency, time = config.grid
            self.extra_positions = nn.Parameter(torch.zeros(1, extra, width)) if extra else None
            self.frequency_positions = nn.Parameter(torch.zeros(1, width, frequency, 1))
            self.time_positions = nn.Parameter(torch.zeros(1, width, 1, time))
        elif not config.position_kernel:
            self.position_table = nn.Parameter(
                torch.zeros(1, extra + config.num_patches, width),
                requires_grad=config.position_trainable,
            )
        self.position_convolution = PositionConvolution(config) if config.position_kernel else None
        buckets = config.relative_buckets
        self.relative_positions = nn.Parameter(torch.zeros(buckets, config.num_attention_heads)) if buckets else None
        self.buckets = distance_buckets(config.num_patches, buckets, config.relative_distance) if buckets else ()
        eps = config.layer_norm_eps
        self.norm = nn.LayerNorm(width, eps=eps) if config.embedding_norm else nn.Identity()
        stride = (config.frequency_stride, config.time_stride)
        self.projection = nn.Conv2d(1, narrow or width, kernel_size=config.patch_shape, stride=stride, bias=not narrow)
        self.patch_norm = nn.LayerNorm(narrow, eps=config.layer_norm_eps) if narrow else nn.Identity()
        self.widening = nn.Linear(narrow, width) if narrow not in (0, width) else nn.Identity()

    def forward(self, input_values: Tensor, padding: Tensor | None = None) -> Tensor:
        """Normalise, cut, project, line up in the backbone's order, add positions.

        Args:
            input_values: (batch, frames, mels).
            padding: (batch, F·T) bool in that order, True for patches that no other may get to know of; None for none.
        """
        normed = self.input_norm(input_values).to(self.projection.weight.dtype)
        grid = self.projection(normed.transpose(1, 2).unsqueeze(1))
        if self.separate_positions:
            grid = grid + self.frequency_positions + self.time_positions
        time_major = self.patch_order == "time_major"
        patches = (grid.transpose(2, 3) if time_major else grid).flatten(2).transpose(1, 2)
        patches = self.widening(self.patch_norm(patches))
        if self.position_convolution is not None:
            return self.position_convolution(patches, padding)
        tokens = self._after_extra(patches)
        placed: Tensor = self.norm(tokens if self.separate_positions else tokens + self.position_table)
        return placed

    def _after_extra(self, patches: Tensor) -> Tensor:
        """The patches behind the extra tokens, where there are any."""
        there: list[Tensor] = [token for token in (self.cls_token, self.dist_token) if token is not None]
        if not there:
            return patches
        extra = torch.cat(there, dim=1)
        if self.extra_positions is not None:
            extra = extra + self.extra_positions
        return torch.cat([extra.expand(patches.shape[0], -1, -1), patches], dim=1)

    def relative_bias(self, patches: Tensor, *, alike: bool) -> RelativeBias | None:
        """Bias by the distance of the tokens that enter block 0, or None.

        Args:
            patches: (batch, n) their grid indices.
            alike: whether they are the same for each clip.
        """
        if self.relative_positions is None:
            return None
        order = grid_order(self.grid, self.patch_order, patches.device)
        return RelativeBias.of(self.relative_positions, self.buckets, order, patches, alike=alike)
