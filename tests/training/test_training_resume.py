"""Runs that are killed, broken, or go on from another one's beginning end as the unbroken run does."""

from __future__ import annotations

import json
import multiprocessing
import random
import shutil
import signal
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_runs import EVERYTHING, STEPS_PER_EPOCH, over, recipe, rows_of, train_until, write_words

from spectrim.checkpoints import from_pretrained
from spectrim.errors import InvalidSetting
from spectrim.training.finetune import train
from spectrim.training.pruning_trainer import PruningTrainer
from spectrim.training.recipes import Recipe
from spectrim.training.run_folder import flaw, write_checksums

TIMINGS = ("_runtime", "_per_second")


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_words(tmp_path_factory.mktemp("data") / "words")


def busy(**changes: Any) -> Recipe:
    """A recipe that draws whatever can be drawn, with checkpoints between the epochs too."""
    tree = over(EVERYTHING, {"evaluation": {"every_epochs": 0.6, "test_keep_rates": [0.5]}, "optimiser": {"epochs": 3}})
    return recipe(**over(tree, changes))


def weights_of(output: Path) -> dict[str, torch.Tensor]:
    return load_file(output / "model" / "model.safetensors")


def untimed_rows(output: Path) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if not name.endswith(TIMINGS)} for row in rows_of(output)]


def assert_same_weights(output: Path, other: Path) -> None:
    found, expected = weights_of(output), weights_of(other)
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert torch.equal(found[name], weight), name


# Killed at any moment


@pytest.fixture(scope="module")
def processes() -> BaseContext:
    """Processes that begin with everything imported, and with nothing of this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["spectrim.training.finetune"])
    return context


def run(context: Any, moment: int | None, *arguments: Any, **options: Any) -> tuple[int | None, int]:
    """Exit code, and how often the run's files were touched."""
    counted = context.Value("i", 0)
    process = context.Process(target=train_until, args=(moment, *arguments), kwargs={"counted": counted, **options})
    process.start()
    process.join()
    return process.exitcode, counted.value


@pytest.fixture(scope="module")
def unbroken(processes: BaseContext, words: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    output = tmp_path_factory.mktemp("unbroken") / "run"
    code, touches = run(processes, None, busy(), words, output)
    assert code == 0
    return output, touches


def test_a_run_that_is_killed_again_and_again_ends_as_the_unbroken_one(
    processes: BaseContext, words: Path, unbroken: tuple[Path, int], tmp_path: Path
) -> None:
    """Moments are counted in touches of the run's files: of checkpoints and what is in them, logs, model, results."""
    expected, touches = unbroken
    output, draw = tmp_path / "run", random.Random(0)
    half_written = 0
    for _ in range(6):
        code, _ = run(processes, draw.randint(1, touches // 2), busy(), words, output, resume=True)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        checkpoints = [path for path in (output / "checkpoints").glob("*") if path.name.startswith("checkpoint")]
        newest = sorted(checkpoints, key=lambda path: int(path.name.partition("-")[2]))[-1:]
        assert all(flaw(path) is None for path in newest)
        half_written += (output / "checkpoints" / ".partial").is_dir()
        assert not (output / "results.json").exists()
    assert half_written
    code, _ = run(processes, None, busy(), words, output, resume=True)
    assert code == 0
    assert_same_weights(output, expected)
    for name in ("results.json", "run.json"):
        assert json.loads((output / name).read_text()) == json.loads((expected / name).read_text())
    assert untimed_rows(output) == untimed_rows(expected)
    left = {path.relative_to(output) for path in output.rglob("*") if path.suffix == ".partial"}
    assert not left
    assert {path.name for path in (output / "checkpoints").iterdir()} == {
        path.name for path in (expected / "checkpoints").iterdir()
    }


def test_a_run_that_is_killed_while_it_concludes_is_concluded(
    processes: BaseContext, words: Path, unbroken: tuple[Path, int], tmp_path: Path
) -> None:
    """The last touches are those of model and results."""
    expected, touches = unbroken
    output = tmp_path / "run"
    code, _ = run(processes, touches - 2, busy(), words, output)
    assert code == -signal.SIGKILL
    assert not (output / "results.json").exists()
    code, _ = run(processes, None, busy(), words, output, resume=True)
    assert code == 0
    assert_same_weights(output, expected)
    assert json.loads((output / "results.json").read_text()) == json.loads((expected / "results.json").read_text())
    assert untimed_rows(output) == untimed_rows(expected)


def test_a_broken_newest_checkpoint_costs_the_steps_since_the_one_before(
    words: Path, unbroken: tuple[Path, int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected, output = unbroken[0], tmp_path / "run"
    shutil.copytree(expected, output)
    for name in ("model", "results.json"):
        shutil.rmtree(output / name) if (output / name).is_dir() else (output / name).unlink()
    steps = sorted(int(path.name.partition("-")[2]) for path in (output / "checkpoints").iterdir())
    assert steps[-2:] == [12, 15]
    optimiser = output / "checkpoints" / "checkpoint-15" / "optimizer.pt"
    optimiser.write_bytes(optimiser.read_bytes()[: 2**12])
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    train(busy(), words, output, resume=True)
    torch.set_num_threads(threads)
    assert "checkpoint-15 is passed over: optimizer.pt is not what was written" in caplog.text
    assert flaw(output / "checkpoints" / "checkpoint-15") is None
    assert_same_weights(output, expected)
    assert untimed_rows(output) == untimed_rows(expected)


# Branches


def late(**changes: Any) -> Recipe:
    """The keep rate falls after one epoch and a bit; nothing is evaluated before."""
    tree = {"pruning": {"shrink_start": 1.4, "shrink_epochs": 0.8}, "evaluation": {"first_epoch": 1.8}}
    return busy(**over(tree, changes))


@pytest.fixture(scope="module")
def trunk(words: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trunk") / "run"
    train(late(optimiser={"stop_after_epochs": 1.4}, evaluation={"test_keep_rates": []}), words, output)
    return output


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Epochs at which steps begin."""
    step, epochs = PruningTrainer.training_step, []

    def note(self: PruningTrainer, *args: Any, **kwargs: Any) -> torch.Tensor:
        epochs.append(self.state.epoch or 0.0)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(PruningTrainer, "training_step", note)
    return epochs


@pytest.mark.parametrize(
    "pruning",
    [
        *({"keep_rate": 0.3}, {"keep_rate": 1.0}, {"keep_rate": 0.5, "criterion": "intensity"}),
        *({"keep_rate": 0.5, "criterion": "random"}, {"criterion": "variation", "reference_compat": True}),
    ],
)
def test_a_branch_ends_as_if_it_had_run_from_the_beginning(
    pruning: dict[str, Any], words: Path, trunk: Path, tmp_path: Path, begun: list[float]
) -> None:
    plan = late(pruning=pruning, name="branch")
    results = train(plan, words, tmp_path / "branch", branch_of=trunk)
    assert min(begun) == pytest.approx(1.4)
    expected = train(plan, words, tmp_path / "whole")
    assert results == expected
    assert_same_weights(tmp_path / "branch", tmp_path / "whole")
    later = [row for row in untimed_rows(tmp_path / "whole") if row["step"] > 1.4 * STEPS_PER_EPOCH]
    evaluated = [row for row in later if "eval_loss" in row]
    assert evaluated
    assert [row for row in untimed_rows(tmp_path / "branch") if "eval_loss" in row] == evaluated


def test_the_public_gather_reaches_the_trained_model(words: Path, trunk: Path, tmp_path: Path) -> None:
    for public in (False, True):
        plan = late(pruning={"criterion": "intensity", "reference_compat": public}, name="branch")
        train(plan, words, tmp_path / str(public), branch_of=trunk)
    right, wrong = (from_pretrained(tmp_path / str(public) / "model") for public in (False, True))
    assert (right.config.reference_compat, wrong.config.reference_compat) == (False, True)
    assert any(not torch.equal(a, b) for a, b in zip(right.parameters(), wrong.parameters(), strict=True))


def test_a_keep_rate_that_leaves_the_head_nothing_is_refused_before_the_run(words: Path, tmp_path: Path) -> None:
    plan = late(pruning={"keep_rate": 0.01, "criterion": "intensity", "reference_compat": True})
    with pytest.raises(InvalidSetting, match=r"keep_rate is 0\.01; allowed: higher with reference_compat"):
        train(plan, words, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_from_before_a_setting_was_there_goes_on_with_its_default(words: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    train(late(optimiser={"stop_after_epochs": 1.4}), words, output)
    written = json.loads((output / "run.json").read_text())
    del written["recipe"]["pruning"]["reference_compat"]
    (output / "run.json").write_text(json.dumps(written))
    train(late(optimiser={"stop_after_epochs": 1.4}), words, output, resume=True)
    train(late(name="branch"), words, tmp_path / "branch", branch_of=output)
    (output / "run.json").write_text(json.dumps(written))
    other = late(optimiser={"stop_after_epochs": 1.4}, pruning={"criterion": "intensity", "reference_compat": True})
    with pytest.raises(InvalidSetting, match=r"recipe\.pruning\.criterion is 'intensity'; allowed: 'auto', with which"):
        train(other, words, output, resume=True)


def test_a_branch_resumes_without_its_trunk(
    words: Path, trunk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, output, step = tmp_path / "trunk", tmp_path / "branch", PruningTrainer.training_step

    def dies(self: PruningTrainer, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.state.global_step == 11:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    shutil.copytree(trunk, gone)
    broken = output / "checkpoints" / "checkpoint-7"
    broken.mkdir(parents=True)
    (broken / "model.safetensors").write_bytes(b"half")
    (output / "run.json").write_text(
        json.dumps({"recipe": late(name="b").model_dump(mode="json"), "data": str(words), "init": None})
    )
    monkeypatch.setattr(PruningTrainer, "training_step", dies)
    with pytest.raises(KeyboardInterrupt):
        train(late(name="b"), words, output, branch_of=gone, resume=True)
    shutil.rmtree(gone)
    monkeypatch.setattr(PruningTrainer, "training_step", step)
    train(late(name="b"), words, output, branch_of=gone, resume=True)
    train(late(name="b"), words, tmp_path / "whole")
    assert_same_weights(output, tmp_path / "whole")


@pytest.mark.parametrize(
    ("changes", "words_of_error"),
    [
        ({"optimiser": {"batch_size": 7}}, r"recipe\.optimiser\.batch_size is 7; allowed: 14, with which"),
        ({"pruning": {"shrink_start": 1.2}}, r"recipe\.pruning\.shrink_start is 1\.2; allowed: 1\.4, with which"),
        ({"seed": 5}, r"recipe\.seed is 5; allowed: 0, with which"),
    ],
)
def test_a_branch_of_another_run_is_refused(
    changes: dict[str, Any], words_of_error: str, words: Path, trunk: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidSetting, match=words_of_error):
        train(late(**changes), words, tmp_path / "branch", branch_of=trunk)
    with pytest.raises(InvalidSetting, match=r"init is 'spectrim-mini'; allowed: None"):
        train(late(), words, tmp_path / "branch", init="spectrim-mini", branch_of=trunk)
    assert not (tmp_path / "branch").exists()


def test_a_dense_run_is_the_beginning_of_any_course_of_the_keep_rate(words: Path, tmp_path: Path) -> None:
    dense = {"keep_rate": 1.0, "shrink_start": 0.0, "shrink_epochs": 0.0}
    train(
        late(pruning=dense, evaluation={"first_epoch": 0.0}, optimiser={"stop_after_epochs": 1.4}),
        words,
        tmp_path / "trunk",
    )
    for name, changes in {"pruned": {}, "dense": {"pruning": {"keep_rate": 1.0, "shrink_start": 0.2}}}.items():
        results = train(late(**changes), words, tmp_path / name, branch_of=tmp_path / "trunk")
        assert results == train(late(**changes), words, tmp_path / f"{name}-whole")
        assert_same_weights(tmp_path / name, tmp_path / f"{name}-whole")


def edited(trunk: Path, tmp_path: Path, *, epoch: float | None = None, first_epoch: float | None = None) -> Path:
    """A copy of a run with some facts changed, whole again."""
    copy = tmp_path / "edited"
    shutil.copytree(trunk, copy)
    if epoch is not None:
        newest = max((copy / "checkpoints").iterdir())
        state = json.loads((newest / "trainer_state.json").read_text())
        (newest / "trainer_state.json").write_text(json.dumps({**state, "epoch": epoch}))
        write_checksums(newest)
    if first_epoch is not None:
        written = json.loads((copy / "run.json").read_text())
        written["recipe"]["evaluation"]["first_epoch"] = first_epoch
        (copy / "run.json").write_text(json.dumps(written))
    return copy


def test_a_run_that_went_too_far_has_no_branches(words: Path, trunk: Path, tmp_path: Path) -> None:
    far = edited(trunk, tmp_path, epoch=1.6)
    with pytest.raises(InvalidSetting, match=r"branch_of is .*stopped by pruning\.shrink_start=1\.4.* of epoch 1\.6"):
        train(late(), words, tmp_path / "branch", branch_of=far)


@pytest.mark.parametrize("first_epoch", [0.0, 1.4])
def test_a_branch_that_should_know_evaluations_before_it_is_refused(
    first_epoch: float, words: Path, trunk: Path, tmp_path: Path
) -> None:
    early = edited(trunk, tmp_path, first_epoch=first_epoch)
    with pytest.raises(InvalidSetting, match=r"evaluation\.first_epoch is .*; allowed: more than 1\.4, where"):
        train(late(evaluation={"first_epoch": first_epoch}), words, tmp_path / "branch", branch_of=early)


@pytest.mark.parametrize(("stop", "most"), [(1.2, 4), (1.4, 3)])
def test_a_branch_averages_what_the_whole_run_would_or_is_refused(
    stop: float, most: int, words: Path, tmp_path: Path
) -> None:
    """Checkpoints are of epochs 0.6, 1.2, 1.8, 2.4 and 3, and where the trunk stops."""

    def plan(average: int, **changes: Any) -> Recipe:
        return late(**over(changes, {"evaluation": {"choose": "average", "average_last": average}}))

    for average in (most, most + 1):
        train(plan(average, optimiser={"stop_after_epochs": stop}), words, tmp_path / f"trunk{average}")
    train(plan(most), words, tmp_path / "branch", branch_of=tmp_path / f"trunk{most}")
    train(plan(most), words, tmp_path / "whole")
    assert_same_weights(tmp_path / "branch", tmp_path / "whole")
    with pytest.raises(InvalidSetting, match=rf"average_last is {most + 1}; allowed: up to {most}: .* before epoch"):
        train(plan(most + 1), words, tmp_path / "refused", branch_of=tmp_path / f"trunk{most + 1}")


def test_a_branch_needs_a_run_with_a_whole_checkpoint(words: Path, trunk: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"branch_of is .*nowhere.*; allowed: the folder of a run"):
        train(late(), words, tmp_path / "branch", branch_of=tmp_path / "nowhere")
    bare = edited(trunk, tmp_path)
    shutil.rmtree(bare / "checkpoints")
    with pytest.raises(InvalidSetting, match=r"branch_of is .*; allowed: a run with a whole checkpoint"):
        train(late(), words, tmp_path / "branch", branch_of=bare)
    assert not (tmp_path / "branch").exists()
