"""`benchmarks/training_precision.py` on a small model: rows are complete, and a step moves the weights alike."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import torch
from torch.nn.utils import parameters_to_vector

from spectrim.backbones import ast_base
from spectrim.network.transformer import AudioTransformer

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))


def test_rows_and_steps() -> None:
    from training_precision import rows, step

    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2}
    model = AudioTransformer(ast_base(**sizes, prune_at=[1], max_length=128, num_labels=3))
    before, values = copy.deepcopy(model), torch.randn(2, 128, 128)
    after = {kind: copy.deepcopy(model) for kind in ("fp32", "bf16")}
    for kind, copied in after.items():
        step(copied, torch.optim.SGD(copied.parameters(), lr=0.1), values, 0.5, kind)
    start = parameters_to_vector(before.parameters())
    moved = {kind: parameters_to_vector(copied.parameters()) - start for kind, copied in after.items()}
    assert moved["fp32"].norm() > 0
    assert (moved["bf16"] - moved["fp32"]).norm() < 0.1 * moved["fp32"].norm()
    found = rows("small", model, 2, (1.0, 0.5), 2)
    assert [(row["batch"], row["keep_rate"]) for row in found] == [(2, 1.0), (2, 0.5)]
    assert all(0 < row["ratio_q1"] <= row["ratio"] <= row["ratio_q3"] for row in found)
    assert all(row[kind]["median_ms"] > 0 for row in found for kind in ("fp32", "bf16"))
