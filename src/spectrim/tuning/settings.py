"""What is searched for, and for which runtime. Imports neither torch nor transformers."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spectrim.comparison.methods import Method
from spectrim.errors import InvalidSetting
from spectrim.pruning.pruning import Pruning

SPEED_OF = {"torch": None, "onnx": "fp32", "onnx-fp16": "fp16", "onnx-int8": "int8"}
"""Runtime that speed and accuracy are measured in → precision of the exported file; None where none is written."""

LEVELS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2)
"""Keep rates that a block can get."""

UNIFORM_RATES = (0.9, 0.7, 0.5, 0.3)
"""Keep rates at which all methods are compared at the model's own pruning blocks, before the search."""

MAX_DROP = 1.0
SEARCHED = 256
"""Clips that steps of the search are taken on, at most; points are then judged on all of their half."""

FINALISTS, DRAWS = 3, 3
CLIPS_AT_ONCE = 8
"""Clips in a timed pass."""

Rates = tuple[float, ...]
"""Keep rate of each block of the model, 1 where nothing is pruned."""


@dataclass(frozen=True)
class Target:
    """What is wanted: the fastest point that loses no more, or the point that loses least and is as fast.

    Attributes:
        max_drop: points of the metric that may be lost against the dense model; None with ``min_speedup``.
        min_speedup: how many times as fast as the dense model; None with ``max_drop``.
    """

    max_drop: float | None = None
    min_speedup: float | None = None

    def __post_init__(self) -> None:
        if self.max_drop is not None and self.min_speedup is not None:
            raise InvalidSetting("min_speedup", self.min_speedup, "nothing beside max_drop: one of them is the target")
        if self.max_drop is None and self.min_speedup is None:
            object.__setattr__(self, "max_drop", MAX_DROP)
        if self.max_drop is not None and not _is_number(self.max_drop, 0.0, 100.0):
            raise InvalidSetting("max_drop", self.max_drop, "points of accuracy or mAP, from 0 to 100, e.g. 1.0")
        if self.min_speedup is not None and not (_is_number(self.min_speedup, 1.0, 1e6) and self.min_speedup > 1):
            raise InvalidSetting("min_speedup", self.min_speedup, "a number above 1, e.g. 1.8")

    @property
    def said(self) -> str:
        """In words."""
        if self.max_drop is not None:
            return f"at most {self.max_drop:g} points lost"
        return f"at least {self.min_speedup:g}× as fast as the dense model"

    def met(self, drop: float, speed_up: float) -> bool:
        """Whether a point is within the target and faster than the dense model; ``drop`` is a share."""
        if self.max_drop is not None:
            return 100 * drop <= self.max_drop + 1e-9 and speed_up > 1.0
        return self.min_speedup is not None and speed_up >= self.min_speedup


def _is_number(value: Any, low: float, high: float) -> bool:
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return number and math.isfinite(float(value)) and low <= float(value) <= high


def point_of(method: Method, own: Pruning, rates: Rates) -> Pruning:
    """The operating point of a method with a keep rate for each block of the model, always written in the same way.

    Args:
        method: what ranks, and what becomes of the rest.
        own: the model's operating point, whose treatment of padding holds.
        rates: of every block; where all are 1, that of the dense model.
    """
    blocks = [block for block, rate in enumerate(rates) if rate < 1.0]
    dense = method.at(own, 1.0)
    if not blocks:
        return dense
    pruned = [rates[block] for block in blocks]
    return dense.changed({"prune_at": blocks, "keep_rate": pruned[0] if len(set(pruned)) == 1 else pruned})


def described(method: str, point: Pruning) -> str:
    """A point for people: its method, and block:rate of each pruning block."""
    rates = " ".join(f"{block}:{rate:g}" for block, rate in sorted(point.rates.items()) if rate < 1.0)
    return f"{method} {rates}" if rates else method


def check_counts(**counts: Any) -> None:
    """Raise `InvalidSetting` for what is no whole number from 1."""
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InvalidSetting(name, value, "a whole number from 1")


def check_speed_of(name: str) -> None:
    """Raise `InvalidSetting` for a runtime that there is not."""
    if name not in SPEED_OF:
        raise InvalidSetting("speed_of", name, f"one of {', '.join(SPEED_OF)}")


def share_left(point: Pruning) -> float:
    """Share of the patches that are left after the last block."""
    return math.prod(_rates(point))


def _rates(point: Pruning) -> Sequence[float]:
    return list(point.rates.values())
