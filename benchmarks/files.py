"""Time the whole way from audio files to labels, beside transformers' pipeline, in turn in one run.

    python benchmarks/files.py --json benchmarks/results/files.json
    python benchmarks/files.py --cases ast-10s ast-1s --exported onnxruntime:int8 openvino:int8 \
        --json benchmarks/results/files_exported.json

The files are FLAC, mono, 16 kHz, so that nobody resamples, and as long as the case's model hears at once. Both use the
same weights (random: speed does not depend on them). transformers, which has no AudioMAE: soundfile reads, then
``pipeline("audio-classification")`` with its ASTFeatureExtractor and SDPA attention. Spectrim: `spectrim.predict`,
which decodes in worker processes that it starts anew for every call. Spectrim's stages are timed alone as well:
decoding, front end, model. With ``--exported``, Spectrim also runs AST as ``--backend`` and ``--precision`` of
`spectrim predict` would, at the pruned rates, and how far the labels are from PyTorch's in fp32 at the same rate, on
clips of the package, is recorded beside the times: random weights tell classes apart less than trained ones do.
Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import soundfile
import torch
from cases import CASES, RATES, Setting, prepare
from numpy.typing import NDArray
from targets import PIPELINE
from transformers import ASTFeatureExtractor, Pipeline, pipeline
from transformers.utils import is_speech_available

from spectrim.audio.frontend import Frontend
from spectrim.files import write_json
from spectrim.inference.backend import Backend
from spectrim.inference.choosing import PRECISIONS, Pair, compared
from spectrim.inference.onnx_export import comparison_clips
from spectrim.inference.opening import ModelSource, open_model
from spectrim.inference.packing import pack_weights
from spectrim.inference.predict import decoded_windows, predict_files
from spectrim.inference.torch_model import TorchModel
from spectrim.machine import environment
from spectrim.measure import benchmark
from spectrim.network.transformer import AudioTransformer

RATE = 16000


def write_files(folder: Path, count: int, seconds: int) -> list[str]:
    """Seeded tones in noise as FLAC; returns the paths."""
    paths, generator = [], np.random.default_rng(0)
    moment = np.arange(seconds * RATE) / RATE
    for number in range(count):
        tone = 0.2 * np.sin(2 * np.pi * generator.uniform(100, 4000) * moment) * np.abs(np.sin(moment))
        path = folder / f"{number:03}.flac"
        soundfile.write(path, tone + 0.02 * generator.standard_normal(len(moment)), RATE)
        paths.append(str(path))
    return paths


def transformers_way(paths: list[str], pipe: Pipeline, batch: int) -> list[list[tuple[str, float]]]:
    """Labels and scores of each file by transformers' pipeline."""
    clips = [{"raw": soundfile.read(path, dtype="float32")[0], "sampling_rate": RATE} for path in paths]
    found = pipe(clips, batch_size=batch, top_k=5, function_to_apply="sigmoid")
    return [[(one["label"], one["score"]) for one in labels] for labels in found]


def our_way(paths: list[str], model: ModelSource, rate: float | None, batch: int) -> list[NDArray[np.float32]]:
    """Scores of all labels for each file by `spectrim.predict`; a rate of None is the model's own."""
    found = [one.scores for one in predict_files(paths, model, keep_rate=rate, batch_size=batch)]
    return [scores for scores in found if scores is not None]


def stages(paths: list[str], model: AudioTransformer, batch: int) -> dict[str, Callable[[], object]]:
    """Spectrim's stages alone, on the same clips: decoding in this process and in workers, front end, model."""
    frontend, backend = Frontend.from_config(model.config), TorchModel(model)
    waves = [soundfile.read(path, dtype="float32")[0] for path in paths]
    features = [frontend(waves[start : start + batch]).input_values for start in range(0, len(waves), batch)]

    def front_end() -> None:
        for start in range(0, len(waves), batch):
            frontend(waves[start : start + batch])

    def run_model(rate: float) -> None:
        with torch.inference_mode():
            for values in features:
                model(values, keep_rate=rate)

    return {
        "decoding, one process": lambda: [soundfile.read(path, dtype="float32") for path in paths],
        "decoding, worker processes": lambda: list(decoded_windows(paths, backend, batch_size=batch)),
        "front end": front_end,
        **{f"model, r={rate:g}": partial(run_model, rate) for rate in RATES},
    }


def exported(model: AudioTransformer, pairs: Sequence[Pair], folder: Path) -> dict[tuple[Pair, float], Backend]:
    """The model at each pruned rate in each backend and precision, as `spectrim predict --backend` opens it."""
    with patch("spectrim.inference.export_cache.constants.HF_ASSETS_CACHE", str(folder)):
        return {
            (pair, rate): open_model(model, rate, pair[1], "cpu", pair[0])
            for pair in pairs
            for rate in RATES
            if rate < 1.0
        }


def agreement(model: AudioTransformer, backends: Mapping[tuple[Pair, float], Backend]) -> list[dict[str, Any]]:
    """How far each is from PyTorch in fp32 at the same rate, on clips of the package."""
    waves = comparison_clips(model.config)
    found = []
    for (pair, rate), backend in backends.items():
        reference = TorchModel(model).at(keep_rate=rate)
        row = compared({("torch", "fp32"): reference, pair: backend}, waves)[1]
        facts = {"agreeing": row.agreeing, "clips": len(waves), "largest_score_difference": row.largest}
        found.append({"backend": pair[0], "precision": pair[1], "keep_rate": rate, **facts})
    return found


def peer(setting: Setting) -> Pipeline | None:
    """transformers' pipeline with the weights of a case, None where transformers has no such model."""
    if setting.theirs is None:
        return None
    setting.theirs.set_attn_implementation("sdpa")
    extractor = ASTFeatureExtractor(max_length=setting.case.frames)
    return pipeline("audio-classification", model=setting.theirs, feature_extractor=extractor)


def apart(paths: list[str], pipe: Pipeline, model: AudioTransformer) -> float:
    """Largest difference of the scores of the pipeline's labels between it and ours, nothing dropped."""
    both = zip(transformers_way(paths, pipe, 8), our_way(paths, model, 1.0, 8), strict=True)
    places = pipe.model.config.label2id
    return max(abs(score - float(ours[places[label]])) for theirs, ours in both for label, score in theirs)


def measure(
    name: str, batches: Sequence[int], audio: int, repeats: int, pairs: Sequence[Pair] = (), *, small: bool
) -> dict[str, Any]:
    """Compare the answers of a case, time everything in turn at each batch size; times are per file."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        setting = prepare(name, Path(folder), small=small)
        setting.model.config.problem_type = "multi_label_classification"
        model, pipe = pack_weights(setting.model), peer(setting)
        seconds = setting.case.frames // 100
        count = max(audio // seconds, 1)
        paths = write_files(Path(folder), count, seconds)
        difference = None if pipe is None else apart(paths, pipe, model)
        backends = exported(setting.model, () if pipe is None else pairs, Path(folder))
        near = agreement(setting.model, backends)
        rows: list[dict[str, Any]] = []
        for batch in batches:
            cases: dict[str, Callable[[], object]] = {}
            if pipe is not None:
                cases[PIPELINE] = partial(transformers_way, paths, pipe, batch)
            cases |= {f"spectrim.predict, r={rate:g}": partial(our_way, paths, model, rate, batch) for rate in RATES}
            cases |= {
                f"spectrim.predict, {' '.join(pair)}, r={rate:g}": partial(our_way, paths, backend, None, batch)
                for (pair, rate), backend in backends.items()
            }
            cases |= {f"alone: {stage}": call for stage, call in stages(paths, model, batch).items()}
            times = benchmark.interleaved(cases, repeats=repeats, warmup=1, rest=0.1, shuffle=0)
            rows += [
                {"case": name, "batch_size": batch, "what": what, **benchmark.spread([one / count for one in taken])}
                for what, taken in times.items()
            ]
    facts = {"seconds": seconds, "files": count, "largest_score_difference": difference, "exported": near}
    return {**facts, "rows": rows}


def pair_of(text: str) -> Pair:
    """A backend and a precision, written with a colon between them."""
    backend, _, precision = text.partition(":")
    if precision not in PRECISIONS.get(backend, ()):
        known = [f"{name}:{one}" for name, found in PRECISIONS.items() for one in found]
        raise argparse.ArgumentTypeError(f"{text!r}: one of {', '.join(known)}")
    return backend, precision


def main() -> None:
    """Measure and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    everyday = [name for name, case in CASES.items() if case.stride == 16]
    parser.add_argument("--cases", nargs="+", choices=CASES, default=everyday, help="default: those of stride 16")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument(
        "--exported",
        type=pair_of,
        nargs="*",
        default=[],
        metavar="BACKEND:PRECISION",
        help="of AST, e.g. onnxruntime:int8",
    )
    parser.add_argument("--audio", type=int, default=80, help="seconds of audio that the files of a case hold")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="tiny models: shows that it runs; times say nothing")
    options = parser.parse_args()
    facts = {
        "what": "ms per file",
        "repeats": options.repeats,
        "small": options.small,
        "peer_uses": "torchaudio" if is_speech_available() else "numpy",
        "load_average_before": os.getloadavg()[0],
        "environment": environment(),
    }
    found = {
        name: measure(name, options.batch_sizes, options.audio, options.repeats, options.exported, small=options.small)
        for name in options.cases
    }
    rows = [row for one in found.values() for row in one.pop("rows")]
    write_json(options.json, {**facts, "cases": found, "rows": rows})


if __name__ == "__main__":
    main()
