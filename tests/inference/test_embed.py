"""Vectors of files: the model's own `embed` of the windows is the oracle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import spectrim
from spectrim.assets import packaged_clips
from spectrim.audio.files import iterate_windows
from spectrim.errors import InvalidSetting
from spectrim.inference.backend import Backend
from spectrim.inference.embed import FileEmbedding, embed_files, write_embeddings
from spectrim.inference.opening import open_model


@pytest.fixture(scope="module")
def backend() -> Backend:
    return open_model("spectrim-mini", device="cpu")


@pytest.mark.parametrize("keep_rate", [1.0, 0.5])
def test_vectors_are_those_that_the_head_reads(backend: Backend, tmp_path: Path, keep_rate: float) -> None:
    noise = 0.1 * np.random.default_rng(0).standard_normal(3 * 16000)
    soundfile.write(tmp_path / "noise.wav", noise, 16000)
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    paths = [str(packaged_clips()[0][0]), str(tmp_path / "bad.wav"), str(tmp_path / "noise.wav")]
    word, bad, found = embed_files(paths, backend, keep_rate=keep_rate, batch_size=2)
    assert [word.path, bad.path, found.path] == paths and word.error is found.error is None
    assert bad.error and bad.vectors.shape == (0, 128) and bad.times.shape == (0, 2)
    windows = list(iterate_windows(tmp_path / "noise.wav", backend.window_seconds, backend.hop_seconds))
    np.testing.assert_allclose(found.times, [(window.start, window.end) for window in windows])
    model = spectrim.from_pretrained("spectrim-mini", keep_rate=keep_rate)
    frontend = spectrim.Frontend.from_config(model.config)
    with torch.no_grad():
        vectors = model.embed(frontend([window.samples for window in windows]).input_values)
        np.testing.assert_allclose(found.vectors, vectors.numpy(), atol=1e-4)
        logits = model.head(torch.from_numpy(word.vectors))
    assert model.config.id2label[int(logits.argmax())] == spectrim.predict(paths[0], model).top(1)[0][0]


def test_the_archive_holds_all_and_appears_whole(tmp_path: Path) -> None:
    rows = [
        FileEmbedding("a.wav", np.array([[0.0, 1.0], [1.0, 1.5]]), np.ones((2, 3), np.float32)),
        FileEmbedding("ü/b.wav", np.zeros((0, 2)), np.zeros((0, 3), np.float32), error="empty file (0 bytes)"),
        FileEmbedding("c.wav", np.array([[0.0, 0.7]]), np.full((1, 3), 2.0, np.float32), note="read to the end"),
    ]
    write_embeddings(tmp_path / "v.npz", rows)
    with np.load(tmp_path / "v.npz", allow_pickle=False) as found:
        assert found["files"].tolist() == ["a.wav", "ü/b.wav", "c.wav"]
        assert found["errors"].tolist() == ["", "empty file (0 bytes)", ""]
        assert found["notes"].tolist() == ["", "", "read to the end"]
        assert found["file_index"].tolist() == [0, 0, 2]
        assert (found["start"].tolist(), found["end"].tolist()) == ([0.0, 1.0, 0.0], [1.0, 1.5, 0.7])
        assert found["vectors"].dtype == np.float32
        np.testing.assert_array_equal(found["vectors"], [[1, 1, 1], [1, 1, 1], [2, 2, 2]])
    assert [path.name for path in tmp_path.iterdir()] == ["v.npz"]
    assert rows[0] in rows and rows[0] != rows[2]
    write_embeddings(tmp_path / "v.npz", [])
    with np.load(tmp_path / "v.npz", allow_pickle=False) as found:
        shapes = {name: found[name].shape for name in found.files}
        kinds = {name: found[name].dtype.kind for name in found.files}
    assert shapes.pop("vectors") == (0, 0) and set(shapes.values()) == {(0,)}
    texts = dict.fromkeys(("files", "errors", "notes"), "U")
    assert kinds == {**texts, "vectors": "f", "file_index": "i", "start": "f", "end": "f"}


def test_what_gives_logits_only_is_refused(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(backend), "embeds", False)
    with pytest.raises(InvalidSetting, match="gives logits only"):
        embed_files([str(packaged_clips()[0][0])], backend)
    with pytest.raises(InvalidSetting, match="gives logits only"):
        Backend.embeddings(backend, [])
