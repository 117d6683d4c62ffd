from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from spectrim.analysis.report import Report
from spectrim.analysis.study import add_study, answer, curve_rows, mean_over_runs, points, write_study

MACS = {1.0: 1000, 0.9: 860, 0.7: 640, 0.5: 490}


def row(seed: int, trained: float, rate: float, value: float, **changes: Any) -> dict[str, Any]:
    named = {"backbone": "ast", "data": "esc50", "recipe": "x", "fold": 1, "metric": "accuracy", "test_clips": 200}
    counts = {"paper_macs": MACS[rate], "executed_macs": MACS[rate] - 10}
    tested = {"seed": seed, "trained_keep_rate": trained, "keep_rate": rate, "value": value}
    return {**named, **tested, **counts, **changes}


def study() -> list[dict[str, Any]]:
    rows = []
    for seed, dense, tuned, free in ((1, 0.90, 0.895, 0.85), (2, 0.92, 0.91, 0.86), (3, 0.88, 0.88, 0.82)):
        rows += [row(seed, 1.0, 1.0, dense), row(seed, 1.0, 0.7, free), row(seed, 0.7, 0.7, tuned)]
        rows += [row(seed, 0.7, 1.0, 0.0), row(seed, 0.9, 0.9, dense), row(seed, 0.5, 0.5, dense - 0.05)]
    return rows


def test_a_mean_has_students_interval() -> None:
    values = [1.0, 2.5, 2.0, 4.0]
    found = mean_over_runs(values)
    half = stats.t.ppf(0.975, 3) * np.std(values, ddof=1) / 2
    assert (found.value, found.runs) == (pytest.approx(2.375), 4)
    assert (found.low, found.high) == (pytest.approx(2.375 - half), pytest.approx(2.375 + half))
    assert str(mean_over_runs([1.0, 1.0])) == "1.0 [1.0, 1.0]"


def test_one_run_has_no_interval_and_none_no_mean() -> None:
    found = mean_over_runs([3.0])
    assert math.isnan(found.low)
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


def test_the_answer_takes_the_best_of_those_that_save_enough() -> None:
    found = points(study())
    tuned = answer(found, "ast", "esc50", trained=True)
    assert tuned.best is not None
    assert tuned.best.keep_rate == 0.7
    assert (tuned.holds, tuned.surely, tuned.surely_not) == (True, False, False)
    assert "yes, though the interval reaches over the point: 0.5 [" in str(tuned)
    free = answer(found, "ast", "esc50", trained=False)
    assert (free.holds, free.surely_not) == (False, True)
    assert str(free).startswith("no: 5.7 [")
    assert str(answer(found, "audiomae", "esc50", trained=True)) == "not measured"


def test_one_run_is_called_one_run() -> None:
    found = points([row(1, 1.0, 1.0, 0.9), row(1, 0.7, 0.7, 0.895)])
    assert str(answer(found, "ast", "esc50", trained=True)) == (
        "yes in the one run: 0.5 points lost for 36% fewer MACs at keep rate 0.7"
    )


def test_curve_rows_are_shares_with_intervals_only_over_several_runs() -> None:
    rows = curve_rows(points(study()))
    dense = next(row for row in rows if row["keep_rate"] == 1.0)
    assert dense["value"] == pytest.approx(0.9)
    assert dense["low"] < 0.9 < dense["high"]
    assert {row["series"] for row in rows} == {"fine-tuned", "training-free"}
    assert curve_rows(points([row_ for row_ in study() if row_["seed"] == 1]))[0]["low"] is None


def test_the_report_stands_alone_and_names_what_is_missing(tmp_path: Path) -> None:
    place = write_study(
        study(), tmp_path, title="A <study>", introduction=["About it."], commands=["spectrim reproduce"], missing=["x"]
    )
    page, text = place.read_text(), (tmp_path / "report.md").read_text()
    assert "A &lt;study&gt;" in page
    assert 'src="data:image/svg+xml;base64,' in page
    assert "http" not in page.replace("http-equiv", "")
    assert "| AST on ESC-50 | yes" in text
    assert "| 0.7 | 0.0 M | 36% | 89.5 [" in text
    assert "* x" in text
    assert (tmp_path / "figures" / "ast-on-esc-50.png").is_file()


def test_a_report_escapes_cells_in_both_forms(tmp_path: Path) -> None:
    report = Report("t", tmp_path)
    report.table(["a", "b"], [["x|y", "<b>"]])
    report.items(["one"])
    report.write()
    assert "| x\\|y | <b> |" in (tmp_path / "report.md").read_text()
    assert "&lt;b&gt;" in (tmp_path / "report.html").read_text()


def test_an_empty_study_writes_no_tables(tmp_path: Path) -> None:
    report = Report("t", tmp_path)
    add_study(report, [])
    assert report.markdown() == "# t\n"
