"""Data sets: one file for each, one table of them.

A new one is a function ``open_it(root, part, **options) -> AudioDataset`` in a file of its own, an entry in
`DATA_SETS`, and a recipe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from spectrim.data.dataset import PARTS, AudioDataset, Clip, Recording
from spectrim.data.speech_commands import WORDS, open_speech_commands

__all__ = ["DATA_SETS", "PARTS", "AudioDataset", "Clip", "DataSet", "Recording"]


@dataclass(frozen=True)
class DataSet:
    """An entry of `DATA_SETS`.

    Args:
        title: its name in full.
        labels: names of all labels in the order of the targets; None where only the folder on disk says it.
        multi_label: whether a clip can have several labels.
        metric: name in `spectrim.metrics.METRICS`.
        mean: mean of the log-mel values of its training part, for the front end.
        std: their standard deviation.
        max_length: frames of 10 ms that a model for it looks at.
        open: ``open(root, part, **options)`` → `AudioDataset`; part is one of `PARTS`.
    """

    title: str
    labels: tuple[str, ...] | None
    multi_label: bool
    metric: str
    mean: float
    std: float
    max_length: int
    open: Callable[..., AudioDataset]


DATA_SETS: dict[str, DataSet] = {
    "speech-commands": DataSet(
        title="Speech Commands V2, 35 words",
        labels=WORDS,
        multi_label=False,
        metric="accuracy",
        mean=-6.845978,
        std=5.5654526,
        max_length=128,
        open=open_speech_commands,
    ),
    "spoken-commands": DataSet(
        title="Speech Commands V2's words spoken by eSpeak NG (see `spectrim.data.synthetic`)",
        labels=WORDS,
        multi_label=False,
        metric="accuracy",
        mean=-9.364265,
        std=4.263562,
        max_length=128,
        open=open_speech_commands,
    ),
}
"""The data sets by the names that recipes and the command line use.

Statistics of Speech Commands are those of the published recipes; those of the spoken miniature were
measured with `spectrim.data.check` on its 61,250 training clips of seed 0.
"""
