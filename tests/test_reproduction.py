from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from spectrim.counting import macs
from spectrim.errors import InvalidSetting
from spectrim.recipe import load_recipe
from spectrim.reproduction import (
    FULL_WEIGHTS,
    MINI,
    QUICK,
    Cell,
    Failed,
    Step,
    collect,
    full_plan,
    miniature_plan,
    missing_inputs,
    run_plan,
    training_macs,
    write_rows,
)


@pytest.mark.parametrize("size", [MINI, QUICK])
def test_every_step_of_the_miniature_comes_after_what_it_needs(size: object, tmp_path: Path) -> None:
    steps = miniature_plan(tmp_path, size)
    before: set[str] = set()
    for step in steps:
        assert set(step.needs) <= before, step.name
        before.add(step.name)
    assert len(before) == len(steps)
    assert missing_inputs(steps) == []
    assert len({step.done for step in steps}) == len(steps)


def test_the_commands_of_the_miniature_load_their_recipes(tmp_path: Path) -> None:
    for step in miniature_plan(tmp_path, QUICK):
        words = shlex.split(step.command)
        if words[1] == "train":
            changes = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
            recipe = load_recipe(words[2], changes)
            assert step.cell is None or recipe.pruning.keep_rate == step.cell.keep_rate


def test_the_full_plan_holds_the_papers_runs_and_names_what_is_missing(tmp_path: Path) -> None:
    steps = full_plan(tmp_path / "out", tmp_path / "data", tmp_path / "weights")
    cells = [step.cell for step in steps if step.cell is not None]
    assert len({cell.recipe for cell in cells}) == 7
    assert sum(cell.data == "esc50" for cell in cells) == 2 * 5 * 5 * 8
    assert sum(cell.data == "voxceleb1" for cell in cells) == 8
    missing = missing_inputs(steps)
    assert {tmp_path / "weights" / name for name in FULL_WEIGHTS.values()} <= set(missing)
    with pytest.raises(InvalidSetting, match=r"inputs is .*ESC-50-master"):
        run_plan(steps, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_cost_is_three_forward_passes_a_clip_at_the_keep_rate_of_the_moment() -> None:
    recipe = load_recipe("ast-esc50", ["pruning.keep_rate=0.5"])
    config = build_model_config()
    dense, pruned = macs(config, keep_rate=1.0).executed, macs(config, keep_rate=0.5).executed
    assert training_macs(recipe, (1600, 50), 0.0, 5.0) == pytest.approx(3 * 1600 * 5 * dense, rel=1e-6)
    assert training_macs(recipe, (1600, 50), 20.0, 30.0) == pytest.approx(3 * 1600 * 10 * pruned, rel=1e-6)
    assert pruned * 3 * 1600 * 15 < training_macs(recipe, (1600, 50), 5.0, 20.0) < dense * 3 * 1600 * 15
    assert training_macs(recipe, None, 0.0, 5.0) is None


def build_model_config() -> object:
    from spectrim.config import ast_base

    return ast_base(max_length=512, num_labels=50)


def python_step(name: str, out: Path, code: str, needs: tuple[str, ...] = ()) -> Step:
    return Step(name, ("-c", code), out / name, needs)


@pytest.fixture
def plain_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Steps run ``python -c CODE`` instead of Spectrim."""
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nshift 2\nexec {sys.executable} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr("spectrim.reproduction.sys.executable", str(script))


def touch(path: Path) -> str:
    return f"import pathlib; pathlib.Path({str(path)!r}).touch()"


@pytest.mark.usefixtures("plain_python")
def test_a_plan_runs_in_order_and_skips_what_is_done(tmp_path: Path) -> None:
    second = f"import pathlib; assert pathlib.Path({str(tmp_path / 'a')!r}).exists(); {touch(tmp_path / 'b')}"
    steps = [python_step("b", tmp_path, second, ("a",)), python_step("a", tmp_path, touch(tmp_path / "a"))]
    told: list[str] = []
    run_plan(steps, tmp_path, jobs=2, tell=told.append)
    assert [line.split(": ")[1] for line in told if "done" in line] == ["a", "b"]
    told.clear()
    run_plan(steps, tmp_path, tell=told.append)
    assert told == []


@pytest.mark.usefixtures("plain_python")
def test_a_failing_step_is_named_with_its_log(tmp_path: Path) -> None:
    steps = [python_step("a", tmp_path, "raise SystemExit('no sound')"), python_step("b", tmp_path, "", ("a",))]
    with pytest.raises(Failed, match=r"a ended with 1; its log: .*a\.log"):
        run_plan(steps, tmp_path)
    assert "no sound" in (tmp_path / "logs" / "a.log").read_text()


@pytest.mark.usefixtures("plain_python")
def test_a_step_that_leaves_nothing_has_failed(tmp_path: Path) -> None:
    with pytest.raises(Failed, match="a ended with 0"):
        run_plan([python_step("a", tmp_path, "")], tmp_path)


def test_jobs_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="jobs is 0"):
        run_plan([], tmp_path, jobs=0)


def test_finished_cells_become_rows(tmp_path: Path) -> None:
    folder = tmp_path / "r0.7"
    (folder / "model").mkdir(parents=True)
    config = build_model_config()
    config.save_pretrained(folder / "model")
    results = {"metric": "accuracy", "test_clips": 40, "test": {"0.7": 0.9}}
    (folder / "results.json").write_text(json.dumps(results))
    done = Step("x", ("train",), folder / "results.json", cell=Cell("ast", "esc50", "r", 12, 1, 0.7, folder))
    waiting = Step("y", ("train",), tmp_path / "none", cell=Cell("ast", "esc50", "r", 12, 1, 0.5, tmp_path / "n"))
    rows = collect([done, waiting])
    assert len(rows) == 1
    assert rows[0]["value"] == 0.9
    assert rows[0]["paper_macs"] == macs(config, keep_rate=0.7).paper
    write_rows(rows, [done, waiting], tmp_path)
    written = json.loads((tmp_path / "rows.json").read_text())
    assert [step["done"] for step in written["steps"].values()] == [True, False]
