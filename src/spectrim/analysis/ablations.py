"""Ablations: what a model loses when patches are ranked by something else, or when whole clusters of them are dropped.

Without training, and on the same clips for all, so that every difference is paired. A `Condition` is one way to run the
model; the dense model is one of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from spectrim.analysis.batches import ClipBatch
from spectrim.analysis.summary import STATISTICS, Summary
from spectrim.config import SpectrimConfig
from spectrim.errors import DataError, InputShapeError, InvalidSetting
from spectrim.measure.metric_intervals import clip_intervals
from spectrim.measure.metrics import METRICS, chance_level
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.pruning import Pruning
from spectrim.stats.bootstrap import Estimate
from spectrim.stats.clusters import CLUSTERS, Clusters
from spectrim.stats.groups import Groups
from spectrim.stats.paired import bootstrap_difference
from spectrim.stats.ratios import Ratio, divide_or_nan, pooled

ATTENTION = "attention"
RANKINGS: dict[str, dict[str, Any]] = {
    ATTENTION: {"criterion": "auto", "reference_compat": False},
    "intensity": {"criterion": "intensity", "reference_compat": False},
    "variation": {"criterion": "variation", "reference_compat": False},
    "random": {"criterion": "random", "reference_compat": False},
    "intensity, public gather": {"criterion": "intensity", "reference_compat": True},
    "variation, public gather": {"criterion": "variation", "reference_compat": True},
}
"""What the criteria ablation ranks patches by → fields of `Pruning`, named as in config.json. "Public gather" is that
of the paper's public code, which takes other tokens than those that it ranks highest; see ``reference_compat``."""

DROPPING: dict[str, Any] = {"reducer": "drop", "time_segments": 1, "attention_mass": 0.0}
"""Fields of `Pruning` that all rankings share, whatever a model's own are: what is asked is which patches matter, so
those that rank low are dropped, as in the paper, and every clip loses as many."""

LOW_CLUSTERS, HIGH_CLUSTERS = (1, 2), (4, 5)
"""C1+C2 and C4+C5, the sets that the paper drops."""


@dataclass(frozen=True)
class Condition:
    """One way to run a model.

    Attributes:
        ablation: ``"dense"``, ``"criterion"`` or ``"clusters"``.
        keep_rate: of each pruning block; 1 but for ``"criterion"``.
        criterion: name in `RANKINGS`; for ``"criterion"``.
        block: in which the patches of ``clusters`` are dropped; for ``"clusters"``.
        statistic: that the clusters are of.
        clusters: numbers from 1.
        random: instead, drop as many patches of each clip at random.
    """

    ablation: str
    keep_rate: float = 1.0
    criterion: str | None = None
    block: int | None = None
    statistic: str | None = None
    clusters: tuple[int, ...] = ()
    random: bool = False

    @property
    def cluster_names(self) -> str:
        """E.g. ``"C1+C2"``."""
        return "+".join(f"C{number}" for number in self.clusters)

    def columns(self) -> dict[str, Any]:
        """The fields as columns of a table, clusters by their names."""
        return {
            "ablation": self.ablation,
            "keep_rate": self.keep_rate,
            "criterion": self.criterion,
            "block": self.block,
            "statistic": self.statistic,
            "clusters": self.cluster_names or None,
            "random": self.random,
        }


DENSE = Condition("dense")


def ranked(pruning: Pruning, keep_rate: float, ranking: str = ATTENTION) -> Pruning:
    """A model's operating point with another keep rate and ranking, its other patches dropped (`DROPPING`).

    Args:
        pruning: of the model, for blocks, padding and seed.
        keep_rate: of each pruning block.
        ranking: a name in `RANKINGS`.
    """
    return pruning.changed({**DROPPING, **RANKINGS[ranking], "keep_rate": keep_rate})


def criterion_conditions(config: SpectrimConfig, keep_rates: Sequence[float]) -> list[Condition]:
    """Every ranking at every keep rate, attention first; without those that the public code cannot.

    Raises:
        InvalidSetting: a keep rate is out of range.
    """
    found = []
    for rate in keep_rates:
        config.plan(pruning=ranked(config.pruning, rate))
        found += [Condition("criterion", rate, name) for name in RANKINGS if _can_run(config, name, rate)]
    return found


def _can_run(config: SpectrimConfig, ranking: str, keep_rate: float) -> bool:
    """Whether a ranking works: the public gather knows no padding, and must leave the head a token."""
    try:
        config.plan(pruning=ranked(config.pruning, keep_rate, ranking))
    except InvalidSetting:
        return False
    return True


def cluster_conditions(
    config: SpectrimConfig,
    blocks: Sequence[int],
    sets: Sequence[Sequence[int]] = (LOW_CLUSTERS, HIGH_CLUSTERS),
    statistics: Sequence[str] = STATISTICS,
) -> list[Condition]:
    """Every set of clusters dropped at every block, each followed by as many random patches.

    Args:
        config: of the model.
        blocks: in which to drop.
        sets: of numbers of clusters, from 1.
        statistics: of `STATISTICS`.

    Raises:
        InvalidSetting: a block, cluster or statistic is not there.
    """
    for block in blocks:
        if isinstance(block, bool) or block not in range(config.num_hidden_layers):
            raise InvalidSetting("blocks", block, f"block numbers from 0 to {config.num_hidden_layers - 1}")
    for numbers in sets:
        if not numbers or not set(numbers) <= set(range(1, CLUSTERS + 1)):
            raise InvalidSetting("clusters", list(numbers), f"numbers from 1 to {CLUSTERS}")
    for statistic in statistics:
        if statistic not in STATISTICS:
            raise InvalidSetting("statistic", statistic, " or ".join(STATISTICS))
    return [
        Condition("clusters", 1.0, None, block, statistic, tuple(sorted(set(numbers))), random)
        for statistic in statistics
        for numbers in sets
        for block in blocks
        for random in (False, True)
    ]


def pruned_batch(model: AudioTransformer, batch: ClipBatch, keep_rate: float) -> ClipBatch:
    """The same clips at another keep rate, ranked by the backbone's attention; the batch needs its log-mel."""
    pruning = ranked(model.config.pruning, keep_rate)
    with torch.inference_mode():
        out = model(**_inputs(model, batch), pruning=pruning, output_token_trace=True)
    return replace(
        batch,
        logits=out.logits.float().cpu().numpy(),
        scores=torch.stack(out.token_trace.scores, dim=1).float().cpu().numpy(),
        survived=torch.stack(out.token_trace.kept).sum(dim=0).to(torch.uint8).cpu().numpy(),
    )


def run_condition(
    model: AudioTransformer,
    batch: ClipBatch,
    condition: Condition,
    clusters: Mapping[str, Clusters],
    *,
    padding: str,
    seed: int = 0,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Run a model in one way.

    Args:
        model: in eval mode.
        batch: of clips with log-mel.
        condition: the way.
        clusters: statistic → clusters.
        padding: ``"with"`` or ``"without"``: whether patches that hold only padding belong to clusters.
        seed: of random patches: those of a clip depend on it and on the clip's place in the data set.

    Returns:
        Logits (n, model's labels), and for ``"clusters"`` how many patches were flagged in each clip (n,), else 0.
    """
    flags = np.zeros(batch.padded.shape, dtype=bool)
    removed, pruning = None, ranked(model.config.pruning, condition.keep_rate, condition.criterion or ATTENTION)
    if condition.ablation == "clusters":
        flags = flagged(batch, condition, clusters, padding=padding, seed=seed)
        removed = {int(condition.block or 0): torch.from_numpy(flags).to(model.device)}
    with torch.inference_mode():
        logits = model(**_inputs(model, batch), pruning=pruning, removed=removed).logits
    return logits.float().cpu().numpy(), np.count_nonzero(flags, axis=(1, 2))


def flagged(
    batch: ClipBatch, condition: Condition, clusters: Mapping[str, Clusters], *, padding: str, seed: int = 0
) -> NDArray[np.bool_]:
    """(n, F, T): the patches that a condition of clusters drops; see `run_condition`."""
    statistic = str(condition.statistic)
    counted = batch.counted(padding)
    ranks = np.where(counted, clusters[statistic].ranks(getattr(batch, statistic)), -1)
    chosen = np.isin(ranks, [number - 1 for number in condition.clusters])
    if not condition.random:
        return chosen
    drawn = np.zeros(chosen.shape, dtype=bool)
    for clip, place in enumerate(batch.positions):
        among = np.flatnonzero(counted[clip])
        order = np.random.default_rng([seed, int(place)]).permutation(among)
        drawn[clip].flat[order[: np.count_nonzero(chosen[clip])]] = True
    return drawn


def _inputs(model: AudioTransformer, batch: ClipBatch) -> dict[str, Any]:
    if batch.log_mel is None:
        raise InvalidSetting("log_mel", None, "batches that hold log-mel")
    return {
        "input_values": torch.from_numpy(batch.log_mel).to(model.device, model.dtype),
        "num_frames": torch.from_numpy(np.asarray(batch.num_frames)).to(model.device),
    }


def ablation_rows(
    scores: Mapping[Condition, NDArray[np.floating]],
    removed: Mapping[Condition, NDArray[np.integer]],
    targets: NDArray[np.floating],
    metric: str,
    patches: NDArray[np.integer],
    groups: Groups | None = None,
) -> list[dict[str, Any]]:
    """A row a condition, with 95 % intervals (`spectrim.measure.metric_intervals.clip_intervals`).

    Args:
        scores: condition → (clips, labels), labels in the order of the targets; `DENSE` is among them.
        removed: condition → (clips,) patches flagged to be dropped.
        targets: (clips, labels).
        metric: name in `spectrim.measure.metrics.METRICS`.
        patches: (clips,) patches of each clip that the model sees.
        groups: of the clips that are not independent; intervals are over them, else over clips.

    Returns:
        Columns: the fields of `Condition` (clusters by their names); patches_removed, mean over clips;
        clips_left_whole, of which all patches were flagged, so that none was dropped; metric, value, low, high;
        change, change_low, change_high against the dense model; against (what the row is further compared with:
        attention at the same keep rate, or as many random patches), difference, difference_low, difference_high;
        clips; chance (`spectrim.measure.metrics.chance_level`). None where a column does not apply or there is no
        interval.
    """
    if DENSE not in scores:
        raise InvalidSetting(
            "scores", sorted({condition.ablation for condition in scores}), "some of the dense model among them"
        )
    conditions = [DENSE, *(condition for condition in scores if condition != DENSE)]
    chance = chance_level(targets, metric)
    intervals = clip_intervals([scores[condition] for condition in conditions], targets, metric, groups=groups)
    values = {condition: METRICS[metric](scores[condition], targets) for condition in conditions}
    rows = []
    for number, condition in enumerate(conditions):
        all_flagged = removed[condition] >= patches
        row: dict[str, Any] = {
            **condition.columns(),
            "patches_removed": float(np.where(all_flagged, 0, removed[condition]).mean()),
            "clips_left_whole": int(np.count_nonzero(all_flagged)),
            "metric": metric,
            "value": values[condition],
            "low": intervals.low[number],
            "high": intervals.high[number],
            "change": values[condition] - values[DENSE],
            "change_low": intervals.change_low[number],
            "change_high": intervals.change_high[number],
            **dict.fromkeys(("against", "difference", "difference_low", "difference_high")),
            "clips": len(targets),
            "chance": chance,
        }
        compared = _compared_with(condition)
        if compared is not None and compared in scores:
            paired = clip_intervals([scores[compared], scores[condition]], targets, metric, groups=groups)
            row["against"] = ATTENTION if condition.ablation == "criterion" else "random patches"
            row |= {
                "difference": values[condition] - values[compared],
                "difference_low": paired.change_low[1],
                "difference_high": paired.change_high[1],
            }
        rows.append({name: _plain(value) for name, value in row.items()})
    return rows


def _compared_with(condition: Condition) -> Condition | None:
    """What a condition is compared with besides the dense model."""
    if condition.ablation == "criterion" and condition.criterion != ATTENTION:
        return replace(condition, criterion=ATTENTION)
    return replace(condition, random=True) if condition.ablation == "clusters" and not condition.random else None


def _plain(value: Any) -> Any:
    """A value for JSON and CSV; None for what is not a number."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True)
class LowComparison:
    """How much more of the low patches one model keeps than another: first − second, over the same clips.

    Attributes:
        kept_share: (stages,): of the low patches that enter, those that are left.
        cluster_share: (stages,): of the patches that are left, the low ones.
    """

    kept_share: Estimate
    cluster_share: Estimate


def compare_low(
    first: Summary, second: Summary, statistic: str = "intensity", clusters: Sequence[int] = LOW_CLUSTERS
) -> LowComparison:
    """Compare how many patches of low clusters two models keep; clips, or their groups, are drawn alike for both.

    Args:
        first: of one model.
        second: of another over the same clips in the same order, with as many pruning blocks.
        statistic: of `STATISTICS`.
        clusters: numbers from 1 that count as low.

    Raises:
        DataError: the clips differ.
        InputShapeError: the numbers of stages differ.
        InvalidSetting: one counts padded patches and the other does not.
    """
    if first.padding != second.padding:
        raise InvalidSetting("padding", second.padding, f"{first.padding!r}, as in the other run")
    if first.ids != second.ids:
        raise DataError("the two runs are not over the same clips")
    if len(first.stages) != len(second.stages):
        raise InputShapeError(f"the models prune at {first.stages} and {second.stages}; wanted: as many stages")
    shares = [low_ratios(summary, statistic, clusters) for summary in (first, second)]
    kept, of_clusters = (bootstrap_difference(*pair, groups=first.groups) for pair in zip(*shares, strict=True))
    return LowComparison(kept, of_clusters)


def low_ratios(summary: Summary, statistic: str, clusters: Sequence[int] = LOW_CLUSTERS) -> tuple[Ratio, Ratio]:
    """``kept_share`` and ``cluster_share`` of some clusters taken together, as ratios (clips, stages)."""
    counts = summary.cluster_counts(statistic)
    low = counts[..., [number - 1 for number in clusters]].sum(axis=-1)
    return pooled(low[:, 1:], low[:, :1]), pooled(low[:, 1:], counts[:, 1:].sum(axis=-1))


def attention_ratio(
    dense_scores: NDArray[np.floating], kept: NDArray[np.bool_], counted: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Attention that the patches which a pruned model keeps receive in the *dense* model, over that of the others.

    In the pruned model the kept patches of a stage receive more than those it drops by construction. In the dense one
    nothing is dropped, so that later blocks say whether the choice lasts.

    Args:
        dense_scores: (n, blocks, F, T) of the dense model.
        kept: (n, stages, F, T) alive after each stage of the pruned one.
        counted: (n, F, T) patches that count.

    Returns:
        (n, stages, blocks): mean score of the kept patches / mean score of those that are gone by then; NaN where
        none is gone, or none left.
    """
    wide = np.where(counted[:, None], dense_scores, 0.0).astype(np.float64)
    stays = kept & counted[:, None]
    goes = ~kept & counted[:, None]
    sums = [np.einsum("nsft,nbft->nsb", part.astype(np.float64), wide) for part in (stays, goes)]
    numbers = [np.count_nonzero(part, axis=(2, 3))[..., None] for part in (stays, goes)]
    means = [divide_or_nan(total, number) for total, number in zip(sums, numbers, strict=True)]
    return divide_or_nan(*means)
