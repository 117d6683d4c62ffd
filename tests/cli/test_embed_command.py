"""``spectrim embed``: files in, an archive of vectors out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from command_line import run

import spectrim.inference.embed
from spectrim.assets import packaged_clips
from spectrim.files import SoleWriter
from spectrim.inference.embed import embed_files


def test_files_to_vectors(tmp_path: Path) -> None:
    clips = [str(path) for path, _ in packaged_clips()[:2]]
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    out = tmp_path / "v.npz"
    code, printed, said = run("embed", *clips, "--keep-rate", "0.7", "-o", out)
    assert (code, printed) == (0, "") and f"2 vectors of 2 files are in {out}" in said.replace("\n", "")
    with np.load(out) as found:
        assert found["files"].tolist() == clips
        expected = [embedding.vectors for embedding in embed_files(clips, keep_rate=0.7)]
        np.testing.assert_allclose(found["vectors"], np.concatenate(expected), atol=1e-5)
    code, _, said = run("embed", clips[0], tmp_path / "bad.wav", tmp_path / "no.wav", "-o", out)
    assert code == 1 and "2 of 3 files could not be heard" in said and "bad.wav" in said
    with np.load(out) as found:
        assert found["errors"][0] == "" and all(found["errors"][1:]) and len(found["vectors"]) == 1


def test_what_is_to_be_said_of_a_file_is_said(tmp_path: Path) -> None:
    left = 0.1 * np.random.default_rng(0).standard_normal(16000)
    soundfile.write(tmp_path / "a.wav", np.stack([left, -left], axis=1), 16000, subtype="FLOAT")
    code, _, said = run("embed", packaged_clips()[0][0], tmp_path / "a.wav", "-o", tmp_path / "v.npz")
    note = "its channels cancel out in the mix-down to mono, to exact zeros, for 1.00 of 1.00 s"
    assert code == 0 and f"spectrim: {tmp_path}/a.wav: {note}\n" in said
    with np.load(tmp_path / "v.npz") as found:
        assert found["notes"].tolist() == ["", note]


def test_outputs_that_cannot_be(tmp_path: Path) -> None:
    clip = packaged_clips()[0][0]
    for name in ("v.csv", "nowhere/v.npz", "."):
        code, _, said = run("embed", clip, "-o", tmp_path / name)
        assert code == 2 and "output is" in said
    writer = SoleWriter(tmp_path / "v.npz")
    code, _, said = run("embed", clip, "-o", tmp_path / "v.npz")
    assert code == 2 and "no other run" in said and not (tmp_path / "v.npz").exists()
    writer.end()


def test_an_interrupted_run_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> object:
        yield from list(embed_files([packaged_clips()[0][0]]))
        raise KeyboardInterrupt

    monkeypatch.setattr(spectrim.inference.embed, "embed_files", interrupted)
    code, _, said = run("embed", packaged_clips()[0][0], packaged_clips()[1][0], "-o", tmp_path / "v.npz")
    assert code == 130 and "interrupted after 1 of 2 files" in said
    assert not (tmp_path / "v.npz").exists() and not (tmp_path / "v.npz.partial").exists()
