"""Run one model on one data set in every way that the report needs: two passes, then results that can be saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectrim.analysis.ablations import (
    ATTENTION,
    DENSE,
    DROPPING,
    Condition,
    attention_ratio,
    cluster_conditions,
    criterion_conditions,
    pruned_batch,
    ranked,
    run_condition,
)
from spectrim.analysis.batches import ClipBatch
from spectrim.analysis.findings import VERSION, Examples, Findings
from spectrim.analysis.record import config_facts, observe, weights_digest
from spectrim.analysis.summary import Accumulator, fit_clusters
from spectrim.config import SpectrimConfig
from spectrim.data import AudioDataset
from spectrim.errors import InvalidSetting, one_of
from spectrim.measure.scoring import label_columns
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.pruning import check_keep_rate
from spectrim.stats.clusters import PUBLISHED_INTENSITY_BOUNDS, Clusters, published_clusters

CLUSTERINGS = ("fit", "published")
EXAMPLES = 4
"""Clips that are kept for pictures, evenly spread over the data set."""

Tell = Callable[[str, int, int], object]
"""Called with a stage's name, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Plan:
    """What is asked of every model.

    Attributes:
        keep_rates: below 1; the first one is that of the pictures of stages.
        padding: ``"with"`` or ``"without"`` patches that hold only padding.
        clusters: one of `CLUSTERINGS`.
        data_name: of the data set, in `spectrim.data.DATA_SETS`.
        part: of the data set.
        drop_at: blocks at which clusters are dropped; None for the model's pruning blocks.
        limit: look only at the first so many clips; None for all.
        batch_size: clips in a forward pass.
        seed: of random patches.
    """

    keep_rates: tuple[float, ...]
    padding: str
    clusters: str
    data_name: str
    part: str
    drop_at: tuple[int, ...] | None = None
    limit: int | None = None
    batch_size: int = 16
    seed: int = 0

    def check(self) -> None:
        """Raise `InvalidSetting` for what is wrong without any model."""
        if not self.keep_rates:
            raise InvalidSetting("keep_rates", list(self.keep_rates), "one number or more in (0, 1)")
        for rate in self.keep_rates:
            check_keep_rate(rate)
            if rate == 1.0:
                raise InvalidSetting("keep_rates", rate, "numbers below 1; the dense model is always among them")
        if twice := [rate for rate in self.keep_rates if self.keep_rates.count(rate) > 1]:
            raise InvalidSetting("keep_rates", list(self.keep_rates), f"each number once; {twice[0]:g} is there twice")
        if self.clusters not in CLUSTERINGS:
            raise InvalidSetting("clusters", self.clusters, one_of(CLUSTERINGS))
        if self.clusters == "published" and self.data_name not in PUBLISHED_INTENSITY_BOUNDS:
            allowed = f"'fit' for {self.data_name}; published are those of {', '.join(PUBLISHED_INTENSITY_BOUNDS)}"
            raise InvalidSetting("clusters", self.clusters, allowed)

    def conditions(self, config: SpectrimConfig) -> list[Condition]:
        """The ways to run a model; raises `InvalidSetting` for what it cannot do."""
        if not config.prune_at:
            raise InvalidSetting("prune_at", [], "one block or more: a model that can prune")
        if self.padding == "with" and config.drop_padding:
            allowed = "'without' for a model with drop_padding, which never sees patches that hold only padding"
            raise InvalidSetting("padding", self.padding, allowed)
        blocks = sorted(config.prune_at) if self.drop_at is None else self.drop_at
        return [DENSE, *criterion_conditions(config, self.keep_rates), *cluster_conditions(config, blocks)]


def facts_of(model: AudioTransformer, part: AudioDataset, plan: Plan) -> dict[str, Any]:
    """What determines a model's findings, as JSON."""
    wanted = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(plan).items()}
    return {
        "version": VERSION,
        "weights": weights_digest(model),
        "config": config_facts(model.config, model.config.pruning.changed(DROPPING)),
        "plan": wanted,
        "clips": [recording.id for recording in part.recordings][: plan.limit],
        "labels": list(part.labels),
    }


def experiment(
    model: AudioTransformer, part: AudioDataset, plan: Plan, *, name: str, on_progress: Tell | None = None
) -> Findings:
    """Run a model over a part of a data set in every way of the plan.

    The first pass finds the clusters, the second does the rest, a batch at a time, so that all ways see the same
    log-mel. Held in memory: 8 bytes a patch, and the scores of every clip in every way.

    Args:
        model: in eval mode, on its device.
        part: to look at.
        plan: what to do.
        name: of the model, in the report.
        on_progress: is told how far it is.

    Raises:
        InvalidSetting: before any work: the plan does not fit the model, or the model's labels are not the data set's.
        DataError: too many files turn out unreadable, or too few clips to cluster.
    """
    plan.check()
    conditions = plan.conditions(model.config)
    columns = label_columns(list(model.config.id2label.values()), part.labels)

    def batches(stage: str) -> Any:
        def told(done: int, total: int) -> None:
            if on_progress is not None:
                on_progress(f"{name}: {stage}", done, total)

        dense = ranked(model.config.pruning, 1.0)
        return observe(model, part, pruning=dense, batch_size=plan.batch_size, limit=plan.limit, on_progress=told)

    clusters = fit_clusters(batches("clusters"), padding=plan.padding, source=f"{plan.data_name} {plan.part}")
    if plan.clusters == "published":
        clusters["intensity"] = published_clusters(plan.data_name)
    end = len(part) if plan.limit is None else min(plan.limit, len(part))
    pictured = {round(place) for place in np.linspace(0, end - 1, EXAMPLES)}
    builder = _FindingsBuilder(model, plan, conditions, clusters, columns, pictured)
    left_out: dict[str, str] = {}
    for batch in batches("ablations"):
        left_out |= batch.left_out
        builder.add(batch)
    return builder.findings(name, facts_of(model, part, plan), part, left_out)


class _FindingsBuilder:
    """Computes the numbers of `Findings` from batches of the dense model."""

    def __init__(
        self,
        model: AudioTransformer,
        plan: Plan,
        conditions: Sequence[Condition],
        clusters: Mapping[str, Clusters],
        columns: NDArray[np.int64],
        pictured: set[int],
    ) -> None:
        self.pictured = pictured
        self.model, self.plan, self.clusters, self.columns = model, plan, clusters, columns
        self.scores: dict[Condition, list[NDArray[np.float32]]] = {condition: [] for condition in conditions}
        self.removed: dict[Condition, list[NDArray[np.int64]]] = {condition: [] for condition in conditions}
        self.accumulators = {
            rate: Accumulator(model.config, clusters, padding=plan.padding, seed=None)
            for rate in (1.0, *plan.keep_rates)
        }
        self.ratios: dict[float, list[NDArray[np.float64]]] = {rate: [] for rate in plan.keep_rates}
        self.examples: list[tuple[NDArray[np.bool_], NDArray[np.float32], int, NDArray[np.uint8]]] = []

    def add(self, batch: ClipBatch) -> None:
        if not len(batch):
            return
        self.accumulators[1.0].add(batch)
        nothing = np.zeros(len(batch), dtype=np.int64)
        results = {DENSE: (batch.logits, nothing)}
        counted = batch.counted(self.plan.padding)
        stages = sorted(self.model.config.prune_at)
        for rate in self.plan.keep_rates:
            pruned = pruned_batch(self.model, batch, rate)
            self.accumulators[rate].add(pruned)
            kept = np.stack([pruned.kept(block) for block in stages], axis=1)
            self.ratios[rate].append(attention_ratio(batch.scores, kept, counted))
            results[Condition("criterion", rate, ATTENTION)] = pruned.logits, nothing
            if rate == self.plan.keep_rates[0] and batch.log_mel is not None:
                self.examples += [
                    (batch.targets[row], batch.log_mel[row], int(batch.num_frames[row]), pruned.survived[row])
                    for row, place in enumerate(batch.positions)
                    if int(place) in self.pictured
                ]
        for condition in self.scores:
            if condition not in results:
                results[condition] = run_condition(
                    self.model, batch, condition, self.clusters, padding=self.plan.padding, seed=self.plan.seed
                )
            logits, flagged = results[condition]
            self.scores[condition].append(logits[:, self.columns])
            self.removed[condition].append(flagged)

    def findings(
        self, name: str, facts: Mapping[str, Any], part: AudioDataset, left_out: Mapping[str, str]
    ) -> Findings:
        names = [", ".join(part.labels[number] for number in np.flatnonzero(targets)) for targets, *_ in self.examples]
        shape = (0, self.model.config.max_length, self.model.config.num_mel_bins)
        log_mel = [example[1] for example in self.examples] or np.zeros(shape, dtype=np.float32)
        survived = [example[3] for example in self.examples] or np.zeros((0, *self.model.config.grid), dtype=np.uint8)
        frames = np.array([example[2] for example in self.examples], dtype=np.int64)
        return Findings(
            name=name,
            config=self.model.config,
            facts=facts,
            metric=part.metric,
            labels=tuple(part.labels),
            summaries={rate: accumulator.summary() for rate, accumulator in self.accumulators.items()},
            ratios={rate: np.concatenate(parts) for rate, parts in self.ratios.items()},
            scores={condition: np.concatenate(parts) for condition, parts in self.scores.items()},
            removed={condition: np.concatenate(parts) for condition, parts in self.removed.items()},
            examples=Examples(tuple(names), np.asarray(log_mel), frames, np.asarray(survived)),
            left_out=left_out,
        )
