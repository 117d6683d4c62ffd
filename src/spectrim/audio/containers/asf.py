"""ASF (Windows Media): objects that fill the file, and packets of data of one size."""

from __future__ import annotations

import struct

from spectrim.audio.plan import Content, Damage, Plan, Stretch

HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
PREROLL_UNITS = 10_000
SLACK = 700_000
"""Units of 100 ns by which the sound may end elsewhere: one and a half frames of 2,048 samples at 44.1 kHz."""


def plan(content: Content, source_end: int) -> Plan:
    """Read the objects of an ASF file and say how long it is.

    Raises:
        Damage: it is cut or damaged, or its sizes contradict each other.
    """
    at, places = 0, {}
    while at < source_end:
        kind, size = bytes(content[at : at + 16]), int.from_bytes(content[at + 16 : at + 24], "little")
        if size < 24:
            raise Damage(f"damaged: at byte {at} there should be an ASF object")
        if at + size > source_end:
            raise Damage(
                f"truncated or damaged: the ASF object at byte {at} promises {size} bytes, {source_end - at} are there"
            )
        places[kind] = (at, size)
        at += size
    if HEADER not in places or DATA not in places:
        raise Damage("damaged: the header or the data of ASF is missing")
    start, size = places[HEADER]
    properties = content.find(PROPERTIES, start, start + size)
    if properties < 0:
        raise Damage("damaged: the properties of ASF are missing")
    fields = struct.unpack("<QQQQQQIIII", bytes(content[properties + 40 : properties + 104]))
    file_size, _, packets, length, _, preroll, flags, smallest, largest, _ = fields
    data_size = places[DATA][1]
    if flags & 1:
        raise Damage("cannot be heard whole for sure: its header says that it is a live recording")
    if file_size != source_end or smallest != largest or data_size != 50 + packets * largest:
        raise Damage(f"damaged: its header names {file_size} bytes and {packets} packets of {largest}")
    samples = max(0, length - preroll * PREROLL_UNITS)
    return Plan((Stretch(0, source_end, "asf", samples=samples, rate=10_000_000, slack=SLACK, strict=True),))
