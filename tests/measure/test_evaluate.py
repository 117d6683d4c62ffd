"""Evaluations against scikit-learn and scipy on scores made by hand, over points, folds and seeds."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import accuracy_score, average_precision_score, confusion_matrix, recall_score, roc_auc_score
from tone_table import LABELS, small_model, write_tones

from spectrim.assets import packaged_clips
from spectrim.checkpoints import DescribedSource, describe, from_pretrained
from spectrim.data import DATA_SETS
from spectrim.errors import CheckpointError, DataError, InvalidSetting
from spectrim.inference.predict import predict_files
from spectrim.inference.torch_model import TorchModel
from spectrim.measure import evaluate as evaluation
from spectrim.measure.evaluate import Evaluation, evaluate
from spectrim.measure.metric_intervals import clip_intervals
from spectrim.measure.scoring import score_part
from spectrim.network.macs import macs
from spectrim.pruning.pruning import Pruning
from spectrim.pruning.reducers import REDUCERS
from spectrim.stats.groups import Groups

RATES = (1.0, 0.4)
QUICK: dict[str, Any] = {"device": "cpu", "workers": 0, "resamples": 100}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tones(tmp_path_factory.mktemp("tones") / "set")


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model for each of three folds and two seeds, as a template."""
    folder = tmp_path_factory.mktemp("models")
    for fold in (1, 2, 3):
        for seed in (12, 34):
            small_model(100 * fold + seed).save_pretrained(folder / f"fold{fold}" / f"seed{seed}")
    return str(folder / "fold{fold}" / "seed{seed}")


@pytest.fixture(scope="module")
def model(models: str) -> str:
    return models.format(fold=1, seed=12)


@pytest.fixture(scope="module")
def one(model: str, root: Path) -> Evaluation:
    return evaluate(model, "csv", root, folds=[2], keep_rates=RATES, criteria=("auto", "intensity"), **QUICK)


def test_models_that_rank_differently_are_told_how(models: str, root: Path, tmp_path: Path) -> None:
    for seed, criterion in ((12, "auto"), (42, "value_norm")):
        from_pretrained(models.format(fold=1, seed=12), criterion=criterion).save_pretrained(tmp_path / f"seed{seed}")
    model, both = str(tmp_path / "seed{seed}"), {"folds": [1], "seeds": [12, 42], "keep_rates": (0.4,), **QUICK}
    with pytest.raises(InvalidSetting, match="allowed: auto, as in the others"):
        evaluate(model, "csv", root, **both)
    rows = evaluate(model, "csv", root, criteria=("value_norm",), **both).rows
    assert {row["criterion"] for row in rows} == {"value_norm"}
    told = DescribedSource(str(tmp_path / "seed12"), criterion="intensity")
    assert describe(told)["criterion"] == "intensity"
    alone = evaluate(told, "csv", root, folds=[1], keep_rates=(0.4,), draws=0, **QUICK)
    assert {row["criterion"] for row in alone.rows} == {"intensity"}


def scored(model: str, root: Path, fold: int, points: Sequence[Pruning]) -> tuple[np.ndarray, list[np.ndarray]]:
    found = score_part(from_pretrained(model), DATA_SETS["csv"].open(root, "test", fold=fold), points, device="cpu")
    return found.targets, [found.scores[point] for point in points]


def test_a_row_holds_the_metrics_of_its_point_with_intervals_and_costs(one: Evaluation, model: str, root: Path) -> None:
    points = [Pruning(1.0, (1,), "auto"), Pruning(0.4, (1,), "auto"), Pruning(0.4, (1,), "intensity")]
    targets, scores = scored(model, root, 2, points)
    bounds = clip_intervals(scores, targets, "accuracy", resamples=100)
    rows = [row for row in one.rows if (row["keep_rate"], row["criterion"]) != (1.0, "intensity")]
    assert [(row["keep_rate"], row["criterion"]) for row in rows] == [
        (1.0, "cls_attention"),
        (0.4, "cls_attention"),
        (0.4, "intensity"),
    ]
    truth = targets.argmax(1)
    dense = accuracy_score(truth, scores[0].argmax(1))
    for number, (row, found) in enumerate(zip(rows, scores, strict=True)):
        point = Pruning(row["keep_rate"], (1,), row["criterion"])
        count = macs(from_pretrained(model), pruning=point)
        assert row["accuracy"] == pytest.approx(accuracy_score(truth, found.argmax(1)))
        assert row["change"] == pytest.approx(accuracy_score(truth, found.argmax(1)) - dense)
        assert row["mAP"] == pytest.approx(average_precision_score(targets, found, average="macro"))
        assert row["AUC"] == pytest.approx(roc_auc_score(targets, found, average="macro"))
        assert row["d_prime"] == pytest.approx(math.sqrt(2) * stats.norm.ppf(row["AUC"]))
        ends = [row[name] for name in ("accuracy_low", "accuracy_high", "change_low", "change_high")]
        assert ends == pytest.approx([float(end[number]) for end in bounds])
        assert (row["paper_macs"], row["executed_macs"]) == (count.paper, count.executed)
        whole = macs(from_pretrained(model), keep_rate=1.0).paper
        assert row["macs_saved"] == pytest.approx((whole - count.paper) / whole)
    assert len({row["mAP"] for row in rows}) == 3


def test_the_dense_model_is_the_same_for_every_criterion(one: Evaluation) -> None:
    first, second = (row for row in one.rows if row["keep_rate"] == 1.0)
    assert (first["criterion"], second["criterion"]) == ("cls_attention", "intensity")
    assert {**first, "criterion": ""} == {**second, "criterion": ""}
    assert (first["change"], first["change_low"], first["change_high"], first["macs_saved"]) == (0, 0, 0, 0)


def test_a_model_in_memory_is_measured_as_its_file(one: Evaluation, model: str, root: Path) -> None:
    loaded = from_pretrained(model).train()
    same = {"folds": np.array([2]), "keep_rates": RATES, "criteria": ("auto", "intensity"), **QUICK}
    found = evaluate(loaded, "csv", root, **same)
    timed = dict.fromkeys(("ms_per_clip", "speed_up"))
    assert [row | timed for row in found.rows] == [row | timed for row in one.rows]
    assert loaded.training and (found.facts["model"], found.runs[0]["model"]) == ("the model", "the model")
    backend = TorchModel(loaded.eval(), Pruning(0.4, (0,), "intensity"))
    rows = evaluate(backend, "csv", root, folds=2, keep_rates=0.4, **QUICK).rows
    count = macs(loaded, pruning=backend.pruning)
    assert [(row["keep_rate"], row["criterion"]) for row in rows] == [(1.0, "intensity"), (0.4, "intensity")]
    assert rows[1]["executed_macs"] == count.executed
    for name, fields, said in (
        ("folds", {"folds": [1, 2]}, "model is 'the model'; allowed: a name with {fold} in it for 2 folds"),
        ("reducer", {"reducer": "cluster"}, r"reducer is 'cluster'; .*model\.set_pruning\(reducer=…\)"),
    ):
        with pytest.raises(InvalidSetting, match=said):
            evaluate(loaded, "csv", root, **{**same, **fields}), name
    with pytest.raises(InvalidSetting, match=r"model is 'the model'; .* an exported file has one operating point only"):
        evaluate(Exported(loaded), "csv", root, **same)
    loaded.config.prune_at = []
    with pytest.raises(InvalidSetting, match=r"prune_at is \[\]; allowed: one block or more"):
        evaluate(loaded, "csv", root, **same)
    with pytest.raises(InvalidSetting, match=r"model is 'Linear'; .*spectrim\.prune makes one"):
        evaluate(torch.nn.Linear(2, 2), "csv", root, **same)


class Exported(TorchModel):
    """Stands in for a model with one operating point."""

    prunable = False


def test_a_reducer_is_that_of_a_model_that_was_loaded_with_it(model: str, root: Path) -> None:
    same = {"folds": [2], "keep_rates": np.array([0.4]), **QUICK}
    found = evaluate(model, "csv", root, reducer="cluster", **same)
    loaded = evaluate(from_pretrained(model, reducer="cluster"), "csv", root, **same)
    timed = dict.fromkeys(("ms_per_clip", "speed_up"))
    assert [row | timed for row in found.rows] == [row | timed for row in loaded.rows]
    assert {row["reducer"] for row in found.rows} == {"cluster"} and len(found.rows) == 2


def test_random_pruning_is_the_mean_of_its_draws_and_stands_beside_every_ranking(model: str, root: Path) -> None:
    found = evaluate(model, "csv", root, folds=[2], keep_rates=(0.4,), criteria=("intensity",), draws=3, **QUICK)
    draws = [Pruning(0.4, (1,), "random", seed=seed) for seed in range(3)]
    targets, (ranked, *drawn) = scored(model, root, 2, [Pruning(0.4, (1,), "intensity"), *draws])
    truth = targets.argmax(1)
    values = [accuracy_score(truth, scores.argmax(1)) for scores in drawn]
    rows = {(row["criterion"], row["keep_rate"]): row for row in found.rows}
    assert list(rows) == [("intensity", 1.0), ("intensity", 0.4), ("random", 0.4)]
    random, ranking = rows["random", 0.4], rows["intensity", 0.4]
    assert (random["draws"], random["accuracy"]) == (3, pytest.approx(np.mean(values)))
    assert ranking["over_random"] == pytest.approx(accuracy_score(truth, ranked.argmax(1)) - np.mean(values))
    assert ranking["over_random_low"] <= ranking["over_random"] <= ranking["over_random_high"]
    assert ranking["against_random"] == "cannot say" and "near chance" in ranking["why_random"]
    assert random["against_random"] is None and rows["intensity", 1.0]["over_random"] is None


@pytest.mark.parametrize("reducer", [name for name in REDUCERS if name != "dynamicvit"])
def test_every_reducer_is_measured_as_it_is_beside_patches_dropped_at_random(
    reducer: str, model: str, root: Path, tmp_path: Path
) -> None:
    """One whose reducer reads no scores, or weighs by them, can have no random ones itself."""
    from_pretrained(model, keep_rate=0.6, reducer=reducer, drop_padding=False).save_pretrained(tmp_path / "model")
    found = evaluate(str(tmp_path / "model"), "csv", root, folds=[2], keep_rates=(0.6,), draws=2, **QUICK)
    rows = [(row["keep_rate"], row["criterion"], row["reducer"], row["draws"]) for row in found.rows]
    own = "cls_attention" if REDUCERS[reducer].reads == "scores" else "auto"
    assert rows == [(1.0, own, reducer, 1), (0.6, own, reducer, 1), (0.6, "random", "drop", 2)]
    at = from_pretrained(tmp_path / "model").config.pruning.at
    points = [Pruning(0.6, at, reducer=reducer), *(Pruning(0.6, at, "random", seed=seed) for seed in range(2))]
    targets, scores = scored(str(tmp_path / "model"), root, 2, points)
    values = [accuracy_score(targets.argmax(1), each.argmax(1)) for each in scores]
    assert found.rows[1]["accuracy"] == pytest.approx(values[0])
    assert found.rows[2]["accuracy"] == pytest.approx(np.mean(values[1:]))
    assert found.rows[1]["over_random"] == pytest.approx(values[0] - np.mean(values[1:]))


def test_more_patches_than_random_pruning_keeps_are_no_better_ranking(model: str, root: Path, tmp_path: Path) -> None:
    from_pretrained(model, keep_rate=0.3, attention_mass=0.9).save_pretrained(tmp_path / "model")
    found = evaluate(str(tmp_path / "model"), "csv", root, folds=[2], keep_rates=(0.3,), draws=2, **QUICK)
    row = found.rows[1]
    assert row["over_random"] is not None and row["against_random"] == "cannot say"
    assert row["why_random"].startswith("attention_mass leaves clips more patches")


def test_over_folds_the_difference_from_random_is_that_of_each_run(models: str, root: Path) -> None:
    given = {"folds": [1, 2, 3], "seeds": [12], "keep_rates": (0.4,), "criteria": ("intensity",)}
    found = evaluate(models, "csv", root, draws=2, **given, **QUICK)
    differences = []
    for fold in (1, 2, 3):
        one = evaluate(
            models.format(fold=fold, seed=12), "csv", root, draws=2, **{**given, "folds": [fold], "seeds": []}, **QUICK
        )
        differences.append(one.rows[1]["over_random"])
    row = found.rows[1]
    assert row["over_random"] == pytest.approx(np.mean(differences))
    reach = stats.t.ppf(0.975, 2) * stats.sem(differences)
    assert row["over_random_high"] - row["over_random"] == pytest.approx(reach)


def test_each_label_has_a_row_at_each_point(one: Evaluation, model: str, root: Path) -> None:
    targets, (_, found) = scored(model, root, 2, [Pruning(1.0, (1,), "auto"), Pruning(0.4, (1,), "auto")])
    assert len(one.per_class) == 4 * len(LABELS)
    rows = [row for row in one.per_class if (row["keep_rate"], row["criterion"]) == (0.4, "cls_attention")]
    assert [row["label"] for row in rows] == list(LABELS)
    recalls = recall_score(targets.argmax(1), found.argmax(1), average=None)
    for number, row in enumerate(rows):
        assert row["positives"] == targets[:, number].sum() == 4
        assert row["average_precision"] == pytest.approx(average_precision_score(targets[:, number], found[:, number]))
        assert row["AUC"] == pytest.approx(roc_auc_score(targets[:, number], found[:, number]))
        assert row["recall"] == pytest.approx(recalls[number])
    matrix = confusion_matrix(targets.argmax(1), found.argmax(1))
    taken = [row for row in one.confusions if (row["keep_rate"], row["criterion"]) == (0.4, "cls_attention")]
    assert len(taken) == np.count_nonzero(matrix)
    for row in taken:
        assert row["clips"] == matrix[LABELS.index(row["label"]), LABELS.index(row["answer"])]
    wrong = [row["clips"] for row in taken if row["label"] != row["answer"]]
    assert wrong == sorted(wrong, reverse=True) == [row["clips"] for row in taken[: len(wrong)]]


def test_the_facts_say_what_was_done(one: Evaluation, model: str) -> None:
    facts = one.facts
    assert (facts["model"], facts["data_set"], facts["part"], facts["metric"]) == (model, "csv", "test", "accuracy")
    assert (facts["folds"], facts["seeds"], facts["runs"], facts["clips"], facts["labels"]) == ([2], [], 1, 12, 3)
    assert facts["interval"] == "95 %, percentiles of 100 bootstrap resamples of the 12 clips"
    assert facts["environment"]["versions"]["torch"] == torch.__version__
    assert (facts["unreadable"], facts["missing"], facts["undefined"]) == ([], [], {"mAP": [], "AUC": []})
    assert json.loads(json.dumps(one.as_dict(), allow_nan=False))["rows"][1]["accuracy"] == one.rows[1]["accuracy"]


def test_folds_and_seeds_are_averaged_with_students_t(models: str, root: Path) -> None:
    done: list[tuple[int, int]] = []
    found = evaluate(
        models,
        "csv",
        root,
        folds="all",
        seeds=[12, 34],
        keep_rates=[0.4],
        on_progress=lambda *at: done.append(at),
        **QUICK,
    )
    runs = [(fold, seed) for fold in (1, 2, 3) for seed in (12, 34)]
    each: dict[float, list[float]] = {1.0: [], 0.4: []}
    recalls = []
    for fold, seed in runs:
        points = [Pruning(rate, (1,), "auto") for rate in each]
        targets, scores = scored(models.format(fold=fold, seed=seed), root, fold, points)
        for rate, values in zip(each, scores, strict=True):
            each[rate].append(accuracy_score(targets.argmax(1), values.argmax(1)))
        recalls.append(recall_score(targets.argmax(1), scores[1].argmax(1), average=None))
    assert [(run["fold"], run["seed"]) for run in found.runs] == runs
    assert [row["keep_rate"] for row in found.rows] == [1.0, 0.4]
    for number, rate in enumerate(each):
        assert [run["rows"][number]["accuracy"] for run in found.runs] == pytest.approx(each[rate])
    for name, values in (("accuracy", np.array(each[0.4])), ("change", np.subtract(each[0.4], each[1.0]))):
        row = found.rows[1]
        assert row[name] == pytest.approx(values.mean())
        assert np.ptp(values) > 0
        of_folds = values.reshape(3, 2).mean(axis=1)
        low, high = stats.t.interval(0.95, 2, loc=values.mean(), scale=stats.sem(of_folds))
        assert (row[f"{name}_low"], row[f"{name}_high"]) == pytest.approx((low, high))
    assert (found.rows[0]["change_low"], found.rows[0]["change_high"]) == (0, 0)
    labels = [row for row in found.per_class if row["keep_rate"] == 0.4]
    assert [row["recall"] for row in labels] == pytest.approx(np.mean(recalls, axis=0))
    assert [row["positives"] for row in labels] == [12, 12, 12]
    assert (found.facts["folds"], found.facts["seeds"], found.facts["clips"]) == ([1, 2, 3], [12, 34], 36)
    assert found.facts["interval"] == "95 %, Student's t over 3 folds, the seeds of each averaged"
    assert (done[0], done[-1]) == ((12, 72), (72, 72))


def test_further_seeds_make_no_more_speakers(models: str, root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "set")
    with (root / "labels.csv").open(newline="") as file:
        clips = list(csv.DictReader(file))
    with (tmp_path / "set" / "labels.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, [*clips[0], "speaker"])
        table.writeheader()
        table.writerows({**clip, "speaker": f"s{number % 3}"} for number, clip in enumerate(clips))
    for seeds in ([12], [12, 34, 12]):
        model = models.format(fold=1, seed="{seed}")
        found = evaluate(model, "csv", tmp_path / "set", folds=[1], seeds=seeds, keep_rates=[0.4], draws=2, **QUICK)
        for row in found.rows[1:]:
            assert row["under_one_point"] == "cannot say" and row["why"].startswith(
                "3 speakers or recordings are too few"
            )
        assert found.rows[1]["why_random"].startswith("3 speakers or recordings are too few")


def test_several_labels_are_judged_by_map(tmp_path: Path) -> None:
    root = write_tones(tmp_path / "set", per_fold=14, folds=1, several=True)
    small_model(3, several=True).save_pretrained(tmp_path / "model")
    options = {"fold": 1}
    found = evaluate(tmp_path / "model", "csv", root, keep_rates=RATES, options=options, **QUICK)
    row = found.rows[1]
    assert found.facts["metric"] == "mAP"
    assert "accuracy" not in row
    assert "recall" not in found.per_class[0]
    assert found.confusions == []
    assert row["mAP_low"] + row["mAP_high"] == pytest.approx(2 * row["mAP"])
    assert "standard errors" in found.facts["interval"]
    targets, (scores,) = scored(str(tmp_path / "model"), root, 1, [Pruning(0.4, (1,), "auto")])
    assert row["mAP"] == pytest.approx(average_precision_score(targets, scores, average="macro"))


def test_clips_that_do_not_count_and_labels_without_clips_are_named(model: str, tmp_path: Path) -> None:
    root = write_tones(tmp_path / "set", per_fold=6, folds=2)
    (root / "2.wav").write_bytes(b"")
    (root / "5.wav").unlink()
    found = evaluate(model, "csv", root, folds=[1], keep_rates=[1.0], options={"bad_share": 0.5}, **QUICK)
    assert (found.facts["unreadable"], found.facts["missing"], found.facts["clips"]) == (["2.wav"], ["5.wav"], 4)
    assert found.facts["undefined"] == {"mAP": ["middle"], "AUC": ["middle"]}
    middle = found.per_class[LABELS.index("middle")]
    assert (middle["positives"], middle["average_precision"], middle["AUC"], middle["recall"]) == (0, None, None, None)
    assert found.rows[0]["mAP"] > 0


def test_times_are_medians_over_runs(models: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([(4.0, 2.0), (6.0, 2.0), (5.0, 1.0)])
    real = evaluation.score_part

    def timed(*args: Any, **options: Any) -> Any:
        found = real(*args, **options)
        object.__setattr__(found, "milliseconds", dict(zip(found.scores, next(times), strict=True)))
        return found

    monkeypatch.setattr(evaluation, "score_part", timed)
    found = evaluate(models, "csv", root, folds="all", seeds=[12], keep_rates=RATES, **QUICK)
    assert [(row["ms_per_clip"], row["speed_up"]) for row in found.rows] == [(5.0, 1.0), (2.0, 3.0)]
    times = iter([(None, None)])
    found = evaluate(models, "csv", root, folds=[1], seeds=[12], keep_rates=RATES, **QUICK)
    assert [(row["ms_per_clip"], row["speed_up"]) for row in found.rows] == [(None, None)] * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep_rates": [1.0, 0.0]}, r"keep_rate is 0\.0"),
        ({"keep_rates": []}, "keep_rates is"),
        ({"keep_rates": 1.5}, r"keep_rate is 1\.5"),
        ({"keep_rates": "0.5"}, r"keep_rate is '0\.5'"),
        ({"criteria": "loudness"}, "criterion is 'loudness'; allowed: one of auto"),
        ({"model": "MODEL", "seeds": [], "reducer": "shrink"}, "reducer is 'shrink'"),
        ({"criteria": ["loudness"]}, "criterion is 'loudness'; allowed: one of auto"),
        ({"criteria": ["attention"]}, "criterion is 'attention'; allowed: 'auto', perhaps; one of auto"),
        ({"criteria": []}, "criterion is"),
        ({"part": "everything"}, "part is 'everything'"),
        ({"data_set": "birds"}, "data set is 'birds'"),
        ({"device": "tpu"}, "device is 'tpu'"),
        ({"folds": [4], "seeds": [12]}, "fold is 4; allowed: one of 1, 2, 3"),
        ({"folds": "all", "seeds": [12], "options": {"fold": 1}}, "option fold is 1"),
        ({"options": {"colour": "red"}}, "option colour is 'red'"),
        ({"folds": [1], "seeds": []}, r"seeds is \[\]; allowed: at least one seed, for {seed} in"),
        ({"folds": [], "seeds": [12]}, r"folds is \[\]; allowed: at least one fold"),
        ({"model": "MODEL", "folds": [1, 2]}, "a name with {fold} in it for 2 folds: a model trained without one"),
        ({"model": "MODEL", "folds": [1], "seeds": [1, 2]}, "a name with {seed} in it for 2 seeds"),
        (
            {"model": "spectrim-mini"},
            r"86 labels such as Arabic: backward, Arabic: cancel, .* and 83 more"
            r".*3, of which it does not know high, low, middle",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_any_clip_is_scored(
    models: str, model: str, root: Path, settings: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "open_model", lambda *_: pytest.fail("a model was loaded"))
    wanted = {"model": models, "data_set": "csv", "root": root, "folds": [1], "seeds": [12], **settings}
    wanted["model"] = model if wanted["model"] == "MODEL" else wanted["model"]
    if wanted["model"] == "spectrim-mini":
        wanted["seeds"] = []
    with pytest.raises(InvalidSetting, match=message):
        evaluate(**{**QUICK, **wanted})


def test_a_missing_model_of_a_late_fold_is_found_at_once(
    models: str, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "open_model", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(CheckpointError, match="fold1/seed56"):
        evaluate(models, "csv", root, folds="all", seeds=[12, 56], **QUICK)
    other = small_model(1)
    other.set_pruning(prune_at=[2])
    for seed, network in ((12, small_model(0)), (34, other)):
        network.save_pretrained(tmp_path / f"seed{seed}")
    with pytest.raises(InvalidSetting, match=r"prune_at of .*seed34 is \[2\]; allowed: \[1\], as in the others"):
        evaluate(tmp_path / "seed{seed}", "csv", root, folds=[1], seeds=[12, 34], **QUICK)


def test_a_data_set_without_folds_or_clips_is_refused(model: str, tmp_path: Path) -> None:
    root = write_tones(tmp_path / "set", per_fold=30, folds=1)
    table = (root / "labels.csv").read_text().splitlines()
    (root / "labels.csv").write_text("\n".join(line.rpartition(",")[0] for line in table))
    with pytest.raises(InvalidSetting, match=r"folds is 'all'; allowed: none: csv in .* is not divided into folds; "):
        evaluate(model, "csv", root, folds="all", options={"test_share": 0.5, "validation_share": 0.2}, **QUICK)
    with pytest.raises(DataError):
        evaluate(model, "csv", tmp_path / "nowhere", **QUICK)


def test_the_embedded_model_on_packaged_clips_says_what_predict_says(tmp_path: Path) -> None:
    clips = packaged_clips()
    tested = clips[::4]
    assert len(tested) == 35
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "label", "split"])
        parts = ("test", "validation", "train", "train")
        table.writerows((path, label, parts[number % 4]) for number, (path, label) in enumerate(clips))
    found = evaluate("spectrim-mini", "csv", tmp_path, keep_rates=[0.5], batch_size=16, **QUICK)
    for row in found.rows:
        said = predict_files(
            [str(path) for path, _ in tested], "spectrim-mini", keep_rate=row["keep_rate"], device="cpu"
        )
        right = [prediction.top(1)[0][0] == label for prediction, (_, label) in zip(said, tested, strict=True)]
        assert row["accuracy"] == pytest.approx(np.mean(right))
        assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]
    assert found.rows[0]["accuracy"] > 0.8
    assert found.rows[0]["top5_accuracy"] >= found.rows[0]["accuracy"]


def test_what_json_cannot_say_is_null() -> None:
    found = Evaluation(
        {"metric": "mAP"}, [{"d_prime": math.inf, "mAP": math.nan, "AUC": 1.0}], [], [], [{"rows": [math.nan]}]
    )
    assert found.as_dict() == {
        "facts": {"metric": "mAP"},
        "rows": [{"d_prime": None, "mAP": None, "AUC": 1.0}],
        "per_class": [],
        "confusions": [],
        "runs": [{"rows": [None]}],
    }


def test_intervals_are_over_speakers_where_the_table_names_them(model: str, tmp_path: Path) -> None:
    root = write_tones(tmp_path / "tones", per_fold=36, folds=1)
    table = root / "labels.csv"
    head, *rows = table.read_text().splitlines()
    plain = evaluate(model, "csv", root, keep_rates=(0.4,), options={"fold": 1}, **QUICK)
    for speakers in (9, 4):
        named = [f"{row},s{number % speakers}" for number, row in enumerate(rows)]
        table.write_text("\n".join([f"{head},speaker", *named]) + "\n")
        found = evaluate(model, "csv", root, keep_rates=(0.4,), options={"fold": 1}, **QUICK)
        part = DATA_SETS["csv"].open(root, "test", fold=1)
        points = [Pruning(1.0, (1,), "auto"), Pruning(0.4, (1,), "auto")]
        of_clips = score_part(from_pretrained(model), part, points, device="cpu")
        groups = Groups.of(np.arange(36) % speakers)
        scores = [of_clips.scores[point] for point in points]
        bounds = clip_intervals(scores, of_clips.targets, "accuracy", groups=groups, resamples=100)
        assert (found.facts["groups"], plain.facts["groups"]) == (speakers, None)
        assert f"resamples of the {speakers} speakers or recordings of the 36 clips" in found.facts["interval"]
        for number, (row, other) in enumerate(zip(found.rows, plain.rows, strict=True)):
            assert (row["accuracy"], row["change"]) == (other["accuracy"], other["change"])
            ends = [row[name] for name in ("accuracy_low", "accuracy_high", "change_low", "change_high")]
            assert ends == pytest.approx([float(end[number]) for end in bounds])
        assert found.rows[1]["under_one_point"] == "cannot say"
    assert found.rows[1]["why"] == "4 speakers or recordings are too few; it takes 6"
