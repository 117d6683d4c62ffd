from __future__ import annotations

import json
from pathlib import Path

import pytest
from layouts import write_class_labels
from tones import write_tone

from spectrim.data.audioset import open_audioset
from spectrim.data.manifests import Segment, make_manifest, read_segments
from spectrim.errors import DataError, InvalidSetting

HEADER = """# Segments csv created Sun Mar  5 10:54:31 2017
# num_ytids=3, num_segs=3, num_unique_labels=3, num_positive_labels=4
# YTID, start_seconds, end_seconds, positive_labels
"""
LISTED = (
    HEADER
    + """--PJHxphWEs, 30.000, 40.000, "/m/09x0r,/m/04rlf"
Y_1bnlTeh_Y, 0.000, 10.000, "/m/0k4j"
ab_cdef_100, 210.500, 220.500, "/m/04rlf"
"""
)
MIDS = ("/m/09x0r", "/m/04rlf", "/m/0k4j")


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    return write_class_labels(tmp_path / "class_labels_indices.csv")


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    path = tmp_path / "eval_segments.csv"
    path.write_text(LISTED)
    return path


def made(tmp_path: Path, listed: Path, labels: Path, *names: str) -> dict[str, str]:
    """Wav → labels of the manifest of a folder with these files in it."""
    for name in names:
        path = tmp_path / "clips" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    make_manifest(listed, tmp_path / "clips", tmp_path / "eval.json", labels=labels)
    content = json.loads((tmp_path / "eval.json").read_text())
    return {entry["wav"]: entry["labels"] for entry in content["data"]}


def test_googles_lines_are_read(listed: Path) -> None:
    assert read_segments(listed, MIDS) == [
        Segment("--PJHxphWEs", 30.0, 40.0, ("/m/09x0r", "/m/04rlf")),
        Segment("Y_1bnlTeh_Y", 0.0, 10.0, ("/m/0k4j",)),
        Segment("ab_cdef_100", 210.5, 220.5, ("/m/04rlf",)),
    ]


@pytest.mark.parametrize(
    "form",
    ["{}.wav", "Y{}.wav", "{}_{}.flac", "{}_{}_{}.mp3", "Y{}_{}_{}.WAV", "deep/er/{}_{}000.ogg", "Y{}_{}000_{}000.wav"],
)
def test_names_in_common_use_are_found(tmp_path: Path, listed: Path, labels: Path, form: str) -> None:
    names = [
        form.format(name, start, start + 10)
        for name, start in (("--PJHxphWEs", 30), ("Y_1bnlTeh_Y", 0), ("ab_cdef_100", 210))
    ]
    found = made(tmp_path, listed, labels, *names)
    expected = ["/m/09x0r,/m/04rlf", "/m/0k4j", "/m/04rlf"]
    assert found == {f"clips/{name}": mids for name, mids in zip(names, expected, strict=True)}


@pytest.mark.parametrize(
    "name", ["--PJHxphWEs_210.5_220.5.wav", "PJHxphWEs.wav", "--PJHxphWEs_30.txt", ".--PJHxphWEs.wav"]
)
def test_what_is_another_clip_is_not_taken(tmp_path: Path, listed: Path, labels: Path, name: str) -> None:
    assert list(made(tmp_path, listed, labels, "ab_cdef_100_210.500.wav", name)) == ["clips/ab_cdef_100_210.500.wav"]


@pytest.mark.parametrize(
    ("start", "name", "taken"),
    [
        ("0.000", "abc_30.wav", False),
        ("0.000", "abc_30_40.wav", False),
        ("0.000", "abc_3.wav", False),
        ("0.000", "abc_0_10000.wav", True),
        ("0.500", "abc_400.wav", False),
        ("0.500", "abc_500_10500.wav", True),
        ("30.000", "abc_30100.wav", False),
        ("30.000", "abc_31000.wav", False),
        ("30.000", "abc_30001.wav", True),
    ],
)
def test_seconds_of_another_clip_are_no_milliseconds(
    tmp_path: Path, listed: Path, labels: Path, start: str, name: str, taken: bool
) -> None:
    listed.write_text(HEADER + f'abc, {start}, {float(start) + 10}, "/m/09x0r"\n')
    if taken:
        assert list(made(tmp_path, listed, labels, name)) == [f"clips/{name}"]
    else:
        with pytest.raises(DataError, match="none of the 1 clips"):
            made(tmp_path, listed, labels, name)


def test_a_number_that_is_both_is_taken_as_seconds(tmp_path: Path, listed: Path, labels: Path) -> None:
    listed.write_text(HEADER + 'abc, 3, 13, "/m/09x0r"\nabc, 3000, 3010, "/m/0k4j"\n')
    assert made(tmp_path, listed, labels, "abc_3000.wav") == {"clips/abc_3000.wav": "/m/0k4j"}


def test_the_start_tells_segments_of_one_video_apart(tmp_path: Path, listed: Path, labels: Path) -> None:
    listed.write_text(HEADER + 'abc, 10, 20, "/m/09x0r"\nabc, 50, 60, "/m/0k4j"\n')
    found = made(tmp_path, listed, labels, "abc_50_60.wav", "abc_10.wav")
    assert found == {"clips/abc_10.wav": "/m/09x0r", "clips/abc_50_60.wav": "/m/0k4j"}
    (tmp_path / "clips" / "abc_50_60.wav").unlink()
    assert made(tmp_path, listed, labels, "abc.wav") == {"clips/abc_10.wav": "/m/09x0r"}


def test_a_name_is_a_whole_id_before_it_is_one_with_a_letter_before_it(
    tmp_path: Path, listed: Path, labels: Path
) -> None:
    listed.write_text(HEADER + 'abc, 10, 20, "/m/09x0r"\nYabc, 50, 60, "/m/0k4j"\n')
    assert made(tmp_path, listed, labels, "Yabc.wav") == {"clips/Yabc.wav": "/m/0k4j"}
    assert made(tmp_path, listed, labels, "Yabc_10.wav") == {
        "clips/Yabc_10.wav": "/m/09x0r",
        "clips/Yabc.wav": "/m/0k4j",
    }


def test_of_two_clips_of_a_segment_the_first_by_name_is_taken(tmp_path: Path, listed: Path, labels: Path) -> None:
    names = ["b/Y_1bnlTeh_Y.wav", "a/Y_1bnlTeh_Y.wav", "a/Y_1bnlTeh_Y.flac", "c/Y_1bnlTeh_Y.wav"]
    assert made(tmp_path, listed, labels, *names) == {"clips/a/Y_1bnlTeh_Y.flac": "/m/0k4j"}


def test_what_is_missing_or_cannot_be_decoded_is_named(tmp_path: Path, listed: Path, labels: Path) -> None:
    (tmp_path / "clips").mkdir()
    for name in ("Y_1bnlTeh_Y.ape", "ab_cdef_100.ape", "ab_cdef_100.wav"):
        (tmp_path / "clips" / name).touch()
    report = make_manifest(listed, tmp_path / "clips", tmp_path / "eval.json", labels=labels)
    assert (report.segments, report.written) == (3, 1)
    assert [segment.id for segment in report.missing] == ["--PJHxphWEs"]
    assert [segment.id for segment in report.undecodable] == ["Y_1bnlTeh_Y"]


def test_nothing_is_written_when_nothing_is_found(tmp_path: Path, listed: Path, labels: Path) -> None:
    with pytest.raises(DataError, match=r"none of the 3 clips .*; 1 are there as \.ape"):
        made(tmp_path, listed, labels, "Y_1bnlTeh_Y.ape")
    with pytest.raises(DataError, match="no such folder"):
        make_manifest(listed, tmp_path / "nowhere", tmp_path / "eval.json", labels=labels)
    with pytest.raises(DataError, match="no such folder"):
        make_manifest(listed, tmp_path / "clips", tmp_path / "nowhere" / "eval.json", labels=labels)
    assert not list(tmp_path.glob("eval.json*"))


def test_no_clip_list_or_table_is_replaced(tmp_path: Path, listed: Path, labels: Path) -> None:
    clip = tmp_path / "clips" / "Y_1bnlTeh_Y.wav"
    write_tone(clip)
    table = labels.rename(tmp_path / "labels.json")
    segments = listed.rename(tmp_path / "segments.json")
    before = {path: path.read_bytes() for path in (clip, table, segments)}
    with pytest.raises(InvalidSetting, match=r"out is .* allowed: a name that ends in \.json"):
        make_manifest(segments, clip.parent, clip, labels=table)
    for out in (table, segments):
        with pytest.raises(InvalidSetting, match=r"out is .* allowed: another name: that file is read"):
            make_manifest(segments, clip.parent, out, labels=table)
    assert {path: path.read_bytes() for path in before} == before


def test_paths_outside_are_absolute_and_the_manifest_opens(tmp_path: Path, listed: Path, labels: Path) -> None:
    samples = write_tone(tmp_path / "far" / "--PJHxphWEs.wav", 500)
    write_tone(tmp_path / "far" / "Y_1bnlTeh_Y.wav", 600)
    (tmp_path / "root").mkdir()
    report = make_manifest(listed, tmp_path / "far", tmp_path / "root" / "eval.json", labels=labels)
    assert report.written == 2
    part = open_audioset(tmp_path / "root", "test", labels=str(labels))
    assert part.recordings[0].id == str(tmp_path / "far" / "--PJHxphWEs.wav")
    assert part[0].waveform.tolist() == samples.tolist()
    assert part[0].target.tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('abc, 10, "/m/09x0r"', "line 4: .* is not: YTID"),
        ('abc, 10, 20, "/m/09x0r", 5', "line 4: .* is not: YTID"),
        ('abc, ten, 20, "/m/09x0r"', "line 4: .* is not: YTID"),
        ('abc, 10, 20, "/m/09x0r', "line 4: .* is not: YTID"),
        ('abc, 20, 10, "/m/09x0r"', "line 4: .* does not begin before"),
        ('abc, nan, 10, "/m/09x0r"', "line 4: .* does not begin before"),
        ('abc, 10, 20, "/m/other,/m/09x0r"', "line 4: '/m/other' is no mid of the 3"),
        ("# nothing", "holds no segments"),
    ],
)
def test_a_list_with_something_wrong(listed: Path, line: str, words: str) -> None:
    listed.write_text(HEADER + line + "\n")
    with pytest.raises(DataError, match=words):
        read_segments(listed, MIDS)
