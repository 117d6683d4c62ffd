"""Files that are cut, damaged, joined or unusual: heard whole, or refused with the reason.

The clips are made here, by libsndfile and by FFmpeg's encoders; lengths are known from how they were made, and FFmpeg's
decoder is asked where an encoder adds to them.
"""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import soundfile
from audio_clips import FORMATS, by_ffmpeg, by_soundfile, make, rate_of, sound
from hypothesis import given, settings
from hypothesis import strategies as st

from spectrim.audio import files as audio
from spectrim.audio.containers import ogg
from spectrim.audio.containers.chunks import UNCLOSED
from spectrim.audio.plan import Stretch, View
from spectrim.errors import AudioError

CASES = Path(__file__).parents[3] / "shared" / "cases"
EXACT = ("wav", "rf64", "bw64", "w64", "caf", "aiff", "au", "nist", "voc", "flac", "oga", "alac", "ogg", "opus", "lame")
PADDED = ("adpcm.wav", "mp3.wav", "ffmpeg.ogg", "vorbis.webm", "opus.webm")


def heard(path: Path) -> tuple[int, list[str]]:
    """Samples at the file's own rate, and notes."""
    notes: list[str] = []
    return sum(len(block) for _, block in audio.mono_blocks(path, notes)), notes


def refused(path: Path, data: bytes | None = None) -> str:
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(AudioError) as caught:
        list(audio.mono_blocks(path))
    assert caught.value.source == str(path)
    assert "\n" not in caught.value.reason and len(caught.value.reason) < 250
    return caught.value.reason


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def by_pyav(path: Path) -> int:
    with av.open(str(path)) as file:
        return sum(frame.samples for frame in file.decode(audio=0))


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_heard_whole(tmp_path: Path, name: str) -> None:
    path = make(name, tmp_path, 1.1)
    samples, notes = heard(path)
    made = round(1.1 * rate_of(name))
    assert notes == []
    if name not in PADDED and any(word in EXACT for word in name.split(".")):
        assert samples == made
    else:
        assert made - (1536 if name == "wma.wma" else 0) <= samples < made + 3 * 2048
        assert name == "ffmpeg.ogg" or samples == by_pyav(path)
    assert len(audio.read(path).samples) == pytest.approx(16000 * samples / rate_of(name), abs=2)


@pytest.mark.parametrize("name", FORMATS)
def test_cut_anywhere_is_refused_where_a_format_can_tell(tmp_path: Path, name: str) -> None:
    whole = make(name, tmp_path, 0.7).read_bytes()
    path = tmp_path / f"cut-{name}"
    few = (2, 3, 9) if name in ("mp3.wav", "alac.caf", "pcm16.voc") else (1, 2, 3, 9)  # a pad byte, a mark at the end
    for end in (*few, len(whole) // 3, len(whole) // 2, 9 * len(whole) // 10):
        refused(path, whole[:-end])


@pytest.mark.parametrize(
    "name", ["lame.mp3", "no_xing.mp3", "ffmpeg.mp3", "layer2.mp2", "mp3.wav", "vorbis.ogg", "pcm16.flac"]
)
def test_tags_around_the_sound_are_no_sound(tmp_path: Path, name: str) -> None:
    path = make(name, tmp_path)
    whole, expected = path.read_bytes(), heard(path)
    id3v1 = b"TAG" + b"a title".ljust(125, b"\0")
    items = b"\x07\0\0\0\0\0\0\0Artist\0someone"
    fields = struct.pack("<IIII", 2000, len(items) + 32, 1, 0) + bytes(8)
    ape = b"APETAGEX" + fields[:12] + struct.pack("<I", 0xA0000000) + bytes(8) + items
    ape += b"APETAGEX" + fields[:12] + struct.pack("<I", 0x80000000) + bytes(8)
    assert heard(written(path, whole + id3v1)) == expected
    assert heard(written(path, whole + ape + id3v1)) == expected
    if name.endswith(("mp3", "mp2")):
        picture = b"APIC" + struct.pack(">I", 3000) + bytes(2) + b"\xff\xfb\x90\0" * 750
        size = len(picture)
        cover = b"ID3\x03\0\0" + bytes([size >> 21 & 127, size >> 14 & 127, size >> 7 & 127, size & 127]) + picture
        assert heard(written(path, cover + whole)) == expected


# MPEG audio


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [16000, 22050, 44100])
@pytest.mark.parametrize("coding", [{"bit_rate": 64000}, {"codec_options": {"compression_level": "9"}}])
def test_mp3_without_a_length_is_counted(tmp_path: Path, rate: int, channels: int, coding: dict) -> None:
    path = tmp_path / "clip.mp3"
    by_ffmpeg(path, 2.3, rate, channels, codec="libmp3lame", options={"write_xing": "0"}, **coding)
    frame = 1152 if rate > 24000 else 576
    samples, notes = heard(path)
    assert (samples % frame, notes) == (0, [])
    assert 2.3 * rate <= samples < 2.3 * rate + 4 * frame
    assert samples == by_pyav(path)


@pytest.mark.parametrize("name", ["lame.mp3", "ffmpeg.mp3"])
def test_a_damaged_byte_in_the_xing_frame_changes_nothing_or_is_refused(tmp_path: Path, name: str) -> None:
    path = make(name, tmp_path, 0.5)
    whole, expected = path.read_bytes(), heard(path)
    start = max(whole.find(b"Info"), whole.find(b"Xing"))
    taken = 0
    for at in range(start - 25, start + 156):
        data = bytearray(whole)
        data[at] ^= 0x41
        path.write_bytes(data)
        try:
            found = heard(path)
        except AudioError:
            continue
        taken += 1
        assert found[0] in (expected[0], by_pyav(path)), at
    assert taken < 60


def test_mp3s_one_after_the_other_are_heard_whole(tmp_path: Path) -> None:
    first, second = make("lame.mp3", tmp_path, 0.9), make("no_xing.mp3", tmp_path, 0.6, seed=1)
    lengths = [heard(first)[0], heard(second)[0]]
    tagged = b"TAG" + bytes(125)
    path = tmp_path / "both.mp3"
    begun = make("ffmpeg.mp3", tmp_path, 0.9)
    assert heard(begun)[0] == lengths[0]
    samples, [note] = heard(written(path, begun.read_bytes() + second.read_bytes()))
    assert sum(lengths) <= samples < sum(lengths) + 2 * 1152
    assert note.startswith("more follows the ")
    tagged = heard(written(path, first.read_bytes() + tagged + second.read_bytes()))
    assert tagged == (sum(lengths), ["it is 2 streams one after the other; all were heard"])
    other = by_ffmpeg(tmp_path / "other.mp3", 0.5, 16000, codec="libmp3lame", options={"write_xing": "0"})
    joined = written(path, begun.read_bytes() + other.read_bytes())
    assert len(audio.read(joined).samples) == pytest.approx(16000 * (0.9 + heard(other)[0] / 16000), abs=4)


@pytest.mark.parametrize(("name", "trimmed"), [(b"LAME 3.88 (beta)".ljust(36, b"\0"), 529), (b"L3.99r   ", 0)])
def test_a_xing_frame_of_another_encoder_is_read_as_ffmpeg_reads_it(tmp_path: Path, name: bytes, trimmed: int) -> None:
    """LAME before 3.90 wrote no more than its name, and 3.99.1 another name, after which FFmpeg trims nothing."""
    path = make("lame.mp3", tmp_path, 2.0)
    data = path.read_bytes()
    xing = data.index(b"Xing")
    at, frames = data.index(b"LAME", xing), int.from_bytes(data[xing + 8 : xing + 12], "big")
    found, notes = heard(written(path, data[:at] + name + data[at + len(name) :]))
    assert (found, notes) == (1152 * frames // (1 + (rate_of("lame.mp3") < 32000)) - trimmed, [])


def test_mp3_frames_that_are_missing_or_no_frames(tmp_path: Path) -> None:
    path = make("no_xing.mp3", tmp_path)
    bare = path.read_bytes()
    assert "its last MPEG frame is incomplete" in refused(path, bare[:-100])
    middle = len(bare) // 2
    assert "should be an MPEG frame" in refused(path, bare[:middle] + bytes(5) + b"noise" + bare[middle + 400 :])
    assert "its beginning is missing" in refused(path, bare[700:])
    assert "its beginning is missing" in refused(path, bytes(700) + bare[700:])
    whole = make("lame.mp3", tmp_path)
    expected, lead = heard(whole)[0], b"left over by a careless editor"
    note = f"{len(lead)} bytes before its first whole MPEG frame are no sound"
    assert heard(written(path, lead + whole.read_bytes())) == (expected, [note])


# Ogg


@pytest.mark.parametrize("name", ["vorbis.ogg", "ffmpeg.ogg", "opus.opus", "ffmpeg.opus", "flac.oga"])
def test_ogg_that_lacks_anything_is_refused(tmp_path: Path, name: str) -> None:
    path = make(name, tmp_path, 2.0)
    whole = path.read_bytes()
    pages = list(ogg.pages(whole, len(whole)))
    for page in pages[:-1]:
        assert refused(path, whole[: page.end])
    for page in pages[1:-1]:
        assert "missing" in refused(path, whole[: page.start] + whole[page.end :])
    for at in np.random.default_rng(0).integers(len(whole), size=40):
        data = bytearray(whole)
        data[at] ^= 0x10
        refused(path, bytes(data))
    last = bytearray(whole[pages[-1].start :])
    last[5] &= ~ogg.LAST
    last[22:26] = struct.pack("<I", ogg.checksum(bytes(last)))
    assert "does not say that the stream ends there" in refused(path, whole[: pages[-1].start] + last)


def with_times(data: bytes, changed: Callable[[int], int], first: int = 0) -> bytes:
    """The pages from one on with other granule positions, and the checksums of these."""
    found = bytearray(data)
    for page in list(ogg.pages(data, len(data)))[first:]:
        found[page.start + 6 : page.start + 14] = struct.pack("<q", changed(page.granule))
        found[page.start + 22 : page.start + 26] = struct.pack("<I", ogg.checksum(bytes(found[page.start : page.end])))
    return bytes(found)


@pytest.mark.parametrize("place", ["last", "all"])
def test_pages_whose_times_lie_are_refused(tmp_path: Path, place: str) -> None:
    for name in ("vorbis.ogg", "opus.opus"):
        path = make(name, tmp_path, 2.0)
        data = with_times(path.read_bytes(), lambda granule: granule // 3, 2 if place == "all" else -1)
        assert "damaged: " in refused(path, data)


@pytest.mark.parametrize("name", ["vorbis.ogg", "ffmpeg.ogg", "opus.opus", "ffmpeg.opus", "flac.oga"])
def test_a_piece_of_a_longer_stream_is_heard_whole(tmp_path: Path, name: str) -> None:
    """RFC 7845, 4.3: of a broadcast that was joined late the first time is not 0."""
    path = make(name, tmp_path, 2.0)
    whole = audio.read(path).samples
    path.write_bytes(with_times(path.read_bytes(), lambda granule: granule + 48000 * 3600 if granule > 0 else granule))
    assert np.allclose(audio.read(path).samples, whole, atol=1e-6)


@pytest.mark.parametrize("block", [192, 4608, 4096, 16, 1000, 65535])
def test_frames_of_flac_are_counted_at_any_block_size(tmp_path: Path, block: int) -> None:
    options = {"frame_size": str(block), "strict": "-2"}
    made = by_ffmpeg(tmp_path / "a.oga", 3.0, 16000, codec="flac", container="ogg", codec_options=options)
    data = made.read_bytes()
    streams = ogg.plan(data, len(data)).stretches
    assert [stretch.samples for stretch in streams] == [48000]
    late = with_times(data, lambda granule: granule + 7 * 10**9 if granule > 0 else granule)
    assert [stretch.samples for stretch in ogg.plan(late, len(late)).stretches] == [48000]


@pytest.mark.parametrize("name", ["vorbis.ogg", "opus.opus", "flac.oga"])
def test_a_chain_is_heard_whole(tmp_path: Path, name: str) -> None:
    links = [
        make(name, tmp_path, seconds, seed=seed, called=f"{seed}-{name}")
        for seed, seconds in enumerate((0.6, 1.0, 0.3))
    ]
    for index, link in enumerate(links):
        data = link.read_bytes()
        serials = {page.serial for page in ogg.pages(data, len(data))}
        assert len(serials) == 1, index
    path = written(tmp_path / f"chain-{name}", b"".join(link.read_bytes() for link in links))
    assert heard(path) == (round(1.9 * rate_of(name)), ["it is a chain of 3 streams; all were heard"])
    assert refused(path, path.read_bytes()[:-1])
    mixed = written(tmp_path / "mixed.ogg", links[0].read_bytes() + make("opus.opus", tmp_path, 0.5).read_bytes())
    assert len(audio.read(mixed).samples) == pytest.approx(1.1 * 16000, abs=2)


# Sizes


def unclosed(name: str, data: bytes, size: int) -> bytes:
    """The file as a recorder leaves it that never came to write sizes."""
    ending = name.split(".")[1]
    if ending == "wav":
        at = data.find(b"data") + 4
        return (
            data[:4]
            + struct.pack("<I", size & 0xFFFFFFFF)
            + data[8:at]
            + struct.pack("<I", size & 0xFFFFFFFF)
            + data[at + 4 :]
        )
    if ending in ("rf64", "bw64"):
        at = data.find(b"ds64") + 8
        return data[:at] + struct.pack("<qqq", size, size, size) + data[at + 24 :]
    if ending == "w64":
        at = data.find(b"data\xf3\xac\xd3\x11") + 16
        return data[:at] + struct.pack("<q", size) + data[at + 8 :]
    if ending == "au":
        return data[:8] + struct.pack(">I", size & 0xFFFFFFFF) + data[12:]
    at = data.find(b"data") + 4
    return data[:at] + struct.pack(">q", size) + data[at + 8 :]


UNCLOSED_NAMES = ("pcm16.wav", "float.wav", "pcm16.rf64", "pcm16.bw64", "pcm16.w64", "pcm16.caf", "pcm16.au")


@pytest.mark.parametrize("name", UNCLOSED_NAMES)
@pytest.mark.parametrize("size", [0, -1, 0x7FFFFFFF])
def test_what_a_recorder_never_closed_is_read_to_the_end(tmp_path: Path, name: str, size: int) -> None:
    path = make(name, tmp_path, 0.8)
    samples = audio.read(path).samples
    path.write_bytes(unclosed(name, path.read_bytes(), size))
    notes: list[str] = []
    found = np.concatenate(list(audio.stream(path, notes=notes)))
    assert notes == [UNCLOSED]
    np.testing.assert_array_equal(found[: len(samples)], samples)
    assert len(found) - len(samples) < 40


def test_the_rate_of_an_aiff_may_have_a_fraction(tmp_path: Path) -> None:
    """22,254.5454… Hz is that of the first Macintosh; libsndfile leaves the fraction out."""
    path = make("pcm16.aiff", tmp_path, 0.8)
    data, samples = path.read_bytes(), soundfile.info(path).frames
    at = data.find(b"COMM") + 16
    for rate in (22254.5454, 11127.27):
        exponent = int(np.log2(rate))
        number = struct.pack(">HQ", 16383 + exponent, int(rate * 2 ** (63 - exponent)))
        path.write_bytes(data[:at] + number + data[at + 10 :])
        assert soundfile.info(path).samplerate == int(rate)
        assert len(audio.read(path, int(rate)).samples) == samples


@pytest.mark.parametrize("name", ["pcm16.wav", "float.wav", "pcm16.rf64", "pcm16.w64", "pcm16.caf", "adpcm.wav"])
@pytest.mark.parametrize("size", [500, 26, 8000])
def test_a_size_that_lies_is_refused(tmp_path: Path, name: str, size: int) -> None:
    path = make(name, tmp_path, 0.8)
    assert "no chunk" in refused(path, unclosed(name, path.read_bytes(), size))


def test_chunks_after_the_samples_are_no_lie(tmp_path: Path) -> None:
    path = make("pcm16.wav", tmp_path, 0.8)
    expected, data = heard(path), path.read_bytes()
    assert (
        heard(written(path, data + b"LIST" + struct.pack("<I", 26) + b"INFOISFT\x0e\0\0\0Lavf62.12.102\0")) == expected
    )
    assert "no chunk" in refused(path, data + bytes(64))


def test_wav_whose_format_contradicts_itself(tmp_path: Path) -> None:
    data = make("pcm16.wav", tmp_path, 0.5).read_bytes()
    for at, value in ((22, 2), (24, 0x40), (32, 4), (34, 8)):
        changed = data[:at] + bytes([value]) + data[at + 1 :]
        assert "contradicts itself" in refused(tmp_path / "clip.wav", changed)


def test_voc_of_several_blocks(tmp_path: Path) -> None:
    values = (1000 * sound(1.0, 11025)[:, 0]).astype("<i2").tobytes()
    head = b"Creative Voice File\x1a" + struct.pack("<HHH", 26, 0x0114, 0x111F)
    form = struct.pack("<IBBHI", 11025, 16, 1, 4, 0)

    def block(kind: int, body: bytes) -> bytes:
        return bytes([kind]) + struct.pack("<I", len(body))[:3] + body

    path = tmp_path / "clip.voc"
    data = head + block(9, form + values[:8000]) + block(2, values[8000:9000]) + block(9, form + values[9000:])
    assert heard(written(path, data + b"\0")) == (11025, [])
    np.testing.assert_allclose(audio.read(path, 11025).samples, np.frombuffer(values, "<i2") / 32768, atol=1e-7)
    silence = block(3, struct.pack("<HB", 4000, 100))
    assert "block of kind 3" in refused(path, data + silence + b"\0")
    slow = block(9, struct.pack("<IBBHI", 8000, 16, 1, 4, 0) + values[:500])
    assert "several kinds" in refused(path, data + slow + b"\0")


# FLAC


def test_flac_that_holds_more_or_other_than_its_header_says(tmp_path: Path) -> None:
    path = make("pcm16.flac", tmp_path, 1.0)
    data = path.read_bytes()
    fewer = bytearray(data)
    fewer[24:26] = struct.pack(">H", 9000)
    assert "damaged" in refused(path, bytes(fewer))
    wrong = bytearray(data)
    wrong[30] ^= 1
    assert "checksum" in refused(path, bytes(wrong))
    other = by_soundfile(tmp_path / "b.flac", 0.5, 22050, seed=3).read_bytes()
    assert "damaged: it names 1.0000 s" in refused(path, data + other)
    for channels, subtype in ((2, "PCM_24"), (1, "PCM_S8"), (2, "PCM_16")):
        by_soundfile(path, 0.4, 44100, channels, subtype=subtype)
        assert heard(path) == (17640, [])


# Containers of FFmpeg


def with_video(path: Path, *, audible: bool) -> Path:
    with av.open(str(path), "w") as file:
        video = file.add_stream("mpeg4", rate=10)
        video.width = video.height = 32
        video.pix_fmt = "yuv420p"
        if audible:
            track = file.add_stream("aac", rate=44100, layout="mono")
        for number in range(10):
            picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), number, np.uint8), format="rgb24")
            picture.pts = number
            file.mux(video.encode(picture))
        file.mux(video.encode(None))
        if audible:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound(1.0, 44100).T), format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, 0
            file.mux(track.encode(frame))
            file.mux(track.encode(None))
    return path


@pytest.mark.parametrize("ending", ["mp4", "mov", "mkv"])
def test_the_sound_of_a_video(tmp_path: Path, ending: str) -> None:
    path = with_video(tmp_path / f"clip.{ending}", audible=True)
    samples, _ = heard(path)
    assert samples == by_pyav(path)
    assert 44100 <= samples < 44100 + 2048
    assert "has no sound" in refused(with_video(tmp_path / f"silent.{ending}", audible=False))


def test_a_playlist_with_the_name_of_a_sound_opens_nothing(tmp_path: Path) -> None:
    secret = make("aac.aac", tmp_path)
    path = tmp_path / "list.m4a"
    assert "cannot be read as audio" in refused(path, f"#EXTM3U\n#EXTINF:1,\nfile://{secret}\n".encode())


@pytest.mark.parametrize(
    ("magic", "name"),
    [(b"MAC \x96\x0f", "Monkey's Audio"), (b"wvpk", "WavPack"), (b"version https://git-lfs", "Git LFS")],
)
def test_what_is_not_read_is_called_by_its_name(tmp_path: Path, magic: bytes, name: str) -> None:
    assert name in refused(tmp_path / "clip.wav", magic.ljust(2000, b"\0"))


@settings(max_examples=60, deadline=None)
@given(
    data=st.binary(min_size=1, max_size=60),
    patches=st.lists(st.tuples(st.integers(0, 50), st.binary(min_size=1, max_size=6)), max_size=2),
    steps=st.lists(st.tuples(st.sampled_from([0, 1, 2]), st.integers(-5, 60), st.integers(0, 20)), max_size=8),
)
def test_a_view_is_a_file_of_its_own(
    data: bytes, patches: list[tuple[int, bytes]], steps: list[tuple[int, int, int]]
) -> None:
    start, end = len(data) // 4, len(data) - len(data) // 5
    changed = bytearray(data)
    for place, piece in patches:
        changed[place : place + len(piece)] = piece[: max(0, len(data) - place)]
    view, plain = View(data, Stretch(start, end, patches=tuple(patches))), io.BytesIO(bytes(changed)[start:end])
    for whence, offset, size in steps:
        base = (0, plain.tell(), end - start)[whence]
        assert view.seek(offset, whence) == plain.seek(max(0, base + offset))
        assert view.read(size) == plain.read(size)
    assert (view.seek(0), view.read()) == (0, bytes(changed)[start:end])


def test_lengths_are_named_without_decoding(tmp_path: Path) -> None:
    for name in ("pcm16.wav", "pcm16.aiff", "pcm16.nist", "vorbis.ogg", "lame.mp3", "pcm16.flac", "pcm16.au"):
        path = make(name, tmp_path, 1.0)
        assert audio.named_samples(path) == pytest.approx(16000, abs=1)
        assert audio.own_rate(path) == rate_of(name)
    assert audio.named_samples(make("adpcm.wav", tmp_path)) is None
    assert audio.named_samples(tmp_path / "none.wav") is None


# The files of the reports


@pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/cases")
@pytest.mark.parametrize(
    ("name", "seconds", "note"),
    [
        ("cbr96_no_xing.mp3", 266112 / 44100, None),
        ("vbr_no_xing.mp3", 266112 / 44100, None),
        ("apic_no_xing.mp3", 266112 / 44100, None),
        ("concat_first_has_xing.mp3", 444719 / 44100, "more follows"),
        ("chained_3s_5s.opus", 8.0, "chain of 2"),
        ("ogg-intact.ogg", 220544 / 44100, None),
        ("mp3-intact.mp3", 1.5, None),
        ("data_size_0_riff_4088.wav", 3.0, UNCLOSED),
        ("voc_several_blocks.voc", 3.0, None),
        ("opus_without_eos.opus", None, "does not say that the stream ends there"),
        ("ogg-minus-1-byte.ogg", None, "truncated"),
        ("ogg-esc10-cut_at_page_boundary.ogg", None, "truncated"),
        ("mp3-one-byte.mp3", None, "checksum of its Xing frame"),
    ],
)
def test_reported_files(name: str, seconds: float | None, note: str | None) -> None:
    if seconds is None:
        assert note in refused(CASES / name)
        return
    samples, notes = heard(CASES / name)
    assert samples == round(seconds * audio.own_rate(CASES / name))
    assert len(notes) == (note is not None)
    assert note is None or note in notes[0]


@pytest.mark.parametrize("place", ["first", "later"])
def test_fragments_without_a_track_or_with_another_time_are_refused(tmp_path: Path, place: str) -> None:
    path = make("fragments.mp4", tmp_path, 1.3)
    whole = path.read_bytes()
    at = whole.index(b"traf") if place == "first" else whole.rindex(b"traf")
    assert "have no track" in refused(path, whole[:at] + b"trcf" + whole[at + 4 :])
    at = whole.index(b"tfdt") + 8 if place == "first" else whole.rindex(b"tfdt") + 8
    time = b"\x63" if place == "first" else bytes(8)
    assert "the one before it" in refused(path, whole[:at] + time + whole[at + len(time) :])


def test_bytes_per_second_that_a_wav_leaves_at_0_are_no_matter_and_wrong_ones_are(tmp_path: Path) -> None:
    path = make("pcm16.wav", tmp_path)
    whole, expected = path.read_bytes(), heard(path)
    assert heard(written(path, whole[:28] + bytes(4) + whole[32:])) == expected
    assert "contradicts itself" in refused(path, whole[:28] + b"\1\0\0\0" + whole[32:])


@pytest.mark.parametrize("rate", [0.0, -8000.0, float("nan"), float("inf"), 44100.5])
@pytest.mark.parametrize("name", ["alac.caf", "pcm16.caf"])
def test_a_rate_that_is_none_is_refused(tmp_path: Path, name: str, rate: float) -> None:
    path = make(name, tmp_path, 0.5)
    whole = path.read_bytes()
    refused(path, whole[:20] + struct.pack(">d", rate) + whole[28:])


def mux_noise(container: Any, stream: Any, begin: int, pauses: Sequence[int]) -> None:
    """Blocks of 960 samples of noise at 48 kHz, as many as pauses, each later by its pause in samples."""
    generator = np.random.default_rng(0)
    for number, pause in enumerate(pauses):
        values = generator.normal(0, 0.1, (1, 960)).astype(np.float32)
        form = "flt" if stream.codec_context.name == "libopus" else "fltp"
        frame = av.AudioFrame.from_ndarray(values, format=form, layout="mono")
        frame.sample_rate, frame.time_base = 48000, Fraction(1, 48000)
        frame.pts = begin + 960 * number + pause
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def paused(path: Path, form: str, codec: str, pause: int, **options: str) -> Path:
    """Three seconds of noise at 48 kHz whose time stamps leave ``pause`` samples out after the first of them."""
    with av.open(path, "w", format=form, options=options) as container:
        stream = container.add_stream(codec, rate=48000, layout="mono")
        mux_noise(container, stream, 0, [0] * 50 + [pause] * 100)
    return path


FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "frag_duration": "500000"}


@pytest.mark.parametrize(
    ("name", "form", "codec", "options"),
    [("a.webm", "webm", "libopus", {"live": "1"}), ("a.m4a", "mp4", "aac", FRAGMENTED)],
)
def test_a_pause_in_the_time_stamps_is_told(
    tmp_path: Path, name: str, form: str, codec: str, options: dict[str, str]
) -> None:
    notes: list[str] = []
    found = np.concatenate(list(audio.stream(paused(tmp_path / name, form, codec, 96000, **options), notes=notes)))
    assert len(found) == pytest.approx(80000, abs=700)
    [pause] = [note for note in notes if note.startswith("its time stamps leave out 2.00 s, first after 1.")]
    assert pause.endswith("s: heard as silence")
    quiet = np.flatnonzero(np.abs(found) > 0.02)
    assert np.max(np.diff(quiet)) == pytest.approx(32000, abs=1000)
    notes = []
    np.concatenate(list(audio.stream(paused(tmp_path / f"b{name}", form, codec, 2400, **options), notes=notes)))
    assert not any("time stamps" in note for note in notes)


@pytest.mark.parametrize(("name", "form"), [("a.webm", "webm"), ("a.mka", "matroska"), ("a.m4a", "mp4")])
def test_a_pause_that_the_header_counts_is_heard_as_silence(tmp_path: Path, name: str, form: str) -> None:
    path = paused(tmp_path / name, form, "aac" if form != "webm" else "libopus", 96000)
    assert audio.read(path).seconds == pytest.approx(5.0, abs=0.05)


def test_one_wrong_time_stamp_is_no_pause(tmp_path: Path) -> None:
    path = paused(tmp_path / "a.webm", "webm", "libopus", 0, live="1", cluster_time_limit="500")
    data = bytearray(path.read_bytes())
    cluster = [match.end() for match in re.finditer(b"\x1f\x43\xb6\x75", data)][3]
    at = data.index(b"\xe7\x82", cluster) + 2
    data[at] += 8  # 2,048 ms
    assert re.match(r"damaged: after [34]\.\d\d s its time stamps go back by [12]\.\d\d s", refused(path, bytes(data)))


@pytest.mark.parametrize(("name", "form"), [("a.webm", "webm"), ("a.mka", "matroska"), ("a.m4a", "mp4")])
@pytest.mark.parametrize("milliseconds", [60, 80, 95])
def test_a_pause_that_is_too_short_for_silence_is_no_truncation(
    tmp_path: Path, name: str, form: str, milliseconds: int
) -> None:
    path = paused(tmp_path / name, form, "aac" if form != "webm" else "libopus", 48 * milliseconds)
    assert audio.read(path).seconds == pytest.approx(3.0, abs=0.03)


@pytest.mark.parametrize("pauses", [[90000.0], [2000.0, 4000.0], [500.0 * n for n in range(1, 40)]])
def test_silence_for_time_stamps_is_an_hour_at_most_in_all(tmp_path: Path, pauses: list[float]) -> None:
    """Else a file of a few kilobytes would be days of sound."""
    with av.open(tmp_path / "a.mka", "w", format="matroska") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        mux_noise(container, stream, 0, [0] * 50 + [round(48000 * pause) for pause in pauses for _ in range(10)])
    seconds = next(pause for pause in pauses if pause > 3600)
    with pytest.raises(AudioError, match=rf"after \d+\.\d\d s its time stamps leave out {seconds:.0f} s in all"):
        for _ in audio.stream(tmp_path / "a.mka"):
            pass


@pytest.mark.parametrize(
    ("name", "form", "codec"), [("a.webm", "webm", "libopus"), ("a.mka", "matroska", "aac"), ("a.mp4", "mp4", "aac")]
)
@pytest.mark.parametrize("picture", [False, True])
def test_sound_that_begins_late_is_heard_at_its_place_beside_a_picture(
    tmp_path: Path, name: str, form: str, codec: str, picture: bool
) -> None:
    """A cut out of a longer recording counts its time stamps from that; only against a picture is it late."""
    path, notes = tmp_path / name, list[str]()
    with av.open(path, "w", format=form) as container:
        video = container.add_stream("libvpx" if form == "webm" else "mpeg4", rate=25) if picture else None
        stream = container.add_stream(codec, rate=48000, layout="mono")
        if video is not None:
            video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
            for number in range(50):
                image = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
                image.pts, image.time_base = number, Fraction(1, 25)
                container.mux(video.encode(image))
            container.mux(video.encode(None))
        mux_noise(container, stream, 96000, [0] * 100)
    found = np.concatenate(list(audio.stream(path, notes=notes)))
    first = np.flatnonzero(np.abs(found) > 0.02)[0] / 16000
    late = [note for note in notes if re.match(r"its sound begins (1\.98|2\.0\d) s into the recording", note)]
    assert first == pytest.approx(2.0 if picture else 0.0, abs=0.05)
    assert len(late) == picture
    assert len(found) / 16000 == pytest.approx(4.0 if picture else 2.0, abs=0.05)
    named = audio.named_samples(path)
    assert not picture or named is None or named == pytest.approx(len(found), abs=800)
