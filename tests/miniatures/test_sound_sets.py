from __future__ import annotations

import csv
import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import miniature_sets
import numpy as np
import pytest
import soundfile

from spectrim.assets import AUDIOSET_LABELS
from spectrim.data.audioset import open_audioset
from spectrim.data.esc50 import open_esc50
from spectrim.data.manifests import make_manifest
from spectrim.errors import InvalidSetting, MissingExtra
from spectrim.miniatures import scenes
from spectrim.miniatures import sound_sets as synthetic_sounds
from spectrim.miniatures import writing as miniature
from spectrim.miniatures.scenes import EVENTS, FEMALE, draw_events, scene_labels
from spectrim.miniatures.sound_sets import Take, make_take, synthesize_audioset, synthesize_esc50
from spectrim.miniatures.sounds import CATEGORIES
from spectrim.miniatures.spoken_commands import VOICES

CLIPS = miniature_sets.AUDIOSET_CLIPS
MAKERS = {"esc50": (synthesize_esc50, 250), "audioset": (synthesize_audioset, 4)}


@pytest.fixture(scope="module")
def esc50() -> Path:
    return miniature_sets.esc50()


@pytest.fixture(scope="module")
def audioset() -> Path:
    return miniature_sets.audioset()


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def digests(root: Path) -> dict[str, str]:
    files = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def waves(folder: Path) -> list[np.ndarray]:
    return [soundfile.read(path)[0] for path in sorted(folder.glob("*.wav"))]


def test_esc50_opens_as_the_real_data_set(esc50: Path) -> None:
    for fold in (1, 5):
        train, test = open_esc50(esc50, "train", fold=fold), open_esc50(esc50, "test", fold=fold)
        assert (len(train), len(test)) == (200, 50)
        assert not train.missing
        assert train.labels == [category.name for category in CATEGORIES]
        assert Counter(recording.labels for recording in train.recordings) == {(label,): 4 for label in range(50)}
        assert not {recording.id for recording in train.recordings} & {recording.id for recording in test.recordings}


def test_esc50s_table_is_written_as_the_real_one(esc50: Path) -> None:
    assert (
        (esc50 / "meta" / "esc50.csv").read_text().startswith("filename,fold,target,category,esc10,src_file,take\n1-")
    )
    table = rows(esc50 / "meta" / "esc50.csv")
    assert {row["filename"] for row in table} == {path.name for path in (esc50 / "audio").iterdir()}
    for row in table:
        assert row["filename"] == f"{row['fold']}-{row['src_file']}-{row['take']}-{row['target']}.wav"
        category = CATEGORIES[int(row["target"])]
        assert (row["category"], row["esc10"]) == (category.name, str(category.esc10))
        assert row["take"] in "ABC"


def test_a_source_is_in_one_fold_and_of_one_category() -> None:
    jobs = list(synthetic_sounds._takes(8, seed=3))
    assert len(jobs) == 2000
    assert Counter((job.fold, job.target) for job in jobs) == {(fold, t): 8 for fold in range(1, 6) for t in range(50)}
    of_source: dict[int, set[tuple[int, int]]] = {}
    for job in jobs:
        of_source.setdefault(job.source, set()).add((job.fold, job.target))
    assert all(len(places) == 1 for places in of_source.values())
    assert 1.3 < len(jobs) / len(of_source) < 2.2
    assert len({job.filename for job in jobs}) == 2000


def test_clips_are_as_long_as_the_real_ones(esc50: Path, audioset: Path) -> None:
    for folder, seconds in ((esc50, 5), (audioset, 10)):
        for path in (folder / "audio").glob("*.wav"):
            info = soundfile.info(path)
            assert (info.samplerate, info.channels, info.duration, info.subtype) == (16000, 1, seconds, "PCM_16")


def test_levels_vary_and_some_recordings_end_in_silence(esc50: Path) -> None:
    clips = waves(esc50 / "audio")
    decibels = np.array([20 * np.log10(np.abs(wave).max()) for wave in clips])
    assert decibels.min() > -30.5
    assert decibels.max() <= 0
    assert np.ptp(decibels) > 15
    silent = np.mean([not wave[-1600:].any() for wave in clips])
    assert 0.1 < silent < 0.35


LEVELS = """
864.8 1053.2 937.9 745.4 641.5 139.0 752.3 1234.4 703.6 257.5 475.5 320.2 165.4 3737.1 1399.7 1268.7 1511.7 1411.9
770.8 1647.8 971.2 267.9 424.4 1303.7 108.8 1275.1 1838.3 310.5 235.0 170.5 149.8 303.7 117.6 1078.0 102.6 903.3
1303.2 2109.2 442.5 83.4 672.7 320.9 2947.0 397.1 4379.7 783.1 340.7 866.9 306.7 504.9
"""
"""Rms of one clip of each category: models have been trained on these, so a change is meant or a mistake."""


def test_clips_sound_as_they_did() -> None:
    levels = [np.sqrt(np.mean(make_take(Take(1, target, 1, 0, 0)).astype(float) ** 2)) for target in range(50)]
    np.testing.assert_allclose(levels, [float(level) for level in LEVELS.split()], rtol=2e-3)


def test_takes_share_their_source_and_differ() -> None:
    takes = [make_take(Take(2, 38, 152_380, take, 5)).astype(float) for take in (0, 1, 2)]
    assert not np.array_equal(takes[0], takes[1])
    spectra = [
        np.abs(np.fft.rfft(wave / np.abs(wave).max())).reshape(-1, 1)[1:40001].reshape(100, 400) for wave in takes
    ]
    levels = np.log([spectrum.mean(1) for spectrum in spectra])
    other = make_take(Take(2, 38, 152_381, 0, 5)).astype(float)
    apart = np.log(np.abs(np.fft.rfft(other / np.abs(other).max()))[1:40001].reshape(100, 400).mean(1))
    assert np.std(levels[0] - levels[1]) < np.std(levels[0] - apart)


def test_audioset_opens_as_the_real_data_set(audioset: Path) -> None:
    parts = {part: open_audioset(audioset, part) for part in ("train", "test")}
    assert {name: len(part) for name, part in parts.items()} == {"train": CLIPS, "test": 50}
    for part in parts.values():
        assert not part.missing
        assert part.multi_label
        assert part.labels == list(scene_labels().values())
        assert {label for recording in part.recordings for label in recording.labels} == set(range(len(part.labels)))
    assert len(parts["train"][0].waveform) == 160_000
    names = {name: {recording.path for recording in part.recordings} for name, part in parts.items()}
    assert not names["train"] & names["test"]
    assert names["train"] | names["test"] == set((audioset / "audio").iterdir())


def test_googles_lists_name_the_same_segments(audioset: Path, tmp_path: Path) -> None:
    for manifest, segments in (("train.json", "balanced_train_segments.csv"), ("eval.json", "eval_segments.csv")):
        made = make_manifest(
            audioset / segments,
            audioset / "audio",
            audioset / "again.json",
            labels=audioset / "class_labels_indices.csv",
        )
        entries = json.loads((audioset / manifest).read_text())["data"]
        assert json.loads((audioset / "again.json").read_text())["data"] == entries
        assert (made.written, made.missing) == (len(entries), [])
        (audioset / "again.json").unlink()
        lines = (audioset / segments).read_text().splitlines()
        assert all(line.startswith("# ") for line in lines[:3])
        assert f"num_segs={len(entries)}," in lines[1]
        assert f"num_positive_labels={sum(len(entry['labels'].split(',')) for entry in entries)}" in lines[1]
        assert all(re.fullmatch(r'[\w-]{11}, \d+\.000, \d+\.000, "[/\w,]+"', line) for line in lines[3:])


def test_labels_are_audiosets_own(audioset: Path) -> None:
    known = {row["mid"]: row["display_name"] for row in rows(AUDIOSET_LABELS)}
    table = rows(audioset / "class_labels_indices.csv")
    assert [int(row["index"]) for row in table] == list(range(len(table)))
    assert all(known[row["mid"]] == row["display_name"] for row in table)
    order = list(known)
    assert [order.index(row["mid"]) for row in table] == sorted(order.index(row["mid"]) for row in table)
    assert {label for event in EVENTS for label in event.labels} == {row["display_name"] for row in table}


def test_events_have_a_long_tail_and_the_first_scenes_hold_all() -> None:
    first = [draw_events(np.random.default_rng((1, index)), index) for index in range(len(EVENTS))]
    assert {id(event) for events in first for event in events} == {id(event) for event in EVENTS}
    counts: Counter[int] = Counter()
    sizes: Counter[int] = Counter()
    for index in range(1000, 4000):
        events = draw_events(np.random.default_rng((1, index)), index)
        sizes[len(events)] += 1
        counts.update(EVENTS.index(event) for event in events)
        assert len({event.labels for event in events}) == len(events)
    assert sorted(sizes) == [1, 2, 3, 4]
    assert sizes[1] / 3000 == pytest.approx(0.35, abs=0.03)
    assert counts[0] > 10 * counts[len(EVENTS) - 1] > 0
    assert sum(counts[number] for number in range(6)) > sum(counts[number] for number in range(20, 44))


class Listener:
    """Notes who speaks."""

    def __init__(self) -> None:
        self.voices: set[str] = set()

    def say(self, text: str, manner: object) -> np.ndarray:
        self.voices.add(manner.voice)  # type: ignore[attr-defined]
        return np.ones(22050, np.float32)


def test_the_parts_share_no_voice_and_women_speak_where_the_label_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenes, "recorded", lambda source, take, dry: dry)
    assert set(FEMALE) < {voice for part in VOICES.values() for voice in part}
    heard = {}
    for manifest, parts in synthetic_sounds.VOICE_PARTS.items():
        for number in (0, 2):
            engine = Listener()
            for seed in range(25):
                scenes.mix_scene(engine, np.random.default_rng(seed), [EVENTS[number]], parts)  # type: ignore[arg-type]
            assert all((voice in FEMALE) == ("Female" in EVENTS[number].labels[1]) for voice in engine.voices)
            heard[manifest, number] = engine.voices
    assert not (heard["train.json", 0] | heard["train.json", 2]) & (heard["eval.json", 0] | heard["eval.json", 2])


def test_a_worker_makes_what_one_process_makes(esc50: Path) -> None:
    for row in rows(esc50 / "meta" / "esc50.csv")[::17]:
        take = Take(int(row["fold"]), int(row["target"]), int(row["src_file"]), "ABC".index(row["take"]), 7)
        made, _ = soundfile.read(esc50 / "audio" / row["filename"], dtype="int16")
        np.testing.assert_array_equal(make_take(take), made)
        assert not np.array_equal(make_take(Take(take.fold, take.target, take.source, take.take, 8)), made)


def test_a_scene_depends_on_its_number_and_the_seed_only(
    audioset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(miniature, "CHUNK", 2)
    fewer = digests(synthesize_audioset(tmp_path / "a", clips=7, test_clips=2, seed=7, workers=2) / "audio")
    first = digests(audioset / "audio")
    assert len(fewer) == 9
    assert fewer.items() <= first.items()
    other = digests(synthesize_audioset(tmp_path / "b", clips=2, test_clips=0, seed=8, workers=1) / "audio")
    assert not set(other.values()) & set(first.values())


@pytest.mark.parametrize(("name", "clips"), [("esc50", 250), ("audioset", CLIPS)])
def test_the_record_says_how_it_was_made(name: str, clips: int, request: pytest.FixtureRequest) -> None:
    record = json.loads((request.getfixturevalue(name) / "synthesis.json").read_text())
    module, _, function = record["made_by"].rpartition(".")
    assert getattr(sys.modules[module], function) is MAKERS[name][0]
    assert (record["clips"], record["seed"]) == (clips, 7)


@pytest.mark.parametrize("clips", [0, -250, 40, 249, 1100])
def test_esc50_is_balanced_or_refused(tmp_path: Path, clips: int) -> None:
    with pytest.raises(InvalidSetting, match=f"^clips is {clips}; allowed: a multiple of 250"):
        synthesize_esc50(tmp_path / "x", clips=clips)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (synthesize_esc50, "seed"),
        (synthesize_esc50, "workers"),
        *((synthesize_audioset, field) for field in ("clips", "test_clips", "seed", "workers")),
    ],
)
def test_numbers_are_checked(tmp_path: Path, make: Callable[..., Path], field: str) -> None:
    with pytest.raises(InvalidSetting, match=f"^{field} is -1"):
        make(tmp_path / "x", **{field: -1})


@pytest.mark.parametrize("name", MAKERS)
def test_nothing_is_left_when_it_stops(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "audioset":
        pytest.importorskip("espeakng_loader")
    monkeypatch.setattr(miniature, "CHUNK", 3)

    def stop(done: int, total: int) -> None:
        assert done == 3
        raise KeyboardInterrupt

    make, clips = MAKERS[name]
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "x", clips=clips, workers=1, progress=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", MAKERS)
def test_what_is_there_is_not_overwritten(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(InvalidSetting, match="out is"):
        MAKERS[name][0](tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_audioset_needs_speech(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(MissingExtra):
        synthesize_audioset(tmp_path / "x", clips=4)
    assert list(tmp_path.iterdir()) == []


def test_esc50_needs_no_speech(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    monkeypatch.setattr(synthetic_sounds, "make_take", lambda take: np.zeros(10, np.int16))
    assert len(list(synthesize_esc50(tmp_path / "x", clips=250, workers=1).glob("audio/*.wav"))) == 250
