"""What a user names (files, folders, patterns, a list on standard input) to a list of audio files."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from spectrim.audio.files import EXTENSIONS
from spectrim.data.layout import audio_files
from spectrim.errors import AudioError, InvalidSetting

STDIN = "-"
"""The argument that stands for a list on standard input."""


@dataclass(frozen=True)
class Selection:
    """What was found.

    Attributes:
        files: paths, each once, in the order they were named; inside a folder or pattern sorted by name.
        errors: folders and patterns in which there was nothing.
    """

    files: list[str] = field(default_factory=list)
    errors: list[AudioError] = field(default_factory=list)


def select_files(paths: Iterable[str | os.PathLike[str]], listing: bytes | None = None) -> Selection:
    """Find the audio files that are meant.

    A file is taken as it is, whatever its name, also if it does not exist: reading it will say so. A folder is searched
    to any depth for the names in `spectrim.audio.files.EXTENSIONS`, upper or lower case; names that begin with a dot
    are passed over, and links to folders inside it are not followed. What is no file but holds ``*``, ``?`` or ``[`` is
    a pattern, ``**`` for any depth; it finds all names if it says their ending (``*.dat``), else only audio. ``-`` is a
    list on standard input of any of these, one a line, or ended by zero bytes (``find -print0``).

    Args:
        paths: what was named.
        listing: the list that ``-`` stands for; read from standard input if needed and not given.

    Raises:
        InvalidSetting: there is not one file in all of it; says what was looked for.
    """
    named = [os.fspath(path) for path in paths]
    files: dict[str, None] = {}
    errors = []
    for path in _expanded(named, listing):
        found = _found(path)
        files.update(dict.fromkeys(found))
        if not found:
            kind = "no audio file in this folder" if Path(path).is_dir() else "no audio file matches this pattern"
            errors.append(AudioError(path, f"{kind}; looked for {', '.join(EXTENSIONS)}"))
    if not files:
        where = "; ".join(str(error) for error in errors) or "an empty list"
        raise InvalidSetting("paths", named, f"files, folders, patterns or - with at least one audio file ({where})")
    return Selection(list(files), errors)


def _expanded(named: Iterable[str], listing: bytes | None) -> Iterator[str]:
    for path in named:
        if path != STDIN:
            yield path
            continue
        content = sys.stdin.buffer.read() if listing is None else listing
        lines = content.split(b"\0") if b"\0" in content else content.splitlines()
        yield from (os.fsdecode(line) for line in lines if line.strip())


def _found(path: str) -> list[str]:
    """The files behind one name; none only for a folder or a pattern."""
    if Path(path).is_dir():
        return [str(file) for file in audio_files(Path(path))]
    if not os.path.lexists(path) and glob.has_magic(path):
        matches = glob.glob(path, recursive=True)  # noqa: PTH207
        any_name = _says_ending(path)
        folders = [match for match in matches if Path(match).is_dir()]
        files = [match for match in matches if match not in folders and (any_name or _is_audio_name(match))]
        return sorted({*files, *(str(file) for folder in folders for file in audio_files(Path(folder)))})
    return [path]


def _says_ending(pattern: str) -> bool:
    ending = Path(pattern).suffix
    return bool(ending) and not glob.has_magic(ending)


def _is_audio_name(path: str) -> bool:
    return Path(path).suffix.lower() in EXTENSIONS
