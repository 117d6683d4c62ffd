"""Weights of linear layers, laid out once for the processor that multiplies by them.

A matrix product on a CPU copies its weight matrix into blocks first, at every call. oneDNN, which comes with PyTorch,
can be given the blocks instead; docs/performance.md has what that saves.
"""

from __future__ import annotations

import platform
from typing import Any, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.flop_counter import addmm_flop, flop_registry, register_flop_formula

CAN_PACK = platform.machine().lower() in ("x86_64", "amd64") and torch.backends.mkldnn.is_available()
"""Whether this processor and this build of PyTorch have what `pack_weights` needs."""

LEAST_WEIGHTS = 1 << 17
"""Smaller layers are not packed: what a call costs beside the product outweighs the gain when rows are few."""

_Module = TypeVar("_Module", bound=nn.Module)


class _Packed(NamedTuple):
    """The blocks of a layer, and what they were made from.

    Attributes:
        blocks: what oneDNN multiplies by, opaque.
        weight: the parameter.
        values: its tensor then; held, so that no other can come to lie at the same address.
        address: where that lay.
        version: how often it had been written to.
    """

    blocks: Tensor
    weight: Tensor
    values: Tensor
    address: int
    version: int


_PACKED: WeakKeyDictionary[nn.Module, _Packed] = WeakKeyDictionary()
"""Layer → its blocks. Beside the layers, so that no copy and no file gets to see them."""


def pack_weights(model: _Module) -> _Module:
    """Lay out the weights of a model's linear layers for float32 inference on an x86-64 CPU.

    The logits stay the same to rounding. The parameters stay beside the blocks, so the linear layers take twice the
    memory; copies and files of the model hold ordinary layers. What calls for the ordinary product gets it: gradients
    in either mode, autocast, tracing and `torch.compile`, other kinds of input. A pass that records gradients,
    ``train()``, a cast, a move to another device, or a weight that was replaced or written to ends the packing; call
    this again after that.

    Writes that PyTorch does not count go unseen: through ``weight.data`` or a NumPy array on the same memory, or by a
    fused optimiser that trains the weights as another module's. Merge adapters first, then pack.

    Args:
        model: any module; its layers of type `torch.nn.Linear` with float32 weights on a CPU, and no fewer of them than
            `LEAST_WEIGHTS`, are packed, others left alone. On other processors, or where PyTorch was built without
            oneDNN, nothing is done.

    Returns:
        The model itself.
    """
    if CAN_PACK:
        for layer in model.modules():
            if isinstance(layer, nn.Linear) and type(layer) in (nn.Linear, PackedLinear) and _pays(layer.weight):
                weight = layer.weight.detach()
                blocks = torch.ops.mkldnn._reorder_linear_weight(weight)
                layer.__class__ = PackedLinear
                _PACKED[layer] = _Packed(blocks, layer.weight, weight, weight.data_ptr(), weight._version)
    return model


def unpack_weights(model: _Module) -> _Module:
    """Give a model its ordinary linear layers back, e.g. for tools that look for exactly `torch.nn.Linear`.

    Returns:
        The model itself.
    """
    for layer in model.modules():
        _PACKED.pop(layer, None)
        if type(layer) is PackedLinear:
            layer.__class__ = nn.Linear  # type: ignore[assignment]
    return model


def is_packed(layer: nn.Module) -> bool:
    """Whether a layer has blocks of the weights that it has now."""
    packed = _PACKED.get(layer)
    return packed is not None and isinstance(layer, nn.Linear) and _still(packed, layer.weight)


class PackedLinear(nn.Linear):
    """A linear layer that may have its weights in blocks, too; what `pack_weights` makes of a `torch.nn.Linear`."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., in_features) → (..., out_features)."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return super().forward(input)
        packed, bias = _PACKED.get(self), self.bias
        if packed is None or not _plain(input, self.in_features) or not _usual(bias, self.out_features):
            return super().forward(input)
        differentiable = (input, packed.weight) if bias is None else (input, packed.weight, bias)
        records = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in differentiable)
        if records or not _still(packed, self.weight):
            _PACKED.pop(self, None)
            return super().forward(input)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(input, packed.blocks, bias, "none", [], "")
        return product

    def train(self, mode: bool = True) -> PackedLinear:
        """Set the mode; weights that are to be trained are no longer those in the blocks."""
        if mode:
            unpack_weights(self)
        nn.Module.train(self, mode)
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        result = super()._apply(fn, recurse)
        if not is_packed(self):
            unpack_weights(self)
        return result

    def __reduce_ex__(self, protocol: Any) -> Any:
        if type(self) is not PackedLinear:
            return super().__reduce_ex__(protocol)
        return object.__new__, (nn.Linear,), self.__dict__.copy()


def _pays(weight: Tensor) -> bool:
    plain = type(weight) is nn.Parameter and weight.dtype == torch.float32 and weight.device.type == "cpu"
    return plain and not weight.is_inference() and weight.numel() >= LEAST_WEIGHTS


def _still(packed: _Packed, weight: Tensor) -> bool:
    """Whether a layer's weight is the one packed, and as it was then."""
    if weight is not packed.weight:
        return False
    return weight._version == packed.version and weight.data_ptr() == packed.address


def _plain(input: Tensor, features: int) -> bool:
    """Whether an input is one for oneDNN: dense float32 on the CPU, and no transformation at work."""
    if type(input) is not Tensor or input.layout is not torch.strided or input.is_nested:
        return False
    if input.dtype != torch.float32 or not input.is_cpu or input.shape[-1:] != (features,):
        return False
    transformed = forward_ad._current_level >= 0 or torch._C._functorch.peek_interpreter_stack() is not None
    return not transformed and not torch.is_autocast_enabled("cpu") and bool(torch.backends.mkldnn.enabled)


def _usual(bias: Tensor | None, features: int) -> bool:
    """Whether a bias is one for oneDNN, which reads it as numbers side by side."""
    if bias is None:
        return True
    dense = type(bias) is nn.Parameter and bias.is_contiguous() and bias.dtype == torch.float32
    return dense and bias.is_cpu and bias.numel() == features


def _flops(input_shape: list[int], weight_shape: list[int], bias_shape: Any, *rest: Any, out_shape: Any = None) -> int:
    """Floating-point operations of a packed layer, for `torch.utils.flop_counter`: those of a linear one."""
    rows = 1
    for size in input_shape[:-1]:
        rows *= size
    return int(addmm_flop(None, [rows, input_shape[-1]], [weight_shape[1], weight_shape[0]]))


if CAN_PACK and torch.ops.mkldnn._linear_pointwise not in flop_registry:
    register_flop_formula(torch.ops.mkldnn._linear_pointwise)(_flops)
