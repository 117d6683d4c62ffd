"""What is said of methods whose answers are made by hand, so that the right sentence is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import average_precision_score

from spectrim.backbones import ast_base
from spectrim.comparison.measuring import Answers
from spectrim.comparison.methods import Case, plan_cases, read_methods
from spectrim.comparison.rows import accuracy_rows, clip_rows, cost_columns, sentences
from spectrim.network.macs import macs
from spectrim.pruning.pruning import Pruning
from spectrim.stats.groups import Groups

CLIPS, LABELS = 600, 4
OWN = Pruning(1.0, (1,))


def right_at(share: float, seed: int, targets: np.ndarray) -> np.ndarray:
    """Scores (clips, labels) that are right on this share of the clips, else off by one label."""
    hit = np.random.default_rng(seed).permutation(CLIPS) < share * CLIPS
    return np.where(hit[:, None], targets, np.roll(targets, 1, axis=1)).astype(np.float32)


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    found, _ = plan_cases(
        read_methods(["attention", "variation", "random"]), [0.5], Pruning(1.0, (1,)), 3, "x", draws=4
    )
    return found


@pytest.fixture(scope="module")
def answers(cases: list[Case]) -> Answers:
    """Dense 95 %, attention 60 %, variation 88 %, random draws around 80 %."""
    targets = np.eye(LABELS, dtype=np.float32)[np.arange(CLIPS) % LABELS]
    shares = {"dense": [0.95], "attention": [0.60], "variation": [0.88], "random": [0.79, 0.80, 0.81, 0.80]}
    scores = {
        (case.title, point): right_at(share, 10 * number + draw, targets)
        for number, case in enumerate(cases)
        for draw, (point, share) in enumerate(zip(case.points, shares[case.method], strict=True))
    }
    return Answers([str(clip) for clip in range(CLIPS)], targets, scores, [])


def test_a_ranking_that_is_worse_than_random_is_called_so(cases: list[Case], answers: Answers) -> None:
    rows = {row["method"]: row for row in accuracy_rows(cases, answers, "accuracy", 500)}
    assert [rows[name]["accuracy"] for name in ("dense", "attention", "variation", "random")] == pytest.approx(
        [0.95, 0.60, 0.88, 0.80], abs=1e-3
    )
    assert rows["attention"]["over_random"] == pytest.approx(-0.20, abs=1e-3)
    assert (rows["attention"]["against_random"], rows["variation"]["against_random"]) == ("worse", "better")
    assert rows["attention"]["change"] == pytest.approx(-0.35) and rows["attention"]["under_one_point"] == "no"
    assert rows["random"]["against_random"] is None and rows["dense"]["change"] is None
    assert rows["random"]["draws"] == 4


def test_a_run_is_not_held_against_random_pruning_of_other_weights(cases: list[Case], answers: Answers) -> None:
    run, more = Case("mine", 0.5, (Pruning(0.5, (1,)),), run=True), Pruning(0.5, (1,), attention_mass=0.95)
    full = Case("full", 0.5, (more,))
    scores = {**answers.scores, **{(case.title, case.points[0]): answers.targets for case in (run, full)}}
    rows = {
        row["method"]: row
        for row in accuracy_rows([*cases, run, full], replace(answers, scores=scores), "accuracy", 100)
    }
    assert (rows["mine"]["over_random"], rows["mine"]["against_random"]) == (None, None)
    assert rows["mine"]["change"] == pytest.approx(0.05)
    assert rows["full"]["against_random"] == "cannot say" and "attention_mass" in rows["full"]["why_random"]


def test_intervals_are_scipys_where_nothing_is_drawn_at_random(cases: list[Case], answers: Answers) -> None:
    row = accuracy_rows(cases, answers, "accuracy", 500)[1]
    right = [(answers.scores[case.title, case.points[0]].argmax(1) == answers.targets.argmax(1)) for case in cases[:2]]
    theirs = stats.bootstrap(
        (right[1].astype(float) - right[0],), np.mean, n_resamples=500, method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert (row["change_low"], row["change_high"]) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_what_holds_over_clips_need_not_hold_over_speakers(cases: list[Case], answers: Answers) -> None:
    """Variation is better than random for three of eight speakers, and as good for the others."""
    scores = {**answers.scores}
    variation, random = (next(case for case in cases if case.method == name) for name in ("variation", "random"))
    same = np.arange(CLIPS) % 8 >= 3
    for point in random.points:
        scores[random.title, point] = np.where(
            same[:, None], scores[variation.title, variation.points[0]], scores[random.title, point]
        )
    rows = {}
    for number, name in ((8, "eight"), (5, "five"), (None, "clips")):
        groups = None if number is None else Groups.of(np.arange(CLIPS) % number)
        found = accuracy_rows(cases, replace(answers, scores=scores, groups=groups), "accuracy", 500)
        rows[name] = next(row for row in found if row["method"] == "variation")
    assert rows["clips"]["against_random"] == "better"
    assert rows["eight"]["over_random"] == rows["clips"]["over_random"]
    assert rows["eight"]["over_random_low"] < 0 < rows["clips"]["over_random_low"]
    assert rows["eight"]["against_random"] == "cannot say"
    assert rows["eight"]["why_random"].startswith("8 speakers or recordings were seen, and a margin of one point takes")
    for question in ("random", "change"):
        assert rows["five"][f"why_{question}"] == "5 speakers or recordings are too few; it takes 6"


def test_several_labels_are_judged_by_average_precision(cases: list[Case]) -> None:
    generator = np.random.default_rng(3)
    targets = (generator.random((80, 3)) < 0.3).astype(np.float32)
    noise = {"dense": 0.2, "attention": 3.0, "variation": 0.3, "random": 0.8}
    scores = {
        (case.title, point): (targets + noise[case.method] * generator.standard_normal(targets.shape)).astype("f4")
        for case in cases
        for point in case.points
    }
    answers = Answers([str(clip) for clip in range(80)], targets, scores, [])
    rows = {row["method"]: row for row in accuracy_rows(cases, answers, "mAP", 200)}
    random = next(case for case in cases if case.method == "random")
    expected = np.mean([average_precision_score(targets, scores[random.title, point]) for point in random.points])
    assert rows["random"]["mAP"] == pytest.approx(expected)
    assert rows["attention"]["against_random"] == "worse"


def test_every_clip_has_the_answer_of_every_case_and_draw(cases: list[Case], answers: Answers) -> None:
    labels = ["a", "b", "c", "d"]
    rows = clip_rows(cases, answers, labels)
    assert [row["clip"] for row in rows] == answers.ids
    random = next(case for case in cases if case.method == "random")
    assert list(rows[0]) == [
        *("clip", "label", *(case.title for case in cases if case is not random)),
        *(f"{random.title}, draw {draw}" for draw in range(len(random.points))),
    ]
    table = {row["method"]: row["accuracy"] for row in accuracy_rows(cases, answers, "accuracy", 20)}
    for case in cases:
        columns = [name for name in rows[0] if name.startswith(case.title)]
        right = np.mean([[row[column] == row["label"] for column in columns] for row in rows])
        assert right == pytest.approx(table[case.method])
    several = Answers(answers.ids, answers.targets + 1, answers.scores, [])
    assert clip_rows(cases, several, labels) == []


def test_costs_and_sentences(cases: list[Case], answers: Answers) -> None:
    config = ast_base(hidden_size=32, num_attention_heads=4, num_hidden_layers=3, prune_at=[1], max_length=32)
    seconds = {(2, case.title): np.array([0.02, 0.04, 0.03]) / (number + 1) for number, case in enumerate(cases)}
    seconds[2, cases[3].title] = np.array([0.03, 0.06, 0.045])
    costs = cost_columns(cases, {case.title: config for case in cases}, seconds, [2])
    count = macs(config, pruning=cases[1].points[0])
    assert (costs[1]["paper_macs"], costs[1]["executed_macs"]) == (count.paper, count.executed)
    assert costs[0]["macs_saved"] == 0.0 < costs[1]["macs_saved"]
    assert (costs[1]["ms_2"], costs[1]["speed_up_2"]) == pytest.approx((7.5, 2.0))
    rows = [a | b for a, b in zip(accuracy_rows(cases, answers, "accuracy", 200), costs, strict=True)]
    told = sentences(rows, "accuracy", 2)
    assert told[0].startswith("dense: accuracy 95.0 %, 95 % interval 9")
    assert told[1].startswith("attention: worse than random at r=0.5 (difference -20.0 points, 95 % interval -2")
    assert told[1].endswith("35.0 points below dense, 2.00× as fast.")
    assert told[2].startswith("variation: better than random at r=0.5 (difference +8.0 points")
    assert told[3].startswith("random: at r=0.5 80.0 %, 15.0 points below dense, not faster (0.67×)")
