"""Channels to mono, block by block, with what is wrong or odd about their samples."""

from __future__ import annotations

import numpy as np

from spectrim.audio.decoders import Samples
from spectrim.errors import AudioError

LARGEST_SAMPLE = 100.0
"""Full scale is 1; float samples beyond this, 40 dB above it, are integers that were never divided, or garbage."""

LOUD_SAMPLE = 4.0
"""Float samples beyond this, 12 dB above full scale, are told."""


class MixDown:
    """Averages channels, and knows for how long they cancelled out to exact zeros, and the loudest sample of all.

    Args:
        source: what errors call the file.
    """

    def __init__(self, source: str) -> None:
        self.source = source
        self.samples = 0
        self.cancelled = 0
        self.peak = 0.0

    def __call__(self, block: Samples, rate: int) -> Samples:
        """Mono (n,) of a block (n, channels) at a rate in hertz.

        Raises:
            AudioError: its samples are no sound.
        """
        self.peak = max(self.peak, self._checked_peak(block, rate))
        self.samples += len(block)
        channels = block.shape[1]
        if channels == 1:
            return block[:, 0]
        mono: Samples = block @ np.full(channels, 1 / channels, np.float32)
        if not mono.any() and block.any():
            self.cancelled += len(block)
        return mono

    def notes(self, rate: int) -> list[str]:
        """A line where channels cancelled out for the length of a block, and one where a sample is far too loud."""
        lines = []
        if self.peak > LOUD_SAMPLE:
            lines.append(f"its samples reach {self.peak:.3g} times full scale, which is 1 for floating point")
        if self.cancelled:
            spans = f"{self.cancelled / rate:.2f} of {self.samples / rate:.2f} s"
            lines.append(f"its channels cancel out in the mix-down to mono, to exact zeros, for {spans}")
        return lines

    def _checked_peak(self, block: Samples, rate: int) -> float:
        peak = max(float(block.max()), -float(block.min()))
        if peak <= LARGEST_SAMPLE:
            return peak
        sane = (np.abs(block) <= LARGEST_SAMPLE).all(axis=1)
        frame = int(np.argmin(sane))
        at = f"at {(self.samples + frame) / rate:.3f} s"
        if not np.isfinite(block[frame]).all():
            raise AudioError(self.source, f"has a sample that is NaN or infinite, {at}")
        loudest = float(np.abs(block[frame]).max())
        raise AudioError(
            self.source,
            f"has a sample of {loudest:.6g}, {at}, where full scale is 1: if these are integers as floating point, "
            "divide them, those of 16 bits by 32768",
        )
