"""What every section shares: the setting, models, ways to run them, and rows of figures."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from spectrim.backbones import BUILDERS
from spectrim.measure.benchmark import interleaved, spread
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.kernels import fused

BACKBONES = ("ast", "audiomae")
SMALL = {
    "hidden_size": 64,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "num_hidden_layers": 4,
    "prune_at": [1, 2],
}
Call = Callable[[], object]


class NotHere(Exception):
    """This machine cannot run a section; the message says what it lacks."""


@dataclass(frozen=True)
class Setting:
    """What is measured, and how.

    Attributes:
        device: of models and inputs.
        small: tiny models and inputs, to try the script.
        dtype: of models.
        frames: of the input, 10 ms each.
        labels: classes.
        batches: clips per pass, in the order in which they are measured.
        rates: keep rates; the first is dense.
        repeats: timed rounds.
        inner: calls per timing, of operations much shorter than a wait for the device.
        roofline: of the device in half precision, FLOP/s.
        compile_mode: of torch.compile; None for its plain backend ``"eager"``.
        late: whether the section has used up its time.
    """

    device: torch.device
    small: bool
    dtype: torch.dtype
    frames: int
    labels: int
    batches: tuple[int, ...]
    rates: tuple[float, ...]
    repeats: int
    inner: int
    roofline: float
    compile_mode: str | None
    late: Callable[[], bool]

    @property
    def is_cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    def needs_cuda(self) -> None:
        """Raise `NotHere` without a GPU."""
        if not self.is_cuda:
            raise NotHere("needs CUDA")

    def model(self, backbone: str, dtype: torch.dtype | None = None) -> AudioTransformer:
        """Make a model of ViT-B size with random weights: speed does not depend on them."""
        torch.manual_seed(0)
        size: dict[str, Any] = SMALL if self.small else {}
        config = BUILDERS[f"{backbone}-base"](num_labels=self.labels, max_length=self.frames, **size)
        return AudioTransformer(config).eval().to(self.device, dtype or self.dtype)

    def spectrograms(self, model: AudioTransformer, batch: int, seed: int = 0) -> Tensor:
        """Random input, (batch, frames, mels)."""
        generator = torch.Generator().manual_seed(seed)
        shape = (batch, model.config.max_length, model.config.num_mel_bins)
        return torch.randn(shape, generator=generator).to(self.device, next(model.parameters()).dtype)

    def clock(self, cases: Mapping[Any, Call], inner: int = 1) -> dict[Any, list[float]]:
        """Seconds of each timed call, the cases in turn."""
        wait = partial(torch.cuda.synchronize, self.device) if self.is_cuda else None
        repeated = {name: _repeat(call, inner) for name, call in cases.items()}
        seconds = interleaved(repeated, repeats=self.repeats, warmup=3, synchronise=wait)
        return {name: [one / inner for one in times] for name, times in seconds.items()}


def _repeat(call: Call, times: int) -> Call:
    def again() -> None:
        for _ in range(times):
            call()

    return again


@contextmanager
def plainly() -> Iterator[None]:
    """Without the fused kernel, whatever it would suit."""
    types = fused.TYPES
    fused.TYPES = ()
    try:
        yield
    finally:
        fused.TYPES = types


def passing(model: Callable[..., Any], rate: float, plain: bool = False) -> Callable[[Tensor], Tensor]:
    """Make a function from spectrograms to logits."""

    def call(values: Tensor) -> Tensor:
        with torch.inference_mode(), plainly() if plain else nullcontext():
            return model(values, keep_rate=rate).logits

    return call


def captured(call: Callable[[Tensor], Tensor], values: Tensor) -> Callable[[Tensor], Tensor]:
    """Capture a call as a CUDA graph. What is returned copies its input in, replays, and always gives the same tensor.

    Args:
        call: from one tensor to another, with nothing that waits for the device.
        values: an input of the shape that all later ones have.
    """
    with torch.inference_mode():
        held = values.clone()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(3):
                call(held)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = call(held)

    def replay(fresh: Tensor) -> Tensor:
        with torch.inference_mode():
            held.copy_(fresh)
            graph.replay()
        return result

    return replay


def error_of(found: Tensor, wanted: Tensor) -> float:
    """Norm of the difference over the norm of what is wanted."""
    wanted = wanted.double()
    return float((found.double() - wanted).norm() / wanted.norm())


def row(setting: Setting, seconds: list[float], batch: int, executed: int) -> dict[str, float]:
    """Figures of one case.

    Args:
        setting: for the roofline.
        seconds: of a batch, each timing.
        batch: clips.
        executed: multiply-accumulates of a clip, as `spectrim.macs` counts what is executed.
    """
    middle = statistics.median(seconds)
    flops = 2 * executed * batch / middle
    return {
        **spread(seconds),
        "clips_per_second": batch / middle,
        "executed_macs": executed,
        "tflops": flops / 1e12,
        "of_roofline": flops / setting.roofline,
    }


def add_ratios(rows: list[dict[str, Any]], same: tuple[str, ...]) -> list[dict[str, Any]]:
    """Set every row beside the dense one that agrees with it in the fields ``same``.

    Adds ``speed_up`` (dense over own median), ``macs_ratio`` (of executed MACs) and ``of_promise``, their quotient: 1
    where every saved MAC saves its time.
    """
    dense = {tuple(one[name] for name in same): one for one in rows if one["keep_rate"] == 1.0 and not one.get("plain")}
    for one in rows:
        base = dense.get(tuple(one[name] for name in same))
        if base is not None:
            one["speed_up"] = base["median_ms"] / one["median_ms"]
            one["macs_ratio"] = base["executed_macs"] / one["executed_macs"]
            one["of_promise"] = one["speed_up"] / one["macs_ratio"]
    return rows


class Deadline:
    """Says when a section's seconds are over, or all of them."""

    def __init__(self, seconds: float, whole: Deadline | None = None) -> None:
        self.end = time.monotonic() + seconds
        self.whole = whole

    def __call__(self) -> bool:
        """Whether it is past."""
        return time.monotonic() > self.end or (self.whole is not None and self.whole())
