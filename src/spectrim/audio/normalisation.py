"""Mean and standard deviation of log-mel values, one entry a data set."""

from __future__ import annotations

from typing import NamedTuple


class Normalisation(NamedTuple):
    """Mean and standard deviation of the log-mel values of a data set's training part, in natural-log units."""

    mean: float
    std: float


NORMALISATIONS = {
    "audioset": Normalisation(-4.2677393, 4.5689974),
    "esc50": Normalisation(-6.6268077, 5.358466),
    "speech-commands": Normalisation(-6.845978, 5.5654526),
    "voxceleb1": Normalisation(-6.370, 3.074),
    "spoken-commands": Normalisation(-9.364265, 4.263562),
}
"""Data set → what its recipes and published checkpoints normalise by."""
