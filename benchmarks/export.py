"""Time exported models beside PyTorch, in turn in one run, and count what int8 costs in accuracy.

    python benchmarks/export.py --json benchmarks/results/export.json

Cases: PyTorch in fp32 and bf16, ONNX Runtime in fp32 and int8, OpenVINO in fp32 and, where the processor has it,
bf16, at several keep rates and batch sizes, with AST-B/16 on 10 s (random weights: speed does not depend on them) and
spectrim-words. All get log-mel spectrograms and as many threads as torch has. The accuracy is that of spectrim-words on
the clips that the package ships. ``profile`` says where ONNX Runtime's time goes, by kind of node, and how many of
each are left after its own optimisations. Run it on a machine that does nothing else; ``--repeats 0`` leaves the
times out.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from cases import openvino_calls

from spectrim.assets import packaged_clips
from spectrim.audio.files import read
from spectrim.backbones import ast_base
from spectrim.checkpoints import from_pretrained
from spectrim.files import write_json
from spectrim.inference.onnx_export import export
from spectrim.inference.onnx_model import OnnxModel
from spectrim.inference.packing import pack_weights
from spectrim.inference.torch_model import TorchModel
from spectrim.machine import environment
from spectrim.measure import benchmark
from spectrim.network.macs import macs
from spectrim.network.transformer import AudioTransformer

PACKAGES = ("onnx", "onnxscript", "onnxruntime", "openvino")
TIMED_PRECISIONS = ("fp32", "int8")


def models(names: Sequence[str], frames: int, blocks: int) -> dict[str, AudioTransformer]:
    """Models by their names: ``ast-base`` with random weights, else checkpoints."""
    torch.manual_seed(0)
    found = {}
    for name in names:
        if name == "ast-base":
            config = ast_base(num_labels=527, max_length=frames, num_hidden_layers=blocks)
            found[name] = AudioTransformer(config).eval()
        else:
            found[name] = from_pretrained(name)
    return found


def pytorch(model: AudioTransformer, rate: float) -> Callable[[np.ndarray], np.ndarray]:
    """The model in PyTorch: log-mel → logits."""

    def call(values: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(values), keep_rate=rate).logits.float().numpy()

    return call


def onnx_runtime(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """A file in ONNX Runtime."""
    model = OnnxModel(path)
    return lambda values: model.logits(torch.from_numpy(values)).numpy()


def cases_of(model: AudioTransformer, rates: Sequence[float], folder: Path) -> dict[tuple[str, float], Any]:
    """What is timed: (what runs it, keep rate) → log-mel → logits; and what the exporting found."""
    cases: dict[tuple[str, float], Any] = {}
    for rate in rates:
        model.set_pruning(keep_rate=rate)
        cases["PyTorch", rate] = pytorch(pack_weights(model), rate)
        cases["PyTorch, bf16", rate] = pytorch(copy.deepcopy(model).bfloat16(), rate)
        for precision in TIMED_PRECISIONS:
            path = folder / f"{rate}-{precision}.onnx"
            export(model, path, precision=precision)
            cases[f"ONNX Runtime, {precision}", rate] = onnx_runtime(path)
            if precision == "fp32":
                for hint, call in openvino_calls(path).items():
                    cases[f"OpenVINO, {hint}", rate] = lambda values, call=call: call(torch.from_numpy(values)).numpy()
    return cases


def times(model: AudioTransformer, cases: dict[Any, Any], batch: int, repeats: int) -> list[dict[str, Any]]:
    """Rows for one batch size; ratios are against PyTorch at the first keep rate."""
    size = (batch, model.config.max_length, model.config.num_mel_bins)
    values = np.random.default_rng(0).standard_normal(size).astype(np.float32)
    calls = {case: (lambda call=call: call(values)) for case, call in cases.items()}
    logits = {case: call() for case, call in calls.items()}
    seconds = benchmark.interleaved(calls, repeats=repeats, warmup=1)
    base = statistics.median(next(iter(seconds.values())))
    return [
        {
            "runs_in": name,
            "keep_rate": rate,
            "batch_size": batch,
            **benchmark.spread(taken),
            "speed_up": base / statistics.median(taken),
            "executed_macs": macs(model, keep_rate=rate).executed,
            "largest_logit_difference": float(np.abs(logits[name, rate] - logits["PyTorch", rate]).max()),
        }
        for (name, rate), taken in seconds.items()
    ]


def profile(path: Path, values: np.ndarray, passes: int = 5) -> list[dict[str, Any]]:
    """Kinds of nodes of an optimised graph, with their number and their share of the time, the largest share first."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.enable_profiling = True
    options.profile_file_prefix = str(path.with_suffix(""))
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    for _ in range(passes):
        session.run(["logits"], {"input_values": values})
    events = json.loads(Path(session.end_profiling()).read_text())
    nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
    nodes = nodes[len(nodes) // passes :]
    taken: Counter[str] = Counter()
    count = Counter(event["args"]["op_name"] for event in nodes)
    for event in nodes:
        taken[event["args"]["op_name"]] += event["dur"]
    total = sum(taken.values())
    return [
        {"node": kind, "count": count[kind] // (passes - 1), "share": time / total}
        for kind, time in taken.most_common()
    ]


def accuracy(model: AudioTransformer, cases: dict[tuple[str, float], Any]) -> list[dict[str, Any]]:
    """Share of the package's clips that each case names rightly, and on which it agrees with PyTorch."""
    clips = packaged_clips()
    tagger = TorchModel(model)
    values = tagger.prepare([read(path, model.config.sampling_rate).samples for path, _ in clips]).input_values.numpy()
    right = np.array([tagger.labels.index(str(label)) for _, label in clips])
    first = {case: call(values).argmax(axis=1) for case, call in cases.items()}
    return [
        {
            "runs_in": name,
            "keep_rate": rate,
            "clips": len(clips),
            "accuracy": float((found == right).mean()),
            "agreement_with_pytorch": float((found == first["PyTorch", rate]).mean()),
        }
        for (name, rate), found in first.items()
    ]


def main() -> None:
    """Export, time, count, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    parser.add_argument("--models", nargs="+", default=["ast-base", "spectrim-words"])
    parser.add_argument("--keep-rates", type=float, nargs="+", default=[1.0, 0.7, 0.5])
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--frames", type=int, default=1024, help="of ast-base")
    parser.add_argument("--blocks", type=int, default=12, help="of ast-base; at least 10")
    options = parser.parse_args()
    before = os.getloadavg()[0]
    rows, answers, shares = [], [], []
    for name, model in models(options.models, options.frames, options.blocks).items():
        with tempfile.TemporaryDirectory() as folder:
            cases = cases_of(model, options.keep_rates, Path(folder))
            for batch in options.batch_sizes if options.repeats else ():
                rows += [{"model": name, **row} for row in times(model, cases, batch, options.repeats)]
            for file in sorted(Path(folder).glob("*.onnx")) if options.repeats else ():
                values = np.zeros((1, model.config.max_length, model.config.num_mel_bins), dtype=np.float32)
                shares.append({"model": name, "file": file.stem, "nodes": profile(file, values)})
            if name == "spectrim-words":
                answers += [{"model": name, **row} for row in accuracy(model, cases)]
    machine = environment("cpu", *PACKAGES)
    facts = {"repeats": options.repeats, "frames": options.frames, "blocks": options.blocks}
    load = {"before": before, "after": os.getloadavg()[0]}
    facts |= {"environment": machine, "load_average": load}
    write_json(options.json, {**facts, "rows": rows, "accuracy": answers, "profile": shares})


if __name__ == "__main__":
    main()
