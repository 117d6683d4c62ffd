from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from spectrim.pictures.report import Frame
from spectrim.stats.t_intervals import mean_over_runs
from spectrim.studies.rankings import answers, compare, drop_word, gather_alone, points_lost_rows, write_rankings

VALUES = {
    (1.0, "attention"): (0.50, 0.55, 0.52),
    (0.999, "attention"): (0.58, 0.60, 0.57),
    (0.7, "attention"): (0.56, 0.58, 0.57),
    (0.7, "intensity"): (0.54, 0.56, 0.545),
    (0.7, "random"): (0.55, 0.585, 0.56),
    (0.7, "intensity, public gather"): (0.30, 0.33, 0.31),
}


def row(seed: int, rate: float, ranking: str, value: float, **changes: Any) -> dict[str, Any]:
    named = {"backbone": "ast", "data": "esc50", "recipe": "x", "fold": seed, "metric": "accuracy"}
    counts = {"training_clips": 800, "test_clips": 20_000, "paper_macs": 1, "executed_macs": 1, "base_fewer_macs": 0.0}
    run = {"seed": seed, "ranking": ranking, "trained_keep_rate": rate, "keep_rate": rate, "value": value}
    return {**named, **counts, **run, **changes}


def study(**changes: Any) -> list[dict[str, Any]]:
    return [
        row(seed, rate, ranking, value, **changes)
        for (rate, ranking), values in VALUES.items()
        for seed, value in enumerate(values, 1)
    ]


def test_losses_are_paired_by_run() -> None:
    found = {(one.keep_rate, one.ranking): one for one in compare(study())}
    assert list(found) == [
        *((1.0, "attention"), (0.999, "attention"), (0.7, "attention"), (0.7, "intensity"), (0.7, "random")),
        (0.7, "intensity, public gather"),
    ]
    one = found[0.7, "intensity"]
    losses = 100 * (np.array(VALUES[0.7, "attention"]) - VALUES[0.7, "intensity"])
    half = stats.t.ppf(0.975, 2) * np.std(losses, ddof=1) / np.sqrt(3)
    assert one.lost is not None
    assert (one.lost.value, one.lost.low) == (pytest.approx(losses.mean()), pytest.approx(losses.mean() - half))
    assert list(one.to_control.values()) == pytest.approx([4.0, 4.0, 2.5])
    assert list(one.to_dense.values()) == pytest.approx([-4.0, -1.0, -2.5])
    assert one.score.value == pytest.approx(100 * np.mean(VALUES[0.7, "intensity"]))


def test_runs_without_their_partner_count_for_the_mean_only() -> None:
    rows = [one for one in study() if not (one["ranking"] == "attention" and one["seed"] == 2)]
    one = next(one for one in compare(rows) if one.ranking == "random")
    assert one.score.runs == 3
    assert list(one.to_attention) == [(1, 1), (3, 3)]
    assert one.clips == 40_000
    rows = [one for one in study() if one["ranking"] != "attention"]
    assert {one.dropped for one in compare(rows)} == {"not measured"}
    assert answers(compare(rows)) == points_lost_rows(compare(rows)) == gather_alone(compare(rows)) == []


def test_a_pruned_model_at_another_keep_rate_than_its_own_is_left_out() -> None:
    assert compare([row(1, 0.7, "attention", 0.5, keep_rate=0.5), row(1, 0.7, "attention", 0.5, keep_rate=1.0)]) == []


def free() -> list[dict[str, Any]]:
    """The dense models of `study`, pruned at test time."""
    values = {"attention": (0.49, 0.53, 0.51), "intensity": (0.47, 0.53, 0.48)}
    return [
        row(seed, 1.0, ranking, value, keep_rate=0.7)
        for ranking, given in values.items()
        for seed, value in enumerate(given, 1)
    ]


def test_training_free_pruning_is_compared_with_itself_and_with_the_dense_model() -> None:
    rows = [*free(), *study()]
    found = {(one.trained, one.keep_rate, one.ranking): one for one in compare(rows)}
    assert [key for key in found if not key[0]] == [(False, 0.7, "attention"), (False, 0.7, "intensity")]
    assert list(found[False, 0.7, "intensity"].to_attention.values()) == pytest.approx([2.0, 0.0, 3.0])
    assert list(found[False, 0.7, "intensity"].to_dense.values()) == pytest.approx([3.0, 2.0, 4.0])
    assert answers(compare(rows)) == answers(compare(study()))
    assert [one["series"] for one in points_lost_rows(compare(rows))] == [
        *["fine-tuned, keep rate 0.7"] * 4,
        "training-free, keep rate 0.7",
    ]


@pytest.mark.parametrize(
    ("losses", "word"),
    [
        ([2.0, 2.1, 2.2], "yes"),
        ([0.1, 0.0, 0.2], "no"),
        ([-5.0, -5.1, -5.2], "no"),
        ([0.0, 3.0, 1.0], "yes on average, not settled"),
        ([-2.0, 3.0, 0.0], "no on average, not settled"),
    ],
)
def test_a_drop_is_settled_by_its_interval_against_one_point(losses: list[float], word: str) -> None:
    assert drop_word(mean_over_runs(losses)) == word


def test_the_answers_say_what_was_lost_and_what_the_gather_alone_loses() -> None:
    found = compare(study())
    said = answers(found)
    assert len(said) == 3
    assert "AST on ESC-50, keep rate 0.7, by intensity: yes: it loses 2.2 points against attention; the" in said[0]
    assert "at random: no on average, not settled: it loses 0.5 points" in said[1]
    assert "by intensity, public gather: yes: it loses 25.7 points" in said[2]
    (alone,) = gather_alone(found)
    lost = mean_over_runs([24.0, 23.0, 23.5])
    assert alone == f"AST on ESC-50, fine-tuned, keep rate 0.7, by intensity: {lost} points lost, 3 runs."
    assert "it gains 0.5 points" in answers(compare([row(1, 0.7, "attention", 0.5), row(1, 0.7, "random", 0.505)]))[0]


def test_the_figure_has_each_ranking_and_the_control() -> None:
    drawn = points_lost_rows(compare(study()))
    assert [one["label"] for one in drawn] == [
        *("control: all patches", "intensity", "random", "intensity, public gather")
    ]
    assert drawn[0]["runs"] == pytest.approx([-2.0, -2.0, 0.0])
    assert drawn[1]["runs"] == pytest.approx([2.0, 2.0, 2.5])
    assert {one["panel"] for one in drawn} == {"AST on ESC-50"}


def test_the_report_has_a_table_a_backbone_and_stands_alone(tmp_path: Path) -> None:
    frame = Frame("Rankings", ["About it."], "spectrim reproduce --study rankings OUT", missing=["x"], steps=9)
    rows = [*study(), *free(), *study(backbone="audiomae"), row(0, 1.0, "attention", 0.4, data="audioset")]
    rows += [row(0, 1.0, "attention", 0.3, data="audioset", keep_rate=0.7)]
    rows += [row(1, 1.0, "attention", 0.3, keep_rate=rate) for rate in (0.5, 0.999)]
    page = write_rankings(json.loads(json.dumps(rows)), tmp_path, frame)
    text = page.with_suffix(".md").read_text()
    assert "| dense | 1 | 52.3 [46.1, 58.6] | 3 |  |  |  |  |  |  |  |  |" in text
    line = next(line for line in text.splitlines() if line.startswith("| intensity | 0.7 | 54.8 ["))
    assert "| 3 | 2.2 [1.4, 2.9] | yes | 3.5 [" in line
    assert "| 49.3 [" in line and line.endswith("| 3 | 1.7 [-2.1, 5.5] | yes on average, not settled |")
    assert text.count("| intensity, public gather | 0.7 | 31.3 [") == 2
    assert "## AudioMAE on ESC-50" in text
    assert "AudioSet" not in text
    assert "| attention | 0.5 |" not in text
    line = next(line for line in text.splitlines() if line.startswith("| control: all patches | 0.999 | 58.3 ["))
    assert line.endswith("|  |  |  |  |")
    assert "http" not in page.read_text().replace("http-equiv", "")
    assert (tmp_path / "figures" / "rankings.png").is_file()


def test_an_empty_study_says_so(tmp_path: Path) -> None:
    text = write_rankings([], tmp_path, Frame("R", [], "c", [], 3)).with_suffix(".md").read_text()
    assert "Nothing to compare yet." in text
