"""The random state in a checkpoint, as transformers' Trainer writes it, and what may be in it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

RANDOM_GLOBALS = [np.zeros(0).__reduce__()[0], np.ndarray, np.dtype, type(np.dtype(np.uint32))]
"""What a pickle of `numpy.random.get_state` names; all of it makes arrays and nothing else."""

_DEVICES = ("cuda", "npu", "hpu", "mlu", "musa", "xla")


def check_random_state(content: Any) -> str | None:
    """What is wrong with a random state, or None; nothing is set.

    Args:
        content: ``"python"``, ``"numpy"`` and ``"cpu"``, as their modules give them, and states of devices.
    """
    if not isinstance(content, dict) or not {"python", "numpy", "cpu"} <= content.keys() <= {
        *("python", "numpy", "cpu"),
        *_DEVICES,
    }:
        return "it is no state of random generators"
    try:
        random.Random().setstate(content["python"])
    except (TypeError, ValueError, OverflowError, LookupError):
        return "the state of Python's generator is none"
    numpy_state = content["numpy"]
    try:
        if not isinstance(numpy_state, tuple) or not isinstance(numpy_state[1], np.ndarray):
            raise TypeError
        np.random.RandomState().set_state(numpy_state)
    except (TypeError, ValueError, OverflowError, LookupError):
        return "the state of numpy's generator is none"
    if not _is_state(content["cpu"]):
        return "the state of torch's generator is none"
    try:
        torch.Generator().set_state(content["cpu"])
    except (TypeError, ValueError, RuntimeError):
        return "the state of torch's generator is none"
    for name in content.keys() & set(_DEVICES):
        states = content[name] if isinstance(content[name], list) else [content[name]]
        if not all(map(_is_state, states)):
            return f"the state of the generator of {name} is none"
    return None


def _is_state(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dtype == torch.uint8 and value.ndim == 1 and value.is_contiguous()
