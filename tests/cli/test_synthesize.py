from __future__ import annotations

from pathlib import Path
from typing import Any

import command_line
import pytest

from spectrim.cli.data import MINIATURES
from spectrim.miniatures import sound_sets as synthetic_sounds


def run(*arguments: object) -> tuple[int, str, str]:
    code, out, err = command_line.run("data", "synthesize", *arguments)
    return code, out, " ".join(err.split())


def test_it_makes_a_miniature_and_prints_where_it_is(tmp_path: Path) -> None:
    out = tmp_path / "audioset"
    pytest.importorskip("espeakng_loader")
    code, printed, _ = run("audioset", out, "--clips", 2, "--test-clips", 1, "--seed", 3, "--workers", 1)
    assert (code, printed) == (0, f"{out}\n")
    assert len(list(out.glob("audio/*.wav"))) == 3
    code, _, complaint = run("audioset", out, "--clips", 2)
    assert code == 2
    assert "out is" in complaint


@pytest.mark.parametrize("name", MINIATURES)
def test_numbers_are_passed_on_and_else_left_to_the_maker(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Any] = {}

    def make(out: Path, *, clips: int = 12, seed: int, workers: int | None, progress: Any) -> Path:
        seen.update(out=out, clips=clips, seed=seed, workers=workers)
        return out

    module, function = MINIATURES[name]
    __import__(module)
    monkeypatch.setattr(f"{module}.{function}", make)
    assert run(name, tmp_path / "a")[0] == 0
    assert seen == {"out": tmp_path / "a", "clips": 12, "seed": 0, "workers": None}
    assert run(name, tmp_path / "b", "--clips", 99, "--seed", 5, "--workers", 3)[0] == 0
    assert seen == {"out": tmp_path / "b", "clips": 99, "seed": 5, "workers": 3}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["everything"], "name is 'everything'; allowed: one of audioset, esc50, spoken-commands, voxceleb1"),
        (["esc50", "--clips", "40"], "clips is 40; allowed: a multiple of 250"),
        (["esc50", "--test-clips", "40"], "test_clips is 40; allowed: no value, since esc50 has no such number"),
        (["audioset", "--validation-clips", "40"], "validation_clips is 40; allowed: no value, since audioset"),
        (["audioset", "--test-clips", "-1"], "test_clips is -1; allowed: 0 or more"),
        (["voxceleb1", "--clips", "100"], "clips is 100; allowed: 267 or more"),
        (["spoken-commands", "--workers", "0"], "workers is 0; allowed: 1 or more"),
        (["esc50", "--seed", "-2"], "seed is -2; allowed: 0 or more"),
    ],
)
def test_wrong_use_is_refused_before_any_work(arguments: list[str], complaint: str, tmp_path: Path) -> None:
    name, *options = arguments
    code, printed, said = run(name, tmp_path / "out", *options)
    assert (code, printed) == (2, "")
    assert complaint in said
    assert list(tmp_path.iterdir()) == []


def test_progress_reaches_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[int, int]] = []

    def make(out: Path, *, seed: int, workers: int | None, progress: Any) -> Path:
        progress(1, 2)
        progress(2, 2)
        told.append((2, 2))
        return out

    monkeypatch.setattr(synthetic_sounds, "synthesize_esc50", make)
    code, printed, said = run("esc50", tmp_path / "x", "--progress")
    assert (code, printed) == (0, f"{tmp_path / 'x'}\n")
    assert told == [(2, 2)]
    assert "clips" in said
    assert "100%" in said
