"""What a short clip costs in a long model, with its padding and without (`drop_padding`), and what that does to scores.

    python benchmarks/padding.py --json benchmarks/results/padding.json

Time: AST-B/16 of 10 s with random weights, clips of 3 s, pass by pass in turn; a ratio is that of two passes that
follow each other, without padding over with it. Scores: a model (--model) on the package's clips, each also cut to
its first half, dense and pruned; accuracy of both, and how often the best label is the same. Five minutes on two cores.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from showing import write_and_show

from spectrim import macs, pack_weights
from spectrim.assets import WORDS_ONLY, packaged_clips
from spectrim.audio.files import read
from spectrim.backbones import ast_base
from spectrim.inference.torch_model import TorchModel
from spectrim.machine import environment, torch_threads
from spectrim.measure.benchmark import interleaved, spread
from spectrim.network.transformer import AudioTransformer

KEEP_RATES = (1.0, 0.7)


def times(model: AudioTransformer, frames: int, batches: Sequence[int], repeats: int) -> list[dict[str, Any]]:
    """A row a batch size and keep rate: both times and their ratio with quartiles, and what each executes a clip."""
    rows = []
    for batch in batches:
        values = torch.randn(batch, model.config.max_length, model.config.num_mel_bins)
        lengths = torch.full((batch,), frames)
        for rate in KEEP_RATES:
            whole = model.config.pruning.changed({"keep_rate": rate, "drop_padding": False})
            short = whole.changed({"drop_padding": True})
            cases = {
                "with_padding": partial(model, values, pruning=whole),
                "without": partial(model, values, num_frames=lengths, pruning=short),
            }
            with torch.inference_mode():
                found = interleaved(cases, repeats=repeats)
            ratios = [after / before for after, before in zip(found["without"], found["with_padding"], strict=True)]
            low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
            row = {"batch": batch, "keep_rate": rate, "ratio": middle, "ratio_q1": low, "ratio_q3": high}
            rows.append({**row, **{name: spread(seconds) for name, seconds in found.items()}})
    return rows


def answers(model: TorchModel, clips: Sequence[tuple[Path, str]], share: float) -> list[dict[str, Any]]:
    """A row a keep rate: accuracy with padding and without, how often both say the same, how far scores differ.

    Args:
        model: that answers.
        clips: path and label.
        share: of each clip that is heard, from its beginning.
    """
    waveforms = [read(path).samples for path, _ in clips]
    waveforms = [samples[: round(share * len(samples))] for samples in waveforms]
    values, lengths = model.prepare(waveforms)
    labels = np.array([model.labels.index(label) for _, label in clips])
    rows = []
    for rate in KEEP_RATES:
        scores = {}
        for name, drops in (("with_padding", False), ("without", True)):
            there = model.at(model.pruning.changed({"keep_rate": rate, "drop_padding": drops}))
            scores[name] = there.logits(values, lengths).softmax(-1).numpy()
        best = {name: some.argmax(1) for name, some in scores.items()}
        rows.append(
            {
                "keep_rate": rate,
                "share": share,
                "clips": len(clips),
                "frames": float(lengths.float().mean()),
                **{f"accuracy_{name}": float((labels == some).mean()) for name, some in best.items()},
                "same_label": float((best["with_padding"] == best["without"]).mean()),
                "median_difference": float(np.median(np.abs(scores["with_padding"] - scores["without"]).max(1))),
            }
        )
    return rows


def main() -> None:
    """Run, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=WORDS_ONLY)
    parser.add_argument("--seconds", type=float, default=3.0, help="of a clip that is timed")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--repeats", type=int, default=15, help="at least 2")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    torch.manual_seed(0)
    config, frames = ast_base(max_length=1024), round(100 * asked.seconds) - 2
    with torch_threads(asked.threads):
        found: dict[str, Any] = {"environment": environment(), "repeats": asked.repeats, "frames": frames}
        found["model"] = str(asked.model)
        found["executed_macs"] = {
            f"{length} frames, keep rate {rate:g}": macs(config, length, keep_rate=rate).executed
            for length in (config.max_length, 16 * -(-frames // 16))
            for rate in KEEP_RATES
        }
        found["times"] = times(pack_weights(AudioTransformer(config).eval()), frames, [1, 8], asked.repeats)
        trained = TorchModel.load(asked.model)
        clips = [(path, label) for path, label in packaged_clips() if label is not None]
        found["answers"] = [row for share in (1.0, 0.5) for row in answers(trained, clips, share)]
    write_and_show(found, asked.json)


if __name__ == "__main__":
    main()
