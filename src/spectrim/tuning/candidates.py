"""Points that are measured in the runtime: scored on a half, timed on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from spectrim.comparison.measuring import Answers, Measuring, Progress
from spectrim.comparison.methods import Case
from spectrim.comparison.rows import Row
from spectrim.comparison.store import Store
from spectrim.data import AudioDataset
from spectrim.data.whole_groups import groups_of
from spectrim.inference.backend import Backend
from spectrim.measure.benchmark import spread
from spectrim.measure.metric_intervals import clip_intervals
from spectrim.measure.metrics import METRICS, right_clips
from spectrim.network.macs import macs
from spectrim.pruning.pruning import Pruning
from spectrim.stats.bootstrap import CONFIDENCE
from spectrim.stats.groups import Groups
from spectrim.tuning.promise import Scores
from spectrim.tuning.runtimes import Runtime
from spectrim.tuning.search import front
from spectrim.tuning.settings import share_left

DENSE_KIND, UNIFORM, TUNED = "dense", "uniform", "tuned"


@dataclass(frozen=True)
class Candidate:
    """A point that is timed.

    Attributes:
        name: what it is called.
        method: of it.
        point: where.
        kind: `DENSE_KIND`, `UNIFORM` (the model's own blocks, one rate) or `TUNED`.
    """

    name: str
    method: str
    point: Pruning
    kind: str

    @property
    def case(self) -> Case:
        """The same for `spectrim.comparison`."""
        return Case(self.name, share_left(self.point), (self.point,))


@dataclass(frozen=True)
class Setting:
    """What all steps share: the model, the two halves, and how it is measured."""

    backend: Backend
    runtime: Runtime
    search: AudioDataset
    held: AudioDataset
    store: Store
    tell: Progress
    batch_size: int
    workers: int
    clips_at_once: int
    repeats: int
    resamples: int

    @property
    def depth(self) -> int:
        """Blocks of the model."""
        return self.backend.config.num_hidden_layers

    def measuring(self, candidates: Sequence[Candidate], part: AudioDataset) -> Measuring:
        """Measures candidates in the runtime."""
        models = {one.case.title: self.runtime.at(one.point) for one in candidates}
        return Measuring(models, part, self.store, self.tell)

    def answers(self, candidates: Sequence[Candidate], part: AudioDataset) -> Answers:
        """Their scores on a half, in the runtime."""
        cases = [one.case for one in candidates]
        return self.measuring(candidates, part).answers(cases, self.batch_size, self.workers)

    def seconds(self, candidates: Sequence[Candidate], repeats: int) -> dict[str, NDArray[np.float64]]:
        """Name → seconds of passes, all in turn."""
        cases = [one.case for one in candidates]
        found = self.measuring(candidates, self.search).seconds(cases, [self.clips_at_once], repeats)
        return {one.name: found[self.clips_at_once, one.case.title] for one in candidates}

    def runnable(self, candidates: Sequence[Candidate]) -> list[Candidate]:
        """Those that the runtime can run; it remembers why it cannot run the others."""
        return [one for one in candidates if self.runtime.runs(one.name, one.point)]


def judged(setting: Setting, candidates: Sequence[Candidate]) -> list[Row]:
    """A row a candidate, the dense model's first: what it loses on the half to choose on, and how fast it is.

    Args:
        setting: how to measure.
        candidates: the dense model first.

    Returns:
        Each with name, kind, method, criterion, reducer, prune_at, keep_rate (of each pruning block); metric on the
        half to choose on, drop, how much less it is than the dense model's, and drop_error, the standard error of that,
        over clips or over groups of them, whichever is larger; executed_macs and macs_saved; ms, ms_q1, ms_q3 of a
        clip; speed_up, the median over the rounds of the dense model's time over this one's, with quartiles; and
        on_front, whether no other is faster and as good.
    """
    answers = setting.answers(candidates, setting.search)
    seconds = setting.seconds(candidates, setting.repeats)
    sets = [answers.scores[one.case.title, one.point] for one in candidates]
    errors = drop_errors(sets, answers.targets, setting.search.metric, answers.groups, setting.resamples)
    rows: list[Row] = []
    for one, scores, error in zip(candidates, sets, errors.tolist(), strict=True):
        found = METRICS[setting.search.metric](scores, answers.targets)
        row: Row = {"name": one.name, "kind": one.kind, "method": one.method, **point_columns(one.point)}
        row |= {"metric": found, "drop": (rows[0]["metric"] if rows else found) - found}
        row["drop_error"] = error
        row["executed_macs"] = macs(setting.backend.config, pruning=one.point).executed
        row["macs_saved"] = 1 - row["executed_macs"] / (rows[0] if rows else row)["executed_macs"]
        rows.append(row | time_columns(seconds[one.name], seconds[candidates[0].name], setting.clips_at_once))
    best = front([-row["speed_up"] for row in rows], [row["metric"] for row in rows])
    return [row | {"on_front": place in best} for place, row in enumerate(rows)]


def drop_errors(
    sets: Sequence[Scores], targets: Scores, metric: str, groups: Groups | None, resamples: int
) -> NDArray[np.float64]:
    """Standard errors (sets,) of what each loses against the first, over clips or over groups, whichever is larger.

    Args:
        sets: scores (clips, labels), the dense model's first.
        targets: (clips, labels).
        metric: ``"accuracy"`` or ``"mAP"``.
        groups: of the clips that are not independent.
        resamples: of the bootstrap.
    """
    ends = clip_intervals(sets, targets, metric, resamples=resamples)
    errors = (ends.change_high - ends.change_low) / (norm.ppf(0.975) - norm.ppf(0.025))
    if groups is None:
        return errors
    ends = clip_intervals(sets, targets, metric, groups=groups, resamples=resamples)
    return np.fmax(errors, (ends.change_high - ends.change_low) / (2 * groups.reach(CONFIDENCE)))


def point_columns(point: Pruning) -> Row:
    """An operating point as columns."""
    pruned = {block: rate for block, rate in sorted(point.rates.items()) if rate < 1.0}
    named = {"criterion": point.criterion, "reducer": point.reducer}
    return {**named, "prune_at": list(pruned), "keep_rate": list(pruned.values())}


def time_columns(seconds: NDArray[np.float64], dense: NDArray[np.float64], clips: int) -> Row:
    """Times of a clip, and how many times as fast as the dense model in the same rounds, with quartiles."""
    times = spread((seconds / clips).tolist())
    low, middle, high = np.quantile(dense / seconds, [0.25, 0.5, 0.75]).tolist()
    return {
        "ms": times["median_ms"],
        "ms_q1": times["q1_ms"],
        "ms_q3": times["q3_ms"],
        "speed_up": middle,
        "speed_up_q1": low,
        "speed_up_q3": high,
    }


def lost_by_group(
    part: AudioDataset, ids: Sequence[str], dense: Scores, pruned: Scores, targets: Scores
) -> dict[str, float]:
    """Group → share of its clips that is lost; empty where there are no groups, or the metric is not accuracy."""
    groups = groups_of(part.recordings)
    if part.metric != "accuracy" or groups is None:
        return {}
    lost = right_clips(dense, targets).astype(float) - right_clips(pruned, targets)
    of_clip = {recording.id: group for recording, group in zip(part.recordings, groups, strict=True)}
    named = np.array([of_clip[name] for name in ids])
    return {str(group).removeprefix("group "): float(lost[named == group].mean()) for group in np.unique(named)}
