from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import pytest
from small_runs import rows_of, state_at

from spectrim.training import run_log as logs
from spectrim.training.run_log import RunLog


def test_rows_are_written_once_and_the_table_equals_them(tmp_path: Path) -> None:
    log = RunLog(tmp_path, lambda epoch: {"keep_rate": 1 - epoch / 10})
    log.on_train_begin(None, state_at(0, 0.0), None)
    for step in (2, 4, 6):
        log.on_log(None, state_at(step, step / 4), None, {"loss": 1 / step})
    log.on_log(None, state_at(6, 1.5), None, {"eval_accuracy": 0.5})
    log.on_log(None, state_at(6, 1.5), None, {"train_runtime": 3.0, "total_flos": 1.0})
    with log.rows.open("a") as file:
        file.write('{"step": 6, "epo')
    resumed = RunLog(tmp_path, lambda epoch: {"keep_rate": 1 - epoch / 10})
    resumed.on_train_begin(None, state_at(4, 1.0), None)
    assert [row["step"] for row in rows_of(tmp_path)] == [2, 4]
    resumed.on_log(None, state_at(6, 1.5), None, {"loss": 0.1})
    resumed.on_evaluate(None, state_at(6, 1.5), None)
    again = RunLog(tmp_path, lambda epoch: {"keep_rate": 1 - epoch / 10})
    again.on_train_begin(None, state_at(6, 1.5), None)
    again.on_log(None, state_at(6, 1.5), None, {"train_runtime": 3.0, "total_flos": 1.0})
    again.on_train_end(None, state_at(6, 1.5), None)
    rows = rows_of(tmp_path)
    assert rows == [
        {"step": 2, "epoch": 0.5, "keep_rate": 0.95, "loss": 0.5},
        {"step": 4, "epoch": 1.0, "keep_rate": 0.9, "loss": 0.25},
        {"step": 6, "epoch": 1.5, "keep_rate": 0.85, "loss": 0.1},
        {"step": 6, "epoch": 1.5, "keep_rate": 0.85, "train_runtime": 3.0},
    ]
    with (tmp_path / "metrics.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert [{name: float(value) for name, value in row.items() if value} for row in table] == rows


def test_evaluations_and_now_and_then_the_loss_are_said_with_the_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    clock = iter([0.0, 100.0, 220.0, 225.0, 250.0, 280.0, 340.0, 0.0, 600.0, 660.0])
    monkeypatch.setattr(logs, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    course = SimpleNamespace(num_train_epochs=4.0)
    log = RunLog(tmp_path, lambda epoch: {"keep_rate": 0.5}, lines.append, title="fold 2 (2/5)")
    log.on_train_begin(course, state_at(5, 1.0), None)
    log.on_log(course, state_at(10, 2.0), None, {"loss": 0.25, "grad_norm": 2.0})
    log.on_log(course, state_at(12, 2.5), None, {"loss": 0.22})
    log.on_log(course, state_at(15, 3.0), SimpleNamespace(should_evaluate=True), {"loss": 0.21})
    log.on_log(course, state_at(15, 3.0), None, {"eval_loss": 0.2, "eval_accuracy": 0.625, "eval_runtime": 3.0})
    log.on_log(course, state_at(20, 4.0), None, {"eval_mAP": None, "eval_samples_per_second": 3.0})
    assert lines == [
        "fold 2 (2/5), 10/20 steps: epoch 2, keep rate 0.5, loss 0.25, 0:04:00 left",
        "fold 2 (2/5), 15/20 steps: epoch 3, keep rate 0.5, loss 0.21, validation loss 0.2, "
        "validation accuracy 62.5 %, 0:01:30 left",
        "fold 2 (2/5), 20/20 steps: epoch 4, keep rate 0.5, validation mAP not defined",
    ]
    short = RunLog(tmp_path, lambda epoch: {}, lines.append, stop_after_epochs=2)
    short.on_train_begin(course, state_at(0, 0.0), None)
    short.on_log(course, state_at(5, 1.0), None, {"loss": 0.25})
    assert lines[-1] == "5/20 steps: epoch 1, loss 0.25, 0:01:00 left"


def test_other_processes_log_nothing(tmp_path: Path) -> None:
    log = RunLog(tmp_path, lambda epoch: {})
    state = state_at(1, 0.1)
    state.is_world_process_zero = False
    log.on_train_begin(None, state, None)
    log.on_log(None, state, None, {"loss": 1.0})
    log.on_train_end(None, state, None)
    assert not list(tmp_path.iterdir())
