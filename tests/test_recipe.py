from __future__ import annotations

from pathlib import Path

import pytest

from spectrim.config import BUILDERS
from spectrim.data import DATA_SETS
from spectrim.errors import InvalidSetting
from spectrim.recipe import load_recipe

RECIPES = (Path(__file__).parents[1] / "recipes").glob("*.yaml")
SHIPPED = sorted(path for path in RECIPES if "-pretrain-" not in path.name)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid_and_makes_a_model(path: Path) -> None:
    recipe = load_recipe(path)
    assert recipe.name == path.stem
    assert recipe.data.name in DATA_SETS
    BUILDERS[recipe.model.builder](**recipe.model.fields, prune_at=recipe.pruning.prune_at)


def test_there_are_shipped_recipes() -> None:
    assert SHIPPED


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_a_recipe_starts_from_its_base_and_overrides_win(tmp_path: Path) -> None:
    write(tmp_path, "base.yaml", "name: base\ndata: {name: spoken-commands}\noptimiser: {epochs: 3, batch_size: 8}\n")
    child = write(tmp_path, "child.yaml", "base: base.yaml\nname: child\noptimiser: {epochs: 5}\n")
    recipe = load_recipe(child, ["optimiser.learning_rate=3e-4", "pruning.prune_at=[1, 2]"])
    assert (recipe.name, recipe.optimiser.epochs, recipe.optimiser.batch_size) == ("child", 5, 8)
    assert recipe.optimiser.learning_rate == 3e-4
    assert recipe.pruning.prune_at == [1, 2]


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optimiser.epoch=5", ["optimiser.epoch", "5"]),
        ("pruning.keep_rate=0", ["pruning.keep_rate", "greater than 0"]),
        ("pruning.keep_rate=1.2", ["pruning.keep_rate", "1.2", "less than or equal to 1"]),
        ("augment.mask_time=1", ["augment.mask_time", "less than 1"]),
        ("model.builder=ast-huge", ["model.builder", "ast-huge", "ast-base"]),
        ("model.fields.hidden=3", ["model.fields.hidden", "hidden_size"]),
        ("pruning.criterion=loudness", ["pruning.criterion", "loudness", "intensity"]),
        ("pruning={keep_rate: 0.5, shrink_start: 9, shrink_epochs: 2}", ["shrink_start", "11", "optimiser.epochs=10"]),
        ("schedule.warmup_epochs=11", ["schedule.warmup_epochs", "11", "10"]),
        ("optimiser.name=sgd", ["optimiser.name", "sgd", "adamw"]),
        ("seed", ["seed", "field=value"]),
        ("seed.x=1", ["seed", "no fields of its own"]),
    ],
)
def test_a_wrong_field_is_named_with_its_value_and_what_is_allowed(
    tmp_path: Path, override: str, words: list[str]
) -> None:
    path = write(tmp_path, "r.yaml", "name: r\nseed: 1\ndata: {name: spoken-commands}\n")
    with pytest.raises(InvalidSetting) as error:
        load_recipe(path, [override])
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize("text", ["", "- 1\n", "a: [1\n", "base: r.yaml\n", "base: other.yaml\n"])
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(InvalidSetting):
        load_recipe(write(tmp_path, "r.yaml", text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"nowhere\.yaml"):
        load_recipe(tmp_path / "nowhere.yaml")
