"""The bar of a run: what it says, in a terminal; and that files get none."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
from small_runs import state_at
from transformers.utils import logging

from spectrim.training.progress import RunProgress, own_bars

COURSE: Any = SimpleNamespace(num_train_epochs=4.0)


def test_the_bar_says_loss_metric_keep_rate_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    bar = RunProgress(lambda epoch: {"keep_rate": 0.7}, "fold 2 (2/5)")
    bar.on_train_begin(COURSE, state_at(5, 1.0), None)
    assert (bar.bar.n, bar.bar.total) == (5, 20)
    bar.on_log(COURSE, state_at(10, 2.0), None, {"loss": 0.25, "grad_norm": 3.0, "learning_rate": 0.1})
    bar.on_prediction_step(COURSE, state_at(10, 2.0), None, eval_dataloader=[1, 2])
    bar.on_prediction_step(COURSE, state_at(10, 2.0), None, eval_dataloader=[1, 2])
    assert (bar.evaluation.n, bar.evaluation.total) == (2, 2)
    bar.on_log(COURSE, state_at(10, 2.0), None, {"eval_loss": 0.5, "eval_accuracy": 0.5, "eval_clips": 8})
    bar.on_evaluate(COURSE, state_at(10, 2.0), None)
    assert bar.evaluation is None
    bar.on_step_end(COURSE, state_at(11, 2.2), None)
    assert bar.bar.n == 11
    assert bar.bar.desc == "fold 2 (2/5), 2.2/4"
    assert bar.bar.postfix == "loss 0.25, accuracy 50.0 %, keep rate 0.7"
    assert " left, loss 0.25" in str(bar.bar)
    bar.close()
    assert capsys.readouterr().out == (
        "fold 2 (2/5), epoch 2, loss 0.25, validation loss 0.5, validation accuracy 50.0 %, keep rate 0.7\n"
    )


def test_a_run_that_stops_early_is_full_then_and_a_test_has_a_bar_too(capsys: pytest.CaptureFixture[str]) -> None:
    bar = RunProgress(lambda epoch: {}, stop_after_epochs=3)
    bar.on_train_begin(COURSE, state_at(0, 0.0), None)
    assert (bar.bar.total, bar.bar.desc) == (15, "epoch 0.0/4")
    bar.on_log(COURSE, state_at(15, 3.0), None, {"eval_mAP": math.nan})
    bar.on_train_end(COURSE, state_at(15, 3.0), None)
    bar.on_prediction_step(COURSE, state_at(15, 3.0), None, eval_dataloader=[1])
    bar.on_predict(COURSE, state_at(15, 3.0), None, metrics={})
    assert bar.evaluation is None
    assert capsys.readouterr().out == "epoch 3, validation mAP not defined\n"


def test_files_that_are_written_get_no_bar_meanwhile() -> None:
    logging.enable_progress_bar()
    bar = RunProgress(lambda epoch: {})
    bar.on_train_begin(COURSE, state_at(0, 0.0), None)
    trainer: Any = SimpleNamespace(callback_handler=SimpleNamespace(callbacks=[bar]))
    with pytest.raises(KeyboardInterrupt), own_bars(trainer):
        assert not logging.is_progress_bar_enabled()
        raise KeyboardInterrupt
    assert logging.is_progress_bar_enabled()
    assert bar.bar.disable
