"""Files in object stores and on servers, named by URLs (``s3://bucket/folder/``) and reached through fsspec."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from spectrim.errors import AudioError

NO_FILE = "no such file"
"""What is wrong with a name behind which there is nothing."""

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_LONGEST_ENDING = 10

FOREIGN = {
    "aiohttp": ("ClientError",),
    "azure.core.exceptions": ("AzureError",),
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "gcsfs.retry": ("HttpError",),
    "google.auth.exceptions": ("GoogleAuthError",),
    "paramiko": ("SSHException",),
}
"""Module → what stores raise that is no OSError: servers that refuse, credentials that are not there."""


def is_url(path: str | os.PathLike[str]) -> bool:
    """Whether a name is a URL, ``file://`` among them, rather than a path."""
    return _URL.match(os.fspath(path)) is not None


def url_filesystem(url: str) -> tuple[Any, str]:
    """The filesystem of a URL, and what it calls the place.

    Raises:
        AudioError: fsspec knows no such protocol, or the package that speaks it is not installed.
    """
    import fsspec  # here, so that what only decodes paths need not load it

    try:
        filesystem, place = fsspec.url_to_fs(url)
    except _refusals(ImportError, TypeError) as error:
        protocol = url.partition("://")[0]
        raise AudioError(url, f"nothing here reads {protocol}://: {_reason(error)}") from error
    return filesystem, place


def files_below(url: str) -> list[str]:
    """URLs of all files in a folder and its sub-folders, sorted; none where there is no such folder.

    Of a file, it is that alone: `full_url`.

    Raises:
        AudioError: see `url_filesystem`; or it cannot be listed.
    """
    filesystem, place = url_filesystem(url)
    try:
        return sorted(filesystem.unstrip_protocol(name) for name in filesystem.find(place))
    except _refusals() as error:
        raise AudioError(url, f"cannot be listed: {_reason(error)}") from error


def full_url(url: str) -> str:
    """A URL as `files_below` and `files_like` would write it.

    Raises:
        AudioError: see `url_filesystem`.
    """
    filesystem, place = url_filesystem(url)
    return str(filesystem.unstrip_protocol(place))


def files_like(pattern: str) -> list[str]:
    """URLs of the files that match a pattern, sorted; ``**`` is any depth.

    Raises:
        AudioError: as `files_below`.
    """
    filesystem, place = url_filesystem(pattern)
    try:
        found = filesystem.glob(place, detail=True)
    except _refusals() as error:
        raise AudioError(pattern, f"cannot be listed: {_reason(error)}") from error
    return sorted(filesystem.unstrip_protocol(name) for name, facts in found.items() if facts["type"] == "file")


@contextmanager
def local_copy(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file on this machine with the content of one that a URL names; a path is that file itself.

    The copy is in the folder for temporary files, with the same ending, and is removed afterwards.

    Raises:
        AudioError: it cannot be fetched.
    """
    url = os.fspath(path)
    if not is_url(url):
        yield Path(path)
        return
    filesystem, place = url_filesystem(url)
    if "file" in filesystem.protocol:
        yield Path(place)
        return
    ending = os.path.splitext(place)[1]  # noqa: PTH122
    with tempfile.TemporaryDirectory(prefix="spectrim-") as folder:
        copy = Path(folder, "copy" + (ending if len(ending) <= _LONGEST_ENDING else ""))
        try:
            filesystem.get_file(place, str(copy))
        except FileNotFoundError as error:
            raise AudioError(url, NO_FILE) from error
        except _refusals() as error:
            raise AudioError(url, f"cannot be fetched: {_reason(error)}") from error
        if not copy.is_file():
            raise AudioError(url, "not a file")
        yield copy


def _refusals(*further: type[Exception]) -> tuple[type[Exception], ...]:
    """What says that a store cannot be reached; of `FOREIGN` what is loaded, since no other can have been raised."""
    loaded = ((sys.modules[module], names) for module, names in FOREIGN.items() if module in sys.modules)
    return (OSError, ValueError, *further, *(getattr(module, name) for module, names in loaded for name in names))


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
