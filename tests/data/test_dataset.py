from __future__ import annotations

import logging
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tones import write_tone
from torch.utils.data import DataLoader

from spectrim.data import AudioDataset, Recording
from spectrim.data.dataset import bearable
from spectrim.errors import DataError, InvalidSetting


def dataset(folder: Path, count: int, bad: Sequence[int] = (), **options: object) -> AudioDataset:
    recordings = []
    for number in range(count):
        path = folder / f"{number}.wav"
        write_tone(path, 100 * (number + 1))
        if number in bad:
            path.write_bytes(b"RIFF, but no more")
        recordings.append(Recording(path, (number % 3,), path.name))
    return AudioDataset(recordings, ["a", "b", "c"], multi_label=False, **options)


def test_a_clip_is_what_the_file_holds(tmp_path: Path) -> None:
    samples = write_tone(tmp_path / "x.wav", 440)
    part = AudioDataset([Recording(tmp_path / "x.wav", (0, 2), "x")], ["a", "b", "c"], multi_label=True)
    clip = part[0]
    np.testing.assert_array_equal(clip.waveform, samples)
    np.testing.assert_array_equal(clip.target, np.array([1, 0, 1], np.float32))
    assert clip.waveform.dtype == clip.target.dtype == np.float32
    assert (clip.id, len(part)) == ("x", 1)


def test_other_rates_are_resampled(tmp_path: Path) -> None:
    write_tone(tmp_path / "x.wav", 440, seconds=0.5, rate=8000)
    part = AudioDataset([Recording(tmp_path / "x.wav", (0,), "x")], ["a"], multi_label=False)
    spectrum = np.abs(np.fft.rfft(part[0].waveform))
    assert len(part[0].waveform) == 8000
    assert np.argmax(spectrum) * 2 == 440


def test_a_corrupt_file_is_named_once_and_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    part = dataset(tmp_path, 6, bad=(2,))
    with caplog.at_level(logging.WARNING, logger="spectrim.data.dataset"):
        ids = [part[index].id for _ in range(3) for index in range(6)]
    assert ids == ["0.wav", "1.wav", "3.wav", "3.wav", "4.wav", "5.wav"] * 3
    assert len(caplog.records) == 1
    assert "2.wav" in caplog.text
    assert list(part.broken) == ["2.wav"]


def test_the_last_file_is_replaced_by_the_first(tmp_path: Path) -> None:
    assert dataset(tmp_path, 3, bad=(2,))[2].id == "0.wav"


@pytest.mark.parametrize(
    ("total", "share", "expected"), [(100, 0.29, 29), (100, 0.299, 29), (3, 1.0, 3), (10, 0.0, 1), (70, 0.05, 3)]
)
def test_a_share_of_files_is_not_rounded_below_itself(total: int, share: float, expected: int) -> None:
    assert bearable(total, share) == expected


def test_a_replacement_has_its_own_target(tmp_path: Path) -> None:
    clip = dataset(tmp_path, 6, bad=(1,))[1]
    assert (clip.id, clip.target.argmax()) == ("2.wav", 2)


def test_a_replacement_says_so(tmp_path: Path) -> None:
    part = dataset(tmp_path, 6, bad=(1, 5), bad_share=0.5)
    assert [part[index].stand_in for _ in range(2) for index in range(6)] == [
        False,
        True,
        False,
        False,
        False,
        True,
    ] * 2
    assert [part[index].stand_in for index in (-6, -5)] == [False, True]


def test_too_many_corrupt_files_are_an_error(tmp_path: Path) -> None:
    part = dataset(tmp_path, 10, bad=(1, 4, 7), bad_share=0.2)
    assert part[1].id == "2.wav"
    assert part[4].id == "5.wav"
    with pytest.raises(DataError, match=r"3 of 10 files cannot be read.*bad_share=0\.2.*7\.wav"):
        part[7]


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
@pytest.mark.parametrize("workers", [0, 4])
def test_decoding_processes_count_corrupt_files_together(tmp_path: Path, workers: int) -> None:
    """Each of four meets two of eight, which is no more than it may."""
    part = dataset(tmp_path, 40, bad=range(0, 40, 5), bad_share=0.1)
    reader = DataLoader(part, batch_size=1, num_workers=workers, collate_fn=list)
    with pytest.raises(DataError, match=r"^[5-8] of 40 files cannot be read, more than bad_share=0\.1"):
        list(reader)
    assert len(part.broken) >= 5
    part = dataset(tmp_path, 40, bad=(3, 7), bad_share=0.1)
    heard = [clip for batch in DataLoader(part, batch_size=1, num_workers=workers, collate_fn=list) for clip in batch]
    assert [clip.id for clip in heard if clip.stand_in] == ["4.wav", "8.wav"]
    assert list(part.broken) == ["3.wav", "7.wav"]


def test_nothing_to_replace_it_with(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of the 1 files"):
        dataset(tmp_path, 1, bad=(0,))[0]


def test_missing_files_are_counted_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dataset(tmp_path, 40, missing=[f"gone{k}" for k in range(2)])
    assert "2 files are missing" in caplog.text
    assert "gone0, gone1" in caplog.text


def test_too_many_missing_files_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"8 of 18 files are missing.*gone0.*and 3 more"):
        dataset(tmp_path, 10, missing=[f"gone{k}" for k in range(8)])
    assert len(dataset(tmp_path, 10, missing=[f"gone{k}" for k in range(8)], bad_share=0.5)) == 10


def test_an_empty_part_is_an_error() -> None:
    with pytest.raises(DataError, match=r"no clips$"):
        AudioDataset([], ["a"], multi_label=False)
    with pytest.raises(DataError, match=r"none of its 2 files is there, e\.g\. x, y"):
        AudioDataset([], ["a"], multi_label=False, missing=["x", "y"], bad_share=1.0)


@pytest.mark.parametrize("share", [-0.1, 1.1, "all", True, None])
def test_a_share_is_checked(tmp_path: Path, share: float) -> None:
    with pytest.raises(InvalidSetting, match="bad_share"):
        dataset(tmp_path, 2, bad_share=share)


@pytest.mark.parametrize("index", [3, -4])
def test_an_index_out_of_range(tmp_path: Path, index: int) -> None:
    with pytest.raises(IndexError):
        dataset(tmp_path, 3)[index]


def test_iteration_ends(tmp_path: Path) -> None:
    part = dataset(tmp_path, 3)
    assert [part[index].id for index in range(-3, 0)] == [clip.id for clip in part]


def test_it_travels_to_worker_processes(tmp_path: Path) -> None:
    part = pickle.loads(pickle.dumps(dataset(tmp_path, 3)))
    assert part[1].id == "1.wav"


def test_torchs_loader_takes_it(tmp_path: Path) -> None:
    loader = torch.utils.data.DataLoader(dataset(tmp_path, 5), batch_size=2, collate_fn=list)
    assert [[clip.id for clip in batch] for batch in loader] == [["0.wav", "1.wav"], ["2.wav", "3.wav"], ["4.wav"]]
