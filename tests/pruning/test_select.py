"""Selection against loops: the right number, the best ones, each once, and the extra tokens always."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import dhondt

from spectrim.pruning.select import (
    count_kept,
    distinct_ranks,
    quota_ranks,
    real_first,
    summed,
    take_patches,
    take_tokens,
    top_mass,
    top_patches,
    top_valid_patches,
)

RATES = st.floats(1e-4, 1.0)
SCORES = st.integers(1, 5).flatmap(
    lambda batch: st.integers(1, 40).flatmap(
        lambda n: st.lists(
            st.lists(st.integers(-5, 5) | st.floats(-10, 10, width=32), min_size=n, max_size=n),
            min_size=batch,
            max_size=batch,
        )
    )
)


@settings(deadline=None)
@given(patches=st.integers(1, 3000), keep_rate=st.floats(0, 1, exclude_min=True))
def test_the_count_is_the_ceiling(patches: int, keep_rate: float) -> None:
    count = count_kept(patches, keep_rate)
    assert count == int(np.ceil(np.float64(keep_rate) * np.float64(patches)))
    assert 1 <= count <= patches
    assert count_kept(patches, 1.0) == patches
    assert count_kept(patches + 1, keep_rate) >= count


def test_counts_of_the_paper() -> None:
    """512 patches at rate 0.7 become 359, 252 and 177."""
    counts, patches = [], 512
    for _ in range(3):
        patches = count_kept(patches, 0.7)
        counts.append(patches)
    assert counts == [359, 252, 177]


@settings(deadline=None)
@given(rows=SCORES, keep_rate=RATES, ordered=st.booleans())
def test_survivors_are_the_top_each_once(rows: list[list[float]], keep_rate: float, ordered: bool) -> None:
    scores = torch.tensor(rows, dtype=torch.float32)
    count = count_kept(scores.shape[1], keep_rate)
    index = top_patches(scores, count, ordered=ordered)
    assert index.dtype == torch.int64 and tuple(index.shape) == (len(rows), count)
    for row, chosen in zip(scores.tolist(), index.tolist(), strict=True):
        assert len(set(chosen)) == count
        found = [row[place] for place in chosen]
        best = sorted(row, reverse=True)[:count]
        assert sorted(found, reverse=True) == best
        if ordered:
            assert found == best
    again = top_patches(scores.flip(0), count, ordered=ordered).flip(0)
    assert torch.equal(again.sort(dim=1).values, index.sort(dim=1).values)


@settings(deadline=None)
@given(rows=SCORES)
def test_ranks_are_the_order_of_the_scores_and_never_tie(rows: list[list[float]]) -> None:
    scores = torch.tensor(rows, dtype=torch.float32)
    ranks = distinct_ranks(scores)
    for row, ranked, alone in zip(scores.tolist(), ranks.tolist(), scores.unsqueeze(1), strict=True):
        assert sorted(ranked) == list(range(len(row)))
        by_rank = [value for _, value in sorted(zip(ranked, row, strict=True))]
        assert by_rank == sorted(row)
        assert distinct_ranks(alone)[0].tolist() == ranked


@settings(deadline=None)
@given(
    batch=st.integers(1, 4),
    patches=st.integers(1, 12),
    extra=st.integers(1, 2),
    trailing=st.lists(st.integers(1, 3), max_size=2),
    data=st.data(),
)
def test_taking_is_a_loop(batch: int, patches: int, extra: int, trailing: list[int], data: st.DataObject) -> None:
    tokens = torch.arange(batch * (extra + patches) * math.prod(trailing)).reshape(batch, extra + patches, *trailing)
    index = torch.tensor([data.draw(st.permutations(range(patches))) for _ in range(batch)])
    index = index[:, : data.draw(st.integers(1, patches))]
    picked = [[tokens[row, extra + place] for place in places] for row, places in enumerate(index.tolist())]
    kept = torch.stack([torch.stack(row) for row in picked])
    assert torch.equal(take_patches(tokens[:, extra:], index), kept)
    whole = torch.cat([tokens[:, :extra], kept], dim=1)
    assert torch.equal(take_tokens(tokens, index, extra), whole)


@settings(deadline=None)
@given(rows=st.integers(1, 20).flatmap(lambda n: st.lists(st.lists(st.booleans(), min_size=n, max_size=n), min_size=1)))
def test_real_patches_come_first_and_keep_their_order(rows: list[list[bool]]) -> None:
    padding = torch.tensor(rows)
    most = max(row.count(False) for row in rows)
    index, valid = real_first(padding, most)
    assert tuple(index.shape) == tuple(valid.shape) == (len(rows), most)
    for row, places, real in zip(rows, index.tolist(), valid.tolist(), strict=True):
        wanted = [place for place, empty in enumerate(row) if not empty]
        assert [place for place, counts in zip(places, real, strict=True) if counts] == wanted
        assert real == [True] * len(wanted) + [False] * (most - len(wanted))


@settings(deadline=None)
@given(rows=SCORES, keep_rate=RATES, data=st.data())
def test_each_clip_keeps_its_own_share(rows: list[list[float]], keep_rate: float, data: st.DataObject) -> None:
    scores = torch.tensor(rows, dtype=torch.float32)
    real = [data.draw(st.lists(st.booleans(), min_size=len(r), max_size=len(r)).filter(any)) for r in rows]
    index, valid = top_valid_patches(scores, torch.tensor(real), keep_rate)
    counts = [math.ceil(keep_rate * sum(row)) for row in real]
    assert index.shape[1] == max(counts)
    for row, allowed, places, counts_here, count in zip(
        scores.tolist(), real, index.tolist(), valid.tolist(), counts, strict=True
    ):
        kept = [place for place, good in zip(places, counts_here, strict=True) if good]
        assert len(kept) == len(set(kept)) == count
        assert all(allowed[place] for place in kept)
        best = sorted((value for value, good in zip(row, allowed, strict=True) if good), reverse=True)[:count]
        assert sorted((row[place] for place in kept), reverse=True) == best


def test_an_empty_slot_is_below_a_patch_whose_score_is_minus_infinity() -> None:
    scores = torch.tensor([[0.9, *[-math.inf] * 3, *[0.0] * 4]])
    real = torch.tensor([[True] * 4 + [False] * 4])
    index, valid = top_valid_patches(scores, real, 0.75)
    assert valid.all() and index[0, 0] == 0 and sorted(index[0].tolist())[-1] < 4


@st.composite
def clips_in_segments(draw: st.DrawFn) -> tuple[int, list[list[tuple[float, int, bool]]]]:
    """A number of segments, and of each clip its patches: score, segment, whether there is one."""
    segments, patches = draw(st.integers(1, 6)), draw(st.integers(1, 40))
    numbers = st.integers(-3, 3) | st.floats(-10, 10, width=32)
    patch = st.tuples(numbers, st.integers(0, segments - 1), st.sampled_from([True, True, True, False]))
    return segments, draw(st.lists(st.lists(patch, min_size=patches, max_size=patches), min_size=1, max_size=4))


@settings(deadline=None)
@given(drawn=clips_in_segments())
def test_every_segment_keeps_its_share_of_any_number(drawn: tuple[int, list]) -> None:
    segments, rows = drawn
    scores, segment, valid = (torch.tensor([[patch[at] for patch in row] for row in rows]) for at in range(3))
    scores = scores.float()
    ranks = quota_ranks(scores, segment, segments, valid)
    for item in range(len(rows)):
        real = valid[item].nonzero().flatten()
        order = real[ranks[item, real].argsort(descending=True)].tolist()
        best = sorted(real.tolist(), key=lambda place: -scores[item, place])
        parties = [int(segment[item, place]) for place in best]
        assert order == [best[at] for at in dhondt(parties, len(best))]
        for count in range(len(order) + 1):
            kept = [int(segment[item, place]) for place in order[:count]]
            assert all(kept.count(s) >= count * parties.count(s) // len(best) for s in set(parties))
        assert sorted(ranks[item].tolist()) == list(range(len(rows[item])))
        alone = quota_ranks(scores[item : item + 1, real], segment[item : item + 1, real], segments)
        assert torch.equal(alone[0].argsort(), ranks[item, real].argsort())


@settings(deadline=None)
@given(columns=st.integers(1, 12), each=st.integers(1, 5), rates=st.lists(RATES, max_size=4), seed=st.integers(0, 99))
def test_equal_segments_stay_equal_to_one_patch(columns: int, each: int, rates: list[float], seed: int) -> None:
    segment = torch.arange(columns).repeat_interleave(each).unsqueeze(0)
    for rate in rates:
        scores = torch.rand(segment.shape, generator=torch.Generator().manual_seed(seed))
        ranks = quota_ranks(scores, segment, columns)
        segment = segment.gather(1, top_patches(ranks, count_kept(segment.shape[1], rate)))
        counts = torch.bincount(segment[0], minlength=columns)
        assert counts.max() - counts.min() <= 1


@settings(deadline=None)
@given(rows=SCORES, keep_rate=RATES, mass=st.floats(0.01, 0.99), data=st.data())
def test_as_few_are_kept_as_hold_the_share(
    rows: list[list[float]], keep_rate: float, mass: float, data: st.DataObject
) -> None:
    scores = torch.tensor(rows, dtype=torch.float32).abs()
    real = [data.draw(st.lists(st.booleans(), min_size=len(r), max_size=len(r)).filter(any)) for r in rows]
    for valid in (torch.tensor(real), None):
        index, stays = top_mass(scores, valid, keep_rate, mass)
        stays = torch.ones_like(index, dtype=torch.bool) if stays is None else stays
        for item, places in enumerate(index):
            kept = places[stays[item]]
            own = scores[item] if valid is None else scores[item, valid[item]]
            best = sorted(own.double().tolist(), reverse=True)
            assert sorted(scores[item, kept].double().tolist(), reverse=True) == best[: len(kept)]
            floor = math.ceil(keep_rate * len(best))
            assert len(kept) >= floor and (valid is None or bool(valid[item, kept].all()))
            total = float(own.double().sum())
            assert sum(best[: len(kept)]) >= mass * total * (1 - 1e-12)
            assert len(kept) == floor or sum(best[: len(kept) - 1]) < mass * total * (1 + 1e-12)


def test_a_score_of_minus_infinity_goes_first() -> None:
    scores = torch.tensor([[-math.inf, -3.0, -math.inf, -7.0]])
    assert sorted(top_patches(scores, 2)[0].tolist()) == [1, 3]


def test_gradients_flow_to_the_patches_that_stay_and_to_no_other() -> None:
    tokens = torch.randn(2, 7, 3, requires_grad=True)
    take_tokens(tokens, torch.tensor([[0, 3], [4, 1]]), 2).sum().backward()
    reached = tokens.grad.amax(dim=2).nonzero().tolist()
    assert reached == [[0, 0], [0, 1], [0, 2], [0, 5], [1, 0], [1, 1], [1, 3], [1, 6]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_float_type_is_ranked(dtype: torch.dtype) -> None:
    scores = torch.tensor([[1.0, 4.0, 2.0, 3.0]], dtype=dtype)
    assert sorted(top_patches(scores, 2)[0].tolist()) == [1, 3]
    assert distinct_ranks(scores).tolist() == [[0, 3, 1, 2]]


def test_sums_of_half_precision_are_added_up_in_float32() -> None:
    rows = torch.full((1, 3000, 2), 1.0, dtype=torch.float16)
    found = summed(rows, torch.zeros(1, 3000, dtype=torch.long), torch.ones(1, 3000), 1)
    assert found.dtype == torch.float16
    assert found.tolist() == [[[3000.0, 3000.0]]]  # added up in float16 it ends at 2048
