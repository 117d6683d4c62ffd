from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from unreadable import lock

from spectrim.audio import files as audio
from spectrim.audio.finding import select_files
from spectrim.errors import AudioError, InvalidSetting


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("b.wav", "a.FLAC", "notes.txt", ".hidden.wav", "._b.wav", "sub/c.mp3", "sub/deep/d.ogg", ".git/e.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_folder_is_searched_to_any_depth_by_known_endings(tree: Path) -> None:
    found = select_files([tree])
    assert found.files == [f"{tree}/{name}" for name in ("a.FLAC", "b.wav", "sub/c.mp3", "sub/deep/d.ogg")]
    assert not found.errors


def test_named_files_are_taken_as_they_are_each_once_in_their_order(tree: Path) -> None:
    assert select_files(["notes.txt", "b.wav", "none.wav", "b.wav"]).files == ["notes.txt", "b.wav", "none.wav"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.wav", ["b.wav"]),
        ("*.txt", ["notes.txt"]),
        ("?.*", ["a.FLAC", "b.wav"]),
        ("**/[cd].*", ["sub/c.mp3", "sub/deep/d.ogg"]),
        ("su*", ["sub/c.mp3", "sub/deep/d.ogg"]),
        ("**", ["a.FLAC", "b.wav", "sub/c.mp3", "sub/deep/d.ogg"]),
    ],
)
def test_patterns(tree: Path, pattern: str, names: list[str]) -> None:
    assert select_files([pattern]).files == names


def test_a_file_whose_name_looks_like_a_pattern(tree: Path) -> None:
    (tree / "[b].wav").touch()
    assert select_files(["[b].wav"]).files == ["[b].wav"]


@pytest.mark.parametrize("listing", [b"b.wav\n\nsub\n", b"b.wav\r\nsub", b"b.wav\0sub\0"])
def test_list_on_standard_input(tree: Path, listing: bytes) -> None:
    assert select_files(["-", "a.FLAC"], listing).files == ["b.wav", "sub/c.mp3", "sub/deep/d.ogg", "a.FLAC"]


def test_names_that_are_not_utf8_or_hold_a_newline(tree: Path) -> None:
    odd = [os.fsdecode(b"caf\xe9.wav"), "two\nlines.wav"]
    for name in odd:
        (tree / name).touch()
    assert set(odd) < set(select_files(["*.wav"]).files)
    assert select_files(["-"], b"\0".join(map(os.fsencode, odd))).files == odd


def test_links_to_folders_are_followed_only_if_named(tree: Path) -> None:
    (tree / "sub" / "up").symlink_to(tree)
    (tree / "link").symlink_to(tree / "sub")
    assert select_files(["sub"]).files == ["sub/c.mp3", "sub/deep/d.ogg"]
    assert select_files(["link"]).files == ["link/c.mp3", "link/deep/d.ogg"]
    (tree / "sub" / "deep" / "round").symlink_to(tree)
    assert select_files(["**/*.ogg"]).files == select_files(["**/d.*"]).files == ["sub/deep/d.ogg"]
    assert select_files(["sub/**/*"]).files == ["sub/c.mp3", "sub/deep/d.ogg"]
    assert select_files(["**/d*p/*.ogg", "**/l*/c.mp3"]).files == ["sub/deep/d.ogg"]
    for pattern in ("**/*/**/*.ogg", "**/l*/**/*.ogg", "**/r*/**/*.ogg", "**/**/d.ogg"):
        found = ["sub/deep/d.ogg"] if pattern[3] == "*" else []
        assert select_files([pattern, "b.wav"]).files == [*found, "b.wav"], pattern
    assert select_files(["**/link/c.mp3"]).files == ["link/c.mp3"], "which is named"
    for pattern in ("**", "**/", "**/*"):
        assert select_files([pattern]).files == ["a.FLAC", "b.wav", "sub/c.mp3", "sub/deep/d.ogg"]
    assert select_files(["link/**/d.ogg", f"{tree}/s*/**/*.mp3"]).files == ["link/deep/d.ogg", f"{tree}/sub/c.mp3"]


def test_an_empty_folder_beside_others_is_an_error_of_its_own(tree: Path) -> None:
    found = select_files(["empty", "b.wav", "*.none"])
    assert found.files == ["b.wav"]
    assert [error.source for error in found.errors] == ["empty", "*.none"]
    assert found.errors[0].reason.startswith("no audio file in this folder; looked for .wav, ")
    assert found.errors[1].reason.startswith("no audio file matches this pattern; looked for .wav, ")


@pytest.mark.parametrize("named", [".", "sub", "s*"])
def test_a_folder_that_cannot_be_read_is_an_error_and_the_others_are_searched(
    tree: Path, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock(monkeypatch, tree / "sub" / "deep")
    found = select_files([named])
    assert found.files == ["a.FLAC", "b.wav", "sub/c.mp3"] if named == "." else ["sub/c.mp3"]
    locked = "./sub/deep" if named == "." else "sub/deep"
    assert list(map(str, found.errors)) == [f"{locked}: this folder cannot be read: Permission denied"]


@pytest.mark.parametrize(
    ("pattern", "files"),
    [
        ("**/*.ogg", ["top.ogg"]),
        ("**", ["a.FLAC", "b.wav", "sub/c.mp3", "top.ogg"]),
        ("./s*/*", ["./sub/c.mp3"]),
        ("sub/deep/*.ogg", []),
        ("s*/deep/*.ogg", []),
    ],
)
def test_a_folder_that_cannot_be_read_under_a_pattern_is_named_once(
    tree: Path, pattern: str, files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "top.ogg").touch()
    lock(monkeypatch, tree / "sub" / "deep")
    found = select_files([pattern, "named.wav"])
    assert found.files == [*files, "named.wav"]
    assert list(map(str, found.errors)) == ["sub/deep: this folder cannot be read: Permission denied"]


def test_a_pattern_names_only_folders_in_which_it_looks(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "sub" / "up").symlink_to(tree / "sub")
    lock(monkeypatch, tree / "sub" / "deep")
    assert select_files(["*.wav", "su?/*.mp3"]).errors == []
    [error] = select_files(["b.wav", "sub/none/*.ogg"]).errors
    assert error.reason.startswith("no audio file matches this pattern")


def test_a_folder_alone_that_cannot_be_read_says_why(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock(monkeypatch, tree / "sub")
    with pytest.raises(InvalidSetting, match=r"at least one audio file \(sub: this folder cannot be read: Permission"):
        select_files(["sub"])


@pytest.mark.parametrize("paths", [["empty"], ["*.none"], ["empty", "*.none"]])
def test_nothing_at_all_says_what_was_looked_for(tree: Path, paths: list[str]) -> None:
    with pytest.raises(InvalidSetting, match=r"looked for .*\.flac"):
        select_files(paths)


def test_a_list_on_standard_input_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InvalidSetting, match=r"^paths is '-'; allowed: - where standard input is open; it is closed"):
        select_files("-")


def test_an_empty_list(tree: Path) -> None:
    with pytest.raises(InvalidSetting, match="an empty list"):
        select_files(["-"], b"\n")


NAMES = ["b.wav", "caf\xe9 \u65e5\u672c.wav", "caffeine.wav", "two\u2028\x85\x0cparts.wav", " blank .wav"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_a_list_in_any_encoding_with_any_line_ends(tree: Path, encoding: str, end: str) -> None:
    content = end.join([*NAMES, ""]).encode(encoding)
    assert select_files(["-"], b"\xfe\xff" * (encoding == "utf-16-be") + content).files == NAMES


def test_a_list_in_utf16_without_its_mark(tree: Path) -> None:
    assert select_files(["-"], "b.wav\r\na.FLAC\r\n".encode("utf-16-le")).files == ["b.wav", "a.FLAC"]


def test_names_that_end_with_zero_bytes_are_no_patterns(tree: Path) -> None:
    assert select_files(["-"], b"*.wav\0 b.wav\n\0").files == ["*.wav", " b.wav\n"]
    assert select_files(["-"], b"*.wav\n[b].wav\n").files == ["b.wav", "[b].wav"]


def test_brackets_in_a_list_are_letters_also_in_a_pattern(tree: Path) -> None:
    for name in ("day [1]/a.wav", "day 1/b.wav", "c.d[1]t", "c.d1t"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).touch()
    assert select_files(["-"], b"day [1]/*.wav\n*.d[1]t\n").files == ["day [1]/a.wav", "c.d[1]t"]
    assert select_files(["day [1]/*.wav"]).files == ["day 1/b.wav"]


@pytest.mark.parametrize("kind", ["wav", "flac", "ogg", "mp3", "float", "noise", "zeros"])
def test_sound_on_standard_input_is_refused_and_nothing_searched(
    tree: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = np.random.default_rng(0).standard_normal(4000) / 8
    if kind in ("wav", "flac", "ogg", "mp3"):
        soundfile.write(tree / f"x.{kind}", noise, 16000)
        content = (tree / f"x.{kind}").read_bytes()
    else:
        content = noise.astype("f4").tobytes() if kind == "float" else bytes(500) if kind == "zeros" else b""
        content = content or np.random.default_rng(1).integers(0, 256, 5000, np.uint8).tobytes() + b"\n*\n/\n"
    monkeypatch.setattr("spectrim.audio.finding.audio_files", lambda folder: pytest.fail(f"searched {folder}"))
    with pytest.raises(InvalidSetting, match=r"standard input is .*names of files, one a line"):
        select_files(["-"], content)


def test_one_name_that_cannot_be_fails_by_itself(tree: Path) -> None:
    odd = ["x" * 5000, "\x1b[31mred.wav", "/dev/stdin", "", "nul\0l.wav"]
    found = select_files(["-", "", "nul\0l.wav"], "\n".join(["b.wav", *odd[:3]]).encode())
    assert found.files == ["b.wav", *odd[:2]]
    assert [error.source for error in found.errors] == odd[2:]
    assert "type - for a list of names" in found.errors[0].reason
    with pytest.raises(AudioError, match="File name too long") as caught:
        audio.read(found.files[1])
    assert len(str(caught.value)) < 1200
    with pytest.raises(AudioError, match=r"^\\x1b\[31mred\.wav: no such file"):
        audio.read(found.files[2])


def test_a_string_is_one_path_and_not_its_letters(tmp_path: Path) -> None:
    clip = tmp_path / "one.wav"
    clip.write_bytes(b"")
    for one in (clip, str(clip), os.fsencode(clip), [clip]):
        assert select_files(one).files == [str(clip)]
    for wrong in (None, 3, [3], [None]):
        with pytest.raises(InvalidSetting, match=r"paths is .*; allowed: a path, or a list of paths"):
            select_files(wrong)  # type: ignore[arg-type]


def test_a_table_of_names(tree: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    parquet.write_table(arrow.table({"size": [1, 2], "file": ["b.wav", None]}), "one.parquet")
    parquet.write_table(arrow.table({"name": ["s3://bucket/x.wav", "[b].wav"]}), "two.parquet")
    assert select_files(["two.parquet", "*.parquet"]).files == ["s3://bucket/x.wav", "[b].wav", "b.wav"]
    assert select_files([f"file://{tree}/one.parquet"]).files == ["b.wav"]
    parquet.write_table(arrow.table({"a": ["b.wav"], "b": ["c.wav"]}), "three.parquet")
    (tree / "four.parquet").write_bytes(b"PAR1")
    errors = {error.source: error.reason for error in select_files(["b.wav", "three.parquet", "four.parquet"]).errors}
    assert errors["three.parquet"].endswith("is called file, path, url, and none is the only one; its columns: a, b")
    assert errors["four.parquet"].startswith("cannot be read as Parquet: ")
