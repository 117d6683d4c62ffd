"""Tar archives of clips, written one after another, with the rows of an index beside each that is whole."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectrim.data.encoding import Encoded
from spectrim.data.packed import member_name
from spectrim.files import write_json

COLUMNS = {
    "number": np.int64,
    "start": np.int64,
    "size": np.int64,
    "crc32": np.uint32,
    "suffix": np.str_,
    "seconds": np.float64,
    "fidelity": np.int8,
}
"""Column of the rows → what it holds."""


@dataclass
class Rows:
    """What is in one archive.

    Attributes:
        name: of the archive.
        columns: of `COLUMNS`, a value a clip; those that cannot be read have a size of 0.
        flaws: number of a clip → why it cannot be read.
    """

    name: str
    columns: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in COLUMNS})
    flaws: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.columns["number"])

    def add(self, number: int, start: int, encoded: Encoded) -> None:
        """A clip that was packed, or cannot be."""
        content = encoded.content
        row = (number, start, len(content), zlib.crc32(content), encoded.suffix, encoded.seconds, int(encoded.fidelity))
        for column, value in zip(self.columns.values(), row, strict=True):
            column.append(value)
        if encoded.flaw is not None:
            self.flaws[number] = encoded.flaw

    def array(self, column: str) -> NDArray[Any]:
        """A column."""
        return np.array(self.columns[column], dtype=COLUMNS[column])

    def save(self, folder: Path) -> None:
        """Write them beside the archive, which is then whole."""
        write_json(_beside(folder / self.name), vars(self))

    @classmethod
    def load(cls, archive: Path) -> Rows | None:
        """Those of an archive; None where it is not whole, or not there."""
        if not archive.is_file():
            return None
        try:
            said = json.loads(_beside(archive).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        return cls(said["name"], said["columns"], {int(number): reason for number, reason in said["flaws"].items()})


def _beside(archive: Path) -> Path:
    return archive.with_suffix(".rows.json")


class Archive:
    """A tar archive that is being written.

    Args:
        path: of it.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self._tar = tarfile.open(fileobj=self._file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115

    def size_with(self, *contents: bytes) -> int:
        """Bytes that it has once it is closed, with these as further members."""
        blocks = sum(1 + -(-len(content) // tarfile.BLOCKSIZE) for content in contents) + 2
        size = self._tar.offset + blocks * tarfile.BLOCKSIZE
        return -(-size // tarfile.RECORDSIZE) * tarfile.RECORDSIZE

    def add(self, name: str, content: bytes) -> int:
        """Add a member; gives the place of its first byte."""
        member = tarfile.TarInfo(name)
        member.size = len(content)
        start = self._tar.offset + len(member.tobuf(tarfile.PAX_FORMAT))
        self._tar.addfile(member, io.BytesIO(content))
        return start

    def __enter__(self) -> Archive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def write_archives(
    folder: Path,
    prefix: str,
    clips: Callable[[int], Iterable[tuple[int, Encoded]]],
    said: Callable[[int, Encoded], dict[str, Any]],
    most: int,
    step: Callable[[Rows], None],
    again: Callable[[Rows], bool],
) -> Iterator[Rows]:
    """Write ``PREFIX-000000.tar`` and so on, those left out that are there already.

    Args:
        folder: to write in.
        prefix: beginning of the archives' names.
        clips: (number, clip) of those that are left when so many are done.
        said: what is told of a clip in its JSON.
        most: bytes of an archive; a clip that is larger has one to itself.
        step: is told the rows of the archive that is being written, after each clip.
        again: whether an archive that is there has to be written anew, and with it all that follow.

    Yields:
        The rows of each, when it is whole.
    """
    done = place = 0
    while (before := Rows.load(folder / _name(prefix, place))) is not None and not again(before):
        yield before
        done, place = done + len(before), place + 1
    _remove_from(folder, prefix, place)
    left = iter(clips(done))
    pending = next(left, None)
    while pending is not None:
        rows = Rows(_name(prefix, place))
        with Archive(folder / rows.name) as archive:
            while pending is not None:
                number, encoded = pending
                description = json.dumps(said(number, encoded)).encode()
                if len(rows) > len(rows.flaws) and archive.size_with(encoded.content, description) > most:
                    break
                start = 0
                if encoded.flaw is None:
                    start = archive.add(member_name(number, encoded.suffix), encoded.content)
                    archive.add(member_name(number, "json"), description)
                rows.add(number, start, encoded)
                step(rows)
                pending = next(left, None)
        rows.save(folder)
        yield rows
        place += 1


def _name(prefix: str, place: int) -> str:
    return f"{prefix}-{place:06d}.tar"


def _remove_from(folder: Path, prefix: str, place: int) -> None:
    """Remove what a packing has left of an archive and those that follow: their clips may be others now."""
    for path in folder.glob(f"{prefix}-*"):
        if path.name >= _name(prefix, place).removesuffix(".tar"):
            path.unlink()


def remove_rows(folder: Path) -> None:
    """Remove the rows beside the archives."""
    for path in folder.glob("*.rows.json"):
        path.unlink()
