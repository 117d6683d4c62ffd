"""Backends by name and the fastest of them: exported, checked and measured once, then found in the user's cache."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from command_line import run
from exported import exported, noise, on_the_cpu, tiny_model
from shared import made_once
from tones import write_tone

import spectrim
from spectrim.checkpoints import from_pretrained
from spectrim.errors import ExportError, InvalidSetting, MissingExtra
from spectrim.inference import choosing, export_cache, onnx_export
from spectrim.inference.choosing import Choice, Measured
from spectrim.inference.onnx_model import PROVIDERS, OnnxModel
from spectrim.inference.opening import open_model
from spectrim.inference.openvino_model import OpenVinoModel
from spectrim.inference.torch_model import TorchModel
from spectrim.network.transformer import AudioTransformer

CLASSES = {"torch": TorchModel, "onnxruntime": OnnxModel, "openvino": OpenVinoModel}
TOLERANCE = {
    ("onnxruntime", "fp32"): 1e-5,
    ("openvino", "fp32"): 1e-5,
    ("onnxruntime", "int8"): 0.1,
    ("openvino", "int8"): 0.1,
}


@functools.cache
def filled() -> Path:
    """A folder with a saved model, and a cache in which all that `auto` needs of it is."""

    def make(folder: Path) -> None:
        tiny_model("ast").save_pretrained(folder / "model")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(folder / "cache"))
            open_model(folder / "model", backend="auto")

    return made_once("backend-cache", make)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AudioTransformer:
    """Whatever it needs is in a cache of the test's own; exporting it again is an error."""
    shutil.copytree(filled() / "cache", tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(export_cache, "export", None)
    return from_pretrained(filled() / "model")


@pytest.mark.parametrize("pair", TOLERANCE)
def test_every_backend_gives_what_pytorch_gives(model: AudioTransformer, pair: tuple[str, str]) -> None:
    said: list[str] = []
    opened = open_model(model, backend=pair[0], precision=pair[1], tell=said.append)
    assert (type(opened), opened.precision) == (CLASSES[pair[0]], pair[1])
    np.testing.assert_allclose(opened.scores(noise()), TorchModel(model).scores(noise()), atol=TOLERANCE[pair])
    assert len(said) == 1
    assert said[0].startswith(" ".join(pair))
    assert "of 32 clips of the package, none of them yours" in said[0]


def test_auto_takes_the_fastest_that_was_measured(model: AudioTransformer) -> None:
    said: list[str] = []
    opened = open_model(model, backend="auto", tell=said.append)
    [path] = [path for path in filled().rglob("*.choice.json") if len(json.loads(path.read_text())["rows"]) > 4]
    record = json.loads(path.read_text())
    rows = [row for row in record["rows"] if row["agreeing"] == 32 and row["largest"] <= choosing.LARGEST_DIFFERENCE]
    fastest = min(rows, key=lambda row: row["ms"])
    assert said[0].startswith(f"{fastest['backend']} {fastest['precision']}: {fastest['ms']:.3g} ms a clip (")
    assert isinstance(
        opened, {"torch": TorchModel, "onnxruntime": OnnxModel, "openvino": OpenVinoModel}[fastest["backend"]]
    )


def test_a_damaged_entry_is_made_anew(model: AudioTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path))
    source, written = exported("ast")[1].read_bytes(), []

    class Done:
        class parity:
            clips, relative_difference = 16, 0.0

    def write(network: Any, path: Path, **_: Any) -> type[Done]:
        written.append(path)
        path.write_bytes(source)
        return Done

    monkeypatch.setattr(export_cache, "export", write)
    path = export_cache.exported_file(model, "mark", "fp32")
    assert export_cache.exported_file(model, "mark", "fp32") == path
    path.write_bytes(source[:-1] + bytes([source[-1] ^ 1]))
    assert export_cache.exported_file(model, "mark", "fp32") == path
    assert path.read_bytes() == source
    path.with_suffix(".json").write_text('{"sha256"')
    export_cache.exported_file(model, "mark", "fp32")
    path.unlink()
    export_cache.exported_file(model, "mark", "fp32")
    assert export_cache.exported_file(model, "other", "fp32") != path
    monkeypatch.setattr(export_cache, "GRAPH", export_cache.GRAPH + 1)
    assert export_cache.exported_file(model, "mark", "fp32") != path
    assert written[:4] == [path] * 4
    assert len(written) == 6


def test_the_cache_is_bounded(model: AudioTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path))
    monkeypatch.setattr(export_cache, "MOST", 250)

    class Done:
        class parity:
            clips, relative_difference = 16, 0.0

    def write(network: Any, path: Path, **_: Any) -> type[Done]:
        path.write_bytes(bytes(100))
        return Done

    monkeypatch.setattr(export_cache, "export", write)
    first, second, third = (export_cache.exported_file(model, mark, "fp32") for mark in ("first", "second", "third"))
    assert first.exists()  # all of them are in use
    for hours, path in ((3, second), (2, first)):
        moment = time.time() - 3600 * hours
        os.utime(path.with_suffix(".json"), (moment, moment))
    assert export_cache.exported_file(model, "third", "fp32") == third
    assert (first.exists(), second.exists(), third.exists()) == (True, False, True)
    assert not second.with_suffix(".json").exists()


def test_what_is_too_far_from_fp32_is_not_taken() -> None:
    rows = [
        Measured("torch", "fp32", 9.0, 32, 0.0),
        Measured("onnxruntime", "int8", 1.0, 31, 0.05),
        Measured("openvino", "int8", 2.0, 32, 0.11),
        Measured("openvino", "fp32", 3.0, 32, 1e-6),
    ]
    choice = Choice(rows, 32, 5, {"torch bf16": "none here"})
    pairs = [(row.backend, row.precision) for row in rows]
    taken = choice.fastest(pairs)
    assert taken == rows[3]
    told = choice.told(taken)
    for part in (
        "32 of 32 clips, 5 of them yours (95 % bound: 89%",
        "too far from fp32 to be taken: onnxruntime int8, openvino int8",
        "left out: torch bf16 (none here)",
        "onnxruntime int8 1,",
    ):
        assert part in told
    with pytest.raises(InvalidSetting, match=r"torch: nothing else can be taken here .*on 31 of 32"):
        choice.fastest(pairs[1:3])
    assert Choice([Measured("torch", "fp32", 9.0, 200, 0), Measured("a", "b", 1, 198, 0)], 200, 0, {}).fastest(
        [("a", "b")]
    )


def test_scores_that_are_no_numbers_are_far_away() -> None:
    class Constant:
        def __init__(self, value: float) -> None:
            self.value = value

        def scores(self, waves: list[np.ndarray]) -> np.ndarray:
            return np.full((len(waves), 2), self.value, np.float32)

    fine, broken = choosing.compared({("torch", "fp32"): Constant(0.5), ("a", "b"): Constant(np.nan)}, noise())  # type: ignore[dict-item]
    assert (fine.largest, broken.largest, fine.agreeing) == (0.0, 1.0, 6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "tensorrt"}, "backend is 'tensorrt'; allowed: one of auto, onnxruntime, openvino, torch"),
        ({"backend": "torch", "precision": "int8"}, "int8 is to be had with backend onnxruntime or openvino"),
        ({"precision": "int8"}, "with backend torch; int8 is to be had"),
        ({"backend": "onnxruntime", "precision": "bf16"}, "one of auto, fp32, int8 with backend onnxruntime"),
        ({"backend": "auto", "precision": "fp8"}, "precision is 'fp8'"),
        ({"backend": "openvino", "device": "cuda"}, "device is 'cuda'; allowed: auto or cpu with OpenVINO"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    model: AudioTransformer, options: dict[str, str], message: str
) -> None:
    with pytest.raises(InvalidSetting, match=message):
        open_model(model, **options)


def test_what_this_machine_or_model_cannot_do_is_told(model: AudioTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("openvino.Core.get_property", lambda *_: ["FP32"])
    with pytest.raises(InvalidSetting, match="this processor does not multiply bfloat16"):
        open_model(model, backend="openvino", precision="bf16")
    monkeypatch.setattr(export_cache, "export", onnx_export.export)
    padded = tiny_model("audiomae", drop_padding=True)
    with pytest.raises(InvalidSetting, match="drop_padding is True; allowed: False to export"):
        open_model(padded, backend="onnxruntime")
    said: list[str] = []
    assert isinstance(open_model(padded, backend="auto", tell=said.append), TorchModel)
    assert "left out: onnxruntime int8 (drop_padding is True" in said[0]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"spectrim\[openvino\]"):
        open_model(model, backend="openvino")


def test_onnx_runtime_is_taken_on_the_cpu_where_it_cannot_load_cuda(
    model: AudioTransformer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: list(PROVIDERS.values()))
    monkeypatch.setattr(onnxruntime, "InferenceSession", on_the_cpu)
    opened = open_model(model, backend="onnxruntime")
    assert (type(opened), opened.device) == (OnnxModel, torch.device("cpu"))


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), torch.OutOfMemoryError("out of memory")])
def test_what_fails_for_a_while_is_left_out_and_tried_again(
    model: AudioTransformer, error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> Path:
        raise error

    monkeypatch.setattr(choosing, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(choosing, "PAUSE", 0.0)
    said: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(choosing, "exported_file", fails)
        assert isinstance(open_model(model, backend="auto", tell=said.append), TorchModel)
    open_model(model, backend="auto", tell=said.append)
    assert [f"left out: onnxruntime fp32 ({error})" in words for words in said] == [True, False]
    assert "onnxruntime fp32" in said[1]
    monkeypatch.setattr(choosing, "compared", None)  # what is whole is not measured again
    open_model(model, backend="auto", tell=said.append)
    assert said[1] == said[2]


def test_what_lasts_is_remembered_and_a_full_disk_is_borne(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path))
    monkeypatch.setattr(choosing, "PAUSE", 0.0)
    padded, said = tiny_model("audiomae", drop_padding=True), list[str]()
    with monkeypatch.context() as patch:
        patch.setattr(export_cache, "write_json", full)
        assert isinstance(open_model(padded, backend="auto", tell=said.append), TorchModel)
    assert "not kept ([Errno 28] No space left on device)" in caplog.text
    open_model(padded, backend="auto", tell=said.append)
    monkeypatch.setattr(choosing, "compared", None)
    open_model(padded, backend="auto", tell=said.append)
    assert ["left out: onnxruntime int8 (drop_padding is True" in words for words in said] == [True] * 3


def test_a_cache_that_cannot_be_is_named(
    model: AudioTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr("huggingface_hub.constants.HF_ASSETS_CACHE", str(tmp_path / "file"))
    with pytest.raises(ExportError, match=r"cache folder cannot be made .* HF_ASSETS_CACHE .* backend torch"):
        open_model(model, backend="onnxruntime")


def test_a_file_runs_in_openvino_too(monkeypatch: pytest.MonkeyPatch) -> None:
    model, path = exported("ast")
    opened = open_model(path, backend="openvino", precision="int8")
    assert opened.to("cpu") is opened.frozen() is opened
    marks = {open_model(path, backend="openvino", precision=one).fingerprint() for one in ("fp32", "int8")}
    assert len(marks | {OnnxModel(path).fingerprint()}) == 3
    np.testing.assert_allclose(opened.scores(noise()), TorchModel(model).scores(noise()), atol=0.1)
    with pytest.raises(InvalidSetting, match="backend is 'torch'; allowed: onnxruntime or openvino"):
        open_model(path, backend="torch")
    with pytest.raises(InvalidSetting, match="backend is 'openvino'; allowed: none with a model that is loaded"):
        open_model(TorchModel(model), backend="openvino")


SIGNALLED = """
import gc, os, signal, sys
import numpy as np
from spectrim.inference.openvino_model import OpenVinoModel
first, second = (OpenVinoModel(sys.argv[1], precision=precision) for precision in ("fp32", "int8"))
del first
gc.collect()
del second
gc.collect()
signal.signal(signal.SIGUSR1, lambda *_: print("heard"))
os.kill(os.getpid(), signal.SIGUSR1)
"""


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_a_signal_does_no_harm_after_models_have_gone_in_any_order() -> None:
    """Fails where models are compiled in the main thread: OpenVINO leaves it a signal stack that is freed."""
    words = [sys.executable, "-c", SIGNALLED, str(exported("ast")[1])]
    result = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (0, "heard\n"), result.stderr


def test_the_command_and_the_call_take_a_backend(model: AudioTransformer, tmp_path: Path) -> None:
    sound = tmp_path / "tone.wav"
    write_tone(sound)
    int8: dict[str, Any] = {"backend": "onnxruntime", "precision": "int8"}
    options = [f"--{name}={value}" for name, value in int8.items()]
    code, out, err = run("predict", sound, "--model", filled() / "model", "--format", "csv", *options)
    assert code == 0, err
    assert "onnxruntime int8: " in err
    [best] = spectrim.predict(sound, filled() / "model", **int8).top(1)
    assert best[0] in out
    assert f"{best[1]:.4f}"[:5] in out
    code, _, err = run("predict", sound, "--precision", "int8")
    assert code == 2
    assert "onnxruntime or openvino" in err
