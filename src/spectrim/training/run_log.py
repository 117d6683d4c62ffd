"""The log of a training run: rows in JSON Lines, their table in CSV, and lines for the terminal."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from spectrim.checkpoints.untrusted import parse_json
from spectrim.errors import DataError
from spectrim.files import write_text
from spectrim.measure.metrics import METRICS
from spectrim.tables import table_csv

Say = Callable[[str], object]


QUIET = 10.0
"""Seconds without a line before a loss alone is worth one; an evaluation always is."""


class RunLog(TrainerCallback):
    """Append all that the Trainer logs to ``metrics.jsonl``; ``metrics.csv`` is its table, renewed now and then.

    Rows that a resumed run writes again are dropped first: of later steps, and of the end.

    Args:
        folder: of the run.
        facts: more columns, from the epochs done.
        say: is told evaluations, and now and then the loss, in one line each with the time left; for files, and
            terminals without a bar.
        stop_after_epochs: see `RunCourse`.
        title: begins each of these lines.
    """

    def __init__(
        self,
        folder: Path,
        facts: Callable[[float], Mapping[str, float]],
        say: Say | None = None,
        stop_after_epochs: float | None = None,
        title: str = "",
    ) -> None:
        self.title = title and f"{title}, "
        self.rows = folder / "metrics.jsonl"
        self.table = folder / "metrics.csv"
        self.facts = facts
        self.say = say
        self.stop_after_epochs = stop_after_epochs
        self.begun = (0.0, time.monotonic())
        self.said = self.begun[1]
        self.newest: dict[str, Any] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep the rows up to the step that training starts from."""
        self.begun = (state.epoch or 0.0, time.monotonic())
        self.said = self.begun[1]
        if state.is_world_process_zero and self.rows.exists():
            kept = [
                row for row in read_log(self.rows) if row["step"] <= state.global_step and "train_runtime" not in row
            ]
            write_text(self.rows, "".join(f"{json.dumps(row)}\n" for row in kept))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Write one line."""
        if not state.is_world_process_zero:
            return
        epoch = state.epoch or 0.0
        logged = {name: _defined(value) for name, value in (logs or {}).items() if name != "total_flos"}
        row = {"step": state.global_step, "epoch": state.epoch, **self.facts(epoch), **logged}
        with self.rows.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self._tell(args, state, row, evaluation_follows=control is not None and control.should_evaluate)

    def _tell(self, args: Any, state: Any, row: Mapping[str, Any], *, evaluation_follows: bool) -> None:
        """Say an evaluation with the loss before it, or a loss after some time in which nothing was said."""
        self.newest |= row
        now = time.monotonic()
        evaluated = any(name.startswith("eval_") for name in row)
        alone = "loss" in row and not evaluation_follows and now - self.said >= QUIET
        if self.say is None or not (evaluated or alone):
            return
        left = self._left(args, state.epoch or 0.0, now)
        steps = f"{self.title}{state.global_step}/{state.max_steps} steps"
        self.say(f"{steps}: {', '.join(in_words(self.newest))}{left}")
        self.said, self.newest = now, {} if evaluated else self.newest

    def _left(self, args: Any, epoch: float, now: float) -> str:
        """The time left, if this process has trained long enough to tell."""
        epochs = args.num_train_epochs if self.stop_after_epochs is None else self.stop_after_epochs
        begun, clock = self.begun
        if not begun < epoch < epochs:
            return ""
        return f", {timedelta(seconds=round((now - clock) * (epochs - epoch) / (epoch - begun)))} left"

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Renew the table."""
        self._tabulate(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Renew the table."""
        self._tabulate(state)

    def _tabulate(self, state: Any) -> None:
        if not state.is_world_process_zero or not self.rows.exists():
            return
        write_text(self.table, table_csv(read_log(self.rows)))


def read_log(path: Path) -> list[dict[str, Any]]:
    """The rows of a run's ``metrics.jsonl``, a last one apart that was not finished.

    Raises:
        DataError: a line is no such row; names it.
    """
    whole, _, _ = path.read_text(encoding="utf-8", errors="replace").rpartition("\n")
    rows = []
    for number, line in enumerate(whole.split("\n") if whole else (), 1):
        try:
            row = parse_json(line)
            if not isinstance(row, dict) or not isinstance(row.get("step"), int):
                raise ValueError("it has no step")
        except ValueError as error:
            raise DataError(f"{path}: line {number} is no row of a run's log ({error}); remove it") from error
        rows.append(row)
    return rows


def _defined(value: Any) -> Any:
    """A value for JSON, which has no NaN: None where a metric is not defined."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def in_words(row: Mapping[str, Any]) -> list[str]:
    """What a row of the log says, for people: epoch, losses, metric, keep rate, learning rate; no times and counts."""
    left_out = (
        "step",
        "grad_norm",
        "total_flos",
        "clips",
        "runtime",
        "eval_clips",
        "eval_runtime",
        "train_loss",
        "train_runtime",
    )
    said = []
    for name, value in row.items():
        if name in left_out or name.endswith("_per_second"):
            continue
        words = name.replace("eval_", "validation ").replace("_", " ")
        if value is None or (isinstance(value, float) and not math.isfinite(value)):
            number = "not defined"
        elif name.removeprefix("eval_") in METRICS:
            number = f"{100 * value:.1f} %"
        else:
            number = f"{value:.4g}" if isinstance(value, float) else str(value)
        said.append(f"{words} {number}")
    return said
