from __future__ import annotations

from pathlib import Path

import pytest
from layouts import make_voxceleb1

from spectrim.data import DATA_SETS, PARTS
from spectrim.data.voxceleb1 import open_voxceleb1
from spectrim.errors import DataError, InvalidSetting


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_voxceleb1(tmp_path / "vox1")


def test_parts_follow_the_official_list(root: Path) -> None:
    parts = {part: open_voxceleb1(root, part) for part in PARTS}
    assert {name: len(part) for name, part in parts.items()} == {"train": 12, "validation": 3, "test": 3}
    for number, name in enumerate(PARTS, start=1):
        assert all(f"/1zcIwhmdeo{number}/" in recording.id for recording in parts[name].recordings)
        assert all(recording.path == root / "wav" / recording.id for recording in parts[name].recordings)


def test_every_speaker_of_the_list_is_a_class_even_without_files(root: Path) -> None:
    with (root / "iden_split.txt").open("a") as file:
        file.write("2 id10002/abc/00001.wav\n")
    for part in PARTS:
        opened = open_voxceleb1(root, part)
        assert opened.labels == ["id10001", "id10002", "id10003", "id10270"]
        for clip in opened:
            assert opened.labels[clip.target.argmax()] == clip.id.split("/")[0]
    assert list(open_voxceleb1(root, "validation").missing) == ["id10002/abc/00001.wav"]


@pytest.mark.parametrize(
    "line",
    [
        "4 id10001/a/1.wav",
        "id10001/a/1.wav",
        "1 id10001/1.wav",
        "1 id10001/a/b/1.wav",
        "1 ../a/1.wav",
        "1",
        "1 a//b.wav",
    ],
)
def test_a_list_with_something_else_in_it(root: Path, line: str) -> None:
    (root / "iden_split.txt").write_text(f"1 id10001/x/00001.wav\n\n{line}\n")
    with pytest.raises(DataError, match=r"iden_split\.txt, line 3: .* is not 1, 2 or 3"):
        open_voxceleb1(root, "train")


def test_a_file_in_two_parts_is_refused(root: Path) -> None:
    (root / "iden_split.txt").write_text("1 id10001/x/00001.wav\n3 id10001/x/00001.wav\n")
    with pytest.raises(DataError, match=r"line 2: id10001/x/00001\.wav is there twice"):
        open_voxceleb1(root, "train")


def test_another_folder_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"VoxCeleb1 .*: it lacks wav, iden_split\.txt"):
        open_voxceleb1(tmp_path, "train")
    with pytest.raises(InvalidSetting, match="part is 'dev'"):
        open_voxceleb1(root, "dev")


def test_the_published_settings() -> None:
    entry = DATA_SETS["voxceleb1"]
    assert (entry.max_length, entry.mean, entry.std, entry.metric) == (1024, -6.370, 3.074, "accuracy")
