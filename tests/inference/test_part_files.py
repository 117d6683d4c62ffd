from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectrim.audio.finding import Selection
from spectrim.errors import AudioError, InvalidSetting, SpectrimError
from spectrim.inference.part_files import MOST_BYTES, PartFolder, parts_of
from spectrim.inference.results import FilePrediction, WindowScores

arrow = pytest.importorskip("pyarrow")
dataset = pytest.importorskip("pyarrow.dataset")

FILES = [f"{number}.wav" for number in range(7)]


def heard(path: str) -> FilePrediction:
    scores = np.array([0.25, 0.75], np.float32)
    return FilePrediction(path, ["no", "yes"], 1.0, [WindowScores(0.0, 1.0, scores)], scores)


def opened(folder: Path, *, resume: bool = False, top: int = 1, **settings: Any) -> PartFolder:
    return PartFolder(folder, {"model": "m", **settings}, top=top, resume=resume, part_files=3)


def rows(folder: Path) -> list[tuple[str, str | None]]:
    table = dataset.dataset(folder, format="parquet").to_table()
    return list(zip(table["file"].to_pylist(), table["error"].to_pylist(), strict=True))


@given(st.lists(st.text("abc/", min_size=1), unique=True), st.integers(1, 5))
def test_parts_hold_every_file_once_in_order(files: list[str], most: int) -> None:
    parts = parts_of(files, most)
    assert [file for part in parts for file in part.files] == files
    assert all(1 <= len(part.files) <= most for part in parts)
    assert sorted({part.name for part in parts}) == [part.name for part in parts]


@pytest.mark.parametrize(("count", "most"), [(1, 64), (16384, 64), (16385, 128), (10**6, 1024)])
def test_more_files_make_larger_parts(count: int, most: int) -> None:
    parts = parts_of([f"none/{number}" for number in range(count)])
    assert {len(part.files) for part in parts[:-1]} <= {most}
    assert len(parts) == -(-count // most)


def test_long_recordings_are_in_parts_of_their_own(tmp_path: Path) -> None:
    names = []
    for number, size in enumerate([10, MOST_BYTES, 10, 10, MOST_BYTES - 20, 1]):
        with (tmp_path / str(number)).open("wb") as file:
            file.truncate(size)
        names.append(str(tmp_path / str(number)))
    assert [len(part.files) for part in parts_of(names)] == [1, 1, 3, 1]


def test_a_part_appears_when_all_its_files_have_rows_in_their_order(tmp_path: Path) -> None:
    folder = opened(tmp_path / "out")
    parts = folder.plan(Selection(FILES))
    assert [list(part.files) for part in parts] == [FILES[:3], FILES[3:6], FILES[6:]]
    for name in (FILES[2], FILES[0], FILES[3]):
        folder.write(heard(name))
    assert not folder.begun
    folder.write(FilePrediction(FILES[1], ["no", "yes"], error="broken"))
    assert [path.name for path in (tmp_path / "out").iterdir()] == [parts[0].name]
    assert rows(tmp_path / "out") == [(FILES[0], None), (FILES[1], "broken"), (FILES[2], None)]
    with pytest.raises(SpectrimError, match=r"3\.wav and 3 more have no rows in .*; --resume tags them"):
        folder.finish()


def test_a_resumed_run_makes_the_parts_that_are_missing(tmp_path: Path) -> None:
    selection = Selection(FILES, [AudioError("empty/", "no audio file in this folder")])
    whole = opened(tmp_path / "whole")
    parts = whole.plan(selection)
    for name in FILES:
        whole.write(heard(name))
    whole.write(FilePrediction("empty/", [], error="no audio file in this folder"))
    whole.finish()
    broken = opened(tmp_path / "broken")
    broken.plan(selection)
    for name in FILES[:5]:
        broken.write(heard(name))
    broken.close()
    (tmp_path / "broken" / ".part-000001-abc.partial").write_bytes(b"PAR")
    again = opened(tmp_path / "broken", resume=True)
    assert again.done == dict.fromkeys(FILES[:3])
    left = again.remaining(selection)
    assert (left.files, [error.source for error in left.errors]) == (FILES[3:], ["empty/"])
    assert again.plan(selection) == parts[1:]
    again.write(FilePrediction("empty/", [], error="no audio file in this folder"))
    for name in FILES[3:]:
        again.write(heard(name))
    again.finish()
    made, wanted = sorted((tmp_path / "broken").iterdir()), sorted((tmp_path / "whole").iterdir())
    assert [path.name for path in made] == [path.name for path in wanted]
    assert [path.read_bytes() for path in made] == [path.read_bytes() for path in wanted]


def test_files_that_came_later_are_tagged_alone(tmp_path: Path) -> None:
    tag(opened(tmp_path), FILES[1:5])
    again = opened(tmp_path, resume=True)
    tag(again, FILES)
    assert sorted(rows(tmp_path)) == [(name, None) for name in FILES]
    assert opened(tmp_path, resume=True).plan(Selection(FILES)) == []


def tag(folder: PartFolder, files: Sequence[str]) -> None:
    for part in folder.plan(Selection(list(files))):
        for name in part.files:
            folder.write(heard(name))
    folder.finish()


def test_names_that_are_not_utf8_are_done_too(tmp_path: Path) -> None:
    tag(opened(tmp_path), ["caf\udce9.wav"])
    assert rows(tmp_path) == [("caf\\xe9.wav", None)]
    assert opened(tmp_path, resume=True).remaining(Selection(["caf\udce9.wav"])).files == []


def test_a_second_prediction_of_a_file_is_refused(tmp_path: Path) -> None:
    folder = opened(tmp_path)
    folder.plan(Selection(FILES))
    folder.write(heard(FILES[0]))
    for name in (FILES[0], "other.wav"):
        with pytest.raises(SpectrimError, match=f"{name}: a second prediction, or one that nobody asked for"):
            folder.write(heard(name))


def test_what_is_refused(tmp_path: Path) -> None:
    tag(opened(tmp_path / "out"), FILES)
    with pytest.raises(InvalidSetting, match="continue those with --resume"):
        opened(tmp_path / "out")
    with pytest.raises(InvalidSetting, match="model is 'other'; allowed: 'm', with which the run in"):
        opened(tmp_path / "out", resume=True, model="other")
    with pytest.raises(InvalidSetting, match="top is 2; allowed: 1"):
        opened(tmp_path / "out", resume=True, top=2)
    (tmp_path / "file").touch()
    with pytest.raises(InvalidSetting, match="a folder: the rows are written in parts"):
        opened(tmp_path / "file")
    first = opened(tmp_path / "new")
    with pytest.raises(InvalidSetting, match="no other run is writing"):
        opened(tmp_path / "new")
    first.close()
    opened(tmp_path / "new").close()
    next((tmp_path / "out").iterdir()).write_bytes(b"")
    with pytest.raises(InvalidSetting, match="an output in the format parquet"):
        opened(tmp_path / "out", resume=True)
    with pytest.raises(InvalidSetting, match="part_files is 0; allowed: 1 or more"):
        parts_of(FILES, 0)
