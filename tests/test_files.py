"""Outputs appear whole or not at all, by one run at a time, and never through a link."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from spectrim.errors import InvalidSetting
from spectrim.files import file_beside, folder_beside, refuse_another_run, sole_writer, write_json, write_text


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


def test_what_fails_leaves_the_old_file_and_nothing_beside(tmp_path: Path) -> None:
    write_json(tmp_path / "a", 1)
    with pytest.raises(RuntimeError), file_beside(tmp_path / "a") as beside:
        beside.write_text("half")
        raise RuntimeError
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a", "1\n")]


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
