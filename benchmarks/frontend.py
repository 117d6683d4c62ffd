"""Time the front end beside transformers' ASTFeatureExtractor on 10 s clips, on the CPU.

    python benchmarks/frontend.py --json benchmarks/results/frontend.json

Both turn the same waveforms into the same normalised log-mel spectrograms; the largest difference is in the output.
All clips go through one front end, in batches of one size, then through the next in turn, with a rest between, so that
what else the machine does hits all of them alike. Times are per clip.
On a machine with other work, use --threads 1: threads that wait for each other at every operation then wait for that.
ASTFeatureExtractor uses torchaudio where that is installed and NumPy otherwise: the output says which.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from showing import write_and_show
from threadpoolctl import threadpool_limits
from transformers import ASTFeatureExtractor
from transformers.utils import is_speech_available

from spectrim.audio.feature_extractor import SpectrimFeatureExtractor
from spectrim.machine import environment
from spectrim.measure.benchmark import interleaved, spread

RATE = 16000
SECONDS = 10
PEER = "ASTFeatureExtractor"
REST = 0.1
"""Seconds between calls: NumPy's threads wait actively for a while after one, on the next one's core."""


def clips(count: int) -> list[np.ndarray]:
    """Seeded noise of changing level: (160000,) float32 each. Neither front end's time depends on the content."""
    generator = np.random.default_rng(0)
    level = 0.1 * np.abs(np.sin(np.linspace(0, 40, SECONDS * RATE)))
    return [(generator.standard_normal(SECONDS * RATE) * level).astype(np.float32) for _ in range(count)]


class Timed:
    """All clips through one front end, batch after batch; notes processor time, which other work does not lengthen."""

    def __init__(self, extractor: Callable[..., Any], waves: list[np.ndarray], batch: int) -> None:
        self.extractor = extractor
        self.batches = [waves[start : start + batch] for start in range(0, len(waves), batch)]
        self.seconds: list[float] = []

    def __call__(self) -> np.ndarray:
        """Run the front end; returns what it makes of the first batch."""
        start = time.process_time()
        results = [self.extractor(waves, sampling_rate=RATE, return_tensors="np") for waves in self.batches]
        self.seconds.append(time.process_time() - start)
        first: np.ndarray = results[0]["input_values"]
        return first


def measure(batches: list[int], repeats: int) -> dict[str, Any]:
    """Time both front ends at each batch size.

    Returns:
        A dictionary for JSON: the rows, the machine and versions, and the largest difference of the outputs.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="At least one mel filter")
        peer = ASTFeatureExtractor()
    ours = SpectrimFeatureExtractor()
    count = max(batches)
    waves = clips(count)
    cases = {}
    for batch in batches:
        for name, extractor in ((PEER, peer), ("spectrim", ours)):
            cases[name, batch] = Timed(extractor, waves, batch)
    difference = max(float(np.abs(cases[PEER, batch]() - cases["spectrim", batch]()).max()) for batch in batches)
    load_before = os.getloadavg()[0]
    wall = interleaved(cases, repeats=repeats, rest=REST, shuffle=0)
    rows = []
    for (name, batch), seconds in wall.items():
        row: dict[str, Any] = {"front_end": name, "batch": batch}
        processor = cases[name, batch].seconds[-repeats:]
        peer_processor = cases[PEER, batch].seconds[-repeats:]
        for clock, mine, theirs in (("wall", seconds, wall[PEER, batch]), ("processor", processor, peer_processor)):
            ratio = statistics.median(theirs) / statistics.median(mine)
            row[clock] = {**spread([one / count for one in mine]), "speed_up": ratio}
        rows.append(row)
    return {
        "what": f"ms per clip of {SECONDS} s, {count} clips in batches, wall clock and processor time of all threads; "
        f"speed_up: {PEER}'s median divided by this one's",
        "peer_uses": "torchaudio" if is_speech_available() else "numpy",
        "repeats": repeats,
        "rest_seconds": REST,
        "largest_difference": difference,
        "load_average": {"before": load_before, "after": os.getloadavg()[0]},
        "rows": rows,
        "environment": environment(),
    }


def main() -> None:
    """Parse, measure, write, show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, help="threads of torch and NumPy; their own choice without")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    with threadpool_limits(arguments.threads):
        result = measure(arguments.batch_sizes, arguments.repeats)
    write_and_show(result, arguments.json)


if __name__ == "__main__":
    main()
