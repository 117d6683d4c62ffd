"""From what arms answered to clips to the answers of the protocol: gate, positive control, questions, and when to
say nothing. Everything here is by docs/study/protocol.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from spectrim.analysis.ablations import ATTENTION
from spectrim.stats.ground import CANNOT_SAY
from spectrim.stats.speakers import Accuracies, SpeakerMean, holm, mean_over_speakers
from spectrim.studies.recordings import (
    CLUSTER,
    CLUSTER_ARMS,
    CONTROL_ARM,
    POSITIVE_ARM,
    RANKED,
    VALUE_NORM,
    VALUE_NORM_ARMS,
)
from spectrim.studies.speakers import FOLDS

GATE = 92.0
"""Accuracy of a fold's control, in points, from which on the fold is interpreted."""

ERROR_GATE = 0.8
"""Error of masked pre-training on the validation speakers, below which a fold of AudioMAE is interpreted. A model that
predicts the mean of every patch has 1."""

FEWEST_FOLDS = 4
"""Of five, that an answer needs."""

MARGIN = 1.0
"""Points that the primary question asks about."""

POSITIVE = 2.0
"""Points that the positive control must lose."""

LEVEL = 0.05
FREE = "training-free"

LOOKED_AT = 0
"""The fold at whose test speakers earlier trials had looked; every result is also given without it."""

Key = tuple[str, str]
"""``"fine-tuned"`` and the name of a branch; or `FREE` and a ranking with its keep rate, of the control's weights."""

TUNED = "fine-tuned"


def unseen(folds: Sequence[int]) -> list[int]:
    """Folds without the one that had been looked at."""
    return [fold for fold in folds if fold != LOOKED_AT]


def free_key(method: str, keep_rate: float) -> Key:
    """The key of a ranking of the control's weights."""
    return FREE, f"r={keep_rate:g}" + ("" if method == ATTENTION else f"-{method}")


def later_key(method: str, keep_rate: float) -> Key:
    """The same for one that prunes at later blocks."""
    how, name = free_key(method, keep_rate)
    return how, f"later-{name}"


def over_seeds(runs: Sequence[Accuracies]) -> dict[int, dict[str, float]]:
    """Fold → speaker → mean over the seeds that a fold has."""
    values: dict[int, dict[str, list[float]]] = {}
    for by_fold in runs:
        for fold, speakers in by_fold.items():
            for name, value in speakers.items():
                values.setdefault(fold, {}).setdefault(name, []).append(value)
    return {fold: {name: fmean(some) for name, some in speakers.items()} for fold, speakers in values.items()}


@dataclass(frozen=True)
class Difference(SpeakerMean):
    """Of two arms, with the seeds that it is over.

    Attributes:
        over: the seeds in words; empty where the backbone has one.
        in_part: whether they are not all that the control has in these folds.
        several: whether a fold has more than one.
    """

    over: str = ""
    in_part: bool = False
    several: bool = False

    def among(self, folds: Collection[int]) -> str:
        """As that of `SpeakerMean`, with the seeds where they are not all."""
        return f"{super().among(folds)} ({self.over})" if self.in_part else super().among(folds)


def in_words(name: str, numbers: Sequence[int]) -> str:
    """``seed 0``, ``seeds 0 and 1`` or ``folds 2, 3 and 4``."""
    *before, last = map(str, numbers)
    return f"{name}s {', '.join(before)} and {last}" if before else f"{name} {last}"


@dataclass(frozen=True)
class Measured:
    """What is known of a backbone.

    Attributes:
        backbone: its name.
        accuracies: key → seed → fold → speaker → accuracy in points, mean over draws of random tables.
        errors: fold → error of the pre-training that it starts from; None for a backbone that has none.
        whole: what the positive control is taken from where this is a seed alone: it is about the task.
    """

    backbone: str
    accuracies: Mapping[Key, Mapping[int, Accuracies]]
    errors: Mapping[int, float] | None = None
    whole: Measured | None = None

    def of(self, key: Key) -> dict[int, dict[str, float]]:
        """Fold → speaker → accuracy, mean over seeds; nothing where it has not been run."""
        return over_seeds(list(self.accuracies.get(key, {}).values()))

    @property
    def seeds(self) -> list[int]:
        """Those that have a control."""
        return sorted(self.accuracies.get(CONTROL_KEY, {}))

    def of_seed(self, seed: int) -> Measured:
        """What is known by one seed alone, with the positive control of all."""
        return replace(self._only(lambda its, _: its == seed), whole=self.whole or self)

    @property
    def each_seed(self) -> dict[int, Measured]:
        """Seed → what is known by it alone."""
        return {seed: self.of_seed(seed) for seed in self.seeds}

    @property
    def controlled(self) -> Measured:
        """What is known by trunks that have a control: of others nothing can be said."""
        return self._only(lambda seed, fold: seed in self.seeds_in(CONTROL_KEY, fold))

    @property
    def without_control(self) -> list[tuple[int, int]]:
        """Seed and fold of the trunks that have arms and no control yet."""
        trunks = {
            (seed, fold)
            for by_seed in self.accuracies.values()
            for seed, by_fold in by_seed.items()
            for fold in by_fold
            if seed not in self.seeds_in(CONTROL_KEY, fold)
        }
        return sorted(trunks)

    @property
    def interpreted(self) -> Measured:
        """What is known by trunks whose own control reaches the gate, and whose pre-training, where there is one, does.

        The control of one seed says nothing of the runs of another.
        """
        controls = self.accuracies.get(CONTROL_KEY, {})
        passing = {
            (seed, fold)
            for seed, by_fold in controls.items()
            for fold, speakers in by_fold.items()
            if fmean(speakers.values()) >= GATE and self.is_started(fold)
        }
        return self._only(lambda seed, fold: (seed, fold) in passing)

    def _only(self, wanted: Callable[[int, int], bool]) -> Measured:
        """What is known by some seeds and folds."""
        found: dict[Key, dict[int, Accuracies]] = {}
        for key, by_seed in self.accuracies.items():
            for seed, by_fold in by_seed.items():
                if some := {fold: speakers for fold, speakers in by_fold.items() if wanted(seed, fold)}:
                    found.setdefault(key, {})[seed] = some
        return replace(self, accuracies=found)

    def difference(self, first: Key, second: Key, folds: Collection[int]) -> Difference | None:
        """``first − second`` over the speakers of some folds, paired by fold, seed and speaker; None without any."""
        mean = mean_over_speakers(self.by_speaker(first, second, folds))
        if mean is None:
            return None
        known = [self.seeds_in(first, fold) & self.seeds_in(second, fold) for fold in mean.folds]
        in_part = any(seeds != self.seeds_in(CONTROL_KEY, fold) for seeds, fold in zip(known, mean.folds, strict=True))
        if len(self.seeds) < 2:
            return Difference(**vars(mean))
        over = _seeds_in_words(dict(zip(mean.folds, known, strict=True)))
        return Difference(**vars(mean), over=over, in_part=in_part, several=any(len(seeds) > 1 for seeds in known))

    def seeds_in(self, key: Key, fold: int) -> set[int]:
        """The seeds with which an arm has been run in a fold."""
        return {seed for seed, by_fold in self.accuracies.get(key, {}).items() if fold in by_fold}

    def by_speaker(self, first: Key, second: Key, folds: Collection[int]) -> dict[int, dict[str, float]]:
        """Fold → speaker → ``first − second``, the mean over the seeds that both have."""
        ours, theirs = (self.accuracies.get(key, {}) for key in (first, second))
        paired = [
            {
                fold: {name: ours[seed][fold][name] - theirs[seed][fold][name] for name in ours[seed][fold]}
                for fold in folds
                if fold in ours[seed] and fold in theirs[seed]
            }
            for seed in ours
            if seed in theirs
        ]
        return over_seeds(paired)

    def fold_mean(self, key: Key, fold: int) -> float | None:
        """Mean over the speakers of a fold, in points."""
        speakers = self.of(key).get(fold)
        return fmean(speakers.values()) if speakers else None

    @property
    def passing(self) -> list[int]:
        """The folds that are interpreted, by one seed or more; see `interpreted`."""
        return sorted(
            {fold for by_fold in self.interpreted.accuracies.get(CONTROL_KEY, {}).values() for fold in by_fold}
        )

    def is_started(self, fold: int) -> bool:
        """Whether a fold's model starts from weights that mean something; see `ERROR_GATE`."""
        return self.errors is None or self.errors.get(fold, 1.0) < ERROR_GATE


def _seeds_in_words(seeds: Mapping[int, set[int]]) -> str:
    """Which seeds folds have: ``seed 1``, or ``seed 0 in fold 2, seeds 0 and 1 in folds 3 and 4``."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for fold, its in seeds.items():
        groups.setdefault(tuple(sorted(its)), []).append(fold)
    if len(groups) == 1:
        return in_words("seed", next(iter(groups)))
    return ", ".join(f"{in_words('seed', its)} in {in_words('fold', folds)}" for its, folds in groups.items())


CONTROL_KEY: Key = (TUNED, CONTROL_ARM.name)
POSITIVE_KEY: Key = (TUNED, POSITIVE_ARM.name)


@dataclass(frozen=True)
class Answer:
    """An answer of the protocol.

    Attributes:
        word: ``"yes"``, ``"no"`` or `CANNOT_SAY`; for a ranking ``"better"``, ``"worse"`` or ``"no difference shown"``.
        why: why it cannot be said, or None.
        difference: that it rests on, None where nothing has been run.
        corrected: p after Holm's correction; None where there is none.
    """

    word: str
    why: str | None
    difference: Difference | None
    corrected: float | None = None

    def __str__(self) -> str:
        return self.word if self.why is None else f"{self.word}: {self.why}"

    def told(self, verb: str) -> str:
        """A sentence: the answer with the difference that it rests on, whose points are ``verb``."""
        difference = self.difference
        if difference is None:
            return f"{self}."
        folds = f"{difference.speakers} speakers in {len(difference.folds)} fold{'s' * (len(difference.folds) > 1)}"
        over = f"; {difference.over}" if difference.over else ""
        return f"{self} ({difference} points {verb}; {folds}{over})."


def apart(measured: Measured, answers: Iterable[Answer]) -> dict[int, Measured]:
    """Seed → what is known by it alone, where one of some answers is over several; else nothing."""
    if any(answer.difference is not None and answer.difference.several for answer in answers):
        return measured.each_seed
    return {}


def _lacks(difference: SpeakerMean | None, folds: Sequence[int]) -> str | None:
    """Why a difference over some folds answers nothing, or None."""
    if difference is None:
        return "it has not been run in a fold that passes the gate" if folds else "no fold passes the gate"
    if len(difference.folds) < FEWEST_FOLDS:
        return f"{len(difference.folds)} of {FOLDS} folds, and it takes {FEWEST_FOLDS} that pass the gate"
    return None if difference.answers else "the interval has no width"


def positive_control(measured: Measured, folds: Sequence[int]) -> Answer:
    """Whether this task can tell: random patches at 0.3 lose two points or more, with an interval above nought.

    Over all seeds that have it, also for one of them alone; see `Measured.whole`.
    """
    lost = (measured.whole or measured).interpreted.difference(CONTROL_KEY, POSITIVE_KEY, folds)
    why = _lacks(lost, folds)
    if why is not None or lost is None:
        return Answer(CANNOT_SAY, why, lost)
    return Answer("yes" if lost.low > 0 and lost.mean >= POSITIVE else "no", None, lost)


def _cannot_tell(measured: Measured, folds: Sequence[int]) -> str | None:
    """Why no question is answered on these folds, or None."""
    control = positive_control(measured, folds)
    if control.word == "yes":
        return None
    return "this task cannot tell" if control.word == "no" else f"the positive control: {control.why}"


def primary(measured: Measured, folds: Sequence[int], key: Key = (TUNED, "r=0.7")) -> Answer:
    """Whether the control minus r = 0.7, by attention unless another arm is named, is below one point."""
    lost = measured.interpreted.difference(CONTROL_KEY, key, folds)
    why = _lacks(lost, folds) or _cannot_tell(measured, folds)
    if why is not None or lost is None:
        return Answer(CANNOT_SAY, why, lost)
    if lost.high < MARGIN:
        return Answer("yes", None, lost)
    if lost.low > MARGIN:
        return Answer("no", None, lost)
    return Answer(CANNOT_SAY, "the interval holds one point", lost)


FAMILY = tuple((ranking, rate) for rate in (0.5, 0.3) for ranking in RANKED)
"""The six rankings that are compared with attention: ranking and keep rate."""


VALUE_NORM_KEY: Key = (TUNED, VALUE_NORM_ARMS[0].name)
VALUE_NORM_FAMILY = tuple((how, branch.keep_rate) for how in (TUNED, FREE) for branch in VALUE_NORM_ARMS)
"""The four comparisons of the norm of the values with attention."""

CLUSTER_KEY: Key = (TUNED, CLUSTER_ARMS[0].name)
CLUSTER_FAMILY = ((CLUSTER, ATTENTION), (CLUSTER, VALUE_NORM), ("random", ATTENTION))
"""The three comparisons at the keep rate of `CLUSTER_ARMS`, fine-tuned: the first minus the second."""


def secondary(measured: Measured, folds: Sequence[int], how: str) -> dict[tuple[str, float], Answer]:
    """Each ranking minus attention at the same keep rate, a family of six corrected by Holm.

    Args:
        measured: of a backbone.
        folds: to take.
        how: `TUNED` or `FREE`.
    """
    answers = _compared(measured, folds, [(how, ranking, ATTENTION, rate) for ranking, rate in FAMILY])
    return {(ranking, rate): answer for (_, ranking, _, rate), answer in answers.items()}


def by_value_norm(measured: Measured, folds: Sequence[int]) -> dict[tuple[str, float], Answer]:
    """The norm of the values minus attention, fine-tuned and training-free, a family of four corrected by Holm."""
    answers = _compared(measured, folds, [(how, VALUE_NORM, ATTENTION, rate) for how, rate in VALUE_NORM_FAMILY])
    return {(how, rate): answer for (how, _, _, rate), answer in answers.items()}


def by_clusters(measured: Measured, folds: Sequence[int]) -> dict[tuple[str, str], Answer]:
    """The comparisons of `CLUSTER_FAMILY`, corrected by Holm."""
    rate = CLUSTER_ARMS[0].keep_rate
    answers = _compared(measured, folds, [(TUNED, first, second, rate) for first, second in CLUSTER_FAMILY])
    return {(first, second): answer for (_, first, second, _), answer in answers.items()}


Comparison = tuple[str, str, str, float]
"""`TUNED` or `FREE`, two rankings or reducers, of which the first minus the second, and the keep rate of both."""


def _compared(measured: Measured, folds: Sequence[int], family: Sequence[Comparison]) -> dict[Comparison, Answer]:
    """Answers to a family of comparisons, corrected by Holm."""
    measured, found = measured.interpreted, {}
    for how, first, second, rate in family:
        keys = [(how, free_key(name, rate)[1]) for name in (first, second)]
        found[how, first, second, rate] = measured.difference(keys[0], keys[1], folds)
    corrected = holm([None if one is None or not one.answers else one.p for one in found.values()])
    task = _cannot_tell(measured, folds)
    answers = {}
    for (name, difference), p in zip(found.items(), corrected, strict=True):
        missing = difference is None and folds
        why = (_not_run(measured, folds, *name) if missing else _lacks(difference, folds)) or task
        if why is not None or difference is None or p is None:
            answers[name] = Answer(CANNOT_SAY, why, difference, p)
        elif p >= LEVEL:
            answers[name] = Answer("no difference shown", None, difference, p)
        else:
            answers[name] = Answer("better" if difference.mean > 0 else "worse", None, difference, p)
    return answers


def _not_run(measured: Measured, folds: Sequence[int], how: str, first: str, second: str, rate: float) -> str:
    """Which side of a comparison is missing."""
    keys = [(how, free_key(name, rate)[1]) for name in (first, second)]
    there = {name: measured.of(key) for name, key in zip((first, second), keys, strict=True)}
    missing = [name for name, by_fold in there.items() if not any(fold in by_fold for fold in folds)]
    if not missing:
        seeds = [
            in_words("seed", sorted({seed for fold in folds for seed in measured.seeds_in(key, fold)})) for key in keys
        ]
        return f"no fold has both with the same seed: {first} has {seeds[0]}, {second} {seeds[1]}"
    have = "have" if len(missing) > 1 else "has"
    return f"{' and '.join(missing)} at {rate:g} {have} not been run in a fold that passes the gate"
