from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile


def write_tone(path: Path, hertz: float = 440.0, seconds: float = 0.1, rate: int = 16000) -> np.ndarray:
    samples = (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return samples
