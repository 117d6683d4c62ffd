"""AST-B/16 on 10 s beside transformers' own AST, in turn in one run: does every saved MAC save time?

Random weights: speed does not depend on them. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import torch
from transformers import ASTConfig, ASTForAudioClassification

from spectrim import benchmark
from spectrim.config import ast_base
from spectrim.counting import macs
from spectrim.model import AudioTransformer
from spectrim.whole import write_json

KEEP_RATES = (1.0, 0.7, 0.5)


def main() -> None:
    """Time both models and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--frames", type=int, default=1024)
    options = parser.parse_args()
    torch.manual_seed(0)
    ours = AudioTransformer(ast_base(num_labels=527, max_length=options.frames)).eval()
    theirs = ASTForAudioClassification(
        ASTConfig(num_labels=527, max_length=options.frames, frequency_stride=16, time_stride=16),
    ).eval()
    theirs.set_attn_implementation("sdpa")
    rows = [row for batch in options.batch_sizes for row in measure(ours, theirs, batch, options.repeats)]
    facts = {
        "frames": options.frames,
        "repeats": options.repeats,
        "environment": benchmark.environment(),
    }
    write_json(options.json, {**facts, "rows": rows})


def measure(ours: AudioTransformer, theirs: torch.nn.Module, batch: int, repeats: int) -> list[dict[str, Any]]:
    """Rows for one batch size: transformers' AST, then ours at each keep rate."""
    inputs = torch.randn(batch, ours.config.max_length, ours.config.num_mel_bins)

    def dense() -> object:
        with torch.inference_mode():
            return theirs(inputs)

    def pruned(rate: float) -> Any:
        def call() -> object:
            with torch.inference_mode():
                return ours(inputs, keep_rate=rate)

        return call

    cases = {"transformers, sdpa": dense, **{f"spectrim, r={rate}": pruned(rate) for rate in KEEP_RATES}}
    seconds = benchmark.interleaved(cases, repeats=repeats, warmup=1)
    reference = statistics.median(seconds["transformers, sdpa"])
    own_dense = statistics.median(seconds[f"spectrim, r={KEEP_RATES[0]}"])
    executed = {f"spectrim, r={rate}": macs(ours, keep_rate=rate).executed for rate in KEEP_RATES}
    most = max(executed.values())
    return [
        {
            "case": name,
            "batch_size": batch,
            **benchmark.spread(times),
            "speed_up_over_transformers": reference / statistics.median(times),
            "speed_up_over_own_dense": own_dense / statistics.median(times),
            "executed_macs_ratio": most / executed[name] if name in executed else None,
        }
        for name, times in seconds.items()
    ]


if __name__ == "__main__":
    main()
