"""What storing patch scores as float16 does to Kendall's tau-b, to ties and to the patches that a cut would keep.

    python benchmarks/record_precision.py --json benchmarks/results/record_precision.json

spectrim-words, dense, on the clips of the package: each clip alone (64 patches), and ten joined to one (512 patches,
the position table widened). Scores of every block by both attention criteria, as `spectrim.analysis.record` stores them
and as the model gave them. The cut keeps the ceil(r·n) highest scores.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from showing import write_and_show

from spectrim.analysis.batches import layout, packed, unpacked
from spectrim.analysis.record import observe
from spectrim.assets import packaged_clips
from spectrim.audio import files as audio
from spectrim.checkpoints import from_pretrained
from spectrim.data import AudioDataset, Recording
from spectrim.machine import environment
from spectrim.stats.clusters import kmeans_1d
from spectrim.stats.kendall import count_pairs, tau_b

RATES = (0.9, 0.7, 0.5, 0.3)


class Joined(AudioDataset):
    """Recordings that go on with those after them."""

    joined = 1

    def read(self, recording: Recording) -> np.ndarray:
        """The waveform of a recording and of those after it."""
        first = self.recordings.index(recording)
        parts = [self.recordings[(first + step) % len(self)] for step in range(self.joined)]
        return np.concatenate([audio.read(part.path).samples for part in parts])


def clips(joined: int) -> AudioDataset:
    """The clips of the package."""
    files = packaged_clips()
    labels = sorted({str(label) for _, label in files})
    recordings = [Recording(path, (labels.index(str(label)),), path.name) for path, label in files]
    part = Joined(recordings, labels, multi_label=False)
    part.joined = joined
    return part


def kept(scores: np.ndarray, rate: float) -> np.ndarray:
    """Which patches (..., n) a cut keeps; of equal scores the first."""
    order = np.argsort(-scores, axis=-1, kind="stable")[..., : math.ceil(rate * scores.shape[-1])]
    found = np.zeros(scores.shape, dtype=bool)
    np.put_along_axis(found, order, True, axis=-1)
    return found


def measure(criterion: str, joined: int) -> dict[str, Any]:
    """One criterion at one length."""
    model = from_pretrained("spectrim-words", criterion=criterion, frames=128 if joined == 1 else 1024).eval()
    part = clips(joined)
    batches = list(observe(model, part, keep_rate=1.0))
    shapes = layout(model.config, len(part.labels), log_mel="none", scores="float16")
    exact = np.concatenate([batch.scores for batch in batches])
    stored = np.concatenate(
        [unpacked(packed(batch, shapes), batch.ids, batch.next_position, model.config).scores for batch in batches]
    )
    exact, stored = (scores.reshape(*scores.shape[:2], -1) for scores in (exact, stored))
    intensity = np.concatenate([batch.intensity for batch in batches]).reshape(len(exact), 1, -1)
    ranks = kmeans_1d(intensity, 5, padding="with").ranks(intensity)
    counts = [count_pairs(scores, ranks) for scores in (exact, stored)]
    change = np.abs(tau_b(counts[0]) - tau_b(counts[1]))
    means = [np.nanmean(tau_b(count), axis=0) for count in counts]
    ties = [count.tied_scores.sum() / count.pairs.sum() for count in counts]
    cuts = {}
    for rate in RATES:
        cut = [kept(scores, rate) for scores in (exact, stored)]
        cuts[f"{rate:g}"] = float((cut[0] != cut[1]).any(axis=-1).mean())
    return {
        "criterion": criterion,
        "patches": exact.shape[-1],
        "clips": len(exact),
        "blocks": exact.shape[1],
        "tau_b_change": {
            "largest of a clip and block": float(np.nanmax(change)),
            "mean of clips and blocks": float(np.nanmean(change)),
            "largest of a block's mean over clips": float(np.abs(means[0] - means[1]).max()),
        },
        "share_of_pairs_tied": {"float32": float(ties[0]), "float16": float(ties[1])},
        "new_ties_per_clip_and_block": float((counts[1].tied_scores - counts[0].tied_scores).mean()),
        "share_of_clips_and_blocks_whose_cut_differs": cuts,
    }


def main() -> None:
    """Parse, measure, write, show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cases = [(criterion, joined) for criterion in ("cls_attention", "mean_attention") for joined in (1, 10)]
    result = {"cases": [measure(*case) for case in cases], "environment": environment()}
    write_and_show(result, arguments.json)


if __name__ == "__main__":
    main()
