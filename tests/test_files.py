"""Outputs appear whole or not at all, by one run at a time, and never through a link."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock, Timeout
from safetensors.torch import save_file

from spectrim.errors import InvalidSetting
from spectrim.files import (
    SoleWriter,
    file_beside,
    folder_beside,
    name_with,
    named_when_full,
    refuse_another_run,
    refuse_input,
    remove_leftover,
    sole_writer,
    write_json,
    write_text,
)


def test_a_planted_link_is_removed_and_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for name in ("a.txt.partial", "a.txt"):
        (tmp_path / name).symlink_to(precious)
    write_text(tmp_path / "a.txt", "new")
    assert (precious.read_text(), (tmp_path / "a.txt").read_text()) == ("mine", "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "precious"]


def test_a_planted_link_to_a_folder_is_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "x").touch()
    for name in ("model.partial", "model.old"):
        (tmp_path / name).symlink_to(tmp_path / "precious")
    with folder_beside(tmp_path / "model") as beside:
        beside.mkdir()
        (beside / "y").touch()
    assert [path.name for path in (tmp_path / "precious").iterdir()] == ["x"]
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["y"]


@pytest.mark.parametrize("letter", ["a", "日", "\udce9"])
def test_a_name_that_an_ending_makes_too_long_is_cut_and_stays_apart_from_others(tmp_path: Path, letter: str) -> None:
    longest = letter * (255 // len(os.fsencode(letter)))
    names = [name_with(name, ".txt") for name in (longest, letter + longest[2:] + "b", longest[:20])]
    assert len(set(names)) == 3 and names[2] == longest[:20] + ".txt"
    for name in names:
        assert name.startswith(longest[:20]) and name.endswith(".txt")
        write_text(tmp_path / name, "here")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


def test_what_fails_leaves_the_old_file_and_nothing_beside(tmp_path: Path) -> None:
    write_json(tmp_path / "a", 1)
    with pytest.raises(RuntimeError), file_beside(tmp_path / "a") as beside:
        beside.write_text("half")
        raise RuntimeError
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "1\n")]


def test_two_writers_of_a_file_do_not_disturb_each_other(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with file_beside(path) as first:
        first.write_text("first")
        with pytest.raises(RuntimeError), file_beside(path) as failing:
            raise RuntimeError
        with file_beside(path) as second:
            second.write_text("second")
            write_text(path, "third")
            assert path.read_text() == "third"
            assert not remove_leftover(first) and not remove_leftover(second)
        assert path.read_text() == "second"
    assert [first.name, failing.name, second.name] == ["a.txt.partial", "a.txt.2.partial", "a.txt.2.partial"]
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("a.txt", "first")]


def test_processes_and_threads_that_write_one_file_all_do(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    program = (
        "import sys\nfrom concurrent.futures import ThreadPoolExecutor\nfrom pathlib import Path\n"
        "from spectrim.files import write_json\npath, mine = Path(sys.argv[1]), [int(sys.argv[2])] * 20_000\n"
        "with ThreadPoolExecutor(2) as pool: list(pool.map(lambda _: write_json(path, mine), range(100)))"
    )
    writers = [subprocess.Popen([sys.executable, "-c", program, path, str(number)]) for number in range(3)]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert json.loads(path.read_text()) in [[number] * 20_000 for number in range(3)]
    assert list(tmp_path.iterdir()) == [path]


def test_what_killed_writers_leave_behind_is_removed_by_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    program = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom spectrim.files import file_beside\n"
        "with file_beside(Path(sys.argv[1])), file_beside(Path(sys.argv[1])): os.kill(os.getpid(), signal.SIGKILL)"
    )
    killed = subprocess.run([sys.executable, "-c", program, path])
    left = ["a.txt.2.partial", "a.txt.partial"]
    assert (killed.returncode, sorted(one.name for one in tmp_path.iterdir())) == (-signal.SIGKILL, left)
    write_text(path, "whole")
    assert [one.name for one in tmp_path.iterdir()] == ["a.txt"]


def test_a_planted_file_is_not_written_through_another_of_its_names(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "a.txt.partial").hardlink_to(precious)
    write_text(tmp_path / "a.txt", "new")
    assert (precious.read_text(), (tmp_path / "a.txt").read_text()) == ("mine", "new")


def test_no_output_is_a_file_that_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.wav").write_text("sound")
    Path("link.wav").symlink_to("a.wav")
    Path("hard.wav").hardlink_to("a.wav")
    for output in ("a.wav", tmp_path / "a.wav", "./a.wav", "link.wav", "hard.wav"):
        with pytest.raises(InvalidSetting, match=r"allowed: another name: that file is read, as 'a\.wav'"):
            refuse_input(output, ["other.wav", "s3://bucket/b.wav", "a\0b", "a" * 300, "a.wav"])
    for output in ("b.csv", "a" * 300, tmp_path):
        refuse_input(output, ["a.wav", "b.csv", tmp_path])


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="Linux has a folder in which nobody can make a file")
def test_where_nothing_can_be_written_is_not_another_run() -> None:
    with pytest.raises(
        InvalidSetting, match=r"output is '/proc/x'; allowed: a name in a folder that can be written in"
    ):
        SoleWriter("/proc/x")


def test_without_locks_files_are_written_and_leftovers_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spectrim.files.fcntl", None)
    unlink = Path.unlink

    def of_closed_files(path: Path, missing_ok: bool = False) -> None:
        """Windows removes nothing that is open."""
        assert str(path) not in [os.path.realpath(opened) for opened in Path("/proc/self/fd").glob("*")]
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", of_closed_files)
    (tmp_path / "a.txt.partial").write_text("left behind")
    write_text(tmp_path / "a.txt", "whole")
    with pytest.raises(RuntimeError), file_beside(tmp_path / "a.txt"):
        raise RuntimeError
    assert [(one.name, one.read_text()) for one in tmp_path.iterdir()] == [("a.txt", "whole")]


def test_a_name_that_is_cut_has_room_for_all_that_is_written_beside_it(tmp_path: Path) -> None:
    path = tmp_path / name_with("é" * 200, ".txt")
    with sole_writer(path), file_beside(path, ".partial.journal"), file_beside(path, ".partial.journal"):
        assert len(list(tmp_path.iterdir())) == 3


def test_a_run_that_came_too_late_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_late(_: FileLock) -> None:
        raise Timeout(str(tmp_path / ".a.lock"))

    monkeypatch.setattr(FileLock, "acquire", too_late)
    with pytest.raises(InvalidSetting, match="a name that no other run is writing now"):
        SoleWriter(tmp_path / "a")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("beside", [file_beside, folder_beside])
def test_a_full_disk_names_what_was_written(beside: Any, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space") as full, beside(tmp_path / "a"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert full.value.filename == str(tmp_path / "a")
    with pytest.raises(OSError, match="Broken pipe") as other, beside(tmp_path / "a"):
        raise OSError(errno.EPIPE, "Broken pipe")
    assert other.value.filename is None


@pytest.mark.skipif(sys.platform == "win32", reason="Windows limits no file's size")
@pytest.mark.parametrize("most", [100, 20_000])
def test_tensors_that_find_no_room_are_named_like_other_files(tmp_path: Path, most: int) -> None:
    import resource

    ways = {
        "No space left": lambda path: torch.save({"a": torch.zeros(1000), "b": torch.zeros(9000)}, path),
        "File too large": lambda path: save_file({"a": torch.zeros(9000)}, path),
    }
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for words, write in ways.items():
        with pytest.raises(OSError, match=words) as full, named_when_full(tmp_path / "run"):
            try:
                resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
                write(tmp_path / "a")
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert full.value.filename == str(tmp_path / "run")
    with pytest.raises(RuntimeError, match="inconsistent"), named_when_full(tmp_path / "run"):
        raise RuntimeError("inconsistent")


def test_a_name_that_is_not_utf8_is_written_out_in_text_and_json(tmp_path: Path) -> None:
    name = os.fsdecode(b"dog\xe9.flac")
    write_text(tmp_path / "a.csv", f"ä,{name}\n")
    assert (tmp_path / "a.csv").read_text("utf-8") == "ä,dog\\xe9.flac\n"
    write_json(tmp_path / "a.json", [name])
    assert json.loads((tmp_path / "a.json").read_text("utf-8")) == [name]


def test_a_second_run_is_refused_at_once_also_from_another_process(tmp_path: Path) -> None:
    target = tmp_path / "new" / "run"
    program = (
        "import sys\nfrom spectrim.errors import InvalidSetting\nfrom spectrim.files import sole_writer\n"
        "try:\n    with sole_writer(sys.argv[1]): print('wrote')\nexcept InvalidSetting as error: print(error)"
    )

    def other() -> str:
        return subprocess.run([sys.executable, "-c", program, target], capture_output=True, text=True).stdout

    with sole_writer(target):
        assert "a name that no other run is writing now" in other()
        with pytest.raises(InvalidSetting, match="no other run is writing now"), sole_writer(target):
            pass
    assert other() == "wrote\n"
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.parametrize(
    ("now", "words"),
    [
        ({"a": 1, "b": {"c": 2, "d": 4}}, r"b\.d is 4; allowed: 3, with which the run in place"),
        ({"a": 1, "b": {"c": 2}}, r"b\.d is None; allowed: 3, with"),
        ({"a": 1, "b": {"c": 2, "d": 3, "e": {"f": 5}}}, r"b\.e\.f is 5; allowed: None, with"),
        ({"a": 2, "b": {"c": 0, "d": 0}}, r"a is 2; allowed: 1, with"),
    ],
)
def test_the_first_difference_of_two_runs_is_named(now: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidSetting, match=words):
        refuse_another_run(now, {"a": 1, "b": {"c": 2, "d": 3}}, Path("place"))


def test_named_settings_may_differ() -> None:
    refuse_another_run({"a": {"b": 1}}, {"a": {"b": 2}}, Path("place"), apart_from=["a.b"])
    with pytest.raises(InvalidSetting):
        refuse_another_run({"a": {"b": 1}}, {"a": {"b": 2}}, Path("place"), apart_from=["b"])
