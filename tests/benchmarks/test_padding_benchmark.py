"""`benchmarks/padding.py` on small models: rows are complete and agree with each other."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from spectrim.assets import packaged_clips
from spectrim.backbones import ast_base
from spectrim.checkpoints import from_pretrained
from spectrim.inference.torch_model import TorchModel
from spectrim.network.transformer import AudioTransformer

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))


def test_rows() -> None:
    from padding import answers, times

    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2}
    model = AudioTransformer(ast_base(**sizes, prune_at=[1], max_length=128)).eval()
    found = times(model, 40, [1, 2], 2)
    assert [(row["batch"], row["keep_rate"]) for row in found] == [(1, 1.0), (1, 0.7), (2, 1.0), (2, 0.7)]
    assert all(0 < row["ratio_q1"] <= row["ratio"] <= row["ratio_q3"] for row in found)
    trained = TorchModel(from_pretrained("spectrim-mini"))
    clips = packaged_clips()[:12]
    whole, half = (answers(trained, clips, share)[0] for share in (1.0, 0.5))
    assert whole["frames"] == pytest.approx(2 * half["frames"], abs=3)
    assert whole["accuracy_with_padding"] > half["accuracy_with_padding"]
    assert whole["same_label"] * 12 == pytest.approx(round(whole["same_label"] * 12))
    assert whole["median_difference"] > 0
