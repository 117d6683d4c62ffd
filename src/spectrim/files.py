"""Files and folders that appear whole or not at all, by one run at a time, and whether it is the one asked for."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from spectrim.errors import InvalidSetting, brief, utf8_text

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
"""Of `os.open`: refuse a name that is a link."""

FULL = (errno.ENOSPC, errno.EFBIG, *((errno.EDQUOT,) if hasattr(errno, "EDQUOT") else ()))
"""Errors of writing where there is no room: a full disk, a limit on a file's size, a quota."""

_NUMBERED = re.compile(r"\(os error (\d+)\)")
_UNWRITTEN = ("PytorchStreamWriter failed", "unexpected pos")
"""What `torch.save` says of a file that it could open and not write to its end."""


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text beside ``path``, then rename it there.

    Bytes of a file's name that are not UTF-8, which Python keeps as lone surrogates, are written out: ``\\xe9``.
    """
    write_bytes(path, utf8_text(text).encode("utf-8", "backslashreplace"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write beside ``path``, then rename it there."""
    with file_beside(path) as beside:
        beside.write_bytes(content)


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON beside ``path``, then rename it there.

    Bytes of a file's name that are not UTF-8, which Python keeps as lone surrogates, are then JSON's escapes.
    """
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def file_digest(path: Path) -> str:
    """SHA-256 of what is in a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


LONGEST_NAME = 255
"""Bytes of a file's name on most file systems."""

BESIDE = len(".partial.journal") + len(".12")
"""Bytes that the names of what is written beside a file may have more than its own."""


def name_with(name: str, ending: str) -> str:
    """A file's name with an ending behind it, cut where that would be too long for a file system.

    What is cut away gives its place to a digest of the whole name, so that names that differ still do.
    """
    room = LONGEST_NAME - len(os.fsencode(ending)) - BESIDE
    if len(os.fsencode(name)) <= room:
        return name + ending
    mark = "~" + hashlib.sha256(os.fsencode(name)).hexdigest()[:12]
    while len(os.fsencode(name + mark)) > room:
        name = name[:-1]
    return name + mark + ending


@contextmanager
def named_when_full(path: Path) -> Iterator[None]:
    """Name a file or folder in an error of writing it, whose text does not when a disk is full.

    Those of safetensors and torch become an `OSError` like those of Python.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL and error.filename is None:
            error.filename = str(path)
        raise
    except (RuntimeError, SafetensorError) as error:
        number = _told_full(error)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def _told_full(error: RuntimeError | SafetensorError) -> int | None:
    """The number in `FULL` of what safetensors or torch say of a full disk; None of other errors."""
    if isinstance(error, SafetensorError):
        told = _NUMBERED.search(str(error))
        return int(told[1]) if told is not None and int(told[1]) in FULL else None
    unwritten = any(words in str(error) for words in _UNWRITTEN)
    return errno.ENOSPC if unwritten else None  # torch does not say why it could not write on


@contextmanager
def file_beside(path: Path, ending: str = ".partial") -> Iterator[Path]:
    """Give a new empty file beside ``path``, to be filled; it takes the place of ``path`` at the end, or is removed.

    It is NAME.partial; while another process or thread fills that one, NAME.2.partial, and so on: whoever ends last has
    written ``path``. What is there by these names, left behind by a writer that was killed, or planted, is removed
    first, a link itself and not what it leads to. A writer holds a lock on its file (``flock``), which ends with it;
    where there are none (Windows, some network folders), two writers at a time disturb each other.
    """
    beside, held = _new_file_beside(path, ending)
    with closing(held), ExitStack() as undo:
        undo.callback(beside.unlink, missing_ok=True)
        with named_when_full(path):
            yield beside
            beside.replace(path)
        undo.pop_all()  # the name may be another writer's by now


def _new_file_beside(path: Path, ending: str) -> tuple[Path, BinaryIO]:
    """A file by the first name that no other writer has, locked; leftovers by the names after it are removed."""
    further = (f".{number}{ending}" for number in itertools.count(2))
    names = (path.with_name(path.name + end) for end in itertools.chain([ending], further))
    beside = next(names)
    while True:
        if not remove_leftover(beside):
            beside = next(names)
            continue
        try:
            held = beside.open("xb")
        except FileExistsError:  # another writer was quicker
            continue
        if _lock(held.fileno()) and _is_at(held.fileno(), beside):
            break
        held.close()  # another writer took it for a leftover before it was locked
    for name in itertools.takewhile(os.path.lexists, names):
        remove_leftover(name)
    if fcntl is None:
        held.close()  # Windows renames nothing that is open
    return beside, held


def remove_leftover(beside: Path) -> bool:
    """Remove a file of `file_beside` unless its writer is at work; gives whether nothing is left by that name."""
    if fcntl is None or beside.is_symlink():  # Windows removes nothing that is open
        beside.unlink(missing_ok=True)
        return True
    try:
        found = os.open(beside, os.O_RDWR | NO_LINK)
    except FileNotFoundError:
        return True
    except PermissionError:
        beside.unlink(missing_ok=True)
        return True
    try:
        if not _lock(found):
            return False
        if _is_at(found, beside):
            beside.unlink(missing_ok=True)
        return True
    finally:
        os.close(found)


def _lock(file: int) -> bool:
    """Lock an open file; False where another one has. Where there are no locks, nobody has."""
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:
            pass
    return True


def _is_at(file: int, path: Path) -> bool:
    """Whether an open file still has a name."""
    try:
        return os.path.samestat(os.fstat(file), path.lstat())
    except FileNotFoundError:
        return False


def open_to_append(path: Path) -> BinaryIO:
    """Open a file to write at its end, a new one where there is none.

    Raises:
        OSError: it cannot be opened, or the name is a link.
    """
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | NO_LINK, 0o666), "ab")


def clear(path: Path) -> None:
    """Remove a folder with all that is in it, or a link by its name and not what it leads to."""
    if path.is_symlink():
        path.unlink()
    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def folder_beside(path: Path) -> Iterator[Path]:
    """Give a folder that does not exist yet, to be made and filled; it takes the place of ``path`` at the end."""
    beside, old = path.with_name(path.name + ".partial"), path.with_name(path.name + ".old")
    for leftover in (beside, old):
        clear(leftover)
    with named_when_full(path):
        yield beside
    if path.exists():
        path.rename(old)
    beside.rename(path)
    shutil.rmtree(old, ignore_errors=True)


Name: TypeAlias = str | os.PathLike[str]


def refuse_input(output: Name, inputs: Iterable[Name], field: str = "output") -> None:
    """Refuse to write a file in the place of one that is read, also by another name or through a link.

    Args:
        output: what would be written; one that is not there, or a folder, is no input.
        inputs: names of what is read; those that are no files here (URLs, patterns, other words) are none.
        field: how an error calls the output.

    Raises:
        InvalidSetting: it is one of them.
    """
    if not os.path.isfile(output):  # noqa: PTH113 (a name that is too long is no file, and no error here)
        return
    there = Path(output).stat()
    read = next((name for name in inputs if _is_file(name, there)), None)
    if read is not None:
        allowed = f"another name: that file is read, as {brief(os.fspath(read))}"
        raise InvalidSetting(field, os.fspath(output), allowed)


def _is_file(name: Name, there: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(name), there)  # noqa: PTH116
    except (OSError, ValueError):
        return False


class SoleWriter:
    """The right to write a file or folder, which one process has at a time; begins when it is made.

    It is a lock on ``.NAME.lock`` beside it (`filelock`), which ends with the process, however that ends.

    Args:
        path: the output.
        field: how an error calls it.

    Raises:
        InvalidSetting: another run has it, or nothing can be written there.
    """

    def __init__(self, path: str | os.PathLike[str], field: str = "output") -> None:
        place = Path(os.path.abspath(path))  # noqa: PTH100
        self._lock = FileLock(place.with_name(f".{place.name}.lock"), timeout=0)
        try:
            self._lock.acquire()
        except Timeout as error:
            if why := _unwritable(Path(self._lock.lock_file)):
                raise InvalidSetting(field, str(path), f"a name in a folder that can be written in ({why})") from error
            allowed = "a name that no other run is writing now; wait for that run, or end it"
            raise InvalidSetting(field, str(path), allowed) from error

    def end(self) -> None:
        """Let others write."""
        if self._lock.is_locked:
            with suppress(PermissionError):  # Windows removes nothing that is open; there `release` does
                Path(self._lock.lock_file).unlink(missing_ok=True)
            self._lock.release()


def _unwritable(file: Path) -> str | None:
    """Why a file cannot be opened to be written, or made where it is not there; None where it can be."""
    try:
        with suppress(FileNotFoundError):
            os.close(os.open(file, os.O_WRONLY | NO_LINK))
            return None
        with suppress(FileExistsError):  # another run has begun
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            file.unlink(missing_ok=True)
    except OSError as error:
        return f"{file.name}: {error.strerror}"
    return None


@contextmanager
def sole_writer(path: str | os.PathLike[str] | None, field: str = "output") -> Iterator[None]:
    """Be the only one to write a file or folder; see `SoleWriter`. None for no output.

    The folder that holds it is made where it is not there.
    """
    if path is None:
        yield
        return
    Path(os.path.abspath(path)).parent.mkdir(parents=True, exist_ok=True)  # noqa: PTH100
    writer = SoleWriter(path, field)
    try:
        yield
    finally:
        writer.end()


def refuse_another_run(
    run: Mapping[str, Any], before: Mapping[str, Any], place: Path, *, apart_from: Sequence[str] = ()
) -> None:
    """Raise `InvalidSetting` for the first setting in which two runs differ.

    Args:
        run: what is asked for.
        before: what was begun.
        place: where it was begun.
        apart_from: settings that may differ, by their full names.
    """
    old, new = _flat_settings(before), _flat_settings(run)
    for name in (*new, *(name for name in old if name not in new)):
        if old.get(name) != new.get(name) and name not in apart_from:
            raise InvalidSetting(name, new.get(name), f"{old.get(name)!r}, with which the run in {place} was begun")


def _flat_settings(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by their full names, e.g. ``recipe.optimiser.epochs``."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        flat |= _flat_settings(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flat
