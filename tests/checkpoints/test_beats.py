"""BEATs's files on seeded weights, beside what its public class returns; see reference/README.md."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kaldi_native_fbank
import numpy as np
import pytest
import torch
from seeded import seeded_state, uniform
from torch import Tensor, nn

from spectrim import Frontend, Pruning, from_pretrained, prune
from spectrim.assets import audioset_classes
from spectrim.checkpoints import describe
from spectrim.errors import CheckpointError, InvalidSetting
from spectrim.network.transformer import AudioTransformer

HERE = Path(__file__).parents[1] / "reference"
OUTPUTS = np.load(HERE / "beats.npz")
RECORDED = json.loads((HERE / "beats.json").read_text())
SEED = RECORDED["seed"]
RELATIVE = "self_attn.relative_attention_bias.weight"

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def weights(kind: str = "deep", **changed: tuple[int, ...]) -> dict[str, Tensor]:
    """All weights of a file: the bias by distance stands in every block, and is the same."""
    shapes = {name: changed.get(name.replace(".", "_"), shape) for name, shape in RECORDED["shapes"][kind].items()}
    state = seeded_state(shapes, SEED)
    depth = RECORDED["cfg"][kind]["encoder_layers"]
    return state | {f"encoder.layers.{n}.{RELATIVE}": state[f"encoder.layers.0.{RELATIVE}"] for n in range(1, depth)}


def content(kind: str = "deep", **beside: Any) -> dict[str, Any]:
    """A file as its authors write it."""
    return {"cfg": RECORDED["cfg"][kind], "model": weights(kind), **beside}


def pretrained() -> dict[str, Any]:
    state = {name: value for name, value in weights().items() if not name.startswith("predictor")}
    return content(model=state)


def saved(tmp_path: Path, what: dict[str, Any]) -> Path:
    torch.save(what, tmp_path / "beats.pt")
    return tmp_path / "beats.pt"


def spectrogram(frames: int) -> Tensor:
    return uniform(f"beats-{frames}", (2, frames, 128), SEED)


@torch.no_grad()
def logits(model: AudioTransformer, frames: int, **options: Any) -> np.ndarray:
    return model(spectrogram(frames), **options).logits.numpy()


@pytest.fixture(scope="module")
def ten_seconds(tmp_path_factory: pytest.TempPathFactory) -> AudioTransformer:
    return from_pretrained(saved(tmp_path_factory.mktemp("beats"), content()))


@pytest.mark.parametrize("kind", ["deep", "plain"])
def test_logits_of_one_second_are_those_of_the_public_class(kind: str, tmp_path: Path) -> None:
    """Deep-norm with a patch embedding of 64 values, and neither, with an odd kernel and few buckets."""
    model = from_pretrained(saved(tmp_path, content(kind)), frames=98)
    wanted = OUTPUTS[f"{kind}/98/logits"]
    assert model.config.grid == (8, 6) and wanted.std() > 0.1
    assert np.abs(logits(model, 98) - wanted).max() < 2e-4


def test_logits_of_ten_seconds_are_those_of_the_public_class(ten_seconds: AudioTransformer) -> None:
    assert (ten_seconds.config.grid, ten_seconds.config.max_length) == ((8, 62), 998)
    assert np.abs(logits(ten_seconds, 998) - OUTPUTS["deep/998/logits"]).max() < 2e-4


@pytest.mark.parametrize("rate", [0.7, 0.35])
@pytest.mark.parametrize("frames", [98, 998])
def test_pruned_it_keeps_and_answers_as_the_public_modules_on_what_is_left(
    frames: int, rate: float, ten_seconds: AudioTransformer, tmp_path: Path
) -> None:
    """The bias between two patches that are left is that of the places they had."""
    model = ten_seconds if frames == 998 else from_pretrained(saved(tmp_path, content()), frames=frames)
    pruning = Pruning(rate, (1, 3))
    assert model.config.criterion_of(pruning) == "mean_attention"
    with torch.no_grad():
        out = model(spectrogram(frames), pruning=pruning, output_token_trace=True)
    kept = np.stack([out.token_trace.kept[block].flatten(1).numpy() for block in (1, 3)], axis=1)
    recorded = np.unpackbits(OUTPUTS[f"deep/{frames}/{rate}/kept"], axis=-1, count=kept.shape[-1]).astype(bool)
    assert np.array_equal(kept, recorded)
    assert np.abs(out.logits.numpy() - OUTPUTS[f"deep/{frames}/{rate}/logits"]).max() < 2e-4


def test_padding_is_as_masked_by_the_public_class(ten_seconds: AudioTransformer) -> None:
    """Nobody attends to it, no mean counts it, and the convolution for positions takes it to be 0."""
    wanted = OUTPUTS["deep/998/padded/logits"]
    found = logits(ten_seconds, 998, num_frames=torch.tensor([998, 512]), pruning=Pruning(at=(), drop_padding=True))
    assert np.abs(wanted - OUTPUTS["deep/998/logits"])[1].max() > 1e-2
    assert np.abs(found - wanted).max() < 2e-4


def sweep() -> Tensor:
    """The waveform whose filterbanks were recorded."""
    wave = 0.3 * uniform("wave", (16000,), SEED) * torch.linspace(0, 1, 16000) ** 2
    wave[:6000] += 0.2 * torch.sin(torch.arange(6000) / 3.0)
    return wave


def test_the_front_end_is_that_of_its_code(ten_seconds: AudioTransformer) -> None:
    config = ten_seconds.config
    settings = (config.features, config.mean, config.std, config.padding, config.sampling_rate)
    assert settings == ("povey_log_mel", 15.41663, 6.55582, "silence", 16000)
    frontend = Frontend.from_config(config)
    alone = (frontend.log_mel(sweep()[None])[0] - config.mean) / (2 * config.std)
    assert np.abs(alone[:, ::4].numpy() - OUTPUTS["front-end"]).max() < 1e-4
    short = frontend([sweep()[:12000]]).input_values[0, :98, ::4].numpy()
    assert np.abs(short - OUTPUTS["front-end-padded"]).max() < 1e-4


def test_the_front_end_is_kaldis_of_16_bit_samples() -> None:
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = 128
    bank = kaldi_native_fbank.OnlineFbank(options)
    bank.accept_waveform(16000, (sweep() * 2**15).tolist())
    bank.input_finished()
    wanted = np.stack([bank.get_frame(index) for index in range(bank.num_frames_ready)])
    frontend = Frontend(max_length=98, features="povey_log_mel", mean=0.0, std=0.5)
    found = frontend.log_mel(sweep()[None])[0].numpy()
    audible = wanted > wanted.max(axis=1, keepdims=True) - 80 * np.log(10) / 10
    assert found.shape == wanted.shape and np.abs(found - wanted)[audible].max() < 1e-3


# What a file says


def test_labels_are_in_the_order_of_the_file_and_not_of_audioset(tmp_path: Path) -> None:
    names = audioset_classes()
    codes = list(names)[::-1]
    head = {"predictor_weight": (527, 96), "predictor_bias": (527,)}
    whole = content(model=weights(**head), label_dict=dict(enumerate(codes)))
    told = describe(saved(tmp_path, whole))
    assert (told["layout"], told["labels"], told["problem_type"]) == ("beats", 527, "multi_label_classification")
    assert told["label_names"] == [names[code] for code in codes]
    del whole["label_dict"]
    assert describe(saved(tmp_path, whole))["label_names"][:2] == ["LABEL_0", "LABEL_1"]
    with pytest.raises(CheckpointError, match="its label_dict names 3 labels, but the head has 527"):
        describe(saved(tmp_path, {**whole, "label_dict": {0: "a", 1: "b", 2: "c"}}))
    for odd in ({"/m/09x0r": 0}, {torch.ones(2): "a"}):
        with pytest.raises(CheckpointError, match="its label_dict must have numbers as keys"):
            describe(saved(tmp_path, {**whole, "label_dict": odd}))


def test_a_pretrained_file_gets_a_head(tmp_path: Path) -> None:
    file = saved(tmp_path, pretrained())
    assert (describe(file)["layout"], describe(file)["labels"]) == ("beats-pretrained", 0)
    with pytest.raises(CheckpointError, match="an encoder without a head"):
        from_pretrained(file)
    model = from_pretrained(file, labels=["a", "b"], frames=98, keep_rate=0.5, prune_at=[2])
    assert (model.num_labels, model.config.problem_type) == (2, "single_label_classification")
    assert (model.config.backbone, model.config.pruning.at) == ("beats", (2,))
    with pytest.raises(InvalidSetting, match="'auto' for a model that has no table"):
        from_pretrained(file, labels=["a", "b"], frames=98, positions="interpolate")


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("layer_norm_first", True, "its cfg says layer_norm_first=True; only False is understood"),
        ("gru_rel_pos", False, "only True is understood"),
        ("activation_fn", "glu", "only 'gelu' is understood"),
        ("encoder_layers", 12, "has 4 blocks where its cfg says 12"),
        ("encoder_attention_heads", 6, "gate_scale is"),
        ("max_distance", 3, "relative_distance"),
        ("max_distance", "far", "relative_distance"),
        ("max_distance", 10**400, "relative_distance"),
        ("deep_norm", "yes", "deep_norm"),
        ("deep_norm", torch.ones(3), "its cfg has a Tensor as deep_norm"),
        ("encoder_layers", None, "its cfg has a NoneType as encoder_layers"),
    ],
)
def test_settings_of_a_model_that_is_not_here_are_refused(
    setting: str, value: object, message: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message):
        from_pretrained(saved(tmp_path, content(cfg={**RECORDED["cfg"]["deep"], setting: value})))


def test_what_no_shape_tells_is_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="without its settings, which say how residuals are weighed"):
        from_pretrained(saved(tmp_path, weights()))
    other = weights()
    other[f"encoder.layers.2.{RELATIVE}"] = other[f"encoder.layers.2.{RELATIVE}"] + 1.0
    with pytest.raises(CheckpointError, match="block 2 has another bias by distance"):
        from_pretrained(saved(tmp_path, content(model=other)))
    far = weights() | {"encoder.layers.999999999999.x": torch.ones(1)}
    with pytest.raises(CheckpointError, match="num_hidden_layers"):
        from_pretrained(saved(tmp_path, content(model=far, cfg={**RECORDED["cfg"]["deep"], "encoder_layers": 10**12})))
    tokenizer = pretrained()["model"] | {"quantize.embedding.weight": torch.ones(4, 4)}
    with pytest.raises(CheckpointError, match="is a tokenizer of BEATs"):
        from_pretrained(saved(tmp_path, content(model=tokenizer)), labels=["a"])


def test_no_weight_may_be_renamed_or_of_another_shape(tmp_path: Path) -> None:
    state = weights("plain")
    shared = f"encoder.layers.1.{RELATIVE}"
    for name in state:
        if name.startswith("encoder.layers.1.") and name != shared:
            continue
        without = {key: value for key, value in state.items() if key != name}
        renamed = {**without, f"{name}_old": state[name]}
        longer = {**without, name: torch.cat([state[name]] * 2, dim=-1)}
        for broken in (renamed, longer):
            with pytest.raises(CheckpointError):
                from_pretrained(saved(tmp_path, content("plain", model=broken)))
    from_pretrained(saved(tmp_path, content("plain", model={k: v for k, v in state.items() if k != shared})))


def test_a_damaged_weight_norm_is_refused(tmp_path: Path) -> None:
    state = weights("plain")
    state["encoder.pos_conv.0.weight_v"][:, :, 7] = 0.0
    with pytest.raises(CheckpointError, match=r"filters\.weight has a direction of length 0"):
        from_pretrained(saved(tmp_path, content("plain", model=state)))


def test_the_newer_names_of_weight_normalisation(tmp_path: Path) -> None:
    state, place = weights("plain"), "encoder.pos_conv.0"
    for old, new in (("g", 0), ("v", 1)):
        state[f"{place}.parametrizations.weight.original{new}"] = state.pop(f"{place}.weight_{old}")
    model = from_pretrained(saved(tmp_path, content("plain", model=state)), frames=98)
    assert np.abs(logits(model, 98) - OUTPUTS["plain/98/logits"]).max() < 2e-4


# What it can do


class InMemory(nn.Module):
    """A module with BEATs's weights and settings."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.cfg = SimpleNamespace(**RECORDED["cfg"][kind])
        self.held = weights(kind)
        self.one = nn.Parameter(torch.zeros(1))

    def state_dict(self, **_: Any) -> dict[str, Tensor]:
        return self.held


def test_a_module_in_memory_is_pruned() -> None:
    model = prune(InMemory("plain"), keep_rate=1.0, prune_at=[1])
    assert model.config.max_length == 998 and model.config.residual_scale == 1.0


def test_scores_and_reducers_that_do_not_fit_are_refused_with_those_that_do(ten_seconds: AudioTransformer) -> None:
    for criterion in ("cls_attention", "cls_weighted_norm", "cls_head_median"):
        with pytest.raises(InvalidSetting, match=r"mean_attention.*no \[CLS\] whose attention could rank"):
            ten_seconds.config.check_pruning(Pruning(0.5, (1,), criterion))
    for reducer in ("fuse", "merge", "pitome", "cluster"):
        with pytest.raises(InvalidSetting, match=r"drop.*dynamicvit.*has no place"):
            ten_seconds.config.check_pruning(Pruning(0.5, (1,), reducer=reducer))
