"""Numbers that the paper's public code gave on seeded weights; how they were recorded: reference/README.md."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from full_size import full_size
from seeded import seeded_input, seeded_state

from spectrim.checkpoints import from_pretrained
from spectrim.network.transformer import AudioTransformer

HERE = Path(__file__).parents[1] / "reference"
OUTPUTS = np.load(HERE / "outputs.npz")
RECORDED = json.loads((HERE / "shapes.json").read_text())
FRAMES = (1024, 512, 128)
STAGES = (3, 6, 9)
COMPAT = {"mean": "intensity", "std": "variation"}

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


def load(folder: Path, family: str, frames: int) -> AudioTransformer:
    """The model that the recording used, through a file in the layout of its public code.

    The small AST was recorded with a table of its own for each length, the others by cutting that of 10 s.
    """
    shapes = dict(RECORDED["shapes"][family])
    if family == "ast":
        shapes["module.v.pos_embed"] = [1, 2 + frames // 2, 128]
    path = folder / f"{family}-{shapes.get('module.v.pos_embed')}.pth"
    if not path.exists():
        state = seeded_state(shapes, RECORDED["seed"])
        torch.save(state if family.startswith("ast") else {"model": state}, path)
    cut = "auto" if family.startswith("ast") or frames == 1024 else "reference_compat"
    stride = 16 if family.startswith("ast") else None
    return from_pretrained(path, stride=stride, frames=frames, positions=cut)


def check(model: AudioTransformer, case: str) -> None:
    logits = OUTPUTS[f"{case}/logits"]
    with torch.no_grad():
        spectrogram = seeded_input(model.config.max_length, RECORDED["seed"], len(logits))
        output = model(spectrogram, output_token_trace=True)
    kept = torch.stack([output.token_trace.kept[block] for block in STAGES], dim=1).flatten(2).numpy()
    expected = np.unpackbits(OUTPUTS[f"{case}/kept"], axis=-1, count=kept.shape[-1]).astype(bool)
    assert np.array_equal(kept, expected)
    assert np.abs(output.logits.numpy() - logits).max() < 2e-4


@pytest.mark.parametrize("frames", FRAMES)
@pytest.mark.parametrize("family", ["ast", "audiomae"])
def test_logits_and_kept_patches_are_those_of_the_public_code(folder: Path, family: str, frames: int) -> None:
    model = load(folder, family, frames)
    for rate in (1.0, 0.7, 0.35):
        check(model.set_pruning(keep_rate=rate), f"{family}/{frames}/{rate}")


@pytest.mark.parametrize("frames", [1024, 128])
@pytest.mark.parametrize("family", ["ast", "audiomae"])
def test_reference_compat_repeats_its_wrong_gather(folder: Path, family: str, frames: int) -> None:
    model = load(folder, family, frames)
    for rank, criterion in COMPAT.items():
        model.set_pruning(keep_rate=0.7, criterion=criterion, reference_compat=True)
        check(model, f"{family}/{frames}/0.7/compat-{rank}")


def test_the_right_gather_gives_something_else(folder: Path) -> None:
    model = load(folder, "ast", 128).set_pruning(keep_rate=0.7, criterion="intensity")
    with torch.no_grad():
        logits = model(seeded_input(128, RECORDED["seed"])).logits.numpy()
    assert np.abs(logits - OUTPUTS["ast/128/0.7/compat-mean/logits"]).max() > 0.01


@full_size
@pytest.mark.parametrize("frames", FRAMES)
@pytest.mark.parametrize("family", ["ast-base", "audiomae-base"])
def test_full_size_models_agree_too(folder: Path, family: str, frames: int) -> None:
    model = load(folder, family, frames)
    for rate in (1.0, 0.7, 0.35):
        check(model.set_pruning(keep_rate=rate), f"{family}/{frames}/{rate}")
