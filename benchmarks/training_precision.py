"""What a training step in bfloat16 takes on this processor beside one in float32, step by step.

    python benchmarks/training_precision.py --threads 1 --json benchmarks/results/training_precision.json

Forward, backward and AdamW on random inputs of one second, at keep rates 1, 0.7 and 0.3: the model of the study on real
recordings (width 128, batches of 48) and AST-B/16 (batches of 8). A ratio is that of two steps that follow each other,
bfloat16 over float32: below 1, bfloat16 is faster. Processors without AMX or AVX512-BF16 emulate it. Three minutes on
one core.
"""

from __future__ import annotations

import argparse
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import torch
from showing import write_and_show

from spectrim import from_pretrained
from spectrim.backbones import ast_base
from spectrim.machine import environment, torch_threads
from spectrim.measure.benchmark import interleaved, spread
from spectrim.network.transformer import AudioTransformer

KEEP_RATES = (1.0, 0.7, 0.3)


def step(
    model: AudioTransformer, optimiser: torch.optim.Optimizer, values: torch.Tensor, rate: float, kind: str
) -> None:
    """One step, as Trainer takes it: a forward pass under autocast, the rest in float32."""
    labels = torch.arange(len(values)) % model.config.num_labels
    with torch.autocast("cpu", torch.bfloat16, enabled=kind == "bf16"):
        loss = model(values, labels=labels, keep_rate=rate).loss
    assert loss is not None
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    optimiser.zero_grad()


def rows(name: str, model: AudioTransformer, batch: int, keep_rates: tuple[float, ...], repeats: int) -> list[Any]:
    """One row a keep rate: both times and their ratio, each with its quartiles."""
    model.train()
    values = torch.randn(batch, model.config.max_length, model.config.num_mel_bins)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4)
    found = []
    for rate in keep_rates:
        cases = {kind: partial(step, model, optimiser, values, rate, kind) for kind in ("fp32", "bf16")}
        times = interleaved(cases, repeats=repeats)
        ratios = [half / whole for half, whole in zip(times["bf16"], times["fp32"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        row = {"model": name, "batch": batch, "keep_rate": rate, "ratio": middle, "ratio_q1": low, "ratio_q3": high}
        found.append({**row, **{kind: spread(seconds) for kind, seconds in times.items()}})
    return found


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=15, help="at least 2")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.manual_seed(0)
    with torch_threads(asked.threads):
        found = {"environment": environment(), "repeats": asked.repeats, "threads": asked.threads}
        found["amx"] = torch.cpu.get_capabilities().get("amx_bf16")
        found["rows"] = [
            *rows("spectrim-words", from_pretrained("spectrim-words"), 48, KEEP_RATES, asked.repeats),
            *rows("AST-B/16, 1 s", AudioTransformer(ast_base(max_length=128)), 8, KEEP_RATES, asked.repeats),
        ]
    write_and_show(found, asked.json)


if __name__ == "__main__":
    main()
