"""Two nodes under torchrun, each with a process, train and evaluate as one process does."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file
from small_runs import EVERYTHING, TEST_CLIPS, over, recipe, rows_of, write_words

from spectrim.data.packing import pack
from spectrim.training.finetune import train


def test_two_nodes_on_packed_clips_give_the_metrics_and_weights_of_one_process(tmp_path: Path) -> None:
    """All augmentations are on, but no stochastic depth, of which each process draws its own.

    Five test clips in batches of four: the second batch is filled up, with clips that must not count twice. A process
    by itself has the losses of the files to the bit.
    """
    words = write_words(tmp_path / "words")
    pack("spoken-commands", words, tmp_path / "packed", shard_bytes=100_000)
    changes = {
        "model": {"fields": {"drop_path_rate": 0.0}},
        "optimiser": {"learning_rate": 1e-4, "drop_last": True, "batch_size": 12, "accumulate": 2, "epochs": 2},
        "sampling": {"kind": "balanced"},
        "evaluation": {"batch_size": 4, "test_keep_rates": [1.0]},
        "pruning": {"shrink_start": 0.8},
    }
    plan = recipe(**over(EVERYTHING, changes))
    train(plan, words, tmp_path / "one")
    train(plan, tmp_path / "packed", tmp_path / "alone")
    assert [untimed(row) for row in rows_of(tmp_path / "one")] == [untimed(row) for row in rows_of(tmp_path / "alone")]
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(plan.model_dump(mode="json")))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torchrun = [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"),
        *("--master-addr", "127.0.0.1", "--master-port", str(port)),
    ]
    command = [
        *("-m", "spectrim", "train", str(file), "--data", str(tmp_path / "packed")),
        *("--output", str(tmp_path / "two"), "--no-progress"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    nodes = [
        subprocess.Popen(
            [*torchrun, "--node-rank", str(rank), *command],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    said = [node.communicate() for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    one, two = (rows_of(tmp_path / name) for name in ("one", "two"))
    assert json.loads((tmp_path / "two" / "environment.json").read_text())["processes"] == 2
    assert len(one) == len(two)
    for expected, found in zip(one, two, strict=True):
        assert expected.keys() == found.keys()
        for name, value in untimed(expected).items():
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
    assert [out.count("model: ") for out, _ in said] == [1, 0]


def untimed(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if "runtime" not in name and "per_second" not in name}
