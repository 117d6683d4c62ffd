"""The speed benchmarks with tiny models: that they run, that what they say follows from what they timed."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from benchmark_scripts import FOLDER, run_script
from full_size import full_size
from seeded import uniform
from shared import made_once

from spectrim.backbones import ast_base
from spectrim.network.macs import macs
from spectrim.network.transformer import AudioTransformer

RECORDED = Path(__file__).parents[1] / "reference" / "tome.npz"
SMALL = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "num_hidden_layers": 4}


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    sys.path.insert(0, str(FOLDER))
    try:
        names = ("peers.tome", "peers.reference", "targets", "kwt_table", "tables", "figures")
        yield {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.remove(str(FOLDER))


def run(script: str, path: Path, *options: str) -> Any:
    code, _, err = run_script(script, "--json", path, "--small", *options)
    assert code == 0, err
    return json.loads(path.read_text())


CASES = ("--cases", "ast-1s", "audiomae-1s", "--batch-sizes", "1", "8", "--repeats", "2")


@pytest.fixture(scope="module")
def speed() -> Any:
    def make(folder: Path) -> None:
        folder.mkdir()
        run("speed.py", folder / "speed.json", *CASES)

    return json.loads((made_once("speed", make) / "speed.json").read_text())


def test_merging_equals_the_public_code(scripts: dict[str, ModuleType]) -> None:
    recorded = np.load(RECORDED)
    tome = scripts["peers.tome"]
    cases = sorted({key.rpartition("/")[0] for key in recorded})
    assert len(cases) == 5
    for case in cases:
        count, merged, extra = map(int, case.split("/"))
        metric, tokens = uniform(f"metric-{count}", (2, count, 16), 7), uniform(f"tokens-{count}", (2, count, 8), 7)
        sizes = (uniform(f"sizes-{count}", (2, count, 1), 7).abs() * 4).floor() + 1
        joined, joined_sizes = tome.merge(tokens, sizes, tome.match(metric, merged, extra), extra)
        np.testing.assert_allclose(joined.numpy(), recorded[f"{case}/tokens"], rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(joined_sizes.numpy(), recorded[f"{case}/sizes"])


def test_merging_nothing_is_the_dense_model(scripts: dict[str, ModuleType]) -> None:
    torch.manual_seed(0)
    model = AudioTransformer(ast_base(max_length=128, num_labels=5, prune_at=[1, 2], **SMALL)).eval()
    values = torch.randn(2, 128, 128)
    with torch.inference_mode():
        merged = scripts["peers.tome"].MergingAST(model, 0)(values)
        torch.testing.assert_close(merged, model(values, keep_rate=1.0).logits, rtol=1e-5, atol=1e-5)


def test_merging_is_set_to_the_macs_asked_for(scripts: dict[str, ModuleType]) -> None:
    tome = scripts["peers.tome"]
    with torch.device("meta"):
        model = AudioTransformer(ast_base(max_length=1024, num_labels=527))
    dense = tome.multiply_accumulates(model, 0)
    assert dense == pytest.approx(macs(model, keep_rate=1.0).paper, rel=1e-3)
    for rate in (0.7, 0.5):
        wanted = macs(model, keep_rate=rate).executed
        merged = tome.merged_for(model, wanted)
        assert tome.multiply_accumulates(model, merged) <= wanted < tome.multiply_accumulates(model, merged - 1)


def test_every_contender_is_timed_and_those_that_should_agree_do(speed: Any) -> None:
    rows = speed["rows"]
    names = {row["contender"] for row in rows if row["case"] == "ast-1s"}
    assert {"transformers, eager", "transformers, sdpa", "ToMe as in FastAST", "spectrim", "spectrim, bf16"} <= names
    assert {"spectrim, ONNX Runtime fp32", "spectrim, ONNX Runtime int8", "spectrim, OpenVINO fp32"} <= names
    for row in rows:
        assert 0 < row["q1_ms"] <= row["median_ms"] <= row["q3_ms"]
        assert row["median_ms"] == pytest.approx(np.median(row["rounds_ms"]), abs=1e-3)
        assert row["ms_per_clip"] == pytest.approx(row["median_ms"] / row["batch_size"])
        if row["contender"] in ("transformers, sdpa", "spectrim, ONNX Runtime fp32", "spectrim, OpenVINO fp32"):
            assert row["agrees"] is True
            assert row["logits_apart"] < 1e-4
    apart = {row["contender"]: row["logits_apart"] for row in rows if row["keep_rate"] == 0.5}
    assert apart["ToMe as in FastAST"] > 0.1


def test_a_finished_file_is_not_timed_again(speed: Any, tmp_path: Path) -> None:
    path = tmp_path / "speed.json"
    path.write_text(json.dumps(speed))
    again = run("speed.py", path, *CASES, "--resume")
    assert again["rows"] == speed["rows"]


def test_a_file_of_other_models_is_not_gone_on_with(speed: Any, tmp_path: Path) -> None:
    path = tmp_path / "speed.json"
    path.write_text(json.dumps({**speed, "small": False}))
    code, _, err = run_script("speed.py", "--json", path, "--small", "--resume")
    assert code == 1
    assert "was made with another small: " in err
    assert json.loads(path.read_text())["rows"] == speed["rows"]


def test_targets_are_ratios_of_medians(scripts: dict[str, ModuleType]) -> None:
    def row(contender: str, rate: float, rounds: list[float], count: int) -> dict[str, Any]:
        place = {"case": "ast-10s", "batch_size": 1, "contender": contender, "keep_rate": rate, "macs": count}
        return {**place, "rounds_ms": rounds, "median_ms": float(np.median(rounds))}

    rows = [
        row("transformers, sdpa", 1.0, [200.0, 210.0, 190.0], 100),
        row("spectrim", 1.0, [100.0, 100.0, 100.0], 100),
        row("spectrim", 0.7, [60.0, 50.0, 50.0], 50),
        row("spectrim, ONNX Runtime int8", 0.7, [100.0, 100.0, 90.0], 50),
    ]
    found = {(one.target, one.wanted): one for one in scripts["targets"].outcomes(rows)}
    saved = found["saved time over saved MACs, r=0.7 (2.00× fewer MACs)", 0.9]
    assert (saved.ratio, saved.reached) == (1.0, True)
    assert saved.low == pytest.approx((100 / 60 / 2 + 1) / 2)
    assert found["over transformers' AST (SDPA), r=0.7", 1.6].ratio == 4.0
    exported = found["ONNX Runtime int8 over transformers' AST (SDPA), r=0.7", 2.2]
    assert (exported.ratio, exported.reached) == (2.0, False)
    assert len(found) == 4


def test_tables_say_what_the_rows_say(scripts: dict[str, ModuleType], speed: Any) -> None:
    text = scripts["tables"].everything(speed, "ast-1s")
    place = ("case", "batch_size", "contender", "keep_rate")
    own = next(row for row in speed["rows"] if tuple(row[name] for name in place) == ("ast-1s", 8, "spectrim", 0.5))
    line = next(line for line in text.splitlines() if line.startswith("| **spectrim** | 0.5"))
    assert f" {own['ms_per_clip']:.1f} [" in line
    assert len({line.count("|") for line in text.splitlines()}) == 1


def test_the_pages_say_what_the_files_of_results_say(scripts: dict[str, ModuleType]) -> None:
    tables = scripts["tables"]
    for page in tables.PAGES:
        text = page.read_text(encoding="utf-8")
        assert tables.MARK.search(text), page
        assert tables.filled(text) == text, f"{page}: run python benchmarks/tables.py"


def test_figures_are_drawn(scripts: dict[str, ModuleType], speed: Any, tmp_path: Path) -> None:
    scripts["figures"].latency(speed["rows"], tmp_path / "latency.png", "ast-1s")
    scripts["figures"].saved(speed["rows"], tmp_path / "saved.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latency.png", "saved.png"]


@full_size
def test_files_to_labels_agree_and_are_timed(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    cases = ("ast-1s", "audiomae-1s")
    result = run(
        "files.py",
        tmp_path / "files.json",
        "--cases",
        *cases,
        "--batch-sizes",
        "2",
        "--audio",
        "3",
        "--repeats",
        "1",
        *("--exported", "onnxruntime:int8", "openvino:int8"),
    )
    assert result["cases"]["ast-1s"]["largest_score_difference"] < 1e-4
    timed = {case: {row["what"] for row in result["rows"] if row["case"] == case} for case in cases}
    exported = {pair["backend"] for pair in result["cases"]["ast-1s"]["exported"] if pair["agreeing"] > 12}
    assert exported == {"onnxruntime", "openvino"}
    others = {f"spectrim.predict, {backend} int8, r={rate}" for backend in exported for rate in (0.7, 0.5)}
    assert timed["ast-1s"] - timed["audiomae-1s"] == {"transformers' pipeline", *others}
    assert {"spectrim.predict, r=0.7", "alone: front end", "alone: model, r=0.5"} <= timed["audiomae-1s"]
    text = scripts["tables"].files(result)
    assert text.count("AudioMAE-B, 1 s, batch 2") == 1
    assert len(text.splitlines()) == 4
    assert scripts["tables"].files_exported(result).count("AST-B/16, 1 s, openvino int8") == 2
    assert [one.where for one in scripts["tables"].targets.of_exported_files(result)] == []  # 10 s were not asked for


def test_shares_of_operations_add_up_and_other_ways_compute_the_same(tmp_path: Path) -> None:
    result = run("where_time_goes.py", tmp_path / "where.json", "--repeats", "1", "--no-compile")
    for column in result["operations"]:
        assert sum(column["share"].values()) == pytest.approx(1.0)
        assert column["share"]["linear layers"] > 0.0
    for row in result["alternatives"]:
        limit = 0.3 if row["way"] == "bfloat16" else 1e-4
        assert row["logits_apart"] < limit, row["way"]
    assert [row["clips_a_pass"] for row in result["clips_a_pass"]] == [1, 2, 4, 8, 16]


def test_the_public_code_is_repaired_in_one_place_only(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    reference = scripts["peers.reference"]
    path = tmp_path / "broken.py"
    path.write_text(
        "class self:\n    block_id = 3\nattn = 7\nfound = {f'block-{self.block_id}.attn_score': attn_score = attn}\n"
    )
    assert reference._module(path, "broken").found == {"block-3.attn_score": 7}
