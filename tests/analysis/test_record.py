"""A pass over a data set: the model's own trace, what is left out, kills, and records that must not be mixed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from observed import LABELS, clips_on_disk, small_eager_model

from spectrim.analysis.record import observe, record, weights_digest
from spectrim.analysis.store import Store
from spectrim.audio.frontend import Frontend
from spectrim.errors import DataError, InvalidSetting
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.pruning import Pruning

NAMES = {"model_name": "small", "data_name": "noise"}


def at_rate(keep_rate: float | tuple[float, ...]) -> Pruning:
    """At the pruning blocks of the small model."""
    return Pruning(keep_rate, (2, 1))


@pytest.fixture(scope="module")
def model() -> AudioTransformer:
    return small_eager_model()


@pytest.mark.parametrize("backbone", ["ast", "audiomae"])
@pytest.mark.parametrize("fields", [{}, {"drop_padding": True, "time_stride": 10}, {"criterion": "intensity"}])
def test_batches_hold_the_models_own_trace(backbone: str, fields: dict, tmp_path: Path) -> None:
    model = small_eager_model(backbone, **fields)
    config = model.config
    part = clips_on_disk(tmp_path, 5)
    batches = list(observe(model, part, batch_size=2))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    assert [batch.next_position for batch in batches] == [2, 4, 5]
    frontend = Frontend.from_config(config)
    for place in range(5):
        batch, row = batches[place // 2], place % 2
        clip = part[place]
        values, frames = frontend([clip.waveform])
        with torch.inference_mode():
            out = model(values, num_frames=frames, output_token_trace=True)
        assert (batch.ids[row], batch.positions[row], batch.num_frames[row]) == (clip.id, place, int(frames))
        np.testing.assert_array_equal(batch.targets[row], clip.target > 0)
        np.testing.assert_allclose(batch.logits[row], out.logits[0], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(batch.log_mel[row], values[0], atol=1e-6)
        patches = values[0].unfold(0, 16, config.time_stride).unfold(1, 16, 16).transpose(0, 1).double()
        np.testing.assert_allclose(batch.intensity[row], patches.mean(dim=(-2, -1)), atol=1e-5)
        np.testing.assert_allclose(batch.variation[row], patches.std(dim=(-2, -1)), atol=1e-5)
        starts = np.arange(config.grid[1]) * config.time_stride
        np.testing.assert_array_equal(batch.padded[row], np.tile(starts >= int(frames), (config.grid[0], 1)))
        for block in range(4):
            np.testing.assert_array_equal(batch.kept(block)[row], out.token_trace.kept[block][0])
            np.testing.assert_allclose(
                batch.scores[row, block], out.token_trace.scores[block][0], rtol=1e-3, atol=1e-6, equal_nan=True
            )
        if fields.get("drop_padding"):
            assert not (batch.entered(0) & batch.padded)[row].any()


def test_a_keep_rate_beside_the_models_own(model: AudioTransformer, tmp_path: Path) -> None:
    part = clips_on_disk(tmp_path, 1)
    (batch,) = observe(model, part, pruning=at_rate((0.5, 0.25)))
    assert [int(batch.kept(block).sum()) for block in range(4)] == [64, 16, 8, 8]
    (dense,) = observe(model, part, pruning=at_rate(1.0))
    assert (dense.survived == 4).all() and not np.isnan(dense.scores).any()


def test_stand_ins_are_left_out_and_named(model: AudioTransformer, tmp_path: Path) -> None:
    part = clips_on_disk(tmp_path, 8, bad=(1, 7), short=(3,))
    seen = []
    batches = list(observe(model, part, batch_size=3, on_progress=lambda done, total: seen.append((done, total))))
    assert [name for batch in batches for name in batch.ids] == ["0.wav", "2.wav", "4.wav", "5.wav", "6.wav"]
    assert [int(place) for batch in batches for place in batch.positions] == [0, 2, 4, 5, 6]
    left_out = {name: why for batch in batches for name, why in batch.left_out.items()}
    assert set(left_out) == {"1.wav", "3.wav", "7.wav"}
    assert left_out == part.broken
    assert "shorter than one frame" in left_out["3.wav"]
    assert batches[-1].next_position == 8 and seen[-1] == (8, 8)
    store = record(model, part, tmp_path / "record", **NAMES)
    assert (len(store), store.left_out, store.next_position) == (5, left_out, 8)


def test_a_data_set_that_ends_in_nothing_usable(model: AudioTransformer, tmp_path: Path) -> None:
    part = clips_on_disk(tmp_path, 4, short=(2, 3))
    batches = list(observe(model, part, batch_size=2))
    assert [len(batch) for batch in batches] == [2, 0]
    assert batches[1].scores.shape == (0, 4, 8, 8) and set(batches[1].left_out) == {"2.wav", "3.wav"}
    store = record(model, part, tmp_path / "record", **NAMES, batch_size=2, shard_clips=1)
    assert (len(store), store.next_position) == (2, 4)
    assert [batch.scores.shape[0] for batch in store.batches(log_mel=True)] == [2, 0]


class Killed(BaseException):
    """What a signal looks like from inside."""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_record_that_was_killed_ends_as_one_that_was_not(
    model: AudioTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = clips_on_disk(tmp_path / "clips", 10, short=(4,))
    options = {**NAMES, "batch_size": 2, "shard_clips": 4}
    record(model, part, tmp_path / "whole", **options)
    read = type(part).__getitem__
    asked = []

    def dying(self: object, index: int) -> object:
        asked.append(index)
        if len(asked) == 8:
            raise Killed
        return read(self, index)

    monkeypatch.setattr(type(part), "__getitem__", dying)
    with monkeypatch.context() as patch:
        patch.setattr("spectrim.analysis.store.StoreWriter.flush", flush_unless_dying(asked))
        with pytest.raises(Killed):
            record(model, part, tmp_path / "record", **options)
    assert Store(tmp_path / "record").next_position == 4
    asked.extend(range(10))
    before = len(asked)
    store = record(model, part, tmp_path / "record", resume=True, **options)
    assert asked[before:] == [4, 5, 6, 7, 8, 9]
    assert len(store) == 9
    again = [batch for folder in ("record", "whole") for batch in Store(tmp_path / folder).batches()]
    assert contents(tmp_path / "record").keys() == contents(tmp_path / "whole").keys()
    for one, other in zip(again[: len(again) // 2], again[len(again) // 2 :], strict=True):
        assert one.ids == other.ids and one.left_out == other.left_out
        np.testing.assert_array_equal(one.survived, other.survived)
        np.testing.assert_allclose(one.scores, other.scores, rtol=1e-3, equal_nan=True)


def flush_unless_dying(asked: list[int]) -> object:
    """A kill leaves no time to write what is waiting."""
    from spectrim.analysis.store import StoreWriter

    flush = StoreWriter.flush

    def maybe(self: StoreWriter) -> None:
        if len(asked) < 8:
            flush(self)

    return maybe


def test_an_error_in_the_middle_loses_nothing(model: AudioTransformer, tmp_path: Path) -> None:
    part = clips_on_disk(tmp_path / "clips", 6, bad=(2, 3, 4, 5))
    with pytest.raises(DataError, match="cannot be read"):
        record(model, part, tmp_path / "record", **NAMES, batch_size=1)
    assert len(Store(tmp_path / "record")) == 2


def test_a_record_grows_with_its_limit(model: AudioTransformer, tmp_path: Path) -> None:
    part = clips_on_disk(tmp_path / "clips", 5)
    folder = tmp_path / "record"
    assert len(record(model, part, folder, **NAMES, limit=2)) == 2
    first = (folder / "clips-00000.safetensors").read_bytes()
    assert len(record(model, part, folder, **NAMES, limit=4, resume=True)) == 4
    assert len(record(model, part, folder, **NAMES, resume=True)) == 5
    assert len(record(model, part, folder, **NAMES, resume=True)) == 5
    assert (folder / "clips-00000.safetensors").read_bytes() == first


def test_a_record_is_not_mixed_with_another(model: AudioTransformer, tmp_path: Path) -> None:
    part = clips_on_disk(tmp_path / "clips", 3)
    folder = tmp_path / "record"
    record(model, part, folder, **NAMES)
    before = contents(folder)
    with pytest.raises(InvalidSetting, match="a folder without a record in it"):
        record(model, part, folder, **NAMES)
    other = small_eager_model()
    with torch.no_grad():
        other.head.linear.bias += 1.0
    for changed, match in (
        ({"pruning": at_rate(0.5)}, "keep_rate is 0.5"),
        ({"log_mel": "float16"}, "log_mel is 'float16'"),
        ({"model": other}, "weights"),
        ({"part": clips_on_disk(tmp_path / "clips", 4)}, r"data\.(clips|ids)"),
    ):
        arguments = {"model": model, "part": part, "folder": folder, **NAMES, "resume": True, **changed}
        with pytest.raises(InvalidSetting, match=match):
            record(**arguments)
    assert contents(folder) == before


def test_a_record_says_what_it_is_of(model: AudioTransformer, tmp_path: Path) -> None:
    store = record(model, clips_on_disk(tmp_path, 1), tmp_path / "record", **NAMES, pruning=at_rate((0.5, 0.25)))
    assert store.config.pruning.rates == {2: 0.5, 1: 0.25}
    for field in ("backbone", "max_length", "prune_at", "mean", "padding", "num_labels"):
        assert getattr(store.config, field) == getattr(model.config, field)
    assert store.run["model"]["source"] == "small" and store.run["data"]["name"] == "noise"
    assert store.run["data"]["labels"] == LABELS
    assert store.run["model"]["weights"] == weights_digest(model) != weights_digest(small_eager_model("audiomae"))


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"pruning": Pruning(0.5, (9,))}, "prune_at is 9"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"limit": 0}, "limit is 0"),
        ({"log_mel": "int4"}, "log_mel is 'int4'"),
    ],
)
def test_wrong_settings_are_refused_before_any_work(
    settings: dict, match: str, model: AudioTransformer, tmp_path: Path
) -> None:
    with pytest.raises(InvalidSetting, match=match):
        record(model, clips_on_disk(tmp_path, 1), tmp_path / "record", **NAMES, **settings)
    assert not (tmp_path / "record").exists()


def test_a_model_in_training_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"model\.eval\(\)"):
        observe(small_eager_model().train(), clips_on_disk(tmp_path, 1))


def test_a_model_hears_the_clips_at_its_own_rate(tmp_path: Path) -> None:
    model = small_eager_model(sampling_rate=8000)
    part = clips_on_disk(tmp_path, 3)
    store = record(model, part, tmp_path / "record", **NAMES)
    (batch,) = store.batches()
    values, frames = Frontend.from_config(model.config)([clip.waveform for clip in part.at_rate(8000)])
    with torch.inference_mode():
        logits = model(values, num_frames=frames).logits
    np.testing.assert_allclose(batch.logits, logits, rtol=1e-3, atol=1e-4)
    with pytest.raises(InvalidSetting, match="sampling_rate is 8000; allowed: up to 4000, at which these clips"):
        observe(model, replace(part, highest_rate=4000))


def test_a_place_before_the_beginning_is_refused(model: AudioTransformer, tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="begin is -1"):
        observe(model, clips_on_disk(tmp_path, 1), begin=-1)


def test_a_file_is_no_folder(model: AudioTransformer, tmp_path: Path) -> None:
    (tmp_path / "record").write_text("x")
    with pytest.raises(InvalidSetting, match=r"output is .*record"):
        record(model, clips_on_disk(tmp_path, 1), tmp_path / "record", **NAMES)
