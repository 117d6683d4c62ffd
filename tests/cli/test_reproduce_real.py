"""``spectrim reproduce --scale real`` from clips to report: one fold of two speakers, a few steps of a small model.

The commands of its plan run in this process, which starts none: that they run as processes is tested with the runner.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from spectrim.backbones import ast_base
from spectrim.checkpoints import from_pretrained
from spectrim.cli.app import app
from spectrim.network.transformer import AudioTransformer
from spectrim.studies import recordings, sounds
from spectrim.studies.recordings_analysis import QUANTITIES
from spectrim.studies.runner import Step
from spectrim.tables import csv_text

WORDS = ("no", "yes")
PARTS = ("test", "validation", "train", "train", "train")
SMALL = (
    *("optimiser.epochs=3", "pruning.shrink_start=2", "pruning.shrink_epochs=0", "schedule.warmup_epochs=0"),
    *("evaluation.first_epoch=3", "evaluation.every_epochs=1", "tensorboard=false"),
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten speakers, of whom each fold has two, say two words twice: tones of their own."""
    root, rows = tmp_path_factory.mktemp("recordings"), []
    (root / "clips").mkdir()
    generator = np.random.default_rng(0)
    for speaker in range(10):
        for number, word in enumerate(WORDS):
            for turn in range(2):
                path = f"clips/{word}-{speaker}-{turn}.wav"
                tone = np.sin(2 * np.pi * (300 + 900 * number + 30 * speaker) * np.arange(8000) / 16000)
                soundfile.write(root / path, 0.3 * tone + 0.02 * generator.standard_normal(8000), 16000)
                rows.append((path, word, PARTS[speaker // 2], f"{speaker:02d}"))
    (root / "labels.csv").write_text(csv_text([("path", "label", "split", "speaker"), *rows]))
    return root


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What is run, in this process; a small model to start from, and a short course."""
    start = tmp_path / "start"
    size = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "max_length": 64}
    AudioTransformer(ast_base(num_labels=3, **size)).save_pretrained(start)
    names: list[str] = []

    def run_here(step: Step, out: Path, *_: Any) -> int:
        names.append(step.name)
        with contextlib.chdir(out):
            result = CliRunner().invoke(app, list(step.arguments))
        (out / "logs" / f"{len(names)}.log").write_text(result.output)
        return result.exit_code

    monkeypatch.setitem(recordings.STARTS, "ast", str(start))
    planned = recordings.recordings_plan
    monkeypatch.setattr(
        recordings,
        "recordings_plan",
        lambda *given, changes, **named: planned(*given, changes=(*SMALL, *changes), **named),
    )
    also = sounds.with_sounds
    short = (*SMALL, "model.fields.max_length=64", "optimiser.batch_size=4")
    monkeypatch.setattr(
        sounds, "with_sounds", lambda *given, changes, **named: also(*given, changes=(*short, *changes), **named)
    )
    monkeypatch.setattr(sounds, "SOUND_SEEDS", (0,))
    for place in ("recordings", "recordings_runs"):
        monkeypatch.setattr(f"spectrim.studies.{place}.BLOCKS", (3,))
    monkeypatch.setattr("spectrim.studies.runner._run_step", run_here)
    monkeypatch.setattr("spectrim.training.run_pictures.draw_run", lambda folder: [])  # tested elsewhere, and slow
    monkeypatch.setattr("spectrim.pictures.per_class.save_label_figures", lambda *given, **named: [])
    yield names


def run(*arguments: object) -> Any:
    result = CliRunner().invoke(app, ["reproduce", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_fold_from_clips_to_the_report(data: Path, commands: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    real = (out, "--scale", "real", "--data", data)
    assert run(*real, "--folds", 0, "--stages", 1).exit_code == 0, list((out / "logs").glob("*"))
    assert [name.removeprefix("asc-ast fold 0 seed 0 ") for name in commands] == [
        "trunk",
        *(f"{arm}{end}" for arm in ("r=0.999", "r=0.7", "r=0.3-random", "r=0.5") for end in ("", " test")),
        "r=0.999 remedies",
        "r=0.999 later",
        *(f"{arm} analysis{end}" for arm in ("r=0.999", "r=0.7") for end in ("", " with padding")),
        "r=0.999 block 3",
        "r=0.7 block 3",
    ]
    result = run(*real, "--folds", 0, "--stages", 1, "--threads", 1)
    assert result.exit_code == 0
    assert result.stdout.strip() == str(out / "report.html")
    assert len(commands) == len(set(commands)) == 17
    runs = out / "runs" / "asc-ast" / "fold0-seed0"
    weights = {name: from_pretrained(runs / name / "model").state_dict() for name in ("trunk", "r0.999", "r0.7")}
    assert any(not np.array_equal(weights["r0.7"][name], value) for name, value in weights["r0.999"].items())
    text = (out / "report.md").read_text()
    assert "| 1. AST: control, attention 0.7 and 0.5, random 0.3 | in part | 4 of 20 | 0 |" in text
    assert "--data DIR --backbones ast --stages 1 --folds 0\n" in text, text[:3000]
    assert "| lost to control, points | without fold 0 |" in text
    assert "an answer takes 4" in text and "* Stage 1, AST, fold 4: r=0.999, r=0.7, r=0.5, r=0.3-random" in text
    assert "| block | attention | random | intensity | variation | strongest patch, % | correlation with" in text
    assert "\n| 3 | " in text
    alone = json.loads((runs / "r0.999-block3" / "results.json").read_text())
    assert alone["facts"]["prune_at"] == [3]
    assert [(row["method"], row["keep_rate"]) for row in alone["rows"][1:3]] == [("attention", 0.7), ("random", 0.7)]
    lines = (out / "speakers.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * (4 + 16 + 20 + 6)
    assert "### AST: where in depth, fine-tuned by attention at 0.7" in text
    analysed = (out / "analysis.csv").read_text().splitlines()
    assert len(analysed) == 1 + 2 * 2 * 2 * len(QUANTITIES)
    # On a machine without the runs, their report's tables stand for them.
    elsewhere = (tmp_path / "elsewhere", "--scale", "real", "--data", data, "--report-only")
    elsewhere[0].mkdir()
    assert run(*elsewhere, "--earlier", out).exit_code == 0
    for name in ("report.md", "speakers.csv", "runs.csv", "depth.csv", "analysis.csv"):
        assert (elsewhere[0] / name).read_text() == (out / name).read_text()
    assert run(*real, "--report-only").exit_code == 0
    assert len(commands) == 17
    assert run(out).exit_code == 2


def test_sounds_from_clips_to_the_report(data: Path, commands: list[str], tmp_path: Path) -> None:
    esc10, out = tmp_path / "esc-10", tmp_path / "out"
    (esc10 / "audio").mkdir(parents=True)
    generator, rows = np.random.default_rng(0), []
    for fold in range(1, 6):
        for number, label in enumerate("abcdefghij"):
            for take in "AB":
                path = f"audio/{fold}-{number}0{fold}-{take}-{number}.wav"
                wave = np.sin(2 * np.pi * 350 * (number + 1) * np.arange(16000) / 16000)
                soundfile.write(esc10 / path, 0.3 * wave + 0.05 * generator.standard_normal(16000), 16000)
                rows.append((path, label, fold))
    (esc10 / "labels.csv").write_text(csv_text([("path", "label", "fold"), *rows]))
    words = (out, "--scale", "real", "--data", data, "--sounds", esc10, "--stages", 6)
    assert run(*words, "--folds", 4).exit_code == 0, list((out / "logs").glob("*"))
    assert [name.removeprefix("esc10-ast fold 5 seed 0 ") for name in commands] == [
        "trunk",
        *(f"{arm}{end}" for arm in ("r=0.999", "r=0.7", "r=0.5", "r=0.3-random") for end in ("", " test")),
    ]
    text = (out / "report.md").read_text()
    assert "## ESC-10" in text and "points lost at r = 0.7 by attention, fine-tuned? cannot say" in text
    assert "10 originals in 1 fold)" in text
    assert "* ESC-10, seed 0: not whole in folds 1, 2, 3, 4" in text
    assert "* Stage 1, AST: not run, in any fold" in text
    assert len((out / "sounds.csv").read_text().splitlines()) == 1 + 10 * (4 + 16)
    assert "| 6. ESC-10: control, attention 0.7 and 0.5, random 0.3 | in part | 4 of 20 | 5 |" in text
    assert "runs/esc10-ast/fold5-seed0/r0.7 |" in text
    assert run(*words, "--report-only").exit_code == 0
    assert len(commands) == 9
    (out / "sounds" / "labels.csv").rename(out / "kept.csv")
    result = run(*words, "--report-only")
    assert result.exit_code == 1 and "sounds/labels.csv: cannot be read" in result.stderr.replace("\n", "")
    (out / "kept.csv").rename(out / "sounds" / "labels.csv")
    (esc10 / "labels.csv").write_text(csv_text([("path", "label", "fold"), *reversed(rows)]))
    result = run(*words)
    assert result.exit_code == 2 and "sounds that the study" in result.stderr.replace("\n", " ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--sounds", "."), "only with --scale real"),
        (
            ("--scale", "real", "--data", "DATA", "--stages", "6"),
            "sounds is None; allowed: a folder of ESC-10, for stage 6",
        ),
        (("--scale", "real", "--data", "DATA", "--sounds", "nowhere"), "nowhere is no ESC-10: it lacks meta/esc50.csv"),
        (("--scale", "real"), "data is None"),
        (("--precision", "bf16"), "only with --scale real"),
        (("--earlier", "."), "only with --scale real"),
        (("--scale", "real", "--data", "DATA", "--earlier", "nowhere"), "nowhere/speakers.csv: cannot be read"),
        (("--scale", "real", "--data", "DATA", "--precision", "half"), "optimiser.precision is 'half'"),
        (("--data", "."), "only with --scale real"),
        (("--folds", "1"), "only with --scale real"),
        (("--scale", "real", "--data", "nowhere"), "it lacks labels.csv"),
        (
            ("--scale", "real", "--data", "DATA", "--stages", "9"),
            "stages is 9; allowed: some of 1, 2, 3, 4, 5, 6, 7, 8",
        ),
        (
            ("--scale", "real", "--data", "DATA", "--stages", "6", "--sounds", ".", "--backbones", "audiomae"),
            "backbones is 'audiomae'; allowed: ast among them, for stage 6",
        ),
        (("--scale", "real", "--data", "DATA", "--study", "rankings"), "none with --scale real"),
        (("--scale", "real", "--data", "DATA", "--quick"), "only with --scale mini"),
    ],
)
def test_what_does_not_go_together_is_refused(words: tuple[str, ...], message: str, data: Path, tmp_path: Path) -> None:
    result = run(tmp_path / "out", *(str(data) if word == "DATA" else word for word in words))
    assert result.exit_code != 0
    assert message in result.stderr.replace("\n", " ")
    assert not os.path.exists(tmp_path / "out")  # noqa: PTH110
