"""Short clips in every format that is read, made by soundfile and by FFmpeg's encoders in PyAV."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile
from numpy.typing import NDArray


def sound(seconds: float, rate: int, channels: int = 1, seed: int = 0) -> NDArray[np.float32]:
    """A tone in noise, (samples, channels)."""
    random = np.random.default_rng(seed)
    count = round(seconds * rate)
    tone = 0.4 * np.sin(2 * np.pi * 440 * np.arange(count) / rate)
    return (tone[:, None] + 0.05 * random.standard_normal((count, channels))).astype(np.float32)


def by_soundfile(path: Path, seconds: float, rate: int, channels: int = 1, seed: int = 0, **options: str) -> Path:
    """Write a clip with libsndfile."""
    soundfile.write(path, sound(seconds, rate, channels, seed), rate, **options)
    return path


def by_ffmpeg(
    path: Path,
    seconds: float,
    rate: int,
    channels: int = 1,
    seed: int = 0,
    *,
    codec: str,
    container: str | None = None,
    bit_rate: int | None = None,
    options: dict[str, str] | None = None,
    codec_options: dict[str, str] | None = None,
) -> Path:
    """Write a clip with one of FFmpeg's encoders."""
    samples = sound(seconds, rate, channels, seed)
    layout = {1: "mono", 2: "stereo"}[channels]
    with av.open(str(path), "w", format=container, options=options or {}) as file:
        stream: Any = file.add_stream(codec, rate=rate)
        stream.layout = layout
        if bit_rate is not None:
            stream.bit_rate = bit_rate
        stream.options = codec_options or {}
        whole = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T), format="fltp", layout=layout)
        whole.sample_rate, whole.pts, whole.time_base = rate, 0, Fraction(1, rate)
        resampler = av.AudioResampler(format=stream.codec_context.format, layout=layout, rate=rate)
        for frame in [*resampler.resample(whole), *resampler.resample(None)]:
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


def bw64(path: Path, seconds: float, rate: int, channels: int = 1, seed: int = 0) -> Path:
    """BW64 is RF64 by another name."""
    by_soundfile(path, seconds, rate, channels, seed, format="RF64", subtype="PCM_16")
    path.write_bytes(b"BW64" + path.read_bytes()[4:])
    return path


Maker = Callable[..., Path]


def _sf(**options: str) -> tuple[Maker, dict[str, Any]]:
    return by_soundfile, options


def _ff(codec: str, **options: Any) -> tuple[Maker, dict[str, Any]]:
    return by_ffmpeg, {"codec": codec, **options}


FORMATS: dict[str, tuple[Maker, dict[str, Any]]] = {
    "pcm16.wav": _sf(subtype="PCM_16"),
    "float.wav": _sf(subtype="FLOAT"),
    "adpcm.wav": _sf(subtype="IMA_ADPCM"),
    "mp3.wav": _ff("libmp3lame"),
    "pcm16.rf64": _sf(format="RF64", subtype="PCM_16"),
    "pcm16.bw64": (bw64, {}),
    "pcm16.w64": _sf(subtype="PCM_16"),
    "pcm16.caf": _sf(subtype="PCM_16"),
    "alac.caf": _sf(subtype="ALAC_16"),
    "pcm16.aiff": _sf(subtype="PCM_16"),
    "pcm16.au": _sf(subtype="PCM_16"),
    "pcm16.nist": _sf(subtype="PCM_16"),
    "pcm16.voc": _sf(subtype="PCM_16"),
    "pcm16.flac": _sf(subtype="PCM_16"),
    "pcm24.flac": _sf(subtype="PCM_24"),
    "ffmpeg.flac": _ff("flac"),
    "vorbis.ogg": _sf(subtype="VORBIS"),
    "ffmpeg.ogg": _ff("vorbis", channels=2, codec_options={"strict": "-2"}),
    "opus.opus": _sf(format="OGG", subtype="OPUS"),
    "ffmpeg.opus": _ff("libopus", container="opus", options={"page_duration": "200000"}),
    "flac.oga": _ff("flac", container="ogg", options={"page_duration": "200000"}),
    "lame.mp3": _sf(),
    "ffmpeg.mp3": _ff("libmp3lame"),
    "no_xing.mp3": _ff("libmp3lame", options={"write_xing": "0", "id3v2_version": "0"}),
    "vbr_no_xing.mp3": _ff("libmp3lame", options={"write_xing": "0"}, codec_options={"compression_level": "5"}),
    "layer2.mp2": _ff("mp2"),
    "aac.m4a": _ff("aac"),
    "alac.m4a": _ff("alac"),
    "fragments.mp4": _ff("aac", options={"movflags": "frag_keyframe+empty_moov", "frag_duration": "300000"}),
    "amr.3gp": _ff("libopencore_amrnb", bit_rate=12200),
    "opus.webm": _ff("libopus"),
    "vorbis.webm": _ff("vorbis", channels=2, codec_options={"strict": "-2"}),
    "aac.mka": _ff("aac"),
    "aac.aac": _ff("aac", container="adts"),
    "wma.wma": _ff("wmav2", bit_rate=48000),
    "amr.amr": _ff("libopencore_amrnb", bit_rate=12200),
    "ac3.ac3": _ff("ac3"),
    "eac3.eac3": _ff("eac3"),
}
"""Name of a clip → what makes it, and how."""

RATES = {"mp3.wav": 44100, "amr": 8000, "ac3": 44100, "eac3": 44100, "opus": 48000, "wma": 44100, "layer2": 44100}
"""First word of a name, or a name → the rate that its encoder takes; 22,050 Hz for all others."""


def rate_of(name: str) -> int:
    """The rate that a clip of `FORMATS` is made at, in hertz."""
    kind = name.split(".")
    found = RATES.get(name) or RATES.get(kind[0]) or RATES.get(kind[1])
    return found or (44100 if kind[1] == "mp3" else 22050)


def make(name: str, folder: Path, seconds: float = 1.5, seed: int = 0, called: str | None = None) -> Path:
    """Make a clip of `FORMATS` in a folder."""
    maker, options = FORMATS[name]
    return maker(folder / (called or name), seconds, rate_of(name), seed=seed, **options)
