"""What a clip becomes in a packed data set: FLAC, mono and at one rate, or the bytes of its file as they are."""

from __future__ import annotations

import io
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from spectrim.audio import files as audio
from spectrim.errors import AudioError

Samples = NDArray[np.float32]


class Fidelity(IntEnum):
    """What a packed clip still is of what its file sounds like, mono and at the rate of the pack."""

    EXACT = 0
    """Every sample to the bit."""
    ROUNDED = 1
    """To 16 bits: off by half a step, 2⁻¹⁶ of full scale, at most; by a whole one at +1, which has no number."""
    CLIPPED = 2
    """To 16 bits, and cut off where it went beyond full scale."""


@dataclass(frozen=True)
class Encoded:
    """A clip to be packed.

    Attributes:
        content: bytes of a sound file; none where there is a flaw.
        suffix: ending of its name, without the dot.
        seconds: its length.
        fidelity: see there.
        flaw: why it cannot be read, or None.
    """

    content: bytes
    suffix: str
    seconds: float
    fidelity: Fidelity = Fidelity.EXACT
    flaw: str | None = None


def encode(path: Path, sampling_rate: int | None) -> Encoded:
    """Read a sound file and make of it what is packed.

    Args:
        path: of the file.
        sampling_rate: of the FLAC, in hertz; None for the file as it is, once all of it has been decoded to see whether
            it can be.
    """
    try:
        if sampling_rate is None:
            samples = sum(map(len, audio.stream(path)))
            ending = path.suffix.lower().removeprefix(".")
            suffix = ending if ending.isascii() and ending.isalnum() else "audio"
            return Encoded(path.read_bytes(), suffix, samples / audio.SAMPLING_RATE)
        waveform = audio.read(path, sampling_rate)
        content, fidelity = as_flac(waveform.samples, sampling_rate)
        return Encoded(content, "flac", waveform.seconds, fidelity)
    except AudioError as error:
        return Encoded(b"", "", 0.0, flaw=error.reason)
    except OSError as error:
        return Encoded(b"", "", 0.0, flaw=f"cannot be opened: {error.strerror or error}")


def as_flac(samples: Samples, sampling_rate: int) -> tuple[bytes, Fidelity]:
    """Write samples (n,) at ±1 as FLAC: of 16 bits where that holds them exactly, else of 24, else rounded to 16.

    What was 16 bits, mono and at this rate stays so; two channels of 16 bits have an average of 17 bits, which 24 hold.
    What was resampled, or decoded from a lossy format, has no exact form in whole numbers.
    """
    for bits in (16, 24):
        full = 2 ** (bits - 1)
        steps = samples * np.float32(full)
        if (steps == np.rint(steps)).all() and steps.min() >= -full and steps.max() < full:
            return _flac(steps.astype(np.int32), sampling_rate, bits), Fidelity.EXACT
    whole = np.clip(np.rint(samples * np.float32(2**15)), -(2**15), 2**15 - 1).astype(np.int32)
    clipped = np.abs(samples).max() > 1
    return _flac(whole, sampling_rate, 16), Fidelity.CLIPPED if clipped else Fidelity.ROUNDED


def _flac(whole: NDArray[np.int32], sampling_rate: int, bits: int) -> bytes:
    """Write whole numbers of so many bits; libsndfile takes the uppermost ones of 32."""
    content = io.BytesIO()
    uppermost = np.left_shift(whole, 32 - bits)
    soundfile.write(content, uppermost, sampling_rate, format="FLAC", subtype=f"PCM_{bits}")
    return content.getvalue()
