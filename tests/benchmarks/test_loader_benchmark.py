"""What stands behind the figures of benchmarks/loader.py and benchmarks/first_steps.py; nothing is timed."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from spectrim.data import PARTS, find_data_set
from spectrim.training.optimiser import rate_share
from spectrim.training.pretrain_recipes import load_pretrain_recipe

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def scripts() -> Iterator[dict[str, ModuleType]]:
    sys.path.insert(0, str(FOLDER))
    try:
        yield {name: importlib.import_module(name) for name in ("loader", "first_steps")}
    finally:
        sys.path.remove(str(FOLDER))


def test_the_large_index_is_one_that_opens(scripts: dict[str, ModuleType], tmp_path: Path) -> None:
    scripts["loader"].write_index(tmp_path / "index", clips=900, tested=100, shards=3)
    parts = {part: find_data_set("audioset").open(tmp_path / "index", part) for part in PARTS}
    assert {part: len(clips) for part, clips in parts.items()} == {"train": 800, "validation": 100, "test": 100}
    ids = {one.id for part in ("train", "test") for one in parts[part].recordings}
    assert len(ids) == 900
    assert all(name.startswith("audio/Y") and len(name) == 22 for name in ids)


def test_the_first_steps_have_the_rates_that_they_have_on_audioset(scripts: dict[str, ModuleType]) -> None:
    published = load_pretrain_recipe("audiomae-pretrain-as2m")
    small = ["optimiser.batch_size=4", "optimiser.precision=fp32"]
    recipe = scripts["first_steps"].stretched(load_pretrain_recipe("audiomae-pretrain-as2m", small), 256, 1000)
    steps = {"there": 33 * (2_000_000 // 512), "here": round(recipe.optimiser.epochs * 64)}
    assert recipe.optimiser.stop_after_epochs == 1000 / 64
    there = rate_share(published.schedule, published.optimiser, steps["there"])
    here = rate_share(recipe.schedule, recipe.optimiser, steps["here"])
    for step in (0, 1, 500, 999, 20_000):
        expected = published.optimiser.peak * there(step)
        assert recipe.optimiser.peak * here(step) == pytest.approx(expected, rel=1e-6)
