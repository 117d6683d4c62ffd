"""Every shipped recipe is run for two steps, one dense and one pruned, on a miniature of its data set.

Models are 32 wide; all else that costs time is the recipe's own: 12 blocks, the length of the spectrograms, whatever
is drawn at random. The recipes of masked pre-training have their own test.
"""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import miniature_sets
import pytest
import torch
from small_runs import rows_of

from spectrim.checkpoints import from_pretrained
from spectrim.data import find_data_set
from spectrim.miniatures.sound_sets import synthesize_audioset
from spectrim.miniatures.spoken_commands import synthesize_spoken_commands
from spectrim.training.finetune import prepare, train
from spectrim.training.optimiser import annealed_keep_rate, rate_share
from spectrim.training.recipe_files import load_recipe, shipped_recipes
from spectrim.training.recipes import INIT, DistillationSettings, PruningSettings, Recipe

OF_THE_STUDY = ("asc-ast", "asc-audiomae", "esc10-ast", "voices")
"""They start from weights, and `test_reproduce_real.py` and, the last, `test_voices_benchmark.py` run them."""

RECIPES = sorted(name for name in shipped_recipes() if "-pretrain" not in name and name not in OF_THE_STUDY)
BATCH, STEPS = 4, 2
TESTED = 5
"""Clips that the miniatures are cut down to for validation."""


def copy_tables(made: Path, root: Path, *, audio: str) -> None:
    """A data set whose tables can be changed, with the audio of another."""
    shutil.copytree(made, root, ignore=shutil.ignore_patterns(audio))
    (root / audio).symlink_to(made / audio)


def spoken_commands(root: Path) -> None:
    pytest.importorskip("espeakng_loader")
    synthesize_spoken_commands(root, clips=35, validation_clips=TESTED, test_clips=TESTED, workers=1)


def audioset(root: Path) -> None:
    synthesize_audioset(root, clips=4 * BATCH, test_clips=TESTED, workers=1)


def esc50(root: Path) -> None:
    """One clip of each category, ten in each fold."""
    copy_tables(miniature_sets.esc50(), root, audio="audio")
    table = root / "meta" / "esc50.csv"
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    kept = {
        target: next(row for row in rows if int(row["target"]) == target and int(row["fold"]) == 1 + target % 5)
        for target in range(50)
    }
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(kept.values())


def voxceleb1(root: Path) -> None:
    """The first utterances of each part."""
    copy_tables(miniature_sets.voxceleb1(), root, audio="wav")
    lines = (root / "iden_split.txt").read_text().splitlines()
    kept = [
        [line for line in lines if line.startswith(part)][:count] for part, count in zip("123", (20, 5, 5), strict=True)
    ]
    (root / "iden_split.txt").write_text("".join(f"{line}\n" for part in kept for line in part))


MINIATURES = {
    "speech-commands": spoken_commands,
    "spoken-commands": spoken_commands,
    "audioset": audioset,
    "esc50": esc50,
    "voxceleb1": voxceleb1,
}


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Miniatures made so far, by the function that makes them; filled as they are needed."""
    return {"": tmp_path_factory.mktemp("miniatures")}


def miniature(name: str, roots: dict[str, Path]) -> Path:
    make = MINIATURES[name]
    if make.__name__ not in roots:
        root = roots[""] / make.__name__
        make(root)
        roots[make.__name__] = root
    return roots[make.__name__]


def known_already(plan: Recipe, data: Path, folder: Path) -> str:
    """A model with the labels of the data, for recipes that go on from one and learn from it."""
    changes = {"pruning": PruningSettings(), "distillation": DistillationSettings()}
    prepare(plan.model_copy(update=changes), data, folder).model.save_pretrained(folder / "known")
    return str(folder / "known")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_runs(name: str, roots: dict[str, Path], tmp_path: Path) -> None:
    plan = load_recipe(name)
    data = miniature(plan.data.name, roots)
    clips = len(find_data_set(plan.data.name).open(data, "train", **plan.data.options))
    per_epoch = clips // BATCH if plan.optimiser.drop_last else math.ceil(clips / BATCH)
    changes = {
        "model.fields.hidden_size": 32,
        "model.fields.num_attention_heads": 2,
        "model.fields.intermediate_size": 64,
        "optimiser.batch_size": BATCH,
        "workers": 0,
        "tensorboard": False,
        "optimiser.stop_after_epochs": STEPS / per_epoch,
        "pruning.shrink_start": 1 / per_epoch,
        "pruning.shrink_epochs": 0,
        "evaluation.first_epoch": 0,
        "evaluation.test_keep_rates": [],
        **({"sampling.clips_per_epoch": None} if plan.sampling.clips_per_epoch else {}),
        **({"schedule.warmup_steps": 0} if plan.schedule.warmup_steps else {}),
    }
    small = load_recipe(name, [f"{field}={json.dumps(value)}" for field, value in changes.items()])
    init = known_already(small, data, tmp_path) if small.distillation.teacher == INIT else None
    train(small, data, tmp_path / "run", init=init)
    model = from_pretrained(tmp_path / "run" / "model")
    config, entry = model.config, find_data_set(plan.data.name)
    assert (config.hidden_size, config.num_hidden_layers, config.max_length) == (32, 12, entry.max_length)
    assert config.backbone == plan.model.builder.partition("-")[0]
    for field, value in {"mean": entry.mean, "std": entry.std, **small.model.fields}.items():
        assert getattr(config, field) == value, field
    assert (config.keep_rate, config.prune_at) == (plan.pruning.keep_rate, plan.pruning.prune_at)
    evaluated, done = rows_of(tmp_path / "run")[-2:]
    assert (evaluated["step"], done["step"]) == (STEPS, STEPS)
    assert 0 <= evaluated[f"eval_{entry.metric}"] <= 1
    logged = next(row for row in rows_of(tmp_path / "run") if row["step"] == STEPS)
    course = rate_share(small.schedule, small.optimiser, math.ceil(per_epoch * plan.optimiser.epochs))
    assert logged["learning_rate"] == pytest.approx(course(STEPS - 1) * small.optimiser.peak)
    assert math.isfinite(logged["loss"])
    assert annealed_keep_rate(small.pruning, 0.0) == 1.0
    assert {"ratio_loss", "logits_loss", "tokens_loss"} <= logged.keys() or init is None
    assert annealed_keep_rate(small.pruning, 1 / per_epoch) == plan.pruning.keep_rate
    begun, trained = prepare(small, data, tmp_path, init).model.state_dict(), model.state_dict()
    moved = {name for name, weight in begun.items() if not torch.equal(weight, trained[name])}
    fixed = {"embeddings.position_table"} if config.backbone == "audiomae" else set()
    still = begun.keys() - moved - fixed
    assert not {name for name in still if begun[name].ndim > 1}


def test_the_recipes_are_those_of_the_paper_and_their_miniatures() -> None:
    """Three of AST and four of AudioMAE, a miniature of each; two for all of AudioSet; three of the packaged model.

    And three reducers on ESC-50, for both.
    """
    experiments = [f"ast-{data}" for data in ("as20k", "esc50", "spc2")]
    experiments += [f"audiomae-{data}" for data in ("as20k", "esc50", "spc2", "vox1")]
    experiments_on_all = ["ast-as2m", "audiomae-as2m"]
    reducing = [
        f"{backbone}-esc50-{kind}" for backbone in ("ast", "audiomae") for kind in ("merge", "fuse", "dynamicvit")
    ]
    inside = ["spoken-commands-mini", "spoken-commands-mini-pruned", "spoken-commands-mini-settled"]
    assert sorted(RECIPES) == sorted(
        [*experiments, *(f"{name}-mini" for name in experiments), *experiments_on_all, *reducing, *inside]
    )


AST = {"name": "adam", "betas": (0.95, 0.999), "weight_decay": 5e-7, "decay": "all", "layer_decay": 1.0, "epochs": 30}
AUDIOMAE = {"name": "adamw", "betas": (0.9, 0.95), "weight_decay": 1e-4, "decay": "matrices", "layer_decay": 0.75}
PAPER: dict[str, tuple[Any, ...]] = {
    "ast-as20k": ("audioset", 1e-4, 64, 30, (10, 5, 0.5), 0.5, 0, (48, 192), (14, 10), 25, False),
    "ast-esc50": ("esc50", 1e-5, 48, 30, (5, 1, 0.85), 0, 0, (24, 96), (4, 15), 20, False),
    "ast-spc2": ("speech-commands", 2.5e-4, 128, 30, (5, 1, 0.85), 0.6, 0, (48, 48), (4, 15), 20, True),
    "audiomae-as20k": ("audioset", 1e-3 * 32 / 256, 32, 60, None, 0.5, 0.3, (48, 192), (30, 20), 50, False),
    "audiomae-esc50": ("esc50", 1e-3 * 128 / 256, 128, 120, None, 0, 0.3, (24, 96), (20, 40), 60, False),
    "audiomae-spc2": ("speech-commands", 1e-3 * 512 / 256, 512, 90, None, 0.5, 0, (48, 48), (10, 30), 40, True),
    "audiomae-vox1": ("voxceleb1", 1e-3 * 64 / 256, 64, 90, None, 0, 0, (48, 192), (20, 40), 60, True),
}
"""REFERENCE sections 2 and 3: data, highest rate, batch, epochs, steps down (start, every, factor), mixup, 2-D mask,
SpecAug (mel bins, frames), start (counted from 0) and length of the annealing, first evaluation, noise."""


@pytest.mark.parametrize("name", PAPER)
def test_the_paper_s_recipes_say_what_the_paper_says(name: str) -> None:
    data, rate, batch, epochs, down, mixup, mask, stripes, shrink, first, noise = PAPER[name]
    plan = load_recipe(name)
    course, schedule, augment = plan.optimiser, plan.schedule, plan.augment
    assert (plan.data.name, course.batch_size, course.epochs) == (data, batch, epochs)
    assert course.peak == pytest.approx(rate)
    assert course.accumulate == 1
    if down is None:
        assert {field: getattr(course, field) for field in AUDIOMAE} == AUDIOMAE
        assert (schedule.kind, schedule.warmup_epochs, schedule.final) == ("cosine", 4, 1e-5)
        assert (schedule.warmup_form, plan.model.fresh_head, plan.model.head_init) == ("from_zero", False, "normal")
        assert (plan.model.fields["drop_path_rate"], plan.model.fields["head_init_std"]) == (0.1, 2e-5)
    else:
        assert {field: getattr(course, field) for field in AST} == AST
        assert (schedule.kind, schedule.start, schedule.every, schedule.factor) == ("step", *down)
        assert schedule.warmup_steps == (1000 if name == "ast-as20k" else 0)
        assert schedule.warmup_form == ("stairs" if name == "ast-as20k" else "rising")
        assert (plan.model.fresh_head, plan.model.head_init) == (True, "linear")
    assert plan.loss == ("binary_cross_entropy" if data == "speech-commands" else "auto")
    assert plan.model.fields["padding"] == "minimum"
    assert (augment.mixup, augment.mixup_alpha, augment.noise) == (mixup, 10, noise)
    assert (augment.mask_time, augment.mask_frequency) == (mask, mask)
    assert (augment.frequency_mask, augment.time_mask) == stripes
    assert augment.roll_and_gain is (down is None and name != "audiomae-vox1")
    assert (augment.speed, augment.pitch, course.precision, plan.model.positions) == ([], [], "auto", "auto")
    assert plan.seed == (12 if "esc50" in name else 0)
    assert (plan.pruning.shrink_start, plan.pruning.shrink_epochs, plan.pruning.prune_at) == (*shrink, [3, 6, 9])
    assert (plan.evaluation.first_epoch, plan.evaluation.every_epochs, plan.evaluation.choose) == (first, 1, "best")
