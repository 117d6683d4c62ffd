"""From a path or hub id to named tensors on the CPU. No code that a file may hold is ever run."""

from __future__ import annotations

import argparse
import os
import pickle
import re
import struct
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from spectrim.assets import EMBEDDED, EMBEDDED_MODELS
from spectrim.checkpoints.tflite import is_tflite, read_tflite
from spectrim.checkpoints.untrusted import read_json
from spectrim.checkpoints.unwrap import own_names, unwrap
from spectrim.errors import CheckpointError, InvalidSetting, shown

WHOLE_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
WEIGHT_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tflite")
HUB_SAFE = [
    "config.json",
    "preprocessor_config.json",
    "class_labels_indices.csv",
    "model.safetensors.index.json",
    "model.safetensors",
    "model-*-of-*.safetensors",
]
HUB_PICKLED = ["pytorch_model.bin.index.json", "pytorch_model.bin", "pytorch_model-*-of-*.bin", "*.pth", "*.pt"]

WORDS = "labels.txt"
"""What the labels beside a .tflite file are called, one a line."""

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""How the text begins that stands for a file in a clone without Git LFS."""

UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    AssertionError,
    ArithmeticError,
    struct.error,
    zipfile.BadZipFile,
    MemoryError,
    safetensors.SafetensorError,
)
"""What torch and safetensors raise on files that are damaged or no checkpoints at all."""


@dataclass(frozen=True)
class DescribedSource(os.PathLike[str]):
    """A checkpoint's place, with what its file may not say; stands wherever a model is named.

    Attributes:
        place: a directory, a file, a hub id, or ``"spectrim-mini"``.
        stride: steps between patches along frequency and along time, one number where they are the same.
        frames: length of the input that its position table is for; of a published AST or where ``stride`` is given,
            another length is one to fit it to.
        criterion: what is to rank its patches, in the place of what the file says.
        reducer: what is to become of those that are not kept, likewise.
    """

    place: str
    stride: int | Sequence[int] | None = None
    frames: int | None = None
    criterion: str | None = None
    reducer: str | None = None

    def __fspath__(self) -> str:
        return self.place

    def __str__(self) -> str:
        return self.place


@dataclass(frozen=True)
class Source:
    """What a checkpoint's files say, before anything is made of it.

    Attributes:
        name: the path or hub id as it was given.
        weights: named tensors on the CPU, in their own names; see `spectrim.checkpoints.unwrap`.
        config: ``config.json`` beside the weights, or an empty dictionary.
        extractor: ``preprocessor_config.json``, likewise.
        label_file: ``class_labels_indices.csv`` beside the weights, of a .tflite file ``labels.txt``, if there is one.
        arguments: what was pickled along: the command line that the checkpoint was trained with, and under their names
            those of `spectrim.checkpoints.unwrap.BESIDE`.
        stride: steps between patches along frequency and along time, where the caller says them.
        frames: length of the input, likewise.
    """

    name: str
    weights: Mapping[str, Tensor]
    config: Mapping[str, Any]
    extractor: Mapping[str, Any]
    label_file: Path | None
    arguments: Mapping[str, Any]
    stride: tuple[int, int] | None = None
    frames: int | None = None


def read_source(source: str | os.PathLike[str]) -> Source:
    """Find and read a checkpoint.

    Args:
        source: a directory, a file, a hub id ``owner/name``, ``"spectrim-mini"``, or such a place with its stride or
            frames.

    Raises:
        CheckpointError: nothing is there, or it cannot be read, or it would run code.
        InvalidSetting: it is no path, or the stride or the frames are no such numbers.
    """
    check_place(source)
    told = source if isinstance(source, DescribedSource) else DescribedSource(os.fspath(source))
    stride = check_stride(told.stride)
    check_frames(told.frames)
    place = _locate(told)
    folder = place if place.is_dir() else place.parent
    weights: dict[str, Tensor] = {}
    arguments: dict[str, Any] = {}
    files = _weight_files(place)
    for file in files:
        loaded, said = _read_weights(file)
        weights |= loaded
        arguments |= said
    label_file = folder / (WORDS if files[0].suffix == ".tflite" else "class_labels_indices.csv")
    return Source(
        name=told.place,
        weights=own_names(told.place, weights),
        config=_read_json(folder / "config.json"),
        extractor=_read_json(folder / "preprocessor_config.json"),
        label_file=label_file if label_file.is_file() else None,
        arguments=arguments,
        stride=stride,
        frames=told.frames,
    )


def check_place(source: Any) -> None:
    """Raise `InvalidSetting` for what names no place of a checkpoint."""
    named = os.fspath(source) if isinstance(source, str | os.PathLike) else None
    if not isinstance(named, str) or not named:
        raise InvalidSetting("model", source, f"a path to a checkpoint, a hub id like owner/name, or {EMBEDDED}")


def check_stride(stride: Any) -> tuple[int, int] | None:
    """A stride as (along frequency, along time), None where none is given.

    Args:
        stride: one whole number for both, or two.

    Raises:
        InvalidSetting: it is something else.
    """
    if stride is None:
        return None
    both = [stride, stride] if isinstance(stride, int) else stride
    pair = isinstance(both, Sequence) and not isinstance(both, str | bytes) and len(both) == 2
    if not pair or not all(isinstance(step, int) and not isinstance(step, bool) and step > 0 for step in both):
        raise InvalidSetting("stride", stride, "a whole number from 1, or two: along frequency and along time")
    return both[0], both[1]


def check_frames(frames: Any) -> None:
    """Raise `InvalidSetting` for what is no length of an input, None apart."""
    if frames is not None and (isinstance(frames, bool) or not isinstance(frames, int) or frames < 16):
        raise InvalidSetting("frames", frames, "a whole number of at least 16 frames (of 10 ms)")


def _locate(source: DescribedSource) -> Path:
    name = source.place
    try:
        path = Path(name).expanduser()
        there = path.exists()
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{shown(name)}: cannot be a path ({_first_line(error)})") from error
    if there:
        if not path.is_file() and not path.is_dir():
            raise CheckpointError(f"{name}: is neither a file nor a directory")
        return path
    if name in EMBEDDED_MODELS:
        if not EMBEDDED_MODELS[name].is_dir():
            raise CheckpointError(f"{name} is missing from this installation; install spectrim again")
        return EMBEDDED_MODELS[name]
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith(".") and path.suffix not in WEIGHT_SUFFIXES:
        return _download(name)
    raise CheckpointError(
        f"{name}: no such file or directory; give a path to a checkpoint, a hub id like owner/name, or {EMBEDDED}"
    )


def _download(name: str) -> Path:
    """The needed files of a hub repository, from the hub or its cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HTTPError

    try:
        folder = Path(snapshot_download(name, allow_patterns=HUB_SAFE))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=[*HUB_SAFE, *HUB_PICKLED]))
    except (OSError, ValueError, HTTPError) as error:
        raise CheckpointError(
            f"{name}: no such path here, and the Hugging Face hub did not give it ({_first_line(error)}). "
            "Check the name and the network, or download the repository elsewhere and give its directory"
        ) from error
    return folder


def _weight_files(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    for name in WHOLE_WEIGHTS:
        file = place / name
        if file.is_file():
            return _shards(file) if name.endswith(".index.json") else [file]
    files = sorted(file for file in place.iterdir() if file.suffix in WEIGHT_SUFFIXES and file.is_file())
    if len(files) == 1:
        return files
    if files:
        names = ", ".join(file.name for file in files[:8])
        raise CheckpointError(f"{place}: has several weight files ({names}); name the one to load")
    expected = f"{WHOLE_WEIGHTS[0]}, {WHOLE_WEIGHTS[2]} or one .pth"
    raise CheckpointError(f"{place}: a directory without weights; expected {expected} in it")


def _shards(index: Path) -> list[Path]:
    table = _read_json(index).get("weight_map")
    if not isinstance(table, dict) or not table or not all(isinstance(name, str) for name in table.values()):
        raise CheckpointError(f"{index}: is no index of weight files: its weight_map is missing or empty")
    names = sorted(set(table.values()))
    for name in names:
        if Path(name).name != name:
            raise CheckpointError(f"{index}: names a weight file outside its own directory: {name}")
        if not (index.parent / name).is_file():
            raise CheckpointError(f"{index}: the weight file {name} that it names is missing; download it too")
    return [index.parent / name for name in names]


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        refuse_pointer(file)
        content = read_json(file)
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{file}: is not valid JSON ({_first_line(error)})") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{file}: must hold a JSON object, not a {type(content).__name__}")
    return content


def _read_weights(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of one file, and the settings in it, if any."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(9)
        if size == 0:
            raise CheckpointError(f"{file}: is empty")
        refuse_pointer(file)
        loaded = _load(file, start, size)
    except UNREADABLE as error:
        raise CheckpointError(_why_unreadable(file, error)) from error
    return unwrap(str(file), loaded)


def _load(file: Path, start: bytes, size: int) -> object:
    """What is saved in a file that begins with these bytes."""
    if is_tflite(start):
        return read_tflite(file)
    return load_file(file) if _is_safetensors(start, size) else _unpickle(file)


def refuse_pointer(file: Path) -> None:
    """Raise `CheckpointError` where a file is but Git LFS's note of where its content lies."""
    with file.open("rb") as stream:
        if stream.read(len(LFS_POINTER)) == LFS_POINTER:
            raise CheckpointError(
                f"{file}: is a Git LFS pointer, not the file itself; run git lfs pull in its repository, or download it"
            )


def _is_safetensors(start: bytes, size: int) -> bool:
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") <= size


def _unpickle(file: Path) -> object:
    """Tensors, plain containers and argparse.Namespace; anything else in the pickle is refused by torch."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        return torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))


def named_code(error: BaseException) -> str | None:
    """Words for the code that torch refused to load, None where an error is about something else."""
    text = str(error)
    named = re.search(r"GLOBAL ([\w.]+)", text)
    if named or "Unsupported class" in text or "reduce for unrecognized function" in text:
        return f"code ({named.group(1)})" if named else "code"
    return None


def _why_unreadable(file: Path, error: BaseException) -> str:
    code = named_code(error)
    if code is not None:
        return (
            f"{file}: refused, its pickle holds {code} besides weights, which loading would run. Only tensors and "
            "argparse.Namespace are read; where you trust it, save its state_dict() alone with torch.save"
        )
    return f"{file}: cannot be read as a checkpoint; it is damaged, cut short or something else ({_first_line(error)})"


def _first_line(error: BaseException) -> str:
    lines = str(error.strerror if isinstance(error, OSError) and error.strerror else error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
