from __future__ import annotations

import io
import json
import pickle
from typing import Any

import kaldi_native_fbank
import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal
from torch.autograd import gradcheck
from transformers import ASTFeatureExtractor, AutoFeatureExtractor

from spectrim.audio.feature_extractor import SpectrimFeatureExtractor
from spectrim.audio.frontend import Frontend, count_frames, frame_seconds, mel_frequencies
from spectrim.backbones import ast_base
from spectrim.errors import AudioError, InputShapeError, InvalidSetting

RATE = 16000
AUDIOSET = {"mean": -4.2677393, "std": 4.5689974}


def frontend(max_length: int = 1024, **settings: Any) -> Frontend:
    return Frontend(max_length=max_length, **{**AUDIOSET, **settings})


def plain(max_length: int) -> Frontend:
    """A front end that does not normalise."""
    return Frontend(max_length=max_length, mean=0.0, std=0.5)


def seconds(duration: float) -> np.ndarray:
    return np.arange(int(duration * RATE)) / RATE


def noise(samples: int, seed: int = 0, level: float = 0.1) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(samples) * level).astype(np.float32)


def vowels() -> np.ndarray:
    """Two seconds of vowels (pulses of a gliding pitch through formants), a fricative and pauses, at 16 bits."""
    time = seconds(2.0)
    pitch = 120 + 30 * np.sin(2 * np.pi * 0.7 * time)
    voice = np.diff(np.floor(np.cumsum(pitch) / RATE), prepend=0.0)
    for formant, width in ((700, 80), (1200, 100), (2600, 150)):
        radius = np.exp(-np.pi * width / RATE)
        voice = signal.lfilter([1.0], [1.0, -2 * radius * np.cos(2 * np.pi * formant / RATE), radius**2], voice)
    hiss = signal.lfilter([1.0, -0.95], [1.0], noise(len(time), 3, 0.02))
    wave = np.where(time % 0.5 < 0.3, voice / np.abs(voice).max() * 0.6, hiss) * (time % 1.0 < 0.9)
    return np.round(wave * 32767) / 32768


SIGNALS = {
    "speech": vowels(),
    "noise": noise(2 * RATE),
    "faint noise": noise(2 * RATE, 1, 1e-4),
    "silence": np.zeros(2 * RATE),
    "tone": 0.5 * np.sin(2 * np.pi * 1000 * seconds(2.0)),
    "full-scale tone": 0.999 * np.sin(2 * np.pi * 440 * seconds(2.0)),
    "16-bit tone": np.round(0.9 * np.sin(2 * np.pi * 3170 * seconds(2.0)) * 32767) / 32768,
    "clipped tone": np.clip(3 * np.sin(2 * np.pi * 300 * seconds(2.0)), -1, 1),
    "square wave": np.sign(np.sin(2 * np.pi * 97 * seconds(2.0))),
    "offset": 0.5 + 0.01 * np.sin(2 * np.pi * 300 * seconds(2.0)),
    "click": np.eye(1, 2 * RATE, 7777)[0],
    "chirp": 0.8 * signal.chirp(seconds(2.0), 50, 2.0, 7900),
}
SIGNALS = {name: wave.astype(np.float32) for name, wave in SIGNALS.items()}


def kaldi(wave: np.ndarray, num_mel_bins: int = 128, sampling_rate: int = RATE) -> np.ndarray:
    options = kaldi_native_fbank.FbankOptions()
    options.frame_opts.samp_freq = sampling_rate
    options.frame_opts.dither = 0.0
    options.frame_opts.window_type = "hanning"
    options.mel_opts.num_bins = num_mel_bins
    options.mel_opts.high_freq = 0.0
    options.use_energy = False
    bank = kaldi_native_fbank.OnlineFbank(options)
    bank.accept_waveform(sampling_rate, wave.tolist())
    bank.input_finished()
    return np.stack([bank.get_frame(index) for index in range(bank.num_frames_ready)])


@pytest.fixture(scope="module")
def hugging_face() -> ASTFeatureExtractor:
    with pytest.warns(UserWarning, match="all zero values"):
        return ASTFeatureExtractor()


class TestAgreement:
    @pytest.mark.parametrize("name", SIGNALS)
    def test_equals_the_feature_extractor_of_transformers(self, name, hugging_face):
        wave = SIGNALS[name]
        expected = hugging_face(wave, sampling_rate=RATE, return_tensors="np")["input_values"]
        result = frontend()([wave])
        assert result.input_values.dtype == torch.float32
        np.testing.assert_allclose(result.input_values.numpy(), expected, atol=1e-6, rtol=0)
        log_mel = frontend().log_mel(torch.from_numpy(wave)[None]).numpy()[0]
        expected = hugging_face._extract_fbank_features(wave, max_length=len(log_mel))
        np.testing.assert_allclose(log_mel, expected, atol=2e-6, rtol=0)

    @pytest.mark.parametrize("name", SIGNALS)
    def test_equals_kaldi(self, name):
        """Bands more than 80 dB below the loudest of their frame are rounding of Kaldi's float32 transform.

        Its filters are float32, too, which shows where a chirp meets nothing but the foot of one.
        """
        wave = SIGNALS[name]
        expected = kaldi(wave)
        result = frontend().log_mel(torch.from_numpy(wave)[None]).numpy()[0]
        assert result.shape == expected.shape
        audible = expected > expected.max(axis=1, keepdims=True) - 80 * np.log(10) / 10
        tolerance = 3e-3 if name == "chirp" else 1e-3
        assert np.abs(result - expected)[audible].max() < tolerance

    @pytest.mark.parametrize(("num_mel_bins", "sampling_rate"), [(64, 16000), (80, 8000), (40, 22050), (128, 48000)])
    def test_equals_kaldi_at_other_settings(self, num_mel_bins, sampling_rate):
        wave = noise(sampling_rate)
        bank = frontend(num_mel_bins=num_mel_bins, sampling_rate=sampling_rate)
        expected = kaldi(wave, num_mel_bins, sampling_rate)
        np.testing.assert_allclose(bank.log_mel(torch.from_numpy(wave)[None])[0], expected, atol=1e-3)

    def test_silence_reads_the_floor(self):
        result = plain(98)([np.zeros(RATE)])
        np.testing.assert_allclose(result.input_values, np.log(2.0**-23), rtol=1e-6)
        assert frontend(98)([np.zeros(RATE)]).input_values.numpy() == pytest.approx(-1.278, abs=1e-3)


class TestFramesAndPadding:
    @settings(max_examples=15, deadline=None)
    @given(st.integers(min_value=400, max_value=4000))
    def test_frames_are_counted_as_kaldi_does(self, samples):
        wave = noise(samples)
        result = frontend(32)([wave])
        assert result.num_frames.tolist() == [len(kaldi(wave))] == [count_frames(samples)]
        assert result.num_frames.dtype == torch.int64
        assert frontend().log_mel(torch.from_numpy(wave)[None]).shape == (1, count_frames(samples), 128)

    def test_ten_seconds_have_998_frames(self):
        result = frontend()([noise(10 * RATE)])
        assert result.input_values.shape == (1, 1024, 128)
        assert result.num_frames.tolist() == [998]

    def test_zero_padding_is_zero_before_normalising(self):
        values = frontend(20)([noise(1600)]).input_values[0]
        assert torch.all(values[8:] == torch.tensor(4.2677393) / (2 * 4.5689974))
        assert values[8:].numpy() == pytest.approx(0.467, abs=1e-3)
        assert not torch.any(values[:8] == values[-1, 0])

    @pytest.mark.parametrize("samples", [1600, 20000])
    def test_minimum_padding_is_the_smallest_value_of_the_clip_itself(self, samples):
        wave = noise(samples)
        quiet, loud = wave * 0.01, wave * 10
        values = frontend(120, padding="minimum")([quiet, loud]).input_values
        for clip, result in zip((quiet, loud), values, strict=True):
            frames = count_frames(samples)
            smallest = (kaldi(clip)[:120].min() - AUDIOSET["mean"]) / (2 * AUDIOSET["std"])
            assert torch.all(result[frames:] == result.min())
            assert result.min().item() == pytest.approx(smallest, abs=1e-4)

    def test_minimum_is_taken_over_the_frames_that_are_kept(self):
        wave = np.concatenate([noise(8000), np.zeros(8000, np.float32)])
        cut = frontend(30, padding="minimum")([wave]).input_values
        assert torch.equal(cut, frontend(30, padding="minimum")([wave[: 29 * 160 + 400]]).input_values)

    def test_frames_past_the_length_are_cut(self):
        wave = noise(3 * RATE)
        result = frontend(50)([wave])
        assert result.num_frames.tolist() == [50]
        torch.testing.assert_close(result.input_values, frontend(298)([wave]).input_values[:, :50], atol=1e-6, rtol=0)

    def test_frames_past_the_length_are_not_computed(self, monkeypatch):
        rows = []
        work = Frontend._chunk

        def counted(self: Frontend, *given: Any) -> torch.Tensor:
            result = work(self, *given)
            rows.append(len(result))
            return result

        monkeypatch.setattr(Frontend, "_chunk", counted)
        frontend(50)([noise(60 * RATE)])
        assert sum(rows) <= 53


class TestBatches:
    @settings(max_examples=15, deadline=None)
    @given(
        st.lists(st.integers(min_value=400, max_value=9000), min_size=1, max_size=6),
        st.sampled_from(["zero", "minimum"]),
    )
    def test_a_clip_does_not_depend_on_its_batch(self, lengths, padding):
        waves = [noise(length, seed) * 10.0 ** (seed - 2) for seed, length in enumerate(lengths)]
        front = frontend(40, padding=padding)
        together = front(waves)
        for index, wave in enumerate(waves):
            alone = front([wave])
            assert alone.num_frames[0] == together.num_frames[index]
            torch.testing.assert_close(together.input_values[index], alone.input_values[0], atol=1e-5, rtol=0)

    def test_chunks_do_not_show(self, monkeypatch):
        waves = [noise(length, length) for length in (9000, 16000, 400, 40000)]
        whole = frontend(256)(waves)
        monkeypatch.setattr("spectrim.audio.frontend.CHUNK_FRAMES_A_THREAD", 7)
        pieces = frontend(256)(waves)
        torch.testing.assert_close(pieces.input_values, whole.input_values, atol=1e-5, rtol=0)
        assert torch.equal(pieces.num_frames, whole.num_frames)

    def test_every_form_of_a_batch_is_the_same(self):
        waves = np.stack([noise(4000, 1), noise(4000, 2)])
        expected = frontend(32)(list(waves)).input_values
        for batch in (waves, torch.from_numpy(waves), list(torch.from_numpy(waves)), waves.tolist()):
            torch.testing.assert_close(frontend(32)(batch).input_values, expected, atol=1e-6, rtol=0)
        for single in (waves[0], torch.from_numpy(waves[0])):
            torch.testing.assert_close(frontend(32)(single).input_values, expected[:1], atol=1e-5, rtol=0)

    def test_the_waveforms_are_left_alone(self):
        wave = torch.from_numpy(noise(4000)).requires_grad_()
        before = wave.detach().clone()
        frontend(32, padding="minimum")([wave]).input_values.sum().backward()
        assert torch.equal(wave.detach(), before)
        assert torch.isfinite(wave.grad).all()
        array = noise(4000)
        array.setflags(write=False)
        assert torch.isfinite(frontend(32)([array]).input_values).all()


class TestSampleTypes:
    @pytest.mark.parametrize(("subtype", "dtype"), [("PCM_16", "int16"), ("PCM_32", "int32")])
    def test_integers_are_scaled_as_soundfile_scales_them(self, subtype, dtype):
        file = io.BytesIO()
        soundfile.write(file, SIGNALS["speech"], RATE, format="WAV", subtype=subtype)
        file.seek(0)
        integers, _ = soundfile.read(file, dtype=dtype)
        file.seek(0)
        floats, _ = soundfile.read(file, dtype="float32")
        expected = frontend(198)([floats]).input_values
        given = (integers, torch.from_numpy(integers), integers.astype(integers.dtype.newbyteorder(">")))
        for form in given:
            torch.testing.assert_close(frontend(198)([form]).input_values, expected, atol=1e-5, rtol=0)
        file.seek(0)
        floats = frontend(198).log_mel(torch.from_numpy(floats)[None])
        torch.testing.assert_close(frontend(198).log_mel(torch.from_numpy(integers)[None]), floats, atol=1e-4, rtol=0)

    def test_eight_bits(self):
        levels = np.random.default_rng(0).integers(-128, 128, 4000)
        expected = frontend(32)([levels / 128]).input_values
        assert torch.equal(frontend(32)([levels.astype(np.int8)]).input_values, expected)
        assert torch.equal(frontend(32)([(levels + 128).astype(np.uint8)]).input_values, expected)

    def test_floats_are_left_as_they_are(self):
        wave = np.round(noise(4000) * 256) / 256
        expected = frontend(32)([wave]).input_values
        strided, backward = np.repeat(wave, 2)[::2], wave[::-1].copy()[::-1]
        for form in (wave.astype(np.float64), wave.astype(">f4"), wave.astype(np.float16), strided, backward):
            result = frontend(32)([form]).input_values
            assert result.dtype == torch.float32
            torch.testing.assert_close(result, expected, atol=1e-6, rtol=0)
        for dtype in (torch.float16, torch.bfloat16, torch.float64):
            result = frontend(32)([torch.from_numpy(wave).to(dtype)]).input_values
            tolerance = 0.1 if dtype == torch.bfloat16 else 1e-6
            torch.testing.assert_close(result.float(), expected, atol=tolerance, rtol=0)

    def test_only_float64_tensors_stay_float64(self):
        wave = noise(4000)
        assert frontend(32)([torch.from_numpy(wave).double()]).input_values.dtype == torch.float64
        assert frontend(32)([torch.from_numpy(wave).double(), wave]).input_values.dtype == torch.float32

    @pytest.mark.parametrize("dtype", ["bool", "complex64", "int64", "uint16", "object", "U1"])
    def test_types_without_a_full_scale_are_refused(self, dtype):
        with pytest.raises(AudioError, match=r"waveform 1.*wanted: floating point, or uint8, int8, int16, int32"):
            frontend(32)([noise(4000), np.zeros(4000).astype(dtype)])

    @pytest.mark.parametrize("dtype", [torch.bool, torch.complex64, torch.int64])
    def test_tensor_types_without_a_full_scale_are_refused(self, dtype):
        with pytest.raises(AudioError, match="waveform 0: has samples of type"):
            frontend(32)([torch.zeros(4000, dtype=dtype)])


class TestBadInput:
    @pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
    @pytest.mark.parametrize("place", [0, 2000, -1])
    def test_a_sample_that_is_no_number_is_refused(self, bad, place):
        wave = noise(4000)
        wave[place] = bad
        with pytest.raises(AudioError, match=r"waveform 2: 1 samples are NaN or infinite; it is 250 ms long"):
            frontend(4)([noise(4000), noise(500), wave])

    def test_absurd_samples_are_refused(self):
        with pytest.raises(AudioError, match=r"waveform 0: has samples beyond ±1e\+15"):
            frontend(32)([noise(4000) * 1e17])

    def test_short_and_empty_are_refused(self):
        with pytest.raises(AudioError, match=r"waveform 1: 24.94 ms long \(399 samples\), shorter than one frame"):
            frontend(32)([noise(400), noise(399)])
        with pytest.raises(AudioError, match=r"waveform 0: empty \(0 ms\)"):
            frontend(32)([noise(0)])
        with pytest.raises(InputShapeError, match="at least one"):
            frontend(32)([])
        with pytest.raises(InputShapeError, match="one frame takes 400"):
            frontend(32).log_mel(torch.zeros(1, 399))

    def test_channels_are_refused(self):
        with pytest.raises(InputShapeError, match=r"waveform 1 has shape \(2, 4000\).*mix the channels down"):
            frontend(32)([noise(4000), np.zeros((2, 4000), np.float32)])
        with pytest.raises(InputShapeError, match=r"\(1, 2, 4000\)"):
            frontend(32)(torch.zeros(1, 2, 4000))
        with pytest.raises(InputShapeError, match="batch, samples"):
            frontend(32).log_mel(torch.zeros(4000))

    def test_what_is_no_waveform_is_refused(self):
        with pytest.raises(AudioError, match="waveform 0: is a str"):
            frontend(32)(["speech.wav"])
        with pytest.raises(AudioError, match="waveform 0: not a sequence of numbers"):
            frontend(32)([["a", "b"]])

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("max_length", 0),
            ("max_length", 10.5),
            ("num_mel_bins", 0),
            ("sampling_rate", 10),
            ("mean", float("nan")),
            ("std", 0.0),
            ("padding", "reflect"),
        ],
    )
    def test_settings_are_checked(self, field, value):
        given = {"max_length": 32, **AUDIOSET, field: value}
        with pytest.raises(InvalidSetting, match=field):
            Frontend(**given)
        with pytest.raises(InvalidSetting, match=field):
            SpectrimFeatureExtractor(**given)


class TestGradientAndPrecision:
    @pytest.mark.parametrize("padding", ["zero", "minimum"])
    def test_gradient(self, padding, monkeypatch):
        monkeypatch.setattr("spectrim.audio.frontend.CHUNK_FRAMES_A_THREAD", 3)
        front = frontend(6, num_mel_bins=6, sampling_rate=1000, padding=padding)
        first, second = (torch.from_numpy(noise(n, n)).double().requires_grad_() for n in (69, 50))
        assert gradcheck(lambda *waves: front(list(waves)).input_values, (first, second))
        assert gradcheck(front.log_mel, (first.detach()[None].requires_grad_(),))

    def test_gradient_reaches_only_its_own_clip(self):
        waves = torch.from_numpy(np.stack([noise(4000, 1), noise(4000, 2)])).requires_grad_()
        frontend(32)(waves).input_values[1].sum().backward()
        assert torch.all(waves.grad[0] == 0)
        assert torch.any(waves.grad[1] != 0)

    def test_casts_and_autocast_change_nothing(self):
        wave = torch.from_numpy(SIGNALS["tone"])
        expected = frontend(198)([wave]).input_values
        for cast in (Frontend.half, Frontend.bfloat16, Frontend.double, Frontend.float):
            assert torch.equal(cast(frontend(198))([wave]).input_values, expected)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(frontend(198)([wave]).input_values, expected)
            assert frontend(198).log_mel(wave[None]).dtype == torch.float32

    def test_moves_with_its_parent_module(self):
        parent = torch.nn.Sequential(frontend(32)).to("meta")
        assert parent[0].window.device.type == "meta"
        back = parent.to_empty(device="cpu")[0]
        wave = noise(4000)
        assert torch.equal(back([wave]).input_values, frontend(32)([wave]).input_values)

    def test_nothing_is_saved_with_a_model(self):
        assert frontend(32).state_dict() == {}

    def test_pickled_copy_is_the_same(self):
        front = frontend(32, padding="minimum")
        wave = noise(2000)
        copy = pickle.loads(pickle.dumps(front))
        assert torch.equal(copy([wave]).input_values, front([wave]).input_values)


class LogMel(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.front = frontend()

    def forward(self, waveforms: torch.Tensor) -> torch.Tensor:
        return self.front.log_mel(waveforms)


def test_log_mel_is_exported_with_any_batch_and_length():
    shape = {0: torch.export.Dim("batch"), 1: torch.export.Dim("samples", min=560)}
    program = torch.export.export(LogMel(), (torch.zeros(2, 8000),), dynamic_shapes={"waveforms": shape})
    for batch, samples in ((1, 560), (3, 16000), (2, 23456)):
        waves = torch.from_numpy(noise(batch * samples)).reshape(batch, samples)
        torch.testing.assert_close(program.module()(waves), frontend().log_mel(waves), atol=1e-5, rtol=0)


class TestAxes:
    def test_frames_in_seconds(self):
        assert frame_seconds(100) == pytest.approx(1.0)
        np.testing.assert_allclose(frame_seconds(np.array([0, 16, 1024])), [0, 0.16, 10.24])

    @pytest.mark.parametrize("mel_bin", [20, 60, 100, 127])
    def test_a_tone_at_a_centre_frequency_is_loudest_in_that_bin(self, mel_bin):
        tone = 0.5 * np.sin(2 * np.pi * mel_frequencies()[mel_bin] * seconds(1.0))
        assert plain(98)([tone]).input_values[0, 50].argmax().item() == pytest.approx(mel_bin, abs=1)

    def test_frequencies_rise_from_20_hertz_to_nyquist(self):
        centres = mel_frequencies(64, 8000)
        assert centres.shape == (64,)
        assert np.all(np.diff(centres) > 0)
        assert 20 < centres[0] < centres[-1] < 4000
        mels = 1127 * np.log(1 + centres / 700)
        np.testing.assert_allclose(np.diff(mels), np.diff(mels)[0], rtol=1e-6)


class TestFeatureExtractor:
    def test_stands_in_for_the_one_of_transformers(self, hugging_face):
        ours = SpectrimFeatureExtractor()
        clips = [SIGNALS["speech"], SIGNALS["noise"][:9000]]
        for raw_speech in (
            clips,
            clips[0],
            clips[1].tolist(),
            [clip.tolist() for clip in clips],
            np.stack([clips[0]] * 2),
        ):
            for kind in ("np", "pt", None):
                expected = hugging_face(raw_speech, sampling_rate=RATE, return_tensors=kind)["input_values"]
                result = ours(raw_speech, sampling_rate=RATE, return_tensors=kind)["input_values"]
                assert type(result) is type(expected)
                assert type(result[0]) is type(expected[0])
                np.testing.assert_allclose(np.stack(list(result)), np.stack(list(expected)), atol=1e-6)

    def test_counts_real_frames(self):
        ours = SpectrimFeatureExtractor(max_length=64)
        result = ours([noise(4000), noise(RATE)], sampling_rate=RATE, return_tensors="pt")
        assert result["num_frames"].tolist() == [23, 64]
        assert result["input_values"].shape == (2, 64, 128)

    def test_float64_tensors_give_what_a_model_takes(self):
        result = SpectrimFeatureExtractor(max_length=64)(torch.zeros(4000).double(), sampling_rate=RATE)
        assert result["input_values"][0].dtype == np.float32

    def test_saved_and_loaded(self, tmp_path):
        config = ast_base(max_length=48, padding="minimum", mean=-6.5, std=5.25, num_mel_bins=64)
        ours = SpectrimFeatureExtractor.from_config(config)
        ours.save_pretrained(tmp_path)
        written = json.loads((tmp_path / "preprocessor_config.json").read_text())
        assert written["feature_extractor_type"] == "SpectrimFeatureExtractor"
        wave = noise(4000)
        expected = Frontend.from_config(config)([wave]).input_values.numpy()
        for kind in (SpectrimFeatureExtractor, AutoFeatureExtractor):
            loaded = kind.from_pretrained(tmp_path)
            assert isinstance(loaded, SpectrimFeatureExtractor)
            assert loaded.to_dict() == ours.to_dict()
            result = loaded(wave, sampling_rate=RATE, return_tensors="np")["input_values"]
            np.testing.assert_array_equal(result, expected)

    def test_a_changed_attribute_counts(self):
        ours = SpectrimFeatureExtractor()
        ours.max_length = 16
        assert ours(noise(4000), sampling_rate=RATE)["input_values"][0].shape == (16, 128)

    def test_wrong_use_is_refused(self):
        ours = SpectrimFeatureExtractor()
        with pytest.raises(ValueError, match="sampling_rate is 44100; allowed: 16000"):
            ours(noise(4000), sampling_rate=44100)
        with pytest.raises(InvalidSetting, match="return_tensors"):
            ours(noise(4000), sampling_rate=RATE, return_tensors="tf")
        with pytest.raises(AudioError, match="waveform 1"):
            ours([noise(4000), noise(10)], sampling_rate=RATE)
        with pytest.raises(InputShapeError):
            ours([], sampling_rate=RATE)


def test_a_rate_that_is_said_has_to_be_that_of_the_front_end() -> None:
    front = frontend(64, sampling_rate=8000)
    given = front([noise(4000)], sampling_rate=8000)
    torch.testing.assert_close(given.input_values, front([noise(4000)]).input_values, rtol=0, atol=0)
    for rate in (16000, 0):
        with pytest.raises(InvalidSetting, match=rf"sampling_rate is {rate}; allowed: 8000: resample"):
            front([noise(4000)], sampling_rate=rate)


@pytest.mark.parametrize(
    ("waveforms", "words"),
    [
        (None, "waveforms: is a NoneType"),
        ("one.wav", "waveforms: is a str"),
        ([None], "waveform 0: is a NoneType"),
        ([[0.0, None]], "waveform 0: not a sequence of numbers"),
        ([["1"] * 800], "waveform 0: not a sequence of numbers"),
        ([[True] * 800], "waveform 0: not a sequence of numbers"),
        ([np.ma.masked_less(np.arange(800.0), 3)], "waveform 0: 3 samples are masked; fill them"),
        (np.ma.masked_less(np.arange(800.0), 3), "waveforms: 3 samples are masked"),
    ],
)
def test_what_is_no_waveform_is_refused_by_name(waveforms: Any, words: str) -> None:
    with pytest.raises(AudioError, match=words):
        Frontend(max_length=8, mean=0.0, std=0.5)(waveforms)


def test_a_mask_that_hides_nothing_is_no_obstacle() -> None:
    wave = np.sin(np.arange(800.0))
    front = Frontend(max_length=8, mean=0.0, std=0.5)
    assert torch.equal(front([np.ma.masked_array(wave)]).input_values, front([wave]).input_values)
