"""Masked pre-training (AudioMAE, Huang et al., 2022): the same encoder on the visible patches, and a decoder."""

from spectrim.masked.config import MaskedConfig
from spectrim.masked.model import MaskedAutoencoder, MaskedOutput

__all__ = ["MaskedAutoencoder", "MaskedConfig", "MaskedOutput"]
