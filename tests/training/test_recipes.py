from __future__ import annotations

from pathlib import Path

import pytest

from spectrim.backbones import BUILDERS
from spectrim.data import DATA_SETS
from spectrim.errors import InvalidSetting
from spectrim.training.recipe_files import load_recipe

RECIPES = (Path(__file__).parents[2] / "recipes").glob("*.yaml")
SHIPPED = sorted(path for path in RECIPES if "-pretrain" not in path.name)


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
        ("optimiser.epoch=5", ["r.yaml: optimiser.epoch is 5; allowed: 'epochs', perhaps; one of accumulate,"]),
        ("epochs=5", ["r.yaml: epochs is 5; allowed: optimiser.epochs, perhaps; one of"]),
        ("optimizer={epochs: 5}", ["r.yaml: optimizer", "'optimiser', perhaps"]),
        ("xyz=1", ["r.yaml: xyz is 1; allowed: one of augment, data"]),
        ("model.builder=ast-bse", ["'ast-base', perhaps"]),
        ("model.fields.hiden_size=3", ["'hidden_size', perhaps"]),
        ("pruning.criterion=varation", ["'variation', perhaps"]),
        ("pruning.keep_rate=0", ["pruning.keep_rate", "(0, 1]"]),
        ("pruning.keep_rate=1.2", ["pruning.keep_rate", "1.2", "(0, 1]"]),
        ("augment.mask_time=1", ["augment.mask_time", "less than 1"]),
        ("model.builder=ast-huge", ["model.builder", "ast-huge", "ast-base"]),
        ("model.fields.hidden=3", ["model.fields.hidden", "hidden_size"]),
        ("pruning.reference_compat=true", ["pruning.reference_compat", "criterion is one of intensity, variation"]),
        ("model.fields.reference_compat=true", ["pruning.reference_compat in its place"]),
        ("pruning.criterion=loudness", ["pruning.criterion", "loudness", "intensity"]),
        ("pruning={keep_rate: 0.5, shrink_start: 9, shrink_epochs: 2}", ["shrink_start", "11", "optimiser.epochs=10"]),
        ("schedule.warmup_epochs=11", ["schedule.warmup_epochs", "11", "10"]),
        ("optimiser.stop_after_epochs=11", ["optimiser.stop_after_epochs", "11", "up to optimiser.epochs=10"]),
        ("model.fields.keep_rate=0.5", ["model.fields.keep_rate", "0.5", "pruning.keep_rate in its place"]),
        ("model.fields.problem_type=regression", ["model.fields.problem_type", "loss in its place"]),
        ("optimiser.learning_rate=.inf", ["optimiser.learning_rate", "inf", "finite"]),
        ("schedule.final=.nan", ["schedule.final", "nan", "finite"]),
        ("optimiser.betas=[0.9, 1.5]", ["optimiser.betas.1", "1.5", "less than 1"]),
        ("schedule={kind: step}", ["schedule.start", "0", "more than 0 with kind: step"]),
        ("schedule={warmup_epochs: 1, warmup_steps: 3}", ["schedule.warmup_steps", "3", "0 beside warmup_epochs"]),
        ("schedule.final=1", ["schedule.final", "1.0", "highest learning rate, 0.001"]),
        ("evaluation.first_epoch=11", ["evaluation.first_epoch", "11", "optimiser.epochs=10"]),
        ("evaluation.test_keep_rates=[0.5, 0]", ["evaluation.test_keep_rates.1", "greater than 0"]),
        ("pruning={reducer: merge, keep_rate: 0.7}", ["evaluation.test_keep_rates", "0.4", "from 0.5 to 1", "merge"]),
        ("optimiser.accumulate=5", ["optimiser.accumulate", "5", "divisor of optimiser.batch_size=64"]),
        ("optimiser.name=sgd", ["optimiser.name", "sgd", "adamw"]),
        ("seed", ["seed", "field=value"]),
        ("seed=4294967296", ["seed is 4294967296", "less than 4294967296"]),
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


def test_padding_that_is_removed_is_not_rolled_into_the_clip(tmp_path: Path) -> None:
    path = write(tmp_path, "r.yaml", "name: r\ndata: {name: spoken-commands}\naugment: {noise: true}\n")
    assert load_recipe(path).augment.noise
    with pytest.raises(InvalidSetting, match=r"augment\.noise is True; allowed: false with pruning\.drop_padding"):
        load_recipe(path, ["pruning.drop_padding=true"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a YAML mapping"),
        ("- 1\n", "a YAML mapping"),
        ("a: [1\n", "valid YAML"),
        ("base: r.yaml\n", "does not start from itself"),
        ("base: other.yaml\n", r"other\.yaml"),
        ("base: 3\n", "base is 3; allowed: a file beside this one"),
        ("base: [3]\n", r"base is \[3\]; allowed: a file beside this one"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InvalidSetting, match=said):
        load_recipe(write(tmp_path, "r.yaml", text))


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_bytes(b"RIFF\xff\xfe\x00")
    with pytest.raises(InvalidSetting, match="valid YAML"):
        load_recipe(tmp_path / "r.yaml")


def test_of_several_bases_the_later_wins(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", "name: a\nseed: 1\ndata: {name: esc50, options: {fold: 1}}\noptimiser: {epochs: 3}\n")
    write(tmp_path, "b.yaml", "name: b\nseed: 2\noptimiser: {batch_size: 8}\n")
    recipe = load_recipe(write(tmp_path, "c.yaml", "base: [a.yaml, b.yaml]\nname: c\n"))
    assert (recipe.name, recipe.seed, recipe.data.options) == ("c", 2, {"fold": 1})
    assert (recipe.optimiser.epochs, recipe.optimiser.batch_size) == (3, 8)


def test_a_folder_does_not_hide_the_recipe_of_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ast-esc50").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_recipe("ast-esc50").name == "ast-esc50"
    write(tmp_path, "ast-spc2", "name: mine\ndata: {name: spoken-commands}\n")
    assert load_recipe("ast-spc2").name == "mine"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"nowhere\.yaml"):
        load_recipe(tmp_path / "nowhere.yaml")
