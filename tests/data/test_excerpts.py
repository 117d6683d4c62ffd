from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from spectrim.audio import files as audio
from spectrim.data import excerpts
from spectrim.data.dataset import Recording
from spectrim.data.excerpts import Excerpts, divide, read_excerpt
from spectrim.errors import AudioError, DataError


@pytest.fixture
def long_file(tmp_path: Path) -> Path:
    """Ten seconds whose samples tell their place."""
    soundfile.write(tmp_path / "long.wav", np.linspace(-0.9, 0.9, 160_000), 16_000, subtype="FLOAT")
    return tmp_path / "long.wav"


@pytest.mark.parametrize(("place", "first"), [(0.0, 0), (0.25, 36_000), (1.0, 144_000)])
def test_an_excerpt_is_a_part_of_the_whole(long_file: Path, place: float, first: int) -> None:
    whole = audio.read(long_file).samples
    assert np.array_equal(read_excerpt(long_file, 16_000, place), whole[first : first + 16_000])


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_places_are_in_the_time_of_the_result(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "it.wav", np.random.default_rng(0).normal(0, 0.1, 3 * rate), rate)
    whole = audio.read(tmp_path / "it.wav").samples
    assert np.array_equal(read_excerpt(tmp_path / "it.wav", 8_000, 1.0), whole[40_000:48_000])


def test_a_short_file_is_taken_whole(long_file: Path) -> None:
    assert np.array_equal(read_excerpt(long_file, 200_000, 0.7), audio.read(long_file).samples)


def test_no_more_is_decoded_than_needed(long_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded = []

    def watched(path: Path, sampling_rate: int) -> Iterator[np.ndarray]:
        for block in audio_stream(path, sampling_rate):
            decoded.append(len(block))
            yield block

    audio_stream = audio.stream
    monkeypatch.setattr(excerpts.audio, "stream", watched)
    assert len(read_excerpt(long_file, 8_000, 0.0)) == 8_000
    assert sum(decoded) < 80_000


@pytest.mark.parametrize("place", [0.5, 1.0])
def test_what_is_passed_is_not_held_in_memory(tmp_path: Path, place: float) -> None:
    soundfile.write(tmp_path / "long.wav", np.full(16_000 * 240, 0.1), 16_000)
    read_excerpt(tmp_path / "long.wav", 16_000, 0.0)
    tracemalloc.start()
    try:
        assert len(read_excerpt(tmp_path / "long.wav", 16_000, place)) == 16_000
        assert tracemalloc.get_traced_memory()[1] < 4e6
    finally:
        tracemalloc.stop()


def test_a_file_that_does_not_say_its_length_is_cut_after_decoding(
    long_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = read_excerpt(long_file, 16_000, 0.25)
    monkeypatch.setattr(excerpts.audio, "named_samples", lambda path, rate: None)
    assert np.array_equal(read_excerpt(long_file, 16_000, 0.25), expected)


@pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
def test_a_file_that_is_shorter_than_it_says_is_cut_after_decoding(
    long_file: Path, monkeypatch: pytest.MonkeyPatch, place: float
) -> None:
    """As a Matroska file does whose times do not begin at nought."""
    expected = read_excerpt(long_file, 16_000, place)
    monkeypatch.setattr(excerpts.audio, "named_samples", lambda path, rate: 10 * len(audio.read(long_file).samples))
    found = read_excerpt(long_file, 16_000, place)
    assert len(found) == 16_000 and np.array_equal(found, expected)


def test_what_is_no_audio_is_an_audio_error(tmp_path: Path) -> None:
    (tmp_path / "text.wav").write_text("no sound at all")
    with pytest.raises(AudioError, match=r"text\.wav"):
        read_excerpt(tmp_path / "text.wav", 100, 0.5)


def some_excerpts(path: Path, seed: int = 0) -> Excerpts:
    return Excerpts([Recording(path, (), path.name)], [], multi_label=False, samples=16_000, seed=seed)


def test_every_epoch_has_its_own_places_and_always_the_same(long_file: Path) -> None:
    clips, again = some_excerpts(long_file), some_excerpts(long_file)
    heard = []
    for epoch in range(4):
        clips.set_epoch(epoch)
        again.set_epoch(epoch)
        heard.append(clips[0].waveform)
        assert np.array_equal(heard[-1], again[0].waveform)
    assert len({float(waveform[0]) for waveform in heard}) == 4
    assert not np.array_equal(some_excerpts(long_file, seed=1)[0].waveform, heard[0])


def test_unreadable_files_are_replaced_as_in_every_data_set(long_file: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_bytes(b"")
    recordings = [Recording(tmp_path / name, (), name) for name in ("bad.wav", "long.wav")]
    clips = Excerpts(recordings, [], multi_label=False, samples=16_000)
    assert clips[0].id == "long.wav" and clips[0].stand_in
    assert clips.broken == {"bad.wav": "empty file (0 bytes)"}
    recordings += [Recording(tmp_path / "bad.wav", (), f"{number}.wav") for number in range(3)]
    clips = Excerpts(recordings, [], multi_label=False, samples=16_000)
    with pytest.raises(DataError, match="more than bad_share"):
        for number in range(5):
            clips[number]


@pytest.mark.parametrize(("files", "asked", "held"), [(40, 3, 3), (40, 100, 4), (5, 3, 1), (2, 1, 1)])
def test_some_files_are_held_out(files: int, asked: int, held: int) -> None:
    paths = [Path(f"/audio/{number}.wav") for number in range(files)]
    training, held_out = divide(paths, Path("/audio"), asked, seed=0)
    names = [recording.id for recording in (*training, *held_out)]
    assert (len(training), len(held_out)) == (files - held, held)
    assert sorted(names) == sorted(f"{number}.wav" for number in range(files))
    assert divide(paths[::-1], Path("/audio"), asked, seed=0) == (training, held_out)
    if files == 40:
        assert divide(paths, Path("/audio"), asked, seed=1) != (training, held_out)


def test_a_single_file_is_trained_on_and_looked_at() -> None:
    training, held_out = divide([Path("/a/b.wav")], Path("/a"), 5, seed=0)
    assert training == held_out and len(training) == 1
