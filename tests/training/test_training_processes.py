"""Two processes under torchrun train and evaluate as one does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file
from small_runs import EVERYTHING, TEST_CLIPS, over, recipe, write_words

from spectrim.training.finetune import train


def test_two_processes_give_the_metrics_and_weights_of_one(tmp_path: Path) -> None:
    """All augmentations are on, but no stochastic depth, of which each process draws its own.

    Five test clips in batches of four: the second batch is filled up, with clips that must not count twice.
    """
    words = write_words(tmp_path / "words")
    changes = {
        "model": {"fields": {"drop_path_rate": 0.0}},
        "optimiser": {"learning_rate": 1e-4, "drop_last": True, "batch_size": 12, "accumulate": 2, "epochs": 2},
        "evaluation": {"batch_size": 4, "test_keep_rates": [1.0]},
        "pruning": {"shrink_start": 0.8},
    }
    plan = recipe(**over(EVERYTHING, changes))
    train(plan, words, tmp_path / "one")
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(plan.model_dump(mode="json")))
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "spectrim"),
        *("train", str(file), "--data", str(words), "--output", str(tmp_path / "two"), "--no-progress"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    one, two = ([json.loads(line) for line in (tmp_path / name / "metrics.jsonl").open()] for name in ("one", "two"))
    assert json.loads((tmp_path / "two" / "environment.json").read_text())["processes"] == 2
    assert len(one) == len(two)
    for expected, found in zip(one, two, strict=True):
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            if "runtime" not in name and "per_second" not in name:
                assert found[name] == pytest.approx(value, rel=1e-5), (expected["step"], name)
    results: list[dict[str, Any]] = [
        json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two")
    ]
    assert results[0] == results[1]
    assert results[0]["test_clips"] == TEST_CLIPS
    assert {row["eval_clips"] for row in two if "eval_clips" in row} == {TEST_CLIPS}
    weights = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "two")]
    for name, weight in weights[0].items():
        assert (weight - weights[1][name]).abs().max() < 1e-5, name
    assert done.stdout.count("model: ") == 1
