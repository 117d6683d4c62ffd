"""``spectrim train`` on the command line."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from small_runs import over, recipe, write_words
from typer.testing import CliRunner

from spectrim.cli.app import app
from spectrim.training.pruning_trainer import PruningTrainer
from spectrim.training.recipe_files import shipped_recipes


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_words(tmp_path_factory.mktemp("data") / "words")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("recipes") / "tones.yaml"
    tree = recipe(optimiser={"epochs": 1}, pruning={"shrink_epochs": 0.4}).model_dump(mode="json")
    file.write_text(yaml.safe_dump(over(tree, {"evaluation": {"test_keep_rates": [1.0, 0.5]}})))
    return file


def spectrim(*arguments: object) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, " ".join(result.stderr.split())


def test_a_run_from_the_command_line(words: Path, plan: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    code, out, err = spectrim(
        *("train", plan, "--data", words, "--output", output, "--set", "seed=3"),
        *("--set", "optimiser.learning_rate=3e-4", "--no-progress"),
    )
    assert code == 0
    table, model = out.splitlines()[:3], out.splitlines()[3]
    accuracies = json.loads((output / "results.json").read_text())["test"]
    assert table[0].split() == ["keep", "rate", "accuracy"]
    assert [line.split() for line in table[1:]] == [
        [f"{float(rate):g}", f"{accuracies[rate]:.4f}"] for rate in accuracies
    ]
    assert model == f"model: {output / 'model'}"
    written = json.loads((output / "run.json").read_text())["recipe"]
    assert (written["seed"], written["optimiser"]["learning_rate"]) == (3, 3e-4)
    assert "5/5 steps: epoch 1," in err
    assert sorted(path.name for path in (output / "figures").iterdir()) == [
        *("confusion.png", "per_class.png", "training.png")
    ]
    assert "Writing model shards" not in err
    code, _, err = spectrim("train", plan, "--data", words, "--output", output)
    assert code == 2
    assert "--resume" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--set", "optimiser.epoch=3"], "optimiser.epoch is 3; allowed:"),
        (["--set", "pruning.keep_rate=0"], "pruning.keep_rate is 0; allowed:"),
        (["--set", "seed"], "--set is 'seed'; allowed: field=value"),
        (["--set", "data.name=birds"], "data.name is 'birds'; allowed: one of"),
        (["--set", "data.options.fold=1"], "fold is 1; allowed:"),
        (["--fold", "1"], "option fold is 1; allowed:"),
        (
            ["--fold", "1", "--set", "data.options.fold=2"],
            "fold is 1; allowed: one of --fold and --set data.options.fold=",
        ),
        (["--fold", "1", "--folds", "all"], "fold is 1; allowed: one of --fold and --folds"),
        (["--folds", "all"], "folds is 'all'; allowed: none: spoken-commands in"),
        (["--set", "optimiser.precision=fp64"], "optimiser.precision is 'fp64'; allowed:"),
        (["--set", "optimiser.accumulate=3"], "optimiser.accumulate is 3; allowed: a divisor of"),
        (["--set", "model.fields.keep_rate=0.5"], "model.fields.keep_rate is 0.5; allowed: pruning.keep_rate"),
        (["--set", "model.fields.num_attention_heads=5"], "hidden_size is 32; allowed: a multiple of"),
        (["--set", "pruning.prune_at=[9]"], "prune_at is 9; allowed: block numbers from 0 to 3"),
        (["--branch-of", "nowhere"], "branch_of is 'nowhere'; allowed: the folder of a run"),
        (["--rate", "0.5"], "No such option"),
        (["--cache", "5 apples"], "cache is '5 apples'; allowed: off, or a size such as 500MB or 20GB"),
        (["--cache", "nanGB"], "cache is 'nanGB'; allowed: off"),
    ],
)
def test_wrong_use_is_named_before_any_work(
    arguments: list[str], said: str, words: Path, plan: Path, tmp_path: Path
) -> None:
    code, out, err = spectrim("train", plan, "--data", words, "--output", tmp_path / "run", *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert not (tmp_path / "run").exists()


def test_an_unknown_recipe_gets_the_list_of_those_there_are(words: Path, tmp_path: Path) -> None:
    code, _, err = spectrim("train", "ast-birds", "--data", words, "--output", tmp_path / "run")
    assert code == 2
    assert "ast-birds" in err
    assert all(name in err for name in shipped_recipes())


def test_what_is_not_on_disk_is_a_failure_that_names_it(plan: Path, words: Path, tmp_path: Path) -> None:
    code, _, err = spectrim("train", plan, "--data", tmp_path / "nowhere", "--output", tmp_path / "run")
    assert (code, f"{tmp_path / 'nowhere'}: no such folder" in err) == (1, True)
    code, _, err = spectrim(
        *("train", plan, "--data", words, "--output", tmp_path / "run", "--init", tmp_path / "start.pth")
    )
    assert (code, str(tmp_path / "start.pth") in err) == (1, True)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no file's size")
def test_a_checkpoint_that_finds_no_room_says_how_to_go_on(words: Path, plan: Path, tmp_path: Path) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        code, out, err = spectrim("train", plan, "--data", words, "--output", tmp_path / "run", "--no-progress")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (code, out) == (1, "")
    assert "once there is room, the same command with --resume goes on from the newest checkpoint" in err
    assert err.endswith(f"{tmp_path / 'run'}: File too large; make room, or write elsewhere")


@pytest.fixture
def heard() -> Iterator[None]:
    """Let Ctrl-C reach this process, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heard")
def test_ctrl_c_ends_with_130_and_the_run_can_be_resumed(
    words: Path, plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = PruningTrainer.training_step

    def interrupted(self: PruningTrainer, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.state.global_step == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return step(self, *args, **kwargs)

    changes = ("--set", "evaluation.every_epochs=0.4", "--set", "evaluation.test_keep_rates=[]")
    command = ("train", plan, "--data", words, *changes, "--no-progress", "--output")
    monkeypatch.setattr(PruningTrainer, "training_step", interrupted)
    code, out, err = spectrim(*command, tmp_path / "run")
    assert (code, out) == (130, "")
    assert err.endswith("the same command with --resume goes on from the newest checkpoint spectrim: interrupted")
    monkeypatch.setattr(PruningTrainer, "training_step", step)
    assert spectrim(*command, tmp_path / "run", "--resume")[0] == 0
    assert spectrim(*command, tmp_path / "unbroken")[0] == 0
    resumed, unbroken = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("run", "unbroken"))
    for name, weight in unbroken.items():
        assert torch.equal(resumed[name], weight), name
