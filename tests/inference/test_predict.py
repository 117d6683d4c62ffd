from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import transformers
from decoders import decode, numbered
from PIL import Image

import spectrim.inference.predict
from spectrim.audio import files as audio
from spectrim.audio.feature_extractor import SpectrimFeatureExtractor
from spectrim.audio.finding import Selection
from spectrim.audio.frontend import Frontend
from spectrim.backbones import ast_base, audiomae_base, ced_base
from spectrim.errors import CheckpointError, InvalidSetting
from spectrim.explain.window_pictures import window_painter
from spectrim.files import name_with
from spectrim.inference.events import sound_events
from spectrim.inference.opening import open_model
from spectrim.inference.output_file import OutputFile
from spectrim.inference.predict import predict_files
from spectrim.inference.results import FilePrediction, aggregated
from spectrim.inference.torch_model import TorchModel
from spectrim.machine import resolve_device
from spectrim.network.transformer import AudioTransformer

LABELS = {index: f"sound {index}" for index in range(6)}


def make_model(builder: Any = ast_base, **fields: Any) -> AudioTransformer:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "hidden_size": 64,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "num_hidden_layers": 4,
        "prune_at": [1, 2],
        "max_length": 128,
        "mean": -9.0,
        "std": 5.0,
        "initializer_range": 0.2,
        "head_init_std": 1.0,
        "id2label": LABELS,
        "label2id": {name: index for index, name in LABELS.items()},
        "problem_type": "single_label_classification",
    }
    return AudioTransformer(builder(**{**settings, **fields})).eval()


@pytest.fixture(scope="module")
def model() -> AudioTransformer:
    return make_model()


def sound(seconds: float, seed: int, rate: int = 16000) -> np.ndarray:
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    tones = sum(np.sin(2 * np.pi * random.uniform(100, 4000) * time + phase) for phase in range(3))
    return (0.1 * tones + 0.02 * random.standard_normal(len(time))).astype(np.float32)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Clips of many lengths, rates, channels and formats."""
    folder = tmp_path_factory.mktemp("clips")
    made = []
    for index, (seconds, rate, channels, ending, subtype) in enumerate(
        [
            (1.0, 16000, 1, "wav", "PCM_16"),
            (0.025, 16000, 1, "wav", "PCM_32"),
            (0.7, 8000, 2, "wav", "PCM_16"),
            (1.2, 96000, 1, "flac", "PCM_24"),
            (3.3, 44100, 2, "mp3", "MPEG_LAYER_III"),
            (1.295, 16000, 1, "wav", "FLOAT"),
            (2.0, 48000, 1, "ogg", "VORBIS"),
            (1.0, 22050, 3, "aiff", "PCM_16"),
        ]
    ):
        samples = np.stack([sound(seconds, 10 * index + channel, rate) for channel in range(channels)], axis=1)
        soundfile.write(folder / f"{index}.{ending}", samples, rate, subtype=subtype)
        made.append(str(folder / f"{index}.{ending}"))
    return made


def plain_scores(model: AudioTransformer, path: str, starts: list[float] | None = None) -> np.ndarray:
    """Scores of each window of a file (windows, labels), one forward pass each, from the whole decoded file."""
    samples = audio.read(path).samples
    frontend = Frontend.from_config(model.config)
    rows = []
    for start in starts or [0.0]:
        features = frontend([samples[round(start * 16000) : round(start * 16000) + 20720]])
        with torch.no_grad():
            rows.append(torch.softmax(model(features.input_values).logits[0].double(), 0).numpy())
    return np.stack(rows)


def test_scores_are_those_of_the_model_run_by_hand(model: AudioTransformer, clips: list[str]) -> None:
    found = list(predict_files(clips, model))
    assert [prediction.path for prediction in found] == clips
    for prediction in found:
        assert prediction.error is None
        starts = [window.start for window in prediction.timeline]
        scores = plain_scores(model, prediction.path, starts)
        np.testing.assert_allclose([window.scores for window in prediction.timeline], scores, atol=1e-5)
        lengths = [window.end - window.start for window in prediction.timeline]
        np.testing.assert_allclose(prediction.scores, np.average(scores, axis=0, weights=lengths), atol=1e-5)
        assert prediction.scores is not None
        assert prediction.scores.dtype == np.float32
        best = int(np.argmax(prediction.scores))
        assert prediction.top(2)[0] == (LABELS[best], float(prediction.scores[best]))
        assert len(prediction.top(100)) == len(LABELS)


@pytest.mark.parametrize("keep_rate", [1.0, 0.5])
def test_scores_do_not_depend_on_batch_or_order(model: AudioTransformer, clips: list[str], keep_rate: float) -> None:
    def scores(paths: list[str], **options: Any) -> dict[str, Any]:
        return {found.path: found.scores for found in predict_files(paths, model, keep_rate=keep_rate, **options)}

    alone = scores(clips, batch_size=1)
    for other in (
        scores(clips),
        scores(clips[::-1], batch_size=3, workers=3),
        scores([clips[index] for index in (3, 0, 6)], batch_size=2),
        scores(clips[4:5]),
    ):
        for path, values in other.items():
            np.testing.assert_allclose(values, alone[path], atol=1e-5)
    assert len({tuple(np.round(values, 3)) for values in alone.values()}) == len(clips)


class Broken(Exception):
    pass


def run_into(
    path: Path, form: str, clips: list[str], model: Any, break_after: int | None = None, **options: Any
) -> tuple[int, list[FilePrediction]]:
    """Tag clips into a file with batches of three, and leave off when that many windows were heard; how many were."""
    heard, tracks = 0, []
    backend = TorchModel(model)

    class Counting(TorchModel):
        def scores(self, waveforms: Any) -> Any:
            nonlocal heard
            if heard >= (break_after or 99):
                raise Broken
            heard += len(waveforms)
            return backend.scores(waveforms)

    file = OutputFile(path, form, {}, top=6, **options)
    left = file.remaining(Selection(clips))
    try:
        for found in predict_files(left, Counting(model), batch_size=3, hop=0.6, window=0.6, store=file):
            tracks.append(found)
            file.write(found)
        file.finish()
    except Broken:
        file.close()
    return heard, tracks


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_a_run_broken_inside_a_file_goes_on_there_to_the_same_bytes(
    model: AudioTransformer, clips: list[str], tmp_path: Path, form: str
) -> None:
    bad = tmp_path / "cut.flac"
    soundfile.write(bad, sound(6.0, 6), 16000)
    bad.write_bytes(bad.read_bytes()[:-20000])
    clips = [*clips[:5], str(bad), *clips[5:]]
    total, unbroken = run_into(tmp_path / "whole", form, clips, model)
    for break_after in (1, 7, 11):
        heard, _ = run_into(tmp_path / "out", form, clips, model, break_after)
        assert not (tmp_path / "out").exists()
        again, _ = run_into(tmp_path / "out", form, clips, model, break_after, resume=True)
        assert again > 0
        assert heard + again < total
        rest, found = run_into(tmp_path / "out", form, clips, model, resume=True)
        assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()
        assert heard + again + rest == total
        for ours, theirs in zip(found, unbroken[len(unbroken) - len(found) :], strict=True):
            assert sound_events(ours, {"sound 1": 0.2}) == sound_events(theirs, {"sound 1": 0.2})
        (tmp_path / "out").unlink()


def test_a_file_that_has_changed_since_is_heard_anew(model: AudioTransformer, clips: list[str], tmp_path: Path) -> None:
    clip = tmp_path / "clip.wav"
    soundfile.write(clip, sound(6.0, 1), 16000)
    assert run_into(tmp_path / "out", "csv", [str(clip)], model, 6)[0] == 6
    soundfile.write(clip, sound(5.9, 2), 16000)
    assert run_into(tmp_path / "out", "csv", [str(clip)], model, resume=True)[0] == 10
    run_into(tmp_path / "whole", "csv", [str(clip)], model)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()


def test_scores_after_a_resume_are_those_of_the_unbroken_run(model: AudioTransformer, clips: list[str]) -> None:
    """A resumed run leaves out the first files: with batches of one window bit by bit, else to 1e-6 (six digits)."""
    for size, tolerance in ((1, 0.0), (3, 1e-6)):
        unbroken = {found.path: found for found in predict_files(clips, model, keep_rate=0.5, batch_size=size)}
        for first in (1, 4, 5):
            for found in predict_files(clips[first:], model, keep_rate=0.5, batch_size=size):
                before = unbroken[found.path]
                assert found.scores is not None and before.scores is not None
                assert float(np.abs(found.scores - before.scores).max()) <= tolerance
                assert [label for label, _ in found.top(1)] == [label for label, _ in before.top(1)]


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification", None])
@pytest.mark.parametrize("builder", [ast_base, audiomae_base])
def test_scores_are_those_of_the_transformers_pipeline(
    tmp_path: Path, clips: list[str], builder: Any, problem_type: str | None
) -> None:
    network = make_model(builder, problem_type=problem_type, keep_rate=0.6)
    network.save_pretrained(tmp_path)
    SpectrimFeatureExtractor.from_config(network.config).save_pretrained(tmp_path)
    pipeline = transformers.pipeline("audio-classification", model=str(tmp_path))
    for prediction in predict_files(clips[:4], tmp_path):
        samples = audio.read(prediction.path).samples
        theirs = pipeline({"raw": samples, "sampling_rate": 16000}, top_k=len(LABELS))
        assert dict(prediction.top(99)) == pytest.approx({row["label"]: row["score"] for row in theirs}, abs=1e-5)


def test_no_aggregate_maximum_and_mean(model: AudioTransformer, clips: list[str]) -> None:
    found = {how: next(predict_files([clips[4]], model, aggregate=how)) for how in ("none", "max", "mean")}
    scores = plain_scores(model, clips[4], [0.0, 1.28, 2.56])
    assert found["none"].scores is None
    assert found["none"].top() == []
    np.testing.assert_allclose(found["max"].scores, scores.max(axis=0), atol=1e-5)
    weights = [1.295, 1.295, found["mean"].seconds - 2.56]
    np.testing.assert_allclose(found["mean"].scores, weights @ scores / sum(weights), atol=1e-5)
    for prediction in found.values():
        assert [window.start for window in prediction.timeline] == [0.0, 1.28, 2.56]
        assert prediction.seconds == pytest.approx(3.3, abs=1e-4)


def test_default_windows_share_out_the_frames_of_the_whole_file(model: AudioTransformer) -> None:
    """Frames of the windows, joined, are the frames of the waveform in one piece (up to the mean of the waveform)."""
    tagger = TorchModel(model)
    assert (tagger.window_seconds, tagger.hop_seconds) == (1.295, 1.28)
    long = TorchModel(make_model(max_length=1024))
    assert (long.window_seconds, long.hop_seconds) == (10.255, 10.24)
    samples = sound(4.7, 1)
    whole = Frontend(max_length=512, mean=-9.0, std=5.0)([samples])
    pieces = []
    for _, piece in audio.cut([samples], 20720, 20480, 400):
        features = tagger.prepare([piece])
        pieces.append(features.input_values[0, : features.num_frames[0]])
    joined = torch.cat(pieces)
    assert len(joined) == whole.num_frames[0]
    # The waveform's mean is taken off window by window: only the lowest mel bins notice.
    torch.testing.assert_close(joined[:, 8:], whole.input_values[0, : len(joined), 8:], atol=2e-2, rtol=0)


def test_default_windows_of_centred_frames_follow_without_a_gap(tmp_path: Path) -> None:
    """Of CED's 1001 frames, the last stands at the end of the window."""
    tagger = TorchModel(make_model(ced_base, max_length=129))
    assert (tagger.window_seconds, tagger.hop_seconds) == (1.28, 1.28)
    soundfile.write(tmp_path / "noise.wav", sound(4.0, 1), 16000)
    windows = list(audio.iterate_windows(tmp_path / "noise.wav", tagger.window_seconds, tagger.hop_seconds))
    assert sum(len(window.samples) for window in windows) == 64000


def test_window_and_hop(model: AudioTransformer, clips: list[str]) -> None:
    [halves] = predict_files([clips[6]], model, window=0.5)
    assert [(window.start, window.end) for window in halves.timeline] == [(0, 0.5), (0.5, 1), (1, 1.5), (1.5, 2)]
    [overlapping] = predict_files([clips[6]], model, window=1.0, hop=0.75)
    assert [(window.start, window.end) for window in overlapping.timeline] == [(0, 1), (0.75, 1.75), (1.5, 2)]
    [sparse] = predict_files([clips[6]], model, hop=1.5)
    assert [window.start for window in sparse.timeline] == [0, 1.5]
    assert halves.note is overlapping.note is None


@pytest.mark.parametrize(
    ("clip", "options", "unheard"),
    [
        (6, {"window": 0.5, "hop": 0.7}, "25.0%"),
        (6, {"window": 0.5, "hop": 10.0}, "75.0%"),
        (6, {"window": 0.5, "hop": 0.5}, None),
        (0, {"window": 1.0, "hop": 10.0}, None),
    ],
)
def test_what_lies_between_windows_is_noted(
    model: AudioTransformer, clips: list[str], clip: int, options: dict[str, float], unheard: str | None
) -> None:
    [found] = predict_files([clips[clip]], model, **options)
    samples, rate = soundfile.read(clips[clip])
    of_samples = spectrim.predict(samples, model, sampling_rate=rate, **options)
    wanted = unheard and f"its windows lie apart, as hop says: {unheard} of it was not heard"
    assert found.note == of_samples.note == wanted


def test_a_file_of_exactly_one_window_gives_one(model: AudioTransformer, clips: list[str]) -> None:
    [prediction] = predict_files([clips[5]], model)
    assert [(window.start, window.end) for window in prediction.timeline] == [(0.0, 1.295)]
    np.testing.assert_array_equal(prediction.scores, prediction.timeline[0].scores)


def test_padding_is_dropped_where_the_model_says_so(clips: list[str]) -> None:
    network = make_model(drop_padding=True, problem_type="multi_label_classification")
    features = Frontend.from_config(network.config)([audio.read(clips[2]).samples])
    with torch.no_grad():
        logits = network(features.input_values, num_frames=features.num_frames).logits
        with_padding = network(features.input_values, num_frames=torch.tensor([128])).logits
    [prediction] = predict_files([clips[2]], network)
    np.testing.assert_allclose(prediction.scores, logits[0].sigmoid().numpy(), atol=1e-5)
    assert not np.allclose(prediction.scores, with_padding[0].sigmoid().numpy(), atol=1e-3)


def test_another_sampling_rate(clips: list[str]) -> None:
    network = make_model(sampling_rate=8000)
    [prediction] = predict_files([clips[2]], network)
    features = Frontend.from_config(network.config)([audio.read(clips[2], 8000).samples])
    with torch.no_grad():
        scores = network(features.input_values).logits.softmax(-1)[0]
    np.testing.assert_allclose(prediction.scores, scores.numpy(), atol=1e-5)


def test_the_callers_model_keeps_its_keep_rate(model: AudioTransformer, clips: list[str]) -> None:
    half = next(predict_files(clips[:1], model, keep_rate=0.5)).scores
    assert model.config.keep_rate == 1.0
    dense = next(predict_files(clips[:1], model)).scores
    assert not np.allclose(half, dense, atol=1e-3)


# Bad input


def bad_files(folder: Path) -> dict[str, str]:
    """Files of every kind of bad, and how the reason begins."""
    good = sound(1.0, 5)
    soundfile.write(folder / "good.wav", good, 16000)
    whole = (folder / "good.wav").read_bytes()
    (folder / "empty.wav").touch()
    (folder / "text.wav").write_text("not audio " * 100)
    (folder / "truncated.wav").write_bytes(whole[: len(whole) // 2])
    soundfile.write(folder / "header.wav", good[:0], 16000)
    soundfile.write(folder / "short.wav", good[:160], 16000)
    soundfile.write(folder / "cut.flac", sound(6.0, 6), 16000)
    (folder / "cut.flac").write_bytes((folder / "cut.flac").read_bytes()[:-20000])
    for name, value in (("nan", np.nan), ("inf", np.inf)):
        soundfile.write(folder / f"{name}.wav", np.append(good, np.float32(value)), 16000, subtype="FLOAT")
    (folder / "folder.wav").mkdir()
    return {
        "missing.wav": "no such file",
        "empty.wav": "empty file (0 bytes)",
        "text.wav": "cannot be read as audio",
        "truncated.wav": "truncated: the header promises",
        "header.wav": "header only",
        "short.wav": "too short: 10 ms, shorter than one frame of 25 ms",
        "cut.flac": "truncated or damaged",
        "nan.wav": "has a sample that is NaN or infinite, at 1.000 s",
        "inf.wav": "has a sample that is NaN or infinite, at 1.000 s",
        "folder.wav": "no audio file in this folder",
    }


def test_each_bad_file_gets_its_reason_and_the_rest_goes_on(model: AudioTransformer, tmp_path: Path) -> None:
    reasons = bad_files(tmp_path)
    good = str(tmp_path / "good.wav")
    [expected] = predict_files([good], model)
    copies = []
    for index in range(len(reasons) + 1):
        copies.append(str(tmp_path / f"good-{index}.wav"))
        Path(copies[-1]).write_bytes(Path(good).read_bytes())
    paths = [copies[0]]
    for name, copy in zip(reasons, copies[1:], strict=True):
        paths += [str(tmp_path / name), copy]
    found = {prediction.path: prediction for prediction in predict_files(paths, model, batch_size=4, workers=2)}
    assert len(found) == len(paths)
    for name, beginning in reasons.items():
        bad = found[str(tmp_path / name)]
        assert bad.error is not None
        assert bad.error.startswith(beginning)
        assert (bad.scores, list(bad.timeline), bad.top()) == (None, [], [])
    for copy in copies:
        np.testing.assert_allclose(found[copy].scores, expected.scores, atol=1e-5)
    files = [path for path in paths if path != str(tmp_path / "folder.wav")]
    assert [*found] == [str(tmp_path / "folder.wav"), *files]


def test_a_file_that_crashes_the_decoder(model: AudioTransformer, tmp_path: Path) -> None:
    for name in ("a.wav", "segfault.wav", "b.wav", "late.wav", "c.wav", "exit.wav"):
        soundfile.write(tmp_path / name, sound(2.0, 1), 16000)
    paths = [tmp_path / name for name in ("a.wav", "segfault.wav", "b.wav", "late.wav", "c.wav")]
    found = list(predict_files(paths, model, batch_size=3, decode=decode))
    assert [prediction.error for prediction in found[::2]] == [None, None, None]
    for prediction in found[1::2]:
        assert prediction.error is not None
        assert prediction.error.startswith("crashed the decoder (Segmentation fault")
    np.testing.assert_allclose(found[0].scores, found[4].scores, atol=1e-5)


def test_wrong_settings_are_refused_before_any_work(model: AudioTransformer, clips: list[str], tmp_path: Path) -> None:
    for name, value in (
        ("window", 1.3),
        ("window", 0.02),
        ("window", "1"),
        ("window", True),
        ("hop", "1"),
        ("hop", 0.0),
        ("hop", -1.0),
        ("aggregate", "median"),
        ("batch_size", 0),
        ("batch_size", 2.5),
        ("batch_size", "a"),
        ("workers", 0),
        ("workers", 1.5),
        ("keep_rate", 1.5),
        ("device", "tpu"),
    ):
        options: dict[str, Any] = {name: value}
        with pytest.raises(InvalidSetting, match=f"^{name} is "):
            predict_files(clips, model, **options)
    with pytest.raises(InvalidSetting, match="paths"):
        predict_files([], model)
    with pytest.raises(CheckpointError):
        predict_files(clips, tmp_path / "none")


def test_bfloat16_scores_are_near_those_of_float32(model: AudioTransformer, clips: list[str], tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    found = {}
    for precision, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        opened = open_model(tmp_path, 0.7, precision)
        assert opened.precision == str(kind).removeprefix("torch.")
        found[precision] = np.stack([one.scores for one in predict_files(clips[:3], opened) if one.scores is not None])
    assert found["bf16"].shape == (3, len(LABELS))
    assert found["bf16"].dtype == np.float32
    np.testing.assert_allclose(found["bf16"], found["fp32"], atol=0.03)
    assert not np.array_equal(found["bf16"], found["fp32"])


def test_a_precision_is_refused_where_it_cannot_be_had(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="precision is 'half'; allowed: one of auto, bf16, fp32"):
        open_model(tmp_path, None, "half")
    with pytest.raises(InvalidSetting, match="precision is 'bf16'; allowed: none with an exported file"):
        open_model(tmp_path / "model.onnx", None, "bf16")


def test_a_missing_gpu_is_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device() == torch.device("cpu")
    with pytest.raises(InvalidSetting, match=r"device is 'cuda'; allowed: one of auto, cpu; torch sees no usable CUDA"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device() == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(InvalidSetting, match=r"cuda:0, cuda:1$"):
        resolve_device("cuda:2")


def test_windows_are_counted_as_they_come(model: AudioTransformer, clips: list[str]) -> None:
    windows: list[audio.Window] = []
    list(predict_files(clips[4:6], model, on_window=windows.append))
    heard = [window.seconds for window in windows]
    assert heard[:2] == [1.295, 1.295]
    assert heard[2] == pytest.approx(0.74, abs=1e-4)
    assert heard[3:] == [1.295]
    assert [window.file_seconds for window in windows] == [None, pytest.approx(3.3), pytest.approx(3.3), None]


def test_the_next_prediction_is_not_held_back_by_what_comes_later(model: AudioTransformer, clips: list[str]) -> None:
    predictions = predict_files(clips * 5, model, batch_size=1)
    assert next(predictions).path == clips[0]
    predictions.close()


def test_memory_does_not_grow_with_the_length_of_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spectrim.inference.predict, "LOOK_AHEAD", 1)
    network = make_model(num_hidden_layers=1, prune_at=[0])
    peaks = []
    for windows in (40, 240):
        tracemalloc.start()
        [prediction] = predict_files(Selection([f"{windows}.wav"]), network, decode=numbered, batch_size=4)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert len(prediction.timeline) == windows
    # 200 more windows are 17 MB of samples; their scores and times may stay, some 500 bytes each.
    assert peaks[1] - peaks[0] < 1e6


# Pictures, small things


def test_explain_draws_every_window(model: AudioTransformer, clips: list[str], tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    long = "l" * 251 + ".wav"
    for name in ("one.wav", "deep/one.wav", f"deep/{long}"):
        (tmp_path / name).write_bytes(Path(clips[0]).read_bytes())
    files = [str(tmp_path / name) for name in ("one.wav", "deep/one.wav", "two.mp3", f"deep/{long}")]
    Path(files[2]).write_bytes(Path(clips[4]).read_bytes())
    out = tmp_path / "pictures"
    backend = TorchModel(model).at(keep_rate=0.5)
    explained = list(predict_files(files, backend, paint=window_painter(backend, out, files)))
    drawn = sorted(str(path.relative_to(out)) for path in out.rglob("*.png"))
    assert drawn == [
        f"deep/{name_with(long, '.png')}",
        "deep/one.wav.png",
        "one.wav.png",
        "two.mp3.at-00001.28s.png",
        "two.mp3.at-00002.56s.png",
        "two.mp3.png",
    ]
    for path in out.rglob("*.png"):
        with Image.open(path) as picture:
            assert picture.width > 500
    plain = list(predict_files(files, model, keep_rate=0.5))
    for with_picture, without in zip(explained, plain, strict=True):
        np.testing.assert_array_equal(with_picture.scores, without.scores)


def test_aggregate_of_one_window_is_that_window() -> None:
    prediction = FilePrediction("a", ["x", "y"])
    assert (prediction.seconds, prediction.error, list(prediction.timeline)) == (0.0, None, [])
    assert aggregated([], "none") is None


def test_a_note_is_in_the_prediction(tmp_path: Path, model: AudioTransformer) -> None:
    left = sound(0.5, 1)
    soundfile.write(tmp_path / "a.wav", np.stack([left, -left], axis=1), 16000, subtype="FLOAT")
    soundfile.write(tmp_path / "b.wav", left, 16000)
    first, second = predict_files([tmp_path / "a.wav", tmp_path / "b.wav"], model)
    assert first.note == "its channels cancel out in the mix-down to mono, to exact zeros, for 0.50 of 0.50 s"
    assert (first.error, second.error, second.note) == (None, None, None)
