"""The fused kernel: right against float64, and how long it takes beside the other ways to its answer."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gpu_sections.common import NotHere, Setting, captured, error_of, plainly
from spectrim.measure.benchmark import spread
from spectrim.pruning.counts import count_kept
from spectrim.pruning.criteria.attention import Projections, attention_map, mean_attention
from spectrim.pruning.select import take_tokens, top_patches

EXTRA = 1
LARGEST_ERROR = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 1e-5}
"""Relative error of the output that counts as right: its own rounding, and that of the shares before the product."""
LARGEST_SCORE_ERROR = 1e-4
TILES = (
    (64, 64, 4, 3),
    (64, 64, 4, 2),
    (64, 32, 4, 3),
    (64, 128, 4, 3),
    (128, 64, 4, 3),
    (128, 64, 8, 3),
    (128, 128, 8, 2),
)


def _available(setting: Setting) -> None:
    if importlib.util.find_spec("triton") is None:
        raise NotHere("needs triton")
    import triton

    if not setting.is_cuda and not triton.knobs.runtime.interpret:
        raise NotHere("needs CUDA, or TRITON_INTERPRET=1 to try the script")


def _projections(setting: Setting, batch: int, patches: int, dtype: torch.dtype, seed: int = 0) -> list[Tensor]:
    """Queries, keys and values (batch, heads, 1 + patches, head_dim), laid out as the encoder's are."""
    heads, head_dim = (2, 16) if setting.small else (12, 64)
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, EXTRA + patches, 3, heads, head_dim)
    parts = (2.0 * torch.randn(shape, generator=generator)).to(setting.device, dtype)
    return [parts[:, :, place].transpose(1, 2) for place in range(3)]


def kernel_check(setting: Setting) -> dict[str, Any]:
    """Output and score against float64 on the device; the plain way's errors beside them."""
    _available(setting)
    from spectrim.pruning.kernels.attention import launch

    rows = []
    dtypes = (torch.float32,) if setting.small else (torch.bfloat16, torch.float16)
    sizes = (63, 64, 40) if setting.small else (512, 359, 252, 256, 128, 64, 1212)
    for seed, (dtype, patches) in enumerate((dtype, patches) for dtype in dtypes for patches in sizes):
        queries, keys, values = _projections(setting, 2, patches, dtype, seed)
        output, score = launch(queries, keys, values, EXTRA)
        again, score_again = launch(queries, keys, values, EXTRA)
        exact = [tensor.double() for tensor in (queries, keys, values)]
        shares = attention_map(*exact[:2])
        wanted = (shares @ exact[2]).transpose(1, 2).flatten(2)
        wanted_score = shares[:, :, EXTRA:, EXTRA:].mean(dim=(1, 2))
        with plainly():
            plain_score = mean_attention(Projections(queries, keys, values, EXTRA))
        plain = functional.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(2)
        name = str(dtype).removeprefix("torch.")
        errors = (error_of(output, wanted), error_of(score, wanted_score))
        rows.append(
            {
                "dtype": name,
                "patches": patches,
                "output_error": errors[0],
                "score_error": errors[1],
                "plain_output_error": error_of(plain, wanted),
                "plain_score_error": error_of(plain_score, wanted_score),
                "same_bits_again": bool(torch.equal(output, again) and torch.equal(score, score_again)),
                "right": errors[0] <= LARGEST_ERROR[name] and errors[1] <= LARGEST_SCORE_ERROR,
            }
        )
    return {"what": "norm of the difference over the norm of what float64 gives", "rows": rows}


def kernel_speed(setting: Setting) -> dict[str, Any]:
    """The attention part of a pruning block in each way, and other cuts of the kernel's work.

    Every way ends with the survivors' attention output: score, selection, gather, output. Graphs also copy the queries.
    """
    _available(setting)
    dtype = torch.float32 if setting.small else setting.dtype
    patches = 40 if setting.small else 512
    rows: list[dict[str, Any]] = []
    for batch in (1,) if setting.small else (1, 32):
        queries, keys, values = _projections(setting, batch, patches, dtype)
        for rate in (1.0, 0.7, 0.5, 0.3):
            if setting.late():
                break
            kept = count_kept(patches, rate)
            calls = {name: partial(way, keys=keys, values=values, kept=kept) for name, way in WAYS.items()}
            cases = {(name, "eager"): partial(call, queries) for name, call in calls.items()}
            if setting.is_cuda:
                cases |= {(name, "graph"): partial(captured(call, queries), queries) for name, call in calls.items()}
            place = {"batch_size": batch, "patches": patches, "kept": kept}
            for (name, launched), times in setting.clock(cases, setting.inner).items():
                rows.append({**place, "way": name, "launched": launched, **spread(times)})
    return {"dtype": str(dtype), "rows": rows, "tiles": _other_tiles(setting, dtype, patches)}


def _together(queries: Tensor, keys: Tensor, values: Tensor, kept: int) -> Tensor:
    from spectrim.pruning.kernels.fused import attend_and_score

    with torch.inference_mode():
        output, score = attend_and_score(queries, keys, values, EXTRA)
        return take_tokens(output, top_patches(score, kept), EXTRA)


def _survivors(score: Tensor, queries: Tensor, keys: Tensor, values: Tensor, kept: int) -> Tensor:
    """Attention of the survivors, after a score."""
    flat = take_tokens(queries.transpose(1, 2), top_patches(score, kept), EXTRA)
    return functional.scaled_dot_product_attention(flat.transpose(1, 2), keys, values).transpose(1, 2).flatten(2)


def _score_alone(queries: Tensor, keys: Tensor, values: Tensor, kept: int) -> Tensor:
    from spectrim.pruning.kernels.fused import mean_attention as score_of

    with torch.inference_mode():
        return _survivors(score_of(queries, keys, EXTRA), queries, keys, values, kept)


def _in_chunks(queries: Tensor, keys: Tensor, values: Tensor, kept: int) -> Tensor:
    with torch.inference_mode(), plainly():
        return _survivors(mean_attention(queries, keys, EXTRA), queries, keys, values, kept)


def _whole_map(queries: Tensor, keys: Tensor, values: Tensor, kept: int) -> Tensor:
    with torch.inference_mode():
        shares = attention_map(queries, keys)
        output = (shares.to(values.dtype) @ values).transpose(1, 2).flatten(2)
        score = shares[:, :, EXTRA:, EXTRA:].mean(dim=(1, 2))
        return take_tokens(output, top_patches(score, kept), EXTRA)


WAYS: dict[str, Callable[[Tensor, Tensor, Tensor, int], Tensor]] = {
    "kernel, together": _together,
    "kernel, score; survivors by SDPA": _score_alone,
    "score in chunks; survivors by SDPA": _in_chunks,
    "whole map in memory": _whole_map,
}


def _other_tiles(setting: Setting, dtype: torch.dtype, patches: int) -> list[dict[str, Any]]:
    """Time of a launch for other tiles; None where one does not compile or fit."""
    from spectrim.pruning.kernels.attention import Tiles, launch

    queries, keys, values = _projections(setting, 1 if setting.small else 32, patches, dtype)
    rows: list[dict[str, Any]] = []
    for with_output in (True, False):
        seen = values if with_output else None
        for numbers in TILES[:2] if setting.small else TILES:
            if setting.late():
                break
            call = partial(launch, queries, keys, seen, EXTRA, Tiles(*numbers))
            timing: dict[str, float | None] = {"median_ms": None}
            with suppress(Exception):
                timing |= spread(setting.clock({"launch": call}, setting.inner)["launch"])
            rows.append({"tiles": Tiles(*numbers)._asdict(), "with_output": with_output, **timing})
    return rows
