"""The demonstration's table and pictures, against the model run by hand on one clip at a time."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from sklearn.metrics import accuracy_score

from spectrim import assets
from spectrim.audio import files as audio
from spectrim.audio.frontend import Frontend
from spectrim.backbones import ast_base
from spectrim.checkpoints import from_pretrained
from spectrim.data import DATA_SETS
from spectrim.errors import AudioError, CheckpointError, DataError, InvalidSetting
from spectrim.explain import window_pictures
from spectrim.explain.window_pictures import clip_painter
from spectrim.measure import demo
from spectrim.network.macs import macs
from spectrim.network.transformer import AudioTransformer

RATES = (1.0, 0.6, 0.3)
ROW = ["keep_rate", "accuracy", "agreement", "paper_macs", "executed_macs", "ms_per_clip", "speed_up"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little timing: no test looks at how fast anything is."""
    monkeypatch.setattr(demo, "TIMING_SECONDS", 0.0)
    monkeypatch.setattr(demo, "FEWEST_REPEATS", 2)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random model that knows the packaged clips' labels and whose answers differ between clips."""
    torch.manual_seed(0)
    words = DATA_SETS["speech-commands"].labels
    config = ast_base(
        hidden_size=32,
        num_attention_heads=4,
        intermediate_size=64,
        num_hidden_layers=4,
        prune_at=[1, 2],
        max_length=128,
        initializer_range=0.6,
        head_init_std=1.0,
        mean=-9.0,
        std=5.0,
        id2label=dict(enumerate(words)),
        label2id={word: index for index, word in enumerate(words)},
    )
    folder = tmp_path_factory.mktemp("model")
    AudioTransformer(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Eleven second-long chirps in noise, more than one batch."""
    folder = tmp_path_factory.mktemp("clips")
    generator = np.random.default_rng(0)
    time = np.arange(16000) / 16000
    paths = []
    for index in range(11):
        low, rise, level = generator.uniform(100, 3000), generator.uniform(0, 3000), generator.uniform(0.001, 0.1)
        chirp = 0.5 * np.sin(2 * np.pi * (low + rise * time) * time) * (time > generator.uniform(0, 0.8))
        paths.append(folder / f"clip{index}.wav")
        soundfile.write(paths[-1], chirp + level * generator.normal(size=16000), 16000)
    return paths


def answers_by_hand(checkpoint: Path, files: Sequence[Path], rate: float) -> list[str]:
    model = from_pretrained(checkpoint, keep_rate=rate)
    frontend = Frontend.from_config(model.config)
    said = []
    for path in files:
        with torch.no_grad():
            logits = model(frontend([audio.read(path).samples]).input_values).logits
        said.append(model.config.id2label[int(logits[0].argmax())])
    return said


def test_a_row_holds_what_the_model_says_and_costs(
    checkpoint: Path, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dense = answers_by_hand(checkpoint, files, 1.0)
    truth = [word if index % 3 else "zero" for index, word in enumerate(dense)]
    with (tmp_path / "labels.csv").open("w", newline="") as table:
        writer = csv.writer(table)
        writer.writerow(["path", "label", "voice"])
        writer.writerows([path.name, word, "somebody"] for path, word in zip(files, truth, strict=True))
    for path in files:
        (tmp_path / path.name).symlink_to(path)
    monkeypatch.setattr(assets, "DEMO_CLIPS", tmp_path)
    result = demo.run(model=checkpoint, keep_rates=RATES, pictures=0)
    assert [list(row) for row in result.rows] == [ROW] * 3
    for row, rate in zip(result.rows, RATES, strict=True):
        said = answers_by_hand(checkpoint, files, rate)
        count = macs(from_pretrained(checkpoint), keep_rate=rate)
        assert row["keep_rate"] == rate
        assert row["accuracy"] == pytest.approx(accuracy_score(truth, said))
        assert row["agreement"] == pytest.approx(accuracy_score(dense, said))
        assert (row["paper_macs"], row["executed_macs"]) == (count.paper, count.executed)
        assert row["speed_up"] == pytest.approx(result.rows[0]["ms_per_clip"] / row["ms_per_clip"])
    assert len(set(dense)) > 2
    assert result.rows[0]["agreement"] == 1.0 > result.rows[2]["agreement"]
    assert 0.3 < result.rows[0]["accuracy"] < 1.0
    assert [(clip.path.name, clip.label) for clip in result.clips] == list(
        zip([path.name for path in files], truth, strict=True)
    )
    assert (result.batch_size, result.repeats, result.errors) == (8, 2, [])


def test_agreement_is_with_the_dense_model_even_where_it_has_no_row(
    checkpoint: Path, files: list[Path], tmp_path: Path
) -> None:
    result = demo.run(files, model=checkpoint, keep_rates=[0.3], pictures=0)
    expected = accuracy_score(answers_by_hand(checkpoint, files, 1.0), answers_by_hand(checkpoint, files, 0.3))
    assert [row["keep_rate"] for row in result.rows] == [0.3]
    assert result.rows[0]["agreement"] == pytest.approx(expected)
    assert expected < 1.0
    assert result.rows[0]["speed_up"] == 1.0
    assert result.rows[0]["accuracy"] is None


def test_time_is_the_median_pass_over_its_clips(
    checkpoint: Path, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def fake(cases, *, repeats, warmup, on_round=None):
        calls.append((list(cases), repeats, warmup))
        return {1.0: [0.03, 0.01, 0.02], 0.5: [0.01, 0.01, 0.5]}

    monkeypatch.setattr(demo, "interleaved", fake)
    monkeypatch.setattr(demo, "TIMING_SECONDS", 0.1201)
    result = demo.run(files[:4], model=checkpoint, keep_rates=[1.0, 0.5], pictures=0)
    assert calls == [([1.0, 0.5], 1, demo.WARM_UP), ([1.0, 0.5], 3, 0)]
    assert [row["ms_per_clip"] for row in result.rows] == pytest.approx([20 / 4, 10 / 4])
    assert [row["speed_up"] for row in result.rows] == pytest.approx([1.0, 2.0])
    assert result.batch_size == 4


def test_pictures_show_clips_spread_over_all_at_the_lowest_rate(
    checkpoint: Path, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = []
    draw = window_pictures.explain_picture

    def record(log_mel, kept, config, labels, title, num_frames, path):
        drawn.append((log_mel, kept, labels, title, num_frames))
        return draw(log_mel, kept, config, labels, title, num_frames, path)

    monkeypatch.setattr(window_pictures, "explain_picture", record)
    output = tmp_path / "some" / "where"
    result = demo.run(files, model=checkpoint, keep_rates=[0.3, 1.0], draw=clip_painter(output), pictures=3)
    assert sorted(output.iterdir()) == result.pictures
    assert [path.name for path in result.pictures] == [
        "1-clip0-keep-0.3.png",
        "2-clip5-keep-0.3.png",
        "3-clip10-keep-0.3.png",
    ]
    for path in result.pictures:
        with Image.open(path) as image:
            image.load()
    model = from_pretrained(checkpoint, keep_rate=0.3)
    features = Frontend.from_config(model.config)([audio.read(files[5]).samples])
    with torch.no_grad():
        out = model(features.input_values, output_token_trace=True)
    log_mel, kept, labels, title, num_frames = drawn[1]
    np.testing.assert_allclose(log_mel, features.input_values[0].numpy(), atol=1e-6)
    assert [name for name, _ in kept] == ["after block 1", "after block 2"]
    for block, (_, mask) in zip((1, 2), kept, strict=True):
        np.testing.assert_array_equal(mask, out.token_trace.kept[block][0].numpy())
    scores = out.logits[0].softmax(dim=0)
    assert labels[0][0] == model.config.id2label[int(scores.argmax())]
    assert [score for _, score in labels] == pytest.approx(sorted(scores.tolist(), reverse=True)[:5], abs=1e-5)
    assert title == "clip5.wav, keep rate 0.3"
    assert num_frames == 98


def test_what_is_drawn_are_scores_and_no_picture_goes_over_a_file(
    checkpoint: Path, files: list[Path], tmp_path: Path
) -> None:
    network = from_pretrained(checkpoint)
    network.config.problem_type = "multi_label_classification"
    network.save_pretrained(tmp_path / "multi")
    drawn = []
    demo.run(
        files[:1],
        model=tmp_path / "multi",
        keep_rates=[1.0],
        draw=lambda *shown: drawn.append(shown) or Path(),
        pictures=1,
    )
    features = Frontend.from_config(network.config)([audio.read(files[0]).samples])
    with torch.no_grad():
        wanted = network(features.input_values).logits[0].sigmoid()
    np.testing.assert_allclose(drawn[0][3], wanted, atol=1e-5)
    with pytest.raises(InvalidSetting, match=r"^output is "):
        clip_painter(Path(__file__))


def test_files_of_one_name_in_two_folders_give_two_pictures(
    checkpoint: Path, files: list[Path], tmp_path: Path
) -> None:
    other = tmp_path / "clip0.wav"
    other.symlink_to(files[1])
    result = demo.run([files[0], other], model=checkpoint, keep_rates=[0.5], draw=clip_painter(tmp_path / "out"))
    assert len(set(result.pictures)) == len(list((tmp_path / "out").iterdir())) == 2


def test_a_bad_file_is_named_and_the_others_go_on(checkpoint: Path, files: list[Path], tmp_path: Path) -> None:
    broken, loud = tmp_path / "broken.wav", tmp_path / "loud.wav"
    broken.write_bytes(b"not audio")
    soundfile.write(loud, np.full(16000, 1e20), 16000, subtype="DOUBLE")
    named = [broken, files[0], loud, tmp_path / "missing.wav"]
    result = demo.run(named, model=checkpoint, keep_rates=[1.0], pictures=0)
    assert [clip.path for clip in result.clips] == [files[0]]
    assert [error.source for error in result.errors] == [str(broken), str(loud), str(tmp_path / "missing.wav")]


def test_with_no_usable_file_the_first_reason_is_raised(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"one\.wav: no such file"):
        demo.run([tmp_path / "one.wav", tmp_path / "two.wav"], model=checkpoint)


def test_of_a_long_file_the_start_is_heard_and_its_length_told(
    checkpoint: Path, files: list[Path], tmp_path: Path
) -> None:
    start = audio.read(files[3]).samples
    rest = np.random.default_rng(1).normal(size=70000).astype(np.float32) * 0.1
    whole = np.concatenate([start, rest])
    soundfile.write(tmp_path / "long.wav", whole, 16000, subtype="FLOAT")
    (clip,) = demo.run([tmp_path / "long.wav"], model=checkpoint, pictures=0).clips
    assert clip.seconds == pytest.approx(86000 / 16000, abs=0.03)
    assert clip.num_frames == 128
    expected = Frontend.from_config(from_pretrained(checkpoint).config)([whole]).input_values[0]
    torch.testing.assert_close(clip.log_mel, expected, atol=1e-4, rtol=0)


def test_damage_far_into_a_file_is_found(checkpoint: Path, files: list[Path], tmp_path: Path) -> None:
    samples = np.zeros(80000, dtype=np.float32)
    samples[75000] = np.nan
    soundfile.write(tmp_path / "late.wav", samples, 16000, subtype="FLOAT")
    result = demo.run([tmp_path / "late.wav", files[0]], model=checkpoint, pictures=0)
    assert "NaN" in result.errors[0].reason


def test_labels_that_the_model_does_not_know_give_no_accuracy(
    checkpoint: Path, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = f"path,label,voice\n{files[0]},one,x\n{files[1]},unheard-of,x\n"
    (tmp_path / "labels.csv").write_text(table)
    monkeypatch.setattr(assets, "DEMO_CLIPS", tmp_path)
    rows = demo.run(model=checkpoint, pictures=0).rows
    assert [row["accuracy"] for row in rows] == [None, None, None]


def test_the_package_holds_labelled_clips_that_can_be_read() -> None:
    packaged = assets.packaged_clips()
    words = set(DATA_SETS["speech-commands"].labels)
    assert len(packaged) >= 100
    assert {label for _, label in packaged} == words
    for path, _ in packaged[::20]:
        assert 0.9 < audio.read(path).seconds < 1.1


def test_an_installation_without_clips_says_what_to_do(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assets, "DEMO_CLIPS", tmp_path / "nowhere")
    with pytest.raises(DataError, match="name audio files"):
        demo.run(model=checkpoint)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"keep_rates": []}, "keep_rates"),
        ({"keep_rates": [1.0, 1.5]}, "keep_rate"),
        ({"pictures": -1}, "pictures"),
    ],
)
def test_wrong_settings_are_refused_before_the_model_is_looked_for(settings: dict, field: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        demo.run(model="/no/such/model", **settings)
    assert caught.value.field == field


def test_a_missing_model_is_an_error_of_its_own(tmp_path: Path, files: list[Path]) -> None:
    with pytest.raises(CheckpointError):
        demo.run(files, model=tmp_path / "nothing")


def test_progress_goes_from_nothing_to_all_in_every_part(checkpoint: Path, files: list[Path], tmp_path: Path) -> None:
    told: dict[str, list[tuple[int, int]]] = {}

    def listen(what: str, done: int, total: int) -> None:
        told.setdefault(what, []).append((done, total))

    demo.run(
        files, model=checkpoint, keep_rates=[0.5, 0.3], draw=clip_painter(tmp_path), pictures=1, on_progress=listen
    )
    assert list(told) == ["read", "tag", "time", "draw"]
    assert {what: steps[-1] for what, steps in told.items()} == {
        "read": (11, 11),
        "tag": (33, 33),
        "time": (2, 2),
        "draw": (1, 1),
    }
    for steps in told.values():
        assert steps == sorted(steps)
        assert len({total for _, total in steps}) == 1


def test_a_keep_rate_given_twice_has_one_row(checkpoint: Path, files: list[Path], tmp_path: Path) -> None:
    rows = demo.run(files[:1], model=checkpoint, keep_rates=[1, 0.5, 1.0], pictures=0).rows
    assert [row["keep_rate"] for row in rows] == [1.0, 0.5]
