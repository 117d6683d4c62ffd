from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from layouts import make_folder
from tones import write_tone
from unreadable import lock

from spectrim.data import DATA_SETS, PARTS, AudioDataset
from spectrim.data.folder import LooseFiles
from spectrim.errors import DataError, InvalidSetting

SIZES = {"dog": 30, "cat": 20, "bird": 10}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("folder") / "sounds", SIZES)


def opened(root: Path, part: str, **options: object) -> AudioDataset:
    return DATA_SETS["folder"].open(root, part, **options)


def ids(root: Path, **options: object) -> dict[str, set[str]]:
    return {part: {recording.id for recording in opened(root, part, **options).recordings} for part in PARTS}


def counts(names: set[str]) -> dict[str, int]:
    return dict(Counter(name.split("/")[-2] for name in names))


def test_every_class_gives_the_same_share_to_every_part(root: Path) -> None:
    parts = ids(root, validation_share=0.1, test_share=0.2)
    assert counts(parts["test"]) == {"dog": 6, "cat": 4, "bird": 2}
    assert counts(parts["validation"]) == {"dog": 3, "cat": 2, "bird": 1}
    assert counts(parts["train"]) == {"dog": 21, "cat": 14, "bird": 7}
    assert len(set.union(*parts.values())) == 60


def test_clips_are_in_the_order_of_their_names(tmp_path: Path) -> None:
    names = [f"{number * 7919 % 1009:04d}.wav" for number in range(40)]
    for part in ("train", "val"):
        for name in names:
            write_tone(tmp_path / part / "a" / name, seconds=0.03)
    assert [recording.path.name for recording in opened(tmp_path, "train").recordings] == sorted(names)


def test_the_split_is_the_seeds(root: Path) -> None:
    assert ids(root, seed=3) == ids(root, seed=3)
    assert ids(root, seed=3) != ids(root, seed=4)
    assert ids(root) == ids(root, seed=0)


def test_a_part_says_out_of_how_many_clips_it_was_drawn(root: Path, tmp_path: Path) -> None:
    assert [opened(root, part).drawn_from for part in PARTS] == [None, 60, 60]
    assert [opened(root, part, folds=5).drawn_from for part in PARTS] == [None] * 3
    assert opened(root, "test", test_share=1).drawn_from is None
    make_folder(tmp_path / "train", SIZES)
    make_folder(tmp_path / "test", SIZES)
    assert [opened(tmp_path, part).drawn_from for part in PARTS] == [None, 60, None]
    make_folder(tmp_path / "val", SIZES)
    assert [opened(tmp_path, part).drawn_from for part in PARTS] == [None] * 3


def test_targets_are_the_folders(root: Path) -> None:
    part = opened(root, "train")
    assert part.labels == ["bird", "cat", "dog"]
    for clip in part:
        assert part.labels[clip.target.argmax()] == clip.id.split("/")[0]
    assert (part.multi_label, part.folds) == (False, ())


def test_a_class_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folder(tmp_path, {"a": 5, "b": 5})
    lock(monkeypatch, tmp_path / "b")
    with pytest.raises(DataError, match=r"b: this folder cannot be read: Permission denied"):
        opened(tmp_path, "train", validation_share=0.2, test_share=0.2)


@pytest.mark.filterwarnings("ignore::spectrim.data.folder.LooseFiles")
def test_any_format_and_depth_but_nothing_hidden(tmp_path: Path) -> None:
    make_folder(tmp_path, {"a": 5, "b": 5})
    write_tone(tmp_path / "a" / "deep" / "er" / "x.WAV")
    for name in ("a/.hidden.wav", "a/.git/x.wav", "_background_/x.wav", ".cache/x.wav", "loose.wav"):
        write_tone(tmp_path / name)
    (tmp_path / "a" / "notes.txt").touch()
    found = set.union(*ids(tmp_path, validation_share=0.2, test_share=0.2).values())
    assert found == {f"{name}/{take}.wav" for name in "ab" for take in range(5)} | {"a/deep/er/x.WAV"}


@pytest.mark.parametrize("names", [("train", "validation", "test"), ("training", "val", "testing")])
def test_folders_of_parts_are_taken_as_they_are(tmp_path: Path, names: tuple[str, ...]) -> None:
    for count, name in enumerate(names, start=1):
        make_folder(tmp_path / name, {"a": count, "b": count})
    make_folder(tmp_path / names[2], {"c": 1})
    parts = {part: opened(tmp_path, part) for part in PARTS}
    assert [len(part) for part in parts.values()] == [2, 4, 7]
    assert all(part.labels == ["a", "b", "c"] for part in parts.values())
    assert parts["test"].recordings[0].id == f"{names[2]}/a/0.wav"


def test_validation_is_taken_from_training_where_it_has_no_folder(tmp_path: Path) -> None:
    make_folder(tmp_path / "train", {"a": 10, "b": 20})
    make_folder(tmp_path / "test", {"a": 1, "b": 1})
    parts = ids(tmp_path, validation_share=0.2)
    assert counts(parts["validation"]) == {"a": 2, "b": 4}
    assert counts(parts["train"]) == {"a": 8, "b": 16}
    assert parts["test"] == {"test/a/0.wav", "test/b/0.wav"}


def test_validation_is_test_where_test_has_no_folder(tmp_path: Path) -> None:
    make_folder(tmp_path / "train", {"a": 2, "b": 2})
    make_folder(tmp_path / "dev", {"a": 1, "b": 1})
    parts = ids(tmp_path)
    assert parts["test"] == parts["validation"] == {"dev/a/0.wav", "dev/b/0.wav"}
    assert len(parts["train"]) == 4


def test_a_class_can_be_called_train(tmp_path: Path) -> None:
    make_folder(tmp_path, {"train": 10, "aeroplane": 10, "test": 10})
    parts = ids(tmp_path, validation_share=0.1, test_share=0.1)
    assert counts(parts["test"]) == {"train": 1, "aeroplane": 1, "test": 1}


def test_sound_outside_the_folders_of_classes_is_named(tmp_path: Path) -> None:
    sizes = {"a": 4, "b": 4}
    for part in ("train", "test"):
        make_folder(tmp_path / "parts" / part, sizes)
    make_folder(tmp_path / "flat", sizes)
    for name in ("flat/x.WAV", "flat/.hidden.wav", "flat/notes.txt", "parts/top.wav", "parts/train/y.wav"):
        write_tone(tmp_path / name) if name.lower().endswith(".wav") else (tmp_path / name).touch()
    shares = {"validation_share": 0.25, "test_share": 0.25}
    with pytest.warns(LooseFiles, match=r"flat: 1 sound file outside class folders, left out: x\.WAV$"):
        opened(tmp_path / "flat", "train", **shares)
    with pytest.warns(LooseFiles, match=r"parts: 2 sound files outside .*: top\.wav, train/y\.wav$"):
        opened(tmp_path / "parts", "test", validation_share=0.25)


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (("train/a", "b"), r"holds folders of parts \(train\) and others \(b\)"),
        (("train/a", "validation/a", "val/a"), "validation and val, which stand for the same part"),
        (("validation/a", "test/a"), "no training clips, only validation and test"),
        (("train/", "test/"), "holds no folders with audio"),
        ((), "holds no folders with audio"),
    ],
)
def test_folders_that_cannot_be_meant(tmp_path: Path, folders: tuple[str, ...], words: str) -> None:
    for folder in folders:
        if folder.endswith("/"):
            (tmp_path / folder).mkdir()
        else:
            write_tone(tmp_path / folder / "x.wav")
    with pytest.raises(DataError, match=words):
        opened(tmp_path, "train")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"validation_share": 0}, "validation_share is 0; allowed: a share between 0 and 1"),
        ({"test_share": 1.5}, "test_share is 1.5; allowed: a share between 0 and 1, or 1"),
        ({"test_share": "half"}, "test_share is 'half'"),
        ({"test_share": 0.5, "validation_share": 0.5}, r"validation_share \+ test_share is 1.0"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 0.5}, "seed is 0.5"),
        (
            {"test_share": 0.02},
            r"holds out 3 to 57 of 60 clips, not 1, .*; e\.g\. --set test_share=0\.05 --set validation_share=0\.05"
            r"(, or --set test_share=1 to test a model that was trained on none of them on all)?$",
        ),
        (
            {"validation_share": 0.02},
            r"holds out 3 to 51 of 54 clips, not 1, .*; e\.g\. --set validation_share=0\.05$",
        ),
        ({"test_share": 0.97, "validation_share": 0.02}, r"test_share is 0\.97; .* not 58"),
    ],
)
def test_a_wrong_option(root: Path, options: dict[str, object], words: str) -> None:
    for part in PARTS:
        with pytest.raises(InvalidSetting, match=words) as refused:
            opened(root, part, **options)
        of_all = options.get("test_share") in (0.02, 0.97) and part == "test"
        assert ("test_share=1 " in str(refused.value)) == of_all


@pytest.mark.parametrize("clips", [2, 3, 4, 5, 7])
def test_shares_that_are_named_instead_work(tmp_path: Path, clips: int) -> None:
    """Of two clips a class none does: three parts take three."""
    make_folder(tmp_path, dict.fromkeys("abc", clips))
    with pytest.raises(InvalidSetting) as refused:
        opened(tmp_path, "train")
    named = dict(re.findall(r"--set (\w+)=([\d.]+)", str(refused.value)))
    assert bool(named) == (clips > 2)
    if named:
        sizes = [len(opened(tmp_path, part, **{name: float(value) for name, value in named.items()})) for part in PARTS]
        assert sum(sizes) == 3 * clips and min(sizes) >= 3
    else:
        assert str(refused.value).endswith("; or add clips, or say yourself which belong to train, validation and test")


def test_a_class_of_one_clip_cannot_be_split(tmp_path: Path) -> None:
    make_folder(tmp_path, {"a": 30, "b": 1})
    with pytest.raises(DataError, match=r"1 label has fewer than two clips.*b/0\.wav"):
        opened(tmp_path, "train")


def test_another_folder_is_refused(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        opened(tmp_path / "nowhere", "train")
    with pytest.raises(InvalidSetting, match="part is 'dev'"):
        opened(root, "dev")


def test_folds_hold_every_clip_once_and_the_same_share_of_every_class(root: Path) -> None:
    folds = [ids(root, folds=5, fold=fold, validation_fold="next") for fold in range(1, 6)]
    for here, after in zip(folds, folds[1:] + folds[:1], strict=True):
        assert counts(here["test"]) == {"dog": 6, "cat": 4, "bird": 2}
        assert here["validation"] == after["test"]
        assert len(set.union(*here.values())) == sum(map(len, here.values())) == 60
    assert len(set.union(*(fold["test"] for fold in folds))) == 60
    assert opened(root, "test", folds=5).folds == (1, 2, 3, 4, 5)
    assert ids(root, folds=5) == ids(root, folds=5, fold=1, seed=0)
    assert ids(root, folds=5) != ids(root, folds=5, seed=1)
    assert ids(root, folds=5)["validation"] == ids(root, folds=5)["test"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fold": 1}, "fold is 1; allowed: none without the option folds"),
        ({"folds": 11}, "folds is 11; allowed: 2 to 10"),
        ({"folds": 1}, "folds is 1; allowed: a whole number from 2"),
        ({"folds": 3, "fold": 4}, "fold is 4; allowed: one of 1, 2, 3"),
        ({"folds": 3, "validation_fold": "last"}, "validation_fold is 'last'; allowed: one of 1, 2, 3, or next"),
        ({"folds": 3, "validation_fold": 1}, "validation_fold is 1; allowed: one of 1, 2, 3, other than fold=1"),
        ({"folds": 3, "seed": -1}, "seed is -1"),
    ],
)
def test_folds_that_cannot_be(root: Path, options: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidSetting, match=words):
        opened(root, "train", **options)


def test_folders_of_parts_have_no_folds(tmp_path: Path) -> None:
    make_folder(tmp_path / "train", {"a": 4, "b": 4})
    make_folder(tmp_path / "test", {"a": 4, "b": 4})
    with pytest.raises(InvalidSetting, match=r"folds is 2; allowed: none: .* has folders of parts"):
        opened(tmp_path, "train", folds=2)
