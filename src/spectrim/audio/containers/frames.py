"""Streams of bare frames (AAC in ADTS, AC-3, E-AC-3, AMR): every frame from the first to the last byte."""

from __future__ import annotations

from collections.abc import Callable

from spectrim.audio.containers.tags import after_id3v2, without_tail
from spectrim.audio.plan import Content, Damage, Plan, Stretch

AAC_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
AC3_KILOBITS = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 576, 640)
AC3_RATES = (48000, 44100, 32000)
AMR_SIZES = (13, 14, 16, 18, 20, 21, 27, 32, 6, None, None, None, None, None, None, 1)
AMR_WIDE_SIZES = (18, 24, 33, 37, 41, 47, 51, 59, 61, 6, None, None, None, None, 1, 1)

Parse = Callable[[Content, int], "tuple[int, int, tuple[int, ...]] | None"]
"""Content, place → size of the frame there in bytes, its samples, what may not change; None where there is none."""


def adts_frame(content: Content, at: int) -> tuple[int, int, tuple[int, ...]] | None:
    """A frame of AAC with its header (ISO 13818-7)."""
    header = content[at : at + 7]
    if len(header) < 7 or header[0] != 0xFF or header[1] & 0xF6 != 0xF0:
        return None
    rate = header[2] >> 2 & 15
    size = (header[3] & 3) << 11 | header[4] << 3 | header[5] >> 5
    if rate >= len(AAC_RATES) or size < 7:
        return None
    channels = (header[2] & 1) << 2 | header[3] >> 6
    return size, 1024 * ((header[6] & 3) + 1), (AAC_RATES[rate], header[2] >> 6, channels)


def ac3_frame(content: Content, at: int) -> tuple[int, int, tuple[int, ...]] | None:
    """A frame of AC-3 or E-AC-3 (ATSC A/52); frames of other substreams than the first hold no samples of their own."""
    header = content[at : at + 6]
    if len(header) < 6 or header[:2] != b"\x0bw":
        return None
    version = header[5] >> 3
    if version <= 10:
        rate, index = header[4] >> 6, header[4] & 63
        if rate == 3 or index >= 2 * len(AC3_KILOBITS):
            return None
        words = AC3_KILOBITS[index // 2] * 96000 // AC3_RATES[rate]
        return 2 * (words + (index & 1 if rate == 1 else 0)), 1536, (AC3_RATES[rate], 0)
    if version > 16:
        return None
    kind, number = header[2] >> 6, header[2] >> 3 & 7
    size = 2 * (((header[2] & 7) << 8 | header[3]) + 1)
    rate = header[4] >> 6
    blocks = 6 if rate == 3 else (1, 2, 3, 6)[header[4] >> 4 & 3]
    if rate == 3:
        half = header[4] >> 4 & 3
        if half == 3:
            return None
        hertz = AC3_RATES[half] // 2
    else:
        hertz = AC3_RATES[rate]
    return size, 256 * blocks if kind in (0, 2) and number == 0 else 0, (hertz, 1)


def amr_frame(
    content: Content, at: int, sizes: tuple[int | None, ...], samples: int
) -> tuple[int, int, tuple[int, ...]] | None:
    """A frame of AMR (RFC 4867)."""
    header = content[at : at + 1]
    size = sizes[header[0] >> 3 & 15] if header and not header[0] & 0x83 else None
    return None if size is None else (size, samples, ())


def walk(content: Content, start: int, end: int, parse: Parse, name: str) -> tuple[int, tuple[int, ...]]:
    """Count the samples of the frames from ``start`` to ``end``; also what the first says that may not change.

    Raises:
        Damage: something else lies between frames, the last is cut, or rate, channels or profile change.
    """
    at, samples, constant = start, 0, None
    while at < end:
        frame = parse(content, at)
        if frame is None:
            raise Damage(f"damaged: at byte {at} there should be a frame of {name}")
        size, more, fields = frame
        constant = fields if constant is None else constant
        if fields != constant:
            raise Damage(f"cannot be heard as one: at byte {at} the frames of {name} change their rate or channels")
        if at + size > end:
            raise Damage(f"truncated: its last frame of {name} is incomplete")
        at, samples = at + size, samples + more
    if constant is None or samples == 0:
        raise Damage("header only: there are no samples in it")
    return samples, constant


def plan_adts(content: Content, source_end: int) -> Plan:
    """Walk AAC; with spectral band replication it comes out at twice the rate, so at the same length."""
    start, end = after_id3v2(content), without_tail(content, source_end)
    samples, fields = walk(content, start, end, adts_frame, "AAC")
    return Plan((Stretch(start, end, "aac", samples=samples, rate=fields[0], strict=True),))


def plan_ac3(content: Content, source_end: int) -> Plan:
    """Walk AC-3 or E-AC-3."""
    samples, fields = walk(content, 0, source_end, ac3_frame, "AC-3")
    return Plan((Stretch(0, source_end, "eac3" if fields[1] else "ac3", samples=samples, rate=fields[0], strict=True),))


def plan_amr(content: Content, source_end: int) -> Plan:
    """Walk AMR, narrow or wide."""
    wide = content[:9] == b"#!AMR-WB\n"
    start, sizes, per_frame = (9, AMR_WIDE_SIZES, 320) if wide else (6, AMR_SIZES, 160)
    samples, _ = walk(content, start, source_end, lambda data, at: amr_frame(data, at, sizes, per_frame), "AMR")
    return Plan((Stretch(0, source_end, "amr", samples=samples, rate=16000 if wide else 8000, strict=True),))
