"""What the speed benchmark runs: inputs of several lengths, our model in its forms, and the peers.

A case is a backbone on an input; a contender is something that answers it. Each contender is one entry in `CONTENDERS`.
"""

from __future__ import annotations

import copy
import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from peers import reference, tome
from torch import Tensor
from transformers import ASTConfig, ASTForAudioClassification

from spectrim.backbones import BUILDERS
from spectrim.checkpoints import from_pretrained
from spectrim.inference.onnx_export import comparison_clips, export
from spectrim.inference.onnx_model import OnnxModel
from spectrim.inference.openvino_model import compiled
from spectrim.inference.packing import pack_weights
from spectrim.network.macs import macs
from spectrim.network.transformer import AudioTransformer

LABELS = 527
RATES = (1.0, 0.7, 0.5)
SMALL = {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128, "num_hidden_layers": 4}
"""Fields of models that show that a benchmark runs; their times say nothing."""

SMALL_PRUNED = {**SMALL, "prune_at": [1, 2]}
"""The same for our own configuration, whose usual pruning blocks such models lack."""

TELLING = {"head_init_std": 0.02}
"""AudioMAE's own 2e-5 makes all logits so small that wrong ones would agree too."""

Call = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """A backbone on an input.

    Attributes:
        backbone: ``"ast"`` or ``"audiomae"``, in ViT-B size.
        frames: of the input, 10 ms each.
        stride: of the patches.
        what: for people.
    """

    backbone: str
    frames: int
    stride: int
    what: str


CASES = {
    "ast-10s": Case("ast", 1024, 16, "AST-B/16, 10 s"),
    "ast-5s": Case("ast", 512, 16, "AST-B/16, 5 s"),
    "ast-1s": Case("ast", 128, 16, "AST-B/16, 1 s"),
    "ast-10s-stride10": Case("ast", 1024, 10, "AST-B, stride 10, 10 s"),
    "audiomae-10s": Case("audiomae", 1024, 16, "AudioMAE-B, 10 s"),
    "audiomae-5s": Case("audiomae", 512, 16, "AudioMAE-B, 5 s"),
    "audiomae-1s": Case("audiomae", 128, 16, "AudioMAE-B, 1 s"),
}


EXPORTED = tuple(CASES[name] for name in ("ast-10s", "ast-1s"))
"""Cases in which exported models are timed too: writing and checking the files takes longer than timing them."""


@dataclass(frozen=True)
class Setting:
    """What contenders are made from.

    Attributes:
        case: the case.
        model: our model, whose weights others share where they can.
        theirs: transformers' AST of the same weights, None for AudioMAE.
        public: the public reference's model (random weights of its own), None where no checkout is named.
        folder: for exported files.
        small: whether the models are tiny ones, of which one export is enough.
    """

    case: Case
    model: AudioTransformer
    theirs: ASTForAudioClassification | None
    public: torch.nn.Module | None
    folder: Path
    small: bool = False


@dataclass(frozen=True)
class Contender:
    """Something to time.

    Attributes:
        name: of what runs, e.g. ``"spectrim"``.
        rate: keep rate; 1 where nothing is dropped; for ToMe the one whose MACs it was set to.
        call: log-mel (batch, frames, mels) → logits (batch, labels).
        macs: multiply-accumulates that one clip takes.
        exact: its logits are those of our model at this keep rate, to rounding.
        detail: what else there is to know.
    """

    name: str
    rate: float
    call: Call
    macs: int
    exact: bool = False
    detail: str | None = None


def prepare(
    name: str, folder: Path, checkout: Path | None = None, libraries: Path | None = None, *, small: bool = False
) -> Setting:
    """Build the models of a case: seeded random weights, since speed does not depend on them.

    Args:
        name: of the case.
        folder: for files.
        checkout: of the public reference, or None.
        libraries: what that needs.
        small: models of `SMALL` size, without the public reference.
    """
    case = CASES[name]
    torch.manual_seed(0)
    theirs = None
    if case.backbone == "ast":
        config = ASTConfig(
            num_labels=LABELS,
            max_length=case.frames,
            frequency_stride=case.stride,
            time_stride=case.stride,
            **(SMALL if small else {}),
        )
        theirs = ASTForAudioClassification(config).eval()
        theirs.save_pretrained(folder / "transformers")
        model = from_pretrained(folder / "transformers", **({"prune_at": SMALL_PRUNED["prune_at"]} if small else {}))
    else:
        fields = {"num_labels": LABELS, "max_length": case.frames, **TELLING, **(SMALL_PRUNED if small else {})}
        model = AudioTransformer(BUILDERS["audiomae-base"](**fields))
    public = None
    if checkout is not None and libraries is not None and case.stride == 16 and not small:
        public = reference.BUILDERS[case.backbone](checkout, libraries, case.frames, LABELS)
    return Setting(case, model.eval(), theirs, public, folder, small)


def own(model: AudioTransformer, rate: float) -> Call:
    """Our model at a keep rate."""

    def call(values: Tensor) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = model(values, keep_rate=rate).logits
            return logits

    return call


def spectrim_models(setting: Setting) -> Iterator[Contender]:
    """Ours in PyTorch, float32, as `spectrim predict` runs it: with packed weights."""
    model = pack_weights(setting.model)
    for rate in RATES:
        yield Contender("spectrim", rate, own(model, rate), macs(model, keep_rate=rate).executed, exact=True)


def spectrim_unpacked(setting: Setting) -> Iterator[Contender]:
    """Ours in PyTorch, float32, as `from_pretrained` gives it."""
    for rate in RATES:
        count = macs(setting.model, keep_rate=rate).executed
        yield Contender("spectrim, weights not packed", rate, own(setting.model, rate), count, exact=True)


def spectrim_bf16(setting: Setting) -> Iterator[Contender]:
    """Ours in PyTorch, bfloat16 weights and arithmetic."""
    model = copy.deepcopy(setting.model).bfloat16()
    for rate in RATES:
        yield Contender("spectrim, bf16", rate, own(model, rate), macs(model, keep_rate=rate).executed)


def transformers_ast(setting: Setting) -> Iterator[Contender]:
    """transformers' AST with both of its ways to attend, with weights packed as ours are, and in bfloat16."""
    if setting.theirs is None:
        return
    for name, how, kind in (
        ("transformers, eager", "eager", torch.float32),
        ("transformers, sdpa", "sdpa", torch.float32),
        ("transformers, sdpa, weights packed", "sdpa", torch.float32),
        ("transformers, sdpa, bf16", "sdpa", torch.bfloat16),
    ):
        model = copy.deepcopy(setting.theirs).to(kind)
        model.set_attn_implementation(how)
        if name.endswith("packed"):
            model = pack_weights(model)

        def call(values: Tensor, model: ASTForAudioClassification = model, kind: torch.dtype = kind) -> Tensor:
            with torch.inference_mode():
                logits: Tensor = model(values.to(kind)).logits
                return logits

        yield Contender(name, 1.0, call, macs(setting.model, keep_rate=1.0).paper, exact=kind == torch.float32)


def merging(setting: Setting) -> Iterator[Contender]:
    """ToMe's merging, with as many tokens merged as brings the MACs down to those of our keep rates."""
    if setting.case.backbone != "ast":
        return
    for rate in RATES[1:]:
        merged = tome.merged_for(setting.model, macs(setting.model, keep_rate=rate).executed)
        model = tome.MergingAST(setting.model, merged).eval()

        def call(values: Tensor, model: tome.MergingAST = model) -> Tensor:
            with torch.inference_mode():
                logits: Tensor = model(values)
                return logits

        count = tome.multiply_accumulates(setting.model, merged)
        yield Contender("ToMe as in FastAST", rate, call, count, detail=f"{merged} tokens merged a block")


def public_reference(setting: Setting) -> Iterator[Contender]:
    """The paper's public models, where a checkout is at hand."""
    if setting.public is None:
        return
    for rate in RATES:
        count = macs(setting.model, keep_rate=rate).paper
        yield Contender("public reference", rate, reference.caller(setting.public, setting.case.backbone, rate), count)


def exported(setting: Setting) -> Iterator[Contender]:
    """Ours in ONNX Runtime (float32, int8) and in OpenVINO (float32, and bfloat16 where the processor has it)."""
    if setting.case not in EXPORTED:
        return
    model = copy.deepcopy(setting.model)
    clips = comparison_clips(model.config, 2)
    for rate in RATES[-1:] if setting.small else RATES:
        model.set_pruning(keep_rate=rate)
        count = macs(model).executed
        for precision in ("fp32", "int8"):
            path = setting.folder / f"{rate:g}-{precision}.onnx"
            export(model, path, precision=precision, clips=clips)
            runtime = OnnxModel(path)
            yield Contender(f"spectrim, ONNX Runtime {precision}", rate, runtime.logits, count, precision == "fp32")
        for hint, call in openvino_calls(setting.folder / f"{rate:g}-fp32.onnx").items():
            yield Contender(f"spectrim, OpenVINO {hint}", rate, call, count, exact=hint == "fp32")


def openvino_calls(path: Path) -> dict[str, Call]:
    """A file in OpenVINO, with as many threads as torch; nothing where it is not installed."""
    if importlib.util.find_spec("openvino") is None:
        return {}
    import openvino

    core = openvino.Core()
    hints = {"fp32": "f32"}
    if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        hints["bf16"] = "bf16"
    calls = {}
    for name, hint in hints.items():
        settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": torch.get_num_threads()}
        model = compiled(core.read_model(path), {**settings, "PERFORMANCE_HINT": "LATENCY"})
        request = model.create_infer_request()

        def call(values: Tensor, request: openvino.InferRequest = request) -> Tensor:
            return torch.from_numpy(request.infer({"input_values": values.numpy()})["logits"])

        calls[name] = call
    return calls


CONTENDERS: dict[str, Callable[[Setting], Iterator[Contender]]] = {
    "transformers": transformers_ast,
    "tome": merging,
    "reference": public_reference,
    "spectrim": spectrim_models,
    "unpacked": spectrim_unpacked,
    "bf16": spectrim_bf16,
    "exported": exported,
}


def reference_difference(setting: Setting) -> dict[str, float] | None:
    """How far the public reference and ours, loaded from its weights, are apart in the logits, per keep rate.

    Returns:
        Keep rate → largest difference over the standard deviation of the reference's logits; None without a reference.
    """
    if setting.public is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = reference.save(setting.public, setting.case.backbone, Path(folder))
        model = from_pretrained(path, frames=setting.case.frames)
    values = torch.randn(1, setting.case.frames, 128, generator=torch.Generator().manual_seed(1))
    found = {}
    for rate in RATES:
        theirs = reference.caller(setting.public, setting.case.backbone, rate)(values)
        found[f"{rate:g}"] = apart(own(model, rate)(values), theirs)
    return found


def apart(logits: Tensor, wanted: Tensor) -> float:
    """Largest difference of logits, in standard deviations of those that were wanted."""
    return float((logits.float() - wanted.float()).abs().max() / wanted.float().std())
