"""Layouts of other backbones on seeded weights, beside what their public classes return; see reference/README.md."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from seeded import seeded_state, uniform
from torch import Tensor

from spectrim import Frontend, from_pretrained
from spectrim.checkpoints import describe
from spectrim.checkpoints.notices import AmbiguousCheckpoint
from spectrim.errors import CheckpointError, InvalidSetting

HERE = Path(__file__).parents[1] / "reference"
OUTPUTS = np.load(HERE / "backbones.npz")
RECORDED = json.loads((HERE / "backbones.json").read_text())
SEED = RECORDED["seed"]

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def weights(family: str) -> dict[str, Tensor]:
    return seeded_state(RECORDED["shapes"][family], SEED)


def saved(tmp_path: Path, content: dict[str, Tensor]) -> Path:
    torch.save(content, tmp_path / "weights.pt")
    return tmp_path / "weights.pt"


def spectrogram(name: str, frames: int) -> Tensor:
    return uniform(f"{name}-{frames}", (2, frames, 128), SEED)


@pytest.mark.parametrize(
    ("family", "frames", "grid", "settings"),
    [
        ("passt/s10", 1000, (12, 99), {}),
        ("passt/s10", 500, (12, 49), {}),
        ("passt/s12", 1000, (10, 83), {}),
        ("passt/s16", 1000, (8, 62), {}),
        ("ssast/patch", 128, (8, 8), {"stride": 16, "pooling": "mean_normed_patches"}),
        ("ssast/frame", 128, (1, 127), {}),
        ("ssast/frame2", 512, (1, 256), {"stride": (128, 2)}),
        ("ssast/nokd", 256, (8, 16), {"stride": 16}),
    ],
)
def test_logits_are_those_of_the_public_class(
    family: str, frames: int, grid: tuple[int, int], settings: dict, tmp_path: Path
) -> None:
    model = from_pretrained(saved(tmp_path, weights(family)), frames=frames, **settings)
    wanted = OUTPUTS[f"{family}/{frames}/logits"]
    with torch.no_grad():
        found = model(spectrogram(family.split("/")[0], frames)).logits.numpy()
    assert model.config.grid == grid and wanted.std() > 0.3
    assert np.abs(found - wanted).max() < 2e-4


# PaSST


def sweep(samples: int = 24000) -> Tensor:
    """The waveform whose log-mel values were recorded."""
    wave = 0.3 * uniform("wave", (samples,), SEED) * torch.linspace(0, 1, samples) ** 2
    wave[:8000] += 0.2 * torch.sin(torch.arange(8000) / 3.0)
    return wave


def test_passts_front_end_is_that_of_its_code(tmp_path: Path) -> None:
    config = from_pretrained(saved(tmp_path, weights("passt/s10")), frames=100).config
    frontend = Frontend.from_config(config)
    alone = (frontend.log_mel(sweep()[None])[0] + 4.5) / 5.0
    assert np.abs(alone[:, ::4].numpy() - OUTPUTS["passt/mel"]).max() < 1e-4
    found = frontend([sweep()])
    assert np.abs(found.input_values[0, :, ::4].numpy() - OUTPUTS["passt/mel-padded"]).max() < 1e-4
    assert found.num_frames.tolist() == [77]


@pytest.mark.parametrize("samples", [800, 24000, 31500, 31700, 32000, 40000])
def test_passts_frames_are_the_same_in_a_batch_and_in_a_graph(samples: int) -> None:
    """And as of the clip with the zeros that it goes on in."""
    settings = {"features": "centred_log_mel", "padding": "silence", "mean": -4.5, "std": 2.5}
    frontend = Frontend(max_length=100, sampling_rate=32000, **settings)
    wave = 0.3 * uniform("clip", (samples,), SEED)
    rows = torch.full((2, 32000), 0.5)
    rows[:, : min(samples, 32000)] = wave[:32000]
    found = frontend([wave, sweep()]).input_values[0]
    assert torch.equal(frontend.filled(rows, torch.tensor([samples, samples])).input_values[0], found)
    whole = torch.nn.functional.pad(wave[:32000], (0, max(0, 32000 - samples)))
    torch.testing.assert_close((frontend.log_mel(whole[None])[0] + 4.5) / 5.0, found, atol=1e-5, rtol=0)


def test_what_passts_file_says_of_its_model(tmp_path: Path) -> None:
    told = describe(saved(tmp_path, weights("passt/s10")))
    front_end = ("sampling_rate", "features", "mean", "std", "padding")
    assert [told[name] for name in front_end] == [32000, "centred_log_mel", -4.5, 2.5, "silence"]
    assert (told["layout"], told["backbone"], told["grid"], told["max_length"]) == ("passt", "passt", (12, 99), 1000)
    model = from_pretrained(saved(tmp_path, weights("passt/s10")), labels=["a", "b"], keep_rate=0.5, prune_at=[1])
    assert (model.num_labels, model.config.resolved_criterion) == (2, "cls_attention")


def of_size(frequencies: int, times: int) -> dict[str, Tensor]:
    """PaSST's weights with other tables of positions."""
    state = weights("passt/s10")
    state["freq_new_pos_embed"] = uniform("f", (1, 128, frequencies, 1), SEED)
    state["time_new_pos_embed"] = uniform("t", (1, 128, 1, times), SEED)
    return state


def test_a_passt_of_another_length_is_refused_until_its_stride_is_known(tmp_path: Path) -> None:
    file = saved(tmp_path, of_size(12, 200))
    with pytest.raises(CheckpointError, match=r"stride=10 \(2000 to 2009 frames\).*every 5 or 3\.1 ms"):
        describe(file)
    model = from_pretrained(file, frames=2000)
    assert (model.config.grid, model.config.time_stride) == ((12, 199), 10), "20 s: the last place stays unused"
    whole = from_pretrained(file, stride=10)
    assert (whole.config.grid, whole.config.max_length) == ((12, 200), 2006)
    first = whole.embeddings.time_positions[..., :199]
    assert torch.equal(model.embeddings.time_positions, first)
    assert describe(saved(tmp_path, of_size(9, 100)), frames=1400)["frequency_stride"] == 14
    with pytest.raises(CheckpointError, match=r"stride=14 .* or stride=13"):
        describe(tmp_path / "weights.pt")
    with pytest.raises(InvalidSetting, match="one of 9 frequencies: 14, 13"):
        describe(tmp_path / "weights.pt", stride=10)
    published = saved(tmp_path, of_size(8, 62))
    assert describe(published)["time_stride"] == describe(published, frames=1000)["time_stride"] == 16
    with pytest.raises(CheckpointError, match=r"published for stride 16 and 10 s: stride=16 .* or stride=15 \(930 to"):
        describe(published, frames=935)
    assert describe(published, frames=935, stride=15)["time_stride"] == 15
    with pytest.raises(CheckpointError, match="13 positions of frequency fit no stride"):
        describe(saved(tmp_path, of_size(13, 99)))


def test_a_longer_passt_stretches_its_times_and_no_method_for_tables_is_taken(tmp_path: Path) -> None:
    file = saved(tmp_path, weights("passt/s16"))
    short = from_pretrained(file)
    times = short.embeddings.time_positions
    longer = from_pretrained(file, frames=2000).embeddings.time_positions
    assert longer.shape[-1] == 125 and torch.equal(longer[..., 0], times[..., 0])
    middle = from_pretrained(file, frames=500, positions="middle").embeddings.time_positions
    assert torch.equal(middle, times[..., 31 - 15 : 31 + 16])
    with pytest.raises(InvalidSetting, match="with separate positions"):
        from_pretrained(file, frames=500, positions="reference_compat")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dist_token": None}, r"Missing: dist_token"),
        ({"pre_logits.fc.weight": (128, 128)}, r"Unexpected: pre_logits\.fc\.weight"),
        ({"time_new_pos_embed": (1, 128, 99)}, "are of shapes"),
        ({"new_pos_embed": (1, 1, 128)}, "extra_positions is"),
    ],
)
def test_a_passt_that_is_another_model_is_refused(change: dict, message: str, tmp_path: Path) -> None:
    state = weights("passt/s10")
    for name, shape in change.items():
        state.pop(name, None)
        state |= {} if shape is None else {name: torch.zeros(shape)}
    with pytest.raises(CheckpointError, match=message):
        from_pretrained(saved(tmp_path, state))


# SSAST


def pretrained(kind: str, mels: int = 128, frames: int = 256) -> dict[str, Tensor]:
    """As SSAST saves what it pre-trained."""
    sizes = {"module.p_input_fdim": torch.tensor(mels), "module.p_input_tdim": torch.tensor(frames)}
    return weights(f"ssast/{kind}-pretrained") | sizes


@pytest.mark.parametrize(("kind", "frames"), [("patch", 128), ("frame2", 512)])
def test_a_pretrained_ssast_starts_as_its_code_starts_it(kind: str, frames: int, tmp_path: Path) -> None:
    """The middle of the positions for shorter inputs, and stretched ones for longer."""
    file = saved(tmp_path, pretrained(kind))
    told = describe(file)
    assert (told["layout"], told["labels"], told["max_length"]) == ("ssast-pretrained", 0, 256)
    assert told["grid"] == {"patch": (8, 16), "frame2": (1, 128)}[kind]
    with pytest.raises(CheckpointError, match="an encoder without a head"):
        from_pretrained(file)
    model = from_pretrained(file, labels=["a", "b"], frames=frames)
    found = model.embeddings.position_table.numpy(force=True)[:, ::7, ::16]
    assert np.abs(found - OUTPUTS[f"ssast/{kind}/{frames}/positions"]).max() < 1e-6
    assert (model.config.resolved_criterion, model.config.pooling) == ("mean_attention", "mean_normed_patches")


def test_a_finetuned_ssast_is_told_or_refused(tmp_path: Path) -> None:
    file = saved(tmp_path, weights("ssast/frame"))
    with pytest.raises(
        CheckpointError, match=r"stride=\(128, 2\) with 254 to 255 frames; stride=\(128, 1\) with 128 to"
    ):
        describe(file)
    assert describe(file, frames=254)["time_stride"] == 2
    with pytest.raises(InvalidSetting, match="what makes 127 patches"):
        describe(file, stride=(64, 1))
    published = weights("ssast/frame")
    for name in ("weight", "bias"):
        published[f"module.mlp_head.1.{name}"] = published[f"module.mlp_head.1.{name}"].repeat_interleave(4, 0)[:35]
    told = describe(saved(tmp_path, published))
    assert (told["layout"], told["max_length"], told["labels"]) == ("ssast-finetuned", 128, 35)
    assert told["label_names"][0] == "backward"
    with pytest.raises(CheckpointError, match="127 patches fit several"):
        describe(tmp_path / "weights.pt", frames=254)


def test_an_official_ast_that_might_be_an_ssast_says_so(tmp_path: Path) -> None:
    file = saved(tmp_path, weights("ssast/patch"))
    with pytest.warns(AmbiguousCheckpoint, match="a fine-tuned SSAST has the same names"):
        ast = from_pretrained(file, stride=16)
    assert (ast.config.backbone, ast.config.pooling) == ("ast", "extra_tokens")
    with warnings.catch_warnings():
        warnings.simplefilter("error", AmbiguousCheckpoint)
        from_pretrained(file, stride=16, pooling="extra_tokens")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (pretrained("patch", frames=512), "128 positions are not those of patches of 16×16"),
        (pretrained("patch", mels=0), "p_input_fdim is no length"),
        (pretrained("patch") | {"module.surprise": torch.ones(1)}, "Unexpected: surprise"),
        ({k: v for k, v in pretrained("patch").items() if "dist_token" not in k}, "128|129"),
    ],
)
def test_an_ssast_that_is_another_model_is_refused(changed: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=message):
        from_pretrained(saved(tmp_path, changed), labels=["a"])
