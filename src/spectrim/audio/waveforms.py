"""Waveforms in any of the forms people have them, brought to one: mono floating-point tensors, checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from spectrim.errors import AudioError, InputShapeError, InvalidSetting

LARGEST_SAMPLE = 1e15
"""Samples beyond this would overflow the float32 power spectrum."""

FULL_SCALE = {
    torch.uint8: 2.0**7,
    torch.int8: 2.0**7,
    torch.int16: 2.0**15,
    torch.int32: 2.0**31,
}
"""What an integer sample is divided by, as soundfile and scipy read them; uint8 is centred at 128 first."""

INTEGER_ARRAYS = tuple(np.dtype(name) for name in ("uint8", "int8", "int16", "int32"))

Waveform: TypeAlias = Tensor | np.ndarray
Batch: TypeAlias = Waveform | Sequence[Waveform]


def as_clips(waveforms: Batch, device: torch.device) -> list[Tensor]:
    """Bring a batch in any of its forms to 1-D floating-point tensors on one device.

    Args:
        waveforms: a sequence of 1-D arrays, tensors or lists of numbers, of any lengths; one (batch, samples) array or
            tensor; or one 1-D array or tensor.
        device: where to put them if none of them is a tensor; else the first tensor says.

    Returns:
        Tensors of (samples,), integers scaled to ±1; float64 if every waveform was a float64 tensor, else float32.

    Raises:
        AudioError: a waveform is of a type without a full scale (bool, complex, object, 64-bit integers, ...), has
            masked samples, or is none at all.
        InputShapeError: there are no waveforms, or one has more dimensions than one.
    """
    if not isinstance(waveforms, Tensor | np.ndarray | list | tuple):
        raise AudioError("waveforms", f"is a {type(waveforms).__name__}; wanted: an array, a tensor, or a list of them")
    if isinstance(waveforms, Tensor | np.ndarray):
        if waveforms.ndim not in (1, 2):
            shape = tuple(waveforms.shape)
            raise InputShapeError(f"waveforms has shape {shape}; wanted: (batch, samples), mono")
        _refuse_masked(waveforms, "waveforms")
        waveforms = [waveforms] if waveforms.ndim == 1 else list(waveforms)
    if len(waveforms) == 0:
        raise InputShapeError("waveforms is empty; wanted: at least one waveform")
    clips = [_as_tensor(clip, f"waveform {index}") for index, clip in enumerate(waveforms)]
    for given in waveforms:
        if isinstance(given, Tensor):
            device = given.device
            break
    precise = all(clip.dtype == torch.float64 for clip in clips)
    return [clip.to(device, torch.float64 if precise else torch.float32) for clip in clips]


def _as_tensor(clip: Waveform, name: str) -> Tensor:
    """Bring one waveform to a 1-D floating-point tensor; only tensors keep float64."""
    if isinstance(clip, list | tuple):
        if any(isinstance(value, str | bytes | bool | complex) or value is None for value in clip):
            raise AudioError(
                name, "not a sequence of numbers (there is text, True, False, None or a complex one in it)"
            )
        try:
            clip = np.asarray(clip, dtype=np.float32)
        except (TypeError, ValueError, OverflowError) as error:
            raise AudioError(name, f"not a sequence of numbers ({error})") from error
    if isinstance(clip, np.ndarray):
        _refuse_masked(clip, name)
        clip = _tensor_of_array(clip, name)
    if not isinstance(clip, Tensor):
        raise AudioError(name, f"is a {type(clip).__name__}; wanted: an array or tensor")
    if clip.layout != torch.strided or clip.is_meta:
        kind = "on the meta device" if clip.is_meta else f"of layout {str(clip.layout).removeprefix('torch.')}"
        raise AudioError(name, f"is a tensor {kind}; wanted: one that holds every sample")
    if clip.dim() != 1:
        shape = tuple(clip.shape)
        raise InputShapeError(f"{name} has shape {shape}; wanted: (samples,), mono: mix the channels down first")
    if not clip.is_floating_point() and clip.dtype not in FULL_SCALE:
        raise AudioError(name, _bad_type(clip.dtype))
    return as_float(clip)


def _refuse_masked(clip: Waveform, name: str) -> None:
    """What stands behind a mask is no sound, and what should be heard there only the caller knows."""
    if isinstance(clip, np.ma.MaskedArray) and (masked := int(np.ma.count_masked(clip))):
        raise AudioError(name, f"{masked} samples are masked; fill them, e.g. with .filled(0.0)")


def _tensor_of_array(clip: np.ndarray, name: str) -> Tensor:
    if clip.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return torch.from_numpy(clip.astype(np.float32, order="C", copy=not clip.flags.writeable))
    native = clip.dtype.newbyteorder("=")
    if clip.dtype.kind not in "iu" or native not in INTEGER_ARRAYS:
        raise AudioError(name, _bad_type(clip.dtype))
    return torch.from_numpy(clip.astype(native))


def _bad_type(dtype: torch.dtype | np.dtype) -> str:
    known = ", ".join(str(array) for array in INTEGER_ARRAYS)
    return f"has samples of type {str(dtype).removeprefix('torch.')}; wanted: floating point, or {known}"


def as_float(samples: Tensor) -> Tensor:
    """Scale integer samples to ±1; float64 stays, every other type becomes float32."""
    if samples.dtype in FULL_SCALE:
        scaled = samples.to(torch.float32)
        if samples.dtype == torch.uint8:
            scaled = scaled - 128.0
        return scaled / FULL_SCALE[samples.dtype]
    return samples if samples.dtype == torch.float64 else samples.to(torch.float32)


def check_rate(given: int | None, wanted: int) -> None:
    """Raise `InvalidSetting` where the rate of waveforms is given and is not the one that is wanted, in hertz."""
    if given is not None and given != wanted:
        raise InvalidSetting("sampling_rate", given, f"{wanted}: resample the waveform first")


def check_clips(clips: Sequence[Tensor], frame_length: int, sampling_rate: int) -> None:
    """Make sure that an honest spectrogram can be made from every clip.

    Args:
        clips: 1-D floating-point tensors on one device.
        frame_length: samples of one frame, the least that a clip may have.
        sampling_rate: in hertz, to word lengths in milliseconds.

    Raises:
        AudioError: for the first clip that is empty or shorter than one frame; then for the first with a NaN, an
            infinity or a sample beyond `LARGEST_SAMPLE`.
    """
    for index, clip in enumerate(clips):
        if len(clip) < frame_length:
            shortest = f"one frame of {1000 * frame_length / sampling_rate:g} ms ({frame_length} samples)"
            reason = f"{_length(clip, sampling_rate)}, shorter than {shortest}" if len(clip) else "empty (0 ms)"
            raise AudioError(f"waveform {index}", reason)
    extremes = torch.stack([torch.stack(clip.detach().aminmax()) for clip in clips])
    for index, (low, high) in enumerate(extremes.tolist()):
        if not (low >= -LARGEST_SAMPLE and high <= LARGEST_SAMPLE):
            bad = int((~torch.isfinite(clips[index])).sum())
            reason = f"{bad} samples are NaN or infinite" if bad else f"has samples beyond ±{LARGEST_SAMPLE:g}"
            raise AudioError(f"waveform {index}", f"{reason}; it is {_length(clips[index], sampling_rate)}")


def _length(clip: Tensor, sampling_rate: int) -> str:
    return f"{1000 * len(clip) / sampling_rate:.4g} ms long ({len(clip)} samples)"
