"""What an exported graph computes, beside the plain order of computing, PyTorch and NumPy."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from exported import SAMPLES, exported, noise, tiny_model, with_weight
from full_size import full_size
from plain import plain_forward
from scipy.special import expit, softmax

from spectrim.assets import packaged_clips
from spectrim.audio.frontend import Frontend
from spectrim.backbones import ast_base
from spectrim.errors import ExportError, InvalidSetting, MissingExtra
from spectrim.inference import onnx_graph
from spectrim.inference.onnx_export import (
    CHECK_CLIPS,
    TIE,
    _batches,
    _Compared,
    _gap,
    _judge,
    check_export,
    check_settings,
    comparison_clips,
    export,
)
from spectrim.inference.onnx_metadata import write_metadata
from spectrim.inference.onnx_model import OnnxModel
from spectrim.inference.openvino_model import compiled
from spectrim.network.transformer import AudioTransformer

CASES = [
    ("ast", "auto", True),
    ("audiomae", "auto", False),
    ("ast", "intensity", False),
    ("audiomae", "variation", False),
    ("ast", "random", False),
    ("ast", "cls_weighted_norm", False),
    ("audiomae", "cls_head_median", False),
    ("audiomae", "value_norm", False),
    ("ast", "cls_without_sinks", False),
    ("ast", "cls_attention_so_far", False),
    ("audiomae", "mean_attention_so_far", False),
]


BATCHES = [slice(0, 1), slice(1, 4), slice(4, 6)]
"""In which the six clips are compared; in int8 what is beside a clip changes its logits."""


def inputs_of(model: AudioTransformer, waves: list[np.ndarray], front_end: bool) -> dict[str, np.ndarray]:
    if not front_end:
        return {"input_values": Frontend.from_config(model.config)(waves).input_values.numpy()}
    rows = np.zeros((len(waves), SAMPLES), dtype=np.float32)
    for row, wave in zip(rows, waves, strict=True):
        row[: len(wave)] = wave[:SAMPLES]
        row[len(wave) :] = 0.3
    return {"waveforms": rows, "num_samples": np.array([len(wave) for wave in waves])}


def run(path: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, feeds), strict=True))


@pytest.mark.parametrize(("backbone", "criterion", "front_end"), CASES)
def test_a_file_computes_what_the_plain_order_of_computing_gives(
    backbone: str, criterion: str, front_end: bool
) -> None:
    """Clips of many lengths, of which what lies past the end is not read, in batches of 1 and 3."""
    model, path = exported(backbone, criterion, front_end)
    for waves in (noise()[:1], noise()[3:]):
        found = run(path, inputs_of(model, waves, front_end))
        frames = Frontend.from_config(model.config)(waves).input_values
        for place, clip in enumerate(frames):
            wanted = plain_forward(model, clip)
            np.testing.assert_allclose(found["logits"][place], wanted.logits.detach(), atol=1e-4)
            survived = sum(np.isin(np.arange(32), sorted(kept)).astype(int) for kept in wanted.kept)
            np.testing.assert_array_equal(found["kept"][place].ravel(), survived)
        np.testing.assert_allclose(found["scores"], softmax(found["logits"], axis=1), atol=1e-6)


def test_a_dense_training_model_in_double_with_many_labels(tmp_path: Path) -> None:
    """Its scores are sigmoids, the report says that all is well, and the model stays as it was."""
    fields = {"problem_type": "multi_label_classification", "num_hidden_layers": 1, "prune_at": [0], "keep_rate": 1.0}
    model = tiny_model("ast", **fields).double().train()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    written = export(model, tmp_path / "many.onnx", clips=noise())
    found = run(written.path, inputs_of(model, noise(), False))
    np.testing.assert_allclose(found["scores"], expit(found["logits"]), atol=1e-6)
    parity = written.parity
    assert (parity.clips, parity.kept_equal, parity.kept_shared, parity.first_label_agrees) == (6, 1, 1, 1)
    assert 0 < parity.largest_difference < 1e-4
    assert (written.patches, written.takes, written.precision) == ([32, 32], "log_mel", "fp32")
    assert (found["kept"] == 1).all()
    kinds = [node.op_type for node in onnx.load(written.path).graph.node]
    assert (kinds.count("Softmax"), kinds.count("TopK"), kinds.count("GatherND")) == (1, 0, 0)
    assert written.megabytes == written.path.stat().st_size / 1e6
    assert model.training
    for name, weight in model.state_dict().items():
        assert weight.dtype == torch.float64
        assert torch.equal(weight, before[name])


@pytest.mark.parametrize("reducer", ["merge", pytest.param("pitome", marks=full_size)])
def test_a_file_of_half_precision_that_merges_runs(tmp_path: Path, reducer: str) -> None:
    model = tiny_model("ast", num_hidden_layers=1, prune_at=[0], keep_rate=0.6, reducer=reducer)
    written = export(model, tmp_path / "small.onnx", front_end=False, precision="fp16", clips=noise())
    assert written.parity.relative_difference < 0.2  # two pairs that are alike may merge the other way


@pytest.mark.parametrize(("precision", "near"), [("fp16", 0.02), ("int8", 0.3)])
def test_smaller_weights_come_near_and_say_how_near(tmp_path: Path, precision: str, near: float) -> None:
    model = tiny_model("ast", num_hidden_layers=1, prune_at=[0])
    front_end = precision == "int8"
    written = export(model, tmp_path / "small.onnx", front_end=front_end, precision=precision, clips=noise())
    parts = [run(written.path, inputs_of(model, noise()[edges], front_end)) for edges in BATCHES]
    found = {name: np.concatenate([part[name] for part in parts]) for name in ("logits", "kept")}
    with torch.no_grad():
        wanted = model(Frontend.from_config(model.config)(noise()).input_values, output_token_trace=True)
    logits, alive, kept = wanted.logits.numpy(), wanted.token_trace.kept[0].numpy(), found["kept"] == 1
    difference = found["logits"].astype(np.float64) - logits
    relative = np.sqrt(np.square(difference).mean()) / logits.std(ddof=1)
    assert 1e-5 < relative < near
    assert written.parity.relative_difference == pytest.approx(relative, rel=1e-3)
    assert written.parity.largest_difference == pytest.approx(np.abs(difference).max(), rel=1e-3)
    agrees = (found["logits"].argmax(axis=1) == logits.argmax(axis=1)).mean()
    assert written.parity.first_label_agrees == pytest.approx(agrees)
    assert written.parity.kept_equal == pytest.approx((kept == alive).all(axis=(1, 2)).mean())
    assert written.parity.kept_shared == pytest.approx((kept & alive).sum() / alive.sum())
    weights = {"fp16": onnx.TensorProto.FLOAT16, "int8": onnx.TensorProto.INT8}[precision]
    up = (64, 128)
    kinds = [weight.data_type for weight in onnx.load(written.path).graph.initializer if tuple(weight.dims) == up]
    assert kinds == [weights] * len(kinds) != []
    assert found["logits"].dtype == np.float32


def test_one_file_with_labels_and_settings_and_no_traces_of_where_it_was_made() -> None:
    model, path = exported("audiomae")
    graph = onnx.load(path)
    onnx.checker.check_model(graph, full_check=True)
    facts = {fact.key: fact.value for fact in graph.metadata_props}
    assert json.loads(facts["labels"]) == [model.config.id2label[index] for index in range(5)]
    assert json.loads(facts["patches"]) == [32, 20, 12]
    assert (facts["precision"], facts["takes"], facts["sampling_rate"]) == ("fp32", "log_mel", "16000")
    settings = json.loads(facts["config"])
    for name in ("backbone", "keep_rate", "prune_at", "criterion", "mean", "std", "padding", "max_length"):
        assert settings[name] == getattr(model.config, name)
    shapes = {
        given.name: [size.dim_param or size.dim_value for size in given.type.tensor_type.shape.dim]
        for given in (*graph.graph.input, *graph.graph.output)
    }
    batch = shapes["input_values"][0]
    assert isinstance(batch, str)
    assert shapes == {
        "input_values": [batch, 64, 128],
        "logits": [batch, 5],
        "scores": [batch, 5],
        "kept": [batch, 8, 4],
    }
    assert not any(weight.HasField("data_location") and weight.data_location for weight in graph.graph.initializer)
    content = path.read_bytes()
    for trace in (b"site-packages", b"spectrim/", b"stack_trace", str(Path.cwd()).encode(), str(Path.home()).encode()):
        assert trace not in content, trace
    assert not list(path.parent.glob("*.partial*"))
    assert not list(path.parent.glob("*.data"))


def test_tokens_are_gathered_whole_and_scores_nobody_reads_are_not_computed() -> None:
    kinds = [node.op_type for node in onnx.load(exported("ast", "auto", True)[1]).graph.node]
    assert kinds.count("GatherND") == 2
    assert kinds.count("Softmax") == 2 + 2 + 1


class Lowered(torch.nn.Module):
    """Every operation that is put into ONNX in our own way, in more shapes than the models have."""

    windows = ((1, 5, 2), (2, 4, 4), (2, 3, 5), (-1, 16, 1), (1, 11, 3))

    def forward(self, values: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, ...]:
        unfolded = [values.unfold(*window).contiguous() for window in self.windows]
        spectrum = torch.fft.rfft(values.double())
        order = values[:, :, 0].round().argsort(dim=1, descending=True, stable=True)
        rising = values[:, :, 0].round().argsort(dim=1, stable=True)
        tokens = values.gather(1, index.unsqueeze(-1).expand(-1, -1, 16))
        single = values.gather(1, index.unsqueeze(-1).expand(-1, -1, 16) * 0 + torch.arange(16) % 11)
        mixed = torch.nn.functional.scaled_dot_product_attention(values[:, None, :3], values[:, None], values[:, None])
        return *unfolded, spectrum.real, spectrum.imag, order, rising, tokens, single, mixed


def test_own_lowerings_are_the_operations() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(3, 11, 16, generator=generator)
    index = torch.stack([torch.randperm(11, generator=generator)[:4] for _ in range(3)])
    names = [f"out{number}" for number in range(len(Lowered.windows) + 7)]
    graph = onnx_graph._export(Lowered(), {"values": values[:2], "index": index[:2]}, names)
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    found = session.run(names, {"values": values.numpy(), "index": index.numpy()})
    array = values.numpy()
    for (axis, size, step), part in zip(Lowered.windows, found, strict=False):
        wanted = np.lib.stride_tricks.sliding_window_view(array, size, axis)
        np.testing.assert_array_equal(part, wanted[(slice(None),) * (axis % 3) + (slice(None, None, step),)])
    real, imaginary, order, rising, tokens, single, mixed = found[len(Lowered.windows) :]
    spectrum = np.fft.rfft(array.astype(np.float64))
    np.testing.assert_allclose(real + 1j * imaginary, spectrum, atol=1e-12)
    rounded = np.round(array[:, :, 0])
    assert len(np.unique(rounded[0])) < 11
    np.testing.assert_array_equal(order, np.argsort(-rounded, axis=1, kind="stable"))
    np.testing.assert_array_equal(rising, np.argsort(rounded, axis=1, kind="stable"))
    np.testing.assert_array_equal(tokens, np.take_along_axis(array, index.numpy()[:, :, None], axis=1))
    np.testing.assert_array_equal(single, array[:, np.arange(16) % 11, np.arange(16)][:, None].repeat(4, axis=1))
    weights = softmax(array[:, :3] @ array.transpose(0, 2, 1) / 4.0, axis=-1)
    np.testing.assert_allclose(mixed[:, 0], weights @ array, atol=1e-5)


class Sorted(torch.nn.Module):
    """Stable sorts, along several axes, in both directions."""

    def forward(self, values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        lowest_first = values.sort(dim=1, stable=True)
        return *lowest_first, *values.transpose(1, 2).sort(dim=-1, descending=True, stable=True)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_equal_values_stay_in_their_order(tmp_path: Path, runtime: str) -> None:
    """In OpenVINO too, whose own sort puts them in any order."""
    openvino = pytest.importorskip("openvino")
    values = torch.randint(0, 4, (3, 200, 2), generator=torch.Generator().manual_seed(0)).float()
    names = ["rising", "rising_order", "falling", "falling_order"]
    path = tmp_path / "sorted.onnx"
    onnx.save(onnx_graph._export(Sorted(), {"values": values[:2]}, names), path)
    feeds = {"values": values.numpy()}
    found = run(path, feeds) if runtime == "onnxruntime" else compiled(openvino.Core().read_model(path), {})(feeds)
    array = values.numpy()
    turned = array.transpose(0, 2, 1)
    np.testing.assert_array_equal(found["rising"], np.sort(array, axis=1))
    np.testing.assert_array_equal(found["rising_order"], np.argsort(array, axis=1, kind="stable"))
    np.testing.assert_array_equal(found["falling"], -np.sort(-turned, axis=2))
    np.testing.assert_array_equal(found["falling_order"], np.argsort(-turned, axis=2, kind="stable"))


# The comparison with PyTorch


def test_a_changed_weight_is_found(tmp_path: Path) -> None:
    model, path = exported("ast", "auto", True)
    assert check_export(path, model, noise()).ties == []
    changed = with_weight(path, tmp_path / "changed.onnx", "head.linear.weight", 1.001)
    with pytest.raises(ExportError, match=r"changed\.onnx: its logits are not those of the model: largest difference"):
        check_export(changed, model, noise())


def test_other_patches_are_found(tmp_path: Path) -> None:
    model, path = exported("ast", "auto", True)
    changed = with_weight(path, tmp_path / "changed.onnx", "attention.query.bias", -20.0)
    with pytest.raises(ExportError, match=r"keeps other patches than the model: clip 0, block \d, patches \[\("):
        check_export(changed, model, noise())


def test_no_clips_to_compare_on_are_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, path = exported("ast", "auto", True)
    monkeypatch.setattr(onnx_graph, "encoder_graph", None)
    monkeypatch.setattr("spectrim.inference.onnx_export.OnnxModel", None)
    for call in (lambda: check_export(path, model, []), lambda: export(model, tmp_path / "model.onnx", clips=[])):
        with pytest.raises(InvalidSetting, match=r"^clips is \[\]; allowed: at least one waveform"):
            call()
    assert not list(tmp_path.iterdir())


def test_another_operating_point_is_found() -> None:
    model, path = exported("ast", "auto", True)
    other = copy.deepcopy(model).set_pruning(keep_rate=0.7)
    with pytest.raises(ExportError, match=r"another model or operating point; it differs in \['keep_rate'\]"):
        check_export(path, other, noise())


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_file_that_fails_leaves_nothing_and_what_was_there_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    model, path = exported("audiomae")
    wrong = onnx.load(path)
    for weight in wrong.graph.initializer:
        if "head.linear.weight" in weight.name:
            values = onnx.numpy_helper.to_array(weight)
            weight.CopyFrom(onnx.numpy_helper.from_array(-values, weight.name))
    monkeypatch.setattr(onnx_graph, "encoder_graph", lambda *_: wrong)
    target = tmp_path / "model.onnx"
    target.write_text("before")
    with pytest.raises(ExportError, match="its logits are not those"):
        export(model, target, clips=noise(), precision=precision)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("model.onnx", "before")]


def compared(scores: list[float], theirs: list[bool]) -> _Compared:
    """A clip of which PyTorch keeps the first two of four patches, and the file what is said."""
    grid = (1, 2, 2)
    kept = torch.tensor([True, True, False, False]).reshape(grid)
    logits = torch.tensor([[1.0, 2.0]])
    far = logits + (0.0 if torch.equal(kept, torch.tensor(theirs).reshape(grid)) else 0.5)
    return _Compared(
        logits, far, {3: kept}, {3: torch.tensor(theirs).reshape(grid)}, {3: torch.tensor(scores).reshape(grid)}
    )


def test_ties_are_named_and_their_logits_not_held_against_the_file() -> None:
    file = OnnxModel(exported("ast", "auto", True)[1])
    same = compared([4.0, 3.0, 2.0, 1.0], [True, True, False, False])
    tied = compared([4.0, 3.0, 3.0 * (1 - 0.2 * TIE), 1.0], [True, False, True, False])
    parity = _judge(file, [same, tied])
    [tie] = parity.ties
    assert (tie.clip, tie.block, tie.patches) == (1, 3, [(0, 1), (1, 0)])
    assert tie.gap == pytest.approx(3.0 * 0.2 * TIE / (3.0 + 0.01 * 2.5), rel=1e-2)
    assert parity.largest_difference == 0.0
    assert (parity.kept_equal, parity.kept_shared) == (0.5, 0.75)
    with pytest.raises(ExportError, match="2 of 3 clips have ties"):
        _judge(file, [same, tied, tied])
    apart = compared([4.0, 3.0, 2.99, 1.0], [True, False, True, False])
    with pytest.raises(ExportError, match=r"clip 1, block 3, patches \[\(0, 1\), \(1, 0\)\]"):
        _judge(file, [same, apart])


def test_clips_for_comparing_are_short_and_full_and_of_every_kind() -> None:
    config = ast_base(max_length=512)
    waves = comparison_clips(config)
    full = 511 * 160 + 400
    assert [len(wave) for wave in waves[1::2]] == [full] * (CHECK_CLIPS // 2)
    assert all(len(wave) < full for wave in waves[::2])
    assert len({wave[:400].tobytes() for wave in waves}) == CHECK_CLIPS
    assert len(packaged_clips()) > CHECK_CLIPS
    halves = comparison_clips(ast_base(max_length=128, sampling_rate=8000), 4)
    assert all(len(wave) <= 127 * 80 + 200 for wave in halves)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 12, 13, 30])
def test_batches_of_several_sizes_cover_all_clips(count: int) -> None:
    parts = _batches(count)
    assert [place for start, stop in parts for place in range(start, stop)] == list(range(count))
    assert [stop - start for start, stop in parts][:2] == [1, min(3, count - 1)][: len(parts)]


# What is refused


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("precision", {"precision": "int4"}),
        ("output", {"path": "model.pt"}),
        ("output", {"path": "nowhere/model.onnx"}),
        ("output", {"path": "folder.onnx"}),
        ("drop_padding", {"fields": {"drop_padding": True}}),
        ("attention_mass", {"fields": {"attention_mass": 0.9}}),
        ("reference_compat", {"fields": {"reference_compat": True, "criterion": "intensity"}}),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, field: str, options: dict[str, Any]
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it began to work")

    monkeypatch.setattr(onnx_graph, "encoder_graph", never)
    (tmp_path / "folder.onnx").mkdir()
    model = tiny_model("ast", **options.get("fields", {}))
    with pytest.raises(InvalidSetting, match=f"^{field} is "):
        export(model, tmp_path / options.get("path", "a.onnx"), precision=options.get("precision", "fp32"))
    assert [file.name for file in tmp_path.iterdir()] == ["folder.onnx"]


def test_a_model_too_large_for_one_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("ast")
    size = 4 * sum(weight.numel() for weight in model.parameters())
    monkeypatch.setattr("spectrim.inference.onnx_export.LARGEST_FILE", size - 1)
    with pytest.raises(InvalidSetting, match=r"precision is 'fp32'; allowed: fp16, or a smaller model"):
        export(model, tmp_path / "a.onnx")


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else object())
    with pytest.raises(MissingExtra, match=rf"exporting a model needs {package}; .*spectrim\[onnx\]"):
        check_settings(tmp_path / "a.onnx", "fp32")


def test_metadata_have_nothing_private(tmp_path: Path) -> None:
    model = tiny_model("ast")
    model.save_pretrained(tmp_path)
    loaded = AudioTransformer.from_pretrained(tmp_path)
    facts = write_metadata(loaded.config, "fp32", "log_mel")
    assert str(tmp_path) not in json.dumps(facts)


# OpenVINO


@pytest.mark.parametrize(("backbone", "criterion", "front_end"), CASES[:4])
def test_openvino_reads_the_same_file(backbone: str, criterion: str, front_end: bool) -> None:
    """OpenVINO computes the front end in float32, so a waveform's logits are a little further off.

    Of the short clips most patches are padding, of equal intensity and variation.
    """
    openvino = pytest.importorskip("openvino")
    model, path = exported(backbone, criterion, front_end)
    model_there = compiled(openvino.Core().read_model(path), {"INFERENCE_PRECISION_HINT": "f32"})
    for waves in (noise()[:1], noise()[:3], *([] if front_end else [noise()[3:]])):
        feeds = inputs_of(model, waves, front_end)
        found, wanted = model_there(feeds), run(path, feeds)
        np.testing.assert_allclose(found["logits"], wanted["logits"], atol=1e-2 if front_end else 1e-4)
        np.testing.assert_array_equal(found["kept"], wanted["kept"])


@pytest.mark.parametrize(
    ("scores", "theirs", "segments", "gap"),
    [
        ([4.0, 3.0, 2.0, 1.0, 0.5, 0.5, 0.5, 0.5], [0, 2], 1, 1 / (3 + 0.015)),
        ([10.0, 8.0, 8.0, 0.1, 0.1, 0.1, 0.1, 0.1], [0, 2], 1, 0.0),
        ([-6.0, 0.002, 0.001, -6.0, -6.0, -6.0, -6.0, -6.0], [0, 2], 1, 0.001 / (0.002 + 0.045)),
        ([0.0] * 8, [2, 3], 1, 0.0),
        ([1.0, 0.5, 0.5, 0.4, 0.3, 0.3, 0.3, 0.3], [0, 2], 2, 0.0),
        ([1.0, float("nan"), 0.5, 0.4, 0.3, 0.3, 0.3, 0.3], [0, 2], 1, math.inf),
    ],
)
def test_how_far_swapped_patches_are_apart(scores: list[float], theirs: list[int], segments: int, gap: float) -> None:
    """The model keeps patches 0 and 1 of a grid of 2 by 4, the file those that are named."""
    kept = [torch.zeros(8, dtype=torch.bool).index_fill(0, torch.tensor(which), True) for which in ([0, 1], theirs)]
    grid = torch.tensor(scores, dtype=torch.float64).reshape(2, 4)
    found = _gap(grid, *(which.reshape(2, 4) for which in kept), segments)
    assert found == pytest.approx(gap, rel=1e-2, abs=1e-12)


def test_ties_are_sought_within_the_segments_that_have_a_quota() -> None:
    """One tie in a loud half, one in a quiet half: all four apart, the two of each half not."""
    scores = torch.tensor([[9.0, 9.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    ours, theirs = (torch.tensor([row, [False] * 4]) for row in ([True, False] * 2, [False, True] * 2))
    assert _gap(scores, ours, theirs, 2) == 0.0
    assert _gap(scores, ours, theirs, 1) > 0.8
