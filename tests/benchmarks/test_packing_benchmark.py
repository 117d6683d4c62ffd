"""`benchmarks/packing.py` on a small model: rows are complete, and their ratios those of their times."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from spectrim.backbones import ast_base
from spectrim.network.transformer import AudioTransformer

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="nothing is packed without oneDNN")
def test_rows() -> None:
    from packing import rows

    sizes = {"hidden_size": 384, "intermediate_size": 768, "num_attention_heads": 6, "num_hidden_layers": 4}
    model = AudioTransformer(ast_base(**sizes, prune_at=[1], max_length=64)).eval()
    found = rows(model, [1, 2], [1.0, 0.7], 3)
    assert [(row["batch"], row["keep_rate"]) for row in found] == [(1, 1.0), (1, 0.7), (2, 1.0), (2, 0.7)]
    for row in found:
        assert 0 < row["ratio_q1"] <= row["ratio"] <= row["ratio_q3"]
        assert row["packed"]["q1_ms"] > 0 and row["not_packed"]["q1_ms"] > 0
