"""Tag a user's own clips at several keep rates: agreement with the dense model, and time from file to labels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from spectrim.audio.finding import STDIN, Paths, Selection, as_paths, select_files
from spectrim.data.dataset import spread_places
from spectrim.errors import AudioError, InvalidSetting
from spectrim.inference.backend import Backend
from spectrim.inference.opening import ModelSource, open_model
from spectrim.inference.predict import BATCH_SIZE
from spectrim.inference.results import Scores
from spectrim.machine import default_workers
from spectrim.measure.agreement import THRESHOLD, agreement
from spectrim.measure.benchmark import check_draws, rates_of, spread
from spectrim.measure.metric_intervals import standings
from spectrim.measure.metrics import chance_level
from spectrim.measure.runs import unequal_to_random
from spectrim.measure.timed_passes import INPUT, READ, Progress, Readable, TimedPasses
from spectrim.network.macs import macs
from spectrim.pruning.pruning import Pruning
from spectrim.stats.ground import ABOVE_CHANCE, CANNOT_SAY, beats

PASSES = 3
RANDOM = "random"
"""The criterion that knows nothing, and the reducer that any criterion goes with."""


@dataclass(frozen=True)
class Comparison:
    """What was found.

    Attributes:
        rows: one a keep rate, in their order: keep_rate, paper_macs and executed_macs (of a window); what
            `spectrim.measure.agreement.agreement` gives, where the model can run dense; with draws, where it prunes by
            a ranking: random_agreement, the same share for random pruning, over_random, how much more the ranking has,
            with over_random_low and over_random_high, against_random ("better", "worse", "no better" or "cannot say")
            and why_random; files_ms (from file to labels,
            of a clip: the median of the passes), files_q1_ms, files_q3_ms, files_per_second, files_speed_up (against
            the first keep rate), and read_share (of that time, what reading alone takes).
        facts: clips, windows and audio_seconds that were heard, unreadable files, passes, batch_size, workers;
            threshold of a multi-label model; dense_precision, where a model in another one was given to compare with;
            read_ms and input_ms (of a clip: reading alone, and reading with the front end); start_seconds (until the
            first window is there, mostly the start of the decoding processes, which is in none of the times).
        errors: files, folders and patterns that could not be used.
    """

    rows: list[dict[str, Any]]
    facts: dict[str, Any]
    errors: list[AudioError] = field(default_factory=list)


def choose_clips(paths: Paths, limit: int | None = None) -> Selection:
    """Find the files that are meant, as `spectrim.audio.finding.select_files` does.

    Args:
        paths: files, folders, patterns; one, or several.
        limit: at most so many files, evenly spread over all that are found; None for all.

    Raises:
        InvalidSetting: ``limit`` is below 1, a path does not exist, or there is not one file.
    """
    if limit is not None and limit < 1:
        raise InvalidSetting("limit", limit, "1 or more")
    names = as_paths(paths, "clips")
    for path in names:
        if path != STDIN and not os.path.lexists(path) and not any(letter in path for letter in "*?["):
            raise InvalidSetting("clips", path, "a folder, file or pattern that is there")
    selection = select_files(names)
    if limit is None:
        return selection
    chosen = [selection.files[place] for place in spread_places(limit, len(selection.files))]
    return Selection(chosen, selection.errors)


def compare(
    clips: Selection | Paths,
    model: ModelSource,
    keep_rates: Iterable[float] | None = None,
    *,
    dense: ModelSource | None = None,
    passes: int = PASSES,
    draws: int = 0,
    batch_size: int = BATCH_SIZE,
    device: str = "cpu",
    workers: int | None = None,
    threshold: float = THRESHOLD,
    on_error: Callable[[AudioError], object] | None = None,
    on_progress: Progress | None = None,
) -> Comparison:
    """Tag clips at several keep rates as `spectrim.predict` does, compare the scores and time it.

    A first pass only decodes: it finds what cannot be read, and has the system cache the files. Its first batch then
    goes through the model once at each keep rate, untimed. After that the keep rates take turns with two further cases,
    decoding alone and decoding with the front end, so that what else the machine does hits all alike. Times begin with
    the first window that a pass decodes. What is held in memory is a few batches, and the scores of every clip at every
    keep rate.

    Args:
        clips: what `choose_clips` gave, or what it takes.
        model: what `spectrim.inference.opening.open_model` takes; stays as it is, and is measured in its frozen form.
            An exported one is timed at its own keep rate and, without ``dense``, compared with nothing: the dense model
            is not in its file.
        keep_rates: in (0, 1]; None as `spectrim.measure.benchmark.rates_of` says. If 1 is not among them, one more pass
            at 1 gives what to compare with.
        dense: what to compare with in its place, at keep rate 1 in one more pass that is not timed: the same model in
            another precision.
        passes: timed passes over all clips at each keep rate.
        draws: tables of random scores, two at least, by which the clips are tagged too at each keep rate, untimed: does
            the model's own ranking agree with the dense model more often than none? 0 for none.
        batch_size: windows in one forward pass.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.
        workers: decoding processes; None for a few.
        threshold: score from which a multi-label model's label counts as given.
        on_error: called with each file, folder or pattern that cannot be used, as it is found.
        on_progress: is told how far it is.

    Raises:
        InvalidSetting: a setting is out of range, or there is not one file; before any work.
        AudioError: a file could be read at first, but not later.
        SpectrimError: no file can be read, or a score is NaN or infinite.
    """
    _check(passes, batch_size, workers, threshold, draws)
    backend = open_model(model, device=device)
    beside = None if dense is None else open_model(dense, 1.0, device=device)
    rates = rates_of(backend, keep_rates)
    _check_labels(backend, beside)
    selection = clips if isinstance(clips, Selection) else choose_clips(clips)
    timed = TimedPasses(backend.frozen(), batch_size, workers, on_progress)
    readable, errors = timed.read_first(selection, on_error)
    timed.warm_up(readable.first_batch, rates)
    points = _random_points(backend, rates, draws)
    dense_scores, scores, times = timed.take_turns(readable.files, rates, passes, beside, points)
    per_clip = {case: spread([each.working / len(readable.files) for each in times[case]]) for case in times}
    rows = []
    for rate in rates:
        agreed = _agreement(dense_scores, scores[rate], backend, threshold, itself=rate == 1.0 and dense is None)
        if dense_scores is not None and rate in points:
            agreed |= _against_random(backend.pruning, dense_scores, scores[rate], timed.at_random[rate])
        rows.append(_costs(backend, rate) | agreed | _timing(per_clip[rate], per_clip[rates[0]], per_clip[READ]))
    facts = _facts(readable, per_clip, [each.starting for passes_of_case in times.values() for each in passes_of_case])
    used_workers = min(workers or default_workers(), len(readable.files))
    facts |= {"unreadable": len(errors), "passes": passes, "batch_size": batch_size, "workers": used_workers}
    return Comparison(rows, facts | _compared_with(backend, beside, threshold), errors)


def _random_points(model: Backend, rates: Sequence[float | None], draws: int) -> dict[float | None, list[Pruning]]:
    """Keep rate → the model's operating points there that rank at random; none for a model that does so anyway."""
    if not draws or model.pruning.criterion == RANDOM:
        return {}
    return {
        rate: [model.pruning.at_random(seed).changed({"keep_rate": rate}) for seed in range(draws)]
        for rate in rates
        if rate is not None and rate < 1.0
    }


def _against_random(own: Pruning, dense: Scores, ranked: Scores, draws: Sequence[Scores]) -> dict[str, Any]:
    """Whether a model's own pruning agrees with the dense model's best label more often than random pruning does."""
    targets = np.eye(dense.shape[1], dtype=np.float32)[dense.argmax(axis=1)]
    whole, random, found = standings([[dense], draws, [ranked]], targets, "accuracy", (0, 0, 1))
    said, why = beats(found.over, len(targets), whole.value, 0.0)
    if chance_level(targets, "accuracy") > 1 - ABOVE_CHANCE:
        said, why = CANNOT_SAY, "the dense model gives nearly all of these clips the same best label"
    if reason := unequal_to_random(own):
        said, why = CANNOT_SAY, reason
    beside = {"against_random": said, "why_random": why}
    return {"random_agreement": random.value.value, **found.over.columns("over_random"), **beside}


def _compared_with(model: Backend, dense: Backend | None, threshold: float) -> dict[str, Any]:
    """Facts about the comparison with the dense model, as far as they apply."""
    facts: dict[str, Any] = {"threshold": threshold} if model.config.multi_label else {}
    return facts if dense is None else facts | {"dense_precision": dense.precision}


def _costs(model: Backend, rate: float | None) -> dict[str, Any]:
    """Keep rate and MACs of a row."""
    point = model.at(keep_rate=rate).pruning
    count = macs(model.config, pruning=point)
    return {"keep_rate": point.keep_rate, "paper_macs": count.paper, "executed_macs": count.executed}


def _agreement(
    dense_scores: Scores | None, scores: Scores, model: Backend, threshold: float, *, itself: bool
) -> dict[str, float | int | None]:
    """The columns of a row that are about agreement; none where there is nothing to compare with."""
    if dense_scores is None:
        return {}
    return agreement(dense_scores, scores, model.config, threshold=threshold, itself=itself)


def _check(passes: int, batch_size: int, workers: int | None, threshold: float, draws: int) -> None:
    """Raise `InvalidSetting` for what is out of range."""
    check_draws(draws)
    for name, value in (("passes", passes), ("batch_size", batch_size), ("workers", workers)):
        if value is not None and value < 1:
            raise InvalidSetting(name, value, "1 or more")
    if not 0 < threshold < 1:
        raise InvalidSetting("threshold", threshold, "a number between 0 and 1")


def _check_labels(model: Backend, dense: Backend | None) -> None:
    """Raise `InvalidSetting` where the scores of the two models are not of the same labels."""
    if dense is not None and dense.config.id2label != model.config.id2label:
        raise InvalidSetting("dense", f"a model of {dense.config.num_labels} labels", "one with the same labels")


def _timing(times: Mapping[str, float], base: Mapping[str, float], read: Mapping[str, float]) -> dict[str, float]:
    """The columns of a row that are about time."""
    return {
        "files_ms": times["median_ms"],
        "files_q1_ms": times["q1_ms"],
        "files_q3_ms": times["q3_ms"],
        "files_per_second": 1e3 / times["median_ms"],
        "files_speed_up": base["median_ms"] / times["median_ms"],
        "read_share": read["median_ms"] / times["median_ms"],
    }


def _facts(
    readable: Readable, per_clip: Mapping[Any, Mapping[str, float]], start_seconds: Sequence[float]
) -> dict[str, Any]:
    """What was tagged, and the times beside those of the keep rates."""
    return {
        "clips": len(readable.files),
        "windows": readable.windows,
        "audio_seconds": readable.seconds,
        "read_ms": per_clip[READ]["median_ms"],
        "input_ms": per_clip[INPUT]["median_ms"],
        "start_seconds": float(np.median(start_seconds)),
    }
