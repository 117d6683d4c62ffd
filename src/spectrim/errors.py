"""Every error that a user can meet. Each names the thing, the value, and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class SpectrimError(Exception):
    """Base class: the command line prints its text in one line and exits with 1."""


class InvalidSetting(SpectrimError, ValueError):
    """A setting is out of range or unknown; raised before any work. The command line exits with 2.

    Args:
        field: name of the setting as the user typed it, e.g. ``"keep_rate"``.
        value: what was given.
        allowed: what would have been right, in words, e.g. ``"a number in (0, 1]"``.
    """

    def __init__(self, field: str, value: Any, allowed: str) -> None:
        super().__init__(f"{field} is {value!r}; allowed: {allowed}")
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
        super().__init__(f"{source}: {reason}")
        self.source = source
        self.reason = reason

    def __reduce__(self) -> tuple[type[AudioError], tuple[str, str]]:
        return type(self), (self.source, self.reason)


class CheckpointError(SpectrimError):
    """A checkpoint cannot be loaded: unknown layout, wrong keys or shapes, or code in its pickle."""


class ExportError(SpectrimError):
    """An exported file does not do what the model does."""


class DataError(SpectrimError):
    """A data set on disk is not in the layout that its name promises."""


class TrainingDiverged(SpectrimError):
    """The loss is no longer a number; the newest checkpoint is from before."""


class MissingExtra(SpectrimError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs {package}; install it with: pip install 'spectrim[{extra}]'")
        self.arguments = (package, extra, purpose)

    def __reduce__(self) -> tuple[type[MissingExtra], tuple[str, str, str]]:
        return type(self), self.arguments


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
