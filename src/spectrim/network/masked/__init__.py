"""Masked pre-training (AudioMAE, Huang et al., 2022): the same encoder on the visible patches, and a decoder."""

from spectrim.network.masked.config import MaskedConfig
from spectrim.network.masked.model import MaskedAutoencoder, MaskedOutput

__all__ = ["MaskedAutoencoder", "MaskedConfig", "MaskedOutput"]
