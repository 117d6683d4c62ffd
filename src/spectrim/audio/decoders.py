"""Two decoders behind one door: libsndfile (through soundfile) and FFmpeg (through PyAV), block by block.

Both give what is in a stretch of a file, and neither is believed about where it ends: what comes out has to be what the
file's structure says (`spectrim.audio.plan`).
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from spectrim.audio.plan import Content, Damage, Stretch, View

Samples = NDArray[np.float32]

LOWEST_RATE, HIGHEST_RATE = 100, 10_000_000
"""Sampling rates in hertz beyond which a header is taken to be damaged."""

BLOCK_SAMPLES = 1 << 15
"""Samples, over all channels, that are decoded at a time; with more, only memory grows."""

PLANNED = ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU", "CAF", "FLAC", "OGG", "MP3", "MPEG", "VOC", "NIST")
"""soundfile's names of the formats whose structure is read here before libsndfile sees them."""

GUESSED = "RAW"
"""soundfile's name of what has no header, which libsndfile takes for samples if its name ends in .vox, .gsm or .au."""

STAMPED = ("matroska", "mov")
"""FFmpeg's names of containers that give each packet its time."""

_UNKNOWN_FRAMES = 1 << 62


class Gaps:
    """Where the time stamps of a container leave sound out, which is heard as silence.

    A recorder does so whose connection pauses, and a video whose sound begins later than its picture.

    Attributes:
        lead: seconds of silence before the first sound.
        missing: seconds of silence between sounds.
        begins: the first time stamp, in seconds; 0 without any.
        behind: seconds by which the stamps are ahead of what was heard, pauses too short for silence.
    """

    LEAST = 0.1
    """Seconds; of less a container may be uncertain."""

    MOST = 3600.0
    """Seconds in all; of more it is likelier that a time stamp is damaged, and a small file would become days."""

    def __init__(self) -> None:
        self.lead = self.missing = self.begins = self.behind = 0.0
        self._first = self._before = 0.0
        self._origin: float | None = None

    def before(self, stamp: float, start: float, heard: float) -> float:
        """The seconds of silence that belong before a frame.

        Args:
            stamp: of the frame, in seconds.
            start: where the container begins, in seconds.
            heard: seconds so far, silence among them.

        Raises:
            Damage: they are more than an hour in all; or time runs backwards after silence, so that one of the stamps
                is wrong.
        """
        begun = self._origin is not None
        if self._origin is None:
            self.begins = stamp
            self._origin = start if stamp - start > self.LEAST else stamp
        silence = stamp - self._origin - heard
        if self.missing and stamp < self._before - self.LEAST:
            raise Damage(f"damaged: after {heard:.2f} s its time stamps go back by {self._before - stamp:.2f} s")
        self._before = stamp
        left_out = self.lead + self.missing + silence
        if left_out > self.MOST:
            raise Damage(
                f"damaged, or paused for long: after {heard:.2f} s its time stamps leave out {left_out:.0f} s in all, "
                f"and more than {self.MOST:.0f} s are not heard as silence; cut it at its pauses, and name the pieces"
            )
        self.behind = 0.0 if silence > self.LEAST else max(silence, 0.0)
        if silence <= self.LEAST:
            return 0.0
        if begun:
            self._first = self._first if self.missing else heard
            self.missing += silence
        else:
            self.lead = silence
        return silence

    def notes(self) -> list[str]:
        """A line for each kind of silence."""
        notes = []
        if self.lead:
            notes.append(f"its sound begins {self.lead:.2f} s into the recording: heard as silence")
        if self.missing:
            notes.append(
                f"its time stamps leave out {self.missing:.2f} s, first after {self._first:.2f} s: heard as silence"
            )
        return notes

    @property
    def counted(self) -> tuple[float, ...]:
        """Seconds by which a header may say another length than was heard.

        It leaves the lead out, or counts from 0; and it may count short pauses.
        """
        return tuple(each + behind for behind in (0.0, self.behind) for each in (0.0, -self.lead, self.begins))


def decoded(path: Path | None, content: Content, stretch: Stretch, gaps: Gaps) -> Generator[tuple[int, Samples]]:
    """Decode a stretch and make sure that all of it came.

    Args:
        path: of the file; None for one that is in ``content`` alone.
        content: all of the file.
        stretch: which of its bytes.
        gaps: is told the time stamps of a container that has them, and says how much silence they stand for.

    Yields:
        (sampling rate in hertz, block (n, channels) float32, full scale at ±1); n varies and is never 0.

    Raises:
        Damage: it cannot be decoded to its end, or holds more or less than its structure says.
    """
    if stretch.format is None:
        blocks = _by_sndfile(path, content, stretch)
    else:
        blocks = _joined(_by_ffmpeg(content, stretch, gaps))
    done, rate = 0, 0
    with closing(blocks):
        for rate, block in blocks:
            yield rate, block
            done += len(block)
    if done == 0:
        raise Damage("header only: there are no samples in it")
    if stretch.samples is None:
        return
    promised = stretch.samples if stretch.rate is None else stretch.samples * rate / stretch.rate
    slack = stretch.slack if stretch.rate is None else stretch.slack * rate / stretch.rate
    if any(abs(done + counted * rate - promised) <= slack for counted in gaps.counted):
        return
    if done < promised - slack:
        raise Damage(f"truncated or damaged: it names {promised / rate:.4f} s, but only {done / rate:.4f} s decode")
    raise Damage(f"damaged: it names {promised / rate:.4f} s, but {done / rate:.4f} s decode")


def check_rate(rate: int) -> None:
    """Refuse a rate that no sound has.

    Raises:
        Damage: it is out of range.
    """
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise Damage(f"sampling rate of {rate} Hz in its header: not audio")


def sndfile_name(path: Path) -> str | bytes:
    """A path as soundfile takes it, also where its name is not UTF-8."""
    return str(path) if sys.platform == "win32" else os.fsencode(path)


class _ForwardFile(soundfile.SoundFile):
    """A file that is read from front to back.

    soundfile seeks to where it already is after every read of a seekable file: of no use here, inexact for MP3
    and an error at the end of a FLAC whose header does not say how long it is.
    """

    def seekable(self) -> bool:
        return False


def _by_sndfile(path: Path | None, content: Content, stretch: Stretch) -> Generator[tuple[int, Samples]]:
    whole = stretch.start == 0 and stretch.end == len(content) and not stretch.patches
    try:
        file = _ForwardFile(sndfile_name(path) if whole and path is not None else View(content, stretch))
    except soundfile.LibsndfileError as error:
        raise Damage(f"cannot be read as audio: {_message(error)}") from error
    with file:
        if file.format == GUESSED:
            raise Damage("cannot be read as audio: format not recognised, or raw samples without a header")
        if stretch.samples is None and stretch == Stretch(0, len(content)) and file.format in PLANNED:
            raise Damage(f"damaged: it does not begin as {file.format} does")
        check_rate(file.samplerate)
        if file.frames == 0:
            raise Damage("header only: there are no samples in it")
        promised = file.frames if file.frames < _UNKNOWN_FRAMES else None
        frames, done = max(1, BLOCK_SAMPLES // file.channels), 0
        while True:
            try:
                block = file.read(frames, dtype="float32", always_2d=True)
            except soundfile.LibsndfileError as error:
                raise Damage(_stopped(done, file.samplerate, promised, _message(error))) from error
            if len(block) == 0:
                break
            done += len(block)
            yield file.samplerate, block
        if promised is not None and done < promised:
            spans = f"{promised / file.samplerate:.2f} s, {done / file.samplerate:.2f} s decode"
            raise Damage(f"truncated: the header promises {spans}")


def _joined(blocks: Generator[tuple[int, Samples]]) -> Generator[tuple[int, Samples]]:
    """Join short blocks of one rate to some of `BLOCK_SAMPLES`."""
    pieces: list[Samples] = []
    size, rate = 0, 0
    with closing(blocks):
        for rate, block in blocks:
            pieces.append(block)
            size += block.size
            if size >= BLOCK_SAMPLES:
                yield rate, np.concatenate(pieces)
                pieces, size = [], 0
    if pieces:
        yield rate, np.concatenate(pieces)


def _stopped(done: int, rate: int, promised: float | None, why: str) -> str:
    of_all = "" if promised is None else f" of {promised / rate:.2f} s"
    return f"truncated or damaged: decoding stops after {done / rate:.2f} s{of_all} ({why})"


def _message(error: soundfile.LibsndfileError) -> str:
    """libsndfile's own words, in a form that goes on after a colon; one of them misleads."""
    text = str(error.error_string).strip().removeprefix("Error : ").rstrip(".")
    if "possibly a pipe" in text:
        return "no whole block of audio in it"
    return text[:1].lower() + text[1:] or "it is not what it seems to be"


def _by_ffmpeg(content: Content, stretch: Stretch, gaps: Gaps) -> Generator[tuple[int, Samples]]:
    """FFmpeg sees only the bytes that it is given, under the name of one container: it opens nothing else."""
    import av

    av.logging.set_level(None)
    done, rate, channels, packets = 0, 0, 0, 0
    promised = None
    digest = hashlib.md5(usedforsecurity=False) if stretch.md5 else None
    try:
        with av.open(View(content, stretch), format=stretch.format, metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise Damage("has no sound: there is no audio stream in it")
            stream = container.streams.audio[0]
            if stream.codec_context is None:
                raise Damage("cannot be read as audio: FFmpeg does not know how it is coded")
            stream.thread_type = "NONE"
            start = (container.start_time or 0) / av.time_base
            if stretch.strict:
                stream.codec_context.options = {"err_detect": "crccheck+bitstream+buffer+explode"}
            for packet in container.demux(stream):
                packets += packet.size > 0
                if packet.is_corrupt:
                    raise Damage(_stopped(done, rate or 1, promised, "a packet is incomplete"))
                for frame in packet.decode():
                    if rate and (frame.sample_rate, frame.layout.nb_channels) != (rate, channels):
                        raise Damage(f"cannot be heard as one: after {done / rate:.2f} s its rate or channels change")
                    if not rate:
                        rate, channels = frame.sample_rate, frame.layout.nb_channels
                        check_rate(rate)
                        if stretch.samples is not None:
                            promised = stretch.samples * rate / (stretch.rate or rate)
                    if frame.is_corrupt:
                        raise Damage(_stopped(done, rate, promised, "a frame is damaged"))
                    if stretch.format in STAMPED and frame.time is not None:
                        silence = round(gaps.before(frame.time, start, done / rate) * rate)
                        done += silence
                        for block in _silence(silence, channels):
                            yield rate, block
                    values = _values(frame, channels)
                    if digest is not None:
                        digest.update(_as_flac_digests(values, stretch.bits))
                    if len(values):
                        yield rate, _as_float(values)
                    done += len(values)
    except av.FFmpegError as error:
        words = str(error.strerror or error).lower()
        if rate:
            raise Damage(_stopped(done, rate, promised, words)) from error
        raise Damage(f"cannot be read as audio: {words}") from error
    except (LookupError, ValueError, NotImplementedError, OverflowError) as error:
        raise Damage(f"cannot be read as audio: {error}") from error
    if stretch.packets is not None and packets != stretch.packets:
        raise Damage(f"truncated or damaged: its tables name {stretch.packets} packets, {packets} are there")
    if digest is not None and digest.digest() != stretch.md5 and done == (stretch.samples or done):
        raise Damage("damaged: its sound is not that of which its header holds the checksum")


def _silence(samples: int, channels: int) -> Iterator[Samples]:
    """So many samples of silence, in blocks."""
    while samples > 0:
        size = min(samples, max(1, BLOCK_SAMPLES // channels))
        yield np.zeros((size, channels), np.float32)
        samples -= size


def _values(frame: Any, channels: int) -> NDArray[Any]:
    """Samples of a frame (n, channels) in the decoder's own type."""
    values: NDArray[Any] = frame.to_ndarray()
    return values.T if frame.format.is_planar else values.reshape(-1, channels)


def _as_float(values: NDArray[Any]) -> Samples:
    """Full scale to ±1, as libsndfile does."""
    if values.dtype == np.uint8:
        return (values.astype(np.float32) - 128) / np.float32(128)
    if values.dtype.kind == "i":
        return values.astype(np.float32) / np.float32(2.0 ** (8 * values.dtype.itemsize - 1))
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _as_flac_digests(values: NDArray[Any], bits: int) -> bytes:
    """The bytes of which FLAC makes its MD5: interleaved, little endian, in as few whole bytes as the samples need."""
    width = (bits + 7) // 8
    whole = np.ascontiguousarray(values >> (8 * values.dtype.itemsize - bits)).astype("<i4")
    return np.ascontiguousarray(whole.view(np.uint8).reshape(-1, 4)[:, :width]).tobytes()
