"""What runs a point: one model in PyTorch, or a file of its own for each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tone_table import small_model

from spectrim.errors import InvalidSetting
from spectrim.inference import export_cache
from spectrim.inference.onnx_model import PROVIDERS, OnnxModel
from spectrim.inference.opening import open_model
from spectrim.inference.torch_model import TorchModel
from spectrim.pruning.pruning import Pruning
from spectrim.tuning.runtimes import Runtime

POINT = Pruning((0.8, 0.5), (0, 1), "variation")


def saved(folder: Path) -> Path:
    small_model(1).save_pretrained(folder)
    return folder


def test_a_file_is_written_once_at_its_point_and_answers_as_pytorch_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    source = saved(tmp_path / "model")
    backend = open_model(source, device="cpu")
    file = Runtime(source, backend, "onnx", tmp_path / "measured").at(POINT)
    assert isinstance(file, OnnxModel) and file.pruning == POINT
    values = torch.randn(3, *backend.input_shape)
    torch.testing.assert_close(file.logits(values), backend.at(POINT).logits(values), atol=1e-4, rtol=1e-4)
    monkeypatch.setattr("spectrim.tuning.runtimes.export", None)
    again = Runtime(source, backend, "onnx", tmp_path / "measured")
    assert again.runs("the point", POINT) and not again.left_out


def test_another_version_of_what_writes_a_file_writes_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    source = saved(tmp_path / "model")
    runtime = Runtime(source, open_model(source, device="cpu"), "onnx", tmp_path / "measured")
    monkeypatch.setattr("spectrim.tuning.runtimes.export", lambda network, path, precision: path.touch())
    first, now = runtime.file(POINT), export_cache.version_of
    assert runtime.file(POINT) == first
    found = {first}
    for package in ("onnx", "onnxscript", "spectrim", "torch"):
        other = {package: "99.0"}
        monkeypatch.setattr(export_cache, "version_of", lambda name, other=other: other.get(name) or now(name))
        found.add(runtime.file(POINT))
    assert len(found) == 5 and all(path.is_file() for path in found)


def test_in_pytorch_one_model_runs_all(tmp_path: Path) -> None:
    source = saved(tmp_path / "model")
    backend = open_model(source, device="cpu")
    runtime = Runtime(source, backend, "torch", tmp_path / "measured")
    assert runtime.at(POINT) is backend and not runtime.exports
    assert runtime.network(POINT).config.pruning == POINT
    assert not (tmp_path / "measured").exists()


def test_what_no_file_can_do_is_refused_before_any_work(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    model = small_model(1).set_pruning(drop_padding=True)
    with pytest.raises(InvalidSetting, match="drop_padding"):
        Runtime(tmp_path, open_model(model, device="cpu"), "onnx-int8", tmp_path)
    with pytest.raises(InvalidSetting, match="drop_padding"):
        backend = TorchModel(small_model(1), Pruning(0.5, (1,), drop_padding=True))
        Runtime(backend, backend, "onnx", tmp_path)
    with pytest.raises(InvalidSetting, match="speed_of is 'tpu'"):
        Runtime(tmp_path, open_model(model, device="cpu"), "tpu", tmp_path)


def test_a_device_that_the_runtime_cannot_have_is_refused_and_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    backend = open_model(saved(tmp_path / "model"), device="cpu")
    backend.device = torch.device("cuda")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(InvalidSetting, match="device is 'cuda'; allowed: one of auto, cpu in this ONNX Runtime"):
        Runtime(tmp_path / "model", backend, "onnx", tmp_path / "measured")
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(PROVIDERS.values()))
    runtime = Runtime(tmp_path / "model", backend, "onnx", tmp_path / "measured")

    def fails(*_: object) -> None:
        raise InvalidSetting("device", "cuda", "cpu: it cannot be loaded here")

    monkeypatch.setattr(runtime, "file", lambda point: tmp_path / "point.onnx")
    monkeypatch.setattr("spectrim.tuning.runtimes.OnnxModel", fails)
    with pytest.raises(InvalidSetting, match="device is 'cuda'; allowed: cpu: it cannot be loaded here"):
        runtime.runs("dense", POINT)
    assert not runtime.left_out
