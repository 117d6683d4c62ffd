"""An exported model in OpenVINO, on the CPU."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from spectrim.checkpoints.untrusted import one_line
from spectrim.errors import CheckpointError, InvalidSetting, one_of
from spectrim.inference.exported_model import ExportedModel, Shapes, need

HINTS = {"fp32": "f32", "bf16": "bf16", "int8": "f32"}
"""Precision → OpenVINO's word for the arithmetic of what is not a linear layer."""


class OpenVinoModel(ExportedModel):
    """A file that `spectrim export` wrote, in OpenVINO; see `ExportedModel`.

    Args:
        path: the file.
        device: ``"auto"`` or ``"cpu"``.
        precision: what an fp32 file is run in. ``"bf16"``: weights and arithmetic. ``"int8"``: the weights of linear
            layers in 8 bits, one scale an output, and what they are multiplied with quantised as it comes, a few
            hundred numbers of a row at a time. None as the file is.

    Raises:
        InvalidSetting: there is no such device, or the precision cannot be had from this file or processor.
        MissingExtra: openvino is not installed.
        CheckpointError: the file is missing or damaged, or not one of ours.
    """

    packages: ClassVar[tuple[str, ...]] = ("openvino",)

    def __init__(self, path: str | os.PathLike[str], device: str = "cpu", precision: str | None = None) -> None:
        check_openvino(device, precision)
        self._asked = precision
        super().__init__(path, torch.device("cpu"))

    @property
    def precision(self) -> str:
        """What was asked for, or that of the file."""
        return self._asked or self._precision

    def to(self, device: str) -> OpenVinoModel:
        """See `Backend.to`: it runs on the CPU only."""
        check_openvino(device)
        return self

    def weights(self) -> Iterable[tuple[str, Tensor]]:
        """The file as one tensor of bytes, by a name that says what it is run in."""
        for name, content in super().weights():
            yield f"{name} in OpenVINO, {self.precision}", content

    def _open(self) -> tuple[Mapping[str, str], Shapes, Shapes]:
        import openvino

        try:
            self._graph = openvino.Core().read_model(self.path)
            facts = self._graph.get_rt_info()["framework"]
            table = {name: str(fact.value) for name, fact in facts.items()}
        except (RuntimeError, KeyError) as error:
            raise CheckpointError(f"{self.path}: OpenVINO cannot read it ({one_line(str(error))})") from error
        return table, _shapes(self._graph.inputs), _shapes(self._graph.outputs)

    def _start(self) -> None:
        if self._asked not in (None, "fp32", self._precision) and self._precision != "fp32":
            allowed = f"{self._precision}, as {self.name} was exported, or an fp32 file"
            raise InvalidSetting("precision", self._asked, allowed)
        settings: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": HINTS.get(self.precision, "f32"),
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        if self._asked == "int8" and self._precision == "fp32":
            _compress(self._graph)
            settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = self.config.hidden_size
        self._request = compiled(self._graph, settings).create_infer_request()
        self._one_caller = Lock()

    def _infer(self, feeds: Mapping[str, NDArray]) -> tuple[NDArray, NDArray]:
        # The request holds its inputs and outputs: until they are copied, no other thread may set its own.
        with self._one_caller:
            found = self._request.infer(dict(feeds))
            return np.array(found["logits"]), np.array(found["kept"])


def check_openvino(device: str = "cpu", precision: str | None = None) -> None:
    """Refuse what OpenVINO cannot do here; see `OpenVinoModel`."""
    if device not in ("auto", "cpu"):
        raise InvalidSetting("device", device, "auto or cpu with OpenVINO")
    if precision is not None and precision not in HINTS:
        raise InvalidSetting("precision", precision, one_of(HINTS) + " with OpenVINO")
    need("openvino", "running a model in OpenVINO", "openvino")
    import openvino

    if precision == "bf16" and "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise InvalidSetting("precision", precision, "fp32 or int8: this processor does not multiply bfloat16")


def compiled(graph: Any, settings: Mapping[str, Any]) -> Any:
    """Compile a graph for the CPU, on a thread of its own.

    OpenVINO (2026.4) gives the thread that compiles a signal stack (`sigaltstack`), and when models go in another order
    than they came puts one back that is freed: the next signal, a Ctrl-C or the end of a child, would kill the process.

    Args:
        graph: from ``openvino.Core().read_model``.
        settings: properties of the CPU plugin.

    Returns:
        ``openvino.CompiledModel``.
    """
    import openvino

    with ThreadPoolExecutor(1) as apart:
        return apart.submit(openvino.Core().compile_model, graph, "CPU", dict(settings)).result()


def _shapes(places: Any) -> Shapes:
    """Shapes without the batch; −1 for what is not fixed."""
    return {
        place.get_any_name(): tuple(
            size.get_length() if size.is_static else -1 for size in list(place.get_partial_shape())[1:]
        )
        for place in places
    }


def _compress(graph: Any) -> None:
    """Put the weights of a graph's linear layers into 8 bits, one scale an output, in place."""
    from openvino import opset13

    for node in graph.get_ordered_ops():
        if node.get_type_name() != "MatMul":
            continue
        source = node.input_value(1).get_node()
        if source.get_type_name() != "Constant" or len(source.get_output_shape(0)) != 2:
            continue
        weight = source.get_data()
        rows = int(bool(node.get_attributes()["transpose_b"]))
        scale = np.maximum(np.abs(weight).max(axis=rows, keepdims=True) / 127, np.finfo(np.float32).tiny)
        whole = opset13.constant(np.round(weight / scale).astype(np.int8))
        restored = opset13.multiply(opset13.convert(whole, "f32"), opset13.constant(scale.astype(np.float32)))
        node.input(1).replace_source_output(restored.output(0))
    graph.validate_nodes_and_infer_types()
