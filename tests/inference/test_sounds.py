"""`spectrim.predict`: one call for files and arrays, held to the engine for files and to what its parts are."""

from __future__ import annotations

import builtins
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from unreadable import lock

import spectrim
from spectrim.assets import packaged_clips
from spectrim.errors import AudioError, InvalidSetting, SpectrimError
from spectrim.inference.predict import predict_files
from spectrim.inference.results import FilePrediction, WindowScores


@pytest.fixture(scope="module")
def model() -> spectrim.AudioTransformer:
    return spectrim.from_pretrained("spectrim-mini")


def clip(number: int = 0) -> tuple[str, np.ndarray, int]:
    path = str(packaged_clips()[number][0])
    samples, rate = soundfile.read(path, dtype="float32")
    return path, samples, rate


def test_one_path_gives_one_prediction_and_several_an_iterator(model: spectrim.AudioTransformer) -> None:
    paths = [str(path) for path, _ in packaged_clips()[:3]]
    expected = list(predict_files(paths, model, keep_rate=0.7))
    for sound in (paths[0], Path(paths[0])):
        found = spectrim.predict(sound, model, keep_rate=0.7)
        assert found.path == paths[0] and found.top(1)[0][0] == expected[0].top(1)[0][0]
        np.testing.assert_allclose(found.scores, expected[0].scores, atol=1e-6)
    several = spectrim.predict(paths, model, keep_rate=0.7)
    assert iter(several) is several
    assert [found.top(2) for found in several] == [found.top(2) for found in expected]
    assert [found.path for found in spectrim.predict((path for path in paths[:1]), model)] == paths[:1]
    assert list(spectrim.predict([], model)) == []
    assert [found.path for found in spectrim.predict([paths[1], paths[1]], model)] == [paths[1], paths[1]]


def test_several_may_be_folders_and_patterns(model: spectrim.AudioTransformer, tmp_path: Path) -> None:
    _, samples, rate = clip()
    (tmp_path / "none").mkdir()
    for name in ("b.wav", "a.wav", "x[1].wav"):
        soundfile.write(tmp_path / name, samples, rate)
    named = [tmp_path / "x[1].wav", tmp_path, tmp_path / "?.wav"]
    found = [Path(prediction.path).name for prediction in spectrim.predict(named, model)]
    assert found == ["x[1].wav", "a.wav", "b.wav", "x[1].wav", "a.wav", "b.wav"]
    with pytest.raises(InvalidSetting, match="no audio file in this folder"):
        spectrim.predict([tmp_path / "none"], model)


@pytest.mark.parametrize("wrong", [5, None, b"spectrim-mini", torch.nn.Linear(2, 2)])
@pytest.mark.parametrize("options", [{}, {"criterion": "random"}])
def test_what_is_no_model_is_refused_with_what_is_one(wrong: object, options: dict[str, str]) -> None:
    with pytest.raises(InvalidSetting, match=rf"model is '{type(wrong).__name__}'; .*spectrim\.prune makes one"):
        spectrim.predict(clip()[0], wrong, **options)


def test_a_criterion_ranks_as_a_model_that_was_loaded_with_it() -> None:
    path, samples, rate = clip()
    found = {}
    for name in (None, "value_norm", "cls_attention"):
        loaded = spectrim.from_pretrained("spectrim-mini", keep_rate=0.5, criterion=name)
        expected = spectrim.predict(path, loaded).scores
        found[name] = spectrim.predict(path, keep_rate=0.5, criterion=name).scores
        np.testing.assert_allclose(found[name], expected, atol=1e-6)
        again = spectrim.predict(samples, keep_rate=0.5, criterion=name, sampling_rate=rate)
        np.testing.assert_allclose(again.scores, expected, atol=1e-5)
    np.testing.assert_array_equal(found[None], found["value_norm"])
    assert np.abs(found["cls_attention"] - found["value_norm"]).max() > 1e-3


def test_a_reducer_merges_as_a_model_that_was_loaded_with_it() -> None:
    path, samples, rate = clip()
    loaded = spectrim.from_pretrained("spectrim-mini", keep_rate=0.5, reducer="cluster")
    expected = spectrim.predict(path, loaded).scores
    np.testing.assert_allclose(spectrim.predict(path, keep_rate=0.5, reducer="cluster").scores, expected, atol=1e-6)
    fused = spectrim.predict(samples, keep_rate=0.5, reducer="fuse", criterion="cls_attention", sampling_rate=rate)
    assert np.abs(fused.scores - expected).max() > 1e-4
    with pytest.raises(InvalidSetting, match=r"reducer is 'merge'; .*model\.set_pruning\(reducer=…\)"):
        spectrim.predict(path, loaded, reducer="merge")
    with pytest.raises(InvalidSetting, match="criterion is 'value_norm'; allowed: 'auto' with reducer='cluster'"):
        spectrim.predict(path, keep_rate=0.5, reducer="cluster", criterion="value_norm")


def test_a_criterion_is_refused_where_the_ranking_is_settled(model: spectrim.AudioTransformer) -> None:
    path, *_ = clip()
    with pytest.raises(InvalidSetting, match=r"loaded already: model\.set_pruning\(criterion=…\)"):
        spectrim.predict(path, model, criterion="random")
    with pytest.raises(InvalidSetting, match="spectrim export --criterion"):
        spectrim.predict(path, "some.onnx", criterion="random")
    with pytest.raises(InvalidSetting, match="cls_attention"):
        spectrim.predict(path, keep_rate=0.5, criterion="cls_atention")


def test_an_array_is_heard_as_its_file(model: spectrim.AudioTransformer) -> None:
    path, samples, rate = clip()
    expected = spectrim.predict(path, model).scores
    integers = np.round(samples * 32768).clip(-32768, 32767).astype(np.int16)
    rows = [{"array": samples, "sampling_rate": rate, "path": path}]
    for sound in (samples, torch.from_numpy(samples), samples.astype(np.float64), integers, rows[0]):
        given = None if isinstance(sound, dict) else rate
        found = spectrim.predict(sound, model, sampling_rate=given)
        np.testing.assert_allclose(found.scores, expected, atol=1e-4)
        assert found.path == "waveform 0"
    assert [found.path for found in spectrim.predict([samples, integers], model, sampling_rate=rate)] == [
        "waveform 0",
        "waveform 1",
    ]
    assert len(list(spectrim.predict(rows, model))) == 1


class Decoder:
    """Stands in for the AudioDecoder of torchcodec that `datasets` gives since release 4: no mapping, and no array."""

    def __init__(self, samples: np.ndarray | None, rate: int) -> None:
        self.values = {"array": samples, "sampling_rate": rate}

    def __getitem__(self, key: str) -> object:
        if key not in self.values:
            raise TypeError("'AudioDecoder' object is not subscriptable")
        if self.values[key] is None:
            raise RuntimeError("could not seek")
        return self.values[key]


def test_a_row_that_is_a_decoder_is_heard_as_its_file(model: spectrim.AudioTransformer) -> None:
    path, samples, rate = clip()
    expected = spectrim.predict(path, model).scores
    both = np.stack([1.5 * samples, 0.5 * samples])
    for array in (samples, both, both[:1] * 2 / 3, torch.from_numpy(both)):
        np.testing.assert_allclose(spectrim.predict(Decoder(array, rate), model).scores, expected, atol=1e-4)
    rows = [Decoder(None, rate), Decoder(samples, rate), {"array": samples, "sampling_rate": rate}]
    damaged, *heard = spectrim.predict(rows, model)
    assert damaged.error == "cannot be decoded: could not seek" and [row.error for row in heard] == [None, None]
    with pytest.raises(AudioError, match="waveform 0: cannot be decoded"):
        spectrim.predict(Decoder(None, rate), model)
    with pytest.raises(InvalidSetting, match=f"{rate}, as waveform 0 says"):
        spectrim.predict(Decoder(samples, rate), model, sampling_rate=8000)
    no_rate = Decoder(samples, rate)
    del no_rate.values["sampling_rate"]
    with pytest.raises(InvalidSetting, match="sound is 'Decoder'; allowed: rows with 'array' and 'sampling_rate'"):
        spectrim.predict(no_rate, model)


def test_an_array_at_another_rate_is_resampled_and_a_long_one_cut(
    model: spectrim.AudioTransformer, tmp_path: Path
) -> None:
    generator = np.random.default_rng(0)
    samples = (0.1 * generator.standard_normal(int(3.1 * 22050))).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", samples, 22050, subtype="FLOAT")
    for options in ({}, {"window": 0.5, "hop": 0.25, "aggregate": "max"}):
        expected = spectrim.predict(tmp_path / "a.wav", model, **options)
        found = spectrim.predict(samples, model, sampling_rate=22050, **options)
        assert [(w.start, w.end) for w in found.timeline] == [(w.start, w.end) for w in expected.timeline]
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)


def test_what_cannot_be_heard_is_an_error_of_the_one_and_a_row_among_several(
    model: spectrim.AudioTransformer, tmp_path: Path
) -> None:
    (tmp_path / "bad.wav").write_bytes(b"RIFF")
    with pytest.raises(AudioError, match=r"bad\.wav"):
        spectrim.predict(tmp_path / "bad.wav", model)
    with pytest.raises(AudioError, match="no such file"):
        spectrim.predict("no.wav", model)
    with pytest.raises(AudioError, match="File name too long"):
        spectrim.predict("a" * 300, model)
    path, samples, rate = clip()
    bad, long, good = spectrim.predict([str(tmp_path / "bad.wav"), "a" * 300, path], model)
    assert bad.error and bad.scores is None and good.error is None
    assert long.error == "cannot be opened: File name too long"
    with pytest.raises(InvalidSetting, match="no audio file matches this pattern"):
        spectrim.predict(["?" * 300], model)
    broken = samples.copy()
    broken[7] = np.nan
    for sound, said in ((broken, "NaN"), (samples[:100], "shorter than one frame"), (samples > 0, "type bool")):
        with pytest.raises(AudioError, match=said):
            spectrim.predict(sound, model, sampling_rate=rate)
        _, row = spectrim.predict([samples, sound], model, sampling_rate=rate)
        assert said in row.error and row.scores is None
    with pytest.raises(AudioError, match="mono"):
        spectrim.predict(np.zeros((16000, 2), np.float32), model, sampling_rate=rate)
    first, _ = spectrim.predict([broken, samples], model, sampling_rate=rate)
    assert "NaN" in first.error


def test_a_waveform_that_resampling_makes_too_short_is_an_error_of_its_own(model: spectrim.AudioTransformer) -> None:
    """200 samples are a frame at 8012 Hz, and 399 at 16 kHz are none."""
    _, samples, _ = clip()
    said = "too short: 24.96 ms, shorter than one frame of 25 ms"
    for aggregate in ("mean", "none"):
        short, good = spectrim.predict([samples[:200], samples], model, sampling_rate=8012, aggregate=aggregate)
        assert (short.error, good.error) == (said, None)
    with pytest.raises(AudioError, match=said):
        spectrim.predict(samples[:200], model, sampling_rate=8012)


def test_tensors_that_do_not_hold_every_sample(model: spectrim.AudioTransformer) -> None:
    _, samples, rate = clip()
    sparse, meta = torch.from_numpy(samples).to_sparse(), torch.zeros(16000, device="meta")
    for sound, said in ((sparse, "is a tensor of layout sparse_coo"), (meta, "is a tensor on the meta device")):
        bad, good = spectrim.predict([sound, torch.from_numpy(samples)], model, sampling_rate=rate)
        assert bad.error.startswith(said) and good.error is None


def test_a_folder_that_cannot_be_read_is_a_row_of_its_own(
    model: spectrim.AudioTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "locked").mkdir()
    shutil.copy(clip()[0], tmp_path)
    lock(monkeypatch, tmp_path / "locked")
    locked, good = spectrim.predict([tmp_path], model)
    assert locked.path == str(tmp_path / "locked") and good.error is None
    assert locked.error == "this folder cannot be read: Permission denied"


@pytest.mark.parametrize(
    ("sound", "options", "said"),
    [
        (np.zeros(16000, np.float32), {}, "sampling_rate is None"),
        (np.zeros(16000, np.float32), {"sampling_rate": 16000.0}, "sampling_rate is 16000.0"),
        (np.zeros(16000, np.float32), {"sampling_rate": 0}, "sampling_rate is 0"),
        ({"raw": np.zeros(16000)}, {}, "rows with 'array'"),
        ({"array": np.zeros(16000), "sampling_rate": 8000}, {"sampling_rate": 16000}, "8000"),
        ("a.wav", {"sampling_rate": 16000}, "None with files"),
        (["a.wav"], {"sampling_rate": 16000}, "None with files"),
        (["a.wav", np.zeros(16000)], {}, "a path, as the first"),
        (5, {}, "sound is 'int'"),
        ([5], {}, "sound is 'several of type int'; allowed: paths, or arrays"),
        (
            [0.0, 0.1],
            {"sampling_rate": 16000},
            r"type float'; .* the samples of one sound are numpy\.asarray\(samples\)",
        ),
        (".", {}, r"predict\(\[folder\]\)"),
        (["a.wav"], {"window": -1.0}, "window"),
        (["a.wav"], {"aggregate": "median"}, "aggregate"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_work(
    model: spectrim.AudioTransformer, sound: object, options: dict, said: str
) -> None:
    with pytest.raises(InvalidSetting, match=said):
        spectrim.predict(sound, model, **options)


def test_a_prediction_prints_well(tmp_path: Path) -> None:
    scores = np.array([0.1, 0.7, 0.05, 0.15], np.float32)
    found = FilePrediction("a.wav", ["a", "b", "c", "d"], 1.5, (), scores)
    assert repr(found) == str(found) == "a.wav (1.50 s): b 0.700, d 0.150, a 0.100"
    assert repr(FilePrediction("a.wav", ["a"], error="no such file")) == "a.wav: no such file"


def test_a_dataframe_has_a_row_a_window(model: spectrim.AudioTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = np.concatenate([clip(0)[1], clip(1)[1], clip(2)[1]])
    found = spectrim.predict(samples, model, sampling_rate=16000)

    def without_pandas(name: str, *rest: object, **more: object) -> object:
        if name == "pandas":
            raise ImportError(name)
        return original(name, *rest, **more)

    original = builtins.__import__
    with monkeypatch.context() as patch:
        patch.setattr(builtins, "__import__", without_pandas)
        with pytest.raises(SpectrimError, match="pip install pandas"):
            found.to_dataframe()
    frame = found.to_dataframe()
    assert list(frame.columns[:2]) == ["start", "end"] and len(frame) == len(found.timeline) > 1
    assert frame.drop(columns=["start", "end"]).idxmax(axis=1)[0] == found.top(1, found.timeline[0].scores)[0][0]


def test_labels_may_be_called_as_the_times_are() -> None:
    windows = [WindowScores(start, start + 1.0, np.array([0.5, start], np.float32)) for start in (0.0, 1.0)]
    frame = FilePrediction("a.wav", ["x", "end"], 2.0, windows).to_dataframe()
    assert list(frame.columns) == ["start", "end", "x", "end (label)"]
    assert (frame["end"].tolist(), frame["end (label)"].tolist()) == ([1.0, 2.0], [0.0, 1.0])


def test_predictions_can_be_looked_for_and_are_equal_to_themselves() -> None:
    scores = np.array([0.1, 0.9], np.float32)
    one, other = (FilePrediction("a", ["x", "y"], 1.0, (WindowScores(0, 1, scores),), scores) for _ in range(2))
    assert one == one and one != other and other in [one, other] and one not in [other]
    assert len({one, other}) == 2
