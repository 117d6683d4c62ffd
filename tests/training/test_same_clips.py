"""A run that goes on has the clips that it was begun with."""

from __future__ import annotations

from pathlib import Path

import pytest

from spectrim.data import AudioDataset, Recording
from spectrim.errors import DataError
from spectrim.measure.trained_clips import CLIPS
from spectrim.training.same_clips import check_clips, write_clips


def part(*names: str, labels: tuple[str, ...] = ("a", "b")) -> AudioDataset:
    return AudioDataset([Recording(Path(name), (0,), name) for name in names], list(labels), multi_label=False)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (part("3.wav", "4.wav"), "test: 2 clips that are not the 1 with which the run in"),
        (part("1.wav"), "test: 1 clips that are not the 1"),
        (part("3.wav", labels=("b", "a")), "have other labels"),
    ],
)
def test_other_clips_or_labels_are_refused(tmp_path: Path, test: AudioDataset, message: str) -> None:
    parts = {"train": part("1.wav", "2.wav"), "test": part("3.wav")}
    check_clips(tmp_path, parts)
    write_clips(tmp_path, parts)
    check_clips(tmp_path, parts)
    with pytest.raises(DataError, match=message):
        check_clips(tmp_path, {**parts, "test": test})


@pytest.mark.parametrize(
    ("text", "message"), [("{", "cannot be read"), ("[]", "not the None"), ('{"test": 1}', "None")]
)
def test_a_file_that_says_nothing_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / CLIPS).write_text(text)
    with pytest.raises(DataError, match=message):
        check_clips(tmp_path, {"test": part("3.wav")})
