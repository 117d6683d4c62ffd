"""The linear probe of benchmarks/kwt.py on a small model: who is tested, and what no pruning must cost."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from plain import clips, small_model

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    sys.path.insert(0, str(FOLDER))
    try:
        yield {name: importlib.import_module(name) for name in ("kwt", "kwt_table")}
    finally:
        sys.path.remove(str(FOLDER))


@pytest.fixture(scope="module")
def measured(scripts: dict[str, ModuleType]) -> Any:
    """Ten speakers say three words twice; the words are levels of the input. Keep rates 1 and 0.5."""
    model = small_model("kwt", dtype=torch.float32, num_hidden_layers=10, num_labels=12)
    speakers = np.repeat([f"{number:02d}" for number in range(10)], 6)
    labels = np.tile(["low", "middle", "high"], 20)
    values = clips(model.config, batch=60, dtype=torch.float32)
    values = values + torch.tensor([-20.0, 0.0, 20.0]).repeat(20)[:, None, None]
    parts = np.where(speakers < "06", "train", np.where(speakers < "08", "validation", "test"))
    recordings = scripts["kwt"].Recordings(values, labels, speakers, parts)
    return scripts["kwt"].measure(model, recordings, [1.0, 0.5], draws=2, progress=False)


def test_every_speaker_is_tested_once_by_a_probe_that_never_heard_them(scripts: dict[str, ModuleType]) -> None:
    speakers = np.repeat([f"{number:02d}" for number in range(30)], 4)
    tested = np.zeros(len(speakers), dtype=int)
    for validation, test in scripts["kwt"].folds(speakers):
        names = [set(speakers[part]) for part in (validation, test, ~validation & ~test)]
        assert [len(one) for one in names] == [6, 6, 18]
        assert len(set.union(*names)) == 30, "no speaker is in two parts"
        tested += test
    assert (tested == 1).all()


def test_intervals_are_over_speakers(scripts: dict[str, ModuleType]) -> None:
    """One speaker always right, one never: resamples of two speakers reach from 0 to 100 %."""
    hits, speakers = np.repeat([1.0, 0.0], 50), np.repeat(["a", "b"], 50)
    assert scripts["kwt"].interval(hits, speakers) == {"mean": 50.0, "low": 0.0, "high": 100.0}


def test_keeping_everything_costs_nothing(measured: Any) -> None:
    rows = [row for row in measured["rows"] if row["keep_rate"] == 1.0]
    assert len(rows) == 11
    for row in rows:
        assert row["accuracy"] == measured["dense"]["accuracy"] and row["own_label_stays"] == 100.0
        assert row["lost"] == row["over_random"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
        assert row["macs"] == measured["dense"]["macs"]


def test_pruning_is_seen(measured: Any) -> None:
    assert measured["dense"]["accuracy"]["mean"] > 60.0, "levels can be told apart"
    rows = {(row["criterion"], row["reducer"]): row for row in measured["rows"] if row["keep_rate"] == 0.5}
    assert [len(row["draws"]) for row in rows.values()] == [1] * 10 + [2]
    assert any(row["own_label_stays"] < 100.0 for row in rows.values())
    random = rows["random", "drop"]
    assert random["accuracy"]["mean"] == pytest.approx(np.mean(random["draws"]), abs=1e-3)
    for row in rows.values():
        lost = measured["dense"]["accuracy"]["mean"] - row["accuracy"]["mean"]
        assert row["lost"]["mean"] == pytest.approx(lost, abs=2e-3)
        assert row["macs"]["executed"] < measured["dense"]["macs"]["executed"]


def test_tables_say_what_the_rows_say(scripts: dict[str, ModuleType], measured: Any) -> None:
    for make in scripts["kwt_table"].GRIDS.values():
        header, lines = make(measured)
        assert {len(line) for line in lines} == {len(header)}
    _, lines = scripts["kwt_table"].accuracy(measured)
    assert [line[0] for line in lines[:-1]] == list(scripts["kwt_table"].NAMES.values())
    assert lines[-1][0] == "random: worst and best draw"
    assert lines[0][1] == lines[0][2], "dense and keep rate 1"
