from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path

import miniature_sets
import numpy as np
import pytest
import soundfile

from spectrim.data import PARTS
from spectrim.data.voxceleb1 import open_voxceleb1
from spectrim.errors import DataError, InvalidSetting, MissingExtra
from spectrim.miniatures import espeak
from spectrim.miniatures import speakers as synthetic_speakers
from spectrim.miniatures.speakers import SPEAKERS, Utterance, make_utterance, synthesize_voxceleb1
from spectrim.miniatures.speaking import LEXICON, sentence, speak_sentence


@pytest.fixture(scope="module")
def voxceleb1() -> Path:
    return miniature_sets.voxceleb1()


def test_it_opens_as_the_real_data_set(voxceleb1: Path) -> None:
    parts = {part: open_voxceleb1(voxceleb1, part) for part in PARTS}
    for part in parts.values():
        assert not part.missing
        assert part.labels == [f"id{10001 + number}" for number in range(89)]
        assert Counter(recording.labels for recording in part.recordings) == {(label,): 1 for label in range(89)}
    videos = [{recording.id.rpartition("/")[0] for recording in part.recordings} for part in parts.values()]
    assert not (videos[0] & videos[1] or videos[0] & videos[2] or videos[1] & videos[2])


def test_files_are_named_and_written_as_in_the_real_data_set(voxceleb1: Path) -> None:
    first = (voxceleb1 / "iden_split.txt").read_text().splitlines()[0]
    part, _, name = first.partition(" ")
    speaker, video, file = name.split("/")
    assert (part, speaker, len(video), file) == ("1", "id10001", 11, "00001.wav")
    lengths = []
    for path in (voxceleb1 / "wav").rglob("*.wav"):
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
        lengths.append(info.duration)
    assert len(lengths) == 267
    assert min(lengths) >= 3.99
    assert max(lengths) <= 8
    assert np.std(lengths) > 0.5


def test_a_worker_makes_what_one_process_makes(voxceleb1: Path) -> None:
    with espeak.Espeak() as engine:
        for speaker, video in ((0, 0), (40, 1), (88, 2)):
            utterance = Utterance(speaker, video, 1, 7)
            made, _ = soundfile.read(voxceleb1 / "wav" / utterance.name, dtype="int16")
            np.testing.assert_array_equal(make_utterance(engine, utterance), made)
            assert not np.array_equal(make_utterance(engine, Utterance(speaker, video, 1, 8)), made)


def test_the_record_names_the_voices(voxceleb1: Path) -> None:
    record = json.loads((voxceleb1 / "synthesis.json").read_text())
    assert (record["clips"], record["seed"]) == (267, 7)
    assert list(record["voices"].values()) == list(SPEAKERS)
    assert len(set(SPEAKERS)) == 89


@pytest.mark.parametrize("clips", [267, 268, 712, 4450])
def test_speakers_and_parts_have_their_share(clips: int) -> None:
    jobs = list(synthetic_speakers._utterances(clips, seed=1))
    names = [job.name for job in jobs]
    assert len(jobs) == clips == len(set(names))
    each = Counter(job.speaker for job in jobs)
    assert max(each.values()) - min(each.values()) <= 1
    assert {(job.speaker, job.part) for job in jobs} == {(speaker, part) for speaker in range(89) for part in (1, 2, 3)}
    if clips >= 4450:
        shares = Counter(job.part for job in jobs)
        assert shares[1] / clips == pytest.approx(0.75, abs=0.02)
        assert shares[2] / clips == pytest.approx(0.125, abs=0.02)
    videos: dict[str, set[int]] = {}
    for job, name in zip(jobs, names, strict=True):
        videos.setdefault(name.rpartition("/")[0], set()).add(job.part)
    assert all(len(parts) == 1 for parts in videos.values())


@pytest.mark.parametrize(("field", "value"), [("clips", 266), ("clips", -1), ("seed", -1), ("workers", 0)])
def test_numbers_are_checked(tmp_path: Path, field: str, value: int) -> None:
    with pytest.raises(InvalidSetting, match=f"^{field} is {value}"):
        synthesize_voxceleb1(tmp_path / "x", **{field: value})
    assert list(tmp_path.iterdir()) == []


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(MissingExtra):
        synthesize_voxceleb1(tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(InvalidSetting, match="out is"):
        synthesize_voxceleb1(tmp_path)


class Engine:
    """Speaks for a second whatever it is told, and remembers how."""

    def __init__(self, speech: np.ndarray) -> None:
        self.speech = speech
        self.manners: list[espeak.Manner] = []

    def say(self, text: str, manner: espeak.Manner) -> np.ndarray:
        self.manners.append(manner)
        return self.speech


def test_an_utterance_is_one_voice_in_one_accent() -> None:
    engine = Engine(np.ones(22050, np.float32))
    accents = set()
    for video in range(6):
        wave = make_utterance(engine, Utterance(5, video, 1, 0))  # type: ignore[arg-type]
        assert 4 * 16000 <= len(wave) + 1 <= 8 * 16000 + 1
        accents |= {manner.accent for manner in engine.manners}
    assert {manner.voice for manner in engine.manners} == {SPEAKERS[5]}
    assert len(accents) == 1
    assert len({manner.pitch for manner in engine.manners}) > 5


def test_a_sentence_is_a_row_of_words() -> None:
    random = np.random.default_rng(0)
    for words in (1, 2, 12):
        text = sentence(random, words)
        assert text[-1] in ".?!"
        parts = text[:-1].replace(",", "").split(" ")
        assert len(parts) == words
        assert set(parts) <= set(LEXICON)


def test_pitch_is_kept_within_what_espeak_knows() -> None:
    engine = Engine(np.ones(2205, np.float32))
    for pitch in (-30.0, 300.0):
        speak_sentence(engine, np.random.default_rng(0), "yes.", "m3", accent="en", rate=99.6, pitch=pitch)  # type: ignore[arg-type]
    assert [(manner.pitch, manner.rate) for manner in engine.manners] == [(5, 100), (95, 100)]


def test_silence_is_an_error() -> None:
    with pytest.raises(DataError, match="voice 'm3' gives silence"):
        silent = Engine(np.zeros(8000, np.float32))
        speak_sentence(silent, np.random.default_rng(0), "yes.", "m3", accent="en", rate=150, pitch=50)  # type: ignore[arg-type]
