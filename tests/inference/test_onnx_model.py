"""Exported models in the place of `AudioTransformer`: tagging, pictures, output files, and files that are not ours."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import soundfile
import torch
from exported import SAMPLES, exported, noise, on_the_cpu, with_fact
from onnx import TensorProto, helper

from spectrim.audio.frontend import Frontend
from spectrim.errors import AudioError, CheckpointError, InputShapeError, InvalidSetting, MissingExtra
from spectrim.explain.window_pictures import window_painter
from spectrim.inference.exported_model import trace_of
from spectrim.inference.onnx_model import PROVIDERS, OnnxModel, onnx_device
from spectrim.inference.opening import open_model
from spectrim.inference.predict import predict_files
from spectrim.inference.torch_model import TorchModel
from spectrim.pictures.kept_patches import kept_stages

LOG_MEL, WAVEFORMS = ("audiomae", "auto", False), ("ast", "auto", True)
BOTH = pytest.mark.parametrize("case", [LOG_MEL, WAVEFORMS], ids=["log_mel", "waveforms"])


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Short, full, long and bad files."""
    paths = []
    for index, wave in enumerate(noise()):
        path = tmp_path / f"{index}.wav"
        soundfile.write(path, wave, 16000, subtype="FLOAT")
        paths.append(str(path))
    (tmp_path / "9.wav").touch()
    return [*paths, str(tmp_path / "9.wav")]


@BOTH
def test_files_get_the_scores_that_pytorch_gives(case: tuple[str, str, bool], files: list[str]) -> None:
    model, path = exported(*case)
    found, wanted = list(predict_files(files, path, batch_size=3)), list(predict_files(files, model, batch_size=3))
    assert [prediction.error for prediction in found] == [None] * 6 + ["empty file (0 bytes)"]
    for ours, theirs in zip(found, wanted, strict=True):
        assert [(part.start, part.end) for part in ours.timeline] == [
            (part.start, part.end) for part in theirs.timeline
        ]
        for one, other in zip(ours.timeline, theirs.timeline, strict=True):
            np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
        assert list(ours.labels) == list(theirs.labels)
    assert len({tuple(np.round(prediction.timeline[0].scores, 3)) for prediction in found[:-1]}) == 6


def test_pictures_show_the_patches_that_pytorch_keeps(files: list[str], tmp_path: Path) -> None:
    model, path = exported(*LOG_MEL)
    features = Frontend.from_config(model.config)(noise())
    ours, theirs = (backend.trace(*features) for backend in (OnnxModel(path), TorchModel(model)))
    torch.testing.assert_close(
        OnnxModel(path).logits(*features), TorchModel(model).logits(*features), atol=1e-4, rtol=0
    )
    assert ours.scores == ()
    for clip in range(6):
        stages = zip(
            kept_stages(ours, model.config, clip),
            kept_stages(theirs, model.config, clip),
            strict=True,
        )
        for (name, mine), (other_name, other) in stages:
            assert name == other_name
            np.testing.assert_array_equal(mine, other)
    opened = OnnxModel(path)
    list(predict_files(files[:1], opened, paint=window_painter(opened, tmp_path / "pictures", files[:1])))
    assert [picture.name for picture in (tmp_path / "pictures").iterdir()] == ["0.wav.png"]


def test_a_trace_has_every_block() -> None:
    config = exported(*LOG_MEL)[0].config.__class__(num_hidden_layers=4, prune_at=[2, 0])
    kept = torch.tensor([[[2, 1, 0]]])
    trace = trace_of(kept, config)
    assert [block.flatten().tolist() for block in trace.kept] == [
        [True, True, False],
        [True, True, False],
        [True, False, False],
        [True, False, False],
    ]


def test_the_keep_rate_is_fixed(files: list[str]) -> None:
    path = exported(*LOG_MEL)[1]
    message = rf"^keep_rate is 0\.5; allowed: nothing here: {path.name} was exported at 0\.6"
    with pytest.raises(InvalidSetting, match=message):
        predict_files(files, path, keep_rate=0.5)
    with pytest.raises(InvalidSetting, match=message):
        open_model(path, 0.5)
    with pytest.raises(InvalidSetting, match=message):
        predict_files(files, OnnxModel(path), keep_rate=0.5)
    with pytest.raises(InvalidSetting, match=message):
        OnnxModel(path).at(keep_rate=0.5)
    with pytest.raises(InvalidSetting, match=r"^pruning is .*keep_rate=0\.5.* was exported at 0\.6"):
        OnnxModel(path).at(exported(*LOG_MEL)[0].config.pruning.changed({"keep_rate": 0.5}))
    assert OnnxModel(path).at(exported(*LOG_MEL)[0].config.pruning).precision == "fp32"


def test_no_pictures_without_a_spectrogram(files: list[str], tmp_path: Path) -> None:
    path = exported(*WAVEFORMS)[1]
    with pytest.raises(InvalidSetting, match=r"^explain is .*takes waveforms and shows no spectrogram"):
        window_painter(OnnxModel(path), tmp_path / "pictures", files)
    assert not (tmp_path / "pictures").exists()


def test_devices_are_those_of_onnx_runtime(files: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    path = exported(*LOG_MEL)[1]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert onnx_device() == onnx_device("cpu") == torch.device("cpu")
    for name in ("cuda", "cuda:1", "tpu"):
        with pytest.raises(
            InvalidSetting, match=rf"^device is '{name}'; allowed: one of auto, cpu in this ONNX Runtime"
        ):
            predict_files(files, path, device=name)
    both = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: both)
    assert onnx_device() == torch.device("cuda")
    assert onnx_device("cuda:1") == torch.device("cuda:1")


def test_a_device_that_cannot_be_loaded_is_never_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """ONNX Runtime lists what it was built with, and opens a file on the CPU where it cannot load that."""
    path = exported(*LOG_MEL)[1]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(PROVIDERS.values()))
    monkeypatch.setattr(onnxruntime, "InferenceSession", on_the_cpu)
    assert open_model(path).device == OnnxModel(path).to("auto").device == torch.device("cpu")
    for name in ("cuda", "cuda:1"):
        with pytest.raises(
            InvalidSetting, match=rf"^device is '{name}'; allowed: auto or cpu: ONNX Runtime has CUDAExecutionProvider,"
        ):
            open_model(path, device=name)


def test_waveforms_are_cut_and_filled_up() -> None:
    model = OnnxModel(exported(*WAVEFORMS)[1])
    short, long = np.arange(500, dtype=np.int16), np.ones(2 * SAMPLES, dtype=np.float32)
    rows, lengths = model.prepare([short, long])
    assert (tuple(rows.shape), rows.dtype, lengths.tolist()) == ((2, SAMPLES), torch.float32, [500, SAMPLES])
    np.testing.assert_array_equal(rows[0, :500], short / np.float32(2**15))
    assert not rows[0, 500:].any()
    assert rows[1].all()
    with pytest.raises(AudioError, match=r"waveform 0: 24\.94 ms long"):
        model.prepare([short[:399]])
    with pytest.raises(AudioError, match="1 samples are NaN"):
        model.prepare([np.append(long, np.float32("nan"))])


@pytest.mark.parametrize(
    ("case", "given", "message"),
    [
        (LOG_MEL, (torch.zeros(1, 63, 128),), r"input_values has shape \(1, 63, 128\); .* takes \(batch, 64, 128\)"),
        (WAVEFORMS, (torch.zeros(2, 100), torch.tensor([100, 100])), r"waveforms has shape \(2, 100\)"),
        (WAVEFORMS, (torch.zeros(2, SAMPLES), torch.tensor([100])), r"num_samples has shape \(1,\)"),
        (WAVEFORMS, (torch.zeros(2, SAMPLES),), "num_samples is missing"),
    ],
)
def test_wrong_shapes_are_named(case: tuple[str, str, bool], given: tuple[torch.Tensor, ...], message: str) -> None:
    with pytest.raises(InputShapeError, match=message):
        OnnxModel(exported(*case)[1]).logits(*given)


def test_output_files_know_which_model_they_are_of(tmp_path: Path) -> None:
    path = exported(*LOG_MEL)[1]
    marks = {OnnxModel(path).fingerprint(), OnnxModel(exported(*WAVEFORMS)[1]).fingerprint()}
    other = with_fact(path, tmp_path / "other.onnx", "spectrim_version", "0")
    assert len(marks | {OnnxModel(path).fingerprint(), OnnxModel(other).fingerprint()}) == 3


# Files that are not ours


def foreign(path: Path) -> Path:
    """A model that somebody else made."""
    given = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [given], [out])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    whole = exported(*LOG_MEL)[1].read_bytes()
    with pytest.raises(CheckpointError, match=r"none\.onnx: no such file"):
        open_model(tmp_path / "none.onnx")
    with pytest.raises(
        CheckpointError, match=r"is no model that spectrim export wrote \(no 'config' in its metadata\)"
    ):
        open_model(foreign(tmp_path / "foreign.onnx"))
    for name, content in {"cut": whole[: len(whole) // 2], "text": b"no model " * 99, "empty": b""}.items():
        damaged = tmp_path / f"{name}.onnx"
        damaged.write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"{name}\.onnx: "):
            open_model(damaged)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("config", "{", "is no model that spectrim export wrote"),
        ("config", json.dumps({"keep_rate": 7}), "keep_rate is 7; allowed"),
        (
            "config",
            json.dumps({"max_length": 1024, "id2label": {index: f"LABEL_{index}" for index in range(5)}}),
            "its graph takes .* its metadata say .* it was changed",
        ),
        ("takes", "waveforms", "its graph takes .* its metadata say .* it was changed"),
        ("takes", "pictures", "is no model that spectrim export wrote"),
        ("labels", json.dumps(list("abcde")), "its labels are not those of its configuration"),
        ("precision", None, "no 'precision' in its metadata"),
    ],
)
def test_changed_metadata_are_named(tmp_path: Path, name: str, value: str | None, message: str) -> None:
    changed = with_fact(exported(*LOG_MEL)[1], tmp_path / "changed.onnx", name, value)
    with pytest.raises(CheckpointError, match=rf"changed\.onnx: .*{message}"):
        OnnxModel(changed)


def test_a_missing_onnx_runtime_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    path = exported(*LOG_MEL)[1]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"running an exported model needs onnxruntime; .*spectrim\[onnx\]"):
        OnnxModel(path)
