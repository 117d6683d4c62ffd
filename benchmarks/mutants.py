"""Damaged copies of sound files, and what independent decoders hear in them; runs in decoding workers."""

from __future__ import annotations

import contextlib
import json
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import miniaudio
import numpy as np
import soundfile

from spectrim.audio.files import Note, mono_blocks
from spectrim.errors import AudioError

Mutation = Callable[[bytes, np.random.Generator], bytes]


def cut(data: bytes, random: np.random.Generator) -> bytes:
    """End anywhere."""
    return data[: random.integers(1, len(data))]


def cut_few(data: bytes, random: np.random.Generator) -> bytes:
    """Lose up to 16 bytes at the end."""
    return data[: -int(random.integers(1, 17))]


def cut_at_structure(data: bytes, random: np.random.Generator) -> bytes:
    """End where a page, frame or box begins."""
    marks = [
        mark
        for mark in (b"OggS", b"\xff\xfb", b"\xff\xf3", b"\xff\xf1", b"\xff\xf8", b"\x0bw", b"moof")
        if mark in data
    ]
    if not marks:
        return cut(data, random)
    places, at = [], data.find(marks[0], 1)
    while at > 0:
        places.append(at)
        at = data.find(marks[0], at + 1)
    return data[: random.choice(places)] if places else cut(data, random)


def flip_byte(data: bytes, random: np.random.Generator) -> bytes:
    """Another byte in one place."""
    return _replaced(data, int(random.integers(len(data))), random.bytes(1))


def flip_header_byte(data: bytes, random: np.random.Generator) -> bytes:
    """Another byte in one of the first 256 places."""
    return _replaced(data, int(random.integers(min(256, len(data)))), random.bytes(1))


def flip_bit_in_header(data: bytes, random: np.random.Generator) -> bytes:
    """Another bit in one of the first 1,024 bytes."""
    at = int(random.integers(min(1024, len(data))))
    return _replaced(data, at, bytes([data[at] ^ 1 << int(random.integers(8))]))


def lie_in_header(data: bytes, random: np.random.Generator) -> bytes:
    """Another number of four bytes in the first 128: 0, all ones, near what is there, or anything."""
    at = int(random.integers(min(124, len(data) - 4)))
    order = random.choice(["<", ">"])
    there = struct.unpack(order + "I", data[at : at + 4])[0]
    value = random.choice([0, 0xFFFFFFFF, there // 2, there * 2, there + 1, there - 1, int(random.integers(1 << 32))])
    return _replaced(data, at, struct.pack(order + "I", int(value) % (1 << 32)))


def overwrite(data: bytes, random: np.random.Generator) -> bytes:
    """Up to 2,048 bytes of noise somewhere."""
    return _replaced(data, int(random.integers(len(data))), random.bytes(int(random.integers(2, 2049))))


def blank(data: bytes, random: np.random.Generator) -> bytes:
    """Up to 2,048 zeros somewhere, as a file system leaves them."""
    return _replaced(data, int(random.integers(len(data))), bytes(int(random.integers(2, 2049))))


def lose(data: bytes, random: np.random.Generator) -> bytes:
    """Up to 2,048 bytes fewer somewhere."""
    at = int(random.integers(len(data)))
    return data[:at] + data[at + int(random.integers(1, 2049)) :]


def insert(data: bytes, random: np.random.Generator) -> bytes:
    """Up to 512 bytes of noise more somewhere."""
    at = int(random.integers(len(data)))
    return data[:at] + random.bytes(int(random.integers(1, 513))) + data[at:]


def repeat(data: bytes, random: np.random.Generator) -> bytes:
    """A stretch of up to 4,096 bytes twice."""
    at = int(random.integers(len(data)))
    length = int(random.integers(1, 4097))
    return data[: at + length] + data[at:]


def append_noise(data: bytes, random: np.random.Generator) -> bytes:
    """Up to 4,096 bytes of noise behind it."""
    return data + random.bytes(int(random.integers(1, 4097)))


def append_zeros(data: bytes, random: np.random.Generator) -> bytes:
    """Up to 4,096 zeros behind it."""
    return data + bytes(int(random.integers(1, 4097)))


def tag(data: bytes, random: np.random.Generator) -> bytes:
    """An ID3v1 tag behind it."""
    return data + b"TAG" + b"a title".ljust(125, b"\0")


def none(data: bytes, random: np.random.Generator) -> bytes:
    """Nothing is changed."""
    return data


MUTATIONS: dict[str, tuple[Mutation, float]] = {
    "cut": (cut, 3),
    "cut_few": (cut_few, 2),
    "cut_at_structure": (cut_at_structure, 2),
    "flip_byte": (flip_byte, 3),
    "flip_header_byte": (flip_header_byte, 4),
    "flip_bit_in_header": (flip_bit_in_header, 3),
    "lie_in_header": (lie_in_header, 4),
    "overwrite": (overwrite, 2),
    "blank": (blank, 2),
    "lose": (lose, 2),
    "insert": (insert, 2),
    "repeat": (repeat, 2),
    "append_noise": (append_noise, 1),
    "append_zeros": (append_zeros, 1),
    "tag": (tag, 1),
    "none": (none, 1),
}
"""Name → what it does, and how often beside the others."""


def _replaced(data: bytes, at: int, piece: bytes) -> bytes:
    piece = piece[: len(data) - at]
    return data[:at] + piece + data[at + len(piece) :]


def examine(path: str) -> Iterator[Note]:
    """What Spectrim and the others hear in a file, as JSON in a note: (samples, rate), or a reason."""
    found: dict[str, object] = {}
    try:
        notes: list[str] = []
        blocks = [(rate, len(block)) for rate, block in mono_blocks(path, notes)]
        found["spectrim"], found["notes"] = [sum(size for _, size in blocks), blocks[-1][0]], notes
    except AudioError as error:
        found["refused"] = error.reason
        yield Note(json.dumps(found))
        return
    for name, hear in VOICES.items():
        with contextlib.suppress(Exception):
            found[name] = hear(path)
    yield Note(json.dumps(found))


def by_ffmpeg(path: str) -> list[int]:
    """Samples and rate by FFmpeg, which finds out by itself what kind of file it is."""
    av.logging.set_level(None)
    samples, rate = 0, 0
    with av.open(path, metadata_errors="ignore") as file:
        for frame in file.decode(audio=0):
            samples, rate = samples + frame.samples, frame.sample_rate
    return [samples, rate]


def by_sndfile(path: str) -> list[int]:
    """Samples and rate by libsndfile."""
    with soundfile.SoundFile(path) as file:
        samples = 0
        while len(block := file.read(1 << 16, dtype="float32")):
            samples += len(block)
        return [samples, file.samplerate]


def by_miniaudio(path: str) -> list[int]:
    """Samples and rate by dr_mp3, dr_flac, dr_wav and stb_vorbis."""
    data = Path(path).read_bytes()
    for read in (miniaudio.flac_read_f32, miniaudio.wav_read_f32, miniaudio.vorbis_read, miniaudio.mp3_read_f32):
        with contextlib.suppress(miniaudio.DecodeError):
            sound = read(data)
            return [sound.num_frames, sound.sample_rate]
    raise ValueError("none of them")


VOICES: dict[str, Callable[[str], list[int]]] = {
    "ffmpeg": by_ffmpeg,
    "libsndfile": by_sndfile,
    "miniaudio": by_miniaudio,
}
"""Name of an independent decoder → samples and rate that it finds in a file."""
