"""Tag a few clips at several keep rates: a table of accuracy, MACs and time; ``spectrim demo``."""

from __future__ import annotations

import os
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectrim.assets import packaged_clips
from spectrim.audio.files import iterate_windows
from spectrim.audio.finding import Paths, as_paths
from spectrim.audio.frontend import Frontend
from spectrim.config import SpectrimConfig
from spectrim.data.dataset import spread_places
from spectrim.errors import AudioError, InvalidSetting
from spectrim.inference.results import Scores
from spectrim.inference.torch_model import TorchModel
from spectrim.measure.benchmark import interleaved
from spectrim.network.macs import macs
from spectrim.pruning.pruning import check_keep_rate
from spectrim.pruning.trace import TokenTrace

BATCH = 8
"""Clips in a forward pass, of the tagging and of the timing."""

WARM_UP = 2
"""Passes at each keep rate before those that are timed."""

FEWEST_REPEATS, MOST_REPEATS = 5, 100
TIMING_SECONDS = 8.0
"""What timing may take; the number of repeats follows from it."""

Progress = Callable[[str, int, int], object]
"""Called with the name of the stage, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class DemoClip:
    """One clip, ready to be tagged.

    Attributes:
        path: the file.
        label: what is in it, or None if nobody says.
        seconds: length of the file; the model hears as much of its start as it takes in.
        log_mel: (frames, mels) float32, normalised.
        num_frames: frames that hold sound.
    """

    path: Path
    label: str | None
    seconds: float
    log_mel: Tensor = field(repr=False)
    num_frames: int


Draw = Callable[[NDArray[np.float32], TokenTrace, SpectrimConfig, Scores, str, int, str], Path]
"""Draws a clip and gives the picture's file; `spectrim.explain.window_pictures.clip_painter` makes one. Takes log-mel
(frames, mels), the trace of the clip alone, the model's configuration, scores (labels,), a title, the number of frames
that hold sound, and a name for the file."""


@dataclass(frozen=True)
class DemoResult:
    """What a demonstration found.

    Attributes:
        rows: one a keep rate: keep_rate, accuracy (share of the clips whose first label is right; None if the clips
            carry no labels or the model does not know them), agreement (share whose first label is that of keep
            rate 1), paper_macs, executed_macs (per clip), ms_per_clip, speed_up (against the first row).
        pictures: files that were drawn.
        clips: what was tagged.
        errors: files that could not be used.
        batch_size: clips in each timed pass.
        repeats: timed passes at each keep rate; ms_per_clip is their median over the batch size.
    """

    rows: list[dict[str, Any]]
    pictures: list[Path]
    clips: list[DemoClip]
    errors: list[AudioError]
    batch_size: int
    repeats: int


def run(
    clips: Paths = (),
    *,
    model: str | os.PathLike[str] = "spectrim-mini",
    keep_rates: Sequence[float] = (1.0, 0.7, 0.5),
    draw: Draw | None = None,
    pictures: int = 3,
    on_progress: Progress | None = None,
) -> DemoResult:
    """Tag clips at several keep rates on the CPU, compare, and have drawn what is kept at the lowest.

    ms_per_clip is the time of the model alone: from log-mel to logits, without decoding, front end or loading, in
    passes of `BATCH` clips (fewer if there are fewer), with as many threads as torch has. The keep rates take turns, so
    that what else the machine does hits all alike; the median of the passes counts.

    Args:
        clips: audio files, one or several; none of them: the held-out clips in the package, whose labels are known.
        model: what `spectrim.from_pretrained` takes.
        keep_rates: in (0, 1].
        draw: draws a clip; None for no pictures.
        pictures: how many clips to draw, spread evenly over all.
        on_progress: called with ``"read"``, ``"tag"``, ``"time"`` or ``"draw"``, how much is done, how much there is.

    Raises:
        InvalidSetting: a keep rate is out of range or there is none, or ``pictures`` is negative.
        CheckpointError: the model cannot be loaded.
        DataError: no clips are named and the package holds none.
        AudioError: none of the files can be used; the first one's reason.
    """
    rates = _checked(keep_rates, pictures)
    report_progress = on_progress or _no_progress
    files = [(Path(path), None) for path in as_paths(clips, "clips")] or packaged_clips()
    tagger = TorchModel.load(model, device="cpu")
    usable, errors = _read(files, tagger.config, report_progress)
    answers = _tag(tagger, usable, rates if 1.0 in rates else [*rates, 1.0], partial(report_progress, "tag"))
    batch = usable[:BATCH]
    seconds = _time(tagger, batch, rates, partial(report_progress, "time"))
    drawn = [] if draw is None else _draw(tagger, usable, min(rates), draw, pictures, partial(report_progress, "draw"))
    medians = {rate: statistics.median(times) for rate, times in seconds.items()}
    rows = []
    for rate in rates:
        count = macs(tagger.config, keep_rate=rate)
        rows.append(
            {
                "keep_rate": rate,
                "accuracy": _accuracy(tagger.config, usable, answers[rate]),
                "agreement": float((answers[rate] == answers[1.0]).mean()),
                "paper_macs": count.paper,
                "executed_macs": count.executed,
                "ms_per_clip": 1e3 * medians[rate] / len(batch),
                "speed_up": medians[rates[0]] / medians[rate],
            }
        )
    return DemoResult(rows, drawn, usable, errors, len(batch), len(seconds[rates[0]]))


def _no_progress(stage: str, done: int, total: int) -> None:
    """Ignore progress."""


def _checked(keep_rates: Sequence[float], pictures: int) -> list[float]:
    """Keep rates, each once and as floats, once every setting is known to be allowed."""
    if not keep_rates:
        raise InvalidSetting("keep_rates", list(keep_rates), "at least one number in (0, 1]")
    for rate in keep_rates:
        check_keep_rate(rate)
    if pictures < 0:
        raise InvalidSetting("pictures", pictures, "0 or more")
    return list(dict.fromkeys(float(rate) for rate in keep_rates))


def _read(
    files: Sequence[tuple[Path, str | None]], config: SpectrimConfig, report_progress: Progress
) -> tuple[list[DemoClip], list[AudioError]]:
    """Decode every file to its end, so that damage anywhere shows, and make log-mel of its first window."""
    frontend = Frontend.from_config(config)
    longest = frontend.samples / config.sampling_rate
    clips, errors = [], []
    for done, (path, label) in enumerate(files):
        report_progress("read", done, len(files))
        try:
            windows = iterate_windows(path, longest, sampling_rate=config.sampling_rate)
            first = next(windows)
            further = deque(windows, maxlen=1)
            features = frontend([first.samples])
        except AudioError as error:
            errors.append(AudioError(str(path), error.reason))
            continue
        end = further[0].end if further else first.end
        clips.append(DemoClip(path, label, end, features.input_values[0], int(features.num_frames[0])))
    report_progress("read", len(files), len(files))
    if not clips:
        raise errors[0]
    return clips, errors


def _passing(model: TorchModel, clips: Sequence[DemoClip], rate: float, **options: Any) -> Callable[[], Any]:
    """A forward pass of these clips as one batch, to be called."""
    log_mel = torch.stack([clip.log_mel for clip in clips])
    frames = torch.tensor([clip.num_frames for clip in clips])
    return partial(model.at(keep_rate=rate).output, log_mel, frames, **options)


def _tag(
    model: TorchModel,
    clips: Sequence[DemoClip],
    rates: Sequence[float],
    report_progress: Callable[[int, int], object],
) -> dict[float, NDArray[np.int64]]:
    """For each keep rate (clips,) index of every clip's first label."""
    answers = {}
    for turn, rate in enumerate(rates):
        first = []
        for start in range(0, len(clips), BATCH):
            report_progress(turn * len(clips) + start, len(rates) * len(clips))
            first.append(_passing(model, clips[start : start + BATCH], rate)().logits.argmax(dim=1))
        answers[rate] = torch.cat(first).numpy()
    report_progress(len(rates) * len(clips), len(rates) * len(clips))
    return answers


def _time(
    model: TorchModel,
    batch: Sequence[DemoClip],
    rates: Sequence[float],
    report_progress: Callable[[int, int], object],
) -> dict[float, list[float]]:
    """Seconds of each pass of a batch, per keep rate; as many passes as `TIMING_SECONDS` allow."""
    cases = {rate: _passing(model, batch, rate) for rate in rates}
    trial = interleaved(cases, repeats=1, warmup=WARM_UP)
    affordable = int(TIMING_SECONDS / sum(times[0] for times in trial.values()))
    repeats = min(max(affordable, FEWEST_REPEATS), MOST_REPEATS)
    return interleaved(cases, repeats=repeats, warmup=0, on_round=report_progress)


def _draw(
    model: TorchModel,
    clips: Sequence[DemoClip],
    rate: float,
    draw: Draw,
    pictures: int,
    report_progress: Callable[[int, int], object],
) -> list[Path]:
    """Pictures of clips that lie evenly among all."""
    chosen = spread_places(pictures, len(clips))
    drawn = []
    for done, index in enumerate(chosen):
        report_progress(done, len(chosen))
        clip = clips[index]
        out = _passing(model, [clip], rate, output_token_trace=True)()
        label = f" ({clip.label})" if clip.label else ""
        picture = draw(
            clip.log_mel.numpy(),
            out.token_trace,
            model.config,
            model.activate(out.logits)[0].numpy(),
            f"{clip.path.name}{label}, keep rate {rate:g}",
            clip.num_frames,
            f"{done + 1}-{clip.path.stem}-keep-{rate:g}.png",
        )
        drawn.append(picture)
    report_progress(len(chosen), len(chosen))
    return drawn


def _accuracy(config: SpectrimConfig, clips: Sequence[DemoClip], first: NDArray[np.int64]) -> float | None:
    known = set(config.id2label.values())
    if any(clip.label is None or clip.label not in known for clip in clips):
        return None
    right = [config.id2label[int(index)] == clip.label for index, clip in zip(first, clips, strict=True)]
    return sum(right) / len(right)
