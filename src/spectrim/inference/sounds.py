"""The one call from sound to labels: `spectrim.predict`."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import chain
from typing import Any, Protocol, TypeAlias, TypeGuard, overload

import numpy as np
import torch
from torch import Tensor

from spectrim.audio.decoders import HIGHEST_RATE, LOWEST_RATE
from spectrim.audio.decoding import Event
from spectrim.audio.files import Note, Samples, Window, cut, frame_samples, resampled, window_samples
from spectrim.audio.finding import Selection, select_files
from spectrim.audio.waveforms import as_clips, check_clips
from spectrim.errors import AudioError, InputShapeError, InvalidSetting
from spectrim.inference.backend import KeepRate
from spectrim.inference.opening import ModelSource, open_model, pruned_by
from spectrim.inference.predict import BATCH_SIZE, check_windows, predict_files, tagged
from spectrim.inference.results import FilePrediction
from spectrim.inference.tagger import Tagger


class Row(Protocol):
    """What is read as a row of `datasets.Audio`; before release 4 a dictionary, since then a decoder of torchcodec."""

    def __getitem__(self, key: str, /) -> Any:
        """``"array"`` or ``"sampling_rate"``."""


PathLike: TypeAlias = str | os.PathLike[str]
Array: TypeAlias = np.ndarray | Tensor | Row
Sound: TypeAlias = PathLike | Array
"""A file, a mono waveform (samples,), or a row of `datasets.Audio`: ``row["array"]`` and ``row["sampling_rate"]``."""


@overload
def predict(  # type: ignore[overload-overlap]
    sound: Sound,
    model: ModelSource = ...,
    *,
    keep_rate: KeepRate | None = ...,
    criterion: str | None = ...,
    reducer: str | None = ...,
    sampling_rate: int | None = ...,
    batch_size: int = ...,
    device: str = ...,
    backend: str | None = ...,
    precision: str | None = ...,
    window: float | None = ...,
    hop: float | None = ...,
    aggregate: str = ...,
    workers: int | None = ...,
) -> FilePrediction: ...
@overload
def predict(
    sound: Iterable[Sound],
    model: ModelSource = ...,
    *,
    keep_rate: KeepRate | None = ...,
    criterion: str | None = ...,
    reducer: str | None = ...,
    sampling_rate: int | None = ...,
    batch_size: int = ...,
    device: str = ...,
    backend: str | None = ...,
    precision: str | None = ...,
    window: float | None = ...,
    hop: float | None = ...,
    aggregate: str = ...,
    workers: int | None = ...,
) -> Iterator[FilePrediction]: ...
def predict(
    sound: Sound | Iterable[Sound],
    model: ModelSource = "spectrim-mini",
    *,
    keep_rate: KeepRate | None = None,
    criterion: str | None = None,
    reducer: str | None = None,
    sampling_rate: int | None = None,
    batch_size: int = BATCH_SIZE,
    device: str = "auto",
    backend: str | None = None,
    precision: str | None = None,
    window: float | None = None,
    hop: float | None = None,
    aggregate: str = "mean",
    workers: int | None = None,
) -> FilePrediction | Iterator[FilePrediction]:
    """Hear sounds and name what is in them.

    A long sound is cut into windows of the model's length, and the prediction holds the scores of each.

    Args:
        sound: one file or one mono waveform (samples,), which give one prediction; or several of one kind, which give
            an iterator of predictions in their order. Several files may also be folders and patterns. A string is one
            path, never letters. Integer samples are scaled to ±1. A row of `datasets.Audio` is a waveform.
        model: the model in the package, a directory, a file (``.pth``, ``.onnx``, …), a hub id, or a model that is
            loaded already, which saves loading it again at every call.
        keep_rate: share of the patches kept at each pruning block, in (0, 1]; None as the model says.
        criterion: what ranks the patches, as in `spectrim.Pruning`; None as the model says, which for a checkpoint of
            others is the backbone's own attention. Of a model that is loaded, `AudioTransformer.set_pruning` says it.
        reducer: what becomes of the patches that are not kept, likewise; ``"cluster"`` merges what is alike and ranks
            nothing.
        sampling_rate: of waveforms, in hertz; files know their own.
        batch_size: windows in one forward pass.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        backend: ``"torch"`` (the default), ``"onnxruntime"``, ``"openvino"``, or ``"auto"``, the fastest here. The
            first call exports and checks the model, which takes minutes; later ones find it in the user's cache.
        precision: ``"fp32"``, ``"bf16"``, ``"int8"``, or ``"auto"``, the fastest that answers as fp32 does.
        window: length of a window in seconds; the model's own otherwise.
        hop: from one window's start to the next, in seconds; ``window`` where only that is given, else what lets every
            frame be heard once (10.24 s for windows of 10.255, 1.28 for 1.295).
        aggregate: how a sound's scores are made of its windows': ``"mean"``, ``"max"`` or ``"none"``.
        workers: processes that decode files; None for a few.

    Returns:
        One `FilePrediction`, or an iterator: there, what cannot be heard has a prediction whose ``error`` says why.

    Raises:
        AudioError: the one sound cannot be heard.
        InvalidSetting: a setting is out of range, or a rate is missing.
        CheckpointError: the model cannot be loaded.

    Examples:
        >>> clip = packaged_clips()[0][0]
        >>> spectrim.predict(clip).top(1)[0][0]
        'backward'
        >>> [round(p.seconds, 2) for p in spectrim.predict([clip, clip], keep_rate=0.7)]
        [1.0, 1.0]
        >>> spectrim.predict(np.zeros(8000, np.float32), sampling_rate=8000).seconds
        1.0
    """
    model = pruned_by(model, criterion, reducer)
    options: dict[str, Any] = {"window": window, "hop": hop, "aggregate": aggregate, "batch_size": batch_size}
    options |= {"keep_rate": keep_rate, "device": device, "backend": backend, "precision": precision}
    if isinstance(sound, PATHS):
        _refuse_rate(sampling_rate)
        if os.path.isdir(sound):  # noqa: PTH112 (Path.is_dir raises for a name that is too long)
            raise InvalidSetting("sound", str(sound), "one file; the files of a folder are predict([folder])")
        return _only(predict_files(Selection([os.fspath(sound)]), model, workers=workers, **options))
    if _is_array(sound):
        return _only(_predict_arrays(iter([sound]), sampling_rate, model, **options))
    if not isinstance(sound, Iterable):
        raise InvalidSetting("sound", type(sound).__name__, "a path, an array, or several of them")
    sounds = iter(sound)
    first = next(sounds, None)
    if first is None:
        return iter(())
    if _is_array(first):
        return _predict_arrays(chain([first], sounds), sampling_rate, model, **options)
    if not isinstance(first, PATHS):
        allowed = "paths, or arrays; the samples of one sound are numpy.asarray(samples)"
        raise InvalidSetting("sound", f"several of type {type(first).__name__}", allowed)
    _refuse_rate(sampling_rate)
    paths = [first, *sounds]
    for index, path in enumerate(paths):
        if not isinstance(path, PATHS):
            raise InvalidSetting("sound", type(path).__name__, f"a path, as the first (this is number {index})")
    return predict_files(_selection(paths), model, workers=workers, **options)


PATHS = (str, os.PathLike)


def _is_row(sound: Any) -> bool:
    """Whether it is a row; what can be looked up and not gone through is taken for a decoder that is one."""
    return isinstance(sound, Mapping) or (hasattr(type(sound), "__getitem__") and not isinstance(sound, Iterable))


def _is_array(sound: Any) -> TypeGuard[Array]:
    return isinstance(sound, np.ndarray | Tensor) or _is_row(sound)


def _refuse_rate(sampling_rate: int | None) -> None:
    if sampling_rate is not None:
        raise InvalidSetting("sampling_rate", sampling_rate, "None with files, which know their own")


def _selection(paths: list[PathLike]) -> Selection:
    """The files that are meant, in their order, as often as they are named, and the folders that cannot be read.

    Raises:
        InvalidSetting: there is no sound in a folder or under a pattern.
    """
    meant = Selection()
    for path in (os.fspath(path) for path in paths):
        pattern = any(mark in path for mark in "*?[") and not os.path.lexists(path)
        several = pattern or os.path.isdir(path)  # noqa: PTH112
        found = select_files([path]) if several else Selection([path])
        meant.files.extend(found.files)
        meant.errors.extend(found.errors)
    return meant


def _only(predictions: Iterator[FilePrediction]) -> FilePrediction:
    """The prediction of the one sound there is.

    Raises:
        AudioError: it cannot be heard.
    """
    [prediction] = predictions
    if prediction.error is not None:
        raise AudioError(prediction.path, prediction.error)
    return prediction


def _predict_arrays(
    sounds: Iterator[Any],
    sampling_rate: int | None,
    model: ModelSource,
    *,
    keep_rate: KeepRate | None,
    device: str,
    backend: str | None,
    precision: str | None,
    window: float | None,
    hop: float | None,
    batch_size: int,
    aggregate: str,
) -> Iterator[FilePrediction]:
    first = next(sounds)
    with suppress(AudioError):
        _rate(first, sampling_rate, 0)
    opened = open_model(model, keep_rate, precision, device, backend)
    length, distance = check_windows(opened, window, hop)
    rate = opened.config.sampling_rate
    sizes = window_samples(length, distance, rate)
    tagger = Tagger(opened, batch_size, aggregate)
    events = (
        (f"waveform {index}", event)
        for index, sound in enumerate(chain([first], sounds))
        for event in _windows(sound, sampling_rate, index, rate, sizes)
    )
    return tagged(events, tagger)


def _windows(sound: Any, sampling_rate: int | None, index: int, rate: int, sizes: tuple[int, int]) -> Iterator[Event]:
    """The windows of a waveform, what is to be said of it, then None; or what is wrong with it."""
    try:
        samples, own = _waveform(sound, sampling_rate, index)
    except (AudioError, InputShapeError) as error:
        yield AudioError(f"waveform {index}", getattr(error, "reason", str(error)))
        return
    notes: list[str] = []
    heard = False
    for start, piece in cut(resampled([(own, samples)], rate), *sizes, frame_samples(rate), notes):
        heard = True
        yield Window(start / rate, piece, rate)
    if not heard:  # a frame at its own rate may come a sample short of one at the model's
        reason = f"too short: {1000 * len(samples) / own:.4g} ms, shorter than one frame of 25 ms"
        yield AudioError(f"waveform {index}", reason)
        return
    yield from map(Note, notes)
    yield None


def _rate(sound: Any, sampling_rate: int | None, index: int) -> int:
    """The rate of a waveform in hertz.

    Raises:
        InvalidSetting: there is no rate, or two.
        AudioError: as `_looked_up`.
    """
    if isinstance(sound, Mapping) and not {"array", "sampling_rate"} <= sound.keys():
        raise InvalidSetting("sound", list(sound), "rows with 'array' and 'sampling_rate'")
    if _is_row(sound):
        own = _looked_up(sound, "sampling_rate", index)
        if sampling_rate not in (None, own):
            raise InvalidSetting("sampling_rate", sampling_rate, f"{own}, as waveform {index} says")
        sampling_rate = own
    if sampling_rate is None:
        raise InvalidSetting("sampling_rate", None, "the rate of the waveforms in hertz, e.g. 16000")
    whole = isinstance(sampling_rate, int | np.integer) and not isinstance(sampling_rate, bool)
    if not whole or not LOWEST_RATE <= sampling_rate <= HIGHEST_RATE:
        allowed = f"a whole number of hertz from {LOWEST_RATE} to {HIGHEST_RATE}"
        raise InvalidSetting("sampling_rate", sampling_rate, allowed)
    return int(sampling_rate)


def _looked_up(row: Any, key: str, index: int) -> Any:
    """A value of a row.

    Raises:
        InvalidSetting: it has none of that name.
        AudioError: it is a decoder, and its sound is damaged.
    """
    try:
        return row[key]
    except (LookupError, TypeError) as error:
        raise InvalidSetting("sound", type(row).__name__, "rows with 'array' and 'sampling_rate'") from error
    except (RuntimeError, ValueError, OSError) as error:
        raise AudioError(f"waveform {index}", f"cannot be decoded: {error}") from error


def _waveform(sound: Any, sampling_rate: int | None, index: int) -> tuple[Samples, int]:
    """Samples (n,) float32 and their rate in hertz.

    Raises:
        InvalidSetting: see `_rate`.
        AudioError, InputShapeError: it is no mono waveform that can be heard.
    """
    rate = _rate(sound, sampling_rate, index)
    array = _looked_up(sound, "array", index) if _is_row(sound) else sound
    if not isinstance(array, np.ndarray | Tensor | list | tuple):
        raise AudioError(f"waveform {index}", f"is a {type(array).__name__}; wanted: an array or tensor")
    if _is_row(sound) and not isinstance(sound, Mapping):
        array = _mixed_down(array)
    clips = as_clips([array], torch.device("cpu"))
    check_clips(clips, frame_samples(rate), rate)
    samples: Samples = clips[0].detach().cpu().to(torch.float32).numpy()
    return samples, rate


def _mixed_down(array: Any) -> Any:
    """What a decoder gives: (channels, samples) → (samples,); everything else stays as it is."""
    values = torch.as_tensor(array) if isinstance(array, np.ndarray | Tensor) else None
    return values.mean(dim=0) if values is not None and values.ndim == 2 and values.is_floating_point() else array
