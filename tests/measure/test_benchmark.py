"""What the benchmark measures, in which order, and what it refuses; no test depends on how fast the machine is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spectrim.backbones import ast_base
from spectrim.errors import InvalidSetting
from spectrim.inference.torch_model import TorchModel
from spectrim.measure import benchmark
from spectrim.network.macs import macs
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.pruning import Pruning

ROW = {
    *("keep_rate", "batch_size", "paper_macs", "executed_macs", "median_ms", "q1_ms", "q3_ms", "ms_per_clip"),
    *("clips_per_second", "speed_up", "macs_ratio", "peak_memory_mb"),
}


@pytest.fixture(scope="module")
def model() -> AudioTransformer:
    torch.manual_seed(0)
    fields = {"num_hidden_layers": 3, "prune_at": [1], "max_length": 64, "num_labels": 5}
    return AudioTransformer(ast_base(hidden_size=16, num_attention_heads=2, intermediate_size=32, **fields))


class Clock:
    """A clock that stands still unless told."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_cases_take_turns_and_warm_up_rounds_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, called, rounds = Clock(), [], []
    monkeypatch.setattr(benchmark, "time", clock)

    def case(name: str, seconds: float):
        def call() -> None:
            called.append(name)
            clock.now += seconds + (100.0 if len(called) <= 6 else 0.0)

        return call

    seconds = benchmark.interleaved(
        {name: case(name, cost) for name, cost in (("a", 1.0), ("b", 2.0), ("c", 4.0))},
        repeats=3,
        warmup=2,
        on_round=lambda done, total: rounds.append((done, total)),
    )
    assert called == ["a", "b", "c"] * 5
    assert seconds == {"a": [1.0] * 3, "b": [2.0] * 3, "c": [4.0] * 3}
    assert rounds == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


def test_rounds_can_be_shuffled_and_a_rest_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, called = Clock(), []
    monkeypatch.setattr(benchmark, "time", clock)

    def case(name: str, seconds: float):
        def call() -> None:
            called.append(name)
            clock.now += seconds

        return call

    cases = {name: case(name, cost) for name, cost in (("a", 1.0), ("b", 2.0), ("c", 4.0))}
    seconds = benchmark.interleaved(cases, repeats=20, warmup=0, rest=0.5, shuffle=3)
    assert seconds == {"a": [1.0] * 20, "b": [2.0] * 20, "c": [4.0] * 20}
    assert clock.now == 20 * (7.0 + 3 * 0.5)
    rounds = [tuple(called[start : start + 3]) for start in range(0, 60, 3)]
    assert {tuple(sorted(one)) for one in rounds} == {("a", "b", "c")}
    assert len(set(rounds)) > 3


def test_the_device_is_waited_for_before_and_after_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, events = Clock(), []
    monkeypatch.setattr(benchmark, "time", clock)

    def wait() -> None:
        events.append("wait")
        clock.now += 10.0

    seconds = benchmark.interleaved({"a": lambda: events.append("a")}, repeats=2, warmup=0, synchronise=wait)
    assert events == ["wait", "a", "wait"] * 2
    assert seconds == {"a": [10.0, 10.0]}


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=30))
def test_median_and_quartiles_are_numpys(seconds: list[float]) -> None:
    found = benchmark.spread(seconds)
    q1, median, q3 = 1e3 * np.quantile(seconds, [0.25, 0.5, 0.75])
    assert found == pytest.approx({"q1_ms": q1, "median_ms": median, "q3_ms": q3})
    assert min(seconds) * 0.999999e3 <= found["q1_ms"] <= found["q3_ms"] <= max(seconds) * 1.000001e3


def test_there_is_a_whole_row_for_every_batch_size_and_keep_rate(model: AudioTransformer) -> None:
    result = benchmark.run(model, keep_rates=(1.0, 0.5), batch_sizes=(1, 3), repeats=2)
    rows = result["rows"]
    assert [(row["batch_size"], row["keep_rate"]) for row in rows] == [(1, 1.0), (1, 0.5), (3, 1.0), (3, 0.5)]
    for row in rows:
        assert set(row) == ROW
        count = macs(model, keep_rate=row["keep_rate"])
        assert (row["paper_macs"], row["executed_macs"]) == (count.paper, count.executed)
        assert row["q1_ms"] <= row["median_ms"] <= row["q3_ms"]
        assert row["ms_per_clip"] * row["clips_per_second"] == pytest.approx(1000.0)
        dense = next(r for r in rows if (r["batch_size"], r["keep_rate"]) == (row["batch_size"], 1.0))
        assert row["speed_up"] == pytest.approx(dense["median_ms"] / row["median_ms"])
        assert row["macs_ratio"] == pytest.approx(dense["executed_macs"] / row["executed_macs"])
    assert result["repeats"] == 2
    assert json.loads(json.dumps(result)) == result


def test_macs_are_those_of_the_point_that_is_timed(model: AudioTransformer) -> None:
    point = Pruning(0.5, (2,), "value_norm")
    rows = benchmark.run(TorchModel(model, point), keep_rates=(1.0, 0.3), batch_sizes=(1,), repeats=1)["rows"]
    counts = [macs(model, pruning=point.changed({"keep_rate": rate})) for rate in (1.0, 0.3)]
    assert [row["executed_macs"] for row in rows] == [count.executed for count in counts]
    assert [row["paper_macs"] for row in rows] == [count.paper for count in counts]
    assert rows[1]["executed_macs"] != macs(model, keep_rate=0.3).executed


def test_times_are_those_of_the_interleaved_passes(model: AudioTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    given_seconds = {(2, 0.5): [0.1, 0.2, 0.4], (2, 1.0): [0.8, 0.6, 0.7]}
    asked = {}

    def fake(cases, *, repeats, synchronise, on_round):
        asked.update(cases=list(cases), repeats=repeats)
        return {case: given_seconds[case] for case in cases}

    monkeypatch.setattr(benchmark, "interleaved", fake)
    rows = benchmark.run(model, keep_rates=(0.5, 1.0), batch_sizes=(2,), repeats=3)["rows"]
    assert asked == {"cases": [(2, 0.5), (2, 1.0)], "repeats": 3}
    assert [row["median_ms"] for row in rows] == pytest.approx([200.0, 700.0])
    assert [row["ms_per_clip"] for row in rows] == pytest.approx([100.0, 350.0])
    assert [row["clips_per_second"] for row in rows] == pytest.approx([10.0, 1000 / 350])
    assert [row["speed_up"] for row in rows] == pytest.approx([1.0, 2 / 7])


def test_the_measured_model_stays_as_it_was(model: AudioTransformer) -> None:
    model.train()
    benchmark.run(model, keep_rates=(0.5,), batch_sizes=(1,), repeats=1)
    assert model.training
    assert model.config.keep_rate == 1.0


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"keep_rates": (1.0, 0.0)}, "keep_rate"),
        ({"keep_rates": ()}, "keep_rates"),
        ({"batch_sizes": (1, 0)}, "batch_sizes"),
        ({"batch_sizes": ()}, "batch_sizes"),
        ({"repeats": 0}, "repeats"),
    ],
)
def test_what_cannot_be_measured_is_refused_by_name(model: AudioTransformer, settings: dict, field: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        benchmark.run(model, **settings)
    assert caught.value.field == field


def test_a_missing_device_is_refused_by_name(model: AudioTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InvalidSetting, match="no usable CUDA device"):
        benchmark.run(model, device="cuda")


MEASURED_THRICE = """
import numpy as np
from spectrim.measure.benchmark import peak_memory_mb
for call in (lambda: None, lambda: np.ones(25_000_000).sum(), lambda: None):
    print(peak_memory_mb(call))
"""


def test_peak_memory_sees_what_was_let_go_again() -> None:
    """In a process of its own: in one that ran other tests, what is let go may stay with its allocator."""
    said = subprocess.run([sys.executable, "-c", MEASURED_THRICE], capture_output=True, text=True, check=True).stdout
    if "None" in said:
        pytest.skip("this system does not tell a process its peak memory")
    idle, busy, again = map(float, said.split())
    assert 190 <= busy - idle <= 260
    assert abs(again - idle) < 50


def test_peak_memory_is_none_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> int:
        raise PermissionError("no")

    monkeypatch.setattr(Path, "write_text", refuse)
    assert benchmark.peak_memory_mb(lambda: None) is None
