"""TensorFlow Lite files: what is read, and what a file that anybody may have written gets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flatbuffers", reason="comes with ONNX Runtime")

from tflite_files import write_tflite

from spectrim.checkpoints.tflite import is_tflite, read_tflite
from spectrim.errors import CheckpointError

CONSTANTS = {
    "second/weight": np.arange(6, dtype=np.float32).reshape(2, 3) - 2.5,
    "first/axis": np.array([0, -7], dtype=np.int32),
    "scale": np.array(0.125, dtype=np.float32),
    "größe": np.zeros((0, 4), dtype=np.float32),
}


def test_constants_come_by_name_in_the_order_of_their_use(tmp_path: Path) -> None:
    file = write_tflite(tmp_path / "a.tflite", CONSTANTS)
    assert is_tflite(file.read_bytes()[:9]) and not is_tflite(b"PK\x03\x04____")
    found = read_tflite(file)
    assert list(found) == ["second/weight", "first/axis", "scale"], "what has no values is computed"
    for name, value in found.items():
        np.testing.assert_array_equal(value.numpy(), CONSTANTS[name])
        assert value.numpy().dtype == CONSTANTS[name].dtype


def test_the_tensors_do_not_hang_on_the_file(tmp_path: Path) -> None:
    found = read_tflite(write_tflite(tmp_path / "a.tflite", CONSTANTS))
    found["second/weight"][0, 0] = 9.0
    assert found["second/weight"][0, 0] == 9.0


@pytest.mark.parametrize(
    ("constants", "options", "message"),
    [
        ({"w": np.ones((2, 2), np.int8)}, {}, "'w' is int8; quantised files are not read, only float32"),
        ({"w": np.ones(3, np.float16)}, {}, "'w' is float16"),
        (CONSTANTS, {"graphs": 2}, "has 2 graphs"),
        ({}, {}, "holds no weights"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, constants: dict, options: dict, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_tflite(write_tflite(tmp_path / "a.tflite", constants, **options))


def test_a_file_cut_anywhere_is_refused_or_read_whole(tmp_path: Path) -> None:
    file = write_tflite(tmp_path / "a.tflite", CONSTANTS)
    whole, wanted = file.read_bytes(), read_tflite(file)
    for length in range(8, len(whole) - 32):
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"a\.tflite: is no whole TensorFlow Lite file"):
            read_tflite(file)
    for length in range(len(whole) - 32, len(whole)):  # the builder's first table, which nothing refers to, and padding
        file.write_bytes(whole[:length])
        try:
            found = read_tflite(file)
        except CheckpointError:
            continue
        assert found.keys() == wanted.keys() and all(found[name].equal(wanted[name]) for name in wanted)


def test_damaged_bytes_are_refused_or_read(tmp_path: Path) -> None:
    """Every byte set to four values: a reader that followed an offset unchecked would crash, hang or allocate."""
    file = write_tflite(tmp_path / "a.tflite", CONSTANTS)
    whole = bytearray(file.read_bytes())
    refused = 0
    for place in range(len(whole)):
        for value in (0x00, 0x7F, 0x80, 0xFF):
            damaged = bytes(whole[:place]) + bytes([value]) + bytes(whole[place + 1 :])
            file.write_bytes(damaged)
            try:
                found = read_tflite(file)
            except CheckpointError:
                refused += 1
            else:
                assert sum(tensor.numel() for tensor in found.values()) < len(whole)
    assert refused > len(whole)


def test_counts_beyond_the_file_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    file = write_tflite(tmp_path / "a.tflite", {"w": np.ones(3, np.float32)})
    content = bytearray(file.read_bytes())
    place = bytes(content).index(np.ones(3, np.float32).tobytes()) - 4
    content[place : place + 4] = (2**32 - 1).to_bytes(4, "little")
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="an offset leads out of it"):
        read_tflite(file)


def test_two_weights_of_one_name_are_refused(tmp_path: Path) -> None:
    file = write_tflite(tmp_path / "a.tflite", {"ab": np.ones(3, np.float32), "ac": np.ones(3, np.float32)})
    file.write_bytes(file.read_bytes().replace(b"ac\0", b"ab\0"))
    with pytest.raises(CheckpointError, match="two of its weights have the name 'ab'"):
        read_tflite(file)
