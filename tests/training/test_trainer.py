from __future__ import annotations

import inspect
import json
import math
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from small_runs import STEPS_PER_EPOCH, cut_short, recipe, rows_of, state_at, write_checkpoint, write_words
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

from spectrim.checkpoints import from_pretrained
from spectrim.errors import MissingExtra, TrainingDiverged
from spectrim.training import trainer
from spectrim.training.finetune import train
from spectrim.training.pretrain import PretrainingTrainer
from spectrim.training.pruning_trainer import PruningTrainer
from spectrim.training.run_arguments import RunArguments
from spectrim.training.run_folder import CheckpointFolder, flaw
from spectrim.training.trainer import (
    RunCourse,
    RunTrainer,
    WholeCheckpoints,
    tensorboard_callback,
)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_words(tmp_path_factory.mktemp("data") / "words")


# The course of a run


class Clips:
    epoch = -1

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


@given(steps=st.integers(1, 400), epoch=st.integers(0, 200))
def test_the_data_learn_which_epoch_begins(steps: int, epoch: int) -> None:
    """``epoch`` as Trainer reckons it after the last step of the epoch before."""
    clips = Clips()
    done = 0.0 if epoch == 0 else epoch - 1 + (steps - 1 + 1) / steps
    RunCourse(clips).on_epoch_begin(None, state_at(epoch * steps, done, 10**9), TrainerControl())
    assert clips.epoch == epoch


def test_a_run_that_resumes_inside_an_epoch_resumes_that_epoch() -> None:
    clips = Clips()
    RunCourse(clips).on_epoch_begin(None, state_at(14, 2.8), TrainerControl())
    assert clips.epoch == 2


@pytest.mark.parametrize(
    ("step", "epoch", "stop", "over"),
    [(19, 3.8, None, False), (20, 4.0, None, True), (4, 0.8, 1.0, False), (5, 1.0, 1.0, True), (6, 1.2, 1.0, True)],
)
def test_a_run_at_its_end_takes_no_more_steps(step: int, epoch: float, stop: float | None, over: bool) -> None:
    control = TrainerControl()
    RunCourse(Clips(), stop).on_epoch_begin(None, state_at(step, epoch), control)
    assert control.should_training_stop is over


def test_a_run_stops_early_with_a_checkpoint_and_is_evaluated_when_it_is_time() -> None:
    for delay, evaluated in ((6, False), (5, True)):
        control = TrainerControl()
        RunCourse(Clips(), 1.0).on_step_end(SimpleNamespace(eval_delay=delay), state_at(4, 0.8), control)
        assert not control.should_training_stop
        RunCourse(Clips(), 1.0).on_step_end(SimpleNamespace(eval_delay=delay), state_at(5, 1.0), control)
        assert (control.should_training_stop, control.should_save, control.should_evaluate) == (True, True, evaluated)


def test_the_best_checkpoint_is_found_where_the_run_is_now_or_forgotten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    best = write_checkpoint(tmp_path, 4)
    state = TrainerState(global_step=8, best_global_step=4, best_metric=0.5, best_model_checkpoint="/elsewhere")
    checkpoints, arguments = WholeCheckpoints(CheckpointFolder(tmp_path)), SimpleNamespace(eval_delay=4)
    checkpoints.on_train_begin(arguments, state, None)
    assert (state.best_model_checkpoint, state.best_metric) == (str(best), 0.5)
    cut_short(best / "model.safetensors")
    checkpoints.on_train_begin(arguments, state, None)
    assert (state.best_model_checkpoint, state.best_metric, state.best_global_step) == (None, None, None)
    assert str(best) in caplog.text


def test_a_best_checkpoint_from_before_the_first_evaluation_is_another_run_s(tmp_path: Path) -> None:
    best = write_checkpoint(tmp_path, 4)
    state = TrainerState(global_step=4, best_global_step=4, best_metric=0.5, best_model_checkpoint=str(best))
    WholeCheckpoints(CheckpointFolder(tmp_path)).on_train_begin(SimpleNamespace(eval_delay=5), state, None)
    assert (state.best_model_checkpoint, state.best_metric, state.best_global_step) == (None, None, None)


# TensorBoard


def test_tensorboard_gets_what_is_logged(words: Path, tmp_path: Path) -> None:
    train(recipe(tensorboard=True, optimiser={"epochs": 1}, pruning={"shrink_epochs": 0.5}), words, tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    logged = [row for row in rows_of(tmp_path / "run") if "loss" in row]
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [
        (row["step"], pytest.approx(row["loss"])) for row in logged
    ]
    assert len(events.Scalars("eval/accuracy")) == 1


def test_tensorboard_is_left_out_where_it_is_not_wanted_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tensorboard_callback(False, tmp_path) == []
    monkeypatch.setenv("RANK", "1")
    assert tensorboard_callback(True, tmp_path) == []
    monkeypatch.delenv("RANK")
    monkeypatch.setattr(trainer.importlib.util, "find_spec", lambda name: None)
    assert tensorboard_callback(None, tmp_path) == []
    with pytest.raises(MissingExtra, match=r"spectrim\[tensorboard\]"):
        tensorboard_callback(True, tmp_path)
    assert not list(tmp_path.iterdir())


# What is taken from transformers' Trainer

HOOKS = {
    "create_optimizer": ["model"],
    "create_scheduler": ["num_training_steps", "optimizer"],
    "get_train_dataloader": [],
    "get_batch_samples": ["epoch_iterator", "num_batches", "device"],
    "training_step": ["model", "inputs", "num_items_in_batch"],
    "compute_loss": ["model", "inputs", "return_outputs", "num_items_in_batch"],
    "evaluate": ["eval_dataset", "ignore_keys", "metric_key_prefix"],
    "log": ["logs", "start_time"],
}
"""Methods of Trainer that are overridden → their parameters."""


@pytest.mark.parametrize("name", HOOKS)
def test_trainer_still_has_what_is_overridden(name: str) -> None:
    assert hasattr(Trainer, name), f"transformers {transformers.__version__} has no Trainer.{name}"
    assert list(inspect.signature(getattr(Trainer, name)).parameters)[1:] == HOOKS[name]


def test_nothing_else_of_trainer_is_overridden_and_nothing_private() -> None:
    kinds = (RunTrainer, PruningTrainer, PretrainingTrainer)
    own = {name for kind in kinds for name in vars(kind) if not name.startswith("__")}
    assert {name for name in own if callable(getattr(Trainer, name, None))} == HOOKS.keys()
    assert not {name for name in own if name.startswith("_")}
    assert {name for name in vars(RunArguments) if hasattr(TrainingArguments, name) and name[0] != "_"} == {"n_gpu"}


def test_steps_end_where_trainer_calls_them() -> None:
    """`get_batch_samples` ends a finished run only as long as Trainer takes every step from it."""
    assert "self.get_batch_samples(" in inspect.getsource(Trainer)


# Whole runs


def test_a_loss_that_is_no_number_ends_the_run_with_what_to_try(
    words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute_loss = PruningTrainer.compute_loss

    def breaks_down(self: PruningTrainer, *args: Any, **kwargs: Any) -> Any:
        loss = compute_loss(self, *args, **kwargs)
        return loss * math.nan if self.state.global_step == STEPS_PER_EPOCH + 2 else loss

    monkeypatch.setattr(PruningTrainer, "compute_loss", breaks_down)
    with pytest.raises(TrainingDiverged, match=r"the loss is nan at step 8 \(epoch 1\.40, learning rate .*optimiser"):
        train(recipe(), words, tmp_path / "run")
    before = CheckpointFolder(tmp_path / "run" / "checkpoints").newest()
    assert before == tmp_path / "run" / "checkpoints" / f"checkpoint-{STEPS_PER_EPOCH}"
    assert all(torch.isfinite(weight).all() for weight in from_pretrained(before).state_dict().values())
    assert not (tmp_path / "run" / "model").exists()


def test_the_newest_two_checkpoints_and_the_best_are_kept(
    words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate = PruningTrainer.evaluate
    monkeypatch.setattr(
        PruningTrainer,
        "evaluate",
        lambda self, **kwargs: {**evaluate(self, **kwargs), "eval_accuracy": 1 / self.state.global_step},
    )
    train(recipe(evaluation={"every_epochs": 0.4, "test_keep_rates": []}), words, tmp_path / "run")
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} == {
        f"checkpoint-{step}" for step in (2, 8, 10)
    }
    assert all(flaw(path) is None for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert json.loads((tmp_path / "run" / "results.json").read_text())["chosen"]["step"] == 2


def test_evaluations_do_not_change_what_becomes_of_a_run(words: Path, tmp_path: Path) -> None:
    weights = []
    for number, often in enumerate((0.2, 2)):
        plan = {"every_epochs": often, "choose": "last", "test_keep_rates": []}
        train(
            recipe(model={"fields": {"drop_path_rate": 0.3}}, evaluation=plan, seed=4),
            words,
            tmp_path / str(number),
        )
        weights.append(from_pretrained(tmp_path / str(number) / "model").state_dict())
    for name, weight in weights[0].items():
        assert torch.equal(weight, weights[1][name]), name


@pytest.mark.parametrize("drop_last", [True, False])
def test_every_step_has_its_whole_batch_where_the_rest_is_left_out(
    drop_last: bool, words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """70 clips in batches of 16, two at a time: five steps and a rest of 6 clips, in three halves' worth of batches."""
    step, seen = PruningTrainer.training_step, []

    def note(self: PruningTrainer, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        seen.append((self.state.global_step, len(inputs["labels"])))
        return step(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(PruningTrainer, "training_step", note)
    changes = {"batch_size": 16, "accumulate": 4, "drop_last": drop_last, "epochs": 1}
    train(
        recipe(optimiser=changes, pruning={"shrink_epochs": 0.5}, evaluation={"test_keep_rates": []}),
        words,
        tmp_path / "run",
    )
    whole = [(number, 4) for number in range(4) for _ in range(4)]
    assert seen == whole + ([] if drop_last else [(4, 4), (4, 2)])
    assert max(row["step"] for row in rows_of(tmp_path / "run")) == (4 if drop_last else 5)


def test_resuming_a_finished_run_trains_no_further(words: Path, tmp_path: Path) -> None:
    """Once to the end of a fraction of an epoch, once to an early stop: Trainer would take another step."""
    for number, course in enumerate(({"epochs": 1.4}, {"epochs": 4, "stop_after_epochs": 1.4})):
        output = tmp_path / str(number)
        settings = recipe(optimiser=course, evaluation={"test_keep_rates": [], "choose": "last"})
        train(settings, words, output)
        first = from_pretrained(output / "model").state_dict()
        rows = rows_of(output)
        shutil.rmtree(output / "model")
        (output / "results.json").unlink()
        results = train(settings, words, output, resume=True)
        assert results["chosen"]["step"] == 7
        assert [{**row, "train_runtime": 0} for row in rows_of(output)[:-1]] == [
            {**row, "train_runtime": 0} for row in rows[:-1]
        ]
        for name, weight in from_pretrained(output / "model").state_dict().items():
            assert torch.equal(weight, first[name]), name
