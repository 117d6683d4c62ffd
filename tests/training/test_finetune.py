from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import load_file
from small_runs import EVERYTHING, SIZE, STEPS_PER_EPOCH, TEST_CLIPS, over, recipe, write_words
from tone_table import write_tones
from torch.nn import functional

import spectrim
from spectrim.audio.files import read
from spectrim.checkpoints import from_pretrained
from spectrim.data import DATA_SETS, AudioDataset, Recording, cache, find_data_set
from spectrim.data.packing import pack
from spectrim.data.speech_commands import WORDS
from spectrim.errors import DataError, InvalidSetting
from spectrim.measure.evaluate import evaluate
from spectrim.network.transformer import AudioTransformerOutput
from spectrim.training import finetune
from spectrim.training.answers import ANSWERS, Answers
from spectrim.training.augment import apply
from spectrim.training.building import build_model
from spectrim.training.finetune import build_trainer, prepare, train
from spectrim.training.input_check import InputNotice
from spectrim.training.optimiser import annealed_keep_rate
from spectrim.training.pruning_trainer import PruningTrainer
from spectrim.training.recipes import PruningSettings


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_words(tmp_path_factory.mktemp("data") / "words")


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
    assert set(results) == {
        *("chosen", "chosen_on", "metric", "test_clips", "test", "training_clips", "replaced_clips", "missing_clips")
    }
    assert set(results["test"]) == {"1.0", "0.9", "0.8", "0.7", "0.6", "0.5", "0.4", "0.3"}
    assert results["training_clips"] == 2 * len(WORDS)
    assert (results["test_clips"], results["metric"]) == (TEST_CLIPS, "accuracy")
    assert (results["replaced_clips"], results["missing_clips"]) == ({}, {})


def test_the_results_are_those_of_the_saved_model_run_by_hand(words: Path, finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    part = find_data_set("spoken-commands").open(words, "test")
    clips = [part[index] for index in range(len(part))]
    frontend = spectrim.Frontend.from_config(from_pretrained(finished / "model").config)
    values = frontend([torch.from_numpy(clip.waveform) for clip in clips]).input_values
    for rate, accuracy in results["test"].items():
        model = from_pretrained(finished / "model", keep_rate=float(rate)).eval()
        with torch.no_grad():
            best = model(values).logits.argmax(dim=1).tolist()
        assert accuracy == np.mean([clip.target[k] for clip, k in zip(clips, best, strict=True)])


def test_the_run_says_what_it_was(words: Path, finished: Path) -> None:
    run = json.loads((finished / "run.json").read_text())
    assert run == {"recipe": recipe().model_dump(mode="json"), "data": str(words), "init": None}
    facts = json.loads((finished / "environment.json").read_text())
    assert facts["versions"]["spectrim"] == spectrim.__version__
    header, *lines = (finished / "metrics.csv").read_text().splitlines()
    assert {"step", "epoch", "keep_rate", "loss", "learning_rate", "eval_loss", "eval_accuracy"} <= set(
        header.split(",")
    )
    assert len(lines) == len((finished / "metrics.jsonl").read_text().splitlines())


def test_the_log_shows_the_keep_rate_fall_to_its_target(finished: Path) -> None:
    rows = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    by_epoch = {row["epoch"]: row for row in rows if "eval_accuracy" in row}
    assert by_epoch[1.0]["keep_rate"] == pytest.approx(0.5 + 0.5 * 0.5 * (1 + math.cos(math.pi * 0.6)))
    assert by_epoch[2.0]["keep_rate"] == 0.5
    assert {row["eval_keep_rate"] for row in by_epoch.values()} == {0.5}, "the one that is trained for, from the start"


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
        train(recipe(optimiser={"batch_size": 7}), words, finished, resume=True)


def test_a_start_may_be_a_path(words: Path, finished: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"init is '.*model'; allowed: None, with which the run in"):
        train(recipe(), words, finished, init=finished / "model", resume=True)


def test_a_run_can_stop_early_on_the_course_of_a_longer_one(words: Path, tmp_path: Path) -> None:
    optimiser = {"epochs": 4, "stop_after_epochs": 0.4}
    train(recipe(optimiser=optimiser, schedule={"warmup_epochs": 1}), words, tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert max(row["step"] for row in rows) == 2
    assert (tmp_path / "run" / "checkpoints" / "checkpoint-2").is_dir()


@pytest.mark.parametrize(("epoch", "dense"), [(0.3, True), (0.4, False), (1.0, False)])
def test_masking_ends_where_the_keep_rate_begins_to_fall(
    epoch: float, dense: bool, words: Path, tmp_path: Path
) -> None:
    job = prepare(recipe(augment={"time_mask": 8, "noise": True}), words, tmp_path)
    trainer = build_trainer(job, progress=False, say=None)
    trainer.state.epoch = epoch
    seen: dict[str, Any] = {}

    def note(**inputs: Any) -> AudioTransformerOutput:
        seen.update(inputs)
        return AudioTransformerOutput(loss=torch.zeros(()))

    batch = trainer.data_collator([trainer.train_dataset[0], trainer.train_dataset[1]])
    trainer.compute_loss(type("Model", (), {"training": True, "__call__": lambda _, **inputs: note(**inputs)})(), batch)
    drawn = {name: batch[name] for name in ("stripes", "noise", "roll") if dense or name != "stripes"}
    config = job.model.config
    assert ("visible_patches" in seen) is dense
    assert torch.equal(seen["input_values"], apply(batch["input_values"], drawn, -config.mean / (2 * config.std)))
    assert seen["keep_rate"] == annealed_keep_rate(job.recipe.pruning, epoch)


def test_the_data_set_says_what_the_recipe_does_not(tmp_path: Path) -> None:
    plan = recipe()
    plan.model.fields = SIZE
    config = build_model(plan, None, a_part(["a", "b"])).config
    entry = DATA_SETS["spoken-commands"]
    assert (config.mean, config.std, config.max_length) == (entry.mean, entry.std, entry.max_length)
    plan.data.name = "folder"
    with pytest.raises(InvalidSetting, match=r"model\.fields\.mean is None; allowed: what `spectrim data check folder"):
        build_model(plan, None, a_part(["a", "b"]))


def test_a_second_run_in_the_same_folder_is_refused(words: Path, finished: Path) -> None:
    with pytest.raises(InvalidSetting, match="--resume"):
        train(recipe(), words, finished)


def test_an_unknown_data_set_is_named_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"data\.name is 'birds'"):
        train(recipe(data={"name": "birds"}), tmp_path, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_training_from_a_checkpoint_keeps_a_fitting_head_and_replaces_another(finished: Path) -> None:
    saved = from_pretrained(finished / "model")
    further = recipe(model={"fields": {"drop_path_rate": 0.1}})
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


def test_a_fresh_head_is_drawn_as_the_recipe_says(finished: Path) -> None:
    """As AudioMAE's, whose heads begin with a standard deviation of 2e-5."""
    plan = recipe(model={"fields": {"head_init_std": 2e-5, "initializer_range": 0.3}})
    labels = [f"label {number}" for number in range(100)]
    model = build_model(plan, str(finished / "model"), a_part(labels))
    assert model.head.linear.weight.std().item() == pytest.approx(2e-5, rel=0.05)
    assert model.config.head_init_std == 2e-5
    kept = build_model(plan, str(finished / "model"), a_part(list(WORDS)))
    assert torch.equal(kept.head.linear.weight, from_pretrained(finished / "model").head.linear.weight)


def test_a_head_can_begin_anew_as_torch_begins_a_linear_layer(finished: Path) -> None:
    """As AST's, whose head is never the checkpoint's: weights and bias uniform within 1/√width."""
    plan = recipe(model={"fresh_head": True, "head_init": "linear"})
    part = a_part([f"label {number}" for number in range(400)])
    for init in (None, str(finished / "model")):
        head = build_model(plan, init, part).head.linear
        for values in (head.weight, head.bias):
            assert values.abs().max().item() == pytest.approx(SIZE["hidden_size"] ** -0.5, rel=0.02)
            assert values.std().item() == pytest.approx((3 * SIZE["hidden_size"]) ** -0.5, rel=0.1)
    saved = from_pretrained(finished / "model")
    again = build_model(plan, str(finished / "model"), a_part(list(WORDS)))
    assert not torch.equal(again.head.linear.weight, saved.head.linear.weight)
    assert torch.equal(again.blocks[0].mlp.up.weight, saved.blocks[0].mlp.up.weight)


def test_positions_are_fitted_as_the_recipe_says(finished: Path) -> None:
    """Half the length: AST keeps the middle columns of the table unless told to keep the first."""
    grid = from_pretrained(finished / "model").embeddings.position_table[:, 2:].unflatten(1, (8, 2))
    for positions, column in (("auto", 0), ("first", 0), ("interpolate", None)):
        plan = recipe(model={"positions": positions, "fields": {"max_length": 16}})
        table = build_model(plan, str(finished / "model"), a_part(list(WORDS))).embeddings.position_table[:, 2:]
        expected = grid.mean(2) if column is None else grid[:, :, 1 if positions == "auto" else column]
        assert torch.allclose(table, expected)


@pytest.mark.parametrize(
    ("field", "value", "there"), [("pooling", "mean_patches", "'extra_tokens'"), ("num_hidden_layers", 6, "4")]
)
def test_a_field_that_is_not_the_checkpoint_s_is_refused(field: str, value: Any, there: str, finished: Path) -> None:
    with pytest.raises(InvalidSetting, match=rf"{field} is {value!r}; allowed: {there}, as in the"):
        build_model(recipe(model={"fields": {field: value}}), str(finished / "model"), a_part(["a"]))


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


# Which weights are chosen


def with_accuracies(monkeypatch: pytest.MonkeyPatch, accuracies: dict[int, float]) -> list[int]:
    """Let evaluations at these steps find these accuracies; returns the steps evaluated, as they come."""
    evaluate, seen = PruningTrainer.evaluate, []

    def find(self: PruningTrainer, **kwargs: Any) -> dict[str, float]:
        seen.append(self.state.global_step)
        return {**evaluate(self, **kwargs), "eval_accuracy": accuracies[self.state.global_step]}

    monkeypatch.setattr(PruningTrainer, "evaluate", find)
    return seen


@pytest.mark.parametrize("choose", ["best", "last"])
def test_the_best_or_the_last_weights_are_tested_and_saved(
    choose: str, words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accuracies = {2: 0.1, 4: 0.3, 6: 0.9, 8: 0.9, 10: 0.2}
    seen = with_accuracies(monkeypatch, accuracies)
    tested = {}
    predict = PruningTrainer.predict

    def note(self: PruningTrainer, *args: Any, **kwargs: Any) -> Any:
        tested.update({name: weight.clone() for name, weight in self.model.state_dict().items()})
        return predict(self, *args, **kwargs)

    monkeypatch.setattr(PruningTrainer, "predict", note)
    plan = recipe(evaluation={"every_epochs": 0.4, "choose": choose, "test_keep_rates": [1.0]})
    results = train(plan, words, tmp_path / "run")
    assert seen == list(accuracies)
    step = 6 if choose == "best" else 10
    found = {"validation_accuracy": 0.9} if choose == "best" else {}
    assert results["chosen"] == {"step": step, "epoch": step / STEPS_PER_EPOCH, **found}
    kept = load_file(tmp_path / "run" / "checkpoints" / f"checkpoint-{step}" / "model.safetensors")
    saved = load_file(tmp_path / "run" / "model" / "model.safetensors")
    other = load_file(
        tmp_path / "run" / "checkpoints" / f"checkpoint-{8 if choose == 'last' else 10}" / "model.safetensors"
    )
    assert saved.keys() == kept.keys() == tested.keys()
    for name, weight in saved.items():
        assert torch.equal(weight, kept[name]), name
        assert torch.equal(weight, tested[name]), name
    assert any(not torch.equal(weight, other[name]) for name, weight in saved.items())


def test_the_best_is_found_again_after_a_resume(words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_accuracies(monkeypatch, {2: 0.8, 4: 0.3, 6: 0.2, 8: 0.7, 10: 0.2})
    step = PruningTrainer.training_step

    def dies(self: PruningTrainer, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self.state.global_step == 7:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    plan = recipe(evaluation={"every_epochs": 0.4, "test_keep_rates": []})
    monkeypatch.setattr(PruningTrainer, "training_step", dies)
    with pytest.raises(KeyboardInterrupt):
        train(plan, words, tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "moved")
    monkeypatch.setattr(PruningTrainer, "training_step", step)
    assert train(plan, words, tmp_path / "moved", resume=True)["chosen"]["step"] == 2
    best = load_file(tmp_path / "moved" / "checkpoints" / "checkpoint-2" / "model.safetensors")
    for name, weight in load_file(tmp_path / "moved" / "model" / "model.safetensors").items():
        assert torch.equal(weight, best[name]), name


def test_the_first_evaluation_waits_for_its_epoch(words: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = with_accuracies(monkeypatch, {8: 0.1, 10: 0.2})
    train(recipe(evaluation={"every_epochs": 0.4, "first_epoch": 1.3, "test_keep_rates": []}), words, tmp_path / "run")
    assert seen == [8, 10]
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if "eval_accuracy" in row] == seen


# Precision and loss


def test_bf16_runs_on_a_cpu(words: Path, finished: Path, tmp_path: Path) -> None:
    train(recipe(optimiser={"precision": "bf16"}, evaluation={"test_keep_rates": []}), words, tmp_path / "run")
    rounded, exact = (load_file(folder / "model" / "model.safetensors") for folder in (tmp_path / "run", finished))
    assert {weight.dtype for weight in rounded.values()} == {torch.float32}
    apart = max((rounded[name] - exact[name]).abs().max().item() for name in exact)
    assert 0 < apart < 0.05


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_fp16_without_a_gpu_is_refused_before_anything_is_written(words: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match=r"optimiser\.precision is 'fp16'; allowed: fp32 or bf16"):
        train(recipe(optimiser={"precision": "fp16"}), words, tmp_path / "run")
    assert not (tmp_path / "run").exists()


LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "auto": functional.cross_entropy,
    "cross_entropy": functional.cross_entropy,
    "binary_cross_entropy": functional.binary_cross_entropy_with_logits,
}


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_is_the_recipe_s_also_in_evaluations(loss: str, words: Path, tmp_path: Path) -> None:
    """The batch of an evaluation holds two clips, and the last one only one: each clip counts the same."""
    job = prepare(recipe(loss=loss, evaluation={"batch_size": 2}), words, tmp_path)
    trainer = build_trainer(job, progress=False, say=None)
    clips = [job.parts["test"][index] for index in range(TEST_CLIPS)]
    batch = trainer.data_collator(clips)
    with torch.no_grad():
        logits = job.model.eval()(batch["input_values"], keep_rate=0.5).logits
    expected = LOSSES[loss](logits, batch["labels"]).item()
    _, answers = finetune.test_at_keep_rates(trainer, job.parts["test"], "accuracy")
    assert answers is not None
    sums = np.exp(next(iter(answers.scores.values())).astype(np.float64)).sum(axis=1)
    assert np.allclose(sums, 1.0, atol=1e-5) == (loss != "binary_cross_entropy")
    trainer.evaluation_rate = 0.5
    found = trainer.predict(job.parts["test"]).metrics
    assert found["test_loss"] == pytest.approx(expected, rel=1e-6)
    assert found["test_clips"] == TEST_CLIPS


def test_a_loss_for_one_label_is_refused_where_clips_have_several() -> None:
    with pytest.raises(InvalidSetting, match=r"loss is 'cross_entropy'; allowed: binary_cross_entropy: clips of"):
        build_model(recipe(loss="cross_entropy"), None, a_part(["a", "b"], multi_label=True))
    several = build_model(recipe(), None, a_part(["a", "b"], multi_label=True))
    assert several.config.problem_type == "multi_label_classification"


# Sampling rates


def test_a_model_of_another_rate_hears_it_in_training_as_it_does_in_evaluation(words: Path, tmp_path: Path) -> None:
    everything = over(EVERYTHING, {"augment": {**EVERYTHING["augment"], "pitch": [0.9, 1.1], "speed": [0.9, 1.1]}})
    at_8_khz = over(everything, {"model": {"fields": {**everything["model"]["fields"], "sampling_rate": 8000}}})
    rates = {"evaluation": {"test_keep_rates": [1.0]}}
    results = train(recipe(**at_8_khz, **rates), words, tmp_path / "run")
    model = from_pretrained(tmp_path / "run" / "model", keep_rate=1.0).eval()
    frontend = spectrim.Frontend.from_config(model.config)
    assert (model.config.sampling_rate, frontend.sampling_rate) == (8000, 8000)
    recordings = find_data_set("spoken-commands").open(words, "test").recordings
    heard = [read(recording.path, 8000).samples for recording in recordings]
    assert {len(samples) for samples in heard} == {2400}
    with torch.no_grad():
        expected = model(frontend(heard).input_values).logits.log_softmax(dim=1)
    np.testing.assert_allclose(Answers.load(tmp_path / "run" / ANSWERS).scores[1.0], expected, atol=1e-4)
    scored = evaluate(model, "spoken-commands", words, keep_rates=0.5, workers=0, resamples=10, device="cpu").rows
    assert {str(row["keep_rate"]): row["accuracy"] for row in scored} == results["test"]


def test_a_checkpoint_of_another_rate_is_fine_tuned_at_it(words: Path, tmp_path: Path) -> None:
    fields = {"sampling_rate": 8000}
    prepare(recipe(model={"fields": fields}), words, tmp_path).model.save_pretrained(tmp_path / "start")
    job = prepare(recipe(distillation={"teacher": "init", "tokens": 0.0}), words, tmp_path, str(tmp_path / "start"))
    assert job.model.config.sampling_rate == 8000
    assert {part.sampling_rate for part in job.parts.values()} == {8000}
    assert job.teacher is not None and job.teacher.config.sampling_rate == 8000
    assert len(job.parts["train"][0].waveform) == 2400
    with pytest.raises(InvalidSetting, match=r"model\.fields\.sampling_rate is 16000; allowed: 8000, as in the check"):
        prepare(recipe(model={"fields": {"sampling_rate": 16000}}), words, tmp_path, str(tmp_path / "start"))


def test_clips_packed_at_a_lower_rate_are_refused(words: Path, tmp_path: Path) -> None:
    pack("spoken-commands", words, tmp_path / "packed", sampling_rate=8000)
    with pytest.raises(InvalidSetting, match=r"sampling_rate is 16000; allowed: up to 8000, .* with --rate 16"):
        prepare(recipe(), tmp_path / "packed", tmp_path)
    assert prepare(recipe(model={"fields": {"sampling_rate": 8000}}), tmp_path / "packed", tmp_path).parts


# Clips that are not there


def test_missing_and_unreadable_clips_are_named_and_do_not_count(tmp_path: Path) -> None:
    words = write_words(tmp_path / "words")
    part = find_data_set("spoken-commands").open(words, "test")
    gone, broken = part.recordings[0], part.recordings[2]
    gone.path.unlink()
    broken.path.write_bytes(b"no audio")
    training = words / WORDS[9] / "1_nohash_0.wav"
    training.write_bytes(b"")
    plan = recipe(
        data={"options": {"bad_share": 0.3}},
        optimiser={"epochs": 0.4},
        pruning={"keep_rate": 1.0},
        evaluation={"test_keep_rates": [1.0], "batch_size": 2},
    )
    results = train(plan, words, tmp_path / "run")
    assert results["missing_clips"] == {"test": [gone.id]}
    assert list(results["replaced_clips"]["test"]) == [broken.id]
    assert set(results["replaced_clips"].get("train", {})) <= {f"{WORDS[9]}/1_nohash_0.wav"}
    assert results["test_clips"] == TEST_CLIPS - 2
    frontend = spectrim.Frontend.from_config(from_pretrained(tmp_path / "run" / "model").config)
    model, hits = from_pretrained(tmp_path / "run" / "model").eval(), []
    for recording in part.recordings:
        if recording not in (gone, broken):
            samples = torch.from_numpy(soundfile.read(recording.path, dtype="float32")[0])
            best = model(frontend([samples]).input_values).logits.argmax().item()
            hits.append(best == recording.labels[0])
    assert results["test"]["1.0"] == np.mean(hits)


def test_too_many_missing_clips_end_the_run_before_it_begins(tmp_path: Path) -> None:
    words = write_words(tmp_path / "words")
    for recording in find_data_set("spoken-commands").open(words, "test").recordings[:3]:
        recording.path.unlink()
    with pytest.raises(DataError, match="3 of 5 files are missing"):
        train(recipe(), words, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_kept_audio_changes_nothing_and_spares_the_decoding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root = write_tones(tmp_path / "tones", per_fold=6, folds=2)
    for path in root.glob("*.wav"):
        soundfile.write(path.with_suffix(".flac"), np.repeat(soundfile.read(path)[0], 2), 32000)
    (root / "labels.csv").write_text((root / "labels.csv").read_text().replace(".wav", ".flac"))
    fields = {**SIZE, "max_length": 32, "mean": -7.0, "std": 3.0}
    plan = recipe(data={"name": "csv"}, model={"fields": fields}, optimiser={"batch_size": 6})
    without = train(plan, root, tmp_path / "without")
    read, names = cache.audio.read, []

    def note(path: Path, rate: int = 16000) -> Any:
        names.append(path.name)
        return read(path, rate)

    monkeypatch.setattr(cache.audio, "read", note)
    with pytest.warns(InputNotice, match="decoded audio is kept in .*, 1 GB at most; --cache off keeps none"):
        kept = train(plan, root, tmp_path / "kept", cache=cache.AudioCache(root, tmp_path / "audio", 10**9))
    assert sorted(names) == sorted(path.name for path in root.glob("*.flac"))
    assert kept == without
    weights = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("kept", "without")]
    assert all(torch.equal(weights[0][name], weight) for name, weight in weights[1].items())
    (tmp_path / "file").write_text("")
    train(plan, root, tmp_path / "none", cache=cache.AudioCache(root, tmp_path / "file" / "in"))
    assert "decoded audio is not kept" in caplog.text


def test_a_recipe_that_leaves_the_ranking_of_its_checkpoint_behind_says_so_once(
    words: Path, finished: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from_pretrained(finished / "model", criterion="value_norm").save_pretrained(tmp_path / "ranked")
    for said, model in ({}, finished / "model"), ({"criterion": "auto"}, tmp_path / "ranked"):
        prepare(recipe(pruning=said), words, tmp_path / "run", str(model))
    assert "ranks patches" not in caplog.text
    prepare(recipe(), words, tmp_path / "run", str(tmp_path / "ranked"))
    assert (
        "ranked ranks patches by value_norm, this recipe by the backbone's attention; --set pruning.cri" in caplog.text
    )
