"""Time Spectrim's models beside everything else, in turn in one run, and write JSON.

    python benchmarks/speed.py --json benchmarks/results/speed.json [--reference REF --libraries LIBS]

Model only: normalised log-mel spectrograms in, logits out, random weights (speed does not depend on them). All that
answers one case at one batch size is called in turn, round after round, so that what else the machine does hits all
alike. Peers: transformers' AST (eager and SDPA attention) with the same weights; ToMe's merging as FastAST applies
it, our own writing of the arithmetic; the paper's public models where a checkout is named
(benchmarks/peers/reference.py says what it needs). Before anything is timed, the logits of everything that should
agree are compared, and the differences written down.

Run it on a machine that does nothing else. It is written after every case and batch size; --resume goes on from
there. benchmarks/tables.py draws the tables and figures of README and docs/performance.md from the file.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import torch
from cases import CASES, CONTENDERS, Contender, contenders, prepare, reference_difference

from spectrim import benchmark
from spectrim.whole import write_json

KINDS = {1: list(CONTENDERS), 8: list(CONTENDERS), 32: ["transformers", "reference", "spectrim"]}
"""What is timed at which batch size: the largest leaves out what the smaller ones already tell."""

REPEATS = {1: 11, 8: 5, 32: 3}
LEAST_LARGE_BATCH = 32
SKIPPED = {("ast-10s-stride10", 32)}
"""Minutes a pass on two cores."""

PACKAGES = ("onnxruntime", "openvino")


def main() -> None:
    """Prepare each case, compare the logits, time, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--kinds", nargs="+", choices=CONTENDERS, help="default: by batch size")
    parser.add_argument("--repeats", type=int, help="timed rounds; default: by batch size")
    parser.add_argument("--reference", type=Path, help="checkout of the paper's public code")
    parser.add_argument("--libraries", type=Path, help="folder with timm 0.4.5 and einops, for --reference")
    parser.add_argument("--threads", type=int, help="of torch and the runtimes; torch's own choice without")
    parser.add_argument("--small", action="store_true", help="tiny models: shows that it runs; times say nothing")
    parser.add_argument("--resume", action="store_true", help="leave out what is in the file")
    options = parser.parse_args()
    if (options.reference is None) != (options.libraries is None):
        parser.error("--reference and --libraries go together")
    if options.threads:
        torch.set_num_threads(options.threads)
    rows, checks = [], {}
    if options.resume and options.json.exists():
        before = json.loads(options.json.read_text(encoding="utf-8"))
        rows, checks = before["rows"], before["reference_difference"]
    for name in options.cases:
        missing = [batch for batch in options.batch_sizes if needed(rows, name, batch)]
        if not missing:
            continue
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            setting = prepare(name, Path(folder), options.reference, options.libraries, small=options.small)
            checks[name] = reference_difference(setting)
            kinds = options.kinds or list(CONTENDERS)
            field = {kind: contenders(setting, [kind]) for kind in kinds}
            for batch in missing:
                chosen = [kind for kind in kinds if options.kinds or kind in kinds_at(batch)]
                rows += measure(name, [one for kind in chosen for one in field[kind]], batch, options.repeats)
                write_json(options.json, {"environment": environment(), "rows": rows, "reference_difference": checks})


def kinds_at(batch: int) -> list[str]:
    """What is timed at a batch size unless the caller names it."""
    return KINDS[max(size for size in KINDS if size <= max(batch, 1))]


def needed(rows: list[dict[str, Any]], name: str, batch: int) -> bool:
    """Whether a case is still to be timed at a batch size."""
    return (name, batch) not in SKIPPED and not any((row["case"], row["batch_size"]) == (name, batch) for row in rows)


def measure(name: str, field: list[Contender], batch: int, repeats: int | None) -> list[dict[str, Any]]:
    """Rows of one case at one batch size."""
    case = CASES[name]
    values = torch.randn(batch, case.frames, 128, generator=torch.Generator().manual_seed(0))
    calls = {place: partial(one.call, values) for place, one in enumerate(field)}
    differences = logit_differences(field, calls)
    rounds = repeats or REPEATS[max(size for size in REPEATS if size <= max(batch, 1))]
    load = os.getloadavg()[0]
    sys.stderr.write(f"{name}, batch {batch}: {len(field)} contenders, {rounds} rounds\n")
    seconds = benchmark.interleaved(calls, repeats=rounds, warmup=0 if batch >= LEAST_LARGE_BATCH else 1)
    return [
        {
            "case": name,
            "batch_size": batch,
            "contender": one.name,
            "keep_rate": one.rate,
            "detail": one.detail,
            "macs": one.macs,
            **benchmark.spread(seconds[place]),
            "rounds_ms": [round(1e3 * one, 3) for one in seconds[place]],
            "ms_per_clip": 1e3 * statistics.median(seconds[place]) / batch,
            "repeats": rounds,
            "load_average_before": load,
            "largest_logit_difference": differences[place],
        }
        for place, one in enumerate(field)
    ]


def logit_differences(field: list[Contender], calls: dict[int, partial[torch.Tensor]]) -> dict[int, float | None]:
    """Largest difference of each contender's logits from our float32 ones at its keep rate; None for other weights.

    Raises:
        ValueError: what should agree to rounding does not.
    """
    logits = {place: call().float() for place, call in calls.items()}
    ours = {one.rate: logits[place] for place, one in enumerate(field) if one.name == "spectrim"}
    found: dict[int, float | None] = {}
    for place, one in enumerate(field):
        comparable = one.rate in ours and one.name != "public reference"
        found[place] = float((logits[place] - ours[one.rate]).abs().max()) if comparable else None
        if one.exact and comparable and not (found[place] or 0.0) <= 1e-3:
            raise ValueError(f"{one.name} at keep rate {one.rate} differs by {found[place]} in the logits")
    return found


def environment() -> dict[str, Any]:
    """Machine and versions, with those of the runtimes."""
    machine = benchmark.environment()
    for package in PACKAGES:
        if importlib.util.find_spec(package) is not None:
            machine["versions"][package] = importlib.metadata.version(package)
    return machine


if __name__ == "__main__":
    main()
