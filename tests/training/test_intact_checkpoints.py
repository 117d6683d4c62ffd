from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from small_runs import cut_short, write_checkpoint

from spectrim.training.intact_checkpoints import flaw, newest_checkpoint


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


def test_a_sealed_checkpoint_is_whole(tmp_path: Path) -> None:
    assert flaw(write_checkpoint(tmp_path, 1)) is None


@pytest.mark.parametrize("kind", BREAKS)
def test_a_broken_newest_checkpoint_is_named_and_the_one_before_taken(
    kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    older, newer = write_checkpoint(tmp_path, 9), write_checkpoint(tmp_path, 10)
    assert newest_checkpoint(tmp_path) == newer
    assert not caplog.records
    damage, reason = BREAKS[kind]
    damage(newer)
    assert flaw(newer) == reason
    with caplog.at_level(logging.WARNING):
        assert newest_checkpoint(tmp_path) == older
    assert caplog.messages == [f"{newer} is passed over: {reason}"]


def test_without_a_whole_checkpoint_there_is_none(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "nowhere") is None
    (tmp_path / "checkpoint-best").mkdir()
    (tmp_path / "checkpoint-3").mkdir()
    assert newest_checkpoint(tmp_path) is None
