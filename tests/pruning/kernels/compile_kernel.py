"""Compile the attention kernel for GPUs that need not be there, and write what it takes as JSON.

Run by `test_attention_kernel`, in a process without Triton's interpreter.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from spectrim.pruning.kernels import attention as attention_kernel

HEAD_DIM = 64


def compiled(kind: str, with_output: bool, architecture: int) -> dict[str, object]:
    """What one form of the kernel takes: matrix instructions, shared memory, registers, bytes spilled from them."""
    tiles = attention_kernel.TILES
    names = attention_kernel._attend.arg_names
    constants = {
        "WITH_OUTPUT": with_output,
        "HEAD_DIM": HEAD_DIM,
        "WIDE": HEAD_DIM,
        "QUERIES": tiles.queries,
        "KEYS": tiles.keys,
    }
    pointers = {name: f"*{kind}" for name in names if name.endswith("_at")} | {"sums_at": "*fp32"}
    types = {name: pointers.get(name, "i32") for name in names} | {"scale": "fp32"}
    types |= dict.fromkeys(constants, "constexpr")
    strides = [name for name in names if name.partition("_")[0] in ("query", "key", "value")]
    sixteen = {(names.index(name),): [["tt.divisibility", 16]] for name in [*pointers, *strides]}
    source = ASTSource(
        attention_kernel._attend,
        types,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs=sixteen,
    )
    options = {"num_warps": tiles.warps, "num_stages": tiles.stages}
    result = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    usage = resources(result.asm["cubin"])
    return {
        "case": f"sm_{architecture} {kind} {'output and score' if with_output else 'score'}",
        "matrix": next((word for word in ("wgmma", "mma.sync") if word in result.asm["ptx"]), None),
        "shared": result.metadata.shared,
        "registers": usage["REG"],
        "spilled": usage["STACK"] + usage["LOCAL"],
    }


def resources(binary: bytes) -> dict[str, int]:
    """What the assembler gave a kernel, from Triton's own reader of binaries."""
    reader = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    path = Path("kernel.cubin")
    path.write_bytes(binary)
    command = [str(reader), "--dump-resource-usage", str(path)]
    report = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {name: int(count) for name, count in re.findall(r"(REG|STACK|LOCAL):(\d+)", report)}


def main() -> None:
    """Compile every form for Ampere and Hopper."""
    rows = [
        compiled(kind, with_output, architecture)
        for architecture in (80, 90)
        for kind in ("bf16", "fp16")
        for with_output in (True, False)
    ]
    sys.stdout.write(json.dumps(rows))


if __name__ == "__main__":
    main()
