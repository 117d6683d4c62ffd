"""WAV, RF64, BW64, Wave64, CAF, AIFF, AU, NIST SPHERE and VOC: the sizes that they name against the file's own."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from spectrim.audio.containers import mpeg
from spectrim.audio.containers.tags import without_tail
from spectrim.audio.plan import Content, Damage, Plan, Stretch

UNCLOSED = "its header names no length: read to the end"
"""The note for a file that a recorder never closed."""

W64_RIFF = b"riff\x2e\x91\xcf\x11\xa5\xd6\x28\xdb\x04\xc1\x00\x00"
W64_TAIL = b"\xf3\xac\xd3\x11\x8c\xd1\x00\xc0\x4f\x8e\xdb\x8a"
ADPCM, IMA = 2, 0x11
CAF_FIELD = struct.Struct(">q")
PCM, FLOAT, ALAW, MULAW, MPEG, MP3, EXTENSIBLE = 1, 3, 6, 7, 0x50, 0x55, 0xFFFE


@dataclass(frozen=True)
class Chunk:
    """One chunk: its name, the place of its size, its body and where the next one begins if its size is right."""

    name: bytes
    size_at: int
    body: int
    size: int
    next: int


def riff_chunks(content: Content, end: int, order: str, at: int = 12) -> Iterator[Chunk]:
    """Chunks with a name of four bytes and a size of four, padded to even."""
    field = struct.Struct(order + "I")
    while at + 8 <= end:
        size = field.unpack(content[at + 4 : at + 8])[0]
        yield Chunk(bytes(content[at : at + 4]), at + 4, at + 8, size, at + 8 + size + size % 2)
        at += 8 + size + size % 2


def w64_chunks(content: Content, end: int) -> Iterator[Chunk]:
    """Chunks with a name of sixteen bytes and a size of eight that counts both, padded to eights."""
    at = 40
    while at + 24 <= end:
        name, size = bytes(content[at : at + 16]), int.from_bytes(content[at + 16 : at + 24], "little")
        name = name[:4] if name[4:] == W64_TAIL else b"\0"
        yield Chunk(name, at + 16, at + 24, size - 24, at + (max(size, 24) + 7) // 8 * 8)
        at += (max(size, 24) + 7) // 8 * 8


def caf_chunks(content: Content, end: int) -> Iterator[Chunk]:
    """Chunks with a name of four bytes and a size of eight, of which -1 stands for all that follows."""
    at = 8
    while at + 12 <= end:
        size = CAF_FIELD.unpack(content[at + 4 : at + 12])[0]
        yield Chunk(bytes(content[at : at + 4]), at + 4, at + 12, size, at + 12 + max(0, size))
        at += 12 + max(0, size)


def is_name(name: bytes) -> bool:
    """Whether four bytes can be the name of a chunk."""
    return len(name) == 4 and all(0x20 <= byte < 0x7F for byte in name)


def open_ended(size: int, bits: int) -> bool:
    """Whether a chunk's size is what recorders write while they cannot know it."""
    half = 1 << bits - 1
    return half - 0x10000 <= size <= half + 0x100 or 2 * half - 0x100 <= size or open_ended_in_32(size)


def open_ended_in_32(size: int) -> bool:
    """The same for sizes of four bytes, which some programs write into eight."""
    return 0x7FFF0000 <= size <= 0x80000100 or 0xFFFFFF00 <= size <= 0xFFFFFFFF


@dataclass(frozen=True)
class Data:
    """The chunk of samples: from where to where they are, the patch that gives it its size, and whether it had none."""

    start: int
    end: int
    patches: tuple[tuple[int, bytes], ...] = ()
    unclosed: bool = False


def data_of(chunks: list[Chunk], name: bytes, end: int, field: struct.Struct, beyond: int = 0, pad: int = 2) -> Data:
    """Find the samples among chunks and make sure that what follows them, if anything, is chunks.

    Args:
        chunks: of the file, walked by the sizes that they name.
        name: of the chunk of samples.
        end: of the file.
        field: how a chunk's size is written.
        beyond: what the written size counts beyond the body.
        pad: chunks are padded to a multiple of this; the last one need not be.

    Raises:
        Damage: there are no samples, fewer than promised, or more bytes than any chunk accounts for.
    """
    found = [index for index, chunk in enumerate(chunks) if chunk.name == name]
    if not found:
        raise Damage("damaged: there is no chunk of samples in it")
    chunk, after = chunks[found[0]], chunks[found[0] + 1 :]
    there = end - chunk.body
    last = after[-1] if after else chunk
    tidy = all(is_name(one.name) for one in after) and (-1 if pad < 8 else 0) <= last.next - end < pad
    if there <= 1 or (chunk.size == 0 and after and tidy):
        raise Damage("header only: there are no samples in it")
    if chunk.size < 0 and chunk.size not in (-1, -beyond):
        raise Damage(f"damaged: the chunk of samples names {chunk.size + beyond} bytes")
    if chunk.size <= 0 or (chunk.size > there and open_ended(chunk.size, 8 * field.size)):
        largest = (1 << 8 * field.size - (field.format[-1] in "iq")) - 1
        fits = there + beyond <= largest
        return Data(chunk.body, end, ((chunk.size_at, field.pack(there + beyond)),) if fits else (), unclosed=True)
    if chunk.size > there:
        raise Damage(f"truncated: the header promises {chunk.size} bytes, {there} are there")
    if len(found) > 1:
        raise Damage("cannot be heard whole: its samples are in several chunks")
    if not tidy:
        left = there - chunk.size
        raise Damage(f"damaged: the header names {chunk.size} bytes of sound, and {left} that are no chunk follow")
    return Data(chunk.body, chunk.body + chunk.size)


def plan_riff(content: Content, source_end: int) -> Plan:
    """WAV, RF64 and BW64, which libsndfile knows only by its older name.

    Raises:
        Damage: see `data_of` and `_wave`.
    """
    order = ">" if content[:4] == b"RIFX" else "<"
    end = without_tail(content, source_end)
    chunks = list(riff_chunks(content, end, order))
    long = next((chunk for chunk in chunks if chunk.name == b"ds64"), None)
    field = struct.Struct(order + "I")
    if long is not None:
        size = int.from_bytes(content[long.body + 8 : long.body + 16], "little")
        index = next((index for index, chunk in enumerate(chunks) if chunk.name == b"data"), None)
        if index is not None and chunks[index].size == 0xFFFFFFFF:
            body = chunks[index].body
            after = body + size + size % 2
            chunks[index:] = [
                Chunk(b"data", long.body + 8, body, size, after),
                *riff_chunks(content, end, order, after),
            ]
            field = struct.Struct("<Q")
        elif index is not None and chunks[index].size != size:
            raise Damage(f"damaged: its header names {size} and {chunks[index].size} bytes of sound")
    data = data_of(chunks, b"data", end, field)
    if content[:4] == b"BW64":
        data = replace(data, patches=((0, b"RF64"), *data.patches))
    return _wave(content, source_end, chunks, data, order, "wav")


def plan_w64(content: Content, source_end: int) -> Plan:
    """Sony Wave64.

    Raises:
        Damage: see `data_of` and `_wave`.
    """
    chunks = list(w64_chunks(content, source_end))
    data = data_of(chunks, b"data", source_end, struct.Struct("<Q"), beyond=24, pad=8)
    return _wave(content, source_end, chunks, data, "<", "w64")


def _wave(content: Content, end: int, chunks: list[Chunk], data: Data, order: str, container: str) -> Plan:
    """Count the samples of a WAV-like file by its format chunk.

    Raises:
        Damage: the format chunk is missing or contradicts itself.
    """
    chunk = next((chunk for chunk in chunks if chunk.name == b"fmt "), None)
    form = b"" if chunk is None else bytes(content[chunk.body : chunk.body + min(chunk.size, 40)])
    if chunk is None or len(form) < 16:
        raise Damage("damaged: the chunk that says the format is missing or cut")
    tag, channels, rate, per_second, block, bits = struct.unpack_from(order + "HHIIHH", form)
    if tag == EXTENSIBLE and len(form) >= 26:
        extra, valid = struct.unpack_from(order + "HH", form, 16)
        if extra != chunk.size - 18 or valid > bits:
            raise Damage(f"damaged: its format contradicts itself ({valid} of {bits} bits, {extra} bytes more)")
        tag = struct.unpack_from(order + "H", form, 24)[0]
    notes = (UNCLOSED,) if data.unclosed else ()
    if tag in (MPEG, MP3):
        stretches, more = mpeg.walk(content, data.start, data.end)
        first = mpeg.frame_at(content, data.start)
        if first is None or (first.rate, first.channels) != (rate, channels):
            raise Damage(f"damaged: its format ({rate} Hz, {channels} channels) is not that of its MPEG frames")
        return Plan(stretches, (*notes, *more))
    if tag in (IMA, ADPCM):
        _check_blocks(content, data, tag, channels, block)
    samples = None
    if tag in (PCM, FLOAT, ALAW, MULAW):
        if block != channels * ((bits + 7) // 8) or per_second not in (0, rate * block) or block == 0:
            detail = (
                f"{rate} Hz, {channels} channels of {bits} bits, {block} bytes a block, {per_second} bytes a second"
            )
            raise Damage(f"damaged: its format contradicts itself ({detail})")
        samples = (data.end - data.start) // block
        if samples == 0:
            raise Damage("header only: there are no samples in it")
    decoder = container if data.unclosed and not any(place > 0 for place, _ in data.patches) else None
    return Plan((Stretch(0, end, decoder, data.patches, samples, rate),), notes)


def _check_blocks(content: Content, data: Data, tag: int, channels: int, block: int) -> None:
    """Look at the head of every block of ADPCM: one that cannot be makes FFmpeg leave out the block.

    Raises:
        Damage: a step (IMA) or a predictor (Microsoft) is out of range.
    """
    places, largest = (range(2, 4 * channels, 4), 88) if tag == IMA else (range(channels), 6)
    for start in range(data.start, data.end, max(1, block)):
        head = content[start : start + 4 * channels]
        if any(head[place] > largest for place in places if place < len(head)):
            raise Damage(f"damaged: the block of ADPCM at byte {start} cannot be one")


def plan_caf(content: Content, source_end: int) -> Plan:
    """Core Audio Format; FFmpeg decodes what is not plain samples.

    Raises:
        Damage: see `data_of`; or the table of packets or the format is missing.
    """
    chunks = list(caf_chunks(content, source_end))
    form = next((bytes(content[chunk.body : chunk.body + 32]) for chunk in chunks if chunk.name == b"desc"), b"")
    if len(form) < 32:
        raise Damage("damaged: the chunk that says the format is missing or cut")
    rate, coding, _, block, _, channels, bits = struct.unpack(">d4sIIIII", form)
    if rate != round(rate):
        raise Damage(f"damaged: a sampling rate of {rate:.6g} Hz is no whole number")
    data = data_of(chunks, b"data", source_end, CAF_FIELD, pad=1)
    notes = (UNCLOSED,) if data.unclosed else ()
    if coding == b"lpcm":
        if block != channels * ((bits + 7) // 8) or block == 0:
            raise Damage(
                f"damaged: its format contradicts itself ({channels} channels of {bits} bits, {block} bytes a block)"
            )
        samples = (data.end - data.start - 4) // block
        return Plan((Stretch(0, source_end, None, data.patches, samples, round(rate)),), notes)
    if coding in (b"alaw", b"ulaw"):
        return Plan((Stretch(0, source_end, None, data.patches),), notes)
    table = next((chunk for chunk in chunks if chunk.name == b"pakt"), None)
    if table is None or data.unclosed:
        raise Damage(f"cannot be heard: it has no table of its packets of {coding.decode('latin-1')!r}")
    packets, samples = struct.unpack(">qq", bytes(content[table.body : table.body + 16]))
    # Where CAF has how much of the last packet is no sound, libsndfile writes how much is. ALAC's packets know it.
    patches = ((table.body + 20, bytes(4)),) if coding == b"alac" else ()
    stretch = Stretch(0, source_end, "caf", patches, samples, round(rate), packets=packets, strict=True)
    return Plan((stretch,))


def plan_aiff(content: Content, source_end: int) -> Plan:
    """AIFF and AIFF-C: the number of samples stands in the header twice.

    Raises:
        Damage: see `data_of`; or the two contradict each other.
    """
    end = without_tail(content, source_end)
    chunks = list(riff_chunks(content, end, ">"))
    common = next((bytes(content[chunk.body : chunk.body + 22]) for chunk in chunks if chunk.name == b"COMM"), b"")
    if len(common) < 18:
        raise Damage("damaged: the chunk that says the format is missing or cut")
    channels, samples, bits = struct.unpack_from(">hIh", common)
    data = data_of(chunks, b"SSND", end, struct.Struct(">I"))
    coding = common[18:22] if content[8:12] == b"AIFC" else b"NONE"
    widths = {b"ulaw": 8, b"alaw": 8, b"ULAW": 8, b"ALAW": 8, b"fl32": 32, b"FL32": 32, b"fl64": 64, b"FL64": 64}
    bits = widths.get(coding, bits)
    if coding not in (*widths, b"NONE", b"sowt", b"twos", b"in24", b"in32", b"raw "):
        return Plan((Stretch(0, source_end),))
    offset = int.from_bytes(content[data.start : data.start + 4], "big")
    sound = data.end - data.start - 8 - offset
    if data.unclosed or sound != samples * channels * ((bits + 7) // 8):
        raise Damage(
            f"damaged: its header names {samples} samples, and {sound} bytes of {channels} x {bits} bits are there"
        )
    return Plan((Stretch(0, source_end, samples=samples, rate=_extended(common[8:18])),))


def _extended(number: bytes) -> int:
    """A number in the 80 bits of AIFF, without its fraction, as libsndfile reads it: 22,254.5454… Hz of a Macintosh."""
    exponent, mantissa = struct.unpack(">HQ", number)
    return int(mantissa * 2.0 ** (exponent - 16383 - 63))


AU_BYTES = {1: 1, 2: 1, 3: 2, 4: 3, 5: 4, 6: 4, 7: 8, 27: 1}
"""Sun's number of an encoding → bytes a sample."""


def plan_au(content: Content, source_end: int) -> Plan:
    """Sun AU.

    Raises:
        Damage: its size is not what the header names.
    """
    order = ">" if content[:4] == b".snd" else "<"
    if source_end < 24:
        raise Damage("truncated: its header is incomplete")
    start, size, coding, rate, channels = struct.unpack(order + "5I", bytes(content[4:24]))
    there = source_end - start
    if there <= 0:
        raise Damage("header only: there are no samples in it")
    block = AU_BYTES.get(coding, 0) * channels
    unclosed = size == 0 or (size > there and open_ended(size, 32))
    patches = ((8, struct.pack(order + "I", min(there, 0xFFFFFFFF))),) if unclosed else ()
    if not unclosed and size > there:
        raise Damage(f"truncated: the header promises {size} bytes, {there} are there")
    if not unclosed and size < there:
        raise Damage(f"damaged: the header names {size} bytes of sound, and {there - size} more follow")
    samples = there // block if block else None
    return Plan((Stretch(0, source_end, None, patches, samples, rate),), (UNCLOSED,) if unclosed else ())


def plan_nist(content: Content, source_end: int) -> Plan:
    """NIST SPHERE, whose header is text; libsndfile trusts the size of the file instead.

    Raises:
        Damage: fewer or more samples are there than the header promises.
    """
    header = bytes(content[:1024])
    size = re.match(rb"NIST_1A\s+(\d+)", header)
    fields = dict(re.findall(rb"(\w+) -(?:i|s\d+) (\S+)", header))
    try:
        start = int(size[1]) if size else 1024
        samples, channels = int(fields[b"sample_count"]), int(fields[b"channel_count"])
        width, rate = int(fields[b"sample_n_bytes"]), int(fields[b"sample_rate"])
    except (KeyError, ValueError) as error:
        raise Damage("damaged: its header does not say how many samples it holds") from error
    there = (source_end - start) // max(1, channels * width)
    if samples > there:
        raise Damage(f"truncated: the header promises {samples} samples, {there} are there")
    if samples < there or (source_end - start) % max(1, channels * width):
        raise Damage(f"damaged: the header names {samples} samples, and {there} are there")
    return Plan((Stretch(0, source_end, samples=samples, rate=rate),))


def plan_voc(content: Content, source_end: int) -> Plan:
    """Creative Voice: FFmpeg decodes several blocks, libsndfile one.

    Raises:
        Damage: a block is cut, silence or repetition is asked for, or the blocks are of several kinds.
    """
    at = int.from_bytes(content[20:22], "little")
    blocks: list[tuple[bytes, int]] = []
    while at < source_end and content[at] != 0:
        kind, size = content[at], int.from_bytes(content[at + 1 : at + 4], "little")
        head = {1: 2, 9: 12, 2: 0, 8: 4, 5: size}.get(kind)
        if head is None:
            raise Damage(f"cannot be heard whole: a block of kind {kind} at byte {at} (silence, marks or repetition)")
        if at + 4 + size > source_end:
            raise Damage(f"truncated: the block at byte {at} promises {size} bytes, {source_end - at - 4} are there")
        if kind in (1, 9, 2):
            form = bytes(content[at + 4 : at + 4 + head]) if kind != 2 else blocks[0][0] if blocks else b""
            blocks.append((form, size - head))
        at += 4 + size
    if at < source_end - 1:
        raise Damage(f"damaged: {source_end - at - 1} bytes follow its last block")
    if not blocks:
        raise Damage("header only: there are no samples in it")
    form, total = blocks[0][0], sum(size for _, size in blocks)
    if any(other != form for other, _ in blocks):
        raise Damage("cannot be heard as one: its blocks are of several kinds")
    if len(form) == 12:
        rate, bits, channels, coding = struct.unpack_from("<IBBH", form)
        plain = coding in (0, 4)
        samples = total // max(1, channels * bits // 8) if plain else None
    elif len(form) == 2:
        rate, samples = None, total if form[1] == 0 and content[26] != 8 else None
    else:
        raise Damage("damaged: its first block does not say the format")
    if len(blocks) > 1 and samples is None:
        raise Damage("cannot be heard whole: its samples are in several blocks of a packed kind")
    return Plan((Stretch(0, source_end, "voc" if len(blocks) > 1 else None, samples=samples, rate=rate),))
