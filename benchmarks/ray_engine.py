"""Time tagging by --engine ray beside the local engine on the same cores, and watch its memory over many clips.

    python benchmarks/ray_engine.py --clips-base 0 --many 0 --json benchmarks/results/ray_engine.json
    python benchmarks/ray_engine.py --clips-mini 0 --on-cores 2 --repeats 2 --json benchmarks/results/ray_large.json

Every run is a process of its own that is bound to so many cores, with all that it starts. The local engine has as many
threads as cores; Ray has as many machines of one core each (`ray.cluster_utils.Cluster`: one process of Ray for each,
all on this one). Runs of both take turns. Speed is that after the first tenth of the clips, when all processes are
warm; the time from the start to the first row stands beside it. Two models: the packaged one on clips of one second,
which is as little work a clip as there is, and AST-B/16 (random weights) on clips of ten. The clips are a few files
under many names. Then memory: the packaged model over ``--many`` clips on two machines, as the resident memory, less
what is shared, of the process that began, the tasks that decode and the models, at each tenth.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from files import write_files

from spectrim.audio.finding import Selection
from spectrim.backbones import ast_base
from spectrim.files import write_json
from spectrim.inference.part_files import PartFolder
from spectrim.inference.predict import predict_files
from spectrim.inference.ray_engine import ModelSettings, cluster, import_ray, predict_on_ray
from spectrim.inference.results import FilePrediction
from spectrim.machine import environment
from spectrim.network.transformer import AudioTransformer

WARM = 10
"""One in so many clips comes before the clock starts."""

LEAST_CLIPS = 10 * 64
"""Rows come a part at a time, 64 files or more: with fewer parts the clock would start after the work."""

ROLES = {"decoding": "decoded_passes", "models": "Scorer"}
"""Processes of Ray → what is in their names."""

STORE_BYTES = 400 << 20
"""Of the object store of each machine."""


def named(folder: Path, files: list[str], count: int) -> list[str]:
    """So many names of a few files."""
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:06}.flac").symlink_to(files[number % len(files)])
    return [str(folder / f"{number:06}.flac") for number in range(count)]


def on_machines(names: list[str], model: str, count: int, output: PartFolder) -> Iterator[FilePrediction]:
    """Predictions by Ray on so many machines of one core each."""
    ray = import_ray()
    from ray.cluster_utils import Cluster

    size = {"num_cpus": 1, "object_store_memory": STORE_BYTES}
    machines = Cluster(initialize_head=True, head_node_args={**size, "include_dashboard": False})
    for _ in range(count - 1):
        machines.add_node(**size)
    ray.init(address=machines.address, log_to_driver=False)
    settings = ModelSettings(model, keep_rate=0.7, device="cpu")
    with cluster() as found:
        for prediction in predict_on_ray(output.plan(Selection(names)), settings, settings.open(), found):
            output.write(prediction)
            yield prediction
    output.finish()
    ray.shutdown()
    machines.shutdown()


def own_memory(process: int | str) -> int:
    """Resident bytes of a process, less what it shares."""
    pages = Path(f"/proc/{process}/statm").read_text().split()
    return (int(pages[1]) - int(pages[2])) * os.sysconf("SC_PAGE_SIZE")


def memory() -> dict[str, float]:
    """MB by role: this process, and the largest of each kind that Ray has started."""
    largest = dict.fromkeys(ROLES, 0)
    for entry in Path("/proc").iterdir():
        try:
            name = (entry / "cmdline").read_text(errors="replace") if entry.name.isdigit() else ""
            for role, part in ROLES.items():
                if name.startswith("ray::") and part in name:
                    largest[role] = max(largest[role], own_memory(entry.name))
        except OSError:
            continue
    return {role: value / 1e6 for role, value in {"driver": own_memory("self"), **largest}.items()}


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """One run in this process: what is timed, on so many cores."""
    os.sched_setaffinity(0, range(arguments.cores))
    torch.set_num_threads(arguments.cores)
    names = sorted(str(path) for path in Path(arguments.clips).iterdir())
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.run == "local":
            opened = ModelSettings(arguments.model, keep_rate=0.7, device="cpu").open()
            found: Iterable[FilePrediction] = predict_files(names, opened, workers=1)
        else:
            output = PartFolder(Path(folder, "parts"), {}, top=5, resume=False)
            found = on_machines(names, arguments.model, arguments.cores, output)
        first, warm, watched = 0.0, 0.0, []
        for number, prediction in enumerate(found, 1):
            if prediction.error is not None:
                raise SystemExit(f"{prediction.path}: {prediction.error}")
            if number == 1:
                first = time.perf_counter() - begun
            if number == len(names) // WARM:
                warm = time.perf_counter()
            if arguments.watch and number % (len(names) // 10) == 0:
                watched.append({"clips": number, **memory()})
        speed = (len(names) - len(names) // WARM) / (time.perf_counter() - warm)
    return {"clips_per_second": speed, "first_row_seconds": first, "memory_mb": watched}


def another(kind: str, cores: int, clips: Path, model: str, *further: str) -> dict[str, Any]:
    """`run` in a process of its own."""
    command = [sys.executable, __file__, "--run", kind, "--cores", str(cores), "--clips", str(clips), "--model", model]
    variables = {**os.environ, "OMP_NUM_THREADS": str(cores if kind == "local" else 1)}
    done = subprocess.run([*command, *further], env=variables, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def compared(name: str, clips: Path, model: str, repeats: int, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Both engines on so many cores, in turn."""
    cases = [(kind, cores) for cores in numbers for kind in ("local", "ray")]
    runs: dict[tuple[str, int], list[dict[str, Any]]] = {case: [] for case in cases}
    for number in range(repeats):
        for case in cases:
            runs[case].append(another(*case, clips, model))
            sys.stderr.write(f"{name} {number} {case} {runs[case][-1]}\n")
    rows = []
    for (kind, cores), found in runs.items():
        speeds = [one["clips_per_second"] for one in found]
        beside = [one["clips_per_second"] for one in runs["local", cores]]
        ratios = [ours / theirs for ours, theirs in zip(speeds, beside, strict=True)]
        rows.append(
            {
                "model": name,
                "engine": kind,
                "cores": cores,
                "clips": len(list(clips.iterdir())),
                "clips_per_second": statistics.median(speeds),
                "least": min(speeds),
                "most": max(speeds),
                "of_local": statistics.median(ratios),
                "of_local_least": min(ratios),
                "of_local_most": max(ratios),
                "first_row_seconds": statistics.median(one["first_row_seconds"] for one in found),
            }
        )
    return rows


def main() -> None:
    """Measure all, or be one run of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, default=Path("ray_engine.json"), help="file to write")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--clips-mini", type=int, default=6400, help="Names of clips for the packaged model, or 0.")
    parser.add_argument("--clips-base", type=int, default=LEAST_CLIPS, help="The same for AST-B/16, or 0.")
    parser.add_argument("--on-cores", type=int, nargs="+", default=[1, 2], help="Numbers of cores to compare on.")
    parser.add_argument("--many", type=int, default=100_000, help="Clips over which memory is watched, or 0.")
    parser.add_argument("--run", choices=["local", "ray"], help=argparse.SUPPRESS)
    parser.add_argument("--cores", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--clips", help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    parser.add_argument("--watch", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    for option in ("clips_mini", "clips_base"):
        if 0 < getattr(arguments, option) < LEAST_CLIPS:
            parser.error(f"--{option.replace('_', '-')}: {LEAST_CLIPS} or more, since rows come 64 files at a time")
    if arguments.run is not None:
        sys.stdout.write(json.dumps(run(arguments)) + "\n")
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        (place / "short").mkdir()
        short = write_files(place / "short", 32, 1)
        rows, watched = [], {}
        how = (arguments.repeats, arguments.on_cores)
        if arguments.clips_mini:
            named(place / "mini", short, arguments.clips_mini)
            rows += compared("spectrim-mini, 1 s", place / "mini", "spectrim-mini", *how)
        if arguments.clips_base:
            (place / "ten").mkdir()
            named(place / "base", write_files(place / "ten", 8, 10), arguments.clips_base)
            torch.manual_seed(0)
            AudioTransformer(ast_base()).save_pretrained(place / "ast")
            rows += compared("AST-B/16, 10 s", place / "base", str(place / "ast"), *how)
        if arguments.many:
            named(place / "many", short, arguments.many)
            watched = another("ray", 2, place / "many", "spectrim-mini", "--watch")
    result = {
        "environment": {**environment("cpu", "ray", "pyarrow"), "torch_threads": "as cores"},
        "repeats": arguments.repeats,
        "keep_rate": 0.7,
        "rows": rows,
        "many": {"clips": arguments.many, **watched},
    }
    write_json(arguments.json, result)


if __name__ == "__main__":
    main()
