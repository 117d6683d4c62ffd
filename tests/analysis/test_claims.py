"""Answers to the paper's claims: what the numbers say decides, and nothing else."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from observed import clips_on_disk, small_eager_model
from scipy import stats

from spectrim.analysis.ablations import DENSE
from spectrim.analysis.attention_claims import correlation, low_intensity, received_ratio
from spectrim.analysis.claim import IN_PART, NO, UNCLEAR, UNTESTED, YES, joint, verdict
from spectrim.analysis.claims import all_claims, clusters_matter, ranking, savings
from spectrim.analysis.experiment import Plan, experiment, facts_of
from spectrim.analysis.findings import Findings, load_findings, save_findings
from spectrim.analysis.summary import KENDALL_FORMS
from spectrim.data import AudioDataset
from spectrim.errors import InvalidSetting
from spectrim.measure.metric_intervals import clip_intervals
from spectrim.stats.ground import CANNOT_SAY, Interval
from spectrim.stats.groups import Groups

PLAN = Plan((0.6, 0.4), "without", "fit", "csv", "test", batch_size=5)
ALONE = {"m": None}
"""Clips of no groups."""


@pytest.fixture(scope="module")
def part(tmp_path_factory: pytest.TempPathFactory) -> AudioDataset:
    names = [f"LABEL_{number}" for number in range(3)]
    return replace(clips_on_disk(tmp_path_factory.mktemp("clips"), 10), labels=names)


@pytest.fixture(scope="module")
def found(part: AudioDataset) -> list[Findings]:
    return [
        experiment(small_eager_model(backbone, num_labels=3), part, PLAN, name=backbone)
        for backbone in ("ast", "audiomae")
    ]


def row(**fields: Any) -> dict[str, Any]:
    usual = {
        "ablation": "criterion",
        "keep_rate": 0.7,
        "criterion": "attention",
        "paper_macs": 7e8,
        "macs_saved": 0.35,
        "metric": "accuracy",
        "value": 0.9,
        "low": 0.85,
        "high": 0.95,
        "statistic": None,
        "block": None,
        "clusters": None,
        "random": False,
        "patches_removed": 0.0,
        "against": None,
    }
    for name in ("change", "difference"):
        usual |= {name: None, f"{name}_low": None, f"{name}_high": None}
    for name in ("change", "difference"):
        if name in fields:
            middle, low, high = fields.pop(name)
            usual |= {name: middle, f"{name}_low": low, f"{name}_high": high}
    return usual | fields


@pytest.mark.parametrize(
    ("interval", "above", "wanted"),
    [
        ((0.5, 0.2, 0.8), True, YES),
        ((0.5, 0.2, 0.8), False, NO),
        ((-0.5, -0.8, -0.2), True, NO),
        ((-0.5, -0.8, -0.2), False, YES),
        ((0.1, -0.2, 0.4), True, UNCLEAR),
        ((0.1, 0.0, 0.4), True, UNCLEAR),
        ((0.5, math.nan, math.nan), True, CANNOT_SAY),
        ((0.5, 0.5, 0.5), True, CANNOT_SAY),
        ((-0.5, -0.5, -0.5), True, CANNOT_SAY),
    ],
)
def test_an_interval_decides(interval: tuple[float, float, float], above: bool, wanted: str) -> None:
    assert verdict(Interval(*interval), 0.0, above=above) == wanted


def test_several_statistics_make_one_answer() -> None:
    assert joint([YES, YES]) == YES
    assert joint([NO, NO]) == NO
    assert joint([YES, NO]) == joint([UNCLEAR, YES]) == IN_PART
    assert joint([UNCLEAR, NO]) == UNCLEAR


@pytest.mark.parametrize(
    ("change", "wanted"),
    [((-0.005, -0.008, -0.001), YES), ((-0.005, -0.02, 0.01), UNCLEAR), ((-0.03, -0.05, -0.02), NO)],
)
def test_savings_look_at_the_highest_rate_that_saves_enough(change: tuple[float, float, float], wanted: str) -> None:
    rows = [
        row(keep_rate=0.9, macs_saved=0.13, change=(0.0, 0.0, 0.0)),
        row(change=change),
        row(keep_rate=0.3, macs_saved=0.6, change=(0.3, 0.2, 0.4)),
        row(criterion="random", change=(0.5, 0.4, 0.6)),
    ]
    claim = savings({"m": rows}, ALONE)
    assert claim.verdicts == {"m": wanted}
    assert "35% fewer MACs at keep rate 0.7" in claim.answer[0]
    assert f"{100 * change[0]:+.1f} [{100 * change[1]:+.1f}, {100 * change[2]:+.1f}]" in claim.answer[0]
    assert len(claim.rows) == 3
    assert savings({"m": rows[:1]}, ALONE).verdicts == {"m": UNTESTED}


def test_savings_on_too_few_clips_or_from_no_width_cannot_be_said() -> None:
    few = savings({"m": [row(change=(0.0, -0.009, 0.009), clips=200)]}, ALONE)
    assert few.verdicts == {"m": CANNOT_SAY}
    assert "m: cannot say (200 clips were seen, and a margin of one point takes about 469 at a disc" in few.answer[0]
    assert savings({"m": [row(change=(0.0, -0.004, 0.004), clips=20_000)]}, ALONE).verdicts == {"m": YES}
    assert savings({"m": [row(change=(-0.3, -0.4, -0.2), clips=200)]}, ALONE).verdicts == {"m": NO}
    assert savings({"m": [row(change=(0.0, 0.0, 0.0), clips=20_000)]}, ALONE).verdicts == {"m": CANNOT_SAY}


def test_dropped_clusters_count_where_they_are_dropped_first(found: list[Findings]) -> None:
    def dropped(statistic: str, block: int, change: tuple[float, float, float]) -> dict[str, Any]:
        fields = {"statistic": statistic, "block": block, "clusters": "C4+C5", "criterion": None}
        return row(ablation="clusters", change=change, difference=(-0.1, -0.2, -0.05), **fields)

    rows = [
        dropped("intensity", 1, (-0.2, -0.3, -0.1)),
        dropped("intensity", 2, (0.2, 0.1, 0.3)),
        dropped("variation", 1, (-0.2, -0.3, 0.1)),
        dropped("variation", 2, (-0.2, -0.3, -0.1)),
    ]
    claim = clusters_matter(found[:1], {"ast": rows}, (4, 5))
    assert claim.verdicts == {"ast": IN_PART}
    assert "without high intensity -20.0 [-30.0, -10.0] points (yes), more than" in claim.answer[0]
    assert "without high variation -20.0 [-30.0, +10.0] points (unclear)" in claim.answer[0]
    assert len(claim.rows) == 4


def test_ranking_asks_with_the_right_gather_and_tells_the_wrong_one() -> None:
    rows = [
        row(change=(0.0, 0.0, 0.0)),
        row(criterion="intensity", change=(-0.1, -0.2, 0.0), difference=(-0.1, -0.2, -0.05)),
        row(criterion="variation", change=(-0.1, -0.2, 0.0), difference=(0.02, 0.01, 0.03)),
        row(criterion="intensity, public gather", change=(-0.5, -0.6, -0.4), difference=(-0.5, -0.6, -0.4)),
        row(keep_rate=0.3, criterion="variation", change=(-0.9, -1.0, -0.8), difference=(-0.9, -1.0, -0.8)),
    ]
    claim = ranking({"m": rows}, ALONE)
    assert claim.verdicts == {"m": IN_PART}
    assert "intensity -10.0 [-20.0, -5.0] points (yes); variation +2.0 [+1.0, +3.0] points (no)" in claim.answer[0]
    assert claim.answer[0].endswith("With the public code's gather: intensity -50.0 [-60.0, -40.0] points.")


def test_all_claims_of_two_models(found: list[Findings], part: AudioDataset) -> None:
    ablations = {one.name: one.ablations() for one in found}
    claims = {claim.key: claim for claim in all_claims(found, ablations)}
    assert list(claims) == [
        *("savings", "high-clusters", "low-clusters", "ranking", "correlation", "attention", "low-intensity")
    ]
    for claim in claims.values():
        assert all(len(cells) == len(claim.columns) for cells in claim.rows)
        assert set(claim.verdicts.values()) <= {CANNOT_SAY, UNTESTED}
        assert all("10 clips were seen, and it takes 30" in text for text in claim.answer if CANNOT_SAY in text)
    dense = found[0].summaries[1.0]
    taus = []
    for clip in range(len(dense)):
        taus.append(np.nanmean(dense.kendall[clip, 0, KENDALL_FORMS.index("kendall_somers_d")]))
    shown = next(cells for cells in claims["correlation"].rows if cells[:3] == ("ast", "1", "intensity"))
    assert shown[3].startswith(f"{np.mean(taus):.2f} [")
    assert "ast: AS-20K 0.53" in claims["correlation"].notes[-1] and "audiomae: " in claims["correlation"].notes[-1]
    unpublished = correlation([replace(found[0], config=SimpleNamespace(backbone="beats"))])
    assert len(unpublished.notes) == 1, "there are no published means of it"
    alone = low_intensity(found[:1])
    assert alone.verdicts == {"ast": UNTESTED} and alone.answer[0].startswith("Not tested")
    first, second = (one.summaries[0.6].cluster_counts("intensity")[..., :2].sum(axis=(0, 2)) for one in found)
    wanted = 100 * (second[-1] / second[0] - first[-1] / first[0])
    assert f"AudioMAE has {wanted:+.1f} [" in claims["low-intensity"].answer[0]
    ratio = received_ratio(found[0])
    np.testing.assert_allclose(ratio.mean, stats.gmean(found[0].ratios[0.6], axis=0, nan_policy="omit"))


def test_nothing_is_said_of_few_speakers_and_intervals_are_over_them(found: list[Findings], part: AudioDataset) -> None:
    speakers = replace(
        part, recordings=[replace(one, group=f"s{place % 4}") for place, one in enumerate(part.recordings)]
    )
    grouped = [one.with_groups_of(speakers) for one in found]
    assert grouped[0].groups is not None and found[0].with_groups_of(part).groups is None
    ablations = {one.name: one.ablations() for one in grouped}
    for ours, before in zip(ablations["ast"], found[0].ablations(), strict=True):
        assert [ours[name] for name in ("value", "change", "difference")] == [
            before[name] for name in ("value", "change", "difference")
        ]
    dense, scores = grouped[0].summaries[1.0], grouped[0].scores[DENSE]
    ends = clip_intervals([scores], dense.targets.astype(np.float32), found[0].metric, groups=grouped[0].groups)
    assert (ablations["ast"][0]["low"], ablations["ast"][0]["high"]) == (ends.low[0], ends.high[0])
    for claim in all_claims(grouped, ablations):
        assert set(claim.verdicts.values()) <= {CANNOT_SAY, UNTESTED}
        assert all("4 speakers or recordings are too few" in text for text in claim.answer if CANNOT_SAY in text)
    eight = {"m": Groups.of(np.arange(200) % 8)}
    few = savings({"m": [row(change=(0.0, -0.02, 0.02), clips=200)]}, eight)
    assert "m: cannot say (8 speakers or recordings were seen, and a margin of one point takes" in few.answer[0]


def test_findings_are_the_model_run_by_hand_and_survive_the_disk(
    found: list[Findings], part: AudioDataset, tmp_path: Path
) -> None:
    one = found[1]
    model = small_eager_model("audiomae", num_labels=3)
    facts = facts_of(model, part, PLAN)
    assert one.examples.names == tuple(", ".join(f"LABEL_{n}" for n in part.recordings[k].labels) for k in (0, 3, 6, 9))
    path = tmp_path / "deep" / "one.safetensors"
    save_findings(one, path)
    again = load_findings(path, "audiomae", one.config, facts)
    assert again is not None
    assert again.ablations() == one.ablations()
    assert again.summaries[0.4].rows(resamples=20) == one.summaries[0.4].rows(resamples=20)
    np.testing.assert_array_equal(again.ratios[0.6], one.ratios[0.6])
    np.testing.assert_array_equal(again.examples.log_mel, one.examples.log_mel)
    other = facts_of(model, part, replace(PLAN, seed=1))
    assert load_findings(path, "audiomae", one.config, other) is None
    path.write_bytes(path.read_bytes()[:-9])
    assert load_findings(path, "audiomae", one.config, facts) is None
    assert load_findings(tmp_path / "none", "audiomae", one.config, facts) is None


@pytest.mark.parametrize("own", [{"reducer": "merge"}, {"attention_mass": 0.6}])
def test_findings_and_their_macs_are_of_dropping(
    own: dict[str, Any], found: list[Findings], part: AudioDataset, tmp_path: Path
) -> None:
    model = small_eager_model("ast", num_labels=3, **own)
    facts = facts_of(model, part, PLAN)
    assert facts == facts_of(small_eager_model("ast", num_labels=3), part, PLAN) == found[0].facts
    rows = replace(found[0], config=model.config).ablations()
    assert rows == found[0].ablations()
    saved = {row["keep_rate"]: row["macs_saved"] for row in rows if row["ablation"] == "criterion"}
    assert 0 < saved[PLAN.keep_rates[0]] < saved[PLAN.keep_rates[1]]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"keep_rates": ()}, "keep_rates is"),
        ({"keep_rates": (1.0,)}, "below 1"),
        ({"keep_rates": (1.5,)}, "keep_rate is 1.5"),
        ({"clusters": "guessed"}, "clusters is 'guessed'"),
        ({"clusters": "published"}, "published are those of audioset"),
    ],
)
def test_a_wrong_plan_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        replace(PLAN, **fields).check()
