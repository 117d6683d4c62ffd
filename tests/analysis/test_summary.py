"""Reported numbers, against scipy and loops over clips and patches; with and without padding, per label."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from observed import LABELS, clips_on_disk, made_up, small_eager_model
from plain import small_config
from scipy.stats import kendalltau, somersd

from spectrim.analysis.batches import ClipBatch
from spectrim.analysis.record import observe, record
from spectrim.analysis.statistics import DENSITY_EDGES
from spectrim.analysis.summary import Accumulator, Summary, fit_clusters, overlap, summarise
from spectrim.errors import DataError, InputShapeError, InvalidSetting
from spectrim.stats.bootstrap import bootstrap
from spectrim.stats.clusters import Clusters, kmeans_1d
from spectrim.stats.groups import Groups

CONFIG = small_config("ast", num_hidden_layers=4, prune_at=[2, 1], keep_rate=0.6)
CLUSTERS = {
    "intensity": Clusters(np.array([-0.6, -0.2, 0.2, 0.6]), "by hand", "with"),
    "variation": Clusters(np.array([0.1, 0.2, 0.3, 0.5]), "by hand", "with"),
}
ALL = made_up(CONFIG, 7)


def summary_of(batch: ClipBatch = ALL, padding: str = "with", **options: object) -> Summary:
    return summarise([batch], CONFIG, CLUSTERS, padding=padding, **options)


def found(rows: list[dict], quantity: str, **where: object) -> dict:
    (row,) = [row for row in rows if row["quantity"] == quantity and all(row[key] == where[key] for key in where)]
    return row


@pytest.mark.parametrize("padding", ["with", "without"])
def test_kendall_is_scipys_over_the_patches_that_entered(padding: str) -> None:
    rows = summary_of(padding=padding).rows(resamples=10)
    for statistic in ("intensity", "variation"):
        for block in range(4):
            taus, papers, unbinned, ways = [], [], [], []
            for clip in range(7):
                alive = ~np.isnan(ALL.scores[clip, block])
                if padding == "without":
                    alive &= ~ALL.padded[clip]
                scores = ALL.scores[clip, block][alive]
                values = getattr(ALL, statistic)[clip][alive]
                ranks = [sum(value > bound for bound in CLUSTERS[statistic].bounds) for value in values]
                taus.append(kendalltau(scores, ranks).statistic)
                unbinned.append(kendalltau(scores, values).statistic)
                ways.append(somersd(ranks, scores).statistic if len(set(ranks)) > 1 else np.nan)
                signs = np.sign(np.subtract.outer(scores, scores)) * np.sign(np.subtract.outer(ranks, ranks))
                above = np.triu_indices(len(scores), 1)
                papers.append((signs[above] >= 0).mean() - (signs[above] < 0).mean() if len(scores) > 1 else np.nan)
            row = found(rows, "kendall_tau_b", statistic=statistic, block=block)
            assert row["mean"] == pytest.approx(np.nanmean(taus), abs=1e-12)
            assert (row["clips"], row["padding"]) == (np.isfinite(taus).sum(), padding)
            paper = found(rows, "kendall_paper", statistic=statistic, block=block)
            assert paper["mean"] == pytest.approx(np.nanmean(papers), abs=1e-12)
            binless = found(rows, "kendall_tau_b_values", statistic=statistic, block=block)
            assert binless["mean"] == pytest.approx(np.nanmean(unbinned), abs=1e-12)
            way = found(rows, "kendall_somers_d", statistic=statistic, block=block)
            assert way["mean"] == pytest.approx(np.nanmean(ways), abs=1e-12)
            perfect = found(rows, "kendall_tau_b_perfect", statistic=statistic, block=block)
            assert abs(row["mean"]) <= perfect["mean"] < 1.0
            expected = found(rows, "kendall_paper_expected_shuffled", statistic=statistic, block=block)
            assert 0.1 < expected["mean"] < 0.5
            dealt = found(rows, "kendall_paper_shuffled", statistic=statistic, block=block)
            assert dealt["mean"] == pytest.approx(expected["mean"], abs=0.25)
            assert dealt["mean"] != expected["mean"]


@pytest.mark.parametrize("padding", ["with", "without"])
def test_shares_and_counts_are_those_of_loops(padding: str) -> None:
    rows = summary_of(padding=padding).rows(resamples=10)
    stages = [np.ones(ALL.padded.shape, dtype=bool), ALL.kept(1), ALL.kept(2)]
    if padding == "without":
        stages = [stage & ~ALL.padded for stage in stages]
    ranks = {name: CLUSTERS[name].ranks(getattr(ALL, name)) for name in CLUSTERS}
    for name, rank in ranks.items():
        for cluster in range(5):
            counts = [int((stage & (rank == cluster)).sum()) for stage in stages]
            for stage in (1, 2):
                row = found(rows, "kept_share", statistic=name, stage=stage, cluster=cluster + 1)
                assert row["mean"] == pytest.approx(counts[stage] / counts[0])
                assert row["block"] == stage
            for stage in (0, 1, 2):
                row = found(rows, "cluster_share", statistic=name, stage=stage, cluster=cluster + 1)
                assert row["mean"] == pytest.approx(counts[stage] / stages[stage].sum())
    low = (ranks["intensity"] < 2) & (ranks["variation"] < 2)
    for stage in (0, 1, 2):
        per_clip = (stages[stage] & low).sum(axis=(1, 2))
        assert found(rows, "low_low_patches", stage=stage)["mean"] == pytest.approx(per_clip.mean())
        kept = stages[stage].sum(axis=(1, 2)).mean()
        assert found(rows, "kept_patches", stage=stage)["mean"] == pytest.approx(kept)
        if stage:
            share = (stages[stage] & low).sum() / (stages[0] & low).sum()
            assert found(rows, "low_low_kept_share", stage=stage)["mean"] == pytest.approx(share)


def test_scores_of_kept_and_dropped_patches() -> None:
    rows = summary_of().rows(resamples=10)
    for stage, block in ((1, 1), (2, 2)):
        kept, dropped, ratios = 0.0, 0.0, []
        for clip in range(7):
            scores, stays = ALL.scores[clip, block], ALL.kept(block)[clip]
            goes = ~np.isnan(scores) & ~stays
            kept, dropped = kept + scores[stays].sum(), dropped + scores[goes].sum()
            ratios.append(scores[stays].mean() / scores[goes].mean())
        assert found(rows, "score_share", stage=stage)["mean"] == pytest.approx(kept / (kept + dropped), rel=1e-5)
        assert found(rows, "score_ratio", stage=stage)["mean"] == pytest.approx(np.mean(ratios), rel=1e-5)


def test_density_counts_every_patch_that_counts() -> None:
    summary = summary_of(padding="without")
    assert summary.density.shape == (3, *(len(one) - 1 for one in DENSITY_EDGES))
    counted = [(~ALL.padded).sum(), (ALL.kept(1) & ~ALL.padded).sum(), (ALL.kept(2) & ~ALL.padded).sum()]
    assert summary.density.sum(axis=(1, 2)).tolist() == counted
    assert summary.counts.sum(axis=(0, 2, 3)).tolist() == counted


def test_batches_do_not_matter() -> None:
    whole = summary_of()
    accumulator = Accumulator(CONFIG, CLUSTERS, padding="with")
    for begin, count in ((0, 3), (3, 0), (3, 1), (4, 3)):
        accumulator.add(made_up(CONFIG, count, begin) if count else empty())
    parts = accumulator.summary()
    for field in ("kendall", "counts", "received", "density", "survived", "counted", "targets", "logits"):
        np.testing.assert_array_equal(getattr(parts, field), getattr(whole, field), err_msg=field)
    assert parts.ids == whole.ids


def empty() -> ClipBatch:
    nothing = {
        name: getattr(ALL, name)[:0] for name in ALL.__dataclass_fields__ if hasattr(getattr(ALL, name), "dtype")
    }
    return replace(ALL, ids=(), **nothing)


def test_intervals_hold_the_mean_and_are_those_of_the_bootstrap() -> None:
    summary = summary_of()
    rows = summary.rows(seed=3, resamples=200, confidence=0.9)
    expected = bootstrap(summary.ratios()["kept_share"], seed=3, resamples=200, confidence=0.9)
    row = found(rows, "kept_share", statistic="variation", stage=2, cluster=4)
    assert (row["low"], row["high"]) == (expected.low[1, 1, 3], expected.high[1, 1, 3])
    assert row["confidence"] == 0.9
    for row in rows:
        if row["mean"] is not None and row["low"] is not None:
            assert row["low"] - 1e-12 <= row["mean"] <= row["high"] + 1e-12 or row["quantity"].startswith("score")


def test_per_label_rows_are_those_of_its_clips_alone() -> None:
    rows = summary_of().rows(labels=LABELS, seed=1, resamples=50)
    for number, label in enumerate(LABELS):
        has_it = np.flatnonzero(ALL.targets[:, number])
        parts = [made_up(CONFIG, 1, int(clip)) for clip in has_it]
        alone = summarise(parts, CONFIG, CLUSTERS, padding="with").rows(seed=1, resamples=50)
        own = [row for row in rows if row["label"] == label]
        assert [{**row, "label": None} for row in own] == alone
    with pytest.raises(InputShapeError, match="2 labels for targets of 3"):
        summary_of().rows(labels=["a", "b"])


def test_intervals_are_over_groups_where_there_are_any() -> None:
    groups = Groups.of(np.arange(len(ALL)) % 3)
    grouped = replace(summary_of(), groups=groups)
    expected = bootstrap(grouped.ratios()["kept_share"], groups=groups, seed=3, resamples=200)
    row = found(grouped.rows(seed=3, resamples=200), "kept_share", statistic="variation", stage=2, cluster=4)
    assert (row["low"], row["high"]) == (expected.low[1, 1, 3], expected.high[1, 1, 3])
    has_it = np.flatnonzero(ALL.targets[:, 0])
    ratio = grouped.ratios()["kept_share"].of_clips(has_it)
    expected = bootstrap(ratio, groups=Groups.of(has_it % 3), seed=3, resamples=200)
    rows = [row for row in grouped.rows(labels=LABELS, seed=3, resamples=200) if row["label"] == LABELS[0]]
    row = found(rows, "kept_share", statistic="variation", stage=2, cluster=4)
    assert [row["low"], row["high"]] == pytest.approx([expected.low[1, 1, 3], expected.high[1, 1, 3]], nan_ok=True)


def test_a_label_without_clips_has_no_rows() -> None:
    targets = ALL.targets.copy()
    targets[:, 1] = False
    rows = summary_of(replace(ALL, targets=targets)).rows(labels=LABELS, resamples=5)
    assert {row["label"] for row in rows} <= {"a", "c"}


def test_shuffling_can_be_left_out() -> None:
    rows = summary_of(seed=None).rows(resamples=5)
    assert found(rows, "kendall_paper_shuffled", statistic="intensity", block=0)["mean"] is None
    assert found(rows, "kendall_paper_expected_shuffled", statistic="intensity", block=0)["mean"] is not None


@pytest.mark.parametrize("padding", ["with", "without"])
def test_clusters_are_fitted_to_the_patches_that_count(padding: str) -> None:
    found_clusters = fit_clusters([made_up(CONFIG, 3), made_up(CONFIG, 4, 3)], padding=padding, source="made up")
    counted = np.ones(ALL.padded.shape, dtype=bool) if padding == "with" else ~ALL.padded
    for name in ("intensity", "variation"):
        expected = kmeans_1d(getattr(ALL, name)[counted], padding=padding)
        np.testing.assert_array_equal(found_clusters[name].bounds, expected.bounds)
        assert found_clusters[name].counts.sum() == counted.sum()
        assert (found_clusters[name].padding, found_clusters[name].source) == (padding, "made up")


def test_overlap_of_two_keep_rates_stage_by_stage() -> None:
    first = summary_of(padding="without")
    other = replace(ALL, survived=np.roll(ALL.survived, 1, axis=2))
    second = summary_of(other, padding="without")
    means = bootstrap(overlap(first, second), resamples=20)
    for stage, block in ((0, 1), (1, 2)):
        shares = []
        for clip in range(7):
            one, two = ({*np.flatnonzero(b.kept(block)[clip] & ~ALL.padded[clip])} for b in (ALL, other))
            if one | two:
                shares.append(len(one & two) / len(one | two))
        assert means.mean[stage] == pytest.approx(np.mean(shares))
    assert bootstrap(overlap(first, first)).mean.tolist() == [1.0, 1.0]


def test_runs_that_cannot_be_compared() -> None:
    first = summary_of()
    with pytest.raises(InvalidSetting, match="padding is 'without'; allowed: 'with'"):
        overlap(first, summary_of(padding="without"))
    with pytest.raises(DataError, match=r"clip-0\.wav is in one of them only"):
        overlap(first, summary_of(made_up(CONFIG, 6, 1)))
    with pytest.raises(DataError, match="order"):
        overlap(first, replace(first, ids=first.ids[::-1]))
    other_grid = small_config("ast", num_hidden_layers=4, prune_at=[2, 1], keep_rate=0.6, time_stride=10)
    second = summarise([made_up(other_grid, 7)], other_grid, CLUSTERS, padding="with")
    with pytest.raises(InputShapeError, match=r"\(8, 8\) and \(8, 12\)"):
        overlap(first, second)


def test_wrong_use() -> None:
    with pytest.raises(InvalidSetting, match="padding is 'some'"):
        Accumulator(CONFIG, CLUSTERS, padding="some")
    with pytest.raises(InvalidSetting, match="padding is 'some'"):
        fit_clusters([ALL], padding="some")
    with pytest.raises(InvalidSetting, match="clusters"):
        Accumulator(CONFIG, {"intensity": CLUSTERS["intensity"]}, padding="with")
    three = Clusters(np.array([0.0, 1.0]), "by hand", "with")
    with pytest.raises(InvalidSetting, match="as many clusters"):
        Accumulator(CONFIG, {**CLUSTERS, "variation": three}, padding="with")
    with pytest.raises(DataError, match="no clips"):
        Accumulator(CONFIG, CLUSTERS, padding="with").summary()
    with pytest.raises(DataError, match="0 different values"):
        fit_clusters([], padding="with")


@pytest.mark.parametrize("backbone", ["ast", "audiomae"])
def test_the_record_on_disk_gives_the_numbers_of_the_pass_itself(backbone: str, tmp_path: Path) -> None:
    model = small_eager_model(backbone)
    part = clips_on_disk(tmp_path / "clips", 6)
    config = model.config
    batches = list(observe(model, part, batch_size=2))
    fitted = fit_clusters(batches, padding="without")
    streamed = summarise(batches, config, fitted, padding="without")
    for scores, tolerance in (("float32", 0.0), ("float16", 0.01)):
        names = {"model_name": "small", "data_name": "noise", "batch_size": 2, "shard_clips": 4}
        store = record(model, part, tmp_path / scores, **names, scores=scores)
        np.testing.assert_array_equal(
            fit_clusters(store.batches(), padding="without")["intensity"].bounds, fitted["intensity"].bounds
        )
        stored = summarise(store.batches(), store.config, fitted, padding="without")
        for field in ("counts", "density", "survived", "counted", "targets", "logits"):
            np.testing.assert_array_equal(getattr(stored, field), getattr(streamed, field), err_msg=field)
        np.testing.assert_allclose(stored.kendall[:, :, :3], streamed.kendall[:, :, :3], rtol=0, atol=tolerance)
        np.testing.assert_allclose(stored.received, streamed.received, rtol=tolerance)
