"""That ``import spectrim`` is light and all that transformers needs, in whatever order things are imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from plain import small_model

import spectrim
from spectrim.audio.feature_extractor import SpectrimFeatureExtractor

ORDERS = {
    "all Auto classes, then spectrim": "from transformers import pipeline\nimport spectrim",
    "some Auto classes before and some after": (
        "from transformers import AutoConfig\nimport spectrim\nfrom transformers import AutoFeatureExtractor"
    ),
    "spectrim, then a model of transformers, which imports Auto classes while it is half imported": (
        "import spectrim\nfrom transformers.models.vit import modeling_vit"
    ),
}
USE = """
TINY = dict(hidden_size=16, intermediate_size=16, num_attention_heads=1, num_hidden_layers=1, prune_at=[0])
import numpy, transformers
classify = transformers.pipeline("audio-classification", model=FOLDER, device="cpu")
rows = classify(numpy.sin(numpy.arange(16000.0)), top_k=None)
names = [type(part).__name__ for part in (
    classify.model, classify.feature_extractor, transformers.AutoConfig.from_pretrained(FOLDER),
    transformers.AutoFeatureExtractor.from_pretrained(FOLDER),
    transformers.AutoModelForAudioClassification.from_pretrained(FOLDER),
    transformers.AutoModelForAudioClassification.from_config(spectrim.SpectrimConfig(**TINY)),
)]
"""
NAMES = ["AudioTransformer", "SpectrimFeatureExtractor", "SpectrimConfig", "SpectrimFeatureExtractor"]
NAMES += ["AudioTransformer"] * 2
# What takes time is what transformers and spectrim import; it is imported once, and each order runs in a copy.
PROGRAM = """
import json, os, sys
import huggingface_hub, numpy, scipy.signal, sklearn.metrics, soundfile, tokenizers, torch, torch.distributed
folder, use, orders = json.load(sys.stdin)
for order in orders:
    assert not {name.split(".")[0] for name in sys.modules} & {"spectrim", "transformers"}
    child = os.fork()
    if child == 0:
        names = {"FOLDER": folder}
        exec(order + use, names)
        print(json.dumps([len(names["rows"]), names["names"]]), flush=True)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, order
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_importing_the_package_in_any_order_is_all_that_transformers_needs(tmp_path: Path) -> None:
    model = small_model("ast", num_hidden_layers=2, prune_at=[1])
    model.save_pretrained(tmp_path)
    SpectrimFeatureExtractor.from_config(model.config).save_pretrained(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([str(tmp_path), USE, list(ORDERS.values())]),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert [json.loads(line) for line in done.stdout.splitlines()] == [[5, NAMES]] * len(ORDERS)


@pytest.mark.parametrize("program", ["spectrim", "python"])
def test_the_package_is_light_whatever_the_program_is_called(program: str) -> None:
    code = (
        f"import sys; sys.argv[0] = {program!r}\n"
        "import spectrim\n"
        "print(*sorted({'torch', 'transformers', 'numpy', 'matplotlib'} & set(sys.modules)))\n"
        "print(spectrim.SpectrimError.__module__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["", "spectrim.errors"]


def test_only_public_names_are_listed_and_all_of_them_are_there() -> None:
    assert dir(spectrim) == sorted([*spectrim.__all__, "__version__"])
    assert all(getattr(spectrim, name) is not None for name in dir(spectrim))
