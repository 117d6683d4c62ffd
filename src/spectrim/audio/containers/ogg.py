"""Ogg: pages with checksums and numbers, so that whatever is cut or damaged can be told.

RFC 3533 (pages), RFC 7845 (Opus), the Vorbis I and FLAC-to-Ogg mappings. A physical stream is a chain of links; a link
that holds one logical stream is decoded by itself.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from spectrim.audio.containers.packets import FlacCounter, OpusCounter, VorbisCounter
from spectrim.audio.containers.tags import without_tail
from spectrim.audio.plan import Content, Damage, Plan, Stretch

MAGIC = b"OggS"
_HEADER = struct.Struct("<4sBBqIIIB")
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
CONTINUED, FIRST, LAST = 1, 2, 4
Counter: TypeAlias = OpusCounter | VorbisCounter | FlacCounter
COUNTERS: dict[str, type[Counter]] = {"Opus": OpusCounter, "Vorbis": VorbisCounter, "FLAC": FlacCounter}
LARGEST_BLOCK = 8192
"""Samples by which the end of the last page may differ from that of its packets: the longest block of Vorbis."""


@dataclass(frozen=True)
class Page:
    """One page: where it begins and ends, its header's fields, and whether it ends within a packet."""

    start: int
    end: int
    flags: int
    granule: int
    serial: int
    number: int
    body: int
    open_ended: bool


@dataclass
class _Logical:
    """What was seen of a logical stream so far; ``begins`` is the sample that its first packet of sound stands for."""

    first: Page
    codec: str
    last: Page
    counter: Counter | None = None
    packets: int = 0
    pending: bytes = b""
    pending_size: int = 0
    granules: list[int] = field(default_factory=list)
    begins: int | None = None


@dataclass
class _Link:
    """Logical streams that begin together."""

    start: int
    end: int = 0
    streams: dict[int, _Logical] = field(default_factory=dict)
    packets_begun: bool = False

    @property
    def ended(self) -> bool:
        return all(stream.last.flags & LAST for stream in self.streams.values())


def checksum(page: bytes) -> int:
    """CRC-32 of a page as Ogg has it: most significant bit first, from 0, with the field itself as zeros."""
    blank = page[:22] + bytes(4) + page[26:]
    mirrored = zlib.crc32(blank.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{mirrored:032b}"[::-1], 2)


def pages(content: Content, end: int) -> Iterator[Page]:
    """Every page from the beginning to ``end``, between which nothing may lie.

    Raises:
        Damage: a page is cut, its checksum is wrong, or there is something else between pages.
    """
    at = 0
    while at < end:
        if content[at : at + 4] != MAGIC:
            raise Damage(f"damaged: at byte {at} there should be an Ogg page")
        if at + 27 > end:
            raise Damage("truncated: the last Ogg page is incomplete")
        _, version, flags, granule, serial, number, crc, segments = _HEADER.unpack(content[at : at + 27])
        lacing = content[at + 27 : at + 27 + segments]
        body = at + 27 + segments
        stop = body + sum(lacing)
        if len(lacing) < segments or stop > end:
            raise Damage("truncated: the last Ogg page is incomplete")
        if version != 0 or checksum(bytes(content[at:stop])) != crc:
            raise Damage(f"damaged: the checksum of the Ogg page at byte {at} is wrong")
        yield Page(at, stop, flags, granule, serial, number, body, bool(segments) and lacing[-1] == 255)
        at = stop


def codec_of(first_packet: bytes) -> str:
    """Name what a logical stream holds, by its first packet."""
    for start, name in (
        (b"\x01vorbis", "Vorbis"),
        (b"OpusHead", "Opus"),
        (b"\x7fFLAC", "FLAC"),
        (b"Speex   ", "Speex"),
        (b"fishead\0", "Skeleton"),
        (b"\x80theora", "Theora"),
    ):
        if first_packet.startswith(start):
            return name
    return "unknown"


def plan(content: Content, source_end: int) -> Plan:
    """Read the pages of an Ogg file and say how its links are to be decoded.

    Raises:
        Damage: it is cut, damaged, or holds what cannot be heard.
    """
    end = without_tail(content, source_end)
    links = _links(content, end)
    last = links[-1]
    notes = []
    if len(links) > 1:
        notes.append(f"it is a chain of {len(links)} streams; all were heard")
    if not last.ended:
        if any(stream.last.open_ended for stream in last.streams.values()):
            raise Damage("truncated: the last Ogg page ends within a packet")
        raise Damage(
            "truncated, or closed without a mark: its last Ogg page does not say that the stream ends there "
            "(if you know that it is whole, copy it with: ffmpeg -i FILE -c copy NEW)"
        )
    return Plan(tuple(_stretch(content, link) for link in links), tuple(notes))


def _links(content: Content, end: int) -> list[_Link]:
    links: list[_Link] = []
    for page in pages(content, end):
        link = links[-1] if links else None
        if page.flags & FIRST:
            if link is None or link.packets_begun:
                if link is not None and not link.ended:
                    raise Damage(
                        f"damaged: an Ogg stream begins at byte {page.start} before the one before it has ended"
                    )
                link = _Link(page.start)
                links.append(link)
            if page.serial in link.streams:
                raise Damage(f"damaged: an Ogg stream begins twice, at byte {page.start}")
            codec = codec_of(bytes(content[page.body : page.body + 8]))
            counter = COUNTERS[codec]() if codec in COUNTERS else None
            link.streams[page.serial] = _Logical(page, codec, page, counter)
            _count(content, link.streams[page.serial], page)
        else:
            if link is None or page.serial not in link.streams:
                raise Damage(f"damaged: the Ogg page at byte {page.start} belongs to no stream")
            link.packets_begun = True
            _continue(link.streams[page.serial], page)
            _count(content, link.streams[page.serial], page)
        link.end = page.end
    if not links:
        raise Damage("truncated: there is no whole Ogg page in it")
    return links


def _continue(stream: _Logical, page: Page) -> None:
    before = stream.last
    if before.flags & LAST:
        raise Damage(f"damaged: the Ogg page at byte {page.start} comes after the end of its stream")
    if page.number != (before.number + 1) & 0xFFFFFFFF:
        raise Damage(f"damaged: between the Ogg pages at bytes {before.start} and {page.start} some are missing")
    if bool(page.flags & CONTINUED) != before.open_ended:
        raise Damage(f"damaged: the Ogg page at byte {page.start} does not go on where the one before it stopped")
    if page.granule != -1:
        if stream.granules and page.granule < stream.granules[-1]:
            raise Damage(f"damaged: time runs backwards at the Ogg page at byte {page.start}")
        if page.granule > 0:
            stream.granules.append(page.granule)
    stream.last = page


def _count(content: Content, stream: _Logical, page: Page) -> None:
    """Hand the packets that end in a page to the stream's counter: headers whole, others by their first bytes."""
    if stream.counter is None:
        return
    at = page.body
    for lace in content[page.start + 27 : page.body]:
        whole = stream.packets < stream.counter.HEADERS
        needed = lace if whole else stream.counter.BEGINNING - stream.pending_size
        if needed > 0:
            stream.pending += content[at : at + min(lace, needed)]
        stream.pending_size += lace
        at += lace
        if lace < 255:
            if whole:
                stream.counter.header(stream.pending, stream.packets)
            else:
                stream.counter.add(stream.pending, stream.pending_size)
            stream.packets += 1
            stream.pending, stream.pending_size = b"", 0
    if stream.begins is None and stream.granules:
        stream.begins = max(0, stream.granules[0] - stream.counter.samples)


def _stretch(content: Content, link: _Link) -> Stretch:
    sounds = [stream for stream in link.streams.values() if stream.codec in ("Vorbis", "Opus", "FLAC", "Speex")]
    if not sounds:
        names = ", ".join(sorted({stream.codec for stream in link.streams.values()}))
        raise Damage(f"cannot be read as audio: an Ogg stream without sound that is known ({names})")
    sound = sounds[0]
    head = bytes(content[sound.first.body : sound.first.end])
    alone = len(link.streams) == 1
    if not sound.granules:
        raise Damage("header only: there are no samples in it")
    last = sound.granules[-1]
    if len(head) < {"Opus": 19, "Vorbis": 30, "FLAC": 51, "Speex": 80}[sound.codec]:
        raise Damage(f"damaged: the first packet of its {sound.codec} is too short")
    if sound.codec in ("Opus", "Vorbis"):
        skip, rate = (_word(head, 10, 2), 48000) if sound.codec == "Opus" else (0, _word(head, 12, 4))
        samples = last - skip - (sound.begins or 0)
        if alone:
            _check_packets(sound, samples, skip, rate)
            # libsndfile forgets to skip what Opus begins with where the first time is not 0.
            decoder = "ogg" if sound.begins and sound.codec == "Opus" else None
            return Stretch(link.start, link.end, decoder, samples=samples, rate=rate)
        return Stretch(link.start, link.end, "ogg", samples=samples, rate=rate, slack=LARGEST_BLOCK)
    if sound.codec == "FLAC":
        packed, begins = int.from_bytes(head[27:35], "big"), sound.begins or 0
        # The checksum is that of the whole, of which a broadcast that was joined late is a part.
        md5 = head[35:51] if any(head[35:51]) and not begins else None
        rate, bits = packed >> 44, (packed >> 36 & 31) + 1
        return Stretch(link.start, link.end, "ogg", samples=last - begins, rate=rate, md5=md5, bits=bits, strict=True)
    return Stretch(link.start, link.end, "ogg", samples=last, rate=_word(head, 36, 4), slack=2 * 640)


def _check_packets(sound: _Logical, samples: int, skip: int, rate: int) -> None:
    """Compare the samples that the last page names with those of all packets, of which the end may be trimmed.

    Raises:
        Damage: they differ by more.
    """
    held = 0 if sound.counter is None else sound.counter.samples - skip
    if not held - LARGEST_BLOCK <= samples <= held:
        raise Damage(f"damaged: its pages name {samples / rate:.4f} s, its packets hold {held / rate:.4f} s")


def _word(packet: bytes, at: int, size: int) -> int:
    return int.from_bytes(packet[at : at + size], "little")
