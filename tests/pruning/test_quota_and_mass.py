"""A quota for parts of a clip, and as many patches as hold a share of the attention: in every way a model is run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from exported import noise, tiny_model
from full_size import ONE_BACKBONE
from plain import BACKBONES, clips, plain_forward, small_config, small_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from spectrim import Pruning, from_pretrained, macs
from spectrim.audio.frontend import Frontend
from spectrim.errors import InvalidSetting
from spectrim.inference.onnx_export import export
from spectrim.network.transformer import AudioTransformer

EXACT = {"rtol": 1e-9, "atol": 1e-9}
POINTS = [
    *({"time_segments": 4, "criterion": name, "keep_rate": 0.6} for name in ("auto", "variation", "random")),
    {"time_segments": 3, "keep_rate": [0.9, 0.5, 0.3]},
    {"attention_mass": 0.8, "keep_rate": 0.2},
    {"attention_mass": 0.5, "keep_rate": [0.3, 0.01, 0.2], "criterion": "mean_attention", "prune_at": [0, 5, 11]},
]
KINDS = [*BACKBONES, "kwt"]


def named(point: dict) -> str:
    return "-".join(str(value) for value in point.values())


@pytest.mark.parametrize("backbone", KINDS)
@pytest.mark.parametrize("point", POINTS, ids=named)
def test_logits_and_survivors_are_those_of_the_plain_order(backbone: str, point: dict) -> None:
    model = small_model(backbone, **point)
    values = clips(model.config, batch=3)
    with torch.no_grad():
        out = model(values, output_token_trace=True)
        for item, clip in enumerate(values):
            plain = plain_forward(model, clip)
            torch.testing.assert_close(out.logits[item], plain.logits, **EXACT)
            for block, kept in enumerate(out.token_trace.kept):
                assert set(kept[item].flatten().nonzero().flatten().tolist()) == plain.kept[block]
            alone = model(values[item : item + 1]).logits[0]
            torch.testing.assert_close(alone, out.logits[item], **EXACT)


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("point", [POINTS[1], POINTS[3], POINTS[4]], ids=named)
def test_padding_and_removed_patches_take_no_part(backbone: str, point: dict) -> None:
    model = small_model(backbone, drop_padding=True, **point)
    values, frames = clips(model.config, batch=4), torch.tensor([128, 17, 80, 0])
    removed = torch.zeros(4, 8, 8, dtype=torch.bool)
    removed[:, 2] = True
    gone = {1: {2 * 8 + t for t in range(8)}}
    with torch.no_grad():
        out = model(values, num_frames=frames, removed={1: removed}, output_token_trace=True)
        for item, count in enumerate(frames.tolist()):
            real = {f * 8 + t for f in range(8) for t in range(8) if t == 0 or 16 * t < count}
            plain = plain_forward(model, values[item], visible=real, removed=gone)
            torch.testing.assert_close(out.logits[item], plain.logits, **EXACT)
            for block, kept in enumerate(out.token_trace.kept):
                assert set(kept[item].flatten().nonzero().flatten().tolist()) == plain.kept[block]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_gradients_are_those_of_the_plain_order(backbone: str) -> None:
    model = small_model(backbone, attention_mass=0.7, keep_rate=0.2)
    values, weights = clips(model.config), [weight for weight in model.parameters() if weight.requires_grad]
    plain = torch.stack([plain_forward(model, clip).logits for clip in values])
    wanted = torch.autograd.grad((plain**2).sum(), weights)
    found = torch.autograd.grad((model.train()(values).logits ** 2).sum(), weights)
    for theirs, ours in zip(wanted, found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-8)


def counted(model: AudioTransformer, values: torch.Tensor) -> float:
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(values)
    return counter.get_total_flops() / 2


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("criterion", ["cls_attention", "mean_attention"])
def test_macs_of_a_clip_are_what_torch_counts_and_lie_between_the_bounds(backbone: str, criterion: str) -> None:
    model = small_model(backbone, criterion=criterion, attention_mass=0.8, keep_rate=0.2, dtype=torch.float32)
    values = clips(model.config, batch=3, dtype=torch.float32)
    with torch.no_grad():
        trace = model(values, output_token_trace=True).token_trace
    kept = torch.stack([block.flatten(1).sum(dim=1) for block in trace.kept])
    bounds = macs(model)
    for item in range(3):
        count = macs(model, kept=kept[:, item].tolist())
        assert macs(model, kept=kept[:, item].numpy().astype(np.int32)) == count
        assert count.executed == counted(model, values[item : item + 1])
        assert bounds.least.executed < count.executed < bounds.executed
        assert count.patches == tuple(kept[:, item].tolist())
    assert 3 * macs(model, kept=kept.amax(dim=1).tolist()).executed == counted(model, values)
    assert bounds.least == macs(model, pruning=Pruning(0.2, criterion=criterion))
    assert macs(model, pruning=Pruning(0.999, criterion=criterion)).executed == bounds.executed


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_quota_costs_no_multiplication(backbone: str) -> None:
    plain, quota = (small_config(backbone, keep_rate=0.6, time_segments=parts) for parts in (1, 4))
    with torch.device("meta"):
        model = AudioTransformer(quota).eval()
    assert macs(plain) == macs(quota)
    assert macs(quota).executed == counted(model, torch.zeros(1, 128, 128, device="meta"))


@pytest.mark.parametrize("backbone", ONE_BACKBONE)
def test_a_quota_compiles_as_one_graph_and_a_mass_in_parts(backbone: str) -> None:
    model = small_model(backbone)
    values = clips(model.config)
    for point, whole in ((Pruning(0.6, time_segments=4), True), (Pruning(0.2, attention_mass=0.8), False)):
        torch.compiler.reset()
        compiled = torch.compile(model, fullgraph=whole, backend="eager")
        with torch.no_grad():
            torch.testing.assert_close(
                compiled(values, pruning=point).logits, model(values, pruning=point).logits, **EXACT
            )
    torch.compiler.reset()


def test_an_exported_file_keeps_the_quota(tmp_path: Path) -> None:
    model = tiny_model("audiomae", time_segments=4, keep_rate=0.5)
    export(model, tmp_path / "quota.onnx", clips=noise())
    values = Frontend.from_config(model.config)(noise()[:3]).input_values
    session = onnxruntime.InferenceSession(tmp_path / "quota.onnx", providers=["CPUExecutionProvider"])
    logits, stages = session.run(["logits", "kept"], {"input_values": values.numpy()})
    for item, clip in enumerate(values):
        with torch.no_grad():
            plain = plain_forward(model, clip)
        np.testing.assert_allclose(logits[item], plain.logits, atol=1e-4)
        assert stages[item].flatten().tolist() == [sum(p in kept for kept in plain.kept) for p in range(32)]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_fused_token_is_of_no_part_and_a_clip_does_not_depend_on_others(backbone: str) -> None:
    model = small_model(backbone, reducer="fuse", time_segments=4, keep_rate=0.5)
    values = clips(model.config, batch=3)
    with torch.no_grad():
        out = model(values, output_token_trace=True)
        for item in range(3):
            torch.testing.assert_close(model(values[item : item + 1]).logits[0], out.logits[item], **EXACT)
    for block, plan in ((block, model.config.plan()[block]) for block in (3, 6, 9)):
        parts = out.token_trace.kept[block].unflatten(2, (4, 2)).sum(dim=(1, 3))
        assert parts.sum(dim=1).eq(plan.survivors).all()
        assert (parts.amax(dim=1) - parts.amin(dim=1)).max() <= 1


def test_settings_are_saved_and_found_again(tmp_path: Path) -> None:
    model = small_model("ast", dtype=torch.float32, keep_rate=0.4, time_segments=4)
    model.save_pretrained(tmp_path)
    assert from_pretrained(tmp_path).config.pruning == Pruning(0.4, time_segments=4)
    changed = from_pretrained(tmp_path, time_segments=1, attention_mass=0.9).config.pruning
    assert changed == Pruning(0.4, attention_mass=0.9)


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("time_segments", {"time_segments": 9}),
        ("time_segments", {"time_segments": 2, "reducer": "merge"}),
        ("time_segments", {"time_segments": 2, "criterion": "intensity", "reference_compat": True}),
        ("time_segments", {"time_segments": 2, "attention_mass": 0.5}),
        ("criterion", {"attention_mass": 0.5, "criterion": "variation"}),
        ("criterion", {"attention_mass": 0.5, "criterion": "cls_head_median"}),
        ("criterion", {"attention_mass": 0.5, "criterion": "cls_attention_so_far"}),
        ("criterion", {"reducer": "fuse", "criterion": "cls_attention_so_far"}),
        ("reducer", {"attention_mass": 0.5, "reducer": "fuse"}),
    ],
)
def test_what_cannot_be_is_refused_by_name(field: str, fields: dict) -> None:
    model = small_model("ast")
    for attempt in (lambda: model.set_pruning(keep_rate=0.5, **fields), lambda: macs(model, pruning=Pruning(**fields))):
        with pytest.raises(InvalidSetting) as error:
            attempt()
        assert error.value.field == field
    assert model.config.pruning == Pruning()


def test_counts_that_no_clip_can_have_are_refused() -> None:
    config = small_config("ast", keep_rate=0.5, attention_mass=0.5)
    for kept in ([64] * 11, [64, 60, *[32] * 10], [64] * 3 + [31] * 9, [64] * 3 + [40] * 3 + [41] * 6):
        with pytest.raises(InvalidSetting, match="kept"):
            macs(config, kept=kept)
    with pytest.raises(InvalidSetting, match="without attention_mass"):
        macs(small_config("ast", keep_rate=0.5), kept=[64] * 12)
