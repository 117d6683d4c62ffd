"""Scores at several operating points against the model run by hand, one clip and one point at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from plain import randomise, small_config
from tone_table import LABELS, small_model, write_tones

from spectrim.audio import files as audio
from spectrim.audio.frontend import Frontend
from spectrim.data import DATA_SETS, AudioDataset, Recording
from spectrim.errors import DataError, InvalidSetting, SpectrimError
from spectrim.measure import scoring
from spectrim.measure.scoring import groups_of_clips, label_columns, score_part
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.pruning import Pruning

POINTS = [
    Pruning(1.0, (1,), "cls_attention"),
    Pruning(0.4, (1,), "cls_attention"),
    Pruning(0.4, (1,), "intensity"),
]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("tones") / "set")


@pytest.fixture
def part(root: Path) -> AudioDataset:
    return DATA_SETS["csv"].open(root, "test", fold=2)


def by_hand(model: AudioTransformer, paths: Sequence[Path], point: Pruning) -> np.ndarray:
    """(clips, labels) logits."""
    model.set_pruning(point)
    frontend = Frontend.from_config(model.config)
    with torch.no_grad():
        waves = [audio.read(path, model.config.sampling_rate).samples for path in paths]
        return np.concatenate([model(*frontend([wave])[:1]).logits.numpy() for wave in waves])


def paths_of(part: AudioDataset) -> list[Path]:
    return [recording.path for recording in part.recordings]


def test_clips_are_read_at_the_models_rate(part: AudioDataset) -> None:
    fields = {"num_labels": 3, "id2label": dict(enumerate(LABELS)), "problem_type": "multi_label_classification"}
    model = randomise(AudioTransformer(small_config("passt", num_hidden_layers=2, prune_at=[1], **fields))).eval()
    found = score_part(model, part, [POINTS[0]], batch_size=4, device="cpu")
    wanted = by_hand(model, paths_of(part), POINTS[0])[:, label_columns(LABELS, part.labels)]
    np.testing.assert_allclose(found.scores[POINTS[0]], wanted, atol=1e-4)
    assert part.sampling_rate == 16000


@pytest.mark.parametrize("workers", [0, 2])
def test_scores_are_those_of_the_model_by_hand(part: AudioDataset, workers: int) -> None:
    model = small_model()
    progress: list[tuple[int, int]] = []
    found = score_part(
        model,
        part,
        POINTS,
        batch_size=5,
        device="cpu",
        workers=workers,
        on_progress=lambda *done: progress.append(done),
    )
    assert found.ids == [recording.id for recording in part.recordings]
    np.testing.assert_array_equal(found.targets, [part.target(recording) for recording in part.recordings])
    assert list(found.scores) == POINTS
    expected = [torch.from_numpy(by_hand(small_model(), paths_of(part), point)) for point in POINTS]
    for point, logits in zip(POINTS, expected, strict=True):
        np.testing.assert_allclose(found.scores[point], logits.log_softmax(-1), atol=1e-4)
    assert not np.allclose(expected[0], expected[1], atol=0.01)
    assert not np.allclose(expected[1], expected[2], atol=0.01)
    assert progress == [(5, 12), (10, 12), (12, 12)]
    assert found.unreadable == []


def test_labels_in_another_order_are_brought_into_that_of_the_data(part: AudioDataset) -> None:
    model = small_model()
    turned = small_model(labels=tuple(reversed(LABELS)))
    turned.head.linear.weight.data = model.head.linear.weight.data.flip(0)
    turned.head.linear.bias.data = model.head.linear.bias.data.flip(0)
    one, other = (score_part(either, part, POINTS[:1], device="cpu") for either in (model, turned))
    np.testing.assert_allclose(one.scores[POINTS[0]], other.scores[POINTS[0]], atol=1e-5)


def test_multi_label_models_give_logits(part: AudioDataset) -> None:
    found = score_part(small_model(several=True), part, POINTS[1:2], device="cpu")
    expected = by_hand(small_model(several=True), paths_of(part), POINTS[1])
    np.testing.assert_allclose(found.scores[POINTS[1]], expected, atol=1e-4)


def test_the_model_stays_as_it_is(part: AudioDataset) -> None:
    model = small_model().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    score_part(model, part, POINTS, device="cpu")
    assert model.training
    assert (model.config.keep_rate, model.config.criterion) == (0.9, "auto")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("workers", [0, 2])
def test_clips_that_stand_in_do_not_count_and_the_lost_ones_are_named(tmp_path: Path, workers: int) -> None:
    root = write_tones(tmp_path / "set", per_fold=9, folds=2)
    for number in (9, 13):
        (root / f"{number}.wav").write_bytes(b"RIFF, but no more")
    part = DATA_SETS["csv"].open(root, "test", fold=2, bad_share=0.5)
    found = score_part(small_model(), part, POINTS[:1], batch_size=4, device="cpu", workers=workers)
    left = [recording for recording in part.recordings if recording.id not in ("9.wav", "13.wav")]
    assert found.unreadable == ["9.wav", "13.wav"]
    assert found.ids == [recording.id for recording in left]
    np.testing.assert_array_equal(found.targets, [part.target(recording) for recording in left])
    expected = torch.from_numpy(by_hand(small_model(), [recording.path for recording in left], POINTS[0]))
    np.testing.assert_allclose(found.scores[POINTS[0]], expected.log_softmax(-1), atol=1e-4)


@pytest.mark.parametrize("workers", [0, 1])
def test_too_many_unreadable_files_end_it_in_one_line(tmp_path: Path, workers: int) -> None:
    root = write_tones(tmp_path / "set", per_fold=6, folds=2)
    for number in (6, 8):
        (root / f"{number}.wav").write_bytes(b"")
    part = DATA_SETS["csv"].open(root, "test", fold=2)
    with pytest.raises(DataError, match=r"^2 of 6 files cannot be read, more than bad_share=0\.05") as caught:
        score_part(small_model(), part, POINTS[:1], device="cpu", workers=workers)
    assert "\n" not in str(caught.value)


class Deadly(AudioDataset):
    """Its third file ends the process that reads it."""

    def read(self, recording: Recording) -> Any:
        if recording.id == self.recordings[2].id:
            os._exit(3)
        return super().read(recording)


def test_a_decoding_process_that_ends_is_an_error(part: AudioDataset) -> None:
    deadly = Deadly(part.recordings, part.labels, multi_label=False)
    with pytest.raises(SpectrimError, match="a decoding process ended"):
        score_part(small_model(), deadly, POINTS[:1], device="cpu", workers=1)


def test_times_are_medians_over_whole_batches_after_the_first(
    part: AudioDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {POINTS[0]: iter([9.0, 0.4, 0.2, 0.9, 0.001]), POINTS[1]: iter([9.0, 0.1, 0.3, 0.3, 0.001])}
    asked: list[dict[str, Any]] = []

    def interleaved(cases: dict[Any, Callable[[], object]], **options: Any) -> dict[Any, list[float]]:
        asked.append(options)
        for call in cases.values():
            call()
        return {point: [next(seconds[point])] for point in cases}

    monkeypatch.setattr(scoring, "interleaved", interleaved)
    part = replace(part, recordings=[*part.recordings, part.recordings[0]], missing=())
    found = score_part(small_model(), part, POINTS[:2], batch_size=3, device="cpu")
    assert found.milliseconds == pytest.approx({POINTS[0]: 1e3 * 0.4 / 3, POINTS[1]: 1e3 * 0.3 / 3})
    assert asked == [{"repeats": 1, "warmup": 0, "synchronise": None}] * 5


def test_one_batch_is_no_time(part: AudioDataset) -> None:
    assert score_part(small_model(), part, POINTS[:2], device="cpu").milliseconds == dict.fromkeys(POINTS[:2])


def test_scores_that_are_no_numbers_end_it_with_the_point(part: AudioDataset) -> None:
    model = small_model()
    model.head.linear.bias.data[1] = torch.nan
    with pytest.raises(SpectrimError, match=r"12\.wav .*NaN or infinite at keep rate 0\.4, criterion intensity"):
        score_part(model, part, POINTS[2:], device="cpu")


def test_labels_that_do_not_fit_are_named(part: AudioDataset) -> None:
    with pytest.raises(
        InvalidSetting, match=r"labels of the model is '3 labels such as cat'.*3, of which it does not know middle"
    ):
        score_part(small_model(labels=("high", "cat", "low")), part, POINTS, device="cpu")
    with pytest.raises(InvalidSetting, match="4 labels such as mouse"):
        label_columns(["high", "low", "middle", "mouse"], LABELS)
    with pytest.raises(InvalidSetting, match="4 labels such as high"):
        label_columns(["high", "low", "middle", "high"], LABELS)
    assert label_columns(["low", "middle", "high"], LABELS).tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("field", "settings"),
    [
        ("batch_size", {"batch_size": 0}),
        ("workers", {"workers": -1}),
        ("workers", {"workers": 1.5}),
        ("points", {"points": []}),
        ("device", {"device": "tpu"}),
        ("prune_at", {"points": [Pruning(0.5, (3,))]}),
    ],
)
def test_settings_out_of_range_are_refused(part: AudioDataset, field: str, settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidSetting, match=f"^{field} is"):
        score_part(small_model(), part, **{"points": POINTS, "device": "cpu", **settings})


def test_the_groups_are_those_of_the_clips_that_count(part: AudioDataset) -> None:
    assert score_part(small_model(), part, [POINTS[0]], device="cpu").groups is None
    ids = [recording.id for recording in part.recordings]
    speakers = [None, "a", "b", "a", "b", "b", *(["c"] * (len(ids) - 6))]
    named = [replace(one, group=speaker) for one, speaker in zip(part.recordings, speakers, strict=True)]
    grouped = replace(part, recordings=named)
    groups = score_part(small_model(), grouped, [POINTS[0]], device="cpu").groups
    assert groups is not None and sorted(groups.sizes) == sorted([1, 2, 3, len(ids) - 6])
    assert groups.numbers[1] == groups.numbers[3] != groups.numbers[2]
    fewer = groups_of_clips(grouped, [ids[3], ids[2], ids[1]])
    assert fewer is not None and fewer.numbers.tolist() == [0, 1, 0]
    assert groups_of_clips(grouped, ids[:1]) is None
