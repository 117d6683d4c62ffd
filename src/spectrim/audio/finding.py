"""What a user names (files, folders, patterns, URLs, lists) to a list of audio files."""

from __future__ import annotations

import codecs
import glob
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from spectrim.audio.files import EXTENSIONS
from spectrim.audio.remote import files_below, files_like, full_url, is_url, local_copy
from spectrim.data.layout import audio_files
from spectrim.errors import AudioError, InvalidSetting, MissingExtra, shown

STDIN = "-"
"""The argument that stands for a list on standard input."""

PIPES = ("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
"""Names of standard input itself: what decodes files runs in other processes, which have another one."""

LOOKED_AT = 1 << 16
SHOWN = 5
"""Folders, patterns and names that a message lists where there is nothing at all."""

_ORDINARY = bytes({*range(32, 256), *b"\0\t\n\r\x1b"} - {127})


@dataclass(frozen=True)
class Selection:
    """What was found.

    Attributes:
        files: paths, each once, in the order they were named; inside a folder or pattern sorted by name.
        errors: folders and patterns in which there was nothing, and folders that cannot be read.
    """

    files: list[str] = field(default_factory=list)
    errors: list[AudioError] = field(default_factory=list)


Paths: TypeAlias = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
"""One path, or several. A string is one path, never its letters."""


def as_paths(paths: Paths, field: str = "paths") -> list[str]:
    """One path, or several, as a list of names.

    Args:
        paths: what was given.
        field: how an error calls it.

    Raises:
        InvalidSetting: it is neither.
    """
    try:
        return [os.fsdecode(path) for path in ([paths] if isinstance(paths, str | os.PathLike | bytes) else paths)]
    except TypeError as error:
        raise InvalidSetting(field, paths, "a path, or a list of paths") from error


def select_files(paths: Paths, listing: bytes | None = None) -> Selection:
    """Find the audio files that are meant.

    A file is taken as it is, whatever its name, also if it does not exist: reading it will say so. A folder is searched
    to any depth for the names in `spectrim.audio.files.EXTENSIONS`, upper or lower case; names that begin with a dot
    are passed over, and links to folders inside it are not followed; one in it that cannot be read is an error, and the
    others are searched. What is no file but holds ``*``, ``?`` or ``[`` is
    a pattern, ``**`` for any depth; it finds all names if it says their ending (``*.dat``), else only audio. ``-`` is a
    list on standard input: see `listed_names`. There ``[`` makes no pattern, and nothing does where names end with zero
    bytes: such lists are made of names as they are.

    A URL (``s3://bucket/folder/``) is the same in an object store or on a server, as fsspec reaches it; there only
    ``*`` makes a pattern, and a name with an audio file's ending is taken for one without asking. What ends in
    ``.parquet`` is a table of names; see `tabled_names`.

    Args:
        paths: what was named; one path, or several.
        listing: the list that ``-`` stands for; read from standard input if needed and not given.

    Raises:
        InvalidSetting: there is not one file in all of it, and says what was looked for; or the list is not one of
            names.
    """
    named = as_paths(paths)
    files: dict[str, None] = {}
    errors: list[AudioError] = []

    def unreadable(folder: str, why: str) -> None:
        errors.append(AudioError(folder, why))

    for path, magic in _expanded(named, listing):
        reason = _unusable(path)
        found, before = [], len(errors)
        if reason is None:
            try:
                named_here = _found_url(path, magic) if is_url(path) else _found(path, magic, unreadable)
                found = [name for one in named_here for name in (tabled_names(one) if _is_table(one) else [one])]
            except AudioError as error:
                reason = error.reason
        files.update(dict.fromkeys(found))
        if not found and len(errors) == before:
            is_folder = "*" not in path if is_url(path) else os.path.isdir(path)  # noqa: PTH112
            kind = "no audio file in this folder" if is_folder else "no audio file matches this pattern"
            errors.append(AudioError(path, reason or f"{kind}; looked for {', '.join(EXTENSIONS)}"))
    if not files:
        where = "; ".join(str(error) for error in errors[:SHOWN]) or "an empty list"
        where += f"; and {len(errors) - SHOWN} more" if len(errors) > SHOWN else ""
        raise InvalidSetting("paths", named, f"files, folders, patterns or - with at least one audio file ({where})")
    return Selection(list(files), errors)


def listed_names(content: bytes) -> tuple[list[str], str]:
    """The names in a list, and the characters that make a pattern there.

    One name a line, in UTF-8 (a byte order mark may stand before it; bytes that are none are kept as `os.fsdecode`
    does) or UTF-16; or each ended by a zero byte. Lines end with a line feed, perhaps after a return; blanks are part
    of a name, but lines of nothing else are passed over.

    Raises:
        InvalidSetting: it is sound, an archive or other data rather than names.
    """
    try:
        text = _wide_text(content)
    except UnicodeError as error:
        raise _no_list(content) from error
    if text is None and b"\0" in content:
        names = content.removesuffix(b"\0").split(b"\0")
        if b"" in names or _is_data(content):
            raise _no_list(content)
        return [os.fsdecode(name) for name in names], ""
    if text is None:
        text = os.fsdecode(content.removeprefix(codecs.BOM_UTF8))
    if "\0" in text or _is_data(os.fsencode(text)):
        raise _no_list(content)
    return [name for line in text.split("\n") if (name := line.removesuffix("\r")).strip()], "*?"


def _no_list(content: bytes) -> InvalidSetting:
    allowed = "names of files, one a line: this is other data. A sound is given as a file, by its name"
    return InvalidSetting("standard input", content[:12], allowed)


def _wide_text(content: bytes) -> str | None:
    """The text of a list in UTF-16, also without its mark; None where it is no such list."""
    for mark, encoding in ((codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")):
        if content.startswith(mark):
            return content[2:].decode(encoding)
    if len(content) >= 8 and len(content) % 2 == 0:
        for zeros, letters, encoding in ((1, 0, "utf-16-le"), (0, 1, "utf-16-be")):
            if not any(content[zeros::2]) and all(content[letters::2]):
                return content.decode(encoding)
    return None


def _is_data(content: bytes) -> bool:
    """Whether there are more control characters than names have: beside line ends, tabs and escapes, one in fifty."""
    head = content[:LOOKED_AT]
    return len(head.translate(None, delete=_ORDINARY)) > len(head) / 50


def _expanded(named: Iterable[str], listing: bytes | None) -> Iterator[tuple[str, str]]:
    """Names, each with the characters that make a pattern of it."""
    for path in named:
        if path != STDIN:
            yield path, "*?["
            continue
        names, magic = listed_names(_standard_input() if listing is None else listing)
        yield from ((name, magic) for name in names)


def _standard_input() -> bytes:
    if sys.stdin is None:
        raise InvalidSetting(
            "paths", STDIN, "- where standard input is open; it is closed here: name the files instead"
        )
    return sys.stdin.buffer.read()


def _unusable(path: str) -> str | None:
    """Why a name cannot be one of a file, or None."""
    if not path:
        return "an empty name"
    if "\0" in path:
        return "a name with a zero byte in it"
    if path in PIPES:
        return "standard input is no sound file; type - for a list of names on it, and give a sound by its own name"
    return None


def _found(path: str, magic: str, unreadable: Callable[[str, str], object]) -> list[str]:
    """The files behind one name; none only for a folder or a pattern. ``unreadable`` is as for `audio_files`."""
    if os.path.isdir(path):  # noqa: PTH112 (Path.is_dir raises for a name that is too long)
        return [str(file) for file in audio_files(Path(path), unreadable=unreadable)]
    if not os.path.lexists(path) and any(character in path for character in magic):
        pattern = path if "[" in magic else path.replace("[", "[[]")
        matches = _matches(pattern)
        any_name = _says_ending(path, magic)
        folders = {match for match in matches if Path(match).is_dir()}
        files = [match for match in matches if match not in folders and (any_name or _is_audio_name(match))]
        locked = _locked(pattern)
        below = [audio_files(Path(folder), unreadable=locked.__setitem__) for folder in folders]
        for folder, why in {os.path.normpath(folder): why for folder, why in locked.items()}.items():
            unreadable(folder, why)
        return sorted({*files, *(str(file) for its in below for file in its)})
    return [path]


def _matches(pattern: str, below: str | None = None) -> list[str]:
    """What a pattern stands for, anywhere or below a folder; ``**`` is folders at any depth.

    As in a folder, links to others are passed over there, and by the wildcards behind it. `glob.glob` follows both:
    around in circles, and to sounds that it has found already.
    """
    sep = os.sep
    parts = (pattern.replace(os.altsep, sep) if os.altsep else pattern).split(sep)
    if "**" not in parts:
        return _globbed(pattern, below)
    place = parts.index("**")
    above, rest = sep.join([*parts[:place], ""]), sep.join(parts[place + 1 :])
    found: dict[str, None] = {}
    for top in _globbed(above, below) if above else [below or ""]:
        if place == len(parts) - 1:
            found[top or os.curdir] = None
            continue
        for folder, inside, _ in os.walk(top or os.curdir):
            inside[:] = [name for name in inside if not (name.startswith(".") or Path(folder, name).is_symlink())]
            relative = os.path.relpath(folder, top or os.curdir)
            here = top if relative == os.curdir else os.path.join(top, relative, "")  # noqa: PTH118
            deeper = [here or os.curdir, *(f"{here}{name}{sep}" for name in inside)]
            found |= dict.fromkeys(_matches(rest, here) if rest else deeper)
    return list(found)


def _globbed(pattern: str, below: str | None) -> list[str]:
    """What a pattern without ``**`` matches; below a folder no wildcard of it stands for a link to another."""
    matches = glob.glob(glob.escape(below or "") + pattern)  # noqa: PTH207
    return matches if below is None else [match for match in matches if not _by_link(below, match, pattern)]


def _by_link(folder: str, match: str, pattern: str) -> bool:
    """Whether a wildcard stands for a link to a folder in what a pattern matches below a folder."""
    place = Path(folder)
    for name, part in zip(Path(match.removeprefix(folder)).parts, Path(pattern).parts, strict=False):
        place /= name
        if glob.has_magic(part) and place.is_symlink() and place.is_dir():
            return True
    return False


def _locked(pattern: str) -> dict[str, str]:
    """Folders in which `_matches` looks for a pattern in vain, as they cannot be read, each with the reason."""
    locked = {}
    while glob.has_magic(pattern):
        above, name = os.path.split(pattern)
        folders = _matches(os.path.join(above, "")) if glob.has_magic(above) else [above or "."]  # noqa: PTH118
        for folder in folders:
            try:
                if glob.has_magic(name):
                    os.scandir(folder).close()
                else:
                    os.lstat(os.path.join(folder, name))  # noqa: PTH118
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError as error:
                locked[folder] = f"this folder cannot be read: {error.strerror}"
        pattern = above
    return locked


def _found_url(url: str, magic: str) -> list[str]:
    """The files behind a URL; none only for a folder or a pattern.

    Raises:
        AudioError: nothing here can list it.
    """
    if "*" in url and "*" in magic:
        return [file for file in files_like(url) if _says_ending(url, magic) or _is_audio_name(file)]
    if _is_audio_name(url) or _is_table(url):
        return [url]
    found, whole = files_below(url), full_url(url)
    if found == [whole]:
        return found
    return [file for file in found if _is_audio_name(file) and "/." not in file[len(whole) :]]


TABLE_COLUMNS = ("file", "path", "url")
"""Columns of a table that names of files are in; the first of them that is there, else the only column of text."""


def tabled_names(table: str) -> list[str]:
    """The names of files in a Parquet file, as they are: none is a folder or a pattern.

    Args:
        table: its path or URL; see `TABLE_COLUMNS`.

    Raises:
        MissingExtra: pyarrow is not installed.
        AudioError: it cannot be read, or it cannot be told in which column the names are.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtra("pyarrow", "parquet", "a list of files in Parquet") from error
    with local_copy(table) as path:
        try:
            with pyarrow.parquet.ParquetFile(path) as content:
                types = {field.name: str(field.type) for field in content.schema_arrow}
                batches = content.iter_batches(columns=[_names_column(types, table)])
                return [name for batch in batches for name in batch.column(0).to_pylist() if name]
        except (pyarrow.ArrowException, OSError) as error:
            raise AudioError(table, f"cannot be read as Parquet: {' '.join(str(error).split())}") from error


def _names_column(types: Mapping[str, str], table: str) -> str:
    """Which column of a table holds names; ``types`` are those of its columns, as pyarrow writes them."""
    texts = [name for name, kind in types.items() if "string" in kind]
    for name in (*TABLE_COLUMNS, *(texts if len(texts) == 1 else ())):
        if name in texts:
            return name
    wanted = f"no column of text is called {', '.join(TABLE_COLUMNS)}, and none is the only one"
    raise AudioError(table, f"{wanted}; its columns: {shown(', '.join(types))}")


def _is_table(path: str) -> bool:
    return path.lower().endswith(".parquet")


def _says_ending(pattern: str, magic: str) -> bool:
    ending = Path(pattern).suffix
    return bool(ending) and not any(character in ending for character in magic)


def _is_audio_name(path: str) -> bool:
    return Path(path).suffix.lower() in EXTENSIONS
