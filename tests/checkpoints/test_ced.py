"""CED on seeded weights, beside what its public classes return; see reference/README.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from checkpoint_files import ced, save
from seeded import uniform
from torch import Tensor

from spectrim import Frontend, Pruning, from_pretrained
from spectrim.backbones import ced_tiny
from spectrim.checkpoints import describe
from spectrim.checkpoints.labels import audioset_labels
from spectrim.errors import CheckpointError, InvalidSetting

RECORDED = np.load(Path(__file__).parents[1] / "reference" / "ced.npz")
SEED = 11

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights that were recorded."""
    return save(tmp_path_factory.mktemp("ced"), ced(labels=10, width=128, depth=4), "ced.pt")


def decibels(frames: int) -> Tensor:
    return uniform(f"ced-{frames}", (2, frames, 64), SEED)


@pytest.mark.parametrize(("frames", "grid"), [(101, (4, 6)), (1001, (4, 62))])
def test_logits_are_those_of_the_public_class_dense_and_pruned(frames: int, grid: tuple[int, int], file: Path) -> None:
    model = from_pretrained(file, frames=frames)
    point = Pruning(0.5, (1, 2))
    with torch.no_grad():
        dense = model(decibels(frames)).logits.numpy()
        pruned = model(decibels(frames), pruning=point, output_token_trace=True)
    wanted = RECORDED[f"{frames}/logits"], RECORDED[f"{frames}/pruned/logits"]
    assert model.config.grid == grid and wanted[0].std() > 0.3 and np.abs(wanted[0] - wanted[1]).max() > 0.01
    assert np.abs(dense - wanted[0]).max() < 2e-4
    assert np.abs(pruned.logits.numpy() - wanted[1]).max() < 2e-4
    kept = torch.stack(pruned.token_trace.kept, dim=1).flatten(2).numpy()
    assert np.array_equal(np.packbits(kept, axis=-1), RECORDED[f"{frames}/pruned/kept"])


def sweep() -> Tensor:
    """The waveform whose values were recorded."""
    wave = 0.3 * uniform("wave", (24000,), SEED) * torch.linspace(0, 1, 24000) ** 2
    wave[:8000] += 0.2 * torch.sin(torch.arange(8000) / 3.0)
    return wave


def half_silent() -> Tensor:
    """Loud, then digital silence: the floor is 120 dB below the loudest value, and not at -100 dB."""
    wave = uniform("loud", (16000,), SEED)
    wave[8000:] = 0.0
    return wave


def front_end(frames: int) -> Frontend:
    return Frontend.from_config(ced_tiny(max_length=frames))


@pytest.mark.parametrize(
    ("name", "clip", "frames"), [("wave", sweep(), 151), ("padded", sweep(), 201), ("loud", half_silent(), 101)]
)
def test_the_front_end_is_that_of_its_code(name: str, clip: Tensor, frames: int) -> None:
    found = front_end(frames)([clip])
    wanted = RECORDED[f"front_end/{name}"]
    assert found.input_values.shape == (1, frames, 64) and wanted.shape[0] == frames
    difference = np.abs(found.input_values[0, :, ::4].numpy() - wanted)
    assert difference.max() < 1e-4, "decibels"
    if name == "loud":
        assert -100 < wanted.min() == pytest.approx(wanted.max() - 120, abs=2), "of every 4th bin"


@pytest.mark.parametrize("samples", [600, 15700, 15900, 16000, 20000])
def test_frames_are_the_same_in_a_batch_and_in_a_graph(samples: int) -> None:
    """And as of the clip with the zeros that it goes on in."""
    frontend = front_end(101)
    wave = 0.3 * uniform("clip", (samples,), SEED)
    rows = torch.full((2, frontend.samples), 0.5)
    rows[:, : min(samples, 16000)] = wave[:16000]
    found = frontend([wave, sweep()]).input_values[0]
    assert frontend.samples == 16000
    assert torch.equal(frontend.filled(rows, torch.tensor([samples, samples])).input_values[0], found)
    whole = torch.nn.functional.pad(wave[:16000], (0, max(0, 16000 - samples)))
    torch.testing.assert_close(frontend([whole]).input_values[0], found, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("name", "frames"), [("second", 101), ("ten", None)])
def test_a_waveform_gives_the_logits_of_the_public_class(name: str, frames: int | None, file: Path) -> None:
    long = 0.2 * uniform("long", (160000,), SEED) * (1 + torch.sin(torch.arange(160000) / 5000.0))
    model = from_pretrained(file, frames=frames)
    frontend = Frontend.from_config(model.config)
    with torch.no_grad():
        found = model(frontend([sweep()[:16000] if name == "second" else long]).input_values).logits.numpy()
    assert np.abs(found - RECORDED[f"waveform/{name}/logits"]).max() < 2e-4


def test_what_its_file_says_of_its_model(file: Path) -> None:
    told = describe(file)
    front = ("sampling_rate", "features", "num_mel_bins", "padding", "mean", "std")
    assert [told[name] for name in front] == [16000, "mel_decibels", 64, "silence", 0.0, pytest.approx(0.115129255)]
    assert (told["layout"], told["backbone"], told["problem_type"]) == ("ced", "ced", "multi_label_classification")
    assert (told["grid"], told["max_length"], told["num_attention_heads"]) == ((4, 62), 1001, 2), "10 s"
    assert from_pretrained(file).config.resolved_criterion == "mean_attention"
    whole = from_pretrained(file, frames=1012)
    assert whole.config.grid == (4, 63)
    assert torch.equal(from_pretrained(file).embeddings.time_positions, whole.embeddings.time_positions[..., :62])


def test_labels_and_lengths_of_others(tmp_path: Path) -> None:
    audioset = from_pretrained(save(tmp_path, ced(labels=527, times=31)))
    assert (audioset.config.grid, audioset.config.max_length) == ((4, 31), 496)
    assert audioset.config.id2label[0] == audioset_labels()[0] == "Speech" and audioset.config.multi_label
    fresh = from_pretrained(tmp_path / "weights.pth", labels=["a", "b"], frames=501)
    assert fresh.config.grid == (4, 31) and not fresh.config.multi_label


def test_a_criterion_that_asks_cls_is_refused_with_those_that_do_not(file: Path) -> None:
    refusal = r"'cls_attention'; allowed: .*mean_attention.*no \[CLS\]"
    with pytest.raises(InvalidSetting, match=refusal):
        from_pretrained(file, criterion="cls_attention", keep_rate=0.5, prune_at=[1])
    model = from_pretrained(file, frames=101, keep_rate=0.5, prune_at=[1])
    with pytest.raises(InvalidSetting, match=refusal):
        model.set_pruning(criterion="cls_attention")
    with pytest.raises(InvalidSetting, match=refusal):
        model(decibels(101), pruning=Pruning(0.5, (1,), "cls_attention"))
    with pytest.raises(InvalidSetting, match=r"no \[CLS\]"):
        model(decibels(101), pruning=Pruning(0.5, (1,), "cls_head_median"))
    for criterion in ("value_norm", "intensity", "random"):
        model(decibels(101), pruning=Pruning(0.5, (1,), criterion))


# The release on the hub


def release(folder: Path, extractor: dict[str, Any] | None = None, **fields: Any) -> Path:
    """The recorded weights as ``CedForAudioClassification`` saves them."""
    state = {
        ("" if name.startswith("outputlayer") else "encoder.") + name.replace("init_bn.1", "init_bn"): value
        for name, value in ced(labels=10, width=128, depth=4).items()
    }
    folder.mkdir(exist_ok=True)
    safetensors.torch.save_file(state, folder / "model.safetensors")
    sizes = {"embed_dim": 128, "depth": 4, "num_heads": 2, "outputdim": 10, "patch_stride": 16, "target_length": 1012}
    front = {"n_mels": 64, "n_fft": 512, "hop_size": 160, "win_size": 512, "f_min": 0, "f_max": 8000, "center": True}
    config = {"model_type": "ced", "pooling": "mean", **sizes, **front, **fields}
    (folder / "config.json").write_text(json.dumps(config))
    if extractor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(extractor))
    return folder


def test_the_release_on_the_hub_is_the_same_model(tmp_path: Path, file: Path) -> None:
    folder = release(tmp_path / "ced", {"feature_size": 64, "f_max": None, "hop_size": 160, "sampling_rate": 16000})
    ours, theirs = from_pretrained(folder), from_pretrained(file)
    for name, weight in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], weight), name
    assert ours.config.to_dict() == theirs.config.to_dict()
    four = from_pretrained(release(tmp_path / "ced", num_heads=4, pooling="logit"))
    assert (four.config.num_attention_heads, four.config.multi_label) == (4, False)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pooling": "dm"}, "its pooling is 'dm'; only mean and logit"),
        ({"hop_size": 80}, "front end is another one: hop_size is 80"),
        ({"extractor": {"feature_size": 128}}, "front end is another one: feature_size is 128"),
        ({"patch_stride": 10}, "whose patches overlap are not understood"),
        ({"num_heads": 3}, "num_attention_heads=3"),
    ],
)
def test_a_release_that_is_another_model_is_refused(fields: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        describe(release(tmp_path / "ced", **fields))


def test_the_front_end_inside_the_authors_file_is_compared(tmp_path: Path) -> None:
    constants = {
        "front_end.0.spectrogram.window": torch.from_numpy(RECORDED["front_end/window"]),
        "front_end.0.mel_scale.fb": torch.from_numpy(RECORDED["front_end/filters"]),
    }
    state = ced() | constants
    assert describe(save(tmp_path, state))["labels"] == 5
    for name, value in constants.items():
        for other in (value * 1.01, value[:-1]):
            with pytest.raises(CheckpointError, match=f"another one: {name} differs"):
                describe(save(tmp_path, state | {name: other}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cls_token": (1, 1, 64)}, "Unexpected: cls_token"),
        ({"freq_pos_embed": (1, 64, 8, 1)}, "8 positions of frequency are not those of 64 mel bins"),
        ({"time_pos_embed": (1, 64, 63)}, "are of shapes"),
        ({"init_bn.1.running_var": None}, r"Missing: init_bn\.1\.running_var"),
    ],
)
def test_a_file_that_is_another_model_is_refused(change: dict, message: str, tmp_path: Path) -> None:
    state = ced()
    for name, shape in change.items():
        state.pop(name, None)
        state |= {} if shape is None else {name: torch.zeros(shape)}
    with pytest.raises(CheckpointError, match=message):
        from_pretrained(save(tmp_path, state))
    with pytest.raises(InvalidSetting, match="16: the patches of CED do not overlap"):
        describe(save(tmp_path, ced()), stride=10)
