"""Where to compute."""

from __future__ import annotations

import torch

from spectrim.errors import InvalidSetting, one_of


def resolve_device(name: str = "auto") -> torch.device:
    """The device that is meant; ``"auto"`` is CUDA where it works, else the CPU.

    Raises:
        InvalidSetting: there is no such device here.
    """
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if cuda else "cpu")
    here = ["auto", "cpu", *(["cuda"] if cuda else []), *(f"cuda:{index}" for index in range(cuda))]
    if name not in here:
        why = "" if cuda or not name.startswith("cuda") else "; torch sees no usable CUDA device here"
        raise InvalidSetting("device", name, one_of(here) + why)
    return torch.device(name)
