"""Metadata that somebody changed: every one is refused in one typed line, before anything is made of it."""

from __future__ import annotations

import json
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from exported import exported, tiny_model, with_fact

from spectrim.errors import CheckpointError
from spectrim.inference.onnx_metadata import read_metadata, write_metadata
from spectrim.inference.onnx_model import OnnxModel

WHOLE = write_metadata(tiny_model("ast").config, "fp32", "log_mel")


def with_setting(name: str, value: Any) -> dict[str, str]:
    return {**WHOLE, "config": json.dumps({**json.loads(WHOLE["config"]), name: value})}


def without_setting(name: str) -> dict[str, str]:
    settings = json.loads(WHOLE["config"])
    del settings[name]
    return {**WHOLE, "config": json.dumps(settings)}


def test_what_was_written_is_read_again() -> None:
    config = tiny_model("ast").config
    found = read_metadata(WHOLE, "x.onnx")
    assert (found.precision, found.takes, found.config.pruning) == ("fp32", "log_mel", config.pruning)
    assert found.config.id2label == config.id2label
    assert type(config).own_fields(found.config) == type(config).own_fields(config)


@pytest.mark.parametrize("name", ["config", "labels", "precision", "takes"])
def test_what_is_missing_is_named(name: str) -> None:
    with pytest.raises(CheckpointError, match=rf"^x\.onnx: is no model .* \(no '{name}' in its metadata\)$"):
        read_metadata({key: value for key, value in WHOLE.items() if key != name}, "x.onnx")


TAMPERED: dict[str, tuple[Callable[[], dict[str, str]], str]] = {
    "no JSON": (lambda: {**WHOLE, "config": "{"}, "config in its metadata is no JSON: "),
    "brackets": (lambda: {**WHOLE, "config": "[" * 200_000}, "config in its metadata is no JSON: .*50 deep"),
    "deep": (lambda: with_setting("x", json.loads("[" * 60 + "]" * 60)), "no JSON: .* 50 deep"),
    "deep labels": (lambda: {**WHOLE, "labels": "[" * 100_000 + "]" * 100_000}, "labels .* no JSON: .*50 deep"),
    "a list": (lambda: {**WHOLE, "config": "[1]"}, "config in its metadata is a list, not an object"),
    "no settings": (lambda: {**WHOLE, "config": "null"}, "config in its metadata is a NoneType, not an object"),
    "a name": (lambda: {**WHOLE, "labels": '"abc"'}, "labels in its metadata is a str, not a list"),
    "an object": (lambda: {**WHOLE, "labels": '{"0": "a"}'}, "labels in its metadata is a dict, not a list"),
    "numbers": (lambda: {**WHOLE, "labels": "[1, 2]"}, "must be a list of names"),
    "no labels": (lambda: {**WHOLE, "labels": "[]"}, "must be a list of names"),
    "other labels": (lambda: {**WHOLE, "labels": '["a", "b"]'}, "its labels are not those of its configuration"),
    "no id2label": (lambda: without_setting("id2label"), "its labels are not those of its configuration"),
    "gaps": (lambda: with_setting("id2label", {"0": "a", "7": "b"}), ""),
    "id2label is a list": (lambda: with_setting("id2label", ["a"]), "id2label in the config in its metadata is a list"),
    "id2label has words": (lambda: with_setting("id2label", {"one": "a"}), ""),
    "wide": (lambda: with_setting("hidden_size", 1 << 40), "hidden_size is 1099511627776; allowed"),
    "long": (lambda: with_setting("max_length", 10**12), "max_length is 1000000000000; allowed"),
    "fast": (lambda: with_setting("sampling_rate", 10**12), "sampling_rate is 1000000000000; allowed"),
    "many outputs": (lambda: with_setting("num_labels", 10**12), ""),
    "text": (lambda: with_setting("max_length", "1024"), ""),
    "nothing": (lambda: with_setting("num_hidden_layers", None), ""),
    "not whole": (lambda: with_setting("num_attention_heads", 4.5), ""),
    "below nought": (lambda: with_setting("frequency_stride", -16), ""),
    "no number": (lambda: with_setting("std", float("nan")), ""),
    "a block that is not there": (lambda: with_setting("prune_at", [0, 99]), "prune_at"),
    "blocks of text": (lambda: with_setting("prune_at", "3"), ""),
    "a rate out of range": (lambda: with_setting("keep_rate", 7), "keep_rate is 7; allowed"),
    "a rate that is a list in a list": (lambda: with_setting("keep_rate", [[0.5]]), ""),
    "another criterion": (lambda: with_setting("criterion", "loudness"), "criterion is 'loudness'"),
    "a method": (lambda: with_setting("to_dict", 1), "the config in its metadata sets 'to_dict', which is no field"),
    "another precision": (lambda: {**WHOLE, "precision": "fp64"}, "precision in its metadata is 'fp64'; allowed"),
    "another input": (lambda: {**WHOLE, "takes": "pictures"}, "takes in its metadata is 'pictures'; allowed"),
    "a long word": (lambda: {**WHOLE, "takes": "x" * 10**6}, "takes in its metadata is "),
}


@pytest.mark.parametrize("case", TAMPERED)
def test_tampered_metadata_are_refused_in_one_line(case: str) -> None:
    make, message = TAMPERED[case]
    table = make()
    tracemalloc.start()
    with pytest.raises(CheckpointError, match=rf"^x\.onnx: .*{message}") as caught:
        read_metadata(table, "x.onnx")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 600
    assert peak < 100e6


@pytest.mark.parametrize("name", ["attn_implementation", "auto_map", "quantization_config"])
def test_what_could_import_or_download_is_left_out_by_name(name: str) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = read_metadata(with_setting(name, "somebody/elses-code"), "x.onnx")
    assert [str(one.message) for one in told] == [f"x.onnx: ignored in the config in its metadata: {name}"]
    assert found.config.id2label == tiny_model("ast").config.id2label


def test_a_graph_of_another_size_than_its_metadata_is_refused(tmp_path: Path) -> None:
    """As many labels in the metadata as there are names, but not as many as the graph gives."""
    model, path = exported("audiomae")
    settings = {**json.loads(write_metadata(model.config, "fp32", "log_mel")["config"])}
    names = [f"label {index}" for index in range(model.config.num_labels + 1)]
    changed = with_fact(path, tmp_path / "more.onnx", "labels", json.dumps(names))
    settings |= {"id2label": dict(enumerate(names)), "label2id": {name: index for index, name in enumerate(names)}}
    changed = with_fact(changed, tmp_path / "changed.onnx", "config", json.dumps(settings))
    with pytest.raises(CheckpointError, match=r"changed\.onnx: its graph gives .*'logits': \(5,\).* it was changed"):
        OnnxModel(changed)
    pointer = tmp_path / "pointer.onnx"
    pointer.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    with pytest.raises(CheckpointError, match="is a Git LFS pointer"):
        OnnxModel(pointer)
