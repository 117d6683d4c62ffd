"""A bar for a training run, in a terminal or a notebook: epoch, time left, loss, metric and keep rate."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tqdm.auto import tqdm
from transformers import Trainer, TrainerCallback
from transformers.utils import logging

from spectrim.training.run_log import in_words

BAR = "{desc} |{bar:6}| {remaining} left{postfix}"
"""What a line shows, for tqdm; what does not fit is cut at its end."""


class RunProgress(TrainerCallback):
    """Draw a bar with the newest loss, metric and keep rate; evaluations have one of their own below it.

    Each evaluation leaves a line above the bar, in a terminal and in a notebook alike. The time left is that of all
    steps of this process, with its evaluations.

    Args:
        facts: what holds at an epoch, e.g. the keep rate.
        title: before the epoch, e.g. the fold.
        stop_after_epochs: see `spectrim.training.trainer.RunCourse`.
    """

    def __init__(
        self, facts: Callable[[float], Mapping[str, float]], title: str = "", stop_after_epochs: float | None = None
    ) -> None:
        self.facts = facts
        self.title = title and f"{title}, "
        self.stop_after_epochs = stop_after_epochs
        self.bar: Any = None
        self.evaluation: Any = None
        self.newest: dict[str, Any] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Begin to draw, at the step that training starts from."""
        share = 1.0 if self.stop_after_epochs is None else min(1.0, self.stop_after_epochs / args.num_train_epochs)
        self.bar = tqdm(
            total=round(state.max_steps * share),
            initial=state.global_step,
            bar_format=BAR,
            smoothing=0.0,
            dynamic_ncols=True,
        )
        self._show(args, state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Move on."""
        self._show(args, state)
        self.bar.update(state.global_step - self.bar.n)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Show what is new, and leave a line of an evaluation."""
        logs = logs or {}
        self.newest |= {name: logs[name] for name in logs if name == "loss" or name.startswith("eval_")}
        if self.bar is None or self.bar.disable:
            return
        if any(name.startswith("eval_") for name in logs):
            row = {"epoch": state.epoch, **self.newest, **self.facts(state.epoch or 0.0)}
            self.bar.write(self.title + ", ".join(in_words(row)))
        self._show(args, state)

    def _show(self, args: Any, state: Any) -> None:
        """Say where the run is, in few words."""
        epoch = state.epoch or 0.0
        known = {name.removeprefix("eval_"): value for name, value in self.newest.items() if name != "eval_loss"}
        words = self.title or "epoch "
        self.bar.set_description_str(f"{words}{epoch:.1f}/{args.num_train_epochs:g}", refresh=False)
        self.bar.set_postfix_str(", ".join(in_words({**known, **self.facts(epoch)})), refresh=False)

    def on_prediction_step(
        self, args: Any, state: Any, control: Any, eval_dataloader: Any = None, **kwargs: Any
    ) -> None:
        """Count a batch that is evaluated or tested."""
        if self.evaluation is None:
            words = f"{self.title}evaluation"
            self.evaluation = tqdm(total=len(eval_dataloader), desc=words, leave=False, dynamic_ncols=True)
        self.evaluation.update()

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Remove the bar of an evaluation."""
        self._end_evaluation()

    def on_predict(self, args: Any, state: Any, control: Any, metrics: Any, **kwargs: Any) -> None:
        """Remove the bar of a test."""
        self._end_evaluation()

    def _end_evaluation(self) -> None:
        if self.evaluation is not None:
            self.evaluation.close()
            self.evaluation = None

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Leave the bar as it is."""
        self.close()

    def close(self) -> None:
        """End all bars, so that what is printed next has a line of its own."""
        self._end_evaluation()
        if self.bar is not None:
            self.bar.close()


@contextmanager
def own_bars(trainer: Trainer | None = None) -> Iterator[None]:
    """Have transformers draw no bar for each file that it writes, and end those of a run however it ends."""
    drawn = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if drawn:
            logging.enable_progress_bar()
        for callback in [] if trainer is None else trainer.callback_handler.callbacks:
            if isinstance(callback, RunProgress):
                callback.close()
