"""Audio files to labels: batches across files, windows of long files, and an error instead of a score for a bad one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from functools import partial
from itertools import islice

from spectrim.audio.decoding import LOOK_AHEAD, Event, decode_files
from spectrim.audio.files import Note, Samples, Window, window_samples, windows_and_notes
from spectrim.audio.finding import Paths, Selection, select_files
from spectrim.errors import InvalidSetting
from spectrim.inference.backend import Backend, KeepRate
from spectrim.inference.choosing import Clips
from spectrim.inference.opening import ModelSource, open_model
from spectrim.inference.results import FilePrediction
from spectrim.inference.tagger import Paint, ScoreStore, Tagger

BATCH_SIZE = 16


def predict_files(
    paths: Paths | Selection,
    model: ModelSource = "spectrim-mini",
    *,
    keep_rate: KeepRate | None = None,
    batch_size: int = BATCH_SIZE,
    device: str = "auto",
    backend: str | None = None,
    precision: str | None = None,
    window: float | None = None,
    hop: float | None = None,
    aggregate: str = "mean",
    workers: int | None = None,
    paint: Paint | None = None,
    decode: Callable[..., Iterable[Window | Note]] = windows_and_notes,
    on_window: Callable[[Window], object] | None = None,
    store: ScoreStore | None = None,
) -> Generator[FilePrediction]:
    """Tag audio files.

    Every file is cut into windows (`spectrim.audio.files.iterate_windows`); the default window is what fills the
    model's frames (10.255 s for 1024, 1.295 s for 128), and the default hop lets every frame be heard once (10.24 s,
    1.28 s). Windows of many files share a batch. What is held in memory does not grow with the length of a file, apart
    from its scores.

    Args:
        paths: as for `spectrim.audio.finding.select_files`, or what it gave.
        model: what `open_model` takes: a name, a model, or a backend.
        keep_rate: share of the patches kept at each pruning block, in (0, 1]; None as the model says, which is the only
            choice for an exported one.
        batch_size: windows in one forward pass. It does not change scores beyond rounding.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``; a backend stays where it is with ``"auto"``.
        backend, precision: what runs the model, and in what numbers; as for `open_model`.
        window: length of a window in seconds, 0.025 to the default.
        hop: from one window's start to the next, in seconds; ``window`` where only that is given. With one that is
            longer than a window, the note of a prediction says how much lay between and was not heard.
        aggregate: ``"mean"`` (weighted by the windows' lengths), ``"max"`` or ``"none"``.
        workers: decoding processes; None for a few.
        paint: called with the file, each window of it and the window's scores, e.g. what
            `spectrim.explain.window_pictures.window_painter` makes.
        decode: what decodes a file; takes path, window_seconds, hop_seconds and sampling_rate.
        on_window: called with each window as it is decoded, before the model hears it.
        store: where scores are put down as they come, and what knows those of an earlier run, e.g. an
            `spectrim.inference.output_file.OutputFile`.

    Returns:
        One prediction a file, in the order of the selection, those of empty folders first. Ask for the next, or
        `close` the iterator: until then workers wait.

    Raises:
        InvalidSetting: a setting is out of range, or there is not one file; before any work.
        CheckpointError: the model cannot be loaded; likewise.
    """
    selection = paths if isinstance(paths, Selection) else select_files(paths)
    clips = first_windows(selection.files, window, hop)
    opened = open_model(model, keep_rate, precision, device, backend, clips=clips)
    tagger = Tagger(opened, batch_size, aggregate, paint, store=store)
    events = decoded_windows(
        selection.files, opened, window=window, hop=hop, batch_size=batch_size, workers=workers, decode=decode
    )
    return tag_selection(selection, events, tagger, on_window)


def decoded_windows(
    files: Sequence[str],
    model: Backend,
    *,
    window: float | None = None,
    hop: float | None = None,
    batch_size: int = BATCH_SIZE,
    workers: int | None = None,
    decode: Callable[..., Iterable[Window | Note]] = windows_and_notes,
) -> Generator[tuple[int, Event]]:
    """The windows that `predict` makes of files for a model, without running it; arguments and errors as there.

    Yields:
        As `spectrim.audio.decoding.decode_files`.
    """
    rate = model.config.sampling_rate
    length, distance = check_windows(model, window, hop)
    cutter = partial(decode, window_seconds=length, hop_seconds=distance, sampling_rate=rate)
    room = max(LOOK_AHEAD, 2 * batch_size * window_samples(length, distance, rate)[0])
    return decode_files(files, cutter, workers=workers, look_ahead=room)


def first_windows(files: Sequence[str], window: float | None = None, hop: float | None = None) -> Clips:
    """What gives the first windows of files to a check of backends; see `spectrim.inference.choosing.Clips`."""

    def clips(model: Backend, count: int) -> list[Samples]:
        events = decoded_windows(files[:count], model, window=window, hop=hop, workers=1)
        with closing(events):
            found = (event.samples for _, event in events if isinstance(event, Window))
            return list(islice(found, count))

    return clips


def check_windows(model: Backend, window: float | None = None, hop: float | None = None) -> tuple[float, float]:
    """Window and hop in seconds, with the model's own where they are not given.

    Raises:
        InvalidSetting: the window is longer than the model hears or shorter than a frame, the hop not positive, or
            one of them no number.
    """
    if hop is None:
        hop = model.hop_seconds if window is None else window
    length = model.window_seconds if window is None else window
    window_samples(length, hop, model.config.sampling_rate)
    if length > model.window_seconds:
        allowed = f"up to {model.window_seconds:g} seconds, the {model.config.max_length} frames of this model"
        raise InvalidSetting("window", window, allowed)
    return length, hop


def tagged(
    events: Iterable[tuple[str, Event]], tagger: Tagger, on_window: Callable[[Window], object] | None = None
) -> Generator[FilePrediction]:
    """Predictions of sounds, each with its name, windows, notes and end, as `decoded_windows` gives them."""
    for name, event in events:
        if isinstance(event, Window) and on_window is not None:
            on_window(event)
        tagger.add(name, event)
        yield from tagger.ready()
    tagger.run()
    yield from tagger.ready()


def tag_selection(
    selection: Selection,
    events: Generator[tuple[int, Event]],
    tagger: Tagger,
    on_window: Callable[[Window], object] | None = None,
) -> Generator[FilePrediction]:
    """Predictions of a selection: what is wrong with it, then its files, whose ``events`` end with this generator."""
    with closing(events):
        for error in selection.errors:
            yield FilePrediction(error.source, tagger.labels, error=error.reason)
        yield from tagged(((selection.files[index], event) for index, event in events), tagger, on_window)
