"""What a run learns from a teacher and from the share of patches it keeps, beside what is written out here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from small_runs import recipe, rows_of, write_words
from torch.nn import functional

from spectrim.checkpoints import from_pretrained
from spectrim.errors import InvalidSetting
from spectrim.training.finetune import build_trainer, prepare, train

TAUGHT: dict[str, Any] = {
    "pruning": {"reducer": "dynamicvit", "keep_rate": 0.6, "shrink_start": 0.0, "shrink_epochs": 0.0},
    "distillation": {"teacher": "init", "logits": 0.25, "tokens": 0.75},
    "augment": {"mask_time": 0.0, "mask_frequency": 0.0},
}
DENSE = {"pruning": {"keep_rate": 1.0, "shrink_epochs": 0.0}, "optimiser": {"epochs": 1}}


PROBLEMS = {
    "cross_entropy": "single_label_classification",
    "binary_cross_entropy": "multi_label_classification",
}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_words(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def known(words: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dense model of the data."""
    output = tmp_path_factory.mktemp("dense") / "run"
    train(recipe(**DENSE), words, output)
    return str(output / "model")


@pytest.mark.parametrize("loss", ["cross_entropy", "binary_cross_entropy"])
def test_the_loss_is_the_sum_of_its_parts(words: Path, known: str, tmp_path: Path, loss: str) -> None:
    from_pretrained(known, problem_type=PROBLEMS[loss]).save_pretrained(tmp_path / "start")
    known = str(tmp_path / "start")
    job = prepare(recipe(**TAUGHT, loss=loss), words, tmp_path, known)
    trainer = build_trainer(job, progress=False, say=None)
    batch = next(iter(trainer.get_train_dataloader()))
    model, teacher = job.model.train(), from_pretrained(known)
    torch.nn.init.normal_(model.norm.weight, mean=0.5)
    torch.manual_seed(5)
    total = trainer.compute_loss(model, dict(batch))
    torch.manual_seed(5)
    values = {"input_values": batch["input_values"], "output_hidden_states": True}
    out = model(**values, labels=batch["labels"], keep_rate=0.6)
    with torch.no_grad():
        taught = teacher(**values, keep_rate=1.0)
    shares = [left.mean(dim=1) for left in out.decisions[1:]]
    ratio = sum(((share - 0.6**stage) ** 2).mean() for stage, share in enumerate(shares, 1)) / 2
    if loss == "cross_entropy":
        wanted, known_labels = out.logits.log_softmax(dim=1), taught.logits.log_softmax(dim=1)
        labels = functional.kl_div(wanted, known_labels, reduction="batchmean", log_target=True)
    else:
        both = (torch.distributions.Bernoulli(logits=one) for one in (taught.logits, out.logits))
        labels = torch.distributions.kl_divergence(*both).mean()
    ours, theirs = (norm(one.hidden_states[-1][:, 2:]) for norm, one in ((model.norm, out), (teacher.norm, taught)))
    tokens = ((ours - theirs) ** 2)[out.decisions[-1] > 0.5].mean()
    torch.testing.assert_close(total, out.loss + 2.0 * ratio + 0.25 * labels + 0.75 * tokens)
    assert not any(weight.requires_grad for weight in job.teacher.parameters())


def test_a_run_logs_its_parts_and_ends_with_a_model_that_loads(words: Path, known: str, tmp_path: Path) -> None:
    results = train(recipe(**TAUGHT), words, tmp_path / "run", init=known)
    assert set(results["test"]) >= {"1.0", "0.6"}
    logged = [row for row in rows_of(tmp_path / "run") if "loss" in row]
    assert all(0 < sum(row[f"{part}_loss"] for part in ("ratio", "logits", "tokens")) < row["loss"] for row in logged)
    evaluated = [row for row in rows_of(tmp_path / "run") if "eval_loss" in row]
    assert evaluated and not any("ratio_loss" in row for row in evaluated)
    config = json.loads((tmp_path / "run" / "model" / "config.json").read_text())
    assert (config["reducer"], config["predictor_blocks"], config["keep_rate"]) == ("dynamicvit", [1, 2], 0.6)
    again = from_pretrained(tmp_path / "run" / "model")
    begun = prepare(recipe(**TAUGHT), words, tmp_path, known).model
    for block in (1, 2):
        assert not torch.equal(again.blocks[block].predictor.own.weight, begun.blocks[block].predictor.own.weight)


def test_a_dense_model_of_any_other_kind_can_learn_from_labels_alone(words: Path, known: str, tmp_path: Path) -> None:
    plan = recipe(distillation={"teacher": known, "tokens": 0.0}, optimiser={"epochs": 2})
    train(plan, words, tmp_path / "run", init=known)
    logged = [row for row in rows_of(tmp_path / "run") if "loss" in row]
    assert logged and all("logits_loss" in row and "tokens_loss" not in row for row in logged)


def test_a_teacher_of_fewer_blocks_than_prune_at_teaches(words: Path, tmp_path: Path) -> None:
    shallow = {"model": {"fields": {"num_hidden_layers": 2}}, "pruning": {**DENSE["pruning"], "prune_at": [1]}}
    train(recipe(**shallow, optimiser=DENSE["optimiser"]), words, tmp_path / "teacher")
    distillation = {"teacher": str(tmp_path / "teacher" / "model"), "tokens": 0.0}
    plan = recipe(pruning={"prune_at": [1, 3]}, distillation=distillation, optimiser={"epochs": 2})
    train(plan, words, tmp_path / "run")
    assert any("logits_loss" in row for row in rows_of(tmp_path / "run"))


def test_what_cannot_teach_is_refused_by_name(words: Path, known: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="with --init, the checkpoint that is to teach") as error:
        prepare(recipe(**TAUGHT), words, tmp_path)
    assert error.value.field == "distillation.teacher"
    other = from_pretrained(known, labels=["one", "two"])
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(InvalidSetting, match="35 labels") as error:
        prepare(recipe(**TAUGHT), words, tmp_path, str(tmp_path / "other"))
    assert error.value.field == "distillation.teacher"
    plan = recipe(model={"fields": {"sampling_rate": 8000}}, distillation={"teacher": known, "tokens": 0.0})
    with pytest.raises(InvalidSetting, match=r"a model whose sampling_rate is 8000; that of .* is 16000"):
        prepare(plan, words, tmp_path)
    with pytest.raises(ValidationError, match=r"distillation\.tokens is 0\.5; .* the teacher's tokens are others"):
        recipe(distillation={"teacher": "init"})


def test_labels_in_another_order_are_brought_into_that_of_the_data(words: Path, known: str, tmp_path: Path) -> None:
    """A start keeps its head, and a teacher says of each label what it said."""
    other = from_pretrained(known)
    with torch.no_grad():
        for values in other.head.linear.parameters():
            values.copy_(values.flip(0).clone())
    names = [*other.config.id2label.values()][::-1]
    other.config.id2label, other.config.label2id = dict(enumerate(names)), {name: k for k, name in enumerate(names)}
    other.save_pretrained(tmp_path / "other")
    plan = recipe(distillation={"teacher": "init", "tokens": 0.0})
    job = prepare(plan, words, tmp_path, str(tmp_path / "other"))
    wanted = from_pretrained(known)
    assert job.teacher is not None
    for model in (job.model, job.teacher):
        assert model.config.id2label == wanted.config.id2label and model.config.label2id == wanted.config.label2id
        assert torch.equal(model.head.linear.weight, wanted.head.linear.weight)
        assert torch.equal(model.head.linear.bias, wanted.head.linear.bias)


@pytest.mark.parametrize(("field", "value"), [("mean", -2.5), ("std", 9.0), ("padding", "minimum")])
def test_a_teacher_of_other_input_is_refused_and_the_start_is_not(
    words: Path, known: str, tmp_path: Path, field: str, value: float | str
) -> None:
    fields = {"model": {"fields": {field: value}}}
    with pytest.raises(InvalidSetting, match=rf"a model whose {field} is {value!r}; that of .* is ") as error:
        prepare(recipe(**fields, distillation={"teacher": known, "tokens": 0.0}), words, tmp_path)
    assert error.value.field == "distillation.teacher"
    job = prepare(recipe(**fields, distillation={"teacher": "init", "tokens": 0.0}), words, tmp_path, known)
    assert job.teacher is not None and getattr(job.teacher.config, field) == value


def test_a_teacher_of_another_length_is_fitted_and_named(
    words: Path, known: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plan = recipe(model={"fields": {"max_length": 64}}, distillation={"teacher": known, "tokens": 0.0})
    job = prepare(plan, words, tmp_path)
    assert job.teacher is not None and job.teacher.config.max_length == 64
    assert f"{known} teaches at 64 frames, not at its own 32" in caplog.text


@pytest.mark.parametrize(("ours", "theirs"), [(*PROBLEMS,), (*reversed(PROBLEMS),)])
def test_a_teacher_of_the_other_loss_teaches_no_labels(
    words: Path, known: str, tmp_path: Path, ours: str, theirs: str
) -> None:
    from_pretrained(known, problem_type=PROBLEMS[theirs]).save_pretrained(tmp_path / "other")
    other = str(tmp_path / "other")
    with pytest.raises(InvalidSetting, match=rf"trained with {ours}; .* was trained with {theirs}") as error:
        prepare(recipe(loss=ours, distillation={"teacher": other, "tokens": 0.0}), words, tmp_path)
    assert error.value.field == "distillation.teacher"
    plan = recipe(**{**TAUGHT, "distillation": {"teacher": other, "logits": 0.0}}, loss=ours)
    assert prepare(plan, words, tmp_path).teacher is not None
