"""The plan of the study on real recordings, and what its report says of accuracies that are made by hand."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from spectrim.data import DATA_SETS
from spectrim.errors import DataError, InvalidSetting
from spectrim.studies.recordings import REMEDIES, TRAINED, Arm, recordings_plan
from spectrim.studies.recordings_analysis import LATER
from spectrim.studies.recordings_answers import (
    CLUSTER_KEY,
    CONTROL_KEY,
    FREE,
    POSITIVE_KEY,
    TUNED,
    VALUE_NORM_KEY,
    Key,
    Measured,
    by_clusters,
    by_value_norm,
    free_key,
    positive_control,
    primary,
    secondary,
)
from spectrim.studies.recordings_record import Record, read_record
from spectrim.studies.recordings_report import write_report
from spectrim.studies.recordings_runs import read_answers, read_remedies
from spectrim.studies.speakers import FOLDS, SpokenClip, folds_of, read_clips, write_folds
from spectrim.tables import csv_text, table_csv
from spectrim.training.pretrain_recipes import load_pretrain_recipe
from spectrim.training.recipe_files import load_recipe

ALONE_AND_ANALYSIS = ("one block alone", "the paper's analysis")

TEST, VALIDATION = (3, 4, 10, 14, 26, 28), (2, 7, 8, 12, 21, 25)
PROTOCOL = {
    0: TEST,
    1: VALIDATION,
    2: (1, 9, 15, 18, 22, 27),
    3: (5, 11, 16, 19, 23, 29),
    4: (6, 13, 17, 20, 24, 30),
}
WORDS = ("no", "yes")
SEVENTH = (TUNED, "r=0.7")


def official(speaker: int) -> str:
    return "test" if speaker in TEST else "validation" if speaker in VALIDATION else "train"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The table of thirty speakers who say two words twice, and empty files."""
    root = tmp_path / "recordings"
    rows = [
        (f"clips/{word}/{speaker:08d}_NO_{turn}.flac", word, official(speaker), f"{speaker:08d}")
        for word in WORDS
        for speaker in range(1, 31)
        for turn in range(2)
    ]
    for row in rows:
        (root / row[0]).parent.mkdir(parents=True, exist_ok=True)
        (root / row[0]).touch()
    (root / "labels.csv").write_text(csv_text([("path", "label", "split", "speaker"), *rows]))
    return root


def test_folds_are_those_of_the_protocol(data: Path, tmp_path: Path) -> None:
    folds = folds_of(read_clips(data))
    assert {fold: tuple(int(name) for name in folds if folds[name] == fold) for fold in range(FOLDS)} == PROTOCOL
    write_folds(data, tmp_path / "data")
    write_folds(data, tmp_path / "data")
    for fold in range(FOLDS):
        heard = {}
        for part in ("train", "validation", "test"):
            opened = DATA_SETS["csv"].open(tmp_path / "data", part, fold=fold, validation_fold=(fold + 1) % 5)
            heard[part] = {int(recording.path.name[:8]) for recording in opened.recordings}
        assert heard["test"] == set(PROTOCOL[fold])
        assert heard["validation"] == set(PROTOCOL[(fold + 1) % 5])
        assert heard["train"] == set(range(1, 31)) - heard["test"] - heard["validation"]


def test_fold_0_is_the_official_split_in_its_order(data: Path, tmp_path: Path) -> None:
    write_folds(data, tmp_path / "data")
    for part in ("train", "validation", "test"):
        theirs = DATA_SETS["csv"].open(data, part)
        ours = DATA_SETS["csv"].open(tmp_path / "data", part, fold=0, validation_fold=1)
        assert [one.path for one in ours.recordings] == [one.path for one in theirs.recordings]
        assert ours.labels == theirs.labels


def test_data_that_cannot_be_divided_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"lacks labels\.csv"):
        read_clips(tmp_path)
    both = [SpokenClip("a", "no", "train", "1"), SpokenClip("b", "no", "test", "1")]
    with pytest.raises(DataError, match="speaker '1' is in train and test"):
        folds_of(both)
    with pytest.raises(DataError, match="no speakers for fold 1"):
        folds_of(both[1:])
    write_folds(data, tmp_path / "data")
    table = data / "labels.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(InvalidSetting, match="was begun with"):
        write_folds(data, tmp_path / "data")


def test_every_arm_of_the_protocol_is_planned_and_every_step_comes_after_what_it_needs(tmp_path: Path) -> None:
    plan = recordings_plan(tmp_path)
    assert len({(arm.stage, arm.folder) for arm in plan.arms}) == len(plan.arms) == 5 * (4 + 4 + 6 + 10 + 8 + 2 + 3)
    before: set[str] = set()
    for number, steps in plan.steps.items():
        names = {step.name for step in steps}
        for step in steps:
            assert set(step.needs) <= before | names, step.name
        assert all(set(step.needs) <= {one.name for one in steps[:place]} for place, step in enumerate(steps)), number
        before |= names
    first, *_, last = plan.up_to_each_stage
    assert len(first) == 5 * (1 + 2 * 4 + 2 * 12 + 2 + 2 * 2)
    both_seeds = 5 * (1 + 2 * (4 + 3 + 5) + 2 * 12 + 2 + 2 * 2) + 5 * (1 + 2 * 4 + 2 * 12 + 2 + 2 * 2)
    value_norm, clusters = 5 * 2 * 2, 5 * 2 * 3
    assert len(last) == len({step.name for step in last}) == 2 * both_seeds + 1 + 5 + value_norm + clusters
    assert [step.name for step in recordings_plan(tmp_path, folds=[3], stages=[3]).up_to_each_stage[0]][:2] == [
        "asc-ast fold 3 seed 0 trunk",
        "asc-ast fold 3 seed 0 r=0.5-random",
    ]
    for field, value in (("folds", 5), ("stages", 6), ("backbones", "cnn")):
        with pytest.raises(InvalidSetting, match=f"{field} is"):
            recordings_plan(tmp_path, **{field: [value]})


def test_arms_differ_from_their_trunk_in_keep_rate_and_ranking_alone(tmp_path: Path) -> None:
    plan = recordings_plan(tmp_path, folds=[4], backbones=["ast"])
    steps = [step for step in plan.up_to_each_stage[-1] if step.arguments[0] == "train"]
    recipes = {}
    for step in steps:
        words = shlex.split(step.command)
        changes = [words[place + 1] for place, word in enumerate(words) if word == "--set"]
        recipes[step.name.removeprefix("asc-ast fold 4 ")] = load_recipe(words[2], changes).model_dump()
    trunk = recipes["seed 0 trunk"]
    assert trunk["data"]["options"] == {"fold": 4, "validation_fold": 0}
    assert trunk["optimiser"].pop("stop_after_epochs") == trunk["pruning"]["shrink_start"] == 24 == 36 * 2 // 3
    found = {}
    for name, recipe in recipes.items():
        if name.endswith("trunk") or name.startswith("seed 1"):
            continue
        assert recipe["optimiser"].pop("stop_after_epochs") is None
        pruning = recipe.pop("pruning")
        assert recipe == {key: value for key, value in trunk.items() if key != "pruning"}
        found[name.removeprefix("seed 0 ")] = {
            field: value for field, value in pruning.items() if value != trunk["pruning"][field]
        }
    assert found.pop("r=0.5-intensity-public-gather") == {
        "keep_rate": 0.5, "criterion": "intensity", "reference_compat": True,
    }  # fmt: skip
    assert found.pop("r=0.5-fuse") == {"keep_rate": 0.5, "reducer": "fuse"}
    assert found.pop("r=0.999") == {"keep_rate": 0.999}
    for rate in (0.7, 0.5, 0.3):
        assert found.pop(f"r={rate}") == {"keep_rate": rate}
    for name, changed in found.items():
        rate, criterion = name.removeprefix("r=").split("-")
        assert changed == {"keep_rate": float(rate), "criterion": criterion}
    assert len(found) == 6 + 2


def test_an_audiomae_starts_from_pre_training_that_hears_none_of_its_test_speakers(tmp_path: Path) -> None:
    plan = recordings_plan(tmp_path, folds=[2], stages=[2, 5], backbones=["audiomae"])
    first, last = plan.up_to_each_stage
    words, learns, trunk = first[:3]
    assert [step.name for step in (words, learns, trunk)] == [
        *("words", "asc-audiomae-pretrain fold 2", "asc-audiomae fold 2 seed 0 trunk"),
    ]
    assert (words.needs, learns.needs, trunk.needs) == ((), (words.name,), (words.name, learns.name))
    changes = [learns.arguments[place + 1] for place, word in enumerate(learns.arguments) if word == "--set"]
    recipe = load_pretrain_recipe(learns.arguments[1], changes)
    assert recipe.data.options == {"fold": 2, "validation_fold": 3}
    run = learns.arguments[learns.arguments.index("--output") + 1]
    begun = [step.arguments for step in last if step.arguments[0] == "train"]
    assert {words[words.index("--init") + 1] for words in begun} == {f"{run}/model"}
    tuned = load_recipe("asc-audiomae").model_dump()
    beside = load_recipe("asc-ast").model_dump()
    assert {name for name, value in tuned.items() if value != beside[name]} == {
        *("name", "description", "model", "optimiser"),
    }
    lower = {name for name, value in tuned["optimiser"].items() if value != beside["optimiser"][name]}
    assert lower == {"layer_decay"}


# What accuracies let be said


def made(losses: Mapping[Key, float], *, folds: int = 5, control: float = 95.0, noise: float = 0.5) -> Measured:
    """Six speakers a fold; an arm loses so many points on average, and not alike for all."""
    generator = np.random.default_rng(0)
    known = {}
    for key, lost in {CONTROL_KEY: 0.0, **losses}.items():
        known[key] = {
            0: {
                fold: {
                    str(speaker): control - lost + (noise * generator.standard_normal() if key != CONTROL_KEY else 0)
                    for speaker in PROTOCOL[fold]
                }
                for fold in range(folds)
            }
        }
    return Measured("ast", known)


def test_a_precision_is_that_of_every_run_and_of_nothing_else(tmp_path: Path) -> None:
    plan = recordings_plan(tmp_path, changes=["optimiser.precision=bf16"])
    for step in {step.name: step for steps in plan.steps.values() for step in steps}.values():
        learns = step.arguments[0] in ("train", "pretrain")
        assert ("optimiser.precision=bf16" in step.arguments) == learns, step.name


@pytest.mark.parametrize(("lost", "word"), [(0.3, "yes"), (3.0, "no")])
def test_the_primary_question_is_answered_on_four_folds(lost: float, word: str) -> None:
    for folds in (4, 5):
        measured = made({SEVENTH: lost, POSITIVE_KEY: 5.0}, folds=folds)
        found = primary(measured, measured.passing)
        assert (found.word, found.why) == (word, None)
        assert found.difference is not None and found.difference.mean == pytest.approx(lost, abs=0.3)
    measured = made({SEVENTH: lost, POSITIVE_KEY: 5.0}, folds=3)
    assert str(primary(measured, measured.passing)) == ("cannot say: 3 of 5 folds, and it takes 4 that pass the gate")


def test_what_cannot_be_said_is_said_with_its_reason() -> None:
    def why(measured: Measured) -> str | None:
        found = primary(measured, measured.passing)
        assert found.word == "cannot say"
        return found.why

    assert why(made({SEVENTH: 1.0, POSITIVE_KEY: 5.0})) == "the interval holds one point"
    assert why(made({SEVENTH: 0.3, POSITIVE_KEY: 1.0})) == "this task cannot tell"
    assert str(why(made({SEVENTH: 0.3}))).startswith("the positive control: it has not been run")
    assert why(made({POSITIVE_KEY: 5.0})) == "it has not been run in a fold that passes the gate"
    assert why(made({SEVENTH: 0.0, POSITIVE_KEY: 5.0}, noise=0.0)) == "the interval has no width"
    assert why(made({SEVENTH: 0.3, POSITIVE_KEY: 5.0}, control=91.9)) == "no fold passes the gate"


def test_a_fold_whose_pre_training_learnt_nothing_is_not_interpreted() -> None:
    measured = replace(made({SEVENTH: 0.3, POSITIVE_KEY: 5.0}), errors={0: 0.79, 1: 0.8, 2: 0.5, 3: 1.0})
    assert measured.passing == [0, 2]


def test_the_positive_control_needs_two_points() -> None:
    for lost, word in ((2.5, "yes"), (1.5, "no")):
        measured = made({POSITIVE_KEY: lost})
        assert positive_control(measured, measured.passing).word == word


def test_a_planted_ranking_is_found_and_a_null_is_not() -> None:
    losses = {(how, free_key(name, rate)[1]): 6.0 for how in (TUNED, FREE) for rate in (0.5, 0.3)
              for name in ("attention", "random", "intensity", "variation")}  # fmt: skip
    losses |= {(TUNED, "r=0.5-variation"): 3.0, (FREE, "r=0.3-intensity"): 12.0}
    measured = made(losses)
    tuned, free = (secondary(measured, measured.passing, how) for how in (TUNED, FREE))
    assert [name for name, answer in tuned.items() if answer.word == "better"] == [("variation", 0.5)]
    assert [name for name, answer in free.items() if answer.word == "worse"] == [("intensity", 0.3)]
    for answers in (tuned, free):
        assert sum(answer.word == "no difference shown" for answer in answers.values()) == 5
        assert all(answer.corrected >= answer.difference.p for answer in answers.values())


def test_the_norm_of_the_values_has_a_family_of_its_own() -> None:
    losses = {(how, free_key(name, rate)[1]): 6.0 for how in (TUNED, FREE) for rate in (0.7, 0.5)
              for name in ("attention", "value_norm")}  # fmt: skip
    losses |= {VALUE_NORM_KEY: 0.3, (FREE, "r=0.5-value_norm"): 9.0, POSITIVE_KEY: 5.0}
    measured = made(losses)
    answers = by_value_norm(measured, measured.passing)
    shown = {key: answer.word for key, answer in answers.items() if answer.word != "no difference shown"}
    assert shown == {(TUNED, 0.7): "better", (FREE, 0.5): "worse"} and len(answers) == 4
    assert primary(measured, measured.passing, VALUE_NORM_KEY).word == "yes"
    assert primary(measured, measured.passing).word == "no"
    few = made({VALUE_NORM_KEY: 0.3, SEVENTH: 6.0, POSITIVE_KEY: 5.0}, folds=3)
    answers = by_value_norm(few, few.passing)
    assert str(answers[TUNED, 0.7]) == "cannot say: 3 of 5 folds, and it takes 4 that pass the gate"
    missing = "value_norm and attention at 0.7 have not been run in a fold that passes the gate"
    assert str(answers[FREE, 0.7]) == f"cannot say: {missing}"


def test_clusters_have_a_family_of_three_at_one_keep_rate() -> None:
    random = (TUNED, "r=0.7-random")
    losses = {CLUSTER_KEY: 0.3, SEVENTH: 3.0, VALUE_NORM_KEY: 0.3, random: 6.0, POSITIVE_KEY: 5.0}
    measured = made(losses)
    answers = by_clusters(measured, measured.passing)
    assert {pair: answer.word for pair, answer in answers.items()} == {
        ("cluster", "attention"): "better",
        ("cluster", "value_norm"): "no difference shown",
        ("random", "attention"): "worse",
    }
    assert primary(measured, measured.passing, CLUSTER_KEY).word == "yes"
    without = made({key: lost for key, lost in losses.items() if key != VALUE_NORM_KEY})
    answers = by_clusters(without, without.passing)
    lacks = "cannot say: value_norm at 0.7 has not been run in a fold that passes the gate"
    assert str(answers["cluster", "value_norm"]) == lacks and answers["cluster", "attention"].word == "better"


def test_a_comparison_without_attention_says_so() -> None:
    measured = made({POSITIVE_KEY: 5.0, (TUNED, "r=0.5-random"): 4.0})
    answers = secondary(measured, measured.passing, TUNED)
    lacks = "has not been run in a fold that passes the gate"
    assert answers["random", 0.3].why == f"attention at 0.3 {lacks}"
    assert answers["random", 0.5].why == f"attention at 0.5 {lacks}"
    assert answers["variation", 0.5].why == f"variation and attention at 0.5 {lacks.replace('has', 'have', 1)}"


def test_seeds_are_averaged_within_a_speaker_and_paired() -> None:
    known = {
        CONTROL_KEY: {0: {0: {"a": 90.0, "b": 80.0}}, 1: {0: {"a": 70.0, "b": 70.0}}},
        SEVENTH: {0: {0: {"a": 89.0, "b": 76.0}}},
    }
    measured = Measured("ast", known)
    assert measured.of(CONTROL_KEY) == {0: {"a": 80.0, "b": 75.0}}
    found = measured.difference(CONTROL_KEY, SEVENTH, [0, 1])
    assert found is not None and (found.mean, found.speakers) == (2.5, 2)


def with_seed(measured: Measured, other: Measured, seed: int = 1) -> Measured:
    """The first seed of two, the other's as a further one."""
    both = {key: dict(by_seed) for key, by_seed in measured.accuracies.items()}
    for key, by_seed in other.accuracies.items():
        both.setdefault(key, {})[seed] = by_seed[0]
    return replace(measured, accuracies=both)


def test_the_control_of_one_seed_neither_adds_nor_takes_away_runs_of_another() -> None:
    first = made({SEVENTH: 3.0, VALUE_NORM_KEY: 0.3, POSITIVE_KEY: 5.0}, folds=4)
    both = with_seed(first, made({CLUSTER_KEY: 0.3}, folds=5, control=91.0))
    assert both.passing == [0, 1, 2, 3] and both.interpreted.seeds == [0] and both.seeds == [0, 1]
    for key in (SEVENTH, VALUE_NORM_KEY):
        assert primary(both, both.passing, key) == primary(first, first.passing, key)
    assert primary(both, both.passing, CLUSTER_KEY).why == "it has not been run in a fold that passes the gate"
    both = with_seed(made({SEVENTH: 3.0, POSITIVE_KEY: 5.0}, control=91.0), made({CLUSTER_KEY: 0.3}))
    assert both.passing == [0, 1, 2, 3, 4] and both.interpreted.seeds == [1]
    assert primary(both, both.passing).why == "it has not been run in a fold that passes the gate"
    assert primary(both, both.passing, CLUSTER_KEY).why == (
        "the positive control: it has not been run in a fold that passes the gate"
    )


def test_the_positive_control_of_a_seed_alone_is_that_of_all() -> None:
    first, second = made({SEVENTH: 3.0, POSITIVE_KEY: 5.0}), made({SEVENTH: 0.3})
    both = with_seed(first, second)
    assert primary(second, second.passing).why == (
        "the positive control: it has not been run in a fold that passes the gate"
    )
    alone = both.each_seed
    assert {seed: primary(one, one.passing).word for seed, one in alone.items()} == {0: "no", 1: "yes"}
    assert positive_control(alone[1], range(FOLDS)) == positive_control(both, range(FOLDS))
    assert positive_control(both.interpreted.of_seed(1), range(FOLDS)).word == "yes"


def test_what_trunks_without_a_control_hold_is_left_out() -> None:
    both = with_seed(made({SEVENTH: 3.0}), made({SEVENTH: 0.3}, folds=2))
    del both.accuracies[CONTROL_KEY][1][0]  # type: ignore[attr-defined]
    assert both.without_control == [(1, 0)] and both.controlled.without_control == []
    assert both.controlled.seeds_in(SEVENTH, 0) == {0} and both.controlled.seeds_in(SEVENTH, 1) == {0, 1}


def test_differences_say_which_seeds_they_are_over() -> None:
    first, second = made({SEVENTH: 3.0, VALUE_NORM_KEY: 0.3, POSITIVE_KEY: 5.0}), made({SEVENTH: 2.0, CLUSTER_KEY: 0.3})
    both = with_seed(first, second)
    told = {key: primary(both, both.passing, key).told("lost") for key in (SEVENTH, VALUE_NORM_KEY, CLUSTER_KEY)}
    ends = {SEVENTH: "seeds 0 and 1", VALUE_NORM_KEY: "seed 0", CLUSTER_KEY: "seed 1"}
    for key, end in ends.items():
        assert told[key].endswith(f"; 30 speakers in 5 folds; {end}).")
        found = both.difference(CONTROL_KEY, key, range(FOLDS))
        assert found is not None
        assert found.among(range(FOLDS)) == str(found) + ("" if key == SEVENTH else f" ({end})")
    assert primary(first, first.passing).told("lost").endswith("points lost; 30 speakers in 5 folds).")
    some = with_seed(first, made({SEVENTH: 2.0}, folds=2))
    assert "; seeds 0 and 1 in folds 0 and 1, seed 0 in folds 2, 3 and 4)" in primary(some, some.passing).told("lost")
    answers = by_clusters(both, both.passing)
    assert answers["cluster", "value_norm"].why == (
        "no fold has both with the same seed: cluster has seed 1, value_norm seed 0"
    )
    alone, paired = second.difference(CLUSTER_KEY, SEVENTH, range(FOLDS)), answers["cluster", "attention"].difference
    assert alone is not None and paired is not None and (paired.mean, paired.low) == (alone.mean, alone.low)
    assert both.of_seed(1).difference(CONTROL_KEY, SEVENTH, range(FOLDS)) == second.difference(
        CONTROL_KEY, SEVENTH, range(FOLDS)
    )


# The report


def answered(arm: Arm, out: Path, data: Path, shares: Mapping[str, float]) -> None:
    """What an arm answers: in every column so many of the clips of its fold right."""
    rows = []
    clips = [clip for clip in read_clips(data) if int(clip.speaker) in PROTOCOL[arm.fold]]
    for number, clip in enumerate(clips):
        row = {"clip": str((data / clip.path).absolute()), "label": clip.label}
        for column, share in shares.items():
            right = number % 10 < round(10 * share)
            row[column] = clip.label if right else WORDS[clip.label == WORDS[0]]
        rows.append(row)
    place = out / arm.answers
    place.parent.mkdir(parents=True)
    place.write_text(table_csv(rows))
    place.with_name("report.html").touch()
    (out / arm.folder).mkdir(parents=True)
    (out / arm.folder / "results.json").write_text('{"chosen": {"epoch": 40.0, "validation_accuracy": 0.9}}')


def test_random_arms_are_the_mean_of_their_draws(data: Path, tmp_path: Path) -> None:
    arm = next(arm for arm in recordings_plan(tmp_path).arms if arm.branch.ranking == "random" and arm.fold == 0)
    columns = {f"{TRAINED} at keep rate 0.3": 0.0, "dense at keep rate 1": 0.0}
    columns |= {f"random at keep rate 0.3, draw {draw}": share for draw, share in enumerate((1.0, 0.5))}
    answered(arm, tmp_path, data, columns)
    speakers = {str((data / clip.path).absolute()): clip.speaker for clip in read_clips(data)}
    (found,) = read_answers(arm, tmp_path, speakers).items()
    assert found[0] == POSITIVE_KEY
    assert np.mean(list(found[1].values())) == pytest.approx(75.0, abs=5)


def test_a_control_that_fewer_rankings_have_pruned_lacks_the_others(data: Path, tmp_path: Path) -> None:
    plan = recordings_plan(tmp_path)
    (arm,) = (a for a in plan.arms if (a.backbone, a.seed, a.fold, a.branch.name) == ("ast", 1, 2, "r=0.999"))
    answered(arm, tmp_path, data, {f"{TRAINED} at keep rate 0.999": 1.0, "attention at keep rate 0.7": 0.5})
    speakers = {str((data / clip.path).absolute()): clip.speaker for clip in read_clips(data)}
    assert set(read_answers(arm, tmp_path, speakers)) == {CONTROL_KEY, (FREE, "r=0.7")}
    text = write_report(plan, tmp_path, data).with_suffix(".md").read_text()
    assert "* Descriptive, AST, fold 2, seed 1: training-free attention at 0.9, random at 0.9, intensity at 0.9" in text


def test_the_report_names_what_is_below_the_gate_and_what_is_not_run(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = recordings_plan(out)
    empty = write_report(plan, out, data).with_suffix(".md").read_text()
    assert "### AST: the norm of the values" not in empty
    free = {
        f"{method} at keep rate {rate:g}{draw}": 0.6
        for method in ("attention", "random", "intensity", "variation")
        for rate in (0.9, 0.7, 0.5, 0.3)
        for draw in ((", draw 0", ", draw 1") if method == "random" else ("",))
    }
    for arm in plan.arms:
        if arm.stage not in (1, 7) or arm.fold > 1:
            continue
        share = 1.0 if arm.branch.keep_rate > 0.9 and arm.fold == 0 else 0.8
        own = {f"{TRAINED} at keep rate {arm.branch.keep_rate:g}": share, **free}
        answered(arm, out, data, own)
    text = write_report(plan, out, data).with_suffix(".md").read_text()
    assert text.startswith("# What pruning costs on real recordings: 120 of them, 2 of 10 rounds")
    assert "| 1. AST: control, attention 0.7 and 0.5, random 0.3 | in part | 8 of 20 | 0, 1 |" in text
    assert "| 0 | 3, 4, 10, 14, 26, 28 | 100.0 | interpreted |" in text
    assert "below the gate: not interpreted" in text
    assert "Descriptive, not an answer: 1 of 5 folds pass the gate" in text
    assert "cannot say: 1 of 5 folds, and it takes 4 that pass the gate" in text
    assert "Without fold 0, which earlier trials had looked at: nothing is there yet." in text
    assert "* Stage 1, AST, fold 4: r=0.999, r=0.7, r=0.5, r=0.3-random" in text
    assert "* Stage 2, AudioMAE: not run, in any fold\n" in text
    assert "* Stage 3, AST: not run, in any fold" in text
    left = ["later blocks", *(f"{part} of r={rate}" for rate in (0.999, 0.7) for part in ALONE_AND_ANALYSIS)]
    assert f"* Descriptive, AST, fold 0: {'; '.join(['other rankings and reducers', *left])}\n" in text
    assert "Descriptive, AudioMAE" not in text and "Descriptive, AST, fold 2" not in text
    lines = (out / "speakers.csv").read_text().splitlines()
    assert lines[0] == "backbone,how,arm,seed,fold,speaker,accuracy"
    assert len(lines) == 1 + 12 * (4 + 16 + 2)
    section = text.split("### AST: the norm of the values\n")[1].split("###")[0]
    assert "points lost; 6 speakers in 1 fold)" in section
    assert "Without fold 0: cannot say: no fold passes the gate." in section
    assert section.count("cannot say: 1 of 5 folds, and it takes 4") == 3
    assert "clusters, fine-tuned" not in text and "* Stage 8, AST: not run, in any fold" in text


def test_the_report_holds_clusters_against_the_arms_of_their_seed(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = recordings_plan(out)
    shares = {"r=0.999": 1.0, "r=0.7": 0.7, "r=0.7-cluster": 0.9, "r=0.7-random": 0.5}
    free = {
        f"{method} at keep rate {rate:g}{', draw 0' * (method == 'random')}": 0.6
        for method in ("attention", "random", "intensity", "variation")
        for rate in (0.9, 0.7, 0.5, 0.3)
    }
    for arm in plan.arms:
        if (arm.backbone, arm.seed, arm.fold) == ("ast", 1, 0) and arm.branch.name in shares:
            share = shares[arm.branch.name]
            draws = {"random at keep rate 0.7, draw 0": share} if arm.branch.ranking == "random" else {}
            answered(arm, out, data, {f"{TRAINED} at keep rate {arm.branch.keep_rate:g}": share, **free, **draws})
    text = write_report(plan, out, data).with_suffix(".md").read_text()
    section = text.split("### AST: clusters, fine-tuned\n")[1].split("###")[0]
    rows = {
        cells[0]: cells[1] for cells in (line[2:].split(" | ") for line in section.splitlines() if line[:2] == "| ")
    }
    # Of 24 clips the share is right whose number ends in less than ten times it: 22, 18 and 14 of them.
    for pair, points in (("cluster minus attention", 400 / 24), ("random minus attention", -400 / 24)):
        assert float(rows[pair].split()[0].replace("−", "-")) == pytest.approx(points, abs=0.01)
    assert rows["cluster minus value_norm"] == ""
    assert "* Stage 8, AST, fold 0: r=0.7-value_norm\n" in text


def recorded(measured: Measured) -> Record:
    """The tables of a report that has measured this."""
    speakers, runs = [], []
    for (how, arm), by_seed in measured.accuracies.items():
        for seed, by_fold in by_seed.items():
            for fold, accuracies in by_fold.items():
                named = {"backbone": measured.backbone, "arm": arm, "seed": seed, "fold": fold}
                speakers += [
                    {**named, "how": how, "speaker": f"{int(name):08d}", "accuracy": value}
                    for name, value in accuracies.items()
                ]
                if how == TUNED:
                    runs.append({**named, "epoch": 26.0, "trunk": f"{seed}{fold}234abc", "folder": "runs"})
    return Record(speakers, runs)


def reported(measured: Measured, data: Path, tmp_path: Path) -> str:
    """The report, in Markdown, of what an earlier one has measured."""
    out, earlier = tmp_path / "out", tmp_path / "earlier"
    earlier.mkdir()
    recorded(measured).write(earlier)
    return write_report(recordings_plan(out), out, data, earlier).with_suffix(".md").read_text()


def section(text: str, title: str) -> str:
    return text.split(f"### {title}\n")[1].split("\n##")[0]


def test_each_seed_has_answers_of_its_own_where_they_are_over_several(data: Path, tmp_path: Path) -> None:
    attention, random = (TUNED, "r=0.7"), (TUNED, "r=0.7-random")
    first = made({attention: 3.0, VALUE_NORM_KEY: 0.3, POSITIVE_KEY: 5.0, (FREE, "r=0.7"): 9.0})
    second = {attention: 0.3, VALUE_NORM_KEY: 2.0, CLUSTER_KEY: 0.2, random: 2.0, (FREE, "r=0.7"): 3.0}
    text = reported(with_seed(first, made(second)), data, tmp_path)
    answers = section(text, "AST: answers")
    assert "Seed 0 alone: Primary, is less than one point lost at r = 0.7 by attention? no (" in answers
    assert "Seed 1 alone: Primary, is less than one point lost at r = 0.7 by attention? yes (" in answers
    assert answers.count("Positive control, do random patches") == 2, (
        "with fold 0 and without it, never of a seed alone"
    )
    values = section(text, "AST: the norm of the values").split("Seed ")
    assert [part[0] for part in values[1:]] == ["0", "1"]
    assert values[1].startswith("0 alone. Is less than one point lost at 0.7, fine-tuned? yes (")
    assert values[2].startswith("1 alone. Is less than one point lost at 0.7, fine-tuned? no (")
    row = r"\| fine-tuned, 0.7 \| ([-\d.]+) \[.*\| (better|worse) \|"
    assert [re.findall(row, part)[0][1] for part in values[1:]] == ["better", "worse"]
    assert "Seed " not in section(text, "AST: clusters, fine-tuned"), "one seed has them"


def test_scores_of_different_seeds_do_not_stand_in_one_order(data: Path, tmp_path: Path) -> None:
    keys = {name: free_key(name, 0.7) for name in ("attention", "random", "fuse")}
    first = made({keys["attention"]: 9.5, keys["random"]: 5.0, keys["fuse"]: 9.0}, noise=0.1)
    both = with_seed(first, made({keys["attention"]: 6.0, keys["random"]: 6.0}, noise=0.1))
    (table,) = section(reported(both, data, tmp_path), "AST: other rankings and reducers, training-free").split(
        "Seed "
    )[1:]
    rows = [line.split(" | ") for line in table.splitlines() if line.startswith("| ")][2:]
    assert [row[0] for row in rows] == ["| random", "| fuse", "| attention"] and "(seed" not in table
    assert float(rows[2][1].split()[0]) == pytest.approx(9.5, abs=0.1)


def test_arms_before_their_control_are_named_and_not_shown(data: Path, tmp_path: Path) -> None:
    arms = made({CLUSTER_KEY: 0.3}, folds=2)
    known = {CLUSTER_KEY: {1: arms.accuracies[CLUSTER_KEY][0]}}
    text = reported(Measured("ast", known), data, tmp_path)
    assert "Not shown, since their control has not been tested yet: runs of seed 1 in fold 0, seed 1 in fold 1." in text
    assert "| 0 | 3, 4, 10, 14, 26, 28 |  | not run |" in text and "AST: arms" not in text


def test_remedies_are_told_the_best_first_beside_random(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    plan = recordings_plan(out)
    free = {
        f"{method} at keep rate {rate:g}{', draw 0' * (method == 'random')}": 0.6
        for method in ("attention", "random", "intensity", "variation")
        for rate in (0.9, 0.7, 0.5, 0.3)
    }
    control = next(arm for arm in plan.arms if (arm.stage, arm.fold, arm.branch.keep_rate) == (1, 0, 0.999))
    answered(control, out, data, {f"{TRAINED} at keep rate 0.999": 1.0, **free})
    before = write_report(plan, out, data).with_suffix(".md").read_text()
    assert "other rankings and reducers, training-free" not in before
    # A study whose remedies were asked before one of them was added: that one is not told, and nothing else is lost.
    asked_of = [name for name in REMEDIES["ast"] if name != "cls_without_sinks"]
    shares = {name: 0.8 if name == "value_norm" else 0.3 for name in asked_of}
    asked = replace(control, folder=control.folder.with_name("elsewhere"))
    answered(
        asked, out, data, {f"{name} at keep rate {rate:g}": shares[name] for name in shares for rate in (0.7, 0.5)}
    )
    (out / asked.answers).parent.rename((out / control.remedies).parent)
    text = write_report(plan, out, data).with_suffix(".md").read_text()
    assert "* Descriptive, AST, fold 0: other rankings and reducers: cls_without_sinks; later blocks;" in text
    lines = text.splitlines()
    start = lines.index("### AST: other rankings and reducers, training-free")
    rows = [line.split(" | ") for line in lines[start : start + 20] if line.startswith("| ")][2:]
    named = [row[0].removeprefix("| ") for row in rows]
    assert named[0] == "value_norm" and set(named[1:5]) == {"attention", "random", "intensity", "variation"}
    assert set(named[5:]) == set(asked_of) - {"value_norm"}
    right = {row[0].removeprefix("| "): row for row in rows}
    # Of 24 clips, those whose number ends in less than ten times the share are right; four clips a speaker.
    known = read_remedies(control, out, {str((data / clip.path).absolute()): clip.speaker for clip in read_clips(data)})
    kept = np.mean(list(known[free_key("value_norm", 0.7)].values()))
    assert right["value_norm"][1].startswith(f"{100 - kept:.2f} [")
    assert right["random"][2] == ""
    path = out / control.remedies
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    with pytest.raises(DataError, match="there is no answer in it"):
        write_report(plan, out, data)


def record(fold: int, accuracy: float, *arms: str, trunk: str = "1234abcd") -> Record:
    """Six speakers of a fold who all have the same accuracy, with some arms and, by attention, without training."""
    named = {"backbone": "ast", "seed": 0, "fold": fold}
    hows = [*((TUNED, arm) for arm in arms), (FREE, "r=0.7")]
    return Record(
        [
            {**named, "how": how, "arm": arm, "speaker": f"{speaker:08d}", "accuracy": accuracy}
            for how, arm in hows
            for speaker in PROTOCOL[fold]
        ],
        [{**named, "arm": arm, "epoch": 26.0, "trunk": trunk, "folder": "runs"} for arm in arms],
        [{**named, "arm": CONTROL_KEY[1], "block": 3, "attention": accuracy}],
        [
            {
                **named,
                "arm": CONTROL_KEY[1],
                "padding": "without",
                "quantity": LATER,
                "speaker": f"{speaker:08d}",
                "value": 0.5,
            }
            for speaker in PROTOCOL[fold]
        ],
    )


def test_an_earlier_report_stands_for_the_runs_that_are_not_here(data: Path, tmp_path: Path) -> None:
    first, second = record(0, 90.0, CONTROL_KEY[1], "r=0.7"), record(0, 95.0, CONTROL_KEY[1])
    other = record(1, 80.0, CONTROL_KEY[1])
    together = second.beside(first).beside(other)
    measured = together.measured()[0]
    assert measured.fold_mean(CONTROL_KEY, 0) == measured.fold_mean((FREE, "r=0.7"), 0) == 95.0
    assert (measured.fold_mean(SEVENTH, 0), measured.fold_mean(CONTROL_KEY, 1)) == (90.0, 80.0)
    assert [(row["fold"], row["attention"]) for row in together.depth] == [(1, 80.0), (0, 95.0)]
    folder = tmp_path / "report"
    folder.mkdir()
    together.write(folder)
    again = read_record(folder, folds_of(read_clips(data)))
    assert list(again.analysis) == sorted(together.analysis, key=lambda row: row["fold"]) and len(again.analysis) == 12
    assert [one.accuracies for one in again.measured()] == [one.accuracies for one in together.measured()]
    for name in ("analysis.csv", "sounds.csv"):
        (folder / name).unlink()
    table = folder / "runs.csv"
    table.write_text(table.read_text().replace(",1234abcd,", ",").replace(",trunk,", ","))
    assert "1234abcd" not in table.read_text()
    old = read_record(folder, folds_of(read_clips(data)))
    assert not old.analysis and {row["trunk"] for row in old.runs} == {""}, (
        "the first reports had no such table, nor column"
    )
    assert {(row["arm"], row["fold"]) for row in again.runs} == {("r=0.999", 0), ("r=0.7", 0), ("r=0.999", 1)}


@pytest.mark.parametrize("trunk", ["", "5678abcd"], ids=["not kept", "other"])
def test_arms_of_another_trunk_are_left_out(trunk: str, data: Path, tmp_path: Path) -> None:
    # A fold that is trained anew, arm by arm: a control of one trunk and an arm of the other differ in more.
    first = record(0, 90.0, CONTROL_KEY[1], "r=0.7", trunk=trunk)
    second, other = record(0, 95.0, "r=0.5"), record(1, 80.0, CONTROL_KEY[1])
    together = second.beside(first).beside(other)
    measured = together.measured()[0]
    assert measured.fold_mean(CONTROL_KEY, 0) is None and measured.fold_mean(SEVENTH, 0) is None
    assert (measured.fold_mean((TUNED, "r=0.5"), 0), measured.fold_mean(CONTROL_KEY, 1)) == (95.0, 80.0)
    for own, rows in ((second.depth, together.depth), (second.analysis, together.analysis)):
        assert [row for row in rows if row["fold"] == 0] == own
    assert [row["arm"] for row in together.left_out] == [CONTROL_KEY[1], "r=0.7"]
    first.write(tmp_path)
    again = read_record(tmp_path, folds_of(read_clips(data)))
    known = {CONTROL_KEY[1], "r=0.7", "r=0.5"} if trunk else {"r=0.5"}
    assert {row["arm"] for row in record(0, 95.0, "r=0.5", trunk=trunk).beside(again).runs} == known, (
        "written and read again, runs of one trunk are still told from those of the other, and two unknown ones differ"
    )
    assert {row["arm"] for row in second.beside(again).runs} == {"r=0.5"}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",0,00000003,", ",1,00000003,", "speaker 00000003 is in fold 1 there and in 0 of these"),
        (",0,00000003,", ",0,77,", "speaker 77 is in fold 0 there and in none of these"),
        ("ast,", "vit,", "backbone is vit; allowed: ast, audiomae"),
        (",90.0", ",most", "could not convert string to float: 'most'"),
        ("ast,fine-tuned,r=0.999,0,", "ast,fine-tuned,r=0.999,zero,", "seed is 'zero', not a whole number"),
        ("accuracy", "right", "the header lacks accuracy"),
        (",90.0", ",nan", "has accuracy nan; allowed: 0 to 100"),
        ("ast,fine-tuned,r=0.999,0,0,00000003,90.0\n", "", "r=0.999 of fold 0 has 5 rows, where 6 speakers"),
        (",00000004,", ",00000003,", "r=0.999 of fold 0 has 6 rows, where 6 speakers"),
    ],
)
def test_an_earlier_report_of_something_else_is_refused(
    old: str, new: str, message: str, data: Path, tmp_path: Path
) -> None:
    record(0, 90.0, CONTROL_KEY[1]).write(tmp_path)
    table = tmp_path / "speakers.csv"
    table.write_text(table.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=re.escape(message)):
        read_record(tmp_path, folds_of(read_clips(data)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",without,", ",beside,", "no analysis has later attention of patches beside padding"),
        (",later attention,", ",soon,", "no analysis has soon of patches without padding"),
        (",0.5", ",inf", "later attention of speaker 00000003 is inf"),
        (",00000004,", ",00000003,", "later attention of r=0.999, fold 0, has 6 rows, where 6 speakers have one each"),
        ("ast,r=0.999,0,0,without,later attention,00000003,0.5\n", "", "fold 0, has 5 rows, where 6 speakers"),
        ("r=0.999,0,0", "r=banana,0,0", "r=banana of fold 0 is no run of runs.csv"),
        (",00000004,", ",00000001,", "speaker 00000001 is in fold 0 there and in 2 of these"),
    ],
)
def test_an_earlier_analysis_that_is_damaged_is_refused(
    old: str, new: str, message: str, data: Path, tmp_path: Path
) -> None:
    record(0, 90.0, CONTROL_KEY[1]).write(tmp_path)
    table = tmp_path / "analysis.csv"
    table.write_text(table.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=re.escape(message)):
        read_record(tmp_path, folds_of(read_clips(data)))


def test_a_report_of_nothing_says_so(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    text = write_report(recordings_plan(out), out, data).with_suffix(".md").read_text()
    assert "* Stage 1, AST: not run, in any fold" in text
    assert "Gate" not in text
