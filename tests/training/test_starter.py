"""The recipe that `spectrim data check --write-recipe` writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import command_line
import pytest
from layouts import make_folder
from tones import write_tone

from spectrim.backbones import ast_base
from spectrim.data import find_data_set
from spectrim.data.check import check
from spectrim.errors import DataError, InvalidSetting
from spectrim.network.transformer import AudioTransformer
from spectrim.training.building import build_model
from spectrim.training.recipe_files import load_recipe
from spectrim.training.starter import choose_split


def written(path: Path, name: str, root: Path, *arguments: object) -> Any:
    code, out, err = command_line.run("data", "check", name, root, "--write-recipe", path, *arguments)
    assert (code, err) == (0, "")
    assert out.splitlines()[-1].startswith(f"{path}: train with spectrim train {path}")
    return load_recipe(path)


def test_a_folder_gets_folds_its_own_statistics_and_a_length_without_the_outlier(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "my sounds: ä", {"a": 15, "b": 15})
    write_tone(root / "a" / "1.wav", seconds=3)
    recipe = written(tmp_path / "my.yaml", "folder", root)
    options = {"folds": 5, "fold": 1, "seed": 0}
    report = check("folder", root, **options)
    assert (recipe.name, recipe.data.name, recipe.data.options) == ("my", "folder", options)
    assert recipe.model.fields == {
        "mean": pytest.approx(report.mean, rel=1e-5),
        "std": pytest.approx(report.std, rel=1e-5),
        "max_length": 16,
    }
    text = (tmp_path / "my.yaml").read_text()
    assert "1 of 24 training clips are longer and lose their ends; the longest clip has 3.00 s." in text
    assert "2 labels with 12 training clips each, 24 clips to train on, 6 for validation and test." in text
    assert (recipe.evaluation.choose, recipe.optimiser.batch_size) == ("last", 16)


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    root, mine = make_folder(tmp_path / "sounds", {"a": 6, "b": 6}), tmp_path / "my.yaml"
    mine.write_text("mine")
    code, out, err = command_line.run("data", "check", "folder", root, "--write-recipe", mine)
    assert (code, out) == (2, "")
    assert "allowed: a file that is not there yet" in err
    assert mine.read_text() == "mine"
    code, _, err = command_line.run("data", "check", "folder", root, "--write-recipe", tmp_path / "no" / "my.yaml")
    assert (code, "a file in a folder that is there" in err) == (2, True)


def test_what_cannot_be_trained_on_gets_no_recipe(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "sounds", {"a": 6, "b": 6})
    for take in range(3):
        (root / "a" / f"{take}.wav").write_bytes(b"")
    code, _, err = command_line.run("data", "check", "folder", root, "--write-recipe", tmp_path / "my.yaml")
    assert (code, "are unreadable" in err) == (1, True)
    assert not list(tmp_path.glob("my.yaml*"))


def table(root: Path, columns: str, rows: list[str]) -> Path:
    root.mkdir()
    (root / "labels.csv").write_text(f"path,label{columns}\n" + "".join(f"{row}\n" for row in rows))
    for row in rows:
        write_tone(root / row.split(",")[0], 200)
    return root


def test_what_the_data_say_is_kept(tmp_path: Path) -> None:
    by_fold = table(tmp_path / "fold", ",fold", [f"{n}.wav,{'ab'[n % 2]},{3 + n // 2}" for n in range(8)])
    assert choose_split("csv", by_fold, {}).options == {"fold": 3}
    parts = ("train", "validation", "test")
    by_split = table(tmp_path / "split", ",split", [f"{n}.wav,a,{parts[n % 3]}" for n in range(6)])
    split = choose_split("csv", by_split, {})
    assert (split.options, split.held_out) == ({}, True)
    folders = tmp_path / "folders"
    for part in parts:
        make_folder(folders / part, {"a": 2, "b": 2})
    assert choose_split("folder", folders, {}).options == {}
    given = {"validation_share": 0.25, "test_share": 0.25, "seed": 7}
    assert choose_split("folder", make_folder(tmp_path / "plain", {"a": 8, "b": 8}), given).options == given


def test_many_clips_are_held_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spectrim.training.starter.ENOUGH", 40)
    root = make_folder(tmp_path / "sounds", {"a": 20, "b": 20})
    recipe = written(tmp_path / "my.yaml", "folder", root)
    assert recipe.data.options == {"validation_share": 0.1, "test_share": 0.1, "seed": 0}
    assert (recipe.evaluation.choose, recipe.evaluation.first_epoch) == ("best", 20)


def test_a_column_group_keeps_clips_together(tmp_path: Path) -> None:
    rows = [f"{n}.wav,{'ab'[n % 2]},voice{n // 4}" for n in range(24)]
    root = table(tmp_path / "grouped", ",group", rows)
    recipe = written(tmp_path / "my.yaml", "csv", root)
    assert recipe.data.options == {"group": "group", "folds": 5, "fold": 1, "seed": 0}
    seen: list[set[str]] = []
    for fold in range(1, 6):
        part = find_data_set("csv").open(root, "test", **{**recipe.data.options, "fold": fold})
        seen.append({f"voice{int(one.id.removesuffix('.wav')) // 4}" for one in part.recordings})
    assert sorted(voice for voices in seen for voice in voices) == [f"voice{n}" for n in range(6)]


@pytest.mark.parametrize("voices", [2, 3, 4])
def test_there_are_no_more_folds_than_speakers(tmp_path: Path, voices: int) -> None:
    rows = [f"{n}.wav,{'ab'[n // 4 % 2]},voice{n % voices},{n}" for n in range(24)]
    root = table(tmp_path / "spoken", ",speaker,take", rows)
    options = choose_split("csv", root, {}).options
    assert options == {"group": "speaker", "folds": voices, "fold": 1, "seed": 0}
    for fold in range(1, voices + 1):
        assert len(find_data_set("csv").open(root, "test", **{**options, "fold": fold})) == 24 // voices
    assert choose_split("csv", root, {"group": "take"}).options["folds"] == 5


def test_one_speaker_alone_is_named(tmp_path: Path) -> None:
    root = table(tmp_path / "spoken", ",speaker", [f"{n}.wav,{'ab'[n % 2]},me" for n in range(24)])
    with pytest.raises(DataError, match=r"all 24 clips have the same speaker, .* another column with the option group"):
        choose_split("csv", root, {})


def test_a_label_with_one_clip_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 label has fewer than two clips, e\.g\. b"):
        choose_split("folder", make_folder(tmp_path, {"a": 6, "b": 1}), {})
    with pytest.raises(InvalidSetting, match="'folds', perhaps"):
        choose_split("folder", make_folder(tmp_path / "c", {"a": 6, "b": 6}), {"foldss": 5})


@pytest.mark.parametrize(
    ("width", "blocks", "rate", "prune_at"), [(64, 4, 1e-3, [1, 2]), (192, 2, 1e-3, [0]), (256, 12, 3e-4, [3, 6, 9])]
)
def test_the_checkpoint_to_start_from_decides_learning_rate_and_blocks(
    width: int, blocks: int, rate: float, prune_at: list[int], tmp_path: Path
) -> None:
    root, model = make_folder(tmp_path / "sounds", {"a": 6, "b": 6}), tmp_path / "model"
    sizes = {"hidden_size": width, "num_attention_heads": 4, "intermediate_size": 64, "num_hidden_layers": blocks}
    AudioTransformer(ast_base(**sizes, max_length=32, prune_at=[1])).save_pretrained(model)
    recipe = written(tmp_path / "my.yaml", "folder", root, "--init", model)
    assert (recipe.optimiser.learning_rate, list(recipe.pruning.prune_at)) == (rate, prune_at)
    text = (tmp_path / "my.yaml").read_text()
    assert f"--data DIR --init {model} --output RUN" in text
    assert f"# For {model}, of width {width}: models of width up to 192 take 1.0e-3, larger ones" in text
    assert build_model(recipe, str(model), find_data_set("folder").open(root, "train", **recipe.data.options))


def test_patches_are_ranked_as_the_checkpoint_ranks_them(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "sounds", {"a": 6, "b": 6})
    for init, criterion in (["spectrim-mini"], "value_norm"), (["spectrim-words"], "auto"), ([], "auto"):
        recipe = written(
            tmp_path / f"{len(init)}{criterion}.yaml", "folder", root, *(["--init", *init] if init else [])
        )
        assert recipe.pruning.criterion == criterion


def test_mean_and_std_are_for_the_sampling_rate_of_the_checkpoint(tmp_path: Path) -> None:
    root, model = make_folder(tmp_path / "sounds", {"a": 6, "b": 6}), tmp_path / "model"
    sizes = {"hidden_size": 64, "num_attention_heads": 1, "intermediate_size": 64, "num_hidden_layers": 2}
    AudioTransformer(ast_base(**sizes, max_length=32, prune_at=[1], sampling_rate=8000)).save_pretrained(model)
    fields = written(tmp_path / "my.yaml", "folder", root, "--init", model).model.fields
    found = check("folder", root, sampling_rate=8000, folds=5)
    assert (fields["mean"], fields["std"]) == pytest.approx((found.mean, found.std), rel=1e-5)
    assert "sampling_rate" not in fields


def test_what_the_checkpoint_s_file_does_not_say_goes_into_the_recipe(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "sounds", {"a": 6, "b": 6})
    recipe = written(
        *(tmp_path / "my.yaml", "folder", root, "--init", "spectrim-mini", "--stride", "16", "--frames", 112)
    )
    assert (recipe.model.stride, recipe.model.frames) == (16, 112)
    code, _, err = command_line.run("data", "check", "folder", root, "--init", "spectrim-mini")
    assert (code, "init is 'spectrim-mini'; allowed: together with --write-recipe" in err) == (2, True)
    code, _, err = command_line.run(
        "data", "check", "folder", root, "--write-recipe", tmp_path / "b.yaml", "--stride", 10
    )
    assert (code, "stride is '10'; allowed: together with --init" in err) == (2, True)
    code, _, err = command_line.run(
        *("data", "check", "folder", root, "--write-recipe", tmp_path / "b.yaml", "--init", tmp_path / "none.pth")
    )
    assert (code, str(tmp_path / "none.pth") in err, (tmp_path / "b.yaml").exists()) == (1, True, False)
