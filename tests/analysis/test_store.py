"""Batches to shards and back: what is exact, how far off the rest is, kills, torn files, and size."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from observed import LABELS, made_up
from plain import small_config
from safetensors.numpy import load_file

from spectrim.analysis.batches import dequantise, estimated_bytes, layout, quantise
from spectrim.analysis.store import INDEX, Store, StoreWriter
from spectrim.backbones import ast_base
from spectrim.config import SpectrimConfig
from spectrim.errors import DataError, InvalidSetting

CONFIG = small_config("ast", num_hidden_layers=4, prune_at=[1, 2], keep_rate=0.6)
EXACT = ("positions", "num_frames", "targets", "logits", "intensity", "variation", "survived", "padded")


def run_of(config: SpectrimConfig, log_mel: str = "uint8", scores: str = "float32") -> dict:
    own = SpectrimConfig.own_fields(config)
    model = {"labels": [f"label {number}" for number in range(config.num_labels)], "config": own}
    return {"model": model, "data": {"labels": LABELS}, "log_mel": log_mel, "scores": scores}


def written(folder: Path, sizes: tuple[int, ...] = (3, 3, 2), shard_clips: int = 5, **settings: str) -> Path:
    writer = StoreWriter(folder, run_of(CONFIG, **settings), shard_clips=shard_clips)
    begin = 0
    for size in sizes:
        writer.append(made_up(CONFIG, size, begin))
        begin += size
    writer.flush()
    return folder


@given(
    log_mel=arrays.arrays(
        np.float32, (2, 3, 4), elements=st.floats(-8, 8, width=32) | st.sampled_from([0.5, np.float32(1e-30)])
    )
)
def test_a_quantised_value_is_off_by_half_a_step_at_most(log_mel: np.ndarray) -> None:
    codes, low, step = quantise(log_mel)
    span = log_mel.reshape(2, -1).max(axis=1) - log_mel.reshape(2, -1).min(axis=1)
    np.testing.assert_allclose(step, span / 255, rtol=1e-6)
    error = np.abs(dequantise(codes, low, step).astype(np.float64) - log_mel).reshape(2, -1).max(axis=1)
    assert (error <= 0.5 * step * (1 + 1e-4) + 2e-6).all()
    np.testing.assert_array_equal(low, log_mel.reshape(2, -1).min(axis=1))


@pytest.mark.parametrize("scores", ["float16", "float32"])
@pytest.mark.parametrize("log_mel", ["uint8", "float16", "none"])
def test_what_was_written_is_read(log_mel: str, scores: str, tmp_path: Path) -> None:
    store = Store(written(tmp_path / "record", log_mel=log_mel, scores=scores))
    assert (len(store), store.next_position, store.config.grid) == (8, 8, CONFIG.grid)
    assert [shard["clips"] for shard in store.shards] == [6, 2]
    begin = 0
    for batch in store.batches(log_mel=log_mel != "none"):
        expected = made_up(CONFIG, len(batch), begin)
        assert batch.ids == expected.ids
        for name in EXACT:
            found = getattr(batch, name)
            np.testing.assert_array_equal(found, getattr(expected, name), err_msg=name)
            assert found.dtype == getattr(expected, name).dtype, name
        np.testing.assert_array_equal(np.isnan(batch.scores), np.isnan(expected.scores))
        largest = np.nanmax(expected.scores, axis=(2, 3), keepdims=True)
        allowed = 0.0 if scores == "float32" else np.maximum(np.abs(expected.scores) * 2.0**-11, largest * 2.0**-40)
        off = np.abs(batch.scores.astype(np.float64) - expected.scores)
        assert np.nanmax(off - allowed * 1.001) <= 0.0
        if log_mel != "none":
            span = np.ptp(expected.log_mel, axis=(1, 2))
            error = np.abs(batch.log_mel - expected.log_mel).max(axis=(1, 2))
            assert (error <= (span / 510 * 1.001 if log_mel == "uint8" else 2e-3)).all()
            assert (error > 0).all()
        begin += len(batch)
    assert begin == 8


def test_alive_after_a_block_and_entered_it(tmp_path: Path) -> None:
    (batch,) = Store(written(tmp_path, sizes=(4,))).batches()
    counts = [int(batch.kept(block)[0].sum()) for block in range(4)]
    assert counts == [64, 39, 24, 24]
    for block in range(1, 4):
        np.testing.assert_array_equal(batch.entered(block), batch.kept(block - 1))
    assert batch.log_mel is None


def test_one_clip_by_number(tmp_path: Path) -> None:
    store = Store(written(tmp_path))
    for number in (0, 5, 6, 7):
        one = store.clip(number)
        assert one.ids == (f"clip-{number}.wav",) and len(one) == 1
        np.testing.assert_array_equal(one.intensity[0], made_up(CONFIG, 1, number).intensity[0])
        assert one.log_mel.shape == (1, 128, 128)
    for number in (-1, 8):
        with pytest.raises(InvalidSetting, match="0 to 7"):
            store.clip(number)


@pytest.mark.parametrize("scores", ["float32", "float16"])
def test_any_reader_of_safetensors_can_open_a_shard(tmp_path: Path, scores: str) -> None:
    written(tmp_path, scores=scores)
    tensors = load_file(tmp_path / "clips-00000.safetensors")
    shapes = layout(CONFIG, 3, log_mel="uint8", scores=scores)
    assert ("score_scale" in tensors) == (scores == "float16")
    assert {name: (part.shape, str(part.dtype)) for name, part in tensors.items()} == {
        name: ((6, *shape), kind) for name, (shape, kind) in shapes.items()
    }


def test_a_record_grows(tmp_path: Path) -> None:
    written(tmp_path, sizes=(3,))
    writer = StoreWriter(tmp_path, run_of(CONFIG), shard_clips=5)
    assert writer.next_position == 3
    writer.append(made_up(CONFIG, 4, 3))
    writer.flush()
    writer.flush()
    assert [name for batch in Store(tmp_path).batches() for name in batch.ids] == [f"clip-{n}.wav" for n in range(7)]


def test_a_kill_before_the_index_loses_that_shard_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = StoreWriter(tmp_path, run_of(CONFIG), shard_clips=2)
    writer.append(made_up(CONFIG, 2))
    monkeypatch.setattr(writer, "_write_index", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        writer.append(made_up(CONFIG, 2, 2))
    (tmp_path / "clips-00002.safetensors.partial").write_bytes(b"half")
    assert (tmp_path / "clips-00001.safetensors").exists()
    assert len(Store(tmp_path)) == 2
    again = StoreWriter(tmp_path, run_of(CONFIG), shard_clips=2)
    assert again.next_position == 2
    again.append(made_up(CONFIG, 2, 2))
    again.append(made_up(CONFIG, 2, 4))
    assert [batch.ids[0] for batch in Store(tmp_path).batches()] == ["clip-0.wav", "clip-2.wav", "clip-4.wav"]
    assert not list(tmp_path.glob("*.partial"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1000] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "match", "at_once"),
    [(cut, r"has \d+ bytes, not", True), (flip, "checksum", False), (Path.unlink, "missing", True)],
)
def test_a_torn_shard_is_named_and_recorded_again(
    damage: object, match: str, at_once: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written(tmp_path)
    assert callable(damage)
    damage(tmp_path / "clips-00001.safetensors")
    with pytest.raises(DataError, match=rf"clips-00001\.safetensors is not what was recorded: .*{match}.*resume"):
        store = Store(tmp_path)
        assert not at_once
        list(store.batches())
    with caplog.at_level(logging.WARNING, logger="spectrim.analysis.store"):
        writer = StoreWriter(tmp_path, run_of(CONFIG), shard_clips=5)
    assert "clips-00001.safetensors" in caplog.text
    assert writer.next_position == 6
    writer.append(made_up(CONFIG, 2, 6))
    writer.flush()
    assert len(list(Store(tmp_path).batches())) == 2


@pytest.mark.parametrize("content", ["", "[]", '{"format": "other"}', "{"])
def test_what_is_no_record(content: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no record: index\.json is missing"):
        Store(tmp_path)
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(DataError, match="not the index of a record"):
        Store(tmp_path)


def test_a_record_of_a_later_version(tmp_path: Path) -> None:
    written(tmp_path)
    index = json.loads((tmp_path / INDEX).read_text())
    (tmp_path / INDEX).write_text(json.dumps(index | {"version": 2}))
    with pytest.raises(DataError, match="version 2; this Spectrim reads version 1"):
        Store(tmp_path)


def test_a_shard_of_other_shapes_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    index = json.loads((tmp_path / INDEX).read_text())
    index["run"]["model"]["config"]["num_hidden_layers"] = 5
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(DataError, match="scores has shape"):
        list(Store(tmp_path).batches())


def test_log_mel_that_was_not_stored_cannot_be_asked_for(tmp_path: Path) -> None:
    store = Store(written(tmp_path, log_mel="none"))
    for call in (lambda: list(store.batches(log_mel=True)), lambda: store.clip(0)):
        with pytest.raises(InvalidSetting, match="recorded without log-mel"):
            call()
    writer = StoreWriter(tmp_path / "other", run_of(CONFIG))
    with pytest.raises(InvalidSetting, match="log_mel"):
        writer.append(made_up(CONFIG, 1, log_mel=False))


@pytest.mark.parametrize(
    ("settings", "match"), [({"log_mel": "int4"}, "float16, none, uint8"), ({"scores": "bfloat16"}, "float16, float32")]
)
def test_unknown_precisions(settings: dict, match: str) -> None:
    with pytest.raises(InvalidSetting, match=match):
        layout(CONFIG, 3, **{"log_mel": "uint8", "scores": "float16", **settings})


@pytest.mark.parametrize("settings", [{}, {"log_mel": "float16", "scores": "float16"}, {"log_mel": "none"}])
def test_the_estimated_size_is_that_on_disk(settings: dict, tmp_path: Path) -> None:
    written(tmp_path, sizes=(4, 4, 4, 4), shard_clips=8, **settings)
    real = sum(path.stat().st_size for path in tmp_path.iterdir() if path.suffix == ".safetensors")
    estimate = estimated_bytes(CONFIG, 16, labels=3, shard_clips=8, id_bytes=len("clip-10.wav"), **settings)
    assert abs(estimate - real) <= 2 * 300


def test_twenty_thousand_ten_second_clips_take_a_little_over_three_gigabytes() -> None:
    config = ast_base(num_labels=527)
    assert config.grid == (8, 64)
    assert estimated_bytes(config, 20_000) / 1e9 == pytest.approx(3.3, abs=0.05)
    assert estimated_bytes(config, 20_000, log_mel="float16") / 1e9 == pytest.approx(5.9, abs=0.05)
    assert estimated_bytes(config, 20_000, log_mel="none") / 1e9 == pytest.approx(0.6, abs=0.05)


@pytest.mark.parametrize("clips", [0, -1])
def test_a_shard_holds_something(clips: int, tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="shard_clips"):
        StoreWriter(tmp_path / "record", run_of(CONFIG), shard_clips=clips)
    assert not (tmp_path / "record").exists()
