"""Scores over time to events: when a label is heard, as tracks that Audacity and Raven open."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spectrim.errors import InvalidSetting, nearest_of, one_of
from spectrim.files import name_with, write_text
from spectrim.inference.results import FilePrediction

THRESHOLD = 0.5
"""Score from which a label counts as heard, where none is given."""

LOOKED_AT = 64
"""Characters of a file that tell whether it is a track."""

RAVEN_COLUMNS = (
    *("Selection", "View", "Channel", "Begin Time (s)", "End Time (s)", "Low Freq (Hz)", "High Freq (Hz)"),
    *("Annotation", "Score"),
)


@dataclass(frozen=True)
class SoundEvent:
    """A label that is heard for a while.

    Attributes:
        start: of the first window, in seconds from the start of the file.
        end: of the last window.
        label: its name.
        score: the highest of its windows'.
    """

    start: float
    end: float
    label: str
    score: float


def sound_events(
    prediction: FilePrediction, thresholds: Mapping[str, float], min_duration: float = 0.0
) -> list[SoundEvent]:
    """Join the windows in which a label is heard.

    Windows that touch or overlap become one event, so an event is as exact as windows are long; for finer ones tag with
    a shorter window or hop.

    Args:
        prediction: of a file.
        thresholds: label → the score from which it counts as heard; other labels give no events.
        min_duration: of an event, in seconds; shorter ones are left out.

    Returns:
        Events by start, then label; none for a file with an error.
    """
    events = []
    for label, threshold in thresholds.items():
        column = list(prediction.labels).index(label)
        heard = [window for window in prediction.timeline if window.scores[column] >= threshold]
        start, end, score = 0.0, -1.0, 0.0
        for window in heard:
            if window.start > end + 1e-6:
                if end >= 0:
                    events.append(SoundEvent(start, end, label, score))
                start, score = window.start, 0.0
            end, score = window.end, max(score, float(window.scores[column]))
        if heard:
            events.append(SoundEvent(start, end, label, score))
    long_enough = (event for event in events if event.end - event.start >= min_duration - 1e-6)
    return sorted(long_enough, key=lambda event: (event.start, event.label))


def thresholds_of(labels: Sequence[str], given: Sequence[str] = (), chosen: Sequence[str] = ()) -> dict[str, float]:
    """Read thresholds as they are typed: ``0.4`` for every label, ``bark=0.2`` for one.

    Args:
        labels: of the model.
        given: thresholds; `THRESHOLD` where none is for every label. A later one goes before an earlier.
        chosen: labels that events are wanted of; all where none is named.

    Returns:
        Label → threshold, in the order of the model's labels.

    Raises:
        InvalidSetting: a label is none of the model's, or a threshold no number from 0 to 1.
    """
    for label in chosen:
        _check_label(label, labels)
    everywhere, apart = THRESHOLD, dict[str, float]()
    for text in given:
        label, _, number = text.rpartition("=")
        try:
            threshold = float(number)
        except ValueError:
            threshold = -1.0
        if not 0 <= threshold <= 1:
            raise InvalidSetting("threshold", text, "a number from 0 to 1, or LABEL=NUMBER")
        if label:
            _check_label(label, labels)
            apart[label] = threshold
        else:
            everywhere = threshold
    return {label: apart.get(label, everywhere) for label in labels if not chosen or label in chosen}


def _check_label(label: str, labels: Sequence[str]) -> None:
    if label not in labels:
        raise InvalidSetting("label", label, nearest_of(label, labels))


def audacity_track(events: Sequence[SoundEvent], highest: float) -> str:
    """A label track of Audacity: start, end and label of every event, separated by tabs."""
    return "".join(f"{event.start:.6f}\t{event.end:.6f}\t{_cell(event.label)}\n" for event in events)


def raven_table(events: Sequence[SoundEvent], highest: float) -> str:
    """A selection table of Raven for one file; the selections go from 0 to ``highest`` hertz."""
    rows = [RAVEN_COLUMNS]
    for number, event in enumerate(events, 1):
        times = (f"{event.start:.6f}", f"{event.end:.6f}", "0.0", f"{highest:.1f}")
        rows.append((str(number), "Spectrogram 1", "1", *times, _cell(event.label), f"{event.score:.6g}"))
    return "".join("\t".join(row) + "\n" for row in rows)


TRACKS: dict[str, tuple[str, Callable[[Sequence[SoundEvent], float], str]]] = {
    "audacity": (".txt", audacity_track),
    "raven": (".Table.1.selections.txt", raven_table),
}
"""Kind of track → the end of its file's name, and how it is written of events and the highest frequency in hertz."""


_OURS = {"audacity": re.compile(r"[\d.]+\t[\d.]+\t"), "raven": re.compile("Selection\tView\tChannel\t")}
"""Kind of track → how it begins, unless it is empty."""


def _cell(text: str) -> str:
    """Text without what would end a cell or a row."""
    return " ".join(text.split())


class EventTracks:
    """Writes a track a file, below one folder in the order of folders that the files have.

    Args:
        folder: made where it is not there.
        kind: one of `TRACKS`.
        files: all files of the run; their common folder becomes ``folder``.
        thresholds: as for `sound_events`; so ``min_duration``.
        sampling_rate: of the model, in hertz: half of it is the highest frequency that it hears.

    Raises:
        InvalidSetting: there is no such kind, no such folder can be, ``min_duration`` is below 0, or what is in the
            place of a track is none.
    """

    def __init__(
        self,
        folder: Path,
        kind: str,
        files: Sequence[str],
        thresholds: Mapping[str, float],
        min_duration: float,
        sampling_rate: int,
    ) -> None:
        if kind not in TRACKS:
            raise InvalidSetting("events-as", kind, one_of(TRACKS))
        if not min_duration >= 0:
            raise InvalidSetting("min-duration", min_duration, "seconds, 0 or more")
        if folder.exists() and not folder.is_dir():
            raise InvalidSetting("events", str(folder), "a folder, not a file")
        self._folder = folder
        self._ending, self._render = TRACKS[kind]
        self._thresholds = thresholds
        self._min_duration = min_duration
        self._highest = sampling_rate / 2
        parents = [Path(os.path.abspath(file)).parent for file in files]  # noqa: PTH100 (links stay as they are named)
        self._common = Path(os.path.commonpath(parents)) if parents else Path.cwd()
        self._is_ours = _OURS[kind].match
        for file in files:
            self._target(file)

    def write(self, prediction: FilePrediction) -> Path | None:
        """Write the track of a file, an empty one where nothing is heard; none for a file with an error.

        It has the file's name with an ending; one too long for that is cut (`spectrim.files.name_with`).

        Raises:
            InvalidSetting: what is in its place is no track; it stays.
        """
        if prediction.error is not None:
            return None
        target = self._target(prediction.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        events = sound_events(prediction, self._thresholds, self._min_duration)
        write_text(target, self._render(events, self._highest))
        return target

    def _target(self, path: str) -> Path:
        """Where the track of a file goes; a track that is there is replaced, another file is refused."""
        place = Path(os.path.abspath(path)).relative_to(self._common)  # noqa: PTH100
        target = self._folder / place.with_name(name_with(place.name, self._ending))
        if (found := self._in_the_way(target)) is not None:
            allowed = f"a folder without {found}, which is no track of this kind, and in the place of one"
            raise InvalidSetting("events", str(self._folder), allowed)
        return target

    def _in_the_way(self, target: Path) -> Path | None:
        """What is in the place of a track, or of its folder, and is none; a name that is too long is no error here."""
        if not os.path.isdir(target.parent):  # noqa: PTH112
            return next((above for above in target.parents if os.path.isfile(above)), None)  # noqa: PTH113
        if os.path.isdir(target):  # noqa: PTH112
            return target
        if not os.path.isfile(target):  # noqa: PTH113
            return None
        try:
            with target.open(encoding="utf-8", errors="replace") as file:
                start = file.read(LOOKED_AT)
        except PermissionError:
            return target
        return target if start and not self._is_ours(start) else None
