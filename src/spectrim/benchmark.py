"""Clocks: latency, throughput and memory of a model at several keep rates, side by side in one run."""

from __future__ import annotations

import copy
import importlib.metadata
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from spectrim.counting import MacCount, macs
from spectrim.devices import resolve_device
from spectrim.errors import InvalidSetting
from spectrim.model import AudioTransformer

PACKAGES = ("spectrim", "torch", "transformers", "numpy", "soundfile", "soxr")


def environment(device: str = "cpu") -> dict[str, Any]:
    """Machine and versions, to stand beside every figure.

    Returns:
        A dictionary for JSON: processor, cores and torch threads, accelerator, Python and package versions.
    """
    return {
        "processor": _processor(),
        "cores": torch.multiprocessing.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.startswith("cuda") else device,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def interleaved(
    cases: dict[Any, Callable[[], object]],
    *,
    repeats: int,
    warmup: int = 2,
    synchronise: Callable[[], object] | None = None,
    on_round: Callable[[int, int], object] | None = None,
) -> dict[Any, list[float]]:
    """Time several callables in turn, so that what else the machine does hits all of them alike.

    Args:
        cases: name → what to call.
        repeats: timed rounds; each calls every case once.
        warmup: rounds before them that are not timed.
        synchronise: called around each call, e.g. ``torch.cuda.synchronize``.
        on_round: called with (rounds done, rounds in all).

    Returns:
        name → seconds of each timed call.
    """
    wait = synchronise or (lambda: None)
    seconds: dict[Any, list[float]] = {name: [] for name in cases}
    for turn in range(warmup + repeats):
        for name, call in cases.items():
            wait()
            start = time.perf_counter()
            call()
            wait()
            if turn >= warmup:
                seconds[name].append(time.perf_counter() - start)
        if on_round is not None:
            on_round(turn + 1, warmup + repeats)
    return seconds


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median and quartiles of timings, in milliseconds; the quartiles lie within what was measured."""
    low, middle, high = [seconds[0]] * 3
    if len(seconds) > 1:
        low, middle, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return {"median_ms": middle * 1e3, "q1_ms": low * 1e3, "q3_ms": high * 1e3}


def run(
    model: AudioTransformer,
    keep_rates: Iterable[float] = (1.0, 0.7, 0.5),
    batch_sizes: Iterable[int] = (1, 8),
    *,
    repeats: int = 20,
    device: str = "cpu",
    on_round: Callable[[int, int], object] | None = None,
) -> dict[str, Any]:
    """Measure a model on random spectrograms at every keep rate and batch size, interleaved.

    Args:
        model: to measure; its own keep rate does not matter.
        keep_rates: in (0, 1]; ratios are against the first of them.
        batch_sizes: clips per forward pass.
        repeats: timed passes of each case.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        on_round: called with (rounds done, rounds in all).

    Returns:
        ``{"environment": ..., "repeats": ..., "rows": [...]}``; a row has keep_rate, batch_size, paper_macs,
        executed_macs, median_ms, q1_ms, q3_ms (of a batch), ms_per_clip, clips_per_second, speed_up (against the
        first keep rate at the same batch size), macs_ratio (of executed MACs, likewise), peak_memory_mb (None where
        the system does not tell).

    Raises:
        InvalidSetting: a keep rate, batch size or number of repeats is out of range or missing, or torch finds no
            such device.
    """
    rates, batches = list(keep_rates), list(batch_sizes)
    _check(rates, batches, repeats, device)
    counts = {rate: macs(model, keep_rate=rate) for rate in rates}
    device = str(resolve_device(device))
    model = copy.deepcopy(model).to(device).eval()
    size = (model.config.max_length, model.config.num_mel_bins)
    generator = torch.Generator().manual_seed(0)
    inputs = {batch: torch.randn(batch, *size, generator=generator).to(device) for batch in batches}
    frames = {batch: torch.full((batch,), size[0], device=device) for batch in batches}

    def passing(batch: int, rate: float) -> Callable[[], object]:
        def call() -> object:
            with torch.inference_mode():
                return model(inputs[batch], num_frames=frames[batch], keep_rate=rate)

        return call

    cases = {(batch, rate): passing(batch, rate) for batch in batches for rate in rates}
    wait = partial(torch.cuda.synchronize, device) if device.startswith("cuda") else None
    memory = {case: peak_memory_mb(call, device) for case, call in cases.items()}
    seconds = interleaved(cases, repeats=repeats, synchronise=wait, on_round=on_round)
    rows = []
    for (batch, rate), times in seconds.items():
        timing = {"batch_size": batch, **spread(times), "peak_memory_mb": memory[batch, rate]}
        base = statistics.median(seconds[batch, rates[0]])
        rows.append({"keep_rate": rate, **timing, **_derived(timing, 1e3 * base, counts[rate], counts[rates[0]])})
    return {"environment": environment(device), "repeats": repeats, "rows": rows}


def _derived(timing: dict[str, Any], base_ms: float, count: MacCount, base: MacCount) -> dict[str, float]:
    """Counts, rates and ratios of a row; ``base`` is the first keep rate at the same batch size."""
    return {
        "paper_macs": count.paper,
        "executed_macs": count.executed,
        "ms_per_clip": timing["median_ms"] / timing["batch_size"],
        "clips_per_second": timing["batch_size"] / timing["median_ms"] * 1e3,
        "speed_up": base_ms / timing["median_ms"],
        "macs_ratio": base.executed / count.executed,
    }


def _check(rates: Sequence[float], batches: Sequence[int], repeats: int, device: str) -> None:
    """Raise `InvalidSetting` for what cannot be measured; `macs` checks the keep rates themselves."""
    if not rates:
        raise InvalidSetting("keep_rates", rates, "at least one number in (0, 1]")
    if not batches:
        raise InvalidSetting("batch_sizes", batches, "at least one number from 1")
    for batch in batches:
        if batch < 1:
            raise InvalidSetting("batch_sizes", batch, "1 or more")
    if repeats < 1:
        raise InvalidSetting("repeats", repeats, "1 or more")
    resolve_device(device)


def peak_memory_mb(call: Callable[[], object], device: str = "cpu") -> float | None:
    """Largest memory of the process (Linux) or of the accelerator while ``call`` runs, in MB; None if unknown."""
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats(device)
        call()
        return torch.cuda.max_memory_allocated(device) / 1e6
    reset, status = Path("/proc/self/clear_refs"), Path("/proc/self/status")
    try:
        reset.write_text("5")
    except OSError:
        return None
    call()
    for line in status.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return None
