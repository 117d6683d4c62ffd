"""Tag recordings of several lengths and watch the memory of all processes involved.

    python benchmarks/long_recording.py --json benchmarks/results/long_recording.json

For each length a FLAC file of seeded noise and tones (44.1 kHz, stereo) is written to a temporary folder and
`spectrim predict` runs on it in a process of its own. Peak memory is the largest sum of the proportional set sizes
(pages that processes share count once) of that process and its decoding workers, looked at ten times a second.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import soundfile

from spectrim.audio.feature_extractor import SpectrimFeatureExtractor
from spectrim.backbones import ast_base
from spectrim.files import write_json
from spectrim.machine import environment
from spectrim.network.transformer import AudioTransformer

RATE = 44100
COMMAND = "import sys; sys.argv[0] = 'spectrim'; from spectrim.cli.app import main; main()"


def write_recording(path: Path, hours: float) -> None:
    """Write a recording piece by piece, 10 s each."""
    random = np.random.default_rng(0)
    piece = np.arange(10 * RATE) / RATE
    with soundfile.SoundFile(path, "w", RATE, 2) as file:
        for _ in range(max(1, round(360 * hours))):
            tone = 0.1 * np.sin(2 * np.pi * random.uniform(100, 4000) * piece)
            file.write(np.stack([tone, tone + 0.01 * random.standard_normal(len(piece))], axis=1))


def write_model(folder: Path, frames: int, width: int) -> None:
    """Save a random AST."""
    config = ast_base(hidden_size=width, num_attention_heads=4, intermediate_size=4 * width, max_length=frames)
    config.problem_type = "single_label_classification"
    AudioTransformer(config).save_pretrained(folder)
    SpectrimFeatureExtractor.from_config(config).save_pretrained(folder)


def memory(process: psutil.Process) -> int:
    """Proportional set size of a process and its children, in bytes."""
    total = 0
    for one in (process, *process.children(recursive=True)):
        try:
            total += one.memory_full_info().pss
        except psutil.Error:
            continue
    return total


def tag(recording: Path, model: Path, output: Path) -> dict[str, Any]:
    """Run `spectrim predict`; how long it took and how much memory."""
    start, peak = time.perf_counter(), 0
    arguments = ["predict", str(recording), "--model", str(model), "--output", str(output)]
    process = psutil.Popen([sys.executable, "-c", COMMAND, *arguments])
    while process.poll() is None:
        peak = max(peak, memory(process))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"spectrim {' '.join(arguments)} ended with {process.returncode}")
    row = json.loads(output.read_text())
    return {
        "audio_seconds": row["seconds"],
        "windows": len(row["windows"]),
        "seconds": round(time.perf_counter() - start, 1),
        "peak_memory_mb": round(peak / 1e6, 1),
    }


def main() -> None:
    """Parse, run, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, nargs="+", default=[10 / 3600, 0.1, 1.0, 3.0])
    parser.add_argument("--frames", type=int, default=1024, help="window of the model, in frames of 10 ms")
    parser.add_argument("--width", type=int, default=64, help="hidden size of the model; it has random weights")
    parser.add_argument("--json", type=Path, help="file to write")
    options = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder / "model", options.frames, options.width)
        for hours in options.hours:
            recording = folder / "recording.flac"
            write_recording(recording, hours)
            size = round(recording.stat().st_size / 1e6, 1)
            result = tag(recording, folder / "model", folder / "out.jsonl")
            rows.append({"hours": hours, "file_mb": size, **result})
            sys.stdout.write(json.dumps(rows[-1]) + "\n")
            recording.unlink()
    if options.json is not None:
        model = {"frames": options.frames, "hidden_size": options.width}
        content = {"environment": environment(), "model": model, "rows": rows}
        write_json(options.json, content)


if __name__ == "__main__":
    main()
