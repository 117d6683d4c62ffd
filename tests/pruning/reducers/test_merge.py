"""ToMe's merging beside its public code, its definition with loops, and every way in which a model is run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from exported import tiny_model
from full_size import ONE_BACKBONE
from plain import BACKBONES, clips, small_config, small_model
from reduced import (
    EXACT,
    Plain,
    Step,
    Token,
    agree,
    assert_compiles_as_one_graph,
    assert_executed_is_counted,
    assert_exported,
    assert_gradients,
    indices,
    plain_reduced,
    seeded_blocks,
)
from seeded import uniform
from torch import Tensor

from spectrim import Pruning
from spectrim.errors import InvalidSetting
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.reducers.merge import destinations
from spectrim.pruning.tokens import Tokens
from spectrim.pruning.trace import grid_order

RECORDED = Path(__file__).parents[2] / "reference"
TOME, BLOCKS = np.load(RECORDED / "tome.npz"), np.load(RECORDED / "tome_blocks.npz")
RATES = {2: 0.7, 5: 0.5, 8: 0.6}
RECORDED_CASES = {"cls": (1, Pruning(0.7, reducer="merge")), "dist": (2, Pruning.merging(64, 4, depth=12))}


@pytest.mark.parametrize("case", sorted({key.rpartition("/")[0] for key in TOME}))
def test_one_merge_is_that_of_the_public_code(case: str) -> None:
    count, merged, extra = map(int, case.split("/"))
    keys, values = uniform(f"metric-{count}", (2, count, 16), 7), uniform(f"tokens-{count}", (2, count, 8), 7)
    sizes = (uniform(f"sizes-{count}", (2, count), 7).abs() * 4).floor() + 1
    tokens = Tokens(values, torch.arange(-extra, count - extra).expand(2, -1), extra, size=sizes[:, extra:])
    found = tokens.merge(destinations(keys, extra, merged), count - extra - merged)
    np.testing.assert_allclose(found.values.numpy(), TOME[f"{case}/tokens"], rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(found.size.numpy(), TOME[f"{case}/sizes"][:, extra:, 0])


def test_a_clip_of_which_none_is_merged_keeps_its_places() -> None:
    keys = uniform("keys", (2, 10, 4), 7)
    found = destinations(keys, 2, torch.tensor([[0], [2]]), torch.ones(2, 8, dtype=torch.bool))
    assert found[0].tolist() == list(range(10))
    assert found[1].tolist() == destinations(keys[1:], 2, 2)[0].tolist() and len(set(found[1].tolist())) == 8


@pytest.mark.parametrize("case", RECORDED_CASES)
def test_tokens_sizes_carriers_and_gradients_are_those_of_the_public_code(case: str) -> None:
    extra, pruning = RECORDED_CASES[case]
    model = seeded_blocks(extra)
    plans = model.config.plan(64, pruning, full_output=True)
    entering = uniform("tokens", (2, 64 + extra, 64), 7).double().requires_grad_()
    places = torch.arange(extra, extra + 64).expand(2, -1)
    tokens = Tokens(entering, torch.arange(-extra, 64).clamp(min=-1).expand(2, -1), extra, source=places)
    for block, plan, count in zip(model.blocks, plans, BLOCKS[f"{case}/counts"], strict=True):
        tokens = block(tokens.values, tokens, plan).tokens
        assert tokens.alive.shape[1] == plan.patches_kept == count
    mean = tokens.pool(torch.nn.Identity(), "patches")
    (gradient,) = torch.autograd.grad((tokens.values[:, 0] ** 2).sum() + (mean**2).sum(), entering)
    found = {"tokens": tokens.values[:, :, ::4], "mean": mean, "gradient": gradient[:, ::4, ::4]}
    for name, value in found.items():
        torch.testing.assert_close(value.detach(), torch.from_numpy(BLOCKS[f"{case}/{name}"]), **EXACT)
    np.testing.assert_array_equal(tokens.size.numpy(), BLOCKS[f"{case}/sizes"][:, extra:])
    np.testing.assert_array_equal(tokens.source.numpy(), BLOCKS[f"{case}/carrier"][:, extra:])


def merged(extra: int, step: Step) -> tuple[list[Token], dict[int, int]]:
    """The definition: the most similar pairs of a patch at an even and one at an odd place become their mean."""
    places = range(extra, extra + len(step.tokens))
    even, odd = [p for p in places if p % 2 == 0], [p for p in places if p % 2 == 1]
    alike = torch.nn.functional.cosine_similarity(step.keys[:, None], step.keys[None], dim=-1)
    partner = {p: max(odd, key=lambda q: alike[p, q].item()) for p in even}
    going = sorted(even, key=lambda p: -alike[p, partner[p]].item())[: len(step.tokens) - step.count]
    groups = [[p] for p in even if p not in going] + [[q, *(p for p in going if partner[p] == q)] for q in odd]
    after, moved = [], {}
    for number, group in enumerate(groups):
        tokens = [step.tokens[p - extra] for p in group]
        name = tokens[0].name if len(group) == 1 else -1 - 1000 * step.block - number
        size = sum(token.size for token in tokens)
        after.append(Token(name, sum(token.size * token.values for token in tokens) / size, size))
        moved |= {token.name: name for token in tokens}
    return after, moved


def plain_merged(model: AudioTransformer, clip: Tensor, rates: Mapping[int, float], **fields) -> Plain:
    return plain_reduced(model, clip, rates, lambda step: merged(model.config.extra_tokens, step), **fields)


def merging(backbone: str, **fields: object) -> AudioTransformer:
    """A model that merges in three blocks."""
    given = {"reducer": "merge", "prune_at": list(RATES), "keep_rate": list(RATES.values())}
    return small_model(backbone, **{**given, **fields})


@pytest.mark.parametrize(
    "rates", [RATES, dict.fromkeys(range(12), 0.9), {0: 0.5}, {11: 0.6}], ids=["three", "every", "first", "last"]
)
@pytest.mark.parametrize("backbone", [*BACKBONES, "kwt"])
def test_every_token_is_that_of_the_definition(backbone: str, rates: dict[int, float]) -> None:
    model = merging(backbone, prune_at=list(rates), keep_rate=list(rates.values()))
    values = clips(model.config)
    with torch.no_grad():
        found = model(values, output_token_trace=True, output_hidden_states=True)
        short = model(values)
        for item in range(2):
            agree(found, item, plain_merged(model, values[item], rates))
    torch.testing.assert_close(short.logits, found.logits, **EXACT)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_gradients_of_all_weights_are_those_of_the_definition(backbone: str) -> None:
    model = merging(backbone)
    assert_gradients(model, lambda clip, **seen: plain_merged(model, clip, RATES, **seen))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_clip_of_a_ragged_batch_is_as_if_alone(backbone: str) -> None:
    model = merging(backbone, drop_padding=True)
    values, frames = clips(model.config, batch=4), torch.tensor([128, 17, 80, 0])
    with torch.no_grad():
        found = model(values, num_frames=frames, output_token_trace=True, output_hidden_states=True)
        for item, count in enumerate(frames.tolist()):
            real = {f * 8 + t for f in range(8) for t in range(8) if t == 0 or 16 * t < count}
            agree(found, item, plain_merged(model, values[item], RATES, visible=real))
            alone = model(values[item : item + 1], num_frames=frames[item : item + 1]).logits[0]
            torch.testing.assert_close(alone, found.logits[item], **EXACT)


@pytest.mark.parametrize("shares", [[0.0, 0.3], [0.9, 1.0]])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_removed_patches_are_merged_into_nobody(backbone: str, shares: list[float]) -> None:
    model = merging(backbone)
    values = clips(model.config)
    draw = torch.rand((2, 2, 8, 8), generator=torch.Generator().manual_seed(3))
    flags = draw < torch.tensor(shares).reshape(1, 2, 1, 1)
    removed = {0: flags[0], 1: flags[1]}
    with torch.no_grad():
        found = model(values, removed=removed, output_token_trace=True, output_hidden_states=True)
        for item in range(2):
            gone = {block: indices(flags[item]) for block, flags in removed.items()}
            agree(found, item, plain_merged(model, values[item], RATES, removed=gone))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_visible_patches_are_merged_alone(backbone: str) -> None:
    model = merging(backbone)
    values = clips(model.config)
    order = grid_order(model.config.grid, model.config.patch_order)
    draws = [torch.randperm(64, generator=torch.Generator().manual_seed(seed))[:20] for seed in range(2)]
    visible = torch.stack([order[draw.sort().values] for draw in draws])
    with torch.no_grad():
        found = model(values, visible_patches=visible, output_token_trace=True, output_hidden_states=True)
        for item in range(2):
            agree(found, item, plain_merged(model, values[item], RATES, visible=set(visible[item].tolist())))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_no_patch_is_lost_and_sizes_add_up(backbone: str) -> None:
    model = merging(backbone, prune_at=list(range(12)), keep_rate=0.8)
    values = clips(model.config)
    with torch.no_grad():
        encoded = model.encode(values, token_trace=True)
    last = encoded.token_trace.source[-1].flatten(1)
    for item in range(2):
        counted = torch.bincount(last[item] - model.config.extra_tokens, minlength=encoded.tokens.size.shape[1])
        assert torch.equal(counted.double(), encoded.tokens.size[item])
        own = encoded.token_trace.kept[-1][item].flatten()
        assert torch.equal(own, (counted == 1)[last[item] - model.config.extra_tokens])
    assert encoded.tokens.size.sum(dim=1).tolist() == [64.0, 64.0]


@pytest.mark.parametrize(("at", "rate"), [((3, 6, 9), 0.7), ((0, 11), 0.5), (tuple(range(12)), 0.93), ((5,), 0.999)])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_executed_count_is_what_torch_counts(backbone: str, at: tuple[int, ...], rate: float) -> None:
    pruning = Pruning(rate, at=at, reducer="merge")
    assert_executed_is_counted(small_config(backbone), pruning)


@pytest.mark.parametrize("backbone", ONE_BACKBONE)
def test_compiles_as_one_graph(backbone: str) -> None:
    model = merging(backbone)
    assert_compiles_as_one_graph(model)


@pytest.mark.parametrize("backbone", ONE_BACKBONE)
def test_an_exported_file_merges_too(backbone: str, tmp_path: Path) -> None:
    model = tiny_model(backbone).set_pruning(reducer="merge", keep_rate=0.6)
    assert_exported(model, tmp_path / "merge.onnx", lambda clip: plain_merged(model, clip, {0: 0.6, 1: 0.6}))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_rate_of_one_merges_nothing(backbone: str) -> None:
    model = small_model(backbone)
    values = clips(model.config)
    with torch.no_grad():
        assert torch.equal(model(values, pruning=Pruning(1.0, reducer="merge")).logits, model(values).logits)
        dropped = model(values, pruning=Pruning(0.5)).logits
        assert not torch.allclose(model(values, pruning=Pruning(0.5, reducer="merge")).logits, dropped, rtol=1e-3)


@pytest.mark.parametrize(("patches", "each", "depth"), [(512, 16, 12), (512, 40, 12), (64, 4, 12), (100, 7, 24)])
def test_so_many_a_block_leave(patches: int, each: int, depth: int) -> None:
    config = small_config("ast", num_hidden_layers=depth)
    pruning = Pruning.merging(patches, each, depth=depth)
    left = patches
    for plan in config.plan(patches, pruning):
        left -= min(each, left // 2)
        assert plan.patches_kept == left


def test_no_patch_cannot_be_merged() -> None:
    assert Pruning.merging(1, 4, depth=2).keep_rate == (1.0, 1.0)
    with pytest.raises(InvalidSetting, match="patches is 0; allowed: a whole number, at least 1"):
        Pruning.merging(0, 4)


@pytest.mark.parametrize(
    ("field_name", "fields"),
    [
        ("criterion", {"criterion": "intensity"}),
        ("criterion", {"criterion": "cls_attention"}),
        ("keep_rate", {"keep_rate": 0.4}),
        ("keep_rate", {"keep_rate": (0.7, 0.7, 0.45)}),
        ("reducer", {"criterion": "intensity", "reference_compat": True}),
    ],
)
def test_what_cannot_be_is_refused_by_name(field_name: str, fields: dict) -> None:
    model = small_model("ast")
    with pytest.raises(InvalidSetting) as error:
        model.set_pruning(Pruning(**{"keep_rate": 0.5, "reducer": "merge", **fields}))
    assert error.value.field == field_name
    assert model.config.pruning == Pruning()
