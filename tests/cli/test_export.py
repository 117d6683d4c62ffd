"""``spectrim export``, and ``spectrim predict`` with what it wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import soundfile
from command_line import run
from exported import exported, noise, tiny_model

from spectrim import Pruning
from spectrim.audio.feature_extractor import SpectrimFeatureExtractor
from spectrim.checkpoints import from_pretrained
from spectrim.errors import MissingExtra
from spectrim.inference.onnx_model import OnnxModel


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    model = tiny_model("ast", keep_rate=1.0, num_hidden_layers=1, prune_at=[0])
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    SpectrimFeatureExtractor.from_config(model.config).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for index, wave in enumerate(noise()):
        soundfile.write(f"{index}.wav", wave, 16000, subtype="FLOAT")
    return tmp_path


def test_export_and_predict(checkpoint: str, here: Path) -> None:
    options = ["--model", checkpoint, "--keep-rate", 0.5, "--frames", 48, "--front-end", "--format", "json"]
    code, out, err = run("export", "model.onnx", *options)
    assert (code, len(err.splitlines())) == (0, 1)
    assert err.startswith("note: nothing says that") and "spectrim compare" in err
    facts = json.loads(out)
    assert (facts["path"], facts["precision"], facts["takes"]) == ("model.onnx", "fp32", "waveforms")
    assert facts["patches"] == [24, 12]
    assert facts["megabytes"] == Path("model.onnx").stat().st_size / 1e6
    assert facts["parity"]["clips"] == 16
    assert facts["parity"]["largest_difference"] <= 1e-4
    config = OnnxModel("model.onnx").config
    assert (config.keep_rate, config.max_length) == (0.5, 48)

    tagging = ["predict", "0.wav", "1.wav", "4.wav", "--format", "jsonl"]
    code, out, err = run(*tagging, "--model", "model.onnx")
    assert (code, err) == (0, "")
    from_pretrained(checkpoint, keep_rate=0.5, frames=48).save_pretrained("short")
    found, wanted = (
        [json.loads(line) for line in text.splitlines()] for text in (out, run(*tagging, "-m", "short")[1])
    )
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours["file"] == theirs["file"]
        scores = [{entry["label"]: entry["score"] for entry in row["scores"]} for row in (ours, theirs)]
        assert scores[0] == pytest.approx(scores[1], abs=1e-5)
        assert len(ours["windows"]) == len(theirs["windows"])


def test_table_and_progress(checkpoint: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def export(network: Any, output: Path, **options: Any) -> Any:
        from spectrim.inference.onnx_export import Exported, Parity, Tie

        seen.update(pruning=network.config.pruning, output=output, **options)
        options["on_step"]("check", 1, 2)
        return Exported(
            output,
            1.5,
            "int8",
            "log_mel",
            [32, 20],
            Parity(4, 0.5, 0.25, 1.0, 0.75, 0.9, [Tie(3, 1, [(2, 5), (3, 5)], 1e-6)]),
        )

    monkeypatch.setattr("spectrim.inference.onnx_export.export", export)
    point = ["--keep-rate", "0.6", "--prune-at", "0", "--reducer", "fuse", "--criterion", "mean_attention"]
    point += ["--time-segments", "2"]
    code, out, err = run("export", "model.onnx", "-m", checkpoint, *point, "--precision", "int8", "--progress")
    assert code == 0
    assert seen["pruning"] == Pruning(0.6, (0,), "mean_attention", "fuse", time_segments=2)
    assert (seen["output"], seen["precision"], seen["front_end"]) == (Path("model.onnx"), "int8", False)
    rows = {line[:20].strip(): line[20:].strip() for line in out.splitlines()}
    assert rows["patches"] == "32, 20"
    assert rows["kept shared"] == "0.9"
    assert rows["ties"] == "clip 3, block 1, patches [(2, 5), (3, 5)]"
    assert "check" in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["model.pt"], "output is 'model.pt'; allowed: a name that ends in .onnx"),
        (["none/model.onnx"], "output is 'none/model.onnx'; allowed: a file in a folder that exists"),
        (["model.onnx", "--precision", "int4"], "precision is 'int4'; allowed: one of fp16, fp32, int8"),
        (["model.onnx", "--keep-rate", "0"], "keep_rate is 0.0; allowed: a number in (0, 1]"),
        (["model.onnx", "--time-segments", "5"], "time_segments is 5; allowed: 1 to 4, the number of patches along"),
        (["model.onnx", "--criterion", "variaton"], "criterion is 'variaton'"),
        (["model.onnx", "--frames", "8"], "frames is 8; allowed: a whole number of at least 16 frames"),
        (["model.onnx", "--format", "csv"], "format is 'csv'; allowed: one of json, table"),
    ],
)
def test_wrong_use_is_refused_in_one_line(checkpoint: str, here: Path, options: list[str], message: str) -> None:
    before = sorted(here.iterdir())
    code, out, err = run("export", *options, "--model", checkpoint)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith(f"spectrim: {message}")
    assert sorted(here.iterdir()) == before


def test_a_missing_extra_is_one_line(checkpoint: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(package: str, purpose: str) -> None:
        raise MissingExtra(package, "onnx", purpose)

    monkeypatch.setattr("spectrim.inference.onnx_export.need", missing)
    code, out, err = run("export", "model.onnx", "--model", checkpoint)
    assert (code, out) == (1, "")
    assert err == "spectrim: exporting a model needs onnx; install it with: pip install 'spectrim[onnx]'\n"


def test_predict_refuses_what_an_exported_model_cannot_do(here: Path) -> None:
    path = exported("audiomae")[1]
    code, out, err = run("predict", "0.wav", "--model", path, "--keep-rate", 0.5)
    assert (code, out) == (2, "")
    assert err.startswith("spectrim: keep_rate is 0.5; allowed: nothing here: ")
    assert err.count("\n") == 1
    code, out, err = run("predict", "0.wav", "--model", "0.wav.onnx")
    assert (code, out, err) == (1, "", "spectrim: 0.wav.onnx: no such file\n")
