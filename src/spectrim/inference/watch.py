"""Sound files that arrive in a folder, each once it is complete."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from spectrim.data.layout import audio_files
from spectrim.errors import InvalidSetting
from spectrim.inference.journal import Version, file_version

SETTLE_SECONDS = 2.0
"""For how long a file must not change before it counts as complete."""

POLL_SECONDS = 1.0
"""From one look at a folder to the next. Looking works on network shares, which tell nobody of what others write."""

MOST = 256
"""Files that one look gives."""


def check_watched(folder: Path, settle: float) -> None:
    """Raise `InvalidSetting` where there is no such folder, or ``settle`` is below 0; see `Arrivals`."""
    if not folder.is_dir():
        raise InvalidSetting("watch", str(folder), "a folder that exists")
    if not settle >= 0:
        raise InvalidSetting("settle", settle, "seconds, 0 or more")


class Arrivals:
    """What has arrived in a folder and its sub-folders.

    A file is complete once its size and time have not changed for a while. One that was given and has changed since is
    given again. Names that begin with a dot, and those with other endings than sound files have (``.part``), are
    passed over until they are renamed.

    Args:
        folder: to look at; it may vanish and come back.
        given: files that were given before, as they were then.
        settle: seconds for which a complete file has not changed.
        apart_from: a file that is none of those that arrive: the output.
        now: the time, in seconds.

    Attributes:
        unreadable: folders that could not be read at the last look, each with the reason.

    Raises:
        InvalidSetting: there is no such folder, or ``settle`` is below 0.
    """

    def __init__(
        self,
        folder: Path,
        given: Mapping[str, Version],
        settle: float = SETTLE_SECONDS,
        *,
        apart_from: Path | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        check_watched(folder, settle)
        self._folder = folder
        self._given = dict(given)
        self._settle = settle
        self._apart_from = None if apart_from is None else apart_from.resolve()
        self._now = now
        self.unreadable: dict[str, str] = {}
        self._seen: dict[str, tuple[Version, float]] = {}

    def look(self) -> dict[str, Version]:
        """Look once: complete files that were not given yet, `MOST` at most, as they are now."""
        seen: dict[str, tuple[Version, float]] = {}
        found: dict[str, Version] = {}
        self.unreadable = {}
        for path in map(str, audio_files(self._folder, unreadable=self._pass_over)):
            version = file_version(path)
            if version is None or self._given.get(path) == version or self._is_output(path):
                continue
            before, since = self._seen.get(path, (None, 0.0))
            since = since if before == version else self._now()
            if self._now() - since >= self._settle and len(found) < MOST:
                found[path] = self._given[path] = version
            else:
                seen[path] = version, since
        self._seen = seen
        return found

    def take_back(self, path: str) -> bool:
        """Whether a file that was given is no longer what it was, or gone: once it is there, it is given again."""
        if file_version(path) == self._given.get(path):
            return False
        self._given.pop(path, None)
        return True

    def _pass_over(self, folder: str, reason: str) -> None:
        if os.path.isdir(folder):  # noqa: PTH112 (one that has vanished meanwhile holds nothing)
            self.unreadable[folder] = reason

    def _is_output(self, path: str) -> bool:
        return self._apart_from is not None and Path(os.path.realpath(path)) == self._apart_from
