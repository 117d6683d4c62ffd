from __future__ import annotations

import logging
from pathlib import Path

import pytest
from tones import write_tone

from spectrim.data import DATA_SETS
from spectrim.data.speech_commands import WORDS, open_speech_commands
from spectrim.errors import DataError, InvalidSetting


def test_the_words_are_the_published_ones() -> None:
    digits = "zero, one, two, three, four, five, six, seven, eight, nine"
    commands = "yes, no, up, down, left, right, on, off, stop, go, backward, forward, follow, learn, visual"
    fillers = "bed, bird, cat, dog, happy, house, marvin, sheila, tree, wow"
    assert list(WORDS) == sorted(f"{digits}, {commands}, {fillers}".split(", "))


def test_parts_follow_the_lists(speech_commands: Path) -> None:
    parts = {part: open_speech_commands(speech_commands, part) for part in ("train", "validation", "test")}
    ids = {name: [recording.id for recording in part.recordings] for name, part in parts.items()}
    assert ids["validation"] == ["no/bbbbbbbb_nohash_0.wav", "yes/bbbbbbbb_nohash_0.wav"]
    assert ids["test"] == ["no/cccccccc_nohash_0.wav", "yes/cccccccc_nohash_0.wav"]
    assert ids["train"] == sorted(f"{word}/aaaaaaaa_nohash_{k}.wav" for word in WORDS for k in range(2))


def test_targets_are_the_folders(speech_commands: Path) -> None:
    part = open_speech_commands(speech_commands, "train")
    for clip in part:
        assert clip.target.sum() == 1
        assert part.labels[clip.target.argmax()] == clip.id.split("/")[0]
    assert not part.multi_label


def test_a_listed_file_that_is_not_there(speech_commands: Path, caplog: pytest.LogCaptureFixture) -> None:
    (speech_commands / "yes" / "cccccccc_nohash_0.wav").unlink()
    with caplog.at_level(logging.WARNING):
        part = open_speech_commands(speech_commands, "test")
    assert list(part.missing) == ["yes/cccccccc_nohash_0.wav"]
    assert [recording.id for recording in part.recordings] == ["no/cccccccc_nohash_0.wav"]
    assert "yes/cccccccc_nohash_0.wav" in caplog.text


def test_a_list_with_windows_line_ends_and_blank_lines(speech_commands: Path) -> None:
    path = speech_commands / "testing_list.txt"
    path.write_bytes(b"\r\nyes/cccccccc_nohash_0.wav\r\n\r\nno/cccccccc_nohash_0.wav\r\n")
    assert len(open_speech_commands(speech_commands, "test")) == 2


@pytest.mark.parametrize("line", ["maybe/x.wav", "yes", "yes/", "yes/a/b.wav", "../yes/x.wav"])
def test_a_list_with_something_else_in_it(speech_commands: Path, line: str) -> None:
    (speech_commands / "testing_list.txt").write_text(f"yes/cccccccc_nohash_0.wav\n{line}\n")
    with pytest.raises(DataError, match=r"testing_list\.txt, line 2"):
        open_speech_commands(speech_commands, "test")


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["no/bbbbbbbb_nohash_0.wav"], r"line 2: no/bbbbbbbb.* is there twice, first in validation_list\.txt, line 2"),
        (["yes/cccccccc_nohash_0.wav"], r"line 2: yes/cccccccc.* is there twice, first in testing_list\.txt, line 1"),
    ],
)
@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_a_clip_that_is_listed_twice_is_refused(speech_commands: Path, part: str, lines: list[str], words: str) -> None:
    (speech_commands / "testing_list.txt").write_text("\n".join(["yes/cccccccc_nohash_0.wav", *lines]))
    with pytest.raises(DataError, match=rf"testing_list\.txt, {words}"):
        open_speech_commands(speech_commands, part)


def test_another_folder_is_refused(tmp_path: Path, speech_commands: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        open_speech_commands(tmp_path / "nowhere", "train")
    (speech_commands / "testing_list.txt").unlink()
    for path in (speech_commands / "learn").iterdir():
        path.unlink()
    (speech_commands / "learn").rmdir()
    with pytest.raises(DataError, match=r"it lacks learn, testing_list\.txt"):
        open_speech_commands(speech_commands, "train")


def test_an_unknown_part(speech_commands: Path) -> None:
    with pytest.raises(InvalidSetting, match="one of test, train, validation"):
        open_speech_commands(speech_commands, "dev")


def test_a_corrupt_clip_is_replaced(speech_commands: Path) -> None:
    (speech_commands / "no" / "cccccccc_nohash_0.wav").write_bytes(b"")
    part = open_speech_commands(speech_commands, "test")
    assert part[0].id == "yes/cccccccc_nohash_0.wav"
    assert "empty" in part.broken["no/cccccccc_nohash_0.wav"]


def test_the_table_opens_it(speech_commands: Path) -> None:
    write_tone(speech_commands / "yes" / "dddddddd_nohash_0.wav")
    for name in ("speech-commands", "spoken-commands"):
        assert len(DATA_SETS[name].open(speech_commands, "train", bad_share=0.1)) == 71
