"""Scores against formulas written out, for any chunking, mask and type."""

from __future__ import annotations

import math
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from spectrim.backbones import ast_tiny
from spectrim.errors import InputShapeError
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.criteria import CRITERIA, Criterion, attention
from spectrim.pruning.criteria.attention import (
    Projections,
    attention_map,
    cls_attention,
    cls_head_median,
    cls_weighted_norm,
    cls_without_sinks,
    mean_attention,
    value_norm,
)
from spectrim.pruning.criteria.spectrogram import Spectrogram, intensity, random_scores, regular, variation
from spectrim.pruning.pruning import Pruning

ATTENTION = [name for name, criterion in CRITERIA.items() if criterion.reads_attention]


def drawn(batch: int, patches: int, seed: int, *, training: bool = False) -> Tensor:
    """Random scores of clips of so many patches of one frame and mel bin, in a row."""
    return random_scores(Spectrogram(torch.zeros(batch, patches, 1), (1, 1), 1, 1, seed, training)).flatten(1)


def projections(patches: int, extra: int, heads: int = 3, batch: int = 2) -> Projections:
    """Some of a block, with value vectors of very different lengths."""
    generator = torch.Generator().manual_seed(patches)
    shape = (batch, heads, extra + patches, 5)
    queries, keys = (2.0 * torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return Projections(queries, keys, keys.flip(2).exp(), extra)


def of_class(block: Projections) -> Projections:
    """The same with the query of [CLS] alone."""
    return block._replace(queries=block.queries[:, :, :1])


def whole_map(queries: Tensor, keys: Tensor, seen: Tensor | None = None) -> np.ndarray:
    """(batch, heads, q, n) attention in NumPy, with columns that are not seen at zero."""
    logits = np.einsum("bhqd,bhkd->bhqk", queries.numpy(), keys.numpy()) / np.sqrt(queries.shape[-1])
    powers = np.exp(logits)
    if seen is not None:
        powers = powers * seen.numpy()[:, None, None, :]
    return powers / powers.sum(axis=-1, keepdims=True)


def additive(seen: Tensor) -> Tensor:
    return torch.zeros(seen.shape, dtype=torch.float64).masked_fill(~seen, -torch.inf)[:, None, None]


def test_the_map_is_the_softmax_of_scaled_products() -> None:
    queries, keys = projections(9, 2)[:2]
    found = attention_map(queries, keys)
    np.testing.assert_allclose(found.numpy(), whole_map(queries, keys), rtol=1e-12)
    seen = torch.ones(2, 11, dtype=torch.bool)
    seen[0, 5:8] = False
    masked = attention_map(queries, keys, additive(seen)).numpy()
    np.testing.assert_allclose(masked, whole_map(queries, keys, seen), rtol=1e-12)
    assert (masked[0, :, :, 5:8] == 0).all()


@pytest.mark.parametrize("extra", [1, 2])
@pytest.mark.parametrize("patches", [1, 2, 127, 128, 129, 300])
def test_scores_are_the_unchunked_formula(patches: int, extra: int) -> None:
    block = projections(patches, extra)
    whole = whole_map(block.queries, block.keys)
    by_class = whole[:, :, 0, extra:].mean(axis=1)
    by_patches = whole[:, :, extra:, extra:].mean(axis=(1, 2))
    np.testing.assert_allclose(cls_attention(block).numpy(), by_class, rtol=1e-12)
    np.testing.assert_allclose(cls_attention(of_class(block)).numpy(), by_class, rtol=1e-12)
    np.testing.assert_allclose(mean_attention(block).numpy(), by_patches, rtol=1e-12)


@pytest.mark.parametrize("heads", [1, 2, 3, 4])
def test_remedies_for_sinks_are_their_formulas(heads: int) -> None:
    block = projections(20, 2, heads)
    rows = whole_map(block.queries, block.keys)[:, :, 0, 2:]
    norms = np.linalg.norm(block.values.numpy()[:, :, 2:], axis=-1)
    weighted = cls_weighted_norm(of_class(block))
    np.testing.assert_allclose(weighted.numpy(), (rows * norms).mean(axis=1), rtol=1e-12)
    asked_nothing = block._replace(queries=block.queries[:, :, :0])
    np.testing.assert_allclose(value_norm(asked_nothing).numpy(), norms.mean(axis=1))
    np.testing.assert_allclose(cls_head_median(of_class(block)).numpy(), np.median(rows, axis=1), rtol=1e-12)
    short = norms.mean(axis=1) < norms.mean(axis=(1, 2))[:, None]
    attended = rows.mean(axis=1)
    without = cls_without_sinks(of_class(block))
    np.testing.assert_allclose(without.numpy(), np.where(short, np.log(attended), attended), rtol=1e-12)
    assert short.any() and not short.all()


def test_a_sink_ranks_first_by_the_mean_and_not_by_the_remedies() -> None:
    """Patch 0 takes nearly all attention of one head of three, and its value vector is next to nothing."""
    queries, keys = torch.ones(1, 3, 1, 4), torch.rand(1, 3, 9, 4, generator=torch.Generator().manual_seed(0))
    keys[:, 1, 1], values = 5.0, torch.ones(1, 3, 9, 4)
    keys[:, [0, 2], 1], values[:, :, 1] = -1.0, 1e-3
    block = Projections(queries, keys, values, 1)
    assert int(cls_attention(block).argmax()) == 0
    for score in (cls_weighted_norm, cls_head_median, cls_without_sinks, value_norm):
        assert int(score(block).argmin()) == 0


@pytest.mark.parametrize("chunk", [1, 7, 10_000])
def test_the_size_of_a_chunk_changes_nothing(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    block = projections(150, 1)
    seen = torch.rand(2, 151) > 0.3
    seen[:, :1] = True
    blocks = [block, block._replace(mask=additive(seen))]
    usual = [mean_attention(each) for each in blocks]
    monkeypatch.setattr(attention, "QUERY_CHUNK", chunk)
    for each, wanted in zip(blocks, usual, strict=True):
        torch.testing.assert_close(mean_attention(each), wanted, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ATTENTION)
def test_masked_patches_are_neither_keys_nor_queries(name: str) -> None:
    score = CRITERIA[name].score
    block = projections(140, 2)
    seen = torch.ones(2, 142, dtype=torch.bool)
    seen[0, 60:] = False
    seen[1, 100:130] = False
    found = score(block._replace(mask=additive(seen)))
    for item in range(2):
        places = seen[item].nonzero().flatten()
        part = [each[item : item + 1, :, places] for each in block[:3]]
        alone = score(Projections(*part, extra=2))[0]
        torch.testing.assert_close(found[item, places[2:] - 2], alone, rtol=1e-12, atol=0)
    assert (found[~seen[:, 2:]] == 0).all()


@pytest.mark.parametrize("name", ATTENTION)
def test_half_precision_projections_give_float32_scores(name: str) -> None:
    score = CRITERIA[name].score
    block = projections(200, 2)
    exact = score(block)
    for dtype in (torch.bfloat16, torch.float16):
        found = score(Projections(*(each.to(dtype) for each in block[:3]), extra=2))
        assert found.dtype == torch.float32
        assert ((found - exact).abs() / exact.abs()).max() < 0.2
    assert exact.dtype == torch.float64


@pytest.mark.parametrize("name", ATTENTION)
def test_the_score_says_truly_which_queries_it_reads(name: str) -> None:
    criterion = CRITERIA[name]
    block = projections(20, 2)
    changed = block.queries.clone()
    changed[:, :, 1:] += 1.0
    found = [criterion.score(each) for each in (block, block._replace(queries=changed))]
    assert torch.equal(*found) == (criterion.reads != "all")


@pytest.mark.parametrize("name", ATTENTION)
def test_shares_are_of_all_attention(name: str) -> None:
    block = projections(30, 1)
    total = CRITERIA[name].score(block).sum(dim=1)
    whole = whole_map(block.queries, block.keys)[:, :, :, 1:]
    rows = whole[:, :, 1:] if CRITERIA[name].reads == "all" else whole[:, :, :1]
    shared = np.allclose(total.numpy(), rows.sum(axis=-1).mean(axis=(1, 2)), rtol=1e-9)
    assert shared == (CRITERIA[name].shares or CRITERIA[name].so_far)


@pytest.mark.parametrize(("frequency_stride", "time_stride"), [(16, 16), (10, 10), (12, 7)])
def test_patch_statistics_are_those_of_each_patch(frequency_stride: int, time_stride: int) -> None:
    values = torch.randn(2, 100, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows, columns = (64 - 16) // frequency_stride + 1, (100 - 16) // time_stride + 1
    means, deviations = (np.empty((2, rows, columns)) for _ in range(2))
    for item in range(2):
        for f in range(rows):
            for t in range(columns):
                frames = values.numpy()[item, t * time_stride : t * time_stride + 16]
                patch = frames[:, f * frequency_stride : f * frequency_stride + 16]
                means[item, f, t], deviations[item, f, t] = patch.mean(), patch.std(ddof=1)
    spectrogram = Spectrogram(values, (16, 16), frequency_stride, time_stride)
    np.testing.assert_allclose(intensity(spectrogram).numpy(), means, rtol=1e-12)
    np.testing.assert_allclose(variation(spectrogram).numpy(), deviations, rtol=1e-12)


def test_random_scores_are_one_fixed_table_that_touches_no_generator() -> None:
    torch_before, python_before = torch.get_rng_state(), random.getstate()
    one = drawn(1, 50, 3)
    many = drawn(4, 50, 3)
    assert torch.equal(many, one.expand(4, -1))
    assert ((many >= 0) & (many < 1)).all() and len(set(one[0].tolist())) == 50
    assert not torch.equal(one, drawn(1, 50, 4))
    assert torch.equal(torch.get_rng_state(), torch_before) and random.getstate() == python_before


def test_the_random_table_is_copied_to_its_device_once() -> None:
    """A CUDA graph cannot capture a copy from the host."""
    first, second = (drawn(batch, 50, 3) for batch in (1, 4))
    assert first.data_ptr() == second.data_ptr()
    assert drawn(1, 50, 4).data_ptr() != first.data_ptr()
    with torch.inference_mode():
        assert not drawn(1, 60, 3).is_inference()


@pytest.mark.parametrize("rate", [0.7, 0.5, 0.3])
def test_the_regular_pattern_is_the_same_for_all_and_leaves_no_gaps(rate: float) -> None:
    scores = regular(Spectrogram(torch.zeros(2, 40 * 16, 12 * 16), (16, 16), 16, 16))
    assert scores.shape == (2, 12, 40) and torch.equal(scores[0], scores[1])
    golden = [[(f / 1.324717957244746 + t / 1.324717957244746**2) % 1 for t in range(40)] for f in range(12)]
    torch.testing.assert_close(scores[0], torch.tensor(golden), atol=1e-5, rtol=0)
    kept = scores[0] >= scores[0].flatten().sort(descending=True).values[math.ceil(rate * 480) - 1]
    drawn = random_scores(Spectrogram(torch.zeros(1, 40 * 16, 12 * 16), (16, 16), 16, 16))[0]
    by_chance = drawn >= drawn.flatten().sort(descending=True).values[math.ceil(rate * 480) - 1]
    windows = [mask.float().unfold(0, 4, 1).unfold(1, 4, 1).mean(dim=(-2, -1)) for mask in (kept, by_chance)]
    assert (windows[0] - rate).abs().max() < 0.2 < (windows[1] - rate).abs().max()


def test_fresh_random_scores_follow_torch_and_differ_from_clip_to_clip() -> None:
    torch.manual_seed(1)
    first = drawn(3, 50, 0, training=True)
    assert not torch.equal(first[0], first[1])
    torch.manual_seed(1)
    assert torch.equal(first, drawn(3, 50, 9, training=True))


def test_the_documented_ranking_of_ones_own_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[2] / "docs/pruning.md").read_text(encoding="utf-8")
    found = re.search(r"^## A ranking of your own$.*?^```python$(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    assert found is not None
    scope: dict[str, Any] = {}
    monkeypatch.setitem(CRITERIA, "cls_head_maximum", None)
    exec(found[1], scope)
    assert capsys.readouterr().out == "8 of 64 patches are left\n"
    block = projections(10, 2)
    rows = attention_map(block.queries[:, :, :1], block.keys)[..., 0, 2:]
    torch.testing.assert_close(CRITERIA["cls_head_maximum"].score(block), rows.max(dim=1).values)


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (Criterion("class", lambda block: block.class_rows(), ""), r"shape \(2, 3, 64\); wanted: a tensor \(2, 64\)"),
        (Criterion("values", lambda block: block.value_norms()[:, 0, 1:], ""), r"shape \(2, 63\); .* \(2, 64\)"),
        (Criterion("all", lambda block: block.keys[:, 0, :, 0], ""), r"shape \(2, 66\); .* \(2, 64\)"),
        (Criterion("class", lambda block: [0.5], ""), "type list; .*"),
        (Criterion("spectrogram", lambda seen: intensity(seen).flatten(1), ""), r"shape \(2, 64\); .* \(2, 8, 8\)"),
        (Criterion("nothing", lambda seen: torch.zeros(8, 8), ""), r"shape \(8, 8\); .* \(2, 8, 8\)"),
    ],
)
@pytest.mark.parametrize("traced", [False, True])
def test_scores_of_another_shape_are_refused_with_the_criterions_name(
    entry: Criterion, said: str, traced: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CRITERIA, "mine", entry)
    model = AudioTransformer(ast_tiny(max_length=128, num_hidden_layers=2, prune_at=[0])).eval()
    with pytest.raises(InputShapeError, match=f"criterion 'mine' gives scores of {said}"):
        model(torch.zeros(2, 128, 128), pruning=Pruning(0.5, (0,), "mine"), output_token_trace=traced)
