"""What is said of a search, on rows made by hand."""

from __future__ import annotations

from typing import Any

import pytest

from spectrim.tuning.promise import Bound
from spectrim.tuning.settings import Target
from spectrim.tuning.words import told_in_words


def row(name: str, method: str, speed: float, drop: float) -> dict[str, Any]:
    times = {"ms": 10 / speed, "speed_up": speed, "speed_up_q1": speed, "speed_up_q3": speed}
    held = {"held_metric": 0.9 - drop, "held_drop": drop, "drop": drop}
    return {"name": name, "method": method, **times, **held, "chosen_is_faster": 2.0 / speed}


@pytest.mark.parametrize(
    ("target", "said"),
    [(Target(max_drop=1.0), "the fastest"), (Target(min_speedup=1.4), "the one that loses least")],
)
def test_the_best_uniform_point_is_called_what_the_target_made_it(target: Target, said: str) -> None:
    facts = {
        "clips_at_once": 8,
        "speed_of": "torch",
        "metric": "accuracy",
        "lost_by_group": {},
        "target": target.said,
        "max_drop": target.max_drop,
        "min_speedup": target.min_speedup,
    }
    rows = [row("dense", "dense", 1.0, 0.0), row("tuned", "fuse", 2.0, 0.005), row("own", "attention", 1.6, 0.008)]
    bound = Bound(0.005, 0.02, 0.95, "exactly", 100, 1, 0, 0.01, None)
    told = told_in_words(facts, rows, "tuned", ["own"], bound, None)
    assert told[-1] == (
        f"The chosen point is 1.25× as fast as own, {said} within the target with one keep rate at the model's own "
        "blocks and its attention (1.60× the dense model; held out: 0.8 points lost, the chosen one 0.5 points lost)."
    )


def test_what_is_over_speakers_is_said_so() -> None:
    facts = {
        "clips_at_once": 8,
        "speed_of": "torch",
        "metric": "accuracy",
        "target": "at most 1 points lost",
        "lost_by_group": {"a": 0.0, "b": 0.02},
        "max_drop": 1.0,
        "min_speedup": None,
    }
    rows = [row("dense", "dense", 1.0, 0.0), row("tuned", "fuse", 2.0, 0.005)]
    bound = Bound(0.005, 0.02, 0.95, "by groups", 100, 1, 0, 0.01, 900, 8)
    told = " ".join(told_in_words(facts, rows, "tuned", [], bound, None))
    assert "about 900 held-out clips, 800 more, of other speakers or recordings." in told
    assert "lost 0.0 to 2.0 points each." in told
