"""The operating point of a model as one value: how many patches go on, where, chosen by what.

Imports neither torch nor transformers, so that the command line can name and check settings before it loads them.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spectrim.errors import InvalidSetting, nearest_of, one_of
from spectrim.pruning.counts import count_kept
from spectrim.pruning.criteria import AUTO, CRITERIA, nearest_criterion
from spectrim.pruning.plan import BlockPlan, Encoder, Reducer
from spectrim.pruning.reducers import REDUCERS, Keep, ReferenceDrop


@dataclass(frozen=True)
class Pruning:
    """Where a model works: how many patches each pruning block keeps, and which.

    Values are checked field by field when one is made; `check` adds what depends on the model and on other fields.

    Attributes:
        keep_rate: share of the patches kept at each pruning block, in (0, 1]: one number, or one a block of ``at``.
        at: the pruning blocks, counted from 0; ``prune_at`` in config.json and on the command line.
        criterion: what ranks the patches: a name in `spectrim.pruning.criteria.CRITERIA`, or ``"auto"``, the attention
            score with which the paper prunes the backbone.
        reducer: what becomes of the patches that are not kept: a name in `spectrim.pruning.reducers.REDUCERS`.
        time_segments: equal parts along time, of which each keeps its share of the patches, so that no second of a clip
            goes unheard; 1 ranks the whole clip at once. See `spectrim.pruning.select.quota_ranks`.
        attention_mass: in [0, 1): each clip keeps further patches of the highest score at each pruning block, until
            those kept hold this share of the attention that all living patches have; then ``keep_rate`` is only the
            least share of the patches, and clips of a batch keep different numbers. 0: never more than that.
        drop_padding: remove patches that hold only padding before block 0. Changes logits.
        seed: of ``criterion="random"``; ``random_seed`` in config.json.
        reference_compat: take the tokens that the paper's public code takes when it ranks by intensity or variation:
            the extra tokens are lost and patches beside the chosen ones are kept. For studies of that code only.

    Raises:
        InvalidSetting: naming the field, its value and what is allowed.

    Examples:
        >>> from spectrim import Pruning
        >>> Pruning(keep_rate=0.7).rates
        {3: 0.7, 6: 0.7, 9: 0.7}
    """

    keep_rate: float | tuple[float, ...] = 1.0
    at: tuple[int, ...] = (3, 6, 9)
    criterion: str = AUTO
    reducer: str = "drop"
    time_segments: int = 1
    attention_mass: float = 0.0
    drop_padding: bool = False
    seed: int = 0
    reference_compat: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "keep_rate", _rates(self.keep_rate))
        object.__setattr__(self, "at", _blocks(self.at))
        object.__setattr__(self, "seed", _whole("random_seed", self.seed))
        object.__setattr__(self, "time_segments", _whole("time_segments", self.time_segments, 1))
        object.__setattr__(self, "attention_mass", _mass(self.attention_mass))
        if not isinstance(self.criterion, str) or self.criterion not in (AUTO, *CRITERIA):
            raise InvalidSetting("criterion", self.criterion, nearest_criterion(str(self.criterion)))
        if not isinstance(self.reducer, str) or self.reducer not in REDUCERS:
            raise InvalidSetting("reducer", self.reducer, nearest_of(str(self.reducer), REDUCERS))
        for name in ("drop_padding", "reference_compat"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidSetting(name, getattr(self, name), "True or False")

    @classmethod
    def merging(cls, patches: int, each: int, depth: int = 12) -> Pruning:
        """ToMe's own setting, and FastAST's: in every block the same number of tokens is merged into others.

        Args:
            patches: of a clip, e.g. 512 for 10 s.
            each: tokens that every block merges away; half of those that are left, where that is less.
            depth: number of blocks.

        Raises:
            InvalidSetting: a number is no whole number, or negative, or there is no patch.

        Examples:
            >>> spectrim.Pruning.merging(512, 16).keep_rate[:2]
            (0.96875, 0.967741935483871)
        """
        rates, left = [], _whole("patches", patches, 1)
        for _ in range(_whole("depth", depth)):
            kept = left - min(_whole("each", each), left // 2)
            rate = kept / left
            while count_kept(left, rate) > kept:
                rate = math.nextafter(rate, 0.0)
            rates.append(rate)
            left = kept
        return cls(tuple(rates), at=tuple(range(depth)), reducer="merge")

    @property
    def rates(self) -> dict[int, float]:
        """Pruning block → its keep rate.

        Raises:
            InvalidSetting: there are not as many rates as pruning blocks.
        """
        if not isinstance(self.keep_rate, tuple):
            return dict.fromkeys(self.at, self.keep_rate)
        if len(self.keep_rate) != len(self.at):
            allowed = f"one number, or {len(self.at)} of them for prune_at={list(self.at)}"
            raise InvalidSetting("keep_rate", list(self.keep_rate), allowed)
        return dict(zip(self.at, self.keep_rate, strict=True))

    @property
    def prunes(self) -> bool:
        """Whether any block drops patches."""
        return any(rate < 1.0 for rate in self.rates.values())

    def at_random(self, seed: int = 0) -> Pruning:
        """The baseline of any other: the same keep rates at the same blocks, and patches dropped at random.

        Args:
            seed: of the draw.
        """
        usual = {"reducer": "drop", "time_segments": 1, "attention_mass": 0.0, "reference_compat": False}
        return self.changed({**usual, "criterion": "random", "random_seed": seed})

    def check_model(self, encoder: Encoder) -> None:
        """Raise `InvalidSetting` for what does not go together, or not with this model."""
        self.check(encoder.depth, encoder.columns, encoder.predictors)
        self.check_kind(encoder)

    def check_kind(self, encoder: Encoder) -> None:
        """Raise `InvalidSetting` for a criterion or a reducer that models of this kind cannot have."""
        criterion = encoder.own_criterion if self.criterion == AUTO else self.criterion
        if encoder.extra == 0 and CRITERIA[criterion].reads == "class":
            fitting = one_of((AUTO, *(name for name, entry in CRITERIA.items() if entry.reads != "class")))
            raise InvalidSetting(
                "criterion", criterion, f"{fitting}: this model has no [CLS] whose attention could rank"
            )
        if encoder.placed and REDUCERS[self.reducer].blends:
            fitting = one_of(name for name, entry in REDUCERS.items() if not entry.blends)
            why = (
                "this model's attention asks how far apart two patches stand, and a token made of several has no place"
            )
            raise InvalidSetting("reducer", self.reducer, f"{fitting}: {why}")

    def check(self, depth: int, columns: int | None = None, predictors: Sequence[int] | None = None) -> None:
        """Raise `InvalidSetting` for what does not go together, or not with a model of which so much is known.

        Args:
            depth: number of its blocks.
            columns: number of its patches along time; None where that is not known yet.
            predictors: its blocks that have a predictor, likewise.
        """
        for block in self.at:
            if block >= depth:
                raise InvalidSetting("prune_at", block, f"block numbers from 0 to {depth - 1}")
        _ = self.rates
        if self.reference_compat:
            check_public_gather("reference_compat", self.criterion)
            if self.drop_padding:
                allowed = "False with reference_compat: the public code knows no padding"
                raise InvalidSetting("drop_padding", True, allowed)
            if self.reducer != "drop":
                raise InvalidSetting("reducer", self.reducer, "'drop' with reference_compat")
        reducer = REDUCERS[self.reducer]
        if self.time_segments > 1 and (self.reference_compat or reducer.reads != "scores"):
            other = "reference_compat" if self.reference_compat else f"reducer={self.reducer!r}, which reads no scores"
            raise InvalidSetting("time_segments", self.time_segments, f"1 with {other}")
        if columns is not None and self.time_segments > columns:
            allowed = f"1 to {columns}, the number of patches along time"
            raise InvalidSetting("time_segments", self.time_segments, allowed)
        if self.attention_mass > 0.0:
            self._check_mass()
        if reducer.reads != "scores" and self.criterion != AUTO:
            allowed = f"{AUTO!r} with reducer={self.reducer!r}, which goes by {reducer.reads} and reads no scores"
            raise InvalidSetting("criterion", self.criterion, allowed)
        if reducer.reads == "predictor" and predictors is not None and not set(self.at) <= set(predictors):
            self._refuse_predictors(predictors)
        for block, rate in self.rates.items():
            if rate < reducer.least_rate:
                allowed = f"from {reducer.least_rate:g} to 1 at block {block} with reducer={self.reducer!r}"
                raise InvalidSetting("keep_rate", rate, f"{allowed}: each token merges with one other at most")
        if reducer.weighs_by_score and self.criterion != AUTO and not CRITERIA[self.criterion].shares:
            with_attention = [name for name, criterion in CRITERIA.items() if criterion.shares]
            names = one_of((AUTO, *with_attention))
            allowed = f"{names} with reducer={self.reducer!r}, which weighs tokens by a block's attention"
            raise InvalidSetting("criterion", self.criterion, allowed)

    def _refuse_predictors(self, there: Sequence[int]) -> None:
        """Raise `InvalidSetting` for blocks whose predictor the model does not have."""
        if there:
            allowed = f"blocks of {list(there)} with reducer={self.reducer!r}: the others have no predictor"
            raise InvalidSetting("prune_at", list(self.at), allowed)
        allowed = "another: this model has no predictors; spectrim train ast-esc50-dynamicvit --init MODEL trains them"
        raise InvalidSetting("reducer", self.reducer, allowed)

    def _check_mass(self) -> None:
        """Raise `InvalidSetting` for what does not go together with ``attention_mass``."""
        shares = [AUTO, *(name for name, criterion in CRITERIA.items() if criterion.shares)]
        if self.criterion not in shares:
            allowed = f"{one_of(shares)} with attention_mass: other scores are no shares of a block's attention"
            raise InvalidSetting("criterion", self.criterion, allowed)
        if self.reducer != "drop":
            raise InvalidSetting("reducer", self.reducer, "'drop' with attention_mass")
        if self.time_segments > 1:
            raise InvalidSetting("time_segments", self.time_segments, "1 with attention_mass")

    def plan(
        self, patches: int, encoder: Encoder, *, full_output: bool = False, kept: Sequence[int] | None = None
    ) -> tuple[BlockPlan, ...]:
        """Plan every block of a forward pass. The model runs this plan and `spectrim.macs` counts it.

        Args:
            patches: patches that enter block 0.
            encoder: what the plan has to know of the model; see `spectrim.SpectrimConfig.plan`.
            full_output: compute every token in the last block too, because the caller asked for hidden states.
            kept: patches alive after each block, where ``attention_mass`` leaves that to the clip; None for the least.

        Returns:
            One plan a block.

        Raises:
            InvalidSetting: as `check_model`; or the keep rate is too low for ``reference_compat`` to leave the head
                a token.
        """
        self.check_model(encoder)
        criterion = encoder.own_criterion if self.criterion == AUTO else self.criterion
        dropping: Reducer = ReferenceDrop() if self.reference_compat else REDUCERS[self.reducer]
        rates, plans, so_far = self.rates, [], CRITERIA[criterion].so_far
        ranking = [block for block, rate in rates.items() if rate < 1.0 and dropping.reads == "scores"]
        for block in range(encoder.depth):
            rate = rates.get(block, 1.0)
            reducer: Reducer = dropping if rate < 1.0 else Keep()
            alive, survivors = reducer.alive_after(patches, rate, encoder), count_kept(patches, rate)
            if kept is not None and rate < 1.0:
                alive = survivors = kept[block]
            plan = BlockPlan(
                patches_in=patches,
                survivors=survivors,
                patches_kept=alive,
                keep_rate=rate,
                emits=encoder.head_reads if block == encoder.depth - 1 and not full_output else "all",
                criterion=criterion,
                reducer=reducer,
                scores=block in ranking or (so_far and block < max(ranking, default=0)),
                averaged=block + 1 if so_far else 1,
                depth=block / encoder.depth,
                columns=encoder.columns,
                time_segments=self.time_segments,
                attention_mass=self.attention_mass,
            )
            plans.append(plan)
            patches = alive
        return tuple(plans)

    def to_flat(self) -> dict[str, Any]:
        """The fields as config.json has them, beside those of the model: lists for tuples."""
        values = {name: getattr(self, field) for name, field in FLAT_NAMES.items()}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    def changed(self, flat: Mapping[str, Any]) -> Pruning:
        """The same with other values; ``flat`` names fields as config.json does."""
        return dataclasses.replace(self, **{FLAT_NAMES[name]: value for name, value in flat.items()})


FLAT_NAMES = {
    {"at": "prune_at", "seed": "random_seed"}.get(field.name, field.name): field.name
    for field in dataclasses.fields(Pruning)
}
"""Name of a field in config.json, in recipes and on the command line → its name in `Pruning`."""


def given_pruning(base: Pruning, pruning: Pruning | None, flat: Mapping[str, Any]) -> Pruning:
    """The operating point that a caller means who may give a whole one, or single fields, or nothing.

    Args:
        base: where nothing is given.
        pruning: instead of ``base``.
        flat: single fields of ``base`` to change, named as in config.json; None for those that are not given. A reducer
            or ``attention_mass`` with which the criterion of ``base`` cannot go leaves it behind (`criterion_with`),
            unless one is given.

    Raises:
        InvalidSetting: both are given, or a value is not allowed, or what is asked for drops patches at no block.
    """
    given = {name: value for name, value in flat.items() if value is not None}
    if pruning is None:
        if "reducer" in given or "attention_mass" in given:
            beside = {"reducer": base.reducer, "attention_mass": base.attention_mass, **given}
            given = {"criterion": criterion_with(base.criterion, beside["reducer"], beside["attention_mass"]), **given}
        chosen = base.changed(given) if given else base
        if "keep_rate" in given or "prune_at" in given:
            check_blocks(chosen)
        return chosen
    if not isinstance(pruning, Pruning):
        raise InvalidSetting("pruning", pruning, "a spectrim.Pruning, e.g. Pruning(keep_rate=0.7)")
    if given:
        name, value = next(iter(given.items()))
        raise InvalidSetting(name, value, "nothing beside pruning=, which holds it")
    if not pruning.at and pruning != base:
        check_blocks(pruning)
    return pruning


def check_blocks(pruning: Pruning) -> None:
    """Raise `InvalidSetting` for a keep rate below 1 with no block to use it, as nobody can mean who asks for one.

    Not part of `Pruning.check`: a saved configuration that says so still loads, and keeps every patch.
    """
    rates = pruning.keep_rate if isinstance(pruning.keep_rate, tuple) else (pruning.keep_rate,)
    if not pruning.at and min(rates, default=1.0) < 1.0:
        allowed = "one block or more, e.g. [1], with a keep rate below 1: a model of few blocks has none by default"
        raise InvalidSetting("prune_at", [], f"{allowed}; keep_rate=1 keeps every patch")


def criterion_with(criterion: str, reducer: Any, attention_mass: Any = 0.0) -> str:
    """A criterion, or ``"auto"`` where it cannot go with a reducer, which may read no scores or weigh by attention.

    Args:
        criterion: a name in `spectrim.pruning.criteria.CRITERIA`, or ``"auto"``.
        reducer: what becomes of the patches that are not kept; of an unknown one nothing is said.
        attention_mass: as in `Pruning`; above 0 it wants shares of attention.
    """
    entry = REDUCERS.get(reducer) if isinstance(reducer, str) else None
    shares = criterion == AUTO or CRITERIA[criterion].shares
    wants_shares = attention_mass != 0.0 or (entry is not None and entry.weighs_by_score)
    reads_none = entry is not None and entry.reads != "scores"
    return AUTO if reads_none or (wants_shares and not shares) else criterion


def check_keep_rate(value: Any) -> float:
    """Give a keep rate as a float.

    Raises:
        InvalidSetting: it is no number in (0, 1].
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0.0 < float(value) <= 1.0:
        raise InvalidSetting("keep_rate", value, "a number in (0, 1]; 1 keeps every patch")
    return float(value)


def several_rates(values: Any) -> list[float]:
    """Keep rates that a caller names, one or several, as floats; `InvalidSetting` where there is none."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        return [check_keep_rate(values)]
    rates = [check_keep_rate(value) for value in values]
    if not rates:
        raise InvalidSetting("keep_rates", rates, "at least one number in (0, 1]")
    return rates


def check_public_gather(field: str, criterion: str) -> None:
    """Raise `InvalidSetting`, naming ``field``, if the public code's gather is wanted where it is not wrong."""
    wrong = [name for name, entry in CRITERIA.items() if entry.wrong_gather]
    if criterion not in wrong:
        allowed = f"False, unless criterion is {one_of(wrong)}: only there the public code's gather is wrong"
        raise InvalidSetting(field, True, allowed)


def _rates(value: Any) -> float | tuple[float, ...]:
    if not isinstance(value, numbers.Real) and hasattr(value, "tolist"):
        raise InvalidSetting("keep_rate", value, "a number in (0, 1], or a list of them: .tolist() of an array")
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(check_keep_rate(rate) for rate in value)
    return check_keep_rate(value)


def _blocks(value: Any) -> tuple[int, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InvalidSetting("prune_at", value, "a list of block numbers")
    blocks = tuple(_whole("prune_at", block) for block in value)
    if len(set(blocks)) != len(blocks):
        raise InvalidSetting("prune_at", list(value), "each block once")
    return blocks


def _mass(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not 0.0 <= float(value) < 1.0:
        raise InvalidSetting("attention_mass", value, "a number in [0, 1); 0 keeps what keep_rate says")
    return float(value)


def _whole(field: str, value: Any, least: int = 0) -> int:
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        allowed = "block numbers from 0" if field == "prune_at" else f"a whole number, at least {least}"
        raise InvalidSetting(field, value, allowed)
    return int(value)
