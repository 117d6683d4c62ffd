"""Sounds of the kept and of the dropped patches, as WAV files and as data for the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from spectrim.audio.decoders import sndfile_name
from spectrim.audio.files import Samples, stream
from spectrim.audio.resynthesis import Parts, join, part_blocks
from spectrim.explain.clip import Explanation
from spectrim.files import file_beside

SOUNDS = {"original.wav": "whole", "kept.wav": "kept", "dropped.wav": "dropped"}
"""File → field of `Parts`."""

LARGEST_WAV = 2**32 - 2**16
"""Bytes of samples beyond which a RIFF header cannot count; then it is RF64, which the same programs read."""

FULL_SCALE = 1.0 - 2.0**-15
"""The largest sample that 16 bits hold."""

EMBEDDED_SECONDS = 15.0
"""Clips up to this long are put into the page, for every stage; longer ones are linked, for the last stage."""


@dataclass(frozen=True)
class StageSound:
    """What is heard after a stage.

    Attributes:
        kept, dropped: base64 of 16-bit WAV files.
        kept_energy: share of the energy of the spectrogram that lies in kept patches, 0 to 1; 1 for silence.
    """

    kept: str
    dropped: str
    kept_energy: float


@contextmanager
def sounds_beside(explanation: Explanation, folder: Path) -> Iterator[float]:
    """Decode the clip once more and write `SOUNDS`, 32-bit float WAV at the model's rate, whole or not at all.

    They are written when this begins, and get their names when it ends without an error. Nothing is scaled or clipped:
    kept + dropped is the original to rounding.

    Args:
        explanation: whose last stage says what is kept.
        folder: must exist.

    Yields:
        Share of the energy of the spectrogram that is kept, 0 to 1; 1 for silence.

    Raises:
        OSError: a file cannot be written.
    """
    rate = explanation.config.sampling_rate
    large = 4.0 * rate * (explanation.seconds + 1.0) > LARGEST_WAV
    energy = kept_energy = 0.0
    with ExitStack() as whole:
        partial = {name: whole.enter_context(file_beside(folder / name)) for name in SOUNDS}
        with ExitStack() as open_files:
            files = {
                name: open_files.enter_context(
                    soundfile.SoundFile(
                        sndfile_name(path), "w", rate, 1, subtype="FLOAT", format="RF64" if large else "WAV"
                    )
                )
                for name, path in partial.items()
            }
            for parts in clip_parts(explanation, len(explanation.stages)):
                energy, kept_energy = energy + parts.energy, kept_energy + parts.kept_energy
                for name, field in SOUNDS.items():
                    files[name].write(getattr(parts, field))
        yield _share(kept_energy, energy)


def clip_parts(explanation: Explanation, state: int) -> Iterator[Parts]:
    """The clip from its file, parted by what is alive in a state of `Explanation.names`, stretch by stretch."""
    config = explanation.config
    return part_blocks(
        stream(explanation.clip, config.sampling_rate),
        explanation.num_frames,
        lambda frames: explanation.mask_at(state, frames),
        config.num_mel_bins,
        config.sampling_rate,
        config.features,
    )


def stage_sounds(explanation: Explanation, longest: float = EMBEDDED_SECONDS) -> list[StageSound]:
    """Kept and dropped of every state of `Explanation.names`, for a page; none for a clip that is too long for that.

    16 bits are enough to listen to. Where a part is louder than full scale, all of them are turned down alike.

    Args:
        explanation: of a clip.
        longest: seconds beyond which a clip is too long.
    """
    if explanation.seconds > longest:
        return []
    states = [join(list(clip_parts(explanation, state))) for state in range(len(explanation.names()))]
    loudest = max(float(np.abs(samples).max()) for parts in states for samples in (parts.kept, parts.dropped))
    gain = np.float32(FULL_SCALE / max(loudest, FULL_SCALE))
    rate = explanation.config.sampling_rate
    return [
        StageSound(
            kept=_encoded(gain * parts.kept, rate),
            dropped=_encoded(gain * parts.dropped, rate),
            kept_energy=_share(parts.kept_energy, parts.energy),
        )
        for parts in states
    ]


def _share(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 1.0


def _encoded(samples: Samples, rate: int) -> str:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype="PCM_16")
    return base64.b64encode(buffer.getvalue()).decode()
