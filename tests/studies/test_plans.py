from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from spectrim.backbones import ast_base
from spectrim.config import SpectrimConfig
from spectrim.errors import DataError, InvalidSetting
from spectrim.miniatures.sound_sets import ESC50_STEP
from spectrim.network.macs import macs
from spectrim.studies.branches import training_free, training_macs
from spectrim.studies.plans import (
    FULL_WEIGHTS,
    MINI,
    QUICK,
    Miniature,
    check_folder,
    claim_folder,
    full_plan,
    full_rankings_plan,
    miniature_plan,
    miniature_rankings_plan,
    study_plan,
)
from spectrim.studies.report import collect, plan_rows, report_folder, write_report
from spectrim.studies.runner import Cell, Step, missing_inputs, run_plan
from spectrim.training.recipe_files import load_recipe

FOLDS = ((1, 12), (2, 34), (3, 56))


@pytest.mark.parametrize("plan", [miniature_plan, miniature_rankings_plan])
@pytest.mark.parametrize("size", [MINI, QUICK])
def test_every_step_of_the_miniature_comes_after_what_it_needs(
    size: Miniature, plan: Callable[[Path, Miniature], list[Step]], tmp_path: Path
) -> None:
    steps = plan(tmp_path, size)
    before: set[str] = set()
    for step in steps:
        assert set(step.needs) <= before, step.name
        before.add(step.name)
    assert len(before) == len(steps)
    assert missing_inputs(steps) == []
    assert len({step.done for step in steps}) == len(steps)
    assert size.esc50_clips % ESC50_STEP == 0
    costs = {step.name: step.macs for step in steps}
    words = ["data spoken-commands"] if plan is miniature_plan else []
    uncounted = ["data audioset", "data esc50", *words, "pretrain audiomae"]
    if plan is miniature_rankings_plan:
        runs = [f"{fold} seed {seed}" for fold, seed in size.esc50_runs]
        uncounted += [f"{one}-esc50-mini fold {run} r=1 training-free" for one in ("ast", "audiomae") for run in runs]
    assert [name for name, cost in costs.items() if cost is None] == uncounted


def test_both_studies_have_the_same_steps_where_they_share_them(tmp_path: Path) -> None:
    rates, rankings = (
        {step.name: step for step in plan(tmp_path, MINI)} for plan in (miniature_plan, miniature_rankings_plan)
    )
    runs = [
        f"{backbone}-esc50-mini fold {fold} seed {seed}" for backbone in ("ast", "audiomae") for fold, seed in FOLDS
    ]
    shared = [f"{run} {end}" for run in runs for end in ("trunk", "r=1", "r=0.999", "r=0.7")]
    assert set(rates) & set(rankings) == {
        *("data audioset", "data esc50", "pretrain ast", "pretrain audiomae", *shared)
    }
    assert all(rates[name] == rankings[name] for name in set(rates) & set(rankings))
    own = ["r=0.7-intensity", "r=0.7-variation", "r=0.7-random", "r=0.7-intensity-public-gather"]
    own.append("r=1 training-free")
    assert set(rankings) - set(rates) == {f"{run} {end}" for run in runs for end in own}
    cells = [step.cell for step in rankings.values() if step.cell is not None and step.cell.data == "esc50"]
    assert [cell.backbone for cell in cells] == ["ast"] * 21 + ["audiomae"] * 21 + ["ast"] * 3 + ["audiomae"] * 3
    for begin in (0, 21):
        assert [cell.keep_rate for cell in cells[begin : begin + 21]] == [0.7] * 15 + [1.0, 0.999] * 3


def test_the_commands_of_the_rankings_train_what_their_cells_say(tmp_path: Path) -> None:
    size = replace(QUICK, ranking_rates=(0.7, 0.5))
    found = {}
    for step in miniature_rankings_plan(tmp_path, size):
        if step.cell is None or step.cell.recipe != "ast-esc50-mini" or step.cell.training_free:
            continue
        words = shlex.split(step.command)
        recipe = load_recipe(words[2], [words[place + 1] for place, word in enumerate(words) if word == "--set"])
        pruning = recipe.pruning
        found[step.cell.keep_rate, step.cell.ranking] = (pruning.keep_rate, pruning.criterion, pruning.reference_compat)
        assert tmp_path / words[words.index("--output") + 1] == step.cell.folder
    assert found == {
        (1.0, "attention"): (1.0, "auto", False),
        (0.999, "attention"): (0.999, "auto", False),
        (0.7, "attention"): (0.7, "auto", False),
        (0.7, "intensity"): (0.7, "intensity", False),
        (0.7, "variation"): (0.7, "variation", False),
        (0.7, "random"): (0.7, "random", False),
        (0.7, "intensity, public gather"): (0.7, "intensity", True),
        (0.5, "attention"): (0.5, "auto", False),
        (0.5, "intensity"): (0.5, "intensity", False),
        (0.5, "random"): (0.5, "random", False),
    }


def test_the_dense_models_are_pruned_without_training_at_the_rates_of_the_rankings(tmp_path: Path) -> None:
    steps = miniature_rankings_plan(tmp_path, replace(QUICK, ranking_rates=(0.7, 0.5)))
    step = next(step for step in steps if step.cell is not None and step.cell.training_free)
    dense = next(one for one in steps if one.name == "ast-esc50-mini fold 1 seed 12 r=1")
    assert step.needs == (dense.name,)
    assert step.cell is not None and dense.cell is not None
    assert step.cell.folder == dense.cell.folder == dense.done.parent
    words = step.arguments
    assert words[:5] == ("analyze", "--model", "runs/ast-esc50-mini/fold1-seed12/r1/model", "--dataset", "esc50")
    assert (words[words.index("--set") + 1], words[words.index("--keep-rates") + 1]) == ("fold=1", "0.7,0.5")
    assert tmp_path / words[words.index("--output") + 1] == step.done.parent
    with pytest.raises(InvalidSetting, match="dense is 'data audioset'"):
        training_free(steps[0], tmp_path, [0.7])


def test_an_analysis_becomes_a_row_a_ranking_and_keep_rate(tmp_path: Path) -> None:
    config = ast_base(max_length=512, num_labels=50, hidden_size=64, num_attention_heads=4, intermediate_size=256)
    cell = Cell("ast", "esc50", "ast-esc50-mini", 12, 1, 1.0, tmp_path / "r1")
    dense = finished(tmp_path / "r1", config, cell, **{"r1.0": 0.6})
    found = [
        {"ablation": "dense", "criterion": None, "keep_rate": 1.0, "value": 0.6},
        {"ablation": "criterion", "criterion": "random", "keep_rate": 0.5, "value": 0.4},
        {"ablation": "criterion", "criterion": "intensity, public gather", "keep_rate": 0.5, "value": 0.1},
        {"ablation": "clusters", "criterion": None, "keep_rate": 1.0, "value": 0.5},
    ]
    (tmp_path / "statistics.json").write_text(json.dumps({"ablations": found}))
    step = Step("free", ("analyze",), tmp_path / "statistics.json", cell=replace(cell, training_free=True))
    first, *rows = collect([dense, step])
    assert first["ranking"] == "attention"
    assert [(row["ranking"], row["keep_rate"], row["trained_keep_rate"], row["value"]) for row in rows] == [
        ("random", 0.5, 1.0, 0.4),
        ("intensity, public gather", 0.5, 1.0, 0.1),
    ]
    assert rows[0]["test_clips"] == 40
    config.criterion = "random"
    assert rows[0]["executed_macs"] == macs(config, keep_rate=0.5).executed
    config.criterion, config.reference_compat = "intensity", True
    assert rows[1]["executed_macs"] == macs(config, keep_rate=0.5).executed < rows[0]["executed_macs"]


def test_the_full_study_of_rankings_has_the_papers_esc50_runs(tmp_path: Path) -> None:
    places = (tmp_path / "out", tmp_path / "data", tmp_path / "weights")
    rates, rankings = ({step.name: step for step in plan(*places)} for plan in (full_plan, full_rankings_plan))
    cells = [step.cell for step in rankings.values() if step.cell is not None]
    assert len(cells) == 2 * 5 * 5 * (7 + 1)
    assert {cell.recipe for cell in cells} == {"ast-esc50", "audiomae-esc50"}
    common = set(rates) & set(rankings)
    assert len(common) == 2 * 5 * 5 * 3
    assert all(rates[name] == rankings[name] for name in common)


def test_a_study_that_there_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"study is 'ranks'; allowed: one of keep-rates, rankings"):
        study_plan("ranks", tmp_path)


def test_commands_of_the_miniature_do_not_depend_on_where_it_lies(tmp_path: Path) -> None:
    commands = [[step.command for step in miniature_plan(tmp_path / name, QUICK)] for name in ("a", "b")]
    assert commands[0] == commands[1]


def test_a_folder_that_a_synthesis_did_not_finish_is_not_done(tmp_path: Path) -> None:
    (tmp_path / "data" / "esc50" / "audio").mkdir(parents=True)
    step = next(step for step in miniature_plan(tmp_path, QUICK) if step.name == "data esc50")
    assert not step.done.exists()
    (tmp_path / "data" / "esc50" / "synthesis.json").touch()
    assert step.done.exists()


def test_branches_share_a_beginning_that_ends_where_the_keep_rate_begins_to_fall(tmp_path: Path) -> None:
    steps = {step.name: step for step in miniature_plan(tmp_path, MINI)}
    trunk, branch = steps["ast-esc50-mini fold 1 seed 12 trunk"], steps["ast-esc50-mini fold 1 seed 12 r=0.7"]
    start = load_recipe("ast-esc50-mini").pruning.shrink_start
    assert f"optimiser.stop_after_epochs={start:g}" in trunk.arguments
    assert branch.needs == (trunk.name,)
    place = branch.arguments.index("--branch-of")
    assert tmp_path / branch.arguments[place + 1] / "results.json" == trunk.done


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
    with pytest.raises(DataError, match=r"not there: .*ESC-50-master"):
        run_plan(steps, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    lacking = next(row for row in plan_rows(steps) if row["step"] == "audiomae-vox1 seed 12 r=0.5")
    assert lacking["missing"] == [str(tmp_path / "data" / "voxceleb1"), str(tmp_path / "weights" / "pretrained.pth")]


def test_the_cost_is_three_forward_passes_a_clip_at_the_keep_rate_of_the_moment() -> None:
    recipe = load_recipe("ast-esc50", ["pruning.keep_rate=0.5"])
    config = ast_base(max_length=512, num_labels=50)
    dense, pruned = macs(config, keep_rate=1.0).executed, macs(config, keep_rate=0.5).executed
    start, length = recipe.pruning.shrink_start, recipe.pruning.shrink_epochs
    end = start + length
    assert training_macs(recipe, (1600, 50), 0.0, start) == pytest.approx(3 * 1600 * start * dense, rel=1e-6)
    assert training_macs(recipe, (1600, 50), end, 30.0) == pytest.approx(3 * 1600 * (30 - end) * pruned, rel=1e-6)
    assert pruned * 3 * 1600 * length < training_macs(recipe, (1600, 50), start, end) < dense * 3 * 1600 * length
    assert training_macs(recipe, None, 0.0, 5.0) is None


def finished(folder: Path, config: SpectrimConfig, cell: Cell, **test: float) -> Step:
    """A step whose run is on disk as `spectrim.training.finetune.train` leaves it, as far as a study reads it."""
    config.save_pretrained(folder / "model")
    values = {rate.removeprefix("r"): value for rate, value in test.items()}
    results = {"metric": "accuracy", "training_clips": 160, "test_clips": 40, "test": values}
    (folder / "results.json").write_text(json.dumps(results))
    return Step(f"r={cell.keep_rate:g}", ("train",), folder / "results.json", cell=cell)


def test_finished_cells_become_rows(tmp_path: Path) -> None:
    config = ast_base(max_length=512, num_labels=50, hidden_size=64, num_attention_heads=4, intermediate_size=256)
    cell = Cell("ast", "esc50", "ast-esc50-mini", 12, 1, 0.7, tmp_path / "r0.7")
    done = finished(tmp_path / "r0.7", config, cell, **{"r0.7": 0.9})
    waiting = Step("y", ("train",), tmp_path / "none", cell=Cell("ast", "esc50", "r", 12, 1, 0.5, tmp_path / "n"))
    (row,) = collect([done, waiting])
    base = ast_base(max_length=512, num_labels=50)
    assert (row["value"], row["test_clips"], row["training_clips"]) == (0.9, 40, 160)
    assert row["paper_macs"] == macs(config, keep_rate=0.7).paper
    assert row["executed_macs"] == macs(config, keep_rate=0.7).executed
    assert row["base_fewer_macs"] == pytest.approx(1 - macs(base, keep_rate=0.7).paper / macs(base).paper)
    assert row["base_fewer_macs"] < 1 - row["paper_macs"] / macs(config, keep_rate=1.0).paper - 0.01


def test_a_report_of_an_unfinished_study_says_what_it_has_and_what_not(tmp_path: Path) -> None:
    config = ast_base(max_length=512, num_labels=50, hidden_size=64, num_attention_heads=4, intermediate_size=256)
    steps = [
        finished(tmp_path / "r1", config, Cell("ast", "esc50", "x", 12, 1, 1.0, tmp_path / "r1"), **{"r1.0": 0.5}),
        Step("r=0.7", ("train",), tmp_path / "r0.7" / "results.json"),
    ]
    (tmp_path / "pretrained" / "audiomae").mkdir(parents=True)
    masked = {"training_files": 3622, "held_out_files": 128, "epoch": 10.0, "held_out_loss": 0.8094}
    (tmp_path / "pretrained" / "audiomae" / "results.json").write_text(json.dumps(masked))
    page = write_report(steps, tmp_path / "report", scale="mini", runs=tmp_path)
    text = page.with_suffix(".md").read_text()
    assert "Not finished: 1 of 2 steps are done" in text
    assert "0.809 on 128 clips held out" in text
    assert "Nothing to compare yet." in text
    assert str(tmp_path) not in text
    written = json.loads((tmp_path / "report" / "rows.json").read_text())
    assert [step["done"] for step in written["steps"]] == [True, False]
    assert written["rows"][0]["keep_rate"] == 1.0


def test_the_report_of_the_rankings_is_about_their_rows(tmp_path: Path) -> None:
    config = ast_base(max_length=512, num_labels=50, hidden_size=64, num_attention_heads=4, intermediate_size=256)
    steps = []
    for ranking, value in (("attention", 0.5), ("intensity", 0.46), ("intensity, public gather", 0.3)):
        at = tmp_path / ranking
        steps.append(finished(at, config, Cell("ast", "esc50", "x", 12, 1, 0.7, at, ranking), **{"r0.7": value}))
    page = write_report(steps, report_folder(tmp_path, "rankings"), scale="mini", study="rankings", runs=tmp_path)
    assert page == tmp_path / "rankings" / "report.html"
    text = page.with_suffix(".md").read_text()
    assert "spectrim reproduce --study rankings --scale mini OUT" in text
    assert "keep rate 0.7, by intensity: cannot say (one run): it loses 4.0 points against attention" in text
    assert "by intensity: 16.0 points lost, one run" in text
    rows = json.loads((tmp_path / "rankings" / "rows.json").read_text())["rows"]
    assert [row["ranking"] for row in rows] == ["attention", "intensity", "intensity, public gather"]


def test_a_folder_is_of_one_study(tmp_path: Path) -> None:
    claim_folder(tmp_path, scale="mini", quick=True)
    check_folder(tmp_path, scale="mini", quick=True)
    with pytest.raises(InvalidSetting, match=r"another folder: this one holds what --scale mini --quick made"):
        check_folder(tmp_path, scale="mini", quick=False)
