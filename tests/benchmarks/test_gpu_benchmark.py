"""The GPU benchmark on the CPU with tiny models: every section, and figures that agree with each other."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from benchmark_scripts import FOLDER, run_script
from full_size import full_size
from shared import made_once
from torch import Tensor

from spectrim.backbones import BUILDERS
from spectrim.network.macs import macs

HAS_TRITON = importlib.util.find_spec("triton") is not None
RATES = [1.0, 0.5]
SMALL = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "num_hidden_layers": 4}


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    if "SPECTRIM_FULL_SIZE" not in os.environ:
        pytest.skip("takes long; run it with SPECTRIM_FULL_SIZE=1, as make kernel does")

    def make(folder: Path) -> None:
        folder.mkdir()
        code, out, err = run_script("gpu.py", "--device", "cpu", "--small", "--json", folder / "gpu.json")
        assert code == 0, err
        assert [entry.name for entry in folder.iterdir()] == ["gpu.json"]
        (folder / "said").write_text(out)

    folder = made_once("gpu", make)
    return {**json.loads((folder / "gpu.json").read_text()), "said": (folder / "said").read_text()}


def executed(backbone: str, rate: float) -> int:
    fields = {**SMALL, "prune_at": [1, 2], "num_labels": 5, "max_length": 128}
    return macs(BUILDERS[f"{backbone}-base"](**fields), keep_rate=rate).executed


def is_consistent(row: dict[str, Any], roofline: float) -> None:
    assert 0 < row["q1_ms"] <= row["median_ms"] <= row["q3_ms"]
    seconds = row["median_ms"] / 1e3
    assert row["clips_per_second"] == pytest.approx(row["batch_size"] / seconds)
    assert row["tflops"] == pytest.approx(2 * row["executed_macs"] * row["batch_size"] / seconds / 1e12)
    assert row["of_roofline"] == pytest.approx(row["tflops"] / roofline)


def test_every_section_is_there_and_says_what_it_lacks(result: dict[str, Any]) -> None:
    sections = result["sections"]
    assert list(sections) == [
        *("machine", "accelerator", "kernel_check", "kernel_speed", "eager", "graphs"),
        *("end_to_end", "reference_order", "compiled"),
    ]
    errors = {name: section["error"] for name, section in sections.items() if "error" in section}
    assert errors.pop("graphs") == "needs CUDA"
    lacking = {} if HAS_TRITON else {"kernel_check": "needs triton", "kernel_speed": "needs triton"}
    assert errors == lacking
    for name, section in sections.items():
        assert section["seconds"] >= 0
        assert section.get("skipped_for_time", []) == []
        assert f"{name}: " in result["said"]
    assert sections["machine"]["versions"]["torch"] == sections["accelerator"]["torch"]
    assert (sections["machine"]["versions"]["triton"] is not None) == HAS_TRITON
    assert sections["accelerator"]["matrix_product_tflops"] > 0


@pytest.mark.parametrize("way", ["eager", "compiled"])
def test_rows_agree_with_their_medians(way: str, result: dict[str, Any]) -> None:
    rows = result["sections"][way]["rows"]
    cases = {(row["backbone"], row["batch_size"], row["keep_rate"], row["plain"]) for row in rows}
    wanted = {(backbone, 2, rate, False) for backbone in ("ast", "audiomae") for rate in RATES}
    assert cases == wanted | {("audiomae", 2, rate, True) for rate in RATES[1:]} and len(rows) == len(cases)
    dense = {row["backbone"]: row for row in rows if row["keep_rate"] == 1.0}
    for row in rows:
        is_consistent(row, result["options"]["roofline"])
        base = dense[row["backbone"]]
        assert row["executed_macs"] == executed(row["backbone"], row["keep_rate"])
        assert row["speed_up"] == pytest.approx(base["median_ms"] / row["median_ms"])
        assert row["macs_ratio"] == pytest.approx(base["executed_macs"] / row["executed_macs"])
        assert row["of_promise"] == pytest.approx(row["speed_up"] / row["macs_ratio"])
        scored = row["backbone"] == "audiomae" and row["keep_rate"] < 1.0 and not row["plain"]
        names = {"difference_from_eager"} if way != "eager" else set()
        names |= {"difference_from_plain"} if scored else set()
        differences = {name: value for name, value in row.items() if name.startswith("difference")}
        assert set(differences) == names and max(differences.values(), default=0.0) < 1e-5


def test_from_waveforms_on(result: dict[str, Any]) -> None:
    section = result["sections"]["end_to_end"]
    assert section["front_end_difference_from_cpu"] == 0.0
    for backbone in ("ast", "audiomae"):
        rows = [row for row in section["rows"] if row["backbone"] == backbone]
        alone = [("front end, samples checked", None), ("front end", None)]
        assert [(row["what"], row["keep_rate"]) for row in rows] == alone + [
            (what, rate) for rate in RATES for what in ("model", "waveforms to logits")
        ]
        for row in rows:
            is_consistent(row, result["options"]["roofline"])
            assert row["executed_macs"] == (0 if row["keep_rate"] is None else executed(backbone, row["keep_rate"]))


def test_the_reference_order_gives_our_logits(result: dict[str, Any]) -> None:
    rows = result["sections"]["reference_order"]["rows"]
    assert len(rows) == 2 * len(RATES) * 2
    for row in rows:
        is_consistent(row, result["options"]["roofline"])
        assert row["difference_in_float32"] < 1e-5
        assert (row["dtype"], row["published"]) == ("float32", row["way"] == "reference's order")
        same = [
            other["median_ms"]
            for other in rows
            if (other["backbone"], other["keep_rate"]) == (row["backbone"], row["keep_rate"])
            and other["way"].startswith("ours")
        ]
        assert row["speed_up_of_ours"] == pytest.approx(row["median_ms"] / min(same))


@pytest.mark.skipif(not HAS_TRITON, reason="needs triton")
def test_the_kernel_is_right_and_all_ways_are_timed(result: dict[str, Any]) -> None:
    for row in result["sections"]["kernel_check"]["rows"]:
        assert row["right"] and row["same_bits_again"]
        assert max(row["output_error"], row["score_error"]) < 1e-5
    speed = result["sections"]["kernel_speed"]
    ways = {row["way"] for row in speed["rows"]}
    assert len(ways) == 4 and len(speed["rows"]) == 4 * 4
    assert sorted({row["kept"] for row in speed["rows"]}) == [12, 20, 28, 40]
    assert all(row["median_ms"] > 0 for row in [*speed["rows"], *speed["tiles"]])


def test_a_trial_on_tiny_models_reaches_and_misses_nothing(result: dict[str, Any]) -> None:
    assert [target["reached"] for target in result["targets"]] == [None] * 10
    dense = max(row["of_roofline"] for way in ("eager", "compiled") for row in result["sections"][way]["rows"][:1])
    assert result["targets"][1]["found"]["of_roofline"] == dense


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    monkeypatch.syspath_prepend(str(FOLDER))
    sections = ("targets", "common", "kernel", "models", "reference")
    names = ("gpu", *(f"gpu_sections.{name}" for name in sections))
    return {name: importlib.import_module(name) for name in names}


def test_all_ways_of_the_kernel_section_give_the_same(modules: dict[str, ModuleType]) -> None:
    if not HAS_TRITON or torch.cuda.is_available():
        pytest.skip("needs Triton's interpreter")
    section = modules["gpu_sections.kernel"]
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = (torch.randn(2, 2, 41, 16, generator=generator) for _ in range(3))
    answers = [way(queries, keys, values, 23) for way in section.WAYS.values()]
    for answer in answers[1:]:
        assert answer.shape == (2, 24, 32)
        torch.testing.assert_close(answer[:, 0], answers[0][:, 0], rtol=1e-4, atol=1e-5)
        found, wanted = (tensor[:, 1:].sum(dim=1) for tensor in (answer, answers[0]))
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def trial(modules: dict[str, ModuleType], late: bool) -> Any:
    size = (torch.device("cpu"), True, torch.float32, 128, 5, (2,), (1.0, 0.5), 2, 1)
    return modules["gpu_sections.common"].Setting(*size, 1e12, None, lambda: late)


@full_size
def test_a_gpu_adds_rows_for_graphs(modules: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in that captures nothing."""
    monkeypatch.setattr(modules["gpu_sections.common"].Setting, "is_cuda", True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    captured = []

    def stand_in(call: Callable[[Tensor], Tensor], values: Tensor) -> Callable[[Tensor], Tensor]:
        captured.append(call(values))
        return call

    for name in ("kernel", "models", "reference"):
        monkeypatch.setattr(modules[f"gpu_sections.{name}"], "captured", stand_in)
    setting, gpu = trial(modules, late=False), modules["gpu"]
    found = {name: gpu.attempt(getattr(gpu, name), setting) for name in ("graphs", "end_to_end", "reference_order")}
    assert [section for section in found.values() if "error" in section] == []
    rows = found["graphs"]["rows"]
    assert [(row["backbone"], row["keep_rate"], row["plain"]) for row in rows] == [
        *(("ast", 1.0, False), ("ast", 0.5, False)),
        *(("audiomae", 1.0, False), ("audiomae", 0.5, False), ("audiomae", 0.5, True)),
    ]
    by_graph = [row for row in found["end_to_end"]["rows"] if row["way"] == "graph"]
    whats = [row["what"] for row in by_graph if row["backbone"] == "ast"]
    assert whats == ["front end", *["model", "waveforms to logits"] * 2] and len(by_graph) == 2 * 5
    beside = [(row["way"], row["dtype"], row["published"]) for row in found["reference_order"]["rows"]]
    ours = [("ours", "float32", False), ("ours, graph", "float32", False)]
    cast = [("reference's order", "autocast float16", True), ("reference's order", "float32", False)]
    assert beside == [*cast, *ours] * 2 + [("reference's order", "float32", True), *ours] * 2
    assert len(captured) == 5 + 10 + 4
    if HAS_TRITON and not torch.cuda.is_available():
        speed = gpu.attempt(gpu.kernel_speed, setting)
        assert sorted({row["launched"] for row in speed["rows"]}) == ["eager", "graph"] and len(speed["rows"]) == 32


def test_the_published_order_of_ast_runs_in_autocast(
    modules: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """float16 products of float32 weights, as `torch.cuda.amp.autocast` has it."""
    section, setting = modules["gpu_sections.reference"], trial(modules, late=False)
    assert [section.published_precision(setting, name) for name in ("ast", "audiomae")] == ["float32", "float32"]
    monkeypatch.setattr(modules["gpu_sections.common"].Setting, "is_cuda", True)
    assert section.published_precision(setting, "ast") == "autocast float16"
    assert section.published_precision(setting, "audiomae") == "float32"
    model = setting.model("ast")
    order, values = section.ReferenceOrder(model, 1.0), setting.spectrograms(model, 2)
    precise, cast = (section.in_precision(kind, order)(values) for kind in ("float32", "autocast float16"))
    assert (precise.dtype, cast.dtype) == (torch.float32, torch.float16)
    with torch.autocast("cpu", torch.float16), torch.inference_mode():
        assert torch.equal(cast, order(values))
    torch.testing.assert_close(cast.float(), precise, rtol=1e-2, atol=1e-2)
    assert not torch.equal(cast.float(), precise)
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}


def test_the_model_with_the_kernel_is_held_against_the_model_without_it(
    modules: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in whose logits are 3 with the kernel and 2 without it, and graphs that add 1."""
    section = modules["gpu_sections.models"]

    def stand_in(model: object, rate: float, plain: bool = False) -> Callable[[Tensor], Tensor]:
        return lambda values: torch.full((2, 5), 2.0 if plain else 3.0)

    monkeypatch.setattr(section, "passing", stand_in)
    monkeypatch.setattr(section, "captured", lambda call, values: lambda fresh: call(fresh) + 1)
    setting = trial(modules, late=False)
    eager = {(row["backbone"], row["keep_rate"], row["plain"]): row for row in section.eager(setting)["rows"]}
    assert eager["audiomae", 0.5, False]["difference_from_plain"] == pytest.approx(0.5)
    assert [case for case, row in eager.items() if "difference_from_plain" in row] == [("audiomae", 0.5, False)]
    assert not any("difference_from_eager" in row for row in eager.values())
    monkeypatch.setattr(modules["gpu_sections.common"].Setting, "is_cuda", True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    graphs = {(row["backbone"], row["keep_rate"], row["plain"]): row for row in section.graphs(setting)["rows"]}
    found = graphs["audiomae", 0.5, False], graphs["audiomae", 0.5, True]
    assert [row["difference_from_eager"] for row in found] == pytest.approx([1 / 3, 1 / 2])
    assert found[0]["difference_from_plain"] == pytest.approx(1.0) and "difference_from_plain" not in found[1]


def test_no_compilation_begins_in_the_last_quarter(
    modules: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr(modules["gpu_sections.common"].time, "monotonic", lambda: now[0])
    gpu = modules["gpu"]
    limit = gpu.limits(gpu.SECONDS_IN_ALL)
    for begins, name, lasts in ((0, "eager", 60), (530, "eager", 30), (100, "compiled", 240), (380, "compiled", 40)):
        now[0] = 1000.0 + begins
        late = limit(name)
        now[0] += lasts - 0.5
        assert not late(), (begins, name)
        now[0] += 1.0
        assert late(), (begins, name)


def test_a_section_that_fails_is_recorded(modules: dict[str, ModuleType]) -> None:
    gpu, setting = modules["gpu"], trial(modules, late=True)

    def broken(setting: object) -> dict[str, Any]:
        raise ValueError("no such thing")

    failed = gpu.attempt(broken, setting)
    assert failed["error"] == "ValueError: no such thing" and "broken" in failed["traceback"]
    late = gpu.attempt(gpu.eager, setting)
    assert late["rows"] == [] and late["skipped_for_time"] == ["ast, batch 2", "audiomae, batch 2"]


def test_aims_are_held_against_the_figures(modules: dict[str, ModuleType]) -> None:
    judge = modules["gpu_sections.targets"].judge

    def row(backbone: str, batch: int, rate: float, median: float, promise: float, roofline: float) -> dict[str, Any]:
        return {
            "backbone": backbone,
            "batch_size": batch,
            "keep_rate": rate,
            "plain": False,
            "median_ms": median,
            "of_promise": promise,
            "of_roofline": roofline,
            "tflops": 1.0,
            "clips_per_second": 1.0,
        }

    eager = [row("ast", 1, 1.0, 5.0, 1.0, 0.1), row("ast", 1, 0.7, 4.9, 0.6, 0.1), row("ast", 1, 0.5, 4.8, 0.5, 0.1)]
    graphs = [
        *(row("ast", 1, 1.0, 2.0, 1.0, 0.2), row("ast", 1, 0.7, 1.4, 0.93, 0.2), row("ast", 1, 0.5, 1.2, 0.8, 0.2)),
        *(row("ast", 32, 1.0, 9.0, 1.0, 0.5), row("ast", 32, 0.7, 6.0, 0.95, 0.5), row("ast", 32, 0.5, 5.0, 0.9, 0.5)),
    ]
    reference = [
        {"backbone": "ast", "way": "reference's order", "keep_rate": 0.7, "dtype": kind, "speed_up_of_ours": ratio}
        for kind, ratio in (("autocast float16", 3.1), ("bfloat16", 3.2))
    ] + [
        {"backbone": "audiomae", "way": "reference's order", "keep_rate": 0.7, "dtype": kind, "speed_up_of_ours": ratio}
        for kind, ratio in (("float32", 3.5), ("bfloat16", 2.0))
    ]
    aims = judge(
        {
            "kernel_check": {"rows": [{"right": True}, {"right": False}]},
            "eager": {"rows": eager},
            "graphs": {"rows": graphs},
            "compiled": {"error": "no compiler"},
            "reference_order": {"rows": reference},
        }
    )
    reached = {aim["aim"]: aim["reached"] for aim in aims}
    assert reached == {
        "the kernel agrees with float64": False,
        "ast: dense share of the roofline": True,
        "audiomae: dense share of the roofline": None,
        "ast, r = 0.7: speed-up over the ratio of executed MACs": True,
        "ast, r = 0.5: speed-up over the ratio of executed MACs": False,
        "audiomae, r = 0.7: speed-up over the ratio of executed MACs": None,
        "audiomae, r = 0.5: speed-up over the ratio of executed MACs": None,
        "ast: times the speed of the reference's order of computing": True,
        "audiomae: times the speed of the reference's order of computing": False,
        "waveforms to logits, clips per second": None,
    }
    by_name = {aim["aim"]: aim["found"] for aim in aims}
    assert by_name["audiomae: times the speed of the reference's order of computing"] == {
        "r = 0.7, float32": 3.5,
        "r = 0.7, bfloat16": 2.0,
    }
    assert by_name["ast, r = 0.5: speed-up over the ratio of executed MACs"] == {
        "batch 1, graphs": 0.8,
        "batch 32, graphs": 0.9,
    }


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_before_any_work(tmp_path: Path) -> None:
    """In a process of its own, as all scripts are called."""
    command = [sys.executable, str(FOLDER / "gpu.py"), "--json", str(tmp_path / "gpu.json")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and "no usable CUDA device" in done.stderr and "--device cpu --small" in done.stderr
    assert not list(tmp_path.iterdir())
