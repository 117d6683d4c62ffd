"""Files to labels: batches across files, windows of long files, and an error instead of a score for a bad one."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectrim.audio.decoding import LOOK_AHEAD, Event, decode_files
from spectrim.audio.files import Note, Samples, Window, window_samples, windows_and_notes
from spectrim.audio.finding import Paths, Selection, select_files
from spectrim.audio.frontend import Frontend, FrontendOutput
from spectrim.checkpoints import from_pretrained
from spectrim.config import SpectrimConfig
from spectrim.errors import InvalidSetting, one_of
from spectrim.inference.onnx_model import OnnxModel, device_for, is_exported
from spectrim.inference.packing import pack_weights
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.pruning import given_pruning

AGGREGATES = ("mean", "max", "none")
BATCH_SIZE = 16

Scores: TypeAlias = NDArray[np.float32]
Forward: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Takes normalised log-mel (batch, frames, mels) and real frames (batch,), gives logits (batch, labels)."""
Model: TypeAlias = AudioTransformer | OnnxModel


@dataclass(frozen=True)
class WindowScores:
    """One entry of a timeline: ``start`` and ``end`` in seconds, ``scores`` (labels,) float32."""

    start: float
    end: float
    scores: Scores


@dataclass(frozen=True)
class FilePrediction:
    """What the model hears in one file.

    Attributes:
        path: the file, as it was named or found.
        labels: names, in the order of the scores.
        seconds: how much of it was heard, up to the end of the last window.
        timeline: scores of every window; one window for a file no longer than a window.
        scores: (labels,) float32, the aggregate of the timeline; None where none was asked for, or after an error.
        error: one line that says why there are no scores; None if all is well.
        note: one line on what is unusual about a file that was heard, such as a header without a length; None for most.
    """

    path: str
    labels: Sequence[str] = field(repr=False)
    seconds: float = 0.0
    timeline: Sequence[WindowScores] = field(default=(), repr=False)
    scores: Scores | None = field(default=None, repr=False)
    error: str | None = None
    note: str | None = None

    def top(self, number: int = 5, scores: Scores | None = None) -> list[tuple[str, float]]:
        """Best labels with their scores, best first.

        Args:
            number: how many; all if there are fewer.
            scores: (labels,), of a window; None for the aggregate.
        """
        chosen = self.scores if scores is None else scores
        if chosen is None:
            return []
        order = np.argsort(-chosen, kind="stable")[:number]
        return [(self.labels[index], float(chosen[index])) for index in order]


class Tagger:
    """Scores for a batch of waveforms: front end, model, activation.

    Args:
        config: of the model: front end, labels, and ``problem_type``, which says sigmoid (multi-label) or softmax.
        forward: the model, whatever runs it.
        device: where the front end puts the model's input.
        prepare: what makes the two things that ``forward`` takes of waveforms; None for the front end.

    Attributes:
        labels: names, in the order of the scores.
        window_seconds: the longest waveform that the model hears in full: its number of frames. A longer one is cut.
        hop_seconds: the same without the overlap of neighbouring frames; windows at this distance share out the
            frames of a long waveform between them.
    """

    def __init__(
        self,
        config: SpectrimConfig,
        forward: Forward,
        device: torch.device | str = "cpu",
        prepare: Callable[[Sequence[Samples]], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        self.config = config
        self.forward = forward
        self.prepare = prepare or self.features
        self.frontend = Frontend.from_config(config).to(device)
        self.labels = [config.id2label[index] for index in range(config.num_labels)]
        shift, length = self.frontend.frame_shift, self.frontend.frame_length
        self.window_seconds = ((config.max_length - 1) * shift + length) / config.sampling_rate
        self.hop_seconds = config.max_length * shift / config.sampling_rate

    @classmethod
    def from_model(cls, model: Model, device: torch.device | str = "cpu", keep_rate: float | None = None) -> Tagger:
        """Use a model, which is moved to the device and put into evaluation mode.

        Args:
            model: the model.
            device: where it is to run.
            keep_rate: instead of the model's own.

        Raises:
            InvalidSetting: the keep rate is out of range, or one is given for an exported model.
        """
        if isinstance(model, OnnxModel):
            model.refuse_keep_rate(keep_rate)
            prepare = model.prepare if model.takes == "waveforms" else None
            return cls(model.config, model.to(device).logits, "cpu", prepare)
        pruning = given_pruning(model.config.pruning, None, {"keep_rate": keep_rate})
        model.to(device).eval()

        def forward(input_values: Tensor, num_frames: Tensor) -> Tensor:
            return model(input_values.to(model.dtype), num_frames=num_frames, pruning=pruning).logits

        return cls(model.config, forward, device)

    def features(self, waveforms: Sequence[Samples]) -> FrontendOutput:
        """Normalised log-mel of mono waveforms at the model's sampling rate, each (n,)."""
        with torch.inference_mode():
            return self.frontend(waveforms)

    def __call__(self, waveforms: Sequence[Samples]) -> Scores:
        """Scores (batch, labels) float32 of mono waveforms at the model's sampling rate, each (n,)."""
        given = self.prepare(waveforms)
        with torch.inference_mode():
            return self.activate(self.forward(*given)).cpu().numpy()

    def activate(self, logits: Tensor) -> Tensor:
        """Scores of logits, both (batch, labels), in float32, as transformers' pipeline makes them."""
        if self.config.multi_label:
            return logits.float().sigmoid()
        return logits.float().softmax(dim=-1)


PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
"""Type of a model's weights and arithmetic in PyTorch; the front end, softmax and scores stay float32."""


def open_model(source: str | os.PathLike[str], keep_rate: float | None = None, precision: str | None = None) -> Model:
    """A model by its name, ready to infer: an exported file (.onnx), or whatever `spectrim.from_pretrained` takes.

    On a CPU its weights are packed (`spectrim.pack_weights`).

    Args:
        source: of the model.
        keep_rate: share of the patches kept at each pruning block; None as the model says.
        precision: one of `PRECISIONS`; None as the weights are. bfloat16 is faster where the processor multiplies it
            (AMX, AVX512-BF16, GPUs) and slower elsewhere.

    Raises:
        InvalidSetting: the keep rate is out of range, the precision unknown, or either given for an exported model.
        CheckpointError: it cannot be loaded.
    """
    if precision is not None and precision not in PRECISIONS:
        raise InvalidSetting("precision", precision, one_of(PRECISIONS))
    if is_exported(source):
        if precision is not None:
            raise InvalidSetting("precision", precision, "none with an exported file: spectrim export --precision")
        exported = OnnxModel(source)
        exported.refuse_keep_rate(keep_rate)
        return exported
    model = from_pretrained(source, keep_rate=keep_rate)
    return pack_weights(model if precision is None else model.to(PRECISIONS[precision]))


def predict(
    paths: Paths | Selection,
    model: Model | str | Path = "spectrim-mini",
    *,
    keep_rate: float | None = None,
    batch_size: int = BATCH_SIZE,
    device: str = "auto",
    window: float | None = None,
    hop: float | None = None,
    aggregate: str = "mean",
    workers: int | None = None,
    explain: str | Path | None = None,
    decode: Callable[..., Iterable[Window | Note]] = windows_and_notes,
    on_window: Callable[[float], object] | None = None,
) -> Generator[FilePrediction]:
    """Tag audio files.

    Every file is cut into windows (`spectrim.audio.files.iterate_windows`); the default window is what fills the
    model's frames (10.255 s for 1024, 1.295 s for 128), and the default hop lets every frame be heard once (10.24 s,
    1.28 s). Windows of many files share a batch. What is held in memory does not grow with the length of a file, apart
    from its scores.

    Args:
        paths: as for `spectrim.audio.finding.select_files`, or what it gave.
        model: a model, which goes to the device, or what `open_model` takes.
        keep_rate: share of the patches kept at each pruning block, in (0, 1]; None as the model says, which is the only
            choice for an exported one.
        batch_size: windows in one forward pass. It does not change scores beyond rounding.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        window: length of a window in seconds, 0.025 to the default.
        hop: from one window's start to the next, in seconds; ``window`` where only that is given.
        aggregate: ``"mean"`` (weighted by the windows' lengths), ``"max"`` or ``"none"``.
        workers: decoding processes; None for a few.
        explain: folder for a picture of every window: spectrogram and what is kept after each stage.
        decode: what decodes a file; takes path, window_seconds, hop_seconds and sampling_rate.
        on_window: called with the seconds of each window as it is decoded, before the model hears it.

    Returns:
        One prediction a file, in the order of the selection, those of empty folders first. Ask for the next, or
        `close` the iterator: until then workers wait.

    Raises:
        InvalidSetting: a setting is out of range, or there is not one file; before any work.
        CheckpointError: the model cannot be loaded; likewise.
    """
    target = device_for(model, device)
    selection = paths if isinstance(paths, Selection) else select_files(paths)
    if not isinstance(model, AudioTransformer | OnnxModel):
        model = open_model(model, keep_rate)
    tagger = Tagger.from_model(model, target, keep_rate)
    batches = _Batches(tagger, batch_size, aggregate)
    events = decoded_windows(
        selection.files, tagger, window=window, hop=hop, batch_size=batch_size, workers=workers, decode=decode
    )
    if explain is not None:
        from spectrim.explain.window_pictures import window_painter

        batches.draw = window_painter(model, tagger.frontend, Path(explain), selection.files, keep_rate)
    return _predict(selection, events, batches, on_window)


def decoded_windows(
    files: Sequence[str],
    tagger: Tagger,
    *,
    window: float | None = None,
    hop: float | None = None,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    decode: Callable[..., Iterable[Window | Note]] = windows_and_notes,
) -> Generator[tuple[int, Event]]:
    """The windows that `predict` makes of files, without the model; arguments and errors as there.

    Yields:
        As `spectrim.audio.decoding.decode_files`.
    """
    rate = tagger.config.sampling_rate
    length, distance = check_windows(tagger, window, hop)
    cutter = partial(decode, window_seconds=length, hop_seconds=distance, sampling_rate=rate)
    room = max(LOOK_AHEAD, 2 * batch_size * window_samples(length, distance, rate)[0])
    return decode_files(files, cutter, workers=workers, look_ahead=room)


def check_windows(tagger: Tagger, window: float | None = None, hop: float | None = None) -> tuple[float, float]:
    """Window and hop in seconds, with the model's own where they are not given.

    Raises:
        InvalidSetting: the window is longer than the model hears or shorter than a frame, or the hop not positive.
    """
    if window is not None and window > tagger.window_seconds:
        allowed = f"up to {tagger.window_seconds:g} seconds, the {tagger.config.max_length} frames of this model"
        raise InvalidSetting("window", window, allowed)
    if hop is None:
        hop = tagger.hop_seconds if window is None else window
    length = tagger.window_seconds if window is None else window
    window_samples(length, hop, tagger.config.sampling_rate)
    return length, hop


def _predict(
    selection: Selection,
    events: Generator[tuple[int, Event]],
    batches: _Batches,
    on_window: Callable[[float], object] | None,
) -> Generator[FilePrediction]:
    with closing(events):
        for error in selection.errors:
            yield FilePrediction(error.source, batches.tagger.labels, error=error.reason)
        for index, event in events:
            if isinstance(event, Window) and on_window is not None:
                on_window(event.seconds)
            batches.add(selection.files[index], event)
            yield from batches.ready()
        batches.run()
        yield from batches.ready()


class _File:
    """A file on its way: what is known of it so far."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.windows: list[WindowScores] = []
        self.in_batch = 0
        self.ended = False
        self.error: str | None = None
        self.notes: list[str] = []


class _Batches:
    """Windows of many files in, predictions in the order of the files out."""

    def __init__(self, tagger: Tagger, size: int, aggregate: str) -> None:
        if aggregate not in AGGREGATES:
            raise InvalidSetting("aggregate", aggregate, one_of(AGGREGATES))
        if size < 1:
            raise InvalidSetting("batch_size", size, "1 or more")
        self.tagger = tagger
        self.size = size
        self.aggregate = aggregate
        self.draw: Callable[[str, Window, Scores], object] | None = None
        self._batch: list[tuple[_File, Window]] = []
        self._files: deque[_File] = deque()

    def add(self, path: str, event: Event) -> None:
        """Take the next event of the newest file, or the first of the next one."""
        if not self._files or self._files[-1].ended:
            self._files.append(_File(path))
        file = self._files[-1]
        if isinstance(event, Window):
            file.in_batch += 1
            self._batch.append((file, event))
            if len(self._batch) == self.size:
                self.run()
            return
        if isinstance(event, Note):
            file.notes.append(event.text)
            return
        file.ended = True
        if event is not None:
            file.error = event.reason
            file.in_batch = 0
            self._batch = [(other, window) for other, window in self._batch if other is not file]

    def run(self) -> None:
        """Score the windows that wait."""
        if not self._batch:
            return
        batch, self._batch = self._batch, []
        for (file, window), scores in zip(batch, self.tagger([window.samples for _, window in batch]), strict=True):
            file.in_batch -= 1
            file.windows.append(WindowScores(window.start, window.end, scores))
            if self.draw is not None:
                self.draw(file.path, window, scores)

    def ready(self) -> Iterator[FilePrediction]:
        """Predictions of the files that are finished and before which none is not."""
        while self._files and self._files[0].ended and self._files[0].in_batch == 0:
            file = self._files.popleft()
            if file.error is not None:
                yield FilePrediction(file.path, self.tagger.labels, error=file.error)
                continue
            seconds = file.windows[-1].end
            scores = aggregated(file.windows, self.aggregate)
            note = "; ".join(file.notes) or None
            yield FilePrediction(file.path, self.tagger.labels, seconds, file.windows, scores, note=note)


def aggregated(timeline: Sequence[WindowScores], aggregate: str) -> Scores | None:
    """One score a label (labels,) for a file; see `predict`."""
    if aggregate == "none":
        return None
    scores = np.stack([window.scores for window in timeline])
    if aggregate == "max":
        return scores.max(axis=0)
    weights = np.array([window.end - window.start for window in timeline])
    return np.average(scores, axis=0, weights=weights).astype(np.float32)
