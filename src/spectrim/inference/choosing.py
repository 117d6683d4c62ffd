"""Which runtime and precision a model is run in, how fast each is, and how far its answers are from PyTorch's."""

from __future__ import annotations

import copy
import logging
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from scipy.stats import binomtest

from spectrim.audio.files import Samples
from spectrim.checkpoints.untrusted import one_line
from spectrim.errors import InvalidSetting, SpectrimError, one_of
from spectrim.inference.backend import Backend
from spectrim.inference.export_cache import cache_folder, entry_name, exported_file, remembered
from spectrim.inference.onnx_export import Progress, comparison_clips
from spectrim.inference.onnx_model import OnnxModel, onnx_device
from spectrim.inference.openvino_model import OpenVinoModel, check_openvino
from spectrim.inference.packing import pack_weights
from spectrim.inference.torch_model import DTYPES, TorchModel
from spectrim.machine import environment, multiplies_bfloat16, resolve_device
from spectrim.network.transformer import AudioTransformer

AUTO = "auto"
PRECISIONS = {"torch": ("fp32", "bf16"), "onnxruntime": ("fp32", "int8"), "openvino": ("fp32", "bf16", "int8")}
"""What each backend can run in."""

LEAST_AGREEMENT = 0.99
"""Share of the clips on which the best label must be that of PyTorch in fp32; of fewer than 100 clips, all."""
LARGEST_DIFFERENCE = 0.1
"""That a score of any label may have."""

CHECK_CLIPS, CHECK_BATCH = 32, 4
PAUSE = 0.05
"""Seconds before a timed pass: threads of ONNX Runtime wait actively on the core of whoever comes next."""

PASSING = (OSError, torch.OutOfMemoryError)
"""Why a candidate cannot run now: memory or a disk that is full may be free again. Any other reason lasts."""

Clips: TypeAlias = Callable[[Backend, int], Sequence[Samples]]
"""Called with a model and a number: at most so many waveforms at its rate, of those that will be tagged."""

Pair: TypeAlias = tuple[str, str]
"""A backend and a precision."""


@dataclass(frozen=True)
class Measured:
    """One of the candidates on the clips of the check.

    Attributes:
        backend: key of `PRECISIONS`.
        precision: one of its values.
        ms: median time a clip, from waveforms to scores, in batches of `CHECK_BATCH`.
        agreeing: clips with the best label of PyTorch in fp32.
        largest: difference of a score from it.
    """

    backend: str
    precision: str
    ms: float
    agreeing: int
    largest: float

    @property
    def name(self) -> str:
        """For messages."""
        return f"{self.backend} {self.precision}"


@dataclass(frozen=True)
class Choice:
    """What was found.

    Attributes:
        rows: PyTorch in fp32 first, then the candidates that run.
        clips: how many each heard.
        own: how many of those are the user's.
        left_out: candidates that cannot run here → why.
    """

    rows: list[Measured]
    clips: int
    own: int
    left_out: dict[str, str]

    def faithful(self, row: Measured) -> bool:
        """Whether its answers are near enough to be taken without having been asked for by name."""
        return row.agreeing >= LEAST_AGREEMENT * self.clips and row.largest <= LARGEST_DIFFERENCE

    def fastest(self, pairs: Sequence[Pair]) -> Measured:
        """The fastest of the candidates that are near enough to PyTorch in fp32.

        Raises:
            InvalidSetting: none is, or none runs.
        """
        rows = [row for row in self.rows if (row.backend, row.precision) in pairs and self.faithful(row)]
        if not rows:
            reasons = [f"{name}: {why}" for name, why in self.left_out.items()]
            reasons += [f"{row.name}: {self.distance(row)}" for row in self.rows[1:] if not self.faithful(row)]
            raise InvalidSetting("backend", AUTO, f"torch: nothing else can be taken here ({'; '.join(reasons)})")
        return min(rows, key=lambda row: row.ms)

    def distance(self, row: Measured) -> str:
        """In words, how far one is from PyTorch in fp32."""
        low = binomtest(row.agreeing, self.clips).proportion_ci(method="exact").low
        whose = f"clips, {self.own} of them yours" if self.own else "clips of the package, none of them yours"
        return (
            f"its best label is that of fp32 PyTorch on {row.agreeing} of {self.clips} {whose} (95 % bound: {low:.0%} "
            f"of such clips), scores differ by {row.largest:.2g} at most"
        )

    def told(self, taken: Measured) -> str:
        """One line: what is taken, how fast each is, how far it is from PyTorch in fp32, and what was left out."""
        others = ", ".join(f"{row.name} {row.ms:.3g}" for row in self.rows if row != taken)
        parts = [f"{taken.name}: {taken.ms:.3g} ms a clip" + (f" ({others})" if others else "")]
        if taken != self.rows[0]:
            parts.append(self.distance(taken))
        far = [row.name for row in self.rows[1:] if row != taken and not self.faithful(row)]
        parts += [f"too far from fp32 to be taken: {', '.join(far)}"] if far else []
        parts += [f"left out: {name} ({why})" for name, why in self.left_out.items()]
        return "; ".join(parts)


def check_names(backend: str | None, precision: str | None) -> None:
    """Refuse an unknown backend, and a precision that it does not have.

    Raises:
        InvalidSetting: naming it, and what is there.
    """
    if backend not in (None, AUTO, *PRECISIONS):
        raise InvalidSetting("backend", backend, one_of((AUTO, *PRECISIONS)))
    name = backend or "torch"
    if precision in (None, AUTO):
        return
    known = PRECISIONS.get(name, tuple(dict.fromkeys(one for found in PRECISIONS.values() for one in found)))
    if precision not in known:
        others = [other for other, found in PRECISIONS.items() if precision in found]
        advice = f"; {precision} is to be had with backend {' or '.join(others)}" if others else ""
        raise InvalidSetting("precision", precision, f"{one_of((AUTO, *known))} with backend {name}{advice}")


def chosen(
    network: AudioTransformer,
    backend: str,
    precision: str | None,
    device: str,
    clips: Clips | None = None,
    tell: Callable[[str], object] | None = None,
    on_step: Progress | None = None,
) -> Backend:
    """A model in the runtime and precision that are asked for, or in the fastest there is.

    What is needed is exported, checked, measured and compared with PyTorch in fp32 at the first call; all of it is
    kept in `spectrim.inference.export_cache.cache_folder` for the next.

    Args:
        network: the model at its operating point.
        backend: ``"auto"`` or a key of `PRECISIONS`.
        precision: ``"auto"`` or one that the backend has; None is the fastest with backend ``"auto"``, else fp32.
        device: as for `spectrim.inference.opening.open_model`.
        clips: gives what is to be tagged, to measure and compare on; filled up with the package's to `CHECK_CLIPS`.
        tell: called with one line that says what is taken and why; the log (INFO) otherwise.
        on_step: told what is being done.

    Raises:
        InvalidSetting, MissingExtra, ExportError: what was asked for by name cannot be had; says why.
    """
    pairs, named = _pairs(backend, precision), AUTO not in (backend, precision)
    place = _place(backend, device)
    reference = TorchModel(pack_weights(copy.deepcopy(network).to(place, torch.float32)))
    mark = TorchModel(network).fingerprint()
    maker = _Maker(network, mark, place, device if backend == "onnxruntime" else str(place), on_step)
    if named:
        maker(pairs[0])
    measured = _measured(reference, maker, pairs, clips, mark)
    taken = next(row for row in measured.rows if (row.backend, row.precision) == pairs[0]) if named else None
    taken = taken or measured.fastest(pairs)
    (tell or logging.getLogger("spectrim").info)(measured.told(taken))
    pair = taken.backend, taken.precision
    return reference if pair == ("torch", "fp32") else maker(pair)


def _pairs(backend: str, precision: str | None) -> list[Pair]:
    """The candidates that are asked for."""
    names = list(PRECISIONS) if backend == AUTO else [backend]
    wanted = precision or (AUTO if backend == AUTO else "fp32")
    return [(name, one) for name in names for one in PRECISIONS[name] if wanted in (AUTO, one)]


def _place(backend: str, device: str) -> torch.device:
    """Where to run: where the backend finds a device, and PyTorch too, which it is compared with."""
    if backend == "openvino":
        check_openvino(device)
        return torch.device("cpu")
    if backend == "onnxruntime" and onnx_device(device).type == "cpu":
        return torch.device("cpu")
    return resolve_device(device)


class _Maker:
    """Makes candidates, each once; ``device`` is what those in another runtime are asked for."""

    def __init__(
        self, network: AudioTransformer, mark: str, place: torch.device, device: str, on_step: Progress | None
    ) -> None:
        self._network, self._mark, self._place, self._on_step = network, mark, place, on_step
        self._device = device
        self._made: dict[Pair, Backend] = {}

    def __call__(self, pair: Pair) -> Backend:
        """A candidate, made ready to run.

        Raises:
            SpectrimError: it cannot be had; says why.
        """
        if pair not in self._made:
            self._made[pair] = self._make(*pair)
        return self._made[pair]

    def _make(self, backend: str, precision: str) -> Backend:
        if backend == "torch":
            if precision == "bf16" and not multiplies_bfloat16(self._place):
                raise InvalidSetting("precision", precision, "fp32: nothing here multiplies bfloat16")
            return TorchModel(pack_weights(copy.deepcopy(self._network).to(self._place, DTYPES[precision])))
        if backend == "onnxruntime":
            onnx_device(self._device)
            return OnnxModel(exported_file(self._network, self._mark, precision, self._on_step), self._device)
        check_openvino(self._device, precision)
        return OpenVinoModel(exported_file(self._network, self._mark, "fp32", self._on_step), self._device, precision)


def _measured(reference: Backend, maker: _Maker, pairs: Sequence[Pair], clips: Clips | None, mark: str) -> Choice:
    """What was measured here before, or is now.

    The key holds the model, the machine and its threads, and what was asked for; which clips were heard is not in it.
    It is measured anew where a candidate was left out for what is `PASSING`.
    """
    device = str(reference.device)
    settings = {"model": mark, "pairs": pairs, "machine": environment(device), "check": [CHECK_CLIPS, CHECK_BATCH]}

    def make() -> dict[str, Any]:
        backends, left_out, lasting = {("torch", "fp32"): reference}, {}, True
        for pair in pairs:
            try:
                backends.setdefault(pair, maker(pair) if pair not in backends else reference)
            except (SpectrimError, RuntimeError, OSError) as error:  # the exporter's own errors are RuntimeErrors
                left_out[" ".join(pair)] = _reason(error)
                lasting = lasting and not isinstance(error, PASSING)
        own = [] if clips is None else list(clips(reference, CHECK_CLIPS))
        waves = [*own, *comparison_clips(reference.config, CHECK_CLIPS - len(own))] if len(own) < CHECK_CLIPS else own
        return {**asdict(Choice(compared(backends, waves), len(waves), len(own), left_out)), "lasting": lasting}

    def whole(record: Mapping[str, Any]) -> bool:
        return record["lasting"] is True and len(_read(record).rows) > 0

    return _read(remembered(cache_folder() / f"{entry_name(settings)}.choice.json", make, whole))


def _reason(error: Exception) -> str:
    """Why a candidate is left out, in one line; its name says the precision."""
    if isinstance(error, InvalidSetting) and error.field == "precision":
        return error.allowed
    return one_line(str(error).partition("\n")[0])


def _read(record: Mapping[str, Any]) -> Choice:
    rows = [Measured(**row) for row in record["rows"]]
    return Choice(rows, int(record["clips"]), int(record["own"]), dict(record["left_out"]))


def compared(backends: Mapping[Pair, Backend], waves: Sequence[Samples]) -> list[Measured]:
    """Run each on the same clips, in turn, batch by batch; the first batch is not timed where there are more.

    Args:
        backends: by what they are; the first is what the others are compared with.
        waves: mono, at the model's rate.
    """
    scores: dict[Pair, list[np.ndarray]] = {pair: [] for pair in backends}
    seconds: dict[Pair, list[float]] = {pair: [] for pair in backends}
    for start in range(0, len(waves), CHECK_BATCH):
        batch = waves[start : start + CHECK_BATCH]
        for pair, backend in backends.items():
            time.sleep(PAUSE)
            begin = time.perf_counter()
            scores[pair].append(backend.scores(batch))
            seconds[pair].append((time.perf_counter() - begin) / len(batch))
    wanted = np.concatenate(next(iter(scores.values())))
    rows = []
    for pair, parts in scores.items():
        found, timed = np.concatenate(parts), seconds[pair][1:] or seconds[pair]
        agreeing = int((found.argmax(axis=1) == wanted.argmax(axis=1)).sum())
        # A score that is no number is as far away as can be.
        largest = float(np.nan_to_num(np.abs(found - wanted), nan=1.0).max())
        rows.append(Measured(*pair, 1e3 * statistics.median(timed), agreeing, largest))
    return rows
