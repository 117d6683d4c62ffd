"""The data and the test of the model in the package, on a few files made here."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import spectrim
from spectrim import assets
from spectrim.backbones import ast_base, ast_tiny
from spectrim.data.speech_commands import WORDS
from spectrim.data.table import open_table
from spectrim.network.transformer import AudioTransformer
from spectrim.training.finetune import train
from spectrim.training.recipe_files import load_recipe

ROOT = Path(__file__).parents[2]
SMALL = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}


sys.path.append(str(ROOT / "benchmarks"))

import voices  # noqa: E402


def tone(path: Path, seconds: float, rate: int = 16_000, silent_from: float | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    times = np.arange(round(seconds * rate)) / rate
    samples = 0.5 * np.sin(2 * np.pi * 440 * times)
    if silent_from is not None:
        samples[times >= silent_from] = 0.0
    soundfile.write(path, samples, rate)


def table(root: Path, columns: str, *rows: str) -> Path:
    (root / "labels.csv").write_text("\n".join([columns, *rows]) + "\n")
    return root


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Path, Path, Path]:
    arabic, sounds, words = tmp_path / "arabic", tmp_path / "esc", tmp_path / "words"
    for name in ("a", "b", "c", "d"):
        tone(arabic / f"{name}.wav", 1.0)
    for fold in (1, 5):
        tone(sounds / f"{fold}-1.wav", 5.0, silent_from=2.0)
    for speaker, part in (("0a", "train"), ("0b", "validation"), ("0c", "test")):
        for word in WORDS:
            tone(words / word / f"{speaker}_nohash_0.wav", 1.0)
        names = "".join(f"{word}/{speaker}_nohash_0.wav\n" for word in WORDS)
        if part != "train":
            (words / f"{'testing' if part == 'test' else 'validation'}_list.txt").write_text(names)
    table(
        arabic,
        "path,label,split,speaker",
        *("a.wav,yes,train,00000001", "b.wav,yes,validation,00000002"),
        *("c.wav,no,validation,00000008", "d.wav,no,test,00000003"),
    )
    table(sounds, "path,label,fold", "1-1.wav,dog_bark,1", "5-1.wav,rain,5")
    return arabic, sounds, words


def test_the_table_holds_every_part_and_no_test_speaker_for_training(
    tmp_path: Path, sources: tuple[Path, Path, Path]
) -> None:
    arabic, sounds, words = sources
    with voices.prepare(tmp_path / "out", arabic, sounds, words).open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = {(row["label"], row["split"], row["speaker"]) for row in rows}
    assert {one for one in found if one[0].startswith("Arabic: ")} == {
        ("Arabic: yes", "train", "00000001"),
        ("Arabic: yes", "validation", "00000002"),
        ("Arabic: no", "train", "00000008"),
        ("Arabic: no", "test", "00000003"),
    }
    assert {one for one in found if one[0] == "English: no"} == {
        ("English: no", part, voice) for voice, part in (("0a", "train"), ("0b", "validation"), ("0c", "test"))
    }
    assert [row["path"] for row in rows if row["label"] == "sound: rain"] == [str((sounds / "5-1.wav").resolve())]
    barks = [row for row in rows if row["label"] == "sound: dog bark"]
    # Excerpts begin every 0.64 s; those from 2.56 s on hold nothing of the two seconds of sound.
    assert len(barks) == 4 and {row["split"] for row in barks} == {"train"}
    assert {soundfile.info(row["path"]).frames for row in barks} == {voices.EXCERPT}
    silence = [row for row in rows if row["label"] == voices.SILENCE]
    assert len(silence) == 300 and sum(row["split"] == "train" for row in silence) == 240
    levels = [20 * np.log10(np.sqrt(np.mean(soundfile.read(row["path"])[0] ** 2)) + 1e-12) for row in silence]
    assert -25.5 < max(levels) < -24.5 and sum(level < -200 for level in levels) >= 25


def test_packaged_is_dense_and_calls_english_words_by_their_names(tmp_path: Path) -> None:
    labels = {0: "Arabic: yes", 1: "English: yes", 2: "sound: rain"}
    config = ast_tiny(max_length=128, num_hidden_layers=2, prune_at=[1], keep_rate=0.5, id2label=labels)
    trained = AudioTransformer(config)
    trained.save_pretrained(tmp_path / "run")
    packaged = spectrim.from_pretrained(voices.package(tmp_path / "run", tmp_path / "out", "value_norm"))
    assert packaged.config.criterion == "value_norm"
    assert packaged.config.id2label == {0: "Arabic: yes", 1: "yes", 2: "sound: rain"}
    assert packaged.config.label2id == {"Arabic: yes": 0, "yes": 1, "sound: rain": 2}
    assert packaged.config.keep_rate == 1.0
    assert all((packaged.state_dict()[name] == weight).all() for name, weight in trained.state_dict().items())


def test_summary_is_the_mean_over_speakers_and_the_loss_by_speaker() -> None:
    """Six rows counted by hand: speaker a 2 of 2, then 1 of 2; b 2 of 4, then 3 of 4."""

    def row(speaker: str, dense: bool, pruned: bool) -> dict[str, str]:
        answers = {True: "Arabic: no", False: "yes"}
        return {
            "speaker": speaker,
            "label": "Arabic: no",
            "group": "Arabic",
            "1": answers[dense],
            "0.5": answers[pruned],
            "1, but silence": answers[dense],
            "0.5, but silence": "Arabic: no",
        }

    rows = [row("a", True, True), row("a", True, False)]
    rows += [row("b", True, True), row("b", True, True), row("b", False, True), row("b", False, False)]
    dense, pruned = voices.summary(rows, [1.0, 0.5])
    assert (dense["accuracy"][0], pruned["accuracy"][0]) == (75.0, 62.5)
    assert (dense["lost"][0], pruned["lost"][0]) == (0.0, 12.5)
    assert "accuracy_but_silence" not in dense
    sounds = voices.summary([{**row, "group": "sound"} for row in rows], [1.0, 0.5])
    assert [row["accuracy_but_silence"][0] for row in sounds] == [75.0, 100.0]
    assert pruned["by_speaker"] == {"a": 50.0, "b": 75.0}
    assert pruned["lost"][1] <= -25.0 and pruned["lost"][2] >= 50.0
    assert pruned["taken_for"] == pytest.approx({"Arabic": 100 * 4 / 6, "English": 100 * 2 / 6})


def test_rankings_are_chosen_on_validation_recordings(
    tmp_path: Path, sources: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    arabic, sounds, words = sources
    voices.prepare(tmp_path / "table", arabic, sounds, words)
    labels = {0: "Arabic: yes", 1: "yes", 2: "sound: rain"}
    model = AudioTransformer(ast_tiny(max_length=128, num_hidden_layers=2, prune_at=[1], id2label=labels))
    model.save_pretrained(tmp_path / "model")
    out = tmp_path / "found.json"
    criteria = ("--criteria", "cls_attention", "value_norm", "--keep-rates", "1", "0.5")
    words_given = ("voices.py", "choose", str(tmp_path / "table"), "--model", str(tmp_path / "model"), *criteria)
    monkeypatch.setattr(sys, "argv", [*words_given, "--json", str(out)])
    voices.main()
    found = json.loads(out.read_text(encoding="utf-8"))["criteria"]
    assert list(found) == ["cls_attention", "value_norm"]
    for groups in found.values():
        assert {row["group"]: row["recordings"] for row in groups} == {"Arabic": 1, "English": len(WORDS)}
    # The score is what differs: the answers are those of the model pruned by it.
    rows = voices.tested(tmp_path / "table" / "labels.csv", tmp_path / "model", [0.5], "validation", "value_norm")
    pruned = spectrim.from_pretrained(tmp_path / "model", keep_rate=0.5, criterion="value_norm")
    assert [row["0.5"] for row in rows] == [
        one.top(1)[0][0] for one in spectrim.predict([r["path"] for r in rows], pruned)
    ]


def test_the_recipe_trains_on_the_table(tmp_path: Path, sources: tuple[Path, Path, Path]) -> None:
    """Two steps of a small model: masks first, then the keep rate falls to 0.7 and they end."""
    arabic, sounds, words = sources
    table = voices.prepare(tmp_path / "out", arabic, sounds, words)
    start = AudioTransformer(ast_base(**SMALL, max_length=128, num_labels=2, mean=-9.364265, std=4.263562))
    start.save_pretrained(tmp_path / "start")
    steps = len(open_table(table, "train")) // 48
    changes = {
        "optimiser.stop_after_epochs": 2 / steps,
        "pruning.shrink_start": 1 / steps,
        "pruning.shrink_epochs": 0,
        "evaluation.first_epoch": 0,
        "tensorboard": False,
        "workers": 0,
    }
    recipe = load_recipe("voices", [f"{field}={json.dumps(value)}" for field, value in changes.items()])
    train(recipe, table.parent, tmp_path / "run", init=str(tmp_path / "start"))
    model = spectrim.from_pretrained(tmp_path / "run" / "model")
    assert (model.config.keep_rate, model.config.prune_at, model.config.num_hidden_layers) == (0.7, [3, 6, 9], 12)
    assert set(model.config.label2id) >= {"Arabic: yes", "English: yes", "sound: dog bark", voices.SILENCE}
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 2 and lines[-1]["keep_rate"] == 0.7


def test_digits_are_called_by_their_words(tmp_path: Path) -> None:
    for name in ("0_a_1", "7_b_0"):
        tone(tmp_path / f"{name}.wav", 0.5)
    with voices.digits(tmp_path / "out", tmp_path).open(encoding="utf-8") as file:
        assert [(row["label"], row["split"], row["speaker"]) for row in csv.DictReader(file)] == [
            ("zero", "test", "a"),
            ("seven", "test", "b"),
        ]


def test_the_record_and_the_pages_say_what_was_measured() -> None:
    results = json.loads((ROOT / "benchmarks" / "results" / "voices.json").read_text(encoding="utf-8"))
    rows = {(row["group"], row["keep_rate"]): row for row in results["groups"]}
    record = json.loads((assets.EMBEDDED_MODELS["spectrim-mini"] / "training.json").read_text(encoding="utf-8"))
    shares = (("Arabic", "accuracy"), ("English", "accuracy"), ("sound", "accuracy"), ("sound", "accuracy_but_silence"))
    for said, (group, figure) in zip(record["test_on_unheard"].values(), shares, strict=True):
        assert said == {f"{rate}": round(rows[group, rate][figure][0] / 100, 3) for rate in (1.0, 0.7)}
    readme, card = (
        " ".join(path.read_text(encoding="utf-8").split())
        for path in (ROOT / "README.md", assets.EMBEDDED_MODELS["spectrim-mini"] / "README.md")
    )
    dense, pruned, lost = (
        f"{mean:.{digits}f}{unit} [{low:.{digits}f}, {high:.{digits}f}]"
        for (mean, low, high), digits, unit in (
            (rows["Arabic", 1.0]["accuracy"], 1, " %"),
            (rows["Arabic", 0.7]["accuracy"], 1, ""),
            (rows["Arabic", 0.7]["lost"], 2, " points lost"),
        )
    )
    assert f"{dense} dense and {pruned} at keep rate 0.7, {lost} for 34 % fewer MACs" in readme
    for group in ("Arabic", "English"):
        both = " and ".join(f"{rows[group, rate]['accuracy'][0]:.1f}" for rate in (1.0, 0.7))
        assert both in card, group
