"""MPEG audio, layers I to III: every frame from the first to the last, so that its length is counted and not guessed.

ISO 11172-3 and 13818-3 (frames); the Xing, LAME and VBRI headers as their authors describe them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from spectrim.audio.containers.tags import after_id3v2, without_tail
from spectrim.audio.plan import Content, Damage, Plan, Stretch

BITRATES = {
    (1, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
"""(version 1, or 2 for 2 and 2.5; layer) → kbit/s by index; 0 is free format."""

RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}
"""Version bits → sampling rates in hertz by index."""

LARGEST_LEAD = 1 << 16
"""Bytes that may stand before the frame that says how long a stream is."""

DECODER_DELAY = 529
"""Samples by which every decoder of layer III lags, which LAME's delay does not count."""


@dataclass(frozen=True)
class Frame:
    """A frame's place and what its header says; ``size`` in bytes, ``samples`` of one channel, ``rate`` in hertz."""

    start: int
    size: int
    samples: int
    rate: int
    version: int
    layer: int
    channels: int

    @property
    def kind(self) -> tuple[int, int, int]:
        """What stays the same throughout a stream."""
        return self.version, self.layer, self.rate


def frame_at(content: Content, at: int) -> Frame | None:
    """The frame whose header is at a byte; None if it is none."""
    header = content[at : at + 4]
    if len(header) < 4 or header[0] != 0xFF or header[1] < 0xE0:
        return None
    version, layer = (header[1] >> 3) & 3, 4 - ((header[1] >> 1) & 3)
    index, rate_index, padding = header[2] >> 4, (header[2] >> 2) & 3, (header[2] >> 1) & 1
    if version == 1 or layer == 4 or index in (0, 15) or rate_index == 3:
        return None
    rate = RATES[version][rate_index]
    bits = 1000 * BITRATES[1 if version == 3 else 2, layer][index]
    if layer == 1:
        size, samples = (12 * bits // rate + padding) * 4, 384
    else:
        samples = 576 if layer == 3 and version != 3 else 1152
        size = samples // 8 * bits // rate + padding
    return Frame(at, size, samples, rate, version, layer, 1 if header[3] >> 6 == 3 else 2)


def begins(content: Content, at: int, end: int, frames: int = 4) -> bool:
    """Whether so many frames of one kind follow each other, or as many as there are up to the end."""
    first = frame_at(content, at)
    if first is None:
        return False
    frame: Frame | None = first
    for _ in range(frames):
        if frame is None or frame.kind != first.kind:
            return False
        at += frame.size
        if at >= end:
            return at == end
        frame = frame_at(content, at)
    return True


def frames(content: Content, start: int, end: int) -> Iterator[Frame]:
    """Every frame from ``start`` on, up to where there is none.

    Raises:
        Damage: the last is cut, or the kind of sound changes.
    """
    at = start
    first = frame = frame_at(content, at)
    while first is not None and frame is not None and at < end:
        if frame.kind != first.kind:
            raise Damage(f"cannot be heard as one: at byte {at} its MPEG frames change to another kind or rate")
        if frame.channels != first.channels:
            raise Damage(f"cannot be heard as one: at byte {at} its MPEG frames change their number of channels")
        if at + frame.size > end:
            raise Damage("truncated: its last MPEG frame is incomplete")
        yield frame
        at += frame.size
        frame = frame_at(content, at)


def leans_back(content: Content, frame: Frame) -> bool:
    """Whether part of a frame's sound is in frames before it (layer III): alone, it is not decoded by all decoders."""
    if frame.layer != 3:
        return False
    at = frame.start + (4 if content[frame.start + 1] & 1 else 6)
    field = int.from_bytes(content[at : at + 2], "big")
    return field >> (7 if frame.version == 3 else 8) > 0


def _after_tags(content: Content, at: int, end: int) -> int | None:
    """Where frames go on after tags or zeros; None if something else is there."""
    if content[at : at + 3] == b"ID3":
        after = after_id3v2(content, at)
        return after if at < after <= end else None
    if content[at : at + 3] == b"TAG" and at + 128 <= end:
        return at + 128
    if content[at : at + 8] == b"APETAGEX":
        return at + 32 + int.from_bytes(content[at + 12 : at + 16], "little")
    if content[at : at + 1] == b"\0":
        while at < end and content[at] == 0:
            at += 1
        return at
    return None


DELAYING = (b"LAME", b"Lavf", b"Lavc")
"""How the name of an encoder begins whose Xing frame says what to leave out at both ends, as FFmpeg has it."""


@dataclass(frozen=True)
class InfoFrame:
    """What a Xing, Info or VBRI frame says: frames and bytes of its stream, samples to leave out at both ends."""

    frames: int | None
    bytes: int | None
    delay: int | None = None
    padding: int = 0


def info_of(content: Content, frame: Frame) -> InfoFrame | None:
    """Read the frame that says how long a stream is; None if it is an ordinary one.

    LAME makes its checksum of all that stands before it, FFmpeg always of 190 bytes, itself still 0. LAME before 3.90
    wrote twenty bytes of its name and nothing behind them; of others what stands there is not known.

    Raises:
        Damage: its checksum is wrong.
    """
    if frame.layer != 3:
        return None
    body = bytes(content[frame.start : frame.start + frame.size])
    if body[36:40] == b"VBRI" and len(body) >= 54:
        return InfoFrame(int.from_bytes(body[50:54], "big"), int.from_bytes(body[46:50], "big"))
    side = {(3, 2): 32, (3, 1): 17}.get((frame.version, frame.channels), 17 if frame.channels == 2 else 9)
    at = 4 + side
    if body[at : at + 4] not in (b"Xing", b"Info"):
        return None
    flags = int.from_bytes(body[at + 4 : at + 8], "big")
    at += 8
    values: list[int | None] = []
    for flag in (1, 2):
        values.append(int.from_bytes(body[at : at + 4], "big") if flags & flag else None)
        at += 4 if flags & flag else 0
    at += (100 if flags & 4 else 0) + (4 if flags & 8 else 0)
    info = InfoFrame(values[0], values[1])
    if len(body) < at + 36 or body[at : at + 4] not in DELAYING:
        return info
    if not body[at + 20 : at + 36].strip(b"\0"):
        return replace(info, delay=0)
    written = int.from_bytes(body[at + 34 : at + 36], "big")
    blank = (body[: at + 34] + bytes(2) + body[at + 36 : 190])[:190].ljust(190, b"\0")
    if written not in (_crc16(body[: at + 34]), _crc16(blank)):
        raise Damage("damaged: the checksum of its Xing frame is wrong")
    gap = int.from_bytes(body[at + 21 : at + 24], "big")
    return replace(info, delay=gap >> 12, padding=gap & 0xFFF)


def _crc16(data: bytes) -> int:
    """CRC-16 with the polynomial 0x8005, least significant bit first, as LAME's tag has it."""
    value = 0
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0xA001 if value & 1 else 0)
    return value


def plan(content: Content, source_end: int) -> Plan:
    """Walk the frames of a file, tags around and between them included, and say how many samples they hold.

    Raises:
        Damage: it is cut, damaged or contradicts its own Xing frame.
    """
    end = without_tail(content, source_end)
    start = after_id3v2(content)
    notes = []
    while start < end and content[start] == 0:
        start += 1
    lead = next((at for at in range(start, min(end, start + LARGEST_LEAD)) if begins(content, at, end)), None)
    if lead is None:
        raise Damage("cannot be read as audio: no whole MPEG frames in it")
    if lead > start:
        before = bytes(content[start:lead])
        if any(name in before for name in (b"Xing", b"Info", b"VBRI", b"LAME", b"Lavc")):
            raise Damage("damaged: the frame that says how long it is cannot be read")
        notes.append(f"{lead - start} bytes before its first whole MPEG frame are no sound")
    first = frame_at(content, lead)
    if lead > after_id3v2(content) and (first is None or info_of(content, first) is None):
        raise Damage(
            f"damaged: its beginning is missing, {lead - after_id3v2(content)} bytes up to its first whole MPEG frame "
            "(if you know that what is there is all, decode it with: ffmpeg -i FILE NEW.wav)"
        )
    stretches, more = walk(content, lead, end)
    return Plan(stretches, tuple(notes + more))


def walk(content: Content, start: int, end: int) -> tuple[tuple[Stretch, ...], list[str]]:
    """Count the samples of frames from ``start`` to ``end``, where tags may divide them into several streams.

    Returns:
        The streams, and what is to be said of them.

    Raises:
        Damage: something else lies between frames, a stream lacks its beginning, or see `frames` and `_stream`.
    """
    at, notes, torn = start, list[str](), False
    stretches: list[Stretch] = []
    while at < end:
        first = frame_at(content, at)
        if first is None:
            raise Damage(f"damaged: at byte {at} there should be an MPEG frame")
        if stretches and (leans_back(content, first) or (torn and info_of(content, first) is None)):
            raise Damage(f"damaged: sound is missing before byte {at}")
        stretch, more = _stream(content, at, end)
        stretches.append(stretch)
        notes += more
        at, torn = stretch.end, False
        while at < end and frame_at(content, at) is None:
            after = _after_tags(content, at, end)
            if after is None:
                raise Damage(f"damaged: at byte {at} there should be an MPEG frame")
            torn |= content[at] == 0
            at = after
        if torn and at >= end and info_of(content, first) is None:
            raise Damage("truncated or damaged: zeros follow its last MPEG frame, and it names no length")
    if len(stretches) > 1:
        notes.append(f"it is {len(stretches)} streams one after the other; all were heard")
    return tuple(stretches), notes


def _stream(content: Content, start: int, end: int) -> tuple[Stretch, list[str]]:
    """Count the samples of frames without anything between them."""
    first: Frame | None = None
    info: InfoFrame | None = None
    count, stop, promised_stop = 0, start, -1
    for frame in frames(content, start, end):
        stop = frame.start + frame.size
        if first is None:
            first, info = frame, info_of(content, frame)
            if info is not None:
                continue
        count += 1
        if info is not None and count == info.frames:
            promised_stop = stop
    if first is None or count == 0:
        raise Damage("header only: there are no MPEG frames with sound in it")
    samples, notes = count * first.samples, []
    if info is not None:
        whole = info.frames is None or info.frames == count
        if info.delay is not None:
            samples -= info.delay + DECODER_DELAY + (max(0, info.padding - DECODER_DELAY) if whole else 0)
        if not whole:
            _check_chain(first, info, count, promised_stop)
            notes.append(f"more follows the {info.frames} frames that its header names; all {count} were heard")
    return Stretch(start, stop, "mp3", samples=samples, rate=first.rate), notes


def _check_chain(first: Frame, info: InfoFrame, count: int, promised_stop: int) -> None:
    """Refuse a Xing frame that names another number of frames than there are, unless something was put behind it.

    Raises:
        Damage: frames are missing; or the bytes that it names do not end where the frames that it names do.
    """
    if info.frames is not None and info.frames > count:
        raise Damage(f"truncated: the header promises {info.frames} MPEG frames, {count} are there")
    if info.bytes is None or abs(first.start + info.bytes - promised_stop) > first.size:
        raise Damage(f"damaged: the header names {info.frames} MPEG frames, but {count} are there")
