from __future__ import annotations

import csv
import hashlib
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from spectrim import assets
from spectrim.data import PARTS, Recording
from spectrim.data.speech_commands import WORDS, open_speech_commands
from spectrim.errors import DataError, InvalidSetting, MissingExtra
from spectrim.miniatures import espeak
from spectrim.miniatures import spoken_commands as synthetic
from spectrim.miniatures import writing as miniature_module
from spectrim.miniatures.speaking import without_silence
from spectrim.miniatures.spoken_commands import (
    VOICES,
    speak_clip,
    speaker_id,
    synthesize_spoken_commands,
    write_demo_clips,
)

DEMO = assets.DEMO_CLIPS
SIZES = {"clips": 70, "validation_clips": 35, "test_clips": 350}


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("espeakng_loader")
    return synthesize_spoken_commands(tmp_path_factory.mktemp("data") / "spoken", **SIZES, seed=7, workers=1)


def digests(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def speakers(recordings: list[Recording]) -> set[str]:
    return {recording.path.name.split("_")[0] for recording in recordings}


def test_it_opens_as_the_real_data_set(miniature: Path) -> None:
    parts = {part: open_speech_commands(miniature, part) for part in PARTS}
    assert {name: len(part) for name, part in parts.items()} == {"train": 70, "validation": 35, "test": 350}
    for name, part in parts.items():
        assert not part.missing
        assert speakers(part.recordings) <= {speaker_id(voice) for voice in VOICES[name]}
        counts = Counter(part.labels[recording.labels[0]] for recording in part.recordings)
        assert len(set(counts.values())) == 1
    assert speakers(parts["test"].recordings) == {speaker_id(voice) for voice in VOICES["test"]}


def test_files_are_named_and_written_as_in_the_real_data_set(miniature: Path) -> None:
    folders = {path.name for path in miniature.iterdir() if path.is_dir()}
    assert folders == {*WORDS, "_background_noise_"}
    for path in miniature.glob("[a-z]*/*.wav"):
        speaker, nohash, k = path.stem.split("_")
        assert len(speaker) == 8
        assert int(speaker, 16) >= 0
        assert (nohash, k.isdigit()) == ("nohash", True)
        info = soundfile.info(str(path))
        assert (info.samplerate, info.channels, info.frames, info.subtype) == (16000, 1, 16000, "PCM_16")
    for path in (miniature / "_background_noise_").iterdir():
        assert soundfile.info(str(path)).duration == 20
    assert len(list((miniature / "_background_noise_").iterdir())) == 6


def test_levels_vary_and_nothing_clips(miniature: Path) -> None:
    peaks = [np.abs(soundfile.read(path)[0]).max() for path in miniature.glob("[a-z]*/*.wav")]
    decibels = 20 * np.log10(peaks)
    assert decibels.min() > -30.1
    assert decibels.max() < -2.9
    assert decibels.max() - decibels.min() > 20


def test_the_same_command_gives_the_same_bytes_for_any_number_of_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("espeakng_loader")
    sizes = dict.fromkeys(SIZES, 35)
    alone = synthesize_spoken_commands(tmp_path / "alone", **sizes, seed=7, workers=1)
    monkeypatch.setattr(miniature_module, "CHUNK", 25)
    together = synthesize_spoken_commands(tmp_path / "together", **sizes, seed=7, workers=2)
    assert digests(together) == digests(alone)


def test_a_clip_depends_on_its_number_and_the_seed_only(miniature: Path, tmp_path: Path) -> None:
    more = synthesize_spoken_commands(tmp_path / "a", clips=105, validation_clips=0, test_clips=0, seed=7, workers=1)
    other = synthesize_spoken_commands(tmp_path / "b", clips=35, validation_clips=0, test_clips=0, seed=8, workers=1)
    first, longer, reseeded = digests(miniature), digests(more), digests(other)
    train = [recording.id for recording in open_speech_commands(miniature, "train").recordings]
    assert all(longer[name] == first[name] for name in train)
    shared = [name for name in train if name in reseeded]
    assert len(shared) == 35
    assert all(reseeded[name] != first[name] for name in shared)


def test_the_record_says_how_it_was_made(miniature: Path) -> None:
    record = json.loads((miniature / "synthesis.json").read_text())
    assert {name: record[name] for name in SIZES} == SIZES
    assert record["seed"] == 7
    assert record["voices"]["test"] == {speaker_id(voice): voice for voice in VOICES["test"]}


def test_progress_counts_up_to_all(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader")
    seen: list[tuple[int, int]] = []
    synthesize_spoken_commands(
        tmp_path / "x",
        clips=140,
        validation_clips=1,
        test_clips=1,
        workers=1,
        progress=lambda *counts: seen.append(counts),
    )
    assert seen == [(128, 142), (142, 142)]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_when_it_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    pytest.importorskip("espeakng_loader")

    def stop(done: int, total: int) -> None:
        raise error

    with pytest.raises(error):
        synthesize_spoken_commands(tmp_path / "x", clips=35, workers=1, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    for out in (tmp_path, tmp_path / "mine.txt"):
        with pytest.raises(InvalidSetting, match="out is"):
            synthesize_spoken_commands(out, clips=35)
    assert (tmp_path / "mine.txt").read_text() == "x"


@pytest.mark.parametrize("field", ["clips", "validation_clips", "test_clips", "seed", "workers"])
def test_numbers_are_checked(tmp_path: Path, field: str) -> None:
    with pytest.raises(InvalidSetting, match=f"^{field} is -1"):
        synthesize_spoken_commands(tmp_path / "x", **{field: -1})


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(MissingExtra):
        synthesize_spoken_commands(tmp_path / "x", clips=35)
    assert list(tmp_path.iterdir()) == []


def test_the_parts_share_no_voice() -> None:
    pytest.importorskip("espeakng_loader")
    voices = [voice for part in VOICES.values() for voice in part]
    assert len(voices) == len(set(voices)) == len({speaker_id(voice) for voice in voices}) == 89
    with espeak.Espeak() as engine:
        assert set(voices) <= set(engine.voices)


class Slow:
    """Speaks at 100 words a minute what takes three seconds."""

    def say(self, text: str, manner: espeak.Manner) -> np.ndarray:
        speech = np.random.default_rng(0).normal(0, 0.1, int(3 * 22050 * 100 / manner.rate)).astype(np.float32)
        return np.concatenate([np.zeros(5000, np.float32), speech, np.zeros(5000, np.float32)])


def test_a_long_word_is_spoken_faster_until_it_fits() -> None:
    for seed in range(20):
        speech = synthetic._speak_word(Slow(), "marvin", "m3", np.random.default_rng(seed))
        assert 8000 < len(speech) <= synthetic.LONGEST_WORD


class Silent:
    def say(self, text: str, manner: espeak.Manner) -> np.ndarray:
        return np.zeros(8000, np.float32)


def test_silence_is_an_error() -> None:
    with pytest.raises(DataError, match="silence"):
        speak_clip(Silent(), "yes", "m3", np.random.default_rng(0))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 5000), st.integers(200, 8000), st.integers(0, 5000))
def test_silence_around_a_word_is_cut(before: int, length: int, after: int) -> None:
    word = np.sin(np.arange(length) * 0.3)
    speech = without_silence(np.concatenate([np.zeros(before), word, np.zeros(after)]))
    assert length - 160 <= len(speech) <= length + 2 * 320
    assert np.abs(speech).max() == pytest.approx(1, abs=0.05)


def test_three_is_not_spoken_where_it_is_tree() -> None:
    heard = set()

    class Listener:
        def say(self, text: str, manner: espeak.Manner) -> np.ndarray:
            heard.add(manner.accent)
            return np.ones(8000, np.float32)

    for seed in range(100):
        synthetic._speak_word(Listener(), "three", "m3", np.random.default_rng(seed))
    assert heard == set(espeak.ACCENTS) - {"en-029"}


def test_demo_clips_are_balanced_test_clips(miniature: Path, tmp_path: Path) -> None:
    out = write_demo_clips(miniature, tmp_path / "demo", clips_per_word=2)
    with (out / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["label"] for row in rows) == dict.fromkeys(WORDS, 2)
    assert Counter(row["voice"] for row in rows) == dict.fromkeys(VOICES["test"], 7)
    for row in rows:
        source = miniature / row["label"] / f"{speaker_id(row['voice'])}_nohash_0.wav"
        np.testing.assert_array_equal(
            soundfile.read(out / row["path"], dtype="int16")[0], soundfile.read(source, dtype="int16")[0]
        )


def test_demo_clips_need_a_miniature(tmp_path: Path, miniature: Path) -> None:
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="not a spoken miniature"):
        write_demo_clips(tmp_path / "other", tmp_path / "demo")
    with pytest.raises(InvalidSetting, match="1 to 10"):
        write_demo_clips(miniature, tmp_path / "demo", clips_per_word=11)
    with pytest.raises(InvalidSetting, match="out is"):
        write_demo_clips(miniature, miniature)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_the_shipped_clips_are_balanced_and_small() -> None:
    with (DEMO / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert Counter(row["label"] for row in rows) == dict.fromkeys(WORDS, 4)
    assert Counter(row["voice"] for row in rows) == dict.fromkeys(VOICES["test"], 14)
    assert {path.name for path in DEMO.glob("*.flac")} == {row["path"] for row in rows}
    assert sum(path.stat().st_size for path in DEMO.iterdir()) <= 3 * 2**20
    for row in rows:
        info = soundfile.info(str(DEMO / row["path"]))
        assert (info.samplerate, info.channels, info.frames, info.subtype) == (16000, 1, 16000, "PCM_16")


def test_the_shipped_clips_are_what_the_generator_makes() -> None:
    pytest.importorskip("espeakng_loader")
    with (DEMO / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))[::7]
    with espeak.Espeak() as engine:
        for row in rows:
            index = VOICES["test"].index(row["voice"]) * len(WORDS) + WORDS.index(row["label"])
            random = np.random.default_rng((0, synthetic.PART_NUMBERS["test"], index))
            made = speak_clip(engine, row["label"], row["voice"], random).astype(int)
            shipped = soundfile.read(DEMO / row["path"], dtype="int16")[0].astype(int)
            assert np.abs(made - shipped).max() <= 2
