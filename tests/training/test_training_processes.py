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
import small_runs
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


DRAWING = """
import os, sys
from pathlib import Path
from small_runs import recipe
from spectrim.network import blocks
from spectrim.training.finetune import build_trainer, prepare
kept = []
draw = blocks.DropPath.forward
def drawing(self, branch):
    after = draw(self, branch)
    if self.training and self.rate:
        kept.append("".join(str(int(clip.any())) for clip in after))
    return after
blocks.DropPath.forward = drawing
fields = {"drop_path_rate": 0.9}
plan = recipe(model={"fields": fields}, optimiser={"batch_size": 10, "drop_last": True})
build_trainer(prepare(plan, sys.argv[1], sys.argv[2]), progress=False, say=None).train()
(Path(sys.argv[2]) / f"kept{os.environ['RANK']}.txt").write_text("\\n".join(kept))
"""


def test_each_process_draws_stochastic_depth_of_its_own(tmp_path: Path) -> None:
    script = tmp_path / "drawing.py"
    script.write_text(DRAWING)
    (tmp_path / "run").mkdir()
    words = write_words(tmp_path / "words")
    helpers = str(Path(small_runs.__file__).parent)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join([helpers, environment.get("PYTHONPATH", "")])
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*torchrun, str(script), str(words), str(tmp_path / "run")], env=environment, check=True)
    first, second = ((tmp_path / "run" / f"kept{rank}.txt").read_text().split() for rank in (0, 1))
    assert len(first) == len(second) > 20
    assert sum(one == other for one, other in zip(first, second, strict=True)) < len(first) / 2


def untimed(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if "runtime" not in name and "per_second" not in name}
