"""What the page shows of a sound, as values: the stretch that is shown, labels, MACs, milliseconds."""

from __future__ import annotations

import dataclasses
import math
import os
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from spectrim.audio.decoding import decode_files
from spectrim.audio.files import Note, Window, windows_and_notes
from spectrim.errors import AudioError
from spectrim.explain.clip import Explanation, explain_windows
from spectrim.explain.page import stages_page
from spectrim.explain.sound import stage_sounds
from spectrim.inference.torch_model import TorchModel
from spectrim.measure.benchmark import interleaved, spread
from spectrim.network.macs import macs
from spectrim.pictures.kept_patches import LABELS_SHOWN
from spectrim.pruning.pruning import Pruning

TIMED_SECONDS, MOST_REPEATS = 0.6, 9
"""Forward passes are timed for about so long in all, and at most so often."""


@dataclass(frozen=True)
class Stretch:
    """The part of a sound that the model hears at once.

    Attributes:
        name: of the sound's file, without its ending.
        samples: (n,) float32 at the model's sampling rate.
        notes: what a user ought to know of it, a line each.
    """

    name: str
    samples: np.ndarray[Any, np.dtype[np.float32]]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Shown:
    """What the page shows of a stretch at an operating point.

    Attributes:
        page: HTML that stands alone: spectrogram, stages, sounds (`spectrim.explain.page.stages_page`).
        labels: rows of ``label``, ``dense`` and ``pruned``, scores of 0 to 1; best ones first.
        macs: ``dense`` and ``pruned``, multiply-accumulates that a forward pass really takes.
        milliseconds: likewise, median times of a forward pass of this stretch alone on this machine.
        repeats: how many passes each median is of.
    """

    page: str
    labels: list[dict[str, Any]]
    macs: dict[str, int]
    milliseconds: dict[str, float]
    repeats: int


def take_stretch(sound: str | os.PathLike[str], model: TorchModel, start: float = 0.0) -> Stretch:
    """Decode as much of a sound as the model hears at once; what comes after it is not read.

    Args:
        sound: any audio file, of any length.
        model: says how long a stretch is.
        start: seconds into the sound; the stretch that holds it is taken.

    Raises:
        AudioError: it cannot be decoded, is silent, or ends before ``start``.
    """
    name, rate, hop = Path(sound).name, model.config.sampling_rate, model.hop_seconds
    if not (math.isfinite(start) and start >= 0):
        raise AudioError(name, f"a stretch cannot begin at second {start}; allowed: 0 or more")
    wanted = int(start / hop + 1e-9)
    cutter = partial(windows_and_notes, window_seconds=model.window_seconds, hop_seconds=hop, sampling_rate=rate)
    windows: list[Window] = []
    notes: list[str] = []
    last: Window | None = None
    with closing(decode_files([os.fspath(sound)], cutter, workers=1)) as events:
        for number, (_, event) in enumerate(events):
            if isinstance(event, AudioError) and not windows:
                raise AudioError(name, event.reason)
            if isinstance(event, AudioError):
                notes.append(f"After what is shown the sound cannot be heard: {event.reason}.")
            if isinstance(event, Note):
                notes.append(event.text)
            if isinstance(event, Window):
                last = event
                windows += [event] * (number >= wanted)
            if len(windows) > 1:
                break
    end = 0.0 if last is None else last.end
    if last is None or end <= start:
        raise AudioError(name, f"ends at second {end:.2f}, so that there is none from second {start:g}")
    windows = windows or [last]
    [window, *rest] = windows
    if not window.samples.any():
        raise AudioError(name, f"is silent from second {window.start:.2f} to {window.end:.2f}: every sample is 0")
    if window.start or rest:
        more = ", and the sound goes on" if rest else ""
        notes.append(
            f"Shown: second {window.start:.2f} to {window.end:.2f} of the sound{more}. The model hears "
            f"{hop:.2f} s at once; “from second” chooses another stretch."
        )
    elif window.seconds < 0.95 * hop:
        notes.append(f"The sound lasts {window.seconds:.2f} s and the model hears {hop:.2f} s: the rest is padding.")
    return Stretch(Path(sound).stem or "sound", window.samples, tuple(notes))


def show(
    stretch: Stretch, model: TorchModel, pruning: Pruning, name: str = "", folder: str | os.PathLike[str] | None = None
) -> Shown:
    """Run a stretch through the model, dense and at an operating point.

    Args:
        stretch: of a sound.
        model: stays as it is.
        pruning: the operating point.
        name: what the model is called.
        folder: for a file of the stretch, which is gone afterwards; None for that of temporary files.

    Raises:
        InvalidSetting: the operating point does not go with the model.
        OSError: the file cannot be written.
    """
    model.config.check_pruning(pruning)
    point = model.at(pruning)
    window = Window(0.0, stretch.samples, model.config.sampling_rate)
    with tempfile.TemporaryDirectory(dir=folder) as own:
        file = Path(own, f"{stretch.name}.wav")
        soundfile.write(file, stretch.samples, model.config.sampling_rate, subtype="FLOAT")
        explanation = explain_windows(file, [window], point, stages_apart=False, name=name)
        sounds = stage_sounds(explanation, longest=math.inf)
    dense = model.at(dataclasses.replace(pruning, keep_rate=1.0, attention_mass=0.0))
    milliseconds, repeats = _times(stretch, {"dense": dense, "pruned": point})
    entering = int(explanation.windows[0].kept[0].sum()) if pruning.drop_padding else None
    rows = explanation.shown_labels(explanation.dense, explanation.pruned, LABELS_SHOWN)
    return Shown(
        page=stages_page(explanation, sounds, sounds[-1].kept_energy),
        labels=[
            {
                "label": explanation.labels[row],
                "dense": float(explanation.dense[row]),
                "pruned": float(explanation.pruned[row]),
            }
            for row in rows
        ],
        macs={
            "dense": macs(model.config, pruning=dense.pruning, entering=entering).executed,
            "pruned": macs(model.config, pruning=pruning, kept=_alive(explanation), entering=entering).executed,
        },
        milliseconds=milliseconds,
        repeats=repeats,
    )


def _alive(explanation: Explanation) -> list[int] | None:
    """Patches after each block, where they are not known beforehand."""
    config, [window] = explanation.config, explanation.windows
    if not config.pruning.attention_mass:
        return None
    blocks = range(config.num_hidden_layers)
    states = [sum(stage.block <= block for stage in explanation.stages) for block in blocks]
    return [int(window.kept[state].sum()) for state in states]


def _times(stretch: Stretch, models: dict[str, TorchModel]) -> tuple[dict[str, float], int]:
    """Median milliseconds of a forward pass by name, and of how many each."""
    values, lengths = next(iter(models.values())).prepare([stretch.samples])
    calls: dict[str, Callable[[], object]] = {
        name: partial(_run, model, values, lengths) for name, model in models.items()
    }
    first = interleaved(calls, repeats=1, warmup=0)
    taken = sum(seconds[0] for seconds in first.values())
    repeats = max(1, min(MOST_REPEATS, int(TIMED_SECONDS / taken)))
    timed = interleaved(calls, repeats=repeats, warmup=0)
    return {name: spread(seconds)["median_ms"] for name, seconds in timed.items()}, repeats


def _run(model: TorchModel, values: Any, lengths: Any) -> None:
    """A forward pass to its end: on a GPU, what comes back waits for it."""
    model.logits(values, lengths).sum().item()
