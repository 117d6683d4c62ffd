"""What tagging gives: scores of windows and of files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from spectrim.errors import SpectrimError

AGGREGATES = ("mean", "max", "none")
"""How one score a label can be made of those of a file's windows; see `aggregated`."""

Scores: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class WindowScores:
    """One entry of a timeline: ``start`` and ``end`` in seconds, ``scores`` (labels,) float32; equal only to itself."""

    start: float
    end: float
    scores: Scores


@dataclass(frozen=True, repr=False, eq=False)
class FilePrediction:
    """What the model hears in one file; equal only to itself.

    Attributes:
        path: the file, as it was named or found.
        labels: names, in the order of the scores.
        seconds: how much of it was heard, up to the end of the last window.
        timeline: scores of every window; one window for a file no longer than a window.
        scores: (labels,) float32, the aggregate of the timeline; None where none was asked for, or after an error.
        error: one line that says why there are no scores; None if all is well.
        note: one line on what is unusual about a file that was heard, such as a header without a length; None for most.
    """

    path: str
    labels: Sequence[str] = field(repr=False)
    seconds: float = 0.0
    timeline: Sequence[WindowScores] = field(default=(), repr=False)
    scores: Scores | None = field(default=None, repr=False)
    error: str | None = None
    note: str | None = None

    def __repr__(self) -> str:
        """The best three labels, or what is wrong."""
        if self.error is not None:
            return f"{self.path}: {self.error}"
        best = ", ".join(f"{label} {score:.3f}" for label, score in self.top(3))
        if self.scores is None:
            best = f"{len(self.timeline)} windows"
        return f"{self.path} ({self.seconds:.2f} s): {best}{f' [{self.note}]' if self.note else ''}"

    def to_dataframe(self) -> Any:
        """The timeline as a `pandas.DataFrame`: a row a window with ``start`` and ``end`` in seconds, a column a label.

        A label that is itself called ``start`` or ``end`` has the column ``start (label)`` or ``end (label)``.

        Raises:
            SpectrimError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise SpectrimError("to_dataframe needs pandas: pip install pandas") from error
        times = pandas.DataFrame(
            {"start": [window.start for window in self.timeline], "end": [window.end for window in self.timeline]}
        )
        rows = [window.scores for window in self.timeline]
        scores = np.stack(rows) if rows else np.zeros((0, len(self.labels)), np.float32)
        columns = [f"{label} (label)" if label in times else label for label in self.labels]
        return times.join(pandas.DataFrame(scores, columns=columns))

    def top(self, number: int = 5, scores: Scores | None = None) -> list[tuple[str, float]]:
        """Best labels with their scores, best first.

        Args:
            number: how many; all if there are fewer.
            scores: (labels,), of a window; None for the aggregate.
        """
        chosen = self.scores if scores is None else scores
        if chosen is None:
            return []
        order = np.argsort(-chosen, kind="stable")[:number]
        return [(self.labels[index], float(chosen[index])) for index in order]


def aggregated(timeline: Sequence[WindowScores], aggregate: str) -> Scores | None:
    """One score a label (labels,) for a file.

    Args:
        timeline: one window at least.
        aggregate: ``"mean"``, weighted by the windows' lengths, ``"max"``, or ``"none"``, which gives None.
    """
    if aggregate == "none":
        return None
    scores = np.stack([window.scores for window in timeline])
    if aggregate == "max":
        return scores.max(axis=0)
    weights = np.array([window.end - window.start for window in timeline])
    return np.average(scores, axis=0, weights=weights).astype(np.float32)


def file_prediction(
    path: str, labels: Sequence[str], timeline: Sequence[WindowScores], aggregate: str, notes: Sequence[str] = ()
) -> FilePrediction:
    """What is heard in one file, from its windows.

    Args:
        path: the file.
        labels: names, in the order of the scores.
        timeline: one window at least, in their order.
        aggregate: as for `aggregated`.
        notes: lines on what is unusual about the file.
    """
    scores = aggregated(timeline, aggregate)
    return FilePrediction(path, labels, timeline[-1].end, timeline, scores, note="; ".join(notes) or None)
