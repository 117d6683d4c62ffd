from __future__ import annotations

from pathlib import Path

import pytest
from layouts import make_esc50

from spectrim.data import DATA_SETS, PARTS, AudioDataset
from spectrim.errors import DataError, InvalidSetting


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_esc50(tmp_path / "ESC-50")


def opened(root: Path, part: str, **options: object) -> AudioDataset:
    return DATA_SETS["esc50"].open(root, part, **options)


def folds_of(part: AudioDataset) -> set[int]:
    return {int(recording.id[0]) for recording in part.recordings}


@pytest.mark.parametrize("fold", range(1, 6))
def test_one_fold_is_held_out(root: Path, fold: int) -> None:
    parts = {part: opened(root, part, fold=fold) for part in PARTS}
    assert folds_of(parts["train"]) == {1, 2, 3, 4, 5} - {fold}
    assert folds_of(parts["test"]) == folds_of(parts["validation"]) == {fold}
    assert [len(part) for part in parts.values()] == [24, 6, 6]


def test_the_epoch_can_be_chosen_on_another_fold(root: Path) -> None:
    options = {"fold": 4, "validation_fold": 2}
    found = {part: folds_of(opened(root, part, **options)) for part in PARTS}
    assert found == {"train": {1, 3, 5}, "validation": {2}, "test": {4}}


def test_labels_are_in_the_order_of_the_targets(root: Path) -> None:
    part = opened(root, "train")
    assert part.labels == ["c2", "c1", "c0"]
    for recording in part.recordings:
        assert recording.labels == (int(recording.id.removesuffix(".wav").split("-")[3]),)
    assert (part.multi_label, part.metric, part.folds) == (False, "accuracy", (1, 2, 3, 4, 5))
    assert part[0].target.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fold": 0}, "fold is 0; allowed: one of 1, 2, 3, 4, 5"),
        ({"fold": 6}, "fold is 6"),
        ({"fold": "1"}, "fold is '1'"),
        ({"fold": True}, "fold is True"),
        ({"fold": None}, "fold is None"),
        ({"fold": 2, "validation_fold": 2}, "validation_fold is 2; .* other than fold=2"),
        ({"fold": 2, "validation_fold": 7}, "validation_fold is 7"),
        ({"bad_share": "few"}, "bad_share is 'few'"),
        ({"folds": 2}, "option folds is 2; allowed: 'fold', perhaps; one of bad_share, fold, validation_fold"),
    ],
)
def test_a_wrong_option(root: Path, options: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidSetting, match=words):
        opened(root, "train", **options)


def test_missing_files_are_named(root: Path) -> None:
    (root / "audio" / "1-1000-A-2.wav").unlink()
    part = opened(root, "test", fold=1)
    assert (list(part.missing), len(part)) == (["1-1000-A-2.wav"], 5)
    for path in (root / "audio").glob("1-*"):
        path.unlink()
    with pytest.raises(DataError, match=r"6 of 6 files are missing.*1-1000-A-2\.wav"):
        opened(root, "test", fold=1)
    with pytest.raises(DataError, match=r"no clips: none of its 6 files is there, e\.g\. 1-1000"):
        opened(root, "test", fold=1, bad_share=1.0)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("2-1000-A-2.wav,2,2", "2-1000-A-2.wav,6,2", r"esc50\.csv, line 8: fold is 6"),
        ("2-1000-A-2.wav,2,2", "2-1000-A-2.wav,two,2", r"line 8: fold is 'two', not a whole number"),
        ("2-1000-A-2.wav,2,2", "2-1000-A-2.wav,2,1", r"line 9: target 2 is 'c0' here|line 8: target 1 is 'c0' here"),
        (
            "2-1000-A-2.wav,2,2",
            "1-1000-A-2.wav,2,2",
            r"line 8: 1-1000-A-2\.wav is there twice, first in esc50\.csv, line 2",
        ),
        (",2,c0", ",7,c0", "targets must count 0, 1, 2"),
        (",2,c0", ",2,c1", "each for another category"),
        ("filename,fold", "filename;fold", "line 1: the header lacks filename, fold"),
        ("2-1000-A-2.wav,2,", "2-1000-A-2.wav,2,,", "line 8: 8 cells where the header has 7"),
    ],
)
def test_a_table_with_something_wrong(root: Path, old: str, new: str, words: str) -> None:
    table = root / "meta" / "esc50.csv"
    text = table.read_text()
    assert old in text
    table.write_text(text.replace(old, new))
    with pytest.raises(DataError, match=words):
        opened(root, "train")


def test_another_folder_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not ESC-50: it lacks audio, meta/esc50"):
        opened(tmp_path, "train")
    with pytest.raises(InvalidSetting, match="part is 'dev'"):
        opened(root, "dev")


def test_the_published_settings() -> None:
    entry = DATA_SETS["esc50"]
    assert (entry.max_length, entry.mean, entry.std, entry.folds) == (512, -6.6268077, 5.358466, (1, 2, 3, 4, 5))
