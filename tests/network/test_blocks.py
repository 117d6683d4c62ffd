"""The parts of the encoder, each against its definition."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from plain import BACKBONES, CRITERIA, IN_BLOCKS, layer_norm, linear, small_config, small_model

from spectrim.network import blocks
from spectrim.network.blocks import MLP, Attention, Block, DropPath, Head, Wanted
from spectrim.pruning.reducers import Keep
from spectrim.pruning.tokens import Tokens

EXACT = {"rtol": 1e-10, "atol": 1e-10}


def entering(values: torch.Tensor, extra: int, rank: torch.Tensor | None = None) -> Tokens:
    """Tokens of patches that are named by their places."""
    places = torch.arange(-extra, values.shape[1] - extra).clamp(min=-1)
    return Tokens(values, places.expand(len(values), -1), extra, rank)


def test_attention_with_fewer_queries_is_a_part_of_the_whole() -> None:
    attention = Attention(small_config("ast")).double()
    tokens = torch.randn(2, 10, 64, dtype=torch.float64)
    keys, values = attention.keys_values(tokens)
    assert keys.shape == values.shape == (2, 4, 10, 16)
    whole = attention(attention.queries(tokens), keys, values, None)
    some = [7, 0, 3]
    torch.testing.assert_close(
        attention(attention.queries(tokens[:, some]), keys, values, None), whole[:, some], **EXACT
    )
    weights = dict(attention.named_parameters())
    key, value = linear(tokens, weights, "key_value").chunk(2, dim=-1)
    query = linear(tokens, weights, "query")
    heads = [
        (query[..., part] @ key[..., part].transpose(1, 2) / 4.0).softmax(dim=-1) @ value[..., part]
        for part in (slice(16 * head, 16 * head + 16) for head in range(4))
    ]
    torch.testing.assert_close(whole, linear(torch.cat(heads, dim=-1), weights, "output"), **EXACT)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_in_bfloat16_has_the_gradients_of_float32(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    attention = Attention(small_config("ast"))
    tokens = torch.randn(2, 66, 64)
    mask = torch.zeros(2, 1, 1, 66).masked_fill_(torch.rand(2, 1, 1, 66) < 0.3, -torch.inf) if masked else None

    def gradient(precision: torch.dtype) -> torch.Tensor:
        leaf = tokens.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == torch.bfloat16):
            attention(attention.queries(leaf), *attention.keys_values(leaf), mask).square().sum().backward()
        assert leaf.grad is not None
        return leaf.grad

    exact = gradient(torch.float32)
    monkeypatch.setattr(blocks.functional, "scaled_dot_product_attention", None)
    rounded = gradient(torch.bfloat16)
    assert (rounded - exact).norm() < 0.02 * exact.norm()


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_pruning_block_is_the_dense_block_at_the_survivors(backbone: str, criterion: str) -> None:
    config = small_config(backbone, criterion=criterion, keep_rate=0.4, prune_at=[3])
    block = small_model(backbone).blocks[3]
    extra = config.extra_tokens
    plan = config.plan(64)[3]
    dense = dataclasses.replace(plan, patches_kept=64, keep_rate=1.0, reducer=Keep())
    rank = None if criterion in IN_BLOCKS else torch.rand(2, 64)
    tokens = entering(torch.randn(2, extra + 64, 64, dtype=torch.float64), extra, rank)
    before = tokens.values.clone()
    out, whole = block(tokens.values, tokens, plan), block(tokens.values, tokens, dense, Wanted(True, True))
    assert torch.equal(tokens.values, before)
    stayed = out.tokens.alive
    assert stayed.shape == (2, 26) and torch.equal(whole.tokens.alive, tokens.alive)
    for item in range(2):
        scores = whole.scores[item] if rank is None else rank[item]
        assert set(stayed[item].tolist()) == set(scores.argsort(descending=True)[:26].tolist())
        wanted = torch.cat([whole.values[item, :extra], whole.values[item, extra:][stayed[item]]])
        torch.testing.assert_close(out.values[item], wanted, **EXACT)
    for emits, part in (("extra", slice(0, extra)), ("patches", slice(extra, None))):
        short = block(tokens.values, tokens, dataclasses.replace(plan, emits=emits))
        torch.testing.assert_close(short.values, out.values[:, part], **EXACT)
        assert torch.equal(short.tokens.alive, stayed)
    if criterion in ("cls_attention", "mean_attention"):
        columns = whole.attention[:, :, :1] if criterion == "cls_attention" else whole.attention[:, :, extra:]
        torch.testing.assert_close(whole.scores, columns[..., extra:].mean(dim=(1, 2)), **EXACT)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_empty_slots_are_as_if_they_were_not_there(criterion: str) -> None:
    config = small_config("ast", criterion=criterion, keep_rate=0.5, prune_at=[0])
    block = small_model("ast").blocks[0]
    values = torch.randn(2, 2 + 20, 64, dtype=torch.float64)
    rank = None if criterion in IN_BLOCKS else torch.rand(2, 20)
    valid = torch.ones(2, 20, dtype=torch.bool)
    valid[1, 13:] = False
    out = block(values, entering(values, 2, rank)._replace(valid=valid), config.plan(20)[0])
    assert out.tokens.valid.sum(dim=1).tolist() == [10, 7]
    part = values[1:, :15]
    alone = block(part, entering(part, 2, None if rank is None else rank[1:, :13]), config.plan(13)[0])
    ours = dict(zip(out.tokens.alive[1].tolist(), out.values[1, 2:], strict=True))
    kept = [
        place for place, good in zip(out.tokens.alive[1].tolist(), out.tokens.valid[1].tolist(), strict=True) if good
    ]
    assert set(kept) == set(alone.tokens.alive[0].tolist())
    torch.testing.assert_close(out.values[1, :2], alone.values[0, :2], **EXACT)
    for place, token in zip(alone.tokens.alive[0].tolist(), alone.values[0, 2:], strict=True):
        torch.testing.assert_close(ours[place], token, **EXACT)


def test_scores_send_no_gradient_back() -> None:
    for criterion in IN_BLOCKS:
        config = small_config("ast", criterion=criterion, keep_rate=0.5, prune_at=[0])
        block = Block(config, 0.0)
        values = torch.randn(1, 22, 64, requires_grad=True)
        assert not block(values, entering(values, 2), config.plan(20)[0], Wanted(scores=True)).scores.requires_grad


def test_stochastic_depth_drops_whole_clips_and_keeps_the_mean() -> None:
    drop = DropPath(0.3)
    branch = torch.randn(4000, 3, 5)
    torch.manual_seed(0)
    out = drop.train()(branch)
    gone = (out == 0).all(dim=2).all(dim=1)
    assert gone.float().mean().item() == pytest.approx(0.3, abs=0.03)
    torch.testing.assert_close(out[~gone], branch[~gone] / 0.7)
    assert torch.equal(drop.eval()(branch), branch)
    assert torch.equal(DropPath(0.0).train()(branch), branch)


def test_the_mlp_and_the_head_are_their_formulas() -> None:
    config = small_config("ast", intermediate_size=96)
    mlp, head = MLP(config).double(), Head(config).double()
    tokens = torch.randn(2, 7, 64, dtype=torch.float64)
    hidden = linear(tokens, dict(mlp.named_parameters()), "up")
    assert hidden.shape[-1] == 96
    hidden = hidden * 0.5 * (1.0 + torch.erf(hidden / 2**0.5))
    torch.testing.assert_close(mlp(tokens), linear(hidden, dict(mlp.named_parameters()), "down"), **EXACT)
    weights = dict(head.named_parameters())
    wanted = linear(layer_norm(tokens[:, 0], weights, "norm", config.head_norm_eps), weights, "linear")
    torch.testing.assert_close(head(tokens[:, 0]), wanted, **EXACT)
    bare = Head(small_config("audiomae")).double()
    torch.testing.assert_close(
        bare(tokens[:, 0]), linear(tokens[:, 0], dict(bare.named_parameters()), "linear"), **EXACT
    )


def test_stochastic_depth_falls_on_both_branches_one_by_one() -> None:
    """With rate 0.5 a clip has each branch either not at all or twice."""
    block = Block(small_config("ast"), 0.5).double().train()
    plan = small_config("ast").plan(20)[0]
    clip = torch.randn(1, 22, 64, dtype=torch.float64)
    torch.manual_seed(0)
    many = clip.expand(64, -1, -1)
    out = block(many, entering(many, 2), plan).values
    normed = block.norm1(clip)
    attended = block.attention(block.attention.queries(normed), *block.attention.keys_values(normed), None)
    found = 0
    for attention, mlp in ((0, 0), (0, 2), (2, 0), (2, 2)):
        middle = clip + attention * attended
        wanted = middle + mlp * block.mlp(block.norm2(middle))
        same = int(((out - wanted).abs().amax(dim=(1, 2)) < 1e-10).sum())
        assert same > 5
        found += same
    assert found == 64


def test_the_mlp_in_pieces_is_the_mlp(monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces where nothing is learnt, and whole where there is a backward pass, which needs all of it."""
    torch.manual_seed(0)
    mlp, tokens = MLP(small_config("ast")).double(), torch.randn(3, 37, 64, dtype=torch.float64)
    seen: list[int] = []
    mlp.up.register_forward_hook(lambda module, given, out: seen.append(out.numel() // out.shape[-1]))
    monkeypatch.setattr(blocks, "MLP_ROWS", 20)
    whole = mlp(tokens)
    with torch.no_grad():
        pieces = mlp(tokens)
    assert seen == [111, *[19] * 3, *[18] * 3] and whole.requires_grad
    torch.testing.assert_close(pieces, whole.detach(), **EXACT)
