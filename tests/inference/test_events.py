"""Events and their tracks; the plain definition of an event, window by window, is the oracle."""

from __future__ import annotations

import csv
import io
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spectrim.errors import InvalidSetting
from spectrim.inference.events import (
    EventTracks,
    SoundEvent,
    audacity_track,
    raven_table,
    sound_events,
    thresholds_of,
)
from spectrim.inference.results import FilePrediction, WindowScores

LABELS = ["dog", "cat", "rain"]


def prediction(rows: list[list[float]], hop: float = 1.0, window: float = 1.0, path: str = "a.wav") -> FilePrediction:
    timeline = [
        WindowScores(hop * index, hop * index + window, np.array(row, np.float32)) for index, row in enumerate(rows)
    ]
    return FilePrediction(path, LABELS, timeline[-1].end if rows else 0.0, timeline, None)


def test_windows_that_touch_are_one_event() -> None:
    found = prediction([[0.9, 0.1, 0.5], [0.6, 0.1, 0.0], [0.1, 0.1, 0.0], [0.7, 0.1, 0.5]])
    chosen = thresholds_of(LABELS)
    assert sound_events(found, chosen) == [
        SoundEvent(0.0, 2.0, "dog", pytest.approx(0.9)),
        SoundEvent(0.0, 1.0, "rain", 0.5),
        SoundEvent(3.0, 4.0, "dog", pytest.approx(0.7)),
        SoundEvent(3.0, 4.0, "rain", 0.5),
    ]
    assert [event.label for event in sound_events(found, chosen, min_duration=1.5)] == ["dog"]
    assert sound_events(FilePrediction("a.wav", LABELS, error="no such file"), chosen) == []
    apart = prediction([[0.9, 0, 0], [0.9, 0, 0]], hop=2.0)
    assert [(event.start, event.end) for event in sound_events(apart, chosen)] == [(0.0, 1.0), (2.0, 3.0)]


@given(st.lists(st.booleans(), max_size=30), st.sampled_from([0.25, 0.5, 1.0, 1.5]))
def test_events_cover_what_is_heard_and_nothing_else(heard: list[bool], hop: float) -> None:
    found = prediction([[0.8 if one else 0.2, 0.0, 0.0] for one in heard], hop=hop)
    events = sound_events(found, {"dog": 0.5})
    for moment in np.arange(0.05, 32, 0.1):
        inside = any(window.start <= moment < window.end and window.scores[0] > 0.5 for window in found.timeline)
        assert inside == any(event.start <= moment < event.end for event in events)
    assert all(before.end < after.start for before, after in itertools.pairwise(events))


def test_thresholds_as_they_are_typed() -> None:
    assert thresholds_of(LABELS) == dict.fromkeys(LABELS, 0.5)
    assert thresholds_of(LABELS, ["0.4", "cat=0.2"]) == {"dog": 0.4, "cat": 0.2, "rain": 0.4}
    assert thresholds_of(["a=b", "c"], ["a=b=0.1"], ["a=b"]) == {"a=b": 0.1}
    for given_thresholds in (["2"], ["nan"], ["much"], ["cat=-1"], [""]):
        with pytest.raises(InvalidSetting, match="threshold"):
            thresholds_of(LABELS, given_thresholds)
    for options in (([], ["dgo"]), (["dgo=0.5"], [])):
        with pytest.raises(InvalidSetting, match=r"label is 'dgo'.*dog"):
            thresholds_of(LABELS, *options)


def test_tracks_have_the_columns_that_their_programs_read() -> None:
    events = [SoundEvent(0.0, 1.25, "dog\tbark", 0.75), SoundEvent(2.0, 3.0, "cat", 0.5)]
    assert audacity_track(events, 8000) == "0.000000\t1.250000\tdog bark\n2.000000\t3.000000\tcat\n"
    rows = list(csv.DictReader(io.StringIO(raven_table(events, 8000)), delimiter="\t"))
    assert rows[1] == {
        "Selection": "2",
        "View": "Spectrogram 1",
        "Channel": "1",
        "Begin Time (s)": "2.000000",
        "End Time (s)": "3.000000",
        "Low Freq (Hz)": "0.0",
        "High Freq (Hz)": "8000.0",
        "Annotation": "cat",
        "Score": "0.5",
    }


def test_a_track_a_file_in_the_order_of_folders(tmp_path: Path) -> None:
    files = [str(tmp_path / "in" / name) for name in ("a.wav", "b/a.wav", "b/c.wav")]
    tracks = EventTracks(tmp_path / "out", "audacity", files, {"dog": 0.5}, 0.0, 16000)
    for path in files[:2]:
        tracks.write(prediction([[0.9, 0, 0]], path=path))
    assert tracks.write(FilePrediction(files[2], LABELS, error="empty file (0 bytes)")) is None
    written = sorted(path.relative_to(tmp_path).as_posix() for path in (tmp_path / "out").rglob("*.txt"))
    assert written == ["out/a.wav.txt", "out/b/a.wav.txt"]
    assert (tmp_path / "out" / "a.wav.txt").read_text() == "0.000000\t1.000000\tdog\n"
    long = tracks.write(prediction([[0.9, 0, 0]], path=str(tmp_path / "in" / ("b" * 251 + ".wav"))))
    assert long.name.startswith("b" * 200) and long.name.endswith(".txt") and long.read_text()
    (tmp_path / "file").write_text("")
    for options in (("out", "srt", 0.0), ("out", "raven", -1.0), ("out", "raven", float("nan")), ("file", "raven", 0)):
        with pytest.raises(InvalidSetting):
            EventTracks(tmp_path / options[0], options[1], files, {"dog": 0.5}, options[2], 16000)


@pytest.mark.parametrize(("kind", "ending"), [("audacity", ".txt"), ("raven", ".Table.1.selections.txt")])
def test_a_track_is_replaced_and_another_file_is_not(tmp_path: Path, kind: str, ending: str) -> None:
    files = [str(tmp_path / name) for name in ("a.wav", "b.wav")]

    def tracks() -> EventTracks:
        return EventTracks(tmp_path, kind, files, {"dog": 0.5}, 0.0, 16000)

    for rows in ([[0.9, 0, 0]], [[0.1, 0, 0]], [[0.9, 0, 0], [0.8, 0, 0]]):
        written = tracks().write(prediction(rows, path=files[0]))
    assert written is not None and written.read_text().count("dog") == 1
    begun = tracks()
    for content in (b"mynotes\n", b"0.5 is the threshold", b"\xff\xfe\0\0"):
        (tmp_path / f"b.wav{ending}").write_bytes(content)
        for write in (tracks, lambda: begun.write(prediction([[0.9, 0, 0]], path=files[1]))):
            with pytest.raises(InvalidSetting, match=rf"a folder without .*b\.wav{ending}, which is no track"):
                write()
        assert (tmp_path / f"b.wav{ending}").read_bytes() == content


@pytest.mark.parametrize("place", ["b/c.wav.txt", "b/c.wav.txt/", "b"])
def test_what_is_in_the_place_of_a_track_or_its_folder_is_refused(tmp_path: Path, place: str) -> None:
    files = [str(tmp_path / "in" / name) for name in ("a.wav", "b/c.wav")]
    tracks = EventTracks(tmp_path / "out", "audacity", files, {"dog": 0.5}, 0.0, 16000)
    foreign = tmp_path / "out" / place
    foreign.parent.mkdir(parents=True)
    foreign.mkdir() if place.endswith("/") else foreign.write_text("notes")
    for write in (
        lambda: tracks.write(prediction([[0.9, 0, 0]], path=files[1])),
        lambda: EventTracks(tmp_path / "out", "audacity", files, {"dog": 0.5}, 0.0, 16000),
    ):
        with pytest.raises(InvalidSetting, match=rf"a folder without {foreign}, which is no track"):
            write()
