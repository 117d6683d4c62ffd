"""Every backbone that is not trained here: pruning in it, beside the plain order of computing, and what comes of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from exported import noise
from full_size import full_size
from plain import OTHERS, clips, criteria_of, plain_forward, randomise, small_config, small_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from spectrim import Pruning, from_pretrained, macs
from spectrim.inference.onnx_export import export
from spectrim.network.transformer import AudioTransformer

EXACT = {"rtol": 1e-9, "atol": 1e-9}
AT = (1, 3, 5)
of_every_backbone = pytest.mark.parametrize("backbone", OTHERS)
THEIRS = [(backbone, criterion) for backbone in OTHERS for criterion in criteria_of(backbone)]


@pytest.mark.parametrize(("backbone", "criterion"), [*THEIRS, *((backbone, "variation") for backbone in OTHERS)])
def test_pruned_logits_scores_and_survivors_are_those_of_the_plain_order(backbone: str, criterion: str) -> None:
    model = small_model(backbone, criterion=criterion, prune_at=AT, num_hidden_layers=6)
    values = clips(model.config)
    with torch.no_grad():
        out = model(values, pruning=Pruning(0.6, AT, criterion), output_token_trace=True)
    for place, clip in enumerate(values):
        with torch.no_grad():
            plain = plain_forward(model, clip, dict.fromkeys(AT, 0.6))
        torch.testing.assert_close(out.logits[place], plain.logits, **EXACT)
        for block, scores in enumerate(plain.scores):
            found = out.token_trace.scores[block][place].flatten()
            assert set((~found.isnan()).nonzero().flatten().tolist()) == set(scores)
            wanted = torch.tensor([scores[patch] for patch in sorted(scores)], dtype=torch.float64)
            torch.testing.assert_close(found[sorted(scores)].double(), wanted, rtol=1e-5, atol=1e-6)
            kept = out.token_trace.kept[block][place].flatten().nonzero().flatten().tolist()
            assert set(kept) == plain.kept[block]


@pytest.mark.parametrize("reducer", ["drop", "fuse"])
@pytest.mark.parametrize(("backbone", "criterion"), [pair for pair in THEIRS if pair[1].endswith("_attention")])
def test_no_token_that_the_head_reads_depends_on_what_is_left_out(backbone: str, reducer: str, criterion: str) -> None:
    """With all of the last block computed the logits are the same: hidden states ask for that."""
    if reducer == "fuse" and small_config(backbone).relative_buckets:
        pytest.skip("a fused token has no place")
    model = small_model(backbone, num_hidden_layers=4, prune_at=[])
    pruning = Pruning(0.5, (1, 3), criterion, reducer)
    values = clips(model.config)
    with torch.no_grad():
        short, whole = model(values, pruning=pruning), model(values, pruning=pruning, output_hidden_states=True)
    torch.testing.assert_close(short.logits, whole.logits, **EXACT)
    assert whole.hidden_states[-1].shape[1] > 2


@of_every_backbone
def test_removed_padding_is_as_if_it_had_never_been(backbone: str) -> None:
    model = small_model(backbone, num_hidden_layers=4, drop_padding=True, keep_rate=0.5, prune_at=[1])
    config, values = model.config, clips(model.config)
    with torch.no_grad():
        found = model(values, num_frames=torch.tensor([config.max_length, 23])).logits
        real = -(-23 // config.time_stride)
        heard = {f * config.grid[1] + t for f in range(config.grid[0]) for t in range(real)}
        plain = plain_forward(model, values[1], {1: 0.5}, heard, silent=set(range(config.num_patches)) - heard)
    torch.testing.assert_close(found[1], plain.logits, **EXACT)


@pytest.mark.parametrize(("backbone", "criterion"), THEIRS)
def test_macs_are_what_torch_counts(backbone: str, criterion: str) -> None:
    config = small_config(backbone, criterion=criterion, keep_rate=0.5, num_hidden_layers=4, prune_at=[1, 3])
    with torch.device("meta"):
        model = AudioTransformer(config).eval()
        values = torch.zeros(1, config.max_length, config.num_mel_bins)
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(values)
    assert counter.get_total_flops() == 2 * macs(model).executed


@of_every_backbone
def test_training_reaches_every_weight(backbone: str) -> None:
    model = randomise(AudioTransformer(small_config(backbone, num_hidden_layers=3, keep_rate=0.5, prune_at=[1])))
    model.train().activation_checkpointing_enable()
    loss = model(clips(model.config, dtype=torch.float32), labels=torch.tensor([0, 3])).loss
    loss.backward()
    learnt = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert [name for name, weight in learnt.items() if weight.grad is None or not weight.grad.abs().sum()] == []


@pytest.mark.parametrize(
    "backbone", [name if name in ("beats", "ced") else pytest.param(name, marks=full_size) for name in OTHERS]
)
def test_exported_it_is_the_same(backbone: str, tmp_path: Path) -> None:
    """`export` itself compares with the model on the clips, two of which are shorter than the model's input."""
    model = small_model(backbone, dtype=torch.float32, num_hidden_layers=1, prune_at=[0], keep_rate=0.6)
    model.config.problem_type = "single_label_classification"
    waves = noise(rate=model.config.sampling_rate)
    written = export(model, tmp_path / "model.onnx", front_end=True, clips=waves)
    patches = model.config.num_patches
    assert written.patches == [patches, -(-6 * patches // 10)]
    assert written.parity.largest_difference < 1e-4 and written.parity.clips == 6


@of_every_backbone
def test_saved_and_loaded_it_prunes_as_before(backbone: str, tmp_path: Path) -> None:
    model = small_model(backbone, dtype=torch.float32, num_hidden_layers=2, prune_at=[1], keep_rate=0.6)
    model.save_pretrained(tmp_path)
    again = from_pretrained(tmp_path)
    values = clips(model.config, dtype=torch.float32)
    with torch.no_grad():
        assert torch.equal(again(values).logits, model(values).logits)
