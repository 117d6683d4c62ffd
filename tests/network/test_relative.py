"""Positions by distance and by convolution: the buckets of a public model, and places that patches keep."""

from __future__ import annotations

import pytest
import torch
from plain import clips, plain_forward, small_config, small_model
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

from spectrim import Pruning, macs
from spectrim.backbones import ast_base, beats_base
from spectrim.config import SpectrimConfig
from spectrim.errors import InvalidSetting
from spectrim.network.relative import distance_buckets
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.trace import grid_order


@pytest.mark.parametrize(("buckets", "furthest"), [(320, 800), (320, 1280), (32, 128), (16, 40), (4, 2)])
@pytest.mark.parametrize("patches", [1, 48, 1500])
def test_buckets_are_those_of_wavlm(patches: int, buckets: int, furthest: int) -> None:
    public = WavLMAttention(32, 4, num_buckets=buckets, max_distance=furthest)
    wanted = public._relative_positions_bucket(torch.arange(1 - patches, patches))
    assert distance_buckets(patches, buckets, furthest) == tuple(wanted.tolist())


@torch.no_grad()
def test_a_patch_keeps_the_place_that_it_had() -> None:
    """What distances add between some patches is what they added between them when all were there."""
    model = small_model("beats", num_hidden_layers=1, prune_at=[])
    order = grid_order(model.config.grid, "time_major").expand(2, -1)
    whole = model.embeddings.relative_bias(order, alike=True)
    assert whole.pairs.shape == (1, 4, 64, 64) and whole.following(order) is whole
    index = torch.rand(2, 64, generator=torch.Generator().manual_seed(0)).argsort(dim=1)[:, :20]
    left = whole.following(order.gather(1, index))
    for clip, places in enumerate(index):
        assert torch.equal(left.pairs[clip], whole.pairs[0][:, places][:, :, places])
        assert torch.equal(whole.rows(left.patches)[clip], whole.pairs[0][:, places])
    some = model.embeddings.relative_bias(left.patches, alike=False)
    assert torch.equal(some.pairs, left.pairs)
    assert whole.pairs.std() > 0.1 and not torch.equal(whole.pairs, whole.pairs.transpose(2, 3))


@torch.no_grad()
def test_clips_of_a_batch_do_not_see_each_other() -> None:
    """Each keeps other patches at other places."""
    model = small_model("beats", num_hidden_layers=3, prune_at=[0, 1], keep_rate=0.5)
    values = clips(model.config, batch=3)
    together = model(values, output_attentions=True)
    for place, clip in enumerate(values):
        alone = model(clip[None], output_attentions=True)
        torch.testing.assert_close(together.logits[place], alone.logits[0], rtol=1e-9, atol=1e-9)
    assert [shown.shape[2:] for shown in together.attentions] == [(32, 64), (16, 32), (16, 16)]
    torch.testing.assert_close(together.attentions[0].sum(-1), torch.ones(3, 4, 32, dtype=torch.float64))


@torch.no_grad()
def test_patches_that_a_predictor_drops_are_as_if_never_asked_for() -> None:
    """The predictor's block comes first here: what it leaves is all that attention sees, the convolution saw all."""
    model = small_model("beats", num_hidden_layers=2, prune_at=[0], predictor_blocks=[0], max_length=46)
    values = clips(model.config)
    out = model(values, pruning=Pruning(0.5, (0,), reducer="dynamicvit"), output_token_trace=True)
    kept = torch.stack([flags.flatten().nonzero().flatten() for flags in out.token_trace.kept[0]])
    assert kept.shape == (2, 8)
    alone = model(values, visible_patches=kept).logits
    torch.testing.assert_close(out.logits, alone, rtol=1e-9, atol=1e-9)
    plain = plain_forward(model, values[1], {}, visible=set(kept[1].tolist()))
    torch.testing.assert_close(alone[1], plain.logits, rtol=1e-9, atol=1e-9)


def test_masked_by_a_predictor_while_training_all_keep_their_place() -> None:
    model = small_model("beats", num_hidden_layers=2, prune_at=[0], predictor_blocks=[0], max_length=46).train()
    torch.manual_seed(0)
    out = model(clips(model.config), torch.tensor([0, 3]), pruning=Pruning(0.5, (0,), reducer="dynamicvit"))
    assert 0 < out.decisions[-1].sum() < 32
    (out.loss + out.decisions[-1].mean()).backward()
    learnt = {name: weight.grad for name, weight in model.named_parameters()}
    assert learnt["embeddings.relative_positions"].abs().sum() > 0 and learnt["blocks.0.predictor.decide.bias"].any()


def test_a_share_of_the_attention_can_be_kept() -> None:
    model = small_model("beats", num_hidden_layers=2, prune_at=[0])
    with torch.no_grad():
        out = model(clips(model.config), pruning=Pruning(0.1, (0,), attention_mass=0.9), output_token_trace=True)
    for scores, kept in zip(out.token_trace.scores[0], out.token_trace.kept[0], strict=True):
        assert 7 < kept.sum() < 64 and scores[kept].sum() >= 0.9 * scores.sum() - 1e-6


def test_published_sizes() -> None:
    """90 M parameters in the paper's table 1; 10 s are 62 × 8 patches."""
    config = beats_base(num_labels=527)
    with torch.device("meta"):
        model = AudioTransformer(config)
    assert round(sum(weight.numel() for weight in model.parameters()) / 1e6) in (90, 91)
    assert (config.grid, config.num_patches, config.head_reads) == ((8, 62), 496, "patches")
    assert macs(config, keep_rate=0.5).executed < 0.6 * macs(config, keep_rate=1.0).executed


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"extra_tokens": 1}, "extra_tokens is 1; allowed: 0 with position_kernel"),
        ({"separate_positions": True}, "separate_positions is True; allowed: False with position_kernel"),
        ({"norm_first": True}, "deep_norm is True; allowed: False with norm_first"),
        ({"position_groups": 5}, "position_groups is 5; allowed: a divisor of 64"),
        ({"relative_buckets": 18}, "a multiple of 4"),
        ({"relative_distance": 4}, "above 4 with relative_buckets=16"),
        ({"criterion": "cls_attention"}, r"no \[CLS\] whose attention could rank"),
        ({"reducer": "merge"}, "a token made of several has no place"),
    ],
)
def test_what_does_not_go_together_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(InvalidSetting, match=message):
        small_config("beats", **fields)


def test_another_backbone_may_have_no_extra_token() -> None:
    config = ast_base(extra_tokens=0, pooling="mean_patches", criterion="mean_attention")
    assert isinstance(config, SpectrimConfig) and config.encoder.extra == 0
    with pytest.raises(InvalidSetting, match=r"pooling is 'extra_tokens'.*with extra_tokens=0"):
        ast_base(extra_tokens=0)
