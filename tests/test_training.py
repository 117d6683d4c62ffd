from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from spectrim.augment import apply
from spectrim.checkpoints import from_pretrained
from spectrim.data import DATA_SETS, AudioDataset, Recording
from spectrim.data.speech_commands import WORDS
from spectrim.errors import InvalidSetting
from spectrim.recipe import PruningSettings, Recipe
from spectrim.training import PruningTrainer, annealed_keep_rate, build_model, build_trainer, prepare, train

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


def a_part(labels: list[str], multi_label: bool = False) -> AudioDataset:
    return AudioDataset([Recording(Path("none.wav"), (0,), "none")], labels, multi_label)


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
    torn = output / "checkpoints" / "checkpoint-7"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    monkeypatch.setattr(PruningTrainer, "training_step", step)
    train(recipe(), words, output, resume=True)
    unbroken = from_pretrained(finished / "model").state_dict()
    resumed = from_pretrained(output / "model").state_dict()
    for name, weight in unbroken.items():
        assert torch.equal(weight, resumed[name]), name


def test_another_run_is_not_resumed(words: Path, finished: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"recipe\.optimiser\.batch_size is 7; allowed: 14, with which"):
        train(recipe(optimiser={"batch_size": 7, "epochs": 2, "learning_rate": 2e-3}), words, finished, resume=True)


def test_a_run_can_stop_early_on_the_course_of_a_longer_one(words: Path, tmp_path: Path) -> None:
    optimiser = {"batch_size": 14, "epochs": 4, "stop_after_epochs": 0.4}
    train(recipe(optimiser=optimiser, schedule={"warmup_epochs": 1}), words, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert max(row["step"] for row in rows) == 2
    assert (tmp_path / "run" / "checkpoints" / "checkpoint-2").is_dir()


@pytest.mark.parametrize(("epoch", "dense"), [(0.3, True), (0.4, False), (1.0, False)])
def test_masking_ends_where_the_keep_rate_begins_to_fall(
    epoch: float, dense: bool, words: Path, tmp_path: Path
) -> None:
    job = prepare(recipe(augment={"mask_time": 0.4, "time_mask": 8, "noise": True}), words, tmp_path)
    trainer = build_trainer(job, progress=False, say=None)
    trainer.state.epoch = epoch
    seen: dict[str, Any] = {}

    def note(**inputs: Any) -> SimpleNamespace:
        seen.update(inputs)
        return SimpleNamespace(loss=torch.zeros(()))

    batch = trainer.data_collator([trainer.train_dataset[0], trainer.train_dataset[1]])
    trainer.compute_loss(type("Model", (), {"training": True, "__call__": lambda _, **inputs: note(**inputs)})(), batch)
    drawn = {name: batch[name] for name in ("stripes", "noise", "roll") if dense or name != "stripes"}
    config = job.model.config
    assert ("visible_patches" in seen) is dense
    assert torch.equal(seen["input_values"], apply(batch["input_values"], drawn, -config.mean / (2 * config.std)))
    assert seen["keep_rate"] == annealed_keep_rate(job.recipe.pruning, epoch)


def test_the_data_set_says_what_the_recipe_does_not(tmp_path: Path) -> None:
    config = build_model(recipe(model={"builder": "ast-tiny"}), None, a_part(["a", "b"])).config
    entry = DATA_SETS["spoken-commands"]
    assert (config.mean, config.std, config.max_length) == (entry.mean, entry.std, entry.max_length)


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
    same = build_model(further, str(finished / "model"), a_part(list(WORDS)))
    moved = build_model(
        recipe(model={"fields": {"max_length": 48, "std": 2.5}}), str(finished / "model"), a_part(["a"])
    ).config
    assert (moved.mean, moved.std, moved.max_length) == (DATA_SETS["spoken-commands"].mean, 2.5, 48)
    esc50 = recipe(data={"name": "esc50"}, model={"fields": {}})
    assert build_model(esc50, str(finished / "model"), a_part(["a"])).config.mean == DATA_SETS["esc50"].mean
    assert torch.equal(same.head.linear.weight, saved.head.linear.weight)
    assert same.blocks[-1].drop_path.rate == pytest.approx(0.1)
    other = build_model(further, str(finished / "model"), a_part(["a", "b"], multi_label=True))
    assert other.head.linear.weight.shape == (2, 32)
    assert other.config.problem_type == "multi_label_classification"
    assert torch.equal(other.blocks[3].mlp.up.weight, saved.blocks[3].mlp.up.weight)
    assert other.config.keep_rate == further.pruning.keep_rate
    with pytest.raises(InvalidSetting, match=r"model\.fields\.hidden_size is 64; allowed: 32"):
        build_model(recipe(model={"fields": {"hidden_size": 64}}), str(finished / "model"), a_part(["a"]))


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
