"""Weights out of a TensorFlow Lite file: the few tables of its FlatBuffer that hold them, every offset checked.

The file is a tree of tables. A table's fields are found through offsets that anybody may have written, so nothing is
read before it is known to lie inside the file, nothing is followed twice, and nothing is allocated that the file does
not hold. Nothing is run. Layout: FlatBuffers' binary format, and TensorFlow's ``schema.fbs``, version 3.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spectrim.errors import CheckpointError

IDENTIFIER = b"TFL3"
"""What stands at byte 4 of the file."""

LARGEST = 2**31 - 1
"""Bytes of a FlatBuffer, whose offsets have 32 bits."""

MOST_ENTRIES = 1 << 20
"""Tensors, operators or buffers of a file."""

KINDS: dict[int, np.dtype[Any]] = {0: np.dtype("<f4"), 2: np.dtype("<i4"), 4: np.dtype("<i8"), 6: np.dtype("?")}
"""TensorType of float32, int32, int64 and bool → what its bytes are."""

NAMES = {1: "float16", 3: "uint8", 5: "string", 7: "int16", 8: "complex64", 9: "int8", 10: "float64", 17: "int4"}
"""Other types, for errors."""

MODEL_SUBGRAPHS, MODEL_BUFFERS = 2, 4
GRAPH_TENSORS, GRAPH_OPERATORS = 0, 3
TENSOR_SHAPE, TENSOR_TYPE, TENSOR_BUFFER, TENSOR_NAME, TENSOR_SPARSITY = 0, 1, 2, 3, 6
OPERATOR_INPUTS = 1
BUFFER_DATA, BUFFER_OFFSET = 0, 1
"""Places of fields in their tables."""


def is_tflite(start: bytes) -> bool:
    """Whether a file of which these are the first bytes, 8 or more, says that it is TensorFlow Lite's."""
    return start[4:8] == IDENTIFIER


def read_tflite(file: Path) -> dict[str, Tensor]:
    """The constants of a model, by their names, in the order in which its operators first read them.

    Args:
        file: of one graph, its weights in float32.

    Raises:
        CheckpointError: the file is damaged, quantised, or of several graphs.
        OSError: it cannot be read.
    """
    if file.stat().st_size > LARGEST:
        raise CheckpointError(f"{file}: is larger than a TensorFlow Lite file can be")
    reader = _Reader(str(file), file.read_bytes())
    try:
        return _constants(reader)
    except (struct.error, IndexError) as error:
        raise reader.broken("an offset leads out of it") from error


class _Reader:
    """Numbers at places of a FlatBuffer; whatever lies outside is refused."""

    def __init__(self, title: str, content: bytes) -> None:
        self.title = title
        self.content = content

    def broken(self, why: str) -> CheckpointError:
        """The error to raise."""
        return CheckpointError(f"{self.title}: is no whole TensorFlow Lite file: {why}")

    def number(self, kind: str, at: int) -> int:
        """A number of a `struct` format."""
        if at < 0:
            raise self.broken("an offset leads out of it")
        return int(struct.unpack_from(f"<{kind}", self.content, at)[0])

    def piece(self, at: int, length: int) -> bytes:
        """Bytes that must all be there."""
        if at < 0 or length < 0 or at + length > len(self.content):
            raise self.broken("an offset leads out of it")
        return self.content[at : at + length]

    def follow(self, at: int) -> int:
        """Where the offset at a place leads: onwards, as FlatBuffers only do."""
        return at + self.number("I", at)

    def field(self, table: int, place: int) -> int | None:
        """Where a field of a table stands, None if it is not set."""
        entries = table - self.number("i", table)
        slot = 4 + 2 * place
        if slot >= self.number("H", entries):
            return None
        offset = self.number("H", entries + slot)
        return table + offset if offset else None

    def scalar(self, table: int, place: int, kind: str, default: int = 0) -> int:
        """A number in a table."""
        at = self.field(table, place)
        return default if at is None else self.number(kind, at)

    def vector(self, table: int, place: int, size: int) -> tuple[int, int]:
        """Where the entries of a vector in a table stand, and how many of ``size`` bytes there are."""
        at = self.field(table, place)
        if at is None:
            return 0, 0
        start = self.follow(at)
        count = self.number("I", start)
        self.piece(start + 4, count * size)
        return start + 4, count

    def tables(self, table: int, place: int) -> Iterator[int]:
        """The tables of a vector in a table."""
        start, count = self.vector(table, place, 4)
        if count > MOST_ENTRIES:
            raise self.broken(f"it claims {count} entries of one kind")
        for entry in range(count):
            yield self.follow(start + 4 * entry)

    def integers(self, table: int, place: int) -> tuple[int, ...]:
        """A vector of int32 in a table."""
        start, count = self.vector(table, place, 4)
        return struct.unpack_from(f"<{count}i", self.content, start)

    def text(self, table: int, place: int) -> str:
        """A string in a table."""
        start, count = self.vector(table, place, 1)
        try:
            return self.piece(start, count).decode()
        except UnicodeDecodeError as error:
            raise self.broken("a name is no UTF-8") from error


def _constants(reader: _Reader) -> dict[str, Tensor]:
    model = reader.follow(0)
    graphs = list(reader.tables(model, MODEL_SUBGRAPHS))
    if len(graphs) != 1:
        raise CheckpointError(f"{reader.title}: has {len(graphs)} graphs; only files of one are read")
    tensors = list(reader.tables(graphs[0], GRAPH_TENSORS))
    buffers = list(reader.tables(model, MODEL_BUFFERS))
    read: dict[int, None] = {}
    for operator in reader.tables(graphs[0], GRAPH_OPERATORS):
        for index in reader.integers(operator, OPERATOR_INPUTS):
            if not -1 <= index < len(tensors):
                raise reader.broken(f"an operator reads tensor {index} of {len(tensors)}")
            read.setdefault(index)
    order = [index for index in read if index >= 0]
    order += [index for index in range(len(tensors)) if index not in read]
    found: dict[str, Tensor] = {}
    for index in order:
        value = _constant(reader, tensors[index], buffers)
        if value is None:
            continue
        name = reader.text(tensors[index], TENSOR_NAME)
        if name in found:
            raise reader.broken(f"two of its weights have the name {name[:100]!r}")
        found[name] = value
    if not found:
        raise CheckpointError(f"{reader.title}: holds no weights")
    return found


def _constant(reader: _Reader, tensor: int, buffers: list[int]) -> Tensor | None:
    """The values of a tensor, None where they are computed."""
    index = reader.scalar(tensor, TENSOR_BUFFER, "I")
    if index >= len(buffers):
        raise reader.broken(f"a tensor has buffer {index} of {len(buffers)}")
    if reader.scalar(buffers[index], BUFFER_OFFSET, "Q") > 1:
        raise CheckpointError(f"{reader.title}: keeps its weights behind its FlatBuffer, which is not read")
    start, length = reader.vector(buffers[index], BUFFER_DATA, 1)
    if not length:
        return None
    name, kind = reader.text(tensor, TENSOR_NAME)[:100], reader.scalar(tensor, TENSOR_TYPE, "b")
    if kind not in KINDS:
        called = NAMES.get(kind, f"type {kind}")
        raise CheckpointError(
            f"{reader.title}: {name!r} is {called}; quantised files are not read, only float32: take the original"
        )
    if reader.field(tensor, TENSOR_SPARSITY) is not None:
        raise CheckpointError(f"{reader.title}: {name!r} is stored as a sparse tensor, which is not read")
    shape = reader.integers(tensor, TENSOR_SHAPE)
    if any(size < 0 for size in shape) or math.prod(shape) * KINDS[kind].itemsize != length:
        raise reader.broken(f"{name!r} has {length} bytes, which do not make the shape {shape}")
    values = np.frombuffer(reader.content, KINDS[kind], math.prod(shape), start).reshape(shape)
    return torch.from_numpy(values.copy())
