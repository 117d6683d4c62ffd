"""The paper's analysis speaker by speaker, against the tables of `spectrim analyze` and loops over clips."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from observed import clips_on_disk, small_eager_model
from safetensors import safe_open
from scipy import stats

from spectrim.analysis.analyse import CACHE, STATISTICS_FILE
from spectrim.analysis.experiment import Plan, experiment
from spectrim.analysis.findings import Findings, save_findings
from spectrim.data import AudioDataset
from spectrim.errors import DataError
from spectrim.pictures.report import Report
from spectrim.stats.speakers import holm
from spectrim.studies.recordings import PROFILED, Arm, recordings_plan
from spectrim.studies.recordings_analysis import LATER, LOW_LEFT, QUANTITIES, TESTED, analysis_rows, clip_quantities
from spectrim.studies.recordings_answers import CONTROL_KEY, Measured
from spectrim.studies.recordings_described import add_analysis

PLAN = Plan((0.7,), "without", "fit", "csv", "test", drop_at=(3,), batch_size=5)
SPEAKERS = ("a", "b")


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> AudioDataset:
    """Clips of one label each."""
    made = clips_on_disk(tmp_path_factory.mktemp("clips"), 10)
    names = [f"LABEL_{number}" for number in range(3)]
    recordings = [replace(one, labels=(number % 3,)) for number, one in enumerate(made.recordings)]
    return replace(made, recordings=recordings, labels=names, multi_label=False)


@pytest.fixture(scope="module")
def found(part: AudioDataset) -> Findings:
    return experiment(small_eager_model("ast", num_labels=3), part, PLAN, name="r=0.999")


def test_means_over_clips_are_those_of_the_tables(found: Findings) -> None:
    # A small model that has learnt nothing says the same whatever is dropped; these scores do not.
    generator = np.random.default_rng(0)
    found = replace(found, scores={way: generator.normal(size=of.shape) for way, of in found.scores.items()})
    quantities = clip_quantities(found)
    assert tuple(quantities) == QUANTITIES and len(TESTED) == 8
    rows = {
        (row["clusters"], row["statistic"]): row
        for row in found.ablations()
        if row["ablation"] == "clusters" and not row["random"]
    }
    assert any(row["change"] for row in rows.values())
    for (clusters, statistic), row in rows.items():
        for end, column in (("beyond random", "difference"), ("against dense", "change")):
            mean = quantities[f"{clusters} of {statistic}, {end}"].mean()
            assert mean == pytest.approx(-100 * row[column], abs=1e-9), (clusters, statistic, end)
    summaries = [row for row in found.summaries[1.0].rows(resamples=5) if row["quantity"].startswith("kendall_")]
    for quantity, form in (("way", "kendall_somers_d"), ("paper's form", "kendall_paper")):
        for statistic in ("intensity", "variation"):
            means = [row["mean"] for row in summaries if (row["quantity"], row["statistic"]) == (form, statistic)]
            assert np.nanmean(quantities[f"{quantity}, {statistic}"]) == pytest.approx(np.mean(means), abs=1e-9)


def test_later_attention_and_low_left_are_those_of_loops(found: Findings) -> None:
    quantities, dense = clip_quantities(found), found.summaries[1.0]
    pruned, ratio = found.summaries[0.7], found.ratios[0.7]
    bounds = dense.clusters["intensity"]
    for clip in range(len(dense)):
        logs = [
            np.log(ratio[clip, number, block])
            for number, stage in enumerate(dense.stages)
            for block in range(stage + 1, ratio.shape[2])
            if ratio[clip, number, block] > 0
        ]
        assert quantities[LATER][clip] == pytest.approx(np.mean(logs))
        counts = pruned.counts[clip].sum(axis=-1)
        assert bounds.number == counts.shape[1]
        low = counts[-1, :2].sum() / counts[0, :2].sum() if counts[0, :2].sum() else np.nan
        wanted = 100 * (low - counts[-1].sum() / counts[0].sum())
        np.testing.assert_allclose(quantities[LOW_LEFT][clip], wanted)


def test_findings_of_another_plan_are_refused(part: AudioDataset) -> None:
    model = small_eager_model("ast", num_labels=3)
    for plan, message in (
        (replace(PLAN, keep_rates=(0.5,)), r"m has no keep rate 0\.7"),
        (replace(PLAN, drop_at=(2,)), r"m does not drop C4\+C5 at block 3"),
    ):
        with pytest.raises(DataError, match=message):
            clip_quantities(experiment(model, part, plan, name="m"))


def control(out: Path) -> Arm:
    return next(arm for arm in recordings_plan(out).arms if (arm.fold, arm.branch) == (1, PROFILED[0]))


def kept(found: Findings, out: Path) -> tuple[dict[str, str], dict[str, int]]:
    """Write findings as those of the control; clip → speaker, and speaker → fold."""
    arm = control(out)
    small_eager_model("ast", num_labels=3).save_pretrained(out / arm.folder / "model")
    folder = out / arm.analysis("without")
    save_findings(found, folder / CACHE / "r-0.999.safetensors")
    (folder / STATISTICS_FILE).touch()
    speakers = {name: SPEAKERS[number % 2] for number, name in enumerate(found.summaries[1.0].ids)}
    return {**speakers, "elsewhere": "c"}, {"a": 1, "b": 1, "c": 2}


def test_rows_are_means_over_the_clips_of_a_speaker(found: Findings, tmp_path: Path) -> None:
    arm = control(tmp_path)
    speakers, folds = kept(found, tmp_path)
    finished = tmp_path / arm.analysis("without") / STATISTICS_FILE
    finished.unlink()
    assert analysis_rows(arm, tmp_path, speakers, folds) == [], "an analysis that is not finished counted"
    finished.touch()
    rows = analysis_rows(arm, tmp_path, speakers, folds)
    assert {row["padding"] for row in rows} == {"without"}
    values = clip_quantities(found)
    for row in rows:
        own = values[row["quantity"]][SPEAKERS.index(row["speaker"]) :: 2]
        assert row["value"] == pytest.approx(np.nanmean(own))
    assert {row["speaker"] for row in rows} == set(SPEAKERS) and len(rows) == 2 * len(QUANTITIES)
    shutil.rmtree(tmp_path / arm.folder / "model")
    assert analysis_rows(arm, tmp_path, speakers, folds) == rows, "the weights are needed for no number"


def test_a_quantity_that_a_speaker_lacks_has_no_rows(found: Findings, tmp_path: Path) -> None:
    summary = found.summaries[1.0]
    without = summary.kendall.copy()
    without[::2] = np.nan
    lacking = replace(found, summaries={**found.summaries, 1.0: replace(summary, kendall=without)})
    speakers, folds = kept(lacking, tmp_path)
    there = {row["quantity"] for row in analysis_rows(control(tmp_path), tmp_path, speakers, folds)}
    assert there == {name for name in QUANTITIES if not name.startswith(("way", "paper's", "tau-b"))}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"plan": {"padding": "with"}}, "has padding with, not without"),
        ({"plan": {"drop_at": [2]}}, r"has drop_at \[2\], not \[3\]"),
        ({"plan": {"part": "train"}}, "has part train, not test"),
        ({"clips": ["0.wav"]}, "is of 1 clips that are not the fold's"),
        ({"weights": "0" * 64}, "is of other weights than"),
        ({"version": 1}, "has version 1; this Spectrim reads version 2"),
    ],
)
def test_an_analysis_of_something_else_is_refused(
    change: dict[str, Any], message: str, found: Findings, tmp_path: Path
) -> None:
    facts = {**found.facts, **change, "plan": {**found.facts["plan"], **change.get("plan", {})}}
    speakers, folds = kept(replace(found, facts=facts), tmp_path)
    with pytest.raises(DataError, match=f"{message}.*; delete .*r0.999-analysis and start again"):
        analysis_rows(control(tmp_path), tmp_path, speakers, folds)


def test_an_analysis_that_cannot_be_read_says_what_to_delete(found: Findings, tmp_path: Path) -> None:
    speakers, folds = kept(found, tmp_path)
    path = tmp_path / control(tmp_path).analysis("without") / CACHE / "r-0.999.safetensors"
    with safe_open(path, framework="numpy") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys() if key != "1.0/kendall"}  # noqa: SIM118
        notes = file.metadata()
    path.write_bytes(safetensors.numpy.save(tensors, metadata=notes))
    for damage in (b"nothing", None):
        with pytest.raises(DataError, match=r"no findings of spectrim analyze.*delete .*r0.999-analysis"):
            analysis_rows(control(tmp_path), tmp_path, speakers, folds)
        if damage:
            path.write_bytes(damage)
        else:
            path.unlink()


def test_the_report_compares_with_nought_and_leaves_out_folds_below_the_gate(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    known = {0: {0: {"a": 95.0, "b": 95.0}, 1: {"c": 80.0, "d": 80.0}}}
    rows = [
        {
            "backbone": "ast",
            "seed": 0,
            "fold": fold,
            "arm": branch.name,
            "padding": padding,
            "quantity": quantity,
            "speaker": speaker,
            "value": 9.0 if fold else (2.0 if quantity == LATER else 0.0) + float(generator.normal(0, 0.1)),
        }
        for fold, names in ((0, "ab"), (1, "cd"))
        for branch in PROFILED[: 2 - fold]
        for padding in ("without", "with")
        for quantity in QUANTITIES
        for speaker in names
    ]
    report = Report("t", tmp_path)
    add_analysis(report, Measured("ast", {CONTROL_KEY: known}), rows)
    text = report.write().with_suffix(".md").read_text()
    lines = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    cells = {row[0].removeprefix("| "): row for row in lines}
    assert set(cells) >= set(QUANTITIES)
    assert float(cells[LATER][1].split()[0]) == pytest.approx(2.0, abs=0.3), "a fold below the gate counted"
    seen: dict[tuple[str, str], list[float]] = {(row["arm"], row["quantity"]): [] for row in rows}
    for row in rows:
        if (row["fold"], row["padding"]) == (0, "without"):
            seen[row["arm"], row["quantity"]].append(row["value"])
    family = [(branch.name, quantity) for branch in PROFILED for quantity in TESTED]
    corrected = holm([float(stats.ttest_1samp(seen[key], 0.0).pvalue) for key in family])
    assert float(cells[LATER][2]) == pytest.approx(corrected[family.index((PROFILED[0].name, LATER))], abs=1e-4)
    assert cells["tau-b, intensity"][2] == ""
    assert "one family of 16" in text
    assert cells["speakers"][1] == "2, folds 0", "a fold below the gate counted"
    add_analysis(report, Measured("ast", {CONTROL_KEY: {0: {1: known[0][1]}}}), rows)
    assert report.write().with_suffix(".md").read_text() == text
