"""Multiply-accumulates against the published figures and against torch's own counter."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from plain import BACKBONES, CRITERIA, small_config
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import ASTConfig, ASTForAudioClassification

from spectrim.backbones import ast_base, audiomae_base
from spectrim.config import SpectrimConfig
from spectrim.errors import InvalidSetting
from spectrim.network.macs import macs
from spectrim.network.transformer import AudioTransformer

PUBLISHED = [
    (ast_base, {"max_length": 1024, "num_labels": 527}, {1.0: 48.63, 0.9: 41.86, 0.8: 36.11, 0.7: 31.28}),
    (ast_base, {"max_length": 1024, "num_labels": 527}, {0.6: 27.18, 0.5: 23.73, 0.4: 20.92, 0.3: 18.65}),
    (audiomae_base, {"max_length": 128, "num_labels": 35}, {1.0: 5.61, 0.5: 2.81}),
]
"""Giga-MACs of the paper, which this count meets to the last printed digit."""


@pytest.mark.parametrize(("build", "fields", "figures"), PUBLISHED, ids=["ast-high", "ast-low", "audiomae-spc2"])
def test_the_papers_count_is_the_published_one(build, fields: dict, figures: dict[float, float]) -> None:
    for keep_rate, giga in figures.items():
        assert macs(build(**fields, keep_rate=keep_rate)).paper / 1e9 == pytest.approx(giga, abs=0.01)


def test_published_figures_that_are_met_only_nearly() -> None:
    """Where the paper prints more than the formula gives: AudioMAE on ESC-50 (by 0.014 G) and AST at stride 10."""
    esc = {rate: macs(audiomae_base(max_length=512, num_labels=50), keep_rate=rate).paper / 1e9 for rate in (1.0, 0.5)}
    assert esc[1.0] == pytest.approx(23.11, abs=0.015) and esc[0.5] == pytest.approx(11.37, abs=0.015)
    dense = ast_base(frequency_stride=10, time_stride=10, num_labels=527)
    assert macs(dense).paper / 1e9 == pytest.approx(130.5, abs=0.05)
    assert macs(dense, keep_rate=0.5).paper / 1e9 == pytest.approx(62.4, abs=0.05)


def counted(model: torch.nn.Module, config: SpectrimConfig, batch: int = 1) -> float:
    """MACs that torch counts on the model as it runs: no clip, only shapes."""
    values = torch.zeros(batch, config.max_length, config.num_mel_bins, device="meta")
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(values)
    return counter.get_total_flops() / 2


def on_meta(config: SpectrimConfig) -> AudioTransformer:
    with torch.device("meta"):
        return AudioTransformer(config).eval()


EXECUTED = [
    *({"criterion": criterion, "keep_rate": 0.7} for criterion in CRITERIA),
    {"keep_rate": 1.0},
    {"keep_rate": 0.3, "prune_at": [0, 11]},
    {"keep_rate": [0.9, 0.5, 0.25, 1.0], "prune_at": [1, 2, 11, 5]},
    {"keep_rate": 0.6, "prune_at": [11], "criterion": "mean_attention"},
    {"keep_rate": 0.6, "prune_at": [11], "criterion": "cls_attention"},
    {"keep_rate": 0.6, "prune_at": [11], "criterion": "intensity"},
    {"keep_rate": 0.7, "frequency_stride": 10, "time_stride": 10, "criterion": "mean_attention"},
    {"keep_rate": 0.5, "criterion": "intensity", "reference_compat": True},
    {"keep_rate": 0.5, "intermediate_size": 96, "num_labels": 500},
    {"keep_rate": 0.5, "max_length": 640},
]


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("fields", EXECUTED, ids=lambda fields: "-".join(str(value) for value in fields.values()))
def test_the_executed_count_is_what_torch_counts(backbone: str, fields: dict) -> None:
    config = small_config(backbone, **fields)
    model = on_meta(config)
    count = macs(model)
    assert count.executed == counted(model, config)
    assert 3 * count.executed == counted(model, config, batch=3)
    assert count == macs(config)
    assert count.executed == count.embedding + sum(count.executed_blocks) + count.head


@pytest.mark.parametrize(("build", "keep_rate"), [(ast_base, 0.7), (audiomae_base, 0.5), (audiomae_base, 1.0)])
def test_published_sizes_are_counted_as_they_run(build, keep_rate: float) -> None:
    config = build(keep_rate=keep_rate, num_labels=527)
    assert macs(config).executed == counted(on_meta(config), config)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("keep_rate", [1.0, 0.7])
def test_a_clip_without_its_padding_is_counted_as_it_runs(backbone: str, keep_rate: float) -> None:
    config = small_config(backbone, keep_rate=keep_rate, drop_padding=True)
    model = AudioTransformer(config).eval()
    with torch.no_grad():
        trace = model(torch.zeros(1, 128, 128), num_frames=torch.tensor([40]), output_token_trace=True).token_trace
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 128, 128), num_frames=torch.tensor([40]))
    entering = int((~trace.scores[0].isnan()).sum())
    assert entering == 3 * 8
    assert counter.get_total_flops() == 2 * macs(model, entering=entering).executed
    assert macs(model, entering=64) == macs(model)
    for kind in (np.int64, np.uint8, torch.tensor):
        assert macs(model, kind(128), entering=kind(entering)) == macs(model, 128, entering=entering)
    for wrong in (0, 65, 2.5, True, np.float64(24.0), np.True_, "24"):
        with pytest.raises(InvalidSetting, match=r"entering is .*from 1 to 64"):
            macs(model, entering=wrong)
    with pytest.raises(InvalidSetting, match="entering is 24; allowed: None without drop_padding"):
        macs(small_config(backbone), entering=24)


def test_the_whole_cut_is_counted_when_a_run_has_weights() -> None:
    config = small_config("ast", keep_rate=0.7)
    model = AudioTransformer(config).eval()
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 128, 128))
    assert counter.get_total_flops() == 2 * macs(model).executed


@pytest.mark.parametrize("stride", [16, 10])
def test_the_papers_dense_count_is_what_torch_counts_on_another_ast(stride: int) -> None:
    """The eager AST of transformers computes every token in every block, as the formula does."""
    sizes = {"hidden_size": 96, "num_attention_heads": 3, "intermediate_size": 384, "num_hidden_layers": 12}
    shape = {"max_length": 1024, "num_mel_bins": 128, "frequency_stride": stride, "time_stride": stride}
    with torch.device("meta"):
        other = ASTForAudioClassification(ASTConfig(**sizes, **shape, num_labels=527, attn_implementation="eager"))
    config = ast_base(**sizes, **shape, num_labels=527)
    assert macs(config).paper == counted(other.eval(), config)


def test_counts_per_block() -> None:
    width, before, after = 768, 512 + 2, 359 + 2
    count = macs(ast_base(keep_rate=0.7, num_labels=527))
    assert len(count.paper_blocks) == len(count.executed_blocks) == len(count.patches) == 12
    assert count.patches == (512,) * 3 + (359,) * 3 + (252,) * 3 + (177,) * 3
    dense = 4 * before * width**2 + 2 * before**2 * width
    assert count.paper_blocks[2] == dense + 8 * before * width**2 == count.executed_blocks[2]
    assert count.paper_blocks[3] == dense + 8 * after * width**2
    assert count.embedding == 512 * 256 * width and count.head == 527 * width
    assert count.executed < count.paper
    assert all(ours <= theirs for ours, theirs in zip(count.executed_blocks, count.paper_blocks, strict=True))
    dense_count = macs(ast_base(num_labels=527))
    assert dense_count.executed_blocks[:11] == dense_count.paper_blocks[:11]


def test_another_length_and_another_rate_can_be_asked_for() -> None:
    assert macs(ast_base(), 512) == macs(ast_base(max_length=512))
    assert macs(ast_base(), keep_rate=[0.9, 0.5, 0.4]) == macs(ast_base(keep_rate=[0.9, 0.5, 0.4]))
    for frames in (15, 0, -1, 100.0, True, "128"):
        with pytest.raises(InvalidSetting, match="frames"):
            macs(ast_base(), frames)
    with pytest.raises(InvalidSetting, match="keep_rate"):
        macs(ast_base(), keep_rate=1.5)


def test_what_is_no_model_is_named() -> None:
    with pytest.raises(InvalidSetting, match=r"model_or_config is 'spectrim-mini'; allowed: a model, or its config"):
        macs("spectrim-mini")
