"""Any patches removed at any block, batched: the same as each clip alone with its patches gathered away."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import BACKBONES, clips, plain_forward, small_model

from spectrim.errors import InputShapeError, InvalidSetting
from spectrim.pruning.reducers import REDUCERS

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def flags_for(batch: int, seed: int, shares: list[float]) -> torch.Tensor:
    """(batch, 8, 8) bool with another share of flagged patches for each clip."""
    draw = torch.rand((batch, 8, 8), generator=torch.Generator().manual_seed(seed))
    return draw < torch.tensor(shares).reshape(-1, 1, 1)


def indices(flags: torch.Tensor) -> set[int]:
    return set(flags.flatten().nonzero().flatten().tolist())


@pytest.mark.parametrize("block", [0, 4, 10, 11])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_unequal_sets_of_a_dense_model_are_as_if_each_clip_were_alone(backbone: str, block: int) -> None:
    model = small_model(backbone)
    values = clips(model.config, batch=4)
    removed = {block: flags_for(4, block, [0.0, 0.3, 0.9, 1.0])}
    found = model(values, removed=removed, output_token_trace=True)
    dense = model(values).logits
    for item in range(4):
        gone = {number: indices(flags[item]) for number, flags in removed.items()}
        plain = plain_forward(model, values[item], removed=gone)
        torch.testing.assert_close(found.logits[item], plain.logits, **EXACT)
        for number in range(12):
            assert indices(found.token_trace.kept[number][item]) == plain.kept[number]
            scored = ~found.token_trace.scores[number][item].isnan()
            assert indices(scored) == set(plain.scores[number])
        changed = item in (1, 2) and not (backbone == "ast" and block == 11)
        assert torch.allclose(found.logits[item], dense[item], rtol=1e-6) != changed


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 99), shares=st.lists(st.floats(0.0, 1.0), min_size=2, max_size=3))
def test_several_blocks_of_a_model_that_prunes_and_drops_padding(seed: int, shares: list[float]) -> None:
    model = PRUNING[seed % 2]
    batch = len(shares)
    values = clips(model.config, batch=batch, seed=seed)
    frames = torch.tensor([128, 70, 33][:batch])
    removed = {block: flags_for(batch, seed + block, shares) for block in (1, 2)}
    found = model(values, num_frames=frames, removed=removed).logits
    for item in range(batch):
        columns = [t for t in range(8) if t * 16 < int(frames[item])]
        plain = plain_forward(
            model,
            values[item],
            visible={f * 8 + t for f in range(8) for t in columns},
            removed={block: indices(flags[item]) for block, flags in removed.items()},
        )
        torch.testing.assert_close(found[item], plain.logits, **EXACT)


PRUNING = [
    small_model(backbone, num_hidden_layers=4, prune_at=[1, 3], keep_rate=[0.7, 0.5], drop_padding=True)
    for backbone in BACKBONES
]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_nothing_is_changed_on_the_way(backbone: str) -> None:
    model = small_model(backbone, num_hidden_layers=2, prune_at=[0])
    values = clips(model.config)
    flags = flags_for(2, 0, [0.5, 0.5])
    kept = values.clone(), flags.clone()
    before = model(values).logits
    first = model(values, removed={0: flags}).logits
    assert torch.equal(model(values, removed={0: flags}).logits, first)
    assert torch.equal(values, kept[0]) and torch.equal(flags, kept[1])
    assert torch.equal(model(values).logits, before)
    assert torch.equal(model(values, removed={}).logits, before)


def test_what_cannot_be_removed_is_refused() -> None:
    model = small_model("ast", num_hidden_layers=2, prune_at=[0])
    values = clips(model.config)
    flags = flags_for(2, 0, [0.5, 0.5])
    with pytest.raises(InvalidSetting, match="removed is 2; allowed: block numbers from 0 to 1"):
        model(values, removed={2: flags})
    with pytest.raises(InputShapeError, match=r"removed\[1\] has shape \(1, 8, 8\)"):
        model(values, removed={1: flags[:1]})
    with pytest.raises(InputShapeError, match=r"torch\.float32"):
        model(values, removed={1: flags.float()})
    model.set_pruning(criterion="intensity", reference_compat=True)
    with pytest.raises(InvalidSetting, match="reference_compat"):
        model(values, removed={1: flags})


@pytest.mark.parametrize("reducer", [name for name, entry in REDUCERS.items() if entry.blends])
def test_patches_that_are_merged_already_are_refused(reducer: str) -> None:
    model = small_model("ast", num_hidden_layers=4, prune_at=[0, 2], keep_rate=[1.0, 0.5], reducer=reducer)
    values, flags = clips(model.config), flags_for(2, 0, [0.5, 0.5])
    wanted = rf"removed is \[2, 3\]; allowed: blocks before 2 with reducer='{reducer}'.*reducer=\"drop\""
    with pytest.raises(InvalidSetting, match=wanted):
        model(values, removed={1: flags, 2: flags, 3: flags})
    assert not torch.equal(model(values, removed={1: flags}).logits, model(values).logits)
    dense = model(values, keep_rate=1.0, removed={3: flags}, output_token_trace=True)
    assert torch.equal(~dense.token_trace.kept[3], flags)


def test_compiles_with_removed_patches() -> None:
    model = small_model("audiomae", num_hidden_layers=2, prune_at=[0])
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    values, removed = clips(model.config), {0: flags_for(2, 3, [0.4, 0.6])}
    with torch.no_grad():
        torch.testing.assert_close(compiled(values, removed=removed).logits, model(values, removed=removed).logits)
