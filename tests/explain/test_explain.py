"""What is said of a clip is what the model does: operating points, files, sound, page."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from spectrim import explain as explaining
from spectrim.audio.frontend import Frontend
from spectrim.audio.resynthesis import join, part
from spectrim.backbones import ast_base, audiomae_base, ced_base
from spectrim.errors import AudioError, InputShapeError, InvalidSetting
from spectrim.explain import Explanation, explain, explain_clip
from spectrim.explain.page import LABELS_IN_TABLE, change_rows, hertz_at
from spectrim.explain.sound import clip_parts
from spectrim.inference.predict import predict_files
from spectrim.network.transformer import AudioTransformer
from spectrim.pictures.score_maps import score_maps_picture, score_scale
from spectrim.pictures.spectrograms import kept_area

LABELS = {index: f"sound <{index}>" for index in range(6)}


def make_model(builder: Any = ast_base, **fields: Any) -> AudioTransformer:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "hidden_size": 32,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "num_hidden_layers": 4,
        "prune_at": [2, 1],
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


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Callable[[float], str]:
    folder = tmp_path_factory.mktemp("sound")

    def make(seconds: float, rate: int = 16000) -> str:
        path = folder / f"a & <b> {seconds} {rate}.wav"
        random = np.random.default_rng(0)
        time = np.arange(round(rate * seconds)) / rate
        tone = 0.4 * np.sin(2 * np.pi * 600 * time) * (np.sin(2 * np.pi * 2 * time) > 0)
        soundfile.write(path, tone + 0.05 * random.standard_normal(len(time)), rate, subtype="FLOAT")
        return str(path)

    return make


@pytest.fixture(scope="module")
def long_clip(model: AudioTransformer, sound: Callable[[float], str]) -> Explanation:
    return explain_clip(sound(3.0), model, keep_rate=0.5, windows=2)


def plain_scores(
    model: AudioTransformer, samples: np.ndarray, rates: list[float], visible: np.ndarray | None = None
) -> np.ndarray:
    """One window through the model, with rates in the order of ``prune_at``."""
    features = Frontend.from_config(model.config)([samples])
    hidden = None if visible is None else torch.from_numpy(np.flatnonzero(visible))[None]
    with torch.inference_mode():
        logits = model(
            features.input_values, num_frames=features.num_frames, keep_rate=rates, visible_patches=hidden
        ).logits
    return logits[0].softmax(dim=0).numpy()


# Numbers


def test_scores_are_those_of_predict(model: AudioTransformer, long_clip: Explanation) -> None:
    for rate, kind in ((1.0, "dense"), (0.5, "pruned")):
        [expected] = predict_files([long_clip.clip], model, keep_rate=rate, workers=1)
        np.testing.assert_allclose(getattr(long_clip, kind), expected.scores, atol=1e-6)
        assert [(one.start, one.end) for one in long_clip.windows] == [(w.start, w.end) for w in expected.timeline]
        for one, window in zip(long_clip.windows, expected.timeline, strict=True):
            np.testing.assert_allclose(getattr(one, kind), window.scores, atol=1e-6)


def test_what_each_stage_changes(model: AudioTransformer, long_clip: Explanation) -> None:
    assert [(stage.block, stage.name) for stage in long_clip.stages] == [(1, "after block 1"), (2, "after block 2")]
    samples = soundfile.read(long_clip.clip, dtype="float32")[0]
    window = long_clip.windows[1]
    clip = samples[20480 : 20480 + 20720]
    whole, first, second = window.kept
    assert whole.all()
    assert (first.sum(), second.sum()) == (32, 16)
    assert (first & second == second).all()
    changes = window.detail.changes
    np.testing.assert_array_equal(changes[0].removed, ~first)
    np.testing.assert_array_equal(changes[1].removed, first & ~second)
    for scores, rates, visible in [
        (window.dense, [1.0, 1.0], None),
        (window.pruned, [0.5, 0.5], None),
        (changes[0].so_far, [1.0, 0.5], None),
        (changes[0].alone, [1.0, 0.5], None),
        (changes[0].unseen, [1.0, 1.0], first),
        (changes[1].so_far, [0.5, 0.5], None),
        (changes[1].alone, [0.5, 1.0], None),
        (changes[1].unseen, [1.0, 1.0], ~(first & ~second)),
    ]:
        np.testing.assert_allclose(scores, plain_scores(model, clip, rates, visible), atol=1e-6)
    assert np.abs(changes[1].alone - changes[1].so_far).max() > 1e-4
    assert np.abs(changes[1].unseen - window.dense).max() > 1e-4


def test_stages_between_are_cumulative(sound: Callable[[float], str]) -> None:
    model = make_model(prune_at=[0, 1, 2])
    path = sound(1.0)
    [window] = explain_clip(path, model, keep_rate=[0.9, 0.5, 0.6]).windows
    samples = soundfile.read(path, dtype="float32")[0]
    np.testing.assert_allclose(
        window.detail.changes[1].so_far, plain_scores(model, samples, [0.9, 0.5, 1.0]), atol=1e-6
    )
    assert [int(state.sum()) for state in window.kept] == [64, 58, 29, 18]


@pytest.mark.parametrize(("reducer", "keep_rate"), [("fuse", 0.5), ("merge", 0.5), ("cluster", 0.05)])
def test_patches_that_are_merged_are_not_removed(
    reducer: str, keep_rate: float, sound: Callable[[float], str], tmp_path: Path
) -> None:
    """A token carries each of them on, so there is nothing to hide; at 0.05 no patch is a token of its own any more."""
    merging = make_model(keep_rate=keep_rate, reducer=reducer, criterion="auto")
    found = explain_clip(sound(0.5), merging)
    detail = found.windows[0].detail
    assert detail is not None and all(not change.removed.any() for change in detail.changes)
    assert all(change.unseen is None and change.alone is not None for change in detail.changes)
    assert not found.windows[0].kept[-1].all()
    rows = change_rows(found, found.windows[0])
    assert {(row["removed"], row["unseen"]) for row in rows} == {(0, None)} and len(rows) % 2 == 0
    np.testing.assert_array_equal(detail.changes[-1].so_far, found.windows[0].pruned)
    content = explain(sound(0.5), merging, output=tmp_path / "out")
    carrying = [stage["tokens"] for stage in content["stages"]]
    assert carrying == found.windows[0].tokens[1:] and found.windows[0].tokens[0] == 64
    assert all(stage["patches_kept"] < tokens for stage, tokens in zip(content["stages"], carrying, strict=True))
    page = (tmp_path / "out" / "stages.html").read_text()
    assert page.count("<td>–</td>") == len(change_rows(found, found.windows[0], LABELS_IN_TABLE))


def test_only_the_first_windows_have_details(long_clip: Explanation, model: AudioTransformer) -> None:
    assert [window.detail is not None for window in long_clip.windows] == [True, True, False]
    assert len(long_clip.detailed) == 2
    assert np.isnan(long_clip.windows[0].detail.scores).sum(axis=(1, 2)).tolist() == [0, 0, 32, 48]
    undrawn = explain_clip(long_clip.clip, model, keep_rate=0.5, windows=0)
    assert not undrawn.detailed
    np.testing.assert_array_equal(undrawn.windows[2].kept, long_clip.windows[2].kept)


def test_more_windows_than_a_batch(model: AudioTransformer, sound: Callable[[float], str]) -> None:
    done: list[int] = []
    many = explain_clip(sound(12.0), model, keep_rate=0.5, windows=9, on_window=done.append)
    assert done == list(range(1, 11))
    assert len(many.detailed) == 9
    assert many.num_frames == 1198
    assert many.seconds == 12.0


def test_padding_that_is_removed(sound: Callable[[float], str]) -> None:
    model = make_model(audiomae_base, drop_padding=True)
    short = explain_clip(sound(0.5), model, keep_rate=0.5)
    [window] = short.windows
    assert short.names() == ["padding removed", "after block 1", "after block 2"]
    assert window.kept[0].sum() == 8 * 3
    assert not window.kept[0][:, 3:].any()
    assert [int(change.removed.sum()) for change in window.detail.changes] == [12, 6]
    assert [name for name, _ in window.detail.pictured] == short.names()


def test_the_mask_is_what_kept_patches_cover(long_clip: Explanation, model: AudioTransformer) -> None:
    frames = np.array([0, 127, 128, 200, 297])
    mask = long_clip.mask_at(2, frames)
    for column, frame in enumerate(frames):
        area = kept_area(long_clip.windows[frame // 128].kept[2], model.config, 128)
        np.testing.assert_array_equal(mask[:, column], area[:, frame % 128])
    assert 0 < mask.sum() < mask.size


def test_windows_of_centred_frames_share_out_the_clip(sound: Callable[[float], str]) -> None:
    """CED's last frame of a window stands where the next window begins, and only in the last window counts twice."""
    model = make_model(ced_base, max_length=129)
    found = explain_clip(sound(2.56), model, keep_rate=0.5, windows=0)
    assert [(window.start, window.end) for window in found.windows] == [(0.0, 1.28), (1.28, 2.56)]
    assert [window.num_frames for window in found.windows] == [129, 129]
    assert found.num_frames == 257
    frames = np.array([0, 127, 128, 255, 256])
    mask = found.mask_at(2, frames)
    areas = [kept_area(window.kept[2], model.config, 129) for window in found.windows]
    wanted = [areas[0][:, 0], areas[0][:, 127], areas[1][:, 0], areas[1][:, 127], areas[1][:, 128]]
    np.testing.assert_array_equal(mask, np.stack(wanted, axis=1))
    parts = join(list(clip_parts(found, 2)))
    np.testing.assert_array_equal(parts.whole, soundfile.read(found.clip, dtype="float32")[0])


# Files


@pytest.fixture(scope="module")
def folder(model: AudioTransformer, sound: Callable[[float], str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "deep" / "er"
    explain(sound(3.0), model, keep_rate=0.5, output=out, windows=2, device="cpu")
    return out


def test_files(folder: Path, long_clip: Explanation) -> None:
    content = json.loads((folder / "explain.json").read_text())
    assert (
        sorted(content["files"])
        == sorted(path.name for path in folder.iterdir())
        == [
            "arrays.npz",
            "dropped.wav",
            "explain.json",
            "kept.wav",
            "original.wav",
            "overview.at-00001.28s.png",
            "overview.png",
            "scores.at-00001.28s.png",
            "scores.png",
            "stages.html",
        ]
    )
    for path in folder.glob("*.png"):
        with Image.open(path) as picture:
            assert picture.width > 500
    arrays = np.load(folder / "arrays.npz")
    np.testing.assert_array_equal(arrays["kept"], np.stack([window.kept for window in long_clip.windows]))
    np.testing.assert_allclose(arrays["scores"], np.stack([one.detail.scores for one in long_clip.detailed]), rtol=1e-5)
    assert content["stages"][1] == {
        "name": "after block 2",
        "block": 2,
        "keep_rate": 0.5,
        "patches_in": 96,
        "patches_kept": 48,
        "tokens": 48,
    }
    assert [window["changes"] is None for window in content["windows"]] == [False, False, True]
    assert [window["frames"] for window in content["windows"]] == [128, 128, 42]
    best = content["labels"][0]
    index = int(long_clip.dense.argmax())
    assert best["label"] == LABELS[index]
    assert best["dense"] == pytest.approx(float(long_clip.dense[index]), abs=1e-6)
    assert best["pruned"] == pytest.approx(float(long_clip.pruned[index]), abs=1e-6)
    rows = content["windows"][1]["changes"]
    one = next(row for row in rows if row["label"] == best["label"] and row["stage"] == "after block 2")
    assert one["removed"] == 16
    assert one["unseen"] == pytest.approx(float(long_clip.windows[1].detail.changes[1].unseen[index]), abs=1e-6)


def test_sounds(folder: Path, long_clip: Explanation) -> None:
    original, kept, dropped = (
        soundfile.read(folder / f"{name}.wav", dtype="float32") for name in ("original", "kept", "dropped")
    )
    assert soundfile.info(folder / "kept.wav").subtype == "FLOAT"
    assert {original[1], kept[1], dropped[1]} == {16000}
    np.testing.assert_array_equal(original[0], soundfile.read(long_clip.clip, dtype="float32")[0])
    assert np.abs(kept[0] + dropped[0] - original[0]).max() <= 1e-6 * np.abs(original[0]).max()
    parts = part(original[0], long_clip.mask_at(2, np.arange(298)))
    np.testing.assert_allclose(kept[0], parts.kept, atol=1e-6)
    content = json.loads((folder / "explain.json").read_text())
    assert content["sound"]["kept_energy"] == pytest.approx(parts.kept_energy / parts.energy, rel=1e-6)
    assert content["sound"]["kept_energy"] == content["sound"]["kept_energy_of_stages"][-1]
    assert 0.01 < content["sound"]["kept_energy"] < 0.99


def test_loud_sounds_are_not_clipped(model: AudioTransformer, tmp_path: Path) -> None:
    loud = 3.0 * np.random.default_rng(0).standard_normal(16000)
    soundfile.write(tmp_path / "loud.wav", loud, 16000, subtype="FLOAT")
    explain(tmp_path / "loud.wav", model, keep_rate=0.5, output=tmp_path / "out", windows=0, device="cpu")
    kept, dropped = (soundfile.read(tmp_path / "out" / f"{name}.wav")[0] for name in ("kept", "dropped"))
    np.testing.assert_allclose(kept + dropped, loud.astype(np.float32), atol=1e-5)
    for state in page_data(tmp_path / "out")["sounds"]:
        both = sum(embedded(state[name]) for name in ("kept", "dropped"))
        assert np.corrcoef(both, loud)[0, 1] > 0.99999


def page_data(folder: Path) -> dict[str, Any]:
    page = (folder / "stages.html").read_text()
    return json.loads(re.search(r"const data = (.*);\n", page)[1])


def embedded(uri: str) -> np.ndarray:
    kind, data = uri.split(",")
    assert kind == "data:audio/wav;base64"
    return soundfile.read(io.BytesIO(base64.b64decode(data)))[0]


def test_page(folder: Path, long_clip: Explanation, model: AudioTransformer) -> None:
    page = (folder / "stages.html").read_text()
    assert "a &amp; &lt;b&gt; 3.0 16000.wav" in page
    assert "sound &lt;" in page
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert "2 of 3 windows are drawn" in page
    data = page_data(folder)
    assert len(data["sounds"]) == 3
    np.testing.assert_allclose(
        embedded(data["sounds"][2]["kept"]), soundfile.read(folder / "kept.wav")[0], atol=2.0**-14
    )
    window = data["windows"][1]
    for path, kept in zip(window["paths"], long_clip.windows[1].kept, strict=True):
        area = np.zeros((128, 128), dtype=bool)
        for x, y in re.findall(r"M(\d+) (\d+)h16v16h-16z", path):
            area[int(y) : int(y) + 16, int(x) : int(x) + 16] = True
        np.testing.assert_array_equal(area, kept_area(kept, model.config, 128))
    assert window["counts"] == [f"{number} of 64 patches kept" for number in (64, 32, 16)]
    scores = {row["label"]: row["texts"] for row in window["rows"]}
    second = long_clip.windows[1]
    for index, label in LABELS.items():
        if label in scores:
            expected = [second.dense, *(change.so_far for change in second.detail.changes)]
            assert scores[label] == [f"{one[index]:.3f}" for one in expected]
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        root = ElementTree.fromstring(svg)
        assert len(root.findall(".//rect[@class='cell']")) == 64
        assert root.find(".//rect[@class='cell']/title").text.startswith(
            "0.00–0.16 s" if root.get("data-start") == "0.0" else "1.28–1.44 s"
        )


@pytest.mark.parametrize(
    ("reducer", "word"), [("drop", "gone after block"), ("merge", "joined into others after block")]
)
def test_the_page_says_what_became_of_a_patch(
    reducer: str, word: str, sound: Callable[[float], str], tmp_path: Path
) -> None:
    explain(sound(1.0), make_model(reducer=reducer), keep_rate=0.5, output=tmp_path, device="cpu")
    page = (tmp_path / "stages.html").read_text()
    named = re.findall(r"<title>([^<]* Hz: [^<]*)</title>", page)
    fates = [fate for fate in (text.split(" Hz: ")[1] for text in named) if not fate.startswith("kept")]
    assert len(named) == 64 and fates and all(fate.startswith(word) for fate in fates)


def test_page_of_a_long_clip_links_its_sound(
    model: AudioTransformer, sound: Callable[[float], str], tmp_path: Path
) -> None:
    content = explain(sound(16.0), model, keep_rate=0.5, output=tmp_path, windows=0, device="cpu")
    page = (tmp_path / "stages.html").read_text()
    assert 'src="kept.wav"' in page and 'src="dropped.wav"' in page
    assert page_data(tmp_path)["sounds"] == []
    assert content["sound"]["kept_energy_of_stages"] is None
    assert len(page) < 50_000


@pytest.mark.parametrize("builder", [ast_base, audiomae_base])
def test_patches_that_overlap(builder: Any, sound: Callable[[float], str], tmp_path: Path) -> None:
    model = make_model(builder, frequency_stride=10, time_stride=10, criterion="intensity")
    content = explain(sound(1.5), model, keep_rate=0.5, output=tmp_path, windows=1, device="cpu")
    assert content["windows"][0]["patches"] == [144, 72, 36]
    assert "Patches overlap" in (tmp_path / "stages.html").read_text()
    first = page_data(tmp_path)
    everything = embedded(first["sounds"][0]["kept"])
    # Two mel bins at the top, and two frames at the end of each window, are in no patch.
    assert 0.95 < float(first["shares"][0].split("%")[0]) / 100 < 1.0
    assert len(everything) == 24000


def test_nothing_to_prune(sound: Callable[[float], str], tmp_path: Path) -> None:
    model = make_model(prune_at=[])
    path = sound(1.0)
    content = explain(path, model, output=tmp_path, device="cpu")
    assert content["stages"] == []
    np.testing.assert_allclose(soundfile.read(tmp_path / "dropped.wav")[0], 0.0, atol=1e-6)
    assert "No block prunes" in (tmp_path / "stages.html").read_text()
    dense = explain(path, make_model(), keep_rate=1.0, output=tmp_path, windows=0, device="cpu")
    assert [stage["patches_kept"] for stage in dense["stages"]] == [64, 64]


def test_silence(model: AudioTransformer, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silence.wav", np.zeros(8000), 16000)
    content = explain(tmp_path / "silence.wav", model, keep_rate=0.5, output=tmp_path / "out", device="cpu")
    assert content["sound"]["kept_energy"] == 1.0


def test_another_rate_becomes_the_models(model: AudioTransformer, sound: Any, tmp_path: Path) -> None:
    explain(sound(1.0, 44100), model, keep_rate=0.5, output=tmp_path, windows=0, device="cpu")
    assert (soundfile.info(tmp_path / "original.wav").samplerate, soundfile.info(tmp_path / "kept.wav").frames) == (
        16000,
        16000,
    )


# What goes wrong


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clip": np.zeros(16000)}, "clip is 'ndarray'; allowed: the name of a sound file"),
        ({"keep_rate": 0.0}, "keep_rate is 0.0; allowed: a number in"),
        ({"keep_rate": [0.5]}, "one number, or 2 of them"),
        ({"windows": -1}, "windows is -1; allowed: 0 or more"),
        ({"device": "abacus"}, "device is 'abacus'"),
    ],
)
def test_settings(options: dict[str, Any], message: str, model: AudioTransformer, sound: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=message):
        explain(**{"clip": sound(1.0), "model": model, "output": tmp_path / "out", "device": "cpu", **options})
    assert not (tmp_path / "out").exists()


def test_output_that_is_a_file(model: AudioTransformer, tmp_path: Path) -> None:
    (tmp_path / "out").touch()
    with pytest.raises(InvalidSetting, match="a folder, or a name that is still free"):
        explain("none.wav", model, output=tmp_path / "out", device="cpu")


@pytest.mark.parametrize("name", ["original.wav", "kept.wav", "dropped.wav"])
def test_neither_the_clip_nor_sounds_of_others_are_replaced(
    name: str, model: AudioTransformer, sound: Callable[[float], str], tmp_path: Path
) -> None:
    mine = tmp_path / name
    shutil.copy(sound(1.0), mine)
    before = mine.read_bytes()
    with pytest.raises(InvalidSetting, match=f"output is '.*{name}'; allowed: another name: that file is read"):
        explain(mine, model, output=tmp_path, device="cpu")
    with pytest.raises(InvalidSetting, match=f"allowed: a folder without {name}, which would be replaced"):
        explain(sound(1.0), model, output=tmp_path, device="cpu")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [(name, before)]


def test_an_earlier_run_is_replaced(model: AudioTransformer, sound: Callable[[float], str], tmp_path: Path) -> None:
    for seconds in (0.5, 1.0):
        explain(sound(seconds), model, output=tmp_path, windows=0, device="cpu")
        assert soundfile.info(tmp_path / "original.wav").duration == seconds
    with pytest.raises(InvalidSetting, match="that file is read"):
        explain(tmp_path / "kept.wav", model, output=tmp_path, device="cpu")


def test_an_interrupted_run_is_repeated_into_its_folder(
    model: AudioTransformer, sound: Callable[[float], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, states = Path.replace, []

    def replace_seen(path: Path, target: Path) -> Path:
        states.append(tmp_path / f"before {target.name}")
        shutil.copytree(target.parent, states[-1])
        return replace(path, target)

    def run(folder: Path) -> None:
        explain(sound(1.0), model, keep_rate=0.5, output=folder, windows=0, device="cpu")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace_seen)
        run(tmp_path / "whole")
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert sorted(f"before {name}" for name in names) == sorted(path.name for path in states)
    for killed in states:
        run(killed)
        assert sorted(path.name for path in killed.iterdir()) == names


def test_a_bad_clip_leaves_nothing(model: AudioTransformer, sound: Callable[[float], str], tmp_path: Path) -> None:
    whole = Path(sound(3.0)).read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.wav").touch()
    soundfile.write(tmp_path / "nan.wav", np.full(40000, np.nan), 16000, subtype="FLOAT")
    for name, reason in {
        "cut.wav": "truncated",
        "empty.wav": "empty file",
        "nan.wav": "NaN",
        "none.wav": "no such file",
        ".": "folder",
    }.items():
        with pytest.raises(AudioError, match=reason):
            explain(tmp_path / name, model, output=tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()


def test_sounds_appear_whole_or_not_at_all(
    long_clip: Explanation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(*_: Any) -> Any:
        raise OSError("disk full")

    monkeypatch.setattr(explaining.sound.soundfile.SoundFile, "write", breaks)
    with pytest.raises(OSError, match="disk full"), explaining.sound.sounds_beside(long_clip, tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


# Small things


def test_score_maps_share_a_scale() -> None:
    config = make_model().config
    scores = np.random.default_rng(0).uniform(0.001, 0.2, (4, *config.grid))
    scores[2, 0, :] = np.nan
    scale = score_scale(scores)
    assert scale.vmax == np.nanmax(scores)
    assert scale(scores[0, 0, 0]) == pytest.approx(
        (np.log(scores[0, 0, 0]) - np.log(scale.vmin)) / (np.log(scale.vmax) - np.log(scale.vmin)), abs=1e-6
    )
    assert score_scale(scores - 0.1)(0.0) == pytest.approx(
        (0.1 - np.nanquantile(scores, 0.01)) / (np.nanmax(scores) - np.nanquantile(scores, 0.01)), abs=1e-6
    )
    assert np.isfinite(score_scale(np.full((2, 8, 8), 0.5))(0.5))
    assert np.isfinite(score_scale(np.zeros((2, 8, 8)))(0.0))


@pytest.mark.parametrize("shape", [(8, 8), (4, 8, 7)])
def test_score_maps_of_another_grid(shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(InputShapeError, match="wanted"):
        score_maps_picture(np.ones(shape), make_model().config, "", None, tmp_path / "a.png")


def test_scores_that_carry_gradients_are_drawn(tmp_path: Path) -> None:
    model = make_model(criterion="auto", keep_rate=0.5, reducer="fuse")
    scores = torch.stack(model(torch.randn(1, 128, 128), output_token_trace=True).token_trace.scores)[:, 0]
    assert scores.requires_grad
    assert score_maps_picture(scores, model.config, "", None, tmp_path / "a.png").stat().st_size > 1000


def test_hertz_of_mel_bins() -> None:
    config = make_model().config
    centres = [hertz_at(config, bin + 0.5) for bin in range(128)]
    mels = 1127 * np.log1p(np.array(centres) / 700)
    np.testing.assert_allclose(np.diff(mels), np.diff(mels)[0], rtol=1e-6)
    assert (hertz_at(config, 0), hertz_at(config, 128)) == (20.0, 8000.0)
