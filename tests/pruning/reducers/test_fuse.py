"""EViT's fused token beside the public EViT code, its definition with loops, and every way in which a model is run."""

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
from spectrim.pruning.tokens import Tokens

EVIT = np.load(Path(__file__).parents[2] / "reference" / "evit.npz")
RATES = {2: 0.7, 5: 0.4, 8: 0.5}


@pytest.mark.parametrize("rate", [0.7, 0.5])
def test_tokens_and_gradients_are_those_of_the_public_code(rate: float) -> None:
    model = seeded_blocks(extra=1)
    plans = model.config.plan(64, Pruning(rate, criterion="cls_attention", reducer="fuse"), full_output=True)
    entering = uniform("tokens", (2, 65, 64), 7).double().requires_grad_()
    tokens = Tokens(entering, torch.arange(-1, 64).expand(2, -1), extra=1)
    counts = []
    for block, plan in zip(model.blocks, plans, strict=True):
        tokens = block(tokens.values, tokens, plan).tokens
        counts.append(tokens.values.shape[1] - 1)
    cls, patches = tokens.values[:, 0], tokens.values[:, 1:]
    assert counts == EVIT[f"{rate}/counts"].tolist() == [plan.patches_kept for plan in plans]
    (gradient,) = torch.autograd.grad((cls**2).sum() + (patches[:, -1] ** 2).sum(), entering)
    found = {
        "cls": cls,
        "fused": patches[:, -1],
        "sum": patches.sum(dim=1),
        "squares": (patches**2).sum(dim=1),
        "gradient": gradient[:, ::4, ::4],
    }
    for name, value in found.items():
        torch.testing.assert_close(value.detach(), torch.from_numpy(EVIT[f"{rate}/{name}"]), **EXACT)


def fused(step: Step) -> tuple[list[Token], dict[int, int]]:
    """The definition: the best go on as they are, the weighted sum of the others as one more token."""
    best = sorted(range(len(step.tokens)), key=lambda place: -step.scores[place].item())
    kept, lost = best[: step.count], best[step.count :]
    name = -1 - step.block
    token = Token(name, sum(step.scores[place] * step.tokens[place].values for place in lost))
    return [*(step.tokens[place] for place in kept), token], {step.tokens[place].name: name for place in lost}


def plain_fused(model: AudioTransformer, clip: Tensor, rates: Mapping[int, float], **fields) -> Plain:
    return plain_reduced(model, clip, rates, fused, **fields)


def fusing(backbone: str, **fields: object) -> AudioTransformer:
    """A model that fuses in three blocks."""
    given = {"reducer": "fuse", "prune_at": list(RATES), "keep_rate": list(RATES.values())}
    return small_model(backbone, **{**given, **fields})


@pytest.mark.parametrize("criterion", ["cls_attention", "mean_attention"])
@pytest.mark.parametrize("backbone", [*BACKBONES, "kwt"])
def test_every_token_is_that_of_the_definition(backbone: str, criterion: str) -> None:
    model = fusing(backbone, criterion=criterion)
    values = clips(model.config)
    with torch.no_grad():
        found = model(values, output_token_trace=True, output_hidden_states=True)
        short = model(values)
        for item in range(2):
            agree(found, item, plain_fused(model, values[item], RATES))
    torch.testing.assert_close(short.logits, found.logits, **EXACT)


@pytest.mark.parametrize("block", [0, 11])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_first_and_the_last_block_can_fuse(backbone: str, block: int) -> None:
    model = fusing(backbone, prune_at=[block], keep_rate=0.3)
    values = clips(model.config)
    with torch.no_grad():
        wanted = [plain_fused(model, clip, {block: 0.3}).logits for clip in values]
        torch.testing.assert_close(model(values).logits, torch.stack(wanted), **EXACT)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_gradients_of_all_weights_are_those_of_the_definition(backbone: str) -> None:
    model = fusing(backbone)
    assert_gradients(model, lambda clip, **seen: plain_fused(model, clip, RATES, **seen))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_clip_of_a_ragged_batch_is_as_if_alone(backbone: str) -> None:
    model = fusing(backbone, drop_padding=True)
    values, frames = clips(model.config, batch=4), torch.tensor([128, 17, 80, 0])
    with torch.no_grad():
        found = model(values, num_frames=frames, output_token_trace=True, output_hidden_states=True)
        for item, count in enumerate(frames.tolist()):
            real = {f * 8 + t for f in range(8) for t in range(8) if t == 0 or 16 * t < count}
            agree(found, item, plain_fused(model, values[item], RATES, visible=real))
            alone = model(values[item : item + 1], num_frames=frames[item : item + 1]).logits[0]
            torch.testing.assert_close(alone, found.logits[item], **EXACT)


def test_a_clip_too_short_to_lose_a_patch_gets_no_fused_token() -> None:
    """At rate 0.9 a clip of 8 patches keeps ceil(7.2): all; its neighbour of 64 fuses six."""
    model = fusing("audiomae", drop_padding=True, keep_rate=0.9, prune_at=[4])
    values, frames = clips(model.config), torch.tensor([128, 10])
    with torch.no_grad():
        found = model(values, num_frames=frames, output_token_trace=True, output_hidden_states=True)
        for item, real in enumerate((set(range(64)), {8 * f for f in range(8)})):
            agree(found, item, plain_fused(model, values[item], {4: 0.9}, visible=real))
    assert found.token_trace.kept[11][1].sum() == 8


@pytest.mark.parametrize("shares", [[0.0, 0.3], [0.9, 1.0]])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_removed_patches_are_fused_into_nobody(backbone: str, shares: list[float]) -> None:
    model = fusing(backbone)
    values = clips(model.config)
    draw = torch.rand((2, 2, 8, 8), generator=torch.Generator().manual_seed(3))
    flags = draw < torch.tensor(shares).reshape(1, 2, 1, 1)
    removed = {0: flags[0], 1: flags[1]}
    with torch.no_grad():
        found = model(values, removed=removed, output_token_trace=True, output_hidden_states=True)
        for item in range(2):
            gone = {block: indices(flags[item]) for block, flags in removed.items()}
            agree(found, item, plain_fused(model, values[item], RATES, removed=gone))
            alone = model(values[item : item + 1], removed={b: f[item : item + 1] for b, f in removed.items()})
            torch.testing.assert_close(alone.logits[0], found.logits[item], **EXACT)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_visible_patches_are_fused_alone(backbone: str) -> None:
    model = fusing(backbone)
    values = clips(model.config)
    visible = torch.stack([torch.randperm(64, generator=torch.Generator().manual_seed(s))[:20] for s in range(2)])
    with torch.no_grad():
        found = model(values, visible_patches=visible, output_token_trace=True, output_hidden_states=True)
        for item in range(2):
            agree(found, item, plain_fused(model, values[item], RATES, visible=set(visible[item].tolist())))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_dropped_patch_goes_on_in_the_last_token(backbone: str) -> None:
    model = fusing(backbone)
    values = clips(model.config)
    with torch.no_grad():
        output = model(values, output_token_trace=True, output_hidden_states=True)
    trace, before = output.token_trace, torch.ones(2, 8, 8, dtype=torch.bool)
    for block, (source, kept) in enumerate(zip(trace.source, trace.kept, strict=True)):
        length = output.hidden_states[block + 1].shape[1]
        assert (source >= model.config.extra_tokens).all() and (source < length).all()
        dropped = before & ~kept
        assert (source[dropped] == length - 1).all() and bool(dropped.any()) == (block in RATES)
        for item in range(2):
            own = source[item][kept[item]]
            assert len(own.unique()) == len(own)
            assert not set(own.tolist()) & set(source[item][~kept[item]].tolist())
        before = kept


@pytest.mark.parametrize("criterion", ["cls_attention", "mean_attention"])
@pytest.mark.parametrize(("at", "rate"), [((3, 6, 9), 0.7), ((0, 11), 0.3), ((11,), 0.5), ((5,), 0.999)])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_the_executed_count_is_what_torch_counts(backbone: str, at: tuple[int, ...], rate: float, criterion) -> None:
    pruning = Pruning(rate, at=at, criterion=criterion, reducer="fuse")
    assert_executed_is_counted(small_config(backbone), pruning)


@pytest.mark.parametrize("backbone", ONE_BACKBONE)
def test_compiles_as_one_graph(backbone: str) -> None:
    model = fusing(backbone)
    assert_compiles_as_one_graph(model)


@pytest.mark.parametrize("backbone", ONE_BACKBONE)
def test_an_exported_file_fuses_too(backbone: str, tmp_path: Path) -> None:
    model = tiny_model(backbone).set_pruning(reducer="fuse", keep_rate=0.5)
    assert_exported(model, tmp_path / "fuse.onnx", lambda clip: plain_fused(model, clip, {0: 0.5, 1: 0.5}))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_rate_of_one_fuses_nothing(backbone: str) -> None:
    model = small_model(backbone)
    values = clips(model.config)
    with torch.no_grad():
        dense = model(values, pruning=Pruning(1.0, reducer="fuse")).logits
        assert torch.equal(dense, model(values).logits)
        dropped = model(values, pruning=Pruning(0.5)).logits
        assert not torch.allclose(model(values, pruning=Pruning(0.5, reducer="fuse")).logits, dropped, rtol=1e-3)


@pytest.mark.parametrize(
    ("field_name", "fields"),
    [
        ("criterion", {"reducer": "fuse", "criterion": "intensity"}),
        ("criterion", {"reducer": "fuse", "criterion": "random"}),
        ("reducer", {"reducer": "fused"}),
        ("reducer", {"reducer": None}),
        ("reducer", {"reducer": "fuse", "criterion": "intensity", "reference_compat": True}),
    ],
)
def test_what_cannot_be_is_refused_by_name(field_name: str, fields: dict) -> None:
    model = small_model("ast")
    with pytest.raises(InvalidSetting) as error:
        model.set_pruning(Pruning(0.5, **fields))
    assert error.value.field == field_name and repr(fields[field_name]) in str(error.value)
    assert model.config.pruning == Pruning()
