"""Summarise batches of clips: a few numbers per clip, from which the reported statistics are computed.

`Accumulator` takes the batches of `spectrim.analysis.record.observe` or `spectrim.analysis.store.Store.batches`, so
that statistics need no record on disk. `Summary` holds the numbers, without scores and spectrograms: about 3 KB a
ten-second clip of AST-B beside its targets and logits. It makes rows with intervals, for all clips or for each label.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectrim.analysis.batches import ClipBatch
from spectrim.analysis.statistics import DENSITY_EDGES, Received, density, jaccard, joint_counts, received
from spectrim.config import SpectrimConfig
from spectrim.errors import DataError, InputShapeError, InvalidSetting, one_of
from spectrim.stats.bootstrap import CONFIDENCE, RESAMPLES, Estimate, bootstrap
from spectrim.stats.clusters import PADDED_PATCHES, Clusters, kmeans_1d
from spectrim.stats.groups import Groups
from spectrim.stats.kendall import (
    count_pairs,
    largest_tau_b,
    paper_form,
    paper_form_when_shuffled,
    shuffled,
    somers_d,
    tau_b,
    tau_b_of_values,
)
from spectrim.stats.ratios import Ratio, clip_mean, pooled

STATISTICS = ("intensity", "variation")
"""What patches are clustered by; the order of the axes below."""

KENDALL_FORMS = (
    "kendall_paper",
    "kendall_tau_b",
    "kendall_paper_expected_shuffled",
    "kendall_paper_shuffled",
    "kendall_tau_b_perfect",
    "kendall_somers_d",
    "kendall_tau_b_values",
)
"""The paper's form, tau-b; what the paper's form reads on shuffled scores, on average and in one shuffle; what tau-b
reads on a perfect score; the share of the way from a random to a perfect score, Somers' D; and tau-b of the values
themselves, before any clusters."""

LOW = 2
"""Clusters that count as low: C1 and C2, as in the paper's ablation of dropping them."""


def fit_clusters(batches: Iterable[ClipBatch], *, padding: str, source: str = "k-means") -> dict[str, Clusters]:
    """Clusters of the intensity and of the variation of a data set's patches.

    Holds 8 bytes a patch, 82 MB for 20,000 ten-second clips.

    Args:
        batches: of clips.
        padding: ``"with"`` or ``"without"`` patches that hold only padding.
        source: the data set, in words.

    Returns:
        statistic → its clusters.

    Raises:
        InvalidSetting: ``padding`` is unknown.
        DataError: there are too few different values.
    """
    if padding not in PADDED_PATCHES:
        raise InvalidSetting("padding", padding, one_of(PADDED_PATCHES))
    values: dict[str, list[NDArray[np.float32]]] = {name: [] for name in STATISTICS}
    for batch in batches:
        counted = batch.counted(padding)
        for name in STATISTICS:
            values[name].append(getattr(batch, name)[counted])
    return {
        name: kmeans_1d(np.concatenate(parts or [np.zeros(0, dtype=np.float32)]), padding=padding, source=source)
        for name, parts in values.items()
    }


@dataclass(frozen=True, eq=False)
class Summary:
    """Numbers per clip, n clips; statistics in the order of `STATISTICS`, Kendall's forms in that of `KENDALL_FORMS`.

    Attributes:
        padding: ``"with"`` or ``"without"`` patches that hold only padding.
        clusters: statistic → the clusters that were used.
        stages: the pruning blocks, ascending; stage 0 is what enters the model, stage s what their s-th leaves.
        ids: (n,) names of the clips.
        targets: (n, labels) bool.
        logits: (n, model's labels) float32.
        survived: (n, F, T) uint8: after how many blocks a patch was alive.
        counted: (n, F, T) bool: patches that count.
        kendall: (n, statistics, forms, blocks) float64, over the patches that entered the block.
        counts: (n, stages + 1, clusters, clusters): patches by intensity and variation cluster.
        received: (n, stages, 4): as the fields of `spectrim.analysis.statistics.Received`.
        density: (stages + 1, bins, bins) patches over (intensity, variation), of all clips together.
        groups: of the clips that are not independent, None where they are.
    """

    padding: str
    clusters: Mapping[str, Clusters]
    stages: tuple[int, ...]
    ids: tuple[str, ...]
    targets: NDArray[np.bool_]
    logits: NDArray[np.float32]
    survived: NDArray[np.uint8]
    counted: NDArray[np.bool_]
    kendall: NDArray[np.float64]
    counts: NDArray[np.int64]
    received: NDArray[np.float64]
    density: NDArray[np.int64]
    groups: Groups | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def kept(self) -> NDArray[np.bool_]:
        """(n, stages, F, T): the patches that count and are alive after each pruning block."""
        blocks = np.array(self.stages, dtype=np.int64)[:, None, None]
        return (self.survived[:, None] > blocks) & self.counted[:, None]

    def cluster_counts(self, statistic: str) -> NDArray[np.int64]:
        """(n, stages + 1, clusters): patches of each cluster of one statistic."""
        return self.counts.sum(axis=3 - STATISTICS.index(statistic))

    def ratios(self) -> dict[str, Ratio]:
        """Every quantity as sums over clips to be divided, by name; the shape of each is what `rows` counts through.

        ``kendall`` (statistics, forms, blocks); ``kept_share`` (statistics, stages, clusters): of the patches of a
        cluster that enter the model, those that are left; ``cluster_share`` (statistics, stages + 1, clusters): of
        the patches that are there, those of a cluster; ``low_low_patches`` (stages + 1): a clip's patches of low
        intensity and low variation; ``low_low_kept_share`` (stages); ``score_share`` (stages): the kept patches' share
        of the score that all received; ``score_ratio`` (stages): mean over clips of a kept patch's mean score over a
        dropped one's; ``kept_patches`` (stages + 1).
        """
        by_cluster = np.stack([self.cluster_counts(name) for name in STATISTICS], axis=1)
        low = self.counts[:, :, :LOW, :LOW].sum(axis=(2, 3))
        scores = Received(*np.moveaxis(self.received, -1, 0))
        return {
            "kendall": clip_mean(self.kendall),
            "kept_share": pooled(by_cluster[:, :, 1:], by_cluster[:, :, :1]),
            "cluster_share": pooled(by_cluster, by_cluster.sum(axis=-1, keepdims=True)),
            "low_low_patches": clip_mean(low),
            "low_low_kept_share": pooled(low[:, 1:], low[:, :1]),
            "score_share": pooled(scores.kept, scores.kept + scores.dropped),
            "score_ratio": clip_mean(scores.ratio),
            "kept_patches": clip_mean(self.counts.sum(axis=(2, 3))),
        }

    def rows(
        self,
        *,
        labels: Sequence[str] | None = None,
        seed: int = 0,
        resamples: int = RESAMPLES,
        confidence: float = CONFIDENCE,
    ) -> list[dict[str, Any]]:
        """Every mean with its bootstrap interval over clips, or over their groups, for CSV and JSON.

        Args:
            labels: names of the targets: one set of rows for the clips of each label; None for all clips together.
            seed: of the draws.
            resamples: how many.
            confidence: of the intervals.

        Returns:
            Rows with the columns quantity, label (None for all clips), statistic, block, stage, cluster (1 for the
            lowest; None where these do not apply), padding, mean, low, high, clips, confidence. Numbers that do not
            exist are None.

        Raises:
            DataError: there are no clips.
            InputShapeError: ``labels`` are not as many as the targets.
        """
        if not self.ids:
            raise DataError("there are no clips to make statistics of")
        options: dict[str, Any] = {"seed": seed, "resamples": resamples, "confidence": confidence}
        ratios = self.ratios()
        if labels is None:
            return list(self._rows_of(ratios, None, {**options, "groups": self.groups}))
        if len(labels) != self.targets.shape[1]:
            raise InputShapeError(f"{len(labels)} labels for targets of {self.targets.shape[1]}; wanted: as many")
        rows: list[dict[str, Any]] = []
        for number, label in enumerate(labels):
            index = np.flatnonzero(self.targets[:, number])
            if len(index):
                options["groups"] = None if self.groups is None else self.groups.of_clips(index)
                rows += self._rows_of({name: ratio.of_clips(index) for name, ratio in ratios.items()}, label, options)
        return rows

    def _rows_of(
        self, ratios: Mapping[str, Ratio], label: str | None, options: Mapping[str, Any]
    ) -> Iterator[dict[str, Any]]:
        for name, ratio in ratios.items():
            estimate = bootstrap(ratio, **options)
            for place in np.ndindex(estimate.mean.shape):
                yield self._row(name, place, label, estimate)

    def _row(self, name: str, place: tuple[int, ...], label: str | None, estimate: Estimate) -> dict[str, Any]:
        """One row; ``place`` counts through the axes that `ratios` names."""
        where: dict[str, Any] = dict.fromkeys(("statistic", "block", "stage", "cluster"))
        if name in ("kendall", "kept_share", "cluster_share"):
            where["statistic"] = STATISTICS[place[0]]
        if name == "kendall":
            name, where["block"] = KENDALL_FORMS[place[1]], place[2]
        else:
            left = name in ("kept_share", "low_low_kept_share", "score_share", "score_ratio")
            stage = place[1 if where["statistic"] else 0] + left
            where |= {"stage": stage, "block": self.stages[stage - 1] if stage else None}
        if name in ("kept_share", "cluster_share"):
            where["cluster"] = place[2] + 1
        return {"quantity": name, "label": label, **where, "padding": self.padding, **_numbers(estimate, place)}


def _numbers(estimate: Estimate, place: tuple[int, ...]) -> dict[str, Any]:
    """Mean, ends and clips of one quantity; None for what does not exist."""
    ends = {name: float(getattr(estimate, name)[place]) for name in ("mean", "low", "high")}
    known = {name: None if np.isnan(value) else value for name, value in ends.items()}
    return {**known, "clips": int(estimate.clips[place]), "confidence": estimate.confidence}


class Accumulator:
    """Collects the numbers of a `Summary` from batches of clips.

    Args:
        config: of the model: says blocks and pruning blocks.
        clusters: statistic → clusters, for both of `STATISTICS`, each with as many clusters as the other.
        padding: ``"with"`` or ``"without"`` patches that hold only padding.
        seed: of the shuffled scores; None to leave them out, which takes half the time of Kendall's correlation.
        edges: of the bins of the density.

    Raises:
        InvalidSetting: ``padding`` is unknown, or clusters are missing or not as many for both.
    """

    def __init__(
        self,
        config: SpectrimConfig,
        clusters: Mapping[str, Clusters],
        *,
        padding: str,
        seed: int | None = 0,
        edges: tuple[NDArray[np.float64], NDArray[np.float64]] = DENSITY_EDGES,
    ) -> None:
        if padding not in PADDED_PATCHES:
            raise InvalidSetting("padding", padding, one_of(PADDED_PATCHES))
        if set(clusters) != set(STATISTICS) or len({each.number for each in clusters.values()}) != 1:
            numbers = {name: each.number for name, each in clusters.items()}
            raise InvalidSetting("clusters", numbers, f"as many clusters for each of {', '.join(STATISTICS)}")
        self.padding = padding
        self.clusters = dict(clusters)
        self.number = clusters[STATISTICS[0]].number
        self.blocks = config.num_hidden_layers
        self.stages = tuple(sorted(config.prune_at))
        self.seed = seed
        self.edges = edges
        self._parts: list[dict[str, Any]] = []
        self._density = np.zeros((len(self.stages) + 1, *(len(bounds) - 1 for bounds in edges)), dtype=np.int64)

    def add(self, batch: ClipBatch) -> None:
        """Add a batch, which may have no clips."""
        if not len(batch):
            return
        counted = batch.counted(self.padding)
        first, second = (
            np.where(counted, self.clusters[name].ranks(getattr(batch, name)), np.int8(-1)) for name in STATISTICS
        )
        kept = np.stack([batch.entered(0), *(batch.kept(block) for block in self.stages)], axis=1)
        present = kept & counted[:, None]
        stage_scores = batch.scores[:, list(self.stages)]
        self._parts.append(
            {
                "ids": batch.ids,
                "targets": batch.targets,
                "logits": batch.logits,
                "survived": batch.survived,
                "counted": counted,
                "kendall": np.stack(
                    [
                        self._kendall(batch, ranks, getattr(batch, name))
                        for name, ranks in zip(STATISTICS, (first, second), strict=True)
                    ],
                    axis=1,
                ),
                "counts": joint_counts(present, first, second, self.number),
                "received": np.stack(received(stage_scores, kept[:, 1:], counted), axis=-1),
            }
        )
        self._density += density(present, batch.intensity, batch.variation, self.edges)

    def _kendall(self, batch: ClipBatch, ranks: NDArray[np.int8], values: NDArray[np.float32]) -> NDArray[np.float64]:
        """(n, forms, blocks)."""
        scores = batch.scores.reshape(len(batch), self.blocks, -1)
        wide = ranks.reshape(len(batch), 1, -1)
        counts = count_pairs(scores, wide, self.number)
        among = np.where(wide < 0, np.nan, scores)
        if self.seed is None:
            in_one_shuffle = np.full(counts.pairs.shape, np.nan)
        else:
            each = [
                shuffled(of_clip, seed=[self.seed, int(place)])
                for of_clip, place in zip(among, batch.positions, strict=True)
            ]
            in_one_shuffle = paper_form(count_pairs(np.stack(each), wide, self.number))
        forms = (
            *(paper_form(counts), tau_b(counts), paper_form_when_shuffled(counts), in_one_shuffle),
            *(largest_tau_b(counts), somers_d(counts), tau_b_of_values(among, values.reshape(len(batch), 1, -1))),
        )
        return np.stack(forms, axis=1)

    def summary(self) -> Summary:
        """The summary of all batches so far.

        Raises:
            DataError: there are none.
        """
        if not self._parts:
            raise DataError("there are no clips to make statistics of")
        gathered: dict[str, Any] = {
            name: np.concatenate([part[name] for part in self._parts]) for name in self._parts[0] if name != "ids"
        }
        ids = tuple(name for part in self._parts for name in part["ids"])
        return Summary(self.padding, self.clusters, self.stages, ids, density=self._density.copy(), **gathered)


def summarise(
    batches: Iterable[ClipBatch],
    config: SpectrimConfig,
    clusters: Mapping[str, Clusters],
    *,
    padding: str,
    seed: int | None = 0,
) -> Summary:
    """Accumulate all batches; see `Accumulator`."""
    accumulator = Accumulator(config, clusters, padding=padding, seed=seed)
    for batch in batches:
        accumulator.add(batch)
    return accumulator.summary()


def overlap(first: Summary, second: Summary) -> Ratio:
    """Jaccard overlap of what two models, criteria or keep rates keep, stage by stage: (n, stages) to be averaged.

    Args:
        first: of one run.
        second: of another over the same clips, with as many pruning blocks.

    Raises:
        InputShapeError: the grids or the numbers of stages differ.
        DataError: the clips differ.
        InvalidSetting: one counts padded patches and the other does not.
    """
    if first.padding != second.padding:
        raise InvalidSetting("padding", second.padding, f"{first.padding!r}, as in the other run")
    if first.ids != second.ids:
        only_in_one = sorted(set(first.ids) ^ set(second.ids))
        difference = f"{only_in_one[0]} is in one of them only" if only_in_one else "their order differs"
        raise DataError(f"the two runs are not over the same clips: {difference}")
    return clip_mean(jaccard(first.kept(), second.kept()))
