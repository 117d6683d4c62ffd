"""What is compared: methods by name, and the operating points at which they are measured.

Imports neither torch nor transformers, so that the command line can list and check names before it loads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spectrim.errors import InvalidSetting, nearest_of
from spectrim.pruning.criteria import AUTO, CRITERIA
from spectrim.pruning.plan import Encoder
from spectrim.pruning.pruning import Pruning, several_rates
from spectrim.pruning.reducers import REDUCERS

DENSE, ATTENTION, RANDOM = "dense", "attention", "random"
"""The model as it is; the attention score of its backbone (`AUTO`); the baseline that knows nothing."""

DROP = "drop"
METHODS = (ATTENTION, RANDOM, *(name for name in CRITERIA if name != RANDOM), *REDUCERS)
"""Names of single methods; ``/N`` behind a criterion is a quota for N parts along time, ``+`` joins a reducer to it."""

DEFAULT_METHODS = (
    *(ATTENTION, RANDOM),
    *(name for name, criterion in CRITERIA.items() if name != RANDOM and criterion.reads not in ("class", "all")),
    *(name for name, reducer in REDUCERS.items() if name != DROP and reducer.reads != "predictor"),
)
KEEP_RATES = (1.0, 0.7, 0.5, 0.3)

DRAWS = 5
"""Random tables that stand for random pruning; every clip sees the same ones."""


@dataclass(frozen=True)
class Method:
    """A way to have fewer tokens.

    Attributes:
        name: as it was given.
        criterion: what ranks the patches; `AUTO` where the reducer reads no scores.
        reducer: what becomes of those that are not kept.
        segments: parts along time, each of which keeps its share.
    """

    name: str
    criterion: str
    reducer: str
    segments: int = 1

    def at(self, own: Pruning, keep_rate: float, seed: int | None = None) -> Pruning:
        """Its operating point, with the pruning blocks and the treatment of padding of a model's ``own``."""
        fields = {"keep_rate": keep_rate, "criterion": self.criterion, "reducer": self.reducer}
        usual = {"reference_compat": False, "attention_mass": 0.0, "time_segments": self.segments}
        return own.changed({**fields, **usual, "random_seed": own.seed if seed is None else seed})


def read_methods(names: Sequence[str]) -> list[Method]:
    """Methods by their names: a criterion, a reducer, or ``CRITERION+REDUCER``; ``CRITERION/N`` ranks in N parts.

    ``attention`` is the backbone's own attention score, a criterion alone drops what it does not keep, and a reducer
    alone reads the backbone's own score, if it reads one. `RANDOM` is always among them, as what the others have to
    beat.

    Raises:
        InvalidSetting: a name is unknown or there twice, or there is none.
    """
    if not names:
        raise InvalidSetting("methods", list(names), nearest_of("", METHODS))
    methods = [_read(name.strip()) for name in names]
    if not any(method.name == RANDOM for method in methods):
        methods.append(_read(RANDOM))
    for place, method in enumerate(methods):
        if any(method.name == before.name for before in methods[:place]):
            raise InvalidSetting("methods", method.name, "each method once")
    return methods


def fitting(methods: Sequence[Method], own: Pruning, encoder: Encoder) -> tuple[list[Method], dict[str, str]]:
    """Those of some methods that models of a kind can have, and the others → why.

    Args:
        methods: as `read_methods` gives them.
        own: the model's operating point.
        encoder: what is known of the model.
    """
    chosen, unfit = [], dict[str, str]()
    for method in methods:
        try:
            method.at(own, 1.0).check_kind(encoder)
        except InvalidSetting as error:
            unfit[method.name] = f"allowed is {error.allowed}"
        else:
            chosen.append(method)
    return chosen, unfit


def names_method(name: str) -> bool:
    """Whether a name is that of a method, among them those with a quota or of two parts."""
    try:
        _read(name.strip())
    except InvalidSetting:
        return False
    return True


def _read(name: str) -> Method:
    ranking, plus, reducer = name.partition("+")
    ranking, slash, parts = ranking.partition("/")
    if slash and not (parts.isdecimal() and int(parts) > 1 and ranking not in REDUCERS):
        raise InvalidSetting("methods", name, "CRITERION/N, N being a number of parts along time from 2")
    if not plus and ranking in REDUCERS:
        return Method(name, AUTO, ranking)
    if ranking not in (ATTENTION, AUTO, *CRITERIA):
        raise InvalidSetting("methods", name, nearest_of(name, METHODS))
    if plus and reducer not in REDUCERS:
        raise InvalidSetting("methods", name, f"CRITERION+REDUCER, with {nearest_of(reducer, REDUCERS)} behind the +")
    segments = int(parts) if slash else 1
    return Method(name, AUTO if ranking == ATTENTION else ranking, reducer if plus else DROP, segments)


@dataclass(frozen=True)
class Case:
    """A method at a keep rate: a row of the table.

    Attributes:
        method: its name; `DENSE` for the model as it is, or the name of a fine-tuned run.
        keep_rate: share of the patches kept at each pruning block.
        points: where it is measured; one, or as many as there are random draws.
        run: fine-tuned, with weights of its own.
    """

    method: str
    keep_rate: float
    points: tuple[Pruning, ...]
    run: bool = False

    @property
    def selects(self) -> bool:
        """Whether it chooses patches by a score, so that choices can be compared."""
        return self.keep_rate < 1.0 and not self.run and reads_scores(self.points[0].reducer)

    @property
    def title(self) -> str:
        """Name and keep rate."""
        return f"{self.method} at keep rate {self.keep_rate:g}"


def reads_scores(reducer: str) -> bool:
    """Whether a reducer chooses patches by scores, the criterion's or those of its own predictor."""
    return REDUCERS[reducer].reads in ("scores", "predictor")


def plan_cases(
    methods: Sequence[Method],
    keep_rates: float | Sequence[float],
    own: Pruning,
    depth: int,
    own_criterion: str,
    *,
    columns: int | None = None,
    predictors: Sequence[int] | None = None,
    draws: int = DRAWS,
) -> tuple[list[Case], dict[str, str]]:
    """All rows of a comparison: the dense model, then each method at each keep rate below 1.

    Args:
        methods: as `read_methods` gives them.
        keep_rates: in (0, 1]; 1 is the dense model, which is measured anyway.
        own: the model's operating point; its blocks and its treatment of padding hold for all.
        depth: number of the model's blocks.
        own_criterion: what `AUTO` stands for.
        columns: number of its patches along time; None where no method has a quota.
        predictors: its blocks that have a predictor; None where no method asks one.
        draws: tables of random scores, two at least.

    Returns:
        The cases, and those that are left out, because the method does not reach the keep rate → why.

    Raises:
        InvalidSetting: a keep rate is out of range, none is below 1, a criterion and a reducer do not go together, or
            two names are the same method on this model.
    """
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 2:
        raise InvalidSetting("draws", draws, "2 or more: one draw does not tell how much draws differ")
    rates = [rate for rate in dict.fromkeys(several_rates(keep_rates)) if rate < 1.0]
    if not rates:
        raise InvalidSetting("keep_rates", keep_rates, "at least one number below 1")
    if not own.at:
        raise InvalidSetting("prune_at", list(own.at), "a model with a pruning block at least")
    dense = Method(DENSE, AUTO, DROP).at(own, 1.0)
    dense.check(depth)
    cases, left_out, known = [Case(DENSE, 1.0, (dense,))], {}, dict[tuple[str, str, int], str]()
    for method in methods:
        what = own_criterion if method.criterion == AUTO and reads_scores(method.reducer) else method.criterion
        if (twin := known.setdefault((what, method.reducer, method.segments), method.name)) != method.name:
            raise InvalidSetting("methods", method.name, f"each method once: on this model {twin!r} is the same")
        method.at(own, 1.0).check(depth, columns, predictors)
        seeds = range(draws) if method.criterion == RANDOM else (None,)
        for rate in rates:
            points = tuple(method.at(own, rate, seed) for seed in seeds)
            try:
                points[0].check(depth)
            except InvalidSetting as error:
                left_out[f"{method.name} at keep rate {rate:g}"] = f"allowed is {error.allowed}"
                continue
            cases.append(Case(method.name, rate, points))
    return cases, left_out
