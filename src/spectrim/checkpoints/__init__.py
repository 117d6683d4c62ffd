"""Checkpoints that people have, loaded strictly: every layout is recognised by its keys and shapes."""

from spectrim.checkpoints.autoencoder import load_autoencoder
from spectrim.checkpoints.files import DescribedSource
from spectrim.checkpoints.in_memory import prune
from spectrim.checkpoints.layouts import LAYOUTS
from spectrim.checkpoints.loading import describe, from_pretrained
from spectrim.checkpoints.notices import LicenceNotice, UntrainedPruning

__all__ = [
    "LAYOUTS",
    "DescribedSource",
    "LicenceNotice",
    "UntrainedPruning",
    "describe",
    "from_pretrained",
    "load_autoencoder",
    "prune",
]
