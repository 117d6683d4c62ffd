"""What a run starts from: a checkpoint whose stride the recipe has to say, and data with one label."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from checkpoint_files import official_ast, save
from layouts import make_folder
from small_runs import SIZE, recipe, rows_of

from spectrim.backbones import kwt_1
from spectrim.checkpoints import from_pretrained
from spectrim.data.folder import open_folder
from spectrim.errors import CheckpointError, InvalidSetting
from spectrim.measure.evaluate import evaluate
from spectrim.network.transformer import AudioTransformer
from spectrim.training.building import build_model
from spectrim.training.finetune import train
from spectrim.training.recipes import ModelSettings

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

ONE_CLASS = {
    "data": {"name": "folder"},
    "model": {"builder": "ast-base", "fields": {**SIZE, "max_length": 32, "mean": -6.0, "std": 4.0}},
    "optimiser": {"batch_size": 4, "epochs": 1},
    "pruning": {"keep_rate": 0.5, "prune_at": [1], "shrink_start": 0, "shrink_epochs": 0},
    "evaluation": {"test_keep_rates": [1.0]},
}


def test_one_class_trains_as_multi_label_and_is_saved_and_loaded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = make_folder(tmp_path / "clips", {"bird": 12})
    train(recipe(**ONE_CLASS), root, tmp_path / "run")
    model = from_pretrained(tmp_path / "run" / "model")
    assert (model.config.num_labels, model.config.multi_label, model.config.id2label) == (1, True, {0: "bird"})
    rows = rows_of(tmp_path / "run")
    assert not [name for row in rows for name in row if "accuracy" in name]
    assert [row["eval_mAP"] for row in rows if "eval_loss" in row] == [None]
    assert "mAP is not defined on the test part: every clip has 'bird'" in caplog.text
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["metric"], results["test"]) == ("mAP", {"0.5": None, "1.0": None})
    card = (tmp_path / "run" / "model" / "README.md").read_text()
    assert "| 0.5 | not defined |" in card
    assert (results["chosen_on"], "the weights of epoch 1.00 (none chosen: the last one)" in card) == (None, True)
    with pytest.raises(InvalidSetting, match=r"part is 'test'; allowed: .* for mAP; here every clip has 'bird'"):
        evaluate(tmp_path / "run" / "model", "folder", root)
    with pytest.raises(InvalidSetting, match="'bird' is the only label"):
        train(recipe(**ONE_CLASS, loss="cross_entropy"), root, tmp_path / "other")


def test_one_label_beside_clips_without_it_is_measured_by_average_precision(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "clips", {"bird": 12, "none": 12})
    lines = [f"bird/{path.name},bird" for path in sorted((root / "bird").iterdir())]
    lines += [f"none/{path.name}," for path in sorted((root / "none").iterdir())]
    (root / "labels.csv").write_text("path,labels\n" + "\n".join(lines) + "\n")
    train(recipe(**{**ONE_CLASS, "data": {"name": "csv", "options": {"test_share": 0.4}}}), root, tmp_path / "run")
    test = json.loads((tmp_path / "run" / "results.json").read_text())["test"]
    found = evaluate(tmp_path / "run" / "model", "csv", root, keep_rates=[0.5], options={"test_share": 0.4})
    assert found.facts["metric"] == "mAP" and all("accuracy" not in row for row in found.rows)
    assert {row["keep_rate"]: row["mAP"] for row in found.rows} == pytest.approx({1.0: test["1.0"], 0.5: test["0.5"]})
    assert 0 < found.rows[0]["mAP"] <= 1


def test_the_length_of_the_data_does_not_tell_the_stride_of_the_start(tmp_path: Path) -> None:
    # 144 patches: stride 16 and 300 frames. A data set of 128 frames would let stride 10 fit.
    start = str(save(tmp_path, official_ast(patches=144, labels=3, depth=4)))
    part = open_folder(make_folder(tmp_path / "clips", {"a": 12, "b": 12}), "train")
    plain, sizes = recipe(data={"name": "folder"}), {"max_length": 128}

    def built(**said: object) -> AudioTransformer:
        return build_model(plain.model_copy(update={"model": ModelSettings(fields=sizes, **said)}), start, part)

    with pytest.raises(CheckpointError, match="stride=16 with 288 to 303 frames"):
        built()
    told, by_frames = built(stride=16), built(frames=300)
    assert (told.config.time_stride, told.config.grid) == (16, (8, 8))
    table = "embeddings.position_table"
    assert torch.equal(by_frames.state_dict()[table], told.state_dict()[table])


@pytest.mark.parametrize(("name", "value"), [("stride", 10), ("stride", (10, 16)), ("frames", 300)])
def test_what_is_said_of_a_start_is_refused_without_one(name: str, value: object, tmp_path: Path) -> None:
    part = open_folder(make_folder(tmp_path / "clips", {"bird": 8, "dog": 8}), "train")
    with pytest.raises(InvalidSetting, match="null without --init") as error:
        build_model(recipe(**{**ONE_CLASS, "model": {**ONE_CLASS["model"], name: value}}), None, part)
    assert (error.value.field, error.value.value) == (f"model.{name}", value)


def test_a_checkpoint_on_mfcc_is_not_fine_tuned(tmp_path: Path) -> None:
    """The data sets' mean and std are those of log-mel values."""
    config = kwt_1(num_hidden_layers=1, prune_at=[], num_labels=3)
    AudioTransformer(config).save_pretrained(tmp_path / "kwt")
    part = open_folder(make_folder(tmp_path / "clips", {"bird": 8, "dog": 8}), "train")
    with pytest.raises(InvalidSetting, match=r"a checkpoint that takes log-mel; .* takes mfcc"):
        build_model(recipe(**ONE_CLASS), str(tmp_path / "kwt"), part)
