"""Where a forward pass spends its time, by operation, and what other ways of computing would change.

    python benchmarks/where_time_goes.py --json benchmarks/results/where_time_goes.json

``operations``: torch.profiler's own time of each operation, as a share of the pass (AST-B/16 and AudioMAE-B on 10 s,
keep rates 1 and 0.7, batches of 1 and 8). ``alternatives``: the same model run in other ways, in turn in one run: the
MLP without its pieces, weights that are not packed (`spectrim.pack_weights`), one thread, one product for queries, keys
and values where every token goes on, torch.utils.mkldnn's linear layers, bfloat16, torch.compile with frozen weights,
and other numbers of query rows at once for AudioMAE's score. ``clips_a_pass``: sixteen clips in passes of several
sizes. ``products``: what linear layers alone reach, in GFLOP/s. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from cases import LABELS, SMALL_PRUNED, TELLING, Call, apart, own
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils import mkldnn

from spectrim.backbones import BUILDERS
from spectrim.files import write_json
from spectrim.inference.packing import pack_weights
from spectrim.machine import environment
from spectrim.measure import benchmark
from spectrim.network import blocks
from spectrim.network.blocks import Attention
from spectrim.network.transformer import AudioTransformer
from spectrim.pruning.criteria import attention

FRAMES = 1024
SMALL_FRAMES = 256
TOKENS = (66, 514, 4112)
"""Of 1 s, of 10 s and of eight times 10 s."""
KINDS = {
    "aten::addmm": "linear layers",
    "aten::mm": "linear layers",
    "mkldnn::_linear_pointwise": "linear layers",
    "aten::_scaled_dot_product_flash_attention_for_cpu": "attention (SDPA)",
    "aten::bmm": "score: products",
    "aten::_softmax": "score: softmax",
    "aten::sum": "score: sums",
    "aten::topk": "selection: top-k",
    "aten::gather": "selection: gather",
    "aten::gelu": "GELU",
    "aten::native_layer_norm": "LayerNorm",
    "aten::add": "residual and bias sums",
    "aten::mkldnn_convolution": "patch embedding",
    "aten::copy_": "copies",
    "aten::cat": "copies",
}


def built(backbone: str, fields: Mapping[str, Any]) -> AudioTransformer:
    """A ViT-B, or what ``fields`` make of it, with seeded random weights."""
    torch.manual_seed(0)
    sizes = {"num_labels": LABELS, "max_length": FRAMES, **TELLING, **fields}
    config = BUILDERS[f"{backbone}-base"](**sizes)
    return AudioTransformer(config).eval()


def operations(model: AudioTransformer, rate: float, batch: int, passes: int) -> dict[str, float]:
    """Share of each kind of operation in a pass, the largest first."""
    values = torch.randn(batch, model.config.max_length, 128, generator=torch.Generator().manual_seed(0))
    call = own(model, rate)
    call(values)
    with profile(activities=[ProfilerActivity.CPU]) as watched:
        for _ in range(passes):
            call(values)
    taken: dict[str, float] = {}
    for event in watched.key_averages():
        kind = KINDS.get(event.key, "everything else")
        taken[kind] = taken.get(kind, 0.0) + event.self_cpu_time_total
    total = sum(taken.values())
    return {kind: time / total for kind, time in sorted(taken.items(), key=lambda item: -item[1])}


class JointAttention(Attention):
    """Queries, keys and values of all tokens in one product, as the originals have it.

    The queries wait in the module between the two calls that a block makes: fit to be timed, and for nothing else.
    """

    def __init__(self, attention: Attention) -> None:
        nn.Module.__init__(self)
        self.heads, self.output = attention.heads, attention.output
        self.joint = nn.Linear(attention.query.in_features, 3 * attention.query.out_features)
        with torch.no_grad():
            self.joint.weight.copy_(torch.cat([attention.query.weight, attention.key_value.weight]))
            self.joint.bias.copy_(torch.cat([attention.query.bias, attention.key_value.bias]))
        self.waiting: Tensor | None = None

    def keys_values(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Compute all three and hold the queries."""
        self.waiting, keys, values = self.joint(tokens).chunk(3, dim=-1)
        return self.split(keys), self.split(values)

    def query(self, tokens: Tensor) -> Tensor:
        """The queries held."""
        if self.waiting is None or self.waiting.shape[1] != tokens.shape[1]:
            raise ValueError("only for blocks in which every token goes on")
        queries, self.waiting = self.waiting, None
        return queries


def joint(model: AudioTransformer) -> AudioTransformer:
    """A copy of a model with `JointAttention` in the blocks that neither prune nor come last."""
    changed = copy.deepcopy(model)
    for number, block in enumerate(changed.blocks[:-1]):
        if number not in model.config.prune_at:
            block.attention = JointAttention(block.attention)
    return pack_weights(changed)


def with_mkldnn_layers(model: AudioTransformer) -> nn.Module:
    """A copy of a model with `torch.utils.mkldnn`'s linear layers: packed weights, tensors converted to and fro."""
    changed = copy.deepcopy(model)
    for module in changed.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, mkldnn.MkldnnLinear(child, torch.float))
    return changed


def compiled(model: AudioTransformer, rate: float, values: Tensor) -> Call:
    """torch.compile with frozen weights."""
    from torch._inductor import config

    program = torch.compile(copy.deepcopy(model), dynamic=False)

    def call(given: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = program(given, keep_rate=rate).logits
            return logits

    with config.patch(freezing=True):
        call(values)
    return call


def with_threads(call: Call, threads: int) -> Call:
    """The same with another number of torch threads."""

    def limited(values: Tensor) -> Tensor:
        usual = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            return call(values)
        finally:
            torch.set_num_threads(usual)

    return limited


def with_setting(call: Call, module: ModuleType, name: str, value: int) -> Call:
    """The same with another value of a constant."""

    def changed(values: Tensor) -> Tensor:
        usual = getattr(module, name)
        setattr(module, name, value)
        try:
            return call(values)
        finally:
            setattr(module, name, usual)

    return changed


def alternatives(
    models: Mapping[str, AudioTransformer], repeats: int, rate: float, batch: int, *, with_compile: bool
) -> list[dict[str, Any]]:
    """Times of other ways to compute the same; ratios above 1 are faster than the way that Spectrim takes."""
    ast, audiomae = models["ast"], models["audiomae"]
    values = torch.randn(batch, ast.config.max_length, 128, generator=torch.Generator().manual_seed(0))
    usual = own(pack_weights(ast), rate)
    calls = {
        "as it is": usual,
        "MLP of all tokens at once": with_setting(usual, blocks, "MLP_ROWS", sys.maxsize),
        "weights not packed": own(ast, rate),
        "one thread": with_threads(usual, 1),
        "one product for queries, keys and values": own(joint(ast), rate),
        "torch.utils.mkldnn's linear layers": own(with_mkldnn_layers(ast), rate),
        "bfloat16": own(copy.deepcopy(ast).bfloat16(), rate),
    }
    if with_compile:
        calls["torch.compile, frozen weights"] = compiled(ast, rate, values)
    rows = timed("AST-B/16", rate, batch, {name: partial(call, values) for name, call in calls.items()}, repeats)
    usual = own(pack_weights(audiomae), rate)
    calls = {
        f"as it is: {attention.QUERY_CHUNK} query rows of the score at once": usual,
        **{
            f"{rows} query rows at once": with_setting(usual, attention, "QUERY_CHUNK", rows)
            for rows in (32, 64, 256, 512)
        },
    }
    return rows + timed(
        "AudioMAE-B", rate, batch, {name: partial(call, values) for name, call in calls.items()}, repeats
    )


def timed(
    model: str, rate: float, batch: int, calls: dict[str, Callable[[], Tensor]], repeats: int
) -> list[dict[str, Any]]:
    """Rows of one comparison; the first entry is what the others are compared with."""
    logits = {name: call() for name, call in calls.items()}
    seconds = benchmark.interleaved(calls, repeats=repeats, warmup=1, rest=0.05, shuffle=0)
    first = next(iter(calls))
    return [
        {
            "model": model,
            "keep_rate": rate,
            "batch_size": batch,
            "way": name,
            **benchmark.spread(taken),
            "speed_up": statistics.median(seconds[first]) / statistics.median(taken),
            "logits_apart": apart(logits[name], logits[first]),
        }
        for name, taken in seconds.items()
    ]


def clips_a_pass(
    model: AudioTransformer, repeats: int, rate: float, clips: int, sizes: Sequence[int]
) -> list[dict[str, Any]]:
    """Time for so many clips, in passes of several sizes: memory that fits a cache against work for every thread."""
    values = torch.randn(clips, model.config.max_length, 128, generator=torch.Generator().manual_seed(0))
    call = own(model, rate)

    def passes(size: int) -> list[Tensor]:
        return [call(values[start : start + size]) for start in range(0, clips, size)]

    seconds = benchmark.interleaved({size: partial(passes, size) for size in sizes}, repeats=repeats, warmup=1)
    return [
        {"clips_a_pass": size, "keep_rate": rate, **benchmark.spread([one / clips for one in taken])}
        for size, taken in seconds.items()
    ]


def products(repeats: int, work_a_call: float, counts: Sequence[int]) -> list[dict[str, Any]]:
    """GFLOP/s of a linear layer alone, as it is and packed, in the shapes of ViT-B.

    Args:
        repeats: timings of each.
        work_a_call: operations in a timing, at least.
        counts: rows of the input.
    """
    torch.manual_seed(0)
    found = []
    for inputs, outputs in ((768, 768), (768, 1536), (768, 3072), (3072, 768)):
        plain = nn.Linear(inputs, outputs)
        ways = {"as it is": plain, "packed": pack_weights(plain)}
        for rows in counts:
            values, work = torch.randn(rows, inputs), 2 * rows * inputs * outputs
            times = max(1, int(work_a_call // work))

            def call(layer: nn.Module, values: Tensor = values, times: int = times) -> None:
                with torch.inference_mode():
                    for _ in range(times):
                        layer(values)

            seconds = benchmark.interleaved(
                {name: partial(call, layer) for name, layer in ways.items()}, repeats=repeats
            )
            sizes = {"inputs": inputs, "outputs": outputs, "rows": rows}
            found += [
                {**sizes, "way": way, "gflops": 1e-9 * work * times / statistics.median(taken)}
                for way, taken in seconds.items()
            ]
    return found


def main() -> None:
    """Profile, time, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="file to write")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out, which takes minutes")
    parser.add_argument("--small", action="store_true", help="tiny models: shows that it runs; times say nothing")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    fields = {**SMALL_PRUNED, "max_length": SMALL_FRAMES} if options.small else {}
    models = {backbone: built(backbone, fields) for backbone in ("ast", "audiomae")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shares = [
            {
                "model": backbone,
                "keep_rate": rate,
                "batch_size": batch,
                "share": operations(pack_weights(model), rate, batch, 3),
            }
            for backbone, model in models.items()
            for rate in (1.0, 0.7)
            for batch in (1, 8)
        ]
        rows: list[dict[str, Any]] = []
        for batch in (1, 8):
            rows += alternatives(models, options.repeats, 0.7, batch, with_compile=not options.no_compile)
        sizes = clips_a_pass(pack_weights(models["ast"]), max(options.repeats // 2, 1), 0.7, 16, (1, 2, 4, 8, 16))
    facts = {"environment": environment(), "small": options.small, "load_average_before": load}
    facts["repeats"] = options.repeats
    work, counts = (1e6, TOKENS[:1]) if options.small else (2e9, TOKENS)
    facts["products"] = products(2 * options.repeats + 1, work, counts)
    write_json(options.json, {**facts, "operations": shares, "alternatives": rows, "clips_a_pass": sizes})


if __name__ == "__main__":
    main()
