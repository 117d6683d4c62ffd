"""Matroska and WebM (RFC 9559): elements that fill the file, and how many packets its first track of sound has."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from spectrim.audio.containers.chunks import UNCLOSED
from spectrim.audio.plan import Content, Damage, Plan, Stretch

EBML, SEGMENT, CLUSTER, GROUP, SIMPLE, BLOCK = 0x1A45DFA3, 0x18538067, 0x1F43B675, 0xA0, 0xA3, 0xA1
INFO, SCALE, DURATION = 0x1549A966, 0x2AD7B1, 0x4489
TRACKS, ENTRY, NUMBER, KIND = 0x1654AE6B, 0xAE, 0xD7, 0x83
LEVEL_ONE = (0x114D9B74, INFO, CLUSTER, TRACKS, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367, 0xEC, 0xBF)
INSIDE = {
    None: (EBML, SEGMENT, 0xEC),
    SEGMENT: LEVEL_ONE,
    CLUSTER: (0xE7, 0x5854, 0xA7, 0xAB, SIMPLE, GROUP, 0xAF, 0xEC, 0xBF),
}
"""Element → what may be in it, where that decides how to go on; None for the file."""
HOLDERS = (SEGMENT, CLUSTER, GROUP, INFO, TRACKS, ENTRY)
SOUND = 2


@dataclass
class _Found:
    """What was read of a file."""

    tracks: list[dict[int, int]]
    packets: dict[int, int]
    scale: int = 1_000_000
    duration: float | None = None
    unclosed: bool = False


def plan(content: Content, source_end: int) -> Plan:
    """Walk the elements of a Matroska file and count the packets of its first track of sound.

    Raises:
        Damage: it is cut, damaged or has no sound.
    """
    found = _Found([], {})
    _walk(content, 0, source_end, None, found)
    sounds = [track for track in found.tracks if track.get(KIND) == SOUND]
    if not sounds:
        raise Damage("has no sound: there is no audio stream in it")
    packets = found.packets.get(sounds[0].get(NUMBER, 1), 0)
    if packets == 0:
        raise Damage("header only: there are no packets of sound in it")
    seconds = None if found.duration is None else found.duration * found.scale / 1e9
    only = len(found.tracks) == 1
    samples = None if seconds is None or not only else round(seconds * 1_000_000)
    stretch = Stretch(
        0, source_end, "matroska", samples=samples, rate=1_000_000, slack=100_000, packets=packets, strict=True
    )
    return Plan((stretch,), (UNCLOSED,) if found.unclosed else ())


def _number(content: Content, at: int, keep_mark: bool) -> tuple[int, int]:
    """An EBML number of variable length: its value and its length in bytes, -1 for a size that is not known.

    Raises:
        Damage: there is none.
    """
    first = content[at : at + 1]
    if not first or first[0] == 0:
        raise Damage(f"damaged: at byte {at} there should be a Matroska element")
    length = 9 - first[0].bit_length()
    value = int.from_bytes(content[at : at + length], "big")
    if keep_mark:
        return value, length
    value &= (1 << 7 * length) - 1
    return (-1 if value == (1 << 7 * length) - 1 else value), length


def _walk(content: Content, at: int, end: int, parent: int | None, found: _Found) -> int:
    """Read elements from a byte on, to the end of their parent or, where that is not known, the first foreign one."""
    open_parent = parent in (SEGMENT, CLUSTER) and end < 0
    stop = len(content) if end < 0 else end
    while at < stop:
        kind, length = _number(content, at, True)
        if parent in INSIDE and kind not in INSIDE[parent]:
            if open_parent:
                return at
            raise Damage(f"damaged: at byte {at} there is no element of Matroska")
        size, width = _number(content, at + length, False)
        body = at + length + width
        if size < 0:
            if kind not in (SEGMENT, CLUSTER):
                raise Damage(f"damaged: the element at byte {at} has no size")
            found.unclosed |= kind == SEGMENT
            at = _walk(content, body, -1, kind, found)
            continue
        if body + size > stop:
            raise Damage(
                f"truncated or damaged: the element at byte {at} promises {size} bytes, {stop - body} are there"
            )
        _take(content, kind, body, body + size, found)
        at = body + size
    return at


def _take(content: Content, kind: int, body: int, end: int, found: _Found) -> None:
    if kind == ENTRY:
        found.tracks.append({})
    if kind in HOLDERS:
        _walk(content, body, end, kind, found)
    elif kind in (SIMPLE, BLOCK):
        number, length = _number(content, body, False)
        flags = content[body + length + 2]
        count = content[body + length + 3] + 1 if flags & 6 else 1
        found.packets[number] = found.packets.get(number, 0) + count
    elif kind in (NUMBER, KIND) and found.tracks:
        found.tracks[-1][kind] = int.from_bytes(content[body:end], "big")
    elif kind == SCALE:
        found.scale = int.from_bytes(content[body:end], "big")
    elif kind == DURATION and end - body in (4, 8):
        found.duration = struct.unpack(">f" if end - body == 4 else ">d", content[body:end])[0]
