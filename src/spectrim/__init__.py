"""Spectrim: audio spectrogram transformers that drop the patches that do not matter.

>>> model = spectrim.from_pretrained("spectrim-mini", keep_rate=0.7)

Importing it is light, and makes transformers' Auto classes and pipelines know the model and its feature extractor
(`spectrim.network.auto_classes`). Each name below is loaded when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from spectrim.network.auto_classes import register_when_needed

if TYPE_CHECKING:
    from spectrim.audio.feature_extractor import SpectrimFeatureExtractor
    from spectrim.audio.frontend import Frontend
    from spectrim.checkpoints import from_pretrained, prune
    from spectrim.config import SpectrimConfig
    from spectrim.errors import SpectrimError
    from spectrim.inference.packing import pack_weights
    from spectrim.inference.sounds import predict
    from spectrim.network.macs import macs
    from spectrim.network.transformer import AudioTransformer, AudioTransformerOutput
    from spectrim.pruning.pruning import Pruning
    from spectrim.pruning.trace import TokenTrace

__version__ = "0.1.0"

__all__ = [
    "AudioTransformer",
    "AudioTransformerOutput",
    "Frontend",
    "Pruning",
    "SpectrimConfig",
    "SpectrimError",
    "SpectrimFeatureExtractor",
    "TokenTrace",
    "from_pretrained",
    "macs",
    "pack_weights",
    "predict",
    "prune",
]

_HOMES = {
    "AudioTransformer": "network.transformer",
    "AudioTransformerOutput": "network.transformer",
    "Frontend": "audio.frontend",
    "Pruning": "pruning.pruning",
    "SpectrimConfig": "config",
    "SpectrimError": "errors",
    "SpectrimFeatureExtractor": "audio.feature_extractor",
    "TokenTrace": "pruning.trace",
    "from_pretrained": "checkpoints",
    "macs": "network.macs",
    "pack_weights": "inference.packing",
    "predict": "inference.sounds",
    "prune": "checkpoints",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'spectrim' has no attribute {name!r}")
    return getattr(importlib.import_module(f"spectrim.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


register_when_needed()
