from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import stats

from spectrim.pictures.report import Frame, Report
from spectrim.stats.t_intervals import by_fold, mean_over_runs
from spectrim.studies.keep_rates import add_study, answer, curve_rows, points, write_study

MACS = {1.0: 1000, 0.999: 1000, 0.9: 860, 0.7: 640, 0.5: 490}


def row(seed: int, trained: float, rate: float, value: float, **changes: Any) -> dict[str, Any]:
    named = {"backbone": "ast", "data": "esc50", "recipe": "x", "fold": 1, "metric": "accuracy", "test_clips": 2000}
    counts: dict[str, float] = {"paper_macs": MACS[rate], "executed_macs": MACS[rate] - 10}
    tested = {"seed": seed, "trained_keep_rate": trained, "keep_rate": rate, "value": value, "training_clips": 800}
    counts["base_fewer_macs"] = 1 - MACS[rate] / 1000
    return {**named, **tested, **counts, **changes}


def study() -> list[dict[str, Any]]:
    rows = []
    for seed, dense, tuned, free in ((1, 0.90, 0.895, 0.85), (2, 0.92, 0.91, 0.86), (3, 0.88, 0.88, 0.82)):
        rows += [row(seed, 1.0, 1.0, dense), row(seed, 1.0, 0.7, free), row(seed, 0.7, 0.7, tuned)]
        rows += [row(seed, 0.7, 1.0, 0.0), row(seed, 0.9, 0.9, dense), row(seed, 0.5, 0.5, dense - 0.05)]
    return rows


def controlled() -> list[dict[str, Any]]:
    """With a control that gains a point by ending masking and augmentations."""
    return [*study(), *(row(seed, 0.999, 0.999, value) for seed, value in ((1, 0.91), (2, 0.93), (3, 0.89)))]


def test_a_mean_has_students_interval() -> None:
    values = [1.0, 2.5, 2.0, 4.0]
    found = mean_over_runs(values)
    half = stats.t.ppf(0.975, 3) * np.std(values, ddof=1) / 2
    assert (found.value, found.runs) == (pytest.approx(2.375), 4)
    assert (found.low, found.high) == (pytest.approx(2.375 - half), pytest.approx(2.375 + half))
    assert str(mean_over_runs([1.0, 1.0, 1.0])) == "1.0 [1.0, 1.0]"


def test_seeds_of_a_fold_are_one_value_where_there_are_folds() -> None:
    runs = {(1, 0): 1.0, (1, 1): 3.0, (2, 0): 5.0, (2, 1): 6.0}
    assert by_fold(runs) == [2.0, 5.5]
    assert by_fold({run: value for run, value in runs.items() if run[0] == 1}) == [1.0, 3.0]
    assert by_fold({(None, 0): 2.0, (None, 1): 4.0}) == [2.0, 4.0]


def test_t_intervals_over_folds_and_seeds_hold_the_truth_as_often_as_they_say() -> None:
    """Five folds times five seeds, folds and runs varying alike; over 25 runs it would be in three of four cases."""
    generator, held = np.random.default_rng(0), {True: 0, False: 0}
    for _ in range(400):
        folds = generator.standard_normal(5)
        runs = {(fold, seed): folds[fold] + generator.standard_normal() for fold in range(5) for seed in range(5)}
        for averaged in held:
            found = mean_over_runs(by_fold(runs) if averaged else list(runs.values()))
            held[averaged] += found.low <= 0.0 <= found.high
    assert held[True] / 400 == pytest.approx(0.95, abs=0.03) and held[False] / 400 < 0.8


def test_fewer_than_three_runs_have_no_interval_and_none_no_mean() -> None:
    for values in ([3.0], [2.0, 4.0]):
        found = mean_over_runs(values)
        assert math.isnan(found.low)
        assert math.isnan(found.high)
        assert str(found) == "3.0"
    with pytest.raises(ValueError, match="no runs"):
        mean_over_runs([])


def test_points_pair_each_run_with_its_own_dense_model() -> None:
    found = {(point.trained, point.keep_rate): point for point in points(study())}
    assert set(found) == {(True, 1.0), (True, 0.9), (True, 0.7), (True, 0.5), (False, 0.7)}
    assert found[True, 0.7].lost.value == pytest.approx(np.mean([0.5, 1.0, 0.0]))
    assert found[False, 0.7].lost.value == pytest.approx(np.mean([5.0, 6.0, 6.0]))
    assert found[True, 0.7].fewer_macs == pytest.approx(0.36)
    assert found[True, 1.0].lost.value == 0.0


def test_a_run_without_its_dense_model_is_left_out() -> None:
    rows = [*study(), row(4, 0.7, 0.7, 0.1)]
    found = {(point.trained, point.keep_rate): point for point in points(rows)}
    assert found[True, 0.7].lost.runs == 3
    assert points([row(4, 0.7, 0.7, 0.1)]) == []


def test_the_answer_takes_the_highest_keep_rate_that_saves_enough() -> None:
    found = points(study())
    tuned = answer(found, "ast", "esc50", trained=True)
    assert tuned.point is not None
    assert tuned.point.keep_rate == 0.7
    assert (tuned.holds, tuned.surely, tuned.surely_not) == (True, False, False)
    assert str(tuned).startswith(
        "yes on average, not settled: keep rate 0.7 saves 36% of the MACs and loses 0.5 points"
    )
    assert tuned.paper == "points with the paper, without settling it"
    free = answer(found, "ast", "esc50", trained=False)
    assert (free.holds, free.surely_not) == (False, True)
    assert str(free).startswith(
        "no: keep rate 0.7 saves 36% of the MACs and loses 5.7 points; the interval over 3 runs"
    )
    assert free.paper == "contradicts the paper"
    nothing = answer(found, "audiomae", "esc50", trained=True)
    assert str(nothing).startswith("not measured: no keep rate that saves 30 %")
    assert (nothing.word, nothing.paper) == ("not measured", "not measured")


def test_an_answer_is_sure_only_with_its_whole_interval() -> None:
    gains = [row(seed, 1.0, 1.0, 0.8) for seed in (1, 2, 3)]
    gains += [row(seed, 0.7, 0.7, 0.81 + seed / 1000) for seed in (1, 2, 3)]
    given = answer(points(gains), "ast", "esc50", trained=True)
    assert (given.word, given.paper) == ("yes", "agrees with the paper")
    assert "gains 1.2 points" in str(given)
    unsure = [row(seed, 1.0, 1.0, 0.8) for seed in (1, 2, 3)]
    unsure += [row(seed, 0.7, 0.7, value) for seed, value in enumerate((0.75, 0.80, 0.79), 1)]
    given = answer(points(unsure), "ast", "esc50", trained=True)
    assert (given.word, given.paper) == (
        "no on average, not settled",
        "points against the paper, without settling it",
    )


def test_an_answer_needs_ground() -> None:
    def of(values: dict[float, list[float]], **changes: Any) -> str:
        rows = [row(seed, rate, rate, value, **changes) for rate in values for seed, value in enumerate(values[rate])]
        return str(answer(points(rows), "ast", "esc50", trained=True))

    gains = {1.0: [0.80, 0.80, 0.80], 0.7: [0.81, 0.815, 0.82], 0.5: [0.9, 0.9, 0.9]}
    assert of(gains).startswith("yes: keep rate 0.7")
    few = of(gains, test_clips=200)
    assert few.startswith("cannot say (200 clips were seen, and a margin of one point takes at least 1,178 at a disc")
    assert of(gains, chance=0.79).startswith("cannot say (the dense model, 80.0 %, is near chance, 79.0 %")
    equal = {1.0: [0.8, 0.8, 0.8], 0.7: [0.8, 0.8, 0.8]}
    assert of(equal).startswith("cannot say (the interval has no width)")
    lost = {1.0: [0.80, 0.80, 0.80], 0.7: [0.51, 0.515, 0.52]}
    assert of(lost, test_clips=200).startswith("no: ")


def test_clips_of_folds_without_a_partner_do_not_count() -> None:
    """Five pruned folds of 300 clips and three dense ones are three folds: 900 clips, where 1,178 are wanted."""
    rows = [
        row(0, 0.7, 0.7, value, fold=fold, test_clips=300) for fold, value in enumerate([0.81, 0.815, 0.82] + [0.8] * 2)
    ]
    rows += [row(0, 1.0, 1.0, 0.80, fold=fold, test_clips=300) for fold in range(3)]
    assert str(answer(points(rows), "ast", "esc50", trained=True)).startswith("cannot say (900 clips were seen")


def test_one_or_two_runs_are_called_so() -> None:
    one = [row(1, 1.0, 1.0, 0.9), row(1, 0.7, 0.7, 0.895)]
    assert str(answer(points(one), "ast", "esc50", trained=True)) == (
        "cannot say (one run): keep rate 0.7 saves 36% of the MACs and loses 0.5 points; too few runs for an interval."
    )
    two = [*one, row(2, 1.0, 1.0, 0.9), row(2, 0.7, 0.7, 0.8)]
    assert answer(points(two), "ast", "esc50", trained=True).word == "cannot say"


def test_against_the_control_pruning_loses_what_ending_masks_gains() -> None:
    dense, control = (answer(points(controlled(), base), "ast", "esc50", trained=True) for base in (1.0, 0.999))
    assert dense.point is not None
    assert control.point is not None
    assert control.point.lost.value == pytest.approx(dense.point.lost.value + 1.0)
    assert control.point.base.value == pytest.approx(91.0)
    assert control.point.fewer_macs == dense.point.fewer_macs
    assert points(study(), 0.999) == []


def test_curves_are_about_the_same_models_where_runs_are_missing() -> None:
    """Of keep rate 0.5 only the best run is there: its loss counts, and not that it is the best."""
    rows = [row_ for row_ in study() if row_["trained_keep_rate"] != 0.5 or row_["seed"] == 2]
    curve = {(row_["series"], row_["keep_rate"]): row_ for row_ in curve_rows(points(rows))}
    assert set(curve) == {
        *(("fine-tuned", rate) for rate in (1.0, 0.9, 0.7, 0.5)),
        *(("training-free", rate) for rate in (1.0, 0.7)),
    }
    assert curve["fine-tuned", 1.0]["value"] == pytest.approx(0.9)
    assert curve["fine-tuned", 0.5]["value"] == pytest.approx(0.85)
    assert math.isnan(curve["fine-tuned", 0.5]["low"])
    lost = stats.ttest_1samp([0.05, 0.06, 0.06], 0.0).confidence_interval(0.95)
    assert curve["training-free", 0.7]["low"] == pytest.approx(0.9 - lost.high)
    assert curve["training-free", 0.7]["high"] == pytest.approx(0.9 - lost.low)


def test_the_report_stands_alone_and_names_what_is_missing(tmp_path: Path) -> None:
    frame = Frame("A <study>", ["About it."], "spectrim reproduce", missing=["x"], steps=9)
    place = write_study(controlled(), tmp_path, frame)
    page, text = place.read_text(), (tmp_path / "report.md").read_text()
    assert "A &lt;study&gt;" in page
    assert 'src="data:image/svg+xml;base64,' in page
    assert "http" not in page.replace("http-equiv", "")
    assert "Not finished: 8 of 9 steps are done" in text
    assert "| AST on ESC-50 | fine-tuned with pruning | 91.0 | 0.7 | 36% | 1.5 [0.3, 2.7] | 3 | no on average" in text
    assert "| AST on ESC-50 | training-free | 90.0 | 0.7 | 36% | 5.7 [" in text
    assert "| AST on ESC-50 | 0.7 | 1.5 [0.3, 2.7] | 3 | 0.5 [-0.7, 1.7] | 3 |" in text
    assert "* AST on ESC-50: points with the paper, without settling it." in text
    assert "| 0.7 | 0.0 M | 36% | 89.5 [" in text
    assert "in ViT-B" not in text
    assert "800 training clips, 2,000 test clips a run; one test clip is 0.05 points. Metric: accuracy, in %." in text
    assert "* x" in text
    assert (tmp_path / "figures" / "ast-on-esc-50.png").is_file()


def test_each_pair_has_its_own_metric_and_a_pair_without_pruned_training_no_answer_of_that_kind(tmp_path: Path) -> None:
    changes = {"data": "audioset", "metric": "mAP", "fold": None}
    rows = [*study(), row(0, 1.0, 1.0, 0.4, **changes), row(0, 1.0, 0.7, 0.395, **changes, base_fewer_macs=0.3)]
    report = Report("t", tmp_path)
    add_study(report, rows)
    text = report.markdown()
    assert "| AST on AudioSet | training-free | 40.0 | 0.7 | 36% | 0.5 | 1 | cannot say |" in text
    assert "AST on AudioSet | fine-tuned" not in text
    assert "| keep rate | MACs | fewer | in ViT-B | mAP, fine-tuned" in text
    assert "| 0.7 | 0.0 M | 36% | 30% |  |  |  | 39.5 | 0.5 | 1 |" in text
    assert "one test clip is" not in text.split("## AST on AudioSet")[1].split("## AST on ESC-50")[0]


def test_the_page_holds_the_smaller_form_of_a_figure(tmp_path: Path) -> None:
    report = Report("t", tmp_path)
    for name, size in (("few", 3), ("many", 20_000)):
        figure = Figure()
        figure.add_subplot().scatter(*np.random.default_rng(0).random((2, size)), s=1)
        report.figure(name, figure, name)
    page = report.write().read_text()
    assert re.findall(r'alt="(\w+)" width="\d+" src="data:image/([a-z+]+);', page) == [
        ("few", "svg+xml"),
        ("many", "png"),
    ]


def test_a_report_escapes_cells_in_both_forms(tmp_path: Path) -> None:
    report = Report("t", tmp_path)
    report.table(["a", "b"], [["x|y", "<b>"]])
    report.items(["one"])
    report.write()
    assert "| x\\|y | &lt;b> |" in (tmp_path / "report.md").read_text()
    assert "&lt;b&gt;" in (tmp_path / "report.html").read_text()


def test_an_empty_study_writes_no_tables(tmp_path: Path) -> None:
    report = Report("t", tmp_path)
    add_study(report, [])
    assert report.markdown() == "# t\n"
