"""Tagging on many machines, with Ray Data.

Tasks decode, each a part of the files at a time, in a process of its own that a damaged file may crash; actors run the
model, one a GPU or a few cores; the process that began puts the scores together, as `spectrim.inference.passes` says.
Ray does anew what was lost with a worker or a machine. That nothing is lost and nothing comes twice is not left to it:
passes are numbered, and carry a checksum of all that came before them.
"""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spectrim.audio.remote import NO_FILE
from spectrim.checkpoints import DescribedSource
from spectrim.errors import InvalidSetting, MissingExtra, SpectrimError, check_whole, one_of
from spectrim.inference.backend import Backend, KeepRate
from spectrim.inference.opening import open_model
from spectrim.inference.part_files import Part
from spectrim.inference.pass_tables import Cutting, decoded_passes, pass_of, passes_schema
from spectrim.inference.passes import Assembly
from spectrim.inference.predict import BATCH_SIZE, check_windows
from spectrim.inference.results import AGGREGATES, FilePrediction

MODEL_CORES = 4
"""Cores of one model where nobody says, or as many as the smallest machine has."""

DECODING_SHARE = 0.25
"""Of a core, that Ray counts for decoding a part beside models on CPUs: that is quick, and waits for them."""

BLOCK_BYTES = 1 << 24
"""Samples that go from machine to machine at a time."""

WAVE = 4096
"""Parts that Ray knows of at a time."""


QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
"""What Ray is told before it is loaded, unless the user has told it otherwise: to report nothing, and to say little."""


@dataclass(frozen=True)
class ModelSettings:
    """What opens the same model on every machine; fields as for `spectrim.inference.opening.open_model`.

    Attributes:
        drop_padding: leave out patches that hold only padding.
    """

    source: str | DescribedSource
    keep_rate: KeepRate | None = None
    precision: str | None = None
    device: str = "auto"
    backend: str | None = None
    drop_padding: bool = False

    def open(self) -> Backend:
        """Open it here."""
        model = open_model(self.source, self.keep_rate, self.precision, self.device, self.backend)
        return model.at(model.pruning.changed({"drop_padding": True})) if self.drop_padding else model

    def anywhere(self) -> ModelSettings:
        """The same, where a path does not depend on the folder that a process is in."""
        place = str(self.source)
        if not Path(place).exists():
            return self
        place = str(Path(place).absolute())
        return replace(
            self, source=replace(self.source, place=place) if isinstance(self.source, DescribedSource) else place
        )


@dataclass(frozen=True)
class Shares:
    """What Ray counts for each process, in cores and GPUs.

    Attributes:
        models: how many there are.
        model_cpus, model_gpus: of one.
        threads: that one computes with on a CPU; None on a GPU.
        decoding_cpus: of a task that decodes.
    """

    models: int
    model_cpus: float
    model_gpus: int
    threads: int | None
    decoding_cpus: float


def shares_of(machines: Sequence[Mapping[str, float]], device: str, model_cores: int | None) -> Shares:
    """Divide machines among models and decoding.

    Args:
        machines: what each has, as Ray calls it: ``CPU``, ``GPU``.
        device: ``"auto"`` takes GPUs where there are any.
        model_cores: of one model on CPUs.

    Raises:
        InvalidSetting: no machine has so many cores, or there is no GPU where one is named.
    """
    gpus = int(sum(machine.get("GPU", 0) for machine in machines))
    if device not in ("auto", "cpu", "cuda"):
        raise InvalidSetting("device", device, "auto, cpu or cuda with --engine ray: it gives each model a GPU")
    if device == "cuda" and not gpus:
        raise InvalidSetting("device", device, "auto or cpu: no machine of this Ray cluster has a GPU")
    if gpus and device != "cpu":
        if model_cores is not None:
            raise InvalidSetting("model_cores", model_cores, "only with models on CPUs: --device cpu")
        return Shares(gpus, 1, 1, None, 1)
    cores = [int(machine.get("CPU", 0)) for machine in machines]
    most = max(cores, default=0)
    if model_cores is None:
        model_cores = min([MODEL_CORES, *(number for number in cores if number)])
    if not 1 <= model_cores <= most:
        raise InvalidSetting("model_cores", model_cores, f"1 to {most}, the cores of a machine of this Ray cluster")
    models = sum(number // model_cores for number in cores)
    return Shares(models, model_cores * (1 - DECODING_SHARE), 0, model_cores, DECODING_SHARE)


def import_ray() -> Any:
    """Ray with Ray Data.

    Raises:
        MissingExtra: it is not installed.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingExtra("Ray", "ray", "--engine ray") from error
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    return ray


@contextmanager
def cluster(address: str | None = None) -> Iterator[list[dict[str, float]]]:
    """Be connected to a Ray cluster, or to one of this machine alone that ends with this; gives what each machine has.

    Args:
        address: ``"auto"`` or ``HOST:PORT`` of a cluster that runs; None for this machine. Where this process is
            connected already, that is taken.

    Raises:
        InvalidSetting: there is no cluster there.
        MissingExtra: Ray is not installed.
    """
    ray = import_ray()
    if address is not None and "://" in address:
        allowed = "auto, or HOST:PORT, from a machine of the cluster: Ray Data does not run through a Ray client"
        raise InvalidSetting("address", address, allowed)
    connected = ray.is_initialized()
    if not connected:
        options = {} if address is not None else {"include_dashboard": False}
        try:
            ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise InvalidSetting("address", address, f"a Ray cluster that runs ({error})") from error
    try:
        yield [machine["Resources"] for machine in ray.nodes() if machine["Alive"]]
    finally:
        if not connected:
            ray.shutdown()


def predict_on_ray(
    parts: Sequence[Part],
    settings: ModelSettings,
    model: Backend,
    machines: Sequence[Mapping[str, float]],
    *,
    batch_size: int = BATCH_SIZE,
    window: float | None = None,
    hop: float | None = None,
    aggregate: str = "mean",
    workers: int | None = None,
    model_cores: int | None = None,
) -> Generator[FilePrediction]:
    """Tag audio files on a Ray cluster that this process is connected to.

    Scores are those that `spectrim.inference.predict.predict_files` gives of each part alone, to the bit where
    processors and threads are the same.

    Args:
        parts: the files. Paths must name the same file on every machine; URLs do.
        settings: what opens the model on other machines.
        model: the same, opened here.
        machines: what `cluster` gave.
        batch_size, window, hop, aggregate: as for `predict_files`.
        workers: parts that are decoded at a time; None for as many as there is room for.
        model_cores: of one model on CPUs.

    Returns:
        One prediction a file: those of one part in its order, parts in any.

    Raises:
        InvalidSetting: a setting is out of range, before any work; or a file that is here is not elsewhere.
        SpectrimError: a model could not be opened elsewhere, or is another one there; or Ray has failed.
    """
    length, distance = check_windows(model, window, hop)
    check_whole("batch_size", batch_size)
    if workers is not None:
        check_whole("workers", workers)
    if aggregate not in AGGREGATES:
        raise InvalidSetting("aggregate", aggregate, one_of(AGGREGATES))
    shares = shares_of(machines, settings.device, model_cores)
    rate = model.config.sampling_rate
    decode = partial(decoded_passes, cutting=Cutting(length, distance, rate, str(Path.cwd())), batch_size=batch_size)
    placed = replace(settings.anywhere(), device="cuda" if shares.model_gpus else "cpu")
    opening = {"settings": placed, "fingerprint": model.fingerprint(), "threads": shares.threads}
    labels = model.labels

    def predictions() -> Generator[FilePrediction]:
        for begin in range(0, len(parts), WAVE):
            wave = parts[begin : begin + WAVE]
            under_way = [Assembly(part.files, labels, aggregate, rate) for part in wave]
            with closing(_scored(wave, decode, opening, shares, workers)) as rows:
                for row in rows:
                    found, scores = pass_of(row, len(labels))
                    for prediction in under_way[row["part"]].take(found, scores):
                        _refuse_missing(prediction)
                        yield prediction
            lost = [part for part, assembly in zip(wave, under_way, strict=True) if not assembly.complete]
            if lost:
                raise SpectrimError(
                    f"{len(lost)} of {len(wave)} parts have come back incomplete from Ray, {lost[0].name} first"
                )

    return predictions()


def _refuse_missing(prediction: FilePrediction) -> None:
    """Refuse a file that was not found elsewhere, but is here: it must not be taken for a file that cannot be heard."""
    if prediction.error == NO_FILE and Path(prediction.path).exists():
        allowed = "paths that are the same file on every machine, as on a shared folder, or URLs"
        raise InvalidSetting("paths", prediction.path, f"{allowed}: a machine of the cluster has no such file")


def _scored(
    parts: Sequence[Part],
    decode: Callable[[Any], Iterator[Any]],
    opening: Mapping[str, Any],
    shares: Shares,
    workers: int | None,
) -> Generator[dict[str, Any]]:
    """The passes of parts with their scores, as rows, in any order."""
    ray = import_ray()
    import pyarrow

    context = ray.data.DataContext.get_current().copy()
    context.target_max_block_size = BLOCK_BYTES
    context.enable_progress_bars = context.print_on_execution_start = False
    tables = [
        pyarrow.table({"part": [index], "files": [[os.fsencode(file) for file in part.files]]})
        for index, part in enumerate(parts)
    ]
    with ray.data.DataContext.current(context):
        data = ray.data.from_arrow(tables).map_batches(
            decode,
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=shares.decoding_cpus,
            compute=ray.data.TaskPoolStrategy(size=workers),
        )
        data = data.map_batches(
            Scorer,
            fn_constructor_kwargs=opening,
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=shares.model_cpus,
            num_gpus=shares.model_gpus,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=shares.models, initial_size=shares.models),
        )
        try:
            for table in data.iter_batches(batch_size=None, batch_format="pyarrow"):
                yield from table.to_pylist()
        except ray.exceptions.RayError as error:
            raise SpectrimError(_last_words(str(error))) from error


def _last_words(said: str) -> str:
    """The line of an error of Ray that says what went wrong: the last one of ours, else the last one."""
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["Ray has failed without saying why"]
    ours = [line.partition(": ")[2] for line in lines if line.startswith("spectrim.errors.")]
    return [*lines, *ours][-1]


class Scorer:
    """A model on some machine; an actor of Ray.

    Args:
        settings: what opens it.
        fingerprint: of the model that is meant.
        threads: that it computes with; None for as many as PyTorch takes.

    Raises:
        SpectrimError: what is opened there is another model.
    """

    def __init__(self, settings: ModelSettings, fingerprint: str, threads: int | None) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        self._model = settings.open()
        if self._model.fingerprint() != fingerprint:
            raise SpectrimError(f"{settings.source} is another model on {platform.node()} than where the run began")

    def __call__(self, table: Any) -> Any:
        """A table of passes with their scores in place of their samples."""
        import pyarrow

        scores = [self._scores(*pair) for pair in zip(table["samples"], table["lengths"].to_pylist(), strict=True)]
        named = table.drop_columns("samples").append_column("scores", pyarrow.array(scores, pyarrow.large_binary()))
        return named.cast(passes_schema("scores"))

    def _scores(self, samples: Any, lengths: Sequence[int]) -> bytes:
        if not lengths:
            return b""
        waveforms = np.frombuffer(samples.as_buffer(), np.float32).copy()
        return self._model.scores(np.split(waveforms, np.cumsum(lengths)[:-1])).astype(np.float32).tobytes()
