"""Time the whole way from audio files to labels, beside transformers' pipeline, in turn in one run.

    python benchmarks/files.py --json benchmarks/results/files.json

The files are FLAC, 10 s, mono, 16 kHz, so that nobody resamples. Both use the same AST-B/16 weights (random: speed
does not depend on them) and batches of 8. transformers: soundfile reads, then ``pipeline("audio-classification")``
with its ASTFeatureExtractor and SDPA attention. Spectrim: `spectrim.predict`, which decodes in worker processes.
Spectrim's stages are timed alone as well: decoding, front end, model. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from cases import RATES, prepare
from numpy.typing import NDArray
from transformers import ASTFeatureExtractor, Pipeline, pipeline
from transformers.utils import is_speech_available

from spectrim import benchmark
from spectrim.frontend import Frontend
from spectrim.model import AudioTransformer
from spectrim.packing import pack_weights
from spectrim.predict import Tagger, decoded_windows, predict
from spectrim.whole import write_json

RATE, SECONDS, BATCH = 16000, 10, 8


def write_files(folder: Path, count: int) -> list[str]:
    """Seeded tones in noise as FLAC; returns the paths."""
    paths, generator = [], np.random.default_rng(0)
    moment = np.arange(SECONDS * RATE) / RATE
    for number in range(count):
        tone = 0.2 * np.sin(2 * np.pi * generator.uniform(100, 4000) * moment) * np.abs(np.sin(moment))
        path = folder / f"{number:03}.flac"
        soundfile.write(path, tone + 0.02 * generator.standard_normal(len(moment)), RATE)
        paths.append(str(path))
    return paths


def transformers_way(paths: list[str], pipe: Pipeline) -> list[list[tuple[str, float]]]:
    """Labels and scores of each file by transformers' pipeline."""
    clips = [{"raw": soundfile.read(path, dtype="float32")[0], "sampling_rate": RATE} for path in paths]
    found = pipe(clips, batch_size=BATCH, top_k=5, function_to_apply="sigmoid")
    return [[(one["label"], one["score"]) for one in labels] for labels in found]


def our_way(paths: list[str], model: AudioTransformer, rate: float) -> list[list[tuple[str, float]]]:
    """Labels and scores of each file by `spectrim.predict`."""
    return [one.top(5) for one in predict(paths, model, keep_rate=rate, batch_size=BATCH)]


def stages(paths: list[str], model: AudioTransformer) -> dict[str, Callable[[], object]]:
    """Spectrim's stages alone, on the same clips: decoding in this process and in workers, front end, model."""
    frontend, tagger = Frontend.from_config(model.config), Tagger.from_model(model)
    waves = [soundfile.read(path, dtype="float32")[0] for path in paths]
    features = [frontend(waves[start : start + BATCH]).input_values for start in range(0, len(waves), BATCH)]

    def front_end() -> None:
        for start in range(0, len(waves), BATCH):
            frontend(waves[start : start + BATCH])

    def run_model(rate: float) -> None:
        with torch.inference_mode():
            for values in features:
                model(values, keep_rate=rate)

    return {
        "decoding, one process": lambda: [soundfile.read(path, dtype="float32") for path in paths],
        "decoding, worker processes": lambda: list(decoded_windows(paths, tagger, batch_size=BATCH)),
        "front end": front_end,
        **{f"model, r={rate:g}": partial(run_model, rate) for rate in RATES},
    }


def measure(count: int, repeats: int, *, small: bool = False) -> dict[str, Any]:
    """Compare the answers, time everything in turn; times are per file."""
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(name)
        setting = prepare("ast-10s", folder, small=small)
        model, theirs = pack_weights(setting.model), setting.theirs
        model.config.problem_type = "multi_label_classification"
        if theirs is None:
            raise ValueError("the case has no model of transformers")
        theirs.set_attn_implementation("sdpa")
        pipe = pipeline("audio-classification", model=theirs, feature_extractor=ASTFeatureExtractor())
        paths = write_files(folder, count)
        difference = max(
            abs(score - float(ours[theirs.config.label2id[label]]))
            for theirs_of, ours in zip(transformers_way(paths, pipe), all_scores(paths, model), strict=True)
            for label, score in theirs_of
        )
        cases: dict[str, Callable[[], object]] = {"transformers' pipeline": partial(transformers_way, paths, pipe)}
        cases |= {f"spectrim.predict, r={rate:g}": partial(our_way, paths, model, rate) for rate in RATES}
        cases |= {f"spectrim alone: {stage}": call for stage, call in stages(paths, model).items()}
        load = os.getloadavg()[0]
        seconds = benchmark.interleaved(cases, repeats=repeats, warmup=1, rest=0.1, shuffle=0)
    base = statistics.median(seconds["transformers' pipeline"])
    rows = [
        {
            "what": what,
            **benchmark.spread([one / count for one in taken]),
            "speed_up_over_pipeline": base / statistics.median(taken),
        }
        for what, taken in seconds.items()
    ]
    return {
        "what": f"ms per file of {SECONDS} s; {count} files, batches of {BATCH}",
        "files": count,
        "repeats": repeats,
        "small": small,
        "peer_uses": "torchaudio" if is_speech_available() else "numpy",
        "largest_score_difference": difference,
        "load_average_before": load,
        "rows": rows,
        "environment": benchmark.environment(),
    }


def all_scores(paths: list[str], model: AudioTransformer) -> list[NDArray[np.float32]]:
    """Scores of all labels for each file by `spectrim.predict`, nothing dropped."""
    found = [one.scores for one in predict(paths, model, keep_rate=1.0, batch_size=BATCH)]
    return [scores for scores in found if scores is not None]


def main() -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    parser.add_argument("--files", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="tiny models: shows that it runs; times say nothing")
    options = parser.parse_args()
    write_json(options.json, measure(options.files, options.repeats, small=options.small))


if __name__ == "__main__":
    main()
