"""Numbers that AudioMAE's public code gave on seeded weights; how they were recorded: reference/README.md."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from seeded import seeded_input, seeded_state

from spectrim.checkpoints import LicenceNotice, load_autoencoder

HERE = Path(__file__).parents[1] / "reference"
OUTPUTS = np.load(HERE / "masked.npz")
RECORDED = json.loads((HERE / "masked.json").read_text())
CASES = {
    "local": ("local", 1024, True),
    "local-raw": ("local", 1024, False),
    "local-2d": ("local", 1024, True),
    "local-128": ("local", 128, True),
    "global": ("global", 1024, True),
}
"""{case: (decoder, frames, whether patches are normalised)}."""


@pytest.mark.parametrize("case", CASES)
def test_loss_and_predictions_are_those_of_the_public_code(tmp_path: Path, case: str) -> None:
    decoder, frames, normalise = CASES[case]
    shapes = dict(RECORDED["shapes"][decoder])
    for table in ("pos_embed", "decoder_pos_embed"):
        shapes[table] = [1, 1 + frames // 2, shapes[table][2]]
    torch.save({"model": seeded_state(shapes, RECORDED["seed"])}, tmp_path / "pretrained.pth")
    with pytest.warns(LicenceNotice):
        model = load_autoencoder(tmp_path / "pretrained.pth")
    assert not model.training
    model.config.normalise_patches = normalise
    values = seeded_input(frames, RECORDED["seed"])
    masked = np.unpackbits(OUTPUTS[f"{case}/mask"], axis=1, count=frames // 2).astype(bool)
    order = np.arange(frames // 2).reshape(8, -1).T.reshape(-1)
    visible = torch.from_numpy(np.stack([order[~row] for row in masked]))
    with torch.no_grad():
        output = model(values, visible)
        tokens = model.encoder.encode(values, visible_patches=visible).tokens
        predicted = model.decoder(model.encoder.norm(tokens.values), visible)
    strip = 4 if decoder == "local" else 8
    in_time = predicted.unflatten(1, (8 // strip, -1, strip)).transpose(1, 2).flatten(1, 3)
    assert np.array_equal(output.masked.transpose(1, 2).flatten(1).numpy(), masked)
    assert output.loss.item() == pytest.approx(float(OUTPUTS[f"{case}/loss"]), abs=1e-5)
    assert np.abs(in_time[:, ::13, ::9].numpy() - OUTPUTS[f"{case}/prediction"]).max() < 1e-4
