"""Audio files to mono float32 waveforms at one rate, whole or window by window in bounded memory.

Which bytes are decoded, by libsndfile or by FFmpeg, and how many samples there have to be comes from the file's own
structure (`spectrim.audio.kinds`); resampling is soxr's. Whatever is wrong with a file becomes an
`AudioError` whose reason is one plain line; a damaged file never yields a score made from half of it.
"""

from __future__ import annotations

import mmap
import numbers
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from spectrim.audio.decoders import Gaps, Samples, decoded
from spectrim.audio.kinds import plan_for
from spectrim.audio.members import Member, Source
from spectrim.audio.mixing import MixDown
from spectrim.audio.plan import Content, Damage, Plan
from spectrim.audio.remote import NO_FILE, local_copy
from spectrim.errors import AudioError, InvalidSetting

SAMPLING_RATE = 16000
"""Rate that every model here listens at, in hertz."""

FRAME_SECONDS = 0.025
"""Length of one analysis frame of the front end; audio shorter than this has no frame to score."""

READABLE = (
    *(".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc"),
    *(".au", ".snd", ".caf", ".w64", ".rf64", ".voc", ".nist", ".sph", ".bw64", ".bwf", ".mp2", ".mpga", ".spx"),
    *(".m4a", ".m4b", ".mp4", ".m4v", ".mov", ".3gp", ".3g2", ".mka", ".mkv", ".webm", ".weba", ".ogv", ".ogx"),
    *(".aac", ".adts", ".ac3", ".eac3", ".ec3", ".amr", ".awb", ".wma", ".wmv", ".asf"),
)
"""File names of what can be decoded."""

UNREADABLE = (".ape", ".wv", ".tta", ".mpc", ".dsf", ".dff", ".dts", ".ra", ".rm", ".avi", ".flv", ".shn")
"""File names of sound that is not decoded here. It is found all the same, so that its row says so."""

EXTENSIONS = READABLE + UNREADABLE
"""File names that a folder is searched for. A file that is named itself may be called anything."""


@dataclass(frozen=True)
class Waveform:
    """One decoded file.

    Attributes:
        samples: (n,) float32, mono, full scale at ±1.
        sampling_rate: of ``samples``, in hertz.
        source: the file it came from.
    """

    samples: Samples
    sampling_rate: int
    source: str

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sampling_rate


@dataclass(frozen=True)
class Window:
    """One stretch of a file.

    Attributes:
        start: where it begins in the file, in seconds.
        samples: (n,) float32, mono, full scale at ±1.
        sampling_rate: of ``samples``, in hertz.
        file_seconds: length of the file as `named_samples` gives it; None where that, or whether it matters, is not
            known.
    """

    start: float
    samples: Samples
    sampling_rate: int = SAMPLING_RATE
    file_seconds: float | None = None

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sampling_rate

    @property
    def end(self) -> float:
        """Where it ends in the file, in seconds."""
        return self.start + self.seconds


@dataclass(frozen=True)
class Note:
    """What a user ought to know of a file that was heard: one line, as of an error."""

    text: str


def read(path: Source, sampling_rate: int = SAMPLING_RATE) -> Waveform:
    """Decode a whole file.

    Args:
        path: any file that libsndfile or FFmpeg reads (wav, flac, ogg, mp3, m4a, webm, ...), of any rate, channel count
            and sample width, by itself or as a member of an archive; channels are averaged.
        sampling_rate: of the result, in hertz.

    Raises:
        AudioError: see `stream`.
    """
    return Waveform(np.concatenate(list(stream(path, sampling_rate))), sampling_rate, str(path))


def stream(path: Source, sampling_rate: int = SAMPLING_RATE, notes: list[str] | None = None) -> Iterator[Samples]:
    """Decode a file block by block; the blocks, joined, are what `read` returns, to the bit.

    Args:
        path: as for `read`.
        sampling_rate: of the result, in hertz.
        notes: gets a line for everything that a user ought to know of a file that is heard all the same; complete
            when the last block is out.

    Yields:
        (n,) float32, mono, at ``sampling_rate``; n varies and is never 0.

    Raises:
        AudioError: the file is missing, not a regular file, unreadable, empty, not audio, header-only, shorter
            than one frame, truncated (less is in it than its header promises), damaged, or holds NaN or
            infinite samples. What is found only while decoding is raised after the blocks before it.
    """
    source = str(path)
    total = 0
    for block in resampled(mono_blocks(path, notes), sampling_rate):
        total += len(block)
        yield block
    if total < frame_samples(sampling_rate):
        reason = f"too short: {1000 * total / sampling_rate:.4g} ms, shorter than one frame of 25 ms"
        raise AudioError(source, reason)


def own_rate(path: Source) -> int:
    """The sampling rate of a file's first block, in hertz.

    Raises:
        AudioError: as `stream`, as far as it was decoded.
    """
    with closing(mono_blocks(path)) as blocks:
        for rate, _ in blocks:
            return rate
    raise AudioError(str(path), "header only: there are no samples in it")


def named_samples(path: Source, sampling_rate: int = SAMPLING_RATE) -> int | None:
    """How long a file's structure says it is, in samples at a rate; None where it does not say.

    Nothing is decoded, so the file may yet turn out to be damaged.
    """
    total = 0
    try:
        with _planned(path) as (_, plan):
            for stretch in plan.stretches:
                if stretch.samples is None or not stretch.rate or stretch.late:
                    return None
                total += int(stretch.samples * sampling_rate / stretch.rate)
    except (AudioError, Damage, OSError):
        return None
    return total


def iterate_windows(
    path: Source,
    window_seconds: float,
    hop_seconds: float | None = None,
    sampling_rate: int = SAMPLING_RATE,
    notes: list[str] | None = None,
) -> Iterator[Window]:
    """Cut a file into windows while decoding it, holding about one window and one block at a time.

    Window k starts at k·hop. The first always exists. A later one exists if it brings audio that no earlier
    window covers and has at least one frame (25 ms) left; the last is as short as what is left. So a file of
    exactly one window gives exactly one, and less than a frame beyond a window is left out.

    Args:
        path: as for `read`.
        window_seconds: longest window, at least one frame.
        hop_seconds: from the start of a window to the next; ``window_seconds`` unless given. Longer than a
            window, it leaves out what lies between, and a note says how much.
        sampling_rate: of the windows, in hertz.
        notes: as for `stream`.

    Raises:
        AudioError: as `stream`; what is wrong far into a file is raised after the windows before it.
        InvalidSetting: a window shorter than one frame, or a hop that is not positive.
    """
    window, hop = window_samples(window_seconds, hop_seconds, sampling_rate)
    blocks = stream(path, sampling_rate, notes)
    for start, samples in cut(blocks, window, hop, frame_samples(sampling_rate), notes):
        yield Window(start / sampling_rate, samples, sampling_rate)


def windows_and_notes(path: Source, **options: Any) -> Iterator[Window | Note]:
    """The windows of a file, then what is to be said of it; arguments and errors as `iterate_windows`.

    From the second window on they know how long the file is. A URL is fetched into a temporary file first.
    """
    notes: list[str] = []
    seconds = None
    with nullcontext(path) if isinstance(path, Member) else local_copy(path) as file:
        try:
            for number, window in enumerate(iterate_windows(file, **options, notes=notes)):
                if number == 1 and (samples := named_samples(file, window.sampling_rate)) is not None:
                    seconds = samples / window.sampling_rate
                yield replace(window, file_seconds=seconds)
        except AudioError as error:
            raise AudioError(str(path), error.reason) from error
    yield from map(Note, notes)


def window_samples(
    window_seconds: float, hop_seconds: float | None = None, sampling_rate: int = SAMPLING_RATE
) -> tuple[int, int]:
    """Turn window and hop into samples, and refuse what cannot be meant.

    Raises:
        InvalidSetting: a window shorter than one frame, a hop that is not positive, or one that is no number.
    """
    hop_seconds = window_seconds if hop_seconds is None else hop_seconds
    for field, seconds in (("window", window_seconds), ("hop", hop_seconds)):
        if isinstance(seconds, bool) or not isinstance(seconds, numbers.Real):
            raise InvalidSetting(field, seconds, "a number of seconds")
    if not FRAME_SECONDS <= window_seconds < float("inf"):
        raise InvalidSetting("window", window_seconds, f"seconds, at least one frame of {FRAME_SECONDS}")
    if not 0 < hop_seconds < float("inf") or round(hop_seconds * sampling_rate) < 1:
        raise InvalidSetting("hop", hop_seconds, "a positive number of seconds")
    return round(window_seconds * sampling_rate), round(hop_seconds * sampling_rate)


def resampled(blocks: Iterable[tuple[int, Samples]], sampling_rate: int) -> Iterator[Samples]:
    """Bring blocks (rate, (n,)) of float32 to one rate; where the rate changes, what came before is finished first."""
    resampler, at_rate = None, 0
    for rate, block in blocks:
        if rate != at_rate:
            if resampler is not None:
                yield from _not_empty(resampler.resample_chunk(np.zeros(0, np.float32), last=True))
            at_rate, resampler = rate, None
            if rate != sampling_rate:
                resampler = soxr.ResampleStream(rate, sampling_rate, 1, dtype="float32")
        yield from _not_empty(block if resampler is None else resampler.resample_chunk(block))
    if resampler is not None:
        yield from _not_empty(resampler.resample_chunk(np.zeros(0, np.float32), last=True))


def cut(
    blocks: Iterable[Samples], window: int, hop: int, shortest: int = 1, notes: list[str] | None = None
) -> Iterator[tuple[int, Samples]]:
    """Cut a stream of blocks into windows by the rule of `iterate_windows`, and note it; all lengths in samples.

    Yields:
        (start, samples): samples (n,), n = ``window`` for all but the last.
    """
    pieces: list[Samples] = []
    at, end, start = 0, 0, 0
    for block in blocks:
        pieces.append(block)
        end += len(block)
        if end < start + window:
            continue
        buffer = np.concatenate(pieces)
        while end >= start + window:
            yield start, buffer[start - at : start - at + window].copy()
            start += hop
        pieces = [buffer[start - at :].copy()]
        at = min(start, end)
    covered, heard = start - hop + window if start else 0, start // hop * window
    if end - start >= shortest and end > covered:
        yield start, np.concatenate(pieces)[start - at :]
        heard += end - start
    if notes is not None and hop > window and end - heard >= shortest:
        notes.append(f"its windows lie apart, as hop says: {(end - heard) / end:.1%} of it was not heard")


def frame_samples(sampling_rate: int = SAMPLING_RATE) -> int:
    """Samples in one frame of the front end."""
    return round(FRAME_SECONDS * sampling_rate)


def _not_empty(block: Samples) -> Iterator[Samples]:
    if len(block):
        yield block


@contextmanager
def _planned(source: Source) -> Iterator[tuple[Content, Plan]]:
    """A file's content, mapped, and how it is to be heard; a member of an archive is held in memory.

    Raises:
        AudioError: the operating system or the name says that it cannot be.
        Damage: its structure says so.
    """
    if isinstance(source, Member):
        held = source.content()
        yield held, plan_for(held, len(held), Path(source.name).suffix.lower())
        return
    path = Path(source)
    _check_file(path)
    if path.suffix.lower() == ".raw":
        raise AudioError(str(path), "raw samples without a header: rate and format are unknown; convert it to wav")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        yield content, plan_for(content, len(content), path.suffix.lower())


def mono_blocks(path: Source, notes: list[str] | None = None) -> Generator[tuple[int, Samples]]:
    """Decode a file at its own rate.

    Args:
        path: as for `read`.
        notes: as for `stream`.

    Yields:
        (sampling rate in hertz, (n,) float32 mono); n varies and is never 0.

    Raises:
        AudioError: as `stream`, but for files that are shorter than a frame.
    """
    source, file = str(path), None if isinstance(path, Member) else Path(path)
    mix, gaps, rate = MixDown(source), Gaps(), 0
    try:
        with _planned(path) as (content, plan):
            for stretch in plan.stretches:
                with closing(decoded(file, content, stretch, gaps)) as blocks:
                    for rate, block in blocks:
                        yield rate, mix(block, rate)
    except Damage as damage:
        raise AudioError(source, str(damage)) from damage
    except OSError as error:
        raise AudioError(source, f"cannot be opened: {error.strerror or error}") from error
    if notes is not None:
        notes += [*plan.notes, *gaps.notes(), *mix.notes(rate)]


def _check_file(path: Path) -> None:
    """Name what the operating system knows to be wrong; decoders' words for these mislead."""
    source = str(path)
    try:
        if path.is_dir():
            raise AudioError(source, "is a folder, not a file")
        if path.exists() and not path.is_file():
            raise AudioError(source, "is not a regular file")
        with path.open("rb") as file:
            if not file.read(1):
                raise AudioError(source, "empty file (0 bytes)")
    except FileNotFoundError as error:
        raise AudioError(source, NO_FILE) from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AudioError(source, f"cannot be opened: {reason}") from error
