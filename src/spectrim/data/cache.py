"""Decoded audio on disk, memory-mapped and bounded, so that an epoch does not decode and resample again.

A file per recording: a header that says what it was made of, then float32 samples. It is written beside and renamed, so
that a writer that is killed leaves nothing half; reading needs no lock. Writing is done by one process at a time
(`filelock`), which keeps the bound.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import soundfile
from filelock import FileLock
from numpy.typing import NDArray

from spectrim.audio import files as audio
from spectrim.audio.decoders import sndfile_name
from spectrim.errors import InvalidSetting, shown
from spectrim.files import clear, file_beside, remove_leftover, write_text
from spectrim.machine import cache_folder, version_of

MOST = 4 * 10**9
"""Bytes that are kept unless somebody says: those of 17 hours of audio."""

ENDING = ".f32"
HEADER = struct.Struct("<8s16sqqqqI4x")
"""Magic, settings, bytes, modified and changed (nanoseconds) of the recording, samples, CRC-32 of the samples."""

MAGIC = b"SPAUDIO2"
"""Another number where the same versions hear a file otherwise than before."""

DECODERS = ("spectrim", "soundfile", "soxr", "av")
"""Packages whose version decides what a file sounds like."""

UNCOMPRESSED = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "NIST", "CAF")
"""Formats of libsndfile that hold samples as they are, where their subtype says so."""

IDLE = 3600.0
"""Seconds after which a data set that nobody reads makes room for another."""

STAMP_EVERY = 60.0
"""Seconds between two notes that a data set is in use."""

USED, STAMP, STOPPED, LOCK = "bytes", ".spectrim-audio", "stopped", ".lock"
PATIENCE = 60.0
"""Seconds to wait for another process that writes."""

Samples = NDArray[np.float32]

logger = logging.getLogger(__name__)


@dataclass
class AudioCache:
    """What the files of a data set sound like, mono and at a model's rate, in a folder that other data sets share.

    Kept is what is worth it: files that are compressed, or at another rate. When the bound is reached, data sets that
    nobody has read for an hour are removed; if that is not enough, what is there stays, and further files are decoded
    each time. This is said once, as is a disk that is full.

    Args:
        root: of the data set.
        folder: of all; None for ``audio`` in `spectrim.machine.cache_folder`.
        most: bytes on disk, of all data sets together.

    Attributes:
        place: where those of this data set are.
        decoders: what decodes them, with versions.
        begun: whether `begin` was called.

    Raises:
        InvalidSetting: ``most`` is no number of bytes, or ``folder`` is a file.
    """

    root: str | Path
    folder: Path | None = None
    most: int = MOST
    place: Path = field(init=False)
    decoders: str = field(init=False)
    begun: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        if isinstance(self.most, bool) or not isinstance(self.most, int) or self.most < 1:
            raise InvalidSetting("cache", self.most, "a number of bytes from 1")
        if self.folder is not None and Path(self.folder).exists() and not Path(self.folder).is_dir():
            raise InvalidSetting("cache_dir", str(self.folder), "a folder, or what is to become one; this is a file")
        root = Path(self.root).resolve()
        self.folder = cache_folder("audio") if self.folder is None else Path(self.folder)
        self.place = self.folder / hashlib.sha256(os.fsencode(root)).hexdigest()[:24]
        self.decoders = " ".join(f"{name} {version_of(name)}" for name in DECODERS)
        self._plain: set[Path] = set()
        self._stamped = 0.0
        self._stopped = False

    def begin(self) -> None:
        """Make the folder, remove what a writer that was killed has left, and count; once, when a run begins.

        Raises:
            OSError: the folder cannot be made or written.
        """
        self.place.mkdir(parents=True, exist_ok=True)
        with self._lock():
            (self.place / STOPPED).unlink(missing_ok=True)
            write_text(self.place / "data_set.txt", f"{shown(str(Path(self.root).resolve()), 4000)}\n")
            self._stamp()
            for leftover in (path for one in self._data_sets() for path in one.rglob("*.partial")):
                remove_leftover(leftover)
            used = self._make_room(self._counted(), 0)
            if used > self.most:
                clear(self.place)
                self.place.mkdir()
                self._stamp()
                used = self._counted()
            self._note(used)
        self.begun = True

    def read(self, path: Path, sampling_rate: int = audio.SAMPLING_RATE) -> Samples:
        """The samples (n,) of a file, mono and at a rate in hertz, decoded or as kept; raises `AudioError`."""
        try:
            before = self._made_of(path.stat(), sampling_rate)
        except OSError:
            return audio.read(path, sampling_rate).samples  # says what is wrong
        kept = self._find(path, before)
        if kept is not None:
            return kept
        samples = audio.read(path, sampling_rate).samples
        with suppress(OSError):
            unchanged = self._made_of(path.stat(), sampling_rate) == before
            if unchanged and self._worth_it(path, sampling_rate) and not self._stopped:
                self._keep(path, before, samples)
        return samples

    def covers(self, path: Path, sampling_rate: int = audio.SAMPLING_RATE) -> bool:
        """Whether a file is worth to be kept: it is compressed, or at another rate than that which is wanted."""
        try:
            found = soundfile.info(sndfile_name(path))
        except (soundfile.LibsndfileError, OSError):
            return True
        plain = found.format in UNCOMPRESSED and found.subtype.startswith(("PCM", "FLOAT", "DOUBLE"))
        return not plain or found.samplerate != sampling_rate

    def _worth_it(self, path: Path, sampling_rate: int) -> bool:
        """The same, asked once of each file."""
        if path not in self._plain and not self.covers(path, sampling_rate):
            self._plain.add(path)
        return path not in self._plain

    def _file(self, path: Path) -> Path:
        name = hashlib.sha256(os.fsencode(Path(os.path.abspath(path)))).hexdigest()[:40]  # noqa: PTH100
        return self.place / name[:2] / (name[2:] + ENDING)

    def _find(self, path: Path, made_of: list[bytes | int]) -> Samples | None:
        """What is kept of a file that is as it was then, None where that is nothing whole."""
        if path in self._plain:
            return None
        try:
            with self._file(path).open("rb") as file:
                head = HEADER.unpack(file.read(HEADER.size))
                *written_of, number, checksum = head
                whole = os.fstat(file.fileno()).st_size == HEADER.size + 4 * number
                if written_of != made_of or not whole or not number:
                    return None
                samples = np.array(np.memmap(file, np.float32, "r", HEADER.size, (number,)))
        except (OSError, ValueError, struct.error):
            return None
        if zlib.crc32(samples.data) != checksum:
            return None
        if time.monotonic() - self._stamped > STAMP_EVERY:
            with suppress(OSError):
                self._stamp()
        return samples

    def _made_of(self, now: os.stat_result, sampling_rate: int) -> list[bytes | int]:
        settings = hashlib.sha256(f"{sampling_rate} Hz mono float32 {self.decoders}".encode()).digest()[:16]
        return [MAGIC, settings, now.st_size, now.st_mtime_ns, now.st_ctime_ns]

    def _keep(self, path: Path, made_of: list[bytes | int], samples: Samples) -> None:
        """Write samples, if there is room."""
        place, size = self._file(path), HEADER.size + samples.nbytes
        head = HEADER.pack(*made_of, len(samples), zlib.crc32(samples.data))
        if (self.place / STOPPED).exists():
            return
        try:
            with self._lock():
                with suppress(FileNotFoundError):
                    size -= place.stat().st_size
                used = self._make_room(self._noted(), size)
                if used + size > self.most:
                    self._stop(f"it has reached its bound of {self.most:,} bytes")
                    return
                self._note(used + size)
                place.parent.mkdir(parents=True, exist_ok=True)
                if not (self.place / STAMP).exists():
                    self._stamp()
                with file_beside(place) as beside, beside.open("wb") as file:
                    file.write(head)
                    file.write(samples.data)
        except OSError as error:
            self._stop(str(error))

    def _stop(self, why: str) -> None:
        """Keep no more in this run, and say so once, whichever process meets it."""
        self._stopped = True
        try:
            (self.place / STOPPED).touch(exist_ok=False)
        except FileExistsError:
            return
        except OSError:
            pass
        logger.warning("decoded audio in %s: %s; further files are decoded each time", self.folder, why)

    def _lock(self) -> FileLock:
        return FileLock(self.place.parent / LOCK, timeout=PATIENCE)

    def _stamp(self) -> None:
        """Note that this data set is in use."""
        (self.place / STAMP).touch()
        self._stamped = time.monotonic()

    def _note(self, used: int) -> None:
        write_text(self.place.parent / USED, f"{used}\n")

    def _noted(self) -> int:
        """Bytes in use, as noted, or counted where there is no note."""
        try:
            return int((self.place.parent / USED).read_text())
        except (OSError, ValueError):
            return self._counted()

    def _counted(self) -> int:
        return sum(size for data_set in self._data_sets() for size in _sizes(data_set))

    def _data_sets(self) -> list[Path]:
        """The folders of all data sets; whatever else lies beside them is left alone."""
        named = (path for path in self.place.parent.iterdir() if re.fullmatch("[0-9a-f]{24}", path.name))
        return [path for path in named if (path / STAMP).is_file() and not path.is_symlink()]

    def _make_room(self, used: int, wanted: int) -> int:
        """Remove data sets that nobody reads, the longest unread first, while there is no room; gives bytes in use."""
        if used + wanted <= self.most:
            return used
        ages = {one: time.time() - (one / STAMP).stat().st_mtime for one in self._data_sets() if one != self.place}
        for one in sorted(ages, key=lambda other: -ages[other]):
            if used + wanted <= self.most or ages[one] < IDLE:
                break
            used -= sum(_sizes(one))
            clear(one)
        return used


def _sizes(data_set: Path) -> Iterator[int]:
    """Bytes of each file that is kept."""
    for path in data_set.rglob("*" + ENDING):
        with suppress(OSError):
            yield path.stat().st_size
