from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from spectrim.checkpoints import from_pretrained
from spectrim.data.speech_commands import WORDS
from spectrim.errors import InvalidSetting
from spectrim.recipe import PruningSettings, Recipe
from spectrim.training import PruningTrainer, annealed_keep_rate, build_model, decays, train

STEPS_PER_EPOCH = 5


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two training tones of each word, and one validation and one test tone of two of them, in the real layout."""
    root = tmp_path_factory.mktemp("words")
    generator = np.random.default_rng(0)
    listed: dict[str, list[str]] = {"validation": [], "testing": []}
    for number, word in enumerate(WORDS):
        parts = ["train", "train", *(("validation", "testing") if number < 2 else ())]
        (root / word).mkdir()
        for k, part in enumerate(parts):
            name = f"{word}/{k}_nohash_0.wav"
            time = np.arange(4800) / 16000
            tone = 0.3 * np.sin(2 * np.pi * (200 + 150 * number) * time) + 0.01 * generator.standard_normal(4800)
            soundfile.write(root / name, tone, 16000)
            if part != "train":
                listed[part].append(name)
    for part, names in listed.items():
        (root / f"{part}_list.txt").write_text("".join(f"{name}\n" for name in names))
    return root


def recipe(**changes: Any) -> Recipe:
    fields = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "num_hidden_layers": 4}
    tree: dict[str, Any] = {
        "name": "tones",
        "data": {"name": "spoken-commands"},
        "model": {"builder": "ast-base", "fields": {**fields, "max_length": 32}},
        "optimiser": {"batch_size": 14, "epochs": 2, "learning_rate": 2e-3},
        "pruning": {"keep_rate": 0.5, "prune_at": [1, 2], "shrink_start": 0.4, "shrink_epochs": 1.0},
        "augment": {"mask_time": 0.4, "mask_frequency": 0.2, "label_smoothing": 0.1},
    }
    return Recipe(**{**tree, **changes})


@pytest.fixture(scope="module")
def finished(words: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("finished") / "run"
    train(recipe(), words, output)
    return output


def test_a_run_leaves_a_model_that_loads_with_its_keep_rate_and_labels(finished: Path) -> None:
    model = from_pretrained(finished / "model")
    assert model.config.keep_rate == 0.5
    assert list(model.config.id2label.values()) == list(WORDS)
    assert not list(finished.glob("*.partial"))
    results = json.loads((finished / "results.json").read_text())
    assert set(results["test"]) == {"1.0", "0.9", "0.8", "0.7", "0.6", "0.5", "0.4", "0.3"}
    assert all(0.0 <= value <= 1.0 for value in results["test"].values())
    assert results["training_clips"] == 2 * len(WORDS)


def test_the_log_shows_the_keep_rate_fall_to_its_target(finished: Path) -> None:
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    by_epoch = {row["epoch"]: row for row in rows if "eval_accuracy" in row}
    assert by_epoch[1.0]["keep_rate"] == pytest.approx(0.5 + 0.5 * 0.5 * (1 + math.cos(math.pi * 0.6)))
    assert by_epoch[2.0]["keep_rate"] == 0.5


def test_a_killed_run_resumes_to_the_same_weights(
    words: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = PruningTrainer.training_step
    calls = []

    def dies_in_the_second_epoch(self: PruningTrainer, *args: Any, **kwargs: Any) -> torch.Tensor:
        calls.append(self.state.global_step)
        if len(calls) == STEPS_PER_EPOCH + 3:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    output = tmp_path / "run"
    monkeypatch.setattr(PruningTrainer, "training_step", dies_in_the_second_epoch)
    with pytest.raises(KeyboardInterrupt):
        train(recipe(), words, output)
    assert not (output / "model").exists()
    monkeypatch.setattr(PruningTrainer, "training_step", step)
    train(recipe(), words, output, resume=True)
    unbroken = from_pretrained(finished / "model").state_dict()
    resumed = from_pretrained(output / "model").state_dict()
    for name, weight in unbroken.items():
        assert torch.equal(weight, resumed[name]), name


def test_a_second_run_in_the_same_folder_is_refused(words: Path, finished: Path) -> None:
    with pytest.raises(InvalidSetting, match="--resume"):
        train(recipe(), words, finished)


def test_an_unknown_data_set_is_named_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"data\.name is 'birds'"):
        train(recipe(data={"name": "birds"}), tmp_path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_training_from_a_checkpoint_keeps_a_fitting_head_and_replaces_another(finished: Path) -> None:
    saved = from_pretrained(finished / "model")
    further = recipe(model={"fields": {"max_length": 32, "drop_path_rate": 0.1}})
    same = build_model(further, str(finished / "model"), list(WORDS), multi_label=False)
    assert torch.equal(same.head.linear.weight, saved.head.linear.weight)
    assert same.blocks[-1].drop_path.rate == pytest.approx(0.1)
    other = build_model(further, str(finished / "model"), ["a", "b"], multi_label=True)
    assert other.head.linear.weight.shape == (2, 32)
    assert other.config.problem_type == "multi_label_classification"
    assert torch.equal(other.blocks[3].mlp.up.weight, saved.blocks[3].mlp.up.weight)
    assert other.config.keep_rate == 1.0


@pytest.mark.parametrize(
    ("every", "epoch", "expected"),
    [
        ("step", 0.0, 1.0),
        ("step", 4.999, 1.0),
        ("step", 5.0, 1.0),
        ("step", 12.5, 0.75),
        ("step", 20.0, 0.5),
        ("step", 29.0, 0.5),
        ("epoch", 12.9, 0.5 + 0.25 * (1 + math.cos(math.pi * 7 / 15))),
    ],
)
def test_annealing_is_a_cosine_from_one_to_the_target(every: str, epoch: float, expected: float) -> None:
    pruning = PruningSettings(keep_rate=0.5, shrink_start=5, shrink_epochs=15, anneal_every=every)
    assert annealed_keep_rate(pruning, epoch) == pytest.approx(expected)


def test_without_a_length_the_keep_rate_falls_at_once() -> None:
    pruning = PruningSettings(keep_rate=0.5, shrink_start=1)
    assert [annealed_keep_rate(pruning, epoch) for epoch in (0.9, 1.0)] == [1.0, 0.5]


def test_only_matrices_decay_and_neither_tokens_nor_positions() -> None:
    model = build_model(recipe(), None, ["a", "b"], multi_label=False)
    decayed = {name for name, weight in model.named_parameters() if decays(name, weight)}
    assert "blocks.0.mlp.up.weight" in decayed
    assert "embeddings.projection.weight" in decayed
    assert not {n for n in decayed if n.endswith("bias") or "norm" in n or "token" in n or "position" in n}
