"""What a file's own structure says is in it, before anything is decoded: which decoder, which bytes, how many samples.

A decoder's word for where a file ends is not enough: libsndfile guesses the length of an MP3 without a Xing frame and
stops at the end of the first stream of a chained Ogg; FFmpeg hears a cut file up to the cut. So each kind of file has
a module in `spectrim.audio.containers` that reads the structure itself, refuses what is cut or damaged, and says what
a decoder has to find.
"""

from __future__ import annotations

import io
import mmap
from dataclasses import dataclass, field
from typing import TypeAlias

Content: TypeAlias = mmap.mmap | bytes
"""All bytes of a file; mapped, so that none is read before it is looked at."""


class Damage(Exception):
    """A file must not be heard; its text is the reason, one line."""


@dataclass(frozen=True)
class Stretch:
    """Bytes of a file that one decoder reads from end to end.

    Attributes:
        start: first byte.
        end: one after the last byte.
        format: FFmpeg's name of the container; None where libsndfile decodes.
        patches: (place in the file, bytes) that the decoder sees instead of what is there.
        samples: how many there have to be, of one channel, at ``rate``; None where the structure does not say.
        rate: of ``samples``, in hertz.
        slack: by how many the decoder may differ from ``samples``.
        packets: how many the container has to give; None where that is not counted.
        md5: of the samples as FLAC defines it; None where there is none.
        bits: of a sample, for ``md5``.
        strict: whether FFmpeg has to stop at what it could otherwise conceal.
        late: whether silence may come first that ``samples`` does not count.
    """

    start: int
    end: int
    format: str | None = None
    patches: tuple[tuple[int, bytes], ...] = ()
    samples: int | None = None
    rate: int | None = None
    slack: int = 0
    packets: int | None = None
    md5: bytes | None = None
    bits: int = 16
    strict: bool = False
    late: bool = False

    def __post_init__(self) -> None:
        """Refuse a rate that counts nothing."""
        if self.rate is not None and self.rate <= 0:
            raise ValueError(f"a sampling rate of {self.rate} Hz")


@dataclass(frozen=True)
class Plan:
    """How a file is to be heard: its stretches in turn, and what is to be said of it."""

    stretches: tuple[Stretch, ...]
    notes: tuple[str, ...] = field(default=())


class View(io.RawIOBase):
    """A stretch of a file as a file of its own, for decoders that read from Python files."""

    def __init__(self, content: Content, stretch: Stretch) -> None:
        self._content = content
        self._start, self._end = stretch.start, stretch.end
        self._patches = stretch.patches
        self._at = stretch.start

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where it is, from the start of the stretch."""
        return self._at - self._start

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go elsewhere, as other files do."""
        base = {io.SEEK_SET: self._start, io.SEEK_CUR: self._at, io.SEEK_END: self._end}[whence]
        self._at = max(self._start, base + offset)
        return self.tell()

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes, up to the end of the stretch."""
        end = self._end if size is None or size < 0 else min(self._end, self._at + size)
        if self._at >= end:
            return b""
        begin, self._at = self._at, end
        piece = bytes(self._content[begin:end])
        for place, replacement in self._patches:
            low, high = max(begin, place), min(end, place + len(replacement))
            if low < high:
                piece = piece[: low - begin] + replacement[low - place : high - place] + piece[high - begin :]
        return piece

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        """As `read`, into memory that is there."""
        piece = self.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)
