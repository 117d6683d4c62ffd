"""From what was saved to a dictionary of weights in their own names: wrappers and prefixes that training adds."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from spectrim.errors import CheckpointError

WRAPPERS = (
    *("model", "state_dict", "model_state_dict", "module", "net", "network"),
    *("ema", "model_ema", "ema_model", "state_dict_ema", "model_state_dict_ema", "ema_state_dict"),
)
"""Keys under which training scripts put the weights, by themselves or one inside the other."""

PREFIXES = tuple(
    f"{name}." for name in ("module", "model", "_orig_mod", "net", "network", "ema", "model_ema", "ema_model")
)
"""What DataParallel, Lightning, torch.compile and averaging put before every name."""

BESIDE = ("cfg", "label_dict")
"""Dictionaries beside the weights that say something of them: BEATs's settings, and the names of its outputs."""

TEACHERS = ("_ema",)
"""What data2vec 2.0, and EAT after it, put among the weights: those of the teacher, a dictionary."""

COMPILED = "_orig_mod."
DEEPEST = 4
"""Wrappers inside each other."""


def unwrap(title: str, loaded: object) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights out of what was saved: itself, or under one of `WRAPPERS`, and the command line beside them.

    Args:
        title: of the file, for errors.
        loaded: what was saved.

    Returns:
        {name: tensor} and the arguments of an ``argparse.Namespace`` called ``args``, if there is one, and what is
        there of `BESIDE`.

    Raises:
        CheckpointError: there are no named weights in it, or those of several models that differ.
    """
    arguments: dict[str, Any] = {}
    if isinstance(loaded, Mapping) and isinstance(loaded.get("args"), argparse.Namespace):
        arguments = dict(vars(loaded["args"]))
    if isinstance(loaded, Mapping):
        arguments |= {name: loaded[name] for name in BESIDE if isinstance(loaded.get(name), Mapping)}
    if not isinstance(loaded, Mapping) or not loaded:
        raise CheckpointError(f"{title}: holds a {type(loaded).__name__}, not a dictionary of named weights")
    places = dict(_state_dicts(loaded, ())) or {(): loaded}
    found = {place: _without_teacher(state) for place, state in places.items()}
    odd = {
        place: [key for key, value in state.items() if not isinstance(key, str) or not isinstance(value, Tensor)]
        for place, state in found.items()
    }
    for keys in odd.values():
        if keys:
            raise CheckpointError(f"{title}: is no dictionary of named weights: {keys[0]!r} is not a tensor")
    models = {"/".join(place) or "itself": own_names(title, state) for place, state in found.items()}
    return _the_only(title, models), arguments


def _state_dicts(
    loaded: Mapping[Any, Any], above: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Mapping[Any, Any]]]:
    """Places and contents of the dictionaries under `WRAPPERS` that are wrappers of nothing themselves."""
    inside = {name: loaded[name] for name in WRAPPERS if isinstance(loaded.get(name), Mapping) and loaded[name]}
    if not inside or len(above) >= DEEPEST:
        if above:
            yield above, loaded
        return
    for name, content in inside.items():
        yield from _state_dicts(content, (*above, name))


def _without_teacher(state: Mapping[Any, Any]) -> dict[Any, Any]:
    """The weights that a student learnt, where its teacher's are among them."""
    return {name: value for name, value in state.items() if name not in TEACHERS or not isinstance(value, Mapping)}


def own_names(title: str, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take off what stands before every name, and what torch.compile puts inside names.

    Where names begin with several of `PREFIXES` (a model and its average side by side), they must be the same weights.

    Raises:
        CheckpointError: the names stand for several models that differ, or two become one.
    """
    names = {name: name.replace(COMPILED, "") for name in weights}
    if len(set(names.values())) < len(names):
        raise CheckpointError(
            f"{title}: has weights of the same name with and without {COMPILED}; save one model alone"
        )
    state = {names[name]: value for name, value in weights.items()}
    while state:
        groups: dict[str, dict[str, Tensor]] = {}
        for name, value in state.items():
            prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), "")
            groups.setdefault(prefix, {})[name.removeprefix(prefix)] = value
        if "" in groups:
            break
        state = _the_only(title, {prefix + "…": group for prefix, group in groups.items()})
    return state


def _the_only(title: str, models: Mapping[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    """One of several models that are the same.

    Raises:
        CheckpointError: they are not.
    """
    first, *others = models.values()
    for other in others:
        if first.keys() != other.keys() or not all(_same(first[name], other[name]) for name in first):
            raise CheckpointError(
                f"{title}: holds weights in several places ({', '.join(models)}) that differ; which are meant cannot "
                "be told: save the state dictionary of one of them alone with torch.save"
            )
    return first


def _same(one: Tensor, other: Tensor) -> bool:
    plain = one.layout is other.layout is torch.strided and one.device.type == other.device.type == "cpu"
    return plain and one.dtype == other.dtype and torch.equal(one, other)
