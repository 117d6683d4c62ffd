"""A model as an ONNX graph: the same forward and the same front end, traced by torch.export, pruning inside.

PyTorch's exporter writes the graph. Some operations are put into ONNX otherwise than it would do it (`LOWERINGS`), for
speed in ONNX Runtime and for OpenVINO, which takes no Fourier transform in float64; see docs/export.md. What the graph
computes is not written a second time.
"""

from __future__ import annotations

import copy
import logging
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import compose
from onnxscript import opset20
from torch import Tensor, nn

from spectrim.audio.frontend import Frontend
from spectrim.network.transformer import AudioTransformer

OPSET = 20
"""The first with GELU; ONNX Runtime reads it from 1.17 on. Opset 23's Attention saves nodes and no time."""

op: Any = opset20


class Encoder(nn.Module):
    """What a graph computes from log-mel spectrograms.

    Args:
        model: with the pruning that the graph is to have.
        activate: logits → scores.
    """

    def __init__(self, model: AudioTransformer, activate: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self.activate = activate

    def forward(self, input_values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Classify.

        Args:
            input_values: (batch, frames, mels).

        Returns:
            Logits (batch, labels), scores (batch, labels), and kept (batch, F, T) int32: of how many pruning blocks,
            in their order, a patch came out alive.
        """
        out = self.model(input_values, output_token_trace=True)
        stages = sorted(self.model.config.prune_at)
        shape = (input_values.shape[0], *self.model.config.grid)
        kept = torch.zeros(shape, dtype=torch.int32, device=input_values.device)
        for block in stages:
            kept = kept + out.token_trace.kept[block].to(torch.int32)
        logits = out.logits.float()
        return logits, self.activate(logits), kept


class WaveformInput(nn.Module):
    """What a graph computes from waveforms, before `Encoder`."""

    def __init__(self, frontend: Frontend) -> None:
        super().__init__()
        self.frontend = frontend

    def forward(self, waveforms: Tensor, num_samples: Tensor) -> Tensor:
        """Log-mel values, padded and normalised.

        Args:
            waveforms: (batch, samples), as many samples as fill the frames; what is behind a clip's end is not read.
            num_samples: (batch,) int64: where each clip ends; one frame at least is taken to be there.

        Returns:
            (batch, max_length, mels).
        """
        return self.frontend.filled(waveforms, num_samples).input_values


def encoder_graph(
    model: AudioTransformer, activate: Callable[[Tensor], Tensor], precision: str = "fp32"
) -> onnx.ModelProto:
    """The graph from log-mel spectrograms to logits, scores and kept patches.

    Args:
        model: on the CPU, in float32; it is not changed.
        activate: logits → scores.
        precision: ``"fp32"``; ``"fp16"``: weights and arithmetic in half precision, but the softmax of the attention,
            the statistics of LayerNorm and all inputs and outputs in float32; ``"int8"``: the weights of linear layers
            in 8 bits, one scale an output, what they are multiplied with likewise, quantised as it comes.
    """
    size = (model.config.max_length, model.config.num_mel_bins)
    if precision == "fp16":
        model = copy.deepcopy(model).half()
    graph = _export(Encoder(model, activate), {"input_values": torch.zeros(2, *size)}, ("logits", "scores", "kept"))
    return quantised(graph) if precision == "int8" else graph


def with_front_end(encoder: onnx.ModelProto, frontend: Frontend) -> onnx.ModelProto:
    """Put the front end before a graph of `encoder_graph`: it then takes ``waveforms`` and ``num_samples``.

    Args:
        encoder: of the front end's number of frames and mels.
        frontend: on the CPU.
    """
    samples = frontend.samples
    inputs = {"waveforms": torch.zeros(2, samples), "num_samples": torch.full((2,), samples)}
    before = _export(WaveformInput(frontend), inputs, ("input_values",))
    before = compose.add_prefix(before, "front_end.", rename_inputs=False, rename_outputs=False)
    return compose.merge_models(before, encoder, io_map=[("input_values", "input_values")])


def quantised(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Weights of linear layers as int8, one scale an output; ONNX Runtime's dynamic quantisation."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    prepared = onnx.ModelProto()
    prepared.CopyFrom(graph)
    onnx.helper.set_model_props(prepared, {"onnx.quant.pre_process": "onnxruntime.quant"})
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "int8.onnx"
        quantize_dynamic(
            prepared, target, weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=["MatMul"]
        )
        return onnx.load(target)


def read(path: str | os.PathLike[str]) -> onnx.ModelProto:
    """A graph from a file."""
    return onnx.load(path)


def write(graph: onnx.ModelProto, path: Path, facts: Mapping[str, str]) -> None:
    """Write one file, weights and all.

    Args:
        graph: to write; it gets the metadata.
        path: the file.
        facts: the metadata.
    """
    graph.producer_name, graph.producer_version = "spectrim", facts["spectrim_version"]
    graph.graph.name = "spectrim"
    del graph.metadata_props[:]
    onnx.helper.set_model_props(graph, dict(facts))
    onnx.checker.check_model(graph)
    path.write_bytes(graph.SerializeToString())


def _export(module: nn.Module, inputs: dict[str, Tensor], outputs: Sequence[str]) -> onnx.ModelProto:
    """Trace a module with any batch size; nothing of where it was made stays in the graph."""
    batch = torch.export.Dim("batch", min=1)
    with _quiet(), torch.no_grad():
        traced = torch.export.export(
            module.eval(), tuple(inputs.values()), dynamic_shapes=tuple({0: batch} for _ in inputs), strict=False
        )
        program = torch.onnx.export(
            traced,
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            input_names=list(inputs),
            output_names=list(outputs),
            custom_translation_table=LOWERINGS,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export returned no program")
    graph = program.model_proto
    del graph.graph.value_info[:]
    graph.graph.ClearField("doc_string")
    graph.ClearField("metadata_props")
    for part in (graph.graph, *graph.graph.node, *graph.graph.input, *graph.graph.output, *graph.graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    return graph


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep to itself what the exporter says of its own libraries."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _attention(query: Any, key: Any, value: Any, attn_mask: Any = None, **_: Any) -> Any:
    """Attention, the softmax in float32: one transposition of the keys, one scaling, no shapes."""
    scale = op.CastLike(op.Constant(value_float=1.0 / math.sqrt(query.shape[-1])), query)
    logits = op.MatMul(op.Mul(query, scale), op.Transpose(key, perm=[0, 1, 3, 2]))
    logits = op.Cast(logits, to=onnx.TensorProto.FLOAT)
    if attn_mask is not None:
        logits = op.Add(logits, op.Cast(attn_mask, to=onnx.TensorProto.FLOAT))
    shares = op.Softmax(logits, axis=-1)
    return op.MatMul(op.CastLike(shares, value), value)


def _gather(data: Any, axis: int, index: Any, sparse_grad: bool = False) -> Any:
    """Whole tokens at once, where the index is one number a token, widened to the token's width."""
    widened = index.producer()
    if axis == 1 and len(data.shape) == 3 and widened is not None and widened.op_type == "Expand":
        narrow = widened.inputs[0]
        if len(narrow.shape) == 3 and narrow.shape[-1] == 1:
            return op.GatherND(data, narrow, batch_dims=1)
    return op.GatherElements(data, index, axis=axis)


def _unfold(data: Any, axis: int, size: int, step: int) -> Any:
    """Windows as shifted rows laid side by side; copies, where the exporter would look up every sample."""
    rank = len(data.shape)
    axis %= rank
    length = data.shape[axis]
    windows, rows = (length - size) // step + 1, -(-size // step)
    last = [other for other in range(rank) if other != axis]
    if axis != rank - 1:
        data = op.Transpose(data, perm=[*last, axis])
    wanted = (windows + rows - 1) * step
    if wanted > length:
        data = op.Pad(data, _whole([0] * (2 * rank - 1) + [wanted - length]))
    elif wanted < length:
        data = op.Slice(data, _whole([0]), _whole([wanted]), _whole([rank - 1]))
    data = op.Reshape(data, _whole([0] * (rank - 1) + [-1, step]))
    if rows > 1:
        parts = [op.Slice(data, _whole([row]), _whole([row + windows]), _whole([rank - 1])) for row in range(rows)]
        data = op.Concat(*parts, axis=-1)
    if rows * step > size:
        data = op.Slice(data, _whole([0]), _whole([size]), _whole([rank]))
    if axis == rank - 1:
        return data
    return op.Transpose(data, perm=[*range(axis), rank - 1, *range(axis, rank - 1), rank])


def _real_fourier(data: Any, axes: Sequence[int], normalisation: int, one_sided: bool) -> Any:
    """A real Fourier transform along the last axis as a matrix product, in the type of its input."""
    length = data.shape[-1]
    angle = np.arange(length)[:, None] * np.arange(length // 2 + 1) * (2.0 * np.pi / length)
    matrix = np.stack([np.cos(angle), -np.sin(angle)], axis=-1).reshape(length, -1)
    product = op.MatMul(data, op.CastLike(op.Constant(value=onnx.numpy_helper.from_array(matrix)), data))
    return op.Reshape(product, _whole([0] * (len(data.shape) - 1) + [-1, 2]))


def _stable_sort(data: Any, stable: bool = True, dim: int = -1, descending: bool = False) -> Any:
    """Sort; of equal values that with the lower index comes first.

    ONNX's TopK says so too, but OpenVINO's puts equal values in any order. So a second one sorts by the place among the
    different values, then by index: whole numbers of which no two are equal.
    """
    size = data.shape[dim]
    axis = dim % len(data.shape)
    values, index = op.TopK(data, _whole([size]), axis=axis, largest=int(descending), sorted=1)
    first = op.Slice(values, _whole([0]), _whole([1]), _whole([axis]))
    others = op.Slice(values, _whole([0]), _whole([size - 1]), _whole([axis]))
    differs = op.Not(op.Equal(values, op.Concat(first, others, axis=axis)))
    place = op.CumSum(op.Cast(differs, to=onnx.TensorProto.INT64), op.Constant(value_int=axis))
    number = op.Constant(value_int=size)
    distinct = op.Add(op.Mul(place, number), index)
    ordered, _ = op.TopK(distinct, _whole([size]), axis=axis, largest=0, sorted=1)
    return values, op.Mod(ordered, number)


def _whole(numbers: Sequence[int]) -> Any:
    return op.Constant(value_ints=list(numbers))


LOWERINGS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.scaled_dot_product_attention.default: _attention,
    torch.ops.aten.gather.default: _gather,
    torch.ops.aten.unfold.default: _unfold,
    torch.ops.aten._fft_r2c.default: _real_fourier,
    torch.ops.aten.sort.stable: _stable_sort,
}
"""PyTorch operations that are written into ONNX otherwise than PyTorch's exporter does."""
