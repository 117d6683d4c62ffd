"""A cross-validation in one command, beside single runs and scikit-learn."""

from __future__ import annotations

import csv
import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import command_line
import numpy as np
import pytest
import torch
import yaml
from layouts import make_folder
from safetensors.torch import load_file
from sklearn.metrics import accuracy_score, recall_score
from small_runs import SIZE, recipe
from tone_table import write_tones

from spectrim.data import find_data_set
from spectrim.data.packing import pack
from spectrim.errors import CheckpointError, DataError, InvalidSetting
from spectrim.files import sole_writer
from spectrim.measure.metric_intervals import clip_intervals
from spectrim.stats.groups import Groups
from spectrim.training.answers import Answers
from spectrim.training.cross_validation import CrossValidation, cross_validate
from spectrim.training.cross_validation_report import notes, table_cells
from spectrim.training.finetune import train
from spectrim.training.pruning_trainer import PruningTrainer
from spectrim.training.recipes import Recipe
from spectrim.training.run_pictures import draw_run

RATES = [1.0, 0.5]


def plan(**changes: Any) -> Recipe:
    """One epoch of three or six steps."""
    fields = {**SIZE, "max_length": 32, "mean": -7.0, "std": 3.0}
    small = {
        "data": {"name": "csv"},
        "model": {"fields": fields},
        "optimiser": {"epochs": 1, "batch_size": 6},
        "pruning": {"shrink_epochs": 0.4},
        "evaluation": {"test_keep_rates": RATES},
    }
    return recipe(**{**small, **changes})


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("data") / "tones", per_fold=18, folds=2)


@pytest.fixture(scope="module")
def crossed(tones: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """The folder of a cross-validation from the command line, and what it said."""
    folder = tmp_path_factory.mktemp("crossed")
    (folder / "tones.yaml").write_text(
        yaml.safe_dump(plan(data={"name": "csv", "options": {"fold": 7}}).model_dump(mode="json"))
    )
    code, out, err = command_line.run(
        *("train", folder / "tones.yaml", "--data", tones, "--output", folder / "cv", "--folds", "all"),
        "--no-progress",
    )
    assert code == 0
    return folder / "cv", out, err


def test_each_fold_is_a_run_like_any_other(crossed: tuple[Path, str, str], tones: Path, tmp_path: Path) -> None:
    output = crossed[0]
    train(plan(data={"options": {"fold": 2}, "name": "csv"}), tones, tmp_path / "alone")
    ours, alone = (
        load_file(folder / "model" / "model.safetensors") for folder in (output / "fold2", tmp_path / "alone")
    )
    assert all(torch.equal(ours[name], weight) for name, weight in alone.items())
    assert (output / "fold2" / "results.json").read_text() == (tmp_path / "alone" / "results.json").read_text()
    first, second = (json.loads((output / f"fold{k}" / "run.json").read_text())["recipe"]["data"] for k in (1, 2))
    assert (first["options"], second["options"]) == ({"fold": 1}, {"fold": 2})


def test_the_tables_are_those_of_the_folds_answers(crossed: tuple[Path, str, str], tones: Path) -> None:
    output, out, err = crossed
    answers = [Answers.load(output / f"fold{k}" / "answers.npz") for k in (1, 2)]
    parts = [find_data_set("csv").open(tones, "test", fold=k) for k in (1, 2)]
    rows = list(csv.DictReader((output / "cross_validation" / "keep_rates.csv").open(newline="")))
    assert [float(row["keep_rate"]) for row in rows] == RATES
    right = {}
    for row, rate in zip(rows, RATES, strict=True):
        said = [one.scores[rate].argmax(axis=1) for one in answers]
        truth = [[recording.labels[0] for recording in part.recordings] for part in parts]
        each = [accuracy_score(true, ours) for true, ours in zip(truth, said, strict=True)]
        assert each == [
            json.loads((output / f"fold{k}" / "results.json").read_text())["test"][str(rate)] for k in (1, 2)
        ]
        right[rate] = np.concatenate(said) == np.concatenate(truth)
        assert float(row["mean"]) == pytest.approx(np.mean(each))
        assert float(row["sd"]) == pytest.approx(np.std(each, ddof=1))
        assert (float(row["lowest"]), float(row["highest"])) == (min(each), max(each))
        assert float(row["pooled"]) == pytest.approx(right[rate].mean())
    assert float(rows[1]["change"]) == pytest.approx(right[0.5].mean() - right[1.0].mean())
    page = (output / "cross_validation" / "results.md").read_text()
    for text in (out, page):
        assert f"{100 * right[1.0].mean():.2f}" in text
        assert "chosen on the clips that are tested, which flatters the result" in text
    assert "fold 2 (2/2), 3/3 steps" in err
    assert [one.ids for one in answers] == [tuple(clip.id for clip in part.recordings) for part in parts]


def test_each_fold_and_all_of_them_leave_pictures_and_results_of_labels(
    crossed: tuple[Path, str, str], tones: Path
) -> None:
    output = crossed[0]
    for folder in (output / "fold1", output / "cross_validation"):
        pictures = {path.name for path in (folder / "figures").iterdir()}
        assert pictures == {"confusion.png", "per_class.png"} | ({"training.png"} if folder.name == "fold1" else set())
    both = Answers.together([Answers.load(output / f"fold{k}" / "answers.npz") for k in (1, 2)])
    rows = command_line.rows_of((output / "cross_validation" / "per_class.csv").read_text())
    assert [row["label"] for row in rows] == list(both.labels) * 2
    for rate in RATES:
        ours = [row for row in rows if float(row["keep_rate"]) == rate]
        recalls = recall_score(both.targets.argmax(1), both.scores[rate].argmax(1), average=None)
        assert [float(row["recall"]) for row in ours] == pytest.approx(recalls)
        assert [int(row["positives"]) for row in ours] == [12, 12, 12]
    taken = command_line.rows_of((output / "cross_validation" / "confusions.csv").read_text())
    assert sum(int(row["clips"]) for row in taken) == len(RATES) * len(both.ids)
    with pytest.raises(DataError, match="no finished run is there to be drawn"):
        draw_run(tones)


def test_the_models_can_be_evaluated_as_they_lie(crossed: tuple[Path, str, str], tones: Path) -> None:
    code, out, err = command_line.run(
        *("evaluate", "--dataset", "csv", "--data", tones, "--folds", "all", "--keep-rates", "0.5", "--draws", 0),
        *("--model", crossed[0] / "fold{fold}" / "model", "--format", "json", "--workers", 0),
    )
    rows = list(csv.DictReader((crossed[0] / "cross_validation" / "keep_rates.csv").open(newline="")))
    assert code == 0 and "with which the run" not in err
    assert [row["accuracy"] for row in json.loads(out)["rows"]] == pytest.approx([float(row["mean"]) for row in rows])


def test_ctrl_c_in_the_second_fold_and_resume(
    crossed: tuple[Path, str, str], tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, output = PruningTrainer.training_step, tmp_path / "cv"

    def interrupted(self: PruningTrainer, *args: Any, **kwargs: Any) -> torch.Tensor:
        if "fold2" in self.args.output_dir and self.state.global_step == 1:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(PruningTrainer, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cross_validate(plan(), tones, output)
    written = (output / "fold1" / "results.json").stat().st_mtime_ns
    with pytest.raises(InvalidSetting, match="a folder without a run in it, or --resume"):
        cross_validate(plan(), tones, output)
    with pytest.raises(InvalidSetting, match=r"recipe\.seed is 5; allowed: 0, with which the run in .*fold1 was begun"):
        cross_validate(plan(seed=5), tones, output, resume=True)
    monkeypatch.setattr(PruningTrainer, "training_step", step)
    lines: list[str] = []
    found = cross_validate(plan(), tones, output, resume=True, say=lines.append)
    assert lines[0] == "fold 1 (1/2) is done already"
    assert (output / "fold1" / "results.json").stat().st_mtime_ns == written
    before = json.loads((crossed[0] / "cross_validation" / "results.json").read_text())
    assert (found.folds, found.keep_rates) == (before["folds"], before["keep_rates"])


def test_other_clips_than_a_finished_fold_had_are_refused_before_the_next_one(
    crossed: tuple[Path, str, str], tones: Path, tmp_path: Path
) -> None:
    """Nothing would be trained anew, and the clips that the fold was not asked about would be missing in the table."""
    output, data = tmp_path / "cv", tmp_path / "tones"
    shutil.copytree(crossed[0], output)
    shutil.copytree(tones, data)
    for written in output.glob("fold*/run.json"):  # as if they had been begun with these
        written.write_text(written.read_text().replace(str(tones), str(data)))
    table = data / "labels.csv"
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(DataError, match=r"17 clips that are not the 18 with which the run in .*fold1 was begun"):
        cross_validate(plan(), data, output, resume=True)


def test_a_table_of_several_labels_and_few_clips_has_no_intervals(tmp_path: Path) -> None:
    root = write_tones(tmp_path / "tones", per_fold=9, folds=2, several=True)
    found = cross_validate(
        plan(evaluation={"test_keep_rates": [1.0], "choose": "last"}), root, tmp_path / "cv", folds=[2]
    )
    assert found.facts["metric"] == "mAP"
    assert found.facts["interval"] == "none: 9 clips are too few for one, it takes 30"
    dense = found.keep_rates[0]
    assert (dense["sd"], dense["pooled_low"], dense["change_low"]) == (None, None, None)
    assert dense["pooled"] == pytest.approx(dense["mean"])
    assert [row[0] for row in table_cells(found)] == ["mAP, %", "fold 2", "all clips", "change, points"]
    assert notes(found)[0] == "Epoch: none chosen: the last one."


def test_where_no_evaluation_came_to_pass_no_epoch_is_chosen(tones: Path, tmp_path: Path) -> None:
    late = plan(
        optimiser={"epochs": 2, "stop_after_epochs": 0.4, "batch_size": 6},
        evaluation={"test_keep_rates": [1.0], "first_epoch": 1},
        pruning={"shrink_epochs": 0.4, "shrink_start": 0},
    )
    found = cross_validate(late, tones, tmp_path / "cv", folds=[2])
    assert json.loads((tmp_path / "cv" / "fold2" / "results.json").read_text())["chosen_on"] is None
    assert (found.facts["chosen_on"], found.facts["epoch"]) == (None, "none chosen: the last one")


def test_intervals_are_over_the_groups_of_all_folds(
    crossed: tuple[Path, str, str], tones: Path, tmp_path: Path
) -> None:
    """The answers of finished folds, as if their clips were of eight speakers, or of four in one fold alone."""
    output = tmp_path / "cv"
    shutil.copytree(crossed[0], output)
    plain = cross_validate(plan(), tones, output, resume=True)
    saved = {k: Answers.load(output / f"fold{k}" / "answers.npz") for k in (1, 2)}
    assert saved[1].groups is None and "resamples of the 36 clips of all folds" in plain.facts["interval"]

    def grouped(speakers: dict[int, int]) -> CrossValidation:
        for k, number in speakers.items():
            names = tuple(f"fold {k}, {place % number}" for place in range(18))
            replace(saved[k], groups=names).save(output / f"fold{k}" / "answers.npz")
            assert Answers.load(output / f"fold{k}" / "answers.npz").groups == names
        return cross_validate(plan(), tones, output, resume=True)

    found = grouped({1: 4})
    assert (
        "of the 22 speakers or recordings of the 36 clips of all folds: what other speakers" in found.facts["interval"]
    )
    found = grouped({1: 4, 2: 4})
    assert "of the 8 speakers or recordings of the 36 clips of all folds" in found.facts["interval"]
    both = Answers.together([Answers.load(output / f"fold{k}" / "answers.npz") for k in (1, 2)])
    assert both.groups is not None
    scores, groups = [both.scores[rate] for rate in RATES], Groups.named(both.groups)
    ends = clip_intervals(scores, both.targets, "accuracy", groups=groups)
    for number, (row, before) in enumerate(zip(found.keep_rates, plain.keep_rates, strict=True)):
        assert row["pooled"] == before["pooled"]
        assert (row["pooled_low"], row["pooled_high"]) == pytest.approx((ends.low[number], ends.high[number]))
    found = grouped({1: 2, 2: 3})
    assert found.facts["interval"] == "none: 5 speakers or recordings are too few; it takes 6"
    assert all(row["pooled_low"] is None for row in found.keep_rates)


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({}, {"folds": [3]}, "fold is 3; allowed: one of 1, 2"),
        ({}, {"folds": 3}, "fold is 3; allowed: one of 1, 2"),
        ({}, {"folds": np.array([1, 4])}, "fold is 4; allowed: one of 1, 2"),
        ({}, {"folds": "1,2"}, "folds is '1,2'; allowed: all, or the numbers of folds"),
        ({}, {"branch_of": "trunk"}, "branch_of is 'trunk'; allowed: a name with {fold} in it"),
        ({}, {"branch_of": Path("trunk")}, "branch_of is 'trunk'; allowed: a name with {fold} in it"),
        ({"evaluation": {"test_keep_rates": []}}, {}, "evaluation.test_keep_rates is []; allowed: at least one"),
        (
            {"data": {"name": "csv", "options": {"validation_fold": 9}}},
            {},
            "validation_fold is 9; allowed: one of 1, 2, or next",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_fold(
    changes: dict[str, Any], options: dict[str, Any], said: str, tones: Path, tmp_path: Path
) -> None:
    with pytest.raises(InvalidSetting) as caught:
        cross_validate(plan(**changes), tones, tmp_path / "cv", **options)
    assert said in str(caught.value)
    assert not (tmp_path / "cv").exists()


def test_starts_and_trunks_may_be_paths(tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []

    def interrupted(*args: Any, **options: Any) -> None:
        told.append((options["init"], options["branch_of"]))
        raise KeyboardInterrupt

    looked_at = []
    monkeypatch.setattr("spectrim.training.cross_validation.train", interrupted)
    monkeypatch.setattr("spectrim.training.cross_validation.describe", lambda start: looked_at.append(str(start)))
    monkeypatch.setattr("spectrim.training.cross_validation.branching_point", lambda *run: looked_at.append(run[-1]))
    paths = {"init": Path("start{fold}"), "branch_of": Path("trunk{fold}")}
    with pytest.raises(KeyboardInterrupt):
        cross_validate(plan(), tones, tmp_path / "cv", folds=np.array([2]), **paths)
    assert told == [("start2", "trunk2")] and looked_at == ["start2", Path("trunk2")]


@pytest.mark.parametrize("named", ["init", "branch_of"])
def test_what_a_later_fold_starts_from_is_looked_at_before_the_first(
    named: str, tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(*asked: Any) -> None:
        if str(getattr(asked[-1], "source", asked[-1])).endswith("of2"):
            raise InvalidSetting(named, "of2", "one that is there")

    monkeypatch.setattr("spectrim.training.cross_validation.describe", look)
    monkeypatch.setattr("spectrim.training.cross_validation.branching_point", look)
    with pytest.raises(InvalidSetting, match="of2"):
        cross_validate(plan(), tones, tmp_path / "cv", **{named: "of{fold}"})
    assert not (tmp_path / "cv").exists()


def test_a_fold_that_another_process_trains_is_left_alone(tones: Path, tmp_path: Path) -> None:
    with sole_writer(tmp_path / "cv" / "fold2"), pytest.raises(InvalidSetting, match="fold2"):
        cross_validate(plan(), tones, tmp_path / "cv", folds=[2])
    assert not (tmp_path / "cv" / "fold2").exists()


def test_data_without_folds_are_told_how_to_get_them(tmp_path: Path) -> None:
    whole = make_folder(tmp_path / "sounds", {"a": 3, "b": 3})
    parted = make_folder(tmp_path / "parts", {"train/a": 3, "train/b": 3, "test/a": 1, "test/b": 1})
    folder = plan(data={"name": "folder", "options": {}})
    with pytest.raises(InvalidSetting) as caught:
        cross_validate(folder, whole, tmp_path / "cv")
    assert "folds: 5 under data.options in the recipe, or --set data.options.folds=5, deals" in str(caught.value)
    with pytest.raises(InvalidSetting, match="has folders of parts"):
        cross_validate(folder, parted, tmp_path / "cv")


@pytest.mark.parametrize(
    ("folds", "said"), [(4, "folds is 4; allowed: 2 to 3: at most"), ("5", "folds is '5'; allowed: a whole number")]
)
def test_folds_that_a_table_cannot_be_dealt_out_into_are_named(folds: int | str, said: str, tmp_path: Path) -> None:
    rows = [f"{number}.wav,{'ab'[number % 2]}" for number in range(6)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    with pytest.raises(InvalidSetting) as caught:
        cross_validate(plan(data={"name": "csv", "options": {"folds": folds}}), tmp_path, tmp_path / "cv")
    assert said in str(caught.value)


def test_folds_beside_a_column_that_says_the_parts_and_in_a_pack_without_them_are_refused(tmp_path: Path) -> None:
    root, packed = make_folder(tmp_path / "sounds", {"a": 3, "b": 3}), tmp_path / "packed"
    parts = ("train", "validation", "test")
    rows = [f"{label}/{number}.wav,{label},{part}" for label in "ab" for number, part in enumerate(parts)]
    (root / "labels.csv").write_text("\n".join(["path,label,split", *rows]) + "\n")
    pack("csv", root, packed)
    dealt = plan(data={"name": "csv", "options": {"folds": 2}})
    with pytest.raises(InvalidSetting, match=r"folds is 2; allowed: none: .* has a column split"):
        cross_validate(dealt, root, tmp_path / "cv")
    with pytest.raises(InvalidSetting, match=r"option folds is 2; allowed: None, with which .* was packed"):
        cross_validate(dealt, packed, tmp_path / "cv")


def test_a_label_that_a_model_never_hears_is_named_and_an_empty_fold_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_tones(tmp_path / "tones", per_fold=6, folds=2)
    rows = (root / "labels.csv").read_text().splitlines()
    (root / "labels.csv").write_text("\n".join([*rows[:-1], rows[-1].replace("middle", "rare")]) + "\n")
    small = plan(optimiser={"epochs": 1, "batch_size": 6}, evaluation={"test_keep_rates": [1.0]})
    with caplog.at_level(logging.WARNING):
        cross_validate(small, root, tmp_path / "cv", folds=[2])
    assert (
        "fold 2: no training clip has the label of 1 test clips, which its model cannot get right: rare" in caplog.text
    )
    one = [f"{row.rpartition(',')[0]},1" for row in rows[1:]]
    (root / "labels.csv").write_text("\n".join([rows[0], *one]) + "\n")
    with pytest.raises(DataError, match="fold 1: this part of the data set holds no clips"):
        cross_validate(small, root, tmp_path / "again")


def test_answers_that_cannot_be_read_are_named(crossed: tuple[Path, str, str], tmp_path: Path) -> None:
    content = (crossed[0] / "fold1" / "answers.npz").read_bytes()
    (tmp_path / "answers.npz").write_bytes(content[:-30])
    with pytest.raises(CheckpointError, match=r"answers\.npz: it cannot be read as the answers of a run"):
        Answers.load(tmp_path / "answers.npz")
    one = Answers.load(crossed[0] / "fold1" / "answers.npz")
    with pytest.raises(InvalidSetting, match="folds that share no clip"):
        Answers.together([one, one])
