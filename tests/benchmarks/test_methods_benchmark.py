"""The benchmark of methods at equal MACs, with a tiny model: that it runs, and what its table says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmark_scripts import FOLDER, run_script


def test_every_method_is_timed_at_the_same_macs(tmp_path: Path) -> None:
    path = tmp_path / "methods.json"
    code, _, err = run_script(
        "methods.py", "--json", path, "--small", "--repeats", "2", "--batch-sizes", "1", "--threads", "1"
    )
    assert code == 0, err
    found = json.loads(path.read_text())
    rows = {(row["method"], row["macs_of_rate"]): row for row in found["rows"]}
    assert rows["dense", None]["speed_up"] == rows["dense", None]["promised"] == 1.0
    wanted = {rate: rows["attention", rate]["macs"] for rate in (0.7, 0.5)}
    for (method, rate), row in rows.items():
        if rate is not None:
            assert row["macs"] == pytest.approx(wanted[rate], rel=0.03), method
            assert row["promised"] == pytest.approx(rows["dense", None]["macs"] / row["macs"])
    named = {method for method, _ in rows}
    assert {"attention", "random", "mean_attention", "fuse", "dynamicvit", "merge in every block"} <= named


def test_what_is_not_faster_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))
    import methods_table

    usual = {"batch_size": 1, "keep_rate": 0.7, "q1_ms": 90.0, "q3_ms": 110.0, "load_average_before": 0.5}
    dense = {**usual, "method": "dense", "macs_of_rate": None, "macs": 4e9, "promised": 1.0, "median_ms": 100.0}
    fast = {**usual, "method": "a", "macs_of_rate": 0.7, "macs": 2e9, "promised": 2.0, "median_ms": 60.0}
    slow = {**fast, "method": "b", "median_ms": 95.0, "speed_up": 1.05, "speed_up_q1": 0.98, "speed_up_q3": 1.1}
    rows = [{**dense, "speed_up": 1.0}, {**fast, "speed_up": 1.7, "speed_up_q1": 1.6, "speed_up_q3": 1.8}, slow]
    header, lines = methods_table.times({"rows": rows})
    assert header[-3:] == ["batch 1: ms a clip", "speed-up", "reached"]
    assert [line[-2:] for line in lines] == [
        ["", ""],
        ["1.70× [1.60, 1.80]", "85%"],
        ["1.05× [0.98, 1.10], **not faster**", "52%"],
    ]
    _, lines = methods_table.times({"rows": [*rows, {**dense, "batch_size": 8, "speed_up": 1.0}]})
    assert [line[-3] for line in lines] == ["12 [11, 14]", "–", "–"]
