from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from layouts import make_audioset, make_esc50, make_folder, make_voxceleb1
from small_runs import write_words
from tones import write_tone

from spectrim.audio import files as audio
from spectrim.audio.members import Member
from spectrim.data import PARTS, AudioDataset, find_data_set
from spectrim.data.check import check
from spectrim.data.dataset import label_table, without_labels
from spectrim.data.encoding import Fidelity, as_flac
from spectrim.data.packed import description_digest
from spectrim.data.packing import pack
from spectrim.errors import AudioError, DataError, InvalidSetting
from spectrim.training.pretrain_audio import further_recordings, recordings_of
from spectrim.training.pretrain_recipes import PretrainDataSettings
from spectrim.training.sampling import clip_weights
from spectrim.training.starter import choose_split

SMALL = 100_000


def make_table(root: Path) -> Path:
    """Clips with a split, a fold and a speaker; one of them is missing."""
    make_folder(root, {"a": 6, "b": 6})
    rows = [
        f"{word}/{take}.wav,{word};x,{('train', 'validation', 'test')[take // 2]},{take % 3},s{take}"
        for word in "ab"
        for take in range(6)
    ]
    (root / "labels.csv").write_text("path,labels,split,fold,speaker\n" + "\n".join(rows) + "\n")
    (root / "a" / "0.wav").unlink()
    return root


def make_folder_of_two(root: Path) -> Path:
    return make_folder(root, {"b": 12, "a": 12})


FOLDS: tuple[dict[str, Any], ...] = ({}, {"fold": 2}, {"validation_fold": 2}, {"fold": 2, "validation_fold": "next"})

LAYOUTS: list[tuple[str, Callable[[Path], Path], dict[str, Any], tuple[dict[str, Any], ...]]] = [
    ("esc50", make_esc50, {}, FOLDS),
    ("voxceleb1", make_voxceleb1, {}, ({},)),
    ("audioset", make_audioset, {}, ({},)),
    ("folder", make_folder_of_two, {"validation_share": 0.25, "test_share": 0.25, "seed": 3}, ({},)),
    ("folder", make_folder_of_two, {"folds": 3}, FOLDS),
    ("csv", make_table, {}, FOLDS),
]


@pytest.mark.parametrize(("name", "make", "options", "choices"), LAYOUTS)
def test_a_packed_data_set_is_the_one_that_it_was_packed_from(
    tmp_path: Path, name: str, make: Any, options: dict[str, Any], choices: Any
) -> None:
    """Same parts in the same order, for every fold; of FLAC the same length, of originals the same samples."""
    root, entry = make(tmp_path / "files"), find_data_set(name)
    report = pack(name, root, tmp_path / "packed", form="original", shard_bytes=SMALL, **options)
    assert report.unreadable == {}
    for choice in choices:
        for part in PARTS:
            files = entry.open(root, part, **options, **choice)
            packed = entry.open(tmp_path / "packed", part, **choice)
            assert described(packed) == described(files), (choice, part)
            np.testing.assert_array_equal(packed[-1].waveform, files[-1].waveform)
    with pytest.raises(InvalidSetting, match="fold"):
        entry.open(tmp_path / "packed", "test", fold=7)


def described(part: AudioDataset) -> list[Any]:
    clips = [(one.id, one.labels, one.group) for one in part.recordings]
    return [clips, part.labels, list(part.missing), part.folds, part.multi_label, part.drawn_from]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_words(tmp_path_factory.mktemp("words") / "files")


@pytest.fixture(scope="module")
def packed_words(words: Path) -> Path:
    output = words.parent / "packed"
    report = pack("spoken-commands", words, output, shard_bytes=SMALL)
    assert report.fidelity == {"exact": 80, "rounded": 0, "clipped": 0}
    assert (report.clips, report.bytes) == (80, sum(path.stat().st_size for path in output.glob("*.tar")))
    return output


def test_archives_hold_what_tarfile_finds_in_them(words: Path, packed_words: Path) -> None:
    """The members are where the index says; Python's tarfile and libsndfile are the judges."""
    archives = sorted(packed_words.glob("*.tar"))
    assert [path.name for path in archives] == [
        "test-000000.tar",
        *(f"train-{place:06d}.tar" for place in range(len(archives) - 2)),
        "validation-000000.tar",
    ]
    assert len(archives) > 5
    assert all(path.stat().st_size <= SMALL for path in archives)
    assert not list(packed_words.glob("*.rows.json"))
    found = {}
    for path in archives:
        with tarfile.open(path) as archive:
            members = archive.getmembers()
            assert [one.name.split(".")[1] for one in members] == ["flac", "json"] * (len(members) // 2)
            for sound, text in zip(members[::2], members[1::2], strict=True):
                assert sound.name.split(".")[0] == text.name.split(".")[0]
                content = archive.extractfile(sound).read()  # type: ignore[union-attr]
                said = json.loads(archive.extractfile(text).read())  # type: ignore[union-attr]
                found[said["id"]] = (path, sound.offset_data, sound.size)
                kept, rate = soundfile.read(io.BytesIO(content), dtype="float32")
                there, own = soundfile.read(words / said["id"], dtype="float32")
                assert rate == own == 16000
                np.testing.assert_array_equal(kept, there)
                assert said["labels"] == [said["id"].split("/")[0]]
                assert said["seconds"] == len(kept) / 16000
    for part in PARTS:
        for one in find_data_set("spoken-commands").open(packed_words, part).recordings:
            assert one.member is not None
            assert found.pop(one.id) == (one.path, one.member.start, one.member.size)
    assert found == {}


def test_webdataset_reads_the_archives(packed_words: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    archives = sorted(map(str, packed_words.glob("train-*.tar")))
    clips = find_data_set("spoken-commands").open(packed_words, "train")
    samples = list(webdataset.WebDataset(archives, shardshuffle=False))
    assert sorted(json.loads(one["json"])["id"] for one in samples) == sorted(one.id for one in clips.recordings)
    by_id = {json.loads(one["json"])["id"]: one["flac"] for one in samples}
    for clip in (clips[0], clips[33]):
        np.testing.assert_array_equal(soundfile.read(io.BytesIO(by_id[clip.id]), dtype="float32")[0], clip.waveform)


def test_recordings_of_a_pack_act_as_a_list_of_them(words: Path, packed_words: Path) -> None:
    entry = find_data_set("spoken-commands")
    files, packed = (entry.open(root, "train") for root in (words, packed_words))
    for one, other in ((packed.recordings, files.recordings), (packed.recordings[5:40:3], files.recordings[5:40:3])):
        for found, expected in zip(label_table(one), label_table(other), strict=True):
            np.testing.assert_array_equal(found, expected)
    assert packed.recordings[2:9] == entry.open(packed_words, "train").recordings[2:9] != packed.recordings[3:10]
    assert packed.recordings != entry.open(packed_words, "test").recordings
    assert [one.labels for one in without_labels(packed.recordings)[:2]] == [(), ()]
    assert len(label_table(without_labels(packed.recordings)).numbers) == 0
    assert clip_weights(packed).tolist() == clip_weights(files).tolist()
    with pytest.raises(IndexError):
        packed.recordings[len(packed)]


def test_pre_training_hears_the_training_part(words: Path, packed_words: Path) -> None:
    settings = PretrainDataSettings(name="spoken-commands", held_out=3)
    for files, packed in zip(*(recordings_of(settings, root, 0, 16000) for root in (words, packed_words)), strict=True):
        assert [(one.id, one.labels) for one in packed] == [(one.id, ()) for one in files]
    with pytest.raises(InvalidSetting, match=r"data.name is None; allowed: spoken-commands, from which"):
        recordings_of(PretrainDataSettings(), packed_words, 0, 16000)


def test_check_and_split_know_a_pack(words: Path, packed_words: Path) -> None:
    files, packed = (check("spoken-commands", root) for root in (words, packed_words))
    assert files == packed
    split = choose_split("spoken-commands", packed_words, {})
    assert (split.options, split.held_out) == ({}, True)


def test_a_fold_takes_the_place_of_no_part_of_a_packed_table(tmp_path: Path) -> None:
    """Its column split says what is held out; a recipe that held out a fold would choose the epoch on the test."""
    pack("csv", make_table(tmp_path / "files"), tmp_path / "packed", form="original")
    assert choose_split("csv", tmp_path / "packed", {}).options == {}
    chosen = choose_split("csv", tmp_path / "packed", {"validation_fold": 2})
    assert (chosen.options, chosen.held_out) == ({"fold": 0, "validation_fold": 2}, True)
    opened = [find_data_set("csv").open(tmp_path / "packed", "test", fold=fold) for fold in (2, 2.0)]
    assert opened[0].recordings == opened[1].recordings


def test_what_a_pack_holds_out_is_not_heard_from_another_folder(words: Path, packed_words: Path) -> None:
    settings = PretrainDataSettings(name="spoken-commands", held_out=3)
    unheard = [recordings_of(settings, root, 0, 16000)[2] for root in (words, packed_words)]
    assert len(unheard[0]) > 3
    for recordings in unheard:
        with pytest.raises(InvalidSetting, match=f"not held out: {len(unheard[0])} of its files are"):
            further_recordings(words, recordings)


@pytest.mark.parametrize(
    ("subtype", "channels", "expected"),
    [
        ("PCM_16", 1, Fidelity.EXACT),
        ("PCM_16", 2, Fidelity.EXACT),
        ("PCM_24", 1, Fidelity.EXACT),
        ("PCM_24", 2, Fidelity.ROUNDED),
        ("FLOAT", 1, Fidelity.ROUNDED),
        ("DOUBLE", 1, Fidelity.CLIPPED),
    ],
)
def test_flac_is_exact_where_whole_numbers_can_be(
    tmp_path: Path, subtype: str, channels: int, expected: Fidelity
) -> None:
    loud = 1.5 if expected is Fidelity.CLIPPED else 0.9
    sound = np.random.default_rng(0).uniform(-loud, loud, (2000, channels))
    soundfile.write(tmp_path / "a.wav", sound, 16000, subtype=subtype)
    samples = audio.read(tmp_path / "a.wav").samples
    content, fidelity = as_flac(samples, 16000)
    (tmp_path / "a.flac").write_bytes(content)
    kept = audio.read(tmp_path / "a.flac").samples
    assert fidelity is expected
    difference = np.abs(kept - np.clip(samples, -1, 1 - 2**-15)).max()
    assert difference == 0 if fidelity is Fidelity.EXACT else 0 < difference <= 2**-16


def test_full_scale_is_off_by_a_step() -> None:
    """+1, the peak of normalised sound, is no number of 16 bits; −1 is one."""
    samples = np.array([1.0, 0.3, -1.0] * 200, np.float32)
    content, fidelity = as_flac(samples, 16000)
    difference = np.abs(soundfile.read(io.BytesIO(content), dtype="float32")[0] - samples)
    assert fidelity is Fidelity.ROUNDED
    assert difference[:3].tolist() == [2**-15, pytest.approx(0, abs=2**-16), 0]


def test_clips_are_brought_to_the_rate_and_not_beyond_it(tmp_path: Path) -> None:
    for number in range(12):
        write_tone(tmp_path / "files" / "ab"[number % 2] / f"{number}.wav", 300 + number, 0.5, 44100)
    shares = {"validation_share": 0.25, "test_share": 0.25}
    pack("folder", tmp_path / "files", tmp_path / "packed", sampling_rate=22050, **shares)
    files, packed = (find_data_set("folder").open(tmp_path / place, "train", **shares) for place in ("files", "packed"))
    assert packed.highest_rate == 22050
    assert np.abs(packed.at_rate(22050)[0].waveform - files.at_rate(22050)[0].waveform).max() <= 2**-16
    with pytest.raises(InvalidSetting, match="sampling_rate is 32000; allowed: up to 22050, at which these clips are"):
        packed.at_rate(32000)
    with pytest.raises(InvalidSetting, match="option seed is 1; allowed: 0, with which"):
        find_data_set("folder").open(tmp_path / "packed", "train", seed=1)
    with pytest.raises(InvalidSetting, match="data set is 'esc50'; allowed: folder, from which"):
        find_data_set("esc50").open(tmp_path / "packed", "train")


def test_unreadable_files_are_stood_in_for_as_before(tmp_path: Path) -> None:
    root = make_esc50(tmp_path / "files")
    for name in ("2-1001-A-1.wav", "2-1000-B-2.wav"):
        (root / "audio" / name).write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"unreadable, more than bad_share=0"):
        pack("esc50", root, tmp_path / "packed", bad_share=0.0, workers=1)
    report = pack("esc50", root, tmp_path / "packed", bad_share=0.3, resume=True)
    chosen = {"fold": 3, "bad_share": 0.3}
    files, packed = (find_data_set("esc50").open(place, "train", **chosen) for place in (root, tmp_path / "packed"))
    assert report.clips == 28
    for number in range(len(files)):
        one, other = files[number], packed[number]
        assert (one.id, one.stand_in) == (other.id, other.stand_in)
    assert files.broken == packed.broken == {name: report.unreadable[name] for name in files.broken}
    reports = [check("esc50", place, bad_share=0.3) for place in (root, tmp_path / "packed")]
    assert reports[0].parts["train"].broken == reports[1].parts["train"].broken


@pytest.fixture
def copied(packed_words: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed_words, tmp_path / "copied"))


def test_damage_is_named_with_the_archive(copied: Path, caplog: pytest.LogCaptureFixture) -> None:
    entry = find_data_set("spoken-commands")
    first = entry.open(copied, "train").recordings[0]
    member = first.member
    assert isinstance(member, Member)
    with member.archive.open("r+b") as file:
        file.seek(member.start + member.size // 2)
        file.write(b"\0\1\2\3")
    with pytest.raises(AudioError, match=rf"{member.archive.name}, {member.name}: damaged: its bytes do not have the"):
        audio.read(member)
    assert entry.open(copied, "train")[0].stand_in
    assert f"{member.archive.name}, {member.name} is replaced by another clip: damaged" in caplog.text
    report = check("spoken-commands", copied)
    assert list(report.parts["train"].broken) == [first.id]
    size = member.archive.stat().st_size
    with member.archive.open("r+b") as file:
        file.truncate(size - 1)
    with pytest.raises(DataError, match=rf"{member.archive.name} has {size - 1} bytes, not the {size} that were"):
        entry.open(copied, "train")
    member.archive.unlink()
    with pytest.raises(DataError, match=rf"{member.archive.name} is missing"):
        entry.open(copied, "test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda said: said.update(format="1"), "is of format '1'; this version reads 1"),
        (lambda said: said.pop("parts"), "does not describe a packed data set: 'parts'"),
        (lambda said: said["parts"]["test"].update(drawn_from="80"), "a share of no number of clips"),
        (lambda said: said["shards"].pop(), "does not describe a packed data set: shard out of range"),
        (lambda said: said["shards"][0].update(name="../x.tar"), "archives elsewhere"),
        (lambda said: said.update(index_sha256="0"), "clips.npz is damaged: it does not have the checksum"),
    ],
)
def test_a_changed_description_is_refused(copied: Path, change: Any, message: str) -> None:
    place = copied / "spectrim-pack.json"
    said = json.loads(place.read_text())
    change(said)
    place.write_text(json.dumps(said))
    with pytest.raises(DataError, match=r"is of format '1'" if "of format" in message else "is not as it was written"):
        find_data_set("spoken-commands").open(copied, "train")
    said["description_sha256"] = description_digest(said)
    place.write_text(json.dumps(said))
    with pytest.raises(DataError, match=message):
        find_data_set("spoken-commands").open(copied, "train")


def test_labels_that_trade_places_are_refused(copied: Path) -> None:
    place = copied / "spectrim-pack.json"
    said = json.loads(place.read_text())
    said["labels"][:2] = reversed(said["labels"][:2])
    place.write_text(json.dumps(said))
    with pytest.raises(DataError, match=r"spectrim-pack.json is not as it was written, its checksum says"):
        find_data_set("spoken-commands").open(copied, "train")


def test_a_packing_that_was_broken_off_goes_on(words: Path, packed_words: Path, tmp_path: Path) -> None:
    """It ends with the same bytes; what was whole is not packed again."""
    output, counted = tmp_path / "packed", []

    def interrupt(done: int, total: int) -> None:
        counted.append((done, total))
        if done == 50:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack("spoken-commands", words, output, shard_bytes=SMALL, progress=interrupt)
    assert not output.exists()
    whole = len(list(tmp_path.glob("packed.partial/*.rows.json")))
    assert whole > 1
    with pytest.raises(InvalidSetting, match=r"allowed: with --resume, to go on with .*packed\.partial; or delete"):
        pack("spoken-commands", words, output, shard_bytes=SMALL)
    with pytest.raises(InvalidSetting, match="sampling_rate is 8000; allowed: 16000, with which the run in"):
        pack("spoken-commands", words, output, shard_bytes=SMALL, sampling_rate=8000, resume=True)
    counted.clear()
    pack("spoken-commands", words, output, shard_bytes=SMALL, resume=True, progress=lambda *done: counted.append(done))
    assert 0 < len(counted) < 80 and counted[-1] == (80, 80)
    assert {path.name: path.read_bytes() for path in output.iterdir()} == {
        path.name: path.read_bytes() for path in packed_words.iterdir()
    }
    assert not (tmp_path / "packed.partial").exists()


def test_resuming_packs_what_has_been_mended_since(tmp_path: Path) -> None:
    """And it ends with the bytes of a packing that found it whole."""

    def interrupt(done: int, total: int) -> None:
        if done == 14:
            raise KeyboardInterrupt

    root = make_esc50(tmp_path / "files")
    broken = root / "audio" / "2-1001-A-1.wav"
    whole = broken.read_bytes()
    pack("esc50", root, tmp_path / "expected")
    broken.write_bytes(b"RIFF")
    with pytest.raises(KeyboardInterrupt):
        pack("esc50", root, tmp_path / "packed", progress=interrupt)
    assert "2-1001-A-1.wav" not in (tmp_path / "packed.partial" / "fold1-000000.rows.json").read_text()
    assert json.loads((tmp_path / "packed.partial" / "fold2-000000.rows.json").read_text())["flaws"]
    broken.write_bytes(whole)
    (tmp_path / "packed.partial" / "fold1-000000.tar").unlink()
    assert not pack("esc50", root, tmp_path / "packed", resume=True).unreadable
    assert {path.name: path.read_bytes() for path in (tmp_path / "packed").iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "expected").iterdir()
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sampling_rate": 96001}, "rate is 96001; allowed: a multiple of 10 above 65535"),
        ({"form": "mp3"}, "format is 'mp3'; allowed: one of flac, original"),
        ({"sampling_rate": 10}, "rate is 10; allowed: a whole number from 4000"),
        ({"shard_bytes": 10}, "shard_size is 10"),
        ({"fold": 1}, "option fold is 1"),
        ({"wrong": 1}, "option wrong is 1"),
    ],
)
def test_wrong_settings_are_refused(words: Path, tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        pack("spoken-commands", words, tmp_path / "packed", **options)
    assert not (tmp_path / "packed").exists()


def test_places_that_cannot_be_are_refused(words: Path, packed_words: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="a folder that is not there yet"):
        pack("spoken-commands", words, packed_words)
    with pytest.raises(InvalidSetting, match="a folder outside of"):
        pack("spoken-commands", words, words / "packed")
    with pytest.raises(InvalidSetting, match="a data set that is not packed; this one is"):
        pack("spoken-commands", packed_words, tmp_path / "again")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="lacks"):
        pack("spoken-commands", tmp_path / "empty", tmp_path / "packed")


def test_a_folder_that_no_packing_left_is_not_touched(words: Path, tmp_path: Path) -> None:
    mine = tmp_path / "packed.partial" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("")
    with pytest.raises(InvalidSetting, match=r"packed\.partial'; allowed: a packing that was broken off"):
        pack("spoken-commands", words, tmp_path / "packed", resume=True)
    assert mine.exists()


def test_clips_that_have_changed_since_are_not_packed_beside_the_others(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    root, shares = make_folder(tmp_path / "files", {"a": 6, "b": 6}), {"validation_share": 0.25, "test_share": 0.25}
    with pytest.raises(KeyboardInterrupt):
        pack("folder", root, tmp_path / "packed", progress=interrupt, **shares)
    next(root.glob("a/*")).unlink()
    with pytest.raises(DataError, match=r"has other clips or labels than when .*packed\.partial was begun: delete"):
        pack("folder", root, tmp_path / "packed", resume=True, **shares)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_names_that_are_not_utf8_are_packed(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "files", {"a": 6, "b": 6})
    (root / "a").rename(root / os.fsdecode(b"a\xff"))
    shares = {"validation_share": 0.25, "test_share": 0.25}
    pack("folder", root, tmp_path / "packed", **shares)
    files, packed = (find_data_set("folder").open(place, "train", **shares) for place in (root, tmp_path / "packed"))
    assert described(packed) == described(files)
    assert packed.labels == ["a\udcff", "b"]
