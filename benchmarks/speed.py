"""Time Spectrim's models beside everything else, in turn in one run, and write JSON.

    python benchmarks/speed.py --json benchmarks/results/speed.json [--reference REF --libraries LIBS]

Model only: normalised log-mel spectrograms in, logits out, random weights (speed does not depend on them). All that
answers one case at one batch size is called in turn, round after round, in an order drawn anew for each and with a
rest between calls, so that what else the machine does hits all alike. Peers: transformers' AST (eager and SDPA
attention) with the same weights; ToMe's merging as FastAST applies it, our own writing of the arithmetic; the paper's
public models where a checkout is named (benchmarks/peers/reference.py says what it needs). Before anything is timed,
the logits of everything that should agree are compared, and the differences written down.

Run it on a machine that does nothing else. It is written after every case and batch size; --resume goes on from
there. benchmarks/tables.py draws the tables and figures of docs/results.md and docs/performance.md from the file.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from cases import CASES, CONTENDERS, Contender, apart, prepare, reference_difference
from peers import reference

from spectrim.files import write_json
from spectrim.machine import environment
from spectrim.measure import benchmark

KINDS = {1: list(CONTENDERS), 8: list(CONTENDERS), 32: ["transformers", "spectrim"]}
"""What is timed at which batch size: the largest leaves out what the smaller ones already tell."""

REPEATS = {1: 11, 8: 5, 32: 3}
"""Timed rounds. Up to batch 8 a round before them does not count; above, comparing the logits is the warm-up."""

SKIPPED = {("ast-10s-stride10", 8), ("ast-10s-stride10", 32)}
"""Not timed unless the case is named: minutes a round on two cores."""

REST = 0.1
"""Seconds between calls: ONNX Runtime's threads wait actively for 45 ms after a call, on the next one's core."""

AGREES = 1e-3
"""What should agree differs by no more of the logits' standard deviation; float32 rounding is below 1e-4."""

PACKAGES = ("onnxruntime", "openvino", "timm")


def main() -> None:
    """Prepare each case, compare the logits, time, write."""
    options = arguments()
    if options.threads:
        torch.set_num_threads(options.threads)
    rest = 0.0 if options.small else REST
    facts = {
        "environment": environment("cpu", *PACKAGES),
        "small": options.small,
        "kinds": options.kinds,
        "reference_commit": None if options.reference is None else reference.commit(options.reference),
        "rest_seconds": rest,
    }
    rows, checks = before(options.json, facts) if options.resume else ([], {})
    for name in options.cases or CASES:
        missing = [
            batch
            for batch in options.batch_sizes
            if (options.cases or (name, batch) not in SKIPPED) and not timed_already(rows, name, batch)
        ]
        if not missing:
            continue
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            setting = prepare(name, Path(folder), options.reference, options.libraries, small=options.small)
            checks[name] = reference_difference(setting)
            kinds = {batch: options.kinds or at(KINDS, batch) for batch in missing}
            field = {kind: list(CONTENDERS[kind](setting)) for kind in dict.fromkeys(chain(*kinds.values()))}
            for batch in missing:
                chosen = [one for kind in kinds[batch] for one in field[kind]]
                rounds = options.repeats or at(REPEATS, batch)
                rows += measure(name, chosen, batch, rounds, rest=rest)
                write_json(options.json, {**facts, "rows": rows, "reference_difference": checks})


def arguments() -> argparse.Namespace:
    """What the command line says, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    parser.add_argument("--cases", nargs="+", choices=CASES, help="default: all")
    parser.add_argument("--batch-sizes", type=positive, nargs="+", default=[1, 8, 32])
    parser.add_argument("--kinds", nargs="+", choices=CONTENDERS, help="default: by batch size")
    parser.add_argument("--repeats", type=positive, help="timed rounds; default: by batch size")
    parser.add_argument("--reference", type=Path, help="checkout of the paper's public code")
    parser.add_argument("--libraries", type=Path, help="folder with timm 0.4.5 and einops, for --reference")
    parser.add_argument("--threads", type=positive, help="of torch and the runtimes; torch's own choice without")
    parser.add_argument("--small", action="store_true", help="tiny models: shows that it runs; times say nothing")
    parser.add_argument("--resume", action="store_true", help="leave out what is in the file")
    options = parser.parse_args()
    if (options.reference is None) != (options.libraries is None):
        parser.error("--reference and --libraries go together")
    for folder in (options.reference, options.libraries):
        if folder is not None and not folder.is_dir():
            parser.error(f"{folder} is not a folder")
    return options


def positive(text: str) -> int:
    """A whole number from 1, for argparse."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number}; wanted: 1 or more")
    return number


def before(path: Path, facts: Mapping[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows and checks of a file to go on with; it must come from the same machine, versions and options."""
    if not path.exists():
        return [], {}
    there = json.loads(path.read_text(encoding="utf-8"))
    differing = [name for name, value in facts.items() if there.get(name) != value]
    if differing:
        raise SystemExit(
            f"{path} was made with another {', '.join(differing)}: name another file, or leave --resume out"
        )
    return there["rows"], there["reference_difference"]


def at(by_batch: Mapping[int, Any], batch: int) -> Any:
    """The entry of the largest batch size that is not above this one."""
    return by_batch[max(size for size in by_batch if size <= batch)]


def timed_already(rows: Sequence[Mapping[str, Any]], name: str, batch: int) -> bool:
    """Whether a case has rows at a batch size."""
    return any((row["case"], row["batch_size"]) == (name, batch) for row in rows)


def measure(name: str, field: Sequence[Contender], batch: int, rounds: int, *, rest: float) -> list[dict[str, Any]]:
    """Rows of one case at one batch size, with so many seconds between calls."""
    case = CASES[name]
    values = torch.randn(batch, case.frames, 128, generator=torch.Generator().manual_seed(0))
    calls = {place: partial(one.call, values) for place, one in enumerate(field)}
    differences = logit_differences(field, calls)
    load = os.getloadavg()[0]
    sys.stderr.write(f"{name}, batch {batch}: {len(field)} contenders, {rounds} rounds\n")
    warmup = 1 if batch < max(REPEATS) else 0
    seconds = benchmark.interleaved(calls, repeats=rounds, warmup=warmup, rest=rest, shuffle=0)
    return [
        {
            "case": name,
            "batch_size": batch,
            "contender": one.name,
            "keep_rate": one.rate,
            "detail": one.detail,
            "macs": one.macs,
            **benchmark.spread(seconds[place]),
            "rounds_ms": [round(1e3 * taken, 3) for taken in seconds[place]],
            "ms_per_clip": 1e3 * statistics.median(seconds[place]) / batch,
            "repeats": rounds,
            "load_average_before": load,
            "logits_apart": differences[place],
            "agrees": None if not one.exact else differences[place] is not None and differences[place] <= AGREES,
        }
        for place, one in enumerate(field)
    ]


def logit_differences(
    field: Sequence[Contender], calls: Mapping[int, Callable[[], torch.Tensor]]
) -> dict[int, float | None]:
    """How far each contender's logits are from our float32 ones at its keep rate; None for other weights."""
    logits = {place: call() for place, call in calls.items()}
    ours = {one.rate: logits[place] for place, one in enumerate(field) if one.name == "spectrim"}
    return {
        place: apart(logits[place], ours[one.rate]) if one.rate in ours and one.name != "public reference" else None
        for place, one in enumerate(field)
    }


if __name__ == "__main__":
    main()
