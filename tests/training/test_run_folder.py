from __future__ import annotations

import errno
import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from small_runs import cut_short, write_checkpoint

from spectrim.checkpoints import DescribedSource
from spectrim.errors import InvalidSetting
from spectrim.training.run_folder import CheckpointFolder, begin_run, check_run, flaw, named_start


def alter(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"x")


BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: (path / "model.safetensors").unlink(), "model.safetensors is missing"),
    "truncated": (lambda path: cut_short(path / "model.safetensors"), "model.safetensors is not what was written"),
    "altered": (lambda path: alter(path / "model.safetensors"), "model.safetensors is not what was written"),
    "unsealed": (lambda path: (path / "whole.json").unlink(), "it has no readable whole.json"),
    "torn seal": (lambda path: (path / "whole.json").write_text('{"model.'), "it has no readable whole.json"),
    "no seal": (lambda path: (path / "whole.json").write_text("[1]"), "it has no readable whole.json"),
    "empty seal": (lambda path: (path / "whole.json").write_text("{}"), "it has no readable whole.json"),
    "binary seal": (lambda path: (path / "whole.json").write_bytes(b"\xff\xfe"), "it has no readable whole.json"),
}


def test_a_start_is_named_by_its_place_alone() -> None:
    starts = (None, "a/b", Path("a/b"), DescribedSource("a/b"))
    assert [named_start(start) for start in starts] == [None, "a/b", "a/b", "a/b"]
    with pytest.raises(InvalidSetting, match=r"allowed: a path or hub id; model\.stride"):
        named_start(DescribedSource("a/b", stride=10))
    with pytest.raises(InvalidSetting, match="init is 5"):
        named_start(5)  # type: ignore[arg-type]


def test_a_sealed_checkpoint_is_whole(tmp_path: Path) -> None:
    assert flaw(write_checkpoint(tmp_path, 1)) is None


@pytest.mark.parametrize("kind", BREAKS)
def test_a_broken_newest_checkpoint_is_named_and_the_one_before_taken(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    older, newer = write_checkpoint(tmp_path, 9), write_checkpoint(tmp_path, 10)
    assert CheckpointFolder(tmp_path).newest() == newer
    assert not caplog.records
    damage, reason = BREAKS[kind]
    damage(newer)
    assert flaw(newer) == reason
    with caplog.at_level(logging.WARNING):
        assert CheckpointFolder(tmp_path).newest() == older
    assert caplog.messages == [f"{newer} is passed over: {reason}"]


def test_without_a_whole_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert CheckpointFolder(tmp_path / "nowhere").newest() is None
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-3").mkdir()
    assert CheckpointFolder(tmp_path).newest() is None


def test_a_checkpoint_takes_its_place_and_old_ones_go_but_the_best(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    for step in (2, 8, 9, 10):
        write_checkpoint(folder.partial, step)
        folder.finish(step, best=2)
        assert flaw(folder.checkpoint(step)) is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-2", "checkpoint-9"]
    write_checkpoint(folder.partial, 11)
    folder.finish(11, best=None)
    assert folder.steps() == [10, 11]


def test_a_checkpoint_that_is_copied_replaces_what_was_left_of_another(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path / "branch")
    write_checkpoint(folder.path, 7)
    cut_short(folder.checkpoint(7) / "model.safetensors")
    (folder.partial / "checkpoint-7").mkdir(parents=True)
    folder.copy(write_checkpoint(tmp_path / "trunk", 7))
    assert folder.newest() == folder.checkpoint(7)
    assert not folder.partial.exists()


def test_a_full_disk_leaves_nothing_of_a_copy_and_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, trunk = CheckpointFolder(tmp_path / "branch"), write_checkpoint(tmp_path / "trunk", 7)
    copied = []

    def copy(source: Path, target: Path) -> None:
        copied.append(source)
        if len(copied) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        target.touch()

    monkeypatch.setattr(shutil, "copy2", copy)
    with pytest.raises(OSError, match=r"No space left on device: .*\.partial"):
        folder.copy(trunk)
    assert folder.steps() == [] and not folder.partial.exists()


# What is run, and whether it is the same


def test_a_run_is_written_down_and_then_refused_or_resumed(tmp_path: Path) -> None:
    run, output = {"recipe": {"seed": 1, "optimiser": {"betas": [0.9, 0.99]}}, "init": None}, tmp_path / "run"
    check_run(run, output, resume=False)
    check_run(run, output, resume=True)
    assert not output.exists()
    begin_run(run, output)
    assert json.loads((output / "run.json").read_text()) == run
    facts = json.loads((output / "environment.json").read_text())
    assert facts["processes"] == 1
    assert facts["versions"]["torch"] == torch.__version__
    check_run(run, output, resume=True)
    with pytest.raises(InvalidSetting, match=r"output is '.*run'; allowed: a folder without a run in it, or --resume"):
        check_run(run, output, resume=False)
    with pytest.raises(InvalidSetting, match=r"recipe\.seed is 2; allowed: 1, with which the run in .*run was begun"):
        check_run({**run, "recipe": {**run["recipe"], "seed": 2}}, output, resume=True)


def test_checkpoints_of_an_unknown_run_are_not_resumed(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    for resume in (False, True):
        check_run({"seed": 1}, tmp_path, resume=resume)
    write_checkpoint(tmp_path / "checkpoints", 5)
    with pytest.raises(InvalidSetting, match="--resume"):
        check_run({"seed": 1}, tmp_path, resume=False)
    with pytest.raises(InvalidSetting, match=r"a folder with run\.json"):
        check_run({"seed": 1}, tmp_path, resume=True)


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin_run({"seed": 1}, tmp_path / "run")
    monkeypatch.setenv("RANK", "1")
    check_run({"seed": 2}, tmp_path / "run", resume=False)
    begin_run({"seed": 2}, tmp_path / "other")
    assert not (tmp_path / "other").exists()
