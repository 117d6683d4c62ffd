"""--stride and --frames where a model is named, and what becomes of an error that nobody foresaw."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from checkpoint_files import official_ast, save
from command_line import run
from layouts import make_folder

import spectrim.checkpoints
from spectrim.assets import packaged_clips
from spectrim.audio.frontend import Frontend
from spectrim.checkpoints import from_pretrained
from spectrim.network.macs import macs

CLIP = packaged_clips()[0][0]


@pytest.fixture(scope="module")
def untold(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("model"), official_ast(patches=360, labels=3, depth=5))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--stride 10", "stride is '10'"),
        ("--frames 500", "frames is 500"),
        ("--stride 10 --frames 500", "frames is 500"),
    ],
)
def test_what_goes_with_init_alone_is_named_with_its_own_value(options: str, said: str, tmp_path: Path) -> None:
    code, _, told = run("train", "ast-esc50", "--data", tmp_path, "--output", tmp_path / "run", *options.split())
    assert code == 2 and f"{said}; allowed: together with --init" in told


def test_a_stride_or_frames_make_a_model_known(untold: Path) -> None:
    code, _, said = run("info", untold)
    assert code == 1 and "stride=10 with 306 to 315 frames" in said and "--stride" in said
    for option in (("--stride", 10), ("--stride", "10,10"), ("--frames", 312)):
        code, out, _ = run("info", untold, *option, "--format", "json")
        assert code == 0 and json.loads(out)["grid"] == [12, 30]
    code, out, _ = run("predict", CLIP, "--model", untold, "--stride", 10, "--format", "jsonl")
    assert code == 0 and "LABEL_" in out


def test_evaluate_and_analyze_take_them_too(untold: Path, tmp_path: Path) -> None:
    root = make_folder(tmp_path / "clips", {f"LABEL_{number}": 4 for number in range(3)})
    for command, end in (("evaluate", ()), ("analyze", ("--output", tmp_path / "out", "--keep-rates", "0.5"))):
        options = (command, "--dataset", "folder", "--data", root, "--set", "test_share=1", "--model", untold, *end)
        code, _, said = run(*options)
        assert code == 1 and "stride=10 with 306 to 315 frames" in said and "--stride" in said
        code, _, said = run(*options, "--stride", "ten")
        assert code == 2 and "stride is 'ten'" in said
    code, out, _ = run(*options[:-4], "--stride", 10, *options[-4:], "--format", "csv")
    assert code == 0 and out.startswith("claim,model,answer")
    facts = json.loads((tmp_path / "out" / "statistics.json").read_text())["facts"]
    assert f"--model {untold} --stride 10 --dataset folder" in facts["command"]
    options = ("evaluate", "--dataset", "folder", "--data", root, "--set", "test_share=1", "--model", untold)
    code, out, _ = run(*options, "--frames", 312, "--keep-rates", "0.5", "--format", "json")
    assert code == 0 and json.loads(out)["facts"]["model"] == str(untold)


def test_a_criterion_takes_the_place_of_the_models_own(tmp_path: Path) -> None:
    samples = soundfile.read(CLIP, dtype="float32")[0]
    features = Frontend.from_config(from_pretrained("spectrim-mini").config)([samples])
    best = {}
    for name, given in (("value_norm", ()), ("variation", ("--criterion", "variation"))):
        model = from_pretrained("spectrim-mini", keep_rate=0.3, criterion=name)
        with torch.inference_mode():
            best[name] = float(model(features.input_values).logits.softmax(-1).max())
        code, out, _ = run("predict", CLIP, "--keep-rate", 0.3, *given, "--format", "jsonl")
        assert code == 0 and json.loads(out)["scores"][0]["score"] == pytest.approx(best[name], abs=1e-4)
    assert abs(best["value_norm"] - best["variation"]) > 1e-3, "the two rankings are told apart here"
    options = ("--criterion", "variation", "--keep-rate", 0.5)
    code, out, _ = run("explain", CLIP, *options, "--output", tmp_path / "shown", "--format", "json")
    shown = json.loads(out)
    assert code == 0 and (shown["criterion"], shown["reducer"]) == ("variation", "drop")
    assert "go on in other tokens" not in run("explain", CLIP, *options, "--output", tmp_path / "shown")[1]
    vectors = []
    for number, given in enumerate(((), ("--criterion", "variation"))):
        assert run("embed", CLIP, "-o", tmp_path / f"{number}.npz", "--keep-rate", 0.3, *given)[0] == 0
        with np.load(tmp_path / f"{number}.npz") as content:
            vectors.append(content["vectors"])
    assert vectors[0].shape == vectors[1].shape and not np.allclose(*vectors)
    once = ("--keep-rates", "0.5", "--batch-sizes", 1, "--repeats", 1, "--format", "csv")
    code, _, said = run("benchmark", "--criterion", "loudness", *once)
    assert code == 2 and "criterion is 'loudness'" in said
    assert run("benchmark", "--criterion", "variation", *once)[0] == 0


def test_a_reducer_takes_the_place_of_the_models_own(tmp_path: Path) -> None:
    """It leaves the ranking of the packaged model behind, with which it cannot go."""
    samples = soundfile.read(CLIP, dtype="float32")[0]
    model = from_pretrained("spectrim-mini", keep_rate=0.5, reducer="cluster")
    assert (model.config.pruning.reducer, model.config.pruning.criterion) == ("cluster", "auto")
    with torch.inference_mode():
        best = float(model(Frontend.from_config(model.config)([samples]).input_values).logits.softmax(-1).max())
    merged = ("--reducer", "cluster", "--keep-rate", 0.5)
    code, out, _ = run("predict", CLIP, *merged, "--format", "jsonl")
    assert code == 0 and json.loads(out)["scores"][0]["score"] == pytest.approx(best, abs=1e-4)
    code, out, _ = run("explain", CLIP, *merged, "--output", tmp_path / "shown")
    assert code == 0 and "go on in other tokens: reducer cluster" in " ".join(out.split())
    shown = json.loads((tmp_path / "shown" / "explain.json").read_text())
    assert (shown["criterion"], shown["reducer"]) == ("auto", "cluster")
    for number, given in enumerate((merged, merged[2:])):
        assert run("embed", CLIP, "-o", tmp_path / f"{number}.npz", *given)[0] == 0
    vectors = [np.load(tmp_path / f"{number}.npz")["vectors"] for number in range(2)]
    assert vectors[0].shape == vectors[1].shape and not np.allclose(*vectors)
    once = ("--keep-rates", "0.5", "--batch-sizes", 1, "--repeats", 1, "--format", "json")
    code, out, _ = run("benchmark", "--reducer", "cluster", *once)
    assert code == 0 and json.loads(out)["rows"][0]["executed_macs"] == macs(model).executed
    root = make_folder(tmp_path / "clips", {"yes": 4, "no": 4})
    options = ("evaluate", "--dataset", "folder", "--data", root, "--set", "test_share=1", "--keep-rates", "0.5")
    code, out, _ = run(*options, "--reducer", "cluster", "--format", "json")
    rows = json.loads(out)["rows"]
    assert code == 0 and [(row["criterion"], row["reducer"]) for row in rows] == [
        *[("auto", "cluster")] * 2,
        ("random", "drop"),
    ]


@pytest.mark.parametrize("option", [("--reducer", "cluster"), ("--criterion", "variation")])
def test_a_way_to_prune_is_said_to_change_nothing_where_nothing_is_pruned(
    option: tuple[str, str], tmp_path: Path
) -> None:
    said = f"{option[0]} changes nothing, as every patch is kept; --keep-rate 0.7 keeps fewer"
    for command in (("predict", CLIP), ("embed", CLIP, "-o", tmp_path / "vectors.npz")):
        code, _, error = run(*command, *option)
        assert code == 0 and said in error
        code, _, error = run(*command, *option, "--keep-rate", 0.7)
        assert code == 0 and said not in error


def test_evaluate_ranks_as_the_model_says(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "clips", {"yes": 4, "no": 4})
    options = ("evaluate", "--dataset", "folder", "--data", root, "--set", "test_share=1", "--keep-rates", "0.5")
    found = []
    for given in ((), ("--criterion", "auto")):
        code, out, _ = run(*options, "--draws", 0, "--format", "json", *given)
        assert code == 0
        found += [row["criterion"] for row in json.loads(out)["rows"]]
    assert found == ["value_norm"] * 2 + ["cls_attention"] * 2


def test_padding_can_be_left_out_of_short_files(tmp_path: Path) -> None:
    samples, rate = soundfile.read(CLIP, dtype="float32")
    soundfile.write(tmp_path / "short.wav", samples[: rate // 2], rate)
    code, out, _ = run("predict", tmp_path / "short.wav", "--keep-rate", 0.7, "--drop-padding", "--format", "jsonl")
    assert code == 0
    model = from_pretrained("spectrim-mini", keep_rate=0.7, drop_padding=True)
    features = Frontend.from_config(model.config)([samples[: rate // 2]])
    with torch.inference_mode():
        scores = model(features.input_values, num_frames=features.num_frames).logits.softmax(-1)[0]
    said = json.loads(out)["scores"][0]
    assert said["label"] == model.config.id2label[int(scores.argmax())]
    assert said["score"] == pytest.approx(float(scores.max()), abs=1e-4)
    assert run("predict", CLIP, "--drop-padding", "--backend", "auto")[0] == 2


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("info", "{model}", "--stride", "11"), "what makes 360 patches"),
        (("info", "{model}", "--stride", "ten"), "stride is 'ten'"),
        (("info", "{model}", "--stride", "1,2,3"), "stride is"),
        (("predict", "clip.wav", "--model", "model.onnx", "--stride", "10"), "none with an exported file"),
        (
            ("predict", "clip.wav", "--model", "model.onnx", "--criterion", "variation"),
            "file: spectrim export --criterion",
        ),
        (("predict", "clip.wav", "--model", "model.onnx", "--reducer", "merge"), "file: spectrim export --reducer"),
        (("embed", "clip.wav", "-o", "v.npz", "--reducer", "clusters"), "reducer is 'clusters'; allowed: 'cluster'"),
        (
            ("predict", "clip.wav", "--criterion", "value-norm"),
            "criterion is 'value-norm'; allowed: 'value_norm', perhaps",
        ),
        (("predict", "clip.wav", "--criterion", "attention"), "criterion is 'attention'; allowed: 'auto', perhaps"),
        (("train", "spc2-ast", "--data", ".", "--output", "run", "--frames", "312"), "together with --init"),
    ],
)
def test_wrong_use_is_named(untold: Path, command: tuple[str, ...], said: str) -> None:
    code, _, error = run(*(word.format(model=untold) for word in command))
    assert code == 2 and said in error


def test_an_unforeseen_error_is_one_line_and_a_file_with_the_details(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(spectrim.checkpoints, "describe", broken)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    code, out, said = run("info", "anything")
    assert (code, out) == (1, "")
    assert "Traceback" not in said and said.count("\n") == 1
    assert "unexpected RuntimeError: first line second line" in said
    found = re.search(r"details are in (\S+)", said)
    assert found is not None
    details = Path(found[1].rstrip(";")).read_text()
    assert "Traceback" in details and "in broken" in details and "spectrim 0" in details
