"""From the weights of a file to the state of a model: every one used, every one filled, or nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from spectrim.errors import CheckpointError

JOINED = re.compile(r"(.*attention\.)(?:qkv|key|value)\.(weight|bias)")


def take_weights(
    title: str,
    weights: Mapping[str, Tensor],
    names: Mapping[str, str],
    *,
    unused: Iterable[str] = (),
    ignored: Sequence[str] = (),
) -> dict[str, Tensor]:
    """Copy the weights that a layout names, and refuse a file that has fewer or others.

    Args:
        title: of the checkpoint, for errors.
        weights: of the file.
        names: name of each weight that must be there → its place in our model.
        unused: names that are neither needed nor taken.
        ignored: regular expressions for keys that are there for another purpose.

    Returns:
        {place: copy, float32, or float64 where it was}.

    Raises:
        CheckpointError: a weight is missing, unexpected, or no array of finite numbers.
    """
    left = set(unused)
    missing = names.keys() - left - weights.keys()
    unexpected = [key for key in weights.keys() - names.keys() if not any(re.fullmatch(rule, key) for rule in ignored)]
    if missing or unexpected:
        raise CheckpointError(
            f"{title}: nothing loaded, the weights do not fit. "
            f"Missing: {listed(missing)}. Unexpected: {listed(unexpected)}"
        )
    return {ours: _plain(title, weights, theirs) for theirs, ours in names.items() if theirs not in left}


def _plain(title: str, weights: Mapping[str, Tensor], name: str) -> Tensor:
    """One weight as a copy of 32 bits at least, refused if it is no array of finite numbers."""
    value = weights[name].detach()
    if value.layout is not torch.strided or value.device.type != "cpu" or not value.is_floating_point():
        raise CheckpointError(f"{title}: {name} is no plain array of floating-point numbers")
    value = value.to(torch.promote_types(value.dtype, torch.float32), copy=True).contiguous()
    if value.numel() and not all(bound.float().isfinite() for bound in value.aminmax()):
        broken = int((~value.float().isfinite()).sum())
        raise CheckpointError(f"{title}: {name} has {broken} values that are NaN or infinite; it is damaged")
    return value


def join_projections(pieces: Mapping[str, Tensor], title: str) -> dict[str, Tensor]:
    """Bring query, key and value, joined or apart, to our query and key_value (key rows first)."""
    state = dict(pieces)
    found = [match for match in map(JOINED.fullmatch, pieces) if match]
    for attention, kind in dict.fromkeys((match[1], match[2]) for match in found):
        joined = state.pop(f"{attention}qkv.{kind}", None)
        key, value = state.pop(f"{attention}key.{kind}", None), state.pop(f"{attention}value.{kind}", None)
        if joined is not None:
            width = len(joined) // 3
            state[f"{attention}query.{kind}"] = joined[:width].clone()
            state[f"{attention}key_value.{kind}"] = joined[width:].clone()
        elif key is not None and value is not None:
            if key.shape != value.shape:
                raise CheckpointError(
                    f"{title}: nothing loaded, shapes do not fit: {attention}key.{kind} is "
                    f"{tuple(key.shape)}, the value's {tuple(value.shape)}"
                )
            state[f"{attention}key_value.{kind}"] = torch.cat([key, value])
    return state


def fold_weight_norms(pieces: Mapping[str, Tensor], title: str) -> dict[str, Tensor]:
    """Make one weight of the length and the direction that weight normalisation (Salimans & Kingma, 2016) learns.

    Args:
        pieces: {place: weight}; ``…weight_g`` has a length for each entry of the axes on which it is not 1 wide, and
            ``…weight_v`` is there beside it.
        title: of the checkpoint, for errors.

    Raises:
        CheckpointError: they do not fit each other.
    """
    state = dict(pieces)
    for place in [name.removesuffix("_g") for name in pieces if name.endswith(".weight_g")]:
        length, direction = state.pop(f"{place}_g"), state.pop(f"{place}_v")
        shapes = tuple(length.shape), tuple(direction.shape)
        if length.ndim != direction.ndim or any(one not in (1, other) for one, other in zip(*shapes, strict=True)):
            wrong = f"{place}_g is {shapes[0]}, {place}_v {shapes[1]}"
            raise CheckpointError(f"{title}: nothing loaded, shapes do not fit: {wrong}")
        axes = [axis for axis, size in enumerate(length.shape) if size == 1]
        state[place] = direction * (length / torch.linalg.vector_norm(direction, dim=axes, keepdim=True))
        if not state[place].isfinite().all():
            raise CheckpointError(f"{title}: {place} has a direction of length 0; it is damaged")
    return state


def check_shapes(title: str, state: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Raise `CheckpointError` unless every weight of the model is there and has its shape."""
    wrong = [
        f"{name} is {tuple(state[name].shape)} where {shape} is expected"
        for name, shape in expected.items()
        if tuple(state[name].shape) != shape
    ]
    if wrong:
        raise CheckpointError(f"{title}: nothing loaded, shapes do not fit: {listed(wrong)}")


def listed(names: Iterable[str]) -> str:
    """The first of some names, in order, for an error message."""
    ordered = sorted(names)
    more = f" and {len(ordered) - 6} more" if len(ordered) > 6 else ""
    return ", ".join(ordered[:6]) + more if ordered else "none"
