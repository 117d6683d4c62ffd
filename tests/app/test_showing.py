"""What stands on the page is what the model does with that stretch of that sound."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from spectrim.app.page import Updater, choices, chosen_pruning, is_loopback, numbers_table
from spectrim.app.showing import Stretch, show, take_stretch
from spectrim.backbones import ast_base
from spectrim.errors import AudioError, InvalidSetting
from spectrim.inference.torch_model import TorchModel
from spectrim.network.macs import macs
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.criteria import CRITERIA
from spectrim.pruning.pruning import Pruning
from spectrim.pruning.reducers import REDUCERS
from spectrim.pruning.words import CRITERION_WORDS, REDUCER_WORDS

LABELS = {index: f"sound <{index}>" for index in range(6)}


@pytest.fixture(scope="module")
def model() -> TorchModel:
    torch.manual_seed(0)
    config = ast_base(
        hidden_size=32,
        num_attention_heads=2,
        intermediate_size=64,
        num_hidden_layers=4,
        prune_at=[1, 2],
        max_length=128,
        mean=-9.0,
        std=5.0,
        initializer_range=0.2,
        head_init_std=1.0,
        id2label=LABELS,
        label2id={name: index for index, name in LABELS.items()},
        problem_type="single_label_classification",
    )
    return TorchModel(AudioTransformer(config).eval())


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    return (0.2 * np.random.default_rng(0).standard_normal(64000)).astype(np.float32)


@pytest.fixture(scope="module")
def long_sound(noise: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sounds") / "long.wav"
    soundfile.write(path, noise, 16000, subtype="FLOAT")
    return path


@pytest.fixture(scope="module")
def stretch(long_sound: Path, model: TorchModel) -> Stretch:
    return take_stretch(long_sound, model, start=1.5)


def test_the_stretch_that_holds_a_second(stretch: Stretch, noise: np.ndarray, model: TorchModel) -> None:
    length = round(model.window_seconds * 16000)
    np.testing.assert_array_equal(stretch.samples, noise[20480 : 20480 + length])
    assert stretch.name == "long"
    [note] = stretch.notes
    assert note.startswith("Shown: second 1.28 to 2.5") and "the sound goes on" in note


def test_labels_are_those_of_the_two_operating_points(stretch: Stretch, model: TorchModel) -> None:
    pruning = Pruning(0.3, at=(1, 2), criterion="intensity")
    shown = show(stretch, model, pruning, "<name>")
    for kind, point in (("dense", model.at(keep_rate=1.0)), ("pruned", model.at(pruning))):
        scores = point.scores([stretch.samples])[0]
        for row in shown.labels:
            index = list(LABELS.values()).index(row["label"])
            assert row[kind] == pytest.approx(float(scores[index]), abs=1e-6)
    assert shown.macs["dense"] == macs(model.config, keep_rate=1.0).executed
    assert shown.macs["pruned"] == macs(model.config, pruning=pruning).executed < shown.macs["dense"]
    assert min(shown.milliseconds.values()) > 0
    assert "6 of 64 patches kept" in shown.page
    assert "ranked by loudness (intensity)" in shown.page and "&lt;name&gt;" in shown.page
    table = numbers_table(shown)
    assert "sound &lt;" in table and "sound <" not in table


@pytest.mark.parametrize("reducer", [name for name, reducer in REDUCERS.items() if reducer.reads != "predictor"])
def test_every_reducer_shows_something(stretch: Stretch, model: TorchModel, reducer: str) -> None:
    pruning = Pruning(0.5, at=(1, 2), reducer=reducer)
    shown = show(stretch, model, pruning)
    scores = model.at(pruning).scores([stretch.samples])[0]
    index = list(LABELS.values()).index(shown.labels[0]["label"])
    assert shown.labels[0]["pruned"] == pytest.approx(float(scores[index]), abs=1e-6)


def test_attention_mass_counts_what_was_kept(stretch: Stretch, model: TorchModel) -> None:
    shown = show(stretch, model, Pruning(0.1, at=(1, 2), attention_mass=0.9))
    kept = [int(text) for text in re.findall(r'"counts": \["64 of 64 patches kept", "(\d+) of', shown.page)]
    assert kept[0] > 7
    dense, pruned = shown.macs["dense"], shown.macs["pruned"]
    assert macs(model.config, keep_rate=0.1).executed < pruned < dense


@pytest.mark.parametrize("mass", [0.0, 0.9])
def test_macs_are_of_the_patches_that_enter(model: TorchModel, noise: np.ndarray, tmp_path: Path, mass: float) -> None:
    soundfile.write(tmp_path / "short.wav", noise[:6400], 16000)
    taken = take_stretch(tmp_path / "short.wav", model)
    pruning = Pruning(0.5, at=(1, 2), drop_padding=True, attention_mass=mass)
    shown = show(taken, model, pruning)
    values, lengths = model.prepare([taken.samples])
    for kind, rate in (("dense", 1.0), ("pruned", 0.5)):
        point = model.at(Pruning(rate, at=(1, 2), drop_padding=True, attention_mass=mass if rate < 1 else 0.0))
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            point.logits(values, lengths)
        assert shown.macs[kind] == counter.get_total_flops() / 2
    assert shown.macs["dense"] < show(taken, model, Pruning(at=(1, 2))).macs["dense"]


def test_short_sounds_are_padded_and_said_to_be(noise: np.ndarray, model: TorchModel, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "short.wav", noise[:8000], 16000)
    taken = take_stretch(tmp_path / "short.wav", model)
    assert taken.notes == ("The sound lasts 0.50 s and the model hears 1.28 s: the rest is padding.",)


def test_the_last_samples_of_a_sound_are_of_its_last_stretch(
    noise: np.ndarray, model: TorchModel, tmp_path: Path
) -> None:
    end = (model.hop_seconds + model.window_seconds) / 2
    soundfile.write(tmp_path / "a.wav", noise[: round(end * 16000)], 16000, subtype="FLOAT")
    taken = take_stretch(tmp_path / "a.wav", model, start=model.hop_seconds + 0.001)
    np.testing.assert_array_equal(taken.samples, noise[: round(end * 16000)])
    with pytest.raises(AudioError, match=r"a.wav: ends at second 1.29, so that there is none from second 1.3"):
        take_stretch(tmp_path / "a.wav", model, start=1.3)
    soundfile.write(tmp_path / "b.wav", noise[:32000], 16000)
    with pytest.raises(AudioError, match=r"b.wav: ends at second 2.00, so that there is none from second 2.4"):
        take_stretch(tmp_path / "b.wav", model, start=2.4)


def test_what_cannot_be_shown_is_one_line(model: TorchModel, long_sound: Path, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silent.wav", np.zeros(16000), 16000)
    (tmp_path / "text.wav").write_text("no sound at all\n" * 100)
    with pytest.raises(AudioError, match=r"^silent.wav: is silent from second 0.00 to 1.00"):
        take_stretch(tmp_path / "silent.wav", model)
    with pytest.raises(AudioError, match=r"^long.wav: ends at second 4.00, so that there is none from second 60"):
        take_stretch(long_sound, model, start=60.0)
    with pytest.raises(AudioError, match=r"^long.wav: a stretch cannot begin"):
        take_stretch(long_sound, model, start=-1.0)
    update = Updater(model, "", Pruning(at=(1, 2)), tmp_path)
    for name, reason in (("silent.wav", "silent"), ("text.wav", "audio")):
        known, notes, table, page = update(None, str(tmp_path / name), 0.0, 0.5, "auto", "drop")
        assert (known, table, page) == (None, "", "")
        assert notes.startswith('<p class="spectrim-error" role="alert">' + name) and reason in notes
        assert str(tmp_path) not in notes
    assert "No sound" in update(None, None, 0.0, 0.5, "auto", "drop")[1]


def test_damage_behind_what_is_shown_is_told(model: TorchModel, tmp_path: Path) -> None:
    path = tmp_path / "cut.flac"
    soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, 40000), 16000)
    path.write_bytes(path.read_bytes()[:-5000])
    notes = take_stretch(path, model).notes
    assert any(note.startswith("After what is shown the sound cannot be heard: truncated") for note in notes)


def test_a_stretch_is_decoded_once(model: TorchModel, long_sound: Path, tmp_path: Path) -> None:
    update = Updater(model, "", Pruning(at=(1, 2)), tmp_path)
    known, _, table, page = update(None, str(long_sound), None, 0.5, "auto", "drop")
    assert known is not None and page.startswith("<iframe") and "MACs" in table
    again, notes, _, _ = update(known, str(long_sound), 0.0, 0.25, "auto", "merge")
    assert again is known
    assert "keep_rate" in notes and "0.25" in notes  # one line: merging reaches no less than half
    assert "not used" in update(known, str(long_sound), 0.0, 0.5, "cls_attention", "merge")[1]
    assert "by attention" in update(known, str(long_sound), 0.0, 0.5, "value_norm", "fuse")[1]
    for start in (1.3, 2.6, 0.0):
        known, _, _, page = update(known, str(long_sound), start, 0.5, "auto", "drop")
        assert page
    assert list(tmp_path.iterdir()) == []
    assert "no predictors" in update(known, str(long_sound), 0.0, 0.5, "auto", "dynamicvit")[1]


HIDDEN = {"mass": {"attention_mass": 0.9}, "segments": {"time_segments": 4}, "compat": {"reference_compat": True}}


@pytest.mark.parametrize(
    ("hidden", "criterion", "reducer", "stays"),
    [
        ("mass", "cls_attention", "drop", True),
        ("mass", "value_norm", "drop", False),
        ("mass", "cls_attention", "merge", False),
        ("mass", "cls_attention", "fuse", False),
        ("segments", "value_norm", "drop", True),
        ("segments", "cls_attention", "fuse", True),
        ("segments", "cls_attention", "merge", False),
        ("compat", "intensity", "drop", True),
        ("compat", "cls_attention", "drop", False),
        ("compat", "intensity", "merge", False),
    ],
)
def test_a_setting_that_the_page_does_not_show_gives_way(
    model: TorchModel, hidden: str, criterion: str, reducer: str, stays: bool
) -> None:
    base = Pruning(0.7, at=(1, 2), criterion="intensity" if hidden == "compat" else "auto", **HIDDEN[hidden])
    pruning, notes = chosen_pruning(base, 0.5, criterion, reducer)
    ranking = "auto" if reducer == "merge" else criterion
    kept = HIDDEN[hidden] if stays else {}
    assert pruning == Pruning(0.5, at=(1, 2), criterion=ranking, reducer=reducer, **kept)
    model.config.check_pruning(pruning)
    [(name, value)] = HIDDEN[hidden].items()
    said = f"The model's own {name} ({value}) does not go with this and is left out."
    assert (said in notes) is not stays
    assert ("The ranking is not used: this goes by other things." in notes) is (reducer == "merge")


def test_every_choice_of_a_model_with_attention_mass_shows_something(
    model: TorchModel, long_sound: Path, tmp_path: Path
) -> None:
    update = Updater(model, "", Pruning(at=(1, 2), attention_mass=0.9), tmp_path)
    known, notes, _, page = update(None, str(long_sound), 0.0, 0.5, "cls_attention", "drop")
    assert page and "attention_mass" not in notes
    for criterion, reducer in (("value_norm", "drop"), ("cls_attention", "merge")):
        known, notes, table, page = update(known, str(long_sound), 0.0, 0.5, criterion, reducer)
        assert "attention_mass (0.9) does not go with this" in notes and "spectrim-error" not in notes
        assert "MACs" in table and page.startswith("<iframe")
        assert ("32 of 64 patches kept" in page) is (reducer == "drop")
        assert "attention_mass" not in update(known, str(long_sound), 0.0, 1.0, criterion, reducer)[1]


def test_an_operating_point_that_the_model_does_not_have(stretch: Stretch, model: TorchModel) -> None:
    with pytest.raises(InvalidSetting, match="prune_at is 7"):
        show(stretch, model, Pruning(0.5, at=(7,)))


def test_every_criterion_and_reducer_has_words(model: TorchModel) -> None:
    assert CRITERION_WORDS.keys() <= CRITERIA.keys() and REDUCER_WORDS.keys() <= REDUCERS.keys()
    criteria, reducers = choices(model)
    assert criteria[0] == ("how much the answer looks at a patch", "cls_attention")
    assert sorted(name for _, name in criteria) == sorted(CRITERIA)
    assert [name for _, name in reducers] == [name for name in REDUCERS if name != "dynamicvit"]


@pytest.mark.parametrize(
    ("host", "alone"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False), ("machine", False)],
)
def test_who_can_reach_an_address(host: str, alone: bool) -> None:
    assert is_loopback(host) is alone
