"""Checkpoints that somebody has tampered with, checksums and all, and what a run that is resumed writes."""

from __future__ import annotations

import json
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command_line import run as call
from safetensors.torch import load_file, save_file
from small_runs import EVERYTHING, over, recipe, rows_of, write_words

from spectrim.errors import CheckpointError, DataError, InvalidSetting
from spectrim.training.finetune import build_trainer, prepare, train
from spectrim.training.pruning_trainer import PruningTrainer
from spectrim.training.random_state import RANDOM_GLOBALS
from spectrim.training.recipes import Recipe
from spectrim.training.run_folder import flaw, write_checksums


def plan(**changes: Any) -> Recipe:
    """Logs every five steps, checkpoints every three: neither falls on the other."""
    tree = over(EVERYTHING, {"evaluation": {"every_epochs": 0.6, "test_keep_rates": []}, "optimiser": {"epochs": 2}})
    return recipe(**over(tree, changes))


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_words(tmp_path_factory.mktemp("data") / "words")


@pytest.fixture(scope="module")
def finished(words: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("finished") / "run"
    train(plan(), words, output)
    return output


@pytest.fixture(scope="module")
def trainer(words: Path, tmp_path_factory: pytest.TempPathFactory) -> PruningTrainer:
    return build_trainer(prepare(plan(), words, tmp_path_factory.mktemp("trainer")), progress=False, say=None)


def copied(finished: Path, tmp_path: Path) -> Path:
    """The newest checkpoint of a copy of the run."""
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run" / "checkpoints" / "checkpoint-10"


def test_what_a_run_writes_is_what_it_goes_on_from(finished: Path, trainer: PruningTrainer) -> None:
    for checkpoint in (finished / "checkpoints").iterdir():
        trainer.check_checkpoint(checkpoint)


# Tampered


class Planted:
    """A pickle of it writes a file when it is loaded."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return Path.write_text, (self.place, "ran")


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def load(file: Path) -> Any:
    with torch.serialization.safe_globals(list(RANDOM_GLOBALS)):
        return torch.load(file, weights_only=True)


def rewritten(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Load a torch file, change what is in it, or give something else, and save it."""

    def tamper(file: Path) -> None:
        content = load(file)
        given = change(content)
        torch.save(content if given is None else given, file)

    return tamper


def moments(**changes: Any) -> Callable[[Path], None]:
    return rewritten(lambda content: content["state"][0].update(changes))


def groups(**changes: Any) -> Callable[[Path], None]:
    return rewritten(lambda content: content["param_groups"][0].update(changes))


def entries(**changes: Any) -> Callable[[Path], None]:
    return rewritten(lambda content: content.update(changes))


def state_of(**changes: Any) -> Callable[[Path], None]:
    def tamper(file: Path) -> None:
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return tamper


def compressed(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def aliased(content: Any) -> None:
    content["state"][0]["exp_avg_sq"] = content["state"][0]["exp_avg"]


def written(text: str) -> Callable[[Path], None]:
    return lambda file: file.write_text(text) and None


ANY_TORCH_FILE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "code": (lambda file: torch.save(Planted(file.with_suffix(".ran")), file), r"holds code \(.*\), which is not run"),
    "code in a plain pickle": (
        lambda file: file.write_bytes(pickle.dumps(Planted(file.with_suffix(".ran")))),
        "not written by torch.save",
    ),
    "empty": (lambda file: file.write_bytes(b""), "not written by torch.save"),
    "cut short": (lambda file: file.write_bytes(file.read_bytes()[:-400]), "not written by torch.save"),
    "text": (written("weights"), "not written by torch.save"),
    "compressed": (compressed, "it is compressed"),
    "a list": (lambda file: torch.save([1, 2], file), "it is no"),
    "a tensor": (lambda file: torch.save(torch.ones(3), file), "it is no"),
    "nested": (lambda file: torch.save(nested(400), file), "it is no"),
    "other keys": (lambda file: torch.save({"state": {}, 3: 4}, file), "it is no"),
    "gone": (lambda file: file.unlink(), "it is missing"),
}

HUGE = torch.zeros(()).expand(10**12)

VARIANTS: dict[str, dict[str, tuple[Callable[[Path], Any], str]]] = {
    "optimizer.pt": {
        **ANY_TORCH_FILE,
        "huge": (moments(exp_avg=HUGE), r"state\[0\]\.exp_avg is .* of shape \(1000000000000,\)"),
        "spread": (moments(exp_avg=torch.zeros(()).expand(1, 1, 32)), "shares its memory"),
        "aliased": (rewritten(aliased), "shares its memory"),
        "another shape": (moments(exp_avg=torch.zeros(32)), r"of shape \(32,\), not \(1, 1, 32\)"),
        "whole numbers": (moments(exp_avg=torch.zeros(1, 1, 32, dtype=torch.int64)), "torch.int64"),
        "sparse": (moments(exp_avg=torch.zeros(1, 1, 32).to_sparse()), "not a tensor"),
        "no tensor": (moments(exp_avg="0"), r"exp_avg is '0', not a tensor"),
        "NaN": (moments(exp_avg=torch.full((1, 1, 32), torch.nan)), "values that cannot be"),
        "negative": (moments(exp_avg_sq=-torch.ones(1, 1, 32)), "values that cannot be"),
        "a later step": (moments(step=torch.tensor(11.0)), "step is 11 after 10 steps"),
        "one moment more": (moments(max_exp_avg_sq=torch.zeros(1, 1, 32)), r"state\[0\] is "),
        "no moments": (entries(state={}), "state is {}"),
        "one parameter more": (rewritten(lambda c: c["state"].update({10**6: {}})), "entry 1000000 of"),
        "a name": (rewritten(lambda c: c["state"].update({"0": {}})), "entry '0' of"),
        "no groups": (entries(param_groups=[]), r"param_groups is \[\]"),
        "groups of another kind": (entries(param_groups=[3]), r"param_groups\[0\] is 3"),
        "another decay": (groups(weight_decay=9.0), r"weight_decay is 9\.0, and 0\.0 in this run"),
        "a tensor as betas": (groups(betas=torch.ones(2)), "betas is tensor"),
        "a rate that is none": (groups(lr=float("nan")), "lr is nan"),
        "a rate in words": (groups(lr="fast"), "lr is 'fast'"),
        "fewer parameters": (groups(params=[0, 1]), r"params is \[0, 1\]"),
    },
    "scheduler.pt": {
        **ANY_TORCH_FILE,
        "a method": (entries(step=1), "it is no schedule's state"),
        "the optimiser": (entries(optimizer=None), "it is no schedule's state"),
        "lambdas": (entries(lr_lambdas=[{"a": 1}]), "lr_lambdas is "),
        "another base": (entries(base_lrs=[1.0]), r"base_lrs is \[1\.0\], and \[0\.002\] in this run"),
        "another step": (entries(last_epoch=9), "last_epoch is 9 .* after 10 steps"),
        "a step in words": (entries(last_epoch="9"), "last_epoch is '9'"),
        "another rate": (entries(_last_lr=[1.0]), r"_last_lr is \[1\.0\]"),
        "a rate of tensors": (entries(_last_lr=torch.ones(1)), "_last_lr is tensor"),
    },
    "rng_state.pth": {
        **ANY_TORCH_FILE,
        "Python's": (entries(python=(3, (1, 2), None)), "state of Python's generator"),
        "Python's, in words": (entries(python="abc"), "state of Python's generator"),
        "numpy's": (entries(numpy=("MT19937", np.zeros(3, np.uint32), 0, 0, 0.0)), "state of numpy's generator"),
        "numpy's, another": (entries(numpy=("PCG64", np.zeros(624, np.uint32), 0, 0, 0.0)), "numpy's generator"),
        "torch's": (entries(cpu=torch.zeros(10, dtype=torch.uint8)), "state of torch's generator"),
        "torch's, huge": (entries(cpu=torch.zeros((), dtype=torch.uint8).expand(10**12)), "state of torch's generator"),
        "torch's, of floats": (entries(cpu=torch.zeros(5056)), "state of torch's generator"),
        "a device's": (entries(cuda=[3]), "state of the generator of cuda"),
        "another's": (entries(someone=1), "no state of random generators"),
    },
    "trainer_state.json": {
        "brackets": (written("[" * 200_000), "valid JSON"),
        "a list": (written("[]"), "not an object"),
        "cut short": (lambda file: file.write_text(file.read_text()[:-20]), "valid JSON"),
        "binary": (lambda file: file.write_bytes(b"\xff\xfe\x00"), "valid JSON"),
        "gone": (lambda file: file.unlink(), "it is missing"),
        "another step": (state_of(global_step=9, log_history=[]), "global_step is 9 in checkpoint-10"),
        "far beyond": (state_of(global_step=10**400), "global_step is 1000"),
        "a step in words": (state_of(global_step="10"), "global_step is '10'"),
        "no steps between logs": (state_of(logging_steps=0), "logging_steps is 0, and 5 in this run"),
        "a share": (state_of(eval_steps=0.1), r"eval_steps is 0\.1"),
        "another length": (state_of(max_steps=99), "max_steps is 99, and 10 in this run; the data set"),
        "another epoch": (state_of(epoch=0.5), r"epoch is 0\.5 after 10 of 10 steps"),
        "an epoch that is none": (state_of(epoch=float("nan")), "epoch is nan"),
        "the best to come": (state_of(best_global_step=12), "best_global_step is 12"),
        "the best of nothing": (state_of(best_metric=None), "best_global_step is"),
        "unknown": (state_of(load=1), "load is no field"),
        "rows": (state_of(log_history=[{"loss": "x", "step": 1}]), "log_history holds"),
        "rows of what will be": (state_of(log_history=[{"loss": 1.0, "step": 10**9}]), "log_history holds"),
    },
    "config.json": {
        "brackets": (written("[" * 200_000), "no configuration"),
        "a list": (written("[]"), "not an object"),
        "labels": (written('{"id2label": 3}'), "no configuration"),
    },
    "scaler.pt": {"of a run in single precision": (lambda file: torch.save({}, file), "does not scale its loss")},
    "optimizer.bin": {"foreign": (written("x"), "no run writes this")},
    "pytorch_model_fsdp_0": {"foreign": (lambda file: file.mkdir(), "no run writes this")},
}


@pytest.mark.parametrize(("name", "way"), [(name, way) for name, ways in VARIANTS.items() for way in ways])
def test_a_tampered_checkpoint_is_refused_by_file_in_one_line(
    name: str, way: str, finished: Path, tmp_path: Path, trainer: PruningTrainer
) -> None:
    checkpoint = copied(finished, tmp_path)
    tamper, words_of_error = VARIANTS[name][way]
    tamper(checkpoint / name)
    with pytest.raises(CheckpointError, match=words_of_error) as found:
        trainer.check_checkpoint(checkpoint)
    text = str(found.value)
    assert text.startswith(f"{checkpoint / name}: ") and "\n" not in text and len(text) < 1200
    assert "Remove the folder checkpoint-10" in text
    assert not list(tmp_path.rglob("*.ran"))


def test_weights_that_are_not_the_model_s_are_refused(finished: Path, tmp_path: Path, trainer: PruningTrainer) -> None:
    checkpoint = copied(finished, tmp_path)
    file = checkpoint / "model.safetensors"
    weights = load_file(file)
    first = min(weights)
    for content, words_of_error in (
        ({**weights, "extra": torch.ones(1)}, "extra is none of this model's"),
        ({name: value for name, value in weights.items() if name != first}, f"{first} is missing"),
        ({**weights, first: torch.ones(7)}, rf"{first} has the shape \[7\]"),
        ({**weights, first: torch.full_like(weights[first], torch.inf)}, f"{first} holds values"),
        ({**weights, first: weights[first].long()}, f"{first} holds values"),
    ):
        save_file(content, file)
        with pytest.raises(CheckpointError, match=words_of_error):
            trainer.check_checkpoint(checkpoint)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: it cannot be read"):
        trainer.check_checkpoint(checkpoint)


def test_random_damage_is_refused_or_does_no_harm(finished: Path, tmp_path: Path, trainer: PruningTrainer) -> None:
    """Bytes at places drawn by a seed: nothing but `CheckpointError` comes of it."""
    checkpoint, draw = copied(finished, tmp_path), random.Random(5)
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "config.json"):
        whole, refused = (checkpoint / name).read_bytes(), 0
        for _ in range(10):
            content = bytearray(whole)
            start = draw.randrange(len(content))
            content[start : start + draw.randint(1, 64)] = draw.randbytes(draw.randint(0, 64))
            (checkpoint / name).write_bytes(content)
            try:
                trainer.check_checkpoint(checkpoint)
            except CheckpointError as error:
                assert "\n" not in str(error)
                refused += 1
        assert refused, name
        (checkpoint / name).write_bytes(whole)


def test_the_command_line_refuses_it_before_it_writes(words: Path, finished: Path, tmp_path: Path) -> None:
    checkpoint = copied(finished, tmp_path)
    torch.save(Planted(tmp_path / "ran"), checkpoint / "optimizer.pt")
    write_checksums(checkpoint)
    assert flaw(checkpoint) is None
    run, before = checkpoint.parent.parent, (tmp_path / "run" / "environment.json").stat().st_mtime_ns
    changed = tmp_path / "plan.yaml"
    changed.write_text(json.dumps(plan().model_dump(mode="json")))
    code, _, complaint = call("train", changed, "--data", words, "--output", run, "--resume", "--no-progress")
    assert code == 1
    assert "optimizer.pt: its pickle holds code" in complaint and len(complaint.strip().splitlines()) == 1
    assert not (tmp_path / "ran").exists()
    assert (run / "environment.json").stat().st_mtime_ns == before


def test_a_branch_of_a_tampered_run_is_refused(words: Path, tmp_path: Path) -> None:
    late = {"pruning": {"shrink_start": 1.4, "shrink_epochs": 0.4}, "evaluation": {"first_epoch": 1.8}}
    trunk = tmp_path / "trunk"
    train(plan(**over(late, {"optimiser": {"stop_after_epochs": 1.4}})), words, trunk)
    newest = trunk / "checkpoints" / "checkpoint-7"
    moments(exp_avg=torch.zeros(3))(newest / "optimizer.pt")
    write_checksums(newest)
    with pytest.raises(CheckpointError, match=r"optimizer\.pt: state\[0\]\.exp_avg"):
        train(plan(**late), words, tmp_path / "branch", branch_of=trunk)
    assert not (tmp_path / "branch" / "run.json").exists()
    with pytest.raises(CheckpointError, match=r"optimizer\.pt"):
        train(plan(**late), words, tmp_path / "branch", branch_of=trunk)


def test_a_best_checkpoint_with_other_weights_is_refused(words: Path, finished: Path, tmp_path: Path) -> None:
    newest = copied(finished, tmp_path)
    state = json.loads((newest / "trainer_state.json").read_text())
    best = newest.with_name("checkpoint-9")
    assert best.is_dir()
    (newest / "trainer_state.json").write_text(json.dumps({**state, "best_global_step": 9}))
    write_checksums(newest)
    weights = load_file(best / "model.safetensors")
    save_file({**weights, min(weights): torch.ones(2)}, best / "model.safetensors")
    write_checksums(best)
    with pytest.raises(CheckpointError, match=r"checkpoint-9/model\.safetensors: .* has the shape \[2\]"):
        train(plan(), words, newest.parent.parent, resume=True)


def test_other_clips_than_those_of_the_beginning_are_refused(words: Path, finished: Path, tmp_path: Path) -> None:
    run = copied(finished, tmp_path).parent.parent
    said = json.loads((run / "clips.json").read_text())
    assert list(said) == ["train", "validation", "test"]
    said["test"]["sha256"] = said["train"]["sha256"]
    (run / "clips.json").write_text(json.dumps(said))
    with pytest.raises(DataError, match=r"test: .* clips that it was trained on may be tested now"):
        train(plan(), words, run, resume=True)


@pytest.mark.parametrize(
    ("text", "words_of_error"),
    [("{", "valid JSON"), ("[" * 100_000, "valid JSON"), ("[]", "says recipe"), ('{"recipe": 3}', "says recipe")],
)
def test_a_run_json_that_says_nothing_is_refused(
    text: str, words_of_error: str, words: Path, finished: Path, tmp_path: Path
) -> None:
    run = copied(finished, tmp_path).parent.parent
    (run / "run.json").write_text(text)
    with pytest.raises(InvalidSetting, match=words_of_error):
        train(plan(), words, run, resume=True)


def test_a_log_that_is_none_is_refused(words: Path, finished: Path, tmp_path: Path) -> None:
    run = copied(finished, tmp_path).parent.parent
    log = run / "metrics.jsonl"
    for line in ("[]", '{"loss": 1}', "loss"):
        log.write_text(f'{{"step": 1, "loss": 3.0}}\n{line}\n')
        with pytest.raises(DataError, match=r"metrics\.jsonl: line 2 is no row of a run's log"):
            train(plan(), words, run, resume=True)


def test_checksums_name_nothing_outside(finished: Path, tmp_path: Path) -> None:
    checkpoint = copied(finished, tmp_path)
    sums = json.loads((checkpoint / "whole.json").read_text())
    (checkpoint / "whole.json").write_text(json.dumps({**sums, "../../run.json": {}}))
    assert flaw(checkpoint) == "its whole.json names ../../run.json, outside of it"


# What a resumed run writes


@pytest.mark.parametrize("kept", [3, 6])
def test_the_log_of_a_resumed_run_is_that_of_the_unbroken_one(
    kept: int, words: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the step after a checkpoint, between two logs; the mean loss of all steps is equal, too."""
    step = PruningTrainer.training_step

    def dies(self: PruningTrainer, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.state.global_step == kept + 1:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(PruningTrainer, "training_step", dies)
    with pytest.raises(KeyboardInterrupt):
        train(plan(), words, tmp_path / "run")
    monkeypatch.setattr(PruningTrainer, "training_step", step)
    train(plan(), words, tmp_path / "run", resume=True)
    resumed, unbroken = (
        [{name: value for name, value in row.items() if not name.endswith(("_runtime", "_per_second"))} for row in rows]
        for rows in (rows_of(tmp_path / "run"), rows_of(finished))
    )
    assert resumed == unbroken
    losses = [(row["step"], row["loss"]) for row in unbroken if "loss" in row]
    assert [place for place, _ in losses] == [3, 5, 6, 9, 10]
    mean = sum(loss * count for (_, loss), count in zip(losses, (3, 2, 1, 3, 1), strict=True)) / 10
    assert unbroken[-1]["train_loss"] == pytest.approx(mean, rel=1e-12)
