"""FLAC: the number of samples and the MD5 of the sound in its header, and what follows it (RFC 9639)."""

from __future__ import annotations

from spectrim.audio.containers.tags import after_id3v2, without_tail
from spectrim.audio.plan import Content, Damage, Plan, Stretch


def plan(content: Content, source_end: int) -> Plan:
    """Read the metadata of a FLAC file; its samples and their MD5 are compared when it has been decoded.

    Raises:
        Damage: the metadata is cut or damaged.
    """
    start = after_id3v2(content)
    end = without_tail(content, source_end)
    at, last = start + 4, False
    while not last:
        header = content[at : at + 4]
        if len(header) < 4:
            raise Damage("truncated: its metadata is incomplete")
        last, kind, size = bool(header[0] & 0x80), header[0] & 0x7F, int.from_bytes(header[1:4], "big")
        if (at == start + 4) != (kind == 0) or kind == 127 or (kind == 0 and size != 34):
            raise Damage(f"damaged: the metadata block at byte {at} cannot be one")
        at += 4 + size
    if at >= end:
        raise Damage(
            "header only: there are no samples in it" if at == end else "truncated: its metadata is incomplete"
        )
    info = bytes(content[start + 8 : start + 42])
    packed = int.from_bytes(info[10:18], "big")
    rate, bits, samples = packed >> 44, (packed >> 36 & 31) + 1, packed & (1 << 36) - 1
    md5 = info[18:34] if any(info[18:34]) else None
    notes = () if samples else ("its header names no length: read to the end",)
    stretch = Stretch(start, end, "flac", samples=samples or None, rate=rate, md5=md5, bits=bits, strict=True)
    return Plan((stretch,), notes)
