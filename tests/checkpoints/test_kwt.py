"""The Keyword Transformer: its layout on small seeded weights, and the published file where it is at hand."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("flatbuffers", reason="comes with ONNX Runtime")

from seeded import uniform
from tflite_files import COEFFICIENTS, FRAMES, WIDTH, kwt_constants, write_tflite

from spectrim import Frontend, SpectrimFeatureExtractor, from_pretrained, macs
from spectrim.audio.files import read
from spectrim.checkpoints.kwt import LABELS
from spectrim.checkpoints.loading import describe
from spectrim.errors import CheckpointError

DATA = Path(os.environ.get("SPECTRIM_DATA", Path(__file__).parents[3] / "shared/data"))
PUBLISHED = DATA / "kwt-1/kwt1.tflite"
RECORDED = Path(__file__).parents[1] / "reference/kwt.npz"
needs_file = pytest.mark.skipif(not PUBLISHED.is_file(), reason=f"{PUBLISHED} is not there")

# Written out


def dense(constants: dict, name: str, rows: np.ndarray) -> np.ndarray:
    bias = constants.get(f"{name}/bias")
    return rows @ constants[f"{name}/Tensordot/MatMul"].T.astype(np.float64) + (0.0 if bias is None else bias)


def norm(constants: dict, name: str, rows: np.ndarray) -> np.ndarray:
    centred = rows - rows.mean(axis=1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + 1e-6)
    return scaled * constants[f"{name}/gamma"] + constants[f"{name}/beta"]


def logits(constants: dict, coefficients: np.ndarray, depth: int, heads: int) -> np.ndarray:
    """(12,) of one clip (frames, coefficients): the post-norm encoder of Berg et al. (2021), in float64."""
    rows = dense(constants, "kws_transformer/dense", coefficients)
    rows = np.concatenate([constants["class_emb"][0], rows]) + constants["pos_emb"][0]
    for block in range(depth):
        end, number = f"_{block}" if block else "", 6 * block
        inside = f"kws_transformer/transformer_block{end}"
        attention, mlp = f"{inside}/multi_head_self_attention{end}", f"{inside}/sequential{end}"
        query, key, value = (dense(constants, f"{attention}/dense_{number + part}", rows) for part in (1, 2, 3))
        mixed = []
        for part in np.split(np.arange(rows.shape[1]), heads):
            powers = np.exp(query[:, part] @ key[:, part].T / np.sqrt(len(part)))
            mixed.append(powers / powers.sum(axis=1, keepdims=True) @ value[:, part])
        rows = rows + dense(constants, f"{attention}/dense_{number + 4}", np.concatenate(mixed, axis=1))
        rows = norm(constants, f"{inside}/layer_normalization" + (f"_{2 * block}" if block else ""), rows)
        hidden = dense(constants, f"{mlp}/dense_{number + 5}", rows)
        hidden = 0.5 * hidden * (1 + np.tanh(np.sqrt(2 / np.pi) * (hidden + 0.044715 * hidden**3)))
        rows = rows + dense(constants, f"{mlp}/dense_{number + 6}", hidden)
        rows = norm(constants, f"{inside}/layer_normalization_{2 * block + 1}", rows)
    head = f"sequential_{depth}/dense_{6 * depth + 1}"
    return rows[0] @ constants[f"{head}/MatMul"].T + constants[f"{head}/bias"]


@pytest.mark.parametrize(("depth", "heads"), [(2, 1), (3, 4)])
def test_logits_are_those_of_the_written_out_arithmetic(tmp_path: Path, depth: int, heads: int) -> None:
    constants = kwt_constants(depth, heads=heads)
    model = from_pretrained(write_tflite(tmp_path / "kwt.tflite", constants)).double()
    clips = 3.0 * uniform("clips", (2, FRAMES, COEFFICIENTS), 7).double()
    with torch.no_grad():
        found = model(clips).logits.numpy()
    wanted = np.stack([logits(constants, clip.numpy(), depth, heads) for clip in clips])
    assert wanted.std() > 0.3
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_what_the_file_says_of_its_model(tmp_path: Path) -> None:
    file = write_tflite(tmp_path / "kwt.tflite", kwt_constants(4, heads=2))
    told = describe(file)
    sizes = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "max_length", "grid")
    assert [told[name] for name in sizes] == [WIDTH, 4, 2, 2 * WIDTH, FRAMES, (1, FRAMES)]
    assert (told["layout"], told["features"], told["padding"]) == ("kwt-tflite", "mfcc", "silence")
    assert (told["patch_size"], told["prune_at"]) == ([40, 1], [])
    assert told["parameters"] == sum(weight.numel() for weight in from_pretrained(file).parameters())
    config = from_pretrained(file).config
    assert (config.layer_norm_eps, config.resolved_criterion) == (1e-6, "cls_attention")


def test_labels(tmp_path: Path) -> None:
    file = write_tflite(tmp_path / "kwt.tflite", kwt_constants())
    assert tuple(describe(file)["label_names"]) == LABELS
    words = [f"word {number}" for number in range(12)]
    (tmp_path / "labels.txt").write_text("\n".join(words) + "\n", encoding="utf-16")
    assert describe(file)["label_names"] == describe(tmp_path)["label_names"] == words
    (tmp_path / "labels.txt").write_text("yes\nyes\n")
    with pytest.raises(CheckpointError, match=r"labels\.txt: a label is there twice"):
        describe(file)
    (tmp_path / "labels.txt").unlink()
    other = write_tflite(tmp_path / "other.tflite", kwt_constants(labels=3))
    assert describe(other)["label_names"] == ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert from_pretrained(other, labels=["a", "b"]).num_labels == 2


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    model = from_pretrained(write_tflite(tmp_path / "kwt.tflite", kwt_constants(4)), keep_rate=0.5, prune_at=[2])
    model.save_pretrained(tmp_path / "saved")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = from_pretrained(tmp_path / "saved")
    assert again.config.to_dict() == {**model.config.to_dict(), "architectures": ["AudioTransformer"]}
    clips = uniform("clips", (2, FRAMES, COEFFICIENTS), 7)
    with torch.no_grad():
        assert torch.equal(again(clips).logits, model(clips).logits)
    waves = [0.1 * uniform("wave", (4000,), 7)]
    extracted = SpectrimFeatureExtractor.from_pretrained(tmp_path / "saved")(waves[0].numpy(), 16000, "pt")
    features = Frontend.from_config(model.config)(waves)
    assert torch.equal(extracted["input_values"], features.input_values)
    assert extracted["num_frames"].tolist() == features.num_frames.tolist() == [25]


# Refused


def changed(name: str, change) -> dict[str, np.ndarray]:
    constants = kwt_constants()
    return {**constants, name: change(constants[name]).astype(constants[name].dtype)}


def without(part: str) -> dict[str, np.ndarray]:
    return {name: value for name, value in kwt_constants().items() if part not in name}


def pre_norm() -> dict[str, np.ndarray]:
    """The same names and shapes, each norm before its branch."""
    constants = kwt_constants()
    gamma = "kws_transformer/transformer_block_1/layer_normalization_2/gamma"
    names = [name for name in constants if name != gamma]
    place = names.index("kws_transformer/transformer_block_1/multi_head_self_attention_1/dense_7/Tensordot/MatMul")
    return {name: constants[name] for name in [*names[:place], gamma, *names[place:]]}


FRONT, BLOCK = "speech_features", "kws_transformer/transformer_block_1"
SCALE = f"{BLOCK}/multi_head_self_attention_1/truediv;{BLOCK}/multi_head_self_attention_1/Sqrt"
ODD = {
    "another window": (lambda: changed(f"{FRONT}/windowing/mul/y", lambda x: x**0.5), "front end is another one.*wind"),
    "power spectrum": (lambda: changed(f"{FRONT}/lambda_5/Maximum/y", lambda x: x * 100), "mel floor is 1e-10"),
    "scaled coefficients": (
        lambda: changed(f"{FRONT}/normalizer/truediv;speech_features/normalizer/truediv/y", lambda x: 0.5 * x),
        "truediv/y differs from ours",
    ),
    "no front end": (lambda: without(FRONT), "is missing"),
    "exact GELU": (lambda: without("Cast/x"), "has 0 constants"),
    "another GELU": (
        lambda: changed(f"{BLOCK}/sequential_1/dense_11/mul_2/x", lambda x: 1.1 * x),
        "the approximation of GELU by tanh has 0.797885",
    ),
    "scale": (lambda: changed(SCALE, lambda x: 1.1 * x), "fits no number of heads"),
    "pre-norm": (pre_norm, "another order than a post-norm Keyword Transformer"),
    "a weight is missing": (lambda: without("dense_9"), "Missing: .*dense_9/Tensordot/MatMul. Unexpected: none"),
    "one too many": (
        lambda: {**kwt_constants(), "pos_emb_2": np.ones(3, np.float32)},
        "Missing: none. Unexpected: pos_emb_2",
    ),
    "blocks beyond count": (
        lambda: {**kwt_constants(), "kws_transformer/transformer_block_999999999/x": np.ones(3, np.float32)},
        "num_hidden_layers",
    ),
    "coefficients": (
        lambda: {**kwt_constants(), "kws_transformer/dense/Tensordot/MatMul": np.ones((64, 81), np.float32)},
        "takes 81 values a frame",
    ),
}


@pytest.mark.parametrize("case", ODD)
def test_a_file_that_computes_something_else_is_refused(tmp_path: Path, case: str) -> None:
    constants, message = ODD[case]
    file = write_tflite(tmp_path / "kwt.tflite", constants())
    with pytest.raises(CheckpointError, match=message):
        from_pretrained(file)


# The published file


@pytest.fixture(scope="module")
def published():
    return from_pretrained(PUBLISHED)


@pytest.fixture(scope="module")
def recorded():
    with np.load(RECORDED) as file:
        return dict(file)


def recordings(recorded: dict) -> list[np.ndarray]:
    folder = DATA / "arabic-speech-commands"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return [read(folder / name).samples for name in recorded["recordings"]]


def both(model, waves: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    with torch.no_grad():
        features = Frontend.from_config(model.config)(waves).input_values
        return features.numpy(), model(features).logits.numpy()


@needs_file
def test_published_weights(published) -> None:
    assert describe(PUBLISHED)["parameters"] == 607_308
    assert [published.config.id2label[index] for index in range(12)] == list(LABELS)
    assert macs(published).paper == 73_698_560


@needs_file
def test_real_recordings_give_the_logits_of_the_file_itself(published, recorded) -> None:
    features, found = both(published, recordings(recorded))
    assert recorded["logits"].std() > 1.0
    np.testing.assert_allclose(found, recorded["logits"], atol=2e-4, rtol=0)
    np.testing.assert_allclose(features[:3], recorded["features"], atol=2e-3, rtol=0)


@needs_file
def test_a_short_recording_goes_on_in_silence(published, recorded) -> None:
    waves = [wave[:length] for wave, length in zip(recordings(recorded), recorded["lengths"], strict=False)]
    features, found = both(published, waves)
    np.testing.assert_allclose(found, recorded["cut/logits"], atol=2e-4, rtol=0)
    np.testing.assert_allclose(features[1:3], recorded["cut/features"], atol=2e-3, rtol=0)


@needs_file
def test_seeded_noise_and_silence(published, recorded) -> None:
    waves = [0.1 * uniform("noise", (16000,), 7), 0.3 * uniform("loud", (16000,), 7), torch.zeros(16000)]
    features, found = both(published, [wave.numpy() for wave in waves])
    np.testing.assert_allclose(found, recorded["noise/logits"], atol=2e-4, rtol=0)
    np.testing.assert_allclose(features, recorded["noise/features"], atol=2e-3, rtol=0)
    assert published.config.id2label[int(found[2].argmax())] == "_silence_"


@needs_file
def test_the_spectrum_that_the_coefficients_stand_for_keeps_its_mean(published, recorded) -> None:
    """The front end of the file is linear after the logarithm: c0 is the mean of the log-mel values times √160."""
    from spectrim.network.entering import spectrogram_of

    values = torch.from_numpy(recorded["noise/features"])
    spectrogram = spectrogram_of(values, published.config).input_values
    np.testing.assert_allclose(spectrogram.mean(dim=2), values[:, :, 0] / 160**0.5, rtol=1e-4)
