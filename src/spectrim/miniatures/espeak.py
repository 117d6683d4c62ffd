"""Speech from eSpeak NG: the one place that touches the shared library of the wheel ``espeakng-loader``.

eSpeak NG is GPL-3, so it is an optional extra (``pip install 'spectrim[synthesis]'``) and is loaded only when
`Espeak` is made.

The library keeps state between two calls (phase of the voice source, position in the flutter table), so the
same call gives other samples the second time. `Espeak.say` therefore loads the library afresh for each
utterance and unloads it afterwards. That costs 0.5 ms, because `Espeak` gives it a copy of the English part
of its data in which it finds each voice without searching. The library is a copy too, so that nobody else in the
process keeps it loaded.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spectrim.errors import DataError, InvalidSetting, MissingExtra

SAMPLING_RATE = 22050
"""What eSpeak NG delivers, in hertz."""

ACCENTS = (
    "en",
    "en-029",
    "en-gb-scotland",
    "en-gb-x-gbclan",
    "en-gb-x-gbcwmd",
    "en-gb-x-rp",
    "en-us",
    "en-us-nyc",
)
"""The English voices of eSpeak NG 1.52 (all but the one for the Shavian alphabet)."""

_DATA_FILES = ("phondata", "phonindex", "phontab", "intonations", "en_dict")
_OUTPUT_SYNCHRONOUS = 2
_DONT_EXIT = 0x8000
_UTF8 = 1
_POSITION_CHARACTER = 1
_RATE, _VOLUME, _PITCH, _RANGE = 1, 2, 3, 4

_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True)
class Manner:
    """How an utterance is spoken.

    Args:
        accent: one of `ACCENTS`.
        voice: one of eSpeak NG's voice variants, e.g. ``"f3"``: the speaker.
        rate: words a minute, 80 to 450.
        pitch: 0 to 99; 50 is the voice's own.
        pitch_range: 0 (monotone) to 99; 50 is the voice's own.
        seed: of the library's noise generator.
    """

    accent: str
    voice: str
    rate: int = 175
    pitch: int = 50
    pitch_range: int = 50
    seed: int = 0


class Espeak:
    """eSpeak NG with a private copy of itself; use it as a context manager, which removes the copy.

    Raises:
        MissingExtra: espeakng-loader is not installed.
        DataError: the wheel does not hold the voices that this project names.
    """

    volume = 50
    """Of 100: the loudest voice variants clip at full volume."""

    def __init__(self) -> None:
        try:
            loader: Any = importlib.import_module("espeakng_loader")
        except ImportError as error:
            raise MissingExtra("espeakng-loader", "synthesis", "Speech synthesis") from error
        self._directory = tempfile.TemporaryDirectory(prefix="spectrim-espeak-")
        library = Path(loader.get_library_path())
        self._library_path = shutil.copyfile(library, Path(self._directory.name) / library.name)
        self._data = Path(self._directory.name) / "espeak-ng-data"
        _copy_english(Path(loader.get_data_path()), self._data)

    def __enter__(self) -> Espeak:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove the copy."""
        self._directory.cleanup()

    @property
    def voices(self) -> list[str]:
        """The voice variants that the wheel holds, sorted."""
        return sorted(path.name for path in (self._data / "voices" / "!v").iterdir())

    def say(self, text: str, manner: Manner) -> NDArray[np.float32]:
        """Speak a text.

        Args:
            text: what to say; a final ``.``, ``?`` or ``!`` sets the intonation.
            manner: voice and way of speaking.

        Returns:
            Samples (n,) in [−1, 1] at `SAMPLING_RATE`, with the silence that eSpeak NG puts around them. The same
            arguments give the same samples, whatever was said before.

        Raises:
            InvalidSetting: no such accent or voice.
            DataError: the library refused the text.
        """
        if manner.accent not in ACCENTS:
            raise InvalidSetting("accent", manner.accent, "one of " + ", ".join(ACCENTS))
        if not (self._data / "voices" / "!v" / manner.voice).is_file():
            raise InvalidSetting("voice", manner.voice, "one of " + ", ".join(self.voices))
        pieces: list[bytes] = []

        def collect(samples: Any, count: int, _events: int | None) -> int:
            if samples and count > 0:
                pieces.append(ctypes.string_at(samples, 2 * count))
            return 0

        library = ctypes.CDLL(str(self._library_path))
        try:
            status = self._speak(library, text, manner, _Callback(collect))
        finally:
            _unload(library)
        if status != 0:
            raise DataError(f"eSpeak NG could not say {text!r} as {manner}: status {status}")
        return np.frombuffer(b"".join(pieces), dtype=np.int16).astype(np.float32) / np.float32(32768)

    def _speak(self, library: ctypes.CDLL, text: str, manner: Manner, callback: Callable[..., int]) -> int:
        path = os.fsencode(self._data)
        rate = library.espeak_Initialize(_OUTPUT_SYNCHRONOUS, 0, path, _DONT_EXIT)
        if rate != SAMPLING_RATE:
            raise DataError(f"eSpeak NG did not start with the data in {self._data}: status {rate}")
        library.espeak_SetSynthCallback(callback)
        status: int = library.espeak_SetVoiceByName(f"gmw/{manner.accent}+{manner.voice}".encode())
        parameters = (
            (_RATE, manner.rate),
            (_VOLUME, self.volume),
            (_PITCH, manner.pitch),
            (_RANGE, manner.pitch_range),
        )
        for parameter, value in parameters:
            library.espeak_SetParameter(parameter, value, 0)
        library.espeak_ng_SetRandSeed(ctypes.c_long(manner.seed))
        encoded = text.encode() + b"\0"
        status = status or library.espeak_Synth(
            encoded, ctypes.c_size_t(len(encoded)), 0, _POSITION_CHARACTER, 0, ctypes.c_uint(_UTF8), None, None
        )
        status = status or library.espeak_Synchronize()
        library.espeak_Terminate()
        return status


def _copy_english(source: Path, target: Path) -> None:
    """Copy what English needs; the library looks for an accent under its name in lower case first."""
    accents, variants = target / "lang" / "gmw", target / "voices" / "!v"
    accents.mkdir(parents=True)
    variants.mkdir(parents=True)
    try:
        for name in _DATA_FILES:
            shutil.copyfile(source / name, target / name)
        accent_files = {path.name.lower(): path for path in (source / "lang" / "gmw").iterdir()}
        for accent in ACCENTS:
            shutil.copyfile(accent_files[accent], accents / accent)
        for path in (source / "voices" / "!v").iterdir():
            shutil.copyfile(path, variants / path.name)
    except (OSError, KeyError) as error:
        raise DataError(f"espeakng-loader lacks a file that Spectrim needs: {error}") from error


def _unload(library: ctypes.CDLL) -> None:
    """Unload a shared library, so that the next load starts from its initial state."""
    native: Any = importlib.import_module("_ctypes")
    close = native.FreeLibrary if os.name == "nt" else native.dlclose
    close(library._handle)
