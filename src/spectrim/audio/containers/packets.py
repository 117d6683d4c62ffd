"""How many samples the packets of Vorbis, Opus and FLAC hold, by their first bytes, without decoding them."""

from __future__ import annotations

from spectrim.audio.plan import Damage

OPUS_MILLISECONDS = (
    *((10, 20, 40, 60) * 3),
    *((10, 20) * 2),
    *((2.5, 5, 10, 20) * 4),
)
"""Length of a frame by the configuration in a packet's first five bits (RFC 6716)."""


class OpusCounter:
    """Adds up the packets of an Opus stream at 48 kHz.

    Here and below: so many packets are headers; of the others so many bytes from the beginning are needed.
    """

    HEADERS, BEGINNING = 2, 2

    def __init__(self) -> None:
        self.samples = 0

    def header(self, packet: bytes, number: int) -> None:
        """Take a header packet: nothing in it matters here."""

    def add(self, start: bytes, size: int) -> None:
        """Take an audio packet by its first two bytes.

        Raises:
            Damage: it cannot be one.
        """
        if size == 0:
            return
        code = start[0] & 3
        if code == 3 and size < 2:
            raise Damage("damaged: a packet of Opus is too short")
        frames = (1, 2, 2, start[1] & 63 if code == 3 else 0)[code]
        samples = round(frames * OPUS_MILLISECONDS[start[0] >> 3] * 48)
        if not 0 < samples <= 5760:
            raise Damage("damaged: a packet of Opus has an impossible length")
        self.samples += samples


class FlacCounter:
    """Adds up the frames of a FLAC stream in Ogg (RFC 9639, 9.1 and 10.1); packets that are no frames are metadata."""

    HEADERS, BEGINNING = 1, 13

    def __init__(self) -> None:
        self.samples = 0

    def header(self, packet: bytes, number: int) -> None:
        """Take the first packet: nothing in it matters here."""

    def add(self, start: bytes, size: int) -> None:
        """Take a packet by its first 13 bytes.

        Raises:
            Damage: it is a frame, and cannot be one.
        """
        if start[:1] != b"\xff":
            return
        code, number = (start[2] >> 4, start[4]) if size > 5 else (0, 0)
        # The number of the frame is coded as letters are in UTF-8, in one byte to seven.
        after = 4 + max(1, 8 - (~number & 0xFF).bit_length())
        if code == 0:
            raise Damage("damaged: a frame of FLAC has an impossible length")
        if code < 6:
            self.samples += 192 if code == 1 else 576 << (code - 2)
        elif code < 8:
            self.samples += int.from_bytes(start[after : after + code - 5], "big") + 1
        else:
            self.samples += 256 << (code - 8)


class VorbisCounter:
    """Adds up the packets of a Vorbis stream: each gives a quarter of its block and of the one before it."""

    HEADERS, BEGINNING = 3, 2

    def __init__(self) -> None:
        self.samples = 0
        self._sizes = (0, 0)
        self._modes: list[int] = []
        self._before = 0

    def header(self, packet: bytes, number: int) -> None:
        """Take a header packet.

        Raises:
            Damage: it cannot be one.
        """
        if number == 0 and len(packet) >= 30:
            self._sizes = (1 << (packet[28] & 15), 1 << (packet[28] >> 4))
        if number == 2:
            self._modes = vorbis_modes(packet)
            self._mask = (1 << (len(self._modes) - 1).bit_length()) - 1

    def add(self, start: bytes, size: int) -> None:
        """Take an audio packet by its first byte.

        Raises:
            Damage: it cannot be one.
        """
        if size == 0 or start[0] & 1:
            return
        mode = start[0] >> 1 & self._mask
        if mode >= len(self._modes):
            raise Damage("damaged: a packet of Vorbis is of an unknown mode")
        block = self._sizes[self._modes[mode]]
        if self._before:
            self.samples += (self._before + block) // 4
        self._before = block


def vorbis_modes(setup: bytes) -> list[int]:
    """Whether the modes of a Vorbis stream use short (0) or long (1) blocks, from the end of its setup header.

    The list of modes ends the header: a count less one in 6 bits, 41 bits a mode (long, window 0, transform 0,
    mapping), a set bit. Read from the end, it is as long as the longest run of modes before which its count stands.

    Raises:
        Damage: there is no such list.
    """
    value = int.from_bytes(setup[-400:], "little")
    at = value.bit_length() - 1
    flags: list[int] = []
    known = 0
    while at >= 41 + 6 and len(flags) < 64:
        mode = value >> at - 41 & (1 << 41) - 1
        if mode >> 1 & 0xFFFFFFFF or mode >> 33 > 63:
            break
        flags.append(mode & 1)
        at -= 41
        if value >> at - 6 & 63 == len(flags) - 1:
            known = len(flags)
    if not known:
        raise Damage("damaged: the setup header of Vorbis cannot be read")
    return flags[:known][::-1]
