"""Audio files to mono float32 waveforms at one rate, whole or window by window in bounded memory.

Decoding is libsndfile's (through soundfile), resampling is soxr's. Whatever is wrong with a file becomes an
`AudioError` whose reason is one plain line; a damaged file never yields a score made from half of it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from spectrim.errors import AudioError, InvalidSetting

SAMPLING_RATE = 16000
"""Rate that every model here listens at, in hertz."""

FRAME_SECONDS = 0.025
"""Length of one analysis frame of the front end; audio shorter than this has no frame to score."""

EXTENSIONS = (
    *(".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc"),
    *(".au", ".snd", ".caf", ".w64", ".rf64", ".voc", ".nist", ".sph"),
)
"""File names that a folder is searched for. A file that is named itself may be called anything."""

LOWEST_RATE, HIGHEST_RATE = 100, 10_000_000
"""Sampling rates in hertz beyond which a header is taken to be damaged."""

LARGEST_SAMPLE = 1e12
"""Full scale is 1; float samples beyond this are garbage, and would overflow a float32 power spectrum."""

BLOCK_SAMPLES = 1 << 15
"""Samples, over all channels, that are decoded at a time; with more, only memory grows."""

_UNKNOWN_FRAMES = 1 << 62
_CUT_CHUNK = re.compile(r"(?:^|\n)\s*(?:data|SSND|Data Size|riff|Riff size)\s*:\s*(\d+) \(should be (\d+)\)")

Samples = NDArray[np.float32]


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
    """

    start: float
    samples: Samples
    sampling_rate: int = SAMPLING_RATE

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


def read(path: str | Path, sampling_rate: int = SAMPLING_RATE) -> Waveform:
    """Decode a whole file.

    Args:
        path: any file that libsndfile reads (wav, flac, ogg, mp3, aiff, ...), of any rate, channel count and
            sample width; channels are averaged.
        sampling_rate: of the result, in hertz.

    Raises:
        AudioError: see `stream`.
    """
    return Waveform(np.concatenate(list(stream(path, sampling_rate))), sampling_rate, str(path))


def stream(path: str | Path, sampling_rate: int = SAMPLING_RATE, notes: list[str] | None = None) -> Iterator[Samples]:
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
    with _opened(Path(path)) as file:
        resampler = None
        if file.samplerate != sampling_rate:
            resampler = soxr.ResampleStream(file.samplerate, sampling_rate, 1, dtype="float32")
        for block in _decoded(file, source, [] if notes is None else notes):
            out = block if resampler is None else resampler.resample_chunk(block)
            total += len(out)
            if len(out):
                yield out
        if resampler is not None:
            out = resampler.resample_chunk(np.zeros(0, np.float32), last=True)
            total += len(out)
            if len(out):
                yield out
    if total < frame_samples(sampling_rate):
        reason = f"too short: {1000 * total / sampling_rate:.4g} ms, shorter than one frame of 25 ms"
        raise AudioError(source, reason)


def iterate_windows(
    path: str | Path,
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
            window, it leaves out what lies between.
        sampling_rate: of the windows, in hertz.
        notes: as for `stream`.

    Raises:
        AudioError: as `stream`; what is wrong far into a file is raised after the windows before it.
        InvalidSetting: a window shorter than one frame, or a hop that is not positive.
    """
    window, hop = window_samples(window_seconds, hop_seconds, sampling_rate)
    blocks = stream(path, sampling_rate, notes)
    for start, samples in cut(blocks, window, hop, shortest=frame_samples(sampling_rate)):
        yield Window(start / sampling_rate, samples, sampling_rate)


def windows_and_notes(path: str | Path, **options: Any) -> Iterator[Window | Note]:
    """The windows of a file, then what is to be said of it; arguments and errors as `iterate_windows`."""
    notes: list[str] = []
    yield from iterate_windows(path, **options, notes=notes)
    yield from map(Note, notes)


def window_samples(
    window_seconds: float, hop_seconds: float | None = None, sampling_rate: int = SAMPLING_RATE
) -> tuple[int, int]:
    """Turn window and hop into samples, and refuse what cannot be meant.

    Raises:
        InvalidSetting: a window shorter than one frame, or a hop that is not positive.
    """
    if not FRAME_SECONDS <= window_seconds < float("inf"):
        raise InvalidSetting("window", window_seconds, f"seconds, at least one frame of {FRAME_SECONDS}")
    hop_seconds = window_seconds if hop_seconds is None else hop_seconds
    if not 0 < hop_seconds < float("inf") or round(hop_seconds * sampling_rate) < 1:
        raise InvalidSetting("hop", hop_seconds, "a positive number of seconds")
    return round(window_seconds * sampling_rate), round(hop_seconds * sampling_rate)


def cut(blocks: Iterable[Samples], window: int, hop: int, shortest: int = 1) -> Iterator[tuple[int, Samples]]:
    """Cut a stream of blocks into windows by the rule of `iterate_windows`; all lengths in samples.

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
    covered = start - hop + window if start else 0
    if end - start >= shortest and end > covered:
        yield start, np.concatenate(pieces)[start - at :]


def frame_samples(sampling_rate: int = SAMPLING_RATE) -> int:
    """Samples in one frame of the front end."""
    return round(FRAME_SECONDS * sampling_rate)


class _ForwardFile(soundfile.SoundFile):
    """A file that is read from front to back.

    soundfile seeks to where it already is after every read of a seekable file: of no use here, inexact for MP3
    and an error at the end of a FLAC whose header does not say how long it is.
    """

    def seekable(self) -> bool:
        return False


@contextmanager
def _opened(path: Path) -> Iterator[_ForwardFile]:
    """Open an audio file, with everything that can be known from outside and from the header checked."""
    source = str(path)
    _check_file(path)
    if path.suffix.lower() == ".raw":
        raise AudioError(source, "raw samples without a header: rate and format are unknown; convert it to wav")
    try:
        file = _ForwardFile(path if sys.platform == "win32" else os.fsencode(path))
    except soundfile.LibsndfileError as error:
        raise AudioError(source, f"cannot be read as audio: {_message(error)}") from error
    with file:
        _check_header(file, source)
        if file.format == "NIST":
            _check_sphere(path, file.frames)
        yield file


def _check_file(path: Path) -> None:
    """Name what the operating system knows to be wrong; libsndfile's words for these mislead."""
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
        raise AudioError(source, "no such file") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise AudioError(source, f"cannot be opened: {reason}") from error


def _check_header(file: soundfile.SoundFile, source: str) -> None:
    log = file.extra_info
    for promised, present in ((int(a), int(b)) for a, b in _CUT_CHUNK.findall(log)):
        if promised > present and not _stands_for_unknown(promised):
            raise AudioError(source, f"truncated: the header promises {promised} bytes, {present} are there")
    if "Seems to be a truncated file" in log:
        raise AudioError(source, "truncated: its only block of sound is incomplete")
    if "Last page lacks an end-of-stream bit" in log and "Junk after the last page" in log:
        raise AudioError(source, "truncated: the last Ogg page is incomplete")
    if file.frames == 0:
        raise AudioError(source, "header only: there are no samples in it")
    if not LOWEST_RATE <= file.samplerate <= HIGHEST_RATE:
        raise AudioError(source, f"sampling rate of {file.samplerate} Hz in its header: not audio")


def _check_sphere(path: Path, frames: int) -> None:
    """Look up what a NIST SPHERE header promises: libsndfile trusts the file's size instead."""
    with path.open("rb") as file:
        found = re.search(rb"sample_count -i (\d+)", file.read(1024))
    if found and int(found[1]) > frames:
        raise AudioError(str(path), f"truncated: the header promises {int(found[1])} samples, {frames} are there")


def _stands_for_unknown(size: int) -> bool:
    """Whether a 32-bit chunk size is what recorders write into a pipe, where they cannot know it."""
    return 0x7FFF0000 <= size <= 0x80000100 or 0xFFFFFF00 <= size <= 0xFFFFFFFF


def _decoded(file: soundfile.SoundFile, source: str, notes: list[str]) -> Iterator[Samples]:
    """Yield mono blocks (n,) float32 at the file's own rate; the last ones may be wrong only by an error."""
    mix = MixDown()
    promised = file.frames if file.frames < _UNKNOWN_FRAMES else None
    rate = file.samplerate
    of_all = "" if promised is None else f" of {promised / rate:.2f} s"
    frames = max(1, BLOCK_SAMPLES // file.channels)
    done = 0
    while True:
        try:
            block = file.read(frames, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            reason = f"truncated or damaged: decoding stops after {done / rate:.2f} s{of_all} ({_message(error)})"
            raise AudioError(source, reason) from error
        if len(block) == 0:
            break
        _check_samples(block, done, rate, source)
        done += len(block)
        yield mix(block)
    notes += mix.notes(rate)
    if promised is not None and done < promised:
        raise AudioError(source, f"truncated: the header promises {promised / rate:.2f} s, {done / rate:.2f} s decode")
    if done == 0:
        raise AudioError(source, "header only: there are no samples in it")


class MixDown:
    """Averages channels, and knows for how long they cancelled out to exact zeros."""

    def __init__(self) -> None:
        self.samples = 0
        self.cancelled = 0

    def __call__(self, block: Samples) -> Samples:
        """Mono (n,) of a block (n, channels)."""
        self.samples += len(block)
        channels = block.shape[1]
        if channels == 1:
            return block[:, 0]
        mono: Samples = block @ np.full(channels, 1 / channels, np.float32)
        if not mono.any() and block.any():
            self.cancelled += len(block)
        return mono

    def notes(self, rate: int) -> list[str]:
        """A line, where channels cancelled out for the length of a block."""
        if not self.cancelled:
            return []
        spans = f"{self.cancelled / rate:.2f} of {self.samples / rate:.2f} s"
        return [f"its channels cancel out in the mix-down to mono, to exact zeros, for {spans}"]


def _check_samples(block: Samples, done: int, rate: int, source: str) -> None:
    """Refuse samples (n, channels) that are no sound; ``done`` frames came before them."""
    if not (block.min() >= -LARGEST_SAMPLE and block.max() <= LARGEST_SAMPLE):
        sane = (np.abs(block) <= LARGEST_SAMPLE).all(axis=1)
        frame = int(np.argmin(sane))
        kind = f"beyond ±{LARGEST_SAMPLE:g}" if np.isfinite(block[frame]).all() else "that is NaN or infinite"
        raise AudioError(source, f"has a sample {kind}, at {(done + frame) / rate:.3f} s")


def _message(error: soundfile.LibsndfileError) -> str:
    """libsndfile's own words, in a form that goes on after a colon; one of them misleads."""
    text = str(error.error_string).strip().removeprefix("Error : ").rstrip(".")
    if "possibly a pipe" in text:
        return "no whole block of audio in it"
    return text[:1].lower() + text[1:]
