"""What packed weights save on this processor: AST-B/16 on 10 s, packed beside not packed, pass by pass.

    python benchmarks/packing.py --threads 2 --json benchmarks/results/packing.json

Random weights and inputs; batches of 1 and 8, keep rates 1 and 0.7, as many passes each as --repeats. A ratio is that
of two passes that follow each other, packed over not packed: below 1, packing is faster. Five minutes on two cores; run
it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import torch
from showing import write_and_show

from spectrim import pack_weights
from spectrim.backbones import ast_base
from spectrim.machine import environment, torch_threads
from spectrim.measure.benchmark import interleaved, spread
from spectrim.network.transformer import AudioTransformer


def rows(model: AudioTransformer, batches: list[int], keep_rates: list[float], repeats: int) -> list[dict[str, Any]]:
    """One row a batch size and keep rate: both times and their ratio, each with its quartiles."""
    packed = pack_weights(model)
    if packed is model:
        raise SystemExit("nothing is packed on this machine: it is no x86-64 CPU, or torch lacks oneDNN")
    found = []
    for batch in batches:
        values = torch.randn(batch, model.config.max_length, model.config.num_mel_bins)
        for rate in keep_rates:
            with torch.inference_mode():
                cases = {
                    "not_packed": partial(model, values, keep_rate=rate),
                    "packed": partial(packed, values, keep_rate=rate),
                }
                times = interleaved(cases, repeats=repeats)
            ratios = [after / before for after, before in zip(times["packed"], times["not_packed"], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
            row = {"batch": batch, "keep_rate": rate, "ratio": middle, "ratio_q1": low, "ratio_q3": high}
            found.append({**row, **{name: spread(seconds) for name, seconds in times.items()}})
    return found


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--repeats", type=int, default=15, help="at least 2")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.manual_seed(0)
    model = AudioTransformer(ast_base(max_length=1024)).eval()
    with torch_threads(asked.threads):
        found = {"environment": environment(), "repeats": asked.repeats}
        found["rows"] = rows(model, [1, 8], [1.0, 0.7], asked.repeats)
    write_and_show(found, asked.json)


if __name__ == "__main__":
    main()
