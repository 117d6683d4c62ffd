from __future__ import annotations

from pathlib import Path

import pytest
from layouts import MIDS, make_audioset, write_class_labels, write_manifest
from tones import write_tone

from spectrim.assets import audioset_classes
from spectrim.checkpoints.labels import audioset_labels
from spectrim.data import DATA_SETS, PARTS
from spectrim.data.audioset import open_audioset
from spectrim.errors import DataError, InvalidSetting
from spectrim.tables import read_class_labels


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_audioset(tmp_path / "audioset")


def test_the_manifests_are_the_parts(root: Path) -> None:
    ids = {part: [recording.id for recording in open_audioset(root, part).recordings] for part in PARTS}
    assert ids["train"] == [f"clips/{number}.wav" for number in range(4)]
    assert ids["test"] == ids["validation"] == ["clips/4.wav", "clips/5.wav"]


def test_targets_are_the_mids(root: Path) -> None:
    part = open_audioset(root, "train")
    assert part.labels == list(MIDS.values())
    assert [clip.target.tolist() for clip in part] == [[1, 0, 0], [1, 0, 1], [0, 1, 0], [1, 1, 0]]
    assert (part.multi_label, part.metric) == (True, "mAP")


def test_manifests_can_be_named_and_lie_elsewhere(root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    samples = write_tone(elsewhere / "near.wav", 700)
    write_tone(tmp_path / "far.wav", 900)
    other = write_manifest(elsewhere / "mine.json", {"near.wav": "/m/04rlf", str(tmp_path / "far.wav"): "/m/0k4j"})
    part = open_audioset(root, "train", train=str(other))
    assert [recording.path for recording in part.recordings] == [elsewhere / "near.wav", tmp_path / "far.wav"]
    assert part[0].waveform.tolist() == samples.tolist()
    assert open_audioset(root, "test", evaluation="train.json").recordings[0].id == "clips/0.wav"
    assert open_audioset(root, "validation", validation="train.json").recordings[0].id == "clips/0.wav"
    assert open_audioset(root, "test", validation="train.json").recordings[0].id == "clips/4.wav"


def test_clips_of_a_published_manifest_are_found_in_a_folder_of_one_s_own(root: Path) -> None:
    """Paths of another machine: with a folder of theirs, by their bare names, not there, and not possible."""
    names = ["there/far/sub/0.wav", "there/far/1.wav", "there/../2.wav", "there/9.wav", f"{'x' * 300}.wav"]
    for name in ("sub/0.wav", "0.wav", "1.wav", "2.wav"):
        write_tone(root / "mine" / name, 500)
    write_manifest(root / "train.json", {f"/nowhere/{name}": "/m/04rlf" for name in names})
    part = open_audioset(root, "train", clips="mine", bad_share=0.5)
    assert [recording.path for recording in part.recordings] == [
        root / "mine" / name for name in ("sub/0.wav", "1.wav", "2.wav")
    ]
    assert list(part.missing) == ["/nowhere/there/9.wav", f"/nowhere/{'x' * 300}.wav"]
    with pytest.raises(InvalidSetting, match=r"clips is 'yours'; allowed: a folder that is there"):
        open_audioset(root, "train", clips="yours")


def test_missing_clips_are_named(root: Path) -> None:
    (root / "clips" / "1.wav").unlink()
    assert list(open_audioset(root, "train").missing) == ["clips/1.wav"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            '{"data": [{"wav": "a.wav", "labels": "/m/04rlf,/m/nothing"}]}',
            r"entry 1 \(a\.wav\): '/m/nothing' is no mid",
        ),
        ('{"data": [{"wav": "a.wav", "labels": ""}]}', r"entry 1 \(a\.wav\): '' is no mid"),
        ('{"data": [{"wav": "a.wav", "labels": "/m/04rlf"}, {"wav": "b.wav"}]}', "entry 2: .* is not"),
        ('{"data": [{"wav": "a.wav", "labels": ["/m/04rlf"]}]}', "entry 1: .* is not"),
        (
            '{"data": [{"wav": "a.wav", "labels": "/m/04rlf"}, {"wav": "b/../a.wav", "labels": "/m/0k4j"}]}',
            r"entry 2: b/\.\./a\.wav is there twice, first in train\.json, entry 1",
        ),
        ('{"data": ["a.wav"]}', "entry 1: 'a.wav' is not"),
        ('{"data": {"wav": 1}}', "is no manifest"),
        ("[1]", "is no manifest"),
        ('{"data": [}', "cannot be read as JSON: .* column 11"),
        ('{"data": []}', "holds no clips"),
    ],
)
def test_a_manifest_with_something_wrong(root: Path, text: str, words: str) -> None:
    (root / "train.json").write_text(text)
    with pytest.raises(DataError, match=words):
        open_audioset(root, "train")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("index,mid,name\n0,/m/1,a\n", "lacks display_name"),
        ("index,mid,display_name\n0,/m/1,a\n2,/m/2,b\n", "must count 0, 1, 2"),
        ("index,mid,display_name\n0,/m/1,a\nx,/m/2,b\n", "line 3: index is 'x'"),
        ("index,mid,display_name\n0,/m/1,a\n1,/m/1,b\n", "twice"),
        ("index,mid,display_name\n0,/m/1,a\n1,/m/2,a\n", "twice"),
    ],
)
def test_a_table_of_labels_with_something_wrong(tmp_path: Path, rows: str, words: str) -> None:
    (tmp_path / "labels.csv").write_text(rows)
    with pytest.raises(DataError, match=words):
        read_class_labels(tmp_path / "labels.csv")


def test_labels_are_sorted_by_their_index(tmp_path: Path) -> None:
    path = write_class_labels(tmp_path / "labels.csv")
    header, *rows = path.read_text().splitlines()
    path.write_text("\n".join([header, *reversed(rows)]))
    assert read_class_labels(path) == MIDS


def test_the_real_table_of_labels() -> None:
    known = audioset_classes()
    assert tuple(known.values()) == audioset_labels()
    assert (len(known), known["/m/09x0r"]) == (527, "Speech")


def test_another_folder_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"it lacks train\.json, class_labels_indices\.csv"):
        open_audioset(tmp_path, "train")
    with pytest.raises(InvalidSetting, match="part is 'dev'"):
        open_audioset(root, "dev")


def test_the_published_settings() -> None:
    entry = DATA_SETS["audioset"]
    assert (entry.max_length, entry.mean, entry.std) == (1024, -4.2677393, 4.5689974)
    assert (entry.metric, entry.multi_label) == ("mAP", True)
