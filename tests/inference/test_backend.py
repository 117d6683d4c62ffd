"""What every backend promises, and how one is opened; `test_onnx_model.py` has what is special to exported files."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from exported import exported, noise
from plain import small_model

from spectrim.audio.filterbank import count_frames
from spectrim.audio.frontend import Frontend
from spectrim.backbones import ast_tiny, ced_tiny, kwt_1, passt_base
from spectrim.config import SpectrimConfig
from spectrim.errors import InvalidSetting
from spectrim.inference.backend import Backend, hop_frames, window_length
from spectrim.inference.onnx_model import OnnxModel
from spectrim.inference.opening import open_model
from spectrim.inference.openvino_model import OpenVinoModel
from spectrim.inference.torch_model import TorchModel
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.pruning import Pruning

CASES = {
    "torch": lambda: TorchModel(exported("ast", "auto", True)[0]),
    "frozen": lambda: TorchModel(exported("ast", "auto", True)[0]).frozen(),
    "onnx": lambda: OnnxModel(exported("ast")[1]),
    "onnx, waveforms": lambda: OnnxModel(exported("ast", "auto", True)[1]),
    "openvino": lambda: OpenVinoModel(exported("ast")[1]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_backend_gives_what_the_model_gives(case: str) -> None:
    backend: Backend = CASES[case]()
    model = exported("ast", "auto", True)[0]
    features = Frontend.from_config(model.config)(noise())
    with torch.no_grad():
        wanted = model(features.input_values, output_token_trace=True)
    values, lengths = backend.prepare(noise())
    assert tuple(values.shape) == (6, *backend.input_shape)
    torch.testing.assert_close(backend.logits(values, lengths), wanted.logits, atol=1e-4, rtol=0)
    np.testing.assert_allclose(backend.scores(noise()), wanted.logits.softmax(-1), atol=1e-5)
    assert backend.scores(noise()).dtype == np.float32
    for ours, theirs in zip(backend.trace(values, lengths).kept, wanted.token_trace.kept, strict=True):
        assert torch.equal(ours, theirs)
    assert backend.labels == list(model.config.id2label.values())
    assert backend.pruning == model.config.pruning
    assert (backend.window_seconds, backend.hop_seconds) == (0.655, 0.64)
    assert backend.to("auto").device.type == backend.device.type


@pytest.mark.parametrize("case", CASES)
def test_threads_that_share_a_backend_each_get_their_own_scores(case: str) -> None:
    backend: Backend = CASES[case]()
    clips = noise()[:4]
    wanted = [backend.scores([clip]) for clip in clips]
    assert min(np.abs(wanted[0] - other).max() for other in wanted[1:]) > 1e-3
    turns = list(range(len(clips))) * 25
    with ThreadPoolExecutor(len(clips)) as threads:
        found = list(threads.map(lambda place: backend.scores([clips[place]]), turns))
    for place, scores in zip(turns, found, strict=True):
        np.testing.assert_allclose(scores, wanted[place], atol=1e-5)


@pytest.mark.parametrize(
    ("build", "length", "frames"),
    [(ast_tiny, 1024, 1024), (ced_tiny, 1001, 1000), (ced_tiny, 501, 500), (passt_base, 998, 998), (kwt_1, 98, 98)],
)
def test_no_sound_lies_between_two_windows(build: Callable[..., SpectrimConfig], length: int, frames: int) -> None:
    config = build(max_length=length)
    assert hop_frames(config) == frames
    assert window_length(config) >= 160 * frames
    assert count_frames(160 * frames, features=config.features) <= length


def test_operating_points_share_the_weights() -> None:
    model = small_model("ast", dtype=torch.float32)
    backend = TorchModel(model, Pruning(0.9, (1,)))
    values = torch.randn(2, *backend.input_shape)
    point = backend.at(keep_rate=0.5)
    assert (backend.pruning.keep_rate, point.pruning.keep_rate, model.config.keep_rate) == (0.9, 0.5, 1.0)
    assert point.network is backend.network is model
    with torch.no_grad():
        wanted = model(values, pruning=Pruning(0.5, (1,))).logits
    torch.testing.assert_close(point.logits(values), wanted, rtol=0, atol=0)
    assert point.at(Pruning(0.7, (1,))).pruning.keep_rate == 0.7
    for wrong in ({"keep_rate": 1.5}, {"pruning": Pruning(0.5, (99,))}):
        with pytest.raises(InvalidSetting):
            backend.at(**wrong)


def test_a_model_in_memory_stays_as_it_is() -> None:
    model = small_model("ast", dtype=torch.float32).train()
    backend = TorchModel(model)
    assert model.training
    assert not backend.network.training
    frozen = TorchModel(model.eval()).frozen()
    values = torch.randn(1, *frozen.input_shape)
    wanted = frozen.logits(values)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.5)
    torch.testing.assert_close(frozen.logits(values), wanted, rtol=0, atol=0)
    assert not torch.allclose(TorchModel(model).logits(values), wanted)


def test_a_fingerprint_tells_weights_and_settings_apart() -> None:
    model = AudioTransformer(
        ast_tiny(hidden_size=32, num_attention_heads=2, intermediate_size=32, max_length=32)
    ).eval()
    same = copy.deepcopy(model)
    mark = TorchModel(model).fingerprint()
    assert TorchModel(same).fingerprint() == TorchModel(same).frozen().fingerprint() == mark
    pruned = TorchModel(model).at(keep_rate=0.5).fingerprint()
    same.set_pruning(keep_rate=0.5)
    assert TorchModel(same).fingerprint() == pruned != mark
    same.set_pruning(keep_rate=model.config.keep_rate)
    assert TorchModel(same).fingerprint() == mark
    next(same.parameters()).data.view(-1)[0] += 1e-3
    assert TorchModel(same).fingerprint() != mark


def test_whatever_is_a_model_is_opened(tmp_path: Path) -> None:
    model, path = exported("ast")
    model.save_pretrained(tmp_path)
    for source, kind in ((model, TorchModel), (tmp_path, TorchModel), (str(path), OnnxModel), (path, OnnxModel)):
        backend = open_model(source)
        assert isinstance(backend, kind)
        assert open_model(backend).pruning == backend.pruning
        assert backend.pruning.keep_rate == 0.6
    assert open_model(model, 0.5).pruning.keep_rate == open_model(tmp_path, 0.5).pruning.keep_rate == 0.5
    assert open_model(TorchModel(model), 0.5).pruning.keep_rate == 0.5
    for loaded in (model, TorchModel(model)):
        with pytest.raises(InvalidSetting, match="precision is 'bf16'; allowed: none with a model that is loaded"):
            open_model(loaded, precision="bf16")
    for source in (model, tmp_path / "none", path, TorchModel(model)):
        with pytest.raises(InvalidSetting, match="device is 'tpu'"):
            open_model(source, device="tpu")
