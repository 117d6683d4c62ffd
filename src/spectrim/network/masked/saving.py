"""What a pre-training run leaves: the autoencoder, and its encoder alone."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from spectrim.audio.feature_extractor import SpectrimFeatureExtractor
from spectrim.files import folder_beside
from spectrim.network.masked.model import MaskedAutoencoder
from spectrim.network.transformer import AudioTransformer


def save_autoencoder(model: MaskedAutoencoder, path: Path) -> None:
    """Save encoder and decoder with the feature extractor, whole or not at all."""
    with folder_beside(path) as folder:
        model.save_pretrained(folder)
        SpectrimFeatureExtractor.from_config(model.config).save_pretrained(folder)


def save_encoder(model: MaskedAutoencoder, path: Path) -> None:
    """Save the encoder as a model directory without a head and the norm before it, whole or not at all.

    Both are of no use to fine-tuning, which AudioMAE begins with fresh ones. `spectrim.from_pretrained` makes them for
    the labels that it is given, and refuses to load such a directory without labels.
    """
    state = {
        name: value.detach().cpu().contiguous()
        for name, value in model.encoder.state_dict().items()
        if not name.startswith(("norm.", "head."))
    }
    config = model.config.encoder_config()
    config.architectures = [AudioTransformer.__name__]
    with folder_beside(path) as folder:
        folder.mkdir(parents=True)
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        config.save_pretrained(folder)
        SpectrimFeatureExtractor.from_config(config).save_pretrained(folder)
