"""A step of masked pre-training with random weights: processor time per clip of 10 s, front end apart.

Processor time of one thread, so that what else a machine does matters little; `load_average` says how much that was.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spectrim.audio.frontend import Frontend
from spectrim.files import write_json
from spectrim.machine import environment
from spectrim.network.masked import MaskedAutoencoder
from spectrim.network.masked.masks import random_visible
from spectrim.training.optimiser import build_optimiser
from spectrim.training.pretrain_recipes import load_pretrain_recipe


def main() -> None:
    """Time the parts of a step and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    parser.add_argument("--recipe", default="audiomae-pretrain-mini")
    parser.add_argument("--batch", type=int, default=16, help="clips in a forward and backward pass")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    recipe = load_pretrain_recipe(options.recipe)
    model = MaskedAutoencoder(recipe.configuration()).train()
    optimiser = build_optimiser(model.named_parameters(), recipe.optimiser)
    frontend, random = Frontend.from_config(model.config), np.random.default_rng(0)
    waveforms = torch.from_numpy(random.normal(0, 0.1, (options.batch, 160_000)).astype(np.float32))
    values = frontend(waveforms).input_values
    patches, ratio = model.config.num_patches, recipe.masking.ratio
    visible = torch.from_numpy(np.stack([random_visible(patches, ratio, random) for _ in range(options.batch)]))

    def step(precision: torch.dtype | None) -> Callable[[], object]:
        def run() -> None:
            optimiser.zero_grad()
            with torch.autocast("cpu", precision or torch.bfloat16, enabled=precision is not None):
                loss = model(values, visible).loss
            loss.backward()

        return run

    cases: dict[str, Callable[[], object]] = {
        "front end": lambda: frontend(waveforms),
        "forward and backward, fp32": step(None),
        "forward and backward, bf16": step(torch.bfloat16),
        "optimiser, once a step": optimiser.step,
    }
    before = os.getloadavg()[0]
    rows = measure(cases, options.repeats, options.batch)
    facts = {"recipe": recipe.name, "batch": options.batch, "repeats": options.repeats, "visible": visible.shape[1]}
    load = {"before": before, "after": os.getloadavg()[0]}
    write_json(options.json, {**facts, "load_average": load, "environment": environment(), "rows": rows})


def measure(cases: dict[str, Callable[[], object]], repeats: int, batch: int) -> list[dict[str, Any]]:
    """Processor time of each case in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(repeats + 1):
        for name, run in cases.items():
            start = time.process_time()
            run()
            if number:
                seconds[name].append(time.process_time() - start)
    rows = []
    for name, times in seconds.items():
        median = statistics.median(times)
        low, _, high = statistics.quantiles(times, n=4)
        per_clip = {"ms_per_clip": 1e3 * median / batch, "clips_per_second": batch / median}
        rows.append({"case": name, "median_ms": 1e3 * median, "q1_ms": 1e3 * low, "q3_ms": 1e3 * high, **per_clip})
    return rows


if __name__ == "__main__":
    main()
