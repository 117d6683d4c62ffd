from __future__ import annotations

import csv
import io
import json
import os
from functools import partial
from pathlib import Path

import command_line
import numpy as np
import pytest
import soundfile
import torch

from spectrim.audio.feature_extractor import SpectrimFeatureExtractor
from spectrim.backbones import ast_base
from spectrim.network.transformer import AudioTransformer

run = partial(command_line.run, "explain")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    torch.manual_seed(0)
    config = ast_base(
        hidden_size=32,
        num_attention_heads=2,
        intermediate_size=64,
        num_hidden_layers=3,
        prune_at=[1],
        max_length=128,
        mean=-9.0,
        std=5.0,
        num_labels=3,
        problem_type="single_label_classification",
    )
    folder = tmp_path_factory.mktemp("model")
    AudioTransformer(config).save_pretrained(folder)
    SpectrimFeatureExtractor.from_config(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    soundfile.write("clip.wav", 0.2 * np.random.default_rng(0).standard_normal(40000), 16000)
    return "clip.wav"


def test_table(clip: str, checkpoint: str) -> None:
    code, out, err = run(clip, "--model", checkpoint, "--keep-rate", 0.5, "--windows", 1, "--device", "cpu")
    assert (code, err) == (0, "")
    content = json.loads(Path("spectrim-explain/explain.json").read_text())
    lines = out.splitlines()
    assert lines[0].split() == ["label", "dense", "pruned"]
    best = content["labels"][0]
    assert lines[1].split() == [best["label"], f"{best['dense']:.3f}", f"{best['pruned']:.3f}"]
    assert "after block 1: 64 of 128 patches kept" in lines
    assert f"energy kept: {content['sound']['kept_energy']:.1%}" in lines
    named = [line for line in lines if line.startswith("spectrim-explain")]
    assert len(named) == len(content["files"]) == 8
    assert all(Path(line).is_file() for line in named)


def test_what_is_to_be_said_of_a_clip_is_said(clip: str, checkpoint: str) -> None:
    left, right = 0.2 * np.random.default_rng(0).standard_normal((2, 40000))
    right[:20000] = -left[:20000]
    soundfile.write(clip, np.stack([left, right], axis=1), 16000, subtype="FLOAT")
    code, _, err = run(clip, "--model", checkpoint, "--windows", 1, "-o", "out")
    note = "its channels cancel out in the mix-down to mono, to exact zeros, for 1.02 of 2.50 s"
    assert (code, err) == (0, f"spectrim: {clip}: {note}\n")
    assert json.loads(Path("out/explain.json").read_text())["note"] == note
    assert f"Of this clip: {note}." in Path("out/stages.html").read_text()


@pytest.mark.parametrize("form", ["json", "csv"])
def test_forms(clip: str, checkpoint: str, form: str) -> None:
    options = ["--model", checkpoint, "--keep-rate", 0.5, "--windows", 0, "-o", "out", "--format", form]
    code, out, _ = run(clip, *options)
    assert code == 0
    content = json.loads(Path("out/explain.json").read_text())
    if form == "json":
        assert json.loads(out) == content
    else:
        rows = list(csv.DictReader(io.StringIO(out)))
        assert [float(row["pruned"]) for row in rows] == [one["pruned"] for one in content["labels"]]
        assert rows[0]["clip"] == clip


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["clip.wav", "other.wav"], 2, "CLIP is 'clip.wav other.wav'; allowed: one file"),
        (["clip.wav", "--keep-rate", "1.5"], 2, "keep_rate is 1.5; allowed: a number in (0, 1]"),
        (["clip.wav", "--output", "clip.wav"], 2, "output is 'clip.wav'; allowed: another name: that file is read"),
        (["clip.wav", "--format", "xml"], 2, "format is 'xml'"),
        (["none.wav"], 1, "none.wav: no such file"),
        (["."], 1, "is a folder"),
    ],
)
def test_wrong_use(clip: str, checkpoint: str, arguments: list[str], code: int, message: str) -> None:
    found, out, err = run(*arguments, "--model", checkpoint)
    assert (found, out) == (code, "")
    assert message in " ".join(err.split())
    assert err.count("\n") == 1
    assert not Path("spectrim-explain").exists()


def test_a_clip_and_a_folder_whose_names_are_not_utf8(clip: str, checkpoint: str) -> None:
    odd, out = os.fsdecode(b"clip\xe9.wav"), os.fsdecode(b"out\xe9")
    Path(clip).rename(odd)
    code, rows, _ = run(odd, "--model", checkpoint, "--keep-rate", 0.5, "-o", out, "--format", "csv")
    assert code == 0
    assert {row["clip"] for row in command_line.rows_of(rows)} == {"clip\\xe9.wav"}
    assert "clip\\xe9.wav" in Path(out, "stages.html").read_text()
    assert soundfile.info(os.fsencode(f"{out}/kept.wav")).frames == 40000


def test_progress(clip: str, checkpoint: str) -> None:
    _, _, err = run(clip, "--model", checkpoint, "--windows", 0, "--progress")
    assert "write" in err
