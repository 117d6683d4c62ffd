"""MP4 and its relatives (ISO 14496-12): boxes that fill the file, and tables of packets that agree with each other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from spectrim.audio.plan import Content, Damage, Plan, Stretch

HOLDERS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"edts", b"mvex")
DEPTH = 8


@dataclass(frozen=True)
class Box:
    """A box: its kind, and where its body begins and ends."""

    kind: bytes
    body: int
    end: int


@dataclass
class Track:
    """What is said of a track, times in units of their scales; None where it is not said."""

    number: int = 0
    handler: bytes = b""
    scale: int = 0
    length: int = 0
    packets: int = 0
    spans: int = 0
    total: int = 0
    edits: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class Fragments:
    """What is said of a film in fragments.

    Attributes:
        packets: number of a track → packets of it, over all fragments.
        times: number of a track → when its last fragment begins, in units of its scale.
        boxes_of_data: how many there are in the file.
        count: of fragments.
        parts: of fragments, each of one track.
        last: the number that the last fragment gives itself.
    """

    packets: dict[int, int] = field(default_factory=dict)
    times: dict[int, int] = field(default_factory=dict)
    boxes_of_data: int = 0
    count: int = 0
    parts: int = 0
    last: int | None = None


def boxes(content: Content, start: int, end: int) -> Iterator[Box]:
    """The boxes that lie side by side between two bytes.

    Raises:
        Damage: they do not fill the room.
    """
    at = start
    while at < end:
        size, kind, body = int.from_bytes(content[at : at + 4], "big"), bytes(content[at + 4 : at + 8]), at + 8
        if size == 1:
            size, body = int.from_bytes(content[at + 8 : at + 16], "big"), at + 16
        elif size == 0:
            size = end - at
        if len(kind) < 4 or size < body - at:
            if end - at < 8 or not any(content[at : min(end, at + 65536)]):
                return
            raise Damage(f"damaged: at byte {at} there should be an MP4 box")
        if at + size > end:
            raise Damage(f"truncated or damaged: the MP4 box at byte {at} promises {size} bytes, {end - at} are there")
        yield Box(kind, body, at + size)
        at += size


def plan(content: Content, source_end: int) -> Plan:
    """Read the tables of an MP4 file and say what its first track of sound holds.

    Raises:
        Damage: it is cut, damaged, has no sound, or its tables contradict each other.
    """
    tracks: list[Track] = []
    movie = [0, 0]
    fragments = Fragments()
    _read(content, 0, source_end, tracks, movie, fragments, 0)
    sounds = [track for track in tracks if track.handler == b"soun"]
    if not tracks:
        raise Damage("truncated or damaged: the table of what is in it (moov) is missing")
    if not sounds:
        raise Damage("has no sound: there is no audio stream in it")
    track = sounds[0]
    more = fragments.packets.get(track.number, 0)
    if track.spans != track.packets:
        raise Damage(f"damaged: its tables name {track.packets} and {track.spans} packets")
    if more and not track.packets and fragments.boxes_of_data != fragments.count:
        raise Damage(f"damaged: it has {fragments.boxes_of_data} boxes of data for {fragments.count} fragments")
    if fragments.parts < fragments.count:
        raise Damage(f"damaged: {fragments.count - fragments.parts} of its {fragments.count} fragments have no track")
    packets = track.packets + more
    if packets == 0 or track.scale == 0:
        raise Damage("header only: there are no packets of sound in it")
    samples, slack = None, 0
    plain = track.total == track.packets and not more
    if not more:
        one = max(1, track.total // packets)
        if abs(track.total - track.length) > 2 * one:
            raise Damage(
                f"damaged: its header names {track.length / track.scale:.2f} s, "
                f"its tables {track.total / track.scale:.2f} s"
            )
        samples, slack = track.total, 3 * one
        if track.edits and movie[0]:
            samples = _edited(track, movie, one)
    return Plan(
        (
            Stretch(
                0,
                source_end,
                "mov",
                samples=samples,
                rate=track.scale,
                slack=slack,
                packets=None if plain else packets,
                strict=True,
                late=any(start < 0 for _, start in track.edits),
            ),
        )
    )


def _edited(track: Track, movie: list[int], one: int) -> int:
    """Samples that the edit list leaves.

    Raises:
        Damage: it cuts more than what encoders put before and after the sound, or names what is not there.
    """
    heard = [(length, start) for length, start in track.edits if start >= 0]
    if len(heard) != 1:
        raise Damage(f"cannot be heard as one: its edit list cuts it into {len(heard)} pieces")
    length, start = heard[0]
    samples = length * track.scale // movie[0]
    left = track.total - start
    if abs(left - samples) > 3 * one + track.scale // movie[0] + 1 and samples:
        raise Damage(
            f"damaged: its edit list names {samples / track.scale:.2f} s, {left / track.scale:.2f} s are there"
        )
    return min(left, samples) if samples else left


def _read(
    content: Content,
    start: int,
    end: int,
    tracks: list[Track],
    movie: list[int],
    fragments: Fragments,
    depth: int,
) -> None:
    number = 0
    for box in boxes(content, start, end):
        if box.kind == b"trak":
            tracks.append(Track())
        fragments.parts += box.kind == b"traf"
        if box.kind in HOLDERS and depth < DEPTH:
            _read(content, box.body, box.end, tracks, movie, fragments, depth + 1)
        elif box.kind == b"mvhd":
            movie[:] = _times(content, box)
        elif box.kind == b"tfhd":
            number = int.from_bytes(content[box.body + 4 : box.body + 8], "big")
        elif box.kind in (b"mdat", b"mfhd", b"trun", b"tfdt"):
            _read_fragment(content, box, fragments, number)
        elif tracks:
            _read_track(content, box, tracks[-1])


def _read_fragment(content: Content, box: Box, fragments: Fragments, track: int) -> None:
    """Take what a box says of the fragment that it is in.

    Raises:
        Damage: a fragment is missing, or time runs backwards.
    """
    word = int.from_bytes(content[box.body + 4 : box.body + 8], "big")
    if box.kind == b"mdat":
        fragments.boxes_of_data += 1
    elif box.kind == b"trun":
        fragments.packets[track] = fragments.packets.get(track, 0) + word
    elif box.kind == b"tfdt":
        time = int.from_bytes(content[box.body + 4 : box.end], "big")
        before = fragments.times.get(track, 0)
        if time < before:
            raise Damage(f"damaged: a fragment begins at {time}, and the one before it at {before}")
        fragments.times[track] = time
    else:
        if fragments.last is not None and word != fragments.last + 1:
            raise Damage(f"damaged: fragment {word} follows fragment {fragments.last}")
        fragments.last = word
        fragments.count += 1


def _read_track(content: Content, box: Box, track: Track) -> None:
    """Take what a box says of the track that it is in."""
    body = content[box.body : min(box.end, box.body + 64)]

    def word(at: int, size: int = 4) -> int:
        return int.from_bytes(body[at : at + size], "big")

    if box.kind == b"tkhd":
        track.number = word(20 if body[:1] == b"\1" else 12)
    elif box.kind == b"mdhd":
        track.scale, track.length = _times(content, box)
    elif box.kind == b"hdlr" and not track.handler:
        track.handler = bytes(body[8:12])
    elif box.kind in (b"stsz", b"stz2"):
        track.packets = word(8)
    elif box.kind == b"stts":
        if 8 + 8 * word(4) > box.end - box.body:
            raise Damage("damaged: a table of its packets is longer than its box")
        for at in range(box.body + 8, box.body + 8 + 8 * word(4), 8):
            count, each = int.from_bytes(content[at : at + 4], "big"), int.from_bytes(content[at + 4 : at + 8], "big")
            track.spans += count
            track.total += count * each
    elif box.kind == b"elst":
        long = body[:1] == b"\1"
        size, step = (8, 20) if long else (4, 12)
        if 8 + step * word(4) > box.end - box.body:
            raise Damage("damaged: its edit list is longer than its box")
        for at in range(box.body + 8, box.body + 8 + step * word(4), step):
            length = int.from_bytes(content[at : at + size], "big")
            track.edits.append((length, int.from_bytes(content[at + size : at + 2 * size], "big", signed=True)))


def _times(content: Content, box: Box) -> list[int]:
    """Scale and length of mvhd and mdhd."""
    body = content[box.body : min(box.end, box.body + 32)]
    if body[:1] == b"\1":
        return [int.from_bytes(body[20:24], "big"), int.from_bytes(body[24:32], "big")]
    return [int.from_bytes(body[12:16], "big"), int.from_bytes(body[16:20], "big")]
