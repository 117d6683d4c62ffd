"""What of a run is on disk: which files have their rows, and the scores of windows whose files are not done yet."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np

from spectrim.files import open_to_append
from spectrim.inference.results import WindowScores

WASTE = 1 << 20
"""Bytes of scores that are not needed any more from which a journal is written anew."""

Version: TypeAlias = tuple[int, int] | None
"""Bytes of a file, and when it was written, in nanoseconds; None where it cannot be told."""


def file_version(path: str) -> Version:
    """What changes when a file does."""
    try:
        status = os.stat(path)  # noqa: PTH116 (a name that is too long raises OSError here)
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one file, which are on disk.

    Attributes:
        end: bytes of the output up to the end of them.
        crc: CRC-32 of those bytes.
        error: of the file.
        version: of the file.
    """

    end: int
    crc: int
    error: str | None
    version: Version


class Journal:
    """Lines of JSON in a file beside the output, each about something that is on disk already.

    The first holds the settings. Then come windows with their scores, exact, in the order in which the model heard
    them, and files whose rows are written. The scores of a file that is done are left out when the journal is
    written anew, so it holds little more than those of files under way.

    Args:
        path: of the journal.

    Attributes:
        settings: of the run; empty before `begin`.
        done: files whose rows are on disk, in their order.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.settings: dict[str, Any] = {}
        self.done: dict[str, Rows] = {}
        self._windows: dict[str, list[WindowScores]] = {}
        self._versions: dict[str, Version] = {}
        self._bytes: dict[str, int] = {}
        self._waste = 0
        self._file: BinaryIO | None = None

    def begin(self, settings: Mapping[str, Any]) -> None:
        """Begin anew."""
        self.path.unlink(missing_ok=True)
        self.settings = dict(settings)
        self._append([self.settings])

    def read(self) -> None:
        """Take up what is there; a torn end is removed.

        Raises:
            ValueError, LookupError, TypeError: it is damaged.
            OSError: it cannot be read.
        """
        whole = 0
        with self.path.open("rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    break
                entry = json.loads(line)
                if whole == 0:
                    self.settings = dict(entry)
                elif "scores" in entry:
                    self._take_up(entry, len(line))
                else:
                    self._done(entry["file"], _rows(entry))
                whole += len(line)
        if whole == 0:
            raise ValueError("it is empty")
        with self.path.open("r+b") as file:
            file.truncate(whole)

    def known(self, path: str, version: Version = None) -> list[WindowScores]:
        """Begin with a file: the scores of its first windows, none if it has changed since they were put down.

        Args:
            path: of the file.
            version: what it was when it was found; by default what it is now.
        """
        version = file_version(path) if version is None else version
        if self._versions.get(path) != version or version is None:
            self._forget(path)
        self._versions[path] = version
        return self._windows.pop(path, [])

    def keep(self, scored: Iterable[tuple[str, WindowScores]]) -> None:
        """Put down the scores of windows, each with its file."""
        entries = [{"file": path, "version": self._versions.get(path), **_written(window)} for path, window in scored]
        for entry, size in zip(entries, self._append(entries), strict=True):
            self._bytes[entry["file"]] = self._bytes.get(entry["file"], 0) + size

    def put_done(self, path: str, end: int, crc: int, error: str | None) -> None:
        """Note that the rows of a file are on disk; arguments as of `Rows`."""
        rows = Rows(end, crc, error, self._versions[path] if path in self._versions else file_version(path))
        self._append([{"file": path, **asdict(rows)}])
        self._done(path, rows)
        if self._waste > max(WASTE, sum(self._bytes.values())):
            self._write_anew()

    def drop_after(self, end: int) -> None:
        """Take back files whose rows end after so many bytes."""
        kept = {path: rows for path, rows in self.done.items() if rows.end <= end}
        if len(kept) < len(self.done):
            self.done = kept
            self._write_anew()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Delete it: the output is complete."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _take_up(self, entry: dict[str, Any], size: int) -> None:
        path, version = entry["file"], _version(entry["version"])
        if self._versions.setdefault(path, version) != version:
            self._forget(path)
            self._versions[path] = version
        scores = np.frombuffer(base64.b64decode(entry["scores"], validate=True), "<f4")
        windows = self._windows.setdefault(path, [])
        if windows and entry["start"] <= windows[-1].start:
            windows.clear()  # it vanished while it was heard, and then was heard from its start
        windows.append(WindowScores(entry["start"], entry["end"], scores))
        self._bytes[path] = self._bytes.get(path, 0) + size

    def _done(self, path: str, rows: Rows) -> None:
        self.done.pop(path, None)
        self.done[path] = rows
        self._forget(path)

    def _forget(self, path: str) -> None:
        self._waste += self._bytes.pop(path, 0)
        self._windows.pop(path, None)
        self._versions.pop(path, None)

    def _append(self, entries: Iterable[Mapping[str, Any]]) -> list[int]:
        lines = [_line(entry) for entry in entries]
        if self._file is None:
            self._file = open_to_append(self.path)
        self._file.write(b"".join(lines))
        self._file.flush()
        return [len(line) for line in lines]

    def _write_anew(self) -> None:
        """Leave out what is not needed any more."""
        beside = self.path.with_name(self.path.name + ".new")
        beside.unlink(missing_ok=True)
        with open_to_append(beside) as new, self.path.open("rb") as old:
            new.write(_line(self.settings))
            new.writelines(_line({"file": path, **asdict(rows)}) for path, rows in self.done.items())
            new.writelines(line for line in old if _file_of_scores(line) in self._bytes)
        self.close()
        beside.replace(self.path)
        self._waste = 0


def _line(entry: Mapping[str, Any]) -> bytes:
    return f"{json.dumps(entry)}\n".encode()


def _file_of_scores(line: bytes) -> str | None:
    entry = json.loads(line)
    return entry["file"] if "scores" in entry else None


def _written(window: WindowScores) -> dict[str, Any]:
    scores = base64.b64encode(window.scores.astype("<f4").tobytes()).decode()
    return {"start": window.start, "end": window.end, "scores": scores}


def _rows(entry: Mapping[str, Any]) -> Rows:
    return Rows(int(entry["end"]), int(entry["crc"]), entry["error"], _version(entry["version"]))


def _version(value: Any) -> Version:
    return None if value is None else (int(value[0]), int(value[1]))
