"""This machine: the device to compute on, threads, worker processes, and what stands beside measured numbers."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectrim.errors import InvalidSetting, one_of

if TYPE_CHECKING:
    import torch

PACKAGES = ("spectrim", "torch", "transformers", "numpy", "soundfile", "soxr")

INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8")
"""What decides how fast a processor is in float32, 8 bits and bfloat16, as Linux calls it."""


def resolve_device(name: str = "auto") -> torch.device:
    """The device that is meant; ``"auto"`` is CUDA where it works, else the CPU.

    Raises:
        InvalidSetting: there is no such device here.
    """
    import torch

    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda" if cuda else "cpu")
    here = ["auto", "cpu", *(["cuda"] if cuda else []), *(f"cuda:{index}" for index in range(cuda))]
    if name not in here:
        why = "" if cuda or not name.startswith("cuda") else "; torch sees no usable CUDA device here"
        raise InvalidSetting("device", name, one_of(here) + why)
    return torch.device(name)


def core_count() -> int:
    """Number of processor cores."""
    return os.cpu_count() or 1


def default_workers() -> int:
    """How many processes decode audio beside a model where nobody says: decoding is quick, so at most four."""
    return max(1, min(4, core_count() - 1))


def cache_folder(name: str) -> Path:
    """Where something is kept that can be made again: ``NAME`` in ``SPECTRIM_CACHE``, else in ``spectrim`` of
    ``XDG_CACHE_HOME``, else of ``~/.cache``. It need not be there yet.
    """
    own = os.environ.get("SPECTRIM_CACHE")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(own) if own else home / "spectrim") / name


def is_main_process() -> bool:
    """Whether this process writes for all of them (the first one under torchrun, or the only one)."""
    return os.environ.get("RANK", "0") == "0"


def process_count() -> int:
    """How many processes train together, as torchrun says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def torch_threads(number: int | None) -> Iterator[None]:
    """Have torch, and exported models that are opened meanwhile, compute with so many threads; None: as many as before.

    Raises:
        InvalidSetting: fewer than one, or more than this machine has cores.
    """
    import torch

    before, cores = torch.get_num_threads(), core_count()
    if number is not None and not 1 <= number <= cores:
        raise InvalidSetting("threads", number, f"1 to {cores}, the cores of this machine")
    try:
        torch.set_num_threads(number or before)
        yield
    finally:
        torch.set_num_threads(before)


def environment(device: str = "cpu", *further: str) -> dict[str, Any]:
    """Machine and versions, to stand beside every figure.

    Args:
        device: name of the device in use.
        further: packages in use beside `PACKAGES`.

    Returns:
        A dictionary for JSON: processor and which of `INSTRUCTIONS` it has, cores and torch threads, accelerator,
        Python and package versions.
    """
    import torch

    return {
        "processor": _processor(),
        "instructions": " ".join(name for name in INSTRUCTIONS if name in _cpuinfo("flags").split()),
        "cores": core_count(),
        "torch_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version_of(name) for name in (*PACKAGES, *further)},
    }


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for products in bfloat16; of a CPU, Linux must say so."""
    import torch

    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool({"avx512_bf16", "amx_bf16"} & set(_cpuinfo("flags").split()))


def version_of(package: str) -> str | None:
    """Version of an installed package, None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(field: str) -> str:
    """A field of the first processor in Linux's /proc/cpuinfo, empty elsewhere."""
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.exists() else ():
        if line.startswith(field):
            return line.partition(":")[2].strip()
    return ""
