from __future__ import annotations

import os
import pickle
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st

from spectrim.audio import decoders
from spectrim.audio import files as audio
from spectrim.errors import AudioError, InvalidSetting

LOSSLESS = [
    ("wav", "PCM_16", 2**-15),
    ("wav", "PCM_24", 2**-23),
    ("wav", "PCM_32", 2**-23),
    ("wav", "PCM_U8", 2**-7),
    ("wav", "FLOAT", 1e-7),
    ("wav", "DOUBLE", 1e-7),
    ("flac", "PCM_16", 2**-15),
    ("flac", "PCM_24", 2**-23),
    ("aiff", "PCM_16", 2**-15),
    ("au", "PCM_16", 2**-15),
    ("caf", "PCM_16", 2**-15),
    ("w64", "PCM_16", 2**-15),
    ("rf64", "PCM_16", 2**-15),
    ("nist", "PCM_16", 2**-15),
    ("voc", "PCM_16", 2**-15),
]
LOSSY = [("mp3", "MPEG_LAYER_III"), ("ogg", "VORBIS"), ("ogg", "OPUS")]


def tone(seconds: float, rate: int = 16000, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def noise(samples: int, channels: int = 1, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).uniform(-0.5, 0.5, (samples, channels)).astype(np.float32)
    return values[:, 0] if channels == 1 else values


def write(path: Path, samples: np.ndarray, rate: int = 16000, **options: str) -> Path:
    soundfile.write(path, samples, rate, **options)
    return path


def shorten(path: Path, share: float) -> Path:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return path


def reason(path: Path) -> str:
    with pytest.raises(AudioError) as caught:
        audio.read(path)
    assert caught.value.source == str(path)
    assert "\n" not in caught.value.reason
    return caught.value.reason


@pytest.mark.parametrize(("ending", "subtype", "step"), LOSSLESS)
def test_lossless_formats_come_back_at_full_scale(tmp_path: Path, ending: str, subtype: str, step: float) -> None:
    samples = noise(4000)
    waveform = audio.read(write(tmp_path / f"clip.{ending}", samples, subtype=subtype))
    assert waveform.samples.dtype == np.float32
    assert waveform.seconds == 0.25
    np.testing.assert_allclose(waveform.samples, samples, atol=step)


@pytest.mark.parametrize(("ending", "subtype"), LOSSY)
def test_lossy_formats_keep_length_and_tone(tmp_path: Path, ending: str, subtype: str) -> None:
    waveform = audio.read(write(tmp_path / f"clip.{ending}", tone(1.0), subtype=subtype))
    assert len(waveform.samples) == 16000
    spectrum = np.abs(np.fft.rfft(waveform.samples[2000:14000]))
    assert np.argmax(spectrum) * 16000 / 12000 == pytest.approx(440, abs=2)
    assert np.std(waveform.samples[2000:14000]) == pytest.approx(0.5 / np.sqrt(2), rel=0.02)


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000, 192000])
def test_resampling_is_soxr_in_one_piece(tmp_path: Path, rate: int) -> None:
    samples = noise(rate * 2 + 17)
    path = write(tmp_path / "clip.wav", samples, rate, subtype="FLOAT")
    np.testing.assert_allclose(audio.read(path).samples, soxr.resample(samples, rate, 16000), atol=1e-6)


def test_other_target_rate(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.wav", tone(1.0), 16000, subtype="FLOAT")
    waveform = audio.read(path, sampling_rate=32000)
    assert (waveform.sampling_rate, len(waveform.samples), waveform.seconds) == (32000, 32000, 1.0)


def test_channels_are_averaged(tmp_path: Path) -> None:
    samples = noise(4000, channels=5)
    path = write(tmp_path / "clip.wav", samples, subtype="FLOAT")
    np.testing.assert_allclose(audio.read(path).samples, samples.mean(axis=1), atol=1e-6)


@pytest.mark.parametrize(("ending", "subtype"), [("wav", "PCM_16"), ("wav", "FLOAT"), ("flac", "PCM_24")])
def test_channels_that_cancel_out_are_said(tmp_path: Path, ending: str, subtype: str) -> None:
    left, said = (
        np.round(noise(8000) * 2**15) / 2**15,
        "its channels cancel out in the mix-down to mono, to exact zeros, for 0.50 of 0.50 s",
    )
    for right, expected in ((-left, [said]), (left, []), (0 * left, [])):
        path = write(tmp_path / f"clip.{ending}", np.stack([left, right], axis=1), subtype=subtype)
        notes: list[str] = []
        mono = np.concatenate(list(audio.stream(path, notes=notes)))
        assert (notes, mono.any()) == (expected, not expected)
        assert list(audio.windows_and_notes(path, window_seconds=1.0))[1:] == list(map(audio.Note, notes))
    silent = write(tmp_path / f"silent.{ending}", np.zeros((8000, 2), np.float32), subtype=subtype)
    assert len(list(audio.windows_and_notes(silent, window_seconds=1.0))) == 1


def test_eight_kilohertz_stereo(tmp_path: Path) -> None:
    left, right = tone(1.0, 8000, 300.0), tone(1.0, 8000, 700.0)
    path = write(tmp_path / "clip.wav", np.stack([left, right], axis=1), 8000)
    middle = slice(1000, 15000)
    expected = (tone(1.0, 16000, 300.0) + tone(1.0, 16000, 700.0)) / 2
    np.testing.assert_allclose(audio.read(path).samples[middle], expected[middle], atol=2e-3)


def test_ninety_six_kilohertz_24_bit(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.flac", tone(1.0, 96000, 1000.0), 96000, subtype="PCM_24")
    middle = slice(1000, 15000)
    np.testing.assert_allclose(audio.read(path).samples[middle], tone(1.0, 16000, 1000.0)[middle], atol=1e-3)


def test_blocks_joined_are_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "clip.wav", noise(50000, channels=2), 44100)
    whole = audio.read(path).samples
    monkeypatch.setattr(decoders, "BLOCK_SAMPLES", 1000)
    blocks = list(audio.stream(path))
    assert len(blocks) > 20
    assert all(len(block) for block in blocks)
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_flac_that_does_not_say_how_long_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.flac", noise(30000))
    whole = audio.read(path).samples
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path.write_bytes(data)
    np.testing.assert_array_equal(audio.read(path).samples, whole)


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFF000, 0x80000000])
def test_wav_from_a_pipe_is_not_truncated(tmp_path: Path, size: int) -> None:
    path = write(tmp_path / "clip.wav", noise(8000))
    data = bytearray(path.read_bytes())
    data[4:8] = data[40:44] = struct.pack("<I", size)
    path.write_bytes(data)
    assert len(audio.read(path).samples) == 8000


# Bad input


@pytest.mark.parametrize("share", [0.9, 0.5, 0.2])
@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "mp3", "aiff", "au", "w64", "rf64", "nist", "voc"])
def test_truncated_is_named(tmp_path: Path, ending: str, share: float) -> None:
    path = shorten(write(tmp_path / f"clip.{ending}", noise(100000)), share)
    assert "truncated" in reason(path)


@pytest.mark.parametrize("subtype", ["FLOAT", "PCM_24", "IMA_ADPCM"])
def test_truncated_wav_of_other_widths(tmp_path: Path, subtype: str) -> None:
    path = shorten(write(tmp_path / "clip.wav", noise(100000), subtype=subtype), 0.7)
    assert reason(path).startswith("truncated: the header promises")


@pytest.mark.parametrize(("ending", "subtype"), [("ogg", "OPUS"), ("caf", "PCM_16"), ("mp3", "MPEG_LAYER_III")])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_cut_file_gives_no_waveform(tmp_path: Path, ending: str, subtype: str, share: float) -> None:
    path = shorten(write(tmp_path / f"clip.{ending}", noise(100000), subtype=subtype), share)
    assert any(word in reason(path) for word in ("truncated", "cannot be read as audio"))


def test_damaged_middle_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.flac", noise(100000))
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4000] = bytes(4000)
    path.write_bytes(data)
    assert reason(path).startswith("truncated or damaged: it names 6.2500 s, but only 5.")


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    path.touch()
    assert reason(path) == "empty file (0 bytes)"


@pytest.mark.parametrize("ending", ["wav", "aiff", "w64", "rf64", "caf"])
def test_header_only(tmp_path: Path, ending: str) -> None:
    path = write(tmp_path / f"clip.{ending}", np.zeros(0, np.float32))
    assert reason(path) == "header only: there are no samples in it"


@pytest.mark.parametrize("ending", ["wav", "flac", "mp3", "ogg", "weird"])
def test_text_with_an_audio_name(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"clip.{ending}"
    path.write_text("this is no audio at all\n" * 100)
    assert "cannot be read as audio" in reason(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_a_number_is_named_with_its_place(tmp_path: Path, value: float) -> None:
    samples = noise(160000, channels=2)
    samples[144000, 1] = value
    path = write(tmp_path / "clip.wav", samples, subtype="FLOAT")
    assert reason(path) == "has a sample that is NaN or infinite, at 9.000 s"


def test_integers_as_floating_point_are_refused(tmp_path: Path) -> None:
    samples = noise(16000)
    samples[8000] = 32000.0
    path = write(tmp_path / "clip.wav", samples, subtype="FLOAT")
    why = "if these are integers as floating point, divide them, those of 16 bits by 32768"
    assert reason(path) == f"has a sample of 32000, at 0.500 s, where full scale is 1: {why}"


@pytest.mark.parametrize(("peak", "lines"), [(3.9, 0), (50.0, 1)])
def test_samples_far_beyond_full_scale_are_told(tmp_path: Path, peak: float, lines: int) -> None:
    samples = 0.1 * noise(16000)
    samples[8000] = -peak
    notes: list[str] = []
    list(audio.stream(write(tmp_path / "clip.wav", samples, subtype="FLOAT"), notes=notes))
    assert notes == ["its samples reach 50 times full scale, which is 1 for floating point"] * lines


@pytest.mark.parametrize(("samples", "rate"), [(399, 16000), (1, 16000), (199, 8000), (1100, 44100)])
def test_shorter_than_one_frame(tmp_path: Path, samples: int, rate: int) -> None:
    path = write(tmp_path / "clip.wav", noise(samples), rate)
    assert reason(path).startswith("too short: ")
    assert reason(path).endswith("shorter than one frame of 25 ms")


def test_one_frame_is_enough(tmp_path: Path) -> None:
    assert len(audio.read(write(tmp_path / "clip.wav", noise(400))).samples) == 400


def test_missing_folder_raw_and_special(tmp_path: Path) -> None:
    assert reason(tmp_path / "none.wav") == "no such file"
    assert reason(tmp_path) == "is a folder, not a file"
    raw = tmp_path / "clip.raw"
    raw.write_bytes(bytes(1000))
    assert reason(raw).startswith("raw samples without a header")
    os.mkfifo(tmp_path / "pipe.wav")
    assert reason(tmp_path / "pipe.wav") == "is not a regular file"
    loop = tmp_path / "loop.wav"
    loop.symlink_to(loop)
    assert reason(loop).startswith("cannot be opened: ")
    assert reason(Path("a\0b.wav")).startswith("cannot be opened: ")


@pytest.mark.parametrize("ending", ["vox", "vox6", "gsm", "au", "SND", "wav", "dat"])
def test_no_ending_makes_sound_of_text_or_noise(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"notes.{ending}"
    for content in (b"This is a text, and no sound at all.\n" * 400, np.random.default_rng(0).bytes(16500)):
        path.write_bytes(content)
        assert reason(path).startswith("cannot be read as audio: format not recognised")


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "clip.wav", noise(4000))

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert reason(path) == "cannot be opened: Permission denied"


def test_file_name_that_is_not_utf8(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
    write(tmp_path / "clip.wav", noise(4000)).rename(path)
    assert len(audio.read(path).samples) == 4000


def test_impossible_rate(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.wav", noise(4000))
    data = bytearray(path.read_bytes())
    data[24:32] = struct.pack("<II", 7, 14)
    path.write_bytes(data)
    assert reason(path) == "sampling rate of 7 Hz in its header: not audio"


@given(st.data())
def test_no_damage_gives_anything_but_a_waveform_or_an_audio_error(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    ending = data.draw(st.sampled_from(["wav", "flac", "ogg", "mp3", "aiff"]))
    path = write(tmp_path_factory.getbasetemp() / f"damaged.{ending}", noise(3000, 2), 8000)
    content = bytearray(path.read_bytes())
    for place, value in data.draw(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=20)):
        content[place % len(content)] = value
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        samples = audio.read(path).samples
    except AudioError as error:
        assert error.source == str(path)
    else:
        assert len(samples) >= 400
        assert np.isfinite(samples).all()


def test_audio_error_survives_pickling() -> None:
    error = pickle.loads(pickle.dumps(AudioError("a.wav", "no such file")))
    assert (error.source, error.reason, str(error)) == ("a.wav", "no such file", "a.wav: no such file")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("  my a.wav", "'  my a.wav'"),
        ("a.wav ", "'a.wav '"),
        ("a\n.wav", "'a\\n.wav'"),
        ("a\x1b.wav\r", "'a\\x1b.wav\\r'"),
        ("my  a.wav", "my  a.wav"),
    ],
)
def test_a_name_with_blanks_or_line_ends_is_quoted(name: str, shown: str) -> None:
    assert str(AudioError(name, "no such file")) == f"{shown}: no such file"


# Windows


def plain_windows(total: int, window: int, hop: int, shortest: int) -> list[tuple[int, int]]:
    """The rule of `iterate_windows`, from the whole length: (start, end) of every window."""
    found = [(0, min(window, total))] if total >= shortest else []
    start = hop
    while found and total - start >= shortest:
        if total > max(end for _, end in found):
            found.append((start, min(start + window, total)))
        start += hop
    return found


@given(
    total=st.integers(0, 400),
    window=st.integers(5, 100),
    hop=st.integers(1, 150),
    shortest=st.integers(1, 5),
    block=st.integers(1, 130),
)
def test_cut_is_the_plain_rule_for_any_blocks(total: int, window: int, hop: int, shortest: int, block: int) -> None:
    whole = np.arange(total, dtype=np.float32)
    blocks = [whole[start : start + block] for start in range(0, total, block)]
    notes: list[str] = []
    found = list(audio.cut(blocks, window, hop, shortest, notes))
    unheard = total - len({place for start, samples in found for place in range(start, start + len(samples))})
    between = hop > window and unheard >= shortest
    assert notes == [f"its windows lie apart, as hop says: {unheard / max(total, 1):.1%} of it was not heard"] * between
    assert [(start, start + len(samples)) for start, samples in found] == plain_windows(total, window, hop, shortest)
    for start, samples in found:
        np.testing.assert_array_equal(samples, whole[start : start + len(samples)])


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (400, [(0.0, 400)]),
        (15999, [(0.0, 15999)]),
        (16000, [(0.0, 16000)]),
        (16399, [(0.0, 16000)]),
        (16400, [(0.0, 16000), (1.0, 400)]),
        (32000, [(0.0, 16000), (1.0, 16000)]),
        (40000, [(0.0, 16000), (1.0, 16000), (2.0, 8000)]),
    ],
)
def test_tail_rule(tmp_path: Path, samples: int, expected: list[tuple[float, int]]) -> None:
    path = write(tmp_path / "clip.wav", noise(samples))
    windows = list(audio.iterate_windows(path, 1.0))
    assert [(window.start, len(window.samples)) for window in windows] == expected


def test_overlapping_windows_end_with_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.wav", noise(40000))
    windows = list(audio.iterate_windows(path, 1.0, 0.5))
    assert [(window.start, window.end) for window in windows] == [(0, 1), (0.5, 1.5), (1, 2), (1.5, 2.5)]


def test_windows_at_another_rate_are_slices_of_the_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "clip.flac", noise(100000, 2), 44100)
    whole = audio.read(path).samples
    for window in audio.iterate_windows(path, 0.5, 0.3):
        start = round(window.start * 16000)
        np.testing.assert_array_equal(window.samples, whole[start : start + len(window.samples)])


def test_windows_of_a_truncated_file_end_in_its_error(tmp_path: Path) -> None:
    path = shorten(write(tmp_path / "clip.flac", noise(160000)), 0.7)
    windows = audio.iterate_windows(path, 1.0)
    assert len(next(windows).samples) == 16000
    with pytest.raises(AudioError, match="truncated or damaged"):
        list(windows)


@pytest.mark.parametrize(("window", "hop"), [(0.02, None), (float("nan"), None), (float("inf"), None), (1.0, 0.0)])
def test_impossible_windows(tmp_path: Path, window: float, hop: float | None) -> None:
    with pytest.raises(InvalidSetting, match="window" if hop is None else "hop"):
        list(audio.iterate_windows(tmp_path / "clip.wav", window, hop))


@pytest.mark.parametrize("rate", [16000, 48000])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, rate: int) -> None:
    peaks = []
    for minutes in (1, 8):
        path = tmp_path / f"{minutes}.flac"
        with soundfile.SoundFile(path, "w", rate, 2, subtype="PCM_16") as file:
            for _ in range(minutes):
                file.write(np.zeros((60 * rate, 2), np.float32))
        tracemalloc.start()
        heard = sum(window.seconds for window in audio.iterate_windows(path, 10.0))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert heard == 60 * minutes
    assert peaks[1] < 1.1 * peaks[0] < 6e6
