"""A claim of the paper with its answer, and how an interval decides it.

An answer compares a 95 % interval with a threshold: "yes" or "no" where all of the interval lies on one side of it,
"unclear" where the threshold lies inside. The answer names the threshold. "Cannot say" where the interval has no
ground: see `spectrim.stats.ground`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spectrim.stats.bootstrap import Estimate
from spectrim.stats.ground import CANNOT_SAY, Interval, no_interval

YES, NO, UNCLEAR, IN_PART, UNTESTED = "yes", "no", "unclear", "in part", "not tested"
PAIR = " − "
"""Between the names of two models in a comparison."""

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Claim:
    """One claim with its answer.

    Attributes:
        key: short name, for files.
        heading: the claim as a question.
        answer: a sentence for each model, or one that says why there is none.
        verdicts: model → `YES`, `NO`, `UNCLEAR`, `IN_PART`, `CANNOT_SAY` or `UNTESTED`; of a comparison, the two names
            → it.
        columns: of the table.
        rows: of the table, cells as text.
        notes: what has to be known to read it.
    """

    key: str
    heading: str
    answer: tuple[str, ...]
    verdicts: Mapping[str, str]
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def verdict(interval: Interval, mark: float, *, above: bool) -> str:
    """Whether a value lies above (or below) a threshold: yes, no, or unclear where the interval contains it.

    Without an interval (one clip), or with one of no width, there is nothing to say.
    """
    if no_interval(interval) is not None:
        return CANNOT_SAY
    _, low, high = interval
    if low > mark:
        return YES if above else NO
    if high < mark:
        return NO if above else YES
    return UNCLEAR


def joint(marks: Sequence[str]) -> str:
    """One answer from those for several statistics: the same if they agree, "in part" if some are yes."""
    if len(set(marks)) == 1:
        return marks[0]
    return IN_PART if YES in marks else CANNOT_SAY if CANNOT_SAY in marks else UNCLEAR


def interval_at(estimate: Estimate, *place: int) -> Interval:
    """Of an estimate of an array, the interval at one place."""
    return Interval(*(float(part[place]) for part in (estimate.mean, estimate.low, estimate.high)))


def _format_interval(value: Interval, form: str) -> str:
    if math.isnan(value[0]):
        return "–"
    if math.isnan(value[1]):
        return format(value[0], form)
    return f"{format(value[0], form)} [{format(value[1], form)}, {format(value[2], form)}]"


def as_number(value: Interval) -> str:
    """Value and ends for a table; a dash where there is no value, no ends where there are none."""
    return _format_interval(value, ".2f")


def as_percent(value: Interval, sign: str = "") -> str:
    """The same times 100."""
    return _format_interval(Interval(*(100 * part for part in value)), f"{sign}.1f")
