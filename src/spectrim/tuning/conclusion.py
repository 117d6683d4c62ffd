"""From measured points to the chosen one, and to what is said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectrim.comparison.measuring import Answers, Measuring
from spectrim.comparison.methods import ATTENTION, DENSE, DROP, RANDOM, Case
from spectrim.comparison.rows import Row
from spectrim.measure.metric_intervals import clip_intervals, how_made
from spectrim.measure.metrics import METRICS
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.pruning import Pruning
from spectrim.tuning.candidates import DENSE_KIND, UNIFORM, Candidate, Setting, lost_by_group, time_columns
from spectrim.tuning.promise import AgainstRandom, Bound, against_random, bound_of
from spectrim.tuning.settings import MAX_DROP, Target
from spectrim.tuning.words import told_in_words


@dataclass(frozen=True)
class Tuning:
    """What was found; `as_dict` is plain, for JSON.

    Attributes:
        facts: model, data, halves, target, runtime, machine, how it was searched.
        rows: the dense model, then every point that was timed, as `spectrim.tuning.candidates.judged` gives them, with
            chosen; those of the front and of ``final`` with held_metric and held_drop and their intervals, ``_low`` and
            ``_high``, on the held-out half.
        rankings: one sentence a method: is it better than random pruning at the model's own blocks?
        chosen: name of the point, None where none meets the target.
        unmet: why none does, with the best that there is; None where one does.
        bound: of the chosen point, on the held-out half.
        random: likewise.
        final: rows of the dense model, the chosen point and the best uniform ones, timed anew after the choice.
        sentences: all of it in words.
        network: the model at the chosen point, to be saved.
    """

    facts: dict[str, Any]
    rows: list[Row]
    rankings: list[str]
    chosen: str | None
    unmet: str | None
    bound: Bound | None
    random: AgainstRandom | None
    final: list[Row]
    sentences: list[str]
    network: AudioTransformer | None

    def as_dict(self) -> dict[str, Any]:
        """All that JSON can hold."""
        named = ("facts", "rows", "rankings", "chosen", "unmet", "final", "sentences")
        found: dict[str, Any] = {name: getattr(self, name) for name in named}
        found["bound"] = None if self.bound is None else asdict(self.bound)
        found["random"] = None if self.random is None else {**asdict(self.random), "over": self.random.over._asdict()}
        return found


def concluded(
    setting: Setting,
    target: Target,
    facts: dict[str, Any],
    candidates: Sequence[Candidate],
    rows: list[Row],
    rankings: list[str],
    draws: int,
) -> Tuning:
    """Choose on one half, and measure on the other what was chosen.

    Args:
        setting: how to measure.
        target: what is wanted.
        facts: that are known already.
        candidates: the dense model first.
        rows: of `judged`, one a candidate.
        rankings: a sentence a method.
        draws: tables of random scores.
    """
    chosen = choice(rows, target)
    uniform = choice([row for row in rows if row["kind"] == UNIFORM], target)
    own = choice([row for row in rows if row["kind"] == UNIFORM and row["method"] == ATTENTION], target)
    named = {one.name: one for one in candidates}
    finals = [named[row["name"]] for row in _each_once((rows[0], chosen, uniform, own))]
    told = {row["name"] for row in rows if row["on_front"]} | {one.name for one in finals}
    answers, held = _held_out(setting, [one for one in candidates if one.name in told])
    rows = [row | {"chosen": row is chosen, **held.get(row["name"], {})} for row in rows]
    interval = how_made(setting.held.metric, setting.resamples, len(answers.ids), answers.groups)
    facts = {**facts, "held_clips": len(answers.ids), "interval": interval}
    if chosen is None:
        unmet = _unmet(rows, target)
        return Tuning(facts, rows, rankings, None, unmet, None, None, [], [unmet], None)
    pick = named[chosen["name"]]
    seconds = setting.seconds(finals, setting.repeats)
    final = [_timed_anew(row, seconds, pick.name, setting.clips_at_once) for row in rows if row["name"] in seconds]
    dense, pruned = (answers.scores[one.case.title, one.point] for one in (candidates[0], pick))
    metric, wanted = setting.held.metric, (MAX_DROP if target.max_drop is None else target.max_drop) / 100
    bound = bound_of(dense, pruned, answers.targets, metric, wanted, setting.resamples, answers.groups)
    facts["lost_by_group"] = lost_by_group(setting.held, answers.ids, dense, pruned, answers.targets)
    random = _beside_random(setting, candidates[0].point, pick, draws)
    references = [row["name"] for row in _each_once((uniform, own))]
    words = told_in_words(facts, final, pick.name, references, bound, random)
    return Tuning(
        facts, rows, rankings, pick.name, None, bound, random, final, words, setting.runtime.network(pick.point)
    )


def _each_once(rows: Sequence[Row | None]) -> list[Row]:
    """What is there, each once."""
    return list({row["name"]: row for row in rows if row is not None}.values())


def choice(rows: Sequence[Row], target: Target) -> Row | None:
    """The fastest of those that lose no more, or the one that loses least of those that are as fast; None for none.

    The best of many points is also the luckiest. So the loss counts with its standard error added (the rule of one
    standard error; Breiman et al., 1984), over clips or over groups; only where nothing is left then, without.
    """
    pruned = [row for row in rows if row["kind"] != DENSE_KIND]
    if target.max_drop is None:
        met = [row for row in pruned if target.met(row["drop"], row["speed_up"])]
        return min(met, key=lambda row: (row["drop"] + row["drop_error"], -row["speed_up"]), default=None)
    for errors in (1.0, 0.0):
        met = [row for row in pruned if target.met(row["drop"] + errors * row["drop_error"], row["speed_up"])]
        if met:
            return max(met, key=lambda row: row["speed_up"])
    return None


def _unmet(rows: Sequence[Row], target: Target) -> str:
    """Why no point meets the target, with the nearest that there is."""
    pruned = [row for row in rows if row["kind"] != DENSE_KIND]
    faster = [row for row in pruned if row["speed_up"] > 1.0]
    if not faster:
        said = f"none of {len(pruned)} timed points is faster than the dense model"
        return f"no point meets the target, {target.said}: {said}"
    if target.max_drop is not None:
        best = min(faster, key=lambda row: (row["drop"], -row["speed_up"]))
    else:
        best = max(faster, key=lambda row: row["speed_up"])
    return (
        f"no point meets the target, {target.said}; the nearest, {best['name']}, is {best['speed_up']:.2f}× as fast as "
        f"the dense model and loses {100 * best['drop']:.1f} points on the half of the clips to choose on"
    )


def _held_out(setting: Setting, candidates: Sequence[Candidate]) -> tuple[Answers, dict[str, Row]]:
    """Scores on the held-out half, and name → metric and drop there, with 95 % intervals; the dense model first."""
    answers = setting.answers(candidates, setting.held)
    sets = [answers.scores[one.case.title, one.point] for one in candidates]
    metric, groups = setting.held.metric, answers.groups
    ends = clip_intervals(sets, answers.targets, metric, groups=groups, resamples=setting.resamples)
    values = [METRICS[metric](each, answers.targets) for each in sets]
    found = {}
    for place, one in enumerate(candidates):
        row: Row = {"held_metric": values[place], "held_low": ends.low[place], "held_high": ends.high[place]}
        row |= {"held_drop": values[0] - values[place]}
        row |= {"held_drop_low": -ends.change_high[place], "held_drop_high": -ends.change_low[place]}
        found[one.name] = {name: float(value) if np.isfinite(value) else None for name, value in row.items()}
    return answers, found


def _timed_anew(row: Row, seconds: Mapping[str, NDArray[np.float64]], chosen: str, clips: int) -> Row:
    """A row with times that were taken after the choice, and how many times as fast as it the chosen point is."""
    own = seconds[row["name"]]
    times = time_columns(own, seconds[DENSE], clips)
    return {**row, **times, "chosen_is_faster": float(np.median(own / seconds[chosen]))}


def _beside_random(setting: Setting, dense: Pruning, pick: Candidate, draws: int) -> AgainstRandom | None:
    """The chosen point beside random dropping at its blocks and rates, in PyTorch; None where it is random itself."""
    if pick.point.criterion == RANDOM:
        return None
    baseline = pick.point.changed({"criterion": RANDOM, "reducer": DROP, "time_segments": 1})
    points = [baseline.changed({"random_seed": seed}) for seed in range(draws)]
    cases = [Case(name, 1.0, (point,)) for name, point in ((DENSE, dense), ("chosen", pick.point))]
    cases.append(Case(RANDOM, 1.0, tuple(points)))
    measuring = Measuring({case.title: setting.backend for case in cases}, setting.held, setting.store, setting.tell)
    answers = measuring.answers(cases, setting.batch_size, setting.workers)
    found = [answers.scores[case.title, point] for case in cases for point in case.points]
    metric, resamples = setting.held.metric, setting.resamples
    return against_random(found[0], found[1], found[2:], answers.targets, metric, resamples, answers.groups)
