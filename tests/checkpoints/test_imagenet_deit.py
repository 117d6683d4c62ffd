"""AST's start from pictures, beside its published steps written out: sum the colours, then fit time, then frequency."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from checkpoint_files import imagenet_deit, save
from torch import Tensor

from spectrim.checkpoints import describe, from_pretrained
from spectrim.errors import CheckpointError

LABELS = ["a", "b", "c"]


def along_time(rows: Tensor, size: int) -> Tensor:
    """(F, T, width) to another T: the middle columns, or linear interpolation between the centres of the old ones."""
    there = rows.shape[1]
    if size <= there:
        return rows[:, there // 2 - size // 2 :][:, :size]
    places = ((torch.arange(size) + 0.5) * there / size - 0.5).clamp(0, there - 1)
    below = places.floor().long()
    above = (below + 1).clamp(max=there - 1)
    share = (places - below)[None, :, None]
    return rows[:, below] * (1 - share) + rows[:, above] * share


@pytest.mark.parametrize(("side", "frames"), [(24, None), (24, 128), (14, 512), (4, 64)])
def test_a_picture_model_becomes_an_ast(side: int, frames: int | None, tmp_path: Path) -> None:
    state = imagenet_deit(side=side)
    model = from_pretrained(save(tmp_path, {"model": state}), labels=LABELS, frames=frames)
    ours, time = model.state_dict(), (frames or 1024) // 16
    assert (model.config.backbone, model.config.grid, model.config.num_mel_bins) == ("ast", (8, time), 128)
    colours = state["patch_embed.proj.weight"]
    assert torch.allclose(ours["embeddings.projection.weight"][:, 0], colours[:, 0] + colours[:, 1] + colours[:, 2])
    grid = state["pos_embed"][0, 2:].reshape(side, side, 64)
    grid = along_time(along_time(grid, time).transpose(0, 1), 8).transpose(0, 1)
    table = torch.cat([state["pos_embed"][0, :2], grid.reshape(8 * time, 64)])
    assert torch.allclose(ours["embeddings.position_table"][0], table, atol=1e-6)
    for token in ("cls_token", "dist_token"):
        assert torch.equal(ours[f"embeddings.{token}"], state[token])
    assert torch.equal(ours["norm.weight"], state["norm.weight"])
    query, key_value = state["blocks.1.attn.qkv.weight"].split([64, 128])
    assert torch.equal(ours["blocks.1.attention.query.weight"], query)
    assert torch.equal(ours["blocks.1.attention.key_value.weight"], key_value)
    assert ours["head.linear.weight"].shape == (3, 64)
    assert ours["head.norm.weight"].unique().tolist() == [1.0]
    assert torch.isfinite(model(torch.zeros(1, frames or 1024, 128)).logits).all()


def test_its_heads_are_not_ours_and_every_other_weight_must_fit(tmp_path: Path) -> None:
    state = imagenet_deit()
    path = save(tmp_path, state)
    facts = describe(path)
    assert (facts["layout"], facts["labels"], facts["max_length"], facts["num_mel_bins"]) == (
        *("imagenet-deit", 0, 1024, 128),
    )
    with pytest.raises(CheckpointError, match="an encoder without a head; give labels="):
        from_pretrained(path)
    changes: dict[str, dict[str, Tensor]] = {
        r"Missing: norm\.bias": {name: value for name, value in state.items() if name != "norm.bias"},
        r"Unexpected: extra\.weight": {**state, "extra.weight": torch.zeros(2)},
        "575 positions are no square": {**state, "pos_embed": state["pos_embed"][:, 1:]},
    }
    for words, changed in changes.items():
        with pytest.raises(CheckpointError, match=words):
            from_pretrained(save(tmp_path, changed, "changed.pth"), labels=LABELS)
