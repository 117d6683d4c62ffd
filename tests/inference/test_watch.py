from __future__ import annotations

import os
from pathlib import Path

import pytest
from unreadable import lock

from spectrim.errors import InvalidSetting
from spectrim.inference import watch
from spectrim.inference.journal import file_version
from spectrim.inference.watch import Arrivals


class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def looks(arrivals: Arrivals, clock: Clock, number: int = 1) -> list[str]:
    """Names that so many looks give, a second apart."""
    names = []
    for _ in range(number):
        names += [Path(path).name for path in arrivals.look()]
        clock.seconds += 1.0
    return names


def test_a_file_is_given_once_when_it_has_not_changed_for_a_while(tmp_path: Path) -> None:
    clock = Clock()
    arrivals = Arrivals(tmp_path, {}, 2.0, now=clock)
    (tmp_path / "early.wav").write_bytes(b"x")
    assert looks(arrivals, clock, 2) == []
    growing = tmp_path / "deep" / "growing.wav"
    growing.parent.mkdir()
    for size in range(5):
        growing.write_bytes(b"x" * size)
        assert looks(arrivals, clock) == (["early.wav"] if size == 0 else [])
    assert looks(arrivals, clock, 5) == ["growing.wav"]


def test_a_folder_that_cannot_be_read_is_named_and_the_others_are_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    arrivals = Arrivals(tmp_path, {}, 1.0, now=clock)
    (tmp_path / "locked").mkdir()
    (tmp_path / "a.wav").write_bytes(b"x")
    with monkeypatch.context() as patch:
        lock(patch, tmp_path / "locked")
        assert looks(arrivals, clock, 3) == ["a.wav"]
        assert arrivals.unreadable == {str(tmp_path / "locked"): "this folder cannot be read: Permission denied"}
    assert looks(arrivals, clock) == []
    assert arrivals.unreadable == {}


def test_partial_copies_wait_for_their_name_and_replaced_files_come_again(tmp_path: Path) -> None:
    clock = Clock()
    arrivals = Arrivals(tmp_path, {}, 1.0, now=clock)
    for name in ("a.wav.part", ".b.wav.x7Tq", "notes.txt", ".hidden.wav"):
        (tmp_path / name).write_bytes(b"x")
    assert looks(arrivals, clock, 3) == []
    (tmp_path / "a.wav.part").rename(tmp_path / "a.wav")
    (tmp_path / ".b.wav.x7Tq").rename(tmp_path / "b.wav")
    assert looks(arrivals, clock, 3) == ["a.wav", "b.wav"]
    (tmp_path / "new").write_bytes(b"other")
    (tmp_path / "new").rename(tmp_path / "a.wav")
    assert looks(arrivals, clock, 3) == ["a.wav"]
    (tmp_path / "b.wav").unlink()
    assert looks(arrivals, clock, 3) == []


def test_what_was_done_before_and_the_output_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("done.wav", "out.wav", "a.wav", "b.wav", "changed.wav"):
        (tmp_path / name).write_bytes(b"x")
    given = {str(tmp_path / name): file_version(str(tmp_path / name)) for name in ("done.wav", "changed.wav")}
    os.utime(tmp_path / "changed.wav", (1, 1))
    clock = Clock()
    monkeypatch.setattr(watch, "MOST", 2)
    arrivals = Arrivals(tmp_path, given, 0.0, apart_from=tmp_path / "out.wav", now=clock)
    assert looks(arrivals, clock) == ["a.wav", "b.wav"]
    assert looks(arrivals, clock) == ["changed.wav"]
    assert looks(arrivals, clock) == []


def test_a_folder_that_vanishes_may_come_back(tmp_path: Path) -> None:
    folder, clock = tmp_path / "share", Clock()
    folder.mkdir()
    (folder / "a.wav").write_bytes(b"x")
    arrivals = Arrivals(folder, {}, 0.0, now=clock)
    assert looks(arrivals, clock) == ["a.wav"]
    folder.rename(tmp_path / "away")
    assert looks(arrivals, clock, 2) == []
    (tmp_path / "away").rename(folder)
    (folder / "b.wav").write_bytes(b"x")
    assert looks(arrivals, clock, 2) == ["b.wav"]


def test_what_has_vanished_or_changed_is_taken_back_and_comes_again(tmp_path: Path) -> None:
    folder, clock = tmp_path / "share", Clock()
    folder.mkdir()
    path = folder / "a.wav"
    path.write_bytes(b"x")
    arrivals = Arrivals(folder, {}, 1.0, now=clock)
    assert looks(arrivals, clock, 2) == ["a.wav"]
    assert not arrivals.take_back(str(path))
    folder.rename(tmp_path / "away")
    assert arrivals.take_back(str(path))
    assert looks(arrivals, clock, 2) == []
    (tmp_path / "away").rename(folder)
    assert looks(arrivals, clock, 3) == ["a.wav"]
    path.write_bytes(b"other")
    assert arrivals.take_back(str(path))
    assert looks(arrivals, clock, 3) == ["a.wav"]


def test_wrong_settings(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"watch is .*a folder that exists"):
        Arrivals(tmp_path / "none", {})
    with pytest.raises(InvalidSetting, match="settle is -1"):
        Arrivals(tmp_path, {}, -1.0)
