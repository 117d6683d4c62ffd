"""The first steps of a recipe of pre-training on data that is repeated: loss, clips a second, memory.

    python benchmarks/first_steps.py --data SHARDS --steps 1000 --json FILE [--recipe audiomae-pretrain-as2m]
                                     [--set data.name=audioset] [--set field=value ...]

The course of the learning rate is that of the recipe on AudioSet's 2 million clips, whatever there is to hear: epochs
and warm-up are stretched so that step k has the rate that it would have there. Rates are those of the recipe's own
batch, where ``--set optimiser.batch_size`` makes it smaller. Training is `spectrim.training.pretrain`'s, with its data
loader; there is no evaluation before the end of the steps.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from showing import write_and_show
from transformers import TrainerCallback

from spectrim.audio.frontend import Frontend
from spectrim.machine import environment
from spectrim.training.pretrain import MaskingCollator, build_trainer, prepare
from spectrim.training.pretrain_recipes import PretrainRecipe, load_pretrain_recipe

AUDIOSET = 2_000_000
"""Clips of AudioSet's unbalanced training part, about."""


class Watch(TrainerCallback):
    """Note loss, time and memory at every logged step.

    Args:
        clips: in a step.
    """

    def __init__(self, clips: int) -> None:
        self.clips, self.rows = clips, list[dict[str, Any]]()
        self.times: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Note the time."""
        self.times.append(time.perf_counter())

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Note a row, with the throughput since the one before."""
        if not logs or "loss" not in logs:
            return
        since = self.rows[-1]["step"] if self.rows else 1
        passed = self.times[-1] - self.times[since - 1]
        self.rows.append(
            {
                "step": state.global_step,
                "loss": logs["loss"],
                "learning_rate": logs["learning_rate"],
                "grad_norm": logs.get("grad_norm", float("nan")),
                "clips_per_second": (state.global_step - since) * self.clips / passed if passed else None,
                "peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
            }
        )


def stretched(recipe: PretrainRecipe, clips: int, steps: int) -> PretrainRecipe:
    """The recipe for so few clips, with the learning rates of its first steps on AudioSet."""
    optimiser, published = recipe.optimiser, load_pretrain_recipe("audiomae-pretrain-as2m").optimiser
    per_epoch, there = clips // optimiser.batch_size, AUDIOSET // published.batch_size
    changes = {
        "learning_rate": published.peak,
        "per_batch": None,
        "epochs": optimiser.epochs * there / per_epoch,
        "stop_after_epochs": steps / per_epoch,
    }
    warmup = {"warmup_epochs": recipe.schedule.warmup_epochs * there / per_epoch}
    tree = recipe.model_dump(mode="json")
    tree["optimiser"] |= changes
    tree["schedule"] |= warmup
    tree["evaluation"] |= {"every_epochs": steps / per_epoch, "picture_every": 0}
    return PretrainRecipe(**tree)


def main() -> None:
    """Train, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True, help="packed data set, or folder")
    parser.add_argument("--recipe", default="audiomae-pretrain-as2m")
    parser.add_argument("--set", dest="changes", action="append", default=[])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--every", type=int, default=50, help="steps from one row to the next")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        recipe = load_pretrain_recipe(given.recipe, given.changes)
        clips = len(prepare(recipe, given.data, folder).training)
        recipe = stretched(recipe, clips, given.steps)
        job = prepare(recipe, given.data, folder)
        watch = Watch(recipe.optimiser.batch_size)
        collator = MaskingCollator(Frontend.from_config(job.model.config), recipe.masking, job.model.config.grid)
        trainer = build_trainer(job, collator, [watch])
        trainer.args.logging_steps = given.every
        begun, core_begun = time.perf_counter(), time.process_time()
        trainer.train()
        seconds, core_seconds = time.perf_counter() - begun, time.process_time() - core_begun
    rates = [row["clips_per_second"] for row in watch.rows[1:]] or [watch.rows[0]["clips_per_second"]]
    result = {
        "recipe": given.recipe,
        "changes": given.changes,
        "files": clips,
        "steps": trainer.state.global_step,
        "parameters": sum(weight.numel() for weight in job.model.parameters()),
        "encoder_and_decoder_width": [job.model.config.hidden_size, job.model.config.decoder_width],
        "batch": recipe.optimiser.batch_size,
        "seconds": seconds,
        "core_seconds": core_seconds,
        "clips_per_second": {"median": statistics.median(rates), "least": min(rates), "most": max(rates)},
        "peak_megabytes": watch.rows[-1]["peak_megabytes"],
        "rows": watch.rows,
        "load_average": {"before": load, "after": os.getloadavg()[0]},
        "environment": environment(),
    }
    write_and_show(result, given.json)


if __name__ == "__main__":
    main()
