"""Clocks: latency, throughput and memory of a model at several keep rates, side by side in one run."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from spectrim.errors import InvalidSetting
from spectrim.inference.backend import Backend
from spectrim.inference.opening import ModelSource, open_model
from spectrim.machine import environment
from spectrim.network.macs import MacCount, macs

KEEP_RATES, BATCH_SIZES = (1.0, 0.7, 0.5), (1, 8)
"""What is measured where nobody says."""


def interleaved(
    cases: dict[Any, Callable[[], object]],
    *,
    repeats: int,
    warmup: int = 2,
    synchronise: Callable[[], object] | None = None,
    on_round: Callable[[int, int], object] | None = None,
    rest: float = 0.0,
    shuffle: int | None = None,
) -> dict[Any, list[float]]:
    """Time several callables in turn, so that what else the machine does hits all of them alike.

    Args:
        cases: name → what to call.
        repeats: timed rounds; each calls every case once.
        warmup: rounds before them that are not timed.
        synchronise: called around each call, e.g. ``torch.cuda.synchronize``.
        on_round: called with (rounds done, rounds in all).
        rest: seconds to wait before each call, for cases that run in different libraries: threads of ONNX Runtime, say,
            wait actively for more work, and take a core from whoever comes next.
        shuffle: seed of an order drawn anew in each round; None: as they are given.

    Returns:
        name → seconds of each timed call.
    """
    wait = synchronise or (lambda: None)
    seconds: dict[Any, list[float]] = {name: [] for name in cases}
    order, generator = list(cases.items()), random.Random(shuffle)
    for turn in range(warmup + repeats):
        if shuffle is not None:
            generator.shuffle(order)
        for name, call in order:
            if rest:
                time.sleep(rest)
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


def rates_of(model: Backend, keep_rates: Iterable[float] | None) -> Sequence[float | None]:
    """The keep rates to measure, each once.

    Args:
        model: to measure.
        keep_rates: in (0, 1]; None for `KEEP_RATES`, or for a model that has one operating point only.

    Returns:
        Keep rates; only None, which stands for its own, for a model that has no other.

    Raises:
        InvalidSetting: one is out of range, not to be had, or there is none.
    """
    if keep_rates is None and not model.prunable:
        return [None]
    rates = list(dict.fromkeys(KEEP_RATES if keep_rates is None else keep_rates))
    if not rates:
        raise InvalidSetting("keep_rates", rates, "at least one number in (0, 1]")
    for rate in rates:
        model.at(keep_rate=rate)
    return rates


def run(
    model: ModelSource,
    keep_rates: Iterable[float] | None = None,
    batch_sizes: Iterable[int] = BATCH_SIZES,
    *,
    repeats: int = 20,
    device: str = "cpu",
    on_round: Callable[[int, int], object] | None = None,
) -> dict[str, Any]:
    """Measure a model on random numbers at every keep rate and batch size, interleaved.

    Args:
        model: what `spectrim.inference.opening.open_model` takes; stays as it is, and is measured in its frozen form.
            Its own keep rate does not matter, unless it has no other: an exported file. What that takes (spectrograms
            or waveforms) is what is timed; its MACs are those of its configuration at the point that is timed.
        keep_rates: in (0, 1]; ratios are against the first of them. None as `rates_of` says.
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
    batches = list(batch_sizes)
    check_amount(batches, repeats)
    backend = open_model(model, device=device)
    rates = rates_of(backend, keep_rates)
    backend, device = backend.frozen(), str(backend.device)
    counts = {rate: macs(backend.config, pruning=backend.at(keep_rate=rate).pruning) for rate in rates}
    cases = _cases(backend, rates, batches)
    wait = partial(torch.cuda.synchronize, device) if device.startswith("cuda") else None
    memory = {case: peak_memory_mb(call, device) for case, call in cases.items()}
    seconds = interleaved(cases, repeats=repeats, synchronise=wait, on_round=on_round)
    rows = []
    for (batch, rate), times in seconds.items():
        timing = {"batch_size": batch, **spread(times), "peak_memory_mb": memory[batch, rate]}
        base = statistics.median(seconds[batch, rates[0]])
        derived = _derived(timing, 1e3 * base, counts[rate], counts[rates[0]])
        rows.append({"keep_rate": backend.pruning.keep_rate if rate is None else rate, **timing, **derived})
    return {"environment": environment(device, *backend.packages), "repeats": repeats, "rows": rows}


def _cases(
    model: Backend, rates: Sequence[float | None], batches: Sequence[int]
) -> dict[tuple[int, float | None], Callable[[], object]]:
    """A forward pass for each batch size and keep rate, to be called."""
    shape, device = model.input_shape, model.device
    generator = torch.Generator().manual_seed(0)
    inputs = {batch: torch.randn(batch, *shape, generator=generator).to(device) for batch in batches}
    lengths = {batch: torch.full((batch,), shape[0], device=device) for batch in batches}
    points = {rate: model.at(keep_rate=rate) for rate in rates}
    return {
        (batch, rate): partial(points[rate].logits, inputs[batch], lengths[batch])
        for batch in batches
        for rate in rates
    }


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


def check_amount(batches: Sequence[int], repeats: int) -> None:
    """Raise `InvalidSetting` for batch sizes and repeats that cannot be measured."""
    if not batches:
        raise InvalidSetting("batch_sizes", batches, "at least one number from 1")
    for batch in batches:
        if batch < 1:
            raise InvalidSetting("batch_sizes", batch, "1 or more")
    if repeats < 1:
        raise InvalidSetting("repeats", repeats, "1 or more")


def check_draws(draws: int) -> None:
    """Raise `InvalidSetting` for a number of random tables that tells nothing."""
    if isinstance(draws, bool) or not isinstance(draws, int) or draws < 0 or draws == 1:
        raise InvalidSetting("draws", draws, "0, or 2 or more: one draw does not tell how much draws differ")


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
