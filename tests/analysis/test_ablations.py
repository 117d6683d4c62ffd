"""Ablations against the plain definition: patches truly dropped from each clip, criteria set by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from observed import clips_on_disk, small_eager_model
from plain import BACKBONES, plain_forward
from scipy.stats import bootstrap as scipy_bootstrap

from spectrim.analysis.ablations import (
    DENSE,
    Condition,
    ablation_rows,
    attention_ratio,
    cluster_conditions,
    compare_low,
    criterion_conditions,
    flagged,
    pruned_batch,
    run_condition,
)
from spectrim.analysis.record import observe
from spectrim.analysis.summary import fit_clusters, summarise
from spectrim.errors import DataError, InputShapeError, InvalidSetting
from spectrim.pruning.pruning import Pruning

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module", params=BACKBONES)
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A model, its dense batch of six clips, and clusters."""
    model = small_eager_model(request.param, num_labels=3)
    part = clips_on_disk(tmp_path_factory.mktemp("clips"), 6)
    batch = next(iter(observe(model, part, pruning=Pruning(1.0, (2, 1)), batch_size=6)))
    return model, batch, fit_clusters([batch], padding="without")


def test_dropped_clusters_are_truly_gone(seen) -> None:
    model, batch, clusters = seen
    condition = Condition("clusters", block=1, statistic="intensity", clusters=(4, 5))
    logits, count = run_condition(model, batch, condition, clusters, padding="without")
    bounds = clusters["intensity"].bounds
    for clip in range(6):
        gone = {
            f * 8 + t
            for f in range(8)
            for t in range(8)
            if batch.intensity[clip, f, t] > bounds[2] and t * 16 < max(1, batch.num_frames[clip])
        }
        assert count[clip] == len(gone)
        plain = plain_forward(model, torch.from_numpy(batch.log_mel[clip]), rates={}, removed={1: gone})
        np.testing.assert_allclose(logits[clip], plain.logits.detach().numpy(), **CLOSE)
    assert len(set(count.tolist())) > 1
    assert np.abs(logits - batch.logits).max() > 0.01


def test_the_control_drops_as_many_real_patches_of_its_own_choice(seen) -> None:
    _, batch, clusters = seen
    condition = Condition("clusters", block=1, statistic="variation", clusters=(1, 2))
    chosen = flagged(batch, condition, clusters, padding="without")
    control = Condition("clusters", block=1, statistic="variation", clusters=(1, 2), random=True)
    drawn = flagged(batch, control, clusters, padding="without", seed=3)
    assert (drawn.sum(axis=(1, 2)) == chosen.sum(axis=(1, 2))).all()
    assert not (drawn & batch.padded).any() and not (chosen & batch.padded).any()
    assert (drawn != chosen).any()
    assert np.array_equal(drawn, flagged(batch, control, clusters, padding="without", seed=3))
    assert (drawn != flagged(batch, control, clusters, padding="without", seed=4)).any()
    assert flagged(batch, condition, clusters, padding="with").sum() >= chosen.sum()


@pytest.mark.parametrize("name", ["attention", "intensity", "random", "variation, public gather"])
def test_a_ranking_is_the_model_set_that_way(seen, name: str) -> None:
    model, batch, clusters = seen
    found, _ = run_condition(model, batch, Condition("criterion", 0.6, name), clusters, padding="without")
    own = small_eager_model(model.config.backbone, num_labels=3)
    criterion, _, public = name.partition(", ")
    own.set_pruning(
        keep_rate=0.6, criterion="auto" if criterion == "attention" else criterion, reference_compat=bool(public)
    )
    with torch.no_grad():
        wanted = own(torch.from_numpy(batch.log_mel)).logits.numpy()
    np.testing.assert_allclose(found, wanted, **CLOSE)
    assert np.abs(found - batch.logits).max() > 0.01
    assert model.config.criterion == "auto" and not model.config.reference_compat


@pytest.mark.parametrize("own", [{"reducer": "cluster"}, {"time_segments": 2}, {"attention_mass": 0.8}])
def test_what_ranks_low_is_dropped_whatever_the_model_itself_does_with_it(seen, own: dict[str, object]) -> None:
    model, batch, clusters = seen
    other = small_eager_model(model.config.backbone, num_labels=3, **own)
    assert criterion_conditions(other.config, [0.4]) == criterion_conditions(model.config, [0.4])
    for name in ("attention", "intensity"):
        condition = Condition("criterion", 0.4, name)
        wanted, found = (run_condition(one, batch, condition, clusters, padding="without")[0] for one in (model, other))
        np.testing.assert_array_equal(found, wanted)
    wanted, found = (pruned_batch(one, batch, 0.4) for one in (model, other))
    np.testing.assert_array_equal(found.survived, wanted.survived)
    np.testing.assert_array_equal(found.logits, wanted.logits)


def test_a_pruned_batch_is_what_observing_at_that_rate_gives(seen, tmp_path) -> None:
    model, batch, _ = seen
    part = clips_on_disk(tmp_path, 6)
    wanted = next(iter(observe(model, part, pruning=Pruning(0.5, (2, 1)), batch_size=6)))
    found = pruned_batch(model, batch, 0.5)
    np.testing.assert_allclose(found.logits, wanted.logits, **CLOSE)
    assert np.array_equal(found.survived, wanted.survived)
    np.testing.assert_allclose(found.scores, wanted.scores, **CLOSE)


def test_conditions_cover_what_is_asked_for_and_can_be_run() -> None:
    config = small_eager_model("ast").config
    names = [one.criterion for one in criterion_conditions(config, [0.6])]
    assert names == [
        "attention",
        "intensity",
        "variation",
        "random",
        "intensity, public gather",
        "variation, public gather",
    ]
    config.drop_padding = True
    assert [one.criterion for one in criterion_conditions(config, [0.6])] == names[:4]
    dropped = cluster_conditions(config, [0, 3], sets=[(5, 1)])
    assert [(one.statistic, one.block, one.random) for one in dropped] == [
        (statistic, block, random)
        for statistic in ("intensity", "variation")
        for block in (0, 3)
        for random in (False, True)
    ]
    assert dropped[0].cluster_names == "C1+C5"
    for options, message in (
        ({"blocks": [4]}, "blocks is 4"),
        ({"blocks": [0], "sets": [(0,)]}, r"clusters is \[0\]"),
        ({"blocks": [0], "statistics": ["pitch"]}, "statistic is 'pitch'"),
    ):
        with pytest.raises(InvalidSetting, match=message):
            cluster_conditions(config, **options)
    with pytest.raises(InvalidSetting, match="keep_rate is 2"):
        criterion_conditions(config, [2.0])


def test_rows_hold_paired_differences() -> None:
    generator = np.random.default_rng(0)
    targets = np.eye(2, dtype=np.float32)[generator.integers(2, size=80)]

    def scored(right: np.ndarray) -> np.ndarray:
        return np.where(right[:, None], targets, 1 - targets).astype(np.float32)

    rights = {name: generator.random(80) < share for name, share in (("d", 0.9), ("a", 0.8), ("i", 0.6), ("r", 0.7))}
    attention, intensity = Condition("criterion", 0.5, "attention"), Condition("criterion", 0.5, "intensity")
    drop = Condition("clusters", 1.0, None, 3, "intensity", (1, 2))
    control = Condition("clusters", 1.0, None, 3, "intensity", (1, 2), True)
    scores = {
        DENSE: rights["d"],
        attention: rights["a"],
        intensity: rights["i"],
        drop: rights["r"],
        control: rights["a"],
    }
    removed = {one: np.zeros(80, dtype=int) for one in scores}
    removed[drop] = np.arange(80) % 9
    rows = ablation_rows(
        {one: scored(right) for one, right in scores.items()}, removed, targets, "accuracy", np.full(80, 8)
    )
    by = {(row["ablation"], row["criterion"], row["random"]): row for row in rows}
    found = by["criterion", "intensity", False]
    assert found["value"] == pytest.approx(rights["i"].mean())
    assert found["change"] == pytest.approx(rights["i"].mean() - rights["d"].mean())
    assert found["against"] == "attention"
    assert found["difference"] == pytest.approx(rights["i"].mean() - rights["a"].mean())
    gaps = rights["i"].astype(float) - rights["a"]
    wanted = scipy_bootstrap((gaps,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1))
    assert found["difference_low"] == pytest.approx(wanted.confidence_interval.low, abs=0.03)
    assert found["difference_high"] == pytest.approx(wanted.confidence_interval.high, abs=0.03)
    dropped = by["clusters", None, False]
    assert (dropped["against"], dropped["clusters"], dropped["block"]) == ("random patches", "C1+C2", 3)
    assert dropped["difference"] == pytest.approx(rights["r"].mean() - rights["a"].mean())
    whole = removed[drop] == 8
    assert dropped["clips_left_whole"] == whole.sum() == 8
    assert dropped["patches_removed"] == pytest.approx(removed[drop][~whole].sum() / 80)
    assert by["criterion", "attention", False]["difference"] is None
    with pytest.raises(InvalidSetting, match="dense"):
        ablation_rows({attention: scores[attention]}, removed, targets, "accuracy", np.full(80, 8))


def test_attention_ratio_by_loops() -> None:
    generator = np.random.default_rng(2)
    scores = generator.random((2, 3, 2, 4)).astype(np.float32)
    kept = generator.random((2, 2, 2, 4)) < 0.5
    counted = generator.random((2, 2, 4)) < 0.8
    kept[1, 1] = True
    found = attention_ratio(scores, kept, counted)
    for clip in range(2):
        for stage in range(2):
            stays, goes = kept[clip, stage] & counted[clip], ~kept[clip, stage] & counted[clip]
            for block in range(3):
                if not goes.any():
                    assert np.isnan(found[clip, stage, block])
                    continue
                wanted = scores[clip, block][stays].mean() / scores[clip, block][goes].mean()
                assert found[clip, stage, block] == pytest.approx(wanted, rel=1e-5)
    assert np.isnan(found[1, 1]).all()


def test_low_patches_of_two_models_are_compared_clip_by_clip(tmp_path) -> None:
    part = clips_on_disk(tmp_path, 8)
    summaries = []
    for backbone in BACKBONES:
        model = small_eager_model(backbone, num_labels=3)
        batches = list(observe(model, part, batch_size=8))
        clusters = fit_clusters(batches, padding="without")
        summaries.append(summarise(batches, model.config, clusters, padding="without", seed=None))
    found = compare_low(*summaries)
    shares = []
    for one in summaries:
        low = one.counts[:, :, :2].sum(axis=(2, 3))
        shares.append((low[:, 1:].sum(axis=0) / low[:, 0].sum(), low[:, 1:].sum(0) / one.counts[:, 1:].sum((0, 2, 3))))
    np.testing.assert_allclose(found.kept_share.mean, shares[0][0] - shares[1][0])
    np.testing.assert_allclose(found.cluster_share.mean, shares[0][1] - shares[1][1])
    same = compare_low(summaries[0], summaries[0])
    assert (same.kept_share.low == 0).all() and (same.kept_share.high == 0).all()
    shorter = summarise(batches, model.config, clusters, padding="with", seed=None)
    with pytest.raises(InvalidSetting, match="padding"):
        compare_low(summaries[0], shorter)
    fewer = next(iter(observe(model, part, batch_size=8, limit=4)))
    with pytest.raises(DataError, match="same clips"):
        compare_low(summaries[1], summarise([fewer], model.config, clusters, padding="without", seed=None))
    other = small_eager_model("ast", num_labels=3, prune_at=[1])
    one_stage = summarise(observe(other, part, batch_size=8), other.config, clusters, padding="without", seed=None)
    with pytest.raises(InputShapeError, match="as many stages"):
        compare_low(summaries[0], one_stage)
