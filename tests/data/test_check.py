from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tones import write_tone
from transformers import ASTFeatureExtractor

from spectrim.data.check import LogMelStatistics, check
from spectrim.errors import DataError, InvalidSetting


def waveforms(lengths: list[int]) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(0, 10 ** random.uniform(-3, -1), n).astype(np.float32) for n in lengths]


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


def test_wrong_use(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="speech-commands"):
        check("speech", tmp_path)
    with pytest.raises(DataError, match="it lacks"):
        check("speech-commands", tmp_path)
