from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layouts import make_audioset, make_esc50, make_folder
from tones import write_tone
from transformers import ASTFeatureExtractor

from spectrim.audio import files as audio
from spectrim.data import check as checking
from spectrim.data.check import LogMelStatistics, check, look_alikes
from spectrim.errors import DataError, InvalidSetting


def waveforms(lengths: list[int]) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(0, 10 ** random.uniform(-3, -1), n).astype(np.float32) for n in lengths]


def test_labels_that_look_alike_are_told_apart() -> None:
    assert look_alikes(["Dog", "cat", "dog", "dog ", "d\u00f6g", "do\u0308g"]) == [
        "'dog' differs from 'Dog' only by upper and lower case",
        "'dog ' differs from 'Dog' only by upper and lower case and blanks",
        "'do\u0308g' differs from 'd\u00f6g' only by normalisation of Unicode",
    ]
    assert look_alikes(["dog", " dog"]) == ["' dog' differs from 'dog' only by blanks"]


def test_statistics_are_those_of_the_real_frames() -> None:
    clips = waveforms([16000, 8000, 400, 20000])
    statistics = LogMelStatistics(max_length=98)
    statistics.add(clips[:3])
    statistics.add(clips[3:])
    values = []
    for clip in clips:
        frames = min(98, 1 + (len(clip) - 400) // 160)
        extractor = ASTFeatureExtractor(max_length=frames, do_normalize=False)
        values.append(extractor(clip, sampling_rate=16000, return_tensors="np")["input_values"][0].ravel())
    joined = np.concatenate(values).astype(np.float64)
    assert statistics.mean == pytest.approx(joined.mean(), abs=1e-4)
    assert statistics.std == pytest.approx(joined.std(), abs=1e-4)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_statistics_do_not_depend_on_the_batches(sizes: list[int]) -> None:
    clips = waveforms([800 + 160 * k for k in range(sum(sizes))])
    together, apart = LogMelStatistics(max_length=32), LogMelStatistics(max_length=32)
    together.add(clips)
    start = 0
    for size in sizes:
        apart.add(clips[start : start + size])
        start += size
    assert apart.mean == pytest.approx(together.mean, abs=1e-6)
    assert apart.std == pytest.approx(together.std, abs=1e-6)


def test_no_clips_have_no_statistics() -> None:
    statistics = LogMelStatistics(max_length=32)
    assert np.isnan(statistics.mean)
    assert np.isnan(statistics.std)


def test_the_report_says_what_is_there(speech_commands: Path) -> None:
    (speech_commands / "yes" / "cccccccc_nohash_0.wav").unlink()
    (speech_commands / "bed" / "aaaaaaaa_nohash_0.wav").write_bytes(b"RIFF")
    write_tone(speech_commands / "dog" / "aaaaaaaa_nohash_0.wav", seconds=0.5, rate=8000)
    seen = []
    report = check("speech-commands", speech_commands, progress=lambda done, total: seen.append((done, total)))
    train, test = report.parts["train"], report.parts["test"]
    assert train.clips == 69
    assert list(train.broken) == ["bed/aaaaaaaa_nohash_0.wav"]
    assert (train.per_label["bed"], train.per_label["dog"]) == (1, 2)
    assert train.sampling_rates == {8000: 1, 16000: 68}
    assert train.seconds == pytest.approx((0.1, (68 * 0.1 + 0.5) / 69, 0.5))
    assert (test.clips, test.missing) == (1, ["yes/cccccccc_nohash_0.wav"])
    assert np.isfinite([report.mean, report.std]).all()
    assert seen[-1] == (73, 73)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_the_statistics_are_those_of_the_training_part(tmp_path: Path) -> None:
    make_esc50(tmp_path / "ESC-50")
    plain = LogMelStatistics(max_length=512)
    for path in sorted((tmp_path / "ESC-50" / "audio").iterdir()):
        if not path.name.startswith("3"):
            plain.add([audio.read(path).samples])
    report = check("esc50", tmp_path / "ESC-50", fold=3)
    assert (report.mean, report.std) == pytest.approx((plain.mean, plain.std), abs=1e-6)
    assert report.max_length == 512
    assert report.failures == []


def test_the_statistics_are_those_at_the_rate_of_the_model(tmp_path: Path) -> None:
    make_esc50(tmp_path / "ESC-50")
    plain = LogMelStatistics(max_length=512, sampling_rate=8000)
    for path in sorted((tmp_path / "ESC-50" / "audio").iterdir()):
        if not path.name.startswith("3"):
            plain.add([audio.read(path, 8000).samples])
    report, usual = (check("esc50", tmp_path / "ESC-50", fold=3, sampling_rate=rate) for rate in (8000, None))
    assert (report.mean, report.std) == pytest.approx((plain.mean, plain.std), abs=1e-6)
    assert report.mean != usual.mean
    assert report.parts["train"].seconds == pytest.approx(usual.parts["train"].seconds, abs=1e-3)


def test_what_is_in_two_parts_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_esc50(tmp_path / "ESC-50")
    read: list[Path] = []
    stream = audio.stream
    monkeypatch.setattr(audio, "stream", lambda path, rate: read.append(path) or stream(path, rate))
    seen = []
    report = check("esc50", tmp_path / "ESC-50", workers=1, progress=lambda *counts: seen.append(counts))
    assert report.parts["validation"] == report.parts["test"]
    assert [report.parts[part].clips for part in ("train", "validation", "test")] == [24, 6, 6]
    assert len(read) == len(set(read)) == 30
    assert seen == [(24, 30), (30, 30)]
    (tmp_path / "ESC-50" / "audio" / "1-1000-A-2.wav").write_bytes(b"")
    apart = check("esc50", tmp_path / "ESC-50", fold=2, validation_fold=1)
    assert [apart.parts[part].clips for part in ("train", "validation", "test")] == [18, 5, 6]
    assert apart.parts["validation"].per_label == {"c2": 2, "c1": 2, "c0": 1}


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_is_held_than_the_statistics_look_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    make_folder(tmp_path, {"a": 20, "b": 20})
    write_tone(tmp_path / "a" / "0.wav", seconds=20)
    write_tone(tmp_path / "b" / "0.wav", seconds=20)
    monkeypatch.setattr(checking, "AT_ONCE", 4)
    batches = []
    add = LogMelStatistics.add
    monkeypatch.setattr(LogMelStatistics, "add", lambda self, clips: batches.append(clips) or add(self, clips))
    report = check("folder", tmp_path, workers=workers, max_length=96, validation_share=0.2, test_share=0.2)
    clips = [clip for batch in batches for clip in batch]
    assert (len(clips), max(map(len, batches))) == (report.parts["train"].clips, 4)
    assert max(map(len, clips)) <= 95 * 160 + 400
    longest = max(part.seconds[2] for part in report.parts.values())
    assert (longest, report.max_length) == (20.0, 96)


@pytest.mark.parametrize(("seconds", "frames"), [(0.1, 16), (0.345, 48), (1.0, 112), (12.0, 1024)])
def test_a_length_that_fits_is_found_where_none_is_known(tmp_path: Path, seconds: float, frames: int) -> None:
    for part in ("train", "validation"):
        write_tone(tmp_path / part / "a" / "x.wav", seconds=seconds)
    report = check("folder", tmp_path)
    plain = LogMelStatistics(max_length=frames)
    plain.add([audio.read(tmp_path / "train" / "a" / "x.wav").samples])
    assert report.max_length == frames
    assert (report.mean, report.std) == pytest.approx((plain.mean, plain.std), abs=1e-6)


def test_labels_of_several_and_of_no_clips_are_counted(tmp_path: Path) -> None:
    report = check("audioset", make_audioset(tmp_path / "audioset"))
    assert report.parts["train"].per_label == {"Speech": 3, "Music": 2, "Car, passing by": 1}
    assert report.parts["test"].per_label == {"Speech": 0, "Music": 1, "Car, passing by": 1}
    assert report.parts["test"].empty_labels == ["Speech"]


def test_more_than_the_share_is_a_failure(speech_commands: Path) -> None:
    for word in ("bed", "bird", "cat", "dog"):
        (speech_commands / word / "aaaaaaaa_nohash_0.wav").write_bytes(b"")
    (speech_commands / "yes" / "cccccccc_nohash_0.wav").unlink()
    assert check("speech-commands", speech_commands).failures == [
        "train: 4 of 70 files are unreadable, more than bad_share=0.05"
    ]
    assert check("speech-commands", speech_commands, bad_share=0.06).failures == []
    (speech_commands / "testing_list.txt").write_text(
        "yes/x_nohash_0.wav\nyes/y_nohash_0.wav\nno/cccccccc_nohash_0.wav"
    )
    assert check("speech-commands", speech_commands, bad_share=0.5).failures == [
        "test: 2 of 3 files are missing, more than bad_share=0.5"
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_length": 100}, "max_length is 100; allowed: a positive whole number, a multiple of 16"),
        ({"workers": 0}, "workers is 0; allowed: a positive whole number$"),
        ({"bad_share": 2}, "bad_share is 2"),
        ({"fold": 1}, "option fold is 1; allowed: one of bad_share$"),
    ],
)
def test_a_wrong_option(speech_commands: Path, options: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidSetting, match=words):
        check("speech-commands", speech_commands, **options)


def test_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="speech-commands"):
        check("speech", tmp_path)
    with pytest.raises(DataError, match="it lacks"):
        check("speech-commands", tmp_path)


@pytest.mark.parametrize(
    ("seconds", "frames", "cut"),
    [
        ([1.0] * 9 + [1.2], 128, 0),
        ([1.0] * 9 + [3.0], 112, 1),
        ([1.0] * 4 + [3.0], 304, 0),
        ([1.0] * 98 + [3.0, 3.0], 112, 2),
        ([1.0] * 97 + [3.0] * 3, 304, 0),
        ([], 16, 0),
    ],
)
def test_a_length_leaves_out_a_few_that_are_much_longer(seconds: list[float], frames: int, cut: int) -> None:
    assert checking.fitting_length(seconds) == frames
    assert checking.cut_clips(seconds, frames) == cut


def test_statistics_are_known_for_every_shorter_length() -> None:
    clips = waveforms([16000, 8000, 400, 20000])
    long, short = LogMelStatistics(max_length=112), LogMelStatistics(max_length=32)
    for statistics in (long, short):
        statistics.add(clips[:2])
        statistics.add(clips[2:])
    assert long.within(32) == pytest.approx((short.mean, short.std), abs=1e-5)
