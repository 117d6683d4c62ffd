"""Patches that never enter (padding, masking), the public code's wrong gather, precision and memory."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import BACKBONES, CRITERIA, clips, layer_norm, linear, plain_forward, small_config, small_model
from torch.utils._python_dispatch import TorchDispatchMode

from spectrim.errors import InvalidSetting
from spectrim.network.transformer import AudioTransformer

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def real_patches(model: AudioTransformer, frames: int) -> set[int]:
    """Grid indices of the patches that hold at least one of the first ``frames`` frames; the first column always."""
    frequency, time = model.config.grid
    columns = [t for t in range(time) if t == 0 or t * model.config.time_stride < frames]
    return {f * time + t for f in range(frequency) for t in columns}


@pytest.mark.parametrize(("backbone", "criterion"), [(b, c) for b in BACKBONES for c in (*CRITERIA, "auto")])
def test_drop_padding_is_the_model_on_the_real_patches_alone(backbone: str, criterion: str) -> None:
    stride = 10 if criterion == "auto" else 16
    model = small_model(
        backbone, criterion=criterion, keep_rate=[0.7, 0.4], prune_at=[2, 8], drop_padding=True, time_stride=stride
    )
    values = clips(model.config, batch=5)
    frames = torch.tensor([128, 17, 80, 0, 500])
    ragged = model(values, num_frames=frames, output_token_trace=True)
    for item, count in enumerate(frames.tolist()):
        plain = plain_forward(model, values[item], visible=real_patches(model, count))
        torch.testing.assert_close(ragged.logits[item], plain.logits, **EXACT)
        for block in range(12):
            found = ragged.token_trace.kept[block][item].flatten().nonzero().flatten().tolist()
            assert set(found) == plain.kept[block]
            scored = ~ragged.token_trace.scores[block][item].flatten().isnan()
            assert set(scored.nonzero().flatten().tolist()) == set(plain.scores[block])
        alone = model(values[item : item + 1], num_frames=frames[item : item + 1]).logits[0]
        torch.testing.assert_close(alone, ragged.logits[item], rtol=0, atol=1e-10)


@settings(max_examples=15, deadline=None)
@given(frames=st.lists(st.integers(0, 140), min_size=1, max_size=4), keep_rate=st.floats(0.01, 1.0))
def test_ragged_counts(frames: list[int], keep_rate: float) -> None:
    model = RAGGED
    values = clips(model.config, batch=len(frames), dtype=torch.float32)
    trace = model(values, num_frames=torch.tensor(frames), keep_rate=keep_rate, output_token_trace=True).token_trace
    for item, count in enumerate(frames):
        alive = 8 * min(8, max(1, math.ceil(count / 16)))
        assert int(trace.kept[0][item].sum()) == alive
        for block in range(12):
            if block in model.config.prune_at:
                alive = math.ceil(keep_rate * alive)
            assert int(trace.kept[block][item].sum()) == alive


RAGGED = small_model("ast", dtype=torch.float32, drop_padding=True)


def test_drop_padding_with_full_clips_changes_nothing() -> None:
    for backbone in BACKBONES:
        model = small_model(backbone, keep_rate=0.6)
        values = clips(model.config)
        usual = model(values).logits
        model.set_pruning(drop_padding=True)
        torch.testing.assert_close(model(values, num_frames=torch.tensor([128, 113])).logits, usual, **EXACT)


def test_what_the_padding_holds_does_not_matter_once_it_is_dropped() -> None:
    for backbone in BACKBONES:
        model = small_model(backbone, keep_rate=0.6, drop_padding=True)
        values = clips(model.config)
        frames = torch.tensor([64, 32])
        other = values.clone()
        other[0, 64:], other[1, 32:] = 1e3, -1e3
        assert torch.equal(model(values, num_frames=frames).logits, model(other, num_frames=frames).logits)


@pytest.mark.parametrize("criterion", ["intensity", "variation"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_equal_scores_are_decided_by_the_clip_alone(backbone: str, criterion: str) -> None:
    """Digital silence ties exactly; a top-k over more patches, or for more clips, would pick others of it."""
    model = small_model(backbone, criterion=criterion, keep_rate=0.6)
    values = clips(model.config, batch=4)
    values[:, 30:] = -1.3
    frames = torch.tensor([128, 128, 70, 50])
    for drop_padding in (False, True):
        model.set_pruning(drop_padding=drop_padding)
        together = model(values, num_frames=frames, output_token_trace=True)
        for item in range(4):
            one = slice(item, item + 1)
            alone = model(values[one], num_frames=frames[one], output_token_trace=True)
            for kept, whole in zip(alone.token_trace.kept, together.token_trace.kept, strict=True):
                assert torch.equal(kept[0], whole[item])
            torch.testing.assert_close(alone.logits[0], together.logits[item], rtol=0, atol=1e-10)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_visible_patches_are_the_only_ones_that_enter(backbone: str, criterion: str) -> None:
    model = small_model(backbone, criterion=criterion, keep_rate=0.5)
    values = clips(model.config, batch=3)
    generator = torch.Generator().manual_seed(5)
    visible = torch.stack([torch.randperm(64, generator=generator)[:20] for _ in range(3)])
    out = model(values, visible_patches=visible, output_token_trace=True)
    for item in range(3):
        plain = plain_forward(model, values[item], visible=set(visible[item].tolist()))
        torch.testing.assert_close(out.logits[item], plain.logits, **EXACT)
        for block in range(12):
            kept = out.token_trace.kept[block][item].flatten().nonzero().flatten().tolist()
            assert set(kept) == plain.kept[block]
            scored = ~out.token_trace.scores[block][item].flatten().isnan()
            assert set(scored.nonzero().flatten().tolist()) == set(plain.scores[block])
    everything = torch.stack([torch.randperm(64, generator=generator) for _ in range(3)])
    torch.testing.assert_close(model(values, visible_patches=everything).logits, model(values).logits, **EXACT)


def test_masking_and_padding_together() -> None:
    for backbone in BACKBONES:
        model = small_model(backbone, keep_rate=0.5, drop_padding=True)
        values = clips(model.config, batch=2)
        visible = torch.tensor([[f * 8 + t for f in range(8) for t in times] for times in ((0, 3, 6), (4, 5, 7))])
        out = model(values, num_frames=torch.tensor([60, 40]), visible_patches=visible)
        first = plain_forward(model, values[0], visible={f * 8 + t for f in range(8) for t in (0, 3)})
        torch.testing.assert_close(out.logits[0], first.logits, **EXACT)
        nothing_real_is_visible = plain_forward(model, values[1], visible=set(visible[1].tolist()))
        torch.testing.assert_close(out.logits[1], nothing_real_is_visible.logits, **EXACT)


def wrong_gather(model: AudioTransformer, clip: torch.Tensor) -> torch.Tensor:
    """Logits as the public code computes them when it ranks by intensity or variation (REFERENCE section 6.2).

    The whole sequence, extra tokens included, is indexed with patch indices, highest score first.
    """
    config = model.config
    frequency, time = config.grid
    places = [(f, t) for f in range(frequency) for t in range(time)]
    if config.patch_order == "time_major":
        places = [(f, t) for t in range(time) for f in range(frequency)]
    patches = [clip[16 * t : 16 * t + 16, 16 * f : 16 * f + 16] for f, t in places]
    rank = torch.stack([p.mean() if config.criterion == "intensity" else p.std() for p in patches]).tolist()
    weights = dict(model.named_parameters())
    tokens = model.embeddings(clip[None])[0]
    rates = config.pruning.rates
    for number in range(config.num_hidden_layers):
        name = f"blocks.{number}"
        normed = layer_norm(tokens, weights, f"{name}.norm1", config.layer_norm_eps)
        key, value = linear(normed, weights, f"{name}.attention.key_value").chunk(2, dim=1)
        query = linear(normed, weights, f"{name}.attention.query")
        split = [part.unflatten(1, (config.num_attention_heads, -1)).transpose(0, 1) for part in (query, key, value)]
        maps = (split[0] @ split[1].transpose(1, 2) / math.sqrt(split[0].shape[-1])).softmax(dim=-1)
        tokens = tokens + linear((maps @ split[2]).transpose(0, 1).flatten(1), weights, f"{name}.attention.output")
        if rates.get(number, 1.0) < 1.0:
            count = math.ceil(rates[number] * (len(tokens) - config.extra_tokens))
            chosen = sorted(range(len(rank)), key=lambda place: -rank[place])[:count]
            tokens = torch.stack([tokens[place] for place in chosen])
            rank = [rank[place] for place in chosen]
        hidden = linear(layer_norm(tokens, weights, f"{name}.norm2", config.layer_norm_eps), weights, f"{name}.mlp.up")
        tokens = tokens + linear(torch.nn.functional.gelu(hidden), weights, f"{name}.mlp.down")
    if config.pooling == "extra_tokens":
        pooled = layer_norm(tokens, weights, "norm", config.layer_norm_eps)[:2].mean(dim=0)
        pooled = layer_norm(pooled, weights, "head.norm", config.head_norm_eps)
    else:
        pooled = layer_norm(tokens[1:].mean(dim=0), weights, "norm", config.layer_norm_eps)
    return linear(pooled, weights, "head.linear")


@pytest.mark.parametrize("criterion", ["intensity", "variation"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_reference_compat_is_the_wrong_gather(backbone: str, criterion: str) -> None:
    model = small_model(backbone, criterion=criterion, reference_compat=True)
    values = clips(model.config, batch=2)
    for keep_rate, blocks in ((0.7, [3, 6, 9]), (0.3, [3, 6, 9]), ([0.5, 0.9], [0, 11]), (1.0, [3])):
        model.set_pruning(keep_rate=keep_rate, prune_at=blocks)
        wrong = torch.stack([wrong_gather(model, clip) for clip in values])
        torch.testing.assert_close(model(values).logits, wrong, **EXACT)
    model.set_pruning(keep_rate=0.5)
    wrong = model(values).logits
    right = model.set_pruning(reference_compat=False)(values).logits
    assert (wrong - right).abs().max() > 1e-3


def test_reference_compat_keeps_the_patches_beside_the_chosen_ones() -> None:
    for backbone, step in (("ast", -2), ("audiomae", -8)):
        model = small_model(backbone, criterion="intensity", reference_compat=True, prune_at=[5], keep_rate=4 / 64)
        values = torch.zeros(1, 128, 128, dtype=torch.float64)
        chosen = [(2, 4), (3, 4), (5, 6), (6, 2)]
        for rank, (f, t) in enumerate(chosen):
            values[0, 16 * t : 16 * t + 16, 16 * f : 16 * f + 16] = 4.0 - rank
        kept = model(values, output_token_trace=True).token_trace.kept[-1][0]
        before = {(f, t + step) if backbone == "ast" else (f - 1, t) for f, t in chosen}
        assert {tuple(place) for place in kept.nonzero().tolist()} == before


def test_reference_compat_refuses_to_leave_nothing_for_the_head() -> None:
    for backbone in BACKBONES:
        model = small_model(backbone, criterion="intensity", reference_compat=True, keep_rate=0.1)
        with pytest.raises(InvalidSetting, match=r"keep_rate is 0\.1"):
            model(clips(model.config))


@pytest.mark.parametrize("drop_padding", [False, True])
@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_half_precision_runs_and_stays_close(backbone: str, criterion: str, drop_padding: bool) -> None:
    model = small_model(
        backbone, dtype=torch.float32, criterion=criterion, keep_rate=0.8, prune_at=[4], drop_padding=drop_padding
    )
    values = clips(model.config, dtype=torch.float32)
    frames = torch.tensor([128, 60])
    exact = model(values, num_frames=frames, output_token_trace=True)
    scale = exact.logits.abs().mean()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(values, num_frames=frames, output_token_trace=True)
        assert model.train()(values, num_frames=frames, keep_rate=1.0).logits.isfinite().all()
    found = {"autocast": out}
    for dtype in (torch.float16, torch.bfloat16):
        found[str(dtype)] = model.eval().to(dtype)(values, num_frames=frames, output_token_trace=True)
        assert found[str(dtype)].logits.dtype == dtype
        model.float()
    for name, out in found.items():
        error = (out.logits.float() - exact.logits).abs().max() / scale
        assert error < 0.5, (name, error)
        same = (out.token_trace.kept[-1] == exact.token_trace.kept[-1]).float().mean()
        assert same > 0.9, (name, same)
        assert all(scores.dtype == torch.float32 for scores in out.token_trace.scores)


def test_autocast_trains() -> None:
    for backbone in BACKBONES:
        model = small_model(backbone, dtype=torch.float32, keep_rate=0.5, drop_padding=True).train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = model(
                clips(model.config, dtype=torch.float32),
                labels=torch.tensor([1, 2]),
                num_frames=torch.tensor([99, 128]),
            ).loss
        loss.backward()
        for name, weight in model.named_parameters():
            if weight.requires_grad:
                assert weight.grad is not None and weight.grad.isfinite().all(), name


class LargestTensor(TorchDispatchMode):
    """Remember the largest tensor that an operation returns, in elements."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else (out,):
            if isinstance(value, torch.Tensor):
                self.elements = max(self.elements, value.numel())
        return out


@pytest.mark.parametrize("criterion", ["cls_attention", "mean_attention"])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_no_attention_map_is_ever_whole(backbone: str, criterion: str) -> None:
    config = small_config(backbone, max_length=1600, criterion=criterion, keep_rate=0.9, num_attention_heads=8)
    model = AudioTransformer(config).eval()
    values = clips(config, batch=2, dtype=torch.float32)
    largest = LargestTensor()
    with torch.no_grad(), largest:
        model(values, output_token_trace=True)
    tokens = 800 + config.extra_tokens
    assert largest.elements < 2 * 8 * tokens * tokens / 4


def test_states_nobody_asked_for_are_not_held() -> None:
    import weakref

    model = small_model("ast", dtype=torch.float32)
    alive: list[weakref.ref] = []
    most = 0

    def watch(module, args, out) -> None:
        nonlocal most
        alive.append(weakref.ref(out.values))
        most = max(most, sum(ref() is not None for ref in alive))

    for block in model.blocks:
        block.register_forward_hook(watch)
    with torch.no_grad():
        model(clips(model.config, dtype=torch.float32))
    assert most <= 2
