"""Time every way to spend fewer tokens at equal MACs, in turn in one run, and write JSON.

    python benchmarks/methods.py --json benchmarks/results/methods.json [--repeats 5]

AST-B/16 on 10 s with random weights, packed, in float32: every criterion that is dropped by and every reducer at the
model's own blocks, a quota of a clip's seconds, and merging in every block as ToMe and FastAST do, each at the keep
rate whose executed MACs come nearest to those of the paper's way at keep rate 0.7 and 0.5. What MACs promise is the
dense model's MACs over a method's; what is reached of it is the dense model's time over the method's, as a share of
that. It says nothing of accuracy: that is `spectrim compare`'s. Round after round, each case once, in an order drawn
anew. A file that is there keeps its rows of other batch sizes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from cases import LABELS, SMALL_PRUNED

from spectrim.backbones import ast_base
from spectrim.comparison.methods import ATTENTION, DENSE, METHODS, read_methods
from spectrim.config import SpectrimConfig
from spectrim.errors import InvalidSetting
from spectrim.files import write_json
from spectrim.inference.packing import pack_weights
from spectrim.machine import environment
from spectrim.measure import benchmark
from spectrim.network.macs import macs
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.criteria import BACKBONE_CRITERIA
from spectrim.pruning.pruning import Pruning

RATES = (0.7, 0.5)
REPEATS = {1: 7, 8: 3}
"""Timed rounds by batch size."""

APART = 0.02
"""MACs that differ by more than this share are not equal: the method does not reach them, and is left out."""

PARTS = 10
"""Parts of a clip that each get a quota: its seconds."""


def main() -> None:
    """Match the MACs, time, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    parser.add_argument("--repeats", type=int, help="timed rounds; default: by batch size")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rates", type=float, nargs="+", default=RATES, help="keep rates whose MACs are met")
    parser.add_argument("--threads", type=int, help="of torch; torch's own choice without")
    parser.add_argument("--small", action="store_true", help="a tiny model: shows that it runs; times say nothing")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    config = ast_base(num_labels=LABELS, max_length=1024, **(SMALL_PRUNED if options.small else {}))
    model = pack_weights(AudioTransformer(config).add_predictors(config.pruning.at).eval())
    points = list(matched(model.config, options.rates))
    there = json.loads(options.json.read_text(encoding="utf-8"))["rows"] if options.json.exists() else []
    rows = [row for row in there if row["batch_size"] not in options.batch_sizes]
    for batch in options.batch_sizes:
        rows += measured(model, points, batch, options.repeats or REPEATS.get(batch, 3))
        write_json(options.json, {"environment": environment(), "small": options.small, "rows": rows})


def matched(config: SpectrimConfig, rates: Sequence[float]) -> Iterator[tuple[str, float | None, Pruning]]:
    """Name, keep rate of the paper's way whose MACs are met (None: dense), and point of every case."""
    yield DENSE, None, config.pruning.changed({"keep_rate": 1.0})
    usual = BACKBONE_CRITERIA[config.backbone]
    names = [name for name in METHODS if name not in ("drop", usual)]
    methods = read_methods([*names, f"{ATTENTION}/{PARTS}"])
    patches = config.num_patches
    for wanted in rates:
        target = macs(config, keep_rate=wanted).executed
        for method in methods:
            grid = [method.at(config.pruning, step / 200) for step in range(20, 200)]
            if (point := nearest(config, grid, target)) is not None:
                yield method.name, wanted, point
        every = [Pruning.merging(patches, each, config.num_hidden_layers) for each in range(1, patches // 4)]
        if (point := nearest(config, every, target)) is not None:
            yield "merge in every block", wanted, point


def nearest(config: SpectrimConfig, points: list[Pruning], target: int) -> Pruning | None:
    """The point whose executed MACs are nearest to these, None where none is near."""
    found: dict[Pruning, float] = {}
    for point in points:
        try:
            found[point] = abs(macs(config, pruning=point).executed / target - 1)
        except InvalidSetting:
            continue
    best = min(found, key=lambda point: found[point], default=None)
    return best if best is not None and found[best] <= APART else None


def measured(
    model: AudioTransformer, points: list[tuple[str, float | None, Pruning]], batch: int, rounds: int
) -> list[dict[str, Any]]:
    """Rows of all cases at one batch size."""
    values = torch.randn(batch, model.config.max_length, 128, generator=torch.Generator().manual_seed(0))
    calls = {place: partial(passed, model, values, point) for place, (_, _, point) in enumerate(points)}
    load = os.getloadavg()[0]
    sys.stderr.write(f"batch {batch}: {len(points)} cases, {rounds} rounds\n")
    seconds = benchmark.interleaved(calls, repeats=rounds, warmup=1, shuffle=0)
    dense = macs(model, pruning=points[0][2]).executed
    rows = []
    for place, (name, wanted, point) in enumerate(points):
        count = macs(model, pruning=point).executed
        ratios = [one / other for one, other in zip(seconds[0], seconds[place], strict=True)]
        rate = point.keep_rate if isinstance(point.keep_rate, float) else point.keep_rate[0]
        rows.append(
            {
                "batch_size": batch,
                "method": name,
                "macs_of_rate": wanted,
                "keep_rate": rate,
                "macs": count,
                **benchmark.spread(seconds[place]),
                "rounds_ms": [round(1e3 * taken, 3) for taken in seconds[place]],
                "repeats": rounds,
                "promised": dense / count,
                **dict(zip(("speed_up_q1", "speed_up", "speed_up_q3"), quartiles(ratios), strict=True)),
                "load_average_before": load,
            }
        )
    return rows


def quartiles(values: list[float]) -> list[float]:
    """First quartile, median, third quartile."""
    return statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3


def passed(model: AudioTransformer, values: torch.Tensor, point: Pruning) -> torch.Tensor:
    """Logits of a pass."""
    with torch.inference_mode():
        logits: torch.Tensor = model(values, pruning=point).logits
        return logits


if __name__ == "__main__":
    main()
