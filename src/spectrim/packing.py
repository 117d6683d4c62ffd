"""Weights of linear layers, laid out once for the processor that multiplies by them.

A matrix product on a CPU copies its weight matrix into blocks first, at every call. oneDNN, which comes with PyTorch,
can be given the blocks instead, as `torch.compile` does with frozen weights; docs/performance.md has what that saves.
"""

from __future__ import annotations

import platform
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import addmm_flop, register_flop_formula

CAN_PACK = platform.machine().lower() in ("x86_64", "amd64") and torch.backends.mkldnn.is_available()
"""Whether this processor and this build of PyTorch have what `pack_weights` needs."""

LEAST_WEIGHTS = 1 << 17
"""Smaller layers are not packed: what a call costs beside the product outweighs the gain when rows are few."""

_Module = TypeVar("_Module", bound=nn.Module)


def pack_weights(model: _Module) -> _Module:
    """Lay out the weights of a model's linear layers for float32 inference on an x86-64 CPU.

    The logits stay the same to rounding. The parameters stay beside the blocks, so the linear layers take twice the
    memory, and saving, copying or exporting the model gives an ordinary one. A pass with gradients, ``train()``, a
    cast, a move to another device, or a weight that was written to turns a layer back into an ordinary one; call this
    again after that. A write through ``weight.data`` goes unseen, as in autograd: call this again after it, too.

    Args:
        model: any module; its layers of type `torch.nn.Linear` with float32 weights on a CPU, and no fewer of them than
            `LEAST_WEIGHTS`, are packed, others left alone. On other processors, or where PyTorch was built without
            oneDNN, nothing is done.

    Returns:
        The model itself.
    """
    if CAN_PACK:
        for layer in model.modules():
            if isinstance(layer, PackedLinear):
                layer.unpack()
            if type(layer) is nn.Linear and _pays(layer.weight):
                layer.__class__ = PackedLinear
                layer.pack()  # type: ignore[operator]
    return model


class PackedLinear(nn.Linear):
    """A linear layer that also has its weights in blocks; what `pack_weights` makes of a `torch.nn.Linear`."""

    def pack(self) -> None:
        """Lay out the weights."""
        weight = self.weight.detach()
        self.__dict__["_blocks"] = torch.ops.mkldnn._reorder_linear_weight(weight)
        self.__dict__["_packed_from"] = _state(weight)

    def unpack(self) -> None:
        """Become an ordinary linear layer."""
        self.__dict__.pop("_blocks", None)
        self.__dict__.pop("_packed_from", None)
        self.__class__ = nn.Linear  # type: ignore[assignment]

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) → (..., out_features)."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or type(input) is not Tensor:
            return super().forward(input)
        if torch.is_grad_enabled() or self._packed_from != _state(self.weight):
            result = super().forward(input)
            self.unpack()
            return result
        fits = input.dtype == torch.float32 and input.is_cpu and input.shape[-1:] == (self.in_features,)
        if not fits or torch.is_autocast_enabled("cpu") or not torch.backends.mkldnn.enabled:
            return super().forward(input)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(input, self._blocks, self.bias, "none", [], "")
        return product

    def train(self, mode: bool = True) -> PackedLinear:
        """Set the mode; weights that are to be trained are no longer those in the blocks."""
        if mode:
            self.unpack()
        return super(nn.Linear, self).train(mode)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        result = super()._apply(fn, recurse)
        if self._packed_from != _state(self.weight):
            self.unpack()
        return result

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.unpack()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_blocks", "_packed_from")}


def _pays(weight: Tensor) -> bool:
    plain = type(weight) is nn.Parameter and weight.dtype == torch.float32 and weight.device.type == "cpu"
    return plain and not weight.is_inference() and weight.numel() >= LEAST_WEIGHTS


def _state(weight: Tensor) -> tuple[int, int, torch.dtype, torch.device]:
    """What changes when a weight is written to, cast, moved or replaced."""
    return weight._version, weight.data_ptr(), weight.dtype, weight.device


def _flops(input_shape: list[int], weight_shape: list[int], bias_shape: Any, *rest: Any, out_shape: Any = None) -> int:
    """Floating-point operations of a packed layer, for `torch.utils.flop_counter`: those of a linear one."""
    rows = 1
    for size in input_shape[:-1]:
        rows *= size
    return int(addmm_flop(None, [rows, input_shape[-1]], [weight_shape[1], weight_shape[0]]))


if CAN_PACK:
    register_flop_formula(torch.ops.mkldnn._linear_pointwise)(_flops)
