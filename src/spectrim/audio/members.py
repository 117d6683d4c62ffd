"""A sound file inside a larger one, such as a tar archive: known by its place and checksum, not unpacked."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from spectrim.errors import AudioError


@dataclass(frozen=True)
class Member:
    """Bytes of an archive that are a sound file.

    Attributes:
        archive: where the archive is.
        name: of the member; its ending says what kind of file it is, where its bytes do not.
        start: its first byte in the archive.
        size: in bytes.
        crc32: of its bytes.
        flaw: why there is no sound to be had, for a file that could not be read when the archive was made.
    """

    archive: Path
    name: str
    start: int
    size: int
    crc32: int
    flaw: str | None = None

    def __str__(self) -> str:
        return f"{self.archive}, {self.name}"

    def content(self) -> bytes:
        """All of its bytes.

        Raises:
            AudioError: the archive cannot be read, or these are not the bytes that were written.
        """
        if self.flaw is not None:
            raise AudioError(str(self), self.flaw)
        try:
            with self.archive.open("rb") as file:  # buffered: a raw read may give less, and gives 2 GiB at most
                file.seek(self.start)
                content = file.read(self.size)
        except OSError as error:
            raise AudioError(str(self), f"cannot be opened: {error.strerror or error}") from error
        if len(content) < self.size:
            raise AudioError(str(self), f"truncated: {len(content)} of {self.size} bytes are in the archive")
        if zlib.crc32(content) != self.crc32:
            raise AudioError(str(self), "damaged: its bytes do not have the checksum with which they were written")
        return content


Source: TypeAlias = str | Path | Member
"""Where sound is read from: a file, or a member of an archive."""
