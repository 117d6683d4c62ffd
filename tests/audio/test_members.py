"""Bytes of an archive."""

from __future__ import annotations

import io
import zlib
from typing import Any

from spectrim.audio.members import Member


class Trickle(io.RawIOBase):
    """A file that gives less than it is asked for, as Linux does beyond 2 GiB."""

    def __init__(self, content: bytes) -> None:
        self.inside = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, place: int, whence: int = 0) -> int:
        return self.inside.seek(place, whence)

    def readinto(self, target: Any) -> int:
        return self.inside.readinto(memoryview(target)[:3])


class Archive:
    """A path to one."""

    content = bytes(range(100))

    def open(self, mode: str, buffering: int = -1) -> Any:
        raw = Trickle(self.content)
        return io.BufferedReader(raw) if buffering else raw


def test_a_member_is_read_whole_however_little_comes_at_a_time() -> None:
    archive: Any = Archive()
    wanted = Archive.content[7:60]
    assert Member(archive, "0.flac", 7, len(wanted), zlib.crc32(wanted)).content() == wanted
