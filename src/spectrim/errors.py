"""Every error that a user can meet. Each names the thing, the value, and what to do next."""

from __future__ import annotations

import difflib
import numbers
import re
import reprlib
import unicodedata
from collections.abc import Iterable
from typing import Any

LONGEST = 200
"""Characters of a value that a message shows."""

LONGEST_NAME = 1000
"""Characters of a file's name that a message shows."""

_UNPRINTABLE = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
_NO_UTF8 = re.compile(r"[\udc80-\udcff]")
_KEPT = "\n\u200c\u200d"
"""Line ends, and the two joiners that scripts and emoji are written with."""

_ENDS = {ord("\n"): r"\n", ord("\r"): r"\r", ord("\t"): r"\t"}


class _Brief(reprlib.Repr):
    """``repr`` that stops when it has enough, however deep or long a value is."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 6
        self.maxtuple = self.maxlist = self.maxarray = self.maxdict = self.maxset = self.maxfrozenset = LONGEST
        self.maxdeque = self.maxstring = self.maxlong = self.maxother = LONGEST
        self.left = 2 * LONGEST

    def repr1(self, x: Any, level: int) -> str:
        """The text of a value and what is in it, as long as there is room."""
        if self.left <= 0:
            return "…"
        text = super().repr1(x, level)
        self.left -= len(text)
        return text


def brief(value: Any) -> str:
    """``repr`` of a value, cut to what a message has room for; a value of a gigabyte takes no longer than others."""
    return shown(repr(value) if isinstance(value, str | bytes) else _Brief().repr(value))


def shown(text: str, longest: int = LONGEST) -> str:
    """Text for a message: cut in its middle where it is too long, and printable."""
    if len(text) > longest:
        head, tail = longest - longest // 4, longest // 4
        text = f"{text[:head]} … {text[-tail:]} ({len(text)} characters)"
    return printable(text)


def shown_name(name: str) -> str:
    """A file's name for a message: in quotes where blanks or line ends in it would be overlooked."""
    plain = name == name.strip() and not any(end in name for end in "\n\r\t")
    return shown(name if plain else f"'{name.translate(_ENDS)}'", LONGEST_NAME)


def printable(text: str) -> str:
    """Text in which what a terminal would act on is written out: ``\\x1b``, ``\\u202e``; line ends stay."""
    if text.isprintable():
        return text
    return "".join(map(_written_out, utf8_text(text)))


def utf8_text(name: str) -> str:
    r"""A file's name as text: bytes that are no UTF-8, lone surrogates in Python, are written out, ``\xe9``."""
    return _NO_UTF8.sub(lambda byte: f"\\x{ord(byte[0]) - 0xDC00:02x}", name)


def _written_out(character: str) -> str:
    if character in _KEPT or unicodedata.category(character) not in _UNPRINTABLE:
        return character
    number = ord(character)
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


class SpectrimError(Exception):
    """Base class: the command line prints its text in one line and exits with 1.

    Examples:
        >>> try:
        ...     spectrim.Pruning(keep_rate=0).check(12)
        ... except spectrim.SpectrimError as error:
        ...     print(error)
        keep_rate is 0; allowed: a number in (0, 1]; 1 keeps every patch
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class InvalidSetting(SpectrimError, ValueError):
    """A setting is out of range or unknown; raised before any work. The command line exits with 2.

    Args:
        field: name of the setting as the user typed it, e.g. ``"keep_rate"``.
        value: what was given.
        allowed: what would have been right, in words, e.g. ``"a number in (0, 1]"``.
    """

    def __init__(self, field: str, value: Any, allowed: str) -> None:
        super().__init__(f"{field} is {brief(value)}; allowed: {allowed}")
        self.field = field
        self.value = value
        self.allowed = allowed

    def __reduce__(self) -> tuple[type[InvalidSetting], tuple[str, Any, str]]:
        return type(self), (self.field, self.value, self.allowed)


class InputShapeError(SpectrimError, ValueError):
    """A tensor does not have the shape that the model or front end was built for."""


class AudioError(SpectrimError):
    """One audio file (or waveform) cannot be used; the rest of a batch goes on.

    Args:
        source: the file, or a name for the waveform.
        reason: one line that says what is wrong with it.
    """

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{shown_name(source)}: {reason}")
        self.source = source
        self.reason = reason

    def __reduce__(self) -> tuple[type[AudioError], tuple[str, str]]:
        return type(self), (self.source, self.reason)


class CheckpointError(SpectrimError):
    """A checkpoint cannot be loaded: unknown layout, wrong keys or shapes, or code in its pickle."""


class ExportError(SpectrimError):
    """An exported file does not do what the model does."""


class DataError(SpectrimError):
    """A data set on disk is not in the layout that its name promises.

    Args:
        text: one line; what torch puts in front of one from a process that loads data, traceback and all, is left out.
    """

    def __init__(self, text: str) -> None:
        from_process = text.startswith(f"Caught {type(self).__name__} in DataLoader worker process")
        super().__init__(text.rpartition(f"{type(self).__qualname__}: ")[2].rstrip() if from_process else text)


class TrainingDiverged(SpectrimError):
    """The loss is no longer a number; the newest checkpoint is from before."""


class MissingExtra(SpectrimError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {package}; install it with: pip install 'spectrim[{extra}]'")
        self.arguments = (package, extra, purpose)

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str, str]]:
        return type(self), self.arguments


def check_whole(field: str, value: Any, least: int = 1) -> None:
    """Raise `InvalidSetting` unless a value is a whole number, at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise InvalidSetting(field, value, f"a whole number, at least {least}")


def one_of(names: Iterable[str]) -> str:
    """Word a list of allowed names for an error message."""
    return "one of " + ", ".join(sorted(names))


def nearest_of(name: str, names: Iterable[str]) -> str:
    """Word the allowed names for an error message about an unknown one, with the nearest of them first if one is near.

    Args:
        name: the unknown one.
        names: the allowed ones.

    Returns:
        E.g. ``"'epochs', perhaps; one of batch_size, epochs"``.
    """
    names = list(names)
    near = difflib.get_close_matches(name, names, n=1)
    return f"{near[0]!r}, perhaps; {one_of(names)}" if near else one_of(names)
