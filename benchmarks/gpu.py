"""All that is to be measured on a GPU, in one call of less than ten minutes.

    python benchmarks/gpu.py --json benchmarks/results/gpu.json

Sections are independent: one that fails is recorded as {"error": ...} and the next begins. Each has its seconds and
leaves out what does not fit; the file is written anew after every section. Random weights: speed does not depend on
them. ``--device cpu --small`` runs the same code on tiny models in seconds, to try the script.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gpu_sections.common import Deadline, NotHere, Setting
from gpu_sections.kernel import kernel_check, kernel_speed
from gpu_sections.models import compiled, eager, end_to_end, graphs
from gpu_sections.reference import reference_order
from gpu_sections.targets import judge

from spectrim.errors import InvalidSetting
from spectrim.files import write_json
from spectrim.machine import environment, resolve_device

SECONDS_IN_ALL = 560.0
COMPILING = 0.75
"""Share of all seconds after which no compilation begins: it cannot be interrupted."""
COMMENT = "ratios compare medians of one run; tflops counts executed MACs twice, those that the kernel repeats once"


def machine(setting: Setting) -> dict[str, Any]:
    """What the figures were measured on."""
    return environment(str(setting.device), "triton")


def accelerator(setting: Setting) -> dict[str, Any]:
    """The device, its libraries, and the largest rate that a matrix product and a copy reach on it."""
    size = 256 if setting.small else 8192
    left, right = (torch.randn(size, size, device=setting.device).to(setting.dtype) for _ in range(2))
    source = torch.randn(size, 4 * size, device=setting.device)
    target = torch.empty_like(source)
    seconds = setting.clock({"product": lambda: left @ right, "copy": lambda: target.copy_(source)})
    middle = {name: statistics.median(times) for name, times in seconds.items()}
    facts: dict[str, Any] = {
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "matrix_product_tflops": 2 * size**3 / middle["product"] / 1e12,
        "copy_gb_per_second": 2 * source.nbytes / middle["copy"] / 1e9,
    }
    if setting.is_cuda:
        seen = torch.cuda.get_device_properties(setting.device)
        facts |= {"name": seen.name, "processors": seen.multi_processor_count, "memory_gb": seen.total_memory / 1e9}
    return facts


SECTIONS: dict[str, tuple[Callable[[Setting], dict[str, Any]], float]] = {
    "machine": (machine, 5),
    "accelerator": (accelerator, 20),
    "kernel_check": (kernel_check, 60),
    "kernel_speed": (kernel_speed, 60),
    "eager": (eager, 60),
    "graphs": (graphs, 90),
    "end_to_end": (end_to_end, 40),
    "reference_order": (reference_order, 45),
    "compiled": (compiled, 240),
}
"""Name → the section and its seconds. Compiling comes last; see `COMPILING`."""


def limits(seconds: float) -> Callable[[str], Deadline]:
    """Of a run that begins now: name of a section that begins when this is called → its deadline."""
    whole = Deadline(seconds)
    compiling = Deadline(COMPILING * seconds, whole)
    return lambda name: Deadline(SECTIONS[name][1], compiling if name == "compiled" else whole)


def attempt(section: Callable[[Setting], dict[str, Any]], setting: Setting) -> dict[str, Any]:
    """Run a section; what it lacks or breaks on becomes its result."""
    start = time.monotonic()
    try:
        result = section(setting)
    except NotHere as missing:
        result = {"error": str(missing)}
    except Exception as error:
        result = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
    if setting.is_cuda:
        torch.cuda.empty_cache()
    return {**result, "seconds": time.monotonic() - start}


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny models and inputs, to try the script")
    parser.add_argument("--roofline", type=float, default=790.0, help="of the device in bf16, TFLOP/s")
    parser.add_argument("--batch-sizes", type=int, nargs="+", help="1 8 32 128 where not said, small: 2")
    parser.add_argument("--repeats", type=int, help="timed rounds; 15 where not said, small: 2")
    parser.add_argument("--compile-mode", default="default", help="of torch.compile, e.g. max-autotune-no-cudagraphs")
    parser.add_argument("--seconds", type=float, default=SECONDS_IN_ALL, help="no case begins later")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="sections to run")
    options = parser.parse_args()
    try:
        resolve_device(options.device)
    except InvalidSetting as error:
        parser.error(f"{error}; to try the script: --device cpu --small")
    return options


def main() -> None:
    """Run the sections and write what they find."""
    options = arguments()
    small = options.small
    setting = Setting(
        device=torch.device(options.device),
        small=small,
        dtype=torch.float32 if small else torch.bfloat16,
        frames=128 if small else 1024,
        labels=5 if small else 527,
        batches=tuple(options.batch_sizes or ((2,) if small else (1, 8, 32, 128))),
        rates=(1.0, 0.5) if small else (1.0, 0.7, 0.5),
        repeats=options.repeats or (2 if small else 15),
        inner=1 if small else 20,
        roofline=options.roofline * 1e12,
        compile_mode=None if small else options.compile_mode,
        late=lambda: False,
    )
    limit = limits(options.seconds)
    asked = {**vars(options), "json": options.json.name}
    result: dict[str, Any] = {"comment": COMMENT, "options": asked, "sections": {}, "targets": []}
    for name in options.only or SECTIONS:
        within = dataclasses.replace(setting, late=limit(name))
        result["sections"][name] = attempt(SECTIONS[name][0], within)
        result["targets"] = judge(result["sections"], counts=not small)
        write_json(options.json, result)
        outcome = result["sections"][name].get("error", "done").partition("\n")[0]
        sys.stdout.write(f"{name}: {outcome} ({result['sections'][name]['seconds']:.1f} s)\n")
    for target in result["targets"]:
        sys.stdout.write(f"{target['reached']}: {target['aim']}: {target['found']} (wanted {target['wanted']})\n")


if __name__ == "__main__":
    main()
