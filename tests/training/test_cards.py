from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from small_runs import SIZE, recipe

from spectrim.backbones import audiomae_base
from spectrim.checkpoints import from_pretrained
from spectrim.network.macs import macs
from spectrim.network.transformer import AudioTransformer
from spectrim.training.cards import write_card

RESULTS: dict[str, Any] = {
    "chosen": {"step": 12, "epoch": 1.5, "validation_accuracy": 0.75},
    "chosen_on": "validation",
    "metric": "accuracy",
    "test_clips": 5,
    "test": {"1.0": 0.8, "0.5": 0.6},
    "training_clips": 70,
}


@pytest.fixture(scope="module")
def config() -> Any:
    return audiomae_base(**SIZE, max_length=32, keep_rate=0.5, prune_at=[1, 2], num_labels=35)


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A checkpoint in AudioMAE's own layout, whose licence forbids commercial use."""
    width, depth = 192, 1
    tensors = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 513, width),
        "patch_embed.proj.weight": (width, 1, 16, 16),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    for block in range(depth):
        for name, shape in {
            "norm1.weight": (width,),
            "norm1.bias": (width,),
            "norm2.weight": (width,),
            "norm2.bias": (width,),
            "attn.qkv.weight": (3 * width, width),
            "attn.qkv.bias": (3 * width,),
            "attn.proj.weight": (width, width),
            "attn.proj.bias": (width,),
            "mlp.fc1.weight": (4 * width, width),
            "mlp.fc1.bias": (4 * width,),
            "mlp.fc2.weight": (width, 4 * width),
            "mlp.fc2.bias": (width,),
        }.items():
            tensors[f"blocks.{block}.{name}"] = shape
    path = tmp_path_factory.mktemp("official") / "pretrained.pth"
    torch.save({"model": {name: torch.zeros(shape) for name, shape in tensors.items()}}, path)
    return str(path)


def card_of(folder: Path) -> ModelCard:
    return ModelCard.load(folder / "README.md")


def test_the_card_carries_the_results_for_machines_and_for_readers(config: Any, tmp_path: Path) -> None:
    write_card(tmp_path, config, recipe(name="tones", description="Tones, {not} a field"), None, RESULTS)
    card = card_of(tmp_path)
    assert (card.data.library_name, card.data.pipeline_tag) == ("spectrim", "audio-classification")
    assert card.data.license is None
    found = [(result.metric_type, result.metric_name, result.metric_value) for result in card.data.eval_results]
    assert found == [
        ("accuracy", "accuracy at keep rate 1.0", 0.8),
        ("accuracy", "accuracy at keep rate 0.5", 0.6),
    ]
    assert {(result.dataset_type, result.task_type) for result in card.data.eval_results} == {
        ("spoken-commands", "audio-classification")
    }
    assert card.data.model_name == "tones"
    text = card.text
    for rate, value in RESULTS["test"].items():
        count = macs(config, keep_rate=float(rate))
        assert f"| {rate} | {value:.4f} | {count.paper / 1e6:,.1f} M | {count.executed / 1e6:,.1f} M |" in text
    assert "5 clips of the test part, the weights of epoch 1.50 (chosen on validation clips that are neither" in text
    assert "Tones, {not} a field" in text
    assert "Started from random weights." in text
    assert "CC BY-NC" not in text
    assert json.loads(text.partition("```json\n")[2].partition("```")[0]) == recipe(
        name="tones", description="Tones, {not} a field"
    ).model_dump(mode="json")


def test_the_licence_of_the_start_goes_on(config: Any, official: str, tmp_path: Path) -> None:
    write_card(tmp_path, config, recipe(), official, RESULTS)
    card = card_of(tmp_path)
    assert card.data.license == "cc-by-nc-4.0"
    assert "CC BY-NC 4.0: no commercial use" in card.text
    assert f"Started from `{official}`." in card.text


def test_a_model_that_was_not_tested_says_so(config: Any, tmp_path: Path) -> None:
    results = {**RESULTS, "test": {}, "test_clips": 0, "chosen": {"step": 12, "epoch": 1.5}, "chosen_on": None}
    write_card(tmp_path, config, recipe(), None, results)
    card = card_of(tmp_path)
    assert card.data.eval_results is None
    assert "Not tested." in card.text
    assert "the weights of epoch 1.50 (none chosen: the last one)." in card.text


@pytest.mark.parametrize(
    ("evaluation", "on", "said"),
    [
        ({"choose": "average", "average_last": 2}, None, "none chosen: the mean of the weights of the last 2 checkpo"),
        (
            {"choose": "average", "average_last": 3, "every_epochs": 0.5},
            None,
            "none chosen: the mean of the weights of the last 2 ",
        ),
        ({}, "test", "chosen on the clips that are tested, which flatters the result; "),
    ],
)
def test_the_card_says_how_the_epoch_was_chosen(
    config: Any, tmp_path: Path, evaluation: dict[str, Any], on: str | None, said: str
) -> None:
    further = {"averaged_steps": [6, 12]} if on is None else {"validation_accuracy": 0.75}
    results = {**RESULTS, "chosen": {"step": 12, "epoch": 1.5, **further}, "chosen_on": on}
    write_card(tmp_path, config, recipe(evaluation=evaluation), None, results)
    assert f"the weights of epoch 1.50 ({said}" in card_of(tmp_path).text


def test_a_card_does_not_keep_its_model_from_loading(config: Any, tmp_path: Path) -> None:
    AudioTransformer(config).save_pretrained(tmp_path)
    write_card(tmp_path, config, recipe(), None, RESULTS)
    assert from_pretrained(tmp_path).config.keep_rate == 0.5


def test_names_and_descriptions_are_text_and_never_markup(config: Any, tmp_path: Path) -> None:
    evil = "<script>x</script> [a](javascript:b)\n# c\n```"
    write_card(tmp_path, config, recipe(name="tones", description=evil), None, RESULTS)
    tokens = MarkdownIt("commonmark").parse(card_of(tmp_path).text)
    inline = [child for token in tokens for child in token.children or ()]
    assert not any(token.type.startswith("html") for token in [*tokens, *inline])
    assert [child.attrs["href"] for child in inline if child.type == "link_open"] == [
        "https://pypi.org/project/spectrim/"
    ]
    assert "c" not in [token.content for token in tokens if token.type == "inline"]
    (block,) = [token.content for token in tokens if token.type == "fence" and token.info == "json"]
    assert json.loads(block)["description"] == evil
